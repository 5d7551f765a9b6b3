//! Produce: checks each partition's batch on the connection's core, hands it to the core that owns the partition, and answers
//! when all of them have. Batches are slices of the request's frame: nothing is copied here.
//!
//! Everything up to the first wait happens in the first poll, so batches of one connection are handed over in the order of its
//! requests.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{
    BatchError, BatchHeader, BatchView, ErrorKind, HEADER_BYTES, ProduceRules, RecordsRefused, TimestampType, find_refused,
    validate_produced, validate_records,
};
use ringlog_engine::compression::Codec;
use ringlog_engine::core::{Append, Message, Partition};
use ringlog_engine::env::LocalFuture;
use ringlog_engine::log::append::{Acks, AppendError, AppendReply, Appended};
use ringlog_engine::log::producers::ProducerError;
use ringlog_engine::types::{TimestampMs, TopicId};
use ringlog_protocol::api::produce::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use ringlog_protocol::{ApiKey, ErrorCode, Uuid};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::{Api, decode, produce_legacy, reply};
use crate::broker::Topic;
use crate::config::TopicConfig;
use crate::net::{ConnectionInfo, Outcome, RequestContext};

/// What the records of one compressed batch may take while they are checked.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;
/// How many records to blame an answer names: each takes more room there than a compressed one in the request, so this has to
/// end. The rest of the batch fails with them all the same.
const BLAMED_RECORDS_MAX: usize = 10_000;
/// The shortest wait for an answer. A client's timeout bounds how long the leader waits for followers; its own disk is not asked
/// for less than this, or every answer to a client that says 0 would be a timeout.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// From here on a request may hold zstd (KIP-110).
const ZSTD_VERSION_MIN: i16 = 7;
/// From here on topics are given by id.
const TOPIC_ID_VERSION_MIN: i16 = 13;

/// Why a partition's batch is not taken.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    code: ErrorCode,
    message: Cow<'static, str>,
    /// The records to blame, where not all of the batch is.
    records: Vec<BatchError>,
    /// Whether the log judged it, so that its start is told, as Kafka does.
    is_of_log: bool,
}

impl Failure {
    fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Box<Self> {
        Box::new(Self { code, message: message.into(), records: Vec::new(), is_of_log: false })
    }
}

type Answer = Result<Appended, Box<Failure>>;

enum State {
    Waiting(oneshot::Receiver<Result<Appended, AppendError>>),
    Answered(Answer),
}

struct PartitionState {
    index: i32,
    state: State,
}

/// A topic of the request, without the request's bytes: these go back to their pool when the logs have copied the batches.
struct TopicState {
    topic: Option<Arc<Topic>>,
    /// The name, where there is no such topic.
    name: String,
    id: Uuid,
    partitions: SmallVec<[PartitionState; 1]>,
}

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    if context.api_version < ApiKey::Produce.version_min() {
        return produce_legacy::handle(&context, &body);
    }
    let (acks, timeout, mut topics) = {
        let request: ProduceRequest<'_> = match decode(&context, &body) {
            Ok(request) => request,
            Err(malformed) => return malformed.into(),
        };
        let acks = match request.acks {
            0 => Some(Acks::None),
            1 => Some(Acks::Leader),
            -1 => Some(Acks::All),
            _ => None,
        };
        let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).max(TIMEOUT_MIN);
        (acks, timeout, start(&api, &context, &body, &request, acks))
    };
    drop(body);
    if acks == Some(Acks::None) {
        wait(&api, context.api_version, &mut topics, None).await;
        return match topics.iter().flat_map(|topic| &topic.partitions).find_map(failure) {
            // Nobody waits for an answer: closing is how Kafka tells the producer to look at its metadata again.
            Some(failure) => Outcome::Close(format!("produce without an answer failed: {}", failure.message).into()),
            None => Outcome::Nothing,
        };
    }
    wait(&api, context.api_version, &mut topics, Some(timeout)).await;
    for (topic, partition, failure) in topics.iter().flat_map(failures) {
        api.log_refusal(&context, format_args!("{topic}-{partition}"), failure.code, Some(&failure.message));
    }
    reply(&context, &response(&topics))
}

