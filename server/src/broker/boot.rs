//! From a data directory, whose journals have been replayed, to a broker that can serve: the metadata log first, the catalogue
//! from it, what becomes of each folder, every partition on its core. Runs on core 0, once. Nothing is appended before the
//! marker of the last clean stop is gone.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ringlog_engine::core::recover::{self, FoundPartition, Recovered};
use ringlog_engine::core::{Core, CoreHandle, NewPartition, Partition};
use ringlog_engine::types::{Offset, PartitionId};

use crate::broker::controller::{Controller, NewTopicId, Shared};
use crate::broker::groups::Groups;
use crate::broker::metadata_log::{self, CommitError, LoadError, MetadataLog};
use crate::broker::reconcile::{self, Known, State};
use crate::broker::reserve::Reserve;
use crate::broker::topics::Topics;
use crate::broker::{Broker, folders};
use crate::catalogue::records::PartitionChangeRecord;
use crate::catalogue::{Catalogue, LogPoint, MetadataRecord};
use crate::config::BrokerConfig;
use crate::group::GroupConfigs;

/// How many partitions' new terms are committed at once.
const TERMS_PER_BATCH: usize = 10_000;

/// What a start begins with.
pub struct Start {
    /// The configuration.
    pub config: Arc<BrokerConfig>,
    /// The cluster's id.
    pub cluster_id: String,
    /// The data directory.
    pub data_dir: Arc<Path>,
    /// What [`recover::recover`] found in it.
    pub recovered: Recovered,
    /// Where topics' ids come from.
    pub new_topic_id: NewTopicId,
    /// How many records of the metadata log follow a snapshot before the next one is written.
    pub snapshot_records: i64,
}

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The disk failed.
    #[error("{action}: {error}")]
    Io {
        /// What was done.
        action: &'static str,
        /// How it failed.
        error: io::Error,
    },
    /// There are partitions, and nothing says what they are.
    #[error(
        "the data directory has {count} partitions, the first in {folder}, and no metadata log ({}): restore that folder",
        metadata_log::folder()
    )]
    NoMetadataLog {
        /// How many.
        count: usize,
        /// One of them.
        folder: String,
    },
    /// The metadata log's folder belongs to something else.
    #[error("the folder {} does not hold a metadata log: its partition.metadata has another topic id", metadata_log::folder())]
    OtherMetadataLog,
    /// The catalogue cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The first records cannot be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A partition cannot be opened.
    #[error("{0}")]
    Partitions(String),
    /// A core ended.
    #[error("a core has stopped")]
    Stopped,
}

fn at(action: &'static str) -> impl FnOnce(io::Error) -> BootError {
    move |error| BootError::Io { action, error }
}

/// What becomes of a folder that holds a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its partition is opened.
    Opened,
    /// Its topic was deleted: a crash came in between.
    Removed,
    /// Nothing that is known: kept under another name.
    SetAside,
}

fn fate(found: &FoundPartition, catalogue: &Catalogue) -> Fate {
    match catalogue.topic_by_id(found.id.topic) {
        Some(topic) if *topic.name == *found.topic && topic.partition(found.id.index).is_some() => Fate::Opened,
        None if catalogue.is_deleted(found.id.topic) => Fate::Removed,
        _ => Fate::SetAside,
    }
}

/// Brings the broker up. See the module.
///
/// # Errors
/// [`BootError`]: nothing is served then, and the data directory can be started from again.
pub async fn boot(core: &Rc<Core>, cores: Arc<[CoreHandle]>, start: Start) -> Result<Arc<Broker>, BootError> {
    let Start { config, cluster_id, data_dir, recovered, new_topic_id, snapshot_records } = start;
    let partition = open_metadata_log(core, &recovered).await?;
    let directory = data_dir.join(metadata_log::folder());
    let (catalogue, snapshot_end) = metadata_log::load(core, &partition, &directory).await?;
    let metadata = MetadataLog::new(Arc::new(partition), snapshot_end, snapshot_records);

    let known = settle_folders(core, &data_dir, &recovered, &catalogue).await?;
    let topics = Arc::new(ArcSwap::from_pointee(Topics::default()));
    let group_configs = Arc::new(ArcSwap::from_pointee(GroupConfigs::default()));
    let mut state = State::new(catalogue, metadata);
    if !recovered.clean {
        open_terms(core, &mut state, config.node_id).await?;
    }
    let reserve = Arc::new(Reserve::new(&data_dir));
    let groups = Groups::new(cores.len());
    let shared = Shared {
        config: config.clone(),
        data_dir: data_dir.clone(),
        cores: cores.clone(),
        topics: topics.clone(),
        group_configs: group_configs.clone(),
        reserve: reserve.clone(),
        groups: groups.clone(),
        new_id: new_topic_id,
    };
    reconcile::reconcile_with(&shared, &mut state, &known).await.map_err(BootError::Partitions)?;

    let last: Vec<_> = recovered.partitions.iter().map(|found| (found.id, found.recovery_point, found.log_start)).collect();
    let begun = cores.iter().map(|handle| {
        let last = last.clone();
        handle.run(|core| Box::pin(async move { core.begin_beside(last).await }))
    });
    for begun in futures_util::future::join_all(begun).await {
        begun.map_err(|_| BootError::Stopped)?.map_err(at("starting the journal"))?;
    }
    for handle in cores.iter() {
        handle.run(|core| Box::pin(async move { core.all_begun() })).await.map_err(|_| BootError::Stopped)?;
    }
    recover::finish(&core.disk, &data_dir, cores.len()).await.map_err(at("removing what the last run left"))?;
    if state.catalogue.applied() == LogPoint::START {
        metadata_log::commit(core, &mut state, &Catalogue::first_records()).await?;
    }
    reserve.take(&core.disk).await;
    let node_id = config.node_id;
    let controller = Controller::new(shared, state);
    Ok(Arc::new(Broker { config, cluster_id, node_id, cores, topics, group_configs, reserve, groups, controller }))
}

