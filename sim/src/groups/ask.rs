//! What members of all kinds, and clients that are none, ask: who coordinates, commits, and what is committed. Answers are held
//! against the model here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ringlog_engine::env::random::Random;
use ringlog_protocol::api::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use ringlog_protocol::api::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
};
use ringlog_protocol::api::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics, OffsetFetchResponse,
};
use ringlog_protocol::{ApiKey, ErrorCode};

use super::offsets::{For, NOTHING};
use crate::client::admin::{NAMES, PARTITIONS_MAX};
use crate::client::{is_unknown_topic, version};
use crate::life::{Client, Life};
use crate::model::{Existence, Model};
use crate::wire;

/// From here on several groups are asked for at once.
const BATCHED_FIND_VERSION_MIN: i16 = 4;
const BATCHED_FETCH_VERSION_MIN: i16 = 8;
/// From here on all offsets can be asked for.
const FETCH_ALL_VERSION_MIN: i16 = 2;
/// From here on a member says who it is when it reads offsets.
const FETCH_MEMBER_VERSION_MIN: i16 = 9;
/// From here on topics are given by id.
const TOPIC_ID_VERSION_MIN: i16 = 10;
/// From here on a commit names its member.
const COMMIT_MEMBER_VERSION_MIN: i16 = 1;
const COMMIT_INSTANCE_VERSION_MIN: i16 = 7;

/// Whether a client is to look for the coordinator again, or to wait for it.
#[must_use]
pub fn is_trouble(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS | ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR)
}

/// A client of groups in one life of the machine: its connection, and whether it knows the coordinator.
#[derive(Default)]
pub struct Asker {
    /// The connection.
    pub client: Client,
    has_coordinator: bool,
}

impl Asker {
    /// Whether the coordinator is known; asks for it where it is not.
    pub async fn find(&mut self, life: &Life, random: &mut Random, group: usize) -> bool {
        if self.has_coordinator {
            return true;
        }
        let version = version(random, ApiKey::FindCoordinator, 0);
        let name = life.model.borrow().groups.all[group].name.clone();
        let mut request = FindCoordinatorRequest::default();
        if version >= BATCHED_FIND_VERSION_MIN {
            request.coordinator_keys.push(name.as_str().into());
        } else {
            request.key = name.as_str().into();
        }
        let Some((correlation, frame)) = self.client.ask(life, &request, version).await else { return false };
        let response: FindCoordinatorResponse<'_> = wire::answer(&frame, version, correlation);
        let code = response.coordinators.first().map_or(response.error_code, |found| found.error_code);
        match code {
            ErrorCode::NONE => {
                life.model.borrow_mut().groups.has_topic = true;
                self.has_coordinator = true;
            }
            ErrorCode::COORDINATOR_NOT_AVAILABLE => {}
            code => panic!("GroupErrorsAreExpected: looking for the coordinator of {name}: {code}"),
        }
        self.has_coordinator
    }

    /// An answer said so: it is looked for again, or waited for.
    pub fn trouble(&mut self, code: ErrorCode) {
        if code != ErrorCode::COORDINATOR_LOAD_IN_PROGRESS {
            self.has_coordinator = false;
        }
    }
}

/// Who commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The member; empty: none.
    pub member: String,
    /// What its user calls it.
    pub instance: Option<String>,
    /// Its generation or epoch.
    pub generation: i32,
}

impl Identity {
    /// A client that is no member.
    #[must_use]
    pub fn nobody() -> Self {
        Self { generation: -1, ..Self::default() }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.member, &self.instance) {
            ("", None) => f.write_str("nobody"),
            (member, None) => write!(f, "{member} at {}", self.generation),
            (member, Some(instance)) => write!(f, "{member} ({instance}) at {}", self.generation),
        }
    }
}

/// Who commits, and in which group.
#[derive(Debug)]
pub struct Committer {
    /// For people.
    pub who: String,
    /// The group.
    pub group: usize,
    /// As whom.
    pub identity: Identity,
    /// By which versions of the request, from here on.
    pub version_min: i16,
}

/// A partition of a topic, by its place in the model.
pub type Target = (usize, i32);

