//! A member of a classic group: joins, assigns where it leads, gets its part, commits, leaves, vanishes and comes back, some with an
//! instance id of their own (KIP-345).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::env::random::Random;
use ringlog_protocol::api::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use ringlog_protocol::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, JoinGroupResponseMember};
use ringlog_protocol::api::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity};
use ringlog_protocol::api::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};
use ringlog_protocol::consumer_protocol::{AssignedTopicPartition, ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use ringlog_protocol::{ApiKey, Encoder, ErrorCode, Payload};

use super::ask::{self, Asker, Committer, Identity, is_trouble, ms};
use super::known::{Held, Holder};
use super::presence::{self, Presence, Present};
use crate::client::version;
use crate::life::Life;
use crate::model::{Existence, Model};
use crate::wire;

/// From here on an instance id may be said: of JoinGroup, SyncGroup, Heartbeat, LeaveGroup.
const INSTANCE_VERSIONS_MIN: [i16; 4] = [5, 3, 3, 3];
const PAYLOAD_VERSION: i16 = 1;

/// See the module.
pub struct Member {
    presence: Presence,
    instance: Option<String>,
    /// What it wants.
    topics: Vec<&'static str>,
    session: Duration,
    rebalance: Duration,
    /// The id that it was given; empty: none.
    id: String,
    generation: i32,
    /// Whether it has its part of the generation.
    is_in: bool,
    leads: bool,
    /// What topics there were when it assigned.
    assigned_for: Vec<(String, usize)>,
    /// What it has.
    pub parts: Vec<(String, i32)>,
    /// When it last asked something and was told that it is in.
    steady: Option<Duration>,
    /// Who it was before, and what it had.
    ghost: Option<(Identity, Vec<(String, i32)>)>,
    /// Whether it is to join once more.
    joins_again: bool,
    /// Whether others in its group may speak the new protocol.
    is_mixed: bool,
    /// Under which id it is known to hold something, in a mixed group.
    holder: Option<String>,
}

impl Member {
    /// A member that is not in yet.
    #[must_use]
    pub fn new(name: String, group: usize, mut random: Random, topics: Vec<&'static str>) -> Self {
        let instance = random.chance(0.3).then(|| format!("static {name}"));
        Self {
            instance,
            topics,
            session: Duration::from_millis(1_000 + random.below(4_000)),
            rebalance: Duration::from_millis(1_000 + random.below(3_000)),
            presence: Presence::new(name, group, random),
            id: String::new(),
            generation: -1,
            is_in: false,
            leads: false,
            assigned_for: Vec::new(),
            parts: Vec::new(),
            steady: None,
            ghost: None,
            joins_again: false,
            is_mixed: false,
            holder: None,
        }
    }

    /// It is in a mixed group, and called so by its user, or by nobody.
    #[must_use]
    pub fn mixed(mut self, instance: Option<String>) -> Self {
        (self.instance, self.is_mixed) = (instance, true);
        self
    }

    /// For people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.presence.name
    }

    /// What it wants, for people.
    #[must_use]
    pub fn wish(&self) -> String {
        format!("{} wants {:?}, instance {:?}", self.name(), self.topics, self.instance)
    }

    /// It stays from now on. Once it is in it joins again, by its id: one that came back under another id may not know that it leads,
    /// or what topics there were when it was given what it has (KIP-814), and nobody would assign anew.
    pub fn drain(&mut self) {
        (self.presence.is_draining, self.joins_again) = (true, self.leads || self.instance.is_some());
    }

    /// What it wants, and whether it is in and has what it has for good, as far as it knows.
    #[must_use]
    pub fn settled(&self, model: &Model) -> Option<&[&'static str]> {
        (self.is_in && !self.joins_again && !self.wants_to_assign(model)).then_some(&self.topics)
    }

    fn identity(&self) -> Identity {
        Identity { member: self.id.clone(), instance: self.instance.clone(), generation: self.generation }
    }

    fn committer(&self) -> Committer {
        Committer { who: self.name().to_owned(), group: self.presence.group, identity: self.identity(), version_min: 0 }
    }

    /// Whoever it was is gone, or is to be.
    fn be_out(&mut self) {
        if self.generation > 0 && !self.id.is_empty() {
            self.ghost = Some((self.identity(), std::mem::take(&mut self.parts)));
        }
        self.id.clear();
        self.generation = -1;
        self.rejoin();
    }

    fn rejoin(&mut self) {
        self.is_in = false;
        self.steady = None;
    }

    /// Whether the topics changed since it assigned.
    fn wants_to_assign(&self, model: &Model) -> bool {
        self.leads && self.assigned_for != topics(model)
    }

    /// It holds nothing any more.
    fn give_up(&mut self, model: &mut Model) {
        if let Some(id) = self.holder.take() {
            model.groups.all[self.presence.group].holders.remove(&id);
        }
    }

    /// What others know of it in a mixed group.
    fn as_holder<'a>(&self, model: &'a mut Model) -> Option<&'a mut Holder> {
        model.groups.all[self.presence.group].holders.get_mut(self.holder.as_ref()?)
    }

    /// Whether it cannot have been put out by now.
    fn is_safe(&self, model: &mut Model, now: Duration) -> bool {
        if self.is_mixed {
            return self.steady.is_some() && self.as_holder(model).is_some_and(|holder| holder.is_safe(now));
        }
        self.steady.is_some_and(|steady| now < steady + self.session.min(self.rebalance))
    }

    /// An answer says that it is no member, or not of this generation. It cannot be put out before its time.
    fn told_out(&mut self, code: ErrorCode, model: &mut Model, now: Duration) {
        // A group that becomes a classic one again is at the newest epoch of all, which may be another than the member's.
        let is_behind = self.is_mixed && code == ErrorCode::ILLEGAL_GENERATION;
        if code != ErrorCode::REBALANCE_IN_PROGRESS && !is_behind {
            let is_safe = self.is_safe(model, now);
            assert!(!is_safe, "MembersStay: {} of generation {} is told {code}", self.name(), self.generation);
        }
        match code {
            // The group may have been forgotten.
            ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID | ErrorCode::GROUP_ID_NOT_FOUND => self.be_out(),
            ErrorCode::REBALANCE_IN_PROGRESS | ErrorCode::ILLEGAL_GENERATION => self.rejoin(),
            code => panic!("GroupErrorsAreExpected: {}: {code}", self.name()),
        }
    }
}

