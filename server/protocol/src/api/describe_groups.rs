//! DescribeGroups: groups of the classic protocol with their members.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A DescribeGroups request.
    struct DescribeGroupsRequest<'a> for DescribeGroups {
        /// The groups.
        groups: Vec<Cow<'a, str>>, 0+;
        /// Whether to say what the client may do with each group.
        include_authorized_operations: bool, 3+;
    }
}

message! {
    /// A DescribeGroups response.
    struct DescribeGroupsResponse<'a> for DescribeGroups {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 1+, ignorable;
        /// The groups.
        groups: Vec<DescribedGroup<'a>>, 0+;
    }
}

message! {
    /// One group in the response.
    struct DescribedGroup<'a> {
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The error in words.
        error_message: Option<Cow<'a, str>>, 6+ nullable 6+;
        /// The group.
        group_id: Cow<'a, str>, 0+;
        /// The state of the group, by its name.
        group_state: Cow<'a, str>, 0+;
        /// What kind of group it is: `consumer`, `connect`.
        protocol_type: Cow<'a, str>, 0+;
        /// The protocol that the group uses; empty if none.
        protocol_data: Cow<'a, str>, 0+;
        /// The members.
        members: Vec<DescribedGroupMember<'a>>, 0+;
        /// A bit for each operation that the client may do with the group; `i32::MIN` if not asked.
        authorized_operations: i32, 3+ default (i32::MIN);
    }
}

message! {
    /// One member of a group.
    struct DescribedGroupMember<'a> {
        /// The member.
        member_id: Cow<'a, str>, 0+;
        /// What the member is called by its user, if it is a static one (KIP-345).
        group_instance_id: Option<Cow<'a, str>>, 4+ nullable 4+, ignorable;
        /// What the client calls itself.
        client_id: Cow<'a, str>, 0+;
        /// From where it is connected.
        client_host: Cow<'a, str>, 0+;
        /// What the member said of itself in that protocol.
        member_metadata: Cow<'a, [u8]>, 0+;
        /// What the member got.
        member_assignment: Cow<'a, [u8]>, 0+;
    }
}
