//! What goes wrong while the broker works: the disk's errors, its room, rot, and the clock's jumps.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::{Faults, Injection, Operation, SimDisk};
use ringlog_engine::env::random::Random;
use ringlog_engine::env::sim::Simulation;

use crate::life::Life;
use crate::machine::DATA;
use crate::rot;

/// What a seed has in store.
#[derive(Clone, Debug)]
pub struct Climate {
    /// Writes, syncs and reads that fail.
    pub errors: bool,
    /// A disk that is full at times.
    pub full: bool,
    /// Bits that flip in what was synced.
    pub rot: bool,
    /// A wall clock that jumps.
    pub clock: bool,
    /// Connections that are cut.
    pub cuts: bool,
    /// Operations that take long, and writes that go in pieces.
    pub slow: bool,
    /// A journal that is soon full.
    pub small_journal: bool,
    /// Another number of cores after some starts.
    pub more_cores: bool,
}

impl Climate {
    /// That of a seed: some of it, alone or together.
    #[must_use]
    pub fn new(random: &mut Random) -> Self {
        Self {
            errors: random.chance(0.4),
            full: random.chance(0.25),
            rot: random.chance(0.2),
            clock: random.chance(0.3),
            cuts: random.chance(0.6),
            slow: random.chance(0.5),
            small_journal: random.chance(0.5),
            more_cores: random.chance(0.2),
        }
    }

    /// Nothing goes wrong any more.
    pub fn end(&mut self) {
        *self = Self {
            errors: false,
            full: false,
            rot: false,
            clock: false,
            cuts: false,
            slow: false,
            small_journal: self.small_journal,
            more_cores: false,
        };
    }

    /// What the disk does on a day without errors.
    #[must_use]
    pub fn mild(&self) -> Faults {
        if self.slow { Faults { short_write: 0.05, slow: 0.02, ..Faults::default() } } else { Faults::default() }
    }
}

/// A disk on which anything fails at times.
#[must_use]
pub fn failing(random: &mut Random) -> Faults {
    let mut chance = |max: f64| if random.chance(0.5) { max } else { 0.0 };
    Faults {
        read_error: chance(0.01),
        write_error: chance(0.02),
        sync_error: chance(0.02),
        name_error: chance(0.02),
        ..Faults::default()
    }
}

/// See the module.
pub struct Weather {
    /// The device.
    pub disk: SimDisk,
    /// Its clock.
    pub simulation: Simulation,
    /// The life that it comes over.
    pub life: Rc<Life>,
    /// The filesystem.
    pub mount: Rc<dyn Disk>,
    /// What it may bring.
    pub climate: Climate,
    /// Its own luck.
    pub random: Random,
}

impl Weather {
    /// As long as the life lasts.
    pub async fn run(mut self) {
        let mut skew_ms: i64 = 0;
        loop {
            let pause_max = [20, 300, 3_000][self.random.below(3) as usize];
            let pause = self.random.below(pause_max);
            self.life.env.sleep(Duration::from_millis(1 + pause)).await;
            match self.random.below(8) {
                0..=2 if self.climate.errors => self.errors(),
                3 | 4 if self.climate.full => self.room().await,
                5 if self.climate.rot => self.rot().await,
                6 if self.climate.clock => {
                    // Back to where it was at some time, so that what expires does not expire by a walk of jumps.
                    let to_ms = self.random.below(12 * 3_600_000) as i64 - 6 * 3_600_000;
                    self.life.say(|| format!("the clock jumps by {} s", (to_ms - skew_ms) / 1000));
                    self.life.see_wall();
                    self.simulation.jump_wall_clock(to_ms - skew_ms);
                    self.life.see_wall();
                    skew_ms = to_ms;
                }
                7 => {
                    self.disk.set_faults(self.climate.mild());
                    self.disk.set_capacity(None);
                    self.disk.clear_injections();
                }
                _ => {}
            }
        }
    }

    fn errors(&mut self) {
        self.life.model.borrow_mut().is_dirty = true;
        match self.random.below(9) {
            0 | 1 => self.inject(Operation::Sync, ".journal"),
            2 => self.inject(Operation::Write, ".journal"),
            3 => self.inject(Operation::Write, ".log"),
            4 => self.inject(Operation::Sync, ".log"),
            5 => self.inject(Operation::SyncDir, DATA),
            6 => self.inject(Operation::Rename, DATA),
            7 => {
                self.life.model.borrow_mut().reads_fail = true;
                self.inject(Operation::Read, ".log");
            }
            _ => {
                self.life.model.borrow_mut().reads_fail = true;
                let faults = failing(&mut self.random);
                self.life.say(|| format!("the disk fails at times: {faults:?}"));
                self.disk.set_faults(faults);
            }
        }
    }

    fn inject(&mut self, operation: Operation, path: &str) {
        let after = self.random.below(4);
        self.life.say(|| format!("the {after}th {operation:?} of {path} will fail"));
        self.disk.inject(Injection { after, ..Injection::next(operation, path) });
    }

    async fn room(&mut self) {
        // A full disk fails what it has no room for.
        self.life.model.borrow_mut().is_dirty = true;
        if self.random.chance(0.5) {
            self.life.say(|| "the disk has room".to_owned());
            self.disk.set_capacity(None);
            return;
        }
        let Ok(space) = self.mount.space(Path::new(DATA)).await else { return };
        let more = self.random.below(200 << 10);
        self.life.say(|| format!("the disk has room for {more} bytes more"));
        self.disk.set_capacity(Some(space.total_bytes - space.available_bytes + more));
    }

    /// Flips a bit of a batch in a segment file, of what is synced there.
    async fn rot(&mut self) {
        let Some((path, topic, partition)) = self.some_segment().await else { return };
        let mut model = self.life.model.borrow_mut();
        let what = rot::batch(&self.disk, &mut model, &mut self.random, &path, topic, partition);
        what.into_iter().for_each(|what| self.life.say(|| what));
    }

    async fn some_segment(&mut self) -> Option<(PathBuf, usize, i32)> {
        let (topic, partition, _) = crate::client::pick(&self.life.model.borrow(), &mut self.random)?;
        let name = self.life.model.borrow().topics[topic].name.clone();
        let folder = Path::new(DATA).join(format!("{name}-{partition}"));
        let entries = self.mount.list(&folder).await.ok()?;
        let logs: Vec<_> = entries.into_iter().filter(|entry| entry.name.ends_with(".log") && entry.len_bytes > 0).collect();
        let log = logs.get(self.random.below(logs.len() as u64) as usize)?;
        Some((folder.join(&log.name), topic, partition))
    }
}
