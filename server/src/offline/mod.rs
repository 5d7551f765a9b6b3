//! Looking into logs while no broker runs: `ringlog log dump` and `ringlog log verify`, for Ringlog's directories and Kafka's.
//! Called by `main`. It reads with ordinary calls, needs no io_uring, and never writes anything.
//!
//! After a crash, records may be in a journal and not in their segment yet: they are shown where the next start would put
//! them ([`overlay`]).

mod directory;
mod disk;
mod dump;
mod overlay;
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
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
}

impl OfflineError {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |error| Self::Read { path: path.to_owned(), error }
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
    status(to_stdout(|out| verify::verify(path, out)))
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
