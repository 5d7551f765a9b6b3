//! Members that speak the classic protocol in a group of the new one, as it is while a group goes from one to the other. To them it
//! looks like a classic group whose leader is somebody else: they join, ask for their part, and are told by heartbeats when to join
//! again. The others see members like themselves.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use ringlog_protocol::consumer_protocol::{
    AssignedTopicPartition, ConsumerProtocolAssignment, ConsumerProtocolSubscription, PROTOCOL_TYPE,
};
use ringlog_protocol::{Encoder, ErrorCode, Payload};

use super::reconcile::{Held, Progress};
use super::{ClassicClient, Consumer, JOINS, Member, Partitions, in_order, new_member_id};
use crate::group::classic::Scope;
use crate::group::request::{Identity, Join, Joined, Leaver, Reply, Sync, Synced};
use crate::group::timer::Alarm;
use crate::group::topics::TopicView;
use crate::group::{Name, SmallMap};

/// The newest version of what consumers tell each other.
const CONSUMER_VERSION_MAX: i16 = 3;

impl Consumer {
    /// JoinGroup. Answered at once: nobody is waited for.
    pub(in crate::group) fn classic_join(&mut self, join: Join, scope: &mut Scope<'_>) -> Result<Reply, ErrorCode> {
        if !scope.settings.allows_upgrade && !scope.settings.allows_downgrade {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        if !self.speaks_classic(&join) {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        let is_new = join.member.is_empty();
        let id = if is_new { new_member_id(scope) } else { join.member.clone() };
        let holder = match join.instance.as_ref().map(|instance| self.statics.get(instance)) {
            None => id.clone(),
            Some(None) if is_new => id.clone(),
            Some(None) => return Err(ErrorCode::UNKNOWN_MEMBER_ID),
            Some(Some(holder)) if !is_new && *holder != id => return Err(ErrorCode::FENCED_INSTANCE_ID),
            Some(Some(holder)) => holder.clone(),
        };
        if is_new && join.instance.is_none() && join.requires_member_id {
            return Ok(Reply::MemberIdRequired(id));
        }
        let wish = join.protocols.first().map(|(_, metadata)| metadata.clone()).unwrap_or_default();
        let wish = ConsumerProtocolSubscription::from_metadata(&wish).map_err(|_| ErrorCode::INCONSISTENT_GROUP_PROTOCOL)?;
        let mut owned = Partitions::new();
        for topic in &wish.owned_partitions {
            if let Some((id, _)) = scope.topics.by_name(&topic.topic) {
                owned.get_or_default(id).extend(&topic.partitions);
            }
        }
        let before = self.seats.get(&holder).map(|seat| seat.member.clone());
        let mut member = before.clone().unwrap_or_default();
        if holder != id || member.place.epoch < JOINS {
            (member.place.epoch, member.place.previous_epoch) = (JOINS, JOINS);
        }
        update(&mut member, &join, &wish);
        if let Err(refusal) = self.check_room(&id, &member, scope.settings.consumer_group_size_max, scope) {
            // A member that is in stays, and comes again.
            let waits = refusal.code == ErrorCode::GROUP_MAX_SIZE_REACHED && self.seats.contains_key(&id);
            return Err(if waits { ErrorCode::COORDINATOR_NOT_AVAILABLE } else { refusal.code });
        }

        // From here on nothing is refused.
        if holder != id && before.is_some() {
            self.replace(&holder, &id, None, scope);
        }
        let wanted = |member: &Member| (member.topics.clone(), member.regex.clone());
        let has_changed_wish = before.as_ref().map(wanted).unwrap_or_default() != wanted(&member);
        self.take_in(&id, member, None, has_changed_wish, Some(&owned), scope);

        let Some(seat) = self.seats.get_mut(&id) else { return Err(ErrorCode::UNKNOWN_MEMBER_ID) };
        if seat.member.place.progress != Progress::Revoking {
            seat.revocation.clear();
        }
        let at = scope.now.monotonic + rebalance_timeout(&seat.member);
        seat.sync.set(at, scope.timers, scope.group, || Alarm::ConsumerSync(id.clone()));
        let protocol = seat.member.classic.as_ref().and_then(|classic| classic.protocols.first()).map(|(name, _)| name.clone());
        Ok(Reply::Joined(Box::new(Joined {
            generation: seat.member.place.epoch,
            protocol_type: Some(PROTOCOL_TYPE.into()),
            protocol,
            leader: Name::default(),
            skips_assignment: false,
            member: id,
            members: Vec::new(),
        })))
    }

    /// Whether it is a consumer that speaks what all classic members do.
    fn speaks_classic(&self, join: &Join) -> bool {
        let own = self.seats.get(&join.member).map(|seat| &seat.member);
        let is_common = join.protocols.iter().any(|(name, _)| self.census.is_common(name, own));
        *join.protocol_type == *PROTOCOL_TYPE && is_common
    }

    /// SyncGroup: what the member holds by now, in the bytes that a leader would have made.
    pub(in crate::group) fn classic_sync(&mut self, sync: &Sync, scope: &mut Scope<'_>) -> Result<Reply, ErrorCode> {
        let id = self.check_classic(&sync.identity)?;
        let (due_epoch, seat) = (self.due_epoch(scope), self.seats.get_mut(&id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?);
        let classic = seat.member.classic.as_ref().ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        let Some((protocol, metadata)) = classic.protocols.first().cloned() else { return Err(ErrorCode::UNKNOWN_MEMBER_ID) };
        let is_other_type = sync.protocol_type.as_deref().is_some_and(|name| name != PROTOCOL_TYPE);
        if is_other_type || sync.protocol.as_ref().is_some_and(|name| *name != protocol) {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        if due_epoch > seat.member.place.epoch && seat.member.place.progress != Progress::Revoking {
            self.await_join(&id, scope);
            return Err(ErrorCode::REBALANCE_IN_PROGRESS);
        }
        seat.sync.clear();
        let assignment = assignment_bytes(&seat.member.place.assigned, &metadata, scope.topics);
        self.touch(&id, scope);
        Ok(Reply::Synced(Synced { protocol_type: Some(PROTOCOL_TYPE.into()), protocol: Some(protocol), assignment }))
    }

    /// Heartbeat: whether the member is to join again.
    pub(in crate::group) fn classic_heartbeat(&mut self, identity: &Identity, scope: &mut Scope<'_>) -> Result<Reply, ErrorCode> {
        let id = self.check_classic(identity)?;
        self.touch(&id, scope);
        let place = &self.seats.get(&id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?.member.place;
        let due_epoch = self.due_epoch(scope);
        let is_behind = match place.progress {
            Progress::Revoking => true,
            Progress::Waiting => place.epoch < due_epoch || !self.waits_for_others(&id, &place.assigned),
            Progress::Stable => place.epoch < due_epoch,
        };
        if is_behind {
            self.await_join(&id, scope);
            return Err(ErrorCode::REBALANCE_IN_PROGRESS);
        }
        Ok(Reply::Alive)
    }

    /// The epoch to which a member comes by joining again: the group's, unless its assignment is to wait.
    fn due_epoch(&self, scope: &Scope<'_>) -> i32 {
        if self.is_to_wait(scope) { self.assignment_epoch } else { self.epoch }
    }

    /// Whether any of what a member is to get is still somebody else's: joining again costs it more than waiting for all.
    fn waits_for_others(&self, id: &Name, assigned: &Held) -> bool {
        let target = self.targets.get(id).into_iter().flatten();
        let mut targets = target.flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)));
        targets.any(|(topic, partition)| {
            let is_here = assigned.get(&topic).is_some_and(|held| held.contains_key(&partition));
            !is_here && self.owners.get(&(topic, partition)).is_some_and(|owner| owner != id)
        })
    }

    /// LeaveGroup: what becomes of each.
    pub(in crate::group) fn classic_leave(&mut self, leavers: &[Leaver], scope: &mut Scope<'_>) -> Vec<ErrorCode> {
        let mut gone: BTreeSet<Name> = BTreeSet::new();
        let codes = leavers.iter().map(|leaver| {
            let id = match leaver.instance.as_ref().map(|instance| self.statics.get(instance)) {
                None => &leaver.member,
                Some(None) => return ErrorCode::UNKNOWN_MEMBER_ID,
                Some(Some(holder)) if !leaver.member.is_empty() && *holder != leaver.member => {
                    return ErrorCode::FENCED_INSTANCE_ID;
                }
                Some(Some(holder)) => holder,
            };
            // Of either protocol: tools take out any member so.
            if !self.seats.contains_key(id) {
                return ErrorCode::UNKNOWN_MEMBER_ID;
            }
            gone.insert(id.clone());
            ErrorCode::NONE
        });
        let codes = codes.collect();
        self.remove(&gone.into_iter().collect::<Vec<_>>(), scope);
        codes
    }

    /// The classic member that somebody says to be, at its epoch.
    fn check_classic(&self, identity: &Identity) -> Result<Name, ErrorCode> {
        if let Some(instance) = &identity.instance {
            match self.statics.get(instance) {
                None => return Err(ErrorCode::UNKNOWN_MEMBER_ID),
                Some(holder) if *holder != identity.member => return Err(ErrorCode::FENCED_INSTANCE_ID),
                Some(_) => {}
            }
        }
        let member = &self.seats.get(&identity.member).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?.member;
        if !member.is_classic() {
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        if identity.generation != member.place.epoch {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        Ok(identity.member.clone())
    }

    /// A member was told to join again: it has its rebalance timeout for that.
    fn await_join(&mut self, id: &Name, scope: &mut Scope<'_>) {
        let Some(seat) = self.seats.get_mut(id).filter(|seat| !seat.revocation.is_set()) else { return };
        let at = scope.now.monotonic + rebalance_timeout(&seat.member);
        seat.revocation.set(at, scope.timers, scope.group, || Alarm::Revocation(id.clone()));
    }
}

fn rebalance_timeout(member: &Member) -> Duration {
    Duration::from_millis(u64::try_from(member.rebalance_timeout_ms).unwrap_or(0))
}

fn update(member: &mut Member, join: &Join, wish: &ConsumerProtocolSubscription<'_>) {
    if join.instance.is_some() {
        member.instance.clone_from(&join.instance);
    }
    if let Some(rack) = &wish.rack_id {
        member.rack = Some(Name::from(&**rack)).filter(|rack| !rack.is_empty());
    }
    member.rebalance_timeout_ms = i32::try_from(join.rebalance_timeout.as_millis()).unwrap_or(i32::MAX);
    member.topics = in_order(wish.topics.iter().map(|topic| Name::from(&**topic)));
    member.regex = None;
    member.client_id = join.client_id.clone();
    member.client_host = join.client_host.clone();
    let classic = ClassicClient { session_timeout: join.session_timeout, protocols: join.protocols.clone() };
    member.classic = Some(Box::new(classic));
}

/// What a leader would tell a member that holds this, in the version in which the member speaks.
pub(super) fn assignment_bytes(held: &Held, metadata: &[u8], topics: &dyn TopicView) -> Bytes {
    let version = metadata.first_chunk().map_or(0, |version| i16::from_be_bytes(*version)).clamp(0, CONSUMER_VERSION_MAX);
    let topic = |(id, partitions): (&ringlog_protocol::Uuid, &SmallMap<i32, i32>)| {
        let name = topics.name_of(*id)?;
        Some(AssignedTopicPartition { topic: Cow::Owned(name.to_string()), partitions: partitions.keys().copied().collect() })
    };
    let assignment = ConsumerProtocolAssignment { assigned_partitions: held.iter().filter_map(topic).collect(), user_data: None };
    let mut encoder = Encoder::new();
    assignment.encode(&mut encoder, version);
    encoder.into_buffer().into()
}
