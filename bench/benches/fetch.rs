//! What it costs to plan a fetch: from the tail, and the look-up in a segment's index.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringlog_micro::{IndexLookUps, Plans};

fn plan(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan a fetch from the tail");
    let mut plans = Plans::new();
    for kib in [16, 1024] {
        group.bench_function(BenchmarkId::new("KiB", kib), |b| b.iter(|| plans.plan(1, kib << 10)));
    }
}

fn index(c: &mut Criterion) {
    let mut group = c.benchmark_group("look an offset up in an index");
    for entries in [100, 10_000, 260_000] {
        let mut look_ups = IndexLookUps::new(entries);
        group.bench_function(BenchmarkId::new("entries", entries), |b| b.iter(|| look_ups.look_up(1)));
    }
}

criterion_group!(benches, plan, index);
criterion_main!(benches);
