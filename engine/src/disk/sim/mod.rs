//! A deterministic disk in memory with the faults of real ones, for tests. All of it follows from a seed: how long each
//! operation takes, which order that gives, and what a crash leaves.
//!
//! [`SimDisk`] is the device; [`SimDisk::mount`] gives the [`Disk`] of one life of the machine. After [`SimDisk::crash`] what
//! was mounted before is dead, its files too, and a new mount shows what has survived:
//! - **Bytes.** Each sector of 512 bytes that was written since the file's last good sync is as it was at that sync, or as any
//!   write since has made it, each for itself; so an unfinished write is torn. Direct writes go the same way: the device has
//!   a cache.
//! - **Length.** Growth that was not synced is lost, or kept in part or whole, with zeros where data was lost. A cut that was
//!   not synced is done or undone, cuts in their order.
//! - **Names.** A change of a directory's names that was not synced (`sync_dir`) is done or undone, whole, each for itself;
//!   what builds on a change that is undone is undone with it. Renames are atomic. A directory whose own name is lost is lost
//!   with all that it holds, synced or not; a file's sync says nothing about its name.
//! - **A failed sync.** Reads go on to show the bytes, the next sync succeeds, and a crash loses them: their pages were marked
//!   clean. So may [`SimDisk::evict`], without a crash. A failed `sync_dir` has done nothing, and may be tried again.
//! - **A dropped future** cancels nothing, as on the real ring.
//!
//! A full disk ([`SimDisk::set_capacity`]) takes the part of a write that fits and says ENOSPC for the rest, as ext4 does; if it copies
//! on write, also where there was something before.

mod content;
mod faults;
mod file;
mod tree;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::oneshot;

pub use faults::{Counters, Faults, Injection, Operation};

use self::faults::FaultPlan;
use self::file::{OpenFile, SimFile};
use self::tree::Tree;
use super::{BLOCK_BYTES, Create, DirEntry, Disk, File, IoFuture, OpenOptions, Space};
use crate::env::random::Random;
use crate::env::sim::Simulation;

/// What `space` says where no capacity was set.
const CAPACITY_DEFAULT_BYTES: u64 = 1 << 40;

/// What becomes, in a crash, of all that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashOutcome {
    /// All of it is lost.
    LoseUnsynced,
    /// All of it is kept: the process died, the machine did not. Only what failed syncs lost is lost.
    KeepUnsynced,
    /// Anything between, by the seed.
    Mixed,
}

/// A simulated device. Clones are the same device.
#[derive(Clone)]
pub struct SimDisk {
    shared: Rc<Shared>,
}

struct Shared {
    simulation: Simulation,
    state: RefCell<State>,
}

struct State {
    tree: Tree,
    random: Random,
    /// How often it crashed: handles of an earlier life are dead.
    life: u64,
    plan: FaultPlan,
    counters: Counters,
    capacity_bytes: Option<u64>,
    /// See [`SimDisk::set_copies_on_write`].
    copies_on_write: bool,
    /// Who waits for how many operations.
    alarms: Vec<(u64, Waker)>,
    /// See [`SimDisk::immediate`].
    immediate: bool,
}

impl SimDisk {
    /// An empty disk: a root directory and nothing else. Its time is the simulation's, its luck its own.
    #[must_use]
    pub fn new(simulation: &Simulation, seed: u64) -> Self {
        Self::with_state(
            simulation,
            State {
                tree: Tree::new(),
                random: Random::new(seed),
                life: 0,
                plan: FaultPlan::default(),
                counters: Counters::default(),
                capacity_bytes: None,
                copies_on_write: false,
                alarms: Vec::new(),
                immediate: false,
            },
        )
    }

    /// A disk whose operations are done when they are first polled, never fail, and need no sync: for who wants what stands in files
    /// read many thousand times a second, and not what a disk does to them. It does not crash.
    #[must_use]
    pub fn immediate(simulation: &Simulation) -> Self {
        let disk = Self::new(simulation, 0);
        disk.state(|state| state.immediate = true);
        disk
    }

