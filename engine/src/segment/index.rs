//! The indexes of a segment: sparse tables from offsets to positions in the log file and from timestamps to offsets, an
//! entry about every `index.interval.bytes`. Pure: it reads, writes and checks the bytes of the files, which somebody
//! else loads and saves.
//!
//! Kafka's formats, big-endian, offsets relative to the segment's base offset. Offset index: {offset i32, position i32};
//! the offset is the last of the batch that starts at the position, so the entry at or below a wanted offset is a safe
//! start. Time index: {timestamp i64, offset i32}; the timestamp is the largest so far and the offset the last of the
//! batch that brought it, so what is newer than a wanted timestamp lies behind the entry below it.

use thiserror::Error;

use crate::types::{Offset, TimestampMs};

/// The size of an entry of the offset index.
pub const OFFSET_ENTRY_BYTES: usize = 8;
/// The size of an entry of the time index.
pub const TIME_ENTRY_BYTES: usize = 12;

/// How far the last offset of a segment may lie from its base offset: indexes have 31 bits for it.
pub const OFFSETS_MAX: i64 = i32::MAX as i64;

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

/// An entry of an offset index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The offset of a batch's last record.
    pub last_offset: Offset,
    /// Where that batch starts in the log file.
    pub position: u64,
}

/// An entry of a time index: no record up to `offset` is newer than `timestamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    /// The largest timestamp so far.
    pub timestamp: TimestampMs,
    /// The last offset of the batch that has it.
    pub offset: Offset,
}

/// The entries of a whole offset index, of a segment with this base offset and a log file of `log_bytes` bytes. All entries
/// are checked, where Kafka looks at the last alone: offsets and positions rise, and lie within the log.
///
/// # Errors
/// [`IndexError`] for the first entry where that does not hold.
pub fn parse_offset_index(bytes: &[u8], base: Offset, log_bytes: u64) -> Result<Vec<IndexEntry>, IndexError> {
    let raw = entries::<OFFSET_ENTRY_BYTES>(bytes)?;
    let mut out = Vec::with_capacity(raw.len());
    let mut before = (-1, -1);
    for (at, &[a, b, c, d, position @ ..]) in raw.iter().enumerate() {
        let (offset, position) = (i32::from_be_bytes([a, b, c, d]), i32::from_be_bytes(position));
        if offset <= before.0 || position <= before.1 {
            return Err(IndexError::Order(at));
        }
        before = (offset, position);
        let entry = IndexEntry { last_offset: absolute(base, offset), position: u64::from(position.cast_unsigned()) };
        if entry.position >= log_bytes {
            return Err(IndexError::Beyond(at));
        }
        out.push(entry);
    }
    Ok(out)
}

/// The entries of a whole time index, of a segment with this base offset. All are checked: timestamps rise, offsets do not
/// fall.
///
/// # Errors
/// [`IndexError`] for the first entry where that does not hold.
pub fn parse_time_index(bytes: &[u8], base: Offset) -> Result<Vec<TimeEntry>, IndexError> {
    let raw = entries::<TIME_ENTRY_BYTES>(bytes)?;
    let mut out = Vec::with_capacity(raw.len());
    let mut before: Option<(i64, i32)> = None;
    for (at, &[a, b, c, d, e, f, g, h, offset @ ..]) in raw.iter().enumerate() {
        let (timestamp, offset) = (i64::from_be_bytes([a, b, c, d, e, f, g, h]), i32::from_be_bytes(offset));
        if offset < 0 || before.is_some_and(|before| timestamp <= before.0 || offset < before.1) {
            return Err(IndexError::Order(at));
        }
        before = Some((timestamp, offset));
        out.push(TimeEntry { timestamp: TimestampMs(timestamp), offset: absolute(base, offset) });
    }
    Ok(out)
}

fn entries<const N: usize>(bytes: &[u8]) -> Result<&[[u8; N]], IndexError> {
    match bytes.as_chunks() {
        (entries, []) => Ok(entries),
        _ => Err(IndexError::Size { bytes: bytes.len(), entry_bytes: N }),
    }
}

