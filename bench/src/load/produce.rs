//! One producer's connection to one broker: sends prepared batches, as many unanswered as allowed, closed loop or open, and sends
//! again in order what a broker that went away did not acknowledge.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringlog_protocol::api::produce::{PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData};
use ringlog_protocol::{ApiKey, Decoder, Encoder, ErrorCode, Records, ResponseHeader, Uuid, begin_request, finish_frame};

use super::batches::{Batches, Fill};
use super::client::{ClientError, Connection, gone, header};
use super::content::Keys;
use super::control::{Lane, LaneReport, Phase, Timer, Times, wall_ms};
use super::pace::Pace;
use super::retry::{Retry, reconnect};
use super::verify::Ledger;

/// A record of an open loop that begins later than this, though nothing but us stood in the way, is our delay.
const LATE_NS: u64 = 1_000_000;
/// What an open loop could not send in time is sent after its end, for so long and as long again as it took.
const OVERTIME_NS: u64 = 10_000_000_000;
/// Frames written by one call.
const FRAMES_PER_WRITE_MAX: usize = 16;

/// What a producer's connection is made of.
#[derive(Debug)]
pub(crate) struct ProducerSpec {
    /// The producer's number.
    pub producer: u32,
    /// Where the leader of its partitions is.
    pub leader: SocketAddr,
    /// The topic.
    pub topic: String,
    /// The topic's id.
    pub topic_id: Uuid,
    /// The partitions led there.
    pub partitions: Vec<i32>,
    /// Its batches.
    pub batches: Batches,
    /// Its keys.
    pub keys: Option<Keys>,
    /// Records of a full batch.
    pub batch_records: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// 0, 1 or -1.
    pub acks: i16,
    /// Unanswered requests.
    pub in_flight: usize,
    /// Producer id and epoch.
    pub idempotent: Option<(i64, i16)>,
    /// Its share of an open loop, once the start is known: rate, number of this lane, lanes, linger.
    pub pace: Option<(u64, u32, u32, u64)>,
    /// How long to reconnect and send again.
    pub retry_for: Duration,
    /// What it sent, by its partitions' order; read by the main thread as well.
    pub ledger: Arc<Mutex<Vec<Ledger>>>,
}

/// A request under way.
#[derive(Clone, Debug, Default)]
struct Request {
    correlation_id: i32,
    /// Its place in the order of sending.
    order: u64,
    /// Index of the partition among ours.
    partition_at: usize,
    records: u64,
    bytes: usize,
    /// The number of its first record, of this producer and partition.
    sequence: u64,
    /// In an open loop, the number of its first record in our share.
    paced: u64,
    sent_ns: u64,
    measured: bool,
}

/// A frame to be written: what stands before and behind the batch.
#[derive(Debug)]
struct Outgoing {
    slot: usize,
    around: Vec<u8>,
    split: usize,
    written: usize,
}

struct Producer {
    spec: ProducerSpec,
    lane: Lane,
    connection: Connection,
    version: i16,
    request: ProduceRequest<'static>,
    encoder: Encoder,
    requests: Vec<Request>,
    free: Vec<usize>,
    /// Slots whose answers are awaited, in the order of sending.
    waiting: VecDeque<usize>,
    /// Slots to be sent again.
    failed: Vec<usize>,
    retry: Retry,
    outgoing: VecDeque<Outgoing>,
    spare: Vec<Vec<u8>>,
    turn: usize,
    order: u64,
    times: Times,
    pace: Option<Pace>,
    /// When sending last became possible again.
    unblocked_ns: u64,
    stopped: bool,
    /// Records of a last batch that waits until nothing is under way.
    last: Option<u64>,
    report: LaneReport,
}

