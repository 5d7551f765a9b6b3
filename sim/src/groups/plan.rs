//! The groups of a seed, their members, and how its broker is set up for them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::core::cleaner::CleanerSettings;
use ringlog_engine::env::random::Random;

use super::known::{Kind, Known};
use super::migrant::Migrant;
use super::operator::{self, Operator};
use super::{classic, consumer, migrant};
use crate::client::admin::NAMES;
use crate::life::Life;

/// How probable it is that a seed has groups.
const SHARE: f64 = 0.5;
/// How probable it is that one of them has members that change their protocol.
const MIGRATION: f64 = 0.5;

/// Whether a seed has groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Groups {
    /// As the seed says.
    #[default]
    BySeed,
    /// Whatever the seed says.
    Always,
    /// Whatever the seed says.
    Never,
}

impl Groups {
    /// What the binary is told, with a space before it.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Self::BySeed => "",
            Self::Always => " --groups always",
            Self::Never => " --groups never",
        }
    }
}

/// Whether a seed that has groups has one whose members change their protocol. It came later: a seed without does what it did before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Migration {
    /// As the seed says.
    #[default]
    BySeed,
    /// Whatever the seed says.
    Always,
    /// Whatever the seed says.
    Never,
}

impl Migration {
    /// What the binary is told, with a space before it.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Self::BySeed => "",
            Self::Always => " --migration always",
            Self::Never => " --migration never",
        }
    }

    /// The luck of those members, if there are any.
    fn luck(self, seed: u64) -> Option<Random> {
        let mut random = Random::new(seed ^ 0x0848_3e27);
        let has_some = random.chance(MIGRATION);
        (self == Self::Always || (self == Self::BySeed && has_some)).then_some(random)
    }
}

/// Everybody who has to do with groups.
pub struct Crowd {
    /// Members of classic groups, with their groups.
    pub classic: Vec<(usize, Rc<RefCell<classic::Member>>)>,
    /// Members of groups of the new protocol, with their groups.
    pub consumers: Vec<(usize, Rc<RefCell<consumer::Member>>)>,
    /// Members that change their protocol, with their groups.
    pub migrants: Vec<(usize, Rc<RefCell<Migrant>>)>,
    operators: Vec<Rc<RefCell<Operator>>>,
}

/// How a seed's broker is set up for its groups.
#[derive(Clone, Debug)]
pub struct Options {
    /// The broker's options.
    pub broker: Vec<(&'static str, String)>,
    /// Compaction, where there is any.
    pub cleaner: Option<CleanerSettings>,
    session: Duration,
    retention_ms: Option<i64>,
}

impl Options {
    /// Those of a seed; none where it has no groups.
    #[must_use]
    pub fn new(seed: u64, groups: Groups) -> Option<(Self, Random)> {
        // Its own luck, so that the rest of a seed does not depend on whether it has groups.
        let mut random = Random::new(seed ^ 0x6709_9500);
        let has_groups = random.chance(SHARE);
        if groups == Groups::Never || (groups == Groups::BySeed && !has_groups) {
            return None;
        }
        let session_ms = 1_000 + random.below(4_000);
        let mut broker = vec![
            ("offsets.topic.num.partitions", (1 + random.below(3)).to_string()),
            ("offsets.topic.replication.factor", "1".to_owned()),
            ("group.min.session.timeout.ms", "1".to_owned()),
            ("group.initial.rebalance.delay.ms", [0, 100, 1_000][random.below(3) as usize].to_string()),
            ("group.consumer.min.session.timeout.ms", "1".to_owned()),
            ("group.consumer.min.heartbeat.interval.ms", "1".to_owned()),
            ("group.consumer.session.timeout.ms", session_ms.to_string()),
            ("group.consumer.heartbeat.interval.ms", "200".to_owned()),
            ("offsets.retention.check.interval.ms", "1500".to_owned()),
        ];
        let retention_ms = random.chance(0.2).then_some(60_000);
        if retention_ms.is_some() {
            broker.push(("offsets.retention.minutes", "1".to_owned()));
        }
        let cleaner = random.chance(0.6).then(|| {
            // Segments of the groups' topic are small, and cleaned soon; those of other topics say themselves how they are.
            broker.push(("log.roll.ms", [50, 500, 5_000][random.below(3) as usize].to_string()));
            broker.push(("log.index.interval.bytes", [0, 500][random.below(2) as usize].to_string()));
            broker.push(("log.index.size.max.bytes", [16, 160, 4_096][random.below(3) as usize].to_string()));
            broker.push(("log.cleaner.min.cleanable.ratio", ["0", "0.2", "0.5"][random.below(3) as usize].to_owned()));
            broker.push(("log.cleaner.delete.retention.ms", [0, 1_000, 86_400_000][random.below(3) as usize].to_string()));
            CleanerSettings {
                backoff: Duration::from_millis([100, 1_000][random.below(2) as usize]),
                // Some keys, or all of them.
                dedupe_bytes_max: if random.chance(0.3) { 24 * (4 + random.below(8) as usize) } else { 64 << 10 },
                step_bytes: 4_096 << random.below(4),
                ..CleanerSettings::default()
            }
        });
        Some((Self { broker, cleaner, session: Duration::from_millis(session_ms), retention_ms }, random))
    }

