//! Random joins, leaves, time-outs, commits and crashes, against what has to hold whatever comes. The invariants are named in
//! [`super::super::classic`]; here too: **CommittedStays** (an offset whose commit was answered is found, or a later one).

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const PARTITIONS: i32 = 5;

#[derive(Clone, Debug)]
enum Step {
    /// A client joins, as what it is or as somebody new.
    Join {
        client: usize,
        is_new: bool,
    },
    /// A client asks for its part; the leader assigns.
    Sync {
        client: usize,
    },
    Heartbeat {
        client: usize,
    },
    Leave {
        client: usize,
    },
    Commit {
        client: usize,
        partition: i32,
    },
    /// Somebody commits who was shut out: the `ghost`th of them.
    CommitAsGhost {
        ghost: usize,
        partition: i32,
    },
    Fetch,
    Pass {
        seconds: u64,
    },
    /// Everything so far is committed and answered.
    Settle,
    /// The broker is gone: of what is not answered, so many outputs are in the log after all.
    Crash {
        kept: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..4_usize;
    let partition = 0..PARTITIONS;
    prop_oneof![
        4 => (client.clone(), prop::bool::weighted(0.2)).prop_map(|(client, is_new)| Step::Join { client, is_new }),
        4 => client.clone().prop_map(|client| Step::Sync { client }),
        2 => client.clone().prop_map(|client| Step::Heartbeat { client }),
        1 => client.clone().prop_map(|client| Step::Leave { client }),
        3 => (client, partition.clone()).prop_map(|(client, partition)| Step::Commit { client, partition }),
        1 => (0..20_usize, partition).prop_map(|(ghost, partition)| Step::CommitAsGhost { ghost, partition }),
        1 => Just(Step::Fetch),
        2 => (0..12_u64).prop_map(|seconds| Step::Pass { seconds }),
        6 => Just(Step::Settle),
        1 => (0..4_usize).prop_map(|kept| Step::Crash { kept }),
    ]
}

#[derive(Clone, Default)]
struct Client {
    instance: Option<Name>,
    member: Name,
    generation: i32,
    /// What it was told when it joined, while it has not synced.
    joined: Option<Joined>,
}

#[derive(Clone, Debug)]
enum Asked {
    Join { client: usize },
    Sync { client: usize, identity: Identity },
    Heartbeat { client: usize },
    Leave { client: usize, identity: Identity },
    Commit { identity: Identity, partition: i32, offset: i64, is_ghost: bool },
    Fetch,
}

struct World {
    driver: Driver,
    clients: Vec<Client>,
    asked: BTreeMap<CallId, Asked>,
    /// Identities that were shut out.
    ghosts: BTreeSet<(Name, i32)>,
    newest_generation: i32,
    /// The newest generation of which somebody got its part: the log has it.
    logged_generation: i32,
    owners: BTreeMap<(i32, i32), Name>,
    committed: BTreeMap<i32, i64>,
    tried: BTreeSet<(i32, i64)>,
    next_offset: i64,
}

impl World {
    fn new() -> Self {
        let settings = Settings { group_size_max: 3, ..settings() };
        let client = |at: usize| Client { instance: (at % 2 == 1).then(|| format!("static-{at}").into()), ..Client::default() };
        Self {
            driver: Driver::new(settings),
            clients: (0..4).map(client).collect(),
            asked: BTreeMap::new(),
            ghosts: BTreeSet::new(),
            newest_generation: 0,
            logged_generation: 0,
            owners: BTreeMap::new(),
            committed: BTreeMap::new(),
            tried: BTreeSet::new(),
            next_offset: 1,
        }
    }

    fn ask(&mut self, asked: Asked, request: Request) {
        let call = self.driver.start_late(request);
        self.asked.insert(call, asked);
    }

