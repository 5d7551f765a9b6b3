//! The arguments of `load`, and what they come to: a [`Plan`] whose parts fit together. Nonsense is refused here, before any
//! broker is asked. Pure.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use ringlog_engine::batch::HEADER_BYTES;
use ringlog_engine::compression::Codec;

use super::content::{KEY_BYTES, STAMP_BYTES, record_bytes};
use super::plan::{Amount, ConsumePlan, Plan, ProducePlan};
use crate::error::Error;
use crate::units;

/// What `load` does.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LoadCommand {
    /// Producers alone.
    Produce(ProduceCommand),
    /// Consumers alone, over what a topic holds; from its start again where the amount asks for more.
    Consume(ConsumeCommand),
    /// Producers and consumers at once; latency from the (intended) sending of a record to its arrival at a consumer.
    EndToEnd(BothCommand),
    /// Producers and consumers at once; latency of each one's requests.
    Mixed(BothCommand),
    /// Reads back what earlier runs with --verify-log got acknowledged.
    Verify(VerifyCommand),
}

/// `load produce`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ProduceCommand {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    amount: AmountArgs,
    #[command(flatten)]
    produce: ProduceArgs,
}

/// `load consume`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConsumeCommand {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    amount: AmountArgs,
    #[command(flatten)]
    consume: ConsumeArgs,
}

/// `load end-to-end` and `load mixed`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BothCommand {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    amount: AmountArgs,
    #[command(flatten)]
    produce: ProduceArgs,
    #[command(flatten)]
    consume: ConsumeArgs,
}

/// `load verify`.
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyCommand {
    /// Where the broker listens; more than one after commas.
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    bootstrap: String,
    /// Go on although the broker is on another machine.
    #[arg(long)]
    allow_remote: bool,
    /// The file that `load produce --verify-log` wrote.
    #[arg(long, value_name = "FILE")]
    verify_log: PathBuf,
    /// How long a request may go without an answer.
    #[arg(long, default_value = "30s", value_parser = units::duration, value_name = "TIME")]
    timeout: Duration,
    /// How long to reconnect and ask again when the broker goes away or answers with a passing error; 0s gives up at once.
    #[arg(long, default_value = RETRY_FOR, value_parser = units::duration, value_name = "TIME")]
    retry_for: Duration,
}

/// Kafka's default of `delivery.timeout.ms` (KIP-91).
const RETRY_FOR: &str = "2min";

/// Which client library drives the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ClientKind {
    /// Our own: pre-encoded batches, a small fraction of what a broker spends.
    #[default]
    Lean,
    /// The C library that most languages' clients are made of: what an application sees. Latencies are those of records, a
    /// consumer's from asking for one to having it.
    Librdkafka,
}

impl ClientKind {
    /// As the option has it.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lean => "lean",
            Self::Librdkafka => "librdkafka",
        }
    }
}

#[derive(Clone, Debug, Args)]
struct TargetArgs {
    /// Where the broker listens; more than one after commas.
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    bootstrap: String,
    /// The topic. One that is not there is created, and deleted at the end.
    #[arg(long, default_value = "ringlog-bench")]
    topic: String,
    /// Partitions of a topic that is created [default: 1].
    #[arg(long, value_parser = units::count, value_name = "N")]
    partitions: Option<u64>,
    /// A setting of a topic that is created, as Kafka names it; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    topic_config: Vec<String>,
    /// Do not delete a topic that was created.
    #[arg(long)]
    keep_topic: bool,
    /// Go on although the broker is on another machine.
    #[arg(long)]
    allow_remote: bool,
    /// The client library.
    #[arg(long, value_enum, default_value_t)]
    client: ClientKind,
    /// Threads that producers and consumers are dealt out to.
    #[arg(long, default_value_t = 1, value_name = "N")]
    threads: u16,
    /// The broker's process, to tell what CPU, memory and storage it used.
    #[arg(long)]
    pid: Option<u32>,
    /// How long a request may go without an answer.
    #[arg(long, default_value = "30s", value_parser = units::duration, value_name = "TIME")]
    timeout: Duration,
    /// How long to reconnect, and to send or ask again what was not answered, when the broker goes away or answers with a passing
    /// error; 0s gives up at once [default: 2min, as Kafka's producer; 0s with --acks 0].
    #[arg(long, value_parser = units::duration, value_name = "TIME")]
    retry_for: Option<Duration>,
}