    /// The groups, and everybody in them.
    pub fn crowd(&self, known: &mut Known, random: &mut Random, seed: u64, migration: Migration) -> Crowd {
        known.retention_ms = self.retention_ms;
        let mut crowd = Crowd { classic: Vec::new(), consumers: Vec::new(), migrants: Vec::new(), operators: Vec::new() };
        for group in 0..1 + random.below(3) as usize {
            let kind = [Kind::Classic, Kind::Consumer, Kind::Simple][random.below(3) as usize];
            let name = format!("{} group {group}", ["classic", "consumer", "simple"][kind as usize]);
            known.add(name.clone(), kind);
            let members = 1 + random.below(3);
            for member in 0..members {
                let wanted = wanted(random);
                let (name, random) = (format!("{name} member {member}"), random.fork());
                match kind {
                    Kind::Classic => crowd.classic.push((group, shared(classic::Member::new(name, group, random, wanted)))),
                    Kind::Consumer => {
                        let member = consumer::Member::new(name, group, random, wanted, self.session);
                        crowd.consumers.push((group, shared(member)));
                    }
                    Kind::Simple | Kind::Mixed => crowd.operators.push(shared(Operator::new(random))),
                }
            }
        }
        crowd.operators.push(shared(Operator::new(random.fork())));
        if let Some(mut random) = migration.luck(seed) {
            let group = known.all.len();
            known.add("mixed group".to_owned(), Kind::Mixed);
            for member in 0..2 + random.below(3) {
                let wanted = wanted(&mut random);
                let migrant = Migrant::new(&format!("migrant {member}"), group, random.fork(), &wanted, self.session);
                crowd.migrants.push((group, shared(migrant)));
            }
        }
        crowd
    }
}

/// The topics that a member wants: some of them, or all.
fn wanted(random: &mut Random) -> Vec<&'static str> {
    let wanted: Vec<_> = NAMES.into_iter().filter(|_| random.chance(0.6)).collect();
    if wanted.is_empty() { NAMES.to_vec() } else { wanted }
}

fn shared<T>(what: T) -> Rc<RefCell<T>> {
    Rc::new(RefCell::new(what))
}

impl Crowd {
    /// They begin another life of the machine.
    pub fn spawn(&self, life: &Rc<Life>) {
        for (_, member) in &self.classic {
            life.env.spawn(Box::pin(classic::run(member.clone(), life.clone())));
        }
        for (_, member) in &self.consumers {
            life.env.spawn(Box::pin(consumer::run(member.clone(), life.clone())));
        }
        for (_, migrant) in &self.migrants {
            life.env.spawn(Box::pin(migrant::run(migrant.clone(), life.clone())));
        }
        for operator in &self.operators {
            life.env.spawn(Box::pin(operator::run(operator.clone(), life.clone())));
        }
    }

    /// What members want, for people.
    pub fn wishes(&self) -> impl Iterator<Item = String> {
        let classic = self.classic.iter().map(|(_, member)| member.borrow().wish());
        let migrants = self.migrants.iter().map(|(_, migrant)| migrant.borrow().consumer.borrow().wish());
        classic.chain(self.consumers.iter().map(|(_, member)| member.borrow().wish())).chain(migrants)
    }

    /// Members stay from now on, and nothing is deleted any more.
    pub fn drain(&self) {
        self.classic.iter().for_each(|(_, member)| member.borrow_mut().drain());
        self.consumers.iter().for_each(|(_, member)| member.borrow_mut().drain());
        self.migrants.iter().for_each(|(_, migrant)| migrant.borrow_mut().drain());
        self.operators.iter().for_each(|operator| operator.borrow_mut().is_draining = true);
    }
}
