//! One segment's batches in their order, and what is found where none should be. It judges header, CRC and order of offsets,
//! and goes on behind damage.

use std::fs::File;
use std::io;
use std::ops::Range;

use ringlog_engine::batch::{BatchError, BatchHeader, BatchView, HEADER_BYTES};
use ringlog_engine::segment::index::OFFSETS_MAX;
use ringlog_engine::types::Offset;

use super::directory::Segment;
use super::disk::read_full;
use super::overlay::Overlay;

/// How much is read at once; more where a batch is longer.
const WINDOW_BYTES: usize = 1 << 20;
/// Where a batch's format version stands.
const MAGIC_AT: usize = 16;
const MAGIC: u8 = 2;

/// Something in a segment.
pub(super) enum Item<'a> {
    /// A batch with a sound header.
    Batch {
        position: u64,
        batch: BatchView<'a>,
        /// Its CRC does not fit, or its offset does not follow.
        problem: Option<String>,
        /// Whether any of its bytes come from a journal.
        from_journal: bool,
    },
    /// Bytes that are no batch, up to the next sound one.
    Damage { position: u64, bytes: u64, reason: String },
    /// Zeros to the end of the file.
    Padding { position: u64, bytes: u64 },
}

/// Reads a segment from its beginning.
pub(super) struct Reader<'a> {
    file: Option<File>,
    overlay: &'a Overlay,
    len: u64,
    position: u64,
    next_offset: Offset,
    offset_max: Offset,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn open(segment: &'a Segment, base: Offset) -> io::Result<Self> {
        let file = match File::open(&segment.path) {
            Ok(file) => Some(file),
            // All of it may still be in a journal.
            Err(error) if error.kind() == io::ErrorKind::NotFound && segment.overlay.end() > 0 => None,
            Err(error) => return Err(error),
        };
        let file_bytes = file.as_ref().map_or(Ok(0), |file| file.metadata().map(|metadata| metadata.len()))?;
        let len = file_bytes.max(segment.overlay.end());
        let overlay = &segment.overlay;
        let offset_max = Offset(base.0.saturating_add(OFFSETS_MAX));
        Ok(Self { file, overlay, len, position: 0, next_offset: base, offset_max, window: Vec::new(), window_start: 0 })
    }

    /// The segment's length, what a journal adds included.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The next item; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Item<'_>>> {
        let position = self.position;
        if position >= self.len {
            return Ok(None);
        }
        let header = match self.whole_batch(position)? {
            Ok(header) => header,
            Err(reason) => return self.no_batch(position, reason).map(Some),
        };
        let range = position..position + header.size_bytes() as u64;
        let (due, offset_max) = (self.next_offset, self.offset_max);
        self.position = range.end;
        // One that is far off says nothing of what is due.
        self.next_offset = if header.last_offset() > offset_max { due } else { due.max(header.next_offset()) };
        let from_journal = self.overlay.touches(range.clone());
        let batch = self.view(range)?;
        let problem = match batch.check_crc() {
            Err(error) => Some(error.to_string()),
            Ok(()) if header.base_offset < due => Some(format!("base offset {} where at least {due} is due", header.base_offset)),
            Ok(()) if header.last_offset() > offset_max => {
                Some(format!("offset {} where a segment reaches to {offset_max} at most", header.last_offset()))
            }
            Ok(()) => None,
        };
        Ok(Some(Item::Batch { position, batch, problem, from_journal }))
    }

    /// The header at `position`, if it says what a header may and its batch ends within the segment.
    pub(super) fn whole_batch(&mut self, position: u64) -> io::Result<Result<BatchHeader, String>> {
        Ok(match self.header(position)? {
            Ok(header) if header.size_bytes() as u64 <= self.len - position => Ok(header),
            Ok(header) => Err(format!("a batch of {} bytes where {} are left", header.size_bytes(), self.len - position)),
            Err(error) => Err(error.to_string()),
        })
    }

    /// A batch whose header was found sound.
    pub(super) fn view(&mut self, range: Range<u64>) -> io::Result<BatchView<'_>> {
        BatchView::new(self.bytes(range)?).map_err(io::Error::other)
    }

    fn header(&mut self, position: u64) -> io::Result<Result<BatchHeader, BatchError>> {
        let len = (self.len - position).min(HEADER_BYTES as u64);
        Ok(BatchHeader::parse(self.bytes(position..position + len)?))
    }

    /// Moves behind what is no batch.
    fn no_batch(&mut self, position: u64, reason: String) -> io::Result<Item<'static>> {
        let found = self.next_sound(position, self.next_offset)?;
        self.position = found.unwrap_or(self.len);
        let bytes = self.position - position;
        if found.is_none() && self.is_zero(position..self.len)? {
            return Ok(Item::Padding { position, bytes });
        }
        Ok(Item::Damage { position, bytes, reason })
    }

    /// Where the next batch stands whose header and CRC are sound and whose base offset is at least `least`.
    pub(super) fn next_sound(&mut self, after: u64, least: Offset) -> io::Result<Option<u64>> {
        let mut at = after + 1;
        while at + HEADER_BYTES as u64 <= self.len {
            // Most bytes are told from a batch by one of them.
            let piece_end = self.len.min(at + WINDOW_BYTES as u64);
            let piece = self.bytes(at..piece_end)?;
            let starts = piece.len() - (HEADER_BYTES - 1);
            let candidate =
                (0..starts).find(|&start| piece[start + MAGIC_AT] == MAGIC && BatchHeader::parse(&piece[start..]).is_ok());
            let Some(start) = candidate else {
                at += starts as u64;
                continue;
            };
            at += start as u64;
            if let Ok(header) = self.header(at)?
                && header.base_offset >= least
                && header.size_bytes() as u64 <= self.len - at
            {
                let bytes = self.bytes(at..at + header.size_bytes() as u64)?;
                if BatchView::new(bytes).is_ok_and(|batch| batch.check_crc().is_ok()) {
                    return Ok(Some(at));
                }
            }
            at += 1;
        }
        Ok(None)
    }

    /// Whether a part of the segment has nothing but zeros.
    pub(super) fn is_zero(&mut self, range: Range<u64>) -> io::Result<bool> {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + WINDOW_BYTES as u64);
            if self.bytes(at..end)?.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            at = end;
        }
        Ok(true)
    }

    /// Bytes of the segment; the caller knows that they are there.
    pub(super) fn bytes(&mut self, range: Range<u64>) -> io::Result<&[u8]> {
        let len = (range.end - range.start) as usize;
        if range.start < self.window_start || range.end > self.window_start + self.window.len() as u64 {
            let wanted = len.max(WINDOW_BYTES).min((self.len - range.start) as usize);
            self.window.clear();
            self.window.resize(wanted, 0);
            self.window_start = range.start;
            if let Some(file) = &self.file {
                // What the file lacks stays zero, as after the replay.
                read_full(file, &mut self.window, range.start)?;
            }
            self.overlay.apply(&mut self.window, range.start);
        }
        let at = (range.start - self.window_start) as usize;
        self.window.get(at..at + len).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
