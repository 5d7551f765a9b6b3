//! `report` as its users run it, over runs made here: what the page and the tables hold, that nothing from a file becomes markup,
//! and what is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ringlog_bench::machine::Machine;
use ringlog_bench::results::{
    Across, AppendPath, AppendWay, Appends, Compare, ComparedBroker, ComparedRun, ComparedWorkload, Direction, Engine, FORMAT,
    Figure, Grid, GridCell, Groups, Latency, Load, Medium, Outcome, Pattern, ProcessUse, PublishedFigure, Ratio, Rebalance, Run,
    Second, Side, Spread, StepOutcome, StepRun, Verified, Way,
};
use ringlog_bench::store;

/// What would be markup if a page took it as it is.
const EVIL: &str = "<script>alert(1)</script>\"'&";

fn report(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringlog-bench")).arg("report").args(arguments).output().unwrap()
}

fn results() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn side(factor: f64) -> Side {
    let second = |second: u32| Second {
        second,
        records: 100,
        bytes: 5_000_000,
        p50_us: 100,
        p99_us: 900 + u64::from(second),
        max_us: 950,
    };
    Side {
        records: 1_234_567,
        bytes: 1_000_000_000,
        elapsed_s: 10.0,
        records_per_s: 123_456.7 * factor,
        mb_per_s: 100.0 * factor,
        latency: Some(Latency {
            count: 1000,
            p50_us: 150,
            p99_us: 900,
            max_us: 42_000,
            curve: vec![(0.0, 80), (50.0, 150), (90.0, 300), (99.0, 900), (99.9, 2000), (100.0, 42_000)],
            hlog: Some("a <b>.hlog".to_owned()),
            ..Latency::default()
        }),
        seconds: (0..10).map(second).collect(),
        errors: vec![(EVIL.to_owned(), 3)],
    }
}

fn load(factor: f64) -> Load {
    Load {
        settings: vec![("run".to_owned(), "produce".to_owned()), ("topic".to_owned(), EVIL.to_owned())],
        produce: Some(side(factor)),
        consume: None,
        broker: Some(ProcessUse { cpu_s: 2.0, cpu_s_per_gb: 2.0 / factor, rss_peak_bytes: 1 << 30, ..ProcessUse::default() }),
        generator: ProcessUse::default(),
        generator_bound: Some(format!("it was busy {EVIL}")),
        verify: Some(Verified { acknowledged: 10, received: 9, lost: 1, findings: vec![EVIL.to_owned()], ..Verified::default() }),
    }
}

fn compare() -> Compare {
    let broker = |name: &str| ComparedBroker {
        name: name.to_owned(),
        about: format!("about {EVIL}"),
        version: EVIL.to_owned(),
        command: vec!["serve".to_owned(), EVIL.to_owned()],
        files: vec![(EVIL.to_owned(), EVIL.to_owned())],
    };
    let run = |broker: &str, round: u32, factor: f64| ComparedRun {
        free_bytes_max: if round == 2 { 3 << 30 } else { 0 },
        verified: Some(Verified { acknowledged: 1000, received: 1000, ..Verified::default() }),
        broker: broker.to_owned(),
        round,
        started_s: f64::from(round),
        steps: vec![StepRun {
            name: "produce".to_owned(),
            command_line: vec!["ringlog-bench".to_owned(), "load".to_owned(), EVIL.to_owned()],
            raw: Some("raw/1-load.json".to_owned()),
            outcome: StepOutcome::Load(Box::new(load(factor))),
            bare: None,
        }],
    };
    let spread =
        |broker: &str, median: f64| Spread { broker: broker.to_owned(), median, min: median * 0.9, max: median * 1.1, count: 2 };
    let figure = Figure {
        step: "produce".to_owned(),
        metric: "produce_mb_per_s".to_owned(),
        brokers: vec![spread("ringlog", 300.0), spread(EVIL, 100.0)],
        ratios: vec![Ratio { of: "ringlog".to_owned(), to: EVIL.to_owned(), median: 3.0, min: 2.5, max: 3.5 }],
        published: Some(PublishedFigure { value: 78.3, source: EVIL.to_owned() }),
    };
    Compare {
        spec: EVIL.to_owned(),
        about: EVIL.to_owned(),
        rounds: 2,
        brokers: vec![broker("ringlog"), broker(EVIL)],
        filled_bytes: 16 << 30,
        free_bytes_max: 1 << 29,
        workloads: vec![ComparedWorkload {
            name: format!("w {EVIL}"),
            about: EVIL.to_owned(),
            mode: "durable".to_owned(),
            runs: vec![run("ringlog", 1, 3.0), run(EVIL, 1, 1.0), run("ringlog", 2, 3.0), run(EVIL, 2, 1.0)],
            figures: vec![figure],
        }],
        across: vec![Across {
            of: "durable".to_owned(),
            to: EVIL.to_owned(),
            step: "produce".to_owned(),
            metric: "produce_mb_per_s".to_owned(),
            ratios: vec![Ratio { of: "ringlog".to_owned(), to: EVIL.to_owned(), median: 1.6, min: 1.5, max: 1.75 }],
        }],
        failed: Some(EVIL.to_owned()),
    }
}

