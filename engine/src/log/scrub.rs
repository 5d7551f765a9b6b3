//! Whether a segment's file is what was written, judged from its bytes as they come, in pieces of any size: each batch's header, its
//! CRC and the order of offsets, and both indexes against the batches. Pure; it holds no more than a header and the indexes.
//! [`crate::core::scrubber`] reads the files and says what was found. It never says that something sound is damaged, and of what is
//! damaged in a sealed segment it says at least the first place; it goes on behind that as well as it can.

use std::sync::Arc;

use crate::batch::{self, BatchHeader, RunningCrc};
use crate::log::published::Segment;
use crate::log::{Log, SegmentState};
use crate::segment::index::{self, IndexEntry, OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES, TimeEntry};
use crate::segment::names::FileKind;
use crate::types::{Offset, TimestampMs};

/// So many damaged places are told of a segment; what lies behind the last of them is not looked at.
const PLACES_MAX: usize = 16;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// In which of the segment's files.
    pub(crate) file: FileKind,
    /// Where in it.
    pub(crate) position: u64,
    /// Everything below this offset comes before it.
    pub(crate) offset: Offset,
    /// What is wrong.
    pub(crate) reason: String,
}

/// How much of a segment can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// So many bytes of its file are synced, and nobody writes them any more.
    pub(crate) bytes: u64,
    /// Whether nothing follows them, and the index files are whole.
    pub(crate) is_sealed: bool,
}

impl Log {
    /// How much of a segment can be checked; `None` where the log does not have it any more.
    pub(crate) fn scrub_extent(&self, segment: &Arc<Segment>) -> Option<Extent> {
        let state = self.segments.iter().find(|state| Arc::ptr_eq(&state.shared, segment))?;
        let SegmentState { stream, bytes, ref live, .. } = *state;
        Some(match live {
            None => Extent { bytes, is_sealed: true },
            // The rest is not on the device, or will be written again if its sync fails.
            Some(_) => Extent { bytes: self.settled.saturating_sub(stream).min(bytes), is_sealed: false },
        })
    }
}

/// Where the batch that comes next was looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Behind a sound one, or at the segment's beginning.
    Behind,
    /// Where a batch ends whose CRC is wrong: its length may be, too. The batch's position.
    ByLength(u64),
    /// Where the index says, which may be wrong.
    ByIndex,
}

/// A batch that is being read.
struct Current {
    start: u64,
    end: u64,
    header: BatchHeader,
    crc: RunningCrc,
}

/// See the module.
pub(crate) struct Checker {
    base: Offset,
    end_offset: Offset,
    extent: Extent,
    /// The next byte that is wanted.
    position: u64,
    is_done: bool,
    /// No sound batch that comes may begin below.
    due: Offset,
    next: Found,
    /// The front of a header.
    partial: Vec<u8>,
    current: Option<Current>,
    offsets: Vec<IndexEntry>,
    /// How many of them were held against batches.
    offsets_passed: usize,
    is_offsets_bad: bool,
    times: Vec<TimeEntry>,
    times_passed: usize,
    is_times_bad: bool,
    /// The largest timestamp of a sound batch so far.
    newest: TimestampMs,
    damage: Vec<Damage>,
    places: usize,
}

impl Checker {
    pub(crate) fn new(segment: &Segment, extent: Extent) -> Self {
        let reach = Offset(segment.base_offset.0.saturating_add(index::OFFSETS_MAX).saturating_add(1));
        Self {
            base: segment.base_offset,
            end_offset: if extent.is_sealed { segment.end_offset().min(reach) } else { reach },
            extent,
            position: 0,
            is_done: extent.bytes == 0,
            due: segment.base_offset,
            next: Found::Behind,
            partial: Vec::new(),
            current: None,
            offsets: Vec::new(),
            offsets_passed: 0,
            is_offsets_bad: false,
            times: Vec::new(),
            times_passed: 0,
            is_times_bad: false,
            newest: TimestampMs::NONE,
            damage: Vec::new(),
            places: 0,
        }
    }

