//! The topics as the data path sees them: an immutable snapshot, swapped as a whole when the catalogue changes. A topic is in it
//! from the moment that its partitions can be used until its deletion is carried out.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use ringlog_engine::core::Partition;
use ringlog_engine::log::config::{CompactionConfig, LogConfig, TimestampType};
use ringlog_engine::types::TopicId;

use crate::catalogue;
use crate::config::{BrokerConfig, ConfigError, TopicConfig};

/// A topic whose partitions are open.
pub struct Topic {
    /// Its id, for ever its own.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// Its options, resolved.
    pub config: Arc<TopicConfig>,
    /// What the catalogue has of it: replicas, epochs, and its own settings (`config_overrides`).
    pub info: Arc<catalogue::Topic>,
    /// Whether brokers use it for themselves: clients may not produce to it.
    pub is_internal: bool,
    /// Its partitions, by number.
    pub partitions: Vec<Arc<Partition>>,
}

impl Topic {
    /// A topic of the catalogue, with its partitions.
    ///
    /// # Panics
    /// When these are not as many as the catalogue says, or more.
    #[must_use]
    pub fn new(info: Arc<catalogue::Topic>, config: Arc<TopicConfig>, partitions: Vec<Arc<Partition>>) -> Self {
        assert!(partitions.len() <= info.partitions.len(), "no partition that the catalogue does not have");
        let (id, name, is_internal) = (info.id, info.name.clone(), info.is_internal());
        Self { id, name, config, info, is_internal, partitions }
    }

    /// The topic's own settings, without the broker's defaults.
    #[must_use]
    pub fn config_overrides(&self) -> &BTreeMap<String, String> {
        &self.info.config_overrides
    }

    /// The partition with that number.
    #[must_use]
    pub fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// All topics at one moment.
#[derive(Default)]
pub struct Topics {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<TopicId, Arc<Topic>>,
    partition_count: usize,
}

impl Topics {
    /// The snapshot with these topics.
    #[must_use]
    pub fn new(topics: impl IntoIterator<Item = Arc<Topic>>) -> Self {
        let by_name: BTreeMap<_, _> = topics.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
        let by_id = by_name.values().map(|topic| (topic.id, topic.clone())).collect();
        let partition_count = by_name.values().map(|topic| topic.partitions.len()).sum();
        Self { by_name, by_id, partition_count }
    }

    /// The topic with this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// The topic with this id.
    #[must_use]
    pub fn by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All topics, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// The topics from this name on, by name.
    pub fn iter_from(&self, name: &str) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.range::<str, _>((Bound::Included(name), Bound::Unbounded)).map(|(_, topic)| topic)
    }

    /// How many topics there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How many partitions all topics have.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }
}

/// The core that a partition lives on. Stable for a topic and a number of cores, and a topic's partitions go round; where that
/// changes, the next start moves them, since cores share the data directory.
#[must_use]
pub fn core_of(topic: TopicId, index: i32, cores: usize) -> usize {
    assert!(cores > 0, "there is a core");
    // FNV-1a: ids that Kafka made are random, but ids may come from anywhere.
    let hash =
        topic.0.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let index = u64::from(index.unsigned_abs());
    ((hash >> 16).wrapping_add(index) % cores as u64) as usize
}

/// The resolved options of a topic of the catalogue.
///
/// # Errors
/// The overrides are not valid: a version that knew other options wrote them.
pub fn resolve(config: &BrokerConfig, info: &catalogue::Topic) -> Result<Arc<TopicConfig>, ConfigError> {
    if info.config_overrides.is_empty() {
        return Ok(Arc::new(config.topic_defaults.clone()));
    }
    TopicConfig::resolve(config, &info.config_overrides).map(Arc::new)
}

/// What the log obeys of a topic's options.
#[must_use]
pub fn log_config(topic: &TopicConfig, producer_id_expiration_ms: i64) -> LogConfig {
    let bytes = |bytes: i32| u64::try_from(bytes).unwrap_or(0);
    LogConfig {
        segment_bytes: bytes(topic.segment_bytes),
        segment_ms: topic.segment_ms,
        segment_index_bytes: bytes(topic.segment_index_bytes),
        index_interval_bytes: bytes(topic.index_interval_bytes),
        retention_ms: if topic.deletes_old_segments() { topic.retention_ms } else { -1 },
        retention_bytes: if topic.deletes_old_segments() { topic.retention_bytes } else { -1 },
        flush_messages: topic.flush_messages,
        flush_ms: topic.flush_ms,
        timestamp_type: if topic.has_log_append_time() { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
        producer_id_expiration_ms,
        compaction: topic.is_compacted().then_some(CompactionConfig {
            min_cleanable_dirty_ratio: topic.min_cleanable_dirty_ratio,
            min_compaction_lag_ms: topic.min_compaction_lag_ms,
            max_compaction_lag_ms: topic.max_compaction_lag_ms,
            delete_retention_ms: topic.delete_retention_ms,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_go_round_the_cores_and_stay_where_they_are() {
        let topic = TopicId([9; 16]);
        let cores: Vec<_> = (0..8).map(|index| core_of(topic, index, 4)).collect();
        let first = cores[0];
        assert_eq!(cores, (0..8).map(|at| (first + at) % 4).collect::<Vec<_>>());
        assert_eq!(cores, (0..8).map(|index| core_of(topic, index, 4)).collect::<Vec<_>>());
        assert!((0..100).all(|index| core_of(topic, index, 1) == 0));
    }

    #[test]
    fn topics_with_one_partition_spread_over_the_cores() {
        let mut counts = [0; 4];
        for seed in 0..1000_u128 {
            counts[core_of(TopicId((seed * 0x9e37_79b9_7f4a_7c15).to_be_bytes()), 0, 4)] += 1;
        }
        assert!(counts.iter().all(|count| (150..350).contains(count)), "{counts:?}");
    }
}
