//! What the wire codec costs per request on the data path: a Produce request decoded, a Fetch response encoded. Per request
//! and partition, never per record.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringlog_micro::{Decoding, Encoding};

fn produce(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode Produce 10");
    for partitions in [1, 10, 100] {
        let decoding = Decoding::new(partitions);
        group.bench_function(BenchmarkId::from_parameter(partitions), |b| b.iter(|| decoding.decode(1)));
    }
}

fn fetch(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode Fetch 16");
    for partitions in [1, 10, 100] {
        let mut encoding = Encoding::new(partitions);
        group.bench_function(BenchmarkId::from_parameter(partitions), |b| b.iter(|| encoding.encode(1)));
    }
}

criterion_group!(benches, produce, fetch);
criterion_main!(benches);
