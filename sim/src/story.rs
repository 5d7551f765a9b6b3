//! What a seed comes to: a machine and its clients through a number of lives, each of which boots (or crashes while it does), is
//! read back and checked, works in some weather, and ends by a stop, the death of the process or a loss of power, at any step of
//! the disk's.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::batch::batches;
use ringlog_engine::disk::sim::{CrashOutcome, Operation};
use ringlog_engine::env::random::Random;
use ringlog_server::broker::BrokerError;

use crate::check::{self, End};
use crate::client::admin::{self, Admin, Habits};
use crate::client::consumer::{self, Consumer};
use crate::client::producer::{self, Producer};
use crate::groups;
use crate::groups::plan::{Crowd, Groups, Migration, Options};
use crate::hazards::{self, Hazards};
use crate::life::{Life, Trace};
use crate::machine::{DATA, Machine, Running, Setup};
use crate::model::{Existence, Model};
use crate::network::{Network, NetworkFaults};
use crate::weather::{self, Climate};

/// How long anything may take, by the simulation's clock: what takes longer does not end.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long clients work at the end of a seed until everything that was sent is answered.
const DRAIN: Duration = Duration::from_secs(240);

/// What a seed did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// How often the machine or its process died, or stopped, and came back.
    pub cycles: u64,
    /// How many of these were while it started.
    pub crashes_while_starting: u64,
    /// Operations of the disk.
    pub operations: u64,
    /// Errors that the disk made up.
    pub errors: u64,
    /// The same by what failed, in the order of [`Operation`].
    pub errors_of: [u64; Operation::COUNT],
    /// Operations for which the disk had no room.
    pub full: u64,
    /// Starts in which there was one.
    pub full_while_starting: u64,
    /// Segments that the next batch would have made too large, where they are small.
    pub full_segments: u64,
    /// Batches that rotted.
    pub rotted: u64,
    /// Other files that did.
    pub rotted_files: u64,
    /// Acknowledged batches.
    pub acknowledged: u64,
    /// Batches that were read and checked.
    pub read: u64,
    /// Offsets whose commit was acknowledged.
    pub committed: u64,
    /// Generations and epochs that members of groups came to.
    pub rebalanced: u64,
    /// How often a member of a group changed its protocol.
    pub changed_protocol: u64,
    /// A hash of all that the disk did: a seed always gives the same.
    pub fingerprint: u64,
}

/// Runs a seed. The error is what was violated, with its name first.
///
/// # Errors
/// An invariant does not hold, or the broker panicked.
pub fn run(seed: u64, is_loud: bool) -> Result<Outcome, String> {
    run_with(seed, Choice::default(), is_loud)
}

/// What is not left to the seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    /// Whether there are groups.
    pub groups: Groups,
    /// Whether members of one change their protocol.
    pub migration: Migration,
    /// Whether there are hazards.
    pub hazards: Hazards,
}

impl Choice {
    /// Neither groups nor hazards.
    pub const PLAIN: Self = Self { groups: Groups::Never, migration: Migration::Never, hazards: Hazards::Never };

    /// What the binary is told, with a space before each.
    #[must_use]
    pub fn options(self) -> String {
        format!("{}{}{}", self.groups.option(), self.migration.option(), self.hazards.option())
    }
}

/// Runs a seed, with or without something whatever it says.
///
/// # Errors
/// As [`run`].
pub fn run_with(seed: u64, choice: Choice, is_loud: bool) -> Result<Outcome, String> {
    let story = AssertUnwindSafe(|| Story::new(seed, choice, is_loud).run());
    std::panic::catch_unwind(story).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "a panic".to_owned())
    })
}

struct Story {
    machine: Machine,
    random: Random,
    climate: Climate,
    hazards: hazards::Plan,
    /// That of the hazards alone.
    luck: Random,
    setup: Setup,
    model: Rc<RefCell<Model>>,
    producers: Vec<Rc<RefCell<Producer>>>,
    consumers: Vec<Rc<RefCell<Consumer>>>,
    admin: Rc<RefCell<Admin>>,
    /// Who has to do with groups, if the seed has any.
    crowd: Option<Crowd>,
    trace: Rc<Trace>,
    outcome: Outcome,
    /// How the lives since the last check ended.
    end: End,
    /// Segments that were full.
    full_segments: BTreeSet<(usize, PathBuf)>,
}

/// How starting went.
enum Started {
    Running(Running),
    Crashed,
    Failed(String),
}

