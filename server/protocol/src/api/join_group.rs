//! JoinGroup: enters a group of the classic protocol, or takes part in its next generation.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A JoinGroup request.
    struct JoinGroupRequest<'a> for JoinGroup {
        /// The group.
        group_id: Cow<'a, str>, 0+;
        /// How long the member may be silent, in milliseconds.
        session_timeout_ms: i32, 0+;
        /// How long the members may take to rejoin, in milliseconds; -1: as long as they may be silent.
        rebalance_timeout_ms: i32, 1+ default (-1), ignorable;
        /// The member; empty for a new one.
        member_id: Cow<'a, str>, 0+;
        /// What the member is called by its user, if it is a static one (KIP-345).
        group_instance_id: Option<Cow<'a, str>>, 5+ nullable 5+;
        /// What kind of group it is: `consumer`, `connect`.
        protocol_type: Cow<'a, str>, 0+;
        /// The protocols that the member speaks, the preferred first.
        protocols: Vec<JoinGroupRequestProtocol<'a>>, 0+;
        /// Why, in words (KIP-800).
        reason: Option<Cow<'a, str>>, 8+ nullable 8+, ignorable;
    }
}

message! {
    /// One protocol that the member speaks.
    struct JoinGroupRequestProtocol<'a> {
        /// The name of the protocol.
        name: Cow<'a, str>, 0+;
        /// What the member tells the leader if this protocol is chosen.
        metadata: Cow<'a, [u8]>, 0+;
    }
}

message! {
    /// A JoinGroup response.
    struct JoinGroupResponse<'a> for JoinGroup {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 2+, ignorable;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The generation of the group; -1 if none.
        generation_id: i32, 0+ default (-1);
        /// What kind of group it is: `consumer`, `connect`.
        protocol_type: Option<Cow<'a, str>>, 7+ nullable 7+, ignorable;
        /// The protocol that the group uses.
        protocol_name: Option<Cow<'a, str>>, 0+ nullable 7+;
        /// The member that assigns.
        leader: Cow<'a, str>, 0+;
        /// Whether the leader is to leave the assignment as it is (KIP-814).
        skip_assignment: bool, 9+;
        /// The member.
        member_id: Cow<'a, str>, 0+;
        /// All members, for the leader alone.
        members: Vec<JoinGroupResponseMember<'a>>, 0+;
    }
}

message! {
    /// One member, as the leader sees it.
    struct JoinGroupResponseMember<'a> {
        /// The member.
        member_id: Cow<'a, str>, 0+;
        /// What the member is called by its user, if it is a static one (KIP-345).
        group_instance_id: Option<Cow<'a, str>>, 5+ nullable 5+, ignorable;
        /// What the member said of itself in the protocol that was chosen.
        metadata: Cow<'a, [u8]>, 0+;
    }
}
