//! One consumer's connection to one broker: fetches its partitions in turn with the answers, looks at batch headers alone unless
//! the run wants more, and never asks for the next before it knows where that begins. After a broker that went away it goes on
//! where it was.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringlog_engine::batch::{BatchView, batches};
use ringlog_protocol::api::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use ringlog_protocol::{ApiKey, Decoder, Encoder, ErrorCode, ResponseHeader, Uuid, begin_request, finish_frame};
use tokio::io::AsyncWriteExt;

use super::client::{ClientError, Connection, gone, header};
use super::content::Stamp;
use super::control::{Lane, LaneReport, Phase, Times};
use super::retry::{Retry, reconnect};
use super::verify::Tracker;

/// What a broker may send over what was asked for: the batch that is larger than that (KIP-74), and the frame around.
const ANSWER_EXCESS_BYTES: usize = 110 << 20;
/// What a compressed batch may come to.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// What a consumer's connection is made of.
#[derive(Debug)]
pub(crate) struct ConsumerSpec {
    /// Where the leader of its partitions is.
    pub leader: SocketAddr,
    /// The topic.
    pub topic: String,
    /// The topic's id.
    pub topic_id: Uuid,
    /// The partitions by number, all led there, and where to start in each.
    pub partitions: Vec<(i32, i64)>,
    /// Where what was there at the start ends, by the order of `partitions`; without producers the end of the run, or the place
    /// to begin again.
    pub ends: Option<Vec<i64>>,
    /// Whether to begin again at the end.
    pub again: bool,
    /// What a fetch waits for.
    pub bytes_min: i32,
    /// The most bytes of a fetch.
    pub bytes_max: i32,
    /// How long a fetch waits.
    pub wait_ms: i32,
    /// Whether latency is that of records, by their stamps.
    pub end_to_end: bool,
    /// What looks at every record.
    pub tracker: Option<Tracker>,
    /// How long to reconnect and ask again.
    pub retry_for: Duration,
}

struct Consumer {
    spec: ConsumerSpec,
    lane: Lane,
    connection: Connection,
    version: i16,
    request: FetchRequest<'static>,
    encoder: Encoder,
    /// The next offset of each partition.
    next: Vec<i64>,
    correlation_id: i32,
    sent_ns: u64,
    /// When an answer last brought something.
    progressed_ns: u64,
    times: Times,
    /// Where to end, once producers have.
    until: Option<Arc<Vec<i64>>>,
    stopped: bool,
    retry: Retry,
    report: LaneReport,
    /// What the answer that is being read brought.
    records: u64,
    bytes: u64,
}

/// Runs a consumer to its end.
///
/// # Errors
/// What the broker does that a run cannot go on with.
pub(crate) async fn run(spec: ConsumerSpec, mut lane: Lane) -> Result<LaneReport, ClientError> {
    let connection = Connection::open(spec.leader, lane.shared.timeout).await?;
    let request = FetchRequest {
        replica_id: -1,
        max_wait_ms: spec.wait_ms,
        min_bytes: spec.bytes_min,
        max_bytes: spec.bytes_max,
        session_epoch: -1,
        topics: vec![FetchTopic { topic: spec.topic.clone().into(), topic_id: spec.topic_id, partitions: Vec::new() }],
        ..Default::default()
    };
    let Some(times) = lane.started().await else { return Ok(LaneReport::default()) };
    let progressed_ns = lane.shared.clock.now_ns();
    let mut consumer = Consumer {
        next: spec.partitions.iter().map(|(_, offset)| *offset).collect(),
        lane,
        connection,
        version: 0,
        request,
        encoder: Encoder::new(),
        correlation_id: 0,
        sent_ns: 0,
        progressed_ns,
        times,
        until: None,
        stopped: false,
        // Any seed does, that is not everyone's.
        retry: Retry::new(spec.retry_for, progressed_ns),
        report: LaneReport::default(),
        records: 0,
        bytes: 0,
        spec,
    };
    let ended = match consumer.take_up() {
        Ok(()) => consumer.go().await,
        Err(error) => Err(error),
    };
    let partitions = consumer.spec.partitions.iter().map(|(index, _)| *index).collect();
    consumer.report.tracker = consumer.spec.tracker.take().map(|tracker| (tracker, partitions));
    ended.map(|()| consumer.report)
}

