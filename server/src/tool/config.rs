//! `ringlog config`: settings of topics, groups and brokers, shown and changed.

use std::net::SocketAddr;

use ringlog_protocol::ApiKey;
use ringlog_protocol::api::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse};
use ringlog_protocol::api::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use serde::Serialize;

use super::args::{Changes, ConfigCommand, ResourceArgs};
use super::client::{Client, ClientError};
use super::{ToolError, output};

/// Resource types and operations on the wire.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;
const SET: i8 = 0;
const DELETE: i8 = 1;

/// Whose settings.
#[derive(Clone, Debug)]
pub(super) enum Resource {
    /// A topic's.
    Topic(String),
    /// A group's.
    Group(String),
    /// A broker's.
    Broker(i32),
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Setting {
    /// Its name.
    pub name: String,
    /// Its value; none where it has none or is a secret.
    pub value: Option<String>,
    /// Where the value comes from, in Kafka's words.
    pub source: &'static str,
    /// Whether clients cannot change it.
    pub read_only: bool,
}

impl Setting {
    /// Whether somebody has set it for this topic, group or broker.
    pub(super) fn is_own(&self) -> bool {
        self.source != DEFAULT_CONFIG && self.source != STATIC_BROKER_CONFIG
    }
}

const DEFAULT_CONFIG: &str = "DEFAULT_CONFIG";
const STATIC_BROKER_CONFIG: &str = "STATIC_BROKER_CONFIG";

/// The sources of values, by their number on the wire.
fn source(number: i8) -> &'static str {
    match number {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => STATIC_BROKER_CONFIG,
        5 => DEFAULT_CONFIG,
        6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
        7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
        8 => "DYNAMIC_GROUP_CONFIG",
        _ => "UNKNOWN",
    }
}

pub(super) fn run(command: ConfigCommand) -> Result<(), ToolError> {
    match command {
        ConfigCommand::Show { resource, all, target } => {
            let resource = Resource::from(resource);
            let settings = show(&mut target.client()?, &resource)?;
            let is_shown = |setting: &Setting| match resource {
                Resource::Topic(_) | Resource::Group(_) => all || setting.is_own(),
                Resource::Broker(_) => all || setting.source != DEFAULT_CONFIG,
            };
            let settings: Vec<_> = settings.into_iter().filter(is_shown).collect();
            if settings.is_empty() && !target.json {
                return output::print("Everything has its default; --all shows it.");
            }
            output::list(target.json, &settings, &["NAME", "VALUE", "SOURCE"], |setting| {
                vec![setting.name.clone(), setting.value.clone().unwrap_or_else(|| "-".into()), setting.source.into()]
            })
        }
        ConfigCommand::Alter { resource, changes, target } => {
            if changes.is_empty() {
                return Err(ToolError::Usage("nothing to change; give --set NAME=VALUE or --unset NAME".to_owned()));
            }
            alter(&mut target.client()?, &Resource::from(resource), &changes)?;
            Ok(())
        }
    }
}

impl From<ResourceArgs> for Resource {
    fn from(args: ResourceArgs) -> Self {
        match (args.broker, args.group) {
            (Some(id), _) => Self::Broker(id),
            (None, Some(name)) => Self::Group(name),
            (None, None) => Self::Topic(args.topic.unwrap_or_default()),
        }
    }
}

impl Changes {
    /// Whether nothing is to be changed.
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.unset.is_empty()
    }
}

impl Resource {
    fn on_the_wire(&self) -> (i8, String) {
        match self {
            Self::Topic(name) => (TOPIC, name.clone()),
            Self::Group(name) => (GROUP, name.clone()),
            Self::Broker(id) => (BROKER, id.to_string()),
        }
    }

    /// Who is asked: the broker itself about its settings, the controller about all else.
    fn address(&self, client: &mut Client) -> Result<SocketAddr, ClientError> {
        let cluster = client.cluster(Some(&[]))?;
        match self {
            Self::Topic(_) | Self::Group(_) => cluster.controller(),
            Self::Broker(id) => cluster.address(*id),
        }
    }
}

/// All settings, by name.
pub(super) fn show(client: &mut Client, resource: &Resource) -> Result<Vec<Setting>, ClientError> {
    let address = resource.address(client)?;
    let (resource_type, name) = resource.on_the_wire();
    let asked = DescribeConfigsResource { resource_type, resource_name: name.as_str().into(), configuration_keys: None };
    let answer = client.ask(address, &DescribeConfigsRequest { resources: vec![asked], ..Default::default() })?;
    let response: DescribeConfigsResponse<'_> = answer.decode()?;
    let mut settings = Vec::new();
    for result in response.results {
        if !result.error_code.is_none() {
            let message = result.error_message.as_deref();
            return Err(ClientError::refused(ApiKey::DescribeConfigs, format!("of {name}"), result.error_code, message));
        }
        settings.extend(result.configs.into_iter().map(|config| Setting {
            name: config.name.into_owned(),
            value: config.value.filter(|_| !config.is_sensitive).map(std::borrow::Cow::into_owned),
            source: source(config.config_source),
            read_only: config.read_only,
        }));
    }
    settings.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(settings)
}

/// Changes settings, all of them or none.
pub(super) fn alter(client: &mut Client, resource: &Resource, changes: &Changes) -> Result<(), ClientError> {
    let address = resource.address(client)?;
    let (resource_type, resource_name) = resource.on_the_wire();
    let set = changes.set.iter().map(|(name, value)| AlterableConfig {
        name: name.into(),
        config_operation: SET,
        value: Some(value.into()),
    });
    let unset = changes.unset.iter().map(|name| AlterableConfig { name: name.into(), config_operation: DELETE, value: None });
    let resource =
        AlterConfigsResource { resource_type, resource_name: resource_name.into(), configs: set.chain(unset).collect() };
    let answer = client.ask(address, &IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false })?;
    let response: IncrementalAlterConfigsResponse<'_> = answer.decode()?;
    for result in response.responses {
        if !result.error_code.is_none() {
            let of = format!("of {}", result.resource_name);
            let message = result.error_message.as_deref();
            return Err(ClientError::refused(ApiKey::IncrementalAlterConfigs, of, result.error_code, message));
        }
    }
    Ok(())
}
