//! The options of the broker: the names of `server.properties`, their meaning here, and how a file and the command line become a
//! configuration. `main` loads it once; everything else reads the typed fields. It never reads a file or the machine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::definition::Valid::{Any, AtLeast, Between, Check, OneOf};
use super::definition::{Definition, Valid, Value, ValueType, options};
use super::error::{ConfigError, Problem};
use super::group::{self, GroupConfig};
use super::listeners::{self, Listener};
use super::properties;
use super::topic::TopicConfig;

const LONG_MAX: &str = "9223372036854775807";
const DOUBLE_MAX: &str = "1.7976931348623157E308";
const INT_MAX: &str = "2147483647";

options! {
    /// The broker's options as they were given or are by default, each by itself. [`BrokerConfig`] has what follows from
    /// several of them.
    BrokerOptions,
    /// The table of broker options, by name.
    BROKER_DEFINITIONS;

    /// What clients are told to connect to, by listener name; empty: the listeners themselves, and behind a listener on every
    /// address of the machine, the address by which the client came.
    advertised_listeners: Vec<String> = "advertised.listeners", default Some(""), valid Any;

    /// The class that decides who may do what. There is none yet: every client may do everything.
    authorizer_class_name: String = "authorizer.class.name", default Some(""), valid Check(no_authorizer);

    /// Whether asking for the metadata of a topic that does not exist creates it.
    auto_create_topics_enable: bool = "auto.create.topics.enable", default Some("true"), valid Any;

    /// The older name of node.id; -1: not set.
    broker_id: i32 = "broker.id", default Some("-1"), valid AtLeast(-1);

    /// Who compresses; "producer": batches are kept as they came. Topics can override it.
    compression_type: String = "compression.type", default Some("producer"), valid OneOf(&["producer"]),
        refused [
            "uncompressed" => "the broker keeps batches as they came and does not recompress yet; accepted: producer",
            "gzip" => "the broker keeps batches as they came and does not recompress yet; accepted: producer",
            "snappy" => "the broker keeps batches as they came and does not recompress yet; accepted: producer",
            "lz4" => "the broker keeps batches as they came and does not recompress yet; accepted: producer",
            "zstd" => "the broker keeps batches as they came and does not recompress yet; accepted: producer"
        ];

    /// Milliseconds after which a connection without requests is closed; -1: never.
    connections_max_idle_ms: i64 = "connections.max.idle.ms", default Some("600000"), valid AtLeast(-1);

    /// Listeners for controllers. One broker is a quorum of one, so these are not opened.
    controller_listener_names: Vec<String> = "controller.listener.names", default Some(""), valid Any;

    /// The number of replicas of a topic that does not say one. One broker can hold one.
    default_replication_factor: i32 = "default.replication.factor", default Some("1"), valid AtLeast(1);

    /// Whether clients may delete topics.
    delete_topic_enable: bool = "delete.topic.enable", default Some("true"), valid Any;

    /// The most bytes in one Fetch response, except that the first batch is always returned whole.
    fetch_max_bytes: i32 = "fetch.max.bytes", default Some("57671680"), valid AtLeast(1024);

    /// Milliseconds from one assignment of a group of the new protocol (KIP-848) to the next, at least (KIP-1263): what members ask for
    /// in between is assigned together, with the first heartbeat after that. The default, unlike Kafka's 1000, is 0: every change is
    /// assigned at once. Groups can override it.
    group_consumer_assignment_interval_ms: i32 = "group.consumer.assignment.interval.ms", default Some("0"), valid AtLeast(0);

    /// What assigns partitions to the members of groups of the new protocol: "uniform", "range", or both. The first is for members
    /// that name none.
    group_consumer_assignors: Vec<String> = "group.consumer.assignors", default Some("uniform,range"), valid Check(assignors);

    /// Milliseconds between two heartbeats of a member of a group of the new protocol. Groups can override it.
    group_consumer_heartbeat_interval_ms: i32 = "group.consumer.heartbeat.interval.ms", default Some("5000"), valid AtLeast(1);

    /// The most that group.consumer.assignment.interval.ms, and a group's consumer.assignment.interval.ms, may be.
    group_consumer_max_assignment_interval_ms: i32 = "group.consumer.max.assignment.interval.ms", default Some("15000"),
        valid AtLeast(0);

    /// The most that group.consumer.heartbeat.interval.ms, and a group's consumer.heartbeat.interval.ms, may be.
    group_consumer_max_heartbeat_interval_ms: i32 = "group.consumer.max.heartbeat.interval.ms", default Some("15000"),
        valid AtLeast(1);

    /// The most that group.consumer.session.timeout.ms, and a group's consumer.session.timeout.ms, may be.
    group_consumer_max_session_timeout_ms: i32 = "group.consumer.max.session.timeout.ms", default Some("60000"), valid AtLeast(1);

    /// The most members of a group of the new protocol.
    group_consumer_max_size: i32 = "group.consumer.max.size", default Some(INT_MAX), valid AtLeast(1);

    /// Whether a group with members may go from the classic protocol to the new one ("upgrade"), back ("downgrade"), both
    /// ("bidirectional") or neither ("disabled"). A group without members may always.
    group_consumer_migration_policy: String = "group.consumer.migration.policy", default Some("bidirectional"),
        valid Check(migration_policy);

    /// The least that group.consumer.assignment.interval.ms, and a group's consumer.assignment.interval.ms, may be.
    group_consumer_min_assignment_interval_ms: i32 = "group.consumer.min.assignment.interval.ms", default Some("0"),
        valid AtLeast(0);

    /// The least that group.consumer.heartbeat.interval.ms, and a group's consumer.heartbeat.interval.ms, may be.
    group_consumer_min_heartbeat_interval_ms: i32 = "group.consumer.min.heartbeat.interval.ms", default Some("5000"),
        valid AtLeast(1);

    /// The least that group.consumer.session.timeout.ms, and a group's consumer.session.timeout.ms, may be.
    group_consumer_min_session_timeout_ms: i32 = "group.consumer.min.session.timeout.ms", default Some("45000"), valid AtLeast(1);

    /// Milliseconds after which patterns of groups of the new protocol are matched anew although no topic came or went: what a member
    /// may see could have changed. Without effect: every client may see every topic.
    group_consumer_regex_refresh_interval_ms: i32 = "group.consumer.regex.refresh.interval.ms", default Some("600000"),
        valid AtLeast(10000);

    /// Milliseconds of silence after which a member of a group of the new protocol is out. It has to be longer than
    /// group.consumer.heartbeat.interval.ms. Groups can override it.
    group_consumer_session_timeout_ms: i32 = "group.consumer.session.timeout.ms", default Some("45000"), valid AtLeast(1);

    /// Milliseconds for which records of groups are held back so that more are written together; -1: as the load has it. Without effect:
    /// what comes while a round of the journal is in flight always goes into the next one together.
    group_coordinator_append_linger_ms: i32 = "group.coordinator.append.linger.ms", default Some("-1"), valid AtLeast(-1);

    /// Threads for what the group coordinator does in the background. Without effect: groups have the broker's cores.
    group_coordinator_background_threads: i32 = "group.coordinator.background.threads", default Some("2"), valid AtLeast(1);

    /// The largest buffer in bytes that the group coordinator keeps for the next batch. Without effect: none is kept.
    group_coordinator_cached_buffer_max_bytes: i32 = "group.coordinator.cached.buffer.max.bytes", default Some("1048588"),
        valid AtLeast(524288);

    /// The protocols of groups that are served: "classic" always, and "consumer" (KIP-848) where it is named. "share" and "streams" may
    /// stand here, and are not served.
    group_coordinator_rebalance_protocols: Vec<String> = "group.coordinator.rebalance.protocols",
        default Some("classic,consumer"), valid Check(rebalance_protocols);

    /// Threads for the group coordinator. Without effect: groups have the broker's cores.
    group_coordinator_threads: i32 = "group.coordinator.threads", default Some("4"), valid AtLeast(1);

    /// Milliseconds for which a group that was empty waits for more members after the first one; begun anew while new ones come, up
    /// to their rebalance timeout.
    group_initial_rebalance_delay_ms: i32 = "group.initial.rebalance.delay.ms", default Some("3000"), valid AtLeast(0);

    /// The longest session timeout in milliseconds that a member of a group may ask for.
    group_max_session_timeout_ms: i32 = "group.max.session.timeout.ms", default Some("1800000"), valid AtLeast(0);

    /// The most members of a group.
    group_max_size: i32 = "group.max.size", default Some(INT_MAX), valid AtLeast(1);

    /// The shortest session timeout in milliseconds that a member of a group may ask for.
    group_min_session_timeout_ms: i32 = "group.min.session.timeout.ms", default Some("6000"), valid AtLeast(0);

    /// The listener by which brokers reach one another; it must be one of the listeners.
    inter_broker_listener_name: Option<String> = "inter.broker.listener.name", default None, valid Any;

    /// The security protocol of each listener name. Only PLAINTEXT is served so far; a listener with another one is an error.
    listener_security_protocol_map: Vec<String> = "listener.security.protocol.map",
        default Some("PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL"), valid Any;

    /// Where the broker listens: NAME://host:port entries. An empty host is every address of the machine. The default, unlike
    /// Kafka's, is the loopback address.
    listeners: Vec<String> = "listeners", default Some("PLAINTEXT://127.0.0.1:9092"), valid Any;

    /// Milliseconds between two searches for a log to compact, while there is none.
    log_cleaner_backoff_ms: i64 = "log.cleaner.backoff.ms", default Some("15000"), valid AtLeast(0);

    /// The memory in bytes that compaction takes to remember keys, 24 bytes each; with more keys a log is compacted in several
    /// goes.
    log_cleaner_dedupe_buffer_size: i64 = "log.cleaner.dedupe.buffer.size", default Some("134217728"), valid AtLeast(1048576);

    /// Milliseconds for which tombstones stay after the first compaction that meets them. Topics can override it.
    log_cleaner_delete_retention_ms: i64 = "log.cleaner.delete.retention.ms", default Some("86400000"), valid AtLeast(0);

    /// Whether topics with cleanup.policy=compact are compacted. One log is, at a time.
    log_cleaner_enable: bool = "log.cleaner.enable", default Some("true"), valid Any;

    /// How full the memory of log.cleaner.dedupe.buffer.size may be.
    log_cleaner_io_buffer_load_factor: f64 = "log.cleaner.io.buffer.load.factor", default Some("0.9"), valid Between(0, 1);

    /// How many bytes compaction reads or writes at once.
    log_cleaner_io_buffer_size: i32 = "log.cleaner.io.buffer.size", default Some("524288"), valid AtLeast(4096);

    /// How many bytes a second compaction may read and write, together. By default 50,000,000, or more where what is due on a core would take longer than a minute.
    log_cleaner_io_max_bytes_per_second: f64 = "log.cleaner.io.max.bytes.per.second", default Some(DOUBLE_MAX), valid AtLeast(1);

    /// Milliseconds after which a record is compacted whatever log.cleaner.min.cleanable.ratio says. Topics can override it.
    log_cleaner_max_compaction_lag_ms: i64 = "log.cleaner.max.compaction.lag.ms", default Some(LONG_MAX), valid AtLeast(1);

    /// The share of a compacted log that must be dirty before it is compacted. Topics can override it.
    log_cleaner_min_cleanable_ratio: f64 = "log.cleaner.min.cleanable.ratio", default Some("0.5"), valid Between(0, 1);

    /// Milliseconds for which a record of a compacted topic is left alone. Topics can override it.
    log_cleaner_min_compaction_lag_ms: i64 = "log.cleaner.min.compaction.lag.ms", default Some("0"), valid AtLeast(0);

    /// What happens to old segments: "delete" removes them by age and size, "compact" keeps the last value of each key. Topics
    /// can override it.
    log_cleanup_policy: Vec<String> = "log.cleanup.policy", default Some("delete"), valid OneOf(&["compact", "delete"]);

    /// The data directory, when log.dirs is not set. The default, unlike Kafka's, is "data" in the working directory.
    log_dir: String = "log.dir", default Some("data"), valid Check(one_directory);

    /// The data directory: one.
    log_dirs: Option<String> = "log.dirs", default None, valid Check(one_directory);

    /// Records after which a log is synced to the device. 1, the default here and not Kafka's: topics are durable. Topics can
    /// override it.
    log_flush_interval_messages: i64 = "log.flush.interval.messages", default Some("1"), valid AtLeast(1);

    /// Milliseconds after which what was written is synced to the device, where log.flush.interval.messages is over 1. Topics
    /// can override it.
    log_flush_interval_ms: Option<i64> = "log.flush.interval.ms", default None, valid AtLeast(0),
        synonyms ["log.flush.scheduler.interval.ms" * 1];

    /// The value of log.flush.interval.ms when that is not set.
    log_flush_scheduler_interval_ms: i64 = "log.flush.scheduler.interval.ms", default Some(LONG_MAX), valid AtLeast(0);

    /// Bytes of log for which there is an entry in the offset index and the time index. Topics can override it.
    log_index_interval_bytes: i32 = "log.index.interval.bytes", default Some("4096"), valid AtLeast(0);

    /// The largest size in bytes of a segment's index files. Topics can override it.
    log_index_size_max_bytes: i32 = "log.index.size.max.bytes", default Some("10485760"), valid AtLeast(4);

    /// How many milliseconds a record's timestamp may be ahead of the broker's clock. Topics can override it.
    log_message_timestamp_after_max_ms: i64 = "log.message.timestamp.after.max.ms", default Some("3600000"), valid AtLeast(0);

    /// How many milliseconds a record's timestamp may be behind the broker's clock. Topics can override it.
    log_message_timestamp_before_max_ms: i64 = "log.message.timestamp.before.max.ms", default Some(LONG_MAX), valid AtLeast(0);

    /// Whose clock a record's timestamp shows: the producer's ("CreateTime") or the broker's ("LogAppendTime"). Topics can
    /// override it.
    log_message_timestamp_type: String = "log.message.timestamp.type", default Some("CreateTime"),
        valid OneOf(&["CreateTime", "LogAppendTime"]);

    /// The bytes a partition may keep before its oldest segments are removed; -1: no limit. Topics can override it.
    log_retention_bytes: i64 = "log.retention.bytes", default Some("-1"), valid Any;

    /// Milliseconds between two searches for segments to remove.
    log_retention_check_interval_ms: i64 = "log.retention.check.interval.ms", default Some("300000"), valid AtLeast(1);

    /// Hours after which a segment is removed, when neither log.retention.ms nor log.retention.minutes is set; negative:
    /// never.
    log_retention_hours: i32 = "log.retention.hours", default Some("168"), valid Check(not_zero);

    /// Minutes after which a segment is removed, when log.retention.ms is not set; negative: never.
    log_retention_minutes: Option<i32> = "log.retention.minutes", default None, valid Check(not_zero),
        synonyms ["log.retention.hours" * 60];

    /// Milliseconds after which a segment is removed; negative: never. Topics can override it.
    log_retention_ms: Option<i64> = "log.retention.ms", default None, valid Check(not_zero),
        synonyms ["log.retention.minutes" * 60000, "log.retention.hours" * 3600000];

    /// Hours after which a new segment starts, when log.roll.ms is not set.
    log_roll_hours: i32 = "log.roll.hours", default Some("168"), valid AtLeast(1);

    /// At most so many hours are taken off the roll time at random, when log.roll.jitter.ms is not set.
    log_roll_jitter_hours: i32 = "log.roll.jitter.hours", default Some("0"), valid AtLeast(0);

    /// At most so many milliseconds are taken off the roll time at random. Topics can override it.
    log_roll_jitter_ms: Option<i64> = "log.roll.jitter.ms", default None, valid AtLeast(0),
        synonyms ["log.roll.jitter.hours" * 3600000];

    /// Milliseconds after which a new segment starts even if the last is not full. Topics can override it.
    log_roll_ms: Option<i64> = "log.roll.ms", default None, valid AtLeast(1),
        synonyms ["log.roll.hours" * 3600000];

    /// The size in bytes at which a new segment starts. Topics can override it.
    log_segment_bytes: i32 = "log.segment.bytes", default Some("1073741824"), valid AtLeast(1048576);

    /// Milliseconds between taking a segment out of the log and removing its files. Topics can override it.
    log_segment_delete_delay_ms: i64 = "log.segment.delete.delay.ms", default Some("60000"), valid AtLeast(0);

    /// The most connections at a time, over all listeners. Never more than the limit of file descriptors allows, up to half of which is
    /// kept for files.
    max_connections: i32 = "max.connections", default Some(INT_MAX), valid AtLeast(0);

    /// The most connections at a time from one address.
    max_connections_per_ip: i32 = "max.connections.per.ip", default Some(INT_MAX), valid AtLeast(0);

    /// How many fetch sessions (KIP-227) are remembered; 0: none, every fetch names its partitions.
    max_incremental_fetch_session_cache_slots: i32 = "max.incremental.fetch.session.cache.slots", default Some("1000"),
        valid AtLeast(0);

    /// The largest record batch, in bytes, as it came. Topics can override it.
    message_max_bytes: i32 = "message.max.bytes", default Some("1048588"), valid AtLeast(0);

    /// How many replicas must be in sync for a producer with acks=all. Topics can override it.
    min_insync_replicas: i32 = "min.insync.replicas", default Some("1"), valid AtLeast(1);

    /// The number of this broker in its cluster. The default, unlike Kafka's, is 1.
    node_id: i32 = "node.id", default Some("1"), valid AtLeast(0);

    /// The number of partitions of a topic that does not say one.
    num_partitions: i32 = "num.partitions", default Some("1"), valid AtLeast(1);

    /// The longest metadata that a client may keep with a committed offset, in characters of UTF-16 as with Kafka, whatever the name
    /// says.
    offset_metadata_max_bytes: i32 = "offset.metadata.max.bytes", default Some("4096"), valid Between(0, 32767);

    /// Milliseconds within which what groups say must be in the log: after that, whoever waits for it is told to ask again.
    offsets_commit_timeout_ms: i32 = "offsets.commit.timeout.ms", default Some("5000"), valid AtLeast(1);

    /// How many bytes of __consumer_offsets are read at a time when groups are loaded; 1 MiB where it is more, since a core's other work
    /// waits for each piece.
    offsets_load_buffer_size: i32 = "offsets.load.buffer.size", default Some("5242880"), valid AtLeast(1);

    /// Milliseconds between two searches for committed offsets that have expired.
    offsets_retention_check_interval_ms: i64 = "offsets.retention.check.interval.ms", default Some("600000"), valid AtLeast(1);

    /// Minutes for which committed offsets are kept after their group lost its last member, or, without members, after the commit.
    offsets_retention_minutes: i32 = "offsets.retention.minutes", default Some("10080"), valid AtLeast(1);

    /// How the records of groups are compressed: 0 not at all, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    offsets_topic_compression_codec: i32 = "offsets.topic.compression.codec", default Some("0"), valid Between(0, 4);

    /// The number of partitions of __consumer_offsets, when it is made.
    offsets_topic_num_partitions: i32 = "offsets.topic.num.partitions", default Some("50"), valid Between(1, 10000);

    /// The number of replicas of __consumer_offsets, when it is made; never more than there are brokers.
    offsets_topic_replication_factor: i32 = "offsets.topic.replication.factor", default Some("3"), valid AtLeast(1);

    /// The size in bytes of a segment of __consumer_offsets, when it is made.
    offsets_topic_segment_bytes: i32 = "offsets.topic.segment.bytes", default Some("104857600"), valid AtLeast(1048576);

    /// What this process is: a broker, alone or with the controller. A controller without a broker is not offered.
    process_roles: Vec<String> = "process.roles", default Some("broker,controller"), valid Check(with_broker);

    /// Milliseconds without a record after which an idempotent producer is forgotten.
    producer_id_expiration_ms: i32 = "producer.id.expiration.ms", default Some("86400000"), valid AtLeast(1);

    /// The bytes of requests that may wait in memory, over all connections, before sockets are no longer read; -1: no limit
    /// but the broker's memory.
    queued_max_request_bytes: i64 = "queued.max.request.bytes", default Some("-1"), valid AtLeast(-1);

    /// The number of cores, with one thread each; 0: all that the process may run on.
    ringlog_cores: i32 = "ringlog.cores", default Some("0"), valid AtLeast(0);

    /// The bytes of memory for groups, their members and their offsets, over all cores; beyond it no member and no new offset is
    /// taken.
    ringlog_group_memory_bytes: i64 = "ringlog.group.memory.bytes", default Some("268435456"), valid AtLeast(1048576);

    /// The size in bytes that each core's journal may grow to.
    ringlog_journal_bytes: i64 = "ringlog.journal.bytes", default Some("536870912"), valid AtLeast(16777216);

    /// The largest run of a partition's records, in bytes, that goes through the journal; a larger one goes straight to its segment and
    /// is synced there, where that is possible. 9223372036854775807: all go through the journal.
    ringlog_journal_run_max_bytes: i64 = "ringlog.journal.run.max.bytes", default Some("524288"), valid AtLeast(0);

    /// The bytes of memory for records that are not in their segments yet, over all cores; 0: worked out from the machine's. A batch that is
    /// larger than the share of a core is refused.
    ringlog_memory_bytes: i64 = "ringlog.memory.bytes", default Some("0"), valid Check(memory);

    /// Whether the broker looks in the background for what has rotted on the disk: every batch and index of every segment. What it
    /// finds is logged.
    ringlog_scrub_enable: bool = "ringlog.scrub.enable", default Some("true"), valid Any;

    /// Milliseconds from the beginning of one search for rot through all segments to that of the next; a search that takes longer is
    /// followed by the next at once. The first begins 30 seconds after the start, or after this time if that is shorter.
    ringlog_scrub_interval_ms: i64 = "ringlog.scrub.interval.ms", default Some("604800000"), valid AtLeast(1000);

    /// How many bytes a second the search for rot reads, over all cores. A read counts as 64 KiB at the least.
    ringlog_scrub_io_max_bytes_per_second: i64 = "ringlog.scrub.io.max.bytes.per.second", default Some("4194304"), valid AtLeast(65536);

    /// How many connections the kernel holds before the broker accepts them, per listener.
    socket_listen_backlog_size: i32 = "socket.listen.backlog.size", default Some("50"), valid AtLeast(1);

    /// The largest request in bytes; a larger one closes its connection.
    socket_request_max_bytes: i32 = "socket.request.max.bytes", default Some("104857600"), valid AtLeast(1);
}

