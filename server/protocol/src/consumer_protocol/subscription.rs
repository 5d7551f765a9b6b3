//! What a consumer says of itself when it joins a classic group.

use std::borrow::Cow;

use crate::message::message;

message! {
    /// What a member wants, as it tells the leader of its group.
    struct ConsumerProtocolSubscription<'a> versions 0-3 {
        /// The topics that the member wants.
        topics: Vec<Cow<'a, str>>, 0+;
        /// Whatever the assignor adds.
        user_data: Option<Cow<'a, [u8]>>, 0+ nullable 0+;
        /// What the member holds (KIP-429).
        owned_partitions: Vec<TopicPartition<'a>>, 1+, ignorable;
        /// The generation in which the member got that; -1 if none.
        generation_id: i32, 2+ default (-1), ignorable;
        /// The rack of the member, or null.
        rack_id: Option<Cow<'a, str>>, 3+ nullable 3+, ignorable;
    }
}

message! {
    /// Partitions of one topic.
    struct TopicPartition<'a> {
        /// The name of the topic.
        topic: Cow<'a, str>, 1+;
        /// The numbers of the partitions.
        partitions: Vec<i32>, 1+;
    }
}
