//! DeleteRecords: moves the log start offset of partitions forward.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A DeleteRecords request.
    struct DeleteRecordsRequest<'a> for DeleteRecords {
        /// The topics.
        topics: Vec<DeleteRecordsTopic<'a>>, 0+;
        /// How long to wait, in milliseconds.
        timeout_ms: i32, 0+;
    }
}

message! {
    /// One topic in the request.
    struct DeleteRecordsTopic<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0+;
        /// The partitions.
        partitions: Vec<DeleteRecordsPartition>, 0+;
    }
}

message! {
    /// One partition in the request.
    struct DeleteRecordsPartition {
        /// The number of the partition.
        partition_index: i32, 0+;
        /// The new log start offset; -1 for the high watermark.
        offset: i64, 0+;
    }
}

message! {
    /// A DeleteRecords response.
    struct DeleteRecordsResponse<'a> for DeleteRecords {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 0+;
        /// The topics.
        topics: Vec<DeleteRecordsTopicResult<'a>>, 0+;
    }
}

message! {
    /// One topic in the response.
    struct DeleteRecordsTopicResult<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0+;
        /// The partitions.
        partitions: Vec<DeleteRecordsPartitionResult>, 0+;
    }
}

message! {
    /// One partition in the response.
    struct DeleteRecordsPartitionResult {
        /// The number of the partition.
        partition_index: i32, 0+;
        /// The log start offset afterwards; -1 on error.
        low_watermark: i64, 0+;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
    }
}
