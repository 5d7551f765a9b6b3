//! The same run through librdkafka, the C library that most languages' clients are made of: what an application sees. Each
//! producer and consumer is a client of its own on a thread of its own; beside that librdkafka has threads that count as the
//! generator's. Latency is that of records, from handing them over (or, in an open loop, from when they were to be) to the delivery
//! report, so in a closed loop it is mostly the wait in the library's queue; bytes are those of values. Only with the cargo feature `librdkafka`.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

use super::client::ClientError;
use super::content::{Filler, STAMP_BYTES};
use super::control::{Clock, Lane, LaneReport, Phase, Times};
use super::pace::Pace;
use super::plan::{ConsumePlan, ProducePlan};

/// How long a call may wait before the phase is looked at.
const WAIT: Duration = Duration::from_millis(20);
/// Records between two looks at what was delivered.
const RECORDS_PER_POLL: u64 = 64;

/// A producer to be.
#[derive(Debug)]
pub(crate) struct Sender {
    /// Where to connect first.
    pub bootstrap: Vec<SocketAddr>,
    /// The topic.
    pub topic: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// Which of the producers this is.
    pub producer: u32,
    /// The run, for the filler.
    pub run: u64,
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
    /// The partitions, where to start and where what is there ends.
    pub partitions: Vec<(i32, i64, i64)>,
    /// Whether to begin again at the end.
    pub again: bool,
    /// What to do.
    pub plan: ConsumePlan,
    /// How long nothing may come.
    pub timeout: Duration,
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

/// What was delivered since it was last taken: when it was sent, when it came, or what went wrong.
struct Delivered {
    clock: Clock,
    taken: Mutex<Vec<(u64, Result<u64, KafkaError>)>>,
}

impl ClientContext for Delivered {}

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

impl Sender {
    /// Runs it to its end.
    ///
    /// # Errors
    /// What the library says.
    pub(crate) fn run(self, lane: &mut Lane, times: Times, lane_at: (u32, u32)) -> Result<LaneReport, ClientError> {
        let producer = self.connect(lane.shared.clock)?;
        let mut report = LaneReport::default();
        let filler = Filler::new(self.run, self.plan.value_bytes + STAMP_BYTES);
        let mut pace = self.plan.rate.map(|rate| Pace::new(times.start_ns, rate, lane_at.0, lane_at.1, 0));
        let mut number = u64::from(self.producer);
        loop {
            if matches!(lane.signal.borrow_and_update().phase, Phase::Abort) {
                return Ok(report);
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
                if now_ns >= times.measure_ns && lane.shared.budget.take(1, self.plan.value_bytes as u64) == 0 {
                    break;
                }
                let value = filler.slice(Filler::start(number), self.plan.value_bytes).unwrap_or_default();
                let partition = (number % self.partitions as u64) as i32;
                self.send(&producer, lane, times, &mut report, (partition, value, sent_ns))?;
                if let Some(pace) = &mut pace {
                    pace.advance(1);
                }
                number += 1;
            }
            // An open loop waits for its next record here; the library's clock has milliseconds.
            let wait = match &pace {
                Some(pace) if pace.backlog(lane.shared.clock.now_ns()) == 0 => Duration::from_millis(1),
                _ => Duration::ZERO,
            };
            producer.poll(wait);
            self.take(&producer, lane, times, &mut report)?;
        }
        while producer.in_flight_count() > 0 {
            producer.poll(WAIT);
            self.take(&producer, lane, times, &mut report)?;
            if matches!(lane.signal.borrow_and_update().phase, Phase::Abort) {
                break;
            }
        }
        Ok(report)
    }

    fn connect(&self, clock: Clock) -> Result<BaseProducer<Delivered>, ClientError> {
        let plan = &self.plan;
        let batch_bytes = (plan.batch_records * (plan.value_bytes + 32)).clamp(1, i32::MAX as usize);
        let mut config = client(&self.bootstrap);
        config
            .set("acks", plan.acks.to_string())
            .set("enable.idempotence", plan.idempotent.to_string())
            .set("max.in.flight.requests.per.connection", plan.in_flight.to_string())
            .set("batch.num.messages", plan.batch_records.min(1_000_000).to_string())
            .set("batch.size", batch_bytes.to_string())
            .set("compression.type", plan.codec.name())
            .set("message.max.bytes", (batch_bytes + 1024).clamp(1_000_000, 1_000_000_000).to_string())
            .set("message.timeout.ms", self.retry_for.max(self.timeout).as_millis().max(1).to_string());
        if plan.rate.is_some() {
            config.set("linger.ms", format!("{}", plan.linger.as_secs_f64() * 1e3));
        }
        let context = Delivered { clock, taken: Mutex::default() };
        let producer: BaseProducer<Delivered> = config.create_with_context(context).map_err(failed)?;
        // Metadata first, so that the first record waits for nothing.
        producer.client().fetch_metadata(Some(&self.topic), self.timeout).map_err(failed)?;
        Ok(producer)
    }

