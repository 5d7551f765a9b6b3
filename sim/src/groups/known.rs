//! What clients know of groups, and so what has to hold; a part of the [`Model`]. Pure: clients tell it what they do and hear, and it
//! panics, with the invariant's name first, where an answer cannot be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ask::all_partitions;
use super::offsets::{For, NOTHING, Register, Write};
use crate::model::{Existence, Model, Topic};

/// What its members speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JoinGroup, SyncGroup and Heartbeat.
    Classic,
    /// ConsumerGroupHeartbeat (KIP-848).
    Consumer,
    /// It has no members, only offsets.
    Simple,
    /// Now this, now that, and both at once.
    Mixed,
}

/// What a member holds: topic id and partition.
pub type Held = BTreeSet<([u8; 16], i32)>;

/// A member of the new protocol, or of a mixed group, as far as it was told itself.
#[derive(Clone, Debug)]
pub struct Holder {
    /// What it holds, by what it was told and has not given up.
    pub held: Held,
    /// When the last heartbeat was sent that was answered well.
    pub steady: Duration,
    /// Since when it may be that it is to give something up, and has not.
    pub exposed: Option<Duration>,
    /// How long it may be silent.
    pub session: Duration,
    /// How long it may take to give partitions up.
    pub rebalance: Duration,
}

impl Holder {
    /// Whether the coordinator cannot have put it out by now.
    #[must_use]
    pub fn is_safe(&self, now: Duration) -> bool {
        now < self.steady + self.session && self.exposed.is_none_or(|since| now < since + self.rebalance)
    }
}

/// A group.
pub struct Group {
    /// Its name.
    pub name: String,
    /// What its members speak.
    pub kind: Kind,
    /// Grows when it may be another group of that name.
    era: u64,
    /// The newest generation of which a member got its part, or the newest epoch of a member: the log has it.
    logged: i32,
    /// The newest generation that a member heard of in this life. A crash may take it back.
    joined: i32,
    /// Who got what in a generation.
    owners: BTreeMap<(i32, String, i32), String>,
    /// Members that left in this life. A crash may bring them back until their sessions end.
    left: BTreeSet<String>,
    /// Members that are out for good.
    out: BTreeSet<String>,
    /// Members of the new protocol; in a mixed group those of the classic one too that got their part.
    pub holders: BTreeMap<String, Holder>,
    /// Whether it may be there.
    may_exist: bool,
    /// How often something was asked that may make it.
    touched: u64,
    /// How much of that is unanswered.
    unanswered: u64,
}

/// What was known of a group when something was asked.
#[derive(Clone, Copy, Debug)]
pub struct AtSend {
    /// When that was.
    pub sent: Duration,
    era: u64,
    logged: i32,
    joined: i32,
}

/// A commit that was sent: the register and the write.
pub type Sent = ((usize, String, i32), u64);

/// A deletion of a group that was sent.
pub struct Deletion {
    writes: Vec<Sent>,
    sent: Duration,
    touched: u64,
    is_alone: bool,
    logged: i32,
    owners: BTreeMap<(i32, String, i32), String>,
}

/// All groups.
#[derive(Default)]
pub struct Known {
    /// See [`Group`].
    pub all: Vec<Group>,
    offsets: BTreeMap<(usize, String, i32), Register>,
    /// How long offsets are kept, where that is not for ever.
    pub retention_ms: Option<i64>,
    /// The latest that the wall clock ever was.
    pub wall_ms_max: i64,
    /// Whether the topic of the groups is there for certain.
    pub has_topic: bool,
    /// Offsets whose commit was acknowledged.
    pub committed_count: u64,
    /// Generations and members' epochs that somebody came to.
    pub rebalanced_count: u64,
    /// How often a member changed its protocol.
    pub changed_count: u64,
    next_offset: i64,
}

