//! Reads of what neither the tail nor the page cache has. They go around the page cache, into blocks that are allocated once and
//! reused, and their CRCs are checked there; a consumer that reads on finds the next block read ahead. So reading through
//! a backlog costs the disk's time, the check and the sending, and pushes nobody's pages out.
//!
//! Memory is bounded; where it does not suffice, or a range is read for the second time and so may be worth a place in the page
//! cache, the answer is `None` and the [`Reader`](super::read::Reader) goes the other way. Only it calls in. Nothing here is
//! ever wrong to serve: what a file holds below its flushed position never changes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::batch::{self, BatchHeader, BatchView};
use crate::disk::cache::{FileCache, Purpose};
use crate::disk::{BLOCK_BYTES, File};
use crate::env::Env;
use crate::log::published::Segment;
use crate::memory::{Buffer, Pool};
use crate::types::Offset;

/// How much one read takes, its first block's beginning included.
const READ_BYTES: usize = 2 << 20;
/// What blocks may take in memory, per core, those that are being sent included.
const MEMORY_BYTES: usize = 64 << 20;
/// The largest batch that is read this way.
const BATCH_BYTES_MAX: usize = MEMORY_BYTES / 4;

/// Why a cold read has no bytes.
#[derive(Debug)]
pub(crate) enum ColdError {
    /// The batch at this position is not what was written.
    Damaged(u64, String),
    /// The disk failed; whoever reads the other way hears how.
    Io,
}

/// Whole, checked batches, from position `from` of their segment on.
struct Block {
    segment: u64,
    from: u64,
    buffer: Arc<Buffer>,
    /// Where in the buffer they are.
    range: Range<usize>,
    /// Where each begins, from `from` on.
    starts: Vec<u32>,
    /// The offset after the last one.
    next_offset: Offset,
    /// Whether somebody has read it to its end: nobody may want it any more.
    is_read: Cell<bool>,
}

/// Keeps a block's memory for whoever sends it.
struct Kept(Arc<Buffer>);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Block {
    fn end(&self) -> u64 {
        self.from + self.range.len() as u64
    }

    fn covers(&self, segment: u64, position: u64) -> bool {
        self.segment == segment && (self.from..self.end()).contains(&position)
    }

    /// Whether one of its batches begins at `position`. An index that is wrong may name one within a batch, which was not checked as
    /// what begins there.
    fn begins_at(&self, segment: u64, position: u64) -> bool {
        self.covers(segment, position) && self.starts.binary_search(&((position - self.from) as u32)).is_ok()
    }

    /// What it has from `position` on, where it covers that.
    fn rest(&self, position: u64) -> Bytes {
        let start = self.range.start + (position - self.from) as usize;
        Bytes::from_owner(Kept(self.buffer.clone())).slice(start..self.range.end)
    }

    /// Whether its memory comes free with it: nobody is sending it.
    fn is_free(&self) -> bool {
        Arc::strong_count(&self.buffer) == 1
    }
}

struct Inner {
    files: Rc<FileCache>,
    pool: Pool,
    /// The one that was used last is at the back.
    blocks: RefCell<VecDeque<Block>>,
    /// What is being read now: segment and position.
    loading: RefCell<Vec<(u64, u64)>>,
    loaded: Notify,
}

/// A block that is being read. Whoever waits for it is woken when it goes, also where it is dropped half way: its reader may be gone.
struct Loading {
    inner: Rc<Inner>,
    key: (u64, u64),
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.inner.loading.borrow_mut().retain(|loading| *loading != self.key);
        self.inner.loaded.notify_waiters();
    }
}

/// See the module. One per core.
pub(crate) struct ColdReads {
    inner: Rc<Inner>,
    env: Rc<dyn Env>,
}

impl ColdReads {
    pub(crate) fn new(files: Rc<FileCache>, env: Rc<dyn Env>) -> Self {
        let inner = Inner {
            files,
            pool: Pool::new(MEMORY_BYTES),
            blocks: RefCell::default(),
            loading: RefCell::default(),
            loaded: Notify::new(),
        };
        Self { inner: Rc::new(inner), env }
    }

