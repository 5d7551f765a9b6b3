//! Produce: appends record batches to partitions.

use std::borrow::Cow;

use crate::message::message;
use crate::{ErrorCode, Records, Uuid};

message! {
    /// A Produce request.
    struct ProduceRequest<'a> for Produce {
        /// The name of the transactional producer, or null.
        transactional_id: Option<Cow<'a, str>>, 3+ nullable 3+;
        /// Who must have the records before the answer: 0 nobody (and no answer), 1 the leader, -1 all in-sync replicas.
        acks: i16, 0+;
        /// How long to wait, in milliseconds.
        timeout_ms: i32, 0+;
        /// The topics to append to.
        topic_data: Vec<TopicProduceData<'a>>, 0+;
    }
}

message! {
    /// One topic in the request.
    struct TopicProduceData<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0-12, ignorable;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 13+, ignorable;
        /// The partitions to append to.
        partition_data: Vec<PartitionProduceData<'a>>, 0+;
    }
}

message! {
    /// One partition in the request.
    struct PartitionProduceData<'a> {
        /// The number of the partition.
        index: i32, 0+;
        /// Record batches.
        records: Records<'a>, 0+ nullable 0+;
    }
}

message! {
    /// A Produce response.
    struct ProduceResponse<'a> for Produce {
        /// The outcome for each.
        responses: Vec<TopicProduceResponse<'a>>, 0+;
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 1+, ignorable;
        /// Where the leaders named above listen (KIP-951).
        node_endpoints: Vec<NodeEndpoint<'a>>, 10+ tag 0;
    }
}

message! {
    /// One topic in the response.
    struct TopicProduceResponse<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0-12, ignorable;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 13+, ignorable;
        /// The outcome for each partition.
        partition_responses: Vec<PartitionProduceResponse<'a>>, 0+;
    }
}

message! {
    /// One partition in the response.
    struct PartitionProduceResponse<'a> {
        /// The number of the partition.
        index: i32, 0+;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The offset that the first record got; -1 if none.
        base_offset: i64, 0+;
        /// The broker's time at the append, if the topic uses it; else -1.
        log_append_time_ms: i64, 2+ default (-1), ignorable;
        /// The first offset that can be read; -1 if unknown.
        log_start_offset: i64, 5+ default (-1), ignorable;
        /// Which records are to blame (KIP-467).
        record_errors: Vec<BatchIndexAndErrorMessage<'a>>, 8+, ignorable;
        /// The error in words.
        error_message: Option<Cow<'a, str>>, 8+ nullable 8+, ignorable;
        /// Whom to ask instead (KIP-951).
        current_leader: LeaderIdAndEpoch, 10+ tag 0;
    }
}

message! {
    /// A record at fault.
    struct BatchIndexAndErrorMessage<'a> {
        /// The place of the record in the batch.
        batch_index: i32, 8+;
        /// What is wrong with it.
        batch_index_error_message: Option<Cow<'a, str>>, 8+ nullable 8+;
    }
}

message! {
    /// The leader of a partition, and its term.
    struct LeaderIdAndEpoch {
        /// The broker that leads; -1 if none.
        leader_id: i32, 10+ default (-1);
        /// The term of the leader; -1 if unknown.
        leader_epoch: i32, 10+ default (-1);
    }
}

message! {
    /// Where a broker listens.
    struct NodeEndpoint<'a> {
        /// The id of the broker.
        node_id: i32, 10+;
        /// Where it listens, for clients of this listener.
        host: Cow<'a, str>, 10+;
        /// The port it listens on.
        port: i32, 10+;
        /// The rack it stands in, if it has been told.
        rack: Option<Cow<'a, str>>, 10+ nullable 10+;
    }
}
