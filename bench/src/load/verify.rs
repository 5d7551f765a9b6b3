//! Whether every acknowledged record comes back once, in order, byte for byte. Producers keep a [`Ledger`] of what they sent and
//! what was acknowledged; whoever reads back feeds a [`Tracker`]; the two are held against each other at the end. Memory grows
//! with what is wrong, not with the number of records. Pure.

use std::collections::BTreeMap;

use ringlog_engine::record::Record;
use serde::{Deserialize, Serialize};

use super::content::{Filler, STAMP_BYTES, Stamp, key_bytes};
use super::ranges::Ranges;
use crate::results::Verified;

/// Findings that are told in words; the rest are counted.
const FINDINGS_MAX: usize = 20;
/// Findings that are kept until the ledger excuses some of them.
const DOUBTS_MAX: usize = 1000;
/// Gaps, or runs of duplicates, that are kept of one producer and partition; beyond that the oldest gap is lost for good.
const RANGES_MAX: usize = 1 << 16;

/// What one producer sent to one partition. Records are numbered from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// How many were sent.
    pub sent: u64,
    /// Which of them were acknowledged.
    pub acknowledged: Ranges,
    /// Which of them were sent more than once: they may rightly be there more than once, or behind what was sent between, unless
    /// the producer is idempotent.
    pub repeated: Ranges,
    /// Where only their number is known, and `repeated` has all that it may be: how many transmissions there were beyond the first
    /// of each record. No more than that may be there again or late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated_count: Option<u64>,
}

impl Ledger {
    /// Notes that `sequence` is sent by a library that may send it again without saying so.
    #[cfg(feature = "librdkafka")]
    pub(crate) fn hand_over(&mut self, sequence: u64) {
        self.sent = self.sent.max(sequence + 1);
        self.repeated.insert(sequence, sequence + 1);
    }

    /// Notes that all of what was sent is acknowledged and took so many transmissions. Returns how many of them were repetitions;
    /// `None` where it cannot be, as each record took one at least.
    #[cfg(feature = "librdkafka")]
    pub(crate) fn transmitted(&mut self, count: u64) -> Option<u64> {
        let repeated = count.checked_sub(self.sent)?;
        if repeated == 0 {
            self.repeated = Ranges::default();
        }
        self.repeated_count = Some(repeated);
        Some(repeated)
    }

    /// Of records that are there again and of those that are late, both in `repeated`, how many are more than were sent again.
    fn beyond_repeated(&self, again: u64, late: u64) -> (u64, u64) {
        let beyond = self.repeated_count.map_or(0, |count| (again + late).saturating_sub(count));
        (beyond.min(again), beyond.saturating_sub(again))
    }
}

/// What a run sent: the ledger of each producer and partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunLedger {
    /// The run.
    pub run: u64,
    /// Bytes of its values.
    pub value_bytes: usize,
    /// Whether what is sent again must not be there twice.
    pub idempotent: bool,
    /// Whether the run ended and this is all of it. Of a generator that was killed more may be there than is known.
    pub complete: bool,
    /// Each producer's partitions.
    pub producers: BTreeMap<u32, BTreeMap<i32, Ledger>>,
}

/// What came back of one producer from one partition.
#[derive(Clone, Debug, Default)]
struct Stream {
    /// The number behind the highest seen.
    next: u64,
    /// Below it, not seen.
    missing: Ranges,
    /// Seen again.
    again: Runs,
    /// Seen behind one that was sent later.
    late: Runs,
    /// Missing, beyond what is kept.
    missing_more: u64,
}

/// Records in the order they came, one after the other in a range where they follow each other.
#[derive(Clone, Debug, Default)]
struct Runs {
    ranges: Vec<(u64, u64)>,
    /// Those that found no place.
    more: u64,
}

impl Runs {
    /// Adds one; whether it begins a range.
    fn push(&mut self, sequence: u64) -> bool {
        let count = self.ranges.len();
        match self.ranges.last_mut() {
            Some((_, end)) if *end == sequence => *end += 1,
            _ if count < RANGES_MAX => {
                self.ranges.push((sequence, sequence + 1));
                return true;
            }
            _ => self.more += 1,
        }
        false
    }