    /// What is in memory of a segment from `position` on, where something is.
    pub(crate) fn peek(&self, segment: &Segment, position: u64) -> Option<Bytes> {
        let blocks = self.inner.blocks.borrow();
        blocks.iter().rev().find(|block| block.covers(segment.id, position)).map(|block| block.rest(position))
    }

    /// Checked bytes from the batch at `position` on, not beyond `end`, which the file has. `None` where the page cache is the
    /// better way.
    pub(crate) async fn read(&self, segment: &Arc<Segment>, position: u64, end: u64) -> Result<Option<Bytes>, ColdError> {
        let mut is_first = true;
        let found = loop {
            if let Some(found) = self.inner.take(segment, position, end) {
                break found;
            }
            if self.inner.is_loading(segment, position) {
                self.inner.loaded.notified().await;
                continue;
            }
            let may_load = std::mem::take(&mut is_first) && !segment.was_cold_read(position);
            if !may_load || !self.inner.load(segment, position, Room::Any).await? {
                return Ok(None);
            }
        };
        self.read_ahead(segment, found.block_end, found.is_end);
        Ok(Some(found.bytes))
    }

    /// Reads what follows a block that somebody has come to the end of, where there is room.
    fn read_ahead(&self, segment: &Arc<Segment>, position: u64, wanted: bool) {
        let inner = &self.inner;
        if !wanted
            || position >= segment.file_bytes()
            || self.peek(segment, position).is_some()
            || inner.is_loading(segment, position)
            || segment.was_cold_read(position)
        {
            return;
        }
        let (inner, segment) = (inner.clone(), segment.clone());
        let begun = inner.begin(&segment, position);
        self.env.spawn(Box::pin(async move {
            // Who comes here next meets the error, if there is one, and tells it.
            let _ = inner.load_begun(begun, &segment, position, Room::Spare).await;
        }));
    }
}

/// Which block may go when memory is short.
#[derive(Clone, Copy)]
enum Room {
    /// One that was read to its end, else the one that was used longest ago.
    Any,
    /// Only one that was read to its end.
    Spare,
}

struct Found {
    bytes: Bytes,
    block_end: u64,
    /// Whether they go to the end of the block, or into its second half.
    is_end: bool,
}

impl Inner {
    /// The bytes from `position` to `end`, as far as a block has them; the block is the last used one then.
    fn take(&self, segment: &Segment, position: u64, end: u64) -> Option<Found> {
        let mut blocks = self.blocks.borrow_mut();
        let at = blocks.iter().rposition(|block| block.begins_at(segment.id, position))?;
        let block = blocks.remove(at)?;
        let mut bytes = block.rest(position);
        bytes.truncate(usize::try_from(end - position).unwrap_or(usize::MAX));
        let (to, block_end) = (position + bytes.len() as u64, block.end());
        if to == block_end {
            block.is_read.set(true);
        }
        let is_end = block_end - to <= block.range.len() as u64 / 2;
        blocks.push_back(block);
        Some(Found { bytes, block_end, is_end })
    }

    fn is_loading(&self, segment: &Segment, position: u64) -> bool {
        self.loading.borrow().contains(&(segment.id, position))
    }

    fn begin(self: &Rc<Self>, segment: &Segment, position: u64) -> Loading {
        let key = (segment.id, position);
        self.loading.borrow_mut().push(key);
        Loading { inner: self.clone(), key }
    }

    /// Reads a block that begins with the batch at `position`. Returns whether it is there now.
    async fn load(self: &Rc<Self>, segment: &Arc<Segment>, position: u64, room: Room) -> Result<bool, ColdError> {
        let begun = self.begin(segment, position);
        self.load_begun(begun, segment, position, room).await
    }

    async fn load_begun(&self, begun: Loading, segment: &Arc<Segment>, position: u64, room: Room) -> Result<bool, ColdError> {
        let block = self.read_block(segment, position, room).await?;
        if let Some(block) = &block {
            segment.note_cold_read(block.from, block.end());
        }
        let is_there = block.is_some();
        self.blocks.borrow_mut().extend(block);
        drop(begun);
        Ok(is_there)
    }

