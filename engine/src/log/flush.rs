//! From the tail to the segment files: what to write next, and the writing of it. Writes are direct and whole blocks; the block
//! that is still being filled waits in tail and journal unless it is forced out, padded, and then it is written again later.
//! The core decides when; nothing here syncs, except where a name needs it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::disk::cache::{FileCache, Purpose};
use crate::disk::{BLOCK_BYTES, Disk, File, Payload, Shortage};
use crate::log::published::Segment;
use crate::log::{Log, SegmentState};
use crate::memory::{Pool, Slice};

/// The most that one write takes.
const WRITE_BYTES_MAX: u64 = 4 << 20;
pub(super) const BLOCK: u64 = BLOCK_BYTES as u64;
/// How often in a row the files may fail.
const FLUSH_FAILURES_MAX: u32 = 5;

/// What the writing needs.
pub(crate) struct FlushIo<'a> {
    pub(crate) disk: &'a Rc<dyn Disk>,
    pub(crate) files: &'a FileCache,
    pub(crate) pool: &'a Pool,
}

struct Step {
    segment: Arc<Segment>,
    position: u64,
    whole: Vec<Slice>,
    padded: Vec<u8>,
    /// The file's true length, to be cut to when the segment is sealed.
    cut_to: Option<u64>,
    start: u64,
    end: u64,
    failures_before: u64,
}

/// What a log has on its files and wants synced.
pub(crate) struct Unsynced {
    pub(crate) files: Vec<Rc<dyn File>>,
    /// The flushed position that is settled once they are synced.
    pub(crate) flushed: u64,
    /// Whether all names in the folder are durable.
    pub(crate) new_name: bool,
    pub(crate) failures_before: u64,
    /// Of each segment whose file is among `files`, how many of its changes they have.
    pub(crate) changes: Vec<(Arc<Segment>, u64)>,
    /// Of each segment whose index files are, how many entries these have.
    pub(crate) indexes: Vec<(Arc<Segment>, (usize, usize))>,
}

impl Log {
    /// How many committed bytes are not in segment files.
    pub(crate) fn unflushed_bytes(&self) -> u64 {
        // A topic that became durable owes a sync first.
        self.committed().saturating_sub(self.flushed)
    }

