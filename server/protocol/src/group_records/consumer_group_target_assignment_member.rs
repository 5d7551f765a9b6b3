//! What a member is to hold.

use std::borrow::Cow;

use crate::Uuid;
use crate::message::message;

message! {
    /// The key.
    struct ConsumerGroupTargetAssignmentMemberKey<'a> versions 0-0 {
        /// The group.
        group_id: Cow<'a, str>, 0-0;
        /// The member.
        member_id: Cow<'a, str>, 0-0;
    }
}

message! {
    /// The value.
    struct ConsumerGroupTargetAssignmentMemberValue versions 0-0 flexible 0 {
        /// What the member is to hold.
        topic_partitions: Vec<TopicPartition>, 0+;
    }
}

message! {
    /// Partitions of one topic.
    struct TopicPartition {
        /// The id of the topic.
        topic_id: Uuid, 0+;
        /// The numbers of the partitions.
        partitions: Vec<i32>, 0+;
    }
}
