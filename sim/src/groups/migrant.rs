//! A member that changes from one protocol to the other, as an application does that is rolled out anew with another
//! `group.protocol`, and back: now a [`classic`] member, now a [`consumer`], in a group where others are either. What it does as each
//! is theirs; here is when it changes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::env::random::Random;

use super::ask::Asker;
use super::{classic, consumer};
use crate::life::Life;

/// How probable it is that it changes before a turn.
const CHANGE: f64 = 0.05;
/// How long it waits where it does not know the coordinator.
const PAUSE: Duration = Duration::from_millis(100);
/// How many have an instance id: it is the same by both protocols.
const STATIC: f64 = 0.4;

/// See the module.
pub struct Migrant {
    /// What it is, or was, by the classic protocol.
    pub classic: Rc<RefCell<classic::Member>>,
    /// By the new one.
    pub consumer: Rc<RefCell<consumer::Member>>,
    /// Which of them it is.
    pub speaks_new: bool,
    group: usize,
    is_draining: bool,
    random: Random,
}

impl Migrant {
    /// A member that is not in yet.
    #[must_use]
    pub fn new(name: &str, group: usize, mut random: Random, topics: &[&'static str], session: Duration) -> Self {
        let instance = random.chance(STATIC).then(|| format!("static {name}"));
        let classic = classic::Member::new(format!("{name} (classic)"), group, random.fork(), topics.to_vec());
        let consumer = consumer::Member::new(format!("{name} (new)"), group, random.fork(), topics.to_vec(), session);
        Self {
            classic: Rc::new(RefCell::new(classic.mixed(instance.clone()))),
            consumer: Rc::new(RefCell::new(consumer.with_instance(instance))),
            speaks_new: random.chance(0.5),
            group,
            is_draining: false,
            random,
        }
    }

    /// It stays from now on, by the protocol that it speaks.
    pub fn drain(&mut self) {
        self.is_draining = true;
        self.classic.borrow_mut().drain();
        self.consumer.borrow_mut().drain();
    }
}

/// Its life in one life of the machine.
pub async fn run(migrant: Rc<RefCell<Migrant>>, life: Rc<Life>) {
    let mut asker = Asker::default();
    let (classic, consumer, group) = {
        let migrant = migrant.borrow();
        (migrant.classic.clone(), migrant.consumer.clone(), migrant.group)
    };
    loop {
        let (speaks_new, changes, mut random) = {
            let migrant = &mut *migrant.borrow_mut();
            let changes = !migrant.is_draining && migrant.random.chance(CHANGE);
            (migrant.speaks_new, changes, migrant.random.fork())
        };
        match (changes, speaks_new) {
            (false, false) => classic::step(&classic, &life, &mut asker).await,
            (false, true) => consumer::step(&consumer, &life, &mut asker).await,
            (true, _) if !asker.find(&life, &mut random, group).await => life.env.sleep(PAUSE).await,
            (true, _) => {
                let says_so = random.chance(0.6);
                life.say(|| format!("{} changes its protocol", consumer.borrow().name()));
                life.model.borrow_mut().groups.changed_count += 1;
                // Whoever it was is gone by the first thing that is waited for, since the life may end there.
                migrant.borrow_mut().speaks_new = !speaks_new;
                if speaks_new {
                    consumer::retire(&consumer, &life, &mut asker, &mut random, says_so).await;
                } else {
                    classic::retire(&classic, &life, &mut asker, &mut random, says_so).await;
                }
            }
        }
    }
}
