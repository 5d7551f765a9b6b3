//! What a run stores and a report reads: plain data, in JSON. A field is added with `#[serde(default)]`; a field that changes its
//! meaning raises [`FORMAT`]. Rates are per second, MB are 10^6 bytes, GB 10^9; names carry their units.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// The version of what is stored.
pub const FORMAT: u32 = 1;

/// One run of one command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// [`FORMAT`].
    pub format: u32,
    /// Of `ringlog-bench`.
    pub version: String,
    /// The whole command line, so that the run can be repeated.
    pub command_line: Vec<String>,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// How long all of it took.
    pub elapsed_s: f64,
    /// Whether Ctrl-C ended it early: what was measured until then is here.
    pub interrupted: bool,
    /// Where it ran.
    pub machine: Machine,
    /// What was measured.
    pub outcome: Outcome,
}

/// What a command measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Outcome {
    /// `machine`: the block that every run has, and nothing else.
    Machine,
    /// `disk`.
    Disk(Box<Grid>),
    /// `engine`.
    Engine(Box<Engine>),
    /// `load`.
    Load(Box<Load>),
}

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
    /// The highest resident set the process ever had (`VmHWM`).
    pub rss_peak_bytes: u64,
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
    /// There more than once because we sent them again: rightly so, unless the producer is idempotent.
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
    /// Whether every acknowledged record is there once, in order, byte for byte.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.corrupted + self.unknown == 0
    }
}

/// What `disk` measured: the cells of the classic claim, and what became of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Grid {
    /// The settings as name and value, in the order of the help.
    pub settings: Vec<(String, String)>,
    /// What was measured, in the order of measuring.
    pub cells: Vec<GridCell>,
    /// The claims, each held against this machine, for reads and for writes.
    pub claims: Vec<Claim>,
    /// How it was measured, and what a reader has to know about it.
    pub notes: Vec<String>,
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// A file.
    Disk,
    /// Memory, far more than the caches hold.
    Memory,
}

/// In which order values are accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// One after the other: every byte that is moved counts.
    Sequential,
    /// Anywhere: one value counts for each access.
    Random,
}

/// What is done with values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// They are read.
    Read,
    /// They are written; on a disk, and synced.
    Write,
}

/// Which way an access takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Disk: around the page cache (O_DIRECT).
    Direct,
    /// Disk: through the page cache, which does not hold it yet.
    PageCache,
    /// Memory: the processor knows the next address and can have many accesses under way.
    Independent,
    /// Memory: the next address follows from what was read.
    Dependent,
}

/// One cell of the grid.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GridCell {
    /// Where.
    pub medium: Medium,
    /// In which order.
    pub pattern: Pattern,
    /// What.
    pub direction: Direction,
    /// Which way.
    pub way: Way,
    /// Operations in flight; `None` for memory, where the processor decides.
    pub depth: Option<u32>,
    /// Bytes that an access moves.
    pub access_bytes: u64,
    /// Values of 4 bytes per second: the median of the runs.
    pub values_per_s: f64,
    /// The same, run by run.
    pub values_per_s_runs: Vec<f64>,
    /// Accesses per second, by the median.
    pub accesses_per_s: f64,
    /// 10^6 bytes moved per second, by the median.
    pub mb_per_s: f64,
    /// What fio reached in the same cell: the median of its runs.
    pub fio_values_per_s: Option<f64>,
}

/// A claim, and whether it still holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The claim.
    pub claim: String,
    /// By reads, as it was published, or by writes.
    pub direction: Direction,
    /// The ratio that the published figures give.
    pub published_ratio: f64,
    /// The ratio here.
    pub measured_ratio: f64,
    /// The smallest and the largest ratio that other depths and ways through the page cache give.
    pub measured_ratio_range: (f64, f64),
    /// The verdict.
    pub verdict: Verdict,
    /// The verdict in words, with the figures.
    pub words: String,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As published.
    Holds,
    /// The same direction, another size.
    HoldsInPart,
    /// Neither is faster.
    Draw,
    /// No more.
    NoLonger,
}

/// What `engine` measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Engine {
    /// The settings as name and value, in the order of the help.
    pub settings: Vec<(String, String)>,
    /// Rounds of appends, in the order of measuring.
    pub appends: Vec<Appends>,
    /// Reads, in the order of measuring.
    pub reads: Vec<EngineRead>,
    /// How it was measured, and what a reader has to know about it.
    pub notes: Vec<String>,
}

/// Rounds in which every partition gets a batch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Appends {
    /// How many partitions, all on one core.
    pub partitions: u32,
    /// The size of a batch.
    pub batch_bytes: u64,
    /// After how many rounds is synced: 1 is every round, 0 never.
    pub sync_rounds: u64,
    /// Each way that the same batches took.
    pub ways: Vec<AppendWay>,
    /// The start after the engine was stopped in the middle of it.
    pub recovery: Option<Recovery>,
}

/// How batches get to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppendPath {
    /// The raw limit: a direct write of a round's bytes into one file, round and round.
    Raw,
    /// The raw limit of whoever writes twice: the same, and once more into a second file, by 1 MiB.
    RawTwice,
    /// The engine: tails, journal, segments.
    Journal,
    /// A direct write (and a sync) per partition, into a file each, all in flight.
    EachDirect,
    /// The same through the page cache.
    EachBuffered,
}

/// What one way reached: medians of the runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppendWay {
    /// Which way.
    pub path: AppendPath,
    /// 10^6 bytes of batches per second.
    pub mb_per_s: f64,
    /// The same, run by run.
    pub mb_per_s_runs: Vec<f64>,
    /// User and system seconds of the process for each 10^9 bytes, kernel workers included.
    pub cpu_s_per_gb: f64,
    /// Milliseconds that a round took.
    pub round_ms: f64,
    /// `mb_per_s` as a fraction of [`AppendPath::Raw`]'s.
    pub of_raw: Option<f64>,
    /// `mb_per_s` as a fraction of [`AppendPath::RawTwice`]'s.
    pub of_raw_twice: Option<f64>,
}

/// A start after a stop without warning: medians of the runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Recovery {
    /// From nothing to partitions that take appends.
    pub elapsed_s: f64,
    /// What was replayed from the journal.
    pub replayed_bytes: u64,
    /// Rounds of the journal that were.
    pub replayed_rounds: u64,
}

/// Reading a partition from its beginning to its end, and sending it to a socket of this machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EngineRead {
    /// Where the bytes are: `tail`, `warm file`, `cold file`.
    pub source: String,
    /// The engine's: 10^6 bytes per second, the median of the runs.
    pub mb_per_s: f64,
    /// The bare loop's: the same bytes sent without the engine.
    pub raw_mb_per_s: f64,
    /// User and system seconds for each 10^9 bytes, the receiver's included.
    pub cpu_s_per_gb: f64,
    /// See `cpu_s_per_gb`.
    pub raw_cpu_s_per_gb: f64,
    /// `mb_per_s` as a fraction of `raw_mb_per_s`.
    pub of_raw: f64,
}
