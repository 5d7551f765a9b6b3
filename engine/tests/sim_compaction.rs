//! Compaction in the simulator: keyed records, cleanings, crashes at any moment, and faults, under a seed. `RINGLOG_SIM_SEEDS`
//! sets how many seeds run (default 60), `RINGLOG_SIM_SEED` runs one and prints it step by step.
//!
//! Invariants, by name:
//! - LastValueStays: the last acknowledged record of each key is there, at its offset, with its bytes; or it was a tombstone.
//! - OnlySupersededGoes: what is not there any more has a later record with its key.
//! - DeletedKeysStayDeleted: once a tombstone has gone, nothing that it deleted is there.
//! - OffsetsHold: a record never has another offset than it had.
//! - OrderHolds: offsets grow; and so a consumer in the middle of the log sees what follows, whatever is replaced meanwhile.
//! - NothingInvented: every record that is read was sent, and is there once.
//! - EndHolds: the log ends where it ended.
//! - DuplicatesGetTheFirstOffset, RetriesAreTaken: producers do not notice.
//! - SoundIsNeverReported: a scrub that goes on all the while, in every other seed, finds nothing.
//! - TimestampsAreFound: a search by timestamp gives the first record that is as new.
//! - EverythingEnds: nothing waits for ever.
//!
//! That they hold because the engine makes them hold was tried by breaking it; the table is in docs/adr/0010.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod sim_support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringlog_engine::batch::{BatchBuilder, BatchHeader, BatchView, batches};
use ringlog_engine::compression::Codec;
use ringlog_engine::core::cleaner::{Cleaner, CleanerSettings};
use ringlog_engine::core::scrubber::{ScrubSettings, Scrubber};
use ringlog_engine::core::{Core, CoreSettings, recover};
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::{Faults, Injection, Operation};
use ringlog_engine::log::append::AppendError;
use ringlog_engine::log::config::{CompactionConfig, LogConfig};
use ringlog_engine::log::read::ReadError;
use ringlog_engine::record::Header;
use ringlog_engine::types::{Offset, PartitionId, ProducerId, TimestampMs, TopicId};

use sim_support::{Boot, Dice, Machine, begin, bytes_of, open_all, scrub_settings};

const PARTITIONS: usize = 3;
const KEYS: u64 = 12;
/// Cleanings begin so often.
const BACKOFF: Duration = Duration::from_secs(2);
/// How long a slow start takes at the most.
const PAUSE_MAX: Duration = Duration::from_secs(20);
const DELETE_RETENTION_MS: i64 = 15_000;
const FIRST_TIMESTAMP: i64 = 1_000_000;

/// A record, as it was sent; its id is in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    key: u64,
    value: Option<Vec<u8>>,
    timestamp: i64,
}

/// What is known of one partition from outside.
#[derive(Default)]
struct Model {
    sent: BTreeMap<u64, Written>,
    /// Offset → id, of what was acknowledged or read.
    known: BTreeMap<i64, u64>,
    visible: i64,
    log_start: i64,
    producer: Producer,
    /// How many records were known and not there any more, at the last look.
    gone: usize,
}

impl Model {
    /// Notes where a record is.
    fn note(&mut self, offset: i64, id: u64) {
        let before = self.known.insert(offset, id);
        assert!(before.is_none_or(|before| before == id), "OffsetsHold: {offset} had {before:?} and has {id}");
    }

    fn note_batch(&mut self, base_offset: i64, ids: &[u64]) {
        for (offset, id) in (base_offset..).zip(ids) {
            self.note(offset, *id);
        }
    }
}

#[derive(Default)]
struct Producer {
    id: i64,
    next_sequence: i32,
    unanswered: Option<Sent>,
    in_flight: bool,
    last: Option<(Sent, i64)>,
}

#[derive(Clone)]
struct Sent {
    ids: Vec<u64>,
    batch: Vec<u8>,
}