fn no_authorizer(name: &str) -> Option<String> {
    (!name.is_empty())
        .then(|| "authorization is not implemented yet, and every client would be let in; accepted: no authorizer".to_owned())
}

fn one_directory(text: &str) -> Option<String> {
    if text.is_empty() {
        Some("Expected a directory".to_owned())
    } else {
        text.contains(',').then(|| "several data directories are not implemented yet; accepted: one directory".to_owned())
    }
}

fn assignors(text: &str) -> Option<String> {
    let names = super::definition::split_list(text);
    let are_known = !names.is_empty() && names.iter().all(|name| name == "uniform" || name == "range");
    (!are_known).then(|| "Accepted: uniform and range; assignors of one's own are not offered".to_owned())
}

fn rebalance_protocols(text: &str) -> Option<String> {
    const KNOWN: [&str; 4] = ["classic", "consumer", "share", "streams"];
    let names = super::definition::split_list(text);
    if !names.iter().all(|name| KNOWN.contains(&name.as_str())) {
        return Some(format!("String must be one of: {}", KNOWN.join(", ")));
    }
    (!names.iter().any(|name| name == "classic")).then(|| "Disabling the 'classic' protocol is not supported.".to_owned())
}

fn migration_policy(text: &str) -> Option<String> {
    let policies = ["bidirectional", "upgrade", "downgrade", "disabled"];
    let is_known = policies.iter().any(|policy| policy.eq_ignore_ascii_case(text));
    (!is_known).then(|| format!("Accepted: {}", policies.join(", ")))
}

