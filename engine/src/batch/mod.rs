//! Record batch v2: a view over bytes without copying, its header, its CRC-32C, and the fields a broker writes into it.
//! Everyone who handles batches uses it. It never does I/O, and decompresses only where the caller asks for the records.
//!
//! What a producer's batch must obey is in [`validate`], making batches in [`builder`]. The layout: KIP-98; the CRC covers
//! byte 21 to the end, so that base offset and leader epoch can be set without a new one.

pub mod builder;
pub mod validate;

use std::borrow::Cow;

use thiserror::Error;

pub use builder::BatchBuilder;
pub use validate::{ProduceRules, RecordsRefused, find_refused, validate_produced, validate_records};

use crate::compression::{self, Codec, CompressionError};
use crate::record::{Record, RecordError};
use crate::types::{LeaderEpoch, Offset, ProducerId, TimestampMs};

/// The size of a batch's header: what comes before its records.
pub const HEADER_BYTES: usize = 61;
/// The bytes that the length field does not count: the base offset and itself.
pub const LENGTH_OVERHEAD_BYTES: usize = 12;
/// Where the part that the CRC covers starts; it goes to the end of the batch.
pub const CRC_START: usize = 21;
/// The only format version there is today.
pub const MAGIC: i8 = 2;

const LEADER_EPOCH_AT: usize = 12;
const CRC_AT: usize = 17;
const MAX_TIMESTAMP_AT: usize = 35;

/// What is wrong with a batch. [`BatchError::kind`] says which of Kafka's errors a client gets.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// Fewer bytes than a header.
    #[error("{available} bytes are less than a record batch's header of {HEADER_BYTES}")]
    TooShort {
        /// How many there are.
        available: usize,
    },
    /// Fewer bytes than the header says.
    #[error("record batch of {needed} bytes ends after {available}")]
    Incomplete {
        /// What the length field asks for.
        needed: usize,
        /// How many there are.
        available: usize,
    },
    /// More than one batch where exactly one belongs.
    #[error("{0} bytes follow the one record batch that may be here")]
    Trailing(usize),
    /// Not format version 2.
    #[error("record batch has format version {0}, not {MAGIC}")]
    Magic(i8),
    /// A length field that leaves no room for the header.
    #[error("record batch declares a length of {0} bytes, less than its header takes")]
    Length(i32),
    /// A header field whose value cannot be.
    #[error("record batch has an impossible {field}: {value}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
    /// The bytes are not those that the CRC was computed of.
    #[error("record batch has CRC {computed:#010x}, its header says {stored:#010x}")]
    Crc {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Over the topic's `max.message.bytes`.
    #[error("record batch of {bytes} bytes is over the limit of {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// Offsets that do not fit the number of records.
    #[error("record batch of {record_count} records spans {offset_count} offsets")]
    Count {
        /// How many records the header says.
        record_count: i32,
        /// How many offsets it spans.
        offset_count: i64,
    },
    /// A control batch or a delete horizon, which only brokers write.
    #[error("a producer may not send a record batch with {0}")]
    BrokersOnly(&'static str),
    /// Producer id, epoch, sequence and the transactional flag do not go together.
    #[error("record batch with inconsistent producer fields: {0}")]
    Producer(&'static str),
    /// A compression codec that does not exist, or not for this version of the request.
    #[error("compression codec {0} is not supported here")]
    Codec(u8),
    /// The compressed records cannot be decompressed.
    #[error("compressed records: {0}")]
    Compression(#[from] CompressionError),
    /// A timestamp outside the topic's range.
    #[error("record {index} has timestamp {timestamp}, outside {from}..={to}")]
    Timestamp {
        /// The record's number in the batch, from 0.
        index: i32,
        /// The timestamp.
        timestamp: i64,
        /// The first allowed.
        from: i64,
        /// The last allowed.
        to: i64,
    },
    /// The timestamp type LogAppendTime, which only brokers set.
    #[error("a producer may not set the timestamp type LogAppendTime")]
    TimestampType,
    /// A malformed record.
    #[error("record {index}: {error}")]
    Record {
        /// Its number in the batch, from 0.
        index: i32,
        /// What is wrong.
        error: RecordError,
    },
    /// A record out of place: records are numbered from 0 without a gap.
    #[error("record {index} has offset delta {offset_delta}")]
    OffsetDelta {
        /// Its number in the batch, from 0.
        index: i32,
        /// What it says.
        offset_delta: i32,
    },
    /// A record without a key in a compacted topic.
    #[error("record {0} has no key, which a compacted topic needs")]
    KeyMissing(i32),
    /// More bytes than the declared number of records takes.
    #[error("{0} bytes follow the last record")]
    RecordsTrailing(usize),
}

/// Which of Kafka's error codes a [`BatchError`] is. `UNSUPPORTED_FOR_MESSAGE_FORMAT` (43) is not among them: Kafka gives
/// it where a topic keeps an older format, and there is none here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// `CORRUPT_MESSAGE` (2); the producer sends it again.
    Corrupt,
    /// `MESSAGE_TOO_LARGE` (10); the producer splits the batch.
    TooLarge,
    /// `INVALID_TIMESTAMP` (32).
    InvalidTimestamp,
    /// `UNSUPPORTED_COMPRESSION_TYPE` (76).
    UnsupportedCompression,
    /// `INVALID_RECORD` (87).
    InvalidRecord,
}

impl BatchError {
    /// Which of Kafka's errors a producer gets for it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Crc { .. } | Self::Length(_) | Self::Compression(_) => ErrorKind::Corrupt,
            Self::Magic(magic) if !(0..=1).contains(magic) => ErrorKind::Corrupt,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Codec(_) => ErrorKind::UnsupportedCompression,
            Self::Timestamp { .. } | Self::TimestampType => ErrorKind::InvalidTimestamp,
            Self::TooShort { .. }
            | Self::Incomplete { .. }
            | Self::Trailing(_)
            | Self::Magic(_)
            | Self::Field { .. }
            | Self::Count { .. }
            | Self::BrokersOnly(_)
            | Self::Producer(_)
            | Self::Record { .. }
            | Self::OffsetDelta { .. }
            | Self::KeyMissing(_)
            | Self::RecordsTrailing(_) => ErrorKind::InvalidRecord,
        }
    }
}

