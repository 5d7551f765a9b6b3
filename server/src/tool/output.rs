//! How the commands show what they found: tables for the eye, JSON for programs. Also the question before something is destroyed.

use std::io::{self, BufRead, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::ToolError;

/// Prints a list: a table, or a JSON array.
pub(super) fn list<T: Serialize>(
    json: bool,
    items: &[T],
    headers: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<(), ToolError> {
    if json {
        return object(items);
    }
    let text = table(headers, items.iter().map(row));
    print(&text)
}

/// Prints something as JSON, indented.
pub(super) fn object<T: Serialize + ?Sized>(value: &T) -> Result<(), ToolError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| ToolError::Output(error.into()))?;
    print(&text)
}

/// A table without lines, each column as wide as it must be.
pub(super) fn table(headers: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers.to_vec()).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Prints a line, or several.
pub(super) fn print(text: &str) -> Result<(), ToolError> {
    writeln!(io::stdout().lock(), "{text}").map_err(ToolError::Output)
}

/// Asks before something is destroyed. Where nobody can be asked, `--yes` has to be given.
pub(super) fn confirm(what: &str, yes: bool) -> Result<(), ToolError> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(ToolError::Unconfirmed(what.to_owned()));
    }
    eprint!("{what}. Go on? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(ToolError::Input)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(ToolError::Declined),
    }
}

/// A number of bytes for the eye.
pub(super) fn bytes(count: i64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 0 {
        return "-".to_owned();
    }
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// Numbers, separated by commas.
pub(super) fn numbers(numbers: &[i32]) -> String {
    numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let text = table(&["NAME", "N"], [vec!["a".into(), "1".into()], vec!["longer".into(), "22".into()]].into_iter());
        assert_eq!(text, "NAME    N\na       1\nlonger  22");
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!([bytes(0), bytes(1023), bytes(1536), bytes(5 << 30), bytes(-1)], ["0 B", "1023 B", "1.5 KiB", "5.0 GiB", "-"]);
    }

    #[test]
    fn nothing_is_destroyed_unasked() {
        assert!(confirm("This deletes a topic", true).is_ok());
        // The standard input of tests is no terminal.
        if !io::stdin().is_terminal() {
            let error = confirm("This deletes a topic", false).unwrap_err().to_string();
            assert!(error.contains("--yes"), "{error}");
        }
    }
}
