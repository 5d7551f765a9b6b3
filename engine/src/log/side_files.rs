//! What stands beside a log's batches: index entries, leader epochs, snapshots of the producers. All of it can be found again in
//! the batches, so it is written now and then, and only at a segment's end or a clean stop so that a crash cannot take
//! it. Where it is due it is written before the files are synced; the core decides when.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use crate::disk::cache::Purpose;
use crate::disk::{Disk, OpenOptions, Payload};
use crate::log::flush::{FlushIo, Unsynced};
use crate::log::published::{LiveIndex, Segment};
use crate::log::{Log, SnapshotDue};
use crate::segment::{index, names};

/// After how many bytes index entries and the producers' state are saved again: what recovery reads for their sake. Each costs
/// a few operations of the filesystem, so this is not for every flush.
const SAVE_EVERY_BYTES: u64 = 4 << 20;
const SNAPSHOTS_KEPT: usize = 2;

/// Brings what stands beside the batches up to date where it is due, and returns the files that have to be synced before what is
/// flushed counts as settled. With `all`, as for a clean stop, nothing is left out.
///
/// # Errors
/// Those of the disk.
pub(crate) async fn prepare_settle(io: &FlushIo<'_>, log: &Rc<RefCell<Log>>, all: bool) -> io::Result<Unsynced> {
    let (flushed, failures_before, directory, parts) = {
        let mut log = log.borrow_mut();
        let log = &mut *log;
        let due = all || log.is_side_files_due();
        if due {
            log.indexed_stream = log.flushed;
        }
        let parts: Vec<_> = log
            .segments
            .iter()
            .enumerate()
            .filter_map(|(at, segment)| {
                let live = segment.live.as_ref()?;
                let sealed = at + 1 < log.segments.len();
                let complete = (sealed || all) && segment.end() <= log.flushed;
                Some(SegmentSave {
                    segment: segment.shared.clone(),
                    live: live.index.clone(),
                    offsets_saved: live.offsets_saved,
                    times_saved: live.times_saved,
                    changes: live.file_dirty().then_some(live.changes),
                    // An entry is saved once its batch is in the file.
                    below: if due || complete { log.flushed.saturating_sub(segment.stream) } else { 0 },
                    complete,
                })
            })
            .collect();
        (log.flushed, log.flush_failures_ever, log.directory.clone(), parts)
    };
    let mut unsynced =
        Unsynced { files: Vec::new(), flushed, new_name: false, failures_before, changes: Vec::new(), indexes: Vec::new() };
    // Before the index entries: a start does not look behind the last of them for where an epoch begins.
    save_epochs(io, log, &directory).await?;
    for part in parts {
        let saved = part.save(io, &mut unsynced).await?;
        let mut log = log.borrow_mut();
        if let Some(live) = log.segments.iter_mut().find(|s| Arc::ptr_eq(&s.shared, &part.segment)).and_then(|s| s.live.as_mut())
        {
            (live.offsets_saved, live.times_saved) = (saved.offsets, saved.times);
            live.name_synced &= !saved.new_name;
        }
    }
    save_producers(io, log, all).await?;
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
    live: Arc<LiveIndex>,
    offsets_saved: usize,
    times_saved: usize,
    /// Where the file has what was not synced: how many changes it had.
    changes: Option<u64>,
    /// Entries of batches below this position are saved.
    below: u64,
    complete: bool,
}

/// How many entries the index files have now, and whether one of the files is new.
struct Saved {
    offsets: usize,
    times: usize,
    new_name: bool,
}

impl SegmentSave {
    /// Appends new index entries to the index files.
    async fn save(&self, io: &FlushIo<'_>, unsynced: &mut Unsynced) -> io::Result<Saved> {
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
        let mut new_name = false;
        for (bytes, saved, entry_bytes, suffix) in [
            (offsets, self.offsets_saved, index::OFFSET_ENTRY_BYTES, "index"),
            (times, self.times_saved, index::TIME_ENTRY_BYTES, "timeindex"),
        ] {
            if bytes.is_empty() && !self.complete {
                continue;
            }
            let file = io.disk.open(&self.segment.path.with_extension(suffix), OpenOptions::WRITE).await?;
            if saved == 0 {
                new_name = true;
                file.set_len(0).await?;
            }
            if !bytes.is_empty() {
                file.write_at(Payload::Bytes(bytes), (saved * entry_bytes) as u64).await?;
            }
            if self.complete {
                unsynced.files.push(file);
            }
        }
        if self.complete {
            unsynced.indexes.push((self.segment.clone(), (offsets_end, times_end)));
        }
        if let Some(changes) = self.changes {
            unsynced.changes.push((self.segment.clone(), changes));
            unsynced.files.push(io.files.open(self.segment.id, Purpose::Write, &self.segment.path).await?);
        }
        Ok(Saved { offsets: offsets_end, times: times_end, new_name })
    }
}

