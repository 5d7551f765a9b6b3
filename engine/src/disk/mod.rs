//! The only door to storage. `trait Disk` and `trait File` are what the rest of the engine sees; [`ring`] is io_uring,
//! [`sim`] a deterministic disk in memory with the faults of real ones.
//!
//! Everything may fail, and nothing is durable before its sync: a file's bytes before [`File::sync_data`], a directory's
//! entries (created, renamed, removed names) before [`Disk::sync_dir`]. A failed sync is never retried by this layer: after
//! it, what had been written since the last good sync may be gone although reads still show it (fsync(2), and
//! "Can Applications Recover from fsync Failures?", USENIX ATC 2020).

use std::fs::Metadata;
use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;

use crate::memory::{Buffer, Slice};
use crate::types::TimestampMs;

pub mod cache;
pub mod ring;
mod shortage;
pub mod sim;

pub(crate) use shortage::Shortage;

/// The unit of direct writes: positions, lengths and memory are multiples of it.
pub const BLOCK_BYTES: usize = 4096;

/// What an operation of the disk returns: a future that owns all it needs. Dropping it does not cancel the operation.
pub type IoFuture<T> = Pin<Box<dyn Future<Output = io::Result<T>>>>;

/// Whether [`Disk::open`] may create the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// The file has to be there: `NotFound` otherwise.
    Never,
    /// Created, empty, where it is missing.
    IfMissing,
    /// The file must not be there: `AlreadyExists` otherwise.
    New,
}

/// How [`Disk::open`] opens a file. Every file can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Whether it may be created.
    pub create: Create,
    /// Whether it may be written.
    pub write: bool,
    /// Whether writes go around the page cache (O_DIRECT). They are then whole blocks from aligned memory. Where the
    /// filesystem has no O_DIRECT the file is opened buffered, which is logged once; callers need not care.
    /// Reads through a direct handle must be whole aligned blocks too; who reads through the page cache opens a handle of its own.
    pub direct: bool,
}

impl OpenOptions {
    /// An existing file, to read through the page cache.
    pub const READ: Self = Self { create: Create::Never, write: false, direct: false };
    /// A file to read and write through the page cache, created where missing.
    pub const WRITE: Self = Self { create: Create::IfMissing, write: true, direct: false };
    /// A file to write around the page cache, created where missing.
    pub const DIRECT: Self = Self { create: Create::IfMissing, write: true, direct: true };
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The last part of the path.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// A file's length in bytes; 0 for a directory.
    pub len_bytes: u64,
    /// When it was last written to or cut, by the system's clock.
    pub modified: TimestampMs,
}

impl DirEntry {
    /// An entry of a real directory.
    #[must_use]
    pub fn new(name: String, metadata: &Metadata) -> Self {
        let is_dir = metadata.is_dir();
        let modified = metadata.mtime().saturating_mul(1000).saturating_add(metadata.mtime_nsec() / 1_000_000);
        Self { name, is_dir, len_bytes: if is_dir { 0 } else { metadata.len() }, modified: TimestampMs(modified) }
    }
}

/// How much room a filesystem has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What this process may still use, in bytes.
    pub available_bytes: u64,
}

/// What a write writes. It is dropped when the write is done, which gives pooled memory back.
pub enum Payload {
    /// Small things: checkpoints, indexes, snapshots. Never on a direct handle.
    Bytes(Vec<u8>),
    /// The first `len` bytes of a buffer.
    Buffer {
        /// The memory.
        buffer: Buffer,
        /// How much of it to write.
        len: usize,
    },
    /// Shared memory, one after the other, as one vectored write.
    Slices(Vec<Slice>),
}

