//! `ringlog-bench disk`: the claim behind the log. A log's author says that sequential access to a disk can beat random access to
//! memory; the figures usually shown for it are six (A. Jacobs, "The Pathologies of Big Data", ACM Queue 7(6), 2009). This command
//! measures the same grid here, in the same unit, through the disk path of the engine, and says which of the claims still hold.
//!
//! [`cells`] lists what is measured, [`file`] and [`ring`] do it on disk, [`memory`] in memory, [`fio`] asks fio for the same,
//! [`claims`] compares, [`table`] and [`chart`] show. The only file that is written, beside the result, has no name: whatever
//! happens, nothing stays behind.

mod cells;
mod chart;
mod claims;
mod file;
mod fio;
mod memory;
mod ring;
mod table;

use std::path::Path;
use std::time::Duration;

use clap::Args;
use ringlog_engine::disk::ring::Runtime;

use crate::cli::Shared;
use crate::error::Error;
use crate::machine::{self, Machine};
use crate::progress::Progress;
use crate::results::{Grid, Medium, Outcome, Way};
use crate::stop;
use crate::units::{bytes, duration, show_bytes, show_count, show_us};
use cells::Measured;
use file::TestFile;

pub(crate) use cells::median;
pub use table::{print, tables};

/// The smallest file: below it a cell is over before it has begun.
const SIZE_BYTES_MIN: u64 = 64 << 20;
/// Positions are kept for every block of the file; this is 64 MiB of them.
const SIZE_BYTES_MAX: u64 = 64 << 30;
const MEMORY_BYTES_MIN: u64 = 2 << 20;
/// Memory that holds so many times what the largest cache does is read from memory and not from the cache.
const CACHES_MIN: u64 = 8;

/// What to measure, and how long.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Size of the test file: larger than what caches of the disk hold [default: 4GiB, 512MiB with --quick]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub size: Option<u64>,
    /// Size of the memory that is accessed [default: 1GiB, or 32 times the largest cache if that is more]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub memory_size: Option<u64>,
    /// How long each cell is measured in each run [default: 2, 0.5 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = duration)]
    pub seconds: Option<Duration>,
    /// How often all cells are measured; what is told is the median [default: 3, 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=101))]
    pub runs: Option<u32>,
    /// Operations in flight where it is not one
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=128))]
    pub depth: u32,
    /// A first impression: a small file, short cells, one run
    #[arg(long)]
    pub quick: bool,
    /// Don't measure the disk's cells with fio as well, though it is installed
    #[arg(long)]
    pub no_fio: bool,
}

/// [`Settings`] with every default filled in, and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    size_bytes: u64,
    memory_bytes: u64,
    cell_time: Duration,
    runs: u32,
    depth: u32,
}

impl Settings {
    fn plan(&self, cache_bytes_max: Option<u64>, memory_available_bytes: Option<u64>) -> Result<Plan, Error> {
        let (size, seconds, runs) = if self.quick { (512 << 20, 500, 1) } else { (4 << 30, 2000, 3) };
        let size_bytes = self.size.unwrap_or(size);
        if !(SIZE_BYTES_MIN..=SIZE_BYTES_MAX).contains(&size_bytes) || !size_bytes.is_multiple_of(cells::SEQUENTIAL_BYTES) {
            return Err(Error::Usage(format!(
                "--size must be a multiple of 1 MiB from {} to {}, not {}",
                show_bytes(SIZE_BYTES_MIN),
                show_bytes(SIZE_BYTES_MAX),
                show_bytes(size_bytes)
            )));
        }
        let cell_time = self.seconds.unwrap_or(Duration::from_millis(seconds));
        if !(Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&cell_time) {
            return Err(Error::Usage(format!(
                "--seconds must be from 0.01 to 3600, not {}",
                show_us(u64::try_from(cell_time.as_micros()).unwrap_or(u64::MAX))
            )));
        }
        let memory_bytes = self.memory_size.unwrap_or_else(|| (cache_bytes_max.unwrap_or(0) * 32).max(1 << 30));
        if memory_bytes < MEMORY_BYTES_MIN || memory_bytes >= u64::from(u32::MAX) * 4 {
            return Err(Error::Usage(format!("--memory-size must be from 2 MiB to 16 GiB, not {}", show_bytes(memory_bytes))));
        }
        if let Some(available) = memory_available_bytes.filter(|available| *available / 2 < memory_bytes) {
            return Err(Error::Usage(format!(
                "--memory-size {} is more than half of the {} that are available: give less",
                show_bytes(memory_bytes),
                show_bytes(available)
            )));
        }
        let memory_bytes = memory_bytes.next_multiple_of(MEMORY_BYTES_MIN);
        Ok(Plan { size_bytes, memory_bytes, cell_time, runs: self.runs.unwrap_or(runs), depth: self.depth })
    }
}

/// Checks the settings.
///
/// # Errors
/// They are nonsense, or more than this machine has.
pub fn check(settings: &Settings) -> Result<(), Error> {
    settings.plan(machine::cache_bytes_max(), machine::memory_available_bytes()).map(drop)
}

