//! A consumer of librdkafka's. To verify, a tracker looks at each record that the library hands over, as an application would: by
//! default (`check.crcs`) that library does not look at a batch's CRC.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

use super::super::client::{CLIENT_ID, ClientError};
use super::super::content::Stamp;
use super::super::control::{Lane, LaneReport, Phase, Times};
use super::super::plan::ConsumePlan;
use super::super::verify::Tracker;
use super::{WAIT, client, failed, lock};

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

impl ConsumerContext for Quiet {}

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
            .set("group.id", CLIENT_ID)
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
                        if self.gives_up(now_ns)? {
                            return Ok(());
                        }
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
                    if self.gives_up(now_ns)? {
                        return Ok(());
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

    /// Whether nothing more is waited for. With a tracker, what is missing is found out and counted.
    fn gives_up(&self, now_ns: u64) -> Result<bool, ClientError> {
        match self.stalled(now_ns) {
            Some(stalled) if self.spec.tracker.is_none() => Err(stalled),
            stalled => Ok(stalled.is_some()),
        }
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
