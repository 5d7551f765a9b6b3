//! When compaction begins and how fast it goes, by the simulation's clock: `min.compaction.lag.ms`, `max.compaction.lag.ms` and
//! `log.cleaner.io.max.bytes.per.second`. That what it does is right is `sim_compaction`'s.
//!
//! What counts is what producers say of a record's time, and of a segment as a whole, as with Kafka (KIP-58, KIP-354): its newest
//! record for the one, the first batch's newest for the other.
//!
//! Invariants, by name:
//! - MinLagKeeps: what is gone, and what superseded it, was older than `min.compaction.lag.ms`.
//! - NothingBeforeMaxLag: where the ratio asks for nothing, nothing goes as long as nothing is older than `max.compaction.lag.ms`.
//! - MaxLagForces: everything superseded goes once all is older, whatever the ratio says.
//! - CleaningIsThrottled: a cleaning reads and writes no more a second than it may.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod sim_support;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringlog_engine::batch::{BatchBuilder, batches};
use ringlog_engine::core::cleaner::{Cleaner, CleanerSettings};
use ringlog_engine::core::scrubber::{ScrubSettings, Scrubber};
use ringlog_engine::core::{Core, CoreSettings, recover};
use ringlog_engine::disk::Disk;
use ringlog_engine::log::config::{CompactionConfig, LogConfig};
use ringlog_engine::types::{Offset, PartitionId, TimestampMs, TopicId};

use sim_support::{Boot, Dice, Machine, begin, bytes_of, open_all};

const ID: PartitionId = PartitionId { topic: TopicId([1; 16]), index: 0 };
/// Longer than an idle partition takes to come to the disk, and the cleaner to look for it.
const SETTLES: Duration = Duration::from_secs(20);
const RECORD_BYTES: usize = 1_000;
const SECOND: i64 = 1_000;

/// A record that was sent: its key and its time.
type Sent = (u64, i64);

struct World {
    machine: Machine,
    boot: Boot,
    /// By offsets.
    sent: BTreeMap<i64, Sent>,
    compaction: CompactionConfig,
}

impl World {
    fn new(seed: u64, compaction: CompactionConfig, cleaner: CleanerSettings) -> Self {
        let machine = Machine::new(seed, false);
        let env = machine.simulation.env();
        let (disk, data): (Rc<dyn Disk>, _) = (machine.disk.mount(), machine.data.clone());
        let config = Arc::new(LogConfig {
            segment_bytes: 10 * RECORD_BYTES as u64,
            retention_ms: -1,
            compaction: Some(compaction),
            ..LogConfig::default()
        });
        let boot = machine.block_on(async move {
            let found = recover::recover(&disk, &data).await.unwrap();
            let settings = CoreSettings {
                data_directory: data.clone(),
                journal_bytes: 1 << 20,
                journal_run_bytes_max: 2 << 10,
                tail_bytes: 4 << 20,
                open_files_max: 8,
            };
            let core = Core::new(0, settings, disk.clone(), env, Box::new(|_, _, _| true)).await.unwrap();
            core.start();
            core.start_cleaner(Cleaner::new(cleaner, &data));
            let partitions = open_all(&core, &found, [(ID, "topic-0".to_owned(), config)]).await;
            begin(&core, &data).await;
            Boot { core, partitions, scrubber: Scrubber::new(ScrubSettings { enabled: false, ..ScrubSettings::default() }) }
        });
        Self { machine, boot, sent: BTreeMap::new(), compaction }
    }

    fn wall_ms(&self) -> i64 {
        self.machine.simulation.env().now().0
    }

    /// Appends a record of this time.
    fn append(&mut self, key: u64, timestamp: i64) {
        let value = [7; RECORD_BYTES - 100];
        let batch = BatchBuilder::new(Offset(0)).record(TimestampMs(timestamp), Some(&key.to_le_bytes()), Some(&value)).build();
        let answer = self.boot.send(0, &batch);
        let appended = self.machine.block_on(answer).unwrap().unwrap();
        self.sent.insert(appended.base_offset.0, (key, timestamp));
    }

    fn pass(&self, time: Duration) {
        self.machine.simulation.run_for(time);
    }

    /// What the broker does now and then: an active segment that is too old is sealed.
    fn retain(&self) {
        let core = self.boot.core.clone();
        self.machine.block_on(async move { core.retain().await }).unwrap();
    }

