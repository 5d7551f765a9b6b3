//! `ringlog-bench load` as a user runs it: the binary against a fake broker that fails in every way, and against the real one.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../fake/mod.rs"]
mod fake;
#[path = "../ran/mod.rs"]
mod ran;
mod real;
#[path = "../real_broker/mod.rs"]
mod real_broker;
mod results;
#[cfg(feature = "librdkafka")]
mod through_librdkafka;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fake::{Broker, Fault};
use ran::Ran;
use ringlog_bench::results::{Load, Outcome, Verified};
use ringlog_protocol::{ApiKey, ErrorCode};
use tempfile::TempDir;

/// How many records were found to be wrong in one way.
type Count = fn(&Verified) -> u64;

/// What a broker may do to the batch of a number, the last of thirty too, and what that is found to be.
const FAULTS: [(Fault, Count); 7] = [
    (Fault::Drop(5), |found| found.lost),
    (Fault::Drop(29), |found| found.lost),
    (Fault::Duplicate(5), |found| found.duplicated),
    (Fault::Reorder(5), |found| found.reordered),
    (Fault::Corrupt(5), |found| found.corrupted),
    (Fault::CorruptPlainly(5), |found| found.corrupted),
    (Fault::CorruptKey(5), |found| found.corrupted),
];

fn is_damage(fault: Fault) -> bool {
    matches!(fault, Fault::Corrupt(_) | Fault::CorruptPlainly(_) | Fault::CorruptKey(_))
}

fn faults(found: &Verified) -> u64 {
    found.lost + found.duplicated + found.reordered + found.corrupted + found.unknown
}

struct Bench {
    out: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { out: tempfile::tempdir().unwrap() }
    }

    fn command(&self, address: impl ToString, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog-bench"));
        command.arg("load").arg(words.next().unwrap()).args(["--bootstrap", &address.to_string()]).args(words);
        command.args(["--json", "--quiet", "--out"]).arg(self.out.path());
        command
    }

    fn run(&self, address: impl ToString, line: &str) -> Ran<Load> {
        ran(self.command(address, line).output().unwrap())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(self.out.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

fn ran(output: Output) -> Ran<Load> {
    Ran::new(output, |outcome| match outcome {
        Outcome::Load(load) => *load,
        other => panic!("{other:?}"),
    })
}

const SMALL: &str = "--records 300 --record-bytes 100 --batch-records 10";

#[test]
fn produce_counts_what_was_acknowledged_and_cleans_up() {
    let (bench, broker) = (Bench::new(), Broker::start(&[]));
    let load =
        bench.run(broker.address, "produce --records 1003 --batch-records 10 --partitions 3 --producers 2 --in-flight 3").ok();
    let produce = load.produce.unwrap();
    assert_eq!(produce.records, 1003);
    assert!(produce.bytes > 1_003_000 && produce.elapsed_s > 0.0 && produce.records_per_s > 0.0);
    let latency = produce.latency.unwrap();
    assert_eq!(latency.count, broker.produced() as u64);
    assert!(latency.p50_us <= latency.p99_us && latency.p99_us <= latency.max_us && !latency.curve.is_empty());
    assert_eq!(produce.seconds.iter().map(|second| second.records).sum::<u64>(), 1003);
    assert!(produce.errors.is_empty() && load.consume.is_none());
    assert!(broker.topics().is_empty());
    assert_eq!(broker.deleted(), ["ringlog-bench"]);
    let hlog = bench.out.path().join(latency.hlog.unwrap());
    assert!(std::fs::read_to_string(hlog).unwrap().contains("[BaseTime"));
    assert_eq!(bench.files().len(), 2);
}

#[test]
fn every_kind_of_producer_is_verified_sound() {
    for options in [
        "",
        "--idempotent",
        "--acks 1",
        "--compression gzip",
        "--compression snappy",
        "--compression lz4 --idempotent",
        "--compression zstd",
        "--keys 20 --key-skew 1.1",
        "--rate 5k --linger 2ms",
        "--batch-records 1 --in-flight 20",
        "--threads 3",
    ] {
        let (bench, broker) = (Bench::new(), Broker::start(&[]));
        let batch = if options.contains("--batch") { "" } else { "--batch-records 7" };
        let line = format!("produce --verify --records 500 --record-bytes 120 --partitions 4 --producers 3 {batch} {options}");
        let load = bench.run(broker.address, &line).ok();
        let verified = load.verify.unwrap();
        assert!(verified.is_sound() && verified.findings.is_empty(), "{options}: {verified:?}");
        assert_eq!((verified.acknowledged, verified.received), (500, 500), "{options}");
        assert_eq!(load.produce.unwrap().records, 500, "{options}");
    }
}

#[test]
fn the_warm_up_does_not_count() {
    // Who is stopped while it warms up sends less meanwhile, or nothing: then there is a longer one.
    let sent_in = |warm_up: &str| {
        let (bench, broker) = (Bench::new(), Broker::start(&[]));
        let line =
            format!("produce --rate 2000 --warm-up {warm_up} --records 200 --record-bytes 100 --batch-records 10 --keep-topic");
        let produce = bench.run(broker.address, &line).ok().produce.unwrap();
        assert_eq!((produce.records, produce.latency.unwrap().count), (200, 200));
        broker.records("ringlog-bench")
    };
    let sent: Vec<_> = ["300ms", "3s", "15s"].into_iter().map(sent_in).take_while(|sent| *sent < 700).collect();
    assert!(sent.len() < 3, "{sent:?}");
}

#[test]
fn a_topic_that_takes_its_time_is_waited_for() {
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::Slow(4)]));
    assert_eq!(bench.run(broker.address, &format!("produce {SMALL}")).ok().produce.unwrap().records, 300);
}

