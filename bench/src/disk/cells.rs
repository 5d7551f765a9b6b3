//! What is measured: the cells of the grid, and the arithmetic from accesses to values. Pure; for the other files of this folder.

use std::time::Duration;

use crate::results::{Direction, GridCell, Medium, Pattern, Way};

/// The unit of the published figures.
pub(super) const VALUE_BYTES: u64 = 4;
/// A sequential access of a disk: what the engine writes segments in.
pub(super) const SEQUENTIAL_BYTES: u64 = 1 << 20;
/// A random access of a disk: the block that a page cache and a direct write deal in.
pub(super) const RANDOM_BYTES: u64 = 4096;
/// Sequential writes are synced whenever so much is written.
pub(super) const SYNC_BYTES: u64 = 64 << 20;
/// Random writes are synced after so many: bounded, since a slow disk takes its time for them.
pub(super) const SYNC_ACCESSES: u64 = 2048;

/// A cell of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) medium: Medium,
    pub(super) pattern: Pattern,
    pub(super) direction: Direction,
    pub(super) way: Way,
    pub(super) depth: Option<u32>,
}

impl Cell {
    /// Bytes that an access moves. Sequential memory is accessed value by value.
    pub(super) fn access_bytes(&self) -> u64 {
        match (self.medium, self.pattern) {
            (Medium::Disk, Pattern::Sequential) => SEQUENTIAL_BYTES,
            (Medium::Disk, Pattern::Random) => RANDOM_BYTES,
            (Medium::Memory, _) => VALUE_BYTES,
        }
    }

    /// How many values an access counts for.
    pub(super) fn values_per_access(&self) -> u64 {
        match self.pattern {
            Pattern::Sequential => self.access_bytes() / VALUE_BYTES,
            Pattern::Random => 1,
        }
    }

    /// After how many accesses of a disk writes are synced.
    pub(super) fn sync_accesses(&self) -> u64 {
        match self.pattern {
            Pattern::Sequential => SYNC_BYTES / SEQUENTIAL_BYTES,
            Pattern::Random => SYNC_ACCESSES,
        }
    }
}

/// Every cell, in the order of measuring.
pub(super) fn all(depth: u32) -> Vec<Cell> {
    let mut cells = Vec::new();
    for direction in [Direction::Read, Direction::Write] {
        for pattern in [Pattern::Sequential, Pattern::Random] {
            for way in [Way::Direct, Way::PageCache] {
                for depth in [1, depth] {
                    cells.push(Cell { medium: Medium::Disk, pattern, direction, way, depth: Some(depth) });
                }
            }
        }
    }
    for (pattern, direction, way) in [
        (Pattern::Sequential, Direction::Read, Way::Independent),
        (Pattern::Random, Direction::Read, Way::Independent),
        (Pattern::Random, Direction::Read, Way::Dependent),
        (Pattern::Sequential, Direction::Write, Way::Independent),
        (Pattern::Random, Direction::Write, Way::Independent),
    ] {
        cells.push(Cell { medium: Medium::Memory, pattern, direction, way, depth: None });
    }
    cells
}

/// What was done in a cell, and how long it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) accesses: u64,
    pub(super) elapsed: Duration,
}

impl Sample {
    /// Nothing for what took no time: a clock that stands still measures nothing.
    pub(super) fn values_per_s(&self, cell: &Cell) -> Option<f64> {
        let seconds = self.elapsed.as_secs_f64();
        (seconds > 0.0 && self.accesses > 0).then(|| self.accesses as f64 * cell.values_per_access() as f64 / seconds)
    }
}

/// A cell and its runs.
pub(super) struct Measured {
    pub(super) cell: Cell,
    /// Values per second, run by run.
    pub(super) ours: Vec<f64>,
    /// The same by fio.
    pub(super) fio: Vec<f64>,
}

impl Measured {
    pub(super) fn new(cell: Cell) -> Self {
        Self { cell, ours: Vec::new(), fio: Vec::new() }
    }

    pub(super) fn note(&mut self, sample: Sample) {
        self.ours.extend(sample.values_per_s(&self.cell));
    }

    /// What is stored; `None` where there was no run.
    pub(super) fn result(&self) -> Option<GridCell> {
        let cell = &self.cell;
        let values_per_s = median(&self.ours)?;
        let accesses_per_s = values_per_s / cell.values_per_access() as f64;
        Some(GridCell {
            medium: cell.medium,
            pattern: cell.pattern,
            direction: cell.direction,
            way: cell.way,
            depth: cell.depth,
            access_bytes: cell.access_bytes(),
            values_per_s,
            values_per_s_runs: self.ours.clone(),
            accesses_per_s,
            mb_per_s: accesses_per_s * cell.access_bytes() as f64 / 1e6,
            fio_values_per_s: median(&self.fio),
        })
    }
}

/// The middle one; the mean of the two in the middle where their number is even.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], upper) } else { upper })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(medium: Medium, pattern: Pattern) -> Cell {
        Cell { medium, pattern, direction: Direction::Read, way: Way::Direct, depth: Some(1) }
    }

    #[test]
    fn values_are_counted_as_published() {
        let sample = Sample { accesses: 1000, elapsed: Duration::from_secs(2) };
        let random = cell(Medium::Disk, Pattern::Random);
        let sequential = cell(Medium::Disk, Pattern::Sequential);
        let memory = cell(Medium::Memory, Pattern::Sequential);
        assert_eq!(sample.values_per_s(&random), Some(500.0), "a value per access");
        assert_eq!(sample.values_per_s(&sequential), Some(500.0 * 262_144.0), "all of the 1 MiB");
        assert_eq!(sample.values_per_s(&memory), Some(500.0));
        assert_eq!(Sample { accesses: 1000, elapsed: Duration::ZERO }.values_per_s(&random), None);
        assert_eq!(Sample { accesses: 0, elapsed: Duration::from_secs(1) }.values_per_s(&random), None);
    }

    #[test]
    fn a_result_is_the_median_in_every_unit() {
        let mut measured = Measured::new(cell(Medium::Disk, Pattern::Random));
        assert!(measured.result().is_none());
        for accesses in [100, 900, 300] {
            measured.note(Sample { accesses, elapsed: Duration::from_secs(1) });
        }
        measured.fio = vec![200.0, 400.0];
        let result = measured.result().unwrap();
        assert_eq!(result.values_per_s, 300.0);
        assert_eq!(result.accesses_per_s, 300.0);
        assert_eq!(result.mb_per_s, 300.0 * 4096.0 / 1e6);
        assert_eq!(result.fio_values_per_s, Some(300.0));
        let mut measured = Measured::new(cell(Medium::Disk, Pattern::Sequential));
        measured.note(Sample { accesses: 500, elapsed: Duration::from_secs(1) });
        let result = measured.result().unwrap();
        assert_eq!(result.accesses_per_s, 500.0);
        assert!((result.mb_per_s - 524.288).abs() < 1e-9);
        assert!((result.values_per_s - 131_072_000.0).abs() < 1e-3);
    }

    #[test]
    fn the_grid_has_every_cell_once() {
        let cells = all(32);
        assert_eq!(cells.len(), 21);
        for (at, cell) in cells.iter().enumerate() {
            assert!(!cells[..at].contains(cell), "{cell:?}");
        }
    }
}
