//! What goes wrong beside the [`crate::weather`]: opens, listings, reservations and changes of length that fail, descriptors that are
//! all taken for a while, a partition whose segments cannot be written any more, a disk that is full while the broker starts, segments so
//! small that they are full, and rot ([`crate::rot`]) in whatever can be made anew, between lives too. Drawn from luck of their own, so
//! that a seed without hazards does what it has always done.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::disk::sim::{Faults, Injection, Operation, SimDisk};
use ringlog_engine::env::random::Random;
use ringlog_engine::journal::is_directory_name;
use ringlog_server::catalogue::names::CLUSTER_METADATA;
use rustix::io::Errno;

use crate::life::Life;
use crate::machine::DATA;
use crate::rot;

/// How probable it is that a seed has hazards at all.
const SHARE: f64 = 0.6;
/// How probable each of them is in a seed that has some.
const EACH: f64 = 0.4;

/// Whether a seed has hazards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Hazards {
    /// As the seed says.
    #[default]
    BySeed,
    /// Whatever the seed says.
    Always,
    /// Whatever the seed says.
    Never,
}

impl Hazards {
    /// What the binary is told, with a space before it.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Self::BySeed => "",
            Self::Always => " --hazards always",
            Self::Never => " --hazards never",
        }
    }
}

/// Those of a seed.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Any operation of the disk fails at times.
    errors: bool,
    /// The disk is full at times, in the middle of a start too.
    full: bool,
    /// Bits flip, in what can be made anew too, and between lives.
    rot: bool,
    /// The size at which a segment of clients' topics is full.
    pub segment_bytes: Option<i32>,
    /// Retention goes by time alone, so that what it may take is known to the record.
    pub retains_by_time: bool,
    /// Where the disk is full, nothing can be written over either.
    pub copies_on_write: bool,
    /// At times nothing can be opened.
    descriptors: bool,
    /// At times the segments of a partition cannot be written, until it is offline.
    bad_segments: bool,
}

impl Plan {
    /// That of a seed, and its luck.
    #[must_use]
    pub fn new(seed: u64, hazards: Hazards) -> (Self, Random) {
        let mut random = Random::new(seed ^ 0x4a2a_2d50);
        let has_some = random.chance(SHARE);
        if hazards == Hazards::Never || (hazards == Hazards::BySeed && !has_some) {
            return (Self::default(), random);
        }
        let plan = Self {
            errors: random.chance(EACH),
            full: random.chance(EACH),
            rot: random.chance(EACH),
            segment_bytes: random.chance(EACH).then(|| [3_000, 10_000, 60_000][random.below(3) as usize]),
            // It came later, and is drawn apart.
            retains_by_time: Random::new(seed ^ 0x7137_ae57).chance(EACH),
            copies_on_write: Random::new(seed ^ 0xc0b1_e500).chance(EACH),
            descriptors: Random::new(seed ^ 0xde5c_4197).chance(EACH),
            bad_segments: Random::new(seed ^ 0xbad5_e937).chance(EACH),
        };
        (plan, random)
    }

    /// Nothing goes wrong any more.
    pub fn end(&mut self) {
        *self = Self { segment_bytes: self.segment_bytes, retains_by_time: self.retains_by_time, ..Self::default() };
    }

    /// Whether anything goes wrong while the broker works.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.errors || self.full || self.rot || self.descriptors || self.bad_segments
    }

    /// The machine stands still: what rots meanwhile. Returns what did.
    pub fn rest(&self, disk: &SimDisk, model: &mut crate::model::Model, random: &mut Random) -> Vec<String> {
        let places = if self.rot && random.chance(0.5) { 1 + random.below(3) } else { 0 };
        (0..places).filter_map(|_| rot::anything(disk, model, random)).collect()
    }

    /// The broker is about to start: errors that come by chance, and room. Nothing of either on most days.
    pub fn before_start(&self, disk: &SimDisk, random: &mut Random) -> (Option<Faults>, Option<u64>) {
        let faults = (self.errors && random.chance(0.3)).then(|| failing(random));
        let room = (self.full && random.chance(0.4)).then(|| {
            let more = [0, 4 << 10, 64 << 10, 512 << 10][random.below(4) as usize];
            disk.used_bytes() + random.below(more + 1)
        });
        (faults, room)
    }

    /// As long as the life lasts.
    pub async fn run(self, disk: SimDisk, life: Rc<Life>, random: Random) {
        let luck = |of: u64| Random::new(random.clone().next_u64() ^ of);
        let descriptors = async {
            if self.descriptors {
                descriptors(&disk, &life, luck(0xde5c)).await;
            }
        };
        let bad_segments = async {
            if self.bad_segments {
                bad_segments(&disk, &life, luck(0xbad5)).await;
            }
        };
        tokio::join!(descriptors, bad_segments, self.run_disk(&disk, &life, random.clone()));
    }

    async fn run_disk(&self, disk: &SimDisk, life: &Life, mut random: Random) {
        let mut room = false;
        loop {
            let pause_max = [20, 200, 1_000][random.below(3) as usize];
            life.env.sleep(Duration::from_millis(1 + random.below(pause_max))).await;
            match random.below(6) {
                0 | 1 if self.errors => error(disk, life, &mut random),
                2 if self.errors => {
                    life.model.borrow_mut().fail();
                    let faults = failing(&mut random);
                    life.say(|| format!("the disk fails at times: {faults:?}"));
                    disk.set_faults(faults);
                }
                3 | 4 if self.full => {
                    room = !room;
                    life.model.borrow_mut().is_dirty = true;
                    let more_max = [4 << 10, 64 << 10][random.below(2) as usize];
                    let more = random.below(more_max);
                    life.say(|| {
                        if room { format!("the disk has room for {more} bytes more") } else { "the disk has room".to_owned() }
                    });
                    disk.set_capacity(room.then(|| disk.used_bytes() + more));
                }
                5 if self.rot => {
                    let what = rot::anything(disk, &mut life.model.borrow_mut(), &mut random);
                    what.into_iter().for_each(|what| life.say(|| what));
                }
                _ => {}
            }
        }
    }
}

