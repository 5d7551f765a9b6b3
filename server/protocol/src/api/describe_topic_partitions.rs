//! DescribeTopicPartitions: topics with their partitions, page by page (KIP-966).

use std::borrow::Cow;

use crate::message::message;
use crate::{ErrorCode, Uuid};

message! {
    /// A DescribeTopicPartitions request.
    struct DescribeTopicPartitionsRequest<'a> for DescribeTopicPartitions {
        /// The topics.
        topics: Vec<TopicRequest<'a>>, 0+;
        /// The most partitions in one response.
        response_partition_limit: i32, 0+ default (2000);
        /// Where to begin; null for the beginning.
        cursor: Option<Cursor<'a>>, 0+ nullable 0+;
    }
}

message! {
    /// One topic in the request.
    struct TopicRequest<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0+;
    }
}

message! {
    /// A place in the list of all partitions.
    struct Cursor<'a> {
        /// The name of the topic.
        topic_name: Cow<'a, str>, 0+;
        /// The number of the partition.
        partition_index: i32, 0+;
    }
}

message! {
    /// A DescribeTopicPartitions response.
    struct DescribeTopicPartitionsResponse<'a> for DescribeTopicPartitions {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 0+, ignorable;
        /// The topics.
        topics: Vec<DescribeTopicPartitionsResponseTopic<'a>>, 0+;
        /// Where the next page begins; null if this was the last.
        next_cursor: Option<Cursor<'a>>, 0+ nullable 0+;
    }
}

message! {
    /// One topic in the response.
    struct DescribeTopicPartitionsResponseTopic<'a> {
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The name of the topic.
        name: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 0+, ignorable;
        /// Whether it is one of the broker's own topics.
        is_internal: bool, 0+, ignorable;
        /// The partitions.
        partitions: Vec<DescribeTopicPartitionsResponsePartition>, 0+;
        /// A bit for each operation that the client may do with the topic; `i32::MIN` if not asked.
        topic_authorized_operations: i32, 0+ default (i32::MIN);
    }
}

message! {
    /// One partition in the response.
    struct DescribeTopicPartitionsResponsePartition {
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The number of the partition.
        partition_index: i32, 0+;
        /// The broker that leads; -1 if none.
        leader_id: i32, 0+;
        /// The term of the leader; -1 if unknown.
        leader_epoch: i32, 0+ default (-1), ignorable;
        /// All brokers that hold the partition.
        replica_nodes: Vec<i32>, 0+;
        /// Those that are in sync.
        isr_nodes: Vec<i32>, 0+;
        /// Replicas that may lead though not in sync.
        eligible_leader_replicas: Option<Vec<i32>>, 0+ nullable 0+;
        /// Those that last were.
        last_known_elr: Option<Vec<i32>>, 0+ nullable 0+;
        /// Those that are not alive.
        offline_replicas: Vec<i32>, 0+, ignorable;
    }
}
