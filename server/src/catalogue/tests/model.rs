//! Random histories of commands against a model that is too simple to be wrong, and against snapshots taken on the way.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ringlog_engine::types::TopicId;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use ringlog_protocol::api::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use ringlog_protocol::api::incremental_alter_configs::{AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest};

use super::{broker, commit, create, ids, topic};
use crate::catalogue::commands::*;
use crate::catalogue::records::{MetadataRecord, RESOURCE_GROUP, RESOURCE_TOPIC};
use crate::catalogue::state::Catalogue;

const NAMES: [&str; 5] = ["a", "b.c", "b_c", "__transaction_state", "bad name"];
const OPTIONS: [(&str, &str); 4] =
    [("retention.ms", "5"), ("retention.ms", "-7"), ("cleanup.policy", "delete"), ("no.such", "1")];

#[derive(Clone, Debug)]
enum Step {
    Create { names: Vec<usize>, partitions: i32, option: Option<usize>, validate_only: bool },
    AutoCreate { name: usize },
    Delete { names: Vec<usize>, by_id: bool },
    Grow { name: usize, count: i32 },
    Configure { name: usize, option: usize, operation: i8 },
    ConfigureGroup { group: usize, value: i32, operation: i8 },
    ProducerIds,
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    let names = prop::collection::vec(name.clone(), 0..4);
    prop_oneof![
        (names.clone(), -2..4, prop::option::of(0..OPTIONS.len()), prop::bool::weighted(0.2))
            .prop_map(|(names, partitions, option, validate_only)| Step::Create { names, partitions, option, validate_only }),
        name.clone().prop_map(|name| Step::AutoCreate { name }),
        (names, any::<bool>()).prop_map(|(names, by_id)| Step::Delete { names, by_id }),
        (name.clone(), 0..8).prop_map(|(name, count)| Step::Grow { name, count }),
        (name, 0..OPTIONS.len(), 0_i8..4).prop_map(|(name, option, operation)| Step::Configure { name, option, operation }),
        (0..2_usize, 44_999..45_003, 0_i8..3).prop_map(|(group, value, operation)| Step::ConfigureGroup {
            group,
            value,
            operation
        }),
        Just(Step::ProducerIds),
        Just(Step::Snapshot),
    ]
}

#[derive(Clone, Debug, Default, PartialEq)]
struct ModelTopic {
    partitions: i32,
    settings: BTreeMap<String, String>,
}

/// Names and what they stand for; nothing clever.
#[derive(Default)]
struct Model {
    topics: BTreeMap<String, ModelTopic>,
    /// The session timeout of each group that has one.
    groups: BTreeMap<String, String>,
    ids_ever: BTreeSet<TopicId>,
    next_producer_id: i64,
}

impl Model {
    fn can_create(&self, name: &str) -> bool {
        name != "bad name" && self.topics.keys().all(|other| other.replace('.', "_") != name.replace('.', "_"))
    }
}

fn is_valid_option(option: usize) -> bool {
    matches!(option, 0 | 2)
}

