//! Makes partitions follow the catalogue: opens those that are new on their cores, hands out changed options, removes those of
//! deleted topics, and swaps the snapshots of topics and of the options of groups. What fails is done the next time: it compares, it
//! does not remember steps.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::stream::{self, StreamExt};
use ringlog_engine::core::{Core, NewPartition, Partition};
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::types::{Offset, PartitionId, TopicId};

use crate::broker::controller::Shared;
use crate::broker::folders;
use crate::broker::metadata_log::MetadataLog;
use crate::broker::topics::{self, Topic, Topics};
use crate::catalogue::Catalogue;
use crate::catalogue::records::MetadataRecord;
use crate::config::{BrokerConfig, TopicConfig};

/// How many partitions a core opens or deletes at the same time.
const AT_ONCE: usize = 32;

/// What commands change, one at a time.
pub(crate) struct State {
    /// What the metadata log says.
    pub(crate) catalogue: Catalogue,
    /// The same, for whoever must not wait for the command that is at work.
    pub(crate) published: Arc<ArcSwap<Catalogue>>,
    /// The metadata log.
    pub(crate) metadata: MetadataLog,
    /// Every partition that is open on its core, of topics that exist.
    pub(crate) open: BTreeMap<PartitionId, Opened>,
    /// Partitions of deleted topics whose files are still to be removed.
    pub(crate) doomed: BTreeMap<PartitionId, Opened>,
    /// Whether something is committed that is not carried out.
    pub(crate) behind: bool,
    /// Whether a task tries that again.
    pub(crate) retrying: bool,
}

/// A partition that was opened, and its folder.
pub(crate) struct Opened {
    pub(crate) partition: Arc<Partition>,
    pub(crate) folder: String,
}

impl State {
    pub(crate) fn new(catalogue: Catalogue, metadata: MetadataLog) -> Self {
        let published = Arc::new(ArcSwap::from_pointee(catalogue.clone()));
        let (open, doomed) = (BTreeMap::new(), BTreeMap::new());
        Self { catalogue, published, metadata, open, doomed, behind: true, retrying: false }
    }
}

/// What the last run left of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) recovery_point: Offset,
    pub(crate) log_start: Offset,
    pub(crate) clean: bool,
}

/// Carries out what the catalogue says, as far as it is not done. Returns in one sentence what failed first.
pub(crate) async fn reconcile(shared: &Shared, state: &mut State) -> Result<(), String> {
    reconcile_with(shared, state, &BTreeMap::new()).await
}

/// The same at start, when `known` says what the last run left.
pub(crate) async fn reconcile_with(
    shared: &Shared,
    state: &mut State,
    known: &BTreeMap<PartitionId, Known>,
) -> Result<(), String> {
    state.behind = true;
    follow_group_configs(shared, &state.catalogue);
    let before = shared.topics.load_full();
    let configs = resolve_all(&shared.config, &before, &state.catalogue)?;
    let mut failed = remove_gone(shared, state, &before).await.err();
    failed = failed.or(open_new(shared, state, &configs, known).await.err());
    let topics = snapshot(state, &before, &configs);
    configure_changed(shared, &before, &topics).await?;
    shared.topics.store(Arc::new(topics));
    match failed {
        Some(error) => {
            tracing::error!(error, "a change of topics is committed and not carried out; tried again soon");
            Err(error)
        }
        None => {
            state.behind = false;
            Ok(())
        }
    }
}

/// Whether what the records say of topics and partitions is carried out, though something else may not be.
pub(crate) fn is_done(state: &State, records: &[MetadataRecord]) -> bool {
    let is_there = |id: &TopicId| [&state.open, &state.doomed].into_iter().any(|all| all.keys().any(|one| one.topic == *id));
    records.iter().all(|record| match record {
        MetadataRecord::RemoveTopic { topic_id } => !is_there(topic_id),
        MetadataRecord::Topic(_) => true,
        MetadataRecord::Partition(partition) => {
            let id = PartitionId { topic: partition.topic_id, index: partition.partition };
            state.open.contains_key(&id)
        }
        // Of settings nobody knows here; the rest is never carried out.
        _ => false,
    })
}

/// Lets the groups have what the catalogue says that they have set.
fn follow_group_configs(shared: &Shared, catalogue: &Catalogue) {
    let before = shared.group_configs.load();
    if !before.is_of(catalogue.group_overrides()) {
        let next = before.next(&shared.config, catalogue.group_overrides());
        shared.group_configs.store(Arc::new(next));
    }
}

