//! The engine's vocabulary: offsets, epochs, positions and ids as types of their own, so that none is taken for another.
//! Anyone may use it; nothing here does I/O.

use std::fmt;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

newtype!(
    /// The number of a record in its partition.
    Offset(i64)
);
newtype!(
    /// The term of a partition's leader; -1 where none is known.
    LeaderEpoch(i32)
);
newtype!(
    /// A byte position in a segment file or in the journal.
    Position(u64)
);
newtype!(
    /// Milliseconds since the Unix epoch; -1 where there is none.
    TimestampMs(i64)
);
newtype!(
    /// The id of an idempotent producer; -1 where there is none.
    ProducerId(i64)
);

impl Offset {
    /// The offset `count` records further on.
    #[must_use]
    pub fn plus(self, count: i64) -> Self {
        Self(self.0 + count)
    }
}

impl LeaderEpoch {
    /// No epoch known.
    pub const NONE: Self = Self(-1);
}

impl TimestampMs {
    /// No timestamp.
    pub const NONE: Self = Self(-1);
}

impl ProducerId {
    /// Not an idempotent producer.
    pub const NONE: Self = Self(-1);
}

impl Position {
    /// The position `bytes` further on.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

/// A topic's id (KIP-516): a UUID that is never used again after the topic is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub [u8; 16]);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).fmt(f)
    }
}

/// One partition of one topic, for ever (topic names come back after a deletion, ids do not).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicId,
    /// The partition's number in the topic, from 0.
    pub index: i32,
}
