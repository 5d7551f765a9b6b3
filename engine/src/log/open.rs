//! Opening a log at start: what its files hold becomes its segments, indexes, producers and epochs. After a clean stop little is
//! read. After a crash, when the journal has been replayed into the files, everything from the recovery point on is read
//! from the device, its CRCs checked, cut at the first damage, and synced before anybody may see it.
//!
//! What is cut is named in the log, and kept aside if sound batches lie behind the damage. Damage below the recovery point
//! takes nothing away.

mod cut;
mod indexes;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::batch::BatchHeader;
use crate::disk::{BLOCK_BYTES, Create, DirEntry, Disk, OpenOptions};
use crate::log::compaction::swap;
use crate::log::config::LogConfig;
use crate::log::epochs::LeaderEpochs;
use crate::log::producers::ProducerStates;
use crate::log::published::{Published, Segment};
use crate::log::scan::{Scanner, Stop, is_time_of};
use crate::log::tail::Tail;
use crate::log::{LiveSegment, Log, SegmentState};
use crate::memory::Pool;
use crate::segment::index::TimeEntry;
use crate::segment::{index, names};
use crate::types::{LeaderEpoch, Offset, PartitionId, TimestampMs};

use self::indexes::last_entry;

/// Where the stream starts. Compaction may make a segment a little larger, and where it ends in the stream stays.
const STREAM_START: u64 = 1 << 40;

/// What is known of a log before it is opened.
pub struct OpenParams {
    /// The partition.
    pub id: PartitionId,
    /// Its folder, which exists.
    pub directory: PathBuf,
    /// The topic's options.
    pub config: Arc<LogConfig>,
    /// Everything below it was synced in segment files.
    pub recovery_point: Offset,
    /// The first offset that may be read, as far as a checkpoint says.
    pub log_start: Offset,
    /// Whether the last stop was clean, so that the files need no check.
    pub clean: bool,
    /// The leader's epoch, from the metadata.
    pub leader_epoch: LeaderEpoch,
}

