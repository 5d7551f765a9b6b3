//! Patterns of topic names, as members give them (KIP-848): RE2's syntax, the whole name has to match. The engine takes time in
//! proportion to the name and the pattern, and what a pattern may take is bounded, so that no client's pattern holds up the others.

use regex::{Regex, RegexBuilder};

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 8 << 10;
/// What a compiled pattern may take.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// A pattern that can be matched.
pub(super) struct Pattern(Regex);

impl Pattern {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("it is longer than {PATTERN_BYTES_MAX} bytes"));
        }
        let compile = |text: &str| {
            RegexBuilder::new(text)
                .size_limit(COMPILED_BYTES_MAX)
                .dfa_size_limit(COMPILED_BYTES_MAX)
                .build()
                .map_err(|error| in_a_line(&error.to_string()))
        };
        // By itself too: it may not close the group that is put around it.
        compile(text)?;
        compile(&format!("^(?:{text})$")).map(Self)
    }

    pub(super) fn matches(&self, topic: &str) -> bool {
        self.0.is_match(topic)
    }
}

/// The engine draws where it is wrong, and says what in the last line.
fn in_a_line(error: &str) -> String {
    error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_name_has_to_match() {
        let pattern = Pattern::new("a|b.*").unwrap();
        let matches: Vec<&str> = ["a", "b", "bc", "ab", "xa", "cb"].into_iter().filter(|name| pattern.matches(name)).collect();
        assert_eq!(matches, ["a", "b", "bc"]);
    }

    #[test]
    fn what_is_no_pattern_or_too_much_of_one_is_refused() {
        for text in ["(", "a)|(b", "[", "*", "(?=a)", r"(a)\1", "(a{1000}){1000}", &"a".repeat(9000), "(?x)a #"] {
            assert!(Pattern::new(text).is_err(), "{}", &text[..text.len().min(20)]);
        }
        assert_eq!(Pattern::new("(a").err().as_deref(), Some("unclosed group"));
        // Engines that go back and try again take for ever.
        assert!(!Pattern::new("(a+)+b").unwrap().matches(&"a".repeat(249)));
    }
}
