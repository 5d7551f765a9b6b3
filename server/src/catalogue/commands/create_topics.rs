//! CreateTopics, and the creation of a topic that somebody only asked for.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_engine::types::TopicId;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
};

use super::{
    NewId, PARTITIONS_PER_REQUEST_MAX, Plan, Refusal, check_assignment, check_partition_budget, new_partition, new_topic_id,
    outcome, place,
};
use crate::catalogue::names;
use crate::catalogue::records::{ConfigRecord, MetadataRecord, RESOURCE_TOPIC, TopicRecord};
use crate::catalogue::state::Catalogue;
use crate::config::{BrokerConfig, TopicConfig, describe_topic};

/// Plans the topics that can be created; the others are answered with what is wrong with them. A name that comes twice is answered
/// once. With `validate_only`, everything is checked and no record made.
#[must_use]
pub fn create_topics<'a>(
    catalogue: &Catalogue,
    broker: &BrokerConfig,
    request: &CreateTopicsRequest<'a>,
    new_id: NewId<'_>,
) -> Plan<CreatableTopicResult<'a>> {
    let mut plan = Plan { records: Vec::new(), answers: Vec::new() };
    let mut names_new = NamesNew::default();
    let mut partitions_left = PARTITIONS_PER_REQUEST_MAX;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *counts.entry(&topic.name).or_default() += 1;
    }
    for topic in &request.topics {
        let Some(count) = counts.remove(&*topic.name) else { continue };
        let design = if count > 1 {
            Err(Refusal::new(ErrorCode::INVALID_REQUEST, "Duplicate topic name."))
        } else {
            design(catalogue, broker, topic, &names_new).and_then(|design| {
                check_partition_budget(&mut partitions_left, design.replicas.len())?;
                Ok(design)
            })
        };
        let mut answer = CreatableTopicResult { name: topic.name.clone(), ..CreatableTopicResult::default() };
        match design {
            Ok(design) => {
                names_new.add(&topic.name);
                answer.num_partitions = i32::try_from(design.replicas.len()).unwrap_or(i32::MAX);
                answer.replication_factor = i16::try_from(design.replicas[0].len()).unwrap_or(i16::MAX);
                answer.configs = Some(effective_configs(broker, &design.config_overrides));
                if !request.validate_only {
                    let id = new_topic_id(catalogue, &names_new.ids, new_id);
                    names_new.ids.insert(id);
                    answer.topic_id = id.0;
                    plan.records.extend(design.into_records(&topic.name, id));
                }
            }
            Err(refusal) => (answer.error_code, answer.error_message) = outcome(Err(refusal)),
        }
        plan.answers.push(answer);
    }
    plan
}

/// Plans a topic that does not exist and that somebody asked for, with the broker's defaults. No records: it exists.
///
/// # Errors
/// Such topics are not to be created, or none with this name can be.
pub fn auto_create_topic(
    catalogue: &Catalogue,
    broker: &BrokerConfig,
    name: &str,
    new_id: NewId<'_>,
) -> Result<Vec<MetadataRecord>, Refusal> {
    if catalogue.topic(name).is_some() {
        return Ok(Vec::new());
    }
    if !broker.options.auto_create_topics_enable || names::is_internal(name) {
        return Err(Refusal::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, format!("Topic '{name}' does not exist.")));
    }
    let topic = CreatableTopic { name: name.into(), num_partitions: -1, replication_factor: -1, ..CreatableTopic::default() };
    let design = design(catalogue, broker, &topic, &NamesNew::default())?;
    check_partition_budget(&mut { PARTITIONS_PER_REQUEST_MAX }, design.replicas.len())?;
    let id = new_topic_id(catalogue, &BTreeSet::new(), new_id);
    Ok(design.into_records(name, id))
}

/// Plans the topic of the groups ([`names::CONSUMER_OFFSETS`]), as `offsets.topic.*` says. No records: it exists.
///
/// # Errors
/// It cannot be made as the configuration wants it.
pub fn create_offsets_topic(
    catalogue: &Catalogue,
    broker: &BrokerConfig,
    new_id: NewId<'_>,
) -> Result<Vec<MetadataRecord>, Refusal> {
    let name = names::CONSUMER_OFFSETS;
    if catalogue.topic(name).is_some() {
        return Ok(Vec::new());
    }
    let options = &broker.options;
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: options.offsets_topic_num_partitions,
        // There is one broker.
        replication_factor: i16::try_from(options.offsets_topic_replication_factor.min(1)).unwrap_or(1),
        ..CreatableTopic::default()
    };
    let mut design = design(catalogue, broker, &topic, &NamesNew::default())?;
    // What a group lost with an acknowledged commit would be read twice: always durable, whatever the defaults.
    for (option, value) in [
        ("cleanup.policy", "compact".to_owned()),
        ("compression.type", "producer".to_owned()),
        ("flush.messages", "1".to_owned()),
        ("segment.bytes", options.offsets_topic_segment_bytes.to_string()),
    ] {
        design.config_overrides.insert(option.to_owned(), value);
    }
    let id = new_topic_id(catalogue, &BTreeSet::new(), new_id);
    Ok(design.into_records(name, id))
}

/// The topics that the same request creates.
#[derive(Default)]
struct NamesNew {
    collision_keys: BTreeMap<String, String>,
    ids: BTreeSet<TopicId>,
}

impl NamesNew {
    fn add(&mut self, name: &str) {
        if let Some(key) = names::collision_key(name) {
            self.collision_keys.insert(key, name.to_owned());
        }
    }
}

/// A topic that can be created.
struct Design {
    /// The replicas of each partition; at least one.
    replicas: Vec<Vec<i32>>,
    config_overrides: BTreeMap<String, String>,
}

