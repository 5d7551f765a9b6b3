//! Apache Kafka's wire codec: requests and responses, both ways, in every version served. Server, load generator and tests call it.
//!
//! Pure: no I/O, no clock. Bounded: no length from the wire reserves memory beyond what the bytes that are there can fill. Light: strings and
//! records borrow from the input, and records to be sent need not pass through the encoder's buffer ([`Encoder::hole`]).
//!
//! Decoded arrays of very short elements take more memory than their bytes did, at worst some 72 for one (empty strings, while their array grows):
//! whoever reads from strangers bounds the frames too, the more so where they carry no records.
//!
//! A message is a plain struct in [`api`]; `decode` and `encode` take the version. Fields that a version lacks keep their default. The default of a
//! nullable field is null. What [`ApiKey`] lists can be decoded and encoded, nothing else; which of it the broker serves, it says too.
//!
//! What has versions of its own inside of messages and records is a [`Payload`]: [`consumer_protocol`], [`group_records`].
//!
//! Bytes after the end of a request are ignored, as Kafka ignores them; [`Decoder::remaining`] tells who wants to know.
#![forbid(unsafe_code)]

pub mod api;
mod api_key;
pub mod consumer_protocol;
mod error_code;
mod frame;
pub mod group_records;
mod header;
mod message;
pub mod primitives;
pub mod schema;

pub use api_key::ApiKey;
pub use error_code::ErrorCode;
pub use frame::{FrameStart, begin_request, begin_response, finish_frame};
pub use header::{RequestHeader, ResponseHeader};
pub use message::{Message, Payload, Records};
pub use primitives::{DecodeError, Decoder, Encoder, Hole, Uuid};
