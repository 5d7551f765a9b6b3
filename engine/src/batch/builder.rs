//! Makes record batches: for what the broker writes itself (the metadata log, markers), for tools and tests. Batches from
//! producers are remade by compaction alone.

use super::{Attributes, BatchHeader, HEADER_BYTES, LENGTH_OVERHEAD_BYTES, MAGIC};
use crate::compression::{self, Codec};
use crate::record::{Header, Record};
use crate::types::{LeaderEpoch, Offset, ProducerId, TimestampMs};

/// Collects records and makes a batch of them.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    codec: Codec,
    flags: u16,
    log_append_time: Option<TimestampMs>,
    producer_id: ProducerId,
    producer_epoch: i16,
    base_sequence: i32,
    base_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
    record_count: i32,
    records: Vec<u8>,
}

impl BatchBuilder {
    /// A batch whose first record will have this offset; uncompressed, without a leader epoch, not idempotent.
    #[must_use]
    pub fn new(base_offset: Offset) -> Self {
        Self {
            base_offset,
            leader_epoch: LeaderEpoch::NONE,
            codec: Codec::None,
            flags: 0,
            log_append_time: None,
            producer_id: ProducerId::NONE,
            producer_epoch: -1,
            base_sequence: -1,
            base_timestamp: TimestampMs::NONE,
            max_timestamp: TimestampMs::NONE,
            record_count: 0,
            records: Vec::new(),
        }
    }

    /// The epoch of the leader that appends it.
    #[must_use]
    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> Self {
        self.leader_epoch = epoch;
        self
    }

    /// How to compress the records.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// The idempotent producer that sends it, and the sequence of its first record.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: i16, base_sequence: i32) -> Self {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (id, epoch, base_sequence);
        self
    }

    /// A part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.flags |= Attributes::TRANSACTIONAL;
        self
    }

    /// A control batch.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.flags |= Attributes::CONTROL;
        self
    }

    /// The time of the append, instead of the records' own timestamps.
    #[must_use]
    pub fn log_append_time(mut self, time: TimestampMs) -> Self {
        self.log_append_time = Some(time);
        self
    }

    /// Adds a record without headers.
    #[must_use]
    pub fn record(self, timestamp: TimestampMs, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        self.record_with_headers(timestamp, key, value, &[])
    }

    /// Adds a record.
    #[must_use]
    pub fn record_with_headers(
        mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Self {
        self.push(timestamp, key, value, headers);
        self
    }

    /// Adds a record, in place.
    pub fn push(&mut self, timestamp: TimestampMs, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) {
        if self.record_count == 0 {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let timestamp_delta = timestamp.0.wrapping_sub(self.base_timestamp.0);
        Record::new(self.record_count, timestamp_delta, key, value).encode_with_headers(headers, &mut self.records);
        self.record_count += 1;
    }

    /// How many records there are.
    #[must_use]
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// How many bytes the batch takes uncompressed.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The batch. Where compressing fails it is left uncompressed: its header says so, and every reader takes it.
    ///
    /// # Panics
    /// When there is no record in it, or more than 2 GiB of them: a batch is made of a bounded number of records.
    #[must_use]
    pub fn build(self) -> Vec<u8> {
        assert!(self.record_count > 0, "a batch has a record");
        let compressed = match self.codec {
            Codec::None => None,
            codec => compression::compress(codec, &self.records).ok(),
        };
        let (codec, records) = match &compressed {
            Some(records) => (self.codec, records),
            None => (Codec::None, &self.records),
        };
        let mut attributes = self.flags | u16::from(codec.id());
        let mut max_timestamp = self.max_timestamp;
        if let Some(time) = self.log_append_time {
            attributes |= Attributes::LOG_APPEND_TIME;
            max_timestamp = time;
        }
        let header = BatchHeader {
            base_offset: self.base_offset,
            length: 0,
            leader_epoch: self.leader_epoch,
            magic: MAGIC,
            crc: 0,
            attributes: Attributes(attributes),
            last_offset_delta: self.record_count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            record_count: self.record_count,
        };
        let mut out = Vec::with_capacity(HEADER_BYTES + records.len());
        assemble(&header, records, &mut out);
        out
    }
}

/// Appends a batch of these records, compressed as the header says, to `out`. Length and CRC are computed.
///
/// # Panics
/// When there are more than 2 GiB of them: a batch is made of a bounded number of records.
pub(crate) fn assemble(header: &BatchHeader, records: &[u8], out: &mut Vec<u8>) {
    let length = HEADER_BYTES - LENGTH_OVERHEAD_BYTES + records.len();
    assert!(i32::try_from(length).is_ok(), "a batch is below 2 GiB");
    let start = out.len();
    out.reserve(HEADER_BYTES + records.len());
    out.extend_from_slice(&header.base_offset.0.to_be_bytes());
    out.extend_from_slice(&(length as i32).to_be_bytes());
    out.extend_from_slice(&header.leader_epoch.0.to_be_bytes());
    out.push(MAGIC.cast_unsigned());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&header.attributes.0.to_be_bytes());
    out.extend_from_slice(&header.last_offset_delta.to_be_bytes());
    out.extend_from_slice(&header.base_timestamp.0.to_be_bytes());
    out.extend_from_slice(&header.max_timestamp.0.to_be_bytes());
    out.extend_from_slice(&header.producer_id.0.to_be_bytes());
    out.extend_from_slice(&header.producer_epoch.to_be_bytes());
    out.extend_from_slice(&header.base_sequence.to_be_bytes());
    out.extend_from_slice(&header.record_count.to_be_bytes());
    assert_eq!(out.len() - start, HEADER_BYTES, "a header takes what the format says");
    out.extend_from_slice(records);
    super::patch_crc(&mut out[start..]);
}
