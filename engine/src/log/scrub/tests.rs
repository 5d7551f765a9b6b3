use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::batch::BatchBuilder;

/// A segment's three files.
#[derive(Clone, Debug)]
struct Stored {
    log: Vec<u8>,
    offsets: Vec<u8>,
    times: Vec<u8>,
    /// Where each batch begins.
    starts: Vec<usize>,
    end_offset: Offset,
}

const BASE: Offset = Offset(1_000);

/// Batches with values of these sizes, some offsets apart, as compaction leaves them; every other one is in the indexes.
fn stored(values_bytes: &[usize]) -> Stored {
    let (mut log, mut offsets, mut times, mut starts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut next, mut newest) = (BASE, TimestampMs::NONE);
    for (at, &bytes) in values_bytes.iter().enumerate() {
        let first = next.plus((at % 3) as i64);
        let timestamp = TimestampMs(10_000 + at as i64 * 10 - (at % 2) as i64 * 15);
        let mut builder = BatchBuilder::new(first);
        for _ in 0..=at % 2 {
            builder.push(timestamp, None, Some(&vec![at as u8; bytes]), &[]);
        }
        let position = log.len();
        starts.push(position);
        log.extend(builder.build());
        next = first.plus(1 + (at % 2) as i64);
        if at % 2 == 0 && at > 0 {
            index::push_offset_entry(&mut offsets, BASE, next.plus(-1), position as u64);
        }
        if timestamp > newest {
            newest = timestamp;
            index::push_time_entry(&mut times, BASE, newest, next.plus(-1));
        }
    }
    Stored { log, offsets, times, starts, end_offset: next }
}

impl Stored {
    /// What a scrub finds that reads so much at once.
    fn scrub(&self, step: usize) -> Vec<Damage> {
        self.scrub_extent(step, Extent { bytes: self.log.len() as u64, is_sealed: true })
    }

    fn scrub_extent(&self, step: usize, extent: Extent) -> Vec<Damage> {
        let segment = Segment::new(BASE, PathBuf::from("/0.log"), self.log.len() as u64, self.end_offset);
        let mut checker = Checker::new(&segment, extent);
        if extent.is_sealed {
            checker.set_offset_index(&self.offsets);
            checker.set_time_index(&self.times);
        }
        let mut steps = 0;
        while !checker.is_done() {
            let position = checker.position() as usize;
            match self.log.get(position..).filter(|rest| !rest.is_empty()) {
                Some(rest) => checker.feed(&rest[..step.min(rest.len())]),
                None => checker.file_ends(),
            }
            steps += 1;
            assert!(steps < 10_000, "EverythingEnds");
        }
        checker.take_damage()
    }

    fn end(&self, batch: usize) -> usize {
        self.starts.get(batch + 1).copied().unwrap_or(self.log.len())
    }
}

fn places(damage: &[Damage]) -> Vec<(FileKind, u64)> {
    damage.iter().map(|damage| (damage.file, damage.position)).collect()
}

#[test]
fn what_is_sound_is_sound() {
    assert_eq!(stored(&[]).scrub(100), []);
    assert_eq!(stored(&[0]).scrub(1), []);
    let sound = stored(&[10, 300, 5_000, 0, 70, 70, 70]);
    for step in [1, 60, 61, 62, 4_096, 1 << 20] {
        assert_eq!(sound.scrub(step), [], "{step} bytes at once");
    }
}

#[test]
fn a_segment_that_is_written_to_may_end_anywhere() {
    let sound = stored(&[10, 300, 70]);
    for bytes in 0..=sound.log.len() as u64 {
        assert_eq!(sound.scrub_extent(50, Extent { bytes, is_sealed: false }), [], "{bytes} bytes");
    }
    let mut damaged = sound.clone();
    damaged.log[sound.starts[1] + 100] ^= 1;
    let bytes = sound.starts[2] as u64 + 5;
    let found = damaged.scrub_extent(50, Extent { bytes, is_sealed: false });
    assert_eq!(places(&found), [(FileKind::Log, sound.starts[1] as u64)]);
}

#[test]
fn a_file_that_is_too_short_is_told() {
    let mut short = stored(&[10, 300, 70]);
    let extent = Extent { bytes: short.log.len() as u64, is_sealed: true };
    short.log.truncate(short.starts[2] + 20);
    assert_eq!(places(&short.scrub_extent(64, extent)), [(FileKind::Log, short.log.len() as u64)]);
    short.log.clear();
    assert_eq!(places(&short.scrub_extent(64, extent)), [(FileKind::Log, 0)]);
}