    fn identity(&self, client: usize) -> Identity {
        let Client { instance, member, generation, .. } = self.clients[client].clone();
        Identity { member, instance, generation }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Join { client, is_new } => {
                if is_new {
                    self.clients[client].member = "".into();
                }
                let Client { instance, member, .. } = self.clients[client].clone();
                let requires_member_id = instance.is_none() && client == 0;
                let request = Join { instance, requires_member_id, knows_skip_assignment: client < 2, ..join(&member) };
                self.ask(Asked::Join { client }, Request::Join(Box::new(request)));
            }
            Step::Sync { client } => {
                let identity = self.identity(client);
                let assignments = self.clients[client].joined.as_ref().map(|joined| assign(&joined.members));
                let asked = Asked::Sync { client, identity: identity.clone() };
                let assignments = assignments.unwrap_or_default();
                self.ask(asked, Request::Sync(Sync { identity, assignments, ..Sync::default() }));
            }
            Step::Heartbeat { client } => {
                self.ask(Asked::Heartbeat { client }, Request::Heartbeat(self.identity(client)));
            }
            Step::Leave { client } => {
                let identity = self.identity(client);
                let leaver = Leaver { member: identity.member.clone(), instance: identity.instance.clone() };
                self.ask(Asked::Leave { client, identity }, Request::Leave(vec![leaver]));
            }
            Step::Commit { client, partition } => {
                let identity = self.identity(client);
                if identity.generation > 0 {
                    let is_ghost = self.ghosts.contains(&(identity.member.clone(), identity.generation));
                    self.commit(identity, partition, is_ghost);
                }
            }
            Step::CommitAsGhost { ghost, partition } => {
                if let Some((member, generation)) = self.ghosts.iter().nth(ghost).cloned() {
                    self.commit(Identity { member, generation, instance: None }, partition, true);
                }
            }
            Step::Fetch => self.ask(Asked::Fetch, Request::Fetch(None)),
            Step::Pass { seconds } => self.pass(seconds),
            Step::Settle => self.settle(),
            Step::Crash { kept } => self.crash(kept),
        }
    }

    fn commit(&mut self, identity: Identity, partition: i32, is_ghost: bool) {
        let value = self.next_offset;
        self.next_offset += 1;
        self.tried.insert((partition, value));
        let request = commit(identity.clone(), vec![offset("t", partition, value)]);
        self.ask(Asked::Commit { identity, partition, offset: value, is_ghost }, request);
    }

    fn pass(&mut self, seconds: u64) {
        self.driver.pass_late(Duration::from_secs(seconds));
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
        for _ in 0..kept {
            self.driver.commit_next();
        }
        self.driver.lose_queue(0);
        self.asked.clear();
        self.driver.restart();
        self.newest_generation = self.logged_generation;
        // Who left, and was not written to have left, is back until its session ends. What is in the log stays.
        self.ghosts.retain(|(_, generation)| *generation < self.logged_generation);
    }

    fn hear(&mut self, asked: Asked, answer: Answer) {
        let shut_out = |error: &ErrorCode| matches!(*error, ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID);
        match (asked, answer) {
            (Asked::Join { client }, Ok(Reply::Joined(joined))) => self.hear_joined(client, *joined),
            (Asked::Join { client }, Ok(Reply::MemberIdRequired(id))) => self.clients[client].member = id,
            (Asked::Sync { client, identity }, Ok(Reply::Synced(synced))) => self.hear_synced(client, &identity, &synced),
            (Asked::Leave { client, identity }, Ok(Reply::Left(codes))) => {
                if codes[0].is_none() {
                    self.shut_out(client, identity);
                }
            }
            (Asked::Commit { identity, partition, offset, is_ghost }, Ok(Reply::Committed(codes))) => {
                assert_eq!(codes, [ErrorCode::NONE]);
                assert!(!is_ghost, "FencedStaysOut: {identity:?}");
                self.committed.insert(partition, offset);
            }
            (Asked::Fetch, Ok(Reply::Fetched(fetched))) => self.hear_offsets(&fetched),
            (Asked::Join { client } | Asked::Sync { client, .. } | Asked::Heartbeat { client }, Err(error)) => {
                if shut_out(&error) {
                    self.clients[client].member = "".into();
                    self.clients[client].generation = 0;
                }
            }
            (Asked::Heartbeat { .. }, Ok(Reply::Alive)) | (Asked::Commit { .. } | Asked::Leave { .. }, Err(_)) => {}
            (asked, answer) => panic!("{answer:?} to {asked:?}"),
        }
    }

