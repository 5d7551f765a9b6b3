//! `ringlog log repair`: finds what is damaged, says what would be done and why, and with `--execute` does it.
//!
//! A sound batch always stays, byte for byte at its offset, wherever it stands. What is cut is copied beside its segment first.
//! Indexes and the like are made anew from the batches. Every step leaves a directory that a broker can start from and that the
//! next run of this command finds the rest of ([`apply`]).

mod apply;
mod judge;
mod lock;
mod plan;
mod rebuild;
mod salvage;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::Path;

use super::OfflineError;
use super::directory::{self, Partition};
use plan::Plan;

/// Journals that cannot be read as they are.
#[derive(Debug, Default)]
struct Journals {
    /// What is wrong, and what was found in spite of it.
    salvaged: Vec<(String, salvage::Salvaged)>,
    /// Where nothing can be done.
    unreadable: Vec<String>,
}

/// The lists of aborted transactions that a repair would change, and why: their batches give others.
pub(super) fn transaction_lists(partition: &Partition) -> Result<Vec<(String, String)>, OfflineError> {
    plan::transaction_lists(partition)
}

/// See the module. Returns whether nothing is left to do.
pub(super) fn repair(path: &Path, execute: bool, out: &mut dyn Write) -> Result<bool, OfflineError> {
    // Where the lock is. What lies there counts only when no broker can change it any more.
    let place = directory::open(path)?;
    #[cfg(test)]
    tests::before_lock();
    let _lock = lock::take(&place, execute)?;
    let mut directory = directory::open(path)?;
    let mut journals = Journals::default();
    for (journal, error) in directory::add_readable_journals(&mut directory.partitions, &directory.journals)? {
        if error.kind() != io::ErrorKind::InvalidData {
            return Err(OfflineError::read(journal)(error));
        }
        match salvage::lay_over(&mut directory.partitions, journal) {
            Ok(salvaged) => journals.salvaged.push((error.to_string(), salvaged)),
            Err(error) => journals.unreadable.push(format!("{}: {error}", journal.display())),
        }
    }
    let plan = Plan::new(&directory, journals)?;
    if plan.settles_journals() && !directory.whole {
        return Err(OfflineError::NeedsWhole { path: path.to_owned() });
    }
    plan.print(execute, out).map_err(OfflineError::Output)?;
    if plan.is_empty() || !execute {
        return Ok(plan.is_empty() && plan.is_complete());
    }
    out.flush().map_err(OfflineError::Output)?;
    apply::apply(&directory, &plan)?;
    writeln!(out, "done{}", if plan.is_complete() { "" } else { ", but for what cannot be repaired" })
        .map_err(OfflineError::Output)?;
    Ok(plan.is_complete())
}