impl Design {
    fn into_records(self, name: &str, topic_id: TopicId) -> Vec<MetadataRecord> {
        let topic = MetadataRecord::Topic(TopicRecord { name: name.to_owned(), topic_id });
        let configs = self.config_overrides.into_iter().map(|(option, value)| {
            MetadataRecord::Config(ConfigRecord {
                resource_type: RESOURCE_TOPIC,
                resource_name: name.to_owned(),
                name: option,
                value: Some(value),
            })
        });
        let partitions = (0..).zip(self.replicas).map(|(index, replicas)| new_partition(topic_id, index, replicas));
        std::iter::once(topic).chain(configs).chain(partitions).collect()
    }
}

fn design(
    catalogue: &Catalogue,
    broker: &BrokerConfig,
    topic: &CreatableTopic<'_>,
    names_new: &NamesNew,
) -> Result<Design, Refusal> {
    check_name(catalogue, &topic.name, names_new)?;
    let replicas = if topic.assignments.is_empty() {
        placed(broker, topic)?
    } else {
        assigned(&topic.assignments, &[broker.node_id], topic)?
    };
    let mut config_overrides = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let message = format!("Null value not supported for topic configs: {}", config.name);
            return Err(Refusal::new(ErrorCode::INVALID_CONFIG, message));
        };
        config_overrides.insert(config.name.to_string(), value.to_string());
    }
    TopicConfig::resolve(broker, &config_overrides)
        .map_err(|error| Refusal::new(ErrorCode::INVALID_CONFIG, error.to_string()))?;
    Ok(Design { replicas, config_overrides })
}

fn check_name(catalogue: &Catalogue, name: &str, names_new: &NamesNew) -> Result<(), Refusal> {
    if name == names::CLUSTER_METADATA {
        return Err(Refusal::new(ErrorCode::TOPIC_AUTHORIZATION_FAILED, format!("{name} belongs to the brokers.")));
    }
    names::validate(name).map_err(|why| Refusal::new(ErrorCode::INVALID_TOPIC_EXCEPTION, why))?;
    if catalogue.topic(name).is_some() {
        return Err(Refusal::new(ErrorCode::TOPIC_ALREADY_EXISTS, format!("Topic '{name}' already exists.")));
    }
    let colliding = catalogue.colliding_name(name).map(|other| &**other);
    let colliding = colliding.or_else(|| names_new.collision_keys.get(&names::collision_key(name)?).map(String::as_str));
    match colliding {
        Some(other) => {
            let message = format!("Topic '{name}' collides with existing topic: {other}");
            Err(Refusal::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message))
        }
        None => Ok(()),
    }
}

/// The replicas of each partition as the client picked them.
fn assigned(
    assignments: &[CreatableReplicaAssignment],
    brokers: &[i32],
    topic: &CreatableTopic<'_>,
) -> Result<Vec<Vec<i32>>, Refusal> {
    for (value, what) in [(i32::from(topic.replication_factor), "replication factor"), (topic.num_partitions, "numPartitions")] {
        if value != -1 {
            let message = format!("A manual partition assignment was specified, but {what} was not set to -1.");
            return Err(Refusal::new(ErrorCode::INVALID_REQUEST, message));
        }
    }
    let refuse = |message: String| Refusal::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message);
    let mut by_partition: BTreeMap<i32, &[i32]> = BTreeMap::new();
    let mut replica_count = None;
    for CreatableReplicaAssignment { partition_index, broker_ids, .. } in assignments {
        if by_partition.insert(*partition_index, broker_ids).is_some() {
            return Err(refuse(format!("Found multiple manual partition assignments for partition {partition_index}")));
        }
        check_assignment(broker_ids, brokers, replica_count)?;
        replica_count = Some(broker_ids.len());
    }
    if !by_partition.keys().copied().eq(0..i32::try_from(assignments.len()).unwrap_or(i32::MAX)) {
        return Err(refuse("partitions should be a consecutive 0-based integer sequence".to_owned()));
    }
    Ok(by_partition.into_values().map(<[i32]>::to_vec).collect())
}

/// The replicas of each partition when the client leaves them to us.
fn placed(broker: &BrokerConfig, topic: &CreatableTopic<'_>) -> Result<Vec<Vec<i32>>, Refusal> {
    let replica_count = match i32::from(topic.replication_factor) {
        -1 => broker.options.default_replication_factor,
        count if count > 0 => count,
        _ => {
            let message = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(Refusal::new(ErrorCode::INVALID_REPLICATION_FACTOR, message));
        }
    };
    let partition_count = match topic.num_partitions {
        -1 => broker.options.num_partitions,
        count if count > 0 => count,
        _ => {
            let message = "Number of partitions was set to an invalid non-positive value.";
            return Err(Refusal::new(ErrorCode::INVALID_PARTITIONS, message));
        }
    };
    let (replica_count, partition_count) = (replica_count as usize, partition_count as usize);
    // Checked before anything is reserved: the number comes from the client.
    check_partition_budget(&mut { PARTITIONS_PER_REQUEST_MAX }, partition_count)?;
    (0..partition_count).map(|partition| place(&[broker.node_id], partition, replica_count)).collect()
}

fn effective_configs<'a>(broker: &BrokerConfig, overrides: &BTreeMap<String, String>) -> Vec<CreatableTopicConfigs<'a>> {
    let shown = describe_topic(broker, overrides, None).into_iter();
    let answer = shown.map(|entry| CreatableTopicConfigs {
        name: entry.name.into(),
        value: entry.value.map(Into::into),
        read_only: entry.is_read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.is_sensitive,
    });
    answer.collect()
}
