//! From batch header to batch header, for whoever looks for one.

use std::sync::Arc;

use super::{ReadError, Reader, pieces_of};
use crate::batch::{self, BatchHeader};
use crate::log::published::{Segment, View};
use crate::segment::index::IndexEntry;

/// How much is read to walk over batch headers in a file.
const WALK_BYTES: usize = 16 << 10;

/// A walk over the batch headers of a segment, through its file and its tail.
pub(super) struct Walk<'a> {
    reader: &'a Reader,
    view: &'a View,
    segment: &'a Arc<Segment>,
    position: u64,
    /// The entry whose batch comes next: what it says is not believed before that batch has said so, too.
    entry: Option<IndexEntry>,
    visible: u64,
    /// Whether the batches are to be read next, so that cold ones may come whole.
    wants_batches: bool,
    /// Bytes that were read, and where they start.
    bytes: Vec<u8>,
    start: u64,
}

impl<'a> Walk<'a> {
    /// From where the index says, or the segment's beginning.
    pub(super) fn new(
        reader: &'a Reader,
        view: &'a View,
        segment: &'a Arc<Segment>,
        entry: Option<IndexEntry>,
        visible: u64,
    ) -> Self {
        let position = entry.map_or(0, |entry| entry.position);
        Self { reader, view, segment, position, entry, visible, wants_batches: false, bytes: Vec::new(), start: 0 }
    }

    /// The same for who reads the batches next.
    pub(super) fn wanting_batches(self) -> Self {
        Self { wants_batches: true, ..self }
    }

    /// Goes on with the batch at `position`.
    pub(super) fn go_to(&mut self, position: u64) {
        self.position = position;
    }

    pub(super) async fn next(&mut self) -> Result<Option<(u64, BatchHeader)>, ReadError> {
        // An index has no checksum. IndexesOnlyMakeItFast: a wrong entry must not lead past anything.
        while let Some(entry) = self.entry.take() {
            let found = self.step().await;
            let is_right = match &found {
                Ok(Some((_, header))) => header.base_offset <= entry.last_offset,
                // What is visible ends with a batch: either nothing of the entry's is, or it points into another.
                Ok(None) => entry.position >= self.visible,
                // The entry or the batch is damaged: if it is the batch, the walk comes to it again.
                Err(ReadError::Damaged { .. }) => false,
                Err(_) => true,
            };
            if is_right {
                return found;
            }
            self.entry = self.reader.floor_below(self.segment, &entry).await?;
            self.position = self.entry.map_or(0, |entry| entry.position);
        }
        self.step().await
    }

    async fn step(&mut self) -> Result<Option<(u64, BatchHeader)>, ReadError> {
        if self.position + batch::HEADER_BYTES as u64 > self.visible {
            return Ok(None);
        }
        let header = match self.header_in_tail() {
            Some(header) => header,
            None => {
                let have = self.position >= self.start
                    && self.position + batch::HEADER_BYTES as u64 <= self.start + self.bytes.len() as u64;
                if !have {
                    let len = WALK_BYTES.min((self.visible - self.position) as usize);
                    let bytes = self.reader.read_bytes(self.view, self.segment, self.position, len, self.wants_batches);
                    self.bytes = bytes.await?;
                    self.start = self.position;
                }
                BatchHeader::parse(&self.bytes[(self.position - self.start) as usize..])
            }
        };
        let damaged = |reason: &str| self.reader.damaged(self.segment, self.position, reason);
        let header = header.map_err(|error| damaged(&error.to_string()))?;
        let at = self.position;
        let next = at + header.size_bytes() as u64;
        if next > self.visible {
            // What is visible ends with a batch: it is the length that is wrong, and nothing may be skipped by it.
            return Err(damaged("the batch is longer than the log"));
        }
        self.position = next;
        Ok(Some((at, header)))
    }

    /// The header at the position, where all of it is in one or two pieces of the tail.
    fn header_in_tail(&self) -> Option<Result<BatchHeader, batch::BatchError>> {
        let mut header = [0; batch::HEADER_BYTES];
        let mut filled = 0;
        for piece in pieces_of(self.view, self.segment) {
            let at = self.position + filled as u64;
            let published = piece.chunk.bytes();
            if at < piece.start || at >= piece.position + published.len() as u64 {
                continue;
            }
            let from = &published[(at - piece.position) as usize..];
            let len = from.len().min(batch::HEADER_BYTES - filled);
            header[filled..filled + len].copy_from_slice(&from[..len]);
            filled += len;
            if filled == batch::HEADER_BYTES {
                return Some(BatchHeader::parse(&header));
            }
        }
        None
    }
}