/// What a batch's timestamps mean (KIP-32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// When the producer made the record.
    CreateTime,
    /// When the broker appended the batch: the maximum timestamp, for every record.
    LogAppendTime,
}

/// A batch's attribute bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub u16);

impl Attributes {
    pub(crate) const CODEC_MASK: u16 = 0x07;
    const LOG_APPEND_TIME: u16 = 1 << 3;
    const TRANSACTIONAL: u16 = 1 << 4;
    const CONTROL: u16 = 1 << 5;
    pub(crate) const DELETE_HORIZON: u16 = 1 << 6;

    /// The codec of the records.
    ///
    /// # Errors
    /// [`BatchError::Codec`] for the ids 5 to 7, which nobody has.
    pub fn codec(self) -> Result<Codec, BatchError> {
        let id = (self.0 & Self::CODEC_MASK) as u8;
        Codec::from_id(id).ok_or(BatchError::Codec(id))
    }

    /// What the timestamps mean.
    #[must_use]
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether its records are for brokers and clients (a transaction's end), not for applications.
    #[must_use]
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether the base timestamp holds the time at which tombstones may go (KIP-534).
    #[must_use]
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }
}

/// A batch's header, as on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record the batch had when it was written (compaction may have taken it).
    pub base_offset: Offset,
    /// How many bytes follow the length field; see [`BatchHeader::size_bytes`].
    pub length: i32,
    /// The epoch of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
    /// The format version: 2.
    pub magic: i8,
    /// CRC-32C of byte 21 to the end.
    pub crc: u32,
    /// Codec, timestamp type and flags.
    pub attributes: Attributes,
    /// Last offset minus base offset. Also the last sequence minus the base sequence.
    pub last_offset_delta: i32,
    /// The timestamp that the records' deltas add to (or the delete horizon).
    pub base_timestamp: TimestampMs,
    /// The largest timestamp of the records, or the time of the append.
    pub max_timestamp: TimestampMs,
    /// The idempotent producer, or -1.
    pub producer_id: ProducerId,
    /// The producer's epoch, or -1.
    pub producer_epoch: i16,
    /// The sequence of the first record, or -1.
    pub base_sequence: i32,
    /// How many records there are; after compaction fewer than offsets, or none.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the front of `bytes` and checks what it says by itself: format version, a length that holds the
    /// header, no negative delta, count or offset, no offset over the range. Cheap; neither the CRC nor the records.
    ///
    /// # Errors
    /// [`BatchError`] where that does not hold.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(raw) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::TooShort { available: bytes.len() });
        };
        let header = Self {
            base_offset: Offset(i64::from_be_bytes(field(raw, 0))),
            length: i32::from_be_bytes(field(raw, 8)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(raw, LEADER_EPOCH_AT))),
            magic: raw[16].cast_signed(),
            crc: u32::from_be_bytes(field(raw, CRC_AT)),
            attributes: Attributes(u16::from_be_bytes(field(raw, 21))),
            last_offset_delta: i32::from_be_bytes(field(raw, 23)),
            base_timestamp: TimestampMs(i64::from_be_bytes(field(raw, 27))),
            max_timestamp: TimestampMs(i64::from_be_bytes(field(raw, MAX_TIMESTAMP_AT))),
            producer_id: ProducerId(i64::from_be_bytes(field(raw, 43))),
            producer_epoch: i16::from_be_bytes(field(raw, 51)),
            base_sequence: i32::from_be_bytes(field(raw, 53)),
            record_count: i32::from_be_bytes(field(raw, 57)),
        };
        if header.magic != MAGIC {
            return Err(BatchError::Magic(header.magic));
        }
        if header.length < (HEADER_BYTES - LENGTH_OVERHEAD_BYTES) as i32 {
            return Err(BatchError::Length(header.length));
        }
        let impossible = |field, value| Err(BatchError::Field { field, value });
        if header.last_offset_delta < 0 {
            return impossible("last offset delta", header.last_offset_delta.into());
        }
        if header.record_count < 0 {
            return impossible("record count", header.record_count.into());
        }
        if header.base_offset.0 < 0 || header.base_offset.0 > i64::MAX - i64::from(header.last_offset_delta) - 1 {
            return impossible("base offset", header.base_offset.0);
        }
        Ok(header)
    }

    /// The size of the whole batch.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.length as usize + LENGTH_OVERHEAD_BYTES
    }

    /// The offset of the last record the batch had when it was written.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta.into())
    }

    /// The offset that follows the batch.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// The sequence of the last record: sequences go round, after `i32::MAX` comes 0. -1 where the batch has none.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 { self.base_sequence } else { sequence_plus(self.base_sequence, self.last_offset_delta) }
    }

    /// The offset of one of its records.
    #[must_use]
    pub fn offset_of(&self, record: &Record<'_>) -> Offset {
        Offset(self.base_offset.0.saturating_add(record.offset_delta.into()))
    }

    /// The timestamp of one of its records.
    #[must_use]
    pub fn timestamp_of(&self, record: &Record<'_>) -> TimestampMs {
        match self.attributes.timestamp_type() {
            TimestampType::LogAppendTime => self.max_timestamp,
            TimestampType::CreateTime => TimestampMs(self.base_timestamp.0.wrapping_add(record.timestamp_delta)),
        }
    }
}