    /// The next byte of the log file that is wanted; it may lie before the last ones.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    /// What was found since this was asked last.
    pub(crate) fn take_damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damage)
    }

    /// Takes the whole offset index, before the log's first byte.
    pub(crate) fn set_offset_index(&mut self, bytes: &[u8]) {
        match index::parse_offset_index(without_room(bytes, OFFSET_ENTRY_BYTES), self.base, self.extent.bytes) {
            Ok(entries) => self.offsets = entries,
            Err(error) => self.tell(FileKind::OffsetIndex, 0, self.base, error.to_string()),
        }
    }

    /// Takes the whole time index, before the log's first byte.
    pub(crate) fn set_time_index(&mut self, bytes: &[u8]) {
        match index::parse_time_index(without_room(bytes, TIME_ENTRY_BYTES), self.base) {
            Ok(entries) => self.times = entries,
            Err(error) => self.tell(FileKind::TimeIndex, 0, self.base, error.to_string()),
        }
    }

    /// Takes the bytes at [`Checker::position`].
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let left = usize::try_from(self.extent.bytes - self.position).unwrap_or(usize::MAX);
        let mut rest = &bytes[..bytes.len().min(left)];
        while !rest.is_empty() && !self.is_done {
            let before = self.position;
            let goes_on = match self.current.take() {
                None => self.feed_header(&mut rest),
                Some(current) => self.feed_batch(current, &mut rest),
            };
            if !goes_on {
                return;
            }
            debug_assert!(self.position > before, "bytes were taken");
        }
        if self.position >= self.extent.bytes {
            self.end();
        }
    }

    /// Nothing can be read from [`Checker::position`] up to `upto`.
    pub(crate) fn skip(&mut self, upto: u64) {
        self.count_place();
        self.look_behind(upto.saturating_sub(1));
    }

    /// The file ends at or before [`Checker::position`], which it should not.
    pub(crate) fn file_ends(&mut self) {
        let (position, bytes) = (self.position, self.extent.bytes);
        self.tell(FileKind::Log, position, self.due, format!("nothing is here where the file has to have {bytes} bytes"));
        self.is_done = true;
    }

    /// Returns whether the bytes that follow are wanted.
    fn feed_header(&mut self, rest: &mut &[u8]) -> bool {
        let taken = (batch::HEADER_BYTES - self.partial.len()).min(rest.len());
        let (bytes, behind) = rest.split_at(taken);
        self.partial.extend_from_slice(bytes);
        self.position += taken as u64;
        *rest = behind;
        if self.partial.len() < batch::HEADER_BYTES {
            return true;
        }
        let start = self.position - batch::HEADER_BYTES as u64;
        let left = self.extent.bytes - start;
        let header = match BatchHeader::parse(&self.partial) {
            Ok(header) if header.size_bytes() as u64 <= left => header,
            // It is not all there yet.
            Ok(_) if !self.extent.is_sealed && self.next == Found::Behind => {
                self.is_done = true;
                return false;
            }
            Ok(header) => return self.no_batch(start, format!("a batch of {} bytes where {left} are left", header.size_bytes())),
            Err(error) => return self.no_batch(start, error.to_string()),
        };
        let mut crc = RunningCrc::default();
        crc.add(&self.partial);
        self.partial.clear();
        let end = start + header.size_bytes() as u64;
        self.feed_batch(Current { start, end, header, crc }, rest)
    }

    fn feed_batch(&mut self, mut current: Current, rest: &mut &[u8]) -> bool {
        let wanted = usize::try_from(current.end - self.position).unwrap_or(usize::MAX);
        let (bytes, behind) = rest.split_at(wanted.min(rest.len()));
        current.crc.add(bytes);
        self.position += bytes.len() as u64;
        *rest = behind;
        if self.position < current.end {
            self.current = Some(current);
            return true;
        }
        self.judge(&current)
    }

    /// A batch has come to its end.
    fn judge(&mut self, current: &Current) -> bool {
        let header = &current.header;
        if let Err(error) = current.crc.check(header) {
            if self.next == Found::ByIndex {
                return self.look_behind(current.start);
            }
            self.tell(FileKind::Log, current.start, self.due, error.to_string());
            self.next = Found::ByLength(current.start);
            return !self.is_done;
        }
        self.next = Found::Behind;
        let (first, last, due, end) = (header.base_offset, header.last_offset(), self.due, self.end_offset);
        let is_within = header.next_offset() <= end;
        if first >= due && is_within {
            self.check_offset_index(current);
            self.check_times(last);
            self.newest = self.newest.max(header.max_timestamp);
        } else {
            // No CRC covers a batch's base offset. Whether it is this one's that is wrong or the last one's, it is told once.
            let reason = format!("offsets {first} to {last} where they lie from {due} to below {end}");
            self.tell(FileKind::Log, current.start, due, reason);
        }
        if is_within {
            self.due = header.next_offset();
        }
        !self.is_done
    }

    /// What stands at `start` cannot be a batch.
    fn no_batch(&mut self, start: u64, reason: String) -> bool {
        match self.next {
            Found::Behind => {
                self.tell(FileKind::Log, start, self.due, reason);
                self.look_behind(start)
            }
            // The damaged one's length was wrong.
            Found::ByLength(damaged) => self.look_behind(damaged),
            Found::ByIndex => self.look_behind(start),
        }
    }

    /// Goes on with the next batch behind `position` that the index knows. Never goes on with what follows, so that it returns false.
    fn look_behind(&mut self, position: u64) -> bool {
        self.partial.clear();
        self.current = None;
        self.next = Found::ByIndex;
        let at = self.offsets.partition_point(|entry| entry.position <= position);
        match self.offsets.get(at) {
            Some(entry) => self.position = entry.position,
            None => self.is_done = true,
        }
        false
    }

    fn end(&mut self) {
        if !self.partial.is_empty() && self.extent.is_sealed {
            let start = self.position - self.partial.len() as u64;
            self.no_batch(start, format!("{} bytes are less than a batch's header", self.partial.len()));
            return;
        }
        // A length that is wrong leads to the end, too.
        if let Found::ByLength(damaged) = self.next
            && self.offsets.last().is_some_and(|last| last.position > damaged)
        {
            self.look_behind(damaged);
            return;
        }
        self.is_done = true;
        self.check_times(Offset(i64::MAX));
    }

    fn tell(&mut self, file: FileKind, position: u64, offset: Offset, reason: String) {
        self.damage.push(Damage { file, position, offset, reason });
        self.count_place();
    }

    fn count_place(&mut self) {
        self.places += 1;
        self.is_done |= self.places >= PLACES_MAX;
    }

    /// Entries that point into a sound batch, but not to its beginning, are wrong. Of what lies before it, and was passed over,
    /// nothing is known.
    fn check_offset_index(&mut self, batch: &Current) {
        while let Some(entry) = self.offsets.get(self.offsets_passed).filter(|entry| entry.position < batch.end) {
            let first = batch.header.base_offset;
            let reason = if entry.position > batch.start {
                Some(format!("entry {} points to position {}, where no batch begins", self.offsets_passed, entry.position))
            } else if entry.position == batch.start && first > entry.last_offset {
                let (at, said) = (self.offsets_passed, entry.last_offset);
                Some(format!("entry {at} says offset {said} for the batch that begins at {first}"))
            } else {
                None
            };
            let at = (self.offsets_passed * OFFSET_ENTRY_BYTES) as u64;
            self.offsets_passed += 1;
            if let Some(reason) = reason
                && !std::mem::replace(&mut self.is_offsets_bad, true)
            {
                self.tell(FileKind::OffsetIndex, at, first, reason);
            }
        }
    }

    /// Each entry says that nothing up to its offset is newer. Those below `offset` are held against the batches so far.
    fn check_times(&mut self, offset: Offset) {
        while let Some(entry) = self.times.get(self.times_passed).filter(|entry| entry.offset < offset) {
            let (said, upto, newest) = (entry.timestamp, entry.offset, self.newest);
            let at = self.times_passed;
            self.times_passed += 1;
            if newest > said && !std::mem::replace(&mut self.is_times_bad, true) {
                let reason = format!("entry {at} says that nothing up to offset {upto} is newer than {said}, and {newest} is");
                self.tell(FileKind::TimeIndex, (at * TIME_ENTRY_BYTES) as u64, upto, reason);
            }
        }
    }
}

/// Kafka keeps room for entries, as zeros, at the end of the index files of a segment that was not closed.
fn without_room(bytes: &[u8], entry_bytes: usize) -> &[u8] {
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| (at + 1).next_multiple_of(entry_bytes));
    &bytes[..used.min(bytes.len())]
}

#[cfg(test)]
mod tests;
