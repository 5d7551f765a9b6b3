//! The options of a topic: Kafka's names, their meaning here, and the values that a topic gets from its own overrides and
//! the broker's defaults. The catalogue checks requests with it, the log reads the typed values, DescribeConfigs the table.
//! It never stores anything.

use std::collections::BTreeMap;

use super::broker::BrokerConfig;
use super::definition::Valid::{Any, AtLeast, Between, OneOf, OrBetween};
use super::definition::{Definition, options, parse_overrides};
use super::error::{ConfigError, Problem};

options! {
    /// All options of one topic, resolved: its own overrides, else the broker's settings, else the defaults.
    TopicConfig,
    /// The table of topic options, by name.
    TOPIC_DEFINITIONS;

    /// What happens to old segments: "delete" removes them by age and size, "compact" keeps the last value of each key, both do
    /// both. Every record of a compacted topic needs a key.
    cleanup_policy: Vec<String> = "cleanup.policy", default None, valid OneOf(&["compact", "delete"]),
        synonyms ["log.cleanup.policy" * 1];

    /// The gzip level when the broker compresses; without effect while compression.type is "producer".
    compression_gzip_level: i32 = "compression.gzip.level", default Some("-1"), valid OrBetween(-1, 1, 9);

    /// The lz4 level when the broker compresses; without effect while compression.type is "producer".
    compression_lz4_level: i32 = "compression.lz4.level", default Some("9"), valid Between(1, 17);

    /// Who compresses. "producer": batches are kept as they came. The codecs, with which the broker would compress anew, are
    /// refused until that exists.
    compression_type: String = "compression.type", default None, valid OneOf(&["producer"]),
        refused [
            "uncompressed" => "the broker keeps batches as they came and does not recompress yet; accepted: producer",
            "gzip" => "the broker keeps batches as they came and does not recompress yet; accepted: producer",
            "snappy" => "the broker keeps batches as they came and does not recompress yet; accepted: producer",
            "lz4" => "the broker keeps batches as they came and does not recompress yet; accepted: producer",
            "zstd" => "the broker keeps batches as they came and does not recompress yet; accepted: producer"
        ],
        synonyms ["compression.type" * 1];

    /// The zstd level when the broker compresses; without effect while compression.type is "producer".
    compression_zstd_level: i32 = "compression.zstd.level", default Some("3"), valid Between(-131072, 22);

    /// Milliseconds for which tombstones of a compacted topic stay after the first compaction that meets them; without effect with
    /// cleanup.policy=delete.
    delete_retention_ms: i64 = "delete.retention.ms", default None, valid AtLeast(0),
        synonyms ["log.cleaner.delete.retention.ms" * 1];

    /// Milliseconds between taking a segment out of the log and removing its files.
    file_delete_delay_ms: i64 = "file.delete.delay.ms", default None, valid AtLeast(0),
        synonyms ["log.segment.delete.delay.ms" * 1];

    /// Records after which the log is synced to the device. 1, the default here: the topic is durable, which means that
    /// nothing is acknowledged to acks=all, and nothing is shown to consumers, before it is on the device. With a larger
    /// value, records are acknowledged once written, and a power failure can lose as many as have not been synced.
    flush_messages: i64 = "flush.messages", default None, valid AtLeast(1),
        synonyms ["log.flush.interval.messages" * 1];

    /// Milliseconds after which what was written is synced to the device, for topics with flush.messages over 1.
    flush_ms: i64 = "flush.ms", default None, valid AtLeast(0),
        synonyms ["log.flush.interval.ms" * 1, "log.flush.scheduler.interval.ms" * 1];

    /// Bytes of log for which there is an entry in the offset index and the time index.
    index_interval_bytes: i32 = "index.interval.bytes", default None, valid AtLeast(0),
        synonyms ["log.index.interval.bytes" * 1];

    /// Milliseconds after which a record of a compacted topic is compacted whatever min.cleanable.dirty.ratio says, and after
    /// which a new segment starts for that; without effect with cleanup.policy=delete.
    max_compaction_lag_ms: i64 = "max.compaction.lag.ms", default None, valid AtLeast(1),
        synonyms ["log.cleaner.max.compaction.lag.ms" * 1];

    /// The largest record batch, in bytes, as it came (compressed, if it was).
    max_message_bytes: i32 = "max.message.bytes", default None, valid AtLeast(0),
        synonyms ["message.max.bytes" * 1];

    /// How many milliseconds a record's timestamp may be ahead of the broker's clock.
    message_timestamp_after_max_ms: i64 = "message.timestamp.after.max.ms", default None, valid AtLeast(0),
        synonyms ["log.message.timestamp.after.max.ms" * 1];

    /// How many milliseconds a record's timestamp may be behind the broker's clock.
    message_timestamp_before_max_ms: i64 = "message.timestamp.before.max.ms", default None, valid AtLeast(0),
        synonyms ["log.message.timestamp.before.max.ms" * 1];

    /// Whose clock a record's timestamp shows: the producer's ("CreateTime") or the broker's ("LogAppendTime").
    message_timestamp_type: String = "message.timestamp.type", default None, valid OneOf(&["CreateTime", "LogAppendTime"]),
        synonyms ["log.message.timestamp.type" * 1];

    /// The share of a compacted log that must be dirty before it is compacted; without effect with cleanup.policy=delete.
    min_cleanable_dirty_ratio: f64 = "min.cleanable.dirty.ratio", default None, valid Between(0, 1),
        synonyms ["log.cleaner.min.cleanable.ratio" * 1];

    /// Milliseconds for which a record of a compacted topic is left alone; without effect with cleanup.policy=delete.
    min_compaction_lag_ms: i64 = "min.compaction.lag.ms", default None, valid AtLeast(0),
        synonyms ["log.cleaner.min.compaction.lag.ms" * 1];

    /// How many replicas must be in sync for a producer with acks=all.
    min_insync_replicas: i32 = "min.insync.replicas", default None, valid AtLeast(1),
        synonyms ["min.insync.replicas" * 1];

    /// Whether a segment's file gets its whole size when it is made. Segments are never preallocated here.
    preallocate: bool = "preallocate", default Some("false"), valid Any,
        refused ["true" => "segments are never preallocated; accepted: false"];

    /// The bytes a partition may keep before its oldest segments are removed; -1: no limit.
    retention_bytes: i64 = "retention.bytes", default None, valid Any,
        synonyms ["log.retention.bytes" * 1];

    /// Milliseconds after which a segment whose newest record is older is removed; one without timestamps is as old as its last
    /// change; -1: never.
    retention_ms: i64 = "retention.ms", default None, valid AtLeast(-1),
        synonyms ["log.retention.ms" * 1, "log.retention.minutes" * 60000, "log.retention.hours" * 3600000];

    /// The size in bytes at which a new segment starts.
    segment_bytes: i32 = "segment.bytes", default None, valid AtLeast(1048576),
        synonyms ["log.segment.bytes" * 1];

    /// The largest size in bytes of a segment's index files; a full index starts a new segment.
    segment_index_bytes: i32 = "segment.index.bytes", default None, valid AtLeast(4),
        synonyms ["log.index.size.max.bytes" * 1];

    /// At most so many milliseconds are taken off segment.ms, at random, so that segments don't all roll together.
    segment_jitter_ms: i64 = "segment.jitter.ms", default None, valid AtLeast(0),
        synonyms ["log.roll.jitter.ms" * 1, "log.roll.jitter.hours" * 3600000];

    /// Milliseconds after which a new segment starts even if the last is not full, by the records' time; where they have none, by
    /// the clock, since the segment or the broker began.
    segment_ms: i64 = "segment.ms", default None, valid AtLeast(1),
        synonyms ["log.roll.ms" * 1, "log.roll.hours" * 3600000];

    /// Whether a replica that is not in sync may become leader when no other is left, at the price of acknowledged records.
    /// Without effect on a partition with one replica.
    unclean_leader_election_enable: bool = "unclean.leader.election.enable", default Some("false"), valid Any;
}

