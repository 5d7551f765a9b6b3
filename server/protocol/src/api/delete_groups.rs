//! DeleteGroups: removes groups without members, with their offsets.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A DeleteGroups request.
    struct DeleteGroupsRequest<'a> for DeleteGroups {
        /// The groups.
        groups_names: Vec<Cow<'a, str>>, 0+;
    }
}

message! {
    /// A DeleteGroups response.
    struct DeleteGroupsResponse<'a> for DeleteGroups {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 0+;
        /// What became of each group.
        results: Vec<DeletableGroupResult<'a>>, 0+;
    }
}

message! {
    /// What became of one group.
    struct DeletableGroupResult<'a> {
        /// The group.
        group_id: Cow<'a, str>, 0+;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
    }
}
