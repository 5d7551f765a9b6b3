//! DescribeLogDirs (KIP-113, KIP-827): the data directory, its room, and what each partition takes of it.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};

use super::{Api, decode, reply};
use crate::broker::{Topic, Topics};
use crate::net::{Outcome, RequestContext};

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: DescribeLogDirsRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let directory = &api.core.broker.config.data_dir;
    // Tools compare directories by their absolute paths.
    let path = std::path::absolute(directory).unwrap_or_else(|_| directory.clone());
    let mut result =
        DescribeLogDirsResult { log_dir: path.to_string_lossy().into_owned().into(), ..DescribeLogDirsResult::default() };
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    match api.core.core.disk.space(directory).await {
        Ok(space) => {
            result.total_bytes = bytes(space.total_bytes);
            result.usable_bytes = bytes(space.available_bytes);
        }
        Err(error) => {
            tracing::error!(%error, directory = %path.display(), "the room on the data directory's filesystem is not known");
            result.error_code = ErrorCode::KAFKA_STORAGE_ERROR;
        }
    }
    result.topics = partitions(&api.topics(), &request);
    reply(&context, &DescribeLogDirsResponse { results: vec![result], ..DescribeLogDirsResponse::default() })
}

/// The partitions that are asked for and exist; without a list, all.
fn partitions(topics: &Topics, request: &DescribeLogDirsRequest<'_>) -> Vec<DescribeLogDirsTopic<'static>> {
    let Some(wanted) = &request.topics else {
        return topics.iter().map(|topic| describe(topic, None)).collect();
    };
    let described = wanted.iter().filter_map(|wanted| Some(describe(topics.by_name(&wanted.topic)?, Some(&wanted.partitions))));
    described.filter(|topic| !topic.partitions.is_empty()).collect()
}

fn describe(topic: &Topic, wanted: Option<&[i32]>) -> DescribeLogDirsTopic<'static> {
    let is_wanted = |index: i32| wanted.is_none_or(|wanted| wanted.contains(&index));
    let partitions = topic.partitions.iter().filter(|partition| is_wanted(partition.id.index));
    let describe = |partition: &std::sync::Arc<ringlog_engine::core::Partition>| DescribeLogDirsPartition {
        partition_index: partition.id.index,
        partition_size: i64::try_from(partition.published.size_bytes()).unwrap_or(i64::MAX),
        // A leader's copy is never behind, and nothing is being moved to another directory.
        offset_lag: 0,
        is_future_key: false,
    };
    DescribeLogDirsTopic { name: topic.name.to_string().into(), partitions: partitions.map(describe).collect() }
}
