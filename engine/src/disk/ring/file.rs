//! Operations on an open file.
#![allow(unsafe_code, reason = "reads and writes pass pointers to their memory")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};
use rustix::fs::{Advice, FallocateFlags};
use tokio::sync::oneshot;

use super::submit::{close_later, permit, permit_pair, submit};
use crate::disk::{BLOCK_BYTES, File, IoFuture, Payload};
use crate::memory::Buffer;

/// The most that one operation is asked to move: below what the kernel caps at (2 GiB less a page), a whole number of blocks.
const OPERATION_BYTES_MAX: usize = 1 << 30;
/// IOV_MAX (writev(2)).
const IOVECS_MAX: usize = 1024;
/// How often an operation that was interrupted, or refused for want of resources, is tried again.
const RETRIES_MAX: u32 = 100;

/// A descriptor. Operations hold it, so that it is closed only after the last of them.
pub(super) struct Handle {
    fd: Option<OwnedFd>,
    /// Whether the caller promised whole aligned blocks.
    blocks_only: bool,
    /// Whether the kernel insists on them.
    direct: bool,
}

impl Handle {
    pub(super) fn new(fd: OwnedFd, blocks_only: bool, direct: bool) -> Rc<Self> {
        Rc::new(Self { fd: Some(fd), blocks_only, direct })
    }

    fn fd(&self) -> &OwnedFd {
        let Some(fd) = &self.fd else { unreachable!("only drop takes it") };
        fd
    }

    fn entry_fd(&self) -> Fd {
        Fd(self.fd().as_raw_fd())
    }

    /// Readahead is the reader's: the kernel's would put pages into the cache that nobody has checked.
    pub(super) fn advise_random(&self) {
        // Advice: where it is not taken, nothing is wrong.
        let _ = rustix::fs::fadvise(self.fd(), 0, None, Advice::Random);
    }

    fn sync_entry(&self, flags: FsyncFlags) -> squeue::Entry {
        opcode::Fsync::new(self.entry_fd()).flags(flags).build()
    }

    /// fsync(2), or fdatasync(2) by the flag. An error is final: it is told once, and the next sync would succeed.
    pub(super) async fn sync(self: Rc<Self>, flags: FsyncFlags) -> io::Result<()> {
        let permit = permit().await?;
        let entry = self.sync_entry(flags);
        // SAFETY: no memory; the operation holds the descriptor.
        let (result, _handle) = unsafe { submit(entry, self, permit) }.await;
        result.map(drop)
    }

    fn check_blocks(&self, address: usize, len: usize, position: u64) {
        if self.blocks_only {
            assert!(address.is_multiple_of(BLOCK_BYTES), "direct memory is aligned to blocks");
            assert!(len.is_multiple_of(BLOCK_BYTES), "direct operations move whole blocks, not {len} bytes");
            assert!(position.is_multiple_of(BLOCK_BYTES as u64), "direct operations start at a block, not at {position}");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            close_later(fd);
        }
    }
}

/// A write on its way: it owns the memory that the kernel reads.
struct Write {
    handle: Rc<Handle>,
    payload: Payload,
    position: u64,
    len: usize,
    done: usize,
    /// What the kernel is to gather, for slices.
    iovecs: Vec<libc::iovec>,
    retries: u32,
}

impl Write {
    fn new(handle: Rc<Handle>, payload: Payload, position: u64) -> Self {
        match &payload {
            Payload::Bytes(bytes) => {
                assert!(!handle.blocks_only || bytes.is_empty(), "a direct handle takes aligned memory only");
            }
            Payload::Buffer { buffer, len } => {
                assert!(*len <= buffer.len(), "a buffer has no more than its length");
                handle.check_blocks(buffer.as_ptr() as usize, *len, position);
            }
            Payload::Slices(slices) => {
                for slice in slices {
                    handle.check_blocks(slice.bytes().as_ptr() as usize, slice.len(), position);
                }
            }
        }
        let len = payload.len();
        Self { handle, payload, position, len, done: 0, iovecs: Vec::new(), retries: 0 }
    }

    fn is_done(&self) -> bool {
        self.done == self.len
    }

