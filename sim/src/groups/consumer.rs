//! A member of a group of the new protocol (KIP-848): heartbeats say what it wants and holds, answers what it is to hold; it gives
//! partitions up sooner or later, commits, leaves, vanishes and comes back, some with an instance id of their own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::env::random::Random;
use ringlog_protocol::api::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use ringlog_protocol::{ApiKey, ErrorCode};

use super::ask::{self, Asker, Committer, Identity, is_trouble, ms};
use super::known::{Held, Holder};
use super::presence::{self, Presence, Present};
use crate::client::version;
use crate::life::Life;
use crate::model::{Existence, Model};
use crate::wire;

/// The epochs by which members come and go.
const JOINS: i32 = 0;
const LEAVES: i32 = -1;
const LEAVES_FOR_NOW: i32 = -2;
/// From here on patterns may be said.
const PATTERN_VERSION_MIN: i16 = 1;
/// From here on a commit may be of such a member.
const COMMIT_VERSION_MIN: i16 = 9;

/// See the module.
pub struct Member {
    presence: Presence,
    instance: Option<String>,
    /// What it wants.
    topics: Vec<&'static str>,
    /// Whether it says so by a pattern.
    has_pattern: bool,
    assignor: Option<&'static str>,
    session: Duration,
    rebalance: Duration,
    /// The id that it gave itself, and how often it did.
    id: String,
    ids: u64,
    /// Its epoch; 0: it is out.
    epoch: i32,
    held: Held,
    /// What it is to hold.
    told: Held,
    /// What it said last that it holds, where that was heard.
    said: Option<Held>,
    /// Whether it did not hear its last answer, and says everything anew.
    says_all: bool,
    /// Who it was before, and what it held.
    ghost: Option<(Identity, Held)>,
}

impl Member {
    /// A member that is not in yet.
    #[must_use]
    pub fn new(name: String, group: usize, mut random: Random, topics: Vec<&'static str>, session: Duration) -> Self {
        Self {
            instance: random.chance(0.3).then(|| format!("static {name}")),
            topics,
            has_pattern: random.chance(0.25),
            assignor: [None, Some("uniform"), Some("range")][random.below(3) as usize],
            session,
            rebalance: Duration::from_millis(1_000 + random.below(4_000)),
            id: format!("{name} 0"),
            presence: Presence::new(name, group, random),
            ids: 0,
            epoch: 0,
            held: Held::new(),
            told: Held::new(),
            said: None,
            says_all: true,
            ghost: None,
        }
    }

    /// For people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.presence.name
    }

    /// What it wants, for people.
    #[must_use]
    pub fn wish(&self) -> String {
        let by = if self.has_pattern { " by a pattern" } else { "" };
        format!("{} wants {:?}{by}, instance {:?}, assignor {:?}", self.name(), self.topics, self.instance, self.assignor)
    }

    /// It stays from now on.
    pub fn drain(&mut self) {
        self.presence.is_draining = true;
    }

    /// What it wants and holds, where it is in and holds what it is to hold.
    #[must_use]
    pub fn settled(&self) -> Option<(&[&'static str], &Held)> {
        (self.epoch > 0 && self.held == self.told && !self.says_all).then_some((&self.topics, &self.held))
    }

    fn identity(&self) -> Identity {
        Identity { member: self.id.clone(), instance: self.instance.clone(), generation: self.epoch }
    }

    fn committer(&self) -> Committer {
        let version_min = COMMIT_VERSION_MIN;
        Committer { who: self.name().to_owned(), group: self.presence.group, identity: self.identity(), version_min }
    }

    /// It holds nothing any more.
    fn be_out(&mut self, model: &mut Model) {
        if self.epoch > 0 {
            self.ghost = Some((self.identity(), self.held.clone()));
        }
        (self.epoch, self.said) = (0, None);
        self.held.clear();
        self.told.clear();
        model.groups.all[self.presence.group].holders.remove(&self.id);
    }

    /// Who it was before, and what it held.
    fn ghost(&self) -> Option<(Committer, Held)> {
        let (identity, held) = self.ghost.clone()?;
        let now = self.committer();
        Some((Committer { who: format!("{} of old", now.who), identity, ..now }, held))
    }

    /// It is called so by its user, or by nobody.
    #[must_use]
    pub fn with_instance(mut self, instance: Option<String>) -> Self {
        self.instance = instance;
        self
    }

    fn new_id(&mut self) {
        self.ids += 1;
        self.id = format!("{} {}", self.presence.name, self.ids);
    }
}

