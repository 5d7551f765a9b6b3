//! Appending primitives to a vector, with holes for bytes that someone else sends. Does no I/O.

use super::{Encoding, Uuid, varint_size};

/// Bytes that belong to the message but not to the encoder's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Where the hole's bytes go: after this many bytes of the buffer.
    pub position: usize,
    /// How many bytes go there.
    pub size: usize,
}

/// Appends to a vector that it owns and that [`Encoder::clear`] keeps for the next message.
///
/// What is too large for the wire (a string over 32767 bytes, an array over `i32::MAX` elements) is the caller's bug and panics.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    buffer: Vec<u8>,
    holes: Vec<Hole>,
    holes_size: usize,
}

macro_rules! fixed {
    ($($name:ident($type:ty), $doc:literal;)*) => {$(
        #[doc = $doc]
        #[inline]
        pub fn $name(&mut self, value: $type) {
            self.buffer.extend_from_slice(&value.to_be_bytes());
        }
    )*};
}

impl Encoder {
    /// An encoder with an empty buffer.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), holes: Vec::new(), holes_size: 0 }
    }

    /// An encoder that appends to `buffer`.
    #[must_use]
    pub const fn with_buffer(buffer: Vec<u8>) -> Self {
        Self { buffer, holes: Vec::new(), holes_size: 0 }
    }

    /// Forgets what was encoded and keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.holes.clear();
        self.holes_size = 0;
    }

    /// What has been encoded, without the holes.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    /// The holes, in the order of their positions.
    #[must_use]
    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// Bytes encoded, holes included.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.buffer.len() + self.holes_size
    }

    /// The buffer, where nothing was left out of it.
    ///
    /// # Panics
    /// If there are holes.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        assert!(self.holes.is_empty(), "a message with holes is not its buffer alone");
        self.buffer
    }

    /// The buffer and the holes in it.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Vec<Hole>) {
        (self.buffer, self.holes)
    }

    /// Leaves out `size` bytes that someone else will send here. No bytes, no hole.
    pub fn hole(&mut self, size: usize) {
        if size > 0 {
            self.holes.push(Hole { position: self.buffer.len(), size });
            self.holes_size += size;
        }
    }

    /// Bytes as they are.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Makes room for `size` more bytes.
    pub fn reserve(&mut self, size: usize) {
        self.buffer.reserve(size);
    }

    /// Overwrites four bytes written before.
    pub(crate) fn patch_int32(&mut self, position: usize, value: i32) {
        self.buffer[position..position + 4].copy_from_slice(&value.to_be_bytes());
    }

    fixed! {
        int8(i8), "A signed byte.";
        int16(i16), "A big-endian 16-bit integer.";
        uint16(u16), "A big-endian unsigned 16-bit integer.";
        int32(i32), "A big-endian 32-bit integer.";
        uint32(u32), "A big-endian unsigned 32-bit integer.";
        int64(i64), "A big-endian 64-bit integer.";
    }

    /// A boolean, as 0 or 1.
    #[inline]
    pub fn boolean(&mut self, value: bool) {
        self.int8(i8::from(value));
    }

    /// An id of 16 bytes.
    #[inline]
    pub fn uuid(&mut self, value: &Uuid) {
        self.raw(value);
    }

    /// An unsigned varint.
    #[inline]
    pub fn unsigned_varint(&mut self, value: u32) {
        self.varint_bits(u64::from(value));
    }

    /// A zigzag varint, as records use it.
    #[inline]
    pub fn varint(&mut self, value: i32) {
        self.unsigned_varint(((value << 1) ^ (value >> 31)).cast_unsigned());
    }

    /// A zigzag varint of 64 bits, as records use it.
    #[inline]
    pub fn varlong(&mut self, value: i64) {
        self.varint_bits(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    #[inline]
    fn varint_bits(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buffer.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
    }

    #[inline]
    fn compact_length(&mut self, length: Option<usize>) {
        let length = length.map_or(0, |length| length + 1);
        assert!(length <= i32::MAX as usize, "length {length} does not fit the wire");
        self.unsigned_varint(length as u32);
    }

    #[inline]
    fn length16(&mut self, length: Option<usize>, encoding: Encoding) {
        assert!(length.unwrap_or(0) <= STRING_BYTES_MAX, "a string of more than 32767 bytes does not fit the wire");
        if encoding.flexible {
            self.compact_length(length);
        } else {
            self.int16(length.map_or(-1, |length| length as i16));
        }
    }

    #[inline]
    fn length32(&mut self, length: Option<usize>, encoding: Encoding) {
        if encoding.flexible {
            self.compact_length(length);
        } else {
            assert!(length.unwrap_or(0) <= i32::MAX as usize, "length does not fit the wire");
            self.int32(length.map_or(-1, |length| length as i32));
        }
    }

    /// A string, or null. It is cut where it does not fit the wire: whatever came from there does, so that can only be a text for
    /// people which quotes it.
    #[inline]
    pub fn string_nullable(&mut self, value: Option<&str>, encoding: Encoding) {
        let value = value.map(fitting);
        self.length16(value.map(str::len), encoding);
        self.raw(value.unwrap_or_default().as_bytes());
    }

    /// A string, cut as [`Encoder::string_nullable`] does.
    #[inline]
    pub fn string(&mut self, value: &str, encoding: Encoding) {
        self.string_nullable(Some(value), encoding);
    }

    /// Bytes with their length, or null.
    #[inline]
    pub fn bytes_nullable(&mut self, value: Option<&[u8]>, encoding: Encoding) {
        self.length32(value.map(<[u8]>::len), encoding);
        self.raw(value.unwrap_or_default());
    }

    /// The length of bytes, and a hole where they go.
    #[inline]
    pub fn bytes_hole(&mut self, size: usize, encoding: Encoding) {
        self.length32(Some(size), encoding);
        self.hole(size);
    }

    /// The number of elements of an array that the caller encodes next, or null.
    #[inline]
    pub fn array_count(&mut self, count: Option<usize>, encoding: Encoding) {
        self.length32(count, encoding);
    }

    /// A tagged field (KIP-482): its tag, the size of what `value` encodes, and that. The caller wrote the number of tagged fields before and keeps
    /// their tags in ascending order.
    pub fn tagged_field(&mut self, tag: u32, value: impl FnOnce(&mut Self)) {
        self.unsigned_varint(tag);
        let (start, holes_size) = (self.buffer.len(), self.holes_size);
        value(self);
        assert!(self.holes_size == holes_size, "a tagged field cannot hold a hole");
        let size = (self.buffer.len() - start) as u32;
        // The size is known only now and goes first. Tagged values are short, so moving them is cheaper than sizing every message beforehand.
        self.unsigned_varint(size);
        self.buffer[start..].rotate_right(varint_size(size));
    }
}

/// The longest string that the wire has.
const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// As much of a string as the wire takes, in whole characters.
#[inline]
fn fitting(text: &str) -> &str {
    if text.len() <= STRING_BYTES_MAX {
        return text;
    }
    let end = (0..=STRING_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clearing_forgets_buffer_and_holes() {
        let mut encoder = Encoder::new();
        encoder.int32(1);
        encoder.hole(10);
        assert_eq!((encoder.size(), encoder.holes().len()), (14, 1));
        encoder.clear();
        assert_eq!((encoder.size(), encoder.buffer().len(), encoder.holes().len()), (0, 0, 0));
    }

    #[test]
    fn a_text_too_long_for_the_wire_is_cut_between_characters() {
        let text = format!("{}\u{2603}", "x".repeat(STRING_BYTES_MAX - 1));
        for flexible in [false, true] {
            let mut encoder = Encoder::new();
            encoder.string(&text, Encoding { version: 0, flexible });
            let size = if flexible { 3 } else { 2 };
            assert_eq!(encoder.buffer()[size..], text.as_bytes()[..STRING_BYTES_MAX - 1]);
        }
    }

    #[test]
    fn a_hole_of_nothing_is_none() {
        let mut encoder = Encoder::with_buffer(vec![9]);
        encoder.bytes_hole(0, Encoding { version: 0, flexible: true });
        assert_eq!(encoder.into_buffer(), [9, 1]);
    }

    #[test]
    #[should_panic(expected = "not its buffer alone")]
    fn a_buffer_with_holes_is_not_handed_out_as_whole() {
        let mut encoder = Encoder::new();
        encoder.hole(1);
        let _ = encoder.into_buffer();
    }
}
