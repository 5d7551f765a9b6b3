//! A core's journal: one file, written round and round, that makes what arrived for all partitions of the core durable with
//! one direct write and one flush. docs/format.md describes the bytes. The core writes it ([`writer`]); start-up and the
//! offline tools read it ([`replay`]). It never interprets the batches that it carries.

pub mod checkpoint;
pub mod format;
pub mod replay;
pub(crate) mod writer;

use std::path::{Path, PathBuf};

/// The name of the directory of core `index`'s journal in the data directory. No partition's folder can have it: those end with
/// a dash and a number.
#[must_use]
pub fn directory_name(index: usize) -> String {
    format!("ringlog-journal.{index}")
}

/// Whether a name in the data directory is that of a journal.
#[must_use]
pub fn is_directory_name(name: &str) -> bool {
    name.strip_prefix("ringlog-journal.").is_some_and(|index| !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit()))
}

pub(crate) fn journal_path(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("{generation:020}.journal"))
}

/// The generation in a journal file's name.
#[must_use]
pub fn generation_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".journal")?;
    if digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// The file that says where replay starts.
pub const CHECKPOINT_FILE: &str = "checkpoint";
