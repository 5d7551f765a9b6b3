//! The tables of options as a whole, precedence between them, and what is said about wrong values.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::definition::{Definition, Valid, ValueType};
use super::*;

fn load(text: &str) -> Result<(BrokerConfig, Vec<String>), ConfigError> {
    BrokerConfig::load(Some(text), &[])
}

fn broker(text: &str) -> BrokerConfig {
    load(text).unwrap().0
}

fn error(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

fn overrides(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn topic(broker: &BrokerConfig, entries: &[(&str, &str)]) -> Result<TopicConfig, ConfigError> {
    TopicConfig::resolve(broker, &overrides(entries))
}

#[test]
fn tables_are_sorted_documented_and_their_defaults_valid() {
    for table in [TOPIC_DEFINITIONS, GROUP_DEFINITIONS, BROKER_DEFINITIONS] {
        assert!(table.is_sorted_by_key(|definition| definition.name));
        for Definition { name, doc, synonyms, .. } in table {
            assert!(doc.trim().len() > 20 && doc.trim().ends_with('.'), "{name}: {doc}");
            for synonym in *synonyms {
                let of = broker::definition(synonym.name).unwrap_or_else(|| panic!("{name}: {}", synonym.name));
                assert!(of.synonyms.iter().all(|next| synonyms.iter().any(|other| other.name == next.name)), "{name}");
            }
        }
        for definition in table {
            assert_eq!(definition.default_value().is_some(), definition.default.is_some());
        }
    }
    for definition in TOPIC_DEFINITIONS.iter().chain(GROUP_DEFINITIONS) {
        assert!(definition.default.is_some() == definition.synonyms.is_empty(), "{}: one source of the default", definition.name);
        let ranges = definition.synonyms.iter().filter(|synonym| synonym.factor == 1).map(|synonym| synonym.name);
        for broker_definition in ranges.filter_map(broker::definition) {
            assert_eq!(definition.value_type, broker_definition.value_type, "{}", definition.name);
            // Retention is the exception: every negative value of the broker means "no limit".
            if definition.name != "retention.ms" {
                assert_eq!(definition.valid.to_string(), broker_definition.valid.to_string(), "{}", definition.name);
            }
        }
    }
}

#[test]
fn defaults_are_kafkas_but_for_what_the_documentation_names() {
    let (config, unknown) = BrokerConfig::load(None, &[]).unwrap();
    assert!(unknown.is_empty());
    assert_eq!(config.node_id, 1);
    assert_eq!(config.data_dir.to_str(), Some("data"));
    let address = HostPort { host: "127.0.0.1".to_owned(), port: 9092 };
    let listener = Listener { name: "PLAINTEXT".to_owned(), bind: address.clone(), advertised: Some(address) };
    assert_eq!(config.listeners, [listener]);
    let topic = &config.topic_defaults;
    assert_eq!(topic, &TopicConfig::resolve(&config, &BTreeMap::new()).unwrap());
    assert!(topic.is_durable() && topic.deletes_old_segments());
    assert_eq!(topic.flush_ms, i64::MAX);
    assert_eq!(topic.retention_ms, 7 * 24 * 3_600_000);
    assert_eq!(topic.segment_ms, 7 * 24 * 3_600_000);
    assert_eq!(topic.segment_bytes, 1 << 30);
    assert_eq!(topic.retention_bytes, -1);
    assert_eq!(topic.max_message_bytes, 1_048_588);
    assert_eq!(topic.index_interval_bytes, 4096);
    assert_eq!(topic.segment_index_bytes, 10 << 20);
    assert_eq!(topic.cleanup_policy, ["delete"]);
    assert_eq!(topic.message_timestamp_after_max_ms, 3_600_000);
    assert_eq!(topic.message_timestamp_before_max_ms, i64::MAX);
    assert!(!topic.has_log_append_time());
}

#[test]
fn a_stock_server_properties_of_kafka_works() {
    let (config, unknown) = load(
        "process.roles=broker,controller\nnode.id=7\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
         listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
         advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\ncontroller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT\n\
         num.network.threads=3\nsocket.request.max.bytes=104857600\nlog.dirs=/tmp/logs\nnum.partitions=1\n\
         num.network.threads=4\nlog.retention.hours=168\nlog.segment.bytes=1073741824\n",
    )
    .unwrap();
    assert_eq!(config.node_id, 7);
    assert_eq!(config.data_dir.to_str(), Some("/tmp/logs"));
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].advertised.as_ref().unwrap().to_string(), "localhost:9092");
    assert!(config.listeners[0].bind.is_wildcard());
    assert_eq!(unknown, ["controller.quorum.bootstrap.servers", "num.network.threads"]);
}