    /// How many are in `excused`, and how many are not.
    fn split(&self, excused: Option<&Ranges>) -> (u64, u64) {
        let all = self.ranges.iter().map(|(from, to)| to - from).sum::<u64>() + self.more;
        let excused = excused.map_or(0, |excused| self.ranges.iter().map(|(from, to)| excused.count_within(*from, *to)).sum());
        (excused, all - excused)
    }
}

/// What was found, before the ledger says whether it is a fault.
#[derive(Clone, Debug)]
struct Finding {
    text: String,
    doubt: Option<Doubt>,
}

/// What a ledger may excuse.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    stream: (u64, u32, i32),
    /// The records in question.
    from: u64,
    to: u64,
    /// Whether they are missing, rather than there again or late.
    missing: bool,
}

impl Doubt {
    /// Whether nothing is wrong about it.
    fn is_excused(&self, ledger: &Ledger, idempotent: bool, stream: Option<&Stream>) -> bool {
        if self.missing {
            let still = |stream: &Stream| stream.missing.count_within(self.from, self.to) > 0;
            return ledger.acknowledged.count_within(self.from, self.to) == 0 || !stream.is_some_and(still);
        }
        !idempotent && ledger.repeated.count_within(self.from, self.to) == self.to - self.from
    }
}

/// Follows what comes back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracker {
    runs: BTreeMap<u64, Filler>,
    streams: BTreeMap<(u64, u32, i32), Stream>,
    received: u64,
    damaged: u64,
    unknown: u64,
    findings: Vec<Finding>,
}

impl Tracker {
    /// Expects records of these runs: each with the bytes of its values.
    #[must_use]
    pub(crate) fn new(runs: impl IntoIterator<Item = (u64, usize)>) -> Self {
        let runs = runs.into_iter().map(|(run, value_bytes)| (run, Filler::new(run, value_bytes))).collect();
        Self { runs, ..Self::default() }
    }

    fn find(&mut self, doubt: Option<Doubt>, text: impl FnOnce() -> String) {
        if self.findings.len() < DOUBTS_MAX {
            self.findings.push(Finding { text: text(), doubt });
        }
    }

    /// How many records had other bytes than were sent.
    #[must_use]
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Notes that a batch's CRC does not fit its bytes, although its records are whole.
    pub(crate) fn bad_crc(&mut self, partition: i32, offset: i64) {
        self.damaged += 1;
        self.find(None, || format!("partition {partition}, offset {offset}: the batch's CRC does not fit its bytes"));
    }

    /// Notes records that cannot be read at all.
    pub(crate) fn unreadable(&mut self, partition: i32, offset: i64, why: &str) {
        self.damaged += 1;
        self.find(None, || format!("partition {partition}, offset {offset}: {why}"));
    }

    /// Notes records that cannot be read at all, and of which only these words are known.
    #[cfg(feature = "librdkafka")]
    pub(crate) fn unreadable_somewhere(&mut self, words: &str) {
        self.damaged += 1;
        self.find(None, || words.to_owned());
    }

    /// Takes the next record of a partition.
    pub(crate) fn take(&mut self, partition: i32, offset: i64, record: &Record<'_>) {
        self.take_parts(partition, offset, record.key, record.value, record.headers().next().is_some());
    }

