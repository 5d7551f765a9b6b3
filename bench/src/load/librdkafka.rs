//! The same run through librdkafka, the C library that most languages' clients are made of: what an application sees. Each
//! producer and consumer is a client of its own on a thread of its own; beside that librdkafka has threads that count as the
//! generator's. Bytes are those of values. Only with the cargo feature `librdkafka`.
//!
//! A producer's latency is that of records, from handing them over (or, in an open loop, from when they were to be) to the delivery
//! report, so in a closed loop it is mostly the wait in the library's queue. A consumer's is that of records too: from the stamp in
//! them, or, where there is none, from asking the library for one to having it; the library fetches ahead, so that is what an
//! application stands still for.
//!
//! To verify, a producer notes each record in its [`Ledger`] before it hands it over, and again when it is reported to be
//! delivered: by the stamp in the value that the report brings. What the library sends again by itself it does not tell. It counts
//! what it transmits to each partition, though (`txmsgs` of its statistics), so in the end it is known how many it sent again.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;

use super::client::ClientError;
use super::content::{Filler, Keys, STAMP_BYTES, Stamp, key_bytes};
use super::control::{Clock, Lane, LaneReport, Phase, Times};
use super::pace::Pace;
use super::plan::{ConsumePlan, ProducePlan};
use super::verify::{Ledger, Tracker};

/// How long a call may wait before the phase is looked at.
const WAIT: Duration = Duration::from_millis(20);
/// Records between two looks at what was delivered.
const RECORDS_PER_POLL: u64 = 64;
/// The library's waits are whole milliseconds; an open loop whose next record is due before sleeps for at most this instead.
const NAP: Duration = Duration::from_micros(50);
/// A record of an open loop that begins later than this, though the library took it, is our delay.
const LATE_NS: u64 = 1_000_000;
/// Between two statistics of a producer that verifies; the last are waited for.
const STATISTICS_MS: u32 = 500;

/// A producer to be.
#[derive(Debug)]
pub(crate) struct Sender {
    /// Where to connect first.
    pub bootstrap: Vec<SocketAddr>,
    /// The topic.
    pub topic: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// Which of the producers this is.
    pub producer: u32,
    /// The run, for stamps and filler.
    pub run: u64,
    /// Its keys.
    pub keys: Option<Keys>,
    /// What to do.
    pub plan: ProducePlan,
    /// How long metadata may take.
    pub timeout: Duration,
    /// How long a record may go undelivered.
    pub retry_for: Duration,
    /// What it sent to each partition, where that is to be verified; read by the main thread as well.
    pub ledger: Option<Arc<Mutex<Vec<Ledger>>>>,
}

/// A consumer to be.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// Where to connect first.
    pub bootstrap: Vec<SocketAddr>,
    /// The topic.
    pub topic: String,
    /// The partitions, and where to start in each.
    pub partitions: Vec<(i32, i64)>,
    /// Without producers: where what is there ends, in the same order.
    pub ends: Option<Vec<i64>>,
    /// Whether to begin again at the end.
    pub again: bool,
    /// What to do.
    pub plan: ConsumePlan,
    /// How long nothing may come.
    pub timeout: Duration,
    /// How long the broker may be away.
    pub retry_for: Duration,
    /// What looks at every record.
    pub tracker: Option<Tracker>,
}

fn failed(error: impl std::fmt::Display) -> ClientError {
    ClientError::Unfit(format!("librdkafka: {error}"))
}

