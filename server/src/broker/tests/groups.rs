//! Groups on a whole broker: what survives a crash, a disk that fails, and the end of a topic.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use ringlog_engine::disk::sim::Faults;
use ringlog_protocol::Uuid;

use super::*;
use crate::broker::groups::Groups;
use crate::catalogue::names::CONSUMER_OFFSETS;
use crate::catalogue::records::RESOURCE_GROUP;
use crate::group::request::{Commit, CommitOffset, ConsumerHeartbeat, Identity, Join, Joined, Reply, Sync};
use crate::group::{Answer, Partitions, Request, partition_of};

/// A broker that serves its groups.
fn serve(machine: &Machine) -> (Running, Vec<Rc<BrokerCore>>) {
    let running = machine.start();
    let cores = running.cores.iter().map(|core| BrokerCore::new(running.broker.clone(), core.clone())).collect();
    (running, cores)
}

impl Running {
    fn ask_group(&self, group: &str, request: Request) -> impl Future<Output = Answer> + use<> {
        self.broker.groups.ask(&self.broker.topics.load(), group, request)
    }

    /// Asks until the group is loaded; says whether it was not at first.
    async fn ask_loaded(&self, group: &str, request: Request) -> (Answer, bool) {
        let mut waited = false;
        loop {
            match self.ask_group(group, request.clone()).await {
                Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS) => waited = true,
                answer => return (answer, waited),
            }
            self.cores[0].env.sleep(Duration::from_millis(50)).await;
        }
    }

    async fn commit_to(&self, group: &str, identity: Identity, topic: &str, offset: i64) -> Answer {
        let topic_id: Uuid = self.id(topic).map_or([0; 16], |id| id.0);
        let offsets =
            vec![CommitOffset { topic: topic.into(), topic_id, partition: 0, offset, leader_epoch: 0, metadata: "".into() }];
        self.ask_group(group, Request::Commit(Commit { identity, knows_epochs: true, retention_ms: None, offsets })).await
    }

    async fn committed(&self, group: &str) -> Vec<(String, i64)> {
        let (answer, _) = self.ask_loaded(group, Request::Fetch(None)).await;
        let Ok(Reply::Fetched(fetched)) = answer else { panic!("fetched: {answer:?}") };
        fetched.into_iter().map(|(topic, offsets)| (topic.to_string(), offsets[0].offset)).collect()
    }

    /// The one member of a stable group.
    async fn stable(&self, group: &str) -> Joined {
        let join = Join {
            client_id: "client".into(),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(10),
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::new())],
            ..Join::default()
        };
        let (answer, _) = self.ask_loaded(group, Request::Join(Box::new(join))).await;
        let Ok(Reply::Joined(joined)) = answer else { panic!("joined: {answer:?}") };
        let assignments = vec![(joined.member.clone(), Bytes::from_static(b"all"))];
        let request = Request::Sync(Sync { identity: identity(&joined), assignments, ..Sync::default() });
        self.ask_group(group, request).await.unwrap();
        *joined
    }
}

fn identity(joined: &Joined) -> Identity {
    Identity { member: joined.member.clone(), instance: None, generation: joined.generation }
}

fn nobody() -> Identity {
    Identity { generation: -1, ..Identity::default() }
}

/// Groups in different partitions, so on both cores.
const GROUPS: [&str; 4] = ["a", "b", "c", "d"];