/// Hands over all batches of a request. `acks` is `None` where the request asks for something that does not exist.
fn start(api: &Api, context: &RequestContext, body: &Bytes, request: &ProduceRequest<'_>, acks: Option<Acks>) -> Vec<TopicState> {
    let (topics, version) = (api.topics(), context.api_version);
    let now = api.core.core.env.now();
    let mut blamed_left = BLAMED_RECORDS_MAX;
    let start_topic = |data: &TopicProduceData<'_>| {
        let by_id = version >= TOPIC_ID_VERSION_MIN;
        let topic = if by_id { topics.by_id(TopicId(data.topic_id)) } else { topics.by_name(&data.name) };
        let rules = topic.map(|topic| rules(&topic.config, version, now));
        let start_partition = |partition: &PartitionProduceData<'_>| {
            let state = match (topic.zip(rules.as_ref()), acks) {
                (None, _) => State::Answered(Err(unknown_topic(by_id))),
                (Some((topic, _)), None) => State::Answered(Err(invalid_acks(topic, partition.index))),
                (Some((topic, rules)), Some(acks)) => {
                    let mut state = start_batch(api, &context.connection, body, topic, rules, acks, partition);
                    if let State::Answered(Err(failure)) = &mut state {
                        failure.records.truncate(blamed_left);
                        failure.records.shrink_to_fit();
                        blamed_left -= failure.records.len();
                    }
                    state
                }
            };
            PartitionState { index: partition.index, state }
        };
        TopicState {
            name: if topic.is_some() { String::new() } else { data.name.to_string() },
            topic: topic.cloned(),
            id: data.topic_id,
            partitions: data.partition_data.iter().map(start_partition).collect(),
        }
    };
    request.topic_data.iter().map(start_topic).collect()
}

fn unknown_topic(by_id: bool) -> Box<Failure> {
    if by_id {
        Failure::new(ErrorCode::UNKNOWN_TOPIC_ID, "This server does not host this topic ID.")
    } else {
        Failure::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.")
    }
}

fn invalid_acks(topic: &Topic, index: i32) -> Box<Failure> {
    match topic.partition(index) {
        Some(_) => Failure::new(ErrorCode::INVALID_REQUIRED_ACKS, "acks must be 0, 1 or -1 (all in-sync replicas)"),
        None => unknown_topic(false),
    }
}

fn rules(config: &TopicConfig, version: i16, now: TimestampMs) -> ProduceRules {
    ProduceRules {
        message_bytes_max: usize::try_from(config.max_message_bytes).unwrap_or(0),
        now,
        timestamp_type: if config.has_log_append_time() { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
        timestamp_before_ms_max: config.message_timestamp_before_max_ms,
        timestamp_after_ms_max: config.message_timestamp_after_max_ms,
        zstd_allowed: version >= ZSTD_VERSION_MIN,
        keys_required: config.is_compacted(),
    }
}

fn start_batch(
    api: &Api,
    connection: &ConnectionInfo,
    body: &Bytes,
    topic: &Topic,
    rules: &ProduceRules,
    acks: Acks,
    data: &PartitionProduceData<'_>,
) -> State {
    let checked = check_partition(topic, acks, data.index).and_then(|partition| {
        let records = data.records.bytes().filter(|records| !records.is_empty());
        let none = || Failure::new(ErrorCode::INVALID_RECORD, "a produce request holds exactly one record batch per partition");
        let records = records.ok_or_else(none)?;
        let header = check_batch(records, rules).map_err(batch_failure)?;
        if header.attributes.is_transactional() {
            return Err(Failure::new(ErrorCode::INVALID_TXN_STATE, "transactions are not implemented yet"));
        }
        Ok((partition, records, header))
    });
    match checked {
        Ok((partition, records, header)) => {
            let (sender, answer) = oneshot::channel();
            let reply = AppendReply::counted(sender, partition.inflow.enter(records.len()));
            connection.crowd.feeds(&partition.inflow);
            let append = Append { partition: partition.id, batch: body.slice_ref(records), header, acks, reply };
            if partition.core == api.core.core.index {
                api.core.core.append(append);
            } else {
                api.outbox.send(partition.core, Message::Append(append));
            }
            State::Waiting(answer)
        }
        Err(failure) => State::Answered(Err(failure)),
    }
}

/// Whether a partition takes batches from clients, and enough replicas are in sync for what the producer wants.
fn check_partition(topic: &Topic, acks: Acks, index: i32) -> Result<&Partition, Box<Failure>> {
    if topic.is_internal {
        let message = format!("Cannot append to internal topic {}", topic.name);
        return Err(Failure::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message));
    }
    let Some(partition) = topic.partition(index) else { return Err(unknown_topic(false)) };
    if acks == Acks::All
        && let Some(info) = topic.info.partition(index)
        && let Some(needed) = replicas_missing(topic.config.min_insync_replicas, info.isr.len(), info.replicas.len())
    {
        let message = format!("{} replicas are in sync, min.insync.replicas wants {needed}", info.isr.len());
        return Err(Failure::new(ErrorCode::NOT_ENOUGH_REPLICAS, message));
    }
    Ok(partition)
}

