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
    // Topics of its own: the other test against the running broker is under way, too.
    for line in [
        "produce --verify --idempotent --partitions 3 --producers 2",
        "produce --verify --compression zstd --keys 100 --acks 1",
        "mixed --verify --partitions 4 --producers 2 --consumers 2 --threads 2",
        "end-to-end --rate 2000 --verify --linger 1ms",
    ] {
        let load = bench.run(address, &format!("{line} --topic sound --records 2000 --record-bytes 200 {options}")).ok();
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
    let consumed = bench.run(address, line).ok().consume.unwrap().latency.unwrap();
    assert!(consumed.count == 1000 && consumed.hlog.is_some(), "{consumed:?}");

    for client in ["librdkafka", "lean"] {
        // The lean client draws a partition for each batch: of 500 batches, the law of large numbers holds.
        let line = "--partitions 5 --records 5000 --batch-records 10 --record-bytes 20 --keys 100 --key-skew 1.2 --keep-topic";
        bench.run(address, &format!("produce --client {client} --topic keyed-{client} {line}")).ok();
        let keys = keys_of(address, &format!("keyed-{client}"), 5000);
        // By Zipf's law the first of 100 keys has 28 % of the records, 1390 with a standard deviation of 80; without it, it would be
        // 1 %. The last has 5 or 6, so that of all keys but a few are there. And a key has one partition.
        let most = keys.values().map(|partitions| partitions.iter().sum::<usize>()).max().unwrap();
        assert!((600..2400).contains(&most), "{client}: {most} of 5000");
        let strays = keys.values().filter(|partitions| partitions.iter().filter(|count| **count > 0).count() > 1).count();
        assert!((60..=100).contains(&keys.len()) && strays == 0, "{client}: {keys:?}");
    }
    for (line, readers) in [
        ("mixed --producers 2 --consumers 2", 1),
        ("mixed --consumers 2 --fan-out --keys 10", 2),
        ("end-to-end --rate 2000 --linger 1ms", 1),
        ("end-to-end --compression lz4 --keys 5 --key-skew 1", 1),
    ] {
        let line = format!(
            "{line} --topic driven --client librdkafka --partitions 4 --records 2000 --record-bytes 100 --fetch-wait 20ms"
        );
        let started = Instant::now();
        let load = bench.run(address, &line).ok();
        // Three digits of a latency are kept.
        let longest_us = started.elapsed().as_micros() as f64 * 1.001;
        let (produce, consume) = (load.produce.unwrap(), load.consume.unwrap());
        assert_eq!((produce.records, consume.records), (2000, 2000 * readers), "{line}");
        let latency = consume.latency.unwrap();
        assert_eq!(latency.count, 2000 * readers, "{line}");
        // A record cannot have arrived before it was sent, nor be older than the run.
        assert!((latency.max_us as f64) < longest_us && latency.p50_us > 0, "{latency:?}");
    }
    for line in [
        "produce --partitions 3 --producers 2",
        "produce --idempotent --compression lz4 --partitions 2 --acks all",
        "produce --keys 50 --acks 1 --batch-records 20",
        "mixed --partitions 4 --producers 2 --consumers 2",
        "mixed --consumers 2 --fan-out --keys 10 --compression gzip",
    ] {
        let verified = verified_by_c(&bench, address, line);
        let readers = if line.contains("fan-out") { 2 } else { 1 };
        assert_eq!(verified.acknowledged, 2000 * readers, "{line}: {verified:?}");
    }
    // What is sent to warm up is verified as well; who is stopped meanwhile sends less, or nothing: then there is a longer one.
    let warmed_up = |seconds: u64| {
        let line = format!("end-to-end --rate 2000 --linger 1ms --warm-up {seconds}s");
        let more = verified_by_c(&bench, address, &line).acknowledged - 2000;
        assert!(more <= 2000 * seconds, "{line}: {more}");
        more
    };
    assert!([1, 4, 16].into_iter().any(|seconds| warmed_up(seconds) > 0));
    // A later process, which reads back by itself.
    let log = bench.out.path().join("log");
    let line = format!("--client librdkafka --records 1500 --verify-log {}", log.display());
    bench.run(address, &format!("produce --topic kept-by-c --partitions 2 --record-bytes 100 {line}")).ok();
    bench.run(address, &format!("produce --topic kept-by-c --record-bytes 100 --idempotent {line}")).ok();
    let verified = bench.run(address, &format!("verify --verify-log {}", log.display())).ok().verify.unwrap();
    assert!(verified.is_sound() && (verified.acknowledged, verified.received) == (3000, 3000), "{verified:?}");
    // A warm-up that is not counted: what was to be sent after it is, however late it was.
    let line = "end-to-end --topic driven --client librdkafka --rate 1000 --warm-up 300ms --duration 500ms --record-bytes 100";
    assert_eq!(bench.run(address, line).ok().produce.unwrap().records, 500);
}

