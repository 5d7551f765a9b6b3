//! What consumers tell each other through the coordinator of a classic group: bytes in JoinGroup and SyncGroup, each with its version in front. The
//! coordinator looks into them where it must know topics (which offsets are in use, members that speak the new protocol beside the classic one);
//! clients make them.

mod assignment;
mod subscription;

pub use assignment::{ConsumerProtocolAssignment, TopicPartition as AssignedTopicPartition};
pub use subscription::{ConsumerProtocolSubscription, TopicPartition as OwnedTopicPartition};

use crate::Payload;
use crate::primitives::{DecodeError, Decoder};
use crate::schema::PayloadSchema;

/// The type of a group whose members speak this.
pub const PROTOCOL_TYPE: &str = "consumer";

/// What every payload looks like.
pub const SCHEMAS: &[PayloadSchema] =
    &[PayloadSchema::of::<ConsumerProtocolSubscription<'_>>(None), PayloadSchema::of::<ConsumerProtocolAssignment<'_>>(None)];

impl<'a> ConsumerProtocolSubscription<'a> {
    /// Reads what a member says of itself, version included. A version that is not known yet is read as the newest that is, as Kafka does it: later
    /// versions only add to the end.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn from_metadata(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        decode_newer_too(bytes)
    }
}

impl<'a> ConsumerProtocolAssignment<'a> {
    /// Reads what a member got, version included, newer ones as [`ConsumerProtocolSubscription::from_metadata`] does.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn from_assignment(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        decode_newer_too(bytes)
    }
}

fn decode_newer_too<'a, P: Payload<'a>>(bytes: &'a [u8]) -> Result<P, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let version = decoder.int16()?;
    P::decode_body(&mut decoder, version.min(P::VERSIONS.max))
}
