//! The classic protocol: members join, one of them assigns, all get their part, and heartbeats keep them in. [`join`] is how a
//! generation begins; here is the rest. Called by the shard, for one group at a time.
//!
//! What holds:
//!
//! - **GenerationsGrow**: every completed rebalance has a generation of its own, greater than those before.
//! - **OneAssignmentPerGeneration**: members get what the leader of their generation said, and nothing else.
//! - **FencedStaysOut**: who is not a member of the generation that it names neither commits nor gets an assignment.
//! - **EveryCallIsAnswered**: a join or sync that waits is answered when its member goes, or by a timer.

mod join;
mod travel;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::types::TimestampMs;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::consumer_protocol::{ConsumerProtocolSubscription, PROTOCOL_TYPE};
use ringlog_protocol::group_records::{GroupMetadataKey, GroupMetadataValue, GroupRecord, MemberMetadata};

pub(super) use travel::Traveller;

use super::request::{Answer, CallId, Described, DescribedMember, Identity, Leaver, Reply, Sync, Synced};
use super::timer::{Alarm, Timer, TimerQueue};
use super::usage::Charge;
use super::{Name, Now, Output, RawRecord, Settings, SmallMap, TopicView, Usage};
use crate::config::GroupConfig;
use crate::log_limit::LogLimit;

/// What a member takes beside what it sent.
const MEMBER_BYTES: usize = 896;
/// What a protocol takes beside its name and what the member says of itself in it.
const PROTOCOL_BYTES: usize = 96;
/// What an id takes that nobody uses yet.
const PENDING_BYTES: usize = 256;

/// What a group works with while it takes an input.
pub(super) struct Scope<'a> {
    pub(super) group: &'a Name,
    pub(super) settings: &'a Settings,
    /// What the group has set for itself, or has from the settings.
    pub(super) config: GroupConfig,
    pub(super) usage: &'a Usage,
    pub(super) topics: &'a dyn TopicView,
    /// Grows when the topics change.
    pub(super) topics_version: u64,
    /// The largest record that is written.
    pub(super) record_bytes_max: usize,
    pub(super) timers: &'a mut TimerQueue,
    /// For assignments that are too large.
    pub(super) too_large: &'a LogLimit,
    pub(super) out: &'a mut Output,
    pub(super) now: Now,
    pub(super) new_id: &'a mut dyn FnMut() -> u128,
}

impl Scope<'_> {
    pub(super) fn reply(&mut self, call: CallId, answer: Answer) {
        self.out.replies.push((call, answer));
    }
}

/// Where a group is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody is in it.
    #[default]
    Empty,
    /// Members are to join the next generation.
    PreparingRebalance,
    /// All are in, and the leader is to assign.
    CompletingRebalance,
    /// Everybody may ask what it has.
    Stable,
}

impl State {
    /// Kafka's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

#[derive(Debug)]
struct Member {
    instance: Option<Name>,
    client_id: Name,
    client_host: Name,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    /// Best first.
    protocols: Vec<(Name, Bytes)>,
    assignment: Bytes,
    /// The JoinGroup that waits.
    joining: Option<CallId>,
    /// The SyncGroup that waits.
    syncing: Option<CallId>,
    /// Whether nothing is to be heard of it in this generation any more.
    has_synced: bool,
    /// Whether it does not know its id yet, and cannot send heartbeats.
    is_new: bool,
    session: Timer,
    charge: Charge,
}

impl Member {
    /// Begins its session anew.
    fn touch(&mut self, id: &Name, scope: &mut Scope<'_>) {
        let at = scope.now.monotonic + self.session_timeout;
        self.session.set(at, scope.timers, scope.group, || Alarm::Session(id.clone()));
    }

    fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| **name == *protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    fn set_charge(&mut self, id: &str) {
        let protocols = protocols_bytes(&self.protocols);
        let names =
            id.len() + self.client_id.len() + self.client_host.len() + self.instance.as_ref().map_or(0, |name| name.len());
        self.charge.set(MEMBER_BYTES + protocols + names + self.assignment.len());
    }
}

/// An id that was given out and not used yet.
#[derive(Debug)]
struct Pending {
    timer: Timer,
    _charge: Charge,
}

/// The wait for the first members of a group that was empty.
#[derive(Debug)]
struct InitialDelay {
    /// How much longer it may become.
    remaining: Duration,
    /// Whether somebody came since it was last made longer.
    has_new: bool,
}

/// The members of a group.
#[derive(Default)]
pub(super) struct Classic {
    state: State,
    state_since: Option<TimestampMs>,
    generation: i32,
    protocol_type: Option<Name>,
    protocol: Option<Name>,
    leader: Option<Name>,
    members: SmallMap<Name, Member>,
    /// The members that have an instance id, by that: no two have the same.
    statics: SmallMap<Name, Name>,
    pending: SmallMap<Name, Pending>,
    /// How many members speak a protocol.
    protocol_counts: SmallMap<Name, usize>,
    /// How many members wait in JoinGroup.
    joining: usize,
    /// Of how many members something is to be heard in this generation.
    silent: usize,
    initial_delay: Option<InitialDelay>,
    join_timer: Timer,
    sync_timer: Timer,
    /// Whether the log has a record of it.
    has_record: bool,
}

impl Classic {
    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn state_since(&self) -> Option<TimestampMs> {
        self.state_since
    }

