//! What a member holds, and how far it is with what it is to hold.

use std::borrow::Cow;

use crate::Uuid;
use crate::message::message;

message! {
    /// The key.
    struct ConsumerGroupCurrentMemberAssignmentKey<'a> versions 0-0 {
        /// The group.
        group_id: Cow<'a, str>, 0-0;
        /// The member.
        member_id: Cow<'a, str>, 0-0;
    }
}

message! {
    /// The value.
    struct ConsumerGroupCurrentMemberAssignmentValue versions 0-0 flexible 0 {
        /// The epoch of the member.
        member_epoch: i32, 0+;
        /// The epoch before, for a member that did not hear of the last.
        previous_member_epoch: i32, 0+;
        /// How far it is: 0 stable, 1 giving partitions up, 2 waiting for others to do so.
        state: i8, 0+;
        /// What it holds.
        assigned_partitions: Vec<TopicPartitions>, 0+;
        /// What it is to give up.
        partitions_pending_revocation: Vec<TopicPartitions>, 0+;
    }
}

message! {
    /// Partitions of one topic.
    struct TopicPartitions {
        /// The id of the topic.
        topic_id: Uuid, 0+;
        /// The numbers of the partitions.
        partitions: Vec<i32>, 0+;
        /// The epoch of the member at which it got each partition; null if unknown.
        assignment_epochs: Option<Vec<i32>>, 0+ nullable 0+ tag 0;
    }
}
