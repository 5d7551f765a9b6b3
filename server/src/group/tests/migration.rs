//! A group that goes from the classic protocol to the new one and back, with members in it.

use ringlog_protocol::consumer_protocol::{AssignedTopicPartition, ConsumerProtocolAssignment};
use ringlog_protocol::{Encoder, Payload};

use super::consumer::{beat, join_to};
use super::request::{Beat, Refusal};
use super::*;

fn bytes_of(partitions: &[i32]) -> Bytes {
    let assigned_partitions = vec![AssignedTopicPartition { topic: "t".into(), partitions: partitions.to_vec() }];
    let mut encoder = Encoder::new();
    ConsumerProtocolAssignment { assigned_partitions, user_data: None }.encode(&mut encoder, 0);
    encoder.into_buffer().into()
}

fn partitions_in(bytes: &Bytes) -> Vec<i32> {
    let assignment = ConsumerProtocolAssignment::from_assignment(bytes).unwrap();
    assignment.assigned_partitions.iter().flat_map(|topic| topic.partitions.clone()).collect()
}

/// Two classic members that share a topic of four partitions.
fn classic_group(settings: Settings) -> (Driver, Vec<Joined>) {
    let mut driver = Driver::new(settings);
    driver.set_topics(&[("t", 1, 4)]);
    let mut members = driver.join_all(vec![join(""), join("")]);
    members.sort_by_key(|member| member.leader != member.member);
    let parts = [bytes_of(&[0, 1]), bytes_of(&[2, 3])];
    let assignments = members.iter().zip(parts).map(|(member, part)| (member.member.clone(), part)).collect();
    let leader = sync(&members[0], assignments);
    synced(driver.ask(leader));
    let follower = sync(&members[1], Vec::new());
    synced(driver.ask(follower));
    (driver, members)
}

