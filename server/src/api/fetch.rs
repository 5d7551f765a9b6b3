//! Fetch: plans a read of each partition from its published state on the connection's own core, waits on the partitions while
//! there is too little, and answers with ranges of tail memory and files. Nothing is copied.
//!
//! Fetch sessions (KIP-227) are never opened: every answer says session 0, and clients ask for everything each time.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::core::{Core, Message, Partition, Watcher};
use ringlog_engine::disk::File;
use ringlog_engine::log::published::Segment;
use ringlog_engine::log::read::{ReadRange, Source as ReadSource};
use ringlog_engine::types::{LeaderEpoch, Offset, TopicId};
use ringlog_protocol::api::fetch::{
    EpochEndOffset, FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopicResponse, LeaderIdAndEpoch,
    NodeEndpoint, PartitionData,
};
use ringlog_protocol::{ErrorCode, Records};
use smallvec::SmallVec;

use super::{Api, check_leader_epoch, decode, reply, respond};
use crate::broker::{Topic, Topics};
use crate::net::{FileRange, Outcome, RequestContext, Response, Source, TailRange};

/// A response is a frame, whose size is 31 bits; this leaves room for one batch over the limit.
const RESPONSE_BYTES_MAX: u64 = 1 << 30;
/// From here on topics are given by id.
const TOPIC_ID_VERSION_MIN: i16 = 13;
/// From here on errors about leaders say who leads and where (KIP-951).
const LEADER_VERSION_MIN: i16 = 16;
/// Reads what has been committed to transactions only.
const READ_COMMITTED: i8 = 1;

/// What a partition is answered.
struct Part {
    /// The partition, to be watched; `None` where there is none.
    partition: Option<Arc<Partition>>,
    error: ErrorCode,
    high_watermark: Offset,
    last_stable: Offset,
    log_start: Offset,
    /// Where the epoch that the client read last ends here, if its log has parted from this one (KIP-595).
    diverging: Option<(LeaderEpoch, Offset)>,
    ranges: SmallVec<[ReadRange; 4]>,
    bytes: u64,
}

impl Part {
    fn new(partition: Option<Arc<Partition>>, error: ErrorCode) -> Self {
        let none = Offset(-1);
        Self {
            partition,
            error,
            high_watermark: none,
            last_stable: none,
            log_start: none,
            diverging: None,
            ranges: SmallVec::new(),
            bytes: 0,
        }
    }

    /// Whether a wait may follow: nothing that the client should hear at once.
    fn is_quiet(&self) -> bool {
        self.error.is_none() && self.diverging.is_none()
    }
}

/// What a whole request is answered at one moment.
struct Round {
    parts: Vec<Part>,
    bytes: u64,
}

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: FetchRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    // -1 wants no session, 0 a new one; anything else goes on with one that was opened, and none ever was.
    if !matches!(request.session_epoch, -1 | 0) {
        let error_code = ErrorCode::FETCH_SESSION_ID_NOT_FOUND;
        return reply(&context, &FetchResponse { error_code, ..FetchResponse::default() });
    }
    let round = gather(&api, &context, &request).await;
    Outcome::Reply(respond(&api, &context, &request, round))
}

/// Reads, and waits for more as the request says: until there is enough, an error to tell, or the time is up; or until nobody is
/// there any more who would hear it.
async fn gather(api: &Api, context: &RequestContext, request: &FetchRequest<'_>) -> Round {
    let mut round = plan(api, context, request, None).await;
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let bytes_min = u64::try_from(request.min_bytes).unwrap_or(0).min(bytes_max(api, request));
    let is_enough = |round: &Round| round.bytes >= bytes_min || round.parts.is_empty() || !round.parts.iter().all(Part::is_quiet);
    if wait.is_zero() || is_enough(&round) {
        return round;
    }
    let mut deadline = api.core.core.env.sleep(wait);
    let watcher = Arc::new(Watcher::default());
    let mut watched: Vec<Option<Offset>> = vec![None; round.parts.len()];
    loop {
        for (part, watched) in round.parts.iter().zip(&mut watched) {
            // A watch goes off once; where nothing has changed it is still set.
            if let Some(partition) = &part.partition
                && *watched != Some(part.high_watermark)
            {
                *watched = Some(part.high_watermark);
                watch(api, partition, part.high_watermark, &watcher);
            }
        }
        let is_late = {
            let (mut changed, mut gone) = (pin!(watcher.changed()), pin!(context.connection.gone.wait()));
            poll_fn(|cx| match changed.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(false),
                Poll::Pending if gone.as_mut().poll(cx).is_ready() => Poll::Ready(true),
                Poll::Pending => deadline.as_mut().poll(cx).map(|()| true),
            })
            .await
        };
        round = plan(api, context, request, Some(round)).await;
        if is_late || is_enough(&round) {
            return round;
        }
    }
}

