//! The handlers over a whole broker of two cores in a simulation: requests are encoded, handled, and their answers decoded.

mod admin;
mod data;
mod groups;
mod versions;

use std::borrow::Cow;
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::core::{Core, CoreHandle, CoreSettings, recover, run_mailbox};
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::env::sim::Simulation;
use ringlog_engine::types::{Offset, TimestampMs};
use ringlog_protocol::api::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse};
use ringlog_protocol::api::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use ringlog_protocol::api::produce::{PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData};
use ringlog_protocol::{ApiKey, Decoder, Encoder, Message, Records, ResponseHeader};

use super::*;
use crate::broker::boot::{self, Start};
use crate::broker::tests::topic_ids;
use crate::broker::{Broker, Topic, metadata_log};
use crate::config::BrokerConfig;
use crate::net::{ConnectionInfo, Crowd, Gone, Home};

/// A broker with its handlers.
pub(super) struct Fixture {
    pub(super) broker: Arc<Broker>,
    apis: Vec<Rc<Api>>,
    correlation: Cell<i32>,
}

/// Runs `test` against a new broker of two cores.
pub(super) fn with_broker<F: Future<Output = ()>>(options: &[(&str, &str)], test: impl FnOnce(Rc<Fixture>) -> F) {
    let options: Vec<_> = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let (config, unknown) = BrokerConfig::load(None, &options).expect("the options are valid");
    assert!(unknown.is_empty(), "{unknown:?}");
    let simulation = Simulation::new(7);
    let disk = SimDisk::new(&simulation, 7);
    simulation.block_on(async {
        let data: Arc<Path> = Path::new("/data").into();
        let mount = disk.mount();
        mount.create_dir(&data).await.expect("a new disk has room");
        let recovered = recover::recover(&mount, &data).await.expect("an empty directory can be recovered");
        let settings = CoreSettings {
            data_directory: data.to_path_buf(),
            journal_bytes: 64 << 20,
            journal_run_bytes_max: 512 << 10,
            tail_bytes: 64 << 20,
            open_files_max: 64,
        };
        let (handles, receivers): (Vec<_>, Vec<_>) = (0..2).map(CoreHandle::new).unzip();
        let handles: Arc<[CoreHandle]> = handles.into();
        let mut cores = Vec::new();
        for (index, receiver) in receivers.into_iter().enumerate() {
            let core = Core::new(index, settings.clone(), mount.clone(), simulation.env(), Box::new(|_, _, _| false)).await;
            let core = core.expect("a core on a sound disk");
            core.start();
            core.env.spawn(Box::pin(run_mailbox(core.clone(), receiver)));
            cores.push(core);
        }
        let start = Start {
            config: Arc::new(config),
            cluster_id: "cluster-of-tests".to_owned(),
            data_dir: data,
            recovered,
            new_topic_id: topic_ids(7),
            snapshot_records: metadata_log::SNAPSHOT_RECORDS,
        };
        let broker = boot::boot(&cores[0], handles, start).await.expect("an empty directory boots");
        let apis = cores.into_iter().map(|core| Api::new(BrokerCore::new(broker.clone(), core))).collect();
        test(Rc::new(Fixture { broker, apis, correlation: Cell::new(1) })).await;
    });
}

pub(super) fn context(api: ApiKey, api_version: i16, correlation_id: i32) -> RequestContext {
    let connection = ConnectionInfo {
        crowd: Crowd::default(),
        gone: Gone::default(),
        id: 1,
        peer: "127.0.0.1:50000".parse().unwrap(),
        local: "127.0.0.1:9092".parse().unwrap(),
        listener: "PLAINTEXT".into(),
        principal: "User:ANONYMOUS".into(),
        home: Home::dealt_to(0),
    };
    let connection = Rc::new(connection);
    RequestContext { connection, client_id: None, api, api_version, correlation_id, version_unsupported: false }
}

pub(super) fn encode<'a>(request: &impl Message<'a>, version: i16) -> Bytes {
    let mut encoder = Encoder::new();
    request.encode(&mut encoder, version);
    encoder.into_buffer().into()
}

/// An answer, with the bytes that it may borrow.
pub(super) struct Answer {
    body: Vec<u8>,
    version: i16,
}

impl Answer {
    /// The answer decoded; every byte belongs to it.
    pub(super) fn read<'a, M: Message<'a>>(&'a self) -> M {
        let mut decoder = Decoder::new(&self.body);
        let message = M::decode(&mut decoder, self.version).expect("the answer can be decoded");
        assert_eq!(decoder.remaining(), 0, "{} version {} has bytes left", M::API, self.version);
        message
    }
}

