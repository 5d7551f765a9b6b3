//! The messages, one file per API: a request and a response each, with their parts. The files hold descriptions only; what is made of them is
//! `message!`'s doing. A field that a version lacks decodes to its default.

use crate::Message;
use crate::schema::MessageSchema;

pub mod alter_configs;
pub mod api_versions;
pub mod consumer_group_describe;
pub mod consumer_group_heartbeat;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_topic_partitions;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sync_group;

/// Calls a macro with `module Request Response,` for every API: the one list of them, for whoever does something with each.
#[macro_export]
macro_rules! for_each_api {
    ($callback:ident) => {
        $callback! {
            produce ProduceRequest ProduceResponse,
            fetch FetchRequest FetchResponse,
            list_offsets ListOffsetsRequest ListOffsetsResponse,
            metadata MetadataRequest MetadataResponse,
            offset_commit OffsetCommitRequest OffsetCommitResponse,
            offset_fetch OffsetFetchRequest OffsetFetchResponse,
            find_coordinator FindCoordinatorRequest FindCoordinatorResponse,
            join_group JoinGroupRequest JoinGroupResponse,
            heartbeat HeartbeatRequest HeartbeatResponse,
            leave_group LeaveGroupRequest LeaveGroupResponse,
            sync_group SyncGroupRequest SyncGroupResponse,
            describe_groups DescribeGroupsRequest DescribeGroupsResponse,
            list_groups ListGroupsRequest ListGroupsResponse,
            api_versions ApiVersionsRequest ApiVersionsResponse,
            create_topics CreateTopicsRequest CreateTopicsResponse,
            delete_topics DeleteTopicsRequest DeleteTopicsResponse,
            delete_records DeleteRecordsRequest DeleteRecordsResponse,
            init_producer_id InitProducerIdRequest InitProducerIdResponse,
            offset_for_leader_epoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse,
            describe_configs DescribeConfigsRequest DescribeConfigsResponse,
            alter_configs AlterConfigsRequest AlterConfigsResponse,
            describe_log_dirs DescribeLogDirsRequest DescribeLogDirsResponse,
            create_partitions CreatePartitionsRequest CreatePartitionsResponse,
            delete_groups DeleteGroupsRequest DeleteGroupsResponse,
            incremental_alter_configs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse,
            offset_delete OffsetDeleteRequest OffsetDeleteResponse,
            describe_cluster DescribeClusterRequest DescribeClusterResponse,
            describe_producers DescribeProducersRequest DescribeProducersResponse,
            consumer_group_heartbeat ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse,
            consumer_group_describe ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse,
            list_config_resources ListConfigResourcesRequest ListConfigResourcesResponse,
            describe_topic_partitions DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse,
        }
    };
}

const fn schema<'a, M: Message<'a>>() -> MessageSchema {
    MessageSchema { api: M::API, structure: M::STRUCTURE }
}

macro_rules! schemas {
    ($($module:ident $request:ident $response:ident,)*) => {
        &[$(schema::<$module::$request>(), schema::<$module::$response>(),)*]
    };
}

/// What every request and response looks like.
pub const SCHEMAS: &[MessageSchema] = for_each_api!(schemas);
