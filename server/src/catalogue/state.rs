//! The catalogue: which topics exist, where their partitions are, how they and groups are configured, and which producer ids are taken.
//! A state machine that is fed by committed records of the metadata log and by nothing else, so every broker that has applied the same records
//! has the same catalogue. The core that owns the log applies; everyone else reads clones, which share memory and never change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringlog_engine::types::{LeaderEpoch, Offset, PartitionId, TopicId};
use thiserror::Error;

use super::names;
use super::records::{
    ConfigRecord, FeatureLevelRecord, MetadataRecord, PartitionChangeRecord, PartitionRecord, ProducerIdsRecord, RESOURCE_GROUP,
    RESOURCE_TOPIC, TopicRecord,
};

/// The feature whose level says which records a reader of the log must know. A new log begins with it.
pub const FORMAT_FEATURE: &str = "ringlog.metadata.version";
/// The newest level of [`FORMAT_FEATURE`] that this version reads and the one it writes.
pub const FORMAT_LEVEL: i16 = 1;

/// A place in the metadata log: the offset is the Raft index, the epoch its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPoint {
    /// The record's offset.
    pub offset: Offset,
    /// The epoch of the batch that it is in.
    pub epoch: LeaderEpoch,
}

impl LogPoint {
    /// Before the first record.
    pub const START: Self = Self { offset: Offset(-1), epoch: LeaderEpoch::NONE };
}

/// A partition's place in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub isr: Vec<i32>,
    /// Those that a reassignment takes away.
    pub removing_replicas: Vec<i32>,
    /// Those that a reassignment adds.
    pub adding_replicas: Vec<i32>,
    /// The leader; -1: none.
    pub leader: i32,
    /// Whether the leader was elected although it was not in sync, and has not caught up with that yet.
    pub is_leader_recovering: bool,
    /// The leader's term.
    pub leader_epoch: LeaderEpoch,
    /// How often this state changed.
    pub partition_epoch: i32,
}

/// The own settings of groups, by group; none of them is empty. A group need not exist to have some.
pub type GroupOverrides = BTreeMap<Arc<str>, Arc<BTreeMap<String, String>>>;

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id, for ever its own.
    pub id: TopicId,
    /// Its name, which a later topic may have again.
    pub name: Arc<str>,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionInfo>,
    /// Its own settings; `TopicConfig::resolve` makes its configuration of them.
    pub config_overrides: BTreeMap<String, String>,
}

impl Topic {
    /// The id of a partition of this topic, whether or not there is one with that number.
    #[must_use]
    pub fn partition_id(&self, index: i32) -> PartitionId {
        PartitionId { topic: self.id, index }
    }

    /// The partition with that number.
    #[must_use]
    pub fn partition(&self, index: i32) -> Option<&PartitionInfo> {
        self.partitions.get(usize::try_from(index).ok()?)
    }

    /// Whether the brokers use it for themselves.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        names::is_internal(&self.name)
    }
}

/// Why a record cannot be applied. The log is not one that this version wrote, or it is damaged: the broker must not go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// The log needs a newer version.
    #[error(
        "the metadata log has {name} {level}, this version of Ringlog knows {FORMAT_LEVEL}: use the newer version that wrote it"
    )]
    TooNew {
        /// The feature.
        name: String,
        /// Its level in the log.
        level: i16,
    },
    /// Offsets or epochs of the log go backwards.
    #[error("metadata record at offset {}, epoch {} comes after offset {}, epoch {}", at.offset, at.epoch, last.offset, last.epoch)]
    Backwards {
        /// Of the record.
        at: LogPoint,
        /// Of the last one applied.
        last: LogPoint,
    },
    /// A new topic with a name or id that exists, or existed.
    #[error("metadata record creates topic {name} with id {id}, but its name or id is taken")]
    TopicExists {
        /// The name.
        name: String,
        /// The id.
        id: TopicId,
    },
    /// A new topic with a name that no topic can have.
    #[error("metadata record creates a topic with a name that cannot be one: {0}")]
    TopicName(String),
    /// A record about a topic that is not there.
    #[error("metadata record names topic {0}, which does not exist")]
    UnknownTopic(String),
    /// A record about a partition that is not there, nor the next one.
    #[error("metadata record names partition {partition} of topic {topic}, which has {count}")]
    UnknownPartition {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// How many there are.
        count: usize,
    },
    /// A setting of something other than a topic or a group.
    #[error("metadata record configures a resource of type {0}, which this version of Ringlog does not know")]
    ResourceType(i8),
    /// Producer ids that were taken already.
    #[error("metadata record gives out producer ids below {next}, but those below {taken} are taken")]
    ProducerIdsTaken {
        /// The record's next id.
        next: i64,
        /// The catalogue's.
        taken: i64,
    },
}

