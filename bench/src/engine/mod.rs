//! `ringlog-bench engine`: the engine in process, without a network. Rounds in which every partition gets a batch go to the disk
//! through the engine's journal, and, for comparison, by a write and a sync per partition; beside them, in the same run, stands
//! the raw limit. Then the start after a stop without warning, and reads.
//!
//! [`bare`] has the loops without the engine, [`journal`] those with it, [`reads`] sends what was stored to a socket, [`meter`]
//! counts, [`table`] shows. All files are below one directory of this process's own, which is removed at the end, whatever it is.

pub(crate) mod bare;
mod journal;
mod meter;
mod reads;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ringlog_engine::disk::ring::{RingError, Runtime};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::Shared;
use crate::disk::median;
use crate::error::Error;
use crate::guard::{Guard, Work, remove_tree};
use crate::machine;
use crate::progress::Progress;
use crate::results::{AppendPath, AppendWay, Appends, Engine, Outcome, Recovery};
use crate::stop;
use crate::units::{bytes, count, duration, show_bytes, show_count};
use meter::Figures;

pub use table::{print, tables};

/// A round of more than this is left out: it is another kind of load.
const ROUND_BYTES_MAX: u64 = 64 << 20;
/// What a way may write before its time is over.
const WAY_BYTES_MAX: u64 = 4 << 30;
/// Twice the largest round, and twice what is read from the tail.
const TAIL_BYTES_MIN: u64 = 128 << 20;
/// What stays free beside the test files.
const SPARE_BYTES: u64 = 1 << 30;
/// Descriptors for everything that is not a partition's file.
const FILES_SPARE: u64 = 256;
/// What is measured unless the user chooses: partitions and the batch of each, from one request's worth on one partition to many
/// partitions, and the large batches by which the engine is held against the bare disk.
const GRID: [(u64, u64); 8] = [
    (1, 16 << 10),
    (1, 1 << 20),
    (1, 4 << 20),
    (8, 1 << 20),
    (64, 16 << 10),
    (1000, 4 << 10),
    (1000, 16 << 10),
    (10_000, 4 << 10),
];
const QUICK_GRID: [(u64, u64); 2] = [(1, 16 << 10), (64, 16 << 10)];
/// Where only one of both is chosen.
const PARTITIONS: [u64; 5] = [1, 8, 64, 1000, 10_000];
const BATCHES: [u64; 4] = [4 << 10, 16 << 10, 1 << 20, 4 << 20];

/// What to measure, and how long.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Numbers of partitions, each with every batch size [default: a grid from 1 to 10,000; without it 1,8,64,1000,10000]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = count)]
    pub partitions: Vec<u64>,
    /// Sizes of batches; a round of all partitions is at most 64 MiB, others are left out [default: a grid from 4 KiB to 4 MiB;
    /// without it 4KiB,16KiB,1MiB,4MiB]
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', value_parser = bytes)]
    pub batch: Vec<u64>,
    /// After how many rounds is synced: 1 is before every acknowledgement, 0 never
    #[arg(long, value_name = "ROUNDS,...", value_delimiter = ',', value_parser = count, default_values_t = [1, 0])]
    pub sync: Vec<u64>,
    /// How long each way is measured in each run [default: 0.5]
    #[arg(long, value_name = "SECONDS", value_parser = duration)]
    pub seconds: Option<Duration>,
    /// How long the engine may take to come into its steady state, once around its journal [default: 1]
    #[arg(long, value_name = "SECONDS", value_parser = duration)]
    pub warm_up: Option<Duration>,
    /// How often everything is measured; what is told is the median [default: 3, 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=101))]
    pub runs: Option<u32>,
    /// Size of the journal, and of the file that the raw limit is written into
    #[arg(long, value_name = "BYTES", value_parser = bytes, default_value = "512MiB")]
    pub journal: u64,
    /// Batches of a partition that are more than this in a round go straight to its segment, not through the journal
    #[arg(long, value_name = "BYTES", value_parser = bytes, default_value = "512KiB")]
    pub journal_run_max: u64,
    /// Memory for the tails of all partitions: with many, the less it is, the smaller are the writes to their segments
    #[arg(long, value_name = "BYTES", value_parser = bytes, default_value = "256MiB")]
    pub tail: u64,
    /// Which ways are measured [default: all]
    #[arg(long, value_name = "WAY,...", value_delimiter = ',', value_enum)]
    pub ways: Vec<AppendPath>,
    /// How much is stored to be read; 0 measures no reads [default: 1GiB, 128MiB with --quick]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub read_size: Option<u64>,
    /// A first impression: few cases, one run
    #[arg(long)]
    pub quick: bool,
}

