//! The generator against real brokers: ours, and any that runs already.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::real_broker::{Real, ringlog, skipped};
use super::*;

#[test]
fn the_real_broker_is_sound() {
    let Some(binary) = ringlog() else { return };
    let data = tempfile::tempdir().unwrap();
    let broker = Real::start(&binary, data.path(), None, &[]);
    is_sound(&broker.address, &format!("--pid {}", broker.child.id()));
}

/// Any broker that runs already, of whatever make; `scripts/test load` starts a Kafka for it.
#[test]
fn the_running_broker_is_sound() {
    match std::env::var("BOOTSTRAP") {
        Ok(address) => is_sound(&address, ""),
        Err(_) => skipped("BOOTSTRAP names no running broker; `scripts/test load` starts a Kafka"),
    }
}

/// Drives a broker in every way, and reads back what it acknowledged.
fn is_sound(address: &str, options: &str) {
    let bench = Bench::new();
    for line in [
        "produce --verify --idempotent --partitions 3 --producers 2",
        "produce --verify --compression zstd --keys 100 --acks 1",
        "mixed --verify --partitions 4 --producers 2 --consumers 2 --threads 2",
        "end-to-end --rate 2000 --verify --linger 1ms",
    ] {
        let load = bench.run(address, &format!("{line} --records 2000 --record-bytes 200 {options}")).ok();
        let verified = load.verify.unwrap();
        assert!(verified.is_sound(), "{line}: {verified:?}");
        assert_eq!((verified.acknowledged, verified.received), (2000, 2000), "{line}");
        assert_eq!(load.broker.is_some_and(|used| used.rss_bytes > 0), !options.is_empty(), "{line}");
    }
    // A later process, and consumers alone.
    let log = bench.out.path().join("log");
    let line = format!("produce --topic kept --partitions 2 --records 2000 --compression lz4 --verify-log {}", log.display());
    bench.run(address, &line).ok();
    let verified = bench.run(address, &format!("verify --verify-log {}", log.display())).ok().verify.unwrap();
    assert!(verified.is_sound() && verified.acknowledged == 2000, "{verified:?}");
    assert_eq!(bench.run(address, "consume --topic kept --consumers 2").ok().consume.unwrap().records, 2000);
}

#[cfg(feature = "librdkafka")]
#[test]
fn librdkafka_drives_the_real_broker() {
    let Some(binary) = ringlog() else { return };
    let data = tempfile::tempdir().unwrap();
    let broker = Real::start(&binary, data.path(), None, &[]);
    librdkafka_drives(&broker.address);
}

#[cfg(feature = "librdkafka")]
#[test]
fn librdkafka_drives_the_running_broker() {
    match std::env::var("BOOTSTRAP") {
        Ok(address) => librdkafka_drives(&address),
        Err(_) => skipped("BOOTSTRAP names no running broker; `scripts/test load` starts a Kafka"),
    }
}

#[cfg(feature = "librdkafka")]
fn librdkafka_drives(address: &str) {
    let bench = Bench::new();
    for options in ["--batch-records 50", "--rate 2000 --linger 1ms", "--idempotent --compression lz4 --batch-bytes 64KiB"] {
        let line = format!(
            "produce --topic by-c --client librdkafka --partitions 3 --producers 2 --records 2000 --record-bytes 100 {options}"
        );
        let produce = bench.run(address, &line).ok().produce.unwrap();
        assert_eq!((produce.records, produce.latency.unwrap().count), (2000, 2000), "{options}");
    }
    bench.run(address, "produce --client librdkafka --records 1000 --partitions 2 --keep-topic --topic through-c").ok();
    let line = "consume --client librdkafka --topic through-c --consumers 2";
    assert_eq!(bench.run(address, line).ok().consume.unwrap().records, 1000);
    assert!(bench.run(address, &format!("{line} --records 2500")).ok().consume.unwrap().records >= 2500);
    bench.run(address, "produce --client librdkafka --verify").failed(2, "--client lean");
}

#[test]
fn what_the_real_broker_acknowledged_survives_kill_9() {
    let Some(binary) = ringlog() else { return };
    let data = tempfile::tempdir().unwrap();
    let broker = Real::start(&binary, data.path(), None, &[]);
    let port = broker.address.rsplit(':').next().unwrap().parse().unwrap();
    let bench = Bench::new();
    let log = bench.out.path().join("log");
    let line = format!(
        "produce --rate 3000 --duration 4s --record-bytes 200 --partitions 3 --producers 2 --idempotent --retry-for 30s --verify --verify-log {}",
        log.display()
    );
    let mut command = bench.command(&broker.address, &line);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    let acknowledged = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("\"acknowledged\":[["));
    while !acknowledged() {
        assert!(Instant::now() < until, "nothing is acknowledged");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(broker);
    let broker = Real::start(&binary, data.path(), Some(port), &[]);
    let load = ran(child.wait_with_output().unwrap()).ok();
    let verified = load.verify.unwrap();
    assert!(verified.is_sound() && verified.acknowledged == 12_000, "{verified:?}");
    assert!(load.produce.unwrap().errors.iter().any(|(name, _)| name == "connection lost"));
    let again = bench.run(&broker.address, &format!("verify --verify-log {}", log.display())).ok().verify.unwrap();
    assert!(again.is_sound() && again.acknowledged == 12_000, "{again:?}");
}

/// Producers and consumers, both over a broker that is killed and comes back.
#[test]
fn what_is_consumed_over_kill_9_is_what_was_acknowledged() {
    let Some(binary) = ringlog() else { return };
    for options in ["--idempotent", "--in-flight 2"] {
        let data = tempfile::tempdir().unwrap();
        let broker = Real::start(&binary, data.path(), None, &[]);
        let port = broker.address.rsplit(':').next().unwrap().parse().unwrap();
        let bench = Bench::new();
        let line = "mixed --rate 3000 --records 9000 --record-bytes 200 --partitions 3 --producers 2 --consumers 2 --verify";
        let mut command = bench.command(&broker.address, &format!("{line} {options}"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Once there is something to consume, everyone is connected.
        let until = Instant::now() + Duration::from_secs(30);
        while Bench::new().run(&broker.address, "consume --records 1").status != 0 {
            assert!(Instant::now() < until, "nothing is there");
        }
        drop(broker);
        let broker = Real::start(&binary, data.path(), Some(port), &[]);
        let load = ran(child.wait_with_output().unwrap()).ok();
        let verified = load.verify.unwrap();
        assert!(verified.is_sound() && verified.acknowledged == 9000, "{options}: {verified:?}");
        for side in [load.produce.unwrap(), load.consume.unwrap()] {
            assert!(side.errors.iter().any(|(name, _)| name == "connection lost"), "{options}: {side:?}");
        }
        drop(broker);
    }
}
