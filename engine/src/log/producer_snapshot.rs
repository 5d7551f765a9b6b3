//! The `.snapshot` file of a segment: what was known of the producers when the log ended at its base offset. Pure: bytes in,
//! entries out and back.
//!
//! Kafka's format, version 1, big-endian: version i16, CRC-32C u32 of what follows it, number of entries i32, entries.

use thiserror::Error;

use crate::types::{Offset, ProducerId, TimestampMs};

const VERSION: i16 = 1;
const CRC_AT: usize = 2;
const ENTRIES_AT: usize = 6;
const HEADER_BYTES: usize = 10;
/// The size of an entry.
pub const ENTRY_BYTES: usize = 46;

/// What is wrong with a snapshot file; recovery takes an older one, or reads the log from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SnapshotError {
    /// Fewer or more bytes than the number of entries takes.
    #[error("producer snapshot of {bytes} bytes does not hold the {entries} entries it declares")]
    Size {
        /// The file's size.
        bytes: usize,
        /// What it says.
        entries: i32,
    },
    /// Less than a header.
    #[error("producer snapshot of {0} bytes ends in its header")]
    TooShort(usize),
    /// Another format.
    #[error("producer snapshot has version {0}, not {VERSION}")]
    Version(i16),
    /// The bytes are not those that were written.
    #[error("producer snapshot has CRC {computed:#010x}, its header says {stored:#010x}")]
    Crc {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
}

/// One producer. Where there is no batch or no transaction the offsets are -1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// Who.
    pub producer_id: ProducerId,
    /// Its latest epoch.
    pub producer_epoch: i16,
    /// The last sequence of its last batch.
    pub last_sequence: i32,
    /// The last offset of its last batch.
    pub last_offset: Offset,
    /// How far that is from the batch's first.
    pub offset_delta: i32,
    /// The largest timestamp of its last batch.
    pub timestamp: TimestampMs,
    /// The epoch of the coordinator that ended its last transaction.
    pub coordinator_epoch: i32,
    /// Where its open transaction starts.
    pub transaction_start: Offset,
}

impl SnapshotEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.producer_id.0.to_be_bytes());
        out.extend_from_slice(&self.producer_epoch.to_be_bytes());
        out.extend_from_slice(&self.last_sequence.to_be_bytes());
        out.extend_from_slice(&self.last_offset.0.to_be_bytes());
        out.extend_from_slice(&self.offset_delta.to_be_bytes());
        out.extend_from_slice(&self.timestamp.0.to_be_bytes());
        out.extend_from_slice(&self.coordinator_epoch.to_be_bytes());
        out.extend_from_slice(&self.transaction_start.0.to_be_bytes());
    }

    fn decode(raw: &[u8; ENTRY_BYTES]) -> Self {
        Self {
            producer_id: ProducerId(i64::from_be_bytes(field(raw, 0))),
            producer_epoch: i16::from_be_bytes(field(raw, 8)),
            last_sequence: i32::from_be_bytes(field(raw, 10)),
            last_offset: Offset(i64::from_be_bytes(field(raw, 14))),
            offset_delta: i32::from_be_bytes(field(raw, 22)),
            timestamp: TimestampMs(i64::from_be_bytes(field(raw, 26))),
            coordinator_epoch: i32::from_be_bytes(field(raw, 34)),
            transaction_start: Offset(i64::from_be_bytes(field(raw, 38))),
        }
    }
}

fn field<const N: usize>(raw: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&raw[at..at + N]);
    out
}

