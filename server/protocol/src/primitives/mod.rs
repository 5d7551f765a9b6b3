//! The wire's primitive types: what every message is made of. [`Decoder`] reads them from borrowed bytes, [`Encoder`] appends them to a vector.
//! Anyone may use it. It never trusts a length: nothing is reserved for bytes that have not arrived.

mod decoder;
mod encoder;

pub use decoder::{DecodeError, Decoder};
pub use encoder::{Encoder, Hole};

/// A topic, directory or other id, as it is on the wire; all zeros where there is none.
pub type Uuid = [u8; 16];

/// A version of an API, and whether that version uses the flexible encoding of KIP-482 (compact lengths, tagged fields).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The version of the request or response.
    pub version: i16,
    /// Compact lengths, and a section of tagged fields after each structure.
    pub flexible: bool,
}

/// How many bytes `value` takes as an unsigned varint: 1 to 5.
#[must_use]
pub const fn varint_size(value: u32) -> usize {
    let bits = 32 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}
