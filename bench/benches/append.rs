//! What it costs to append a batch to a partition's tail, on the core that owns it: rules, offsets, CRC and copy, index, the waiting
//! for the round. The rounds and the segments are the simulator's, between the measured steps.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringlog_micro::Appends;

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append to the tail");
    for kib in [1, 4, 16, 128] {
        let mut appends = Appends::new(kib << 10, 900);
        group.throughput(Throughput::Bytes(appends.batch_bytes() as u64));
        group.bench_function(BenchmarkId::new("KiB", kib), |b| {
            b.iter_custom(|times| {
                let (mut left, mut spent) = (usize::try_from(times).unwrap_or(usize::MAX), Duration::ZERO);
                while left > 0 {
                    let step = left.min(appends.step_batches());
                    let start = Instant::now();
                    appends.append(step);
                    spent += start.elapsed();
                    appends.settle();
                    left -= step;
                }
                spent
            });
        });
    }
}

criterion_group!(benches, append);
criterion_main!(benches);