fn watch(api: &Api, partition: &Partition, seen: Offset, watcher: &Arc<Watcher>) {
    if partition.core == api.core.core.index {
        api.core.core.watch(partition.id, seen, watcher.clone());
    } else {
        api.outbox.send(partition.core, Message::Watch(partition.id, seen, watcher.clone()));
    }
}

/// The most bytes of records in the answer, but for the first batch.
fn bytes_max(api: &Api, request: &FetchRequest<'_>) -> u64 {
    let bytes = request.max_bytes.min(api.core.broker.config.options.fetch_max_bytes);
    u64::try_from(bytes).unwrap_or(0).min(RESPONSE_BYTES_MAX)
}

/// Plans the reads of all partitions, in the order of the request. `before` is what was planned last, to keep what has not changed.
async fn plan(api: &Api, context: &RequestContext, request: &FetchRequest<'_>, before: Option<Round>) -> Round {
    let topics = api.topics().clone();
    let mut before = before.map(|round| round.parts.into_iter());
    let bytes_max = bytes_max(api, request);
    let mut round =
        Round { parts: Vec::with_capacity(request.topics.iter().map(|topic| topic.partitions.len()).sum()), bytes: 0 };
    for topic in &request.topics {
        let found = find_topic(&topics, context.api_version, topic);
        for wanted in &topic.partitions {
            let last = before.as_mut().and_then(Iterator::next);
            let partition = match find_partition(request, found, wanted) {
                Ok(partition) => partition,
                Err(error) => {
                    round.parts.push(Part::new(None, error));
                    continue;
                }
            };
            let part = match last {
                Some(last) if is_unchanged(&last, partition) => last,
                _ => {
                    let limit = u64::try_from(wanted.partition_max_bytes).unwrap_or(0).min(bytes_max.saturating_sub(round.bytes));
                    read(api, partition, wanted, limit, round.bytes == 0).await
                }
            };
            round.bytes += part.bytes;
            round.parts.push(part);
        }
    }
    round
}

fn find_topic<'t>(topics: &'t Topics, version: i16, wanted: &FetchTopic<'_>) -> Result<&'t Topic, ErrorCode> {
    if version >= TOPIC_ID_VERSION_MIN {
        topics.by_id(TopicId(wanted.topic_id)).map(|topic| &**topic).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)
    } else {
        topics.by_name(&wanted.topic).map(|topic| &**topic).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }
}

fn find_partition<'t>(
    request: &FetchRequest<'_>,
    topic: Result<&'t Topic, ErrorCode>,
    wanted: &FetchPartition,
) -> Result<&'t Arc<Partition>, ErrorCode> {
    let partition = topic?.partition(wanted.partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    // Brokers fetch to replicate, and no partition has a replica elsewhere.
    if request.replica_id >= 0 || request.replica_state.replica_id >= 0 {
        return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    }
    let fenced = check_leader_epoch(wanted.current_leader_epoch, partition.published.leader_epoch());
    if fenced.is_none() { Ok(partition) } else { Err(fenced) }
}

/// Whether a partition that had nothing to read still has nothing.
fn is_unchanged(last: &Part, partition: &Arc<Partition>) -> bool {
    let is_same = last.partition.as_ref().is_some_and(|last| Arc::ptr_eq(last, partition));
    is_same
        && last.is_quiet()
        && last.bytes == 0
        && last.high_watermark == partition.published.high_watermark()
        && last.log_start == partition.published.log_start()
}

async fn read(api: &Api, partition: &Arc<Partition>, wanted: &FetchPartition, limit: u64, at_least_one: bool) -> Part {
    let published = &partition.published;
    let mut part = Part::new(Some(partition.clone()), ErrorCode::NONE);
    let offset = Offset(wanted.fetch_offset);
    if wanted.last_fetched_epoch >= 0 {
        let epoch = LeaderEpoch(wanted.last_fetched_epoch);
        let end = api.with_log(partition, move |log| log.epochs().end_offset_for(epoch, log.published().log_end())).await;
        match end.flatten() {
            None => {
                part.error = ErrorCode::OFFSET_OUT_OF_RANGE;
                return part;
            }
            Some((found, end)) if found < epoch || end < offset => part.diverging = Some((found, end)),
            Some(_) => {}
        }
    }
    // Bytes that there is no room for are not looked for.
    if part.diverging.is_none() && (limit > 0 || at_least_one) {
        match api.core.core.reader.plan(published, offset, limit, at_least_one).await {
            Ok(plan) => {
                part.high_watermark = plan.high_watermark;
                part.log_start = plan.log_start;
                part.ranges = plan.ranges;
                part.bytes = plan.bytes;
            }
            Err(error) => {
                part.error = api.read_error(&error);
                return part;
            }
        }
    } else {
        part.log_start = published.log_start();
        if part.diverging.is_none() && (offset < part.log_start || offset > published.log_end()) {
            part.error = ErrorCode::OFFSET_OUT_OF_RANGE;
            part.log_start = Offset(-1);
            return part;
        }
        part.high_watermark = published.high_watermark();
    }
    part.last_stable = published.last_stable_offset().max(part.high_watermark);
    part
}

