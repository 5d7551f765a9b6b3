//! Patterns of topic names, as members give them (KIP-848): RE2's syntax, the whole name has to match. A pattern is made into a table
//! once, and a name is then matched in one step per byte, whatever the pattern. What would make a large table is refused, so no
//! client's pattern holds up the others.

use std::error::Error;

use regex_automata::dfa::dense::{BuildError, Builder, Config, DFA};
use regex_automata::dfa::{Automaton, StartKind};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4 << 10;
/// The longest pattern that has to do with other characters than those of topic names: sets of them are large.
const UNICODE_PATTERN_BYTES_MAX: usize = 128;
/// What a pattern may take on its way to the table.
const STATES_BYTES_MAX: usize = 128 << 10;
/// What the table may take, and the making of it.
const TABLE_BYTES_MAX: usize = 256 << 10;

/// A pattern that can be matched.
pub(super) struct Pattern(Box<DFA<Vec<u32>>>);

impl Pattern {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let is_unicode = !text.is_ascii() || text.contains(r"\p") || text.contains(r"\P");
        let bytes_max = if is_unicode { UNICODE_PATTERN_BYTES_MAX } else { PATTERN_BYTES_MAX };
        if text.len() > bytes_max {
            let kind = if is_unicode { " with other characters than those of topic names" } else { "" };
            return Err(format!("it is longer than the {bytes_max} bytes of a pattern{kind}"));
        }
        if let Some(flag) = unknown_flag(text) {
            return Err(format!("the flag {flag} is not known"));
        }
        // As in RE2, \w and \d are letters and digits of ASCII. All ways to match are followed: the end of the name decides.
        let config = Config::new()
            .start_kind(StartKind::Anchored)
            .match_kind(MatchKind::All)
            .accelerate(false)
            .dfa_size_limit(Some(TABLE_BYTES_MAX))
            .determinize_size_limit(Some(TABLE_BYTES_MAX));
        let states =
            thompson::Config::new().utf8(false).which_captures(WhichCaptures::None).nfa_size_limit(Some(STATES_BYTES_MAX));
        let built = Builder::new()
            .configure(config)
            .thompson(states)
            .syntax(syntax::Config::new().unicode(is_unicode).utf8(false))
            .build(text);
        built.map(|table| Self(Box::new(table))).map_err(|error| in_a_line(&error))
    }

    /// Whether a name matches.
    pub(super) fn matches(&self, topic: &str) -> bool {
        let table = &*self.0;
        let input = Input::new(topic).anchored(Anchored::Yes);
        let Ok(mut state) = table.start_state_forward(&input) else { return false };
        for byte in topic.bytes() {
            state = table.next_state(state, byte);
            if table.is_dead_state(state) || table.is_quit_state(state) {
                return false;
            }
        }
        table.is_match_state(table.next_eoi_state(state))
    }

    /// What it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<DFA<Vec<u32>>>() + self.0.memory_usage()
    }
}

/// A flag that a group sets and RE2 does not know, but our parser does: u would make large sets of small ones, and with x there may
/// be something between a parenthesis and the question mark, so that flags are not seen here.
fn unknown_flag(text: &str) -> Option<char> {
    text.split("(?").skip(1).find_map(|group| {
        let end = group.find(|character: char| !character.is_ascii_alphabetic() && character != '-').unwrap_or(group.len());
        let (flags, rest) = group.split_at(end);
        flags.chars().find(|flag| matches!(flag, 'u' | 'x' | 'R')).filter(|_| rest.starts_with([':', ')']))
    })
}