#[derive(Clone, Debug, Args)]
struct AmountArgs {
    /// How many records in all.
    #[arg(long, value_parser = units::count, value_name = "N", group = "amount")]
    records: Option<u64>,
    /// How many bytes of values in all (consumers: of batches).
    #[arg(long, value_parser = units::bytes, value_name = "SIZE", group = "amount")]
    bytes: Option<u64>,
    /// How long [default: 10s; consumers alone: once through the topic].
    #[arg(long, value_parser = units::duration, value_name = "TIME", group = "amount")]
    duration: Option<Duration>,
    /// How long to run before anything is counted.
    #[arg(long, default_value = "0s", value_parser = units::duration, value_name = "TIME")]
    warm_up: Duration,
}

#[derive(Clone, Debug, Args)]
struct ProduceArgs {
    /// How many producers, each on a connection of its own and sending to all partitions in turn.
    #[arg(long, default_value_t = 1, value_name = "N")]
    producers: u32,
    /// Bytes of a record's value (what Kafka's tools call a 1000-byte record); key and framing come on top.
    #[arg(long, default_value = "1000", value_parser = units::bytes, value_name = "SIZE")]
    record_bytes: u64,
    /// The most bytes of a batch before compression [default: 16KiB, as Kafka's producer].
    #[arg(long, value_parser = units::bytes, value_name = "SIZE", conflicts_with = "batch_records")]
    batch_bytes: Option<u64>,
    /// The most records of a batch.
    #[arg(long, value_parser = units::count, value_name = "N")]
    batch_records: Option<u64>,
    /// With --rate: how long a batch waits for more records.
    #[arg(long, value_parser = units::duration, value_name = "TIME")]
    linger: Option<Duration>,
    /// How many different keys (8 bytes each); a key always goes to the same partition. Without it records have no key.
    #[arg(long, value_parser = units::count, value_name = "N")]
    keys: Option<u64>,
    /// Exponent of the keys' Zipf distribution: 0 is uniform, 1 is as words in a text.
    #[arg(long, value_name = "S")]
    key_skew: Option<f64>,
    /// How batches are compressed: none, gzip, snappy, lz4, zstd.
    #[arg(long, default_value = "none", value_parser = codec)]
    compression: Codec,
    /// Who must have a batch before it is acknowledged: 0, 1 or all.
    #[arg(long, default_value = "all", value_parser = acks)]
    acks: i16,
    /// As an idempotent producer.
    #[arg(long)]
    idempotent: bool,
    /// Requests that each producer may have unanswered.
    #[arg(long, default_value_t = 5, value_name = "N")]
    in_flight: u16,
    /// Open loop: so many records a second in all, come what may; latency counts from when a record was to be sent.
    #[arg(long, value_parser = units::count, value_name = "RECORDS")]
    rate: Option<u64>,
    /// Read back every acknowledged record and compare it byte for byte: key, value, and that there are no headers. Without
    /// consumers the lean client reads back, whoever sent; consumers of the run look at what they get themselves (those of
    /// librdkafka not at a batch's CRC). Of librdkafka it is known how many records it sent again by itself, not which: up to that
    /// many that are there again or late are told apart from duplicated and reordered ones. With --idempotent all are faults.
    #[arg(long)]
    verify: bool,
    /// Keep what was acknowledged in this file, for `load verify`, which reads back by the lean client; implies --keep-topic.
    #[arg(long, value_name = "FILE")]
    verify_log: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct ConsumeArgs {
    /// How many consumers, each on a connection of its own; they share the partitions.
    #[arg(long, default_value_t = 1, value_name = "N")]
    consumers: u32,
    /// Every consumer reads every partition.
    #[arg(long)]
    fan_out: bool,
    /// What a fetch waits for.
    #[arg(long, default_value = "1", value_parser = units::bytes, value_name = "SIZE")]
    fetch_bytes_min: u64,
    /// The most bytes of a fetch, and of each partition in it.
    #[arg(long, default_value = "1MiB", value_parser = units::bytes, value_name = "SIZE")]
    fetch_bytes_max: u64,
    /// How long a fetch waits.
    #[arg(long, default_value = "500ms", value_parser = units::duration, value_name = "TIME")]
    fetch_wait: Duration,
}

fn codec(text: &str) -> Result<Codec, String> {
    let found = Codec::ALL.into_iter().find(|codec| codec.name() == text);
    found.ok_or_else(|| "it is none, gzip, snappy, lz4 or zstd".to_owned())
}

fn acks(text: &str) -> Result<i16, String> {
    match text {
        "0" => Ok(0),
        "1" => Ok(1),
        "all" | "-1" => Ok(-1),
        _ => Err("it is 0, 1 or all".to_owned()),
    }
}

/// What a build without it says.
pub(crate) const NO_LIBRDKAFKA: &str =
    "--client librdkafka is not in this build: cargo build --release -p ringlog-bench --features librdkafka";

/// More partitions than any broker is asked to create here.
const PARTITIONS_MAX: u64 = 100_000;
/// A batch's length is an `i32`, and a request holds it.
const BATCH_BYTES_MAX: u64 = 1 << 30;
const BATCH_BYTES_DEFAULT: u64 = 16 << 10;
/// What all prepared batches may take.
const MEMORY_BYTES_MAX: u64 = 8 << 30;
/// More keys would need a table larger than what is measured.
const KEYS_MAX: u64 = 100_000_000;
/// Threads and connections beyond this are a slip of the hand.
const CLIENTS_MAX: u32 = 10_000;

impl LoadCommand {
    /// What the arguments come to.
    ///
    /// # Errors
    /// [`Error::Usage`] for values that do not go together, with what to change.
    pub(crate) fn plan(&self) -> Result<Plan, Error> {
        match self {
            Self::Produce(command) => plan("produce", &command.target, &command.amount, Some(&command.produce), None),
            Self::Consume(command) => plan("consume", &command.target, &command.amount, None, Some(&command.consume)),
            Self::EndToEnd(command) => {
                plan("end-to-end", &command.target, &command.amount, Some(&command.produce), Some(&command.consume))
            }
            Self::Mixed(command) => {
                plan("mixed", &command.target, &command.amount, Some(&command.produce), Some(&command.consume))
            }
            Self::Verify(command) => Ok(Plan {
                what: "verify",
                bootstrap: command.bootstrap.clone(),
                allow_remote: command.allow_remote,
                topic: String::new(),
                partitions: None,
                topic_config: Vec::new(),
                keep_topic: true,
                client: ClientKind::Lean,
                threads: 1,
                pid: None,
                timeout: not_zero("--timeout", command.timeout)?,
                retry_for: bounded("--retry-for", command.retry_for)?,
                amount: Amount::Once,
                warm_up: Duration::ZERO,
                produce: None,
                consume: None,
                verify: true,
                verify_log: Some(command.verify_log.clone()),
            }),
        }
    }
}

fn usage<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Usage(text.into()))
}

