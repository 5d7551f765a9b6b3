//! What happens to a data directory before its partitions are opened, and after they are closed: finding them, replaying the
//! journals of a run that did not end cleanly into the segment files, and Kafka's checkpoint files and clean-shutdown marker.
//! One caller, before and after all cores run.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::core::ClosedPartition;
use crate::core::partitions::remove_folder;
use crate::disk::{Create, Disk, File, OpenOptions, Payload};
use crate::env::all;
use crate::journal::format::Entry;
use crate::journal::is_directory_name;
use crate::journal::replay::Replay;
use crate::log::checkpoint::{OffsetCheckpoint, parse_partition_metadata};
use crate::segment::names::{
    self, CLEAN_SHUTDOWN_FILE, FolderRole, HIGH_WATERMARK_FILE, LOG_START_FILE, PARTITION_METADATA_FILE, PartitionFolder,
    RECOVERY_POINT_FILE,
};
use crate::types::{Offset, PartitionId, TopicId};

/// How many files replay keeps open.
const OPEN_FILES_MAX: usize = 256;
/// How many folders are looked into at once.
const READS_AT_ONCE: usize = 32;

/// A partition's folder, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPartition {
    /// Which partition.
    pub id: PartitionId,
    /// The topic's name, as the folder says.
    pub topic: String,
    /// The folder's name.
    pub folder: String,
    /// Everything below it is durable in segment files.
    pub recovery_point: Offset,
    /// The log start offset.
    pub log_start: Offset,
}

/// What a data directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Whether the last stop was clean.
    pub clean: bool,
    /// The partitions.
    pub partitions: Vec<FoundPartition>,
    /// Folders of partitions that were being deleted.
    pub deleted: Vec<String>,
    /// Folders that look like partitions and have no sound `partition.metadata`: being made when a crash came, or not ours.
    pub unfinished: Vec<String>,
    /// How many rounds of journals were replayed, and how many bytes.
    pub rounds: u64,
    /// See `rounds`.
    pub bytes: u64,
}

/// Looks through the data directory and replays its journals into the segment files, which are synced. It may be run again
/// after a crash in the middle: nothing is removed.
///
/// # Errors
/// Those of the disk; `InvalidData` where a checkpoint or journal is damaged or newer, naming the file.
pub async fn recover(disk: &Rc<dyn Disk>, data: &Path) -> io::Result<Recovered> {
    let mut found = Recovered::default();
    let names = disk.list(data).await?;
    let recovery_points = offset_checkpoint(disk, &data.join(RECOVERY_POINT_FILE)).await?;
    let log_starts = offset_checkpoint(disk, &data.join(LOG_START_FILE)).await?;
    let mut live = Vec::new();
    for entry in names.iter().filter(|entry| entry.is_dir) {
        let Some(folder) = PartitionFolder::parse(&entry.name) else { continue };
        match folder.role {
            FolderRole::Live => live.push((folder, &entry.name)),
            FolderRole::Deleted(_) => found.deleted.push(entry.name.clone()),
            FolderRole::Stray(_) | FolderRole::Future(_) => {}
        }
    }
    for some in live.chunks(READS_AT_ONCE) {
        let topics = all(some.iter().map(|(_, name)| topic_of(disk, data.join(name)))).await;
        for ((folder, name), topic) in some.iter().zip(topics) {
            let Some(topic) = topic? else {
                found.unfinished.push((*name).clone());
                continue;
            };
            let key = (folder.topic.to_owned(), folder.index);
            found.partitions.push(FoundPartition {
                id: PartitionId { topic, index: folder.index },
                topic: folder.topic.to_owned(),
                folder: (*name).clone(),
                recovery_point: recovery_points.offsets.get(&key).copied().unwrap_or(Offset(0)),
                log_start: log_starts.offsets.get(&key).copied().unwrap_or(Offset(0)),
            });
        }
    }
    found.clean = names.iter().any(|entry| entry.name == CLEAN_SHUTDOWN_FILE);
    let journals: Vec<_> =
        names.iter().filter(|entry| entry.is_dir && is_directory_name(&entry.name)).map(|entry| data.join(&entry.name)).collect();
    // A journal beside a marker: the crash came between a clean stop's last steps. It holds nothing that files lack.
    if !found.clean {
        replay_all(disk, data, &journals, &mut found).await?;
    }
    Ok(found)
}

