//! `ringlog-bench load`: a load generator for any broker that speaks Kafka's protocol. It drives brokers from outside alone, and
//! says where it itself, not the broker, was what was measured.
//!
//! Lanes, each a producer's or a consumer's connection, live on a few threads; the main thread ([`session`]) moves them through
//! the phases of a run and collects what they count.

mod admin;
mod batches;
pub(crate) mod client;
mod consume;
mod content;
mod control;
mod lanes;
#[cfg(feature = "librdkafka")]
mod librdkafka;
pub(crate) mod measure;
mod options;
mod pace;
mod plan;
mod print;
mod produce;
mod ranges;
mod read_back;
mod retry;
mod session;
mod verify;
mod verify_log;

use clap::Args;

use crate::cli::Shared;
use crate::error::Error;
use crate::progress::Progress;
use crate::results::Load;
use crate::store::Beside;
use measure::Role;
use options::LoadCommand;

pub use options::ClientKind;
pub(crate) use options::NO_LIBRDKAFKA;
pub use print::print;
pub(crate) use session::raise_file_limit;

/// `load`.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: LoadCommand,
}

/// Checks the arguments.
///
/// # Errors
/// They make no sense.
pub fn check(args: &LoadArgs) -> Result<(), Error> {
    args.command.plan().map(drop)
}

/// Runs a load. With its result come the `.hlog` files that are to be kept beside it.
///
/// # Errors
/// [`Error::Usage`] for arguments that make no sense, [`Error::Failed`] where the broker does not do what it should.
pub fn run(args: &LoadArgs, shared: &Shared, started_ms: u64) -> Result<(Load, Vec<Beside>), Error> {
    let plan = args.command.plan()?;
    let progress = Progress::new(shared.quiet);
    let mut finished = if plan.what == "verify" { read_back::verify(&plan, &progress)? } else { session::run(&plan, &progress)? };
    let mut logs = Vec::new();
    for (role, log) in finished.logs {
        let (name, side) = match role {
            Role::Produce => ("produce", &mut finished.load.produce),
            Role::Consume => ("consume", &mut finished.load.consume),
        };
        let name = format!("{started_ms}-load-{name}.hlog");
        if let Some(latency) = side.as_mut().and_then(|side| side.latency.as_mut()) {
            latency.hlog = Some(name.clone());
        }
        logs.push((name, log));
    }
    Ok((finished.load, logs))
}
