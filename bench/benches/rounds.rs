//! Durable rounds in process, beside a bare loop in the same run: every partition gets one batch per round, and the round has to
//! be durable before the next. The bare loop writes the same bytes with one direct write into a recycled file and an fdatasync,
//! and once more into a second file in direct writes of 1 MiB, as segments get them. What the engine adds (validation,
//! offsets, copies, CRCs, bookkeeping) is the difference.
//!
//! `cargo bench -p ringlog-bench --bench rounds [-- 64x4 1000x16 ...]` (partitions × KiB; all of them without); the directory is `RINGLOG_BENCH_DIR` (default: `target/bench-rounds`). The two
//! alternate; the figures are medians. Nothing is asserted: a machine's disk is what it is.
#![allow(clippy::unwrap_used, reason = "a benchmark ends where its disk fails")]

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, BatchHeader};
use ringlog_engine::core::{Append, Core, CoreSettings, NewPartition};
use ringlog_engine::disk::ring::{RingDisk, Runtime};
use ringlog_engine::disk::{Disk, OpenOptions, Payload};
use ringlog_engine::env::real::RealEnv;
use ringlog_engine::log::append::Acks;
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::memory::Pool;
use ringlog_engine::types::{LeaderEpoch, Offset, PartitionId, TimestampMs, TopicId};
use tokio::sync::oneshot;

const CASES: [(i32, usize); 7] =
    [(1, 4 << 10), (8, 4 << 10), (64, 4 << 10), (64, 16 << 10), (1000, 4 << 10), (1000, 16 << 10), (2, 1 << 20)];
/// How often each is measured, `RINGLOG_BENCH_RUNS`.
const RUNS: u64 = 3;
/// How long the engine may take to its steady state: the journal once around, all memory touched.
const WARM_UP: Duration = Duration::from_secs(6);
/// How long a run is measured, `RINGLOG_BENCH_RUN_MS`.
const RUN_MS: u64 = 1500;
const JOURNAL_BYTES: u64 = 512 << 20;

fn main() {
    let directory = std::env::var_os("RINGLOG_BENCH_DIR").map_or_else(|| PathBuf::from("target/bench-rounds"), PathBuf::from);
    println!("| partitions × batch | bare loop MB/s (s/GB) | engine MB/s (s/GB) | engine / bare | ms per round |");
    println!("|---|---|---|---|---|");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| argument.contains('x')).collect();
    for (partitions, batch_bytes) in CASES {
        if !wanted.is_empty() && !wanted.contains(&format!("{partitions}x{}", batch_bytes >> 10)) {
            continue;
        }
        let (mut bare, mut engine) = (Vec::new(), Vec::new());
        for _ in 0..setting("RINGLOG_BENCH_RUNS", RUNS) {
            bare.push(in_runtime(&directory, |path| bare_loop(path, partitions as usize * batch_bytes)));
            engine.push(in_runtime(&directory, |path| engine_loop(path, partitions, batch_bytes)));
        }
        let (bare, engine) = (median(bare), median(engine));
        println!(
            "| {partitions} × {} KiB | {:.0} ({:.2}) | {:.0} ({:.2}) | {:.2} | {:.2} |",
            batch_bytes >> 10,
            bare.mb_per_s,
            bare.cpu_s_per_gb,
            engine.mb_per_s,
            engine.cpu_s_per_gb,
            engine.mb_per_s / bare.mb_per_s,
            engine.ms_per_round,
        );
    }
    let _ = std::fs::remove_dir_all(&directory);
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[derive(Clone, Copy)]
struct Figures {
    mb_per_s: f64,
    cpu_s_per_gb: f64,
    ms_per_round: f64,
}

fn median(mut runs: Vec<Figures>) -> Figures {
    runs.sort_by(|a, b| a.mb_per_s.total_cmp(&b.mb_per_s));
    runs[runs.len() / 2]
}

/// Runs one loop in a ring of its own, in an empty directory.
fn in_runtime<F: Future<Output = Figures>>(directory: &Path, work: impl FnOnce(PathBuf) -> F) -> Figures {
    let _ = std::fs::remove_dir_all(directory);
    std::fs::create_dir_all(directory).unwrap();
    let runtime = Runtime::with_defaults().unwrap();
    runtime.block_on(work(directory.to_owned()))
}

struct Meter {
    start: Instant,
    cpu: Duration,
    rounds: u64,
}

impl Meter {
    fn start() -> Self {
        Self { start: Instant::now(), cpu: cpu_time(), rounds: 0 }
    }

