//! LeaveGroup: members go, or are made to go, and the others take over at once.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse};

use super::{Api, decode, reply};
use crate::group::Request;
use crate::group::request::{Leaver, Reply};
use crate::net::{Outcome, RequestContext};

/// From here on several members leave at once (KIP-345).
const BATCHED_VERSION_MIN: i16 = 3;

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: LeaveGroupRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let is_batched = context.api_version >= BATCHED_VERSION_MIN;
    let leavers = if is_batched {
        request.members.iter().map(leaver).collect()
    } else {
        vec![Leaver { member: (*request.member_id).into(), instance: None }]
    };
    let answer = api.core.groups.ask(&api.topics(), &request.group_id, Request::Leave(leavers)).await;
    let mut response = LeaveGroupResponse::default();
    match answer {
        Ok(Reply::Left(codes)) if is_batched => {
            let member = |(identity, error_code): (MemberIdentity<'_>, ErrorCode)| MemberResponse {
                member_id: Cow::Owned(identity.member_id.into_owned()),
                group_instance_id: identity.group_instance_id.map(|instance| Cow::Owned(instance.into_owned())),
                error_code,
            };
            response.members = request.members.into_iter().zip(codes).map(member).collect();
        }
        Ok(Reply::Left(codes)) => response.error_code = codes.first().copied().unwrap_or(ErrorCode::UNKNOWN_MEMBER_ID),
        Ok(other) => unreachable!("{other:?} to a leave"),
        Err(error) => response.error_code = error,
    }
    reply(&context, &response)
}

fn leaver(identity: &MemberIdentity<'_>) -> Leaver {
    Leaver { member: (*identity.member_id).into(), instance: identity.group_instance_id.as_deref().map(Into::into) }
}
