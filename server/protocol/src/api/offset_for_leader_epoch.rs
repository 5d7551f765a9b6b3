//! OffsetForLeaderEpoch: where the log of a leader epoch ends, so that a consumer or follower notices truncation (KIP-320).

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// An OffsetForLeaderEpoch request.
    struct OffsetForLeaderEpochRequest<'a> for OffsetForLeaderEpoch {
        /// The follower that asks; -1 for a consumer, -2 in versions that do not say.
        replica_id: i32, 3+ default (-2), ignorable;
        /// The topics.
        topics: Vec<OffsetForLeaderTopic<'a>>, 0+;
    }
}

message! {
    /// One topic in the request.
    struct OffsetForLeaderTopic<'a> {
        /// The name of the topic.
        topic: Cow<'a, str>, 0+;
        /// The partitions.
        partitions: Vec<OffsetForLeaderPartition>, 0+;
    }
}

message! {
    /// One partition in the request.
    struct OffsetForLeaderPartition {
        /// The number of the partition.
        partition: i32, 0+;
        /// The term that the client believes in; -1 to skip the check.
        current_leader_epoch: i32, 2+ default (-1), ignorable;
        /// The term whose end is wanted.
        leader_epoch: i32, 0+;
    }
}

message! {
    /// An OffsetForLeaderEpoch response.
    struct OffsetForLeaderEpochResponse<'a> for OffsetForLeaderEpoch {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 2+, ignorable;
        /// The topics.
        topics: Vec<OffsetForLeaderTopicResult<'a>>, 0+;
    }
}

message! {
    /// One topic in the response.
    struct OffsetForLeaderTopicResult<'a> {
        /// The name of the topic.
        topic: Cow<'a, str>, 0+;
        /// The partitions.
        partitions: Vec<EpochEndOffset>, 0+;
    }
}

message! {
    /// A term and where it ends.
    struct EpochEndOffset {
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The number of the partition.
        partition: i32, 0+;
        /// The term of the leader; -1 if unknown.
        leader_epoch: i32, 1+ default (-1), ignorable;
        /// The offset after the last record of that term; -1 if unknown.
        end_offset: i64, 0+ default (-1);
    }
}
