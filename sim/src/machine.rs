//! The machine: the simulated disk and clock, and on them the broker's own code from recovery to the handlers, as `serve` puts it
//! together, without its threads and sockets. Boots, stops, and dies.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringlog_engine::core::cleaner::{Cleaner, CleanerSettings};
use ringlog_engine::core::scrubber::{ScrubSettings, Scrubber};
use ringlog_engine::core::{Core, CoreHandle, CoreSettings, recover, run_mailbox};
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::env::Env;
use ringlog_engine::env::random::Random;
use ringlog_engine::env::sim::Simulation;
use ringlog_server::api::Api;
use ringlog_server::broker::boot::{self, BootError, Start};
use ringlog_server::broker::{Broker, BrokerCore, BrokerError, serve};
use ringlog_server::config::BrokerConfig;
use ringlog_server::net::{Handler, StopSender, stop_channel};

use crate::groups::plan::Options;

/// Where the data directory is.
pub const DATA: &str = "/data";

/// How a broker is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many cores it has.
    pub cores: usize,
    /// How long each core's journal may grow.
    pub journal_bytes: u64,
    /// Larger runs may go straight to their segments.
    pub journal_run_bytes_max: u64,
    /// What each core's tails may take.
    pub tail_bytes: usize,
    /// How many files each core keeps open.
    pub open_files_max: usize,
    /// How many records of the metadata log make a snapshot due.
    pub snapshot_records: i64,
}

/// The machine, and its disk through all its lives.
pub struct Machine {
    /// Time and tasks.
    pub simulation: Simulation,
    /// The disk.
    pub disk: SimDisk,
    topic_ids: Arc<Mutex<Random>>,
    config: Arc<BrokerConfig>,
    /// Compaction, where there is any.
    cleaner: Option<CleanerSettings>,
    scrub: ScrubSettings,
}

/// A broker that runs.
pub struct Running {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Its cores.
    pub cores: Vec<Rc<Core>>,
    /// Each core's handlers.
    pub handlers: Vec<Rc<dyn Handler>>,
    /// Its disk, in this life.
    pub disk: Rc<dyn Disk>,
    /// Looks for rot, in some seeds.
    pub scrubber: Arc<Scrubber>,
    /// Ends retention.
    stop: StopSender,
}

/// Why a broker does not start.
#[derive(Debug)]
pub enum StartError {
    /// The data directory could not be recovered.
    Recover(io::Error),
    /// A core could not be made.
    Core(io::Error),
    /// It could not be brought up.
    Boot(BootError),
}

impl Machine {
    /// A new machine with an empty data directory.
    ///
    /// # Panics
    /// Never: the options are valid, and a new disk has room.
    #[must_use]
    pub fn new(seed: u64, groups: Option<&Options>, segment_bytes: Option<i32>) -> Self {
        // A life is short: most of a huge page would be cleared for nothing.
        let _ = rustix::thread::disable_transparent_huge_pages(true);
        let simulation = Simulation::new(seed);
        let disk = SimDisk::new(&simulation, seed ^ 0xd15c);
        let mount = disk.mount();
        let made = simulation.block_on(async move {
            mount.create_dir(Path::new(DATA)).await?;
            mount.sync_dir(Path::new("/")).await
        });
        assert!(made.is_ok(), "a new disk takes a directory: {made:?}");
        let options = [
            // Clients' clocks and the broker's are the same one, which jumps.
            ("log.message.timestamp.after.max.ms", i64::MAX.to_string()),
            ("log.retention.check.interval.ms", "2000".to_owned()),
            ("auto.create.topics.enable", "false".to_owned()),
            ("log.retention.ms", "-1".to_owned()),
        ];
        let of_groups = groups.map(|groups| groups.broker.as_slice()).unwrap_or_default();
        let options: Vec<_> = options.iter().chain(of_groups).map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let config = match BrokerConfig::load(None, &options) {
            Ok((config, unknown)) => {
                assert!(unknown.is_empty(), "{unknown:?}");
                Arc::new(match segment_bytes {
                    Some(bytes) => config.with_segment_bytes(bytes),
                    None => config,
                })
            }
            Err(error) => panic!("the options are valid: {error:?}"),
        };
        let topic_ids = Arc::new(Mutex::new(Random::new(seed ^ 0x70_91c5)));
        let cleaner = groups.and_then(|groups| groups.cleaner.clone());
        Self { simulation, disk, topic_ids, config, cleaner, scrub: scrub_settings(seed) }
    }

