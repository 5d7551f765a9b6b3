//! Timers without a clock: deadlines in a queue. Moving a deadline back costs nothing, so a heartbeat is cheap: the queue's entry
//! stays, and is looked at again when its time comes. Entries whose deadlines are gone, with their members, are thrown away when they
//! may be more than the others.

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

/// How many entries are always kept.
const KEPT_MIN: usize = 64;

/// When to look at a timer. The greatest is the next one.
struct Entry {
    at: Duration,
    group: Name,
    alarm: Alarm,
    /// Nobody has the other end: the timer is gone, or has another entry.
    timer: Weak<()>,
}

impl Entry {
    fn is_live(&self) -> bool {
        self.timer.strong_count() > 0
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, &other.group, &other.alarm).cmp(&(self.at, &self.group, &self.alarm))
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
}

impl TimerQueue {
    /// When something may be due, at the earliest.
    pub(super) fn next(&self) -> Option<Duration> {
        self.entries.peek().map(|entry| entry.at)
    }

    /// The first entry that is due: its time, group, and what it is for.
    pub(super) fn pop(&mut self, now: Duration) -> Option<(Duration, Name, Alarm)> {
        while self.next()? <= now {
            let entry = self.entries.pop()?;
            if entry.is_live() {
                return Some((entry.at, entry.group, entry.alarm));
            }
        }
        None
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() >= KEPT_MIN.max(2 * self.live_count) {
            self.entries.retain(Entry::is_live);
            self.live_count = self.entries.len();
        }
        self.entries.push(entry);
    }
}

/// One deadline.
#[derive(Debug, Default)]
pub(super) struct Timer {
    due: Option<Duration>,
    /// The time of its entry in the queue, which is live as long as this is kept.
    queued: Option<(Duration, Rc<()>)>,
}

impl Timer {
    pub(super) fn set(&mut self, at: Duration, queue: &mut TimerQueue, group: &Name, alarm: impl FnOnce() -> Alarm) {
        self.due = Some(at);
        if self.queued.as_ref().is_none_or(|(queued, _)| *queued > at) {
            let live = Rc::new(());
            queue.push(Entry { at, group: group.clone(), alarm: alarm(), timer: Rc::downgrade(&live) });
            self.queued = Some((at, live));
        }
    }

    pub(super) fn clear(&mut self) {
        self.due = None;
    }

    pub(super) fn is_set(&self) -> bool {
        self.due.is_some()
    }

    /// Called with each entry that the queue gives for this deadline. True once it is due; it is cleared then.
    pub(super) fn ring(
        &mut self,
        entry_at: Duration,
        now: Duration,
        queue: &mut TimerQueue,
        group: &Name,
        alarm: impl FnOnce() -> Alarm,
    ) -> bool {
        if self.queued.as_ref().is_none_or(|(queued, _)| *queued != entry_at) {
            return false;
        }
        self.queued = None;
        match self.due {
            Some(due) if due <= now => {
                self.due = None;
                true
            }
            Some(due) => {
                self.set(due, queue, group, alarm);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_moves_back_and_forth_and_rings_once() {
        let mut queue = TimerQueue::default();
        let group: Name = "g".into();
        let mut timer = Timer::default();
        let at = Duration::from_secs;
        let ring = |queue: &mut TimerQueue, timer: &mut Timer, now| {
            let mut count = 0;
            while let Some((entry, ..)) = queue.pop(at(now)) {
                count += u32::from(timer.ring(entry, at(now), queue, &group, || Alarm::Join));
            }
            count
        };
        timer.set(at(10), &mut queue, &group, || Alarm::Join);
        timer.set(at(20), &mut queue, &group, || Alarm::Join);
        assert_eq!(ring(&mut queue, &mut timer, 19), 0);
        timer.set(at(19), &mut queue, &group, || Alarm::Join);
        assert_eq!(ring(&mut queue, &mut timer, 19), 1);
        assert_eq!(ring(&mut queue, &mut timer, 99), 0);
        timer.set(at(120), &mut queue, &group, || Alarm::Join);
        timer.clear();
        assert_eq!((ring(&mut queue, &mut timer, 130), queue.next()), (0, None));
    }

    #[test]
    fn what_is_kept_is_bounded_by_the_timers_that_there_are() {
        let (mut queue, group) = (TimerQueue::default(), Name::from("g"));
        let at = Duration::from_secs;
        let mut lasting: Vec<Timer> = (0..100).map(|_| Timer::default()).collect();
        for (second, timer) in (0..).zip(&mut lasting) {
            timer.set(at(second + 500), &mut queue, &group, || Alarm::Join);
        }
        for second in 0..10_000 {
            Timer::default().set(at(1000 + second), &mut queue, &group, || Alarm::Sync);
            // An earlier deadline has another entry.
            lasting[0].set(at(400).saturating_sub(Duration::from_millis(second)), &mut queue, &group, || Alarm::Join);
            assert!(queue.entries.len() <= 202, "{}", queue.entries.len());
        }
        let mut rung = 0;
        while let Some((entry_at, ..)) = queue.pop(at(100_000)) {
            let is_due = |timer: &mut Timer| timer.ring(entry_at, at(100_000), &mut queue, &group, || Alarm::Join);
            rung += lasting.iter_mut().map(is_due).filter(|rings| *rings).count();
        }
        assert_eq!(rung, 100, "none of them was thrown away");
    }
}
