//! What clients may ask of the catalogue: each command checks a request against the state and the configuration, and returns the
//! records that it takes and the answer for every item. Called by the API handlers; nothing here changes the state.
//!
//! A command is planned on the state after all that was proposed before it: two plans on one state could contradict each other.
//! The records of one plan belong into one batch of the log. Until they are committed and applied, its answers are no truth.

mod configs;
mod create_partitions;
mod create_topics;
mod delete_topics;
mod producer_ids;

use std::borrow::Cow;
use std::collections::BTreeSet;

use ringlog_engine::types::{LeaderEpoch, TopicId};
use ringlog_protocol::ErrorCode;

pub use configs::{alter_configs, incremental_alter_configs};
pub use create_partitions::create_partitions;
pub use create_topics::{auto_create_topic, create_offsets_topic, create_topics};
pub use delete_topics::delete_topics;
pub use producer_ids::{PRODUCER_ID_BLOCK_COUNT, ProducerIdBlock, allocate_producer_ids};

use super::names;
use super::records::{MetadataRecord, PartitionRecord};
use super::state::Catalogue;

/// The most partitions that one request may create: its records are one batch. The limit is Kafka's. (A fuzzer would spend its time
/// on inputs that create many.)
pub const PARTITIONS_PER_REQUEST_MAX: usize = if cfg!(fuzzing) { 20 } else { 10_000 };

/// A source of random topic ids.
pub type NewId<'a> = &'a mut dyn FnMut() -> [u8; 16];

/// What a request comes to.
#[derive(Clone, Debug)]
pub struct Plan<A> {
    /// The records to append, as one batch; none: nothing changes.
    pub records: Vec<MetadataRecord>,
    /// An answer for each item of the request.
    pub answers: Vec<A>,
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// Kafka's code.
    pub code: ErrorCode,
    /// The reason, for people.
    pub message: String,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The two fields by which answers say how it went.
fn outcome(result: Result<(), Refusal>) -> (ErrorCode, Option<Cow<'static, str>>) {
    match result {
        Ok(()) => (ErrorCode::NONE, None),
        Err(refusal) => (refusal.code, Some(refusal.message.into())),
    }
}

/// An id that no topic has or had. `fresh` are those of topics that the same request creates.
fn new_topic_id(catalogue: &Catalogue, fresh: &BTreeSet<TopicId>, new_id: NewId<'_>) -> TopicId {
    // One id in 64 is not usable: a source that yields a thousand of them in a row is not random.
    for _ in 0..1000 {
        let id = TopicId(new_id());
        let is_taken = catalogue.topic_by_id(id).is_some() || catalogue.is_deleted(id) || fresh.contains(&id);
        if names::is_usable_id(id) && !is_taken {
            return id;
        }
    }
    panic!("the source of topic ids yields none that can be used");
}

/// A partition as it begins: all its replicas in sync, the first one the leader.
fn new_partition(topic_id: TopicId, partition: usize, replicas: Vec<i32>) -> MetadataRecord {
    let Ok(partition) = i32::try_from(partition) else { panic!("partition number {partition}") };
    MetadataRecord::Partition(PartitionRecord {
        partition,
        topic_id,
        isr: replicas.clone(),
        leader: replicas.first().copied().unwrap_or(-1),
        replicas,
        removing_replicas: Vec::new(),
        adding_replicas: Vec::new(),
        is_leader_recovering: false,
        leader_epoch: LeaderEpoch(0),
        partition_epoch: 0,
    })
}

/// Checks the brokers that a client picked for one partition. `replica_count` is what the topic's other partitions have.
fn check_assignment(replicas: &[i32], brokers: &[i32], replica_count: Option<usize>) -> Result<(), Refusal> {
    let refuse = |what: String| {
        Err(Refusal::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, format!("The manual partition assignment includes {what}")))
    };
    if replicas.is_empty() {
        return refuse("an empty replica list.".to_owned());
    }
    for (at, id) in replicas.iter().enumerate() {
        if !brokers.contains(id) {
            return refuse(format!("broker {id}, but no such broker is registered."));
        }
        if replicas[..at].contains(id) {
            return refuse(format!("the broker {id} more than once."));
        }
    }
    match replica_count {
        Some(count) if count != replicas.len() => refuse(format!(
            "a partition with {} replica(s), but this is not consistent with previous partitions, which have {count} replica(s).",
            replicas.len()
        )),
        _ => Ok(()),
    }
}

/// The brokers that hold a new partition when the client leaves it to us.
fn place(brokers: &[i32], partition: usize, replica_count: usize) -> Result<Vec<i32>, Refusal> {
    if replica_count == 0 || replica_count > brokers.len() {
        return Err(Refusal::new(
            ErrorCode::INVALID_REPLICATION_FACTOR,
            format!(
                "Unable to replicate the partition {replica_count} time(s): The target replication factor of {replica_count} cannot be \
                 reached because only {} broker(s) are registered.",
                brokers.len()
            ),
        ));
    }
    Ok((0..replica_count).map(|replica| brokers[(partition + replica) % brokers.len()]).collect())
}

fn check_partition_budget(budget: &mut usize, count: usize) -> Result<(), Refusal> {
    *budget = budget.checked_sub(count).ok_or_else(|| {
        let message = format!("Excessively large number of partitions per request: at most {PARTITIONS_PER_REQUEST_MAX}.");
        Refusal::new(ErrorCode::POLICY_VIOLATION, message)
    })?;
    Ok(())
}