    /// What kind of group it is; none: offsets alone, or nothing.
    pub(super) fn protocol_type(&self) -> Option<&Name> {
        self.protocol_type.as_ref()
    }

    pub(super) fn has_record(&self) -> bool {
        self.has_record
    }

    /// Whether nobody is in it or about to be.
    pub(super) fn is_deserted(&self) -> bool {
        self.state == State::Empty && self.members.is_empty() && self.pending.is_empty()
    }

    /// Whether it has no member.
    pub(super) fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    /// Takes back what is written of it: it becomes a group of the other protocol.
    pub(super) fn forget(&self, scope: &mut Scope<'_>) {
        if self.has_record {
            let key = GroupMetadataKey { group: Cow::Borrowed(scope.group) };
            scope.out.records.push(RawRecord::of(&GroupRecord::GroupMetadata(key, None)));
        }
    }

    fn set_state(&mut self, state: State, now: Now) {
        self.state = state;
        self.state_since = Some(now.wall);
    }

    /// Whether nobody else has its instance id by now.
    fn check_instance(&self, identity: &Identity) -> Result<(), ErrorCode> {
        let Some(instance) = &identity.instance else { return Ok(()) };
        match self.statics.get(instance) {
            None => Err(ErrorCode::UNKNOWN_MEMBER_ID),
            Some(member) if *member != identity.member => Err(ErrorCode::FENCED_INSTANCE_ID),
            Some(_) => Ok(()),
        }
    }

    /// Whether this is a member, and nobody else has its instance id by now.
    fn check(&self, identity: &Identity) -> Result<(), ErrorCode> {
        self.check_instance(identity)?;
        if self.members.contains_key(&identity.member) { Ok(()) } else { Err(ErrorCode::UNKNOWN_MEMBER_ID) }
    }

    fn check_generation(&self, identity: &Identity) -> Result<(), ErrorCode> {
        self.check(identity)?;
        if identity.generation == self.generation { Ok(()) } else { Err(ErrorCode::ILLEGAL_GENERATION) }
    }

    /// Begins a member's session anew.
    fn touch(&mut self, id: &Name, scope: &mut Scope<'_>) {
        if let Some(member) = self.members.get_mut(id) {
            member.touch(id, scope);
        }
    }

    pub(super) fn heartbeat(&mut self, call: CallId, identity: &Identity, scope: &mut Scope<'_>) {
        let answer = self.beat(identity, scope);
        scope.reply(call, answer);
    }

    /// The member is looked up once: among thousands, most of what a heartbeat costs is memory that nobody has looked at for seconds.
    fn beat(&mut self, identity: &Identity, scope: &mut Scope<'_>) -> Answer {
        self.check_instance(identity)?;
        let member = self.members.get_mut(&identity.member).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        if identity.generation != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        member.touch(&identity.member, scope);
        match self.state {
            State::Empty => Err(ErrorCode::UNKNOWN_MEMBER_ID),
            State::PreparingRebalance => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            State::CompletingRebalance | State::Stable => Ok(Reply::Alive),
        }
    }

    pub(super) fn sync(&mut self, call: CallId, sync: Sync, scope: &mut Scope<'_>) {
        if let Err(error) = self.check_sync(&sync) {
            return scope.reply(call, Err(error));
        }
        let id = sync.identity.member;
        self.has_synced(&id);
        match self.state {
            State::Stable => {
                self.touch(&id, scope);
                let answer = self.synced(&id);
                scope.reply(call, answer);
            }
            _ => {
                if let Some(member) = self.members.get_mut(&id)
                    && let Some(before) = member.syncing.replace(call)
                {
                    // It asked again: whoever waits for the first answer has given up.
                    scope.reply(before, Err(ErrorCode::REBALANCE_IN_PROGRESS));
                }
                if self.leader.as_ref() == Some(&id) {
                    self.assign(sync.assignments, scope);
                }
            }
        }
        if self.silent == 0 {
            self.sync_timer.clear();
        }
    }

