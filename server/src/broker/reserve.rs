//! A few MiB of the disk that are held back while there is room, and given up when there is none: so that what makes room
//! (deletions, retention) can be recorded. Any core may call.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_engine::core::Core;
use ringlog_engine::disk::{Create, Disk, OpenOptions};
use ringlog_engine::log::retention::OutsideLog;
use ringlog_engine::types::{Offset, PartitionId};
use tokio::sync::Mutex;

/// The file that holds the room.
const FILE: &str = ".ringlog-reserve";
/// How much: the checkpoints of ten thousand partitions and the records of as many deletions fit several times.
const RESERVE_BYTES: u64 = 4 << 20;
/// The room is taken only where so many times more is left: else it would be taken and given up in turn.
const ROOM_FACTOR: u64 = 4;

/// See the module.
pub struct Reserve {
    data_dir: PathBuf,
    /// Whether the room is held; locked while that changes.
    is_held: Mutex<bool>,
}

impl Reserve {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), is_held: Mutex::new(false) }
    }

    /// Holds the room, if there is plenty and it is not held. What fails is not needed now, and tried again by the next call.
    pub async fn take(&self, disk: &Rc<dyn Disk>) {
        let mut is_held = self.is_held.lock().await;
        if *is_held {
            return;
        }
        match self.try_take(disk).await {
            Ok(taken) => *is_held = taken,
            Err(error) => tracing::debug!(%error, "no room is held back for a full disk"),
        }
    }

    async fn try_take(&self, disk: &Rc<dyn Disk>) -> io::Result<bool> {
        let path = self.data_dir.join(FILE);
        let file = match disk.open(&path, OpenOptions { create: Create::Never, ..OpenOptions::WRITE }).await {
            // The last run's: what it holds already takes no more.
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if disk.space(&self.data_dir).await?.available_bytes < ROOM_FACTOR * RESERVE_BYTES {
                    return Ok(false);
                }
                disk.open(&path, OpenOptions::WRITE).await?
            }
            Err(error) => return Err(error),
        };
        file.allocate(0, RESERVE_BYTES).await?;
        // A crash must not leave the name without the room: the next start may find none for it.
        file.sync_data().await?;
        disk.sync_dir(&self.data_dir).await?;
        Ok(true)
    }

    /// Gives the room up. Returns whether there was any, so that trying again may help.
    pub(crate) async fn give_up(&self, disk: &Rc<dyn Disk>) -> bool {
        let mut is_held = self.is_held.lock().await;
        if !*is_held {
            return false;
        }
        match disk.remove_file(&self.data_dir.join(FILE)).await {
            Ok(()) => {
                *is_held = false;
                tracing::warn!("the disk is full: the room that was held back is used, so that deletions can be recorded");
                true
            }
            Err(error) => {
                tracing::error!(%error, "the disk is full, and the room that was held back cannot be used");
                false
            }
        }
    }

    /// Applies retention on a core, with the room that is held back where the disk is full.
    ///
    /// # Errors
    /// As [`Core::retain`].
    pub async fn retain(&self, core: &Core) -> io::Result<()> {
        match core.retain().await {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && self.give_up(&core.disk).await => core.retain().await,
            result => result,
        }
    }

    /// DeleteRecords on the core that owns the partition, with the room that is held back where the disk fails.
    ///
    /// # Errors
    /// As [`Core::delete_records`].
    pub async fn delete_records(&self, core: &Core, id: PartitionId, offset: Offset) -> Result<Offset, Option<OutsideLog>> {
        match core.delete_records(id, offset).await {
            Err(None) if self.give_up(&core.disk).await => core.delete_records(id, offset).await,
            result => result,
        }
    }
}
