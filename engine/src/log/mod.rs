//! One partition's log on the core that owns it. [`Log`] itself does no I/O: it takes batches into its [`tail`], says what the
//! journal and the segment files are to be given, and moves its positions when it is told that they have it. The core drives
//! it ([`crate::core`]); [`flush`], [`side_files`], [`open`] and [`compaction`] are the parts that wait for the disk. Readers on any core see [`published`].
//!
//! Positions, in the stream of bytes since the log was opened, and what holds between them (checked by assertions):
//! `settled ≤ flushed ≤ committed ≤ journaled ≤ end`, where `committed` is `synced` for a durable topic and `written` for
//! another, and never goes back when a topic's options change.
//!
//! | position | everything below it |
//! |---|---|
//! | `end` | is in the tail |
//! | `journaled` | has been given to a round, perhaps still in flight |
//! | `written` | is in the journal, or straight in the segment file, written: survives a crash of the process |
//! | `synced` | is there, synced: survives a loss of power |
//! | `flushed` | is written to segment files |
//! | `settled` | is synced in segment files: the journal may forget it |

pub mod append;
pub mod checkpoint;
pub(crate) mod cold;
pub(crate) mod compaction;
pub mod config;
pub mod epochs;
pub(crate) mod flush;
pub mod inflow;
pub(crate) mod journaling;
pub mod open;
pub mod producer_snapshot;
pub mod producers;
pub mod published;
pub mod read;
pub mod retention;
pub mod scan;
pub(crate) mod scrub;
pub(crate) mod side_files;
pub(crate) mod straight;
pub(crate) mod tail;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use crate::types::{LeaderEpoch, Offset, PartitionId, TimestampMs};
use append::Pending;
use config::LogConfig;
use epochs::LeaderEpochs;
use producers::ProducerStates;
use published::{LiveIndex, Published, Segment, View};
use tail::Tail;

/// A segment, as the log that owns it sees it.
pub(crate) struct SegmentState {
    pub(crate) shared: Arc<Segment>,
    /// Where it begins in the stream.
    pub(crate) stream: u64,
    /// How long it is, tail included.
    pub(crate) bytes: u64,
    /// While it is written to, or not all in its file yet.
    pub(crate) live: Option<LiveSegment>,
    /// When it was begun or, before this start, opened; what `segment.ms` counts from where its batches have no timestamp.
    pub(crate) created: TimestampMs,
    /// When the last batch came; of a segment that no batch came to since the start, when its file was written. What `retention.ms`
    /// counts from where its batches have no timestamp.
    pub(crate) modified: TimestampMs,
}

/// What only a segment needs that is still written to.
pub(crate) struct LiveSegment {
    pub(crate) index: Arc<LiveIndex>,
    /// The timestamp that `segment.ms` counts from.
    pub(crate) first_timestamp: Option<TimestampMs>,
    /// Where the batch of the index's last entry begins; 0 without one.
    pub(crate) indexed_at: u64,
    pub(crate) max_timestamp: TimestampMs,
    pub(crate) max_timestamp_offset: Offset,
    /// The largest timestamps so far, as they grew: the last committed one, and all behind it, so that a cut finds back.
    pub(crate) maxima: VecDeque<(TimestampMs, Offset)>,
    /// How many entries of each index are in the index files.
    pub(crate) offsets_saved: usize,
    pub(crate) times_saved: usize,
    /// How many of both a good sync has covered: whatever fails later, those are not written again. The recovery point may have
    /// passed them, and a crash in the middle of the writing would leave them torn for good.
    pub(crate) indexes_synced: (usize, usize),
    /// Whether the file's name is durable.
    pub(crate) name_synced: bool,
    /// How many writes and cuts of the file were begun …
    pub(crate) changes: u64,
    /// … and how many of them a good sync has covered.
    pub(crate) changes_synced: u64,
    /// Whether the file's last block was padded, so that the file is longer than the segment.
    pub(crate) padded: bool,
}

impl LiveSegment {
    /// How many entries each index has.
    pub(crate) fn index_counts(&self) -> (usize, usize) {
        (self.index.offsets.count(), self.index.times.count())
    }

    /// Whether the file has what was not synced.
    pub(crate) fn file_dirty(&self) -> bool {
        self.changes > self.changes_synced
    }
}

/// A producer snapshot that was taken and not written.
pub(crate) struct SnapshotDue {
    pub(crate) offset: Offset,
    pub(crate) stream: u64,
    pub(crate) bytes: Vec<u8>,
    /// [`ProducerStates::changes`] at that offset.
    pub(crate) changes: u64,
    pub(crate) synced: bool,
}

impl SegmentState {
    pub(crate) fn end(&self) -> u64 {
        self.stream + self.bytes
    }

    /// How long it has been written to, for `segment.ms`, when a batch of the time `newest` comes: by its batches' timestamps or,
    /// where they have none, by the clock.
    pub(crate) fn age_ms(&self, newest: TimestampMs, now: TimestampMs) -> i64 {
        match self.live.as_ref().and_then(|live| live.first_timestamp) {
            Some(first) => newest.0.saturating_sub(first.0),
            None => now.0.saturating_sub(self.created.0),
        }
    }
}

