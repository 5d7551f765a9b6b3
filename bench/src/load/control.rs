//! What the lanes of a run share: its clock, its phases, what is left to do, and what each reports in the end. The main thread
//! moves the phases; a lane is one producer's or consumer's connection on one of the generator's threads.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::client::ClientError;
use super::measure::{Interval, Recorder, Role};
use super::plan::Amount;
use super::verify::Tracker;

/// The run's clock: nanoseconds since it was made, the same for all threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since it began.
    #[must_use]
    pub(crate) fn now_ns(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Milliseconds since 1970.
#[must_use]
pub(crate) fn wall_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// When the run starts, what is measured starts, and sending ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// The first request.
    pub start_ns: u64,
    /// What is sent from here on counts.
    pub measure_ns: u64,
    /// Nothing is to be sent from here on.
    pub deadline_ns: Option<u64>,
}

/// Where the run stands. It only moves forward.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// Lanes connect.
    Connect,
    /// Load.
    Run(Times),
    /// Producers end what is under way; consumers go on.
    Drain,
    /// Producers have ended; consumers end when they have read up to these offsets, by partition.
    CatchUp(Arc<Vec<i64>>),
    /// Everyone ends at once.
    Abort,
}

/// What the main thread tells the lanes. It is sent anew several times a second, so that lanes look after their time limits.
#[derive(Clone, Debug)]
pub(crate) struct Signal {
    /// Where the run stands.
    pub phase: Phase,
}

/// What is left to do, shared by all lanes of a side.
#[derive(Debug)]
pub(crate) struct Budget {
    in_bytes: bool,
    limited: bool,
    left: AtomicI64,
}

impl Budget {
    /// What an amount leaves to do.
    #[must_use]
    pub(crate) fn new(amount: Amount) -> Self {
        let limit = |count: u64| AtomicI64::new(i64::try_from(count).unwrap_or(i64::MAX));
        match amount {
            Amount::Records(records) => Self { in_bytes: false, limited: true, left: limit(records) },
            Amount::Bytes(bytes) => Self { in_bytes: true, limited: true, left: limit(bytes) },
            Amount::Duration(_) | Amount::Once => Self { in_bytes: false, limited: false, left: limit(0) },
        }
    }

    /// Takes up to `records` records of `bytes` each; how many are left of them. In bytes, a last record may go over.
    pub(crate) fn take(&self, records: u64, bytes: u64) -> u64 {
        if !self.limited {
            return records;
        }
        let unit = if self.in_bytes { bytes.max(1) } else { 1 };
        let wanted = i64::try_from(records.saturating_mul(unit)).unwrap_or(i64::MAX);
        let before = self.left.fetch_sub(wanted, Ordering::Relaxed);
        if before <= 0 {
            // Nobody counts so far down as to come round.
            self.left.fetch_add(wanted, Ordering::Relaxed);
            return 0;
        }
        records.min((before as u64).div_ceil(unit))
    }

    /// Notes that so much was read.
    pub(crate) fn spend(&self, records: u64, bytes: u64) {
        if self.limited {
            let spent = if self.in_bytes { bytes } else { records };
            self.left.fetch_sub(i64::try_from(spent).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }

    /// Whether nothing is left.
    #[must_use]
    pub(crate) fn is_spent(&self) -> bool {
        self.limited && self.left.load(Ordering::Relaxed) <= 0
    }
}

/// What all lanes share, over threads.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// The clock.
    pub clock: Clock,
    /// What is left to send, or to read.
    pub budget: Arc<Budget>,
    /// Lanes that are connected.
    pub connected: Arc<AtomicUsize>,
    /// Producers that have not ended.
    pub producing: Arc<AtomicUsize>,
    /// How long a request may go without an answer.
    pub timeout: Duration,
    /// Who has no connection now.
    pub outages: Arc<Outages>,
}

/// The lanes that have lost their connection and try for another.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    lanes: AtomicUsize,
    why: Mutex<String>,
}

/// One lane's time without a connection; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Outage(Arc<Outages>);

impl Outages {
    /// A lane has lost its connection.
    pub(crate) fn begin(self: &Arc<Self>, why: &ClientError) -> Outage {
        if self.lanes.fetch_add(1, Ordering::AcqRel) == 0 {
            *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why.to_string();
        }
        Outage(Arc::clone(self))
    }

    /// How many lanes have none.
    #[must_use]
    pub(crate) fn lanes(&self) -> usize {
        self.lanes.load(Ordering::Acquire)
    }

