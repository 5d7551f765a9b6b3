//! Metadata: the brokers, and who leads which partition, as the client's listener sees it. Topics that are asked for by name may
//! be created on the way.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use ringlog_engine::types::TopicId;
use ringlog_protocol::api::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use ringlog_protocol::{ErrorCode, Uuid};

use super::respond::{self, OPERATIONS_NOT_ASKED, TOPIC_OPERATIONS};
use super::{Api, decode, reply};
use crate::broker::Topic;
use crate::catalogue::names;
use crate::net::{Outcome, RequestContext};

/// From here on topics may be asked for by id (the field is older).
const TOPIC_ID_VERSION_MIN: i16 = 12;
/// How long a client waits for a topic that is made for it. After that it is told to ask again, as Kafka tells it at once.
const AUTO_CREATE_WAIT: Duration = Duration::from_secs(2);

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let version = context.api_version;
    let request: MetadataRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let topics = match &request.topics {
        Some(wanted) if version > 0 || !wanted.is_empty() => match find_invalid(version, wanted) {
            None => wanted_topics(&api, &context, &request, wanted).await,
            Some(error) => {
                api.log_refusal(&context, "topics", error, Some("ids, or topics without a name, in a version that has none"));
                wanted.iter().map(|topic| refused(version, topic, error)).collect()
            }
        },
        // Version 0 says "all" with an empty list, later ones with none.
        _ => {
            let all = api.topics();
            all.iter().map(|topic| describe(&api, topic, request.include_topic_authorized_operations)).collect()
        }
    };
    let broker = &api.core.broker;
    let (host, port) = respond::endpoint(&broker.config.listeners, &context);
    let asks_operations = request.include_cluster_authorized_operations;
    let response = MetadataResponse {
        brokers: vec![MetadataResponseBroker { node_id: broker.node_id, host, port, rack: None }],
        cluster_id: Some(Cow::Borrowed(&broker.cluster_id)),
        controller_id: broker.node_id,
        topics,
        cluster_authorized_operations: if asks_operations { respond::CLUSTER_OPERATIONS } else { OPERATIONS_NOT_ASKED },
        ..MetadataResponse::default()
    };
    reply(&context, &response)
}

/// What makes a whole request wrong: ids, or topics without a name, in versions that cannot ask by id.
fn find_invalid(version: i16, wanted: &[MetadataRequestTopic<'_>]) -> Option<ErrorCode> {
    let is_by_name = |topic: &MetadataRequestTopic<'_>| topic.name.is_some() && topic.topic_id == Uuid::default();
    let is_valid = version >= TOPIC_ID_VERSION_MIN || wanted.iter().all(is_by_name);
    (!is_valid).then_some(ErrorCode::INVALID_REQUEST)
}

fn refused<'a>(version: i16, topic: &MetadataRequestTopic<'a>, error_code: ErrorCode) -> MetadataResponseTopic<'a> {
    let name = topic.name.clone().or((version < TOPIC_ID_VERSION_MIN).then_some(Cow::Borrowed("")));
    MetadataResponseTopic { error_code, name, topic_id: topic.topic_id, ..MetadataResponseTopic::default() }
}

/// The topics that are asked for, each once.
async fn wanted_topics<'a>(
    api: &Api,
    context: &RequestContext,
    request: &MetadataRequest<'a>,
    wanted: &[MetadataRequestTopic<'a>],
) -> Vec<MetadataResponseTopic<'a>> {
    let mut answered = BTreeSet::new();
    let mut responses = Vec::with_capacity(wanted.len());
    for topic in wanted {
        if !answered.insert((topic.topic_id, &topic.name)) {
            continue;
        }
        let asks_operations = request.include_topic_authorized_operations;
        let found = if topic.topic_id == Uuid::default() {
            match topic.name.as_deref() {
                Some(name) => by_name(api, name, request.allow_auto_topic_creation).await,
                None => Err(ErrorCode::INVALID_REQUEST),
            }
        } else {
            let topics = api.topics();
            topics.by_id(TopicId(topic.topic_id)).cloned().ok_or(ErrorCode::UNKNOWN_TOPIC_ID)
        };
        responses.push(match found {
            Ok(topic) => describe(api, &topic, asks_operations),
            Err(error_code) => {
                api.log_refusal(context, topic.name.as_deref().unwrap_or_default(), error_code, None);
                MetadataResponseTopic {
                    error_code,
                    name: topic.name.clone(),
                    topic_id: topic.topic_id,
                    is_internal: topic.name.as_deref().is_some_and(names::is_internal),
                    ..MetadataResponseTopic::default()
                }
            }
        });
    }
    responses
}

