//! Where results go: a directory that cannot be written, and a disk that is full or becomes so.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::real_broker::skipped;
use super::*;

/// Runs `line` where `small` is a filesystem of 32 KiB that nobody else sees, `full` from the start, or once it has sent something: then
/// it is told to end. Returns what that holds in the end, too; `None` where this system lets nobody make one.
fn on_a_small_disk(small: &Path, bench: &Bench, broker: &Broker, line: &str, full: bool) -> Option<(Ran<Load>, String)> {
    let script = r#"mount -t tmpfs -o size=32k none "$1" || exit 99; out=$1 full=$2; shift 2
        fill() { cat /dev/zero >"$out/filler" 2>/dev/null; }
        [ "$full" = true ] && fill
        "$@" & run=$!
        [ "$full" = true ] || { until [ -e "$out.sent" ]; do sleep 0.05; done; fill; kill -INT $run; }
        wait $run; status=$?
        ls -A "$out" >"$out.left"; exit $status"#;
    let command = bench.command(broker.address, line);
    let child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(small)
        .arg(full.to_string())
        .arg(command.get_program())
        .args(command.get_args())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.ok()?;
    // More than may be without an answer.
    let until = Instant::now() + Duration::from_secs(60);
    while !full && broker.produced() < 20 && Instant::now() < until && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let sent = small.with_extension("sent");
    std::fs::write(&sent, "").unwrap();
    let output = child.wait_with_output().unwrap();
    std::fs::remove_file(sent).unwrap();
    if output.status.code() == Some(99) || String::from_utf8_lossy(&output.stderr).contains("unshare:") {
        skipped("a full disk: no filesystem of our own can be mounted here");
        return None;
    }
    let left = small.with_extension("left");
    let listed = std::fs::read_to_string(&left).unwrap();
    std::fs::remove_file(left).unwrap();
    Some((ran(output), listed))
}

#[test]
fn a_full_disk_is_told_before_anything_is_asked_of_the_broker() {
    let (bench, broker) = (Bench::new(), Broker::start(&[]));
    let Some((ran, left)) = on_a_small_disk(bench.out.path(), &bench, &broker, &format!("produce {SMALL}"), true) else { return };
    ran.failed(1, "No space left on device");
    assert_eq!(left, "filler\n");
    assert!(broker.produced() == 0 && broker.deleted().is_empty());
}

#[test]
fn a_disk_that_becomes_full_leaves_no_half_a_result() {
    let (bench, broker) = (Bench::new(), Broker::start(&[]));
    // It is told to end when the disk is full, however long that takes.
    let line = "produce --record-bytes 100 --rate 1000 --duration 10min";
    let Some((ran, left)) = on_a_small_disk(bench.out.path(), &bench, &broker, line, false) else { return };
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("No space left on device"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("stored in"), "{}", ran.stderr);
    assert_eq!(left, "filler\n");
    assert!(broker.topics().is_empty());
    // What was measured is not lost with it.
    assert!(ran.measured.unwrap().produce.unwrap().records > 0);
}

#[test]
fn a_verify_log_that_does_not_fit_ends_the_run() {
    let (bench, broker) = (Bench::new(), Broker::start(&[]));
    let small = tempfile::tempdir().unwrap();
    let line = format!("produce {SMALL} --verify-log {}", small.path().join("log").display());
    let Some((ran, left)) = on_a_small_disk(small.path(), &bench, &broker, &line, true) else { return };
    ran.failed(1, "log: No space left on device");
    assert_eq!(left, "filler\n");
    assert!(bench.files().is_empty(), "{:?}", bench.files());
}

#[test]
fn a_directory_that_cannot_be_written_is_told() {
    let (bench, broker) = (Bench::new(), Broker::start(&[]));
    let file = bench.out.path().join("file");
    std::fs::write(&file, "").unwrap();
    let run = |mut command: Command, out: &Path| {
        command.args(["load", "produce", "--records", "10", "--json", "--bootstrap", &broker.address.to_string(), "--out"]);
        ran(command.arg(out).output().unwrap())
    };
    let binary = env!("CARGO_BIN_EXE_ringlog-bench");
    run(Command::new(binary), &file.join("below")).failed(1, "below: Not a directory");
    run(Command::new(binary), &file).failed(1, "file: ");

    let closed = bench.out.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o555)).unwrap();
    let without_rights = || {
        if !rustix::process::geteuid().is_root() {
            return Command::new(binary);
        }
        // Root may write everywhere: without that right of its.
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-dac_override", "--inh-caps=-dac_override", binary]);
        command
    };
    run(without_rights(), &closed).failed(1, "closed: Permission denied");
    run(without_rights(), &closed.join("below")).failed(1, "below: Permission denied");
    assert_eq!(std::fs::read_dir(&closed).unwrap().count(), 0);
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o755)).unwrap();
    assert!(broker.produced() == 0 && broker.deleted().is_empty(), "it was told before anything was asked of the broker");
}

#[test]
fn a_result_that_cannot_be_printed_is_stored_all_the_same() {
    let (bench, broker) = (Bench::new(), Broker::start(&[]));
    for json in ["--json", "--quiet"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_ringlog-bench"))
            .args(["load", "produce", "--records", "10", json, "--bootstrap", &broker.address.to_string(), "--out"])
            .arg(bench.out.path())
            .stdout(full)
            .output()
            .unwrap();
        let ran = ran(output);
        ran.failed(1, "No space left on device");
        assert!(bench.files().iter().any(|path| path.extension().is_some_and(|extension| extension == "json")));
        bench.files().iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }
}
