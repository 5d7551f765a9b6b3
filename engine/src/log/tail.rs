//! The tail of a log: the newest bytes of its segments in memory, as a chain of chunks. A batch is copied in once, with its
//! CRC checked in the same pass. What the segment files do not durably hold yet stays; the rest stays until the pool needs it.
//! Only the log that owns it calls in.
//!
//! Positions here are *stream positions*: bytes counted over all segments since the log was opened, so that one number orders
//! everything. A segment knows its own start in the stream.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::disk::BLOCK_BYTES;
use crate::log::published::{Segment, TailPiece};
use crate::memory::{ChunkWriter, Membership, Pool, Slice};

/// The smallest chunk, what a partition starts with, and the largest.
const CHUNK_BYTES_MIN: usize = 16 << 10;
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// A chunk is at most this part of the tail's share of the memory: what is not filled yet is of use to nobody.
const SHARE_CHUNKS: usize = 4;
/// How much is copied before its CRC is taken: small enough to be still in the first-level cache, and a multiple of the 768
/// bytes that the CRC takes in three streams at a time.
const COPY_STEP_BYTES: usize = 3 << 10;

/// The pool has no memory left: something has to be flushed first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory;

/// The largest batch that a tail has room for once all that is settled has left the pool: its first and last block may be another's.
pub(crate) fn batch_bytes_max(pool: &Pool) -> u64 {
    pool.bytes_max().saturating_sub(CHUNK_BYTES_MIN) as u64
}

struct Piece {
    /// The stream position of the chunk's first byte.
    stream: u64,
    /// The stream position where the piece's own bytes begin.
    start: u64,
    writer: ChunkWriter,
    view: Arc<TailPiece>,
}

impl Piece {
    fn end(&self) -> u64 {
        self.stream + self.writer.filled() as u64
    }

    /// Whether it begins before the end of what is wanted, `from` to `to`.
    fn reaches_into(&self, from: u64, to: u64) -> bool {
        from < to && self.stream < to
    }

    /// Where in the chunk its bytes of what is wanted are.
    fn part(&self, from: u64, to: u64) -> Range<usize> {
        (from.max(self.stream) - self.stream) as usize..(to.min(self.end()) - self.stream) as usize
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Tail {
    pieces: VecDeque<Piece>,
    /// How many pieces at the front are published to their end.
    published_pieces: usize,
    /// The piece that is being filled: those before it are full, or of segments that are sealed.
    filling: usize,
    last_chunk_bytes: usize,
    /// While it has pieces it is one of those that divide the memory.
    member: Option<Membership>,
}

impl Tail {
    /// The stream position of the first byte that the tail has, `None` where it is empty.
    pub(crate) fn start(&self) -> Option<u64> {
        self.pieces.front().map(|piece| piece.start)
    }

    /// The pieces, for the published view.
    pub(crate) fn views(&self) -> Vec<Arc<TailPiece>> {
        self.pieces.iter().map(|piece| piece.view.clone()).collect()
    }

    /// The memory it holds.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.writer.capacity()).sum()
    }

    /// Makes room for `bytes` more at stream position `end`, which is at `position` of the segment's file. `partial` is the
    /// file's last block up to there, for a first piece that does not begin on a block. Returns whether pieces were added.
    pub(crate) fn reserve(
        &mut self,
        pool: &Pool,
        segment: &Arc<Segment>,
        end: u64,
        position: u64,
        partial: &[u8],
        bytes: usize,
    ) -> Result<bool, OutOfMemory> {
        let mut have = match self.pieces.back() {
            Some(last) if Arc::ptr_eq(&last.view.segment, segment) => {
                debug_assert_eq!(last.end(), end);
                last.writer.room()
            }
            _ => 0,
        };
        if have >= bytes {
            return Ok(false);
        }
        let continues = self.pieces.back().is_some_and(|last| Arc::ptr_eq(&last.view.segment, segment));
        let chunk_bytes_max = (pool.share_bytes() / SHARE_CHUNKS).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let mut added = Vec::new();
        let mut at = if continues { end + have as u64 } else { end - position % BLOCK_BYTES as u64 };
        let mut first = !continues;
        while have < bytes {
            let wanted = (bytes - have + BLOCK_BYTES).max(self.last_chunk_bytes * 2).clamp(CHUNK_BYTES_MIN, chunk_bytes_max);
            let Some(mut writer) = [wanted, CHUNK_BYTES_MAX / 4, CHUNK_BYTES_MIN * 4, CHUNK_BYTES_MIN]
                .into_iter()
                .filter(|&size| size <= wanted)
                .find_map(|size| ChunkWriter::new(pool, size))
            else {
                return Err(OutOfMemory);
            };
            let mut start = at;
            if first {
                let in_block = (position % BLOCK_BYTES as u64) as usize;
                assert_eq!(partial.len(), in_block, "the file's last block comes along");
                writer.fill(partial);
                start = end;
                first = false;
            }
            have += writer.room();
            let capacity = writer.capacity() as u64;
            let view = Arc::new(TailPiece {
                segment: segment.clone(),
                position: position + at - end,
                start: position + start - end,
                chunk: writer.chunk().clone(),
            });
            added.push(Piece { stream: at, start, writer, view });
            at += capacity;
        }
        if self.member.is_none() {
            self.member = Some(pool.join());
        }
        self.last_chunk_bytes = added.last().map_or(0, |piece| piece.writer.capacity());
        if !continues {
            self.filling = self.pieces.len();
        }
        self.pieces.extend(added);
        Ok(true)
    }

    /// Copies bytes to the end; there must be room.
    pub(crate) fn fill(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let piece = self.piece_with_room();
            let copied = piece.writer.fill(bytes);
            bytes = &bytes[copied..];
        }
    }

