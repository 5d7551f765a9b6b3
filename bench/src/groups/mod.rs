//! `ringlog-bench groups`: what consumer groups cost on any broker that speaks Kafka's protocol, and how quickly they come to rest.
//! Groups of the classic protocol and of KIP-848's; brokers are driven from outside alone, over the load generator's client.
//!
//! [`classic`] and [`consumer`] are members; [`member`] has what both do until a [`board`] says that all is dealt out. [`rebalance`],
//! [`heartbeats`], [`memory`] and [`offsets`] measure; [`echo`] measures what heartbeats are held against; [`scene`] makes what they
//! need on the broker, and removes it, whatever happens.

mod board;
mod classic;
mod consumer;
mod echo;
pub mod echo_server;
mod heartbeats;
mod member;
mod memory;
pub(crate) mod offsets;
mod options;
mod rebalance;
mod scene;
mod table;

use std::time::Instant;

use clap::Parser;

use crate::cli::{Cli, Command, Shared};
use crate::error::Error;
use crate::load::client::ClientError;
use crate::load::raise_file_limit;
use crate::process::{Reading, check_room_of};
use crate::progress::Progress;
use crate::results::{Cause, GroupProtocol, Groups, OffsetCall};
use crate::stop;
use ringlog_protocol::ErrorCode;

pub use options::GroupsCommand;
pub(crate) use options::{Part, Plan};
pub use table::{print, tables};

use scene::Scene;

/// What is asked for on the broker's disk: commits are small, and many.
const KEPT_BYTES: u64 = 256 << 20;

/// What a call of `groups` with these arguments comes to, for `compare`.
///
/// # Errors
/// They make no sense.
pub(crate) fn plan_of(arguments: &[String]) -> Result<Plan, Error> {
    let command_line = ["ringlog-bench", "groups"].into_iter().chain(arguments.iter().map(String::as_str));
    let cli = Cli::try_parse_from(command_line).map_err(|error| {
        let text = error.to_string();
        Error::Usage(text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned())
    })?;
    match cli.command {
        Command::Groups(command) => command.plan(),
        _ => Err(Error::Usage("it is no call of groups".to_owned())),
    }
}

/// Checks the arguments.
///
/// # Errors
/// They make no sense.
pub fn check(command: &GroupsCommand) -> Result<(), Error> {
    command.plan().map(drop)
}

/// Measures.
///
/// # Errors
/// [`Error::Usage`] for arguments that make no sense, [`Error::Failed`] where the broker does not do what it should.
pub fn run(command: &GroupsCommand, shared: &Shared) -> Result<Groups, Error> {
    let plan = command.plan()?;
    raise_file_limit();
    let progress = Progress::new(shared.quiet);
    let own = Reading::take(std::process::id()).ok();
    let broker = match plan.pid.map(|pid| (pid, Reading::take(pid))) {
        None => None,
        Some((pid, Ok(reading))) => Some((pid, reading)),
        Some((pid, Err(error))) => return Err(Error::Usage(format!("--pid {pid}: {error}"))),
    };
    if let Some(pid) = plan.pid {
        check_room_of(pid, KEPT_BYTES)?;
    }
    let mut groups = Groups { settings: plan.settings(), ..Groups::default() };
    let mut scene = Scene::open(&plan)?;
    let measured = measure(&mut scene, &progress, &mut groups);
    groups.notes.append(&mut scene.notes);
    scene.clean_up(measured.is_err());
    if let Err(error) = measured
        && (groups.is_empty() || !stop::requested())
    {
        return Err(if stop::requested() { Error::Failed("stopped before anything was measured".to_owned()) } else { error });
    }
    groups.broker = broker.and_then(|(pid, reading)| reading.used_since(pid, 0).ok());
    groups.generator = own.and_then(|reading| reading.used_since(std::process::id(), 0).ok()).unwrap_or_default();
    Ok(groups)
}

/// Every part, in its order; what is measured is in `groups` at once.
fn measure(scene: &mut Scene<'_>, progress: &Progress, groups: &mut Groups) -> Result<(), Error> {
    let plan = scene.plan;
    let mut protocols = plan.protocols.clone();
    if plan.needs_members() && protocols.contains(&GroupProtocol::Consumer) && !scene.has_consumer_protocol()? {
        let lacks = "the broker has no groups of the protocol \"consumer\" (KIP-848)";
        protocols.retain(|protocol| *protocol != GroupProtocol::Consumer);
        if protocols.is_empty() {
            return Err(Error::Usage(format!("{lacks}; --protocol classic does without")));
        }
        groups.notes.push(format!("{lacks}: their figures are left out"));
    }
    let in_all = plan.parts.iter().map(|part| if part.has_members() && *part != Part::Memory { protocols.len() } else { 1 });
    let bar = progress.count("groups", in_all.sum::<usize>() as u64);
    for part in &plan.parts {
        // What is measured with both protocols side by side is one piece.
        let each: Vec<&[GroupProtocol]> = match part {
            Part::Memory => vec![&protocols],
            part if part.has_members() => protocols.chunks(1).collect(),
            _ => vec![&[]],
        };
        for protocols in each {
            let names = std::iter::once(part.name()).chain(protocols.iter().map(|protocol| protocol.name()));
            let title = names.collect::<Vec<_>>().join(", ");
            bar.set_message(title.clone());
            let began = Instant::now();
            let measured = one(scene, *part, protocols, groups);
            if measured.is_err() {
                bar.finish_and_clear();
            }
            measured?;
            bar.suspend(|| progress.note(&format!("{title}: {:.1} s", began.elapsed().as_secs_f64())));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn one(scene: &mut Scene<'_>, part: Part, protocols: &[GroupProtocol], groups: &mut Groups) -> Result<(), Error> {
    let protocol = protocols.first().copied().unwrap_or_default();
    match part {
        Part::Rebalance => groups.rebalances.push(rebalance::rebalance(scene, protocol)?),
        Part::Leave => groups.takeovers.push(rebalance::takeover(scene, protocol, Cause::Leave)?),
        Part::Vanish => groups.takeovers.push(rebalance::takeover(scene, protocol, Cause::Vanish)?),
        Part::Heartbeats => groups.heartbeats.push(heartbeats::measure(scene, protocol)?),
        Part::Echo => groups.echo = Some(echo::measure(scene)?),
        Part::Commits | Part::Fetches => {
            let call = if part == Part::Commits { OffsetCall::Commit } else { OffsetCall::Fetch };
            for (connections, in_flight) in offsets::SHAPES {
                groups.rates.push(offsets::rate(scene, call, connections, in_flight)?);
            }
        }
        Part::Memory => memory::measure(scene, protocols, &mut groups.memory)?,
        Part::Store => groups.stored = Some(offsets::store(scene)?),
        Part::Load => groups.loaded = Some(offsets::load(scene)?),
    }
    Ok(())
}

/// What ends a wait after Ctrl-C.
fn stopped() -> ClientError {
    ClientError::Unfit("stopped".to_owned())
}

/// An error of a group's, or none.
fn check_group(api: ringlog_protocol::ApiKey, group: &str, code: ErrorCode, words: Option<&str>) -> Result<(), ClientError> {
    if code.is_none() { Ok(()) } else { Err(ClientError::refused(api, format!("of group {group}"), code, words)) }
}

/// Milliseconds from one to the other.
fn ms_between(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1e3
}

/// The middle of the times; 0 of none.
fn median(times: &[f64]) -> f64 {
    crate::disk::median(times).unwrap_or(0.0)
}
