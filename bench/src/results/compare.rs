//! What `compare` measured.

use serde::{Deserialize, Serialize};

use crate::results::{Groups, Latency, Load, Verified};

/// What `compare` measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Compare {
    /// The spec's name.
    pub spec: String,
    /// What the spec is for.
    pub about: String,
    /// How often each broker was to run each workload.
    pub rounds: u32,
    /// In the order of the table; ratios are of the first to each other.
    pub brokers: Vec<ComparedBroker>,
    /// How much of a clean file was read in all, so that the page cache took what memory was free.
    pub filled_bytes: u64,
    /// The most memory that was still free after a filling; 0: the page cache was not filled.
    #[serde(default)]
    pub free_bytes_max: u64,
    /// In the order in which they ran.
    pub workloads: Vec<ComparedWorkload>,
    /// Ratios between workloads, where the spec wants them.
    #[serde(default)]
    pub across: Vec<Across>,
    /// Why it ended early, where it did; what was measured until then is here.
    pub failed: Option<String>,
}

/// A broker in a comparison.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ComparedBroker {
    /// Its name.
    pub name: String,
    /// What its description says of it.
    pub about: String,
    /// What it says of itself.
    pub version: String,
    /// How it was started the last time.
    pub command: Vec<String>,
    /// The files that its description wrote for it: name and text.
    pub files: Vec<(String, String)>,
}

/// A workload in a comparison.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ComparedWorkload {
    /// Its name.
    pub name: String,
    /// What a reader must know.
    pub about: String,
    /// Which topic configs it took.
    pub mode: String,
    /// All runs, in the order in which they took place.
    pub runs: Vec<ComparedRun>,
    /// What they come to.
    pub figures: Vec<Figure>,
}

/// One broker's run of a workload on an empty data directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ComparedRun {
    /// The broker's name.
    pub broker: String,
    /// Counted from 1.
    pub round: u32,
    /// When it began, in seconds since the comparison did.
    pub started_s: f64,
    /// The most memory that was still free after the page cache was filled for it; 0: it was not filled, or is not known.
    #[serde(default)]
    pub free_bytes_max: u64,
    /// What was measured, in its order.
    pub steps: Vec<StepRun>,
    /// What came of verifying a little more of the same load at the end, where that was done.
    #[serde(default)]
    pub verified: Option<Verified>,
}

/// A measured part of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StepRun {
    /// Its name.
    pub name: String,
    /// How the load generator was called, where it was.
    pub command_line: Vec<String>,
    /// Where the generator's own result is, below the directory of results.
    pub raw: Option<String>,
    /// What was measured.
    pub outcome: StepOutcome,
    /// What the bare loop beside it gave, where there was one.
    #[serde(default)]
    pub bare: Option<BareLoop>,
}

/// The same kind of bytes sent to a socket of this machine, or written to its disk, without a broker, right after the step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BareLoop {
    /// `send`, `sendfile`, `write` or `sync`.
    pub way: String,
    /// 10^6 bytes per second.
    pub mb_per_s: f64,
    /// Of the loops that write at a rate: from when a record was due.
    #[serde(default)]
    pub latency: Option<Latency>,
}

/// The first broker in one workload over others in another.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Across {
    /// The workload of the first broker.
    pub of: String,
    /// The workload of the others.
    pub to: String,
    /// The step of both.
    pub step: String,
    /// The metric's key.
    pub metric: String,
    /// The first broker's median over each other one's; from its least over the other's most to its most over the other's least.
    pub ratios: Vec<Ratio>,
}

/// What a part of a run measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// The load generator.
    Load(Box<Load>),
    /// Starts, stops and idling.
    StartStop(StartStop),
    /// Consumer groups.
    Groups(Box<Groups>),
    /// A clean stop and a start.
    Restart(Restart),
}

/// A clean stop and a start with all that the workload has made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// From SIGTERM to the end.
    pub stop_ms: f64,
    /// From the start of the process to the first acknowledged record.
    pub restart_clean_ms: f64,
    /// How many partitions the workload's topic has.
    pub partitions: u64,
    /// Anonymous memory some time after that.
    pub memory_bytes: u64,
    /// The same on an empty directory, before the workload.
    pub memory_empty_bytes: u64,
}

impl Default for StepOutcome {
    fn default() -> Self {
        Self::StartStop(StartStop::default())
    }
}

/// Starts, stops and idling of a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StartStop {
    /// From the start of the process on an empty directory to the first answer.
    pub ready_ms: f64,
    /// From there to the first acknowledged record of a topic that is created as soon as the broker lets us: from the process's
    /// start.
    pub first_ack_ms: f64,
    /// From SIGTERM to the end, with what was loaded in the log.
    pub stop_ms: f64,
    /// From the start after a clean stop to the first acknowledged record.
    pub restart_clean_ms: f64,
    /// From the start after a SIGKILL to the first acknowledged record.
    pub restart_killed_ms: f64,
    /// How long idling was watched.
    pub idle_s: f64,
    /// CPU time over that, per cent of one core.
    pub idle_cpu_percent: f64,
    /// Resident set at the end of it.
    pub idle_rss_bytes: u64,
    /// Waits that ended, each second.
    pub idle_switches_per_s: f64,
}

/// One figure of a workload, of all brokers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figure {
    /// The step it is of.
    pub step: String,
    /// The metric's key.
    pub metric: String,
    /// Each broker that has it.
    pub brokers: Vec<Spread>,
    /// The first broker to each other.
    pub ratios: Vec<Ratio>,
    /// What others published.
    pub published: Option<PublishedFigure>,
}

/// A broker's figure over its runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Spread {
    /// Whose.
    pub broker: String,
    /// Over its runs.
    pub median: f64,
    /// Least of them.
    pub min: f64,
    /// Most of them.
    pub max: f64,
    /// How many there are.
    pub count: u32,
}

/// One broker's median over another's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ratio {
    /// Whose median is divided.
    pub of: String,
    /// By whose.
    pub to: String,
    /// The quotient, over the rounds that both finished.
    pub median: f64,
    /// The least quotient of one round.
    pub min: f64,
    /// The greatest quotient of one round.
    pub max: f64,
}

/// A figure that somebody published.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PublishedFigure {
    /// In the metric's unit.
    pub value: f64,
    /// Under which conditions.
    pub source: String,
}
