//! Reads segments and writes new ones beside them, for compaction: in steps, each one read, one piece of work on the background
//! thread, one write. Reads and writes go around the page cache. What looks into batches (checksums, decompression, keys,
//! the making of batches) never runs on the core. Nothing here touches the log; see [`super::swap`].

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::batch::{self, BatchError, BatchHeader, BatchView};
use crate::disk::{BLOCK_BYTES, Create, Disk, File, OpenOptions, Payload};
use crate::env::{self, Env};
use crate::log::LiveSegment;
use crate::log::compaction::filter::Filter;
use crate::log::compaction::offset_map::Full;
use crate::log::compaction::swap::path_of;
use crate::log::published::Segment;
use crate::memory::{Buffer, Pool};
use crate::segment::index;
use crate::segment::names::{FileKind, FileState};
use crate::types::{Offset, TimestampMs};

/// The largest position that an index can hold.
const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;
/// The largest batch that is compacted: what a request may take by default (`socket.request.max.bytes`). A length that is damaged
/// would ask for a buffer as large as the segment.
const BATCH_BYTES_MAX: usize = 100 << 20;
/// The longest that a step is held back, and how often it is asked meanwhile whether it is still wanted.
const WAIT_SECONDS_MAX: f64 = 3600.0;
const WAIT_STEP: Duration = Duration::from_millis(100);
/// How much of an index one write takes.
const INDEX_WRITE_BYTES: usize = 256 << 10;

/// Why a cleaning did not come to its end. The log is as it was.
#[derive(Debug, Error)]
pub(crate) enum CleanError {
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The log is damaged, or cannot be cleaned as it is.
    #[error("{path}: position {position}: {reason}")]
    Unfit {
        /// The segment.
        path: String,
        /// Where in it.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// Nobody wants it any more: the broker stops, or the partition or its segments are gone.
    #[error("it is not wanted any more")]
    Abandoned,
}

/// What cleaning runs on.
pub(crate) struct CleanIo<'a> {
    pub(crate) disk: &'a Rc<dyn Disk>,
    pub(crate) env: &'a Rc<dyn Env>,
    pub(crate) pool: &'a Pool,
    /// How much a step reads, and writes.
    pub(crate) step_bytes: usize,
    /// `log.cleaner.io.max.bytes.per.second`: reads and writes together.
    pub(crate) bytes_per_second_max: f64,
    /// Whether it is still wanted; asked at every step.
    pub(crate) is_wanted: &'a dyn Fn() -> bool,
}

impl CleanIo<'_> {
    /// Waits as long as so many bytes are to take.
    async fn spend(&self, bytes: usize) {
        let seconds = bytes as f64 / self.bytes_per_second_max;
        // An endless wait would never be asked whether it is still wanted; shorter ones than a timer can tell are none.
        let mut left =
            Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.0, WAIT_SECONDS_MAX) } else { WAIT_SECONDS_MAX });
        while left >= Duration::from_micros(100) && (self.is_wanted)() {
            let now = left.min(WAIT_STEP);
            self.env.sleep(now).await;
            left -= now;
        }
    }
}

/// A part of a segment's file that begins with a batch.
struct Piece {
    buffer: Buffer,
    range: Range<usize>,
    /// Where the range begins in the file.
    position: u64,
    /// Whether the file ends with it.
    is_end: bool,
}

/// Reads a segment's file piece by piece.
struct Source {
    path: PathBuf,
    file: Rc<dyn File>,
    bytes: u64,
    position: u64,
    wanted: usize,
}

impl Source {
    async fn open(io: &CleanIo<'_>, segment: &Segment) -> Result<Self, CleanError> {
        let options = OpenOptions { create: Create::Never, write: false, direct: true };
        let file = io.disk.open(&segment.path, options).await?;
        Ok(Self { path: segment.path.clone(), file, bytes: segment.file_bytes(), position: 0, wanted: io.step_bytes })
    }

    fn is_read(&self) -> bool {
        self.position >= self.bytes
    }

