//! The whole engine in the simulator: random appends, reads, crashes and recoveries under a seed. `RINGLOG_SIM_SEEDS` sets how many
//! seeds run (default 60), `RINGLOG_SIM_SEED` runs one and prints it step by step.
//!
//! Invariants, by name:
//! - AcknowledgedSurvives: a durable topic's batch that was acknowledged (acks=all) is there after any crash, byte for byte.
//! - WrittenSurvivesTheProcess: any acknowledged batch is there after a crash of the process alone.
//! - NothingInvented: every batch that is read was sent, to this partition, and is there once.
//! - OffsetsHaveNoGap: batches follow each other without a gap from the log start on.
//! - DuplicatesGetTheFirstOffset, RetriesAreTaken: what an idempotent producer sends again, after an error or a crash, is there
//!   once, and answered with the offset that it has.
//! - TimestampsAreFound: a search by timestamp gives the first record that is as new.
//! - EverythingEnds: nothing waits for ever.
//! - CrcIsCheckedAtRecovery: no damaged batch is taken for a sound one at start.
//! - SoundIsNeverReported: a scrub that goes on all the while, in every other seed, finds nothing.
//! - VisibleStays: what a consumer of a durable topic could see is still there after a crash.
//!
//! That they hold because the engine makes them hold was tried by breaking it. Seeds of `acknowledged_survives_crashes` that were
//! needed to notice:
//!
//! | broken | seeds |
//! |---|---|
//! | rounds are answered as synced and not synced | 1 |
//! | rounds are answered as synced when they are written | 45 |
//! | the names of new segments are not synced | 6 |
//! | journal space is freed and segments are not synced | 1 |
//! | every other checkpoint of the journal is not written | 1 |
//! | recovery does not check CRCs | not in 100; `a_batch_with_a_wrong_crc_is_not_recovered` |
//!
//! Not noticed in 100 seeds: a write that ends while its file is being synced and counts as synced too. The segments here are
//! too small to be written while they are synced.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod sim_support;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::batch::{BatchHeader, BatchView, batches};
use ringlog_engine::core::scrubber::{ScrubSettings, Scrubber};
use ringlog_engine::core::{Core, CoreSettings, NewPartition, recover};
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::{CrashOutcome, Faults, Injection, Operation};
use ringlog_engine::log::append::AppendError;
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::types::{LeaderEpoch, Offset, PartitionId, ProducerId, TimestampMs, TopicId};

use sim_support::{Boot, Dice, Machine, PATIENCE, begin, bytes_of, open_all, scrub_settings};

const PARTITIONS: i32 = 4;

/// What is known of one partition from outside.
#[derive(Default)]
struct Model {
    sent: BTreeMap<u64, Vec<u8>>,
    /// Acknowledged: base offset → number of the batch.
    acknowledged: BTreeMap<i64, u64>,
    /// The highest high watermark that was seen.
    visible: i64,
    log_start: i64,
    /// How often the topic was made anew.
    generation: u8,
    /// Its idempotent producer.
    producer: Producer,
}

/// A producer that sends one batch at a time, and again until it has an answer, across crashes.
#[derive(Default)]
struct Producer {
    /// Changes when what it knows may be lost with the log's end.
    id: i64,
    next_sequence: i32,
    /// What has no good answer yet.
    unanswered: Option<Sent>,
    in_flight: bool,
    /// What was acknowledged last, and its first offset.
    last: Option<(Sent, i64)>,
}

#[derive(Clone)]
struct Sent {
    number: u64,
    batch: Vec<u8>,
}

impl Producer {
    fn new(id: i64) -> Self {
        Self { id, ..Self::default() }
    }
}

struct World {
    machine: Machine,
    models: Vec<Rc<RefCell<Model>>>,
    dice: Dice,
    next_batch: u64,
    /// Whether the disk fails at times, beyond crashes.
    faults: bool,
    scrub: ScrubSettings,
    journal_run_bytes_max: u64,
}

fn id(index: i32, generation: u8) -> PartitionId {
    let mut topic = [index as u8 + 1; 16];
    topic[0] = generation;
    PartitionId { topic: TopicId(topic), index: 0 }
}