fn may_vanish(topics: &[Topic], retention_ms: Option<i64>, wall_ms_max: i64, write: &Write) -> bool {
    let Some(For { topic, is_by_id }) = write.of else { return false };
    let is_over = retention_ms.is_some_and(|retention_ms| wall_ms_max.saturating_sub(write.wall_ms) >= retention_ms);
    let may_go = |other: &Topic| other.name == topics[topic].name && other.is_deletion_asked;
    is_over || topics[topic..].iter().take(if is_by_id { 1 } else { usize::MAX }).any(may_go)
}

impl Known {
    /// Another group.
    pub fn add(&mut self, name: String, kind: Kind) {
        self.all.push(Group {
            name,
            kind,
            era: 0,
            logged: 0,
            joined: 0,
            owners: BTreeMap::new(),
            left: BTreeSet::new(),
            out: BTreeSet::new(),
            holders: BTreeMap::new(),
            may_exist: false,
            touched: 0,
            unanswered: 0,
        });
    }

    /// A mixed group that everybody may be out of is another one once somebody comes. It is looked at before anything changes that is
    /// known of its members, so that no such moment is missed.
    pub fn look(&mut self, group: usize, now: Duration) {
        let group = &mut self.all[group];
        if group.kind == Kind::Mixed && !group.holders.values().any(|holder| holder.is_safe(now)) {
            group.begin_anew();
        }
    }

    /// What is known of a group now.
    pub fn at_send(&mut self, group: usize, now: Duration) -> AtSend {
        self.look(group, now);
        let Group { era, logged, joined, .. } = self.all[group];
        AtSend { sent: now, era, logged, joined }
    }

    /// Something is asked that may make the group.
    pub fn touch(&mut self, group: usize) {
        let group = &mut self.all[group];
        (group.may_exist, group.touched, group.unanswered) = (true, group.touched + 1, group.unanswered + 1);
    }

    /// It was answered.
    pub fn touched(&mut self, group: usize) {
        self.all[group].unanswered -= 1;
    }

    /// The wall clock was at this time.
    pub fn see_wall(&mut self, wall_ms: i64) {
        self.wall_ms_max = self.wall_ms_max.max(wall_ms);
    }

    /// The broker is gone, and with it what was on its way.
    pub fn end_of_life(&mut self, now: Duration) {
        self.offsets.values_mut().for_each(|register| register.end_of_life(now));
        for group in &mut self.all {
            group.joined = group.logged;
            group.left.clear();
            group.unanswered = 0;
        }
    }

    /// A member of the classic protocol left, and was told so.
    pub fn left(&mut self, group: usize, member: &str) {
        self.all[group].left.insert(member.to_owned());
    }

    /// A member of the new protocol is out for good, or until it joins again.
    pub fn out(&mut self, group: usize, member: &str) {
        self.all[group].out.insert(member.to_owned());
        self.all[group].holders.remove(member);
    }

    /// Whether it is out.
    #[must_use]
    pub fn is_out(&self, group: usize, member: &str) -> bool {
        self.all[group].out.contains(member)
    }

    /// A member of the classic protocol got its part of a mixed group.
    pub fn holds(&mut self, group: usize, member: &str, holder: Holder, now: Duration, who: &str) {
        self.look(group, now);
        for at in &holder.held {
            if let Some(rival) = self.rival(group, member, *at, now) {
                panic!("OneOwner: {who} gets partition {} of {:02x?}, which {rival} holds", at.1, &at.0[..2]);
            }
        }
        self.all[group].holders.insert(member.to_owned(), holder);
    }

    /// A member of the new protocol asks to come in.
    pub fn joins(&mut self, group: usize, member: &str) {
        self.all[group].out.remove(member);
    }

    /// Another member that holds the partition and cannot have been put out.
    #[must_use]
    pub fn rival(&self, group: usize, member: &str, at: ([u8; 16], i32), now: Duration) -> Option<&str> {
        let mut holders = self.all[group].holders.iter();
        let is_rival = |(id, holder): &(&String, &Holder)| *id != member && holder.held.contains(&at) && holder.is_safe(now);
        holders.find(is_rival).map(|(id, _)| id.as_str())
    }