#[test]
fn what_lies_behind_damage_is_looked_at() {
    let sound = stored(&[100; 12]);
    let mut damaged = sound.clone();
    // A header that is none, and two wrong bytes further on.
    damaged.log[sound.starts[2]..sound.starts[2] + 61].fill(0xff);
    for batch in [5, 6, 9] {
        damaged.log[sound.end(batch) - 1] ^= 0x10;
    }
    let expected = [2, 5, 6, 9].map(|batch| (FileKind::Log, sound.starts[batch] as u64));
    assert_eq!(places(&damaged.scrub(1_000)), expected);
    // Only so many are told.
    let mut worse = stored(&[100; 60]);
    for start in worse.starts.clone() {
        worse.log[start + 70] ^= 1;
    }
    assert_eq!(worse.scrub(1_000).len(), PLACES_MAX);
}

#[test]
fn a_wrong_base_offset_is_told_once() {
    let sound = stored(&[100; 12]);
    for (wrong, batch) in [(BASE, 5), (sound.end_offset.plus(-3), 6), (Offset(i64::MAX - 5), 5)] {
        let mut damaged = sound.clone();
        batch::patch_base_offset(&mut damaged.log[sound.starts[5]..], wrong);
        let found = damaged.scrub(1_000);
        let in_log: Vec<_> = places(&found).into_iter().filter(|(file, _)| *file == FileKind::Log).collect();
        assert_eq!(in_log, [(FileKind::Log, sound.starts[batch] as u64)], "{wrong}: {found:?}");
    }
}

#[test]
fn indexes_are_held_against_the_batches() {
    let sound = stored(&[100; 12]);
    let told = |offsets: &[u8], times: &[u8]| {
        let damaged = Stored { offsets: offsets.to_vec(), times: times.to_vec(), ..sound.clone() };
        places(&damaged.scrub(1_000))
    };
    let mut offsets = sound.offsets.clone();
    // The third entry points a byte further.
    offsets[2 * OFFSET_ENTRY_BYTES + 7] ^= 1;
    assert_eq!(told(&offsets, &sound.times), [(FileKind::OffsetIndex, 2 * OFFSET_ENTRY_BYTES as u64)]);
    assert_eq!(told(&sound.offsets[..12], &sound.times), [(FileKind::OffsetIndex, 0)]);
    let mut times = sound.times.clone();
    // The third entry says that all is older than it is.
    times[2 * TIME_ENTRY_BYTES + 7] -= 1;
    assert_eq!(told(&sound.offsets, &times), [(FileKind::TimeIndex, 2 * TIME_ENTRY_BYTES as u64)]);
    // Room at the end, as Kafka leaves it.
    let mut roomy = sound.offsets.clone();
    roomy.resize(4_096, 0);
    assert_eq!(told(&roomy, &sound.times), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// RotIsReported, SoundIsNeverReported: one bit that flips in a batch is told, there and nowhere else, however the file is read.
    #[test]
    fn a_bit_that_flips_is_told_where_it_is(
        values in prop::collection::vec(0usize..600, 1..14),
        batch in any::<prop::sample::Index>(), inside in any::<prop::sample::Index>(), bit in 0u8..8, step in 1usize..3_000,
    ) {
        let sound = stored(&values);
        prop_assert_eq!(sound.scrub(step), []);
        let batch = batch.index(values.len());
        let (start, end) = (sound.starts[batch], sound.end(batch));
        let inside = inside.index(end - start);
        // No CRC covers the base offset, nor the leader epoch.
        prop_assume!(!(0..8).contains(&inside) && !(12..16).contains(&inside));
        let mut damaged = sound.clone();
        damaged.log[start + inside] ^= 1 << bit;
        prop_assert_eq!(places(&damaged.scrub(step)), [(FileKind::Log, start as u64)]);
    }

    /// It comes to an end with any bytes, and says nothing of the log for what is wrong with its indexes.
    #[test]
    fn any_indexes_are_survived(
        values in prop::collection::vec(0usize..300, 1..10), step in 1usize..3_000,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4), is_times in any::<bool>(),
        junk in prop::collection::vec(any::<u8>(), 0..2_000),
    ) {
        let sound = stored(&values);
        let mut damaged = sound.clone();
        let index = if is_times { &mut damaged.times } else { &mut damaged.offsets };
        for (at, bit) in flips {
            if !index.is_empty() {
                let at = at.index(index.len());
                index[at] ^= 1 << bit;
            }
        }
        prop_assert!(damaged.scrub(step).iter().all(|damage| damage.file != FileKind::Log));
        damaged.log = junk;
        let _ = damaged.scrub(step);
    }
}
