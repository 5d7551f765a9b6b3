//! Requests about groups, as far as handlers do more than hand them over.

use ringlog_protocol::api::consumer_group_describe::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
use ringlog_protocol::api::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
use ringlog_protocol::api::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity};
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
