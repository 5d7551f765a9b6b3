//! What large groups and patterns cost, in work that is counted: nobody else waits long for one request, and many do not cost more
//! than in proportion to their number.

use super::consumer::{beat, join_to};
use super::request::{ConsumerHeartbeat, Refusal};
use super::*;

/// So much nobody else waits for.
const WORK_MAX: usize = 16_000;

fn large() -> Settings {
    Settings { consumer_group_size_max: 100_000, group_size_max: 100_000, memory_bytes_max: 1 << 30, ..settings() }
}

/// A driver with so many topics of one partition, with names as long as they may be, nearly.
fn many_topics(count: i32) -> Driver {
    let mut driver = Driver::new(large());
    have_topics(&mut driver, count);
    driver
}

fn have_topics(driver: &mut Driver, count: i32) {
    let topic =
        |at: i32| (Name::from(format!("{at:0>5}{}", "ab".repeat(105))), (u128::try_from(at + 1).unwrap().to_be_bytes(), 1));
    driver.topics = Arc::new(TestTopics((0..count).map(topic).collect()));
    driver.shard.set_topics(driver.topics.clone());
}

fn by_pattern(member: &str, pattern: &str) -> Request {
    Request::ConsumerHeartbeat(Box::new(ConsumerHeartbeat { regex: Some(pattern.into()), ..join_to(member, &[]) }))
}

fn again(member: &str, epoch: i32) -> Request {
    Request::ConsumerHeartbeat(Box::new(beat(member, epoch)))
}

fn epoch_of(answer: Answer) -> i32 {
    match answer {
        Ok(Reply::Beat(beat)) => beat.epoch,
        other => panic!("not taken: {other:?}"),
    }
}

#[test]
fn no_pattern_takes_long_however_many_topics_there_are() {
    let mut driver = many_topics(2000);
    for bomb in ["(?:a?b?){1500}c", "(?:a|b)*a(?:a|b){40}", "((a{100}){100}){100}"] {
        let Ok(Reply::Refused(Refusal { code, message })) = driver.ask(by_pattern("a", bomb)) else { panic!("{bomb} is taken") };
        assert_eq!(code, ErrorCode::INVALID_REGULAR_EXPRESSION);
        assert!(message.contains("too large"), "{message}");
        assert!(driver.work <= 2000, "{bomb}: {}", driver.work);
    }
    // The most that a pattern costs beside the assignment: a step for each byte of all names.
    epoch_of(driver.ask(by_pattern("a", "([0-9ab]+)+c|[^c]*d")));
    assert!((2000..=2000 + 2000 * 217 / 64 + 10).contains(&driver.work), "{}", driver.work);
    epoch_of(driver.ask(again("a", 1)));
    assert_eq!(driver.work, 0, "nothing is done twice");
}

#[test]
fn patterns_are_matched_anew_by_and_by() {
    let mut driver = many_topics(1000);
    let members: Vec<String> = (0..20).map(|at| format!("m{at:02}")).collect();
    for member in &members {
        // Each matches the last of the topics that are to come, and no other.
        epoch_of(driver.ask(by_pattern(member, &format!("01000.*|{member}"))));
    }
    driver.seconds(10);
    have_topics(&mut driver, 1001);
    let mut found = 0;
    for round in 0..2 {
        for member in &members {
            let epoch = driver.described_epoch(member);
            epoch_of(driver.ask(again(member, epoch)));
            assert!(driver.work <= WORK_MAX, "{}", driver.work);
            if round == 0 {
                found += usize::from(driver.work > 3000);
            }
        }
    }
    assert_eq!(found, 10, "two of them with each heartbeat");
    let Ok(Reply::DescribedConsumers(described)) = driver.ask(Request::DescribeConsumers) else { panic!("it is one") };
    assert_eq!(described.members.iter().map(|member| member.target.len()).sum::<usize>(), 1);
    let consumer = driver.shard.groups[GROUP].consumer.as_ref().unwrap();
    assert!(members.iter().all(|member| consumer.matched(&format!("01000.*|{member}")) == 1), "all patterns have it");

    // Out of the log, they are made into tables once, when topics come.
    driver.restart();
    driver.seconds(10);
    let mut work = 0;
    for topics in [1002, 1003] {
        have_topics(&mut driver, topics);
        work = 0;
        for member in &members {
            let epoch = driver.described_epoch(member);
            epoch_of(driver.ask(again(member, epoch)));
            work += driver.work;
        }
        driver.seconds(6);
    }
    assert!(work < 20 * 4_500, "no pattern was made into a table again: {work}");
}

