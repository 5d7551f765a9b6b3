//! What a run of the binary came to: status, words, and the result that it printed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Output;

use ringlog_bench::results::{Outcome, Run};

/// A run that has ended.
pub(crate) struct Ran<T> {
    pub status: i32,
    pub stderr: String,
    /// What it printed, where it printed a result.
    pub measured: Option<T>,
}

impl<T> Ran<T> {
    /// `of` takes the outcome that the command has. No run may panic.
    pub(crate) fn new(output: Output, of: fn(Outcome) -> T) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        let run: Option<Run> = serde_json::from_slice(&output.stdout).ok();
        Self { status: output.status.code().unwrap(), stderr, measured: run.map(|run| of(run.outcome)) }
    }

    /// It went well.
    pub(crate) fn ok(self) -> T {
        assert_eq!(self.status, 0, "{}", self.stderr);
        self.measured.unwrap()
    }

    /// It failed with one line that holds `words`, and left no result.
    pub(crate) fn failed(&self, status: i32, words: &str) {
        assert_eq!(self.status, status, "{}", self.stderr);
        assert!(self.measured.is_none());
        assert_eq!(self.stderr.trim().lines().count(), 1, "{}", self.stderr);
        assert!(self.stderr.contains(words), "{words:?} is not in {}", self.stderr);
    }
}