/// After a crash every partition begins a new term: offsets that were given out and lost will be given out again, and by the
/// leader epoch clients and followers tell which are which (KIP-101, KIP-320).
async fn open_terms(core: &Rc<Core>, state: &mut State, node_id: i32) -> Result<(), CommitError> {
    let changes: Vec<_> = state
        .catalogue
        .topics()
        .flat_map(|topic| {
            let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            (0..count).map(|partition| PartitionChangeRecord { partition, topic_id: topic.id, isr: None, leader: Some(node_id) })
        })
        .map(MetadataRecord::PartitionChange)
        .collect();
    for batch in changes.chunks(TERMS_PER_BATCH) {
        metadata_log::commit(core, state, batch).await?;
    }
    Ok(())
}

async fn open_metadata_log(core: &Core, recovered: &Recovered) -> Result<Partition, BootError> {
    let folder = metadata_log::folder();
    let found = recovered.partitions.iter().find(|found| found.folder == folder);
    match found {
        Some(found) if found.id != metadata_log::PARTITION => return Err(BootError::OtherMetadataLog),
        Some(_) => {}
        None => {
            if let Some(first) = recovered.partitions.first() {
                return Err(BootError::NoMetadataLog { count: recovered.partitions.len(), folder: first.folder.clone() });
            }
        }
    }
    let new = NewPartition {
        id: metadata_log::PARTITION,
        folder,
        config: Arc::new(metadata_log::log_config()),
        leader_epoch: metadata_log::EPOCH,
        recovery_point: found.map_or(Offset(0), |found| found.recovery_point),
        log_start: found.map_or(Offset(0), |found| found.log_start),
        clean: found.is_some() && recovered.clean,
    };
    core.open_partition(new).await.map_err(at("opening the metadata log"))
}

/// Removes and sets aside what is not to be opened. Returns what is known of the rest.
async fn settle_folders(
    core: &Rc<Core>,
    data: &Arc<Path>,
    recovered: &Recovered,
    catalogue: &Catalogue,
) -> Result<BTreeMap<PartitionId, Known>, BootError> {
    let mut known = BTreeMap::new();
    let mut strays = Vec::new();
    let mut removed = recovered.deleted.clone();
    for found in recovered.partitions.iter().filter(|found| found.id != metadata_log::PARTITION) {
        match fate(found, catalogue) {
            Fate::Opened => {
                let FoundPartition { recovery_point, log_start, .. } = *found;
                known.insert(found.id, Known { recovery_point, log_start, clean: recovered.clean });
            }
            Fate::Removed => {
                let renamed = folders::mark_deleted(&core.disk, &core.env, data, &found.folder).await;
                removed.push(renamed.map_err(at("removing a deleted topic"))?);
            }
            Fate::SetAside => {
                let renamed = folders::set_aside(&core.disk, &core.env, data, &found.folder).await;
                strays.push(renamed.map_err(at("renaming a stray partition"))?);
            }
        }
    }
    if !strays.is_empty() {
        tracing::warn!(
            folders = strays.join(", "),
            "partitions that belong to no topic are kept under new names and not served; remove them when they are not needed"
        );
    }
    if !removed.is_empty() {
        // Many files may take a while: nobody waits for them.
        let (disk, data) = (core.disk.clone(), data.clone());
        core.env.spawn(Box::pin(async move {
            for folder in removed {
                if let Err(error) = folders::remove_tree(&disk, &data.join(&folder)).await {
                    tracing::warn!(folder, %error, "a deleted partition's files could not be removed; tried again at the next start");
                }
            }
        }));
    }
    Ok(known)
}
