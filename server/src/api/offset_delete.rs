//! OffsetDelete: forgets how far a group has read, where it does not read any more (KIP-496).

use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use super::{Api, decode, reply};
use crate::group::Request;
use crate::group::request::Reply;
use crate::net::{Outcome, RequestContext};

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: OffsetDeleteRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let mut wanted = Vec::new();
    let topics = {
        let known = api.topics();
        let topics = request.topics.iter().map(|topic| {
            let found = known.by_name(&topic.name);
            let partitions = topic.partitions.iter().map(|partition| {
                let partition_index = partition.partition_index;
                let error_code = match found.filter(|found| found.info.partition(partition_index).is_some()) {
                    None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    Some(found) => {
                        wanted.push((found.name.clone(), partition_index));
                        ErrorCode::NONE
                    }
                };
                OffsetDeleteResponsePartition { partition_index, error_code }
            });
            OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: partitions.collect() }
        });
        topics.collect()
    };
    let answer = api.core.groups.ask(&api.topics(), &request.group_id, Request::DeleteOffsets(wanted)).await;
    let mut response = OffsetDeleteResponse::default();
    match answer {
        Ok(Reply::OffsetsDeleted(codes)) => {
            let mut codes = codes.into_iter();
            response.topics = topics;
            let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            for partition in partitions.filter(|partition| partition.error_code.is_none()) {
                partition.error_code = codes.next().unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR);
            }
        }
        Ok(other) => unreachable!("{other:?} to a deletion of offsets"),
        Err(error) => response.error_code = error,
    }
    reply(&context, &response)
}
