//! Timers without a clock: deadlines in a queue. Moving a deadline back costs nothing, so a heartbeat is cheap: the queue's entry
//! stays, and is looked at again when its time comes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
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

/// The deadlines of all groups of a shard, the next one first.
#[derive(Default)]
pub(super) struct TimerQueue(BinaryHeap<Reverse<(Duration, Name, Alarm)>>);

impl TimerQueue {
    /// When something may be due, at the earliest.
    pub(super) fn next(&self) -> Option<Duration> {
        self.0.peek().map(|Reverse((at, ..))| *at)
    }

    /// The first entry that is due: its time, group, and what it is for.
    pub(super) fn pop(&mut self, now: Duration) -> Option<(Duration, Name, Alarm)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }
}

/// One deadline.
#[derive(Debug, Default)]
pub(super) struct Timer {
    due: Option<Duration>,
    /// The time of its entry in the queue.
    queued: Option<Duration>,
}

impl Timer {
    pub(super) fn set(&mut self, at: Duration, queue: &mut TimerQueue, group: &Name, alarm: impl FnOnce() -> Alarm) {
        self.due = Some(at);
        if self.queued.is_none_or(|queued| queued > at) {
            self.queued = Some(at);
            queue.0.push(Reverse((at, group.clone(), alarm())));
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
        if self.queued != Some(entry_at) {
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
}