fn folder(index: i32) -> String {
    format!("topic{index}-0")
}

/// Partitions with an even number are durable.
fn config(index: i32) -> Arc<LogConfig> {
    let durable = index % 2 == 0;
    Arc::new(LogConfig { segment_bytes: 24 << 10, flush_messages: if durable { 1 } else { 1 << 40 }, ..LogConfig::default() })
}

impl World {
    fn new(seed: u64, faults: bool, loud: bool) -> Self {
        let models = (0..PARTITIONS).map(|_| Rc::default()).collect();
        let scrub = scrub_settings(seed);
        // In most seeds some runs go straight to their segments, in some all that may.
        let journal_run_bytes_max = [u64::MAX, 0, 2 << 10, 8 << 10][Dice(seed ^ 0x57).below(4) as usize];
        let machine = Machine::new(seed, loud);
        Self { machine, models, dice: Dice(seed), next_batch: 1, faults, scrub, journal_run_bytes_max }
    }

    fn id(&self, index: usize) -> PartitionId {
        id(index as i32, self.models[index].borrow().generation)
    }

    /// Boots as the broker does. `None` where a crash came first.
    fn boot(&self, until: Option<Duration>) -> Option<Boot> {
        let env = self.machine.simulation.env();
        let disk: Rc<dyn Disk> = self.machine.disk.mount();
        let data = self.machine.data.clone();
        let loud = self.machine.loud;
        let ids: Vec<_> = (0..PARTITIONS as usize).map(|index| self.id(index)).collect();
        let scrubber = Scrubber::new(self.scrub.clone());
        let journal_run_bytes_max = self.journal_run_bytes_max;
        let work = async move {
            let found = recover::recover(&disk, &data).await.unwrap();
            // A topic whose deletion a crash interrupted.
            for old in found.partitions.iter().filter(|partition| !ids.contains(&partition.id)) {
                let aside = data.join(format!("gone.{}", env.random_u64()));
                disk.rename(&data.join(&old.folder), &aside).await.unwrap();
                disk.sync_dir(&data).await.unwrap();
            }
            if loud {
                for partition in &found.partitions {
                    println!(
                        "  found {} clean {} recovery point {} log start {}",
                        partition.folder, found.clean, partition.recovery_point, partition.log_start
                    );
                }
                println!("  replayed {} rounds, {} bytes", found.rounds, found.bytes);
            }
            let settings = CoreSettings {
                data_directory: data.clone(),
                journal_bytes: 128 << 10,
                journal_run_bytes_max,
                tail_bytes: 2 << 20,
                open_files_max: 8,
            };
            let core = Core::new(0, settings, disk.clone(), env, Box::new(|_, _, _| true)).await.unwrap();
            core.start();
            core.start_scrubber(scrubber.clone());
            let wanted = (0..PARTITIONS).zip(ids).map(|(index, id)| (id, folder(index), config(index)));
            let partitions = open_all(&core, &found, wanted).await;
            begin(&core, &data).await;
            Boot { core, partitions, scrubber }
        };
        match until {
            Some(until) => self.machine.simulation.block_on_until(work, until),
            None => Some(self.machine.block_on(work)),
        }
    }

    fn append(&mut self, boot: &Boot) {
        let index = self.dice.below(PARTITIONS as u64) as usize;
        let sent = self.batch(index, None);
        let model = self.models[index].clone();
        let answer = boot.send(index, &sent.batch);
        self.machine.simulation.env().spawn(Box::pin(async move {
            if let Ok(Ok(appended)) = answer.await {
                let before = model.borrow_mut().acknowledged.insert(appended.base_offset.0, sent.number);
                assert_eq!(before, None, "OffsetsAreGivenOnce");
            }
        }));
    }

