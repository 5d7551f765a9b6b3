//! What `disk` measured.

use serde::{Deserialize, Serialize};

/// What `disk` measured: the cells of the classic claim, and what became of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Grid {
    /// The settings as name and value, in the order of the help.
    pub settings: Vec<(String, String)>,
    /// What was measured, in the order of measuring.
    pub cells: Vec<GridCell>,
    /// The claims, each held against this machine, for reads and for writes.
    pub claims: Vec<Claim>,
    /// How it was measured, and what a reader has to know about it.
    pub notes: Vec<String>,
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// A file.
    Disk,
    /// Memory, far more than the caches hold.
    Memory,
}

/// In which order values are accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// One after the other: every byte that is moved counts.
    Sequential,
    /// Anywhere: one value counts for each access.
    Random,
}

/// What is done with values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// They are read.
    Read,
    /// They are written; on a disk, and synced.
    Write,
}

/// Which way an access takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Disk: around the page cache (O_DIRECT).
    Direct,
    /// Disk: through the page cache, which does not hold it yet.
    PageCache,
    /// Memory: the processor knows the next address and can have many accesses under way.
    Independent,
    /// Memory: the next address follows from what was read.
    Dependent,
}

/// One cell of the grid.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GridCell {
    /// Where.
    pub medium: Medium,
    /// In which order.
    pub pattern: Pattern,
    /// What.
    pub direction: Direction,
    /// Which way.
    pub way: Way,
    /// Operations in flight; `None` for memory, where the processor decides.
    pub depth: Option<u32>,
    /// Bytes that an access moves.
    pub access_bytes: u64,
    /// Values of 4 bytes per second: the median of the runs.
    pub values_per_s: f64,
    /// The same, run by run.
    pub values_per_s_runs: Vec<f64>,
    /// Accesses per second, by the median.
    pub accesses_per_s: f64,
    /// 10^6 bytes moved per second, by the median.
    pub mb_per_s: f64,
    /// What fio reached in the same cell: the median of its runs.
    pub fio_values_per_s: Option<f64>,
}

/// A claim, and whether it still holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The claim.
    pub claim: String,
    /// By reads, as it was published, or by writes.
    pub direction: Direction,
    /// The ratio that the published figures give.
    pub published_ratio: f64,
    /// The ratio here.
    pub measured_ratio: f64,
    /// The smallest and the largest ratio that other depths and ways through the page cache give.
    pub measured_ratio_range: (f64, f64),
    /// The verdict.
    pub verdict: Verdict,
    /// The verdict in words, with the figures.
    pub words: String,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As published.
    Holds,
    /// The same direction, another size.
    HoldsInPart,
    /// Neither is faster.
    Draw,
    /// No more.
    NoLonger,
}
