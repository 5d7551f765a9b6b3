//! `ringlog-bench engine` as a user runs it: what is printed and stored, what is refused, and that nothing stays behind.
#![allow(clippy::unwrap_used, reason = "a test ends where something it needs is missing")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use ringlog_bench::results::{AppendPath, Outcome, Run};
use ringlog_bench::store;
use rustix::process::{Pid, Signal, kill_process};

fn bench(out: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog-bench"));
    command.arg("engine").args(arguments).arg("--out").arg(out);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_way_is_measured_and_stored() {
    let out = directory();
    let small =
        ["--partitions", "1,300", "--batch", "5000", "--sync", "1,0", "--seconds", "0.03", "--warm-up", "0.02", "--runs", "1"];
    let output = bench(out.path(), &small).args(["--journal", "32MiB", "--read-size", "4MiB", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run: Run = serde_json::from_slice(&output.stdout).unwrap();
    let Outcome::Engine(engine) = run.outcome else { panic!("{:?}", run.outcome) };
    assert_eq!(engine.appends.len(), 4);
    for appends in &engine.appends {
        let paths: Vec<AppendPath> = appends.ways.iter().map(|way| way.path).collect();
        assert_eq!(paths, AppendPath::value_variants());
        assert!(appends.ways.iter().all(|way| way.mb_per_s > 0.0 && way.of_raw.is_some()), "{appends:?}");
        assert!(appends.recovery.is_some());
    }
    assert_eq!(engine.reads.len(), 3);
    let names = names(out.path());
    assert!(names.len() == 1 && names[0].ends_with("-engine.json"), "{names:?}");
}

#[test]
fn only_the_ways_that_were_asked_for_are_measured() {
    let out = directory();
    let small = ["--partitions", "2", "--batch", "5000", "--sync", "1", "--seconds", "0.03", "--warm-up", "0.02", "--runs", "1"];
    let some = ["--ways", "journal,raw-twice", "--journal", "32MiB", "--read-size", "0", "--json"];
    let output = bench(out.path(), &small).args(some).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run: Run = serde_json::from_slice(&output.stdout).unwrap();
    let Outcome::Engine(engine) = run.outcome else { panic!("{:?}", run.outcome) };
    let paths: Vec<AppendPath> = engine.appends[0].ways.iter().map(|way| way.path).collect();
    assert_eq!(paths, [AppendPath::RawTwice, AppendPath::Journal]);
}

#[test]
fn nonsense_is_refused() {
    let out = directory();
    for (arguments, word) in [
        (vec!["--partitions", "0"], "--partitions must be"),
        (vec!["--partitions", "1,,2"], "--partitions"),
        (vec!["--partitions", "1000000"], "--partitions must be"),
        (vec!["--batch", "0"], "--batch must be"),
        (vec!["--batch", "1GiB"], "--batch must be"),
        (vec!["--partitions", "1000", "--batch", "1MiB"], "no round"),
        (vec!["--sync", "often"], "--sync"),
        (vec!["--seconds", "0"], "--seconds must be"),
        (vec!["--runs", "0"], "--runs"),
        (vec!["--journal", "1"], "--journal must be"),
        (vec!["--tail", "1MiB"], "--tail must be"),
        (vec!["--read-size", "1"], "--read-size must be"),
        (vec!["--ways", "raw,none"], "--ways"),
    ] {
        let output = bench(out.path(), &arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(word), "{arguments:?}: {errors}");
    }
    assert!(names(out.path()).is_empty());
    let output = bench(Path::new("/proc/ringlog-bench"), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(180), "{what}: not yet");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A run that would last for minutes, once its files are there.
fn measuring(out: &Path, partitions: &str) -> Child {
    let long = ["--batch", "4KiB", "--journal", "32MiB", "--seconds", "60", "--warm-up", "60", "--ways", "journal"];
    let child = bench(out, &long).args(["--partitions", partitions]).spawn().unwrap();
    wait_for("its files are there", || {
        let data = names(out).into_iter().find(|name| name.ends_with(".data"));
        data.is_some_and(|data| fs::read_dir(out.join(data).join("now")).is_ok_and(|now| now.count() > 1))
    });
    child
}

#[test]
fn ctrl_c_removes_the_files() {
    let out = directory();
    let child = measuring(out.path(), "3");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let runs = store::load_all(out.path()).unwrap();
    assert!(runs.len() == 1 && runs[0].1.interrupted);
    assert_eq!(names(out.path()).len(), 1, "{:?}", names(out.path()));
}

/// Making so many partitions takes its time: nobody waits for the end of it.
#[test]
fn ctrl_c_ends_the_opening_of_many_partitions() {
    let out = directory();
    let child = measuring(out.path(), "10000");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    wait_for("the files are gone", || !names(out.path()).iter().any(|name| name.ends_with(".data")));
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
}

#[test]
fn a_kill_and_a_second_ctrl_c_leave_no_files() {
    let out = directory();
    for signals in [&[Signal::KILL][..], &[Signal::INT, Signal::INT]] {
        let mut child = measuring(out.path(), "300");
        for signal in signals {
            kill_process(Pid::from_child(&child), *signal).unwrap();
        }
        child.wait().unwrap();
        wait_for("the files are gone", || !names(out.path()).iter().any(|name| name.ends_with(".data")));
    }
}
