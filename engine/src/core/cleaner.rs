//! When logs are compacted: each core looks for the partition of its own that needs it most, one cleaning at a time in the whole
//! process, so that the memory of the offset map and the work beside the cores have one bound. What a cleaning does is
//! [`crate::log::compaction`]'s.
//!
//! The clean points, how far each partition was cleaned, are in `cleaner-offset-checkpoint` of the data directory, Kafka's
//! file, which stays there while the broker runs. It goes by names, so an entry goes before a new partition gets its name
//! (CleanPointsAreTheirPartitions): what counts as clean and is not would bring deleted keys back once their tombstones go.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use crate::core::{Core, Slot};
use crate::disk::cache::Purpose;
use crate::disk::{Disk, Shortage};
use crate::env;
use crate::log::checkpoint::OffsetCheckpoint;
use crate::log::compaction::Cleanable;
use crate::log::compaction::clean::{self, CleanError, CleanIo, Files};
use crate::log::compaction::filter::Filter;
use crate::log::compaction::offset_map::OffsetMap;
use crate::log::compaction::swap::{self, SwapError};
use crate::log::published::Segment;
use crate::log::side_files;
use crate::segment::names::{CLEANER_FILE, PartitionFolder};
use crate::types::Offset;

/// How long a log that could not be cleaned is left alone: others come first.
const RETRY: Duration = Duration::from_secs(60);
/// The least that a step reads.
const STEP_BYTES_MIN: usize = crate::disk::BLOCK_BYTES;

/// Where no bound is set, a cleaning goes at this pace, at which producers beside it do not tell it (ADR 0010) …
const UNHURRIED_BYTES_PER_SECOND: f64 = 50e6;
/// … or at the one at which all that is due on the core would be done in this time, where that is more: so it keeps up with any
/// producers.
const UNHURRIED_SECONDS: f64 = 60.0;

/// The broker's options of compaction, under Kafka's names.
#[derive(Clone, Debug, PartialEq)]
pub struct CleanerSettings {
    /// `log.cleaner.enable`.
    pub enabled: bool,
    /// `log.cleaner.backoff.ms`: how long to wait where nothing is to be cleaned.
    pub backoff: Duration,
    /// `log.cleaner.dedupe.buffer.size`: the memory of the offset map.
    pub dedupe_bytes_max: usize,
    /// `log.cleaner.io.buffer.load.factor`: how full the map may be, from 0 to 1.
    pub load_factor: f64,
    /// `log.cleaner.io.buffer.size`: how much is read and written at once.
    pub step_bytes: usize,
    /// `log.cleaner.io.max.bytes.per.second`: reads and writes together. With `f64::MAX`, which is Kafka's default, it is a pace that
    /// rises with what is to be cleaned.
    pub bytes_per_second_max: f64,
}

impl CleanerSettings {
    /// How many bytes a second a cleaning may read and write while logs of so many bytes are due.
    fn pace(&self, due_bytes: u64) -> f64 {
        if self.bytes_per_second_max < f64::MAX {
            return self.bytes_per_second_max;
        }
        // Each byte is read for its key, read again, and written.
        (3.0 * due_bytes as f64 / UNHURRIED_SECONDS).max(UNHURRIED_BYTES_PER_SECOND)
    }
}

impl Default for CleanerSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            backoff: Duration::from_secs(15),
            dedupe_bytes_max: 128 << 20,
            load_factor: 0.9,
            step_bytes: 512 << 10,
            bytes_per_second_max: f64::MAX,
        }
    }
}

/// What is cleaned next.
struct Due {
    slot: Rc<Slot>,
    cleanable: Cleanable,
    /// What the cleanings of all logs of the core that are due would read.
    due_bytes: u64,
}

/// What all cores of a process share of compaction.
pub struct Cleaner {
    settings: CleanerSettings,
    path: PathBuf,
    /// Held by whoever cleans.
    turn: Mutex<()>,
    /// The clean points, once they are read; held while the file is written.
    points: Mutex<Option<OffsetCheckpoint>>,
}