/// How many replicas should be in sync, if more than there are. As in Kafka, that is never more than the partition has.
fn replicas_missing(min_insync_replicas: i32, in_sync: usize, replicas: usize) -> Option<usize> {
    let needed = usize::try_from(min_insync_replicas).unwrap_or(0).min(replicas);
    (in_sync < needed).then_some(needed)
}

/// All that can be said of a batch before it is copied, but the CRC. The header has the largest timestamp of the records, where
/// these were looked at.
fn check_batch(batch: &[u8], rules: &ProduceRules) -> Result<BatchHeader, RecordsRefused> {
    let mut header = validate_produced(batch, rules)?;
    let decompressed;
    let records = match header.attributes.codec()? {
        Codec::None => &batch[HEADER_BYTES..],
        _ if rules.needs_records(&header) => {
            let view = BatchView::new(batch)?;
            decompressed = view.records(DECOMPRESSED_BYTES_MAX).or_else(|error| view.check_crc().and(Err(error)))?;
            decompressed.bytes()
        }
        _ => return Ok(header),
    };
    match validate_records(&header, records, rules) {
        Ok(newest) => {
            header.max_timestamp = newest;
            Ok(header)
        }
        Err(error) => {
            // What was damaged on the way is to be sent again, whatever it looks like now.
            BatchView::new(batch)?.check_crc()?;
            Err(find_refused(&header, records, rules, error, BLAMED_RECORDS_MAX))
        }
    }
}

fn batch_failure(refused: RecordsRefused) -> Box<Failure> {
    let RecordsRefused { error, records } = refused;
    let code = match error.kind() {
        ErrorKind::Corrupt => ErrorCode::CORRUPT_MESSAGE,
        ErrorKind::TooLarge => ErrorCode::MESSAGE_TOO_LARGE,
        ErrorKind::InvalidTimestamp => ErrorCode::INVALID_TIMESTAMP,
        ErrorKind::UnsupportedCompression => ErrorCode::UNSUPPORTED_COMPRESSION_TYPE,
        ErrorKind::InvalidRecord => ErrorCode::INVALID_RECORD,
    };
    // What is not one batch of today's format is refused before it comes to a log.
    let is_one_batch = !matches!(
        error,
        BatchError::TooShort { .. } | BatchError::Incomplete { .. } | BatchError::Trailing(_) | BatchError::Magic(_)
    );
    let is_of_log = is_one_batch && matches!(error.kind(), ErrorKind::InvalidTimestamp | ErrorKind::InvalidRecord);
    Box::new(Failure { code, message: error.to_string().into(), records, is_of_log })
}

fn append_failure(error: &AppendError, by_id: bool) -> Box<Failure> {
    let code = match error {
        AppendError::Crc => ErrorCode::CORRUPT_MESSAGE,
        AppendError::LargerThanSegment { .. } | AppendError::LargerThanMemory { .. } => ErrorCode::RECORD_LIST_TOO_LARGE,
        AppendError::Producer(ProducerError::OutOfOrder { .. }) => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        AppendError::Producer(ProducerError::StaleEpoch { .. }) => ErrorCode::INVALID_PRODUCER_EPOCH,
        AppendError::Producer(ProducerError::TransactionOpen { .. }) => ErrorCode::INVALID_TXN_STATE,
        // Retriable: room may come free, a journal is started anew, a partition may be brought back.
        AppendError::NoRoom(_) | AppendError::Journal(_) | AppendError::Offline(_) => ErrorCode::KAFKA_STORAGE_ERROR,
        AppendError::Deleted => return unknown_topic(by_id),
    };
    let is_of_log = matches!(error, AppendError::Producer(_));
    Box::new(Failure { is_of_log, ..*Failure::new(code, error.to_string()) })
}

/// Waits for all answers, at most `timeout`; what has not come by then is answered as timed out.
async fn wait(api: &Api, version: i16, topics: &mut [TopicState], timeout: Option<Duration>) {
    let by_id = version >= TOPIC_ID_VERSION_MIN;
    let mut deadline: Option<LocalFuture<()>> = None;
    let mut is_late = false;
    for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        let State::Waiting(answer) = &mut partition.state else { continue };
        let answer = poll_fn(|cx| {
            if let Poll::Ready(answer) = Pin::new(&mut *answer).poll(cx) {
                return Poll::Ready(Some(answer));
            }
            if let (Some(timeout), false) = (timeout, is_late) {
                let deadline = deadline.get_or_insert_with(|| api.core.core.env.sleep(timeout));
                is_late = deadline.as_mut().poll(cx).is_ready();
            }
            if is_late { Poll::Ready(None) } else { Poll::Pending }
        });
        partition.state = State::Answered(match answer.await {
            Some(Ok(Ok(appended))) => Ok(appended),
            Some(Ok(Err(error))) => Err(append_failure(&error, by_id)),
            Some(Err(_)) => Err(Failure::new(ErrorCode::KAFKA_STORAGE_ERROR, "the broker is stopping")),
            None => Err(Failure::new(ErrorCode::REQUEST_TIMED_OUT, "the batch was not committed in time")),
        });
    }
}

