//! DescribeLogDirs: the log directories of a broker and what partitions take in them.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A DescribeLogDirs request.
    struct DescribeLogDirsRequest<'a> for DescribeLogDirs {
        /// The partitions wanted; null for all.
        topics: Option<Vec<DescribableLogDirTopic<'a>>>, 0+ nullable 0+;
    }
}

message! {
    /// One topic in the request.
    struct DescribableLogDirTopic<'a> {
        /// The name of the topic.
        topic: Cow<'a, str>, 0+;
        /// The partitions.
        partitions: Vec<i32>, 0+;
    }
}

message! {
    /// A DescribeLogDirs response.
    struct DescribeLogDirsResponse<'a> for DescribeLogDirs {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 0+;
        /// What went wrong, or none.
        error_code: ErrorCode, 3+, ignorable;
        /// The outcome for each.
        results: Vec<DescribeLogDirsResult<'a>>, 0+;
    }
}

message! {
    /// One log directory in the response.
    struct DescribeLogDirsResult<'a> {
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The path of the directory.
        log_dir: Cow<'a, str>, 0+;
        /// The topics.
        topics: Vec<DescribeLogDirsTopic<'a>>, 0+;
        /// The size of the volume; -1 if unknown.
        total_bytes: i64, 4+ default (-1), ignorable;
        /// What is free on it; -1 if unknown.
        usable_bytes: i64, 4+ default (-1), ignorable;
        /// Whether new partitions are kept away from it.
        is_cordoned: bool, 5+, ignorable;
    }
}

message! {
    /// One topic in the response.
    struct DescribeLogDirsTopic<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0+;
        /// The partitions.
        partitions: Vec<DescribeLogDirsPartition>, 0+;
    }
}

message! {
    /// One partition in the response.
    struct DescribeLogDirsPartition {
        /// The number of the partition.
        partition_index: i32, 0+;
        /// What its segments take, in bytes.
        partition_size: i64, 0+;
        /// How far the log is behind.
        offset_lag: i64, 0+;
        /// Whether it is a copy being moved to another directory.
        is_future_key: bool, 0+;
    }
}
