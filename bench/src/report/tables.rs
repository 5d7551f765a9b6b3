//! Tables of the terminal, as a part of the page and as Markdown.

use comfy_table::{Row, Table};
use maud::{Markup, html};

/// What a table has.
pub(super) struct Rows {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Rows {
    pub(super) fn of(table: &Table) -> Self {
        let cells = |row: &Row| row.cell_iter().map(comfy_table::Cell::content).collect();
        Self { columns: table.header().map(cells).unwrap_or_default(), rows: table.row_iter().map(cells).collect() }
    }
}

/// The tables under their titles, and what a reader has to know about them.
pub(super) fn section(tables: &[(String, Table)], notes: &[String]) -> Markup {
    html! {
        @for (title, table) in tables {
            h3 { (title) }
            div.wide {
                table {
                    @let rows = Rows::of(table);
                    thead { tr { @for column in &rows.columns { th { (column) } } } }
                    tbody {
                        @for row in &rows.rows {
                            tr { @for (at, cell) in row.iter().enumerate() { @if at == 0 { th scope="row" { (cell) } } @else { td { (cell) } } } }
                        }
                    }
                }
            }
        }
        @if !notes.is_empty() {
            ul { @for note in notes { li { (note) } } }
        }
    }
}
