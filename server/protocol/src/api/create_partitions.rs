//! CreatePartitions: adds partitions to topics.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A CreatePartitions request.
    struct CreatePartitionsRequest<'a> for CreatePartitions {
        /// The topics.
        topics: Vec<CreatePartitionsTopic<'a>>, 0+;
        /// How long to wait, in milliseconds.
        timeout_ms: i32, 0+;
        /// Whether to check only and change nothing.
        validate_only: bool, 0+;
    }
}

message! {
    /// One topic in the request.
    struct CreatePartitionsTopic<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0+;
        /// How many partitions there shall be in all.
        count: i32, 0+;
        /// Which brokers hold each new partition; empty or null to leave it to the broker.
        assignments: Option<Vec<CreatePartitionsAssignment>>, 0+ nullable 0+;
    }
}

message! {
    /// The brokers of one new partition.
    struct CreatePartitionsAssignment {
        /// The brokers, the leader first.
        broker_ids: Vec<i32>, 0+;
    }
}

message! {
    /// A CreatePartitions response.
    struct CreatePartitionsResponse<'a> for CreatePartitions {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 0+;
        /// The outcome for each.
        results: Vec<CreatePartitionsTopicResult<'a>>, 0+;
    }
}

message! {
    /// One topic in the response.
    struct CreatePartitionsTopicResult<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0+;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The error in words.
        error_message: Option<Cow<'a, str>>, 0+ nullable 0+;
    }
}
