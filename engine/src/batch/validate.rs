//! What a batch from a producer must obey before it is appended, as Kafka decides it for Produce version 3 and later:
//! one check of the header alone, for every batch, and one of its records, for where a rule needs them. The CRC is left to
//! the copy into the log, which reads all bytes anyway. It changes nothing and allocates nothing.

use std::ops::RangeInclusive;

use super::{BatchError, BatchHeader, BatchView, ErrorKind, TimestampType};
use crate::compression::Codec;
use crate::record::{self, Record};
use crate::types::TimestampMs;

/// What a topic and the version of the request allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProduceRules {
    /// `max.message.bytes`: the largest batch, header and all.
    pub message_bytes_max: usize,
    /// The broker's time.
    pub now: TimestampMs,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far back a CreateTime may lie; `i64::MAX` is no limit.
    pub timestamp_before_ms_max: i64,
    /// `message.timestamp.after.max.ms`: how far ahead a CreateTime may lie; `i64::MAX` is no limit.
    pub timestamp_after_ms_max: i64,
    /// Whether the request may hold zstd (Produce version 7 and later, KIP-110).
    pub zstd_allowed: bool,
    /// Whether every record needs a key (`cleanup.policy` has `compact`).
    pub keys_required: bool,
}

impl ProduceRules {
    /// Whether a batch cannot be decided from its header alone, so that [`validate_records`] has to see the records, even
    /// compressed ones: keys, a limit to how old a record may be (the header has only the largest timestamp), or a largest
    /// timestamp that cannot be right or is out of range. Where it is false, the records of an uncompressed batch are still
    /// worth checking, since that costs little.
    #[must_use]
    pub fn needs_records(&self, header: &BatchHeader) -> bool {
        let by_timestamps = || {
            // Some clients never set the largest timestamp: it is -1 then, or what their unset time is.
            let unset = header.max_timestamp < header.base_timestamp.max(TimestampMs::NONE);
            self.timestamp_before_ms_max != i64::MAX || unset || !self.allows(header.max_timestamp)
        };
        self.keys_required || (self.timestamp_type == TimestampType::CreateTime && by_timestamps())
    }

    fn allowed_timestamps(&self) -> RangeInclusive<i64> {
        match self.timestamp_type {
            TimestampType::LogAppendTime => i64::MIN..=i64::MAX,
            TimestampType::CreateTime => {
                let from = self.now.0.saturating_sub(self.timestamp_before_ms_max);
                from..=self.now.0.saturating_add(self.timestamp_after_ms_max)
            }
        }
    }

    fn allows(&self, timestamp: TimestampMs) -> bool {
        timestamp == TimestampMs::NONE || self.allowed_timestamps().contains(&timestamp.0)
    }
}

/// Checks one partition's records of a Produce request: exactly one batch, magic 2, base offset 0, within the size, codec
/// known, as many records as offsets, nothing that only brokers write, producer fields that go together. Not the CRC, and
/// not the records nor their timestamps; see [`validate_records`].
///
/// Kafka checks the CRC before most of this, so a batch that fails here has its CRC computed after all: damage on the way
/// is answered as such, which makes the producer try again.
///
/// # Errors
/// [`BatchError`], one for each rule.
pub fn validate_produced(bytes: &[u8], rules: &ProduceRules) -> Result<BatchHeader, BatchError> {
    let view = BatchView::new(bytes)?;
    match check_header(view.header(), bytes.len(), rules) {
        Ok(()) => Ok(*view.header()),
        Err(error) if error.kind() == ErrorKind::TooLarge => Err(error),
        Err(error) => {
            view.check_crc()?;
            Err(error)
        }
    }
}

fn check_header(header: &BatchHeader, bytes: usize, rules: &ProduceRules) -> Result<(), BatchError> {
    let codec = header.attributes.codec()?;
    if codec == Codec::Zstd && !rules.zstd_allowed {
        return Err(BatchError::Codec(codec.id()));
    }
    if header.base_offset.0 != 0 {
        return Err(BatchError::Field { field: "base offset in a produce request", value: header.base_offset.0 });
    }
    if bytes > rules.message_bytes_max {
        return Err(BatchError::TooLarge { bytes, bytes_max: rules.message_bytes_max });
    }
    let offset_count = i64::from(header.last_offset_delta) + 1;
    if i64::from(header.record_count) != offset_count {
        return Err(BatchError::Count { record_count: header.record_count, offset_count });
    }
    if header.attributes.is_control() {
        return Err(BatchError::BrokersOnly("control records"));
    }
    if header.attributes.has_delete_horizon() {
        return Err(BatchError::BrokersOnly("a delete horizon"));
    }
    check_producer(header)?;
    if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::TimestampType);
    }
    Ok(())
}

