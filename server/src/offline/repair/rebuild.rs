//! What can be made anew from the batches: indexes, the list of aborted transactions, what is known of producers, leader epochs.
//! Pure but for the reader that hands out batches; used by the repair alone.

use std::collections::BTreeMap;
use std::io;

use ringlog_engine::batch::BatchHeader;
use ringlog_engine::log::epochs::LeaderEpochs;
use ringlog_engine::log::producer_snapshot::SnapshotEntry;
use ringlog_engine::log::producers::ProducerStates;
use ringlog_engine::segment::index::{push_offset_entry, push_time_entry};
use ringlog_engine::types::{Offset, ProducerId, TimestampMs};

use super::judge::Sound;
use crate::offline::dump::RECORDS_BYTES_MAX;
use crate::offline::segment::Reader;
use crate::offline::verify::TRANSACTION_ENTRY_BYTES;

/// `index.interval.bytes` where nobody says otherwise.
const INDEX_INTERVAL_BYTES: u64 = 4096;
/// Where an entry of a transaction index has the offset of its marker.
const LAST_OFFSET_AT: usize = 18;
/// Where it has the last stable offset.
const LAST_STABLE_AT: usize = 26;

/// The bytes of both index files of a segment that has these batches, one behind the other: as sparse as Kafka's, the time index
/// ending with the largest timestamp.
pub(super) fn indexes(base: Offset, batches: &[Sound]) -> (Vec<u8>, Vec<u8>) {
    let (mut offsets, mut times) = (Vec::new(), Vec::new());
    let (mut position, mut bytes_since_entry) = (0, 0);
    let mut newest = (TimestampMs::NONE, base);
    let mut noted = newest;
    let mut note_time = |newest: (TimestampMs, Offset)| {
        if newest.0 > noted.0 && newest.0 != TimestampMs::NONE {
            push_time_entry(&mut times, base, newest.0, newest.1);
            noted = newest;
        }
    };
    for batch in batches {
        let last_offset = Offset(batch.next_offset.0 - 1);
        if batch.max_timestamp > newest.0 {
            newest = (batch.max_timestamp, last_offset);
        }
        // Positions in indexes have 31 bits: what lies behind is found by reading on.
        if bytes_since_entry > INDEX_INTERVAL_BYTES && i32::try_from(position).is_ok() {
            push_offset_entry(&mut offsets, base, last_offset, position);
            note_time(newest);
            bytes_since_entry = 0;
        }
        bytes_since_entry += u64::from(batch.size);
        position += u64::from(batch.size);
    }
    note_time(newest);
    (offsets, times)
}

/// Follows a partition's batches from its first one on.
pub(super) struct History {
    /// Where each open transaction began.
    transactions: BTreeMap<ProducerId, Offset>,
    producers: ProducerStates,
    epochs: LeaderEpochs,
    now: TimestampMs,
}

impl History {
    /// `known`: what the oldest snapshot says, if it is about what lies before the first batch.
    pub(super) fn new(known: &[SnapshotEntry], now: TimestampMs) -> Self {
        let open =
            |entry: &SnapshotEntry| (entry.transaction_start.0 >= 0).then_some((entry.producer_id, entry.transaction_start));
        let bytes = ringlog_engine::log::producer_snapshot::encode(known);
        // Nobody expires here: that is for the broker, which knows for how long producers are kept.
        let producers = ProducerStates::from_snapshot(&bytes, i64::MAX, now).unwrap_or_else(|_| ProducerStates::new(i64::MAX));
        Self { transactions: known.iter().filter_map(open).collect(), producers, epochs: LeaderEpochs::default(), now }
    }