#[test]
fn members_and_their_commits_survive_a_loss_of_power() {
    let machine = Machine::new(40);
    let (running, cores) = serve(&machine);
    assert_eq!(
        machine.run(running.ask_group("a", Request::Describe)),
        Err(ErrorCode::NOT_COORDINATOR),
        "nobody asked for it yet"
    );
    let members = machine.run(async {
        running.create(&["t"], 1).await;
        running.broker.controller.offsets_topic().await.unwrap();
        let mut members = Vec::new();
        for (offset, group) in (0..).zip(GROUPS) {
            let member = running.stable(group).await;
            running.commit_to(group, identity(&member), "t", offset).await.unwrap();
            members.push(member);
        }
        members
    });
    drop(cores);
    machine.crash(running, CrashOutcome::LoseUnsynced);
    let (running, _cores) = serve(&machine);
    machine.run(async {
        let mut has_waited = false;
        for (offset, (group, member)) in (0..).zip(GROUPS.iter().zip(&members)) {
            let (alive, waited) = running.ask_loaded(group, Request::Heartbeat(identity(member))).await;
            has_waited |= waited;
            assert_eq!(alive, Ok(Reply::Alive));
            assert_eq!(running.committed(group).await, [("t".to_owned(), offset)]);
        }
        assert!(has_waited, "who asks before all is loaded is told so");
        assert_eq!(running.broker.groups.list().await.unwrap().len(), GROUPS.len());
    });
}

#[test]
fn what_cannot_be_written_did_not_happen() {
    let machine = Machine::new(41);
    let (running, _cores) = serve(&machine);
    machine.run(async {
        running.create(&["t"], 1).await;
        running.broker.controller.offsets_topic().await.unwrap();
        let member = running.stable("a").await;
        running.commit_to("a", identity(&member), "t", 7).await.unwrap();
        machine.disk.inject(Injection::next(Operation::Write, ".journal"));
        // Whoever asks behind the commit hears nothing that may not last.
        let fetched = running.ask_group("a", Request::Fetch(None));
        let (failed, _, fetched_behind) = tokio::join!(running.commit_to("a", identity(&member), "t", 8), fetched, async {
            running.ask_group("a", Request::Fetch(None)).await
        });
        assert_eq!(failed, Err(ErrorCode::COORDINATOR_NOT_AVAILABLE));
        assert!(fetched_behind.is_err(), "{fetched_behind:?}");
        assert_eq!(running.committed("a").await, [("t".to_owned(), 7)]);
        assert_eq!(running.ask_group("a", Request::Heartbeat(identity(&member))).await, Ok(Reply::Alive));
        running.commit_to("a", identity(&member), "t", 9).await.unwrap();
        assert_eq!(running.committed("a").await, [("t".to_owned(), 9)]);
    });
}

#[test]
fn what_takes_more_than_a_segment_is_refused_and_the_rest_is_written_in_parts() {
    let machine = Machine::new(45);
    let (running, cores) = serve(&machine);
    machine.run(async {
        running.create(&["t"], 1).await;
        running.broker.controller.offsets_topic().await.unwrap();
        assert_eq!(running.set_config(CONSUMER_OFFSETS, "segment.bytes", "1048576").await, ErrorCode::NONE);
        // Groups of the same partition.
        assert_eq!(partition_of("story", 50), partition_of("a", 50));
        running.commit_to("story", nobody(), "t", 5).await.unwrap();
        let join = Join {
            client_id: "client".into(),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(10),
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::new())],
            ..Join::default()
        };
        let Ok(Reply::Joined(joined)) = running.ask_group("a", Request::Join(Box::new(join))).await else { panic!("joined") };
        let assignments = vec![(joined.member.clone(), Bytes::from(vec![7; 2 << 20]))];
        let sync = Request::Sync(Sync { identity: identity(&joined), assignments, ..Sync::default() });
        assert_eq!(running.ask_group("a", sync).await, Err(ErrorCode::UNKNOWN_SERVER_ERROR));
        let beat = ConsumerHeartbeat {
            topics: Some((0..20_000).map(|at| format!("{at:060}").into()).collect()),
            owned: Some(Partitions::new()),
            rebalance_timeout_ms: 1000,
            member: "m".into(),
            ..ConsumerHeartbeat::default()
        };
        let third = (0..).map(|at| format!("g{at}")).find(|group| partition_of(group, 50) == partition_of("a", 50)).unwrap();
        let answer = running.ask_group(&third, Request::ConsumerHeartbeat(Box::new(beat))).await;
        assert!(matches!(&answer, Ok(Reply::Refused(refusal)) if refusal.code == ErrorCode::INVALID_REQUEST), "{answer:?}");
        let fetched = running.ask_group("story", Request::Fetch(None)).await;
        assert!(fetched.is_ok(), "its partition was not loaded again: {fetched:?}");

        // More than a segment takes, in one request.
        let offset = |partition| CommitOffset {
            topic: "t".into(),
            topic_id: running.id("t").unwrap().0,
            partition,
            offset: 1,
            leader_epoch: 0,
            metadata: "x".repeat(4000).into(),
        };
        let offsets = (0..400).map(offset).collect();
        let commit = Commit { identity: nobody(), knows_epochs: true, retention_ms: None, offsets };
        let answer = running.ask_group("story", Request::Commit(commit)).await;
        assert_eq!(answer, Ok(Reply::Committed(vec![ErrorCode::NONE; 400])));
    });
    drop(cores);
    machine.crash(running, CrashOutcome::LoseUnsynced);
    let (running, _cores) = serve(&machine);
    let (answer, _) = machine.run(running.ask_loaded("story", Request::Fetch(None)));
    let Ok(Reply::Fetched(fetched)) = answer else { panic!("fetched: {answer:?}") };
    assert_eq!(fetched[0].1.len(), 400);
}

