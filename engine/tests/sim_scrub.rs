//! The scrub in the simulator: bits flip in what is synced and sealed, while a broker works that scrubs itself, under a seed.
//! `RINGLOG_SIM_SEEDS` sets how many seeds run (default 60), `RINGLOG_SIM_SEED` runs one and prints it step by step.
//!
//! Invariants, by name:
//! - RotIsReported: a batch that rots in a sealed segment is told by the next whole pass, at its place or, behind other damage of
//!   the same segment, at that one's.
//! - SoundIsNeverReported: of a file that has not rotted nothing is told. (`sim_log` and `sim_compaction` scrub, too.)
//! - ToldOnce: what was told is not told again by the next pass.
//! - EverythingEnds: passes do, and the stop does not wait for them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod sim_support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringlog_engine::batch::{BatchBuilder, batches};
use ringlog_engine::core::scrubber::{FindingKind, ScrubSettings, Scrubber};
use ringlog_engine::core::{Core, CoreSettings, recover};
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::{Faults, Injection, Operation};
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::types::{Offset, PartitionId, TimestampMs, TopicId};

use sim_support::{Boot, Dice, Machine, begin, open_all};

const PARTITIONS: usize = 3;

/// By segment and the place of the batch: what it was.
type Rotted = BTreeMap<PathBuf, BTreeMap<u64, Vec<u8>>>;

struct World {
    machine: Machine,
    dice: Dice,
    scrub: ScrubSettings,
    next_batch: u64,
}

impl World {
    fn new(seed: u64, loud: bool) -> Self {
        let scrub = sim_support::scrub_settings(seed);
        // Whole passes are waited for.
        let bytes_per_second_max = scrub.bytes_per_second_max.max(1 << 20);
        let scrub = ScrubSettings { enabled: true, bytes_per_second_max, ..scrub };
        Self { machine: Machine::new(seed, loud), dice: Dice(seed), scrub, next_batch: 0 }
    }

    /// Partition 0 is durable, 1 is not, 2 loses old segments.
    fn boot(&self) -> Boot {
        let (env, data) = (self.machine.simulation.env(), self.machine.data.clone());
        let disk: Rc<dyn Disk> = self.machine.disk.mount();
        let scrubber = Scrubber::new(self.scrub.clone());
        self.machine.block_on(async move {
            let found = recover::recover(&disk, &data).await.unwrap();
            let settings = CoreSettings {
                data_directory: data.clone(),
                journal_bytes: 128 << 10,
                journal_run_bytes_max: 2 << 10,
                tail_bytes: 2 << 20,
                open_files_max: 4,
            };
            let core = Core::new(0, settings, disk.clone(), env, Box::new(|_, _, _| true)).await.unwrap();
            core.start();
            core.start_scrubber(scrubber.clone());
            let wanted = (0..PARTITIONS).map(|index| {
                let id = PartitionId { topic: TopicId([index as u8 + 1; 16]), index: 0 };
                let config = LogConfig {
                    segment_bytes: 16 << 10,
                    index_interval_bytes: 1_000,
                    flush_messages: if index == 1 { 1 << 40 } else { 1 },
                    retention_bytes: if index == 2 { 80 << 10 } else { -1 },
                    retention_ms: -1,
                    ..LogConfig::default()
                };
                (id, format!("topic{index}-0"), Arc::new(config))
            });
            let partitions = open_all(&core, &found, wanted).await;
            begin(&core, &data).await;
            Boot { core, partitions, scrubber }
        })
    }

    fn append(&mut self, boot: &Boot) {
        let index = self.dice.below(PARTITIONS as u64) as usize;
        self.next_batch += 1;
        let value_len = [40, 1_000, 9_000][self.dice.below(3) as usize];
        let mut builder = BatchBuilder::new(Offset(0));
        for _ in 0..=self.dice.below(3) {
            let value = vec![self.next_batch as u8; self.dice.below(value_len) as usize];
            builder.push(TimestampMs(1_000 + self.dice.below(1 << 20) as i64), None, Some(&value), &[]);
        }
        drop(boot.send(index, &builder.build()));
    }

    fn work(&mut self, boot: &Boot) {
        for _ in 0..self.dice.below(8) {
            match self.dice.below(5) {
                0 => {
                    let core = boot.core.clone();
                    self.machine.block_on(async move { core.retain().await.unwrap() });
                }
                1 => self.machine.simulation.run_for(Duration::from_secs(6)),
                _ => {
                    for _ in 0..self.dice.below(20) {
                        self.append(boot);
                    }
                }
            }
            self.machine.simulation.run_for(Duration::from_millis(self.dice.below(40)));
        }
    }

    /// Lets a batch rot. Where it begins, and what it was; `None` where the first one is no batch any more.
    fn rot(&mut self, path: &Path) -> Option<(u64, Vec<u8>)> {
        let bytes = self.machine.disk.durable_bytes(path).unwrap();
        let mut places = Vec::new();
        for batch in batches(&bytes).map_while(Result::ok) {
            let at = batch.bytes().as_ptr() as usize - bytes.as_ptr() as usize;
            places.push((at, batch.bytes().len()));
        }
        if places.is_empty() {
            return None;
        }
        let (start, len) = places[self.dice.below(places.len() as u64) as usize];
        // No CRC covers the base offset, nor the leader epoch.
        let inside = loop {
            let inside = self.dice.below(len as u64) as usize;
            if inside >= 8 && !(12..16).contains(&inside) {
                break inside;
            }
        };
        self.machine.say(&format!("{} rots at {}, in the batch at {start}", path.display(), start + inside));
        self.machine.disk.rot_at(path, (start + inside) as u64, self.dice.below(8) as u8);
        Some((start as u64, bytes[start..start + len].to_vec()))
    }

