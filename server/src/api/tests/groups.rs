//! Requests about groups, as far as handlers do more than hand them over.

use ringlog_protocol::api::consumer_group_describe::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
use ringlog_protocol::api::consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use ringlog_protocol::api::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
use ringlog_protocol::api::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity};
use ringlog_protocol::api::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
};
use ringlog_protocol::api::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
};

use super::*;

#[test]
fn a_group_that_is_named_often_is_answered_once() {
    with_broker(&[], |broker| async move {
        broker.broker.controller.offsets_topic().await.expect("the topic of the groups is made");
        let names = || ["a", "b", "a", "a"].map(Cow::from).to_vec();

        let request = DescribeGroupsRequest { groups: names(), ..DescribeGroupsRequest::default() };
        let answer = broker.ask(&request, 5).await;
        let response: DescribeGroupsResponse<'_> = answer.read();
        assert_eq!(response.groups.iter().map(|group| &*group.group_id).collect::<Vec<_>>(), ["a", "b"]);

        let request = ConsumerGroupDescribeRequest { group_ids: names(), ..ConsumerGroupDescribeRequest::default() };
        let answer = broker.ask(&request, 0).await;
        let response: ConsumerGroupDescribeResponse<'_> = answer.read();
        assert_eq!(response.groups.iter().map(|group| &*group.group_id).collect::<Vec<_>>(), ["a", "b"]);

        let group = |name: &'static str, partitions: Option<Vec<i32>>| OffsetFetchRequestGroup {
            group_id: name.into(),
            topics: partitions.map(|partition_indexes| {
                vec![OffsetFetchRequestTopics { name: "t".into(), partition_indexes, ..OffsetFetchRequestTopics::default() }]
            }),
            ..OffsetFetchRequestGroup::default()
        };
        let groups = vec![group("a", None), group("b", Some(vec![0, 0])), group("a", None), group("b", Some(vec![1]))];
        let answer = broker.ask(&OffsetFetchRequest { groups, ..OffsetFetchRequest::default() }, 8).await;
        let response: OffsetFetchResponse<'_> = answer.read();
        let answered: Vec<_> = response
            .groups
            .iter()
            .map(|group| (&*group.group_id, group.error_code, group.topics.iter().map(|topic| topic.partitions.len()).sum()))
            .collect();
        let expected: [(_, _, usize); 3] =
            [("a", ErrorCode::NONE, 0), ("b", ErrorCode::NONE, 1), ("b", ErrorCode::INVALID_REQUEST, 0)];
        assert_eq!(answered, expected);
    });
}

#[test]
fn each_who_leaves_a_group_that_there_is_not_is_told_so() {
    with_broker(&[], |broker| async move {
        broker.broker.controller.offsets_topic().await.expect("the topic of the groups is made");
        let member = |name: &'static str| MemberIdentity { member_id: name.into(), ..MemberIdentity::default() };
        let request =
            LeaveGroupRequest { group_id: "g".into(), members: vec![member("a"), member("b")], ..LeaveGroupRequest::default() };
        let answer = broker.ask(&request, 5).await;
        let response: LeaveGroupResponse<'_> = answer.read();
        let codes: Vec<_> = response.members.iter().map(|member| (&*member.member_id, member.error_code)).collect();
        let unknown = ErrorCode::UNKNOWN_MEMBER_ID;
        assert_eq!((response.error_code, codes), (ErrorCode::NONE, vec![("a", unknown), ("b", unknown)]));

        // Before version 3 there is one of them.
        let request = LeaveGroupRequest { group_id: "g".into(), member_id: "a".into(), ..LeaveGroupRequest::default() };
        let answer = broker.ask(&request, 2).await;
        assert_eq!(answer.read::<LeaveGroupResponse<'_>>().error_code, unknown);
    });
}

#[test]
fn offsets_of_what_there_is_not_are_refused_and_the_others_are_kept() {
    with_broker(&[], |broker| async move {
        broker.broker.controller.offsets_topic().await.expect("the topic of the groups is made");
        let known = broker.create("t", 2, &[]).await;
        let topic = |name: &'static str, topic_id, partitions: &[i32]| OffsetCommitRequestTopic {
            name: name.into(),
            topic_id,
            partitions: partitions
                .iter()
                .map(|partition| OffsetCommitRequestPartition {
                    partition_index: *partition,
                    committed_offset: 10 + i64::from(*partition),
                    ..OffsetCommitRequestPartition::default()
                })
                .collect(),
        };
        let ask = async |version: i16, topics: Vec<OffsetCommitRequestTopic<'static>>| {
            let request = OffsetCommitRequest {
                group_id: "g".into(),
                generation_id_or_member_epoch: -1,
                topics,
                ..OffsetCommitRequest::default()
            };
            let answer = broker.ask(&request, version).await;
            let response: OffsetCommitResponse<'_> = answer.read();
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|partition| (partition.partition_index, partition.error_code)).collect::<Vec<_>>()
        };
        let (none, unknown, unknown_id) = (ErrorCode::NONE, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::UNKNOWN_TOPIC_ID);

        // What is refused here stands between what the group answers.
        let zeros = [0; 16];
        let topics = vec![topic("no such", zeros, &[0, 1]), topic("t", zeros, &[2, 1, -1]), topic("t", zeros, &[0])];
        let expected = [(0, unknown), (1, unknown), (2, unknown), (1, none), (-1, unknown), (0, none)];
        assert_eq!(ask(8, topics).await, expected);
        let topics = vec![topic("", [9; 16], &[0]), topic("", known.id.0, &[0, 7]), topic("", zeros, &[1])];
        assert_eq!(ask(10, topics).await, [(0, unknown_id), (0, none), (7, unknown), (1, unknown_id)]);
        // Nothing is left for the group to say.
        assert_eq!(ask(8, vec![topic("no such", zeros, &[0])]).await, [(0, unknown)]);

        let group = OffsetFetchRequestGroup { group_id: "g".into(), topics: None, ..OffsetFetchRequestGroup::default() };
        let answer = broker.ask(&OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() }, 8).await;
        let response: OffsetFetchResponse<'_> = answer.read();
        let kept: Vec<_> = response.groups[0].topics.iter().flat_map(|topic| &topic.partitions).collect();
        let kept: Vec<_> = kept.iter().map(|partition| (partition.partition_index, partition.committed_offset)).collect();
        assert_eq!(kept, [(0, 10), (1, 11)]);
    });
}

#[test]
fn a_member_without_a_pattern_is_described_with_an_empty_one() {
    with_broker(&[], |broker| async move {
        broker.broker.controller.offsets_topic().await.expect("the topic of the groups is made");
        let request = ConsumerGroupHeartbeatRequest {
            group_id: "g".into(),
            member_id: "a".into(),
            rebalance_timeout_ms: 60_000,
            subscribed_topic_names: Some(vec!["t".into()]),
            topic_partitions: Some(Vec::new()),
            ..ConsumerGroupHeartbeatRequest::default()
        };
        let answer = broker.ask(&request, 1).await;
        assert_eq!(answer.read::<ConsumerGroupHeartbeatResponse<'_>>().error_code, ErrorCode::NONE);
        let request = ConsumerGroupDescribeRequest { group_ids: vec!["g".into()], ..ConsumerGroupDescribeRequest::default() };
        let answer = broker.ask(&request, 1).await;
        let response: ConsumerGroupDescribeResponse<'_> = answer.read();
        assert_eq!(response.groups[0].members[0].subscribed_topic_regex.as_deref(), Some(""));
    });
}