    /// Takes in a segment's batches. Returns the bytes of its list of aborted transactions; `at` is called before each batch.
    pub(super) fn follow(
        &mut self,
        reader: &mut Reader<'_>,
        batches: &[Sound],
        mut at: impl FnMut(Offset, &ProducerStates),
    ) -> io::Result<Vec<u8>> {
        let mut aborted = Vec::new();
        for batch in batches {
            at(batch.base_offset, &self.producers);
            let view = reader.view(batch.position..batch.end())?;
            let header = BatchHeader { base_offset: batch.base_offset, ..*view.header() };
            self.epochs.assign(header.leader_epoch, header.base_offset);
            let marker = header.attributes.is_control().then(|| {
                let records = view.records(RECORDS_BYTES_MAX).ok()?;
                let record = records.iter().next()?.ok()?;
                let is_abort = matches!(record.key, Some([_, _, 0, 0, ..]));
                let coordinator_epoch =
                    record.value.and_then(|value| value.get(2..6)?.try_into().ok()).map_or(-1, i32::from_be_bytes);
                Some((is_abort, coordinator_epoch))
            });
            if header.base_offset < self.producers.end() {
                // A snapshot knew of it already.
            } else if let Some(Some((_, coordinator_epoch))) = marker {
                self.producers.end_transaction(&header, coordinator_epoch, self.now);
            } else {
                self.producers.update(&header, self.now);
            }
            if header.producer_id.0 < 0 {
                continue;
            }
            match marker {
                Some(marker) => {
                    let first = self.transactions.remove(&header.producer_id);
                    if let (Some(first), Some((true, _))) = (first, marker) {
                        let stable = self.transactions.values().min().copied().unwrap_or(header.next_offset());
                        push_aborted(&mut aborted, header.producer_id, first, header.last_offset(), stable);
                    }
                }
                None if header.attributes.is_transactional() => {
                    self.transactions.entry(header.producer_id).or_insert(header.base_offset);
                }
                None => {}
            }
        }
        Ok(aborted)
    }

    /// What is known at the end of the batches so far.
    pub(super) fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    /// The leader epochs of the batches so far.
    pub(super) fn epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }
}

/// A list of aborted transactions from the one that a file has and the one that its batches give: what is cut may have held a
/// transaction's beginning or its marker, which the file still knows of. Entries that no segment beginning at `base` can have
/// go, and those of markers from `end` on: their offsets are given again. What batches are there says that a transaction began no
/// later, and was followed by nothing more stable: an entry that says so all the same has rotted.
pub(super) fn merge_aborted(file: &[u8], rebuilt: &[u8], base: Offset, end: Offset) -> Vec<u8> {
    let mut entries: BTreeMap<i64, &[u8]> = BTreeMap::new();
    let number = |entry: &[u8], at: usize| entry[at..at + 8].try_into().map_or(-1, i64::from_be_bytes);
    for entry in rebuilt.chunks_exact(TRANSACTION_ENTRY_BYTES) {
        entries.insert(number(entry, LAST_OFFSET_AT), entry);
    }
    for entry in file.chunks_exact(TRANSACTION_ENTRY_BYTES) {
        let (producer, first, last) = (number(entry, 2), number(entry, 10), number(entry, LAST_OFFSET_AT));
        let possible = entry.starts_with(&[0, 0]) && (0..=last).contains(&first) && (base.0..end.0).contains(&last);
        let stable = number(entry, LAST_STABLE_AT);
        let fits = |rebuilt: &&[u8]| {
            let (is, until) = (number(rebuilt, 10), number(rebuilt, LAST_STABLE_AT));
            number(rebuilt, 2) == producer && first <= is && (first..=until).contains(&stable)
        };
        if possible && entries.get(&last).is_none_or(fits) {
            entries.insert(last, entry);
        }
    }
    entries.into_values().flatten().copied().collect()
}

/// An entry of a transaction index (Kafka's format, version 0): who, where its transaction began, the offset of the marker that
/// aborted it, and the last stable offset then.
fn push_aborted(out: &mut Vec<u8>, producer: ProducerId, first: Offset, last: Offset, stable: Offset) {
    out.extend_from_slice(&0_i16.to_be_bytes());
    for number in [producer.0, first.0, last.0, stable.0] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}
