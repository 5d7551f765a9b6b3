//! DeleteRecords (KIP-107): moves the start of partitions, on the cores that own them.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringlog_engine::core::Partition;
use ringlog_engine::types::Offset;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

use super::{Api, decode, reply};
use crate::net::{Outcome, RequestContext};

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: DeleteRecordsRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let mut response = DeleteRecordsResponse::default();
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let deleted = match find(&api, &topic.name, wanted) {
                Ok(partition) => delete(&api, &partition, Offset(wanted.offset)).await,
                Err(error) => Err(error),
            };
            let (error_code, low_watermark) = match deleted {
                Ok(log_start) => (ErrorCode::NONE, log_start.0),
                Err(error) => (error, -1),
            };
            let partition_index = wanted.partition_index;
            partitions.push(DeleteRecordsPartitionResult { partition_index, low_watermark, error_code });
        }
        response.topics.push(DeleteRecordsTopicResult { name: topic.name.clone(), partitions });
    }
    reply(&context, &response)
}

fn find(api: &Api, topic: &str, wanted: &DeleteRecordsPartition) -> Result<Arc<Partition>, ErrorCode> {
    let topics = api.topics();
    let topic = topics.by_name(topic).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    if topic.is_internal {
        return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
    topic.partition(wanted.partition_index).cloned().ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
}

async fn delete(api: &Api, partition: &Partition, offset: Offset) -> Result<Offset, ErrorCode> {
    let (core, id) = (&api.core.core, partition.id);
    let reserve = api.core.broker.reserve.clone();
    let deleted = if partition.core == core.index {
        reserve.delete_records(core, id, offset).await
    } else {
        let handle = api.core.broker.cores.get(partition.core).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let job = handle.run(move |core| Box::pin(async move { reserve.delete_records(&core, id, offset).await }));
        job.await.map_err(|_| ErrorCode::NOT_LEADER_OR_FOLLOWER)?
    };
    deleted.map_err(|error| if error.is_some() { ErrorCode::OFFSET_OUT_OF_RANGE } else { ErrorCode::KAFKA_STORAGE_ERROR })
}
