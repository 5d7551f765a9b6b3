//! Every API in every version that is advertised.

use ringlog_protocol::api;

use super::*;
use crate::net::Admission;

macro_rules! every_version {
    ($broker:expr, $($module:ident :: $request:ident => $response:ident),* $(,)?) => {{
        let mut asked = Vec::new();
        $(
            let key = <api::$module::$request as Message<'_>>::API;
            for version in key.version_min()..=key.version_max() {
                let answer = $broker.ask(&api::$module::$request::default(), version).await;
                let _: api::$module::$response = answer.read();
            }
            asked.push(key);
        )*
        asked
    }};
}

fn served() -> impl Iterator<Item = ApiKey> {
    ApiKey::ALL.iter().copied().filter(|api| api.is_served())
}

#[test]
fn what_is_not_served_is_refused() {
    with_broker(&[], |broker| async move {
        for &api in ApiKey::ALL {
            let version = api.version_max();
            if api.is_served() {
                assert_eq!(broker.apis[0].admit(api, version), Admission::Serve, "{api}");
                continue;
            }
            assert_eq!(broker.apis[0].admit(api, version), Admission::Refuse, "{api}");
            let outcome = broker.apis[0].clone().handle(context(api, version, 1), Bytes::new()).await;
            assert!(matches!(outcome, Outcome::Close(_)), "{api}");
        }
    });
}

#[test]
fn all_that_is_advertised_is_answered_to_the_last_byte() {
    with_broker(&[], |broker| async move {
        broker.create("t", 2, &[]).await;
        let mut asked = every_version!(broker,
            fetch::FetchRequest => FetchResponse,
            list_offsets::ListOffsetsRequest => ListOffsetsResponse,
            offset_commit::OffsetCommitRequest => OffsetCommitResponse,
            find_coordinator::FindCoordinatorRequest => FindCoordinatorResponse,
            join_group::JoinGroupRequest => JoinGroupResponse,
            heartbeat::HeartbeatRequest => HeartbeatResponse,
            leave_group::LeaveGroupRequest => LeaveGroupResponse,
            sync_group::SyncGroupRequest => SyncGroupResponse,
            describe_groups::DescribeGroupsRequest => DescribeGroupsResponse,
            list_groups::ListGroupsRequest => ListGroupsResponse,
            create_topics::CreateTopicsRequest => CreateTopicsResponse,
            delete_topics::DeleteTopicsRequest => DeleteTopicsResponse,
            delete_records::DeleteRecordsRequest => DeleteRecordsResponse,
            init_producer_id::InitProducerIdRequest => InitProducerIdResponse,
            offset_for_leader_epoch::OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse,
            describe_configs::DescribeConfigsRequest => DescribeConfigsResponse,
            alter_configs::AlterConfigsRequest => AlterConfigsResponse,
            describe_log_dirs::DescribeLogDirsRequest => DescribeLogDirsResponse,
            create_partitions::CreatePartitionsRequest => CreatePartitionsResponse,
            delete_groups::DeleteGroupsRequest => DeleteGroupsResponse,
            incremental_alter_configs::IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse,
            offset_delete::OffsetDeleteRequest => OffsetDeleteResponse,
            describe_cluster::DescribeClusterRequest => DescribeClusterResponse,
            describe_producers::DescribeProducersRequest => DescribeProducersResponse,
            consumer_group_heartbeat::ConsumerGroupHeartbeatRequest => ConsumerGroupHeartbeatResponse,
            consumer_group_describe::ConsumerGroupDescribeRequest => ConsumerGroupDescribeResponse,
            list_config_resources::ListConfigResourcesRequest => ListConfigResourcesResponse,
            describe_topic_partitions::DescribeTopicPartitionsRequest => DescribeTopicPartitionsResponse,
        );
        for version in ApiKey::Produce.version_min()..=ApiKey::Produce.version_max() {
            let request = api::produce::ProduceRequest { acks: 1, ..api::produce::ProduceRequest::default() };
            let answer = broker.ask(&request, version).await;
            let response: api::produce::ProduceResponse<'_> = answer.read();
            assert!(response.responses.is_empty());
        }
        for version in ApiKey::ApiVersions.version_min()..=ApiKey::ApiVersions.version_max() {
            let request = api::api_versions::ApiVersionsRequest {
                client_software_name: "test".into(),
                client_software_version: "1.0".into(),
            };
            let answer = broker.ask(&request, version).await;
            let response: api::api_versions::ApiVersionsResponse<'_> = answer.read();
            let advertised: Vec<i16> = response.api_keys.iter().map(|api| api.api_key).collect();
            assert_eq!(advertised, served().map(ApiKey::key).collect::<Vec<_>>());
        }
        for version in ApiKey::OffsetFetch.version_min()..=ApiKey::OffsetFetch.version_max() {
            // Old versions cannot say "all", new ones say it for each group.
            let topics = (version < 8).then(Vec::new);
            let request = api::offset_fetch::OffsetFetchRequest { topics, ..api::offset_fetch::OffsetFetchRequest::default() };
            let answer = broker.ask(&request, version).await;
            let _: api::offset_fetch::OffsetFetchResponse<'_> = answer.read();
        }
        for version in ApiKey::Metadata.version_min()..=ApiKey::Metadata.version_max() {
            // Nothing, but in version 0, where that is everything.
            let request =
                api::metadata::MetadataRequest { topics: Some(Vec::new()), ..api::metadata::MetadataRequest::default() };
            let answer = broker.ask(&request, version).await;
            let response: api::metadata::MetadataResponse<'_> = answer.read();
            // The topic, and that of the groups, for somebody looked for a coordinator.
            assert_eq!(response.topics.len(), if version == 0 { 2 } else { 0 });
        }
        asked.extend([ApiKey::Produce, ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::OffsetFetch]);
        asked.sort();
        assert_eq!(asked, served().collect::<Vec<_>>(), "an API without a test");
    });
}

