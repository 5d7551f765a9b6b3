//! Memory for large frames: a core's bound on the bytes of requests it holds, and pooled buffers under that bound. Used by
//! the reader and the writer of a connection. Small frames ask for nothing here, so they are never held back by large ones.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ringlog_engine::memory::{Buffer, Pool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

/// How long the pool is asked again before memory is taken from the system. The budget bounds that memory too; what makes
/// this necessary is a pool whose regions are all split into smaller blocks.
const POOL_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long the system is asked again where it has none: as long as a producer waits for an answer, by default.
const SYSTEM_WAIT_MAX: Duration = Duration::from_secs(30);
/// How often the system is.
const SYSTEM_WAIT_STEP: Duration = Duration::from_millis(20);
/// How often the pool is: blocks come back from other threads, which cannot wake this one.
const POOL_WAIT_STEP: Duration = Duration::from_millis(1);

/// The bytes of large requests that a core may hold. Clones share it. First come, first served.
#[derive(Clone)]
pub(super) struct Budget {
    bytes: Arc<Semaphore>,
    bytes_max: u32,
    /// How many wait for room.
    waiting: Arc<AtomicUsize>,
}

/// One of those, for as long as it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Self {
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX).max(1);
        Self { bytes: Arc::new(Semaphore::new(bytes_max as usize)), bytes_max, waiting: Arc::default() }
    }

    /// Waits for room for `len` bytes. What is larger than the whole budget takes all of it.
    pub(super) async fn take(&self, len: usize) -> Permit {
        let wanted = u32::try_from(len).unwrap_or(u32::MAX).min(self.bytes_max);
        let _waiting = Waiting::new(&self.waiting);
        // The semaphore is never closed, so that `None` does not happen.
        Permit(self.bytes.clone().acquire_many_owned(wanted).await.ok())
    }

    /// Whether somebody waits for room.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    #[cfg(test)]
    pub(super) fn available(&self) -> usize {
        self.bytes.available_permits()
    }
}

/// Room in a [`Budget`], given back on drop, from whichever thread.
pub(super) struct Permit(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

/// The memory of a frame with its room in the budget: fields are dropped in this order.
pub(super) struct FrameMemory {
    pub(super) buffer: Buffer,
    pub(super) len: usize,
    pub(super) permit: Permit,
}

impl AsRef<[u8]> for FrameMemory {
    fn as_ref(&self) -> &[u8] {
        let _ = &self.permit;
        &self.buffer[..self.len]
    }
}

/// A buffer of at least `len` bytes, from the pool if it has one within [`POOL_WAIT_MAX`], else from the system.
///
/// # Errors
/// The system has had none for [`SYSTEM_WAIT_MAX`].
pub(super) async fn buffer(pool: &Pool, len: usize) -> io::Result<Buffer> {
    let start = Instant::now();
    // What would be most of the pool is not worth waiting for.
    let is_pooled = len <= pool.bytes_max() / 2;
    let pool_wait_max = if is_pooled { POOL_WAIT_MAX } else { Duration::ZERO };
    loop {
        if is_pooled && let Some(buffer) = pool.buffer(len) {
            return Ok(buffer);
        }
        let waited = start.elapsed();
        if waited < pool_wait_max {
            sleep(POOL_WAIT_STEP).await;
            continue;
        }
        match Buffer::standalone(len) {
            Err(_) if waited < SYSTEM_WAIT_MAX => sleep(SYSTEM_WAIT_STEP).await,
            result => return result,
        }
    }
}
