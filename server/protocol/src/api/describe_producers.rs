//! DescribeProducers: the producers that a partition remembers (KIP-664).

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A DescribeProducers request.
    struct DescribeProducersRequest<'a> for DescribeProducers {
        /// The topics.
        topics: Vec<TopicRequest<'a>>, 0+;
    }
}

message! {
    /// One topic in the request.
    struct TopicRequest<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0+;
        /// The numbers of the partitions.
        partition_indexes: Vec<i32>, 0+;
    }
}

message! {
    /// A DescribeProducers response.
    struct DescribeProducersResponse<'a> for DescribeProducers {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 0+;
        /// The topics.
        topics: Vec<TopicResponse<'a>>, 0+;
    }
}

message! {
    /// One topic in the response.
    struct TopicResponse<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0+;
        /// The partitions.
        partitions: Vec<PartitionResponse<'a>>, 0+;
    }
}

message! {
    /// One partition in the response.
    struct PartitionResponse<'a> {
        /// The number of the partition.
        partition_index: i32, 0+;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The error in words.
        error_message: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// The producers.
        active_producers: Vec<ProducerState>, 0+;
    }
}

message! {
    /// What a partition remembers of a producer.
    struct ProducerState {
        /// The id of the producer; -1 if none.
        producer_id: i64, 0+;
        /// The epoch of the producer; -1 if none.
        producer_epoch: i32, 0+;
        /// The sequence number of its last record; -1 if none.
        last_sequence: i32, 0+ default (-1);
        /// The timestamp of its last batch; -1 if none.
        last_timestamp: i64, 0+ default (-1);
        /// The term of its transaction coordinator; -1 if none.
        coordinator_epoch: i32, 0+;
        /// Where its open transaction begins; -1 if none.
        current_txn_start_offset: i64, 0+ default (-1);
    }
}
