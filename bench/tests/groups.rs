//! `ringlog-bench groups` as a user runs it: the binary against a fake broker that fails in every way, against the real one, and
//! against any that runs already. No time decides.
#![allow(clippy::unwrap_used, reason = "tests")]

mod fake;
mod ran;
mod real_broker;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use fake::{Broker, Fault};
use ran::Ran;
use real_broker::{Real, free_port, ringlog, skipped};
use ringlog_bench::results::{Cause, GroupProtocol, Groups, OffsetCall, Outcome};
use ringlog_protocol::{ApiKey, ErrorCode};
use rustix::process::{Pid, Signal, kill_process};

fn command(address: impl ToString, line: &str, out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog-bench"));
    command.args(["groups", "--bootstrap", &address.to_string()]).args(line.split_whitespace());
    command.args(["--json", "--quiet", "--out"]).arg(out);
    command
}

fn run(address: impl ToString, line: &str) -> Ran<Groups> {
    let out = tempfile::tempdir().unwrap();
    let ran = ran(command(address, line, out.path()).output().unwrap());
    let stored = std::fs::read_dir(out.path()).unwrap().count();
    assert_eq!(stored, usize::from(ran.measured.is_some()), "what is printed is stored, and nothing else");
    ran
}

fn ran(output: Output) -> Ran<Groups> {
    Ran::new(output, |outcome| match outcome {
        Outcome::Groups(groups) => *groups,
        other => panic!("{other:?}"),
    })
}

const SHORT: &str = "--partitions 4 --members 2 --duration 100ms --warm-up 10ms";

#[test]
fn commits_are_counted_and_everything_is_removed() {
    let measured = |duration: &str| {
        let broker = Broker::start(&[]);
        let line = format!("--only commits {SHORT} --threads 2").replace("100ms", duration);
        let groups = run(broker.address, &line).ok();
        (broker, groups)
    };
    let is_counted = |groups: &Groups| groups.rates.iter().all(|rate| rate.count > 0);
    // Nothing is answered in the time that is watched where the one or the other stands still: then there is more of it.
    let (mut broker, mut groups) = measured("100ms");
    for duration in ["2s", "20s"] {
        if !is_counted(&groups) {
            (broker, groups) = measured(duration);
        }
    }
    let shapes: Vec<_> = groups.rates.iter().map(|rate| (rate.call, rate.connections, rate.in_flight)).collect();
    assert_eq!(shapes, [(OffsetCall::Commit, 16, 1), (OffsetCall::Commit, 32, 16)]);
    for rate in &groups.rates {
        assert!(rate.count > 0 && rate.latency.as_ref().is_some_and(|latency| latency.count == rate.count), "{rate:?}");
        assert!(rate.broker_cpu_us.is_none(), "no pid was given");
    }
    assert!(broker.topics().is_empty());
    let deleted = broker.deleted_groups();
    assert_eq!((broker.deleted(), deleted.len()), (vec!["ringlog-bench-groups".to_owned()], 48));
    assert!(deleted.iter().all(|group| group.starts_with("ringlog-bench-")), "{deleted:?}");
}

