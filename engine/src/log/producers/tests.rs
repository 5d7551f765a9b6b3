//! Tests of producer states: the rules one by one, and everything against a model that keeps every batch.

use proptest::prelude::*;

use super::*;
use crate::batch::BatchBuilder;

const NOW: TimestampMs = TimestampMs(5_000_000);
const DAY_MS: i64 = 86_400_000;

fn batch(offset: i64, id: i64, epoch: i16, sequence: i32, count: i32) -> BatchHeader {
    let mut builder = BatchBuilder::new(Offset(offset)).producer(ProducerId(id), epoch, sequence);
    for _ in 0..count {
        builder.push(TimestampMs(1000 + offset), None, None, &[]);
    }
    BatchHeader::parse(&builder.build()).unwrap()
}

fn transactional(mut header: BatchHeader) -> BatchHeader {
    header.attributes.0 |= 1 << 4;
    header
}

fn marker(offset: i64, id: i64, epoch: i16) -> BatchHeader {
    let mut header = transactional(batch(offset, id, epoch, 0, 1));
    header.attributes.0 |= 1 << 5;
    header.base_sequence = -1;
    header
}

fn states() -> ProducerStates {
    ProducerStates::new(DAY_MS)
}

#[test]
fn a_batch_that_is_sent_again_is_a_duplicate_while_it_is_among_the_last_five() {
    let mut states = states();
    for n in 0..6 {
        let header = batch(i64::from(n) * 3, 7, 0, n * 3, 3);
        assert_eq!(states.check(&header, NOW), Ok(Verdict::Append));
        states.update(&header, NOW);
    }
    for n in 1..6i32 {
        let base_offset = Offset(i64::from(n) * 3);
        let expected = Verdict::Duplicate { base_offset, timestamp: TimestampMs(1000 + base_offset.0) };
        assert_eq!(states.check(&batch(99, 7, 0, n * 3, 3), NOW), Ok(expected));
    }
    let out_of_order = |sequence| Err(ProducerError::OutOfOrder { producer_id: ProducerId(7), sequence, last_sequence: 17 });
    assert_eq!(states.check(&batch(99, 7, 0, 0, 3), NOW), out_of_order(0), "the sixth is forgotten");
    assert_eq!(states.check(&batch(99, 7, 0, 15, 2), NOW), out_of_order(15), "the same start, another end");
    assert_eq!(states.check(&batch(99, 7, 0, 19, 1), NOW), out_of_order(19), "one is missing");
    assert_eq!(states.check(&batch(99, 7, 0, 18, 1), NOW), Ok(Verdict::Append));
}

#[test]
fn epochs_fence_and_start_at_zero() {
    let mut states = states();
    states.update(&batch(0, 7, 3, 0, 2), NOW);
    let stale = ProducerError::StaleEpoch { producer_id: ProducerId(7), epoch: 2, current: 3 };
    assert_eq!(states.check(&batch(2, 7, 2, 2, 1), NOW), Err(stale));
    let wrong = ProducerError::OutOfOrder { producer_id: ProducerId(7), sequence: 2, last_sequence: -1 };
    assert_eq!(states.check(&batch(2, 7, 4, 2, 1), NOW), Err(wrong));
    assert_eq!(states.check(&batch(2, 7, 4, 0, 2), NOW), Ok(Verdict::Append), "not the duplicate of an older epoch");
    states.update(&batch(2, 7, 4, 0, 2), NOW);
    assert!(matches!(states.check(&batch(9, 7, 3, 0, 2), NOW), Err(ProducerError::StaleEpoch { .. })));
}

#[test]
fn unknown_producers_start_anywhere_and_others_are_not_looked_at() {
    let mut states = states();
    assert_eq!(states.check(&batch(0, 7, 5, 4711, 1), NOW), Ok(Verdict::Append));
    states.update(&batch(0, -1, -1, -1, 5), NOW);
    assert!(states.is_empty());
    assert_eq!(states.end(), Offset(5));
}