/// As on Kafka, whose brokers hear of a deletion after the controller has answered it: the next run found the old topic there.
#[test]
fn a_topic_is_gone_when_its_run_has_ended() {
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::SlowDeletion(4)]));
    for partitions in [3, 2] {
        let load = bench.run(broker.address, &format!("produce {SMALL} --partitions {partitions}")).ok();
        assert_eq!(load.produce.unwrap().records, 300);
    }
    assert!(broker.topics().is_empty());
}

#[test]
fn without_acknowledgements_records_are_sent() {
    let (bench, broker) = (Bench::new(), Broker::start(&[]));
    let load = bench.run(broker.address, &format!("produce {SMALL} --acks 0 --keep-topic")).ok();
    assert_eq!(load.produce.unwrap().records, 300);
    let until = Instant::now() + Duration::from_secs(60);
    while broker.records("ringlog-bench") < 300 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(broker.records("ringlog-bench"), 300);
}

#[test]
fn a_topic_may_have_more_partitions_than_a_broker_makes_at_once() {
    let (bench, broker) = (Bench::new(), Broker::start(&[]));
    let load = bench.run(broker.address, &format!("produce {SMALL} --partitions 12000 --keep-topic")).ok();
    assert_eq!(load.produce.unwrap().records, 300);
    assert_eq!(broker.partitions("ringlog-bench"), 12_000);
    let broker = Broker::start(&[Fault::Lacks(ApiKey::CreatePartitions)]);
    bench.run(broker.address, "produce --partitions 12000").failed(1, "CreatePartitions");
    assert!(broker.topics().is_empty(), "half a topic is left");
}

