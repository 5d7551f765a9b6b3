//! The arguments of `groups`, and what they come to. Nonsense is refused here, before any broker is asked. Pure.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::error::Error;
use crate::load::client::resolve;
use crate::results::GroupProtocol;
use crate::units;

/// Where nothing else is said: nobody but us has a topic of this name.
pub(super) const TOPIC: &str = "ringlog-bench-groups";

/// Partitions that members share.
const PARTITIONS: u64 = 1000;

/// Members of a group of idle ones.
pub(super) const GROUP_MEMBERS: usize = 100;

/// The arguments of `groups`.
#[derive(Clone, Debug, Args)]
pub struct GroupsCommand {
    /// Where the broker listens; more than one after commas.
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    bootstrap: String,
    /// Go on although the broker is on another machine.
    #[arg(long)]
    allow_remote: bool,
    /// The broker's process, to tell what CPU time its heartbeats and commits take, and what memory its groups.
    #[arg(long)]
    pid: Option<u32>,
    /// What to measure [default: all but memory, store and load].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,
    /// How groups speak.
    #[arg(long, value_enum, default_value_t)]
    protocol: Protocols,
    /// The topic that groups share. One that is not there is created, and deleted at the end; only `store` leaves it, and `load`
    /// deletes it under this name and no other.
    #[arg(long, default_value = TOPIC)]
    topic: String,
    /// Partitions of the topic [default: 1000; 1 where memory alone is measured].
    #[arg(long, value_parser = units::count, value_name = "N")]
    partitions: Option<u64>,
    /// Members of a group that rebalances.
    #[arg(long, default_value = "100", value_parser = units::count, value_name = "N")]
    members: u64,
    /// How often rebalances and takeovers are measured; a median is kept.
    #[arg(long, default_value = "5", value_parser = units::count, value_name = "N")]
    rounds: u64,
    /// How often a member that waits for its partitions sends a heartbeat. A client waits for its heartbeat interval, which is the
    /// protocol's wait and not the broker's.
    #[arg(long, default_value = "20ms", value_parser = units::duration, value_name = "TIME")]
    beat: Duration,
    /// Session timeout of a member that vanishes from a classic group; KIP-848's is the broker's.
    #[arg(long, default_value = "6s", value_parser = units::duration, value_name = "TIME")]
    session: Duration,
    /// Members that send heartbeats at their protocol's interval, 100 to a group, each over a connection of its own.
    #[arg(long, default_value = "10k", value_parser = units::count, value_name = "N")]
    heartbeat_members: u64,
    /// Groups of each kind whose memory is measured: with a committed offset alone, and with a member of either protocol that has all
    /// of the topic and committed an offset. A broker may bound what they take (Ringlog: ringlog.group.memory.bytes).
    #[arg(long, default_value = "20k", value_parser = units::count, value_name = "N")]
    idle_groups: u64,
    /// How long the broker rests before its memory is read: it may keep what was just written for a while.
    #[arg(long, default_value = "75s", value_parser = units::duration, value_name = "TIME")]
    rest: Duration,
    /// How long heartbeats, and each kind of commits and fetches, are watched.
    #[arg(long, default_value = "15s", value_parser = units::duration, value_name = "TIME")]
    duration: Duration,
    /// How long they go on before they are watched.
    #[arg(long, default_value = "3s", value_parser = units::duration, value_name = "TIME")]
    warm_up: Duration,
    /// Offsets that are committed for a restart.
    #[arg(long, default_value = "100k", value_parser = units::count, value_name = "N")]
    offsets: u64,
    /// Threads that send commits and fetches.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// How long a request may go without an answer.
    #[arg(long, default_value = "30s", value_parser = units::duration, value_name = "TIME")]
    timeout: Duration,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Many members join, until each has its partitions.
    Rebalance,
    /// One of two members says that it goes, until the other has its partitions.
    Leave,
    /// One of two members says nothing any more, until the other has its partitions.
    Vanish,
    /// What many idle members' heartbeats cost.
    Heartbeats,
    /// What the same bytes over as many connections cost a server that only echoes them: the machine's share of that.
    Echo,
    /// Commits of an offset, as fast as they go.
    Commits,
    /// Fetches of an offset, as fast as they go.
    Fetches,
    /// The memory that groups take which do nothing (needs --pid).
    Memory,
    /// Commits many offsets and leaves them, for `load` after a restart.
    Store,
    /// Waits for the broker until it serves what `store` left, and removes that.
    Load,
}

