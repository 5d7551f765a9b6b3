//! ListOffsets: the ends of partitions, and the first record at or after a time. Answered on the connection's own core from what
//! partitions publish; only the epoch of an offset is asked for where the log lives.

use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_engine::core::Partition;
use ringlog_engine::types::{Offset, TimestampMs};
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};

use super::{Api, check_leader_epoch, decode, reply};
use crate::net::{Outcome, RequestContext};

/// The places that a negative timestamp stands for.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// From here on answers tell the epoch of what was found.
const LEADER_EPOCH_VERSION_MIN: i16 = 4;
const READ_COMMITTED: i8 = 1;
const CONSUMER: i32 = -1;

/// A place that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    timestamp: TimestampMs,
    offset: Offset,
}

impl Found {
    const NOTHING: Self = Self::at(Offset(-1));

    const fn at(offset: Offset) -> Self {
        Self { timestamp: TimestampMs::NONE, offset }
    }
}

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: ListOffsetsRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let repeated = repeated(&request);
    let mut response = ListOffsetsResponse::default();
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let answer = if repeated.contains(&(&topic.name, wanted.partition_index)) {
                Err(ErrorCode::INVALID_REQUEST)
            } else {
                find(&api, context.api_version, &request, &topic.name, wanted).await
            };
            let partition_index = wanted.partition_index;
            partitions.push(answer.unwrap_or_else(|error_code| ListOffsetsPartitionResponse {
                partition_index,
                error_code,
                ..ListOffsetsPartitionResponse::default()
            }));
        }
        response.topics.push(ListOffsetsTopicResponse { name: topic.name.clone(), partitions });
    }
    reply(&context, &response)
}

/// The partitions that come more than once.
fn repeated<'r>(request: &'r ListOffsetsRequest<'_>) -> BTreeSet<(&'r str, i32)> {
    let mut seen = BTreeSet::new();
    let partitions = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(move |partition| (&*topic.name, partition.partition_index)));
    partitions.filter(|partition| !seen.insert(*partition)).collect()
}

/// Whether a version of the API knows what a timestamp stands for.
fn is_known(timestamp: i64, version: i16) -> bool {
    match timestamp {
        0.. | LATEST | EARLIEST => true,
        MAX_TIMESTAMP => version >= 7,
        EARLIEST_LOCAL => version >= 8,
        LATEST_TIERED => version >= 9,
        EARLIEST_PENDING_UPLOAD => version >= 11,
        _ => false,
    }
}

async fn find(
    api: &Api,
    version: i16,
    request: &ListOffsetsRequest<'_>,
    topic: &str,
    wanted: &ListOffsetsPartition,
) -> Result<ListOffsetsPartitionResponse, ErrorCode> {
    if !is_known(wanted.timestamp, version) {
        return Err(ErrorCode::UNSUPPORTED_VERSION);
    }
    let partition = {
        let topics = api.topics();
        let partition = topics.by_name(topic).and_then(|topic| topic.partition(wanted.partition_index));
        partition.cloned().ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?
    };
    let fenced = check_leader_epoch(wanted.current_leader_epoch, partition.published.leader_epoch());
    if !fenced.is_none() {
        return Err(fenced);
    }
    let found = locate(api, &partition, request, wanted.timestamp).await?;
    let leader_epoch = match (wanted.timestamp, found.offset) {
        (_, Offset(-1)) => -1,
        _ if version < LEADER_EPOCH_VERSION_MIN => -1,
        (LATEST, _) => partition.published.leader_epoch().0,
        (_, offset) => {
            let epoch = api.with_log(&partition, move |log| log.epochs().epoch_for(offset)).await;
            epoch.flatten().map_or(-1, |epoch| epoch.0)
        }
    };
    Ok(ListOffsetsPartitionResponse {
        partition_index: wanted.partition_index,
        timestamp: found.timestamp.0,
        offset: found.offset.0,
        leader_epoch,
        ..ListOffsetsPartitionResponse::default()
    })
}

async fn locate(api: &Api, partition: &Partition, request: &ListOffsetsRequest<'_>, timestamp: i64) -> Result<Found, ErrorCode> {
    let published = &partition.published;
    let reader = &api.core.core.reader;
    let found = match timestamp {
        LATEST if request.replica_id != CONSUMER => return Ok(Found::at(published.log_end())),
        LATEST if request.isolation_level == READ_COMMITTED => return Ok(Found::at(published.last_stable_offset())),
        LATEST => return Ok(Found::at(published.high_watermark())),
        EARLIEST | EARLIEST_LOCAL => return Ok(Found::at(published.log_start())),
        // Nothing is tiered, and nothing is going to be.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => return Ok(Found::NOTHING),
        MAX_TIMESTAMP => reader.max_timestamp(published).await,
        _ => reader.offset_for_timestamp(published, TimestampMs(timestamp)).await,
    };
    match found {
        Ok(Some((timestamp, offset))) => Ok(Found { timestamp, offset }),
        Ok(None) => Ok(Found::NOTHING),
        Err(error) => Err(api.read_error(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_known_from_the_version_that_has_them() {
        for (timestamp, version_min) in [(0, 1), (-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9), (-6, 11)] {
            for version in 1..=11 {
                assert_eq!(is_known(timestamp, version), version >= version_min, "{timestamp} in {version}");
            }
        }
        assert!(!is_known(-7, 11) && !is_known(i64::MIN, 11));
    }
}
