//! ConsumerGroupDescribe: groups of the new protocol with their members, what these want, hold and are to hold (KIP-848).

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::join_all;
use ringlog_protocol::api::consumer_group_describe::{
    Assignment, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribedGroup, Member, TopicPartitions,
};
use ringlog_protocol::{ErrorCode, Uuid};

use super::respond::{GROUP_OPERATIONS, OPERATIONS_NOT_ASKED, each_once};
use super::{Api, decode, reply};
use crate::group::request::{DescribedConsumer, Reply};
use crate::group::{Answer, Name, Request};
use crate::net::{Outcome, RequestContext};

/// The types of members, by their protocol.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: ConsumerGroupDescribeRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let ask = |group: &Cow<'_, str>| api.core.groups.ask(&api.topics(), group, Request::DescribeConsumers);
    let groups = each_once(request.group_ids);
    let asked: Vec<_> = groups.iter().map(ask).collect();
    let operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { OPERATIONS_NOT_ASKED };
    let answers = join_all(asked).await;
    let groups = groups.iter().zip(answers).map(|(group, answer)| {
        let mut described = describe(group, answer);
        if described.error_code.is_none() {
            described.authorized_operations = operations;
        }
        described
    });
    reply(&context, &ConsumerGroupDescribeResponse { groups: groups.collect(), ..ConsumerGroupDescribeResponse::default() })
}

fn describe<'a>(group: &Cow<'a, str>, answer: Answer) -> DescribedGroup<'a> {
    let mut response = DescribedGroup { group_id: group.clone(), ..DescribedGroup::default() };
    if group.is_empty() {
        response.error_code = ErrorCode::INVALID_GROUP_ID;
        return response;
    }
    match answer {
        Ok(Reply::DescribedConsumers(described)) => {
            response.group_state = described.state.into();
            response.group_epoch = described.epoch;
            response.assignment_epoch = described.assignment_epoch;
            response.assignor_name = described.assignor.into();
            response.members = described.members.into_iter().map(member).collect();
        }
        Ok(Reply::Refused(refusal)) => {
            response.error_code = refusal.code;
            response.error_message = Some(refusal.message.into());
        }
        Ok(other) => unreachable!("{other:?} to a description"),
        Err(error) => response.error_code = error,
    }
    response
}

fn member<'a>(member: DescribedConsumer) -> Member<'a> {
    let text = |name: Option<Name>| name.map(|name| name.to_string().into());
    Member {
        member_id: member.member.to_string().into(),
        instance_id: text(member.instance),
        rack_id: text(member.rack),
        member_epoch: member.epoch,
        client_id: member.client_id.to_string().into(),
        client_host: member.client_host.to_string().into(),
        subscribed_topic_names: member.topics.iter().map(|topic| topic.to_string().into()).collect(),
        // Kafka's is empty, though it may be null.
        subscribed_topic_regex: Some(member.regex.map_or(Cow::Borrowed(""), |regex| regex.to_string().into())),
        assignment: assignment(member.assigned),
        target_assignment: assignment(member.target),
        member_type: if member.is_classic { CLASSIC_MEMBER } else { CONSUMER_MEMBER },
    }
}

fn assignment<'a>(topics: Vec<(Uuid, Name, Vec<i32>)>) -> Assignment<'a> {
    let topic = |(topic_id, name, partitions): (Uuid, Name, Vec<i32>)| TopicPartitions {
        topic_id,
        topic_name: name.to_string().into(),
        partitions,
    };
    Assignment { topic_partitions: topics.into_iter().map(topic).collect() }
}
