//! Random clients of both protocols in one group, which change from one to the other, die, and commit, while the group goes from the
//! classic protocol to the new one and back, and the coordinator crashes. The invariants are those of [`super::super::classic`] and
//! [`super::super::consumer`]; here too: **CommittedStays** (an offset whose commit was answered is found, or a later one).
//!
//! Clients of the classic protocol are eager: they give everything up before they join again.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ringlog_protocol::consumer_protocol::{AssignedTopicPartition, ConsumerProtocolAssignment};
use ringlog_protocol::{Encoder, Payload};

use super::consumer::{beat, join_to};
use super::request::{Beat, ConsumerHeartbeat};
use super::*;

const CLIENTS: usize = 4;
const PARTITIONS: i32 = 5;
const TOPIC: Uuid = [1; 16];

#[derive(Clone, Debug)]
enum Step {
    /// A client does what is next: joins, asks for its part, or says that it is there.
    GoOn {
        client: usize,
    },
    /// A client joins again, though nobody told it to.
    Join {
        client: usize,
    },
    /// A client of the new protocol does what it was told.
    Apply {
        client: usize,
    },
    Leave {
        client: usize,
        to_come_back: bool,
    },
    /// A client is gone without a word, and begins anew by this protocol.
    Restart {
        client: usize,
        is_new_protocol: bool,
    },
    Commit {
        client: usize,
        partition: i32,
    },
    /// Somebody commits who was shut out.
    CommitAsGhost {
        ghost: usize,
        partition: i32,
    },
    Fetch,
    Pass {
        seconds: u64,
    },
    Settle,
    /// The broker is gone: of what is not answered, so many records are in the log after all.
    Crash {
        kept: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (client, partition) = (0..CLIENTS, 0..PARTITIONS);
    prop_oneof![
        12 => client.clone().prop_map(|client| Step::GoOn { client }),
        1 => client.clone().prop_map(|client| Step::Join { client }),
        5 => client.clone().prop_map(|client| Step::Apply { client }),
        1 => (client.clone(), any::<bool>()).prop_map(|(client, to_come_back)| Step::Leave { client, to_come_back }),
        2 => (client.clone(), any::<bool>()).prop_map(|(client, is_new_protocol)| Step::Restart { client, is_new_protocol }),
        3 => (client, partition.clone()).prop_map(|(client, partition)| Step::Commit { client, partition }),
        1 => (0..20_usize, partition).prop_map(|(ghost, partition)| Step::CommitAsGhost { ghost, partition }),
        1 => Just(Step::Fetch),
        2 => (0..20_u64).prop_map(|seconds| Step::Pass { seconds }),
        8 => Just(Step::Settle),
        1 => (0..12_usize).prop_map(|kept| Step::Crash { kept }),
    ]
}

#[derive(Clone, Debug, Default)]
struct Client {
    id: usize,
    life: usize,
    is_new_protocol: bool,
    /// What it is called; of the classic protocol, by the coordinator.
    member: Name,
    /// Its generation or epoch; 0: it is out.
    generation: i32,
    held: BTreeSet<i32>,
    /// New protocol: what it was told to hold, if it has not done so yet.
    told: Option<BTreeSet<i32>>,
    /// New protocol: it did not hear its last answer, and says everything anew.
    says_all: bool,
    /// Classic protocol: what it was told when it joined, while it has not asked for its part.
    joined: Option<Joined>,
    /// Classic protocol: it is to join again.
    is_to_join: bool,
    /// It waits for an answer, and sends nothing else but commits.
    is_waiting: bool,
    /// The era in which it joined.
    era: usize,
}

impl Client {
    fn new(id: usize, life: usize, is_new_protocol: bool) -> Self {
        let member = if is_new_protocol { format!("client-{id}-{life}").into() } else { Name::default() };
        Self { id, life, is_new_protocol, member, is_to_join: true, ..Self::default() }
    }

    /// Two of them are static.
    fn instance(&self) -> Option<Name> {
        (self.id % 2 == 1).then(|| format!("static-{}", self.id).into())
    }

    fn identity(&self) -> Identity {
        // A consumer of the new protocol commits without its instance id.
        let instance = self.instance().filter(|_| !self.is_new_protocol);
        Identity { member: self.member.clone(), instance, generation: self.generation }
    }

    fn owned(&self) -> Partitions {
        let mut owned = Partitions::new();
        if !self.held.is_empty() {
            owned.insert(TOPIC, self.held.clone());
        }
        owned
    }