    /// Brings a broker up: recovery, cores, boot. All of it is dropped where the machine crashes in the middle.
    ///
    /// # Errors
    /// [`StartError`]: the process ends, and may be started again.
    pub fn start(&self, setup: &Setup) -> impl Future<Output = Result<Running, StartError>> + 'static {
        let (env, disk) = (self.simulation.env(), self.disk.mount());
        let (setup, config, topic_ids) = (setup.clone(), self.config.clone(), self.topic_ids.clone());
        start(env, disk, setup, config, topic_ids, self.cleaner.clone(), Scrubber::new(self.scrub.clone()))
    }

    /// Whether this seed's broker scrubs.
    #[must_use]
    pub fn scrubs(&self) -> bool {
        self.scrub.enabled
    }

    /// The process ends, with or without the power; what the disk keeps is decided apart.
    pub fn crash(&self, running: Option<Running>) {
        drop(running);
        self.simulation.crash();
    }
}

/// A scrub that never rests long, for every other seed.
fn scrub_settings(seed: u64) -> ScrubSettings {
    let mut random = Random::new(seed ^ 0x5c7b);
    ScrubSettings {
        enabled: random.chance(0.5),
        bytes_per_second_max: [1 << 20, 20 << 20, u64::MAX][random.below(3) as usize],
        interval: Duration::from_millis([5, 100, 2_000][random.below(3) as usize]),
    }
}

async fn start(
    env: Rc<dyn Env>,
    disk: Rc<dyn Disk>,
    setup: Setup,
    config: Arc<BrokerConfig>,
    topic_ids: Arc<Mutex<Random>>,
    cleaner: Option<CleanerSettings>,
    scrubber: Arc<Scrubber>,
) -> Result<Running, StartError> {
    let data: Arc<Path> = Path::new(DATA).into();
    let recovered = recover::recover(&disk, &data).await.map_err(StartError::Recover)?;
    let settings = CoreSettings {
        data_directory: data.to_path_buf(),
        journal_bytes: setup.journal_bytes,
        journal_run_bytes_max: setup.journal_run_bytes_max,
        tail_bytes: setup.tail_bytes,
        open_files_max: setup.open_files_max,
    };
    let cleaner = cleaner.map(|settings| Cleaner::new(settings, &data));
    let (handles, receivers): (Vec<_>, Vec<_>) = (0..setup.cores).map(CoreHandle::new).unzip();
    let mut cores = Vec::new();
    for (index, receiver) in receivers.into_iter().enumerate() {
        let core = Core::new(index, settings.clone(), disk.clone(), env.clone(), Box::new(|_, _, _| false)).await;
        let core = core.map_err(StartError::Core)?;
        core.start();
        if let Some(cleaner) = &cleaner {
            core.start_cleaner(cleaner.clone());
        }
        core.start_scrubber(scrubber.clone());
        env.spawn(Box::pin(run_mailbox(core.clone(), receiver)));
        cores.push(core);
    }
    let new_topic_id = Arc::new(move || {
        let mut random = topic_ids.lock().unwrap_or_else(PoisonError::into_inner);
        (u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())).to_be_bytes()
    });
    let start = Start {
        config: config.clone(),
        cluster_id: "simulated".to_owned(),
        data_dir: data,
        recovered,
        new_topic_id,
        snapshot_records: setup.snapshot_records,
    };
    let broker = boot::boot(&cores[0], handles.into(), start).await.map_err(StartError::Boot)?;
    let (stop, stopped) = stop_channel();
    let interval = Duration::from_millis(u64::try_from(config.options.log_retention_check_interval_ms).unwrap_or(1));
    let mut handlers: Vec<Rc<dyn Handler>> = Vec::new();
    for core in &cores {
        env.spawn(Box::pin(serve::retain(core.clone(), broker.reserve.clone(), interval, stopped.clone())));
        handlers.push(Api::new(BrokerCore::new(broker.clone(), core.clone())));
    }
    Ok(Running { broker, cores, handlers, disk, scrubber, stop })
}

impl Running {
    /// What waits for other members of its group is answered, and nothing more is asked of groups.
    pub fn stop_groups(&self) {
        (0..self.cores.len()).for_each(|core| self.broker.groups.stop(core));
    }

    /// The clean stop. What clients still ask for is answered as a broker that stops answers.
    ///
    /// # Errors
    /// It is not clean.
    pub async fn stop(&self) -> Result<(), BrokerError> {
        self.stop.stop();
        serve::close(&self.cores[0], &self.broker, Path::new(DATA)).await
    }
}
