//! Random joins, heartbeats, leaves, time-outs, topics and crashes in a group of the new protocol, with clients that do what they
//! are told, sooner or later. The invariants are named in [`super::super::consumer`] and its modules; what a client holds here is
//! what it would commit. A crash may tear the records of one input apart: more than a log does, which keeps batches whole.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::consumer::{beat, join_to};
use super::request::{Beat, ConsumerHeartbeat};
use super::*;

const CLIENTS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    /// A client that is out comes in; one that is in begins anew.
    Join {
        client: usize,
    },
    Beat {
        client: usize,
    },
    /// A client does what it was told: it gives up what it is not to hold.
    Apply {
        client: usize,
    },
    Leave {
        client: usize,
        to_come_back: bool,
    },
    /// A client is gone without a word, and begins anew under another id.
    Die {
        client: usize,
    },
    /// Somebody commits who was shut out.
    CommitAsGhost {
        ghost: usize,
        partition: i32,
    },
    /// So many partitions each topic has.
    Topics {
        counts: [i32; 2],
    },
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
    let client = 0..CLIENTS;
    prop_oneof![
        3 => client.clone().prop_map(|client| Step::Join { client }),
        8 => client.clone().prop_map(|client| Step::Beat { client }),
        5 => client.clone().prop_map(|client| Step::Apply { client }),
        1 => (client.clone(), any::<bool>()).prop_map(|(client, to_come_back)| Step::Leave { client, to_come_back }),
        1 => client.prop_map(|client| Step::Die { client }),
        1 => (0..20_usize, 0..6_i32).prop_map(|(ghost, partition)| Step::CommitAsGhost { ghost, partition }),
        1 => [0..6_i32, 0..6_i32].prop_map(|counts| Step::Topics { counts }),
        2 => (0..40_u64).prop_map(|seconds| Step::Pass { seconds }),
        6 => Just(Step::Settle),
        1 => (0..12_usize).prop_map(|kept| Step::Crash { kept }),
    ]
}

#[derive(Clone, Default)]
struct Client {
    id: usize,
    /// How often it began anew.
    life: usize,
    /// 0: it is out.
    epoch: i32,
    held: Partitions,
    /// What it was told last to hold, if it has not done so yet.
    told: Option<Partitions>,
    /// It did not hear its last answer, and says everything anew.
    says_all: bool,
    /// It waits for an answer, and sends nothing else.
    is_waiting: bool,
}

impl Client {
    fn member(&self) -> Name {
        format!("client-{}-{}", self.id, self.life).into()
    }

    /// Two of them are static.
    fn instance(&self) -> Option<Name> {
        (self.id % 2 == 1).then(|| format!("static-{}", self.id).into())
    }

    fn join(&self) -> ConsumerHeartbeat {
        let mut join = ConsumerHeartbeat { instance: self.instance(), ..join_to(&self.member(), &["t0", "t1"]) };
        match self.id {
            2 => (join.topics, join.regex) = (Some(BTreeSet::new()), Some("t.*".into())),
            3 => (join.topics, join.assignor) = (Some(BTreeSet::from(["t0".into()])), Some("range".into())),
            _ => {}
        }
        join
    }

    fn beat(&self) -> ConsumerHeartbeat {
        let beat = if self.says_all { self.join() } else { beat(&self.member(), 0) };
        ConsumerHeartbeat { instance: self.instance(), epoch: self.epoch, owned: Some(self.held.clone()), ..beat }
    }

    fn be_out(&mut self) {
        (self.epoch, self.told) = (0, None);
        self.held = Partitions::new();
    }
}

enum Asked {
    Beat { client: usize, life: usize },
    Leave { client: usize, life: usize },
    Ghost(Identity),
}

struct World {
    driver: Driver,
    clients: Vec<Client>,
    asked: BTreeMap<CallId, Asked>,
    ghosts: Vec<(Name, i32)>,
    group_epoch: (i32, i32),
    /// Id and number of partitions of each topic.
    topics: [(u8, i32); 2],
    next_topic: u8,
}

impl World {
    fn new(assignment_interval_ms: i32) -> Self {
        let mut settings = settings();
        settings.group_defaults.consumer_assignment_interval_ms = assignment_interval_ms;
        let mut world = Self {
            driver: Driver::new(settings),
            clients: (0..CLIENTS).map(|id| Client { id, ..Client::default() }).collect(),
            asked: BTreeMap::new(),
            ghosts: Vec::new(),
            group_epoch: (0, 0),
            topics: [(0, 0); 2],
            next_topic: 1,
        };
        world.have_topics([3, 2]);
        world
    }

