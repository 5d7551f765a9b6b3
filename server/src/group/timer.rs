//! Timers without a clock: deadlines in a queue. Moving a deadline back costs nothing, so a heartbeat is cheap: the queue's entry
//! stays, and is looked at again when its time comes. Entries whose timers are gone with their members, or cleared, are thrown away
//! when they may be more than the others.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::Name;

/// What a deadline is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// A member's session.
    Session(Name),
    /// The time that an id, given out, waits for its member.
    Pending(Name),
    /// The end of the joining.
    Join,
    /// The end of the waiting for SyncGroup.
    Sync,
    /// The session of a member of a group of the new protocol.
    ConsumerSession(Name),
    /// The time that such a member has for giving up what it is to give up.
    Revocation(Name),
    /// The time that a member has for SyncGroup that speaks the classic protocol in such a group.
    ConsumerSync(Name),
}

impl Alarm {
    /// The member of a group of the new protocol that it is for.
    pub(super) fn consumer(&self) -> Option<&Name> {
        match self {
            Self::ConsumerSession(id) | Self::Revocation(id) | Self::ConsumerSync(id) => Some(id),
            Self::Session(_) | Self::Pending(_) | Self::Join | Self::Sync => None,
        }
    }
}

/// How many entries are always kept.
const KEPT_MIN: usize = 64;

/// What a timer is for, and when it is due. The timer alone keeps it: names that a client chose go with it.
#[derive(Debug)]
struct Deadline {
    due: Cell<Duration>,
    /// The time of its entry in the queue: not later than that.
    queued_at: Cell<Duration>,
    group: Name,
    alarm: Alarm,
}

/// When to look at a deadline. The greatest is the next one; of those of one time, the first that was made.
struct Entry {
    at: Duration,
    sequence: u64,
    /// Nobody has it any more where the timer is gone, cleared, or set to an earlier time.
    deadline: Weak<Deadline>,
}

