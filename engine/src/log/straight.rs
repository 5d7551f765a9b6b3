//! Large runs that go straight to their segment file: written once and synced there, where the journal would have them written
//! twice (ADR 0013). What such a write covers, who may have one, and what follows when it is synced or fails. Memory only, but for
//! the cutting of a file; the core drives it ([`crate::core`]).
//!
//! One write takes all that the file lacks, up to the run's end, in whole blocks, the last one padded. So nothing of the run
//! needs the journal: recovery reads a segment from the recovery point on and believes the CRCs. A run that fails goes through
//! the journal, the same bytes at the same positions. Only if that fails too does the file hold what is cut off the log; then it is
//! cut, and the cut synced, before anything else gets these positions (SegmentBehindJournal).

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::disk::BLOCK_BYTES;
use crate::disk::cache::Purpose;
use crate::log::Log;
use crate::log::flush::{BLOCK, FlushIo, Unsynced};
use crate::log::journaling::{Replies, Run};
use crate::log::published::Segment;
use crate::memory::{ChunkWriter, Pool, Slice};

/// How much may be committed and not in the file when a run goes there: it is written with it.
pub(crate) const BACKLOG_BYTES_MAX: u64 = 8 << 20;
/// A segment is settled for the sake of so many large runs or more.
const RUNS_MIN: u64 = 8;

/// One write of a log's segment, from what the file has to the end of a run.
pub(crate) struct StraightWrite {
    pub(crate) segment: Arc<Segment>,
    /// Where in the file; the first byte of a block.
    pub(crate) position: u64,
    /// Whole blocks.
    pub(crate) slices: Vec<Slice>,
    changes: u64,
    failures_before: u64,
}

impl Log {
    /// The bytes of the active segment that no round has taken.
    pub(crate) fn unjournaled_bytes(&self) -> u64 {
        self.end - self.journaled.max(self.active().stream)
    }

    /// Whether the next run may go straight to the segment, asked between two rounds.
    pub(crate) fn may_go_straight(&self) -> bool {
        self.offline.is_none()
            // Nothing is in flight, or written and not committed.
            && self.journaled == self.visible
            && self.stain <= self.visible
            && self.stained.is_none()
            && self.journaled - self.flushed <= BACKLOG_BYTES_MAX
            && self.is_straightened()
    }

    /// Whether all that settling looks after beside a segment's bytes is in order: the file's name is durable, no older segment has
    /// anything open, and the recovery point may pass what there is of leader epochs.
    fn is_straightened(&self) -> bool {
        let sealed = self.segments.len() - 1;
        let active = self.active();
        active.stream <= self.settled
            && active.stream <= self.journaled
            && active.live.as_ref().is_some_and(|live| live.name_synced)
            && self.segments.iter().take(sealed).all(|segment| segment.live.is_none())
            && !self.epochs_dirty
    }

    /// Asks for a settling where one would let large runs, of more than `large_bytes`, go straight, and the segment has room for a few.
    /// Returns whether it is due.
    pub(crate) fn ask_to_settle_soon(&mut self, large_bytes: u64) -> bool {
        let active = self.active();
        let has_room = active.bytes.saturating_add(large_bytes.saturating_mul(RUNS_MIN)) <= self.config.segment_bytes;
        if self.offline.is_none() && !self.settle_soon && has_room && self.committed() > active.stream && !self.is_straightened()
        {
            self.settle_soon = true;
            return true;
        }
        false
    }

    /// Whether such a settling was asked for.
    pub(crate) fn is_settle_soon(&self) -> bool {
        self.settle_soon
    }

