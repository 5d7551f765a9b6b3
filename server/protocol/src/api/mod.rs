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

const fn schema<'a, M: Message<'a>>() -> MessageSchema {
    MessageSchema { api: M::API, structure: M::STRUCTURE }
}

/// What every request and response looks like.
pub const SCHEMAS: &[MessageSchema] = &[
    schema::<produce::ProduceRequest>(),
    schema::<produce::ProduceResponse>(),
    schema::<fetch::FetchRequest>(),
    schema::<fetch::FetchResponse>(),
    schema::<list_offsets::ListOffsetsRequest>(),
    schema::<list_offsets::ListOffsetsResponse>(),
    schema::<metadata::MetadataRequest>(),
    schema::<metadata::MetadataResponse>(),
    schema::<offset_commit::OffsetCommitRequest>(),
    schema::<offset_commit::OffsetCommitResponse>(),
    schema::<offset_fetch::OffsetFetchRequest>(),
    schema::<offset_fetch::OffsetFetchResponse>(),
    schema::<find_coordinator::FindCoordinatorRequest>(),
    schema::<find_coordinator::FindCoordinatorResponse>(),
    schema::<join_group::JoinGroupRequest>(),
    schema::<join_group::JoinGroupResponse>(),
    schema::<heartbeat::HeartbeatRequest>(),
    schema::<heartbeat::HeartbeatResponse>(),
    schema::<leave_group::LeaveGroupRequest>(),
    schema::<leave_group::LeaveGroupResponse>(),
    schema::<sync_group::SyncGroupRequest>(),
    schema::<sync_group::SyncGroupResponse>(),
    schema::<describe_groups::DescribeGroupsRequest>(),
    schema::<describe_groups::DescribeGroupsResponse>(),
    schema::<list_groups::ListGroupsRequest>(),
    schema::<list_groups::ListGroupsResponse>(),
    schema::<api_versions::ApiVersionsRequest>(),
    schema::<api_versions::ApiVersionsResponse>(),
    schema::<create_topics::CreateTopicsRequest>(),
    schema::<create_topics::CreateTopicsResponse>(),
    schema::<delete_topics::DeleteTopicsRequest>(),
    schema::<delete_topics::DeleteTopicsResponse>(),
    schema::<delete_records::DeleteRecordsRequest>(),
    schema::<delete_records::DeleteRecordsResponse>(),
    schema::<init_producer_id::InitProducerIdRequest>(),
    schema::<init_producer_id::InitProducerIdResponse>(),
    schema::<offset_for_leader_epoch::OffsetForLeaderEpochRequest>(),
    schema::<offset_for_leader_epoch::OffsetForLeaderEpochResponse>(),
    schema::<describe_configs::DescribeConfigsRequest>(),
    schema::<describe_configs::DescribeConfigsResponse>(),
    schema::<alter_configs::AlterConfigsRequest>(),
    schema::<alter_configs::AlterConfigsResponse>(),
    schema::<describe_log_dirs::DescribeLogDirsRequest>(),
    schema::<describe_log_dirs::DescribeLogDirsResponse>(),
    schema::<create_partitions::CreatePartitionsRequest>(),
    schema::<create_partitions::CreatePartitionsResponse>(),
    schema::<delete_groups::DeleteGroupsRequest>(),
    schema::<delete_groups::DeleteGroupsResponse>(),
    schema::<incremental_alter_configs::IncrementalAlterConfigsRequest>(),
    schema::<incremental_alter_configs::IncrementalAlterConfigsResponse>(),
    schema::<offset_delete::OffsetDeleteRequest>(),
    schema::<offset_delete::OffsetDeleteResponse>(),
    schema::<describe_cluster::DescribeClusterRequest>(),
    schema::<describe_cluster::DescribeClusterResponse>(),
    schema::<describe_producers::DescribeProducersRequest>(),
    schema::<describe_producers::DescribeProducersResponse>(),
    schema::<consumer_group_heartbeat::ConsumerGroupHeartbeatRequest>(),
    schema::<consumer_group_heartbeat::ConsumerGroupHeartbeatResponse>(),
    schema::<consumer_group_describe::ConsumerGroupDescribeRequest>(),
    schema::<consumer_group_describe::ConsumerGroupDescribeResponse>(),
    schema::<list_config_resources::ListConfigResourcesRequest>(),
    schema::<list_config_resources::ListConfigResourcesResponse>(),
    schema::<describe_topic_partitions::DescribeTopicPartitionsRequest>(),
    schema::<describe_topic_partitions::DescribeTopicPartitionsResponse>(),
];
