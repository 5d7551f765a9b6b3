//! A simulated machine's time and tasks: one thread, virtual time that jumps to the next timer when nothing is ready, and a
//! seed from which all order and all randomness follow. For simulator tests; never in the broker.
//!
//! Everything that wakes by `Waker` works in it, tokio's channels included; what needs tokio's runtime does not.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::random::Random;
use super::{Env, Job, LocalFuture};
use crate::types::TimestampMs;

/// So many polls without time going on are a loop that waits for itself.
const POLLS_PER_INSTANT_MAX: u64 = 10_000_000;
/// Where the wall clock starts: 2026-01-01.
const EPOCH_MS: i64 = 1_767_225_600_000;
/// How long a job of the background thread takes.
const BACKGROUND_MICROS_MAX: u64 = 500;
/// The task that `block_on` polls itself.
const MAIN_TASK: u64 = 0;

/// Nothing is ready, no timer is set, and the future is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlock {
    /// The virtual time at which everything stopped.
    pub at: Duration,
    /// How many tasks wait for something that will not come.
    pub tasks: usize,
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "deadlock at {:?}: {} tasks wait for what will never come", self.at, self.tasks)
    }
}

impl std::error::Error for Deadlock {}

/// In which order ready tasks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they became ready, like the real executor.
    Fifo,
    /// Any, decided by the seed: finds what hangs on an order that nobody promised.
    Random,
}

/// The machine. Cheap to create; a test makes one per seed. Clones are the same machine.
#[derive(Clone)]
pub struct Simulation {
    core: Rc<Core>,
}

struct Core {
    order: Order,
    /// How often the machine crashed: what belongs to an earlier life is dead.
    life: Cell<u64>,
    now: Cell<Duration>,
    wall_skew_ms: Cell<i64>,
    scheduling: RefCell<Random>,
    random: RefCell<Random>,
    next_id: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    /// By due time, then by the order in which they were set.
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    ready: Arc<Ready>,
}

struct Task {
    future: LocalFuture<()>,
    waker: Arc<TaskWaker>,
}

/// Ids of tasks to be polled. A mutex only because wakers have to be `Send`; nobody ever waits for it.
struct Ready(Mutex<Vec<u64>>);

impl Ready {
    fn with<T>(&self, f: impl FnOnce(&mut Vec<u64>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl TaskWaker {
    fn new(id: u64, ready: &Arc<Ready>) -> Arc<Self> {
        let waker = Arc::new(Self { id, queued: AtomicBool::new(false), ready: ready.clone() });
        waker.wake_by_ref();
        waker
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.with(|ready| ready.push(self.id));
        }
    }
}

impl Simulation {
    /// A machine whose ready tasks run in an order that the seed decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_order(seed, Order::Random)
    }

    /// A machine with a chosen order.
    #[must_use]
    pub fn with_order(seed: u64, order: Order) -> Self {
        let mut random = Random::new(seed);
        Self {
            core: Rc::new(Core {
                order,
                life: Cell::new(0),
                now: Cell::new(Duration::ZERO),
                wall_skew_ms: Cell::new(0),
                scheduling: RefCell::new(random.fork()),
                random: RefCell::new(random),
                next_id: Cell::new(MAIN_TASK + 1),
                tasks: RefCell::default(),
                timers: RefCell::default(),
                ready: Arc::new(Ready(Mutex::new(Vec::new()))),
            }),
        }
    }

    /// The door to it, for this life of the machine: after a crash it does nothing any more, and the next boot asks anew.
    #[must_use]
    pub fn env(&self) -> Rc<dyn Env> {
        Rc::new(SimEnv { core: self.core.clone(), life: self.core.life.get() })
    }

    /// Time since the machine was made.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.core.now.get()
    }

