//! What there is to look into: partitions, their segments, and what the journals of the data directory have for them. It opens
//! no segment for its batches.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_engine::disk::{DirEntry, Disk};
use ringlog_engine::journal::is_directory_name;
use ringlog_engine::journal::replay::Replay;
use ringlog_engine::log::checkpoint::{OffsetCheckpoint, parse_partition_metadata};
use ringlog_engine::segment::names::{
    CLEAN_SHUTDOWN_FILE, FolderRole, LOCK_FILE, LOG_START_FILE, META_PROPERTIES_FILE, PARTITION_METADATA_FILE, PartitionFolder,
    RECOVERY_POINT_FILE, log_file_name, parse_log_file_name,
};
use ringlog_engine::types::{Offset, PartitionId, TopicId};
use rustix::fs::FlockOperation;
use tracing::warn;

use super::OfflineError;
use super::disk::{ReadOnlyDisk, list, read_full};
use super::overlay::Overlay;

/// A partition's folder.
#[derive(Debug)]
pub(super) struct Partition {
    /// The folder's name.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// By base offset.
    pub(super) segments: BTreeMap<Offset, Segment>,
    /// The other files.
    pub(super) files: Vec<String>,
    /// Everything below it was synced in segment files, as far as anybody says.
    pub(super) recovery_point: Offset,
    /// The first offset that may be read, as far as anybody says.
    pub(super) log_start: Offset,
    /// Whether the last stop was clean, so that files end where their records end.
    pub(super) clean: bool,
}

/// A segment's log file, with what a journal has for it.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) overlay: Overlay,
}

/// A partition's number and the way to it.
type ByName = (String, i32);

/// A data directory, or the one partition of it that was asked for.
#[derive(Debug)]
pub(super) struct Directory {
    /// The data directory: of a single partition, where its folder lies.
    pub(super) data: PathBuf,
    /// Whether all of it was asked for, and not a single partition.
    pub(super) whole: bool,
    /// Whether a broker's files are beside the partitions.
    pub(super) is_data_dir: bool,
    pub(super) partitions: Vec<Partition>,
    /// Journals that count: none after a clean stop.
    pub(super) journals: Vec<PathBuf>,
}

/// The partitions at `path`, a partition's folder or a data directory, with what the journals hold for them.
pub(super) fn partitions(path: &Path) -> Result<Vec<Partition>, OfflineError> {
    let mut directory = open(path)?;
    if directory.is_used() {
        warn!("{} is used by a running broker: the end of what it writes meanwhile may look damaged", directory.data.display());
    }
    add_journals(&mut directory.partitions, &directory.journals)?;
    Ok(directory.partitions)
}

/// What lies at `path`, a partition's folder or a data directory, without the journals' part.
pub(super) fn open(path: &Path) -> Result<Directory, OfflineError> {
    let path = &fs::canonicalize(path).map_err(OfflineError::read(path))?;
    let entries = list(path).map_err(OfflineError::read(path))?;
    let is_partition = entries.iter().any(|entry| parse_log_file_name(&entry.name).is_some());
    let (data, folders) = if is_partition {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        (path.parent().unwrap_or(path), vec![name])
    } else {
        let is_live = |entry: &&DirEntry| {
            entry.is_dir && PartitionFolder::parse(&entry.name).is_some_and(|folder| folder.role == FolderRole::Live)
        };
        (path.as_path(), entries.iter().filter(is_live).map(|entry| entry.name.clone()).collect())
    };
    let surroundings = list(data).map_err(OfflineError::read(data))?;
    let is_brokers =
        |entry: &DirEntry| [CLEAN_SHUTDOWN_FILE, META_PROPERTIES_FILE].contains(&&*entry.name) || is_directory_name(&entry.name);
    let is_data_dir = surroundings.iter().any(is_brokers);
    if folders.is_empty() && !is_data_dir {
        return Err(OfflineError::NoPartitions { path: path.clone() });
    }
    let clean = surroundings.iter().any(|entry| entry.name == CLEAN_SHUTDOWN_FILE);
    let checkpoint = |name| offset_checkpoint(&data.join(name));
    let (recovery_points, log_starts) = (checkpoint(RECOVERY_POINT_FILE), checkpoint(LOG_START_FILE));
    let mut partitions = Vec::new();
    for name in folders {
        let folder = data.join(&name);
        match partition(folder.clone(), name, clean, &recovery_points, &log_starts) {
            // A broker that is at work has deleted it since it was listed.
            Err(OfflineError::Read { error, .. })
                if error.kind() == io::ErrorKind::NotFound && !is_partition && !folder.exists() => {}
            found => partitions.push(found?),
        }
    }
    let is_journal = |entry: &&DirEntry| !clean && entry.is_dir && is_directory_name(&entry.name);
    let journals = surroundings.iter().filter(is_journal).map(|entry| data.join(&entry.name)).collect();
    Ok(Directory { data: data.to_owned(), whole: !is_partition, is_data_dir, partitions, journals })
}

impl Directory {
    /// Whether a broker has it. Kafka's lock is another: one of its directories that is in use is not told from one that is not.
    pub(super) fn is_used(&self) -> bool {
        let Ok(lock) = File::open(self.data.join(LOCK_FILE)) else { return false };
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    }
}