impl Story {
    fn new(seed: u64, choice: Choice, is_loud: bool) -> Self {
        let mut random = Random::new(seed);
        let climate = Climate::new(&mut random);
        let setup = setup(&mut random, &climate);
        let trace = Trace::new(is_loud);
        trace.say(Duration::ZERO, || format!("seed {seed}: {climate:?} {setup:?}"));
        let (hazards, luck) = hazards::Plan::new(seed, choice.hazards);
        trace.say(Duration::ZERO, || format!("{hazards:?}"));
        let value_bytes_max = hazards.segment_bytes.map_or(u64::MAX, |bytes| bytes as u64 / 5);
        let producers = (0..2 + random.below(4) as usize).map(|index| Producer::new(index, value_bytes_max, random.fork()));
        let producers = producers.map(|producer| Rc::new(RefCell::new(producer))).collect();
        let consumers = (0..1 + random.below(2)).map(|_| Consumer::new(random.fork()));
        let consumers = consumers.map(|consumer| Rc::new(RefCell::new(consumer))).collect();
        let habits = Habits { has_small_segments: hazards.segment_bytes.is_some(), retains_by_time: hazards.retains_by_time };
        let admin = Rc::new(RefCell::new(Admin::new(random.fork(), habits)));
        let groups = Options::new(seed, choice.groups);
        let mut model = Model::default();
        let machine = Machine::new(seed, groups.as_ref().map(|(options, _)| options), hazards.segment_bytes);
        machine.disk.set_copies_on_write(hazards.copies_on_write);
        let crowd = groups.map(|(options, mut random)| {
            trace.say(Duration::ZERO, || format!("groups: {options:?}"));
            let crowd = options.crowd(&mut model.groups, &mut random, seed, choice.migration);
            crowd.wishes().for_each(|wish| trace.say(Duration::ZERO, || wish));
            crowd
        });
        Self {
            machine,
            random,
            climate,
            hazards,
            luck,
            setup,
            model: Rc::new(RefCell::new(model)),
            producers,
            consumers,
            admin,
            crowd,
            trace,
            outcome: Outcome::default(),
            end: End::Stopped,
            full_segments: BTreeSet::new(),
        }
    }

    fn say(&self, line: impl FnOnce() -> String) {
        self.trace.say(self.machine.simulation.now(), line);
    }

    fn run(mut self) -> Outcome {
        let lives = 4 + self.random.below(6);
        for _ in 0..lives {
            let running = self.boot();
            self.check(&running);
            let life = self.live(&running);
            self.end_life(running, &life);
        }
        self.drain();
        let counters = self.machine.disk.counters();
        let model = self.model.borrow();
        self.outcome.operations = counters.operations;
        self.outcome.errors = counters.errors;
        self.outcome.errors_of = counters.errors_of;
        self.outcome.full = counters.full;
        self.outcome.full_segments = self.full_segments.len() as u64;
        self.outcome.rotted = model.rotted_count;
        self.outcome.rotted_files = model.rotten_files.len() as u64;
        self.outcome.fingerprint = counters.fingerprint;
        self.outcome.acknowledged = model.acknowledged_count;
        self.outcome.read = model.read_count;
        self.outcome.committed = model.groups.committed_count;
        self.outcome.rebalanced = model.groups.rebalanced_count;
        self.outcome.changed_protocol = model.groups.changed_count;
        self.outcome
    }

    /// Starts the broker until it is up. On the way the machine may crash, and the disk may fail.
    fn boot(&mut self) -> Running {
        loop {
            let rotten = self.hazards.rest(&self.machine.disk, &mut self.model.borrow_mut(), &mut self.luck);
            rotten.into_iter().for_each(|what| self.say(|| what));
            let may_crash = self.random.chance(0.3);
            let fails = self.climate.errors && self.random.chance(0.15);
            if self.climate.more_cores && self.random.chance(0.2) {
                self.setup.cores = 1 + self.random.below(3) as usize;
            }
            self.machine.disk.set_faults(if fails { weather::failing(&mut self.random) } else { self.climate.mild() });
            let (faults, room) = self.hazards.before_start(&self.machine.disk, &mut self.luck);
            self.machine.disk.set_capacity(room);
            self.machine.disk.set_descriptors(true);
            let fails = fails || faults.is_some() || room.is_some();
            faults.into_iter().for_each(|faults| self.machine.disk.set_faults(faults));
            let before = self.machine.disk.counters();
            let steps = may_crash.then(|| steps(&mut self.random, 600));
            let started = self.start(steps);
            let after = self.machine.disk.counters();
            self.outcome.full_while_starting += u64::from(after.full > before.full);
            if after.errors_of[Operation::Read as usize] > before.errors_of[Operation::Read as usize] {
                self.model.borrow_mut().fail_reads_of_a_start();
            }
            self.machine.disk.set_capacity(None);
            match started {
                Started::Running(running) => {
                    self.machine.disk.set_faults(self.climate.mild());
                    if fails {
                        // What it wrote may be lost although it was told to be synced; it has not shown it to anybody yet.
                        self.say(|| "the broker started on a disk that failed at times".to_owned());
                    }
                    return running;
                }
                Started::Crashed => {
                    self.say(|| "crash while the broker starts".to_owned());
                    self.outcome.crashes_while_starting += 1;
                    self.machine.crash(None);
                    self.die();
                }
                Started::Failed(error) => {
                    assert!(fails, "BrokerStarts: {error}");
                    self.say(|| format!("the broker does not start: {error}"));
                    self.machine.crash(None);
                    self.machine.disk.crash_with(CrashOutcome::KeepUnsynced);
                    self.end = self.end.max(End::ProcessDied);
                    self.outcome.cycles += 1;
                }
            }
        }
    }