impl Present for Member {
    fn presence(&mut self) -> &mut Presence {
        &mut self.presence
    }
}

/// Its life in one life of the machine.
pub async fn run(member: Rc<RefCell<Member>>, life: Rc<Life>) {
    let mut asker = Asker::default();
    loop {
        step(&member, &life, &mut asker).await;
    }
}

/// Its next turn.
pub async fn step(member: &RefCell<Member>, life: &Life, asker: &mut Asker) {
    let Some(mut random) = presence::turn(member, life, asker).await else { return };
    if member.borrow().epoch == 0 {
        beat(member, life, asker, &mut random, JOINS).await;
    } else {
        act(member, life, asker, &mut random).await;
    }
    // While it is to come in, or everybody is to stay, who it was before is not kept alive.
    let may_haunt = member.borrow().epoch > 0 && !member.borrow().presence.is_draining;
    if may_haunt && random.chance(0.15) {
        beat_as_ghost(member, life, asker, &mut random).await;
    }
}

/// It speaks the new protocol no more: it leaves where it is in and `says_so`, or is gone without a word.
pub async fn retire(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random, says_so: bool) {
    {
        // Its user comes back under the same instance id, and takes the place of whoever it was.
        let member = member.borrow();
        let prefix = format!("{} ", member.name());
        life.model.borrow_mut().groups.all[member.presence.group].holders.retain(|id, _| !id.starts_with(&prefix));
    }
    if says_so && member.borrow().epoch > 0 {
        return leave(member, life, asker, random).await;
    }
    let member = &mut *member.borrow_mut();
    member.be_out(&mut life.model.borrow_mut());
    member.new_id();
}

/// What a member does that is in.
async fn act(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random) {
    let action = member.borrow().presence.action(random);
    match action {
        0 => leave(member, life, asker, random).await,
        1 => vanish(&mut member.borrow_mut(), life, random),
        2 | 3 => commit_as_ghost(member, life, asker, random).await,
        4 | 5 => commit_with_an_old_epoch(member, life, asker, random).await,
        6..=14 => commit(member, life, asker, random).await,
        15..=19 => fetch(member, life, asker, random).await,
        _ => {
            if random.chance(0.5) {
                let member = &mut *member.borrow_mut();
                let Member { held, told, .. } = member;
                held.retain(|at| told.contains(at));
            }
            let epoch = member.borrow().epoch;
            beat(member, life, asker, random, epoch).await;
        }
    }
}

fn vanish(member: &mut Member, life: &Life, random: &mut Random) {
    if member.presence.vanish(life, random, member.session) {
        // What it held is its until its session ends, as far as others know.
        let group = member.presence.group;
        let holder = life.model.borrow().groups.all[group].holders.get(&member.id).cloned();
        let id = member.id.clone();
        member.be_out(&mut life.model.borrow_mut());
        if let Some(holder) = holder {
            life.model.borrow_mut().groups.all[group].holders.insert(id, holder);
        }
        member.new_id();
    }
}

fn partitions(held: &Held) -> Vec<TopicPartitions> {
    let mut topics: BTreeMap<[u8; 16], Vec<i32>> = BTreeMap::new();
    for (topic, partition) in held {
        topics.entry(*topic).or_default().push(*partition);
    }
    topics.into_iter().map(|(topic_id, partitions)| TopicPartitions { topic_id, partitions }).collect()
}