    /// The write that takes `run`, which [`Log::next_run`] gave when [`Log::may_go_straight`]; `None` without memory for its last block.
    pub(crate) fn begin_straight(&mut self, run: &Run, pool: &Pool) -> Option<StraightWrite> {
        let from = self.flushed;
        let failures_before = self.flush_failures_ever;
        let active = self.active_mut();
        let start = active.stream;
        assert!(
            start <= from && from <= run.from && run.to <= active.end(),
            "a run is of the active segment, behind what it has"
        );
        let block_start = start + (from - start) / BLOCK * BLOCK;
        let last_block = start + (run.to - start) / BLOCK * BLOCK;
        let mut padded = None;
        if run.to > last_block {
            padded = Some(ChunkWriter::new(pool, BLOCK_BYTES)?);
        }
        let segment = active.shared.clone();
        let live = active.live.as_mut()?;
        live.changes += 1;
        live.padded = padded.is_some();
        let changes = live.changes;
        let mut slices = self.tail.lend(block_start, last_block);
        if let Some(mut block) = padded {
            self.tail.visit(last_block, run.to, |bytes| {
                block.fill(bytes);
            });
            block.fill(&[0; BLOCK_BYTES][(run.to - last_block) as usize..]);
            slices.push(block.lend(0, BLOCK_BYTES));
        }
        Some(StraightWrite { segment, position: block_start - start, slices, changes, failures_before })
    }

    /// The run is written and synced: it is committed, and settled with everything before it. Returns whether consumers see more
    /// than before, or `None` where a failure in the meantime says that the file is not to be believed.
    pub(crate) fn straight_synced(&mut self, run: &Run, write: &StraightWrite, replies: &mut Replies) -> Option<bool> {
        if self.flush_failures_ever != write.failures_before {
            return None;
        }
        let more = self.round_synced(run.to, run.next_offset, replies);
        self.flushed = run.to;
        if let Some(segment) = self.segments.iter().find(|segment| Arc::ptr_eq(&segment.shared, &write.segment)) {
            segment.shared.set_file_bytes(run.to - segment.stream);
        }
        self.settle(&Unsynced {
            files: Vec::new(),
            flushed: run.to,
            new_name: false,
            failures_before: write.failures_before,
            changes: vec![(write.segment.clone(), write.changes)],
            indexes: Vec::new(),
        });
        Some(more)
    }

    /// A run goes to the journal after all. `stains`: its bytes may be in the file.
    pub(crate) fn return_run(&mut self, run: &Run, stains: bool) {
        assert_eq!(run.from, self.visible, "a run that goes straight is the only one in flight");
        self.journaled = run.from;
        self.pending_journaled = 0;
        if stains {
            self.stain = run.to;
        }
        // Also where nothing was written: the file may be padded from before, which the write would have filled.
        let segment = self.segments.iter_mut().rev().find(|segment| segment.stream <= run.from);
        if let Some(live) = segment.and_then(|segment| segment.live.as_mut()) {
            live.padded = true;
        }
    }

    /// Whether the file may hold what was cut off the log.
    pub(crate) fn is_stained(&self) -> bool {
        self.stained.is_some()
    }
}

/// Cuts off a segment's file what the log does not have, and syncs the cut. Nothing else may write to or sync the file meanwhile.
///
/// # Errors
/// Those of the disk: then the log must take nothing more.
pub(crate) async fn cut_stain(io: &FlushIo<'_>, log: &Rc<RefCell<Log>>) -> io::Result<()> {
    let (segment, len, changes) = {
        let mut log = log.borrow_mut();
        let flushed = log.flushed;
        let Some(stained) = log.stained.clone() else { return Ok(()) };
        let Some(state) = log.segments.iter_mut().find(|s| Arc::ptr_eq(&s.shared, &stained)) else {
            log.stained = None;
            return Ok(());
        };
        let len = flushed.saturating_sub(state.stream).min(state.bytes);
        let changes = state.live.as_mut().map_or(0, |live| {
            live.changes += 1;
            live.changes
        });
        (stained, len, changes)
    };
    let file = io.files.open(segment.id, Purpose::Write, &segment.path).await?;
    file.set_len(len).await?;
    file.sync_data().await?;
    let mut log = log.borrow_mut();
    log.stained = None;
    let live = log.segments.iter_mut().find(|s| Arc::ptr_eq(&s.shared, &segment)).and_then(|s| s.live.as_mut());
    if let Some(live) = live {
        live.padded = false;
        live.changes_synced = live.changes_synced.max(changes);
    }
    Ok(())
}
