//! Timers without a clock: deadlines in a queue. Moving a deadline back costs nothing, so a heartbeat is cheap: the queue's entry
//! stays, and is looked at again when its time comes. Entries whose timers are gone with their members, or cleared, are thrown away
//! when they may be more than the others.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;
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

/// When to look at a timer, and what for.
#[derive(Debug)]
struct Deadline {
    at: Duration,
    /// When the timer is due: not before that.
    due: Cell<Duration>,
    group: Name,
    alarm: Alarm,
}

/// A deadline in the queue. The greatest is the next one.
struct Entry(Rc<Deadline>);

impl Entry {
    /// Whether its timer has it still, and is not gone, cleared, or set to an earlier time.
    fn is_live(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.0.at, &other.0.group, &other.0.alarm).cmp(&(self.0.at, &self.0.group, &self.0.alarm))
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
        self.entries.peek().map(|entry| entry.0.at)
    }

    /// The first entry that is due: its time, group, and what it is for.
    pub(super) fn pop(&mut self, now: Duration) -> Option<(Duration, Name, Alarm)> {
        while self.next()? <= now {
            let entry = self.entries.pop()?;
            if entry.is_live() {
                return Some((entry.0.at, entry.0.group.clone(), entry.0.alarm.clone()));
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

/// One deadline; small, for most of them are not set.
#[derive(Debug, Default)]
pub(super) struct Timer(Option<Rc<Deadline>>);

impl Timer {
    pub(super) fn set(&mut self, at: Duration, queue: &mut TimerQueue, group: &Name, alarm: impl FnOnce() -> Alarm) {
        match &self.0 {
            Some(queued) if queued.at <= at => queued.due.set(at),
            _ => {
                let deadline = Rc::new(Deadline { at, due: Cell::new(at), group: group.clone(), alarm: alarm() });
                queue.push(Entry(deadline.clone()));
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

    /// Called with each entry that the queue gives for this deadline. True once it is due; it is cleared then.
    pub(super) fn ring(
        &mut self,
        entry_at: Duration,
        now: Duration,
        queue: &mut TimerQueue,
        group: &Name,
        alarm: impl FnOnce() -> Alarm,
    ) -> bool {
        let Some(queued) = self.0.take_if(|queued| queued.at == entry_at) else { return false };
        let due = queued.due.get();
        if due > now {
            self.set(due, queue, group, alarm);
        }
        due <= now
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
    fn a_cleared_timer_is_no_reason_to_keep_its_entry() {
        let (mut queue, group) = (TimerQueue::default(), Name::from("g"));
        let mut timers: Vec<Timer> = (0..1000).map(|_| Timer::default()).collect();
        for second in 0..10_000 {
            let timer = &mut timers[second as usize % 1000];
            timer.set(Duration::from_secs(100_000 - second), &mut queue, &group, || Alarm::Join);
            timer.clear();
        }
        assert!(queue.entries.len() <= KEPT_MIN, "{}", queue.entries.len());
        assert_eq!((queue.pop(Duration::from_secs(200_000)), size_of::<Timer>()), (None, 8));
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