    fn with_state(simulation: &Simulation, state: State) -> Self {
        Self { shared: Rc::new(Shared { simulation: simulation.clone(), state: RefCell::new(state) }) }
    }

    /// A copy of the device as it is now, with what is not durable; to try several crashes from one point. Faults are not
    /// copied, and nothing is mounted.
    #[must_use]
    pub fn fork(&self, simulation: &Simulation, seed: u64) -> Self {
        let state = self.shared.state.borrow();
        let copy = State {
            tree: state.tree.clone(),
            random: Random::new(seed),
            life: 0,
            plan: FaultPlan::default(),
            counters: Counters::default(),
            capacity_bytes: state.capacity_bytes,
            copies_on_write: state.copies_on_write,
            alarms: Vec::new(),
            immediate: state.immediate,
        };
        Self::with_state(simulation, copy)
    }

    /// The filesystem, until the next crash.
    #[must_use]
    pub fn mount(&self) -> Rc<dyn Disk> {
        let life = self.shared.state.borrow().life;
        Rc::new(Mount { shared: self.shared.clone(), life })
    }

    /// The power goes. To be called together with [`Simulation::crash`], unless other machines live in the same simulation.
    pub fn crash(&self) {
        let outcome = match self.state(|state| state.random.below(8)) {
            0 => CrashOutcome::LoseUnsynced,
            1 => CrashOutcome::KeepUnsynced,
            _ => CrashOutcome::Mixed,
        };
        self.crash_with(outcome);
    }

    /// A crash with a chosen outcome.
    pub fn crash_with(&self, outcome: CrashOutcome) {
        self.state(|state| {
            assert!(!state.immediate, "nothing is known of what an immediate disk would lose");
            state.life += 1;
            state.counters.crashes += 1;
            state.tree.crash(outcome, &mut state.random);
        });
    }

    /// Resolves when so many operations have begun since the disk was made: a crash then comes at a step of the disk's, however
    /// close in time these are.
    pub fn reached(&self, operations: u64) -> impl Future<Output = ()> + 'static {
        let disk = self.clone();
        poll_fn(move |context| {
            disk.state(|state| {
                if state.counters.operations >= operations {
                    return Poll::Ready(());
                }
                state.alarms.retain(|(_, waker)| !waker.will_wake(context.waker()));
                state.alarms.push((operations, context.waker().clone()));
                Poll::Pending
            })
        })
    }

    /// What goes wrong by chance from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state(|state| state.plan.faults = faults);
    }

    /// What goes wrong for certain.
    pub fn inject(&self, injection: Injection) {
        self.state(|state| state.plan.injections.push(injection));
    }

    /// Forgets all injections that wait.
    pub fn clear_injections(&self) {
        self.state(|state| state.plan.injections.clear());
    }

    /// Whether there are file descriptors: without, nothing can be opened or listed (EMFILE).
    pub fn set_descriptors(&self, has_some: bool) {
        self.state(|state| state.plan.has_no_descriptors = !has_some);
    }

    /// The next sync of that file fails.
    pub fn fail_next_sync(&self, path: &Path) {
        self.inject(Injection::next(Operation::Sync, &path.to_string_lossy()));
    }

    /// How much fits; `None` is no limit. It may be less than what is there.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state(|state| state.capacity_bytes = bytes);
    }

    /// Whether it takes room to write again what was written before, as on btrfs: a full disk refuses that too then.
    pub fn set_copies_on_write(&self, copies: bool) {
        self.state(|state| state.copies_on_write = copies);
    }

    /// How much is taken.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.shared.state.borrow().tree.blocks() * BLOCK_BYTES as u64
    }

    /// What is in a directory now, durable or not, without an operation of the disk's; nothing where there is no such one.
    #[must_use]
    pub fn entries(&self, path: &Path) -> Vec<DirEntry> {
        self.shared.state.borrow().tree.list(path).unwrap_or_default()
    }

    /// Flips so many bits of a file, anywhere in it, in memory and on the device. Returns where.
    ///
    /// # Panics
    /// Where there is no such file, or nothing in it.
    pub fn rot(&self, path: &Path, bits: usize) -> Vec<u64> {
        self.state(|state| {
            let Some(file) = state.tree.find_file(path) else { panic!("no file {}", path.display()) };
            let len = file.content.bytes().len() as u64;
            assert!(len > 0, "an empty file does not rot");
            let flips = (0..bits).map(|_| {
                let position = state.random.below(len);
                file.content.flip(position as usize, state.random.below(8) as u8);
                position
            });
            flips.collect()
        })
    }

    /// Flips one bit of a file.
    ///
    /// # Panics
    /// Where there is no such file, or no such byte.
    pub fn rot_at(&self, path: &Path, position: u64, bit: u8) {
        self.state(|state| {
            let Some(file) = state.tree.find_file(path) else { panic!("no file {}", path.display()) };
            file.content.flip(position as usize, bit);
        });
    }

    /// The page cache forgets a file: what a failed sync has lost, reads no longer show.
    pub fn evict(&self, path: &Path) {
        self.state(|state| {
            if let Some(file) = state.tree.find_file(path) {
                file.content.evict();
            }
        });
    }

    /// The bytes of a file that are durable: those that a crash leaves which takes all it can. `None` where no name leads
    /// to one now; whether the name is durable is another matter.
    #[must_use]
    pub fn durable_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        self.state(|state| state.tree.find_file(path).map(|file| file.content.durable()))
    }

    /// What it has done.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.state.borrow().counters
    }

    /// All names, a line each, and what is not durable about them.
    #[must_use]
    pub fn tree(&self) -> String {
        self.shared.state.borrow().tree.dump()
    }

    fn state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.shared.state.borrow_mut())
    }
}

