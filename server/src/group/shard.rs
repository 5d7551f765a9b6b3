//! The groups of one partition of `__consumer_offsets`: requests and timers find their group here, and what a group costs is
//! bounded. Called by [`crate::broker::groups`], on one core.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ringlog_protocol::group_records::{GroupMetadataKey, GroupRecord, OffsetCommitValue};
use ringlog_protocol::{ErrorCode, Uuid};

use super::classic::{Classic, Scope, State};
use super::offsets::{Offsets, fetch_nothing};
use super::request::{Answer, CallId, Commit, Described, Join, Listed, Reply, Request};
use super::timer::TimerQueue;
use super::usage::Charge;
use super::{Name, Now, RawRecord, Settings, Usage};

/// What a group takes beside its members and offsets.
const GROUP_BYTES: usize = 1024;

/// What comes of inputs. The answers may go when the records, and all before them, are committed.
#[derive(Default)]
pub struct Output {
    /// What to append, in this order.
    pub records: Vec<RawRecord>,
    /// Who gets which answer.
    pub replies: Vec<(CallId, Answer)>,
}

/// A group: its members and its offsets, either of which may be missing.
struct Group {
    classic: Classic,
    offsets: Offsets,
    _charge: Charge,
}

impl Group {
    fn new(id: &str, usage: &Usage) -> Self {
        Self { classic: Classic::default(), offsets: Offsets::new(usage), _charge: usage.charge(GROUP_BYTES + 2 * id.len()) }
    }

    /// Whether nothing is to be known of it, here or in the log.
    fn is_void(&self) -> bool {
        self.classic.is_deserted() && !self.classic.has_record() && self.offsets.is_empty()
    }
}

/// See the module.
pub struct Shard {
    settings: Rc<Settings>,
    usage: Usage,
    groups: BTreeMap<Name, Group>,
    timers: TimerQueue,
    new_id: Box<dyn FnMut() -> u128>,
}

impl Shard {
    /// No group. `usage` is that of all shards of the core; `new_id` gives random numbers for the ids of members.
    #[must_use]
    pub fn new(settings: Rc<Settings>, usage: Usage, new_id: Box<dyn FnMut() -> u128>) -> Self {
        Self { settings, usage, groups: BTreeMap::new(), timers: TimerQueue::default(), new_id }
    }

    /// Takes a request for a group. Its answer comes with this output or with a later one.
    pub fn handle(&mut self, call: CallId, group: &str, request: Request, now: Now, out: &mut Output) {
        match request {
            Request::Join(join) => self.join(call, group, *join, now, out),
            Request::Commit(commit) => {
                let answer = self.commit(group, commit, now, out);
                out.replies.push((call, answer));
            }
            Request::Fetch(topics) => {
                let fetched = match self.groups.get(group) {
                    Some(group) => group.offsets.fetch(topics),
                    None => fetch_nothing(topics),
                };
                out.replies.push((call, Ok(Reply::Fetched(fetched))));
            }
            Request::DeleteOffsets(wanted) => {
                let answer = self.delete_offsets(group, &wanted, out);
                out.replies.push((call, answer));
            }
            Request::Describe => out.replies.push((call, self.describe(group))),
            Request::Delete => {
                let answer = self.delete(group, out);
                out.replies.push((call, answer));
            }
            Request::Sync(_) | Request::Heartbeat(_) | Request::Leave(_) => {
                let served = self.with_group(group, now, out, |group, scope| match request {
                    Request::Sync(sync) => group.classic.sync(call, sync, scope),
                    Request::Heartbeat(identity) => group.classic.heartbeat(call, &identity, scope),
                    Request::Leave(leavers) => group.classic.leave(call, &leavers, scope),
                    _ => unreachable!("matched above"),
                });
                if served.is_none() {
                    out.replies.push((call, Err(ErrorCode::UNKNOWN_MEMBER_ID)));
                }
            }
        }
    }