#[test]
fn consumers_read_what_is_there_once_or_again() {
    let (bench, broker) = (Bench::new(), Broker::start(&[]));
    bench.run(broker.address, "produce --keep-topic --topic t --records 900 --batch-records 9 --partitions 3").ok();
    let once = bench.run(broker.address, "consume --topic t --consumers 2 --fetch-bytes-max 20000").ok().consume.unwrap();
    assert_eq!(once.records, 900);
    assert!(once.latency.unwrap().count > 30);
    let all = bench.run(broker.address, "consume --topic t --consumers 2 --fan-out").ok().consume.unwrap();
    assert_eq!(all.records, 1800);
    let again = bench.run(broker.address, "consume --topic t --records 5000").ok().consume.unwrap();
    assert!(again.records >= 5000, "{}", again.records);
    assert_eq!(broker.topics(), ["t"]);
    bench.run(broker.address, "consume --topic t --consumers 4").failed(2, "--fan-out");
    bench.run(broker.address, "consume --topic nowhere").failed(2, "no topic nowhere");
    bench.run(broker.address, "produce --topic t --partitions 2").failed(2, "3 partitions");
    bench.run(broker.address, "produce --topic t --topic-config a=b").failed(2, "--topic-config");
    assert_eq!(broker.topics(), ["t"]);
}

#[test]
fn mixed_and_end_to_end_see_every_record() {
    for line in ["mixed --consumers 2", "mixed --consumers 2 --fan-out", "end-to-end", "end-to-end --rate 2000"] {
        let (bench, broker) = (Bench::new(), Broker::start(&[]));
        let line = format!(
            "{line} --records 600 --batch-records 5 --record-bytes 100 --partitions 2 --producers 2 --verify --fetch-wait 20ms"
        );
        let load = bench.run(broker.address, &line).ok();
        let (produce, consume) = (load.produce.unwrap(), load.consume.unwrap());
        let readers = if line.contains("fan-out") { 2 } else { 1 };
        assert_eq!((produce.records, consume.records), (600, 600 * readers), "{line}");
        let verified = load.verify.unwrap();
        assert!(verified.is_sound(), "{line}: {verified:?}");
        assert_eq!(verified.received, 600 * readers);
        let latency = consume.latency.unwrap();
        if line.starts_with("end-to-end") {
            assert_eq!(latency.count, 600);
        }
        assert!(broker.topics().is_empty());
    }
}

/// A stall is a bound from below: what was to be sent meanwhile waits at least for what is left of it.
#[test]
fn a_stall_shows_in_the_percentiles_of_an_open_loop() {
    let stall = Duration::from_millis(800);
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::Stall(100, stall)]));
    let line = "produce --rate 1000 --records 2000 --record-bytes 100 --batch-records 10 --in-flight 1";
    let load = bench.run(broker.address, line).ok();
    let produce = load.produce.unwrap();
    let latency = produce.latency.unwrap();
    assert_eq!(latency.count, 2000);
    // 800 of the 2000 records were to be sent in the stall, evenly: 10 % of all waited for more than 600 ms.
    assert!(latency.max_us >= 790_000 && latency.p99_9_us >= 780_000 && latency.p99_us >= 700_000, "{latency:?}");
    assert!(latency.p90_us >= 550_000, "{latency:?}");
    assert!(produce.seconds.iter().any(|second| second.max_us >= 790_000));

    // In a closed loop the stall is one request of many.
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::Stall(100, stall)]));
    let line = "produce --records 2000 --record-bytes 100 --batch-records 1 --in-flight 1";
    let closed = bench.run(broker.address, line).ok().produce.unwrap().latency.unwrap();
    assert!(closed.max_us >= 790_000 && closed.p99_us < latency.p99_us, "{closed:?}");
}

#[test]
fn what_a_rate_could_not_send_in_time_is_sent_late_not_forgotten() {
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::Stall(3, Duration::from_millis(700))]));
    let line = "produce --rate 1000 --duration 500ms --record-bytes 100 --batch-records 10 --in-flight 1";
    let produce = bench.run(broker.address, line).ok().produce.unwrap();
    assert_eq!(produce.records, 500);
    assert!(produce.latency.unwrap().p50_us > 200_000);
}

