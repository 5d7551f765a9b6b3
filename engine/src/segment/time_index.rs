//! The time index of a segment: a sparse table from timestamps to offsets. Pure: it reads, writes and checks the bytes of
//! the file, which somebody else loads.
//!
//! Kafka's format: 12 bytes an entry, {timestamp i64, offset relative to the base offset i32}, big-endian. The timestamp is
//! the largest so far and the offset that of the batch which brought it (its last offset), so timestamps rise and records
//! at or after a wanted timestamp lie behind the entry below it.

use super::index::IndexError;
use crate::types::TimestampMs;

/// The size of an entry.
pub const ENTRY_BYTES: usize = 12;

/// An entry of the time index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    /// The largest timestamp up to the offset.
    pub timestamp: TimestampMs,
    /// An offset, less the segment's base offset.
    pub relative_offset: i32,
}

impl TimeEntry {
    /// Its bytes.
    #[must_use]
    pub fn encode(self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[..8].copy_from_slice(&self.timestamp.0.to_be_bytes());
        out[8..].copy_from_slice(&self.relative_offset.to_be_bytes());
        out
    }

    /// The entry with these bytes.
    #[must_use]
    pub fn decode(bytes: [u8; ENTRY_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, offset @ ..] = bytes;
        Self { timestamp: TimestampMs(i64::from_be_bytes([a, b, c, d, e, f, g, h])), relative_offset: i32::from_be_bytes(offset) }
    }
}

/// The bytes of a whole time index.
#[derive(Clone, Copy, Debug)]
pub struct TimeIndex<'a> {
    entries: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> TimeIndex<'a> {
    /// The index with these bytes.
    ///
    /// # Errors
    /// [`IndexError::Size`] where they are not a whole number of entries.
    pub fn new(bytes: &'a [u8]) -> Result<Self, IndexError> {
        match bytes.as_chunks() {
            (entries, []) => Ok(Self { entries }),
            _ => Err(IndexError::Size { bytes: bytes.len(), entry_bytes: ENTRY_BYTES }),
        }
    }

    /// Checks that timestamps rise, offsets do not fall, and none is beyond the segment's last offset (less the base
    /// offset; -1 for an empty segment).
    ///
    /// # Errors
    /// [`IndexError`] for the first entry that is not so.
    pub fn check(&self, relative_offset_last: i64) -> Result<(), IndexError> {
        let mut before: Option<TimeEntry> = None;
        for (at, entry) in self.iter().enumerate() {
            let rises =
                before.is_none_or(|before| entry.timestamp > before.timestamp && entry.relative_offset >= before.relative_offset);
            if !rises || entry.relative_offset < 0 {
                return Err(IndexError::Order(at));
            }
            if i64::from(entry.relative_offset) > relative_offset_last {
                return Err(IndexError::Beyond(at));
            }
            before = Some(entry);
        }
        Ok(())
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry with this number.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<TimeEntry> {
        self.entries.get(at).copied().map(TimeEntry::decode)
    }

    /// The last entry: the segment's largest timestamp, where the index was completed when the segment was rolled.
    #[must_use]
    pub fn last(&self) -> Option<TimeEntry> {
        self.entries.last().copied().map(TimeEntry::decode)
    }

    /// The entries.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TimeEntry> + 'a {
        self.entries.iter().copied().map(TimeEntry::decode)
    }

    /// The last entry at or below this timestamp: a record at or after it is at or behind that entry's offset. `None` is
    /// the start of the segment.
    #[must_use]
    pub fn lookup(&self, timestamp: TimestampMs) -> Option<TimeEntry> {
        let after = self.entries.partition_point(|entry| TimeEntry::decode(*entry).timestamp <= timestamp);
        self.get(after.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(entries: &[(i64, i32)]) -> Vec<u8> {
        let entry = |&(timestamp, relative_offset)| TimeEntry { timestamp: TimestampMs(timestamp), relative_offset }.encode();
        entries.iter().flat_map(entry).collect()
    }

    #[test]
    fn an_entry_has_kafkas_bytes() {
        assert_eq!(bytes_of(&[(258, 3)]), [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3]);
        assert_eq!(TimeIndex::new(&[0; 13]).unwrap_err(), IndexError::Size { bytes: 13, entry_bytes: 12 });
    }

    #[test]
    fn a_bad_index_is_noticed() {
        let check = |entries: &[(i64, i32)]| TimeIndex::new(&bytes_of(entries)).unwrap().check(100);
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[(-1, 0), (7, 0), (8, 100)]), Ok(()));
        assert_eq!(check(&[(7, 1), (7, 2)]), Err(IndexError::Order(1)));
        assert_eq!(check(&[(7, 2), (8, 1)]), Err(IndexError::Order(1)));
        assert_eq!(check(&[(7, -1)]), Err(IndexError::Order(0)));
        assert_eq!(check(&[(7, 101)]), Err(IndexError::Beyond(0)));
        assert_eq!(check(&[(7, 1), (0, 0)]), Err(IndexError::Order(1)));
    }

    proptest! {
        #[test]
        fn a_lookup_finds_what_a_walk_finds(
            start in -100i64..100, steps in prop::collection::vec((1i64..50, 0i32..50), 0..60), wanted in -200i64..3500,
        ) {
            let mut entries = vec![];
            let mut last = (start, 0);
            for (time, offset) in steps {
                last = (last.0 + time, last.1 + offset);
                entries.push(last);
            }
            let bytes = bytes_of(&entries);
            let index = TimeIndex::new(&bytes).unwrap();
            prop_assert_eq!(index.check(i64::MAX), Ok(()));
            let found = index.lookup(TimestampMs(wanted)).map(|entry| (entry.timestamp.0, entry.relative_offset));
            prop_assert_eq!(found, entries.iter().rev().find(|entry| entry.0 <= wanted).copied());
            prop_assert_eq!(index.last().map(|entry| entry.timestamp.0), entries.last().map(|entry| entry.0));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100), wanted: i64) {
            if let Ok(index) = TimeIndex::new(&bytes) {
                let _ = index.check(1 << 20);
                let _ = index.lookup(TimestampMs(wanted));
            }
        }
    }
}