/// Runs a producer to its end.
///
/// # Errors
/// What the broker does that a run cannot go on with.
pub(crate) async fn run(spec: ProducerSpec, mut lane: Lane) -> Result<LaneReport, ClientError> {
    let connection = Connection::open(spec.leader, lane.shared.timeout).await?;
    let version = connection.versions.of(ApiKey::Produce)?;
    if version < 7 && spec.batches.is_zstd() {
        return Err(ClientError::Unfit("the broker is too old for zstd".to_owned()));
    }
    let timer = Timer::new().map_err(|error| ClientError::Unfit(format!("no timer: {error}")))?;
    let partition = PartitionProduceData::default();
    let topic = TopicProduceData { name: spec.topic.clone().into(), topic_id: spec.topic_id, partition_data: vec![partition] };
    let request = ProduceRequest {
        acks: spec.acks,
        timeout_ms: lane.shared.timeout.as_millis().try_into().unwrap_or(i32::MAX),
        topic_data: vec![topic],
        ..Default::default()
    };
    let Some(times) = lane.started().await else { return Ok(LaneReport::default()) };
    let pace = spec.pace.map(|(rate, at, lanes, linger_ns)| Pace::new(times.start_ns, rate, at, lanes, linger_ns));
    let slots = spec.in_flight;
    let turn = spec.producer as usize % spec.partitions.len();
    let mut producer = Producer {
        lane,
        connection,
        version,
        request,
        encoder: Encoder::new(),
        requests: vec![Request::default(); slots],
        free: (0..slots).rev().collect(),
        waiting: VecDeque::with_capacity(slots),
        failed: Vec::new(),
        retry: Retry::new(spec.retry_for, u64::from(spec.producer)),
        outgoing: VecDeque::with_capacity(slots),
        spare: Vec::new(),
        turn,
        order: 0,
        times,
        pace,
        unblocked_ns: times.start_ns,
        stopped: false,
        last: None,
        report: LaneReport::default(),
        spec,
    };
    let ended = producer.go(&timer).await;
    let unsent = producer.pace.as_ref().zip(times.deadline_ns);
    let unsent = unsent.map_or(0, |(pace, deadline)| if producer.stopped { 0 } else { pace.backlog(deadline - 1) });
    producer.report.error("never sent: the broker could not keep up with the rate", unsent);
    ended.map(|()| producer.report)
}

