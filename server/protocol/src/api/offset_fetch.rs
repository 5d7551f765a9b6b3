//! OffsetFetch: tells how far groups have read.

use std::borrow::Cow;

use crate::message::message;
use crate::{ErrorCode, Uuid};

message! {
    /// An OffsetFetch request.
    struct OffsetFetchRequest<'a> for OffsetFetch {
        /// The group.
        group_id: Cow<'a, str>, 0-7;
        /// The topics; null for all.
        topics: Option<Vec<OffsetFetchRequestTopic<'a>>>, 0-7 nullable 2-7;
        /// The groups.
        groups: Vec<OffsetFetchRequestGroup<'a>>, 8+;
        /// Whether offsets that a transaction may yet change are refused (KIP-447).
        require_stable: bool, 7+;
    }
}

message! {
    /// One topic in a request for one group.
    struct OffsetFetchRequestTopic<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0-7;
        /// The numbers of the partitions.
        partition_indexes: Vec<i32>, 0-7;
    }
}

message! {
    /// One group in the request.
    struct OffsetFetchRequestGroup<'a> {
        /// The group.
        group_id: Cow<'a, str>, 8+;
        /// The member, if the client is one (KIP-848).
        member_id: Option<Cow<'a, str>>, 9+ nullable 9+, ignorable;
        /// The epoch of the member; -1 if the client is none.
        member_epoch: i32, 9+ default (-1), ignorable;
        /// The topics; null for all.
        topics: Option<Vec<OffsetFetchRequestTopics<'a>>>, 8+ nullable 8+;
    }
}

message! {
    /// One topic of a group in the request.
    struct OffsetFetchRequestTopics<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 8-9, ignorable;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 10+, ignorable;
        /// The numbers of the partitions.
        partition_indexes: Vec<i32>, 8+;
    }
}

message! {
    /// An OffsetFetch response.
    struct OffsetFetchResponse<'a> for OffsetFetch {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 3+, ignorable;
        /// The topics.
        topics: Vec<OffsetFetchResponseTopic<'a>>, 0-7;
        /// What went wrong, or none.
        error_code: ErrorCode, 2-7, ignorable;
        /// The groups.
        groups: Vec<OffsetFetchResponseGroup<'a>>, 8+;
    }
}

message! {
    /// One topic in a response for one group.
    struct OffsetFetchResponseTopic<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0-7;
        /// The partitions.
        partitions: Vec<OffsetFetchResponsePartition<'a>>, 0-7;
    }
}

message! {
    /// One partition in a response for one group.
    struct OffsetFetchResponsePartition<'a> {
        /// The number of the partition.
        partition_index: i32, 0-7;
        /// The offset; -1 if none.
        committed_offset: i64, 0-7;
        /// The leader epoch of the record before the offset; -1 if unknown.
        committed_leader_epoch: i32, 5-7 default (-1), ignorable;
        /// What the client keeps with the offset.
        metadata: Option<Cow<'a, str>>, 0-7 nullable 0-7;
        /// What went wrong, or none.
        error_code: ErrorCode, 0-7;
    }
}

message! {
    /// One group in the response.
    struct OffsetFetchResponseGroup<'a> {
        /// The group.
        group_id: Cow<'a, str>, 8+;
        /// The topics.
        topics: Vec<OffsetFetchResponseTopics<'a>>, 8+;
        /// What went wrong, or none.
        error_code: ErrorCode, 8+;
    }
}

message! {
    /// One topic of a group in the response.
    struct OffsetFetchResponseTopics<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 8-9, ignorable;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 10+, ignorable;
        /// The partitions.
        partitions: Vec<OffsetFetchResponsePartitions<'a>>, 8+;
    }
}

message! {
    /// One partition of a group in the response.
    struct OffsetFetchResponsePartitions<'a> {
        /// The number of the partition.
        partition_index: i32, 8+;
        /// The offset; -1 if none.
        committed_offset: i64, 8+;
        /// The leader epoch of the record before the offset; -1 if unknown.
        committed_leader_epoch: i32, 8+ default (-1), ignorable;
        /// What the client keeps with the offset.
        metadata: Option<Cow<'a, str>>, 8+ nullable 8+;
        /// What went wrong, or none.
        error_code: ErrorCode, 8+;
    }
}
