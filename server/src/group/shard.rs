//! The groups of one partition of `__consumer_offsets`: requests and timers find their group here, and what a group costs is
//! bounded. Called by [`crate::broker::groups`], on one core.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringlog_protocol::group_records::{GroupMetadataKey, GroupRecord, OffsetCommitValue};
use ringlog_protocol::{ErrorCode, Uuid};

use super::classic::{Classic, Scope, State};
use super::configs::GroupConfigs;
use super::consumer::Consumer;
use super::offsets::{Offsets, fetch_nothing};
use super::request::{Answer, CallId, Commit, Described, Join, Listed, Refusal, Reply, Request};
use super::shard_consumer::{ask_as_classic, downgrade};
use super::timer::{Alarm, TimerQueue};
use super::topics::{NoTopics, TopicView};
use super::usage::Charge;
use super::{Name, Now, RawRecord, Settings, TURN_WORK_MAX, Usage};
use crate::log_limit::LogLimit;

/// What a group takes beside its members and offsets.
pub(super) const GROUP_BYTES: usize = 464;

/// The largest record that is written, whatever fits into a segment: a group's members with what they say and have. The smallest
/// journal takes two of them.
const RECORD_BYTES_MAX: usize = 8 << 20;
/// How many protocols a member may speak; real ones speak two or three.
const PROTOCOLS_MAX: usize = 100;
/// How many timers ring before others have their turn: all members of a large group may be silent at once.
const ALARMS_MAX: usize = 1_000;

/// What comes of inputs. The answers may go when the records, and all before them, are committed.
#[derive(Default)]
pub struct Output {
    /// What to append, in this order.
    pub records: Vec<RawRecord>,
    /// Who gets which answer.
    pub replies: Vec<(CallId, Answer)>,
    /// How much was to do that is not the same for every request: about how many members, topics and partitions were looked at.
    pub work: usize,
}

impl Output {
    /// Whether nothing is to be appended or answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.replies.is_empty()
    }

    /// Answers somebody who looks: what the answer lists was looked at.
    fn show(&mut self, call: CallId, answer: Answer) {
        self.work += match &answer {
            Ok(Reply::Fetched(topics)) => topics.iter().map(|(_, offsets)| offsets.len()).sum(),
            Ok(Reply::Described(group)) => group.members.len(),
            Ok(Reply::DescribedConsumers(group)) => group.members.len(),
            _ => 0,
        };
        self.replies.push((call, answer));
    }
}

/// A group: its members, by one protocol or the other, and its offsets, either of which may be missing.
pub(super) struct Group {
    pub(super) classic: Classic,
    /// Set: it is of the new protocol, and has nothing classic.
    pub(super) consumer: Option<Box<Consumer>>,
    pub(super) offsets: Offsets,
    _charge: Charge,
}

impl Group {
    fn new(id: &str, usage: &Usage) -> Self {
        Self {
            classic: Classic::default(),
            consumer: None,
            offsets: Offsets::new(usage),
            _charge: usage.charge(GROUP_BYTES + 2 * id.len()),
        }
    }

    /// Whether nothing is to be known of it, here or in the log.
    pub(super) fn is_void(&self) -> bool {
        self.consumer.is_none() && self.classic.is_deserted() && !self.classic.has_record() && self.offsets.is_empty()
    }
}

/// See the module.
pub struct Shard {
    pub(super) settings: Rc<Settings>,
    pub(super) usage: Usage,
    pub(super) topics: Arc<dyn TopicView>,
    topics_version: u64,
    configs: Arc<GroupConfigs>,
    /// The largest record that is written.
    record_bytes_max: usize,
    /// In boxes: a node of the tree has room for eleven, and is half full when groups come in order.
    pub(super) groups: BTreeMap<Name, Box<Group>>,
    timers: TimerQueue,
    too_large: LogLimit,
    new_id: Box<dyn FnMut() -> u128>,
}

impl Shard {
    /// No group. `usage` is that of all shards of the core; `new_id` gives random numbers for the ids of members.
    #[must_use]
    pub fn new(settings: Rc<Settings>, usage: Usage, new_id: Box<dyn FnMut() -> u128>) -> Self {
        let topics = Arc::new(NoTopics);
        let (groups, timers) = (BTreeMap::new(), TimerQueue::default());
        let (configs, record_bytes_max, too_large) = (Arc::default(), RECORD_BYTES_MAX, LogLimit::default());
        Self { settings, usage, topics, topics_version: 0, configs, record_bytes_max, groups, timers, too_large, new_id }
    }

