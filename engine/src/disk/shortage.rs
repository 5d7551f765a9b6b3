//! What the process or the machine is short of: an error that says nothing of the file, and goes when others let go of some. Whoever
//! writes waits for that, whoever was promised nothing is refused, and nothing is given up.

use std::fmt;
use std::io;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// ENOSPC, EDQUOT and their like.
    Room,
    /// ENOMEM.
    Memory,
    /// EMFILE, ENFILE: nothing can be opened.
    Descriptors,
}

impl Shortage {
    /// What it was that an operation lacked, if it failed for that.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => Some(Self::Room),
            (io::ErrorKind::OutOfMemory, _) => Some(Self::Memory),
            (_, Some(libc::EMFILE | libc::ENFILE)) => Some(Self::Descriptors),
            _ => None,
        }
    }

    /// Whether it may last, so that those who wait for it have to be told; memory comes back by itself.
    pub(crate) fn may_last(self) -> bool {
        self != Self::Memory
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Room => "the disk is full",
            Self::Memory => "no memory is left",
            Self::Descriptors => "no file descriptor is left",
        })
    }
}