    /// Takes the next record of a partition: its key, its value, and whether it has headers, as none is sent.
    pub(crate) fn take_parts(
        &mut self,
        partition: i32,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        has_headers: bool,
    ) {
        let value = value.unwrap_or_default();
        let Some(stamp) = Stamp::read(value) else {
            self.damaged += 1;
            self.find(None, || format!("partition {partition}, offset {offset}: bytes that nobody sent"));
            return;
        };
        let Some(filler) = self.runs.get(&stamp.run).filter(|_| stamp.partition == partition) else {
            self.unknown += 1;
            let Stamp { run, producer, partition: other, sequence, .. } = stamp;
            self.find(None, || {
                format!(
                    "partition {partition}, offset {offset}: record {sequence} that producer {producer} of run {run:x} sent to partition {other}"
                )
            });
            return;
        };
        let key_sent = stamp.key.map(key_bytes);
        let whole = key == key_sent.as_ref().map(|key| &key[..])
            && !has_headers
            && value.len() == stamp.value_bytes as usize
            && filler.slice(stamp.filler_at, value.len() - STAMP_BYTES) == Some(&value[STAMP_BYTES..]);
        let sequence = stamp.sequence;
        let stream = self.streams.entry((stamp.run, stamp.producer, partition)).or_default();
        let mut finding = None;
        let key = (stamp.run, stamp.producer, partition);
        let mut doubt = Some(Doubt { stream: key, from: sequence, to: sequence + 1, missing: false });
        if sequence >= stream.next {
            if sequence > stream.next {
                doubt = Some(Doubt { stream: key, from: stream.next, to: sequence, missing: true });
                finding = Some(format!("after record {} comes {sequence}", stream.next as i64 - 1));
                stream.missing.insert(stream.next, sequence);
            }
            stream.next = sequence + 1;
            self.received += 1;
        } else if stream.missing.remove(sequence) {
            self.received += 1;
            finding = stream.late.push(sequence).then(|| format!("record {sequence} comes late"));
        } else {
            finding = stream.again.push(sequence).then(|| format!("record {sequence} comes again"));
        }
        if stream.missing.range_count() > RANGES_MAX {
            let (from, to) = stream.missing.pop_first().unwrap_or_default();
            stream.missing_more += to - from;
        }
        if !whole {
            self.damaged += 1;
            doubt = None;
            finding = Some(format!("record {sequence} has other bytes than were sent"));
        }
        if let Some(finding) = finding {
            let producer = stamp.producer;
            self.find(doubt, || format!("partition {partition}, offset {offset}, producer {producer}: {finding}"));
        }
    }