    /// Nothing is to be heard of a member in this generation any more.
    fn has_synced(&mut self, id: &Name) {
        if let Some(member) = self.members.get_mut(id).filter(|member| !member.has_synced) {
            member.has_synced = true;
            self.silent -= 1;
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), ErrorCode> {
        self.check_generation(&sync.identity)?;
        let differs = |said: &Option<Name>, is: &Option<Name>| said.is_some() && said != is;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        match self.state {
            State::Empty => Err(ErrorCode::UNKNOWN_MEMBER_ID),
            State::PreparingRebalance => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// What the leader says is written, and everybody who asked gets it.
    fn assign(&mut self, assignments: Vec<(Name, Bytes)>, scope: &mut Scope<'_>) {
        let mut assignments: BTreeMap<Name, Bytes> = assignments.into_iter().collect();
        for (id, member) in &mut self.members {
            member.assignment = assignments.remove(id).unwrap_or_default();
            member.set_charge(id);
        }
        let waiting: Vec<(Name, CallId)> =
            self.members.iter_mut().filter_map(|(id, member)| Some((id.clone(), member.syncing.take()?))).collect();
        let since = self.state_since.replace(scope.now.wall);
        let record = self.record(scope.group);
        if record.bytes() > scope.record_bytes_max {
            if let Some(not_logged) = scope.too_large.pass(scope.now.monotonic) {
                let (members, bytes, bytes_max) = (self.members.len(), record.bytes(), scope.record_bytes_max);
                tracing::warn!(
                    group = %scope.group, members, bytes, bytes_max, not_logged,
                    "the assignment of a group does not fit into a record and is refused"
                );
            }
            self.state_since = since;
            for (_, call) in waiting {
                scope.reply(call, Err(ErrorCode::UNKNOWN_SERVER_ERROR));
            }
            return self.prepare_rebalance(scope);
        }
        self.state = State::Stable;
        self.has_record = true;
        scope.out.records.push(record);
        for (id, call) in waiting {
            self.touch(&id, scope);
            let answer = self.synced(&id);
            scope.reply(call, answer);
        }
    }

    fn synced(&self, id: &Name) -> Answer {
        let member = self.members.get(id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        Ok(Reply::Synced(Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: member.assignment.clone(),
        }))
    }

    pub(super) fn leave(&mut self, call: CallId, leavers: &[Leaver], scope: &mut Scope<'_>) {
        let mut is_removed = false;
        let codes = leavers.iter().map(|leaver| match self.leave_one(leaver, scope) {
            Ok(was_member) => {
                is_removed |= was_member;
                ErrorCode::NONE
            }
            Err(error) => error,
        });
        let codes = codes.collect();
        self.after_leaving(is_removed, scope);
        scope.reply(call, Ok(Reply::Left(codes)));
    }

    /// True: it was a member. False: it had an id and had not joined with it.
    fn leave_one(&mut self, leaver: &Leaver, scope: &mut Scope<'_>) -> Result<bool, ErrorCode> {
        let id = match &leaver.instance {
            Some(instance) => {
                let id = self.statics.get(instance).cloned().ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
                if !leaver.member.is_empty() && leaver.member != id {
                    return Err(ErrorCode::FENCED_INSTANCE_ID);
                }
                id
            }
            None => leaver.member.clone(),
        };
        if self.pending.remove(&id).is_some() {
            return Ok(false);
        }
        if self.remove(&id, scope) { Ok(true) } else { Err(ErrorCode::UNKNOWN_MEMBER_ID) }
    }

    /// Takes a member out. What it waits for is answered, so that a client that is there after all joins again.
    fn remove(&mut self, id: &Name, scope: &mut Scope<'_>) -> bool {
        let Some(member) = self.members.remove(id) else { return false };
        self.silent -= usize::from(!member.has_synced);
        if let Some(call) = member.joining {
            self.joining -= 1;
            scope.reply(call, Err(ErrorCode::UNKNOWN_MEMBER_ID));
        }
        if let Some(call) = member.syncing {
            scope.reply(call, Err(ErrorCode::UNKNOWN_MEMBER_ID));
        }
        if let Some(instance) = &member.instance {
            self.statics.remove(instance);
        }
        self.uncount(&member.protocols);
        if self.leader.as_ref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        true
    }

    fn count(&mut self, protocols: &[(Name, Bytes)]) {
        for name in names_of(protocols) {
            *self.protocol_counts.get_or_default(name.clone()) += 1;
        }
    }

    fn uncount(&mut self, protocols: &[(Name, Bytes)]) {
        for name in names_of(protocols) {
            if let Some(count) = self.protocol_counts.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.protocol_counts.remove(name);
                }
            }
        }
    }

    /// What follows when members, or ids alone, went: those who have what they have need not know of an id that nobody used.
    fn after_leaving(&mut self, was_member: bool, scope: &mut Scope<'_>) {
        if was_member {
            self.go_on(scope);
        } else {
            self.try_complete_join(scope);
        }
    }

    /// What follows when members went.
    fn go_on(&mut self, scope: &mut Scope<'_>) {
        match self.state {
            State::Empty => {}
            State::PreparingRebalance => self.try_complete_join(scope),
            State::CompletingRebalance | State::Stable => self.prepare_rebalance(scope),
        }
    }

    /// One of its timers is due.
    pub(super) fn ring(&mut self, alarm: &Alarm, scope: &mut Scope<'_>) {
        match alarm {
            Alarm::Session(id) => {
                let Some(member) = self.members.get_mut(id) else { return };
                member.session.clear();
                // Who waits for an answer cannot send heartbeats; its session begins with the answer.
                let waits = member.syncing.is_some() || (member.joining.is_some() && !member.is_new);
                if !waits {
                    tracing::debug!(group = %scope.group, member = %id, "a member was silent for too long");
                    self.remove(id, scope);
                    self.go_on(scope);
                }
            }
            Alarm::Pending(id) => {
                if self.pending.remove(id).is_some() {
                    self.try_complete_join(scope);
                }
            }
            Alarm::Join => {
                self.join_timer.clear();
                self.end_join(scope);
            }
            Alarm::Sync => {
                self.sync_timer.clear();
                self.expire_syncs(scope);
            }
            // It was a group of the other protocol when they were set.
            Alarm::ConsumerSession(_) | Alarm::Revocation(_) | Alarm::ConsumerSync(_) => {}
        }
    }

    /// Whoever joined and then did not sync is out.
    fn expire_syncs(&mut self, scope: &mut Scope<'_>) {
        if !matches!(self.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        let silent: Vec<Name> = self.members.iter().filter(|(_, member)| !member.has_synced).map(|(id, _)| id.clone()).collect();
        if silent.is_empty() {
            return;
        }
        for id in &silent {
            self.remove(id, scope);
        }
        self.prepare_rebalance(scope);
    }

    /// Whether offsets may be committed by whoever says that it is this member; touches its session.
    pub(super) fn check_commit(&mut self, identity: &Identity, scope: &mut Scope<'_>) -> Result<(), ErrorCode> {
        let is_anonymous = identity.generation < 0 && identity.member.is_empty() && identity.instance.is_none();
        if identity.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if is_anonymous {
            // Offsets of a group that has members are theirs.
            return if self.state == State::Empty { Ok(()) } else { Err(ErrorCode::UNKNOWN_MEMBER_ID) };
        }
        self.check_generation(identity)?;
        if self.state == State::CompletingRebalance {
            return Err(ErrorCode::REBALANCE_IN_PROGRESS);
        }
        self.touch(&identity.member, scope);
        Ok(())
    }

    /// Whether a member's commit would be taken.
    #[cfg(test)]
    pub(super) fn would_take(&self, identity: &Identity) -> bool {
        self.check_generation(identity).is_ok() && self.state != State::CompletingRebalance
    }

    #[cfg(test)]
    pub(super) fn generation(&self) -> i32 {
        self.generation
    }

    /// The topics that the members of a stable group of consumers want; `None` where that is not known.
    pub(super) fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(PROTOCOL_TYPE) {
            return None;
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(topics_of(&member.metadata(protocol))?);
        }
        Some(topics)
    }

    pub(super) fn describe(&self) -> Described {
        let is_stable = self.state == State::Stable;
        let protocol = self.protocol.clone().filter(|_| is_stable).unwrap_or_default();
        let member = |(id, member): (&Name, &Member)| DescribedMember {
            member: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if is_stable { member.metadata(&protocol) } else { Bytes::new() },
            assignment: if is_stable { member.assignment.clone() } else { Bytes::new() },
        };
        Described {
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: self.members.iter().map(member).collect(),
            protocol,
        }
    }

    /// Answers everything that waits: the shard goes.
    pub(super) fn close(&mut self, error: ErrorCode, scope: &mut Scope<'_>) {
        for member in self.members.values_mut() {
            let calls = [member.joining.take(), member.syncing.take()];
            for call in calls.into_iter().flatten() {
                scope.out.replies.push((call, Err(error)));
            }
        }
        self.joining = 0;
    }

    /// The record of the group as it is.
    fn record(&self, group: &Name) -> RawRecord {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let metadata: Vec<(&Name, &Member, Bytes)> =
            self.members.iter().map(|(id, member)| (id, member, member.metadata(protocol))).collect();
        let member = |(id, member, metadata): &'_ (&Name, &Member, Bytes)| MemberMetadata {
            member_id: Cow::Owned(id.to_string()),
            group_instance_id: member.instance.as_ref().map(|name| Cow::Owned(name.to_string())),
            client_id: Cow::Owned(member.client_id.to_string()),
            client_host: Cow::Owned(member.client_host.to_string()),
            rebalance_timeout: ms(member.rebalance_timeout),
            session_timeout: ms(member.session_timeout),
            subscription: Cow::Owned(metadata.to_vec()),
            assignment: Cow::Owned(member.assignment.to_vec()),
        };
        let value = GroupMetadataValue {
            protocol_type: Cow::Borrowed(self.protocol_type.as_deref().unwrap_or_default()),
            generation: self.generation,
            protocol: self.protocol.as_deref().map(Cow::Borrowed),
            leader: self.leader.as_deref().map(Cow::Borrowed),
            current_state_timestamp: self.state_since.map_or(-1, |since| since.0),
            members: metadata.iter().map(member).collect(),
        };
        RawRecord::of(&GroupRecord::GroupMetadata(GroupMetadataKey { group: Cow::Borrowed(group) }, Some(value)))
    }