    /// Copies bytes to the end and returns their CRC-32C, in one pass over them.
    pub(crate) fn fill_with_crc(&mut self, bytes: &[u8]) -> u32 {
        let mut crc = 0;
        for mut step in bytes.chunks(COPY_STEP_BYTES) {
            crc = crc32c::crc32c_append(crc, step);
            while !step.is_empty() {
                let piece = self.piece_with_room();
                let copied = piece.writer.fill(step);
                step = &step[copied..];
            }
        }
        crc
    }

    /// The piece that the next byte goes to.
    fn piece_with_room(&mut self) -> &mut Piece {
        while self.pieces[self.filling].writer.room() == 0 {
            self.filling += 1;
        }
        &mut self.pieces[self.filling]
    }

    /// Takes back everything from `stream` on; pieces that become empty go. It must not be published.
    /// Returns whether pieces went.
    pub(crate) fn take_back(&mut self, stream: u64) -> bool {
        let before = self.pieces.len();
        // The first piece stays even if it becomes empty: it begins with what the file's last block has.
        while self.pieces.len() > 1 && self.pieces.back().is_some_and(|last| last.start >= stream) {
            self.pieces.pop_back();
        }
        if let Some(last) = self.pieces.back_mut()
            && last.end() > stream
        {
            last.writer.take_back((stream - last.stream) as usize);
        }
        self.published_pieces = self.published_pieces.min(self.pieces.len());
        self.filling = self.filling.min(self.pieces.len().saturating_sub(1));
        self.pieces.len() != before
    }

    /// Shows readers everything below `stream`.
    pub(crate) fn publish(&mut self, stream: u64) {
        while let Some(piece) = self.pieces.get_mut(self.published_pieces) {
            let upto = stream.saturating_sub(piece.stream).min(piece.writer.filled() as u64);
            piece.writer.publish(upto as usize);
            if piece.end() > stream || self.published_pieces + 1 == self.pieces.len() {
                break;
            }
            self.published_pieces += 1;
        }
    }

    /// Calls `visit` with the bytes from `from` to `to`, piece by piece, published or not.
    pub(crate) fn visit(&self, from: u64, to: u64, mut visit: impl FnMut(&[u8])) {
        for piece in self.pieces.range(self.first_at(from)..).take_while(|piece| piece.reaches_into(from, to)) {
            visit(&piece.writer.bytes()[piece.part(from, to)]);
        }
    }

