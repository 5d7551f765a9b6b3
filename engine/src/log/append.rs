//! Taking a batch into the log: producer rules, offsets, the roll of a segment, the one copy into the tail. Memory only.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::batch::{self, BatchHeader};
use crate::log::config::TimestampType;
use crate::log::inflow::Entering;
use crate::log::producers::{ProducerError, Verdict};
use crate::log::published::{LiveIndex, Segment};
use crate::log::{LiveSegment, Log, SegmentState, tail};
use crate::memory::Pool;
use crate::segment::index::{self, IndexEntry, TimeEntry};
use crate::segment::names;
use crate::types::{Offset, TimestampMs};

/// When a producer wants its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Not at all.
    None,
    /// When the leader has written it.
    Leader,
    /// When it cannot be lost: committed.
    All,
}

/// What an appended batch got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The offset after its last record.
    pub next_offset: Offset,
    /// The broker's timestamp, where the topic wants that; else [`TimestampMs::NONE`].
    pub log_append_time: TimestampMs,
    /// The first offset of the log.
    pub log_start: Offset,
}

/// Why a batch was not appended, or not kept.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AppendError {
    /// The batch's bytes do not have the CRC that it says.
    #[error("the CRC of the batch is wrong")]
    Crc,
    /// Larger than a segment may be.
    #[error("the batch of {batch_bytes} bytes is larger than segment.bytes ({segment_bytes})")]
    LargerThanSegment {
        /// The batch.
        batch_bytes: u64,
        /// The bound.
        segment_bytes: u64,
    },
    /// Larger than what the tails of all partitions of the core may take together: it would wait for room for ever.
    #[error(
        "the batch of {batch_bytes} bytes is larger than a core's memory for records, see ringlog.memory.bytes ({memory_bytes})"
    )]
    LargerThanMemory {
        /// The batch.
        batch_bytes: u64,
        /// The bound.
        memory_bytes: u64,
    },
    /// Against the rules of idempotent producers.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// No room: in memory now, or on the disk. The producer may try again.
    #[error("no room: {0}")]
    NoRoom(String),
    /// The journal failed after the batch was taken: it was cut off again.
    #[error("the journal failed: {0}")]
    Journal(String),
    /// The partition is out of service.
    #[error("the partition is offline: {0}")]
    Offline(String),
    /// The partition is gone: its topic was deleted.
    #[error("the partition was deleted")]
    Deleted,
}

/// Where the answer to an append goes.
#[derive(Debug)]
pub struct AppendReply {
    sender: oneshot::Sender<Result<Appended, AppendError>>,
    entering: Option<Entering>,
}

impl AppendReply {
    /// For a batch that is counted as on its way into its partition until it is answered, whether somebody still waits or not.
    #[must_use]
    pub fn counted(sender: oneshot::Sender<Result<Appended, AppendError>>, entering: Entering) -> Self {
        Self { sender, entering: Some(entering) }
    }

    /// Answers. Nobody may wait any more.
    pub(crate) fn send(self, answer: Result<Appended, AppendError>) {
        drop(self.entering);
        let _ = self.sender.send(answer);
    }
}

impl From<oneshot::Sender<Result<Appended, AppendError>>> for AppendReply {
    fn from(sender: oneshot::Sender<Result<Appended, AppendError>>) -> Self {
        Self { sender, entering: None }
    }
}

/// Somebody waits for a batch.
pub(crate) struct Waiter {
    pub(crate) acks: Acks,
    pub(crate) appended: Appended,
    pub(crate) reply: AppendReply,
}

/// A batch that is appended and not committed.
pub(crate) struct Pending {
    pub(crate) stream_end: u64,
    pub(crate) base_offset: Offset,
    pub(crate) next_offset: Offset,
    pub(crate) waiters: SmallVec<[Waiter; 1]>,
}

/// The append itself failed before anything changed because the pool is empty; it may be tried again when memory is free.
pub(crate) enum Refused {
    Memory,
    Error(AppendError),
}