fn dead() -> io::Error {
    io::Error::other("the machine has crashed")
}

impl State {
    /// Bytes that still fit.
    fn available(&self) -> u64 {
        let used = self.tree.blocks() * BLOCK_BYTES as u64;
        self.capacity_bytes.unwrap_or(CAPACITY_DEFAULT_BYTES).saturating_sub(used)
    }
}

impl Shared {
    /// Works on the state, unless the machine has crashed since `life` began.
    fn alive<T>(&self, life: u64, f: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.borrow_mut();
        if state.life == life { f(&mut state) } else { Err(dead()) }
    }

    /// The beginning of every operation: it is counted, takes its time, and may fail.
    async fn begin(&self, life: u64, operation: Operation, path: &Path, numbers: [u64; 2]) -> io::Result<()> {
        if self.state.borrow().immediate {
            return Ok(());
        }
        let now = self.simulation.now().as_nanos() as u64;
        self.alive(life, |state| {
            state.counters.note(operation, path, [numbers[0], numbers[1], now]);
            let begun = state.counters.operations;
            for (_, waker) in state.alarms.extract_if(.., |(at, _)| *at <= begun) {
                waker.wake();
            }
            Ok(())
        })?;
        self.pause(life).await?;
        let error = self.alive(life, |state| {
            let error = state.plan.decide(operation, path, &mut state.random);
            state.counters.errors += u64::from(error.is_some());
            state.counters.errors_of[operation as usize] += u64::from(error.is_some());
            Ok(error)
        })?;
        error.map_or(Ok(()), Err)
    }

    /// A part of the time that an operation takes.
    async fn pause(&self, life: u64) -> io::Result<()> {
        if self.state.borrow().immediate {
            return Ok(());
        }
        let delay = self.alive(life, |state| {
            let (faults, random) = (&state.plan.faults, &mut state.random);
            let usual = Duration::from_nanos(random.below(faults.delay_max.as_nanos() as u64));
            let slow = if random.chance(faults.slow) { faults.slow_delay } else { Duration::ZERO };
            Ok(usual + slow)
        })?;
        self.simulation.env().sleep(delay).await;
        self.alive(life, |_| Ok(()))
    }

