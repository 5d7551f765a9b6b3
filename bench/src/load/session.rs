//! A run from the first connection to the last: the topic, the lanes, the phases, what the processes used, reading back, and
//! cleaning up whatever happened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::admin::Admin;
use super::batches::{Batches, Shape};
use super::client::{ClientError, Connection, Offsets, Topic, init_producer_id};
use super::consume::ConsumerSpec;
use super::content::Keys;
use super::control::{Clock, LaneReport, Phase, Times, wall_ms};
use super::lanes::{LaneSpec, Lanes, ThreadUse};
use super::measure::{Collector, Role};
use super::options::ClientKind;
#[cfg(not(feature = "librdkafka"))]
use super::options::NO_LIBRDKAFKA;
use super::plan::{Amount, Plan, ProducePlan};
use super::produce::ProducerSpec;
use super::read_back::{offsets_between, read_back};
use super::verify::{Ledger, RunLedger, Tracker};
use super::verify_log;
use crate::error::Error;
use crate::process::{Reading, check_room_of};
use crate::progress::Progress;
use crate::results::{Load, ProcessUse, Verified};
use crate::stop;
use crate::units::show_count;

/// How often the main thread looks.
const LOOK: Duration = Duration::from_millis(20);
/// Lanes are nudged every so many looks.
const LOOKS_PER_NUDGE: u32 = 5;
/// How often the verify log is written.
const LOOKS_PER_LOG: u32 = 50;
/// After Ctrl-C what is under way may end for so long.
const GRACE: Duration = Duration::from_secs(3);
/// A generator's thread that ran, or waited for a CPU, for more than this was what the run measured.
const BUSY_MAX: f64 = 0.9;
/// More of an open loop's records that began late by us than this, and the high percentiles are ours.
const LATE_MAX: f64 = 0.001;

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// What was measured.
    pub load: Load,
    /// Each side's `.hlog`.
    pub logs: Vec<(Role, Vec<u8>)>,
}

/// Runs `plan`.
///
/// # Errors
/// The broker is not there, fails, or is not what the plan needs.
pub(crate) fn run(plan: &Plan, progress: &Progress) -> Result<Finished, Error> {
    raise_file_limit();
    let admin = Admin::new(plan)?;
    let reading = plan.pid.map(|pid| (pid, Reading::take(pid)));
    if let Some((pid, Err(error))) = &reading {
        return Err(Error::Usage(format!("--pid {pid}: {error}")));
    }
    if let Some(pid) = plan.pid {
        check_room_of(pid, plan.kept_bytes())?;
    }
    let (topic, created) = match admin.find(&plan.topic)? {
        Some(topic) => {
            if !plan.topic_config.is_empty() {
                return Err(Error::Usage(format!("--topic-config is for a topic that is created; {} is there", plan.topic)));
            }
            let there = topic.partitions.len();
            if let Some(wanted) = plan.partitions.filter(|wanted| *wanted as usize != there) {
                return Err(Error::Usage(format!("topic {} is there with {there} partitions, not {wanted}", plan.topic)));
            }
            (topic, false)
        }
        None if plan.produce.is_some() => (admin.create(plan).inspect_err(|_| clean_up(&admin, plan, true))?, true),
        None => return Err(Error::Usage(format!("there is no topic {}", plan.topic))),
    };
    let run = Session { plan, admin: &admin, topic: &topic, created, clock: Clock::new(), run_id: run_id(), progress };
    let finished = run.go();
    clean_up(&admin, plan, created && !plan.keep_topic);
    finished
}

/// Every lane takes a socket and a timer, and shells start programs with few.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, connecting says what is missing.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn clean_up(admin: &Admin, plan: &Plan, delete: bool) {
    if delete && let Err(error) = admin.delete(&plan.topic) {
        eprintln!("ringlog-bench: topic {} could not be deleted: {error}", plan.topic);
    }
}

/// A number that no other run has.
fn run_id() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((std::process::id(), SystemTime::now()))
}

type SharedLedgers = Vec<(u32, Vec<i32>, Arc<Mutex<Vec<Ledger>>>)>;

struct Session<'a> {
    plan: &'a Plan,
    admin: &'a Admin,
    topic: &'a Topic,
    created: bool,
    clock: Clock,
    run_id: u64,
    progress: &'a Progress,
}

