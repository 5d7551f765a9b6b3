//! The binary `ringlog-sim`: runs one seed with its trace, or many with their progress and rate.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use ringlog_sim::story::{self, Outcome};

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
    },
}

fn main() -> ExitCode {
    // A life is short: most of a huge page would be cleared for nothing.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    match Cli::parse().command {
        Command::Seed { seed, log, quiet } => one(seed, log, quiet),
        Command::Run { from, seeds, jobs, keep_going } => {
            let jobs = jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
            many(from, seeds, jobs, keep_going)
        }
    }
}

fn one(seed: u64, log: tracing::Level, quiet: bool) -> ExitCode {
    if !quiet {
        tracing_subscriber::fmt().with_max_level(log).without_time().with_ansi(false).init();
    }
    match story::run(seed, !quiet) {
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

struct Progress {
    next: AtomicU64,
    done: AtomicU64,
    cycles: AtomicU64,
    total: Mutex<Outcome>,
    failed: Mutex<Vec<(u64, String)>>,
}

fn many(from: u64, seeds: u64, jobs: usize, keep_going: bool) -> ExitCode {
    // Panics are how a seed fails: told once, below.
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let progress = Progress {
        next: AtomicU64::new(from),
        done: AtomicU64::new(0),
        cycles: AtomicU64::new(0),
        total: Mutex::default(),
        failed: Mutex::default(),
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| work(&progress, from + seeds, keep_going));
        }
        let mut told = Instant::now();
        while progress.done.load(Ordering::Relaxed) < seeds && progress.next.load(Ordering::Relaxed) < from + seeds {
            thread::sleep(Duration::from_millis(100));
            if told.elapsed() >= Duration::from_secs(10) {
                told = Instant::now();
                tell(&progress, seeds, jobs, began);
            }
        }
    });
    tell(&progress, seeds, jobs, began);
    println!("{:?}", progress.total.lock().unwrap_or_else(PoisonError::into_inner));
    let mut failed = progress.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort();
    for (seed, violation) in &failed {
        println!("seed {seed} fails: {violation}\n  cargo run --profile sim -p ringlog-sim -- seed {seed}");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(progress: &Progress, end: u64, keep_going: bool) {
    loop {
        let seed = progress.next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        match story::run(seed, false) {
            Ok(outcome) => {
                progress.cycles.fetch_add(outcome.cycles, Ordering::Relaxed);
                progress.total.lock().unwrap_or_else(PoisonError::into_inner).add(&outcome);
            }
            Err(violation) => {
                println!("seed {seed} fails: {violation}");
                progress.failed.lock().unwrap_or_else(PoisonError::into_inner).push((seed, violation));
                if !keep_going {
                    progress.next.store(end, Ordering::Relaxed);
                }
            }
        }
        progress.done.fetch_add(1, Ordering::Relaxed);
    }
}

fn tell(progress: &Progress, seeds: u64, jobs: usize, began: Instant) {
    let (done, cycles) = (progress.done.load(Ordering::Relaxed), progress.cycles.load(Ordering::Relaxed));
    let seconds = began.elapsed().as_secs_f64();
    let failed = progress.failed.lock().unwrap_or_else(PoisonError::into_inner).len();
    println!(
        "{done} of {seeds} seeds, {failed} failed, {cycles} lives in {seconds:.0} s: {:.0} lives/s, {:.0} per thread",
        cycles as f64 / seconds,
        cycles as f64 / seconds / jobs as f64
    );
}