    /// The offsets that are there.
    fn there(&self) -> Vec<i64> {
        let (core, published) = (self.boot.core.clone(), self.boot.partitions[0].published.clone());
        self.machine.block_on(async move {
            let (mut offsets, mut at) = (Vec::new(), Offset(0));
            loop {
                let plan = core.reader.plan(&published, at, 1 << 20, true).await.unwrap();
                let bytes = bytes_of(&plan).await;
                if bytes.is_empty() {
                    return offsets;
                }
                for batch in batches(&bytes) {
                    let batch = batch.unwrap();
                    let header = batch.header();
                    if header.record_count > 0 {
                        offsets.push(header.base_offset.0);
                    }
                    at = header.next_offset();
                }
            }
        })
    }

    fn gone(&self) -> Vec<i64> {
        let there = self.there();
        self.sent.keys().copied().filter(|offset| !there.contains(offset)).collect()
    }

    fn last_of_each_key(&self) -> Vec<i64> {
        let last: BTreeMap<u64, i64> = self.sent.iter().map(|(offset, (key, _))| (*key, *offset)).collect();
        let mut last: Vec<i64> = last.into_values().collect();
        last.sort_unstable();
        last
    }

    /// MinLagKeeps, NothingBeforeMaxLag.
    fn check(&self) {
        let (now, gone) = (self.wall_ms(), self.gone());
        let CompactionConfig { min_compaction_lag_ms, max_compaction_lag_ms, .. } = self.compaction;
        let is_old = |timestamp: i64| timestamp <= now - min_compaction_lag_ms;
        for offset in &gone {
            let (key, timestamp) = self.sent[offset];
            let mut later = self.sent.range(offset + 1..).filter(|(_, (other, _))| *other == key);
            let is_superseded = later.any(|(_, (_, timestamp))| is_old(*timestamp));
            assert!(is_superseded, "MinLagKeeps: {offset} is gone, and nothing old follows");
            assert!(is_old(timestamp), "MinLagKeeps: {offset} of {timestamp} is gone at {now}");
        }
        if self.compaction.min_cleanable_dirty_ratio < 1.0 {
            return;
        }
        let is_any_late = self.sent.values().any(|(_, timestamp)| *timestamp < now - max_compaction_lag_ms);
        assert!(is_any_late || gone.is_empty(), "NothingBeforeMaxLag: {gone:?} at {now}");
    }
}

/// One in which the ratio never asks for a cleaning.
fn by_lag_alone(min_compaction_lag_ms: i64, max_compaction_lag_ms: i64) -> CompactionConfig {
    CompactionConfig {
        min_cleanable_dirty_ratio: 1.0,
        min_compaction_lag_ms,
        max_compaction_lag_ms,
        ..CompactionConfig::default()
    }
}

fn at_once() -> CleanerSettings {
    CleanerSettings { backoff: Duration::from_secs(1), dedupe_bytes_max: 1 << 20, ..CleanerSettings::default() }
}

#[test]
fn what_is_younger_than_the_min_lag_stays() {
    let hour = 3_600 * SECOND;
    let compaction =
        CompactionConfig { min_cleanable_dirty_ratio: 0.0, min_compaction_lag_ms: hour, ..CompactionConfig::default() };
    let mut world = World::new(1, compaction, at_once());
    let now = world.wall_ms();
    // Two segments and a half of old records, then of new ones: by what producers say, all came at once.
    for at in 0..50 {
        world.append(at % 3, if at < 25 { now - 2 * hour } else { now });
    }
    world.pass(SETTLES);
    world.check();
    let gone = world.gone();
    // The third segment has some that are new, and stays as a whole.
    assert!(gone.len() >= 12 && gone.iter().all(|offset| *offset < 20), "{gone:?}");
    let there = world.there();
    world.pass(Duration::from_millis(hour as u64) - 2 * SETTLES);
    assert_eq!(world.there(), there, "an hour has not passed");
    world.pass(3 * SETTLES);
    world.check();
    let (gone, active) = (world.gone(), 45);
    assert!(gone.iter().any(|offset| *offset > 30), "{gone:?}");
    assert!(gone.iter().all(|offset| *offset < active), "what is written to is not cleaned: {gone:?}");
}

