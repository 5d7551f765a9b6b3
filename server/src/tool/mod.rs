//! `ringlog` as a tool for people: topics, records, groups, settings and the state of a running broker, Ringlog's or any other that
//! speaks Kafka's protocol. Called by `main`. A client like any other: it knows nothing of the broker's inside and never touches
//! a data directory.

mod args;
mod client;
mod config;
mod consume;
mod group;
mod member;
mod offsets;
mod output;
mod partitioner;
mod produce;
mod producer;
mod record;
mod status;
mod topic;

use std::io;
use std::process::ExitCode;

pub(crate) use args::name_and_value;
pub use args::{ConfigCommand, ConsumeArgs, GroupCommand, ProduceArgs, Target, TopicCommand};
use client::{Client, ClientError};

/// A command for a running broker.
#[derive(Debug)]
pub enum Command {
    /// `ringlog topic`.
    Topic(TopicCommand),
    /// `ringlog config`.
    Config(ConfigCommand),
    /// `ringlog produce`.
    Produce(ProduceArgs),
    /// `ringlog consume`.
    Consume(ConsumeArgs),
    /// `ringlog group`.
    Group(GroupCommand),
    /// `ringlog status`.
    Status(Target),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The broker is not there, or says no.
    #[error(transparent)]
    Client(#[from] BrokerError),
    /// Arguments that do not go together, or name what is not there.
    #[error("{0}")]
    Usage(String),
    /// A line of standard input that is no record.
    #[error("line {line} of standard input: {why}")]
    Record {
        /// Its number, from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// A record batch that cannot be read.
    #[error("partition {partition} of {topic} at offset {offset}: {why}")]
    Damaged {
        /// The topic.
        topic: String,
        /// The partition's number.
        partition: i32,
        /// Where.
        offset: i64,
        /// What is wrong.
        why: String,
    },
    /// Standard input cannot be read.
    #[error("standard input cannot be read: {0}")]
    Input(io::Error),
    /// Standard output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
    /// Signals cannot be waited for.
    #[error("signals cannot be waited for: {0}")]
    Signals(io::Error),
    /// Nobody said yes.
    #[error("{0}; say --yes if that is wanted")]
    Unconfirmed(String),
    /// Somebody said no.
    #[error("nothing was changed")]
    Declined,
}

/// What the client ran into.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BrokerError(#[from] ClientError);

impl From<ClientError> for ToolError {
    fn from(error: ClientError) -> Self {
        Self::Client(error.into())
    }
}

/// Does what was asked for.
///
/// # Errors
/// Why it cannot be done.
pub fn run(command: Command) -> Result<ExitCode, ToolError> {
    let done = match command {
        Command::Topic(command) => topic::run(command),
        Command::Config(command) => config::run(command),
        Command::Produce(args) => produce::run(&args),
        Command::Consume(args) => consume::run(&args),
        Command::Group(command) => group::run(command),
        Command::Status(target) => status::run(&target),
    };
    match done {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Whoever reads has seen enough, as `head` does.
        Err(ToolError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

impl Target {
    fn client(&self) -> Result<Client, ClientError> {
        Client::new(&self.bootstrap_server, self.timeout)
    }
}