    /// Records must not have more bytes of key and value than this: what asks for larger ones is refused. What patterns match, and
    /// what topics grow to later, is not looked at.
    pub fn set_record_bytes_max(&mut self, bytes: usize) {
        self.record_bytes_max = bytes.min(RECORD_BYTES_MAX);
    }

    /// Has the topics as they are now. Groups look at them with the next heartbeat.
    pub fn set_topics(&mut self, topics: Arc<dyn TopicView>) {
        self.topics = topics;
        self.topics_version += 1;
    }

    /// Has what groups have set for themselves, as it is now. Members hear of it with their next heartbeat.
    pub fn set_configs(&mut self, configs: Arc<GroupConfigs>) {
        self.configs = configs;
    }

    /// Takes a request for a group. Its answer comes with this output or with a later one.
    pub fn handle(&mut self, call: CallId, group: &str, request: Request, now: Now, out: &mut Output) {
        if group.is_empty() && request.needs_group_id() {
            return out.replies.push((call, Err(ErrorCode::INVALID_GROUP_ID)));
        }
        match request {
            Request::Join(join) => self.join(call, group, *join, now, out),
            Request::Commit(commit) => {
                let answer = self.commit(group, commit, now, out);
                out.replies.push((call, answer));
            }
            Request::FetchAs(identity, topics) => {
                let answer = self.fetch_as(group, &identity, topics);
                out.show(call, answer);
            }
            Request::ConsumerHeartbeat(beat) => {
                let reply = self.consumer_heartbeat(group, &beat, now, out).map_or_else(Reply::Refused, Reply::Beat);
                out.replies.push((call, Ok(reply)));
            }
            Request::DescribeConsumers => out.show(call, Ok(self.describe_consumers(group))),
            Request::Fetch(topics) => {
                let fetched = match self.groups.get(group) {
                    Some(group) => group.offsets.fetch(topics),
                    None => fetch_nothing(topics),
                };
                out.show(call, Ok(Reply::Fetched(fetched)));
            }
            Request::DeleteOffsets(wanted) => {
                let answer = self.delete_offsets(group, &wanted, out);
                out.replies.push((call, answer));
            }
            Request::Describe => out.show(call, self.describe(group)),
            Request::Delete => {
                let answer = self.delete(group, now, out);
                out.replies.push((call, answer));
            }
            Request::Sync(_) | Request::Heartbeat(_) | Request::Leave(_) => {
                // Of a group that there is not, nobody is a member, and each leaver is told so.
                let of_no_group = match &request {
                    Request::Leave(leavers) => Ok(Reply::Left(vec![ErrorCode::UNKNOWN_MEMBER_ID; leavers.len()])),
                    _ => Err(ErrorCode::UNKNOWN_MEMBER_ID),
                };
                let served = self.with_group(group, now, out, |group, scope| match request {
                    request if group.consumer.is_some() => {
                        let answer = ask_as_classic(group, &request, scope);
                        scope.reply(call, answer);
                        downgrade(group, scope);
                    }
                    Request::Sync(sync) => group.classic.sync(call, sync, scope),
                    Request::Heartbeat(identity) => group.classic.heartbeat(call, &identity, scope),
                    Request::Leave(leavers) => group.classic.leave(call, &leavers, scope),
                    _ => unreachable!("matched above"),
                });
                if served.is_none() {
                    out.replies.push((call, of_no_group));
                }
            }
        }
    }