struct World {
    machine: Machine,
    models: Vec<Rc<RefCell<Model>>>,
    dice: Dice,
    next_id: u64,
    settings: CleanerSettings,
    scrub: ScrubSettings,
    ratio: f64,
    faults: bool,
}

fn id(index: usize) -> PartitionId {
    PartitionId { topic: TopicId([index as u8 + 1; 16]), index: 0 }
}

fn folder(index: usize) -> String {
    format!("topic{index}-0")
}

impl World {
    fn new(seed: u64, faults: bool, loud: bool) -> Self {
        let mut dice = Dice(seed);
        let settings = CleanerSettings {
            backoff: BACKOFF,
            // A few keys, or all of them.
            dedupe_bytes_max: if dice.below(3) == 0 { 24 * (2 + dice.below(8) as usize) } else { 1 << 20 },
            step_bytes: 4096 << dice.below(4),
            bytes_per_second_max: if dice.below(3) == 0 { 50_000.0 } else { f64::MAX },
            ..CleanerSettings::default()
        };
        let ratio = [0.0, 0.3, 0.5][dice.below(3) as usize];
        let models = (0..PARTITIONS).map(|_| Rc::default()).collect();
        Self { machine: Machine::new(seed, loud), models, dice, next_id: 1, settings, scrub: scrub_settings(seed), ratio, faults }
    }

    /// Partition 0 is durable, 1 is not, 2 is durable and loses old segments by size too.
    fn config(&self, index: usize) -> Arc<LogConfig> {
        let compaction = CompactionConfig {
            min_cleanable_dirty_ratio: self.ratio,
            delete_retention_ms: DELETE_RETENTION_MS,
            ..CompactionConfig::default()
        };
        Arc::new(LogConfig {
            segment_bytes: 12 << 10,
            index_interval_bytes: 512,
            flush_messages: if index == 1 { 1 << 40 } else { 1 },
            retention_ms: -1,
            retention_bytes: if index == 2 { 60 << 10 } else { -1 },
            compaction: Some(compaction),
            ..LogConfig::default()
        })
    }

    /// Boots as the broker does, with a pause between opening and the begin of a new journal, as where there is much to open.
    /// `None` where a crash came first.
    fn boot(&self, until: Option<Duration>, pause: Duration) -> Option<Boot> {
        let env = self.machine.simulation.env();
        let disk: Rc<dyn Disk> = self.machine.disk.mount();
        let data = self.machine.data.clone();
        let configs: Vec<_> = (0..PARTITIONS).map(|index| self.config(index)).collect();
        let cleaner = Cleaner::new(self.settings.clone(), &data);
        let scrubber = Scrubber::new(self.scrub.clone());
        let work = async move {
            let found = recover::recover(&disk, &data).await.unwrap();
            let settings = CoreSettings {
                data_directory: data.clone(),
                journal_bytes: 128 << 10,
                journal_run_bytes_max: 2 << 10,
                tail_bytes: 2 << 20,
                open_files_max: 8,
            };
            let core = Core::new(0, settings, disk.clone(), env, Box::new(|_, _, _| true)).await.unwrap();
            core.start();
            core.start_cleaner(cleaner);
            core.start_scrubber(scrubber.clone());
            let wanted = configs.into_iter().enumerate().map(|(index, config)| (id(index), folder(index), config));
            let partitions = open_all(&core, &found, wanted).await;
            core.env.sleep(pause).await;
            begin(&core, &data).await;
            Boot { core, partitions, scrubber }
        };
        match until {
            Some(until) => self.machine.simulation.block_on_until(work, until),
            None => Some(self.machine.block_on(work)),
        }
    }