#[test]
fn overrides_win_over_the_file_and_later_over_earlier() {
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let overrides = [set("num.partitions", "3"), set("num.partitions", "4"), set("no.such", "x"), set("no.such", "y")];
    let (config, unknown) = BrokerConfig::load(Some("num.partitions=1\nnum.partitions=2"), &overrides).unwrap();
    assert_eq!(config.options.num_partitions, 4);
    assert_eq!(unknown, ["no.such"]);
    assert_eq!(broker("num.partitions=1\nnum.partitions=2").options.num_partitions, 2);
}

#[test]
fn the_finer_unit_wins() {
    let retention = |text: &str| broker(text).topic_defaults.retention_ms;
    assert_eq!(retention("log.retention.hours=2"), 7_200_000);
    assert_eq!(retention("log.retention.minutes=3\nlog.retention.hours=2"), 180_000);
    assert_eq!(retention("log.retention.hours=2\nlog.retention.ms=4\nlog.retention.minutes=3"), 4);
    assert_eq!(retention("log.retention.ms=-1\nlog.retention.hours=2"), -1);
    assert_eq!(retention("log.retention.hours=-5"), -1);
    assert_eq!(broker("log.roll.hours=1").topic_defaults.segment_ms, 3_600_000);
    assert_eq!(broker("log.roll.hours=1\nlog.roll.ms=5").topic_defaults.segment_ms, 5);
    assert_eq!(broker("log.roll.jitter.hours=1").topic_defaults.segment_jitter_ms, 3_600_000);
    assert_eq!(broker("log.flush.scheduler.interval.ms=9").topic_defaults.flush_ms, 9);
    assert_eq!(broker("log.flush.interval.ms=8\nlog.flush.scheduler.interval.ms=9").topic_defaults.flush_ms, 8);
    assert_eq!(broker("log.dir=a\nlog.dirs=b").data_dir.to_str(), Some("b"));
    assert_eq!(broker("log.dir=a").data_dir.to_str(), Some("a"));
}

#[test]
fn node_id_goes_before_broker_id_and_must_not_contradict_it() {
    assert_eq!(broker("broker.id=4").node_id, 4);
    assert_eq!(broker("node.id=5").node_id, 5);
    assert_eq!(broker("node.id=4\nbroker.id=4").node_id, 4);
    assert_eq!(broker("node.id=0").node_id, 0);
    assert!(error("node.id=5\nbroker.id=4").contains("broker.id (4) must be the same as node.id (5)"));
}

#[test]
fn every_wrong_value_is_named_with_what_is_accepted() {
    let wrong = load("num.partitions=0\n\nlog.segment.bytes=12\nauto.create.topics.enable=yes\nfetch.max.bytes=1k").unwrap_err();
    let texts: Vec<String> = wrong.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "line 1: Invalid value 0 for configuration num.partitions: Value must be at least 1",
            "line 3: Invalid value 12 for configuration log.segment.bytes: Value must be at least 1048576",
            "line 4: Invalid value yes for configuration auto.create.topics.enable: Expected value to be either true or false",
            "line 5: Invalid value 1k for configuration fetch.max.bytes: Not a number of type INT, accepted: [1024,...]",
        ]
    );
    assert!(error("a=\\u1").starts_with("line 1: \\u must"));
    assert!(error("log.dirs=a,b").contains("one directory"));
    assert!(error("log.cleanup.policy=delete,shred").contains("String must be one of: compact, delete"));
    let lag = error("log.cleaner.min.compaction.lag.ms=5\nlog.cleaner.max.compaction.lag.ms=4");
    assert!(lag.contains("min.compaction.lag.ms (5) > max.compaction.lag.ms (4)"), "{lag}");
    assert!(error("compression.type=zstd").contains("accepted: producer"));
    assert!(error("authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer").contains("authorization"));
    assert!(error("process.roles=controller").contains("Accepted: broker"));
    assert!(error("log.retention.ms=0").contains("unlimited"));
    assert!(error("ringlog.memory.bytes=5").contains("automatic"));
    let from_override = BrokerConfig::load(None, &[("num.partitions".to_owned(), "x".to_owned())]).unwrap_err();
    let expected = "Invalid value x for configuration num.partitions: Not a number of type INT, accepted: [1,...]";
    assert_eq!(from_override.to_string(), expected);
}