impl Cleaner {
    /// For one data directory.
    #[must_use]
    pub fn new(settings: CleanerSettings, data_directory: &Path) -> Arc<Self> {
        let path = data_directory.join(CLEANER_FILE);
        Arc::new(Self { settings, path, turn: Mutex::new(()), points: Mutex::new(None) })
    }

    /// The clean points, locked.
    async fn points(&self, disk: &Rc<dyn Disk>) -> io::Result<MutexGuard<'_, Option<OffsetCheckpoint>>> {
        let mut points = self.points.lock().await;
        if points.is_none() {
            *points = Some(self.read(disk).await?);
        }
        Ok(points)
    }

    /// How far the partition in that folder is cleaned, as far as that is known.
    async fn point(&self, disk: &Rc<dyn Disk>, folder: &Path) -> io::Result<Option<Offset>> {
        let points = self.points(disk).await?;
        Ok(points.as_ref().and_then(|points| point_of(points, folder)))
    }

    /// Says how far it is cleaned, durably; `None`: not at all.
    async fn set_point(&self, disk: &Rc<dyn Disk>, folder: &Path, point: Option<Offset>) -> io::Result<()> {
        let Some(key) = key_of(folder) else { return Ok(()) };
        let mut points = self.points(disk).await?;
        let mut changed = points.clone().unwrap_or_default();
        match point {
            Some(point) => changed.offsets.insert(key, point),
            None => changed.offsets.remove(&key),
        };
        crate::disk::replace_file(disk, &self.path, changed.encode().into_bytes()).await?;
        *points = Some(changed);
        Ok(())
    }

    async fn read(&self, disk: &Rc<dyn Disk>) -> io::Result<OffsetCheckpoint> {
        match crate::disk::read_file(disk, &self.path).await {
            Ok(bytes) => Ok(OffsetCheckpoint::parse(&String::from_utf8_lossy(&bytes)).unwrap_or_else(|error| {
                // All of it counts as dirty, and is cleaned again.
                tracing::warn!(path = %self.path.display(), %error, "the checkpoint of compaction is damaged and not used");
                OffsetCheckpoint::default()
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(OffsetCheckpoint::default()),
            Err(error) => Err(error),
        }
    }

    /// Forgets how far a partition was cleaned that has its folder's name from another one, or whose log ends before that.
    pub(crate) async fn forget_beyond(&self, disk: &Rc<dyn Disk>, folder: &Path, log_end: Option<Offset>) -> io::Result<()> {
        match self.point(disk, folder).await? {
            Some(point) if log_end.is_none_or(|end| point > end) => self.set_point(disk, folder, None).await,
            _ => Ok(()),
        }
    }
}

fn key_of(folder: &Path) -> Option<(String, i32)> {
    let folder = PartitionFolder::parse(folder.file_name()?.to_str()?)?;
    Some((folder.topic.to_owned(), folder.index))
}

fn point_of(points: &OffsetCheckpoint, folder: &Path) -> Option<Offset> {
    points.offsets.get(&key_of(folder)?).copied()
}

/// A cleaning that has come to its end.
struct Cleaning {
    segments_before: usize,
    segments_after: usize,
    bytes_before: u64,
    bytes_after: u64,
    records_dropped: u64,
}

impl Core {
    /// Has this core compact its partitions, and keep the clean points right. Before the first partition is opened.
    pub fn start_cleaner(self: &Rc<Self>, cleaner: Arc<Cleaner>) {
        if self.cleaner.set(cleaner.clone()).is_ok() && cleaner.settings.enabled {
            self.env.spawn(Box::pin(run(self.clone(), cleaner)));
        }
    }

    /// Cleans the partition that needs it most. Returns whether there was one.
    async fn clean_one(self: &Rc<Self>, cleaner: &Cleaner) -> bool {
        // ReplayLeavesCompactedAlone: until then a crash replays the last run's journals, from that run's recovery points.
        if !self.begun.get() {
            return false;
        }
        let _turn = cleaner.turn.lock().await;
        let _cleaning = self.cleaning_lock.lock().await;
        let found = match cleaner.points(&self.disk).await {
            Ok(points) => match points.as_ref() {
                None => None,
                Some(points) => {
                    self.hold_timestamps_to_clean(points).await;
                    self.dirtiest(points)
                }
            },
            Err(error) => {
                tracing::error!(path = %cleaner.path.display(), %error, "the checkpoint of compaction cannot be read");
                return false;
            }
        };
        if self.stopping.get() {
            return false;
        }
        let Some(due) = found else { return false };
        let slot = due.slot.clone();
        let folder = slot.log.borrow().directory().clone();
        let began = self.env.monotonic();
        match self.clean(cleaner, &due).await {
            Ok(Cleaning { segments_before, segments_after, bytes_before, bytes_after, records_dropped }) => {
                tracing::info!(
                    partition = %folder.display(), segments_before, segments_after, bytes_before, bytes_after, records_dropped,
                    millis = self.env.monotonic().saturating_sub(began).as_millis() as u64,
                    "compacted"
                );
            }
            Err(CleanError::Abandoned) => {}
            // The partition was deleted, or retention removed a segment, between two steps.
            Err(CleanError::Io(error))
                if error.kind() == io::ErrorKind::NotFound
                    && (slot.deleted.get() || !slot.log.borrow().has_segments(&due.cleanable.segments)) => {}
            Err(error) => {
                let shortage = if let CleanError::Io(error) = &error { Shortage::of(error) } else { None };
                if matches!(error, CleanError::Unfit { .. }) {
                    slot.clean_after.set(Duration::MAX);
                }
                let after = slot.clean_after.get().max(self.env.monotonic() + RETRY);
                slot.clean_after.set(after);
                let partition = folder.display();
                match (shortage, after) {
                    (Some(shortage), _) => tracing::warn!(%partition, "{shortage}: compaction is tried again later"),
                    (_, Duration::MAX) => tracing::error!(%partition, %error, "not compacted any more until the next start"),
                    _ => tracing::error!(%partition, %error, "compaction failed: tried again later"),
                }
            }
        }
        true
    }

    /// `min.compaction.lag.ms` goes by what batches have, not by what indexes say of them.
    async fn hold_timestamps_to_clean(&self, points: &OffsetCheckpoint) {
        let monotonic = self.env.monotonic();
        let slots: Vec<_> = self.slots.borrow().values().filter(|slot| slot.clean_after.get() <= monotonic).cloned().collect();
        for slot in slots {
            let point = point_of(points, slot.log.borrow().directory());
            if !self.hold_timestamps(&slot, |log| log.wants_timestamp_to_clean(point)).await {
                slot.clean_after.set(slot.clean_after.get().max(self.env.monotonic() + RETRY));
            }
        }
    }

    /// The partition that is dirty most of those that are due.
    fn dirtiest(&self, points: &OffsetCheckpoint) -> Option<Due> {
        let now = self.env.now();
        let mut best: Option<(Rc<Slot>, Cleanable)> = None;
        let mut due_bytes = 0;
        let monotonic = self.env.monotonic();
        for slot in self.slots.borrow().values().filter(|slot| slot.clean_after.get() <= monotonic) {
            let log = slot.log.borrow();
            if log.config().compaction.is_none() || log.published().is_compaction_held() {
                continue;
            }
            let point = point_of(points, log.directory());
            let Some(cleanable) = log.cleanable(point, now).filter(|cleanable| cleanable.is_due) else { continue };
            due_bytes += cleanable.segments.iter().map(|segment| segment.file_bytes()).sum::<u64>();
            if best.as_ref().is_none_or(|(_, best)| cleanable.ratio > best.ratio) {
                best = Some((slot.clone(), cleanable));
            }
        }
        best.map(|(slot, cleanable)| Due { slot, cleanable, due_bytes })
    }

    async fn clean(&self, cleaner: &Cleaner, due: &Due) -> Result<Cleaning, CleanError> {
        let (settings, Due { slot, cleanable, due_bytes }) = (&cleaner.settings, due);
        {
            // ProducersOutliveSegments; in an idle log a snapshot that is due waits for whoever needs it.
            let _files = slot.files_lock.lock().await;
            self.may_flush(slot)?;
            side_files::save_due_snapshots(&self.flush_io(), &slot.log, false).await?;
            if !slot.log.borrow().producers_are_saved_before(cleanable.to) {
                return Err(io::Error::other("its producers' state could not be saved").into());
            }
        }
        // ReplayLeavesCompactedAlone: replay writes what lies above the recovery point to where it was before.
        self.free_journal().await?;
        let published = slot.log.borrow().published().clone();
        let is_wanted = || {
            let is_in_service = !slot.deleted.get() && slot.log.borrow().offline_reason().is_none();
            is_in_service && !self.stopping.get() && !published.is_compaction_held()
        };
        let io = CleanIo {
            disk: &self.disk,
            env: &self.env,
            pool: &self.scratch,
            step_bytes: settings.step_bytes.max(STEP_BYTES_MIN),
            bytes_per_second_max: settings.pace(*due_bytes),
            is_wanted: &is_wanted,
        };
        let keys_max = (cleanable.to.0 - cleanable.from.0).unsigned_abs();
        let hash_key = [self.env.random_u64(), self.env.random_u64()];
        let map = OffsetMap::new(settings.dedupe_bytes_max, settings.load_factor, keys_max, hash_key);
        let filter = {
            let log = slot.log.borrow();
            let delete_retention_ms = log.config().compaction.map_or(i64::MAX, |compaction| compaction.delete_retention_ms);
            let last_offsets =
                log.producers().snapshot().into_iter().map(|entry| (entry.producer_id, entry.last_offset)).collect();
            Filter { map, covered: cleanable.from, now: self.env.now(), delete_retention_ms, last_offsets }
        };
        let mut filter = Box::new(filter);
        for segment in cleanable.segments.iter().filter(|segment| segment.end_offset() > cleanable.from) {
            let is_full;
            (filter, is_full) = clean::note_segment(&io, filter, segment, cleanable.from).await?;
            if is_full {
                tracing::debug!(keys = filter.map.len(), covered = filter.covered.0, "the offset map is full");
                break;
            }
        }
        let covered = filter.covered;
        let segments: Vec<_> = cleanable.segments.iter().filter(|segment| segment.base_offset < covered).cloned().collect();
        let groups = slot.log.borrow().groups(&segments);
        let bytes_before = segments.iter().map(|segment| segment.file_bytes()).sum();
        let mut done =
            Cleaning { segments_before: segments.len(), segments_after: 0, bytes_before, bytes_after: 0, records_dropped: 0 };
        for group in &groups {
            filter = self.clean_group(&io, slot, group, filter, &mut done).await?;
        }
        // To give its memory back takes milliseconds, which a core does not have.
        let _ = env::in_background(&*self.env, move || drop(filter)).await;
        // With the files locked the name is still this partition's.
        let _files = slot.files_lock.lock().await;
        if slot.deleted.get() {
            return Err(CleanError::Abandoned);
        }
        let folder = slot.log.borrow().directory().clone();
        cleaner.set_point(&self.disk, &folder, Some(covered)).await?;
        Ok(done)
    }

    /// Makes one segment of a group and puts it in their place.
    async fn clean_group(
        &self,
        io: &CleanIo<'_>,
        slot: &Rc<Slot>,
        group: &[Arc<Segment>],
        filter: Box<Filter>,
        done: &mut Cleaning,
    ) -> Result<Box<Filter>, CleanError> {
        let [first, ..] = group else { return Ok(filter) };
        let (directory, interval) = {
            let log = slot.log.borrow();
            (log.directory().clone(), log.config().index_interval_bytes)
        };
        let bytes: u64 = group.iter().map(|segment| segment.file_bytes()).sum();
        // As much again is left to everybody else.
        if self.disk.space(&directory).await?.available_bytes / 2 < bytes {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        let files = {
            let _files = slot.files_lock.lock().await;
            if !(io.is_wanted)() {
                return Err(CleanError::Abandoned);
            }
            Files::create(&self.disk, &directory, group, first.base_offset).await
        };
        let made = match files {
            Ok(files) => clean::clean_group(io, filter, group, interval, &files).await,
            Err(error) => Err(error.into()),
        };
        let _files = slot.files_lock.lock().await;
        let (filter, cleaned) = match made {
            Ok(made) => made,
            Err(error) => {
                self.discard(slot, &directory, first.base_offset).await;
                return Err(error);
            }
        };
        done.segments_after += 1;
        if cleaned.is_same {
            self.discard(slot, &directory, first.base_offset).await;
            done.bytes_after += bytes;
            return Ok(filter);
        }
        if !(io.is_wanted)() || !slot.log.borrow().has_segments(group) {
            self.discard(slot, &directory, first.base_offset).await;
            return Err(CleanError::Abandoned);
        }
        let end = group.last().map_or(first.base_offset, |last| last.end_offset());
        let segment = Arc::new(Segment::new(first.base_offset, first.path.clone(), cleaned.bytes, end));
        segment.set_max_timestamp(cleaned.newest.0, cleaned.newest.1);
        segment.set_first_timestamp(cleaned.oldest);
        // The names of the new files are durable before any of them changes: at start they show that it was not over.
        if let Err(error) = self.disk.sync_dir(&directory).await {
            // What the folder has after a failed sync nobody knows, so no other one is begun.
            slot.clean_after.set(Duration::MAX);
            self.discard(slot, &directory, first.base_offset).await;
            return Err(error.into());
        }
        match swap::swap(&self.disk, &slot.log, group, segment, &cleaned.kinds).await {
            Ok(()) => {}
            Err(SwapError::Undecided(error)) => {
                slot.clean_after.set(Duration::MAX);
                return Err(error.into());
            }
            Err(SwapError::Unfinished(error)) => {
                slot.clean_after.set(Duration::MAX);
                slot.log.borrow_mut().set_offline(&format!("a compaction failed half way: {error}"));
                return Err(error.into());
            }
        }
        for segment in group {
            for purpose in Purpose::ALL {
                self.files.close(segment.id, purpose);
            }
        }
        done.bytes_after += cleaned.bytes;
        done.records_dropped += cleaned.records_dropped;
        Ok(filter)
    }

    async fn discard(&self, slot: &Slot, directory: &Path, base: Offset) {
        // A deleted partition's folder may be another one's by now.
        if !slot.deleted.get() {
            swap::discard(&self.disk, directory, base).await;
        }
    }
}

async fn run(core: Rc<Core>, cleaner: Arc<Cleaner>) {
    while !core.stopping.get() {
        core.env.sleep(cleaner.settings.backoff).await;
        while core.clean_one(&cleaner).await {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_bound_the_pace_rises_with_what_is_due() {
        let pace =
            |bound, due_bytes| CleanerSettings { bytes_per_second_max: bound, ..CleanerSettings::default() }.pace(due_bytes);
        assert!((pace(f64::MAX, 1 << 20) - UNHURRIED_BYTES_PER_SECOND).abs() < 1.0);
        assert!((pace(f64::MAX, 20_000_000_000) - 1e9).abs() < 1.0, "three times twenty gigabytes in a minute");
        assert!((pace(1e6, 20_000_000_000) - 1e6).abs() < 1.0, "a bound is a bound");
    }
}
