//! The offset index of a segment: a sparse table from offsets to positions in the log file, an entry about every
//! `index.interval.bytes`. Pure: it reads, writes and checks the bytes of the file, which somebody else loads.
//!
//! Kafka's format: 8 bytes an entry, {offset relative to the base offset i32, position i32}, big-endian, both rising. The
//! offset is the last of the batch that starts at the position, so the entry at or below a wanted offset is a safe start.

use thiserror::Error;

/// The size of an entry.
pub const ENTRY_BYTES: usize = 8;

/// What is wrong with an index file; it is made anew from the log then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IndexError {
    /// Not a whole number of entries.
    #[error("index of {bytes} bytes is not a multiple of {entry_bytes}")]
    Size {
        /// The file's size.
        bytes: usize,
        /// An entry's.
        entry_bytes: usize,
    },
    /// An entry that is not above the one before it, or negative.
    #[error("entry {0} of the index is out of order")]
    Order(usize),
    /// An entry that points beyond the log.
    #[error("entry {0} of the index points beyond the log")]
    Beyond(usize),
}

/// An entry of the offset index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffsetEntry {
    /// The last offset of a batch, less the segment's base offset.
    pub relative_offset: i32,
    /// Where that batch starts in the log file.
    pub position: i32,
}

impl OffsetEntry {
    /// Its bytes.
    #[must_use]
    pub fn encode(self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[..4].copy_from_slice(&self.relative_offset.to_be_bytes());
        out[4..].copy_from_slice(&self.position.to_be_bytes());
        out
    }

    /// The entry with these bytes.
    #[must_use]
    pub fn decode(bytes: [u8; ENTRY_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self { relative_offset: i32::from_be_bytes([a, b, c, d]), position: i32::from_be_bytes([e, f, g, h]) }
    }
}

/// The bytes of a whole offset index.
#[derive(Clone, Copy, Debug)]
pub struct OffsetIndex<'a> {
    entries: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> OffsetIndex<'a> {
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

    /// Checks that every entry is above the one before it and within a log file of `log_bytes` bytes. It reads all of
    /// them, where Kafka looks at the last alone.
    ///
    /// # Errors
    /// [`IndexError`] for the first entry that is not.
    pub fn check(&self, log_bytes: u64) -> Result<(), IndexError> {
        let mut before = OffsetEntry { relative_offset: -1, position: -1 };
        for (at, entry) in self.iter().enumerate() {
            if entry.relative_offset <= before.relative_offset || entry.position <= before.position {
                return Err(IndexError::Order(at));
            }
            if u64::from(entry.position.cast_unsigned()) >= log_bytes {
                return Err(IndexError::Beyond(at));
            }
            before = entry;
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
    pub fn get(&self, at: usize) -> Option<OffsetEntry> {
        self.entries.get(at).copied().map(OffsetEntry::decode)
    }

    /// The entries.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = OffsetEntry> + 'a {
        self.entries.iter().copied().map(OffsetEntry::decode)
    }

    /// The last entry at or below this offset (less the base offset): where to start looking for it. `None` is the start of
    /// the log.
    #[must_use]
    pub fn lookup(&self, relative_offset: i32) -> Option<OffsetEntry> {
        let after = self.entries.partition_point(|entry| OffsetEntry::decode(*entry).relative_offset <= relative_offset);
        self.get(after.checked_sub(1)?)
    }
}

/// The number of the last of `count` rising items that is not `above` what is wanted: the same search for an index that is
/// not bytes, such as an active segment's.
#[must_use]
pub fn floor(count: usize, above: impl Fn(usize) -> bool) -> Option<usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if above(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(entries: &[(i32, i32)]) -> Vec<u8> {
        let entry = |&(relative_offset, position)| OffsetEntry { relative_offset, position }.encode();
        entries.iter().flat_map(entry).collect()
    }

    #[test]
    fn an_entry_has_kafkas_bytes() {
        let bytes = bytes_of(&[(1, 4096)]);
        assert_eq!(bytes, [0, 0, 0, 1, 0, 0, 16, 0]);
        assert_eq!(OffsetIndex::new(&bytes[..7]).unwrap_err(), IndexError::Size { bytes: 7, entry_bytes: 8 });
    }

    #[test]
    fn a_bad_index_is_noticed() {
        let check = |entries: &[(i32, i32)]| OffsetIndex::new(&bytes_of(entries)).unwrap().check(10_000);
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[(0, 0), (5, 9_999)]), Ok(()));
        assert_eq!(check(&[(5, 10), (5, 20)]), Err(IndexError::Order(1)));
        assert_eq!(check(&[(5, 10), (6, 10)]), Err(IndexError::Order(1)));
        assert_eq!(check(&[(-1, 10)]), Err(IndexError::Order(0)));
        assert_eq!(check(&[(1, 10_000)]), Err(IndexError::Beyond(0)));
        // What an index that was preallocated and not cut looks like after a crash.
        assert_eq!(check(&[(5, 10), (0, 0), (0, 0)]), Err(IndexError::Order(1)));
    }

    proptest! {
        #[test]
        fn a_lookup_finds_what_a_walk_finds(
            steps in prop::collection::vec((1i32..50, 1i32..5000), 0..60), wanted in -10i32..3200,
        ) {
            let mut entries = vec![];
            let mut last = (0, 0);
            for (offset, position) in steps {
                last = (last.0 + offset, last.1 + position);
                entries.push(last);
            }
            let bytes = bytes_of(&entries);
            let index = OffsetIndex::new(&bytes).unwrap();
            prop_assert_eq!(index.check(u64::MAX), Ok(()));
            let walked = entries.iter().rev().find(|entry| entry.0 <= wanted).copied();
            let found = index.lookup(wanted);
            prop_assert_eq!(found.map(|entry| (entry.relative_offset, entry.position)), walked);
            let same = floor(entries.len(), |at| entries[at].0 > wanted);
            prop_assert_eq!(same.map(|at| entries[at]), walked);
            let read: Vec<_> = index.iter().map(|entry| (entry.relative_offset, entry.position)).collect();
            prop_assert_eq!(read, entries);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100), wanted: i32) {
            if let Ok(index) = OffsetIndex::new(&bytes) {
                let _ = index.check(1 << 20);
                let _ = index.lookup(wanted);
            }
        }
    }
}