    async fn next(&mut self, io: &CleanIo<'_>) -> Result<Piece, CleanError> {
        let block = self.position / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let skip = (self.position - block) as usize;
        let len = (skip + self.wanted).next_multiple_of(BLOCK_BYTES);
        let buffer = io.pool.buffer_or_more(len)?;
        let (buffer, read) = self.file.read_at(buffer, len, block).await?;
        io.spend(read).await;
        let end = read.min(usize::try_from(self.bytes - block).unwrap_or(usize::MAX));
        let is_end = block + end as u64 == self.bytes;
        if end <= skip || (!is_end && end < len) {
            return Err(self.unfit("the file is shorter than it has to be"));
        }
        Ok(Piece { buffer, range: skip..end, position: self.position, is_end })
    }

    /// Goes on behind what was worked on. Nothing was: a batch is larger than the piece.
    fn advance(&mut self, io: &CleanIo<'_>, piece: &Piece, worked: usize) -> Result<(), CleanError> {
        self.position = piece.position + worked as u64;
        self.wanted = io.step_bytes;
        if worked > 0 && (!piece.is_end || worked == piece.range.len()) {
            return Ok(());
        }
        let bytes = &piece.buffer[piece.range.clone()][worked..];
        let needed = match BatchHeader::parse(bytes) {
            Ok(header) => header.size_bytes(),
            Err(BatchError::TooShort { .. }) if !piece.is_end => batch::HEADER_BYTES,
            Err(error) => return Err(self.unfit(&error.to_string())),
        };
        if needed > BATCH_BYTES_MAX {
            return Err(self.unfit(&format!("a batch of {needed} bytes is larger than any that is compacted")));
        }
        if self.position + needed as u64 > self.bytes {
            return Err(self.unfit("the segment ends within a batch"));
        }
        self.wanted = needed.max(io.step_bytes);
        Ok(())
    }

    fn unfit(&self, reason: &str) -> CleanError {
        CleanError::Unfit { path: self.path.display().to_string(), position: self.position, reason: reason.to_owned() }
    }
}

/// The whole batches at the front of a piece, each with its checksum checked, until `work` says stop. How many bytes they take.
fn each_batch(
    piece: &Piece,
    mut work: impl FnMut(&BatchView<'_>, bool) -> Result<bool, BatchError>,
) -> (usize, Option<BatchError>) {
    let bytes = &piece.buffer[piece.range.clone()];
    let mut worked = 0;
    loop {
        let rest = &bytes[worked..];
        let batch = match batch::split_first(rest) {
            Ok(Some((batch, _))) => batch,
            // What is left over is looked at again, with more behind it.
            Ok(None) => return (worked, None),
            Err(error) => return (worked, Some(error)),
        };
        let size = batch.bytes().len();
        let is_last = piece.is_end && size == rest.len();
        match batch.check_crc().and_then(|()| work(&batch, is_last)) {
            Ok(true) => worked += size,
            Ok(false) => return (worked, None),
            Err(error) => return (worked, Some(error)),
        }
    }
}

/// Runs a piece of work on the background thread.
async fn in_background<T: Send + 'static>(io: &CleanIo<'_>, job: impl FnOnce() -> T + Send + 'static) -> Result<T, CleanError> {
    if !(io.is_wanted)() {
        return Err(CleanError::Abandoned);
    }
    let done = env::in_background(&**io.env, job).await;
    done.ok_or_else(|| CleanError::Io(io::Error::other("the background thread is gone")))
}

/// Notes the keys of a segment in the filter's map, from `from` on. Gives the filter back, and whether the map is full.
pub(crate) async fn note_segment(
    io: &CleanIo<'_>,
    mut filter: Box<Filter>,
    segment: &Segment,
    from: Offset,
) -> Result<(Box<Filter>, bool), CleanError> {
    let mut source = Source::open(io, segment).await?;
    while !source.is_read() {
        let piece = source.next(io).await?;
        let work = move || {
            let mut full = None;
            let (worked, error) = each_batch(&piece, |batch, _| {
                full = filter.note(batch, from)?.err();
                Ok(full.is_none())
            });
            (filter, piece, worked, error, full)
        };
        let (back, piece, worked, error, full) = in_background(io, work).await?;
        filter = back;
        if let Some(Full) = full {
            return Ok((filter, true));
        }
        source.advance(io, &piece, worked)?;
        if let Some(error) = error {
            return Err(source.unfit(&error.to_string()));
        }
    }
    filter.covered = filter.covered.max(segment.end_offset());
    Ok((filter, false))
}

