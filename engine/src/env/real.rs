//! The operating system's clock and randomness, tokio's tasks and timers, and the background thread. For the broker and the benchmarks; only inside
//! [`crate::disk::ring::Runtime`] or another runtime that has a `LocalSet` and a timer.

use std::cell::RefCell;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};

use super::random::Random;
use super::{Env, Job, LocalFuture};
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

    fn run_in_background(&self, job: Job) -> LocalFuture<()> {
        let (done, ended) = tokio::sync::oneshot::channel::<()>();
        if let Some(jobs) = background() {
            let _ = jobs.send(Box::new(move || {
                job();
                drop(done);
            }));
        }
        Box::pin(async move {
            let _ = ended.await;
        })
    }
}

/// The way to the process's background thread, which the first job starts. It never ends.
fn background() -> Option<&'static mpsc::Sender<Job>> {
    static JOBS: OnceLock<Option<mpsc::Sender<Job>>> = OnceLock::new();
    let start = || {
        let (sender, jobs) = mpsc::channel::<Job>();
        let run = move || {
            lower_priority();
            for job in jobs {
                // Whoever waits for a job that panics hears that it was dropped; the next ones run.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            }
        };
        match thread::Builder::new().name("background".to_owned()).spawn(run) {
            Ok(_) => Some(sender),
            Err(error) => {
                tracing::error!(%error, "the background thread could not be started: logs are neither compacted nor scrubbed");
                None
            }
        }
    };
    JOBS.get_or_init(start).as_ref()
}

/// Lets every core go first, and leaves the processor of the core that the thread was started from.
fn lower_priority() {
    /// The least that there is (setpriority(2)).
    const NICE_MAX: i32 = 19;
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE_MAX) {
        tracing::warn!(%error, "the background thread has no lower priority than the cores");
    }
    // Cores are pinned, and threads begin with the mask of who starts them; the process's first thread has the whole one.
    if let Ok(mask) = rustix::thread::sched_getaffinity(Some(rustix::process::getpid())) {
        let _ = rustix::thread::sched_setaffinity(None, &mask);
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

    #[test]
    fn jobs_run_on_a_thread_of_lower_priority_and_outlive_a_panic() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let env = RealEnv::new();
        let job = || (thread::current().id(), rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap());
        let (thread, nice) = runtime.block_on(crate::env::in_background(&env, job)).unwrap();
        assert_ne!(thread, thread::current().id());
        assert_eq!(nice, 19);
        assert!(runtime.block_on(crate::env::in_background(&env, move || assert!(nice < 0, "a job that panics"))).is_none());
        assert_eq!(runtime.block_on(crate::env::in_background(&env, move || 7)), Some(7));
    }
}
