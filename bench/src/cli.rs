//! The command line: what all commands share, and their list. Each command has its own arguments in its own module.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::load::LoadArgs;

/// Measures how close a log gets to the limits of this machine, and how brokers that speak Kafka's protocol compare on it.
#[derive(Debug, Parser)]
#[command(name = "ringlog-bench", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
    /// What all commands share.
    #[command(flatten)]
    pub shared: Shared,
}

/// What all commands share.
#[derive(Clone, Debug, Args)]
pub struct Shared {
    /// Directory that results are kept in; test files are written below it and removed.
    #[arg(long, global = true, default_value = "bench-results", value_name = "DIR")]
    pub out: PathBuf,
    /// Print the result as JSON instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress bars.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What machine this is, and whether a measurement on it can be trusted.
    Machine,
    /// The claim behind the log, measured: random and sequential access to disk and memory, beside what was published.
    Disk(crate::disk::Settings),
    /// The engine without a network: durable appends, recovery and reads, each as a fraction of what the bare disk or socket gives.
    Engine(crate::engine::Settings),
    /// Loads a broker that speaks Kafka's protocol, and measures what it does.
    Load(Box<LoadArgs>),
    /// Consumer groups on a broker: rebalances, takeovers, heartbeats, memory, commits and fetches of offsets.
    Groups(Box<crate::groups::GroupsCommand>),
    /// Brokers beside each other: started, loaded in turn, held against each other.
    Compare(Box<crate::compare::CompareCommand>),
    /// One page from stored runs: charts, tables, every command line, links to the raw files.
    Report(crate::report::ReportCommand),
    /// Cleans up after a `compare` that is killed; nobody calls it.
    #[command(name = crate::guard::COMMAND, hide = true)]
    Guard,
    /// What `groups --only echo` measures; nobody calls it.
    #[command(name = crate::groups::echo_server::COMMAND, hide = true)]
    Echo(crate::groups::echo_server::EchoCommand),
}