#[test]
fn sequences_go_round() {
    let mut states = states();
    states.update(&batch(0, 7, 0, i32::MAX - 1, 2), NOW);
    assert_eq!(states.check(&batch(2, 7, 0, 0, 1), NOW), Ok(Verdict::Append));
    let mut states = ProducerStates::new(DAY_MS);
    let around = batch(0, 7, 0, i32::MAX, 3);
    states.update(&around, NOW);
    assert!(matches!(states.check(&around, NOW), Ok(Verdict::Duplicate { base_offset: Offset(0), .. })));
    assert_eq!(states.check(&batch(3, 7, 0, 2, 1), NOW), Ok(Verdict::Append));
}

#[test]
fn transactions_hold_the_last_stable_offset_back() {
    let mut states = states();
    states.update(&transactional(batch(0, 1, 0, 0, 2)), NOW);
    states.update(&transactional(batch(2, 2, 0, 0, 2)), NOW);
    states.update(&transactional(batch(4, 1, 0, 2, 2)), NOW);
    assert_eq!(states.first_undecided_offset(), Some(Offset(0)));
    let outside = ProducerError::TransactionOpen { producer_id: ProducerId(1) };
    assert_eq!(states.check(&batch(6, 1, 0, 4, 1), NOW), Err(outside));
    states.end_transaction(&marker(6, 1, 0), 9, NOW);
    assert_eq!(states.first_undecided_offset(), Some(Offset(2)));
    assert_eq!(states.views().next().unwrap().coordinator_epoch, 9);
    assert_eq!(states.check(&batch(7, 1, 0, 4, 1), NOW), Ok(Verdict::Append), "the sequence goes on");
    states.update(&marker(7, 2, 1), NOW);
    assert_eq!(states.first_undecided_offset(), None);
    assert_eq!(states.check(&batch(8, 2, 1, 0, 1), NOW), Ok(Verdict::Append), "the marker brought a new epoch");
    assert!(states.truncate_to(Offset(7)));
    assert_eq!(states.first_undecided_offset(), Some(Offset(2)));
}

#[test]
fn what_is_settled_cannot_be_taken_back() {
    let mut states = states();
    states.update(&batch(0, 7, 0, 0, 2), NOW);
    states.update(&batch(2, 7, 0, 2, 2), NOW);
    states.settle(Offset(2));
    assert!(states.truncate_to(Offset(2)));
    assert_eq!(states.check(&batch(2, 7, 0, 2, 2), NOW), Ok(Verdict::Append));
    states.update(&batch(2, 7, 0, 2, 2), NOW);
    assert!(!states.truncate_to(Offset(1)));
    assert!(states.is_empty());
    assert_eq!(states.end(), Offset(1));
}

#[test]
fn the_oldest_are_forgotten_when_there_are_too_many() {
    let mut states = ProducerStates { producers_max: 32, ..states() };
    states.update(&transactional(batch(0, 1000, 0, 0, 1)), NOW);
    for n in 1..=40i64 {
        states.update(&batch(n, n, 0, 0, 1), NOW);
        assert!(states.len() <= 32);
        assert_eq!(states.views().filter(|view| [n, 1000].contains(&view.producer_id.0)).count(), 2);
    }
    assert!(states.views().all(|view| view.producer_id.0 > 5));
}