fn check_producer(header: &BatchHeader) -> Result<(), BatchError> {
    if header.producer_id.0 < 0 {
        return match header.attributes.is_transactional() {
            true => Err(BatchError::Producer("transactional without a producer id")),
            false => Ok(()),
        };
    }
    if header.producer_epoch < 0 {
        return Err(BatchError::Producer("a producer id without an epoch"));
    }
    if header.base_sequence < 0 {
        return Err(BatchError::Producer("a producer id without a sequence"));
    }
    Ok(())
}

/// Checks the records of a batch that [`validate_produced`] let pass: each well-formed, numbered from 0 without a gap, as
/// many as the header says and nothing behind them, with a key and a timestamp as the rules want. `records` are the
/// batch's records, decompressed. It allocates nothing. Returns the largest timestamp: that of the header is to be corrected
/// by it, as Kafka does.
///
/// Kafka does this for every batch. Without it a broken producer's batch would be stored and break its consumers, not the
/// broker: so do it for uncompressed batches (it reads a few bytes of each record, which the copy needs next anyway), and for
/// compressed ones where [`ProduceRules::needs_records`]. The header of the others is believed.
///
/// # Errors
/// [`BatchError`] for the first record that fails.
pub fn validate_records(header: &BatchHeader, records: &[u8], rules: &ProduceRules) -> Result<TimestampMs, BatchError> {
    let timestamps = rules.allowed_timestamps();
    let mut newest = TimestampMs::NONE.0;
    let mut at = 0;
    for index in 0..header.record_count {
        if let Some(record) = record::skim(records, at)
            && record.offset_delta == index
            && (record.has_key || !rules.keys_required)
        {
            let timestamp = header.base_timestamp.0.wrapping_add(record.timestamp_delta);
            if timestamps.contains(&timestamp) {
                newest = newest.max(timestamp);
                at = record.end;
                continue;
            }
        }
        // Something unusual or wrong: slower, and with the reason.
        let (record, rest) = parse_record(index, &records[at..])?;
        if let Some(error) = rule_broken(header, index, &record, rules) {
            return Err(error);
        }
        newest = newest.max(header.timestamp_of(&record).0);
        at = records.len() - rest.len();
    }
    check_end(&records[at..])?;
    Ok(TimestampMs(newest))
}

/// Why a batch is refused, and which of its records are to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsRefused {
    /// What the batch is refused for. As in Kafka, a malformed record comes before one that breaks a rule, and a wrong
    /// timestamp before a missing key.
    pub error: BatchError,
    /// What the records to blame break, in their order: those without a key, and those whose timestamp is out of range.
    /// None, where a record is malformed: then the whole batch is to blame.
    pub records: Vec<BatchError>,
}

impl From<BatchError> for RecordsRefused {
    /// All of the batch is to blame.
    fn from(error: BatchError) -> Self {
        Self { error, records: Vec::new() }
    }
}

/// Looks for all records to blame in a batch that [`validate_records`] refused with `error`. At most `records_max` of them are
/// listed.
#[must_use]
#[cold]
pub fn find_refused(
    header: &BatchHeader,
    records: &[u8],
    rules: &ProduceRules,
    error: BatchError,
    records_max: usize,
) -> RecordsRefused {
    let mut refused = RecordsRefused::from(error);
    let mut rest = records;
    for index in 0..header.record_count {
        let record = match parse_record(index, rest) {
            Ok((record, behind)) => {
                rest = behind;
                record
            }
            Err(malformed) => return malformed.into(),
        };
        let Some(broken) = rule_broken(header, index, &record, rules) else { continue };
        if broken.kind() == ErrorKind::InvalidTimestamp && refused.error.kind() != ErrorKind::InvalidTimestamp {
            refused.error = broken.clone();
        }
        if refused.records.len() < records_max {
            refused.records.push(broken);
        }
    }
    match check_end(rest) {
        Ok(()) => refused,
        Err(error) => error.into(),
    }
}

/// The record at the front of `bytes`, and what follows it.
#[cold]
fn parse_record(index: i32, bytes: &[u8]) -> Result<(Record<'_>, &[u8]), BatchError> {
    let (record, rest) = Record::parse(bytes).map_err(|error| BatchError::Record { index, error })?;
    if record.offset_delta != index {
        return Err(BatchError::OffsetDelta { index, offset_delta: record.offset_delta });
    }
    Ok((record, rest))
}

/// What the topic does not allow of a well-formed record.
fn rule_broken(header: &BatchHeader, index: i32, record: &Record<'_>, rules: &ProduceRules) -> Option<BatchError> {
    if rules.keys_required && record.key.is_none() {
        return Some(BatchError::KeyMissing(index));
    }
    let timestamp = header.timestamp_of(record);
    if rules.allows(timestamp) {
        return None;
    }
    let allowed = rules.allowed_timestamps();
    Some(BatchError::Timestamp { index, timestamp: timestamp.0, from: *allowed.start(), to: *allowed.end() })
}

fn check_end(behind: &[u8]) -> Result<(), BatchError> {
    if behind.is_empty() { Ok(()) } else { Err(BatchError::RecordsTrailing(behind.len())) }
}