impl Log {
    /// Appends one batch, of which `header` has been validated, but not its CRC. A largest timestamp of `header` that is not the
    /// one in `bytes` is the right one, and is stored. The answer goes to `reply` when `acks` is fulfilled, at once where it is an
    /// error. Only for want of memory everything comes back, to be tried again.
    pub(crate) fn append(
        &mut self,
        bytes: &[u8],
        header: &BatchHeader,
        acks: Acks,
        reply: AppendReply,
        pool: &Pool,
        now: TimestampMs,
    ) -> Result<(), AppendReply> {
        match self.try_append(bytes, header, pool, now) {
            Ok(Outcome::Appended(appended)) => {
                let mut waiters = SmallVec::new();
                if acks == Acks::None {
                    reply.send(Ok(appended));
                } else {
                    waiters.push(Waiter { acks, appended, reply });
                }
                let (stream_end, base_offset, next_offset) = (self.end, appended.base_offset, appended.next_offset);
                self.pending.push_back(Pending { stream_end, base_offset, next_offset, waiters });
            }
            Ok(Outcome::Duplicate(appended)) => {
                // A retry of a batch that is still on its way waits with it.
                match self.pending.iter_mut().find(|pending| pending.base_offset == appended.base_offset) {
                    Some(pending) if acks != Acks::None => pending.waiters.push(Waiter { acks, appended, reply }),
                    _ => reply.send(Ok(appended)),
                }
            }
            Err(Refused::Memory) => return Err(reply),
            Err(Refused::Error(error)) => reply.send(Err(error)),
        }
        Ok(())
    }

    /// A batch was refused for want of room before it came to the log: what its producer sent behind it must not go in without it. What
    /// was damaged on its way says nothing of anybody.
    pub(crate) fn note_refused(&mut self, bytes: &[u8], header: &BatchHeader, now: TimestampMs) {
        if header.producer_id.0 >= 0 && batch::crc_of(bytes) == header.crc {
            self.producers.refuse(header, now);
        }
    }

    fn try_append(&mut self, bytes: &[u8], header: &BatchHeader, pool: &Pool, now: TimestampMs) -> Result<Outcome, Refused> {
        if let Some(reason) = &self.offline {
            return Err(Refused::Error(AppendError::Offline(reason.clone())));
        }
        let size = bytes.len() as u64;
        if size > self.config.segment_bytes {
            let segment_bytes = self.config.segment_bytes;
            return Err(Refused::Error(AppendError::LargerThanSegment { batch_bytes: size, segment_bytes }));
        }
        let memory_bytes = tail::batch_bytes_max(pool);
        if size > memory_bytes {
            return Err(Refused::Error(AppendError::LargerThanMemory { batch_bytes: size, memory_bytes }));
        }
        let log_start = self.published.log_start();
        match self.producers.check(header, now).map_err(|error| Refused::Error(error.into()))? {
            Verdict::Append => {}
            Verdict::Duplicate { base_offset, timestamp, .. } => {
                let log_append_time =
                    if self.config.timestamp_type == TimestampType::LogAppendTime { timestamp } else { TimestampMs::NONE };
                let next_offset = base_offset.plus(i64::from(header.last_offset_delta) + 1);
                return Ok(Outcome::Duplicate(Appended { base_offset, next_offset, log_append_time, log_start }));
            }
        }
        let append_time = self.config.timestamp_type == TimestampType::LogAppendTime;
        let mut assigned = *header;
        assigned.base_offset = self.end_offset;
        assigned.leader_epoch = self.leader_epoch();
        if append_time {
            assigned.max_timestamp = now;
        }
        let rolled = self.roll_if_needed(&assigned, size, now);
        let active = self.active();
        let (segment, position) = (active.shared.clone(), active.bytes);
        let reserved = self.tail.reserve(pool, &segment, self.end, position, &self.partial, bytes.len());
        let new_pieces = match reserved {
            Ok(new_pieces) => new_pieces,
            Err(tail::OutOfMemory) => {
                if rolled {
                    self.publish_view();
                }
                return Err(Refused::Memory);
            }
        };
        if append_time || batch::max_timestamp_of(bytes) != assigned.max_timestamp {
            if let Err(error) = self.fill_with_timestamp(bytes, &assigned, append_time) {
                self.take_back_refused(new_pieces || rolled);
                return Err(Refused::Error(error));
            }
        } else {
            // The bytes before the CRC's range: base offset, length, epoch, magic, CRC.
            let mut head = [0; batch::CRC_START];
            head.copy_from_slice(&bytes[..batch::CRC_START]);
            batch::patch_base_offset(&mut head, assigned.base_offset);
            batch::patch_leader_epoch(&mut head, assigned.leader_epoch);
            self.tail.fill(&head);
            if self.tail.fill_with_crc(&bytes[batch::CRC_START..]) != header.crc {
                self.take_back_refused(new_pieces || rolled);
                return Err(Refused::Error(AppendError::Crc));
            }
        }
        self.partial = Vec::new();
        self.note_appended(&assigned, size, now);
        if new_pieces || rolled {
            self.publish_view();
        }
        let log_append_time = if append_time { now } else { TimestampMs::NONE };
        let next_offset = self.end_offset;
        Ok(Outcome::Appended(Appended { base_offset: assigned.base_offset, next_offset, log_append_time, log_start }))
    }

