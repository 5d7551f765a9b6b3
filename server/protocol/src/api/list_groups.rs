//! ListGroups: the groups that a broker coordinates.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A ListGroups request.
    struct ListGroupsRequest<'a> for ListGroups {
        /// The states of the groups to list, by their names; all if empty (KIP-518).
        states_filter: Vec<Cow<'a, str>>, 4+;
        /// The types of the groups to list, by their names; all if empty (KIP-848).
        types_filter: Vec<Cow<'a, str>>, 5+;
    }
}

message! {
    /// A ListGroups response.
    struct ListGroupsResponse<'a> for ListGroups {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 1+, ignorable;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The groups.
        groups: Vec<ListedGroup<'a>>, 0+;
    }
}

message! {
    /// One group in the response.
    struct ListedGroup<'a> {
        /// The group.
        group_id: Cow<'a, str>, 0+;
        /// What kind of group it is: `consumer`, `connect`.
        protocol_type: Cow<'a, str>, 0+;
        /// The state of the group, by its name.
        group_state: Cow<'a, str>, 4+, ignorable;
        /// The type of the group, by its name: `Classic`, `Consumer`.
        group_type: Cow<'a, str>, 5+, ignorable;
    }
}
