//! The bytes of a round of the journal: a header, a table of entries, their payloads, zeros to the end of the block.
//! Little-endian. Pure.

use thiserror::Error;

use crate::disk::BLOCK_BYTES;
use crate::types::{Offset, PartitionId, TopicId};

/// The first bytes of every round.
pub const MAGIC: [u8; 8] = *b"RINGLOGJ";
/// The version of the format.
pub const VERSION: u16 = 1;
/// The length of a round's header.
pub const HEADER_BYTES: usize = 64;
/// The length of an entry in the table.
pub const ENTRY_BYTES: usize = 64;

/// The id of one journal file: random, so that no round of another one is taken for its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalId(pub [u8; 16]);

/// A round's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundHeader {
    /// The journal that it belongs to.
    pub journal: JournalId,
    /// Grows from round to round and never repeats.
    pub sequence: u64,
    /// The sequence of the round that it follows; 0 for the first. One that could not be written is left out of the chain.
    pub previous: u64,
    /// How many entries the table has.
    pub entry_count: u32,
    /// The length of table and payloads, without the padding.
    pub body_bytes: u32,
    /// CRC-32C of table and payloads.
    pub body_crc: u32,
}

/// What a payload is: the bytes of one partition's segment file from a position on, always whole batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The partition.
    pub partition: PartitionId,
    /// The base offset of the segment, which names the file.
    pub segment_base: Offset,
    /// Where the bytes stand in the file.
    pub position: u64,
    /// The offset of the first record.
    pub base_offset: Offset,
    /// The offset after the last record.
    pub next_offset: Offset,
    /// How many bytes.
    pub len: u32,
}

/// Why bytes are not a round.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// Too few bytes, another magic, a wrong CRC: nothing was (completely) written here.
    #[error("not a round: {0}")]
    NotARound(&'static str),
    /// Written by a newer version.
    #[error("the journal's format {0} is newer than this program's ({VERSION})")]
    Newer(u16),
}

impl RoundHeader {
    /// The length of the whole round on disk.
    #[must_use]
    pub fn round_bytes(&self) -> u64 {
        (HEADER_BYTES as u64 + u64::from(self.body_bytes)).next_multiple_of(BLOCK_BYTES as u64)
    }

    /// Writes the header to the front of `round`.
    pub fn encode(&self, round: &mut [u8]) {
        let header = &mut round[..HEADER_BYTES];
        header.fill(0);
        header[..8].copy_from_slice(&MAGIC);
        header[8..10].copy_from_slice(&VERSION.to_le_bytes());
        header[16..32].copy_from_slice(&self.journal.0);
        header[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        header[40..44].copy_from_slice(&self.entry_count.to_le_bytes());
        header[44..48].copy_from_slice(&self.body_bytes.to_le_bytes());
        header[48..52].copy_from_slice(&self.body_crc.to_le_bytes());
        header[56..64].copy_from_slice(&self.previous.to_le_bytes());
        let crc = crc32c::crc32c(header);
        header[12..16].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header from the front of `bytes`.
    ///
    /// # Errors
    /// Where there is none, or one of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(FormatError::NotARound("shorter than a round's header"))?;
        if header[..8] != MAGIC {
            return Err(FormatError::NotARound("another magic"));
        }
        let mut zeroed = *header;
        zeroed[12..16].fill(0);
        if crc32c::crc32c(&zeroed) != u32_at(header, 12) {
            return Err(FormatError::NotARound("the header's CRC is wrong"));
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != VERSION {
            return Err(FormatError::Newer(version));
        }
        let decoded = Self {
            journal: JournalId(array_at(header, 16)),
            sequence: u64::from_le_bytes(array_at(header, 32)),
            previous: u64::from_le_bytes(array_at(header, 56)),
            entry_count: u32_at(header, 40),
            body_bytes: u32_at(header, 44),
            body_crc: u32_at(header, 48),
        };
        if u64::from(decoded.entry_count) * ENTRY_BYTES as u64 > u64::from(decoded.body_bytes) {
            return Err(FormatError::NotARound("more entries than bytes"));
        }
        Ok(decoded)
    }

    /// The entries and their payloads, where `body` (table and payloads) has the CRC that the header says.
    ///
    /// # Errors
    /// Where it has not.
    pub fn entries<'a>(&self, body: &'a [u8]) -> Result<Vec<(Entry, &'a [u8])>, FormatError> {
        if body.len() != self.body_bytes as usize || crc32c::crc32c(body) != self.body_crc {
            return Err(FormatError::NotARound("the CRC is wrong"));
        }
        let (table, mut payloads) = body
            .split_at_checked(self.entry_count as usize * ENTRY_BYTES)
            .ok_or(FormatError::NotARound("more entries than bytes"))?;
        let mut entries = Vec::with_capacity(self.entry_count as usize);
        for raw in table.chunks_exact(ENTRY_BYTES) {
            let entry = Entry::decode(raw);
            let (payload, rest) =
                payloads.split_at_checked(entry.len as usize).ok_or(FormatError::NotARound("a payload is cut short"))?;
            entries.push((entry, payload));
            payloads = rest;
        }
        if !payloads.is_empty() {
            return Err(FormatError::NotARound("bytes behind the last payload"));
        }
        Ok(entries)
    }
}

impl Entry {
    /// Writes the entry to `raw`, which has [`ENTRY_BYTES`].
    pub fn encode(&self, raw: &mut [u8]) {
        raw.fill(0);
        raw[..16].copy_from_slice(&self.partition.topic.0);
        raw[16..20].copy_from_slice(&self.partition.index.to_le_bytes());
        raw[20..24].copy_from_slice(&self.len.to_le_bytes());
        raw[24..32].copy_from_slice(&self.segment_base.0.to_le_bytes());
        raw[32..40].copy_from_slice(&self.position.to_le_bytes());
        raw[40..48].copy_from_slice(&self.base_offset.0.to_le_bytes());
        raw[48..56].copy_from_slice(&self.next_offset.0.to_le_bytes());
    }

