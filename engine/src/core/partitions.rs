//! The partitions of a core: taking them in, deleting them, retention, and the clean stop.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use crate::core::{Core, Partition, Slot};
use crate::disk::cache::Purpose;
use crate::disk::{Disk, OpenOptions};
use crate::log::Log;
use crate::log::append::AppendError;
use crate::log::config::LogConfig;
use crate::log::journaling::Replies;
use crate::log::open::{self, OpenParams};
use crate::log::published::Segment;
use crate::log::retention::{OutsideLog, Removed};
use crate::log::{flush, side_files};
use crate::segment::names::{FolderRole, PARTITION_METADATA_FILE, PartitionFolder};
use crate::types::{LeaderEpoch, Offset, PartitionId};

/// How many partitions are opened or closed at the same time.
const AT_ONCE: usize = 32;

/// A partition that a core is to take in.
pub struct NewPartition {
    /// Which partition.
    pub id: PartitionId,
    /// The name of its folder in the data directory: `<topic>-<n>`.
    pub folder: String,
    /// The topic's options.
    pub config: Arc<LogConfig>,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// What the last run knew of it; see [`crate::core::recover`].
    pub recovery_point: Offset,
    /// The log start offset that a checkpoint says.
    pub log_start: Offset,
    /// Whether the last stop was clean.
    pub clean: bool,
}

/// What a clean stop leaves behind of a partition, for Kafka's checkpoint files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedPartition {
    /// Which partition.
    pub id: PartitionId,
    /// The name of its folder.
    pub folder: String,
    /// Everything below is durable in segment files.
    pub recovery_point: Offset,
    /// The log start offset.
    pub log_start: Offset,
    /// The high watermark.
    pub high_watermark: Offset,
}