/// A segment that was made of others and lies beside them, synced, under the names that end with `.cleaned`.
pub(crate) struct Cleaned {
    pub(crate) bytes: u64,
    /// Which files there are.
    pub(crate) kinds: Vec<FileKind>,
    pub(crate) records_dropped: u64,
    /// Whether it has the same batches, so that nothing is gained by it.
    pub(crate) is_same: bool,
    pub(crate) newest: (TimestampMs, Offset),
    pub(crate) oldest: Option<TimestampMs>,
}

/// What is being made, on its way to the background thread and back.
struct Making {
    filter: Box<Filter>,
    index: LiveSegment,
    index_interval_bytes: u64,
    /// How long the segment is so far.
    bytes: u64,
    /// What is made and not written.
    out: Vec<u8>,
    records_dropped: u64,
    is_same: bool,
}

impl Making {
    fn take(&mut self, piece: &Piece, is_last_segment: bool) -> (usize, Option<BatchError>) {
        each_batch(piece, |batch, is_last| {
            // The last batch of a segment says up to where it goes: where the next one begins, and where the log ends.
            let kept = self.filter.filter(batch, is_last && is_last_segment, &mut self.out)?;
            self.records_dropped += kept.records_dropped;
            self.is_same &= kept.is_same;
            if let Some(header) = kept.batch {
                let size = header.size_bytes() as u64;
                self.index.note(&header, self.bytes, self.index_interval_bytes, Offset(i64::MAX));
                self.bytes += size;
            }
            Ok(true)
        })
    }

    /// Moves whole blocks, as many as fit, to the front of `buffer`; with `all` the last one too, filled up with zeros.
    fn give(&mut self, buffer: &mut Buffer, all: bool) -> usize {
        let room = buffer.len() / BLOCK_BYTES * BLOCK_BYTES;
        let mut len = (self.out.len() / BLOCK_BYTES * BLOCK_BYTES).min(room);
        buffer[..len].copy_from_slice(&self.out[..len]);
        let mut taken = len;
        if all && len == self.out.len() / BLOCK_BYTES * BLOCK_BYTES && len < room && len < self.out.len() {
            taken = self.out.len();
            buffer[len..taken].copy_from_slice(&self.out[len..]);
            buffer[taken..len + BLOCK_BYTES].fill(0);
            len += BLOCK_BYTES;
        }
        self.out.drain(..taken);
        len
    }
}

/// The files of the segment that is being made.
pub(crate) struct Files {
    log: Rc<dyn File>,
    offsets: Rc<dyn File>,
    times: Rc<dyn File>,
    /// What the segments know of aborted transactions, where they know any, and the file for it.
    aborted: Option<(Rc<dyn File>, Vec<u8>)>,
}

impl Files {
    /// Makes them, empty, for the segment that a group becomes. The partition's files are locked, so that they are the
    /// partition's.
    pub(crate) async fn create(disk: &Rc<dyn Disk>, directory: &Path, group: &[Arc<Segment>], base: Offset) -> io::Result<Self> {
        let path = |kind| path_of(directory, base, kind, FileState::Cleaned);
        let aborted = transaction_indexes(disk, group).await?;
        let transactions = path(FileKind::TransactionIndex);
        let aborted = if aborted.is_empty() {
            // One that an earlier try left would say at start that this one was not over.
            match disk.remove_file(&transactions).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => None,
            }
        } else {
            Some((disk.open(&transactions, OpenOptions::WRITE).await?, aborted))
        };
        let files = Self {
            log: disk.open(&path(FileKind::Log), OpenOptions::DIRECT).await?,
            offsets: disk.open(&path(FileKind::OffsetIndex), OpenOptions::WRITE).await?,
            times: disk.open(&path(FileKind::TimeIndex), OpenOptions::WRITE).await?,
            aborted,
        };
        for file in [&files.log, &files.offsets, &files.times].into_iter().chain(files.aborted.as_ref().map(|(file, _)| file)) {
            // An earlier try may have left something.
            file.set_len(0).await?;
        }
        Ok(files)
    }
}