    fn beat(&self) -> ConsumerHeartbeat {
        let is_join = self.generation == 0;
        let beat = if self.says_all || is_join { join_to(&self.member, &["t"]) } else { beat(&self.member, 0) };
        ConsumerHeartbeat { instance: self.instance(), epoch: self.generation, owned: Some(self.owned()), ..beat }
    }

    fn be_out(&mut self) {
        (self.generation, self.told, self.joined, self.is_to_join) = (0, None, None, true);
        self.held.clear();
        if !self.is_new_protocol {
            self.member = Name::default();
        }
    }
}

enum What {
    Beat,
    Join,
    Sync,
    Heartbeat,
    Leave,
    Commit { partition: i32, offset: i64 },
    Ghost,
    Fetch,
}

struct Asked {
    client: usize,
    life: usize,
    identity: Identity,
    /// How often nobody was in the group before it was asked.
    era: usize,
    what: What,
}

struct World {
    driver: Driver,
    clients: Vec<Client>,
    asked: BTreeMap<CallId, Asked>,
    /// Identities that were shut out, and whether they were of the new protocol.
    ghosts: Vec<(Identity, bool)>,
    /// A group that nobody is in begins anew, as one of either protocol.
    era: usize,
    /// The newest generation or epoch of the era, and that of which somebody heard: it is in the log.
    newest: i32,
    logged: i32,
    committed: BTreeMap<i32, i64>,
    next_offset: i64,
}

impl World {
    fn new(protocols: [bool; CLIENTS]) -> Self {
        let mut driver = Driver::new(settings());
        driver.set_topics(&[("t", 1, PARTITIONS)]);
        let clients = protocols.into_iter().enumerate();
        Self {
            driver,
            clients: clients.map(|(id, is_new_protocol)| Client::new(id, 0, is_new_protocol)).collect(),
            asked: BTreeMap::new(),
            ghosts: Vec::new(),
            era: 0,
            newest: 0,
            logged: 0,
            committed: BTreeMap::new(),
            next_offset: 1,
        }
    }

    fn ask(&mut self, client: usize, what: What, identity: Identity, request: Request) {
        self.look();
        let (life, era) = (self.clients[client].life, self.era);
        let call = self.driver.start_late(request);
        self.asked.insert(call, Asked { client, life, identity, era, what });
        self.look();
    }

    fn send(&mut self, client: usize, what: What, request: Request) {
        self.clients[client].is_waiting = true;
        let identity = self.clients[client].identity();
        self.ask(client, what, identity, request);
    }

    /// EpochsGrow and GenerationsGrow, of the group as it is in memory.
    fn look(&mut self) {
        let group = self.driver.shard.groups.get(GROUP);
        let of = |group: &shard::Group| match &group.consumer {
            Some(consumer) => (consumer.is_empty(), consumer.epochs().0),
            None => (group.classic.is_empty(), group.classic.generation()),
        };
        let (is_empty, generation) = group.map_or((true, 0), |group| of(group));
        if is_empty {
            self.era += 1;
            (self.newest, self.logged) = (0, 0);
        } else {
            assert!(generation >= self.newest, "the group retreats: {generation} after {}", self.newest);
            self.newest = generation;
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::GoOn { client } => self.go_on(client),
            Step::Join { client } => {
                if !self.clients[client].is_waiting {
                    self.join(client);
                }
            }
            Step::Apply { client } => {
                let client = &mut self.clients[client];
                if let Some(told) = client.told.take() {
                    client.held = told;
                }
            }
            Step::Leave { client, to_come_back } => self.leave(client, to_come_back),
            Step::Restart { client, is_new_protocol } => {
                let life = self.clients[client].life + 1;
                self.clients[client] = Client::new(client, life, is_new_protocol);
            }
            Step::Commit { client, partition } => {
                if self.clients[client].held.contains(&partition) {
                    let offset = self.next_offset;
                    self.next_offset += 1;
                    let identity = self.clients[client].identity();
                    let request = self.commit(client, identity.clone(), partition, offset);
                    self.ask(client, What::Commit { partition, offset }, identity, request);
                }
            }
            Step::CommitAsGhost { ghost, partition } => {
                if let Some((identity, is_new_protocol)) = self.ghosts.get(ghost).cloned() {
                    let offsets = vec![CommitOffset { topic_id: TOPIC, ..offset("t", partition, i64::MAX) }];
                    let commit =
                        Commit { identity: identity.clone(), knows_epochs: is_new_protocol, retention_ms: None, offsets };
                    self.ask(0, What::Ghost, identity, Request::Commit(commit));
                }
            }
            Step::Fetch => self.ask(0, What::Fetch, Identity::default(), Request::Fetch(None)),
            Step::Pass { seconds } => self.pass(seconds),
            Step::Settle => self.settle(),
            Step::Crash { kept } => self.crash(kept),
        }
        self.check_owners();
    }