impl Consumer {
    async fn go(&mut self) -> Result<(), ClientError> {
        loop {
            self.observe();
            if self.stopped || self.is_done() {
                return Ok(());
            }
            let heard = match self.ask().await {
                Ok(()) => self.hear().await,
                Err(error) => Err(error),
            };
            if let Err(error) = heard {
                self.recover(error).await?;
                continue;
            }
            if self.stopped {
                return Ok(());
            }
            if let Some(stalled) = self.stalled() {
                // With a tracker, what is missing is found out and counted.
                return if self.spec.tracker.is_some() { Ok(()) } else { Err(stalled) };
            }
        }
    }

    /// Makes the connection one for fetches.
    fn take_up(&mut self) -> Result<(), ClientError> {
        self.version = self.connection.versions.of(ApiKey::Fetch)?;
        self.connection.incoming.set_frame_bytes_max(self.spec.bytes_max as usize + ANSWER_EXCESS_BYTES);
        Ok(())
    }

    /// After what may pass: a pause, or a new connection, in the time there is.
    async fn recover(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.report.failed(&error);
        // As Kafka's consumer: what the broker finds damaged on its disk will not be whole the next time.
        let damaged = matches!(error, ClientError::Refused { code: ErrorCode::CORRUPT_MESSAGE, .. });
        if damaged || !error.is_passing() {
            return Err(error);
        }
        if matches!(error, ClientError::Refused { .. }) {
            if !self.retry.failed(self.lane.shared.clock.now_ns()) {
                return Err(error);
            }
            self.stopped |= self.lane.pause_until(self.retry.next_ns()).await;
        } else {
            match reconnect(&mut self.retry, &mut self.lane, self.spec.leader, error).await? {
                Some(connection) => {
                    self.connection = connection;
                    self.take_up()?;
                }
                None => self.stopped = true,
            }
        }
        self.progressed_ns = self.lane.shared.clock.now_ns();
        Ok(())
    }

    /// Whether answers have brought nothing for too long, although there is something below the end that the broker told.
    fn stalled(&self) -> Option<ClientError> {
        if self.spec.ends.is_none() && self.until.is_none() {
            return None;
        }
        let waited_ns = self.lane.shared.clock.now_ns().saturating_sub(self.progressed_ns);
        if waited_ns <= self.patience_ns() {
            return None;
        }
        let address = self.connection.address;
        let seconds = waited_ns as f64 / 1e9;
        let why = format!("no record below the end of the partitions for {seconds:.1} s");
        Some(ClientError::Nonsense { address, api: ApiKey::Fetch, why })
    }

    fn patience_ns(&self) -> u64 {
        self.lane.shared.timeout.as_nanos() as u64 + self.spec.wait_ms as u64 * 1_000_000
    }

    fn observe(&mut self) {
        match &self.lane.signal.borrow_and_update().phase {
            Phase::Connect | Phase::Run(_) => {}
            // Without producers there is nothing to catch up with.
            Phase::Drain => self.stopped |= self.spec.ends.is_some(),
            Phase::CatchUp(until) => {
                if self.until.is_none() {
                    self.progressed_ns = self.lane.shared.clock.now_ns();
                }
                self.until = Some(until.clone());
            }
            Phase::Abort => self.stopped = true,
        }
    }

    /// Whether all is read; begins again where that is wanted.
    fn is_done(&mut self) -> bool {
        if self.lane.shared.budget.is_spent() && self.spec.ends.is_some() {
            return true;
        }
        if let Some(until) = &self.until {
            let at_end = |(at, (index, _)): (usize, &(i32, i64))| self.next[at] >= until[*index as usize];
            return self.spec.partitions.iter().enumerate().all(at_end);
        }
        let Some(ends) = &self.spec.ends else { return false };
        if self.times.deadline_ns.is_some_and(|deadline| self.lane.shared.clock.now_ns() >= deadline) {
            return true;
        }
        if self.next.iter().zip(ends).any(|(next, end)| next < end) {
            return false;
        }
        for (next, (_, start)) in self.next.iter_mut().zip(&self.spec.partitions) {
            *next = *start;
        }
        !self.spec.again
    }

