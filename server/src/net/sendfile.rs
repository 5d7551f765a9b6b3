//! The two questions to the kernel about a file that is to be sent: is it in the page cache, and move it to that socket.
//! Called by the writer of a connection and by those who plan a fetch. Never waits for a disk: that is what the first
//! question is for.
#![allow(unsafe_code, reason = "cachestat(2) has no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::ReadWriteFlags;

/// The most that one call moves: more would keep the core from its other connections.
pub const CALL_BYTES_MAX: usize = 1 << 20;

const PAGE_BYTES: u64 = 4096;
/// Where cachestat(2) is missing or refused, one byte of every so many is asked for.
const PROBE_STEP_BYTES: u64 = 64 << 10;
/// cachestat(2), the same number on every architecture (Linux 6.5).
const SYS_CACHESTAT: libc::c_long = 451;

/// Whether the kernel knows cachestat(2); asked once.
static CACHESTAT_MISSING: AtomicBool = AtomicBool::new(false);

#[repr(C)]
struct CachestatRange {
    offset: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Whether the page cache holds all of `position..position + len`. A moment later it may not.
#[must_use]
pub fn is_cached(file: BorrowedFd<'_>, position: u64, len: u64) -> bool {
    if len == 0 {
        return true;
    }
    match pages_cached(file, position, len) {
        Some(pages) => pages > (position + len - 1) / PAGE_BYTES - position / PAGE_BYTES,
        None => probes_cached(file, position, len),
    }
}

/// How many pages of the range are cached; `None` where the kernel does not say. It refuses files that this process
/// neither owns nor may write.
fn pages_cached(file: BorrowedFd<'_>, position: u64, len: u64) -> Option<u64> {
    if CACHESTAT_MISSING.load(Ordering::Relaxed) {
        return None;
    }
    let range = CachestatRange { offset: position, len };
    let mut stat = Cachestat::default();
    // SAFETY: the descriptor is borrowed for the call; both structures have the kernel's layout, and live on this stack
    // until it returns; the kernel reads the first and writes no more than the second.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0_u32) };
    if result == 0 {
        return Some(stat.cached);
    }
    if io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
        CACHESTAT_MISSING.store(true, Ordering::Relaxed);
    }
    None
}

/// Reads single bytes on condition that nothing waits.
fn probes_cached(file: BorrowedFd<'_>, position: u64, len: u64) -> bool {
    let last = position + len - 1;
    let inner = (position..last).step_by(PROBE_STEP_BYTES as usize);
    inner.chain(std::iter::once(last)).all(|at| {
        let mut byte = [0_u8; 1];
        let read = rustix::io::preadv2(file, &mut [io::IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT);
        // An end of file is nobody's wait either; the transfer will meet it.
        !matches!(read, Err(rustix::io::Errno::AGAIN | rustix::io::Errno::OPNOTSUPP))
    })
}

/// Moves up to `len` bytes (at most [`CALL_BYTES_MAX`]) of `file` from `position` on to a non-blocking socket and returns
/// how many; 0 where the file ends there.
///
/// # Errors
/// `WouldBlock` when the socket takes nothing; else what sendfile(2) says.
pub fn send_file(socket: impl AsFd, file: BorrowedFd<'_>, position: u64, len: u64) -> io::Result<usize> {
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(CALL_BYTES_MAX);
    let mut from = position;
    Ok(rustix::fs::sendfile(socket, file, Some(&mut from), len)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_just_written_is_cached_and_what_was_dropped_is_not() {
        // In the build folder: a memory filesystem, as /tmp often is, has nothing but a cache.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&vec![7; 300_000]).unwrap();
        for (position, len) in [(0, 300_000), (1, 1), (4095, 2), (299_999, 1), (77, 0)] {
            assert!(is_cached(file.as_fd(), position, len), "{position}+{len}");
            assert!(probes_cached(file.as_fd(), position, len.max(1)), "{position}+{len}");
        }
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        if pages_cached(file.as_fd(), 0, 300_000) == Some(0) {
            assert!(!is_cached(file.as_fd(), 0, 300_000));
            assert!(!probes_cached(file.as_fd(), 0, 300_000));
        }
    }
}
