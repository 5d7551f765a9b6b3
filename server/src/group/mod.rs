//! The group coordinator: who is in a group, who has what, how far everybody has read. A pure state machine: a request or the
//! time goes in, records to append and answers come out; no I/O, no clock, no randomness of its own. [`crate::broker::groups`] runs
//! it; nothing else changes a group.
//!
//! A [`Shard`] has the groups of one partition of `__consumer_offsets`. Everything that has to survive is in the records, so a
//! shard is made anew by replaying the partition ([`Shard::replay`]). An answer may speak of what its records, or earlier ones,
//! say: whoever runs a shard lets an answer go when all records before it are committed, and when one is not, throws the shard
//! away and replays.
//!
//! - [`request`]: what goes in and what comes out.
//! - [`shard`]: the groups of a partition, timers, limits.
//! - [`classic`]: members and generations as JoinGroup, SyncGroup and Heartbeat make them.
//! - [`consumer`]: members and epochs as ConsumerGroupHeartbeat makes them (KIP-848).
//! - [`offsets`]: committed offsets.
//! - [`record`]: what is written.
//! - [`configs`]: what groups have set for themselves.
//! - [`small_map`]: what small groups keep their members and partitions in.

mod classic;
mod configs;
mod consumer;
mod offsets;
mod record;
pub mod request;
mod settings;
mod shard;
mod shard_consumer;
mod small_map;
mod timer;
mod topics;
mod usage;

pub use configs::GroupConfigs;
pub use consumer::Partitions;
pub use consumer::assignor::Assignor;
pub use record::RawRecord;
pub use request::{Answer, CallId, Request};
pub use settings::Settings;
pub use shard::{Output, Shard};
pub use small_map::SmallMap;
pub use topics::TopicView;
pub use usage::Usage;

use std::sync::Arc;
use std::time::Duration;

use ringlog_engine::types::TimestampMs;

/// A name that is kept and handed out: of a group, a member, a topic, a protocol.
pub type Name = Arc<str>;

/// After so much, in the measure of [`Output::work`], what else is to do waits for its next turn; what was begun is done.
const TURN_WORK_MAX: usize = 4_096;

/// The time of an input.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For timers.
    pub monotonic: Duration,
    /// For what is written.
    pub wall: TimestampMs,
}

/// The partition of `__consumer_offsets` that a group belongs to, of `count`: by Java's hash of the id, as Kafka has it.
///
/// # Panics
/// When there is no partition.
#[must_use]
pub fn partition_of(group: &str, count: i32) -> i32 {
    assert!(count > 0, "the topic has partitions");
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % count
}

#[cfg(test)]
mod tests;
