//! The rules of the commands, one by one, with Kafka's codes.

use ringlog_engine::types::TopicId;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::create_partitions::{CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic};
use ringlog_protocol::api::create_topics::{CreatableReplicaAssignment, CreatableTopic};
use ringlog_protocol::api::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use ringlog_protocol::api::{alter_configs as legacy, incremental_alter_configs as incremental};

use super::{broker, catalogue, commit, create, ids, topic};
use crate::catalogue::commands::*;
use crate::catalogue::records::{RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC};
use crate::catalogue::state::Catalogue;
use crate::config::TopicConfig;

fn create_one(catalogue: &Catalogue, file: &str, topic: CreatableTopic<'_>) -> (ErrorCode, String) {
    let plan = create_topics(catalogue, &broker(file), &create(vec![topic]), &mut ids());
    assert_eq!(plan.answers.len(), 1);
    assert_eq!(plan.records.is_empty(), !plan.answers[0].error_code.is_none());
    (plan.answers[0].error_code, plan.answers[0].error_message.clone().unwrap_or_default().into_owned())
}

#[test]
fn a_topic_is_created_with_partitions_and_settings() {
    let mut state = Catalogue::default();
    let request = create(vec![topic("orders", 3, &[("retention.ms", "5")]), topic("by.default", -1, &[])]);
    let plan = create_topics(&state, &broker("node.id=7\nnum.partitions=2"), &request, &mut ids());
    let answer = &plan.answers[0];
    assert_eq!((answer.error_code, answer.num_partitions, answer.replication_factor), (ErrorCode::NONE, 3, 1));
    let retention = answer.configs.as_ref().unwrap().iter().find(|config| config.name == "retention.ms").unwrap();
    assert_eq!((retention.value.as_deref(), retention.config_source), (Some("5"), 1));
    assert!(state.topic("orders").is_none(), "a plan changes nothing");

    commit(&mut state, &plan.records);
    let orders = state.topic("orders").unwrap();
    assert_eq!(orders.id.0, answer.topic_id);
    assert_eq!(orders.partitions.len(), 3);
    assert!(orders.partitions.iter().all(|partition| partition.replicas == [7] && partition.isr == [7] && partition.leader == 7));
    assert_eq!(orders.config_overrides.get("retention.ms").map(String::as_str), Some("5"));
    assert_eq!(state.topic("by.default").unwrap().partitions.len(), 2);
    assert_eq!(state.partition_count(), 5);
    assert!(orders.partition(3).is_none() && orders.partition(-1).is_none());
    assert_eq!(state.topics_from("c").map(|topic| &*topic.name).collect::<Vec<_>>(), ["orders"]);
}

