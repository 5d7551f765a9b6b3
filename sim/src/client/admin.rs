//! The administrator: creates and deletes topics, adds partitions, changes options, deletes records, and looks at what there is.
//! There is one, and it waits for an answer or the end of a connection, so that what may be is known at any time.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::env::random::Random;
use ringlog_protocol::api::create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic};
use ringlog_protocol::api::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse};
use ringlog_protocol::api::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic,
};
use ringlog_protocol::api::delete_topics::{DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};
use ringlog_protocol::api::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use ringlog_protocol::api::metadata::{MetadataRequest, MetadataResponse};
use ringlog_protocol::{ApiKey, ErrorCode};

use super::{is_unknown_topic, pick as pick_partition, version};
use crate::life::{Client, Life};
use crate::model::{Existence, Model, NEVER, Partition, Topic};
use crate::wire;

/// The names of topics.
pub(crate) const NAMES: [&str; 5] = ["amber", "basalt", "cobalt", "dolomite", "eocene"];
/// How many partitions they have, at most.
pub(crate) const PARTITIONS_MAX: usize = 4;
const TOPIC: i8 = 2;
const SET: i8 = 0;

/// See the module.
pub struct Admin {
    random: Random,
    /// Whether it leaves everything as it is.
    pub is_draining: bool,
    habits: Habits,
}

/// What the seed's hazards make of topics' options.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Whether segments are so small that they are full before they are old.
    pub has_small_segments: bool,
    /// Whether retention goes by time alone.
    pub retains_by_time: bool,
}

impl Admin {
    /// An administrator who has done nothing yet.
    #[must_use]
    pub fn new(random: Random, habits: Habits) -> Self {
        Self { random, is_draining: false, habits }
    }
}

