//! What groups hold of the memory: counted by an allocator, chunk by chunk, so that it is the same in every run. A group that does
//! nothing takes little, and what the shard counts, by which it is bounded, is what is held.
#![allow(unsafe_code, reason = "a counting allocator cannot be written without")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::types::TimestampMs;
use ringlog_protocol::Uuid;
use ringlog_protocol::group_records::GroupRecord;
use ringlog_server::config::BrokerConfig;
use ringlog_server::group::request::{Commit, CommitOffset, ConsumerHeartbeat, Identity, Join, Reply, Sync};
use ringlog_server::group::{CallId, Name, Now, Output, Partitions, RawRecord, Request, Settings, Shard, TopicView, Usage};

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

/// What glibc takes for so many bytes (malloc(3), its NOTES): a word more, in steps of 16, and 32 at least.
fn chunk(bytes: usize) -> isize {
    (bytes + 8).next_multiple_of(16).max(32) as isize
}

fn count(change: isize) {
    // A thread that is going away frees its last things when its counter is gone already: nothing to count then.
    let _ = HELD.try_with(|held| held.set(held.get() + change));
}

// SAFETY: every call goes to the system's allocator unchanged, and counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(chunk(layout.size()));
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-chunk(layout.size()));
        // SAFETY: the caller's promise about `pointer` and `layout` is passed on; the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn held() -> usize {
    HELD.with(Cell::get).unsigned_abs()
}

const TOPIC: &str = "orders-of-the-day";
const ID: Uuid = [7; 16];

/// One topic.
struct Topics {
    name: Name,
    partitions: i32,
}

impl TopicView for Topics {
    fn by_name(&self, name: &str) -> Option<(Uuid, i32)> {
        (*name == *self.name).then_some((ID, self.partitions))
    }

    fn name_of(&self, id: Uuid) -> Option<Name> {
        (id == ID).then(|| self.name.clone())
    }

    fn names(&self) -> Box<dyn Iterator<Item = &Name> + '_> {
        Box::new(std::iter::once(&self.name))
    }
}

/// A shard whose answers are taken at once, and whose records are kept.
struct Driver {
    settings: Rc<Settings>,
    usage: Usage,
    topics: Arc<Topics>,
    shard: Shard,
    now: Duration,
    records: Vec<RawRecord>,
}

impl Driver {
    fn new(partitions: i32) -> Self {
        let settings = ["group.initial.rebalance.delay.ms=0", "ringlog.group.memory.bytes=1073741824"];
        let settings: Vec<_> = settings.iter().map(|text| text.split_once('=').unwrap()).collect();
        let settings: Vec<(String, String)> =
            settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let config = BrokerConfig::load(None, &settings).unwrap().0;
        let (settings, usage) = (Rc::new(Settings::new(&config, 1)), Usage::default());
        let topics = Arc::new(Topics { name: TOPIC.into(), partitions });
        let shard = Self::shard(&settings, &usage, &topics);
        Self { settings, usage, topics, shard, now: Duration::from_secs(1000), records: Vec::new() }
    }

    fn shard(settings: &Rc<Settings>, usage: &Usage, topics: &Arc<Topics>) -> Shard {
        let mut next = 0_u128;
        let new_id = move || {
            next += 1;
            next
        };
        let mut shard = Shard::new(settings.clone(), usage.clone(), Box::new(new_id));
        shard.set_topics(topics.clone());
        shard
    }

    fn now(&self) -> Now {
        Now { monotonic: self.now, wall: TimestampMs(1_700_000_000_000 + self.now.as_millis() as i64) }
    }

    fn start(&mut self, group: &str, request: Request) -> Output {
        let mut out = Output::default();
        self.shard.handle(CallId(1), group, request, self.now(), &mut out);
        self.records.append(&mut out.records);
        out
    }

    fn ask(&mut self, group: &str, request: Request) -> Reply {
        let (_, answer) = self.start(group, request).replies.pop().unwrap();
        answer.unwrap()
    }

    fn commit(&mut self, group: &str, member: &str, generation: i32, partition: i32) {
        let offset = CommitOffset {
            topic: self.topics.name.clone(),
            topic_id: ID,
            partition,
            offset: 7,
            leader_epoch: 0,
            metadata: Box::default(),
        };
        let identity = Identity { member: member.into(), instance: None, generation };
        let commit = Commit { identity, knows_epochs: true, retention_ms: None, offsets: vec![offset] };
        self.ask(group, Request::Commit(commit));
    }

    fn join(&mut self, group: &str, member: &str) -> Output {
        let join = Join {
            member: member.into(),
            client_id: "a-service".into(),
            client_host: "/192.168.100.100".into(),
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(300),
            protocol_type: "consumer".into(),
            protocols: ["range", "cooperative-sticky"].map(|name| (name.into(), Bytes::copy_from_slice(&[3; 100]))).to_vec(),
            ..Join::default()
        };
        self.start(group, Request::Join(Box::new(join)))
    }

