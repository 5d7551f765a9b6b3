//! CreateTopics: creates topics.

use std::borrow::Cow;

use crate::message::message;
use crate::{ErrorCode, Uuid};

message! {
    /// A CreateTopics request.
    struct CreateTopicsRequest<'a> for CreateTopics {
        /// The topics.
        topics: Vec<CreatableTopic<'a>>, 0+;
        /// How long to wait, in milliseconds.
        timeout_ms: i32, 0+ default (60_000);
        /// Whether to check only and change nothing.
        validate_only: bool, 1+;
    }
}

message! {
    /// One topic in the request.
    struct CreatableTopic<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0+;
        /// How many partitions; -1 for the default, or if unknown.
        num_partitions: i32, 0+;
        /// How many replicas each partition has; -1 for the default, or if unknown.
        replication_factor: i16, 0+;
        /// Which brokers hold each new partition; empty or null to leave it to the broker.
        assignments: Vec<CreatableReplicaAssignment>, 0+;
        /// Configuration, key by key.
        configs: Vec<CreatableTopicConfig<'a>>, 0+;
    }
}

message! {
    /// The brokers of one new partition.
    struct CreatableReplicaAssignment {
        /// The number of the partition.
        partition_index: i32, 0+;
        /// The brokers, the leader first.
        broker_ids: Vec<i32>, 0+;
    }
}

message! {
    /// One topic in the request.
    struct CreatableTopicConfig<'a> {
        /// The key.
        name: Cow<'a, str>, 0+;
        /// Its value, or null.
        value: Option<Cow<'a, str>>, 0+ nullable 0+;
    }
}

message! {
    /// A CreateTopics response.
    struct CreateTopicsResponse<'a> for CreateTopics {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 2+, ignorable;
        /// The topics.
        topics: Vec<CreatableTopicResult<'a>>, 0+;
    }
}

message! {
    /// One topic in the response.
    struct CreatableTopicResult<'a> {
        /// The name of the topic.
        name: Cow<'a, str>, 0+;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 7+, ignorable;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The error in words.
        error_message: Option<Cow<'a, str>>, 1+ nullable 0+, ignorable;
        /// How many partitions; -1 for the default, or if unknown.
        num_partitions: i32, 5+ default (-1), ignorable;
        /// How many replicas each partition has; -1 for the default, or if unknown.
        replication_factor: i16, 5+ default (-1), ignorable;
        /// Configuration, key by key.
        configs: Option<Vec<CreatableTopicConfigs<'a>>>, 5+ nullable 5+, ignorable;
        /// Why the configuration was left out of the response.
        topic_config_error_code: ErrorCode, 5+ tag 0, ignorable;
    }
}

message! {
    /// One topic in the response.
    struct CreatableTopicConfigs<'a> {
        /// The key.
        name: Cow<'a, str>, 5+;
        /// Its value, or null.
        value: Option<Cow<'a, str>>, 5+ nullable 5+;
        /// Whether clients cannot change it.
        read_only: bool, 5+;
        /// Where the value comes from.
        config_source: i8, 5+ default (-1), ignorable;
        /// Whether the value is withheld as a secret.
        is_sensitive: bool, 5+;
    }
}
