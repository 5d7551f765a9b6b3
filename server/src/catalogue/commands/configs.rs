//! AlterConfigs, which replaces all settings of a resource, and IncrementalAlterConfigs (KIP-339), which changes some.
//! Topics can be configured; the broker's own settings come from its file and change with a restart.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::{alter_configs as legacy, incremental_alter_configs as incremental};

use super::{Plan, Refusal, outcome};
use crate::catalogue::records::{ConfigRecord, MetadataRecord, RESOURCE_BROKER, RESOURCE_TOPIC};
use crate::catalogue::state::{Catalogue, Topic};
use crate::config::definition::{ValueType, split_list};
use crate::config::{BrokerConfig, TopicConfig, describe_topic, topic};

/// The longest value, in bytes: what a string of the log can hold.
const VALUE_BYTES_MAX: usize = 32767;

/// What IncrementalAlterConfigs does to a setting, by its number on the wire.
mod operation {
    pub(super) const SET: i8 = 0;
    pub(super) const DELETE: i8 = 1;
    pub(super) const APPEND: i8 = 2;
    pub(super) const SUBTRACT: i8 = 3;
}

/// Plans new settings that replace all those of each resource. With `validate_only`, everything is checked and no record made.
#[must_use]
pub fn alter_configs<'a>(
    catalogue: &Catalogue,
    broker: &BrokerConfig,
    request: &legacy::AlterConfigsRequest<'a>,
) -> Plan<legacy::AlterConfigsResourceResponse<'a>> {
    let resources = request.resources.iter().map(|resource| (resource.resource_type, &resource.resource_name));
    let repeated = repeated(resources);
    let mut plan = Plan { records: Vec::new(), answers: Vec::new() };
    for resource in &request.resources {
        let key = (resource.resource_type, &resource.resource_name);
        let names = resource.configs.iter().map(|config| &*config.name);
        let records = check_resource(catalogue, broker, key, &repeated, names).and_then(|topic| {
            let mut overrides = BTreeMap::new();
            for config in &resource.configs {
                let Some(value) = &config.value else { return Err(null_value(&config.name)) };
                overrides.insert(config.name.to_string(), value.to_string());
            }
            change(broker, topic, overrides)
        });
        let (error_code, error_message) = add(&mut plan.records, records, request.validate_only);
        plan.answers.push(legacy::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
        });
    }
    plan
}

/// Plans changes of single settings; those of one resource are made together or not at all. With `validate_only`, everything is
/// checked and no record made.
#[must_use]
pub fn incremental_alter_configs<'a>(
    catalogue: &Catalogue,
    broker: &BrokerConfig,
    request: &incremental::IncrementalAlterConfigsRequest<'a>,
) -> Plan<incremental::AlterConfigsResourceResponse<'a>> {
    let resources = request.resources.iter().map(|resource| (resource.resource_type, &resource.resource_name));
    let repeated = repeated(resources);
    let mut plan = Plan { records: Vec::new(), answers: Vec::new() };
    for resource in &request.resources {
        let key = (resource.resource_type, &resource.resource_name);
        let names = resource.configs.iter().map(|config| &*config.name);
        let records = check_resource(catalogue, broker, key, &repeated, names).and_then(|topic| {
            let mut overrides = topic.config_overrides.clone();
            for config in &resource.configs {
                match new_value(broker, topic, config)? {
                    Some(value) => overrides.insert(config.name.to_string(), value),
                    None => overrides.remove(&*config.name),
                };
            }
            change(broker, topic, overrides)
        });
        let (error_code, error_message) = add(&mut plan.records, records, request.validate_only);
        plan.answers.push(incremental::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
        });
    }
    plan
}

fn add(
    records: &mut Vec<MetadataRecord>,
    new: Result<Vec<MetadataRecord>, Refusal>,
    validate_only: bool,
) -> (ErrorCode, Option<Cow<'static, str>>) {
    outcome(new.map(|new| {
        if !validate_only {
            records.extend(new);
        }
    }))
}

type Resource<'r> = (i8, &'r Cow<'r, str>);

/// The resources that come more than once.
fn repeated<'r>(resources: impl Iterator<Item = (i8, &'r Cow<'r, str>)>) -> BTreeSet<(i8, &'r str)> {
    let mut seen = BTreeSet::new();
    resources.map(|(resource_type, name)| (resource_type, &**name)).filter(|resource| !seen.insert(*resource)).collect()
}

