//! A member of a group by rdkafka. See tests/python/groups/member.py for what it is told and says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(30);

type Partition = (String, i32);

fn say(event: &Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{event}").and_then(|()| out.flush()).expect("the test reads");
}

fn reply(command: &Value, mut with: Value) {
    with["event"] = json!("reply");
    with["id"] = command["id"].clone();
    say(&with);
}

fn partitions(list: &TopicPartitionList) -> BTreeSet<Partition> {
    list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

/// What the callbacks leave for the loop.
#[derive(Default)]
struct Callbacks {
    is_assigned: AtomicBool,
    revoked: Mutex<Vec<Partition>>,
}

#[derive(Clone)]
struct Context(Arc<Callbacks>);

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            say(&json!({"event": "fatal", "error": reason}));
        }
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            let revoked = partitions(list);
            say(&json!({"event": "revoked", "partitions": &revoked}));
            self.0.revoked.lock().unwrap().extend(revoked);
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(_) = rebalance {
            self.0.is_assigned.store(true, Ordering::SeqCst);
        }
    }
}

fn with_offsets(list: &TopicPartitionList) -> Vec<(String, i32, Option<i64>)> {
    list.elements().iter().map(|one| (one.topic().to_owned(), one.partition(), one.offset().to_raw())).collect()
}

/// Collects delivery reports.
#[derive(Default)]
struct Deliveries(Mutex<(Vec<Value>, Option<String>)>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut delivered = self.0.lock().unwrap();
        match result {
            Ok(message) => delivered.0.push(record(message)),
            Err((error, _)) => delivered.1 = Some(error.to_string()),
        }
    }
}

fn record(message: &impl Message) -> Value {
    let value = String::from_utf8_lossy(message.payload().unwrap_or_default());
    json!([message.topic(), message.partition(), message.offset(), value])
}

struct Member {
    options: Value,
    consumer: BaseConsumer<Context>,
    callbacks: Arc<Callbacks>,
    positions: BTreeMap<Partition, i64>,
    held: Option<BTreeSet<Partition>>,
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().expect("a string")
}

fn listed(command: &Value) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in command["partitions"].as_array().expect("an array") {
        list.add_partition(partition[0].as_str().expect("a topic"), partition[1].as_i64().expect("a number") as i32);
    }
    list
}