    /// The idempotent producer's turn: what has no answer again, or the next batch; now and then what it has an answer for.
    fn produce(&mut self, boot: &Boot) {
        let index = self.dice.below(PARTITIONS as u64) as usize;
        let model = self.models[index].clone();
        if model.borrow().producer.in_flight {
            return;
        }
        // What was deleted since may be forgotten.
        let log_start = boot.partitions[index].published.log_start().0;
        let again = model.borrow().producer.last.clone().filter(|_| self.dice.below(3) == 0);
        let again = again.filter(|(_, base_offset)| *base_offset >= log_start);
        if model.borrow().producer.unanswered.is_none()
            && let Some((sent, base_offset)) = again
        {
            let answer = boot.send(index, &sent.batch);
            self.machine.simulation.env().spawn(Box::pin(async move {
                if let Ok(Ok(appended)) = answer.await {
                    assert_eq!(appended.base_offset.0, base_offset, "DuplicatesGetTheFirstOffset");
                }
            }));
            return;
        }
        let (id, sequence) = (model.borrow().producer.id, model.borrow().producer.next_sequence);
        let unanswered = model.borrow().producer.unanswered.clone();
        let sent = unanswered.unwrap_or_else(|| self.batch(index, Some((ProducerId(1_000 + id), sequence))));
        let answer = boot.send(index, &sent.batch);
        {
            let mut model = model.borrow_mut();
            model.producer.in_flight = true;
            model.producer.unanswered = Some(sent.clone());
        }
        self.machine.simulation.env().spawn(Box::pin(async move {
            let answer = answer.await;
            let mut model = model.borrow_mut();
            if model.producer.id != id {
                return;
            }
            model.producer.in_flight = false;
            match answer {
                Ok(Ok(appended)) => {
                    let before = model.acknowledged.insert(appended.base_offset.0, sent.number);
                    assert_eq!(before, None, "OffsetsAreGivenOnce");
                    let header = BatchHeader::parse(&sent.batch).unwrap();
                    model.producer.next_sequence += header.last_offset_delta + 1;
                    model.producer.unanswered = None;
                    model.producer.last = Some((sent, appended.base_offset.0));
                }
                Ok(Err(AppendError::Producer(error))) => panic!("RetriesAreTaken: {error}"),
                _ => {}
            }
        }));
    }

    /// A batch whose CRC is wrong is refused and changes nothing.
    fn append_damaged(&mut self, boot: &Boot) {
        let index = self.dice.below(PARTITIONS as u64) as usize;
        let mut sent = self.batch(index, None);
        if let Some(last) = sent.batch.last_mut() {
            *last ^= 1;
        }
        self.models[index].borrow_mut().sent.remove(&sent.number);
        let answer = boot.send(index, &sent.batch);
        self.machine.simulation.env().spawn(Box::pin(async move {
            if let Ok(answer) = answer.await {
                assert!(answer.is_err(), "a damaged batch is refused");
            }
        }));
    }

    /// Deletes a topic, with whatever is on its way, and makes it anew. `false` where the power went in between.
    fn recreate(&mut self, boot: &mut Boot, index: usize) -> bool {
        let old = self.id(index);
        let generation = self.models[index].borrow().generation + 1;
        let model = Model { generation, producer: Producer::new(self.next_batch as i64), ..Model::default() };
        self.models[index] = Rc::new(RefCell::new(model));
        let new = NewPartition {
            id: self.id(index),
            folder: folder(index as i32),
            config: config(index as i32),
            leader_epoch: LeaderEpoch(0),
            recovery_point: Offset(0),
            log_start: Offset(0),
            clean: false,
        };
        let core = boot.core.clone();
        let until = match self.dice.below(3) {
            0 => self.machine.simulation.now() + Duration::from_micros(self.dice.below(3_000)),
            _ => self.machine.simulation.now() + PATIENCE,
        };
        let work = async move {
            core.delete_partition(old).await.unwrap();
            core.open_partition(new).await.unwrap()
        };
        match self.machine.simulation.block_on_until(work, until) {
            Some(partition) => {
                boot.partitions[index] = partition;
                true
            }
            None => {
                assert!(
                    self.machine.simulation.now() < until || until - self.machine.simulation.now() < PATIENCE,
                    "EverythingEnds"
                );
                false
            }
        }
    }

