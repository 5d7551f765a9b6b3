//! What clients know, and so what has to hold: every batch that was sent, what was acknowledged and seen of each partition, which
//! topics there are. Pure. Clients tell it what they do and hear; it panics, with the invariant's name first, where an answer
//! cannot be. What a crash may take is decided when the next life is read back, in [`crate::check`].
//!
//! Invariants, by name:
//! - **AcknowledgedSurvives**: what was acknowledged is there, at its offset, as the topic's durability promises.
//! - **WrittenSurvivesTheProcess**: whatever was acknowledged is there when only the process died.
//! - **StoppedCleanlyIsThere**: after a clean stop nothing is lost, whatever happens to what was not synced.
//! - **FlushedSurvives**: a page-cache topic loses at most what `flush.messages` and `flush.ms` leave unsynced.
//! - **SeenStays**: what a consumer of a durable topic could see is there after any crash; nobody sees an offset change.
//! - **NothingInvented**: every batch that is read was sent, to this partition of this topic, byte for byte.
//! - **OnceOnly**: an idempotent producer's batch is there once; another's at most as often as it was sent.
//! - **InOrder**: an idempotent producer's batches are in the order of their sequences, without a gap.
//! - **OffsetsHaveNoGap**: batches follow each other; nothing is served behind the high watermark or of a file's padding.
//! - **OffsetsGoForward**: what is sent after an acknowledgement gets a higher offset.
//! - **OffsetsAreGivenOnce**, **DuplicatesGetTheFirstOffset**, **RetriesAreTaken**.
//! - **ReadFindsTheBatch**: a read at any valid offset begins with the batch that contains it.
//! - **RetentionTakesWhatIsOld**: retention by time takes no sound record that is younger, whatever has rotted.
//! - **HighWatermarkNeverRetreats**, **LogStartNeverRetreats**, **LogStartMovesWhenAsked**.
//! - **TopicStays**, **TopicStaysDeleted**, **PartitionsStay**, **ConfigStays**: what was answered is so from then on.
//! - **CutIsKeptAside**: what recovery cuts off behind rot, and was acknowledged as durable, is in a file beside the log.
//! - **DamageIsNotServed**, **OnlyRotIsRefused**: rot is answered with an error, and only rot is.
//! - **ScrubTellsRot**, **ScrubTellsOnlyRot**: a whole pass of the scrub tells the rot of sealed segments, and nothing that is sound.
//! - **BrokerStarts**, **EverythingEnds**.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use ringlog_engine::batch::{BatchHeader, BatchView};

use crate::groups::known::Known;

/// How long a sync that is due may take to be done, by the simulation's clock, where nothing fails.
const SYNC_SLACK: Duration = Duration::from_secs(3);
/// The same for a sync that is due by the number of records: it comes with the round that brings them.
const COUNT_SLACK: Duration = Duration::from_millis(250);
/// What the page-cache topics' `flush.messages` are that never ask.
pub const NEVER: i64 = i64::MAX;

/// A batch that was sent.
pub struct Sent {
    /// To which topic, by its place in [`Model::topics`].
    pub topic: usize,
    /// To which partition.
    pub partition: i32,
    /// What was sent.
    pub bytes: Vec<u8>,
    /// How many offsets it takes.
    pub records: i64,
    /// Whether it is an idempotent producer's.
    pub is_idempotent: bool,
    /// How often it was sent.
    pub times: u32,
}

/// Whether a topic is there, as far as clients can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existence {
    /// Its creation was asked for, and not answered for certain.
    MayCome,
    /// It is there.
    Present,
    /// Its deletion was asked for, and not answered for certain.
    MayGo,
    /// It is not, any more.
    Gone,
}

/// An acknowledgement.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// Which batch.
    pub number: u64,
    /// Of `acks=1`: a journal that fails may take it back.
    pub is_weak: bool,
}

/// A batch that rotted.
#[derive(Clone, Copy, Debug)]
pub struct Damage {
    /// Its first offset.
    pub base: i64,
    /// The offset behind it.
    pub end: i64,
    /// Its producer, where that is idempotent.
    pub producer: Option<i64>,
    /// The segment it is in, by first offset.
    pub segment: i64,
    /// Whether it is the header: that may hide what follows, up to the next entry of the index.
    pub is_header: bool,
}

impl Damage {
    /// Whether it has this offset.
    #[must_use]
    pub fn has(&self, offset: i64) -> bool {
        (self.base..self.end).contains(&offset)
    }
}

