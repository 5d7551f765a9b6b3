//! Reading a partition and sending it to a socket of this machine, by the engine's plans and by a bare loop over the same bytes.
//! For [`super`].

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use indicatif::ProgressBar;
use ringlog_engine::core::{Append, Core, NewPartition};
use ringlog_engine::log::append::Acks;
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::log::published::Published;
use ringlog_engine::log::read::{Probe, ReadError, Source};
use ringlog_engine::memory::Buffer;
use ringlog_engine::types::{LeaderEpoch, Offset};
use rustix::fs::Advice;
use rustix::io::ReadWriteFlags;
use tokio::sync::oneshot;

use super::Plan;
use super::journal;
use super::meter::{Figures, Meter};
use crate::disk::median;
use crate::error::Error;
use crate::results::EngineRead;
use crate::sink::Sink;
use crate::stop;

/// The tail, and the file, cold and warm.
pub(super) const SOURCES: u64 = 3;
/// A batch, which is what is planned and sent at a time.
const BATCH_BYTES: u64 = 1 << 20;
/// How many batches at the end are read from the tail, again and again; less than what tails may take.
const TAIL_BATCHES: u64 = 64;
/// Appends in flight while the partition is filled.
const APPENDS: u64 = 8;
/// The page cache is asked about a file at this distance.
const PROBE_BYTES: u64 = 64 << 10;

/// Stores so many bytes in a partition and reads them: from the tail, from the file in the page cache, and from the file on disk.
/// `bar` goes on by one for each of [`SOURCES`] in each run.
pub(super) fn measure(directory: &Path, plan: &Plan, bar: &ProgressBar) -> Result<Vec<EngineRead>, Error> {
    let count = plan.read_bytes.div_ceil(BATCH_BYTES);
    let batch_bytes = journal::batch(BATCH_BYTES)?.0.len();
    let mut tail = Pair::default();
    // With the core in place, its tail holds the end; after a clean stop all is in files.
    let runtime = super::runtime()?;
    let (core, partition) = runtime.block_on(fill(directory, count, plan))?;
    let in_tail = TAIL_BATCHES.min(count);
    let memory = Buffer::standalone(in_tail as usize * batch_bytes).map_err(Error::io(directory))?;
    let passes = count.div_ceil(in_tail);
    for run in 0..plan.runs {
        let ours = || runtime.block_on(engine(&core, &partition, count - in_tail, count, passes, batch_bytes, true));
        tail.take(run, ours, || bare_send(&memory, batch_bytes, passes))?;
        bar.inc(1);
    }
    drop(memory);
    let closed = runtime.block_on(core.close()).map_err(Error::io(directory))?;
    drop((core, partition, runtime));

    let files = segments(directory).map_err(Error::io(directory))?;
    let closed = RefCell::new(closed);
    let (mut warm, mut cold) = (Pair::default(), Pair::default());
    for run in 0..plan.runs {
        for (pair, is_cold) in [(&mut cold, true), (&mut warm, false)] {
            // A core of its own each time: one that has read a file before goes another way, through the page cache.
            let ours = || {
                let runtime = super::runtime()?;
                let reopened = runtime.block_on(reopen(directory, plan, closed.take())).map_err(Error::io(directory))?;
                let (core, partition) = reopened;
                prepare(&files, is_cold).map_err(Error::io(directory))?;
                let figures = runtime.block_on(engine(&core, &partition, 0, count, 1, batch_bytes, false))?;
                *closed.borrow_mut() = runtime.block_on(core.close()).map_err(Error::io(directory))?;
                Ok(figures)
            };
            let raw = || {
                prepare(&files, is_cold).map_err(Error::io(directory))?;
                bare_sendfile(&files, batch_bytes)
            };
            pair.take(run, ours, raw)?;
            bar.inc(1);
        }
    }
    let named = [("tail", tail), ("file, in the page cache", warm), ("file, on disk only", cold)];
    Ok(named.into_iter().filter_map(|(source, pair)| pair.result(source)).collect())
}