    fn commit(&self, client: usize, identity: Identity, partition: i32, value: i64) -> Request {
        let offsets = vec![CommitOffset { topic_id: TOPIC, ..offset("t", partition, value) }];
        Request::Commit(Commit { identity, knows_epochs: self.clients[client].is_new_protocol, retention_ms: None, offsets })
    }

    fn go_on(&mut self, client: usize) {
        let asker = &self.clients[client];
        if asker.is_waiting {
            return;
        }
        if asker.is_new_protocol {
            let beat = asker.beat();
            if asker.generation == 0 && asker.era != self.era {
                // Where epochs begin anew, what it was in an earlier era may be what it is again.
                let member = asker.member.clone();
                self.ghosts.retain(|(ghost, _)| ghost.member != member);
            }
            return self.send(client, What::Beat, Request::ConsumerHeartbeat(Box::new(beat)));
        }
        if asker.is_to_join {
            return self.join(client);
        }
        let identity = asker.identity();
        match &asker.joined {
            Some(joined) => {
                let assignments = assign(&joined.members);
                let request = Sync { identity, protocol_type: None, protocol: None, assignments };
                self.send(client, What::Sync, Request::Sync(request));
            }
            None => self.send(client, What::Heartbeat, Request::Heartbeat(identity)),
        }
    }

    fn join(&mut self, client: usize) {
        let asker = &mut self.clients[client];
        if asker.is_new_protocol {
            asker.be_out();
            return self.go_on(client);
        }
        if asker.era != self.era {
            // A group of the new protocol takes it in under the id that it brings.
            self.ghosts.retain(|(ghost, _)| ghost.member != asker.member);
            asker.generation = 0;
        }
        asker.held.clear();
        // Until it is told that it is in, whatever becomes of this request.
        (asker.joined, asker.is_to_join) = (None, true);
        let requires_member_id = asker.id == 0;
        let request = Join { instance: asker.instance(), requires_member_id, ..join(&asker.member) };
        self.send(client, What::Join, Request::Join(Box::new(request)));
    }

    fn leave(&mut self, client: usize, to_come_back: bool) {
        let asker = &mut self.clients[client];
        if asker.generation == 0 || asker.is_waiting {
            return;
        }
        let (identity, instance) = (asker.identity(), asker.instance());
        let request = if asker.is_new_protocol {
            let epoch = if to_come_back && instance.is_some() { -2 } else { -1 };
            Request::ConsumerHeartbeat(Box::new(ConsumerHeartbeat { epoch, owned: None, ..asker.beat() }))
        } else {
            Request::Leave(vec![Leaver { member: asker.member.clone(), instance }])
        };
        // It commits nothing any more once it has said so.
        asker.held.clear();
        asker.is_waiting = true;
        self.ask(client, What::Leave, identity, request);
    }

    fn pass(&mut self, seconds: u64) {
        self.driver.pass_late(Duration::from_secs(seconds));
        self.look();
    }

    fn settle(&mut self) {
        while let Some(replies) = self.driver.commit_next() {
            for (call, answer) in replies {
                let asked = self.asked.remove(&call).expect("EveryCallIsAnswered, once");
                self.hear(asked, answer);
            }
        }
    }

    fn crash(&mut self, kept: usize) {
        self.driver.lose_queue(kept);
        self.driver.restart();
        for (_, Asked { client, life, what, .. }) in std::mem::take(&mut self.asked) {
            let client = &mut self.clients[client];
            if client.life == life && !matches!(what, What::Commit { .. } | What::Ghost | What::Fetch) {
                // It does not know what became of it, and asks again.
                (client.is_waiting, client.says_all) = (false, true);
            }
        }
        // Of the classic protocol nobody writes who left before the next generation is there.
        self.ghosts.retain(|(_, is_new_protocol)| *is_new_protocol);
        let logged = self.logged;
        self.newest = 0;
        self.look();
        assert!(self.logged == 0 || self.newest >= logged, "{} is in the log, and {logged} was", self.newest);
    }

