//! Looking into logs while no broker runs: `ringlog log dump`, `ringlog log verify` and `ringlog log repair`, for Ringlog's
//! directories and Kafka's. Called by `main`. It works with ordinary calls and needs no io_uring; nothing but [`repair`] writes,
//! and that only when it is told to.
//!
//! After a crash, records may be in a journal and not in their segment yet: they are shown where the next start would put
//! them ([`overlay`]).

mod directory;
mod disk;
mod dump;
mod overlay;
mod repair;
mod segment;
#[cfg(test)]
mod tests;
mod verify;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use dump::DumpOptions;

/// Why a directory cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// Nothing to look into.
    #[error("{path} holds no partitions; give a partition's folder (TOPIC-N) or a data directory")]
    NoPartitions {
        /// What was given.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("{path} cannot be read: {error}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A broker has it open.
    #[error("{path} is used by another process{holder}; stop it first")]
    Used {
        /// The data directory.
        path: PathBuf,
        /// Its process id, in words, where it is known.
        holder: String,
    },
    /// Its journals hold what other partitions need, too.
    #[error(
        "{path} was not stopped cleanly, and the journals beside it hold records of all its partitions; give the data directory \
         instead, or start and stop the broker first"
    )]
    NeedsWhole {
        /// The partition's folder.
        path: PathBuf,
    },
    /// It cannot be changed.
    #[error("{path} cannot be written: {error}; what was done so far is sound, so run the command again")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
}

impl OfflineError {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |error| Self::Read { path: path.to_owned(), error }
    }

    fn write(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |error| Self::Write { path: path.to_owned(), error }
    }
}

/// Prints every batch of a partition or of a data directory to standard output. Fails where damage was found.
///
/// # Errors
/// When something cannot be read.
pub fn dump(path: &Path, options: DumpOptions) -> Result<ExitCode, OfflineError> {
    status(to_stdout(|out| dump::dump(path, options, out)))
}

/// Checks every CRC, offset and index of a partition or of a data directory, and says on standard output what is wrong.
/// Fails where anything is.
///
/// # Errors
/// When something cannot be read.
pub fn verify(path: &Path) -> Result<ExitCode, OfflineError> {
    status(to_stdout(|out| verify_to(path, out)))
}

fn verify_to(path: &Path, out: &mut dyn Write) -> Result<bool, OfflineError> {
    verify::verify(path, repair::transaction_lists, out)
}

/// Says on standard output what would make a partition or a data directory sound again, and does it with `execute`. Never takes a
/// sound batch away, and keeps a copy of what it cuts. Fails where anything is left to do.
///
/// # Errors
/// When a broker uses the directory, or something cannot be read or written.
pub fn repair(path: &Path, execute: bool) -> Result<ExitCode, OfflineError> {
    status(to_stdout(|out| repair_to(path, execute, out)))
}

/// The same, said to `out`; returns whether all is well.
///
/// # Errors
/// When a broker uses the directory, or something cannot be read or written.
pub fn repair_to(path: &Path, execute: bool, out: &mut dyn Write) -> Result<bool, OfflineError> {
    repair::repair(path, execute, out)
}

fn to_stdout(write: impl FnOnce(&mut dyn Write) -> Result<bool, OfflineError>) -> Result<bool, OfflineError> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let sound = write(&mut out)?;
    out.flush().map_err(OfflineError::Output)?;
    Ok(sound)
}

fn status(sound: Result<bool, OfflineError>) -> Result<ExitCode, OfflineError> {
    match sound {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        // Whoever reads has seen enough, as `head` does.
        Err(OfflineError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}