#[test]
fn an_api_versions_request_from_the_future_is_answered_as_kip_511_says() {
    with_broker(&[], |broker| async move {
        let mut context = context(ApiKey::ApiVersions, 99, 1);
        context.version_unsupported = true;
        let outcome = broker.apis[0].clone().handle(context, Bytes::new()).await;
        let answer = answer(outcome, ApiKey::ApiVersions, 0).await;
        let response: api::api_versions::ApiVersionsResponse<'_> = answer.read();
        let range = &response.api_keys[0];
        assert_eq!((response.error_code, response.api_keys.len()), (ErrorCode::UNSUPPORTED_VERSION, 1));
        assert_eq!((range.api_key, range.min_version, range.max_version), (18, 0, 4));
    });
}

#[test]
fn a_software_name_that_is_none_is_refused() {
    with_broker(&[], |broker| async move {
        for (version, error) in [(2, ErrorCode::NONE), (3, ErrorCode::INVALID_REQUEST)] {
            let answer = broker.ask(&api::api_versions::ApiVersionsRequest::default(), version).await;
            let response: api::api_versions::ApiVersionsResponse<'_> = answer.read();
            assert_eq!(response.error_code, error);
        }
    });
}

#[test]
fn a_malformed_request_closes_its_connection() {
    with_broker(&[], |broker| async move {
        for api in served() {
            let body = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x7f]);
            let version = api.version_max();
            let outcome = broker.apis[0].clone().handle(context(api, version, 1), body).await;
            match outcome {
                Outcome::Close(reason) => assert!(reason.contains("malformed"), "{reason}"),
                // Some bodies are a few fixed fields, for which these bytes are as good as any.
                Outcome::Reply(_) => assert!(matches!(api, ApiKey::DescribeCluster), "{api}"),
                Outcome::Nothing => panic!("{api} said nothing"),
            }
        }
    });
}
