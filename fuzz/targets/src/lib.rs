//! What each fuzz target does with an input. One entry in [`ALL`] is a target of cargo-fuzz (`../fuzz_targets`) and, over its
//! corpus and mutations of it, an ordinary test (`tests/corpus.rs`). An input that is refused is fine; one that panics, takes
//! more memory than its bound, or breaks what a target asserts is a finding.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a target may end where it fails: that is a finding")]

mod connection;
mod formats;
pub mod frames;
mod groups;
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

/// One constant for each target, so that a fuzzer has in it what its own target calls and nothing else: it looks at every counter of
/// its coverage after each input.
macro_rules! targets {
    ($($(#[$comment:meta])* $constant:ident: $name:literal, $run:path, $bytes_max:expr, $bytes_per_byte_max:expr;)*) => {
        $(
            #[doc = concat!("`", $name, "`.")]
            $(#[$comment])*
            pub const $constant: Target =
                Target { name: $name, run: $run, bytes_max: $bytes_max, bytes_per_byte_max: $bytes_per_byte_max };
        )*

        /// All of them.
        pub const ALL: &[Target] = &[$($constant),*];
    };
}
targets! {
    /// A codec may hold blocks, its window and tables (LZ4: twice 4 MiB) beside what comes out, which is bounded by 1 MiB.
    RECORD_BATCH: "record_batch", records::record_batch, 12 * MIB, 8;
    RECORDS: "records", records::records, 20 * MIB, 8;
    JOURNAL: "journal", journal::journal, 8 * MIB, 64;
    RECOVERY: "recovery", segments::recovery, 8 * MIB, 200;
    RECOVERY_MUTATED: "recovery_mutated", mutated::recovery_mutated, 16 * MIB, 4 * KIB;
    REPAIR: "repair", mutated::repair, 24 * MIB, 4 * KIB;
    INDEXES: "indexes", formats::indexes, 16 * KIB, 16;
    CHECKPOINTS: "checkpoints", formats::checkpoints, 16 * KIB, 100;
    PRODUCER_SNAPSHOT: "producer_snapshot", formats::producer_snapshot, 16 * KIB, 100;
    /// Each comma may be worth a sentence of what is wrong.
    SERVER_PROPERTIES: "server_properties", formats::server_properties, 256 * KIB, 400;
    REQUESTS: "requests", wire::requests, 16 * KIB, 150;
    RESPONSES: "responses", wire::responses, 16 * KIB, 150;
    GROUP_RECORDS: "group_records", groups::group_records, MIB, 4 * KIB;
    CONNECTION: "connection", connection::connection, 64 * MIB, 4 * KIB;
}

/// Runs a target on an input, within its bound of memory.
///
/// # Panics
/// When the input is a finding.
pub fn run(target: &Target, input: &[u8]) {
    let held = memory::held_max_during(|| (target.run)(input));
    let bound = target.bytes_max + target.bytes_per_byte_max * input.len();
    assert!(held <= bound, "{}: {held} bytes held for an input of {}, more than {bound}", target.name, input.len());
}
