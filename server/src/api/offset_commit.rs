//! OffsetCommit: keeps how far a group has read. Answered when that is durable.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_engine::types::TopicId;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestTopic, OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};

use super::{Api, decode, reply};
use crate::broker::Topics;
use crate::group::Request;
use crate::group::request::{Commit, CommitOffset, Identity, Reply};
use crate::net::{Outcome, RequestContext};

/// From here on a group may be of the new protocol (KIP-848).
const EPOCH_VERSION_MIN: i16 = 9;
/// From here on topics are given by id.
const TOPIC_ID_VERSION_MIN: i16 = 10;

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: OffsetCommitRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let mut offsets = Vec::new();
    let topics = {
        let known = api.topics();
        let topics = request.topics.iter().map(|topic| check(&known, context.api_version, topic, &mut offsets));
        topics.collect::<Vec<_>>()
    };
    let mut response = OffsetCommitResponse { topics, ..OffsetCommitResponse::default() };
    if !offsets.is_empty() {
        let commit = Commit {
            identity: Identity {
                member: (*request.member_id).into(),
                instance: request.group_instance_id.as_deref().map(Into::into),
                generation: request.generation_id_or_member_epoch,
            },
            knows_epochs: context.api_version >= EPOCH_VERSION_MIN,
            retention_ms: (request.retention_time_ms >= 0).then_some(request.retention_time_ms),
            offsets,
        };
        let answer = api.core.groups.ask(&api.topics(), &request.group_id, Request::Commit(commit)).await;
        // In the order in which they were asked, without those that were refused here.
        let mut codes = match answer {
            Ok(Reply::Committed(codes)) => Ok(codes.into_iter()),
            Ok(other) => unreachable!("{other:?} to a commit"),
            Err(error) => Err(error),
        };
        let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        for partition in partitions.filter(|partition| partition.error_code.is_none()) {
            partition.error_code = match &mut codes {
                Ok(codes) => codes.next().unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR),
                Err(error) => *error,
            };
        }
    }
    reply(&context, &response)
}

/// The answer for a topic's partitions, as far as it is known without the group; the others are added to what is asked.
fn check<'a>(
    known: &Topics,
    version: i16,
    wanted: &OffsetCommitRequestTopic<'a>,
    offsets: &mut Vec<CommitOffset>,
) -> OffsetCommitResponseTopic<'a> {
    let by_id = version >= TOPIC_ID_VERSION_MIN;
    let topic = if by_id { known.by_id(TopicId(wanted.topic_id)) } else { known.by_name(&wanted.name) };
    let unknown = if by_id { ErrorCode::UNKNOWN_TOPIC_ID } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION };
    let partitions = wanted.partitions.iter().map(|partition| {
        let partition_index = partition.partition_index;
        let error_code = match topic {
            None => unknown,
            Some(topic) if topic.info.partition(partition_index).is_none() => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            Some(topic) => {
                offsets.push(CommitOffset {
                    topic: topic.name.clone(),
                    topic_id: topic.id.0,
                    partition: partition_index,
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata.as_deref().unwrap_or_default().into(),
                });
                ErrorCode::NONE
            }
        };
        OffsetCommitResponsePartition { partition_index, error_code }
    });
    OffsetCommitResponseTopic { name: wanted.name.clone(), topic_id: wanted.topic_id, partitions: partitions.collect() }
}
