//! What simulations of the whole engine share: a machine with a disk and a clock under one seed, what was booted on it, and the way
//! from a seed in the environment to a run. It knows nothing of what is tried and checked.
#![allow(dead_code, reason = "it is for several")]

use std::panic::{catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::BatchHeader;
use ringlog_engine::core::recover::{self, Recovered};
use ringlog_engine::core::scrubber::{FindingKind, ScrubSettings, Scrubber};
use ringlog_engine::core::{Append, Core, CoreSettings, NewPartition, Partition};
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::{CrashOutcome, SimDisk};
use ringlog_engine::env::sim::Simulation;
use ringlog_engine::log::append::{Acks, AppendError, Appended};
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::log::read::{Plan, Source};
use ringlog_engine::memory::Buffer;
use ringlog_engine::types::{LeaderEpoch, Offset, PartitionId, TopicId};
use tokio::sync::oneshot;

/// How long anything may take, by the simulation's clock: what takes longer does not end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// Numbers from a seed (SplitMix64), apart from those of the disk and the scheduler.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

pub(crate) struct Machine {
    pub(crate) simulation: Simulation,
    pub(crate) disk: SimDisk,
    pub(crate) data: PathBuf,
    pub(crate) loud: bool,
}

impl Machine {
    pub(crate) fn new(seed: u64, loud: bool) -> Self {
        let simulation = Simulation::new(seed);
        let disk = SimDisk::new(&simulation, seed ^ 0xd15c);
        let data = PathBuf::from("/data");
        let (mount, made) = (disk.mount(), data.clone());
        simulation.block_on(async move {
            mount.create_dir(&made).await.unwrap();
            mount.sync_dir(Path::new("/")).await.unwrap();
        });
        Self { simulation, disk, data, loud }
    }

    /// Runs until `work` is done, which must be within a bounded time.
    pub(crate) fn block_on<F: Future>(&self, work: F) -> F::Output {
        let until = self.simulation.now() + PATIENCE;
        match self.simulation.block_on_until(work, until) {
            Some(output) => output,
            None => panic!("EverythingEnds: not done after {PATIENCE:?} of virtual time"),
        }
    }

    pub(crate) fn say(&self, what: &str) {
        if self.loud {
            println!("{:?} {what}", self.simulation.now());
        }
    }

    pub(crate) fn lose_power(&self) {
        self.say("the power goes");
        self.simulation.crash();
        self.disk.crash();
    }

    pub(crate) fn kill_the_process(&self) {
        self.say("the process dies");
        self.simulation.crash();
        self.disk.crash_with(CrashOutcome::KeepUnsynced);
    }

    /// Leaves room on the disk for so many bytes.
    pub(crate) fn leave_room(&self, more: u64) {
        let (disk, data): (Rc<dyn Disk>, _) = (self.disk.mount(), self.data.clone());
        let space = self.block_on(async move { disk.space(&data).await.unwrap() });
        self.disk.set_capacity(Some(space.total_bytes - space.available_bytes + more));
        self.say(&format!("the disk has room for {more} bytes more"));
    }

    /// Stops as the broker does, then the process ends. `false`: it was not clean, which only faults may bring about.
    pub(crate) fn stop(&self, boot: &Boot, faults: bool) -> bool {
        self.say("clean stop");
        let (core, disk, data) = (boot.core.clone(), boot.core.disk.clone(), self.data.clone());
        let is_clean = self.block_on(async move {
            let closed = match core.close().await {
                Ok(closed) => closed,
                // A partition that went offline: the next start recovers.
                Err(_) if faults => return false,
                Err(error) => panic!("{error}"),
            };
            recover::write_clean_stop(&disk, &data, &closed).await.unwrap();
            core.remove_journal().await.unwrap();
            true
        });
        self.simulation.crash();
        is_clean
    }
}

/// What runs on a machine.
pub(crate) struct Boot {
    pub(crate) core: Rc<Core>,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) scrubber: Arc<Scrubber>,
}

/// Boots a machine with partitions of durable topics.
pub(crate) fn boot_durable(machine: &Machine, settings: CoreSettings, segment_bytes: Option<u64>, folders: &[&str]) -> Boot {
    let defaults = LogConfig::default();
    let segment_bytes = segment_bytes.unwrap_or(defaults.segment_bytes);
    boot(machine, settings, LogConfig { flush_messages: 1, segment_bytes, ..defaults }, folders)
}

/// Boots a machine: one core with these settings, no scrub, no compaction, and partitions in these folders, the topic of the first
/// being number 1 and so on.
pub(crate) fn boot(machine: &Machine, settings: CoreSettings, config: LogConfig, folders: &[&str]) -> Boot {
    let env = machine.simulation.env();
    let disk: Rc<dyn Disk> = machine.disk.mount();
    let config = Arc::new(config);
    let id = |topic| PartitionId { topic: TopicId([topic; 16]), index: 0 };
    let wanted: Vec<_> = (1..).zip(folders).map(|(topic, folder)| (id(topic), (*folder).to_owned(), config.clone())).collect();
    machine.block_on(async move {
        let data = settings.data_directory.clone();
        let found = recover::recover(&disk, &data).await.unwrap();
        let core = Core::new(0, settings, disk, env, Box::new(|_, _, _| false)).await.unwrap();
        core.start();
        let partitions = open_all(&core, &found, wanted).await;
        begin(&core, &data).await;
        Boot { core, partitions, scrubber: Scrubber::new(ScrubSettings { enabled: false, ..ScrubSettings::default() }) }
    })
}