impl Present for Member {
    fn presence(&mut self) -> &mut Presence {
        &mut self.presence
    }
}

/// The topics that there are, with how many partitions they have.
fn topics(model: &Model) -> Vec<(String, usize)> {
    let there = model.topics.iter().filter(|topic| topic.existence == Existence::Present);
    there.map(|topic| (topic.name.clone(), topic.partitions.len())).collect()
}

fn encoded<'a>(payload: &impl Payload<'a>) -> Vec<u8> {
    let mut encoder = Encoder::new();
    payload.encode(&mut encoder, PAYLOAD_VERSION);
    encoder.into_buffer()
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
    if member.borrow().is_in {
        let wants_to = member.borrow().wants_to_assign(&life.model.borrow()) && random.chance(0.5);
        let member = &mut *member.borrow_mut();
        if std::mem::take(&mut member.joins_again) || wants_to {
            member.rejoin();
        }
    }
    if !member.borrow().is_in {
        return join(member, life, asker, &mut random).await;
    }
    let action = member.borrow().presence.action(&mut random);
    match action {
        0 => leave(member, life, asker, &mut random).await,
        1 => {
            let member = &mut *member.borrow_mut();
            if member.presence.vanish(life, &mut random, member.session) {
                member.be_out();
            }
        }
        2 | 3 => commit_as_ghost(member, life, asker, &mut random).await,
        4 if random.chance(0.5) => member.borrow_mut().rejoin(),
        5..=15 => commit(member, life, asker, &mut random).await,
        16..=20 => {
            let group = member.borrow().presence.group;
            ask::fetch(asker, life, &mut random, group, None, false).await;
        }
        _ => heartbeat(member, life, asker, &mut random).await,
    }
}