    /// One member, which assigns to itself.
    fn classic(&mut self, group: &str) {
        let Some((_, Ok(Reply::Joined(joined)))) = self.join(group, "").replies.pop() else { panic!("it is in") };
        let assignments = vec![(joined.member.clone(), Bytes::copy_from_slice(&[5; 50]))];
        let identity = Identity { member: joined.member.clone(), instance: None, generation: joined.generation };
        self.ask(group, Request::Sync(Sync { identity, assignments, ..Sync::default() }));
        self.commit(group, &joined.member, joined.generation, 0);
    }

    fn beat(&mut self, group: &str, member: &str, epoch: i32) -> i32 {
        let beat = ConsumerHeartbeat {
            member: member.into(),
            epoch,
            client_id: "a-service".into(),
            client_host: "/192.168.100.100".into(),
            rebalance_timeout_ms: if epoch == 0 { 300_000 } else { -1 },
            topics: (epoch == 0).then(|| [Name::from(TOPIC)].into()),
            owned: (epoch == 0).then(Partitions::new),
            requires_member_id: true,
            ..ConsumerHeartbeat::default()
        };
        let Reply::Beat(beat) = self.ask(group, Request::ConsumerHeartbeat(Box::new(beat))) else { panic!("it is in") };
        beat.epoch
    }

    fn consumer(&mut self, group: &str) {
        let member = format!("{group}-3f2a1c44-9d1b-4c1e-8f0a");
        let epoch = self.beat(group, &member, 0);
        self.commit(group, &member, epoch, 0);
    }

    /// A minute in which the members of groups say that they are there, and what is due is done.
    fn pass_a_minute(&mut self, groups: &[String], stay: impl Fn(&mut Self, &str)) {
        for _ in 0..4 {
            self.now += Duration::from_secs(15);
            for group in groups {
                stay(self, group);
            }
            let mut out = Output::default();
            self.shard.tick(self.now(), &mut out);
            assert!(out.records.is_empty() && out.replies.is_empty(), "nobody is out");
        }
    }

    /// Another shard, as a restart makes it out of the records.
    fn restarted(self) -> Self {
        let Self { settings, topics, now, records, usage, shard } = self;
        drop(shard);
        assert_eq!(usage.bytes(), 0, "what is gone is not counted");
        let mut shard = Self::shard(&settings, &usage, &topics);
        for record in &records {
            shard.replay(GroupRecord::decode(&record.key, record.value.as_deref()).unwrap());
        }
        let mut driver = Self { settings, usage, topics, shard, now, records };
        let mut out = Output::default();
        driver.shard.begin(driver.now(), &mut out);
        driver
    }

    /// What the shard holds: what is free once it is gone.
    fn shard_bytes(mut self) -> (usize, usize) {
        let counted = self.usage.bytes();
        let empty = Self::shard(&self.settings, &self.usage, &self.topics);
        let before = held();
        let full = std::mem::replace(&mut self.shard, empty);
        drop(full);
        (before - held(), counted)
    }
}

fn groups(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("billing-of-region-{at:05}")).collect()
}

const GROUPS: usize = 2000;

/// That each group takes no more than so much, and that what is counted is what is held, or somewhat more: that bounds the memory.
#[track_caller]
fn check(driver: Driver, groups: usize, bytes_max: usize) {
    let (held, counted) = driver.shard_bytes();
    println!("{} bytes of {} counted", held / groups, counted / groups);
    assert!(held <= groups * bytes_max, "{} bytes each", held / groups);
    assert!(counted >= held, "{} bytes each are counted of {}", counted / groups, held / groups);
    assert!(counted <= 2 * held, "{} bytes each are counted of {}", counted / groups, held / groups);
}

#[test]
fn a_group_without_members_takes_a_part_of_a_kib() {
    let mut driver = Driver::new(1);
    for group in groups(GROUPS) {
        driver.commit(&group, "", -1, 0);
    }
    check(driver, GROUPS, 800);
}

#[test]
fn an_idle_classic_group_takes_little() {
    let mut driver = Driver::new(1);
    let groups = groups(GROUPS);
    for group in &groups {
        driver.classic(group);
    }
    check(driver, GROUPS, 2048);
}

#[test]
fn an_idle_consumer_group_takes_little() {
    let mut driver = Driver::new(3);
    let groups = groups(GROUPS);
    for group in &groups {
        driver.consumer(group);
    }
    driver.pass_a_minute(&groups, |driver, group| {
        driver.beat(group, &format!("{group}-3f2a1c44-9d1b-4c1e-8f0a"), 1);
    });
    check(driver, GROUPS, 2048);
}