    /// Runs `act` on a group, where there is one, and forgets the group if nothing of it is left.
    pub(super) fn with_group<T>(
        &mut self,
        group: &str,
        now: Now,
        out: &mut Output,
        act: impl FnOnce(&mut Group, &mut Scope<'_>) -> T,
    ) -> Option<T> {
        // It alone, by its name as it is kept.
        let (id, found) = self.groups.range_mut::<str, _>((Bound::Included(group), Bound::Included(group))).next()?;
        let mut scope = Scope {
            group: id,
            settings: &self.settings,
            config: *self.configs.of(id).unwrap_or(&self.settings.group_defaults),
            usage: &self.usage,
            topics: &*self.topics,
            topics_version: self.topics_version,
            record_bytes_max: self.record_bytes_max,
            timers: &mut self.timers,
            too_large: &self.too_large,
            out,
            now,
            new_id: &mut self.new_id,
        };
        let result = act(found, &mut scope);
        if found.is_void() {
            self.groups.remove(group);
        }
        Some(result)
    }

    pub(super) fn is_full(&self, more_bytes: usize) -> bool {
        self.usage.bytes() + more_bytes > self.settings.memory_bytes_max
    }

    pub(super) fn create(&mut self, group: &str) {
        if !self.groups.contains_key(group) {
            self.groups.insert(group.into(), Box::new(Group::new(group, &self.usage)));
        }
    }

    fn join(&mut self, call: CallId, group: &str, join: Join, now: Now, out: &mut Output) {
        let bounds = self.settings.session_timeout_min..=self.settings.session_timeout_max;
        let error = if !bounds.contains(&join.session_timeout) {
            Some(ErrorCode::INVALID_SESSION_TIMEOUT)
        } else if join.protocols.len() > PROTOCOLS_MAX {
            Some(ErrorCode::INCONSISTENT_GROUP_PROTOCOL)
        } else if !self.groups.contains_key(group) {
            if !join.member.is_empty() {
                Some(ErrorCode::UNKNOWN_MEMBER_ID)
            } else if self.is_full(GROUP_BYTES + 2 * group.len()) {
                Some(ErrorCode::GROUP_MAX_SIZE_REACHED)
            } else {
                None
            }
        } else {
            None
        };
        if let Some(error) = error {
            return out.replies.push((call, Err(error)));
        }
        self.create(group);
        self.with_group(group, now, out, |group, scope| {
            if let Some(mut consumer) = group.consumer.take_if(|consumer| consumer.is_empty()) {
                consumer.forget(scope);
            }
            let Some(consumer) = &mut group.consumer else { return group.classic.join(call, join, scope) };
            let answer = consumer.classic_join(join, scope);
            scope.reply(call, answer);
            downgrade(group, scope);
        });
    }

    fn commit(&mut self, group: &str, commit: Commit, now: Now, out: &mut Output) -> Answer {
        let Commit { identity, knows_epochs, retention_ms, offsets } = commit;
        let checked = self.with_group(group, now, out, |group, scope| match &group.consumer {
            Some(consumer) => {
                consumer.check_commit(&identity, knows_epochs, offsets.iter().map(|offset| (offset.topic_id, offset.partition)))
            }
            None => group.classic.check_commit(&identity, scope),
        });
        match checked {
            Some(checked) => checked?,
            None if identity.generation < 0 => {}
            None if knows_epochs => return Err(ErrorCode::GROUP_ID_NOT_FOUND),
            None => return Err(ErrorCode::ILLEGAL_GENERATION),
        }
        // Beside the metadata there are the group's name and the topic's.
        let metadata_bytes_max = self.record_bytes_max / 2;
        let metadata_units_max = self.settings.offset_metadata_units_max;
        let is_too_large = |metadata: &str| {
            let may_be = metadata.len() > metadata_units_max;
            metadata.len() > metadata_bytes_max || may_be && metadata.encode_utf16().count() > metadata_units_max
        };
        let known = self.groups.get(group).map(|group| &group.offsets);
        let more_bytes: usize = offsets.iter().map(|offset| Offsets::more_bytes(known, offset)).sum();
        if more_bytes > 0 && self.is_full(more_bytes + if known.is_none() { GROUP_BYTES + 2 * group.len() } else { 0 }) {
            // Retriable: groups end and offsets expire.
            return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE);
        }
        self.create(group);
        let topics = self.topics.clone();
        let Some(found) = self.groups.get_mut(group) else { return Err(ErrorCode::UNKNOWN_SERVER_ERROR) };
        let expires =
            retention_ms.map(|retention_ms| ringlog_engine::types::TimestampMs(now.wall.0.saturating_add(retention_ms)));
        let codes = offsets.into_iter().map(|offset| {
            // The topic was deleted after it was found; there may be another one of that name.
            if offset.topic_id != Uuid::default() && topics.name_of(offset.topic_id).is_none() {
                return ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
            }
            if is_too_large(&offset.metadata) {
                return ErrorCode::OFFSET_METADATA_TOO_LARGE;
            }
            out.records.push(found.offsets.commit(group, offset, now.wall, expires));
            ErrorCode::NONE
        });
        let codes = codes.collect();
        if found.is_void() {
            self.groups.remove(group);
        }
        Ok(Reply::Committed(codes))
    }