/// It speaks the classic protocol no more: it leaves where it is in and `says_so`, or is gone without a word.
pub async fn retire(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random, says_so: bool) {
    if says_so && member.borrow().is_in {
        return leave(member, life, asker, random).await;
    }
    let member = &mut *member.borrow_mut();
    member.give_up(&mut life.model.borrow_mut());
    member.be_out();
}

async fn join(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random) {
    let (name, request_group, group, identity, wanted, session, rebalance) = {
        let member = member.borrow();
        let group = life.model.borrow().groups.all[member.presence.group].name.clone();
        let wanted: Vec<_> = member.topics.iter().map(|topic| (*topic).into()).collect();
        (member.name().to_owned(), group, member.presence.group, member.identity(), wanted, member.session, member.rebalance)
    };
    let min = if identity.instance.is_some() { INSTANCE_VERSIONS_MIN[0] } else { 0 };
    let version = version(random, ApiKey::JoinGroup, min);
    let subscription = ConsumerProtocolSubscription { topics: wanted, ..ConsumerProtocolSubscription::default() };
    let request = JoinGroupRequest {
        group_id: request_group.as_str().into(),
        session_timeout_ms: ms(session),
        rebalance_timeout_ms: ms(rebalance),
        member_id: identity.member.as_str().into(),
        group_instance_id: identity.instance.as_deref().map(Into::into),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: encoded(&subscription).into() }],
        ..JoinGroupRequest::default()
    };
    if version == 0 {
        // It waits for no longer than a session.
        member.borrow_mut().rebalance = session;
    }
    let at = {
        let mut model = life.model.borrow_mut();
        // It is eager: it has given everything up.
        member.borrow_mut().give_up(&mut model);
        model.groups.touch(group);
        model.groups.at_send(group, life.now())
    };
    life.say(|| format!("{name} joins as {identity}"));
    let Some((correlation, frame)) = asker.client.ask(life, &request, version).await else {
        return life.say(|| format!("{name} hears nothing of its join"));
    };
    let response: JoinGroupResponse<'_> = wire::answer(&frame, version, correlation);
    life.model.borrow_mut().groups.touched(group);
    let code = response.error_code;
    life.say(|| format!("{name}: join: {code}, generation {} led by {}", response.generation_id, response.leader));
    match code {
        ErrorCode::NONE => {}
        ErrorCode::MEMBER_ID_REQUIRED => {
            member.borrow_mut().id = response.member_id.into_owned();
            return;
        }
        code if is_trouble(code) => return asker.trouble(code),
        code => return member.borrow_mut().told_out(code, &mut life.model.borrow_mut(), life.now()),
    }
    life.model.borrow_mut().joined(group, at, response.generation_id, &name);
    let assignments = {
        let member = &mut *member.borrow_mut();
        let model = life.model.borrow();
        if member.generation > 0 && member.generation < response.generation_id {
            // It may take itself for what it was, for a while.
            member.ghost = Some((member.identity(), member.parts.clone()));
        }
        (member.id, member.generation) = (response.member_id.clone().into_owned(), response.generation_id);
        member.leads = response.leader == response.member_id;
        // A leader that is only told so on its return assigns nothing anew (KIP-814).
        if member.leads && !response.skip_assignment {
            member.assigned_for = topics(&model);
            assign(&response.members, &member.assigned_for)
        } else {
            Vec::new()
        }
    };
    sync(member, life, asker, random, &assignments).await;
}

