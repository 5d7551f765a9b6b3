//! What the leader of a classic group gives to each consumer.

use std::borrow::Cow;

use crate::message::message;

message! {
    /// What a member gets, as the leader tells it.
    struct ConsumerProtocolAssignment<'a> versions 0-3 {
        /// What the member gets.
        assigned_partitions: Vec<TopicPartition<'a>>, 0+;
        /// Whatever the assignor adds.
        user_data: Option<Cow<'a, [u8]>>, 0+ nullable 0+;
    }
}

message! {
    /// Partitions of one topic.
    struct TopicPartition<'a> {
        /// The name of the topic.
        topic: Cow<'a, str>, 0+;
        /// The numbers of the partitions.
        partitions: Vec<i32>, 0+;
    }
}
