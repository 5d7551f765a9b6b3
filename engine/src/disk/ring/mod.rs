//! Files through io_uring, in a tokio runtime of one thread. The broker's and the benchmarks' [`Disk`]: [`Runtime`] runs a
//! core's futures, [`RingDisk`] opens files in it, [`probe`] says at start whether this machine has what it takes.
//!
//! What is unsafe about a ring is in `submit`; entry types and tokio-uring's types never leave this folder. Each operation owns
//! its memory and its descriptor until the kernel is done with them, whatever becomes of the future. The few calls that have
//! no opcode, or whose opcode is newer than the kernels we run on, block for microseconds and say so where they stand.

mod file;
mod paths;
mod runtime;
mod submit;
mod sync_set;

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

pub use runtime::{RingError, Runtime, probe, run};

use super::{Create, DirEntry, Disk, File, IoFuture, OpenOptions, Space};
use file::{Handle, RingFile};

/// The disk of the machine. Its futures must be polled inside a [`Runtime`].
#[derive(Clone, Copy, Debug, Default)]
pub struct RingDisk;

impl RingDisk {
    /// The disk.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Disk for RingDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> IoFuture<Rc<dyn File>> {
        let path = path.to_owned();
        Box::pin(async move {
            let file: Rc<dyn File> = Rc::new(RingFile::new(open(&path, options).await?));
            Ok(file)
        })
    }

    fn create_dir(&self, path: &Path) -> IoFuture<()> {
        let path = path.to_owned();
        Box::pin(async move { paths::create_dir(&path).await })
    }

    fn list(&self, path: &Path) -> IoFuture<Vec<DirEntry>> {
        let path = path.to_owned();
        Box::pin(async move { paths::list(&path) })
    }

    fn rename(&self, from: &Path, to: &Path) -> IoFuture<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        Box::pin(async move { paths::rename(&from, &to).await })
    }

    fn remove_file(&self, path: &Path) -> IoFuture<()> {
        let path = path.to_owned();
        Box::pin(async move { paths::unlink(&path, 0).await })
    }

    fn remove_dir(&self, path: &Path) -> IoFuture<()> {
        let path = path.to_owned();
        Box::pin(async move { paths::unlink(&path, libc::AT_REMOVEDIR).await })
    }

    fn sync_dir(&self, path: &Path) -> IoFuture<()> {
        let path = path.to_owned();
        Box::pin(async move {
            let directory = paths::open(&path, libc::O_RDONLY | libc::O_DIRECTORY).await?;
            Handle::new(directory, false, false).sync(io_uring::types::FsyncFlags::empty()).await
        })
    }

    fn sync_set(&self, files: Vec<Rc<dyn File>>) -> Pin<Box<dyn Future<Output = Vec<io::Result<()>>>>> {
        Box::pin(sync_set::sync_all(files))
    }

    fn space(&self, path: &Path) -> IoFuture<Space> {
        let path = path.to_owned();
        Box::pin(async move { paths::space(&path) })
    }
}

async fn open(path: &Path, options: OpenOptions) -> io::Result<Rc<Handle>> {
    let access = if options.write { libc::O_RDWR } else { libc::O_RDONLY };
    let create = match options.create {
        Create::Never => 0,
        Create::IfMissing => libc::O_CREAT,
        Create::New => libc::O_CREAT | libc::O_EXCL,
    };
    if !options.direct {
        let handle = Handle::new(paths::open(path, access | create).await?, false, false);
        if !options.write {
            handle.advise_random();
        }
        return Ok(handle);
    }
    match paths::open(path, access | create | libc::O_DIRECT).await {
        Ok(fd) => Ok(Handle::new(fd, true, true)),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            // No O_DIRECT here (open(2)). The file may have been created before that came out, so O_EXCL is done its work.
            let fd = paths::open(path, access | (create & !libc::O_EXCL)).await?;
            warn_once(path, &fd);
            Ok(Handle::new(fd, true, false))
        }
        Err(e) => Err(e),
    }
}

/// Says once per filesystem that it has no direct writes.
fn warn_once(path: &Path, fd: &std::os::fd::OwnedFd) {
    static TOLD: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
    let device = rustix::fs::fstat(fd).map_or(0, |stat| stat.st_dev);
    if TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(device) {
        tracing::warn!(path = %path.display(), "this filesystem has no direct writes (O_DIRECT): writing through the page cache");
    }
}