    /// The same for several.
    #[must_use]
    pub fn rivals(&self, group: usize, member: &str, ats: &[([u8; 16], i32)], now: Duration) -> Vec<Option<String>> {
        ats.iter().map(|at| self.rival(group, member, *at, now).map(str::to_owned)).collect()
    }

    /// A commit of a member's was taken. Who had such a partition when it was sent, and has it still, had it when it was taken.
    pub fn check_commit(
        &self,
        (group, member): (usize, &str),
        ats: &[([u8; 16], i32)],
        before: &[Option<String>],
        now: Duration,
        what: &str,
    ) {
        for ((at, before), rival) in ats.iter().zip(before).zip(self.rivals(group, member, ats, now)) {
            let is_taken = rival.is_some() && rival == *before;
            assert!(!is_taken, "OneOwner: {what} of partition {} of {:02x?}, which {rival:?} holds", at.1, &at.0[..2]);
        }
    }

    /// Which groups may be there.
    #[must_use]
    pub fn may_exist(&self) -> Vec<bool> {
        self.all.iter().map(|group| group.may_exist).collect()
    }

    /// An offset that nobody has committed yet.
    pub fn new_offset(&mut self) -> i64 {
        self.next_offset += 1;
        self.next_offset
    }
}

impl Group {
    /// Whether what a member was told, by an answer to what it asked then, is still true of the group.
    fn is_of_now(&self, at: AtSend, member: &str, now: Duration) -> bool {
        let is_in = || self.holders.get(member).is_some_and(|holder| holder.is_safe(now));
        self.kind != Kind::Mixed || self.era == at.era || is_in()
    }

    /// What is known of its generations is not true any more.
    fn begin_anew(&mut self) {
        self.era += 1;
        (self.logged, self.joined) = (0, 0);
        self.owners.clear();
    }
}

impl Model {
    /// Whether the group may have been forgotten, once it had no members: nothing is there for certain.
    fn may_be_forgotten(&self, group: usize) -> bool {
        let Known { offsets, retention_ms, wall_ms_max, .. } = &self.groups;
        let vanishes = |write: &Write| may_vanish(&self.topics, *retention_ms, *wall_ms_max, write);
        !offsets.iter().any(|((of, ..), register)| *of == group && register.is_something(vanishes))
    }

    /// A member was told that it is at a generation or epoch, by an answer to what it asked then.
    fn check_growth(&mut self, group: usize, at: AtSend, generation: i32, rule: &str, what: &str) {
        let floor = if self.is_dirty { at.logged } else { at.logged.max(at.joined) };
        if generation >= floor || self.groups.all[group].era != at.era {
            return;
        }
        let name = &self.groups.all[group].name;
        assert!(self.may_be_forgotten(group), "{rule}: {what} at {generation}, and {name} was at {floor} before");
        self.groups.all[group].begin_anew();
    }

    /// A member of the classic protocol is in a new generation.
    pub fn joined(&mut self, group: usize, at: AtSend, generation: i32, who: &str) {
        self.check_growth(group, at, generation, "GenerationsGrow", &format!("{who} joins"));
        let group = &mut self.groups.all[group];
        // Until it has its part it may be out, and the group another one.
        if group.kind != Kind::Mixed || group.era == at.era {
            group.joined = group.joined.max(generation);
        }
        self.groups.rebalanced_count += 1;
    }

    /// It was told that it is a member of the generation that it named.
    pub fn is_in(&mut self, group: usize, at: AtSend, generation: i32, member: &str, what: &str) {
        let has_left = self.groups.all[group].left.contains(member) && !self.is_dirty;
        assert!(!has_left, "FencedStaysOut: {what}: {member} left");
        if self.groups.all[group].kind == Kind::Mixed {
            // Where others speak the new protocol, each is at an epoch of its own.
            return;
        }
        self.check_growth(group, at, generation, "FencedStaysOut", what);
    }

