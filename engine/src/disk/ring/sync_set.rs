//! One sync for a set of files or directories: a few at a time through the ring, or, for many, of the filesystem that holds them.
#![allow(unsafe_code, reason = "an operation on a file's descriptor, which it holds")]

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::task::Poll;

use io_uring::opcode;
use io_uring::types::{Fd, FsyncFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::file::Handle;
use super::paths;
use super::submit::{permit, submit};
use crate::disk::{File, IoFuture, same_error};

/// How many files of a set are synced at a time. The kernel has few workers for syncs (four per processor), and a journal's
/// sync queues up with these: syncing 1000 files took 60, 22, 15 and 12 ms with 1, 4, 8 and 64 at a time, while durable 16 KiB
/// rounds took a median of 0.09, 0.16, 0.20 and 0.8 ms instead of 0.07 (ext4, two processors).
const SYNCS_AT_ONCE: usize = 4;
/// From how many on the filesystem is synced instead, at the cost of what others have written there.
const FILESYSTEM_FROM: usize = 32;

/// Syncs all files; each one's own fate, in order.
pub(super) async fn sync_files(files: Vec<Rc<dyn File>>) -> Vec<io::Result<()>> {
    let each = |files: &[Rc<dyn File>]| sync_each(files.iter().map(|file| file.sync_data()).collect());
    if files.len() < FILESYSTEM_FROM {
        return each(&files).await;
    }
    let Some(filesystem) = common_filesystem(files.iter().map(|file| file.descriptor())) else { return each(&files).await };
    match sync_filesystem(filesystem, files[0].sync_data()).await {
        // It could not be tried: a system without a thread to spare, or without this call.
        Err(_) => each(&files).await,
        Ok(Err(error)) => files.iter().map(|_| Err(same_error(&error))).collect(),
        Ok(Ok(())) => {
            let told = |file: &Rc<dyn File>| -> IoFuture<()> {
                if is_direct(file) { Box::pin(std::future::ready(Ok(()))) } else { Box::pin(written_back(file.clone())) }
            };
            sync_each(files.iter().map(told).collect()).await
        }
    }
}

/// Syncs the entries of all directories; each one's own fate, in order.
pub(super) async fn sync_dirs(paths: Vec<PathBuf>) -> Vec<io::Result<()>> {
    if paths.len() >= FILESYSTEM_FROM
        && let Some(result) = sync_many_dirs(&paths).await
    {
        return paths.iter().map(|_| result.as_ref().map(drop).map_err(same_error)).collect();
    }
    let syncs = paths.into_iter().map(|path| -> IoFuture<()> { Box::pin(sync_dir(path)) });
    sync_each(syncs.collect()).await
}

/// Syncs the entries of one directory.
pub(super) async fn sync_dir(path: PathBuf) -> io::Result<()> {
    let directory = paths::open(&path, libc::O_RDONLY | libc::O_DIRECTORY).await?;
    Handle::new(directory, false, false).sync(FsyncFlags::empty()).await
}

/// `None`: it could not be tried, or one of them is not there.
async fn sync_many_dirs(paths: &[PathBuf]) -> Option<io::Result<()>> {
    let mut opened = Vec::with_capacity(paths.len());
    for path in paths {
        opened.push(paths::open(path, libc::O_RDONLY | libc::O_DIRECTORY).await.ok()?);
    }
    let filesystem = common_filesystem(opened.iter().map(|directory| Some(directory.as_fd())))?;
    let last = Handle::new(opened.pop()?, false, false);
    sync_filesystem(filesystem, Box::pin(last.sync(FsyncFlags::empty()))).await.ok()
}

/// Whether a file's writes go around the page cache: then their errors are told by the writes, and a sync has only sizes,
/// extents and the device's cache left.
fn is_direct(file: &Rc<dyn File>) -> bool {
    let flags = file.descriptor().and_then(|descriptor| rustix::fs::fcntl_getfl(descriptor).ok());
    flags.is_some_and(|flags| flags.contains(OFlags::DIRECT))
}

/// After a syncfs: whether writing back one of a file's pages has failed since it was opened. A syncfs tells such an error only
/// if nobody else asked for it before; a file's own descriptor has it for certain. There is nothing left to wait for, and no
/// flush of the device in it (sync_file_range(2)).
async fn written_back(file: Rc<dyn File>) -> io::Result<()> {
    let Some(descriptor) = file.descriptor().map(|descriptor| descriptor.as_raw_fd()) else { return Ok(()) };
    let permit = permit().await?;
    let entry = opcode::SyncFileRange::new(Fd(descriptor), 0).flags(libc::SYNC_FILE_RANGE_WAIT_BEFORE).build();
    // SAFETY: no memory; the operation holds the file, and so its descriptor.
    let (result, _file) = unsafe { submit(entry, file, permit) }.await;
    result.map(drop)
}

/// A descriptor of the filesystem, where all are on one.
fn common_filesystem<'a>(descriptors: impl Iterator<Item = Option<BorrowedFd<'a>>>) -> Option<OwnedFd> {
    let mut found: Option<(u64, OwnedFd)> = None;
    for descriptor in descriptors {
        let descriptor = descriptor?;
        let device = rustix::fs::fstat(descriptor).ok()?.st_dev;
        match &found {
            None => found = Some((device, descriptor.try_clone_to_owned().ok()?)),
            Some((wanted, _)) if *wanted != device => return None,
            Some(_) => {}
        }
    }
    found.map(|(_, descriptor)| descriptor)
}

/// syncfs(2) has no opcode and may take long: it gets a thread. It writes what the filesystem holds back, extents of new blocks
/// and names among it; that the device has been flushed is not promised where there was nothing of that kind (XFS), so one
/// file is synced behind it, which flushes the device for all. The outer error: it could not be tried.
async fn sync_filesystem(filesystem: OwnedFd, sync_any: IoFuture<()>) -> io::Result<io::Result<()>> {
    let (done, is_done) = oneshot::channel();
    std::thread::Builder::new().name("syncfs".to_owned()).spawn(move || {
        let _ = done.send(rustix::fs::syncfs(filesystem.as_fd()));
    })?;
    match is_done.await.map_err(io::Error::other)? {
        Err(error @ (Errno::PERM | Errno::NOSYS)) => Err(error.into()),
        Err(error) => Ok(Err(error.into())),
        Ok(()) => Ok(sync_any.await),
    }
}

/// A window of them at a time. One slow sync holds nobody up: whichever is done makes room for the next.
async fn sync_each(syncs: Vec<IoFuture<()>>) -> Vec<io::Result<()>> {
    let mut results: Vec<Option<io::Result<()>>> = syncs.iter().map(|_| None).collect();
    let mut waiting = syncs.into_iter().enumerate();
    let mut running: Vec<(usize, IoFuture<()>)> = Vec::with_capacity(SYNCS_AT_ONCE);
    poll_fn(|context| {
        loop {
            while running.len() < SYNCS_AT_ONCE
                && let Some(sync) = waiting.next()
            {
                running.push(sync);
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