    /// Whether the journal still holds something for it, or its files were not synced.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled == self.end && self.segments.iter().all(|s| s.live.as_ref().is_none_or(|live| !live.file_dirty()))
    }

    /// Whether a sealed segment still owes something: one that was sealed by its age, with no batch behind it, after all of it had
    /// been settled. Compaction waits for that.
    pub(crate) fn owes_a_seal(&self) -> bool {
        let sealed = self.segments.len().saturating_sub(1);
        self.segments.iter().take(sealed).any(|segment| segment.live.is_some())
    }

    /// Whether the journal keeps a round before `sequence` only for the block that is still being filled: then that block has to
    /// be forced out, padded, if the round is to be free.
    pub(crate) fn last_block_pins(&self, sequence: u64) -> bool {
        let Some(segment) = self.segments.iter().find(|segment| segment.end() >= self.committed()) else { return false };
        let last_block = self.committed() - (self.committed() - segment.stream) % BLOCK;
        let pinned = self.rounds.partition_point(|&(_, end)| end <= last_block);
        self.rounds.get(pinned).is_some_and(|&(pinned, _)| pinned < sequence)
    }

    fn next_step(&mut self, force: bool) -> Option<Step> {
        let from = self.flushed;
        if let Some(step) = self.next_cut(from) {
            return Some(step);
        }
        let committed = self.committed();
        let at = self.segments.iter().position(|segment| segment.end() > from)?;
        let sealed = at + 1 < self.segments.len();
        let segment = &mut self.segments[at];
        let start = segment.stream;
        let block_start = start + (from - start) / BLOCK * BLOCK;
        let mut to = committed.min(segment.end()).min(block_start + WRITE_BYTES_MAX);
        let last_block = start + (to - start) / BLOCK * BLOCK;
        let ends = sealed && to == segment.end();
        if !(ends || (force && to == committed)) {
            to = last_block;
        }
        if to <= from {
            return None;
        }
        let mut padded = Vec::new();
        if to > last_block {
            self.tail.visit(last_block, to, |bytes| padded.extend_from_slice(bytes));
        }
        let cut_to = (ends && to > last_block).then_some(segment.bytes);
        if let Some(live) = &mut segment.live {
            live.changes += 1;
            live.padded = !padded.is_empty() && cut_to.is_none();
        }
        Some(Step {
            segment: segment.shared.clone(),
            position: block_start - start,
            whole: self.tail.slices(block_start, last_block.min(to)),
            padded,
            cut_to,
            start: from,
            end: to,
            failures_before: self.flush_failures_ever,
        })
    }

    /// A segment that was sealed after all of it had been forced out: its file has to lose the padding before anything of the
    /// next segment is settled.
    fn next_cut(&mut self, from: u64) -> Option<Step> {
        let sealed = self.segments.len() - 1;
        let padded = |segment: &&mut SegmentState| segment.end() <= from && segment.live.as_ref().is_some_and(|live| live.padded);
        let segment = self.segments.iter_mut().take(sealed).find(padded)?;
        let live = segment.live.as_mut()?;
        live.changes += 1;
        live.padded = false;
        Some(Step {
            segment: segment.shared.clone(),
            position: segment.bytes,
            whole: Vec::new(),
            padded: Vec::new(),
            cut_to: Some(segment.bytes),
            start: from,
            end: from,
            failures_before: self.flush_failures_ever,
        })
    }

    fn step_done(&mut self, step: &Step) {
        if self.flush_failures_ever != step.failures_before {
            // A failure, perhaps of a sync that was to cover this too, took the position back: it will be written again.
            return;
        }
        if step.start == step.end {
            return;
        }
        assert_eq!(self.flushed, step.start, "one step at a time");
        self.flushed = step.end;
        if let Some(segment) = self.segments.iter().find(|segment| Arc::ptr_eq(&segment.shared, &step.segment)) {
            segment.shared.set_file_bytes(step.end - segment.stream);
        }
    }

    /// It is done again, unless the partition is given up: what was to be cut off may still be there.
    fn step_failed(&mut self, step: &Step) {
        if step.cut_to.is_some()
            && let Some(segment) = self.segments.iter_mut().find(|segment| Arc::ptr_eq(&segment.shared, &step.segment))
            && let Some(live) = &mut segment.live
        {
            live.padded = true;
        }
    }

    /// A write or a sync of a segment file failed. Nothing that was written since the last good sync is believed: all of it,
    /// which the tail and the journal still have, is written again. After some failures in a row the partition takes nothing more.
    pub(crate) fn flush_failed(&mut self, error: &io::Error) {
        tracing::error!(partition = %self.directory.display(), %error, "a segment could not be written and synced");
        self.flushed = self.settled;
        for segment in &mut self.segments {
            segment.shared.set_file_bytes(segment.end().min(self.settled).saturating_sub(segment.stream));
            if let Some(live) = &mut segment.live {
                // Nor is it believed of index entries: the files may have lost what a later sync says is there.
                (live.offsets_saved, live.times_saved) = live.indexes_synced;
            }
            // One without a file may still be cut off the log, and must not get one.
            if let Some(live) = segment.live.as_mut().filter(|live| live.changes > 0) {
                // Longer than it should be, for all that is known, until it is cut.
                live.padded = true;
                live.changes += 1;
            }
        }
        // A shortage is waited for, as long as it takes.
        self.flush_failures += u32::from(Shortage::of(error).is_none());
        self.flush_failures_ever += 1;
        if self.flush_failures >= FLUSH_FAILURES_MAX {
            self.set_offline(&format!("its segment cannot be written: {error}"));
        }
    }

    /// Everything flushed so far is synced in the segment files.
    pub(crate) fn settle(&mut self, unsynced: &Unsynced) {
        if self.flush_failures_ever != unsynced.failures_before {
            // A failure took the flushed position back after these files were collected.
            return;
        }
        self.flush_failures = 0;
        self.settle_soon = false;
        let to = unsynced.flushed;
        self.settled = self.settled.max(to);
        while let Some(&(stream, offset)) = self.marks.front() {
            if stream > to {
                break;
            }
            self.settled_offset = offset;
            self.marks.pop_front();
        }
        let settled_marks = self.settled;
        while self.rounds.front().is_some_and(|&(_, end)| end <= settled_marks) {
            self.rounds.pop_front();
        }
        let count = self.segments.len();
        for (at, segment) in self.segments.iter_mut().enumerate() {
            let end = segment.end();
            let Some(live) = &mut segment.live else { continue };
            if unsynced.new_name && segment.stream < to {
                live.name_synced = true;
            }
            if let Some((_, changes)) = unsynced.changes.iter().find(|(synced, _)| Arc::ptr_eq(synced, &segment.shared)) {
                live.changes_synced = live.changes_synced.max(*changes);
            }
            if let Some((_, counts)) = unsynced.indexes.iter().find(|(synced, _)| Arc::ptr_eq(synced, &segment.shared)) {
                live.indexes_synced = *counts;
            }
            let indexed = live.indexes_synced == live.index_counts();
            if at + 1 < count && end <= to && indexed && !live.padded && !live.file_dirty() {
                segment.live = None;
                segment.shared.live_index.store(None);
            }
        }
    }

    /// Lets go of the oldest piece of the tail that is settled; returns the memory that came free.
    pub(crate) fn release_oldest(&mut self) -> Option<usize> {
        let bytes = self.tail.release_oldest(self.settled)?;
        self.publish_view();
        Some(bytes)
    }

    /// Lets go of the whole tail, where everything is settled. Only the last partial block is kept, as plain bytes.
    pub(crate) fn release_all(&mut self) -> bool {
        if self.settled != self.end || !self.pending.is_empty() || self.tail.start().is_none() {
            return false;
        }
        let active = self.active();
        let block = active.stream + active.bytes / BLOCK * BLOCK;
        let mut partial = Vec::with_capacity((self.end - block) as usize);
        self.tail.visit(block, self.end, |bytes| partial.extend_from_slice(bytes));
        self.partial = partial;
        self.tail.clear();
        self.publish_view();
        true
    }
}