impl Part {
    const ALL: [Self; 7] =
        [Self::Rebalance, Self::Leave, Self::Vanish, Self::Heartbeats, Self::Echo, Self::Commits, Self::Fetches];

    /// For progress and settings.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rebalance => "rebalance",
            Self::Leave => "leave",
            Self::Vanish => "vanish",
            Self::Heartbeats => "heartbeats",
            Self::Echo => "echo",
            Self::Commits => "commits",
            Self::Fetches => "fetches",
            Self::Memory => "memory",
            Self::Store => "store",
            Self::Load => "load",
        }
    }

    /// Whether it has members, which speak one protocol or the other.
    pub(super) fn has_members(self) -> bool {
        matches!(self, Self::Rebalance | Self::Leave | Self::Vanish | Self::Heartbeats | Self::Memory)
    }
}

/// How groups speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Protocols {
    /// JoinGroup, SyncGroup, Heartbeat.
    Classic,
    /// KIP-848.
    Consumer,
    /// One after the other; where the broker lacks KIP-848's, the classic one alone.
    #[default]
    Both,
}

/// What the arguments come to.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub addresses: Vec<SocketAddr>,
    pub allow_remote: bool,
    pub pid: Option<u32>,
    pub parts: Vec<Part>,
    pub protocols: Vec<GroupProtocol>,
    pub topic: String,
    pub partitions: u32,
    pub members: usize,
    pub rounds: usize,
    pub beat: Duration,
    pub session: Duration,
    pub heartbeat_members: usize,
    pub idle_groups: usize,
    pub rest: Duration,
    pub duration: Duration,
    pub warm_up: Duration,
    pub offsets: u32,
    pub threads: usize,
    pub timeout: Duration,
}

impl GroupsCommand {
    /// What the arguments come to.
    ///
    /// # Errors
    /// They make no sense.
    pub(crate) fn plan(&self) -> Result<Plan, Error> {
        let within = |name: &str, value: u64, max: u64| match value {
            0 => Err(Error::Usage(format!("--{name}: more than 0"))),
            value if value > max => Err(Error::Usage(format!("--{name}: at most {max}"))),
            value => Ok(value),
        };
        let parts = if self.only.is_empty() { Part::ALL.to_vec() } else { self.only.clone() };
        let default = if parts == [Part::Memory] { 1 } else { PARTITIONS };
        let partitions = within("partitions", self.partitions.unwrap_or(default), 100_000)? as u32;
        let members = within("members", self.members, 10_000)?;
        if parts.contains(&Part::Memory) && self.pid.is_none() {
            return Err(Error::Usage("memory: --pid names the broker's process, whose memory is measured".to_owned()));
        }
        if parts.contains(&Part::Rebalance) && members > u64::from(partitions) {
            return Err(Error::Usage(format!(
                "{members} members cannot share {partitions} partitions: some would never get one"
            )));
        }
        if let Some(part) = parts.iter().find(|part| matches!(part, Part::Leave | Part::Vanish))
            && partitions < 2
        {
            return Err(Error::Usage(format!("{}: two members cannot share 1 partition", part.name())));
        }
        let idle = self.heartbeat_members.min(GROUP_MEMBERS as u64);
        if parts.contains(&Part::Heartbeats) && idle > u64::from(partitions) {
            return Err(Error::Usage(format!("groups of {idle} idle members cannot share {partitions} partitions")));
        }
        for (name, duration) in
            [("beat", self.beat), ("session", self.session), ("duration", self.duration), ("timeout", self.timeout)]
        {
            within(name, duration.as_micros() as u64, 3_600_000_000)?;
        }
        if self.session <= self.beat * 2 {
            return Err(Error::Usage(
                "--session: more than twice --beat, or members that are there are taken for gone".to_owned(),
            ));
        }
        Ok(Plan {
            addresses: resolve(&self.bootstrap, self.allow_remote)?,
            allow_remote: self.allow_remote,
            pid: self.pid,
            parts,
            protocols: match self.protocol {
                Protocols::Classic => vec![GroupProtocol::Classic],
                Protocols::Consumer => vec![GroupProtocol::Consumer],
                Protocols::Both => vec![GroupProtocol::Classic, GroupProtocol::Consumer],
            },
            topic: self.topic.clone(),
            partitions,
            members: members as usize,
            rounds: within("rounds", self.rounds, 1000)? as usize,
            beat: self.beat,
            session: self.session,
            heartbeat_members: within("heartbeat-members", self.heartbeat_members, 100_000)? as usize,
            idle_groups: within("idle-groups", self.idle_groups, 1_000_000)? as usize,
            rest: self.rest,
            duration: self.duration,
            warm_up: self.warm_up,
            offsets: within("offsets", self.offsets, 10_000_000)? as u32,
            threads: self.threads.into(),
            timeout: self.timeout,
        })
    }
}