/// [`Settings`] with every default filled in, and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    cases: Vec<Case>,
    ways: Vec<AppendPath>,
    times: Times,
    runs: u32,
    journal_bytes: u64,
    journal_run_bytes_max: u64,
    tail_bytes: u64,
    read_bytes: u64,
}

/// How long a way is measured, and its steady state waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    measure: Duration,
    warm_up: Duration,
}

/// Rounds of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    partitions: u32,
    batch_bytes: u64,
    sync_rounds: u64,
}

impl Case {
    fn round_bytes(&self) -> u64 {
        u64::from(self.partitions) * self.batch_bytes
    }

    /// Whether the round of this number, from 0, is synced.
    fn is_synced(&self, round: u64) -> bool {
        self.sync_rounds != 0 && (round + 1).is_multiple_of(self.sync_rounds)
    }
}

impl Settings {
    fn plan(&self) -> Result<Plan, Error> {
        let grid = match (self.partitions.is_empty() && self.batch.is_empty(), self.quick) {
            (true, false) => GRID.to_vec(),
            (true, true) => QUICK_GRID.to_vec(),
            (false, _) => {
                let or = |given: &[u64], all: &[u64]| if given.is_empty() { all.to_vec() } else { given.to_vec() };
                let (partitions, batches) = (or(&self.partitions, &PARTITIONS), or(&self.batch, &BATCHES));
                batches.iter().flat_map(|&batch| partitions.iter().map(move |&partitions| (partitions, batch))).collect()
            }
        };
        let of =
            |wrong: Option<&u64>, rule: &str| wrong.map_or(Ok(()), |wrong| Err(Error::Usage(format!("{rule}, not {wrong}"))));
        of(self.partitions.iter().find(|n| !(1..=100_000).contains(*n)), "--partitions must be from 1 to 100,000")?;
        of(self.batch.iter().find(|n| !(128..=16 << 20).contains(*n)), "--batch must be from 128 bytes to 16 MiB")?;
        of(self.sync.iter().find(|n| **n > 1_000_000), "--sync must be at most 1,000,000 rounds")?;
        if !(32 << 20..=64 << 30).contains(&self.journal) || !self.journal.is_multiple_of(1 << 20) {
            return Err(Error::Usage(format!(
                "--journal must be a multiple of 1 MiB from 32 MiB to 64 GiB, not {}",
                show_bytes(self.journal)
            )));
        }
        if !(TAIL_BYTES_MIN..=64 << 30).contains(&self.tail) {
            return Err(Error::Usage(format!("--tail must be from 128 MiB to 64 GiB, not {}", show_bytes(self.tail))));
        }
        let (runs, read) = if self.quick { (1, 128 << 20) } else { (3, 1 << 30) };
        let measure = self.seconds.unwrap_or(Duration::from_millis(500));
        if !(Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&measure) {
            return Err(Error::Usage(format!("--seconds must be from 0.01 to 3600, not {}", measure.as_secs_f64())));
        }
        let warm_up = self.warm_up.unwrap_or(Duration::from_secs(1));
        if warm_up > Duration::from_secs(3600) {
            return Err(Error::Usage(format!("--warm-up must be at most 3600, not {}", warm_up.as_secs_f64())));
        }
        let read_bytes = self.read_size.unwrap_or(read);
        if read_bytes != 0 && !(1 << 20..=64 << 30).contains(&read_bytes) {
            return Err(Error::Usage(format!("--read-size must be 0 or from 1 MiB to 64 GiB, not {}", show_bytes(read_bytes))));
        }
        let mut cases = Vec::new();
        for &sync_rounds in &self.sync {
            for &(partitions, batch_bytes) in &grid {
                let case = Case { partitions: partitions as u32, batch_bytes, sync_rounds };
                if case.round_bytes() <= ROUND_BYTES_MAX {
                    cases.push(case);
                }
            }
        }
        if cases.is_empty() {
            return Err(Error::Usage(format!(
                "no round is at most {}: give fewer --partitions or smaller --batch",
                show_bytes(ROUND_BYTES_MAX)
            )));
        }
        let times = Times { measure, warm_up };
        let ways = AppendPath::value_variants().iter().copied();
        let ways = ways.filter(|way| self.ways.is_empty() || self.ways.contains(way)).collect();
        Ok(Plan {
            cases,
            ways,
            times,
            runs: self.runs.unwrap_or(runs),
            journal_bytes: self.journal,
            journal_run_bytes_max: self.journal_run_max,
            tail_bytes: self.tail,
            read_bytes,
        })
    }
}

