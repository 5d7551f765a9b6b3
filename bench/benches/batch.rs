//! What a batch costs on its way into the log: checking its header, its records and its CRC, and copying it. The copy and
//! the CRC are measured one after the other and in one pass, in blocks that stay in the first cache between the two.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark may end where it fails")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringlog_engine::batch::{BatchHeader, CRC_START, crc_of, validate_produced, validate_records};
use ringlog_micro::{batch, produce_rules};

/// The memory that the copies go round in: larger than the caches, as a partition's tail is.
const TARGET_BYTES: usize = 64 << 20;
/// What comes in while a target goes round once comes from memory that was just written by the socket.
const SOURCES: usize = 8;

fn checks(c: &mut Criterion) {
    let mut group = c.benchmark_group("check");
    let bytes = batch(16 << 10, 1000);
    group.bench_function("header", |b| b.iter(|| BatchHeader::parse(black_box(&bytes))));
    group.bench_function("produced", |b| b.iter(|| validate_produced(black_box(&bytes), &produce_rules())));
    for value_bytes in [10, 100, 1000] {
        let bytes = batch(16 << 10, value_bytes);
        let header = BatchHeader::parse(&bytes).unwrap();
        group.throughput(Throughput::Elements(header.record_count as u64));
        group.bench_function(BenchmarkId::new("records", value_bytes), |b| {
            b.iter(|| validate_records(&header, black_box(&bytes[61..]), &produce_rules()).unwrap());
        });
    }
    for size in [16 << 10, 1 << 20] {
        let bytes = batch(size, 1000);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("crc", size >> 10), |b| b.iter(|| crc_of(black_box(&bytes))));
    }
    group.finish();
}

fn copies(c: &mut Criterion) {
    for size in [4 << 10, 16 << 10, 128 << 10, 1 << 20] {
        let mut group = c.benchmark_group(format!("copy and crc of {} KiB", size >> 10));
        let sources: Vec<_> = (0..SOURCES).map(|_| batch(size, 1000)).collect();
        let bytes = sources[0].len();
        let mut target = vec![1u8; TARGET_BYTES];
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut measure = |name: &str, work: &dyn Fn(&[u8], &mut [u8]) -> u32| {
            let mut at = 0;
            let mut turn = 0;
            group.bench_function(name, |b| {
                b.iter(|| {
                    if at + bytes > TARGET_BYTES {
                        at = 0;
                    }
                    turn = (turn + 1) % SOURCES;
                    let crc = work(&sources[turn], &mut target[at..at + bytes]);
                    at += bytes;
                    crc
                });
            });
        };
        measure("copy alone", &|source, target| {
            target.copy_from_slice(source);
            0
        });
        measure("crc, then copy", &|source, target| {
            let crc = crc_of(source);
            target.copy_from_slice(source);
            crc
        });
        measure("copy, then crc", &|source, target| {
            target.copy_from_slice(source);
            crc_of(target)
        });
        for block in [1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10] {
            measure(&format!("blocks of {} KiB", block >> 10), &|source, target| {
                let (source_head, source) = source.split_at(CRC_START);
                let (target_head, target) = target.split_at_mut(CRC_START);
                target_head.copy_from_slice(source_head);
                let mut crc = 0;
                for (source, target) in source.chunks(block).zip(target.chunks_mut(block)) {
                    crc = crc32c::crc32c_append(crc, source);
                    target.copy_from_slice(source);
                }
                crc
            });
        }
        group.finish();
    }
}

criterion_group!(benches, checks, copies);
criterion_main!(benches);
