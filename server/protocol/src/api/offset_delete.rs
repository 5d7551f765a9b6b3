//! OffsetDelete: forgets how far a group has read (KIP-496).

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// An OffsetDelete request.
    struct OffsetDeleteRequest<'a> for OffsetDelete {
        /// The group.
        group_id: Cow<'a, str>, 0+;
        /// The topics.
        topics: Vec<OffsetDeleteRequestTopic<'a>>, 0+;
    }
}

message! {
    /// One topic in the request.
    struct OffsetDeleteRequestTopic<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0+;
        /// The partitions.
        partitions: Vec<OffsetDeleteRequestPartition>, 0+;
    }
}

message! {
    /// One partition in the request.
    struct OffsetDeleteRequestPartition {
        /// The number of the partition.
        partition_index: i32, 0+;
    }
}

message! {
    /// An OffsetDelete response.
    struct OffsetDeleteResponse<'a> for OffsetDelete {
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 0+, ignorable;
        /// The topics.
        topics: Vec<OffsetDeleteResponseTopic<'a>>, 0+;
    }
}

message! {
    /// One topic in the response.
    struct OffsetDeleteResponseTopic<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0+;
        /// The partitions.
        partitions: Vec<OffsetDeleteResponsePartition>, 0+;
    }
}

message! {
    /// One partition in the response.
    struct OffsetDeleteResponsePartition {
        /// The number of the partition.
        partition_index: i32, 0+;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
    }
}