#[test]
fn verify_catches_each_fault_of_a_broker() {
    for (fault, count) in FAULTS {
        for line in ["produce", "mixed --fetch-wait 20ms"] {
            let (bench, broker) = (Bench::new(), Broker::start(&[fault]));
            let ran = bench.run(broker.address, &format!("{line} {SMALL} --keys 1000 --verify"));
            assert_eq!(ran.status, 1, "{fault:?} {line} {}", ran.stderr);
            let found = ran.measured.unwrap().verify.unwrap();
            let expected = if is_damage(fault) { 1 } else { 10 };
            assert_eq!(count(&found), expected, "{fault:?} {line}: {found:?}");
            assert_eq!(faults(&found), expected, "{fault:?} {line}: {found:?}");
            assert!(!found.findings.is_empty());
            assert!(broker.topics().is_empty());
        }
    }
}

#[test]
fn records_that_are_said_to_be_there_and_never_come_are_lost() {
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::FetchNothing]));
    let ran = bench.run(broker.address, &format!("produce {SMALL} --verify --timeout 10s"));
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    let found = ran.measured.unwrap().verify.unwrap();
    assert!(found.acknowledged > 0 && found.lost == found.acknowledged, "{found:?}");
}

#[test]
fn a_broker_that_fails_ends_the_run_in_one_line() {
    for (fault, words) in [
        (Fault::Close(3), "closes the connection"),
        (Fault::CloseStored(0), "closes the connection"),
        (Fault::Refuse(4, ErrorCode::KAFKA_STORAGE_ERROR), "KAFKA_STORAGE_ERROR"),
        (Fault::Refuse(0, ErrorCode::MESSAGE_TOO_LARGE), "MESSAGE_TOO_LARGE"),
        (Fault::HugeFrame(u32::MAX), "a frame of -1 bytes"),
        (Fault::HugeFrame(i32::MAX as u32), "a frame of 2147483647 bytes"),
        (Fault::WrongCorrelation, "it answers request"),
        (Fault::NoCreation(ErrorCode::POLICY_VIOLATION), "POLICY_VIOLATION"),
        (Fault::LeaderAt("192.0.2.7"), "--allow-remote"),
        (Fault::Silent, "has not answered Produce"),
    ] {
        let (bench, broker) = (Bench::new(), Broker::start(&[fault]));
        let started = Instant::now();
        bench.run(broker.address, &format!("produce {SMALL} --timeout 10s --retry-for 0s")).failed(1, words);
        assert!(started.elapsed() < Duration::from_secs(60), "{fault:?}");
        assert!(bench.files().is_empty(), "{fault:?}: {:?}", bench.files());
        assert!(broker.topics().is_empty(), "{fault:?}");
    }
    for (fault, words) in [
        (Fault::FetchTwice, "offsets 0 to 9 where 10"),
        (Fault::FetchStranger, "was not asked for"),
        (Fault::FetchError(ErrorCode::CORRUPT_MESSAGE), "CORRUPT_MESSAGE"),
        (Fault::FetchNothing, "no record below the end"),
    ] {
        let (bench, broker) = (Bench::new(), Broker::start(&[]));
        bench.run(broker.address, &format!("produce {SMALL} --keep-topic")).ok();
        broker.set_faults(&[fault]);
        bench.run(broker.address, "consume --timeout 10s").failed(1, words);
    }
}

