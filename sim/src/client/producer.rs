//! A producer: idempotent or not, a few batches in flight, and the same ones again until each has an answer, through cut
//! connections, timeouts, errors and restarts.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::batch::{BatchBuilder, set_max_timestamp};
use ringlog_engine::compression::Codec;
use ringlog_engine::env::random::Random;
use ringlog_engine::types::{Offset, ProducerId, TimestampMs};
use ringlog_protocol::api::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ringlog_protocol::api::produce::{PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData};
use ringlog_protocol::{ApiKey, ErrorCode, Records};

use super::{is_unknown_topic, pick as pick_partition, version};
use crate::life::{Client, Life};
use crate::model::{Existence, Sent};
use crate::wire;

/// From here on topics are given by id; a name may mean another topic by the time it arrives.
const TOPIC_ID_VERSION_MIN: i16 = 13;

/// See the module.
pub struct Producer {
    /// For people.
    pub name: String,
    is_idempotent: bool,
    acks: i16,
    in_flight_max: u64,
    /// How large values are, at most.
    value_bytes_max: u64,
    random: Random,
    /// Its id and epoch, where it is idempotent and has one.
    id: Option<(i64, i16)>,
    target: Option<Target>,
    /// The next sequence for each partition.
    sequences: BTreeMap<(usize, i32), i32>,
    /// How many losses of a partition it knows of.
    losses: BTreeMap<(usize, i32), u64>,
    /// What has no good answer yet, in order.
    window: VecDeque<u64>,
    /// Whether it makes nothing new.
    pub is_draining: bool,
}

#[derive(Clone, Copy)]
struct Target {
    topic: usize,
    partition: i32,
    id: [u8; 16],
}

impl Producer {
    /// The producer number `index` of a seed.
    #[must_use]
    pub fn new(index: usize, value_bytes_max: u64, mut random: Random) -> Self {
        let is_idempotent = random.chance(0.6);
        let acks = if is_idempotent { -1 } else { [-1, -1, -1, 1, 1, 0][random.below(6) as usize] };
        Self {
            name: format!("producer {index}"),
            is_idempotent,
            acks,
            in_flight_max: 1 + random.below(4),
            value_bytes_max,
            random,
            id: None,
            target: None,
            sequences: BTreeMap::new(),
            losses: BTreeMap::new(),
            window: VecDeque::new(),
            is_draining: false,
        }
    }

    /// Whether everything that it sent was answered.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.window.is_empty()
    }

    fn start_anew(&mut self) {
        self.id = None;
        self.sequences.clear();
        self.window.clear();
        self.target = None;
    }
}

/// Its life in one life of the machine.
pub async fn run(producer: Rc<RefCell<Producer>>, life: Rc<Life>) {
    let mut client = Client::default();
    loop {
        let (pause, is_idle) = {
            let mut producer = producer.borrow_mut();
            let producer = &mut *producer;
            let micros = if producer.random.chance(0.05) { 3_000_000 } else { 20_000 };
            (producer.random.below(micros), producer.is_draining && producer.window.is_empty())
        };
        life.env.sleep(Duration::from_micros(pause)).await;
        if is_idle {
            life.env.sleep(Duration::from_millis(100)).await;
            continue;
        }
        if !has_id(&producer, &life, &mut client).await {
            continue;
        }
        if !fill(&mut producer.borrow_mut(), &life) {
            life.env.sleep(Duration::from_millis(50)).await;
            continue;
        }
        send(&producer, &life, &mut client).await;
    }
}

/// Gets an id where one is needed. Returns whether there is one, or none is needed.
async fn has_id(producer: &RefCell<Producer>, life: &Life, client: &mut Client) -> bool {
    if !producer.borrow().is_idempotent || producer.borrow().id.is_some() {
        return true;
    }
    let version = version(&mut producer.borrow_mut().random, ApiKey::InitProducerId, 0);
    let request = InitProducerIdRequest { producer_id: -1, producer_epoch: -1, ..InitProducerIdRequest::default() };
    let Some((correlation, frame)) = client.ask(life, &request, version).await else { return false };
    let response: InitProducerIdResponse = wire::answer(&frame, version, correlation);
    if !response.error_code.is_none() {
        assert!(response.error_code.is_retriable(), "an id for a producer: {}", response.error_code);
        return false;
    }
    let mut producer = producer.borrow_mut();
    life.say(|| format!("{} is {}", producer.name, response.producer_id));
    producer.id = Some((response.producer_id, response.producer_epoch));
    true
}

/// Makes batches for the window where it is empty. Returns whether there is anything to send.
fn fill(producer: &mut Producer, life: &Life) -> bool {
    if !producer.window.is_empty() {
        return true;
    }
    let mut model = life.model.borrow_mut();
    let is_there = |target: &Target| model.topics[target.topic].existence == Existence::Present;
    if producer.target.as_ref().is_none_or(|target| !is_there(target)) || producer.random.chance(0.2) {
        producer.target =
            pick_partition(&model, &mut producer.random).map(|(topic, partition, id)| Target { topic, partition, id });
    }
    let Some(target) = producer.target else { return false };
    for _ in 0..1 + producer.random.below(producer.in_flight_max) {
        let number = model.number();
        let sent = make(producer, target, number, life);
        model.sent.insert(number, sent);
        producer.window.push_back(number);
    }
    true
}