fn client(bootstrap: &[SocketAddr]) -> ClientConfig {
    let mut config = ClientConfig::new();
    let servers: Vec<String> = bootstrap.iter().map(ToString::to_string).collect();
    config.set("bootstrap.servers", servers.join(",")).set("client.id", super::client::CLIENT_ID);
    // What goes wrong is told by the calls; the library's own log would go to the terminal.
    config.set("log_level", "0");
    config
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Callbacks of the library: its own log goes nowhere, as its calls tell what goes wrong. They do not tell where; the words of the
/// last error do.
#[derive(Default)]
struct Quiet {
    words: Mutex<String>,
}

impl ClientContext for Quiet {
    fn error(&self, _: KafkaError, words: &str) {
        words.clone_into(&mut lock(&self.words));
    }
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

/// The report of one record: when it was sent, when it came, or what went wrong.
struct Delivery {
    sent_ns: u64,
    outcome: Result<u64, KafkaError>,
    /// What the value says that it is, where someone wants to know.
    stamp: Option<Stamp>,
}

/// What the library told since it was last taken.
struct Delivered {
    clock: Clock,
    stamps: bool,
    taken: Mutex<Vec<Delivery>>,
    /// The last statistics.
    statistics: Mutex<Vec<u8>>,
}

impl ClientContext for Delivered {
    fn error(&self, _: KafkaError, _: &str) {}

    fn stats_raw(&self, statistics: &[u8]) {
        statistics.clone_into(&mut lock(&self.statistics));
    }
}

/// Of the library's statistics, what it transmitted.
#[derive(Deserialize)]
struct Statistics {
    /// Microseconds of the monotonic clock.
    ts: i64,
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct TopicStatistics {
    partitions: HashMap<i32, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    /// Records written into requests, one that is sent again each time.
    txmsgs: u64,
}

impl ProducerContext for Delivered {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sent_ns: usize) {
        let (outcome, message) = match result {
            Ok(message) => (Ok(self.clock.now_ns()), message),
            Err((error, message)) => (Err(error.clone()), message),
        };
        let stamp = if self.stamps { message.payload().and_then(Stamp::read) } else { None };
        lock(&self.taken).push(Delivery { sent_ns: sent_ns as u64, outcome, stamp });
    }
}

/// A producer that is connected.
pub(crate) struct Sending {
    spec: Sender,
    producer: BaseProducer<Delivered>,
    filler: Filler,
    report: LaneReport,
    /// How many records were made.
    records: u64,
    /// How many were made for each partition.
    sequences: Vec<u64>,
    /// The value that is being made.
    value: Vec<u8>,
}

/// Where a record goes, and when it was to be sent.
#[derive(Clone, Copy)]
struct Due {
    partition: u32,
    key: Option<u32>,
    sent_ns: u64,
}

impl Sender {
    /// Makes the library's client, which knows the topic then, so that the first record waits for nothing.
    ///
    /// # Errors
    /// What the library says.
    pub(crate) fn connect(self, clock: Clock) -> Result<Sending, ClientError> {
        let plan = &self.plan;
        let batch_bytes = (plan.batch_records * (plan.value_bytes + 32)).clamp(1, i32::MAX as usize);
        let mut config = client(&self.bootstrap);
        config
            .set("acks", plan.acks.to_string())
            .set("enable.idempotence", plan.idempotent.to_string())
            .set("max.in.flight.requests.per.connection", plan.in_flight.to_string())
            .set("batch.num.messages", plan.batch_records.to_string())
            .set("batch.size", batch_bytes.to_string())
            .set("compression.type", plan.codec.name())
            .set("message.max.bytes", (batch_bytes + 1024).clamp(1_000_000, 1_000_000_000).to_string())
            .set("message.timeout.ms", self.retry_for.max(self.timeout).as_millis().max(1).to_string());
        if plan.rate.is_some() {
            config.set("linger.ms", format!("{}", plan.linger.as_secs_f64() * 1e3));
        }
        if self.ledger.is_some() {
            config.set("statistics.interval.ms", STATISTICS_MS.to_string());
        }
        let stamps = self.ledger.is_some();
        let context = Delivered { clock, stamps, taken: Mutex::default(), statistics: Mutex::default() };
        let producer: BaseProducer<Delivered> = config.create_with_context(context).map_err(failed)?;
        producer.client().fetch_metadata(Some(&self.topic), self.timeout).map_err(failed)?;
        Ok(Sending {
            producer,
            filler: Filler::new(self.run, plan.value_bytes + STAMP_BYTES),
            report: LaneReport::default(),
            records: 0,
            sequences: vec![0; self.partitions as usize],
            value: vec![0; plan.value_bytes],
            spec: self,
        })
    }
}

impl Sending {
    /// Runs it to its end.
    ///
    /// # Errors
    /// What the library says.
    pub(crate) fn run(mut self, lane: &mut Lane, times: Times, lane_at: (u32, u32)) -> Result<LaneReport, ClientError> {
        let rate = self.spec.plan.rate;
        let mut pace = rate.map(|rate| Pace::new(times.start_ns, rate, lane_at.0, lane_at.1, 0));
        let value_bytes = self.spec.plan.value_bytes as u64;
        loop {
            if matches!(lane.signal.borrow_and_update().phase, Phase::Abort) {
                return Ok(self.report);
            }
            if matches!(lane.signal.borrow().phase, Phase::Drain | Phase::CatchUp(_)) || lane.shared.budget.is_spent() {
                break;
            }
            let now_ns = lane.shared.clock.now_ns();
            let over = |ns: u64| times.deadline_ns.is_some_and(|deadline| ns >= deadline);
            let due = match &pace {
                None if over(now_ns) => break,
                None => RECORDS_PER_POLL,
                Some(pace) if over(pace.intended_ns(pace.next())) => break,
                Some(pace) => pace.backlog(now_ns).min(RECORDS_PER_POLL),
            };
            for _ in 0..due {
                let now_ns = lane.shared.clock.now_ns();
                let sent_ns = pace.as_ref().map_or(now_ns, |pace| pace.intended_ns(pace.next()));
                if over(sent_ns) {
                    break;
                }
                if now_ns >= times.measure_ns && lane.shared.budget.take(1, value_bytes) == 0 {
                    break;
                }
                let due = self.next(sent_ns);
                let taken_at_once = self.send(lane, times, due)?;
                if let Some(pace) = &mut pace {
                    pace.advance(1);
                    self.report.paced += 1;
                    self.report.late += u64::from(taken_at_once && now_ns.saturating_sub(sent_ns) > LATE_NS);
                }
            }
            self.wait(pace.as_ref(), lane.shared.clock);
            self.take(lane, times)?;
        }
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(WAIT);
            self.take(lane, times)?;
            if matches!(lane.signal.borrow_and_update().phase, Phase::Abort) {
                return Ok(self.report);
            }
        }
        self.settle(lane);
        Ok(self.report)
    }

    /// All is delivered: notes how many records took more than one transmission. Where the library does not say, each may have.
    fn settle(&mut self, lane: &mut Lane) {
        let Some(ledgers) = self.spec.ledger.clone() else { return };
        let Some(transmitted) = self.transmitted(lane) else {
            self.report.error("librdkafka did not tell how much it sent again", 1);
            return;
        };
        let mut ledgers = lock(&ledgers);
        let of = |partition: usize| transmitted.get(&(partition as i32)).map_or(0, |told| told.txmsgs);
        let again = ledgers.iter_mut().enumerate().map(|(partition, ledger)| ledger.transmitted(of(partition))).sum();
        self.report.error("sent again by librdkafka", again);
    }

    /// What was transmitted to each partition, by statistics from after this call.
    fn transmitted(&mut self, lane: &mut Lane) -> Option<HashMap<i32, PartitionStatistics>> {
        let now = clock_gettime(ClockId::Monotonic);
        let since_us = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        let until_ns = lane.shared.clock.now_ns() + self.spec.timeout.as_nanos() as u64;
        while lane.shared.clock.now_ns() < until_ns && !matches!(lane.signal.borrow_and_update().phase, Phase::Abort) {
            self.producer.poll(WAIT);
            let told = std::mem::take(&mut *lock(&self.producer.context().statistics));
            // What cannot be read is as good as not told.
            let Ok(mut told) = serde_json::from_slice::<Statistics>(&told) else { continue };
            if told.ts >= since_us {
                return Some(told.topics.remove(&self.spec.topic).map(|topic| topic.partitions).unwrap_or_default());
            }
        }
        None
    }

    /// Hears what was delivered, and in an open loop waits for the next record.
    fn wait(&self, pace: Option<&Pace>, clock: Clock) {
        let until_due = pace.map_or(Duration::ZERO, |pace| {
            let now_ns = clock.now_ns();
            Duration::from_nanos(pace.intended_ns(pace.next()).saturating_sub(now_ns))
        });
        if until_due >= Duration::from_millis(1) {
            self.producer.poll(WAIT.min(until_due));
            return;
        }
        self.producer.poll(Duration::ZERO);
        if !until_due.is_zero() {
            std::thread::sleep(NAP.min(until_due));
        }
    }

    /// The next record: its partition, which a key decides, and its value.
    fn next(&mut self, sent_ns: u64) -> Due {
        let plan = &self.spec.plan;
        let number = u64::from(self.spec.producer) + self.records;
        self.records += 1;
        let partition = match &mut self.spec.keys {
            Some(keys) => keys.next_partition(),
            None => (number % u64::from(self.spec.partitions)) as u32,
        };
        let key = self.spec.keys.as_mut().map(|keys| keys.next_key(partition));
        let filler_at = Filler::start(number);
        let stamp_bytes = if plan.stamped { STAMP_BYTES } else { 0 };
        // The filler has more than any value needs.
        if let Some(filler) = self.filler.slice(filler_at, plan.value_bytes - stamp_bytes) {
            self.value[stamp_bytes..].copy_from_slice(filler);
        }
        let sequence = &mut self.sequences[partition as usize];
        if plan.stamped {
            let stamp = Stamp {
                run: self.spec.run,
                producer: self.spec.producer,
                partition: partition.cast_signed(),
                sequence: *sequence,
                sent_ns,
                filler_at,
                value_bytes: plan.value_bytes as u32,
                key,
            };
            stamp.write(&mut self.value);
        }
        if let Some(ledgers) = &self.spec.ledger {
            lock(ledgers)[partition as usize].hand_over(*sequence);
        }
        *sequence += 1;
        Due { partition, key, sent_ns }
    }

    /// Hands one record over; waits where the library's queue is full. Whether it was not.
    fn send(&mut self, lane: &mut Lane, times: Times, due: Due) -> Result<bool, ClientError> {
        let key = due.key.map(key_bytes);
        let mut at_once = true;
        loop {
            let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.spec.topic, due.sent_ns as usize)
                .payload(&self.value)
                .partition(due.partition.cast_signed());
            if let Some(key) = &key {
                record = record.key(&key[..]);
            }
            match self.producer.send(record) {
                Ok(()) => return Ok(at_once),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    at_once = false;
                    self.producer.poll(WAIT);
                    self.take(lane, times)?;
                    if matches!(lane.signal.borrow_and_update().phase, Phase::Abort) {
                        return Ok(at_once);
                    }
                }
                Err((error, _)) => return Err(failed(error)),
            }
        }
    }

    /// Counts what was delivered. What was not may be there or not.
    fn take(&mut self, lane: &Lane, times: Times) -> Result<(), ClientError> {
        let taken = std::mem::take(&mut *lock(&self.producer.context().taken));
        let mut ledgers = self.spec.ledger.as_deref().map(lock);
        let mut ended = Ok(());
        for Delivery { sent_ns, outcome, stamp } in taken {
            let now_ns = match outcome {
                Ok(now_ns) => now_ns,
                Err(error) => {
                    self.report.error(error.to_string(), 1);
                    ended = ended.and(Err(ClientError::Undelivered(format!("librdkafka: {error}"))));
                    continue;
                }
            };
            if let Some(ledgers) = &mut ledgers {
                let Some(stamp) = stamp else {
                    ended = ended.and(Err(failed("it reports bytes as delivered that it was not given")));
                    continue;
                };
                ledgers[stamp.partition as usize].acknowledged.insert(stamp.sequence, stamp.sequence + 1);
            }
            if sent_ns >= times.measure_ns {
                lane.record(|recorder| {
                    recorder.count(sent_ns, now_ns, 1, self.spec.plan.value_bytes as u64);
                    recorder.latency(now_ns.saturating_sub(sent_ns), 1);
                });
            }
        }
        ended
    }
}

