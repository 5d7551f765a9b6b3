//! What the broker's configuration says of groups.

use std::time::Duration;

use super::Assignor;
use crate::config::{BrokerConfig, GroupConfig};

/// See the module. Each field is the option of that name.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `group.min.session.timeout.ms`
    pub session_timeout_min: Duration,
    /// `group.max.session.timeout.ms`
    pub session_timeout_max: Duration,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay: Duration,
    /// `group.max.size`
    pub group_size_max: usize,
    /// `group.consumer.assignors`; the first is for members that name none.
    pub consumer_assignors: Vec<Assignor>,
    /// `group.consumer.*.ms`: what groups of the new protocol have that set nothing else.
    pub group_defaults: GroupConfig,
    /// `group.consumer.max.size`
    pub consumer_group_size_max: usize,
    /// `group.coordinator.rebalance.protocols`: whether the new protocol is served.
    pub serves_consumer_protocol: bool,
    /// `group.consumer.migration.policy`: whether a group may go from the classic protocol to the new one.
    pub allows_upgrade: bool,
    /// The same, the other way.
    pub allows_downgrade: bool,
    /// `offset.metadata.max.bytes`, which Kafka counts in Java's characters: units of UTF-16.
    pub offset_metadata_units_max: usize,
    /// `offsets.retention.minutes`
    pub offsets_retention_ms: i64,
    /// A core's share of `ringlog.group.memory.bytes`: what all its groups may take.
    pub memory_bytes_max: usize,
}

impl Settings {
    /// The settings of one of `cores` cores.
    #[must_use]
    pub fn new(broker: &BrokerConfig, cores: usize) -> Self {
        let options = &broker.options;
        let duration = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        let count = |count: i32| usize::try_from(count).unwrap_or(0);
        let policy = options.group_consumer_migration_policy.to_ascii_lowercase();
        let allows = |direction| policy == "bidirectional" || policy == direction;
        let memory_bytes = usize::try_from(options.ringlog_group_memory_bytes).unwrap_or(usize::MAX);
        Self {
            session_timeout_min: duration(options.group_min_session_timeout_ms),
            session_timeout_max: duration(options.group_max_session_timeout_ms),
            initial_rebalance_delay: duration(options.group_initial_rebalance_delay_ms),
            group_size_max: count(options.group_max_size),
            consumer_assignors: options.group_consumer_assignors.iter().filter_map(|name| Assignor::named(name.trim())).collect(),
            group_defaults: broker.group_defaults,
            consumer_group_size_max: count(options.group_consumer_max_size),
            serves_consumer_protocol: options.group_coordinator_rebalance_protocols.iter().any(|name| name == "consumer"),
            allows_upgrade: allows("upgrade"),
            allows_downgrade: allows("downgrade"),
            offset_metadata_units_max: count(options.offset_metadata_max_bytes),
            offsets_retention_ms: i64::from(options.offsets_retention_minutes) * 60_000,
            memory_bytes_max: memory_bytes / cores.max(1),
        }
    }
}
