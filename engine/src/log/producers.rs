//! What a partition knows of its idempotent producers: the last batches of each, so that a batch that is sent again is not
//! appended again, and one that is out of order or from a fenced producer is refused (KIP-98, KIP-185, KIP-360). Pure; one
//! per partition, told of every batch when it is appended.
//!
//! Batches are known from the append on, before they are durable. When a tail that is not durable is cut off,
//! [`ProducerStates::truncate_to`] takes them back exactly; [`ProducerStates::settle`] says up to where that cannot happen
//! any more. Of transactions it knows only where each one starts, which bounds the last stable offset.
//!
//! **FirstStaysFirst**: an unknown producer may start anywhere, since what was known of it may be gone. Once it has started, what it
//! sent behind that must not go in without it, where the first batch is taken back or refused for want of room: the producer
//! would send the first one again, and never get it in. So it is known from then on, with no batch, and with the sequence that is due.
//!
//! A producer is forgotten when it has not written for `producer.id.expiration.ms`, by the broker's clock at the append.
//! (Kafka goes by the records' own timestamps, and so forgets at once whoever sends old records.)

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use smallvec::SmallVec;
use thiserror::Error;

use crate::batch::{BatchHeader, sequence_minus, sequence_plus};
use crate::log::producer_snapshot::{self, SnapshotEntry, SnapshotError};
use crate::types::{Offset, ProducerId, TimestampMs};

/// How many batches of a producer are known; a client has no more in flight (`max.in.flight.requests.per.connection`).
pub const BATCHES_KEPT: usize = 5;
/// How many producers a partition knows; beyond that the ones that wrote longest ago are forgotten.
pub const PRODUCERS_MAX: usize = 16 * 1024;
/// How many batches can be taken back; beyond that the oldest are taken for settled.
const UNDO_MAX: usize = 128 * 1024;
const NO_SEQUENCE: i32 = -1;
const NO_EPOCH: i16 = -1;

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is new.
    Append,
    /// It is in the log already, with as many records: the answer is a success, with what it was answered before.
    Duplicate {
        /// The offset of its first record.
        base_offset: Offset,
        /// Its largest timestamp.
        timestamp: TimestampMs,
    },
}