impl Fixture {
    /// Starts a request on a connection of `core`: what a connection does with it, without the waiting.
    pub(super) fn start<'a, M: Message<'a>>(&self, core: usize, request: &M, version: i16) -> LocalBoxFuture<Outcome> {
        let correlation = self.correlation.replace(self.correlation.get() + 1);
        let mut handling = self.apis[core].clone().handle(context(M::API, version, correlation), encode(request, version));
        let mut ready = None;
        let waker = std::task::Waker::noop();
        if let std::task::Poll::Ready(outcome) = handling.as_mut().poll(&mut std::task::Context::from_waker(waker)) {
            ready = Some(outcome);
        }
        match ready {
            Some(outcome) => Box::pin(std::future::ready(outcome)),
            None => handling,
        }
    }

    pub(super) async fn ask_on<'a, M: Message<'a>>(&self, core: usize, request: &M, version: i16) -> Answer {
        let outcome = self.start(core, request, version).await;
        answer(outcome, M::API, version).await
    }

    pub(super) async fn ask<'a, M: Message<'a>>(&self, request: &M, version: i16) -> Answer {
        self.ask_on(0, request, version).await
    }

    pub(super) fn topic(&self, name: &str) -> Arc<Topic> {
        self.broker.topics.load().by_name(name).expect("the topic exists").clone()
    }

    /// Creates a topic.
    pub(super) async fn create(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Arc<Topic> {
        let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
            name: (*name).to_owned().into(),
            value: Some((*value).to_owned().into()),
        };
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: name.into(),
                num_partitions: partitions,
                replication_factor: 1,
                configs: configs.iter().map(config).collect(),
                ..CreatableTopic::default()
            }],
            ..CreateTopicsRequest::default()
        };
        let answer = self.ask(&request, 7).await;
        let response: CreateTopicsResponse<'_> = answer.read();
        let result = &response.topics[0];
        assert_eq!(result.error_code, ErrorCode::NONE, "{:?}", result.error_message);
        self.topic(name)
    }

    /// A partition of a topic that lives on `core`, where it has one.
    pub(super) fn partition_on(&self, topic: &Topic, core: usize) -> i32 {
        let found = topic.partitions.iter().find(|partition| partition.core == core);
        found.expect("partitions go round the cores").id.index
    }
}

pub(super) async fn answer(outcome: Outcome, api: ApiKey, version: i16) -> Answer {
    let Outcome::Reply(response) = outcome else {
        match outcome {
            Outcome::Close(reason) => panic!("{api} version {version} closed the connection: {reason}"),
            _ => panic!("{api} version {version} was not answered"),
        }
    };
    let bytes = response.into_bytes().await;
    let mut decoder = Decoder::new(&bytes[4..]);
    ResponseHeader::decode(&mut decoder, api, version).expect("the answer has a header");
    Answer { body: decoder.rest().to_vec(), version }
}

/// A batch of records with these values, made now.
pub(super) fn batch(values: &[&str]) -> Vec<u8> {
    batch_at(1_767_225_600_000, values)
}

pub(super) fn batch_at(timestamp: i64, values: &[&str]) -> Vec<u8> {
    let start = BatchBuilder::new(Offset(0));
    let add = |builder: BatchBuilder, value: &&str| builder.record(TimestampMs(timestamp), None, Some(value.as_bytes()));
    values.iter().fold(start, add).build()
}

/// A request to produce one batch; by id where the version wants that.
pub(super) fn produce<'a>(topic: &'a Topic, partition: i32, records: &'a [u8], acks: i16) -> ProduceRequest<'a> {
    ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: Cow::Borrowed(&topic.name),
            topic_id: topic.id.0,
            partition_data: vec![PartitionProduceData { index: partition, records: Records::Bytes(records) }],
        }],
        ..ProduceRequest::default()
    }
}

/// The answer to a request for one partition: error, base offset.
pub(super) fn produced(answer: &Answer) -> (ErrorCode, i64) {
    let response: ProduceResponse<'_> = answer.read();
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

pub(super) fn fetch<'a>(topic: &'a Topic, partition: i32, offset: i64) -> FetchRequest<'a> {
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![FetchTopic {
            topic: Cow::Borrowed(&topic.name),
            topic_id: topic.id.0,
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: offset,
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            }],
        }],
        ..FetchRequest::default()
    }
}

/// The answer to a fetch of one partition: error, high watermark, the offsets and values of its records.
pub(super) fn fetched(answer: &Answer) -> (ErrorCode, i64, Vec<(i64, String)>) {
    let response: FetchResponse<'_> = answer.read();
    assert_eq!((response.error_code, response.session_id), (ErrorCode::NONE, 0));
    let partition = &response.responses[0].partitions[0];
    (partition.error_code, partition.high_watermark, values(partition.records.bytes().unwrap_or_default()))
}

pub(super) fn values(records: &[u8]) -> Vec<(i64, String)> {
    let mut values = Vec::new();
    for batch in ringlog_engine::batch::batches(records) {
        let batch = batch.expect("a sound batch");
        batch.check_crc().expect("a sound batch");
        for record in &batch.records(1 << 20).expect("records") {
            let record = record.expect("a sound record");
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            values.push((batch.header().offset_of(&record).0, value));
        }
    }
    values
}