/// The options of the topics that are new or changed.
fn resolve_all(
    config: &BrokerConfig,
    before: &Topics,
    catalogue: &Catalogue,
) -> Result<BTreeMap<TopicId, Arc<TopicConfig>>, String> {
    let mut configs = BTreeMap::new();
    for info in catalogue.topics() {
        let config = match before.by_id(info.id) {
            Some(topic) if Arc::ptr_eq(&topic.info, info) || topic.info.config_overrides == info.config_overrides => {
                topic.config.clone()
            }
            _ => topics::resolve(config, info).map_err(|error| format!("the options of topic {}: {error}", info.name))?,
        };
        configs.insert(info.id, config);
    }
    Ok(configs)
}

/// Deletes the partitions of topics that the catalogue does not have any more.
async fn remove_gone(shared: &Shared, state: &mut State, before: &Topics) -> Result<(), String> {
    let catalogue = state.catalogue.clone();
    let is_gone = |id: TopicId| catalogue.topic_by_id(id).is_none();
    let gone: BTreeSet<TopicId> = before.iter().map(|topic| topic.id).filter(|id| is_gone(*id)).collect();
    let (kept, doomed) = std::mem::take(&mut state.open).into_iter().partition(|(id, _)| !is_gone(id.topic));
    state.open = kept;
    let doomed: BTreeMap<PartitionId, Opened> = doomed;
    state.doomed.extend(doomed);
    if !gone.is_empty() {
        // Nobody finds them from here on.
        shared.topics.store(Arc::new(Topics::new(before.iter().filter(|topic| !gone.contains(&topic.id)).cloned())));
        shared
            .groups
            .topics_deleted(before.iter().filter(|topic| gone.contains(&topic.id)).map(|topic| (topic.id, topic.name.clone())));
    }
    let mut by_core: BTreeMap<usize, Vec<(PartitionId, String)>> = BTreeMap::new();
    for (id, doomed) in &state.doomed {
        by_core.entry(doomed.partition.core).or_default().push((*id, doomed.folder.clone()));
    }
    let jobs = by_core.into_iter().map(|(core, ids)| {
        let data = shared.data_dir.clone();
        let job = shared.cores[core].run(move |core| Box::pin(delete_on(core, data, ids)));
        async move { job.await.map_err(|error| error.to_string()) }
    });
    let mut first_error = None;
    for deleted in futures_util::future::join_all(jobs).await {
        for (id, result) in deleted? {
            match result {
                Ok(()) => {
                    state.doomed.remove(&id);
                }
                Err(error) => {
                    first_error.get_or_insert(format!("a deleted partition's files could not be removed: {error}"));
                }
            }
        }
    }
    first_error.map_or(Ok(()), Err)
}

async fn delete_on(core: Rc<Core>, data: Arc<Path>, ids: Vec<(PartitionId, String)>) -> Vec<(PartitionId, io::Result<()>)> {
    let jobs = ids.into_iter().map(|(id, folder)| {
        let (core, data) = (core.clone(), data.clone());
        async move {
            let mut result = core.delete_partition(id).await;
            if result.is_ok() {
                // After a deletion that failed half way the core does not know the partition any more, and the folder may be there.
                result = folders::remove_if_of(&core, &data, &folder, id.topic).await;
            }
            (id, result)
        }
    });
    stream::iter(jobs).buffer_unordered(AT_ONCE).collect().await
}