    /// The group as a record says it is; without one there are no members.
    pub(super) fn replay(&mut self, value: Option<GroupMetadataValue<'_>>, usage: &Usage) {
        *self = Self::default();
        let Some(value) = value else { return };
        self.has_record = true;
        self.generation = value.generation;
        self.protocol_type = Some(name(&value.protocol_type)).filter(|name| !name.is_empty());
        self.protocol = value.protocol.as_deref().map(name);
        self.leader = value.leader.as_deref().map(name);
        self.state_since = (value.current_state_timestamp >= 0).then_some(TimestampMs(value.current_state_timestamp));
        self.state = if value.members.is_empty() { State::Empty } else { State::Stable };
        for member in value.members {
            let id = name(&member.member_id);
            let instance = member.group_instance_id.as_deref().map(name);
            // Of two of one instance id, as another broker may have written them, the last one has it.
            if let Some(instance) = &instance
                && let Some(other) = self.statics.insert(instance.clone(), id.clone())
                && let Some(other) = self.members.get_mut(&other)
            {
                other.instance = None;
            }
            let session_timeout = duration(member.session_timeout);
            let mut loaded = Member {
                instance,
                client_id: name(&member.client_id),
                client_host: name(&member.client_host),
                session_timeout,
                rebalance_timeout: if member.rebalance_timeout < 0 {
                    session_timeout
                } else {
                    duration(member.rebalance_timeout)
                },
                protocols: vec![(self.protocol.clone().unwrap_or_default(), Bytes::copy_from_slice(&member.subscription))],
                assignment: Bytes::copy_from_slice(&member.assignment),
                joining: None,
                syncing: None,
                has_synced: true,
                is_new: false,
                session: Timer::default(),
                charge: usage.charge(0),
            };
            loaded.set_charge(&id);
            self.count(&loaded.protocols);
            self.members.insert(id, loaded);
        }
    }

