//! A consumer: reads partitions on, reads them again, looks for offsets by time, and asks where they begin and end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::batch::batches;
use ringlog_engine::env::random::Random;
use ringlog_protocol::api::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use ringlog_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic};
use ringlog_protocol::{ApiKey, ErrorCode};

use super::{is_unknown_topic, pick as pick_partition, version};
use crate::life::{Client, Life};
use crate::model::{Damage, Existence, Read};
use crate::wire;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// From here on topics are given by id.
const TOPIC_ID_VERSION_MIN: i16 = 13;

/// See the module.
pub struct Consumer {
    random: Random,
    positions: BTreeMap<(usize, i32), i64>,
}

impl Consumer {
    /// A consumer that has read nothing.
    #[must_use]
    pub fn new(random: Random) -> Self {
        Self { random, positions: BTreeMap::new() }
    }
}

/// Its life in one life of the machine.
pub async fn run(consumer: Rc<RefCell<Consumer>>, life: Rc<Life>) {
    let mut client = Client::default();
    loop {
        let (pause, action, picked) = {
            let random = &mut consumer.borrow_mut().random;
            (random.below(60_000), random.below(8), pick_partition(&life.model.borrow(), random))
        };
        life.env.sleep(Duration::from_micros(pause)).await;
        let Some((topic, partition, id)) = picked else {
            life.env.sleep(Duration::from_millis(50)).await;
            continue;
        };
        if action == 0 {
            list_offsets(&consumer, &life, &mut client, topic, partition).await;
            continue;
        }
        let known = life.model.borrow_mut().heard(topic, partition);
        let (from, is_next) = {
            let mut consumer = consumer.borrow_mut();
            let position = consumer.positions.get(&(topic, partition)).copied().unwrap_or(0).max(known.log_start);
            let span = (known.visible - known.log_start).max(0) as u64;
            match action {
                1..=3 => (known.log_start + consumer.random.below(span + 1) as i64, false),
                _ => (position, true),
            }
        };
        let (bytes_max, wait_ms) = {
            let random = &mut consumer.borrow_mut().random;
            ([1, 100, 5_000, 1 << 20][random.below(4) as usize], [0, 0, 20, 500][random.below(4) as usize])
        };
        let version = version(&mut consumer.borrow_mut().random, ApiKey::Fetch, TOPIC_ID_VERSION_MIN);
        let fetched = fetch(&life, &mut client, version, Wanted { topic, partition, id, from, bytes_max, wait_ms }).await;
        let next = match fetched {
            Fetched::Batches(reads) => reads.last().map(|last| last.end),
            Fetched::OutOfRange => Some(0),
            Fetched::Damaged | Fetched::Nothing => None,
        };
        if let Some(next) = next.filter(|_| is_next) {
            consumer.borrow_mut().positions.insert((topic, partition), next);
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The topic.
    pub topic: usize,
    /// The partition.
    pub partition: i32,
    /// The topic's id.
    pub id: [u8; 16],
    /// The offset.
    pub from: i64,
    /// How much, at most.
    pub bytes_max: i32,
    /// How long to wait for something.
    pub wait_ms: i32,
}

/// What came.
#[derive(Debug)]
pub enum Fetched {
    /// Sound batches, perhaps none.
    Batches(Vec<Read>),
    /// The offset was removed, or is not there yet.
    OutOfRange,
    /// What is stored there is damaged.
    Damaged,
    /// No answer, or an error that passes.
    Nothing,
}

/// Fetches, and holds what comes against what is known.
pub async fn fetch(life: &Life, client: &mut Client, version: i16, wanted: Wanted) -> Fetched {
    let Wanted { topic, partition, id, from, bytes_max, wait_ms } = wanted;
    let known = life.model.borrow_mut().heard(topic, partition);
    let damaged_before = life.model.borrow_mut().partition(topic, partition).damage.len();
    let wanted_partition =
        FetchPartition { partition, fetch_offset: from, partition_max_bytes: bytes_max, ..FetchPartition::default() };
    let request = FetchRequest {
        max_wait_ms: wait_ms,
        min_bytes: 1,
        max_bytes: bytes_max,
        topics: vec![FetchTopic { topic_id: id, partitions: vec![wanted_partition], ..FetchTopic::default() }],
        ..FetchRequest::default()
    };
    let Some((correlation, frame)) = client.ask(life, &request, version).await else { return Fetched::Nothing };
    let response: FetchResponse<'_> = wire::answer(&frame, version, correlation);
    assert!(response.error_code.is_none(), "a fetch without a session: {}", response.error_code);
    let answer = &response.responses[0].partitions[0];
    let mut model = life.model.borrow_mut();
    let name = format!("{}-{partition}", model.topics[topic].name);
    match answer.error_code {
        ErrorCode::NONE => {
            model.hear(topic, partition, Some(answer.log_start_offset), Some(answer.high_watermark), known);
            let bytes = answer.records.bytes().unwrap_or_default();
            let damage = &model.partition(topic, partition).damage;
            if has_damage_in(bytes, damage.get(damaged_before..).unwrap_or_default()) {
                // It rotted between the check and the sending. Pages that were checked do not; this disk has no page cache.
                return Fetched::Nothing;
            }
            let reads = model.read(topic, partition, bytes, from, answer.high_watermark);
            life.say(|| {
                let (start, end) = (answer.log_start_offset, answer.high_watermark);
                format!(
                    "reads {name} ({start} to {end}) from {from}: {:?}",
                    reads.iter().map(|r| (r.base, r.number)).collect::<Vec<_>>()
                )
            });
            let is_new = from >= answer.high_watermark;
            assert!(
                !reads.is_empty() || is_new,
                "ReadFindsTheBatch: {name} gives nothing at {from}, below {}",
                answer.high_watermark
            );
            Fetched::Batches(reads)
        }
        ErrorCode::OFFSET_OUT_OF_RANGE => {
            let has_retention = model.topics[topic].has_retention;
            let there = model.partition(topic, partition);
            let may_be_gone = has_retention || from < there.log_start_max;
            let was_there = from >= known.log_start && from <= known.visible.max(known.acknowledged);
            assert!(may_be_gone || !was_there, "ReadFindsTheBatch: {name} says that {from} is out of range");
            life.say(|| format!("{name} has no offset {from}"));
            Fetched::OutOfRange
        }
        ErrorCode::CORRUPT_MESSAGE => {
            model.check_refused(topic, partition, from);
            life.say(|| format!("{name} is damaged at {from}"));
            Fetched::Damaged
        }
        ErrorCode::KAFKA_STORAGE_ERROR => {
            // Its file may be gone while it is being deleted; the next answer says so.
            let there = &model.topics[topic];
            let may_be_gone = there.existence != Existence::Present || there.has_retention;
            let is_excused = model.reads_fail || may_be_gone || from < model.partition(topic, partition).log_start_max;
            assert!(is_excused, "ReadFindsTheBatch: {name} at {from} cannot be read, and no disk failed");
            Fetched::Nothing
        }
        code if is_unknown_topic(code) => {
            assert!(
                model.topics[topic].existence != Existence::Present,
                "TopicStays: a consumer is told that there is no {name}"
            );
            Fetched::Nothing
        }
        code => panic!("ReadFindsTheBatch: {name} at {from}: {code}"),
    }
}

/// Whether a batch in these ranges of offsets has another CRC than it says.
fn has_damage_in(bytes: &[u8], ranges: &[Damage]) -> bool {
    let is_in = |offset: i64| ranges.iter().any(|damage| damage.has(offset));
    let mut all = batches(bytes).filter_map(Result::ok);
    !ranges.is_empty() && all.any(|batch| is_in(batch.header().base_offset.0) && batch.check_crc().is_err())
}

async fn list_offsets(consumer: &RefCell<Consumer>, life: &Life, client: &mut Client, topic: usize, partition: i32) {
    let (version, timestamp) = {
        let random = &mut consumer.borrow_mut().random;
        let timestamp = [LATEST, EARLIEST][random.below(2) as usize];
        (version(random, ApiKey::ListOffsets, 1), timestamp)
    };
    let known = life.model.borrow_mut().heard(topic, partition);
    let name = life.model.borrow().topics[topic].name.clone();
    let wanted = ListOffsetsPartition { partition_index: partition, timestamp, ..ListOffsetsPartition::default() };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic { name: name.as_str().into(), partitions: vec![wanted] }],
        ..ListOffsetsRequest::default()
    };
    let Some((correlation, frame)) = client.ask(life, &request, version).await else { return };
    let response: ListOffsetsResponse<'_> = wire::answer(&frame, version, correlation);
    let answer = &response.topics[0].partitions[0];
    let mut model = life.model.borrow_mut();
    // By name: it may be another topic by now.
    if model.topics[topic].existence != Existence::Present {
        return;
    }
    match answer.error_code {
        ErrorCode::NONE if timestamp == LATEST => model.hear(topic, partition, None, Some(answer.offset), known),
        ErrorCode::NONE => model.hear(topic, partition, Some(answer.offset), None, known),
        code if is_unknown_topic(code) => panic!("TopicStays: there is no {name}-{partition}"),
        code => panic!("the ends of {name}-{partition}: {code}"),
    }
}
