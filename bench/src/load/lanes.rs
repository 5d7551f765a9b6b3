//! The generator's threads: lanes dealt out to them, started together, watched, and ended. It knows nothing of what a lane does.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::client::ClientError;
use super::consume::{self, ConsumerSpec};
use super::control::{Budget, Clock, Lane, LaneReport, Phase, Shared, Signal, Times};
use super::measure::{Interval, Recorder, Role};
use super::plan::Amount;
use super::produce::{self, ProducerSpec};
use crate::error::Error;

/// A producer's or a consumer's connection to be.
#[derive(Debug)]
pub(crate) enum LaneSpec {
    /// Of a producer.
    Produce(Box<ProducerSpec>),
    /// Of a consumer.
    Consume(Box<ConsumerSpec>),
    /// A producer of librdkafka's, its number among them and how many there are; it has its thread to itself.
    #[cfg(feature = "librdkafka")]
    Send(Box<super::librdkafka::Sender>, (u32, u32)),
    /// A consumer of librdkafka's, which has its thread to itself.
    #[cfg(feature = "librdkafka")]
    Receive(Box<super::librdkafka::Receiver>),
}

impl LaneSpec {
    fn role(&self) -> Role {
        match self {
            Self::Produce(_) => Role::Produce,
            Self::Consume(_) => Role::Consume,
            #[cfg(feature = "librdkafka")]
            Self::Send(..) => Role::Produce,
            #[cfg(feature = "librdkafka")]
            Self::Receive(_) => Role::Consume,
        }
    }
}

/// What a generator's thread spent while it was measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ThreadUse {
    /// Of that time it ran for,
    pub ran_ns: u64,
    /// and waited for a CPU for.
    pub waited_ns: u64,
    /// The time.
    pub elapsed_ns: u64,
    /// How often it gave its CPU up.
    pub switches_voluntary: u64,
    /// How often it was taken away.
    pub switches_involuntary: u64,
}

/// A lane that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Whose it was.
    pub role: Role,
    /// How it ended.
    pub result: Result<LaneReport, ClientError>,
}

/// The running lanes.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// What all share.
    pub shared: Shared,
    /// How many there are.
    pub count: usize,
    signal: watch::Sender<Signal>,
    intervals: Receiver<Interval>,
    ended: Receiver<Ended>,
    threads: Vec<JoinHandle<Option<ThreadDone>>>,
}

/// What a thread leaves behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadDone {
    /// What it spent.
    pub(crate) used: ThreadUse,
    /// First sending and last answer of what its producers counted.
    pub produce: Option<(u64, u64)>,
    /// The same of its consumers.
    pub consume: Option<(u64, u64)>,
}

impl Lanes {
    /// Deals the lanes out to `threads` threads, where they connect and wait.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(crate) fn start(
        lanes: Vec<LaneSpec>,
        threads: usize,
        clock: Clock,
        amount: Amount,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let count = lanes.len();
        let producing = lanes.iter().filter(|lane| lane.role() == Role::Produce).count();
        let shared = Shared {
            clock,
            budget: Arc::new(Budget::new(amount)),
            connected: Arc::default(),
            producing: Arc::new(AtomicUsize::new(producing)),
            timeout,
            outages: Arc::default(),
        };
        let (signal, watch) = watch::channel(Signal { phase: Phase::Connect });
        let (send_interval, intervals) = channel();
        let (send_ended, ended) = channel();
        let mut dealt: Vec<Vec<LaneSpec>> = (0..threads.clamp(1, count.max(1))).map(|_| Vec::new()).collect();
        let threads = dealt.len();
        for (at, lane) in lanes.into_iter().enumerate() {
            dealt[at % threads].push(lane);
        }
        let mut handles = Vec::with_capacity(threads);
        for (at, lanes) in dealt.into_iter().enumerate() {
            let common = Common {
                shared: shared.clone(),
                watch: watch.clone(),
                intervals: send_interval.clone(),
                ended: send_ended.clone(),
            };
            let thread = std::thread::Builder::new().name(format!("load-{at}"));
            let handle = thread.spawn(move || run_thread(lanes, &common));
            handles.push(handle.map_err(|error| Error::Failed(format!("no thread for the load: {error}")))?);
        }
        Ok(Self { shared, count, signal, intervals, ended, threads: handles })
    }

    /// Moves the run to a phase.
    pub(crate) fn move_to(&self, phase: Phase) {
        // An error says that no lane is left to hear it.
        let _ = self.signal.send(Signal { phase });
    }

    /// Lets the lanes look after their time limits.
    pub(crate) fn nudge(&self) {
        self.signal.send_modify(|_| {});
    }

    /// Whether all are connected.
    #[must_use]
    pub(crate) fn are_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Acquire) == self.count
    }

    /// Whether no producer is left.
    #[must_use]
    pub(crate) fn have_produced(&self) -> bool {
        self.shared.producing.load(Ordering::Acquire) == 0
    }

    /// What was measured since the last call.
    pub(crate) fn intervals(&self) -> impl Iterator<Item = Interval> + '_ {
        self.intervals.try_iter()
    }

    /// The lanes that ended since the last call.
    pub(crate) fn ended(&self) -> impl Iterator<Item = Ended> + '_ {
        self.ended.try_iter()
    }

    /// Waits for the threads, whose lanes have all ended; returns what they leave and what was still on its way.
    ///
    /// # Errors
    /// A thread panicked, or had no runtime.
    pub(crate) fn join(self) -> Result<(Vec<ThreadDone>, Vec<Interval>), Error> {
        let mut done = Vec::with_capacity(self.threads.len());
        for thread in self.threads {
            match thread.join() {
                Ok(Some(thread)) => done.push(thread),
                Ok(None) => return Err(Error::Failed("a thread of the load has no runtime".to_owned())),
                Err(_) => return Err(Error::Failed("a thread of the load ended with a panic, which is a bug".to_owned())),
            }
        }
        Ok((done, self.intervals.try_iter().collect()))
    }
}