    /// Until everything was gone through that there is now.
    fn run_a_pass(&mut self, boot: &Boot, mut works: u32) {
        let from = boot.core.scrub_passes();
        let until = self.machine.simulation.now() + Duration::from_secs(3_600);
        // The pass that has begun may have been there already.
        while boot.core.scrub_passes() < from + 2 {
            assert!(self.machine.simulation.now() < until, "EverythingEnds: a pass");
            // A pass of all that is added while it goes on would never end.
            if works > 0 && self.dice.below(10) == 0 {
                works -= 1;
                self.work(boot);
            }
            self.machine.simulation.run_for(Duration::from_millis(300));
        }
    }

    fn check(&self, boot: &Boot, rotted: &Rotted, indexes: &BTreeSet<PathBuf>) {
        let mut findings = boot.scrubber.findings();
        findings.retain(|finding| finding.kind == FindingKind::Damaged);
        for finding in &findings {
            let is_rotten = rotted.contains_key(&finding.path) || indexes.contains(&finding.path);
            assert!(is_rotten, "SoundIsNeverReported: {finding:?}");
        }
        let there = boot.core.sealed_segments();
        for (path, starts) in rotted.iter().filter(|(path, _)| there.contains(path)) {
            let told: BTreeSet<u64> =
                findings.iter().filter(|finding| finding.path == *path).map(|finding| finding.position).collect();
            let bytes = self.machine.disk.durable_bytes(path).unwrap();
            // A start may have cut it off.
            let is_there = |start: u64, batch: &[u8]| {
                let now = bytes.get(start as usize..start as usize + batch.len()).unwrap_or_default();
                // Sent again, it may be there anew with another leader epoch.
                let wrong = now.iter().zip(batch).skip(16).filter(|(now, before)| now != before).count();
                now.len() == batch.len() && (1..8).contains(&wrong)
            };
            for (start, _) in starts.iter().filter(|&(&start, batch)| is_there(start, batch)) {
                let is_told = told.range(..=start).next_back().is_some_and(|at| starts.contains_key(at));
                assert!(is_told, "RotIsReported: {} at {start}: {told:?}", path.display());
            }
            let is_rotten = told.iter().all(|at| starts.contains_key(at));
            assert!(is_rotten, "SoundIsNeverReported: {} at {told:?}, of {:?}", path.display(), starts.keys());
        }
    }
}

fn run(seed: u64, loud: bool) -> usize {
    let mut world = World::new(seed, loud);
    world.machine.disk.set_faults(Faults { short_write: 0.05, slow: 0.02, ..Faults::default() });
    let (mut rotted, mut indexes) = (Rotted::new(), BTreeSet::new());
    for life in 0..3 {
        let boot = world.boot();
        world.machine.say(&format!("life {life}"));
        for _ in 0..2 {
            world.work(&boot);
            let sealed = boot.core.sealed_segments();
            for _ in 0..world.dice.below(4).min(sealed.len() as u64) {
                let path = &sealed[world.dice.below(sealed.len() as u64) as usize];
                let Some((start, batch)) = world.rot(path) else { continue };
                rotted.entry(path.clone()).or_default().entry(start).or_insert(batch);
            }
            if world.dice.below(4) == 0 && !sealed.is_empty() {
                let extension = ["index", "timeindex"][world.dice.below(2) as usize];
                let path = sealed[world.dice.below(sealed.len() as u64) as usize].with_extension(extension);
                let bytes = world.machine.disk.durable_bytes(&path).map_or(0, |bytes| bytes.len() as u64);
                if bytes > 0 {
                    world.machine.disk.rot_at(&path, world.dice.below(bytes), 3);
                    indexes.insert(path);
                }
            }
            if world.dice.below(3) == 0 {
                world.machine.disk.inject(Injection::next(Operation::Read, ".log"));
            }
            world.run_a_pass(&boot, 5);
            world.machine.disk.clear_injections();
            world.run_a_pass(&boot, 0);
            world.check(&boot, &rotted, &indexes);
            let told = boot.scrubber.damage_count();
            world.run_a_pass(&boot, 0);
            assert_eq!(boot.scrubber.damage_count(), told, "ToldOnce");
        }
        if world.dice.below(2) == 0 {
            world.machine.stop(&boot, false);
        } else {
            world.machine.kill_the_process();
        }
    }
    rotted.values().map(BTreeMap::len).sum()
}

#[test]
fn rot_is_reported_and_nothing_else() {
    let (seeds, rotted) = sim_support::seeds("sim_scrub", "rot_is_reported_and_nothing_else", run);
    println!("{rotted} batches rotted");
    assert!(rotted as u64 >= seeds, "only {rotted} batches rotted");
}
