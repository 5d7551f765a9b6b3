//! Who of a group has how many partitions, and since when all of them are dealt out. Pure but for the clock.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// What the members of one group write down while they settle, on one thread.
#[derive(Debug)]
pub(super) struct Board {
    partitions: usize,
    owned: RefCell<Vec<usize>>,
    /// When each member first asked to join.
    joined: RefCell<Vec<Option<Instant>>>,
    dealt_out: Cell<Option<Instant>>,
    deadline: Instant,
}

impl Board {
    /// For so many members, which are to share so many partitions within `patience`.
    pub(super) fn new(members: usize, partitions: u32, patience: Duration) -> Self {
        Self {
            partitions: partitions as usize,
            owned: RefCell::new(vec![0; members]),
            joined: RefCell::new(vec![None; members]),
            dealt_out: Cell::new(None),
            deadline: Instant::now() + patience,
        }
    }

    /// A member is about to ask to join; only the first time counts.
    pub(super) fn joins(&self, seat: usize) {
        self.joined.borrow_mut()[seat].get_or_insert_with(Instant::now);
    }

    /// A member has so many partitions now. All are dealt out once each has its share and the shares come to all of them: in
    /// between, a member may be one generation ahead of another.
    pub(super) fn owns(&self, seat: usize, partitions: usize) {
        let mut owned = self.owned.borrow_mut();
        owned[seat] = partitions;
        let least = self.partitions / owned.len();
        if owned.iter().sum::<usize>() == self.partitions
            && owned.iter().all(|own| *own >= least)
            && self.dealt_out.get().is_none()
        {
            self.dealt_out.set(Some(Instant::now()));
        }
    }

    /// Since when all partitions are dealt out.
    pub(super) fn dealt_out(&self) -> Option<Instant> {
        self.dealt_out.get()
    }

    /// When the last member first asked to join; `None` unless all have.
    pub(super) fn last_joined(&self) -> Option<Instant> {
        self.joined.borrow().iter().copied().try_fold(None, |last, joined| Some(last.max(Some(joined?)))).flatten()
    }

    /// Why it takes too long, if it does.
    pub(super) fn overdue(&self) -> Option<String> {
        let owned = self.owned.borrow();
        (Instant::now() > self.deadline && self.dealt_out.get().is_none()).then(|| {
            let with = owned.iter().filter(|own| **own > 0).count();
            let all = owned.iter().sum::<usize>();
            format!(
                "the group does not come to rest: {with} of {} members have partitions, {all} in all, of a topic with {}",
                owned.len(),
                self.partitions
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_dealt_out_when_each_has_its_share_and_all_are_theirs() {
        let board = Board::new(3, 10, Duration::ZERO);
        board.owns(0, 10);
        assert!(board.dealt_out().is_none(), "two have none");
        board.owns(0, 4);
        board.owns(1, 4);
        board.owns(2, 3);
        assert!(board.dealt_out().is_none(), "eleven of ten: one is behind");
        std::thread::sleep(Duration::from_millis(1));
        assert!(board.overdue().is_some_and(|why| why.contains("3 of 3 members have partitions, 11 in all")));
        board.owns(1, 3);
        let since = board.dealt_out();
        assert!(since.is_some() && board.overdue().is_none());
        board.owns(1, 3);
        assert_eq!(board.dealt_out(), since);
    }

    #[test]
    fn the_last_to_join_counts_and_of_each_the_first_time() {
        let board = Board::new(2, 2, Duration::ZERO);
        board.joins(0);
        assert_eq!(board.last_joined(), None);
        board.joins(1);
        let last = board.last_joined();
        board.joins(0);
        assert!(last.is_some() && board.last_joined() == last);
    }
}