/// What the main loop gathers.
#[derive(Default)]
struct Gathered {
    collectors: BTreeMap<Role, Collector>,
    reports: BTreeMap<Role, Vec<LaneReport>>,
    failure: Option<ClientError>,
    ended: usize,
    readings: Option<(Option<Reading>, Option<Reading>)>,
    measure_ns: Option<u64>,
}

impl Session<'_> {
    fn go(&self) -> Result<Finished, Error> {
        let (plan, admin, topic) = (self.plan, self.admin, self.topic);
        let ends = admin.offsets(topic, Offsets::Latest)?;
        let starts = if plan.produce.is_some() { ends.clone() } else { admin.offsets(topic, Offsets::Earliest)? };
        let mut ledgers = SharedLedgers::new();
        let mut lanes = Vec::new();
        let mut threads = plan.threads;
        match plan.client {
            ClientKind::Lean => {
                if let Some(produce) = &plan.produce {
                    lanes.extend(self.producers(produce, &mut ledgers)?);
                }
                lanes.extend(self.consumers(&starts, &ends)?);
            }
            ClientKind::Librdkafka => {
                lanes = self.through_librdkafka(&starts, &ends, &mut ledgers)?;
                threads = lanes.len();
            }
        }
        if let Some(path) = &plan.verify_log {
            verify_log::begin(path, plan, topic, &starts, self.ledger(&ledgers, false))?;
        }
        let began = SystemTime::now();
        let lanes = Lanes::start(lanes, threads, self.clock, plan.amount, plan.timeout)?;
        let mut gathered = Gathered::default();
        let watched = self.watch(&lanes, &ledgers, offsets_between(&starts, &ends), &mut gathered);
        if watched.is_err() {
            lanes.move_to(Phase::Abort);
        }
        let (threads, rest) = lanes.join()?;
        for interval in rest {
            gathered.collectors.entry(interval.role).or_default().take(interval);
        }
        if let Some(path) = &plan.verify_log {
            verify_log::update(path, self.ledger(&ledgers, true))?;
        }
        watched?;
        if let Some(error) = gathered.failure {
            return Err(self.failure(error, &starts, &ledgers));
        }
        let bytes = gathered.collectors.values().map(Collector::bytes).sum();
        let mut load = Load { settings: plan.settings(), ..Load::default() };
        load.settings.push(("partitions".to_owned(), topic.partitions.len().to_string()));
        load.settings.push(("topic was created".to_owned(), if self.created { "yes" } else { "no" }.to_owned()));
        let (broker, own) = gathered.readings.unwrap_or_default();
        load.broker = used(plan.pid, broker, bytes);
        load.generator = used(Some(std::process::id()), own, bytes).unwrap_or_default();
        // The process's own count forgets threads that have ended.
        for thread in &threads {
            load.generator.switches_voluntary += thread.used.switches_voluntary;
            load.generator.switches_involuntary += thread.used.switches_involuntary;
        }
        let measured_ns = gathered.measure_ns;
        let reports = std::mem::take(&mut gathered.reports);
        load.generator_bound = generator_bound(threads.iter().map(|thread| thread.used), reports.get(&Role::Produce));
        if plan.client == ClientKind::Librdkafka {
            let measured_s = measured_ns.map_or(0.0, |since| self.clock.now_ns().saturating_sub(since) as f64 / 1e9);
            if load.generator.cpu_s > BUSY_MAX * measured_s {
                // Which of its threads is the busiest is the library's own.
                let text = format!("librdkafka used {:.2} CPUs", load.generator.cpu_s / measured_s);
                load.generator_bound = Some(text);
            }
        }
        if plan.verify && !stop::requested() {
            load.verify = Some(self.verify(&starts, &ledgers, &reports)?);
        }
        let mut logs = Vec::new();
        for role in [Role::Produce, Role::Consume] {
            let wanted = if role == Role::Produce { plan.produce.is_some() } else { plan.consume.is_some() };
            if !wanted {
                continue;
            }
            let spans = threads.iter().filter_map(|thread| if role == Role::Produce { thread.produce } else { thread.consume });
            let span = spans.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
            let mut errors: BTreeMap<String, u64> = BTreeMap::new();
            for (name, count) in reports.get(&role).into_iter().flatten().flat_map(|report| &report.errors) {
                *errors.entry(name.clone()).or_default() += count;
            }
            let collector = gathered.collectors.remove(&role).unwrap_or_default();
            let (side, log) = collector.finish(span, errors.into_iter().collect(), began);
            logs.extend(log.map(|log| (role, log)));
            *(if role == Role::Produce { &mut load.produce } else { &mut load.consume }) = Some(side);
        }
        Ok(Finished { load, logs })
    }

    fn producers(&self, produce: &ProducePlan, ledgers: &mut SharedLedgers) -> Result<Vec<LaneSpec>, Error> {
        let leaders = self.topic.by_leader();
        let lane_count = produce.producers * leaders.len() as u32;
        let mut lanes = Vec::with_capacity(lane_count as usize);
        for producer in 0..produce.producers {
            let idempotent = if produce.idempotent {
                let id = self.admin.runtime.block_on(async {
                    let mut connection = Connection::open_any(&self.admin.addresses, self.admin.timeout).await?;
                    init_producer_id(&mut connection).await
                });
                Some(id?)
            } else {
                None
            };
            for (leader, partitions) in &leaders {
                let lane = lanes.len() as u32;
                let shape = Shape {
                    records: produce.batch_records,
                    value_bytes: produce.value_bytes,
                    keyed: produce.keys.is_some(),
                    stamped: produce.stamped,
                    codec: produce.codec,
                    run: self.run_id,
                    producer,
                };
                let differ = produce.idempotent || produce.rate.is_some();
                let ledger = Arc::new(Mutex::new(vec![Ledger::default(); partitions.len()]));
                ledgers.push((producer, partitions.clone(), ledger.clone()));
                lanes.push(LaneSpec::Produce(Box::new(ProducerSpec {
                    producer,
                    leader: *leader,
                    topic: self.topic.name.clone(),
                    topic_id: self.topic.id,
                    partitions: partitions.clone(),
                    batches: Batches::new(shape, produce.in_flight, differ, wall_ms()),
                    keys: self.keys_of(produce, producer),
                    batch_records: produce.batch_records,
                    value_bytes: produce.value_bytes,
                    acks: produce.acks,
                    in_flight: produce.in_flight,
                    idempotent,
                    pace: produce.rate.map(|rate| (rate, lane, lane_count, produce.linger.as_nanos() as u64)),
                    retry_for: self.plan.retry_for,
                    ledger,
                })));
            }
        }
        Ok(lanes)
    }

    fn keys_of(&self, produce: &ProducePlan, producer: u32) -> Option<Keys> {
        let seed = self.run_id.wrapping_add(u64::from(producer));
        let partitions = self.topic.partitions.len() as u32;
        produce.keys.map(|keys| Keys::new(keys, produce.key_skew, partitions, seed))
    }

    #[cfg(not(feature = "librdkafka"))]
    fn through_librdkafka(&self, _: &[i64], _: &[i64], _: &mut SharedLedgers) -> Result<Vec<LaneSpec>, Error> {
        Err(Error::Usage(NO_LIBRDKAFKA.to_owned()))
    }

    /// The lanes of a run through librdkafka, which finds leaders itself.
    #[cfg(feature = "librdkafka")]
    fn through_librdkafka(&self, starts: &[i64], ends: &[i64], ledgers: &mut SharedLedgers) -> Result<Vec<LaneSpec>, Error> {
        use super::librdkafka::{Receiver, Sender};
        let partitions = self.topic.partitions.len() as u32;
        let mut lanes = Vec::new();
        if let Some(plan) = &self.plan.produce {
            let verifies = self.plan.verify || self.plan.verify_log.is_some();
            lanes.extend((0..plan.producers).map(|producer| {
                let ledger = verifies.then(|| Arc::new(Mutex::new(vec![Ledger::default(); partitions as usize])));
                ledgers.extend(ledger.iter().map(|ledger| (producer, (0..partitions.cast_signed()).collect(), ledger.clone())));
                let sender = Sender {
                    bootstrap: self.admin.addresses.clone(),
                    topic: self.topic.name.clone(),
                    partitions,
                    producer,
                    run: self.run_id,
                    keys: self.keys_of(plan, producer),
                    plan: plan.clone(),
                    timeout: self.plan.timeout,
                    retry_for: self.plan.retry_for,
                    ledger,
                };
                LaneSpec::Send(Box::new(sender), (producer, plan.producers))
            }));
        }
        for lane in self.consumers(starts, ends)? {
            let (LaneSpec::Consume(spec), Some(plan)) = (lane, &self.plan.consume) else { continue };
            lanes.push(LaneSpec::Receive(Box::new(Receiver {
                bootstrap: self.admin.addresses.clone(),
                topic: spec.topic,
                partitions: spec.partitions,
                ends: spec.ends,
                again: spec.again,
                plan: plan.clone(),
                timeout: self.plan.timeout,
                retry_for: self.plan.retry_for,
                tracker: spec.tracker,
            })));
        }
        Ok(lanes)
    }

    fn consumers(&self, starts: &[i64], ends: &[i64]) -> Result<Vec<LaneSpec>, Error> {
        let Some(consume) = &self.plan.consume else { return Ok(Vec::new()) };
        let count = consume.consumers as usize;
        let partitions = self.topic.partitions.len();
        if !consume.fan_out && count > partitions {
            let text = format!("{count} consumers cannot share {partitions} partitions; --fan-out gives each of them all");
            return Err(Error::Usage(text));
        }
        let alone = self.plan.produce.is_none();
        if alone && starts == ends {
            return Err(Error::Usage(format!("topic {} is empty", self.topic.name)));
        }
        let mut lanes = Vec::new();
        for consumer in 0..count {
            let mine = |partition: i32| consume.fan_out || partition as usize % count == consumer;
            for (leader, led) in self.topic.by_leader() {
                let chosen: Vec<i32> = led.into_iter().filter(|partition| mine(*partition)).collect();
                if chosen.is_empty() {
                    continue;
                }
                lanes.push(LaneSpec::Consume(Box::new(ConsumerSpec {
                    leader,
                    topic: self.topic.name.clone(),
                    topic_id: self.topic.id,
                    partitions: chosen.iter().map(|partition| (*partition, starts[*partition as usize])).collect(),
                    ends: alone.then(|| chosen.iter().map(|partition| ends[*partition as usize]).collect()),
                    again: self.plan.amount != Amount::Once,
                    bytes_min: consume.bytes_min,
                    bytes_max: consume.bytes_max,
                    wait_ms: consume.wait.as_millis() as i32,
                    end_to_end: consume.end_to_end,
                    tracker: self.plan.verify.then(|| self.tracker()),
                    retry_for: self.plan.retry_for,
                })));
            }
        }
        Ok(lanes)
    }

    fn tracker(&self) -> Tracker {
        let value_bytes = self.plan.produce.as_ref().map_or(0, |produce| produce.value_bytes);
        Tracker::new([(self.run_id, value_bytes)])
    }

    /// Why a run failed. Where it was to verify and the broker is still there, with what became of what had been acknowledged.
    fn failure(&self, error: ClientError, starts: &[i64], ledgers: &SharedLedgers) -> Error {
        let may_tell = || match error {
            ClientError::Refused { .. } | ClientError::Nonsense { .. } => true,
            // The library gives up what was refused and what was not answered.
            ClientError::Undelivered(_) => self.admin.find(&self.topic.name).is_ok(),
            _ => false,
        };
        if !self.plan.verify || stop::requested() || !may_tell() {
            return error.into();
        }
        let found = self.read_back(starts, ledgers);
        Error::Failed(match found {
            Ok(found) if found.is_sound() => {
                format!("{error}; of the {} records acknowledged before none is lost or wrong", show_count(found.acknowledged))
            }
            Ok(found) => format!("{error}; of {}", found.faults()),
            Err(unread) => format!("{error}; and what was acknowledged before could not be read back: {unread}"),
        })
    }

    /// What was sent and acknowledged so far.
    fn ledger(&self, ledgers: &SharedLedgers, complete: bool) -> RunLedger {
        let produce = self.plan.produce.as_ref();
        let mut run = RunLedger {
            run: self.run_id,
            value_bytes: produce.map_or(0, |produce| produce.value_bytes),
            idempotent: produce.is_some_and(|produce| produce.idempotent),
            complete,
            producers: BTreeMap::new(),
        };
        for (producer, partitions, ledgers) in ledgers {
            let ledgers = ledgers.lock().unwrap_or_else(PoisonError::into_inner);
            let of_producer = run.producers.entry(*producer).or_default();
            for (partition, ledger) in partitions.iter().zip(ledgers.iter()).filter(|(_, ledger)| ledger.sent > 0) {
                of_producer.insert(*partition, ledger.clone());
            }
        }
        run
    }

    /// Moves the run through its phases until every lane has ended. `held`: how many offsets the topic held at the start.
    fn watch(&self, lanes: &Lanes, ledgers: &SharedLedgers, held: u64, gathered: &mut Gathered) -> Result<(), Error> {
        let plan = self.plan;
        let bar = match plan.amount {
            Amount::Records(records) => self.progress.count(plan.what, records),
            Amount::Bytes(bytes) => self.progress.bytes(plan.what, bytes),
            Amount::Duration(duration) => self.progress.time(plan.what, duration),
            Amount::Once => {
                let readers = plan.consume.as_ref().filter(|consume| consume.fan_out).map_or(1, |consume| consume.consumers);
                self.progress.count(plan.what, held * u64::from(readers))
            }
        };
        let mut times: Option<Times> = None;
        let mut catching_up = false;
        let mut outage: Option<Instant> = None;
        let mut stopping: Option<Instant> = None;
        let mut looks = 0_u32;
        let both = plan.produce.is_some() && plan.consume.is_some();
        let result = loop {
            for interval in lanes.intervals() {
                gathered.collectors.entry(interval.role).or_default().take(interval);
            }
            for ended in lanes.ended() {
                gathered.ended += 1;
                match ended.result {
                    Ok(report) => gathered.reports.entry(ended.role).or_default().push(report),
                    // What fails after it was told to end has not failed.
                    Err(_) if stopping.is_some_and(|since| since.elapsed() > GRACE) => {}
                    Err(error) => {
                        gathered.failure.get_or_insert(error);
                        lanes.move_to(Phase::Abort);
                    }
                }
            }
            let outages = &lanes.shared.outages;
            match (outage, outages.lanes()) {
                (None, 1..) => {
                    outage = Some(Instant::now());
                    let line = format!("{}; trying again for up to {:?}", outages.why(), plan.retry_for);
                    self.progress.warn(&bar, &line);
                }
                (Some(since), 0) => {
                    outage = None;
                    self.progress.warn(&bar, &format!("all are connected again after {:.1} s", since.elapsed().as_secs_f64()));
                }
                _ => {}
            }
            if gathered.ended >= lanes.count {
                break Ok(());
            }
            if times.is_none() && lanes.are_connected() && gathered.failure.is_none() {
                times = Some(self.begin(lanes, gathered));
            }
            let now_ns = self.clock.now_ns();
            if let Some(times) = times {
                if gathered.readings.is_none() && now_ns >= times.measure_ns {
                    gathered.readings = Some(self.readings());
                }
                let measured_ms = now_ns.saturating_sub(times.measure_ns) / 1_000_000;
                let role = if plan.produce.is_some() { Role::Produce } else { Role::Consume };
                let collector = gathered.collectors.get(&role);
                bar.set_position(match plan.amount {
                    Amount::Duration(_) => {
                        if let Some(per_s) = collector.and_then(Collector::records_per_s) {
                            bar.set_message(format!("{} {} records/s", plan.what, show_count(per_s)));
                        }
                        measured_ms
                    }
                    Amount::Bytes(_) => collector.map_or(0, Collector::bytes),
                    Amount::Records(_) | Amount::Once => collector.map_or(0, Collector::records),
                });
            }
            if stop::requested() && stopping.is_none() {
                stopping = Some(Instant::now());
                lanes.move_to(if times.is_some() { Phase::Drain } else { Phase::Abort });
            }
            if stopping.is_some_and(|since| since.elapsed() > GRACE) {
                lanes.move_to(Phase::Abort);
            } else if both && times.is_some() && !catching_up && lanes.have_produced() && gathered.failure.is_none() {
                catching_up = true;
                let acks = plan.produce.as_ref().map_or(-1, |produce| produce.acks);
                match self.admin.settled_ends(self.topic, acks) {
                    Ok(ends) => lanes.move_to(Phase::CatchUp(Arc::new(ends))),
                    Err(error) => break Err(error.into()),
                }
            }
            looks += 1;
            if looks.is_multiple_of(LOOKS_PER_NUDGE) {
                lanes.nudge();
            }
            if looks.is_multiple_of(LOOKS_PER_LOG)
                && let Some(path) = &plan.verify_log
                && let Err(error) = verify_log::update(path, self.ledger(ledgers, false))
            {
                break Err(error);
            }
            std::thread::sleep(LOOK);
        };
        bar.finish_and_clear();
        result
    }

    fn begin(&self, lanes: &Lanes, gathered: &mut Gathered) -> Times {
        if self.plan.warm_up.is_zero() {
            gathered.readings = Some(self.readings());
        }
        let start_ns = self.clock.now_ns();
        let measure_ns = start_ns + self.plan.warm_up.as_nanos() as u64;
        let deadline_ns = match self.plan.amount {
            Amount::Duration(duration) => Some(measure_ns + duration.as_nanos() as u64),
            Amount::Records(_) | Amount::Bytes(_) | Amount::Once => None,
        };
        let times = Times { start_ns, measure_ns, deadline_ns };
        lanes.move_to(Phase::Run(times));
        gathered.measure_ns = Some(measure_ns);
        times
    }

    fn readings(&self) -> (Option<Reading>, Option<Reading>) {
        (self.plan.pid.and_then(|pid| Reading::begin(pid).ok()), Reading::begin(std::process::id()).ok())
    }

    /// Holds what came back against what was acknowledged; without consumers of the run, reads it back first.
    fn verify(
        &self,
        starts: &[i64],
        ledgers: &SharedLedgers,
        reports: &BTreeMap<Role, Vec<LaneReport>>,
    ) -> Result<Verified, Error> {
        let trackers = reports.get(&Role::Consume).into_iter().flatten().filter_map(|report| report.tracker.as_ref());
        if self.plan.consume.is_some() {
            let ledger = self.ledger(ledgers, true);
            let mut verified = Verified::default();
            for (tracker, partitions) in trackers {
                let covers = |partition: i32| partitions.binary_search(&partition).is_ok();
                tracker.clone().finish(std::slice::from_ref(&ledger), covers, &mut verified);
            }
            return Ok(verified);
        }
        self.read_back(starts, ledgers)
    }

    /// Reads all of the topic since the start of the run, and holds it against what was acknowledged.
    fn read_back(&self, starts: &[i64], ledgers: &SharedLedgers) -> Result<Verified, Error> {
        let acks = self.plan.produce.as_ref().map_or(-1, |produce| produce.acks);
        let ends = self.admin.settled_ends(self.topic, acks)?;
        let (tracker, _) = read_back(self.admin, self.topic, starts, &ends, self.tracker(), self.progress)?;
        let mut verified = Verified::default();
        tracker.finish(&[self.ledger(ledgers, true)], |_| true, &mut verified);
        Ok(verified)
    }
}

