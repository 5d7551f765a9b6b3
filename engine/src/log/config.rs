//! What a partition's log is told about its topic. Values are checked by whoever reads them from a user.

use std::time::Duration;

pub use crate::batch::TimestampType;

/// The topic options that the log obeys, under Kafka's names.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is rolled before it grows beyond this.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment is rolled when the next batch is this much newer than its first.
    pub segment_ms: i64,
    /// `segment.index.bytes`: a segment is rolled when its offset index is this large.
    pub segment_index_bytes: u64,
    /// `index.interval.bytes`: the distance between index entries.
    pub index_interval_bytes: u64,
    /// `retention.ms`; negative: for ever.
    pub retention_ms: i64,
    /// `retention.bytes`; negative: no bound.
    pub retention_bytes: i64,
    /// `flush.messages`: how many records may be acknowledged without being synced. 1 makes the topic durable.
    pub flush_messages: i64,
    /// `flush.ms`: how long a record may stay unsynced.
    pub flush_ms: i64,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
    /// How it is compacted, where `cleanup.policy` has `compact`.
    pub compaction: Option<CompactionConfig>,
}

/// The topic options of compaction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompactionConfig {
    /// `min.cleanable.dirty.ratio`: the part of a log, from 0 to 1, that is not cleaned before it is cleaned.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: how long a record is left alone.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: when a record is cleaned whatever the ratio says.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: how long a tombstone stays after its first cleaning.
    pub delete_retention_ms: i64,
}

impl Default for CompactionConfig {
    fn default() -> Self {
        Self {
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 86_400_000,
        }
    }
}

impl LogConfig {
    /// Whether an acknowledged record (acks=all) is on the device.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.flush_messages == 1
    }

    /// How old a segment's first record may be when the segment is rolled: `segment.ms`, or less where the topic is compacted, since
    /// only what is sealed can be (KIP-354).
    #[must_use]
    pub fn roll_ms(&self) -> i64 {
        self.compaction.map_or(self.segment_ms, |compaction| compaction.max_compaction_lag_ms.min(self.segment_ms))
    }

    /// `flush.ms` as a duration, where it bounds anything.
    #[must_use]
    pub fn flush_interval(&self) -> Option<Duration> {
        // Kafka's "never" is the largest long; beyond a year nobody can tell the difference.
        let year_ms = 366 * 24 * 3_600_000;
        (self.flush_ms < year_ms).then(|| Duration::from_millis(u64::try_from(self.flush_ms).unwrap_or(0)))
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            flush_messages: 1,
            flush_ms: i64::MAX,
            timestamp_type: TimestampType::CreateTime,
            producer_id_expiration_ms: 86_400_000,
            compaction: None,
        }
    }
}
