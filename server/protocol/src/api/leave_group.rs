//! LeaveGroup: leaves a classic group, or makes others leave it.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A LeaveGroup request.
    struct LeaveGroupRequest<'a> for LeaveGroup {
        /// The group.
        group_id: Cow<'a, str>, 0+;
        /// The member that leaves.
        member_id: Cow<'a, str>, 0-2;
        /// The members that leave (KIP-345).
        members: Vec<MemberIdentity<'a>>, 3+;
    }
}

message! {
    /// One member that leaves.
    struct MemberIdentity<'a> {
        /// The member; empty to go by its instance id.
        member_id: Cow<'a, str>, 3+;
        /// What the member is called by its user, if it is a static one (KIP-345).
        group_instance_id: Option<Cow<'a, str>>, 3+ nullable 3+;
        /// Why, in words (KIP-800).
        reason: Option<Cow<'a, str>>, 5+ nullable 5+, ignorable;
    }
}

message! {
    /// A LeaveGroup response.
    struct LeaveGroupResponse<'a> for LeaveGroup {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 1+, ignorable;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The members.
        members: Vec<MemberResponse<'a>>, 3+;
    }
}

message! {
    /// What became of one member.
    struct MemberResponse<'a> {
        /// The member.
        member_id: Cow<'a, str>, 3+;
        /// What the member is called by its user, if it is a static one (KIP-345).
        group_instance_id: Option<Cow<'a, str>>, 3+ nullable 3+;
        /// What went wrong, or none.
        error_code: ErrorCode, 3+;
    }
}