/// Drives 2000 records through librdkafka, or a few more to warm up, all of which come back.
#[cfg(feature = "librdkafka")]
fn verified_by_c(bench: &Bench, address: &str, line: &str) -> Verified {
    let line = format!("{line} --topic driven --client librdkafka --verify --records 2000 --record-bytes 100");
    let verified = bench.run(address, &line).ok().verify.unwrap();
    assert!(verified.is_sound() && verified.findings.is_empty(), "{line}: {verified:?}");
    assert_eq!(verified.received, verified.acknowledged, "{line}");
    verified
}

/// How many records each key has in each of five partitions, as librdkafka reads them.
#[cfg(feature = "librdkafka")]
fn keys_of(address: &str, topic: &str, records: usize) -> std::collections::BTreeMap<Vec<u8>, [usize; 5]> {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", address).set("group.id", "keys").create().unwrap();
    let mut wanted = TopicPartitionList::new();
    (0..5).for_each(|partition| wanted.add_partition_offset(topic, partition, Offset::Beginning).unwrap());
    consumer.assign(&wanted).unwrap();
    let mut keys = std::collections::BTreeMap::new();
    let until = Instant::now() + Duration::from_secs(180);
    let mut left = records;
    while left > 0 {
        assert!(Instant::now() < until, "{left} of {records} records do not come");
        // A connection that is lost is made again.
        let Some(Ok(message)) = consumer.poll(Duration::from_secs(1)) else { continue };
        left -= 1;
        assert_eq!(message.key().map(<[u8]>::len), Some(8));
        let of_key: &mut [usize; 5] = keys.entry(message.key().unwrap().to_vec()).or_default();
        of_key[message.partition() as usize] += 1;
    }
    keys
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
        "produce --rate 3000 --records 27000 --record-bytes 200 --partitions 3 --producers 2 --idempotent --verify --verify-log {}",
        log.display()
    );
    let mut command = bench.command(&broker.address, &line);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let acknowledged = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("\"acknowledged\":[["));
    while !acknowledged() {
        assert!(Instant::now() < until, "nothing is acknowledged");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(broker);
    let broker = Real::start(&binary, data.path(), Some(port), &[]);
    let load = ran(child.wait_with_output().unwrap()).ok();
    let verified = load.verify.unwrap();
    assert!(verified.is_sound() && verified.acknowledged == 27_000, "{verified:?}");
    assert!(load.produce.unwrap().errors.iter().any(|(name, _)| name == "connection lost"));
    let again = bench.run(&broker.address, &format!("verify --verify-log {}", log.display())).ok().verify.unwrap();
    assert!(again.is_sound() && again.acknowledged == 27_000, "{again:?}");
}

/// Producers and consumers, both over a broker that is killed and comes back.
#[test]
fn what_is_consumed_over_kill_9_is_what_was_acknowledged() {
    for options in ["--idempotent", "--in-flight 2"] {
        let Some(load) = over_kill_9(&format!("mixed --consumers 2 {options}")) else { return };
        for side in [load.produce.unwrap(), load.consume.unwrap()] {
            assert!(side.errors.iter().any(|(name, _)| name == "connection lost"), "{options}: {side:?}");
        }
    }
}

/// Runs a load that is verified, over a broker that is killed in its middle and comes back: it has to be sound. `None`: there is no
/// such broker.
pub(super) fn over_kill_9(line: &str) -> Option<Load> {
    let binary = ringlog()?;
    let data = tempfile::tempdir().unwrap();
    let broker = Real::start(&binary, data.path(), None, &[]);
    let port = broker.address.rsplit(':').next().unwrap().parse().unwrap();
    let bench = Bench::new();
    // Nine seconds' worth: the kill comes within the first ones, and in the middle of it though the one or the other stands still.
    let rest = "--rate 3000 --records 27000 --record-bytes 200 --partitions 3 --producers 2 --verify";
    let mut command = bench.command(&broker.address, &format!("{line} {rest}"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Once there is something to consume, everyone is connected.
    let until = Instant::now() + Duration::from_secs(60);
    while Bench::new().run(&broker.address, "consume --records 1").status != 0 {
        assert!(Instant::now() < until, "nothing is there");
    }
    drop(broker);
    let broker = Real::start(&binary, data.path(), Some(port), &[]);
    let load = ran(child.wait_with_output().unwrap()).ok();
    let verified = load.verify.as_ref().unwrap();
    assert!(verified.is_sound() && verified.acknowledged == 27_000, "{line}: {verified:?}");
    drop(broker);
    Some(load)
}