/// The sequence `count` further on; after `i32::MAX` comes 0.
#[must_use]
pub fn sequence_plus(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

/// The sequence `count` back; before 0 comes `i32::MAX`.
#[must_use]
pub fn sequence_minus(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_sub(count) & i32::MAX
}

fn field<const N: usize>(raw: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&raw[at..at + N]);
    out
}

/// Exactly one whole batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// A view over `bytes`, which must be one batch and nothing else.
    ///
    /// # Errors
    /// [`BatchError`] where the header is bad, or the bytes are too few or too many.
    pub fn new(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let needed = header.size_bytes();
        match bytes.len().cmp(&needed) {
            std::cmp::Ordering::Less => Err(BatchError::Incomplete { needed, available: bytes.len() }),
            std::cmp::Ordering::Greater => Err(BatchError::Trailing(bytes.len() - needed)),
            std::cmp::Ordering::Equal => Ok(Self { header, bytes }),
        }
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records, compressed if they are.
    #[must_use]
    pub fn records_bytes(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Checks the CRC over all the batch.
    ///
    /// # Errors
    /// [`BatchError::Crc`] where it does not fit.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let (stored, computed) = (self.header.crc, crc_of(self.bytes));
        if stored == computed { Ok(()) } else { Err(BatchError::Crc { stored, computed }) }
    }

    /// The records, decompressed if need be to at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`BatchError`] where the codec is unknown, the compressed bytes are bad, or there is more in them.
    pub fn records(&self, bytes_max: usize) -> Result<Records<'a>, BatchError> {
        let codec = self.header.attributes.codec()?;
        // Compaction leaves batches without records, and without a compressed stream.
        let bytes = match (codec, self.header.record_count) {
            (Codec::None, _) | (_, 0) => Cow::Borrowed(self.records_bytes()),
            _ => compression::decompress(codec, self.records_bytes(), bytes_max)?,
        };
        Ok(Records { bytes, count: self.header.record_count })
    }
}