async fn by_name(api: &Api, name: &str, may_create: bool) -> Result<std::sync::Arc<Topic>, ErrorCode> {
    if let Some(topic) = api.topics().by_name(name) {
        return Ok(topic.clone());
    }
    if names::validate(name).is_err() {
        return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
    if !may_create || !api.core.broker.config.options.auto_create_topics_enable || names::is_internal(name) {
        return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }
    let created = Box::pin(api.core.broker.controller.auto_create(name));
    match select(created, api.core.core.env.sleep(AUTO_CREATE_WAIT)).await {
        Either::Left((Ok(topic), _)) => Ok(topic),
        Either::Left((Err(refusal), _)) => {
            tracing::warn!(topic = name, %refusal, "a topic could not be created automatically");
            // What a client can do nothing about must not look final to it.
            Err(if refusal.code == ErrorCode::INVALID_TOPIC_EXCEPTION {
                refusal.code
            } else {
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            })
        }
        // It goes on being created.
        Either::Right(_) => Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
    }
}

fn describe<'a>(api: &Api, topic: &Topic, asks_operations: bool) -> MetadataResponseTopic<'a> {
    let node_id = api.core.broker.node_id;
    let partition = |(index, partition): (usize, &std::sync::Arc<ringlog_engine::core::Partition>)| {
        let info = topic.info.partitions.get(index);
        MetadataResponsePartition {
            partition_index: partition.id.index,
            leader_id: node_id,
            // What it fences with: a client that takes its epoch from here is not sent away.
            leader_epoch: partition.published.leader_epoch().0,
            replica_nodes: info.map_or_else(|| vec![node_id], |info| info.replicas.clone()),
            isr_nodes: info.map_or_else(|| vec![node_id], |info| info.isr.clone()),
            ..MetadataResponsePartition::default()
        }
    };
    MetadataResponseTopic {
        name: Some(Cow::Owned(topic.name.to_string())),
        topic_id: topic.id.0,
        is_internal: topic.is_internal,
        partitions: topic.partitions.iter().enumerate().map(partition).collect(),
        topic_authorized_operations: if asks_operations { TOPIC_OPERATIONS } else { OPERATIONS_NOT_ASKED },
        ..MetadataResponseTopic::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: Option<&'static str>, id: u8) -> MetadataRequestTopic<'static> {
        MetadataRequestTopic { topic_id: [id; 16], name: name.map(Cow::Borrowed) }
    }

    #[test]
    fn ids_need_a_version_that_has_them() {
        assert_eq!(find_invalid(11, &[topic(Some("a"), 0)]), None);
        assert_eq!(find_invalid(11, &[topic(Some("a"), 0), topic(Some("b"), 7)]), Some(ErrorCode::INVALID_REQUEST));
        assert_eq!(find_invalid(10, &[topic(None, 0)]), Some(ErrorCode::INVALID_REQUEST));
        assert_eq!(find_invalid(12, &[topic(None, 7)]), None);
    }

    #[test]
    fn a_refused_topic_has_a_name_where_the_version_wants_one() {
        let refuse = |version| refused(version, &topic(None, 7), ErrorCode::INVALID_REQUEST).name;
        assert_eq!((refuse(10), refuse(12)), (Some("".into()), None));
    }
}
