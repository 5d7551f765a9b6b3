//! How far a group has read in one partition.

use std::borrow::Cow;

use crate::Uuid;
use crate::message::message;

message! {
    /// The key.
    struct OffsetCommitKey<'a> versions 0-0 {
        /// The group.
        group: Cow<'a, str>, 0-0;
        /// The name of the topic.
        topic: Cow<'a, str>, 0-0;
        /// The number of the partition.
        partition: i32, 0-0;
    }
}

message! {
    /// The value.
    struct OffsetCommitValue<'a> versions 0-4 flexible 4 {
        /// The offset.
        offset: i64, 0+;
        /// The leader epoch of the record before the offset; -1 if unknown.
        leader_epoch: i32, 3+ default (-1), ignorable;
        /// What the client keeps with the offset.
        metadata: Cow<'a, str>, 0+;
        /// When it was committed, in milliseconds since 1970.
        commit_timestamp: i64, 0+;
        /// When it ends, in milliseconds since 1970; -1 for the broker's own time.
        expire_timestamp: i64, 1-1 default (-1), ignorable;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 4+ tag 0, ignorable;
    }
}
