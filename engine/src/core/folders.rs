//! Making the folders of a core's partitions, many with few syncs ([ADR 0015](../../../docs/adr/0015-new-partitions-are-made-together.md)).
//! Called before a partition's log is opened, by [`Core::open_partition`] or for many at once; it reads no log.
//!
//! A folder is made step by step, and each step is durable for all before the next begins for any: its name; its topic id under a
//! temporary name, and its first segment's file; the names in it. **NamedWhenDurable**: `partition.metadata` has its name only when
//! the folder's own name and the bytes in it are durable.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::core::{Core, NewPartition};
use crate::disk::{self, File, OpenOptions};
use crate::env::all;
use crate::log::checkpoint::encode_partition_metadata;
use crate::segment::names::{PARTITION_METADATA_FILE, log_file_name};

/// How many folders are made together, where there are files enough: each has two open meanwhile.
const TOGETHER_MAX: usize = 256;
/// How many are looked at, or written, at the same time.
const AT_ONCE: usize = 32;

/// What stands where a partition's folder is to be.
enum Found {
    /// The partition's folder, as a clean stop has left it.
    Sound,
    /// The partition's folder; whether its names are durable is not known.
    Unsynced,
    /// A folder that was being made when something failed or a crash came.
    Unfinished,
    /// Nothing before, an empty folder now.
    New,
}

/// That [`Core::make_folders`] has seen to a partition's folder.
#[derive(Debug)]
pub struct Made {
    /// Whether all that is in it was made just now, and is durable.
    pub(super) fresh: bool,
}

impl Core {
    /// Sees to it that the folders of these partitions are there, with their topic ids, and that their names are durable. The
    /// result tells each one's fate, in order.
    ///
    /// A folder without `partition.metadata` is made anew. One that has it is believed after a clean stop alone, which has synced
    /// it: what was made, and failed to be synced, is there all the same, under names that a loss of power takes.
    pub async fn make_folders(&self, new: &[NewPartition]) -> Vec<io::Result<Made>> {
        let together = TOGETHER_MAX.min(self.settings.open_files_max / 4).max(AT_ONCE);
        let mut made = Vec::with_capacity(new.len());
        for some in new.chunks(together) {
            made.append(&mut self.make_together(some).await);
        }
        made
    }

    async fn make_together(&self, new: &[NewPartition]) -> Vec<io::Result<Made>> {
        let data = &self.settings.data_directory;
        let paths: Vec<PathBuf> = new.iter().map(|new| data.join(&new.folder)).collect();
        let look = new.iter().zip(&paths).map(|(new, path)| self.find_or_create(path, new.clean));
        let mut found = few_at_once(look).await;

        // At start the core's journal has had the data directory synced, and what was there before with it.
        let unnamed = |found: &io::Result<Found>| match found {
            Ok(Found::New | Found::Unfinished) => true,
            Ok(Found::Unsynced) => self.begun.get(),
            Ok(Found::Sound) | Err(_) => false,
        };
        if found.iter().any(unnamed)
            && let Err(error) = self.disk.sync_dir(data).await
        {
            for found in found.iter_mut().filter(|found| unnamed(found)) {
                *found = Err(disk::same_error(&error));
            }
        }

        let write = new.iter().zip(&paths).zip(found).map(|((new, path), found)| self.write_files(new, path, found));
        let written = few_at_once(write).await;
        let files = written.iter().flatten().flat_map(|written| written.files.iter().cloned()).collect();
        let mut synced = self.disk.sync_set(files).await.into_iter();
        let synced = written.into_iter().map(|written| {
            let Written { files, found } = written?;
            // All of its own are taken, also behind one that failed.
            let own: Vec<io::Result<()>> = synced.by_ref().take(files.len()).collect();
            own.into_iter().collect::<io::Result<()>>().map(|()| found)
        });
        let synced: Vec<_> = synced.collect();

        let name = paths.iter().zip(synced).map(|(path, synced)| self.name_metadata(path, synced));
        let mut made = few_at_once(name).await;
        let is_changed = |found: &io::Result<Found>| matches!(found, Ok(Found::Unsynced | Found::Unfinished | Found::New));
        let changed: Vec<usize> = (0..made.len()).filter(|&at| is_changed(&made[at])).collect();
        let synced = self.disk.sync_dirs(changed.iter().map(|&at| paths[at].clone()).collect()).await;
        for (at, synced) in changed.into_iter().zip(synced) {
            if let Err(error) = synced {
                made[at] = Err(error);
            }
        }
        made.into_iter().map(|made| made.map(|found| Made { fresh: matches!(found, Found::New) })).collect()
    }

    /// What is there; a folder, if nothing was.
    async fn find_or_create(&self, path: &Path, clean: bool) -> io::Result<Found> {
        match self.disk.open(&path.join(PARTITION_METADATA_FILE), OpenOptions::READ).await {
            Ok(_) => return Ok(if clean { Found::Sound } else { Found::Unsynced }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match self.disk.create_dir(path).await {
            Ok(()) => Ok(Found::New),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Found::Unfinished),
            Err(error) => Err(error),
        }
    }

    /// Writes what a folder still lacks. What an unfinished one has beside its topic id, opening its log finds out.
    async fn write_files(&self, new: &NewPartition, path: &Path, found: io::Result<Found>) -> io::Result<Written> {
        let mut written = Written { found: found?, files: Vec::new() };
        if !matches!(written.found, Found::New | Found::Unfinished) {
            return Ok(written);
        }
        // CleanPointsAreTheirPartitions.
        if let Some(cleaner) = self.cleaner.get() {
            cleaner.forget_beyond(&self.disk, path, None).await?;
        }
        let text = encode_partition_metadata(new.id.topic);
        let metadata = path.join(PARTITION_METADATA_FILE);
        written.files.push(disk::write_temporary(&self.disk, &metadata, text.into_bytes()).await?);
        if matches!(written.found, Found::New) {
            written.files.push(self.disk.open(&path.join(log_file_name(new.log_start)), OpenOptions::WRITE).await?);
        }
        Ok(written)
    }

    /// Gives `partition.metadata` its name where it was written.
    async fn name_metadata(&self, path: &Path, synced: io::Result<Found>) -> io::Result<Found> {
        let found = synced?;
        if matches!(found, Found::New | Found::Unfinished) {
            let metadata = path.join(PARTITION_METADATA_FILE);
            self.disk.rename(&disk::temporary(&metadata), &metadata).await?;
        }
        Ok(found)
    }
}

/// A folder's files that are to be synced.
struct Written {
    found: Found,
    files: Vec<Rc<dyn File>>,
}

/// Waits for all, [`AT_ONCE`] at a time.
async fn few_at_once<F: Future>(mut futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut outputs = Vec::new();
    loop {
        let mut some = all(futures.by_ref().take(AT_ONCE)).await;
        if some.is_empty() {
            return outputs;
        }
        outputs.append(&mut some);
    }
}