/// Measures the grid. Ends early, with what it has, when asked to stop.
///
/// # Errors
/// Nonsense settings, too little room, no io_uring, a directory or a disk that refuses.
pub fn run(settings: &Settings, shared: &Shared) -> Result<Outcome, Error> {
    let cache_bytes = machine::cache_bytes_max();
    let plan = settings.plan(cache_bytes, machine::memory_available_bytes())?;
    let directory = &shared.out;
    file::check_room(machine::room(directory).map_err(Error::io(directory))?, plan.size_bytes)?;
    let runtime = Runtime::with_defaults().map_err(|error| Error::Failed(error.to_string()))?;
    std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
    let progress = Progress::new(shared.quiet);

    let file = runtime.block_on(TestFile::create(directory)).map_err(Error::io(directory))?;
    let bar = progress.bytes("writing the test file", plan.size_bytes);
    let filled = runtime.block_on(ring::fill(&file, plan.size_bytes, |bytes| bar.inc(bytes)));
    bar.finish_and_clear();
    filled.map_err(Error::io(directory))?;

    let mut grid = Grid { settings: shown(&plan), ..Grid::default() };
    if !file.is_direct() {
        grid.notes.push("this filesystem has no O_DIRECT: the direct cells are left out".to_owned());
    }
    match cache_bytes {
        Some(cache) if plan.memory_bytes < cache * CACHES_MIN => grid.notes.push(format!(
            "{} of memory is not far beyond the largest cache ({}): the figures of memory are partly the cache's",
            show_bytes(plan.memory_bytes),
            show_bytes(cache)
        )),
        Some(_) => {}
        None => {
            grid.notes.push("the size of the processor's caches is not known: memory may be partly read from them".to_owned())
        }
    }
    let fio = if settings.no_fio { None } else { fio::Fio::find() };
    let mut measured: Vec<Measured> = cells::all(plan.depth).into_iter().map(Measured::new).collect();
    measured.retain(|cell| cell.cell.way != Way::Direct || file.is_direct());
    measure(&plan, &runtime, &file, fio.as_ref(), &mut measured, &mut grid, progress)?;
    grid.notes.extend(notes(&plan, fio.as_ref(), settings.no_fio));
    grid.cells = measured.iter().filter_map(Measured::result).collect();
    grid.claims = claims::all(&grid.cells);
    Ok(Outcome::Disk(Box::new(grid)))
}

