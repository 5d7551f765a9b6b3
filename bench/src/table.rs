//! Tables for the terminal, one look for all commands.

use std::ops::Range;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::units::settings_line;

/// A table under these headings, of which the columns in `numbers` stand to the right.
#[must_use]
pub(crate) fn table(header: &[&str], numbers: Range<usize>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(numbers.start).take(numbers.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Prints tables under their titles, the settings that they were made with, and what a reader must know.
pub(crate) fn print(tables: &[(String, Table)], settings: &[(String, String)], notes: &[String]) {
    if tables.is_empty() {
        println!("nothing was measured");
        return;
    }
    for (title, table) in tables {
        println!("\n{title}\n{table}");
    }
    println!("{}", settings_line(settings));
    for note in notes {
        println!("- {note}");
    }
}