fn not_zero(name: &str, duration: Duration) -> Result<Duration, Error> {
    if duration.is_zero() { usage(format!("{name} is more than zero")) } else { bounded(name, duration) }
}

/// Beyond this the clock's nanoseconds would not do.
fn bounded(name: &str, duration: Duration) -> Result<Duration, Error> {
    const DAYS_MAX: u64 = 366;
    if duration > Duration::from_secs(DAYS_MAX * 86_400) {
        return usage(format!("{name} is at most {DAYS_MAX} days"));
    }
    Ok(duration)
}

fn plan(
    what: &'static str,
    target: &TargetArgs,
    amount: &AmountArgs,
    produce: Option<&ProduceArgs>,
    consume: Option<&ConsumeArgs>,
) -> Result<Plan, Error> {
    check_topic_name(&target.topic)?;
    let mut topic_config = Vec::new();
    for setting in &target.topic_config {
        let Some((name, value)) = setting.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return usage(format!("--topic-config {setting}: it is NAME=VALUE"));
        };
        topic_config.push((name.to_owned(), value.to_owned()));
    }
    match target.partitions {
        Some(0) => return usage("--partitions is 1 or more"),
        Some(count) if count > PARTITIONS_MAX => return usage(format!("--partitions is at most {PARTITIONS_MAX}")),
        _ => {}
    }
    if target.threads == 0 || target.threads > 1024 {
        return usage("--threads is from 1 to 1024");
    }
    let chosen = match (amount.records, amount.bytes, amount.duration) {
        (Some(0), _, _) => return usage("--records is 1 or more"),
        (_, Some(0), _) => return usage("--bytes is 1 or more"),
        (Some(records), _, _) => Amount::Records(records),
        (_, Some(bytes), _) => Amount::Bytes(bytes),
        (_, _, Some(duration)) => Amount::Duration(not_zero("--duration", duration)?),
        _ if produce.is_none() => Amount::Once,
        _ => Amount::Duration(Duration::from_secs(10)),
    };
    let unanswered = produce.is_some_and(|args| args.acks == 0);
    let retry_for = match target.retry_for {
        Some(given) if unanswered && !given.is_zero() => {
            return usage("--retry-for needs acknowledgements: with --acks 0 nobody knows what to send again");
        }
        Some(given) => bounded("--retry-for", given)?,
        None if unanswered => Duration::ZERO,
        None => units::duration(RETRY_FOR).map_err(Error::Usage)?,
    };
    let producing = produce.map(|args| produce_plan(args, what)).transpose()?;
    let consuming = consume.map(|args| consume_plan(args, what)).transpose()?;
    let verify_log = produce.and_then(|args| args.verify_log.clone());
    let verify = produce.is_some_and(|args| args.verify);
    if what != "produce" && verify_log.is_some() {
        return usage("--verify-log goes with `load produce`");
    }
    if target.client == ClientKind::Librdkafka {
        if cfg!(not(feature = "librdkafka")) {
            return usage(NO_LIBRDKAFKA);
        }
        check_librdkafka(producing.as_ref(), consuming.as_ref())?;
    }
    Ok(Plan {
        what,
        bootstrap: target.bootstrap.clone(),
        allow_remote: target.allow_remote,
        topic: target.topic.clone(),
        partitions: target.partitions.map(|count| count as u32),
        topic_config,
        keep_topic: target.keep_topic || verify_log.is_some(),
        client: target.client,
        threads: usize::from(target.threads),
        pid: target.pid,
        timeout: not_zero("--timeout", target.timeout)?,
        retry_for,
        amount: chosen,
        warm_up: bounded("--warm-up", amount.warm_up)?,
        produce: producing,
        consume: consuming,
        verify,
        verify_log,
    })
}