/// Runs one step on both; the records it took.
fn run(step: &Step, state: &mut Catalogue, model: &mut Model, new_id: NewId<'_>) -> Vec<MetadataRecord> {
    let config = broker("num.partitions=2");
    match step {
        Step::Create { names, partitions, option, validate_only } => {
            let options: Vec<_> = option.iter().map(|option| OPTIONS[*option]).collect();
            let mut request = create(names.iter().map(|name| topic(NAMES[*name], *partitions, &options)).collect());
            request.validate_only = *validate_only;
            let plan = create_topics(state, &config, &request, new_id);
            let mut answered = BTreeSet::new();
            for answer in &plan.answers {
                let name = &*answer.name;
                assert!(answered.insert(name.to_owned()), "answered once");
                let is_repeated = names.iter().filter(|other| NAMES[**other] == name).count() > 1;
                let is_fine = *partitions > 0 || *partitions == -1;
                let earlier: Vec<_> = plan.answers.iter().take_while(|other| other.name != name).collect();
                let collides_with_earlier = earlier
                    .iter()
                    .any(|other| other.error_code.is_none() && other.name.replace('.', "_") == name.replace('.', "_"));
                let expected = !is_repeated
                    && is_fine
                    && option.is_none_or(is_valid_option)
                    && !collides_with_earlier
                    && model.can_create(name);
                assert_eq!(answer.error_code.is_none(), expected, "{name}: {answer:?}");
            }
            if !validate_only {
                for answer in plan.answers.iter().filter(|answer| answer.error_code.is_none()) {
                    let settings = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
                    let partitions = if *partitions == -1 { 2 } else { *partitions };
                    model.topics.insert(answer.name.to_string(), ModelTopic { partitions, settings });
                    assert!(model.ids_ever.insert(TopicId(answer.topic_id)), "an id comes once");
                }
            }
            plan.records
        }
        Step::AutoCreate { name } => {
            let name = NAMES[*name];
            let is_internal = name.starts_with("__");
            match auto_create_topic(state, &config, name, new_id) {
                Ok(records) if records.is_empty() => {
                    assert!(model.topics.contains_key(name));
                    records
                }
                Ok(records) => {
                    assert!(model.can_create(name) && !is_internal);
                    model.topics.insert(name.to_owned(), ModelTopic { partitions: 2, settings: BTreeMap::new() });
                    let MetadataRecord::Topic(topic) = &records[0] else { panic!("{records:?}") };
                    assert!(model.ids_ever.insert(topic.topic_id));
                    records
                }
                Err(refusal) => {
                    assert!(!model.topics.contains_key(name) && (is_internal || !model.can_create(name)), "{refusal}");
                    Vec::new()
                }
            }
        }
        Step::Delete { names, by_id } => {
            let topics = names.iter().map(|name| {
                let id = state.topic(NAMES[*name]).filter(|_| *by_id).map(|topic| topic.id.0);
                DeleteTopicState { name: id.is_none().then(|| NAMES[*name].into()), topic_id: id.unwrap_or_default() }
            });
            let request = DeleteTopicsRequest { topics: topics.collect(), ..DeleteTopicsRequest::default() };
            let plan = delete_topics(state, &config, &request);
            assert_eq!(plan.answers.len(), names.len());
            for (name, answer) in names.iter().zip(&plan.answers) {
                let is_repeated = names.iter().filter(|other| *other == name).count() > 1;
                let expected = match model.topics.contains_key(NAMES[*name]) {
                    false => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    true if is_repeated => ErrorCode::INVALID_REQUEST,
                    true => ErrorCode::NONE,
                };
                assert_eq!(answer.error_code, expected);
            }
            for answer in plan.answers.iter().filter(|answer| answer.error_code.is_none()) {
                model.topics.remove(answer.name.as_deref().unwrap());
            }
            plan.records
        }
        Step::Grow { name, count } => {
            let item = CreatePartitionsTopic { name: NAMES[*name].into(), count: *count, assignments: None };
            let request = CreatePartitionsRequest { topics: vec![item], timeout_ms: 0, validate_only: false };
            let plan = create_partitions(state, &config, &request);
            let expected = match model.topics.get_mut(NAMES[*name]) {
                None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                Some(topic) if *count <= topic.partitions => ErrorCode::INVALID_PARTITIONS,
                Some(topic) => {
                    topic.partitions = *count;
                    ErrorCode::NONE
                }
            };
            assert_eq!(plan.answers[0].error_code, expected);
            plan.records
        }
        Step::Configure { name, option, operation } => {
            let (option_name, value) = OPTIONS[*option];
            let change = AlterableConfig { name: option_name.into(), config_operation: *operation, value: Some(value.into()) };
            let resource =
                AlterConfigsResource { resource_type: RESOURCE_TOPIC, resource_name: NAMES[*name].into(), configs: vec![change] };
            let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
            let plan = incremental_alter_configs(state, &config, &request);
            let is_list = option_name == "cleanup.policy";
            let expected = match model.topics.get_mut(NAMES[*name]) {
                None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                Some(topic) => match operation {
                    0 if is_valid_option(*option) => {
                        topic.settings.insert(option_name.to_owned(), value.to_owned());
                        ErrorCode::NONE
                    }
                    1 => {
                        topic.settings.remove(option_name);
                        ErrorCode::NONE
                    }
                    2 | 3 if is_list => {
                        topic.settings.insert(option_name.to_owned(), if *operation == 2 { "delete" } else { "" }.to_owned());
                        ErrorCode::NONE
                    }
                    _ => ErrorCode::INVALID_CONFIG,
                },
            };
            assert_eq!(plan.answers[0].error_code, expected, "{step:?}");
            plan.records
        }
        Step::ConfigureGroup { group, value, operation } => {
            let (group, value, name) = (format!("group-{group}"), value.to_string(), "consumer.session.timeout.ms");
            let change = AlterableConfig { name: name.into(), config_operation: *operation, value: Some(value.as_str().into()) };
            let resource = AlterConfigsResource {
                resource_type: RESOURCE_GROUP,
                resource_name: group.as_str().into(),
                configs: vec![change],
            };
            let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
            let plan = incremental_alter_configs(state, &config, &request);
            let expected = match operation {
                0 if value != "44999" => {
                    model.groups.insert(group.clone(), value.clone());
                    ErrorCode::NONE
                }
                1 => {
                    model.groups.remove(&group);
                    ErrorCode::NONE
                }
                _ => ErrorCode::INVALID_CONFIG,
            };
            assert_eq!(plan.answers[0].error_code, expected, "{step:?}");
            plan.records
        }
        Step::ProducerIds => {
            let (block, record) = allocate_producer_ids(state, 1).unwrap();
            assert_eq!((block.first, block.end), (model.next_producer_id, model.next_producer_id + PRODUCER_ID_BLOCK_COUNT));
            model.next_producer_id = block.end;
            vec![record]
        }
        Step::Snapshot => Vec::new(),
    }
}