    /// How many tasks there are.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.core.tasks.borrow().len()
    }

    /// Lets the wall clock, and only it, jump.
    pub fn jump_wall_clock(&self, by_ms: i64) {
        self.core.wall_skew_ms.set(self.core.wall_skew_ms.get() + by_ms);
    }

    /// Runs everything until the future is done.
    ///
    /// # Panics
    /// On a deadlock.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self.try_block_on(future) {
            Ok(output) => output,
            Err(deadlock) => panic!("{deadlock}"),
        }
    }

    /// Runs everything until the future is done, or nothing can ever happen again.
    pub fn try_block_on<F: Future>(&self, future: F) -> Result<F::Output, Deadlock> {
        match self.drive(future, None) {
            Some(output) => Ok(output),
            None => Err(Deadlock { at: self.now(), tasks: self.tasks() + 1 }),
        }
    }

    /// Runs everything until the future is done, or time comes to `until`: then the future is dropped.
    pub fn block_on_until<F: Future>(&self, future: F, until: Duration) -> Option<F::Output> {
        self.drive(future, Some(until))
    }

    /// Runs all tasks until time comes to `until`. What is due at that very moment has run.
    pub fn run_until(&self, until: Duration) {
        self.drive(std::future::pending::<()>(), Some(until));
    }

    /// Runs all tasks for a while.
    pub fn run_for(&self, duration: Duration) {
        self.run_until(self.now() + duration);
    }

    /// The power goes: all tasks and timers are dropped where they are, and every [`Env`] handed out so far is dead.
    pub fn crash(&self) {
        self.core.life.set(self.core.life.get() + 1);
        // Dropping a task may drop the last handle to another's channel and wake it; it is as dead.
        let tasks = self.core.tasks.take();
        drop(tasks);
        self.core.timers.take();
        self.core.ready.with(|ready| ready.retain(|&id| id == MAIN_TASK));
    }

    fn drive<F: Future>(&self, future: F, until: Option<Duration>) -> Option<F::Output> {
        let core = &self.core;
        let mut main = pin!(future);
        let main_wake = TaskWaker::new(MAIN_TASK, &core.ready);
        let main_waker = Waker::from(main_wake.clone());
        let mut polls: u64 = 0;
        loop {
            while let Some(id) = core.next_ready() {
                polls += 1;
                assert!(polls < POLLS_PER_INSTANT_MAX, "tasks run for ever without time going on, at {:?}", self.now());
                if id == MAIN_TASK {
                    main_wake.queued.store(false, Ordering::Relaxed);
                    if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&main_waker)) {
                        return Some(output);
                    }
                } else {
                    core.poll_task(id);
                }
            }
            polls = 0;
            if !core.advance(until) {
                return None;
            }
        }
    }
}

impl Core {
    fn next_ready(&self) -> Option<u64> {
        self.ready.with(|ready| match (ready.len(), self.order) {
            (0, _) => None,
            (1, _) | (_, Order::Fifo) => Some(ready.remove(0)),
            (len, Order::Random) => {
                let at = self.scheduling.borrow_mut().below(len as u64) as usize;
                Some(ready.swap_remove(at))
            }
        })
    }

    fn poll_task(&self, id: u64) {
        let life = self.life.get();
        // Taken out while it is polled, since it may spawn, or crash the machine.
        let Some(mut task) = self.tasks.borrow_mut().remove(&id) else { return };
        task.waker.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(task.waker.clone());
        let done = task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if !done && self.life.get() == life {
            self.tasks.borrow_mut().insert(id, task);
        }
    }

    /// Moves time to the next timer and fires all that are due then. False where there is none, or it lies behind `until`,
    /// to which time is moved then.
    fn advance(&self, until: Option<Duration>) -> bool {
        let next = self.timers.borrow().first_key_value().map(|(&(due, _), _)| due);
        let due = match (next, until) {
            (Some(due), Some(until)) if due > until => {
                self.now.set(self.now.get().max(until));
                return false;
            }
            (None, Some(until)) => {
                self.now.set(self.now.get().max(until));
                return false;
            }
            (None, None) => return false,
            (Some(due), _) => due,
        };
        self.now.set(self.now.get().max(due));
        loop {
            let first = match self.timers.borrow_mut().first_entry() {
                Some(entry) if entry.key().0 <= due => entry.remove(),
                _ => return true,
            };
            first.wake();
        }
    }

    fn next_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }
}

struct SimEnv {
    core: Rc<Core>,
    life: u64,
}

impl SimEnv {
    fn is_dead(&self) -> bool {
        self.core.life.get() != self.life
    }
}

impl Env for SimEnv {
    fn now(&self) -> TimestampMs {
        TimestampMs(EPOCH_MS + self.core.now.get().as_millis() as i64 + self.core.wall_skew_ms.get())
    }

    fn monotonic(&self) -> Duration {
        self.core.now.get()
    }

    fn random_u64(&self) -> u64 {
        self.core.random.borrow_mut().next_u64()
    }

    fn spawn(&self, future: LocalFuture<()>) {
        if self.is_dead() {
            return;
        }
        let id = self.core.next_id();
        let waker = TaskWaker::new(id, &self.core.ready);
        self.core.tasks.borrow_mut().insert(id, Task { future, waker });
    }

    fn sleep(&self, duration: Duration) -> LocalFuture<()> {
        if self.is_dead() {
            return Box::pin(std::future::pending());
        }
        // Never zero, so that a loop that sleeps lets time go on.
        let due = self.core.now.get().saturating_add(duration.max(Duration::from_nanos(1)));
        Box::pin(Sleep { core: self.core.clone(), life: self.life, due, timer: None })
    }

    /// There is one thread: the job runs on it, after a while.
    fn run_in_background(&self, job: Job) -> LocalFuture<()> {
        let wait = self.sleep(Duration::from_micros(1 + self.random_u64() % BACKGROUND_MICROS_MAX));
        Box::pin(async move {
            wait.await;
            job();
        })
    }
}

