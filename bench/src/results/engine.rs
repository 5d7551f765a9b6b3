//! What `engine` measured.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum AppendPath {
    /// The raw limit: a direct write of a round's bytes into one file, round and round.
    Raw,
    /// The raw limit of whoever writes twice: the same, and once more into a second file, by 1 MiB.
    RawTwice,
    /// [`RawTwice`](Self::RawTwice) with the work on each byte that nobody can leave out who promises what the engine does:
    /// each batch's CRC checked and the batch copied out of the request, and copied again, with a CRC, into the round.
    RawCopied,
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
