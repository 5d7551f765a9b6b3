//! Counts rounds against time and CPU. For [`super`].

use std::time::{Duration, Instant};

use crate::process::Reading;

/// What a loop reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) mb_per_s: f64,
    pub(super) cpu_s_per_gb: f64,
    pub(super) round_ms: f64,
}

/// A loop's clock.
pub(super) struct Meter {
    start: Instant,
    cpu: Option<Reading>,
    pub(super) rounds: u64,
    pub(super) bytes: u64,
}

impl Meter {
    pub(super) fn start() -> Self {
        Self { start: Instant::now(), cpu: Reading::take(std::process::id()).ok(), rounds: 0, bytes: 0 }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Notes a round of so many bytes.
    pub(super) fn round(&mut self, bytes: u64) {
        self.rounds += 1;
        self.bytes += bytes;
    }

    /// `None` where there was no round.
    pub(super) fn figures(&self) -> Option<Figures> {
        let elapsed_s = self.elapsed().as_secs_f64();
        let used = self.cpu.as_ref().and_then(|cpu| cpu.used_since(std::process::id(), self.bytes).ok());
        (self.rounds > 0 && self.bytes > 0 && elapsed_s > 0.0).then(|| Figures {
            mb_per_s: self.bytes as f64 / 1e6 / elapsed_s,
            cpu_s_per_gb: used.map_or(0.0, |used| used.cpu_s_per_gb),
            round_ms: elapsed_s * 1e3 / self.rounds as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_become_figures() {
        let mut meter = Meter::start();
        assert!(meter.figures().is_none());
        std::thread::sleep(Duration::from_millis(20));
        meter.round(1_000_000);
        meter.round(1_000_000);
        let figures = meter.figures().unwrap();
        let elapsed_s = figures.round_ms * 2.0 / 1e3;
        assert!(elapsed_s >= 0.02, "{figures:?}");
        assert!((figures.mb_per_s * elapsed_s - 2.0).abs() < 1e-6, "{figures:?}");
        assert!(figures.cpu_s_per_gb >= 0.0);
    }
}