#[test]
fn idle_producers_expire_by_the_brokers_clock() {
    let at = |ms| TimestampMs(NOW.0 + ms);
    let mut states = states();
    states.update(&batch(0, 1, 4, 0, 1), at(0));
    states.update(&transactional(batch(10, 2, 0, 0, 1)), at(0));
    states.update(&batch(20, 3, 0, 0, 1), at(1));
    // That the records are old does not matter.
    assert!(matches!(states.check(&batch(30, 1, 4, 0, 1), at(DAY_MS - 1)), Ok(Verdict::Duplicate { .. })));
    assert!(states.check(&batch(30, 1, 3, 7, 1), at(DAY_MS - 1)).is_err());
    assert_eq!(states.check(&batch(30, 1, 3, 7, 1), at(DAY_MS)), Ok(Verdict::Append), "it is unknown now");
    states.expire(at(DAY_MS));
    let left: Vec<_> = states.views().map(|view| view.producer_id.0).collect();
    assert_eq!(left, [2, 3]);
    states.update(&batch(30, 3, 0, 9, 1), at(DAY_MS + 1));
    assert!(matches!(states.check(&batch(31, 3, 0, 0, 1), at(DAY_MS + 1)), Err(ProducerError::OutOfOrder { .. })));
    assert!(states.truncate_to(Offset(30)));
    assert_eq!(states.check(&batch(30, 3, 0, 9, 1), at(DAY_MS + 1)), Ok(Verdict::Append));
}

/// What a producer sent behind its first batch does not go in without it, when that one is taken back.
#[test]
fn a_first_batch_that_is_taken_back_is_still_the_first() {
    let mut states = states();
    states.update(&batch(0, 3, 0, 0, 2), NOW);
    assert!(states.truncate_to(Offset(0)));
    assert!(matches!(states.check(&batch(0, 3, 0, 2, 2), NOW), Err(ProducerError::OutOfOrder { .. })));
    assert_eq!(states.check(&batch(0, 3, 0, 0, 2), NOW), Ok(Verdict::Append));
    // One that began somewhere else goes on there.
    states.update(&batch(0, 4, 0, 7, 2), NOW);
    assert!(states.truncate_to(Offset(0)));
    assert!(matches!(states.check(&batch(0, 4, 0, 9, 2), NOW), Err(ProducerError::OutOfOrder { .. })));
    assert_eq!(states.check(&batch(0, 4, 0, 7, 2), NOW), Ok(Verdict::Append));
    assert_eq!(states.check(&batch(0, 4, 1, 0, 2), NOW), Ok(Verdict::Append), "or begins a new epoch");
    // A snapshot cannot say where that is, and must not say 0.
    let loaded = ProducerStates::from_snapshot(&states.encode_snapshot(), DAY_MS, NOW).unwrap();
    assert_eq!(loaded.check(&batch(0, 4, 0, 7, 2), NOW), Ok(Verdict::Append));
    assert!(loaded.check(&batch(0, 3, 0, 2, 2), NOW).is_err(), "which it can of those that began at 0");
}

#[test]
fn the_first_batch_after_an_expiry_that_is_taken_back_is_still_the_first() {
    let mut states = states();
    states.update(&batch(0, 7, 0, 6, 1), NOW);
    let later = TimestampMs(NOW.0 + DAY_MS);
    let next = batch(1, 7, 0, 7, 1);
    assert_eq!(states.check(&next, later), Ok(Verdict::Append));
    states.update(&next, later);
    assert!(states.truncate_to(Offset(1)));
    assert!(matches!(states.check(&batch(1, 7, 0, 8, 1), later), Err(ProducerError::OutOfOrder { .. })));
    assert_eq!(states.check(&next, later), Ok(Verdict::Append));
}

/// Nor when it is refused before it is appended.
#[test]
fn a_first_batch_that_is_refused_is_still_the_first() {
    let mut states = states();
    states.refuse(&batch(0, 3, 0, 0, 2), NOW);
    // Those behind it were refused with it.
    states.refuse(&batch(0, 3, 0, 2, 2), NOW);
    assert!(matches!(states.check(&batch(0, 3, 0, 2, 2), NOW), Err(ProducerError::OutOfOrder { .. })));
    assert_eq!(states.check(&batch(0, 3, 0, 0, 2), NOW), Ok(Verdict::Append));
    states.update(&batch(0, 3, 0, 0, 2), NOW);
    assert_eq!(states.check(&batch(2, 3, 0, 2, 2), NOW), Ok(Verdict::Append));
    // A known one has its order already.
    states.refuse(&batch(2, 3, 0, 2, 2), NOW);
    assert!(matches!(states.check(&batch(2, 3, 0, 0, 2), NOW), Ok(Verdict::Duplicate { .. })));
    // It is forgotten like any other.
    states.refuse(&batch(2, 5, 0, 6, 2), NOW);
    assert!(states.check(&batch(2, 5, 0, 8, 2), NOW).is_err());
    assert_eq!(states.check(&batch(2, 5, 0, 8, 2), TimestampMs(NOW.0 + DAY_MS)), Ok(Verdict::Append));
}