    /// After the replay: sessions begin anew. Members without a leader come from the new protocol, and have not joined since.
    pub(super) fn begin(&mut self, scope: &mut Scope<'_>) {
        let ids: Vec<Name> = self.members.keys().cloned().collect();
        for id in &ids {
            self.touch(id, scope);
        }
        let is_leaderless = self.leader.is_none() && !ids.is_empty();
        if is_leaderless || ids.len() > scope.settings.group_size_max {
            self.prepare_rebalance(scope);
        }
    }
}

/// Each protocol once, though a client may name it twice.
fn names_of(protocols: &[(Name, Bytes)]) -> BTreeSet<&Name> {
    protocols.iter().map(|(name, _)| name).collect()
}

/// What the protocols of a member take.
fn protocols_bytes(protocols: &[(Name, Bytes)]) -> usize {
    protocols.iter().map(|(name, metadata)| name.len() + metadata.len() + PROTOCOL_BYTES).sum()
}

/// The topics that a consumer subscribes to, if that is what the bytes say.
fn topics_of(metadata: &[u8]) -> Option<BTreeSet<String>> {
    let subscription = ConsumerProtocolSubscription::from_metadata(metadata).ok()?;
    Some(subscription.topics.into_iter().map(Cow::into_owned).collect())
}

fn name(text: &str) -> Name {
    Name::from(text)
}

fn ms(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

fn duration(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