/// What the library has bounds for: it is told what was asked for, and nothing else.
fn check_librdkafka(produce: Option<&ProducePlan>, consume: Option<&ConsumePlan>) -> Result<(), Error> {
    const LINGER_MAX: Duration = Duration::from_secs(900);
    const FETCH_WAIT_MAX: Duration = Duration::from_secs(300);
    const MESSAGES_MAX: usize = 1_000_000;
    if produce.is_some_and(|plan| plan.batch_records > MESSAGES_MAX) {
        return usage(format!("--client librdkafka has at most {MESSAGES_MAX} records in a batch"));
    }
    if produce.is_some_and(|plan| plan.linger > LINGER_MAX) {
        return usage("--client librdkafka has --linger of at most 15min");
    }
    let Some(consume) = consume else { return Ok(()) };
    if consume.wait > FETCH_WAIT_MAX {
        return usage("--client librdkafka has --fetch-wait of at most 5min");
    }
    if !(1..=100_000_000).contains(&consume.bytes_min) {
        return usage("--client librdkafka has --fetch-bytes-min from 1 to 100MB");
    }
    if !(1000..=1_000_000_000).contains(&consume.bytes_max) {
        return usage("--client librdkafka has --fetch-bytes-max from 1kB to 1GB");
    }
    Ok(())
}

