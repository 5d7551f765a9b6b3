//! Topics, configurations, and what there is to be known of a broker.

use ringlog_protocol::api::{
    alter_configs, create_partitions, delete_records, delete_topics, describe_cluster, describe_configs, describe_log_dirs,
    describe_producers, describe_topic_partitions, incremental_alter_configs, init_producer_id, list_config_resources, metadata,
};

use super::*;
use metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};

fn by_name(name: &'static str) -> MetadataRequest<'static> {
    let topic = MetadataRequestTopic { name: Some(name.into()), ..MetadataRequestTopic::default() };
    MetadataRequest { topics: Some(vec![topic]), ..MetadataRequest::default() }
}

#[test]
fn metadata_shows_the_broker_and_its_topics_in_every_version() {
    with_broker(&[("node.id", "3")], |broker| async move {
        broker.create("t", 2, &[]).await;
        for version in ApiKey::Metadata.version_min()..=ApiKey::Metadata.version_max() {
            let all = MetadataRequest { topics: (version == 0).then(Vec::new), ..MetadataRequest::default() };
            for request in [all, by_name("t")] {
                let answer = broker.ask(&request, version).await;
                let response: MetadataResponse<'_> = answer.read();
                let node = &response.brokers[0];
                assert_eq!((node.node_id, &*node.host, node.port), (3, "127.0.0.1", 9092));
                let topic = &response.topics[0];
                assert_eq!((response.topics.len(), topic.name.as_deref(), topic.error_code), (1, Some("t"), ErrorCode::NONE));
                assert_eq!(topic.partitions.len(), 2);
                assert!(topic.partitions.iter().all(|partition| partition.leader_id == 3 && partition.isr_nodes == [3]));
                if version >= 2 {
                    assert_eq!(response.cluster_id.as_deref(), Some("cluster-of-tests"));
                }
            }
        }
        // An empty list is no topic, but in version 0.
        let none = MetadataRequest { topics: Some(Vec::new()), ..MetadataRequest::default() };
        let answer = broker.ask(&none, 1).await;
        assert!(answer.read::<MetadataResponse<'_>>().topics.is_empty());
    });
}

/// A name may fill its field; what is said about it does not fit into one then.
#[test]
fn names_as_long_as_the_wire_allows_are_refused_with_an_answer() {
    use ringlog_protocol::api::consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
    use ringlog_protocol::api::create_topics::{CreatableTopic, CreateTopicsRequest, CreateTopicsResponse};
    use ringlog_protocol::api::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
    with_broker(&[], |broker| async move {
        let long = "x".repeat(i16::MAX as usize);
        let topic = CreatableTopic { name: long.as_str().into(), num_partitions: 1, replication_factor: 1, ..Default::default() };
        let answer = broker.ask(&CreateTopicsRequest { topics: vec![topic], ..Default::default() }, 7).await;
        let response: CreateTopicsResponse<'_> = answer.read();
        assert_eq!(response.topics[0].error_code, ErrorCode::INVALID_TOPIC_EXCEPTION);

        let answer = broker.ask(&DescribeGroupsRequest { groups: vec![long.as_str().into()], ..Default::default() }, 6).await;
        let response: DescribeGroupsResponse<'_> = answer.read();
        assert_ne!(response.groups[0].error_code, ErrorCode::NONE);

        let request = ConsumerGroupHeartbeatRequest {
            group_id: long.as_str().into(),
            member_id: long.as_str().into(),
            member_epoch: 5,
            ..Default::default()
        };
        let answer = broker.ask(&request, 1).await;
        let response: ConsumerGroupHeartbeatResponse<'_> = answer.read();
        assert_ne!(response.error_code, ErrorCode::NONE);
    });
}

#[test]
fn a_topic_that_is_asked_for_is_created_where_that_is_wanted() {
    with_broker(&[("num.partitions", "3")], |broker| async move {
        let ask = async |request: MetadataRequest<'_>| {
            let answer = broker.ask(&request, 9).await;
            let response: MetadataResponse<'_> = answer.read();
            (response.topics[0].error_code, response.topics[0].partitions.len())
        };
        let unwanted = MetadataRequest { allow_auto_topic_creation: false, ..by_name("new") };
        assert_eq!(ask(unwanted).await, (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, 0));
        assert_eq!(ask(by_name("new")).await, (ErrorCode::NONE, 3));
        assert_eq!(ask(by_name("not a name")).await, (ErrorCode::INVALID_TOPIC_EXCEPTION, 0));
        assert_eq!(ask(by_name("__consumer_offsets")).await, (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, 0));
    });
    with_broker(&[("auto.create.topics.enable", "false")], |broker| async move {
        let answer = broker.ask(&by_name("new"), 9).await;
        let response: MetadataResponse<'_> = answer.read();
        assert_eq!(response.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    });
}

#[test]
fn topics_are_found_by_id() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 1, &[]).await;
        let by_id = |id| MetadataRequest {
            topics: Some(vec![MetadataRequestTopic { topic_id: id, name: None }]),
            ..MetadataRequest::default()
        };
        let answer = broker.ask(&by_id(topic.id.0), 12).await;
        let response: MetadataResponse<'_> = answer.read();
        assert_eq!((response.topics[0].name.as_deref(), response.topics[0].error_code), (Some("t"), ErrorCode::NONE));
        let answer = broker.ask(&by_id([9; 16]), 12).await;
        let response: MetadataResponse<'_> = answer.read();
        assert_eq!((response.topics[0].name.as_deref(), response.topics[0].error_code), (None, ErrorCode::UNKNOWN_TOPIC_ID));
    });
}