#[test]
fn a_broker_that_fails_ends_it_in_one_line_and_its_topic_is_removed() {
    use ApiKey::{FindCoordinator, JoinGroup, OffsetCommit, OffsetFetch};
    for (part, fault, words) in [
        ("commits", Fault::GroupClose(OffsetCommit), "closes the connection"),
        ("commits", Fault::GroupSilent(OffsetCommit), "has not answered OffsetCommit"),
        ("commits", Fault::GroupError(OffsetCommit, ErrorCode::GROUP_AUTHORIZATION_FAILED), "GROUP_AUTHORIZATION_FAILED"),
        ("store", Fault::GroupError(OffsetCommit, ErrorCode::INVALID_COMMIT_OFFSET_SIZE), "INVALID_COMMIT_OFFSET_SIZE"),
        ("fetches", Fault::GroupError(OffsetFetch, ErrorCode::GROUP_AUTHORIZATION_FAILED), "OffsetFetch of group ringlog-bench-"),
        ("rebalance", Fault::GroupError(JoinGroup, ErrorCode::INVALID_SESSION_TIMEOUT), "INVALID_SESSION_TIMEOUT"),
        ("leave", Fault::GroupClose(JoinGroup), "closes the connection"),
        ("heartbeats", Fault::GroupClose(JoinGroup), "closes the connection"),
        ("commits", Fault::GroupClose(FindCoordinator), "closes the connection"),
        ("fetches", Fault::Duplicate(0), "has offsets of 0 partitions"),
        ("commits", Fault::Lacks(OffsetCommit), "the broker has no OffsetCommit"),
        ("commits", Fault::NoCreation(ErrorCode::POLICY_VIOLATION), "POLICY_VIOLATION"),
        ("commits", Fault::LeaderAt("192.0.2.7"), "--allow-remote"),
        ("load", Fault::Duplicate(0), "what was stored is not all there"),
    ] {
        let broker = Broker::start(&[fault]);
        let timeout = if matches!(fault, Fault::GroupSilent(_)) { "--timeout 10s" } else { "" };
        let line = format!("--protocol classic --heartbeat-members 2 --only {part} {SHORT} {timeout}");
        run(broker.address, &line).failed(1, words);
        assert!(broker.topics().is_empty(), "{fault:?}");
    }
    let broker = Broker::start(&[Fault::GroupError(FindCoordinator, ErrorCode::GROUP_AUTHORIZATION_FAILED)]);
    let ran = run(broker.address, &format!("--only commits {SHORT}"));
    assert!(ran.status == 1 && ran.stderr.contains("FindCoordinator"), "{}", ran.stderr);
}

#[test]
fn cleaning_up_goes_on_after_what_fails_and_takes_nothing_of_others() {
    use ApiKey::{DeleteGroups, LeaveGroup};
    let line = format!("--only commits {SHORT}");
    for (fault, told) in [
        // It has gone by itself.
        (Fault::GroupError(LeaveGroup, ErrorCode::UNKNOWN_MEMBER_ID), ""),
        (Fault::GroupError(LeaveGroup, ErrorCode::GROUP_AUTHORIZATION_FAILED), "LeaveGroup of group ringlog-bench-"),
        (Fault::GroupError(DeleteGroups, ErrorCode::GROUP_AUTHORIZATION_FAILED), "DeleteGroups of group ringlog-bench-"),
        (Fault::GroupClose(LeaveGroup), "closes the connection"),
    ] {
        let broker = Broker::start(&[Fault::GroupMember, fault]);
        let ran = run(broker.address, &line);
        let lines = 1 + usize::from(!told.is_empty());
        assert_eq!((ran.status, ran.stderr.lines().count()), (0, lines), "{fault:?} {}", ran.stderr);
        assert!(ran.stderr.contains(told), "{fault:?} {}", ran.stderr);
        assert!(broker.topics().is_empty(), "{fault:?}");
        if fault != Fault::GroupClose(LeaveGroup) {
            assert_eq!(broker.deleted_groups().len(), 48, "{fault:?}");
        }
    }
    // Another run has made the topic since we looked.
    let broker = Broker::start(&[Fault::NoCreation(ErrorCode::TOPIC_ALREADY_EXISTS)]);
    run(broker.address, &line).failed(1, "TOPIC_ALREADY_EXISTS");
    assert!(broker.deleted().is_empty(), "{:?}", broker.deleted());
}

#[test]
fn a_broker_without_the_new_protocol_is_measured_without_it() {
    let heartbeat = ApiKey::ConsumerGroupHeartbeat;
    for fault in [Fault::Lacks(heartbeat), Fault::GroupError(heartbeat, ErrorCode::UNSUPPORTED_VERSION)] {
        let broker = Broker::start(&[fault]);
        run(broker.address, &format!("--protocol consumer --only leave {SHORT}")).failed(2, "KIP-848");
        assert!(broker.topics().is_empty());
    }
    // One that has it and refuses is not without it.
    let broker = Broker::start(&[Fault::GroupError(heartbeat, ErrorCode::GROUP_AUTHORIZATION_FAILED)]);
    run(broker.address, &format!("--protocol consumer --only leave {SHORT}")).failed(1, "GROUP_AUTHORIZATION_FAILED");
}

#[test]
fn nonsense_and_nobody_are_told() {
    run("192.0.2.1:9092", "").failed(2, "--allow-remote");
    let nobody = format!("127.0.0.1:{}", free_port());
    run(&nobody, "--only leave").failed(1, "no broker at");
    run(&nobody, "--pid 4294967295").failed(2, "--pid");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    run(listener.local_addr().unwrap(), "--only commits --timeout 300ms").failed(1, "says nothing");
}

