//! The loops with the engine: rounds of appends to one core, and its start after a stop without warning. For [`super`].

use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use ringlog_engine::batch::{BatchBuilder, BatchHeader};
use ringlog_engine::core::{Append, Core, CoreSettings, NewPartition, Partition, recover};
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::ring::RingDisk;
use ringlog_engine::env::real::RealEnv;
use ringlog_engine::log::append::Acks;
use ringlog_engine::log::checkpoint::encode_partition_metadata;
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::log::read::Probe;
use ringlog_engine::segment::names;
use ringlog_engine::types::{LeaderEpoch, Offset, PartitionId, TimestampMs, TopicId};
use tokio::sync::oneshot;

use super::meter::{Figures, Meter};
use super::{Case, Plan, WAY_BYTES_MAX};
use crate::error::Error;
use crate::results::Recovery;
use crate::stop;

const TOPIC: TopicId = TopicId([7; 16]);
const OPEN_FILES_MAX: usize = 2048;
/// Threads that make folders.
const MAKERS: usize = 16;
/// How many partitions are opened at once.
const OPENS_AT_ONCE: usize = 32;
/// A batch's header, and what a record has beside its value.
const OVERHEAD_BYTES: u64 = 80;

/// A batch of one record, of about so many bytes.
pub(super) fn batch(bytes: u64) -> Result<(Bytes, BatchHeader), Error> {
    let value = vec![7; bytes.saturating_sub(OVERHEAD_BYTES) as usize];
    let batch = Bytes::from(BatchBuilder::new(Offset(0)).record(TimestampMs(1), None, Some(&value)).build());
    let header = BatchHeader::parse(&batch).map_err(|error| Error::Failed(format!("our own batch is not one: {error}")))?;
    Ok((batch, header))
}

/// A core with a journal, in a directory that is there.
pub(super) async fn core(directory: &Path, plan: &Plan, probe: Probe) -> io::Result<Rc<Core>> {
    let disk: Rc<dyn Disk> = Rc::new(RingDisk::new());
    let settings = CoreSettings {
        data_directory: directory.to_owned(),
        journal_bytes: plan.journal_bytes,
        journal_run_bytes_max: plan.journal_run_bytes_max,
        tail_bytes: usize::try_from(plan.tail_bytes).unwrap_or(usize::MAX),
        open_files_max: OPEN_FILES_MAX,
    };
    let core = Core::new(0, settings, disk, Rc::new(RealEnv::new()), probe).await?;
    core.start();
    Ok(core)
}

fn folder(index: u32) -> String {
    format!("bench-{index}")
}

/// Makes the folders of so many partitions as a clean stop leaves empty ones, with one sync for all. The engine would take five
/// syncs in a row for each, which with thousands of them is minutes of what is not measured here. Ends early when asked to stop.
fn make_folders(directory: &Path, partitions: u32) -> io::Result<()> {
    let metadata = encode_partition_metadata(TOPIC);
    let make = |index| {
        let folder = directory.join(folder(index));
        fs::create_dir(&folder)?;
        fs::write(folder.join(names::PARTITION_METADATA_FILE), &metadata)?;
        fs::write(folder.join(names::log_file_name(Offset(0))), "")
    };
    // Each waits for the filesystem's journal most of the time.
    std::thread::scope(|scope| {
        let part = |first: u32| move || (first..partitions).step_by(MAKERS).take_while(|_| !stop::requested()).try_for_each(make);
        let makers: Vec<_> = (0..MAKERS as u32).map(|first| scope.spawn(part(first))).collect();
        let ended = makers.into_iter().map(|maker| maker.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))));
        ended.collect::<Vec<_>>().into_iter().collect::<io::Result<()>>()
    })?;
    rustix::fs::syncfs(fs::File::open(directory)?)?;
    Ok(())
}

/// An empty partition of the core; its folder is made where it is not there.
pub(super) async fn open(core: &Core, index: u32, flush_messages: i64) -> io::Result<Partition> {
    let new = NewPartition {
        id: PartitionId { topic: TOPIC, index: index as i32 },
        folder: folder(index),
        config: Arc::new(LogConfig { flush_messages, ..LogConfig::default() }),
        leader_epoch: LeaderEpoch(0),
        recovery_point: Offset(0),
        log_start: Offset(0),
        clean: true,
    };
    core.open_partition(new).await
}