fn save(directory: &Path, started_ms: u64, outcome: Outcome) -> PathBuf {
    let run = Run {
        format: FORMAT,
        version: "0.1.0".to_owned(),
        command_line: vec!["ringlog-bench".to_owned(), "x".to_owned(), EVIL.to_owned()],
        started_ms,
        elapsed_s: 12.0,
        interrupted: started_ms == 1_000,
        machine: Machine {
            facts: vec![("CPU".to_owned(), EVIL.to_owned()), ("others at work".to_owned(), format!("load of {started_ms}"))],
            warnings: vec![format!("other load {EVIL}")],
        },
        outcome,
    };
    store::save(directory, &run).unwrap()
}

/// Every address that a page leads to.
fn links(page: &str) -> Vec<String> {
    page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[test]
fn groups_are_tables_of_the_page_and_of_markdown() {
    let directory = results();
    let rebalance = Rebalance { members: 100, partitions: 1000, median_ms: 8.86, times_ms: vec![8.86], ..Rebalance::default() };
    let groups = Groups { rebalances: vec![rebalance], notes: vec![EVIL.to_owned()], ..Groups::default() };
    save(directory.path(), 1_000, Outcome::Groups(Box::new(groups)));
    let output = report(&[directory.path()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let page = fs::read_to_string(directory.path().join("report.html")).unwrap();
    assert!(page.contains("8.86 ms") && page.contains("the last member") && !page.contains("<script>alert"), "{page}");
    let output = report(&[directory.path(), Path::new("--markdown")]);
    assert!(text(&output.stdout).contains("| classic | 100 | 1,000 | 8.86 ms |"), "{}", text(&output.stdout));
}

#[test]
fn a_page_holds_every_run_and_nothing_in_it_becomes_markup() {
    let directory = results();
    save(directory.path(), 1_000, Outcome::Load(Box::new(load(1.0))));
    save(directory.path(), 2_000, Outcome::Compare(Box::new(compare())));
    save(directory.path(), 3_000, Outcome::Machine);
    let output = report(&[directory.path()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let page = fs::read_to_string(directory.path().join("report.html")).unwrap();
    let beside = ["raw/1-load.json", "a%20%3Cb%3E.hlog"];
    assert!(
        page.contains("raw/1-load.json") && !links(&page).iter().any(|link| beside.contains(&link.as_str())),
        "nowhere to lead"
    );
    fs::create_dir(directory.path().join("raw")).unwrap();
    for name in ["raw/1-load.json", "a <b>.hlog"] {
        fs::write(directory.path().join(name), "").unwrap();
    }
    assert!(report(&[directory.path()]).status.success());
    let page = fs::read_to_string(directory.path().join("report.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>"));
    assert!(!page.contains("<script"), "nothing from a file is markup");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    // It stands alone: nothing is loaded from anywhere.
    for loading in ["src=", "@import", "url(", "<link", "<iframe"] {
        assert!(!page.contains(loading), "{loading}");
    }
    for link in links(&page) {
        assert!(link.starts_with('#') || !link.contains(':'), "{link} leads away");
    }
    for run in ["1000-load.json", "2000-compare.json", "3000-machine.json", "raw/1-load.json", "a%20%3Cb%3E.hlog"] {
        assert!(links(&page).iter().any(|link| link == run), "{run} is not linked");
    }
    assert_eq!(page.matches(">CPU</th>").count(), 1, "what is the same stands once");
    for told in [
        ": 1.60 (1.50–1.75) (least over most–most over least)",
        "load of 1000",
        "load of 2000",
        "ringlog-bench x",
        "Interrupted",
        "other load",
        "1,234,567",
        "1 were lost",
        "The load generator may be what was measured: it was busy",
        "Ended early",
        "16 GiB",
        "99.9 %",
        "2 rounds, medians",
        "(2.50–3.50)",
        "78.3",
        "all 4 runs, in their order",
        "Brokers took turns",
        "verified after 4 of 4 runs: of 4,000 acknowledged records every one read back and compared; sound: 4 of 4 runs",
        "round 2: 3 GiB of memory were free although the page cache was filled",
    ] {
        assert!(page.contains(told), "{told} is missing");
    }
    // The load's percentiles, throughput and latency; the comparison's overviews, and the same three for its step.
    assert!(page.matches("<svg").count() >= 7, "{}", page.matches("<svg").count());
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
}

#[test]
fn charts_for_docs_are_files_of_their_own() {
    let directory = results();
    save(directory.path(), 2_000, Outcome::Compare(Box::new(compare())));
    let charts = directory.path().join("charts");
    let output = report(&[directory.path(), Path::new("--charts"), &charts]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let svg = fs::read_to_string(charts.join("2000-compare-throughput.svg")).unwrap();
    assert!(svg.starts_with("<svg xmlns=") && svg.matches("<svg").count() == 2 && svg.matches("</svg>").count() == 2, "{svg}");
    assert!(svg.contains("Throughput, MB/s") && svg.contains(">ringlog</text>") && !svg.contains("<script"), "{svg}");
    // What has no chart leaves nothing half-done.
    let other = results();
    save(other.path(), 3_000, Outcome::Machine);
    let output = report(&[other.path(), Path::new("--charts"), &charts]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no run of these has a chart"), "{}", text(&output.stderr));
}

/// A cell of each medium and pattern, for the chart.
fn grid() -> Grid {
    let cell = |medium, pattern, per_s: f64| GridCell {
        medium,
        pattern,
        direction: Direction::Read,
        way: if medium == Medium::Disk { Way::Direct } else { Way::Independent },
        depth: None,
        access_bytes: 4,
        values_per_s: per_s,
        values_per_s_runs: vec![per_s],
        accesses_per_s: per_s,
        mb_per_s: per_s * 4.0 / 1e6,
        fio_values_per_s: None,
    };
    let cells = vec![
        cell(Medium::Disk, Pattern::Sequential, 4e8),
        cell(Medium::Disk, Pattern::Random, 1e5),
        cell(Medium::Memory, Pattern::Sequential, 2e9),
        cell(Medium::Memory, Pattern::Random, 5e7),
    ];
    Grid { cells, notes: vec![EVIL.to_owned()], ..Grid::default() }
}

fn engine() -> Engine {
    let way = |path, mb_per_s| AppendWay {
        path,
        mb_per_s,
        mb_per_s_runs: vec![mb_per_s],
        cpu_s_per_gb: 0.5,
        round_ms: 20.0,
        of_raw: Some(0.9),
        of_raw_twice: None,
    };
    let ways = vec![way(AppendPath::Raw, 1000.0), way(AppendPath::Journal, 900.0)];
    let appends = Appends { partitions: 10_000, batch_bytes: 4096, sync_rounds: 1, ways, recovery: None };
    Engine { appends: vec![appends], notes: vec![EVIL.to_owned()], ..Engine::default() }
}

/// A browser, where one is installed.
fn browser() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok_and(|run| run.status.success()));
    if found.is_none() {
        // Written past the harness, which keeps what a test that passes prints.
        let line = format!("SKIPPED: the report is not rendered: none of {} is installed\n", names.join(", "));
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    found
}

#[test]
fn a_browser_renders_the_page() {
    let Some(browser) = browser() else { return };
    let directory = results();
    save(directory.path(), 1_000, Outcome::Load(Box::new(load(1.0))));
    save(directory.path(), 2_000, Outcome::Compare(Box::new(compare())));
    save(directory.path(), 3_000, Outcome::Machine);
    save(directory.path(), 4_000, Outcome::Disk(Box::new(grid())));
    save(directory.path(), 5_000, Outcome::Engine(Box::new(engine())));
    let rebalance = Rebalance { members: 100, partitions: 1000, median_ms: 8.86, times_ms: vec![8.86], ..Rebalance::default() };
    let groups = Groups { rebalances: vec![rebalance], notes: vec![EVIL.to_owned()], ..Groups::default() };
    save(directory.path(), 6_000, Outcome::Groups(Box::new(groups)));
    assert!(report(&[directory.path()]).status.success());
    let page = directory.path().join("report.html");
    let profile = tempfile::tempdir().unwrap();
    let open = |more: &str| {
        let output = Command::new("timeout")
            .args(["120", browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"])
            .args(["--window-size=1200,4000", "--enable-logging=stderr", more])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("file://{}", page.display()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{browser} {more}: {}", text(&output.stderr));
        // What a page complains of itself; the browser's own complaints about its surroundings are its.
        assert!(!text(&output.stderr).contains(":CONSOLE"), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    // As the browser understood it, nothing was lost or nested where it was not.
    let source = fs::read_to_string(&page).unwrap();
    for told in ["Values per second", "10,000 × 4 KiB", "8.86 ms"] {
        assert!(source.contains(told), "{told} is missing");
    }
    let understood = open("--dump-dom");
    for tag in ["<svg", "<table", "<h2", "<details", "</section>"] {
        assert_eq!(understood.matches(tag).count(), source.matches(tag).count(), "{tag}");
    }
    let picture = directory.path().join("page.png");
    open(&format!("--screenshot={}", picture.display()));
    let bytes = fs::read(&picture).unwrap();
    assert!(bytes.starts_with(b"\x89PNG") && bytes[16..24] == [0, 0, 4, 176, 0, 0, 15, 160], "1200 × 4000 pixels");
    // An empty page of this size takes a few kB.
    assert!(bytes.len() > 100_000, "{} bytes", bytes.len());
    if let Some(kept) = std::env::var_os("RINGLOG_BENCH_PICTURE") {
        fs::copy(&picture, kept).unwrap();
    }
}

#[test]
fn tables_for_docs_hold_the_same_figures() {
    let directory = results();
    save(directory.path(), 2_000, Outcome::Compare(Box::new(compare())));
    save(directory.path(), 4_000, Outcome::Load(Box::new(load(1.0))));
    let output = report(&[directory.path(), Path::new("--markdown")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let markdown = text(&output.stdout);
    let is_code = |line: &str| line.starts_with('`');
    assert!(!markdown.lines().any(|line| line.contains("<script") && !is_code(line)), "{markdown}");
    assert!(markdown.contains("| MB/s | 100 |"), "{markdown}");
    assert!(markdown.contains("300 (270–330)") && markdown.contains("3.00 (2.50–3.50)"), "{markdown}");
    for line in markdown.lines().filter(|line| line.starts_with('|')) {
        assert!(line.ends_with('|'), "{line}");
    }
    assert!(!directory.path().join("report.html").exists());
    let to = directory.path().join("tables.md");
    let output = report(&[directory.path(), Path::new("--markdown"), Path::new("--to"), &to]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(fs::read_to_string(to).unwrap(), markdown);
}

#[test]
fn links_lead_back_from_another_directory() {
    let directory = results();
    let (inner, docs) = (directory.path().join("the results"), directory.path().join("docs"));
    fs::create_dir_all(&docs).unwrap();
    save(&inner, 1_000, Outcome::Machine);
    let output = report(&[&inner, Path::new("--to"), &docs.join("page.html")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let page = fs::read_to_string(docs.join("page.html")).unwrap();
    assert!(links(&page).contains(&"../the%20results/1000-machine.json".to_owned()), "{:?}", links(&page));
}

#[test]
fn what_is_no_result_is_refused_and_nothing_written() {
    let directory = results();
    let refused = |arguments: &[&Path], expected: &str| {
        let output = report(arguments);
        let said = text(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
        assert!(!directory.path().join("report.html").exists());
    };
    let path = directory.path();
    refused(&[path], "holds no run");
    refused(&[&path.join("none")], "No such file");
    let run = save(path, 1_000, Outcome::Machine);
    let to = Path::new("--to");
    refused(&[path, to, &path.join("none/report.html")], "none");
    refused(&[path, to, path], "directory");
    let whole = fs::read_to_string(&run).unwrap();
    fs::write(&run, whole.replace("\"format\": 1", "\"format\": 99")).unwrap();
    refused(&[path], "has format 99");
    fs::write(&run, &whole[..whole.len() / 2]).unwrap();
    refused(&[path], "is not a run of ringlog-bench");
    fs::write(&run, [0xff, 0xfe]).unwrap();
    refused(&[path], "1000-machine.json");
    let left: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["1000-machine.json"], "no partial report is left");
}

/// The command line behind a tmpfs of 64 KiB that nobody else sees, where this system lets us make one.
fn on_a_full_disk(directory: &Path, arguments: &[&str]) -> Option<Output> {
    let script = r#"mount -t tmpfs -o size=64k none "$1" || exit 99; cp "$2"/*.json "$1" || exit 99; shift 2; "$@"; status=$?
        ls -A "$TMPFS" >&2; exit $status"#;
    let small = directory.join("small");
    fs::create_dir_all(&small).unwrap();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .args([&small, directory])
        .arg(env!("CARGO_BIN_EXE_ringlog-bench"))
        .args(arguments)
        .env("TMPFS", &small)
        .output()
        .ok()?;
    if output.status.code() == Some(99) || text(&output.stderr).contains("unshare:") {
        return None;
    }
    Some(output)
}

fn skipped(what: &str) {
    // Written past the harness, which keeps what a test that passes prints.
    std::io::stderr().write_all(format!("SKIPPED: {what}\n").as_bytes()).unwrap();
}

#[test]
fn a_full_disk_leaves_no_half_a_report() {
    let directory = results();
    save(directory.path(), 1_000, Outcome::Compare(Box::new(compare())));
    let small = directory.path().join("small").display().to_string();
    let Some(output) = on_a_full_disk(directory.path(), &["report", &small]) else {
        return skipped("a full disk: no file system of our own can be mounted here");
    };
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("report.html: No space left on device"), "{said}");
    assert!(!said.lines().any(|line| line.starts_with("report.html")), "{said}");
}

#[test]
fn a_result_that_does_not_fit_leaves_nothing_half_done() {
    let directory = results();
    let run = save(directory.path(), 1_000, Outcome::Machine);
    let run = store::load(&run).unwrap();
    let beside = |name: &str| vec![("1000-load-produce.hlog".to_owned(), vec![1; 100]), (name.to_owned(), vec![2; 100])];
    let path = directory.path().join("out");
    // The second file cannot be written: its directory is not there.
    assert!(store::save_with(&path, &run, &beside("none/x.hlog")).unwrap_err().to_string().contains("none/x.hlog"));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "neither the first, nor the run");
    // It can be written, and its name is taken by a directory.
    fs::create_dir(path.join("taken")).unwrap();
    assert!(store::save_with(&path, &run, &beside("taken")).is_err());
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "what had its name already is gone again");
    store::save_with(&path, &run, &beside("1000-load-consume.hlog")).unwrap();
    assert_eq!(fs::read_dir(&path).unwrap().count(), 4);
}

#[test]
fn a_directory_without_rights_is_told() {
    let directory = results();
    save(directory.path(), 1_000, Outcome::Machine);
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog-bench"));
    if rustix::process::geteuid().is_root() {
        // Root may write everywhere: without that right of its.
        command = Command::new("setpriv");
        command.args(["--bounding-set=-dac_override", "--inh-caps=-dac_override", env!("CARGO_BIN_EXE_ringlog-bench")]);
    }
    let output = command.arg("report").arg(directory.path()).output().unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("report.html: Permission denied"), "{said}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}
