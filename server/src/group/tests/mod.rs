//! A shard under test: a clock that is set, a log that is a list, and answers by call.

mod classic;
mod consumer;
mod consumer_model;
mod large;
mod migration;
mod mixed_model;
mod model;
mod offsets;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::types::TimestampMs;
use ringlog_protocol::group_records::GroupRecord;
use ringlog_protocol::{ErrorCode, Uuid};

use super::request::{Commit, CommitOffset, Identity, Join, Joined, Leaver, Listed, Reply, Sync, Synced};
use super::*;
use crate::config::{BrokerConfig, GroupConfig};

const GROUP: &str = "group";

fn settings() -> Settings {
    Settings {
        session_timeout_min: Duration::from_secs(6),
        session_timeout_max: Duration::from_secs(1800),
        initial_rebalance_delay: Duration::from_secs(3),
        group_size_max: 100,
        consumer_assignors: vec![Assignor::Uniform, Assignor::Range],
        group_defaults: GroupConfig {
            consumer_assignment_interval_ms: 0,
            consumer_heartbeat_interval_ms: 5000,
            consumer_session_timeout_ms: 45_000,
        },
        consumer_group_size_max: 100,
        serves_consumer_protocol: true,
        allows_upgrade: true,
        allows_downgrade: true,
        offset_metadata_units_max: 20,
        offsets_retention_ms: 1_000_000,
        memory_bytes_max: 1 << 20,
    }
}

/// Topics: name, id, number of partitions.
#[derive(Default)]
struct TestTopics(BTreeMap<Name, (Uuid, i32)>);

impl TopicView for TestTopics {
    fn by_name(&self, name: &str) -> Option<(Uuid, i32)> {
        self.0.get(name).copied()
    }

    fn name_of(&self, id: Uuid) -> Option<Name> {
        self.0.iter().find(|(_, (topic, _))| *topic == id).map(|(name, _)| name.clone())
    }

    fn names(&self) -> Box<dyn Iterator<Item = &Name> + '_> {
        Box::new(self.0.keys())
    }
}

/// One shard whose records are committed at once, or ([`Driver::start_late`]) when the test says so.
struct Driver {
    shard: Shard,
    settings: Rc<Settings>,
    usage: Usage,
    time: Duration,
    next_call: u64,
    log: Vec<RawRecord>,
    topics: Arc<TestTopics>,
    configs: Arc<GroupConfigs>,
    answers: BTreeMap<CallId, Answer>,
    /// Outputs that are not committed, in order.
    queue: VecDeque<Output>,
    /// What the last input cost.
    work: usize,
}

fn numbers(mut next: u128) -> Box<dyn FnMut() -> u128> {
    Box::new(move || {
        next += 1;
        next
    })
}

impl Driver {
    fn new(settings: Settings) -> Self {
        let (settings, usage) = (Rc::new(settings), Usage::default());
        let shard = Shard::new(settings.clone(), usage.clone(), numbers(0));
        let time = Duration::from_secs(1_000_000);
        let (topics, configs, answers) = (Arc::default(), Arc::default(), BTreeMap::new());
        let (next_call, log, queue, work) = (0, Vec::new(), VecDeque::new(), 0);
        Self { shard, settings, usage, time, next_call, log, topics, configs, answers, queue, work }
    }

    /// The group has set this for itself, and nothing else.
    fn set_config(&mut self, settings: &[(&str, &str)]) {
        let own = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let overrides = Arc::new(BTreeMap::from([(Name::from(GROUP), Arc::new(own))]));
        let broker = BrokerConfig::load(None, &[]).unwrap().0;
        self.configs = Arc::new(self.configs.next(&broker, &overrides));
        self.shard.set_configs(self.configs.clone());
    }

    /// There are these topics now.
    fn set_topics(&mut self, topics: &[(&str, u8, i32)]) {
        let topics = topics.iter().map(|(name, id, count)| (Name::from(*name), ([*id; 16], *count)));
        self.topics = Arc::new(TestTopics(topics.collect()));
        self.shard.set_topics(self.topics.clone());
    }

    fn now(&self) -> Now {
        Now { monotonic: self.time, wall: TimestampMs(self.time.as_millis() as i64) }
    }

    fn take(&mut self, out: Output) {
        self.log.extend(out.records);
        self.work = out.work;
        for (call, answer) in out.replies {
            assert!(self.answers.insert(call, answer).is_none(), "{call:?} is answered once");
        }
    }

    fn handle(&mut self, group: &str, request: Request) -> (CallId, Output) {
        let call = CallId(self.next_call);
        self.next_call += 1;
        let mut out = Output::default();
        self.shard.handle(call, group, request, self.now(), &mut out);
        (call, out)
    }

    /// The next tick that is due by then.
    fn tick_by(&mut self, end: Duration) -> Option<Output> {
        let at = self.shard.next_deadline().filter(|at| *at <= end)?;
        self.time = self.time.max(at);
        let mut out = Output::default();
        self.shard.tick(self.now(), &mut out);
        Some(out)
    }

    fn start_in(&mut self, group: &str, request: Request) -> CallId {
        let (call, out) = self.handle(group, request);
        self.take(out);
        call
    }

    /// Hands a request over. Its records and answers wait.
    fn start_late(&mut self, request: Request) -> CallId {
        let (call, out) = self.handle(GROUP, request);
        self.queue.push_back(out);
        call
    }

