//! Many seeds on a few threads, with progress. A seed's own thread is all that it needs: nothing is shared between seeds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::story::{self, Choice, Outcome};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What a run came to.
#[derive(Debug, Default)]
pub struct Report {
    /// All seeds that hold, together.
    pub total: Outcome,
    /// The seeds that do not, and what was violated.
    pub failed: Vec<(u64, String)>,
}

/// How to run a seed again and see its steps.
#[must_use]
pub fn replay(seed: u64, choice: Choice) -> String {
    format!("cargo run --profile sim -p ringlog-sim -- seed {seed}{}", choice.options())
}

struct Progress {
    next: AtomicU64,
    end: AtomicU64,
    done: AtomicU64,
    report: Mutex<Report>,
}

/// Runs `seeds` seeds from `from` on, on `jobs` threads. Without `keep_going` none begins after one that fails. `tell` gets a
/// line now and then, and each failure at once.
pub fn run(from: u64, seeds: u64, choice: Choice, jobs: usize, keep_going: bool, tell: impl Fn(&str) + Sync) -> Report {
    let began = Instant::now();
    let end = from.saturating_add(seeds);
    let progress =
        Progress { next: AtomicU64::new(from), end: AtomicU64::new(end), done: AtomicU64::new(0), report: Mutex::default() };
    let line = || {
        let report = progress.report.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, failed, lives) = (progress.done.load(Ordering::Relaxed), report.failed.len(), report.total.cycles);
        let seconds = began.elapsed().as_secs_f64();
        let rate = lives as f64 / seconds;
        let per_thread = rate / jobs as f64;
        format!(
            "{done} of {seeds} seeds, {failed} failed, {lives} lives in {seconds:.0} s: {rate:.0} lives/s, {per_thread:.0} per thread"
        )
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(|| work(&progress, choice, keep_going, &tell))).collect();
        let mut told = Instant::now();
        while !workers.iter().all(|worker| worker.is_finished()) {
            thread::sleep(Duration::from_millis(20));
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                tell(&line());
            }
        }
    });
    tell(&line());
    let mut report = progress.report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.failed.sort();
    report
}

fn work(progress: &Progress, choice: Choice, keep_going: bool, tell: &(impl Fn(&str) + Sync)) {
    loop {
        let seed = progress.next.fetch_add(1, Ordering::Relaxed);
        if seed >= progress.end.load(Ordering::Relaxed) {
            return;
        }
        let result = story::run_with(seed, choice, false);
        let mut report = progress.report.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(outcome) => report.total.add(&outcome),
            Err(violation) => {
                tell(&format!("seed {seed} fails: {violation}"));
                report.failed.push((seed, violation));
                if !keep_going {
                    progress.end.store(0, Ordering::Relaxed);
                }
            }
        }
        progress.done.fetch_add(1, Ordering::Relaxed);
    }
}