/// What a process used since a reading, where there is one.
pub(crate) fn used(pid: Option<u32>, since: Option<Reading>, bytes: u64) -> Option<ProcessUse> {
    since?.used_since(pid?, bytes).ok()
}

/// Why the generator may have been what was measured, if so.
fn generator_bound(threads: impl Iterator<Item = ThreadUse>, producers: Option<&Vec<LaneReport>>) -> Option<String> {
    let mut reasons = Vec::new();
    for (at, used) in threads.enumerate() {
        let of_time = |ns: u64| ns as f64 / used.elapsed_ns.max(1) as f64;
        if of_time(used.ran_ns + used.waited_ns) > BUSY_MAX {
            let (ran, waited) = (100.0 * of_time(used.ran_ns), 100.0 * of_time(used.waited_ns));
            reasons.push(format!("generator thread {at} ran {ran:.0} % of the time and waited for a CPU {waited:.0} %"));
        }
    }
    let (late, paced) = producers.into_iter().flatten().fold((0, 0), |sum, lane| (sum.0 + lane.late, sum.1 + lane.paced));
    if late as f64 > paced as f64 * LATE_MAX {
        let share = 100.0 * late as f64 / paced as f64;
        reasons.push(format!("{share:.2} % of the records began more than 1 ms late although the broker was ready for them"));
    }
    if reasons.is_empty() { None } else { Some(reasons.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_or_late_generator_says_so() {
        let used = |ran_ns, waited_ns| ThreadUse { ran_ns, waited_ns, elapsed_ns: 1000, ..ThreadUse::default() };
        assert_eq!(generator_bound([used(300, 100)].into_iter(), None), None);
        assert!(generator_bound([used(100, 0), used(500, 450)].into_iter(), None).unwrap().contains("thread 1 ran 50 %"));
        let lanes = |late| vec![LaneReport { late, paced: 10_000, ..Default::default() }];
        assert_eq!(generator_bound([].into_iter(), Some(&lanes(10))), None);
        assert!(generator_bound([].into_iter(), Some(&lanes(11))).unwrap().contains("0.11 %"));
        assert_eq!(generator_bound([ThreadUse::default()].into_iter(), None), None);
    }
}
