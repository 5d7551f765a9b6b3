//! What the wire codec costs per request on the data path: a Produce request decoded, a Fetch response encoded. Per request
//! and partition, never per record.
#![allow(clippy::unwrap_used, reason = "a benchmark may end where it fails")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringlog_protocol::api::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use ringlog_protocol::api::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ringlog_protocol::{Decoder, Encoder, Records};

const PRODUCE_VERSION: i16 = 10;
const FETCH_VERSION: i16 = 16;

fn produce(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode Produce 10");
    let records = vec![0; 16 << 10];
    for partitions in [1, 10, 100] {
        let partition_data =
            (0..partitions).map(|index| PartitionProduceData { index, records: Records::Bytes(&records) }).collect();
        let topic = TopicProduceData { name: "bench".into(), partition_data, ..Default::default() };
        let request = ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
        let mut encoder = Encoder::new();
        request.encode(&mut encoder, PRODUCE_VERSION);
        let body = encoder.into_buffer();
        group.bench_function(BenchmarkId::from_parameter(partitions), |b| {
            b.iter(|| ProduceRequest::decode(&mut Decoder::new(black_box(&body)), PRODUCE_VERSION).unwrap().topic_data.len());
        });
    }
}

fn fetch(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode Fetch 16");
    for partitions in [1, 10, 100] {
        let partitions_data = (0..partitions)
            .map(|partition_index| PartitionData {
                partition_index,
                high_watermark: 1_000_000,
                last_stable_offset: 1_000_000,
                records: Records::Hole(1 << 20),
                ..Default::default()
            })
            .collect();
        let topic = FetchableTopicResponse { topic_id: [7; 16], partitions: partitions_data, ..Default::default() };
        let response = FetchResponse { responses: vec![topic], ..Default::default() };
        let mut encoder = Encoder::new();
        group.bench_function(BenchmarkId::from_parameter(partitions), |b| {
            b.iter(|| {
                encoder.clear();
                black_box(&response).encode(&mut encoder, FETCH_VERSION);
                encoder.size()
            });
        });
    }
}

criterion_group!(benches, produce, fetch);
criterion_main!(benches);