impl Plan {
    /// What the files of the hungriest way take.
    fn disk_bytes(&self) -> u64 {
        (WAY_BYTES_MAX + self.journal_bytes * 2).max(self.read_bytes + self.journal_bytes)
    }

    /// The room that is asked for.
    fn check_room(&self, room: machine::Room) -> Result<(), Error> {
        let wanted = self.disk_bytes() + SPARE_BYTES;
        if room.free_bytes < wanted {
            return Err(Error::Failed(format!(
                "too little free disk: {} are needed for a while, {} are free (give another --out)",
                show_bytes(wanted),
                show_bytes(room.free_bytes)
            )));
        }
        Ok(())
    }
}

/// An empty directory in the one of the test files, without what was in it before.
fn empty(work: &Path) -> Result<PathBuf, Error> {
    let path = work.join("now");
    match remove_tree(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::Io { path, source: error }),
        _ => {}
    }
    fs::create_dir(&path).map_err(Error::io(&path))?;
    Ok(path)
}

/// A case and its runs.
struct Measured {
    case: Case,
    ways: Vec<(AppendPath, Vec<Figures>)>,
    recoveries: Vec<Recovery>,
}

/// Checks the settings.
///
/// # Errors
/// They are nonsense.
pub fn check(settings: &Settings) -> Result<(), Error> {
    settings.plan().map(drop)
}