/// A topic's options, and what the model has to know of them.
struct Options {
    flush_messages: i64,
    flush_ms: i64,
    has_retention: bool,
    configs: Vec<(&'static str, i64)>,
}

fn options(random: &mut Random, habits: Habits) -> Options {
    let flush_messages = [1, 1, 1, 3, 20, NEVER][random.below(6) as usize];
    let flush_ms = [NEVER, NEVER, 100, 2_000][random.below(4) as usize];
    let mut configs = vec![("flush.messages", flush_messages), ("flush.ms", flush_ms)];
    configs.push(("index.interval.bytes", [0, 200, 4096][random.below(3) as usize]));
    // Segments are rolled by the length of their index or their age, and by size where that is small.
    configs.push(("segment.index.bytes", [16, 40, 160, 4096][random.below(4) as usize]));
    configs.push(("segment.ms", [20, 300, 3_600_000][random.below(3) as usize]));
    if habits.has_small_segments {
        configs.retain(|(name, _)| !name.starts_with("segment."));
    }
    let has_retention = random.chance(0.25);
    if has_retention {
        configs.push(("retention.bytes", [0, 3_000, 30_000][random.below(3) as usize]));
        configs.push(("retention.ms", [-1, 2_000, 60_000][random.below(3) as usize]));
        configs.retain(|(name, _)| !(habits.retains_by_time && *name == "retention.bytes"));
    }
    Options { flush_messages, flush_ms, has_retention, configs }
}

/// Its life in one life of the machine.
pub async fn run(admin: Rc<RefCell<Admin>>, life: Rc<Life>) {
    let mut client = Client::default();
    loop {
        let is_beginning = life.model.borrow().topics.iter().filter(|topic| topic.existence == Existence::Present).count() < 2;
        let (pause, action, is_draining, habits) = {
            let admin = &mut *admin.borrow_mut();
            let pause = if is_beginning { 2_000 } else { 300_000 };
            (admin.random.below(pause), admin.random.below(12), admin.is_draining, admin.habits)
        };
        life.env.sleep(Duration::from_micros(pause)).await;
        let random = || admin.borrow_mut().random.fork();
        match action {
            _ if is_draining => look(&life, &mut client, random()).await,
            _ if is_beginning => create(&life, &mut client, random(), habits).await,
            0 | 1 => create(&life, &mut client, random(), habits).await,
            2 => delete(&life, &mut client, random()).await,
            3 => add_partitions(&life, &mut client, random()).await,
            4..=6 => configure(&life, &mut client, random(), habits).await,
            7 | 8 => delete_records(&life, &mut client, random()).await,
            _ => look(&life, &mut client, random()).await,
        }
    }
}

async fn create(life: &Life, client: &mut Client, mut random: Random, habits: Habits) {
    let name = NAMES[random.below(NAMES.len() as u64) as usize];
    let known = life.model.borrow().by_name(name);
    let was = known.map(|at| life.model.borrow().topics[at].existence);
    if was.is_some_and(|was| was != Existence::MayCome) {
        return;
    }
    let Options { flush_messages, flush_ms, has_retention, configs } = options(&mut random, habits);
    let count = 1 + random.below(PARTITIONS_MAX as u64 - 1) as usize;
    let topic = {
        let mut model = life.model.borrow_mut();
        let topic = known.unwrap_or_else(|| {
            model.topics.push(Topic {
                name: name.to_owned(),
                id: None,
                existence: Existence::MayCome,
                partitions: Vec::new(),
                partitions_maybe: None,
                flush_messages: BTreeSet::new(),
                flush_ms: BTreeSet::new(),
                flush_changes: 0,
                is_durable_throughout: false,
                has_retention: false,
                retention_ms_min: None,
                retains_by_bytes: false,
                is_deletion_asked: false,
            });
            model.topics.len() - 1
        });
        // What of this comes to be is known when it is seen, unless there is an answer.
        let there = &mut model.topics[topic];
        there.flush_messages.insert(flush_messages);
        there.flush_ms.insert(flush_ms);
        there.has_retention |= has_retention;
        there.note_retention(&configs);
        topic
    };
    let configs = configs
        .into_iter()
        .map(|(name, value)| CreatableTopicConfig { name: name.into(), value: Some(value.to_string().into()) });
    let creatable = CreatableTopic {
        name: name.into(),
        num_partitions: count as i32,
        replication_factor: 1,
        configs: configs.collect(),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![creatable], ..CreateTopicsRequest::default() };
    life.say(|| format!("admin creates {name} with {count} partitions, flush.messages {flush_messages}"));
    let version = 7;
    let Some((correlation, frame)) = client.ask(life, &request, version).await else { return };
    let response: CreateTopicsResponse<'_> = wire::answer(&frame, version, correlation);
    let answer = &response.topics[0];
    life.say(|| format!("admin: {name} {} {:?}", answer.error_code, answer.error_message));
    let mut model = life.model.borrow_mut();
    match answer.error_code {
        ErrorCode::NONE => {
            let there = &mut model.topics[topic];
            there.id = Some(answer.topic_id);
            there.existence = Existence::Present;
            there.partitions.resize_with(count, Partition::default);
            there.flush_messages = BTreeSet::from([flush_messages]);
            there.flush_ms = BTreeSet::from([flush_ms]);
            there.is_durable_throughout = flush_messages == 1;
        }
        ErrorCode::TOPIC_ALREADY_EXISTS => {
            assert!(was.is_some(), "TopicStaysDeleted: {name} is not there, and cannot be created: it exists");
        }
        code => assert!(code.is_retriable(), "creating {name}: {code} {:?}", answer.error_message),
    }
}

/// Some topic that is there.
fn pick(model: &Model, random: &mut Random, also: Existence) -> Option<usize> {
    let there: Vec<_> = (0..model.topics.len())
        .filter(|&at| model.topics[at].existence == Existence::Present || model.topics[at].existence == also)
        .collect();
    there.get(random.below(there.len() as u64) as usize).copied()
}

async fn delete(life: &Life, client: &mut Client, mut random: Random) {
    let Some(topic) = pick(&life.model.borrow(), &mut random, Existence::MayGo) else { return };
    let (name, was) = {
        let mut model = life.model.borrow_mut();
        let there = &mut model.topics[topic];
        there.is_deletion_asked = true;
        (there.name.clone(), std::mem::replace(&mut there.existence, Existence::MayGo))
    };
    let version = version(&mut random, ApiKey::DeleteTopics, 1);
    let mut request = DeleteTopicsRequest { timeout_ms: 1_000, ..DeleteTopicsRequest::default() };
    if version >= 6 {
        request.topics.push(DeleteTopicState { name: Some(name.as_str().into()), ..DeleteTopicState::default() });
    } else {
        request.topic_names.push(name.as_str().into());
    }
    life.say(|| format!("admin deletes {name}"));
    let Some((correlation, frame)) = client.ask(life, &request, version).await else { return };
    let response: DeleteTopicsResponse<'_> = wire::answer(&frame, version, correlation);
    let code = response.responses[0].error_code;
    life.say(|| format!("admin: {name} {code}"));
    let there = &mut life.model.borrow_mut().topics[topic];
    match code {
        ErrorCode::NONE => there.existence = Existence::Gone,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
            assert!(was == Existence::MayGo, "TopicStays: {name} cannot be deleted: there is none");
            there.existence = Existence::Gone;
        }
        code => assert!(code.is_retriable(), "deleting {name}: {code}"),
    }
}