/// All that the metadata log says up to a point. Cloning it costs a few counters.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    topics: Arc<BTreeMap<Arc<str>, Arc<Topic>>>,
    names_by_id: Arc<BTreeMap<TopicId, Arc<str>>>,
    /// Names with `.` or `_`, by what they become where both are `_` (as in metrics' names).
    names_by_collision_key: Arc<BTreeMap<String, BTreeSet<Arc<str>>>>,
    deleted: Arc<BTreeSet<TopicId>>,
    group_overrides: Arc<GroupOverrides>,
    features: Arc<BTreeMap<String, i16>>,
    partition_count: usize,
    next_producer_id: i64,
    applied: LogPoint,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self {
            topics: Arc::default(),
            names_by_id: Arc::default(),
            names_by_collision_key: Arc::default(),
            deleted: Arc::default(),
            group_overrides: Arc::default(),
            features: Arc::default(),
            partition_count: 0,
            next_producer_id: 0,
            applied: LogPoint::START,
        }
    }
}

impl Catalogue {
    /// The records that a new metadata log begins with.
    #[must_use]
    pub fn first_records() -> Vec<MetadataRecord> {
        vec![MetadataRecord::FeatureLevel(FeatureLevelRecord { name: FORMAT_FEATURE.to_owned(), level: FORMAT_LEVEL })]
    }