/// Opens partitions on a core, each as recovery found it, if it did. [`begin`] comes next.
pub(crate) async fn open_all(
    core: &Rc<Core>,
    found: &Recovered,
    wanted: impl IntoIterator<Item = (PartitionId, String, Arc<LogConfig>)>,
) -> Vec<Partition> {
    let mut partitions = Vec::new();
    for (id, folder, config) in wanted {
        let known = found.partitions.iter().find(|partition| partition.id == id);
        let new = NewPartition {
            id,
            folder,
            config,
            leader_epoch: LeaderEpoch(0),
            recovery_point: known.map_or(Offset(0), |known| known.recovery_point),
            log_start: known.map_or(Offset(0), |known| known.log_start),
            clean: found.clean,
        };
        partitions.push(core.open_partition(new).await.unwrap());
    }
    partitions
}

/// Begins the core's new journal, and drops the old ones.
pub(crate) async fn begin(core: &Core, data: &Path) {
    core.begin().await.unwrap();
    recover::finish(&core.disk, data, 1).await.unwrap();
}

/// A scrub that never rests, for every other seed: at any rate.
pub(crate) fn scrub_settings(seed: u64) -> ScrubSettings {
    let mut dice = Dice(seed ^ 0x5c7b);
    ScrubSettings {
        enabled: dice.below(2) == 0,
        bytes_per_second_max: [64 << 10, 10 << 20, u64::MAX][dice.below(3) as usize],
        interval: Duration::from_millis([1, 50, 1_000][dice.below(3) as usize]),
    }
}

impl Boot {
    /// SoundIsNeverReported: nothing has rotted here, and the scrub finds nothing.
    pub(crate) fn assert_nothing_rots(&self) {
        let mut findings = self.scrubber.findings();
        findings.retain(|finding| finding.kind == FindingKind::Damaged);
        assert!(findings.is_empty(), "SoundIsNeverReported: {findings:?}");
    }

    pub(crate) fn send(&self, index: usize, batch: &[u8]) -> oneshot::Receiver<Result<Appended, AppendError>> {
        self.send_with(Core::append, index, batch)
    }

    pub(crate) fn send_with(
        &self,
        append: impl FnOnce(&Core, Append),
        index: usize,
        batch: &[u8],
    ) -> oneshot::Receiver<Result<Appended, AppendError>> {
        let header = BatchHeader::parse(batch).unwrap();
        let (reply, answer) = oneshot::channel();
        let (partition, batch) = (self.partitions[index].id, Bytes::copy_from_slice(batch));
        append(&self.core, Append { partition, batch, header, acks: Acks::All, reply: reply.into() });
        answer
    }

    /// The same, until it is answered.
    pub(crate) fn append(&self, machine: &Machine, index: usize, batch: &[u8]) -> Result<Appended, AppendError> {
        let answer = self.send(index, batch);
        machine.block_on(async move { answer.await.unwrap() })
    }
}

/// What a plan would send.
pub(crate) async fn bytes_of(plan: &Plan) -> Vec<u8> {
    let mut bytes = Vec::new();
    for range in &plan.ranges {
        match &range.source {
            Source::Tail(slice) => bytes.extend_from_slice(slice.bytes()),
            Source::Memory(read) => bytes.extend_from_slice(read),
            Source::File(file) => {
                let buffer = Buffer::standalone(range.len as usize).unwrap();
                let (buffer, len) = file.read_at(buffer, range.len as usize, range.position).await.unwrap();
                assert_eq!(len as u64, range.len, "a planned range is in the file");
                bytes.extend_from_slice(&buffer[..len]);
            }
        }
    }
    bytes
}

/// Runs the seed of `RINGLOG_SIM_SEED`, loudly, or as many as `RINGLOG_SIM_SEEDS` says (60). Returns how many, and the results' sum.
pub(crate) fn seeds(target: &str, test: &str, run: impl Fn(u64, bool) -> usize + std::panic::RefUnwindSafe) -> (u64, usize) {
    if let Ok(seed) = std::env::var("RINGLOG_SIM_SEED") {
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).without_time().with_ansi(false).init();
        run(seed.parse().unwrap(), true);
        return (0, 0);
    }
    let seeds = std::env::var("RINGLOG_SIM_SEEDS").map_or(60, |seeds| seeds.parse().unwrap());
    let mut sum = 0;
    for seed in 0..seeds {
        match catch_unwind(|| run(seed, false)) {
            Ok(more) => sum += more,
            Err(panic) => {
                println!(
                    "seed {seed} fails: RINGLOG_SIM_SEED={seed} cargo test -p ringlog-engine --test {target} {test} -- --exact --nocapture"
                );
                resume_unwind(panic);
            }
        }
    }
    (seeds, sum)
}
