//! A broker in memory that speaks enough of Kafka's protocol for a load, and fails as it is told. Blocking, a thread per
//! connection; it lives as long as the test process.
#![allow(clippy::unwrap_used, reason = "a fake that is in trouble may end the test")]
#![allow(dead_code, reason = "no suite needs all of it")]

mod groups;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ringlog_engine::batch::{self, BatchView, HEADER_BYTES, crc_of};
use ringlog_engine::types::Offset;
use ringlog_protocol::api::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use ringlog_protocol::api::create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopicResult};
use ringlog_protocol::api::create_topics::{CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse};
use ringlog_protocol::api::delete_topics::{DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse};
use ringlog_protocol::api::fetch::{FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData};
use ringlog_protocol::api::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ringlog_protocol::api::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use ringlog_protocol::api::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use ringlog_protocol::api::produce::{PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse};
use ringlog_protocol::{ApiKey, Decoder, Encoder, ErrorCode, Records, RequestHeader, begin_response, finish_frame};

/// What goes wrong, at the batch or answer with this number (counted from 0, over all partitions).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing happens for so long.
    Stall(usize, Duration),
    /// The connection is closed instead of an answer; the batch is not stored.
    Close(usize),
    /// The connection is closed instead of an answer; the batch is stored.
    CloseStored(usize),
    /// The batch is refused.
    Refuse(usize, ErrorCode),
    /// This and every later batch is refused.
    RefuseFrom(usize, ErrorCode),
    /// The batch is acknowledged and not stored.
    Drop(usize),
    /// The batch is stored twice.
    Duplicate(usize),
    /// The batch is stored behind the next of its partition.
    Reorder(usize),
    /// A byte of the batch's last value is another, and the CRC fits it.
    Corrupt(usize),
    /// A byte of the batch's first key is another, and the CRC fits it.
    CorruptKey(usize),
    /// A byte is another, and the CRC tells.
    CorruptPlainly(usize),
    /// Every fetch brings its first batch twice.
    FetchTwice,
    /// Every fetch brings a partition that nobody asked for.
    FetchStranger,
    /// Fetches are answered without waiting, with nothing.
    FetchNothing,
    /// Fetches are answered by an error.
    FetchError(ErrorCode),
    /// The fetch with this number is answered by an error.
    FetchErrorOnce(usize, ErrorCode),
    /// The connection is closed instead of an answer to the fetch with this number.
    FetchClose(usize),
    /// Everything from this batch on is answered by closing the connection, for so long.
    Away(usize, Duration),
    /// The answer to Produce announces so many bytes.
    HugeFrame(u32),
    /// The answer to Produce has another correlation id.
    WrongCorrelation,
    /// What was created is known, and led, only when it has been asked for so often.
    Slow(usize),
    /// What was deleted is told of, as if it were there, until it has been asked for so often.
    SlowDeletion(usize),
    /// Topics cannot be created.
    NoCreation(ErrorCode),
    /// The leader of all partitions is said to be there.
    LeaderAt(&'static str),
    /// Acknowledges nothing, and reads on.
    Silent,
    /// The API is answered with bytes that are no answer to it.
    Garbage(ApiKey),
    /// The API is not there.
    Lacks(ApiKey),
    /// A request about groups is answered by an error.
    GroupError(ApiKey, ErrorCode),
    /// A request about groups is answered by closing the connection.
    GroupClose(ApiKey),
    /// A request about groups is not answered.
    GroupSilent(ApiKey),
    /// Every group that is asked about has a member.
    GroupMember,
}

/// What Kafka's controller makes of one request at the most: one for a topic and one for each partition.
const RECORDS_MAX: i32 = 10_000;