    /// Forgets what was copied of a batch that is refused. A piece that was made for it may stay for the next batch, so
    /// readers have to learn of it now: nobody tells them later.
    fn take_back_refused(&mut self, view_changed: bool) {
        self.tail.take_back(self.end);
        if view_changed {
            self.publish_view();
        }
    }

    /// The rare way: another timestamp goes into the header, which the CRC covers.
    fn fill_with_timestamp(&mut self, bytes: &[u8], assigned: &BatchHeader, append_time: bool) -> Result<(), AppendError> {
        if batch::crc_of(bytes) != assigned.crc {
            return Err(AppendError::Crc);
        }
        let mut copy = bytes.to_vec();
        batch::patch_base_offset(&mut copy, assigned.base_offset);
        batch::patch_leader_epoch(&mut copy, assigned.leader_epoch);
        if append_time {
            batch::set_log_append_time(&mut copy, assigned.max_timestamp);
        } else {
            batch::set_max_timestamp(&mut copy, assigned.max_timestamp);
        }
        self.tail.fill(&copy);
        Ok(())
    }

    fn note_appended(&mut self, header: &BatchHeader, size: u64, now: TimestampMs) {
        let last_offset = header.last_offset();
        let interval = self.config.index_interval_bytes;
        let committed = self.published.high_watermark();
        let active = self.active_mut();
        let position = active.bytes;
        active.bytes += size;
        active.modified = now;
        if let Some(live) = &mut active.live {
            live.note(header, position, interval, committed);
        }
        let newest = active.live.as_ref().map(|live| (live.max_timestamp, live.max_timestamp_offset));
        if let Some((timestamp, offset)) = newest {
            active.shared.set_max_timestamp(timestamp, offset);
        }
        active.shared.set_end_offset(last_offset.plus(1));
        self.producers.update(header, now);
        if self.synced_offset == header.base_offset {
            self.unsynced_since = now;
        }
        self.end += size;
        self.end_offset = last_offset.plus(1);
        self.last_append = now;
        self.touched = true;
        self.published.set_log_end(self.end_offset);
        self.published.set_size_bytes(self.published.size_bytes() + size);
    }

    /// Starts a new segment where the batch does not fit into the active one. Returns whether it did.
    fn roll_if_needed(&mut self, header: &BatchHeader, size: u64, now: TimestampMs) -> bool {
        let active = self.active();
        if active.bytes == 0 {
            return false;
        }
        let config = &self.config;
        let Some(live) = &active.live else { unreachable!("the active segment is live") };
        let newest = if header.max_timestamp == TimestampMs::NONE { now } else { header.max_timestamp };
        let old = active.age_ms(newest, now) > config.roll_ms();
        let index_full = (live.index.offsets.count() as u64 + 1) * 8 > config.segment_index_bytes
            || (live.index.times.count() as u64 + 1) * 12 > config.segment_index_bytes;
        let far = header.last_offset().0 - active.shared.base_offset.0 > index::OFFSETS_MAX;
        if active.bytes + size <= config.segment_bytes && !old && !index_full && !far {
            return false;
        }
        self.roll(now);
        true
    }

    /// Seals the active segment and starts a new one at the log's end. Its file comes with its first flush.
    pub(crate) fn roll(&mut self, now: TimestampMs) {
        self.touched = true;
        let base_offset = self.end_offset;
        let active = self.active_mut();
        if let Some(live) = &mut active.live {
            live.close();
            active.shared.set_first_timestamp(live.first_timestamp);
        }
        let path = self.directory.join(names::log_file_name(base_offset));
        let shared = Arc::new(Segment::new(base_offset, path, 0, base_offset));
        let live = LiveSegment::new();
        shared.live_index.store(Some(live.index.clone()));
        self.partial = Vec::new();
        self.take_snapshot(true);
        self.segments.push_back(SegmentState {
            shared,
            stream: self.end,
            bytes: 0,
            live: Some(live),
            created: now,
            modified: now,
        });
    }
}

enum Outcome {
    Appended(Appended),
    Duplicate(Appended),
}

