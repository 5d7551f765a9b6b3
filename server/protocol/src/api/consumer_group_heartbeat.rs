//! ConsumerGroupHeartbeat: everything that a member of a new group says and hears: joining, its subscription, its assignment, leaving (KIP-848).

use std::borrow::Cow;

use crate::message::message;
use crate::{ErrorCode, Uuid};

message! {
    /// A ConsumerGroupHeartbeat request.
    struct ConsumerGroupHeartbeatRequest<'a> for ConsumerGroupHeartbeat {
        /// The group.
        group_id: Cow<'a, str>, 0+;
        /// The member, by the id that it gave itself; empty in version 0 to be given one.
        member_id: Cow<'a, str>, 0+;
        /// The epoch of the member; 0 to join, -1 to leave, -2 for a static member that leaves to come back.
        member_epoch: i32, 0+;
        /// What the member is called by its user, if it is a static one; null if that did not change.
        instance_id: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// The rack of the member; null if it has none or did not change.
        rack_id: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// How long the member may take to give partitions up, in milliseconds; -1 if that did not change.
        rebalance_timeout_ms: i32, 0+ default (-1);
        /// The topics that the member wants; null if they did not change.
        subscribed_topic_names: Option<Vec<Cow<'a, str>>>, 0+ nullable 0+;
        /// A pattern of topics that the member wants, in RE2's syntax; null if it did not change.
        subscribed_topic_regex: Option<Cow<'a, str>>, 1+ nullable 1+;
        /// The assignor that the member wants; null for the group's, or if it did not change.
        server_assignor: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// What the member holds; null if that did not change.
        topic_partitions: Option<Vec<TopicPartitions>>, 0+ nullable 0+;
    }
}

message! {
    /// Partitions of one topic.
    struct TopicPartitions {
        /// The id of the topic.
        topic_id: Uuid, 0+;
        /// The numbers of the partitions.
        partitions: Vec<i32>, 0+;
    }
}

message! {
    /// A ConsumerGroupHeartbeat response.
    struct ConsumerGroupHeartbeatResponse<'a> for ConsumerGroupHeartbeat {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 0+;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The error in words.
        error_message: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// The member, where the broker gave it its id.
        member_id: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// The epoch of the member.
        member_epoch: i32, 0+;
        /// When to send the next heartbeat, in milliseconds.
        heartbeat_interval_ms: i32, 0+;
        /// What the member is to hold; null if that did not change.
        assignment: Option<Assignment>, 0+ nullable 0+;
    }
}

message! {
    /// Partitions of several topics.
    struct Assignment {
        /// The partitions.
        topic_partitions: Vec<TopicPartitions>, 0+;
    }
}