fn absolute(base: Offset, relative: i32) -> Offset {
    Offset(base.0.saturating_add(relative.into()))
}

/// Appends an entry to the bytes of an offset index.
///
/// # Panics
/// When offset or position do not fit: a segment is rolled before that.
pub fn push_offset_entry(out: &mut Vec<u8>, base: Offset, last_offset: Offset, position: u64) {
    assert!(i32::try_from(position).is_ok(), "a segment is smaller than 2 GiB");
    out.extend_from_slice(&relative(base, last_offset).to_be_bytes());
    out.extend_from_slice(&(position as i32).to_be_bytes());
}

/// Appends an entry to the bytes of a time index.
///
/// # Panics
/// When the offset does not fit: a segment is rolled before that.
pub fn push_time_entry(out: &mut Vec<u8>, base: Offset, timestamp: TimestampMs, offset: Offset) {
    out.extend_from_slice(&timestamp.0.to_be_bytes());
    out.extend_from_slice(&relative(base, offset).to_be_bytes());
}

fn relative(base: Offset, offset: Offset) -> i32 {
    let relative = offset.0 - base.0;
    assert!((0..=i64::from(i32::MAX)).contains(&relative), "a segment's offsets lie within 2^31 of its base");
    relative as i32
}

/// The last entry at or below `offset`: where to start looking for it. `None` is the start of the segment.
#[must_use]
pub fn floor_offset(entries: &[IndexEntry], offset: Offset) -> Option<IndexEntry> {
    let after = entries.partition_point(|entry| entry.last_offset <= offset);
    entries.get(after.checked_sub(1)?).copied()
}