#[derive(Clone, Debug)]
struct Common {
    shared: Shared,
    watch: watch::Receiver<Signal>,
    intervals: Sender<Interval>,
    ended: Sender<Ended>,
}

type SharedRecorder = Rc<RefCell<Option<Recorder>>>;

fn run_thread(lanes: Vec<LaneSpec>, common: &Common) -> Option<ThreadDone> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let recorders: [SharedRecorder; 2] = Default::default();
    let clock = common.shared.clock;
    let used = tokio::task::LocalSet::new().block_on(&runtime, async {
        let cpu = tokio::task::spawn_local(spent_before(common.watch.clone(), clock));
        let mut tasks = Vec::with_capacity(lanes.len());
        for spec in lanes {
            tasks.push(tokio::task::spawn_local(run_lane(spec, common.clone(), recorders.clone())));
        }
        for task in tasks {
            // A panic has been told by its thread's handler; the main thread misses the lane's end.
            if task.await.is_err() {
                let result = Err(ClientError::Unfit("a lane of the load ended with a panic, which is a bug".to_owned()));
                let _ = common.ended.send(Ended { role: Role::Produce, result });
            }
        }
        let before = if cpu.is_finished() { cpu.await.ok().flatten() } else { None };
        before.map_or_else(ThreadUse::default, |before| ThreadUse::now(clock).since(&before))
    });
    let span = |recorder: &SharedRecorder| {
        let mut recorder = recorder.borrow_mut();
        let recorder = recorder.as_mut()?;
        recorder.finish();
        recorder.span
    };
    Some(ThreadDone { used, produce: span(&recorders[0]), consume: span(&recorders[1]) })
}

async fn run_lane(spec: LaneSpec, common: Common, recorders: [SharedRecorder; 2]) {
    let Common { shared, watch, intervals, ended } = common;
    let role = spec.role();
    let [produce_recorder, consume_recorder] = recorders;
    let recorder = if role == Role::Produce { produce_recorder } else { consume_recorder };
    let producing = shared.producing.clone();
    let lane = Lane { shared, signal: watch, role, intervals, recorder };
    let result = match spec {
        LaneSpec::Produce(spec) => produce::run(*spec, lane).await,
        LaneSpec::Consume(spec) => consume::run(*spec, lane).await,
        #[cfg(feature = "librdkafka")]
        LaneSpec::Send(sender, at) => {
            let connect = |lane: &Lane| sender.connect(lane.shared.clock);
            alone(lane, connect, |sending, lane, times| sending.run(lane, times, at)).await
        }
        #[cfg(feature = "librdkafka")]
        LaneSpec::Receive(receiver) => {
            alone(lane, |_| receiver.connect(), |receiving, lane, times| receiving.run(lane, times)).await
        }
    };
    if role == Role::Produce {
        producing.fetch_sub(1, Ordering::Release);
    }
    let _ = ended.send(Ended { role, result });
}

/// Connects and runs what blocks its thread.
#[cfg(feature = "librdkafka")]
async fn alone<C>(
    mut lane: Lane,
    connect: impl FnOnce(&Lane) -> Result<C, ClientError>,
    run: impl FnOnce(C, &mut Lane, Times) -> Result<LaneReport, ClientError>,
) -> Result<LaneReport, ClientError> {
    let connected = connect(&lane)?;
    match lane.started().await {
        Some(times) => run(connected, &mut lane, times),
        None => Ok(LaneReport::default()),
    }
}

/// What this thread had spent when what is measured began.
async fn spent_before(mut watch: watch::Receiver<Signal>, clock: Clock) -> Option<ThreadUse> {
    let times = loop {
        match watch.borrow_and_update().phase {
            Phase::Connect => {}
            Phase::Run(times) => break times,
            _ => return None,
        }
        watch.changed().await.ok()?;
    };
    let Times { measure_ns, .. } = times;
    tokio::time::sleep(Duration::from_nanos(measure_ns.saturating_sub(clock.now_ns()))).await;
    Some(ThreadUse::now(clock))
}

impl ThreadUse {
    /// What this thread has spent since it began: nanoseconds that it ran and waited for a CPU (sched-stats.rst of the kernel's
    /// documentation), or its CPU clock alone where the kernel does not count that.
    fn now(clock: Clock) -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
        let (ran_ns, waited_ns) = match (numbers.next(), numbers.next()) {
            (Some(ran), Some(waited)) => (ran, waited),
            _ => {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                (time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64, 0)
            }
        };
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let switches = |name: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(name));
            found.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        Self {
            ran_ns,
            waited_ns,
            elapsed_ns: clock.now_ns(),
            switches_voluntary: switches("voluntary_ctxt_switches:"),
            switches_involuntary: switches("nonvoluntary_ctxt_switches:"),
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            ran_ns: self.ran_ns.saturating_sub(before.ran_ns),
            waited_ns: self.waited_ns.saturating_sub(before.waited_ns),
            elapsed_ns: self.elapsed_ns.saturating_sub(before.elapsed_ns),
            switches_voluntary: self.switches_voluntary.saturating_sub(before.switches_voluntary),
            switches_involuntary: self.switches_involuntary.saturating_sub(before.switches_involuntary),
        }
    }
}