impl Member {
    fn new(options: Value) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", text(&options, "bootstrap"))
            .set("group.id", text(&options, "group"))
            .set("group.protocol", text(&options, "protocol"))
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("topic.metadata.refresh.interval.ms", options["metadata_ms"].to_string())
            .set("reconnect.backoff.max.ms", "500");
        if options["protocol"] == "classic" {
            config
                .set("session.timeout.ms", options["session_ms"].to_string())
                .set("heartbeat.interval.ms", options["heartbeat_ms"].to_string())
                .set("partition.assignment.strategy", text(&options, "strategy"));
        }
        if let Some(instance) = options["instance"].as_str() {
            config.set("group.instance.id", instance);
        }
        let callbacks = Arc::new(Callbacks::default());
        let consumer: BaseConsumer<Context> = config.create_with_context(Context(callbacks.clone())).expect("a consumer");
        let topics: Vec<&str> = match options["pattern"].as_str() {
            Some(pattern) => vec![pattern],
            None => options["topics"].as_array().expect("topics").iter().map(|topic| topic.as_str().expect("a name")).collect(),
        };
        consumer.subscribe(&topics).expect("a subscription");
        Self { consumer, callbacks, positions: BTreeMap::new(), held: None, options }
    }

    fn run(mut self, commands: &mpsc::Receiver<Value>) {
        loop {
            let mut records = Vec::new();
            let mut wait = Duration::from_millis(50);
            while let Some(polled) = self.consumer.poll(wait) {
                match polled {
                    Ok(message) => {
                        self.positions.insert((message.topic().to_owned(), message.partition()), message.offset() + 1);
                        records.push(record(&message));
                    }
                    Err(KafkaError::MessageConsumptionFatal(code)) => {
                        say(&json!({"event": "fatal", "error": format!("{code:?}")}))
                    }
                    Err(_) => {}
                }
                wait = Duration::ZERO;
                if records.len() >= 500 {
                    break;
                }
            }
            for partition in self.callbacks.revoked.lock().unwrap().drain(..) {
                self.positions.remove(&partition);
            }
            let holds = partitions(&self.consumer.assignment().expect("an assignment"));
            let is_assigned = self.callbacks.is_assigned.swap(false, Ordering::SeqCst);
            if is_assigned || self.held.as_ref().is_some_and(|held| *held != holds) {
                say(&json!({"event": "assigned", "partitions": &holds}));
                self.held = Some(holds);
            }
            if !records.is_empty() {
                say(&json!({"event": "records", "records": records}));
            }
            while let Ok(command) = commands.try_recv() {
                if command["do"] == "close" {
                    drop(self.consumer);
                    return reply(&command, json!({}));
                }
                match self.obey(&command) {
                    Ok(answer) => reply(&command, answer),
                    Err(error) => reply(&command, json!({"error": error.to_string()})),
                }
            }
        }
    }

    fn offsets(&self) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), offset) in &self.positions {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        Ok(list)
    }

    fn obey(&self, command: &Value) -> KafkaResult<Value> {
        match text(command, "do") {
            "produce" => return self.produce(command),
            "commit" => {
                let offsets = self.offsets()?;
                self.consumer.commit(&offsets, CommitMode::Sync)?;
                let committed = self.consumer.committed_offsets(offsets, TIMEOUT)?;
                return Ok(json!({"offsets": with_offsets(&committed)}));
            }
            "commit_async" => {
                // Nobody is called back for it: what the broker then has says that it worked.
                let offsets = self.offsets()?;
                self.consumer.commit(&offsets, CommitMode::Async)?;
                let end = Instant::now() + TIMEOUT;
                loop {
                    let committed = self.consumer.committed_offsets(offsets.clone(), TIMEOUT)?;
                    if with_offsets(&committed) == with_offsets(&offsets) || Instant::now() > end {
                        return Ok(json!({"offsets": with_offsets(&committed)}));
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            "pause" => self.consumer.pause(&listed(command))?,
            "resume" => self.consumer.resume(&listed(command))?,
            "seek" => {
                let (topic, partition) = (command["partition"][0].as_str(), command["partition"][1].as_i64());
                let offset = Offset::Offset(command["offset"].as_i64().expect("a number"));
                self.consumer.seek(topic.expect("a topic"), partition.expect("a number") as i32, offset, TIMEOUT)?;
            }
            "lag" => {
                // The binding's admin client knows no offsets of groups: the consumer asks.
                let committed = self.consumer.committed_offsets(listed(command), TIMEOUT)?;
                let mut lag = Vec::new();
                for (topic, partition, offset) in with_offsets(&committed) {
                    let (_, end) = self.consumer.fetch_watermarks(&topic, partition, TIMEOUT)?;
                    lag.push((topic, partition, end - offset.unwrap_or(0)));
                }
                return Ok(json!({"lag": lag}));
            }
            other => panic!("unknown command {other}"),
        }
        Ok(json!({}))
    }

    fn produce(&self, command: &Value) -> KafkaResult<Value> {
        let producer: BaseProducer<Deliveries> = ClientConfig::new()
            .set("bootstrap.servers", text(&self.options, "bootstrap"))
            .create_with_context(Deliveries::default())?;
        let partitions = command["partitions"].as_i64().expect("a number") as i32;
        for (number, value) in command["values"].as_array().expect("values").iter().enumerate() {
            let record = BaseRecord::<(), str>::to(text(command, "topic"))
                .partition(number as i32 % partitions)
                .payload(value.as_str().expect("a string"));
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(TIMEOUT)?;
        let delivered = std::mem::take(&mut *producer.context().0.lock().unwrap());
        Ok(match delivered.1 {
            Some(error) => json!({"error": error}),
            None => json!({"delivered": delivered.0}),
        })
    }
}

fn main() {
    let options = std::env::args().nth(1).expect("options");
    let (sender, commands) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let command = serde_json::from_str(&line).expect("a command");
            if sender.send(command).is_err() {
                return;
            }
        }
        // The test is gone.
        let _ = sender.send(json!({"id": 0, "do": "close"}));
    });
    Member::new(serde_json::from_str(&options).expect("JSON")).run(&commands);
}