/// Partitions in turn, each topic's among those who want it.
fn assign(members: &[JoinGroupResponseMember<'_>], topics: &[(String, usize)]) -> Vec<(String, Vec<u8>)> {
    let mut parts: BTreeMap<&str, BTreeMap<&str, Vec<i32>>> =
        members.iter().map(|member| (&*member.member_id, BTreeMap::new())).collect();
    for (topic, count) in topics {
        let wants = |member: &&JoinGroupResponseMember<'_>| {
            let said = ConsumerProtocolSubscription::from_metadata(&member.metadata);
            said.is_ok_and(|said| said.topics.iter().any(|wanted| *wanted == *topic))
        };
        let takers: Vec<&str> = members.iter().filter(wants).map(|member| &*member.member_id).collect();
        for partition in 0..*count {
            let taker = takers.get(partition % takers.len().max(1)).and_then(|taker| parts.get_mut(taker));
            if let Some(part) = taker {
                part.entry(topic).or_default().push(partition as i32);
            }
        }
    }
    let part = |(member, topics): (&str, BTreeMap<&str, Vec<i32>>)| {
        let topic = |(topic, partitions): (&str, Vec<i32>)| AssignedTopicPartition { topic: topic.to_owned().into(), partitions };
        let assigned_partitions = topics.into_iter().map(topic).collect();
        let assignment = ConsumerProtocolAssignment { assigned_partitions, ..ConsumerProtocolAssignment::default() };
        (member.to_owned(), encoded(&assignment))
    };
    parts.into_iter().map(part).collect()
}

async fn sync(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random, parts: &[(String, Vec<u8>)]) {
    let (name, group, identity) = {
        let member = member.borrow();
        (member.name().to_owned(), member.presence.group, member.identity())
    };
    let min = if identity.instance.is_some() { INSTANCE_VERSIONS_MIN[1] } else { 0 };
    let version = version(random, ApiKey::SyncGroup, min);
    let group_name = life.model.borrow().groups.all[group].name.clone();
    let assignment = |(member, part): &'_ (String, Vec<u8>)| SyncGroupRequestAssignment {
        member_id: member.clone().into(),
        assignment: part.clone().into(),
    };
    let request = SyncGroupRequest {
        group_id: group_name.as_str().into(),
        generation_id: identity.generation,
        member_id: identity.member.as_str().into(),
        group_instance_id: identity.instance.as_deref().map(Into::into),
        protocol_type: (version >= 5).then(|| "consumer".into()),
        protocol_name: (version >= 5).then(|| "range".into()),
        assignments: parts.iter().map(assignment).collect(),
    };
    let at = life.model.borrow_mut().groups.at_send(group, life.now());
    let Some((correlation, frame)) = asker.client.ask(life, &request, version).await else {
        return life.say(|| format!("{name} hears nothing of its sync"));
    };
    let response: SyncGroupResponse<'_> = wire::answer(&frame, version, correlation);
    match response.error_code {
        ErrorCode::NONE => {}
        code if is_trouble(code) => {
            life.say(|| format!("{name}: sync: {code}"));
            return asker.trouble(code);
        }
        code => {
            life.say(|| format!("{name}: sync: {code}"));
            return member.borrow_mut().told_out(code, &mut life.model.borrow_mut(), life.now());
        }
    }
    let part: Vec<(String, i32)> = match ConsumerProtocolAssignment::from_assignment(&response.assignment) {
        Ok(part) => {
            let one = |topic: AssignedTopicPartition<'_>| {
                let name = topic.topic.into_owned();
                topic.partitions.into_iter().map(move |partition| (name.clone(), partition))
            };
            part.assigned_partitions.into_iter().flat_map(one).collect()
        }
        // It came after the leader had assigned, and has nothing.
        Err(_) if response.assignment.is_empty() => Vec::new(),
        Err(error) => panic!("AnswersAreUnderstood: {name}: an assignment: {error}"),
    };
    life.say(|| format!("{name} has {part:?} in generation {}", identity.generation));
    let member = &mut *member.borrow_mut();
    let model = &mut *life.model.borrow_mut();
    if member.is_mixed {
        // It may be out for having joined too late, and not know.
        let session = member.session.min(member.rebalance);
        let (held, rebalance) = (ids(model, &part), member.rebalance);
        model.groups.holds(
            group,
            &member.id,
            Holder { held, steady: at.sent, exposed: None, session, rebalance },
            life.now(),
            &name,
        );
        member.holder = Some(member.id.clone());
    }
    let who = member.instance.as_ref().unwrap_or(&member.id);
    model.synced((group, at), identity.generation, (who, &member.id), &part, life.now());
    (member.is_in, member.steady, member.parts) = (true, Some(at.sent), part);
}