#[derive(Default)]
struct Log {
    batches: Vec<Vec<u8>>,
    next: i64,
    held: Option<Vec<u8>>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, Vec<Log>>,
    deleted: Vec<String>,
    /// How many partitions what was deleted had, and how often it is still told of.
    lingering: BTreeMap<String, (usize, usize)>,
    deleted_groups: Vec<String>,
    faults: Vec<Fault>,
    produced: usize,
    fetched: usize,
    away_since: Option<Instant>,
    asked: usize,
    producer_ids: i64,
}

/// The fake.
#[derive(Clone)]
pub(crate) struct Broker {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Broker {
    /// Starts on a free port.
    pub(crate) fn start(faults: &[Fault]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let broker = Self { address, state: Arc::default() };
        broker.lock().faults = faults.to_vec();
        let serving = broker.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let broker = serving.clone();
                std::thread::spawn(move || broker.serve(stream));
            }
        });
        broker
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn topics(&self) -> Vec<String> {
        self.lock().topics.keys().cloned().collect()
    }

    pub(crate) fn deleted(&self) -> Vec<String> {
        self.lock().deleted.clone()
    }

    pub(crate) fn deleted_groups(&self) -> Vec<String> {
        self.lock().deleted_groups.clone()
    }

    pub(crate) fn produced(&self) -> usize {
        self.lock().produced
    }

    /// How many partitions a topic has.
    pub(crate) fn partitions(&self, topic: &str) -> usize {
        self.lock().topics.get(topic).map_or(0, Vec::len)
    }

    /// The records of a topic.
    pub(crate) fn records(&self, topic: &str) -> i64 {
        self.lock().topics.get(topic).map_or(0, |logs| logs.iter().map(|log| log.next).sum())
    }

    /// Replaces what goes wrong.
    pub(crate) fn set_faults(&self, faults: &[Fault]) {
        self.lock().faults = faults.to_vec();
    }

    /// Loses the last batch of every partition, as a broker does that acknowledges before it writes.
    pub(crate) fn lose_tails(&self) {
        for log in self.lock().topics.values_mut().flatten() {
            if let Some(batch) = log.batches.pop() {
                log.next = BatchView::new(&batch).unwrap().header().base_offset.0;
            }
        }
    }

    /// Answers until there is nothing more, or until a fault hangs up. What was answered before that arrives: a socket that is closed
    /// with requests still unread resets the connection, which takes away answers that the client has not read yet.
    fn serve(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        self.answer(&mut stream);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
        let _ = io::copy(&mut stream, &mut io::sink());
    }

    fn answer(&self, stream: &mut TcpStream) {
        let mut size = [0; 4];
        while stream.read_exact(&mut size).is_ok() {
            let mut frame = vec![0; u32::from_be_bytes(size) as usize];
            if stream.read_exact(&mut frame).is_err() {
                return;
            }
            let mut decoder = Decoder::new(&frame);
            let header = RequestHeader::decode(&mut decoder).unwrap();
            let api = ApiKey::from_key(header.api_key).unwrap();
            if self.is_away() {
                return;
            }
            let version = header.api_version;
            let mut encoder = Encoder::new();
            let wrong = self.lock().faults.contains(&Fault::WrongCorrelation) && api == ApiKey::Produce;
            let start = begin_response(&mut encoder, api, version, header.correlation_id + i32::from(wrong));
            let answers = match api {
                ApiKey::ApiVersions => {
                    ApiVersionsRequest::decode(&mut decoder, version).unwrap();
                    let range = |api: &ApiKey| ApiVersion {
                        api_key: api.key(),
                        min_version: api.version_min_advertised(),
                        max_version: api.version_max(),
                    };
                    let faults = self.lock().faults.clone();
                    let is_there = |api: &&ApiKey| !faults.contains(&Fault::Lacks(**api));
                    let api_keys = ApiKey::ALL.iter().filter(is_there).map(range).collect();
                    ApiVersionsResponse { api_keys, ..Default::default() }.encode(&mut encoder, version);
                    true
                }
                ApiKey::Metadata => {
                    let request = MetadataRequest::decode(&mut decoder, version).unwrap();
                    self.metadata(&request).encode(&mut encoder, version);
                    true
                }
                ApiKey::CreateTopics => {
                    let request = CreateTopicsRequest::decode(&mut decoder, version).unwrap();
                    self.create(&request).encode(&mut encoder, version);
                    true
                }
                ApiKey::CreatePartitions => {
                    let request = CreatePartitionsRequest::decode(&mut decoder, version).unwrap();
                    self.add_partitions(&request).encode(&mut encoder, version);
                    true
                }
                ApiKey::DeleteTopics => {
                    let request = DeleteTopicsRequest::decode(&mut decoder, version).unwrap();
                    self.delete(&request).encode(&mut encoder, version);
                    true
                }
                ApiKey::InitProducerId => {
                    InitProducerIdRequest::decode(&mut decoder, version).unwrap();
                    let mut state = self.lock();
                    state.producer_ids += 1;
                    InitProducerIdResponse { producer_id: state.producer_ids, ..Default::default() }
                        .encode(&mut encoder, version);
                    true
                }
                ApiKey::ListOffsets => {
                    let request = ListOffsetsRequest::decode(&mut decoder, version).unwrap();
                    self.offsets(&request).encode(&mut encoder, version);
                    true
                }
                ApiKey::Produce => {
                    let request = ProduceRequest::decode(&mut decoder, version).unwrap();
                    let acks = request.acks;
                    let Some(response) = self.produce(&request) else { return };
                    response.encode(&mut encoder, version);
                    acks != 0 && !self.lock().faults.contains(&Fault::Silent)
                }
                ApiKey::Fetch => {
                    let request = FetchRequest::decode(&mut decoder, version).unwrap();
                    if !self.fetch(&request, &mut encoder, version) {
                        return;
                    }
                    true
                }
                other => {
                    if self.lock().faults.contains(&Fault::GroupClose(other)) {
                        return;
                    }
                    self.group(other, &mut decoder, &mut encoder, version);
                    !self.lock().faults.contains(&Fault::GroupSilent(other))
                }
            };
            if self.lock().faults.contains(&Fault::Garbage(api)) {
                encoder = Encoder::new();
                let start = begin_response(&mut encoder, api, version, header.correlation_id);
                encoder.raw(&[0xfe; 64]);
                finish_frame(&mut encoder, start);
            } else {
                finish_frame(&mut encoder, start);
            }
            let mut bytes = encoder.into_buffer();
            let huge =
                self.lock().faults.iter().find_map(|fault| if let Fault::HugeFrame(bytes) = fault { Some(*bytes) } else { None });
            if let Some(huge) = huge.filter(|_| api == ApiKey::Produce) {
                bytes[..4].copy_from_slice(&huge.to_be_bytes());
            }
            if answers && stream.write_all(&bytes).is_err() {
                return;
            }
        }
    }

    /// Whether it is as if it were not there.
    fn is_away(&self) -> bool {
        let mut state = self.lock();
        let (since, produced) = (state.away_since, state.produced);
        let away = state.faults.iter().find_map(|fault| match *fault {
            Fault::Away(from, duration) if from <= produced => Some(duration),
            _ => None,
        });
        let Some(duration) = away else { return false };
        let since = since.unwrap_or_else(Instant::now);
        state.away_since = Some(since);
        since.elapsed() < duration
    }

    /// Whether a topic that was created is not known yet.
    fn is_slow(state: &mut State, times: usize) -> bool {
        state.asked += 1;
        let asked = state.asked;
        state.faults.iter().any(|fault| matches!(fault, Fault::Slow(until) if asked <= until * times))
    }

    fn metadata(&self, request: &MetadataRequest<'_>) -> MetadataResponse<'static> {
        let mut state = self.lock();
        let slow = Self::is_slow(&mut state, 1);
        let elsewhere = state.faults.iter().find_map(|fault| if let Fault::LeaderAt(host) = fault { Some(*host) } else { None });
        let host = elsewhere.unwrap_or("127.0.0.1");
        let broker = MetadataResponseBroker { node_id: 1, host: host.into(), port: self.address.port().into(), rack: None };
        let topics = request.topics.iter().flatten().map(|topic| {
            let name = topic.name.as_deref().unwrap().to_owned();
            let told = match state.lingering.get_mut(&name) {
                Some((partitions, left)) if *left > 0 => {
                    *left -= 1;
                    Some(*partitions)
                }
                _ => state.topics.get(&name).filter(|_| !slow).map(Vec::len),
            };
            let error_code = if told.is_some() { ErrorCode::NONE } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION };
            let partitions = (0..told.unwrap_or(0) as i32)
                .map(|partition_index| MetadataResponsePartition { partition_index, leader_id: 1, ..Default::default() })
                .collect();
            MetadataResponseTopic {
                error_code,
                topic_id: topic_id(&name),
                name: Some(name.into()),
                partitions,
                ..Default::default()
            }
        });
        MetadataResponse { brokers: vec![broker], topics: topics.collect(), ..Default::default() }
    }

    fn create(&self, request: &CreateTopicsRequest<'_>) -> CreateTopicsResponse<'static> {
        let mut state = self.lock();
        let refused = state.faults.iter().find_map(|fault| if let Fault::NoCreation(code) = fault { Some(*code) } else { None });
        let topics = request.topics.iter().map(|topic| {
            let name = topic.name.clone().into_owned();
            let too_many = (topic.num_partitions >= RECORDS_MAX).then_some(ErrorCode::POLICY_VIOLATION);
            let error_code = refused.or(too_many).unwrap_or(ErrorCode::NONE);
            if error_code.is_none() {
                state.topics.insert(name.clone(), (0..topic.num_partitions).map(|_| Log::default()).collect());
            }
            CreatableTopicResult { topic_id: topic_id(&name), name: name.into(), error_code, ..Default::default() }
        });
        CreateTopicsResponse { topics: topics.collect(), ..Default::default() }
    }

    fn add_partitions(&self, request: &CreatePartitionsRequest<'_>) -> CreatePartitionsResponse<'static> {
        let mut state = self.lock();
        let results = request.topics.iter().map(|topic| {
            let name = topic.name.clone().into_owned();
            let logs = state.topics.get_mut(&name).unwrap();
            let is_fine = topic.count > logs.len() as i32 && topic.count - (logs.len() as i32) < RECORDS_MAX;
            if is_fine {
                logs.resize_with(topic.count as usize, Log::default);
            }
            let error_code = if is_fine { ErrorCode::NONE } else { ErrorCode::POLICY_VIOLATION };
            CreatePartitionsTopicResult { name: name.into(), error_code, ..Default::default() }
        });
        CreatePartitionsResponse { results: results.collect(), ..Default::default() }
    }

    fn delete(&self, request: &DeleteTopicsRequest<'_>) -> DeleteTopicsResponse<'static> {
        let mut state = self.lock();
        let slow = state.faults.iter().find_map(|fault| if let Fault::SlowDeletion(times) = fault { Some(*times) } else { None });
        let responses = request.topics.iter().map(|topic| {
            let name = topic.name.as_deref().unwrap().to_owned();
            let there = state.topics.remove(&name);
            let error_code = if there.is_some() { ErrorCode::NONE } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION };
            if let (Some(logs), Some(times)) = (there, slow) {
                state.lingering.insert(name.clone(), (logs.len(), times));
            }
            state.deleted.push(name.clone());
            DeletableTopicResult { name: Some(name.into()), error_code, ..Default::default() }
        });
        DeleteTopicsResponse { responses: responses.collect(), ..Default::default() }
    }

    fn offsets(&self, request: &ListOffsetsRequest<'_>) -> ListOffsetsResponse<'static> {
        let mut state = self.lock();
        let error_code = if Self::is_slow(&mut state, 2) { ErrorCode::NOT_LEADER_OR_FOLLOWER } else { ErrorCode::NONE };
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let log = &state.topics[topic.name.as_ref()][partition.partition_index as usize];
                let offset = if partition.timestamp == -1 { log.next } else { 0 };
                ListOffsetsPartitionResponse {
                    partition_index: partition.partition_index,
                    error_code,
                    offset,
                    ..Default::default()
                }
            });
            ListOffsetsTopicResponse { name: topic.name.clone().into_owned().into(), partitions: partitions.collect() }
        });
        ListOffsetsResponse { topics: topics.collect(), ..Default::default() }
    }

    /// `None` closes the connection.
    fn produce(&self, request: &ProduceRequest<'_>) -> Option<ProduceResponse<'static>> {
        let mut responses = Vec::new();
        for topic in &request.topic_data {
            let mut partition_responses = Vec::new();
            for data in &topic.partition_data {
                let mut state = self.lock();
                let number = state.produced;
                state.produced += 1;
                let faults = state.faults.clone();
                let has = |fault: Fault| faults.contains(&fault);
                for fault in &faults {
                    if let Fault::Stall(at, duration) = *fault
                        && at == number
                    {
                        // With the state locked: nobody is served meanwhile.
                        std::thread::sleep(duration);
                    }
                }
                if has(Fault::Close(number)) {
                    return None;
                }
                let error_code = faults.iter().find_map(|fault| match *fault {
                    Fault::Refuse(at, code) if at == number => Some(code),
                    Fault::RefuseFrom(at, code) if at <= number => Some(code),
                    _ => None,
                });
                let mut base_offset = -1;
                if error_code.is_none() {
                    let name = name_of(&state, &topic.name, topic.topic_id);
                    let log = &mut state.topics.get_mut(&name?)?[data.index as usize];
                    base_offset = log.next;
                    let bytes = data.records.bytes()?.to_vec();
                    BatchView::new(&bytes).unwrap().check_crc().unwrap();
                    log.take(bytes, number, &faults);
                }
                if has(Fault::CloseStored(number)) {
                    return None;
                }
                let error_code = error_code.unwrap_or_default();
                partition_responses.push(PartitionProduceResponse {
                    index: data.index,
                    error_code,
                    base_offset,
                    ..Default::default()
                });
            }
            let (name, topic_id) = (topic.name.clone().into_owned().into(), topic.topic_id);
            responses.push(TopicProduceResponse { name, topic_id, partition_responses });
        }
        Some(ProduceResponse { responses, ..Default::default() })
    }

    /// Whether there is an answer; else the connection is closed.
    fn fetch(&self, request: &FetchRequest<'_>, encoder: &mut Encoder, version: i16) -> bool {
        let number = {
            let mut state = self.lock();
            state.fetched += 1;
            state.fetched - 1
        };
        let until = Instant::now() + Duration::from_millis(request.max_wait_ms as u64);
        loop {
            let state = self.lock();
            if state.faults.contains(&Fault::FetchClose(number)) {
                return false;
            }
            let error = state.faults.iter().find_map(|fault| match *fault {
                Fault::FetchError(code) => Some(code),
                Fault::FetchErrorOnce(at, code) if at == number => Some(code),
                _ => None,
            });
            let nothing = state.faults.contains(&Fault::FetchNothing);
            let mut all = Vec::new();
            let mut bytes_left = request.max_bytes as usize;
            for topic in &request.topics {
                let name = name_of(&state, &topic.topic, topic.topic_id);
                for partition in &topic.partitions {
                    let mut bytes = Vec::new();
                    let logs = name.as_ref().map(|name| &state.topics[name]);
                    for batch in logs.into_iter().flat_map(|logs| &logs[partition.partition as usize].batches) {
                        let end = BatchView::new(batch).unwrap().header().next_offset().0;
                        let fits = bytes.is_empty() && all.iter().all(|(_, bytes): &(i32, Vec<u8>)| bytes.is_empty());
                        if end > partition.fetch_offset && (fits || batch.len() <= bytes_left) {
                            bytes.extend_from_slice(batch);
                            bytes_left = bytes_left.saturating_sub(batch.len());
                            if state.faults.contains(&Fault::FetchTwice) {
                                bytes.extend_from_slice(batch);
                            }
                        } else if end > partition.fetch_offset {
                            break;
                        }
                    }
                    let stranger = state.faults.contains(&Fault::FetchStranger);
                    all.push((partition.partition + if stranger { 1000 } else { 0 }, bytes));
                }
            }
            drop(state);
            if nothing {
                all.iter_mut().for_each(|(_, bytes)| bytes.clear());
                // Who asks again and again need not keep the machine busy.
                std::thread::sleep(Duration::from_millis(2));
            }
            let empty = all.iter().all(|(_, bytes)| bytes.is_empty());
            if empty && !nothing && error.is_none() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            let partitions = all.iter().map(|(partition_index, bytes)| PartitionData {
                partition_index: *partition_index,
                error_code: error.unwrap_or_default(),
                records: Records::Bytes(bytes),
                ..Default::default()
            });
            // Of a session, which no client here keeps, there might be none.
            let topics = request.topics.iter().take(1).map(|topic| FetchableTopicResponse {
                topic: topic.topic.clone(),
                topic_id: topic.topic_id,
                partitions: partitions.clone().collect(),
            });
            FetchResponse { responses: topics.collect(), ..Default::default() }.encode(encoder, version);
            return true;
        }
    }
}