    /// It got its part of the generation.
    pub fn synced(
        &mut self,
        (group, at): (usize, AtSend),
        generation: i32,
        (who, member): (&str, &str),
        parts: &[(String, i32)],
        now: Duration,
    ) {
        self.is_in(group, at, generation, member, &format!("{who} syncs"));
        if !self.groups.all[group].is_of_now(at, member, now) {
            return;
        }
        let is_same = |owner: Option<&String>| owner.is_none_or(|owner| owner == who);
        let owners = &self.groups.all[group].owners;
        let has_rival = !parts.iter().all(|(topic, at)| is_same(owners.get(&(generation, topic.clone(), *at))));
        if has_rival && self.may_be_forgotten(group) {
            // It is another group, at the same generation again.
            self.groups.all[group].begin_anew();
        }
        let known = &mut self.groups.all[group];
        (known.logged, known.joined) = (known.logged.max(generation), known.joined.max(generation));
        for (topic, partition) in parts {
            let owner = known.owners.entry((generation, topic.clone(), *partition)).or_insert_with(|| who.to_owned());
            assert!(
                owner == who,
                "OneOwner: {who} and {owner} have {topic}-{partition} in generation {generation} of {}",
                known.name
            );
        }
    }

    /// A member of the new protocol came to an epoch.
    pub fn at_epoch(
        &mut self,
        (group, at): (usize, AtSend),
        epoch: i32,
        is_join: bool,
        (who, member): (&str, &str),
        now: Duration,
    ) {
        // Others may be at newer ones.
        if is_join {
            self.check_growth(group, at, epoch, "EpochsGrow", &format!("{who} joins"));
        }
        let known = &mut self.groups.all[group];
        if !known.is_of_now(at, member, now) {
            return;
        }
        let is_newer = epoch > known.logged;
        // A crash does not take it back.
        known.logged = known.logged.max(epoch);
        known.joined = known.joined.max(known.logged);
        self.groups.rebalanced_count += u64::from(is_newer);
    }

    /// A commit is being sent.
    pub fn committing(&mut self, group: usize, of: For, partition: i32, offset: i64, wall_ms: i64) -> Sent {
        let key = (group, self.topics[of.topic].name.clone(), partition);
        let number = self.groups.offsets.entry(key.clone()).or_default().begin(offset, Some(of), wall_ms);
        (key, number)
    }

    /// A commit was answered well.
    pub fn committed(&mut self, (key, number): &Sent, sent: Duration, now: Duration, wall_ms: i64) {
        self.groups.committed_count += 1;
        self.groups.offsets.entry(key.clone()).or_default().acknowledge(*number, sent, now, wall_ms);
    }

    /// A commit or a removal was refused: it has no effect.
    pub fn refused(&mut self, (key, number): &Sent) {
        let result = self.groups.offsets.entry(key.clone()).or_default().refuse(*number);
        if let Err(what) = result {
            panic!("RefusedIsNotKept: {} of {}-{}: {what}", self.groups.all[key.0].name, key.1, key.2);
        }
    }

    /// What became of it is not known, and what is sent from now on comes behind it.
    pub fn unclear(&mut self, (key, number): &Sent, now: Duration) {
        self.groups.offsets.entry(key.clone()).or_default().unclear(*number, now);
    }

    /// An offset was read.
    pub fn fetched(&mut self, group: usize, topic: &str, partition: i32, offset: i64, sent: Duration, now: Duration) {
        let Self { topics, groups, .. } = self;
        let (retention_ms, wall_ms_max) = (groups.retention_ms, groups.wall_ms_max);
        let register = groups.offsets.entry((group, topic.to_owned(), partition)).or_default();
        let result = register.read(offset, sent, now, |write| may_vanish(topics, retention_ms, wall_ms_max, write));
        if let Err(what) = result {
            panic!("CommittedStays: {} of {topic}-{partition}: {what}", groups.all[group].name);
        }
    }