#[test]
fn what_one_request_writes_in_parts_is_not_written_behind_a_part_that_failed() {
    let mut kept = Vec::new();
    // A journal grows beside the parts, so it is not known which write is one of theirs.
    for writes_before in 1..16 {
        let machine = Machine::new(46);
        let (running, _cores) = serve(&machine);
        machine.run(async {
            running.create(&["t"], 1).await;
            running.broker.controller.offsets_topic().await.unwrap();
            let topic_id = running.id("t").unwrap().0;
            let offset = |partition| CommitOffset {
                topic: "t".into(),
                topic_id,
                partition,
                offset: 9,
                leader_epoch: 0,
                metadata: "x".repeat(4000).into(),
            };
            let offsets = (0..400).map(offset).collect();
            machine.disk.inject(Injection { after: writes_before, ..Injection::next(Operation::Write, ".journal") });
            let commit = Commit { identity: nobody(), knows_epochs: true, retention_ms: None, offsets };
            if running.ask_group("a", Request::Commit(commit)).await.is_ok() {
                return;
            }
            let (answer, _) = running.ask_loaded("a", Request::Fetch(None)).await;
            let Ok(Reply::Fetched(fetched)) = answer else { panic!("fetched: {answer:?}") };
            let found: Vec<_> = fetched.iter().flat_map(|(_, found)| found).map(|found| found.partition).collect();
            assert_eq!(
                found,
                (0..).take(found.len()).collect::<Vec<_>>(),
                "what came before the part that failed, and nothing else"
            );
            kept.push(found.len());
        });
    }
    assert!(kept.iter().any(|kept| (100..400).contains(kept)), "parts of half a megabyte: {kept:?}");
}

#[test]
fn while_nothing_can_be_written_groups_are_loaded_again_less_and_less_often() {
    let machine = Machine::new(47);
    let (running, _cores) = serve(&machine);
    machine.run(async {
        running.create(&["t"], 1).await;
        running.broker.controller.offsets_topic().await.unwrap();
        running.commit_to("a", nobody(), "t", 1).await.unwrap();
        let pause = || running.cores[0].env.sleep(Duration::from_millis(100));
        let mut failed = 0;
        for _ in 0..1200 {
            // One at a time: a new journal can be made.
            machine.disk.clear_injections();
            machine.disk.inject(Injection::next(Operation::Write, ".journal"));
            match running.commit_to("a", nobody(), "t", 2).await {
                Err(ErrorCode::COORDINATOR_NOT_AVAILABLE) => failed += 1,
                answer => assert_eq!(answer, Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)),
            }
            pause().await;
        }
        assert!((3..15).contains(&failed), "{failed} times in two minutes");
        machine.disk.clear_injections();
        let mut waited = 0;
        while running.commit_to("a", nobody(), "t", 3).await.is_err() {
            waited += 1;
            assert!(waited < 350, "half a minute, at most");
            pause().await;
        }
        assert_eq!(running.committed("a").await, [("t".to_owned(), 3)]);
    });
}

