//! Operations on names: open, create, list, rename, remove.
#![allow(unsafe_code, reason = "path operations pass pointers to their names, and get descriptors as numbers")]

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use io_uring::opcode;
use io_uring::types::Fd;

use super::submit::{permit, submit};
use crate::disk::{DirEntry, Space};

const CURRENT_DIR: Fd = Fd(libc::AT_FDCWD);
/// What a new file or directory may be used for by whom, before the umask.
const FILE_MODE: libc::mode_t = 0o644;
const DIR_MODE: libc::mode_t = 0o755;

fn c_string(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}

/// openat(2).
pub(super) async fn open(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let path = c_string(path)?;
    // A task of its own: if the caller loses interest while the kernel opens, the descriptor is still received, and closed.
    let task = tokio::task::spawn_local(async move {
        let permit = permit().await?;
        let entry = opcode::OpenAt::new(CURRENT_DIR, path.as_ptr()).flags(flags | libc::O_CLOEXEC).mode(FILE_MODE).build();
        // SAFETY: the name is on the heap, and owned by the operation.
        let (result, _path) = unsafe { submit(entry, path, permit) }.await;
        // SAFETY: a successful openat yields a new descriptor, which nobody else knows.
        result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
    });
    task.await.map_err(io::Error::other)?
}

/// mkdirat(2).
pub(super) async fn create_dir(path: &Path) -> io::Result<()> {
    let path = c_string(path)?;
    let permit = permit().await?;
    let entry = opcode::MkDirAt::new(CURRENT_DIR, path.as_ptr()).mode(DIR_MODE).build();
    // SAFETY: the name is on the heap, and owned by the operation.
    let (result, _path) = unsafe { submit(entry, path, permit) }.await;
    result.map(drop)
}

/// renameat(2).
pub(super) async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (c_string(from)?, c_string(to)?);
    let permit = permit().await?;
    let entry = opcode::RenameAt::new(CURRENT_DIR, from.as_ptr(), CURRENT_DIR, to.as_ptr()).build();
    // SAFETY: both names are on the heap, and owned by the operation.
    let (result, _paths) = unsafe { submit(entry, (from, to), permit) }.await;
    result.map(drop)
}

/// unlinkat(2).
pub(super) async fn unlink(path: &Path, flags: i32) -> io::Result<()> {
    let path = c_string(path)?;
    let permit = permit().await?;
    let entry = opcode::UnlinkAt::new(CURRENT_DIR, path.as_ptr()).flags(flags).build();
    // SAFETY: the name is on the heap, and owned by the operation.
    let (result, _path) = unsafe { submit(entry, path, permit) }.await;
    result.map(drop)
}

/// The entries of a directory. Blocks: the ring cannot read directories; it is done at start and when a directory is deleted.
pub(super) fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        // A link counts as what it points to.
        let meta = match std::fs::metadata(entry.path()) {
            Ok(meta) => meta,
            // Gone meanwhile, or a link to nowhere.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        // A name that is not UTF-8 is none of ours; it is shown as well as can be.
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push(DirEntry::new(name, &meta));
    }
    entries.sort();
    Ok(entries)
}

/// statvfs(3). Blocks in theory: there is no opcode, and local filesystems answer from memory.
pub(super) fn space(path: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(Space { total_bytes: stat.f_blocks * stat.f_frsize, available_bytes: stat.f_bavail * stat.f_frsize })
}