/// One partition.
#[derive(Default)]
pub struct Partition {
    /// By first offset.
    pub acknowledged: BTreeMap<i64, Acknowledged>,
    /// What was read, by first offset.
    pub seen: BTreeMap<i64, u64>,
    /// Nothing below may ever vanish.
    pub durable_end: i64,
    /// Nothing below vanishes when only the process dies and no disk failed; with what was acknowledged with `acks=1`.
    pub written_end: i64,
    /// See `written_end`.
    pub written_end_weak: i64,
    /// The highest high watermark that a client was told in this life.
    pub visible: i64,
    /// The log start is not below.
    pub log_start_min: i64,
    /// Nor above, unless there is retention.
    pub log_start_max: i64,
    /// Up to where its records were asked to be deleted.
    pub deleted_to: i64,
    /// Ends of acknowledged batches and when that was, in this life.
    pub ends: Vec<(i64, Duration)>,
    /// How often a crash took what a producer had an answer for.
    pub losses: u64,
    /// Batches that rotted, and were not found sound since.
    pub damage: Vec<Damage>,
    /// Segments whose index rotted, by first offset: what rotted in one then hides all that follows it there.
    pub rotten_indexes: BTreeSet<i64>,
    /// Whether a producer snapshot rotted, or could not be made anew: what producers did in segments that are gone is forgotten.
    pub are_producers_rotten: bool,
}

/// One topic: another one of the same name is another one.
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id, when it is known.
    pub id: Option<[u8; 16]>,
    /// Whether it is there.
    pub existence: Existence,
    /// Its partitions, as many as there are for certain.
    pub partitions: Vec<Partition>,
    /// How many there may be, beside that.
    pub partitions_maybe: Option<usize>,
    /// What `flush.messages` may be: one value when it is known.
    pub flush_messages: BTreeSet<i64>,
    /// What `flush.ms` may be.
    pub flush_ms: BTreeSet<i64>,
    /// How often these changed, or may have.
    pub flush_changes: u64,
    /// Whether it has been durable since it was made or the broker started, so that everything visible is synced.
    pub is_durable_throughout: bool,
    /// Whether segments may be removed by themselves.
    pub has_retention: bool,
    /// The shortest `retention.ms` that it may have had, where it may have had any.
    pub retention_ms_min: Option<i64>,
    /// Whether it may have had a `retention.bytes`.
    pub retains_by_bytes: bool,
    /// Whether it was asked to be deleted, and may be.
    pub is_deletion_asked: bool,
}

impl Topic {
    /// Whether it is durable, for certain.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.flush_messages.len() == 1 && self.flush_messages.contains(&1)
    }

    /// Options were asked for.
    pub fn note_retention(&mut self, configs: &[(&str, i64)]) {
        for &(name, value) in configs.iter().filter(|(_, value)| *value >= 0) {
            match name {
                "retention.ms" => self.retention_ms_min = Some(self.retention_ms_min.unwrap_or(i64::MAX).min(value)),
                "retention.bytes" => self.retains_by_bytes = true,
                _ => {}
            }
        }
    }
}

/// See the module.
#[derive(Default)]
pub struct Model {
    /// Every batch, by number.
    pub sent: BTreeMap<u64, Sent>,
    /// Every topic that ever was asked for.
    pub topics: Vec<Topic>,
    /// Whether a disk failed, or was full, since the last start that was checked.
    pub is_dirty: bool,
    /// What batches were that have rotted, by segment and where in it they begin.
    pub rot: BTreeMap<(PathBuf, u64), Vec<u8>>,
    /// Files that rotted, beside segments: the scrub may tell of them.
    pub rotten_files: BTreeSet<PathBuf>,
    /// Batches that rotted.
    pub rotted_count: u64,
    /// Whether reads may fail now.
    pub reads_fail: bool,
    /// Acknowledged batches, all lives.
    pub acknowledged_count: u64,
    /// Batches that were read and held against what was sent.
    pub read_count: u64,
    /// What is known of groups.
    pub groups: Known,
    next_number: u64,
}

/// What a producer knew when it sent a batch.
#[derive(Clone, Copy, Debug)]
pub struct AtSend {
    flush_changes: u64,
    is_durable: bool,
    acknowledged_end: i64,
    is_first: bool,
}

/// A batch that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its first offset.
    pub base: i64,
    /// The offset behind it.
    pub end: i64,
    /// Which it is.
    pub number: u64,
}

