//! Committed offsets, case by case.

use super::*;

fn fetch(driver: &mut Driver) -> Vec<(String, i32, i64)> {
    let Ok(Reply::Fetched(fetched)) = driver.ask(Request::Fetch(None)) else { panic!("fetched") };
    let flat = fetched
        .into_iter()
        .flat_map(|(topic, offsets)| offsets.into_iter().map(move |found| (topic.to_string(), found.partition, found.offset)));
    flat.collect()
}

fn committed(answer: Answer) -> Vec<ErrorCode> {
    match answer {
        Ok(Reply::Committed(codes)) => codes,
        other => panic!("not committed: {other:?}"),
    }
}

fn expire(driver: &mut Driver) {
    let mut out = Output::default();
    driver.shard.expire(driver.now(), &mut out);
    driver.take(out);
}

#[test]
fn offsets_of_a_client_that_is_no_member_are_kept_and_found() {
    let mut driver = Driver::new(settings());
    let codes = committed(driver.ask(commit(nobody(), vec![offset("t", 0, 7), offset("t", 2, 9), offset("u", 0, 1)])));
    assert_eq!(codes, vec![ErrorCode::NONE; 3]);
    committed(driver.ask(commit(nobody(), vec![offset("t", 0, 8)])));
    for _ in 0..2 {
        assert_eq!(fetch(&mut driver), [("t".to_owned(), 0, 8), ("t".to_owned(), 2, 9), ("u".to_owned(), 0, 1)]);
        let wanted = vec![("t".into(), vec![2, 1]), ("v".into(), vec![0])];
        let Ok(Reply::Fetched(fetched)) = driver.ask(Request::Fetch(Some(wanted))) else { panic!("fetched") };
        let offsets: Vec<_> =
            fetched.iter().flat_map(|(_, offsets)| offsets).map(|found| (found.offset, found.leader_epoch)).collect();
        assert_eq!(offsets, [(9, 3), (-1, -1), (-1, -1)]);
        // Each is answered once, however often it is asked for.
        let wanted = vec![("t".into(), vec![2, 2, 0]), ("t".into(), vec![0, 1])];
        let Ok(Reply::Fetched(once)) = driver.ask(Request::Fetch(Some(wanted))) else { panic!("fetched") };
        let partitions: Vec<Vec<_>> =
            once.iter().map(|(_, offsets)| offsets.iter().map(|found| found.partition).collect()).collect();
        assert_eq!(partitions, [vec![2, 0], vec![1]]);
        assert_eq!((&*fetched[0].1[0].metadata, &*fetched[0].1[1].metadata), ("m", ""));
        driver.restart();
    }
    assert_eq!(
        driver.shard.list(),
        [Listed { group: GROUP.into(), protocol_type: "".into(), state: "Empty", group_type: "classic" }]
    );
}

#[test]
fn metadata_has_a_bound_and_the_rest_is_kept() {
    let mut driver = Driver::new(settings());
    let large = CommitOffset { metadata: "x".repeat(21).into(), ..offset("t", 1, 1) };
    // It is counted as Java counts: one that is outside of the basic plane is two.
    let counted = |text: &str| CommitOffset { metadata: text.into(), ..offset("t", 0, 1) };
    let (wide, wider) = ("é".repeat(20), "😀".repeat(10) + "é");
    let codes = committed(driver.ask(commit(nobody(), vec![counted(&wide), counted(&wider), large.clone()])));
    assert_eq!(codes, [ErrorCode::NONE, ErrorCode::OFFSET_METADATA_TOO_LARGE, ErrorCode::OFFSET_METADATA_TOO_LARGE]);
    assert_eq!(fetch(&mut driver), [("t".to_owned(), 0, 1)]);
    let mut driver = Driver::new(settings());
    committed(driver.ask(commit(nobody(), vec![large])));
    assert_eq!((driver.log.len(), driver.usage.bytes()), (0, 0), "no group for nothing");
}

#[test]
fn only_members_of_the_generation_commit() {
    let mut driver = Driver::new(settings());
    let members = driver.stable(2);
    let one = || vec![offset("t", 0, 1)];
    let refused = |driver: &mut Driver, identity| driver.ask(commit(identity, one())).expect_err("refused");
    assert_eq!(refused(&mut driver, nobody()), ErrorCode::UNKNOWN_MEMBER_ID);
    let unknown = Identity { member: "stranger".into(), instance: None, generation: 1 };
    assert_eq!(refused(&mut driver, unknown), ErrorCode::UNKNOWN_MEMBER_ID);
    let old = Identity { generation: 0, ..identity(&members[0]) };
    assert_eq!(refused(&mut driver, old), ErrorCode::ILLEGAL_GENERATION);
    committed(driver.ask(commit(identity(&members[0]), one())));
    // A commit is a sign of life.
    driver.seconds(9);
    committed(driver.ask(commit(identity(&members[0]), one())));
    driver.seconds(9);
    assert_eq!(driver.ask(heartbeat(&members[0])), Err(ErrorCode::REBALANCE_IN_PROGRESS), "the other one was silent");
}

