//! A group of the new protocol.

use std::borrow::Cow;

use crate::message::message;

message! {
    /// The key.
    struct ConsumerGroupMetadataKey<'a> versions 0-0 {
        /// The group.
        group_id: Cow<'a, str>, 0-0;
    }
}

message! {
    /// The value.
    struct ConsumerGroupMetadataValue versions 0-0 flexible 0 {
        /// The epoch of the group.
        epoch: i32, 0+;
        /// A hash over the topics that the group wants (KIP-1101); 0 if unknown.
        metadata_hash: i64, 0+ tag 0;
    }
}