/// The records of a batch, decompressed.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: Cow<'a, [u8]>,
    count: i32,
}

impl Records<'_> {
    /// The records one after the other; after the first that is malformed none. Bytes that follow the last are an error too.
    #[must_use]
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter::new(&self.bytes, self.count)
    }

    /// The records' bytes, decompressed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<'a> IntoIterator for &'a Records<'_> {
    type Item = Result<Record<'a>, BatchError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// Walks over `count` records; see [`Records::iter`].
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    bytes: &'a [u8],
    index: i32,
    count: i32,
}

impl<'a> RecordIter<'a> {
    /// Walks over `bytes`, uncompressed records of which there should be `count`.
    #[must_use]
    pub fn new(bytes: &'a [u8], count: i32) -> Self {
        Self { bytes, index: 0, count }
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            let trailing = std::mem::take(&mut self.bytes).len();
            return (trailing > 0).then_some(Err(BatchError::RecordsTrailing(trailing)));
        }
        match Record::parse(self.bytes) {
            Ok((record, rest)) => {
                self.index += 1;
                self.bytes = rest;
                Some(Ok(record))
            }
            Err(error) => {
                let index = std::mem::replace(&mut self.index, self.count);
                self.bytes = &[];
                Some(Err(BatchError::Record { index, error }))
            }
        }
    }
}

/// Takes the batch off the front of `bytes`; returns it and what follows. `None` where the bytes end before the batch does
/// (or there are none): a partial batch at the end is what every fetch and every torn tail has.
///
/// # Errors
/// [`BatchError`] where the header is bad; what follows cannot be told apart then.
pub fn split_first(bytes: &[u8]) -> Result<Option<(BatchView<'_>, &[u8])>, BatchError> {
    if bytes.len() < HEADER_BYTES {
        return Ok(None);
    }
    let header = BatchHeader::parse(bytes)?;
    Ok(bytes.split_at_checked(header.size_bytes()).map(|(bytes, rest)| (BatchView { header, bytes }, rest)))
}

/// The whole batches in `bytes`, one after the other; it ends after the first error, or at a partial batch.
#[must_use]
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { bytes }
}

