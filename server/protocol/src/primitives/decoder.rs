//! Reading primitives from borrowed bytes. Zero copy: strings and bytes point into the input. Never panics, never reserves memory.

use std::borrow::Cow;

use super::{Encoding, Uuid};

/// Why bytes are not the message they were taken for. All of these are the peer's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends before what it announced.
    #[error("message ends early: {wanted} more bytes wanted, {remaining} left")]
    Truncated {
        /// Bytes that the next value takes.
        wanted: usize,
        /// Bytes that are there.
        remaining: usize,
    },
    /// An array announces more elements than the bytes that follow can hold.
    #[error("array of {count} elements, of at least {element_bytes_min} bytes each, in {remaining} bytes")]
    ArrayTooLong {
        /// Elements announced.
        count: usize,
        /// The fewest bytes an element takes.
        element_bytes_min: usize,
        /// Bytes that are there.
        remaining: usize,
    },
    /// A string is not UTF-8.
    #[error("string is not valid UTF-8")]
    InvalidUtf8,
    /// A varint does not end within 5 bytes (10 for 64 bits), or has bits beyond its type.
    #[error("varint out of range")]
    VarintOutOfRange,
    /// A string is longer than the 32767 bytes that Kafka allows.
    #[error("string of {0} bytes is longer than 32767")]
    StringTooLong(usize),
    /// A value that may not be null is null.
    #[error("{0} may not be null in this version")]
    UnexpectedNull(&'static str),
    /// A known tagged field's value is not as long as its section says.
    #[error("tagged field {tag} has {remaining} bytes too many")]
    TaggedFieldSize {
        /// The field's tag.
        tag: u32,
        /// Bytes left over after its value.
        remaining: usize,
    },
    /// An API key outside the table.
    #[error("unknown API key {0}")]
    UnknownApi(i16),
    /// The key of a record that is none of those known.
    #[error("unknown record type {0}")]
    UnknownRecord(i16),
    /// A version outside the range served.
    #[error("{api} version {version} is outside {version_min} to {version_max}")]
    UnsupportedVersion {
        /// The API's name.
        api: &'static str,
        /// The version asked for.
        version: i16,
        /// Oldest version served.
        version_min: i16,
        /// Newest version served.
        version_max: i16,
    },
}

type Result<T> = std::result::Result<T, DecodeError>;

/// A cursor over the bytes of one message. Whoever decodes may look at [`Decoder::remaining`] afterwards.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
}

macro_rules! fixed {
    ($($name:ident -> $type:ty, $doc:literal;)*) => {$(
        #[doc = $doc]
        #[inline]
        pub fn $name(&mut self) -> Result<$type> {
            Ok(<$type>::from_be_bytes(*self.chunk()?))
        }
    )*};
}

