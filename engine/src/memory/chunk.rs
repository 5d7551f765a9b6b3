//! Blocks that one writer fills from the front while others read what is published. See [`super`].
#![allow(unsafe_code, reason = "one writer and many readers share a block without a lock")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::pool::{Pool, RawBlock};

/// A block of memory of which the first `published` bytes never change again while it lives.
pub struct Chunk {
    raw: RawBlock,
    published: AtomicUsize,
}

impl Chunk {
    /// How many bytes readers may see.
    #[must_use]
    pub fn published(&self) -> usize {
        self.published.load(Ordering::Acquire)
    }

    /// The published bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: bytes below `published` are initialised and, by the contract of `ChunkWriter`, never written again.
        unsafe { std::slice::from_raw_parts(self.raw.ptr.as_ptr(), self.published()) }
    }
}

/// The one writer of a chunk: it fills the block from the front, may take back what it has not published, and publishes.
pub struct ChunkWriter {
    chunk: Arc<Chunk>,
    filled: usize,
    /// How far it was lent before it was published, and the loans of which some may still be out.
    lent: usize,
    loans: Arc<()>,
}

impl ChunkWriter {
    /// A chunk of at least `len` bytes, or `None` where the pool's bound is reached.
    #[must_use]
    pub fn new(pool: &Pool, len: usize) -> Option<Self> {
        let raw = pool.raw(len)?;
        let chunk = Arc::new(Chunk { raw, published: AtomicUsize::new(0) });
        Some(Self { chunk, filled: 0, lent: 0, loans: Arc::default() })
    }

    /// The size of the block.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.chunk.raw.len
    }

    /// How many bytes are filled.
    #[must_use]
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// How many more fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity() - self.filled
    }

    /// The chunk, for readers.
    #[must_use]
    pub fn chunk(&self) -> &Arc<Chunk> {
        &self.chunk
    }

    /// What is filled, published or not. Only the writer sees it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `filled` never passes the capacity, the block is initialised, and writes need `&mut self`.
        unsafe { std::slice::from_raw_parts(self.chunk.raw.ptr.as_ptr(), self.filled) }
    }

    /// What is filled and neither published nor lent, to be changed in place.
    pub fn unpublished_mut(&mut self) -> &mut [u8] {
        let from = self.chunk.published.load(Ordering::Relaxed).max(self.lent);
        // SAFETY: readers stay below `published`, borrowers below `lent`, there is no other writer, and the borrow of self is unique.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.raw.ptr.as_ptr().add(from), self.filled - from) }
    }

    /// Bytes `start..end`, published or not, for somebody who gives them back before they may be taken back: a write of the disk.
    ///
    /// # Panics
    /// When they are not filled.
    pub fn lend(&mut self, start: usize, end: usize) -> Slice {
        assert!(start <= end && end <= self.filled, "only what is filled can be lent");
        self.lent = self.lent.max(end);
        Slice::of(&self.chunk, start, end, Some(self.loans.clone()))
    }

    /// Copies as much of `source` as fits to the end of what is filled; returns how much that was.
    pub fn fill(&mut self, source: &[u8]) -> usize {
        let len = source.len().min(self.room());
        // SAFETY: the target lies inside the block, above all that is published, and nobody else writes; source is
        // somebody else's memory, since `bytes` borrows self.
        unsafe {
            std::ptr::copy_nonoverlapping(source.as_ptr(), self.chunk.raw.ptr.as_ptr().add(self.filled), len);
        }
        self.filled += len;
        len
    }

    /// Takes back what lies above `filled`.
    ///
    /// # Panics
    /// When that was published, or is lent.
    pub fn take_back(&mut self, filled: usize) {
        assert!(filled <= self.filled, "a chunk does not grow by taking back");
        assert!(filled >= self.chunk.published.load(Ordering::Relaxed), "what is published stays");
        if filled < self.lent {
            assert!(Arc::get_mut(&mut self.loans).is_some(), "what is lent is given back first");
            self.lent = filled;
        }
        self.filled = filled;
    }

    /// Lets readers see the first `upto` bytes.
    ///
    /// # Panics
    /// When they are not filled.
    pub fn publish(&mut self, upto: usize) {
        assert!(upto <= self.filled, "only what is filled can be published");
        if upto > self.chunk.published.load(Ordering::Relaxed) {
            self.chunk.published.store(upto, Ordering::Release);
        }
    }
}

/// A piece of a chunk that does not change: published, or lent.
#[derive(Clone)]
pub struct Slice {
    chunk: Arc<Chunk>,
    start: u32,
    end: u32,
    /// Lives as long as it is lent.
    _loan: Option<Arc<()>>,
}