fn respond(api: &Api, context: &RequestContext, request: &FetchRequest<'_>, round: Round) -> Response {
    let node_id = api.core.broker.node_id;
    let mut parts = round.parts.iter();
    let mut is_fenced = false;
    let mut topic_response = |topic: &'_ FetchTopic<'_>| {
        let partitions = topic.partitions.iter().zip(&mut parts).map(|(wanted, part)| {
            let mut data = partition_data(wanted, part, request.isolation_level);
            if part.error == ErrorCode::FENCED_LEADER_EPOCH && context.api_version >= LEADER_VERSION_MIN {
                is_fenced = true;
                let topics = api.topics();
                let partition =
                    find_topic(&topics, context.api_version, topic).ok().and_then(|topic| topic.partition(wanted.partition));
                let leader_epoch = partition.map_or(-1, |partition| partition.published.leader_epoch().0);
                data.current_leader = LeaderIdAndEpoch { leader_id: node_id, leader_epoch };
            }
            data
        });
        FetchableTopicResponse {
            topic: Cow::Owned(topic.topic.to_string()),
            topic_id: topic.topic_id,
            partitions: partitions.collect(),
        }
    };
    let responses = request.topics.iter().map(&mut topic_response).collect();
    let mut response = FetchResponse { responses, ..FetchResponse::default() };
    if is_fenced {
        let (host, port) = respond::endpoint(&api.core.broker.config.listeners, context);
        response.node_endpoints.push(NodeEndpoint { node_id, host, port, rack: None });
    }
    let sources = round.parts.iter().flat_map(|part| &part.ranges).map(|range| source(api, range));
    Response::encode_with_sources(context, |encoder| response.encode(encoder, context.api_version), sources)
}

fn partition_data<'a>(wanted: &FetchPartition, part: &Part, isolation_level: i8) -> PartitionData<'a> {
    let mut data = PartitionData {
        partition_index: wanted.partition,
        error_code: part.error,
        high_watermark: part.high_watermark.0,
        last_stable_offset: part.last_stable.0,
        log_start_offset: part.log_start.0,
        preferred_read_replica: -1,
        records: Records::Bytes(&[]),
        ..PartitionData::default()
    };
    // No transaction is ever aborted: there are none. Who does not ask gets no list at all.
    data.aborted_transactions = (isolation_level == READ_COMMITTED && part.error.is_none()).then(Vec::new);
    if let Some((epoch, end)) = part.diverging {
        data.diverging_epoch = EpochEndOffset { epoch: epoch.0, end_offset: end.0 };
    }
    if part.bytes > 0 {
        data.records = Records::Hole(usize::try_from(part.bytes).unwrap_or(usize::MAX));
    }
    data
}

fn source(api: &Api, range: &ReadRange) -> Source {
    match &range.source {
        ReadSource::File(file) => Source::File(FileRange { file: file.clone(), position: range.position, len: range.len }),
        ReadSource::Memory(bytes) => Source::Bytes(bytes.clone()),
        ReadSource::Tail(slice) => {
            let spill = Spill {
                core: api.core.core.clone(),
                segment: range.segment.clone(),
                position: range.position,
                len: range.len,
                file: Rc::default(),
                is_opening: Cell::new(false),
            };
            Source::Tail { slice: slice.clone(), range: Some(Rc::new(spill)) }
        }
    }
}

/// The other home of a piece of tail memory: its segment's file, opened when somebody asks for it first.
struct Spill {
    core: Rc<Core>,
    segment: Arc<Segment>,
    position: u64,
    len: u64,
    file: Rc<OnceCell<Rc<dyn File>>>,
    is_opening: Cell<bool>,
}

impl TailRange for Spill {
    fn as_file(&self) -> Option<FileRange> {
        if self.segment.file_bytes() < self.position + self.len {
            return None;
        }
        if let Some(file) = self.file.get() {
            return Some(FileRange { file: file.clone(), position: self.position, len: self.len });
        }
        if !self.is_opening.replace(true) {
            let (core, segment, opened) = (self.core.clone(), self.segment.clone(), self.file.clone());
            // Where it cannot be opened the memory stays, as it does where there is no file yet.
            self.core.env.spawn(Box::pin(async move {
                if let Ok(file) = core.reader.open(&segment).await {
                    let _ = opened.set(file);
                }
            }));
        }
        None
    }
}