impl Core {
    /// Takes a partition in: its folder is made where it is missing, its log opened.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn open_partition(&self, new: NewPartition) -> io::Result<Partition> {
        let directory = self.settings.data_directory.join(&new.folder);
        self.make_folder(&directory, new.id, new.clean).await?;
        let params = OpenParams {
            id: new.id,
            directory,
            config: new.config,
            recovery_point: new.recovery_point,
            log_start: new.log_start,
            clean: new.clean,
            leader_epoch: new.leader_epoch,
        };
        let log = open::open(&self.disk, &self.scratch, params, self.env.now()).await?;
        if let Some(cleaner) = self.cleaner.get() {
            cleaner.forget_beyond(&self.disk, log.directory(), Some(log.published().log_end())).await?;
        }
        let partition = Partition { id: new.id, core: self.index, published: log.published().clone(), inflow: Arc::default() };
        self.slots.borrow_mut().insert(new.id, Rc::new(Slot::new(log)));
        Ok(partition)
    }

    /// Makes a partition's folder with its topic id, durable step by step: a folder that has no `partition.metadata` yet was being
    /// made when something failed or a crash came, and is made again. One that has it is believed after a clean stop alone, which
    /// has synced it: what was made, and failed to be synced, is there all the same, under names that a loss of power takes.
    async fn make_folder(&self, directory: &Path, id: PartitionId, clean: bool) -> io::Result<()> {
        let (disk, data) = (&self.disk, &self.settings.data_directory);
        let path = directory.join(PARTITION_METADATA_FILE);
        match disk.open(&path, OpenOptions::READ).await {
            Ok(_) if clean => Ok(()),
            Ok(_) => {
                disk.sync_dir(directory).await?;
                // At start the core's journal has had the data directory synced.
                if self.begun.get() { disk.sync_dir(data).await } else { Ok(()) }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                crate::disk::ensure_dir(disk, data, directory).await?;
                // CleanPointsAreTheirPartitions.
                if let Some(cleaner) = self.cleaner.get() {
                    cleaner.forget_beyond(disk, directory, None).await?;
                }
                let text = crate::log::checkpoint::encode_partition_metadata(id.topic);
                crate::disk::replace_file(disk, &path, text.into_bytes()).await
            }
            Err(error) => Err(error),
        }
    }

    /// After all partitions of the last run are open: the new journal is the one that counts from now on.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn begin(&self) -> io::Result<()> {
        self.begin_beside(Vec::new()).await
    }

    /// The same beside other cores, with the recovery point and log start of all partitions of the last run: some may have moved
    /// here from another core, or from here to one that has not begun. [`Core::all_begun`] comes when all have.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn begin_beside(&self, mut known: Vec<(PartitionId, Offset, Offset)>) -> io::Result<()> {
        known.retain(|&(id, ..)| self.slot(id).is_none());
        *self.carried.borrow_mut() = known;
        self.begun.set(true);
        self.want_extension();
        self.free_journal().await?;
        let (directory, generation) = {
            let journal = self.journal.borrow();
            (journal.directory.clone(), journal.generation)
        };
        super::generations::remove_other_generations(&self.disk, &directory, generation).await
    }

    /// Every core's own checkpoint says where its partitions begin.
    pub fn all_begun(&self) {
        self.carried.borrow_mut().clear();
    }

    /// Gives a partition new options.
    pub fn configure(&self, id: PartitionId, config: Arc<LogConfig>) {
        if let Some(slot) = self.slot(id) {
            slot.log.borrow_mut().set_config(config);
            // A topic that became durable owes a sync.
            self.sync_wanted.set(true);
            self.round_wanted.notify_one();
        }
    }

    /// Takes a partition out of service and removes its files. Who waits for it gets an error. Its folder is renamed first, so that
    /// a crash in the middle is finished at the next start.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn delete_partition(&self, id: PartitionId) -> io::Result<()> {
        let Some(slot) = self.slots.borrow_mut().remove(&id) else { return Ok(()) };
        slot.deleted.set(true);
        // Before anything happens to its files.
        slot.log.borrow().published().set_deleted();
        // A round that carries it may be in flight.
        if self.round_running.get() {
            self.round_done.notified().await;
        }
        let mut replies = Replies::default();
        slot.log.borrow_mut().cut_uncommitted(&AppendError::Deleted, &mut replies);
        slot.log.borrow_mut().set_deleted();
        replies.send();
        slot.wake_watchers();
        let _files = slot.files_lock.lock().await;
        for segment in slot.log.borrow().published().view.load().segments.iter() {
            // The room comes free when nobody has the file open.
            self.close_files(segment.id);
        }
        let directory = slot.log.borrow().directory().clone();
        let Some(name) = directory.file_name().and_then(|name| name.to_str()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let unique = format!("{:016x}{:016x}", self.env.random_u64(), self.env.random_u64());
        let Some(folder) = PartitionFolder::parse(name) else { return Err(io::ErrorKind::InvalidFilename.into()) };
        if let Some(cleaner) = self.cleaner.get() {
            // Only so that the file does not grow: who gets the name next makes sure of it.
            let _ = cleaner.forget_beyond(&self.disk, &directory, None).await;
        }
        let renamed = PartitionFolder { role: FolderRole::Deleted(&unique), ..folder }.name();
        let renamed = self.settings.data_directory.join(renamed);
        self.disk.rename(&directory, &renamed).await?;
        self.disk.sync_dir(&self.settings.data_directory).await?;
        remove_folder(&self.disk, &renamed).await
    }

    /// DeleteRecords: the new log start is durable when this returns it.
    ///
    /// # Errors
    /// An offset outside of the log, `None` in the place of the error where the disk failed or the partition is out of service, or no
    /// such partition.
    pub async fn delete_records(&self, id: PartitionId, offset: Offset) -> Result<Offset, Option<OutsideLog>> {
        let slot = self.slot(id).ok_or(None)?;
        if slot.log.borrow().offline_reason().is_some() {
            return Err(None);
        }
        let log_start = slot.log.borrow_mut().delete_records(offset).map_err(Some)?;
        self.apply_log_start(&[slot]).await.map_err(|error| {
            tracing::error!(%error, "the new log start could not be made durable");
            None
        })?;
        Ok(log_start)
    }

    /// Applies retention to all partitions.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn retain(&self) -> io::Result<()> {
        let now = self.env.now();
        let slots: Vec<_> = self.slots.borrow().values().cloned().collect();
        let mut changed = Vec::new();
        for slot in slots {
            self.hold_timestamps(&slot, |log| log.wants_timestamp_of(now)).await;
            let mut log = slot.log.borrow_mut();
            if log.retain(now) || log.has_removable() {
                drop(log);
                changed.push(slot);
            }
        }
        if changed.is_empty() { Ok(()) } else { self.apply_log_start(&changed).await }
    }

    /// RotDeletesNothing: the segments that `wants` names, one after the other, have their largest timestamps held against their
    /// batches. Returns whether that is known of all; one that cannot be read is left alone for now.
    pub(super) async fn hold_timestamps(&self, slot: &Slot, wants: impl Fn(&Log) -> Option<Arc<Segment>>) -> bool {
        loop {
            let Some(segment) = wants(&slot.log.borrow()) else { return true };
            if slot.deleted.get() || self.stopping.get() {
                return false;
            }
            if let Err(error) = self.reader.hold_max_timestamp(&segment).await {
                tracing::warn!(segment = %segment.path.display(), %error, "it is not known how old a segment is: it stays as it is for now");
                return false;
            }
        }
    }

    /// Makes moved log starts durable, then removes the segments below them.
    async fn apply_log_start(&self, slots: &[Rc<Slot>]) -> io::Result<()> {
        let _one = self.log_start_lock.lock().await;
        if self.stopping.get() {
            // What a clean stop writes down would be out of date.
            return Err(io::Error::other("the broker is stopping"));
        }
        let starts: Vec<_> = slots.iter().map(|slot| slot.log.borrow().next_log_start()).collect();
        self.free_journal().await?;
        let mut failed = Ok(());
        for (slot, start) in slots.iter().zip(starts) {
            slot.log.borrow_mut().publish_log_start(start);
            let _files = slot.files_lock.lock().await;
            if slot.deleted.get() {
                continue;
            }
            // On a full disk this is what makes room, so it does not wait for the next settling.
            if let Err(error) = side_files::save_due_snapshots(&self.flush_io(), &slot.log, false).await {
                failed = Err(error);
            }
            let removed = slot.log.borrow_mut().remove_segments();
            for Removed { id, path } in removed {
                self.close_files(id);
                if let Err(error) = side_files::remove_segment(&self.disk, &path).await {
                    failed = Err(error);
                }
            }
        }
        failed
    }

    fn close_files(&self, segment_id: u64) {
        for purpose in Purpose::ALL {
            self.files.close(segment_id, purpose);
        }
    }

    /// The clean stop: nothing more is taken, everything goes to the segments, files get their true length, the journal goes.
    ///
    /// # Errors
    /// Those of the disk: then the stop is not clean, and the next start recovers.
    pub async fn close(self: &Rc<Self>) -> io::Result<Vec<ClosedPartition>> {
        self.stopping.set(true);
        self.retry_waiting();
        // A cleaning ends at its next step, and none begins.
        drop(self.cleaning_lock.lock().await);
        // So does a scrub.
        drop(self.scrub_lock.lock().await);
        self.rounds_drained().await;
        // Retention that is at work ends first, and none begins.
        let _starts = self.log_start_lock.lock().await;
        // A settling that is under way ends first: should its sync fail, the next one of the same file is not to be believed.
        let _one = self.settle_lock.lock().await;
        let slots: Vec<_> = self.slots.borrow().values().cloned().collect();
        let results =
            self.for_each(slots.clone(), AT_ONCE, |core, slot| Box::pin(async move { core.close_partition(&slot).await })).await;
        for (_, result) in results {
            result?;
        }
        let closed = slots
            .iter()
            .map(|slot| {
                let log = slot.log.borrow();
                let folder = log.directory().file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
                ClosedPartition {
                    id: slot.id,
                    folder,
                    recovery_point: log.recovery_point(),
                    log_start: log.published().log_start(),
                    high_watermark: log.published().high_watermark(),
                }
            })
            .collect();
        Ok(closed)
    }

    async fn close_partition(&self, slot: &Slot) -> io::Result<()> {
        let _files = slot.files_lock.lock().await;
        if slot.deleted.get() {
            return Ok(());
        }
        if let Some(reason) = slot.log.borrow().offline_reason() {
            return Err(io::Error::other(format!("a partition is offline: {reason}")));
        }
        if !slot.log.borrow().is_touched() {
            return Ok(());
        }
        flush::flush(&self.flush_io(), &slot.log, true).await?;
        flush::cut_to_length(&self.flush_io(), &slot.log).await?;
        let mut unsynced = side_files::prepare_settle(&self.flush_io(), &slot.log, true).await?;
        let results = self.disk.sync_set(std::mem::take(&mut unsynced.files)).await;
        let mut log = slot.log.borrow_mut();
        for result in results {
            if let Err(error) = result {
                // Whoever settles it before the process has ended must not believe a later sync, which would succeed.
                log.flush_failed(&error);
                return Err(error);
            }
        }
        log.settle(&unsynced);
        if log.is_settled() { Ok(()) } else { Err(io::Error::other("a segment failed while the broker was stopping")) }
    }

    /// Removes the journal after all cores have closed and Kafka's checkpoint files are written.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn remove_journal(&self) -> io::Result<()> {
        // A checkpoint that is being written ends first, and none begins.
        let _one = self.checkpoint_lock.lock().await;
        self.journal_removed.set(true);
        let directory = self.journal.borrow().directory.clone();
        remove_folder(&self.disk, &directory).await?;
        self.disk.sync_dir(&self.settings.data_directory).await
    }
}

/// Removes a folder and the files in it.
///
/// # Errors
/// Those of the disk.
pub(crate) async fn remove_folder(disk: &Rc<dyn Disk>, path: &std::path::Path) -> io::Result<()> {
    for entry in disk.list(path).await? {
        let path = path.join(&entry.name);
        if entry.is_dir { Box::pin(remove_folder(disk, &path)).await? } else { disk.remove_file(&path).await? }
    }
    disk.remove_dir(path).await
}