    fn hear(&mut self, asked: Asked, answer: Answer) {
        let Asked { client: at, life, identity, era, what } = asked;
        if era == self.era {
            let heard = match &answer {
                Ok(Reply::Beat(beat)) => beat.epoch,
                Ok(Reply::Synced(_)) => identity.generation,
                _ => 0,
            };
            self.logged = self.logged.max(heard);
        }
        let is_out = |code: ErrorCode| matches!(code, ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID);
        let is_new_protocol = self.clients[at].is_new_protocol;
        match (&what, &answer) {
            (What::Ghost, _) => return assert!(answer.is_err(), "FencedStaysOut: {identity:?} {answer:?}"),
            (What::Commit { partition, offset }, Ok(Reply::Committed(codes))) => {
                assert_eq!(codes, &[ErrorCode::NONE]);
                self.committed.insert(*partition, *offset);
                return;
            }
            (What::Commit { .. }, Err(_)) => return,
            (What::Fetch, Ok(Reply::Fetched(fetched))) => return self.check_offsets(fetched),
            _ => {}
        }
        if self.clients[at].life != life {
            return;
        }
        self.clients[at].is_waiting = false;
        let client = &mut self.clients[at];
        match (what, answer) {
            (What::Beat, Ok(Reply::Beat(Beat { epoch, assignment, .. }))) => {
                assert!(epoch >= client.generation, "EpochsGrow: {epoch} after {}", client.generation);
                if client.generation == 0 {
                    client.era = era;
                }
                (client.generation, client.says_all) = (epoch, false);
                if let Some(assignment) = assignment {
                    let partitions = assignment.get(&TOPIC).cloned().unwrap_or_default();
                    client.held.extend(&partitions);
                    client.told = Some(partitions);
                }
            }
            (What::Beat | What::Leave, Ok(Reply::Refused(refusal))) => {
                if is_out(refusal.code) && identity.generation > 0 {
                    self.ghosts.push((identity, is_new_protocol));
                }
                client.be_out();
            }
            (What::Leave, Ok(Reply::Beat(beat))) => {
                client.be_out();
                if beat.epoch == -1 {
                    // Its id is somebody else's from now on, or may be again.
                    self.ghosts.push((identity, is_new_protocol));
                    self.clients[at] = Client::new(at, life + 1, is_new_protocol);
                }
            }
            (What::Leave, Ok(Reply::Left(codes))) => {
                client.be_out();
                if codes[0].is_none() {
                    self.ghosts.push((identity, is_new_protocol));
                }
            }
            (What::Join, Ok(Reply::MemberIdRequired(id))) => client.member = id,
            (What::Join, Ok(Reply::Joined(joined))) => {
                // It is in at the generation that it heard of last, or somebody new.
                let is_same = client.member == joined.member && client.era == era;
                assert!(!is_same || joined.generation >= client.generation, "GenerationsGrow: {joined:?} {client:?}");
                // In a group of the new protocol it may commit by an older generation what it has held since then.
                let is_of_classic = self.driver.shard.groups.get(GROUP).is_some_and(|group| group.consumer.is_none());
                let is_shut_out = !is_same || is_of_classic && client.generation < joined.generation;
                if client.generation > 0 && is_shut_out {
                    self.ghosts.push((identity, is_new_protocol));
                }
                (client.member, client.generation) = (joined.member.clone(), joined.generation);
                (client.joined, client.is_to_join, client.era) = (Some(*joined), false, era);
            }
            (What::Sync, Ok(Reply::Synced(synced))) => {
                let part = ConsumerProtocolAssignment::from_assignment(&synced.assignment).unwrap_or_default();
                client.held = part.assigned_partitions.iter().flat_map(|topic| topic.partitions.clone()).collect();
                client.joined = None;
            }
            (What::Heartbeat, Ok(Reply::Alive)) => {}
            (What::Join | What::Sync | What::Heartbeat | What::Leave, Err(code)) => {
                if is_out(code) {
                    if identity.generation > 0 && !identity.member.is_empty() {
                        self.ghosts.push((identity, is_new_protocol));
                    }
                    client.be_out();
                } else {
                    (client.joined, client.is_to_join) = (None, true);
                }
            }
            (_, answer) => panic!("{answer:?} to {identity:?}"),
        }
    }