fn produce_plan(args: &ProduceArgs, what: &str) -> Result<ProducePlan, Error> {
    let stamped = args.verify || args.verify_log.is_some() || what == "end-to-end";
    if args.producers == 0 || args.producers > CLIENTS_MAX {
        return usage(format!("--producers is from 1 to {CLIENTS_MAX}"));
    }
    if args.in_flight == 0 {
        return usage("--in-flight is 1 or more");
    }
    if args.idempotent && args.in_flight > 5 {
        return usage("--idempotent keeps order with at most --in-flight 5, as a broker remembers five batches of a producer");
    }
    if args.idempotent && args.acks != -1 {
        return usage("--idempotent needs --acks all");
    }
    if args.acks == 0 && (args.verify || args.verify_log.is_some()) {
        return usage("--verify needs acknowledgements: with --acks 0 there are none");
    }
    if args.rate == Some(0) {
        return usage("--rate is 1 or more");
    }
    if args.rate.is_none() && args.linger.is_some() {
        return usage("--linger needs --rate: without it every batch is full");
    }
    if args.key_skew.is_some() && args.keys.is_none() {
        return usage("--key-skew needs --keys");
    }
    let key_skew = args.key_skew.unwrap_or(0.0);
    if !(0.0..=10.0).contains(&key_skew) {
        return usage("--key-skew is from 0 to 10");
    }
    match args.keys {
        Some(0) => return usage("--keys is 1 or more"),
        Some(keys) if keys > KEYS_MAX => return usage(format!("--keys is at most {KEYS_MAX}")),
        _ => {}
    }
    if args.record_bytes > BATCH_BYTES_MAX {
        return usage(format!("--record-bytes is at most {BATCH_BYTES_MAX}"));
    }
    let value_bytes = args.record_bytes as usize;
    if stamped && value_bytes < STAMP_BYTES {
        let why = if what == "end-to-end" { "end-to-end" } else { "--verify" };
        return usage(format!("{why} needs --record-bytes {STAMP_BYTES} or more, for what is kept in the value"));
    }
    let key_bytes = args.keys.map(|_| KEY_BYTES);
    let batch_records = match args.batch_records {
        Some(0) => return usage("--batch-records is 1 or more"),
        Some(records) => records,
        None => {
            let bytes = args.batch_bytes.unwrap_or(BATCH_BYTES_DEFAULT);
            if bytes > BATCH_BYTES_MAX {
                return usage(format!("--batch-bytes is at most {BATCH_BYTES_MAX}"));
            }
            records_within(bytes, key_bytes, value_bytes, args.batch_bytes.is_some())?
        }
    };
    // The bound holds for the records' own sizes, which grow with their number by a byte or two.
    let largest = record_bytes(i32::MAX, key_bytes, value_bytes) as u64;
    if batch_records.checked_mul(largest).is_none_or(|bytes| bytes > BATCH_BYTES_MAX) {
        return usage(format!("a batch of {batch_records} records of {value_bytes} bytes is over {BATCH_BYTES_MAX}"));
    }
    // Batches that differ have a buffer for each request under way.
    let own = stamped || args.keys.is_some() || args.idempotent || args.rate.is_some();
    let buffers = u64::from(args.producers) * if own { u64::from(args.in_flight) } else { 1 };
    let memory_bytes = buffers.saturating_mul(batch_records * largest);
    if memory_bytes > MEMORY_BYTES_MAX {
        return usage(format!(
            "{buffers} batches under way take {} of memory, more than {}: fewer --producers, --in-flight or smaller batches",
            units::show_bytes(memory_bytes),
            units::show_bytes(MEMORY_BYTES_MAX)
        ));
    }
    Ok(ProducePlan {
        producers: args.producers,
        value_bytes,
        batch_records: batch_records as usize,
        linger: bounded("--linger", args.linger.unwrap_or_default())?,
        keys: args.keys.map(|keys| keys as u32),
        key_skew,
        codec: args.compression,
        acks: args.acks,
        idempotent: args.idempotent,
        in_flight: usize::from(args.in_flight),
        rate: args.rate,
        stamped,
    })
}