/// Reads the file.
///
/// # Errors
/// [`SnapshotError`] where it is not one, or damaged.
pub fn parse(bytes: &[u8]) -> Result<Vec<SnapshotEntry>, SnapshotError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(SnapshotError::TooShort(bytes.len()));
    };
    let version = i16::from_be_bytes(field(header, 0));
    if version != VERSION {
        return Err(SnapshotError::Version(version));
    }
    let stored = u32::from_be_bytes(field(header, CRC_AT));
    let computed = crc32c::crc32c(&bytes[ENTRIES_AT..]);
    if stored != computed {
        return Err(SnapshotError::Crc { stored, computed });
    }
    let entries = i32::from_be_bytes(field(header, ENTRIES_AT));
    match rest.as_chunks::<ENTRY_BYTES>() {
        (chunks, []) if i32::try_from(chunks.len()) == Ok(entries) => Ok(chunks.iter().map(SnapshotEntry::decode).collect()),
        _ => Err(SnapshotError::Size { bytes: bytes.len(), entries }),
    }
}

/// The bytes of the file.
///
/// # Panics
/// When there are more than `i32::MAX` entries.
#[must_use]
pub fn encode(entries: &[SnapshotEntry]) -> Vec<u8> {
    assert!(i32::try_from(entries.len()).is_ok(), "the number of producers is bounded");
    let mut out = Vec::with_capacity(HEADER_BYTES + entries.len() * ENTRY_BYTES);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&[0; ENTRIES_AT - CRC_AT]);
    out.extend_from_slice(&(entries.len() as i32).to_be_bytes());
    for entry in entries {
        entry.encode(&mut out);
    }
    let crc = crc32c::crc32c(&out[ENTRIES_AT..]);
    out[CRC_AT..ENTRIES_AT].copy_from_slice(&crc.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = SnapshotEntry> {
        (any::<[i64; 4]>(), any::<i16>(), any::<[i32; 3]>()).prop_map(|(longs, producer_epoch, ints)| SnapshotEntry {
            producer_id: ProducerId(longs[0]),
            producer_epoch,
            last_sequence: ints[0],
            last_offset: Offset(longs[1]),
            offset_delta: ints[1],
            timestamp: TimestampMs(longs[2]),
            coordinator_epoch: ints[2],
            transaction_start: Offset(longs[3]),
        })
    }

    #[test]
    fn the_layout_is_kafkas() {
        let one = SnapshotEntry {
            producer_id: ProducerId(1),
            producer_epoch: 2,
            last_sequence: 3,
            last_offset: Offset(4),
            offset_delta: 5,
            timestamp: TimestampMs(6),
            coordinator_epoch: 7,
            transaction_start: Offset(-1),
        };
        let bytes = encode(&[one]);
        assert_eq!(bytes.len(), 10 + 46);
        assert_eq!(bytes[..2], [0, 1]);
        assert_eq!(bytes[6..10], [0, 0, 0, 1]);
        let ends = [18, 20, 24, 32, 36, 44, 48];
        for (value, end) in (1..).zip(ends) {
            assert_eq!(bytes[end - 1], value, "field {value} ends at {end}");
        }
        assert_eq!(bytes[48..], [0xff; 8]);
        assert_eq!(parse(&encode(&[])), Ok(vec![]));
    }

    #[test]
    fn a_bad_file_is_refused() {
        let good = encode(&[]);
        assert_eq!(parse(&good[..9]), Err(SnapshotError::TooShort(9)));
        let mut version = good.clone();
        version[1] = 2;
        assert_eq!(parse(&version), Err(SnapshotError::Version(2)));
        // The number of entries says one more than there is, and the CRC covers that.
        let mut count = good;
        count[9] = 1;
        let crc = crc32c::crc32c(&count[6..]);
        count[2..6].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(parse(&count), Err(SnapshotError::Size { bytes: 10, entries: 1 }));
    }

    proptest! {
        #[test]
        fn entries_are_read_back(entries in prop::collection::vec(entry(), 0..10)) {
            prop_assert_eq!(parse(&encode(&entries)), Ok(entries));
        }

        #[test]
        fn one_flipped_bit_is_noticed(entries in prop::collection::vec(entry(), 1..4), at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = encode(&entries);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(parse(&bytes).is_err());
            prop_assert!(parse(&bytes[..at]).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }
}
