//! The records inside a record batch v2 (KIP-82, KIP-98): a view over bytes without copying, and the encoder. Whoever
//! looks into a batch uses it; batches are [`crate::batch`]'s. It never decompresses and does no I/O.

use thiserror::Error;

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The bytes end inside the record.
    #[error("record ends early, in its {0}")]
    Truncated(&'static str),
    /// A variable-length number of more than 5 (10 for 64 bits) bytes, or over its range.
    #[error("record's {0} is a malformed variable-length number")]
    Varint(&'static str),
    /// A length or count below zero where none may be, or larger than what is there.
    #[error("record's {0} is {1}, which cannot be")]
    Impossible(&'static str, i64),
    /// The fields do not fill the length that the record declares.
    #[error("record declares {declared} bytes, its fields take {read}")]
    LengthMismatch {
        /// What the length field says.
        declared: usize,
        /// What the fields take.
        read: usize,
    },
}

/// A record, borrowed from its (decompressed) batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Unused so far; 0.
    pub attributes: i8,
    /// Milliseconds after the batch's base timestamp; may be negative.
    pub timestamp_delta: i64,
    /// Distance from the batch's base offset.
    pub offset_delta: i32,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

/// A header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The key: UTF-8 by agreement among clients, which brokers do not check.
    pub key: &'a [u8],
    /// The value, if it has one.
    pub value: Option<&'a [u8]>,
}

/// The headers of a record, in their order. They were checked when the record was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        let mut cursor = Cursor { bytes: self.bytes };
        let header = cursor.header().ok()?;
        self.bytes = cursor.bytes;
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

impl<'a> Record<'a> {
    /// A record to be encoded, without headers.
    #[must_use]
    pub fn new(offset_delta: i32, timestamp_delta: i64, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Self {
        Self { attributes: 0, timestamp_delta, offset_delta, key, value, headers: Headers { bytes: &[], left: 0 } }
    }

    /// Reads the record at the front of `bytes`; returns it and what follows it. Every length is checked against the
    /// bytes that are there.
    ///
    /// # Errors
    /// [`RecordError`] where the record is malformed.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), RecordError> {
        let mut outer = Cursor { bytes };
        let length = outer.varint("length")?;
        let length = usize::try_from(length).map_err(|_| RecordError::Impossible("length", length.into()))?;
        let Some((body, rest)) = outer.bytes.split_at_checked(length) else {
            return Err(RecordError::Truncated("body"));
        };
        let mut cursor = Cursor { bytes: body };
        let attributes = cursor.byte("attributes")?.cast_signed();
        let timestamp_delta = cursor.varlong("timestamp delta")?;
        let offset_delta = cursor.varint("offset delta")?;
        let key = cursor.nullable("key")?;
        let value = cursor.nullable("value")?;
        let count = cursor.varint("header count")?;
        // A header takes two bytes at least, so the loop below is bounded by the bytes that are there.
        let left = match usize::try_from(count) {
            Ok(left) if left <= cursor.bytes.len() / 2 => left,
            _ => return Err(RecordError::Impossible("header count", count.into())),
        };
        let headers = Headers { bytes: cursor.bytes, left };
        for _ in 0..left {
            cursor.header()?;
        }
        if !cursor.bytes.is_empty() {
            return Err(RecordError::LengthMismatch { declared: length, read: length - cursor.bytes.len() });
        }
        Ok((Self { attributes, timestamp_delta, offset_delta, key, value, headers }, rest))
    }

    /// The headers, in their order.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }

    /// Appends the record, as it was read or made, to `out`.
    ///
    /// # Panics
    /// When it takes more than `i32::MAX` bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode(self, self.headers.left, |out| out.extend_from_slice(self.headers.bytes), self.headers.bytes.len(), out);
    }

    /// Appends the record with these headers instead of its own to `out`.
    ///
    /// # Panics
    /// When it takes more than `i32::MAX` bytes.
    pub fn encode_with_headers(&self, headers: &[Header<'_>], out: &mut Vec<u8>) {
        let bytes = headers.iter().map(|header| sized(Some(header.key)) + sized(header.value)).sum();
        let write = |out: &mut Vec<u8>| {
            for header in headers {
                put_nullable(Some(header.key), out);
                put_nullable(header.value, out);
            }
        };
        encode(self, headers.len(), write, bytes, out);
    }
}

fn encode(record: &Record<'_>, headers: usize, write: impl FnOnce(&mut Vec<u8>), headers_bytes: usize, out: &mut Vec<u8>) {
    let count = length_i32(headers);
    let body = 1
        + varint_bytes(record.timestamp_delta)
        + varint_bytes(record.offset_delta.into())
        + sized(record.key)
        + sized(record.value)
        + varint_bytes(count.into())
        + headers_bytes;
    out.reserve(body + 5);
    put_varint(length_i32(body).into(), out);
    let start = out.len();
    out.push(record.attributes.cast_unsigned());
    put_varint(record.timestamp_delta, out);
    put_varint(record.offset_delta.into(), out);
    put_nullable(record.key, out);
    put_nullable(record.value, out);
    put_varint(count.into(), out);
    write(out);
    assert_eq!(out.len() - start, body, "a record takes what was reckoned");
}

fn length_i32(length: usize) -> i32 {
    assert!(i32::try_from(length).is_ok(), "lengths in a record are below 2 GiB");
    length as i32
}

fn sized(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varint_bytes(length_i32(bytes.len()).into()) + bytes.len())
}