/// How many records fit into a batch of `bytes`; one at least, unless the size was asked for and is too small.
fn records_within(bytes: u64, key_bytes: Option<usize>, value_bytes: usize, asked: bool) -> Result<u64, Error> {
    let mut left = bytes.saturating_sub(HEADER_BYTES as u64);
    let mut records = 0;
    while let Some(rest) = left.checked_sub(record_bytes(records, key_bytes, value_bytes) as u64) {
        left = rest;
        records += 1;
    }
    if records == 0 && asked {
        let least = HEADER_BYTES + record_bytes(0, key_bytes, value_bytes);
        return usage(format!("--batch-bytes {bytes} is too small for one record, which takes {least} with its header"));
    }
    Ok(records.max(1) as u64)
}

fn consume_plan(args: &ConsumeArgs, what: &str) -> Result<ConsumePlan, Error> {
    if args.consumers == 0 || args.consumers > CLIENTS_MAX {
        return usage(format!("--consumers is from 1 to {CLIENTS_MAX}"));
    }
    let fits = |name: &str, bytes: u64| i32::try_from(bytes).map_err(|_| Error::Usage(format!("{name} is at most {}", i32::MAX)));
    let bytes_min = fits("--fetch-bytes-min", args.fetch_bytes_min)?;
    let bytes_max = fits("--fetch-bytes-max", args.fetch_bytes_max)?;
    if bytes_max == 0 || bytes_min > bytes_max {
        return usage("--fetch-bytes-max is 1 or more, and not less than --fetch-bytes-min");
    }
    if args.fetch_wait > Duration::from_secs(3600) {
        return usage("--fetch-wait is at most an hour");
    }
    Ok(ConsumePlan {
        consumers: args.consumers,
        fan_out: args.fan_out,
        bytes_min,
        bytes_max,
        wait: args.fetch_wait,
        end_to_end: what == "end-to-end",
    })
}