/// A consumer that is connected.
pub(crate) struct Receiving {
    spec: Receiver,
    consumer: BaseConsumer<Quiet>,
    report: LaneReport,
    /// The next offset of each partition.
    next: Vec<i64>,
    /// Where to end, once producers have.
    until: Option<Arc<Vec<i64>>>,
    /// When a record came, or began to be waited for.
    heard_ns: u64,
    /// Since when the broker is away.
    away_ns: Option<u64>,
    /// What the library said of batches that it could not read. It may fetch one again.
    unreadable: BTreeSet<String>,
}

impl Receiver {
    /// Makes the library's client. Beside producers it waits for their records then.
    ///
    /// # Errors
    /// What the library says.
    pub(crate) fn connect(self) -> Result<Receiving, ClientError> {
        let bytes_max = self.plan.bytes_max;
        let mut config = client(&self.bootstrap);
        config
            .set("group.id", super::client::CLIENT_ID)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("fetch.min.bytes", self.plan.bytes_min.to_string())
            .set("fetch.wait.max.ms", self.plan.wait.as_millis().to_string())
            .set("fetch.message.max.bytes", bytes_max.to_string())
            // The library wants room for a message of the size that it may send.
            .set("fetch.max.bytes", bytes_max.max(1_048_576).to_string())
            .set("queued.max.messages.kbytes", "65536");
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet::default()).map_err(failed)?;
        consumer.fetch_metadata(Some(&self.topic), self.timeout).map_err(failed)?;
        let mut receiving = Receiving {
            next: Vec::new(),
            spec: self,
            consumer,
            report: LaneReport::default(),
            until: None,
            heard_ns: 0,
            away_ns: None,
            unreadable: BTreeSet::new(),
        };
        // What is there is not to be fetched before the start.
        if receiving.spec.ends.is_none() {
            receiving.assign()?;
        }
        Ok(receiving)
    }
}