    /// What the first of them saw.
    #[must_use]
    pub(crate) fn why(&self) -> String {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        self.0.lanes.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a lane has of its thread: the signal, and where to count.
#[derive(Debug)]
pub(crate) struct Lane {
    /// What all share.
    pub shared: Shared,
    /// Where the run stands.
    pub signal: watch::Receiver<Signal>,
    /// Whose connection it is.
    pub role: Role,
    /// Where its thread's seconds go.
    pub intervals: Sender<Interval>,
    /// Where its thread counts; there once the run has started.
    pub recorder: Rc<RefCell<Option<Recorder>>>,
}

impl Lane {
    /// Notes that this lane is ready, and waits for the start; `None` where there is none.
    pub(crate) async fn started(&mut self) -> Option<Times> {
        self.shared.connected.fetch_add(1, Ordering::Release);
        loop {
            let phase = self.signal.borrow_and_update().phase.clone();
            match phase {
                Phase::Connect => {}
                Phase::Run(times) => {
                    let new = || Recorder::new(self.role, times.measure_ns, self.intervals.clone());
                    self.recorder.borrow_mut().get_or_insert_with(new);
                    return Some(times);
                }
                Phase::Drain | Phase::CatchUp(_) | Phase::Abort => return None,
            }
            self.signal.changed().await.ok()?;
        }
    }

    /// Waits until then; whether the run was told to end at once meanwhile.
    pub(crate) async fn pause_until(&mut self, until_ns: u64) -> bool {
        let pause = Duration::from_nanos(until_ns.saturating_sub(self.shared.clock.now_ns()));
        tokio::select! {
            () = tokio::time::sleep(pause) => false,
            () = self.aborted() => true,
        }
    }

    /// Resolves when the run is told to end at once.
    pub(crate) async fn aborted(&mut self) {
        while !matches!(self.signal.borrow_and_update().phase, Phase::Abort) {
            if self.signal.changed().await.is_err() {
                return;
            }
        }
    }

    /// Gives the thread's recorder of this side to `count`.
    pub(crate) fn record(&self, count: impl FnOnce(&mut Recorder)) {
        if let Some(recorder) = self.recorder.borrow_mut().as_mut() {
            count(recorder);
        }
    }
}

/// What a lane did.
#[derive(Debug, Default)]
pub(crate) struct LaneReport {
    /// Requests that failed, by the error's name.
    pub errors: BTreeMap<String, u64>,
    /// Records of an open loop that began late although nothing but the generator stood in the way.
    pub late: u64,
    /// Records of an open loop.
    pub paced: u64,
    /// What a consumer that verifies saw, and of which partitions.
    pub tracker: Option<(Tracker, Vec<i32>)>,
}

impl LaneReport {
    /// Counts a failure.
    pub(crate) fn error(&mut self, name: impl Into<String>, count: u64) {
        if count > 0 {
            *self.errors.entry(name.into()).or_default() += count;
        }
    }

    /// Counts a failure by what went wrong.
    pub(crate) fn failed(&mut self, error: &ClientError) {
        let name = match error {
            ClientError::Refused { code, .. } => code.to_string(),
            ClientError::Silent { .. } => "no answer".to_owned(),
            ClientError::Unreachable { .. } => "no connection".to_owned(),
            ClientError::Gone { .. } => "connection lost".to_owned(),
            ClientError::Undelivered(_) => "not delivered".to_owned(),
            ClientError::NotKafka { .. } | ClientError::Nonsense { .. } | ClientError::Unfit(_) => "nonsense".to_owned(),
        };
        self.error(name, 1);
    }
}

/// A timer of nanoseconds: tokio's own ticks once a millisecond, which an open loop would show as latency.
#[derive(Debug)]
pub(crate) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// A timer in the current runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that may change their descriptor, which an OwnedFd does not"
        )]
        let timer = AsyncFd::new(fd)?;
        Ok(Self(timer))
    }

    /// Resolves after `ns`; earlier, where the wait before this one was given up.
    pub(crate) async fn wait_ns(&self, ns: u64) {
        let ns = ns.max(1);
        let timespec = |ns: u64| Timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
        let wanted = Itimerspec { it_interval: timespec(0), it_value: timespec(ns) };
        if timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &wanted).is_err() {
            tokio::time::sleep(Duration::from_nanos(ns)).await;
            return;
        }
        // Its count is never read: an expiry from before makes this resolve early at worst, and the caller looks at its clock.
        if let Ok(mut guard) = self.0.readable().await {
            guard.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_given_out_once() {
        let budget = Budget::new(Amount::Records(25));
        assert_eq!([budget.take(10, 100), budget.take(10, 100), budget.take(10, 100), budget.take(10, 100)], [10, 10, 5, 0]);
        assert!(budget.is_spent());
        let budget = Budget::new(Amount::Bytes(1001));
        assert_eq!([budget.take(8, 100), budget.take(8, 100), budget.take(8, 100)], [8, 3, 0]);
        let budget = Budget::new(Amount::Once);
        assert_eq!(budget.take(u64::MAX, 1), u64::MAX);
        assert!(!budget.is_spent());
        let budget = Budget::new(Amount::Records(u64::MAX));
        assert_eq!(budget.take(10, 1), 10);
        budget.spend(u64::MAX, 1);
        assert!(budget.is_spent());
    }

    #[test]
    fn the_timer_fires_and_can_be_set_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let timer = Timer::new().unwrap();
            let start = Instant::now();
            for _ in 0..20 {
                timer.wait_ns(100_000).await;
            }
            assert!(start.elapsed() >= Duration::from_millis(2));
            // One that was given up does not keep the next from firing.
            for _ in 0..5 {
                let _ = tokio::time::timeout(Duration::from_millis(2), timer.wait_ns(1_000_000_000)).await;
                timer.wait_ns(5_000_000).await;
            }
        });
    }
}