impl Model {
    /// A number for a new batch.
    pub fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Whether the broker may have forgotten what a producer sent: see [`Partition::are_producers_rotten`], and what the producer is known
    /// to have sent is not in the log any more.
    #[must_use]
    pub fn is_producer_forgotten(&self, topic: usize, partition: i32, producer: i64) -> bool {
        let partition = &self.topics[topic].partitions[partition as usize];
        let is_its = |number: u64| sequence_of(&self.sent[&number].bytes).is_some_and(|(id, ..)| id == producer);
        let there = partition.acknowledged.range(partition.log_start_max..);
        partition.are_producers_rotten && partition.log_start_max > 0 && !there.into_iter().any(|(_, known)| is_its(known.number))
    }

    /// A start could not read something: what it removes goes all the same, and what that says of producers.
    pub fn fail_reads_of_a_start(&mut self) {
        let partitions = self.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        partitions.for_each(|partition| partition.are_producers_rotten = true);
    }

    /// Any operation of the disk may fail from now on.
    pub fn fail(&mut self) {
        (self.is_dirty, self.reads_fail) = (true, true);
    }

    /// The topic of this name that is or may be there.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<usize> {
        self.topics.iter().rposition(|topic| topic.name == name && topic.existence != Existence::Gone)
    }

    /// A partition.
    pub fn partition(&mut self, topic: usize, partition: i32) -> &mut Partition {
        &mut self.topics[topic].partitions[partition as usize]
    }

    /// Notes that a batch is being sent.
    pub fn sending(&mut self, number: u64) -> AtSend {
        let Some(sent) = self.sent.get_mut(&number) else { panic!("batch {number} was made") };
        sent.times += 1;
        let (topic, is_first) = (&self.topics[sent.topic], sent.times == 1);
        let partition = &topic.partitions[sent.partition as usize];
        AtSend {
            flush_changes: topic.flush_changes,
            is_durable: topic.is_durable(),
            acknowledged_end: partition.ends.iter().map(|&(end, _)| end).max().unwrap_or(0),
            is_first,
        }
    }

    /// An acknowledgement came.
    pub fn acknowledge(&mut self, number: u64, base: i64, acks: i16, at: AtSend, now: Duration) {
        let sent = &self.sent[&number];
        let (end, is_idempotent) = (base + sent.records, sent.is_idempotent);
        let (at_topic, at_partition) = (sent.topic, sent.partition);
        let is_dirty = self.is_dirty;
        let topic = &mut self.topics[at_topic];
        let what = format!("batch {number} at {base} of {}-{at_partition}", topic.name);
        let still_durable = topic.is_durable() && topic.flush_changes == at.flush_changes && at.is_durable;
        let partition = &mut topic.partitions[at_partition as usize];
        assert!(base >= 0, "OffsetsAreGivenOnce: {what}");
        if at.is_first {
            assert!(
                base >= at.acknowledged_end,
                "OffsetsGoForward: {what}, sent after an acknowledgement up to {}",
                at.acknowledged_end
            );
        }
        let is_weak = acks == 1;
        if is_idempotent && !(partition.are_producers_rotten && partition.log_start_max > 0) {
            let before = partition.acknowledged.iter().find(|(_, known)| known.number == number && !(known.is_weak && is_dirty));
            if let Some((before, _)) = before {
                assert_eq!(*before, base, "DuplicatesGetTheFirstOffset: {what}");
            }
        }
        if is_dirty {
            // What a journal that failed took back is given again.
            partition
                .acknowledged
                .retain(|&other, known| !(known.is_weak && other < end && other >= base && known.number != number));
        }
        if let Some((other, known)) = partition.acknowledged.range(..end).next_back()
            && known.number != number
        {
            let other_end = other + self.sent[&known.number].records;
            if other_end > base && is_weak && is_dirty {
                // It was taken back before its answer came, and its place is somebody else's by now.
                return;
            }
            assert!(
                other_end <= base || (known.is_weak && is_dirty),
                "OffsetsAreGivenOnce: {what}, and batch {} at {other}",
                known.number
            );
        }
        if partition.seen.get(&base).is_some_and(|seen| *seen != number) {
            // As above, and it was read there before the answer came.
            assert!(is_weak && is_dirty, "OffsetsAreGivenOnce: {what} was read as another");
            return;
        }
        let before = partition.acknowledged.insert(base, Acknowledged { number, is_weak });
        if let Some(before) = before.filter(|before| before.number == number && !before.is_weak) {
            partition.acknowledged.insert(base, before);
        }
        if is_weak {
            partition.written_end_weak = partition.written_end_weak.max(end);
        } else {
            partition.ends.push((end, now));
            partition.written_end = partition.written_end.max(end);
            if still_durable {
                partition.durable_end = partition.durable_end.max(end);
            }
        }
        self.acknowledged_count += 1;
    }

    /// Batches were read one after the other: each was sent here, and is where it was. Returns what they are.
    pub fn read(&mut self, at_topic: usize, at_partition: i32, bytes: &[u8], from: i64, high_watermark: i64) -> Vec<Read> {
        let name = self.topics[at_topic].name.clone();
        let mut reads: Vec<Read> = Vec::new();
        let mut rest = bytes;
        while let Ok(Some((batch, after))) = ringlog_engine::batch::split_first(rest) {
            let header = *batch.header();
            let what = format!("offset {} of {name}-{at_partition}", header.base_offset.0);
            let read = Read {
                base: header.base_offset.0,
                end: header.next_offset().0,
                number: self.identify(at_topic, at_partition, &batch, &what),
            };
            match reads.last() {
                None => assert!(
                    (read.base..read.end).contains(&from),
                    "ReadFindsTheBatch: asked for {from}, got {} to {} of {name}-{at_partition}",
                    read.base,
                    read.end
                ),
                Some(last) => assert_eq!(last.end, read.base, "OffsetsHaveNoGap: {what}"),
            }
            assert!(read.end <= high_watermark, "OffsetsHaveNoGap: {what} is served behind the high watermark {high_watermark}");
            self.see(at_topic, at_partition, read, &what);
            reads.push(read);
            rest = after;
        }
        // What follows is the beginning of the next batch: no padding of a file, nothing that is not visible.
        if let Some(base) = rest.first_chunk() {
            let expected = reads.last().map_or(from, |last| last.end);
            assert_eq!(
                i64::from_be_bytes(*base),
                expected,
                "OffsetsHaveNoGap: behind the last whole batch of {name}-{at_partition}"
            );
        }
        self.read_count += reads.len() as u64;
        reads
    }

    fn identify(&self, at_topic: usize, at_partition: i32, batch: &BatchView<'_>, what: &str) -> u64 {
        if let Err(error) = batch.check_crc() {
            panic!("DamageIsNotServed: {what}: {error}");
        }
        let records = match batch.records(1 << 24) {
            Ok(records) => records,
            Err(error) => panic!("NothingInvented: {what}: {error}"),
        };
        let key = records.iter().next().and_then(Result::ok).and_then(|record| record.key?.first_chunk::<8>().copied());
        let Some(number) = key.map(u64::from_le_bytes) else { panic!("NothingInvented: {what} has no number") };
        let Some(sent) = self.sent.get(&number) else {
            panic!("NothingInvented: {what} is batch {number}, which was never sent")
        };
        assert_eq!(
            (sent.topic, sent.partition),
            (at_topic, at_partition),
            "NothingInvented: {what} is batch {number} of another partition"
        );
        // The base offset and the leader epoch are the broker's.
        let same = |bytes: &[u8]| [bytes[8..12].to_vec(), bytes[16..].to_vec()];
        assert!(
            same(&sent.bytes) == same(batch.bytes()),
            "NothingInvented: {what}, batch {number}, is not byte for byte what was sent"
        );
        number
    }

    fn see(&mut self, at_topic: usize, at_partition: i32, read: Read, what: &str) {
        let partition = &mut self.topics[at_topic].partitions[at_partition as usize];
        let before = partition.seen.insert(read.base, read.number);
        assert!(
            before.is_none_or(|before| before == read.number),
            "SeenStays: {what} was batch {before:?} and is {}",
            read.number
        );
        if let Some(known) = partition.acknowledged.get(&read.base)
            && !(known.is_weak && self.is_dirty)
        {
            assert_eq!(known.number, read.number, "AcknowledgedSurvives: {what}");
        }
        partition.written_end = partition.written_end.max(read.end);
    }

    /// A client heard where a partition begins and ends. `asked_at` is what was known when it asked.
    pub fn hear(
        &mut self,
        topic_at: usize,
        partition_at: i32,
        log_start: Option<i64>,
        high_watermark: Option<i64>,
        asked_at: Heard,
    ) {
        let topic = &self.topics[topic_at];
        let name = format!("{}-{partition_at}", topic.name);
        let is_durable = topic.is_durable_throughout && topic.is_durable();
        let has_retention = topic.has_retention;
        let partition = self.partition(topic_at, partition_at);
        if let Some(end) = high_watermark {
            assert!(end >= asked_at.visible, "HighWatermarkNeverRetreats: {name} from {} to {end}", asked_at.visible);
            partition.visible = partition.visible.max(end);
            partition.written_end = partition.written_end.max(end);
            if is_durable {
                partition.durable_end = partition.durable_end.max(end);
            }
        }
        if let Some(start) = log_start {
            self.check_retained(topic_at, partition_at, start);
            let partition = self.partition(topic_at, partition_at);
            assert!(start >= asked_at.log_start, "LogStartNeverRetreats: {name} from {} to {start}", asked_at.log_start);
            assert!(has_retention || start <= partition.log_start_max, "LogStartMovesWhenAsked: {name} starts at {start}");
            partition.log_start_min = partition.log_start_min.max(start);
            partition.log_start_max = partition.log_start_max.max(start);
        }
    }

    /// RetentionTakesWhatIsOld: the log begins at `start` now. By the wall clock, wherever it has been, each record that went was old. What
    /// has rotted has no age, nor has what a header hides that has.
    pub fn check_retained(&self, at_topic: usize, at_partition: i32, start: i64) {
        let topic = &self.topics[at_topic];
        let partition = &topic.partitions[at_partition as usize];
        if topic.retains_by_bytes {
            return;
        }
        let has_rotted =
            |base: i64| partition.damage.iter().any(|damage| damage.has(base) || (damage.is_header && damage.base < base));
        for (&base, known) in partition.acknowledged.range(partition.log_start_min..start.max(partition.log_start_min)) {
            let sent = &self.sent[&known.number];
            let is_gone = base + sent.records <= start && base + sent.records > partition.deleted_to;
            if !is_gone || known.is_weak || has_rotted(base) {
                continue;
            }
            let newest = BatchHeader::parse(&sent.bytes).map_or(i64::MAX, |header| header.max_timestamp.0);
            let age_ms = self.groups.wall_ms_max.saturating_sub(newest);
            assert!(
                topic.retention_ms_min.is_some_and(|retention_ms| age_ms > retention_ms),
                "RetentionTakesWhatIsOld: batch {} at {base} of {}-{at_partition}, {age_ms} ms old at most, is gone with retention.ms {:?}",
                known.number,
                topic.name,
                topic.retention_ms_min
            );
        }
    }

    /// What is known of a partition now, before something is asked.
    pub fn heard(&mut self, topic: usize, partition: i32) -> Heard {
        let partition = self.partition(topic, partition);
        let acknowledged = partition.ends.iter().map(|&(end, _)| end).max().unwrap_or(0);
        Heard { visible: partition.visible, log_start: partition.log_start_min, acknowledged }
    }

    /// The power is about to go: what page-cache topics must have synced by now cannot be lost, where no disk failed.
    pub fn note_flushed(&mut self, now: Duration) {
        if self.is_dirty {
            return;
        }
        for topic in &mut self.topics {
            let (Some(&messages), Some(&ms)) = (topic.flush_messages.first(), topic.flush_ms.first()) else { continue };
            if topic.flush_changes > 0 || topic.flush_messages.len() > 1 || topic.flush_ms.len() > 1 {
                continue;
            }
            for partition in &mut topic.partitions {
                let settled = |&&(_, at): &&(i64, Duration)| at + COUNT_SLACK <= now;
                // A sync takes all that is there when as many records are not synced.
                let newest = partition.ends.iter().filter(settled).map(|&(end, _)| end).max().unwrap_or(0);
                let by_count = newest.saturating_sub(messages);
                let flush_ms = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
                let old = |&&(_, at): &&(i64, Duration)| {
                    at.checked_add(flush_ms).and_then(|due| due.checked_add(SYNC_SLACK)).is_some_and(|due| due <= now)
                };
                let by_time = partition.ends.iter().filter(old).map(|&(end, _)| end).max().unwrap_or(0);
                // The count is of records, and a sync of batches: what lies within one is not asked about.
                let flushed = by_time.max(by_count.min(partition.written_end));
                let flushed = partition.ends.iter().map(|&(end, _)| end).filter(|&end| end <= flushed).max().unwrap_or(0);
                partition.durable_end = partition.durable_end.max(flushed);
            }
        }
    }
}

/// What was known of a partition when something was asked.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// The highest high watermark that was told.
    pub visible: i64,
    /// The highest log start.
    pub log_start: i64,
    /// The end of what was acknowledged.
    pub acknowledged: i64,
}

/// The sequence of a batch: its producer, the first and the last.
#[must_use]
pub fn sequence_of(bytes: &[u8]) -> Option<(i64, i32, i32)> {
    let header = BatchHeader::parse(bytes).ok()?;
    (header.producer_id.0 >= 0).then(|| (header.producer_id.0, header.base_sequence, header.last_sequence()))
}
