//! Log lines that somebody outside can provoke as often as they like: the first is logged, and then one in a while, which says how
//! many were not. For one thread; whoever logs has one for each kind of line.

use std::cell::Cell;
use std::fmt::{self, Display, Write};
use std::time::Duration;

/// How often a trouble that goes on is logged.
const INTERVAL: Duration = Duration::from_secs(10);

/// How much of somebody else's text goes into a line.
const TEXT_CHARS_MAX: usize = 300;

/// What somebody else wrote, on a part of one line whatever they put into it.
pub fn one_line(text: impl Display) -> String {
    let mut line = OneLine { line: String::new(), room: TEXT_CHARS_MAX };
    if write!(line, "{text}").is_err() {
        line.line.push('…');
    }
    line.line
}

/// Takes so many characters, and then no more.
struct OneLine {
    line: String,
    room: usize,
}

impl Write for OneLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            self.room = self.room.checked_sub(1).ok_or(fmt::Error)?;
            // What breaks lines or turns them around, and what a terminal obeys.
            if char.is_control() || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
                self.line.extend(char.escape_unicode());
            } else {
                self.line.push(char);
            }
        }
        Ok(())
    }
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
        assert_eq!(one_line("it's \"a\"\n2026 ERROR \u{1b}[31m ä"), "it's \"a\"\\u{a}2026 ERROR \\u{1b}[31m ä");
        assert_eq!(one_line("a\u{202e}b"), "a\\u{202e}b");
        let long = one_line("ü".repeat(1_000_000));
        assert_eq!(long.chars().count(), TEXT_CHARS_MAX + 1);
        assert!(long.ends_with('…'));
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