    /// The next operation, and whether it is the last if it is not cut short.
    fn entry(&mut self) -> (squeue::Entry, bool) {
        let fd = self.handle.entry_fd();
        let position = self.position + self.done as u64;
        let rest = match &self.payload {
            Payload::Bytes(bytes) => &bytes[self.done..],
            Payload::Buffer { buffer, len } => &buffer[self.done..*len],
            Payload::Slices(slices) => {
                let (mut skip, mut gathered) = (self.done, 0);
                self.iovecs.clear();
                for slice in slices {
                    let bytes = slice.bytes();
                    if skip >= bytes.len() {
                        skip -= bytes.len();
                        continue;
                    }
                    let bytes = &bytes[skip..];
                    skip = 0;
                    if self.iovecs.len() == IOVECS_MAX || gathered + bytes.len() > OPERATION_BYTES_MAX {
                        break;
                    }
                    gathered += bytes.len();
                    self.iovecs.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
                }
                let entry = opcode::Writev::new(fd, self.iovecs.as_ptr(), self.iovecs.len() as u32).offset(position).build();
                return (entry, self.done + gathered == self.len);
            }
        };
        let len = rest.len().min(OPERATION_BYTES_MAX);
        (opcode::Write::new(fd, rest.as_ptr(), len as u32).offset(position).build(), len == rest.len())
    }

    /// Notes how far an operation came.
    fn advance(&mut self, result: io::Result<u32>) -> io::Result<()> {
        match result {
            Ok(written) => {
                self.done += written as usize;
                assert!(self.done <= self.len, "the kernel writes no more than it is given");
                if self.handle.direct && !self.is_done() {
                    // What a direct write continues at must be a block; a part of one is written again.
                    self.done -= self.done % BLOCK_BYTES;
                }
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.may_retry_after(self.is_done() || written as usize >= BLOCK_BYTES)
                    .then_some(())
                    .ok_or_else(|| io::ErrorKind::WriteZero.into())
            }
            Err(e) if is_transient(&e) && self.may_retry_after(false) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn may_retry_after(&mut self, progress: bool) -> bool {
        self.retries = if progress { 0 } else { self.retries + 1 };
        self.retries <= RETRIES_MAX
    }

    /// One operation.
    async fn step(mut self) -> (io::Result<()>, Self) {
        let permit = match permit().await {
            Ok(permit) => permit,
            Err(e) => return (Err(e), self),
        };
        let (entry, _) = self.entry();
        // SAFETY: the payload's memory and the iovecs are on the heap, initialised, and owned (or kept alive, and never
        // changed) by the operation; so is the descriptor.
        let (result, mut this) = unsafe { submit(entry, self, permit) }.await;
        (this.advance(result), this)
    }

    async fn run(mut self) -> io::Result<Self> {
        while !self.is_done() {
            let result;
            (result, self) = self.step().await;
            result?;
        }
        Ok(self)
    }

    /// The write and its sync, as a linked pair. One write with RWF_DSYNC would be told only when it is synced, and its end
    /// goes through a kernel thread: on a machine with busy cores, one at a time took 4 to 30 times as long as the pair
    /// (tests/disk_dsync.rs); four in flight took 0.6 to 0.8 of its time up to 64 KiB, and more than its time at 1 MiB.
    async fn run_and_sync(mut self, written: oneshot::Sender<()>) -> io::Result<()> {
        let handle = self.handle.clone();
        while !self.is_done() {
            let (write_permit, sync_permit) = permit_pair().await?;
            let (write, is_last) = self.entry();
            if !is_last {
                let result;
                // SAFETY: as in `step`.
                (result, self) = unsafe { submit(write, self, write_permit) }.await;
                self.advance(result)?;
                continue;
            }
            let sync = handle.sync_entry(FsyncFlags::DATASYNC);
            // SAFETY: as in `step`. Nothing comes between the two pushes, and the permits see to it that the queue takes
            // both, so the kernel gets them in one submission.
            let (write, sync) = unsafe {
                let write = submit(write.flags(squeue::Flags::IO_LINK), self, write_permit);
                (write, submit(sync, handle.clone(), sync_permit))
            };
            let result;
            (result, self) = write.await;
            self.advance(result)?;
            if !self.is_done() {
                // Cut short: the kernel has broken the link, and cancels the sync.
                continue;
            }
            drop(self);
            // The receiver may have lost interest.
            let _ = written.send(());
            return match sync.await {
                (Err(e), _) if e.raw_os_error() == Some(libc::ECANCELED) => handle.sync(FsyncFlags::DATASYNC).await,
                (result, _) => result.map(drop),
            };
        }
        // There was nothing to write.
        let _ = written.send(());
        handle.sync(FsyncFlags::DATASYNC).await
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN))
}

async fn read(handle: Rc<Handle>, buffer: Buffer, len: usize, position: u64) -> io::Result<(Buffer, usize)> {
    assert!(len <= buffer.len(), "a buffer has no more than its length");
    handle.check_blocks(buffer.as_ptr() as usize, len, position);
    let (mut handle, mut buffer) = (handle, buffer);
    let (mut done, mut retries) = (0, 0);
    while done < len {
        let permit = permit().await?;
        let target = &mut buffer[done..len.min(done + OPERATION_BYTES_MAX)];
        let mut entry =
            opcode::Read::new(handle.entry_fd(), target.as_mut_ptr(), target.len() as u32).offset(position + done as u64).build();
        if !handle.direct {
            // Straight to a worker: what is read here is mostly cold, and looking up its blocks may itself wait for the disk.
            entry = entry.flags(squeue::Flags::ASYNC);
        }
        let result;
        // SAFETY: the target is in the buffer's block, which the operation owns, as it does the descriptor.
        (result, (handle, buffer)) = unsafe { submit(entry, (handle, buffer), permit) }.await;
        match result {
            Ok(0) => break,
            Ok(read) => {
                (done, retries) = (done + read as usize, 0);
                if handle.direct && !done.is_multiple_of(BLOCK_BYTES) {
                    break; // the end of the file
                }
            }
            Err(e) if is_transient(&e) && retries < RETRIES_MAX => retries += 1,
            Err(e) => return Err(e),
        }
    }
    Ok((buffer, done))
}

async fn allocate(handle: Rc<Handle>, position: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    let permit = permit().await?;
    let mode = FallocateFlags::KEEP_SIZE.bits() as i32;
    let entry = opcode::Fallocate::new(handle.entry_fd(), len).offset(position).mode(mode).build();
    // SAFETY: no memory; the operation holds the descriptor.
    let (result, handle) = unsafe { submit(entry, handle, permit) }.await;
    match result {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => write_zeros(handle, position, len).await,
        result => result.map(drop),
    }
}

/// Room by writing it: only behind the end of the file, since what lies before it has room, and contents.
async fn write_zeros(handle: Rc<Handle>, position: u64, len: u64) -> io::Result<()> {
    const PIECE_BYTES: usize = 1 << 20;
    let end = (position + len).next_multiple_of(BLOCK_BYTES as u64);
    // A part of a block before the end is not ours to overwrite; its block has room.
    let mut at = position.max(len_bytes(&handle)?).next_multiple_of(BLOCK_BYTES as u64);
    let mut zeros = Buffer::standalone(PIECE_BYTES)?;
    zeros.fill(0);
    while at < end {
        let len = PIECE_BYTES.min((end - at) as usize);
        let write = Write::new(handle.clone(), Payload::Buffer { buffer: zeros, len }, at).run().await?;
        let Payload::Buffer { buffer, .. } = write.payload else { unreachable!("it was given a buffer") };
        zeros = buffer;
        at += len as u64;
    }
    Ok(())
}

/// fstat(2), which does not block: the inode of an open file is in memory.
fn len_bytes(handle: &Handle) -> io::Result<u64> {
    Ok(rustix::fs::fstat(handle.fd())?.st_size as u64)
}

/// An open file of [`super::RingDisk`].
pub(super) struct RingFile {
    handle: Rc<Handle>,
}

impl RingFile {
    pub(super) fn new(handle: Rc<Handle>) -> Self {
        Self { handle }
    }
}

impl File for RingFile {
    fn len_bytes(&self) -> IoFuture<u64> {
        let handle = self.handle.clone();
        Box::pin(async move { len_bytes(&handle) })
    }

