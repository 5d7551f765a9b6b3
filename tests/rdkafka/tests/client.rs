//! librdkafka's Rust binding against the broker at `BOOTSTRAP`: delivery callbacks, every codec and acks, idempotence,
//! assign and seek, timestamps, watermarks, admin.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(60);

fn bootstrap() -> String {
    std::env::var("BOOTSTRAP").expect("BOOTSTRAP names no running broker")
}

fn config(pairs: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap());
    for (name, value) in pairs {
        config.set(*name, *value);
    }
    config
}

/// Waits for an admin operation: no runtime of its own is wanted for that.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn admin() -> AdminClient<DefaultClientContext> {
    config(&[]).create().unwrap()
}

fn topic(partitions: i32, configs: &[(&str, &str)]) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("rust-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
    for (name, value) in configs {
        new = new.set(name, value);
    }
    let admin = admin();
    for result in wait(admin.create_topics([&new], &AdminOptions::new().operation_timeout(Some(TIMEOUT)))).unwrap() {
        result.unwrap();
    }
    wait_for_partitions(&name, partitions);
    name
}

fn wait_for_partitions(name: &str, partitions: i32) {
    let admin = admin();
    for _ in 0..600 {
        let metadata = admin.inner().fetch_metadata(Some(name), TIMEOUT).unwrap();
        let topic = &metadata.topics()[0];
        if topic.error().is_none() && topic.partitions().iter().filter(|p| p.leader() >= 0).count() == partitions as usize {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{name} has no {partitions} partitions");
}

type Report = Result<(String, i32, i64, usize), (RDKafkaErrorCode, usize)>;

/// Keeps every delivery report: where the record with this number went, or why it went nowhere.
#[derive(Default)]
struct Reports(Mutex<Vec<Report>>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        let report = match result {
            Ok(m) => Ok((m.topic().to_owned(), m.partition(), m.offset(), *number)),
            Err((e, _)) => Err((e.rdkafka_error_code().unwrap(), *number)),
        };
        self.0.lock().unwrap().push(report);
    }
}

struct Sent<'a> {
    partition: i32,
    key: Option<&'a [u8]>,
    value: Option<Vec<u8>>,
    headers: Option<OwnedHeaders>,
    timestamp: Option<i64>,
}

fn value(partition: i32, value: impl Into<Vec<u8>>) -> Sent<'static> {
    Sent { partition, key: None, value: Some(value.into()), headers: None, timestamp: None }
}

fn produce(topic: &str, records: &[Sent<'_>], configs: &[(&str, &str)]) -> Vec<Report> {
    let producer: BaseProducer<Reports> = config(configs).create_with_context(Reports::default()).unwrap();
    for (number, sent) in records.iter().enumerate() {
        loop {
            let mut record =
                BaseRecord::<[u8], [u8], Box<usize>>::with_opaque_to(topic, Box::new(number)).partition(sent.partition);
            record.key = sent.key;
            record.payload = sent.value.as_deref();
            record.headers = sent.headers.clone();
            record.timestamp = sent.timestamp;
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => producer.poll(Duration::from_millis(10)),
                Err((e, _)) => panic!("{e}"),
            };
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(TIMEOUT).unwrap();
    let reports = std::mem::take(&mut *producer.context().0.lock().unwrap());
    assert_eq!(reports.len(), records.len());
    reports
}

fn consumer() -> BaseConsumer {
    config(&[
        ("group.id", "unused"),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "error"),
        ("enable.partition.eof", "true"),
    ])
    .create()
    .unwrap()
}

/// All messages of a partition from `offset` to its end.
fn read(topic: &str, partition: i32, offset: Offset) -> Vec<OwnedMessage> {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure};
    let consumer = consumer();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, offset).unwrap();
    consumer.assign(&assignment).unwrap();
    let mut messages = Vec::new();
    loop {
        match consumer.poll(TIMEOUT).expect("nothing came") {
            Ok(message) => messages.push(message.detach()),
            Err(KafkaError::PartitionEOF(_)) => return messages,
            // A connection that is lost is made again.
            Err(e) if matches!(e.rdkafka_error_code(), Some(BrokerTransportFailure | AllBrokersDown)) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn callbacks_get_topic_partition_and_offset() {
    let topic = topic(3, &[]);
    let records: Vec<_> = (0..300).map(|n| value(n % 3, format!("v{n}"))).collect();
    let mut next = HashMap::new();
    for report in produce(&topic, &records, &[]) {
        let (name, partition, offset, number) = report.unwrap();
        assert_eq!((name.as_str(), partition), (topic.as_str(), number as i32 % 3));
        let expected = next.entry(partition).or_insert(0);
        assert_eq!(offset, *expected);
        *expected += 1;
    }
    for partition in 0..3 {
        let values: Vec<_> = read(&topic, partition, Offset::Beginning).iter().map(|m| m.payload().unwrap().to_vec()).collect();
        let expected: Vec<_> = (partition..300).step_by(3).map(|n| format!("v{n}").into_bytes()).collect();
        assert_eq!(values, expected);
    }
}

#[test]
fn keys_values_headers_and_timestamps_come_back() {
    let topic = topic(1, &[]);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "a", value: Some("1") })
        .insert(Header { key: "a", value: Some("") })
        .insert(Header { key: "null", value: None::<&str> });
    let now = 1_000 * std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    let records = [
        Sent { partition: 0, key: None, value: None, headers: None, timestamp: Some(now) },
        Sent { partition: 0, key: Some(b""), value: Some(Vec::new()), headers: None, timestamp: Some(now + 1) },
        Sent {
            partition: 0,
            key: Some(b"key"),
            value: Some(b"value".to_vec()),
            headers: Some(headers),
            timestamp: Some(now - 5000),
        },
    ];
    produce(&topic, &records, &[]).into_iter().for_each(|r| assert!(r.is_ok()));
    let messages = read(&topic, 0, Offset::Beginning);
    assert_eq!(messages.len(), 3);
    for (message, sent) in messages.iter().zip(&records) {
        assert_eq!(message.key(), sent.key);
        assert_eq!(message.payload(), sent.value.as_deref());
        assert_eq!(message.timestamp().to_millis(), sent.timestamp);
    }
    let found: Vec<_> = messages[2].headers().unwrap().iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect();
    assert_eq!(found, [("a".to_owned(), Some(b"1".to_vec())), ("a".to_owned(), Some(Vec::new())), ("null".to_owned(), None)]);
}