/// Commits offsets of these partitions that nobody has committed before. Returns what all of them were answered with; nothing
/// where that is not known, or only that the coordinator is to be looked for again.
pub async fn commit(
    asker: &mut Asker,
    life: &Life,
    random: &mut Random,
    by: &Committer,
    targets: &[Target],
) -> Option<ErrorCode> {
    if targets.is_empty() {
        return None;
    }
    let Committer { who, group, identity, version_min } = by;
    let group = *group;
    let min = if identity.instance.is_some() {
        COMMIT_INSTANCE_VERSION_MIN
    } else if identity.generation >= 0 {
        COMMIT_MEMBER_VERSION_MIN
    } else {
        0
    };
    let version = version(random, ApiKey::OffsetCommit, min.max(*version_min));
    let is_by_id = version >= TOPIC_ID_VERSION_MIN;
    let sent = life.now();
    let mut writes = Vec::new();
    let mut topics: BTreeMap<usize, Vec<OffsetCommitRequestPartition<'_>>> = BTreeMap::new();
    let (names, ids) = {
        let mut model = life.model.borrow_mut();
        model.groups.touch(group);
        for &(topic, partition) in targets {
            let offset = model.groups.new_offset();
            let write = model.committing(group, For { topic, is_by_id }, partition, offset, life.env.now().0);
            writes.push(((topic, partition), write));
            topics.entry(topic).or_default().push(OffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: offset,
                committed_metadata: Some(metadata(offset).into()),
                ..OffsetCommitRequestPartition::default()
            });
            life.say(|| format!("{who} commits {offset} of {}-{partition} as {identity}", model.topics[topic].name));
        }
        let name = |topic: &usize| (*topic, model.topics[*topic].name.clone());
        let id = |topic: &usize| (*topic, model.topics[*topic].id.unwrap_or_default());
        (topics.keys().map(name).collect::<BTreeMap<_, _>>(), topics.keys().map(id).collect::<BTreeMap<_, _>>())
    };
    let name = life.model.borrow().groups.all[group].name.clone();
    let topic = |(topic, partitions)| OffsetCommitRequestTopic {
        name: if is_by_id { Cow::default() } else { names[&topic].as_str().into() },
        topic_id: if is_by_id { ids[&topic] } else { Default::default() },
        partitions,
    };
    let request = OffsetCommitRequest {
        group_id: name.as_str().into(),
        generation_id_or_member_epoch: identity.generation,
        member_id: identity.member.as_str().into(),
        group_instance_id: identity.instance.as_deref().map(Into::into),
        topics: topics.into_iter().map(topic).collect(),
        ..OffsetCommitRequest::default()
    };
    let Some((correlation, frame)) = asker.client.ask(life, &request, version).await else {
        life.say(|| format!("{who} hears nothing of its commit"));
        return None;
    };
    let response: OffsetCommitResponse<'_> = wire::answer(&frame, version, correlation);
    let (now, wall_ms) = (life.now(), life.env.now().0);
    let mut model = life.model.borrow_mut();
    model.groups.touched(group);
    let mut whole = None;
    for ((topic, partition), write) in writes {
        let is_it = |id: &[u8; 16], other: &str| if is_by_id { *id == ids[&topic] } else { *other == names[&topic] };
        let mut answers = response.topics.iter().filter(|answer| is_it(&answer.topic_id, &answer.name));
        let answer = answers.find_map(|answer| answer.partitions.iter().find(|answer| answer.partition_index == partition));
        let Some(code) = answer.map(|answer| answer.error_code) else {
            panic!("AnswersAreUnderstood: a commit of {}-{partition} is not answered", names[&topic])
        };
        life.say(|| format!("{who}: commit of {}-{partition}: {code}", names[&topic]));
        match code {
            ErrorCode::NONE => model.committed(&write, sent, now, wall_ms),
            ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR => model.unclear(&write, now),
            code => {
                model.refused(&write);
                let may_be_gone = model.topics[topic].existence != Existence::Present;
                let is_lost = is_unknown_topic(code) && !may_be_gone;
                assert!(!is_lost, "TopicStays: a commit is told that there is no {}-{partition}", names[&topic]);
            }
        }
        if !is_unknown_topic(code) {
            let is_same = whole.is_none_or(|known| known == code);
            assert!(is_same, "GroupErrorsAreExpected: a commit of {who}: {whole:?} of one partition, {code} of another");
            whole = Some(code);
        }
    }
    drop(model);
    if let Some(code) = whole.filter(|code| is_trouble(*code)) {
        asker.trouble(code);
        return None;
    }
    whole
}

/// What is kept with an offset, so that one cannot be taken for another.
fn metadata(offset: i64) -> String {
    format!("metadata of {offset}")
}

/// An offset that was found: topic, partition, offset.
type Found = (String, i32, i64);