impl Producer {
    async fn go(&mut self, timer: &Timer) -> Result<(), ClientError> {
        loop {
            if self.observe() {
                return Ok(());
            }
            match self.step(timer).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    if self.recover(error).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Takes note of the phase; whether to end at once.
    fn observe(&mut self) -> bool {
        match self.lane.signal.borrow_and_update().phase {
            Phase::Connect | Phase::Run(_) => false,
            Phase::Drain | Phase::CatchUp(_) => {
                self.stopped = true;
                false
            }
            Phase::Abort => true,
        }
    }

    /// Sends what can be sent, waits for something to happen and sees to it. Whether all is done.
    async fn step(&mut self, timer: &Timer) -> Result<bool, ClientError> {
        let now_ns = self.lane.shared.clock.now_ns();
        self.lane.record(|recorder| recorder.turn(now_ns));
        self.resend(now_ns);
        let wake_ns = self.enqueue(now_ns);
        let queued = !self.outgoing.is_empty();
        self.write()?;
        // Without acknowledgements nothing but the socket says when there is room for more.
        let again = self.spec.acks == 0 && queued && self.outgoing.is_empty();
        self.check_timeout(now_ns)?;
        let idle = self.waiting.is_empty() && self.outgoing.is_empty() && self.failed.is_empty();
        if idle && !again && wake_ns.is_none() && (self.free.len() == self.requests.len()) {
            return Ok(true);
        }
        let blocked_writing = !self.outgoing.is_empty();
        let address = self.connection.address;
        let now_ns = self.lane.shared.clock.now_ns();
        tokio::select! {
            biased;
            read = self.connection.incoming.fill(&mut self.connection.reader) => {
                if read.map_err(|error| gone(address, &error))? == 0 {
                    let why = if self.spec.acks == 0 { ", as brokers do where a batch without acknowledgement is refused" } else { "" };
                    return Err(ClientError::Gone { address, how: format!("closes the connection{why}") });
                }
                self.answers()?;
            }
            () = tokio::task::yield_now(), if again => {}
            ready = self.connection.writer.writable(), if blocked_writing => {
                ready.map_err(|error| gone(address, &error))?;
                self.unblocked_ns = self.lane.shared.clock.now_ns();
            }
            () = timer.wait_ns(wake_ns.unwrap_or(0).saturating_sub(now_ns)), if wake_ns.is_some() => {}
            changed = self.lane.signal.changed() => {
                if changed.is_err() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Makes requests of what is due. Returns when more will be, where only time stands in the way.
    fn enqueue(&mut self, now_ns: u64) -> Option<u64> {
        if self.retry.is_failing() && !(self.failed.is_empty() && self.waiting.is_empty()) {
            return (!self.failed.is_empty() && self.waiting.is_empty()).then_some(self.retry.next_ns());
        }
        if let Some(records) = self.last {
            if !self.waiting.is_empty() || !self.outgoing.is_empty() {
                return None;
            }
            self.last = None;
            self.make(records, now_ns, true);
        }
        loop {
            if self.stopped {
                return None;
            }
            let full = self.spec.batch_records as u64;
            let wanted = match (&self.pace, self.times.deadline_ns) {
                (None, Some(deadline)) if now_ns >= deadline => return None,
                (None, _) => full,
                (Some(pace), deadline) => {
                    // What was due by the end is sent, late as it may be.
                    let over = |ns: u64| deadline.is_some_and(|deadline| ns >= deadline);
                    let first_ns = pace.intended_ns(pace.next());
                    let overtime = OVERTIME_NS + deadline.unwrap_or(0).saturating_sub(self.times.start_ns);
                    if over(first_ns) || deadline.is_some_and(|deadline| now_ns > deadline + overtime) {
                        return None;
                    }
                    let mut ready = pace.ready(now_ns, full);
                    if let Some(deadline) = deadline.filter(|deadline| now_ns >= *deadline) {
                        ready = pace.backlog(deadline - 1).min(full);
                    }
                    if ready == 0 {
                        return Some(pace.next_ns(full));
                    }
                    ready
                }
            };
            if self.free.is_empty() {
                return None;
            }
            if self.lane.shared.budget.is_spent() {
                return None;
            }
            let measured = now_ns >= self.times.measure_ns;
            let records = if measured { self.lane.shared.budget.take(wanted, self.spec.value_bytes as u64) } else { wanted };
            if records == 0 {
                return None;
            }
            if records < full && self.spec.batches.is_shared() && !(self.waiting.is_empty() && self.outgoing.is_empty()) {
                // It is made in the buffer of those under way.
                self.last = Some(records);
                return None;
            }
            self.make(records, now_ns, measured);
        }
    }

    /// Makes one request.
    fn make(&mut self, records: u64, now_ns: u64, measured: bool) {
        let Some(slot) = self.free.pop() else { return };
        let partition_at = self.choose();
        let partition = self.spec.partitions[partition_at];
        let sequence = {
            let mut ledger = self.spec.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let ledger = &mut ledger[partition_at];
            let sequence = ledger.sent;
            ledger.sent += records;
            sequence
        };
        let paced = self.pace.as_ref().map_or(0, Pace::next);
        if let Some(pace) = &mut self.pace {
            let ready_ns = pace.next_ns(self.spec.batch_records as u64);
            if now_ns.saturating_sub(ready_ns.max(self.unblocked_ns)) > LATE_NS {
                self.report.late += records;
            }
            self.report.paced += records;
            pace.advance(records);
        }
        let pace = self.pace.as_ref();
        let fill = Fill {
            records: records as usize,
            partition,
            sequence,
            idempotent: self.spec.idempotent,
            sent_ns: |at| pace.map_or(now_ns, |pace| pace.intended_ns(paced + at)),
            now_ms: wall_ms(),
            keys: self.spec.keys.as_mut(),
        };
        let bytes = self.spec.batches.fill(slot, fill);
        let order = self.order;
        self.order += 1;
        self.requests[slot] =
            Request { correlation_id: 0, order, partition_at, records, bytes, sequence, paced, sent_ns: now_ns, measured };
        self.queue(slot);
    }

    /// The partition of the next batch.
    fn choose(&mut self) -> usize {
        if let Some(keys) = &mut self.spec.keys {
            // Of all partitions some may be another connection's, where there are several brokers.
            for _ in 0..1000 {
                let partition = keys.next_partition().cast_signed();
                if let Ok(at) = self.spec.partitions.binary_search(&partition) {
                    return at;
                }
            }
        }
        self.turn = (self.turn + 1) % self.spec.partitions.len();
        self.turn
    }

    /// Encodes the frame around a slot's batch and queues it.
    fn queue(&mut self, slot: usize) {
        let correlation_id = self.connection.next_correlation_id();
        let request = &mut self.requests[slot];
        request.correlation_id = correlation_id;
        let data = &mut self.request.topic_data[0].partition_data[0];
        data.index = self.spec.partitions[request.partition_at];
        data.records = Records::Hole(request.bytes);
        let encoder = &mut self.encoder;
        encoder.clear();
        let start = begin_request(encoder, &header(ApiKey::Produce, self.version, correlation_id));
        self.request.encode(encoder, self.version);
        finish_frame(encoder, start);
        let split = encoder.holes().first().map_or(encoder.buffer().len(), |hole| hole.position);
        let mut around = self.spare.pop().unwrap_or_default();
        around.clear();
        around.extend_from_slice(encoder.buffer());
        self.outgoing.push_back(Outgoing { slot, around, split, written: 0 });
        if self.spec.acks != 0 {
            self.waiting.push_back(slot);
        }
    }

    /// Writes as much as the socket takes.
    fn write(&mut self) -> Result<(), ClientError> {
        while !self.outgoing.is_empty() {
            let mut slices = [IoSlice::new(&[]); 3 * FRAMES_PER_WRITE_MAX];
            let mut count = 0;
            for frame in self.outgoing.iter().take(FRAMES_PER_WRITE_MAX) {
                let mut skip = frame.written;
                let batch = self.spec.batches.bytes(frame.slot);
                for part in [&frame.around[..frame.split], batch, &frame.around[frame.split..]] {
                    let skipped = skip.min(part.len());
                    skip -= skipped;
                    if skipped < part.len() {
                        slices[count] = IoSlice::new(&part[skipped..]);
                        count += 1;
                    }
                }
            }
            match self.connection.writer.try_write_vectored(&slices[..count]) {
                Ok(written) => self.wrote(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(gone(self.connection.address, &error)),
            }
        }
        Ok(())
    }

    fn wrote(&mut self, mut written: usize) {
        while let Some(frame) = self.outgoing.front_mut() {
            let whole = frame.around.len() + self.requests[frame.slot].bytes;
            let part = written.min(whole - frame.written);
            frame.written += part;
            written -= part;
            if frame.written < whole {
                return;
            }
            let Some(frame) = self.outgoing.pop_front() else { return };
            self.spare.push(frame.around);
            if self.spec.acks == 0 {
                let now_ns = self.lane.shared.clock.now_ns();
                self.acknowledge(frame.slot, now_ns);
            }
        }
    }

    /// Takes the answers that are here.
    fn answers(&mut self) -> Result<(), ClientError> {
        let address = self.connection.address;
        let nonsense = |why: String| ClientError::Nonsense { address, api: ApiKey::Produce, why };
        let now_ns = self.lane.shared.clock.now_ns();
        if self.free.is_empty() || self.retry.is_failing() {
            self.unblocked_ns = now_ns;
        }
        loop {
            let (code, words) = {
                let Some(frame) = self.connection.incoming.next().map_err(nonsense)? else { return Ok(()) };
                let Some(&slot) = self.waiting.front() else { return Err(nonsense("no request awaits it".to_owned())) };
                let request = &self.requests[slot];
                let mut decoder = Decoder::new(frame);
                let undecodable = || ClientError::undecodable(address, ApiKey::Produce);
                let answered = ResponseHeader::decode(&mut decoder, ApiKey::Produce, self.version).map_err(undecodable())?;
                if answered.correlation_id != request.correlation_id {
                    return Err(nonsense(format!(
                        "it answers request {}, not {}",
                        answered.correlation_id, request.correlation_id
                    )));
                }
                let response = ProduceResponse::decode(&mut decoder, self.version).map_err(undecodable())?;
                let partition = self.spec.partitions[request.partition_at];
                let mut all = response.responses.iter().flat_map(|topic| &topic.partition_responses);
                let Some(found) = all.find(|found| found.index == partition) else {
                    return Err(nonsense(format!("it does not mention partition {partition}")));
                };
                (found.error_code, found.error_message.as_deref().map(str::to_owned))
            };
            let Some(slot) = self.waiting.pop_front() else { return Ok(()) };
            match code {
                ErrorCode::NONE | ErrorCode::DUPLICATE_SEQUENCE_NUMBER => {
                    self.acknowledge(slot, now_ns);
                    if self.failed.is_empty() {
                        self.retry.succeeded();
                    }
                }
                code => self.refused(slot, code, words.as_deref(), now_ns)?,
            }
        }
    }

    /// A batch was acknowledged, or without acknowledgements, sent.
    fn acknowledge(&mut self, slot: usize, now_ns: u64) {
        let request = &self.requests[slot];
        if self.spec.acks != 0 {
            let mut ledger = self.spec.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger[request.partition_at].acknowledged.insert(request.sequence, request.sequence + request.records);
        }
        if request.measured {
            self.lane.record(|recorder| {
                recorder.count(request.sent_ns, now_ns, request.records, request.bytes as u64);
                match &self.pace {
                    None => recorder.latency(now_ns - request.sent_ns, 1),
                    Some(pace) => {
                        for at in 0..request.records {
                            recorder.latency(now_ns.saturating_sub(pace.intended_ns(request.paced + at)), 1);
                        }
                    }
                }
            });
        }
        self.free.push(slot);
    }

    /// A batch was refused: it is sent again where that may help and is asked for.
    fn refused(&mut self, slot: usize, code: ErrorCode, words: Option<&str>, now_ns: u64) -> Result<(), ClientError> {
        let partition = self.spec.partitions[self.requests[slot].partition_at];
        // Batches behind one that failed have no place in the producer's sequence until that has been sent again.
        let follows = code == ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER && !self.failed.is_empty();
        let error = ClientError::refused(ApiKey::Produce, format!("to partition {}-{partition}", self.spec.topic), code, words);
        self.report.failed(&error);
        if !(code.is_retriable() || follows) || !self.retry.failed(now_ns) {
            self.waiting.push_front(slot);
            return Err(error);
        }
        self.failed.push(slot);
        Ok(())
    }

    /// Sends again, in their order, what has failed, once nothing else is under way.
    fn resend(&mut self, now_ns: u64) {
        if self.failed.is_empty() || !self.waiting.is_empty() || now_ns < self.retry.next_ns() {
            return;
        }
        let mut failed = std::mem::take(&mut self.failed);
        failed.sort_unstable_by_key(|slot| self.requests[*slot].order);
        for slot in failed {
            let request = &self.requests[slot];
            let mut ledger = self.spec.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger[request.partition_at].repeated.insert(request.sequence, request.sequence + request.records);
            drop(ledger);
            self.queue(slot);
        }
        self.unblocked_ns = now_ns;
    }

    fn check_timeout(&mut self, now_ns: u64) -> Result<(), ClientError> {
        let Some(&oldest) = self.waiting.front() else { return Ok(()) };
        let since_ns = now_ns.saturating_sub(self.requests[oldest].sent_ns.max(self.unanswered_since()));
        let limit_ns = self.lane.shared.timeout.as_nanos() as u64;
        if since_ns > limit_ns {
            let (address, api) = (self.connection.address, ApiKey::Produce);
            return Err(ClientError::Silent { address, api, seconds: since_ns as f64 / 1e9 });
        }
        Ok(())
    }

    /// What was sent again waits since then.
    fn unanswered_since(&self) -> u64 {
        if self.retry.is_failing() { self.unblocked_ns } else { 0 }
    }

    /// After a connection was lost: a new one, in the time there is; all that was not acknowledged is sent again. Whether the run
    /// was told to end at once instead.
    async fn recover(&mut self, error: ClientError) -> Result<bool, ClientError> {
        if matches!(error, ClientError::Refused { .. }) {
            return Err(error);
        }
        self.report.failed(&error);
        if !error.is_passing() {
            return Err(error);
        }
        let Some(connection) = reconnect(&mut self.retry, &mut self.lane, self.spec.leader, error).await? else {
            return Ok(true);
        };
        self.version = connection.versions.of(ApiKey::Produce)?;
        self.connection = connection;
        self.unblocked_ns = self.lane.shared.clock.now_ns();
        self.outgoing.clear();
        self.failed.extend(self.waiting.drain(..));
        if self.failed.is_empty() {
            self.retry.succeeded();
        }
        Ok(false)
    }
}
