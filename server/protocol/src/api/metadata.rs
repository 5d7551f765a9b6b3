//! Metadata: the brokers, and who leads which partition.

use std::borrow::Cow;

use crate::message::message;
use crate::{ErrorCode, Uuid};

message! {
    /// A Metadata request.
    struct MetadataRequest<'a> for Metadata {
        /// The topics wanted: null for all; version 0 has no null and says all with an empty list.
        topics: Option<Vec<MetadataRequestTopic<'a>>>, 0+ nullable 1+;
        /// Whether a topic that is missing may be created on the way.
        allow_auto_topic_creation: bool, 4+ default (true);
        /// Whether to say what the client may do with the cluster.
        include_cluster_authorized_operations: bool, 8-10;
        /// Whether to say what the client may do with each topic.
        include_topic_authorized_operations: bool, 8+;
    }
}

message! {
    /// One topic in the request.
    struct MetadataRequestTopic<'a> {
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 10+, ignorable;
        /// The name of the topic.
        name: Option<Cow<'a, str>>, 0+ nullable 10+;
    }
}

message! {
    /// A Metadata response.
    struct MetadataResponse<'a> for Metadata {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 3+, ignorable;
        /// The brokers that are alive.
        brokers: Vec<MetadataResponseBroker<'a>>, 0+;
        /// The id of the cluster.
        cluster_id: Option<Cow<'a, str>>, 2+ nullable 2+, ignorable;
        /// The broker that takes admin requests; -1 if none.
        controller_id: i32, 1+ default (-1), ignorable;
        /// The topics.
        topics: Vec<MetadataResponseTopic<'a>>, 0+;
        /// A bit for each operation that the client may do with the cluster; `i32::MIN` if not asked.
        cluster_authorized_operations: i32, 8-10 default (i32::MIN);
        /// What went wrong, or none.
        error_code: ErrorCode, 13+, ignorable;
    }
}

message! {
    /// One broker in the response.
    struct MetadataResponseBroker<'a> {
        /// The id of the broker.
        node_id: i32, 0+;
        /// Where it listens, for clients of this listener.
        host: Cow<'a, str>, 0+;
        /// The port it listens on.
        port: i32, 0+;
        /// The rack it stands in, if it has been told.
        rack: Option<Cow<'a, str>>, 1+ nullable 1+, ignorable;
    }
}

message! {
    /// One topic in the response.
    struct MetadataResponseTopic<'a> {
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The name of the topic.
        name: Option<Cow<'a, str>>, 0+ nullable 12+;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 10+, ignorable;
        /// Whether it is one of the broker's own topics.
        is_internal: bool, 1+, ignorable;
        /// The partitions.
        partitions: Vec<MetadataResponsePartition>, 0+;
        /// A bit for each operation that the client may do with the topic; `i32::MIN` if not asked.
        topic_authorized_operations: i32, 8+ default (i32::MIN);
    }
}

message! {
    /// One partition in the response.
    struct MetadataResponsePartition {
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The number of the partition.
        partition_index: i32, 0+;
        /// The broker that leads; -1 if none.
        leader_id: i32, 0+;
        /// The term of the leader; -1 if unknown.
        leader_epoch: i32, 7+ default (-1), ignorable;
        /// All brokers that hold the partition.
        replica_nodes: Vec<i32>, 0+;
        /// Those that are in sync.
        isr_nodes: Vec<i32>, 0+;
        /// Those that are not alive.
        offline_replicas: Vec<i32>, 5+, ignorable;
    }
}
