//! What a run does, all of it settled: [`super::options`] makes it of the arguments, everyone else reads it. Pure.

use std::path::PathBuf;
use std::time::Duration;

use ringlog_engine::compression::Codec;

use super::options::ClientKind;

/// What a record takes beside its value, with its part of a batch's header.
const RECORD_OVERHEAD_BYTES: u64 = 12;

/// A run, all of whose parts fit together.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// `produce`, `consume`, `end-to-end`, `mixed` or `verify`.
    pub what: &'static str,
    /// Where to connect first.
    pub bootstrap: String,
    /// Whether a broker elsewhere is fine.
    pub allow_remote: bool,
    /// The topic's name.
    pub topic: String,
    /// Partitions of a topic that is created; `None` takes an existing one as it is.
    pub partitions: Option<u32>,
    /// Settings of a topic that is created.
    pub topic_config: Vec<(String, String)>,
    /// Whether a topic that was created stays.
    pub keep_topic: bool,
    /// The client library.
    pub client: ClientKind,
    /// Threads of the generator.
    pub threads: usize,
    /// The broker's process.
    pub pid: Option<u32>,
    /// How long a request may go without an answer.
    pub timeout: Duration,
    /// How long to reconnect and ask or send again; zero gives up at once.
    pub retry_for: Duration,
    /// How much of it.
    pub amount: Amount,
    /// Before anything is counted.
    pub warm_up: Duration,
    /// The producers, if any.
    pub produce: Option<ProducePlan>,
    /// The consumers, if any.
    pub consume: Option<ConsumePlan>,
    /// Whether records are read back and compared.
    pub verify: bool,
    /// Where what was acknowledged is kept.
    pub verify_log: Option<PathBuf>,
}

/// How much a run sends or reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    /// Records.
    Records(u64),
    /// Bytes of values sent, or of batches read.
    Bytes(u64),
    /// Time.
    Duration(Duration),
    /// What the topic holds, once.
    Once,
}

/// What producers do.
#[derive(Clone, Debug)]
pub(crate) struct ProducePlan {
    /// How many.
    pub producers: u32,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Records of a full batch.
    pub batch_records: usize,
    /// Open loop: how long a batch waits for more.
    pub linger: Duration,
    /// How many keys; `None` for records without.
    pub keys: Option<u32>,
    /// Exponent of their Zipf distribution.
    pub key_skew: f64,
    /// The codec.
    pub codec: Codec,
    /// 0, 1 or -1.
    pub acks: i16,
    /// Whether producers have an id.
    pub idempotent: bool,
    /// Unanswered requests of each.
    pub in_flight: usize,
    /// Records a second of all together; `None` in a closed loop.
    pub rate: Option<u64>,
    /// Whether each record says who sent it, when, and in what order.
    pub stamped: bool,
}

/// What consumers do.
#[derive(Clone, Debug)]
pub(crate) struct ConsumePlan {
    /// How many.
    pub consumers: u32,
    /// Whether each reads all partitions.
    pub fan_out: bool,
    /// What a fetch waits for.
    pub bytes_min: i32,
    /// The most of a fetch.
    pub bytes_max: i32,
    /// How long a fetch waits.
    pub wait: Duration,
    /// Whether latency is that of records, from the stamp in them.
    pub end_to_end: bool,
}

impl Plan {
    /// About how many bytes the run makes the broker keep; 0 where only time bounds it, or nothing is produced.
    #[must_use]
    pub(crate) fn kept_bytes(&self) -> u64 {
        let Some(produce) = &self.produce else { return 0 };
        let record_bytes = produce.value_bytes as u64 + RECORD_OVERHEAD_BYTES;
        let records = match (self.amount, produce.rate) {
            (Amount::Records(records), _) => records,
            (Amount::Bytes(bytes), _) => bytes / (produce.value_bytes as u64).max(1),
            (Amount::Duration(duration), Some(rate)) => (rate as f64 * (duration + self.warm_up).as_secs_f64()) as u64,
            (Amount::Duration(_), None) | (Amount::Once, _) => 0,
        };
        // What compression makes of it is not known.
        if produce.codec == Codec::None { records.saturating_mul(record_bytes) } else { 0 }
    }

    /// The settings that decide what is measured, as name and value.
    #[must_use]
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let mut settings = vec![
            ("run".to_owned(), self.what.to_owned()),
            ("client".to_owned(), self.client.name().to_owned()),
            ("bootstrap".to_owned(), self.bootstrap.clone()),
            ("topic".to_owned(), self.topic.clone()),
            ("threads".to_owned(), self.threads.to_string()),
        ];
        let mut add = |name: &str, value: String| settings.push((name.to_owned(), value));
        for (name, value) in &self.topic_config {
            add(name, value.clone());
        }
        match self.amount {
            Amount::Records(records) => add("records", records.to_string()),
            Amount::Bytes(bytes) => add("bytes", bytes.to_string()),
            Amount::Duration(duration) => add("duration", format!("{duration:?}")),
            Amount::Once => add("amount", "once through the topic".to_owned()),
        }
        if !self.warm_up.is_zero() {
            add("warm-up", format!("{:?}", self.warm_up));
        }
        if let Some(produce) = &self.produce {
            add("producers", produce.producers.to_string());
            add("record bytes", produce.value_bytes.to_string());
            add("batch records", produce.batch_records.to_string());
            add("acks", if produce.acks == -1 { "all".to_owned() } else { produce.acks.to_string() });
            add("in flight", produce.in_flight.to_string());
            add("compression", produce.codec.name().to_owned());
            if produce.idempotent {
                add("idempotent", "yes".to_owned());
            }
            if let Some(keys) = produce.keys {
                add("keys", format!("{keys}, skew {}", produce.key_skew));
            }
            match produce.rate {
                Some(rate) => add("rate", format!("{rate} records/s, open loop, linger {:?}", produce.linger)),
                None => add("rate", "closed loop".to_owned()),
            }
        }
        if let Some(consume) = &self.consume {
            add("consumers", format!("{}{}", consume.consumers, if consume.fan_out { ", each all partitions" } else { "" }));
            add("fetch bytes", format!("{} to {}", consume.bytes_min, consume.bytes_max));
            add("fetch wait", format!("{:?}", consume.wait));
        }
        settings
    }
}
