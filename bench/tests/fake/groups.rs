//! What the fake says about groups: it takes every commit and forgets it, has no member unless it is told to, and lets nobody
//! join.

use ringlog_protocol::api::consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use ringlog_protocol::api::delete_groups::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};
use ringlog_protocol::api::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use ringlog_protocol::api::find_coordinator::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};
use ringlog_protocol::api::join_group::{JoinGroupRequest, JoinGroupResponse};
use ringlog_protocol::api::leave_group::{LeaveGroupRequest, LeaveGroupResponse};
use ringlog_protocol::api::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use ringlog_protocol::api::offset_fetch::{OffsetFetchRequest, OffsetFetchResponse, OffsetFetchResponseGroup};
use ringlog_protocol::{ApiKey, Decoder, Encoder, ErrorCode};

use super::{Broker, Fault};

impl Broker {
    /// Writes the answer.
    pub(super) fn group(&self, api: ApiKey, decoder: &mut Decoder<'_>, encoder: &mut Encoder, version: i16) {
        let error = self.lock().faults.iter().find_map(|fault| match fault {
            Fault::GroupError(of, code) if *of == api => Some(*code),
            _ => None,
        });
        let error_code = error.unwrap_or(ErrorCode::NONE);
        match api {
            ApiKey::FindCoordinator => {
                let request = FindCoordinatorRequest::decode(decoder, version).unwrap();
                let coordinator = |key: &std::borrow::Cow<'_, str>| Coordinator {
                    key: key.clone().into_owned().into(),
                    node_id: 1,
                    host: "127.0.0.1".into(),
                    port: self.address.port().into(),
                    error_code,
                    ..Default::default()
                };
                let coordinators = request.coordinator_keys.iter().map(coordinator).collect();
                let mut response = FindCoordinatorResponse { coordinators, ..Default::default() };
                if version < 4 {
                    let port = self.address.port().into();
                    response =
                        FindCoordinatorResponse { error_code, node_id: 1, host: "127.0.0.1".into(), port, ..Default::default() };
                }
                response.encode(encoder, version);
            }
            ApiKey::OffsetCommit => {
                let request = OffsetCommitRequest::decode(decoder, version).unwrap();
                let topics = request.topics.iter().map(|topic| OffsetCommitResponseTopic {
                    topic_id: topic.topic_id,
                    partitions: topic
                        .partitions
                        .iter()
                        .map(|partition| OffsetCommitResponsePartition { partition_index: partition.partition_index, error_code })
                        .collect(),
                    ..Default::default()
                });
                OffsetCommitResponse { topics: topics.collect(), ..Default::default() }.encode(encoder, version);
            }
            ApiKey::OffsetFetch => {
                let request = OffsetFetchRequest::decode(decoder, version).unwrap();
                let groups = request.groups.iter().map(|group| OffsetFetchResponseGroup {
                    group_id: group.group_id.clone(),
                    error_code,
                    ..Default::default()
                });
                OffsetFetchResponse { groups: groups.collect(), ..Default::default() }.encode(encoder, version);
            }
            ApiKey::DescribeGroups => {
                let request = DescribeGroupsRequest::decode(decoder, version).unwrap();
                let member = DescribedGroupMember { member_id: "ghost".into(), ..Default::default() };
                let members = if self.lock().faults.contains(&Fault::GroupMember) { vec![member] } else { Vec::new() };
                let group = |group_id: &std::borrow::Cow<'_, str>| DescribedGroup {
                    group_id: group_id.clone().into_owned().into(),
                    members: members.clone(),
                    ..Default::default()
                };
                let groups = request.groups.iter().map(group).collect();
                DescribeGroupsResponse { groups, ..Default::default() }.encode(encoder, version);
            }
            ApiKey::LeaveGroup => {
                LeaveGroupRequest::decode(decoder, version).unwrap();
                LeaveGroupResponse { error_code, ..Default::default() }.encode(encoder, version);
            }
            ApiKey::DeleteGroups => {
                let request = DeleteGroupsRequest::decode(decoder, version).unwrap();
                let mut state = self.lock();
                state.deleted_groups.extend(request.groups_names.iter().map(|name| name.clone().into_owned()));
                let result = |group_id: &std::borrow::Cow<'_, str>| DeletableGroupResult {
                    group_id: group_id.clone().into_owned().into(),
                    error_code,
                };
                let results = request.groups_names.iter().map(result).collect();
                DeleteGroupsResponse { results, ..Default::default() }.encode(encoder, version);
            }
            ApiKey::JoinGroup => {
                JoinGroupRequest::decode(decoder, version).unwrap();
                let error_code = error.unwrap_or(ErrorCode::REBALANCE_IN_PROGRESS);
                JoinGroupResponse { error_code, ..Default::default() }.encode(encoder, version);
            }
            ApiKey::ConsumerGroupHeartbeat => {
                ConsumerGroupHeartbeatRequest::decode(decoder, version).unwrap();
                let error_code = error.unwrap_or(ErrorCode::UNKNOWN_MEMBER_ID);
                ConsumerGroupHeartbeatResponse { error_code, ..Default::default() }.encode(encoder, version);
            }
            other => panic!("nobody answers {other}"),
        }
    }
}
