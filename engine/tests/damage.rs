//! Damage in stored segments, found at start. Invariant DamageBelowTheRecoveryPointTakesNothing: what a checkpoint says was synced
//! keeps its bytes and its offsets, whether the last stop was clean or not; above it, the log is cut at the first damage.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::disk::cache::FileCache;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::disk::{Disk, OpenOptions, Payload, read_file};
use ringlog_engine::env::sim::Simulation;
use ringlog_engine::log::Log;
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::log::open::{OpenParams, open};
use ringlog_engine::log::read::{ReadError, Reader, Source};
use ringlog_engine::memory::Pool;
use ringlog_engine::types::{LeaderEpoch, Offset, PartitionId, ProducerId, TimestampMs, TopicId};

const FOLDER: &str = "/topic-0";
const BATCHES: i64 = 5;

struct Opened {
    log: Log,
    reader: Reader,
    simulation: Simulation,
    disk: Rc<dyn Disk>,
    names: Vec<String>,
}

/// Five batches of one record in one segment, a byte of batch `damaged` flipped, opened.
fn opened(damaged: i64, recovery_point: i64, clean: bool) -> Opened {
    // In the records.
    opened_with(damaged, 100, recovery_point, clean)
}

/// The same, with the byte to be flipped.
fn opened_with(damaged: i64, byte: usize, recovery_point: i64, clean: bool) -> Opened {
    let mut bytes = Vec::new();
    for offset in 0..BATCHES {
        let start = bytes.len();
        let batch = BatchBuilder::new(Offset(offset)).leader_epoch(LeaderEpoch(0));
        bytes.extend(batch.record(TimestampMs(1000 + offset), None, Some(&[7; 300])).build());
        if offset == damaged {
            bytes[start + byte] ^= 1;
        }
    }
    opened_from(vec![("00000000000000000000.log", bytes)], recovery_point, clean)
}

