//! What a partition's log is told about its topic. Values are checked by whoever reads them from a user.

use std::time::Duration;

pub use crate::batch::TimestampType;

/// The topic options that the log obeys, under Kafka's names.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

impl LogConfig {
    /// Whether an acknowledged record (acks=all) is on the device.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.flush_messages == 1
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
        }
    }
}