    fn shut_out(&mut self, client: usize, identity: Identity) {
        if self.clients[client].member == identity.member {
            self.clients[client].member = "".into();
            self.clients[client].generation = 0;
        }
        // By its instance id alone whoever has that now is out, not who it was.
        if identity.generation > 0 && !identity.member.is_empty() {
            self.ghosts.insert((identity.member, identity.generation));
        }
    }

    fn hear_joined(&mut self, client: usize, joined: Joined) {
        assert!(
            joined.generation >= self.newest_generation,
            "GenerationsGrow: {} after {}",
            joined.generation,
            self.newest_generation
        );
        self.newest_generation = joined.generation;
        let before = self.clients[client].clone();
        // A client that joins twice without an id is two members, unless they have one instance id.
        let is_replaced = before.instance.is_some() && before.member != joined.member;
        if before.generation > 0 && (before.generation < joined.generation || is_replaced) {
            self.ghosts.insert((before.member, before.generation));
        }
        let client = &mut self.clients[client];
        client.member = joined.member.clone();
        client.generation = joined.generation;
        client.joined = Some(joined);
    }

    fn hear_synced(&mut self, client: usize, identity: &Identity, synced: &Synced) {
        let generation = identity.generation;
        assert!(generation >= self.logged_generation, "GenerationsGrow");
        self.logged_generation = generation;
        let who = identity.instance.as_ref().unwrap_or(&identity.member);
        for partition in synced.assignment.iter() {
            let owner = self.owners.entry((generation, i32::from(*partition))).or_insert_with(|| who.clone());
            assert_eq!(owner, who, "OneAssignmentPerGeneration: partition {partition} of {generation}");
        }
        self.clients[client].joined = None;
    }

    /// CommittedStays.
    fn hear_offsets(&mut self, fetched: &[(Name, Vec<request::FetchedOffset>)]) {
        let found: BTreeMap<i32, i64> =
            fetched.iter().flat_map(|(_, offsets)| offsets).map(|found| (found.partition, found.offset)).collect();
        for (partition, offset) in &found {
            assert!(self.tried.contains(&(*partition, *offset)), "somebody committed it");
        }
        for (partition, offset) in &self.committed {
            let found = found.get(partition);
            assert!(found.is_some_and(|found| found >= offset), "CommittedStays: {partition} at {offset}, found {found:?}");
        }
    }
}

/// Partitions in turn, one byte each.
fn assign(members: &[(Name, Option<Name>, Bytes)]) -> Vec<(Name, Bytes)> {
    let part =
        |at: usize| (0..PARTITIONS as u8).filter(|partition| usize::from(*partition) % members.len() == at).collect::<Vec<_>>();
    members.iter().enumerate().map(|(at, (id, ..))| (id.clone(), part(at).into())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_the_invariants_hold(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.settle();
        world.take(&Step::Fetch);
        world.settle();
        // Nobody does anything more: everybody is answered, and everybody's session ends.
        for _ in 0..20 {
            world.pass(600);
            world.settle();
        }
        prop_assert!(world.asked.is_empty(), "EveryCallIsAnswered: {:?}", world.asked);
        let listed = world.driver.shard.list();
        prop_assert!(listed.iter().all(|group| group.state == "Empty"), "{listed:?}");
        // What is in memory is what the log says.
        let fetched = |world: &mut World| world.driver.ask(Request::Fetch(None));
        let before = (listed, fetched(&mut world), world.driver.usage.bytes());
        world.driver.restart();
        prop_assert_eq!(before, (world.driver.shard.list(), fetched(&mut world), world.driver.usage.bytes()));
    }
}
