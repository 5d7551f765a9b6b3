//! A producer of librdkafka's.
//!
//! To verify, a producer notes each record in its [`Ledger`] before it hands it over, and again when it is reported to be
//! delivered: by the stamp in the value that the report brings. What the library sends again by itself it does not tell. It counts
//! what it transmits to each partition, though (`txmsgs` of its statistics), so in the end it is known how many it sent again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Message};
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;

use super::super::client::ClientError;
use super::super::content::{Filler, Keys, STAMP_BYTES, Stamp, key_bytes};
use super::super::control::{Clock, Lane, LaneReport, Phase, Times};
use super::super::pace::Pace;
use super::super::plan::ProducePlan;
use super::super::verify::Ledger;
use super::{WAIT, client, failed, lock};

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
        let transmitted = self.transmitted(lane).unwrap_or_default();
        for (partition, ledger) in lock(&ledgers).iter_mut().enumerate() {
            let count = transmitted.get(&(partition as i32)).map_or(0, |told| told.txmsgs);
            match ledger.transmitted(count) {
                Some(again) => self.report.error("sent again by librdkafka", again),
                None => self.report.error("partitions of which librdkafka did not tell how much it sent again", 1),
            }
        }
    }

    /// What was transmitted to each partition, by statistics from after this call; `None` where none come.
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
                let stamp = stamp.filter(|stamp| (stamp.run, stamp.producer) == (self.spec.run, self.spec.producer));
                let found =
                    stamp.and_then(|stamp| Some((ledgers.get_mut(usize::try_from(stamp.partition).ok()?)?, stamp.sequence)));
                let Some((ledger, sequence)) = found else {
                    ended = ended.and(Err(failed("it reports bytes as delivered that it was not given")));
                    continue;
                };
                ledger.acknowledged.insert(sequence, sequence + 1);
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