    fn decode(raw: &[u8]) -> Self {
        Self {
            partition: PartitionId { topic: TopicId(array_at(raw, 0)), index: i32::from_le_bytes(array_at(raw, 16)) },
            len: u32_at(raw, 20),
            segment_base: Offset(i64::from_le_bytes(array_at(raw, 24))),
            position: u64::from_le_bytes(array_at(raw, 32)),
            base_offset: Offset(i64::from_le_bytes(array_at(raw, 40))),
            next_offset: Offset(i64::from_le_bytes(array_at(raw, 48))),
        }
    }
}

/// `N` bytes at `at`; the callers have checked the length.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round(sequence: u64, payloads: &[Vec<u8>]) -> Vec<u8> {
        let table_bytes = payloads.len() * ENTRY_BYTES;
        let mut bytes = vec![0; HEADER_BYTES + table_bytes];
        for (at, payload) in payloads.iter().enumerate() {
            let entry = Entry {
                partition: PartitionId { topic: TopicId([at as u8; 16]), index: at as i32 },
                segment_base: Offset(at as i64 * 100),
                position: at as u64 * 7,
                base_offset: Offset(at as i64 * 101),
                next_offset: Offset(at as i64 * 102),
                len: payload.len() as u32,
            };
            entry.encode(&mut bytes[HEADER_BYTES + at * ENTRY_BYTES..HEADER_BYTES + (at + 1) * ENTRY_BYTES]);
            bytes.extend_from_slice(payload);
        }
        let body_crc = crc32c::crc32c(&bytes[HEADER_BYTES..]);
        let body_bytes = (bytes.len() - HEADER_BYTES) as u32;
        let header = RoundHeader {
            journal: JournalId([3; 16]),
            sequence,
            previous: 0,
            entry_count: payloads.len() as u32,
            body_bytes,
            body_crc,
        };
        header.encode(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn rounds_come_back(sequence in any::<u64>(), payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8)) {
            let bytes = round(sequence, &payloads);
            let header = RoundHeader::decode(&bytes).unwrap();
            prop_assert_eq!(header.sequence, sequence);
            prop_assert_eq!(header.round_bytes() % 4096, 0);
            let entries = header.entries(&bytes[HEADER_BYTES..]).unwrap();
            prop_assert_eq!(entries.len(), payloads.len());
            for (at, ((entry, payload), sent)) in entries.iter().zip(&payloads).enumerate() {
                prop_assert_eq!(entry.partition.index, at as i32);
                prop_assert_eq!(*payload, &sent[..]);
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed(payload in prop::collection::vec(any::<u8>(), 1..300), bit in any::<prop::sample::Index>()) {
            let mut bytes = round(1, &[payload]);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = RoundHeader::decode(&bytes).and_then(|header| {
                let body = bytes.get(HEADER_BYTES..HEADER_BYTES + header.body_bytes as usize);
                header.entries(body.unwrap_or(&[])).map(|_| ())
            });
            prop_assert!(read.is_err());
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = RoundHeader::decode(&bytes);
        }
    }
}