impl Receiving {
    /// Runs it to its end.
    ///
    /// # Errors
    /// What the library says.
    pub(crate) fn run(mut self, lane: &mut Lane, times: Times) -> Result<LaneReport, ClientError> {
        if self.spec.ends.is_some() {
            self.assign()?;
        }
        self.heard_ns = lane.shared.clock.now_ns();
        self.hear(lane, times)?;
        let partitions = self.spec.partitions.iter().map(|(index, _)| *index).collect();
        self.report.tracker = self.spec.tracker.take().map(|tracker| (tracker, partitions));
        Ok(self.report)
    }

    /// Takes what comes until all is read, or nothing comes.
    fn hear(&mut self, lane: &mut Lane, times: Times) -> Result<(), ClientError> {
        while !self.is_done(lane, times)? {
            let asked_ns = lane.shared.clock.now_ns();
            let polled = self.consumer.poll(WAIT);
            let now_ns = lane.shared.clock.now_ns();
            match polled {
                Some(Ok(message)) => {
                    let at = self.spec.partitions.iter().position(|(index, _)| *index == message.partition());
                    let Some(at) = at else { return Err(failed(format!("a record of partition {}", message.partition()))) };
                    if message.offset() < self.next[at] {
                        return Err(failed(format!("offset {} where {} is due", message.offset(), self.next[at])));
                    }
                    self.next[at] = message.offset() + 1;
                    if let Some(tracker) = &mut self.spec.tracker {
                        let has_headers = message.headers().is_some_and(|headers| headers.count() > 0);
                        let (key, value) = (message.key(), message.payload());
                        tracker.take_parts(message.partition(), message.offset(), key, value, has_headers);
                    }
                    if now_ns >= times.measure_ns {
                        self.count(lane, &message, asked_ns.max(times.measure_ns), now_ns);
                    }
                    (self.heard_ns, self.away_ns) = (now_ns, None);
                }
                Some(Err(error)) => {
                    self.report.error(error.to_string(), 1);
                    if self.is_noted(&error) {
                        continue;
                    }
                    // The library connects again by itself.
                    let may_pass = matches!(
                        error.rdkafka_error_code(),
                        Some(
                            RDKafkaErrorCode::BrokerTransportFailure
                                | RDKafkaErrorCode::AllBrokersDown
                                | RDKafkaErrorCode::OperationTimedOut
                        )
                    );
                    let away_ns = *self.away_ns.get_or_insert(now_ns);
                    if !may_pass || u128::from(now_ns - away_ns) >= self.spec.retry_for.as_nanos() {
                        return Err(failed(error));
                    }
                }
                None => {
                    lane.record(|recorder| recorder.turn(now_ns));
                    if let Some(stalled) = self.stalled(now_ns) {
                        // With a tracker, what is missing is found out and counted.
                        return if self.spec.tracker.is_some() { Ok(()) } else { Err(stalled) };
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether an error says that bytes are damaged, and a tracker has taken note of them.
    fn is_noted(&mut self, error: &KafkaError) -> bool {
        use RDKafkaErrorCode::{BadCompression, BadMessage};
        let Some(tracker) = &mut self.spec.tracker else { return false };
        let Some(BadMessage | BadCompression) = error.rdkafka_error_code() else { return false };
        let words = lock(&self.consumer.context().words).clone();
        if self.unreadable.insert(words.clone()) {
            tracker.unreadable_somewhere(&words);
        }
        true
    }

    /// Whether all is read; begins again where that is wanted.
    fn is_done(&mut self, lane: &mut Lane, times: Times) -> Result<bool, ClientError> {
        match &lane.signal.borrow_and_update().phase {
            Phase::Connect | Phase::Run(_) => {}
            // Beside producers there is something to catch up with.
            Phase::Drain if self.spec.ends.is_none() => {}
            Phase::Drain | Phase::Abort => return Ok(true),
            Phase::CatchUp(until) => {
                if self.until.is_none() {
                    self.heard_ns = lane.shared.clock.now_ns();
                    self.until = Some(until.clone());
                }
            }
        }
        if let Some(until) = &self.until {
            let mut all = self.spec.partitions.iter().zip(&self.next);
            return Ok(all.all(|((index, _), next)| *next >= until[*index as usize]));
        }
        let Some(ends) = &self.spec.ends else { return Ok(false) };
        let is_over = times.deadline_ns.is_some_and(|deadline| lane.shared.clock.now_ns() >= deadline);
        if is_over || lane.shared.budget.is_spent() {
            return Ok(true);
        }
        if ends.iter().zip(&self.next).any(|(end, next)| next < end) {
            return Ok(false);
        }
        if self.spec.again {
            self.assign()?;
        }
        Ok(!self.spec.again)
    }

    fn count(&self, lane: &Lane, message: &BorrowedMessage<'_>, asked_ns: u64, now_ns: u64) {
        let bytes = message.payload_len() as u64;
        // Beside producers, what they send is the amount.
        if self.spec.ends.is_some() {
            lane.shared.budget.spend(1, bytes);
        }
        let since_ns = if self.spec.plan.end_to_end {
            message.payload().and_then(Stamp::read).map(|stamp| stamp.sent_ns)
        } else {
            Some(asked_ns)
        };
        lane.record(|recorder| {
            recorder.count(asked_ns, now_ns, 1, bytes);
            if let Some(since_ns) = since_ns {
                recorder.latency(now_ns.saturating_sub(since_ns), 1);
            }
        });
    }

    /// Nothing may come for a while, unless there is something below the end that the broker told.
    fn stalled(&self, now_ns: u64) -> Option<ClientError> {
        if self.spec.ends.is_none() && self.until.is_none() {
            return None;
        }
        let patience = if self.away_ns.is_some() { self.spec.timeout.max(self.spec.retry_for) } else { self.spec.timeout };
        let waited = Duration::from_nanos(now_ns.saturating_sub(self.heard_ns));
        if waited <= patience + self.spec.plan.wait {
            return None;
        }
        Some(failed(format!("no record below the end of the partitions for {:.1} s", waited.as_secs_f64())))
    }

    /// Begins at the start of each partition.
    fn assign(&mut self) -> Result<(), ClientError> {
        let mut wanted = TopicPartitionList::new();
        for (at, (index, start)) in self.spec.partitions.iter().enumerate() {
            if self.spec.ends.as_ref().is_none_or(|ends| *start < ends[at]) {
                wanted.add_partition_offset(&self.spec.topic, *index, Offset::Offset(*start)).map_err(failed)?;
            }
        }
        self.consumer.assign(&wanted).map_err(failed)?;
        self.next = self.spec.partitions.iter().map(|(_, start)| *start).collect();
        Ok(())
    }
}