fn not_zero(text: &str) -> Option<String> {
    (text.parse() == Ok(0_i64)).then(|| "Value must be unlimited (-1) or at least 1".to_owned())
}

fn with_broker(text: &str) -> Option<String> {
    let roles = super::definition::split_list(text);
    let is_accepted =
        roles.iter().all(|role| role == "broker" || role == "controller") && roles.iter().any(|role| role == "broker");
    (!is_accepted).then(|| "Accepted: broker or broker,controller".to_owned())
}

/// Less than this would not hold the tails of a few partitions.
const MEMORY_BYTES_MIN: i64 = 16 << 20;

fn memory(text: &str) -> Option<String> {
    let bytes: i64 = text.parse().ok()?;
    (bytes != 0 && bytes < MEMORY_BYTES_MIN).then(|| format!("Value must be 0 (automatic) or at least {MEMORY_BYTES_MIN}"))
}

/// A broker's whole configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// The options, each by itself.
    pub options: BrokerOptions,
    /// The number of this broker: node.id, else broker.id, else 1.
    pub node_id: i32,
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The configuration of a topic without overrides.
    pub topic_defaults: TopicConfig,
    /// The configuration of a group without overrides.
    pub group_defaults: GroupConfig,
    /// What was given, by name, as given.
    given: BTreeMap<&'static str, String>,
    /// The value of every broker option that has one.
    values: BTreeMap<&'static str, Value>,
    /// The value of every option of topics and groups, for one without overrides.
    inherited: BTreeMap<&'static str, Value>,
}