    /// Sends a fetch of all partitions that are not at their end.
    async fn ask(&mut self) -> Result<(), ClientError> {
        let wanted = &mut self.request.topics[0].partitions;
        wanted.clear();
        let ends = self.spec.ends.as_deref();
        for (at, (index, _)) in self.spec.partitions.iter().enumerate() {
            if ends.is_none_or(|ends| self.next[at] < ends[at]) {
                wanted.push(FetchPartition {
                    partition: *index,
                    current_leader_epoch: -1,
                    fetch_offset: self.next[at],
                    last_fetched_epoch: -1,
                    log_start_offset: -1,
                    partition_max_bytes: self.spec.bytes_max,
                    high_watermark: i64::MAX,
                    ..Default::default()
                });
            }
        }
        // The first of an answer's partitions gets the most of it, so each has its turn at the front.
        let turn = self.correlation_id as usize % wanted.len().max(1);
        wanted.rotate_left(turn);
        self.correlation_id = self.connection.next_correlation_id();
        self.encoder.clear();
        let start = begin_request(&mut self.encoder, &header(ApiKey::Fetch, self.version, self.correlation_id));
        self.request.encode(&mut self.encoder, self.version);
        finish_frame(&mut self.encoder, start);
        self.sent_ns = self.lane.shared.clock.now_ns();
        let address = self.connection.address;
        self.connection.writer.write_all(self.encoder.buffer()).await.map_err(|error| gone(address, &error))
    }

    /// Waits for the answer and takes it.
    async fn hear(&mut self) -> Result<(), ClientError> {
        let address = self.connection.address;
        let nonsense = |why: String| ClientError::Nonsense { address, api: ApiKey::Fetch, why };
        let patience_ns = self.patience_ns();
        while !self.connection.incoming.has_frame().map_err(nonsense)? {
            tokio::select! {
                biased;
                read = self.connection.incoming.fill(&mut self.connection.reader) => {
                    if read.map_err(|error| gone(address, &error))? == 0 {
                        return Err(ClientError::Gone { address, how: "closes the connection".to_owned() });
                    }
                }
                changed = self.lane.signal.changed() => {
                    self.observe();
                    if changed.is_err() || self.stopped {
                        self.stopped = true;
                        return Ok(());
                    }
                    if self.until.is_some() && self.is_done() {
                        self.stopped = true;
                        return Ok(());
                    }
                    let now_ns = self.lane.shared.clock.now_ns();
                    self.lane.record(|recorder| recorder.turn(now_ns));
                    let since_ns = now_ns.saturating_sub(self.sent_ns);
                    if since_ns > patience_ns {
                        return Err(ClientError::Silent { address, api: ApiKey::Fetch, seconds: since_ns as f64 / 1e9 });
                    }
                }
            }
        }
        self.take()
    }

    fn take(&mut self) -> Result<(), ClientError> {
        let address = self.connection.address;
        let nonsense = |why: String| ClientError::Nonsense { address, api: ApiKey::Fetch, why };
        let now_ns = self.lane.shared.clock.now_ns();
        (self.records, self.bytes) = (0, 0);
        let Some(frame) = self.connection.incoming.next().map_err(nonsense)? else { return Ok(()) };
        let mut decoder = Decoder::new(frame);
        let undecodable = || ClientError::undecodable(address, ApiKey::Fetch);
        let answered = ResponseHeader::decode(&mut decoder, ApiKey::Fetch, self.version).map_err(undecodable())?;
        if answered.correlation_id != self.correlation_id {
            return Err(nonsense(format!("it answers request {}, not {}", answered.correlation_id, self.correlation_id)));
        }
        let response = FetchResponse::decode(&mut decoder, self.version).map_err(undecodable())?;
        let refused = |of: String, code: ErrorCode| ClientError::refused(ApiKey::Fetch, of, code, None);
        if response.error_code != ErrorCode::NONE {
            return Err(refused(String::new(), response.error_code));
        }
        let mut failed = None;
        let mut taken = Taken {
            records: 0,
            bytes: 0,
            measured: self.sent_ns >= self.times.measure_ns,
            now_ns,
            lane: &self.lane,
            end_to_end: self.spec.end_to_end,
            tracker: self.spec.tracker.as_mut(),
        };
        for partition in response.responses.iter().flat_map(|topic| &topic.partitions) {
            let index = partition.partition_index;
            let Ok(at) = self.spec.partitions.binary_search_by_key(&index, |(ours, _)| *ours) else {
                return Err(nonsense(format!("it brings partition {index}, which was not asked for")));
            };
            if partition.error_code != ErrorCode::NONE {
                failed = failed.or(Some(refused(format!("of partition {}-{index}", self.spec.topic), partition.error_code)));
                continue;
            }
            if let Some(bytes) = partition.records.bytes() {
                let next = taken.batches(index, self.next[at], bytes).map_err(nonsense)?;
                if next > self.next[at] {
                    self.progressed_ns = now_ns;
                }
                self.next[at] = next;
            }
        }
        let (records, bytes, measured) = (taken.records, taken.bytes, taken.measured);
        if measured && bytes > 0 {
            // Beside producers, what they send is the amount.
            if self.spec.ends.is_some() {
                self.lane.shared.budget.spend(records, bytes);
            }
            self.lane.record(|recorder| {
                recorder.count(self.sent_ns, now_ns, records, bytes);
                if !self.spec.end_to_end {
                    recorder.latency(now_ns - self.sent_ns, 1);
                }
            });
        }
        if let Some(failed) = failed {
            return Err(failed);
        }
        self.retry.succeeded();
        Ok(())
    }
}