/// The last entry below `timestamp`: the first record at or after that time lies behind the entry's offset. `None` is
/// the start of the segment.
#[must_use]
pub fn floor_time(entries: &[TimeEntry], timestamp: TimestampMs) -> Option<TimeEntry> {
    let after = entries.partition_point(|entry| entry.timestamp < timestamp);
    entries.get(after.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: Offset = Offset(1_000_000_000_000);

    fn offsets(entries: &[(i64, u64)]) -> Vec<u8> {
        let mut out = vec![];
        for &(offset, position) in entries {
            push_offset_entry(&mut out, BASE, BASE.plus(offset), position);
        }
        out
    }

    fn times(entries: &[(i64, i64)]) -> Vec<u8> {
        let mut out = vec![];
        for &(timestamp, offset) in entries {
            push_time_entry(&mut out, BASE, TimestampMs(timestamp), BASE.plus(offset));
        }
        out
    }

    #[test]
    fn entries_have_kafkas_bytes() {
        assert_eq!(offsets(&[(1, 4096)]), [0, 0, 0, 1, 0, 0, 16, 0]);
        assert_eq!(times(&[(258, 3)]), [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3]);
        let size = |bytes, entry_bytes| Some(IndexError::Size { bytes, entry_bytes });
        assert_eq!(parse_offset_index(&[0; 9], BASE, 10).err(), size(9, 8));
        assert_eq!(parse_time_index(&[0; 13], BASE).err(), size(13, 12));
    }

    #[test]
    fn a_bad_offset_index_is_noticed() {
        let check = |entries: &[(i64, u64)]| parse_offset_index(&offsets(entries), BASE, 10_000).map(|read| read.len());
        assert_eq!(check(&[]), Ok(0));
        assert_eq!(check(&[(0, 0), (5, 9_999)]), Ok(2));
        assert_eq!(check(&[(5, 10), (5, 20)]), Err(IndexError::Order(1)));
        assert_eq!(check(&[(5, 10), (6, 10)]), Err(IndexError::Order(1)));
        assert_eq!(check(&[(1, 10_000)]), Err(IndexError::Beyond(0)));
        // What an index that was preallocated and not cut looks like after a crash.
        assert_eq!(check(&[(5, 10), (0, 0), (0, 0)]), Err(IndexError::Order(1)));
        assert_eq!(parse_offset_index(&[0xff; 8], BASE, 10), Err(IndexError::Order(0)));
    }

    #[test]
    fn a_bad_time_index_is_noticed() {
        let check = |entries: &[(i64, i64)]| parse_time_index(&times(entries), BASE).map(|read| read.len());
        assert_eq!(check(&[]), Ok(0));
        assert_eq!(check(&[(-1, 0), (7, 0), (8, 100)]), Ok(3));
        assert_eq!(check(&[(7, 1), (7, 2)]), Err(IndexError::Order(1)));
        assert_eq!(check(&[(7, 2), (8, 1)]), Err(IndexError::Order(1)));
        assert_eq!(check(&[(7, 1), (0, 0)]), Err(IndexError::Order(1)));
        assert_eq!(parse_time_index(&[0xff; 12], BASE), Err(IndexError::Order(0)));
    }

    #[test]
    fn an_entry_is_found_by_its_own_offset_but_not_by_its_own_timestamp() {
        let read = parse_offset_index(&offsets(&[(5, 10), (9, 20)]), BASE, 100).unwrap();
        assert_eq!(floor_offset(&read, BASE.plus(9)), Some(read[1]));
        assert_eq!(floor_offset(&read, BASE.plus(8)), Some(read[0]));
        assert_eq!(floor_offset(&read, BASE.plus(4)), None);
        // The record that has the timestamp may come before the entry's offset, in the same batch.
        let read = parse_time_index(&times(&[(5, 10), (9, 20)]), BASE).unwrap();
        assert_eq!(floor_time(&read, TimestampMs(9)), Some(read[0]));
        assert_eq!(floor_time(&read, TimestampMs(10)), Some(read[1]));
        assert_eq!(floor_time(&read, TimestampMs(5)), None);
    }

    proptest! {
        #[test]
        fn an_offset_is_found_where_a_walk_finds_it(
            steps in prop::collection::vec((1i64..50, 1u64..5000), 0..60), wanted in -10i64..3200,
        ) {
            let mut entries = vec![];
            let mut last = (0, 0);
            for (offset, position) in steps {
                last = (last.0 + offset, last.1 + position);
                entries.push(last);
            }
            let read = parse_offset_index(&offsets(&entries), BASE, u64::MAX).unwrap();
            let relative: Vec<_> = read.iter().map(|entry| (entry.last_offset.0 - BASE.0, entry.position)).collect();
            prop_assert_eq!(&relative, &entries);
            let found = floor_offset(&read, BASE.plus(wanted)).map(|entry| entry.position);
            prop_assert_eq!(found, entries.iter().rev().find(|entry| entry.0 <= wanted).map(|entry| entry.1));
        }

        #[test]
        fn a_timestamp_is_found_where_a_walk_finds_it(
            start in -100i64..100, steps in prop::collection::vec((1i64..50, 0i64..50), 0..60), wanted in -200i64..3500,
        ) {
            let mut entries = vec![];
            let mut last = (start, 0);
            for (time, offset) in steps {
                last = (last.0 + time, last.1 + offset);
                entries.push(last);
            }
            let read = parse_time_index(&times(&entries), BASE).unwrap();
            let relative: Vec<_> = read.iter().map(|entry| (entry.timestamp.0, entry.offset.0 - BASE.0)).collect();
            prop_assert_eq!(&relative, &entries);
            let found = floor_time(&read, TimestampMs(wanted)).map(|entry| entry.timestamp.0);
            prop_assert_eq!(found, entries.iter().rev().find(|entry| entry.0 < wanted).map(|entry| entry.0));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100), base in 0..=i64::MAX) {
            let _ = parse_offset_index(&bytes, Offset(base), 1 << 20);
            let _ = parse_time_index(&bytes, Offset(base));
        }
    }
}