/// For a while, now and then, nothing can be opened.
async fn descriptors(disk: &SimDisk, life: &Life, mut random: Random) {
    loop {
        life.env.sleep(Duration::from_millis(1 + random.below(2_000))).await;
        life.model.borrow_mut().fail();
        life.say(|| "no file descriptor is left".to_owned());
        disk.set_descriptors(false);
        let longest_ms = [20, 500, 5_000][random.below(3) as usize];
        life.env.sleep(Duration::from_millis(1 + random.below(longest_ms))).await;
        life.say(|| "there are file descriptors".to_owned());
        disk.set_descriptors(true);
    }
}

/// At some time, until others end it or the broker is started again: a bad place under the files of one partition.
async fn bad_segments(disk: &SimDisk, life: &Life, mut random: Random) {
    life.env.sleep(Duration::from_millis(1 + random.below(3_000))).await;
    let mut folders = disk.entries(Path::new(DATA));
    // Without its metadata a broker does not go on.
    folders.retain(|folder| {
        folder.is_dir
            && folder.name.contains('-')
            && !is_directory_name(&folder.name)
            && !folder.name.starts_with(CLUSTER_METADATA)
    });
    if folders.is_empty() {
        return;
    }
    let folder = &folders[random.below(folders.len() as u64) as usize].name;
    let operation = [Operation::Write, Operation::Sync][random.below(2) as usize];
    life.model.borrow_mut().fail();
    life.say(|| format!("each {operation:?} of a segment of {folder} fails from now on"));
    disk.inject(Injection::always(operation, &format!("{folder}/0")));
}

/// A disk on which every operation fails at times.
fn failing(random: &mut Random) -> Faults {
    let mut chance = |max: f64| if random.chance(0.5) { max } else { 0.0 };
    Faults {
        read_error: chance(0.02),
        write_error: chance(0.02),
        sync_error: chance(0.02),
        name_error: chance(0.03),
        open_error: chance(0.03),
        length_error: chance(0.05),
        ..Faults::default()
    }
}

/// One of the next operations of a kind fails, or a few in a row do.
fn error(disk: &SimDisk, life: &Life, random: &mut Random) {
    life.model.borrow_mut().fail();
    let kinds = [
        (Operation::Open, ".log"),
        (Operation::Open, "index"),
        (Operation::Open, ".journal"),
        (Operation::Open, DATA),
        (Operation::List, DATA),
        (Operation::SetLen, ""),
        (Operation::Allocate, ""),
        (Operation::CreateDir, DATA),
        (Operation::Remove, DATA),
        (Operation::Rename, DATA),
        (Operation::SyncDir, DATA),
        (Operation::Read, DATA),
        (Operation::Write, "index"),
        (Operation::Sync, "index"),
        (Operation::Sync, DATA),
        (Operation::Write, DATA),
    ];
    let (operation, path) = kinds[random.below(kinds.len() as u64) as usize];
    let errno = match operation {
        Operation::Open => [Errno::IO, Errno::MFILE][random.below(2) as usize],
        Operation::Allocate | Operation::CreateDir => [Errno::IO, Errno::NOSPC][random.below(2) as usize],
        _ => Errno::IO,
    };
    let injection = Injection {
        after: random.below(3),
        times: [1, 1, 3][random.below(3) as usize],
        errno: errno.raw_os_error(),
        ..Injection::next(operation, path)
    };
    life.say(|| format!("will fail: {injection:?}"));
    disk.inject(injection);
}
