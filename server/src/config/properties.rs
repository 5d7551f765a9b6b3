//! The `.properties` text format of `server.properties`, as `java.util.Properties` reads it.
//! The broker's configuration is its only caller. It knows nothing of what the names mean, and never reads a file itself.
//!
//! The rules are those of the Java platform's documentation of `Properties.load`: comments start with `#` or `!`; the
//! key ends at the first `=`, `:` or blank that no backslash hides; a line that ends in an odd number of backslashes
//! goes on in the next one, whose leading blanks are dropped; `\t \n \r \f \uXXXX` are escapes, any other escaped
//! character stands for itself. One difference: a lone backslash at the very end is nothing here, and an empty name there.

use thiserror::Error;

/// One `key = value` of the text, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// The line it starts on, from 1.
    pub line: usize,
    /// The name; empty for a line such as `=value`, as in Java.
    pub key: String,
    /// The value; trailing blanks belong to it, as in Java.
    pub value: String,
}

/// Why a text is not a properties text. Only escapes can be wrong: every other sequence of characters means something.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SyntaxError {
    /// `\u` without four hexadecimal digits behind it.
    #[error("line {line}: \\u must be followed by four hexadecimal digits")]
    UnicodeEscape {
        /// The line the property starts on.
        line: usize,
    },
    /// Half of a UTF-16 surrogate pair: no character.
    #[error("line {line}: the \\u escapes stand for half a character (an unpaired surrogate)")]
    UnpairedSurrogate {
        /// The line the property starts on.
        line: usize,
    },
}

/// Reads a whole text. A name that comes twice is returned twice: the last one counts.
///
/// # Errors
/// The first escape that stands for no character.
pub fn parse(text: &str) -> Result<Vec<Property>, SyntaxError> {
    let mut properties = Vec::new();
    let mut lines = LogicalLines { rest: text.chars().peekable(), line: 1 };
    while let Some((line, logical)) = lines.next_line() {
        let (key, value) = split(&logical);
        properties.push(Property { line, key: unescape(key, line)?, value: unescape(value, line)? });
    }
    Ok(properties)
}

/// A blank inside a line: what Java counts as one, and no other white space.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0c')
}

struct LogicalLines<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl LogicalLines<'_> {
    /// Eats the end of a line of which `c` was the first character: `\n`, `\r` or both.
    fn line_ended(&mut self, c: char) {
        if c == '\r' && self.rest.peek() == Some(&'\n') {
            self.rest.next();
        }
        self.line += 1;
    }

    /// The next line that is neither blank nor a comment, its continuations joined to it, escapes still in place.
    fn next_line(&mut self) -> Option<(usize, String)> {
        let mut logical = String::new();
        let mut line_start = self.line;
        let mut skips_blanks = true;
        let mut continues = false; // the last line ended in a backslash, and nothing of this one was taken yet
        let mut escaped = false; // an odd number of backslashes stands before the next character
        while let Some(c) = self.rest.next() {
            let ends_line = matches!(c, '\n' | '\r');
            if skips_blanks {
                if is_blank(c) {
                    continue;
                }
                if ends_line && !continues {
                    self.line_ended(c);
                    continue;
                }
                skips_blanks = false;
                continues = false;
            }
            if logical.is_empty() {
                line_start = self.line;
                if matches!(c, '#' | '!') {
                    self.skip_comment();
                    skips_blanks = true;
                    continue;
                }
            }
            if !ends_line {
                logical.push(c);
                escaped = c == '\\' && !escaped;
                continue;
            }
            self.line_ended(c);
            if logical.is_empty() {
                skips_blanks = true;
            } else if escaped {
                logical.pop();
                escaped = false;
                skips_blanks = true;
                continues = true;
            } else {
                return Some((line_start, logical));
            }
        }
        if escaped {
            logical.pop();
        }
        if logical.is_empty() { None } else { Some((line_start, logical)) }
    }

    fn skip_comment(&mut self) {
        while let Some(c) = self.rest.next() {
            if matches!(c, '\n' | '\r') {
                self.line_ended(c);
                return;
            }
        }
    }
}

/// The key and the value of a logical line, escapes still in place.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        if !escaped && (is_blank(c) || matches!(c, '=' | ':')) {
            let behind = line[at..].trim_start_matches(is_blank);
            let value = behind.strip_prefix(['=', ':']).unwrap_or(behind);
            return (&line[..at], value.trim_start_matches(is_blank));
        }
        escaped = c == '\\' && !escaped;
    }
    (line, "")
}

fn unescape(text: &str, line: usize) -> Result<String, SyntaxError> {
    if !text.contains('\\') {
        return Ok(text.to_owned());
    }
    let mut units: Vec<u16> = Vec::with_capacity(text.len()); // Java strings are UTF-16: two escapes may make one character
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        let plain = match (c, escaped) {
            ('\\', None) => break,
            ('\\', Some('u')) => {
                units.push(hex_unit(&mut chars).ok_or(SyntaxError::UnicodeEscape { line })?);
                continue;
            }
            ('\\', Some('t')) => '\t',
            ('\\', Some('n')) => '\n',
            ('\\', Some('r')) => '\r',
            ('\\', Some('f')) => '\x0c',
            ('\\', Some(other)) => other,
            (plain, _) => plain,
        };
        units.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).map_err(|_| SyntaxError::UnpairedSurrogate { line })
}

