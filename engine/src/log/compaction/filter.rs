//! What compaction keeps of a batch: the rules, and the making of what is left of it. Pure; it runs on the background thread.
//!
//! Kafka's rules. A record goes when a later one has its key, when it has no key, or when it is a tombstone whose delete
//! horizon has passed (KIP-534: the first cleaning that meets a tombstone writes into its batch's header when it may go).
//! Records behind what the offset map covers stay. Offsets and their order never change, and a batch that is left without a
//! record stays, empty, where somebody needs what its header says: the last sequence of a producer, or where the log ends.
//!
//! Where Kafka reads which transactions were aborted, this is careful instead: records of a transaction supersede nothing, control
//! records stay, and so do a transaction's tombstones. That never takes a record that a reader of committed data needs.

use std::collections::BTreeMap;

use crate::batch::builder::assemble;
use crate::batch::{Attributes, BatchError, BatchHeader, BatchView};
use crate::compression::{self, Codec};
use crate::log::compaction::offset_map::{Full, OffsetMap};
use crate::record::Record;
use crate::types::{Offset, ProducerId, TimestampMs};

/// What the records of one batch may take in memory.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// The rules of one cleaning. First it is told of all that is dirty ([`Filter::note`]), then it filters.
pub(crate) struct Filter {
    pub(crate) map: OffsetMap,
    /// The offset after the last one that the map covers.
    pub(crate) covered: Offset,
    /// When the cleaning began, by the broker's clock.
    pub(crate) now: TimestampMs,
    /// `delete.retention.ms`.
    pub(crate) delete_retention_ms: i64,
    /// The last offset of each producer that is known: the header of that batch has its last sequence.
    pub(crate) last_offsets: BTreeMap<ProducerId, Offset>,
}

/// What was kept of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// How many of its records are gone.
    pub(crate) records_dropped: u64,
    /// The header and size of what was appended, if anything was.
    pub(crate) batch: Option<BatchHeader>,
    /// Whether that is the batch as it was.
    pub(crate) is_same: bool,
}

impl Filter {
    /// Notes the keys of a batch, from the offset `from` on.
    ///
    /// # Errors
    /// The batch is damaged. The inner one: the map is full, and what it covers ends within or before this batch.
    pub(crate) fn note(&mut self, batch: &BatchView<'_>, from: Offset) -> Result<Result<(), Full>, BatchError> {
        let header = batch.header();
        if header.last_offset() < from {
            return Ok(Ok(()));
        }
        if !header.attributes.is_control() && !header.attributes.is_transactional() {
            for record in &batch.records(DECOMPRESSED_BYTES_MAX)? {
                let record = record?;
                let offset = header.offset_of(&record);
                let Some(key) = record.key.filter(|_| offset >= from) else { continue };
                if let Err(full) = self.map.put(key, offset) {
                    return Ok(Err(full));
                }
                self.covered = offset.plus(1);
            }
        }
        self.covered = self.covered.max(header.next_offset());
        Ok(Ok(()))
    }

    /// Appends what is kept of a batch to `out`; with `is_last` something is.
    ///
    /// # Errors
    /// The batch is damaged.
    pub(crate) fn filter(&self, batch: &BatchView<'_>, is_last: bool, out: &mut Vec<u8>) -> Result<Kept, BatchError> {
        let header = batch.header();
        let as_it_was = |out: &mut Vec<u8>| {
            out.extend_from_slice(batch.bytes());
            Ok(Kept { records_dropped: 0, batch: Some(*header), is_same: true })
        };
        if header.attributes.is_control() || header.base_offset >= self.covered {
            return as_it_was(out);
        }
        let records = batch.records(DECOMPRESSED_BYTES_MAX)?;
        let (mut kept, mut has_tombstones) = (Vec::new(), false);
        for record in &records {
            let record = record?;
            let offset = header.offset_of(&record);
            if self.keeps(header, &record, offset) {
                has_tombstones |= record.value.is_none() && offset < self.covered;
                kept.push(record);
            }
        }
        let sets_horizon = has_tombstones && !header.attributes.has_delete_horizon() && !header.attributes.is_transactional();
        let records_dropped = u64::from(header.record_count.unsigned_abs()) - kept.len() as u64;
        let stays = is_last || self.last_offsets.get(&header.producer_id) == Some(&header.last_offset());
        if records_dropped == 0 && !sets_horizon && (!kept.is_empty() || stays) {
            return as_it_was(out);
        }
        if kept.is_empty() && !stays {
            return Ok(Kept { records_dropped, batch: None, is_same: false });
        }
        let horizon = if sets_horizon {
            Some(TimestampMs(self.now.0.saturating_add(self.delete_retention_ms)))
        } else {
            header.attributes.has_delete_horizon().then_some(header.base_timestamp)
        };
        let start = out.len();
        remake(header, &kept, horizon, out)?;
        Ok(Kept { records_dropped, batch: Some(BatchHeader::parse(&out[start..])?), is_same: false })
    }

    fn keeps(&self, header: &BatchHeader, record: &Record<'_>, offset: Offset) -> bool {
        if offset >= self.covered {
            return true;
        }
        let Some(key) = record.key else { return false };
        let is_last = self.map.get(key).is_none_or(|last| offset >= last);
        let may_go = |header: &BatchHeader| {
            header.attributes.has_delete_horizon() && !header.attributes.is_transactional() && header.base_timestamp <= self.now
        };
        is_last && (record.value.is_some() || !may_go(header))
    }
}

/// A batch with some of its records, or none, and everything else as it was: offsets, sequences, epochs, codec.
fn remake(header: &BatchHeader, kept: &[Record<'_>], horizon: Option<TimestampMs>, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let flags = header.attributes.0 & !(Attributes::CODEC_MASK | Attributes::DELETE_HORIZON);
    let mut made = BatchHeader { attributes: Attributes(flags), record_count: kept.len() as i32, ..*header };
    let Some(first) = kept.first() else {
        made.base_timestamp = TimestampMs::NONE;
        assemble(&made, &[], out);
        return Ok(());
    };
    made.base_timestamp = horizon.unwrap_or(header.timestamp_of(first));
    let mut newest = TimestampMs(i64::MIN);
    let mut records = Vec::new();
    for record in kept {
        let timestamp = header.timestamp_of(record);
        newest = newest.max(timestamp);
        let mut record = *record;
        record.timestamp_delta = timestamp.0.wrapping_sub(made.base_timestamp.0);
        record.encode(&mut records);
    }
    // With LogAppendTime that is the header's.
    made.max_timestamp = newest;
    let codec = header.attributes.codec()?;
    // What cannot be compressed is stored as it is: its header says so, and every reader takes it.
    let compressed = if codec == Codec::None { None } else { compression::compress(codec, &records).ok() };
    let codec = if compressed.is_some() { codec } else { Codec::None };
    made.attributes = Attributes(flags | u16::from(codec.id()) | if horizon.is_some() { Attributes::DELETE_HORIZON } else { 0 });
    assemble(&made, compressed.as_deref().unwrap_or(&records), out);
    Ok(())
}