fn put_nullable(field: Option<&[u8]>, out: &mut Vec<u8>) {
    match field {
        Some(bytes) => {
            put_varint(length_i32(bytes.len()).into(), out);
            out.extend_from_slice(bytes);
        }
        None => put_varint(-1, out),
    }
}

/// Zigzag: small numbers of either sign become small unsigned ones. The 32-bit form is the same bytes.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// How many bytes `value` takes as a zigzag variable-length number.
fn varint_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn put_varint(value: i64, out: &mut Vec<u8>) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// What the checks of a produced batch want of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Skimmed {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) has_key: bool,
    /// Where the next record starts.
    pub(crate) end: usize,
}

/// Reads the record at `start` of `bytes` like [`Record::parse`], several times as fast. `None` where the record is malformed,
/// and for headers and numbers that are longer than usual: whoever gets it has to look properly.
#[inline]
pub(crate) fn skim(bytes: &[u8], start: usize) -> Option<Skimmed> {
    let mut at = start;
    let length = usize::try_from(skim_number(bytes, &mut at)?).ok()?;
    let end = at.checked_add(length)?;
    let body = bytes.get(..end)?;
    at += 1;
    let timestamp_delta = skim_number(body, &mut at)?;
    let offset_delta = skim_number(body, &mut at)? as i32;
    let key = skim_number(body, &mut at)?;
    at += usize::try_from(key).unwrap_or(0);
    let value = skim_number(body, &mut at)?;
    at += usize::try_from(value).unwrap_or(0);
    // No headers, and nothing else: the count is the last byte.
    (at + 1 == end && body.get(at) == Some(&0)).then_some(Skimmed { timestamp_delta, offset_delta, has_key: key >= 0, end })
}

/// A number of at most four bytes: 28 bits, so that sums of them stay far from any range.
#[inline]
fn skim_number(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let mut raw = 0;
    for shift in [0, 7, 14, 21] {
        let byte = *bytes.get(*at)?;
        *at += 1;
        raw |= i64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((raw >> 1) ^ -(raw & 1));
        }
    }
    None
}

struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[inline]
    fn byte(&mut self, field: &'static str) -> Result<u8, RecordError> {
        let (&first, rest) = self.bytes.split_first().ok_or(RecordError::Truncated(field))?;
        self.bytes = rest;
        Ok(first)
    }

    #[inline]
    fn varint(&mut self, field: &'static str) -> Result<i32, RecordError> {
        let raw = self.unsigned(field, 5)?;
        let raw = u32::try_from(raw).map_err(|_| RecordError::Varint(field))?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    #[inline]
    fn varlong(&mut self, field: &'static str) -> Result<i64, RecordError> {
        let raw = self.unsigned(field, 10)?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    #[inline]
    fn unsigned(&mut self, field: &'static str, bytes_max: usize) -> Result<u64, RecordError> {
        let mut value = 0u64;
        for at in 0..bytes_max {
            let byte = self.byte(field)?;
            // The tenth byte of a 64-bit number holds its last bit alone.
            if at == 9 && byte > 1 {
                return Err(RecordError::Varint(field));
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(RecordError::Varint(field))
    }

    /// A length and so many bytes; any negative length is none, as for Kafka.
    #[inline]
    fn nullable(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, RecordError> {
        let Ok(length) = usize::try_from(self.varint(field)?) else { return Ok(None) };
        let (bytes, rest) = self.bytes.split_at_checked(length).ok_or(RecordError::Truncated(field))?;
        self.bytes = rest;
        Ok(Some(bytes))
    }

    fn header(&mut self) -> Result<Header<'a>, RecordError> {
        let key = self.nullable("header key")?.ok_or(RecordError::Impossible("header key length", -1))?;
        let value = self.nullable("header value")?;
        Ok(Header { key, value })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type OwnedHeader = (Vec<u8>, Option<Vec<u8>>);

    fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop::option::of(prop::collection::vec(any::<u8>(), 0..200))
    }

    fn headers() -> impl Strategy<Value = Vec<OwnedHeader>> {
        prop::collection::vec((prop::collection::vec(any::<u8>(), 0..20), bytes()), 0..5)
    }

    #[test]
    fn numbers_take_as_many_bytes_as_reckoned() {
        for value in [0, -1, 1, 63, 64, -64, -65, i64::MAX, i64::MIN, i32::MAX.into(), i32::MIN.into(), 8191, 8192] {
            let mut out = vec![];
            put_varint(value, &mut out);
            assert_eq!(out.len(), varint_bytes(value), "{value}");
            let mut cursor = Cursor { bytes: &out };
            assert_eq!(cursor.varlong("x"), Ok(value));
            assert!(cursor.bytes.is_empty());
            let mut cursor = Cursor { bytes: &out };
            assert_eq!(cursor.varint("x").ok(), i32::try_from(value).ok());
        }
    }

    #[test]
    fn overlong_numbers_are_refused() {
        let mut cursor = Cursor { bytes: &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00] };
        assert_eq!(cursor.varint("x"), Err(RecordError::Varint("x")));
        let mut cursor = Cursor { bytes: &[0xff, 0xff, 0xff, 0xff, 0x1f] };
        assert_eq!(cursor.varint("x"), Err(RecordError::Varint("x")));
        let mut cursor = Cursor { bytes: &[0xff; 11] };
        assert_eq!(cursor.varlong("x"), Err(RecordError::Varint("x")));
        let mut cursor = Cursor { bytes: &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2] };
        assert_eq!(cursor.varlong("x"), Err(RecordError::Varint("x")), "a 65th bit");
        let mut cursor = Cursor { bytes: &[0x80, 0x80] };
        assert_eq!(cursor.varlong("x"), Err(RecordError::Truncated("x")));
    }

    #[test]
    fn a_record_has_these_bytes() {
        let mut out = vec![];
        let header = Header { key: b"h", value: None };
        Record::new(1, -1, None, Some(b"ab")).encode_with_headers(&[header], &mut out);
        assert_eq!(out, [22, 0, 1, 2, 1, 4, b'a', b'b', 2, 2, b'h', 1]);
    }

    #[test]
    fn what_a_record_declares_must_be_what_it_has() {
        // One byte more in the body than its fields take, one header more than there is, a header without a key.
        assert_eq!(Record::parse(&[14, 0, 0, 0, 1, 1, 0, 9]), Err(RecordError::LengthMismatch { declared: 7, read: 6 }));
        assert_eq!(Record::parse(&[12, 0, 0, 0, 1, 1, 2]), Err(RecordError::Impossible("header count", 1)));
        assert_eq!(Record::parse(&[16, 0, 0, 0, 1, 1, 2, 1, 1]), Err(RecordError::Impossible("header key length", -1)));
        assert_eq!(Record::parse(&[12, 0, 0, 0, 1, 1, 1]), Err(RecordError::Impossible("header count", -1)));
        assert_eq!(Record::parse(&[1]), Err(RecordError::Impossible("length", -1)));
        assert_eq!(Record::parse(&[14, 0]), Err(RecordError::Truncated("body")));
        assert_eq!(Record::parse(&[]), Err(RecordError::Truncated("length")));
        assert_eq!(skim(&[14, 0, 0, 0, 1, 1, 0, 9], 0), None);
        assert_eq!(skim(&[12, 0, 0, 0, 1, 1, 2], 0), None);
        assert!(skim(&[12, 0, 0, 0, 1, 1, 0], 0).is_some());
    }

    proptest! {
        #[test]
        fn a_record_is_read_back(
            timestamp_delta: i64, offset_delta: i32, key in bytes(), value in bytes(), headers in headers(),
        ) {
            let borrowed: Vec<_> =
                headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
            let mut out = vec![];
            Record::new(offset_delta, timestamp_delta, key.as_deref(), value.as_deref())
                .encode_with_headers(&borrowed, &mut out);
            let end = out.len();
            out.extend_from_slice(b"more");
            let (record, rest) = Record::parse(&out).unwrap();
            prop_assert_eq!(rest, b"more");
            prop_assert_eq!((record.timestamp_delta, record.offset_delta), (timestamp_delta, offset_delta));
            prop_assert_eq!(record.key, key.as_deref());
            prop_assert_eq!(record.value, value.as_deref());
            prop_assert_eq!(record.headers().collect::<Vec<_>>(), borrowed);
            let mut again = vec![];
            record.encode(&mut again);
            prop_assert_eq!(&again, &out[..end]);
            // No prefix of it is a record.
            for cut in 0..end {
                prop_assert!(Record::parse(&out[..cut]).is_err());
            }
        }

        #[test]
        fn a_skim_sees_what_a_parse_sees(
            timestamp_delta in prop_oneof![-200i64..200, any::<i64>()], offset_delta in prop_oneof![0..300, any::<i32>()],
            key in bytes(), value in bytes(), before in 0usize..9, at: prop::sample::Index, to: u8,
        ) {
            let mut out = vec![0xff; before];
            let record = Record::new(offset_delta, timestamp_delta, key.as_deref(), value.as_deref());
            record.encode(&mut out);
            let usual = |value: i64| (-(1 << 27)..1 << 27).contains(&value);
            let skimmed = skim(&out, before);
            prop_assert_eq!(skimmed.is_some(), usual(timestamp_delta) && usual(offset_delta.into()));
            for end in before..out.len() {
                prop_assert_eq!(skim(&out[..end], before), None);
            }
            // Whatever it lets pass, after damage too, is what the parser reads.
            let at = before + at.index(out.len() - before);
            let good = out[at];
            for byte in [good, to] {
                out[at] = byte;
                out.extend_from_slice(b"next");
                if let Some(skimmed) = skim(&out, before) {
                    let (record, rest) = Record::parse(&out[before..]).unwrap();
                    let parsed = Skimmed {
                        timestamp_delta: record.timestamp_delta,
                        offset_delta: record.offset_delta,
                        has_key: record.key.is_some(),
                        end: out.len() - rest.len(),
                    };
                    prop_assert_eq!(skimmed, parsed);
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(skimmed) = skim(&bytes, 0) {
                let (record, rest) = Record::parse(&bytes).unwrap();
                prop_assert_eq!((record.offset_delta, bytes.len() - rest.len()), (skimmed.offset_delta, skimmed.end));
            }
            if let Ok((record, rest)) = Record::parse(&bytes) {
                prop_assert!(rest.len() < bytes.len());
                prop_assert_eq!(record.headers().count(), record.headers().len());
            }
        }
    }
}