    fn start(&self, steps: Option<u64>) -> Started {
        let started = self.machine.start(&self.setup);
        let begun = self.machine.disk.counters().operations;
        let crash = self.machine.disk.reached(steps.map_or(u64::MAX, |steps| begun + steps));
        let until = self.machine.simulation.now() + PATIENCE;
        let done = self.machine.simulation.block_on_until(
            async {
                tokio::select! {
                    biased;
                    started = started => Some(started),
                    () = crash => None,
                }
            },
            until,
        );
        match done {
            None => panic!("EverythingEnds: the start takes more than {PATIENCE:?}"),
            Some(None) => Started::Crashed,
            Some(Some(Ok(running))) => Started::Running(running),
            Some(Some(Err(error))) => Started::Failed(format!("{error:?}")),
        }
    }

    fn life_of(&mut self, running: &Running, faults: NetworkFaults) -> Rc<Life> {
        let env = self.machine.simulation.env();
        let network = Network::new(env.clone(), running.handlers.clone(), self.random.next_u64(), faults);
        Rc::new(Life { env, network, model: self.model.clone(), trace: self.trace.clone() })
    }

    /// Reads everything back on a good day.
    fn check(&mut self, running: &Running) {
        let life = self.life_of(running, NetworkFaults { delay_max: Duration::from_micros(50), cut: 0.0 });
        let (end, mut random) = (self.end, self.random.fork());
        self.say(|| format!("the broker is up; before: {end:?}, {} cores", running.cores.len()));
        let until = self.machine.simulation.now() + PATIENCE;
        let done = self.machine.simulation.block_on_until(check::after_start(&life, &self.machine.disk, end, &mut random), until);
        assert!(done.is_some(), "EverythingEnds: reading everything takes more than {PATIENCE:?}");
        self.end = End::Stopped;
        self.note_full_segments();
    }

    /// Counts the segments to which the first batch of the next one was not added because of their size.
    fn note_full_segments(&mut self) {
        let Some(bytes_max) = self.hazards.segment_bytes else { return };
        let sizes = |path: &Path| {
            let bytes = self.machine.disk.durable_bytes(path).unwrap_or_default();
            batches(&bytes).map_while(Result::ok).map(|batch| batch.bytes().len()).collect::<Vec<_>>()
        };
        let model = self.model.borrow();
        let there = model.topics.iter().enumerate().filter(|(_, topic)| topic.existence == Existence::Present);
        for (at, folder) in
            there.flat_map(|(at, topic)| (0..topic.partitions.len()).map(move |p| (at, format!("{}-{p}", topic.name))))
        {
            let folder = Path::new(DATA).join(folder);
            let logs = self.machine.disk.entries(&folder).into_iter().filter(|entry| entry.name.ends_with(".log"));
            let logs: Vec<_> = logs.map(|entry| folder.join(entry.name)).map(|path| (sizes(&path), path)).collect();
            let is_full = |before: &[usize], next: &[usize]| {
                next.first().is_some_and(|first| before.iter().sum::<usize>() + first > bytes_max as usize)
            };
            let full = logs.windows(2).filter(|pair| is_full(&pair[0].0, &pair[1].0)).map(|pair| (at, pair[0].1.clone()));
            self.full_segments.extend(full);
        }
    }

    fn spawn_clients(&self, life: &Rc<Life>) {
        for producer in &self.producers {
            life.env.spawn(Box::pin(producer::run(producer.clone(), life.clone())));
        }
        for consumer in &self.consumers {
            life.env.spawn(Box::pin(consumer::run(consumer.clone(), life.clone())));
        }
        life.env.spawn(Box::pin(admin::run(self.admin.clone(), life.clone())));
        if let Some(crowd) = &self.crowd {
            crowd.spawn(life);
        }
    }