impl Plan {
    /// Whether any part has members.
    pub(super) fn needs_members(&self) -> bool {
        self.parts.iter().any(|part| part.has_members())
    }

    /// Name and value, for the result.
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        let parts: Vec<_> = self.parts.iter().map(|part| part.name()).collect();
        let pairs = [
            ("parts", parts.join(", ")),
            ("partitions", self.partitions.to_string()),
            ("a waiting member's heartbeats", format!("every {:?}", self.beat)),
            ("watched", format!("{:?} after {:?}", self.duration, self.warm_up)),
            ("threads", self.threads.to_string()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn plan(line: &str) -> Result<Plan, Error> {
        let cli = Cli::try_parse_from(["ringlog-bench", "groups"].into_iter().chain(line.split_whitespace())).unwrap();
        let Command::Groups(command) = cli.command else { panic!("{line}") };
        command.plan()
    }

    #[test]
    fn without_options_all_is_measured_that_needs_no_restart() {
        let plan = plan("").unwrap();
        assert_eq!((plan.members, plan.partitions, plan.heartbeat_members, plan.offsets), (100, 1000, 10_000, 100_000));
        assert_eq!(plan.protocols, [GroupProtocol::Classic, GroupProtocol::Consumer]);
        let others = [Part::Memory, Part::Store, Part::Load];
        assert!(!others.iter().any(|part| plan.parts.contains(part)) && plan.parts.len() == 7);
    }

    #[test]
    fn a_group_whose_memory_is_measured_has_little() {
        let partitions = |line: &str| plan(line).unwrap().partitions;
        assert_eq!(partitions("--only memory --pid 1"), 1);
        assert_eq!(partitions("--only memory --pid 1 --partitions 7"), 7);
        assert_eq!(partitions("--only rebalance,memory --pid 1"), 1000);
    }

    #[test]
    fn nonsense_is_refused() {
        for (line, words) in [
            ("--members 0", "--members: more than 0"),
            ("--members 5 --partitions 4", "cannot share 4 partitions"),
            ("--members 2 --partitions 99", "groups of 100 idle members"),
            ("--only commits,leave --partitions 1", "leave: two members cannot share 1 partition"),
            ("--only vanish --partitions 1", "vanish: two members"),
            ("--partitions 1M", "at most 100000"),
            ("--rounds 0", "--rounds"),
            ("--beat 0s", "--beat"),
            ("--session 30ms", "--session"),
            ("--duration 0s", "--duration"),
            ("--offsets 0", "--offsets"),
            ("--only memory", "memory: --pid"),
            ("--only memory --pid 1 --idle-groups 0", "--idle-groups"),
            ("--heartbeat-members 1M", "--heartbeat-members"),
            ("--bootstrap 192.0.2.1:9092", "--allow-remote"),
        ] {
            let error = plan(line).unwrap_err();
            assert!(error.to_string().contains(words) && error.exit_status() == 2, "{line}: {error}");
        }
        assert!(plan("--bootstrap 192.0.2.1:9092 --allow-remote --only leave,load --partitions 2").is_ok());
        assert!(
            plan("--only commits,fetches,store,load --partitions 1").is_ok(),
            "who rebalances nothing needs no partitions for it"
        );
    }
}