#[test]
fn listeners_are_checked_together() {
    let config = broker(
        "listeners=internal://[::1]:1,PUBLIC://0.0.0.0:2,ANY://:0\nadvertised.listeners=PUBLIC://broker.example:3\nlistener.security.protocol.map=INTERNAL:PLAINTEXT,PUBLIC:plaintext,any:PLAINTEXT",
    );
    let shown: Vec<_> = config.listeners.iter().map(|listener| (listener.name.as_str(), listener.bind.to_string())).collect();
    assert_eq!(shown, [("INTERNAL", "[::1]:1".to_owned()), ("PUBLIC", "0.0.0.0:2".to_owned()), ("ANY", ":0".to_owned())]);
    let advertised: Vec<_> =
        config.listeners.iter().map(|listener| listener.advertised.as_ref().map(ToString::to_string)).collect();
    assert_eq!(advertised, [Some("[::1]:1".to_owned()), Some("broker.example:3".to_owned()), None]);

    assert!(error("listeners=SSL://:9093").contains("SSL, which is not implemented yet; accepted: PLAINTEXT"));
    assert!(error("listeners=X://:9093").contains("no security protocol for listener X"));
    assert!(error("listeners=PLAINTEXT://:1,PLAINTEXT://:2").contains("different name"));
    let map = "listener.security.protocol.map=A:PLAINTEXT,B:PLAINTEXT\n";
    assert!(error(&format!("{map}listeners=A://:1,B://127.0.0.1:1")).contains("two listeners on port 1"));
    assert_eq!(broker(&format!("{map}listeners=A://127.0.0.2:1,B://127.0.0.1:1")).listeners.len(), 2);
    assert_eq!(broker(&format!("{map}listeners=A://[::1]:1,B://127.0.0.1:1")).listeners.len(), 2);
    assert!(error("advertised.listeners=PLAINTEXT://0.0.0.0:1").contains("clients can connect to"));
    assert!(error("advertised.listeners=OTHER://h:1").contains("OTHER is not one of the listeners (PLAINTEXT)"));
    assert!(error("listeners=").contains("at least one listener"));
    assert!(error("listeners=PLAINTEXT://:9\ncontroller.listener.names=PLAINTEXT").contains("at least one listener"));
    for wrong in [
        "PLAINTEXT",
        "PLAINTEXT://",
        "PLAINTEXT://h",
        "PLAINTEXT://h:",
        "PLAINTEXT://h:70000",
        "://h:1",
        "A B://h:1",
        "PLAINTEXT://::1:9",
        "PLAINTEXT://h h:1",
        "PLAINTEXT://h:-1",
    ] {
        assert!(error(&format!("listeners={wrong}")).contains("for configuration listeners"), "{wrong}");
    }
    for wrong in ["PLAINTEXT", "PLAINTEXT:TELNET", ":SSL", "A:SSL,A:PLAINTEXT"] {
        assert!(error(&format!("listener.security.protocol.map={wrong}")).contains("listener.security.protocol.map"), "{wrong}");
    }
    assert!(error("inter.broker.listener.name=X").contains("inter.broker.listener.name: X"));
}

