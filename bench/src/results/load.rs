//! What `load` measured.

use serde::{Deserialize, Serialize};

/// What `load` measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// The workload's settings as name and value, in the order of the help.
    pub settings: Vec<(String, String)>,
    /// Producers, where there are any.
    pub produce: Option<Side>,
    /// Consumers, where there are any.
    pub consume: Option<Side>,
    /// The broker's process, where its pid was given.
    pub broker: Option<ProcessUse>,
    /// The generator itself.
    pub generator: ProcessUse,
    /// Why the generator, not the broker, may have been what was measured.
    pub generator_bound: Option<String>,
    /// What `--verify` found.
    pub verify: Option<Verified>,
}

/// All producers, or all consumers, of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Side {
    /// Records acknowledged, or received.
    pub records: u64,
    /// Their batches' bytes on the wire.
    pub bytes: u64,
    /// From the first request to the last answer.
    pub elapsed_s: f64,
    /// Records per second.
    pub records_per_s: f64,
    /// 10^6 bytes per second.
    pub mb_per_s: f64,
    /// Of requests: from the intended sending in an open loop, from the sending in a closed one; for `end-to-end`, of records.
    pub latency: Option<Latency>,
    /// One per second, so that stalls are seen.
    pub seconds: Vec<Second>,
    /// Requests that failed, by the error's name.
    pub errors: Vec<(String, u64)>,
}

/// A distribution of latencies.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Microseconds.
    pub min_us: u64,
    /// Microseconds.
    pub mean_us: f64,
    /// Microseconds.
    pub p50_us: u64,
    /// Microseconds.
    pub p90_us: u64,
    /// Microseconds.
    pub p99_us: u64,
    /// Microseconds.
    pub p99_9_us: u64,
    /// Microseconds.
    pub p99_99_us: u64,
    /// Microseconds.
    pub max_us: u64,
    /// Value (µs) at each percentile, for the chart: what HdrHistogram's recorded steps give.
    pub curve: Vec<(f64, u64)>,
    /// The `.hlog` beside the run's file, where there is one.
    pub hlog: Option<String>,
}

/// One second of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Second {
    /// Counted from the run's start.
    pub second: u32,
    /// Records in it.
    pub records: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Microseconds; 0 without latencies.
    pub p50_us: u64,
    /// Microseconds; 0 without latencies.
    pub p99_us: u64,
    /// Microseconds; 0 without latencies.
    pub max_us: u64,
}

/// What a process used over a run, from /proc.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessUse {
    /// User and system seconds.
    pub cpu_s: f64,
    /// For each 10^9 bytes that were produced and consumed.
    pub cpu_s_per_gb: f64,
    /// The highest resident set (`VmHWM`): of this run where `rss_peak_of_run`, else of all the process's life.
    pub rss_peak_bytes: u64,
    /// See `rss_peak_bytes`.
    #[serde(default)]
    pub rss_peak_of_run: bool,
    /// The resident set at the end.
    pub rss_bytes: u64,
    /// Bytes sent to storage (`write_bytes`), where /proc/PID/io may be read.
    pub written_bytes: Option<u64>,
    /// Bytes fetched from storage (`read_bytes`).
    pub read_bytes: Option<u64>,
    /// Context switches of all its threads: waits, and preemptions.
    pub switches_voluntary: u64,
    /// See `switches_voluntary`.
    pub switches_involuntary: u64,
}

/// What `--verify` found: what was acknowledged, held against what was read back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Records that the broker acknowledged.
    pub acknowledged: u64,
    /// Records that were read back and are whole.
    pub received: u64,
    /// Acknowledged and not there.
    pub lost: u64,
    /// There more than once.
    pub duplicated: u64,
    /// There more than once because we, or the client library, sent them again: rightly so, unless the producer is idempotent.
    #[serde(default)]
    pub duplicated_by_retry: u64,
    /// There, behind one that was sent later.
    pub reordered: u64,
    /// The same because we sent them again, rightly so unless the producer is idempotent.
    #[serde(default)]
    pub reordered_by_retry: u64,
    /// There with other bytes than were sent.
    pub corrupted: u64,
    /// There and never sent by this run.
    pub unknown: u64,
    /// The first findings, in words.
    pub findings: Vec<String>,
}

impl Verified {
    /// How many records have which fault, in words.
    #[must_use]
    pub fn faults(&self) -> String {
        let Self { acknowledged, lost, duplicated, reordered, corrupted, unknown, .. } = self;
        format!(
            "{acknowledged} acknowledged records {lost} were lost, {duplicated} duplicated, {reordered} reordered, {corrupted} corrupted, {unknown} unknown"
        )
    }

    /// Whether every acknowledged record is there once, in order, byte for byte.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.corrupted + self.unknown == 0
    }
}