#[test]
fn members_that_come_together_are_assigned_together() {
    const MEMBERS: usize = 6000;
    let mut driver = Driver::new(large());
    driver.set_topics(&[("t", 1, 1000)]);
    let mut work = 0;
    for at in 0..MEMBERS {
        epoch_of(driver.ask(Request::ConsumerHeartbeat(Box::new(join_to(&format!("m{at}"), &["t"])))));
        assert!(driver.work <= WORK_MAX, "{}", driver.work);
        work += driver.work;
    }
    // As long as it is small, each is assigned at once; then one assignment is for all that come while it is waited for.
    assert!(work < 2_000 * 2_000, "{work}");
    let assigned = driver.described_epochs();
    assert!(assigned.1 < assigned.0, "the last ones wait: {assigned:?}");
    driver.seconds(1);
    epoch_of(driver.ask(again("m0", 1)));
    assert!(driver.work > MEMBERS && driver.work <= WORK_MAX, "{}", driver.work);
    let assigned = driver.described_epochs();
    assert_eq!((assigned.1, assigned.0), (assigned.0, MEMBERS as i32), "EpochsGrow: one for each member, and the last assigned");

    // All are silent at once: they go a part at a time, and nothing looks at all others for each.
    let written = driver.log.len();
    driver.time += Duration::from_secs(100);
    let mut ticks = 0;
    while driver.shard.next_deadline().is_some_and(|at| at <= driver.time) {
        let mut out = Output::default();
        driver.shard.tick(driver.now(), &mut out);
        assert!(out.records.len() <= 5_000 && out.work <= WORK_MAX, "{} {}", out.records.len(), out.work);
        driver.take(out);
        ticks += 1;
    }
    assert!(ticks >= MEMBERS / 1000 && driver.log.len() - written <= 4 * MEMBERS + 10);
    assert_eq!(driver.shard.list()[0].state, "Empty");
}

#[test]
fn patterns_out_of_the_log_are_made_into_tables_by_and_by_and_tried_once() {
    const PATTERNS: usize = 30;
    let mut driver = many_topics(2);
    let members: Vec<String> = (0..PATTERNS).map(|at| format!("m{at:02}")).collect();
    for member in &members {
        epoch_of(driver.ask(by_pattern(member, &format!("{member}.*"))));
    }
    // Half of them are another broker's, and not understood.
    for bytes in driver.log.iter_mut().flat_map(|record| [Some(&mut record.key), record.value.as_mut()]).flatten() {
        for member in &members[..PATTERNS / 2] {
            let (own, other) = (format!("{member}.*"), format!("{member}.("));
            let at = bytes.windows(own.len()).position(|window| *window == *own.as_bytes());
            at.into_iter().for_each(|at| bytes[at..at + own.len()].copy_from_slice(other.as_bytes()));
        }
    }
    driver.restart();
    driver.seconds(10);
    let mut total = 0;
    for topics in [3, 4] {
        have_topics(&mut driver, topics);
        total = 0;
        for member in &members {
            let epoch = driver.described_epoch(member);
            epoch_of(driver.ask(again(member, epoch)));
            assert!(driver.work <= TURN_WORK_MAX + 2_100, "{}", driver.work);
            total += driver.work;
        }
        driver.seconds(6);
    }
    assert!((PATTERNS..2_000).contains(&total), "all are matched, none is made into a table again: {total}");
    let consumer = driver.shard.groups[GROUP].consumer.as_ref().unwrap();
    assert!(consumer.tables_bytes() > 0);
}

#[test]
fn members_that_fall_silent_cost_no_more_at_a_time_than_others_wait_for() {
    const MEMBERS: usize = 200;
    const TOPICS: usize = 60;
    let mut driver = Driver::new(large());
    driver.set_topics(&[("t", 1, 1)]);
    for at in 0..MEMBERS {
        let topics: Vec<String> = (0..TOPICS).map(|topic| format!("{at}-{topic}")).collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        epoch_of(driver.ask(Request::ConsumerHeartbeat(Box::new(join_to(&format!("m{at}"), &topics)))));
    }
    driver.time += Duration::from_secs(100);
    let (mut ticks, mut work) = (0, 0);
    while driver.shard.next_deadline().is_some_and(|at| at <= driver.time) {
        let mut out = Output::default();
        driver.shard.tick(driver.now(), &mut out);
        // Up to there, one member more, and all topics once for those that went together.
        assert!(out.work <= TURN_WORK_MAX + TOPICS + 1 + MEMBERS * TOPICS, "{}", out.work);
        work += out.work;
        ticks += 1;
        driver.take(out);
    }
    assert!(ticks > 1 && work < 5 * MEMBERS * TOPICS, "{ticks} {work}");
    assert_eq!(driver.shard.list()[0].state, "Empty");
}

impl Driver {
    fn described_epochs(&self) -> (i32, i32) {
        self.shard.groups[GROUP].consumer.as_ref().expect("it is one").epochs()
    }

    /// At which epoch a member is.
    fn described_epoch(&mut self, member: &str) -> i32 {
        let Ok(Reply::DescribedConsumers(described)) = self.ask(Request::DescribeConsumers) else { panic!("it is one") };
        described.members.iter().find(|known| *known.member == *member).expect("it is in").epoch
    }
}