#[test]
fn creation_is_refused_with_kafkas_codes() {
    let state = catalogue(&[("a.b", 1)]);
    let (longest, too_long) = ("a".repeat(249), "a".repeat(250));
    let refused = |topic| create_one(&state, "", topic);
    assert_eq!(refused(topic("a.b", 1, &[])), (ErrorCode::TOPIC_ALREADY_EXISTS, "Topic 'a.b' already exists.".to_owned()));
    let collides = "Topic 'a_b' collides with existing topic: a.b".to_owned();
    assert_eq!(refused(topic("a_b", 1, &[])), (ErrorCode::INVALID_TOPIC_EXCEPTION, collides));
    for (name, why) in [
        ("", "the empty string is not allowed"),
        (".", "'.' is not allowed"),
        ("..", "'..' is not allowed"),
        ("a b", "other than ASCII alphanumerics"),
        ("a/b", "other than ASCII alphanumerics"),
        ("ä", "other than ASCII alphanumerics"),
        (&too_long, "longer than the max allowed length 249"),
    ] {
        let (code, message) = refused(topic(name, 1, &[]));
        assert_eq!(code, ErrorCode::INVALID_TOPIC_EXCEPTION, "{name}");
        assert!(message.contains(why), "{message}");
    }
    assert_eq!(refused(topic(&longest, 1, &[])).0, ErrorCode::NONE);
    assert_eq!(refused(topic("__cluster_metadata", 1, &[])).0, ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    assert_eq!(refused(topic("__consumer_offsets", 1, &[])).0, ErrorCode::NONE);
    assert_eq!(refused(topic("x", 0, &[])).0, ErrorCode::INVALID_PARTITIONS);
    assert_eq!(refused(topic("x", -2, &[])).0, ErrorCode::INVALID_PARTITIONS);
    assert_eq!(refused(topic("x", i32::MAX, &[])).0, ErrorCode::POLICY_VIOLATION);
    for factor in [0, -2, 2, i16::MAX] {
        let topic = CreatableTopic { replication_factor: factor, ..topic("x", 1, &[]) };
        assert_eq!(refused(topic).0, ErrorCode::INVALID_REPLICATION_FACTOR, "{factor}");
    }
    assert_eq!(create_one(&state, "default.replication.factor=3", topic("x", 1, &[])).0, ErrorCode::INVALID_REPLICATION_FACTOR);
    let unknown = "Unknown topic config name: no.such".to_owned();
    assert_eq!(refused(topic("x", 1, &[("no.such", "1")])), (ErrorCode::INVALID_CONFIG, unknown));
    let (code, message) = refused(topic("x", 1, &[("segment.bytes", "1")]));
    assert_eq!(code, ErrorCode::INVALID_CONFIG);
    assert!(message.contains("segment.bytes: Value must be at least 1048576"), "{message}");
    let mut without_value = topic("x", 1, &[("retention.ms", "1")]);
    without_value.configs[0].value = None;
    assert_eq!(refused(without_value).0, ErrorCode::INVALID_CONFIG);
}

#[test]
fn names_are_compared_within_one_request_too() {
    let request = create(vec![topic("a", 1, &[]), topic("b.c", 1, &[]), topic("a", 2, &[]), topic("b_c", 1, &[])]);
    let mut state = Catalogue::default();
    let plan = create_topics(&state, &broker(""), &request, &mut ids());
    let answers: Vec<_> = plan.answers.iter().map(|answer| (&*answer.name, answer.error_code)).collect();
    let expected = [("a", ErrorCode::INVALID_REQUEST), ("b.c", ErrorCode::NONE), ("b_c", ErrorCode::INVALID_TOPIC_EXCEPTION)];
    assert_eq!(answers, expected);
    commit(&mut state, &plan.records);
    assert_eq!(state.topics().len(), 1);
    // Once the other is gone, the name is free.
    let request = DeleteTopicsRequest { topic_names: vec!["b.c".into()], ..DeleteTopicsRequest::default() };
    let deletion = delete_topics(&state, &broker(""), &request);
    commit(&mut state, &deletion.records);
    assert_eq!(create_one(&state, "", topic("b_c", 1, &[])).0, ErrorCode::NONE);
}

#[test]
fn one_request_creates_a_bounded_number_of_partitions() {
    let state = Catalogue::default();
    let request = create(vec![topic("a", 9_999, &[]), topic("b", 2, &[]), topic("c", 1, &[])]);
    let plan = create_topics(&state, &broker(""), &request, &mut ids());
    let codes: Vec<_> = plan.answers.iter().map(|answer| answer.error_code).collect();
    assert_eq!(codes, [ErrorCode::NONE, ErrorCode::POLICY_VIOLATION, ErrorCode::NONE]);
}

#[test]
fn a_manual_assignment_is_checked() {
    let state = Catalogue::default();
    let assigned = |assignments: &[(i32, &[i32])]| {
        let assignments = assignments.iter().map(|(partition_index, broker_ids)| CreatableReplicaAssignment {
            partition_index: *partition_index,
            broker_ids: broker_ids.to_vec(),
        });
        CreatableTopic { assignments: assignments.collect(), ..topic("x", -1, &[]) }
    };
    let refused = |topic| create_one(&state, "", topic).0;
    assert_eq!(refused(assigned(&[(1, &[1]), (0, &[1])])), ErrorCode::NONE);
    for wrong in [
        &[(0, &[][..])][..],
        &[(0, &[2])],
        &[(0, &[1, 1])],
        &[(1, &[1])],
        &[(-1, &[1])],
        &[(0, &[1]), (0, &[1])],
        &[(0, &[1]), (2, &[1])],
    ] {
        assert_eq!(refused(assigned(wrong)), ErrorCode::INVALID_REPLICA_ASSIGNMENT, "{wrong:?}");
    }
    let with_count = CreatableTopic { num_partitions: 1, ..assigned(&[(0, &[1])]) };
    assert_eq!(refused(with_count), ErrorCode::INVALID_REQUEST);
    let with_factor = CreatableTopic { replication_factor: 1, ..assigned(&[(0, &[1])]) };
    assert_eq!(refused(with_factor), ErrorCode::INVALID_REQUEST);
}

#[test]
fn validate_only_answers_and_changes_nothing() {
    let state = catalogue(&[("a", 1)]);
    let mut request = create(vec![topic("b", 2, &[]), topic("a", 1, &[])]);
    request.validate_only = true;
    let plan = create_topics(&state, &broker(""), &request, &mut ids());
    assert!(plan.records.is_empty());
    assert_eq!((plan.answers[0].error_code, plan.answers[0].num_partitions), (ErrorCode::NONE, 2));
    assert_eq!(plan.answers[1].error_code, ErrorCode::TOPIC_ALREADY_EXISTS);
}

#[test]
fn topics_are_created_when_asked_for_if_that_is_wanted() {
    let mut state = catalogue(&[("a.a", 1)]);
    let created =
        |name: &str, file: &str| auto_create_topic(&state, &broker(file), name, &mut ids()).map_err(|refusal| refusal.code);
    assert_eq!(created("a.a", "").unwrap(), []);
    assert_eq!(created("b", "auto.create.topics.enable=false"), Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    assert_eq!(created("__consumer_offsets", ""), Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    assert_eq!(created("a_a", ""), Err(ErrorCode::INVALID_TOPIC_EXCEPTION));
    assert_eq!(created("a b", ""), Err(ErrorCode::INVALID_TOPIC_EXCEPTION));
    let records = created("b", "num.partitions=4").unwrap();
    commit(&mut state, &records);
    assert_eq!(state.topic("b").unwrap().partitions.len(), 4);
}

#[test]
fn the_topic_of_groups_is_made_as_it_has_to_be_and_keeps_its_partitions() {
    let mut state = catalogue(&[("a", 1)]);
    let broker = broker("log.flush.interval.messages=1000\noffsets.topic.num.partitions=7");
    let records = create_offsets_topic(&state, &broker, &mut ids()).unwrap();
    commit(&mut state, &records);
    let topic = state.topic("__consumer_offsets").unwrap();
    let config = crate::broker::topics::resolve(&broker, topic).unwrap();
    assert_eq!((topic.partitions.len(), topic.partitions[0].replicas.len()), (7, 1));
    assert!(topic.is_internal() && config.is_durable() && !config.deletes_old_segments());
    let log = crate::broker::topics::log_config(&config, 0);
    assert_eq!((log.segment_bytes, log.retention_ms, log.retention_bytes), (100 << 20, -1, -1));
    assert!(log.compaction.is_some());
    assert_eq!(create_offsets_topic(&state, &broker, &mut ids()).unwrap(), []);
    let topics = vec![CreatePartitionsTopic { name: "__consumer_offsets".into(), count: 8, assignments: None }];
    let plan = create_partitions(&state, &broker, &CreatePartitionsRequest { topics, ..CreatePartitionsRequest::default() });
    assert_eq!((plan.records.len(), plan.answers[0].error_code), (0, ErrorCode::INVALID_REQUEST));
}

#[test]
fn ids_that_mean_something_else_or_are_taken_are_passed_over() {
    let state = catalogue(&[("a", 1)]);
    let taken = state.topic("a").unwrap().id.0;
    let one = 1_u128.to_be_bytes();
    let mut minus = [7; 16];
    minus[0] = 0b1111_1010;
    let good = [0x42; 16];
    let mut source = [[0; 16], one, minus, taken, good].into_iter();
    let plan = create_topics(&state, &broker(""), &create(vec![topic("b", 1, &[])]), &mut || source.next().unwrap());
    assert_eq!(plan.answers[0].topic_id, good);
}

#[test]
fn topics_are_deleted_by_name_or_id() {
    let state = catalogue(&[("a", 1), ("b", 2), ("c", 1)]);
    let id = |name: &str| state.topic(name).unwrap().id.0;
    let item = |name: Option<&'static str>, topic_id| DeleteTopicState { name: name.map(Into::into), topic_id };
    let delete = |topics: Vec<_>, file: &str| {
        let request = DeleteTopicsRequest { topics, ..DeleteTopicsRequest::default() };
        let plan = delete_topics(&state, &broker(file), &request);
        let codes: Vec<_> = plan.answers.iter().map(|answer| answer.error_code).collect();
        (plan, codes)
    };
    let (plan, codes) = delete(vec![item(Some("a"), [0; 16]), item(None, id("b"))], "");
    assert_eq!(codes, [ErrorCode::NONE; 2]);
    assert_eq!(plan.answers[1].name.as_deref(), Some("b"));
    let mut after = state.clone();
    commit(&mut after, &plan.records);
    assert_eq!(after.topics().map(|topic| &*topic.name).collect::<Vec<_>>(), ["c"]);
    assert_eq!(after.partition_count(), 1);
    assert!(after.is_deleted(TopicId(id("a"))) && after.topic_by_id(TopicId(id("a"))).is_none());

    let wrong = vec![item(Some("x"), [0; 16]), item(None, [5; 16]), item(None, [0; 16]), item(Some("a"), id("a"))];
    let expected = [
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::UNKNOWN_TOPIC_ID,
        ErrorCode::INVALID_REQUEST,
        ErrorCode::INVALID_REQUEST,
    ];
    assert_eq!(delete(wrong, "").1, expected);
    let twice = vec![item(Some("a"), [0; 16]), item(None, id("a")), item(Some("b"), [0; 16])];
    let (plan, codes) = delete(twice, "");
    assert_eq!(codes, [ErrorCode::INVALID_REQUEST, ErrorCode::INVALID_REQUEST, ErrorCode::NONE]);
    assert_eq!(plan.records.len(), 1);
    let (plan, codes) = delete(vec![item(Some("a"), [0; 16])], "delete.topic.enable=false");
    assert_eq!((plan.records.len(), codes), (0, vec![ErrorCode::TOPIC_DELETION_DISABLED]));
}

#[test]
fn partitions_can_only_grow() {
    let mut state = catalogue(&[("a", 2)]);
    let item = |name: &'static str, count, assignments: Option<&[&[i32]]>| CreatePartitionsTopic {
        name: name.into(),
        count,
        assignments: assignments
            .map(|list| list.iter().map(|ids| CreatePartitionsAssignment { broker_ids: ids.to_vec() }).collect()),
    };
    let grow = |state: &Catalogue, topics, validate_only| {
        let plan = create_partitions(state, &broker(""), &CreatePartitionsRequest { topics, timeout_ms: 0, validate_only });
        let codes: Vec<_> = plan.answers.iter().map(|answer| answer.error_code).collect();
        (plan, codes)
    };
    for (count, message) in [
        (2, "Topic already has 2 partition(s)."),
        (1, "The topic a currently has 2 partition(s); 1 would not be an increase."),
        (-1, "The topic a currently has 2 partition(s); -1 would not be an increase."),
    ] {
        let (plan, codes) = grow(&state, vec![item("a", count, None)], false);
        assert_eq!(codes, [ErrorCode::INVALID_PARTITIONS]);
        assert_eq!(plan.answers[0].error_message.as_deref(), Some(message));
    }
    assert_eq!(grow(&state, vec![item("x", 3, None)], false).1, [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION]);
    assert_eq!(grow(&state, vec![item("a", 3, None), item("a", 4, None)], false).1, [ErrorCode::INVALID_REQUEST]);
    assert_eq!(grow(&state, vec![item("a", i32::MAX, None)], false).1, [ErrorCode::POLICY_VIOLATION]);
    for wrong in [&[][..], &[&[1][..], &[1]], &[&[2]], &[&[]], &[&[1, 1]]] {
        assert_eq!(grow(&state, vec![item("a", 3, Some(wrong))], false).1, [ErrorCode::INVALID_REPLICA_ASSIGNMENT], "{wrong:?}");
    }
    let (plan, codes) = grow(&state, vec![item("a", 3, None)], true);
    assert_eq!((plan.records.len(), codes), (0, vec![ErrorCode::NONE]));
    let (plan, codes) = grow(&state, vec![item("a", 4, Some(&[&[1], &[1]]))], false);
    assert_eq!(codes, [ErrorCode::NONE]);
    commit(&mut state, &plan.records);
    assert_eq!(state.topic("a").unwrap().partitions.len(), 4);
    assert_eq!(state.partition_count(), 4);
}

type Operation<'a> = (&'a str, i8, Option<&'a str>);

fn alter(state: &Catalogue, resource_type: i8, name: &str, operations: &[Operation<'_>]) -> (ErrorCode, usize, Catalogue) {
    let configs = operations.iter().map(|(name, config_operation, value)| incremental::AlterableConfig {
        name: (*name).into(),
        config_operation: *config_operation,
        value: value.map(Into::into),
    });
    let resource = incremental::AlterConfigsResource { resource_type, resource_name: name.into(), configs: configs.collect() };
    let mut request = incremental::IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: true };
    let checked = incremental_alter_configs(state, &broker(""), &request);
    assert!(checked.records.is_empty());
    request.validate_only = false;
    let plan = incremental_alter_configs(state, &broker(""), &request);
    assert_eq!(plan.answers[0].error_code, checked.answers[0].error_code);
    let mut after = state.clone();
    commit(&mut after, &plan.records);
    (plan.answers[0].error_code, plan.records.len(), after)
}

#[test]
fn single_settings_are_changed() {
    let state = catalogue(&[("a", 1)]);
    let (code, count, state) =
        alter(&state, RESOURCE_TOPIC, "a", &[("retention.ms", 0, Some("5")), ("flush.messages", 0, Some("9"))]);
    assert_eq!((code, count), (ErrorCode::NONE, 2));
    let config = TopicConfig::resolve(&broker(""), &state.topic("a").unwrap().config_overrides).unwrap();
    assert_eq!((config.retention_ms, config.is_durable()), (5, false));
    assert_eq!(
        alter(&state, RESOURCE_TOPIC, "a", &[("retention.ms", 0, Some("5"))]).1,
        0,
        "what is there already makes no record"
    );
    assert_eq!(alter(&state, RESOURCE_TOPIC, "a", &[("no.such", 1, None)]).0, ErrorCode::NONE);
    let (_, count, back) = alter(&state, RESOURCE_TOPIC, "a", &[("retention.ms", 1, None)]);
    assert_eq!((count, back.topic("a").unwrap().config_overrides.len()), (1, 1));

    let (_, count, appended) = alter(&state, RESOURCE_TOPIC, "a", &[("cleanup.policy", 2, Some("delete"))]);
    let policy = |state: &Catalogue| state.topic("a").unwrap().config_overrides.get("cleanup.policy").cloned();
    assert_eq!((count, policy(&appended).as_deref()), (1, Some("delete")), "appended to the default");
    let (_, _, subtracted) = alter(&appended, RESOURCE_TOPIC, "a", &[("cleanup.policy", 3, Some("delete,compact"))]);
    assert_eq!(policy(&subtracted).as_deref(), Some(""));

    for (expected, operation) in [
        (ErrorCode::INVALID_CONFIG, ("no.such", 0, Some("1"))),
        (ErrorCode::INVALID_CONFIG, ("retention.ms", 0, Some("x"))),
        (ErrorCode::INVALID_CONFIG, ("cleanup.policy", 2, Some("shred"))),
        (ErrorCode::INVALID_CONFIG, ("retention.ms", 2, Some("1"))),
        (ErrorCode::INVALID_CONFIG, ("no.such", 3, Some("1"))),
        (ErrorCode::INVALID_REQUEST, ("retention.ms", 0, None)),
        (ErrorCode::INVALID_REQUEST, ("retention.ms", 9, Some("1"))),
    ] {
        // One wrong change keeps the right one from being made.
        let (code, count, _) = alter(&state, RESOURCE_TOPIC, "a", &[("segment.ms", 0, Some("7")), operation]);
        assert_eq!((code, count), (expected, 0), "{operation:?}");
    }
    let set = ("retention.ms", 0, Some("1"));
    assert_eq!(alter(&state, RESOURCE_TOPIC, "a", &[set, ("retention.ms", 1, None)]).0, ErrorCode::INVALID_REQUEST);
    assert_eq!(alter(&state, RESOURCE_TOPIC, "x", &[set]).0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    for (resource_type, name) in [(RESOURCE_BROKER, "1"), (RESOURCE_BROKER, ""), (RESOURCE_BROKER, "2"), (8, "1"), (0, "a")] {
        assert_eq!(alter(&state, resource_type, name, &[set]).0, ErrorCode::INVALID_REQUEST);
    }
}

#[test]
fn a_group_is_configured_whether_it_exists_or_not() {
    let state = catalogue(&[]);
    let session = "consumer.session.timeout.ms";
    let heartbeat = "consumer.heartbeat.interval.ms";
    let of = |state: &Catalogue, group: &str| {
        let overrides = state.group_overrides().get(group).map(|overrides| &**overrides).cloned().unwrap_or_default();
        overrides.into_iter().collect::<Vec<_>>()
    };
    let (code, count, set) = alter(&state, RESOURCE_GROUP, "g", &[(session, 0, Some("50000")), (heartbeat, 0, Some("6000"))]);
    assert_eq!((code, count), (ErrorCode::NONE, 2));
    assert_eq!(of(&set, "g"), [(heartbeat.to_owned(), "6000".to_owned()), (session.to_owned(), "50000".to_owned())]);
    assert!(of(&state, "g").is_empty(), "a clone stays what it was");
    let (_, count, rest) = alter(&set, RESOURCE_GROUP, "g", &[(session, 1, None), ("no.such", 1, None)]);
    assert_eq!((count, of(&rest, "g").len()), (1, 1));
    let (_, count, none) = alter(&rest, RESOURCE_GROUP, "g", &[(heartbeat, 1, None)]);
    assert_eq!((count, none.group_overrides().len()), (1, 0), "nothing is left of it");
    assert_eq!(alter(&none, RESOURCE_GROUP, "g", &[(heartbeat, 1, None)]).1, 0);
    let again = Catalogue::from_snapshot(set.applied(), set.snapshot()).unwrap();
    assert_eq!(again.group_overrides(), set.group_overrides());

    for (expected, operation) in [
        (ErrorCode::INVALID_CONFIG, ("no.such", 0, Some("1"))),
        (ErrorCode::INVALID_CONFIG, ("share.session.timeout.ms", 0, Some("50000"))),
        (ErrorCode::INVALID_CONFIG, (heartbeat, 0, Some("1"))),
        (ErrorCode::INVALID_CONFIG, (heartbeat, 0, Some("15001"))),
        (ErrorCode::INVALID_CONFIG, (heartbeat, 2, Some("6000"))),
        (ErrorCode::INVALID_CONFIG, (heartbeat, 3, Some("6000"))),
        (ErrorCode::INVALID_REQUEST, (heartbeat, 0, None)),
        (ErrorCode::INVALID_REQUEST, (heartbeat, 9, Some("1"))),
        (ErrorCode::INVALID_REQUEST, (session, 1, None)),
    ] {
        let (code, count, _) = alter(&state, RESOURCE_GROUP, "g", &[(session, 0, Some("50000")), operation]);
        assert_eq!((code, count), (expected, 0), "{operation:?}");
    }
    let set = [(session, 0, Some("50000"))];
    assert_eq!(alter(&state, RESOURCE_GROUP, "", &set).0, ErrorCode::INVALID_REQUEST);
    assert_eq!(alter(&state, RESOURCE_GROUP, &"g".repeat(32_768), &set).0, ErrorCode::INVALID_REQUEST);
    assert_eq!(alter(&state, RESOURCE_GROUP, &"g".repeat(32_767), &set).0, ErrorCode::NONE);

    // AlterConfigs replaces all of them.
    let (_, _, both) = alter(&state, RESOURCE_GROUP, "g", &[(session, 0, Some("50000")), (heartbeat, 0, Some("6000"))]);
    let configs = vec![legacy::AlterableConfig { name: heartbeat.into(), value: Some("7000".into()) }];
    let resource = legacy::AlterConfigsResource { resource_type: RESOURCE_GROUP, resource_name: "g".into(), configs };
    let request = legacy::AlterConfigsRequest { resources: vec![resource], validate_only: false };
    let plan = alter_configs(&both, &broker(""), &request);
    let mut replaced = both.clone();
    commit(&mut replaced, &plan.records);
    assert_eq!(of(&replaced, "g"), [(heartbeat.to_owned(), "7000".to_owned())]);
}

type Setting = (&'static str, Option<&'static str>);

#[test]
fn all_settings_are_replaced() {
    let mut state = catalogue(&[("a", 1), ("b", 1)]);
    let replace = |state: &Catalogue, resources: &[(&'static str, &[Setting])], validate_only| {
        let resources = resources.iter().map(|(name, configs)| legacy::AlterConfigsResource {
            resource_type: RESOURCE_TOPIC,
            resource_name: (*name).into(),
            configs: configs
                .iter()
                .map(|(name, value)| legacy::AlterableConfig { name: (*name).into(), value: value.map(Into::into) })
                .collect(),
        });
        alter_configs(state, &broker(""), &legacy::AlterConfigsRequest { resources: resources.collect(), validate_only })
    };
    let first = replace(&state, &[("a", &[("retention.ms", Some("5")), ("segment.ms", Some("6"))])], false);
    commit(&mut state, &first.records);
    assert!(replace(&state, &[("a", &[])], true).records.is_empty());
    let second = replace(&state, &[("a", &[("segment.ms", Some("7"))]), ("b", &[("no.such", Some("1"))])], false);
    assert_eq!(second.answers[0].error_code, ErrorCode::NONE);
    assert_eq!(second.answers[1].error_code, ErrorCode::INVALID_CONFIG);
    commit(&mut state, &second.records);
    let overrides: Vec<_> = state.topic("a").unwrap().config_overrides.iter().collect();
    assert_eq!(overrides, [(&"segment.ms".to_owned(), &"7".to_owned())]);
    let null = replace(&state, &[("a", &[("segment.ms", None)])], false);
    assert_eq!((null.answers[0].error_code, null.records.len()), (ErrorCode::INVALID_REQUEST, 0));
    let twice = replace(&state, &[("a", &[]), ("a", &[])], false);
    assert!(twice.records.is_empty() && twice.answers.iter().all(|answer| answer.error_code == ErrorCode::INVALID_REQUEST));
}

#[test]
fn producer_ids_come_in_blocks_and_never_twice() {
    let mut state = Catalogue::default();
    let mut end = 0;
    for _ in 0..3 {
        let (block, record) = allocate_producer_ids(&state, 1).unwrap();
        assert_eq!((block.first, block.end), (end, end + 1000));
        commit(&mut state, &[record]);
        end = block.end;
    }
    let nearly_all = super::super::records::ProducerIdsRecord { broker_id: 1, broker_epoch: -1, next_producer_id: i64::MAX - 5 };
    commit(&mut state, &[super::super::records::MetadataRecord::ProducerIds(nearly_all)]);
    assert_eq!(allocate_producer_ids(&state, 1).unwrap_err().code, ErrorCode::UNKNOWN_SERVER_ERROR);
}

/// They outlive the groups, so that nothing else bounds them.
#[test]
fn so_many_groups_are_configured_and_no_more() {
    let resource = |name: String| incremental::AlterConfigsResource {
        resource_type: RESOURCE_GROUP,
        resource_name: name.into(),
        configs: vec![incremental::AlterableConfig {
            name: "consumer.session.timeout.ms".into(),
            config_operation: 0,
            value: Some("50000".into()),
        }],
    };
    let resources = (0..10_001).map(|at| resource(format!("g{at}"))).collect();
    let request = incremental::IncrementalAlterConfigsRequest { resources, validate_only: false };
    let (mut state, broker) = (catalogue(&[]), broker(""));
    let plan = incremental_alter_configs(&state, &broker, &request);
    let refused: Vec<_> = plan.answers.iter().filter(|answer| answer.error_code != ErrorCode::NONE).collect();
    assert_eq!((plan.records.len(), refused.len(), &*refused[0].resource_name), (10_000, 1, "g10000"));
    commit(&mut state, &plan.records);
    assert_eq!(
        alter(&state, RESOURCE_GROUP, "more", &[("consumer.session.timeout.ms", 0, Some("50000"))]).0,
        ErrorCode::INVALID_REQUEST
    );
    assert_eq!(alter(&state, RESOURCE_GROUP, "g7", &[("consumer.session.timeout.ms", 0, Some("51000"))]).0, ErrorCode::NONE);
}