#[test]
fn topic_overrides_win_and_are_checked_as_kafka_does() {
    let config = broker("log.retention.hours=2\nlog.flush.interval.messages=100");
    assert!(!config.topic_defaults.is_durable());
    let durable = topic(&config, &[("flush.messages", " 1 "), ("retention.ms", "5")]).unwrap();
    assert!(durable.is_durable());
    assert!(!topic(&config, &[("cleanup.policy", "")]).unwrap().deletes_old_segments());
    assert_eq!(durable.retention_ms, 5);
    assert_eq!(topic(&config, &[]).unwrap().retention_ms, 7_200_000);

    let error = |name, value| topic(&config, &[(name, value)]).unwrap_err().to_string();
    assert_eq!(error("no.such", "1"), "Unknown topic config name: no.such");
    assert_eq!(error("ringlog.cores", "1"), "Unknown topic config name: ringlog.cores");
    assert_eq!(error("retention.ms", "-2"), "Invalid value -2 for configuration retention.ms: Value must be at least -1");
    assert_eq!(
        error("segment.bytes", "99999999999"),
        "Invalid value 99999999999 for configuration segment.bytes: Not a number of type INT, accepted: [1048576,...]"
    );
    assert_eq!(
        error("message.timestamp.type", "x"),
        "Invalid value x for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime"
    );
    assert!(error("cleanup.policy", "shred").ends_with("String must be one of: compact, delete"));
    let compacted = topic(&broker("log.cleaner.min.cleanable.ratio=0.1"), &[("cleanup.policy", "compact, delete")]).unwrap();
    assert_eq!((compacted.is_compacted(), compacted.deletes_old_segments()), (true, true));
    assert_eq!((compacted.min_cleanable_dirty_ratio, compacted.delete_retention_ms), (0.1, 86_400_000));
    assert!(error("compression.type", "gzip").ends_with("accepted: producer"));
    assert!(error("preallocate", "true").ends_with("accepted: false"));
    assert!(error("min.cleanable.dirty.ratio", "1.5").ends_with("Value must be no more than 1"));
    assert!(error("compression.gzip.level", "0").ends_with("Value must be between 1 and 9 or equal to -1"));
    let both = topic(&config, &[("a", "1"), ("retention.ms", "x")]).unwrap_err();
    assert_eq!(both.problems().len(), 2);
    let lag = topic(&config, &[("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "4")]).unwrap_err();
    assert!(lag.to_string().contains("min.compaction.lag.ms (5) > max.compaction.lag.ms (4)"));
}

#[test]
fn the_brokers_options_of_groups_are_checked_together() {
    assert_eq!(
        error("group.consumer.session.timeout.ms=10000"),
        "group.consumer.session.timeout.ms (10000) must be greater than or equal to group.consumer.min.session.timeout.ms (45000)"
    );
    assert_eq!(
        error("group.consumer.heartbeat.interval.ms=15001"),
        "group.consumer.heartbeat.interval.ms (15001) must be less than or equal to group.consumer.max.heartbeat.interval.ms (15000)"
    );
    assert!(error("group.consumer.assignment.interval.ms=15001").contains("group.consumer.max.assignment.interval.ms"));
    assert_eq!(
        error("group.consumer.min.session.timeout.ms=60001"),
        "group.consumer.max.session.timeout.ms (60000) must be greater than or equal to group.consumer.min.session.timeout.ms (60001)"
    );
    let beats = "group.consumer.min.session.timeout.ms=5000\ngroup.consumer.session.timeout.ms=5000";
    assert!(error(beats).contains("must be less than group.consumer.session.timeout.ms (5000)"));
    assert!(error("group.coordinator.rebalance.protocols=consumer").contains("'classic'"));
    assert!(error("group.coordinator.rebalance.protocols=classic,x").contains("classic, consumer, share, streams"));
    assert!(error("offsets.topic.compression.codec=5").contains("no more than 4"));
    assert!(error("group.consumer.regex.refresh.interval.ms=1").contains("at least 10000"));
    let (_, unknown) = load("group.coordinator.rebalance.protocols=classic,consumer,streams\ngroup.share.max.size=5").unwrap();
    assert_eq!(unknown, ["group.share.max.size"]);
}

const SESSION: &str = "consumer.session.timeout.ms";
const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";
const ASSIGNMENT: &str = "consumer.assignment.interval.ms";

#[test]
fn overrides_of_a_group_are_checked_as_kafka_does() {
    let config = broker("group.consumer.heartbeat.interval.ms=6000");
    let group = |entries: &[(&str, &str)]| GroupConfig::resolve(&config, &overrides(entries));
    assert_eq!(group(&[]), Ok(config.group_defaults));
    let own = group(&[(SESSION, " 50000 "), (ASSIGNMENT, "2000")]).unwrap();
    assert_eq!(
        own,
        GroupConfig {
            consumer_session_timeout_ms: 50_000,
            consumer_heartbeat_interval_ms: 6000,
            consumer_assignment_interval_ms: 2000
        }
    );
    let error = |name, value| group(&[(name, value)]).unwrap_err().to_string();
    assert_eq!(error("no.such", "1"), "Unknown group config name: no.such");
    assert_eq!(
        error(SESSION, "1"),
        "consumer.session.timeout.ms (1) must be greater than or equal to group.consumer.min.session.timeout.ms (45000)"
    );
    assert_eq!(
        error(HEARTBEAT, "55000"),
        "consumer.heartbeat.interval.ms (55000) must be less than or equal to group.consumer.max.heartbeat.interval.ms (15000)"
    );
    assert_eq!(
        error(ASSIGNMENT, "-1"),
        "Invalid value -1 for configuration consumer.assignment.interval.ms: Value must be at least 0"
    );
    assert!(
        error(SESSION, "x")
            .starts_with("Invalid value x for configuration consumer.session.timeout.ms: Not a number of type INT")
    );
    assert!(error("share.session.timeout.ms", "50000").contains("share groups are not served; accepted: consumer.assignment"));
    assert!(error("streams.num.standby.replicas", "1").contains("streams groups are not served"));
    assert_eq!(group(&[("a", "1"), (SESSION, "1"), (HEARTBEAT, "x")]).unwrap_err().problems().len(), 3);
    let wide = broker("group.consumer.max.heartbeat.interval.ms=60000");
    let late = GroupConfig::resolve(&wide, &overrides(&[(HEARTBEAT, "45000")])).unwrap_err().to_string();
    assert_eq!(late, "consumer.session.timeout.ms (45000) must be greater than consumer.heartbeat.interval.ms (45000)");
}

#[test]
fn overrides_that_do_not_hold_any_more_are_taken_into_the_bounds() {
    let config = broker(
        "group.consumer.max.session.timeout.ms=46000\ngroup.consumer.min.assignment.interval.ms=500\ngroup.consumer.assignment.interval.ms=500",
    );
    let own = overrides(&[(SESSION, "50000"), (HEARTBEAT, "7000"), (ASSIGNMENT, "0"), ("later.option", "1")]);
    let (effective, warnings) = GroupConfig::effective(&config, &own);
    assert_eq!(
        effective,
        GroupConfig {
            consumer_session_timeout_ms: 46_000,
            consumer_heartbeat_interval_ms: 7000,
            consumer_assignment_interval_ms: 500
        }
    );
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.ends_with("taken as 46000")), "{warnings:?}");
    let (effective, warnings) = GroupConfig::effective(&config, &overrides(&[(SESSION, "x")]));
    assert_eq!((effective, warnings.len()), (config.group_defaults, 1));
    let short = broker("group.consumer.min.session.timeout.ms=10000\ngroup.consumer.session.timeout.ms=10000");
    let (effective, warnings) = GroupConfig::effective(&short, &overrides(&[(HEARTBEAT, "15000"), (ASSIGNMENT, "7")]));
    assert_eq!(
        effective,
        GroupConfig { consumer_assignment_interval_ms: 7, ..short.group_defaults },
        "nobody is told to come too late"
    );
    assert_eq!(warnings.len(), 1, "{warnings:?}");

    let shown = describe_group(&config, &own, None);
    assert_eq!(shown.iter().map(|entry| entry.name).collect::<Vec<_>>(), [ASSIGNMENT, HEARTBEAT, SESSION]);
    assert_eq!((shown[2].value.as_deref(), shown[2].source.code()), (Some("50000"), 8), "as it was set");
    assert!(!shown[2].is_read_only);
    let sources: Vec<_> = shown[2].synonyms.iter().map(|synonym| (synonym.name, synonym.source.code())).collect();
    assert_eq!(sources, [(SESSION, 8), ("group.consumer.session.timeout.ms", 5)]);
    let inherited = describe_group(&config, &BTreeMap::new(), Some(&[ASSIGNMENT])).remove(0);
    assert_eq!((inherited.value.as_deref(), inherited.source), (Some("500"), ConfigSource::StaticBrokerConfig));
}

#[test]
fn describe_says_where_a_value_comes_from() {
    let config = broker("log.retention.hours=2");
    let entry = |broker: &BrokerConfig, entries: &[(&str, &str)]| {
        let mut shown = describe_topic(broker, &overrides(entries), Some(&["retention.ms"]));
        assert_eq!(shown.len(), 1);
        shown.remove(0)
    };
    let synonyms = |entry: &ConfigEntry| -> Vec<(&str, String, i8)> {
        entry.synonyms.iter().map(|synonym| (synonym.name, synonym.value.clone(), synonym.source.code())).collect()
    };
    let overridden = entry(&config, &[("retention.ms", "5")]);
    assert_eq!(overridden.value.as_deref(), Some("5"));
    assert_eq!(overridden.source, ConfigSource::DynamicTopicConfig);
    assert!(!overridden.is_read_only && !overridden.is_sensitive);
    assert_eq!(overridden.value_type, ValueType::Long);
    assert!(overridden.documentation.starts_with("Milliseconds after which"));
    assert_eq!(
        synonyms(&overridden),
        [
            ("retention.ms", "5".to_owned(), 1),
            ("log.retention.hours", "2".to_owned(), 4),
            ("log.retention.hours", "168".to_owned(), 5)
        ]
    );
    let from_file = entry(&config, &[]);
    assert_eq!((from_file.value.as_deref(), from_file.source), (Some("7200000"), ConfigSource::StaticBrokerConfig));
    let by_default = entry(&broker(""), &[]);
    assert_eq!((by_default.value.as_deref(), by_default.source), (Some("604800000"), ConfigSource::DefaultConfig));
    assert_eq!(synonyms(&by_default), [("log.retention.hours", "168".to_owned(), 5)]);

    assert_eq!(describe_topic(&config, &BTreeMap::new(), None).len(), TOPIC_DEFINITIONS.len());
    let shown = describe_broker(&config, None);
    assert_eq!(shown.len(), BROKER_DEFINITIONS.len());
    assert!(shown.iter().all(|entry| entry.is_read_only));
    let retention = shown.iter().find(|entry| entry.name == "log.retention.ms").unwrap();
    assert_eq!(retention.value, None);
    let hours = shown.iter().find(|entry| entry.name == "log.retention.hours").unwrap();
    assert_eq!((hours.value.as_deref(), hours.source), (Some("2"), ConfigSource::StaticBrokerConfig));
    assert!(describe_broker(&config, Some(&["no.such"])).is_empty());
}

/// With `RINGLOG_WRITE_DOCS` set, writes the page instead.
#[test]
fn the_documentation_is_made_from_the_tables() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    if std::env::var_os("RINGLOG_WRITE_DOCS").is_some() {
        std::fs::write(path, reference::markdown()).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == reference::markdown(),
        "docs/configuration.md is out of date: run this test with RINGLOG_WRITE_DOCS=1"
    );
}

