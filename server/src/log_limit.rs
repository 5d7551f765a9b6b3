//! Log lines that somebody outside can provoke as often as they like: the first is logged, and then one in a while, which says how
//! many were not. For one thread; whoever logs has one for each kind of line.

use std::cell::Cell;
use std::fmt::Display;
use std::time::Duration;

/// How often a trouble that goes on is logged.
const INTERVAL: Duration = Duration::from_secs(10);

/// What somebody else wrote, on one line whatever they put into it.
pub fn one_line(text: impl Display) -> String {
    let mut line = String::new();
    for char in text.to_string().chars() {
        if char.is_control() { line.extend(char.escape_default()) } else { line.push(char) }
    }
    line
}

/// Lets one line pass in an interval.
#[derive(Debug, Default)]
pub struct LogLimit {
    passed: Cell<Option<Duration>>,
    held_back: Cell<u64>,
}

impl LogLimit {
    /// Whether a line may be logged now, on a clock that never goes back: if so, how many were held back since the last one.
    pub fn pass(&self, now: Duration) -> Option<u64> {
        if self.passed.get().is_some_and(|at| now.saturating_sub(at) < INTERVAL) {
            self.held_back.set(self.held_back.get() + 1);
            return None;
        }
        self.passed.set(Some(now));
        Some(self.held_back.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_writes_lines_of_their_own() {
        assert_eq!(one_line("it's \"a\"\n2026 ERROR \u{1b}[31m ä"), "it's \"a\"\\n2026 ERROR \\u{1b}[31m ä");
    }

    #[test]
    fn of_many_lines_one_passes_in_an_interval_and_says_how_many_did_not() {
        let limit = LogLimit::default();
        let pass = |at_s| limit.pass(Duration::from_secs(at_s));
        assert_eq!(pass(0), Some(0));
        assert_eq!((pass(1), pass(9)), (None, None));
        assert_eq!(pass(10), Some(2));
        assert_eq!(pass(11), None);
        assert_eq!(pass(100), Some(1));
        assert_eq!(pass(200), Some(0));
    }
}