/// A core with one partition of so many batches.
async fn fill(directory: &Path, count: u64, plan: &Plan) -> Result<(Rc<Core>, Arc<Published>), Error> {
    let core = journal::core(directory, plan, probe()).await.map_err(Error::io(directory))?;
    let partition = journal::open(&core, 0, i64::MAX).await.map_err(Error::io(directory))?;
    core.begin().await.map_err(Error::io(directory))?;
    let (batch, header) = journal::batch(BATCH_BYTES)?;
    let mut answers = std::collections::VecDeque::new();
    for sent in 0..count {
        let (reply, answer) = oneshot::channel();
        core.append(Append { partition: partition.id, batch: batch.clone(), header, acks: Acks::All, reply: reply.into() });
        answers.push_back(answer);
        while answers.len() as u64 > if sent + 1 == count { 0 } else { APPENDS } {
            let Some(answer) = answers.pop_front() else { break };
            match answer.await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(Error::Failed(format!("the engine refuses an append: {error}"))),
                Err(_) => return Err(Error::Failed("the engine gave no answer to an append".to_owned())),
            }
        }
    }
    Ok((core, partition.published))
}

/// The same partition after a clean stop, on a new core: nothing of it is in memory.
async fn reopen(
    directory: &Path,
    plan: &Plan,
    closed: Vec<ringlog_engine::core::ClosedPartition>,
) -> io::Result<(Rc<Core>, Arc<Published>)> {
    let core = journal::core(directory, plan, probe()).await?;
    let mut published = None;
    for partition in closed {
        let new = NewPartition {
            id: partition.id,
            folder: partition.folder,
            config: Arc::new(LogConfig { flush_messages: i64::MAX, ..LogConfig::default() }),
            leader_epoch: LeaderEpoch(0),
            recovery_point: partition.recovery_point,
            log_start: partition.log_start,
            clean: true,
        };
        published = Some(core.open_partition(new).await?.published);
    }
    core.begin().await?;
    let published = published.ok_or_else(|| io::Error::other("the engine closed no partition"))?;
    Ok((core, published))
}

/// Whether a range is in the page cache, as far as reads that would not wait tell.
fn probe() -> Probe {
    Box::new(|file: BorrowedFd<'_>, position, len| {
        let mut byte = [0];
        let mut is_there = |at: u64| {
            let buffers = &mut [io::IoSliceMut::new(&mut byte)];
            matches!(rustix::io::preadv2(file, buffers, at, ReadWriteFlags::NOWAIT), Ok(1))
        };
        (0..len).step_by(PROBE_BYTES as usize).all(|at| is_there(position + at)) && (len == 0 || is_there(position + len - 1))
    })
}