impl BrokerConfig {
    /// Reads the text of a `server.properties` file, if there is one, and then the overrides, which win. Also returns the
    /// names that no option has, in their order, once each: for one warning.
    ///
    /// # Errors
    /// All that is wrong, with the accepted values and, for the file, the line.
    pub fn load(file: Option<&str>, overrides: &[(String, String)]) -> Result<(Self, Vec<String>), ConfigError> {
        let from_file = match file.map(properties::parse).transpose() {
            Ok(properties) => properties.unwrap_or_default(),
            Err(syntax) => return Err(ConfigError::new(vec![syntax.into()])),
        };
        let entries = from_file
            .into_iter()
            .map(|property| (Some(property.line), property.key, property.value))
            .chain(overrides.iter().map(|(name, value)| (None, name.clone(), value.clone())));

        let mut unknown: Vec<String> = Vec::new();
        let mut given: BTreeMap<&'static str, (Option<usize>, String)> = BTreeMap::new();
        for (line, name, value) in entries {
            match definition(&name) {
                Some(definition) => {
                    given.insert(definition.name, (line, value));
                }
                None if unknown.contains(&name) => {}
                None => unknown.push(name),
            }
        }

        let mut problems = Vec::new();
        let mut values: BTreeMap<&'static str, Value> = BTreeMap::new();
        for definition in BROKER_DEFINITIONS {
            let value = match given.get(definition.name) {
                Some((line, text)) => match definition.parse(text) {
                    Ok(value) => Some(value),
                    Err(why) => {
                        problems.push(Problem::invalid(definition.name, text, why).on_line(*line));
                        definition.default_value()
                    }
                },
                None => definition.default_value(),
            };
            if let Some(value) = value {
                values.insert(definition.name, value);
            }
        }
        let given = given.into_iter().map(|(name, (_, text))| (name, text)).collect();
        let config = Self::from_values(values, given, &mut problems);
        if problems.is_empty() {
            return Ok((config, unknown));
        }
        problems.sort_by_key(|problem| problem.line().unwrap_or(usize::MAX));
        Err(ConfigError::new(problems))
    }