/// Opens or, where the folder has no segment, starts a log.
///
/// # Errors
/// Those of the disk.
pub async fn open(disk: &Rc<dyn Disk>, pool: &Pool, params: OpenParams, now: TimestampMs) -> io::Result<Log> {
    let names = tidy(disk, pool, &params.directory).await?;
    let mut opening = Opening { disk, pool, params: &params, now, changed: false, snapshot_lost: false };
    let mut bases = segment_files(&names);
    let (mut producers, mut snapshot_files) = opening.producers(&names).await?;
    // A removal that a crash interrupted, or that the journal's replay has undone in part.
    while bases.len() > 1 && bases[1].0 <= params.log_start {
        let (base, file_bytes) = bases.remove(0);
        if snapshot_files.back().is_none_or(|&saved| saved < bases[0].0) {
            opening.save_producers_of(base, file_bytes, bases[0].0, &mut producers, &mut snapshot_files).await?;
        }
        opening.remove_segment(base).await?;
    }
    if bases.is_empty() {
        let path = params.directory.join(names::log_file_name(params.log_start));
        disk.open(&path, OpenOptions::WRITE).await?.sync_data().await?;
        opening.changed = true;
        bases.push((params.log_start, 0));
    }
    let producers_changes = producers.changes();
    let producers_saved = snapshot_files.back().copied().unwrap_or(Offset(-1));
    let mut recovered = opening.segments(bases, producers, producers_saved).await?;
    if params.log_start > recovered.end_offset {
        // Records were deleted up to there, and what was lost lay below: no offset is given twice, and none comes back.
        tracing::warn!(
            partition = %params.directory.display(), log_start = params.log_start.0, log_end = recovered.end_offset.0,
            "the log ends below its start: it begins anew there"
        );
        for segment in &recovered.segments {
            opening.remove_segment(segment.shared.base_offset).await?;
        }
        disk.sync_dir(&params.directory).await?;
        return Box::pin(open(disk, pool, params, now)).await;
    }
    if producers_saved > recovered.end_offset {
        // The snapshot knows of batches that are lost: without it.
        disk.remove_file(&params.directory.join(names::snapshot_file_name(producers_saved))).await?;
        disk.sync_dir(&params.directory).await?;
        return Box::pin(open(disk, pool, params, now)).await;
    }
    let mut epochs = opening.epochs(&names).await?;
    // The first that the file does not have.
    let mut epochs_found = Offset(i64::MAX);
    for &(epoch, offset) in &recovered.epochs {
        // The first batch that was read is seldom the first of its epoch: where the file has that epoch there, it knows better.
        if epochs.epoch_for(offset) != Some(epoch) && epochs.assign(epoch, offset) {
            epochs_found = epochs_found.min(offset);
        }
    }
    let end_offset = recovered.end_offset;
    let _ = epochs.truncate_from_end(end_offset);
    // Clients are told the leader's epoch before it has a record, and ask where it ends. It takes no file: what a crash takes of it
    // is answered as the end of the epoch before, which is the same offset.
    epochs.assign(params.leader_epoch, end_offset);
    let mut end = STREAM_START;
    let written: BTreeMap<_, _> =
        names.iter().filter_map(|entry| Some((names::parse_log_file_name(&entry.name)?, entry.modified))).collect();
    for segment in &mut recovered.segments {
        segment.stream = end;
        end += segment.bytes;
        segment.modified = written.get(&segment.shared.base_offset).copied().unwrap_or(now);
    }
    let Some(active) = recovered.segments.back() else { unreachable!("there is at least one segment") };
    let active_base = active.shared.base_offset;
    let partial = opening.partial_block(active).await?;
    if opening.changed {
        disk.sync_dir(&params.directory).await?;
    }
    for segment in &mut recovered.segments {
        if let Some(live) = &mut segment.live {
            live.name_synced = true;
        }
    }
    recovered.producers.settle(end_offset);
    if producers_saved < active_base && recovered.producers.changes() != producers_changes {
        // ProducersOutliveSegments: sealed segments may be removed at any time, and with them what the producers sent.
        let path = params.directory.join(names::snapshot_file_name(end_offset));
        crate::disk::replace_file(disk, &path, recovered.producers.encode_snapshot()).await?;
        snapshot_files.push_back(end_offset);
    }
    if epochs_found < active_base {
        // From the next checkpoint on nobody looks for them in sealed segments.
        crate::disk::replace_file(disk, &params.directory.join(names::EPOCHS_FILE), epochs.encode().into_bytes()).await?;
    }
    let published = Arc::new(Published::new());
    let first = recovered.segments.front().map_or(Offset(0), |segment| segment.shared.base_offset);
    let log_start = params.log_start.max(first).min(end_offset);
    published.set_log_start(log_start);
    published.set_log_end(end_offset);
    published.set_high_watermark(end_offset);
    published.set_leader_epoch(params.leader_epoch);
    let mut log = Log {
        id: params.id,
        directory: params.directory.clone(),
        config: params.config.clone(),
        published,
        segments: recovered.segments,
        tail: Tail::default(),
        partial,
        epochs,
        epochs_dirty: true,
        producers: recovered.producers,
        snapshots_due: Vec::new(),
        snapshot_stream: end,
        snapshot_synced: snapshot_files.back().copied(),
        snapshot_files,
        snapshot_changes_saved: None,
        indexed_stream: end,
        end,
        end_offset,
        journaled: end,
        written: end,
        synced: end,
        synced_offset: end_offset,
        unsynced_since: now,
        visible: end,
        flushed: end,
        settled: end,
        settled_offset: end_offset,
        stain: 0,
        stained: None,
        settle_soon: false,
        pending: VecDeque::new(),
        pending_journaled: 0,
        rounds: VecDeque::new(),
        marks: VecDeque::new(),
        offline: None,
        next_log_start: log_start,
        flush_failures: 0,
        flush_failures_ever: 0,
        touched: !params.clean,
        last_append: now,
    };
    if recovered.ends_in_damage {
        log.roll(now);
    }
    log.publish_size();
    log.publish_view();
    Ok(log)
}

/// Ends what a crash interrupted: drops files that were being deleted or made, finishes swaps. Returns what is there then.
async fn tidy(disk: &Rc<dyn Disk>, pool: &Pool, directory: &Path) -> io::Result<Vec<DirEntry>> {
    let names = disk.list(directory).await?;
    let mut again = swap::finish(disk, pool, directory, &names).await?;
    for entry in names.iter().filter(|entry| entry.name.ends_with(".tmp")) {
        disk.remove_file(&directory.join(&entry.name)).await?;
        disk.sync_dir(directory).await?;
        again = true;
    }
    if again { disk.list(directory).await } else { Ok(names) }
}

