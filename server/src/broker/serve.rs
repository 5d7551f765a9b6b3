//! The life of the process's broker: sockets, recovery, threads, serving until the stop, the clean stop. Called by `main`.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringlog_engine::core::cleaner::{Cleaner, CleanerSettings};
use ringlog_engine::core::recover::{self, Recovered};
use ringlog_engine::core::runtime::{self, RuntimeError};
use ringlog_engine::core::scrubber::{ScrubSettings, Scrubber};
use ringlog_engine::core::{ClosedPartition, Core, CoreHandle, CoreSettings};
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::ring::{RingDisk, RingError, Runtime};
use ringlog_engine::memory::Pool;
use tokio::sync::{mpsc, watch};

use crate::broker::boot::{self, BootError, Start};
use crate::broker::reserve::Reserve;
use crate::broker::{Broker, BrokerCore, metadata_log};
use crate::config::{BrokerConfig, BrokerOptions};
use crate::data_dir::DataDir;
use crate::net::listener::{self, Accepted, BindError, ConnectionLimits, Dealer, Listener};
use crate::net::{self, Handler, Limits, Stop};
use crate::preflight;

/// Kafka's `log.initial.task.delay.ms`: how long after the start retention looks at the logs first.
const RETENTION_DELAY: Duration = Duration::from_secs(30);
/// How long connections may take to answer what is in flight at a stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How many files a core keeps open, at least and at most, and what part of the process's descriptors all cores may take for files.
const OPEN_FILES_MIN: usize = 16;
const OPEN_FILES_MAX: usize = 4096;
const OPEN_FILES_PART: usize = 4;
/// The memory of a core's frames and cold reads, beside what is configured for the tails.
const NET_POOL_BYTES: usize = 1 << 30;
/// What the tails may take where nothing is configured: this part of the machine's memory, within these bounds.
const TAIL_MEMORY_PART: u64 = 64;
const TAIL_MEMORY_MIN: u64 = 64 << 20;
const TAIL_MEMORY_MAX: u64 = 512 << 20;

/// Makes the handler of a core's connections.
pub type MakeHandler = fn(Rc<BrokerCore>) -> Rc<dyn Handler>;

/// Why the broker did not run to a clean stop. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A listener cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The cores cannot run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The data directory cannot be recovered.
    #[error(
        "the data directory {path} cannot be recovered: {error}; where a file is damaged, `ringlog log repair` says what can be done"
    )]
    Recover {
        /// Which.
        path: String,
        /// Why not.
        error: io::Error,
    },
    /// The broker cannot be brought up.
    #[error("the broker cannot start: {0}")]
    Boot(#[from] BootError),
    /// The stop was not clean.
    #[error("the stop is not clean, the next start will recover: {0}")]
    Close(String),
}

/// Runs the broker until the stop.
///
/// # Errors
/// When it cannot start, or cannot stop cleanly.
pub fn run(config: BrokerConfig, data_dir: DataDir, stop: Stop, make_handler: MakeHandler) -> Result<(), BrokerError> {
    let began = Instant::now();
    let config = Arc::new(config);
    let cores = match usize::try_from(config.options.ringlog_cores) {
        Ok(cores) if cores > 0 => cores,
        _ => preflight::cores_available(),
    };
    // First of all, so that a port in use is told before the data directory is touched. Clients wait in the backlog.
    let listeners = bind(&config)?;
    let path: Arc<Path> = data_dir.path().into();
    let recovered = recover(&path)?;
    let settings = settings(&config, &path, cores);
    let cleaner = Cleaner::new(cleaner_settings(&config.options), &path);
    let scrubber = Scrubber::new(scrub_settings(&config.options));
    let (dealer, incoming) = Dealer::new(cores, connection_limits(&config, cores));
    let (end, ended) = watch::channel(false);
    let main = Main {
        start: Start {
            config,
            cluster_id: data_dir.meta().cluster_id.clone(),
            data_dir: path,
            recovered,
            new_topic_id: Arc::new(|| uuid::Uuid::new_v4().into_bytes()),
            snapshot_records: metadata_log::SNAPSHOT_RECORDS,
        },
        listeners,
        dealer,
        incoming,
        stop,
        make_handler,
        began,
        end,
    };
    let main = Arc::new(Mutex::new(Some(main)));
    let results = runtime::run_cores(
        cores,
        &settings,
        || Box::new(net::sendfile::is_cached),
        move |core, handles| {
            core.start_cleaner(cleaner.clone());
            core.start_scrubber(scrubber.clone());
            let (main, mut ended) = (main.clone(), ended.clone());
            Box::pin(async move {
                if core.index > 0 {
                    // Until core 0 is done, or gone.
                    let _ = ended.wait_for(|&ended| ended).await;
                    return Ok(());
                }
                let main = main.lock().unwrap_or_else(PoisonError::into_inner).take();
                match main {
                    Some(main) => main.run(core, handles).await,
                    None => Ok(()),
                }
            })
        },
    )?;
    drop(data_dir);
    results.into_iter().collect()
}

