//! Opening a partition's folder: whatever its files hold, what recovery accepts reads back, and a second recovery finds the same.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ringlog_engine::batch::{BatchHeader, BatchView, batches};
use ringlog_engine::disk::cache::FileCache;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::disk::{Disk, OpenOptions, Payload, read_file};
use ringlog_engine::env::sim::Simulation;
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::log::open::{OpenParams, open};
use ringlog_engine::log::read::{ReadError, Reader, Source};
use ringlog_engine::memory::Pool;
use ringlog_engine::segment::names::parse_log_file_name;
use ringlog_engine::types::{LeaderEpoch, Offset, PartitionId, TimestampMs, TopicId};

use crate::input::Input;

const NOW: TimestampMs = TimestampMs(1_767_225_600_000);
const FOLDER: &str = "/topic-0";
/// What one plan may bring.
const READ_BYTES_MAX: u64 = 1 << 20;

thread_local! {
    /// Its memory comes from the kernel: one for all inputs.
    static POOL: Pool = Pool::new(16 << 20);
}

/// The files of a folder, by name.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// Any bytes in files of any name that counts.
pub(crate) fn recovery(input: &[u8]) {
    let mut input = Input::new(input);
    let flags = input.byte();
    let recovery_point = Offset(i64::from(input.byte()));
    let log_start = Offset(if flags & 2 == 2 { i64::from(input.byte()) } else { 0 });
    let mut files = Files::new();
    while !input.is_empty() && files.len() < 8 {
        let base = i64::from(input.byte());
        let suffix = ["log", "index", "timeindex", "snapshot", "log.swap", "index.cleaned"].get(usize::from(input.byte() % 8));
        let name = suffix.map_or_else(|| "leader-epoch-checkpoint".to_owned(), |suffix| format!("{base:020}.{suffix}"));
        let bytes = input.part().to_vec();
        if !files.iter().any(|(found, _)| *found == name) {
            files.push((name, bytes));
        }
    }
    check_recovery(files, recovery_point, log_start, flags & 1 == 1);
}

/// The invariants of recovery over a folder with these files.
pub(crate) fn check_recovery(files: Files, recovery_point: Offset, log_start: Offset, clean: bool) {
    let Some(first) = recover(files, recovery_point, log_start, clean, Reads::All) else { return };
    // RecoveryKeepsOrder: offsets rise from batch to batch, and what is behind the last one is the log's end.
    assert!(first.log_end >= log_start);
    if recovery_point == Offset(0) && !clean {
        first.is_sound();
    }
    // RecoveryIsStable: what it accepted it accepts again, and changes no batch.
    // What it leaves is read after the clean start that follows.
    let reads = if clean { Reads::All } else { Reads::Nothing };
    let Some(second) = recover(first.files.clone(), recovery_point, log_start, false, reads) else {
        panic!("refused the second time")
    };
    assert!(second.log_end == first.log_end || clean, "{:?} then {:?}", first.log_end, second.log_end);
    if !clean {
        assert_eq!(second.logs(), first.logs(), "the second recovery changes the log");
        let third = recover(second.files.clone(), second.log_end, log_start, true, Reads::All);
        let Some(third) = third else { panic!("refused after a clean stop") };
        assert_eq!(third.log_end, second.log_end, "a clean start finds another end");
    }
}

/// What is read of a log that was recovered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    All,
    Nothing,
}

/// A folder after recovery.
struct Recovered {
    files: Files,
    log_end: Offset,
}

