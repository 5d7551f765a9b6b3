//! Fetch: reads record batches from partitions. Its records need not pass through the encoder: see [`Records`].

use std::borrow::Cow;

use crate::message::message;
use crate::{ErrorCode, Records, Uuid};

message! {
    /// A Fetch request.
    struct FetchRequest<'a> for Fetch {
        /// The follower that asks; -1 for a consumer.
        replica_id: i32, 0-14 default (-1);
        /// How long to wait for the least number of bytes, in milliseconds.
        max_wait_ms: i32, 0+;
        /// The least number of bytes worth an answer.
        min_bytes: i32, 0+;
        /// The most bytes to send; one batch is sent even if larger (KIP-74).
        max_bytes: i32, 3+ default (i32::MAX), ignorable;
        /// 0: all records below the high watermark; 1: below the last stable offset, with the aborted transactions.
        isolation_level: i8, 4+, ignorable;
        /// The fetch session (KIP-227); 0 for none.
        session_id: i32, 7+, ignorable;
        /// The number of the request in its session; -1 for no session.
        session_epoch: i32, 7+ default (-1), ignorable;
        /// The topics.
        topics: Vec<FetchTopic<'a>>, 0+;
        /// Partitions that leave the session.
        forgotten_topics_data: Vec<ForgottenTopic<'a>>, 7+;
        /// The rack of the consumer.
        rack_id: Cow<'a, str>, 11+, ignorable;
        /// The id of the cluster.
        cluster_id: Option<Cow<'a, str>>, 12+ nullable 12+ tag 0, ignorable;
        /// The follower that asks (KIP-903).
        replica_state: ReplicaState, 15+ tag 1;
    }
}

message! {
    /// One topic in the request.
    struct FetchTopic<'a> {
        /// The name of the topic.
        topic: Cow<'a, str>, 0-12, ignorable;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 13+, ignorable;
        /// The partitions.
        partitions: Vec<FetchPartition>, 0+;
    }
}

message! {
    /// One partition in the request.
    struct FetchPartition {
        /// The number of the partition.
        partition: i32, 0+;
        /// The term that the client believes in; -1 to skip the check.
        current_leader_epoch: i32, 9+ default (-1), ignorable;
        /// The first offset wanted.
        fetch_offset: i64, 0+;
        /// The term of the last record that the asker has; -1 if none.
        last_fetched_epoch: i32, 12+ default (-1);
        /// The first offset that can be read; -1 if unknown.
        log_start_offset: i64, 5+ default (-1), ignorable;
        /// The most bytes to send of this partition.
        partition_max_bytes: i32, 0+;
        /// The follower's directory (KIP-853).
        replica_directory_id: Uuid, 17+ tag 0, ignorable;
        /// The follower's; -1 if unknown, `i64::MAX` if it does not say (KIP-1166).
        high_watermark: i64, 18+ tag 1 default (i64::MAX), ignorable;
    }
}

message! {
    /// Partitions of one topic that leave the session.
    struct ForgottenTopic<'a> {
        /// The name of the topic.
        topic: Cow<'a, str>, 7-12, ignorable;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 13+, ignorable;
        /// The partitions.
        partitions: Vec<i32>, 7+;
    }
}

message! {
    /// Which follower asks.
    struct ReplicaState {
        /// The follower that asks; -1 for a consumer.
        replica_id: i32, 15+ default (-1);
        /// The follower's broker epoch; -1 if unknown.
        replica_epoch: i64, 15+ default (-1);
    }
}

message! {
    /// A Fetch response.
    struct FetchResponse<'a> for Fetch {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 1+, ignorable;
        /// What went wrong, or none.
        error_code: ErrorCode, 7+, ignorable;
        /// The fetch session (KIP-227); 0 for none.
        session_id: i32, 7+;
        /// The outcome for each.
        responses: Vec<FetchableTopicResponse<'a>>, 0+;
        /// Where the leaders named above listen (KIP-951).
        node_endpoints: Vec<NodeEndpoint<'a>>, 16+ tag 0;
    }
}

message! {
    /// One topic in the response.
    struct FetchableTopicResponse<'a> {
        /// The name of the topic.
        topic: Cow<'a, str>, 0-12, ignorable;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 13+, ignorable;
        /// The partitions.
        partitions: Vec<PartitionData<'a>>, 0+;
    }
}

message! {
    /// One partition in the response.
    struct PartitionData<'a> {
        /// The number of the partition.
        partition_index: i32, 0+;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// Records below it are on all in-sync replicas.
        high_watermark: i64, 0+;
        /// Transactions below it are decided; -1 if unknown.
        last_stable_offset: i64, 4+ default (-1), ignorable;
        /// The first offset that can be read; -1 if unknown.
        log_start_offset: i64, 5+ default (-1), ignorable;
        /// Transactions whose records the consumer drops.
        aborted_transactions: Option<Vec<AbortedTransaction>>, 4+ nullable 4+, ignorable;
        /// The follower to fetch from instead (KIP-392); -1 for none.
        preferred_read_replica: i32, 11+ default (-1);
        /// Record batches.
        records: Records<'a>, 0+ nullable 0+;
        /// Where the asker's log and the leader's part.
        diverging_epoch: EpochEndOffset, 12+ tag 0;
        /// Whom to ask instead (KIP-951).
        current_leader: LeaderIdAndEpoch, 12+ tag 1;
        /// The snapshot to fetch instead (metadata log only).
        snapshot_id: SnapshotId, 12+ tag 2;
    }
}

message! {
    /// A transaction that was aborted.
    struct AbortedTransaction {
        /// The id of the producer; -1 if none.
        producer_id: i64, 4+;
        /// The offset of its first record.
        first_offset: i64, 4+;
    }
}

message! {
    /// A term and where it ends.
    struct EpochEndOffset {
        /// The term of a leader; -1 if none.
        epoch: i32, 12+ default (-1);
        /// The offset after the last record of that term; -1 if unknown.
        end_offset: i64, 12+ default (-1);
    }
}

message! {
    /// The leader of a partition, and its term.
    struct LeaderIdAndEpoch {
        /// The broker that leads; -1 if none.
        leader_id: i32, 12+ default (-1);
        /// The term of the leader; -1 if unknown.
        leader_epoch: i32, 12+ default (-1);
    }
}

message! {
    /// A snapshot of the metadata log.
    struct SnapshotId {
        /// The offset after the last record of that term; -1 if unknown.
        end_offset: i64, 0+ default (-1);
        /// The term of a leader; -1 if none.
        epoch: i32, 0+ default (-1);
    }
}

message! {
    /// Where a broker listens.
    struct NodeEndpoint<'a> {
        /// The id of the broker.
        node_id: i32, 16+;
        /// Where it listens, for clients of this listener.
        host: Cow<'a, str>, 16+;
        /// The port it listens on.
        port: i32, 16+;
        /// The rack it stands in, if it has been told.
        rack: Option<Cow<'a, str>>, 16+ nullable 16+;
    }
}