    /// A batch for a partition, which its model knows from now on.
    fn batch(&mut self, index: usize, producer: Option<(ProducerId, i32)>) -> Sent {
        let number = self.next_batch;
        self.next_batch += 1;
        let records = 1 + self.dice.below(4);
        let value_len = match self.dice.below(10) {
            0 => 12_000,
            1..=3 => 3_000,
            _ => 40,
        };
        let mut builder = BatchBuilder::new(Offset(0));
        if let Some((id, sequence)) = producer {
            builder = builder.producer(id, 0, sequence);
        }
        for record in 0..records {
            let mut value = vec![number as u8; self.dice.below(value_len) as usize];
            value.extend_from_slice(&(number * 16 + record).to_le_bytes());
            builder.push(TimestampMs(1_000_000 + number as i64), Some(&number.to_le_bytes()), Some(&value), &[]);
        }
        let batch = builder.build();
        self.models[index].borrow_mut().sent.insert(number, batch.clone());
        Sent { number, batch }
    }

    /// Reads a partition from its start and checks everything that is known of it.
    fn check(&self, boot: &Boot, index: usize, after: &str) {
        let published = boot.partitions[index].published.clone();
        let core = boot.core.clone();
        let read = self.machine.block_on(async move {
            let mut bytes = Vec::new();
            let mut at = published.log_start();
            loop {
                let plan = core.reader.plan(&published, at, 10_000, true).await.unwrap();
                let piece = bytes_of(&plan).await;
                if piece.is_empty() {
                    assert_eq!(at, plan.high_watermark, "a read at {at} below the high watermark gives something");
                    break;
                }
                let mut whole = 0;
                for batch in batches(&piece) {
                    let Ok(batch) = batch else { break };
                    if whole == 0 {
                        assert!(batch.header().next_offset() > at, "a plan begins at the batch that was asked for");
                    }
                    whole += batch.bytes().len();
                    if batch.header().last_offset() >= at {
                        bytes.push(batch.bytes().to_vec());
                        at = batch.header().next_offset();
                    }
                }
                assert!(whole > 0, "a plan has at least one whole batch");
                // What follows is the beginning of a batch: no padding of a file, nothing that is not visible.
                let rest = &piece[whole..];
                if let Some(base_offset) = rest.first_chunk() {
                    assert_eq!(i64::from_be_bytes(*base_offset), at.0, "OffsetsHaveNoGap: behind the last whole batch of a plan");
                }
            }
            bytes
        });
        let model = self.models[index].borrow();
        let published = &boot.partitions[index].published;
        let mut expected = published.log_start().0;
        let mut seen = BTreeSet::new();
        let mut found = BTreeMap::new();
        for bytes in &read {
            let batch = BatchView::new(bytes).unwrap();
            batch.check_crc().unwrap();
            let header = *batch.header();
            // The log start may lie within the first batch.
            let follows = header.base_offset.0 == expected || (seen.is_empty() && header.base_offset.0 < expected);
            assert!(follows, "OffsetsHaveNoGap: {} for {expected} ({after}, partition {index})", header.base_offset);
            expected = header.next_offset().0;
            let records = batch.records(1 << 20).unwrap();
            let key = records.iter().next().unwrap().unwrap().key.unwrap().to_vec();
            let number = u64::from_le_bytes(key.try_into().unwrap());
            let sent = model.sent.get(&number).unwrap_or_else(|| panic!("NothingInvented: {number} ({after})"));
            assert!(sent[12 + 4..] == bytes[12 + 4..], "AcknowledgedSurvives: byte for byte ({after})");
            assert!(seen.insert(number), "NothingInvented: {number} is there twice ({after}, partition {index})");
            found.insert(header.base_offset.0, number);
        }
        assert_eq!(expected, published.high_watermark().0);
        for (offset, number) in model.acknowledged.range(published.log_start().0..) {
            assert_eq!(found.get(offset), Some(number), "AcknowledgedSurvives: offset {offset} ({after}, partition {index})");
        }
        assert!(expected >= model.visible, "VisibleStays: {expected} of {} ({after}, partition {index})", model.visible);
        assert!(published.log_start().0 >= model.log_start, "the log start never moves back");
        drop(model);
        self.check_timestamps(boot, index, &found);
    }