impl Log {
    fn take(&mut self, mut bytes: Vec<u8>, number: usize, faults: &[Fault]) {
        let has = |fault: Fault| faults.contains(&fault);
        if has(Fault::Drop(number)) {
            return;
        }
        if has(Fault::Corrupt(number)) || has(Fault::CorruptPlainly(number)) {
            assert!(bytes.len() > HEADER_BYTES + 10);
            let at = bytes.len() - 3;
            bytes[at] ^= 0x20;
            if has(Fault::Corrupt(number)) {
                let crc = crc_of(&bytes);
                bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            }
        }
        if has(Fault::CorruptKey(number)) {
            let at = {
                let records = BatchView::new(&bytes).unwrap().records(1 << 20).unwrap();
                let key = records.iter().next().unwrap().unwrap().key.unwrap();
                // Behind the header, whose zeros and lengths look like a small key.
                HEADER_BYTES + bytes[HEADER_BYTES..].windows(key.len()).position(|window| window == key).unwrap()
            };
            bytes[at] ^= 1;
            let crc = crc_of(&bytes);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        if has(Fault::Reorder(number)) {
            self.held = Some(bytes);
            return;
        }
        let again = has(Fault::Duplicate(number)).then(|| bytes.clone());
        for bytes in [Some(bytes), again, self.held.take()].into_iter().flatten() {
            self.append(bytes);
        }
    }

    fn append(&mut self, mut bytes: Vec<u8>) {
        batch::patch_base_offset(&mut bytes, Offset(self.next));
        self.next = BatchView::new(&bytes).unwrap().header().next_offset().0;
        self.batches.push(bytes);
    }
}

/// The topic that a request means: by its name, or in versions without by its id.
fn name_of(state: &State, name: &str, id: [u8; 16]) -> Option<String> {
    state.topics.keys().find(|known| if name.is_empty() { topic_id(known) == id } else { *known == name }).cloned()
}

fn topic_id(name: &str) -> [u8; 16] {
    let mut id = [7; 16];
    for (at, byte) in name.bytes().enumerate() {
        id[at % 16] ^= byte.wrapping_add(at as u8);
    }
    id
}
