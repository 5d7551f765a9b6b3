//! Why a command cannot go on, in one line for the user. Every command returns it; `main` prints it and exits with its status.

use std::io;
use std::path::PathBuf;

/// What ends a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument, a file or a broker is not what the command needs. Exit status 2.
    #[error("{0}")]
    Usage(String),
    /// What was measured failed: a broker closed, answered with errors, lost records. Exit status 1.
    #[error("{0}")]
    Failed(String),
    /// A file or a directory of the user's. Exit status 1.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err` on operations with files.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// The process's exit status.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) | Self::Io { .. } => 1,
        }
    }
}
