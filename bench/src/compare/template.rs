//! Placeholders in what describes a broker: `{port}` is replaced, `{{` and `}}` stand for the braces themselves. Pure.

use std::collections::BTreeMap;

/// Replaces every `{name}` by its value.
///
/// # Errors
/// A brace without its partner, or a name without a value; says which.
pub(super) fn fill(text: &str, values: &BTreeMap<String, String>) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        filled.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            filled.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err(format!("{text:?} has a '}}' without its '{{' (a brace itself is written twice)"));
        }
        let Some((name, after)) = rest.split_once('}') else {
            return Err(format!("{text:?} has a '{{' without its '}}' (a brace itself is written twice)"));
        };
        let value = values.get(name).ok_or_else(|| {
            let known: Vec<_> = values.keys().map(|name| format!("{{{name}}}")).collect();
            format!("{{{name}}} stands for nothing here; known are {}", known.join(", "))
        })?;
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        let values = [("port", "9092"), ("data", "/tmp/{data}")];
        fill(text, &values.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    #[test]
    fn names_are_replaced_once() {
        assert_eq!(filled("127.0.0.1:{port}").as_deref(), Ok("127.0.0.1:9092"));
        assert_eq!(filled("{data}{data}").as_deref(), Ok("/tmp/{data}/tmp/{data}"), "values are not looked into");
        assert_eq!(filled("${{project}} {{{port}}} ").as_deref(), Ok("${project} {9092} "));
        assert_eq!(filled("").as_deref(), Ok(""));
    }

    #[test]
    fn what_stands_for_nothing_is_refused() {
        assert!(filled("{prot}").unwrap_err().contains("{data}, {port}"));
        assert!(filled("{port").is_err());
        assert!(filled("port}").is_err());
        assert!(filled("{}").is_err());
    }
}
