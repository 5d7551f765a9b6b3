//! Which leader epoch starts at which offset: how a follower or a client finds where its log parts from the leader's
//! (KIP-101, KIP-279, KIP-320). Pure; the log keeps one per partition and writes it out after each change.

use crate::log::checkpoint::{self, CheckpointError};
use crate::types::{LeaderEpoch, Offset};

/// An epoch and the offset of its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Where it starts.
    pub start_offset: Offset,
}

/// The epochs of a log; both epochs and offsets rise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<EpochEntry>,
}

impl LeaderEpochs {
    /// Says that `epoch` starts at `start_offset`. What contradicts it (entries of that epoch or a later one, or from that
    /// offset on) goes; the latest epoch keeps the start it has, and a batch without an epoch
    /// says nothing. Returns whether anything changed.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        if epoch.0 < 0 {
            return false;
        }
        if self.latest().is_some_and(|last| last.epoch == epoch && last.start_offset <= start_offset) {
            return false;
        }
        while self.entries.pop_if(|last| last.epoch >= epoch || last.start_offset >= start_offset).is_some() {}
        self.entries.push(EpochEntry { epoch, start_offset });
        true
    }

    /// The latest epoch.
    #[must_use]
    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// The entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The largest known epoch that is not above `epoch`, and the offset at which it ends in a log that ends at `log_end`.
    /// `None` where `epoch` is above all that are known, or is none. Below all that are known it is `epoch` itself, and the
    /// end is where the first of them starts.
    #[must_use]
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        if epoch.0 < 0 {
            return None;
        }
        if self.latest()?.epoch == epoch {
            return Some((epoch, log_end));
        }
        let above = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let next = self.entries.get(above)?;
        let found = above.checked_sub(1).and_then(|at| self.entries.get(at)).map_or(epoch, |entry| entry.epoch);
        Some((found, next.start_offset))
    }

    /// The epoch of the record at `offset`, if that is known.
    #[must_use]
    pub fn epoch_for(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        self.entries.get(after.checked_sub(1)?).map(|entry| entry.epoch)
    }

    /// The log ends at `end_offset` now: epochs that start there or later go. Returns whether anything changed.
    pub fn truncate_from_end(&mut self, end_offset: Offset) -> bool {
        let keep = self.entries.partition_point(|entry| entry.start_offset < end_offset);
        let changed = keep < self.entries.len();
        self.entries.truncate(keep);
        changed
    }

    /// The log starts at `start_offset` now: epochs that ended before it go, the one that holds it starts there. Returns
    /// whether anything changed.
    pub fn truncate_from_start(&mut self, start_offset: Offset) -> bool {
        let after = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        let Some(holds) = after.checked_sub(1) else { return false };
        if holds == 0 && self.entries[0].start_offset == start_offset {
            return false;
        }
        self.entries.drain(..holds);
        self.entries[0].start_offset = start_offset;
        true
    }

    /// Reads the text of a `leader-epoch-checkpoint`.
    ///
    /// # Errors
    /// [`CheckpointError`] with the line, where it is not one, or its entries do not rise.
    pub fn decode(text: &str) -> Result<Self, CheckpointError> {
        let mut epochs = Self::default();
        checkpoint::parse_lines(text, 0, |line| {
            let [epoch, offset] = line.fields()?;
            let epoch = LeaderEpoch(line.number("epoch", epoch)?);
            let start_offset = Offset(line.number("offset", offset)?);
            if epochs.latest().is_some_and(|last| epoch <= last.epoch || start_offset <= last.start_offset) {
                return Err(line.error("its epoch or offset is not above the one before it"));
            }
            epochs.entries.push(EpochEntry { epoch, start_offset });
            Ok(())
        })?;
        Ok(epochs)
    }

    /// The text of a `leader-epoch-checkpoint`.
    #[must_use]
    pub fn encode(&self) -> String {
        let line = |entry: &EpochEntry| format!("{} {}", entry.epoch, entry.start_offset);
        checkpoint::encode_lines(0, self.entries.iter().map(line))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        let entry = |&(epoch, offset)| EpochEntry { epoch: LeaderEpoch(epoch), start_offset: Offset(offset) };
        LeaderEpochs { entries: entries.iter().map(entry).collect() }
    }

    #[test]
    fn ends_of_epochs_are_those_of_the_kips() {
        let log = epochs(&[(2, 10), (4, 20), (7, 50)]);
        let end = |epoch| log.end_offset_for(LeaderEpoch(epoch), Offset(99)).map(|(epoch, end)| (epoch.0, end.0));
        assert_eq!(end(7), Some((7, 99)), "the latest ends with the log");
        assert_eq!(end(8), None, "above all that are known");
        assert_eq!(end(-1), None);
        assert_eq!(end(5), Some((4, 50)), "the largest that is not above");
        assert_eq!(end(4), Some((4, 50)));
        assert_eq!(end(3), Some((2, 20)));
        assert_eq!(end(1), Some((1, 10)), "below all that are known");
        assert_eq!(LeaderEpochs::default().end_offset_for(LeaderEpoch(0), Offset(0)), None);
    }

    #[test]
    fn a_new_epoch_replaces_what_contradicts_it() {
        let mut log = epochs(&[(2, 10), (4, 20)]);
        assert!(!log.assign(LeaderEpoch(4), Offset(30)));
        assert!(log.assign(LeaderEpoch(4), Offset(15)));
        assert_eq!(log, epochs(&[(2, 10), (4, 15)]));
        assert!(log.assign(LeaderEpoch(5), Offset(15)), "epoch 4 wrote nothing");
        assert_eq!(log, epochs(&[(2, 10), (5, 15)]));
        assert!(log.assign(LeaderEpoch(3), Offset(40)), "an older epoch after a newer one");
        assert_eq!(log, epochs(&[(2, 10), (3, 40)]));
        assert!(!log.assign(LeaderEpoch::NONE, Offset(50)));
    }

    #[test]
    fn the_ends_of_the_log_are_cut() {
        let mut log = epochs(&[(2, 10), (4, 20), (7, 50)]);
        assert!(!log.truncate_from_end(Offset(51)));
        assert!(log.truncate_from_end(Offset(50)));
        assert_eq!(log, epochs(&[(2, 10), (4, 20)]));
        assert!(!log.truncate_from_start(Offset(5)));
        assert!(log.truncate_from_start(Offset(15)));
        assert_eq!(log, epochs(&[(2, 15), (4, 20)]));
        assert!(!log.truncate_from_start(Offset(15)));
        assert!(log.truncate_from_start(Offset(20)));
        assert_eq!(log, epochs(&[(4, 20)]));
        assert!(log.truncate_from_end(Offset(0)));
        assert_eq!(log, LeaderEpochs::default());
    }

    #[test]
    fn the_file_is_kafkas() {
        let log = epochs(&[(0, 0), (3, 77)]);
        assert_eq!(log.encode(), "0\n2\n0 0\n3 77\n");
        assert_eq!(LeaderEpochs::decode("0\n2\n0 0\n3 77\n"), Ok(log));
        let error = LeaderEpochs::decode("0\n2\n3 7\n3 8\n").unwrap_err();
        assert_eq!(error.to_string(), "line 4: its epoch or offset is not above the one before it");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Assign(i32, i64),
        End(i64),
        Start(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..12, 0..60i64).prop_map(|(epoch, offset)| Step::Assign(epoch, offset)),
            1 => (0..60i64).prop_map(Step::End),
            1 => (0..60i64).prop_map(Step::Start),
        ]
    }

    proptest! {
        /// The same steps on a plain map, written as the KIPs say it.
        #[test]
        fn epochs_are_those_of_a_plain_map(steps in prop::collection::vec(step(), 0..30), asked in 0..14, offset in 0..70i64) {
            let mut log = LeaderEpochs::default();
            let mut model = BTreeMap::<i32, i64>::new();
            for step in steps {
                match step {
                    Step::Assign(epoch, start) => {
                        log.assign(LeaderEpoch(epoch), Offset(start));
                        let last = model.last_key_value().map(|(&epoch, &start)| (epoch, start));
                        if !last.is_some_and(|last| last.0 == epoch && last.1 <= start) {
                            // Nothing removed lies below something kept, since both rise.
                            model.retain(|&e, s| e < epoch && *s < start);
                            model.insert(epoch, start);
                        }
                    }
                    Step::End(end) => {
                        log.truncate_from_end(Offset(end));
                        model.retain(|_, start| *start < end);
                    }
                    Step::Start(start) => {
                        log.truncate_from_start(Offset(start));
                        let below: Vec<i32> = model.iter().filter(|(_, s)| **s <= start).map(|(e, _)| *e).collect();
                        if let Some((holds, gone)) = below.split_last() {
                            for epoch in gone { model.remove(epoch); }
                            model.insert(*holds, start);
                        }
                    }
                }
                let entries: Vec<_> = log.entries().iter().map(|entry| (entry.epoch.0, entry.start_offset.0)).collect();
                prop_assert!(entries.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1));
                prop_assert_eq!(entries, model.clone().into_iter().collect::<Vec<_>>());
            }
            let floor = model.range(..=asked).next_back().map(|(epoch, _)| *epoch);
            let next = model.range(asked + 1..).next().map(|(_, start)| *start);
            let expected = match (floor, next) {
                (Some(floor), None) if floor == asked => Some((asked, 1000)),
                (_, None) => None,
                (floor, Some(start)) => Some((floor.unwrap_or(asked), start)),
            };
            let end = log.end_offset_for(LeaderEpoch(asked), Offset(1000));
            prop_assert_eq!(end.map(|(epoch, end)| (epoch.0, end.0)), expected);
            let holds = model.iter().rev().find(|(_, start)| **start <= offset).map(|(epoch, _)| *epoch);
            prop_assert_eq!(log.epoch_for(Offset(offset)).map(|epoch| epoch.0), holds);
            prop_assert_eq!(LeaderEpochs::decode(&log.encode()), Ok(log));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9 \n\r a]{0,40}") {
            let _ = LeaderEpochs::decode(&text);
        }
    }
}
