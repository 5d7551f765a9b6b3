//! The topics that a group of the new protocol wants, as Kafka wrote them before 4.1 (KIP-1101).

use std::borrow::Cow;

use crate::Uuid;
use crate::message::message;

message! {
    /// The key.
    struct ConsumerGroupPartitionMetadataKey<'a> versions 0-0 {
        /// The group.
        group_id: Cow<'a, str>, 0-0;
    }
}

message! {
    /// The value.
    struct ConsumerGroupPartitionMetadataValue<'a> versions 0-0 flexible 0 {
        /// The topics that the group wants.
        topics: Vec<TopicMetadata<'a>>, 0+;
    }
}

message! {
    /// One topic.
    struct TopicMetadata<'a> {
        /// The id of the topic.
        topic_id: Uuid, 0+;
        /// The name of the topic.
        topic_name: Cow<'a, str>, 0+;
        /// How many partitions it has.
        num_partitions: i32, 0+;
        /// Where they are, as Kafka wrote it before 4.0.
        partition_metadata: Vec<PartitionMetadata<'a>>, 0+;
    }
}

message! {
    /// One partition.
    struct PartitionMetadata<'a> {
        /// The number of the partition.
        partition: i32, 0+;
        /// The racks that hold it.
        racks: Vec<Cow<'a, str>>, 0+;
    }
}