    /// Nothing of a group was found: there is no offset.
    pub fn fetched_nothing(&mut self, group: usize, sent: Duration, now: Duration) {
        let keys: Vec<_> = self.groups.offsets.keys().filter(|(of, ..)| *of == group).cloned().collect();
        for (_, topic, partition) in keys {
            self.fetched(group, &topic, partition, NOTHING, sent, now);
        }
    }

    /// After a start: what was committed for a topic that is gone is gone.
    pub fn check_gone(&self, group: usize, topic: &str, partition: i32, offset: i64) {
        let Some(register) = self.groups.offsets.get(&(group, topic.to_owned(), partition)) else { return };
        let of = register.candidates().find(|write| write.offset == offset).and_then(|write| write.of);
        let is_gone = of.is_some_and(|of| of.is_by_id && self.topics[of.topic].existence == Existence::Gone);
        let name = &self.groups.all[group].name;
        assert!(!is_gone, "CommittedGoesWithTheTopic: {name} has {offset} of a {topic}-{partition} that was deleted");
    }

    /// An offset is to be removed.
    pub fn removing(&mut self, group: usize, topic: &str, partition: i32) -> Sent {
        let key = (group, topic.to_owned(), partition);
        let number = self.groups.offsets.entry(key.clone()).or_default().begin(NOTHING, None, 0);
        (key, number)
    }

    /// A removal was answered well.
    pub fn removed(&mut self, (key, number): &Sent, sent: Duration, now: Duration) {
        self.groups.offsets.entry(key.clone()).or_default().acknowledge(*number, sent, now, 0);
    }

    /// The deletion of a group is being sent.
    pub fn deleting(&mut self, group: usize, now: Duration) -> Deletion {
        // Also of what is committed while it is on its way.
        let writes = all_partitions().map(|(topic, partition)| self.removing(group, topic, partition)).collect();
        let known = &mut self.groups.all[group];
        let (logged, owners) = (known.logged, std::mem::take(&mut known.owners));
        known.begin_anew();
        Deletion { writes, sent: now, touched: known.touched, is_alone: known.unanswered == 0, logged, owners }
    }

    /// The group is deleted.
    pub fn deleted(&mut self, group: usize, deletion: &Deletion, now: Duration) {
        for write in &deletion.writes {
            self.removed(write, deletion.sent, now);
        }
        let known = &mut self.groups.all[group];
        known.era += 1;
        if deletion.is_alone && known.unanswered == 0 && known.touched == deletion.touched {
            known.may_exist = false;
        }
    }

    /// It is not, or perhaps not.
    pub fn not_deleted(&mut self, group: usize, deletion: Deletion, now: Duration, is_unclear: bool) {
        for sent in &deletion.writes {
            if is_unclear {
                self.unclear(sent, now);
            } else {
                self.refused(sent);
            }
        }
        if is_unclear {
            return;
        }
        let known = &mut self.groups.all[group];
        known.era += 1;
        if known.kind == Kind::Mixed {
            // It may have been empty meanwhile, and be another one.
            return;
        }
        known.logged = known.logged.max(deletion.logged);
        known.owners.extend(deletion.owners);
    }

    /// These groups were listed; `before`: those that might be there when that was asked. After a start, all that has offsets has to be.
    pub fn listed(&self, names: &BTreeSet<String>, before: &[bool], is_final: bool) {
        for (at, group) in self.groups.all.iter().enumerate() {
            let is_listed = names.contains(&group.name);
            assert!(!is_listed || group.may_exist || before[at], "GroupStaysDeleted: {} is there", group.name);
            let has_offsets = is_final && !self.may_be_forgotten(at);
            assert!(is_listed || !has_offsets, "CommittedStays: {} is not listed", group.name);
        }
    }

    /// The topic of the groups cannot be found: nothing may be in it.
    pub fn has_no_groups(&self) {
        assert!(!self.groups.has_topic, "CommittedStays: the topic of the groups is not there");
    }
}