    async fn read_block(&self, segment: &Arc<Segment>, position: u64, room: Room) -> Result<Option<Block>, ColdError> {
        let file = self.files.open(segment.id, Purpose::ReadDirect, &segment.path).await.map_err(|_| ColdError::Io)?;
        let mut len = READ_BYTES;
        loop {
            let Some(buffer) = self.buffer(len, room) else { return Ok(None) };
            // A batch whose offset is wrong is told by what stands before it.
            let before = self
                .blocks
                .borrow()
                .iter()
                .find(|block| block.segment == segment.id && block.end() == position)
                .map(|b| b.next_offset);
            let order = Order::new(segment, before);
            let Some(checked) = read_checked(&file, buffer, len, position, segment, order).await? else {
                return Ok(None);
            };
            match checked {
                Checked::Whole { buffer, range, starts, next_offset } => {
                    let (from, buffer, is_read) = (position, Arc::new(buffer), Cell::new(false));
                    return Ok(Some(Block { segment: segment.id, from, buffer, range, starts, next_offset, is_read }));
                }
                Checked::Larger(batch_bytes) if batch_bytes <= BATCH_BYTES_MAX => {
                    len = (batch_bytes + 2 * BLOCK_BYTES).next_multiple_of(READ_BYTES);
                }
                Checked::Larger(_) => return Ok(None),
            }
        }
    }

    fn buffer(&self, len: usize, room: Room) -> Option<Buffer> {
        loop {
            if let Some(buffer) = self.pool.buffer(len) {
                return Some(buffer);
            }
            let mut blocks = self.blocks.borrow_mut();
            // One that is being sent would give no memory back.
            let spare = blocks.iter().position(|block| block.is_read.get() && block.is_free());
            let at = match room {
                Room::Any => spare.or_else(|| blocks.iter().position(Block::is_free)),
                Room::Spare => spare,
            };
            drop(blocks.remove(at?));
        }
    }
}

enum Checked {
    /// Whole batches, at least one: where they are, where each begins in there, and the offset after them.
    Whole { buffer: Buffer, range: Range<usize>, starts: Vec<u32>, next_offset: Offset },
    /// The first batch alone has so many bytes, more than were read.
    Larger(usize),
}

/// Reads `len` bytes around `position`, and checks the batches from there on; `None` where the file has no whole one yet.
async fn read_checked(
    file: &Rc<dyn File>,
    buffer: Buffer,
    len: usize,
    position: u64,
    segment: &Segment,
    mut order: Order,
) -> Result<Option<Checked>, ColdError> {
    let skip = (position % BLOCK_BYTES as u64) as usize;
    let (buffer, read) = file.read_at(buffer, len, position - skip as u64).await.map_err(|_| ColdError::Io)?;
    // What lies beyond is not the log's yet: padding, or what is being written.
    let known = usize::try_from(segment.file_bytes().saturating_sub(position - skip as u64)).unwrap_or(usize::MAX);
    let is_cut = known > read && read < len;
    let upto = read.min(known);
    let Some(mut rest) = buffer.get(skip..upto).filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
    let (mut sound, mut starts) = (0, Vec::new());
    let reason = loop {
        if rest.is_empty() {
            break None;
        }
        match check_first(rest, &mut order) {
            Ok(First::Sound(size)) => {
                starts.push(sound as u32);
                sound += size;
                rest = &rest[size..];
            }
            Ok(First::Cut(_)) if sound > 0 => break None,
            Ok(First::Cut(Some(size))) if !is_cut && skip + size > len => return Ok(Some(Checked::Larger(size))),
            // The rest of it is in the tail.
            Ok(First::Cut(_)) if !is_cut => return Ok(None),
            Ok(First::Cut(_)) => break Some("the file ends within a batch".to_owned()),
            Err(reason) => break Some(reason),
        }
    };
    if reason.is_some() {
        segment.note_damage();
    }
    match reason {
        // What is sound before it is served; who reads on meets it.
        Some(reason) if sound == 0 => Err(ColdError::Damaged(position, reason)),
        _ => Ok(Some(Checked::Whole { buffer, range: skip..skip + sound, starts, next_offset: order.due })),
    }
}

/// What the first bytes of a piece of a segment are.
pub(crate) enum First {
    /// A batch of so many bytes, with the CRC that it says.
    Sound(usize),
    /// The bytes end within a batch, of this size if that is known.
    Cut(Option<usize>),
}