/// Says that it joins, is there, or leaves, and does what the answer tells.
async fn beat(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random, epoch: i32) {
    let is_join = epoch == JOINS;
    let (name, group, id, request, version, owned) = {
        let member = member.borrow();
        let says_all = is_join || (member.says_all && epoch > 0);
        let min = if says_all && member.has_pattern { PATTERN_VERSION_MIN } else { 0 };
        let version = version(random, ApiKey::ConsumerGroupHeartbeat, min);
        let has_changed = member.said.as_ref() != Some(&member.held);
        let owned = (epoch >= 0 && (says_all || has_changed || random.chance(0.5))).then(|| member.held.clone());
        let names = member.topics.iter().map(|topic| (*topic).into()).collect();
        let pattern = format!("({})", member.topics.join("|"));
        let request = ConsumerGroupHeartbeatRequest {
            group_id: life.model.borrow().groups.all[member.presence.group].name.clone().into(),
            member_id: member.id.clone().into(),
            member_epoch: epoch,
            instance_id: member.instance.clone().map(Into::into),
            rack_id: None,
            rebalance_timeout_ms: if says_all { ms(member.rebalance) } else { -1 },
            subscribed_topic_names: says_all.then(|| if member.has_pattern { Vec::new() } else { names }),
            subscribed_topic_regex: (says_all && member.has_pattern).then(|| pattern.into()),
            server_assignor: member.assignor.filter(|_| says_all).map(Into::into),
            topic_partitions: owned.as_ref().map(partitions),
        };
        (member.name().to_owned(), member.presence.group, member.id.clone(), request, version, owned)
    };
    let (at, was_safe) = {
        let mut model = life.model.borrow_mut();
        let known = &mut model.groups;
        if is_join {
            known.touch(group);
            known.joins(group, &id);
        }
        let holder = known.all[group].holders.get_mut(&id);
        let was_safe = holder.as_ref().map(|holder| (*holder).clone());
        if let Some(holder) = holder {
            if let Some(owned) = &owned {
                holder.held.retain(|at| owned.contains(at));
            }
            // The answer may be lost that tells it to give something up.
            holder.exposed.get_or_insert(life.now());
        }
        (known.at_send(group, life.now()), was_safe)
    };
    if is_join || epoch < 0 || random.chance(0.2) {
        life.say(|| format!("{name} at epoch {epoch}, holds {}", owned.as_ref().map_or(0, Held::len)));
    }
    let missed_some = std::mem::replace(&mut member.borrow_mut().says_all, true);
    let asked = asker.client.ask(life, &request, version).await;
    let member = &mut *member.borrow_mut();
    let Some((correlation, frame)) = asked else {
        return life.say(|| format!("{name} hears nothing of its heartbeat"));
    };
    let response: ConsumerGroupHeartbeatResponse<'_> = wire::answer(&frame, version, correlation);
    let now = life.now();
    let model = &mut *life.model.borrow_mut();
    model.groups.look(group, now);
    if is_join {
        model.groups.touched(group);
    }
    let code = response.error_code;
    if !code.is_none() {
        life.say(|| format!("{name} at epoch {epoch}: {code} {:?}", response.error_message));
    }
    let is_safe = was_safe.as_ref().is_some_and(|holder| holder.is_safe(now));
    match code {
        ErrorCode::NONE if epoch < 0 => {
            if epoch == LEAVES {
                model.groups.out(group, &id);
            }
        }
        ErrorCode::NONE => {
            member.hear(life, model, at.sent, &response, is_join);
            model.at_epoch((group, at), member.epoch, is_join, (&name, &id), now);
        }
        code if is_trouble(code) => asker.trouble(code),
        _ if epoch < 0 => {
            let is_gone =
                matches!(code, ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::GROUP_ID_NOT_FOUND | ErrorCode::FENCED_INSTANCE_ID);
            assert!(is_gone, "GroupErrorsAreExpected: {name} leaves: {code}");
        }
        ErrorCode::UNRELEASED_INSTANCE_ID if is_join => {}
        ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::GROUP_ID_NOT_FOUND if !is_join => {
            assert!(!is_safe, "MembersStay: {name} at epoch {epoch} is told {code}");
            member.be_out(model);
            model.groups.out(group, &id);
        }
        ErrorCode::FENCED_MEMBER_EPOCH => {
            // It may have come to two epochs without hearing of them.
            assert!(!is_safe || missed_some, "MembersStay: {name} at epoch {epoch} is told {code}");
            member.be_out(model);
        }
        code => panic!("GroupErrorsAreExpected: {name} at epoch {epoch}: {code} {:?}", response.error_message),
    }
}

