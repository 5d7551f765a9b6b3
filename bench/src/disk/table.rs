//! The grid as tables for the terminal. For [`super`].

use comfy_table::Table;

use super::cells::Cell;
use super::claims::{self, representative};
use crate::results::{Direction, Grid, GridCell, Medium, Pattern, Way};
use crate::table;
use crate::units::show_count;

/// Prints what `disk` measured.
pub fn print(grid: &Grid) {
    table::print(&tables(grid), &grid.settings, &grid.notes);
}

/// What was measured, each table with its title.
#[must_use]
pub fn tables(grid: &Grid) -> Vec<(String, Table)> {
    if grid.cells.is_empty() {
        return Vec::new();
    }
    let mut tables = vec![("values of 4 bytes per second".to_owned(), published(grid)), ("all cells".to_owned(), all(grid))];
    if !grid.claims.is_empty() {
        tables.push(("claims".to_owned(), verdicts(grid)));
    }
    tables
}

/// Published and measured, side by side.
fn published(grid: &Grid) -> Table {
    let mut table = table::table(&["", "published: disk", "published: SSD", "here: reads", "here: writes"], 1..5);
    let rows = [
        (Medium::Disk, Pattern::Random, claims::RANDOM_DISK, Some(claims::RANDOM_SSD)),
        (Medium::Disk, Pattern::Sequential, claims::SEQUENTIAL_DISK, Some(claims::SEQUENTIAL_SSD)),
        (Medium::Memory, Pattern::Random, claims::RANDOM_MEMORY, None),
        (Medium::Memory, Pattern::Sequential, claims::SEQUENTIAL_MEMORY, None),
    ];
    for (medium, pattern, disk, ssd) in rows {
        let here = |direction| {
            let found = representative(&grid.cells, medium, pattern, direction);
            found.map_or_else(String::new, |cell| show_rate(cell.values_per_s))
        };
        table.add_row([
            format!("{} {}", pattern_name(pattern), medium_name(medium)),
            show_rate(disk),
            ssd.map_or_else(String::new, show_rate),
            here(Direction::Read),
            here(Direction::Write),
        ]);
    }
    table
}

fn all(grid: &Grid) -> Table {
    let mut table = table::table(&["cell", "values/s", "least to most", "accesses/s", "MB/s", "of fio's"], 1..6);
    for cell in &grid.cells {
        let least = cell.values_per_s_runs.iter().copied().fold(f64::INFINITY, f64::min);
        let most = cell.values_per_s_runs.iter().copied().fold(0.0, f64::max);
        let of_fio = cell.fio_values_per_s.filter(|fio| *fio > 0.0).map(|fio| format!("{:.2}", cell.values_per_s / fio));
        table.add_row([
            stored_name(cell),
            show_rate(cell.values_per_s),
            if cell.values_per_s_runs.len() > 1 { format!("{} to {}", show_rate(least), show_rate(most)) } else { String::new() },
            show_rate(cell.accesses_per_s),
            if cell.mb_per_s < 10.0 { format!("{:.1}", cell.mb_per_s) } else { show_count(cell.mb_per_s.round() as u64) },
            of_fio.unwrap_or_default(),
        ]);
    }
    table
}

fn verdicts(grid: &Grid) -> Table {
    let mut table = table::table(&["claim", "by", "published", "here", "range", "verdict"], 2..5);
    for claim in &grid.claims {
        let (least, most) = claim.measured_ratio_range;
        let number = |ratio: f64| claims::times_text(ratio).trim_end_matches(" times").to_owned();
        table.add_row([
            claim.claim.clone(),
            direction_name(claim.direction).to_owned() + "s",
            number(claim.published_ratio),
            number(claim.measured_ratio),
            format!("{} to {}", number(least), number(most)),
            claim.words.clone(),
        ]);
    }
    table
}

/// A rate for people: `316`, `1,924`, `53.2 M`, `2.41 G`.
pub(super) fn show_rate(rate: f64) -> String {
    match rate {
        ..10.0 => format!("{rate:.1}"),
        10.0..1e6 => show_count(rate.round() as u64),
        1e6..1e9 => format!("{:.1} M", rate / 1e6),
        _ => format!("{:.2} G", rate / 1e9),
    }
}

pub(super) fn medium_name(medium: Medium) -> &'static str {
    match medium {
        Medium::Disk => "disk",
        Medium::Memory => "memory",
    }
}

pub(super) fn pattern_name(pattern: Pattern) -> &'static str {
    match pattern {
        Pattern::Sequential => "sequential",
        Pattern::Random => "random",
    }
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Read => "read",
        Direction::Write => "write",
    }
}

fn way_name(way: Way) -> &'static str {
    match way {
        Way::Direct => "direct",
        Way::PageCache => "page cache",
        Way::Independent => "independent",
        Way::Dependent => "dependent",
    }
}

/// A cell in words: `disk, random read, direct, 32 deep`.
pub(super) fn name(cell: &Cell) -> String {
    let mut name = format!("{}, {} {}", medium_name(cell.medium), pattern_name(cell.pattern), direction_name(cell.direction));
    if cell.medium == Medium::Disk || cell.pattern == Pattern::Random {
        name += &format!(", {}", way_name(cell.way));
    }
    if let Some(depth) = cell.depth {
        name += &format!(", {depth} deep");
    }
    name
}

fn stored_name(cell: &GridCell) -> String {
    name(&Cell { medium: cell.medium, pattern: cell.pattern, direction: cell.direction, way: cell.way, depth: cell.depth })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_published() {
        assert_eq!(show_rate(316.0), "316");
        assert_eq!(show_rate(1924.0), "1,924");
        assert_eq!(show_rate(53.2e6), "53.2 M");
        assert_eq!(show_rate(2.414e9), "2.41 G");
        assert_eq!(show_rate(1.25), "1.2");
    }

    #[test]
    fn a_grid_has_its_tables() {
        let cells: Vec<GridCell> = super::super::cells::all(32)
            .into_iter()
            .map(|cell| {
                let mut measured = super::super::cells::Measured::new(cell);
                measured.ours = vec![1000.0, 3000.0, 2000.0];
                measured.fio = vec![4000.0];
                measured.result().unwrap()
            })
            .collect();
        let grid = Grid { claims: claims::all(&cells), cells, ..Grid::default() };
        let text = published(&grid).to_string();
        assert!(text.contains("53.2 M") && text.contains("2,000"), "{text}");
        let text = all(&grid).to_string();
        assert!(
            text.contains("disk, random write, page cache, 32 deep") && text.contains("1,000 to 3,000") && text.contains("0.50"),
            "{text}"
        );
        let text = verdicts(&grid).to_string();
        assert_eq!(text.matches("no longer holds").count(), 4, "{text}");
        assert_eq!(text.matches("a draw").count(), 2, "{text}");
    }
}