/// Makes one segment of a group. Gives the filter back.
pub(crate) async fn clean_group(
    io: &CleanIo<'_>,
    filter: Box<Filter>,
    group: &[Arc<Segment>],
    index_interval_bytes: u64,
    files: &Files,
) -> Result<(Box<Filter>, Cleaned), CleanError> {
    let Some(base) = group.first().map(|segment| segment.base_offset) else { return Err(CleanError::Abandoned) };
    let index = LiveSegment::new();
    let (bytes, records_dropped) = (0, 0);
    let mut making =
        Making { filter, index, index_interval_bytes, bytes, out: Vec::new(), records_dropped, is_same: group.len() == 1 };
    let mut written = 0;
    for (at, segment) in group.iter().enumerate() {
        let mut source = Source::open(io, segment).await?;
        while !source.is_read() {
            let piece = source.next(io).await?;
            let is_last_segment = at + 1 == group.len();
            let work = move || {
                let (worked, error) = making.take(&piece, is_last_segment);
                (making, piece, worked, error)
            };
            let (back, piece, worked, error) = in_background(io, work).await?;
            making = back;
            source.advance(io, &piece, worked)?;
            if let Some(error) = error {
                return Err(source.unfit(&error.to_string()));
            }
            if making.bytes > SEGMENT_BYTES_MAX {
                return Err(source.unfit("what is left of it, compressed anew, is larger than a segment can be"));
            }
            while making.out.len() >= io.step_bytes {
                making = write(io, &files.log, making, &mut written, false).await?;
            }
        }
    }
    while !making.out.is_empty() {
        making = write(io, &files.log, making, &mut written, true).await?;
    }
    files.log.set_len(making.bytes).await?;
    files.log.sync_data().await?;
    let work = move || {
        making.index.close();
        let (offsets, times) = making.index.index.encode(base);
        (making, offsets, times)
    };
    let (making, offsets, times) = in_background(io, work).await?;
    let mut kinds = vec![FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::Log];
    write_index(&files.offsets, &offsets).await?;
    write_index(&files.times, &times).await?;
    if let Some((file, aborted)) = &files.aborted {
        write_index(file, aborted).await?;
        kinds.insert(0, FileKind::TransactionIndex);
    }
    let cleaned = Cleaned {
        bytes: making.bytes,
        kinds,
        records_dropped: making.records_dropped,
        is_same: making.is_same,
        newest: (making.index.max_timestamp, making.index.max_timestamp_offset),
        oldest: making.index.first_timestamp,
    };
    Ok((making.filter, cleaned))
}

async fn write(
    io: &CleanIo<'_>,
    file: &Rc<dyn File>,
    mut making: Making,
    written: &mut u64,
    all: bool,
) -> Result<Making, CleanError> {
    let len = io.step_bytes.next_multiple_of(BLOCK_BYTES);
    let mut buffer = io.pool.buffer_or_more(len)?;
    let work = move || {
        let len = making.give(&mut buffer, all);
        (making, buffer, len)
    };
    let (making, buffer, len) = in_background(io, work).await?;
    file.write_at(Payload::Buffer { buffer, len }, *written).await?;
    io.spend(len).await;
    *written += len as u64;
    Ok(making)
}

async fn write_index(file: &Rc<dyn File>, bytes: &[u8]) -> io::Result<()> {
    let mut at = 0;
    for piece in bytes.chunks(INDEX_WRITE_BYTES) {
        file.write_at(Payload::Bytes(piece.to_vec()), at).await?;
        at += piece.len() as u64;
    }
    file.sync_data().await
}

/// What the segments' lists of aborted transactions hold, one behind the other: an entry says all by itself.
async fn transaction_indexes(disk: &Rc<dyn Disk>, group: &[Arc<Segment>]) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    for segment in group {
        match crate::disk::read_file(disk, &segment.path.with_extension("txnindex")).await {
            Ok(bytes) => all.extend_from_slice(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

impl crate::log::published::LiveIndex {
    /// The bytes of both index files of a segment with this base offset.
    pub(crate) fn encode(&self, base: Offset) -> (Vec<u8>, Vec<u8>) {
        let (mut offsets, mut times) = (Vec::new(), Vec::new());
        for (_, entry) in &self.offsets {
            index::push_offset_entry(&mut offsets, base, entry.last_offset, entry.position);
        }
        for (_, entry) in &self.times {
            index::push_time_entry(&mut times, base, entry.timestamp, entry.offset);
        }
        (offsets, times)
    }
}

#[cfg(test)]
mod tests;