fn assert_same(state: &Catalogue, model: &Model) {
    let shown: BTreeMap<String, ModelTopic> = state
        .topics()
        .map(|topic| {
            assert_eq!(state.topic_by_id(topic.id).map(|topic| &topic.name), Some(&topic.name));
            let partitions = i32::try_from(topic.partitions.len()).unwrap();
            (topic.name.to_string(), ModelTopic { partitions, settings: topic.config_overrides.clone() })
        })
        .collect();
    assert_eq!(shown, model.topics);
    let groups = state.group_overrides().iter().map(|(group, overrides)| {
        (group.to_string(), overrides.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","))
    });
    let expected = model.groups.iter().map(|(group, value)| (group.clone(), format!("consumer.session.timeout.ms={value}")));
    assert_eq!(groups.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert_eq!(state.partition_count() as i32, model.topics.values().map(|topic| topic.partitions).sum::<i32>());
    assert_eq!(state.next_producer_id(), model.next_producer_id);
    for id in &model.ids_ever {
        assert!(state.topic_by_id(*id).is_some() != state.is_deleted(*id), "a topic is there or deleted");
    }
    for topic in state.topics() {
        let twin = topic.name.replace('.', "_");
        assert_eq!(state.colliding_name(&twin).is_some(), twin != *topic.name);
        assert_eq!(state.colliding_name(&topic.name), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn the_catalogue_is_what_the_model_says(steps in prop::collection::vec(step(), 0..30)) {
        let mut new_id = ids();
        let mut state = Catalogue::default();
        let mut model = Model::default();
        let mut log = Catalogue::first_records();
        commit(&mut state, &log);
        // A follower that starts from the last snapshot and then reads the log.
        let mut follower = state.clone();
        for step in &steps {
            let before = state.clone();
            let before_records = before.snapshot();
            let records = run(step, &mut state, &mut model, &mut new_id);
            prop_assert_eq!(before.snapshot(), before_records, "a command changes nothing by itself");
            commit(&mut state, &records);
            commit(&mut follower, &records);
            log.extend(records);
            if matches!(step, Step::Snapshot) {
                follower = Catalogue::from_snapshot(state.applied(), state.snapshot()).unwrap();
                prop_assert_eq!(follower.applied(), state.applied());
            }
            assert_same(&state, &model);
            prop_assert_eq!(follower.snapshot(), state.snapshot(), "snapshot and replay lead to the live state");
        }
        let mut replayed = Catalogue::default();
        commit(&mut replayed, &log);
        prop_assert_eq!(replayed, state, "the log alone leads to the live state");
    }
}