struct Sleep {
    core: Rc<Core>,
    life: u64,
    due: Duration,
    /// Its number among the timers, once it waits.
    timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.core.life.get() != self.life {
            return Poll::Pending;
        }
        if self.core.now.get() >= self.due {
            return Poll::Ready(());
        }
        let number = match self.timer {
            Some(number) => number,
            None => self.core.next_id(),
        };
        self.timer = Some(number);
        self.core.timers.borrow_mut().insert((self.due, number), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.timer {
            // The waker is dropped after the borrow: it may be the last handle to something that sleeps too.
            let timer = self.core.timers.borrow_mut().remove(&(self.due, number));
            drop(timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{Notify, mpsc, oneshot};

    use super::*;

    /// What happens when and in which order, for a handful of tasks that talk to each other.
    fn trace(seed: u64, order: Order) -> Vec<(Duration, u64, u64)> {
        let simulation = Simulation::with_order(seed, order);
        let env = simulation.env();
        simulation.block_on(async {
            let (sender, mut receiver) = mpsc::channel(2);
            for task in 0..5 {
                let (env, sender) = (env.clone(), sender.clone());
                env.clone().spawn(Box::pin(async move {
                    for _ in 0..10 {
                        env.sleep(Duration::from_millis(env.random_u64() % 3)).await;
                        sender.send((env.monotonic(), task, env.random_u64())).await.unwrap();
                    }
                }));
            }
            drop(sender);
            let mut seen = Vec::new();
            while let Some(event) = receiver.recv().await {
                seen.push(event);
            }
            seen
        })
    }

    #[test]
    fn a_seed_gives_one_run() {
        for order in [Order::Random, Order::Fifo] {
            assert_eq!(trace(3, order).len(), 50);
            assert_eq!(trace(3, order), trace(3, order));
            assert_ne!(trace(3, order), trace(4, order));
        }
    }

    #[test]
    fn time_is_virtual_and_timers_fire_in_order() {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let order = Rc::new(RefCell::new(Vec::new()));
        for hours in [5, 1, 3] {
            let (env, order) = (env.clone(), order.clone());
            env.clone().spawn(Box::pin(async move {
                env.sleep(Duration::from_secs(hours * 3600)).await;
                order.borrow_mut().push(hours);
            }));
        }
        simulation.run_until(Duration::from_secs(3 * 3600));
        assert_eq!(*order.borrow(), [1, 3], "what is due at the end of a run has run");
        assert_eq!(simulation.now(), Duration::from_secs(3 * 3600));
        let wall = env.now();
        simulation.run_for(Duration::from_secs(3 * 3600));
        assert_eq!(*order.borrow(), [1, 3, 5]);
        assert_eq!(env.now().0 - wall.0, 3 * 3_600_000);
        simulation.jump_wall_clock(-86_400_000);
        assert_eq!(env.now().0 - wall.0, 3 * 3_600_000 - 86_400_000);
        assert_eq!(env.monotonic(), Duration::from_secs(6 * 3600), "only the wall clock jumps");
    }

    #[test]
    fn a_deadlock_is_told() {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let (_sender, receiver) = oneshot::channel::<()>();
        env.spawn(Box::pin(std::future::pending()));
        let stuck = simulation.try_block_on(async {
            env.sleep(Duration::from_secs(1)).await;
            receiver.await
        });
        assert_eq!(stuck.unwrap_err(), Deadlock { at: Duration::from_secs(1), tasks: 2 });
    }

    #[test]
    fn a_crash_drops_tasks_timers_and_the_environment() {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let done = Rc::new(Cell::new(false));
        let notify = Rc::new(Notify::new());
        for _ in 0..2 {
            let (env, done, notify) = (env.clone(), done.clone(), notify.clone());
            env.clone().spawn(Box::pin(async move {
                notify.notified().await;
                env.sleep(Duration::from_secs(1)).await;
                done.set(true);
            }));
        }
        notify.notify_waiters();
        simulation.run_for(Duration::from_millis(500));
        notify.notify_waiters();
        simulation.run_for(Duration::from_millis(500));
        simulation.crash();
        assert_eq!(Rc::strong_count(&done), 1, "tasks are dropped");
        let late = done.clone();
        env.spawn(Box::pin(async move { late.set(true) }));
        simulation.run_for(Duration::from_secs(10));
        assert!(!done.get());
        let again = simulation.env();
        let late = done.clone();
        again.spawn(Box::pin(async move { late.set(true) }));
        simulation.run_for(Duration::from_secs(1));
        assert!(done.get(), "the next boot runs");
    }

    #[test]
    fn a_future_is_dropped_at_its_deadline() {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let long = env.sleep(Duration::from_secs(2));
        assert_eq!(simulation.block_on_until(long, Duration::from_secs(1)), None);
        assert_eq!(simulation.now(), Duration::from_secs(1));
        assert!(simulation.core.timers.borrow().is_empty(), "its timer went with it");
        let short = env.sleep(Duration::from_secs(1));
        assert_eq!(simulation.block_on_until(short, Duration::from_secs(5)), Some(()));
        assert_eq!(simulation.now(), Duration::from_secs(2));
    }
}