/// Why a batch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProducerError {
    /// `OUT_OF_ORDER_SEQUENCE_NUMBER` (45).
    #[error("producer {producer_id} sent sequence {sequence}, its last one is {last_sequence}")]
    OutOfOrder {
        /// Who.
        producer_id: ProducerId,
        /// The first sequence of the batch.
        sequence: i32,
        /// The last that is in the log, or -1 where this epoch has none.
        last_sequence: i32,
    },
    /// `INVALID_PRODUCER_EPOCH` (47): another with the same id has taken its place.
    #[error("producer {producer_id} has epoch {epoch}, {current} has replaced it")]
    StaleEpoch {
        /// Who.
        producer_id: ProducerId,
        /// The batch's epoch.
        epoch: i16,
        /// The latest.
        current: i16,
    },
    /// `INVALID_TXN_STATE` (48): outside of a transaction while one is open.
    #[error("producer {producer_id} has a transaction open and sent a batch outside of it")]
    TransactionOpen {
        /// Who.
        producer_id: ProducerId,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeptBatch {
    last_sequence: i32,
    last_offset: Offset,
    offset_delta: i32,
    timestamp: TimestampMs,
}

impl KeptBatch {
    fn first_sequence(&self) -> i32 {
        sequence_minus(self.last_sequence, self.offset_delta)
    }

    fn base_offset(&self) -> Offset {
        self.last_offset.plus(-i64::from(self.offset_delta))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    coordinator_epoch: i32,
    last_timestamp: TimestampMs,
    /// The broker's time when it last wrote, or when the broker started.
    seen: TimestampMs,
    transaction_start: Option<Offset>,
    batches: SmallVec<[KeptBatch; BATCHES_KEPT]>,
    /// The sequence that is due while there is no batch: 0, or where it began.
    begin: i32,
}

impl Producer {
    fn new() -> Self {
        Self {
            epoch: NO_EPOCH,
            coordinator_epoch: -1,
            last_timestamp: TimestampMs::NONE,
            seen: TimestampMs::NONE,
            transaction_start: None,
            batches: SmallVec::new(),
            begin: 0,
        }
    }

    fn last_sequence(&self) -> i32 {
        self.batches.last().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    /// The sequence that is due next in its epoch. The highest is followed by 0.
    fn next_sequence(&self) -> i32 {
        self.batches.last().map_or(self.begin, |batch| sequence_plus(batch.last_sequence, 1))
    }

    /// What is known of a producer when its first batch is taken back: FirstStaysFirst.
    fn without_its_first(&self) -> Option<Self> {
        let begin = self.batches.first()?.first_sequence();
        Some(Self { batches: SmallVec::new(), transaction_start: None, begin, ..self.clone() })
    }

    fn enter_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
            self.begin = 0;
        }
    }

    fn add(&mut self, header: &BatchHeader) {
        self.enter_epoch(header.producer_epoch);
        if self.batches.len() == BATCHES_KEPT {
            self.batches.remove(0);
        }
        self.batches.push(KeptBatch {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        self.last_timestamp = header.max_timestamp;
        if header.attributes.is_transactional() && self.transaction_start.is_none() {
            self.transaction_start = Some(header.base_offset);
        }
    }
}

/// How a batch is taken back: what was known of its producer before.
#[derive(Clone, Debug)]
struct Undo {
    base_offset: Offset,
    next_offset: Offset,
    producer_id: ProducerId,
    before: Option<Producer>,
    /// Whether that did not count any more.
    was_expired: bool,
}

/// What is known of one producer, for `DescribeProducers` (KIP-664).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerView {
    /// Who.
    pub producer_id: ProducerId,
    /// Its latest epoch.
    pub producer_epoch: i16,
    /// The last sequence in the log, or -1.
    pub last_sequence: i32,
    /// The largest timestamp of its last batch.
    pub last_timestamp: TimestampMs,
    /// The epoch of the coordinator that ended its last transaction, or -1.
    pub coordinator_epoch: i32,
    /// Where its open transaction starts.
    pub transaction_start: Option<Offset>,
}

/// The producers of one partition.
#[derive(Clone, Debug)]
pub struct ProducerStates {
    expiration_ms: i64,
    producers_max: usize,
    producers: BTreeMap<ProducerId, Producer>,
    transactions: BTreeSet<(Offset, ProducerId)>,
    undo: VecDeque<Undo>,
    settled: Offset,
    end: Offset,
    changes: u64,
}

impl ProducerStates {
    /// Nothing known; `expiration_ms` is `producer.id.expiration.ms`. Of more than [`PRODUCERS_MAX`] producers the ones that
    /// wrote longest ago are forgotten, except those with a transaction open: an unknown producer may start anywhere, so a
    /// client notices only where it sends a batch again after that.
    #[must_use]
    pub fn new(expiration_ms: i64) -> Self {
        Self {
            expiration_ms,
            producers_max: PRODUCERS_MAX,
            producers: BTreeMap::new(),
            transactions: BTreeSet::new(),
            undo: VecDeque::new(),
            settled: Offset(0),
            end: Offset(0),
            changes: 0,
        }
    }

    /// What is known from the bytes of a snapshot file.
    ///
    /// # Errors
    /// [`SnapshotError`] where they are not one, or damaged.
    pub fn from_snapshot(bytes: &[u8], expiration_ms: i64, now: TimestampMs) -> Result<Self, SnapshotError> {
        let mut states = Self::new(expiration_ms);
        for entry in producer_snapshot::parse(bytes)? {
            // One entry for each batch, the last one last.
            let known = states.producers.get(&entry.producer_id).filter(|known| known.epoch == entry.producer_epoch);
            let mut batches = known.map(|known| known.batches.clone()).unwrap_or_default();
            if entry.last_offset.0 >= 0 {
                if batches.len() == BATCHES_KEPT {
                    batches.remove(0);
                }
                batches.push(KeptBatch {
                    last_sequence: entry.last_sequence,
                    last_offset: entry.last_offset,
                    offset_delta: entry.offset_delta,
                    timestamp: entry.timestamp,
                });
                states.end = states.end.max(Offset(entry.last_offset.0.saturating_add(1)));
            }
            let producer = Producer {
                epoch: entry.producer_epoch,
                coordinator_epoch: entry.coordinator_epoch,
                last_timestamp: entry.timestamp,
                seen: now,
                transaction_start: (entry.transaction_start.0 >= 0).then_some(entry.transaction_start),
                batches,
                begin: 0,
            };
            states.put(entry.producer_id, Some(producer));
        }
        states.settled = states.end;
        states.forget_oldest(None);
        Ok(states)
    }

    /// The bytes of a snapshot file.
    #[must_use]
    pub fn encode_snapshot(&self) -> Vec<u8> {
        producer_snapshot::encode(&self.snapshot())
    }

    /// What a snapshot holds, by producer id: an entry for each of its batches, the last one last. Kafka, which writes that one
    /// alone, reads it so: a later entry takes the place of an earlier one. Batches that are not settled are in it: a snapshot
    /// belongs to the offset at which it is taken, and recovery drops one that lies beyond the end of the log.
    #[must_use]
    pub fn snapshot(&self) -> Vec<SnapshotEntry> {
        let mut entries = Vec::with_capacity(self.producers.len());
        for (&producer_id, producer) in &self.producers {
            let last = SnapshotEntry {
                producer_id,
                producer_epoch: producer.epoch,
                last_sequence: NO_SEQUENCE,
                last_offset: Offset(-1),
                offset_delta: 0,
                timestamp: producer.last_timestamp,
                coordinator_epoch: producer.coordinator_epoch,
                transaction_start: producer.transaction_start.unwrap_or(Offset(-1)),
            };
            let of = |batch: &KeptBatch| SnapshotEntry {
                last_sequence: batch.last_sequence,
                last_offset: batch.last_offset,
                offset_delta: batch.offset_delta,
                ..last
            };
            let Some((newest, older)) = producer.batches.split_last() else {
                // The file has no place for where one began that has nothing in the log: it may start anywhere again.
                if producer.begin == 0 {
                    entries.push(last);
                }
                continue;
            };
            let none = Offset(-1);
            entries.extend(older.iter().map(|batch| SnapshotEntry {
                timestamp: batch.timestamp,
                transaction_start: none,
                ..of(batch)
            }));
            entries.push(of(newest));
        }
        entries
    }

    /// The offset after the last batch it was told of.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.end
    }

    /// A count of changes: while it stays the same, so does the snapshot.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How many producers are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Where the first transaction that is still open starts: the last stable offset is not above it.
    #[must_use]
    pub fn first_undecided_offset(&self) -> Option<Offset> {
        self.transactions.first().map(|(offset, _)| *offset)
    }

    /// The producers, by id.
    pub fn views(&self) -> impl Iterator<Item = ProducerView> + '_ {
        self.producers.iter().map(|(&producer_id, producer)| ProducerView {
            producer_id,
            producer_epoch: producer.epoch,
            last_sequence: producer.last_sequence(),
            last_timestamp: producer.last_timestamp,
            coordinator_epoch: producer.coordinator_epoch,
            transaction_start: producer.transaction_start,
        })
    }

    /// What is to be done with a batch from a client; nothing changes. The base offset does not matter yet.
    ///
    /// # Errors
    /// [`ProducerError`] where the batch must not be appended.
    pub fn check(&self, header: &BatchHeader, now: TimestampMs) -> Result<Verdict, ProducerError> {
        let (producer_id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
        if producer_id.0 < 0 {
            return Ok(Verdict::Append);
        }
        // An unknown producer may start anywhere: retention or time may have taken what was known (KIP-360).
        let Some(producer) = self.producers.get(&producer_id).filter(|producer| !self.expired(producer, now)) else {
            return Ok(Verdict::Append);
        };
        let same = |batch: &&KeptBatch| batch.first_sequence() == sequence && batch.last_sequence == header.last_sequence();
        if epoch == producer.epoch
            && let Some(batch) = producer.batches.iter().find(same)
        {
            return Ok(Verdict::Duplicate { base_offset: batch.base_offset(), timestamp: batch.timestamp });
        }
        if epoch < producer.epoch {
            return Err(ProducerError::StaleEpoch { producer_id, epoch, current: producer.epoch });
        }
        // A new epoch starts at 0.
        let is_same = epoch == producer.epoch;
        let (last_sequence, expected) =
            if is_same { (producer.last_sequence(), producer.next_sequence()) } else { (NO_SEQUENCE, 0) };
        if sequence != expected && producer.epoch != NO_EPOCH {
            return Err(ProducerError::OutOfOrder { producer_id, sequence, last_sequence });
        }
        if producer.transaction_start.is_some() && !header.attributes.is_transactional() {
            return Err(ProducerError::TransactionOpen { producer_id });
        }
        Ok(Verdict::Append)
    }

    /// A batch was appended, with its base offset in the header. It must be told of all, in order, those without a producer
    /// too. In recovery, and for what a leader sent, this is all: they were checked when they were first appended. A marker
    /// that ends a transaction goes to [`Self::end_transaction`] instead; one that comes here ends it too, and only
    /// its coordinator's epoch stays unknown.
    ///
    /// # Panics
    /// When the batch does not follow the last one.
    pub fn update(&mut self, header: &BatchHeader, now: TimestampMs) {
        self.apply(header, None, now);
    }

    /// A batch was refused that may be sent again, and was not appended: FirstStaysFirst. Its CRC is right.
    pub fn refuse(&mut self, header: &BatchHeader, now: TimestampMs) {
        let producer_id = header.producer_id;
        let is_known = self.producers.get(&producer_id).is_some_and(|producer| !self.expired(producer, now));
        if producer_id.0 < 0 || is_known {
            return;
        }
        let (epoch, begin) = (header.producer_epoch, header.base_sequence);
        self.put(producer_id, Some(Producer { epoch, begin, seen: now, ..Producer::new() }));
        self.forget_oldest(Some(producer_id));
    }

    /// A batch that commits or aborts a transaction was appended; `coordinator_epoch` is in its record.
    ///
    /// # Panics
    /// When the batch does not follow the last one.
    pub fn end_transaction(&mut self, header: &BatchHeader, coordinator_epoch: i32, now: TimestampMs) {
        self.apply(header, Some(coordinator_epoch), now);
    }

    fn apply(&mut self, header: &BatchHeader, coordinator_epoch: Option<i32>, now: TimestampMs) {
        assert!(header.base_offset >= self.end, "batches are appended in order");
        self.end = header.next_offset();
        let producer_id = header.producer_id;
        if producer_id.0 < 0 {
            return;
        }
        let before = self.producers.get(&producer_id).cloned();
        let was_expired = before.as_ref().is_some_and(|producer| self.expired(producer, now));
        let is_new = before.is_none();
        let known = before.clone().filter(|_| !was_expired);
        let mut producer = known.unwrap_or_else(Producer::new);
        producer.seen = now;
        if header.attributes.is_control() || coordinator_epoch.is_some() {
            producer.enter_epoch(header.producer_epoch);
            producer.coordinator_epoch = coordinator_epoch.unwrap_or(producer.coordinator_epoch);
            producer.last_timestamp = header.max_timestamp;
            producer.transaction_start = None;
        } else {
            producer.add(header);
        }
        self.undo.push_back(Undo { base_offset: header.base_offset, next_offset: self.end, producer_id, before, was_expired });
        if self.undo.len() > UNDO_MAX
            && let Some(oldest) = self.undo.pop_front()
        {
            self.settled = oldest.next_offset;
        }
        self.put(producer_id, Some(producer));
        if is_new {
            self.forget_oldest(Some(producer_id));
        }
    }

    fn put(&mut self, producer_id: ProducerId, producer: Option<Producer>) {
        self.changes += 1;
        let starts = producer.as_ref().and_then(|producer| producer.transaction_start);
        let before = match producer {
            Some(producer) => self.producers.insert(producer_id, producer),
            None => self.producers.remove(&producer_id),
        };
        if let Some(start) = before.and_then(|before| before.transaction_start) {
            self.transactions.remove(&(start, producer_id));
        }
        if let Some(start) = starts {
            self.transactions.insert((start, producer_id));
        }
    }

    /// Makes room when there are too many: a sixteenth at once, so that the search for the oldest is rare.
    fn forget_oldest(&mut self, keep: Option<ProducerId>) {
        if self.producers.len() <= self.producers_max {
            return;
        }
        let wanted = self.producers_max - self.producers_max / 16;
        let last_offset = |producer: &Producer| producer.batches.last().map_or(Offset(-1), |batch| batch.last_offset);
        let mut oldest: Vec<_> = self
            .producers
            .iter()
            .filter(|(id, producer)| producer.transaction_start.is_none() && Some(**id) != keep)
            .map(|(id, producer)| (last_offset(producer), *id))
            .collect();
        oldest.sort_unstable();
        oldest.truncate(self.producers.len() - wanted);
        for (_, id) in oldest {
            self.put(id, None);
        }
    }

    /// What lies below `offset` stays in the log: it need not be taken back any more. Costs what it forgets.
    pub fn settle(&mut self, offset: Offset) {
        self.settled = self.settled.max(offset.min(self.end));
        while self.undo.front().is_some_and(|undo| undo.next_offset <= self.settled) {
            self.undo.pop_front();
        }
    }

    /// The log ends at `offset` now. Returns whether the batches above were taken back; if not, that was below what is
    /// settled: then nothing is known any more, unless the caller starts again from a snapshot and the log.
    pub fn truncate_to(&mut self, offset: Offset) -> bool {
        if offset < self.settled {
            *self = Self {
                producers_max: self.producers_max,
                settled: offset,
                end: offset,
                changes: self.changes + 1,
                ..Self::new(self.expiration_ms)
            };
            return false;
        }
        while self.undo.back().is_some_and(|undo| undo.base_offset >= offset) {
            if let Some(undo) = self.undo.pop_back() {
                let first = || self.producers.get(&undo.producer_id).and_then(Producer::without_its_first);
                // One that had expired began anew.
                let before = if undo.was_expired { first().or(undo.before) } else { undo.before.or_else(first) };
                self.put(undo.producer_id, before);
            }
        }
        self.end = self.end.min(offset);
        true
    }

    /// Frees the memory of producers that have expired. They do not count from when they expire on; this is for now and then.
    pub fn expire(&mut self, now: TimestampMs) {
        let mut producers = std::mem::take(&mut self.producers);
        let before = producers.len();
        producers.retain(|_, producer| !self.expired(producer, now));
        self.changes += u64::from(producers.len() < before);
        self.producers = producers;
    }

    fn expired(&self, producer: &Producer, now: TimestampMs) -> bool {
        producer.transaction_start.is_none() && now.0.saturating_sub(producer.seen.0) >= self.expiration_ms
    }
}

#[cfg(test)]
mod tests;
