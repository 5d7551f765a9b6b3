//! How a generation begins: who joins, how long the others are waited for, which protocol is spoken, who leads.

use std::time::Duration;

use bytes::Bytes;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::consumer_protocol::PROTOCOL_TYPE;

use super::{Classic, InitialDelay, MEMBER_BYTES, Member, PENDING_BYTES, Pending, Scope, State, protocols_bytes, topics_of};
use crate::group::request::{CallId, Join, Joined, Reply};
use crate::group::timer::{Alarm, Timer};
use crate::group::{Name, RawRecord};

/// How long a new member is waited for that waits for the others. It does not know its id, and whether it is still there cannot be
/// seen: it would ask again.
const NEW_MEMBER_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How much of a client's name for itself goes into an id, which has to stay a string of the protocol.
const PREFIX_BYTES_MAX: usize = 512;
/// Which part of the memory of all groups is there beside it for members that join again.
const MEMBERS_SHARE: usize = 8;

impl Classic {
    pub(in crate::group) fn join(&mut self, call: CallId, join: Join, scope: &mut Scope<'_>) {
        let id = join.member.clone();
        if !self.is_within_size(&join, scope) {
            self.pending.remove(&id);
            let was_member = self.remove(&id, scope);
            self.after_leaving(was_member, scope);
            return scope.reply(call, Err(ErrorCode::GROUP_MAX_SIZE_REACHED));
        }
        if !self.has_memory(&join, scope) {
            if self.members.contains_key(&id) {
                // It stays, and comes again: groups end.
                return scope.reply(call, Err(ErrorCode::COORDINATOR_NOT_AVAILABLE));
            }
            self.pending.remove(&id);
            self.after_leaving(false, scope);
            return scope.reply(call, Err(ErrorCode::GROUP_MAX_SIZE_REACHED));
        }
        if !self.speaks(&join) {
            return scope.reply(call, Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL));
        }
        if id.is_empty() {
            self.join_new(call, join, scope);
        } else {
            self.join_known(call, id, join, scope);
        }
    }

    /// Whether the group may have this member: as Kafka has it, a group that was larger once shrinks as its members join again.
    fn is_within_size(&self, join: &Join, scope: &Scope<'_>) -> bool {
        let max = scope.settings.group_size_max;
        let member = self.members.get(&join.member);
        let is_within = match self.state {
            State::PreparingRebalance => member.is_some_and(|member| member.joining.is_some()) || self.joining < max,
            State::Empty => max > 0,
            State::CompletingRebalance | State::Stable => member.is_some() || self.members.len() < max,
        };
        let is_pending = self.pending.contains_key(&join.member);
        is_within && (member.is_some() || is_pending || self.pending.len() < max)
    }

    /// Whether there is memory for what it says. Members that are in have some more than others: what they say of themselves grows
    /// with what they own.
    fn has_memory(&self, join: &Join, scope: &Scope<'_>) -> bool {
        let (bytes, max) = (protocols_bytes(&join.protocols), scope.settings.memory_bytes_max);
        match self.members.get(&join.member) {
            Some(member) => {
                let more_bytes = bytes.saturating_sub(protocols_bytes(&member.protocols));
                more_bytes == 0 || scope.usage.bytes() + more_bytes <= max + max / MEMBERS_SHARE
            }
            None => scope.usage.bytes() + MEMBER_BYTES + bytes <= max,
        }
    }

    /// Whether it is of the group's kind and speaks what all others do.
    fn speaks(&self, join: &Join) -> bool {
        if self.members.is_empty() {
            return !join.protocol_type.is_empty() && !join.protocols.is_empty();
        }
        let is_common = |name: &Name| self.protocol_counts.get(name) == Some(&self.members.len());
        self.protocol_type.as_ref() == Some(&join.protocol_type) && join.protocols.iter().any(|(name, _)| is_common(name))
    }

    fn join_new(&mut self, call: CallId, join: Join, scope: &mut Scope<'_>) {
        let Some(instance) = &join.instance else {
            let id = new_member_id(&join.client_id, scope);
            if !join.requires_member_id {
                return self.add(call, id, join, scope);
            }
            let mut pending = Pending { timer: Timer::default(), _charge: scope.usage.charge(PENDING_BYTES + 2 * id.len()) };
            let at = scope.now.monotonic + join.session_timeout;
            pending.timer.set(at, scope.timers, scope.group, || Alarm::Pending(id.clone()));
            self.pending.insert(id.clone(), pending);
            return scope.reply(call, Ok(Reply::MemberIdRequired(id)));
        };
        let id = new_member_id(instance, scope);
        match self.statics.get(instance).cloned() {
            Some(before) => self.replace_static(call, &before, id, join, scope),
            None => self.add(call, id, join, scope),
        }
    }

    fn join_known(&mut self, call: CallId, id: Name, join: Join, scope: &mut Scope<'_>) {
        if join.instance.is_none() && self.pending.remove(&id).is_some() {
            return self.add(call, id, join, scope);
        }
        let identity = crate::group::request::Identity { member: id.clone(), instance: join.instance.clone(), generation: -1 };
        if let Err(error) = self.check(&identity) {
            return scope.reply(call, Err(error));
        }
        let is_leader = self.leader.as_ref() == Some(&id);
        let is_unchanged = self.members.get(&id).is_some_and(|member| member.protocols == join.protocols);
        match self.state {
            // It did not hear that it is in.
            State::CompletingRebalance if is_unchanged => self.tell_again(call, &id, is_leader, scope),
            State::Stable if is_unchanged && !is_leader => self.tell_again(call, &id, false, scope),
            State::Empty => scope.reply(call, Err(ErrorCode::UNKNOWN_MEMBER_ID)),
            // A leader that comes again wants to assign anew: topics may have changed.
            _ => {
                self.update(&id, join, scope);
                self.await_join(call, &id, scope);
                self.rebalance(scope);
            }
        }
    }

    fn tell_again(&mut self, call: CallId, id: &Name, with_members: bool, scope: &mut Scope<'_>) {
        self.touch(id, scope);
        let joined = self.joined(id, with_members);
        scope.reply(call, Ok(Reply::Joined(Box::new(joined))));
    }

    fn add(&mut self, call: CallId, id: Name, join: Join, scope: &mut Scope<'_>) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
            self.leader = None;
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.insert(&id, join, true, Bytes::new(), scope);
        if let Some(member) = self.members.get_mut(&id) {
            let at = scope.now.monotonic + NEW_MEMBER_TIMEOUT;
            member.session.set(at, scope.timers, scope.group, || Alarm::Session(id.clone()));
        }
        self.await_join(call, &id, scope);
        if let Some(delay) = &mut self.initial_delay {
            delay.has_new = true;
        }
        self.rebalance(scope);
    }

    fn insert(&mut self, id: &Name, join: Join, is_new: bool, assignment: Bytes, scope: &Scope<'_>) {
        self.count(&join.protocols);
        if let Some(instance) = &join.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        let mut member = Member {
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: join.protocols,
            assignment,
            joining: None,
            syncing: None,
            has_synced: false,
            is_new,
            session: Timer::default(),
            charge: scope.usage.charge(0),
        };
        member.set_charge(id);
        self.silent += 1;
        self.members.insert(id.clone(), member);
    }

    fn update(&mut self, id: &Name, join: Join, scope: &mut Scope<'_>) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        let before = std::mem::replace(&mut member.protocols, join.protocols);
        member.set_charge(id);
        let now = member.protocols.clone();
        // A wait for SyncGroup of the generation that ends.
        if let Some(call) = member.syncing.take() {
            scope.reply(call, Err(ErrorCode::REBALANCE_IN_PROGRESS));
        }
        self.uncount(&before);
        self.count(&now);
    }

    fn await_join(&mut self, call: CallId, id: &Name, scope: &mut Scope<'_>) {
        let Some(member) = self.members.get_mut(id) else { return };
        match member.joining.replace(call) {
            // It asked again: whoever waits for the first answer has given up.
            Some(before) => scope.reply(before, Err(ErrorCode::REBALANCE_IN_PROGRESS)),
            None => self.joining += 1,
        }
        if !member.is_new {
            member.session.clear();
        }
    }

    /// A static member is back under a new id: who still has the old one is out. Where nothing changes for the others there is no
    /// rebalance (KIP-345).
    fn replace_static(&mut self, call: CallId, before: &Name, id: Name, join: Join, scope: &mut Scope<'_>) {
        let leader_before = self.leader.clone();
        let protocol = self.protocol.clone().unwrap_or_default();
        let Some(old) = self.members.remove(before) else { return };
        self.silent -= usize::from(!old.has_synced);
        if old.joining.is_some() {
            self.joining -= 1;
        }
        for call in [old.joining, old.syncing].into_iter().flatten() {
            scope.reply(call, Err(ErrorCode::FENCED_INSTANCE_ID));
        }
        self.uncount(&old.protocols);
        let knows_skip = join.knows_skip_assignment;
        self.insert(&id, join, false, old.assignment.clone(), scope);
        if self.leader.as_ref() == Some(before) {
            self.leader = Some(id.clone());
        }
        self.has_synced(&id);
        self.touch(&id, scope);
        let is_same = self.members.get(&id).is_some_and(|member| self.wants_the_same(&old, member, &protocol));
        let is_same = self.state == State::Stable && is_same && self.select_protocol() == self.protocol;
        // One that became too large is for the leader to make smaller.
        let record = is_same.then(|| self.record(scope.group)).filter(|record| record.bytes() <= scope.record_bytes_max);
        let Some(record) = record else {
            self.await_join(call, &id, scope);
            return self.rebalance(scope);
        };
        self.write(record, scope);
        let is_leader = self.leader.as_ref() == Some(&id);
        let mut joined = self.joined(&id, knows_skip && is_leader);
        if knows_skip {
            joined.skips_assignment = is_leader;
        } else if let Some(leader) = leader_before {
            // A client that cannot be told so must not take itself for the leader.
            joined.leader = leader;
        }
        scope.reply(call, Ok(Reply::Joined(Box::new(joined))));
    }

    /// Whether a member that is back wants the topics that it wanted. What else it says may differ: what it owns, from where it is.
    fn wants_the_same(&self, old: &Member, new: &Member, protocol: &str) -> bool {
        if self.protocol_type.as_deref() != Some(PROTOCOL_TYPE) {
            return true;
        }
        match (topics_of(&old.metadata(protocol)), topics_of(&new.metadata(protocol))) {
            (Some(old), Some(new)) => old == new,
            _ => true,
        }
    }

    fn rebalance(&mut self, scope: &mut Scope<'_>) {
        if self.state == State::PreparingRebalance {
            self.try_complete_join(scope);
        } else {
            self.prepare_rebalance(scope);
        }
    }

    /// Members are to join again.
    pub(super) fn prepare_rebalance(&mut self, scope: &mut Scope<'_>) {
        if self.state == State::CompletingRebalance {
            for member in self.members.values_mut() {
                if let Some(call) = member.syncing.take() {
                    scope.out.replies.push((call, Err(ErrorCode::REBALANCE_IN_PROGRESS)));
                }
            }
            // The sessions of those who waited stood still.
            let is_back = |member: &Member| member.joining.is_none() && !member.session.is_set();
            let ids: Vec<Name> = self.members.iter().filter(|(_, member)| is_back(member)).map(|(id, _)| id.clone()).collect();
            for id in &ids {
                self.touch(id, scope);
            }
        }
        self.sync_timer.clear();
        let rebalance_timeout = self.rebalance_timeout();
        let delay = scope.settings.initial_rebalance_delay;
        if self.state == State::Empty && delay.is_zero() {
            // Whoever was given an id and has not come with it is not waited for, as when a delay ends.
            self.set_state(State::PreparingRebalance, scope.now);
            return self.complete_join(scope);
        }
        let wait = if self.state == State::Empty {
            self.initial_delay = Some(InitialDelay { remaining: rebalance_timeout.saturating_sub(delay), has_new: false });
            delay
        } else {
            self.initial_delay = None;
            rebalance_timeout
        };
        self.join_timer.set(scope.now.monotonic + wait, scope.timers, scope.group, || Alarm::Join);
        self.set_state(State::PreparingRebalance, scope.now);
        self.try_complete_join(scope);
    }

    /// The longest that any member wants to have for joining again.
    fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    pub(super) fn try_complete_join(&mut self, scope: &mut Scope<'_>) {
        let are_all_in = self.joining == self.members.len() && self.pending.is_empty();
        if self.state == State::PreparingRebalance && self.initial_delay.is_none() && are_all_in {
            self.complete_join(scope);
        }
    }

    /// The time for joining is over, or that for the first members, which is made longer while new ones come.
    pub(super) fn end_join(&mut self, scope: &mut Scope<'_>) {
        if let Some(delay) = &mut self.initial_delay
            && std::mem::take(&mut delay.has_new)
            && !delay.remaining.is_zero()
        {
            let wait = scope.settings.initial_rebalance_delay.min(delay.remaining);
            delay.remaining -= wait;
            return self.join_timer.set(scope.now.monotonic + wait, scope.timers, scope.group, || Alarm::Join);
        }
        if self.state == State::PreparingRebalance {
            self.complete_join(scope);
        }
    }

    fn complete_join(&mut self, scope: &mut Scope<'_>) {
        self.initial_delay = None;
        // Static members stay until their sessions end.
        let gone: Vec<Name> = self
            .members
            .iter()
            .filter(|(_, member)| member.joining.is_none() && member.instance.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in &gone {
            self.remove(id, scope);
        }
        if !self.elect() {
            // Nobody who could assign is there.
            let at = scope.now.monotonic + self.rebalance_timeout().max(Duration::from_millis(1));
            return self.join_timer.set(at, scope.timers, scope.group, || Alarm::Join);
        }
        self.join_timer.clear();
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        tracing::debug!(group = %scope.group, generation = self.generation, members = self.members.len(), "rebalanced");
        if self.members.is_empty() {
            (self.protocol, self.leader) = (None, None);
            self.set_state(State::Empty, scope.now);
            let record = self.record(scope.group);
            return self.write(record, scope);
        }
        self.protocol = self.select_protocol();
        self.set_state(State::CompletingRebalance, scope.now);
        let ids: Vec<Name> = self.members.keys().cloned().collect();
        self.silent = self.joining;
        for id in &ids {
            let is_leader = self.leader.as_ref() == Some(id);
            let Some(member) = self.members.get_mut(id) else { continue };
            member.is_new = false;
            // Whoever is not back yet is not waited for: its session says when it is out.
            member.has_synced = member.joining.is_none();
            if let Some(call) = member.joining.take() {
                self.joining -= 1;
                self.touch(id, scope);
                let joined = self.joined(id, is_leader);
                scope.reply(call, Ok(Reply::Joined(Box::new(joined))));
            }
        }
        let at = scope.now.monotonic + self.rebalance_timeout();
        self.sync_timer.set(at, scope.timers, scope.group, || Alarm::Sync);
    }

    /// Makes sure that the leader is one who joined. False: there are members, and none of them did.
    fn elect(&mut self) -> bool {
        let has_joined = |id: &Name| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if self.members.is_empty() || self.leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        let joined = self.members.iter().find(|(_, member)| member.joining.is_some());
        match joined {
            Some((id, _)) => {
                self.leader = Some(id.clone());
                true
            }
            None => false,
        }
    }

    /// The protocol that all speak and most like best; of two, the first by name.
    pub(super) fn select_protocol(&self) -> Option<Name> {
        let is_common = |name: &Name| self.protocol_counts.get(name) == Some(&self.members.len());
        let mut votes: std::collections::BTreeMap<&Name, usize> = std::collections::BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| is_common(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().max().copied()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.clone())
    }

    fn joined(&self, id: &Name, with_members: bool) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let member = |(id, member): (&Name, &Member)| (id.clone(), member.instance.clone(), member.metadata(&protocol));
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skips_assignment: false,
            member: id.clone(),
            members: if with_members { self.members.iter().map(member).collect() } else { Vec::new() },
        }
    }

    fn write(&mut self, record: RawRecord, scope: &mut Scope<'_>) {
        self.has_record = true;
        scope.out.records.push(record);
    }
}

/// An id that nobody had: random, after the client's name for itself, as people know them from Kafka.
fn new_member_id(prefix: &str, scope: &mut Scope<'_>) -> Name {
    let is_whole = |end: &usize| prefix.is_char_boundary(*end);
    let prefix = &prefix[..(0..=prefix.len().min(PREFIX_BYTES_MAX)).rev().find(is_whole).unwrap_or(0)];
    format!("{prefix}-{}", uuid::Uuid::from_u128((scope.new_id)())).into()
}