/// The real broker, with sessions short enough for a test, and longer than one of the two stands still.
fn start(binary: &Path, data: &Path) -> Real {
    start_with(binary, data, "group.consumer.session.timeout.ms=10000")
}

fn start_with(binary: &Path, data: &Path, session: &str) -> Real {
    let settings = [
        "group.initial.rebalance.delay.ms=0",
        "group.min.session.timeout.ms=100",
        "group.consumer.min.heartbeat.interval.ms=200",
        "group.consumer.min.session.timeout.ms=2000",
        "group.consumer.heartbeat.interval.ms=200",
        session,
    ];
    Real::start(binary, data, None, &settings)
}

const SMALL: &str =
    "--partitions 40 --members 7 --rounds 2 --heartbeat-members 30 --duration 1s --warm-up 200ms --session 10s --offsets 50";

/// Whether `ringlog group list` and `ringlog topic list` name nothing of ours.
fn assert_nothing_is_left(binary: &Path, address: &str) {
    for what in ["group", "topic"] {
        let listed = Command::new(binary).args([what, "list", "--json", "--bootstrap-server", address]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(!listed.contains("ringlog-bench"), "{listed}");
    }
}

#[test]
fn the_real_broker_is_measured_in_every_way() {
    let Some(binary) = ringlog() else { return };
    let data = tempfile::tempdir().unwrap();
    let broker = start(&binary, data.path());
    let mut groups = run(&broker.address, &format!("{SMALL} --pid {}", broker.child.id())).ok();
    // Nothing is answered in the second that is watched where the one or the other stands still: then there are more.
    for seconds in [5, 25] {
        if groups.rates.iter().any(|rate| rate.count == 0) {
            let line = SMALL.replace("--duration 1s", &format!("--duration {seconds}s --only commits,fetches"));
            groups.rates = run(&broker.address, &format!("{line} --pid {}", broker.child.id())).ok().rates;
        }
    }
    let both = [GroupProtocol::Classic, GroupProtocol::Consumer];
    assert_eq!(groups.rebalances.iter().map(|own| own.protocol).collect::<Vec<_>>(), both);
    for rebalance in &groups.rebalances {
        assert!(rebalance.times_ms.len() == 2 && rebalance.median_ms > 0.0 && rebalance.first_ms > 0.0, "{rebalance:?}");
    }
    let takeovers: Vec<_> = groups.takeovers.iter().map(|own| (own.cause, own.session_ms, own.times_ms.len())).collect();
    let expected = [(Cause::Leave, 0, 2), (Cause::Leave, 0, 2), (Cause::Vanish, 10_000, 2), (Cause::Vanish, 10_000, 2)];
    assert_eq!(takeovers, expected, "the new protocol's session timeout is the broker's");
    // A session that ran out early is a broker's fault. Its clock and ours begin with the same heartbeat, at different ends.
    assert!(groups.takeovers.iter().all(|own| own.times_ms.iter().all(|ms| *ms > -1.0)), "{:?}", groups.takeovers);
    for heartbeats in &groups.heartbeats {
        assert!(heartbeats.members == 30 && heartbeats.count > 0 && heartbeats.broker_cpu_percent.is_some(), "{heartbeats:?}");
    }
    assert_eq!(groups.heartbeats.iter().map(|own| own.interval_ms).collect::<Vec<_>>(), [3000, 200]);
    assert!(groups.rates.len() == 4 && groups.rates.iter().all(|rate| rate.count > 0 && rate.broker_cpu_us.is_some()));
    assert!(groups.broker.is_some() && groups.notes.is_empty() && groups.stored.is_none() && groups.loaded.is_none());
    assert_nothing_is_left(&binary, &broker.address);
    // What is stored is there after a restart, and goes once it was loaded.
    let stored = run(&broker.address, &format!("{SMALL} --only store")).ok().stored.unwrap();
    assert_eq!((stored.offsets, stored.groups), (50, 2));
    drop(broker);
    let broker = start(&binary, data.path());
    assert_eq!(run(&broker.address, &format!("{SMALL} --only load")).ok().loaded.unwrap().offsets, 50);
    assert_nothing_is_left(&binary, &broker.address);
    run(&broker.address, &format!("{SMALL} --only load")).failed(1, "--only store commits it");
}

/// How few groups make a figure of memory that is no accident is not asked here.
const FEW: &str = "--only memory --idle-groups 300 --rest 1s";

#[test]
fn the_memory_of_idle_groups_is_read_and_they_go() {
    let Some(binary) = ringlog() else { return };
    let data = tempfile::tempdir().unwrap();
    // Members are silent while all groups of a kind are made.
    let broker = start_with(&binary, data.path(), "group.consumer.session.timeout.ms=60000");
    let groups = run(&broker.address, &format!("{FEW} --pid {}", broker.child.id())).ok();
    let kinds: Vec<_> = groups.memory.iter().map(|memory| (memory.member, memory.groups)).collect();
    assert_eq!(kinds, [(None, 300), (Some(GroupProtocol::Classic), 300), (Some(GroupProtocol::Consumer), 300)]);
    for memory in &groups.memory {
        assert!(memory.before_bytes > 0 && memory.after_bytes > 0 && memory.each_bytes >= 0.0, "{memory:?}");
    }
    assert!(groups.notes.len() == 1 && groups.notes[0].contains("RssAnon"), "{:?}", groups.notes);
    assert_nothing_is_left(&binary, &broker.address);
    // Another process's memory is not what is asked about, and one that is not there has none.
    run(&broker.address, FEW).failed(2, "--pid");
}

#[test]
fn a_broker_without_memory_for_so_many_groups_is_told_of_and_cleaned() {
    let Some(binary) = ringlog() else { return };
    let data = tempfile::tempdir().unwrap();
    let broker =
        Real::start(&binary, data.path(), None, &["group.initial.rebalance.delay.ms=0", "ringlog.group.memory.bytes=1048576"]);
    let line = FEW.replace("300", "2k");
    let ran = run(&broker.address, &format!("{line} --protocol classic --pid {}", broker.child.id()));
    assert_eq!(ran.status, 1, "the broker has no memory for so many: {}", ran.stderr);
    assert!(ran.stderr.contains("GROUP_MAX_SIZE_REACHED") || ran.stderr.contains("COORDINATOR_NOT_AVAILABLE"), "{}", ran.stderr);
    assert_nothing_is_left(&binary, &broker.address);
}

#[test]
fn ctrl_c_keeps_what_was_measured_and_removes_the_rest() {
    let Some(binary) = ringlog() else { return };
    let data = tempfile::tempdir().unwrap();
    let broker = start(&binary, data.path());
    let out = tempfile::tempdir().unwrap();
    let line = format!("{SMALL} --only rebalance,heartbeats --protocol classic --duration 10min");
    let line = line.replace("--duration 1s ", "");
    let mut command = command(&broker.address, &line, out.path());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let heartbeats = || {
        let listed = Command::new(&binary).args(["group", "list", "--bootstrap-server", &broker.address]).output().unwrap();
        String::from_utf8(listed.stdout).unwrap().contains("heartbeats")
    };
    while !heartbeats() {
        assert!(Instant::now() < until, "it never comes to heartbeats");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::INT).unwrap();
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!(ran.status, 130, "{}", ran.stderr);
    let groups = ran.measured.unwrap();
    assert!(groups.rebalances.len() == 1 && groups.heartbeats.is_empty());
    assert_nothing_is_left(&binary, &broker.address);
}

/// Any broker that runs already, of whatever make; `scripts/test load` starts a Kafka for it.
#[test]
fn the_running_broker_is_measured() {
    let Ok(address) = std::env::var("BOOTSTRAP") else {
        skipped("BOOTSTRAP names no running broker; `scripts/test load` starts a Kafka");
        return;
    };
    let groups = run(&address, &format!("{SMALL} --only rebalance,leave,heartbeats,commits,fetches")).ok();
    assert_eq!((groups.rebalances.len(), groups.takeovers.len(), groups.heartbeats.len(), groups.rates.len()), (2, 2, 2, 4));
    assert!(groups.notes.is_empty(), "{:?}", groups.notes);
    let vanished = run(&address, &format!("{SMALL} --only vanish --protocol classic")).ok();
    assert!(vanished.takeovers[0].session_ms == 10_000 && vanished.takeovers[0].times_ms.len() == 2);
    assert_eq!(run(&address, &format!("{SMALL} --only store,load")).ok().loaded.unwrap().offsets, 50);
    // Whose memory it is makes no difference to what is asked of the broker.
    assert_eq!(run(&address, &format!("{FEW} --pid {}", std::process::id())).ok().memory.len(), 3);
}