    fn read_at(&self, buffer: Buffer, len: usize, position: u64) -> IoFuture<(Buffer, usize)> {
        Box::pin(read(self.handle.clone(), buffer, len, position))
    }

    fn write_at(&self, payload: Payload, position: u64) -> IoFuture<()> {
        let write = Write::new(self.handle.clone(), payload, position);
        Box::pin(async move { write.run().await.map(drop) })
    }

    fn write_and_sync(&self, payload: Payload, position: u64, written: oneshot::Sender<()>) -> IoFuture<()> {
        Box::pin(Write::new(self.handle.clone(), payload, position).run_and_sync(written))
    }

    fn sync_data(&self) -> IoFuture<()> {
        Box::pin(self.handle.clone().sync(FsyncFlags::DATASYNC))
    }

    fn set_len(&self, len: u64) -> IoFuture<()> {
        let handle = self.handle.clone();
        // Blocks: the opcode for ftruncate(2) came with Linux 6.9. A segment is cut when it is sealed, and at a clean stop.
        Box::pin(async move { Ok(rustix::fs::ftruncate(handle.fd(), len)?) })
    }

    fn allocate(&self, position: u64, len: u64) -> IoFuture<()> {
        Box::pin(allocate(self.handle.clone(), position, len))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.handle.fd().as_fd())
    }
}