    /// Finds offsets by timestamp: the first, the last and one in the middle of what is there. Records have their batch's number.
    fn check_timestamps(&self, boot: &Boot, index: usize, found: &BTreeMap<i64, u64>) {
        let middle = found.len() / 2;
        for wanted in [found.values().next(), found.values().nth(middle), found.values().last()].into_iter().flatten() {
            let timestamp = TimestampMs(1_000_000 + *wanted as i64);
            let published = boot.partitions[index].published.clone();
            let first = found.iter().find(|(_, number)| *number >= wanted).map(|(offset, _)| *offset);
            let expected = first.map(|offset| offset.max(published.log_start().0));
            let core = boot.core.clone();
            let answer =
                self.machine.block_on(async move { core.reader.offset_for_timestamp(&published, timestamp).await.unwrap() });
            assert_eq!(answer.map(|(_, offset)| offset.0), expected, "TimestampsAreFound: {timestamp} (partition {index})");
        }
    }

    fn note_visible(&self, boot: &Boot) {
        for (model, partition) in self.models.iter().zip(&boot.partitions) {
            let mut model = model.borrow_mut();
            model.visible = model.visible.max(partition.published.high_watermark().0);
            model.log_start = model.log_start.max(partition.published.log_start().0);
        }
    }

    /// What a loss of power may take from partitions that are not durable, the model forgets.
    fn forget_unsynced(&self, boot: &Boot) {
        for (index, (model, partition)) in self.models.iter().zip(&boot.partitions).enumerate() {
            if index % 2 == 1 {
                let end = partition.published.high_watermark().0;
                let mut model = model.borrow_mut();
                model.acknowledged.retain(|offset, _| *offset < end);
                model.visible = end;
                // It starts anew: what it had an answer for may be lost, and what it had none for may be there.
                model.producer = Producer::new(self.next_batch as i64);
            }
        }
    }
}

/// One life after the other: each boots, works, and ends in one of three ways.
fn run(seed: u64, faults: bool, loud: bool) {
    let mut world = World::new(seed, faults, loud);
    world.machine.disk.set_faults(Faults { short_write: 0.05, slow: 0.02, ..Faults::default() });
    let mut power_lost = false;
    for life in 0..6 {
        // Sometimes the power goes while it boots, and again.
        while world.dice.below(4) == 0 {
            let until = world.machine.simulation.now() + Duration::from_micros(world.dice.below(20_000));
            if world.boot(Some(until)).is_none() {
                world.machine.say("crash while booting");
            }
            world.machine.simulation.crash();
            world.machine.disk.crash();
            power_lost = true;
        }
        let Some(mut boot) = world.boot(None) else { unreachable!() };
        for model in &world.models {
            model.borrow_mut().producer.in_flight = false;
        }
        world.machine.say(&format!("life {life}"));
        if power_lost {
            world.forget_unsynced(&boot);
        }
        for index in 0..PARTITIONS as usize {
            let published = &boot.partitions[index].published;
            world.machine.say(&format!("partition {index}: {} to {}", published.log_start(), published.high_watermark()));
            for segment in published.view.load().segments.iter().filter(|_| world.machine.loud) {
                println!("  segment {} to {}, {} bytes", segment.base_offset, segment.end_offset(), segment.file_bytes());
            }
            world.check(&boot, index, "after boot");
        }
        let mut cut_short = false;
        for _ in 0..world.dice.below(60) {
            match world.dice.below(14) {
                0 => world.machine.simulation.run_for(Duration::from_millis(world.dice.below(30))),
                1 => world.machine.simulation.run_for(Duration::from_secs(8)),
                2 => {
                    let index = world.dice.below(PARTITIONS as u64) as usize;
                    world.note_visible(&boot);
                    world.check(&boot, index, "while running");
                }
                3 => world.machine.simulation.run_for(Duration::from_micros(world.dice.below(500))),
                4 if world.dice.below(4) == 0 => {
                    let index = world.dice.below(PARTITIONS as u64) as usize;
                    let published = &boot.partitions[index].published;
                    let span = (published.high_watermark().0 - published.log_start().0) as u64;
                    let offset = Offset(published.log_start().0 + world.dice.below(span + 1) as i64);
                    let core = boot.core.clone();
                    let partition = world.id(index);
                    let start = world.machine.block_on(async move { core.delete_records(partition, offset).await });
                    assert!(start.is_ok() || world.faults, "{start:?}");
                    if let Ok(start) = start {
                        world.models[index].borrow_mut().log_start = start.0;
                    }
                }
                5 if world.faults => match world.dice.below(4) {
                    0 => world.machine.disk.inject(Injection::next(Operation::Sync, ".journal")),
                    1 => world.machine.disk.inject(Injection::next(Operation::Write, ".journal")),
                    2 => world.machine.disk.inject(Injection::next(Operation::Write, ".log")),
                    _ => {
                        let more = world.dice.below(100 << 10);
                        world.machine.leave_room(more);
                    }
                },
                6 if world.faults => world.machine.disk.set_capacity(None),
                7 if world.dice.below(8) == 0 => {
                    world.machine.disk.set_capacity(None);
                    world.machine.disk.clear_injections();
                    let index = world.dice.below(PARTITIONS as u64) as usize;
                    world.machine.say(&format!("partition {index} is deleted and made anew"));
                    if !world.recreate(&mut boot, index) {
                        cut_short = true;
                        break;
                    }
                }
                8 => world.append_damaged(&boot),
                9 | 10 => {
                    for _ in 0..=world.dice.below(4) {
                        world.produce(&boot);
                    }
                }
                _ => {
                    for _ in 0..=world.dice.below(20) {
                        world.append(&boot);
                    }
                }
            }
        }
        boot.assert_nothing_rots();
        world.machine.disk.set_capacity(None);
        world.machine.disk.clear_injections();
        if !cut_short {
            world.note_visible(&boot);
        }
        for (index, partition) in boot.partitions.iter().enumerate() {
            world.machine.say(&format!("partition {index} ends at {}", partition.published.high_watermark()));
        }
        power_lost = match world.dice.below(4) {
            0 if !cut_short => {
                let clean = world.machine.stop(&boot, world.faults);
                if world.dice.below(2) == 0 {
                    world.machine.disk.crash();
                }
                // What was written before a sync of the journal failed may be nowhere but in memory.
                !clean
            }
            1 if !cut_short => {
                world.machine.kill_the_process();
                // What was written before a sync failed is not there, whoever dies then.
                world.faults
            }
            _ => {
                world.machine.lose_power();
                true
            }
        };
    }
}