/// Kafka's rule for names of topics.
fn check_topic_name(name: &str) -> Result<(), Error> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.bytes().all(legal) {
        return usage(format!("--topic {name:?}: a name has 1 to 249 letters, digits, dots, underscores or dashes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: LoadCommand,
    }

    fn planned(line: &str) -> Result<Plan, String> {
        let words = std::iter::once("load").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.command.plan().map_err(|error| {
            assert_eq!(error.exit_status(), 2, "{error}");
            error.to_string()
        })
    }

    #[test]
    fn defaults_are_a_sound_plan() {
        let plan = planned("produce").unwrap();
        let produce = plan.produce.unwrap();
        assert_eq!((produce.value_bytes, produce.batch_records, produce.acks), (1000, 16, -1));
        assert_eq!(plan.amount, Amount::Duration(Duration::from_secs(10)));
        assert_eq!(plan.retry_for, Duration::from_secs(120));
        assert_eq!(planned("produce --acks 0").unwrap().retry_for, Duration::ZERO);
        assert_eq!(planned("consume").unwrap().amount, Amount::Once);
        assert!(planned("end-to-end --rate 1000").unwrap().consume.unwrap().end_to_end);
    }

    /// What a build without the library says comes first.
    fn librdkafka(word: &'static str) -> &'static str {
        if cfg!(feature = "librdkafka") { word } else { "--features librdkafka" }
    }

    #[test]
    fn nonsense_is_refused_with_what_to_change() {
        for (line, word) in [
            ("produce --records 0", "--records"),
            ("produce --records 1 --bytes 1", "cannot be used with"),
            ("produce --duration 0s", "--duration"),
            ("produce --rate 0", "--rate"),
            ("produce --rate -5", "unexpected argument"),
            ("produce --rate lots", "number"),
            ("produce --partitions 0", "--partitions"),
            ("produce --partitions 1G", "--partitions"),
            ("produce --linger 5ms", "--linger needs --rate"),
            ("produce --key-skew 1", "--keys"),
            ("produce --keys 5 --key-skew NaN", "--key-skew"),
            ("produce --keys 0", "--keys"),
            ("produce --acks 2", "0, 1 or all"),
            ("produce --acks 0 --verify", "acknowledgements"),
            ("produce --acks 0 --retry-for 1s", "acknowledgements"),
            ("consume --retry-for 1000000h", "--retry-for"),
            ("produce --acks 1 --idempotent", "--acks all"),
            ("produce --in-flight 6 --idempotent", "--in-flight"),
            ("produce --in-flight 0", "--in-flight"),
            ("produce --batch-bytes 100", "too small"),
            ("produce --batch-bytes 10 --batch-records 1", "cannot be used with"),
            ("produce --batch-records 0", "--batch-records"),
            ("produce --batch-records 100M", "over"),
            ("produce --record-bytes 10 --verify", "--record-bytes"),
            ("produce --record-bytes 4GiB", "--record-bytes"),
            ("produce --duration 1000000h", "--duration"),
            ("produce --warm-up 1000000h", "--warm-up"),
            ("produce --producers 1000 --in-flight 1000 --batch-bytes 1MiB --rate 1", "of memory"),
            ("produce --producers 0", "--producers"),
            ("produce --threads 0", "--threads"),
            ("produce --topic a/b", "--topic"),
            ("produce --topic-config retention", "NAME=VALUE"),
            ("produce --compression rar", "none, gzip"),
            ("produce --client librdkafka --acks 0 --verify", "acknowledgements"),
            ("end-to-end --record-bytes 8", "--record-bytes"),
            ("consume --consumers 0", "--consumers"),
            ("consume --fetch-bytes-min 2MiB", "--fetch-bytes-max"),
            ("consume --fetch-bytes-max 3GiB", "--fetch-bytes-max"),
            ("consume --timeout 0s", "--timeout"),
            ("mixed --verify-log x", "load produce"),
            ("consume --client librdkafka --fetch-bytes-min 0", librdkafka("--fetch-bytes-min")),
            ("mixed --client librdkafka --fetch-bytes-max 10", librdkafka("--fetch-bytes-max")),
            ("end-to-end --client librdkafka --fetch-wait 10min", librdkafka("--fetch-wait")),
            ("produce --client librdkafka --rate 1 --linger 1h", librdkafka("--linger")),
            ("end-to-end --client librdkafka --verify-log x", "load produce"),
        ] {
            let error = planned(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn a_batch_is_as_large_as_asked_and_no_larger() {
        for (bytes, value_bytes) in [(16 << 10, 100), (1 << 20, 1000), (1 << 16, 44), (1062 + 10, 1000)] {
            let records = records_within(bytes, None, value_bytes, true).unwrap();
            let size = |records: i32| HEADER_BYTES + (0..records).map(|at| record_bytes(at, None, value_bytes)).sum::<usize>();
            assert!(size(records as i32) as u64 <= bytes && size(records as i32 + 1) as u64 > bytes);
        }
    }
}
