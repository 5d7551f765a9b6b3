//! DeleteTopics, by name or (KIP-516) by id.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ringlog_engine::types::TopicId;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::delete_topics::{DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest};

use super::{Plan, Refusal, outcome};
use crate::catalogue::records::MetadataRecord;
use crate::catalogue::state::{Catalogue, Topic};
use crate::config::BrokerConfig;

/// No topic's id: the topic is given by name.
const NO_ID: TopicId = TopicId([0; 16]);

/// Plans the end of the topics that exist; the others are answered with what is wrong with them. A topic that is given twice, by
/// whatever means, is not deleted.
#[must_use]
pub fn delete_topics<'a>(
    catalogue: &Catalogue,
    broker: &BrokerConfig,
    request: &DeleteTopicsRequest<'a>,
) -> Plan<DeletableTopicResult<'a>> {
    let by_name = request.topic_names.iter().map(|name| (Some(name.clone()), NO_ID));
    let by_either = request.topics.iter().map(|DeleteTopicState { name, topic_id, .. }| (name.clone(), TopicId(*topic_id)));
    let items: Vec<(Option<Cow<'a, str>>, TopicId)> = by_name.chain(by_either).collect();

    let found: Vec<Result<&Topic, Refusal>> =
        items.iter().map(|(name, id)| find(catalogue, broker, name.as_deref(), *id)).collect();
    let mut counts: BTreeMap<TopicId, usize> = BTreeMap::new();
    for topic in found.iter().flatten() {
        *counts.entry(topic.id).or_default() += 1;
    }

    let mut plan = Plan { records: Vec::new(), answers: Vec::with_capacity(items.len()) };
    for ((name, id), found) in items.into_iter().zip(found) {
        let mut answer = DeletableTopicResult { name, topic_id: id.0, ..DeletableTopicResult::default() };
        let checked = found.and_then(|topic| match counts.get(&topic.id) {
            Some(1) => Ok(topic),
            _ => Err(Refusal::new(ErrorCode::INVALID_REQUEST, "The topic is given more than once.")),
        });
        (answer.error_code, answer.error_message) = outcome(checked.map(|topic| {
            answer.name = Some(topic.name.to_string().into());
            answer.topic_id = topic.id.0;
            plan.records.push(MetadataRecord::RemoveTopic { topic_id: topic.id });
        }));
        plan.answers.push(answer);
    }
    plan
}

fn find<'c>(catalogue: &'c Catalogue, broker: &BrokerConfig, name: Option<&str>, id: TopicId) -> Result<&'c Topic, Refusal> {
    if !broker.options.delete_topic_enable {
        return Err(Refusal::new(ErrorCode::TOPIC_DELETION_DISABLED, "Topic deletion is disabled."));
    }
    match (name, id) {
        (None, NO_ID) => Err(Refusal::new(ErrorCode::INVALID_REQUEST, "Neither topic name nor id were specified.")),
        (Some(name), NO_ID) => catalogue.topic(name).map(|topic| &**topic).ok_or_else(|| {
            Refusal::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.")
        }),
        (None, id) => catalogue
            .topic_by_id(id)
            .map(|topic| &**topic)
            .ok_or_else(|| Refusal::new(ErrorCode::UNKNOWN_TOPIC_ID, "This server does not host this topic ID.")),
        (Some(_), _) => Err(Refusal::new(ErrorCode::INVALID_REQUEST, "You may not specify both topic name and topic id.")),
    }
}
