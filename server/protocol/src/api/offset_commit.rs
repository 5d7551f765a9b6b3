//! OffsetCommit: keeps how far a group has read.

use std::borrow::Cow;

use crate::message::message;
use crate::{ErrorCode, Uuid};

message! {
    /// An OffsetCommit request.
    struct OffsetCommitRequest<'a> for OffsetCommit {
        /// The group.
        group_id: Cow<'a, str>, 0+;
        /// The generation of the group, or the epoch of the member (KIP-848); -1 for a client that is no member.
        generation_id_or_member_epoch: i32, 1+ default (-1), ignorable;
        /// The member.
        member_id: Cow<'a, str>, 1+, ignorable;
        /// What the member is called by its user, if it is a static one (KIP-345).
        group_instance_id: Option<Cow<'a, str>>, 7+ nullable 7+;
        /// How long to keep the offset, in milliseconds; -1 for the broker's own time.
        retention_time_ms: i64, 2-4 default (-1), ignorable;
        /// The topics.
        topics: Vec<OffsetCommitRequestTopic<'a>>, 0+;
    }
}

message! {
    /// One topic in the request.
    struct OffsetCommitRequestTopic<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0-9, ignorable;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 10+, ignorable;
        /// The partitions.
        partitions: Vec<OffsetCommitRequestPartition<'a>>, 0+;
    }
}

message! {
    /// One partition in the request.
    struct OffsetCommitRequestPartition<'a> {
        /// The number of the partition.
        partition_index: i32, 0+;
        /// The offset; -1 if none.
        committed_offset: i64, 0+;
        /// The leader epoch of the record before the offset; -1 if unknown.
        committed_leader_epoch: i32, 6+ default (-1), ignorable;
        /// What the client wants to keep with the offset.
        committed_metadata: Option<Cow<'a, str>>, 0+ nullable 0+;
    }
}

message! {
    /// An OffsetCommit response.
    struct OffsetCommitResponse<'a> for OffsetCommit {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 3+, ignorable;
        /// The topics.
        topics: Vec<OffsetCommitResponseTopic<'a>>, 0+;
    }
}

message! {
    /// One topic in the response.
    struct OffsetCommitResponseTopic<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0-9, ignorable;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 10+, ignorable;
        /// The partitions.
        partitions: Vec<OffsetCommitResponsePartition>, 0+;
    }
}

message! {
    /// One partition in the response.
    struct OffsetCommitResponsePartition {
        /// The number of the partition.
        partition_index: i32, 0+;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
    }
}
