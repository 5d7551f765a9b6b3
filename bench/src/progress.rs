//! Progress on the terminal: a bar with rate and time left where the end is known, a spinner where not. Nothing with `--quiet` or
//! without a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Whether and how progress is shown.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    shown: bool,
    quiet: bool,
}

impl Progress {
    /// Shown on a terminal, unless `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Self { shown: !quiet && std::io::stderr().is_terminal(), quiet }
    }

    /// A bar over bytes.
    #[must_use]
    pub fn bytes(&self, title: &str, total_bytes: u64) -> ProgressBar {
        self.bar(title, Some(total_bytes), "{bytes}/{total_bytes} {bytes_per_sec} {eta} left")
    }

    /// A bar over records, runs, or whatever is counted.
    #[must_use]
    pub fn count(&self, title: &str, total: u64) -> ProgressBar {
        self.bar(title, Some(total), "{human_pos}/{human_len} {per_sec} {eta} left")
    }

    /// A bar over milliseconds; the rate is the caller's to put into the message.
    #[must_use]
    pub fn time(&self, title: &str, total: Duration) -> ProgressBar {
        self.bar(title, Some(total.as_millis() as u64), "{eta} left")
    }

    /// A spinner for what has no known end.
    #[must_use]
    pub fn spinner(&self, title: &str) -> ProgressBar {
        self.bar(title, None, "{elapsed}")
    }

    fn bar(&self, title: &str, total: Option<u64>, figures: &str) -> ProgressBar {
        let target = if self.shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = match total {
            Some(_) => format!("{{msg}} {{wide_bar}} {figures}"),
            None => format!("{{spinner}} {{msg}} {figures}"),
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        bar.set_message(title.to_owned());
        if self.shown {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        bar
    }

    /// A line that whoever looks at the results later should know of too: on a terminal or not, unless quiet.
    pub fn warn(&self, bar: &ProgressBar, line: &str) {
        if !self.quiet {
            bar.suspend(|| eprintln!("ringlog-bench: {line}"));
        }
    }

    /// A line to the user's terminal that is not a result.
    pub fn note(&self, line: &str) {
        if self.shown {
            eprintln!("{line}");
        }
    }
}
