//! The new protocol (KIP-848): members say what they want by heartbeats, the coordinator assigns, and each member comes to what it is
//! to hold by itself: [`reconcile`]. Called by the shard, for one group at a time.
//!
//! A change of members, of what they want, or of the topics that they want, begins a new epoch of the group; for each epoch
//! partitions are assigned once ([`assignor`]), when the next heartbeat comes.
//!
//! What holds, beside what [`reconcile`] and [`assignor`] promise:
//!
//! - **EpochsGrow**: the epoch of a group, and that of its assignment, never retreats; a member's neither, while it is in.
//! - **FencedStaysOut**: who is no member, or at an epoch that the coordinator does not know it to be at, neither stays in nor commits.
//! - **StateIsReplayed**: whatever is known, but for sessions, is in the records.
//!
//! [`leave`] is how members go, [`census`] what all of them come to, [`subscription`] what the group wants, [`upgrade`] and [`classic_member`] the way from and to the
//! classic protocol.

pub(in crate::group) mod assignor;
mod census;
mod classic_member;
mod leave;
mod pattern;
mod questions;
mod reconcile;
mod records;
mod replay;
mod subscription;
mod upgrade;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::types::TimestampMs;
use ringlog_protocol::{ErrorCode, Uuid};

use super::classic::Scope;
use super::request::{Beat, ConsumerHeartbeat, Refusal};
use super::timer::{Alarm, Timer};
use super::usage::Charge;
use super::{Name, Settings, SmallMap, Usage};
use assignor::{Assignor, Subscriber};
use census::Census;
use pattern::Pattern;
use reconcile::{Held, Place, Progress};

/// What a member wants: topics by name, and by a pattern.
type Wish<'a> = (&'a [Name], Option<&'a Name>);

/// Partitions by topic.
pub type Partitions = SmallMap<Uuid, BTreeSet<i32>>;

/// The epoch of a member that joins.
const JOINS: i32 = 0;
/// The epoch of a static member that leaves to come back; any other that is negative leaves for good.
const LEAVES_FOR_NOW: i32 = -2;

/// What such a group takes beside any other.
pub(super) const CONSUMER_BYTES: usize = 576;
/// What a member takes beside what it sent.
const MEMBER_BYTES: usize = 768;
/// What a partition takes that somebody holds: in an assignment, in what is held, and its owner.
const PARTITION_BYTES: usize = 128;
/// What a topic takes of which somebody holds partitions: in the same places.
const TOPIC_BYTES: usize = 192;
/// What the name of a topic takes that a pattern matched.
const MATCH_BYTES: usize = 80;

/// An assignment that looks at no more than so many members, topics and partitions is made whenever it is due.
const ASSIGN_WORK_FREE: usize = 2_000;
/// After a larger one the next waits a millisecond for so many: at 0.2 µs each, a group takes no more than a twenty-fifth of a core.
const ASSIGN_WORK_PER_MS: usize = 200;
/// The longest that an assignment waits for that.
const ASSIGN_WAIT_MS_MAX: i64 = 15_000;

const MEMORY_IS_FULL: &str = "The groups take all the memory that they may (ringlog.group.memory.bytes).";

/// What is to be known of a member that speaks the classic protocol.
#[derive(Clone, Debug, PartialEq)]
struct ClassicClient {
    session_timeout: Duration,
    protocols: Vec<(Name, Bytes)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Member {
    instance: Option<Name>,
    rack: Option<Name>,
    client_id: Name,
    client_host: Name,
    rebalance_timeout_ms: i32,
    /// The topics that it wants by name, in order, each once.
    topics: Arc<[Name]>,
    /// A pattern of those that it wants too.
    regex: Option<Name>,
    assignor: Option<Name>,
    classic: Option<Box<ClassicClient>>,
    place: Place,
}

impl Member {
    fn bytes(&self, id: &str) -> usize {
        let length = |name: &Option<Name>| name.as_ref().map_or(0, |name| name.len());
        let topics: usize = self.topics.iter().map(|topic| topic.len() + MATCH_BYTES).sum();
        let protocols = self.classic.iter().flat_map(|classic| &classic.protocols);
        let protocols: usize = protocols.map(|(name, metadata)| name.len() + metadata.len() + 64).sum();
        // The id is in its seat, in the target, and with what it owns.
        let names = 3 * id.len() + self.client_id.len() + self.client_host.len();
        let optional = length(&self.instance) + length(&self.rack) + length(&self.regex) + length(&self.assignor);
        let optional = optional + if self.regex.is_some() { MATCH_BYTES } else { 0 };
        let held = [&self.place.assigned, &self.place.revoking].into_iter().flat_map(|held| held.values());
        let partitions: usize = held.map(SmallMap::len).sum();
        let held_topics = self.place.assigned.len() + self.place.revoking.len();
        MEMBER_BYTES + topics + protocols + names + optional + TOPIC_BYTES * held_topics + PARTITION_BYTES * partitions
    }

