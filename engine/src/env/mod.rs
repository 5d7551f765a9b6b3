//! The only door to time, randomness, spawn and sleep: [`real`] for the broker, [`sim`] for the simulator, where time is
//! virtual and all of it follows from a seed. Everything in the engine and the broker gets an [`Env`] passed in; nothing asks
//! the operating system itself.

use std::future::Future;
use std::pin::Pin;
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
}
