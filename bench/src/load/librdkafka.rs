//! The same run through librdkafka, the C library that most languages' clients are made of: what an application sees. Each
//! producer and consumer is a client of its own on a thread of its own; beside that librdkafka has threads that count as the
//! generator's. Bytes are those of values. Only with the cargo feature `librdkafka`.
//!
//! A producer's latency is that of records, from handing them over (or, in an open loop, from when they were to be) to the delivery
//! report, so in a closed loop it is mostly the wait in the library's queue. A consumer's is that of records too: from the stamp in
//! them, or, where there is none, from asking the library for one to having it; the library fetches ahead, so that is what an
//! application stands still for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

use super::client::ClientError;
use super::content::{Filler, Keys, STAMP_BYTES, Stamp, key_bytes};
use super::control::{Clock, Lane, LaneReport, Phase, Times};
use super::pace::Pace;
use super::plan::{ConsumePlan, ProducePlan};

/// How long a call may wait before the phase is looked at.
const WAIT: Duration = Duration::from_millis(20);
/// Records between two looks at what was delivered.
const RECORDS_PER_POLL: u64 = 64;
/// The library's waits are whole milliseconds; an open loop whose next record is due before sleeps for at most this instead.
const NAP: Duration = Duration::from_micros(50);
/// A record of an open loop that begins later than this, though the library took it, is our delay.
const LATE_NS: u64 = 1_000_000;

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

/// Callbacks of the library: its own log and errors go nowhere, as its calls tell what goes wrong.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, _: KafkaError, _: &str) {}
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

/// What was delivered since it was last taken: when it was sent, when it came, or what went wrong.
struct Delivered {
    clock: Clock,
    taken: Mutex<Vec<(u64, Result<u64, KafkaError>)>>,
}

impl ClientContext for Delivered {
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Delivered {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sent_ns: usize) {
        let outcome = match result {
            Ok(_) => Ok(self.clock.now_ns()),
            Err((error, _)) => Err(error.clone()),
        };
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).push((sent_ns as u64, outcome));
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
        let context = Delivered { clock, taken: Mutex::default() };
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
                break;
            }
        }
        Ok(self.report)
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

    /// Counts what was delivered.
    fn take(&mut self, lane: &Lane, times: Times) -> Result<(), ClientError> {
        let mut taken = self.producer.context().taken.lock().unwrap_or_else(PoisonError::into_inner);
        for (sent_ns, outcome) in taken.drain(..) {
            match outcome {
                Ok(now_ns) if sent_ns >= times.measure_ns => lane.record(|recorder| {
                    recorder.count(sent_ns, now_ns, 1, self.spec.plan.value_bytes as u64);
                    recorder.latency(now_ns.saturating_sub(sent_ns), 1);
                }),
                Ok(_) => {}
                Err(error) => {
                    self.report.error(error.to_string(), 1);
                    return Err(failed(error));
                }
            }
        }
        Ok(())
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
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(failed)?;
        consumer.fetch_metadata(Some(&self.topic), self.timeout).map_err(failed)?;
        let mut receiving = Receiving {
            next: Vec::new(),
            spec: self,
            consumer,
            report: LaneReport::default(),
            until: None,
            heard_ns: 0,
            away_ns: None,
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
                    if now_ns >= times.measure_ns {
                        self.count(lane, &message, asked_ns.max(times.measure_ns), now_ns);
                    }
                    (self.heard_ns, self.away_ns) = (now_ns, None);
                }
                Some(Err(error)) => {
                    self.report.error(error.to_string(), 1);
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
                    self.check_patience(now_ns)?;
                }
            }
        }
        Ok(self.report)
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
    fn check_patience(&self, now_ns: u64) -> Result<(), ClientError> {
        if self.spec.ends.is_none() && self.until.is_none() {
            return Ok(());
        }
        let patience = if self.away_ns.is_some() { self.spec.timeout.max(self.spec.retry_for) } else { self.spec.timeout };
        let waited = Duration::from_nanos(now_ns.saturating_sub(self.heard_ns));
        if waited <= patience + self.spec.plan.wait {
            return Ok(());
        }
        Err(failed(format!("no record below the end of the partitions for {:.1} s", waited.as_secs_f64())))
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
