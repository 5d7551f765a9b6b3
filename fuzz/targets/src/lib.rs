//! What each fuzz target does with an input. One entry in [`ALL`] is a target of cargo-fuzz (`../fuzz_targets`) and, over its
//! corpus and mutations of it, an ordinary test (`tests/corpus.rs`). An input that is refused is fine; one that panics, takes
//! more memory than its bound, or breaks what a target asserts is a finding.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a target may end where it fails: that is a finding")]

mod connection;
mod formats;
mod input;
mod journal;
pub mod memory;
mod mutated;
mod records;
mod segments;
mod wire;

/// A target: its name, what it does, and the most bytes of memory that it may hold while it does it, beside a number of bytes per
/// byte of input.
pub struct Target {
    /// The name, which is the corpus's folder, too.
    pub name: &'static str,
    /// What it does with an input.
    pub run: fn(&[u8]),
    /// The bound on memory that does not depend on the input.
    pub bytes_max: usize,
    /// … and what each byte of the input may add.
    pub bytes_per_byte_max: usize,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// All of them.
pub const ALL: &[Target] = &[
    // A codec may hold blocks, its window and tables (LZ4: twice 4 MiB) beside what comes out, which is bounded by 1 MiB.
    Target { name: "record_batch", run: records::record_batch, bytes_max: 12 * MIB, bytes_per_byte_max: 8 },
    Target { name: "records", run: records::records, bytes_max: 20 * MIB, bytes_per_byte_max: 8 },
    Target { name: "journal", run: journal::journal, bytes_max: 8 * MIB, bytes_per_byte_max: 64 },
    Target { name: "recovery", run: segments::recovery, bytes_max: 8 * MIB, bytes_per_byte_max: 200 },
    Target { name: "recovery_mutated", run: mutated::recovery_mutated, bytes_max: 16 * MIB, bytes_per_byte_max: 4 * KIB },
    Target { name: "repair", run: mutated::repair, bytes_max: 24 * MIB, bytes_per_byte_max: 4 * KIB },
    Target { name: "indexes", run: formats::indexes, bytes_max: 16 * KIB, bytes_per_byte_max: 16 },
    Target { name: "checkpoints", run: formats::checkpoints, bytes_max: 16 * KIB, bytes_per_byte_max: 100 },
    Target { name: "producer_snapshot", run: formats::producer_snapshot, bytes_max: 16 * KIB, bytes_per_byte_max: 100 },
    Target { name: "server_properties", run: formats::server_properties, bytes_max: 256 * KIB, bytes_per_byte_max: 100 },
    Target { name: "requests", run: wire::requests, bytes_max: 16 * KIB, bytes_per_byte_max: 150 },
    Target { name: "responses", run: wire::responses, bytes_max: 16 * KIB, bytes_per_byte_max: 150 },
    Target { name: "connection", run: connection::connection, bytes_max: 64 * MIB, bytes_per_byte_max: 4 * KIB },
];

/// Runs a target on an input, within its bound of memory.
///
/// # Panics
/// When the input is a finding.
pub fn run(name: &str, input: &[u8]) {
    let target = ALL.iter().find(|target| target.name == name).expect("a target");
    let held = memory::held_max_during(|| (target.run)(input));
    let bound = target.bytes_max + target.bytes_per_byte_max * input.len();
    assert!(held <= bound, "{name}: {held} bytes held for an input of {}, more than {bound}", input.len());
}
