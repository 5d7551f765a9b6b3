//! The records of `__consumer_offsets`, as Kafka has them (its group coordinator's record definitions, KIP-848): what groups there are, who is in
//! them, how far they have read. The coordinator makes and replays them; a tool that reads the topic may use them too.
//!
//! A key begins with the record's type, a value with its version. A record without a value takes back the one before it with the same key.

mod consumer_group_current_member_assignment;
mod consumer_group_member_metadata;
mod consumer_group_metadata;
mod consumer_group_partition_metadata;
mod consumer_group_regular_expression;
mod consumer_group_target_assignment_member;
mod consumer_group_target_assignment_metadata;
mod group_metadata;
mod legacy_offset_commit;
mod offset_commit;

pub use consumer_group_current_member_assignment::*;
pub use consumer_group_member_metadata::*;
pub use consumer_group_metadata::*;
pub use consumer_group_partition_metadata::*;
pub use consumer_group_regular_expression::*;
pub use consumer_group_target_assignment_member::*;
pub use consumer_group_target_assignment_metadata::*;
pub use group_metadata::*;
pub use legacy_offset_commit::*;
pub use offset_commit::*;

use crate::Payload;
use crate::primitives::{DecodeError, Decoder, Encoder};
use crate::schema::PayloadSchema;

/// Every key is at this version, which is not written: the type stands in its place.
const KEY_VERSION: i16 = 0;

macro_rules! group_records {
    ($($(#[$meta:meta])* $name:ident = $record_type:literal, $key:ty => $value:ty, version $version:expr;)*) => {
        /// A record: its key, and its value or none.
        #[derive(Clone, Debug, PartialEq)]
        pub enum GroupRecord<'a> {
            $(
                $(#[$meta])*
                #[doc = concat!("Type ", stringify!($record_type), ".")]
                $name($key, Option<$value>),
            )*
        }

        impl<'a> GroupRecord<'a> {
            const SCHEMAS: &'static [PayloadSchema] = &[
                $(PayloadSchema::of::<$key>(Some($record_type)), PayloadSchema::of::<$value>(None),)*
            ];

            /// Reads a record from its key and its value. Bytes after the end of either are ignored, as Kafka ignores them.
            ///
            /// # Errors
            /// The bytes are something else, or of a type or version that is not known.
            pub fn decode(key: &'a [u8], value: Option<&'a [u8]>) -> Result<Self, DecodeError> {
                let mut key = Decoder::new(key);
                match key.int16()? {
                    $(
                        $record_type => {
                            let key = Payload::decode_body(&mut key, KEY_VERSION)?;
                            let value = value.map(|value| Payload::decode(&mut Decoder::new(value))).transpose()?;
                            Ok(Self::$name(key, value))
                        }
                    )*
                    unknown => Err(DecodeError::UnknownRecord(unknown)),
                }
            }

            /// Writes the key.
            pub fn encode_key(&self, encoder: &mut Encoder) {
                match self {
                    $(
                        Self::$name(key, _) => {
                            encoder.int16($record_type);
                            key.encode_body(encoder, KEY_VERSION);
                        }
                    )*
                }
            }

            /// Writes the value, if there is one, in the version in which Kafka 4.3 writes it. Says whether there is one.
            pub fn encode_value(&self, encoder: &mut Encoder) -> bool {
                match self {
                    $(
                        Self::$name(_, None) => false,
                        Self::$name(_, Some(value)) => {
                            let version: fn(&$value) -> i16 = $version;
                            value.encode(encoder, version(value));
                            true
                        }
                    )*
                }
            }
        }
    };
}

group_records! {
    /// How far a group has read, as Kafka wrote it before 0.9; means the same as the next.
    LegacyOffsetCommit = 0, LegacyOffsetCommitKey<'a> => LegacyOffsetCommitValue<'a>, version |_| 0;
    /// How far a group has read in one partition.
    OffsetCommit = 1, OffsetCommitKey<'a> => OffsetCommitValue<'a>, version offset_commit_version;
    /// A group of the classic protocol with its members.
    GroupMetadata = 2, GroupMetadataKey<'a> => GroupMetadataValue<'a>, version |_| 3;
    /// A group of the new protocol.
    ConsumerGroupMetadata = 3, ConsumerGroupMetadataKey<'a> => ConsumerGroupMetadataValue, version |_| 0;
    /// The topics that a group of the new protocol wants, as Kafka wrote them before 4.1; now it takes them back.
    ConsumerGroupPartitionMetadata = 4, ConsumerGroupPartitionMetadataKey<'a> => ConsumerGroupPartitionMetadataValue<'a>,
        version |_| 0;
    /// A member of a group of the new protocol.
    ConsumerGroupMemberMetadata = 5, ConsumerGroupMemberMetadataKey<'a> => ConsumerGroupMemberMetadataValue<'a>, version |_| 0;
    /// For which epoch of a group partitions were assigned.
    ConsumerGroupTargetAssignmentMetadata = 6, ConsumerGroupTargetAssignmentMetadataKey<'a> =>
        ConsumerGroupTargetAssignmentMetadataValue, version |_| 0;
    /// What a member is to hold.
    ConsumerGroupTargetAssignmentMember = 7, ConsumerGroupTargetAssignmentMemberKey<'a> =>
        ConsumerGroupTargetAssignmentMemberValue, version |_| 0;
    /// What a member holds.
    ConsumerGroupCurrentMemberAssignment = 8, ConsumerGroupCurrentMemberAssignmentKey<'a> =>
        ConsumerGroupCurrentMemberAssignmentValue, version |_| 0;
    /// The topics that a pattern of a group matched.
    ConsumerGroupRegularExpression = 16, ConsumerGroupRegularExpressionKey<'a> => ConsumerGroupRegularExpressionValue<'a>,
        version |_| 0;
}

/// What every key and value looks like, in turn.
pub const SCHEMAS: &[PayloadSchema] = GroupRecord::SCHEMAS;

/// Version 1 alone can say when an offset ends; the others leave that to the broker.
fn offset_commit_version(value: &OffsetCommitValue<'_>) -> i16 {
    if value.expire_timestamp == -1 { 4 } else { 1 }
}