    /// The topic with this name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// The topic with this id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(self.names_by_id.get(&id)?)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// The topics from this name on, by name: for answers that go on where the last one ended.
    pub fn topics_from(&self, name: &str) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.range::<str, _>((std::ops::Bound::Included(name), std::ops::Bound::Unbounded)).map(|(_, topic)| topic)
    }

    /// The partitions of all topics.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// Whether a topic with this id existed and was deleted, as far as the log since the last snapshot says.
    #[must_use]
    pub fn is_deleted(&self, id: TopicId) -> bool {
        self.deleted.contains(&id)
    }

    /// A name that differs from this one only in `.` and `_`, if a topic has one.
    #[must_use]
    pub fn colliding_name(&self, name: &str) -> Option<&Arc<str>> {
        self.names_by_collision_key.get(&names::collision_key(name)?)?.iter().find(|other| &***other != name)
    }

    /// The groups that have settings of their own, with these. The same `Arc` as before: nothing has changed in it.
    #[must_use]
    pub fn group_overrides(&self) -> &Arc<GroupOverrides> {
        &self.group_overrides
    }

    /// The level of a feature; 0: not used.
    #[must_use]
    pub fn feature_level(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    /// The first producer id that was never given out.
    #[must_use]
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// The last record applied.
    #[must_use]
    pub fn applied(&self) -> LogPoint {
        self.applied
    }

    /// Applies the next record of the log. After an error nothing has changed.
    ///
    /// # Errors
    /// The record does not fit what came before it.
    pub fn apply(&mut self, at: LogPoint, record: &MetadataRecord) -> Result<(), ApplyError> {
        if at.offset <= self.applied.offset || at.epoch < self.applied.epoch {
            return Err(ApplyError::Backwards { at, last: self.applied });
        }
        match record {
            MetadataRecord::Topic(record) => self.add_topic(record)?,
            MetadataRecord::Partition(record) => self.set_partition(record)?,
            MetadataRecord::PartitionChange(record) => self.change_partition(record)?,
            MetadataRecord::Config(record) => self.configure(record)?,
            MetadataRecord::RemoveTopic { topic_id } => self.remove_topic(*topic_id)?,
            MetadataRecord::FeatureLevel(record) => self.set_feature(record)?,
            MetadataRecord::ProducerIds(record) => self.take_producer_ids(record)?,
            MetadataRecord::NoOp => {}
        }
        self.applied = at;
        Ok(())
    }

    fn add_topic(&mut self, TopicRecord { name, topic_id: id }: &TopicRecord) -> Result<(), ApplyError> {
        names::validate(name).map_err(ApplyError::TopicName)?;
        if self.topics.contains_key(name.as_str()) || self.names_by_id.contains_key(id) || self.deleted.contains(id) {
            return Err(ApplyError::TopicExists { name: name.clone(), id: *id });
        }
        let name: Arc<str> = name.as_str().into();
        let topic = Topic { id: *id, name: name.clone(), partitions: Vec::new(), config_overrides: BTreeMap::new() };
        Arc::make_mut(&mut self.topics).insert(name.clone(), Arc::new(topic));
        Arc::make_mut(&mut self.names_by_id).insert(*id, name.clone());
        if let Some(key) = names::collision_key(&name) {
            Arc::make_mut(&mut self.names_by_collision_key).entry(key).or_default().insert(name);
        }
        Ok(())
    }

    /// A topic to change, copied first if a clone of the catalogue still shows it.
    fn topic_mut(&mut self, id: TopicId) -> Result<&mut Topic, ApplyError> {
        let unknown = || ApplyError::UnknownTopic(id.to_string());
        let name = self.names_by_id.get(&id).ok_or_else(unknown)?;
        Arc::make_mut(&mut self.topics).get_mut(name).map(Arc::make_mut).ok_or_else(unknown)
    }

    fn set_partition(&mut self, record: &PartitionRecord) -> Result<(), ApplyError> {
        let topic = self.topic_mut(record.topic_id)?;
        let count = topic.partitions.len();
        let partition = PartitionInfo {
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
            removing_replicas: record.removing_replicas.clone(),
            adding_replicas: record.adding_replicas.clone(),
            leader: record.leader,
            is_leader_recovering: record.is_leader_recovering,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
        };
        match usize::try_from(record.partition) {
            Ok(index) if index < count => topic.partitions[index] = partition,
            Ok(index) if index == count => {
                topic.partitions.push(partition);
                self.partition_count += 1;
            }
            _ => return Err(ApplyError::UnknownPartition { topic: topic.name.clone(), partition: record.partition, count }),
        }
        Ok(())
    }

    fn change_partition(&mut self, record: &PartitionChangeRecord) -> Result<(), ApplyError> {
        let topic = self.topic_mut(record.topic_id)?;
        let (name, count) = (topic.name.clone(), topic.partitions.len());
        let partition = usize::try_from(record.partition).ok().and_then(|index| topic.partitions.get_mut(index));
        let Some(partition) = partition else {
            return Err(ApplyError::UnknownPartition { topic: name, partition: record.partition, count });
        };
        // Kafka's rule: naming a leader opens a term, even when it is the one there was.
        if let Some(leader) = record.leader {
            partition.leader = leader;
            partition.leader_epoch = LeaderEpoch(partition.leader_epoch.0.saturating_add(1));
        }
        if let Some(isr) = &record.isr {
            partition.isr.clone_from(isr);
        }
        partition.partition_epoch = partition.partition_epoch.saturating_add(1);
        Ok(())
    }

    fn configure(&mut self, record: &ConfigRecord) -> Result<(), ApplyError> {
        match record.resource_type {
            RESOURCE_TOPIC => self.configure_topic(record),
            RESOURCE_GROUP => {
                self.configure_group(record);
                Ok(())
            }
            other => Err(ApplyError::ResourceType(other)),
        }
    }

    fn configure_topic(&mut self, record: &ConfigRecord) -> Result<(), ApplyError> {
        if !self.topics.contains_key(record.resource_name.as_str()) {
            return Err(ApplyError::UnknownTopic(record.resource_name.clone()));
        }
        if let Some(topic) = Arc::make_mut(&mut self.topics).get_mut(record.resource_name.as_str()).map(Arc::make_mut) {
            match &record.value {
                Some(value) => topic.config_overrides.insert(record.name.clone(), value.clone()),
                None => topic.config_overrides.remove(&record.name),
            };
        }
        Ok(())
    }

    fn configure_group(&mut self, record: &ConfigRecord) {
        let groups = Arc::make_mut(&mut self.group_overrides);
        let name = record.resource_name.as_str();
        match &record.value {
            Some(value) => {
                let overrides = groups.entry(name.into()).or_default();
                Arc::make_mut(overrides).insert(record.name.clone(), value.clone());
            }
            None => {
                let Some(overrides) = groups.get_mut(name) else { return };
                Arc::make_mut(overrides).remove(&record.name);
                if overrides.is_empty() {
                    groups.remove(name);
                }
            }
        }
    }

    fn remove_topic(&mut self, id: TopicId) -> Result<(), ApplyError> {
        let unknown = || ApplyError::UnknownTopic(id.to_string());
        let name = Arc::make_mut(&mut self.names_by_id).remove(&id).ok_or_else(unknown)?;
        let topic = Arc::make_mut(&mut self.topics).remove(&name).ok_or_else(unknown)?;
        self.partition_count -= topic.partitions.len();
        if let Some(key) = names::collision_key(&name) {
            let by_key = Arc::make_mut(&mut self.names_by_collision_key);
            if let Some(same) = by_key.get_mut(&key) {
                same.remove(&name);
                if same.is_empty() {
                    by_key.remove(&key);
                }
            }
        }
        Arc::make_mut(&mut self.deleted).insert(id);
        Ok(())
    }

    fn set_feature(&mut self, FeatureLevelRecord { name, level }: &FeatureLevelRecord) -> Result<(), ApplyError> {
        if name == FORMAT_FEATURE && *level > FORMAT_LEVEL {
            return Err(ApplyError::TooNew { name: name.clone(), level: *level });
        }
        let features = Arc::make_mut(&mut self.features);
        if *level == 0 {
            features.remove(name);
        } else {
            features.insert(name.clone(), *level);
        }
        Ok(())
    }

    fn take_producer_ids(&mut self, record: &ProducerIdsRecord) -> Result<(), ApplyError> {
        if record.next_producer_id <= self.next_producer_id {
            return Err(ApplyError::ProducerIdsTaken { next: record.next_producer_id, taken: self.next_producer_id });
        }
        self.next_producer_id = record.next_producer_id;
        Ok(())
    }

    /// The records of a snapshot: from an empty catalogue they lead to this one, except that deleted topics are forgotten. Partitions
    /// come in their order behind their topic, and the same catalogue always gives the same records.
    #[must_use]
    pub fn snapshot(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::with_capacity(self.features.len() + 2 * self.topics.len() + self.partition_count + 1);
        for (name, level) in self.features.iter() {
            records.push(MetadataRecord::FeatureLevel(FeatureLevelRecord { name: name.clone(), level: *level }));
        }
        for topic in self.topics.values() {
            records.push(MetadataRecord::Topic(TopicRecord { name: topic.name.to_string(), topic_id: topic.id }));
            records.extend(topic.config_overrides.iter().map(|(name, value)| {
                MetadataRecord::Config(ConfigRecord {
                    resource_type: RESOURCE_TOPIC,
                    resource_name: topic.name.to_string(),
                    name: name.clone(),
                    value: Some(value.clone()),
                })
            }));
            records.extend((0..).zip(&topic.partitions).map(|(index, partition)| {
                MetadataRecord::Partition(PartitionRecord {
                    partition: index,
                    topic_id: topic.id,
                    replicas: partition.replicas.clone(),
                    isr: partition.isr.clone(),
                    removing_replicas: partition.removing_replicas.clone(),
                    adding_replicas: partition.adding_replicas.clone(),
                    leader: partition.leader,
                    is_leader_recovering: partition.is_leader_recovering,
                    leader_epoch: partition.leader_epoch,
                    partition_epoch: partition.partition_epoch,
                })
            }));
        }
        for (group, overrides) in self.group_overrides.iter() {
            records.extend(overrides.iter().map(|(name, value)| {
                MetadataRecord::Config(ConfigRecord {
                    resource_type: RESOURCE_GROUP,
                    resource_name: group.to_string(),
                    name: name.clone(),
                    value: Some(value.clone()),
                })
            }));
        }
        if self.next_producer_id > 0 {
            // Whose block it was is not remembered: ids are never given back.
            let record = ProducerIdsRecord { broker_id: -1, broker_epoch: -1, next_producer_id: self.next_producer_id };
            records.push(MetadataRecord::ProducerIds(record));
        }
        records
    }

    /// The catalogue of which these are the snapshot's records, taken when the log had been applied up to `at`.
    ///
    /// # Errors
    /// The records don't fit together.
    pub fn from_snapshot(at: LogPoint, records: impl IntoIterator<Item = MetadataRecord>) -> Result<Self, ApplyError> {
        let mut catalogue = Self::default();
        for record in records {
            // All records of a snapshot stand at one point of the log.
            catalogue.applied = LogPoint::START;
            catalogue.apply(at, &record)?;
        }
        catalogue.applied = at;
        Ok(catalogue)
    }
}
