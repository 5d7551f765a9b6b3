//! Reading a partition from any core: from its published state to a plan, a list of byte ranges each with its source. The tail is
//! shared memory; a file range is warm and checked when the plan is handed out, so that it can be sent without blocking
//! and never serves rot. One [`Reader`] per core. It never changes anything.

mod check;
mod indexes;
mod times;
mod walk;

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use thiserror::Error;

use crate::batch::BatchHeader;
use crate::disk::cache::{FileCache, Purpose};
use crate::disk::{BLOCK_BYTES, Disk, File};
use crate::env::Env;
use crate::log::cold::{ColdError, ColdReads};
use crate::log::published::{Published, Segment, Standing, TailPiece, View};
use crate::memory::{Pool, Slice};
use crate::types::Offset;
use indexes::IndexCache;
use walk::Walk;

/// Where a range's bytes are.
#[derive(Clone)]
pub enum Source {
    /// In the tail's memory.
    Tail(Slice),
    /// Read from the disk and checked, in a block that comes free when nobody holds it.
    Memory(Bytes),
    /// In a file, from [`ReadRange::position`] on.
    File(Rc<dyn File>),
}

/// A piece of a segment.
#[derive(Clone)]
pub struct ReadRange {
    /// The segment.
    pub segment: Arc<Segment>,
    /// Where the range starts in its file.
    pub position: u64,
    /// How long it is, in bytes.
    pub len: u64,
    /// Where its bytes are.
    pub source: Source,
}

/// What a fetch of one partition sends: ranges that together start at a batch. The last batch may be cut short, as Kafka's.
pub struct Plan {
    /// The ranges, in order.
    pub ranges: SmallVec<[ReadRange; 4]>,
    /// The sum of their lengths.
    pub bytes: u64,
    /// The high watermark; never below what the ranges hold.
    pub high_watermark: Offset,
    /// The log start offset.
    pub log_start: Offset,
}

