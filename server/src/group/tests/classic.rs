//! Members and generations, case by case.

use super::*;

fn error(answer: Answer) -> ErrorCode {
    answer.expect_err("an error")
}

#[test]
fn a_new_member_comes_again_with_the_id_that_it_is_given() {
    let mut driver = Driver::new(settings());
    let first = Join { requires_member_id: true, ..join("") };
    let Ok(Reply::MemberIdRequired(id)) = driver.ask(Request::Join(Box::new(first))) else { panic!("an id comes first") };
    assert!(id.starts_with("client-"));
    let call = driver.start(Request::Join(Box::new(join(&id))));
    driver.seconds(2);
    assert!(driver.waits(call), "others may come");
    driver.seconds(1);
    let joined = joined(driver.answer(call));
    assert_eq!((joined.generation, &joined.member, &joined.leader), (1, &id, &id));
    assert_eq!(joined.members, vec![(id, None, subscription(&["t"]))]);
    assert!(driver.log.is_empty(), "nobody has anything yet");
}

#[test]
fn an_id_that_nobody_uses_ends_with_its_session_and_leaves_nothing() {
    let mut driver = Driver::new(settings());
    let Ok(Reply::MemberIdRequired(id)) = driver.ask(Request::Join(Box::new(Join { requires_member_id: true, ..join("") })))
    else {
        panic!("an id comes first")
    };
    assert!(driver.usage.bytes() > 0);
    driver.seconds(10);
    assert_eq!((driver.usage.bytes(), driver.shard.list()), (0, Vec::new()));
    assert_eq!(error(driver.ask(Request::Join(Box::new(join(&id))))), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn who_was_given_an_id_holds_up_no_first_member() {
    let mut driver = Driver::new(Settings { initial_rebalance_delay: Duration::ZERO, ..settings() });
    let with_id = || Join { requires_member_id: true, ..join("") };
    let Ok(Reply::MemberIdRequired(_)) = driver.ask(Request::Join(Box::new(with_id()))) else { panic!("an id comes first") };
    let first = joined(driver.ask(Request::Join(Box::new(join("")))));
    assert_eq!((first.generation, first.members.len()), (1, 1));
}

#[test]
fn a_group_of_members_has_a_name() {
    let mut driver = Driver::new(settings());
    let requests = [
        Request::Join(Box::new(join(""))),
        Request::Sync(Sync::default()),
        Request::Heartbeat(Identity::default()),
        leave("a"),
        Request::Leave(Vec::new()),
        Request::DeleteOffsets(vec![("t".into(), 0)]),
    ];
    for request in requests {
        let call = driver.start_in("", request);
        assert_eq!(error(driver.answer(call)), ErrorCode::INVALID_GROUP_ID);
    }
    let call = driver.start_in("", commit(nobody(), vec![offset("t", 0, 1)]));
    assert!(driver.answer(call).is_ok(), "offsets alone need none");
}

#[test]
fn joins_that_cannot_be() {
    let mut driver = Driver::new(settings());
    let mut refused = |join: Join| error(driver.ask(Request::Join(Box::new(join))));
    let session = |seconds| Join { session_timeout: Duration::from_secs(seconds), ..join("") };
    assert_eq!(refused(session(5)), ErrorCode::INVALID_SESSION_TIMEOUT);
    assert_eq!(refused(session(1801)), ErrorCode::INVALID_SESSION_TIMEOUT);
    assert_eq!(refused(Join { protocols: Vec::new(), ..join("") }), ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    assert_eq!(refused(Join { protocol_type: "".into(), ..join("") }), ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    assert_eq!(refused(join("nobody")), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(driver.usage.bytes(), 0, "none of them left a group behind");

    driver.stable(1);
    let mut refused = |join: Join| error(driver.ask(Request::Join(Box::new(join))));
    assert_eq!(refused(Join { protocol_type: "connect".into(), ..join("") }), ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let other = Join { protocols: vec![("sticky".into(), Bytes::new())], ..join("") };
    assert_eq!(refused(other), ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    assert_eq!(refused(join("nobody")), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_group_of_nobody_knows_no_member() {
    let mut driver = Driver::new(settings());
    let nobody = Joined {
        generation: 1,
        protocol_type: None,
        protocol: None,
        leader: "x".into(),
        skips_assignment: false,
        member: "x".into(),
        members: Vec::new(),
    };
    for request in [sync(&nobody, Vec::new()), heartbeat(&nobody)] {
        assert_eq!(error(driver.ask(request)), ErrorCode::UNKNOWN_MEMBER_ID);
    }
    let two = ["x", "y"].map(|member| Leaver { member: member.into(), instance: None });
    assert_eq!(driver.ask(Request::Leave(two.to_vec())), Ok(Reply::Left(vec![ErrorCode::UNKNOWN_MEMBER_ID; 2])));
    assert_eq!(error(driver.ask(commit(identity(&nobody), vec![offset("t", 0, 1)]))), ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(error(driver.ask(Request::Describe)), ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(error(driver.ask(Request::Delete)), ErrorCode::GROUP_ID_NOT_FOUND);
}

#[test]
fn the_first_members_are_waited_for_together_and_not_for_ever() {
    let mut driver = Driver::new(settings());
    let calls: Vec<_> = (0..25)
        .map(|_| {
            let call = driver.start(Request::Join(Box::new(join(""))));
            driver.seconds(2);
            call
        })
        .collect();
    // One every two seconds would go on for ever: the rebalance timeout of 60 s ends it.
    assert!(calls.iter().all(|call| driver.waits(*call)));
    for _ in 0..10 {
        driver.start(Request::Join(Box::new(join(""))));
        driver.seconds(2);
    }
    assert!(calls.iter().all(|call| !driver.waits(*call)));
}

#[test]
fn each_member_gets_its_part_and_the_log_has_it_first() {
    let mut driver = Driver::new(settings());
    let members = driver.join_all(vec![join(""), join(""), join("")]);
    let leader = members.iter().position(|member| member.leader == member.member).expect("somebody leads");
    assert!(members.iter().enumerate().all(|(at, member)| (at == leader) == (member.members.len() == 3)));
    let followers: Vec<_> = members.iter().enumerate().filter(|(at, _)| *at != leader).map(|(_, member)| member).collect();
    let waiting = driver.start(sync(followers[0], Vec::new()));
    assert!(driver.waits(waiting));
    let assignments = members.iter().map(|member| (member.member.clone(), Bytes::from(member.member.to_string())));
    let assignments = assignments.chain([("a stranger".into(), Bytes::from_static(b"?"))]).collect();
    synced(driver.ask(sync(&members[leader], assignments)));
    assert_eq!(driver.log.len(), 1);
    assert_eq!(synced(driver.answer(waiting)).assignment, followers[0].member.as_bytes());
    assert_eq!(synced(driver.ask(sync(followers[1], Vec::new()))).assignment, followers[1].member.as_bytes());
    let Ok(Reply::Described(described)) = driver.ask(Request::Describe) else { panic!("described") };
    assert_eq!((described.state, &*described.protocol_type, &*described.protocol), ("Stable", "consumer", "range"));
    assert!(described.members.iter().all(|member| member.assignment == member.member.as_bytes()));
}

#[test]
fn the_generation_is_checked_and_so_is_the_state() {
    let mut driver = Driver::new(settings());
    let members = driver.stable(2);
    assert_eq!(driver.ask(heartbeat(&members[0])), Ok(Reply::Alive));
    let old = Joined { generation: 0, ..members[0].clone() };
    let stranger = Joined { member: "stranger".into(), ..members[0].clone() };
    assert_eq!(error(driver.ask(heartbeat(&old))), ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(error(driver.ask(sync(&old, Vec::new()))), ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(error(driver.ask(heartbeat(&stranger))), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(error(driver.ask(sync(&stranger, Vec::new()))), ErrorCode::UNKNOWN_MEMBER_ID);
    let other = Sync { identity: identity(&members[0]), protocol: Some("sticky".into()), ..Sync::default() };
    assert_eq!(error(driver.ask(Request::Sync(other))), ErrorCode::INCONSISTENT_GROUP_PROTOCOL);

    // The leader comes again: the others are to join.
    let leader = driver.start(Request::Join(Box::new(join(&members[0].member))));
    assert_eq!(error(driver.ask(heartbeat(&members[1]))), ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(error(driver.ask(sync(&members[1], Vec::new()))), ErrorCode::REBALANCE_IN_PROGRESS);
    let committed = driver.ask(commit(identity(&members[1]), vec![offset("t", 0, 5)]));
    assert_eq!(committed, Ok(Reply::Committed(vec![ErrorCode::NONE])), "what was read before goes on being committed");
    let other = driver.start(Request::Join(Box::new(join(&members[1].member))));
    let (leader, other) = (joined(driver.answer(leader)), joined(driver.answer(other)));
    assert_eq!((leader.generation, other.generation), (2, 2));
    assert_eq!(driver.ask(heartbeat(&other)), Ok(Reply::Alive));
    let early = driver.ask(commit(identity(&other), vec![offset("t", 0, 6)]));
    assert_eq!(error(early), ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn a_member_that_did_not_hear_the_answer_is_told_again() {
    let mut driver = Driver::new(settings());
    let members = driver.join_all(vec![join(""), join("")]);
    for member in &members {
        let again = joined(driver.ask(Request::Join(Box::new(join(&member.member)))));
        assert_eq!(&again, member);
    }
    let members = driver.stable_from(members);
    let again = joined(driver.ask(Request::Join(Box::new(join(&members[1].member)))));
    assert_eq!((again.generation, again.members.len()), (1, 0));
    // With something else to say it is a rebalance.
    let changed = Join { protocols: vec![("range".into(), subscription(&["u"]))], ..join(&members[1].member) };
    let call = driver.start(Request::Join(Box::new(changed)));
    assert!(driver.waits(call));
}

#[test]
fn a_silent_member_goes_and_the_others_take_over() {
    let mut driver = Driver::new(settings());
    let members = driver.stable(2);
    for _ in 0..3 {
        driver.seconds(4);
        let answer = driver.ask(heartbeat(&members[0]));
        assert!(answer == Ok(Reply::Alive) || answer == Err(ErrorCode::REBALANCE_IN_PROGRESS));
    }
    let again = joined(driver.ask(Request::Join(Box::new(join(&members[0].member)))));
    assert_eq!((again.generation, again.members.len()), (2, 1));
    assert_eq!(error(driver.ask(heartbeat(&members[1]))), ErrorCode::UNKNOWN_MEMBER_ID);
    // Nobody syncs, nobody beats: the group ends, and the log knows.
    driver.seconds(100);
    let listed = driver.shard.list();
    assert_eq!((listed.len(), listed[0].state), (1, "Empty"));
    assert_eq!(driver.log.len(), 2);
}

#[test]
fn who_does_not_join_again_in_time_is_out() {
    let mut driver = Driver::new(settings());
    let members = driver.stable(3);
    let calls: Vec<_> = members[..2].iter().map(|member| driver.start(Request::Join(Box::new(join(&member.member))))).collect();
    for _ in 0..12 {
        assert!(calls.iter().all(|call| driver.waits(*call)));
        driver.seconds(5);
        let _ = driver.ask(heartbeat(&members[2]));
    }
    assert!(calls.into_iter().all(|call| joined(driver.answer(call)).generation == 2));
    assert_eq!(error(driver.ask(heartbeat(&members[2]))), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_leader_that_does_not_assign_is_out() {
    let mut driver = Driver::new(settings());
    let mut members = driver.join_all(vec![join(""), join("")]);
    members.sort_by_key(|member| member.leader != member.member);
    let waiting = driver.start(sync(&members[1], Vec::new()));
    for _ in 0..12 {
        assert!(driver.waits(waiting));
        driver.seconds(5);
        let _ = driver.ask(heartbeat(&members[0]));
    }
    assert_eq!(error(driver.answer(waiting)), ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(error(driver.ask(heartbeat(&members[0]))), ErrorCode::UNKNOWN_MEMBER_ID);
    let again = joined(driver.ask(Request::Join(Box::new(join(&members[1].member)))));
    assert_eq!((again.leader, again.generation), (members[1].member.clone(), 2));
}

#[test]
fn members_leave_one_by_one_or_together() {
    let mut driver = Driver::new(settings());
    let members = driver.stable(3);
    let leaver = |member: &str| Leaver { member: member.into(), instance: None };
    let left = driver.ask(Request::Leave(vec![leaver(&members[1].member), leaver("stranger")]));
    assert_eq!(left, Ok(Reply::Left(vec![ErrorCode::NONE, ErrorCode::UNKNOWN_MEMBER_ID])));
    assert_eq!(error(driver.ask(heartbeat(&members[0]))), ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(driver.ask(leave(&members[0].member)), Ok(Reply::Left(vec![ErrorCode::NONE])));
    assert_eq!(driver.ask(leave(&members[2].member)), Ok(Reply::Left(vec![ErrorCode::NONE])));
    assert_eq!(driver.shard.list()[0].state, "Empty");
    // The next ones begin a later generation, after a restart too.
    driver.restart();
    assert_eq!(driver.stable(1)[0].generation, 3);
}

#[test]
fn a_static_member_that_is_back_disturbs_nobody() {
    let mut driver = Driver::new(settings());
    let mut members = driver.join_all(vec![static_join("a", ""), static_join("b", "")]);
    members.sort_by_key(|member| member.leader != member.member);
    let instance = |member: &Joined| if member.member.starts_with('a') { "a" } else { "b" };
    let identity_of = |member: &Joined| Identity { instance: Some(instance(member).into()), ..identity(member) };
    let assignments = members.iter().map(|member| (member.member.clone(), Bytes::from(instance(member)))).collect();
    synced(driver.ask(Request::Sync(Sync { identity: identity_of(&members[0]), assignments, ..Sync::default() })));

    let back = joined(driver.ask(Request::Join(Box::new(static_join(instance(&members[1]), "")))));
    assert_ne!(back.member, members[1].member);
    assert_eq!((back.generation, back.members.len(), &back.leader), (1, 0, &members[0].member));
    assert_eq!(driver.ask(Request::Heartbeat(identity_of(&members[0]))), Ok(Reply::Alive));
    let synced_back = Request::Sync(Sync { identity: identity_of(&back), ..Sync::default() });
    assert_eq!(synced(driver.ask(synced_back)).assignment, instance(&members[1]));
    // Who still has the old id is fenced, everywhere.
    let old = identity_of(&members[1]);
    assert_eq!(error(driver.ask(Request::Heartbeat(old.clone()))), ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(error(driver.ask(commit(old.clone(), vec![offset("t", 0, 1)]))), ErrorCode::FENCED_INSTANCE_ID);
    let request = Request::Sync(Sync { identity: old.clone(), ..Sync::default() });
    assert_eq!(error(driver.ask(request)), ErrorCode::FENCED_INSTANCE_ID);
    let rejoin = static_join(instance(&members[1]), &members[1].member);
    assert_eq!(error(driver.ask(Request::Join(Box::new(rejoin)))), ErrorCode::FENCED_INSTANCE_ID);
    let leaver = Leaver { member: old.member, instance: old.instance };
    assert_eq!(driver.ask(Request::Leave(vec![leaver])), Ok(Reply::Left(vec![ErrorCode::FENCED_INSTANCE_ID])));
    // The log knows the new id.
    driver.restart();
    assert_eq!(driver.ask(Request::Heartbeat(identity_of(&back))), Ok(Reply::Alive));

    // The leader, back: told that it leads and need not assign, if it understands that.
    let knowing = Join { knows_skip_assignment: true, ..static_join(instance(&members[0]), "") };
    let leader = joined(driver.ask(Request::Join(Box::new(knowing))));
    assert!(leader.skips_assignment && leader.leader == leader.member && leader.members.len() == 2);
    let unknowing = joined(driver.ask(Request::Join(Box::new(static_join(instance(&members[0]), "")))));
    assert!(!unknowing.skips_assignment && unknowing.leader != unknowing.member && unknowing.members.is_empty());

    // With other topics it is a rebalance.
    let changed = Join { protocols: vec![("range".into(), subscription(&["u"]))], ..static_join("a", "") };
    let call = driver.start(Request::Join(Box::new(changed)));
    assert!(driver.waits(call));
    // By name alone an operator takes it out.
    let by_name = Leaver { member: "".into(), instance: Some("a".into()) };
    assert_eq!(driver.ask(Request::Leave(vec![by_name])), Ok(Reply::Left(vec![ErrorCode::NONE])));
    assert_eq!(error(driver.answer(call)), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn static_members_stay_through_a_rebalance_that_they_miss() {
    let mut driver = Driver::new(settings());
    let long = Duration::from_secs(600);
    let lasting = |instance: &str| Join { session_timeout: long, ..static_join(instance, "") };
    let members = driver.join_all(vec![lasting("a"), lasting("b")]);
    let leader = members.iter().find(|member| member.leader == member.member).expect("somebody leads");
    synced(driver.ask(Request::Sync(Sync { identity: identity(leader), ..Sync::default() })));
    let call = driver.start(Request::Join(Box::new(join(""))));
    driver.seconds(60);
    let new = joined(driver.answer(call));
    assert_eq!((new.leader, new.members.len()), (new.member, 3), "the new one leads, for the others are not there");
}

#[test]
fn a_group_is_no_larger_than_it_may_be() {
    let mut driver = Driver::new(Settings { group_size_max: 2, ..settings() });
    let members = driver.stable(2);
    let refused = driver.ask(Request::Join(Box::new(join(""))));
    assert_eq!(error(refused), ErrorCode::GROUP_MAX_SIZE_REACHED);
    assert_eq!(driver.ask(heartbeat(&members[0])), Ok(Reply::Alive));
    // Ids are given to no more than might use them.
    let requiring = || Request::Join(Box::new(Join { requires_member_id: true, ..join("") }));
    let mut driver = Driver::new(Settings { group_size_max: 2, ..settings() });
    let given: Vec<_> = (0..5).map(|_| driver.ask(requiring()).is_ok()).collect();
    assert_eq!(given, [true, true, false, false, false]);
}

#[test]
fn memory_is_bounded_and_comes_back() {
    let mut driver = Driver::new(Settings { memory_bytes_max: 100_000, ..settings() });
    let large = || Join { protocols: vec![("range".into(), Bytes::from(vec![0; 30_000]))], ..join("") };
    let answers: Vec<_> = (0..5).map(|_| driver.start(Request::Join(Box::new(large())))).collect();
    let refused = answers.iter().filter(|call| !driver.waits(**call)).count();
    assert_eq!(refused, 2);
    assert!(driver.usage.bytes() <= 100_000);
    driver.seconds(1000);
    let mut out = Output::default();
    driver.shard.expire(driver.now(), &mut out);
    assert_eq!(driver.usage.bytes(), 0);
}

#[test]
fn protocols_have_a_bound_and_each_is_paid_for() {
    let mut driver = Driver::new(settings());
    let speaks = |count: usize| {
        let protocols = (0..count).map(|at| (Name::from(format!("p{at}")), Bytes::new()));
        Join { protocols: protocols.collect(), ..join("") }
    };
    assert_eq!(error(driver.ask(Request::Join(Box::new(speaks(101))))), ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    assert_eq!((driver.usage.bytes(), driver.shard.list()), (0, Vec::new()));
    assert_eq!(driver.join_all(vec![speaks(100)]).len(), 1);

    // Names count for little; what a protocol takes beside them is known before a member is in.
    let mut driver = Driver::new(Settings { memory_bytes_max: 6000, ..settings() });
    assert_eq!(error(driver.ask(Request::Join(Box::new(speaks(100))))), ErrorCode::GROUP_MAX_SIZE_REACHED);
    assert!(driver.usage.bytes() <= 6000);
}

#[test]
fn a_protocol_that_is_named_twice_counts_once() {
    let mut driver = Driver::new(settings());
    let speaks =
        |names: &[&str]| Join { protocols: names.iter().map(|name| ((*name).into(), Bytes::new())).collect(), ..join("") };
    let members = driver.join_all(vec![speaks(&["a", "a", "b"]), speaks(&["b"])]);
    assert!(members.iter().all(|member| member.protocol.as_deref() == Some("b")));
}

#[test]
fn an_id_that_is_not_used_leaves_without_a_rebalance() {
    let requiring = || Request::Join(Box::new(Join { requires_member_id: true, ..join("") }));
    let given = |driver: &mut Driver| match driver.ask(requiring()) {
        Ok(Reply::MemberIdRequired(id)) => id,
        other => panic!("an id comes first: {other:?}"),
    };
    let mut driver = Driver::new(settings());
    let members = driver.stable(2);
    let id = given(&mut driver);
    assert_eq!(driver.ask(leave(&id)), Ok(Reply::Left(vec![ErrorCode::NONE])));
    assert_eq!(driver.ask(heartbeat(&members[0])), Ok(Reply::Alive));
    assert_eq!(error(driver.ask(Request::Join(Box::new(join(&id))))), ErrorCode::UNKNOWN_MEMBER_ID);

    // One that is not let in because there is no memory for what it says.
    let mut driver = Driver::new(Settings { memory_bytes_max: 20_000, ..settings() });
    let members = driver.stable(1);
    let id = given(&mut driver);
    let large = Join { protocols: vec![("range".into(), Bytes::from(vec![0; 30_000]))], ..join(&id) };
    assert_eq!(error(driver.ask(Request::Join(Box::new(large)))), ErrorCode::GROUP_MAX_SIZE_REACHED);
    assert_eq!(driver.ask(heartbeat(&members[0])), Ok(Reply::Alive));

    // Those who wait for it go on.
    let mut driver = Driver::new(settings());
    let members = driver.stable(1);
    let id = given(&mut driver);
    let call = driver.start(Request::Join(Box::new(join(&members[0].member))));
    assert!(driver.waits(call));
    driver.ask(leave(&id)).expect("it leaves");
    assert_eq!(joined(driver.answer(call)).generation, members[0].generation + 1);
}

#[test]
fn a_member_is_not_put_out_because_memory_is_full() {
    let mut driver = Driver::new(Settings { memory_bytes_max: 40_000, ..settings() });
    let with = |member: &str, bytes| Join { protocols: vec![("range".into(), Bytes::from(vec![0; bytes]))], ..join(member) };
    let members = driver.join_all(vec![with("", 36_000)]);
    synced(driver.ask(sync(&members[0], Vec::new())));
    let refused = Request::Join(Box::new(with("", 5000)));
    assert_eq!(error(driver.ask(refused)), ErrorCode::GROUP_MAX_SIZE_REACHED, "there is no memory for others");
    let id = members[0].member.clone();
    let again = driver.ask(Request::Join(Box::new(with(&id, 40_000))));
    let grown = joined(again);
    synced(driver.ask(sync(&grown, Vec::new())));
    let far_more = driver.ask(Request::Join(Box::new(with(&id, 80_000))));
    assert_eq!(error(far_more), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(driver.ask(heartbeat(&grown)), Ok(Reply::Alive), "it is still in");
    assert!(driver.usage.bytes() <= 45_000);
}

#[test]
fn a_group_that_became_too_large_for_its_record_is_assigned_anew() {
    let mut driver = Driver::new(settings());
    let members = driver.join_all(vec![static_join("a", ""), static_join("b", "")]);
    let leader = members.iter().find(|member| member.leader == member.member).expect("somebody leads");
    let identity = |member: &Joined| Identity { instance: None, ..identity(member) };
    let part = |bytes: usize| vec![(leader.member.clone(), Bytes::from(vec![7; bytes]))];
    let sync = |bytes| Request::Sync(Sync { identity: identity(leader), assignments: part(bytes), ..Sync::default() });
    synced(driver.ask(sync(500)));
    driver.shard.set_record_bytes_max(1000);
    let host = "h".repeat(600);
    let back = Join { client_host: host.as_str().into(), ..static_join("a", "") };
    let call = driver.start(Request::Join(Box::new(back)));
    assert!(driver.waits(call), "it joins with all the others");
    assert_eq!(driver.log.len(), 1);

    // What a leader says is refused, and asked for again.
    let mut driver = Driver::new(settings());
    let members = driver.join_all(vec![join("")]);
    driver.shard.set_record_bytes_max(1000);
    let parts = |bytes: usize| vec![(members[0].member.clone(), Bytes::from(vec![7; bytes]))];
    assert_eq!(error(driver.ask(super::sync(&members[0], parts(1000)))), ErrorCode::UNKNOWN_SERVER_ERROR);
    let again = joined(driver.ask(Request::Join(Box::new(join(&members[0].member)))));
    synced(driver.ask(super::sync(&again, parts(100))));
    assert!(driver.log.iter().all(|record| record.bytes() <= 1000));
}

#[test]
fn members_are_known_after_a_restart_and_their_sessions_begin_anew() {
    let mut driver = Driver::new(settings());
    let members = driver.stable(2);
    driver.seconds(9);
    driver.restart();
    driver.seconds(9);
    for member in &members {
        assert_eq!(driver.ask(heartbeat(member)), Ok(Reply::Alive));
        assert_eq!(synced(driver.ask(sync(member, Vec::new()))).assignment, member.member.as_bytes());
    }
    driver.seconds(11);
    assert_eq!(error(driver.ask(heartbeat(&members[0]))), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn all_that_wait_are_answered_when_the_shard_goes() {
    let mut driver = Driver::new(settings());
    let waiting = driver.start(Request::Join(Box::new(join(""))));
    let mut out = Output::default();
    driver.shard.close(ErrorCode::NOT_COORDINATOR, driver.now(), &mut out);
    driver.take(out);
    assert_eq!(error(driver.answer(waiting)), ErrorCode::NOT_COORDINATOR);
}

#[test]
fn the_protocol_that_most_like_best_is_spoken() {
    let mut driver = Driver::new(settings());
    let speaks =
        |names: &[&str]| Join { protocols: names.iter().map(|name| ((*name).into(), Bytes::new())).collect(), ..join("") };
    let members = driver.join_all(vec![speaks(&["a", "b", "c"]), speaks(&["c", "b"]), speaks(&["x", "b", "c"])]);
    // All speak b and c; two of three put b before c.
    assert!(members.iter().all(|member| member.protocol.as_deref() == Some("b")));
}

impl Driver {
    /// Members that have joined, made stable; the leader first.
    fn stable_from(&mut self, mut members: Vec<Joined>) -> Vec<Joined> {
        members.sort_by_key(|member| member.leader != member.member);
        for member in &members {
            synced(self.ask(sync(member, Vec::new())));
        }
        members
    }
}