#[test]
fn offsets_go_with_their_topic_whether_or_not_somebody_is_there_to_see_it() {
    let machine = Machine::new(42);
    let (running, cores) = serve(&machine);
    let settle = |running: &Running| running.cores[0].env.sleep(Duration::from_secs(1));
    machine.run(async {
        running.create(&["t", "u"], 1).await;
        running.broker.controller.offsets_topic().await.unwrap();
        running.commit_to("a", nobody(), "t", 1).await.unwrap();
        running.commit_to("a", nobody(), "u", 2).await.unwrap();
        running.delete("t").await;
        settle(&running).await;
        assert_eq!(running.committed("a").await, [("u".to_owned(), 2)]);
        // Another topic of that name has nothing of it.
        running.create(&["t"], 1).await;
        assert_eq!(running.committed("a").await, [("u".to_owned(), 2)]);
    });
    drop(cores);
    machine.crash(running, CrashOutcome::LoseUnsynced);
    // Nobody serves groups while the topic goes.
    let running = machine.start();
    machine.run(async {
        assert_eq!(running.delete("u").await, ErrorCode::NONE);
        running.create(&["u"], 1).await;
    });
    machine.crash(running, CrashOutcome::LoseUnsynced);
    let (running, _cores) = serve(&machine);
    assert_eq!(machine.run(running.committed("a")), []);
}

#[test]
fn a_stop_answers_those_who_wait() {
    let machine = Machine::new(43);
    let (running, _cores) = serve(&machine);
    machine.run(async {
        running.broker.controller.offsets_topic().await.unwrap();
        let join = Join {
            session_timeout: Duration::from_secs(10),
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::new())],
            ..Join::default()
        };
        let waiting = running.ask_group("a", Request::Join(Box::new(join)));
        running.create(&["t"], 1).await;
        let commit = running.commit_to("a", nobody(), "t", 1);
        let other = running.commit_to("b", nobody(), "t", 1);
        let stop = async {
            for core in 0..2 {
                running.broker.groups.stop(core);
            }
        };
        let (waiting, _, other, ()) = tokio::join!(waiting, commit, other, stop);
        assert_eq!(waiting, Err(ErrorCode::NOT_COORDINATOR));
        assert_eq!(other, Ok(Reply::Committed(vec![ErrorCode::NONE])), "what was asked before the stop is finished");
        assert_eq!(running.ask_group("a", Request::Describe).await, Err(ErrorCode::NOT_COORDINATOR));
    });
}

#[test]
fn without_their_topic_there_are_no_groups() {
    let machine = Machine::new(44);
    let (running, _cores) = serve(&machine);
    machine.run(async {
        running.create(&["t"], 1).await;
        running.broker.controller.offsets_topic().await.unwrap();
        running.commit_to("a", nobody(), "t", 1).await.unwrap();
        assert_eq!(running.delete(CONSUMER_OFFSETS).await, ErrorCode::NONE);
        assert_eq!(running.ask_group("a", Request::Describe).await, Err(ErrorCode::NOT_COORDINATOR));
        running.broker.controller.offsets_topic().await.unwrap();
        assert_eq!(running.committed("a").await, []);
        running.commit_to("a", nobody(), "t", 2).await.unwrap();
        assert_eq!(running.committed("a").await, [("t".to_owned(), 2)]);
    });
}

impl Running {
    async fn set_group_config(&self, group: &str, name: &str, value: Option<&str>) -> ErrorCode {
        let config_operation = i8::from(value.is_none());
        let config = incremental::AlterableConfig { name: name.into(), config_operation, value: value.map(Into::into) };
        let resource = incremental::AlterConfigsResource {
            resource_type: RESOURCE_GROUP,
            resource_name: group.into(),
            configs: vec![config],
        };
        let request = incremental::IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        self.broker.controller.incremental_alter_configs(&request).await[0].error_code
    }