/// Why a read has no plan.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The offset is below the log start or above the log end.
    #[error("offset {0} is out of range")]
    OutOfRange(Offset),
    /// The stored bytes are not what was written.
    #[error("{path}: damage at position {position}: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// Where.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// The partition is deleted, and with it what was to be read.
    #[error("the partition was deleted")]
    Deleted,
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Tells whether a range of a file is in the page cache, without blocking.
pub type Probe = Box<dyn Fn(BorrowedFd<'_>, u64, u64) -> bool>;

/// See the module.
pub struct Reader {
    disk: Rc<dyn Disk>,
    files: Rc<FileCache>,
    pool: Pool,
    probe: Probe,
    indexes: IndexCache,
    cold: ColdReads,
}

impl Reader {
    /// A reader over the core's disk, files and memory; `env` runs what is read ahead.
    #[must_use]
    pub fn new(disk: Rc<dyn Disk>, env: Rc<dyn Env>, files: Rc<FileCache>, pool: Pool, probe: Probe) -> Self {
        let cold = ColdReads::new(files.clone(), env);
        Self { disk, files, pool, probe, indexes: IndexCache::default(), cold }
    }

    /// The file of a segment, for whoever holds memory of its tail and would rather hold the file.
    ///
    /// # Errors
    /// Those of the disk; the segment may have been removed.
    pub async fn open(&self, segment: &Segment) -> io::Result<Rc<dyn File>> {
        let file = self.files.open(segment.id, Purpose::Read, &segment.path).await?;
        match segment.standing() {
            Standing::Current => Ok(file),
            Standing::Replacing | Standing::Lost => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Plans a read from `offset` on, of up to `bytes_max` bytes; with `at_least_one`, the first batch is in the plan even
    /// if it is larger. Nothing visible there: an empty plan.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn plan(
        &self,
        partition: &Published,
        offset: Offset,
        bytes_max: u64,
        at_least_one: bool,
    ) -> Result<Plan, ReadError> {
        loop {
            let view = partition.view.load_full();
            let mut looked_into = 0..0;
            let found = self.plan_in(partition, &view, offset, bytes_max, at_least_one, &mut looked_into).await;
            // Before what was found is believed, an error included: it may be what another segment has at that place.
            if self.is_replaced(partition, &view, looked_into).await? {
                continue;
            }
            if let Some(plan) = found? {
                return Ok(plan);
            }
        }
    }

    /// Whether compaction has replaced one of these segments while they were looked into; then there is another view now. Where the
    /// partition was deleted, another one may have its files' names by now.
    async fn is_replaced(&self, partition: &Published, view: &Arc<View>, segments: Range<usize>) -> Result<bool, ReadError> {
        if partition.is_deleted() {
            return Err(ReadError::Deleted);
        }
        for segment in &view.segments[segments] {
            match segment.standing() {
                Standing::Current => {}
                Standing::Replacing => {
                    partition.replacement_of(view).await;
                    return Ok(true);
                }
                Standing::Lost => {
                    let reason = format!("{}: a compaction failed half way; the next start finishes it", segment.path.display());
                    return Err(io::Error::other(reason).into());
                }
            }
        }
        Ok(false)
    }

    /// `None` where the view was replaced before it was known how much of a segment is visible: more than the view has, perhaps.
    async fn plan_in(
        &self,
        partition: &Published,
        view: &Arc<View>,
        offset: Offset,
        bytes_max: u64,
        at_least_one: bool,
        looked_into: &mut Range<usize>,
    ) -> Result<Option<Plan>, ReadError> {
        let mut plan = Plan {
            ranges: SmallVec::new(),
            bytes: 0,
            high_watermark: partition.high_watermark(),
            log_start: partition.log_start(),
        };
        if offset < plan.log_start || offset > partition.log_end() {
            return Err(ReadError::OutOfRange(offset));
        }
        if offset >= plan.high_watermark {
            return Ok(Some(plan));
        }
        let mut at = view.segments.partition_point(|segment| segment.base_offset <= offset).saturating_sub(1);
        looked_into.start = at;
        while let Some(segment) = view.segments.get(at) {
            looked_into.end = at + 1;
            let visible = segment.visible_bytes();
            if !Arc::ptr_eq(view, &partition.view.load()) {
                return Ok(None);
            }
            if let Some((start, header)) = self.locate(view, segment, offset, visible).await? {
                let first = header.size_bytes() as u64;
                let end = if first > bytes_max {
                    if !at_least_one {
                        break;
                    }
                    start + first
                } else {
                    visible.min(start + bytes_max)
                };
                self.ranges(view, segment, start, end.min(visible), &mut plan).await?;
                break;
            }
            at += 1;
        }
        // Read after the bytes were chosen: never below what they hold.
        plan.high_watermark = partition.high_watermark();
        Ok(Some(plan))
    }

    /// The first batch in `segment`, below `visible`, that ends at or above `offset`.
    async fn locate(
        &self,
        view: &View,
        segment: &Arc<Segment>,
        offset: Offset,
        visible: u64,
    ) -> Result<Option<(u64, BatchHeader)>, ReadError> {
        let floor = self.floor(segment, offset).await?;
        let mut walk = Walk::new(self, view, segment, floor, visible).wanting_batches();
        let mut before = None;
        while let Some((position, header)) = walk.next().await? {
            if header.last_offset() >= offset {
                // Of what is in memory that was checked; the file's header was not, and may have rotted since.
                let checked = self.cold.peek(segment, position).and_then(|bytes| BatchHeader::parse(&bytes).ok());
                if let Some(checked) = checked.filter(|checked| checked.last_offset() < offset) {
                    walk.go_to(position + checked.size_bytes() as u64);
                    before = Some((position, checked));
                    continue;
                }
                if header.base_offset > offset
                    && let Some((position, header)) = before
                {
                    // Compaction leaves gaps. A wrong length leads past batches that are there.
                    self.check_batch(view, segment, position, &header).await?;
                }
                return Ok(Some((position, header)));
            }
            before = Some((position, header));
        }
        if let Some((position, header)) = before {
            // A wrong length leads to the end past what is there.
            self.check_batch(view, segment, position, &header).await?;
        }
        Ok(None)
    }

    /// Adds `start..end` of a segment to the plan: from its file below the tail, from memory in it.
    async fn ranges(&self, view: &View, segment: &Arc<Segment>, start: u64, end: u64, plan: &mut Plan) -> Result<(), ReadError> {
        let mut at = start;
        let tail_start = pieces_of(view, segment).next().map_or(u64::MAX, |piece| piece.start);
        if at < tail_start {
            let file_end = end.min(tail_start);
            while at < file_end {
                let found = self.file_range(view, segment, at, file_end, file_end == tail_start).await;
                let (source, len) = match found {
                    // What was found before it is sent; who reads on meets it.
                    Err(_) if at > start => return Ok(()),
                    found => found?,
                };
                if len == 0 {
                    return Ok(());
                }
                plan.bytes += len;
                plan.ranges.push(ReadRange { segment: segment.clone(), position: at, len, source });
                at += len;
                // What is in memory is sent on; one wait for the disk is enough.
                if at < file_end && self.cold.peek(segment, at).is_none() {
                    return Ok(());
                }
            }
            at = file_end;
        }
        for piece in pieces_of(view, segment) {
            let piece_end = piece.position + piece.chunk.published() as u64;
            if piece_end <= at || at >= end {
                continue;
            }
            let to = end.min(piece_end);
            let slice = Slice::new(&piece.chunk, (at - piece.position) as usize, (to - piece.position) as usize);
            plan.bytes += to - at;
            plan.ranges.push(ReadRange { segment: segment.clone(), position: at, len: to - at, source: Source::Tail(slice) });
            at = to;
        }
        Ok(())
    }

    /// A source of what a segment's file has from `position` on, up to `end`, and how much of it: nothing where a batch does not fit.
    /// With `goes_on` the tail has what follows, and a batch may begin in the file and end there.
    async fn file_range(
        &self,
        view: &View,
        segment: &Arc<Segment>,
        position: u64,
        end: u64,
        goes_on: bool,
    ) -> Result<(Source, u64), ReadError> {
        let file = self.files.open(segment.id, Purpose::Read, &segment.path).await?;
        let len = end - position;
        if !segment.is_damaged() && self.is_cached(&file, position, len) {
            return Ok((Source::File(file), len));
        }
        match self.cold.read(segment, position, end).await {
            Ok(Some(bytes)) => {
                let len = bytes.len() as u64;
                Ok((Source::Memory(bytes), len))
            }
            // An error of the disk too: a segment that is being removed may still be open the other way.
            Ok(None) | Err(ColdError::Io) => {
                let len = self.warm(&file, view, segment, position, len, goes_on).await?;
                Ok((Source::File(file), len))
            }
            Err(ColdError::Damaged(position, reason)) => Err(self.damaged(segment, position, &reason)),
        }
    }

    fn is_cached(&self, file: &Rc<dyn File>, position: u64, len: u64) -> bool {
        file.descriptor().is_some_and(|fd| (self.probe)(fd, position, len))
    }

    fn damaged(&self, segment: &Segment, position: u64, reason: &str) -> ReadError {
        segment.note_damage();
        ReadError::Damaged { path: segment.path.display().to_string(), position, reason: reason.to_owned() }
    }

    /// The batch at `position`, and what follows it, from where cold data is read to; with `wants_batches` it is read there now. `None`
    /// where the page cache has it, or it is not sound: that is for the reader of the batch to tell.
    async fn cold_batch(
        &self,
        file: &Rc<dyn File>,
        segment: &Arc<Segment>,
        position: u64,
        len: usize,
        wants_batches: bool,
    ) -> Option<Bytes> {
        if let Some(have) = self.cold.peek(segment, position) {
            return Some(have);
        }
        if !wants_batches || self.is_cached(file, position, len as u64) {
            return None;
        }
        self.cold.read(segment, position, segment.file_bytes()).await.ok().flatten()
    }

    /// `len` bytes at `position` of a segment, copied out of the tail or read from the file.
    async fn read_bytes(
        &self,
        view: &View,
        segment: &Arc<Segment>,
        position: u64,
        len: usize,
        wants_batches: bool,
    ) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(io::Error::from)?;
        let end = position + len as u64;
        let tail_start = pieces_of(view, segment).next().map_or(u64::MAX, |piece| piece.start);
        if position < tail_start {
            let file = self.files.open(segment.id, Purpose::Read, &segment.path).await?;
            let wanted = (end.min(tail_start) - position) as usize;
            if let Some(have) = self.cold_batch(&file, segment, position, wanted, wants_batches).await {
                bytes.extend_from_slice(&have[..wanted.min(have.len())]);
            }
            let (position, wanted) = (position + bytes.len() as u64, wanted - bytes.len());
            if wanted > 0 {
                // Not into the page cache, from where it would be sent on: who looks for a batch has not checked it.
                let is_cached = self.is_cached(&file, position, wanted as u64);
                let skip = if is_cached { 0 } else { (position % BLOCK_BYTES as u64) as usize };
                let (file, len) = if is_cached {
                    (file, wanted)
                } else {
                    let direct = self.files.open(segment.id, Purpose::ReadDirect, &segment.path).await?;
                    (direct, (skip + wanted).next_multiple_of(BLOCK_BYTES))
                };
                let buffer = self.pool.buffer_or_more(len)?;
                let (buffer, read) = file.read_at(buffer, len, position - skip as u64).await?;
                if read < skip + wanted {
                    return Err(self.damaged(segment, position, "the file is shorter than it has to be"));
                }
                bytes.extend_from_slice(&buffer[skip..skip + wanted]);
            }
        }
        for piece in pieces_of(view, segment) {
            let at = position + bytes.len() as u64;
            let published = piece.chunk.bytes();
            let piece_end = piece.position + published.len() as u64;
            if at < end && at >= piece.position && at < piece_end {
                let to = end.min(piece_end);
                bytes.extend_from_slice(&published[(at - piece.position) as usize..(to - piece.position) as usize]);
            }
        }
        if bytes.len() < len {
            return Err(self.damaged(segment, position, "bytes are missing"));
        }
        Ok(bytes)
    }
}

/// The pieces of the tail that belong to a segment, in order.
fn pieces_of<'a>(view: &'a View, segment: &'a Arc<Segment>) -> impl Iterator<Item = &'a Arc<TailPiece>> {
    view.tail.iter().filter(move |piece| Arc::ptr_eq(&piece.segment, segment))
}