    /// Works out what follows from several options, pushing what does not fit together to `problems`.
    fn from_values(
        values: BTreeMap<&'static str, Value>,
        given: BTreeMap<&'static str, String>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let options = BrokerOptions::from_values(|name| values.get(name));
        let broker_id = (options.broker_id >= 0).then_some(options.broker_id);
        let node_id = if given.contains_key("node.id") { options.node_id } else { broker_id.unwrap_or(options.node_id) };
        if broker_id.is_some_and(|broker_id| broker_id != node_id) {
            let what = format!("broker.id ({}) must be the same as node.id ({node_id}), or left out", options.broker_id);
            problems.push(Problem::Conflict { what });
        }
        problems.extend(group::broker_conflicts(&options));
        let listeners = listeners::resolve(&options, problems);
        let inherited: BTreeMap<&'static str, Value> = super::topic::TOPIC_DEFINITIONS
            .iter()
            .chain(group::GROUP_DEFINITIONS)
            .map(|definition| (definition.name, inherit(definition, &values)))
            .collect();
        let topic_defaults = TopicConfig::from_values(|name| inherited.get(name));
        problems.extend(topic_defaults.conflict());
        Self {
            node_id,
            listeners,
            data_dir: PathBuf::from(options.log_dirs.as_ref().unwrap_or(&options.log_dir)),
            topic_defaults,
            group_defaults: GroupConfig::from_values(|name| inherited.get(name)),
            options,
            given,
            values,
            inherited,
        }
    }