    /// The interval that a member of a group of the new protocol is told.
    async fn interval(&self, group: &str, epoch: i32) -> Duration {
        let beat = ConsumerHeartbeat {
            member: "m".into(),
            epoch,
            rebalance_timeout_ms: if epoch == 0 { 60_000 } else { -1 },
            topics: (epoch == 0).then(|| BTreeSet::from(["t".into()])),
            owned: (epoch == 0).then(Partitions::new),
            requires_member_id: true,
            ..ConsumerHeartbeat::default()
        };
        let (answer, _) = self.ask_loaded(group, Request::ConsumerHeartbeat(Box::new(beat))).await;
        let Ok(Reply::Beat(beat)) = answer else { panic!("taken: {answer:?}") };
        beat.interval
    }
}

#[test]
fn what_groups_have_set_holds_for_those_who_are_in_and_after_a_loss_of_power() {
    const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";
    let machine = Machine::new(49);
    let (running, cores) = serve(&machine);
    machine.run(async {
        running.create(&["t"], 1).await;
        running.broker.controller.offsets_topic().await.unwrap();
        for group in GROUPS {
            assert_eq!(running.interval(group, 0).await, Duration::from_secs(5));
            assert_eq!(running.set_group_config(group, HEARTBEAT, Some("7000")).await, ErrorCode::NONE);
            assert_eq!(running.interval(group, 1).await, Duration::from_secs(7));
        }
        assert_eq!(running.set_group_config("a", HEARTBEAT, Some("1")).await, ErrorCode::INVALID_CONFIG);
        assert_eq!(running.set_group_config("d", HEARTBEAT, None).await, ErrorCode::NONE);
    });
    drop(cores);
    machine.crash(running, CrashOutcome::LoseUnsynced);
    let (running, _cores) = serve(&machine);
    machine.run(async {
        for (group, seconds) in GROUPS.into_iter().zip([7, 7, 7, 5]) {
            assert_eq!(running.interval(group, 1).await, Duration::from_secs(seconds));
        }
        let configs = running.broker.group_configs.load();
        assert_eq!(configs.overrides().keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "b", "c"]);
    });
}

#[test]
fn who_waits_for_a_slow_disk_is_told_to_ask_again() {
    let machine = Machine::new(50);
    let (running, _cores) = serve(&machine);
    machine.run(async {
        running.create(&["t"], 1).await;
        running.broker.controller.offsets_topic().await.unwrap();
        running.commit_to("a", nobody(), "t", 7).await.unwrap();
        machine.disk.set_faults(Faults { slow: 1.0, slow_delay: Duration::from_secs(12), ..Faults::default() });
        let env = &running.cores[0].env;
        let begun = env.monotonic();
        let late = async { (running.commit_to("a", nobody(), "t", 8).await, (env.monotonic() - begun).as_secs()) };
        // Whoever comes later may wait as long.
        let (running, env) = (&running, env);
        let behind = |seconds| async move {
            env.sleep(Duration::from_secs(seconds)).await;
            (running.ask_group("a", Request::Fetch(None)).await, (env.monotonic() - begun).as_secs())
        };
        let (late, behind, behind_refused) = tokio::join!(late, behind(4), behind(6));
        assert_eq!(late, (Err(ErrorCode::COORDINATOR_NOT_AVAILABLE), 5));
        for (behind, seconds) in [(behind, 9), (behind_refused, 11)] {
            assert_eq!(behind, (Err(ErrorCode::COORDINATOR_NOT_AVAILABLE), seconds), "nobody hears of what may not last");
        }
        machine.disk.set_faults(Faults::default());
        env.sleep(Duration::from_secs(60)).await;
        let (fetched, has_waited) = running.ask_loaded("a", Request::Fetch(None)).await;
        let Ok(Reply::Fetched(fetched)) = fetched else { panic!("fetched: {fetched:?}") };
        assert_eq!((fetched[0].1[0].offset, has_waited), (8, false), "it was written after all");
    });
}