async fn save_epochs(io: &FlushIo<'_>, log: &Rc<RefCell<Log>>, directory: &Path) -> io::Result<()> {
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
/// there. Those at a segment's base and at a clean stop are synced: the segments below may be removed. A lost other one
/// costs time, not truth, since the newest synced one stays beside it.
async fn save_producers(io: &FlushIo<'_>, log: &Rc<RefCell<Log>>, all: bool) -> io::Result<()> {
    {
        let mut log = log.borrow_mut();
        if all || (log.snapshots_due.is_empty() && log.end - log.snapshot_stream >= SAVE_EVERY_BYTES) {
            log.take_snapshot(all);
        }
    }
    save_due_snapshots(io, log, all).await
}

/// Writes the snapshots that are due and that the files have reached. A synced one takes the place of another, so it waits until
/// what it covers is synced too, but for a clean stop (`all`), which syncs everything. The partition's files are the caller's
/// alone.
///
/// # Errors
/// Those of the disk; the snapshot stays due.
pub(crate) async fn save_due_snapshots(io: &FlushIo<'_>, log: &Rc<RefCell<Log>>, all: bool) -> io::Result<()> {
    let directory = log.borrow().directory.clone();
    loop {
        let due = {
            let mut log = log.borrow_mut();
            let (flushed, settled) = (log.flushed, log.settled);
            let reached = |due: &SnapshotDue| if due.synced && !all { settled } else { flushed };
            if log.snapshots_due.first().is_none_or(|due| due.stream > reached(due)) {
                return Ok(());
            }
            log.snapshots_due.remove(0)
        };
        if let Err(error) = save_snapshot(io, log, &directory, &due).await {
            // It stays due.
            let mut log = log.borrow_mut();
            if log.snapshots_due.iter().all(|other| other.offset != due.offset) {
                log.snapshots_due.insert(0, due);
            }
            return Err(error);
        }
    }
}

/// Where no idempotent producer has written since the newest file, and that is not the one that has to stay, it is right for the
/// new offset too, and gets its name: making and removing files is dear, and a partition does this every few megabytes.
async fn save_snapshot(io: &FlushIo<'_>, log: &Rc<RefCell<Log>>, directory: &Path, due: &SnapshotDue) -> io::Result<()> {
    let path = |offset| directory.join(names::snapshot_file_name(offset));
    let new = path(due.offset);
    let (unchanged, newest, spare) = {
        let mut log = log.borrow_mut();
        // Nothing is known of the newest file while it is touched.
        let unchanged = log.snapshot_changes_saved.take() == Some(due.changes);
        let newest = log.snapshot_files.back().copied();
        if newest == Some(due.offset) && (log.snapshot_synced == newest || (unchanged && !due.synced)) {
            // The file is there, and as durable as it is to be.
            log.snapshot_changes_saved = unchanged.then_some(due.changes);
            return Ok(());
        }
        // The newest synced one stays, until there is another.
        let stays = if due.synced { None } else { log.snapshot_synced };
        let others = log.snapshot_files.iter().filter(|&&offset| Some(offset) != stays && offset != due.offset);
        let spare = if others.clone().count() >= SNAPSHOTS_KEPT { others.copied().next() } else { None };
        let newest = newest.filter(|&newest| newest != due.offset && log.snapshot_synced != Some(newest));
        (unchanged, newest, spare)
    };
    let renamed = newest.filter(|_| unchanged && !due.synced);
    if let Some(newest) = renamed {
        io.disk.rename(&path(newest), &new).await?;
    } else if due.synced {
        crate::disk::replace_file(io.disk, &new, due.bytes.clone()).await?;
    } else {
        // Not over an older one that gets the new name then: a crash may keep the name and undo the writing.
        let file = io.disk.open(&new, OpenOptions::WRITE).await?;
        file.set_len(0).await?;
        file.write_at(Payload::Bytes(due.bytes.clone()), 0).await?;
    }
    let gone = renamed.or(spare);
    {
        let mut log = log.borrow_mut();
        log.snapshot_files.retain(|&offset| offset != due.offset && Some(offset) != gone);
        log.snapshot_files.push_back(due.offset);
        log.snapshot_changes_saved = Some(due.changes);
        if due.synced {
            log.snapshot_synced = Some(due.offset);
        }
    }
    match spare.filter(|_| renamed.is_none()) {
        Some(spare) => remove_if_there(io, &path(spare)).await,
        None => Ok(()),
    }
}

async fn remove_if_there(io: &FlushIo<'_>, path: &Path) -> io::Result<()> {
    match io.disk.remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Log {
    /// Whether index entries and the producers' state are to be saved at the next settling.
    pub(crate) fn is_side_files_due(&self) -> bool {
        self.flushed.saturating_sub(self.indexed_stream) >= SAVE_EVERY_BYTES
    }

    /// Keeps the producers' state of the log's end, to be written as a snapshot.
    pub(crate) fn take_snapshot(&mut self, synced: bool) {
        let (offset, stream) = (self.end_offset, self.end);
        self.snapshot_stream = stream;
        self.snapshots_due.retain(|due| due.offset != offset);
        let (bytes, changes) = (self.producers.encode_snapshot(), self.producers.changes());
        self.snapshots_due.push(SnapshotDue { offset, stream, bytes, changes, synced });
    }
}

/// Removes a segment's files, `path` being its log's. That one goes last, so that a start finds what a failure leaves.
///
/// # Errors
/// Those of the disk, but that one is not there.
pub(crate) async fn remove_segment(disk: &Rc<dyn Disk>, path: &Path) -> io::Result<()> {
    for extension in ["index", "timeindex", "txnindex", "log"] {
        match disk.remove_file(&path.with_extension(extension)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