async fn heartbeat(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random) {
    let (name, group, identity) = {
        let member = member.borrow();
        (member.name().to_owned(), member.presence.group, member.identity())
    };
    let min = if identity.instance.is_some() { INSTANCE_VERSIONS_MIN[2] } else { 0 };
    let version = version(random, ApiKey::Heartbeat, min);
    let group_name = life.model.borrow().groups.all[group].name.clone();
    let request = HeartbeatRequest {
        group_id: group_name.as_str().into(),
        generation_id: identity.generation,
        member_id: identity.member.as_str().into(),
        group_instance_id: identity.instance.as_deref().map(Into::into),
    };
    let (at, exposed) = {
        let model = &mut *life.model.borrow_mut();
        let at = model.groups.at_send(group, life.now());
        // The answer may be lost that tells it to join again.
        let holder = member.borrow().as_holder(model).map(|holder| holder.exposed.replace(holder.exposed.unwrap_or(at.sent)));
        (at, holder.flatten())
    };
    let Some((correlation, frame)) = asker.client.ask(life, &request, version).await else { return };
    let response: HeartbeatResponse = wire::answer(&frame, version, correlation);
    let member = &mut *member.borrow_mut();
    let model = &mut *life.model.borrow_mut();
    model.groups.look(group, life.now());
    match response.error_code {
        ErrorCode::NONE => {
            model.is_in(group, at, identity.generation, &identity.member, &format!("{name} is alive"));
            member.steady = Some(at.sent);
            if let Some(holder) = member.as_holder(model) {
                (holder.steady, holder.exposed) = (at.sent, exposed);
            }
        }
        code if is_trouble(code) => asker.trouble(code),
        code => {
            life.say(|| format!("{name}: heartbeat: {code}"));
            member.told_out(code, model, life.now());
        }
    }
}

async fn leave(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random) {
    let (name, group, identity) = {
        let mut member = member.borrow_mut();
        let is_static = member.instance.is_some();
        member.presence.go_away(life, random, Duration::from_secs(if is_static { 3 } else { 1 }));
        let identity = member.identity();
        member.give_up(&mut life.model.borrow_mut());
        member.be_out();
        (member.name().to_owned(), member.presence.group, identity)
    };
    let min = if identity.instance.is_some() { INSTANCE_VERSIONS_MIN[3] } else { 0 };
    let version = version(random, ApiKey::LeaveGroup, min);
    let group_name = life.model.borrow().groups.all[group].name.clone();
    let mut request = LeaveGroupRequest { group_id: group_name.as_str().into(), ..LeaveGroupRequest::default() };
    if version < INSTANCE_VERSIONS_MIN[3] {
        request.member_id = identity.member.as_str().into();
    } else {
        request.members.push(MemberIdentity {
            member_id: identity.member.as_str().into(),
            group_instance_id: identity.instance.as_deref().map(Into::into),
            ..MemberIdentity::default()
        });
    }
    life.say(|| format!("{name} leaves"));
    let Some((correlation, frame)) = asker.client.ask(life, &request, version).await else { return };
    let response: LeaveGroupResponse<'_> = wire::answer(&frame, version, correlation);
    let code = response.members.first().map_or(response.error_code, |member| member.error_code);
    match code {
        _ if is_trouble(response.error_code) => asker.trouble(response.error_code),
        ErrorCode::NONE => life.model.borrow_mut().groups.left(group, &identity.member),
        ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID => {}
        code => panic!("GroupErrorsAreExpected: {name} leaves: {code}"),
    }
    life.say(|| format!("{name}: leave: {code}"));
}

