//! DescribeProducers (KIP-664): the idempotent producers that a partition knows, from the core that owns it.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_engine::log::producers::ProducerView;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};

use super::{Api, decode, reply};
use crate::net::{Outcome, RequestContext};

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: DescribeProducersRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let mut response = DescribeProducersResponse::default();
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for &partition_index in &topic.partition_indexes {
            let mut answer = PartitionResponse { partition_index, ..PartitionResponse::default() };
            match find(&api, &topic.name, partition_index).await {
                Some(producers) => answer.active_producers = producers,
                None => {
                    answer.error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
                    answer.error_message = Some(Cow::Borrowed("This server does not host this topic-partition."));
                }
            }
            partitions.push(answer);
        }
        response.topics.push(TopicResponse { name: topic.name.clone(), partitions });
    }
    reply(&context, &response)
}

async fn find(api: &Api, topic: &str, index: i32) -> Option<Vec<ProducerState>> {
    let partition = api.topics().by_name(topic)?.partition(index)?.clone();
    api.with_log(&partition, |log| log.producers().views().map(shown).collect()).await
}

fn shown(view: ProducerView) -> ProducerState {
    ProducerState {
        producer_id: view.producer_id.0,
        producer_epoch: view.producer_epoch.into(),
        last_sequence: view.last_sequence,
        last_timestamp: view.last_timestamp.0,
        coordinator_epoch: view.coordinator_epoch,
        current_txn_start_offset: view.transaction_start.map_or(-1, |offset| offset.0),
    }
}
