//! OffsetFetch: how far groups have read. Answered when what is said is durable.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::join_all;
use ringlog_engine::types::TopicId;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

use super::{Api, decode, reply};
use crate::broker::Topics;
use crate::group::request::{FetchedOffset, Identity, Reply};
use crate::group::{Answer, Name, Request};
use crate::net::{Outcome, RequestContext};

/// From here on an answer has an error of its own, not one for each partition.
const GROUP_ERROR_VERSION_MIN: i16 = 2;
/// From here on several groups are asked for at once (KIP-709).
const BATCHED_VERSION_MIN: i16 = 8;
/// From here on topics are given by id.
const TOPIC_ID_VERSION_MIN: i16 = 10;

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: OffsetFetchRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    if context.api_version < BATCHED_VERSION_MIN {
        return fetch_one(&api, &context, &request).await;
    }
    let by_id = context.api_version >= TOPIC_ID_VERSION_MIN;
    let (groups, refused) = each_once(request.groups);
    let asked: Vec<_> = groups
        .iter()
        .map(|group| {
            let topics = api.topics();
            let wanted = group.topics.as_ref().map(|wanted| named(&topics, by_id, wanted));
            let request = match &group.member_id {
                Some(member) => {
                    let identity = Identity { member: (**member).into(), instance: None, generation: group.member_epoch };
                    Request::FetchAs(identity, wanted)
                }
                None => Request::Fetch(wanted),
            };
            api.core.groups.ask(&topics, &group.group_id, request)
        })
        .collect();
    let answers = join_all(asked).await;
    let topics = api.topics();
    let answered = groups.iter().zip(answers).map(|(group, answer)| group_response(&topics, by_id, group, answer));
    let refused = refused.iter().map(|group| group_response(&topics, by_id, group, Err(ErrorCode::INVALID_REQUEST)));
    reply(&context, &OffsetFetchResponse { groups: answered.chain(refused).collect(), ..OffsetFetchResponse::default() })
}

/// The groups to answer, and those that are refused: of a group that is named again, what is said of it the first time counts, for
/// its offsets are much larger than its name. The same said twice is answered once.
fn each_once<'a>(
    groups: Vec<OffsetFetchRequestGroup<'a>>,
) -> (Vec<OffsetFetchRequestGroup<'a>>, Vec<OffsetFetchRequestGroup<'a>>) {
    let (mut once, mut refused) = (Vec::with_capacity(groups.len()), Vec::new());
    let mut named: BTreeMap<Cow<'a, str>, usize> = BTreeMap::new();
    for group in groups {
        match named.get(&group.group_id).and_then(|at| once.get(*at)) {
            None => {
                named.insert(group.group_id.clone(), once.len());
                once.push(group);
            }
            Some(first) if *first == group => {}
            Some(_) => refused.push(group),
        }
    }
    (once, refused)
}

/// The wanted topics by name, without those whose ids nobody has.
fn named(topics: &Topics, by_id: bool, wanted: &[OffsetFetchRequestTopics<'_>]) -> Vec<(Name, Vec<i32>)> {
    let named = wanted.iter().filter_map(|wanted| {
        let name = if by_id { topics.by_id(TopicId(wanted.topic_id))?.name.clone() } else { (*wanted.name).into() };
        Some((name, wanted.partition_indexes.clone()))
    });
    named.collect()
}

fn group_response<'a>(
    topics: &Topics,
    by_id: bool,
    group: &OffsetFetchRequestGroup<'a>,
    answer: Answer,
) -> OffsetFetchResponseGroup<'a> {
    let mut response = OffsetFetchResponseGroup { group_id: group.group_id.clone(), ..OffsetFetchResponseGroup::default() };
    match answer {
        Ok(Reply::Fetched(fetched)) => {
            let partition = |fetched: FetchedOffset| OffsetFetchResponsePartitions {
                partition_index: fetched.partition,
                committed_offset: fetched.offset,
                committed_leader_epoch: fetched.leader_epoch,
                metadata: Some(Cow::Owned(fetched.metadata.into())),
                error_code: ErrorCode::NONE,
            };
            let found = fetched.into_iter().filter_map(|(name, partitions)| {
                let id = topics.by_name(&name).map(|topic| topic.id.0);
                // A topic that has just been deleted has no id to answer with.
                let topic_id = if by_id { id? } else { id.unwrap_or_default() };
                let partitions = partitions.into_iter().map(partition).collect();
                Some(OffsetFetchResponseTopics { name: name.to_string().into(), topic_id, partitions })
            });
            response.topics = found.collect();
        }
        Ok(other) => unreachable!("{other:?} to a fetch of offsets"),
        Err(error) => response.error_code = error,
    }
    if by_id && response.error_code.is_none() {
        let unknown = group.topics.iter().flatten().filter(|wanted| topics.by_id(TopicId(wanted.topic_id)).is_none());
        response.topics.extend(unknown.map(|wanted| {
            let partition = |partition_index: &i32| OffsetFetchResponsePartitions {
                partition_index: *partition_index,
                committed_offset: -1,
                committed_leader_epoch: -1,
                metadata: Some("".into()),
                error_code: ErrorCode::UNKNOWN_TOPIC_ID,
            };
            let partitions = wanted.partition_indexes.iter().map(partition).collect();
            OffsetFetchResponseTopics { name: "".into(), topic_id: wanted.topic_id, partitions }
        }));
    }
    response
}

async fn fetch_one(api: &Api, context: &RequestContext, request: &OffsetFetchRequest<'_>) -> Outcome {
    let wanted = request
        .topics
        .as_ref()
        .map(|topics| topics.iter().map(|topic| (Name::from(&*topic.name), topic.partition_indexes.clone())).collect::<Vec<_>>());
    let answer = {
        let asked = api.core.groups.ask(&api.topics(), &request.group_id, Request::Fetch(wanted));
        asked.await
    };
    let mut response = OffsetFetchResponse::default();
    match answer {
        Ok(Reply::Fetched(fetched)) => {
            let partition = |fetched: FetchedOffset| OffsetFetchResponsePartition {
                partition_index: fetched.partition,
                committed_offset: fetched.offset,
                committed_leader_epoch: fetched.leader_epoch,
                metadata: Some(Cow::Owned(fetched.metadata.into())),
                error_code: ErrorCode::NONE,
            };
            let topic = |(name, partitions): (Name, Vec<FetchedOffset>)| OffsetFetchResponseTopic {
                name: name.to_string().into(),
                partitions: partitions.into_iter().map(partition).collect(),
            };
            response.topics = fetched.into_iter().map(topic).collect();
        }
        Ok(other) => unreachable!("{other:?} to a fetch of offsets"),
        Err(error_code) => {
            response.error_code = error_code;
            if context.api_version < GROUP_ERROR_VERSION_MIN {
                response.topics = request
                    .topics
                    .iter()
                    .flatten()
                    .map(|topic| OffsetFetchResponseTopic {
                        name: topic.name.clone(),
                        partitions: topic.partition_indexes.iter().map(|index| refused(*index, error_code)).collect(),
                    })
                    .collect();
            }
        }
    }
    reply(context, &response)
}

fn refused<'a>(partition_index: i32, error_code: ErrorCode) -> OffsetFetchResponsePartition<'a> {
    OffsetFetchResponsePartition {
        partition_index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some("".into()),
        error_code,
    }
}