    /// CommittedStays.
    fn check_offsets(&self, fetched: &[(Name, Vec<request::FetchedOffset>)]) {
        let found: BTreeMap<i32, i64> =
            fetched.iter().flat_map(|(_, offsets)| offsets).map(|found| (found.partition, found.offset)).collect();
        assert!(found.values().all(|offset| *offset < self.next_offset), "FencedStaysOut: {found:?}");
        for (partition, offset) in &self.committed {
            let found = found.get(partition);
            assert!(found.is_some_and(|found| found >= offset), "CommittedStays: {partition} at {offset}, found {found:?}");
        }
    }

    /// OneOwner: of all that take a partition for theirs, the coordinator would let one at most commit.
    fn check_owners(&mut self) {
        let Some(group) = self.driver.shard.groups.get(GROUP) else { return };
        for partition in 0..PARTITIONS {
            let is_valid = |client: &&Client| {
                let identity = client.identity();
                match &group.consumer {
                    Some(consumer) => {
                        let partitions = std::iter::once((TOPIC, partition));
                        consumer.check_commit(&identity, client.is_new_protocol, partitions).is_ok()
                    }
                    None => group.classic.would_take(&identity),
                }
            };
            let rivals = self.clients.iter().filter(|client| client.generation > 0 && client.held.contains(&partition));
            let rivals: Vec<Name> = rivals.filter(is_valid).map(|client| client.member.clone()).collect();
            assert!(rivals.len() <= 1, "OneOwner: {partition}: {rivals:?}");
        }
    }

    /// Everybody goes on as clients do, until nothing happens any more.
    fn calm_down(&mut self) {
        for _ in 0..150 {
            self.pass(2);
            self.settle();
            for client in 0..CLIENTS {
                for step in [Step::Apply { client }, Step::GoOn { client }] {
                    self.take(&step);
                    self.settle();
                }
            }
        }
    }
}

/// Partitions in turn.
fn assign(members: &[(Name, Option<Name>, Bytes)]) -> Vec<(Name, Bytes)> {
    let part = |at: usize| {
        let partitions: Vec<i32> = (0..PARTITIONS).filter(|partition| *partition as usize % members.len() == at).collect();
        let assigned_partitions = vec![AssignedTopicPartition { topic: "t".into(), partitions }];
        let mut encoder = Encoder::new();
        ConsumerProtocolAssignment { assigned_partitions, user_data: None }.encode(&mut encoder, 0);
        Bytes::from(encoder.into_buffer())
    };
    members.iter().enumerate().map(|(at, (id, ..))| (id.clone(), part(at))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_the_invariants_hold(steps in prop::collection::vec(step(), 1..150), protocols in any::<[bool; CLIENTS]>()) {
        let mut world = World::new(protocols);
        for step in &steps {
            world.take(step);
        }
        world.settle();
        world.calm_down();
        prop_assert!(world.asked.is_empty(), "EveryCallIsAnswered");

        // Every partition of a stable group has one owner.
        let listed = world.driver.shard.list();
        prop_assert_eq!(listed.len(), 1);
        let described = world.driver.ask(Request::DescribeConsumers);
        prop_assert_eq!(listed[0].state, "Stable", "{:?} {:?}", described, world.clients);
        let is_any_new = world.clients.iter().any(|client| client.is_new_protocol);
        prop_assert_eq!(listed[0].group_type, if is_any_new { "consumer" } else { "classic" });
        let mut owned = Vec::new();
        for client in &world.clients {
            prop_assert!(client.generation > 0 && client.joined.is_none(), "{} is in", client.id);
            owned.extend(client.held.iter().copied());
        }
        owned.sort_unstable();
        prop_assert_eq!(owned, (0..PARTITIONS).collect::<Vec<_>>(), "every partition of a stable group has one owner");

        // Each of them commits what it holds, before and after a crash.
        for _ in 0..2 {
            for partition in 0..PARTITIONS {
                for client in 0..CLIENTS {
                    world.take(&Step::Commit { client, partition });
                }
            }
            world.settle();
            prop_assert_eq!(world.committed.values().filter(|offset| **offset >= world.next_offset - i64::from(PARTITIONS)).count(),
                PARTITIONS as usize, "who is in commits");
            world.take(&Step::Crash { kept: 0 });
            world.take(&Step::Fetch);
            world.settle();
        }
    }
}
