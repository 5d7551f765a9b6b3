//! For which epoch of a group partitions were assigned.

use std::borrow::Cow;

use crate::message::message;

message! {
    /// The key.
    struct ConsumerGroupTargetAssignmentMetadataKey<'a> versions 0-0 {
        /// The group.
        group_id: Cow<'a, str>, 0-0;
    }
}

message! {
    /// The value.
    struct ConsumerGroupTargetAssignmentMetadataValue versions 0-0 flexible 0 {
        /// The epoch of the group for which partitions were assigned.
        assignment_epoch: i32, 0+;
        /// When that was done, in milliseconds since 1970; 0 if unknown.
        assignment_timestamp: i64, 0+ tag 0, ignorable;
    }
}
