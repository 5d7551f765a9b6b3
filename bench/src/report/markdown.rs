//! The same runs as Markdown tables, for docs.

use std::fmt::Write;

use comfy_table::Table;

use super::tables::Rows;
use super::{Stored, load, page, time};
use crate::compare::table;
use crate::results::{Compare, Load, Outcome};
use crate::{disk, engine, groups};

/// All runs. Nothing is written about a run that has no figures but its machine.
pub(super) fn render(runs: &[Stored]) -> String {
    let mut text = String::new();
    let shared = page::shared_facts(runs);
    if !shared.is_empty() {
        let rows: Vec<Vec<String>> = shared.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect();
        let _ = writeln!(text, "{}", rows_of(&["Machine".to_owned(), String::new()], &rows, false));
    }
    for stored in runs {
        let run = &stored.run;
        match &run.outcome {
            Outcome::Machine => continue,
            Outcome::Disk(grid) => titled(&mut text, &disk::tables(grid)),
            Outcome::Engine(engine) => titled(&mut text, &engine::tables(engine)),
            Outcome::Load(load) => one_load(&mut text, load),
            Outcome::Groups(groups) => titled(&mut text, &groups::tables(groups)),
            Outcome::Compare(compare) => comparison(&mut text, compare),
        }
        let early = if run.interrupted { ", interrupted" } else { "" };
        let _ = writeln!(text, "`{}` ({}{early})\n", code(&run.command_line), time::utc(run.started_ms));
        let own = page::own_facts(stored, &shared);
        for (name, value) in &own {
            let _ = writeln!(text, "- {}: {}", escaped(name), escaped(value));
        }
        for warning in &run.machine.warnings {
            let _ = writeln!(text, "- {}", escaped(warning));
        }
        if !own.is_empty() || !run.machine.warnings.is_empty() {
            text.push('\n');
        }
    }
    text
}

fn titled(text: &mut String, tables: &[(String, Table)]) {
    for (title, table) in tables {
        let rows = Rows::of(table);
        let _ = writeln!(text, "{}\n\n{}", escaped(title), rows_of(&rows.columns, &rows.rows, true));
    }
}

fn one_load(text: &mut String, load: &Load) {
    let (columns, rows) = load::figure_rows(load);
    let _ = writeln!(text, "{}", rows_of(&columns, &rows, true));
    if let Some(why) = &load.generator_bound {
        let _ = writeln!(text, "The load generator may be what was measured: {}\n", escaped(why));
    }
}

fn comparison(text: &mut String, compare: &Compare) {
    let _ = writeln!(text, "**{}.** {}\n", escaped(&compare.spec), escaped(&compare.about));
    for broker in &compare.brokers {
        let _ = writeln!(text, "- {}: {} ({})", escaped(&broker.name), escaped(&broker.about), escaped(&broker.version));
    }
    if let Some(why) = &compare.failed {
        let _ = writeln!(text, "- Ended early: {}", escaped(why));
    }
    text.push('\n');
    for workload in &compare.workloads {
        let mut columns = vec![format!("{}, medians of {}", workload.name, table::runs(compare, workload))];
        columns.extend(table::columns(compare, workload));
        let rows: Vec<_> = workload.figures.iter().filter_map(|figure| table::cells(compare, workload, figure)).collect();
        let _ = writeln!(text, "{}", rows_of(&columns, &rows, true));
        for note in table::verified(workload).into_iter().chain(table::notes(workload)) {
            let _ = writeln!(text, "- {}", escaped(&note));
        }
        text.push('\n');
    }
    for line in table::across(compare) {
        let _ = writeln!(text, "- {}", escaped(&line));
    }
    text.push_str(
        "↑ more is better, ↓ less is better; in brackets the least and the most of all runs, and of the rounds' own ratios.\n\n",
    );
}

fn rows_of(columns: &[String], rows: &[Vec<String>], is_right: bool) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.iter().map(|cell| escaped(cell)).collect::<Vec<_>>().join(" | "));
    let mut text = line(columns);
    let rule = |at: usize| if at > 0 && is_right { "---:" } else { "---" };
    let _ = writeln!(text, "|{}|", (0..columns.len()).map(rule).collect::<Vec<_>>().join("|"));
    for row in rows {
        text.push_str(&line(row));
    }
    text
}

/// A command line that stays within its backticks.
fn code(command_line: &[String]) -> String {
    page::command_line(command_line).replace('`', "'").replace(['\n', '\r'], " ")
}

/// Text that is only text in Markdown, in a cell of a table too.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '\n' | '\r' => escaped.push(' '),
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' => {
                escaped.push('\\');
                escaped.push(character);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_stay_code() {
        assert_eq!(code(&["a`b".to_owned(), "c\n\n# d".to_owned()]), "'a'b' 'c  # d'");
    }

    #[test]
    fn cells_stay_cells() {
        let rows = [vec!["a|b\nc".to_owned(), "<i>*x*</i>".to_owned()]];
        let text = rows_of(&["x".to_owned(), "y".to_owned()], &rows, true);
        assert_eq!(text, "| x | y |\n|---|---:|\n| a\\|b c | &lt;i>\\*x\\*&lt;/i> |\n");
    }
}