    /// Clients and weather, until the end is near.
    fn live(&mut self, running: &Running) -> Rc<Life> {
        let cut = if self.climate.cuts { 0.05 } else { 0.0 };
        let delay_max = Duration::from_micros([50, 500, 20_000][self.random.below(3) as usize]);
        let life = self.life_of(running, NetworkFaults { delay_max, cut });
        self.spawn_clients(&life);
        let (machine, climate, random) = (self.machine.disk.clone(), self.climate.clone(), self.random.fork());
        let weather = weather::Weather {
            disk: machine,
            simulation: self.machine.simulation.clone(),
            life: life.clone(),
            mount: running.disk.clone(),
            climate,
            random,
        };
        life.env.spawn(Box::pin(weather.run()));
        if self.hazards.is_any() {
            let hazards = self.hazards.clone().run(self.machine.disk.clone(), life.clone(), self.luck.fork());
            life.env.spawn(Box::pin(hazards));
        }
        let begun = self.machine.disk.counters().operations;
        let crash = self.machine.disk.reached(begun + steps(&mut self.random, 6_000));
        let for_ms_max = [50, 2_000, 20_000][self.random.below(3) as usize];
        let for_ms = 1 + self.random.below(for_ms_max);
        let until = self.machine.simulation.now() + Duration::from_millis(for_ms);
        let _ = self.machine.simulation.block_on_until(crash, until);
        check::scrub_tells_only_rot(running, &self.model.borrow());
        life
    }

    fn end_life(&mut self, running: Running, life: &Life) {
        if self.random.below(4) == 0 {
            self.stop(running, life);
        } else {
            self.model.borrow_mut().note_flushed(self.machine.simulation.now());
            self.machine.crash(Some(running));
            self.die();
        }
        self.machine.disk.set_capacity(None);
        self.machine.disk.clear_injections();
        let mut model = self.model.borrow_mut();
        model.reads_fail = false;
        model.groups.end_of_life(self.machine.simulation.now());
    }

    /// The machine is dead: what becomes of the disk.
    fn die(&mut self) {
        if self.random.chance(0.3) {
            self.say(|| "the process died".to_owned());
            self.machine.disk.crash_with(CrashOutcome::KeepUnsynced);
            self.end = self.end.max(End::ProcessDied);
        } else {
            self.say(|| "the power is lost".to_owned());
            self.machine.disk.crash();
            self.end = End::PowerLost;
        }
        self.outcome.cycles += 1;
    }

    /// A clean stop, while clients go on; sometimes it is cut short.
    fn stop(&mut self, running: Running, life: &Life) {
        self.say(|| "the broker stops".to_owned());
        if self.random.chance(0.5) {
            self.machine.disk.set_capacity(None);
            self.machine.disk.clear_injections();
            self.machine.disk.set_faults(self.climate.mild());
        }
        let begun = self.machine.disk.counters().operations;
        let steps = if self.random.chance(0.4) { begun + steps(&mut self.random, 300) } else { u64::MAX };
        let crash = self.machine.disk.reached(steps);
        let until = self.machine.simulation.now() + PATIENCE;
        let stopped = self.machine.simulation.block_on_until(
            async {
                tokio::select! {
                    biased;
                    stopped = stop(&running, life) => Some(stopped),
                    () = crash => None,
                }
            },
            until,
        );
        let Some(stopped) = stopped else { panic!("EverythingEnds: the stop takes more than {PATIENCE:?}") };
        self.say(|| format!("stopped: {stopped:?}"));
        let is_clean = matches!(stopped, Some(Ok(())));
        if !is_clean {
            self.model.borrow_mut().note_flushed(self.machine.simulation.now());
        }
        self.machine.crash(Some(running));
        if is_clean {
            // What a clean stop left has to be durable.
            self.machine.disk.crash();
            self.outcome.cycles += 1;
        } else {
            self.die();
        }
    }

