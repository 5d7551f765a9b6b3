//! What a partition shows to every core: positions in atomics, and an immutable view of its segments and its tail. The
//! partition's own core writes it, any core reads it without a lock and without a message.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;

use crate::memory::Chunk;
use crate::segment::index::{IndexEntry, TimeEntry};
use crate::types::{LeaderEpoch, Offset, TimestampMs};

/// The indexes of a segment that is still written to: append-only, read without a lock.
#[derive(Default)]
pub struct LiveIndex {
    /// Offset → position.
    pub offsets: boxcar::Vec<IndexEntry>,
    /// Timestamp → offset.
    pub times: boxcar::Vec<TimeEntry>,
}

impl LiveIndex {
    /// The last entry whose batch ends at or below `offset`.
    #[must_use]
    pub fn floor(&self, offset: Offset) -> Option<IndexEntry> {
        let at = partition_point(&self.offsets, |entry| entry.last_offset <= offset);
        at.checked_sub(1).and_then(|at| self.offsets.get(at).copied())
    }

    /// The last entry that is older than `timestamp`.
    #[must_use]
    pub fn floor_time(&self, timestamp: TimestampMs) -> Option<TimeEntry> {
        let at = partition_point(&self.times, |entry| entry.timestamp < timestamp);
        at.checked_sub(1).and_then(|at| self.times.get(at).copied())
    }
}

fn partition_point<T>(entries: &boxcar::Vec<T>, mut below: impl FnMut(&T) -> bool) -> usize {
    let (mut low, mut high) = (0, entries.count());
    while low < high {
        let middle = low + (high - low) / 2;
        match entries.get(middle) {
            Some(entry) if below(entry) => low = middle + 1,
            _ => high = middle,
        }
    }
    low
}

/// Whether a segment's files are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Standing {
    /// They are.
    Current,
    /// Another segment has taken its place, or will in a moment: what its path leads to may be the other's. Files that are open
    /// are still its own.
    Replacing,
    /// Nobody knows what its path leads to: a compaction failed half way.
    Lost,
}

/// One segment, as every core sees it.
pub struct Segment {
    /// A number that no other segment of this process has: the key of caches.
    pub id: u64,
    /// The offset its name says; no record in it has a smaller one.
    pub base_offset: Offset,
    /// Its `.log` file.
    pub path: PathBuf,
    visible_bytes: AtomicU64,
    file_bytes: AtomicU64,
    end_offset: AtomicI64,
    max_timestamp: AtomicI64,
    max_timestamp_offset: AtomicI64,
    is_max_timestamp_claimed: AtomicBool,
    first_timestamp: AtomicI64,
    standing: AtomicU8,
    damaged: AtomicBool,
    /// The indexes, while the segment is written to. Afterwards they are read from their files.
    pub live_index: ArcSwapOption<LiveIndex>,
    /// Where it was read from the disk, a bit for each [`COLD_REGION_BYTES`] of the largest segment that there can be.
    cold_regions: [AtomicU64; 32],
}

/// See [`Segment::was_cold_read`].
const COLD_REGION_BYTES: u64 = 1 << 20;

static SEGMENT_IDS: AtomicU64 = AtomicU64::new(1);

impl Segment {
    /// A segment whose file holds `bytes`, all visible.
    #[must_use]
    pub fn new(base_offset: Offset, path: PathBuf, bytes: u64, end_offset: Offset) -> Self {
        Self {
            id: SEGMENT_IDS.fetch_add(1, Ordering::Relaxed),
            base_offset,
            path,
            visible_bytes: AtomicU64::new(bytes),
            file_bytes: AtomicU64::new(bytes),
            end_offset: AtomicI64::new(end_offset.0),
            max_timestamp: AtomicI64::new(TimestampMs::NONE.0),
            max_timestamp_offset: AtomicI64::new(-1),
            is_max_timestamp_claimed: AtomicBool::new(false),
            first_timestamp: AtomicI64::new(TimestampMs::NONE.0),
            standing: AtomicU8::new(Standing::Current as u8),
            damaged: AtomicBool::new(false),
            live_index: ArcSwapOption::empty(),
            cold_regions: [const { AtomicU64::new(0) }; 32],
        }
    }

    /// Notes that the disk was read from `position` to `end`. The region in which that ends is left to whoever reads on, unless
    /// nothing follows.
    pub(crate) fn note_cold_read(&self, position: u64, end: u64) {
        let end = if end >= self.file_bytes() { end } else { end.saturating_sub(end % COLD_REGION_BYTES) };
        let mut at = position;
        while at < end {
            if let Some((word, bit)) = self.cold_region(at) {
                word.fetch_or(bit, Ordering::Relaxed);
            }
            at = (at / COLD_REGION_BYTES + 1) * COLD_REGION_BYTES;
        }
    }

