//! DescribeGroups: groups with their members, what these say of themselves and what they have.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::join_all;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};

use super::respond::{GROUP_OPERATIONS, OPERATIONS_NOT_ASKED, each_once};
use super::{Api, decode, reply};
use crate::group::request::{DescribedMember, Reply};
use crate::group::{Answer, Request};
use crate::net::{Outcome, RequestContext};

/// From here on a group that does not exist is an error; before, it is dead.
const NOT_FOUND_VERSION_MIN: i16 = 6;

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: DescribeGroupsRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let ask = |group: &Cow<'_, str>| api.core.groups.ask(&api.topics(), group, Request::Describe);
    let groups = each_once(request.groups);
    let asked: Vec<_> = groups.iter().map(ask).collect();
    let operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { OPERATIONS_NOT_ASKED };
    let answers = join_all(asked).await;
    let groups = groups.iter().zip(answers).map(|(group, answer)| {
        let mut described = describe(context.api_version, group, answer);
        if described.error_code.is_none() {
            described.authorized_operations = operations;
        }
        described
    });
    reply(&context, &DescribeGroupsResponse { groups: groups.collect(), ..DescribeGroupsResponse::default() })
}

fn describe<'a>(version: i16, group: &Cow<'a, str>, answer: Answer) -> DescribedGroup<'a> {
    let mut response = DescribedGroup { group_id: group.clone(), ..DescribedGroup::default() };
    match answer {
        Ok(Reply::Described(described)) => {
            response.group_state = described.state.into();
            response.protocol_type = described.protocol_type.to_string().into();
            response.protocol_data = described.protocol.to_string().into();
            response.members = described.members.into_iter().map(member).collect();
        }
        Ok(Reply::Refused(refusal)) => {
            response.group_state = "Dead".into();
            if version >= NOT_FOUND_VERSION_MIN {
                response.error_code = refusal.code;
                response.error_message = Some(refusal.message.into());
            }
        }
        Ok(other) => unreachable!("{other:?} to a description"),
        Err(ErrorCode::GROUP_ID_NOT_FOUND) => {
            response.group_state = "Dead".into();
            if version >= NOT_FOUND_VERSION_MIN {
                response.error_code = ErrorCode::GROUP_ID_NOT_FOUND;
                response.error_message = Some(format!("Group {group} not found.").into());
            }
        }
        Err(error) => response.error_code = error,
    }
    response
}

fn member<'a>(member: DescribedMember) -> DescribedGroupMember<'a> {
    DescribedGroupMember {
        member_id: member.member.to_string().into(),
        group_instance_id: member.instance.map(|instance| instance.to_string().into()),
        client_id: member.client_id.to_string().into(),
        client_host: member.client_host.to_string().into(),
        member_metadata: Cow::Owned(member.metadata.into()),
        member_assignment: Cow::Owned(member.assignment.into()),
    }
}