fn failure(partition: &PartitionState) -> Option<&Failure> {
    match &partition.state {
        State::Answered(Err(failure)) => Some(failure),
        _ => None,
    }
}

/// The partitions of a topic that failed, and how.
fn failures(topic: &TopicState) -> impl Iterator<Item = (&str, i32, &Failure)> {
    let name = topic.topic.as_ref().map_or(&*topic.name, |known| &*known.name);
    topic.partitions.iter().filter_map(move |partition| Some((name, partition.index, failure(partition)?)))
}

fn response(topics: &[TopicState]) -> ProduceResponse<'_> {
    ProduceResponse { responses: topics.iter().map(topic_response).collect(), ..ProduceResponse::default() }
}

fn topic_response(topic: &TopicState) -> TopicProduceResponse<'_> {
    TopicProduceResponse {
        name: Cow::Borrowed(topic.topic.as_ref().map_or(&*topic.name, |known| &*known.name)),
        topic_id: topic.id,
        partition_responses: topic.partitions.iter().map(|state| partition_response(topic, state)).collect(),
    }
}

fn partition_response<'a>(topic: &'a TopicState, partition: &'a PartitionState) -> PartitionProduceResponse<'a> {
    let mut response =
        PartitionProduceResponse { index: partition.index, base_offset: -1, ..PartitionProduceResponse::default() };
    match &partition.state {
        State::Answered(Ok(appended)) => {
            response.base_offset = appended.base_offset.0;
            response.log_append_time_ms = appended.log_append_time.0;
            response.log_start_offset = appended.log_start.0;
        }
        State::Answered(Err(failure)) => {
            response.error_code = failure.code;
            response.error_message = Some(Cow::Borrowed(&*failure.message));
            response.record_errors = failure.records.iter().filter_map(record_error).collect();
            if failure.is_of_log
                && let Some(partition) = topic.topic.as_ref().and_then(|known| known.partition(partition.index))
            {
                response.log_start_offset = partition.published.log_start().0;
            }
        }
        State::Waiting(_) => unreachable!("all answers were waited for"),
    }
    response
}

fn record_error(error: &BatchError) -> Option<BatchIndexAndErrorMessage<'_>> {
    let batch_index = match *error {
        BatchError::KeyMissing(index) | BatchError::Timestamp { index, .. } => index,
        _ => return None,
    };
    Some(BatchIndexAndErrorMessage { batch_index, batch_index_error_message: Some(Cow::Owned(error.to_string())) })
}

#[cfg(test)]
mod tests {
    use ringlog_engine::types::ProducerId;

    use super::*;

    #[test]
    fn what_the_log_says_becomes_kafkas_error() {
        let code = |error: AppendError| append_failure(&error, false).code;
        assert_eq!(code(AppendError::Crc), ErrorCode::CORRUPT_MESSAGE);
        assert_eq!(code(AppendError::LargerThanSegment { batch_bytes: 2, segment_bytes: 1 }), ErrorCode::RECORD_LIST_TOO_LARGE);
        for error in [AppendError::NoRoom, AppendError::Journal, AppendError::Offline] {
            let code = code(error("why".to_owned()));
            assert!(code == ErrorCode::KAFKA_STORAGE_ERROR && code.is_retriable());
        }
        let open = ProducerError::TransactionOpen { producer_id: ProducerId(1) };
        assert_eq!(code(AppendError::Producer(open)), ErrorCode::INVALID_TXN_STATE);
        assert_eq!(code(AppendError::Deleted), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(append_failure(&AppendError::Deleted, true).code, ErrorCode::UNKNOWN_TOPIC_ID);
    }

    #[test]
    fn no_more_replicas_are_wanted_than_there_are() {
        assert_eq!(replicas_missing(1, 1, 1), None);
        assert_eq!(replicas_missing(2, 1, 1), None, "a topic with one replica");
        assert_eq!(replicas_missing(2, 1, 3), Some(2));
        assert_eq!(replicas_missing(2, 2, 3), None);
    }
}