    /// Hands one record over; waits where the library's queue is full.
    fn send(
        &self,
        producer: &BaseProducer<Delivered>,
        lane: &mut Lane,
        times: Times,
        report: &mut LaneReport,
        (partition, value, sent_ns): (i32, &[u8], u64),
    ) -> Result<(), ClientError> {
        loop {
            let record = BaseRecord::<(), [u8], usize>::with_opaque_to(&self.topic, sent_ns as usize);
            match producer.send(record.payload(value).partition(partition)) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    producer.poll(WAIT);
                    self.take(producer, lane, times, report)?;
                    if matches!(lane.signal.borrow_and_update().phase, Phase::Abort) {
                        return Ok(());
                    }
                }
                Err((error, _)) => return Err(failed(error)),
            }
        }
    }

    /// Counts what was delivered.
    fn take(
        &self,
        producer: &BaseProducer<Delivered>,
        lane: &Lane,
        times: Times,
        report: &mut LaneReport,
    ) -> Result<(), ClientError> {
        let mut taken = producer.context().taken.lock().unwrap_or_else(PoisonError::into_inner);
        for (sent_ns, outcome) in taken.drain(..) {
            match outcome {
                Ok(now_ns) if sent_ns >= times.measure_ns => lane.record(|recorder| {
                    recorder.count(sent_ns, now_ns, 1, self.plan.value_bytes as u64);
                    recorder.latency(now_ns.saturating_sub(sent_ns), 1);
                }),
                Ok(_) => {}
                Err(error) => {
                    report.error(error.to_string(), 1);
                    return Err(failed(error));
                }
            }
        }
        Ok(())
    }
}

impl Receiver {
    /// Runs it to its end.
    ///
    /// # Errors
    /// What the library says.
    pub(crate) fn run(self, lane: &mut Lane, times: Times) -> Result<LaneReport, ClientError> {
        let bytes_max = self.plan.bytes_max.max(1000);
        let mut config = client(&self.bootstrap);
        config
            .set("group.id", super::client::CLIENT_ID)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("fetch.min.bytes", self.plan.bytes_min.clamp(1, 100_000_000).to_string())
            .set("fetch.wait.max.ms", self.plan.wait.as_millis().min(300_000).to_string())
            .set("fetch.message.max.bytes", bytes_max.min(1_000_000_000).to_string())
            .set("fetch.max.bytes", bytes_max.max(1_048_576).to_string())
            .set("queued.max.messages.kbytes", "65536");
        let consumer: BaseConsumer = config.create().map_err(failed)?;
        let mut next = self.assign(&consumer)?;
        let mut heard_ns = lane.shared.clock.now_ns();
        loop {
            if matches!(lane.signal.borrow_and_update().phase, Phase::Drain | Phase::Abort) || lane.shared.budget.is_spent() {
                break;
            }
            if times.deadline_ns.is_some_and(|deadline| lane.shared.clock.now_ns() >= deadline) {
                break;
            }
            if self.partitions.iter().zip(&next).all(|((.., end), next)| next >= end) {
                if !self.again {
                    break;
                }
                next = self.assign(&consumer)?;
            }
            let message = match consumer.poll(WAIT) {
                Some(message) => message.map_err(failed)?,
                None if lane.shared.clock.now_ns() - heard_ns > self.timeout.as_nanos() as u64 => {
                    return Err(failed(format!("nothing came for {:.1} s", self.timeout.as_secs_f64())));
                }
                None => continue,
            };
            let at = self.partitions.iter().position(|(index, ..)| *index == message.partition());
            let Some(at) = at else { return Err(failed(format!("a record of partition {}", message.partition()))) };
            if message.offset() < next[at] {
                return Err(failed(format!("offset {} where {} is due", message.offset(), next[at])));
            }
            next[at] = message.offset() + 1;
            let now_ns = lane.shared.clock.now_ns();
            if now_ns >= times.measure_ns {
                let bytes = message.payload_len() as u64;
                lane.shared.budget.spend(1, bytes);
                lane.record(|recorder| recorder.count(heard_ns.max(times.measure_ns), now_ns, 1, bytes));
            }
            heard_ns = now_ns;
        }
        Ok(LaneReport::default())
    }

    fn assign(&self, consumer: &BaseConsumer) -> Result<Vec<i64>, ClientError> {
        let mut wanted = TopicPartitionList::new();
        for (index, start, end) in &self.partitions {
            if start < end {
                wanted.add_partition_offset(&self.topic, *index, Offset::Offset(*start)).map_err(failed)?;
            }
        }
        consumer.assign(&wanted).map_err(failed)?;
        Ok(self.partitions.iter().map(|(_, start, _)| *start).collect())
    }
}