    /// What the record of what it says takes, or more.
    fn record_bytes(&self, id: &str, group: &str) -> usize {
        let length = |name: &Option<Name>| name.as_ref().map_or(0, |name| name.len());
        let topics: usize = self.topics.iter().map(|topic| topic.len() + 8).sum();
        let protocols = self.classic.iter().flat_map(|classic| &classic.protocols);
        let protocols: usize = protocols.map(|(name, metadata)| name.len() + metadata.len() + 16).sum();
        let optional = length(&self.instance) + length(&self.rack) + length(&self.regex) + length(&self.assignor);
        group.len() + id.len() + self.client_id.len() + self.client_host.len() + topics + protocols + optional + 256
    }

    /// Whether it wants this topic by its name.
    fn wants(&self, topic: &str) -> bool {
        self.topics.binary_search_by(|own| (**own).cmp(topic)).is_ok()
    }

    fn is_classic(&self) -> bool {
        self.classic.is_some()
    }

    /// The protocols of the classic protocol that it speaks, each once.
    fn spoken(&self) -> BTreeSet<&Name> {
        self.classic.iter().flat_map(|classic| &classic.protocols).map(|(name, _)| name).collect()
    }

    /// Whether the other counts for the same in a census.
    fn counts_as(&self, other: &Self) -> bool {
        let is_same = self.topics == other.topics && self.regex == other.regex;
        is_same && self.is_classic() == other.is_classic() && self.spoken() == other.spoken()
    }
}

/// A member with what is known of it for now only.
#[derive(Debug)]
struct Seat {
    member: Member,
    session: Timer,
    /// When it has to have given up what it is to give up; of a classic member, when it has to have joined again.
    revocation: Timer,
    /// When a classic member has to have asked for its part.
    sync: Timer,
    charge: Charge,
}

/// The topics that a pattern matched.
struct Resolved {
    topics: BTreeSet<Name>,
    /// Of which version of the topics; only its growing means something.
    version: i64,
    at: TimestampMs,
    /// The version of the topics with which it was matched; 0: of another life.
    matched_version: u64,
    /// The pattern as it is matched, since it was first.
    table: Option<Pattern>,
    /// Whether it is known not to be understood.
    is_refused: bool,
    charge: Charge,
}

impl Resolved {
    fn new(usage: &Usage) -> Self {
        let (topics, charge) = (BTreeSet::new(), usage.charge(0));
        Self { topics, version: 0, at: TimestampMs(0), matched_version: 0, table: None, is_refused: false, charge }
    }
}

/// A group of the new protocol.
pub(super) struct Consumer {
    epoch: i32,
    /// A hash over the topics that the group wants, as they were at its epoch.
    metadata_hash: i64,
    assignment_epoch: i32,
    /// When partitions were last assigned, by the clock of the wall; 0: not yet, or not known.
    assigned_at: TimestampMs,
    /// How many members, topics and partitions were looked at for that.
    assign_work: usize,
    seats: SmallMap<Name, Seat>,
    census: Census,
    /// The members that have an instance id, by that; see [`Consumer::set_instance`].
    statics: SmallMap<Name, Name>,
    /// What members are to hold.
    targets: SmallMap<Name, Partitions>,
    /// Who has a partition, or has not said that it gave it up.
    owners: SmallMap<(Uuid, i32), Name>,
    patterns: BTreeMap<Name, Resolved>,
    /// The hash of the topics that it wants, of which version of the topics; none where it may be another.
    hashed: Option<(i64, u64)>,
    /// The version of the topics with which patterns are matched, or were.
    patterns_version: u64,
    /// The next pattern to be matched with it.
    to_match: Option<Name>,
    /// When patterns may be matched with all topics again.
    patterns_from: Duration,
    /// The epoch at which it was too large to become a classic group.
    too_large_at: Cell<Option<i32>>,
    charge: Charge,
}

fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

impl Consumer {
    pub(super) fn new(usage: &Usage) -> Self {
        Self {
            epoch: 0,
            metadata_hash: 0,
            assignment_epoch: 0,
            assigned_at: TimestampMs(0),
            assign_work: 0,
            seats: SmallMap::new(),
            census: Census::default(),
            statics: SmallMap::new(),
            targets: SmallMap::new(),
            owners: SmallMap::new(),
            patterns: BTreeMap::new(),
            hashed: None,
            patterns_version: 0,
            to_match: None,
            patterns_from: Duration::ZERO,
            too_large_at: Cell::new(None),
            charge: usage.charge(CONSUMER_BYTES),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Kafka's name of the state.
    pub(super) fn state_name(&self) -> &'static str {
        if self.is_empty() {
            "Empty"
        } else if self.epoch > self.assignment_epoch {
            "Assigning"
        } else if self.seats.values().all(|seat| seat.member.place.is_at(self.assignment_epoch)) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// What a member sends all the time. When it is refused nothing has changed.
    pub(super) fn heartbeat(&mut self, beat: &ConsumerHeartbeat, scope: &mut Scope<'_>) -> Result<Beat, Refusal> {
        if beat.epoch < JOINS {
            return self.leave(beat, scope);
        }
        let is_join = beat.epoch == JOINS;
        let id = if beat.member.is_empty() { new_member_id(scope) } else { beat.member.clone() };
        let before = self.seat_of(&id, beat)?;
        let mut member = before.as_ref().map(|(_, member)| member.clone()).unwrap_or_default();
        update(&mut member, beat);
        self.check_room(&id, &member, scope.settings.consumer_group_size_max, scope)?;
        let pattern = self.new_pattern(member.regex.as_ref(), scope)?;

        // From here on nothing is refused.
        let replaced = before.as_ref().filter(|(holder, _)| *holder != id).map(|(holder, _)| holder.clone());
        if let Some(holder) = &replaced {
            self.replace(holder, &id, member.regex.as_ref(), scope);
        }
        let before = before.map(|(_, member)| member);
        let place_before = before.as_ref().map(|member| member.place.clone()).unwrap_or_default();
        let wanted_before = before.as_ref().map(|member| (member.topics.clone(), member.regex.clone())).unwrap_or_default();
        let has_changed_wish = wanted_before != (member.topics.clone(), member.regex.clone());
        self.take_in(&id, member, pattern, has_changed_wish, beat.owned.as_ref(), scope);

        let Some(seat) = self.seats.get(&id) else { return refuse(ErrorCode::UNKNOWN_MEMBER_ID, "the member is gone") };
        let place = &seat.member.place;
        let is_full = beat.rebalance_timeout_ms >= 0 && (beat.topics.is_some() || beat.regex.is_some()) && beat.owned.is_some();
        let is_new = !same_partitions(&place.assigned, &place_before.assigned);
        Ok(Beat {
            member: id,
            epoch: place.epoch,
            interval: ms(scope.config.consumer_heartbeat_interval_ms),
            assignment: (is_join || is_full || is_new).then(|| partitions_of(&place.assigned)),
        })
    }

    /// A member is as it says, the group follows, and the member comes closer to what it is to hold.
    fn take_in(
        &mut self,
        id: &Name,
        member: Member,
        pattern: Option<(Name, Pattern)>,
        has_changed_wish: bool,
        owned: Option<&Partitions>,
        scope: &mut Scope<'_>,
    ) {
        let regex_before = self.seats.get(id).and_then(|seat| seat.member.regex.clone());
        let has_changed = self.put(id, member, scope.usage);
        for regex in self.drop_patterns(regex_before.into_iter()) {
            scope.out.records.push(records::regex(scope.group, &regex, None));
        }
        if let Some((regex, pattern)) = pattern {
            self.take_pattern(regex, pattern, scope);
        }
        // The epoch is written first: what follows is assigned anew, if only that is in the log.
        self.follow_topics(has_changed_wish, scope);
        if let Some(seat) = self.seats.get(id).filter(|_| has_changed) {
            scope.out.records.push(records::member(scope.group, id, Some(&seat.member)));
        }
        self.assign(scope);
        self.reconcile(id, owned, scope);
        self.touch(id, scope);
    }

    /// The member that a heartbeat comes from, under the id that it has; none for a new one.
    fn seat_of(&self, id: &Name, beat: &ConsumerHeartbeat) -> Result<Option<(Name, Member)>, Refusal> {
        let is_join = beat.epoch == JOINS;
        let holder = match &beat.instance {
            None => id,
            Some(instance) => match self.statics.get(instance) {
                None if is_join => id,
                None => return refuse(ErrorCode::UNKNOWN_MEMBER_ID, format!("Instance id {instance} is unknown.")),
                Some(holder) if holder == id => holder,
                Some(holder) if !is_join => {
                    let message = format!("Static member {id} with instance id {instance} was fenced by member {holder}.");
                    return refuse(ErrorCode::FENCED_INSTANCE_ID, message);
                }
                Some(holder) => {
                    let is_released = self
                        .seats
                        .get(holder)
                        .is_none_or(|seat| seat.member.is_classic() || seat.member.place.epoch == LEAVES_FOR_NOW);
                    if !is_released {
                        let message = format!(
                            "Static member {id} with instance id {instance} cannot join the group because the instance id is owned by {holder} member."
                        );
                        return refuse(ErrorCode::UNRELEASED_INSTANCE_ID, message);
                    }
                    holder
                }
            },
        };
        let Some(seat) = self.seats.get(holder) else {
            if is_join {
                return Ok(None);
            }
            return refuse(ErrorCode::UNKNOWN_MEMBER_ID, format!("Member {id} is not a member of the group."));
        };
        if holder == id {
            check_epoch(&seat.member.place, beat)?;
        }
        let mut member = seat.member.clone();
        if member.place.epoch == LEAVES_FOR_NOW || holder != id {
            (member.place.epoch, member.place.previous_epoch) = (JOINS, JOINS);
        }
        Ok(Some((holder.clone(), member)))
    }

    /// Whether there is room for a member as it would be.
    fn check_room(&self, id: &Name, member: &Member, members_max: usize, scope: &Scope<'_>) -> Result<(), Refusal> {
        let before = self.seats.get(id);
        if before.is_none() && self.seats.len() >= members_max {
            let message = format!("The consumer group has reached its maximum capacity of {members_max} members.");
            return refuse(ErrorCode::GROUP_MAX_SIZE_REACHED, message);
        }
        let is_new = |topic: &&Name| before.is_none_or(|before| !before.member.wants(topic));
        let partitions_of = |(_, count): (Uuid, i32)| usize::try_from(count).unwrap_or(0);
        let wanted = || member.topics.iter().filter_map(|topic| scope.topics.by_name(topic)).map(partitions_of);
        // With its id, and when it got each partition.
        let held_bytes = || wanted().map(|partitions| 32 + 8 * partitions).sum();
        let held_bytes: usize = if member.topics.iter().any(|topic| is_new(&topic)) { held_bytes() } else { 0 };
        if member.record_bytes(id, scope.group).max(held_bytes) > scope.record_bytes_max {
            let message = format!("The member takes more than the {} bytes of a record.", scope.record_bytes_max);
            return refuse(ErrorCode::INVALID_REQUEST, message);
        }
        let had_bytes = before.map_or(0, |seat| seat.member.bytes(id));
        let new_topics = member.topics.iter().filter(is_new).filter_map(|topic| scope.topics.by_name(topic));
        let partitions: usize = new_topics.filter(|(topic, _)| !self.owners.contains_key(&(*topic, 0))).map(partitions_of).sum();
        let more = (member.bytes(id) + partitions * 2 * PARTITION_BYTES).saturating_sub(had_bytes);
        if more > 0 && scope.usage.bytes() + more > scope.settings.memory_bytes_max {
            return refuse(ErrorCode::GROUP_MAX_SIZE_REACHED, MEMORY_IS_FULL);
        }
        Ok(())
    }

    /// Takes a member in, or what is new of it. Says whether anything is.
    fn put(&mut self, id: &Name, member: Member, usage: &Usage) -> bool {
        if self.seats.get(id).is_some_and(|seat| seat.member == member) {
            return false;
        }
        self.seat(id, member, usage);
        true
    }

    fn seat(&mut self, id: &Name, member: Member, usage: &Usage) {
        let instance = member.instance.clone();
        let seat = self.seats.get_or_insert_with(id.clone(), || Seat {
            member: Member::default(),
            session: Timer::default(),
            revocation: Timer::default(),
            sync: Timer::default(),
            charge: usage.charge(0),
        });
        seat.charge.set(member.bytes(id));
        let before = std::mem::replace(&mut seat.member, member);
        if !before.counts_as(&seat.member) {
            // What is new is counted before what was, which may be the same.
            let has_new = self.census.add(&seat.member);
            if self.census.remove(&before) | has_new {
                self.hashed = None;
            }
        }
        self.set_instance(id, before.instance.as_ref(), instance.as_ref());
    }

    /// A member has this instance id instead of that; whoever had it has none any more, as in a log that lost the end of one for
    /// which another came. So a member that says that it has an instance id is the one that is known by it, live and replayed.
    fn set_instance(&mut self, id: &Name, before: Option<&Name>, instance: Option<&Name>) {
        if before == instance {
            return;
        }
        if let Some(before) = before {
            let holder = self.statics.remove(before);
            assert!(holder.as_ref() == Some(id), "an instance id is its member's");
        }
        let Some(instance) = instance else { return };
        let Some(other) = self.statics.insert(instance.clone(), id.clone()) else { return };
        if let Some(seat) = self.seats.get_mut(&other) {
            seat.member.instance = None;
            seat.charge.set(seat.member.bytes(&other));
        }
    }

    /// Takes a member's seat away, what it held and was counted for, and its instance id.
    fn unseat(&mut self, id: &Name) -> Option<Seat> {
        let seat = self.seats.remove(id)?;
        release(&mut self.owners, id, &seat.member.place);
        self.set_instance(id, seat.member.instance.as_ref(), None);
        if self.census.remove(&seat.member) {
            self.hashed = None;
        }
        Some(seat)
    }

    fn begin_epoch(&mut self, metadata_hash: i64, scope: &mut Scope<'_>) {
        self.epoch = self.epoch.saturating_add(1);
        self.metadata_hash = metadata_hash;
        scope.out.records.push(records::group(scope.group, Some((self.epoch, metadata_hash))));
    }

    /// Says who is to hold what at the group's epoch, if that was not done yet and is not to wait (KIP-1263).
    fn assign(&mut self, scope: &mut Scope<'_>) {
        if self.epoch <= self.assignment_epoch || self.is_to_wait(scope) {
            return;
        }
        let assignor = self.assignor(scope.settings);
        let mut topics = BTreeMap::new();
        let mut wishes: BTreeMap<Wish<'_>, Rc<BTreeSet<Uuid>>> = BTreeMap::new();
        // As Kafka's: first those with an instance id, which have their place by that also under a new id, then the others by theirs.
        let places = self.seats.iter().map(|(id, seat)| {
            let instance = seat.member.instance.as_ref();
            (instance.is_none(), instance.unwrap_or(id), id)
        });
        let mut order: Vec<(bool, &Name, &Name)> = places.collect();
        order.sort_unstable();
        let subscriber = |(_, _, id): (bool, &Name, &'_ Name)| {
            let Some((id, seat)) = self.seats.get_key_value(id) else { unreachable!("it is a member") };
            let wish = wishes.entry((&seat.member.topics, seat.member.regex.as_ref())).or_insert_with(|| {
                let found = self.wanted_by(&seat.member).filter_map(|name| scope.topics.by_name(name));
                let wanted = found.map(|(topic, count)| {
                    topics.insert(topic, count);
                    topic
                });
                Rc::new(wanted.collect())
            });
            Subscriber { id, topics: wish.clone(), before: self.targets.get(id) }
        };
        let subscribers: Vec<Subscriber<'_>> = order.into_iter().map(subscriber).collect();
        let partitions: usize = topics.values().map(|count| usize::try_from(*count).unwrap_or(0)).sum();
        let each_topic = match wishes.len() {
            0 | 1 if assignor == Assignor::Uniform => topics.len(),
            _ => subscribers.iter().map(|subscriber| subscriber.topics.len()).sum(),
        };
        let work = subscribers.len() + each_topic + partitions;
        let assigned = assignor.assign(&subscribers, &topics);
        let changed: Vec<(Name, Partitions)> = subscribers
            .iter()
            .zip(assigned)
            .filter(|(subscriber, target)| subscriber.before != Some(target))
            .map(|(subscriber, target)| (subscriber.id.clone(), target))
            .collect();
        for (id, target) in changed {
            scope.out.records.push(records::target(scope.group, &id, Some(&target)));
            self.targets.insert(id, target);
        }
        self.assignment_epoch = self.epoch;
        self.assigned_at = scope.now.wall;
        self.assign_work = work;
        scope.out.work += work;
        self.charge_targets();
        scope.out.records.push(records::assignment_epoch(scope.group, Some((self.epoch, self.assigned_at))));
        tracing::debug!(group = %scope.group, epoch = self.epoch, members = self.seats.len(), assignor = assignor.name(), "assigned");
    }

    pub(super) fn charge_targets(&mut self) {
        let targets = self.targets.values().flat_map(SmallMap::values).map(BTreeSet::len).sum::<usize>();
        self.charge.set(CONSUMER_BYTES + targets * 32);
    }

    /// Whether the last assignment is so recent that the next one waits, for more changes to go with it: for as long as the group's
    /// configuration says, and longer where it was much work. Not where the clock went back behind it: that could be long.
    fn is_to_wait(&self, scope: &Scope<'_>) -> bool {
        let work_ms = match self.assign_work {
            0..=ASSIGN_WORK_FREE => 0,
            work => i64::try_from(work / ASSIGN_WORK_PER_MS).unwrap_or(i64::MAX).min(ASSIGN_WAIT_MS_MAX),
        };
        let interval = work_ms.max(i64::from(scope.config.consumer_assignment_interval_ms));
        let since = scope.now.wall.0.saturating_sub(self.assigned_at.0);
        self.assigned_at.0 != 0 && (0..interval).contains(&since)
    }

    /// The assignor that most members want; of two, the first by name; without a wish, the first that the broker has.
    fn assignor(&self, settings: &Settings) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for seat in self.seats.values() {
            let wish = seat.member.assignor.as_deref().and_then(Assignor::named);
            if let Some(wish) = wish.filter(|wish| settings.consumer_assignors.contains(wish)) {
                *votes.entry(wish).or_default() += 1;
            }
        }
        let most = votes.values().max().copied();
        let wanted = votes.into_iter().find(|(_, count)| Some(*count) == most).map(|(assignor, _)| assignor);
        wanted.or_else(|| settings.consumer_assignors.first().copied()).unwrap_or(Assignor::Uniform)
    }

    /// Lets a member come closer to what it is to hold. `owned` is what it says it holds.
    fn reconcile(&mut self, id: &Name, owned: Option<&Partitions>, scope: &mut Scope<'_>) {
        let Some(seat) = self.seats.get(id).filter(|seat| !seat.member.place.is_at(self.assignment_epoch)) else { return };
        let nothing = Partitions::new();
        let target = self.targets.get(id).unwrap_or(&nothing);
        let is_free = |topic, partition| self.owners.get(&(topic, partition)).is_none_or(|owner| owner == id);
        let next = seat.member.place.next(self.assignment_epoch, target, owned, is_free);
        if next == seat.member.place {
            return;
        }
        scope.out.records.push(records::place(scope.group, id, Some(&next)));
        self.move_to(id, next);
        let Some(seat) = self.seats.get_mut(id) else { return };
        if seat.member.place.progress == Progress::Revoking {
            let timeout = Duration::from_millis(u64::try_from(seat.member.rebalance_timeout_ms).unwrap_or(0));
            let at = scope.now.monotonic + timeout;
            seat.revocation.set(at, scope.timers, scope.group, || Alarm::Revocation(id.clone()));
        } else {
            seat.revocation.clear();
        }
    }

    /// The member is in another place, and what it holds is its.
    fn move_to(&mut self, id: &Name, place: Place) {
        let Some(seat) = self.seats.get_mut(id) else { return };
        release(&mut self.owners, id, &seat.member.place);
        for (topic, partition) in all_of(&place) {
            self.owners.insert((topic, partition), id.clone());
        }
        seat.member.place = place;
        seat.charge.set(seat.member.bytes(id));
    }

    /// Begins a member's session anew.
    fn touch(&mut self, id: &Name, scope: &mut Scope<'_>) {
        if let Some(seat) = self.seats.get_mut(id) {
            let classic = seat.member.classic.as_ref();
            let timeout = classic.map_or(ms(scope.config.consumer_session_timeout_ms), |classic| classic.session_timeout);
            seat.session.set(scope.now.monotonic + timeout, scope.timers, scope.group, || Alarm::ConsumerSession(id.clone()));
        }
    }

    /// Members did not do in time what they have to do.
    pub(super) fn ring(&mut self, alarms: &[Alarm], scope: &mut Scope<'_>) {
        for alarm in alarms {
            tracing::debug!(group = %scope.group, ?alarm, "a member did not do in time what it has to do");
        }
        let ids: Vec<Name> = alarms.iter().filter_map(Alarm::consumer).cloned().collect();
        self.remove(&ids, scope);
    }
}

/// What a heartbeat says anew of a member.
fn update(member: &mut Member, beat: &ConsumerHeartbeat) {
    if beat.instance.is_some() {
        member.instance.clone_from(&beat.instance);
    }
    if beat.rack.is_some() {
        member.rack.clone_from(&beat.rack);
    }
    if beat.rebalance_timeout_ms >= 0 {
        member.rebalance_timeout_ms = beat.rebalance_timeout_ms;
    }
    if let Some(topics) = &beat.topics {
        member.topics = topics.iter().cloned().collect();
    }
    if let Some(regex) = &beat.regex {
        member.regex = Some(regex.clone()).filter(|regex| !regex.is_empty());
    }
    if beat.assignor.is_some() {
        member.assignor.clone_from(&beat.assignor);
    }
    if member.client_id != beat.client_id {
        member.client_id = beat.client_id.clone();
    }
    if member.client_host != beat.client_host {
        member.client_host = beat.client_host.clone();
    }
    member.classic = None;
}

/// Whether a member may be at the epoch that it names: the one it is at, or the one before where it may not have heard of the last.
fn check_epoch(place: &Place, beat: &ConsumerHeartbeat) -> Result<(), Refusal> {
    if beat.epoch == JOINS || beat.epoch == place.epoch {
        return Ok(());
    }
    let (relation, known) = (if beat.epoch > place.epoch { "greater" } else { "smaller" }, place.epoch);
    let holds_no_more = |owned: &Partitions| {
        let holds = |topic, partition| place.assigned.get(topic).is_some_and(|held| held.contains_key(partition));
        owned.iter().all(|(topic, partitions)| partitions.iter().all(|partition| holds(topic, partition)))
    };
    if beat.epoch < known && beat.epoch == place.previous_epoch && beat.owned.as_ref().is_some_and(holds_no_more) {
        return Ok(());
    }
    refuse(
        ErrorCode::FENCED_MEMBER_EPOCH,
        format!(
            "The consumer group member has a {relation} member epoch ({}) than the one known by the group coordinator ({known}). \
             The member must abandon all its partitions and rejoin.",
            beat.epoch
        ),
    )
}

fn all_of(place: &Place) -> impl Iterator<Item = (Uuid, i32)> + '_ {
    let held = place.assigned.iter().chain(&place.revoking);
    held.flat_map(|(topic, partitions)| partitions.keys().map(|partition| (*topic, *partition)))
}

/// What a member holds is not its any more. What somebody else has by now stays.
fn release(owners: &mut SmallMap<(Uuid, i32), Name>, id: &Name, place: &Place) {
    for at in all_of(place) {
        if owners.get(&at) == Some(id) {
            owners.remove(&at);
        }
    }
}

fn partitions_of(held: &Held) -> Partitions {
    held.iter().map(|(topic, partitions)| (*topic, partitions.keys().copied().collect())).collect()
}

fn same_partitions(one: &Held, other: &Held) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((topic, one), (other_topic, other))| topic == other_topic && one.keys().eq(other.keys()))
}

/// Topics as a member has them.
fn in_order(topics: impl Iterator<Item = Name>) -> Arc<[Name]> {
    let topics: BTreeSet<Name> = topics.collect();
    topics.into_iter().collect()
}

fn ms(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn new_member_id(scope: &mut Scope<'_>) -> Name {
    uuid::Uuid::from_u128((scope.new_id)()).to_string().into()
}
