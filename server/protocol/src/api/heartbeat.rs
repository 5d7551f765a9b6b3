//! Heartbeat: says that a member of a classic group is alive, and learns whether the group rebalances.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A Heartbeat request.
    struct HeartbeatRequest<'a> for Heartbeat {
        /// The group.
        group_id: Cow<'a, str>, 0+;
        /// The generation of the group.
        generation_id: i32, 0+;
        /// The member.
        member_id: Cow<'a, str>, 0+;
        /// What the member is called by its user, if it is a static one (KIP-345).
        group_instance_id: Option<Cow<'a, str>>, 3+ nullable 3+;
    }
}

message! {
    /// A Heartbeat response.
    struct HeartbeatResponse for Heartbeat {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 1+, ignorable;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
    }
}
