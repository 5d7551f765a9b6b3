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

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

pub use runtime::{RingError, Runtime, probe, run};

use super::{Create, DirEntry, Disk, File, IoFuture, OpenOptions, Space};
use file::{Handle, RingFile};

/// How many files of a set are synced at a time. The kernel has few workers for syncs (four per processor), and a journal's
/// sync queues up with these: syncing 1000 files took 60, 22, 15 and 12 ms with 1, 4, 8 and 64 at a time, while durable 16 KiB
/// rounds took a median of 0.09, 0.16, 0.20 and 0.8 ms instead of 0.07 (ext4, two processors).
const SYNCS_AT_ONCE: usize = 4;

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
        Box::pin(sync_all(files))
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

/// Syncs all, a window of them at a time. One slow file holds nobody up: whichever is done makes room for the next.
async fn sync_all(files: Vec<Rc<dyn File>>) -> Vec<io::Result<()>> {
    let mut results: Vec<Option<io::Result<()>>> = (0..files.len()).map(|_| None).collect();
    let mut waiting = files.into_iter().enumerate();
    let mut running: Vec<(usize, IoFuture<()>)> = Vec::with_capacity(SYNCS_AT_ONCE);
    poll_fn(|context| {
        loop {
            while running.len() < SYNCS_AT_ONCE
                && let Some((at, file)) = waiting.next()
            {
                running.push((at, file.sync_data()));
            }
            let before = running.len();
            running.retain_mut(|(at, sync)| match sync.as_mut().poll(context) {
                Poll::Ready(result) => {
                    results[*at] = Some(result);
                    false
                }
                Poll::Pending => true,
            });
            if running.is_empty() && waiting.len() == 0 {
                return Poll::Ready(());
            }
            if running.len() == before {
                return Poll::Pending;
            }
        }
    })
    .await;
    results.into_iter().map(|result| result.unwrap_or_else(|| unreachable!("every sync has ended"))).collect()
}
