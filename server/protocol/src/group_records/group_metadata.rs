//! A group of the classic protocol with its members.

use std::borrow::Cow;

use crate::message::message;

message! {
    /// The key.
    struct GroupMetadataKey<'a> versions 0-0 {
        /// The group.
        group: Cow<'a, str>, 0-0;
    }
}

message! {
    /// The value.
    struct GroupMetadataValue<'a> versions 0-4 flexible 4 {
        /// What kind of group it is: `consumer`, `connect`.
        protocol_type: Cow<'a, str>, 0+;
        /// The generation of the group.
        generation: i32, 0+;
        /// The protocol that the group uses; null if none.
        protocol: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// The member that assigns; null if none.
        leader: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// Since when the group is in its state, in milliseconds since 1970; -1 if unknown.
        current_state_timestamp: i64, 2+ default (-1), ignorable;
        /// The members.
        members: Vec<MemberMetadata<'a>>, 0+;
    }
}

message! {
    /// One member.
    struct MemberMetadata<'a> {
        /// The member.
        member_id: Cow<'a, str>, 0+;
        /// What the member is called by its user, if it is a static one (KIP-345).
        group_instance_id: Option<Cow<'a, str>>, 3+ nullable 3+, ignorable;
        /// What the client calls itself.
        client_id: Cow<'a, str>, 0+;
        /// From where it is connected.
        client_host: Cow<'a, str>, 0+;
        /// How long the member may take to rejoin, in milliseconds; -1: as long as it may be silent.
        rebalance_timeout: i32, 1+ default (-1), ignorable;
        /// How long the member may be silent, in milliseconds.
        session_timeout: i32, 0+;
        /// What the member said of itself in the group's protocol.
        subscription: Cow<'a, [u8]>, 0+;
        /// What it got.
        assignment: Cow<'a, [u8]>, 0+;
    }
}