#[test]
fn topics_grow_and_go() {
    with_broker(&[], |broker| async move {
        broker.create("t", 1, &[]).await;
        let grow = create_partitions::CreatePartitionsRequest {
            topics: vec![create_partitions::CreatePartitionsTopic { name: "t".into(), count: 4, assignments: None }],
            ..create_partitions::CreatePartitionsRequest::default()
        };
        for code in [ErrorCode::NONE, ErrorCode::INVALID_PARTITIONS] {
            let answer = broker.ask(&grow, 3).await;
            let response: create_partitions::CreatePartitionsResponse<'_> = answer.read();
            assert_eq!(response.results[0].error_code, code);
        }
        let topic = broker.topic("t");
        assert_eq!(topic.partitions.len(), 4);
        let answer = broker.ask(&produce(&topic, 3, &batch(&["v"]), -1), 13).await;
        assert_eq!(produced(&answer), (ErrorCode::NONE, 0));

        let state = delete_topics::DeleteTopicState { name: None, topic_id: topic.id.0 };
        let delete = delete_topics::DeleteTopicsRequest { topics: vec![state], ..delete_topics::DeleteTopicsRequest::default() };
        for code in [ErrorCode::NONE, ErrorCode::UNKNOWN_TOPIC_ID] {
            let answer = broker.ask(&delete, 6).await;
            let response: delete_topics::DeleteTopicsResponse<'_> = answer.read();
            assert_eq!(response.responses[0].error_code, code);
        }
        assert!(broker.broker.topics.load().is_empty());
        let answer = broker.ask(&produce(&topic, 3, &batch(&["v"]), -1), 13).await;
        assert_eq!(produced(&answer).0, ErrorCode::UNKNOWN_TOPIC_ID);
    });
}