#[test]
fn groups_that_lost_their_members_are_counted_too() {
    for make in [Driver::classic as fn(&mut Driver, &str), Driver::consumer as fn(&mut Driver, &str)] {
        let mut driver = Driver::new(3);
        let groups = groups(GROUPS);
        for group in &groups {
            make(&mut driver, group);
        }
        // Nobody says that it is there, and then nobody joins again.
        driver.now += Duration::from_secs(3600);
        let mut out = Output::default();
        driver.shard.tick(driver.now(), &mut out);
        driver.now += Duration::from_secs(3600);
        driver.shard.tick(driver.now(), &mut out);
        assert!(driver.shard.list().iter().all(|group| group.state == "Empty"));
        check(driver, GROUPS, 1024);
    }
}

#[test]
fn groups_take_no_more_after_a_restart() {
    for (make, bytes_max) in [(Driver::classic as fn(&mut Driver, &str), 2048), (Driver::consumer as fn(&mut Driver, &str), 2304)]
    {
        let mut driver = Driver::new(3);
        for group in groups(GROUPS) {
            make(&mut driver, &group);
        }
        check(driver.restarted(), GROUPS, bytes_max);
    }
}

#[test]
fn what_large_groups_take_is_counted_too() {
    // A thousand offsets in each group.
    let mut driver = Driver::new(1000);
    for group in groups(20) {
        for partition in 0..1000 {
            driver.commit(&group, "", -1, partition);
        }
    }
    check(driver, 20 * 1000, 200);
    // A thousand members in each.
    let mut driver = Driver::new(2000);
    for group in groups(3) {
        for at in 0..1000 {
            driver.beat(&group, &format!("{group}-3f2a1c44-9d1b-4c1e-{at:04}"), 0);
        }
    }
    check(driver, 3 * 1000, 4096);
    let mut driver = Driver::new(1000);
    for group in groups(3) {
        for _ in 0..1000 {
            driver.join(&group, "");
        }
    }
    check(driver, 3 * 1000, 4096);
}

#[test]
fn groups_of_any_size_are_counted() {
    // A vector, a tree of one node, of two and of more.
    for size in [2, 9, 12, 32, 33, 40] {
        let mut driver = Driver::new(1000);
        for group in groups(100) {
            for partition in 0..size {
                driver.commit(&group, "", -1, partition);
            }
        }
        check(driver, 100 * size as usize, 600);
        let mut driver = Driver::new(1);
        for group in groups(100) {
            for at in 0..size {
                driver.beat(&group, &format!("{group}-3f2a1c44-9d1b-4c1e-{at:04}"), 0);
            }
        }
        check(driver, 100 * size as usize, 4096);
        let mut driver = Driver::new(1000);
        for group in groups(100) {
            for _ in 0..size {
                driver.join(&group, "");
            }
        }
        check(driver, 100 * size as usize, 4096);
    }
}

/// Topics of one partition.
struct Many(Vec<Name>);

impl TopicView for Many {
    fn by_name(&self, name: &str) -> Option<(Uuid, i32)> {
        let at = u128::try_from(self.0.iter().position(|own| **own == *name)?).unwrap();
        Some((at.to_be_bytes(), 1))
    }

    fn name_of(&self, id: Uuid) -> Option<Name> {
        self.0.get(usize::try_from(u128::from_be_bytes(id)).ok()?).cloned()
    }

    fn names(&self) -> Box<dyn Iterator<Item = &Name> + '_> {
        Box::new(self.0.iter())
    }
}

#[test]
fn members_of_many_topics_are_counted() {
    for count in [4, 12, 200] {
        let names: Vec<Name> = (0..count).map(|at| format!("topic-{at:04}").into()).collect();
        let mut driver = Driver::new(1);
        driver.shard.set_topics(Arc::new(Many(names.clone())));
        for group in groups(20) {
            let beat = ConsumerHeartbeat {
                member: group.as_str().into(),
                rebalance_timeout_ms: 300_000,
                topics: Some(names.iter().map(|name| Name::from(&**name)).collect()),
                owned: Some(Partitions::new()),
                ..ConsumerHeartbeat::default()
            };
            let Reply::Beat(beat) = driver.ask(&group, Request::ConsumerHeartbeat(Box::new(beat))) else { panic!("refused") };
            assert_eq!(beat.assignment.map(|assignment| assignment.len()), Some(count));
        }
        check(driver, 20 * count, 4096);
    }
}

/// Their timers stay in the queue until their time, or until they are many: without the names.
#[test]
fn members_that_left_leave_no_names_behind() {
    let mut driver = Driver::new(1);
    for group in groups(GROUPS) {
        driver.beat(&group, "m", 0);
    }
    let (before, name) = (held(), "x".repeat(30_000));
    for at in 0..GROUPS - 100 {
        let member = format!("{at}{name}");
        driver.beat("churn", &member, 0);
        driver.beat("churn", &member, -1);
        driver.records = Vec::new();
    }
    assert!(held() < before + 2_000_000, "{} bytes more", held() - before);
}