    /// A topic never shrinks: with fewer partitions it is another one of that name.
    fn have_topics(&mut self, counts: [i32; 2]) {
        for (topic, count) in self.topics.iter_mut().zip(counts) {
            if count < topic.1 || topic.1 == 0 {
                topic.0 = self.next_topic;
                self.next_topic += 1;
            }
            topic.1 = count;
        }
        let named = ["t0", "t1"].into_iter().zip(self.topics).map(|(name, (id, count))| (name, id, count));
        self.driver.set_topics(&named.filter(|(_, _, count)| *count > 0).collect::<Vec<_>>());
    }

    fn ask(&mut self, asked: Asked, request: Request) {
        let call = self.driver.start_late(request);
        self.asked.insert(call, asked);
    }

    fn send(&mut self, client: usize, beat: ConsumerHeartbeat) {
        let life = self.clients[client].life;
        self.clients[client].is_waiting = true;
        self.ask(Asked::Beat { client, life }, Request::ConsumerHeartbeat(Box::new(beat)));
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Join { client } => {
                if !self.clients[client].is_waiting {
                    self.clients[client].be_out();
                    // Who comes back under the id that it had is no ghost: its epoch may be the same again.
                    let member = self.clients[client].member();
                    self.ghosts.retain(|(ghost, _)| *ghost != member);
                    let join = self.clients[client].join();
                    self.send(client, join);
                }
            }
            Step::Beat { client } => {
                if self.clients[client].epoch > 0 && !self.clients[client].is_waiting {
                    let beat = self.clients[client].beat();
                    self.send(client, beat);
                }
            }
            Step::Apply { client } => {
                let client = &mut self.clients[client];
                if let Some(told) = client.told.take() {
                    client.held = told;
                }
            }
            Step::Leave { client, to_come_back } => {
                let asker = &mut self.clients[client];
                if asker.epoch > 0 && !asker.is_waiting {
                    let to_come_back = to_come_back && asker.instance().is_some();
                    let epoch = if to_come_back { -2 } else { -1 };
                    let request = ConsumerHeartbeat { epoch, owned: None, ..asker.beat() };
                    asker.is_waiting = true;
                    let (life, was) = (asker.life, asker.epoch);
                    if !to_come_back {
                        self.ghosts.push((asker.member(), was));
                    }
                    // It commits nothing any more once it has said so.
                    asker.be_out();
                    let asked = Asked::Leave { client, life };
                    self.ask(asked, Request::ConsumerHeartbeat(Box::new(request)));
                }
            }
            Step::Die { client } => {
                let client = &mut self.clients[client];
                client.be_out();
                client.life += 1;
                client.is_waiting = false;
            }
            Step::CommitAsGhost { ghost, partition } => {
                if let Some((member, generation)) = self.ghosts.get(ghost).cloned() {
                    let identity = Identity { member, generation, instance: None };
                    let offsets = vec![CommitOffset { topic_id: [1; 16], ..offset("t0", partition, 1) }];
                    let request = Commit { identity: identity.clone(), knows_epochs: true, retention_ms: None, offsets };
                    self.ask(Asked::Ghost(identity), Request::Commit(request));
                }
            }
            Step::Topics { counts } => self.have_topics(counts),
            Step::Pass { seconds } => self.pass(seconds),
            Step::Settle => self.settle(),
            Step::Crash { kept } => self.crash(kept),
        }
        self.check_owners();
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
        if let Ok(Reply::DescribedConsumers(described)) = self.driver.ask(Request::DescribeConsumers) {
            let epochs = (described.epoch, described.assignment_epoch);
            assert!(epochs.0 >= self.group_epoch.0 && epochs.1 >= self.group_epoch.1, "EpochsGrow: {epochs:?}");
            assert!(epochs.1 <= epochs.0);
            self.group_epoch = epochs;
        }
    }

    fn crash(&mut self, kept: usize) {
        self.driver.lose_queue(kept);
        for (_, asked) in std::mem::take(&mut self.asked) {
            match asked {
                // It does not know what became of it, and asks again.
                Asked::Beat { client, life } if self.clients[client].life == life => {
                    (self.clients[client].is_waiting, self.clients[client].says_all) = (false, true);
                }
                Asked::Leave { client, life } => {
                    // It was not heard, perhaps: then it is no ghost yet.
                    if self.clients[client].life == life {
                        self.clients[client].is_waiting = false;
                    }
                    let gone = Client { id: client, life, ..Client::default() }.member();
                    self.ghosts.retain(|(member, _)| *member != gone);
                }
                _ => {}
            }
        }
        self.driver.restart();
    }

    fn hear(&mut self, asked: Asked, answer: Answer) {
        let (client, life) = match asked {
            Asked::Ghost(identity) => return assert!(answer.is_err(), "FencedStaysOut: {identity:?} {answer:?}"),
            Asked::Leave { client, life } => {
                if self.clients[client].life == life {
                    self.clients[client].is_waiting = false;
                }
                return;
            }
            Asked::Beat { client, life } => (client, life),
        };
        let client = &mut self.clients[client];
        if client.life != life {
            return;
        }
        client.is_waiting = false;
        match answer {
            Ok(Reply::Beat(Beat { epoch, assignment, .. })) => {
                assert!(epoch >= client.epoch, "EpochsGrow: {epoch} after {}", client.epoch);
                client.epoch = epoch;
                client.says_all = false;
                if let Some(assignment) = assignment {
                    for (topic, partitions) in &assignment {
                        client.held.get_or_default(*topic).extend(partitions);
                    }
                    client.told = Some(assignment);
                }
            }
            Ok(Reply::Refused(refusal)) => {
                if refusal.code == ErrorCode::UNKNOWN_MEMBER_ID && client.epoch > 0 {
                    self.ghosts.push((client.member(), client.epoch));
                }
                client.be_out();
            }
            other => panic!("{other:?}"),
        }
    }

    /// OneOwner: of all that take a partition for theirs, the coordinator would let one at most commit.
    fn check_owners(&mut self) {
        let mut owners: BTreeMap<(Uuid, i32), Vec<Name>> = BTreeMap::new();
        for client in self.clients.iter().filter(|client| client.epoch > 0) {
            for (topic, partitions) in &client.held {
                for partition in partitions {
                    owners.entry((*topic, *partition)).or_default().push(client.member());
                }
            }
        }
        for ((topic_id, partition), rivals) in owners.into_iter().filter(|(_, owners)| owners.len() > 1) {
            let valid = rivals.iter().filter(|member| {
                let client = self.clients.iter().find(|client| client.member() == **member).expect("it is one of them");
                let identity = Identity { member: (*member).clone(), instance: None, generation: client.epoch };
                let partitions = std::iter::once((topic_id, partition));
                let group = self.driver.shard.groups.get(GROUP).and_then(|group| group.consumer.as_ref());
                group.is_some_and(|group| group.check_commit(&identity, true, partitions).is_ok())
            });
            assert!(valid.count() <= 1, "OneOwner: {topic_id:?}-{partition}: {rivals:?}");
        }
    }

    /// Everybody who is in goes on as clients do, until nothing happens any more.
    fn calm_down(&mut self) {
        for _ in 0..40 {
            self.pass(5);
            self.settle();
            for client in 0..CLIENTS {
                self.take(&Step::Apply { client });
                let is_out = self.clients[client].epoch == 0;
                let step = if is_out { Step::Join { client } } else { Step::Beat { client } };
                if self.clients[client].life < 1000 {
                    self.take(&step);
                }
                self.settle();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_the_invariants_hold(steps in prop::collection::vec(step(), 1..150), leavers in 0..CLIENTS,
        assignment_interval_ms in prop_oneof![2 => Just(0), 1 => 1..12_000]) {
        let mut world = World::new(assignment_interval_ms);
        for step in &steps {
            world.take(step);
        }
        world.settle();
        world.calm_down();
        // Some go without a word.
        for client in &mut world.clients[..leavers] {
            client.be_out();
            client.life = 1000;
        }
        world.calm_down();
        prop_assert!(world.asked.is_empty());

        // Every partition of a stable group that somebody wants has one owner.
        let described = match world.driver.ask(Request::DescribeConsumers) {
            Ok(Reply::DescribedConsumers(described)) => *described,
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(described.state, "Stable");
        prop_assert_eq!(described.members.len(), CLIENTS - leavers);
        let mut owned = BTreeSet::new();
        for client in &world.clients[leavers..] {
            let of_client: BTreeSet<_> =
                client.held.iter().flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition))).collect();
            let member = described.members.iter().find(|member| member.member == client.member()).expect("it is in");
            prop_assert_eq!(member.epoch, client.epoch);
            let known: BTreeSet<_> =
                member.assigned.iter().flat_map(|(id, _, partitions)| partitions.iter().map(|partition| (*id, *partition))).collect();
            prop_assert_eq!(&known, &of_client);
            for partition in of_client {
                prop_assert!(owned.insert(partition), "OneOwner");
            }
        }
        let is_wanted = |name: &str| name == "t0" || leavers < 3;
        let all: BTreeSet<_> = world.driver.topics.0.iter().filter(|(name, _)| is_wanted(name))
            .flat_map(|(_, (id, count))| (0..*count).map(|partition| (*id, partition))).collect();
        prop_assert_eq!(owned, all, "every partition of a stable group has one owner");

        // StateIsReplayed. Patterns are made into tables again when topics come.
        let tables = world.driver.shard.groups[GROUP].consumer.as_ref().map_or(0, |group| group.tables_bytes());
        let before = (world.driver.ask(Request::DescribeConsumers), world.driver.usage.bytes() - tables);
        world.driver.restart();
        prop_assert_eq!(before, (world.driver.ask(Request::DescribeConsumers), world.driver.usage.bytes()));
    }
}