#[test]
fn what_a_core_answers_on_the_spot_comes_after_all_that_was_asked_before_and_lasts() {
    let machine = Machine::new(51);
    let (running, cores) = serve(&machine);
    machine.run(async {
        running.create(&["t"], 1).await;
        running.broker.controller.offsets_topic().await.unwrap();
        let member = running.stable("a").await;
        let topics = running.broker.topics.load_full();
        let core = Groups::place_of(&topics, "a").unwrap().core;
        let ask = |request| cores[core].groups.ask(&topics, "a", request);
        let alive = || Request::Heartbeat(identity(&member));
        assert_eq!(ask(alive()).now_or_never(), Some(Ok(Reply::Alive)));
        let stranger = Identity { generation: member.generation + 1, ..identity(&member) };
        assert_eq!(ask(Request::Heartbeat(stranger)).now_or_never(), Some(Err(ErrorCode::ILLEGAL_GENERATION)));
        assert_eq!(cores[1 - core].groups.ask(&topics, "a", alive()).now_or_never(), None, "it lives on the other core");
        // What was handed over on the other core is before this, and is not looked at yet.
        let mut behind = pin!(ask(alive()));
        assert_eq!(behind.as_mut().now_or_never(), None);
        assert_eq!(behind.await, Ok(Reply::Alive));

        machine.disk.set_faults(Faults { slow: 1.0, slow_delay: Duration::from_millis(500), ..Faults::default() });
        let env = &running.cores[0].env;
        let committed = async { (running.commit_to("a", identity(&member), "t", 8).await, env.monotonic()) };
        let meanwhile = async {
            env.sleep(Duration::from_millis(100)).await;
            let mut fetched = pin!(ask(Request::Fetch(None)));
            assert_eq!(fetched.as_mut().now_or_never(), None, "the commit is on its way to the disk");
            (fetched.await, env.monotonic())
        };
        let ((committed, at), (fetched, fetched_at)) = tokio::join!(committed, meanwhile);
        assert_eq!(committed, Ok(Reply::Committed(vec![ErrorCode::NONE])));
        let Ok(Reply::Fetched(fetched)) = fetched else { panic!("fetched: {fetched:?}") };
        assert_eq!(fetched[0].1[0].offset, 8);
        assert!(fetched_at >= at, "{fetched_at:?} {at:?}");
        machine.disk.set_faults(Faults::default());

        // A member that says nothing more goes, whoever else is answered meanwhile: its time comes without a message.
        for _ in 0..12 {
            env.sleep(Duration::from_secs(1)).await;
            assert!(ask(Request::Describe).await.is_ok());
        }
        assert_eq!(ask(alive()).now_or_never(), Some(Err(ErrorCode::UNKNOWN_MEMBER_ID)));
        running.broker.groups.stop(core);
        assert_eq!(ask(alive()).await, Err(ErrorCode::NOT_COORDINATOR));
    });
}

#[test]
fn groups_are_loaded_while_a_command_is_at_work() {
    let machine = Machine::new(51);
    let (running, cores) = serve(&machine);
    machine.run(async {
        running.create(&["t"], 1).await;
        running.broker.controller.offsets_topic().await.unwrap();
        for group in GROUPS {
            running.commit_to(group, nobody(), "t", 7).await.unwrap();
        }
    });
    drop(cores);
    machine.crash(running, CrashOutcome::LoseUnsynced);
    let running = machine.start();
    machine.run(async {
        let _at_work = running.broker.controller.lock().await;
        let _cores: Vec<_> = running.cores.iter().map(|core| BrokerCore::new(running.broker.clone(), core.clone())).collect();
        for group in GROUPS {
            let mut tries = 0;
            while running.ask_group(group, Request::Fetch(None)).await.is_err() {
                tries += 1;
                assert!(tries < 100, "five seconds");
                running.cores[0].env.sleep(Duration::from_millis(50)).await;
            }
        }
    });
}