/// A folder with these files, opened.
fn opened_from(files: Vec<(&'static str, Vec<u8>)>, recovery_point: i64, clean: bool) -> Opened {
    opened_as(files, recovery_point, clean, LogConfig::default())
}

/// The same with options.
fn opened_as(files: Vec<(&'static str, Vec<u8>)>, recovery_point: i64, clean: bool, config: LogConfig) -> Opened {
    let simulation = Simulation::new(1);
    let device = SimDisk::new(&simulation, 1);
    let disk: Rc<dyn Disk> = device.mount();
    let pool = Pool::new(16 << 20);
    let (log, names) = simulation.block_on({
        let (disk, pool) = (disk.clone(), pool.clone());
        async move {
            let directory = PathBuf::from(FOLDER);
            disk.create_dir(&directory).await.unwrap();
            for (name, bytes) in files {
                let file = disk.open(&directory.join(name), OpenOptions::WRITE).await.unwrap();
                file.write_at(Payload::Bytes(bytes), 0).await.unwrap();
                file.sync_data().await.unwrap();
            }
            disk.sync_dir(&directory).await.unwrap();
            let params = OpenParams {
                id: PartitionId { topic: TopicId([1; 16]), index: 0 },
                directory,
                config: Arc::new(config),
                recovery_point: Offset(recovery_point),
                log_start: Offset(0),
                clean,
                leader_epoch: LeaderEpoch(0),
            };
            let log = open(&disk, &pool, params, TimestampMs(2000)).await.unwrap();
            let names = disk.list(Path::new(FOLDER)).await.unwrap().into_iter().map(|entry| entry.name).collect();
            (log, names)
        }
    });
    let files = Rc::new(FileCache::new(disk.clone(), 8));
    let reader = Reader::new(disk.clone(), simulation.env(), files, pool, Box::new(|_, _, _| false));
    Opened { log, reader, simulation, disk, names }
}

impl Opened {
    fn file(&self, name: &str) -> Vec<u8> {
        self.simulation.block_on(read_file(&self.disk, &Path::new(FOLDER).join(name))).unwrap()
    }

    /// How many bytes a read at `offset` gets, or that it meets the damage.
    fn read(&self, offset: i64) -> Result<u64, ()> {
        let plan = self.reader.plan(self.log.published(), Offset(offset), 1 << 20, true);
        match self.simulation.block_on(plan) {
            Ok(plan) => Ok(plan.bytes),
            Err(ReadError::Damaged { .. }) => Err(()),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn damage_below_the_recovery_point_takes_nothing() {
    for clean in [false, true] {
        for damaged in 0..BATCHES {
            let opened = opened(damaged, BATCHES, clean);
            assert_eq!(opened.log.published().log_end(), Offset(BATCHES), "batch {damaged}, clean {clean}");
            assert_eq!(opened.log.published().high_watermark(), Offset(BATCHES));
            assert!(!opened.names.iter().any(|name| name.ends_with(".cut")), "{:?}", opened.names);
            for offset in 0..damaged {
                assert!(opened.read(offset).unwrap() > 0, "what is sound before the damage is served");
            }
            assert_eq!(opened.read(damaged), Err(()), "the damage is not served");
        }
    }
}

/// What stands behind the last batch of a segment that was synced does not take the segments that follow, which were synced too.
#[test]
fn damage_behind_a_synced_segment_takes_nothing() {
    let batch = |offset: i64| {
        let builder = BatchBuilder::new(Offset(offset)).leader_epoch(LeaderEpoch(0));
        builder.record(TimestampMs(1000 + offset), None, Some(&[7; 300])).build()
    };
    for behind in [batch(0), batch(2), vec![1; 100], vec![0; 100]] {
        let first = [batch(0), batch(1), behind.clone()].concat();
        let second = [batch(2), batch(3)].concat();
        let files = vec![("00000000000000000000.log", first), ("00000000000000000002.log", second)];
        let opened = opened_from(files, 4, false);
        assert_eq!(opened.log.published().log_end(), Offset(4), "behind: {:?}", &behind[..10]);
        assert!(!opened.names.iter().any(|name| name.ends_with(".cut")), "{:?}", opened.names);
        for offset in 0..4 {
            // What stands behind the last batch is nobody's to read.
            let rest = 2 - offset % 2;
            assert_eq!(opened.read(offset), Ok(rest as u64 * batch(0).len() as u64), "offset {offset}");
        }
    }
}

/// Batches too large for what one read has room for are checked to their last byte, in pieces.
#[test]
fn a_batch_larger_than_memory_for_reads_is_checked_whole() {
    const VALUE_BYTES: usize = 20 << 20;
    for damaged in [None, Some(VALUE_BYTES), Some(VALUE_BYTES + 60)] {
        let mut bytes = Vec::new();
        for offset in 0..2 {
            let batch = BatchBuilder::new(Offset(offset)).leader_epoch(LeaderEpoch(0));
            bytes.extend(batch.record(TimestampMs(1000), None, Some(&vec![7; VALUE_BYTES])).build());
        }
        let batch_bytes = bytes.len() as u64 / 2;
        if let Some(at) = damaged {
            bytes[at] ^= 1;
        }
        let opened = opened_from(vec![("00000000000000000000.log", bytes)], 2, true);
        assert_eq!(opened.read(0), if damaged.is_none() { Ok(batch_bytes) } else { Err(()) }, "byte {damaged:?}");
        assert_eq!(opened.read(1), Ok(batch_bytes));
    }
}

#[test]
fn damage_above_the_recovery_point_cuts_and_keeps_what_is_sound() {
    let damaged = opened(2, 1, false);
    assert_eq!(damaged.log.published().log_end(), Offset(2));
    assert!(damaged.names.iter().any(|name| name.ends_with(".cut")), "sound batches lay behind: {:?}", damaged.names);
    assert!(damaged.read(0).unwrap() > 0);
    let last = opened(BATCHES - 1, 1, false);
    assert_eq!(last.log.published().log_end(), Offset(BATCHES - 1));
    assert!(!last.names.iter().any(|name| name.ends_with(".cut")), "nothing sound lay behind: {:?}", last.names);
}

/// NothingSoundIsDeleted: what an earlier cut at the same place kept stays.
#[test]
fn a_second_cut_at_the_same_place_keeps_both() {
    let segment = "00000000000000000000.log";
    let first = opened(2, 1, false);
    let kept = first.names.iter().find(|name| name.ends_with(".cut")).unwrap();
    let mut bytes = Vec::new();
    for offset in 0..BATCHES {
        let batch = BatchBuilder::new(Offset(offset)).leader_epoch(LeaderEpoch(0));
        bytes.extend(batch.record(TimestampMs(1000 + offset), None, Some(&[7; 300])).build());
    }
    let at = bytes.len() / BATCHES as usize * 2;
    bytes[at + 100] ^= 1;
    let name: &'static str = kept.clone().leak();
    let unfinished: &'static str = format!("{name}.tmp").leak();
    let files = vec![(segment, bytes.clone()), (name, b"earlier".to_vec()), (unfinished, b"of a crash".to_vec())];
    let second = opened_from(files, 1, false);
    let cuts: Vec<_> = second.names.iter().filter(|name| name.contains(".cut")).map(String::as_str).collect();
    let again = format!("{segment}.{at}.1.cut");
    assert_eq!(cuts, [again.as_str(), name]);
    assert_eq!(second.file(name), b"earlier");
    assert_eq!(second.file(&again), bytes[at..]);
}

#[test]
fn a_wrong_length_neither_sends_what_lies_behind_nor_skips_it() {
    for clean in [false, true] {
        for damaged in 0..BATCHES {
            // The second highest byte of the length: 64 KiB more than there is.
            let opened = opened_with(damaged, 9, BATCHES, clean);
            for offset in 0..damaged {
                assert!(opened.read(offset).unwrap() > 0, "what is sound before the damage is served");
            }
            for offset in damaged..BATCHES {
                let read = opened.read(offset);
                assert!(offset > damaged || read == Err(()), "the damage is not served: {read:?}");
                assert_ne!(read, Ok(0), "an offset below the high watermark has a batch, or an error");
            }
        }
    }
}

/// A CRC does not cover the base offset. One from beyond what an index can say used to end the process when the segment's index
/// was written, at every start.
#[test]
fn a_base_offset_that_no_segment_reaches_is_damage() {
    for clean in [false, true] {
        let opened = opened_with(BATCHES - 1, 1, 0, clean);
        assert_eq!(opened.log.published().log_end(), Offset(BATCHES - 1), "clean {clean}");
        assert_eq!(opened.log.published().high_watermark(), Offset(BATCHES - 1));
    }
}

/// After a clean stop no snapshot means no producers; a damaged one does not.
#[test]
fn a_damaged_producer_snapshot_is_made_up_for_by_the_log() {
    let batch = BatchBuilder::new(Offset(0)).producer(ProducerId(7), 0, 0).record(TimestampMs(1000), None, Some(b"x")).build();
    for clean in [false, true] {
        let files = vec![("00000000000000000000.log", batch.clone()), ("00000000000000000001.snapshot", b"nonsense".to_vec())];
        assert_eq!(opened_from(files, 1, clean).log.producers().len(), 1, "clean {clean}");
    }
}

/// A CRC does not cover the base offset either: below the recovery point, where nothing is cut, a batch at another offset than its
/// own used to be served.
#[test]
fn a_batch_with_a_wrong_base_offset_is_not_served() {
    for (damaged, byte) in [(0, 7), (2, 1), (2, 7), (BATCHES - 1, 1)] {
        let opened = opened_with(damaged, byte, BATCHES, true);
        for offset in 0..BATCHES {
            let plan = opened.reader.plan(opened.log.published(), Offset(offset), 1 << 20, true);
            let Ok(plan) = opened.simulation.block_on(plan) else { continue };
            let mut due = 0;
            for range in &plan.ranges {
                let Source::Memory(bytes) = &range.source else { panic!("read from the disk") };
                for batch in ringlog_engine::batch::batches(bytes) {
                    let header = *batch.unwrap().header();
                    assert!(
                        header.base_offset.0 >= due && header.next_offset().0 <= BATCHES,
                        "{header:?} in the read at {offset}"
                    );
                    due = header.next_offset().0;
                }
            }
        }
    }
}

/// IndexesOnlyMakeItFast: whatever bit of an offset index has flipped, a read begins with the batch that was asked for.
#[test]
fn an_index_that_lies_leads_past_nothing() {
    let batch = |offset: i64| {
        let builder = BatchBuilder::new(Offset(offset)).leader_epoch(LeaderEpoch(0));
        builder.record(TimestampMs(1000 + offset), None, Some(&[7; 30])).build()
    };
    let segment = |offsets: std::ops::Range<i64>| offsets.map(batch).collect::<Vec<_>>().concat();
    let len = batch(0).len() as u32;
    let mut index = Vec::new();
    for entry in 1..5_u32 {
        index.extend_from_slice(&entry.to_be_bytes());
        index.extend_from_slice(&(entry * len).to_be_bytes());
    }
    for bit in 0..index.len() * 8 {
        let mut wrong = index.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let files = vec![
            ("00000000000000000000.log", segment(0..5)),
            ("00000000000000000000.index", wrong),
            ("00000000000000000000.timeindex", [&1004_i64.to_be_bytes()[..], &4_i32.to_be_bytes()].concat()),
            ("00000000000000000005.log", segment(5..10)),
        ];
        let opened = opened_from(files, 10, true);
        for offset in (0..10).chain(0..10) {
            let plan = opened.reader.plan(opened.log.published(), Offset(offset), 1 << 20, true);
            let plan = opened.simulation.block_on(plan).unwrap_or_else(|error| panic!("bit {bit}, offset {offset}: {error}"));
            let start = &plan.ranges[0];
            let expected = (Offset(offset / 5 * 5), offset as u64 % 5 * u64::from(len));
            assert_eq!((start.segment.base_offset, start.position), expected, "bit {bit}, offset {offset}");
        }
    }
}

/// The same of the segment that is written to, whose indexes a start reads: a search by time finds what is there.
#[test]
fn an_index_that_lies_at_a_start_hides_no_time() {
    let batch = |offset: i64, timestamp: i64| {
        let builder = BatchBuilder::new(Offset(offset)).leader_epoch(LeaderEpoch(0));
        let builder = builder.record(TimestampMs(timestamp), None, Some(&[7; 30]));
        builder.record(TimestampMs(timestamp), None, Some(&[7; 30])).build()
    };
    // The second one is the newest.
    let batches = [batch(0, 1000), batch(2, 3000), batch(4, 2000)];
    let position = batches[0].len() as u32;
    let index = [3_u32.to_be_bytes(), position.to_be_bytes()].concat();
    let times = [&3000_i64.to_be_bytes()[..], &3_i32.to_be_bytes()].concat();
    for clean in [true, false] {
        for bit in 0..index.len() * 8 {
            let mut wrong = index.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let files = vec![
                ("00000000000000000000.log", batches.concat()),
                ("00000000000000000000.index", wrong),
                ("00000000000000000000.timeindex", times.clone()),
            ];
            let opened = opened_from(files, 6, clean);
            assert_eq!(opened.log.published().log_end(), Offset(6), "bit {bit}, clean {clean}");
            let found = opened.reader.offset_for_timestamp(opened.log.published(), TimestampMs(2500));
            let found = opened.simulation.block_on(found).unwrap().map(|(_, offset)| offset);
            assert!(
                found.is_some_and(|offset| offset >= Offset(2) && offset <= Offset(3)),
                "bit {bit}, clean {clean}: {found:?}"
            );
        }
    }
}

/// IndexesOnlyMakeItFast, RotDeletesNothing: whatever bit of a time index has flipped, of a sealed segment or of the one that is written
/// to, a search by time finds what is there, and retention takes what is old and nothing else.
#[test]
fn a_time_index_that_lies_deletes_and_hides_nothing() {
    const RETENTION_MS: i64 = 1_000;
    let batch = |offset: i64, timestamp: i64| {
        let builder = BatchBuilder::new(Offset(offset)).leader_epoch(LeaderEpoch(0));
        builder.record(TimestampMs(timestamp), None, Some(&[7; 30])).build()
    };
    // The newest of each segment is in its middle.
    let times = [[1_000_000, 1_003_000, 1_002_000], [1_005_000, 1_007_000, 1_006_000]];
    let segment =
        |at: usize| times[at].iter().zip(at as i64 * 3..).map(|(time, offset)| batch(offset, *time)).collect::<Vec<_>>();
    let len = batch(0, 1_000_000).len() as u32;
    let index = [1_u32, 2].map(|entry| [entry.to_be_bytes(), (entry * len).to_be_bytes()].concat()).concat();
    let time_index = |at: usize| {
        let entry = |time: i64, offset: i32| [&time.to_be_bytes()[..], &offset.to_be_bytes()].concat();
        [entry(times[at][0], 0), entry(times[at][1], 1)].concat()
    };
    // With a snapshot of the producers a start takes the first segment as it is; else it reads it.
    for (clean, is_taken) in [(true, true), (false, true), (false, false)] {
        for bit in 0..2 * 24 * 8 {
            let mut indexes = [time_index(0), time_index(1)];
            indexes[bit / (24 * 8)][bit / 8 % 24] ^= 1 << (bit % 8);
            let files = || {
                let [first, second] = indexes.clone();
                let snapshot = ringlog_engine::log::producer_snapshot::encode(&[]);
                let name = if is_taken { "00000000000000000003.snapshot" } else { "ignored" };
                vec![
                    (name, snapshot),
                    ("00000000000000000000.log", segment(0).concat()),
                    ("00000000000000000000.index", index.clone()),
                    ("00000000000000000000.timeindex", first),
                    ("00000000000000000003.log", segment(1).concat()),
                    ("00000000000000000003.index", index.clone()),
                    ("00000000000000000003.timeindex", second),
                ]
            };
            let what = format!("bit {bit}, clean {clean}, taken {is_taken}");
            let opened = opened_from(files(), 6, clean);
            let all: Vec<i64> = times.concat();
            for wanted in all.iter().flat_map(|time| [time - 1, *time, time + 1]) {
                let found = opened.reader.offset_for_timestamp(opened.log.published(), TimestampMs(wanted));
                let found = opened.simulation.block_on(found).unwrap().map(|(_, offset)| offset.0);
                assert_eq!(found, (0..6).find(|&offset| all[offset as usize] >= wanted), "{what}, time {wanted}");
            }
            let newest = opened.reader.max_timestamp(opened.log.published());
            assert_eq!(opened.simulation.block_on(newest).unwrap(), Some((TimestampMs(1_007_000), Offset(4))), "{what}");
            // Just before and just after the first segment's newest record is old, and the second's.
            for (now, start) in [(1_004_000, 0), (1_004_001, 3), (1_008_000, 3), (1_008_001, 6)] {
                let config = LogConfig { retention_ms: RETENTION_MS, ..LogConfig::default() };
                let mut opened = opened_as(files(), 6, clean, config);
                while let Some(segment) = opened.log.wants_timestamp_of(TimestampMs(now)) {
                    opened.simulation.block_on(opened.reader.hold_max_timestamp(&segment)).unwrap();
                }
                opened.log.retain(TimestampMs(now));
                assert_eq!(opened.log.next_log_start(), Offset(start), "{what}, at {now}");
            }
        }
    }
}

/// Only an index leads behind a batch whose length has rotted. A start that makes a sealed segment's anew stores it, since the next one
/// may take the segment as it is.
#[test]
fn an_index_that_is_made_anew_leads_behind_damage_at_every_start() {
    let batch = |offset: i64| {
        let builder = BatchBuilder::new(Offset(offset)).leader_epoch(LeaderEpoch(0));
        builder.record(TimestampMs(1000 + offset), None, Some(&[7; 3000])).build()
    };
    let mut segment: Vec<u8> = (0..3).flat_map(batch).collect();
    segment[batch(0).len() + 9] ^= 1;
    let name = |suffix: &str| format!("00000000000000000000.{suffix}");
    for clean in [false, true] {
        let lied = [7_u32.to_be_bytes(), 7_u32.to_be_bytes()].concat();
        let times = [&1002_i64.to_be_bytes()[..], &2_i32.to_be_bytes()].concat();
        let next = ("00000000000000000003.log", (3..5).flat_map(batch).collect());
        let files = vec![
            ("00000000000000000000.log", segment.clone()),
            ("00000000000000000000.index", lied),
            ("00000000000000000000.timeindex", times),
            next.clone(),
        ];
        let opened = opened_from(files, 5, clean);
        // With a snapshot of the producers the next start takes the segment as it is.
        let again = opened_from(
            vec![
                ("00000000000000000000.log", segment.clone()),
                ("00000000000000000000.index", opened.file(&name("index"))),
                ("00000000000000000000.timeindex", opened.file(&name("timeindex"))),
                next,
                ("00000000000000000003.snapshot", ringlog_engine::log::producer_snapshot::encode(&[])),
            ],
            5,
            false,
        );
        for (opened, what) in [(opened, "anew"), (again, "as it is")] {
            let read: Vec<_> = (0..5).map(|offset| opened.read(offset).is_ok()).collect();
            assert_eq!(read, [true, false, true, true, true], "clean {clean}, {what}");
        }
    }
}

/// A length that has rotted so that what follows is less than a header: what it hides is refused, not missing.
#[test]
fn a_wrong_length_that_leads_to_the_end_hides_nothing_quietly() {
    let batch = |offset: i64| {
        let builder = BatchBuilder::new(Offset(offset)).leader_epoch(LeaderEpoch(0));
        builder.record(TimestampMs(1000 + offset), None, Some(&[7; 300])).build()
    };
    let mut first = batch(0);
    let len = (2 * first.len() - 12 - 30) as u32;
    first[8..12].copy_from_slice(&len.to_be_bytes());
    let opened = opened_from(vec![("00000000000000000000.log", [first, batch(1)].concat())], 2, true);
    assert_eq!((opened.read(0), opened.read(1)), (Err(()), Err(())));
}