#[test]
fn offsets_are_deleted_where_nobody_reads_any_more() {
    let mut driver = Driver::new(settings());
    assert_eq!(driver.ask(Request::DeleteOffsets(vec![("t".into(), 0)])), Err(ErrorCode::GROUP_ID_NOT_FOUND));
    let members = driver.stable(1);
    committed(driver.ask(commit(identity(&members[0]), vec![offset("t", 0, 1), offset("old", 0, 1)])));
    let wanted = || Request::DeleteOffsets(vec![("t".into(), 0), ("old".into(), 0), ("old".into(), 5)]);
    let codes = vec![ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC, ErrorCode::NONE, ErrorCode::NONE];
    assert_eq!(driver.ask(wanted()), Ok(Reply::OffsetsDeleted(codes)));
    assert_eq!(fetch(&mut driver), [("t".to_owned(), 0, 1)]);
    driver.restart();
    assert_eq!(fetch(&mut driver), [("t".to_owned(), 0, 1)]);

    let mut driver = Driver::new(settings());
    let connect = Join { protocol_type: "connect".into(), ..join("") };
    driver.join_all(vec![connect]);
    assert_eq!(driver.ask(wanted()), Err(ErrorCode::NON_EMPTY_GROUP));
}

#[test]
fn a_group_whose_last_offset_was_deleted_is_there_until_offsets_expire() {
    let with_none = || {
        let mut driver = Driver::new(settings());
        committed(driver.ask(commit(nobody(), vec![offset("t", 0, 1)])));
        assert!(driver.ask(Request::DeleteOffsets(vec![("t".into(), 0)])).is_ok());
        assert_eq!(driver.shard.list()[0].state, "Empty");
        driver
    };
    let mut driver = with_none();
    assert_eq!(driver.ask(Request::Delete), Ok(Reply::Deleted));
    assert_eq!((driver.shard.list(), driver.usage.bytes()), (Vec::new(), 0));
    let mut driver = with_none();
    expire(&mut driver);
    assert_eq!((driver.shard.list(), driver.usage.bytes()), (Vec::new(), 0));
}

#[test]
fn what_members_cannot_be_understood_to_want_they_may_want() {
    let mut driver = Driver::new(settings());
    let odd = Join { protocols: vec![("range".into(), Bytes::from_static(b"\x00\x00\x7f\xff\xff\xff"))], ..join("") };
    driver.join_all(vec![odd]);
    let answer = driver.ask(Request::DeleteOffsets(vec![("t".into(), 0)]));
    assert_eq!(answer, Ok(Reply::OffsetsDeleted(vec![ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC])));
}

#[test]
fn a_group_without_members_is_deleted_with_its_offsets() {
    let mut driver = Driver::new(settings());
    let members = driver.stable(1);
    committed(driver.ask(commit(identity(&members[0]), vec![offset("t", 0, 1), offset("t", 1, 1)])));
    assert_eq!(driver.ask(Request::Delete), Err(ErrorCode::NON_EMPTY_GROUP));
    driver.ask(leave(&members[0].member)).expect("it leaves");
    let before = driver.log.len();
    assert_eq!(driver.ask(Request::Delete), Ok(Reply::Deleted));
    assert!(driver.log[before..].iter().all(|record| record.value.is_none()));
    assert_eq!(driver.log.len() - before, 3, "two offsets and the group");
    driver.restart();
    assert_eq!((driver.shard.list(), driver.usage.bytes()), (Vec::new(), 0));
}

#[test]
fn offsets_expire_when_their_group_has_been_empty_for_long_enough() {
    let mut driver = Driver::new(settings());
    let members = driver.stable(1);
    committed(driver.ask(commit(identity(&members[0]), vec![offset("t", 0, 1), offset("old", 0, 1)])));
    // While it lives it keeps them, but for topics that it does not want.
    for _ in 0..250 {
        driver.seconds(5);
        assert_eq!(driver.ask(heartbeat(&members[0])), Ok(Reply::Alive));
    }
    expire(&mut driver);
    assert_eq!(fetch(&mut driver), [("t".to_owned(), 0, 1)]);
    driver.ask(leave(&members[0].member)).expect("it leaves");
    driver.seconds(999);
    expire(&mut driver);
    assert_eq!(fetch(&mut driver).len(), 1);
    driver.restart();
    driver.seconds(1);
    expire(&mut driver);
    assert_eq!((driver.shard.list(), driver.usage.bytes()), (Vec::new(), 0), "and the group with the last one");
    driver.restart();
    assert_eq!(driver.shard.list(), Vec::new());
}

