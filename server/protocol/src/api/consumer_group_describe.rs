//! ConsumerGroupDescribe: groups of the new protocol with their members (KIP-848).

use std::borrow::Cow;

use crate::message::message;
use crate::{ErrorCode, Uuid};

message! {
    /// A ConsumerGroupDescribe request.
    struct ConsumerGroupDescribeRequest<'a> for ConsumerGroupDescribe {
        /// The groups.
        group_ids: Vec<Cow<'a, str>>, 0+;
        /// Whether to say what the client may do with each group.
        include_authorized_operations: bool, 0+;
    }
}

message! {
    /// A ConsumerGroupDescribe response.
    struct ConsumerGroupDescribeResponse<'a> for ConsumerGroupDescribe {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 0+;
        /// The groups.
        groups: Vec<DescribedGroup<'a>>, 0+;
    }
}

message! {
    /// One group in the response.
    struct DescribedGroup<'a> {
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The error in words.
        error_message: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// The group.
        group_id: Cow<'a, str>, 0+;
        /// The state of the group, by its name.
        group_state: Cow<'a, str>, 0+;
        /// The epoch of the group.
        group_epoch: i32, 0+;
        /// The epoch of the group for which partitions were assigned last.
        assignment_epoch: i32, 0+;
        /// The assignor.
        assignor_name: Cow<'a, str>, 0+;
        /// The members.
        members: Vec<Member<'a>>, 0+;
        /// A bit for each operation that the client may do with the group; `i32::MIN` if not asked.
        authorized_operations: i32, 0+ default (i32::MIN);
    }
}

message! {
    /// One member of a group.
    struct Member<'a> {
        /// The member.
        member_id: Cow<'a, str>, 0+;
        /// What the member is called by its user, if it is a static one (KIP-345).
        instance_id: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// The rack of the member, or null.
        rack_id: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// The epoch of the member.
        member_epoch: i32, 0+;
        /// What the client calls itself.
        client_id: Cow<'a, str>, 0+;
        /// From where it is connected.
        client_host: Cow<'a, str>, 0+;
        /// The topics that it wants.
        subscribed_topic_names: Vec<Cow<'a, str>>, 0+;
        /// The pattern of topics that it wants, or null.
        subscribed_topic_regex: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// What it holds.
        assignment: Assignment<'a>, 0+;
        /// What it is to hold.
        target_assignment: Assignment<'a>, 0+;
        /// 0 for one that speaks the classic protocol, 1 for the new one, -1 if unknown.
        member_type: i8, 1+ default (-1), ignorable;
    }
}

message! {
    /// Partitions of several topics.
    struct Assignment<'a> {
        /// The partitions.
        topic_partitions: Vec<TopicPartitions<'a>>, 0+;
    }
}

message! {
    /// Partitions of one topic.
    struct TopicPartitions<'a> {
        /// The id of the topic.
        topic_id: Uuid, 0+;
        /// The name of the topic.
        topic_name: Cow<'a, str>, 0+;
        /// The numbers of the partitions.
        partitions: Vec<i32>, 0+;
    }
}