    /// Runs `act` on a group, where there is one, and forgets the group if nothing of it is left.
    fn with_group<T>(
        &mut self,
        group: &str,
        now: Now,
        out: &mut Output,
        act: impl FnOnce(&mut Group, &mut Scope<'_>) -> T,
    ) -> Option<T> {
        let (id, _) = self.groups.get_key_value(group)?;
        let id = id.clone();
        let found = self.groups.get_mut(group)?;
        let mut scope = Scope {
            group: &id,
            settings: &self.settings,
            usage: &self.usage,
            timers: &mut self.timers,
            out,
            now,
            new_id: &mut self.new_id,
        };
        let result = act(found, &mut scope);
        if found.is_void() {
            self.groups.remove(&id);
        }
        Some(result)
    }

    fn is_full(&self, more_bytes: usize) -> bool {
        self.usage.bytes() + more_bytes > self.settings.memory_bytes_max
    }

    fn create(&mut self, group: &str) {
        let usage = &self.usage;
        self.groups.entry(group.into()).or_insert_with(|| Group::new(group, usage));
    }

    fn join(&mut self, call: CallId, group: &str, join: Join, now: Now, out: &mut Output) {
        let bounds = self.settings.session_timeout_min..=self.settings.session_timeout_max;
        let error = if group.is_empty() {
            Some(ErrorCode::INVALID_GROUP_ID)
        } else if !bounds.contains(&join.session_timeout) {
            Some(ErrorCode::INVALID_SESSION_TIMEOUT)
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
        self.with_group(group, now, out, |group, scope| group.classic.join(call, join, scope));
    }

    fn commit(&mut self, group: &str, commit: Commit, now: Now, out: &mut Output) -> Answer {
        let Commit { identity, retention_ms, offsets } = commit;
        let checked = self.with_group(group, now, out, |group, scope| group.classic.check_commit(&identity, scope));
        match checked {
            Some(checked) => checked?,
            None if identity.generation < 0 => {}
            None => return Err(ErrorCode::ILLEGAL_GENERATION),
        }
        let metadata_bytes_max = self.settings.offset_metadata_bytes_max;
        let bytes: usize = offsets.iter().map(|offset| offset.metadata.len() + 128).sum();
        if self.is_full(bytes) && offsets.iter().any(|offset| !self.has_offset(group, &offset.topic, offset.partition)) {
            // Retriable: groups end and offsets expire.
            return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE);
        }
        self.create(group);
        let Some(found) = self.groups.get_mut(group) else { return Err(ErrorCode::UNKNOWN_SERVER_ERROR) };
        let expires =
            retention_ms.map(|retention_ms| ringlog_engine::types::TimestampMs(now.wall.0.saturating_add(retention_ms)));
        let codes = offsets.into_iter().map(|offset| {
            if offset.metadata.len() > metadata_bytes_max {
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

    fn has_offset(&self, group: &str, topic: &str, partition: i32) -> bool {
        self.groups.get(group).is_some_and(|group| group.offsets.has(topic, partition))
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
        let is_wanted = |topic: &str| !is_empty && subscribed.as_ref().is_none_or(|topics| topics.contains(topic));
        let codes = wanted.iter().map(|(topic, partition)| {
            if is_wanted(topic) {
                return ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC;
            }
            out.records.extend(group.offsets.remove(id, topic, *partition));
            ErrorCode::NONE
        });
        let codes = codes.collect();
        if group.is_void() {
            self.groups.remove(id);
        }
        Ok(Reply::OffsetsDeleted(codes))
    }

    fn describe(&self, group: &str) -> Answer {
        let group = self.groups.get(group).ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?;
        Ok(Reply::Described(Box::<Described>::new(group.classic.describe())))
    }

    fn delete(&mut self, id: &str, out: &mut Output) -> Answer {
        let group = self.groups.get(id).ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?;
        if group.classic.state() != State::Empty {
            return Err(ErrorCode::NON_EMPTY_GROUP);
        }
        self.forget(id, out);
        Ok(Reply::Deleted)
    }

    /// Takes back all that is written of a group.
    fn forget(&mut self, id: &str, out: &mut Output) {
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
        let listed = self.groups.iter().map(|(id, group)| Listed {
            group: id.clone(),
            protocol_type: group.classic.protocol_type().cloned().unwrap_or_default(),
            state: group.classic.state().name(),
        });
        listed.collect()
    }

    /// When [`Shard::tick`] is to be called, at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now, out: &mut Output) {
        while let Some((entry_at, group, alarm)) = self.timers.pop(now.monotonic) {
            self.with_group(&group, now, out, |group, scope| group.classic.ring(entry_at, alarm, scope));
        }
    }

    /// Forgets offsets that were kept for long enough, then groups of which nothing is left.
    pub fn expire(&mut self, now: Now, out: &mut Output) {
        let retention_ms = self.settings.offsets_retention_ms;
        for (id, group) in &mut self.groups {
            group.offsets.expire(id, &group.classic, now.wall, retention_ms, &mut out.records);
        }
        self.forget_deserted(out);
    }

    /// Forgets offsets of topics that do not exist, as `exists` says by name and id (zeros: unknown).
    pub fn forget_topics(&mut self, exists: &dyn Fn(&str, Uuid) -> bool, out: &mut Output) {
        for (id, group) in &mut self.groups {
            group.offsets.remove_lost(id, exists, &mut out.records);
        }
        self.groups.retain(|_, group| !group.is_void());
    }

    fn forget_deserted(&mut self, out: &mut Output) {
        let deserted = self.groups.iter().filter(|(_, group)| group.classic.is_deserted() && group.offsets.is_empty());
        let deserted: Vec<Name> = deserted.map(|(id, _)| id.clone()).collect();
        for id in deserted {
            self.forget(&id, out);
        }
    }

    /// Applies a record of the log. Those of the new protocol are left alone.
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
            _ => {}
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
            self.with_group(&id, now, out, |group, scope| group.classic.begin(scope));
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