fn make(producer: &mut Producer, target: Target, number: u64, life: &Life) -> Sent {
    let random = &mut producer.random;
    let records = 1 + random.below(4);
    let value_max = match random.below(20) {
        0 => 12_000,
        1..=4 => 2_000,
        _ => 40,
    };
    // A batch has to fit into a segment.
    let value_max = value_max.min(producer.value_bytes_max);
    let mut builder = BatchBuilder::new(Offset(0));
    if random.chance(0.1) {
        builder = builder.codec([Codec::Lz4, Codec::Zstd, Codec::Gzip, Codec::Snappy][random.below(4) as usize]);
    }
    if let Some((id, epoch)) = producer.id.filter(|_| producer.is_idempotent) {
        let sequence = producer.sequences.entry((target.topic, target.partition)).or_insert(0);
        builder = builder.producer(ProducerId(id), epoch, *sequence);
        *sequence += records as i32;
    }
    for record in 0..records {
        let mut value = vec![number as u8; random.below(value_max) as usize];
        value.extend_from_slice(&(number * 16 + record).to_le_bytes());
        builder.push(life.env.now(), Some(&number.to_le_bytes()), Some(&value), &[]);
    }
    Sent {
        topic: target.topic,
        partition: target.partition,
        bytes: builder.build(),
        records: records as i64,
        is_idempotent: producer.is_idempotent,
        times: 0,
    }
}

/// What is sent for a batch. Some clients never set the largest timestamp, which the broker then corrects: what is in the log is
/// the batch as it should be.
fn on_the_wire(number: u64, bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut bytes = Cow::Borrowed(bytes);
    if number.is_multiple_of(8) {
        set_max_timestamp(bytes.to_mut(), TimestampMs::NONE);
    }
    bytes
}

/// Sends the window in order and takes in the answers.
async fn send(producer: &Rc<RefCell<Producer>>, life: &Life, client: &mut Client) {
    let (window, acks, name) = {
        let producer = producer.borrow();
        (producer.window.clone(), producer.acks, producer.name.clone())
    };
    let Some(target) = producer.borrow().target else { return };
    let version = version(&mut producer.borrow_mut().random, ApiKey::Produce, TOPIC_ID_VERSION_MIN);
    let mut answers = Vec::new();
    for &number in &window {
        let mut model = life.model.borrow_mut();
        let at = model.sending(number);
        let bytes = on_the_wire(number, &model.sent[&number].bytes);
        let records = Records::Bytes(&bytes);
        let partition = PartitionProduceData { index: target.partition, records };
        let topic = TopicProduceData { topic_id: target.id, partition_data: vec![partition], ..TopicProduceData::default() };
        let request = ProduceRequest { acks, timeout_ms: 2_000, topic_data: vec![topic], ..ProduceRequest::default() };
        let (correlation, answer) = client.send(life, &request, version);
        life.say(|| {
            let sequence = crate::model::sequence_of(&model.sent[&number].bytes);
            format!(
                "{name} sends batch {number} to {}-{} acks {acks} {sequence:?}",
                model.topics[target.topic].name, target.partition
            )
        });
        answers.push((number, at, correlation, answer));
    }
    if acks == 0 {
        producer.borrow_mut().window.clear();
        return;
    }
    let mut all_well = true;
    for (number, at, correlation, answer) in answers {
        let Some(frame) = life.wait(answer).await else {
            life.say(|| format!("{name} hears nothing of batch {number}"));
            client.close();
            return;
        };
        let response: ProduceResponse<'_> = wire::answer(&frame, version, correlation);
        let answer = &response.responses[0].partition_responses[0];
        life.say(|| format!("{name} batch {number}: {} {} {:?}", answer.error_code, answer.base_offset, answer.error_message));
        let mut producer = producer.borrow_mut();
        let mut model = life.model.borrow_mut();
        let existence = model.topics[target.topic].existence;
        match answer.error_code {
            ErrorCode::NONE => {
                model.acknowledge(number, answer.base_offset, acks, at, life.now());
                producer.window.retain(|&waiting| waiting != number);
            }
            code if is_unknown_topic(code) => {
                let what = &model.topics[target.topic].name;
                assert!(existence != Existence::Present, "TopicStays: a producer is told that there is no {what}");
                producer.window.clear();
                producer.target = None;
                return;
            }
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER if all_well => {
                let key = (target.topic, target.partition);
                let id = producer.id.map_or(-1, |(id, _)| id);
                let is_forgotten = model.is_producer_forgotten(target.topic, target.partition, id);
                let partition = model.partition(target.topic, target.partition);
                let known = producer.losses.insert(key, partition.losses).unwrap_or(0);
                let has_rotted = partition.damage.iter().any(|damage| damage.producer == Some(id));
                let is_excused = partition.losses > known || has_rotted || is_forgotten;
                assert!(is_excused, "RetriesAreTaken: {name}, batch {number}: {:?}", answer.error_message);
                producer.start_anew();
                return;
            }
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER => {}
            code if code.is_retriable() && code != ErrorCode::CORRUPT_MESSAGE => all_well = false,
            code => panic!("RetriesAreTaken: {name}, batch {number}: {code} {:?}", answer.error_message),
        }
    }
}