    /// Lets time pass. What that comes to waits.
    fn pass_late(&mut self, duration: Duration) {
        let end = self.time + duration;
        while let Some(out) = self.tick_by(end) {
            self.queue.push_back(out);
        }
        self.time = end;
    }

    /// Commits the first output that waits, and returns its answers.
    fn commit_next(&mut self) -> Option<Vec<(CallId, Answer)>> {
        let out = self.queue.pop_front()?;
        self.log.extend(out.records);
        Some(out.replies)
    }

    /// What waits is lost, but so many records.
    fn lose_queue(&mut self, kept: usize) {
        self.log.extend(std::mem::take(&mut self.queue).into_iter().flat_map(|out| out.records).take(kept));
    }

    fn start(&mut self, request: Request) -> CallId {
        self.start_in(GROUP, request)
    }

    fn ask(&mut self, request: Request) -> Answer {
        let call = self.start(request);
        self.answer(call)
    }

    fn answer(&mut self, call: CallId) -> Answer {
        self.answers.remove(&call).unwrap_or_else(|| panic!("{call:?} is not answered yet"))
    }

    fn waits(&self, call: CallId) -> bool {
        !self.answers.contains_key(&call)
    }

    /// Lets time pass, with a tick at every deadline.
    fn pass(&mut self, duration: Duration) {
        let end = self.time + duration;
        while let Some(out) = self.tick_by(end) {
            self.take(out);
        }
        self.time = end;
    }

    fn seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    /// A new shard from the log: what waited is forgotten.
    fn restart(&mut self) {
        self.shard = Shard::new(self.settings.clone(), self.usage.clone(), numbers(self.next_call.into()));
        self.shard.set_topics(self.topics.clone());
        self.shard.set_configs(self.configs.clone());
        for record in &self.log {
            self.shard.replay(GroupRecord::decode(&record.key, record.value.as_deref()).expect("a record of our own"));
        }
        let mut out = Output::default();
        self.shard.begin(self.now(), &mut out);
        self.take(out);
    }

    /// Joins and waits for nothing but the delay of an empty group.
    fn join_all(&mut self, joins: Vec<Join>) -> Vec<Joined> {
        let calls: Vec<_> = joins.into_iter().map(|join| self.start(Request::Join(Box::new(join)))).collect();
        for _ in 0..2 {
            // Made longer once for those that came after the first.
            if calls.iter().any(|call| self.waits(*call)) {
                self.seconds(3);
            }
        }
        calls.into_iter().map(|call| joined(self.answer(call))).collect()
    }

    /// A stable group of new members, each with its name as its assignment; the leader first.
    fn stable(&mut self, count: usize) -> Vec<Joined> {
        let mut members = self.join_all(vec![join(""); count]);
        members.sort_by_key(|member| member.leader != member.member);
        let assignments = members.iter().map(|member| (member.member.clone(), Bytes::from(member.member.to_string()))).collect();
        let leader = sync(&members[0], assignments);
        synced(self.ask(leader));
        for member in &members[1..] {
            let request = sync(member, Vec::new());
            assert_eq!(synced(self.ask(request)).assignment, member.member.as_bytes());
        }
        members
    }
}

fn join(member: &str) -> Join {
    Join {
        member: member.into(),
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout: Duration::from_secs(10),
        rebalance_timeout: Duration::from_secs(60),
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription(&["t"]))],
        ..Join::default()
    }
}

fn static_join(instance: &str, member: &str) -> Join {
    Join { instance: Some(instance.into()), ..join(member) }
}

/// What a consumer of these topics says of itself, at version 0.
fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 0];
    bytes.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend((-1_i32).to_be_bytes());
    bytes.into()
}

fn identity(joined: &Joined) -> Identity {
    Identity { member: joined.member.clone(), instance: None, generation: joined.generation }
}

fn sync(joined: &Joined, assignments: Vec<(Name, Bytes)>) -> Request {
    Request::Sync(Sync { identity: identity(joined), protocol_type: None, protocol: None, assignments })
}

fn heartbeat(joined: &Joined) -> Request {
    Request::Heartbeat(identity(joined))
}

fn leave(member: &str) -> Request {
    Request::Leave(vec![Leaver { member: member.into(), instance: None }])
}

fn offset(topic: &str, partition: i32, offset: i64) -> CommitOffset {
    CommitOffset { topic: topic.into(), topic_id: [0; 16], partition, offset, leader_epoch: 3, metadata: "m".into() }
}

fn commit(identity: Identity, offsets: Vec<CommitOffset>) -> Request {
    Request::Commit(Commit { identity, knows_epochs: false, retention_ms: None, offsets })
}

fn nobody() -> Identity {
    Identity { generation: -1, ..Identity::default() }
}

fn joined(answer: Answer) -> Joined {
    match answer {
        Ok(Reply::Joined(joined)) => *joined,
        other => panic!("not joined: {other:?}"),
    }
}

fn synced(answer: Answer) -> Synced {
    match answer {
        Ok(Reply::Synced(synced)) => synced,
        other => panic!("not synced: {other:?}"),
    }
}

#[test]
fn groups_have_kafkas_partitions() {
    // Java: Math.abs("...".hashCode()) % 50.
    for (group, partition) in [("", 0), ("g", 3), ("story", 47), ("größe", 7), ("orders", 31), ("polygenelubricants", 0)] {
        assert_eq!(partition_of(group, 50), partition, "{group}");
    }
}
