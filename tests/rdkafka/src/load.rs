//! Produces or consumes a given number of bytes through librdkafka, as fast as it goes, and prints what it took as one
//! line of JSON. For bench/compare; it knows nothing of which broker it talks to and never judges the figures.
//!
//! ```text
//! kafka-load produce BOOTSTRAP TOPIC PARTITIONS BYTES [name=value]...
//! kafka-load consume BOOTSTRAP TOPIC PARTITIONS BYTES [name=value]...
//! ```
//! Records are 1000 bytes each, spread evenly over the partitions. Further arguments are librdkafka configs.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

const RECORD_BYTES: usize = 1000;
const TIMEOUT: Duration = Duration::from_secs(120);

struct Args {
    action: String,
    bootstrap: String,
    topic: String,
    partitions: i32,
    records: u64,
    config: Vec<(String, String)>,
}

fn parse() -> Result<Args, String> {
    let mut args = std::env::args().skip(1);
    let mut next = |name: &str| args.next().ok_or(format!("missing {name}"));
    let (action, bootstrap, topic) = (next("action")?, next("bootstrap")?, next("topic")?);
    let partitions = next("partitions")?.parse().map_err(|e| format!("partitions: {e}"))?;
    let bytes: u64 = next("bytes")?.parse().map_err(|e| format!("bytes: {e}"))?;
    let config = args
        .map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or(format!("{pair}: not name=value")))
        .collect::<Result<_, _>>()?;
    Ok(Args { action, bootstrap, topic, partitions, records: bytes / RECORD_BYTES as u64, config })
}

fn client(args: &Args, defaults: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &args.bootstrap);
    for (name, value) in defaults {
        config.set(*name, *value);
    }
    for (name, value) in &args.config {
        config.set(name, value);
    }
    config
}

/// Counts what was acknowledged; any failed delivery is counted apart.
#[derive(Default)]
struct Acknowledged {
    records: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.records } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn produce(args: &Args) -> Result<f64, String> {
    let config = client(
        args,
        &[
            ("acks", "all"),
            ("linger.ms", "20"),
            ("batch.size", "1000000"),
            ("batch.num.messages", "1000"),
            ("queue.buffering.max.messages", "200000"),
            ("queue.buffering.max.kbytes", "200000"),
        ],
    );
    let producer: BaseProducer<Acknowledged> =
        config.create_with_context(Acknowledged::default()).map_err(|e| e.to_string())?;
    // Metadata first, so that the clock measures records.
    producer.client().fetch_metadata(Some(&args.topic), TIMEOUT).map_err(|e| e.to_string())?;
    let value: Vec<u8> = (0..RECORD_BYTES as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let start = Instant::now();
    for number in 0..args.records {
        let partition = (number % args.partitions as u64) as i32;
        loop {
            let record = BaseRecord::<(), [u8]>::to(&args.topic).payload(&value).partition(partition);
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => producer.poll(Duration::from_millis(5)),
                Err((e, _)) => return Err(e.to_string()),
            };
        }
        if number % 1000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(TIMEOUT).map_err(|e| e.to_string())?;
    let seconds = start.elapsed().as_secs_f64();
    let context = producer.context();
    let (done, failed) = (context.records.load(Ordering::Relaxed), context.failed.load(Ordering::Relaxed));
    if done != args.records || failed != 0 {
        return Err(format!("{done} of {} records acknowledged, {failed} failed", args.records));
    }
    Ok(seconds)
}

fn consume(args: &Args) -> Result<f64, String> {
    let config = client(
        args,
        &[
            ("group.id", "unused"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "error"),
            ("fetch.message.max.bytes", "1048576"),
            ("fetch.max.bytes", "52428800"),
            ("queued.max.messages.kbytes", "65536"),
            ("check.crcs", "false"),
        ],
    );
    let consumer: BaseConsumer = config.create().map_err(|e| e.to_string())?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..args.partitions {
        assignment.add_partition_offset(&args.topic, partition, Offset::Beginning).map_err(|e| e.to_string())?;
    }
    let start = Instant::now();
    consumer.assign(&assignment).map_err(|e| e.to_string())?;
    let mut next = vec![0i64; args.partitions as usize];
    let mut seen = 0u64;
    while seen < args.records {
        let message = consumer.poll(TIMEOUT).ok_or(format!("{seen} of {} records after {TIMEOUT:?}", args.records))?;
        let message = message.map_err(|e| e.to_string())?;
        let expected = &mut next[message.partition() as usize];
        if message.offset() != *expected || message.payload_len() != RECORD_BYTES {
            return Err(format!("{}: offset {}, {} bytes; expected {expected}", message.partition(), message.offset(), message.payload_len()));
        }
        *expected += 1;
        seen += 1;
    }
    Ok(start.elapsed().as_secs_f64())
}

fn main() -> ExitCode {
    let result = parse().and_then(|args| {
        let seconds = match args.action.as_str() {
            "produce" => produce(&args)?,
            "consume" => consume(&args)?,
            other => return Err(format!("{other}: neither produce nor consume")),
        };
        Ok((args.records, seconds))
    });
    match result {
        Ok((records, seconds)) => {
            let bytes = records * RECORD_BYTES as u64;
            println!("{{\"records\": {records}, \"bytes\": {bytes}, \"seconds\": {seconds:.6}, \"mb_per_s\": {:.1}}}", bytes as f64 / 1e6 / seconds);
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("kafka-load: {e}");
            ExitCode::FAILURE
        }
    }
}