/// The segments' files, oldest first.
fn segments(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory.join("bench-0"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Takes the files out of the page cache, or into it.
fn prepare(files: &[PathBuf], is_cold: bool) -> io::Result<()> {
    for path in files {
        let mut file = File::open(path)?;
        if is_cold {
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        } else {
            io::copy(&mut file, &mut io::sink())?;
        }
    }
    Ok(())
}

fn socket(error: io::Error) -> Error {
    Error::Failed(format!("a socket of this machine failed: {error}"))
}

/// Plans and sends batches `from..to`, so many times. `in_tail`: they must all come from memory.
async fn engine(core: &Core, partition: &Published, from: u64, to: u64, passes: u64, batch_bytes: usize, in_tail: bool) -> Loop {
    let mut sink = Sink::open().map_err(socket)?;
    let mut meter = Meter::start();
    for _ in 0..passes {
        for offset in from..to {
            if stop::requested() {
                return Ok(None);
            }
            let plan = core.reader.plan(partition, Offset(offset as i64), batch_bytes as u64, true).await;
            let plan =
                plan.map_err(|error: ReadError| Error::Failed(format!("the engine can't read what it stored: {error}")))?;
            if plan.bytes != batch_bytes as u64 {
                return Err(Error::Failed(format!("the engine plans {} bytes for a batch of {batch_bytes}", plan.bytes)));
            }
            for range in &plan.ranges {
                match &range.source {
                    Source::Tail(slice) => sink.socket.write_all(slice.bytes()).map_err(socket)?,
                    Source::Memory(_) | Source::File(_) if in_tail => {
                        return Err(Error::Failed(format!("batch {offset} should be in the tail and is in a file")));
                    }
                    Source::Memory(bytes) => sink.socket.write_all(bytes).map_err(socket)?,
                    Source::File(file) => match file.descriptor() {
                        Some(descriptor) => sink.send_file(descriptor, range.position, range.len).map_err(socket)?,
                        None => return Err(Error::Failed("a file without a descriptor".to_owned())),
                    },
                }
            }
            meter.round(plan.bytes);
        }
    }
    sink.close(meter.bytes).map_err(socket)?;
    Ok(meter.figures())
}

/// Sends memory, piece by piece, so many times.
fn bare_send(memory: &Buffer, batch_bytes: usize, passes: u64) -> Loop {
    let mut sink = Sink::open().map_err(socket)?;
    let mut meter = Meter::start();
    for _ in 0..passes {
        for piece in memory.chunks_exact(batch_bytes) {
            if stop::requested() {
                return Ok(None);
            }
            sink.socket.write_all(piece).map_err(socket)?;
            meter.round(piece.len() as u64);
        }
    }
    sink.close(meter.bytes).map_err(socket)?;
    Ok(meter.figures())
}

/// Sends files from beginning to end, with the kernel's own readahead.
fn bare_sendfile(files: &[PathBuf], batch_bytes: usize) -> Loop {
    let sink = Sink::open().map_err(socket)?;
    let mut meter = Meter::start();
    for path in files {
        let file = File::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        for position in (0..len).step_by(batch_bytes) {
            if stop::requested() {
                return Ok(None);
            }
            let piece = (len - position).min(batch_bytes as u64);
            sink.send_file(file.as_fd(), position, piece).map_err(socket)?;
            meter.round(piece);
        }
    }
    sink.close(meter.bytes).map_err(socket)?;
    Ok(meter.figures())
}

/// The engine's runs and the bare ones.
#[derive(Default)]
struct Pair {
    ours: Vec<Figures>,
    raw: Vec<Figures>,
}

/// What a loop gives: nothing where it was cut short.
type Loop = Result<Option<Figures>, Error>;

impl Pair {
    /// Runs both, one after the other; every other run begins with the other one.
    fn take(&mut self, run: u32, ours: impl Fn() -> Loop, raw: impl Fn() -> Loop) -> Result<(), Error> {
        if stop::requested() {
            return Ok(());
        }
        let (ours, raw) = if run.is_multiple_of(2) {
            let ours = ours()?;
            (ours, raw()?)
        } else {
            let raw = raw()?;
            (ours()?, raw)
        };
        self.note(ours, raw);
        Ok(())
    }

    /// Only whole pairs count.
    fn note(&mut self, ours: Option<Figures>, raw: Option<Figures>) {
        if let (Some(ours), Some(raw)) = (ours, raw) {
            self.ours.push(ours);
            self.raw.push(raw);
        }
    }

    fn result(&self, source: &str) -> Option<EngineRead> {
        let middle = |runs: &[Figures], of: fn(&Figures) -> f64| median(&runs.iter().map(of).collect::<Vec<_>>());
        let mb_per_s = middle(&self.ours, |run| run.mb_per_s)?;
        let raw_mb_per_s = middle(&self.raw, |run| run.mb_per_s)?;
        Some(EngineRead {
            source: source.to_owned(),
            mb_per_s,
            raw_mb_per_s,
            cpu_s_per_gb: middle(&self.ours, |run| run.cpu_s_per_gb)?,
            raw_cpu_s_per_gb: middle(&self.raw, |run| run.cpu_s_per_gb)?,
            of_raw: mb_per_s / raw_mb_per_s,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let bar = ProgressBar::hidden();
        let reads = measure(folder.path(), &Plan { read_bytes: 8 << 20, ..journal::tests::plan() }, &bar).unwrap();
        assert_eq!((reads.len() as u64, bar.position()), (SOURCES, SOURCES), "{reads:?}");
        for read in &reads {
            assert!(read.mb_per_s > 0.0 && read.raw_mb_per_s > 0.0, "{read:?}");
            assert!((read.of_raw - read.mb_per_s / read.raw_mb_per_s).abs() < 1e-9);
        }
    }

    #[test]
    fn half_a_pair_is_none() {
        let figures = Figures { mb_per_s: 50.0, cpu_s_per_gb: 1.0, round_ms: 1.0 };
        let mut pair = Pair::default();
        pair.note(Some(figures), None);
        assert!(pair.result("x").is_none());
        pair.note(Some(figures), Some(Figures { mb_per_s: 100.0, ..figures }));
        assert_eq!(pair.result("x").unwrap().of_raw, 0.5);
    }
}
