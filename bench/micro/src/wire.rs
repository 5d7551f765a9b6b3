//! The codec on the data path: a Produce request decoded, a Fetch response encoded.

use std::hint::black_box;

use ringlog_protocol::api::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use ringlog_protocol::api::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ringlog_protocol::{Decoder, Encoder, Records};

const PRODUCE_VERSION: i16 = 10;
const FETCH_VERSION: i16 = 16;

/// The body of a Produce request.
pub struct Decoding {
    body: Vec<u8>,
}

impl Decoding {
    /// With 16 KiB for each of so many partitions.
    #[must_use]
    pub fn new(partitions: i32) -> Self {
        let records = vec![0; 16 << 10];
        let partition_data =
            (0..partitions).map(|index| PartitionProduceData { index, records: Records::Bytes(&records) }).collect();
        let topic = TopicProduceData { name: "micro".into(), partition_data, ..Default::default() };
        let request = ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
        let mut encoder = Encoder::new();
        request.encode(&mut encoder, PRODUCE_VERSION);
        Self { body: encoder.into_buffer() }
    }

    /// Measured: decodes it so many times.
    pub fn decode(&self, count: usize) {
        for _ in 0..count {
            let request = ProduceRequest::decode(&mut Decoder::new(black_box(&self.body)), PRODUCE_VERSION).unwrap();
            black_box(request.topic_data.len());
        }
    }
}

/// A Fetch response whose records are sent from elsewhere.
pub struct Encoding {
    response: FetchResponse<'static>,
    encoder: Encoder,
}

impl Encoding {
    /// With 1 MiB for each of so many partitions.
    #[must_use]
    pub fn new(partitions: i32) -> Self {
        let data = |partition_index| PartitionData {
            partition_index,
            high_watermark: 1_000_000,
            last_stable_offset: 1_000_000,
            records: Records::Hole(1 << 20),
            ..Default::default()
        };
        let topic =
            FetchableTopicResponse { topic_id: [7; 16], partitions: (0..partitions).map(data).collect(), ..Default::default() };
        Self { response: FetchResponse { responses: vec![topic], ..Default::default() }, encoder: Encoder::new() }
    }

    /// Measured: encodes it so many times.
    pub fn encode(&mut self, count: usize) {
        for _ in 0..count {
            self.encoder.clear();
            black_box(&self.response).encode(&mut self.encoder, FETCH_VERSION);
            black_box(self.encoder.size());
        }
    }
}