/// Which of these partitions there are, by their places in the model: some of them.
pub(super) fn targets(model: &Model, parts: &[(String, i32)], random: &mut Random) -> Vec<ask::Target> {
    let there = parts.iter().filter_map(|(name, partition)| {
        let topic = model.by_name(name)?;
        let is_there =
            model.topics[topic].existence == Existence::Present && (*partition as usize) < model.topics[topic].partitions.len();
        is_there.then_some((topic, *partition))
    });
    let there: BTreeSet<_> = there.collect();
    let chance = if random.chance(0.5) { 1.0 } else { 0.4 };
    there.into_iter().filter(|_| random.chance(chance)).collect()
}

/// The ids of those partitions whose topics have been the only ones of their names: of others it cannot be told which are meant.
fn ids(model: &Model, parts: &[(String, i32)]) -> Held {
    let id = |name: &String| {
        let mut topics = model.topics.iter().filter(|topic| topic.name == *name);
        let topic = topics.next().filter(|_| topics.next().is_none())?;
        (topic.existence == Existence::Present).then_some(topic.id?)
    };
    parts.iter().filter_map(|(name, partition)| Some((id(name)?, *partition))).collect()
}

/// Commits some of what it has. Returns the error, where it was refused.
async fn commit_by(
    by: &Committer,
    parts: &[(String, i32)],
    life: &Life,
    asker: &mut Asker,
    random: &mut Random,
) -> Option<ErrorCode> {
    let targets = targets(&life.model.borrow(), parts, random);
    let (at, ats, before) = {
        let model = &mut *life.model.borrow_mut();
        let parts: Vec<_> = targets.iter().map(|(topic, at)| (model.topics[*topic].name.clone(), *at)).collect();
        let ats: Vec<_> = ids(model, &parts).into_iter().collect();
        let before = model.groups.rivals(by.group, &by.identity.member, &ats, life.now());
        (model.groups.at_send(by.group, life.now()), ats, before)
    };
    let code = ask::commit(asker, life, random, by, &targets).await?;
    if code.is_none() {
        let what = format!("a commit of {}", by.who);
        let model = &mut *life.model.borrow_mut();
        model.is_in(by.group, at, by.identity.generation, &by.identity.member, &what);
        model.groups.check_commit((by.group, &by.identity.member), &ats, &before, life.now(), &what);
        return None;
    }
    Some(code)
}

async fn commit(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random) {
    let (by, parts) = {
        let member = member.borrow();
        (member.committer(), member.parts.clone())
    };
    if let Some(code) = commit_by(&by, &parts, life, asker, random).await {
        member.borrow_mut().told_out(code, &mut life.model.borrow_mut(), life.now());
    }
}

/// It did not notice that it is out, or that there is a new generation.
async fn commit_as_ghost(member: &RefCell<Member>, life: &Life, asker: &mut Asker, random: &mut Random) {
    let (by, ghost) = {
        let member = member.borrow();
        (member.committer(), member.ghost.clone())
    };
    let Some((identity, parts)) = ghost else { return };
    let by = Committer { who: format!("{} of old", by.who), identity, ..by };
    if let Some(code) = commit_by(&by, &parts, life, asker, random).await {
        let is_fence = matches!(
            code,
            ErrorCode::UNKNOWN_MEMBER_ID
                | ErrorCode::ILLEGAL_GENERATION
                | ErrorCode::FENCED_INSTANCE_ID
                | ErrorCode::GROUP_ID_NOT_FOUND
                | ErrorCode::REBALANCE_IN_PROGRESS
        );
        assert!(is_fence, "GroupErrorsAreExpected: {}: {code}", by.who);
    }
}
