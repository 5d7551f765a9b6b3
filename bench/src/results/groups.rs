//! What `groups` measured.

use serde::{Deserialize, Serialize};

use crate::results::{Latency, ProcessUse};

/// What `groups` measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Groups {
    /// The settings as name and value, in the order of the help.
    pub settings: Vec<(String, String)>,
    /// Many members join, until each has its partitions.
    pub rebalances: Vec<Rebalance>,
    /// One of two members goes, until the other has its partitions.
    pub takeovers: Vec<Takeover>,
    /// Many members that only say that they are there.
    pub heartbeats: Vec<Heartbeats>,
    /// What a server takes of that which only echoes.
    #[serde(default)]
    pub echo: Option<Echo>,
    /// Commits and fetches of offsets, as fast as they go.
    pub rates: Vec<OffsetRate>,
    /// What groups take that do nothing.
    #[serde(default)]
    pub memory: Vec<GroupMemory>,
    /// Offsets committed for a restart.
    pub stored: Option<OffsetsStored>,
    /// The same offsets, after the restart.
    pub loaded: Option<OffsetsLoaded>,
    /// The broker's process over all of it, where its pid was given.
    pub broker: Option<ProcessUse>,
    /// Our own.
    pub generator: ProcessUse,
    /// What a reader has to know.
    pub notes: Vec<String>,
}

impl Groups {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rebalances.is_empty()
            && self.takeovers.is_empty()
            && self.heartbeats.is_empty()
            && self.echo.is_none()
            && self.rates.is_empty()
            && self.memory.is_empty()
            && self.stored.is_none()
            && self.loaded.is_none()
    }
}

/// Which of Kafka's two protocols a group speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupProtocol {
    /// JoinGroup, SyncGroup, Heartbeat.
    #[default]
    Classic,
    /// ConsumerGroupHeartbeat (KIP-848).
    Consumer,
}

impl GroupProtocol {
    /// As Kafka's `group.protocol` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        }
    }
}

/// From the last member's joining until each member has its partitions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Rebalance {
    /// How the group speaks.
    pub protocol: GroupProtocol,
    /// How many share
    pub members: u64,
    /// how many partitions.
    pub partitions: u64,
    /// The first time, of a new group: with the broker's delay for it (`group.initial.rebalance.delay.ms`).
    pub first_ms: f64,
    /// Each later time.
    pub times_ms: Vec<f64>,
    /// Their median.
    pub median_ms: f64,
}

/// How a member goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It says so.
    #[default]
    Leave,
    /// It says nothing any more.
    Vanish,
}

/// From a member's going until the other one has all partitions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Takeover {
    /// How the group speaks.
    pub protocol: GroupProtocol,
    /// How the member went.
    pub cause: Cause,
    /// The session timeout, which is not in the times; 0 where the member says that it goes.
    pub session_ms: u64,
    /// Each time. Beyond the session timeout, counted from the last heartbeat, where the member vanished.
    pub times_ms: Vec<f64>,
    /// Their median.
    pub median_ms: f64,
}

/// Members that do nothing but say that they are there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Heartbeats {
    /// How their groups speak.
    pub protocol: GroupProtocol,
    /// How many members, each over a connection of its own,
    pub members: u64,
    /// in how many groups.
    pub groups: u64,
    /// How often each of them says it.
    pub interval_ms: u64,
    /// How long that was watched.
    pub elapsed_s: f64,
    /// Heartbeats answered.
    pub count: u64,
    /// Each second.
    pub per_s: f64,
    /// From sending to answer.
    pub latency: Option<Latency>,
    /// The broker's CPU time, per cent of one core, where its pid was given.
    pub broker_cpu_percent: Option<f64>,
    /// Our own.
    pub generator_cpu_percent: f64,
}

/// The bytes of heartbeats, exchanged with a server that does nothing but that.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Echo {
    /// Over how many connections,
    pub connections: u64,
    /// served by how many threads.
    pub threads: u64,
    /// The size of a request,
    pub request_bytes: u64,
    /// and of its answer.
    pub answer_bytes: u64,
    /// How often each connection has one.
    pub interval_ms: u64,
    /// How long that was watched.
    pub elapsed_s: f64,
    /// Requests answered.
    pub count: u64,
    /// Each second.
    pub per_s: f64,
    /// From sending to answer.
    pub latency: Option<Latency>,
    /// The server's CPU time, per cent of one core.
    pub server_cpu_percent: Option<f64>,
    /// Our own.
    pub generator_cpu_percent: f64,
}

/// What is done with offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OffsetCall {
    /// OffsetCommit of one partition.
    #[default]
    Commit,
    /// OffsetFetch of one partition.
    Fetch,
}

/// How fast offsets are committed or fetched.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OffsetRate {
    /// What is done.
    pub call: OffsetCall,
    /// Over how many connections, each for a group of its own.
    pub connections: u64,
    /// How many each has without an answer.
    pub in_flight: u64,
    /// How long that was watched.
    pub elapsed_s: f64,
    /// How many were answered.
    pub count: u64,
    /// Each second.
    pub per_s: f64,
    /// From sending to answer.
    pub latency: Option<Latency>,
    /// The broker's CPU time for each, where its pid was given.
    pub broker_cpu_us: Option<f64>,
    /// Our own, per cent of one core.
    pub generator_cpu_percent: f64,
}

/// What groups of one kind take of the broker's memory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GroupMemory {
    /// How their one member speaks; none: they have no member, and a committed offset alone.
    pub member: Option<GroupProtocol>,
    /// How many groups were made.
    pub groups: u64,
    /// Resident anonymous memory of the broker's process before that,
    pub before_bytes: u64,
    /// and after it.
    pub after_bytes: u64,
    /// What each group takes.
    pub each_bytes: f64,
}

/// Offsets committed for a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OffsetsStored {
    /// Of how many partitions, in all groups.
    pub offsets: u64,
    /// In how many groups.
    pub groups: u64,
    /// How long all of them took.
    pub ms: f64,
}

/// Offsets that a broker serves again after its restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OffsetsLoaded {
    /// Of how many partitions, in all groups.
    pub offsets: u64,
    /// From the broker's first answer to the last offset's.
    pub since_answer_ms: f64,
    /// From the start of the broker's process to the last offset's answer, where we started it.
    pub since_start_ms: Option<f64>,
}