fn segment_files(names: &[DirEntry]) -> Vec<(Offset, u64)> {
    let mut bases: Vec<_> =
        names.iter().filter_map(|entry| Some((names::parse_log_file_name(&entry.name)?, entry.len_bytes))).collect();
    bases.sort_unstable();
    bases
}

struct Opening<'a> {
    disk: &'a Rc<dyn Disk>,
    pool: &'a Pool,
    params: &'a OpenParams,
    now: TimestampMs,
    changed: bool,
    /// Whether a producer snapshot was there and could not be read.
    snapshot_lost: bool,
}

/// A segment whose file is to be read.
struct Unscanned {
    base: Offset,
    path: PathBuf,
    file_bytes: u64,
    /// Where the next segment begins.
    next_base: Option<Offset>,
    /// Where what is believed unseen ends: nowhere after a clean stop.
    recovery_point: Offset,
}

struct Recovered {
    segments: VecDeque<SegmentState>,
    end_offset: Offset,
    producers: ProducerStates,
    producers_saved: Offset,
    epochs: Vec<(LeaderEpoch, Offset)>,
    /// Whether what the last segment ends with is lost: what comes next goes to a new one.
    ends_in_damage: bool,
}

impl Opening<'_> {
    /// The newest sound producer snapshot, and the offsets of all snapshots up to it.
    async fn producers(&mut self, names: &[DirEntry]) -> io::Result<(ProducerStates, VecDeque<Offset>)> {
        let mut snapshots: Vec<Offset> = names.iter().filter_map(|e| names::parse_snapshot_file_name(&e.name)).collect();
        snapshots.sort_unstable();
        let expiration_ms = self.params.config.producer_id_expiration_ms;
        while let Some(&offset) = snapshots.last() {
            let path = self.params.directory.join(names::snapshot_file_name(offset));
            let bytes = crate::disk::read_file(self.disk, &path).await?;
            match ProducerStates::from_snapshot(&bytes, expiration_ms, self.now) {
                Ok(producers) => {
                    if !self.params.clean && !producers.is_empty() {
                        // It is what is left of segments that are gone, and may never have been synced.
                        let options = OpenOptions { create: Create::Never, ..OpenOptions::WRITE };
                        self.disk.open(&path, options).await?.sync_data().await?;
                        self.changed = true;
                    }
                    return Ok((producers, snapshots.into()));
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a producer snapshot is damaged: an older one or the log is read");
                    self.disk.remove_file(&path).await?;
                    self.changed = true;
                    self.snapshot_lost = true;
                    snapshots.pop();
                }
            }
        }
        Ok((ProducerStates::new(expiration_ms), VecDeque::new()))
    }

    /// ProducersOutliveSegments: what producers wrote to a segment that is about to go, as far as it is sound.
    async fn save_producers_of(
        &self,
        base: Offset,
        file_bytes: u64,
        next_base: Offset,
        producers: &mut ProducerStates,
        snapshot_files: &mut VecDeque<Offset>,
    ) -> io::Result<()> {
        let direct = OpenOptions { create: Create::Never, write: false, direct: true };
        let path = self.params.directory.join(names::log_file_name(base));
        let file = self.disk.open(&path, direct).await?;
        let mut scanner = Scanner::new(file, self.pool, file_bytes, 0, base, true);
        let changes = producers.changes();
        loop {
            let header = match scanner.next().await {
                Ok(Ok((header, _))) => header,
                Ok(Err(Stop::Damage(_))) if scanner.skip_damage().await.unwrap_or(false) => continue,
                Ok(Err(_)) => break,
                Err(error) => {
                    // It was to be removed anyway: what it says of producers is all that is lost.
                    tracing::warn!(segment = %path.display(), %error, "a segment that is being removed cannot be read to its end");
                    break;
                }
            };
            if header.base_offset >= snapshot_files.back().copied().unwrap_or(Offset(-1)).max(producers.end()) {
                producers.update(&header, self.now);
            }
        }
        if producers.changes() != changes {
            let path = self.params.directory.join(names::snapshot_file_name(next_base));
            crate::disk::replace_file(self.disk, &path, producers.encode_snapshot()).await?;
            snapshot_files.push_back(next_base);
        }
        Ok(())
    }

    async fn epochs(&self, names: &[DirEntry]) -> io::Result<LeaderEpochs> {
        if !names.iter().any(|entry| entry.name == names::EPOCHS_FILE) {
            return Ok(LeaderEpochs::default());
        }
        let path = self.params.directory.join(names::EPOCHS_FILE);
        let bytes = crate::disk::read_file(self.disk, &path).await?;
        match LeaderEpochs::decode(&String::from_utf8_lossy(&bytes)) {
            Ok(epochs) => Ok(epochs),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the leader epochs are damaged: they are taken from the batches");
                Ok(LeaderEpochs::default())
            }
        }
    }

    async fn segments(
        &mut self,
        bases: Vec<(Offset, u64)>,
        producers: ProducerStates,
        producers_saved: Offset,
    ) -> io::Result<Recovered> {
        let mut out = Recovered {
            segments: VecDeque::new(),
            end_offset: bases[0].0,
            producers,
            producers_saved,
            epochs: Vec::new(),
            ends_in_damage: false,
        };
        let last = bases.len() - 1;
        // Segments that end at or below the recovery point need no look, nor those that the producer snapshot covers.
        let recovery_point = if self.params.clean { Offset(i64::MAX) } else { self.params.recovery_point };
        let mut cut = false;
        for (at, &(base, file_bytes)) in bases.iter().enumerate() {
            let path = self.params.directory.join(names::log_file_name(base));
            if cut {
                self.set_aside(&path, base, 0, file_bytes).await?;
                continue;
            }
            let next_base = bases.get(at + 1).map(|next| next.0);
            // One that ends at the recovery point is looked at: it may have been sealed with its last block still padded.
            let sealed_below = next_base.filter(|&next| next < recovery_point && at < last);
            let producers_need = next_base.is_none_or(|next| out.producers_saved < next);
            match sealed_below {
                Some(next) if !producers_need => {
                    let state = self.sealed(base, path, file_bytes, next).await?;
                    out.segments.push_back(state);
                    out.end_offset = next;
                }
                _ => cut = self.scan_segment(&mut out, Unscanned { base, path, file_bytes, next_base, recovery_point }).await?,
            }
        }
        Ok(out)
    }

    /// A segment that is taken as it is.
    async fn sealed(&self, base: Offset, path: PathBuf, file_bytes: u64, next: Offset) -> io::Result<SegmentState> {
        let times = self.read_if_there(&path.with_extension("timeindex")).await?;
        let times = times.and_then(|bytes| index::parse_time_index(&bytes, base).ok()).unwrap_or_default();
        let shared = Arc::new(Segment::new(base, path, file_bytes, next));
        let newest = times.last().map_or((TimestampMs::NONE, Offset(-1)), |entry| (entry.timestamp, entry.offset));
        shared.claim_max_timestamp(newest.0, newest.1);
        shared.set_first_timestamp(times.first().map(|entry| entry.timestamp));
        Ok(SegmentState { shared, stream: 0, bytes: file_bytes, live: None, created: self.now, modified: self.now })
    }

    async fn read_if_there(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match crate::disk::read_file(self.disk, path).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn remove_segment(&mut self, base: Offset) -> io::Result<()> {
        let path = self.params.directory.join(names::log_file_name(base));
        self.changed = true;
        crate::log::side_files::remove_segment(self.disk, &path).await
    }

    /// Reads a segment from where it has to be read. Returns whether it was cut, so that nothing may follow.
    async fn scan_segment(&mut self, out: &mut Recovered, segment: Unscanned) -> io::Result<bool> {
        let Unscanned { base, ref path, file_bytes, next_base, recovery_point } = segment;
        let direct = OpenOptions { create: Create::Never, write: false, direct: true };
        let file = self.disk.open(path, direct).await?;
        let trusted = recovery_point;
        let (loaded, left_out) = self.load_indexes(base, path, trusted, file_bytes).await?;
        // Everything from the last trusted index entry on is read and checked; more only for the producers' sake.
        let mut check_from = last_entry(&loaded).map_or(0, |entry| entry.position);
        let mut start = check_from;
        if out.producers_saved < base {
            start = 0;
        } else if let Some(entry) = loaded.floor(out.producers_saved) {
            start = start.min(entry.position);
        } else {
            start = 0;
        }
        let never_saved = out.producers_saved == Offset(-1) && !self.snapshot_lost;
        if out.producers.is_empty() && never_saved && base == Offset(0) && self.params.clean {
            // A clean stop leaves a snapshot: without one there are no producers.
            start = check_from;
        }
        let mut live = LiveSegment::new();
        let newest = loaded.times.count().checked_sub(1).and_then(|at| loaded.times.get(at).copied());
        if let Some(entry) = newest {
            (live.max_timestamp, live.max_timestamp_offset) = (entry.timestamp, entry.offset);
            live.maxima.push_back((entry.timestamp, entry.offset));
        }
        live.first_timestamp = loaded.times.get(0).map(|entry| entry.timestamp);
        if self.params.clean {
            live.indexes_synced = (loaded.offsets.count(), loaded.times.count());
            (live.offsets_saved, live.times_saved) = live.indexes_synced;
        }
        let mut unconfirmed = last_entry(&loaded);
        live.indexed_at = unconfirmed.map_or(0, |entry| entry.position);
        // What is left out because its batch comes behind the last one that the index has is found there, or has rotted.
        let mut unconfirmed_times: Vec<TimeEntry> = left_out.into_iter().collect();
        if let Some(entry) = newest {
            let position = loaded.floor(entry.offset).map_or(0, |floor| floor.position);
            if position >= start {
                unconfirmed_times.push(entry);
            } else {
                let scanner = Scanner::new(file.clone(), self.pool, file_bytes, position, base, true);
                if !scanner.confirms(&entry).await? {
                    return self.scan_without_indexes(out, segment).await;
                }
            }
        }
        live.index = Arc::new(loaded);
        if self.params.clean {
            check_from = check_from.max(start);
        }
        let shared = Arc::new(Segment::new(base, path.clone(), 0, base));
        let mut scanner = Scanner::new(file.clone(), self.pool, file_bytes, start, base, true).across(self.params.recovery_point);
        if let Some(next) = next_base.filter(|&next| next <= self.params.recovery_point) {
            scanner = scanner.below(next);
        }
        let mut cut = None;
        let mut lost_to = None;
        let mut end_of_batches = file_bytes;
        loop {
            let found = scanner.next().await?;
            let (at, ends_at) = match &found {
                Ok((header, position)) => (*position, Some(header.last_offset())),
                Err(_) => (scanner.position(), None),
            };
            // An index has no checksum, and what the segment's largest timestamp is goes by these entries.
            let is_right = unconfirmed
                .take_if(|entry| at >= entry.position)
                .is_none_or(|entry| (at, ends_at) == (entry.position, Some(entry.last_offset)))
                && unconfirmed_times
                    .extract_if(.., |entry| ends_at.is_none_or(|last| last >= entry.offset))
                    .all(|entry| found.as_ref().is_ok_and(|(header, _)| is_time_of(&entry, header)));
            if !is_right {
                return self.scan_without_indexes(out, segment).await;
            }
            match found {
                Ok((header, position)) => {
                    self.note(out, &mut live, &header, position, check_from);
                }
                Err(Stop::End) => break,
                Err(Stop::Damage(reason)) => {
                    let position = scanner.position();
                    let next_offset = scanner.next_offset();
                    // DamageBelowTheRecoveryPointTakesNothing: what a checkpoint says was synced keeps its offsets and bytes.
                    let synced_to = next_base.map_or(self.params.recovery_point, |next| next.min(self.params.recovery_point));
                    if next_offset < synced_to {
                        shared.note_damage();
                        tracing::error!(
                            segment = %path.display(), position, offset = next_offset.0, %reason,
                            "damage in a part that had been synced: it is left in place and is not served; `ringlog log verify` shows all of it, and `ringlog log repair` takes it out"
                        );
                        if scanner.skip_damage().await? {
                            continue;
                        }
                        lost_to = Some(synced_to);
                        break;
                    }
                    // What stands behind a segment's last batch must not take the segments that follow, which were synced, too.
                    let follows_synced = next_base.is_some_and(|next| next < self.params.recovery_point);
                    if follows_synced && !self.is_zero(path, position, file_bytes).await? {
                        tracing::error!(
                            segment = %path.display(), position, %reason,
                            "what stands behind the last batch of a segment is not the log's: it is left in place and is not served; `ringlog log repair` takes it out"
                        );
                        end_of_batches = position;
                        break;
                    }
                    cut = Some((position, next_offset, reason));
                    break;
                }
            }
        }
        let mut goes_on = true;
        let (end_position, end_offset) = match &cut {
            Some((position, next_offset, reason)) => {
                let padding = self.cut(path, base, *position, *next_offset, file_bytes, reason).await?;
                // Nothing is lost where the next segment goes on from there; and its name is what this one was judged by.
                goes_on = next_base.map_or(padding, |next| next == *next_offset);
                (*position, *next_offset)
            }
            None => {
                let end_offset = lost_to.unwrap_or(scanner.next_offset());
                // Whole batches at the file's end may be lost, and the next segment not.
                if let Some(next) = next_base.filter(|&next| !self.params.clean && next > recovery_point && next != end_offset) {
                    tracing::warn!(
                        segment = %path.display(), offset = end_offset.0, next = next.0,
                        "the segment ends before the next one begins: nothing behind it was acknowledged as durable"
                    );
                    goes_on = false;
                }
                (end_of_batches, end_offset)
            }
        };
        out.ends_in_damage = lost_to.is_some();
        out.end_offset = out.end_offset.max(end_offset).max(base);
        if !self.params.clean || cut.is_some() {
            // What is published is on the device.
            let file = self.disk.open(path, OpenOptions { create: Create::Never, write: true, direct: false }).await?;
            file.sync_data().await?;
            live.changes = 1;
        }
        shared.set_file_bytes(end_position);
        shared.set_visible_bytes(end_position);
        shared.set_end_offset(out.end_offset);
        shared.set_max_timestamp(live.max_timestamp, live.max_timestamp_offset);
        shared.set_first_timestamp(live.first_timestamp);
        if next_base.is_some() && goes_on {
            live.close();
            // From the next checkpoint on, if not already, it lies below the recovery point: nobody makes its indexes anew then.
            if !self.params.clean || live.index.offsets.count() > live.indexes_synced.0 {
                self.save_indexes(base, path, &mut live).await?;
            }
        }
        shared.live_index.store(Some(live.index.clone()));
        out.segments.push_back(SegmentState {
            shared,
            stream: 0,
            bytes: end_position,
            live: Some(live),
            created: self.now,
            modified: self.now,
        });
        Ok(!goes_on)
    }

    /// The same after an entry of the segment's indexes did not fit its batch, or that was damaged.
    async fn scan_without_indexes(&mut self, out: &mut Recovered, segment: Unscanned) -> io::Result<bool> {
        tracing::warn!(
            segment = %segment.path.display(),
            "an index entry does not fit its batch, or that is damaged: the indexes are built anew"
        );
        self.remove_indexes(&segment.path).await?;
        Box::pin(self.scan_segment(out, segment)).await
    }

    fn note(&self, out: &mut Recovered, live: &mut LiveSegment, header: &BatchHeader, position: u64, check_from: u64) {
        if header.base_offset >= out.producers_saved.max(out.producers.end()) {
            out.producers.update(header, self.now);
        }
        if out.epochs.last().is_none_or(|&(epoch, _)| epoch < header.leader_epoch) {
            out.epochs.push((header.leader_epoch, header.base_offset));
        }
        // The batch of the last loaded index entry is read again but must not be indexed twice.
        let indexed = last_entry(&live.index).is_some_and(|entry| position <= entry.position);
        if position >= check_from && !indexed {
            live.note(header, position, self.params.config.index_interval_bytes, Offset(i64::MAX));
        }
    }

    /// The bytes of the active segment's last block, which the tail has to begin with.
    async fn partial_block(&self, active: &SegmentState) -> io::Result<Vec<u8>> {
        let block = active.bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let len = (active.bytes - block) as usize;
        if len == 0 {
            return Ok(Vec::new());
        }
        let file = self.disk.open(&active.shared.path, OpenOptions::READ).await?;
        let buffer = self.pool.buffer_or_more(len)?;
        let (buffer, read) = file.read_at(buffer, len, block).await?;
        if read < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(buffer[..len].to_vec())
    }
}
