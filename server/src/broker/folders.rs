//! The folders of a data directory: which topic one belongs to, out of the way with those of others, away with deleted ones.

use std::io;
use std::path::Path;
use std::rc::Rc;

use ringlog_engine::core::Core;
use ringlog_engine::disk::{self, Disk};
use ringlog_engine::env::Env;
use ringlog_engine::log::checkpoint::parse_partition_metadata;
use ringlog_engine::segment::names::{FolderRole, PARTITION_METADATA_FILE, PartitionFolder};
use ringlog_engine::types::TopicId;

/// The name of a partition's folder.
#[must_use]
pub(crate) fn live(topic: &str, index: i32) -> String {
    PartitionFolder::live(topic, index).name()
}

/// Whose a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// There is no folder.
    Missing,
    /// A topic's.
    Topic(TopicId),
    /// Nobody's: it has no `partition.metadata`, or a damaged one.
    Unknown,
}

/// Reads a folder's `partition.metadata`.
pub(crate) async fn owner(disk: &Rc<dyn Disk>, path: &Path) -> io::Result<Owner> {
    match disk::read_file(disk, &path.join(PARTITION_METADATA_FILE)).await {
        Ok(bytes) => Ok(match parse_partition_metadata(&String::from_utf8_lossy(&bytes)) {
            Ok(topic) => Owner::Topic(topic),
            Err(_) => Owner::Unknown,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match disk.list(path).await {
            Ok(_) => Ok(Owner::Unknown),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Owner::Missing),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Sees to it that a partition's folder is its own or not there: one that a deleted topic of the same name left is removed, any
/// other's is kept as a stray.
pub(crate) async fn make_way(
    core: &Core,
    data: &Path,
    folder: &str,
    topic: TopicId,
    is_deleted: impl Fn(TopicId) -> bool,
) -> io::Result<()> {
    let path = data.join(folder);
    match owner(&core.disk, &path).await? {
        Owner::Topic(other) if other != topic && is_deleted(other) => remove(&core.disk, &core.env, data, folder).await,
        Owner::Topic(other) if other != topic => {
            let stray = set_aside(&core.disk, &core.env, data, folder).await?;
            tracing::warn!(folder, stray, "a folder of another topic was in the way: kept under a new name");
            Ok(())
        }
        Owner::Topic(_) | Owner::Missing => Ok(()),
        Owner::Unknown => claim(&core.disk, &path).await,
    }
}

/// Removes a folder if it is still there under its name and belongs to this topic.
pub(crate) async fn remove_if_of(core: &Core, data: &Path, folder: &str, topic: TopicId) -> io::Result<()> {
    match owner(&core.disk, &data.join(folder)).await? {
        Owner::Topic(found) if found == topic => remove(&core.disk, &core.env, data, folder).await,
        _ => Ok(()),
    }
}

/// Renames a folder to Kafka's form for partitions that do not belong here, durably. Returns the new name.
pub(crate) async fn set_aside(disk: &Rc<dyn Disk>, env: &Rc<dyn Env>, data: &Path, folder: &str) -> io::Result<String> {
    rename(disk, env, data, folder, |id| FolderRole::Stray(id)).await
}

/// Removes a partition's folder: renamed first, so that a crash in the middle is finished at the next start.
pub(crate) async fn remove(disk: &Rc<dyn Disk>, env: &Rc<dyn Env>, data: &Path, folder: &str) -> io::Result<()> {
    let renamed = mark_deleted(disk, env, data, folder).await?;
    remove_tree(disk, &data.join(renamed)).await
}

/// Renames a folder to Kafka's form for partitions that are to be removed, durably. Returns the new name.
pub(crate) async fn mark_deleted(disk: &Rc<dyn Disk>, env: &Rc<dyn Env>, data: &Path, folder: &str) -> io::Result<String> {
    rename(disk, env, data, folder, |id| FolderRole::Deleted(id)).await
}

async fn rename(
    disk: &Rc<dyn Disk>,
    env: &Rc<dyn Env>,
    data: &Path,
    folder: &str,
    role: impl for<'a> FnOnce(&'a str) -> FolderRole<'a>,
) -> io::Result<String> {
    let Some(found) = PartitionFolder::parse(folder) else { return Err(io::ErrorKind::InvalidFilename.into()) };
    let unique = format!("{:016x}{:016x}", env.random_u64(), env.random_u64());
    let renamed = PartitionFolder { role: role(&unique), ..found }.name();
    disk.rename(&data.join(folder), &data.join(&renamed)).await?;
    disk.sync_dir(data).await?;
    Ok(renamed)
}

/// Makes a folder that nobody owns ready to become a partition's, unless it has record batches. It was being made when a crash
/// came, or is a user's: of what is in it, only a damaged `partition.metadata` goes.
async fn claim(disk: &Rc<dyn Disk>, path: &Path) -> io::Result<()> {
    let entries = disk.list(path).await?;
    if entries.iter().any(|entry| entry.name.ends_with(".log") && entry.len_bytes > 0) {
        let what =
            format!("{} holds records and its {PARTITION_METADATA_FILE} is missing or damaged: restore it", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    if entries.iter().any(|entry| entry.name == PARTITION_METADATA_FILE) {
        disk.remove_file(&path.join(PARTITION_METADATA_FILE)).await?;
    }
    Ok(())
}

/// Removes a folder and all in it.
pub(crate) async fn remove_tree(disk: &Rc<dyn Disk>, path: &Path) -> io::Result<()> {
    for entry in disk.list(path).await? {
        let path = path.join(&entry.name);
        if entry.is_dir { Box::pin(remove_tree(disk, &path)).await? } else { disk.remove_file(&path).await? }
    }
    disk.remove_dir(path).await
}