/// Opens the partitions that are not open. The folder of one that is known was looked into already.
async fn open_new(
    shared: &Shared,
    state: &mut State,
    configs: &BTreeMap<TopicId, Arc<TopicConfig>>,
    known: &BTreeMap<PartitionId, Known>,
) -> Result<(), String> {
    let mut by_core: Vec<Vec<(NewPartition, bool)>> = shared.cores.iter().map(|_| Vec::new()).collect();
    for info in state.catalogue.topics() {
        let Some(config) = configs.get(&info.id) else { continue };
        let mut log_config = None;
        for (index, partition) in (0..).zip(&info.partitions) {
            let id = info.partition_id(index);
            if state.open.contains_key(&id) {
                continue;
            }
            let config = log_config.get_or_insert_with(|| Arc::new(log_config_of(shared, config)));
            let known_of_it = known.get(&id);
            let new = NewPartition {
                id,
                folder: folders::live(&info.name, index),
                config: config.clone(),
                leader_epoch: partition.leader_epoch,
                recovery_point: known_of_it.map_or(Offset(0), |known| known.recovery_point),
                log_start: known_of_it.map_or(Offset(0), |known| known.log_start),
                clean: known_of_it.is_some_and(|known| known.clean),
            };
            by_core[topics::core_of(info.id, index, shared.cores.len())].push((new, known_of_it.is_some()));
        }
    }
    let jobs = shared.cores.iter().zip(by_core).filter(|(_, new)| !new.is_empty()).map(|(handle, new)| {
        let catalogue = state.catalogue.clone();
        let data = shared.data_dir.clone();
        let job = handle.run(move |core| Box::pin(open_on(core, data, new, catalogue)));
        async move { job.await.map_err(|error| error.to_string()) }
    });
    let mut first_error = None;
    for opened in futures_util::future::join_all(jobs).await {
        for (folder, result) in opened? {
            match result {
                Ok(partition) => {
                    state.open.insert(partition.id, Opened { partition: Arc::new(partition), folder });
                }
                Err(error) => {
                    tracing::error!(folder, %error, "a partition could not be opened");
                    first_error.get_or_insert(format!("partition {folder} could not be opened: {error}"));
                }
            }
        }
    }
    first_error.map_or(Ok(()), Err)
}

async fn open_on(
    core: Rc<Core>,
    data: Arc<Path>,
    new: Vec<(NewPartition, bool)>,
    catalogue: Catalogue,
) -> Vec<(String, io::Result<Partition>)> {
    let jobs = new.into_iter().map(|(new, is_known)| {
        let (core, data, catalogue) = (core.clone(), data.clone(), catalogue.clone());
        async move {
            let folder = new.folder.clone();
            let is_deleted = |topic| catalogue.is_deleted(topic);
            let way = if is_known { Ok(()) } else { folders::make_way(&core, &data, &folder, new.id.topic, is_deleted).await };
            let result = match way {
                Ok(()) => core.open_partition(new).await,
                Err(error) => Err(error),
            };
            (folder, result)
        }
    });
    stream::iter(jobs).buffer_unordered(AT_ONCE).collect().await
}

/// The topics that can be used now: each up to its first partition that is not open.
fn snapshot(state: &State, before: &Topics, configs: &BTreeMap<TopicId, Arc<TopicConfig>>) -> Topics {
    Topics::new(state.catalogue.topics().filter_map(|info| {
        let is_whole = |topic: &&Arc<Topic>| Arc::ptr_eq(&topic.info, info) && topic.partitions.len() == info.partitions.len();
        if let Some(topic) = before.by_id(info.id).filter(is_whole) {
            return Some(topic.clone());
        }
        let count = i32::try_from(info.partitions.len()).unwrap_or(i32::MAX);
        let partitions: Vec<_> =
            (0..count).map_while(|index| Some(state.open.get(&info.partition_id(index))?.partition.clone())).collect();
        let config = configs.get(&info.id)?.clone();
        (!partitions.is_empty()).then(|| Arc::new(Topic::new(info.clone(), config, partitions)))
    }))
}

/// Hands changed options to the logs.
async fn configure_changed(shared: &Shared, before: &Topics, after: &Topics) -> Result<(), String> {
    let mut by_core: Vec<Vec<(PartitionId, Arc<LogConfig>)>> = shared.cores.iter().map(|_| Vec::new()).collect();
    for topic in after.iter() {
        let Some(old) = before.by_id(topic.id) else { continue };
        if Arc::ptr_eq(&old.config, &topic.config) {
            continue;
        }
        let config = Arc::new(log_config_of(shared, &topic.config));
        // Those that are new have them from their opening.
        for partition in &old.partitions {
            by_core[partition.core].push((partition.id, config.clone()));
        }
    }
    for (handle, changed) in shared.cores.iter().zip(by_core).filter(|(_, changed)| !changed.is_empty()) {
        let configure = |core: &Core, changed: Vec<(PartitionId, Arc<LogConfig>)>| {
            for (id, config) in changed {
                core.configure(id, config);
            }
        };
        let job = handle.run(move |core| Box::pin(async move { configure(&core, changed) }));
        job.await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn log_config_of(shared: &Shared, config: &TopicConfig) -> LogConfig {
    topics::log_config(config, shared.config.options.producer_id_expiration_ms.into())
}