/// The UTF-16 unit that the next four hexadecimal digits stand for.
fn hex_unit(chars: &mut std::str::Chars<'_>) -> Option<u16> {
    let mut unit = 0;
    for _ in 0..4 {
        let digit = u16::try_from(chars.next()?.to_digit(16)?).ok()?;
        unit = unit << 4 | digit;
    }
    Some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().map(|property| (property.key, property.value)).collect()
    }

    fn assert_pairs(text: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(pairs(text), expected, "{text:?}");
    }

    // Every expectation below was checked against java.util.Properties.
    #[test]
    fn separators_comments_and_blanks_are_javas() {
        assert_pairs("a=b", &[("a", "b")]);
        assert_pairs(" \t\x0ca : b ", &[("a", "b ")]);
        assert_pairs("a b=c", &[("a", "b=c")]);
        assert_pairs("a = = b", &[("a", "= b")]);
        assert_pairs("a\nb=\n:c", &[("a", ""), ("b", ""), ("", "c")]);
        assert_pairs("# x\\\na=1\r\n  ! y\r\rb=2", &[("a", "1"), ("b", "2")]);
        assert_pairs("a=1 # no comment", &[("a", "1 # no comment")]);
        assert_pairs("a=1\na=2", &[("a", "1"), ("a", "2")]);
        assert_pairs("", &[]);
        assert_pairs(" \n\t\n\x0c", &[]);
    }

    #[test]
    fn a_backslash_at_the_end_goes_on_in_the_next_line() {
        assert_pairs("a=b,\\\n   c,\\\r\n\td\ne=f", &[("a", "b,c,d"), ("e", "f")]);
        assert_pairs("a=b\\\\\nc=d", &[("a", "b\\"), ("c", "d")]);
        assert_pairs("a=b\\\\\\\nc=d", &[("a", "b\\c=d")]);
        assert_pairs("a=b\\\n\nc=d", &[("a", "b"), ("c", "d")]);
        assert_pairs("a=b\\\n# still the value\nc=d", &[("a", "b# still the value"), ("c", "d")]);
        assert_pairs("a=b\\", &[("a", "b")]);
        assert_pairs("\\\na=b", &[("a", "b")]);
        assert_pairs("\\\n#c\na=b", &[("a", "b")]);
    }

    #[test]
    fn escapes_are_javas() {
        assert_pairs("a\\=b\\:c\\ d\\#=e", &[("a=b:c d#", "e")]);
        assert_pairs("a=\\t\\n\\r\\f\\q\\\\", &[("a", "\t\n\r\x0cq\\")]);
        assert_pairs("a=\\u00e4\\uD83D\\uDE00", &[("a", "ä😀")]);
    }

    #[test]
    fn a_wrong_escape_names_its_line() {
        assert_eq!(parse("a=1\n\nb=\\\n \\u12"), Err(SyntaxError::UnicodeEscape { line: 3 }));
        assert_eq!(parse("a=\\u+123"), Err(SyntaxError::UnicodeEscape { line: 1 }));
        assert_eq!(parse("#\na=\\ud83dx"), Err(SyntaxError::UnpairedSurrogate { line: 2 }));
    }

    #[test]
    fn lines_are_counted_as_an_editor_counts_them() {
        let lines: Vec<usize> = parse("#\r\na=\\\r\n1\rb=2\n\nc=3").unwrap().iter().map(|property| property.line).collect();
        assert_eq!(lines, [2, 4, 6]);
    }

    /// Writes a key or a value so that every character of it is kept.
    fn escaped(text: &str) -> String {
        let mut escaped = String::new();
        for c in text.chars() {
            match c {
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                ' ' | '\t' | '\x0c' | '=' | ':' | '#' | '!' | '\\' if c != '\t' && c != '\x0c' => {
                    escaped.push('\\');
                    escaped.push(c);
                }
                '\t' => escaped.push_str("\\t"),
                '\x0c' => escaped.push_str("\\f"),
                _ if u32::from(c) % 2 == 0 => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        escaped.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                _ => escaped.push(c),
            }
        }
        escaped
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entries in prop::collection::vec(("[ -~ä\n\t\x0c😀]{1,9}", "[ -~ä\n\r\t😀]{0,9}"), 0..9)) {
            let text: String = entries.iter().map(|(key, value)| format!("{}={}\n", escaped(key), escaped(value))).collect();
            prop_assert_eq!(pairs(&text), entries);
        }

        #[test]
        fn no_text_panics(text in "[a#!=: \\\\\nu0\r\t]{0,60}|\\PC{0,40}") {
            for property in parse(&text).unwrap_or_default() {
                prop_assert!(property.line >= 1 && property.line <= text.chars().filter(|c| matches!(c, '\n' | '\r')).count() + 1);
            }
        }
    }
}