    fn figures(&self, round_bytes: usize) -> Figures {
        let (elapsed, cpu) = (self.start.elapsed().as_secs_f64(), (cpu_time() - self.cpu).as_secs_f64());
        let bytes = (self.rounds * round_bytes as u64) as f64;
        Figures {
            mb_per_s: bytes / 1e6 / elapsed,
            cpu_s_per_gb: cpu / (bytes / 1e9),
            ms_per_round: elapsed * 1e3 / self.rounds as f64,
        }
    }
}

/// User and system time of this process, kernel workers of its ring included.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

async fn bare_loop(path: PathBuf, round_bytes: usize) -> Figures {
    let disk = RingDisk::new();
    let pool = Pool::new(256 << 20);
    let journal = disk.open(&path.join("journal"), OpenOptions::DIRECT).await.unwrap();
    let segment = disk.open(&path.join("segment"), OpenOptions::DIRECT).await.unwrap();
    let len = round_bytes.next_multiple_of(4096);
    let step = 1 << 20;
    let mut at = 0;
    while at < JOURNAL_BYTES {
        let buffer = pool.buffer(step).unwrap();
        journal.write_at(Payload::Buffer { buffer, len: step }, at).await.unwrap();
        at += step as u64;
    }
    journal.sync_data().await.unwrap();
    let (mut at, mut in_segment, mut owed) = (0, 0, 0);
    let mut writing: Vec<tokio::task::JoinHandle<()>> = Vec::new();
    let run = Duration::from_millis(setting("RINGLOG_BENCH_RUN_MS", RUN_MS));
    let mut meter = Meter::start();
    while meter.start.elapsed() < run {
        if at + len as u64 > JOURNAL_BYTES {
            at = 0;
        }
        let buffer = pool.buffer(len).unwrap();
        let (written, _) = oneshot::channel();
        journal.write_and_sync(Payload::Buffer { buffer, len }, at, written).await.unwrap();
        at += len as u64;
        owed += round_bytes;
        while owed >= step {
            let (segment, buffer, position) = (segment.clone(), pool.buffer(step).unwrap(), in_segment);
            writing.push(tokio::task::spawn_local(async move {
                segment.write_at(Payload::Buffer { buffer, len: step }, position).await.unwrap();
            }));
            in_segment += step as u64;
            owed -= step;
            if writing.len() >= 4 {
                writing.remove(0).await.unwrap();
            }
        }
        meter.rounds += 1;
    }
    for write in writing {
        write.await.unwrap();
    }
    meter.figures(round_bytes)
}

async fn engine_loop(path: PathBuf, partitions: i32, batch_bytes: usize) -> Figures {
    let disk: Rc<dyn Disk> = Rc::new(RingDisk::new());
    let settings =
        CoreSettings { data_directory: path, journal_bytes: JOURNAL_BYTES, tail_bytes: 128 << 20, open_files_max: 2048 };
    let core = Core::new(0, settings, disk, Rc::new(RealEnv::new()), Box::new(|_, _, _| true)).await.unwrap();
    core.start();
    let config = Arc::new(LogConfig::default());
    let mut ids = Vec::new();
    for index in 0..partitions {
        let id = PartitionId { topic: TopicId([7; 16]), index };
        let new = NewPartition {
            id,
            folder: format!("bench-{index}"),
            config: config.clone(),
            leader_epoch: LeaderEpoch(0),
            recovery_point: Offset(0),
            log_start: Offset(0),
            clean: false,
        };
        core.open_partition(new).await.unwrap();
        ids.push(id);
    }
    core.begin().await.unwrap();
    let value = vec![7; batch_bytes - 80];
    let batch = Bytes::from(BatchBuilder::new(Offset(0)).record(TimestampMs(1), None, Some(&value)).build());
    let header = BatchHeader::parse(&batch).unwrap();
    // The first pass of the journal extends its file and the first touch of memory is dear: what is measured comes after.
    let (mut warm, mut warm_bytes) = (false, 0);
    let run = Duration::from_millis(setting("RINGLOG_BENCH_RUN_MS", RUN_MS));
    let mut meter = Meter::start();
    let mut answers = Vec::with_capacity(ids.len());
    loop {
        for &partition in &ids {
            let (reply, answer) = oneshot::channel();
            core.append(Append { partition, batch: batch.clone(), header, acks: Acks::All, reply });
            answers.push(answer);
        }
        for answer in answers.drain(..) {
            answer.await.unwrap().unwrap();
        }
        if !warm {
            warm_bytes += (batch.len() * ids.len()) as u64;
            warm = warm_bytes >= JOURNAL_BYTES || meter.start.elapsed() >= WARM_UP;
            if warm {
                meter = Meter::start();
            }
            continue;
        }
        meter.rounds += 1;
        if meter.start.elapsed() >= run {
            return meter.figures(batch.len() * ids.len());
        }
    }
}
