//! `ringlog-bench machine` and `ringlog-bench disk` as a user runs them: what is printed and stored, what is refused, and that
//! nothing stays behind.
#![allow(clippy::unwrap_used, reason = "a test ends where something it needs is missing")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringlog_bench::results::{Medium, Outcome, Run};
use ringlog_bench::store;

/// A directory on the disk that the tests are built on: /tmp may be memory.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn bench(out: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog-bench"));
    command.args(arguments).arg("--out").arg(out).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const SMALL: [&str; 9] = ["disk", "--size", "64MiB", "--memory-size", "4MiB", "--seconds", "0.02", "--runs", "1"];

/// Refused with this status and a word that says why, and nothing is written.
fn assert_refused(out: &Path, arguments: &[&str], status: i32, word: &str) {
    let before = names(out);
    let output = bench(out, arguments).output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {errors}");
    assert!(errors.contains(word), "{arguments:?}: {errors}");
    assert_eq!(names(out), before, "{arguments:?}");
}

#[test]
fn a_machine_is_printed_and_stored() {
    let out = directory();
    let output = bench(out.path(), &["machine"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("io_uring"), "{}", text(&output.stdout));
    let runs = store::load_all(out.path()).unwrap();
    assert_eq!(runs.len(), 1);
    assert!(matches!(runs[0].1.outcome, Outcome::Machine));
    assert!(!runs[0].1.machine.facts.is_empty());
}

#[test]
fn a_grid_is_printed_stored_and_drawn() {
    let out = directory();
    let output = bench(out.path(), &SMALL).args(["--json", "--no-fio", "--depth", "4"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let run: Run = serde_json::from_slice(&output.stdout).unwrap();
    let Outcome::Disk(grid) = run.outcome else { panic!("{:?}", run.outcome) };
    assert_eq!(grid.cells.iter().filter(|cell| cell.medium == Medium::Memory).count(), 5);
    assert!(grid.cells.iter().any(|cell| cell.medium == Medium::Disk && cell.depth == Some(4)));
    assert!(grid.cells.iter().all(|cell| cell.values_per_s > 0.0 && cell.values_per_s_runs.len() == 1), "{:?}", grid.cells);
    assert_eq!(grid.claims.len(), 6);
    let names = names(out.path());
    assert_eq!(names.len(), 2, "the run and its chart, and no test file: {names:?}");
    assert!(names[0].ends_with("-disk.json") && names[1].ends_with("-disk.svg"), "{names:?}");
    assert_eq!(names[0].trim_end_matches("json"), names[1].trim_end_matches("svg"));
}

#[test]
fn nonsense_is_refused() {
    let out = directory();
    for (arguments, word) in [
        (vec!["disk", "--size", "0"], "--size must be"),
        (vec!["disk", "--size", "63MiB"], "--size must be"),
        (vec!["disk", "--size", "100000001"], "--size must be"),
        (vec!["disk", "--size", "65GiB"], "--size must be"),
        (vec!["disk", "--size", "much"], "--size"),
        (vec!["disk", "--size=-1"], "--size"),
        (vec!["disk", "--seconds", "0"], "--seconds must be"),
        (vec!["disk", "--seconds", "2h"], "--seconds must be"),
        (vec!["disk", "--runs", "0"], "--runs"),
        (vec!["disk", "--depth", "1"], "--depth"),
        (vec!["disk", "--depth", "1000"], "--depth"),
        (vec!["disk", "--memory-size", "0"], "--memory-size must be"),
        (vec!["disk", "--memory-size", "1TiB"], "--memory-size must be"),
    ] {
        assert_refused(out.path(), &arguments, 2, word);
    }
    assert!(names(out.path()).is_empty());
}

#[test]
fn a_directory_that_cannot_be_is_refused() {
    let folder = directory();
    let file = folder.path().join("file");
    fs::write(&file, "precious").unwrap();
    for out in [file.clone(), file.join("below"), "/proc/ringlog-bench".into()] {
        let output = bench(&out, &SMALL).output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{}: {errors}", out.display());
        assert_eq!(errors.trim().lines().count(), 1, "{errors}");
        assert!(errors.starts_with("ringlog-bench: "), "{errors}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_directory_without_rights_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let folder = directory();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = bench(folder.path(), &SMALL);
    if rustix::process::geteuid().is_root() {
        // Nothing is refused to root: as nobody, who may not even reach the binary everywhere.
        command.uid(65534);
    }
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return,
        output => output.unwrap(),
    };
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("ermission denied") && errors.trim().lines().count() == 1, "{errors}");
    assert!(output.stdout.is_empty() && names(folder.path()).is_empty(), "{:?}", names(folder.path()));
}

/// A run that would take minutes, as soon as it holds its test file, which has lost its name by then.
fn endless(out: &Path) -> std::process::Child {
    let arguments = ["disk", "--size", "64MiB", "--memory-size", "4MiB", "--seconds", "30", "--no-fio"];
    let mut child = bench(out, &arguments).spawn().unwrap();
    let fds = format!("/proc/{}/fd", child.id());
    let holds_file = || {
        let is_it = |fd: fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().ends_with(".data (deleted)"));
        fs::read_dir(&fds).is_ok_and(|fds| fds.flatten().any(is_it))
    };
    let start = Instant::now();
    while !holds_file() {
        assert!(start.elapsed() < Duration::from_secs(180), "it never began");
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

#[test]
fn ctrl_c_leaves_what_was_measured_and_nothing_else() {
    let out = directory();
    let child = endless(out.path());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let runs = store::load_all(out.path()).unwrap();
    assert_eq!(runs.len(), 1);
    assert!(runs[0].1.interrupted);
    let Outcome::Disk(grid) = &runs[0].1.outcome else { panic!("{:?}", runs[0].1.outcome) };
    assert!(grid.cells.len() <= 1, "what was cut short is no measurement");
    assert!(names(out.path()).iter().all(|name| !name.contains("data")), "{:?}", names(out.path()));
}

#[test]
fn a_killed_run_leaves_no_file() {
    let out = directory();
    let mut child = endless(out.path());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(names(out.path()).is_empty(), "{:?}", names(out.path()));
}