    fn delete_offsets(&mut self, id: &str, wanted: &[(Name, i32)], out: &mut Output) -> Answer {
        let Some(group) = self.groups.get_mut(id) else { return Err(ErrorCode::GROUP_ID_NOT_FOUND) };
        let is_empty = group.classic.state() == State::Empty;
        let is_of_consumers =
            group.classic.protocol_type().is_some_and(|kind| **kind == *ringlog_protocol::consumer_protocol::PROTOCOL_TYPE);
        if !is_empty && !is_of_consumers {
            return Err(ErrorCode::NON_EMPTY_GROUP);
        }
        let subscribed = if is_empty { None } else { group.classic.subscribed_topics() };
        // Where it cannot be told what members want, they may want everything.
        let is_wanted_by_classic = |topic: &str| !is_empty && subscribed.as_ref().is_none_or(|topics| topics.contains(topic));
        let is_wanted = |topic: &str| match &group.consumer {
            Some(consumer) => consumer.is_wanted(topic),
            None => is_wanted_by_classic(topic),
        };
        let codes = wanted.iter().map(|(topic, partition)| {
            if is_wanted(topic) {
                return ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC;
            }
            out.records.extend(group.offsets.remove(id, topic, *partition));
            ErrorCode::NONE
        });
        // A group without offsets goes when expired ones are looked for, as with Kafka: until then tools find it.
        Ok(Reply::OffsetsDeleted(codes.collect()))
    }

    fn describe(&self, group: &str) -> Answer {
        let id = group;
        let group = self.groups.get(id).ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?;
        if group.consumer.is_some() {
            let message = format!("Group {id} is not a classic group.");
            return Ok(Reply::Refused(Refusal { code: ErrorCode::GROUP_ID_NOT_FOUND, message }));
        }
        Ok(Reply::Described(Box::<Described>::new(group.classic.describe())))
    }

    fn delete(&mut self, id: &str, now: Now, out: &mut Output) -> Answer {
        let group = self.groups.get(id).ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?;
        let is_empty = group.consumer.as_ref().map_or(group.classic.state() == State::Empty, |consumer| consumer.is_empty());
        if !is_empty {
            return Err(ErrorCode::NON_EMPTY_GROUP);
        }
        self.forget(id, now, out);
        Ok(Reply::Deleted)
    }

    /// Takes back all that is written of a group.
    fn forget(&mut self, id: &str, now: Now, out: &mut Output) {
        self.forget_consumer(id, now, out);
        let Some(mut group) = self.groups.remove(id) else { return };
        group.offsets.clear(id, &mut out.records);
        if group.classic.has_record() {
            let key = GroupMetadataKey { group: Cow::Borrowed(id) };
            out.records.push(RawRecord::of(&GroupRecord::GroupMetadata(key, None)));
        }
    }