/// What the log holds: every batch that was appended and not cut.
#[derive(Clone, Default)]
struct Model {
    batches: Vec<BatchHeader>,
    /// Producers that are known and have nothing in the log: what they began with was cut, or refused. With their epochs, and where
    /// they began.
    begun: BTreeMap<i64, (i16, i32)>,
}

impl Model {
    fn end(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.next_offset().0)
    }

    fn cut(&mut self, end: i64) {
        let (kept, cut): (Vec<_>, Vec<_>) = self.batches.drain(..).partition(|batch| batch.base_offset.0 < end);
        self.batches = kept;
        for first in cut.iter().rev() {
            let id = first.producer_id;
            let is_last = !cut.iter().any(|batch| batch.producer_id == id && batch.base_offset < first.base_offset);
            if is_last {
                self.begin(first);
            }
        }
    }

    /// A batch is not there.
    fn begin(&mut self, first: &BatchHeader) {
        if !self.batches.iter().any(|batch| batch.producer_id == first.producer_id) {
            self.begun.entry(first.producer_id.0).or_insert((first.producer_epoch, first.base_sequence));
        }
    }

    /// The rules, from the whole log of one producer.
    fn check(&self, header: &BatchHeader) -> &'static str {
        let of: Vec<_> = self.batches.iter().filter(|batch| batch.producer_id == header.producer_id).collect();
        let Some(last) = of.last() else {
            return match self.begun.get(&header.producer_id.0) {
                None => "append",
                Some((epoch, _)) if header.producer_epoch < *epoch => "stale",
                Some((epoch, begin)) if header.base_sequence == if header.producer_epoch == *epoch { *begin } else { 0 } => {
                    "append"
                }
                Some(_) => "out of order",
            };
        };
        let current: Vec<_> = of.iter().rev().take_while(|batch| batch.producer_epoch == last.producer_epoch).take(5).collect();
        let same = |batch: &&&&BatchHeader| {
            batch.producer_epoch == header.producer_epoch
                && batch.base_sequence == header.base_sequence
                && batch.record_count == header.record_count
        };
        if current.iter().any(|batch| same(&batch)) {
            "duplicate"
        } else if header.producer_epoch < last.producer_epoch {
            "stale"
        } else if header.producer_epoch > last.producer_epoch {
            if header.base_sequence == 0 { "append" } else { "out of order" }
        } else {
            let next = (i64::from(last.base_sequence) + i64::from(last.record_count)) % (1 << 31);
            if i64::from(header.base_sequence) == next { "append" } else { "out of order" }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send { id: i64, epoch: i16, sequence: i32, count: i32 },
    Next { id: i64, count: i32 },
    Refuse { id: i64, epoch: i16, sequence: i32 },
    Settle(prop::sample::Index),
    Cut(prop::sample::Index),
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3i64, 0..3i16, prop_oneof![0..6i32, i32::MAX - 3..=i32::MAX], 1..4i32)
            .prop_map(|(id, epoch, sequence, count)| Step::Send { id, epoch, sequence, count }),
        8 => (0..3i64, 1..4i32).prop_map(|(id, count)| Step::Next { id, count }),
        1 => (0..3i64, 0..3i16, 0..6i32).prop_map(|(id, epoch, sequence)| Step::Refuse { id, epoch, sequence }),
        1 => any::<prop::sample::Index>().prop_map(Step::Settle),
        2 => any::<prop::sample::Index>().prop_map(Step::Cut),
        1 => Just(Step::Reload),
    ]
}