/// Writes what is committed to the segment files: whole blocks, with `force` the last partial one too.
///
/// # Errors
/// Those of the disk; what is not written stays in the tail.
pub(crate) async fn flush(io: &FlushIo<'_>, log: &Rc<RefCell<Log>>, force: bool) -> io::Result<()> {
    loop {
        let step = log.borrow_mut().next_step(force);
        let Some(step) = step else { return Ok(()) };
        let written = write_step(io, &step).await;
        match &written {
            Ok(()) => log.borrow_mut().step_done(&step),
            Err(_) => log.borrow_mut().step_failed(&step),
        }
        written?;
    }
}

async fn write_step(io: &FlushIo<'_>, step: &Step) -> io::Result<()> {
    let file = io.files.open(step.segment.id, Purpose::Write, &step.segment.path).await?;
    let whole_len: usize = step.whole.iter().map(Slice::len).sum();
    if whole_len > 0 {
        file.write_at(Payload::Slices(step.whole.clone()), step.position).await?;
    }
    if !step.padded.is_empty() {
        let Some(mut buffer) = io.pool.buffer(BLOCK_BYTES) else { return Err(io::ErrorKind::OutOfMemory.into()) };
        buffer[..step.padded.len()].copy_from_slice(&step.padded);
        buffer[step.padded.len()..BLOCK_BYTES].fill(0);
        file.write_at(Payload::Buffer { buffer, len: BLOCK_BYTES }, step.position + whole_len as u64).await?;
    }
    if let Some(len) = step.cut_to {
        file.set_len(len).await?;
    }
    Ok(())
}

/// Cuts the active segment's file to its true length: what was forced out had padded the last block.
///
/// # Errors
/// Those of the disk.
pub(crate) async fn cut_to_length(io: &FlushIo<'_>, log: &Rc<RefCell<Log>>) -> io::Result<()> {
    let (segment, bytes) = {
        let mut log = log.borrow_mut();
        let active = log.active_mut();
        if let Some(live) = &mut active.live {
            live.close();
            live.changes += 1;
            live.padded = false;
        }
        (active.shared.clone(), active.bytes)
    };
    let file = io.files.open(segment.id, Purpose::Write, &segment.path).await?;
    file.set_len(bytes).await
}