impl Member {
    /// A good answer to a heartbeat that was sent then.
    fn hear(
        &mut self,
        life: &Life,
        model: &mut Model,
        sent: Duration,
        response: &ConsumerGroupHeartbeatResponse<'_>,
        is_join: bool,
    ) {
        let (now, epoch) = (life.now(), response.member_epoch);
        assert!(epoch >= self.epoch, "EpochsGrow: {} from {} to {epoch}", self.name(), self.epoch);
        if let Some(assignment) = &response.assignment {
            let told = assignment.topic_partitions.iter();
            self.told = told.flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic_id, *partition))).collect();
        }
        if is_join {
            self.held.clear();
        }
        if is_join || response.assignment.is_some() {
            let short = |held: &Held| {
                held.iter().map(|(topic, partition)| format!("{:02x}{:02x}-{partition}", topic[0], topic[1])).collect::<Vec<_>>()
            };
            life.say(|| {
                format!("{} at epoch {epoch} is to hold {:?}, holds {:?}", self.name(), short(&self.told), short(&self.held))
            });
        }
        for at in self.told.difference(&self.held) {
            if let Some(rival) = model.groups.rival(self.presence.group, &self.id, *at, now) {
                panic!("OneOwner: {} gets partition {} of {:02x?}, which {rival} holds", self.name(), at.1, &at.0[..2]);
            }
        }
        self.held.extend(self.told.iter().copied());
        (self.epoch, self.says_all) = (epoch, false);
        self.said = Some(self.held.clone());
        let holders = &mut model.groups.all[self.presence.group].holders;
        let exposed = holders.get(&self.id).and_then(|holder| holder.exposed);
        // What it is to give up it has given up, or it is counted from when it was told at the earliest.
        let exposed = if self.held == self.told { None } else { exposed.or(Some(sent)) };
        let (held, session, rebalance) = (self.held.clone(), self.session, self.rebalance);
        holders.insert(self.id.clone(), Holder { held, steady: sent, exposed, session, rebalance });
    }
}

async fn leave(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random) {
    let epoch = {
        let mut member = member.borrow_mut();
        let is_for_now = member.instance.is_some() && random.chance(0.6);
        member.presence.go_away(life, random, Duration::from_secs(3));
        // What it says is that it holds nothing any more.
        member.be_out(&mut life.model.borrow_mut());
        if is_for_now { LEAVES_FOR_NOW } else { LEAVES }
    };
    beat(member, life, asker, random, epoch).await;
    member.borrow_mut().new_id();
}

/// Partitions that it holds of topics that are there.
fn targets(model: &Model, held: &Held, random: &mut Random) -> Vec<ask::Target> {
    let chance = if random.chance(0.5) { 1.0 } else { 0.4 };
    let there = held.iter().filter_map(|(id, partition)| {
        let topic = model.topics.iter().position(|topic| topic.id == Some(*id))?;
        (model.topics[topic].existence == Existence::Present).then_some((topic, *partition))
    });
    there.filter(|_| random.chance(chance)).collect()
}

async fn commit(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random) {
    let by = member.borrow().committer();
    let targets = targets(&life.model.borrow(), &member.borrow().held, random);
    let (ats, before) = {
        let model = life.model.borrow();
        let ats: Vec<_> = targets.iter().map(|(topic, at)| (model.topics[*topic].id.unwrap_or_default(), *at)).collect();
        let before = model.groups.rivals(by.group, &by.identity.member, &ats, life.now());
        (ats, before)
    };
    let Some(code) = ask::commit(asker, life, random, &by, &targets).await else { return };
    let Committer { who: name, group, identity, .. } = by;
    let member = &mut *member.borrow_mut();
    let model = &mut *life.model.borrow_mut();
    if code.is_none() {
        model.groups.check_commit((group, &identity.member), &ats, &before, life.now(), &format!("a commit of {name}"));
        return;
    }
    let is_safe = model.groups.all[group].holders.get(&identity.member).is_some_and(|holder| holder.is_safe(life.now()));
    assert!(!is_safe || member.says_all, "MembersStay: a commit of {name} at epoch {} is told {code}", identity.generation);
    match code {
        // Its next heartbeat tells.
        ErrorCode::STALE_MEMBER_EPOCH => {}
        ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::GROUP_ID_NOT_FOUND => {
            member.be_out(model);
            model.groups.out(group, &identity.member);
        }
        code => panic!("GroupErrorsAreExpected: a commit of {name}: {code}"),
    }
}

/// Whether an error is what a member is told that is out, or at an old epoch.
fn is_fence(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UNKNOWN_MEMBER_ID
            | ErrorCode::STALE_MEMBER_EPOCH
            | ErrorCode::GROUP_ID_NOT_FOUND
            | ErrorCode::FENCED_INSTANCE_ID
    )
}

/// It did not notice that it is out.
async fn commit_as_ghost(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random) {
    let Some((by, held)) = member.borrow().ghost() else { return };
    let targets = targets(&life.model.borrow(), &held, random);
    let is_out = || life.model.borrow().groups.is_out(by.group, &by.identity.member);
    let was_out = is_out();
    let Some(code) = ask::commit(asker, life, random, &by, &targets).await else { return };
    if code.is_none() {
        assert!(!(was_out && is_out()), "FencedStaysOut: a commit of {}, {}", by.who, by.identity);
    }
    // A group that was made anew may have brought it to the same epoch under the same id: then it is no ghost.
    if member.borrow().identity() == by.identity {
        return;
    }
    fenced_or_not_of_rivals(life, &by, &targets, code);
}