/// CrcIsCheckedAtRecovery: what lies above the recovery point is believed as far as its CRCs say.
#[test]
fn a_batch_with_a_wrong_crc_is_not_recovered() {
    let mut world = World::new(1, false, false);
    let boot = world.boot(None).unwrap();
    let sent = [world.batch(0, None), world.batch(0, None)];
    for sent in &sent {
        drop(boot.send(0, &sent.batch));
    }
    world.machine.simulation.run_for(Duration::from_secs(10));
    let first = BatchHeader::parse(&sent[0].batch).unwrap();
    world.machine.simulation.crash();
    world.machine.disk.crash_with(CrashOutcome::KeepUnsynced);
    // Without the journal's checkpoint nothing is known to be durable.
    let disk = world.machine.disk.mount();
    let journal = world.machine.data.join(ringlog_engine::journal::directory_name(0));
    world.machine.block_on(async move {
        for entry in disk.list(&journal).await.unwrap() {
            disk.remove_file(&journal.join(&entry.name)).await.unwrap();
        }
    });
    let in_the_second = (sent[0].batch.len() + sent[1].batch.len() - 3) as u64;
    world.machine.disk.rot_at(&world.machine.data.join("topic0-0/00000000000000000000.log"), in_the_second, 0);
    let boot = world.boot(None).unwrap();
    assert_eq!(boot.partitions[0].published.high_watermark(), Offset(i64::from(first.last_offset_delta) + 1));
    world.check(&boot, 0, "after boot");
}

#[test]
fn acknowledged_survives_crashes() {
    seeds("acknowledged_survives_crashes", false);
}

#[test]
fn acknowledged_survives_crashes_and_faults() {
    seeds("acknowledged_survives_crashes_and_faults", true);
}

fn seeds(test: &str, faults: bool) {
    sim_support::seeds("sim_log", test, |seed, loud| {
        run(seed, faults, loud);
        0
    });
}