/// Measures everything. Ends early, with what it has, when asked to stop.
///
/// # Errors
/// Nonsense settings, too little room, no io_uring, a directory or a disk that refuses.
pub fn run(settings: &Settings, shared: &Shared) -> Result<Outcome, Error> {
    let plan = settings.plan()?;
    plan.check_room(machine::room(&shared.out).map_err(Error::io(&shared.out))?)?;
    drop(runtime()?);
    let mut engine = Engine { settings: shown(&plan), notes: notes(&plan), ..Engine::default() };
    let files_max = raise_files_limit();
    let executable = std::env::current_exe().map_err(|error| Error::Failed(format!("where this binary is: {error}")))?;
    let guard = Rc::new(Guard::start(&executable)?);
    let work = Work::make(&shared.out, &format!("engine-{}.data", std::process::id()), &guard)?;
    let progress = Progress::new(shared.quiet);
    let mut measured: Vec<Measured> =
        plan.cases.iter().map(|case| Measured { case: *case, ways: Vec::new(), recoveries: Vec::new() }).collect();
    let bar = progress.count("", u64::from(plan.runs) * (measured.len() * plan.ways.len()) as u64);
    for _ in 0..plan.runs {
        for measured in &mut measured {
            for &path in &plan.ways {
                if stop::requested() {
                    break;
                }
                bar.set_message(table::name(&measured.case, path));
                one_way(&plan, work.path(), measured, path, files_max, &mut engine)?;
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    engine.appends = measured.iter().filter(|measured| !measured.ways.is_empty()).map(Measured::result).collect();
    if plan.read_bytes > 0 && !stop::requested() {
        let bar = progress.count("reads", u64::from(plan.runs) * reads::SOURCES);
        engine.reads = reads::measure(&empty(work.path())?, &plan, &bar)?;
        bar.finish_and_clear();
    }
    Ok(Outcome::Engine(Box::new(engine)))
}

/// One way of a case, once, and the recovery that follows the engine's. What was cut short by Ctrl-C is not kept.
fn one_way(
    plan: &Plan,
    work: &Path,
    measured: &mut Measured,
    path: AppendPath,
    files_max: Option<u64>,
    engine: &mut Engine,
) -> Result<(), Error> {
    let case = measured.case;
    let directory = empty(work)?;
    let is_each = matches!(path, AppendPath::EachDirect | AppendPath::EachBuffered);
    if is_each && files_max.is_some_and(|max| max < u64::from(case.partitions) + FILES_SPARE) {
        let note = format!(
            "{} files can't be open at once here: a write per partition is left out there (ulimit -n)",
            show_count(u64::from(case.partitions))
        );
        if !engine.notes.contains(&note) {
            engine.notes.push(note);
        }
        return Ok(());
    }
    let figures = {
        let runtime = runtime()?;
        let figures = match path {
            AppendPath::Raw => runtime.block_on(bare::raw(&directory, &case, plan, bare::Work::Once)),
            AppendPath::RawTwice => runtime.block_on(bare::raw(&directory, &case, plan, bare::Work::Twice)),
            AppendPath::RawCopied => runtime.block_on(bare::raw(&directory, &case, plan, bare::Work::Copied)),
            AppendPath::EachDirect => runtime.block_on(bare::each(&directory, &case, plan, true)),
            AppendPath::EachBuffered => runtime.block_on(bare::each(&directory, &case, plan, false)),
            AppendPath::Journal => runtime.block_on(journal::appends(&directory, &case, plan))?,
        };
        figures.map_err(Error::io(&directory))?
    };
    if stop::requested() {
        return Ok(());
    }
    if let Some(figures) = figures {
        match measured.ways.iter_mut().find(|(known, _)| *known == path) {
            Some((_, runs)) => runs.push(figures),
            None => measured.ways.push((path, vec![figures])),
        }
    }
    if path == AppendPath::Journal {
        // The runtime is gone with all that the core had in mind: what is there now is what a crash leaves.
        measured.recoveries.push(runtime()?.block_on(journal::recovery(&directory, plan)).map_err(Error::io(&directory))?);
    }
    Ok(())
}

impl Measured {
    fn result(&self) -> Appends {
        let of = |path| {
            let (_, runs) = self.ways.iter().find(|(known, _)| *known == path)?;
            median(&runs.iter().map(|run| run.mb_per_s).collect::<Vec<_>>()).filter(|rate| *rate > 0.0)
        };
        let (raw, raw_twice) = (of(AppendPath::Raw), of(AppendPath::RawTwice));
        let way = |(path, runs): &(AppendPath, Vec<Figures>)| {
            let middle = |of: fn(&Figures) -> f64| median(&runs.iter().map(of).collect::<Vec<_>>()).unwrap_or(0.0);
            let mb_per_s = middle(|run| run.mb_per_s);
            AppendWay {
                path: *path,
                mb_per_s,
                mb_per_s_runs: runs.iter().map(|run| run.mb_per_s).collect(),
                cpu_s_per_gb: middle(|run| run.cpu_s_per_gb),
                round_ms: middle(|run| run.round_ms),
                of_raw: raw.map(|raw| mb_per_s / raw),
                of_raw_twice: raw_twice.map(|raw| mb_per_s / raw),
            }
        };
        let mut recoveries = self.recoveries.clone();
        recoveries.sort_by(|a, b| a.elapsed_s.total_cmp(&b.elapsed_s));
        Appends {
            partitions: self.case.partitions,
            batch_bytes: self.case.batch_bytes,
            sync_rounds: self.case.sync_rounds,
            ways: self.ways.iter().map(way).collect(),
            recovery: recoveries.get(recoveries.len() / 2).cloned(),
        }
    }
}

fn runtime() -> Result<Runtime, Error> {
    Runtime::with_defaults().map_err(|error: RingError| Error::Failed(error.to_string()))
}

/// As many open files as we may have; `None` for no limit.
fn raise_files_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, the limit that stands is what counts.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current
}

fn shown(plan: &Plan) -> Vec<(String, String)> {
    let setting = |name: &str, value: String| (name.to_owned(), value);
    vec![
        setting("seconds", plan.times.measure.as_secs_f64().to_string()),
        setting("warm-up", plan.times.warm_up.as_secs_f64().to_string()),
        setting("runs", plan.runs.to_string()),
        setting("journal", show_bytes(plan.journal_bytes)),
        setting("journal-run-max", show_bytes(plan.journal_run_bytes_max)),
        setting("tail", show_bytes(plan.tail_bytes)),
        setting("read-size", show_bytes(plan.read_bytes)),
    ]
}

fn notes(plan: &Plan) -> Vec<String> {
    vec![
        format!(
            "raw: a direct write of a round's bytes, whole blocks of 4 KiB, into a file of {} that is written again and again, one round in \
             flight, synced as often; raw twice: the same bytes once more into a second file, by 1 MiB, four in flight, as segments get them; raw \
             copied: the same, and the CRC of each batch, its copy, and another copy with a CRC for the round",
            show_bytes(plan.journal_bytes)
        ),
        "journal: the engine; a batch is validated, given its offset, copied to its partition's tail, journaled and later written to its \
         segment; a round is over when every batch is acknowledged; the journal has been written once around before, or the warm-up is over"
            .to_owned(),
        "each direct, each buffered: a file per partition that grows, all writes of a round in flight at once, and their syncs with them; a direct \
         write is whole blocks"
            .to_owned(),
        "all ways go through io_uring on one thread; MB are 10^6 bytes of batches; CPU is that of the process, kernel workers included".to_owned(),
        "recovery: the engine's memory is dropped in the middle of its rounds; the time from then until every partition takes appends again, \
         with the page cache warm"
            .to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            partitions: Vec::new(),
            batch: Vec::new(),
            sync: vec![1, 0],
            seconds: None,
            warm_up: None,
            runs: None,
            journal: 512 << 20,
            journal_run_max: 512 << 10,
            tail: 256 << 20,
            ways: Vec::new(),
            read_size: None,
            quick: false,
        }
    }

    #[test]
    fn cases_are_all_that_are_not_too_large() {
        let plan = settings().plan().unwrap();
        assert_eq!(plan.cases.len(), 2 * GRID.len(), "no default is left out");
        for (partitions, batch_bytes) in [(10_000, 4 << 10), (1, 1 << 20), (1, 4 << 20)] {
            assert!([0, 1].iter().all(|&sync_rounds| plan.cases.contains(&Case { partitions, batch_bytes, sync_rounds })));
        }
        // The other's defaults stand beside what is chosen; 1000 and more partitions of 1 MiB are left out.
        let chosen = Settings { batch: vec![1 << 20], ..settings() }.plan().unwrap();
        assert_eq!(chosen.cases.iter().map(|case| case.partitions).collect::<Vec<_>>(), [1, 8, 64, 1, 8, 64]);
        let error = Settings { partitions: vec![1000], batch: vec![1 << 20], ..settings() }.plan().unwrap_err();
        assert!(error.to_string().contains("no round"), "{error}");
    }

    #[test]
    fn rounds_are_synced_as_often_as_asked() {
        let synced = |sync_rounds| {
            let case = Case { partitions: 1, batch_bytes: 1, sync_rounds };
            (0..6).filter(|round| case.is_synced(*round)).collect::<Vec<u64>>()
        };
        assert_eq!(synced(1), [0, 1, 2, 3, 4, 5]);
        assert_eq!(synced(3), [2, 5]);
        assert!(synced(0).is_empty());
    }

    #[test]
    fn too_little_room_is_refused() {
        let plan = settings().plan().unwrap();
        let room = |free_bytes| machine::Room { total_bytes: 1 << 40, free_bytes };
        assert!(plan.check_room(room(6 << 30)).is_ok());
        assert!(plan.check_room(room((6 << 30) - 1)).unwrap_err().to_string().starts_with("too little free disk"));
    }

    #[test]
    fn fractions_are_of_the_same_run() {
        let figures = |mb_per_s| Figures { mb_per_s, cpu_s_per_gb: 1.0, round_ms: 2.0 };
        let measured = Measured {
            case: Case { partitions: 1, batch_bytes: 4096, sync_rounds: 1 },
            ways: vec![
                (AppendPath::Raw, vec![figures(100.0), figures(300.0), figures(200.0)]),
                (AppendPath::Journal, vec![figures(50.0), figures(150.0), figures(170.0)]),
            ],
            recoveries: vec![
                Recovery { elapsed_s: 3.0, ..Recovery::default() },
                Recovery { elapsed_s: 1.0, ..Recovery::default() },
            ],
        };
        let result = measured.result();
        assert_eq!(result.ways[1].of_raw, Some(0.75));
        assert_eq!(result.ways[1].of_raw_twice, None, "it was not measured");
        assert_eq!(result.recovery.unwrap().elapsed_s, 3.0);
    }

    #[test]
    fn every_way_begins_on_an_empty_directory() {
        let work = tempfile::tempdir().unwrap();
        let now = empty(work.path()).unwrap();
        fs::write(now.join("file"), "x").unwrap();
        let again = empty(work.path()).unwrap();
        assert_eq!(fs::read_dir(&again).unwrap().count(), 0);
    }
}
