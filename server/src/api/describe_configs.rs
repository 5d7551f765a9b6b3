//! DescribeConfigs: the options of topics, groups and this broker, with their effective values and where these come from (KIP-133,
//! KIP-226, KIP-569).

use std::borrow::Cow;
use std::collections::BTreeMap;

use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};

use super::{Api, decode, reply};
use crate::broker::Topics;
use crate::catalogue::names;
use crate::catalogue::records::{RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC};
use crate::config::{BrokerConfig, ConfigEntry, describe_broker, describe_group, describe_topic};
use crate::group::GroupConfigs;
use crate::net::{Outcome, RequestContext};

pub(super) fn handle(api: &Api, context: &RequestContext, body: &[u8]) -> Outcome {
    let request: DescribeConfigsRequest<'_> = match decode(context, body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let topics = api.topics();
    let groups = api.core.broker.group_configs.load();
    let describe = |resource: &DescribeConfigsResource<'_>| {
        let mut result = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: Cow::Owned(resource.resource_name.to_string()),
            ..DescribeConfigsResult::default()
        };
        match entries(&api.core.broker.config, &topics, &groups, resource) {
            Ok(entries) => result.configs = entries.into_iter().map(|entry| shown(entry, &request)).collect(),
            Err((code, message)) => (result.error_code, result.error_message) = (code, Some(message.into())),
        }
        result
    };
    let results = request.resources.iter().map(describe).collect();
    reply(context, &DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() })
}

fn entries(
    config: &BrokerConfig,
    topics: &Topics,
    groups: &GroupConfigs,
    resource: &DescribeConfigsResource<'_>,
) -> Result<Vec<ConfigEntry>, (ErrorCode, String)> {
    let name = &*resource.resource_name;
    // As in Kafka, no keys at all are all keys.
    let keys: Option<Vec<&str>> =
        resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty()).map(|keys| keys.iter().map(|key| &**key).collect());
    let invalid = |message: String| Err((ErrorCode::INVALID_REQUEST, message));
    match resource.resource_type {
        RESOURCE_TOPIC => {
            names::validate(name).map_err(|why| (ErrorCode::INVALID_TOPIC_EXCEPTION, why))?;
            let unknown = || (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, format!("The topic '{name}' does not exist."));
            let topic = topics.by_name(name).ok_or_else(unknown)?;
            Ok(describe_topic(config, topic.config_overrides(), keys.as_deref()))
        }
        // What all brokers were given while they ran: nothing can be.
        RESOURCE_BROKER if name.is_empty() => Ok(Vec::new()),
        RESOURCE_BROKER if name.parse() == Ok(config.node_id) => Ok(describe_broker(config, keys.as_deref())),
        RESOURCE_BROKER => invalid(format!("Unexpected broker id, expected {}, but received {name}", config.node_id)),
        RESOURCE_GROUP if name.is_empty() => invalid("Group name must not be empty".to_owned()),
        // A group need not exist to be configured.
        RESOURCE_GROUP => {
            let own = groups.overrides().get(name).map(|own| &**own);
            Ok(describe_group(config, own.unwrap_or(&BTreeMap::new()), keys.as_deref()))
        }
        other => invalid(format!(
            "Resources of type {other} have no configuration here; accepted: topics ({RESOURCE_TOPIC}), brokers ({RESOURCE_BROKER}), \
             groups ({RESOURCE_GROUP})"
        )),
    }
}

fn shown(entry: ConfigEntry, request: &DescribeConfigsRequest<'_>) -> DescribeConfigsResourceResult<'static> {
    let synonym = |synonym: crate::config::ConfigSynonym| DescribeConfigsSynonym {
        name: synonym.name.into(),
        value: Some(synonym.value.into()),
        source: synonym.source.code(),
    };
    DescribeConfigsResourceResult {
        name: entry.name.into(),
        value: entry.value.map(Into::into),
        read_only: entry.is_read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.is_sensitive,
        synonyms: if request.include_synonyms { entry.synonyms.into_iter().map(synonym).collect() } else { Vec::new() },
        config_type: entry.value_type.code(),
        documentation: request.include_documentation.then(|| entry.documentation.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(resource_type: i8, name: &'static str, keys: Option<Vec<&'static str>>) -> Result<Vec<String>, ErrorCode> {
        let (config, _) = BrokerConfig::load(None, &[("node.id".to_owned(), "3".to_owned())]).unwrap();
        let resource = DescribeConfigsResource {
            resource_type,
            resource_name: name.into(),
            configuration_keys: keys.map(|keys| keys.into_iter().map(Cow::Borrowed).collect()),
        };
        let entries = entries(&config, &Topics::default(), &GroupConfigs::default(), &resource).map_err(|(code, _)| code)?;
        Ok(entries.into_iter().map(|entry| entry.name.to_owned()).collect())
    }

    #[test]
    fn only_what_exists_is_described() {
        assert_eq!(ask(2, "a", None), Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        assert_eq!(ask(2, "a b", None), Err(ErrorCode::INVALID_TOPIC_EXCEPTION));
        assert_eq!(ask(4, "1", None), Err(ErrorCode::INVALID_REQUEST));
        assert_eq!(ask(4, "x", None), Err(ErrorCode::INVALID_REQUEST));
        assert_eq!(ask(8, "3", None), Err(ErrorCode::INVALID_REQUEST), "loggers");
        assert_eq!(ask(4, "", None), Ok(Vec::new()));
        assert_eq!(ask(32, "", None), Err(ErrorCode::INVALID_REQUEST));
        let of_a_group = ask(32, "nobody", Some(vec!["consumer.session.timeout.ms", "share.session.timeout.ms"]));
        assert_eq!(of_a_group, Ok(vec!["consumer.session.timeout.ms".to_owned()]));
    }

    #[test]
    fn keys_select_and_no_keys_are_all() {
        assert_eq!(ask(4, "3", Some(vec!["log.retention.ms", "nonsense"])), Ok(vec!["log.retention.ms".to_owned()]));
        let all = ask(4, "3", None).unwrap();
        assert_eq!(all.len(), crate::config::BROKER_DEFINITIONS.len());
        assert_eq!(ask(4, "3", Some(Vec::new())), Ok(all));
    }

    #[test]
    fn synonyms_and_documentation_come_on_demand() {
        let (config, _) = BrokerConfig::load(None, &[]).unwrap();
        let entry = || describe_broker(&config, Some(&["log.retention.ms"])).remove(0);
        let mut request = DescribeConfigsRequest::default();
        let plain = shown(entry(), &request);
        assert!(plain.synonyms.is_empty() && plain.documentation.is_none() && plain.read_only && plain.config_type == 5);
        request.include_synonyms = true;
        request.include_documentation = true;
        let full = shown(entry(), &request);
        assert_eq!(full.synonyms[0].name, "log.retention.hours");
        assert!(full.documentation.is_some_and(|text| !text.is_empty()));
    }
}