/// Reads offsets and holds them against what is known; all of the group's, or a topic's. Returns the answer's error; nothing where
/// there is none. `is_final`: it is read after a start, before anybody does anything.
pub async fn fetch(
    asker: &mut Asker,
    life: &Life,
    random: &mut Random,
    group: usize,
    member: Option<&Identity>,
    is_final: bool,
) -> Option<ErrorCode> {
    let wanted = if is_final || random.chance(0.5) { None } else { crate::client::pick(&life.model.borrow(), random) };
    let min = if member.is_some() { FETCH_MEMBER_VERSION_MIN } else { FETCH_ALL_VERSION_MIN };
    let version = version(random, ApiKey::OffsetFetch, min);
    let (name, topic) = {
        let model = life.model.borrow();
        let topic =
            wanted.map(|(topic, _, id)| (model.topics[topic].name.clone(), id, model.topics[topic].partitions.len() as i32));
        (model.groups.all[group].name.clone(), topic)
    };
    let mut request = OffsetFetchRequest::default();
    if version < BATCHED_FETCH_VERSION_MIN {
        request.group_id = name.as_str().into();
        request.topics = topic.as_ref().map(|(name, _, count)| {
            vec![OffsetFetchRequestTopic { name: name.as_str().into(), partition_indexes: (0..*count).collect() }]
        });
    } else {
        let is_by_id = version >= TOPIC_ID_VERSION_MIN;
        let topics = topic.as_ref().map(|(name, id, count)| {
            vec![OffsetFetchRequestTopics {
                name: if is_by_id { Cow::default() } else { name.as_str().into() },
                topic_id: if is_by_id { *id } else { Default::default() },
                partition_indexes: (0..*count).collect(),
            }]
        });
        request.groups.push(OffsetFetchRequestGroup {
            group_id: name.as_str().into(),
            member_id: member.map(|member| member.member.as_str().into()),
            member_epoch: member.map_or(-1, |member| member.generation),
            topics,
        });
    }
    let sent = life.now();
    let (correlation, frame) = asker.client.ask(life, &request, version).await?;
    let response: OffsetFetchResponse<'_> = wire::answer(&frame, version, correlation);
    let (code, found) = found(&response, version, &life.model.borrow());
    if !code.is_none() {
        life.say(|| format!("offsets of {name}: {code}"));
        if is_trouble(code) {
            asker.trouble(code);
        }
        return Some(code);
    }
    life.say(|| format!("offsets of {name}: {:?}", found.iter().filter(|found| found.2 != NOTHING).collect::<Vec<_>>()));
    let mut model = life.model.borrow_mut();
    model.groups.see_wall(life.env.now().0);
    for (topic, partition, offset) in &found {
        model.fetched(group, topic, *partition, *offset, sent, life.now());
        if is_final {
            model.check_gone(group, topic, *partition, *offset);
        }
    }
    let mut told: Vec<(&str, i32)> = found.iter().map(|(topic, partition, _)| (topic.as_str(), *partition)).collect();
    told.sort_unstable();
    match (wanted, &topic) {
        (Some((topic, ..)), Some((name, _, count))) => {
            let is_whole = told.iter().copied().eq((0..*count).map(|partition| (name.as_str(), partition)));
            let may_be_gone = model.topics[topic].existence != Existence::Present;
            assert!(is_whole || may_be_gone, "AnswersAreUnderstood: {count} offsets of {name} were asked for, not {told:?}");
        }
        _ => {
            assert!(told.is_sorted_by(|one, next| one < next), "AnswersAreUnderstood: an offset is told twice: {told:?}");
            for (topic, partition) in all_partitions().filter(|at| told.binary_search(at).is_err()) {
                model.fetched(group, topic, partition, NOTHING, sent, life.now());
            }
        }
    }
    Some(ErrorCode::NONE)
}

/// All partitions that there may ever be.
pub fn all_partitions() -> impl Iterator<Item = (&'static str, i32)> {
    NAMES.into_iter().flat_map(|name| (0..PARTITIONS_MAX as i32).map(move |partition| (name, partition)))
}

/// What an answer says of a group: its error, or the offsets. One of a partition says that there is no such topic, or is none.
fn found(response: &OffsetFetchResponse<'_>, version: i16, model: &Model) -> (ErrorCode, Vec<Found>) {
    let mut found = Vec::new();
    let mut take = |topic: &str, at: Option<usize>, partition: i32, code: ErrorCode, offset: i64, said: Option<&str>| {
        if !code.is_none() {
            let may_be_gone = at.is_none_or(|at| model.topics[at].existence != Existence::Present);
            let is_expected = is_unknown_topic(code) && may_be_gone;
            return assert!(is_expected, "GroupErrorsAreExpected: the offset of {topic}-{partition}: {code}");
        }
        let expected = if offset == NOTHING { String::new() } else { metadata(offset) };
        assert_eq!(said.unwrap_or_default(), expected, "CommittedStays: what is kept with {offset} of {topic}-{partition}");
        found.push((topic.to_owned(), partition, offset));
    };
    if version < BATCHED_FETCH_VERSION_MIN {
        for topic in &response.topics {
            let at = model.by_name(&topic.name);
            for part in &topic.partitions {
                let (code, said) = (part.error_code, part.metadata.as_deref());
                take(&topic.name, at, part.partition_index, code, part.committed_offset, said);
            }
        }
        return (response.error_code, found);
    }
    let Some(group) = response.groups.first() else { panic!("AnswersAreUnderstood: offsets of no group") };
    for topic in &group.topics {
        let (name, at) = if version >= TOPIC_ID_VERSION_MIN {
            let at = model.topics.iter().position(|known| known.id == Some(topic.topic_id));
            // One that is being made is not known by its id yet.
            let Some(at) = at else { continue };
            (model.topics[at].name.as_str(), Some(at))
        } else {
            (&*topic.name, model.by_name(&topic.name))
        };
        for part in &topic.partitions {
            let (code, said) = (part.error_code, part.metadata.as_deref());
            take(name, at, part.partition_index, code, part.committed_offset, said);
        }
    }
    (group.error_code, found)
}

/// How long something was, in milliseconds.
#[must_use]
pub fn ms(duration: Duration) -> i32 {
    duration.as_millis() as i32
}
