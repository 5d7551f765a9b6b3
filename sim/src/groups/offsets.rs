//! What a committed offset may be, as far as clients can know: a register that several of them write and read at once, through
//! answers that come late or never. Pure.
//!
//! A write takes effect, if it does, between its sending and its answer; one without an answer at any time until the machine's life
//! ends. What is certain follows from that: a value is gone once another was there later, and what nobody has sent is never there.

use std::time::Duration;

/// No offset.
pub const NOTHING: i64 = -1;

/// For which topic an offset was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct For {
    /// The topic that had the name then, by its place in the model.
    pub topic: usize,
    /// Whether it was meant by its id; else a later one of the same name may have been there by the time it arrived.
    pub is_by_id: bool,
}

/// A write of the register.
#[derive(Clone, Debug)]
pub struct Write {
    number: u64,
    /// The offset, or [`NOTHING`].
    pub offset: i64,
    /// For which topic; of a removal there is none.
    pub of: Option<For>,
    /// The time by the wall clock when it was sent, or when its answer came, whichever was earlier.
    pub wall_ms: i64,
    /// When its effect was there, if it had any. Not known: it may still come.
    end: Option<Duration>,
    /// From when on other writes come behind it.
    settled: Option<Duration>,
    /// By when something else was there.
    overwritten: Option<Duration>,
    /// Whether it was there for certain.
    was_there: bool,
}

/// A group's offset for one partition.
#[derive(Clone, Debug)]
pub struct Register {
    writes: Vec<Write>,
    next_number: u64,
}

impl Default for Register {
    fn default() -> Self {
        let mut register = Self { writes: Vec::new(), next_number: 0 };
        let number = register.begin(NOTHING, None, 0);
        register.hold(number, Duration::ZERO, Duration::ZERO, true);
        register
    }
}

