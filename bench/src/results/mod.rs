//! What a run stores and a report reads: plain data, in JSON. A field is added with `#[serde(default)]`; a field that changes its
//! meaning raises [`FORMAT`]. Rates are per second, MB are 10^6 bytes, GB 10^9; names carry their units.

mod compare;
mod disk;
mod engine;
mod groups;
mod load;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
pub use compare::{
    Across, BareLoop, Compare, ComparedBroker, ComparedRun, ComparedWorkload, Figure, PublishedFigure, Ratio, Restart, Spread,
    StartStop, StepOutcome, StepRun,
};
pub use disk::{Claim, Direction, Grid, GridCell, Medium, Pattern, Verdict, Way};
pub use engine::{AppendPath, AppendWay, Appends, Engine, EngineRead, Recovery};
pub use groups::{
    Cause, Echo, GroupMemory, GroupProtocol, Groups, Heartbeats, OffsetCall, OffsetRate, OffsetsLoaded, OffsetsStored, Rebalance,
    Takeover,
};
pub use load::{Latency, Load, ProcessUse, Second, Side, Verified};

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
    /// `groups`.
    Groups(Box<Groups>),
    /// `compare`.
    Compare(Box<Compare>),
}
