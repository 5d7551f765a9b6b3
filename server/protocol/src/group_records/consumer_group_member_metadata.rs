//! A member of a group of the new protocol.

use std::borrow::Cow;

use crate::message::message;

message! {
    /// The key.
    struct ConsumerGroupMemberMetadataKey<'a> versions 0-0 {
        /// The group.
        group_id: Cow<'a, str>, 0-0;
        /// The member.
        member_id: Cow<'a, str>, 0-0;
    }
}

message! {
    /// The value.
    struct ConsumerGroupMemberMetadataValue<'a> versions 0-0 flexible 0 {
        /// What the member is called by its user, if it is a static one.
        instance_id: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// The rack of the member, or null.
        rack_id: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// What the client calls itself.
        client_id: Cow<'a, str>, 0+;
        /// From where it is connected.
        client_host: Cow<'a, str>, 0+;
        /// The topics that it wants.
        subscribed_topic_names: Vec<Cow<'a, str>>, 0+;
        /// The pattern of topics that it wants, or null.
        subscribed_topic_regex: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// How long it may take to give partitions up, in milliseconds.
        rebalance_timeout_ms: i32, 0+ default (-1);
        /// The assignor that it wants, or null.
        server_assignor: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// What is to be known of a member that speaks the classic protocol; null for another.
        classic_member_metadata: Option<ClassicMemberMetadata<'a>>, 0+ nullable 0+ tag 0;
    }
}

message! {
    /// What is to be known of a member that speaks the classic protocol.
    struct ClassicMemberMetadata<'a> {
        /// How long the member may be silent, in milliseconds.
        session_timeout_ms: i32, 0+;
        /// The protocols that it speaks.
        supported_protocols: Vec<ClassicProtocol<'a>>, 0+;
    }
}

message! {
    /// One protocol that a member speaks.
    struct ClassicProtocol<'a> {
        /// The name of the protocol.
        name: Cow<'a, str>, 0+;
        /// What the member says of itself in it.
        metadata: Cow<'a, [u8]>, 0+;
    }
}