    /// The groups that there are.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let listed = self.groups.iter().map(|(id, group)| match &group.consumer {
            Some(consumer) => Listed {
                group: id.clone(),
                protocol_type: ringlog_protocol::consumer_protocol::PROTOCOL_TYPE.into(),
                state: consumer.state_name(),
                group_type: "consumer",
            },
            None => Listed {
                group: id.clone(),
                protocol_type: group.classic.protocol_type().cloned().unwrap_or_default(),
                state: group.classic.state().name(),
                group_type: "classic",
            },
        });
        listed.collect()
    }

    /// When [`Shard::tick`] is to be called, at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// Does what is due, or as much of it as others can wait for: then more is due still.
    pub fn tick(&mut self, now: Now, out: &mut Output) {
        let (work_before, mut count) = (out.work, 0);
        while count < ALARMS_MAX && out.work - work_before < TURN_WORK_MAX {
            let Some((group, alarms)) = self.pop_alarms(now.monotonic, ALARMS_MAX - count) else { break };
            count += alarms.len();
            self.with_group(&group, now, out, |group, scope| match &mut group.consumer {
                Some(consumer) => {
                    consumer.ring(&alarms, scope);
                    downgrade(group, scope);
                }
                None => alarms.iter().for_each(|alarm| group.classic.ring(alarm, scope)),
            });
        }
    }

    /// The first that is due, and what is due after it for members of the same group of the new protocol, so many at most: looking
    /// at all that the group wants is done once for all that go.
    fn pop_alarms(&mut self, now: Duration, count_max: usize) -> Option<(Name, Vec<Alarm>)> {
        let (group, first) = self.timers.pop(now)?;
        let mut alarms = vec![first];
        let Some(consumer) = self.groups.get(&group).and_then(|found| found.consumer.as_ref()) else {
            return Some((group, alarms));
        };
        let removal_work = |alarm: &Alarm| alarm.consumer().map_or(0, |id| consumer.removal_work(id));
        let is_like_it = |other: &Name, alarm: &Alarm| *other == group && alarm.consumer().is_some();
        let mut work: usize = alarms.iter().map(removal_work).sum();
        while alarms.len() < count_max
            && work < TURN_WORK_MAX
            && let Some((_, alarm)) = self.timers.pop_if(now, is_like_it)
        {
            work += removal_work(&alarm);
            alarms.push(alarm);
        }
        Some((group, alarms))
    }

    /// Forgets offsets that were kept for long enough, then groups of which nothing is left.
    pub fn expire(&mut self, now: Now, out: &mut Output) {
        let retention_ms = self.settings.offsets_retention_ms;
        for (id, group) in &mut self.groups {
            match &group.consumer {
                Some(consumer) => {
                    let is_wanted = |topic: &str| consumer.is_wanted(topic);
                    group.offsets.expire_unwanted(id, is_wanted, now.wall, retention_ms, &mut out.records);
                }
                None => group.offsets.expire(id, &group.classic, now.wall, retention_ms, &mut out.records),
            }
        }
        self.forget_deserted(now, out);
    }

    /// Forgets offsets of topics that do not exist, as `exists` says by name and id (zeros: unknown).
    pub fn forget_topics(&mut self, exists: &dyn Fn(&str, Uuid) -> bool, out: &mut Output) {
        for (id, group) in &mut self.groups {
            group.offsets.remove_lost(id, exists, &mut out.records);
        }
        self.groups.retain(|_, group| !group.is_void());
    }

    fn forget_deserted(&mut self, now: Now, out: &mut Output) {
        let is_deserted = |group: &Group| {
            let is_deserted = group.consumer.as_ref().map_or(group.classic.is_deserted(), |consumer| consumer.is_empty());
            is_deserted && group.offsets.is_empty()
        };
        let deserted = self.groups.iter().filter(|(_, group)| is_deserted(group));
        let deserted: Vec<Name> = deserted.map(|(id, _)| id.clone()).collect();
        for id in deserted {
            self.forget(&id, now, out);
        }
    }

    /// Applies a record of the log.
    pub fn replay(&mut self, record: GroupRecord<'_>) {
        match record {
            GroupRecord::OffsetCommit(key, value) => {
                self.replay_offset(&key.group, &key.topic, key.partition, value);
            }
            GroupRecord::LegacyOffsetCommit(key, value) => {
                let value = value.map(|value| OffsetCommitValue {
                    offset: value.offset,
                    leader_epoch: -1,
                    metadata: value.metadata,
                    commit_timestamp: value.commit_timestamp,
                    expire_timestamp: -1,
                    topic_id: Uuid::default(),
                });
                self.replay_offset(&key.group, &key.topic, key.partition, value);
            }
            GroupRecord::GroupMetadata(key, value) => {
                if value.is_some() {
                    self.create(&key.group);
                }
                if let Some(group) = self.groups.get_mut(&*key.group) {
                    group.classic.replay(value, &self.usage);
                    if group.is_void() {
                        self.groups.remove(&*key.group);
                    }
                }
            }
            other => self.replay_consumer(other),
        }
    }

    fn replay_offset(&mut self, id: &str, topic: &str, partition: i32, value: Option<OffsetCommitValue<'_>>) {
        if value.is_some() {
            self.create(id);
        }
        if let Some(group) = self.groups.get_mut(id) {
            group.offsets.replay(topic, partition, value);
            if group.is_void() {
                self.groups.remove(id);
            }
        }
    }

    /// Everything is replayed: sessions begin.
    pub fn begin(&mut self, now: Now, out: &mut Output) {
        let ids: Vec<Name> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with_group(&id, now, out, |group, scope| match &mut group.consumer {
                Some(consumer) => consumer.begin(scope),
                None => group.classic.begin(scope),
            });
        }
    }

    /// Answers all that wait for something: the shard goes.
    pub fn close(&mut self, error: ErrorCode, now: Now, out: &mut Output) {
        let ids: Vec<Name> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with_group(&id, now, out, |group, scope| group.classic.close(error, scope));
        }
    }
}