/// All cells, so many times, one after the other, so that what changes over time meets all of them. fio takes its turn with us,
/// and every other run goes first.
fn measure(
    plan: &Plan,
    runtime: &Runtime,
    file: &TestFile,
    fio: Option<&fio::Fio>,
    measured: &mut [Measured],
    grid: &mut Grid,
    progress: Progress,
) -> Result<(), Error> {
    let bar = progress.count("", measured.len() as u64 * u64::from(plan.runs));
    let mut memory = None;
    let mut cached_max: f64 = 0.0;
    for run in 0..plan.runs {
        for cell in measured.iter_mut() {
            bar.set_message(table::name(&cell.cell));
            if cell.cell.medium == Medium::Memory {
                let area = match &mut memory {
                    Some(area) => area,
                    None => memory.insert(memory::Area::new(plan.memory_bytes as usize)?),
                };
                if !stop::requested() {
                    cell.note(area.measure(&cell.cell, plan.cell_time));
                }
            } else {
                let ours_first = run.is_multiple_of(2);
                for is_ours in [ours_first, !ours_first] {
                    cached_max = cached_max.max(on_disk(plan, runtime, file, fio.filter(|_| !is_ours), is_ours, cell)?);
                }
            }
            if stop::requested() {
                bar.finish_and_clear();
                return Ok(());
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if let Some(area) = &memory {
        grid.settings.push(("memory in huge pages".to_owned(), area.huge_pages()));
    }
    if cached_max > 0.02 {
        grid.notes.push(format!(
            "up to {:.0} % of the file stayed in the page cache although it was told to drop it: reads through it look too fast",
            cached_max * 100.0
        ));
    }
    Ok(())
}

/// A cell of the disk, once, by us or by fio. Returns the share of the file that the page cache would not drop.
fn on_disk(
    plan: &Plan,
    runtime: &Runtime,
    file: &TestFile,
    fio: Option<&fio::Fio>,
    is_ours: bool,
    cell: &mut Measured,
) -> Result<f64, Error> {
    if stop::requested() || (!is_ours && fio.is_none()) {
        return Ok(0.0);
    }
    let in_directory = Error::io(file.directory());
    let cached = runtime.block_on(file.drop_cached(plan.size_bytes)).map_err(Error::io(file.directory()))?;
    if let Some(fio) = fio {
        cell.fio.extend(fio.measure(&cell.cell, &file.path(), plan.size_bytes, plan.cell_time)?);
        return Ok(cached);
    }
    let sample = runtime.block_on(ring::measure(file, &cell.cell, plan.size_bytes, plan.cell_time)).map_err(in_directory)?;
    // Cut short, it is no measurement.
    if !stop::requested() {
        cell.note(sample);
    }
    Ok(cached)
}

fn shown(plan: &Plan) -> Vec<(String, String)> {
    let setting = |name: &str, value: String| (name.to_owned(), value);
    vec![
        setting("size", show_bytes(plan.size_bytes)),
        setting("memory-size", show_bytes(plan.memory_bytes)),
        setting("seconds", format!("{}", plan.cell_time.as_secs_f64())),
        setting("runs", plan.runs.to_string()),
        setting("depth", plan.depth.to_string()),
    ]
}

fn notes(plan: &Plan, fio: Option<&fio::Fio>, fio_unwanted: bool) -> Vec<String> {
    let mut notes = vec![
        "published: A. Jacobs, The Pathologies of Big Data, ACM Queue 7(6), 2009; eight 15,000 rpm disks in RAID 5, one SATA SSD".to_owned(),
        format!(
            "a value is 4 bytes; sequential counts every value moved, in accesses of 1 MiB; random counts one value per access, of {} \
             bytes on disk and 4 in memory",
            cells::RANDOM_BYTES
        ),
        "disk accesses go through io_uring by the engine's own path, on one thread".to_owned(),
        format!(
            "before each cell the file is synced and dropped from the page cache (POSIX_FADV_DONTNEED); a cell through the page cache ends \
             where it has seen all of the file's {}, a direct one begins again",
            show_bytes(plan.size_bytes)
        ),
        "what is dropped is this machine's page cache: the disk's own cache, or a virtual machine's host, may still hold a file that is not far \
         larger than it"
            .to_owned(),
        format!(
            "writes are synced (fdatasync) after every {} of sequential and every {} random accesses, and at the end, all of it within the time",
            show_bytes(cells::SYNC_BYTES),
            show_count(cells::SYNC_ACCESSES)
        ),
        "memory is accessed by one thread, in huge pages where the kernel gives them; independent: the processor has many accesses under way; dependent: each address follows from \
         the value read before"
            .to_owned(),
        claims::RULE.to_owned(),
    ];
    notes.push(match fio {
        Some(fio) => format!(
            "{}: the same accesses, depth, time and syncs (ioengine io_uring), in turns with ours; the engine's buffers lie in huge pages and \
             fio's do not: where this was first measured, sequential direct reads were 2.6 to 3.6 times fio's with them and 1.0 times in small \
             pages; reading through the page cache fio has the kernel's readahead, which the engine turns off",
            fio.version()
        ),
        None if fio_unwanted => "not held against fio (--no-fio)".to_owned(),
        None => "not held against fio: it is not installed".to_owned(),
    });
    notes
}

/// The chart, as SVG; empty where nothing was measured.
///
/// # Errors
/// It cannot be drawn.
pub fn chart(grid: &Grid, machine: &Machine) -> Result<String, String> {
    if grid.cells.is_empty() { Ok(String::new()) } else { chart::svg(grid, machine) }
}

/// Draws the chart beside a stored run; nothing where nothing was measured.
///
/// # Errors
/// The file cannot be written.
pub fn draw(grid: &Grid, machine: &Machine, run_path: &Path) -> Result<(), Error> {
    if grid.cells.is_empty() {
        return Ok(());
    }
    let path = run_path.with_extension("svg");
    let text = chart::svg(grid, machine).map_err(|error| Error::Failed(format!("the chart cannot be drawn: {error}")))?;
    std::fs::write(&path, text).map_err(|source| {
        let _ = std::fs::remove_file(&path);
        Error::Io { path: path.clone(), source }
    })?;
    eprintln!("chart in {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory on the disk that the tests are built on: /tmp may be memory.
    pub(super) fn directory() -> tempfile::TempDir {
        let program = std::env::current_exe().unwrap();
        tempfile::tempdir_in(program.parent().unwrap()).unwrap()
    }

    fn settings() -> Settings {
        Settings { size: None, memory_size: None, seconds: None, runs: None, depth: 32, quick: false, no_fio: true }
    }

    #[test]
    fn defaults_follow_the_machine() {
        let plan = settings().plan(Some(32 << 20), Some(16 << 30)).unwrap();
        let expected = Plan { size_bytes: 4 << 30, memory_bytes: 1 << 30, cell_time: Duration::from_secs(2), runs: 3, depth: 32 };
        assert_eq!(plan, expected);
        assert_eq!(settings().plan(Some(96 << 20), None).unwrap().memory_bytes, 3 << 30, "a larger cache");
        let quick = Settings { quick: true, runs: Some(2), ..settings() }.plan(None, None).unwrap();
        assert_eq!((quick.size_bytes, quick.runs, quick.cell_time), (512 << 20, 2, Duration::from_millis(500)));
    }

    #[test]
    fn memory_that_is_not_there_is_not_taken() {
        let error = settings().plan(None, Some(1 << 30)).unwrap_err();
        assert!(error.to_string().contains("more than half of the 1 GiB"), "{error}");
        assert_eq!(error.exit_status(), 2);
    }
}