#[test]
fn who_is_no_kafka_broker_is_told_so() {
    let bench = Bench::new();
    // Each answer that makes no sense, and each request that a broker does not have.
    use ApiKey::{CreateTopics, Fetch, InitProducerId, ListOffsets, Metadata, Produce};
    for api in [Metadata, CreateTopics, ListOffsets, InitProducerId, Produce, Fetch] {
        for (fault, words) in [
            (Fault::Garbage(api), format!("answers {api} with what is no answer to it")),
            (Fault::Lacks(api), format!("has no {api}")),
        ] {
            let broker = Broker::start(&[fault]);
            let line = format!("mixed {SMALL} --idempotent --retry-for 0s --fetch-wait 20ms");
            bench.run(broker.address, &line).failed(1, &words);
            assert!(broker.topics().is_empty(), "{fault:?}: {:?}", broker.topics());
            assert!(bench.files().is_empty(), "{fault:?}: {:?}", bench.files());
        }
    }
    let address = format!("127.0.0.1:{}", real_broker::free_port());
    bench.run(&address, "produce").failed(1, "no broker at");
    bench.run("192.0.2.1:9092", "produce").failed(2, "--allow-remote");
    bench.run("127.0.0.1", "produce").failed(2, "--bootstrap");
    for (answer, words) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "does not answer as a Kafka broker"),
        (b"\0\0\0\x04\0\0\0\x09", "does not answer as a Kafka broker"),
        (b"\0\0\0\x06\0\0\0\0\0\0", "does not answer as a Kafka broker"),
        (b"", "does not answer as a Kafka broker"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer);
            }
        });
        bench.run(address, "produce").failed(1, words);
    }
    if cfg!(not(feature = "librdkafka")) {
        bench.run(&address, "produce --client librdkafka").failed(2, "--features librdkafka");
    }
    // One that takes the connection and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    bench.run(listener.local_addr().unwrap(), "consume --timeout 300ms").failed(1, "says nothing");
    bench.run("127.0.0.1:9", "produce --pid 4294967295").failed(2, "--pid");
    let missing = bench.out.path().join("none");
    bench.run("127.0.0.1:9", &format!("verify --verify-log {}", missing.display())).failed(1, "none");
    assert!(bench.files().is_empty());
}

#[test]
fn what_was_not_acknowledged_is_sent_again_in_order() {
    // Kafka's two minutes, where nothing else is said.
    let retry = "--verify";
    for (faults, options, repeated) in [
        (&[Fault::Close(7), Fault::Close(8), Fault::Close(20)][..], "", 0..=0),
        // Stored and not acknowledged: there twice, and rightly so.
        (&[Fault::CloseStored(7)], "--in-flight 1", 10..=10),
        (
            &[Fault::Refuse(7, ErrorCode::NOT_LEADER_OR_FOLLOWER), Fault::Refuse(8, ErrorCode::KAFKA_STORAGE_ERROR)],
            "--in-flight 1",
            0..=0,
        ),
    ] {
        let (bench, broker) = (Bench::new(), Broker::start(faults));
        let load = bench.run(broker.address, &format!("produce {SMALL} {retry} {options}")).ok();
        let verified = load.verify.unwrap();
        assert!(verified.is_sound(), "{faults:?}: {verified:?}");
        assert!(repeated.contains(&verified.duplicated_by_retry), "{faults:?}: {verified:?}");
        let produce = load.produce.unwrap();
        assert_eq!(produce.records, 300);
        assert!(!produce.errors.is_empty(), "{faults:?}");
    }
    // What was sent between is before it, unless the producer is idempotent and the broker holds that back.
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::Refuse(7, ErrorCode::NOT_LEADER_OR_FOLLOWER)]));
    let verified = bench.run(broker.address, &format!("produce {SMALL} {retry} --in-flight 5")).ok().verify.unwrap();
    assert!(verified.is_sound(), "{verified:?}");
    // In time, and not for ever.
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::RefuseFrom(3, ErrorCode::KAFKA_STORAGE_ERROR)]));
    bench.run(broker.address, &format!("produce {SMALL} --retry-for 400ms")).failed(1, "KAFKA_STORAGE_ERROR");
    // Some errors do not pass.
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::Refuse(3, ErrorCode::RECORD_LIST_TOO_LARGE)]));
    let started = Instant::now();
    bench.run(broker.address, &format!("produce {SMALL}")).failed(1, "RECORD_LIST_TOO_LARGE");
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn consumers_go_on_where_they_were() {
    let faults = [
        Fault::FetchClose(0),
        Fault::FetchClose(4),
        Fault::FetchErrorOnce(7, ErrorCode::NOT_LEADER_OR_FOLLOWER),
        Fault::FetchErrorOnce(8, ErrorCode::NOT_LEADER_OR_FOLLOWER),
        Fault::FetchClose(11),
    ];
    let (bench, broker) = (Bench::new(), Broker::start(&[]));
    let line = "produce --keep-topic --topic t --records 900 --batch-records 9 --record-bytes 100 --partitions 3";
    bench.run(broker.address, line).ok();
    broker.set_faults(&faults);
    let consume = bench.run(broker.address, "consume --topic t --fetch-bytes-max 3000").ok().consume.unwrap();
    assert_eq!(consume.records, 900);
    assert_eq!(consume.errors, [("NOT_LEADER_OR_FOLLOWER".to_owned(), 2), ("connection lost".to_owned(), 3)]);

    let (bench, broker) = (Bench::new(), Broker::start(&faults));
    let line = format!("mixed {SMALL} --in-flight 1 --fetch-wait 20ms --verify --consumers 2 --partitions 2");
    let load = bench.run(broker.address, &line).ok();
    let verified = load.verify.unwrap();
    assert!(verified.is_sound() && verified.received == 300, "{verified:?}");
    assert!(!load.consume.unwrap().errors.is_empty());

    // What does not pass, and what does not pass in time.
    broker.set_faults(&[Fault::FetchError(ErrorCode::NOT_LEADER_OR_FOLLOWER)]);
    bench.run(broker.address, &format!("produce {SMALL} --topic t --keep-topic")).ok();
    bench.run(broker.address, "consume --topic t --retry-for 300ms").failed(1, "NOT_LEADER_OR_FOLLOWER");
    broker.set_faults(&[Fault::FetchError(ErrorCode::OFFSET_OUT_OF_RANGE)]);
    bench.run(broker.address, "consume --topic t").failed(1, "OFFSET_OUT_OF_RANGE");
}