    fn batch(&mut self, index: usize, producer: Option<(ProducerId, i32)>) -> Sent {
        let mut builder = BatchBuilder::new(Offset(0)).codec(Codec::ALL[self.dice.below(5) as usize]);
        if let Some((id, sequence)) = producer {
            builder = builder.producer(id, 0, sequence);
        }
        let mut ids = Vec::new();
        for _ in 0..1 + self.dice.below(6) {
            let id = self.next_id;
            self.next_id += 1;
            let len = if self.dice.below(8) == 0 { 4_000 } else { 300 };
            let noise = self.dice.next();
            let value: Vec<u8> = (0..self.dice.below(len)).map(|at| (noise >> (at % 64)) as u8).collect();
            let value = (self.dice.below(6) > 0).then_some(value);
            let written = Written { key: self.dice.below(KEYS), value, timestamp: FIRST_TIMESTAMP + id as i64 };
            let header = Header { key: b"id", value: Some(&id.to_le_bytes()) };
            builder.push(TimestampMs(written.timestamp), Some(&written.key.to_le_bytes()), written.value.as_deref(), &[header]);
            self.models[index].borrow_mut().sent.insert(id, written);
            ids.push(id);
        }
        Sent { ids, batch: builder.build() }
    }

    fn append(&mut self, boot: &Boot) {
        let index = self.dice.below(PARTITIONS as u64) as usize;
        let sent = self.batch(index, None);
        let model = self.models[index].clone();
        let answer = boot.send(index, &sent.batch);
        self.machine.simulation.env().spawn(Box::pin(async move {
            if let Ok(Ok(appended)) = answer.await {
                model.borrow_mut().note_batch(appended.base_offset.0, &sent.ids);
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
        let log_start = boot.partitions[index].published.log_start().0;
        let again = model.borrow().producer.last.clone().filter(|(_, base)| self.dice.below(3) == 0 && *base >= log_start);
        if let (true, Some((sent, base_offset))) = (model.borrow().producer.unanswered.is_none(), again) {
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
                    model.note_batch(appended.base_offset.0, &sent.ids);
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

    /// All batches of a partition, and where they end, read as a consumer does, with pauses in which anything may happen.
    fn read(&mut self, boot: &Boot, index: usize, pauses: bool) -> Result<(Vec<Vec<u8>>, i64), ReadError> {
        let published = boot.partitions[index].published.clone();
        let core = boot.core.clone();
        let fetch_bytes = 1 + self.dice.below(20_000);
        let pause = Duration::from_micros(if pauses { self.dice.below(400_000) } else { 0 });
        self.machine.block_on(async move {
            let mut bytes = Vec::new();
            let mut at = published.log_start();
            loop {
                let plan = match core.reader.plan(&published, at, fetch_bytes, true).await {
                    // Retention took it meanwhile: on from the log start, as a consumer does.
                    Err(ReadError::OutOfRange(_)) if at < published.log_start() => {
                        (at, bytes) = (published.log_start(), Vec::new());
                        continue;
                    }
                    plan => plan?,
                };
                if !pause.is_zero() {
                    // What was planned may be replaced now; it is sent all the same.
                    core.env.sleep(pause).await;
                }
                let piece = bytes_of(&plan).await;
                if piece.is_empty() {
                    assert_eq!(at, plan.high_watermark, "EndHolds: a read at {at} below the high watermark gives something");
                    return Ok((bytes, at.0));
                }
                let before = at;
                for batch in batches(&piece) {
                    let batch = batch.unwrap();
                    batch.check_crc().unwrap();
                    assert!(batch.header().next_offset() > at, "OrderHolds: {} at {at}", batch.header().last_offset());
                    bytes.push(batch.bytes().to_vec());
                    at = batch.header().next_offset();
                }
                assert!(at > before, "a plan has at least one whole batch");
            }
        })
    }

    /// Reads a partition and checks everything that is known of it.
    fn check(&mut self, boot: &Boot, index: usize, after: &str, pauses: bool) {
        let segments = boot.partitions[index].published.view.load().segments.clone();
        let (read, read_to) = match self.read(boot, index, pauses) {
            Ok(read) => read,
            // A compaction that a fault interrupted half way: the next start finishes it.
            Err(ReadError::Io(error)) if self.faults && after != "after boot" => {
                self.machine.say(&format!("partition {index} cannot be read: {error}"));
                return;
            }
            Err(error) => panic!("{error} ({after}, partition {index})"),
        };
        let start = boot.partitions[index].published.log_start().0;
        let mut model = self.models[index].borrow_mut();
        let mut there: BTreeMap<i64, u64> = BTreeMap::new();
        for bytes in &read {
            let batch = BatchView::new(bytes).unwrap();
            let header = batch.header();
            let records = batch.records(1 << 20).unwrap();
            let mut count = 0;
            for record in &records {
                let record = record.unwrap();
                count += 1;
                let offset = header.offset_of(&record).0;
                let number = record.headers().next().and_then(|header| header.value).unwrap();
                let number = u64::from_le_bytes(number.try_into().unwrap());
                let sent = model.sent.get(&number).unwrap_or_else(|| panic!("NothingInvented: {number} ({after})"));
                let found = Written {
                    key: u64::from_le_bytes(record.key.unwrap().try_into().unwrap()),
                    value: record.value.map(<[u8]>::to_vec),
                    timestamp: header.timestamp_of(&record).0,
                };
                assert_eq!(&found, sent, "NothingInvented: {number} ({after}, partition {index})");
                assert!(there.last_key_value().is_none_or(|(last, _)| *last < offset), "OrderHolds: {offset} ({after})");
                assert!(offset <= header.last_offset().0);
                if offset >= start {
                    model.note(offset, number);
                }
                there.insert(offset, number);
            }
            assert_eq!(count, header.record_count);
        }
        let mut ids: Vec<_> = there.values().collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), there.len(), "NothingInvented: once each ({after}, partition {index})");
        // The last record of each key.
        let mut last: BTreeMap<u64, i64> = BTreeMap::new();
        for (offset, number) in model.known.range(start..) {
            last.insert(model.sent[number].key, *offset);
        }
        let mut gone = 0;
        for (offset, number) in model.known.range(start..) {
            let written = &model.sent[number];
            let last = last[&written.key];
            if there.get(offset) == Some(number) {
                let is_alive = there.contains_key(&last) || last >= read_to;
                assert!(is_alive, "DeletedKeysStayDeleted: {offset}, deleted by {last} ({after}, partition {index})");
                continue;
            }
            if *offset >= read_to {
                break;
            }
            gone += 1;
            assert!(*offset != last || written.value.is_none(), "LastValueStays: offset {offset} ({after}, partition {index})");
            assert!(*offset <= last, "OnlySupersededGoes");
        }
        model.gone = gone;
        let end = boot.partitions[index].published.high_watermark().0;
        assert!(end >= model.visible, "EndHolds: {end} of {} ({after}, partition {index})", model.visible);
        assert!(start >= model.log_start, "the log start never moves back");
        if pauses {
            return;
        }
        // Ids grow with offsets nowhere: the first in the log that is as new as the one in the middle.
        let Some(middle) = there.range(start..).nth(there.len() / 2).map(|(_, number)| model.sent[number].timestamp) else {
            return;
        };
        let is_as_new = |(_, number): &(&i64, &u64)| model.sent[*number].timestamp >= middle;
        let expected = there.range(start..).find(is_as_new).map(|(offset, _)| *offset);
        let newest = there.values().map(|number| model.sent[number].timestamp).max();
        drop(model);
        let (core, published) = (boot.core.clone(), boot.partitions[index].published.clone());
        let answers = self.machine.block_on(async move {
            let found = core.reader.offset_for_timestamp(&published, TimestampMs(middle)).await?;
            Ok::<_, ReadError>((found, core.reader.max_timestamp(&published).await?))
        });
        let (found, max) = match answers {
            Ok(answers) => answers,
            Err(ReadError::Io(_)) if self.faults => return,
            Err(error) => panic!("{error}"),
        };
        let published = &boot.partitions[index].published;
        if !Arc::ptr_eq(&segments, &published.view.load().segments) {
            // Compacted meanwhile.
            return;
        }
        assert_eq!(found.map(|(_, offset)| offset.0), expected, "TimestampsAreFound: {middle} ({after}, partition {index})");
        if published.log_end() == published.high_watermark() {
            assert_eq!(
                max.map(|(timestamp, _)| timestamp.0),
                newest,
                "TimestampsAreFound: the newest ({after}, partition {index})"
            );
        }
    }

    fn note_visible(&self, boot: &Boot) {
        for (model, partition) in self.models.iter().zip(&boot.partitions) {
            let mut model = model.borrow_mut();
            model.visible = model.visible.max(partition.published.high_watermark().0);
            model.log_start = model.log_start.max(partition.published.log_start().0);
        }
    }

    /// What a loss of power may take from the partition that is not durable, the model forgets.
    fn forget_unsynced(&self, boot: &Boot) {
        let mut model = self.models[1].borrow_mut();
        let end = boot.partitions[1].published.high_watermark().0;
        model.known.retain(|offset, _| *offset < end);
        model.visible = end;
        model.producer = Producer { id: self.next_id as i64, ..Producer::default() };
    }

    /// Lets time go on until new names of a compaction are there, and a little further: most crashes would miss these moments.
    /// Returns whether there was one.
    fn run_into_a_swap(&mut self) -> bool {
        let mut step = Duration::from_millis(2);
        for _ in 0..3_000 {
            let tree = self.machine.disk.tree();
            if tree.contains(".swap") {
                self.machine.simulation.run_for(Duration::from_micros(self.dice.below(1_000)));
                self.machine.say("in the middle of a swap");
                return true;
            }
            if tree.contains(".cleaned") {
                step = Duration::from_micros(100);
            }
            self.machine.simulation.run_for(step);
        }
        false
    }

    fn inject(&mut self) {
        let mut injection = match self.dice.below(7) {
            0 => Injection::next(Operation::Write, ".cleaned"),
            1 => Injection::next(Operation::Sync, ".cleaned"),
            2 => Injection::next(Operation::Rename, ".swap"),
            3 => Injection::next(Operation::Rename, ".deleted"),
            4 => Injection::next(Operation::SyncDir, "topic"),
            5 => Injection::next(Operation::Rename, ".log"),
            _ => {
                let more = self.dice.below(100 << 10);
                self.machine.leave_room(more);
                return;
            }
        };
        injection.after = self.dice.below(8);
        self.machine.say(&format!("{injection:?}"));
        self.machine.disk.inject(injection);
    }
}

/// One life after the other. Returns how many records compaction took.
fn run(seed: u64, faults: bool, loud: bool) -> usize {
    let mut world = World::new(seed, faults, loud);
    world.machine.disk.set_faults(Faults { short_write: 0.05, slow: 0.02, ..Faults::default() });
    let mut power_lost = false;
    for life in 0..6 {
        while world.dice.below(4) == 0 {
            let (until, pause) = match world.dice.below(3) {
                // Long enough for cleanings.
                0 => (Duration::from_millis(world.dice.below(20_000)), PAUSE_MAX),
                _ => (Duration::from_micros(world.dice.below(30_000)), Duration::ZERO),
            };
            if world.boot(Some(world.machine.simulation.now() + until), pause).is_none() {
                world.machine.say("crash while booting");
            }
            world.machine.simulation.crash();
            world.machine.disk.crash();
            power_lost = true;
        }
        let pause = if world.dice.below(8) == 0 { PAUSE_MAX } else { Duration::ZERO };
        let Some(boot) = world.boot(None, pause) else { unreachable!() };
        for model in &world.models {
            model.borrow_mut().producer.in_flight = false;
        }
        world.machine.say(&format!("life {life}"));
        if power_lost {
            world.forget_unsynced(&boot);
        }
        for index in 0..PARTITIONS {
            for segment in boot.partitions[index].published.view.load().segments.iter().filter(|_| world.machine.loud) {
                println!(
                    "  {index}: segment {} to {}, {} bytes",
                    segment.base_offset,
                    segment.end_offset(),
                    segment.file_bytes()
                );
            }
            world.check(&boot, index, "after boot", false);
        }
        let mut in_a_swap = false;
        for _ in 0..world.dice.below(70) {
            match world.dice.below(14) {
                0 => world.machine.simulation.run_for(Duration::from_millis(world.dice.below(30))),
                1 | 2 => world.machine.simulation.run_for(Duration::from_secs(8)),
                3 => world.machine.simulation.run_for(Duration::from_micros(world.dice.below(500))),
                4 | 5 => {
                    let index = world.dice.below(PARTITIONS as u64) as usize;
                    world.note_visible(&boot);
                    let pauses = world.dice.below(2) == 0;
                    world.check(&boot, index, "while running", pauses);
                }
                6 if world.dice.below(4) == 0 => {
                    let index = world.dice.below(PARTITIONS as u64) as usize;
                    let published = &boot.partitions[index].published;
                    let span = (published.high_watermark().0 - published.log_start().0) as u64;
                    let offset = Offset(published.log_start().0 + world.dice.below(span / 2 + 1) as i64);
                    let core = boot.core.clone();
                    let start = world.machine.block_on(async move { core.delete_records(id(index), offset).await });
                    assert!(start.is_ok() || world.faults, "{start:?}");
                }
                7 => {
                    let core = boot.core.clone();
                    let retained = world.machine.block_on(async move { core.retain().await });
                    assert!(retained.is_ok() || world.faults, "{retained:?}");
                }
                12 if world.dice.below(6) == 0 => {
                    if world.run_into_a_swap() {
                        in_a_swap = true;
                        break;
                    }
                }
                8 if world.faults => world.inject(),
                9 if world.faults => world.machine.disk.set_capacity(None),
                10 | 11 => {
                    for _ in 0..=world.dice.below(6) {
                        world.produce(&boot);
                    }
                }
                _ => {
                    for _ in 0..=world.dice.below(30) {
                        world.append(&boot);
                    }
                }
            }
        }
        boot.assert_nothing_rots();
        world.machine.disk.set_capacity(None);
        world.machine.disk.clear_injections();
        world.note_visible(&boot);
        power_lost = match world.dice.below(4) {
            0 if !in_a_swap => {
                let clean = world.machine.stop(&boot, world.faults);
                if clean && !world.faults {
                    let (disk, data): (Rc<dyn Disk>, _) = (world.machine.disk.mount(), world.machine.data.clone());
                    world.machine.block_on(async move {
                        for index in 0..PARTITIONS {
                            for entry in disk.list(&data.join(folder(index))).await.unwrap() {
                                let left = [".cleaned", ".swap", ".deleted"].iter().any(|suffix| entry.name.ends_with(suffix));
                                assert!(!left, "a clean stop leaves Kafka's files alone: {}", entry.name);
                            }
                        }
                    });
                }
                if world.dice.below(2) == 0 {
                    world.machine.disk.crash();
                }
                !clean
            }
            1 => {
                world.machine.kill_the_process();
                world.faults
            }
            _ => {
                world.machine.lose_power();
                true
            }
        };
    }
    world.models.iter().map(|model| model.borrow().gone).sum()
}

#[test]
fn the_last_value_survives_crashes() {
    seeds("the_last_value_survives_crashes", false);
}

#[test]
fn the_last_value_survives_crashes_and_faults() {
    seeds("the_last_value_survives_crashes_and_faults", true);
}

fn seeds(test: &str, faults: bool) {
    let (seeds, gone) = sim_support::seeds("sim_compaction", test, |seed, loud| run(seed, faults, loud));
    println!("{gone} records were compacted away");
    assert!(gone >= 100 * seeds as usize, "compaction has taken only {gone} records");
}
