//! SyncGroup: hands out the leader's assignment to the members of a classic group.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A SyncGroup request.
    struct SyncGroupRequest<'a> for SyncGroup {
        /// The group.
        group_id: Cow<'a, str>, 0+;
        /// The generation of the group.
        generation_id: i32, 0+;
        /// The member.
        member_id: Cow<'a, str>, 0+;
        /// What the member is called by its user, if it is a static one (KIP-345).
        group_instance_id: Option<Cow<'a, str>>, 3+ nullable 3+;
        /// What the member takes the group's kind for (KIP-559).
        protocol_type: Option<Cow<'a, str>>, 5+ nullable 5+, ignorable;
        /// What the member takes the group's protocol for (KIP-559).
        protocol_name: Option<Cow<'a, str>>, 5+ nullable 5+, ignorable;
        /// What each member gets, from the leader alone.
        assignments: Vec<SyncGroupRequestAssignment<'a>>, 0+;
    }
}

message! {
    /// What one member gets.
    struct SyncGroupRequestAssignment<'a> {
        /// The member.
        member_id: Cow<'a, str>, 0+;
        /// What it gets.
        assignment: Cow<'a, [u8]>, 0+;
    }
}

message! {
    /// A SyncGroup response.
    struct SyncGroupResponse<'a> for SyncGroup {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 1+, ignorable;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// What kind of group it is: `consumer`, `connect`.
        protocol_type: Option<Cow<'a, str>>, 5+ nullable 5+, ignorable;
        /// The protocol that the group uses.
        protocol_name: Option<Cow<'a, str>>, 5+ nullable 5+, ignorable;
        /// What the member gets.
        assignment: Cow<'a, [u8]>, 0+;
    }
}
