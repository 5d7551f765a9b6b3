//! Keeps brokers out of a directory while it is repaired, and the repair out of one that a broker has: Ringlog locks `.lock` by
//! flock(2), Kafka (Java's FileChannel) by fcntl(2), and neither sees the other's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};

use ringlog_engine::segment::names::LOCK_FILE;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::offline::OfflineError;
use crate::offline::directory::Directory;

/// Takes both locks; they are held as long as the file is open. `None` for a folder that lies in no data directory: no broker
/// can have it.
pub(super) fn take(directory: &Directory, execute: bool) -> Result<Option<File>, OfflineError> {
    let path = directory.data.join(LOCK_FILE);
    let opened =
        match OpenOptions::new().read(true).write(true).create(execute && directory.is_data_dir).truncate(false).open(&path) {
            // A copy that may only be read: a dry run does not need more.
            Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                File::open(&path)
            }
            opened => opened,
        };
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OfflineError::read(&path)(error)),
    };
    let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).and_then(|()| {
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            // Not open for writing.
            Err(Errno::BADF) => rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockShared),
            locked => locked,
        }
    });
    match locked {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK | Errno::ACCESS) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim().parse::<u32>().map(|pid| format!(" (process {pid})")).unwrap_or_default();
            Err(OfflineError::Used { path: directory.data.clone(), holder })
        }
        Err(error) => Err(OfflineError::read(&path)(error.into())),
    }
}