/// `None`: it is refused.
fn recover(files: Files, recovery_point: Offset, log_start: Offset, clean: bool, reads: Reads) -> Option<Recovered> {
    let simulation = Simulation::new(1);
    let disk: Rc<dyn Disk> = SimDisk::immediate(&simulation).mount();
    let pool = POOL.with(Pool::clone);
    let recovered = simulation.block_on(async {
        let directory = PathBuf::from(FOLDER);
        disk.create_dir(&directory).await.unwrap();
        for (name, bytes) in files {
            let file = disk.open(&directory.join(name), OpenOptions::WRITE).await.unwrap();
            file.write_at(Payload::Bytes(bytes), 0).await.unwrap();
        }
        let params = OpenParams {
            id: PartitionId { topic: TopicId([1; 16]), index: 0 },
            directory: directory.clone(),
            config: Arc::new(LogConfig { index_interval_bytes: 256, ..LogConfig::default() }),
            recovery_point,
            log_start,
            clean,
            leader_epoch: LeaderEpoch(0),
        };
        let log = match open(&disk, &pool, params, NOW).await {
            Ok(log) => log,
            // A compaction's new segment that rotted while a crash left it half way: nobody may guess which of the two is right.
            Err(error) if error.kind() == io::ErrorKind::InvalidData && error.to_string().contains(".swap: ") => {
                return None;
            }
            Err(error) => panic!("the simulated disk does not fail: {error}"),
        };
        if reads == Reads::All {
            let files_cache = Rc::new(FileCache::new(disk.clone(), 8));
            let reader = Reader::new(disk.clone(), simulation.env(), files_cache, pool, Box::new(|_, _, _| false));
            read_all(&reader, log.published()).await;
        }
        let log_end = log.published().log_end();
        drop(log);
        let mut files = Files::new();
        for entry in disk.list(Path::new(FOLDER)).await.unwrap() {
            files.push((entry.name.clone(), read_file(&disk, &directory.join(&entry.name)).await.unwrap()));
        }
        Some(Recovered { files, log_end })
    });
    // What is still being read ahead holds the simulation that holds it.
    simulation.crash();
    recovered
}

/// Reads from the log's start to its end. Every plan begins with the batch that holds the offset, or the next one there is; damage
/// is refused, never served.
async fn read_all(reader: &Reader, published: &ringlog_engine::log::published::Published) {
    let end = published.high_watermark();
    let mut offset = published.log_start();
    // An offset in a gap, or in damage, is one step; a wild recovery point makes many of these.
    let mut steps = 0;
    while offset < end && steps < 200 {
        steps += 1;
        let plan = match reader.plan(published, offset, READ_BYTES_MAX, true).await {
            Ok(plan) => plan,
            Err(ReadError::Damaged { .. }) => {
                offset = offset.plus(1);
                continue;
            }
            Err(error) => panic!("offset {offset} below the end {end}: {error}"),
        };
        let mut bytes = Vec::new();
        for range in &plan.ranges {
            match &range.source {
                Source::Memory(memory) => bytes.extend_from_slice(memory),
                Source::Tail(slice) => bytes.extend_from_slice(slice.bytes()),
                Source::File(_) => panic!("nothing is in a page cache here"),
            }
        }
        assert_eq!(bytes.len() as u64, plan.bytes);
        let mut next = offset;
        for (at, batch) in batches(&bytes).enumerate() {
            let batch: BatchView<'_> = batch.expect("whole batches are served");
            batch.check_crc().expect("what is served was checked");
            let header = batch.header();
            assert!(at == 0 || header.base_offset >= next, "batches follow each other");
            assert!(header.next_offset() > next, "the first batch holds the offset or lies behind it");
            next = header.next_offset();
        }
        offset = if next > offset { next } else { offset.plus(1) };
    }
    for timestamp in [i64::MIN, 0, NOW.0, i64::MAX] {
        let _ = reader.offset_for_timestamp(published, TimestampMs(timestamp)).await;
    }
    let _ = reader.max_timestamp(published).await;
}

impl Recovered {
    fn logs(&self) -> Files {
        self.files.iter().filter(|(name, _)| parse_log_file_name(name).is_some()).cloned().collect()
    }

    /// Every byte of every segment belongs to a sound batch.
    fn is_sound(&self) {
        let mut due = Offset(0);
        for (name, bytes) in self.logs() {
            due = due.max(parse_log_file_name(&name).unwrap());
            for batch in batches(&bytes) {
                let batch = batch.expect("recovery leaves whole batches");
                batch.check_crc().expect("recovery leaves sound batches");
                let header: &BatchHeader = batch.header();
                assert!(header.base_offset >= due, "{name}: base offset {} where {due} is due", header.base_offset);
                due = header.next_offset();
            }
        }
        assert!(due <= self.log_end);
    }
}