    /// With another `segment.bytes` for topics that do not set it, smaller than any user may ask for: a simulation has not the time to
    /// fill large ones.
    #[must_use]
    pub fn with_segment_bytes(mut self, bytes: i32) -> Self {
        self.topic_defaults.segment_bytes = bytes;
        self.inherited.insert("segment.bytes", Value::Int(bytes));
        self
    }

    /// The text that was given for a broker option.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(|text| text.trim())
    }

    /// The value of a broker option, given or by default.
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// The value of an option of topics or groups for one that does not override it.
    pub(super) fn inherited(&self, definition: &Definition) -> Option<&Value> {
        self.inherited.get(definition.name)
    }
}

/// The value of an option that its topic or group does not override: of the first synonym that has a value, given or by default.
fn inherit(definition: &Definition, values: &BTreeMap<&'static str, Value>) -> Value {
    let synonym = definition.synonyms.iter().find_map(|synonym| Some((values.get(synonym.name)?, synonym.factor)));
    let Some((value, factor)) = synonym else {
        let Some(value) = definition.default_value() else { panic!("{} has neither a default nor a synonym", definition.name) };
        return value;
    };
    let scaled = |number: i64| {
        let number = number.saturating_mul(factor);
        // Any negative retention of the broker means "no limit"; a topic says that with -1 alone.
        if let Valid::AtLeast(min) = definition.valid { number.max(min) } else { number }
    };
    match (definition.value_type, value) {
        (ValueType::Long, Value::Long(number)) => Value::Long(scaled(*number)),
        (ValueType::Long, Value::Int(number)) => Value::Long(scaled(i64::from(*number))),
        (_, value) => value.clone(),
    }
}

/// The definition of the broker option with this name.
#[must_use]
pub fn definition(name: &str) -> Option<&'static Definition> {
    BROKER_DEFINITIONS.iter().find(|definition| definition.name == name)
}
