//! SyncGroup: the leader says who gets what, and every member gets its part. The answer waits for the leader.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::sync_group::{SyncGroupRequest, SyncGroupResponse};

use super::{Api, decode, reply, unless_gone};
use crate::group::Request;
use crate::group::request::{Identity, Reply, Sync};
use crate::net::{Outcome, RequestContext};

/// From here on a member says what it takes the group for.
const PROTOCOL_VERSION_MIN: i16 = 5;

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let asked = {
        let request: SyncGroupRequest<'_> = match decode(&context, &body) {
            Ok(request) => request,
            Err(malformed) => return malformed.into(),
        };
        if context.api_version >= PROTOCOL_VERSION_MIN && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
            let error_code = ErrorCode::INCONSISTENT_GROUP_PROTOCOL;
            return reply(&context, &SyncGroupResponse { error_code, ..SyncGroupResponse::default() });
        }
        let sync = Request::Sync(sync(&request));
        api.core.groups.ask(&api.topics(), &request.group_id, sync)
    };
    drop(body);
    let mut response = SyncGroupResponse::default();
    match unless_gone(&context, asked).await {
        Ok(Reply::Synced(synced)) => {
            response.protocol_type = synced.protocol_type.map(|name| name.to_string().into());
            response.protocol_name = synced.protocol.map(|name| name.to_string().into());
            response.assignment = Cow::Owned(synced.assignment.into());
        }
        Ok(other) => unreachable!("{other:?} to a sync"),
        Err(error) => response.error_code = error,
    }
    reply(&context, &response)
}

fn sync(request: &SyncGroupRequest<'_>) -> Sync {
    Sync {
        identity: Identity {
            member: (*request.member_id).into(),
            instance: request.group_instance_id.as_deref().map(Into::into),
            generation: request.generation_id,
        },
        protocol_type: request.protocol_type.as_deref().map(Into::into),
        protocol: request.protocol_name.as_deref().map(Into::into),
        // Copied: they are kept for longer than the request.
        assignments: request
            .assignments
            .iter()
            .map(|assignment| ((*assignment.member_id).into(), Bytes::copy_from_slice(&assignment.assignment)))
            .collect(),
    }
}