#[test]
fn the_max_lag_forces_a_cleaning_though_the_log_is_all_but_clean() {
    let hour = 3_600 * SECOND;
    let mut world = World::new(2, by_lag_alone(0, hour), at_once());
    let now = world.wall_ms();
    for at in 0..50 {
        world.append(at % 3, now);
    }
    world.pass(Duration::from_millis(hour as u64) - SETTLES);
    world.retain();
    world.check();
    assert_eq!(world.gone(), [], "an hour has not passed");
    world.pass(2 * SETTLES);
    // Now the segment that is written to is too old too, and nobody writes to it any more.
    world.retain();
    world.pass(SETTLES);
    world.check();
    assert_eq!(world.there(), world.last_of_each_key(), "MaxLagForces");
    // One old record of a key among new ones does the same for all before the segment that is written to.
    let now = world.wall_ms();
    world.append(0, now - 2 * hour);
    for at in 0..30 {
        world.append(at % 3, now);
    }
    world.pass(SETTLES);
    let gone: Vec<_> = world.gone().into_iter().filter(|offset| *offset >= 50).collect();
    assert!(gone.len() >= 10, "{gone:?}");
}

#[test]
fn the_min_lag_goes_before_the_max_lag() {
    // As short as each other: what is too young holds back what follows it.
    let minute = 60 * SECOND;
    let mut world = World::new(3, by_lag_alone(minute, minute), at_once());
    let now = world.wall_ms();
    for at in 0..50 {
        // In the middle one that is of tomorrow.
        world.append(at % 3, if at == 25 { now + 24 * 60 * minute } else { now - 10 * minute });
    }
    world.pass(SETTLES);
    world.check();
    let gone = world.gone();
    assert!(!gone.is_empty() && gone.iter().all(|offset| *offset < 25), "{gone:?}");
}

/// Records of any time, lags of any length.
#[test]
fn whatever_the_times_say_the_lags_hold() {
    let mut gone = 0;
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let lags = [0, 30 * SECOND, 300 * SECOND, 3_000 * SECOND];
        let min = dice.below(4) as usize;
        let max = min.max(1) + dice.below(4 - min.max(1) as u64) as usize;
        let mut world = World::new(seed, by_lag_alone(lags[min], lags[max]), at_once());
        let mut newest = 0;
        for _ in 0..8 {
            for _ in 0..dice.below(40) {
                let late = if dice.below(3) == 0 { dice.below(400) as i64 } else { dice.below(5) as i64 };
                let timestamp = world.wall_ms() - late * SECOND;
                newest = newest.max(timestamp);
                world.append(dice.below(6), timestamp);
            }
            world.pass(Duration::from_secs(dice.below(400)));
            if dice.below(2) == 0 {
                world.retain();
            }
            world.check();
        }
        gone += world.gone().len();
        // Everything is old in the end.
        let rest = (newest + lags[max] - world.wall_ms()).max(0).unsigned_abs();
        world.pass(Duration::from_millis(rest) + SETTLES);
        world.retain();
        world.pass(SETTLES);
        world.check();
        assert_eq!(world.there(), world.last_of_each_key(), "MaxLagForces (seed {seed})");
    }
    assert!(gone > 100, "{gone} were gone before the end");
}

#[test]
fn a_cleaning_takes_as_long_as_its_bytes_are_to_take() {
    let (bytes_per_second, records, keys) = (50_000.0, 200, 100);
    let took = |bytes_per_second_max| {
        let compaction = CompactionConfig { min_cleanable_dirty_ratio: 0.0, ..CompactionConfig::default() };
        let cleaner = CleanerSettings { bytes_per_second_max, step_bytes: 16 << 10, ..at_once() };
        // It looks for work once all of it is there.
        let mut world = World::new(4, compaction, CleanerSettings { backoff: Duration::from_secs(60), ..cleaner });
        let now = world.wall_ms();
        for at in 0..records {
            world.append(at % keys, now);
        }
        for _ in 0..10_000 {
            world.pass(Duration::from_millis(20));
            if world.gone().len() as u64 >= keys - 20 {
                return world.machine.simulation.now();
            }
        }
        panic!("EverythingEnds: {} are compacted away", world.gone().len());
    };
    let (throttled, free) = (took(bytes_per_second), took(f64::MAX));
    // All that is sealed is read to learn its keys, and what goes once more.
    let bytes = (records - 20 + keys - 20) * RECORD_BYTES as u64;
    let least = Duration::from_secs_f64(bytes as f64 / bytes_per_second);
    assert!(
        throttled - free >= least,
        "CleaningIsThrottled: {bytes} bytes and more in {throttled:?}, not {free:?} and {least:?}"
    );
}