impl Payload {
    /// The number of bytes it will write.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Buffer { len, .. } => *len,
            Self::Slices(slices) => slices.iter().map(|s| s.len()).sum(),
        }
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Files and directories.
pub trait Disk {
    /// Opens a file.
    fn open(&self, path: &Path, options: OpenOptions) -> IoFuture<Rc<dyn File>>;
    /// Creates one directory; its parent must exist. `AlreadyExists` where something of that name is.
    fn create_dir(&self, path: &Path) -> IoFuture<()>;
    /// The names in a directory, sorted, so that no decision hangs on the filesystem's order.
    fn list(&self, path: &Path) -> IoFuture<Vec<DirEntry>>;
    /// Renames a file or directory; an existing file of the new name is replaced in one step.
    fn rename(&self, from: &Path, to: &Path) -> IoFuture<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> IoFuture<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> IoFuture<()>;
    /// Makes the entries of a directory durable.
    fn sync_dir(&self, path: &Path) -> IoFuture<()>;
    /// One sync for a set of files. The result tells each file's fate, in order; files that were synced together share it.
    fn sync_set(&self, files: Vec<Rc<dyn File>>) -> Pin<Box<dyn Future<Output = Vec<io::Result<()>>>>>;
    /// The room on the filesystem that holds `path`.
    fn space(&self, path: &Path) -> IoFuture<Space>;
}

/// An open file.
pub trait File {
    /// Its length in bytes.
    fn len_bytes(&self) -> IoFuture<u64>;
    /// Reads up to `len` bytes into the beginning of `buffer`; fewer only at the end of the file.
    fn read_at(&self, buffer: Buffer, len: usize, position: u64) -> IoFuture<(Buffer, usize)>;
    /// Writes all of `payload`; a short write is continued until it is whole or fails. After an error any part of it may
    /// be in the file.
    fn write_at(&self, payload: Payload, position: u64) -> IoFuture<()>;
    /// Writes all of `payload` and then syncs it, linked in the ring, so that nothing waits between the two. `written`
    /// is told when the write is done; the future resolves when the sync is.
    fn write_and_sync(&self, payload: Payload, position: u64, written: tokio::sync::oneshot::Sender<()>) -> IoFuture<()>;
    /// fdatasync(2).
    fn sync_data(&self) -> IoFuture<()>;
    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> IoFuture<()>;
    /// Reserves room, so that later writes there do not run out of it (fallocate(2) without a change of length); where the filesystem
    /// can't, writes zeros.
    fn allocate(&self, position: u64, len: u64) -> IoFuture<()>;
    /// The descriptor, for sendfile(2); `None` in the simulator.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}

/// Reads a whole small file.
///
/// # Errors
/// Those of [`Disk::open`] and [`File::read_at`].
pub async fn read_file(disk: &Rc<dyn Disk>, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenOptions::READ).await?;
    let len = usize::try_from(file.len_bytes().await?).unwrap_or(usize::MAX);
    let (buffer, read) = file.read_at(Buffer::standalone(len)?, len, 0).await?;
    Ok(buffer[..read].to_vec())
}

/// Makes a directory where it is not there, and its name durable in either case: whoever made it may have ended, or failed, before
/// that.
///
/// # Errors
/// Those of the steps; it may be there or not then.
pub(crate) async fn ensure_dir(disk: &Rc<dyn Disk>, parent: &Path, path: &Path) -> io::Result<()> {
    match disk.create_dir(path).await {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    disk.sync_dir(parent).await
}

/// Replaces a small file in one step that a crash cannot tear: a new file is written and synced, takes the name, and the name is
/// synced.
///
/// # Errors
/// Those of the steps; the old file is then still there, or the new one is, whole.
pub async fn replace_file(disk: &Rc<dyn Disk>, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
    write_replacement(disk, path, bytes).await?;
    put_replacement(disk, path).await
}

/// The first half: a new file beside the old one, synced, that [`put_replacement`] gives the name to.
///
/// # Errors
/// Those of the steps; the old file is still there.
pub(crate) async fn write_replacement(disk: &Rc<dyn Disk>, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
    let file = disk.open(&replacement_path(path), OpenOptions::WRITE).await?;
    file.set_len(0).await?;
    file.write_at(Payload::Bytes(bytes), 0).await?;
    file.sync_data().await
}

/// The second half.
///
/// # Errors
/// Those of the steps; either file may have the name then.
pub(crate) async fn put_replacement(disk: &Rc<dyn Disk>, path: &Path) -> io::Result<()> {
    disk.rename(&replacement_path(path), path).await?;
    match path.parent() {
        Some(parent) => disk.sync_dir(parent).await,
        None => Ok(()),
    }
}

fn replacement_path(path: &Path) -> PathBuf {
    let mut replacement = path.as_os_str().to_owned();
    replacement.push(".tmp");
    replacement.into()
}
