//! One sync for a set of files: a few at a time through the ring, or, for many, of the filesystem that holds them.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;

use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::sync::oneshot;

use crate::disk::{File, IoFuture};

/// How many files of a set are synced at a time. The kernel has few workers for syncs (four per processor), and a journal's
/// sync queues up with these: syncing 1000 files took 60, 22, 15 and 12 ms with 1, 4, 8 and 64 at a time, while durable 16 KiB
/// rounds took a median of 0.09, 0.16, 0.20 and 0.8 ms instead of 0.07 (ext4, two processors).
const SYNCS_AT_ONCE: usize = 4;
/// From how many files on the filesystem is synced instead, at the cost of what others have written there.
const FILESYSTEM_FROM: usize = 32;

/// Syncs all; each file's own fate, in order.
pub(super) async fn sync_all(files: Vec<Rc<dyn File>>) -> Vec<io::Result<()>> {
    let (direct, rest): (Vec<_>, Vec<_>) = files.iter().cloned().enumerate().partition(|(_, file)| is_direct(file));
    if direct.len() < FILESYSTEM_FROM {
        return sync_each(files).await;
    }
    let Some(filesystem) = common_filesystem(&direct) else { return sync_each(files).await };
    let together = match sync_filesystem(filesystem, &direct[0].1).await {
        Ok(together) => together,
        // It could not be tried: a system without a thread to spare, or without this call.
        Err(_) => return sync_each(files).await,
    };
    let mut results: Vec<_> = files.iter().map(|_| Ok(())).collect();
    for (at, _) in direct {
        results[at] = together.as_ref().map(drop).map_err(same);
    }
    let (places, files): (Vec<_>, Vec<_>) = rest.into_iter().unzip();
    for (at, result) in places.into_iter().zip(sync_each(files).await) {
        results[at] = result;
    }
    results
}

/// Whether a file's writes go around the page cache: then their errors are told by the writes, and a sync has only sizes,
/// extents and the device's cache left. An error of writing pages back is told to a file's own sync for certain, and to
/// that of its filesystem only if nobody else asked before.
fn is_direct(file: &Rc<dyn File>) -> bool {
    let flags = file.descriptor().and_then(|descriptor| rustix::fs::fcntl_getfl(descriptor).ok());
    flags.is_some_and(|flags| flags.contains(OFlags::DIRECT))
}

/// A descriptor of the filesystem, where all files are on one.
fn common_filesystem(files: &[(usize, Rc<dyn File>)]) -> Option<OwnedFd> {
    let device = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).ok().map(|stat| stat.st_dev);
    let first = files.first()?.1.descriptor()?;
    let wanted = device(first)?;
    let together = files.iter().all(|(_, file)| file.descriptor().and_then(device) == Some(wanted));
    together.then(|| first.try_clone_to_owned().ok()).flatten()
}

/// syncfs(2) has no opcode and may take long: it gets a thread. It writes what the filesystem holds back, extents of new blocks
/// among it; that the device has been flushed is not promised where there was nothing of that kind (XFS), so one file
/// is synced behind it, which flushes the device for all. The outer error: it could not be tried.
async fn sync_filesystem(filesystem: OwnedFd, any: &Rc<dyn File>) -> io::Result<io::Result<()>> {
    let (done, is_done) = oneshot::channel();
    std::thread::Builder::new().name("syncfs".to_owned()).spawn(move || {
        let _ = done.send(rustix::fs::syncfs(filesystem.as_fd()));
    })?;
    match is_done.await.map_err(io::Error::other)? {
        Err(error @ (Errno::PERM | Errno::NOSYS)) => Err(error.into()),
        Err(error) => Ok(Err(error.into())),
        Ok(()) => Ok(any.sync_data().await),
    }
}

fn same(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

/// A window of files at a time. One slow file holds nobody up: whichever is done makes room for the next.
async fn sync_each(files: Vec<Rc<dyn File>>) -> Vec<io::Result<()>> {
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