#[test]
fn a_broker_that_is_away_for_a_while_is_waited_for() {
    let long = Duration::from_secs(3600);
    for line in ["produce", "mixed --fetch-wait 20ms"] {
        let (bench, broker) = (Bench::new(), Broker::start(&[Fault::Away(10, long)]));
        let mut command = bench.command(broker.address, &format!("{line} {SMALL} --idempotent --verify"));
        // Not quiet: whoever looks is told.
        let words: Vec<_> = command.get_args().filter(|word| *word != "--quiet").map(ToOwned::to_owned).collect();
        command = Command::new(command.get_program());
        let mut child = command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It is back only after somebody was told, and a second more.
        let mut told = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        told.read_line(&mut first).unwrap();
        assert!(first.contains("closes the connection") && first.contains("; trying again for up to 120s"), "{first}");
        std::thread::sleep(Duration::from_secs(1));
        broker.set_faults(&[]);
        let mut output = child.wait_with_output().unwrap();
        told.read_to_end(&mut output.stderr).unwrap();
        let ran = ran(output);
        assert!(ran.stderr.contains("all are connected again after "), "{}", ran.stderr);
        let load = ran.ok();
        let verified = load.verify.unwrap();
        assert!(verified.is_sound() && verified.acknowledged == 300 && verified.received == 300, "{line}: {verified:?}");
        let produce = load.produce.unwrap();
        assert!(produce.elapsed_s >= 0.9 && produce.errors.iter().any(|(name, _)| name == "connection lost"), "{produce:?}");
    }
    // For ever is too long, and Ctrl-C does not wait.
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::Away(10, long)]));
    let ran_out = bench.run(broker.address, &format!("produce {SMALL} --retry-for 500ms"));
    assert!(ran_out.status == 1 && ran_out.measured.is_none(), "{}", ran_out.stderr);
    assert!(ran_out.stderr.contains("does not answer as a Kafka broker"), "{}", ran_out.stderr);
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::Away(10, long)]));
    let mut command = bench.command(broker.address, "produce --record-bytes 100 --duration 10min");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&broker, 10);
    let started = Instant::now();
    signal(&child, "-INT");
    assert_eq!(ran(child.wait_with_output().unwrap()).status, 130);
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_run_that_fails_tells_what_became_of_what_was_acknowledged() {
    let refuse = Fault::Refuse(9, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    let line = format!("produce {SMALL} --verify --in-flight 1");
    let (bench, broker) = (Bench::new(), Broker::start(&[refuse]));
    bench.run(broker.address, &line).failed(1, "of the 90 records acknowledged before none is lost or wrong");
    let (bench, broker) = (Bench::new(), Broker::start(&[refuse, Fault::Drop(4)]));
    bench.run(broker.address, &line).failed(1, "OUT_OF_ORDER_SEQUENCE_NUMBER; of 90 acknowledged records 10 were lost");
}

#[test]
fn a_later_process_verifies_several_runs() {
    let (bench, broker) = (Bench::new(), Broker::start(&[]));
    let log = bench.out.path().join("log");
    let log = log.to_str().unwrap();
    for partitions in ["--partitions 2", ""] {
        bench.run(broker.address, &format!("produce {SMALL} {partitions} --producers 2 --verify-log {log}")).ok();
    }
    let verified = bench.run(broker.address, &format!("verify --verify-log {log}")).ok().verify.unwrap();
    assert_eq!((verified.acknowledged, verified.received), (600, 600));
    assert_eq!(broker.topics(), ["ringlog-bench"]);
    broker.lose_tails();
    let ran = bench.run(broker.address, &format!("verify --verify-log {log}"));
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert_eq!(ran.measured.unwrap().verify.unwrap().lost, 20);
    bench.run(broker.address, &format!("produce {SMALL} --topic other --verify-log {log}")).failed(2, "is of topic");
    std::fs::write(log, "{}").unwrap();
    bench.run(broker.address, &format!("verify --verify-log {log}")).failed(2, "is no verify log");
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

fn wait_for(broker: &Broker, batches: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    while broker.produced() < batches {
        assert!(Instant::now() < until, "{} of {batches} batches", broker.produced());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_generator_that_stood_still_says_so() {
    let (bench, broker) = (Bench::new(), Broker::start(&[]));
    // It goes on until it is told to end, so that it is under way whenever it is stopped.
    let mut command = bench.command(broker.address, "produce --rate 1000 --duration 10min --record-bytes 100 --batch-records 10");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&broker, 20);
    signal(&child, "-STOP");
    std::thread::sleep(Duration::from_millis(400));
    let sent = broker.produced();
    signal(&child, "-CONT");
    // What was due meanwhile comes in 40 batches, and these are answered.
    wait_for(&broker, sent + 60);
    signal(&child, "-INT");
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!(ran.status, 130, "{}", ran.stderr);
    let load = ran.measured.unwrap();
    assert!(load.generator_bound.unwrap().contains("began more than 1 ms late"));
    assert!(load.produce.unwrap().latency.unwrap().max_us >= 390_000);
}

#[test]
fn ctrl_c_reports_what_was_measured_and_removes_the_topic() {
    for line in [
        "produce --rate 500 --record-bytes 100",
        "mixed --record-bytes 100 --in-flight 1 --fetch-wait 20ms",
        "produce --record-bytes 100",
    ] {
        let (bench, broker) = (Bench::new(), Broker::start(&[]));
        let mut command = bench.command(broker.address, &format!("{line} --duration 10min"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // More than the 20 that have to be counted: those under way may not be answered in the time they have.
        wait_for(&broker, 40);
        signal(&child, "-INT");
        let ran = ran(child.wait_with_output().unwrap());
        assert_eq!(ran.status, 130, "{line}: {}", ran.stderr);
        let produce = ran.measured.unwrap().produce.unwrap();
        assert!(produce.records >= 20 && produce.latency.is_some(), "{line}: {produce:?}");
        assert!(broker.topics().is_empty(), "{line}");
        assert_eq!(broker.deleted(), ["ringlog-bench"]);
    }
}

#[test]
fn ctrl_c_ends_a_run_against_a_silent_broker() {
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::Silent]));
    let mut command = bench.command(broker.address, "produce --record-bytes 100 --duration 10min --timeout 10min");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&broker, 1);
    signal(&child, "-INT");
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!(ran.status, 130, "{}", ran.stderr);
    assert_eq!(ran.measured.unwrap().produce.unwrap().records, 0);
    assert!(broker.topics().is_empty());
}