fn bind(config: &BrokerConfig) -> Result<Vec<Listener>, BindError> {
    let backlog = config.options.socket_listen_backlog_size;
    let listeners = config.listeners.iter();
    listeners.map(|listener| listener::bind(&listener.name, &listener.bind.host, listener.bind.port, backlog)).collect()
}

/// Replays the journals, before any core runs.
fn recover(path: &Path) -> Result<Recovered, BrokerError> {
    let runtime = Runtime::with_defaults()?;
    let disk: Rc<dyn Disk> = Rc::new(RingDisk::new());
    let recovered = runtime.block_on(recover::recover(&disk, path));
    recovered.map_err(|error| BrokerError::Recover { path: path.display().to_string(), error })
}

fn settings(config: &BrokerConfig, path: &Path, cores: usize) -> CoreSettings {
    CoreSettings {
        data_directory: path.to_owned(),
        journal_bytes: u64::try_from(config.options.ringlog_journal_bytes).unwrap_or(u64::MAX),
        journal_run_bytes_max: u64::try_from(config.options.ringlog_journal_run_max_bytes).unwrap_or(u64::MAX),
        tail_bytes: usize::try_from(tail_bytes(config) / cores as u64).unwrap_or(usize::MAX),
        open_files_max: open_files_max(descriptors(), cores),
    }
}

fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// How many files a core keeps open.
fn open_files_max(descriptors: usize, cores: usize) -> usize {
    (descriptors / OPEN_FILES_PART / cores).clamp(OPEN_FILES_MIN, OPEN_FILES_MAX)
}

/// How many descriptors connections may take: what the files leave, those that are kept open and as many that are only passing, and
/// half of all at the least.
fn connection_descriptors_max(descriptors: usize, cores: usize) -> usize {
    descriptors.saturating_sub(2 * cores * open_files_max(descriptors, cores)).max(descriptors / 2)
}

/// The least time between two searches for a log to compact.
const CLEANER_BACKOFF_MS_MIN: i64 = 100;

fn cleaner_settings(options: &BrokerOptions) -> CleanerSettings {
    let size = |bytes: i64| usize::try_from(bytes).unwrap_or(0);
    CleanerSettings {
        enabled: options.log_cleaner_enable,
        backoff: Duration::from_millis(options.log_cleaner_backoff_ms.max(CLEANER_BACKOFF_MS_MIN).unsigned_abs()),
        dedupe_bytes_max: size(options.log_cleaner_dedupe_buffer_size),
        load_factor: options.log_cleaner_io_buffer_load_factor,
        step_bytes: size(options.log_cleaner_io_buffer_size.into()),
        bytes_per_second_max: options.log_cleaner_io_max_bytes_per_second,
    }
}

fn scrub_settings(options: &BrokerOptions) -> ScrubSettings {
    ScrubSettings {
        enabled: options.ringlog_scrub_enable,
        bytes_per_second_max: options.ringlog_scrub_io_max_bytes_per_second.unsigned_abs(),
        interval: Duration::from_millis(options.ringlog_scrub_interval_ms.unsigned_abs()),
    }
}

/// The memory of all tails.
fn tail_bytes(config: &BrokerConfig) -> u64 {
    match u64::try_from(config.options.ringlog_memory_bytes) {
        Ok(bytes) if bytes > 0 => bytes,
        _ => {
            let info = rustix::system::sysinfo();
            let machine_bytes = info.totalram as u64 * u64::from(info.mem_unit);
            (machine_bytes / TAIL_MEMORY_PART).clamp(TAIL_MEMORY_MIN, TAIL_MEMORY_MAX)
        }
    }
}

fn connection_limits(config: &BrokerConfig, cores: usize) -> ConnectionLimits {
    let count = |count: i32| usize::try_from(count).unwrap_or(0);
    ConnectionLimits {
        all_max: count(config.options.max_connections),
        descriptors_max: connection_descriptors_max(descriptors(), cores),
        per_address_max: count(config.options.max_connections_per_ip),
    }
}

/// What core 0 does.
struct Main {
    start: Start,
    listeners: Vec<Listener>,
    dealer: Dealer,
    incoming: Vec<mpsc::UnboundedReceiver<Accepted>>,
    stop: Stop,
    make_handler: MakeHandler,
    began: Instant,
    /// Lets the other cores end; so does dropping it.
    end: watch::Sender<bool>,
}

impl Main {
    async fn run(self, core: Rc<Core>, cores: Arc<[CoreHandle]>) -> Result<(), BrokerError> {
        let Self { start, listeners, dealer, incoming, stop, make_handler, began, end } = self;
        let data_dir = start.data_dir.clone();
        let broker = boot::boot(&core, cores.clone(), start).await?;
        announce(&broker, &listeners, &data_dir, began);
        for listener in listeners {
            let (dealer, stop) = (dealer.clone(), stop.clone());
            core.env.spawn(Box::pin(async move {
                let name = listener.name().clone();
                if let Err(error) = listener::accept(listener, dealer, stop).await {
                    tracing::error!(listener = %name, %error, "the listener takes no more connections");
                }
            }));
        }
        let serving = cores.iter().zip(incoming).map(|(handle, incoming)| {
            let (broker, dealer, stop) = (broker.clone(), dealer.clone(), stop.clone());
            handle.run(move |core| Box::pin(serve_core(broker, core, (dealer, incoming), stop, make_handler)))
        });
        let mut failed = None;
        for served in futures_util::future::join_all(serving).await {
            failed = failed.or(served.err());
        }
        let result = match failed {
            Some(error) => Err(BrokerError::Close(error.to_string())),
            None => close(&core, &broker, &data_dir).await,
        };
        end.send_replace(true);
        result
    }
}