impl Entry {
    fn is_live(&self) -> bool {
        self.deadline.strong_count() > 0
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

/// The deadlines of all groups of a shard, the next one first.
#[derive(Default)]
pub(super) struct TimerQueue {
    entries: BinaryHeap<Entry>,
    /// How many were live when that was last looked at.
    live_count: usize,
    next_sequence: u64,
}

impl TimerQueue {
    /// When something may be due, at the earliest.
    pub(super) fn next(&self) -> Option<Duration> {
        self.entries.peek().map(|entry| entry.at)
    }

    /// The first timer that is due: its group, and what it is for. Whoever has it clears it.
    pub(super) fn pop(&mut self, now: Duration) -> Option<(Name, Alarm)> {
        self.pop_if(now, |_, _| true)
    }

    /// The first timer that is due, if its group and what it is for are as wanted.
    pub(super) fn pop_if(&mut self, now: Duration, is_wanted: impl Fn(&Name, &Alarm) -> bool) -> Option<(Name, Alarm)> {
        while let Some(entry) = self.entries.peek().filter(|entry| entry.at <= now) {
            let deadline = entry.deadline.upgrade();
            let is_due = |deadline: &Rc<Deadline>| deadline.due.get() <= now;
            if let Some(due) = deadline.as_ref().filter(|deadline| is_due(deadline))
                && !is_wanted(&due.group, &due.alarm)
            {
                return None;
            }
            self.entries.pop();
            match deadline {
                Some(due) if is_due(&due) => return Some((due.group.clone(), due.alarm.clone())),
                Some(later) => self.push(&later),
                None => {}
            }
        }
        None
    }

    fn push(&mut self, deadline: &Rc<Deadline>) {
        if self.entries.len() >= KEPT_MIN.max(2 * self.live_count) {
            self.entries.retain(Entry::is_live);
            self.live_count = self.entries.len();
        }
        let at = deadline.due.get();
        deadline.queued_at.set(at);
        self.entries.push(Entry { at, sequence: self.next_sequence, deadline: Rc::downgrade(deadline) });
        self.next_sequence += 1;
    }
}

/// One deadline; small, for most of them are not set.
#[derive(Debug, Default)]
pub(super) struct Timer(Option<Rc<Deadline>>);

impl Timer {
    pub(super) fn set(&mut self, at: Duration, queue: &mut TimerQueue, group: &Name, alarm: impl FnOnce() -> Alarm) {
        match &self.0 {
            Some(deadline) if deadline.queued_at.get() <= at => deadline.due.set(at),
            _ => {
                let (due, queued_at) = (Cell::new(at), Cell::new(at));
                let deadline = Rc::new(Deadline { due, queued_at, group: group.clone(), alarm: alarm() });
                queue.push(&deadline);
                self.0 = Some(deadline);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The groups whose timers are due.
    fn due(queue: &mut TimerQueue, now_s: u64) -> Vec<Name> {
        std::iter::from_fn(|| queue.pop(Duration::from_secs(now_s))).map(|(group, _)| group).collect()
    }

    #[test]
    fn a_deadline_moves_back_and_forth_and_rings_once() {
        let mut queue = TimerQueue::default();
        let group: Name = "g".into();
        let mut timer = Timer::default();
        let at = Duration::from_secs;
        timer.set(at(10), &mut queue, &group, || Alarm::Join);
        timer.set(at(20), &mut queue, &group, || Alarm::Join);
        assert!(due(&mut queue, 19).is_empty());
        timer.set(at(19), &mut queue, &group, || Alarm::Join);
        assert_eq!(due(&mut queue, 19).len(), 1);
        timer.clear();
        assert!(due(&mut queue, 99).is_empty());
        timer.set(at(120), &mut queue, &group, || Alarm::Join);
        timer.clear();
        assert_eq!((due(&mut queue, 130).len(), queue.next()), (0, None));
    }

    #[test]
    fn the_first_one_is_taken_only_if_it_is_wanted() {
        let mut queue = TimerQueue::default();
        let (one, other): (Name, Name) = ("one".into(), "other".into());
        let (mut first, mut moved, mut second) = (Timer::default(), Timer::default(), Timer::default());
        let at = Duration::from_secs;
        moved.set(at(1), &mut queue, &other, || Alarm::Join);
        moved.set(at(30), &mut queue, &other, || Alarm::Join);
        first.set(at(10), &mut queue, &one, || Alarm::Join);
        second.set(at(11), &mut queue, &other, || Alarm::Sync);
        assert_eq!(queue.pop_if(at(20), |group, _| *group == other), None, "the first that is due is another's");
        assert_eq!(queue.pop_if(at(20), |group, _| *group == one), Some((one.clone(), Alarm::Join)));
        assert_eq!(queue.pop_if(at(10), |_, _| true), None);
        assert_eq!(queue.pop_if(at(20), |_, alarm| *alarm == Alarm::Sync), Some((other.clone(), Alarm::Sync)));
        assert_eq!((queue.pop(at(20)), queue.pop(at(30))), (None, Some((other, Alarm::Join))));
    }

    #[test]
    fn a_timer_that_is_gone_keeps_no_name() {
        let mut queue = TimerQueue::default();
        let group = Name::from("g");
        let mut timer = Timer::default();
        timer.set(Duration::from_secs(1), &mut queue, &group, || Alarm::Session(group.clone()));
        assert_eq!(std::sync::Arc::strong_count(&group), 3);
        timer.clear();
        assert_eq!((std::sync::Arc::strong_count(&group), queue.entries.len()), (1, 1));
    }

    #[test]
    fn a_cleared_timer_is_no_reason_to_keep_its_entry() {
        let (mut queue, group) = (TimerQueue::default(), Name::from("g"));
        let mut timers: Vec<Timer> = (0..1000).map(|_| Timer::default()).collect();
        for second in 0..10_000 {
            let timer = &mut timers[second as usize % 1000];
            timer.set(Duration::from_secs(100_000 - second), &mut queue, &group, || Alarm::Join);
            timer.clear();
        }
        assert!(queue.entries.len() <= KEPT_MIN, "{}", queue.entries.len());
        assert_eq!((due(&mut queue, 200_000).len(), size_of::<Timer>()), (0, 8));
    }

    #[test]
    fn what_is_kept_is_bounded_by_the_timers_that_there_are() {
        let (mut queue, other) = (TimerQueue::default(), Name::from("other"));
        let at = Duration::from_secs;
        let names: Vec<Name> = (0..100).map(|number| format!("{number:02}").into()).collect();
        let mut lasting: Vec<Timer> = (0..100).map(|_| Timer::default()).collect();
        for (second, (timer, name)) in (0..).zip(lasting.iter_mut().zip(&names)) {
            timer.set(at(second + 500), &mut queue, name, || Alarm::Join);
        }
        for second in 0..10_000 {
            Timer::default().set(at(1000 + second), &mut queue, &other, || Alarm::Sync);
            // An earlier deadline has another entry.
            let earlier = at(400).saturating_sub(Duration::from_millis(second));
            lasting[0].set(earlier, &mut queue, &names[0], || Alarm::Join);
            assert!(queue.entries.len() <= 202, "{}", queue.entries.len());
        }
        assert_eq!(due(&mut queue, 100_000), names, "none of them was thrown away, and each comes in its turn");
    }
}
