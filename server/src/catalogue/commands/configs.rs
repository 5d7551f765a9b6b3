//! AlterConfigs, which replaces all settings of a resource, and IncrementalAlterConfigs (KIP-339), which changes some.
//! Topics and groups can be configured; the broker's own settings come from its file and change with a restart.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::{alter_configs as legacy, incremental_alter_configs as incremental};

use super::{Plan, Refusal, outcome};
use crate::catalogue::records::{ConfigRecord, MetadataRecord, RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC};
use crate::catalogue::state::{Catalogue, Topic};
use crate::config::definition::{Definition, ValueType, split_list};
use crate::config::{
    BrokerConfig, ConfigEntry, ConfigError, GroupConfig, TopicConfig, describe_group, describe_topic, group, topic,
};

/// The longest value, and the longest name of a group, in bytes: what a string of the log can hold.
const STRING_BYTES_MAX: usize = 32767;
/// How many groups may have settings: they outlive the group, and all of them are copied when one changes.
const CONFIGURED_GROUPS_MAX: usize = 10_000;

type Overrides = BTreeMap<String, String>;

/// What can be configured.
enum Target<'c> {
    Topic(&'c Topic),
    /// By its name, with its settings, if it has some.
    Group(&'c str, Option<&'c Overrides>),
}

impl Target<'_> {
    fn overrides(&self) -> Cow<'_, Overrides> {
        match self {
            Self::Topic(topic) => Cow::Borrowed(&topic.config_overrides),
            Self::Group(_, overrides) => overrides.map_or_else(Cow::default, Cow::Borrowed),
        }
    }

    fn definition(&self, option: &str) -> Option<&'static Definition> {
        match self {
            Self::Topic(_) => topic::definition(option),
            Self::Group(..) => group::definition(option),
        }
    }

    fn describe(&self, broker: &BrokerConfig, options: &[&str]) -> Vec<ConfigEntry> {
        match self {
            Self::Topic(topic) => describe_topic(broker, &topic.config_overrides, Some(options)),
            Self::Group(..) => describe_group(broker, &self.overrides(), Some(options)),
        }
    }

    fn check(&self, broker: &BrokerConfig, overrides: &Overrides) -> Result<(), ConfigError> {
        match self {
            Self::Topic(_) => TopicConfig::resolve(broker, overrides).map(|_| ()),
            Self::Group(..) => GroupConfig::resolve(broker, overrides).map(|_| ()),
        }
    }

    fn record(&self, name: &str, value: Option<String>) -> MetadataRecord {
        let (resource_type, resource_name) = match self {
            Self::Topic(topic) => (RESOURCE_TOPIC, topic.name.to_string()),
            Self::Group(group, _) => (RESOURCE_GROUP, (*group).to_owned()),
        };
        MetadataRecord::Config(ConfigRecord { resource_type, resource_name, name: name.to_owned(), value })
    }
}

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
        let key = (resource.resource_type, &*resource.resource_name);
        let names = resource.configs.iter().map(|config| &*config.name);
        let records = check_resource(catalogue, broker, key, &repeated, names, plan.records.len()).and_then(|target| {
            let mut overrides = BTreeMap::new();
            for config in &resource.configs {
                let Some(value) = &config.value else { return Err(null_value(&config.name)) };
                overrides.insert(config.name.to_string(), value.to_string());
            }
            change(broker, &target, overrides)
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
        let key = (resource.resource_type, &*resource.resource_name);
        let names = resource.configs.iter().map(|config| &*config.name);
        let records = check_resource(catalogue, broker, key, &repeated, names, plan.records.len()).and_then(|target| {
            let mut overrides = target.overrides().into_owned();
            for config in &resource.configs {
                match new_value(broker, &target, config)? {
                    Some(value) => overrides.insert(config.name.to_string(), value),
                    None => overrides.remove(&*config.name),
                };
            }
            change(broker, &target, overrides)
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

type Resource<'r> = (i8, &'r str);

/// The resources that come more than once.
fn repeated<'r>(resources: impl Iterator<Item = (i8, &'r Cow<'r, str>)>) -> BTreeSet<(i8, &'r str)> {
    let mut seen = BTreeSet::new();
    resources.map(|(resource_type, name)| (resource_type, &**name)).filter(|resource| !seen.insert(*resource)).collect()
}

/// What a resource is, if it can be changed at all; so many changes are `planned` already.
fn check_resource<'c, 'r>(
    catalogue: &'c Catalogue,
    broker: &BrokerConfig,
    (resource_type, name): Resource<'c>,
    repeated: &BTreeSet<(i8, &str)>,
    mut option_names: impl Iterator<Item = &'r str>,
    planned: usize,
) -> Result<Target<'c>, Refusal> {
    let invalid = |message: String| Err(Refusal::new(ErrorCode::INVALID_REQUEST, message));
    if repeated.contains(&(resource_type, name)) {
        return invalid("Each resource must appear at most once.".to_owned());
    }
    let mut seen = BTreeSet::new();
    if let Some(option) = option_names.find(|option| !seen.insert(*option)) {
        return invalid(format!("Error due to duplicate config keys: {option}"));
    }
    match resource_type {
        RESOURCE_TOPIC => catalogue
            .topic(name)
            .map(|topic| Target::Topic(topic))
            .ok_or_else(|| Refusal::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, format!("The topic '{name}' does not exist."))),
        RESOURCE_BROKER if name.is_empty() || name.parse() == Ok(broker.node_id) => invalid(
            "Cannot update these configs dynamically: the broker's settings come from its file and change with a restart."
                .to_owned(),
        ),
        RESOURCE_BROKER => invalid(format!("Unexpected broker id, expected {}, but received {name}", broker.node_id)),
        RESOURCE_GROUP if name.is_empty() => invalid("Default group resources are not allowed.".to_owned()),
        RESOURCE_GROUP if name.len() > STRING_BYTES_MAX => {
            invalid(format!("The name of a group has at most {STRING_BYTES_MAX} bytes."))
        }
        RESOURCE_GROUP
            if !catalogue.group_overrides().contains_key(name)
                && catalogue.group_overrides().len() + planned >= CONFIGURED_GROUPS_MAX =>
        {
            invalid(format!(
                "{CONFIGURED_GROUPS_MAX} groups have settings, and no more can have some; take back what is not needed."
            ))
        }
        RESOURCE_GROUP => Ok(Target::Group(name, catalogue.group_overrides().get(name).map(|overrides| &**overrides))),
        other => invalid(format!(
            "Resources of type {other} cannot be configured; accepted: topics ({RESOURCE_TOPIC}), groups ({RESOURCE_GROUP})"
        )),
    }
}