/// It did not notice that it is out, and says that it is there.
async fn beat_as_ghost(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random) {
    let Some((Committer { who, group, identity, .. }, _)) = member.borrow().ghost() else { return };
    let id = identity.member;
    // Under the id that it has again it would hear what is meant for the member that it is now.
    if member.borrow().id == id {
        return;
    }
    let (group_id, was_out, was_safe) = {
        let groups = &mut life.model.borrow_mut().groups;
        let holder = groups.all[group].holders.get_mut(&id);
        let was_safe = holder.as_ref().map(|holder| (*holder).clone());
        if let Some(holder) = holder {
            // Where it is in it may be told to give something up, and does not.
            holder.exposed.get_or_insert(life.now());
        }
        (groups.all[group].name.clone(), groups.is_out(group, &id), was_safe)
    };
    let version = version(random, ApiKey::ConsumerGroupHeartbeat, 0);
    let request = ConsumerGroupHeartbeatRequest {
        group_id: group_id.into(),
        member_id: id.as_str().into(),
        member_epoch: identity.generation,
        instance_id: identity.instance.map(Into::into),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let Some((correlation, frame)) = asker.client.ask(life, &request, version).await else { return };
    let response: ConsumerGroupHeartbeatResponse<'_> = wire::answer(&frame, version, correlation);
    let code = response.error_code;
    life.say(|| format!("{who} at epoch {}: {code}", identity.generation));
    match code {
        ErrorCode::NONE => assert!(!was_out, "FencedStaysOut: a heartbeat of {who} at epoch {}", identity.generation),
        code if is_trouble(code) => asker.trouble(code),
        ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::GROUP_ID_NOT_FOUND => {
            let is_safe = was_safe.is_some_and(|holder| holder.is_safe(life.now()));
            assert!(!is_safe, "MembersStay: {who} at epoch {} is told {code}", identity.generation);
            life.model.borrow_mut().groups.out(group, &id);
        }
        ErrorCode::FENCED_MEMBER_EPOCH | ErrorCode::FENCED_INSTANCE_ID => {}
        code => panic!("GroupErrorsAreExpected: a heartbeat of {who}: {code} {:?}", response.error_message),
    }
}

/// By an epoch that it is not at any more only what it has held since then may be committed (KIP-1251).
async fn commit_with_an_old_epoch(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random) {
    let mut by = member.borrow().committer();
    by.who.push_str(" with an old epoch");
    by.identity.generation -= 1 + random.below(2) as i32;
    let Some((topic, partition, _)) = crate::client::pick(&life.model.borrow(), random) else { return };
    if by.identity.generation <= 0 {
        return;
    }
    let targets = [(topic, partition)];
    if let Some(code) = ask::commit(asker, life, random, &by, &targets).await {
        fenced_or_not_of_rivals(life, &by, &targets, code);
    }
}

/// Who is not at its epoch is told so, or commits nothing that another holds.
fn fenced_or_not_of_rivals(life: &Life, by: &Committer, targets: &[ask::Target], code: ErrorCode) {
    let name = &by.who;
    if !code.is_none() {
        return assert!(is_fence(code), "GroupErrorsAreExpected: a commit of {name}: {code}");
    }
    let model = life.model.borrow();
    for (topic, partition) in targets {
        let id = model.topics[*topic].id.unwrap_or_default();
        let rival = model.groups.rival(by.group, &by.identity.member, (id, *partition), life.now());
        let what = &model.topics[*topic].name;
        assert!(rival.is_none(), "FencedStaysOut: a commit of {name} of {what}-{partition}, which {rival:?} holds");
    }
}

async fn fetch(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random) {
    let (name, group, identity) = {
        let member = member.borrow();
        (member.name().to_owned(), member.presence.group, member.identity())
    };
    let says_who = random.chance(0.5);
    let code = ask::fetch(asker, life, random, group, says_who.then_some(&identity), false).await;
    let Some(code) = code.filter(|code| !code.is_none() && !is_trouble(*code)) else { return };
    assert!(says_who && is_fence(code), "GroupErrorsAreExpected: {name} reads offsets: {code}");
}