async fn add_partitions(life: &Life, client: &mut Client, mut random: Random) {
    let Some(topic) = pick(&life.model.borrow(), &mut random, Existence::Present) else { return };
    let (name, count, was_asked) = {
        let mut model = life.model.borrow_mut();
        let there = &mut model.topics[topic];
        let was_asked = there.partitions_maybe.is_some();
        let count = *there.partitions_maybe.get_or_insert(there.partitions.len() + 1);
        if count > PARTITIONS_MAX {
            there.partitions_maybe = None;
            return;
        }
        (there.name.clone(), count, was_asked)
    };
    let version = version(&mut random, ApiKey::CreatePartitions, 0);
    let wanted = CreatePartitionsTopic { name: name.as_str().into(), count: count as i32, assignments: None };
    let request = CreatePartitionsRequest { topics: vec![wanted], timeout_ms: 1_000, validate_only: false };
    life.say(|| format!("admin gives {name} {count} partitions"));
    let Some((correlation, frame)) = client.ask(life, &request, version).await else { return };
    let response: CreatePartitionsResponse<'_> = wire::answer(&frame, version, correlation);
    let code = response.results[0].error_code;
    life.say(|| format!("admin: {name} {code}"));
    let there = &mut life.model.borrow_mut().topics[topic];
    match code {
        ErrorCode::NONE => {
            there.partitions.resize_with(count, Partition::default);
            there.partitions_maybe = None;
        }
        ErrorCode::INVALID_PARTITIONS => assert!(was_asked, "PartitionsStay: {name} has {count} already"),
        code => assert!(code.is_retriable(), "adding partitions to {name}: {code}"),
    }
}

