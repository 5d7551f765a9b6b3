//! Heartbeat: a member is there, and learns whether the group rebalances.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::heartbeat::{HeartbeatRequest, HeartbeatResponse};

use super::{Api, decode, reply};
use crate::group::Request;
use crate::group::request::Identity;
use crate::net::{Outcome, RequestContext};

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let asked = {
        let request: HeartbeatRequest<'_> = match decode(&context, &body) {
            Ok(request) => request,
            Err(malformed) => return malformed.into(),
        };
        let identity = Identity {
            member: (*request.member_id).into(),
            instance: request.group_instance_id.as_deref().map(Into::into),
            generation: request.generation_id,
        };
        api.ask_as_member(&context, &request.group_id, Request::Heartbeat(identity))
    };
    let error_code = asked.await.err().unwrap_or(ErrorCode::NONE);
    reply(&context, &HeartbeatResponse { error_code, ..HeartbeatResponse::default() })
}
