//! ListOffsets: finds offsets by timestamp, or the ends of a log.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A ListOffsets request.
    struct ListOffsetsRequest<'a> for ListOffsets {
        /// The follower that asks; -1 for a consumer.
        replica_id: i32, 0+;
        /// 0: all records below the high watermark; 1: below the last stable offset, with the aborted transactions.
        isolation_level: i8, 2+;
        /// The topics.
        topics: Vec<ListOffsetsTopic<'a>>, 0+;
        /// How long to wait for remote storage, in milliseconds.
        timeout_ms: i32, 10+, ignorable;
    }
}

message! {
    /// One topic in the request.
    struct ListOffsetsTopic<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0+;
        /// The partitions.
        partitions: Vec<ListOffsetsPartition>, 0+;
    }
}

message! {
    /// One partition in the request.
    struct ListOffsetsPartition {
        /// The number of the partition.
        partition_index: i32, 0+;
        /// The term that the client believes in; -1 to skip the check.
        current_leader_epoch: i32, 4+ default (-1), ignorable;
        /// In milliseconds since 1970; below zero in a request: one of the special places; in a response -1 for none.
        timestamp: i64, 0+;
    }
}

message! {
    /// A ListOffsets response.
    struct ListOffsetsResponse<'a> for ListOffsets {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 2+, ignorable;
        /// The topics.
        topics: Vec<ListOffsetsTopicResponse<'a>>, 0+;
    }
}

message! {
    /// One topic in the response.
    struct ListOffsetsTopicResponse<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0+;
        /// The partitions.
        partitions: Vec<ListOffsetsPartitionResponse>, 0+;
    }
}

message! {
    /// One partition in the response.
    struct ListOffsetsPartitionResponse {
        /// The number of the partition.
        partition_index: i32, 0+;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// In milliseconds since 1970; below zero in a request: one of the special places; in a response -1 for none.
        timestamp: i64, 1+ default (-1);
        /// An offset; -1 for none.
        offset: i64, 1+ default (-1);
        /// The term of the leader; -1 if unknown.
        leader_epoch: i32, 4+ default (-1);
    }
}