impl<'a> Decoder<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Bytes not read yet.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// What has not been read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        match self.bytes.split_first_chunk::<N>() {
            Some((chunk, rest)) => {
                self.bytes = rest;
                Ok(chunk)
            }
            None => Err(DecodeError::Truncated { wanted: N, remaining: self.bytes.len() }),
        }
    }

    /// The next `size` bytes as they are.
    #[inline]
    pub fn raw(&mut self, size: usize) -> Result<&'a [u8]> {
        match self.bytes.split_at_checked(size) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => Err(DecodeError::Truncated { wanted: size, remaining: self.bytes.len() }),
        }
    }

    fixed! {
        int8 -> i8, "A signed byte.";
        int16 -> i16, "A big-endian 16-bit integer.";
        uint16 -> u16, "A big-endian unsigned 16-bit integer.";
        int32 -> i32, "A big-endian 32-bit integer.";
        uint32 -> u32, "A big-endian unsigned 32-bit integer.";
        int64 -> i64, "A big-endian 64-bit integer.";
    }

    /// A boolean: any byte but zero is true, as Kafka reads it.
    #[inline]
    pub fn boolean(&mut self) -> Result<bool> {
        Ok(self.int8()? != 0)
    }

    /// An id of 16 bytes.
    #[inline]
    pub fn uuid(&mut self) -> Result<Uuid> {
        Ok(*self.chunk::<16>()?)
    }

    /// An unsigned varint of at most 5 bytes.
    #[inline]
    pub fn unsigned_varint(&mut self) -> Result<u32> {
        // Nearly all lengths are below 127, so one byte.
        if let Some((&byte, rest)) = self.bytes.split_first()
            && byte < 0x80
        {
            self.bytes = rest;
            return Ok(u32::from(byte));
        }
        let value = self.varint_bits(5)?;
        u32::try_from(value).map_err(|_| DecodeError::VarintOutOfRange)
    }

    /// A zigzag varint of at most 5 bytes, as records use it.
    #[inline]
    pub fn varint(&mut self) -> Result<i32> {
        let value = self.unsigned_varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// A zigzag varint of at most 10 bytes, as records use it.
    #[inline]
    pub fn varlong(&mut self) -> Result<i64> {
        let value = self.varint_bits(10)?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn varint_bits(&mut self, bytes_max: usize) -> Result<u64> {
        let mut value = 0u64;
        for (index, &byte) in self.bytes.iter().take(bytes_max).enumerate() {
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * index;
            if shift == 63 && bits > 1 {
                return Err(DecodeError::VarintOutOfRange);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                self.bytes = &self.bytes[index + 1..];
                return Ok(value);
            }
        }
        if self.bytes.len() < bytes_max {
            return Err(DecodeError::Truncated { wanted: self.bytes.len() + 1, remaining: self.bytes.len() });
        }
        Err(DecodeError::VarintOutOfRange)
    }

    /// A length that is 16 bits in the old encoding, a varint one above the length in the flexible one; `None` is null.
    #[inline]
    fn length16(&mut self, encoding: Encoding) -> Result<Option<usize>> {
        if encoding.flexible { self.compact_length() } else { Ok(usize::try_from(self.int16()?).ok()) }
    }

    /// As [`Self::length16`], with 32 bits in the old encoding. Any negative length is null, as Kafka reads it.
    #[inline]
    fn length32(&mut self, encoding: Encoding) -> Result<Option<usize>> {
        if encoding.flexible { self.compact_length() } else { Ok(usize::try_from(self.int32()?).ok()) }
    }

    #[inline]
    fn compact_length(&mut self) -> Result<Option<usize>> {
        Ok((self.unsigned_varint()? as usize).checked_sub(1))
    }

    /// A string, or null.
    #[inline]
    pub fn string_nullable(&mut self, encoding: Encoding) -> Result<Option<Cow<'a, str>>> {
        let Some(bytes) = self.string_bytes(encoding)? else { return Ok(None) };
        match std::str::from_utf8(bytes) {
            Ok(string) => Ok(Some(Cow::Borrowed(string))),
            Err(_) => Err(DecodeError::InvalidUtf8),
        }
    }

    /// A string, or null, of whatever encoding: what is not UTF-8 becomes U+FFFD, as where Java reads it. For what only people read.
    #[inline]
    pub fn string_nullable_lossy(&mut self, encoding: Encoding) -> Result<Option<Cow<'a, str>>> {
        let Some(bytes) = self.string_bytes(encoding)? else { return Ok(None) };
        let string = String::from_utf8_lossy(bytes);
        // It may have become longer, and may have to be written again.
        if string.len() > i16::MAX as usize { Err(DecodeError::StringTooLong(string.len())) } else { Ok(Some(string)) }
    }

    #[inline]
    fn string_bytes(&mut self, encoding: Encoding) -> Result<Option<&'a [u8]>> {
        match self.length16(encoding)? {
            Some(size) if size > i16::MAX as usize => Err(DecodeError::StringTooLong(size)),
            Some(size) => self.raw(size).map(Some),
            None => Ok(None),
        }
    }

    /// A string that may not be null.
    #[inline]
    pub fn string(&mut self, encoding: Encoding) -> Result<Cow<'a, str>> {
        self.string_nullable(encoding)?.ok_or(DecodeError::UnexpectedNull("string"))
    }

    /// Bytes with a 32-bit or compact length, or null: also how records are carried.
    #[inline]
    pub fn bytes_nullable(&mut self, encoding: Encoding) -> Result<Option<&'a [u8]>> {
        match self.length32(encoding)? {
            Some(size) => self.raw(size).map(Some),
            None => Ok(None),
        }
    }

    /// Bytes that may not be null.
    #[inline]
    pub fn bytes(&mut self, encoding: Encoding) -> Result<&'a [u8]> {
        self.bytes_nullable(encoding)?.ok_or(DecodeError::UnexpectedNull("bytes"))
    }

    /// The number of elements of an array, or null. Fails if the bytes that are left cannot hold that many elements of at least
    /// `element_bytes_min` bytes (1 or more), so the caller may rely on it for what it reserves.
    #[inline]
    pub fn array_count(&mut self, encoding: Encoding, element_bytes_min: usize) -> Result<Option<usize>> {
        let Some(count) = self.length32(encoding)? else { return Ok(None) };
        let element_bytes_min = element_bytes_min.max(1);
        if count > self.bytes.len() / element_bytes_min {
            return Err(DecodeError::ArrayTooLong { count, element_bytes_min, remaining: self.bytes.len() });
        }
        Ok(Some(count))
    }

    /// The tagged fields after a flexible structure (KIP-482). `field` gets each tag and a decoder over its value, and says whether it knows the
    /// tag; the rest is skipped. As in Kafka, neither the order of tags nor their uniqueness is enforced.
    #[inline]
    pub fn tagged_fields(&mut self, mut field: impl FnMut(u32, &mut Decoder<'a>) -> Result<bool>) -> Result<()> {
        // No count of fields can outlast the bytes: each takes two at least, and running out is an error.
        for _ in 0..self.unsigned_varint()? {
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            let mut value = Decoder::new(self.raw(size)?);
            if field(tag, &mut value)? && value.remaining() != 0 {
                return Err(DecodeError::TaggedFieldSize { tag, remaining: value.remaining() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Encoder, varint_size};
    use super::*;

    const CLASSIC: Encoding = Encoding { version: 0, flexible: false };
    const FLEXIBLE: Encoding = Encoding { version: 0, flexible: true };

    fn encoded(encode: impl FnOnce(&mut Encoder)) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encode(&mut encoder);
        encoder.into_buffer()
    }

    #[test]
    fn varints_as_kafka_writes_them() {
        for (value, bytes) in
            [(0, &[0][..]), (127, &[0x7f]), (128, &[0x80, 1]), (300, &[0xac, 2]), (u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f])]
        {
            assert_eq!(encoded(|encoder| encoder.unsigned_varint(value)), bytes);
            assert_eq!(Decoder::new(bytes).unsigned_varint(), Ok(value));
            assert_eq!(varint_size(value), bytes.len());
        }
        for (value, bytes) in [(0, &[0][..]), (-1, &[1]), (1, &[2]), (-64, &[0x7f]), (64, &[0x80, 1])] {
            assert_eq!(encoded(|encoder| encoder.varint(value)), bytes);
            assert_eq!(encoded(|encoder| encoder.varlong(i64::from(value))), bytes);
            assert_eq!(Decoder::new(bytes).varint(), Ok(value));
        }
    }

    #[test]
    fn varints_that_do_not_end_or_do_not_fit_are_refused() {
        assert_eq!(Decoder::new(&[0xff; 5]).unsigned_varint(), Err(DecodeError::VarintOutOfRange));
        assert_eq!(Decoder::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).unsigned_varint(), Err(DecodeError::VarintOutOfRange));
        assert_eq!(Decoder::new(&[0xff; 11]).varlong(), Err(DecodeError::VarintOutOfRange));
        assert_eq!(
            Decoder::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).varlong(),
            Err(DecodeError::VarintOutOfRange)
        );
        assert_eq!(Decoder::new(&[0x80; 4]).unsigned_varint(), Err(DecodeError::Truncated { wanted: 5, remaining: 4 }));
        assert_eq!(Decoder::new(&[]).varlong(), Err(DecodeError::Truncated { wanted: 1, remaining: 0 }));
    }

    #[test]
    fn strings_in_both_encodings() {
        assert_eq!(encoded(|encoder| encoder.string("é", CLASSIC)), [0, 2, 0xc3, 0xa9]);
        assert_eq!(encoded(|encoder| encoder.string("é", FLEXIBLE)), [3, 0xc3, 0xa9]);
        assert_eq!(encoded(|encoder| encoder.string_nullable(None, CLASSIC)), [0xff, 0xff]);
        assert_eq!(encoded(|encoder| encoder.string_nullable(None, FLEXIBLE)), [0]);
        assert_eq!(Decoder::new(&[0, 2, 0xc3, 0xa9]).string(CLASSIC), Ok("é".into()));
        assert_eq!(Decoder::new(&[3, 0xc3, 0xa9]).string(FLEXIBLE), Ok("é".into()));
        assert_eq!(Decoder::new(&[0x80, 0]).string_nullable(CLASSIC), Ok(None), "any negative length is null");
        assert_eq!(Decoder::new(&[0]).string(FLEXIBLE), Err(DecodeError::UnexpectedNull("string")));
        assert_eq!(Decoder::new(&[2, 0xff]).string(FLEXIBLE), Err(DecodeError::InvalidUtf8));
        assert_eq!(Decoder::new(&[0, 9, 1]).string(CLASSIC), Err(DecodeError::Truncated { wanted: 9, remaining: 1 }));
        assert_eq!(Decoder::new(b"\0\x04caf\xe9").string_nullable_lossy(CLASSIC), Ok(Some("caf\u{fffd}".into())));
        let longer = [&[0x30, 0][..], &[0xff; 0x3000]].concat();
        assert_eq!(Decoder::new(&longer).string_nullable_lossy(CLASSIC), Err(DecodeError::StringTooLong(0x9000)));
        let long = encoded(|encoder| encoder.bytes_nullable(Some(&[b'a'; 32768]), FLEXIBLE));
        assert_eq!(Decoder::new(&long).string(FLEXIBLE), Err(DecodeError::StringTooLong(32768)));
    }

    #[test]
    fn bytes_in_both_encodings() {
        assert_eq!(encoded(|encoder| encoder.bytes_nullable(Some(&[7]), CLASSIC)), [0, 0, 0, 1, 7]);
        assert_eq!(encoded(|encoder| encoder.bytes_nullable(Some(&[7]), FLEXIBLE)), [2, 7]);
        assert_eq!(Decoder::new(&[0xff; 4]).bytes_nullable(CLASSIC), Ok(None));
        assert_eq!(Decoder::new(&[0xff; 4]).bytes(CLASSIC), Err(DecodeError::UnexpectedNull("bytes")));
        assert_eq!(Decoder::new(&[1]).bytes(FLEXIBLE), Ok(&[][..]));
    }

    #[test]
    fn arrays_are_bounded_by_the_bytes_that_follow() {
        let bytes = [0, 0, 0, 3, 1, 1, 1, 1, 1, 1];
        assert_eq!(Decoder::new(&bytes).array_count(CLASSIC, 2), Ok(Some(3)));
        let error = DecodeError::ArrayTooLong { count: 3, element_bytes_min: 4, remaining: 6 };
        assert_eq!(Decoder::new(&bytes).array_count(CLASSIC, 4), Err(error));
        assert_eq!(Decoder::new(&[0xff; 4]).array_count(CLASSIC, 1), Ok(None));
        assert_eq!(Decoder::new(&[0]).array_count(FLEXIBLE, 1), Ok(None));
        assert_eq!(Decoder::new(&[1]).array_count(FLEXIBLE, 0), Ok(Some(0)));
    }

    #[test]
    fn any_byte_but_zero_is_true() {
        assert_eq!([0, 1, 2, 0xff].map(|byte| Decoder::new(&[byte]).boolean()), [Ok(false), Ok(true), Ok(true), Ok(true)]);
    }

    #[test]
    fn endless_tagged_fields_run_out_of_bytes() {
        let mut bytes = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
        bytes.extend([9, 0].repeat(1000));
        let error = Decoder::new(&bytes).tagged_fields(|_, _| Ok(false)).unwrap_err();
        assert_eq!(error, DecodeError::Truncated { wanted: 1, remaining: 0 });
    }

    proptest! {
        #[test]
        fn varints_return(int: i32, long: i64, unsigned: u32) {
            let bytes = encoded(|encoder| {
                encoder.varint(int);
                encoder.varlong(long);
                encoder.unsigned_varint(unsigned);
            });
            let mut decoder = Decoder::new(&bytes);
            prop_assert_eq!((decoder.varint(), decoder.varlong(), decoder.unsigned_varint()), (Ok(int), Ok(long), Ok(unsigned)));
            prop_assert_eq!(decoder.remaining(), 0);
        }

        #[test]
        fn integers_return(a: i8, b: i16, c: i32, d: i64, e: u16, f: u32, g: [u8; 16]) {
            let bytes = encoded(|encoder| {
                encoder.int8(a);
                encoder.int16(b);
                encoder.int32(c);
                encoder.int64(d);
                encoder.uint16(e);
                encoder.uint32(f);
                encoder.uuid(&g);
            });
            let mut decoder = Decoder::new(&bytes);
            prop_assert_eq!((decoder.int8(), decoder.int16(), decoder.int32(), decoder.int64()), (Ok(a), Ok(b), Ok(c), Ok(d)));
            prop_assert_eq!((decoder.uint16(), decoder.uint32(), decoder.uuid()), (Ok(e), Ok(f), Ok(g)));
        }
    }
}