impl Register {
    /// A write is sent. Returns its number.
    pub fn begin(&mut self, offset: i64, of: Option<For>, wall_ms: i64) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let unknown = Write { number, offset, of, wall_ms, end: None, settled: None, overwritten: None, was_there: false };
        self.writes.push(unknown);
        number
    }

    fn find(&mut self, number: u64) -> Option<&mut Write> {
        self.writes.iter_mut().find(|write| write.number == number)
    }

    /// A write that was sent then was answered well now.
    pub fn acknowledge(&mut self, number: u64, sent: Duration, now: Duration, wall_ms: i64) {
        if let Some(write) = self.find(number) {
            write.wall_ms = write.wall_ms.min(wall_ms);
        }
        self.hold(number, sent, now, true);
    }

    /// It was there at some moment between these.
    fn hold(&mut self, number: u64, from: Duration, to: Duration, is_write: bool) {
        for write in &mut self.writes {
            if write.number == number {
                write.end = Some(write.end.map_or(to, |end| end.min(to)));
                write.was_there = true;
                continue;
            }
            let before = |at: Option<Duration>| at.is_some_and(|at| at < from);
            if before(write.end) || (is_write && before(write.settled)) {
                write.overwritten = Some(write.overwritten.map_or(to, |overwritten| overwritten.min(to)));
            }
        }
    }

    /// A write was refused: it has no effect.
    ///
    /// # Errors
    /// It was there before.
    pub fn refuse(&mut self, number: u64) -> Result<(), String> {
        let Some(at) = self.writes.iter().position(|write| write.number == number) else { return Ok(()) };
        let write = self.writes.remove(at);
        if write.was_there { Err(format!("offset {} was refused, and is there", write.offset)) } else { Ok(()) }
    }

    /// The answer leaves open whether a write has an effect. What is sent from now on comes behind it.
    pub fn unclear(&mut self, number: u64, now: Duration) {
        if let Some(write) = self.find(number) {
            write.settled = Some(now);
        }
    }

    /// An offset was read, by a request that was sent then and answered now. `may_vanish` says whether a write may have been taken
    /// back by itself.
    ///
    /// # Errors
    /// It cannot be there.
    pub fn read(
        &mut self,
        offset: i64,
        sent: Duration,
        now: Duration,
        may_vanish: impl Fn(&Write) -> bool,
    ) -> Result<(), String> {
        let is_alive = |write: &Write| write.overwritten.is_none_or(|at| at >= sent);
        let alive: Vec<&Write> = self.writes.iter().filter(|write| is_alive(write)).collect();
        let found: Vec<u64> = alive.iter().filter(|write| write.offset == offset).map(|write| write.number).collect();
        let has_vanished = offset == NOTHING && alive.iter().any(|write| may_vanish(write));
        let number = match found[..] {
            // By itself, perhaps, and not by a removal that is on its way.
            _ if has_vanished => self.begin(NOTHING, None, 0),
            [number] => number,
            [] => {
                let expected: Vec<i64> = alive.iter().map(|write| write.offset).collect();
                return Err(format!("{offset} is there, and can only be one of {expected:?}"));
            }
            // Which of the removals it was is not known.
            _ => {
                let others = self.writes.iter_mut().filter(|write| write.offset != offset);
                for write in others.filter(|write| write.end.is_some_and(|end| end < sent)) {
                    write.overwritten = Some(write.overwritten.map_or(now, |overwritten| overwritten.min(now)));
                }
                return Ok(());
            }
        };
        self.hold(number, sent, now, false);
        Ok(())
    }

    /// What may be there now.
    pub fn candidates(&self) -> impl Iterator<Item = &Write> {
        self.writes.iter().filter(|write| write.overwritten.is_none())
    }

    /// Whether there is an offset for certain.
    pub fn is_something(&self, may_vanish: impl Fn(&Write) -> bool) -> bool {
        self.candidates().all(|write| write.offset != NOTHING && !may_vanish(write))
    }

    /// The broker is gone, and with it whatever was on its way.
    pub fn end_of_life(&mut self, now: Duration) {
        self.writes.retain(|write| write.overwritten.is_none());
        for write in &mut self.writes {
            write.end.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn may_be(register: &Register, offset: i64, seconds: u64) -> bool {
        register.clone().read(offset, at(seconds), at(seconds), |_| false).is_ok()
    }

    #[test]
    fn an_acknowledged_commit_is_there_until_the_next() {
        let mut register = Register::default();
        let first = register.begin(7, None, 0);
        assert!(may_be(&register, 7, 1) && may_be(&register, NOTHING, 1) && !may_be(&register, 8, 1));
        register.acknowledge(first, at(1), at(2), 0);
        assert!(may_be(&register, 7, 3) && !may_be(&register, NOTHING, 3));
        let second = register.begin(8, None, 0);
        register.acknowledge(second, at(4), at(5), 0);
        assert!(!may_be(&register, 7, 6) && may_be(&register, 8, 6));
        // It was sent before the second was answered.
        assert!(may_be(&register, 7, 4));
    }

    #[test]
    fn one_without_an_answer_may_come_until_the_life_ends() {
        let mut register = Register::default();
        let lost = register.begin(7, None, 0);
        let next = register.begin(8, None, 0);
        register.acknowledge(next, at(4), at(5), 0);
        assert!(may_be(&register, 7, 6) && may_be(&register, 8, 6));
        register.end_of_life(at(7));
        assert!(may_be(&register, 7, 8) && may_be(&register, 8, 8));
        // It was seen: then the other is gone, and does not come back.
        register.read(7, at(8), at(9), |_| false).unwrap();
        assert!(may_be(&register, 7, 10) && !may_be(&register, 8, 10));
        assert!(register.refuse(lost).is_err());
    }

    #[test]
    fn what_was_unclear_stays_behind_later_writes() {
        let mut register = Register::default();
        let unclear = register.begin(7, None, 0);
        register.unclear(unclear, at(2));
        register.read(NOTHING, at(3), at(3), |_| false).unwrap();
        assert!(may_be(&register, 7, 4), "it may still be found in the log");
        let next = register.begin(8, None, 0);
        register.acknowledge(next, at(5), at(6), 0);
        register.end_of_life(at(7));
        assert!(!may_be(&register, 7, 8) && may_be(&register, 8, 8));
    }

    #[test]
    fn a_removal_is_a_write_too() {
        let mut register = Register::default();
        let commit = register.begin(7, None, 0);
        register.acknowledge(commit, at(1), at(2), 0);
        assert!(register.is_something(|_| false) && !register.is_something(|_| true));
        register.read(NOTHING, at(3), at(4), |write| write.offset == 7).unwrap();
        assert!(!may_be(&register, 7, 5) && may_be(&register, NOTHING, 5));
        let (one, other) = (register.begin(NOTHING, None, 0), register.begin(9, None, 0));
        register.acknowledge(other, at(6), at(7), 0);
        register.refuse(one).unwrap();
        assert!(may_be(&register, 9, 8) && !may_be(&register, NOTHING, 8));
    }
}
