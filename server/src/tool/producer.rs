//! Sends batches to one topic and waits for each: idempotent where the broker can, so that what is sent again after a lost answer
//! is not there twice (KIP-98). Used by [`super::produce`].

use std::collections::BTreeMap;

use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::compression::Codec;
use ringlog_engine::record::Header;
use ringlog_engine::types::{Offset, ProducerId, TimestampMs};
use ringlog_protocol::api::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ringlog_protocol::api::produce::{PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData};
use ringlog_protocol::{ApiKey, ErrorCode, Records};

use super::args::Compression;
use super::client::{Client, ClientError, Cluster};
use super::record::NewRecord;

/// A producer to one topic.
#[derive(Debug)]
pub(super) struct Producer {
    client: Client,
    cluster: Cluster,
    topic: String,
    partitions: Vec<i32>,
    acks: i16,
    codec: Codec,
    /// Id and epoch; none where records may be there twice.
    identity: Option<(i64, i16)>,
    /// The next sequence of each partition.
    sequences: BTreeMap<i32, i32>,
}

/// Records for one partition.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    builder: BatchBuilder,
    records: u64,
}

impl Batch {
    /// Adds a record; `now_ms` is its time if it has none.
    pub(super) fn push(&mut self, record: &NewRecord, now_ms: i64) {
        let headers: Vec<_> = record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        let time = TimestampMs(record.timestamp.unwrap_or(now_ms));
        self.builder.push(time, record.key.as_deref(), record.value.as_deref(), &headers);
        self.records += 1;
    }

    /// What it takes before compression.
    pub(super) fn size_bytes(&self) -> usize {
        self.builder.size_bytes()
    }

    /// How many records it has.
    pub(super) fn record_count(&self) -> u64 {
        self.records
    }
}

impl Producer {
    /// A producer to a topic, which is created if the broker does that on demand.
    ///
    /// # Errors
    /// The topic does not exist and is not created; the broker fails, or says no.
    pub(super) fn new(mut client: Client, topic: &str, acks: i16, compression: Compression) -> Result<Self, ClientError> {
        let cluster = client.cluster_to_produce_to(topic)?;
        let partitions: Vec<_> = cluster.topic(topic)?.partitions.iter().map(|partition| partition.index).collect();
        if partitions.is_empty() {
            return Err(ClientError::refused(
                ApiKey::Metadata,
                format!("of topic {topic}"),
                ErrorCode::LEADER_NOT_AVAILABLE,
                None,
            ));
        }
        // Idempotence is all in-sync replicas' to promise.
        let identity = if acks == -1 { client.retry(new_identity)? } else { None };
        let codec = match compression {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip,
            Compression::Snappy => Codec::Snappy,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        };
        Ok(Self { client, cluster, topic: topic.to_owned(), partitions, acks, codec, identity, sequences: BTreeMap::new() })
    }

    /// The topic's partitions by number.
    pub(super) fn partitions(&self) -> &[i32] {
        &self.partitions
    }

    /// An empty batch.
    pub(super) fn batch(&self) -> Batch {
        Batch { builder: BatchBuilder::new(Offset(0)).codec(self.codec), records: 0 }
    }

    /// Sends a batch, again and again where that may help, and waits until it is acknowledged. Gives the offset of its first
    /// record, if the broker tells.
    ///
    /// # Errors
    /// The broker fails, or says no. What became of the batch is unknown where the connection was lost.
    pub(super) fn send(&mut self, partition: i32, batch: &Batch) -> Result<Option<i64>, ClientError> {
        let sequence = self.sequences.get(&partition).copied().unwrap_or(0);
        let mut builder = batch.builder.clone();
        if let Some((id, epoch)) = self.identity {
            builder = builder.producer(ProducerId(id), epoch, sequence);
        }
        let bytes = builder.build();
        let (cluster, topic, acks) = (&mut self.cluster, self.topic.as_str(), self.acks);
        let mut is_stale = false;
        let offset = self.client.retry(|client| {
            if is_stale {
                *cluster = client.cluster(Some(&[topic]))?;
            }
            is_stale = true;
            send_once(client, cluster, topic, acks, partition, &bytes)
        })?;
        let records = i32::try_from(batch.records).unwrap_or(i32::MAX);
        self.sequences.insert(partition, ringlog_engine::batch::sequence_plus(sequence, records));
        Ok(offset)
    }
}

/// An idempotent producer's identity; none where the broker has none to give.
fn new_identity(client: &mut Client) -> Result<Option<(i64, i16)>, ClientError> {
    let request =
        InitProducerIdRequest { transactional_id: None, transaction_timeout_ms: i32::MAX, producer_id: -1, producer_epoch: -1 };
    let answer = match client.ask_any(&request) {
        Ok(answer) => answer,
        Err(ClientError::Unfit { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let response: InitProducerIdResponse = answer.decode()?;
    match response.error_code {
        ErrorCode::NONE => Ok(Some((response.producer_id, response.producer_epoch))),
        code => Err(ClientError::refused(ApiKey::InitProducerId, "", code, None)),
    }
}

fn send_once(
    client: &mut Client,
    cluster: &Cluster,
    topic: &str,
    acks: i16,
    partition: i32,
    batch: &[u8],
) -> Result<Option<i64>, ClientError> {
    let found = cluster.topic(topic)?;
    let of = || format!("to partition {partition} of {topic}");
    let Some(leader) = found.partitions.iter().find(|found| found.index == partition) else {
        return Err(ClientError::refused(ApiKey::Produce, of(), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, None));
    };
    let address = cluster.address(leader.leader)?;
    let data = PartitionProduceData { index: partition, records: Records::Bytes(batch) };
    let topics = vec![TopicProduceData { name: topic.into(), topic_id: found.id, partition_data: vec![data] }];
    let request = ProduceRequest { transactional_id: None, acks, timeout_ms: client.timeout_ms(), topic_data: topics };
    if acks == 0 {
        client.tell(address, &request)?;
        return Ok(None);
    }
    let answer = client.ask(address, &request)?;
    let response: ProduceResponse<'_> = answer.decode()?;
    // One partition was asked for, so one is answered.
    let Some(outcome) = response.responses.iter().flat_map(|topic| &topic.partition_responses).next() else {
        return Err(ClientError::Nonsense { address, api: ApiKey::Produce, why: "it mentions no partition".to_owned() });
    };
    match outcome.error_code {
        ErrorCode::NONE => Ok((outcome.base_offset >= 0).then_some(outcome.base_offset)),
        // It was written before and the answer was lost.
        ErrorCode::DUPLICATE_SEQUENCE_NUMBER => Ok(None),
        code => Err(ClientError::refused(ApiKey::Produce, of(), code, outcome.error_message.as_deref())),
    }
}
