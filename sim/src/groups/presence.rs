//! When a member of either protocol does something, and when it is away. For [`super::classic`] and [`super::consumer`]; what a member
//! does and knows is theirs.

use std::cell::RefCell;
use std::time::Duration;

use ringlog_engine::env::random::Random;

use super::ask::Asker;
use crate::life::Life;

/// How long a member waits for its next turn, at the most.
const PAUSE_MAX: Duration = Duration::from_millis(300);
/// What a member does in a turn is one of so many actions, as a number; from `STAYS_FROM` on it stays, and is who it is.
const ACTIONS: u64 = 40;
const STAYS_FROM: u64 = 6;

/// See the module.
pub struct Presence {
    /// Of which member, for people.
    pub name: String,
    /// Its group.
    pub group: usize,
    random: Random,
    away_until: Duration,
    /// Whether it does nothing any more but stay.
    pub is_draining: bool,
}

/// Who has a presence.
pub trait Present {
    /// See [`Presence`].
    fn presence(&mut self) -> &mut Presence;
}

impl Presence {
    /// Somebody who is not away.
    #[must_use]
    pub fn new(name: String, group: usize, random: Random) -> Self {
        Self { name, group, random, away_until: Duration::ZERO, is_draining: false }
    }

    /// It is away for less than `max`. Returns for how long.
    pub fn go_away(&mut self, life: &Life, random: &mut Random, max: Duration) -> Duration {
        let away = Duration::from_millis(random.below(max.as_millis() as u64));
        self.away_until = life.now() + away;
        away
    }

    /// It says nothing any more, for less than two sessions. Returns whether it is another process by then, and knows nothing.
    pub fn vanish(&mut self, life: &Life, random: &mut Random, session: Duration) -> bool {
        let away = self.go_away(life, random, 2 * session);
        life.say(|| format!("{} vanishes for {} ms", self.name, away.as_millis()));
        random.chance(0.5)
    }

    /// What it does in its turn: a number below 40, and not below 6 where it is to stay.
    pub fn action(&self, random: &mut Random) -> u64 {
        if self.is_draining { STAYS_FROM + random.below(ACTIONS - STAYS_FROM) } else { random.below(ACTIONS) }
    }
}

/// A member's next turn. Returns its luck for it; nothing where it does not know the coordinator.
pub async fn turn(member: &RefCell<impl Present>, life: &Life, asker: &mut Asker) -> Option<Random> {
    let (pause, group, mut random) = {
        let mut member = member.borrow_mut();
        let presence = member.presence();
        (presence.random.below(PAUSE_MAX.as_micros() as u64), presence.group, presence.random.fork())
    };
    life.env.sleep(Duration::from_micros(pause)).await;
    let away = {
        let mut member = member.borrow_mut();
        let presence = member.presence();
        if presence.is_draining { Duration::ZERO } else { presence.away_until.saturating_sub(life.now()) }
    };
    if !away.is_zero() {
        life.env.sleep(away).await;
    }
    asker.find(life, &mut random, group).await.then_some(random)
}
