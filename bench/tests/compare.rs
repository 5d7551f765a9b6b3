//! `compare` as its users run it, against brokers and a load generator that are fakes: this binary itself, started again with a
//! role in its environment. What is tested is order, cleaning up and what is stored; no time decides.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(clippy::zombie_processes, reason = "that nobody waits for it is what is tested")]

#[cfg(feature = "librdkafka")]
#[path = "real_broker/mod.rs"]
#[allow(dead_code, reason = "`compare` starts its brokers itself")]
mod real_broker;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ringlog_bench::results::{Compare, Groups, Latency, Load, Outcome, ProcessUse, Rebalance, Run, Side, StepOutcome, Verified};
use ringlog_bench::store;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Long enough for any machine; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(180);

/// A directory of results, with the files of a comparison of fakes beside it.
struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { directory: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// Describes a broker whose process behaves as `role` says.
    fn broker(&self, name: &str, role: &str, more: &str) -> PathBuf {
        let path = self.path(&format!("{name}.toml"));
        let binary = std::env::current_exe().unwrap();
        let text = format!(
            "name = '{name}'\nabout = 'a fake'\n\
             command = ['{}', 'fake_broker', '--exact', '--nocapture']\n\
             environment = {{ FAKE_ROLE = '{role}', FAKE_PORT = '{{port}}', FAKE_DATA = '{{data}}', FAKE_TRACE = '{}' }}\n\
             {more}\n[topic_configs.durable]\n'flush.messages' = '1'\n",
            binary.display(),
            self.path("trace").display(),
        );
        fs::write(&path, text).unwrap();
        path
    }

    fn spec(&self, text: &str) -> PathBuf {
        let path = self.path("spec.toml");
        fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, spec: &Path, brokers: &[PathBuf]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog-bench"));
        command.args([
            "compare",
            "--no-fill",
            "--quiet",
            "--generator",
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake-generator"),
        ]);
        command.arg(spec).arg("--out").arg(self.out());
        for broker in brokers {
            command.arg("--broker").arg(broker);
        }
        command.env("FAKE_BINARY", std::env::current_exe().unwrap()).env("FAKE_CALLS", self.path("calls"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, spec: &Path, brokers: &[PathBuf]) -> Output {
        self.command(spec, brokers).output().unwrap()
    }

    fn stored(&self) -> Option<(Run, Compare)> {
        let mut runs = store::load_all(&self.out()).unwrap_or_default();
        assert!(runs.len() <= 1);
        let (_, run) = runs.pop()?;
        match run.outcome.clone() {
            Outcome::Compare(compare) => Some((run, *compare)),
            other => panic!("{other:?}"),
        }
    }

    /// The processes that fake brokers wrote down, theirs and their children's.
    fn traced(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.path("trace")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    fn assert_nothing_is_left(&self) {
        let traced = self.traced();
        assert!(!traced.is_empty(), "no broker was ever started");
        wait_for("the brokers' processes end", || traced.iter().all(|pid| !is_alive(*pid)));
        let left = || -> Vec<_> {
            let entries = fs::read_dir(self.out()).into_iter().flatten().map(|entry| entry.unwrap().file_name());
            entries.filter(|name| name.to_string_lossy().contains("work")).collect()
        };
        wait_for("directories of work are removed", || left().is_empty());
    }

    /// Which brokers were called upon, in order: one line for each call of the generator.
    fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.path("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

fn is_alive(pid: i32) -> bool {
    // A zombie that nobody waits for is dead enough.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok() && !stat.contains(") Z ")
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const SPEC: &str = "name = 'fakes'\nrounds = 2\nbrokers = ['a', 'b']\n\
    [[workload]]\nname = 'w'\noptions = { bytes = '1MB', partitions = 2, acks = 'all' }\n\
    warm_up = [{ name = 'produce', load = 'produce', options = { bytes = '1kB' } }]\n\
    step = [{ name = 'produce', load = 'produce' }, { name = 'consume', load = 'consume', before = 'cold' }]\n\
    published = [{ step = 'produce', metric = 'produce_mb_per_s', value = 78.3, source = 'elsewhere' }]\n";

#[test]
fn brokers_take_turns_and_everything_is_stored() {
    let scene = Scene::new();
    let brokers = [scene.broker("a", "sound", ""), scene.broker("b", "sound", "")];
    let output = scene.run(&scene.spec(SPEC), &brokers);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (run, compare) = scene.stored().unwrap();
    assert!(!run.interrupted && compare.failed.is_none());
    let workload = &compare.workloads[0];
    let order: Vec<_> = workload.runs.iter().map(|run| (run.round, run.broker.as_str())).collect();
    assert_eq!(order, [(1, "a"), (1, "b"), (2, "b"), (2, "a")]);
    // The fake's figures are the numbers of its calls: four for each run, the warm-up first, what is verified last.
    let figure = workload.figures.iter().find(|figure| figure.metric == "produce_mb_per_s").unwrap();
    assert_eq!((figure.brokers[0].median, figure.brokers[0].min, figure.brokers[0].max), (8.0, 2.0, 14.0));
    assert_eq!((figure.brokers[1].median, figure.brokers[1].min, figure.brokers[1].max), (8.0, 6.0, 10.0));
    assert_eq!((figure.ratios[0].median, figure.ratios[0].min, figure.ratios[0].max), (1.0, 2.0 / 6.0, 14.0 / 10.0));
    assert_eq!(figure.published.as_ref().unwrap().value, 78.3);
    let printed = text(&output.stdout);
    assert!(printed.contains("8.00 (2.00–14.0)") && printed.contains("78.3") && printed.contains("a / b"), "{printed}");
    // Each run's calls go to one broker, whose process is named; the cold consumer meets another process.
    let calls = scene.calls();
    assert_eq!(calls.len(), 16);
    let argument = |call: usize, name: &str| {
        let found = calls[call].split(' ').find_map(|argument| argument.strip_prefix(name));
        found.unwrap_or_else(|| panic!("{name} is not in {}", calls[call])).to_owned()
    };
    assert_eq!(argument(0, "--topic="), "warm-up");
    assert_eq!((argument(0, "--bytes="), argument(1, "--bytes=")), ("1kB".into(), "1MB".into()));
    assert_eq!(argument(1, "--topic="), "measured");
    assert_eq!(argument(1, "--topic-config="), "flush.messages=1");
    assert_eq!(argument(1, "--partitions="), "2");
    assert!(!calls[2].contains("--topic-config") && !calls[2].contains("--partitions"), "the topic is there: {}", calls[2]);
    assert_eq!(argument(0, "--pid="), argument(1, "--pid="));
    assert_ne!(argument(1, "--pid="), argument(2, "--pid="));
    assert_eq!(argument(1, "--bootstrap="), argument(2, "--bootstrap="));
    assert!(
        calls[2].starts_with("load consume ") && !calls[2].contains("--bytes") && !calls[2].contains("--acks"),
        "{}",
        calls[2]
    );
    assert_eq!((argument(3, "--topic="), argument(3, "--pid=")), ("verified".into(), argument(2, "--pid=")));
    assert!(calls[3].starts_with("load produce ") && calls[3].contains(" --verify "), "{}", calls[3]);
    // What the generator stored is kept; what it stored while warming up is not.
    for step in workload.runs.iter().flat_map(|run| &run.steps) {
        assert!(scene.out().join(step.raw.as_ref().unwrap()).is_file());
        let StepOutcome::Load(load) = &step.outcome else { panic!("{step:?}") };
        let hlog = load.produce.as_ref().unwrap().latency.as_ref().unwrap().hlog.as_ref().unwrap();
        assert!(scene.out().join(hlog).is_file(), "{hlog}");
    }
    scene.assert_nothing_is_left();
}

#[test]
fn starts_and_stops_are_measured_without_a_generator() {
    let scene = Scene::new();
    let brokers = [scene.broker("a", "sound", "")];
    let spec = "name = 'x'\nrounds = 1\nbrokers = ['a']\n[[workload]]\nname = 'w'\n\
        step = [{ name = 's', start_stop = { settle = '10ms', idle = '20ms', load = { bytes = '1kB' } } }]\n";
    let output = scene.run(&scene.spec(spec), &brokers);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (_, compare) = scene.stored().unwrap();
    let StepOutcome::StartStop(measured) = &compare.workloads[0].runs[0].steps[0].outcome else { panic!("{compare:?}") };
    assert!(measured.ready_ms > 0.0 && measured.first_ack_ms >= measured.ready_ms, "{measured:?}");
    assert!(measured.restart_clean_ms > 0.0 && measured.restart_killed_ms > 0.0 && measured.idle_rss_bytes > 0, "{measured:?}");
    let topics: Vec<_> = scene.calls().iter().map(|call| call.contains("--topic=before-kill")).collect();
    assert_eq!(topics, [false, true]);
    scene.assert_nothing_is_left();
}

#[test]
fn groups_are_measured_by_the_generator_in_turns() {
    let scene = Scene::new();
    let brokers = [scene.broker("a", "sound", ""), scene.broker("b", "sound", "")];
    let spec = "name = 'x'\nrounds = 2\nbrokers = ['a', 'b']\n[[workload]]\nname = 'w'\n\
        step = [{ name = 's', groups = 'measure', options = { only = 'rebalance', members = 3 } }]\n";
    let output = scene.run(&scene.spec(spec), &brokers);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (_, compare) = scene.stored().unwrap();
    let figure = compare.workloads[0].figures.iter().find(|figure| figure.metric == "classic_rebalance_ms").unwrap();
    // The fake's figures are the numbers of its calls, A B B A.
    assert_eq!((figure.brokers[0].min, figure.brokers[0].max, figure.brokers[1].median), (1.0, 4.0, 2.5));
    let step = &compare.workloads[0].runs[0].steps[0];
    assert!(scene.out().join(step.raw.as_ref().unwrap()).is_file());
    let calls = scene.calls();
    assert_eq!(calls.len(), 4, "nothing is verified: {calls:?}");
    for call in calls {
        assert!(
            call.starts_with("groups --bootstrap=127.0.0.1:") && call.contains(" --members=3 --only=rebalance --pid="),
            "{call}"
        );
        assert!(!call.contains("--acks"), "{call}");
    }
    scene.assert_nothing_is_left();
}

/// The fake comes back and has no API at all.
#[test]
fn a_broker_that_does_not_serve_offsets_after_its_restart_is_told() {
    let scene = Scene::new();
    let spec = "name = 'x'\nrounds = 1\nbrokers = ['a']\n[[workload]]\nname = 'w'\n\
        step = [{ name = 's', groups = 'restart', options = { offsets = 10 } }]\n";
    let output = scene.run(&scene.spec(spec), &[scene.broker("a", "sound", "")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the broker has no FindCoordinator"), "{}", text(&output.stderr));
    assert!(scene.calls()[0].contains(" --offsets=10 --only=store --pid="), "{:?}", scene.calls());
    scene.assert_nothing_is_left();
}

#[test]
fn settings_of_a_spec_reach_its_brokers() {
    let scene = Scene::new();
    let spec = SPEC.to_owned() + "[setting.a]\n'some.thing' = '1'\n";
    let output = scene.run(&scene.spec(&spec), &[scene.broker("a", "sound", ""), scene.broker("b", "sound", "")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("has no [setting]"), "{}", text(&output.stderr));
}

#[test]
fn a_generator_that_fails_ends_it_and_what_was_measured_is_kept() {
    let scene = Scene::new();
    let brokers = [scene.broker("a", "sound", ""), scene.broker("b", "sound", "")];
    let output = scene.command(&scene.spec(SPEC), &brokers).env("FAKE_FAILS_AT", "10").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let (_, compare) = scene.stored().unwrap();
    let why = compare.failed.unwrap();
    assert!(why.contains("ended with status") && why.contains("it was told to fail"), "{why}");
    assert_eq!(compare.workloads[0].runs.len(), 2);
    assert!(!compare.workloads[0].figures.is_empty());
    assert!(text(&output.stderr).lines().any(|line| line == format!("ringlog-bench: ended early: {why}")));
    scene.assert_nothing_is_left();
}

#[test]
fn a_broker_that_loses_records_is_told_and_the_others_go_on() {
    let scene = Scene::new();
    let brokers = [scene.broker("a", "sound", ""), scene.broker("b", "sound", "")];
    let output = scene.command(&scene.spec(SPEC), &brokers).env("FAKE_LOSES_AT", "2").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (_, compare) = scene.stored().unwrap();
    assert_eq!(compare.workloads[0].runs.len(), 4);
    let printed = text(&output.stdout);
    assert!(printed.contains("note: produce, a, round 1: of 1 acknowledged records 1 were lost"), "{printed}");
    scene.assert_nothing_is_left();
}

#[test]
fn a_broker_that_dies_is_named_and_its_log_kept() {
    let scene = Scene::new();
    let brokers = [scene.broker("a", "sound", ""), scene.broker("b", "dies", "")];
    let output = scene.run(&scene.spec(SPEC), &brokers);
    assert_eq!(output.status.code(), Some(1));
    let (_, compare) = scene.stored().unwrap();
    let why = compare.failed.unwrap();
    assert!(why.contains("broker b ended by itself; its last line: the fake is out of luck"), "{why}");
    assert_eq!(compare.workloads[0].runs.len(), 1);
    let kept = text(&output.stderr).lines().find_map(|line| Some(line.split_once("is kept in ")?.1.to_owned())).unwrap();
    assert!(fs::read_to_string(kept).unwrap().contains("out of luck"));
    scene.assert_nothing_is_left();
}

#[test]
fn a_broker_that_is_not_ready_in_time_leaves_no_result() {
    let scene = Scene::new();
    for (role, more, expected) in [
        ("silent", "ready = { timeout = '300ms' }", "broker a is not ready after 0 s"),
        ("sound", "ready = { timeout = '300ms', log_contains = 'never said' }", "has not printed"),
        ("exits", "", "broker a ended by itself; its last line: the fake has no mind to start"),
    ] {
        let brokers = [scene.broker("a", role, more)];
        let output = scene.command(&scene.spec(SPEC), &brokers).args(["--brokers", "a"]).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{role}: {said}");
        assert!(said.contains(expected), "{role}: {said}");
        assert!(scene.stored().is_none());
    }
    // Where it does not even listen in the time that it has, there is more.
    let said_in = |timeout: &str| {
        let brokers = [scene.broker("a", "gibberish", &format!("ready = {{ timeout = '{timeout}' }}"))];
        let output = scene.command(&scene.spec(SPEC), &brokers).args(["--brokers", "a"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(scene.stored().is_none());
        text(&output.stderr)
    };
    let said: Vec<_> =
        ["300ms", "3s", "30s"].into_iter().map(said_in).take_while(|said| !said.contains("none of Kafka's protocol")).collect();
    assert!(said.len() < 3, "{said:?}");
    scene.assert_nothing_is_left();
}

#[test]
fn a_broker_that_does_not_stop_is_killed_and_told() {
    let scene = Scene::new();
    let brokers = [scene.broker("a", "stubborn", "stop = { timeout = '200ms' }")];
    let output = scene.command(&scene.spec(SPEC), &brokers).args(["--brokers", "a"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("broker a still ran 0 s after SIGTERM"), "{}", text(&output.stderr));
    scene.assert_nothing_is_left();
}

/// Starts a comparison whose generator's fifth call hangs, and waits for it.
fn hanging(scene: &Scene) -> Child {
    let brokers = [scene.broker("a", "sound", ""), scene.broker("b", "sound", "")];
    let child = scene.command(&scene.spec(SPEC), &brokers).env("FAKE_HANGS_AT", "5").spawn().unwrap();
    wait_for("the generator hangs", || scene.calls().len() == 5);
    child
}

#[test]
fn ctrl_c_ends_it_and_what_was_measured_is_kept() {
    let scene = Scene::new();
    let child = hanging(&scene);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let (run, compare) = scene.stored().unwrap();
    assert!(run.interrupted && compare.failed.is_none());
    assert_eq!(compare.workloads[0].runs.len(), 1);
    scene.assert_nothing_is_left();
}

#[test]
fn a_kill_leaves_no_process_and_no_directory() {
    let scene = Scene::new();
    let mut child = hanging(&scene);
    child.kill().unwrap();
    child.wait().unwrap();
    scene.assert_nothing_is_left();
    assert!(scene.stored().is_none());
}

#[test]
fn a_second_ctrl_c_leaves_nothing_either() {
    let scene = Scene::new();
    let brokers = [scene.broker("a", "sound", "")];
    let mut command = scene.command(&scene.spec(SPEC), &brokers);
    let mut child = command.args(["--brokers", "a"]).env("FAKE_HANGS_AT", "2").env("FAKE_IGNORES_INT", "1").spawn().unwrap();
    wait_for("the generator hangs", || scene.calls().len() == 2);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    // Two that come at once are one.
    wait_for("the generator is told to end", || scene.path("calls.interrupted").exists());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    scene.assert_nothing_is_left();
}

#[test]
fn nonsense_is_refused_before_anything_is_started() {
    let scene = Scene::new();
    let (spec, broker) = (scene.spec(SPEC), scene.broker("a", "sound", ""));
    let spec = spec.to_str().unwrap();
    for (arguments, expected) in [
        (&["nowhere"][..], "neither a file nor one of the specs"),
        (&[spec, "--only", "q"], "--only names no workload"),
        (&[spec, "--brokers", "a,a"], "none twice"),
        (&[spec, "--brokers", "c"], "broker c is not known"),
        (&[spec, "--brokers", "a", "--set", "a"], "BROKER:NAME=VALUE"),
        (&[spec, "--brokers", "a", "--set", "z:x=y"], "does not take part"),
        (&[spec, "--brokers", "a", "--set", "a:x=y"], "has no [setting]"),
        (&[spec, "--brokers", "a", "--rounds", "0"], "--rounds"),
        (&[spec, "--brokers", "a", "--bytes", "0"], "more than 0"),
        (&[spec, "--brokers", "a", "--bytes", "1000000TB"], "free space"),
        (&["throughput", "--brokers", "ringlog", "--ringlog-bin", "/nowhere/ringlog"], "--ringlog-bin"),
        (&["throughput", "--brokers", "a"], "no [topic_configs.page_cache]"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog-bench"));
        command.arg("compare").args(arguments).arg("--broker").arg(&broker).arg("--out").arg(scene.out());
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    assert!(scene.traced().is_empty() && scene.stored().is_none());
}

#[test]
fn a_client_library_drives_every_step_of_load() {
    let scene = Scene::new();
    let brokers = [scene.broker("a", "sound", ""), scene.broker("b", "sound", "")];
    let mut command = scene.command(&scene.spec(SPEC), &brokers);
    let output = command.args(["--rounds", "1", "--client", "librdkafka"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (mut measured, mut verified) = (0, 0);
    for call in scene.calls() {
        // What is verified afterwards is the same load.
        assert!(call.contains("--client=librdkafka"), "{call}");
        *(if call.contains("--verify") { &mut verified } else { &mut measured }) += 1;
    }
    // A warm-up, produce and consume, of two brokers.
    assert_eq!((measured, verified), (6, 2));
    scene.assert_nothing_is_left();

    let refused = |words: &[&str], why: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog-bench"));
        let output = command.arg("compare").args(words).arg("--out").arg(scene.path("none")).output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(why), "{words:?}: {said}");
        assert!(!scene.path("none").exists());
    };
    refused(&["start-stop", "--client", "lean"], "has none");
    refused(&["throughput", "--client", "java"], "possible values: lean, librdkafka");
    if cfg!(not(feature = "librdkafka")) {
        refused(&["throughput", "--client", "librdkafka"], "--features librdkafka");
        let spec = SPEC.replace("acks = 'all'", "client = 'librdkafka'");
        refused(&[scene.spec(&spec).to_str().unwrap()], "--features librdkafka");
    }
}

/// The real broker under the real library.
#[cfg(feature = "librdkafka")]
#[test]
fn a_comparison_runs_through_librdkafka() {
    let Some(ringlog) = real_broker::ringlog() else { return };
    let scene = Scene::new();
    let spec = "name = 'tiny'\nrounds = 1\nbrokers = ['ringlog']\n[[workload]]\nname = 'w'\n\
        options = { bytes = '2MB', partitions = 2, batch_bytes = '64KiB', acks = 'all' }\n\
        warm_up = [{ name = 'produce', load = 'produce' }]\n\
        step = [\n\
            { name = 'produce', load = 'produce', options = { topic = 't', keys = 10, key_skew = 1 } },\n\
            { name = 'consume', load = 'consume', options = { topic = 't', bytes = '5MB' }, beside = 'send' },\n\
            { name = 'read along', load = 'mixed', options = { topic = 'along' } },\n\
            { name = 'end to end', load = 'end-to-end', options = { topic = 'end', rate = '2k', duration = '500ms' } },\n\
        ]\n";
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog-bench"));
    command.arg("compare").arg(scene.spec(spec)).args(["--no-fill", "--client", "librdkafka", "--ringlog-bin"]).arg(ringlog);
    let output = command.arg("--out").arg(scene.out()).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (_, compare) = scene.stored().unwrap();
    let run = &compare.workloads[0].runs[0];
    assert!(run.verified.as_ref().unwrap().is_sound(), "{run:?}");
    let mut sides = Vec::new();
    for step in &run.steps {
        let StepOutcome::Load(load) = &step.outcome else { panic!("{step:?}") };
        assert!(load.settings.contains(&("client".to_owned(), "librdkafka".to_owned())), "{:?}", load.settings);
        for side in [&load.produce, &load.consume].into_iter().flatten() {
            assert_eq!(side.latency.as_ref().unwrap().count, side.records, "{}: {side:?}", step.name);
            sides.push(side.records);
        }
    }
    // What was due in its half a second is sent, however late.
    assert_eq!(sides, [2000, 5000, 2000, 2000, 1000, 1000]);
}

#[test]
fn what_is_ready_made_can_be_shown() {
    let output = Command::new(env!("CARGO_BIN_EXE_ringlog-bench")).args(["compare", "latency", "--show"]).output().unwrap();
    let printed = text(&output.stdout);
    assert!(output.status.success() && printed.contains("name = \"latency\"") && printed.contains("kafka.Kafka"), "{printed}");
}

/// Both ready-made brokers, where scripts/test says that Ringlog is built, and Java and Maven are there to fetch Kafka.
#[test]
fn the_ready_made_brokers_are_compared() {
    let has = |program: &str| Command::new(program).arg("-version").output().is_ok_and(|run| run.status.success());
    let ringlog = std::env::var_os("RINGLOG_BIN");
    let (Some(ringlog), true, true) = (ringlog, has("java"), has("mvn")) else {
        let line =
            "SKIPPED: the ready-made brokers are not compared: it takes RINGLOG_BIN, java and mvn (scripts/test load has them)\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    };
    let scene = Scene::new();
    let spec = "name = 'tiny'\nrounds = 1\n[[workload]]\nname = 'w'\n\
        options = { bytes = '2MB', partitions = 2, batch_bytes = '64KiB', acks = 'all' }\n\
        step = [\n\
            { name = 'produce', load = 'produce' },\n\
            { name = 'fill', load = 'produce', options = { topic = 't', bytes = '1MB' }, prepares = true },\n\
            { name = 'consume', load = 'consume', options = { topic = 't' }, beside = 'send' },\n\
            { name = 'restart', restart = { settle = '100ms' } },\n\
        ]\n\
        [[across]]\nof = 'w'\nto = 'w'\nstep = 'produce'\nmetric = 'produce_mb_per_s'\n";
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog-bench"));
    command.arg("compare").arg(scene.spec(spec)).arg("--no-fill").arg("--ringlog-bin").arg(ringlog);
    let output = command.arg("--out").arg(scene.out()).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (_, compare) = scene.stored().unwrap();
    let workload = &compare.workloads[0];
    assert!(compare.brokers.iter().all(|broker| !broker.version.is_empty()), "{:?}", compare.brokers);
    for run in &workload.runs {
        assert!(run.verified.as_ref().unwrap().is_sound(), "{run:?}");
        let names: Vec<&str> = run.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["produce", "consume", "restart"], "what prepares is not measured");
        let StepOutcome::Load(load) = &run.steps[1].outcome else { panic!("{run:?}") };
        let bytes = load.consume.as_ref().unwrap().bytes;
        assert!((1_000_000..1_100_000).contains(&bytes), "{bytes}");
        assert!(load.broker.as_ref().unwrap().rss_peak_of_run, "{load:?}");
        assert!(run.steps[1].bare.as_ref().unwrap().mb_per_s > 0.0);
        let StepOutcome::Restart(restart) = &run.steps[2].outcome else { panic!("{run:?}") };
        assert!(restart.restart_clean_ms > 0.0 && restart.memory_bytes > 0 && restart.partitions == 2, "{restart:?}");
    }
    assert_eq!(compare.across.len(), 1);
    let printed = text(&output.stdout);
    assert!(printed.contains("produce, MB/s ↑: ringlog, w / kafka, w: "), "{printed}");
    let left = fs::read_dir(scene.out()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!left.into_iter().any(|name| name.contains("work")), "the directory of work is gone");
}

/// Not a test: the fake broker, where the environment says so.
#[test]
fn fake_broker() {
    let Ok(role) = std::env::var("FAKE_ROLE") else { return };
    let variable = |name: &str| std::env::var(name).unwrap();
    // A child that outlives its parent unless the whole group ends.
    let sleeper = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    let mut trace = fs::File::options().create(true).append(true).open(variable("FAKE_TRACE")).unwrap();
    trace.write_all(format!("{}\n{}\n", std::process::id(), sleeper.id()).as_bytes()).unwrap();
    fs::write(Path::new(&variable("FAKE_DATA")).join("segment"), "bytes").unwrap();
    if role == "exits" {
        println!("the fake has no mind to start");
        std::process::exit(3);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _entered = runtime.enter();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    let port = variable("FAKE_PORT").parse().unwrap();
    // The port was free when it was chosen: whoever got it meanwhile, as another test's broker or client, gives it back.
    let start = Instant::now();
    let listener = loop {
        match TcpListener::bind(("127.0.0.1", port)) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            bound => break bound.unwrap(),
        }
    };
    let requests = role.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let role = requests.clone();
            std::thread::spawn(move || answer(stream.unwrap(), &role));
        }
    });
    runtime.block_on(async {
        loop {
            terminate.recv().await;
            if role != "stubborn" {
                std::process::exit(0);
            }
        }
    });
}

/// Answers whatever `compare` asks: always well, as far as the role allows.
fn answer(mut stream: std::net::TcpStream, role: &str) {
    if role == "gibberish" {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    }
    loop {
        let mut size = [0; 4];
        if stream.read_exact(&mut size).is_err() {
            return;
        }
        let mut request = vec![0; u32::from_be_bytes(size) as usize];
        if stream.read_exact(&mut request).is_err() || role == "silent" {
            return;
        }
        let mut body = request[4..8].to_vec();
        match i16::from_be_bytes([request[0], request[1]]) {
            // ApiVersions v0: no error, no APIs.
            18 => body.extend([0, 0, 0, 0, 0, 0]),
            // CreateTopics v4: no throttling, one topic "t" without error or message.
            19 => body.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0xff, 0xff]),
            // Produce v8: one topic, one partition, no error, offset 0, no time, start 0, no record errors, no message; no throttling.
            0 => {
                body.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
                body.extend([0; 8]);
                body.extend([0xff; 8]);
                body.extend([0; 8]);
                body.extend([0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
            }
            other => panic!("API {other}"),
        }
        let mut frame = (body.len() as u32).to_be_bytes().to_vec();
        frame.extend(body);
        if stream.write_all(&frame).is_err() {
            return;
        }
    }
}

/// Not a test: the fake load generator, where the environment says so. Its figure is the number of its call.
#[test]
fn fake_generator() {
    let Ok(arguments) = std::env::var("FAKE_ARGUMENTS") else { return };
    let calls = PathBuf::from(std::env::var("FAKE_CALLS").unwrap());
    let ignores_int = std::env::var("FAKE_IGNORES_INT").is_ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let entered = runtime.enter();
    let mut interrupt = ignores_int.then(|| tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).unwrap());
    drop(entered);
    let mut log = fs::File::options().create(true).append(true).open(&calls).unwrap();
    log.write_all(format!("{arguments}\n").as_bytes()).unwrap();
    let number = fs::read_to_string(&calls).unwrap().lines().count();
    let is_at = |name: &str| std::env::var(name).is_ok_and(|at| at == number.to_string());
    if is_at("FAKE_HANGS_AT") {
        if let Some(interrupt) = &mut interrupt {
            runtime.block_on(interrupt.recv());
            fs::write(calls.with_extension("interrupted"), "").unwrap();
        }
        std::thread::sleep(PATIENCE);
    }
    if is_at("FAKE_FAILS_AT") {
        eprintln!("ringlog-bench: it was told to fail");
        std::process::exit(1);
    }
    let words: Vec<&str> = arguments.split(' ').collect();
    let out = PathBuf::from(words[words.iter().position(|word| *word == "--out").unwrap() + 1]);
    let pid: i32 = words.iter().find_map(|word| word.strip_prefix("--pid=")).unwrap().parse().unwrap();
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    if environment.contains("FAKE_ROLE=dies") {
        // The broker's last words go where it prints.
        fs::write(format!("/proc/{pid}/fd/1"), "the fake is out of luck\n").unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        std::thread::sleep(PATIENCE);
    }
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join("latency.hlog"), "#[Fake]\n").unwrap();
    let latency = Latency { count: 1, hlog: Some("latency.hlog".to_owned()), ..Latency::default() };
    let side = Side { records: 1, mb_per_s: number as f64, latency: Some(latency), ..Side::default() };
    let lost = u64::from(is_at("FAKE_LOSES_AT"));
    let verify = Some(Verified { acknowledged: 1, received: 1 - lost, lost, ..Verified::default() });
    let load = Load { produce: Some(side), broker: Some(ProcessUse::default()), verify, ..Load::default() };
    let rebalances = vec![Rebalance { median_ms: number as f64, ..Rebalance::default() }];
    let outcome = match words[0] {
        "groups" => Outcome::Groups(Box::new(Groups { rebalances, ..Groups::default() })),
        _ => Outcome::Load(Box::new(load)),
    };
    let run = Run {
        format: ringlog_bench::results::FORMAT,
        version: "0".to_owned(),
        command_line: words.iter().map(|word| (*word).to_owned()).collect(),
        started_ms: 1,
        elapsed_s: 1.0,
        interrupted: false,
        machine: ringlog_bench::machine::Machine::default(),
        outcome,
    };
    store::save(&out, &run).unwrap();
    if lost > 0 {
        std::process::exit(1);
    }
}
