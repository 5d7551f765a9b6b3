//! The configuration as DescribeConfigs and CreateTopics answers show it (KIP-133, KIP-226, KIP-569): every option with its
//! effective value, where that comes from, and what else it could come from. Called by the handlers of those APIs.

use std::collections::BTreeMap;

use super::broker::{BROKER_DEFINITIONS, BrokerConfig};
use super::definition::{Definition, ValueType};
use super::group::GROUP_DEFINITIONS;
use super::topic::TOPIC_DEFINITIONS;

/// Where a value comes from, with its number on the wire. Kafka has more; these are the ones that exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigSource {
    /// An override of the topic.
    DynamicTopicConfig = 1,
    /// The broker's file or command line.
    StaticBrokerConfig = 4,
    /// Nobody set it.
    DefaultConfig = 5,
    /// An override of the group.
    DynamicGroupConfig = 8,
}

impl ConfigSource {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> i8 {
        self as i8
    }
}

/// One option as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigEntry {
    /// The option.
    pub name: &'static str,
    /// The effective value; `None`: it has none.
    pub value: Option<String>,
    /// Whether it can only be changed by a restart.
    pub is_read_only: bool,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether the value is kept from clients. No option holds a secret yet.
    pub is_sensitive: bool,
    /// Everything that says a value, the one that counts first.
    pub synonyms: Vec<ConfigSynonym>,
    /// The type of the values.
    pub value_type: ValueType,
    /// What the option does.
    pub documentation: &'static str,
}

/// One place that says a value for an option.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigSynonym {
    /// The option's name at that place.
    pub name: &'static str,
    /// The value there, in that option's unit.
    pub value: String,
    /// The place.
    pub source: ConfigSource,
}

/// All options of a topic with these overrides, or those of the given names.
#[must_use]
pub fn describe_topic(broker: &BrokerConfig, overrides: &BTreeMap<String, String>, names: Option<&[&str]>) -> Vec<ConfigEntry> {
    describe_overridable(TOPIC_DEFINITIONS, ConfigSource::DynamicTopicConfig, broker, overrides, names)
}

/// All options of a group with these overrides, or those of the given names. Overrides are shown as they were set.
#[must_use]
pub fn describe_group(broker: &BrokerConfig, overrides: &BTreeMap<String, String>, names: Option<&[&str]>) -> Vec<ConfigEntry> {
    describe_overridable(GROUP_DEFINITIONS, ConfigSource::DynamicGroupConfig, broker, overrides, names)
}

fn describe_overridable(
    definitions: &'static [Definition],
    source: ConfigSource,
    broker: &BrokerConfig,
    overrides: &BTreeMap<String, String>,
    names: Option<&[&str]>,
) -> Vec<ConfigEntry> {
    let describe = |definition: &'static Definition| {
        let own = overrides.get(definition.name).map(|text| text.trim().to_owned());
        let own_synonym = own.iter().map(|value| ConfigSynonym { name: definition.name, value: value.clone(), source });
        let synonyms =
            own_synonym.chain(broker_synonyms(broker, definition.synonyms.iter().map(|synonym| synonym.name))).collect();
        let value = own.or_else(|| broker.inherited(definition).map(ToString::to_string));
        entry(definition, value, synonyms, false)
    };
    selected(definitions, names).map(describe).collect()
}

/// All options of the broker, or those of the given names.
#[must_use]
pub fn describe_broker(broker: &BrokerConfig, names: Option<&[&str]>) -> Vec<ConfigEntry> {
    let describe = |definition: &'static Definition| {
        let own_and_others = std::iter::once(definition.name).chain(definition.synonyms.iter().map(|synonym| synonym.name));
        let synonyms = broker_synonyms(broker, own_and_others);
        entry(definition, broker.value(definition.name).map(ToString::to_string), synonyms, true)
    };
    selected(BROKER_DEFINITIONS, names).map(describe).collect()
}

fn selected<'a>(
    definitions: &'static [Definition],
    names: Option<&'a [&'a str]>,
) -> impl Iterator<Item = &'static Definition> + use<'a> {
    definitions.iter().filter(move |definition| names.is_none_or(|names| names.contains(&definition.name)))
}

fn entry(
    definition: &'static Definition,
    value: Option<String>,
    synonyms: Vec<ConfigSynonym>,
    is_read_only: bool,
) -> ConfigEntry {
    ConfigEntry {
        name: definition.name,
        value,
        is_read_only,
        source: synonyms.first().map_or(ConfigSource::DefaultConfig, |synonym| synonym.source),
        is_sensitive: false,
        synonyms,
        value_type: definition.value_type,
        documentation: definition.doc.trim_start(),
    }
}

/// What the broker says under these names: first what was given, then the defaults.
fn broker_synonyms(broker: &BrokerConfig, names: impl Iterator<Item = &'static str> + Clone) -> Vec<ConfigSynonym> {
    let given = names.clone().filter_map(|name| {
        Some(ConfigSynonym { name, value: broker.given(name)?.to_owned(), source: ConfigSource::StaticBrokerConfig })
    });
    let default = names.filter_map(|name| {
        let value = super::broker::definition(name)?.default_value()?.to_string();
        Some(ConfigSynonym { name, value, source: ConfigSource::DefaultConfig })
    });
    given.chain(default).collect()
}