    /// The published bytes from `from` to `to`, shared.
    pub(crate) fn slices(&self, from: u64, to: u64) -> Vec<Slice> {
        let pieces = self.pieces.range(self.first_at(from)..).take_while(|piece| piece.reaches_into(from, to));
        pieces
            .map(|piece| {
                let Range { start, end } = piece.part(from, to);
                Slice::new(piece.writer.chunk(), start, end)
            })
            .collect()
    }

    /// The bytes from `from` to `to`, published or not, until the write they are for is over. None of them may be taken back before.
    pub(crate) fn lend(&mut self, from: u64, to: u64) -> Vec<Slice> {
        let first = self.first_at(from);
        let pieces = self.pieces.range_mut(first..).take_while(|piece| piece.reaches_into(from, to));
        pieces
            .map(|piece| {
                let Range { start, end } = piece.part(from, to);
                piece.writer.lend(start, end)
            })
            .collect()
    }

    /// The first piece that has something from `from` on.
    fn first_at(&self, from: u64) -> usize {
        self.pieces.partition_point(|piece| piece.end() <= from)
    }

    /// Lets go of the oldest piece if all of it lies below `stream` and it is not the last; returns the memory that it held.
    pub(crate) fn release_oldest(&mut self, stream: u64) -> Option<usize> {
        if self.pieces.len() < 2 || self.pieces.front()?.end() > stream {
            return None;
        }
        let piece = self.pieces.pop_front()?;
        self.published_pieces = self.published_pieces.saturating_sub(1);
        self.filling = self.filling.saturating_sub(1);
        Some(piece.writer.capacity())
    }

    /// Lets go of everything. The caller has made sure that files hold it.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Offset;

    fn segment() -> Arc<Segment> {
        Arc::new(Segment::new(Offset(0), "x".into(), 0, Offset(0)))
    }

    #[test]
    fn bytes_come_back_across_pieces() {
        let pool = Pool::new(8 << 20);
        let segment = segment();
        let mut tail = Tail::default();
        // The file ends 100 bytes into its second block.
        let position = 4096 + 100;
        let mut end = position;
        let partial = vec![9; 100];
        let mut sent = Vec::new();
        for len in [10_usize, 5_000, 40_000, 300_000] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
            let file_position = end;
            tail.reserve(&pool, &segment, end, file_position, &partial, len).unwrap();
            assert_eq!(tail.fill_with_crc(&bytes), crc32c::crc32c(&bytes));
            end += len as u64;
            sent.extend(bytes);
        }
        let mut seen = Vec::new();
        tail.visit(position, end, |bytes| seen.extend_from_slice(bytes));
        assert!(seen == sent);
        assert_eq!(tail.start(), Some(position));
        tail.publish(end);
        let shared: Vec<u8> = tail.slices(4096, end).iter().flat_map(|s| s.bytes().to_vec()).collect();
        assert!(shared[..100] == partial[..] && shared[100..] == sent[..]);
        for view in tail.views() {
            assert_eq!(view.position % 4096, 0);
        }
    }

    #[test]
    fn what_is_taken_back_is_written_again() {
        let pool = Pool::new(8 << 20);
        let segment = segment();
        let mut tail = Tail::default();
        tail.reserve(&pool, &segment, 0, 0, &[], 30_000).unwrap();
        tail.fill(&[1; 30_000]);
        tail.publish(1_000);
        tail.take_back(20_000);
        tail.reserve(&pool, &segment, 20_000, 20_000, &[], 100_000).unwrap();
        tail.fill(&[2; 100_000]);
        let mut seen = Vec::new();
        tail.visit(0, 120_000, |bytes| seen.extend_from_slice(bytes));
        assert!(seen[..20_000].iter().all(|&b| b == 1) && seen[20_000..].iter().all(|&b| b == 2));
        assert_eq!(seen.len(), 120_000);
        assert!(tail.release_oldest(120_000).is_some());
    }

    #[test]
    fn an_empty_pool_changes_nothing() {
        let pool = Pool::new(2 << 20);
        let segment = segment();
        let mut tail = Tail::default();
        assert_eq!(tail.reserve(&pool, &segment, 0, 0, &[], 3 << 20), Err(OutOfMemory));
        assert_eq!(tail.start(), None);
        assert_eq!(pool.out_bytes(), 0);
    }
}