fn told(driver: &mut Driver, beat: request::ConsumerHeartbeat) -> Result<Beat, Refusal> {
    match driver.ask(Request::ConsumerHeartbeat(Box::new(beat))) {
        Ok(Reply::Beat(beat)) => Ok(beat),
        Ok(Reply::Refused(refusal)) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

/// A classic member of a group of the new protocol joins again, is answered at once, and asks for its part.
fn rejoin(driver: &mut Driver, member: &str) -> (Joined, Vec<i32>) {
    let joined = joined(driver.ask(Request::Join(Box::new(join(member)))));
    assert!(joined.members.is_empty() && joined.leader != joined.member, "it does not assign");
    let part = synced(driver.ask(sync(&joined, Vec::new())));
    (joined, partitions_in(&part.assignment))
}

fn count(beat: &Beat) -> usize {
    beat.assignment.iter().flat_map(Partitions::values).map(std::collections::BTreeSet::len).sum()
}

#[test]
fn members_of_both_protocols_share_and_the_last_decides() {
    let (mut driver, members) = classic_group(settings());
    let new = told(&mut driver, join_to("new", &["t"])).unwrap();
    assert_eq!((new.epoch, count(&new)), (2, 0), "the others have everything");
    assert_eq!(driver.shard.list()[0].group_type, "consumer");
    driver.restart();
    // They are told by their heartbeats, and give up when they join again: they are eager.
    let mut parts = Vec::new();
    for member in &members {
        assert_eq!(driver.ask(heartbeat(member)), Err(ErrorCode::REBALANCE_IN_PROGRESS));
        let (joined, part) = rejoin(&mut driver, &member.member);
        assert_eq!(joined.generation, 2);
        assert_eq!(driver.ask(heartbeat(&joined)), Ok(Reply::Alive));
        parts.push(part);
    }
    let first_part = &parts[0];
    let new = told(&mut driver, beat("new", 2)).unwrap();
    assert_eq!((parts.concat().len(), count(&new)), (3, 1));
    let Ok(Reply::DescribedConsumers(described)) = driver.ask(Request::DescribeConsumers) else { panic!("it is one") };
    assert_eq!((described.state, described.members.iter().filter(|member| member.is_classic).count()), ("Stable", 2));

    // A member of the classic protocol commits by its generation, or by the one before what it has held since then (KIP-1251).
    let at_generation = |generation| Identity { member: members[0].member.clone(), instance: None, generation };
    let at = |partition| vec![CommitOffset { topic_id: [1; 16], ..offset("t", partition, 1) }];
    let own = first_part[0];
    let other = (0..4).find(|partition| !first_part.contains(partition)).unwrap();
    assert!(driver.ask(commit(at_generation(2), at(other))).is_ok());
    assert!(driver.ask(commit(at_generation(1), at(own))).is_ok());
    assert_eq!(driver.ask(commit(at_generation(1), at(other))), Err(ErrorCode::ILLEGAL_GENERATION));
    assert_eq!(driver.ask(commit(at_generation(0), at(own))), Err(ErrorCode::ILLEGAL_GENERATION));
    assert_eq!(driver.ask(commit(at_generation(3), at(own))), Err(ErrorCode::ILLEGAL_GENERATION));

    told(&mut driver, beat("new", -1)).unwrap();
    assert_eq!((driver.shard.list()[0].group_type, driver.shard.list()[0].state), ("classic", "PreparingRebalance"));
    // A broker that stops before they have heard of it knows afterwards that they have to join: none of them was ever told who leads.
    driver.restart();
    assert_eq!((driver.shard.list()[0].group_type, driver.shard.list()[0].state), ("classic", "PreparingRebalance"));
    let calls: Vec<_> = members.iter().map(|member| driver.start(Request::Join(Box::new(join(&member.member))))).collect();
    driver.seconds(60);
    let generations: Vec<i32> = calls.into_iter().map(|call| joined(driver.answer(call)).generation).collect();
    assert!(generations.iter().all(|generation| *generation > 2), "GenerationsGrow: {generations:?}");
}

#[test]
fn classic_members_are_told_to_join_again_when_the_last_of_the_others_goes() {
    for is_silent in [false, true] {
        let (mut driver, members) = classic_group(settings());
        told(&mut driver, join_to("new", &["t"])).unwrap();
        let members: Vec<Joined> = members.iter().map(|member| rejoin(&mut driver, &member.member).0).collect();
        if is_silent {
            while driver.shard.list()[0].group_type == "consumer" {
                driver.seconds(5);
                for member in &members {
                    let _ = driver.ask(heartbeat(member));
                }
            }
        } else {
            told(&mut driver, beat("new", -1)).unwrap();
        }
        assert_eq!(driver.ask(heartbeat(&members[0])), Err(ErrorCode::REBALANCE_IN_PROGRESS));
        assert_eq!(driver.ask(sync(&members[0], Vec::new())), Err(ErrorCode::REBALANCE_IN_PROGRESS));
        assert!(driver.ask(commit(identity(&members[0]), vec![offset("t", 0, 1)])).is_ok(), "what it has read is kept");
        let calls: Vec<_> = members.iter().map(|member| driver.start(Request::Join(Box::new(join(&member.member))))).collect();
        for (call, member) in calls.into_iter().zip(&members) {
            assert_eq!(joined(driver.answer(call)).generation, member.generation + 1);
        }
    }
}

#[test]
fn a_group_may_be_kept_from_it() {
    let (mut driver, members) = classic_group(Settings { allows_upgrade: false, allows_downgrade: false, ..settings() });
    assert_eq!(told(&mut driver, join_to("new", &["t"])).unwrap_err().code, ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(driver.ask(heartbeat(&members[0])), Ok(Reply::Alive), "nothing has happened");
    let mut driver = Driver::new(Settings { allows_upgrade: false, allows_downgrade: false, ..settings() });
    driver.set_topics(&[("t", 1, 4)]);
    told(&mut driver, join_to("new", &["t"])).unwrap();
    assert_eq!(driver.ask(Request::Join(Box::new(join("")))), Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL));

    let mut driver = Driver::new(settings());
    let connect = Join { protocol_type: "connect".into(), ..join("") };
    driver.join_all(vec![connect]);
    assert_eq!(told(&mut driver, join_to("new", &["t"])).unwrap_err().code, ErrorCode::GROUP_ID_NOT_FOUND);
}

#[test]
fn what_cannot_be_taken_over_is_left_as_it_is() {
    let mut driver = Driver::new(settings());
    driver.set_topics(&[("t", 1, 4)]);
    // Their assignments are no consumers' assignments.
    let members = driver.stable(2);
    let written = driver.log.len();
    assert_eq!(told(&mut driver, join_to("new", &["t"])).unwrap_err().code, ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!((driver.log.len(), driver.ask(heartbeat(&members[0]))), (written, Ok(Reply::Alive)));
}

#[test]
fn who_waits_in_the_classic_group_joins_the_new_one() {
    let mut driver = Driver::new(settings());
    driver.set_topics(&[("t", 1, 4)]);
    let waiting = driver.start(Request::Join(Box::new(join(""))));
    told(&mut driver, join_to("new", &["t"])).unwrap();
    assert_eq!(driver.answer(waiting), Err(ErrorCode::REBALANCE_IN_PROGRESS));
    let (_, part) = rejoin(&mut driver, "");
    assert!(part.len() <= 4);
}

#[test]
fn classic_members_have_their_times() {
    let (mut driver, members) = classic_group(settings());
    told(&mut driver, join_to("new", &["t"])).unwrap();
    assert_eq!(driver.ask(heartbeat(&members[0])), Err(ErrorCode::REBALANCE_IN_PROGRESS));
    // The second is silent for its session; the first lives, and does not join again in time.
    for _ in 0..12 {
        driver.seconds(5);
        let _ = driver.ask(heartbeat(&members[0]));
        told(&mut driver, beat("new", 2)).or_else(|_| told(&mut driver, join_to("new", &["t"]))).unwrap();
    }
    assert_eq!(driver.ask(heartbeat(&members[0])), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!(driver.ask(heartbeat(&members[1])), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    let alone = told(&mut driver, join_to("new", &["t"])).unwrap();
    assert_eq!(count(&alone), 4);
    // Who joins and does not ask for its part is out after its rebalance timeout.
    let joined = joined(driver.ask(Request::Join(Box::new(join("")))));
    for _ in 0..12 {
        driver.seconds(5);
        let _ = driver.ask(heartbeat(&joined));
        told(&mut driver, join_to("new", &["t"])).unwrap();
    }
    assert_eq!(driver.ask(heartbeat(&joined)), Err(ErrorCode::UNKNOWN_MEMBER_ID));
}

#[test]
fn a_static_member_comes_back_by_the_other_protocol() {
    let mut driver = Driver::new(settings());
    driver.set_topics(&[("t", 1, 4)]);
    let is_one = |beat: request::ConsumerHeartbeat| request::ConsumerHeartbeat { instance: Some("one".into()), ..beat };
    told(&mut driver, is_one(join_to("new", &["t"]))).unwrap();
    let back = joined(driver.ask(Request::Join(Box::new(static_join("one", "")))));
    assert_eq!(driver.shard.list()[0].group_type, "classic", "nobody speaks the new protocol any more");
    let again = driver.start(Request::Join(Box::new(static_join("one", &back.member))));
    assert!(joined(driver.answer(again)).generation >= back.generation);
    assert_eq!(told(&mut driver, is_one(beat("new", 1))).unwrap_err().code, ErrorCode::GROUP_ID_NOT_FOUND);
}

#[test]
fn a_classic_member_stays_in_though_memory_is_full() {
    let (mut driver, members) = classic_group(Settings { memory_bytes_max: 20_000, ..settings() });
    told(&mut driver, join_to("new", &["t"])).unwrap();
    let mut wordy = subscription(&["t"]).to_vec();
    wordy.extend(vec![0; 30_000]);
    let wordy = |member: &str| Join { protocols: vec![("range".into(), wordy.clone().into())], ..join(member) };
    let id = members[0].member.clone();
    assert_eq!(driver.ask(Request::Join(Box::new(wordy(&id)))), Err(ErrorCode::COORDINATOR_NOT_AVAILABLE));
    assert_eq!(driver.ask(Request::Join(Box::new(wordy("")))), Err(ErrorCode::GROUP_MAX_SIZE_REACHED));
    rejoin(&mut driver, &id);
}

#[test]
fn classic_members_are_not_told_to_join_for_an_assignment_that_waits() {
    let (mut driver, members) = classic_group(settings());
    driver.set_config(&[("consumer.assignment.interval.ms", "15000")]);
    told(&mut driver, join_to("new", &["t"])).unwrap();
    let generations: Vec<Joined> = members.iter().map(|member| rejoin(&mut driver, &member.member).0).collect();
    assert!(generations.iter().all(|joined| joined.generation == 2), "the first one waits for nothing");
    driver.seconds(5);
    told(&mut driver, join_to("another", &["t"])).unwrap();
    for joined in &generations {
        assert_eq!(driver.ask(heartbeat(joined)), Ok(Reply::Alive));
        assert!(driver.ask(sync(joined, Vec::new())).is_ok(), "its part is what it was");
    }
    driver.seconds(5);
    for joined in &generations {
        assert_eq!(driver.ask(heartbeat(joined)), Ok(Reply::Alive));
    }
    driver.seconds(5);
    assert_eq!(driver.ask(heartbeat(&generations[0])), Err(ErrorCode::REBALANCE_IN_PROGRESS));
    assert_eq!(rejoin(&mut driver, &members[0].member).0.generation, 3);
}

#[test]
fn who_was_replaced_in_a_log_that_lost_its_end_takes_nothing_from_its_successor() {
    let mut driver = Driver::new(settings());
    driver.set_topics(&[("t", 1, 4)]);
    told(&mut driver, join_to("new", &["t"])).unwrap();
    joined(driver.ask(Request::Join(Box::new(static_join("one", "")))));
    let written = driver.log.len();
    joined(driver.ask(Request::Join(Box::new(static_join("one", "")))));
    // Of the second one, the log has that it came, not that it came for the first.
    driver.log.truncate(written + 1);
    driver.restart();
    told(&mut driver, beat("new", -1)).unwrap();
    assert_eq!(driver.shard.list()[0].group_type, "classic");
    let call = driver.start(Request::Join(Box::new(static_join("one", ""))));
    while driver.waits(call) {
        driver.seconds(1);
    }
    let back = joined(driver.answer(call));
    let identity = || Identity { instance: Some("one".into()), ..identity(&back) };
    for _ in 0..20 {
        driver.seconds(1);
        assert!(!matches!(driver.ask(Request::Heartbeat(identity())), Err(ErrorCode::UNKNOWN_MEMBER_ID)), "it is in");
    }
}

/// Whether a member is fenced that says it has this instance id.
fn is_fenced(driver: &mut Driver, member: &str, instance: &str) -> bool {
    let identity = Identity { member: member.into(), instance: Some(instance.into()), generation: 1 };
    driver.ask(Request::Heartbeat(identity)) == Err(ErrorCode::FENCED_INSTANCE_ID)
}

#[test]
fn of_two_of_one_instance_id_the_later_one_has_it_wherever_the_group_goes() {
    let mut driver = Driver::new(settings());
    driver.set_topics(&[("t", 1, 4)]);
    told(&mut driver, join_to("new", &["t"])).unwrap();
    // By their names the older one is the last.
    let older = request::ConsumerHeartbeat { instance: Some("one".into()), ..join_to("z", &["t"]) };
    told(&mut driver, older).unwrap();
    joined(driver.ask(Request::Join(Box::new(static_join("one", "z")))));
    let written = driver.log.len();
    let back = joined(driver.ask(Request::Join(Box::new(static_join("one", ""))))).member;
    assert!(*back < *"z");
    // Of the second one, the log has that it came, not that it came for the first.
    driver.log.truncate(written + 1);
    let check = |driver: &mut Driver, group_type| {
        assert_eq!(driver.shard.list()[0].group_type, group_type);
        assert!(is_fenced(driver, "z", "one") && !is_fenced(driver, &back, "one"), "{group_type}");
    };
    driver.restart();
    check(&mut driver, "consumer");
    told(&mut driver, beat("new", -1)).unwrap();
    check(&mut driver, "classic");
    driver.restart();
    check(&mut driver, "classic");
    told(&mut driver, join_to("new", &["t"])).unwrap();
    check(&mut driver, "consumer");
    driver.restart();
    check(&mut driver, "consumer");
    // What the older one says later takes nothing from the other, also where the log keeps only the last that it said.
    let other = Join { client_id: "other".into(), ..join("z") };
    driver.ask(Request::Join(Box::new(other))).unwrap();
    check(&mut driver, "consumer");
    let mut seen = std::collections::BTreeSet::new();
    driver.log.reverse();
    driver.log.retain(|record| seen.insert(record.key.clone()));
    driver.log.reverse();
    driver.restart();
    check(&mut driver, "consumer");
}

#[test]
fn of_two_of_one_instance_id_in_one_record_the_last_has_it() {
    let mut driver = Driver::new(settings());
    driver.set_topics(&[("t", 1, 4)]);
    let members = driver.join_all(vec![static_join("one", ""), static_join("two", "")]);
    let leader = members.iter().find(|member| member.leader == member.member).unwrap();
    driver.ask(sync(leader, Vec::new())).unwrap();
    let value = driver.log.last_mut().and_then(|record| record.value.as_mut()).unwrap();
    // The instance id stands behind the member's, which begins with it.
    let two = *b"\0\x03two";
    let at = value.windows(two.len()).position(|bytes| *bytes == two).unwrap();
    value[at + 2..at + 5].copy_from_slice(b"one");
    driver.restart();
    let Ok(Reply::Described(described)) = driver.ask(Request::Describe) else { panic!("it is one") };
    assert_eq!(described.members.iter().filter(|member| member.instance.is_some()).count(), 1);
    for group_type in ["classic", "consumer"] {
        let fenced = members.iter().filter(|member| is_fenced(&mut driver, &member.member, "one")).count();
        assert_eq!((driver.shard.list()[0].group_type, fenced), (group_type, 1));
        told(&mut driver, join_to("new", &["t"])).unwrap();
    }
}

/// What does not fit into the log costs all groups of a partition what is not written of them: nothing too large is ever said.
fn assert_fits(driver: &Driver, bytes_max: usize) {
    assert!(driver.log.iter().all(|record| record.bytes() <= bytes_max), "records fit");
}

#[test]
fn a_member_that_is_larger_than_a_record_stays_in_a_classic_group() {
    const BYTES_MAX: usize = 4000;
    let mut driver = Driver::new(settings());
    driver.set_topics(&[("t", 1, 4)]);
    driver.shard.set_record_bytes_max(BYTES_MAX);
    // Of what it speaks, the record of a classic group has one protocol alone.
    let wish = || {
        let mut bytes = subscription(&["t"]).to_vec();
        let user_data_at = bytes.len() - 4;
        bytes.truncate(user_data_at);
        bytes.extend(1000_u32.to_be_bytes());
        bytes.extend([7; 1000]);
        Bytes::from(bytes)
    };
    let protocols = (0..5).map(|at| (Name::from(format!("protocol-{at}")), wish())).collect();
    let member = driver.join_all(vec![Join { protocols, ..join("") }]).remove(0);
    let leader = sync(&member, vec![(member.member.clone(), bytes_of(&[0, 1, 2, 3]))]);
    synced(driver.ask(leader));
    let refusal = told(&mut driver, join_to("new", &["t"])).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::GROUP_ID_NOT_FOUND);
    assert!(refusal.message.contains("more than a record"), "{}", refusal.message);
    assert_eq!(driver.ask(heartbeat(&member)), Ok(Reply::Alive));
    assert_fits(&driver, BYTES_MAX);
}

#[test]
fn a_group_that_is_larger_than_a_record_stays_one_of_the_new_protocol() {
    const BYTES_MAX: usize = 1000;
    let mut driver = Driver::new(settings());
    driver.set_topics(&[("t", 1, 4)]);
    driver.shard.set_record_bytes_max(BYTES_MAX);
    told(&mut driver, join_to("new", &["t"])).unwrap();
    let members: Vec<Joined> = (0..8).map(|_| joined(driver.ask(Request::Join(Box::new(join("")))))).collect();
    told(&mut driver, beat("new", -1)).unwrap();
    assert_eq!(driver.shard.list()[0].group_type, "consumer");
    assert_fits(&driver, BYTES_MAX);
    // Those that are left are served as before, and the group becomes a classic one when it fits.
    assert_eq!(driver.ask(heartbeat(&members[0])), Err(ErrorCode::REBALANCE_IN_PROGRESS));
    let (first, _) = rejoin(&mut driver, &members[0].member);
    assert_eq!(driver.ask(heartbeat(&first)), Ok(Reply::Alive));
    for member in &members[2..] {
        driver.ask(leave(&member.member)).unwrap();
    }
    assert_eq!(driver.shard.list()[0].group_type, "classic");
    assert_fits(&driver, BYTES_MAX);
}