    /// Whether the disk was read around `position` before: what is read again and again belongs in the page cache, what is
    /// read once does not.
    pub(crate) fn was_cold_read(&self, position: u64) -> bool {
        self.cold_region(position).is_none_or(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn cold_region(&self, position: u64) -> Option<(&AtomicU64, u64)> {
        let region = position / COLD_REGION_BYTES;
        Some((self.cold_regions.get((region / 64) as usize)?, 1 << (region % 64)))
    }

    /// Notes that something in its file is not what was written.
    pub(crate) fn note_damage(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    /// Whether damage was met in its file: whoever met it may have brought it into the page cache, so that what is there has to be
    /// checked like what comes from the disk.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// How many of its bytes are below the high watermark: what consumers may see.
    #[must_use]
    pub fn visible_bytes(&self) -> u64 {
        self.visible_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn set_visible_bytes(&self, bytes: u64) {
        self.visible_bytes.store(bytes, Ordering::Release);
    }

    /// How many of its bytes the file holds; the rest is in the tail.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn set_file_bytes(&self, bytes: u64) {
        self.file_bytes.store(bytes, Ordering::Release);
    }

    /// The offset after its last record, visible or not.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        Offset(self.end_offset.load(Ordering::Acquire))
    }

    pub(crate) fn set_end_offset(&self, offset: Offset) {
        self.end_offset.store(offset.0, Ordering::Release);
    }

    /// The largest timestamp in it and the last offset of the batch that has it.
    #[must_use]
    pub fn max_timestamp(&self) -> (TimestampMs, Offset) {
        (TimestampMs(self.max_timestamp.load(Ordering::Acquire)), Offset(self.max_timestamp_offset.load(Ordering::Acquire)))
    }

    pub(crate) fn set_max_timestamp(&self, timestamp: TimestampMs, offset: Offset) {
        self.max_timestamp_offset.store(offset.0, Ordering::Release);
        self.max_timestamp.store(timestamp.0, Ordering::Release);
    }

    /// What its time index says is its largest timestamp. That has no checksum: nothing is deleted, and nothing left out of a search,
    /// for its sake before it was held against the batches ([`Reader::hold_max_timestamp`](super::read::Reader::hold_max_timestamp)).
    pub(crate) fn claim_max_timestamp(&self, timestamp: TimestampMs, offset: Offset) {
        self.is_max_timestamp_claimed.store(true, Ordering::Release);
        self.set_max_timestamp(timestamp, offset);
    }

    /// Whether [`Self::max_timestamp`] is what its time index says, and was not held against its batches yet.
    #[must_use]
    pub fn is_max_timestamp_claimed(&self) -> bool {
        self.is_max_timestamp_claimed.load(Ordering::Acquire)
    }

    /// Its batches have this largest timestamp.
    pub(crate) fn confirm_max_timestamp(&self, timestamp: TimestampMs, offset: Offset) {
        self.set_max_timestamp(timestamp, offset);
        self.is_max_timestamp_claimed.store(false, Ordering::Release);
    }

    /// The timestamp of its first batch, once it is sealed: about that, where it was read from an index.
    pub(crate) fn first_timestamp(&self) -> TimestampMs {
        TimestampMs(self.first_timestamp.load(Ordering::Relaxed))
    }

    pub(crate) fn set_first_timestamp(&self, timestamp: Option<TimestampMs>) {
        self.first_timestamp.store(timestamp.unwrap_or(TimestampMs::NONE).0, Ordering::Relaxed);
    }

    /// Asked after its files were opened or read by their path: only then the answer says whose they were.
    pub(crate) fn standing(&self) -> Standing {
        match self.standing.load(Ordering::SeqCst) {
            0 => Standing::Current,
            1 => Standing::Replacing,
            _ => Standing::Lost,
        }
    }

    /// Said before the names of its files change.
    pub(crate) fn set_standing(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::SeqCst);
    }
}

/// A piece of the tail, as every core sees it: a chunk whose first byte stands at `position` of the segment's file.
pub struct TailPiece {
    /// The segment that the bytes belong to.
    pub segment: Arc<Segment>,
    /// The file position of the chunk's first byte; a multiple of the block size.
    pub position: u64,
    /// Where the piece's own bytes begin; before it lies what the file already has.
    pub start: u64,
    /// The memory.
    pub chunk: Arc<Chunk>,
}

/// The segments and the tail at one moment.
pub struct View {
    /// All segments by base offset; the last one is active.
    pub segments: Arc<[Arc<Segment>]>,
    /// The tail, oldest first: without a gap up to the log's end.
    pub tail: Vec<Arc<TailPiece>>,
}

/// The state of a partition that any core may read.
pub struct Published {
    log_start: AtomicI64,
    high_watermark: AtomicI64,
    log_end: AtomicI64,
    leader_epoch: AtomicI32,
    size_bytes: AtomicU64,
    /// Whether it is deleted: its files' names may be another's by now.
    is_deleted: AtomicBool,
    /// Segments and tail. Swapped when a piece or a segment comes or goes, not at every append.
    pub view: ArcSwap<View>,
    /// Told when a segment was replaced by compaction.
    replaced: Notify,
    /// How many [`CompactionHold`]s there are.
    compaction_holds: AtomicUsize,
}

/// Nothing of the partition is compacted as long as this lives: whoever reads it from its beginning sees a tombstone of each value
/// that was deleted. Without it a cleaning could take both away while the value has been read and the tombstone has not, where
/// `delete.retention.ms` is shorter than the reading takes.
pub struct CompactionHold(Arc<Published>);

impl Drop for CompactionHold {
    fn drop(&mut self) {
        self.0.compaction_holds.fetch_sub(1, Ordering::Release);
    }
}

impl Published {
    pub(crate) fn new() -> Self {
        Self {
            log_start: AtomicI64::new(0),
            high_watermark: AtomicI64::new(0),
            log_end: AtomicI64::new(0),
            leader_epoch: AtomicI32::new(LeaderEpoch::NONE.0),
            size_bytes: AtomicU64::new(0),
            is_deleted: AtomicBool::new(false),
            view: ArcSwap::from_pointee(View { segments: Arc::from([]), tail: Vec::new() }),
            replaced: Notify::new(),
            compaction_holds: AtomicUsize::new(0),
        }
    }