/// The first cause. The parser draws where a pattern is wrong, and says what in the last line.
fn in_a_line(error: &BuildError) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    if error.is_size_limit_exceeded() || text.contains("exceeded limit") {
        return "it is too large, or its repetitions are".to_owned();
    }
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_whole_name_has_to_match() {
        let matched = |pattern: &str| {
            let pattern = Pattern::new(pattern).unwrap();
            ["a", "b", "bc", "ab", "xa", "cb", ""].into_iter().filter(|name| pattern.matches(name)).collect::<Vec<_>>()
        };
        assert_eq!(matched("a|b.*"), ["a", "b", "bc"]);
        assert_eq!(matched("a|ab"), ["a", "ab"]);
        assert_eq!(matched("^a$"), ["a"]);
        assert_eq!(matched("(?i)X?A"), ["a", "xa"]);
        assert_eq!(matched(r"\pL\p{Greek}*"), ["a", "b"]);
        assert_eq!(matched(r"\bb\w?\b"), ["b", "bc"]);
        assert_eq!(matched("[^b]*"), ["a", "xa", ""]);
        assert_eq!(matched(""), [""]);
    }

    #[test]
    fn what_people_write_is_taken() {
        let names = (0..60).map(|at| format!("company.domain-{at}.events.v1")).collect::<Vec<_>>().join("|");
        let pattern = Pattern::new(&names).unwrap();
        assert!(pattern.matches("company.domain-59.events.v1") && !pattern.matches("company.domain-60.events.v1"));
        for pattern in
            [r"[\w.-]{1,249}", ".*(prod|test).*orders.*", r".*-\d{4}-\d{2}-\d{2}", "(a|b|c)?x{0,100}.*y", ".*[a-z]{20}"]
        {
            assert!(Pattern::new(pattern).is_ok_and(|pattern| pattern.bytes() < 64 << 10), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_or_too_much_of_one_is_refused() {
        let long = "a".repeat(9000);
        let texts = ["(", "a)|(b", "[", "*", "(?=a)", r"(a)\1", "(a{1000}){1000}", &long, r"(?iu)\w", "(?i-u:a)"];
        for text in texts {
            assert!(Pattern::new(text).is_err(), "{}", &text[..text.len().min(20)]);
        }
        assert_eq!(Pattern::new("(a").err().as_deref(), Some("unclosed group"));
        for (flag, text) in [('u', r"(?iu:\w)"), ('x', r"(?xi)( ?u)[\w]"), ('x', "a(?i-s)(?sx: ( # so\n?u) b)"), ('R', "(?R)a")] {
            assert_eq!(Pattern::new(text).err(), Some(format!("the flag {flag} is not known")), "{text}");
        }
        assert!(Pattern::new("(?i-s)x(?U:u+)(?<x>u)(?P<u>x)").unwrap().matches("XUUX"));
        // Engines that go back and try again take for ever.
        assert!(!Pattern::new("(a+)+b").unwrap().matches(&"a".repeat(249)));
    }

    #[test]
    fn what_would_cost_much_is_too_large() {
        let bombs = ["(?:a?b?){1500}c", "(?:a|b)*a(?:a|b){30}", ".{0,1000}x.{0,1000}", "(?:.?){4000}", "((a{100}){100}){100}"];
        for bomb in bombs {
            assert_eq!(Pattern::new(bomb).err().as_deref(), Some("it is too large, or its repetitions are"), "{bomb}");
        }
        assert!(Pattern::new(&r"(?i)\pL".repeat(30)).is_err(), "many large sets");
        for text in [r"\w{249}", "a{0,249}"] {
            assert!(Pattern::new(text).unwrap().bytes() <= TABLE_BYTES_MAX + (2 << 10), "{text}");
        }
    }

    proptest! {
        /// What an alternation and a repetition match, said otherwise.
        #[test]
        fn a_table_matches_what_the_pattern_says(name in "[ab]{0,8}", words in prop::collection::vec("[ab]{1,3}", 1..5)) {
            let pattern = Pattern::new(&format!("(?:{})*", words.join("|"))).unwrap();
            let mut reached = vec![true];
            for end in 1..=name.len() {
                let is_reached = words.iter().any(|word| name[..end].ends_with(&**word) && reached[end - word.len()]);
                reached.push(is_reached);
            }
            prop_assert_eq!(pattern.matches(&name), reached[name.len()]);
        }
    }
}