/// Serves a core's connections, and its partitions' retention, until the stop.
async fn serve_core(
    broker: Arc<Broker>,
    core: Rc<Core>,
    (dealer, incoming): (Dealer, mpsc::UnboundedReceiver<Accepted>),
    stop: Stop,
    make_handler: MakeHandler,
) {
    let limits = Limits::new(&broker.config.options, broker.cores.len());
    let interval_ms = broker.config.options.log_retention_check_interval_ms;
    let interval = Duration::from_millis(u64::try_from(interval_ms).unwrap_or(u64::MAX));
    core.env.spawn(Box::pin(retain(core.clone(), broker.reserve.clone(), interval, stop.clone())));
    let groups = broker.groups.clone();
    let handler = make_handler(BrokerCore::new(broker, core.clone()));
    let (index, stopping) = (core.index, stop.clone());
    core.env.spawn(Box::pin(async move {
        stopping.wait().await;
        // Joins and syncs that wait for other members would keep their connections for longer than these may take.
        groups.stop(index);
    }));
    let net_core = net::Core::new(core.index, dealer, handler, limits, Pool::new(NET_POOL_BYTES));
    let patience = async {
        stop.clone().wait().await;
        core.env.sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        () = net::serve(net_core, incoming, stop.clone()) => {}
        () = patience => {
            tracing::warn!(core = core.index, "requests were still not answered {} s after the stop: dropped", DRAIN_MAX.as_secs());
        }
    }
}

/// Removes a core's old segments from time to time, until the stop.
pub async fn retain(core: Rc<Core>, reserve: Arc<Reserve>, interval: Duration, stop: Stop) {
    let mut pause = RETENTION_DELAY.min(interval);
    loop {
        tokio::select! {
            biased;
            () = stop.clone().wait() => return,
            () = core.env.sleep(pause) => {}
        }
        match reserve.retain(&core).await {
            Ok(()) => reserve.take(&core.disk).await,
            Err(error) => tracing::error!(core = core.index, %error, "retention could not remove segments; tried again later"),
        }
        pause = interval;
    }
}

/// The clean stop, when no request is at work any more: the command that is ends and none begins, every core closes, Kafka's
/// checkpoints and the marker are written, then the journals go. Called on core 0.
///
/// # Errors
/// The next start recovers.
pub async fn close(core: &Rc<Core>, broker: &Broker, data_dir: &Path) -> Result<(), BrokerError> {
    let _commands = broker.controller.lock().await;
    let cores = &broker.cores;
    let not_clean = |error: io::Error| BrokerError::Close(error.to_string());
    let stopped = || BrokerError::Close("a core has stopped".to_owned());
    let closing = cores.iter().map(|handle| handle.run(|core| Box::pin(async move { core.close().await })));
    let mut closed: Vec<ClosedPartition> = Vec::new();
    for result in futures_util::future::join_all(closing).await {
        closed.extend(result.map_err(|_| stopped())?.map_err(not_clean)?);
    }
    recover::write_clean_stop(&core.disk, data_dir, &closed).await.map_err(not_clean)?;
    for handle in cores.iter() {
        let removed = handle.run(|core| Box::pin(async move { core.remove_journal().await })).await;
        removed.map_err(|_| stopped())?.map_err(not_clean)?;
    }
    tracing::info!(partitions = closed.len(), "stopped cleanly");
    Ok(())
}

/// The lines that say what runs.
fn announce(broker: &Broker, listeners: &[Listener], data_dir: &Path, began: Instant) {
    let topics = broker.topics.load();
    let durable = if broker.config.topic_defaults.is_durable() {
        "every acknowledged record is on the disk (flush.messages=1)"
    } else {
        "records are acknowledged before they are on the disk (flush.messages over 1)"
    };
    let places: Vec<String> = listeners.iter().map(|listener| format!("{} {}", listener.name(), listener.address())).collect();
    tracing::info!(
        "Ringlog {} serves {} topics with {} partitions from {} on {} core(s), node {}, cluster {}, ready after {} ms",
        env!("CARGO_PKG_VERSION"),
        topics.len(),
        topics.partition_count(),
        data_dir.display(),
        broker.cores.len(),
        broker.node_id,
        broker.cluster_id,
        began.elapsed().as_millis()
    );
    tracing::info!("by default, {durable}");
    tracing::info!("listening: {}", places.join(", "));
    if let Some(first) = listeners.first() {
        let address = first.address();
        let reached = if address.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, address.port()).into() } else { address };
        tracing::info!("try: echo hello | ringlog produce greetings -b {reached}; ringlog consume greetings -b {reached}");
    }
}