/// Every partition gets a batch; the round is over when all are acknowledged. The first error is the disk's; the second, of an
/// append, is the engine's.
pub(super) async fn appends(directory: &Path, case: &Case, plan: &Plan) -> Result<io::Result<Option<Figures>>, Error> {
    let (batch, header) = batch(case.batch_bytes)?;
    let flush_messages = match case.sync_rounds {
        0 => i64::MAX,
        rounds => i64::try_from(rounds).unwrap_or(i64::MAX),
    };
    let opened = async {
        make_folders(directory, case.partitions)?;
        let core = core(directory, plan, Box::new(|_, _, _| true)).await?;
        let opens = stream::iter(0..case.partitions).take_while(|_| std::future::ready(!stop::requested()));
        let opens = opens.map(|index| open(&core, index, flush_messages)).buffered(OPENS_AT_ONCE);
        let ids: Vec<_> = opens.map_ok(|partition| partition.id).try_collect().await?;
        core.begin().await?;
        io::Result::Ok((core, ids))
    };
    let (core, ids) = match opened.await {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(error)),
    };
    if stop::requested() {
        return Ok(Ok(None));
    }
    let round_bytes = batch.len() as u64 * u64::from(case.partitions);
    let mut answers = Vec::with_capacity(ids.len());
    // The journal's first time around makes its file, and the first touch of memory is dear: what is measured comes after.
    let mut is_warm = false;
    let mut meter = Meter::start();
    while !stop::requested() {
        for &partition in &ids {
            let (reply, answer) = oneshot::channel();
            core.append(Append { partition, batch: batch.clone(), header, acks: Acks::All, reply: reply.into() });
            answers.push(answer);
        }
        for answer in answers.drain(..) {
            match answer.await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(Error::Failed(format!("the engine refuses an append: {error}"))),
                Err(_) => return Err(Error::Failed("the engine gave no answer to an append".to_owned())),
            }
        }
        meter.round(round_bytes);
        if is_warm {
            if meter.elapsed() >= plan.times.measure || meter.bytes >= WAY_BYTES_MAX - plan.journal_bytes.min(WAY_BYTES_MAX / 2) {
                break;
            }
        } else if meter.bytes >= plan.journal_bytes.min(WAY_BYTES_MAX / 2) || meter.elapsed() >= plan.times.warm_up {
            is_warm = true;
            meter = Meter::start();
        }
    }
    Ok(Ok(meter.figures().filter(|_| is_warm)))
}

/// A start from what is on disk: replay, then all partitions, then a new journal that counts.
pub(super) async fn recovery(directory: &Path, plan: &Plan) -> io::Result<Recovery> {
    let start = Instant::now();
    let disk: Rc<dyn Disk> = Rc::new(RingDisk::new());
    let found = recover::recover(&disk, directory).await?;
    let core = core(directory, plan, Box::new(|_, _, _| true)).await?;
    let config = Arc::new(LogConfig::default());
    let (is_clean, core_of) = (found.clean, &core);
    let opens = found.partitions.into_iter().map(|partition| {
        let new = NewPartition {
            id: partition.id,
            folder: partition.folder,
            config: config.clone(),
            leader_epoch: LeaderEpoch(0),
            recovery_point: partition.recovery_point,
            log_start: partition.log_start,
            clean: is_clean,
        };
        core_of.open_partition(new)
    });
    let opens = stream::iter(opens).take_while(|_| std::future::ready(!stop::requested())).buffer_unordered(OPENS_AT_ONCE);
    opens.try_for_each(|_| std::future::ready(Ok(()))).await?;
    core.begin().await?;
    Ok(Recovery { elapsed_s: start.elapsed().as_secs_f64(), replayed_bytes: found.bytes, replayed_rounds: found.rounds })
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use ringlog_engine::disk::ring::Runtime;

    use super::super::{Times, bare};
    use super::*;

    pub(in super::super) fn plan() -> Plan {
        let times = Times { measure: Duration::from_millis(30), warm_up: Duration::from_millis(10) };
        Plan {
            cases: Vec::new(),
            ways: Vec::new(),
            times,
            runs: 1,
            journal_bytes: 32 << 20,
            journal_run_bytes_max: 512 << 10,
            tail_bytes: 128 << 20,
            read_bytes: 0,
        }
    }

    #[test]
    fn rounds_are_acknowledged_and_recovered() {
        let folder = tempfile::tempdir().unwrap();
        for sync_rounds in [1, 0, 3] {
            let data = folder.path().join(sync_rounds.to_string());
            std::fs::create_dir(&data).unwrap();
            let case = Case { partitions: 5, batch_bytes: 3000, sync_rounds };
            let figures = Runtime::with_defaults().unwrap().block_on(appends(&data, &case, &plan())).unwrap().unwrap().unwrap();
            assert!(figures.mb_per_s > 0.0 && figures.round_ms > 0.0, "{figures:?}");
            let recovery = Runtime::with_defaults().unwrap().block_on(recovery(&data, &plan())).unwrap();
            assert!(recovery.elapsed_s > 0.0);
            assert!(recovery.replayed_rounds > 0, "the journal holds the last rounds: {recovery:?}");
        }
    }

    #[test]
    fn the_bare_loops_run() {
        for (sync_rounds, is, work) in [(1, true, bare::Work::Twice), (0, false, bare::Work::Once), (2, true, bare::Work::Copied)]
        {
            let folder = tempfile::tempdir().unwrap();
            let case = Case { partitions: 3, batch_bytes: 5000, sync_rounds };
            let runtime = Runtime::with_defaults().unwrap();
            let raw = runtime.block_on(bare::raw(folder.path(), &case, &plan(), work)).unwrap();
            assert!(raw.unwrap().mb_per_s > 0.0);
            let each = runtime.block_on(bare::each(folder.path(), &case, &plan(), is)).unwrap();
            assert!(each.unwrap().mb_per_s > 0.0);
            let written = std::fs::metadata(folder.path().join("partition-2")).unwrap().len();
            assert!(written > 0 && written.is_multiple_of(if is { 8192 } else { 5000 }), "{written}");
        }
    }

    #[test]
    fn a_batch_is_about_as_large_as_asked() {
        for bytes in [128, 4096, 1 << 20] {
            let (batch, header) = batch(bytes).unwrap();
            assert!(batch.len() as u64 <= bytes && batch.len() as u64 + 20 > bytes, "{} of {bytes}", batch.len());
            assert_eq!(header, BatchHeader::parse(&batch).unwrap());
        }
    }
}