#[test]
fn every_codec_acks_and_idempotence() {
    let values: Vec<Vec<u8>> = (0..1000usize).map(|n| (0..n).map(|i| (i * n % 251) as u8).collect()).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for (acks, idempotent) in [("0", "false"), ("1", "false"), ("all", "false"), ("all", "true")] {
            let topic = topic(1, &[]);
            let records: Vec<_> = values.iter().map(|v| value(0, v.clone())).collect();
            let configs = [("compression.type", codec), ("acks", acks), ("enable.idempotence", idempotent), ("linger.ms", "20")];
            for (number, report) in produce(&topic, &records, &configs).into_iter().enumerate() {
                let (_, _, offset, sent) = report.unwrap();
                assert_eq!(sent, number);
                assert!(offset == number as i64 || acks == "0", "{offset} is not {number}");
            }
            let mut stored = read(&topic, 0, Offset::Beginning);
            while stored.len() < 1000 {
                stored.extend(read(&topic, 0, Offset::Offset(stored.len() as i64))); // acks=0 says nothing of when
            }
            assert!(stored.iter().zip(&values).all(|(m, v)| m.payload() == Some(v)), "{codec} acks={acks}");
        }
    }
}

#[test]
fn seek_by_offset_and_by_time() {
    let topic = topic(1, &[]);
    let base = 1_000 * std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64 - 100_000;
    let records: Vec<_> = (0..1000).map(|n| Sent { timestamp: Some(base + 10 * n), ..value(0, format!("{n}")) }).collect();
    produce(&topic, &records, &[("linger.ms", "50")]);
    let consumer = consumer();
    assert_eq!(consumer.fetch_watermarks(&topic, 0, TIMEOUT).unwrap(), (0, 1000));
    for (time, expected) in [
        (base - 1, Offset::Offset(0)),
        (base + 1234, Offset::Offset(124)),
        (base + 9990, Offset::Offset(999)),
        (base + 9991, Offset::End),
    ] {
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(&topic, 0, Offset::Offset(time)).unwrap();
        let found = consumer.offsets_for_times(times, TIMEOUT).unwrap();
        assert_eq!(found.elements()[0].offset(), expected, "at {time}");
    }
    assert_eq!(read(&topic, 0, Offset::Offset(777))[0].payload(), Some(&b"777"[..]));
    assert_eq!(read(&topic, 0, Offset::OffsetTail(2)).len(), 2);
    assert!(read(&topic, 0, Offset::End).is_empty());
}

#[test]
fn a_record_over_max_message_bytes() {
    let topic = topic(1, &[("max.message.bytes", "10000")]);
    let reports = produce(
        &topic,
        &[value(0, vec![7; 9900]), value(0, vec![7; 10_000]), value(0, vec![7; 10])],
        &[("batch.num.messages", "1")],
    );
    let results: Vec<_> = reports.iter().map(|r| r.as_ref().map(|ok| ok.2).map_err(|e| e.0)).collect();
    assert_eq!(results, [Ok(0), Err(RDKafkaErrorCode::MessageSizeTooLarge), Ok(1)]);
}

#[test]
fn topics_partitions_and_configs() {
    let name = topic(1, &[("retention.ms", "1000000")]);
    let (admin, options) = (admin(), AdminOptions::new().operation_timeout(Some(TIMEOUT)));
    let created = wait(admin.create_topics([&NewTopic::new(&name, 1, TopicReplication::Fixed(1))], &options)).unwrap();
    assert_eq!(created, [Err((name.clone(), RDKafkaErrorCode::TopicAlreadyExists))]);
    assert_eq!(wait(admin.create_partitions([&NewPartitions::new(&name, 4)], &options)).unwrap(), [Ok(name.clone())]);
    wait_for_partitions(&name, 4);

    let specifier = ResourceSpecifier::Topic(&name);
    let described = wait(admin.describe_configs([&specifier], &options)).unwrap().remove(0).unwrap();
    assert_eq!(described.get("retention.ms").unwrap().value.as_deref(), Some("1000000"));
    let altered = AlterConfig::new(specifier).set("retention.ms", "2000000");
    wait(admin.alter_configs([&altered], &options)).unwrap().remove(0).unwrap();
    let mut found = None;
    for _ in 0..600 {
        let described = wait(admin.describe_configs([&specifier], &options)).unwrap().remove(0).unwrap();
        found = described.get("retention.ms").unwrap().value.clone();
        if found.as_deref() == Some("2000000") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(found.as_deref(), Some("2000000"));

    assert_eq!(wait(admin.delete_topics(&[&name], &options)).unwrap(), [Ok(name.clone())]);
    for _ in 0..600 {
        if !admin.inner().fetch_metadata(None, TIMEOUT).unwrap().topics().iter().any(|t| t.name() == name) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{name} is still there");
}