fn name(verdict: Result<Verdict, ProducerError>) -> &'static str {
    match verdict {
        Ok(Verdict::Append) => "append",
        Ok(Verdict::Duplicate { .. }) => "duplicate",
        Err(ProducerError::StaleEpoch { .. }) => "stale",
        Err(ProducerError::OutOfOrder { .. }) => "out of order",
        Err(ProducerError::TransactionOpen { .. }) => "transaction",
    }
}

proptest! {
    /// Sends, retries, cuts of what is not settled and rebuilds from the log give what the whole log would.
    #[test]
    fn verdicts_are_those_of_the_whole_log(steps in prop::collection::vec(step(), 0..60)) {
        let mut states = states();
        let mut model = Model::default();
        let mut settled = 0;
        for step in steps {
            let header = match step {
                Step::Send { id, epoch, sequence, count } => batch(model.end(), id, epoch, sequence, count),
                Step::Next { id, count } => {
                    let last = model.batches.iter().rev().find(|batch| batch.producer_id.0 == id);
                    let (epoch, sequence) = last.map_or((0, 0), |last| {
                        (last.producer_epoch, crate::batch::sequence_plus(last.base_sequence, last.record_count))
                    });
                    batch(model.end(), id, epoch, sequence, count)
                }
                Step::Refuse { id, epoch, sequence } => {
                    let header = batch(model.end(), id, epoch, sequence, 1);
                    states.refuse(&header, NOW);
                    model.begin(&header);
                    continue;
                }
                Step::Settle(at) => {
                    settled = settled.max(at.index(model.end() as usize + 1) as i64);
                    states.settle(Offset(settled));
                    continue;
                }
                Step::Cut(at) => {
                    // At the start of a batch that is not settled, or at the end.
                    let starts: Vec<_> = model.batches.iter().map(|batch| batch.base_offset.0)
                        .chain([model.end()]).filter(|start| *start >= settled).collect();
                    let cut = starts[at.index(starts.len())];
                    prop_assert!(states.truncate_to(Offset(cut)));
                    model.cut(cut);
                    prop_assert_eq!(states.end(), Offset(cut));
                    continue;
                }
                Step::Reload => {
                    let mut again = ProducerStates::new(DAY_MS);
                    for header in &model.batches {
                        again.update(header, NOW);
                    }
                    if !model.begun.is_empty() {
                        // The log does not say that they were there.
                        continue;
                    }
                    prop_assert_eq!(again.snapshot(), states.snapshot());
                    again.settle(Offset(settled));
                    states = again;
                    continue;
                }
            };
            let verdict = states.check(&header, NOW);
            prop_assert_eq!(name(verdict), model.check(&header));
            match verdict {
                Ok(Verdict::Append) => {
                    states.update(&header, NOW);
                    model.batches.push(header);
                }
                Ok(Verdict::Duplicate { base_offset, timestamp }) => {
                    let original = model.batches.iter().find(|batch| batch.base_offset == base_offset).unwrap();
                    prop_assert_eq!(original.record_count, header.record_count);
                    prop_assert_eq!(original.max_timestamp, timestamp);
                    prop_assert_eq!(original.base_sequence, header.base_sequence);
                }
                Err(_) => {}
            }
        }
        // A snapshot keeps the batches of each: it goes on from there and knows them as duplicates.
        let loaded = ProducerStates::from_snapshot(&states.encode_snapshot(), DAY_MS, NOW).unwrap();
        prop_assert_eq!(loaded.snapshot(), states.snapshot());
        for sent in &model.batches {
            prop_assert_eq!(loaded.check(sent, NOW), states.check(sent, NOW));
        }
        for view in states.views() {
            let Some(last) = model.batches.iter().rev().find(|batch| batch.producer_id == view.producer_id) else {
                prop_assert!(model.begun.contains_key(&view.producer_id.0));
                continue;
            };
            prop_assert_eq!(name(loaded.check(last, NOW)), "duplicate");
        }
    }
}
