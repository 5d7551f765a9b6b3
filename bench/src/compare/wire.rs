//! As much of a client as `compare` needs itself: whether a broker answers, and its first acknowledged record. One request at a
//! time, blocking, with a bound on every wait and every size. Load is the load generator's.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::types::{Offset, TimestampMs};
use ringlog_protocol::api::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use ringlog_protocol::api::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse};
use ringlog_protocol::api::produce::{PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData};
use ringlog_protocol::{
    ApiKey, Decoder, Encoder, ErrorCode, Message, Records, RequestHeader, ResponseHeader, begin_request, finish_frame,
};

/// The versions that are spoken: old enough for every broker of today, new enough for Kafka 4.
const API_VERSIONS: i16 = 0;
const CREATE_TOPICS: i16 = 4;
const PRODUCE: i16 = 8;

const ANSWER_BYTES_MAX: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to a broker on this machine.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    correlation_id: i32,
}

impl Connection {
    /// Connects to loopback.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream, correlation_id: 0 })
    }

    /// Whether the broker answers ApiVersions.
    ///
    /// # Errors
    /// It does not, or the answer is none of Kafka's.
    pub(super) fn api_versions(&mut self) -> io::Result<()> {
        let answer = self.exchange(&ApiVersionsRequest::default(), API_VERSIONS)?;
        let answer: ApiVersionsResponse = decode(&answer, API_VERSIONS)?;
        if answer.error_code.is_none() { Ok(()) } else { Err(refused(ApiKey::ApiVersions, answer.error_code)) }
    }

    /// Creates a topic without replication.
    ///
    /// # Errors
    /// The broker cannot be reached. What it says itself is in the result.
    pub(super) fn create_topic<'a>(
        &mut self,
        name: &str,
        partitions: i32,
        configs: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> io::Result<ErrorCode> {
        let config =
            |(name, value): (&'a String, &'a String)| CreatableTopicConfig { name: name.into(), value: Some(value.into()) };
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.into_iter().map(config).collect(),
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let answer = self.exchange(&request, CREATE_TOPICS)?;
        let answer: CreateTopicsResponse = decode(&answer, CREATE_TOPICS)?;
        match answer.topics.as_slice() {
            [topic] => Ok(topic.error_code),
            _ => Err(invalid("the answer to CreateTopics is not about the one topic that was asked for")),
        }
    }

    /// Produces one record with `acks=all`.
    ///
    /// # Errors
    /// The broker cannot be reached. What it says itself is in the result.
    pub(super) fn produce(&mut self, topic: &str, partition: i32) -> io::Result<ErrorCode> {
        let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let batch = BatchBuilder::new(Offset(0)).record(TimestampMs(now_ms), None, Some(b"first")).build();
        let data = PartitionProduceData { index: partition, records: Records::Bytes(&batch) };
        let data = TopicProduceData { name: topic.into(), partition_data: vec![data], ..TopicProduceData::default() };
        let request = ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![data], ..ProduceRequest::default() };
        let answer = self.exchange(&request, PRODUCE)?;
        let answer: ProduceResponse = decode(&answer, PRODUCE)?;
        match answer.responses.first().and_then(|topic| topic.partition_responses.first()) {
            Some(partition) => Ok(partition.error_code),
            None => Err(invalid("the answer to Produce is not about the partition that was produced to")),
        }
    }

    /// Sends a request and returns the body of its answer.
    fn exchange<'a, M: Message<'a>>(&mut self, request: &M, version: i16) -> io::Result<Vec<u8>> {
        self.correlation_id += 1;
        let header = RequestHeader {
            api_key: M::API.key(),
            api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some("ringlog-bench".into()),
        };
        let mut encoder = Encoder::new();
        let start = begin_request(&mut encoder, &header);
        request.encode(&mut encoder, version);
        finish_frame(&mut encoder, start);
        self.stream.write_all(encoder.buffer())?;
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let size = usize::try_from(i32::from_be_bytes(size)).unwrap_or(usize::MAX);
        if size > ANSWER_BYTES_MAX {
            return Err(invalid("the answer is none of Kafka's protocol"));
        }
        let mut answer = vec![0; size];
        self.stream.read_exact(&mut answer)?;
        let mut decoder = Decoder::new(&answer);
        let header = ResponseHeader::decode(&mut decoder, M::API, version).map_err(invalid)?;
        if header.correlation_id != self.correlation_id {
            return Err(invalid("the answer is to another request"));
        }
        Ok(decoder.rest().to_vec())
    }
}

fn decode<'a, M: Message<'a>>(answer: &'a [u8], version: i16) -> io::Result<M> {
    M::decode(&mut Decoder::new(answer), version).map_err(invalid)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn refused(api: ApiKey, error: ErrorCode) -> io::Error {
    io::Error::other(format!("{} is answered with {error}", api.name()))
}