fn null_value(name: &str) -> Refusal {
    Refusal::new(ErrorCode::INVALID_REQUEST, format!("Null value not supported for : {name}"))
}

/// The value of a setting after a change; `None`: it is taken back.
fn new_value(
    broker: &BrokerConfig,
    target: &Target<'_>,
    config: &incremental::AlterableConfig<'_>,
) -> Result<Option<String>, Refusal> {
    let name = &*config.name;
    if config.config_operation == operation::DELETE {
        return Ok(None);
    }
    let Some(value) = config.value.as_deref() else { return Err(null_value(name)) };
    match config.config_operation {
        operation::SET => Ok(Some(value.to_owned())),
        operation::APPEND | operation::SUBTRACT => {
            if !target.definition(name).is_some_and(|definition| definition.value_type == ValueType::List) {
                let message = format!("Can't append to or subtract from key {name} because its type is not LIST.");
                return Err(Refusal::new(ErrorCode::INVALID_CONFIG, message));
            }
            // What is appended to is the effective value, not only what the topic or group itself has set.
            let now = target.describe(broker, &[name]).into_iter().find_map(|entry| entry.value);
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

/// The records that take a topic or group from its settings to these, if they are valid as a whole.
fn change(broker: &BrokerConfig, target: &Target<'_>, overrides: Overrides) -> Result<Vec<MetadataRecord>, Refusal> {
    if let Some((name, _)) = overrides.iter().find(|(_, value)| value.len() > STRING_BYTES_MAX) {
        let message = format!("The value of {name} exceeds the maximum size of {STRING_BYTES_MAX} bytes.");
        return Err(Refusal::new(ErrorCode::INVALID_CONFIG, message));
    }
    target.check(broker, &overrides).map_err(|error| Refusal::new(ErrorCode::INVALID_CONFIG, error.to_string()))?;
    let old = target.overrides();
    let taken_back = old.keys().filter(|name| !overrides.contains_key(*name)).map(|name| target.record(name, None));
    let set = overrides
        .iter()
        .filter(|(name, value)| old.get(*name) != Some(value))
        .map(|(name, value)| target.record(name, Some(value.clone())));
    Ok(taken_back.chain(set).collect())
}