fn offset_checkpoint(path: &Path) -> BTreeMap<ByName, Offset> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
        Err(error) => {
            warn!("{}: {error}", path.display());
            return BTreeMap::new();
        }
    };
    match OffsetCheckpoint::parse(&text) {
        Ok(checkpoint) => checkpoint.offsets,
        Err(error) => {
            warn!("{}: {error}", path.display());
            BTreeMap::new()
        }
    }
}

fn partition(
    path: PathBuf,
    name: String,
    clean: bool,
    recovery_points: &BTreeMap<ByName, Offset>,
    log_starts: &BTreeMap<ByName, Offset>,
) -> Result<Partition, OfflineError> {
    let mut segments = BTreeMap::new();
    let mut files = Vec::new();
    for entry in list(&path).map_err(OfflineError::read(&path))? {
        match parse_log_file_name(&entry.name) {
            Some(base) => {
                segments.insert(base, Segment { path: path.join(&entry.name), overlay: Overlay::default() });
            }
            None => files.push(entry.name),
        }
    }
    let folder = PartitionFolder::parse(&name).map(|folder| (folder.topic.to_owned(), folder.index));
    let of = |offsets: &BTreeMap<ByName, Offset>| folder.as_ref().and_then(|folder| offsets.get(folder)).copied();
    let recovery_point = of(recovery_points).unwrap_or(Offset(0));
    let log_start = of(log_starts).unwrap_or(Offset(0));
    Ok(Partition { name, path, segments, files, recovery_point, log_start, clean })
}

impl Partition {
    /// Which partition it is for the journals, which know topics by their ids alone.
    pub(super) fn id(&self) -> Option<PartitionId> {
        let text = fs::read_to_string(self.path.join(PARTITION_METADATA_FILE)).ok()?;
        let topic: TopicId = parse_partition_metadata(&text).ok()?;
        Some(PartitionId { topic, index: PartitionFolder::parse(&self.name)?.index })
    }
}

/// Lays what the journals hold over the segments, by the same rules as the replay at start.
pub(super) fn add_journals(partitions: &mut [Partition], journals: &[PathBuf]) -> Result<(), OfflineError> {
    match add_readable_journals(partitions, journals)?.into_iter().next() {
        Some((path, error)) => Err(OfflineError::read(path)(error)),
        None => Ok(()),
    }
}

/// The same for those journals that can be read; returns the others, and why they cannot. As at start, all checkpoints count
/// before the first entry does: a partition may have moved from one journal to another.
pub(super) fn add_readable_journals<'a>(
    partitions: &mut [Partition],
    journals: &'a [PathBuf],
) -> Result<Vec<(&'a Path, io::Error)>, OfflineError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| OfflineError::Read { path: PathBuf::from("journal"), error })?;
    let disk: Rc<dyn Disk> = Rc::new(ReadOnlyDisk);
    let by_id: BTreeMap<PartitionId, usize> =
        partitions.iter().enumerate().filter_map(|(at, partition)| Some((partition.id()?, at))).collect();
    let (mut replays, mut unreadable) = (Vec::new(), Vec::new());
    for path in journals {
        let replay = match runtime.block_on(Replay::open(&disk, path)) {
            Ok(replay) => replay,
            Err(error) => {
                unreadable.push((path.as_path(), error));
                continue;
            }
        };
        for &(id, recovery_point, log_start) in replay.checkpoint.iter().flat_map(|checkpoint| &checkpoint.partitions) {
            if let Some(&at) = by_id.get(&id) {
                partitions[at].recovery_point = partitions[at].recovery_point.max(recovery_point);
                partitions[at].log_start = partitions[at].log_start.max(log_start);
            }
        }
        replays.push((path, replay));
    }
    for (path, mut replay) in replays {
        loop {
            let entries = match runtime.block_on(replay.next()) {
                Ok(Some((_, entries))) => entries,
                Ok(None) => break,
                Err(error) => {
                    unreadable.push((path.as_path(), error));
                    break;
                }
            };
            for (entry, payload) in entries {
                let Some(&at) = by_id.get(&entry.partition) else { continue };
                let partition = &mut partitions[at];
                if entry.next_offset > partition.recovery_point {
                    let folder = &partition.path;
                    let segment = partition.segments.entry(entry.segment_base).or_insert_with(|| Segment {
                        path: folder.join(log_file_name(entry.segment_base)),
                        overlay: Overlay::default(),
                    });
                    segment.lay_over(entry.position, payload)?;
                }
            }
        }
    }
    Ok(unreadable)
}

impl Segment {
    /// Only what the file does not have is kept in memory: of a whole journal that is little.
    fn lay_over(&mut self, position: u64, payload: &[u8]) -> Result<(), OfflineError> {
        let mut has = vec![0; payload.len()];
        let read = match File::open(&self.path) {
            Ok(file) => read_full(&file, &mut has, position).map_err(OfflineError::read(&self.path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(OfflineError::read(&self.path)(error)),
        };
        if read == payload.len() && has == payload {
            self.overlay.clear(position..position + payload.len() as u64);
        } else {
            self.overlay.write(position, payload);
        }
        Ok(())
    }
}
