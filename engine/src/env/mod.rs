//! The only door to time, randomness, spawn and sleep: [`real`] for the broker, [`sim`] for the simulator, where time is
//! virtual and all of it follows from a seed. Everything in the engine and the broker gets an [`Env`] passed in; nothing asks
//! the operating system itself.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use crate::types::TimestampMs;

pub mod random;
pub mod real;
pub mod sim;

/// A future that stays on its thread.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Clock, randomness, spawn and sleep of one core.
pub trait Env {
    /// The wall clock. It may jump.
    fn now(&self) -> TimestampMs;
    /// Time since an arbitrary start; it never goes back.
    fn monotonic(&self) -> Duration;
    /// Random bits; not for secrets.
    fn random_u64(&self) -> u64;
    /// Runs a future on this core.
    fn spawn(&self, future: LocalFuture<()>);
    /// Resolves after a while.
    fn sleep(&self, duration: Duration) -> LocalFuture<()>;
    /// Runs what must not run on a core on the one low-priority thread of the process; resolves when it is done, or cannot be.
    fn run_in_background(&self, job: Job) -> LocalFuture<()>;
}

/// Waits for a few futures at once.
pub(crate) async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        let mut done = true;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(ready) => *output = Some(ready),
                    Poll::Pending => done = false,
                }
            }
        }
        if done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}

/// Work for the background thread.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs `job` on the background thread and returns what it returned; `None` where there is no such thread, or the job panicked.
pub async fn in_background<T: Send + 'static>(env: &dyn Env, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, result) = tokio::sync::oneshot::channel();
    let done = env.run_in_background(Box::new(move || {
        let _ = sender.send(job());
    }));
    done.await;
    result.await.ok()
}
