//! Groups of the new protocol, case by case.

use std::collections::BTreeSet;

use super::request::{Beat, ConsumerHeartbeat, DescribedConsumers, Refusal};
use super::*;

pub(super) fn beat(member: &str, epoch: i32) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        member: member.into(),
        epoch,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: -1,
        requires_member_id: true,
        ..ConsumerHeartbeat::default()
    }
}

pub(super) fn join_to(member: &str, topics: &[&str]) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        rebalance_timeout_ms: 60_000,
        topics: Some(topics.iter().map(|topic| Name::from(*topic)).collect()),
        owned: Some(Partitions::new()),
        ..beat(member, 0)
    }
}

fn holding(member: &str, epoch: i32, owned: &Partitions) -> ConsumerHeartbeat {
    ConsumerHeartbeat { owned: Some(owned.clone()), ..beat(member, epoch) }
}

/// Those of the first topic.
fn of_topic(held: &Partitions) -> &BTreeSet<i32> {
    held.get(&[1; 16]).unwrap()
}

fn partitions(of: &[(u8, &[i32])]) -> Partitions {
    of.iter().map(|(topic, partitions)| ([*topic; 16], partitions.iter().copied().collect())).collect()
}

impl Driver {
    fn beat(&mut self, beat: ConsumerHeartbeat) -> Beat {
        match self.ask(Request::ConsumerHeartbeat(Box::new(beat))) {
            Ok(Reply::Beat(beat)) => beat,
            other => panic!("not taken: {other:?}"),
        }
    }