pub(crate) fn check_first(bytes: &[u8], order: &mut Order) -> Result<First, String> {
    if bytes.len() < batch::HEADER_BYTES {
        return Ok(First::Cut(None));
    }
    let header = BatchHeader::parse(bytes).map_err(|error| error.to_string())?;
    let size = header.size_bytes();
    match bytes.get(..size) {
        None => Ok(First::Cut(Some(size))),
        Some(whole) => {
            BatchView::new(whole).and_then(|batch| batch.check_crc()).map_err(|error| error.to_string())?;
            order.check(&header)?;
            Ok(First::Sound(size))
        }
    }
}

/// Whether batches that were read one behind the other have offsets that rise, and are the segment's: no CRC covers them.
pub(crate) struct Order {
    due: Offset,
    end: Offset,
}

impl Order {
    /// For a read that begins anywhere in a segment, after what ends before offset `before` where that is known.
    pub(crate) fn new(segment: &Segment, before: Option<Offset>) -> Self {
        Self { due: before.unwrap_or(segment.base_offset), end: segment.end_offset() }
    }

    /// Takes the next batch.
    pub(crate) fn check(&mut self, header: &BatchHeader) -> Result<(), String> {
        if header.base_offset < self.due || header.next_offset() > self.end {
            let (first, last) = (header.base_offset, header.last_offset());
            return Err(format!("offsets {first} to {last} where they lie from {} to below {}", self.due, self.end));
        }
        self.due = header.next_offset();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::batch::BatchBuilder;
    use crate::disk::sim::SimDisk;
    use crate::disk::{Disk, OpenOptions, Payload};
    use crate::env::sim::Simulation;
    use crate::types::{Offset, TimestampMs};

    struct Stored {
        simulation: Simulation,
        reads: Rc<ColdReads>,
        segment: Arc<Segment>,
        bytes: Vec<u8>,
        /// Where each batch begins.
        starts: Vec<u64>,
    }

    /// A segment of batches with values of these sizes, `damaged` of which has a wrong byte; the file is a little longer than
    /// what is flushed.
    fn stored(values_bytes: &[usize], damaged: Option<usize>) -> Stored {
        let simulation = Simulation::new(3);
        let disk: Rc<dyn Disk> = SimDisk::new(&simulation, 3).mount();
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for (at, &value_bytes) in values_bytes.iter().enumerate() {
            starts.push(bytes.len() as u64);
            let value = vec![at as u8; value_bytes];
            bytes.extend(BatchBuilder::new(Offset(at as i64)).record(TimestampMs(1), None, Some(&value)).build());
            if Some(at) == damaged {
                *bytes.last_mut().unwrap() ^= 1;
            }
        }
        let path = PathBuf::from("/00000000000000000000.log");
        let segment = Arc::new(Segment::new(Offset(0), path, bytes.len() as u64, Offset(values_bytes.len() as i64)));
        let mut on_disk = bytes.clone();
        on_disk.resize(on_disk.len() + 5_000, 0);
        let written = disk.clone();
        simulation.block_on(async move {
            let file = written.open(Path::new("/00000000000000000000.log"), OpenOptions::WRITE).await.unwrap();
            file.write_at(Payload::Bytes(on_disk), 0).await.unwrap();
        });
        let reads = Rc::new(ColdReads::new(Rc::new(FileCache::new(disk, 8)), simulation.env()));
        Stored { simulation, reads, segment, bytes, starts }
    }

    impl Stored {
        fn read(&self, position: u64, end: u64) -> Result<Option<Bytes>, ColdError> {
            let (reads, segment) = (self.reads.clone(), self.segment.clone());
            self.simulation.block_on(async move { reads.read(&segment, position, end).await })
        }

        fn end(&self) -> u64 {
            self.bytes.len() as u64
        }
    }

    #[test]
    fn what_begins_within_a_batch_is_not_taken_for_checked() {
        // As an index that has rotted says.
        let stored = stored(&[3_000; 4], None);
        let inner = &stored.reads.inner;
        stored.read(0, stored.end()).unwrap().unwrap();
        for start in &stored.starts {
            assert!(inner.take(&stored.segment, *start, stored.end()).is_some());
            assert!(inner.take(&stored.segment, start + 70, stored.end()).is_none());
        }
        assert!(stored.reads.peek(&stored.segment, 70).is_some(), "its bytes are what the file has");
    }

    #[test]
    fn a_consumer_that_reads_on_gets_all_and_finds_it_read_ahead() {
        let stored = stored(&[300_000; 40], None);
        let (mut at, mut read) = (0, Vec::new());
        while at < stored.end() {
            let bytes = stored.read(at, stored.end()).unwrap().unwrap();
            at += bytes.len() as u64;
            read.extend_from_slice(&bytes);
            stored.simulation.run_for(std::time::Duration::from_secs(1));
            assert!(at == stored.end() || stored.reads.peek(&stored.segment, at).is_some(), "what follows {at} was read ahead");
        }
        assert!(read == stored.bytes);
    }

    /// A consumer that goes while its block is being read leaves nobody waiting for it.
    #[test]
    fn a_read_that_is_given_up_is_not_waited_for() {
        let stored = stored(&[1_000; 10], None);
        let (reads, segment, end) = (stored.reads.clone(), stored.segment.clone(), stored.end());
        let bytes = stored.simulation.block_on(async move {
            let mut given_up = Box::pin(reads.read(&segment, 0, end));
            std::future::poll_fn(|context| {
                assert!(given_up.as_mut().poll(context).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            assert!(reads.inner.is_loading(&segment, 0));
            drop(given_up);
            assert!(!reads.inner.is_loading(&segment, 0));
            reads.read(&segment, 0, end).await.unwrap()
        });
        assert_eq!(bytes.as_deref(), Some(&stored.bytes[..]));
    }

    #[test]
    fn a_read_ends_where_it_has_to() {
        let stored = stored(&[1_000; 10], None);
        let bytes = stored.read(stored.starts[2], stored.starts[5] + 7).unwrap().unwrap();
        assert!(bytes == stored.bytes[stored.starts[2] as usize..stored.starts[5] as usize + 7]);
        assert_eq!(stored.read(stored.end(), stored.end() + 1).unwrap(), None, "beyond what is flushed there is nothing");
    }

    #[test]
    fn what_is_read_again_from_the_disk_is_left_to_the_page_cache() {
        let stored = stored(&[1_000_000; 80], None);
        // More than the blocks can hold.
        for at in (0..80).step_by(2) {
            assert!(stored.read(stored.starts[at], stored.end()).unwrap().is_some());
        }
        assert!(stored.reads.peek(&stored.segment, 0).is_none(), "memory is bounded");
        assert_eq!(stored.read(0, stored.end()).unwrap(), None);
    }

    #[test]
    fn a_batch_larger_than_a_block_is_read_whole() {
        let stored = stored(&[10, 5_000_000, 10], None);
        let bytes = stored.read(stored.starts[1], stored.end()).unwrap().unwrap();
        assert!(bytes[..5_000_000] == stored.bytes[stored.starts[1] as usize..][..5_000_000]);
    }

    #[test]
    fn damage_is_never_served_and_what_lies_before_and_behind_is() {
        // So large that a read has one of them and a half.
        let stored = stored(&[1_200_000; 10], Some(4));
        let batch = |at: usize| &stored.bytes[stored.starts[at] as usize..stored.starts[at + 1] as usize];
        let read = |at: usize| stored.read(stored.starts[at], stored.end());
        assert!(read(3).unwrap().unwrap() == *batch(3));
        assert!(matches!(read(4), Err(ColdError::Damaged(at, _)) if at == stored.starts[4]));
        assert!(read(5).unwrap().unwrap() == *batch(5));
    }

    #[test]
    fn consumers_that_keep_blocks_leave_the_others_the_page_cache() {
        let stored = stored(&[1_500_000; 60], None);
        let kept: Vec<_> = (0..60).map(|at| stored.read(stored.starts[at], stored.end()).unwrap()).collect();
        let bytes: usize = kept.iter().flatten().map(Bytes::len).sum();
        assert!(kept.iter().any(Option::is_none) && bytes <= MEMORY_BYTES, "{bytes} bytes are kept");
        drop(kept);
    }
}