#[test]
fn configurations_are_changed_and_shown() {
    with_broker(&[], |broker| async move {
        broker.create("t", 1, &[("retention.ms", "1000")]).await;
        let shown = async |name: &'static str| {
            let resource = describe_configs::DescribeConfigsResource {
                resource_type: 2,
                resource_name: "t".into(),
                configuration_keys: Some(vec![name.into()]),
            };
            let request = describe_configs::DescribeConfigsRequest {
                resources: vec![resource],
                include_synonyms: true,
                include_documentation: false,
            };
            let answer = broker.ask(&request, 4).await;
            let response: describe_configs::DescribeConfigsResponse<'_> = answer.read();
            let config = &response.results[0].configs[0];
            (config.value.as_deref().map(str::to_owned), config.config_source)
        };
        assert_eq!(shown("retention.ms").await, (Some("1000".to_owned()), 1));
        let change = |config_operation, value: Option<&'static str>| {
            let config = incremental_alter_configs::AlterableConfig {
                name: "retention.ms".into(),
                config_operation,
                value: value.map(Into::into),
            };
            incremental_alter_configs::IncrementalAlterConfigsRequest {
                resources: vec![incremental_alter_configs::AlterConfigsResource {
                    resource_type: 2,
                    resource_name: "t".into(),
                    configs: vec![config],
                }],
                ..incremental_alter_configs::IncrementalAlterConfigsRequest::default()
            }
        };
        for (request, code) in [
            (change(0, Some("2000")), ErrorCode::NONE),
            (change(0, Some("soon")), ErrorCode::INVALID_CONFIG),
            (change(2, Some("1")), ErrorCode::INVALID_CONFIG),
        ] {
            let answer = broker.ask(&request, 1).await;
            let response: incremental_alter_configs::IncrementalAlterConfigsResponse<'_> = answer.read();
            assert_eq!(response.responses[0].error_code, code);
        }
        assert_eq!(shown("retention.ms").await, (Some("2000".to_owned()), 1));
        let replace = |resource_type, name: &'static str| alter_configs::AlterConfigsRequest {
            resources: vec![alter_configs::AlterConfigsResource {
                resource_type,
                resource_name: name.into(),
                configs: Vec::new(),
            }],
            ..alter_configs::AlterConfigsRequest::default()
        };
        for (request, code) in [(replace(2, "t"), ErrorCode::NONE), (replace(4, "1"), ErrorCode::INVALID_REQUEST)] {
            let answer = broker.ask(&request, 2).await;
            let response: alter_configs::AlterConfigsResponse<'_> = answer.read();
            assert_eq!(response.responses[0].error_code, code);
        }
        assert_eq!(shown("retention.ms").await, (Some("604800000".to_owned()), 5));
    });
}

#[test]
fn records_are_deleted_from_the_front() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 2, &[]).await;
        for core in 0..2 {
            let partition = broker.partition_on(&topic, core);
            for value in ["a", "b", "c"] {
                broker.ask(&produce(&topic, partition, &batch(&[value]), -1), 13).await;
            }
            let ask = async |offset| {
                let partitions = vec![delete_records::DeleteRecordsPartition { partition_index: partition, offset }];
                let topics = vec![delete_records::DeleteRecordsTopic { name: "t".into(), partitions }];
                let request = delete_records::DeleteRecordsRequest { topics, timeout_ms: 1000 };
                let answer = broker.ask(&request, 2).await;
                let response: delete_records::DeleteRecordsResponse<'_> = answer.read();
                let result = &response.topics[0].partitions[0];
                (result.error_code, result.low_watermark)
            };
            assert_eq!(ask(4).await, (ErrorCode::OFFSET_OUT_OF_RANGE, -1));
            assert_eq!(ask(-2).await, (ErrorCode::OFFSET_OUT_OF_RANGE, -1));
            assert_eq!(ask(1).await, (ErrorCode::NONE, 1));
            assert_eq!(ask(0).await, (ErrorCode::NONE, 1));
            assert_eq!(fetched(&broker.ask(&fetch(&topic, partition, 0), 13).await).0, ErrorCode::OFFSET_OUT_OF_RANGE);
            let (error, _, values) = fetched(&broker.ask(&fetch(&topic, partition, 1), 13).await);
            assert_eq!((error, values.len()), (ErrorCode::NONE, 2));
            assert_eq!(ask(-1).await, (ErrorCode::NONE, 3));
        }
    });
}

