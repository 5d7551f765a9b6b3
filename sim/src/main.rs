//! The binary `ringlog-sim`: runs one seed with its trace, or many with their progress and rate.

use std::process::ExitCode;
use std::thread;

use clap::{Parser, Subcommand};
use ringlog_sim::groups::plan::{Groups, Migration};
use ringlog_sim::hazards::Hazards;
use ringlog_sim::story::Choice;
use ringlog_sim::{runner, story};

#[derive(Parser)]
#[command(about = "The whole broker in one thread under one seed")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one seed and print every step of it.
    Seed {
        /// The seed.
        seed: u64,
        /// What the broker logs, too: error, warn, info, debug or trace.
        #[arg(long, default_value = "warn")]
        log: tracing::Level,
        /// Only whether it holds, without the steps.
        #[arg(long)]
        quiet: bool,
        /// Consumer groups: as the seed says, always or never.
        #[arg(long, value_enum, default_value_t)]
        groups: Groups,
        /// Members that change their protocol, where there are groups: as the seed says, always or never.
        #[arg(long, value_enum, default_value_t)]
        migration: Migration,
        /// What goes wrong beside the weather: as the seed says, always or never.
        #[arg(long, value_enum, default_value_t)]
        hazards: Hazards,
    },
    /// Run many seeds.
    Run {
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// On how many threads; by default as many as there are processors.
        #[arg(long)]
        jobs: Option<usize>,
        /// Go on after a seed that fails, and list all of them.
        #[arg(long)]
        keep_going: bool,
        /// Consumer groups: as the seeds say, always or never.
        #[arg(long, value_enum, default_value_t)]
        groups: Groups,
        /// Members that change their protocol, where there are groups: as the seed says, always or never.
        #[arg(long, value_enum, default_value_t)]
        migration: Migration,
        /// What goes wrong beside the weather: as the seed says, always or never.
        #[arg(long, value_enum, default_value_t)]
        hazards: Hazards,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Seed { seed, log, quiet, groups, migration, hazards } => {
            one(seed, Choice { groups, migration, hazards }, log, quiet)
        }
        Command::Run { from, seeds, jobs, keep_going, groups, migration, hazards } => {
            let jobs = jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
            many(from, seeds, Choice { groups, migration, hazards }, jobs, keep_going)
        }
    }
}

fn one(seed: u64, choice: Choice, log: tracing::Level, quiet: bool) -> ExitCode {
    if !quiet {
        tracing_subscriber::fmt().with_max_level(log).without_time().with_ansi(false).init();
    }
    match story::run_with(seed, choice, !quiet) {
        Ok(outcome) => {
            println!("seed {seed} holds: {outcome:?}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("seed {seed} fails: {violation}");
            ExitCode::FAILURE
        }
    }
}

fn many(from: u64, seeds: u64, choice: Choice, jobs: usize, keep_going: bool) -> ExitCode {
    // Panics are how a seed fails: told once, below.
    std::panic::set_hook(Box::new(|_| {}));
    let report = runner::run(from, seeds, choice, jobs, keep_going, |line| println!("{line}"));
    println!("{:?}", report.total);
    for (seed, violation) in &report.failed {
        println!("seed {seed} fails: {violation}\n  {}", runner::replay(*seed, choice));
    }
    if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
