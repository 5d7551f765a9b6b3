//! OffsetForLeaderEpoch (KIP-101, KIP-320): where the log of a leader epoch ends, from the core that owns the partition.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_engine::types::LeaderEpoch;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
};

use super::{Api, check_leader_epoch, decode, reply};
use crate::net::{Outcome, RequestContext};

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: OffsetForLeaderEpochRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let mut response = OffsetForLeaderEpochResponse::default();
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let mut answer = EpochEndOffset { partition: wanted.partition, ..EpochEndOffset::default() };
            match find(&api, &topic.topic, wanted).await {
                Ok(Some((epoch, end_offset))) => (answer.leader_epoch, answer.end_offset) = (epoch, end_offset),
                // An epoch that this log does not know.
                Ok(None) => {}
                Err(error_code) => answer.error_code = error_code,
            }
            partitions.push(answer);
        }
        response.topics.push(OffsetForLeaderTopicResult { topic: topic.topic.clone(), partitions });
    }
    reply(&context, &response)
}

async fn find(api: &Api, topic: &str, wanted: &OffsetForLeaderPartition) -> Result<Option<(i32, i64)>, ErrorCode> {
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    let partition = {
        let topics = api.topics();
        topics.by_name(topic).and_then(|topic| topic.partition(wanted.partition)).cloned().ok_or(unknown)?
    };
    let fenced = check_leader_epoch(wanted.current_leader_epoch, partition.published.leader_epoch());
    if !fenced.is_none() {
        return Err(fenced);
    }
    let epoch = LeaderEpoch(wanted.leader_epoch);
    let end = api.with_log(&partition, move |log| log.epochs().end_offset_for(epoch, log.published().log_end())).await;
    Ok(end.ok_or(unknown)?.map(|(epoch, end)| (epoch.0, end.0)))
}