    /// Whether the partition is deleted: what is found where its files were may be another's.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Acquire)
    }

    pub(crate) fn set_deleted(&self) {
        self.is_deleted.store(true, Ordering::Release);
    }

    /// Holds compaction back.
    #[must_use]
    pub fn hold_compaction(self: &Arc<Self>) -> CompactionHold {
        self.compaction_holds.fetch_add(1, Ordering::AcqRel);
        CompactionHold(self.clone())
    }

    pub(crate) fn is_compaction_held(&self) -> bool {
        self.compaction_holds.load(Ordering::Acquire) > 0
    }

    /// A segment was replaced, or could not be: whoever waits for that looks again.
    pub(crate) fn tell_replaced(&self) {
        self.replaced.notify_waiters();
    }

    /// Waits while segments of this view are being replaced, and returns once there is another view, or they are lost.
    pub(crate) async fn replacement_of(&self, view: &Arc<View>) {
        loop {
            let mut told = std::pin::pin!(self.replaced.notified());
            told.as_mut().enable();
            let is_lost = view.segments.iter().any(|segment| segment.standing() == Standing::Lost);
            if is_lost || !Arc::ptr_eq(view, &self.view.load()) {
                return;
            }
            told.await;
        }
    }

    /// The first offset that may be read.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        Offset(self.log_start.load(Ordering::Acquire))
    }

    pub(crate) fn set_log_start(&self, offset: Offset) {
        self.log_start.store(offset.0, Ordering::Release);
    }

    /// The offset up to which records are visible: they cannot be lost any more.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        Offset(self.high_watermark.load(Ordering::Acquire))
    }

    pub(crate) fn set_high_watermark(&self, offset: Offset) {
        let before = self.high_watermark.load(Ordering::Relaxed);
        assert!(offset.0 >= before, "HighWatermarkNeverRetreats: {before} to {offset}");
        self.high_watermark.store(offset.0, Ordering::Release);
    }

    /// The offset up to which no transaction is open. Without transactions, the high watermark.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        self.high_watermark()
    }

    /// The offset that the next record will get.
    #[must_use]
    pub fn log_end(&self) -> Offset {
        Offset(self.log_end.load(Ordering::Acquire))
    }

    pub(crate) fn set_log_end(&self, offset: Offset) {
        self.log_end.store(offset.0, Ordering::Release);
    }

    /// The leader's epoch.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.leader_epoch.load(Ordering::Acquire))
    }

    pub(crate) fn set_leader_epoch(&self, epoch: LeaderEpoch) {
        self.leader_epoch.store(epoch.0, Ordering::Release);
    }

    /// The size of all segments in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_size_bytes(&self, bytes: u64) {
        self.size_bytes.store(bytes, Ordering::Relaxed);
    }
}