    /// On a good day everybody comes to an end: all that was sent is answered, and the broker stops and starts.
    fn drain(&mut self) {
        self.climate.end();
        self.hazards.end();
        let running = self.boot();
        self.check(&running);
        let life = self.life_of(&running, NetworkFaults { delay_max: Duration::from_micros(500), cut: 0.0 });
        self.say(|| "the last life: everything is answered".to_owned());
        for producer in &self.producers {
            producer.borrow_mut().is_draining = true;
        }
        self.admin.borrow_mut().is_draining = true;
        self.crowd.iter().for_each(Crowd::drain);
        self.spawn_clients(&life);
        let producers = self.producers.clone();
        let unsettled = || self.crowd.as_ref().and_then(|crowd| groups::check::unsettled(crowd, &self.model.borrow()));
        let drained = async {
            while !producers.iter().all(|producer| producer.borrow().is_idle()) || unsettled().is_some() {
                life.env.sleep(Duration::from_millis(100)).await;
            }
        };
        let until = self.machine.simulation.now() + DRAIN;
        if self.machine.simulation.block_on_until(drained, until).is_none() {
            let waiting: Vec<_> =
                self.producers.iter().filter(|producer| !producer.borrow().is_idle()).map(|p| p.borrow().name.clone()).collect();
            assert!(waiting.is_empty(), "EverythingEnds: {waiting:?} had no answer for {DRAIN:?}");
            panic!("EveryPartitionIsOwned: after {DRAIN:?} {}", unsettled().unwrap_or_default());
        }
        let until = self.machine.simulation.now() + PATIENCE;
        let stopped = self.machine.simulation.block_on_until(stop(&running, &life), until);
        match stopped {
            Some(Ok(())) => {}
            Some(Err(error)) => panic!("EverythingEnds: the last stop is not clean: {error}"),
            None => panic!("EverythingEnds: the last stop takes more than {PATIENCE:?}"),
        }
        self.machine.crash(Some(running));
        self.model.borrow_mut().groups.end_of_life(self.machine.simulation.now());
        self.machine.disk.crash_with(CrashOutcome::LoseUnsynced);
        self.outcome.cycles += 2;
        self.end = End::Stopped;
        let running = self.boot();
        self.check(&running);
        if self.machine.scrubs() {
            self.scrub(&running);
        }
        self.machine.crash(Some(running));
    }

    /// Waits until everything was scrubbed, and looks at what was found.
    fn scrub(&self, running: &Running) {
        let from: Vec<_> = running.cores.iter().map(|core| core.scrub_passes()).collect();
        let until = self.machine.simulation.now() + PATIENCE;
        // A pass that has begun already may have been there too early.
        while running.cores.iter().zip(&from).any(|(core, from)| core.scrub_passes() < from + 2) {
            assert!(self.machine.simulation.now() < until, "EverythingEnds: a scrub takes more than {PATIENCE:?}");
            self.machine.simulation.run_for(Duration::from_millis(100));
        }
        check::scrub_tells_only_rot(running, &self.model.borrow());
        check::scrub_tells_rot(running, &self.machine.disk, &self.model.borrow());
    }
}

async fn stop(running: &Running, life: &Life) -> Result<(), BrokerError> {
    if !life.model.borrow().groups.all.is_empty() {
        running.stop_groups();
    }
    life.network.stop().await;
    running.stop().await
}

/// How a seed's broker is set up.
fn setup(random: &mut Random, climate: &Climate) -> Setup {
    // Drawn apart, so that what else follows from a seed does not change with it.
    let journal_run_bytes_max = [u64::MAX, 0, 1 << 10, 8 << 10][random.clone().fork().below(4) as usize];
    Setup {
        journal_run_bytes_max,
        cores: 1 + random.below(3) as usize,
        journal_bytes: if climate.small_journal { 64 << 10 } else { [256 << 10, 1 << 20][random.below(2) as usize] },
        tail_bytes: [1 << 20, 2 << 20, 4 << 20][random.below(3) as usize],
        open_files_max: [4, 16][random.below(2) as usize],
        snapshot_records: [5, 30, 1_000][random.below(3) as usize],
    }
}

/// So many steps of the disk, small numbers as likely as large ones.
fn steps(random: &mut Random, max: u64) -> u64 {
    let bits = 64 - max.leading_zeros();
    let top = 1u64 << random.below(u64::from(bits) + 1);
    1 + random.below(top.min(max))
}

impl Outcome {
    /// Adds another seed's.
    pub fn add(&mut self, other: &Self) {
        self.cycles += other.cycles;
        self.crashes_while_starting += other.crashes_while_starting;
        self.operations += other.operations;
        self.errors += other.errors;
        self.errors_of.iter_mut().zip(other.errors_of).for_each(|(sum, more)| *sum += more);
        self.full += other.full;
        self.full_while_starting += other.full_while_starting;
        self.full_segments += other.full_segments;
        self.rotted += other.rotted;
        self.rotted_files += other.rotted_files;
        self.acknowledged += other.acknowledged;
        self.read += other.read;
        self.committed += other.committed;
        self.rebalanced += other.rebalanced;
        self.changed_protocol += other.changed_protocol;
        self.fingerprint ^= other.fingerprint;
    }
}