    fn refused(&mut self, beat: ConsumerHeartbeat) -> ErrorCode {
        match self.ask(Request::ConsumerHeartbeat(Box::new(beat))) {
            Ok(Reply::Refused(Refusal { code, message })) => {
                assert!(!message.is_empty());
                code
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    fn described(&mut self) -> DescribedConsumers {
        match self.ask(Request::DescribeConsumers) {
            Ok(Reply::DescribedConsumers(described)) => *described,
            other => panic!("not described: {other:?}"),
        }
    }

    fn state(&mut self) -> &'static str {
        self.described().state
    }
}

fn with_topics(topics: &[(&str, u8, i32)]) -> Driver {
    let mut driver = Driver::new(settings());
    driver.set_topics(topics);
    driver
}

#[test]
fn a_member_alone_gets_everything_at_once() {
    let mut driver = with_topics(&[("t", 1, 3)]);
    let joined = driver.beat(join_to("a", &["t", "not there yet"]));
    assert_eq!((&*joined.member, joined.epoch, joined.interval), ("a", 1, Duration::from_secs(5)));
    assert_eq!(joined.assignment, Some(partitions(&[(1, &[0, 1, 2])])));
    assert_eq!(driver.state(), "Stable");
    let written = driver.log.len();
    let again = driver.beat(beat("a", 1));
    assert_eq!((again.epoch, again.assignment, driver.log.len()), (1, None, written), "nothing changes, nothing is written");
}

#[test]
fn partitions_are_given_up_before_another_gets_them() {
    let mut driver = with_topics(&[("t", 1, 3)]);
    let all = driver.beat(join_to("a", &["t"])).assignment.unwrap();
    let second = driver.beat(join_to("b", &["t"]));
    assert_eq!((second.epoch, second.assignment), (2, Some(Partitions::new())), "nothing is free");
    assert_eq!(driver.state(), "Reconciling");
    let told = driver.beat(beat("a", 1));
    let kept = told.assignment.unwrap();
    assert_eq!((told.epoch, kept.values().map(BTreeSet::len).sum::<usize>()), (1, 2));
    let described = driver.described();
    let (assigned, target) = (&described.members[0].assigned, &described.members[0].target);
    assert_eq!((assigned[0].2.len(), target[0].2.len()), (3, 2), "it has what it has not given up");
    // It has not given up anything yet, or has not said so.
    assert_eq!(driver.beat(beat("a", 1)).epoch, 1);
    assert_eq!(driver.beat(holding("a", 1, &all)).epoch, 1);
    assert_eq!(driver.beat(beat("b", 2)).assignment, None);
    assert_eq!(driver.beat(holding("a", 1, &kept)).epoch, 2);
    let given = driver.beat(beat("b", 2)).assignment.unwrap();
    assert_eq!(given.values().map(BTreeSet::len).sum::<usize>(), 1);
    assert!(of_topic(&given).is_disjoint(of_topic(&kept)));
    assert_eq!(driver.state(), "Stable");
}

#[test]
fn who_does_not_give_up_in_time_is_out() {
    let mut driver = with_topics(&[("t", 1, 2)]);
    driver.beat(join_to("a", &["t"]));
    driver.beat(join_to("b", &["t"]));
    driver.beat(beat("a", 1));
    for _ in 0..5 {
        driver.seconds(10);
        assert_eq!(driver.beat(beat("a", 1)).epoch, 1);
        driver.beat(beat("b", 2));
    }
    driver.seconds(10);
    assert_eq!(driver.refused(beat("a", 1)), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(driver.beat(beat("b", 2)).assignment, Some(partitions(&[(1, &[0, 1])])));
}

#[test]
fn who_is_silent_is_out_and_others_take_over() {
    let mut driver = with_topics(&[("t", 1, 2)]);
    driver.beat(join_to("a", &["t"]));
    driver.seconds(44);
    assert_eq!(driver.beat(beat("a", 1)).epoch, 1);
    driver.seconds(44);
    driver.restart();
    driver.seconds(44);
    driver.beat(join_to("b", &["t"]));
    driver.seconds(1);
    assert_eq!(driver.refused(beat("a", 1)), ErrorCode::UNKNOWN_MEMBER_ID, "sessions begin anew with the coordinator, and end");
    assert_eq!(driver.beat(beat("b", 2)).assignment, Some(partitions(&[(1, &[0, 1])])));
    assert_eq!(driver.beat(beat("b", -1)).epoch, -1);
    assert_eq!(driver.state(), "Empty");
    driver.seconds(1000);
    assert_eq!(driver.shard.next_deadline(), None);
}

#[test]
fn epochs_that_are_not_the_members() {
    let mut driver = with_topics(&[("t", 1, 2)]);
    driver.beat(join_to("a", &["t"]));
    driver.beat(join_to("b", &["t"]));
    let kept = driver.beat(beat("a", 1)).assignment.unwrap();
    assert_eq!(driver.beat(holding("a", 1, &kept)).epoch, 2);
    assert_eq!(driver.refused(beat("a", 3)), ErrorCode::FENCED_MEMBER_EPOCH);
    assert_eq!(driver.refused(beat("a", 1)), ErrorCode::FENCED_MEMBER_EPOCH, "it does not say what it holds");
    assert_eq!(driver.refused(holding("a", 1, &partitions(&[(1, &[0, 1])]))), ErrorCode::FENCED_MEMBER_EPOCH, "it holds more");
    assert_eq!(driver.beat(holding("a", 1, &kept)).epoch, 2, "it did not hear of its epoch");
    assert_eq!(driver.refused(beat("nobody", 1)), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(driver.beat(join_to("a", &["t"])).assignment, Some(kept), "it begins anew and is told what it holds");
}

#[test]
fn requests_that_cannot_be() {
    let mut driver = with_topics(&[("t", 1, 2)]);
    let invalid = [
        join_to("", &["t"]),
        ConsumerHeartbeat { rebalance_timeout_ms: -1, ..join_to("a", &["t"]) },
        ConsumerHeartbeat { topics: None, ..join_to("a", &[]) },
        ConsumerHeartbeat { owned: None, ..join_to("a", &["t"]) },
        ConsumerHeartbeat { owned: Some(partitions(&[(1, &[0])])), ..join_to("a", &["t"]) },
        ConsumerHeartbeat { instance: Some("".into()), ..join_to("a", &["t"]) },
        ConsumerHeartbeat { rack: Some(" ".into()), ..join_to("a", &["t"]) },
        beat("a", -2),
        beat("a", -3),
        beat("", 1),
    ];
    for beat in invalid {
        assert_eq!(driver.refused(beat.clone()), ErrorCode::INVALID_REQUEST, "{beat:?}");
    }
    let other = ConsumerHeartbeat { assignor: Some("sticky".into()), ..join_to("a", &["t"]) };
    assert_eq!(driver.refused(other), ErrorCode::UNSUPPORTED_ASSIGNOR);
    let pattern = ConsumerHeartbeat { regex: Some("(".into()), ..join_to("a", &[]) };
    assert_eq!(driver.refused(pattern), ErrorCode::INVALID_REGULAR_EXPRESSION);
    assert_eq!(driver.refused(beat("a", 1)), ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(driver.refused(beat("a", -1)), ErrorCode::GROUP_ID_NOT_FOUND);
    assert!(driver.shard.list().is_empty() && driver.log.is_empty() && driver.usage.bytes() == 0, "nothing is left of it");
    // Version 0 gives ids.
    let joined = driver.beat(ConsumerHeartbeat { requires_member_id: false, ..join_to("", &["t"]) });
    assert!(!joined.member.is_empty());
}

#[test]
fn a_group_is_bounded() {
    let mut driver = Driver::new(Settings { consumer_group_size_max: 2, ..settings() });
    driver.set_topics(&[("t", 1, 2)]);
    driver.beat(join_to("a", &["t"]));
    driver.beat(join_to("b", &["t"]));
    assert_eq!(driver.refused(join_to("c", &["t"])), ErrorCode::GROUP_MAX_SIZE_REACHED);
    driver.beat(join_to("a", &["t"]));

    let mut driver = Driver::new(Settings { memory_bytes_max: 100_000, ..settings() });
    driver.set_topics(&[("t", 1, 2)]);
    let refused = (0..10_000).find_map(|at| {
        let call = driver.start_in(&format!("g{at}"), Request::ConsumerHeartbeat(Box::new(join_to("a", &["t"]))));
        match driver.answer(call) {
            Ok(Reply::Refused(refusal)) => Some(refusal.code),
            _ => None,
        }
    });
    assert_eq!(refused, Some(ErrorCode::GROUP_MAX_SIZE_REACHED));
    assert!(driver.usage.bytes() <= 100_000);
}

#[test]
fn static_members_come_back_to_what_they_had() {
    let mut driver = with_topics(&[("t", 1, 4)]);
    let is = |instance: &str, beat: ConsumerHeartbeat| ConsumerHeartbeat { instance: Some(instance.into()), ..beat };
    driver.beat(is("one", join_to("a", &["t"])));
    driver.beat(is("two", join_to("b", &["t"])));
    let kept = driver.beat(is("one", beat("a", 1))).assignment.unwrap();
    driver.beat(is("one", holding("a", 1, &kept)));
    driver.beat(is("two", beat("b", 2)));
    assert_eq!(driver.state(), "Stable");
    assert_eq!(driver.refused(is("one", join_to("c", &["t"]))), ErrorCode::UNRELEASED_INSTANCE_ID);
    assert_eq!(driver.refused(is("one", beat("b", 2))), ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(driver.refused(is("three", beat("b", 2))), ErrorCode::UNKNOWN_MEMBER_ID);

    assert_eq!(driver.beat(is("one", beat("a", -2))).epoch, -2);
    assert_eq!(driver.beat(is("two", beat("b", 2))).assignment, None, "its partitions wait for it");
    driver.restart();
    let back = driver.beat(is("one", join_to("c", &["t"])));
    assert_eq!((back.epoch, back.assignment), (2, Some(kept)), "no rebalance");
    assert_eq!(driver.state(), "Stable");
    assert_eq!(driver.refused(is("one", beat("a", 2))), ErrorCode::FENCED_INSTANCE_ID);

    driver.beat(is("one", beat("c", -2)));
    for _ in 0..4 {
        driver.seconds(10);
        assert_eq!(driver.beat(is("two", beat("b", 2))).epoch, 2);
    }
    driver.seconds(5);
    assert_eq!(driver.beat(is("two", beat("b", 2))).epoch, 3, "it did not come back");
    assert_eq!(driver.described().members[0].assigned[0].2.len(), 4);
}

/// A group of a static member "h", which has left to come back, and of "x", each with two of four partitions.
fn with_one_that_is_away(x: ConsumerHeartbeat) -> Driver {
    let mut driver = with_topics(&[("t", 1, 4)]);
    driver.beat(of_instance("one", join_to("h", &["t"])));
    driver.beat(x);
    let kept = driver.beat(of_instance("one", beat("h", 1))).assignment.unwrap();
    driver.beat(of_instance("one", holding("h", 1, &kept)));
    assert_eq!(of_topic(&driver.beat(beat("x", 2)).assignment.unwrap()).len(), 2);
    driver.beat(of_instance("one", beat("h", -2)));
    driver
}

fn of_instance(instance: &str, beat: ConsumerHeartbeat) -> ConsumerHeartbeat {
    ConsumerHeartbeat { instance: Some(instance.into()), ..beat }
}

#[test]
fn a_member_that_comes_for_another_leaves_what_it_held_itself() {
    let all = || Some(partitions(&[(1, &[0, 1, 2, 3])]));
    let by_pattern = || ConsumerHeartbeat { regex: Some("t.*".into()), ..join_to("x", &[]) };
    let ways = [
        (join_to("x", &["t"]), join_to("x", &["t"])),
        (of_instance("two", join_to("x", &["t"])), join_to("x", &["t"])),
        (join_to("x", &["t"]), by_pattern()),
        (by_pattern(), by_pattern()),
        (by_pattern(), ConsumerHeartbeat { regex: Some("".into()), ..join_to("x", &["t"]) }),
    ];
    for (way, (before, after)) in ways.into_iter().enumerate() {
        let has_pattern = after.regex.as_ref().is_some_and(|regex| !regex.is_empty());
        let mut driver = with_one_that_is_away(before);
        assert_eq!(driver.beat(of_instance("one", after)).assignment, all(), "{way}");
        let described = driver.described();
        assert_eq!((described.members.len(), described.state), (1, "Stable"), "{way}");
        let consumer = driver.shard.groups[GROUP].consumer.as_ref().unwrap();
        assert_eq!((consumer.matched("t.*"), consumer.tables_bytes() > 0), (usize::from(has_pattern), has_pattern), "{way}");
        driver.restart();
        assert_eq!(driver.described(), described, "{way}: StateIsReplayed");
        // Nobody has what it had as it was.
        driver.beat(of_instance("one", beat("x", -1)));
        assert_eq!(driver.beat(join_to("b", &["t"])).assignment, all(), "{way}");
        driver.beat(of_instance("two", join_to("c", &["t"])));
    }
}

#[test]
fn an_instance_id_that_a_member_changed_is_free_live_and_replayed() {
    for restarts in [false, true] {
        let mut driver = with_topics(&[("t", 1, 4)]);
        driver.beat(of_instance("one", join_to("x", &["t"])));
        driver.beat(of_instance("two", join_to("x", &["t"])));
        if restarts {
            driver.restart();
        }
        assert_eq!(driver.beat(of_instance("one", join_to("y", &["t"]))).epoch, 2);
        assert_eq!(driver.refused(of_instance("two", join_to("z", &["t"]))), ErrorCode::UNRELEASED_INSTANCE_ID);
        driver.beat(of_instance("two", beat("x", 1)));
    }
}

#[test]
fn topics_that_come_grow_and_go() {
    let mut driver = with_topics(&[("t", 1, 1)]);
    driver.beat(join_to("a", &["t", "u"]));
    driver.set_topics(&[("t", 1, 1), ("other", 9, 1)]);
    assert_eq!(driver.beat(beat("a", 1)).epoch, 1, "it is not one of its own");
    driver.set_topics(&[("t", 1, 3), ("u", 2, 1)]);
    let told = driver.beat(beat("a", 1));
    assert_eq!((told.epoch, told.assignment), (2, Some(partitions(&[(1, &[0, 1, 2]), (2, &[0])]))));
    driver.restart();
    assert_eq!(driver.beat(beat("a", 2)).epoch, 2, "nothing has changed");
    driver.set_topics(&[("u", 3, 1)]);
    let told = driver.beat(beat("a", 2));
    assert_eq!((told.epoch, told.assignment), (2, Some(Partitions::new())), "what is gone is given up first");
    let told = driver.beat(holding("a", 2, &Partitions::new()));
    assert_eq!((told.epoch, told.assignment), (3, Some(partitions(&[(3, &[0])]))), "another topic has the name");
}

#[test]
fn patterns_are_resolved_here_and_follow_the_topics() {
    let mut driver = with_topics(&[("a-1", 1, 1), ("b-1", 2, 1)]);
    let by_pattern = |pattern: &str| ConsumerHeartbeat { regex: Some(pattern.into()), ..join_to("a", &[]) };
    assert_eq!(driver.beat(by_pattern("a-.*")).assignment, Some(partitions(&[(1, &[0])])));
    driver.set_topics(&[("a-1", 1, 1), ("b-1", 2, 1), ("a-2", 3, 1)]);
    driver.restart();
    driver.seconds(5);
    assert_eq!(driver.beat(beat("a", 1)).assignment, Some(partitions(&[(1, &[0]), (3, &[0])])));
    assert_eq!(driver.described().members[0].regex.as_deref(), Some("a-.*"));
    // Another pattern: what it does not match is given up.
    let other = ConsumerHeartbeat { regex: Some("b-.*".into()), ..beat("a", 2) };
    assert_eq!(driver.beat(other).assignment, Some(Partitions::new()));
    let told = driver.beat(holding("a", 2, &Partitions::new()));
    assert_eq!(told.assignment, Some(partitions(&[(2, &[0])])));
    let none = ConsumerHeartbeat { regex: Some("".into()), topics: Some(BTreeSet::from(["a-1".into()])), ..beat("a", 3) };
    assert_eq!(driver.beat(none).assignment, Some(Partitions::new()));
    driver.restart();
    assert_eq!(driver.described().members[0].regex, None);
}

#[test]
fn the_assignor_is_what_most_want() {
    let mut driver = with_topics(&[("t", 1, 3), ("u", 2, 3)]);
    let by =
        |assignor: Option<&str>, id: &str| ConsumerHeartbeat { assignor: assignor.map(Name::from), ..join_to(id, &["t", "u"]) };
    driver.beat(by(None, "a"));
    assert_eq!(driver.described().assignor, "uniform");
    driver.beat(by(Some("range"), "b"));
    driver.beat(by(Some("range"), "c"));
    driver.beat(by(Some("uniform"), "d"));
    assert_eq!(driver.described().assignor, "range");
}

#[test]
fn commits_are_for_those_who_are_in() {
    let mut driver = with_topics(&[("t", 1, 3)]);
    let member = |member: &str, generation| Identity { member: member.into(), generation, instance: None };
    let at = |partition| CommitOffset { topic_id: [1; 16], ..offset("t", partition, 5) };
    let request = |identity: Identity, knows_epochs, partition| {
        Request::Commit(Commit { identity, knows_epochs, retention_ms: None, offsets: vec![at(partition)] })
    };
    assert_eq!(driver.ask(request(member("a", 1), true, 0)), Err(ErrorCode::GROUP_ID_NOT_FOUND));
    assert_eq!(driver.ask(request(member("a", 1), false, 0)), Err(ErrorCode::ILLEGAL_GENERATION));
    driver.beat(join_to("a", &["t"]));
    let committed = Ok(Reply::Committed(vec![ErrorCode::NONE]));
    assert_eq!(driver.ask(request(member("a", 1), true, 0)), committed);
    assert_eq!(driver.ask(request(member("a", 1), false, 0)), Err(ErrorCode::UNSUPPORTED_VERSION));
    assert_eq!(driver.ask(request(member("a", 2), true, 0)), Err(ErrorCode::STALE_MEMBER_EPOCH));
    assert_eq!(driver.ask(request(member("b", 1), true, 0)), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!(driver.ask(request(nobody(), true, 0)), Err(ErrorCode::UNKNOWN_MEMBER_ID));

    // What it has held all the time it may commit at the epoch that it knows (KIP-1251).
    driver.beat(join_to("b", &["t"]));
    let kept = driver.beat(beat("a", 1)).assignment.unwrap();
    assert_eq!(driver.beat(holding("a", 1, &kept)).epoch, 2);
    let lost = (0..3).find(|partition| !of_topic(&kept).contains(partition)).unwrap();
    assert_eq!(driver.ask(request(member("a", 1), true, *of_topic(&kept).first().unwrap())), committed);
    assert_eq!(driver.ask(request(member("a", 1), true, lost)), Err(ErrorCode::STALE_MEMBER_EPOCH));

    // And what it is to give up, until it has said that it gave it up.
    driver.beat(join_to("c", &["t"]));
    let kept_then = driver.beat(beat("a", 2)).assignment.unwrap();
    let given_up = *of_topic(&kept).difference(of_topic(&kept_then)).next().unwrap();
    assert_eq!(driver.ask(request(member("a", 1), true, given_up)), committed);
    driver.beat(holding("a", 2, &kept_then));
    assert_eq!(driver.ask(request(member("a", 1), true, given_up)), Err(ErrorCode::STALE_MEMBER_EPOCH));
    driver.beat(beat("c", -1));
    assert_eq!(driver.beat(beat("a", 3)).epoch, 4);

    let fetch = |identity| Request::FetchAs(identity, Some(vec![("t".into(), vec![0])]));
    assert!(matches!(driver.ask(fetch(member("a", 4))), Ok(Reply::Fetched(_))));
    assert_eq!(driver.ask(fetch(member("a", 1))), Err(ErrorCode::STALE_MEMBER_EPOCH));
    assert_eq!(driver.ask(fetch(member("c", 1))), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert!(matches!(driver.ask(fetch(nobody())), Ok(Reply::Fetched(_))));
    driver.beat(beat("a", -1));
    driver.beat(beat("b", -1));
    assert_eq!(driver.ask(request(nobody(), true, 0)), committed, "a tool sets offsets of a group without members");
}

#[test]
fn tools_take_out_members_by_what_they_are_called() {
    let mut driver = with_topics(&[("t", 1, 4)]);
    for member in ["a", "b"] {
        driver.beat(join_to(member, &["t"]));
    }
    for (instance, member) in [("one", "c"), ("two", "d")] {
        driver.beat(of_instance(instance, join_to(member, &["t"])));
    }
    let leaver = |member: &str, instance: Option<&str>| Leaver { member: member.into(), instance: instance.map(Name::from) };
    let leavers = vec![
        leaver("a", None),
        leaver("c", Some("one")),
        leaver("", Some("two")),
        leaver("b", Some("two")),
        leaver("", Some("three")),
        leaver("nobody", None),
    ];
    let codes = vec![
        ErrorCode::NONE,
        ErrorCode::NONE,
        ErrorCode::NONE,
        ErrorCode::FENCED_INSTANCE_ID,
        ErrorCode::UNKNOWN_MEMBER_ID,
        ErrorCode::UNKNOWN_MEMBER_ID,
    ];
    assert_eq!(driver.ask(Request::Leave(leavers)), Ok(Reply::Left(codes)));
    assert_eq!(driver.described().members.iter().map(|member| &*member.member).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn tools_see_what_it_is() {
    let mut driver = with_topics(&[("t", 1, 1), ("u", 2, 1)]);
    driver.beat(join_to("a", &["t"]));
    let listed = driver.shard.list();
    assert_eq!((&*listed[0].protocol_type, listed[0].state, listed[0].group_type), ("consumer", "Stable", "consumer"));
    let Ok(Reply::Refused(refusal)) = driver.ask(Request::Describe) else { panic!("it is not a classic group") };
    assert_eq!(refusal.code, ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(driver.ask(Request::Delete), Err(ErrorCode::NON_EMPTY_GROUP));
    let identity = Identity { member: "a".into(), generation: 1, instance: None };
    let offsets = vec![offset("t", 0, 1), offset("u", 0, 1)];
    let request = Request::Commit(Commit { identity, knows_epochs: true, retention_ms: None, offsets });
    assert!(driver.ask(request).is_ok());
    let wanted = vec![("t".into(), 0), ("u".into(), 0)];
    let codes = vec![ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC, ErrorCode::NONE];
    assert_eq!(driver.ask(Request::DeleteOffsets(wanted)), Ok(Reply::OffsetsDeleted(codes)));
    driver.beat(beat("a", -1));
    assert_eq!(driver.ask(Request::Delete), Ok(Reply::Deleted));
    assert_eq!(driver.usage.bytes(), 0);
    driver.restart();
    assert!(driver.shard.list().is_empty() && driver.usage.bytes() == 0);
}

#[test]
fn offsets_of_topics_that_are_wanted_stay() {
    let mut driver = with_topics(&[("t", 1, 1), ("u", 2, 1)]);
    driver.beat(join_to("a", &["t"]));
    let identity = Identity { member: "a".into(), generation: 1, instance: None };
    let offsets = vec![offset("t", 0, 1), offset("u", 0, 1)];
    assert!(driver.ask(Request::Commit(Commit { identity, knows_epochs: true, retention_ms: None, offsets })).is_ok());
    let expire = |driver: &mut Driver| {
        driver.seconds(1001);
        let mut out = Output::default();
        driver.shard.expire(driver.now(), &mut out);
        driver.take(out);
        let Ok(Reply::Fetched(fetched)) = driver.ask(Request::Fetch(None)) else { panic!("offsets") };
        fetched.into_iter().map(|(topic, _)| topic).collect::<Vec<_>>()
    };
    for _ in 0..30 {
        driver.seconds(40);
        driver.beat(beat("a", 1));
    }
    let mut out = Output::default();
    driver.shard.expire(driver.now(), &mut out);
    driver.take(out);
    let Ok(Reply::Fetched(fetched)) = driver.ask(Request::Fetch(None)) else { panic!("offsets") };
    assert_eq!(fetched.iter().map(|(topic, _)| &**topic).collect::<Vec<_>>(), ["t"]);
    assert!(expire(&mut driver).is_empty(), "nobody is in it any more");
    assert!(driver.shard.list().is_empty() && driver.usage.bytes() == 0);
    driver.restart();
    assert!(driver.shard.list().is_empty());
}

#[test]
fn a_group_without_members_is_of_the_protocol_of_the_next() {
    let mut driver = with_topics(&[("t", 1, 1)]);
    let members = driver.stable(1);
    assert!(driver.ask(commit(identity(&members[0]), vec![offset("t", 0, 7)])).is_ok());
    driver.ask(leave(&members[0].member)).unwrap();
    driver.beat(join_to("a", &["t"]));
    let fetched = |driver: &mut Driver| match driver.ask(Request::Fetch(None)) {
        Ok(Reply::Fetched(fetched)) => fetched[0].1[0].offset,
        other => panic!("{other:?}"),
    };
    assert_eq!((driver.shard.list()[0].group_type, fetched(&mut driver)), ("consumer", 7));
    driver.restart();
    assert_eq!((driver.shard.list()[0].group_type, fetched(&mut driver)), ("consumer", 7));
    driver.beat(beat("a", -1));
    driver.stable(1);
    driver.restart();
    assert_eq!((driver.shard.list()[0].group_type, fetched(&mut driver)), ("classic", 7));
}

#[test]
fn what_does_not_fit_into_a_record_is_refused_before_anything_changes() {
    let mut driver = with_topics(&[("t", 1, 3), ("wide", 2, 1000)]);
    driver.shard.set_record_bytes_max(2000);
    driver.beat(join_to("a", &["t"]));
    let written = driver.log.len();
    let names: Vec<String> = (0..100).map(|at| format!("{at:040}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(driver.refused(join_to("b", &names)), ErrorCode::INVALID_REQUEST);
    assert_eq!(driver.refused(join_to("b", &["wide"])), ErrorCode::INVALID_REQUEST);
    assert_eq!((driver.log.len(), driver.described().members.len()), (written, 1));
    driver.beat(join_to("b", &["t"]));
    assert!(driver.log.iter().all(|record| record.bytes() <= 2000));
}

#[test]
fn a_group_has_its_own_times_from_the_next_heartbeat_on() {
    let mut driver = with_topics(&[("t", 1, 1)]);
    assert_eq!(driver.beat(join_to("a", &["t"])).interval, Duration::from_secs(5));
    driver.set_config(&[("consumer.heartbeat.interval.ms", "7000"), ("consumer.session.timeout.ms", "60000")]);
    driver.restart();
    driver.seconds(44);
    assert_eq!(driver.beat(beat("a", 1)).interval, Duration::from_secs(7));
    driver.seconds(59);
    assert_eq!(driver.beat(beat("a", 1)).epoch, 1);
    driver.seconds(60);
    assert_eq!(driver.refused(beat("a", 1)), ErrorCode::UNKNOWN_MEMBER_ID);

    driver.beat(join_to("a", &["t"]));
    driver.set_config(&[]);
    let told = driver.beat(beat("a", 3));
    assert_eq!(told.interval, Duration::from_secs(5));
    driver.seconds(45);
    assert_eq!(driver.refused(beat("a", 3)), ErrorCode::UNKNOWN_MEMBER_ID);
    let call = driver.start_in("other", Request::ConsumerHeartbeat(Box::new(join_to("a", &["t"]))));
    driver.set_config(&[("consumer.heartbeat.interval.ms", "7000")]);
    let Ok(Reply::Beat(told)) = driver.answer(call) else { panic!("taken") };
    assert_eq!(told.interval, Duration::from_secs(5), "it is another group's");
}

#[test]
fn assignments_of_a_group_keep_their_distance() {
    let mut driver = with_topics(&[("t", 1, 4)]);
    driver.set_config(&[("consumer.assignment.interval.ms", "3000")]);
    let all = driver.beat(join_to("a", &["t"])).assignment.unwrap();
    assert_eq!(all, partitions(&[(1, &[0, 1, 2, 3])]), "the first one waits for nothing");
    driver.seconds(1);
    let joined = driver.beat(join_to("b", &["t"]));
    assert_eq!((joined.epoch, joined.assignment), (1, Some(Partitions::new())), "it is in, at the epoch of the last assignment");
    assert_eq!((driver.beat(beat("a", 1)).assignment, driver.state()), (None, "Assigning"));
    driver.restart();
    driver.seconds(1);
    assert_eq!(driver.beat(holding("a", 1, &all)).assignment, None);
    let joined = driver.beat(join_to("c", &["t"]));
    assert_eq!((joined.epoch, driver.described().assignment_epoch), (1, 1));
    driver.seconds(1);
    // Both are in the next one.
    let kept = driver.beat(holding("a", 1, &all)).assignment.unwrap();
    assert_eq!((of_topic(&kept).len(), driver.described().assignment_epoch), (2, 3));
    driver.beat(holding("a", 1, &kept));
    assert_eq!(of_topic(&driver.beat(beat("b", 1)).assignment.unwrap()).len(), 1);
    assert_eq!(of_topic(&driver.beat(beat("c", 1)).assignment.unwrap()).len(), 1);
    // Nothing waits where the time is not known: the clock may have been set back.
    driver.beat(beat("b", -1));
    assert_eq!(driver.beat(beat("a", 3)).assignment, None);
    driver.time -= Duration::from_secs(2);
    driver.beat(beat("a", 3));
    assert_eq!(driver.described().assignment_epoch, 4);
}

#[test]
fn the_protocol_is_served_where_it_is_enabled() {
    let mut driver = Driver::new(Settings { serves_consumer_protocol: false, ..settings() });
    driver.set_topics(&[("t", 1, 1)]);
    assert_eq!(driver.refused(join_to("a", &["t"])), ErrorCode::UNSUPPORTED_VERSION);
    let Ok(Reply::Refused(refusal)) = driver.ask(Request::DescribeConsumers) else { panic!("refused") };
    assert_eq!(refusal.code, ErrorCode::UNSUPPORTED_VERSION);
    driver.stable(1);
    assert_eq!(driver.refused(join_to("a", &["t"])), ErrorCode::UNSUPPORTED_VERSION);
}