/// What is taken out of one answer.
struct Taken<'a> {
    records: u64,
    bytes: u64,
    measured: bool,
    now_ns: u64,
    lane: &'a Lane,
    end_to_end: bool,
    tracker: Option<&'a mut Tracker>,
}

impl Taken<'_> {
    /// Takes one partition's batches from offset `next` on; returns the offset behind them.
    fn batches(&mut self, partition: i32, next: i64, bytes: &[u8]) -> Result<i64, String> {
        let mut position = next;
        let mut all = batches(bytes);
        for (number, batch) in all.by_ref().enumerate() {
            let batch = batch.map_err(|error| format!("partition {partition} at offset {position}: {error}"))?;
            let header = batch.header();
            let (base, end) = (header.base_offset.0, header.next_offset().0);
            // The first batch holds the offset asked for, which need not be its first; every other follows the one before.
            let follows = if number == 0 { end > position } else { base >= position };
            if !follows {
                return Err(format!("partition {partition}: offsets {base} to {} where {position} or more is due", end - 1));
            }
            let before = (position - base).clamp(0, i64::from(header.record_count.max(0)));
            self.records += (i64::from(header.record_count) - before).max(0) as u64;
            self.bytes += batch.bytes().len() as u64;
            if self.end_to_end || self.tracker.is_some() {
                self.look_inside(partition, position, &batch);
            }
            position = end;
        }
        if position == next && !bytes.is_empty() {
            return Err(format!("partition {partition}: {} bytes without a whole batch", bytes.len()));
        }
        Ok(position)
    }

    fn look_inside(&mut self, partition: i32, from: i64, batch: &BatchView<'_>) {
        let header = batch.header();
        if header.attributes.is_control() {
            return;
        }
        let damaged_before = self.tracker.as_deref().map(Tracker::damaged);
        self.look_at_records(partition, from, batch);
        if let Some(tracker) = self.tracker.as_deref_mut()
            && damaged_before == Some(tracker.damaged())
            && batch.check_crc().is_err()
        {
            tracker.bad_crc(partition, header.base_offset.0);
        }
    }

    fn look_at_records(&mut self, partition: i32, from: i64, batch: &BatchView<'_>) {
        let header = batch.header();
        let records = match batch.records(BATCH_BYTES_MAX) {
            Ok(records) => records,
            Err(error) => {
                if let Some(tracker) = self.tracker.as_deref_mut() {
                    tracker.unreadable(partition, header.base_offset.0, &error.to_string());
                }
                return;
            }
        };
        for record in &records {
            match record {
                Ok(record) => {
                    let offset = header.offset_of(&record).0;
                    if offset < from {
                        continue;
                    }
                    if let Some(tracker) = self.tracker.as_deref_mut() {
                        tracker.take(partition, offset, &record);
                    }
                    if self.end_to_end
                        && self.measured
                        && let Some(stamp) = record.value.and_then(Stamp::read)
                    {
                        self.lane.record(|recorder| recorder.latency(self.now_ns.saturating_sub(stamp.sent_ns), 1));
                    }
                }
                Err(error) => {
                    if let Some(tracker) = self.tracker.as_deref_mut() {
                        tracker.unreadable(partition, header.base_offset.0, &error.to_string());
                    }
                    return;
                }
            }
        }
    }
}