/// See [`batches`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
}

impl<'a> Batches<'a> {
    /// What was not read yet: after the end, the partial batch.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        match split_first(self.bytes) {
            Ok(found) => {
                let (view, rest) = found?;
                self.bytes = rest;
                Some(Ok(view))
            }
            Err(error) => {
                self.bytes = &[];
                Some(Err(error))
            }
        }
    }
}

/// The CRC of a batch that is seen in pieces.
#[derive(Debug, Default)]
pub struct RunningCrc {
    /// How many of the bytes that it does not cover were seen.
    before: usize,
    crc: u32,
}

impl RunningCrc {
    /// Takes the next bytes, from the batch's first one on.
    pub fn add(&mut self, bytes: &[u8]) {
        let skipped = (CRC_START - self.before).min(bytes.len());
        self.before += skipped;
        self.crc = crc32c::crc32c_append(self.crc, &bytes[skipped..]);
    }

    /// Whether all of it has the CRC that its header says.
    ///
    /// # Errors
    /// [`BatchError::Crc`] where it does not.
    pub fn check(&self, header: &BatchHeader) -> Result<(), BatchError> {
        let (stored, computed) = (header.crc, self.crc);
        if stored == computed { Ok(()) } else { Err(BatchError::Crc { stored, computed }) }
    }
}

/// The CRC of a whole batch, computed.
///
/// # Panics
/// When `bytes` are less than a header.
#[must_use]
pub fn crc_of(bytes: &[u8]) -> u32 {
    assert!(bytes.len() >= HEADER_BYTES, "a batch has a header");
    crc32c::crc32c(&bytes[CRC_START..])
}

/// Sets the base offset. The CRC stays right. The part before [`CRC_START`] is enough.
///
/// # Panics
/// When there is less.
pub fn patch_base_offset(bytes: &mut [u8], offset: Offset) {
    assert!(bytes.len() >= CRC_START, "a batch has a header");
    bytes[..8].copy_from_slice(&offset.0.to_be_bytes());
}

/// Sets the leader epoch. The CRC stays right. The part before [`CRC_START`] is enough.
///
/// # Panics
/// When there is less.
pub fn patch_leader_epoch(bytes: &mut [u8], epoch: LeaderEpoch) {
    assert!(bytes.len() >= CRC_START, "a batch has a header");
    bytes[LEADER_EPOCH_AT..LEADER_EPOCH_AT + 4].copy_from_slice(&epoch.0.to_be_bytes());
}

/// Makes `time` the time of the append, for every record of the batch; computes the CRC anew, so a wrong one has to be
/// found before.
///
/// # Panics
/// When `bytes` are less than a header.
pub fn set_log_append_time(bytes: &mut [u8], time: TimestampMs) {
    assert!(bytes.len() >= HEADER_BYTES, "a batch has a header");
    bytes[CRC_START + 1] |= Attributes::LOG_APPEND_TIME as u8;
    set_max_timestamp(bytes, time);
}

/// Sets the largest timestamp; computes the CRC anew, so a wrong one has to be found before.
///
/// # Panics
/// When `bytes` are less than a header.
pub fn set_max_timestamp(bytes: &mut [u8], timestamp: TimestampMs) {
    assert!(bytes.len() >= HEADER_BYTES, "a batch has a header");
    bytes[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&timestamp.0.to_be_bytes());
    patch_crc(bytes);
}

/// The largest timestamp that a batch says.
///
/// # Panics
/// When `bytes` are less than a header.
#[must_use]
pub fn max_timestamp_of(bytes: &[u8]) -> TimestampMs {
    let Some(raw) = bytes.first_chunk::<HEADER_BYTES>() else { panic!("a batch has a header") };
    TimestampMs(i64::from_be_bytes(field(raw, MAX_TIMESTAMP_AT)))
}

fn patch_crc(bytes: &mut [u8]) {
    let crc = crc_of(bytes);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

#[cfg(test)]
mod tests;