impl Slice {
    /// Bytes `start..end` of the chunk.
    ///
    /// # Panics
    /// When they are not all published.
    #[must_use]
    pub fn new(chunk: &Arc<Chunk>, start: usize, end: usize) -> Self {
        assert!(start <= end && end <= chunk.published(), "only what is published can be shared");
        Self::of(chunk, start, end, None)
    }

    fn of(chunk: &Arc<Chunk>, start: usize, end: usize, loan: Option<Arc<()>>) -> Self {
        let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(end)) else { panic!("a chunk has less than 4 GiB") };
        Self { chunk: chunk.clone(), start, end, _loan: loan }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: checked at construction to be published, and what is published never changes; or filled and lent, which the writer
        // leaves alone while `_loan` lives.
        unsafe { std::slice::from_raw_parts(self.chunk.raw.ptr.as_ptr().add(self.start as usize), self.len()) }
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_what_is_published() {
        let pool = Pool::new(2 << 20);
        let mut writer = ChunkWriter::new(&pool, 1).unwrap();
        let chunk = writer.chunk().clone();
        assert_eq!(writer.fill(b"hello"), 5);
        assert_eq!(chunk.bytes(), b"");
        writer.unpublished_mut()[0] = b'j';
        writer.publish(2);
        assert_eq!(chunk.bytes(), b"je");
        writer.take_back(3);
        writer.fill(b"t");
        writer.publish(4);
        let slice = Slice::new(&chunk, 0, 4);
        drop((writer, chunk, pool));
        assert_eq!(slice.bytes(), b"jelt");
    }

    /// What Miri looks for here: no byte is read before it is published, none written after.
    #[test]
    fn a_reader_elsewhere_sees_whole_what_is_published() {
        const PIECES: u8 = if cfg!(miri) { 20 } else { 200 };
        const PIECE_BYTES: usize = 16;
        let pool = Pool::new(2 << 20);
        let mut writer = ChunkWriter::new(&pool, usize::from(PIECES) * PIECE_BYTES).unwrap();
        let chunk = writer.chunk().clone();
        let reader = std::thread::spawn(move || {
            let mut seen = 0;
            while seen < usize::from(PIECES) * PIECE_BYTES {
                let bytes = chunk.bytes();
                for (at, &byte) in bytes.iter().enumerate().skip(seen) {
                    assert_eq!(usize::from(byte), at / PIECE_BYTES);
                }
                seen = bytes.len();
                std::thread::yield_now();
            }
            Slice::new(&chunk, PIECE_BYTES, seen)
        });
        for piece in 0..PIECES {
            let published = writer.filled();
            writer.fill(&[0xff; PIECE_BYTES]);
            writer.take_back(published + 1);
            writer.fill(&[piece; PIECE_BYTES - 1]);
            writer.unpublished_mut()[0] = piece;
            writer.publish(writer.filled());
        }
        drop((writer, pool));
        let slice = reader.join().unwrap();
        assert_eq!(slice.bytes()[slice.len() - PIECE_BYTES..], [PIECES - 1; PIECE_BYTES]);
    }

    #[test]
    fn what_is_lent_can_be_taken_back_once_it_is_returned() {
        let pool = Pool::new(2 << 20);
        let mut writer = ChunkWriter::new(&pool, 1).unwrap();
        writer.fill(b"abcdef");
        let lent = writer.lend(1, 4);
        let copy = lent.clone();
        // Above the loan everything goes on.
        writer.unpublished_mut().copy_from_slice(b"EF");
        writer.take_back(5);
        writer.fill(b"g");
        drop(lent);
        assert_eq!(copy.bytes(), b"bcd");
        drop(copy);
        writer.take_back(2);
        writer.fill(b"x");
        writer.publish(3);
        assert_eq!(writer.chunk().bytes(), b"abx");
    }

    #[test]
    #[should_panic(expected = "given back first")]
    fn what_is_lent_cannot_be_taken_back() {
        let pool = Pool::new(2 << 20);
        let mut writer = ChunkWriter::new(&pool, 1).unwrap();
        writer.fill(b"abc");
        let _lent = writer.lend(0, 2);
        writer.take_back(1);
    }

    #[test]
    fn a_full_chunk_takes_no_more() {
        let pool = Pool::new(2 << 20);
        let mut writer = ChunkWriter::new(&pool, 1).unwrap();
        let source = vec![1; writer.capacity() + 10];
        assert_eq!(writer.fill(&source), writer.capacity());
        assert_eq!(writer.room(), 0);
        assert_eq!(writer.fill(b"x"), 0);
    }

    #[test]
    #[should_panic(expected = "what is published stays")]
    fn what_is_published_cannot_be_taken_back() {
        let pool = Pool::new(2 << 20);
        let mut writer = ChunkWriter::new(&pool, 1).unwrap();
        writer.fill(b"abc");
        writer.publish(2);
        writer.take_back(1);
    }
}