/// The topic that a folder's `partition.metadata` names; `None` where that is missing or damaged.
async fn topic_of(disk: &Rc<dyn Disk>, folder: PathBuf) -> io::Result<Option<TopicId>> {
    match crate::disk::read_file(disk, &folder.join(PARTITION_METADATA_FILE)).await {
        Ok(bytes) => Ok(parse_partition_metadata(&String::from_utf8_lossy(&bytes)).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn offset_checkpoint(disk: &Rc<dyn Disk>, path: &Path) -> io::Result<OffsetCheckpoint> {
    match crate::disk::read_file(disk, path).await {
        Ok(bytes) => OffsetCheckpoint::parse(&String::from_utf8_lossy(&bytes)).or_else(|error| {
            // It only says where checking may start: without it, everything is checked.
            tracing::warn!(path = %path.display(), %error, "a checkpoint is damaged and not used");
            Ok(OffsetCheckpoint::default())
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(OffsetCheckpoint::default()),
        Err(error) => Err(error),
    }
}

async fn replay_all(disk: &Rc<dyn Disk>, data: &Path, journals: &[PathBuf], found: &mut Recovered) -> io::Result<()> {
    let at: BTreeMap<PartitionId, usize> = found.partitions.iter().enumerate().map(|(at, p)| (p.id, at)).collect();
    let mut replays = Vec::new();
    for directory in journals {
        let replay = Replay::open(disk, directory).await?;
        // What the journals' checkpoints say is newer than Kafka's files of the last clean stop.
        for &(id, recovery_point, log_start) in replay.checkpoint.iter().flat_map(|checkpoint| &checkpoint.partitions) {
            if let Some(&at) = at.get(&id) {
                let partition = &mut found.partitions[at];
                partition.recovery_point = partition.recovery_point.max(recovery_point);
                partition.log_start = partition.log_start.max(log_start);
            }
        }
        replays.push(replay);
    }
    let mut target = Target::new(disk, data);
    for mut replay in replays {
        while let Some((_, entries)) = replay.next().await? {
            found.rounds += 1;
            for (entry, payload) in entries {
                let Some(&at) = at.get(&entry.partition) else { continue };
                let partition = &found.partitions[at];
                if entry.next_offset <= partition.recovery_point {
                    continue;
                }
                found.bytes += payload.len() as u64;
                target.write(&partition.folder, &entry, payload).await?;
            }
        }
    }
    target.sync().await?;
    if found.rounds > 0 {
        tracing::info!(rounds = found.rounds, bytes = found.bytes, "the journal of the last run is replayed");
    }
    Ok(())
}

/// How much of a segment replay gathers before it writes it, and of all of them.
const GATHERED_BYTES_MAX: usize = 1 << 20;
const GATHERED_BYTES_MAX_ALL: usize = 64 << 20;

/// The segment files that replay writes to. Small rounds bring few bytes for each; they are gathered to large writes.
struct Target<'a> {
    disk: &'a Rc<dyn Disk>,
    data: &'a Path,
    open: BTreeMap<PathBuf, Rc<dyn File>>,
    touched: BTreeSet<PathBuf>,
    /// By file: where they go, and what was not written yet.
    gathered: BTreeMap<PathBuf, (u64, Vec<u8>)>,
    gathered_bytes: usize,
}

impl<'a> Target<'a> {
    fn new(disk: &'a Rc<dyn Disk>, data: &'a Path) -> Self {
        let (open, touched, gathered) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { disk, data, open, touched, gathered, gathered_bytes: 0 }
    }

    async fn write(&mut self, folder: &str, entry: &Entry, payload: &[u8]) -> io::Result<()> {
        let path = self.data.join(folder).join(names::log_file_name(entry.segment_base));
        let goes_on = |(position, bytes): &(u64, Vec<u8>)| {
            position + bytes.len() as u64 == entry.position && bytes.len() + payload.len() <= GATHERED_BYTES_MAX
        };
        if self.gathered.get(&path).is_some_and(|gathered| !goes_on(gathered)) {
            self.write_gathered(&path).await?;
        }
        let (_, bytes) = self.gathered.entry(path).or_insert_with(|| (entry.position, Vec::new()));
        bytes.extend_from_slice(payload);
        self.gathered_bytes += payload.len();
        if self.gathered_bytes > GATHERED_BYTES_MAX_ALL { self.write_all_gathered().await } else { Ok(()) }
    }

    async fn write_all_gathered(&mut self) -> io::Result<()> {
        while let Some(path) = self.gathered.keys().next().cloned() {
            self.write_gathered(&path).await?;
        }
        Ok(())
    }

    async fn write_gathered(&mut self, path: &Path) -> io::Result<()> {
        let Some((position, bytes)) = self.gathered.remove(path) else { return Ok(()) };
        self.gathered_bytes -= bytes.len();
        if !self.open.contains_key(path) {
            if self.open.len() >= OPEN_FILES_MAX {
                self.sync_open().await?;
            }
            let options = OpenOptions { create: Create::IfMissing, write: true, direct: false };
            self.open.insert(path.to_owned(), self.disk.open(path, options).await?);
            self.touched.extend(path.parent().map(Path::to_owned));
        }
        match self.open.get(path) {
            Some(file) => file.write_at(Payload::Bytes(bytes), position).await,
            None => Ok(()),
        }
    }

    /// Writes what is left, and syncs all of it.
    async fn sync(&mut self) -> io::Result<()> {
        self.write_all_gathered().await?;
        self.sync_open().await
    }

    async fn sync_open(&mut self) -> io::Result<()> {
        for result in self.disk.sync_set(std::mem::take(&mut self.open).into_values().collect()).await {
            result?;
        }
        for folder in std::mem::take(&mut self.touched) {
            self.disk.sync_dir(&folder).await?;
        }
        Ok(())
    }
}

/// After every partition is open and every core has begun: journals of cores that are no more go, and what the last clean stop
/// left, durably, before anything is appended. The marker goes first, since with it the next start would believe in checkpoints
/// that are gone. These go because they name topics, not ids: one that is deleted and made again would get the old one's offsets.
/// The journals' own checkpoints have them all.
///
/// # Errors
/// Those of the disk.
pub async fn finish(disk: &Rc<dyn Disk>, data: &Path, cores: usize) -> io::Result<()> {
    let kept: BTreeSet<String> = (0..cores).map(crate::journal::directory_name).collect();
    let entries = disk.list(data).await?;
    if entries.iter().any(|entry| entry.name == CLEAN_SHUTDOWN_FILE) {
        disk.remove_file(&data.join(CLEAN_SHUTDOWN_FILE)).await?;
        disk.sync_dir(data).await?;
    }
    for entry in entries {
        let path = data.join(&entry.name);
        if [RECOVERY_POINT_FILE, LOG_START_FILE, HIGH_WATERMARK_FILE].contains(&entry.name.as_str()) {
            disk.remove_file(&path).await?;
        } else if entry.is_dir && is_directory_name(&entry.name) && !kept.contains(&entry.name) {
            remove_folder(disk, &path).await?;
        }
    }
    disk.sync_dir(data).await
}

/// After every core has closed: Kafka's checkpoints, then the marker. The journals may go afterwards.
///
/// # Errors
/// Those of the disk.
pub async fn write_clean_stop(disk: &Rc<dyn Disk>, data: &Path, closed: &[ClosedPartition]) -> io::Result<()> {
    let checkpoint = |offset: fn(&ClosedPartition) -> Offset| {
        let offsets = closed.iter().filter_map(|partition| {
            let folder = PartitionFolder::parse(&partition.folder)?;
            Some(((folder.topic.to_owned(), folder.index), offset(partition)))
        });
        OffsetCheckpoint { offsets: offsets.collect() }.encode().into_bytes()
    };
    crate::disk::replace_file(disk, &data.join(RECOVERY_POINT_FILE), checkpoint(|p| p.recovery_point)).await?;
    crate::disk::replace_file(disk, &data.join(LOG_START_FILE), checkpoint(|p| p.log_start)).await?;
    crate::disk::replace_file(disk, &data.join(HIGH_WATERMARK_FILE), checkpoint(|p| p.high_watermark)).await?;
    // What Kafka 3.7 and later write into it; older ones leave it empty. Any content will do for either.
    let marker = b"{\"version\":0,\"brokerEpoch\":-1}\n".to_vec();
    crate::disk::replace_file(disk, &data.join(CLEAN_SHUTDOWN_FILE), marker).await
}