#[test]
fn offsets_of_no_member_expire_by_their_own_time_and_by_the_clients() {
    let mut driver = Driver::new(settings());
    committed(driver.ask(commit(nobody(), vec![offset("t", 0, 1)])));
    let short = Commit { identity: nobody(), knows_epochs: false, retention_ms: Some(5000), offsets: vec![offset("t", 1, 1)] };
    committed(driver.ask(Request::Commit(short)));
    driver.seconds(5);
    driver.restart();
    expire(&mut driver);
    assert_eq!(fetch(&mut driver), [("t".to_owned(), 0, 1)]);
    driver.seconds(995);
    expire(&mut driver);
    assert_eq!(fetch(&mut driver), []);
}

#[test]
fn a_retention_of_the_client_ends_no_offset_that_is_in_use() {
    let mut driver = Driver::new(settings());
    let members = driver.stable(1);
    let short = |offsets| {
        Request::Commit(Commit { identity: identity(&members[0]), knows_epochs: false, retention_ms: Some(1000), offsets })
    };
    committed(driver.ask(short(vec![offset("t", 0, 1), offset("old", 0, 1)])));
    driver.seconds(5);
    expire(&mut driver);
    assert_eq!(fetch(&mut driver), [("t".to_owned(), 0, 1)], "but one of a topic that nobody wants");
    // While members come and go, what they want is not known.
    committed(driver.ask(short(vec![offset("old", 0, 1)])));
    let call = driver.start(Request::Join(Box::new(join(""))));
    driver.seconds(2);
    expire(&mut driver);
    assert!(driver.waits(call));
    assert_eq!(fetch(&mut driver).len(), 2);
    driver.seconds(100);
    expire(&mut driver);
    assert_eq!(fetch(&mut driver), [], "the group is empty");
}

#[test]
fn offsets_go_with_their_topic_and_not_with_another_of_its_name() {
    let mut driver = Driver::new(settings());
    let of = |id: u8, partition| CommitOffset { topic_id: [id; 16], ..offset("t", partition, 1) };
    driver.set_topics(&[("t", 1, 3)]);
    committed(driver.ask(commit(nobody(), vec![of(1, 0)])));
    driver.set_topics(&[("t", 2, 3)]);
    committed(driver.ask(commit(nobody(), vec![of(2, 1), of(0, 2)])));
    // One that was on its way while the topic went is not taken for the next topic's.
    assert_eq!(committed(driver.ask(commit(nobody(), vec![of(1, 1)]))), [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION]);
    let mut out = Output::default();
    driver.shard.forget_topics(&|_, id| id != [1; 16], &mut out);
    driver.take(out);
    assert_eq!(fetch(&mut driver), [("t".to_owned(), 1, 1), ("t".to_owned(), 2, 1)]);
    driver.restart();
    assert_eq!(fetch(&mut driver), [("t".to_owned(), 1, 1), ("t".to_owned(), 2, 1)]);
}

#[test]
fn new_offsets_are_refused_when_memory_is_full_and_known_ones_move_on() {
    let mut driver = Driver::new(Settings { memory_bytes_max: 4000, ..settings() });
    let many = |from: i32| (from..from + 5).map(|partition| offset("t", partition, 1)).collect::<Vec<_>>();
    committed(driver.ask(commit(nobody(), many(0))));
    let mut refused = None;
    for at in 1..100 {
        if let Err(error) = driver.ask(commit(nobody(), many(at * 5))) {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused, Some(ErrorCode::COORDINATOR_NOT_AVAILABLE));
    assert!(driver.usage.bytes() <= 4000);
    committed(driver.ask(commit(nobody(), many(0))));
    // With more metadata they would take more.
    let wordy = CommitOffset { metadata: "x".repeat(4000).into(), ..offset("t", 0, 2) };
    assert_eq!(driver.ask(commit(nobody(), vec![wordy])), Err(ErrorCode::COORDINATOR_NOT_AVAILABLE));
    assert!(driver.usage.bytes() <= 4000);
}
