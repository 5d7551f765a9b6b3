//! From the tail to the segment files: what to write next, and the writing of it. Writes are direct and whole blocks; the block
//! that is still being filled waits in tail and journal unless it is forced out, padded, and then it is written again later.
//! The core decides when; nothing here syncs, except where a name needs it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::disk::cache::{FileCache, Purpose};
use crate::disk::{BLOCK_BYTES, Disk, File, OpenOptions, Payload};
use crate::log::published::Segment;
use crate::log::{Log, SegmentState, SnapshotDue};
use crate::memory::{Pool, Slice};
use crate::segment::{index, names};

/// The most that one write takes.
const WRITE_BYTES_MAX: u64 = 4 << 20;
const BLOCK: u64 = BLOCK_BYTES as u64;
/// After how many bytes the producers' state is saved again: what recovery reads for their sake.
const SNAPSHOT_EVERY_BYTES: u64 = 4 << 20;
const SNAPSHOTS_KEPT: usize = 2;
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
    new_name: bool,
    failures_before: u64,
    /// Of each segment whose file is among `files`, how many of its changes they have.
    changes: Vec<(Arc<Segment>, u64)>,
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

    /// A write or a sync of a segment file failed. Nothing that was written since the last good sync is believed: all of it,
    /// which the tail and the journal still have, is written again. After some failures in a row the partition takes nothing more.
    pub(crate) fn flush_failed(&mut self, error: &io::Error) {
        tracing::error!(partition = %self.directory.display(), %error, "a segment could not be written and synced");
        self.flushed = self.settled;
        for segment in &mut self.segments {
            segment.shared.set_file_bytes(segment.end().min(self.settled).saturating_sub(segment.stream));
            // One without a file may still be cut off the log, and must not get one.
            if let Some(live) = segment.live.as_mut().filter(|live| live.changes > 0) {
                // Longer than it should be, for all that is known, until it is cut.
                live.padded = true;
                live.changes += 1;
            }
        }
        self.flush_failures += 1;
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
            let indexed = live.offsets_saved == live.index.offsets.count() && live.times_saved == live.index.times.count();
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
        write_step(io, &step).await?;
        log.borrow_mut().step_done(&step);
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

/// Brings everything beside the batches up to date (indexes, epochs, producer snapshot) and returns the files that
/// have to be synced before what is flushed counts as settled. With `all`, as for a clean stop, nothing is left out.
///
/// # Errors
/// Those of the disk.
pub(crate) async fn prepare_settle(io: &FlushIo<'_>, log: &Rc<RefCell<Log>>, all: bool) -> io::Result<Unsynced> {
    let (flushed, failures_before, directory, parts) = {
        let log = log.borrow();
        let parts: Vec<_> = log
            .segments
            .iter()
            .enumerate()
            .filter_map(|(at, segment)| {
                let live = segment.live.as_ref()?;
                let sealed = at + 1 < log.segments.len();
                Some(SegmentSave {
                    segment: segment.shared.clone(),
                    live: live.index.clone(),
                    offsets_saved: live.offsets_saved,
                    times_saved: live.times_saved,
                    changes: live.file_dirty().then_some(live.changes),
                    // An entry is saved once its batch is in the file.
                    below: log.flushed.saturating_sub(segment.stream),
                    complete: (sealed || all) && segment.end() <= log.flushed,
                })
            })
            .collect();
        (log.flushed, log.flush_failures_ever, log.directory.clone(), parts)
    };
    let mut unsynced = Unsynced { files: Vec::new(), flushed, new_name: false, failures_before, changes: Vec::new() };
    for part in parts {
        let saved = part.save(io, &mut unsynced).await?;
        let mut log = log.borrow_mut();
        if let Some(live) = log.segments.iter_mut().find(|s| Arc::ptr_eq(&s.shared, &part.segment)).and_then(|s| s.live.as_mut())
        {
            (live.offsets_saved, live.times_saved) = saved;
        }
    }
    save_epochs(io, log, &directory).await?;
    save_producers(io, log, &directory, all).await?;
    let new_names = {
        let log = log.borrow();
        log.segments.iter().any(|s| s.stream < flushed && s.live.as_ref().is_some_and(|live| !live.name_synced))
    };
    if new_names || all {
        io.disk.sync_dir(&directory).await?;
        unsynced.new_name = true;
    }
    Ok(unsynced)
}

struct SegmentSave {
    segment: Arc<Segment>,
    live: Arc<crate::log::published::LiveIndex>,
    offsets_saved: usize,
    times_saved: usize,
    /// Where the file has what was not synced: how many changes it had.
    changes: Option<u64>,
    below: u64,
    complete: bool,
}

impl SegmentSave {
    /// Appends new index entries to the index files; returns how many entries they have now.
    async fn save(&self, io: &FlushIo<'_>, unsynced: &mut Unsynced) -> io::Result<(usize, usize)> {
        let base = self.segment.base_offset;
        let mut offsets = Vec::new();
        let mut last = None;
        let mut offsets_end = self.offsets_saved;
        while let Some(entry) = self.live.offsets.get(offsets_end).filter(|entry| entry.position < self.below) {
            index::push_offset_entry(&mut offsets, base, entry.last_offset, entry.position);
            last = Some(entry.last_offset);
            offsets_end += 1;
        }
        let mut times = Vec::new();
        let mut times_end = self.times_saved;
        while let Some(entry) =
            self.live.times.get(times_end).filter(|entry| self.complete || last.is_some_and(|last| entry.offset <= last))
        {
            index::push_time_entry(&mut times, base, entry.timestamp, entry.offset);
            times_end += 1;
        }
        for (bytes, saved, entry_bytes, suffix) in [
            (offsets, self.offsets_saved, index::OFFSET_ENTRY_BYTES, "index"),
            (times, self.times_saved, index::TIME_ENTRY_BYTES, "timeindex"),
        ] {
            if bytes.is_empty() && !self.complete {
                continue;
            }
            let file = io.disk.open(&self.segment.path.with_extension(suffix), OpenOptions::WRITE).await?;
            if saved == 0 {
                file.set_len(0).await?;
            }
            if !bytes.is_empty() {
                file.write_at(Payload::Bytes(bytes), (saved * entry_bytes) as u64).await?;
            }
            if self.complete {
                unsynced.files.push(file);
            }
        }
        if let Some(changes) = self.changes {
            unsynced.changes.push((self.segment.clone(), changes));
            unsynced.files.push(io.files.open(self.segment.id, Purpose::Write, &self.segment.path).await?);
        }
        Ok((offsets_end, times_end))
    }
}

async fn save_epochs(io: &FlushIo<'_>, log: &Rc<RefCell<Log>>, directory: &std::path::Path) -> io::Result<()> {
    let text = {
        let mut log = log.borrow_mut();
        if !std::mem::take(&mut log.epochs_dirty) {
            return Ok(());
        }
        log.epochs.encode()
    };
    let result = crate::disk::replace_file(io.disk, &directory.join(names::EPOCHS_FILE), text.into_bytes()).await;
    if result.is_err() {
        log.borrow_mut().epochs_dirty = true;
    }
    result
}

/// Producer snapshots bound what recovery has to read. They are taken at a log end and written once the files hold all up to
/// there; those at a segment's base and at a clean stop are synced, a lost other one costs time, not truth.
async fn save_producers(io: &FlushIo<'_>, log: &Rc<RefCell<Log>>, directory: &std::path::Path, all: bool) -> io::Result<()> {
    let due = {
        let mut log = log.borrow_mut();
        if all || (log.snapshots_due.is_empty() && log.end - log.snapshot_stream >= SNAPSHOT_EVERY_BYTES) {
            log.take_snapshot(all);
        }
        let flushed = log.flushed;
        let ready = log.snapshots_due.iter().take_while(|due| due.stream <= flushed).count();
        log.snapshots_due.drain(..ready).collect::<Vec<_>>()
    };
    for snapshot in due {
        let path = directory.join(names::snapshot_file_name(snapshot.offset));
        if snapshot.synced {
            crate::disk::replace_file(io.disk, &path, snapshot.bytes).await?;
        } else {
            let file = io.disk.open(&path, OpenOptions::WRITE).await?;
            file.set_len(0).await?;
            file.write_at(Payload::Bytes(snapshot.bytes), 0).await?;
        }
        let old = {
            let mut log = log.borrow_mut();
            if log.snapshot_files.back() != Some(&snapshot.offset) {
                log.snapshot_files.push_back(snapshot.offset);
            }
            if log.snapshot_files.len() > SNAPSHOTS_KEPT { log.snapshot_files.pop_front() } else { None }
        };
        if let Some(old) = old {
            match io.disk.remove_file(&directory.join(names::snapshot_file_name(old))).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

impl Log {
    /// Keeps the producers' state of the log's end, to be written as a snapshot.
    pub(crate) fn take_snapshot(&mut self, synced: bool) {
        let (offset, stream) = (self.end_offset, self.end);
        self.snapshot_stream = stream;
        self.snapshots_due.retain(|due| due.offset != offset);
        self.snapshots_due.push(SnapshotDue { offset, stream, bytes: self.producers.encode_snapshot(), synced });
    }
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