    /// The future of an operation: it begins when it is first polled, and goes on when it is dropped.
    fn run<T: 'static>(self: &Rc<Self>, operation: impl Future<Output = io::Result<T>> + 'static) -> IoFuture<T> {
        if self.state.borrow().immediate {
            return Box::pin(operation);
        }
        let env = self.simulation.env();
        Box::pin(async move {
            let (sender, receiver) = oneshot::channel();
            env.spawn(Box::pin(async move {
                // Where nobody waits any more, the result goes nowhere.
                let _ = sender.send(operation.await);
            }));
            receiver.await.unwrap_or_else(|_| Err(dead()))
        })
    }
}

struct Mount {
    shared: Rc<Shared>,
    life: u64,
}

impl Mount {
    /// An operation on a name: one pause, the step, another pause.
    fn run<T: 'static>(
        &self,
        operation: Operation,
        path: &Path,
        step: impl FnOnce(&mut State, &Path) -> io::Result<T> + 'static,
    ) -> IoFuture<T> {
        let (shared, life, path) = (self.shared.clone(), self.life, path.to_owned());
        self.shared.run(async move {
            shared.begin(life, operation, &path, [0; 2]).await?;
            let done = shared.alive(life, |state| step(state, &path))?;
            shared.pause(life).await?;
            Ok(done)
        })
    }
}

impl Disk for Mount {
    fn open(&self, path: &Path, options: OpenOptions) -> IoFuture<Rc<dyn File>> {
        let (shared, life) = (self.shared.clone(), self.life);
        self.run(Operation::Open, path, move |state, path| {
            let now = shared.simulation.env().now();
            let node = state.tree.open(path, options.create != Create::Never, options.create == Create::New, now)?;
            state.tree.file(node).handles += 1;
            let file: Rc<dyn File> =
                Rc::new(SimFile { open: Rc::new(OpenFile { shared, life, node, path: path.to_owned(), options }) });
            Ok(file)
        })
    }

    fn create_dir(&self, path: &Path) -> IoFuture<()> {
        self.run(Operation::CreateDir, path, |state, path| state.tree.create_dir(path))
    }

    fn list(&self, path: &Path) -> IoFuture<Vec<DirEntry>> {
        self.run(Operation::List, path, |state, path| state.tree.list(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> IoFuture<()> {
        let from: PathBuf = from.to_owned();
        self.run(Operation::Rename, to, move |state, to| state.tree.rename(&from, to))
    }

    fn remove_file(&self, path: &Path) -> IoFuture<()> {
        self.run(Operation::Remove, path, |state, path| state.tree.remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> IoFuture<()> {
        self.run(Operation::Remove, path, |state, path| state.tree.remove_dir(path))
    }

    fn sync_dir(&self, path: &Path) -> IoFuture<()> {
        self.run(Operation::SyncDir, path, |state, path| {
            let dir = state.tree.find_dir(path)?;
            state.tree.sync_dir(dir);
            state.counters.dir_syncs += 1;
            Ok(())
        })
    }

    fn sync_set(&self, files: Vec<Rc<dyn File>>) -> Pin<Box<dyn Future<Output = Vec<io::Result<()>>>>> {
        Box::pin(async move {
            let mut syncs: Vec<IoFuture<()>> = files.iter().map(|file| file.sync_data()).collect();
            let mut results: Vec<Option<io::Result<()>>> = syncs.iter().map(|_| None).collect();
            poll_fn(|context| {
                for (sync, result) in syncs.iter_mut().zip(&mut results).filter(|(_, result)| result.is_none()) {
                    if let Poll::Ready(ended) = sync.as_mut().poll(context) {
                        *result = Some(ended);
                    }
                }
                if results.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            results.into_iter().flatten().collect()
        })
    }

    fn space(&self, path: &Path) -> IoFuture<Space> {
        self.run(Operation::List, path, |state, path| {
            state.tree.find(path)?;
            let total_bytes = state.capacity_bytes.unwrap_or(CAPACITY_DEFAULT_BYTES);
            Ok(Space { total_bytes, available_bytes: state.available() })
        })
    }
}