#[test]
fn entries_of_a_list_stand_without_blanks() {
    assert_eq!(definition::split_list(" a , b,c d "), ["a", "b", "c d"]);
    assert!(definition::split_list(" ").is_empty());
    assert_eq!(topic(&broker(""), &[("cleanup.policy", "delete , delete")]).unwrap().cleanup_policy, ["delete", "delete"]);
    assert!(topic(&broker(""), &[("cleanup.policy", "delete,,delete")]).is_err());
}

#[test]
fn ranges_print_as_kafka_prints_them() {
    assert_eq!(Valid::AtLeast(1).to_string(), "[1,...]");
    assert_eq!(Valid::OrBetween(-1, 1, 9).to_string(), "[1,...,9] or -1");
    assert_eq!(Valid::OneOf(&["a", "b"]).to_string(), "[a, b]");
}

proptest! {
    #[test]
    fn whatever_is_given_is_accepted_or_refused_with_its_name(
        name in prop::sample::select(BROKER_DEFINITIONS.iter().map(|definition| definition.name).collect::<Vec<_>>()),
        value in "-?[0-9]{1,19}|true|[a-z,:/\\[\\]]{0,9}|PLAINTEXT://[a-z:0-9]{0,9}",
    ) {
        match BrokerConfig::load(None, &[(name.to_owned(), value)]) {
            Ok((config, unknown)) => {
                prop_assert!(unknown.is_empty());
                prop_assert!(!config.listeners.is_empty());
                prop_assert!(TopicConfig::resolve(&config, &BTreeMap::new()).is_ok());
            }
            Err(error) => prop_assert!(error.to_string().contains(name) || error.to_string().contains("listener"), "{}", error),
        }
    }

    #[test]
    fn a_value_that_is_shown_is_read_back_the_same(
        definition in prop::sample::select(TOPIC_DEFINITIONS.iter().collect::<Vec<_>>()),
        text in "-?[0-9]{1,12}|0\\.[0-9]|true|false|CreateTime|delete|producer|",
    ) {
        if let Ok(value) = definition.parse(&text) {
            prop_assert_eq!(definition.parse(&value.to_string()), Ok(value));
        }
    }
}