    /// Adds to `verified` what this tracker saw. `covers` tells the partitions that it read.
    pub(crate) fn finish(mut self, ledgers: &[RunLedger], covers: impl Fn(i32) -> bool, verified: &mut Verified) {
        verified.corrupted += self.damaged;
        verified.unknown += self.unknown;
        let mut findings = Vec::new();
        let nothing = Ledger::default();
        for finding in self.findings.drain(..) {
            let excused = finding.doubt.is_some_and(|doubt| {
                let (run, producer, partition) = doubt.stream;
                let run = ledgers.iter().find(|ledger| ledger.run == run);
                let ledger = run.and_then(|run| run.producers.get(&producer)?.get(&partition)).unwrap_or(&nothing);
                doubt.is_excused(ledger, run.is_some_and(|run| run.idempotent), self.streams.get(&doubt.stream))
            });
            if !excused {
                findings.push(finding.text);
            }
        }
        for ((run, producer, partition), stream) in &self.streams {
            let of_run = ledgers.iter().find(|ledger| ledger.run == *run);
            let ledger = of_run.and_then(|run| run.producers.get(producer)?.get(partition)).unwrap_or(&nothing);
            let idempotent = of_run.is_some_and(|run| run.idempotent);
            let excused = (!idempotent).then_some(&ledger.repeated);
            let (again_by_retry, duplicated) = stream.again.split(excused);
            let (late_by_retry, reordered) = stream.late.split(excused);
            let (again_beyond, late_beyond) = ledger.beyond_repeated(again_by_retry, late_by_retry);
            verified.duplicated_by_retry += again_by_retry - again_beyond;
            verified.duplicated += duplicated + again_beyond;
            verified.reordered_by_retry += late_by_retry - late_beyond;
            verified.reordered += reordered + late_beyond;
            if again_beyond + late_beyond > 0 {
                findings.push(format!(
                    "partition {partition}, producer {producer}: {} records come again or late, {} were sent again",
                    again_by_retry + late_by_retry,
                    ledger.repeated_count.unwrap_or_default()
                ));
            }
            // What was never sent, as far as the ledger goes.
            if stream.next > ledger.sent && of_run.is_none_or(|run| run.complete) {
                let beyond = stream.next - ledger.sent;
                verified.unknown += beyond - stream.missing.count_within(ledger.sent, stream.next);
                findings.push(format!(
                    "partition {partition}, producer {producer}: {} records were sent, {} came",
                    ledger.sent, stream.next
                ));
            }
        }
        for run in ledgers {
            for (producer, partitions) in &run.producers {
                for (partition, ledger) in partitions.iter().filter(|(partition, _)| covers(**partition)) {
                    verified.acknowledged += ledger.acknowledged.count();
                    let stream = self.streams.get(&(run.run, *producer, *partition));
                    let (next, forgotten) = stream.map_or((0, 0), |stream| (stream.next, stream.missing_more));
                    let gaps = stream.into_iter().flat_map(|stream| stream.missing.iter()).chain([(next, u64::MAX)]);
                    let mut lost = forgotten;
                    for (from, to) in gaps {
                        let count = ledger.acknowledged.count_within(from, to);
                        if let Some(first) = ledger.acknowledged.first_within(from, to).filter(|_| findings.len() < DOUBTS_MAX) {
                            findings.push(format!(
                                "partition {partition}, producer {producer}: {count} acknowledged records are not there, from record {first} on"
                            ));
                        }
                        lost += count;
                    }
                    verified.lost += lost;
                }
            }
        }
        verified.received += self.received;
        let room = FINDINGS_MAX.saturating_sub(verified.findings.len());
        verified.findings.extend(findings.into_iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u64 = 11;
    const VALUE_BYTES: usize = 100;

    fn value(producer: u32, partition: i32, sequence: u64) -> Vec<u8> {
        let filler = Filler::new(RUN, VALUE_BYTES);
        let mut value = filler.slice(5, VALUE_BYTES).unwrap().to_vec();
        let filler_at = 5 + STAMP_BYTES as u32;
        let value_bytes = VALUE_BYTES as u32;
        Stamp { run: RUN, producer, partition, sequence, sent_ns: 0, filler_at, value_bytes, key: None }.write(&mut value);
        value
    }

    fn ledger(acknowledged: u64, sent: u64) -> RunLedger {
        let mut ledger = Ledger { sent, ..Default::default() };
        ledger.acknowledged.insert(0, acknowledged);
        let producers = BTreeMap::from([(0, BTreeMap::from([(0, ledger)]))]);
        RunLedger { run: RUN, value_bytes: VALUE_BYTES, idempotent: false, complete: true, producers }
    }

    fn verified(sequences: &[u64], ledger: &RunLedger) -> Verified {
        let mut tracker = Tracker::new([(RUN, VALUE_BYTES)]);
        for (offset, sequence) in sequences.iter().enumerate() {
            tracker.take(0, offset as i64, &Record::new(0, 0, None, Some(&value(0, 0, *sequence))));
        }
        let mut verified = Verified::default();
        tracker.finish(std::slice::from_ref(ledger), |_| true, &mut verified);
        verified
    }

    fn counts(verified: &Verified) -> [u64; 6] {
        let Verified { lost, duplicated, duplicated_by_retry, reordered, corrupted, unknown, .. } = *verified;
        [lost, duplicated, duplicated_by_retry, reordered, corrupted, unknown]
    }

    #[test]
    fn keys_and_headers_count_as_values_do() {
        let mut keyed = value(0, 0, 0);
        let stamp = Stamp { key: Some(5), ..Stamp::read(&keyed).unwrap() };
        stamp.write(&mut keyed);
        let plain = value(0, 0, 0);
        let header = ringlog_engine::record::Header { key: b"h", value: None };
        let damaged = |value: &[u8], key: Option<&[u8]>, headers: &[ringlog_engine::record::Header<'_>]| {
            let mut builder = ringlog_engine::batch::BatchBuilder::new(ringlog_engine::types::Offset(0));
            builder.push(ringlog_engine::types::TimestampMs(0), key, Some(value), headers);
            let batch = builder.build();
            let records = ringlog_engine::batch::BatchView::new(&batch).unwrap().records(1 << 20).unwrap();
            let mut tracker = Tracker::new([(RUN, VALUE_BYTES)]);
            for record in &records {
                tracker.take(0, 0, &record.unwrap());
            }
            tracker.damaged()
        };
        assert_eq!(damaged(&plain, None, &[]), 0);
        assert_eq!(damaged(&keyed, Some(&key_bytes(5)), &[]), 0);
        for (value, key, headers) in [
            (&plain, Some(&key_bytes(5)[..]), &[][..]),
            (&plain, Some(&[]), &[]),
            (&plain, None, &[header]),
            (&keyed, None, &[]),
            (&keyed, Some(&key_bytes(6)), &[]),
            (&keyed, Some(&key_bytes(5)[1..]), &[]),
        ] {
            assert_eq!(damaged(value, key, headers), 1, "{key:?} {headers:?}");
        }
    }

    #[test]
    fn what_is_sound_is_sound() {
        let all = verified(&[0, 1, 2, 3], &ledger(4, 4));
        assert!(all.is_sound() && all.findings.is_empty(), "{all:?}");
        assert_eq!((all.acknowledged, all.received), (4, 4));
        // What was sent and not acknowledged may be there or not.
        assert!(verified(&[0, 1, 2, 3], &ledger(2, 4)).is_sound());
        assert!(verified(&[0, 1], &ledger(2, 4)).is_sound());
        let gap = verified(&[0, 1, 3], &ledger(2, 4));
        assert!(gap.is_sound() && gap.findings.is_empty(), "{gap:?}");
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        for (sequences, expected) in [
            (&[0, 1, 3][..], [1, 0, 0, 0, 0, 0]),
            (&[0, 1], [2, 0, 0, 0, 0, 0]),
            (&[1, 2, 3], [1, 0, 0, 0, 0, 0]),
            (&[], [4, 0, 0, 0, 0, 0]),
            (&[0, 1, 1, 2, 3], [0, 1, 0, 0, 0, 0]),
            (&[0, 1, 2, 3, 0, 1], [0, 2, 0, 0, 0, 0]),
            (&[0, 2, 1, 3], [0, 0, 0, 1, 0, 0]),
            (&[3, 2, 1, 0], [0, 0, 0, 3, 0, 0]),
            (&[0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 2]),
        ] {
            let found = verified(sequences, &ledger(4, 4));
            assert_eq!(counts(&found), expected, "{sequences:?} {found:?}");
            assert!(!found.is_sound() && !found.findings.is_empty(), "{sequences:?}");
        }
    }

    #[test]
    fn what_was_sent_again_may_be_there_again() {
        let mut sent = ledger(4, 4);
        sent.producers.get_mut(&0).unwrap().get_mut(&0).unwrap().repeated.insert(1, 3);
        let found = verified(&[0, 1, 2, 1, 2, 3], &sent);
        assert!(found.is_sound() && found.findings.is_empty(), "{found:?}");
        assert_eq!(found.duplicated_by_retry, 2);
        assert_eq!(counts(&verified(&[0, 1, 2, 3, 3, 2], &sent)), [0, 1, 1, 0, 0, 0]);
        let late = verified(&[0, 3, 1, 2], &sent);
        assert!(late.is_sound() && late.reordered_by_retry == 2 && late.findings.is_empty(), "{late:?}");
        assert_eq!(counts(&verified(&[1, 2, 3, 0], &sent)), [0, 0, 0, 1, 0, 0]);
        sent.idempotent = true;
        assert_eq!(counts(&verified(&[0, 3, 1, 2], &sent)), [0, 0, 0, 2, 0, 0]);
        assert_eq!(counts(&verified(&[0, 1, 2, 1, 2, 3], &sent)), [0, 2, 0, 0, 0, 0]);
    }

    /// Where only the number is known, it is the bound of what is excused.
    #[test]
    fn no_more_than_was_sent_again_is_excused() {
        let mut sent = ledger(4, 4);
        let of_run = |sent: &mut RunLedger, count| {
            let ledger = sent.producers.get_mut(&0).unwrap().get_mut(&0).unwrap();
            (ledger.repeated, ledger.repeated_count) = (Ranges::default(), count);
            ledger.repeated.insert(0, 4);
        };
        // Nobody says how many: whichever there are.
        of_run(&mut sent, None);
        assert_eq!(counts(&verified(&[0, 1, 2, 3, 0, 1, 2, 3, 3], &sent)), [0, 0, 5, 0, 0, 0]);
        of_run(&mut sent, Some(2));
        let found = verified(&[0, 1, 2, 1, 2, 3], &sent);
        assert!(found.is_sound() && found.findings.is_empty() && found.duplicated_by_retry == 2, "{found:?}");
        let found = verified(&[0, 1, 2, 3, 0, 1, 2], &sent);
        assert_eq!(counts(&found), [0, 1, 2, 0, 0, 0], "{found:?}");
        assert_eq!(found.findings, ["partition 0, producer 0: 3 records come again or late, 2 were sent again"]);
        // One that is late and comes again took two.
        let found = verified(&[1, 2, 3, 0, 0], &sent);
        assert!(found.is_sound() && found.reordered_by_retry == 1 && found.duplicated_by_retry == 1, "{found:?}");
        let found = verified(&[3, 0, 1, 2], &sent);
        assert_eq!((found.reordered, found.reordered_by_retry), (1, 2), "{found:?}");
        sent.idempotent = true;
        assert_eq!(counts(&verified(&[0, 1, 2, 1, 2, 3], &sent)), [0, 2, 0, 0, 0, 0]);
        // It is kept with the ledger, and one from before has none.
        let text = serde_json::to_string(&sent).unwrap();
        assert_eq!(serde_json::from_str::<RunLedger>(&text).unwrap(), sent);
        assert!(!serde_json::to_string(&ledger(1, 1)).unwrap().contains("repeated_count"));
    }

    #[cfg(feature = "librdkafka")]
    #[test]
    fn transmissions_beyond_the_first_are_repetitions() {
        let mut ledger = Ledger::default();
        (0..5).for_each(|sequence| ledger.hand_over(sequence));
        assert_eq!((ledger.sent, ledger.repeated.count(), ledger.repeated_count), (5, 5, None));
        assert_eq!(ledger.transmitted(4), None);
        assert_eq!((ledger.repeated.count(), ledger.repeated_count), (5, None));
        assert_eq!(ledger.transmitted(8), Some(3));
        assert_eq!((ledger.repeated.count(), ledger.repeated_count), (5, Some(3)));
        assert_eq!(ledger.transmitted(5), Some(0));
        assert_eq!((ledger.repeated.count(), ledger.repeated_count), (0, Some(0)));
    }

    #[test]
    fn bytes_are_compared() {
        for at in [0, 20, STAMP_BYTES, VALUE_BYTES - 1] {
            let mut tracker = Tracker::new([(RUN, VALUE_BYTES)]);
            let mut damaged = value(0, 0, 0);
            damaged[at] ^= 1;
            tracker.take(0, 0, &Record::new(0, 0, None, Some(&damaged)));
            let mut found = Verified::default();
            tracker.finish(&[ledger(1, 1)], |_| true, &mut found);
            assert_eq!(found.corrupted, 1, "{at}");
            assert_eq!(found.lost, u64::from(at < STAMP_BYTES), "{at}");
        }
        let mut tracker = Tracker::new([(RUN, VALUE_BYTES)]);
        tracker.take(0, 0, &Record::new(0, 0, None, None));
        tracker.take(0, 1, &Record::new(0, 0, None, Some(&value(0, 0, 0)[..VALUE_BYTES - 1])));
        let mut found = Verified::default();
        tracker.finish(&[ledger(1, 1)], |_| true, &mut found);
        assert_eq!(found.corrupted, 2);
    }

    #[test]
    fn strangers_are_unknown() {
        let mut tracker = Tracker::new([(RUN, VALUE_BYTES)]);
        tracker.take(1, 0, &Record::new(0, 0, None, Some(&value(0, 0, 0))));
        tracker.take(0, 0, &Record::new(0, 0, None, Some(&value(9, 0, 0))));
        let mut found = Verified::default();
        tracker.finish(&[ledger(0, 1)], |_| true, &mut found);
        assert_eq!(counts(&found), [0, 0, 0, 0, 0, 2]);
        // A generator that was killed knows less than it sent.
        let unfinished = RunLedger { complete: false, ..ledger(2, 2) };
        assert!(verified(&[0, 1, 2, 3, 4], &unfinished).is_sound());
        assert!(!verified(&[0, 2, 3, 4], &unfinished).is_sound());
    }

    #[test]
    fn a_broker_that_drops_every_other_record_does_not_take_all_memory() {
        let mut tracker = Tracker::new([(RUN, VALUE_BYTES)]);
        let count = 3 * RANGES_MAX as u64;
        let mut value = value(0, 0, 0);
        for sequence in (1..count).step_by(2) {
            let stamp = Stamp { sequence, ..Stamp::read(&value).unwrap() };
            stamp.write(&mut value);
            tracker.take(0, 0, &Record::new(0, 0, None, Some(&value)));
        }
        assert!(tracker.streams.values().all(|stream| stream.missing.range_count() <= RANGES_MAX));
        let mut found = Verified::default();
        tracker.finish(&[ledger(count, count)], |_| true, &mut found);
        assert_eq!(found.lost, count / 2);
    }
}