async fn configure(life: &Life, client: &mut Client, mut random: Random, habits: Habits) {
    let Some(topic) = pick(&life.model.borrow(), &mut random, Existence::Present) else { return };
    let Options { configs, has_retention, .. } = options(&mut random, Habits { has_small_segments: false, ..habits });
    let (key, value) = configs[random.below(configs.len() as u64) as usize];
    let name = {
        let mut model = life.model.borrow_mut();
        let there = &mut model.topics[topic];
        there.has_retention |= has_retention && key.starts_with("retention");
        there.note_retention(&[(key, value)]);
        if key.starts_with("flush") {
            let maybe = if key == "flush.ms" { &mut there.flush_ms } else { &mut there.flush_messages };
            maybe.insert(value);
            there.flush_changes += 1;
            there.is_durable_throughout = false;
        }
        there.name.clone()
    };
    let version = version(&mut random, ApiKey::IncrementalAlterConfigs, 0);
    let config = AlterableConfig { name: key.into(), config_operation: SET, value: Some(value.to_string().into()) };
    let resource = AlterConfigsResource { resource_type: TOPIC, resource_name: name.as_str().into(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    life.say(|| format!("admin sets {key}={value} of {name}"));
    let Some((correlation, frame)) = client.ask(life, &request, version).await else { return };
    let response: IncrementalAlterConfigsResponse<'_> = wire::answer(&frame, version, correlation);
    let code = response.responses[0].error_code;
    life.say(|| format!("admin: {name} {code}"));
    let there = &mut life.model.borrow_mut().topics[topic];
    if code.is_none() {
        match key {
            "flush.messages" => there.flush_messages = BTreeSet::from([value]),
            "flush.ms" => there.flush_ms = BTreeSet::from([value]),
            _ => {}
        }
    } else {
        assert!(code.is_retriable(), "setting {key}={value} of {name}: {code} {:?}", response.responses[0].error_message);
    }
}

async fn delete_records(life: &Life, client: &mut Client, mut random: Random) {
    let Some((topic, partition, _)) = pick_partition(&life.model.borrow(), &mut random) else { return };
    let known = life.model.borrow_mut().heard(topic, partition);
    let span = (known.visible - known.log_start).max(0) as u64;
    let offset = known.log_start + random.below(span + 1) as i64;
    let name = {
        let mut model = life.model.borrow_mut();
        let there = model.partition(topic, partition);
        there.log_start_max = there.log_start_max.max(offset);
        there.deleted_to = there.deleted_to.max(offset);
        model.topics[topic].name.clone()
    };
    let version = version(&mut random, ApiKey::DeleteRecords, 0);
    let wanted = DeleteRecordsPartition { partition_index: partition, offset };
    let wanted = DeleteRecordsTopic { name: name.as_str().into(), partitions: vec![wanted] };
    let request = DeleteRecordsRequest { topics: vec![wanted], timeout_ms: 1_000 };
    life.say(|| format!("admin deletes the records of {name}-{partition} below {offset}"));
    let Some((correlation, frame)) = client.ask(life, &request, version).await else { return };
    let response: DeleteRecordsResponse<'_> = wire::answer(&frame, version, correlation);
    let answer = &response.topics[0].partitions[0];
    life.say(|| format!("admin: {name}-{partition} {} {}", answer.error_code, answer.low_watermark));
    let mut model = life.model.borrow_mut();
    match answer.error_code {
        ErrorCode::NONE => {
            assert!(
                answer.low_watermark >= offset,
                "LogStartNeverRetreats: {name}-{partition} starts at {}",
                answer.low_watermark
            );
            model.hear(topic, partition, Some(answer.low_watermark), None, known);
        }
        ErrorCode::OFFSET_OUT_OF_RANGE => {
            assert!(model.topics[topic].has_retention, "ReadFindsTheBatch: {name}-{partition} has no offset {offset}");
        }
        code if is_unknown_topic(code) => panic!("TopicStays: {name}-{partition} is not there"),
        code => assert!(code.is_retriable(), "deleting records: {code}"),
    }
}

async fn look(life: &Life, client: &mut Client, mut random: Random) {
    // From here on topics have their ids.
    let version = version(&mut random, ApiKey::Metadata, 10);
    let request = MetadataRequest { topics: None, allow_auto_topic_creation: false, ..MetadataRequest::default() };
    let Some((correlation, frame)) = client.ask(life, &request, version).await else { return };
    let response: MetadataResponse<'_> = wire::answer(&frame, version, correlation);
    life.model.borrow_mut().look(&listed(&response), false);
}

/// Name, id and partitions of the topics in an answer.
#[must_use]
pub fn listed(response: &MetadataResponse<'_>) -> Vec<(String, [u8; 16], usize)> {
    let topics = response.topics.iter().filter(|topic| !topic.is_internal);
    topics.map(|topic| (topic.name.as_deref().unwrap_or_default().to_owned(), topic.topic_id, topic.partitions.len())).collect()
}

impl Model {
    /// What topics there are, by name, id and number of partitions. After a start nothing of it may come or go any more.
    pub fn look(&mut self, listed: &[(String, [u8; 16], usize)], is_final: bool) {
        for (name, _, _) in listed {
            assert!(self.by_name(name).is_some(), "TopicStaysDeleted: {name} is there");
        }
        for topic in self.topics.iter_mut().filter(|topic| topic.existence != Existence::Gone) {
            let found = listed.iter().find(|(name, _, _)| *name == topic.name);
            let Some((name, id, count)) = found else {
                assert!(topic.existence != Existence::Present, "TopicStays: {} is not there", topic.name);
                if is_final {
                    topic.existence = Existence::Gone;
                }
                continue;
            };
            if let Some(known) = topic.id {
                assert_eq!(*id, known, "TopicStays: {name} is another topic");
            }
            match topic.existence {
                Existence::MayCome => {
                    topic.id = Some(*id);
                    // It may be listed before all of its partitions are open.
                    if is_final {
                        topic.partitions.resize_with(*count, Partition::default);
                        topic.existence = Existence::Present;
                    }
                }
                Existence::MayGo if is_final => {
                    topic.existence = Existence::Present;
                    topic.is_deletion_asked = false;
                }
                _ => {}
            }
            let known = topic.partitions.len();
            if topic.existence == Existence::Present && topic.partitions_maybe == Some(*count) {
                topic.partitions.resize_with(*count, Partition::default);
                topic.partitions_maybe = None;
            } else if topic.existence == Existence::Present {
                assert_eq!(*count, known, "PartitionsStay: {name}");
            }
            if is_final {
                topic.partitions_maybe = None;
            }
        }
    }
}
