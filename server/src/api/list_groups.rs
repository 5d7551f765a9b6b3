//! ListGroups: the groups that there are, by state and type if asked.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::api::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};

use super::{Api, decode, reply};
use crate::net::{Outcome, RequestContext};

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: ListGroupsRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let mut response = ListGroupsResponse::default();
    match api.core.broker.groups.list().await {
        Ok(groups) => {
            let is_wanted = |filter: &[Cow<'_, str>], what: &str| {
                filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(what))
            };
            let wanted = groups.into_iter().filter(|group| {
                is_wanted(&request.states_filter, group.state) && is_wanted(&request.types_filter, group.group_type)
            });
            let listed = wanted.map(|group| ListedGroup {
                group_id: group.group.to_string().into(),
                protocol_type: group.protocol_type.to_string().into(),
                group_state: group.state.into(),
                group_type: group.group_type.into(),
            });
            response.groups = listed.collect();
        }
        Err(error) => response.error_code = error,
    }
    reply(&context, &response)
}