/// A partition's log. See the module.
pub struct Log {
    id: PartitionId,
    directory: PathBuf,
    config: Arc<LogConfig>,
    published: Arc<Published>,
    segments: VecDeque<SegmentState>,
    tail: Tail,
    /// The bytes of the file's last, partly filled block while the tail is empty.
    partial: Vec<u8>,
    /// The last one is the current leader's from the opening on, and begins where the log ended then: no append changes them, and no
    /// cut, since nothing below that is cut.
    epochs: LeaderEpochs,
    epochs_dirty: bool,
    producers: ProducerStates,
    /// Snapshots of the producers that wait until the files hold what they cover.
    snapshots_due: Vec<SnapshotDue>,
    /// The stream position of the newest snapshot.
    snapshot_stream: u64,
    /// The snapshot files, oldest first.
    snapshot_files: VecDeque<Offset>,
    /// [`ProducerStates::changes`] of what the newest of them holds, where that is known.
    snapshot_changes_saved: Option<u64>,
    /// The newest of them that a loss of power cannot take.
    snapshot_synced: Option<Offset>,
    /// The stream position up to which index entries were saved when that was due last.
    indexed_stream: u64,

    end: u64,
    end_offset: Offset,
    journaled: u64,
    written: u64,
    synced: u64,
    synced_offset: Offset,
    /// When the oldest unsynced record was appended, for `flush.ms`.
    unsynced_since: TimestampMs,
    /// The stream position of the high watermark.
    visible: u64,
    flushed: u64,
    settled: u64,
    settled_offset: Offset,
    /// Up to where the active segment's file may have bytes of a run that failed to go straight there.
    stain: u64,
    /// The segment whose file has to be cut before its positions are given out again.
    stained: Option<Arc<Segment>>,
    /// Whether it is to be settled soon, so that large runs can go straight to its segment.
    settle_soon: bool,

    /// Appended and not yet committed, in order.
    pending: VecDeque<Pending>,
    /// How many of `pending` have been given to the journal.
    pending_journaled: usize,
    /// The rounds of the journal that hold what is not settled: sequence and the stream position they reach.
    rounds: VecDeque<(u64, u64)>,
    /// Committed ends of batches: where a segment's settled part may be said to end. (stream, offset), sparse.
    marks: VecDeque<(u64, Offset)>,
    offline: Option<String>,
    /// The log start that is being made durable, before anybody sees it.
    next_log_start: Offset,
    /// How often in a row its segment files could not be written or synced.
    flush_failures: u32,
    /// How often in all.
    flush_failures_ever: u64,
    /// Whether it changed since it was opened after a clean stop.
    touched: bool,
    last_append: TimestampMs,
}

impl Log {
    /// The partition.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &PathBuf {
        &self.directory
    }

    /// What every core may read.
    #[must_use]
    pub fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// The topic's options.
    #[must_use]
    pub fn config(&self) -> &Arc<LogConfig> {
        &self.config
    }

    /// Takes new options. A topic that becomes durable shows nothing new until it is synced; its high watermark stays.
    pub fn set_config(&mut self, config: Arc<LogConfig>) {
        self.config = config;
    }

    /// The leader epochs.
    #[must_use]
    pub fn epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    /// The idempotent producers.
    #[must_use]
    pub fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    /// The offset below which everything is durable in segment files: where recovery starts.
    #[must_use]
    pub fn recovery_point(&self) -> Offset {
        self.settled_offset
    }

    /// Why the log takes nothing any more, where it does not.
    #[must_use]
    pub fn offline_reason(&self) -> Option<&str> {
        self.offline.as_deref()
    }

    /// The memory that its tail holds.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.tail.memory_bytes() + self.partial.capacity()
    }

    /// The position up to which records are committed: what consumers may see, and what may go to segment files.
    pub(crate) fn committed(&self) -> u64 {
        self.visible
    }

    pub(crate) fn active(&self) -> &SegmentState {
        match self.segments.back() {
            Some(active) => active,
            None => unreachable!("a log has an active segment from its opening on"),
        }
    }

    pub(crate) fn active_mut(&mut self) -> &mut SegmentState {
        match self.segments.back_mut() {
            Some(active) => active,
            None => unreachable!("a log has an active segment from its opening on"),
        }
    }

    /// Makes the segments and the tail of now visible to all cores.
    pub(crate) fn publish_view(&self) {
        let segments: Arc<[Arc<Segment>]> = {
            let view = self.published.view.load();
            let unchanged = view.segments.len() == self.segments.len()
                && view.segments.iter().zip(&self.segments).all(|(a, b)| Arc::ptr_eq(a, &b.shared));
            if unchanged { view.segments.clone() } else { self.segments.iter().map(|s| s.shared.clone()).collect() }
        };
        self.published.view.store(Arc::new(View { segments, tail: self.tail.views() }));
    }

    pub(crate) fn publish_size(&self) {
        self.published.set_size_bytes(self.segments.iter().map(|segment| segment.bytes).sum());
    }

    /// Takes the partition out of service: what is committed can still be read, nothing more is taken.
    pub(crate) fn set_offline(&mut self, reason: &str) {
        if self.offline.is_none() {
            tracing::error!(partition = %self.directory.display(), reason, "partition goes offline");
            self.offline = Some(reason.to_owned());
        }
    }

    /// The current leader epoch.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.published.leader_epoch()
    }

    /// How long ago the last batch was appended, in milliseconds.
    pub(crate) fn idle_since(&self, now: TimestampMs) -> i64 {
        now.0.saturating_sub(self.last_append.0)
    }

    /// Whether there is anything that a clean stop has to write.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched || !self.is_settled()
    }

    /// The partition is deleted: it takes nothing more, quietly.
    pub(crate) fn set_deleted(&mut self) {
        self.offline = Some("the partition was deleted".to_owned());
    }
}
