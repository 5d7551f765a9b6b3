//! What a simulated disk is told to do wrong, and what it counts.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::env::random::Random;

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// [`Disk::open`](super::super::Disk::open).
    Open,
    /// A read.
    Read,
    /// A write; the one of `write_and_sync` too.
    Write,
    /// A sync of a file; the one of `write_and_sync` too.
    Sync,
    /// A change of length.
    SetLen,
    /// A reservation.
    Allocate,
    /// Creating a directory.
    CreateDir,
    /// Listing a directory.
    List,
    /// A rename, by its new name.
    Rename,
    /// Removing a file or a directory.
    Remove,
    /// A sync of a directory.
    SyncDir,
}

impl Operation {
    /// How many there are.
    pub const COUNT: usize = Self::SyncDir as usize + 1;
}

/// Errors and delays that come by chance. The default is a disk without errors, whose operations take up to 100 µs.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    /// How probable it is that a read fails (EIO).
    pub read_error: f64,
    /// How probable it is that a write fails (EIO); any part of it is in the file then.
    pub write_error: f64,
    /// How probable it is that a sync fails (EIO); see [`super`] for what that does.
    pub sync_error: f64,
    /// How probable it is that a change or a sync of names fails (EIO); it has not happened then.
    pub name_error: f64,
    /// How probable it is that a file cannot be opened or a directory listed (EIO).
    pub open_error: f64,
    /// How probable it is that a change of length or a reservation fails (EIO); it has not happened then.
    pub length_error: f64,
    /// How probable it is that a write goes in pieces, with other operations between them.
    pub short_write: f64,
    /// The longest that an operation takes; each takes twice some part of it.
    pub delay_max: Duration,
    /// How probable it is that an operation takes `slow_delay` more.
    pub slow: f64,
    /// How long a slow operation takes.
    pub slow_delay: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            read_error: 0.0,
            write_error: 0.0,
            sync_error: 0.0,
            name_error: 0.0,
            open_error: 0.0,
            length_error: 0.0,
            short_write: 0.0,
            delay_max: Duration::from_micros(100),
            slow: 0.0,
            slow_delay: Duration::from_millis(50),
        }
    }
}

impl Faults {
    fn chance_of(&self, operation: Operation) -> f64 {
        match operation {
            Operation::Read => self.read_error,
            Operation::Write => self.write_error,
            Operation::Sync => self.sync_error,
            Operation::CreateDir | Operation::Rename | Operation::Remove | Operation::SyncDir => self.name_error,
            Operation::Open | Operation::List => self.open_error,
            Operation::SetLen | Operation::Allocate => self.length_error,
        }
    }
}

/// An error that comes for certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// To what.
    pub operation: Operation,
    /// Only where the path contains this; an empty string is everywhere. A file has the path by which it was opened.
    pub path_contains: String,
    /// How many such operations still succeed.
    pub after: u64,
    /// How many fail then.
    pub times: u64,
    /// With what error (an errno).
    pub errno: i32,
}

impl Injection {
    /// The next such operation fails with EIO, once.
    #[must_use]
    pub fn next(operation: Operation, path_contains: &str) -> Self {
        Self { operation, path_contains: path_contains.to_owned(), after: 0, times: 1, errno: libc::EIO }
    }

    /// All such operations fail with EIO, until [`clear_injections`](super::SimDisk::clear_injections).
    #[must_use]
    pub fn always(operation: Operation, path_contains: &str) -> Self {
        Self { times: u64::MAX, ..Self::next(operation, path_contains) }
    }
}

/// What a simulated disk has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Operations of any kind.
    pub operations: u64,
    /// Bytes that reads gave.
    pub bytes_read: u64,
    /// Bytes that writes took.
    pub bytes_written: u64,
    /// Syncs of files that succeeded.
    pub syncs: u64,
    /// Syncs of directories that succeeded.
    pub dir_syncs: u64,
    /// Errors that were made up.
    pub errors: u64,
    /// The same by what failed, in the order of [`Operation`].
    pub errors_of: [u64; Operation::COUNT],
    /// Operations for which there was no room (ENOSPC).
    pub full: u64,
    /// Crashes.
    pub crashes: u64,
    /// A hash over all operations, what they were about, and when: the same for the same run.
    pub fingerprint: u64,
}

impl Counters {
    pub(super) fn note(&mut self, operation: Operation, path: &Path, numbers: [u64; 3]) {
        self.operations += 1;
        self.mix(operation as u64);
        for byte in path.as_os_str().as_encoded_bytes() {
            self.mix(u64::from(*byte));
        }
        for number in numbers {
            self.mix(number);
        }
    }

    /// FNV-1a, a word at a time.
    fn mix(&mut self, word: u64) {
        self.fingerprint = (self.fingerprint ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }
}

/// Decides whether an operation fails.
#[derive(Clone, Default)]
pub(super) struct FaultPlan {
    pub(super) faults: Faults,
    pub(super) injections: Vec<Injection>,
    /// See [`set_descriptors`](super::SimDisk::set_descriptors).
    pub(super) has_no_descriptors: bool,
}

impl FaultPlan {
    pub(super) fn decide(&mut self, operation: Operation, path: &Path, random: &mut Random) -> Option<io::Error> {
        if self.has_no_descriptors && matches!(operation, Operation::Open | Operation::List) {
            return Some(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let path = path.to_string_lossy();
        let mut error = None;
        for injection in &mut self.injections {
            if injection.operation != operation || !path.contains(&injection.path_contains) {
                continue;
            }
            if injection.after > 0 {
                injection.after -= 1;
            } else if injection.times > 0 && error.is_none() {
                injection.times -= 1;
                error = Some(injection.errno);
            }
        }
        self.injections.retain(|injection| injection.times > 0);
        if error.is_none() && random.chance(self.faults.chance_of(operation)) {
            error = Some(libc::EIO);
        }
        error.map(io::Error::from_raw_os_error)
    }
}
