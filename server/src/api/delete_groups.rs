//! DeleteGroups: removes groups without members, with what they have committed.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::join_all;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::delete_groups::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};

use super::{Api, decode, reply};
use crate::group::Request;
use crate::net::{Outcome, RequestContext};

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: DeleteGroupsRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let ask = |group: &Cow<'_, str>| api.core.groups.ask(&api.topics(), group, Request::Delete);
    let asked: Vec<_> = request.groups_names.iter().map(ask).collect();
    let answers = join_all(asked).await;
    let results = request.groups_names.iter().zip(answers).map(|(group, answer)| DeletableGroupResult {
        group_id: group.clone(),
        error_code: answer.err().unwrap_or(ErrorCode::NONE),
    });
    reply(&context, &DeleteGroupsResponse { results: results.collect(), ..DeleteGroupsResponse::default() })
}
