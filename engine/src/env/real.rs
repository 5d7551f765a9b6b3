//! The operating system's clock and randomness, and tokio's tasks and timers. For the broker and the benchmarks; only inside
//! [`crate::disk::ring::Runtime`] or another runtime that has a `LocalSet` and a timer.

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};

use super::random::Random;
use super::{Env, LocalFuture};
use crate::types::TimestampMs;

/// See the module.
pub struct RealEnv {
    start: Instant,
    random: RefCell<Random>,
}

impl RealEnv {
    /// An environment for this thread.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), random: RefCell::new(Random::new(seed())) }
    }
}

impl Default for RealEnv {
    fn default() -> Self {
        Self::new()
    }
}

/// Different for every process and thread, whatever happens.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    // At most 256 bytes are never cut short nor interrupted (getrandom(2)); it fails only where seccomp forbids it.
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(_) => {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            since.as_nanos() as u64 ^ (u64::from(std::process::id()) << 32) ^ (&raw const bytes as u64)
        }
    }
}

impl Env for RealEnv {
    fn now(&self) -> TimestampMs {
        let now = SystemTime::now();
        // A clock before 1970 is a clock that nobody has set: negative, as Java's is.
        TimestampMs(match now.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_millis() as i64,
            Err(before) => -(before.duration().as_millis() as i64),
        })
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn random_u64(&self) -> u64 {
        self.random.borrow_mut().next_u64()
    }

    fn spawn(&self, future: LocalFuture<()>) {
        drop(tokio::task::spawn_local(future));
    }

    fn sleep(&self, duration: Duration) -> LocalFuture<()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn tasks_and_timers_run() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let env: Rc<dyn Env> = Rc::new(RealEnv::new());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let before = env.monotonic();
            let inner = env.clone();
            env.spawn(Box::pin(async move {
                inner.sleep(Duration::from_millis(2)).await;
                sender.send(inner.now()).unwrap();
            }));
            assert!(receiver.await.unwrap() > TimestampMs(1_600_000_000_000));
            assert!(env.monotonic() - before >= Duration::from_millis(2));
            assert_ne!(env.random_u64(), env.random_u64());
            assert_ne!(RealEnv::new().random_u64(), RealEnv::new().random_u64());
        });
    }
}
