//! JoinGroup: enters a group, or its next generation. The answer waits until the others are there.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::join_group::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};

use super::{Api, decode, group_client, reply, unless_gone};
use crate::group::Request;
use crate::group::request::{Join, Reply};
use crate::net::{Outcome, RequestContext};

/// From here on a new member comes again with the id that it is given (KIP-394).
const MEMBER_ID_VERSION_MIN: i16 = 4;
/// From here on there may be no protocol's name in an answer.
const NULL_PROTOCOL_VERSION_MIN: i16 = 7;
/// From here on a leader can be told that it need not assign (KIP-814).
const SKIP_ASSIGNMENT_VERSION_MIN: i16 = 9;

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let version = context.api_version;
    let (asked, member) = {
        let request: JoinGroupRequest<'_> = match decode(&context, &body) {
            Ok(request) => request,
            Err(malformed) => return malformed.into(),
        };
        let join = Request::Join(Box::new(join(&context, &request)));
        (api.ask_as_member(&context, &request.group_id, join), request.member_id.into_owned())
    };
    drop(body);
    let mut response = JoinGroupResponse { generation_id: -1, member_id: Cow::Owned(member), ..JoinGroupResponse::default() };
    match unless_gone(&context, asked).await {
        Ok(Reply::Joined(joined)) => {
            let member =
                |(id, instance, metadata): (crate::group::Name, Option<crate::group::Name>, Bytes)| JoinGroupResponseMember {
                    member_id: id.to_string().into(),
                    group_instance_id: instance.map(|instance| instance.to_string().into()),
                    metadata: Cow::Owned(metadata.into()),
                };
            response.generation_id = joined.generation;
            response.protocol_type = joined.protocol_type.map(|name| name.to_string().into());
            response.protocol_name = joined.protocol.map(|name| name.to_string().into());
            response.leader = joined.leader.to_string().into();
            response.skip_assignment = joined.skips_assignment && version >= SKIP_ASSIGNMENT_VERSION_MIN;
            response.member_id = joined.member.to_string().into();
            response.members = joined.members.into_iter().map(member).collect();
        }
        Ok(Reply::MemberIdRequired(id)) => {
            response.error_code = ErrorCode::MEMBER_ID_REQUIRED;
            response.member_id = id.to_string().into();
        }
        Ok(other) => unreachable!("{other:?} to a join"),
        Err(error) => {
            response.error_code = error;
            if error == ErrorCode::GROUP_MAX_SIZE_REACHED {
                response.member_id = "".into();
            }
        }
    }
    if version < NULL_PROTOCOL_VERSION_MIN {
        response.protocol_name.get_or_insert_with(|| "".into());
    }
    reply(&context, &response)
}

fn join(context: &RequestContext, request: &JoinGroupRequest<'_>) -> Join {
    let ms = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let (client_id, client_host) = group_client(context);
    let has_rebalance_timeout = context.api_version > 0 && request.rebalance_timeout_ms >= 0;
    Join {
        member: (*request.member_id).into(),
        instance: request.group_instance_id.as_deref().map(Into::into),
        client_id,
        client_host,
        session_timeout: ms(request.session_timeout_ms),
        rebalance_timeout: ms(if has_rebalance_timeout { request.rebalance_timeout_ms } else { request.session_timeout_ms }),
        protocol_type: (*request.protocol_type).into(),
        // Copied: they are kept for longer than the request.
        protocols: request
            .protocols
            .iter()
            .map(|protocol| ((*protocol.name).into(), Bytes::copy_from_slice(&protocol.metadata)))
            .collect(),
        requires_member_id: context.api_version >= MEMBER_ID_VERSION_MIN,
        knows_skip_assignment: context.api_version >= SKIP_ASSIGNMENT_VERSION_MIN,
    }
}
