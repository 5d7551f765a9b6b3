//! CreatePartitions: more partitions for topics that exist.

use std::collections::BTreeMap;

use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic, CreatePartitionsTopicResult};

use super::{PARTITIONS_PER_REQUEST_MAX, Plan, Refusal, check_assignment, check_partition_budget, new_partition, outcome, place};
use crate::catalogue::names;
use crate::catalogue::records::MetadataRecord;
use crate::catalogue::state::Catalogue;
use crate::config::BrokerConfig;

/// Plans the partitions that can be added; a topic's number of partitions can only grow. A name that comes twice is answered once.
/// With `validate_only`, everything is checked and no record made.
#[must_use]
pub fn create_partitions<'a>(
    catalogue: &Catalogue,
    broker: &BrokerConfig,
    request: &CreatePartitionsRequest<'a>,
) -> Plan<CreatePartitionsTopicResult<'a>> {
    let mut plan = Plan { records: Vec::new(), answers: Vec::new() };
    let mut partitions_left = PARTITIONS_PER_REQUEST_MAX;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *counts.entry(&topic.name).or_default() += 1;
    }
    for topic in &request.topics {
        let Some(count) = counts.remove(&*topic.name) else { continue };
        let records = if count > 1 {
            Err(Refusal::new(ErrorCode::INVALID_REQUEST, "Duplicate topic name."))
        } else {
            grow(catalogue, &[broker.node_id], topic, &mut partitions_left)
        };
        let (error_code, error_message) = outcome(records.map(|records| {
            if !request.validate_only {
                plan.records.extend(records);
            }
        }));
        plan.answers.push(CreatePartitionsTopicResult { name: topic.name.clone(), error_code, error_message });
    }
    plan
}

fn grow(
    catalogue: &Catalogue,
    brokers: &[i32],
    request: &CreatePartitionsTopic<'_>,
    partitions_left: &mut usize,
) -> Result<Vec<MetadataRecord>, Refusal> {
    let name = &*request.name;
    let Some(topic) = catalogue.topic(name) else {
        return Err(Refusal::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition."));
    };
    if name == names::CONSUMER_OFFSETS {
        // A group's partition follows from how many there are: it would not find what it has written.
        let message = format!("The number of partitions of {name} says where each group is kept, and does not change.");
        return Err(Refusal::new(ErrorCode::INVALID_REQUEST, message));
    }
    let count = topic.partitions.len();
    let wanted = usize::try_from(request.count).unwrap_or(0);
    if wanted <= count {
        let message = if wanted == count {
            format!("Topic already has {count} partition(s).")
        } else {
            format!("The topic {name} currently has {count} partition(s); {} would not be an increase.", request.count)
        };
        return Err(Refusal::new(ErrorCode::INVALID_PARTITIONS, message));
    }
    let additional = wanted - count;
    check_partition_budget(partitions_left, additional)?;
    // A topic always has a partition: one is created with it.
    let replica_count = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
    let Some(assignments) = &request.assignments else {
        let placed = (count..wanted).map(|index| Ok(new_partition(topic.id, index, place(brokers, index, replica_count)?)));
        return placed.collect();
    };
    if assignments.len() != additional {
        let message = format!(
            "Attempted to add {additional} additional partition(s), but only {} assignment(s) were specified.",
            assignments.len()
        );
        return Err(Refusal::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message));
    }
    let assigned = (count..).zip(assignments).map(|(index, assignment)| {
        check_assignment(&assignment.broker_ids, brokers, Some(replica_count))?;
        Ok(new_partition(topic.id, index, assignment.broker_ids.clone()))
    });
    assigned.collect()
}