impl TopicConfig {
    /// Computes a topic's configuration from its overrides and the broker's settings.
    ///
    /// # Errors
    /// All that is wrong with the overrides: names that no topic option has, values out of range, contradictions.
    pub fn resolve(broker: &BrokerConfig, overrides: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let unknown = |name: &str| Problem::UnknownTopicConfig { name: name.to_owned() };
        let (values, problems) = parse_overrides(overrides, definition, unknown);
        if !problems.is_empty() {
            return Err(ConfigError::new(problems));
        }
        let config = Self::from_values(|name| values.get(name).or_else(|| broker.inherited(definition(name)?)));
        match config.conflict() {
            Some(conflict) => Err(ConfigError::new(vec![conflict])),
            None => Ok(config),
        }
    }

    /// What of it contradicts something else.
    pub(super) fn conflict(&self) -> Option<Problem> {
        (self.min_compaction_lag_ms > self.max_compaction_lag_ms).then(|| Problem::Conflict {
            what: format!(
                "conflict topic config setting min.compaction.lag.ms ({}) > max.compaction.lag.ms ({})",
                self.min_compaction_lag_ms, self.max_compaction_lag_ms
            ),
        })
    }

    /// Whether the last value of each key is kept.
    #[must_use]
    pub fn is_compacted(&self) -> bool {
        self.cleanup_policy.iter().any(|policy| policy == "compact")
    }

    /// Whether what is acknowledged and shown to consumers must be on the device: exactly when every record is flushed.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.flush_messages == 1
    }

    /// Whether old segments are removed by age and size. Not with an empty cleanup.policy, which keeps everything.
    #[must_use]
    pub fn deletes_old_segments(&self) -> bool {
        self.cleanup_policy.iter().any(|policy| policy == "delete")
    }

    /// Whether records get the broker's time instead of the producer's.
    #[must_use]
    pub fn has_log_append_time(&self) -> bool {
        self.message_timestamp_type == "LogAppendTime"
    }
}

/// The definition of the topic option with this name.
#[must_use]
pub fn definition(name: &str) -> Option<&'static Definition> {
    TOPIC_DEFINITIONS.iter().find(|definition| definition.name == name)
}
