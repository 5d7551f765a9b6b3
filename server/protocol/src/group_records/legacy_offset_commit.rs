//! How far a group has read in one partition, as Kafka wrote it before 0.9.

use std::borrow::Cow;

use crate::message::message;

message! {
    /// The key.
    struct LegacyOffsetCommitKey<'a> versions 0-0 {
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
    struct LegacyOffsetCommitValue<'a> versions 0-0 {
        /// The offset.
        offset: i64, 0-0;
        /// What the client keeps with the offset.
        metadata: Cow<'a, str>, 0-0;
        /// When it was committed, in milliseconds since 1970.
        commit_timestamp: i64, 0-0;
    }
}
