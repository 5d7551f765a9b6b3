//! Which core serves a connection best. Handlers say what they see; the connection follows when nothing is under way.
//!
//! A connection on which the members of a group speak goes to the core of the group's coordinator, once: there a heartbeat wakes
//! one core instead of two. One that carries records belongs where it was dealt, so that what many consumers of one group read is
//! spread over the cores.

use std::cell::Cell;

/// A connection's place among the cores.
#[derive(Clone, Debug)]
pub struct Home {
    /// The core that it was dealt to.
    dealt: usize,
    wanted: Cell<usize>,
    carries_records: Cell<bool>,
    follows_a_group: Cell<bool>,
}

impl Home {
    /// Of a connection that was dealt to a core.
    #[must_use]
    pub fn dealt_to(core: usize) -> Self {
        Self { dealt: core, wanted: Cell::new(core), carries_records: Cell::new(false), follows_a_group: Cell::new(false) }
    }

    /// Told when a member of a group whose coordinator is on this core has spoken.
    pub fn is_of_group_on(&self, core: usize) {
        if !self.carries_records.get() && !self.follows_a_group.replace(true) {
            self.wanted.set(core);
        }
    }

    /// Told when records come or go by it.
    pub fn carries_records(&self) {
        self.carries_records.set(true);
        self.wanted.set(self.dealt);
    }

    /// Where the connection should be.
    pub(super) fn core(&self) -> usize {
        self.wanted.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_follows_one_group_and_returns_to_carry_records() {
        let home = Home::dealt_to(1);
        assert_eq!(home.core(), 1);
        home.is_of_group_on(0);
        assert_eq!(home.core(), 0);
        home.is_of_group_on(2);
        assert_eq!(home.core(), 0, "members of several groups do not move it to and fro");
        home.carries_records();
        assert_eq!(home.core(), 1);
        home.is_of_group_on(0);
        assert_eq!(home.core(), 1);
    }
}