/// The topic that a resource is, if it can be changed at all.
fn check_resource<'c, 'r>(
    catalogue: &'c Catalogue,
    broker: &BrokerConfig,
    (resource_type, name): Resource<'_>,
    repeated: &BTreeSet<(i8, &str)>,
    mut option_names: impl Iterator<Item = &'r str>,
) -> Result<&'c Topic, Refusal> {
    let invalid = |message: String| Err(Refusal::new(ErrorCode::INVALID_REQUEST, message));
    if repeated.contains(&(resource_type, &**name)) {
        return invalid("Each resource must appear at most once.".to_owned());
    }
    let mut seen = BTreeSet::new();
    if let Some(option) = option_names.find(|option| !seen.insert(*option)) {
        return invalid(format!("Error due to duplicate config keys: {option}"));
    }
    match resource_type {
        RESOURCE_TOPIC => catalogue
            .topic(name)
            .map(|topic| &**topic)
            .ok_or_else(|| Refusal::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, format!("The topic '{name}' does not exist."))),
        RESOURCE_BROKER if name.is_empty() || name.parse() == Ok(broker.node_id) => invalid(
            "Cannot update these configs dynamically: the broker's settings come from its file and change with a restart."
                .to_owned(),
        ),
        RESOURCE_BROKER => invalid(format!("Unexpected broker id, expected {}, but received {name}", broker.node_id)),
        other => invalid(format!("Resources of type {other} cannot be configured; accepted: topics ({RESOURCE_TOPIC})")),
    }
}

fn null_value(name: &str) -> Refusal {
    Refusal::new(ErrorCode::INVALID_REQUEST, format!("Null value not supported for : {name}"))
}

/// The value of a setting after a change; `None`: it is taken back.
fn new_value(broker: &BrokerConfig, topic: &Topic, config: &incremental::AlterableConfig<'_>) -> Result<Option<String>, Refusal> {
    let name = &*config.name;
    if config.config_operation == operation::DELETE {
        return Ok(None);
    }
    let Some(value) = config.value.as_deref() else { return Err(null_value(name)) };
    match config.config_operation {
        operation::SET => Ok(Some(value.to_owned())),
        operation::APPEND | operation::SUBTRACT => {
            if !topic::definition(name).is_some_and(|definition| definition.value_type == ValueType::List) {
                let message = format!("Can't append to or subtract from key {name} because its type is not LIST.");
                return Err(Refusal::new(ErrorCode::INVALID_CONFIG, message));
            }
            // What is appended to is the effective value, not only what the topic itself has set.
            let now = describe_topic(broker, &topic.config_overrides, Some(&[name])).into_iter().find_map(|entry| entry.value);
            let mut entries = split_list(&now.unwrap_or_default());
            let given = split_list(value);
            if config.config_operation == operation::SUBTRACT {
                entries.retain(|entry| !given.contains(entry));
            } else {
                let new: Vec<String> = given.into_iter().filter(|entry| !entries.contains(entry)).collect();
                entries.extend(new);
            }
            Ok(Some(entries.join(",")))
        }
        other => {
            let message = format!("Unknown incremental alter configs operation {other} for key {name}; accepted: 0 to 3.");
            Err(Refusal::new(ErrorCode::INVALID_REQUEST, message))
        }
    }
}

/// The records that take a topic from its settings to these, if they are valid as a whole.
fn change(broker: &BrokerConfig, topic: &Topic, overrides: BTreeMap<String, String>) -> Result<Vec<MetadataRecord>, Refusal> {
    if let Some((name, _)) = overrides.iter().find(|(_, value)| value.len() > VALUE_BYTES_MAX) {
        let message = format!("The value of {name} exceeds the maximum size of {VALUE_BYTES_MAX} bytes.");
        return Err(Refusal::new(ErrorCode::INVALID_CONFIG, message));
    }
    TopicConfig::resolve(broker, &overrides).map_err(|error| Refusal::new(ErrorCode::INVALID_CONFIG, error.to_string()))?;
    let record = |name: &str, value: Option<String>| {
        MetadataRecord::Config(ConfigRecord {
            resource_type: RESOURCE_TOPIC,
            resource_name: topic.name.to_string(),
            name: name.to_owned(),
            value,
        })
    };
    let old = &topic.config_overrides;
    let taken_back = old.keys().filter(|name| !overrides.contains_key(*name)).map(|name| record(name, None));
    let set = overrides
        .iter()
        .filter(|(name, value)| old.get(*name) != Some(value))
        .map(|(name, value)| record(name, Some(value.clone())));
    Ok(taken_back.chain(set).collect())
}