impl LiveSegment {
    pub(crate) fn new() -> Self {
        Self {
            index: Arc::new(LiveIndex::default()),
            first_timestamp: None,
            indexed_at: 0,
            max_timestamp: TimestampMs::NONE,
            max_timestamp_offset: Offset(-1),
            maxima: VecDeque::new(),
            offsets_saved: 0,
            times_saved: 0,
            indexes_synced: (0, 0),
            name_synced: false,
            changes: 0,
            changes_synced: 0,
            padded: false,
        }
    }

    /// Notes a batch at `position` in the indexes, as sparsely as Kafka does. What lies below `committed` is never cut.
    pub(crate) fn note(&mut self, header: &BatchHeader, position: u64, interval_bytes: u64, committed: Offset) {
        if header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_offset = header.last_offset();
            while self.maxima.get(1).is_some_and(|&(_, offset)| offset < committed) {
                self.maxima.pop_front();
            }
            self.maxima.push_back((self.max_timestamp, self.max_timestamp_offset));
        }
        if self.first_timestamp.is_none() && header.max_timestamp != TimestampMs::NONE {
            self.first_timestamp = Some(header.max_timestamp);
        }
        if position - self.indexed_at > interval_bytes {
            self.index.offsets.push(IndexEntry { last_offset: header.last_offset(), position });
            self.note_time();
            self.indexed_at = position;
        }
    }

    fn note_time(&mut self) {
        let newest = self.index.times.count().checked_sub(1).and_then(|at| self.index.times.get(at).copied());
        let newer = newest.is_none_or(|entry| self.max_timestamp > entry.timestamp && self.max_timestamp_offset > entry.offset);
        if newer && self.max_timestamp != TimestampMs::NONE {
            self.index.times.push(TimeEntry { timestamp: self.max_timestamp, offset: self.max_timestamp_offset });
        }
    }

    /// The last time entry of a segment that gets no more batches: its largest timestamp, as Kafka writes it.
    pub(crate) fn close(&mut self) {
        self.note_time();
    }

    /// Forgets what lies at or above `offset`.
    pub(crate) fn cut(&mut self, offset: Offset, shared: &Segment) {
        let index = LiveIndex::default();
        self.indexed_at = 0;
        for (_, entry) in self.index.offsets.iter().filter(|(_, entry)| entry.last_offset < offset) {
            index.offsets.push(*entry);
            self.indexed_at = entry.position;
        }
        for (_, entry) in self.index.times.iter().filter(|(_, entry)| entry.offset < offset) {
            index.times.push(*entry);
        }
        self.offsets_saved = self.offsets_saved.min(index.offsets.count());
        self.times_saved = self.times_saved.min(index.times.count());
        let (offsets, times) = self.indexes_synced;
        self.indexes_synced = (offsets.min(self.offsets_saved), times.min(self.times_saved));
        if self.max_timestamp_offset >= offset {
            while self.maxima.back().is_some_and(|&(_, maximum)| maximum >= offset) {
                self.maxima.pop_back();
            }
            (self.max_timestamp, self.max_timestamp_offset) =
                self.maxima.back().copied().unwrap_or((TimestampMs::NONE, Offset(-1)));
            shared.set_max_timestamp(self.max_timestamp, self.max_timestamp_offset);
        }
        self.index = Arc::new(index);
        shared.live_index.store(Some(self.index.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchBuilder;

    /// A cut, as where the disk was full, leaves no gap: what lies between two entries is the interval and a batch at the most.
    #[test]
    fn what_was_cut_does_not_make_an_index_sparser() {
        const BATCHES_BETWEEN: u64 = 4;
        let header = |offset| {
            let bytes = BatchBuilder::new(Offset(offset)).record(TimestampMs(1000), None, Some(&[7; 30])).build();
            BatchHeader::parse(&bytes).unwrap()
        };
        let size = header(0).size_bytes() as u64;
        let shared = Segment::new(Offset(0), "segment".into(), 0, Offset(0));
        let mut live = LiveSegment::new();
        for at in 0..40_u64 {
            for time in 0..2 {
                live.note(&header(at as i64), at * size, BATCHES_BETWEEN * size - 1, Offset(0));
                if time == 0 {
                    live.cut(Offset(at as i64), &shared);
                }
            }
        }
        let entries: Vec<u64> = live.index.offsets.iter().map(|(_, entry)| entry.position / size).collect();
        assert_eq!(entries, (1..10).map(|nth| nth * BATCHES_BETWEEN).collect::<Vec<_>>());
    }
}
