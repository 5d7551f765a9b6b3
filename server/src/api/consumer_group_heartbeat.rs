//! ConsumerGroupHeartbeat: a member of a group of the new protocol joins, says what it wants and holds, learns what it is to hold,
//! leaves (KIP-848).

use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::api::consumer_group_heartbeat::{
    Assignment, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};

use super::{Api, decode, group_client, reply};
use crate::group::request::{Beat, ConsumerHeartbeat, Reply};
use crate::group::{Partitions, Request};
use crate::net::{Outcome, RequestContext};

/// From here on members give themselves their ids (KIP-1082).
const OWN_MEMBER_ID_VERSION_MIN: i16 = 1;

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let asked = {
        let request: ConsumerGroupHeartbeatRequest<'_> = match decode(&context, &body) {
            Ok(request) => request,
            Err(malformed) => return malformed.into(),
        };
        let beat = Request::ConsumerHeartbeat(Box::new(heartbeat(&context, &request)));
        api.ask_as_member(&context, &request.group_id, beat)
    };
    drop(body);
    let mut response = ConsumerGroupHeartbeatResponse::default();
    match asked.await {
        Ok(Reply::Beat(Beat { member, epoch, interval, assignment })) => {
            response.member_id = Some(member.to_string().into());
            response.member_epoch = epoch;
            response.heartbeat_interval_ms = i32::try_from(interval.as_millis()).unwrap_or(i32::MAX);
            response.assignment = assignment.map(|partitions| Assignment {
                topic_partitions: partitions
                    .into_iter()
                    .map(|(topic_id, partitions)| TopicPartitions { topic_id, partitions: partitions.into_iter().collect() })
                    .collect(),
            });
        }
        Ok(Reply::Refused(refusal)) => {
            response.error_code = refusal.code;
            response.error_message = Some(refusal.message.into());
        }
        Ok(other) => unreachable!("{other:?} to a heartbeat"),
        Err(error) => response.error_code = error,
    }
    reply(&context, &response)
}

fn heartbeat(context: &RequestContext, request: &ConsumerGroupHeartbeatRequest<'_>) -> ConsumerHeartbeat {
    let (client_id, client_host) = group_client(context);
    let owned = |topics: &Vec<TopicPartitions>| {
        let mut owned = Partitions::new();
        for topic in topics {
            owned.get_or_default(topic.topic_id).extend(&topic.partitions);
        }
        owned
    };
    ConsumerHeartbeat {
        member: (*request.member_id).into(),
        epoch: request.member_epoch,
        instance: request.instance_id.as_deref().map(Into::into),
        rack: request.rack_id.as_deref().map(Into::into),
        client_id,
        client_host,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        topics: request.subscribed_topic_names.as_ref().map(|names| names.iter().map(|name| (**name).into()).collect()),
        regex: request.subscribed_topic_regex.as_deref().map(Into::into),
        assignor: request.server_assignor.as_deref().map(Into::into),
        owned: request.topic_partitions.as_ref().map(owned),
        requires_member_id: context.api_version >= OWN_MEMBER_ID_VERSION_MIN,
    }
}