#[test]
fn producers_get_ids_of_their_own_and_are_shown() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 2, &[]).await;
        let mut ids = Vec::new();
        for core in [0, 1, 0, 1] {
            let answer = broker.ask_on(core, &init_producer_id::InitProducerIdRequest::default(), 5).await;
            let response: init_producer_id::InitProducerIdResponse = answer.read();
            assert_eq!((response.error_code, response.producer_epoch), (ErrorCode::NONE, 0));
            ids.push(response.producer_id);
        }
        let mut unique = ids.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), ids.len(), "{ids:?}");
        for (core, &id) in ids.iter().enumerate().take(2) {
            let partition = broker.partition_on(&topic, core);
            let builder = BatchBuilder::new(Offset(0)).producer(ringlog_engine::types::ProducerId(id), 0, 0);
            let records = builder.record(TimestampMs(1_767_225_600_000), None, Some(b"v")).build();
            assert_eq!(produced(&broker.ask(&produce(&topic, partition, &records, -1), 13).await).0, ErrorCode::NONE);
            let topics = vec![describe_producers::TopicRequest { name: "t".into(), partition_indexes: vec![partition, 7] }];
            let answer = broker.ask(&describe_producers::DescribeProducersRequest { topics }, 0).await;
            let response: describe_producers::DescribeProducersResponse<'_> = answer.read();
            let [known, unknown] = &response.topics[0].partitions[..] else { panic!("two partitions") };
            assert_eq!((known.error_code, unknown.error_code), (ErrorCode::NONE, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
            let producer = &known.active_producers[0];
            assert_eq!((producer.producer_id, producer.producer_epoch, producer.last_sequence), (id, 0, 0));
            assert_eq!(producer.current_txn_start_offset, -1);
        }
    });
}

#[test]
fn the_cluster_and_its_room_are_described() {
    with_broker(&[("node.id", "3")], |broker| async move {
        let topic = broker.create("t", 2, &[]).await;
        let records = batch(&["v"]);
        broker.ask(&produce(&topic, 1, &records, -1), 13).await;

        let answer = broker.ask(&describe_cluster::DescribeClusterRequest::default(), 2).await;
        let response: describe_cluster::DescribeClusterResponse<'_> = answer.read();
        assert_eq!((&*response.cluster_id, response.controller_id, response.brokers.len()), ("cluster-of-tests", 3, 1));

        let wanted = describe_log_dirs::DescribableLogDirTopic { topic: "t".into(), partitions: vec![1, 9] };
        for topics in [None, Some(vec![wanted])] {
            let all = topics.is_none();
            let answer = broker.ask(&describe_log_dirs::DescribeLogDirsRequest { topics }, 4).await;
            let response: describe_log_dirs::DescribeLogDirsResponse<'_> = answer.read();
            let directory = &response.results[0];
            assert!(directory.error_code.is_none() && directory.total_bytes > 0 && directory.usable_bytes > 0);
            let partitions = &directory.topics[0].partitions;
            assert_eq!(partitions.len(), if all { 2 } else { 1 });
            assert_eq!(partitions.last().unwrap().partition_size, records.len() as i64);
        }

        let request = list_config_resources::ListConfigResourcesRequest::default();
        let answer = broker.ask(&request, 1).await;
        let response: list_config_resources::ListConfigResourcesResponse<'_> = answer.read();
        let names: Vec<_> = response.config_resources.iter().map(|found| (&*found.resource_name, found.resource_type)).collect();
        assert_eq!(names, [("3", 4), ("t", 2)]);

        let request = describe_topic_partitions::DescribeTopicPartitionsRequest {
            response_partition_limit: 1,
            ..describe_topic_partitions::DescribeTopicPartitionsRequest::default()
        };
        let answer = broker.ask(&request, 0).await;
        let response: describe_topic_partitions::DescribeTopicPartitionsResponse<'_> = answer.read();
        assert_eq!((response.topics[0].partitions.len(), response.topics[0].topic_id), (1, topic.id.0));
        let next = response.next_cursor.expect("a second page");
        assert_eq!((&*next.topic_name, next.partition_index), ("t", 1));
    });
}
