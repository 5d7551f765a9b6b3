//! Every kind of damage, made, repaired, and looked for again.

mod crashes;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use ringlog_engine::batch::{BatchBuilder, batches as batches_of};
use ringlog_engine::journal::checkpoint::Checkpoint;
use ringlog_engine::journal::format::JournalId;
use ringlog_engine::log::checkpoint::encode_partition_metadata;
use ringlog_engine::log::producer_snapshot;
use ringlog_engine::types::{Offset, PartitionId, ProducerId, TimestampMs};

use super::*;
use crate::offline::tests::{Data, LOG, TOPIC, batches};

const INDEX: &str = "00000000000000000000.index";
const TIME_INDEX: &str = "00000000000000000000.timeindex";

thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(usize::MAX) };
    /// What was changed and what was synced, in order.
    static TRACE: RefCell<Vec<(&'static str, PathBuf)>> = const { RefCell::new(Vec::new()) };
    static BEFORE_LOCK: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// A repair ends here, as in a crash, where a test says so.
pub(super) fn step(path: &Path) -> io::Result<()> {
    TRACE.with_borrow_mut(|trace| trace.push(("change", path.to_owned())));
    let left = STEPS.get();
    STEPS.set(left.saturating_sub(1));
    if left == 0 { Err(io::Error::other("the test ends it here")) } else { Ok(()) }
}

/// A directory was synced.
pub(super) fn synced(path: &Path) {
    TRACE.with_borrow_mut(|trace| trace.push(("sync", path.to_owned())));
}

/// A broker may still run here, where a test says so.
pub(super) fn before_lock() {
    if let Some(run) = BEFORE_LOCK.take() {
        run();
    }
}

/// Every file below a directory.
fn snapshot(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with(".lock") {
                files.insert(path.strip_prefix(root).unwrap().display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn run(path: &Path, execute: bool) -> (bool, String) {
    let mut out = Vec::new();
    let well = repair(path, execute, &mut out).unwrap();
    (well, String::from_utf8(out).unwrap())
}

impl Data {
    fn file(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.partition().join(name)).ok()
    }

    /// Repairs after a dry run, which changes nothing and says the same; then nothing is left to do and all is well. Returns what
    /// was said.
    fn repaired(&self) -> String {
        let before = snapshot(self.path());
        let (well, plan) = run(self.path(), false);
        assert!(!well, "{plan}");
        assert!(snapshot(self.path()) == before, "a dry run changes nothing");
        let (well, said) = run(self.path(), true);
        assert!(well && said.ends_with("done\n"), "{said}");
        assert_eq!(plan.replace("nothing was changed; --execute does it\n", ""), said.replace("done\n", ""));
        let after = snapshot(self.path());
        let (well, again) = run(self.path(), true);
        assert!(well && again.ends_with("nothing to repair\n"), "{again}");
        assert!(snapshot(self.path()) == after, "the second run does nothing");
        let (sound, text) = self.verify();
        assert!(sound && (said.contains("add: ") || said.starts_with("salvage: ") || !text.contains("missing")), "{text}");
        said
    }

    fn offsets(&self) -> Vec<i64> {
        self.json(false).1.iter().map(|line| line["base_offset"].as_i64().unwrap()).collect()
    }
}

/// Batches with their positions.
fn with_positions() -> (Vec<Vec<u8>>, Vec<usize>) {
    let batches = batches();
    let mut positions = vec![0];
    for batch in &batches {
        positions.push(positions[positions.len() - 1] + batch.len());
    }
    (batches, positions)
}

#[test]
fn what_is_sound_is_left_alone() {
    let batches = batches();
    let data = Data::new(&batches.concat()).with_indexes(&batches);
    let before = snapshot(data.path());
    for execute in [false, true] {
        let (well, text) = run(data.path(), execute);
        assert!(well && text.ends_with("nothing to repair\n"), "{text}");
        assert!(run(&data.partition(), execute).0);
    }
    assert!(snapshot(data.path()) == before);
}

#[test]
fn a_rotten_batch_is_cut_and_what_lies_behind_stays() {
    let (batches, positions) = with_positions();
    let mut log = batches.concat();
    log[positions[4] + 70] ^= 1;
    let data = Data::new(&log).with_indexes(&batches);
    let said = data.repaired();
    assert!(
        said.contains(&format!("cut: {LOG} position {}, {} bytes, of offsets 12..14: ", positions[4], batches[4].len())),
        "{said}"
    );
    assert!(said.contains(&format!("rebuild: {INDEX}: ")), "{said}");
    assert_eq!(data.offsets(), [0, 3, 6, 9, 15, 18, 21, 24, 27]);
    assert_eq!(data.file(LOG).unwrap(), [&batches[..4], &batches[5..]].concat().concat());
    assert_eq!(data.file(&format!("{LOG}.{}.cut", positions[4])).unwrap(), log[positions[4]..positions[5]]);
}

#[test]
fn damage_of_every_field_of_a_header_takes_no_other_batch() {
    let (batches, positions) = with_positions();
    for at in 0..61 {
        for bit in [0, 6, 7] {
            let mut log = batches.concat();
            log[positions[4] + at] ^= 1 << bit;
            let data = Data::new(&log);
            let said = data.repaired();
            let log = data.file(LOG).unwrap();
            let (front, back) = (batches[..4].concat(), batches[5..].concat());
            assert!(log.starts_with(&front) && log.ends_with(&back), "byte {at}: {said}");
            // The base offset can be told from the neighbours (none is negative: that is no header), and the leader epoch is anybody's guess.
            let whole = at < 8 && (at, bit) != (0, 7);
            assert_eq!(
                log.len(),
                front.len() + back.len() + if whole || (12..16).contains(&at) { batches[4].len() } else { 0 },
                "{at}"
            );
            assert_eq!(said.contains("restore: "), whole, "byte {at}: {said}");
        }
    }
}

#[test]
fn a_torn_end_is_cut() {
    let (batches, positions) = with_positions();
    let log = batches.concat();
    let data = Data::new(&log[..log.len() - 5]).with_indexes(&batches[..9]);
    let said = data.repaired();
    assert!(said.contains(&format!("cut: {LOG} position {}", positions[9])), "{said}");
    assert_eq!(data.file(LOG).unwrap(), batches[..9].concat());
    assert_eq!(data.file(&format!("{LOG}.{}.cut", positions[9])).unwrap(), log[positions[9]..log.len() - 5]);
}

#[test]
fn garbage_and_zeros_between_and_behind_are_cut() {
    let batches = batches();
    let garbage = [0xa5_u8; 777];
    let data = Data::new(&[&batches[..2].concat()[..], &garbage, &batches[2..].concat(), &[0; 4096]].concat());
    let said = data.repaired();
    assert!(said.contains("777 bytes") && said.contains("4096 bytes: zeros where a batch should be\n"), "{said}");
    assert_eq!(data.file(LOG).unwrap(), batches.concat());
    let copies: Vec<_> = snapshot(&data.partition()).into_iter().filter(|(name, _)| name.ends_with(".cut")).collect();
    assert!(matches!(&copies[..], [(_, bytes)] if bytes[..] == garbage), "no copy of zeros");
}

#[test]
fn batches_that_are_there_twice_stay_once() {
    let batches = batches();
    let data = Data::new(&[&batches[..6], &batches[3..]].concat().concat());
    data.repaired();
    assert_eq!(data.file(LOG).unwrap(), batches.concat());

    // In two segments.
    let data = Data::new(&batches[..6].concat());
    data.write("00000000000000000015.log", &batches[5..].concat());
    let said = data.repaired();
    assert!(said.contains("offsets 15..17 where the next segment begins at 15"), "{said}");
    assert_eq!(data.offsets().len(), 10);

    // An empty segment takes nothing away from the one before it.
    let data = Data::new(&batches.concat());
    data.write("00000000000000000015.log", b"");
    let said = data.repaired();
    assert!(said.contains("remove: 00000000000000000015.log"), "{said}");
    assert_eq!(data.file(LOG).unwrap(), batches.concat());
}

#[test]
fn offsets_that_were_synced_and_are_lost_are_not_given_again() {
    let batches = batches();
    let log = batches.concat();
    let data = Data::new(&log[..log.len() - 5]);
    fs::write(data.path().join("recovery-point-offset-checkpoint"), "0\n1\nt 0 30\n").unwrap();
    let said = data.repaired();
    assert!(said.contains("add: 00000000000000000030.log, empty"), "{said}");
    assert_eq!(data.file("00000000000000000030.log"), Some(Vec::new()));

    let data = Data::new(b"nothing but damage");
    fs::write(data.path().join("recovery-point-offset-checkpoint"), "0\n1\nt 0 30\n").unwrap();
    data.repaired();
    assert_eq!((data.file(LOG), data.file("00000000000000000030.log")), (Some(Vec::new()), Some(Vec::new())));
}

#[test]
fn indexes_are_made_anew() {
    let batches = batches();
    let good = Data::new(&batches.concat()).with_indexes(&batches);
    for (name, damage) in
        [(INDEX, &b"odd"[..]), (INDEX, &[0, 0, 0, 9, 0, 0, 0, 1]), (TIME_INDEX, &[1; 13]), (TIME_INDEX, &[0xff; 24])]
    {
        let data = Data::new(&batches.concat()).with_indexes(&batches);
        data.write(name, damage);
        let said = data.repaired();
        assert!(said.contains(&format!("rebuild: {name}: ")) && said.matches("rebuild").count() == 1, "{said}");
        assert_eq!(data.file(LOG), good.file(LOG));
        fs::remove_file(data.partition().join(name)).unwrap();
        assert!(data.repaired().contains("missing"));
    }
}

#[test]
fn large_segments_get_entries() {
    let value = vec![b'x'; 1500];
    let log: Vec<u8> = (0..100)
        .flat_map(|at| BatchBuilder::new(Offset(at)).record(TimestampMs(1000 + at), None, Some(&value)).build())
        .collect();
    let data = Data::new(&log);
    data.repaired();
    let batches: Vec<_> = batches_of(&log).map(|batch| *batch.unwrap().header()).collect();
    let offsets = data.file(INDEX).unwrap();
    let entries = ringlog_engine::segment::index::parse_offset_index(&offsets, Offset(0), log.len() as u64).unwrap();
    assert!((30..40).contains(&entries.len()), "{}", entries.len());
    for entry in entries {
        assert_eq!(batches[entry.last_offset.0 as usize].size_bytes() as u64 * entry.last_offset.0 as u64, entry.position);
    }
    let times = ringlog_engine::segment::index::parse_time_index(&data.file(TIME_INDEX).unwrap(), Offset(0)).unwrap();
    assert_eq!(times.last().map(|entry| (entry.timestamp.0, entry.offset.0)), Some((1099, 99)));
}

#[test]
fn files_beside_the_log_are_made_anew_from_its_batches() {
    let first = BatchBuilder::new(Offset(0)).producer(ProducerId(77), 2, 5).leader_epoch(ringlog_engine::types::LeaderEpoch(4));
    let first = first.transactional().record(TimestampMs(1), None, None).record(TimestampMs(1), None, None).build();
    let second = BatchBuilder::new(Offset(2)).producer(ProducerId(9), 0, 0).leader_epoch(ringlog_engine::types::LeaderEpoch(6));
    let second = second.record(TimestampMs(1), None, None).build();
    let abort = BatchBuilder::new(Offset(3)).producer(ProducerId(77), 2, -1).transactional().control();
    let abort = abort.leader_epoch(ringlog_engine::types::LeaderEpoch(6)).record(
        TimestampMs(2),
        Some(&[0; 4]),
        Some(&[0, 0, 0, 0, 0, 8]),
    );
    let log = [first, second, abort.build()].concat();
    let data = Data::new(&log);
    data.repaired();
    data.write("00000000000000000000.txnindex", &[0; 35]);
    data.write("00000000000000000003.snapshot", b"\0\x01\0\0\0\0\0\0\0\x01");
    data.write("00000000000000000004.snapshot", b"nonsense");
    data.write("00000000000000000099.snapshot", b"of what is lost");
    data.write("leader-epoch-checkpoint", b"0\n2\n3 0\n");
    let said = data.repaired();
    assert!(said.contains("put aside: 00000000000000000099.snapshot: "), "{said}");
    assert_eq!(data.file("leader-epoch-checkpoint").unwrap(), b"0\n2\n4 0\n6 2\n");
    assert_eq!(data.file("leader-epoch-checkpoint.cut").unwrap(), b"0\n2\n3 0\n");
    let entries = producer_snapshot::parse(&data.file("00000000000000000003.snapshot").unwrap()).unwrap();
    assert_eq!(
        entries.iter().map(|e| (e.producer_id.0, e.last_sequence, e.last_offset.0, e.transaction_start.0)).collect::<Vec<_>>(),
        [(9, 0, 2, -1), (77, 6, 1, 0)]
    );
    let entries = producer_snapshot::parse(&data.file("00000000000000000004.snapshot").unwrap()).unwrap();
    assert_eq!((entries[1].transaction_start.0, entries[1].coordinator_epoch), (-1, 8), "its transaction has ended");
    assert!(data.file("00000000000000000099.snapshot").is_none());
    let list = data.file("00000000000000000000.txnindex").unwrap();
    let number = |at: usize| i64::from_be_bytes(list[at..at + 8].try_into().unwrap());
    assert_eq!((list.len(), number(2), number(10), number(18), number(26)), (34, 77, 0, 3, 4));
}

#[test]
fn a_topics_id_comes_from_its_other_partitions_or_a_backup() {
    let data = Data::new(&batches().concat()).with_indexes(&batches());
    data.write("partition.metadata", b"version: 0\ntopic_id: nonsense\n");
    let (well, text) = run(data.path(), true);
    assert!(!well && text.contains("cannot repair: partition.metadata: ") && text.contains("backup"), "{text}");
    let other = data.path().join("t-1");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("partition.metadata"), encode_partition_metadata(TOPIC)).unwrap();
    data.repaired();
    assert_eq!(data.file("partition.metadata").unwrap(), encode_partition_metadata(TOPIC).as_bytes());
}

#[test]
fn checkpoints_of_the_directory_keep_their_sound_lines() {
    let data = Data::new(&batches().concat()).with_indexes(&batches());
    let path = data.path().join("log-start-offset-checkpoint");
    fs::write(&path, "0\n3\nt 0 3\nother 1 x\nt 1 7\n").unwrap();
    let said = data.repaired();
    assert!(said.contains("rebuild: log-start-offset-checkpoint: line 4: ") && said.contains("2 sound lines stay"), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "0\n2\nt 0 3\nt 1 7\n");
    assert!(data.path().join("log-start-offset-checkpoint.cut").exists());
}

#[test]
fn journals_are_settled_before_anything_is_cut() {
    let (batches, positions) = with_positions();
    let mut log = batches.concat();
    let pieces = [(positions[7], 21, 30, batches[7..].concat())];
    let pieces: Vec<_> = pieces.iter().map(|(at, first, next, bytes)| (*at as u64, *first, *next, &bytes[..])).collect();
    log.truncate(positions[7] + 20);

    // Nothing but a crash: that is for the next start.
    let data = Data::new(&log).crashed().with_journal(&pieces);
    let before = snapshot(data.path());
    assert!(run(data.path(), true).0);
    assert!(snapshot(data.path()) == before);

    log[positions[2] + 70] ^= 1;
    let data = Data::new(&log).crashed().with_journal(&pieces);
    assert!(matches!(repair(&data.partition(), true, &mut Vec::new()), Err(OfflineError::NeedsWhole { .. })));
    let said = data.repaired();
    assert!(said.starts_with("settle: "), "{said}");
    assert_eq!(data.file(LOG).unwrap(), [&batches[..2], &batches[3..]].concat().concat());
    assert!(!data.path().join("ringlog-journal.0").exists());
    let text = fs::read_to_string(data.path().join("recovery-point-offset-checkpoint")).unwrap();
    assert_eq!(text, "0\n1\nt 0 30\n");
}

#[test]
fn a_journal_without_a_sound_checkpoint_is_salvaged() {
    let (batches, positions) = with_positions();
    let log = batches.concat();
    let piece =
        |from: usize, to: usize| (positions[from] as u64, from as i64 * 3, to as i64 * 3, &log[positions[from]..positions[to]]);
    let pieces = [piece(0, 2), piece(2, 4), piece(4, 7), piece(7, 10)];
    // From whole segments to none of what the journal has.
    for whole in [10, 8, 7, 5, 4, 0] {
        let data = Data::new(&[&log[..positions[whole]], log[positions[whole]..].get(..20).unwrap_or_default()].concat());
        let data = data.crashed().with_journal(&pieces);
        let checkpoint = data.path().join("ringlog-journal.0/checkpoint");
        let mut text = fs::read(&checkpoint).unwrap();
        text[3] ^= 1;
        fs::write(&checkpoint, text).unwrap();
        let said = data.repaired();
        let bytes = log.len() - positions[whole];
        assert!(said.starts_with("salvage: ") && said.contains(&format!("4 rounds are there, with {bytes} bytes")), "{said}");
        assert_eq!(data.file(LOG).unwrap(), log);
        assert!(!data.path().join("ringlog-journal.0").exists());
    }

    // What was removed since does not come back, and a gap is not filled.
    let data = Data::new(b"").crashed().with_journal(&pieces);
    fs::rename(data.partition().join(LOG), data.partition().join("00000000000000000030.log")).unwrap();
    fs::write(data.path().join("ringlog-journal.0/checkpoint"), "nonsense").unwrap();
    let said = data.repaired();
    assert!(said.contains("with 0 bytes"), "{said}");
    assert!(data.file(LOG).is_none());
}

const SECOND: &str = "00000000000000000015.log";

#[test]
fn a_partition_that_is_half_compacted_is_left_alone() {
    let (batches, positions) = with_positions();
    let mut log = batches.concat();
    log[positions[4] + 70] ^= 1;
    for left in ["00000000000000000000.log.swap", "00000000000000000000.index.cleaned"] {
        let data = Data::new(&log).with_indexes(&batches);
        data.write(left, &batches.concat());
        data.write("00000000000000000015.log.deleted", b"of the old ones");
        let before = snapshot(data.path());
        for execute in [false, true] {
            let (well, said) = run(data.path(), execute);
            assert!(!well, "the exit status says it");
            assert!(
                said.contains(&format!("cannot repair: {left} is of a compaction")) && said.contains("start and stop"),
                "{said}"
            );
        }
        assert!(snapshot(data.path()) == before);
        fs::remove_file(data.partition().join(left)).unwrap();
        data.repaired();
    }
}

/// An aborted transaction of producer 77 at offsets 0 and 1, and a batch of another's before its marker and one behind.
fn aborted_transaction() -> [Vec<u8>; 4] {
    let first = BatchBuilder::new(Offset(0)).producer(ProducerId(77), 2, 5).transactional();
    let first = first.record(TimestampMs(1), None, None).record(TimestampMs(1), None, None).build();
    let plain = |offset: i64| BatchBuilder::new(Offset(offset)).record(TimestampMs(1), None, Some(b"plain")).build();
    let abort = BatchBuilder::new(Offset(3)).producer(ProducerId(77), 2, -1).transactional().control();
    let abort = abort.record(TimestampMs(2), Some(&[0; 4]), Some(&[0, 0, 0, 0, 0, 8])).build();
    [first, plain(2), abort, plain(4)]
}

#[test]
fn lists_of_aborted_transactions_survive_what_is_cut() {
    let list = "00000000000000000000.txnindex";
    let mut entry = vec![0, 0];
    entry.extend([77_i64, 0, 3, 4].into_iter().flat_map(i64::to_be_bytes));
    // The batch before the marker, the marker, and the transaction's beginning.
    for damaged in [1, 2, 0] {
        let mut batches = aborted_transaction();
        batches[damaged][65] ^= 1;
        let build = || {
            let data = Data::new(&batches.concat());
            data.write(list, &entry);
            data
        };
        let data = build();
        data.repaired();
        assert_eq!(data.file(list).as_ref(), Some(&entry), "batch {damaged}");
        for steps in 0.. {
            let data = build();
            STEPS.set(steps);
            let ended = repair(data.path(), true, &mut Vec::new());
            STEPS.set(usize::MAX);
            assert_eq!(data.file(list).as_ref(), Some(&entry), "batch {damaged}, step {steps}");
            if ended.is_ok() {
                break;
            }
        }
    }

    // Offsets that are given again take no old marker with them.
    let mut batches = aborted_transaction();
    batches[2][65] ^= 1;
    let data = Data::new(&batches[..3].concat());
    data.write(list, &entry);
    data.repaired();
    assert_eq!(data.file(list), None);
}

/// VerifySaysWhatRepairChanges: a list of the right length that the batches give another for.
#[test]
fn a_wrong_list_of_aborted_transactions_is_told_and_repaired() {
    let list = "00000000000000000000.txnindex";
    let mut entry = vec![0, 0];
    entry.extend([77_i64, 0, 3, 4].into_iter().flat_map(i64::to_be_bytes));
    let data = Data::new(&aborted_transaction().concat());
    data.write(list, &entry);
    assert!(data.verify().0, "{}", data.verify().1);
    // Version, producer, first offset, last offset, last stable offset: of each some bit; a first offset that is in the log and too
    // late; and an empty list.
    let flipped = [(1, 0x40), (9, 0x40), (10, 0x40), (17, 1), (25, 0x40), (27, 0x40), (26, 0x80)]
        .map(|(at, bit)| [&entry[..at], &[entry[at] ^ bit], &entry[at + 1..]].concat());
    for wrong in flipped.into_iter().chain([Vec::new()]) {
        data.write(list, &wrong);
        let (sound, said) = data.verify();
        assert!(!sound && said.contains(&format!("{list}: its batches give another")), "{wrong:?}: {said}");
        data.repaired();
        assert_eq!(data.file(list).as_ref(), Some(&entry), "{wrong:?}");
        assert!(data.verify().0, "{}", data.verify().1);
    }
}

#[test]
fn a_restored_base_offset_is_not_believed_for_an_empty_last_segment() {
    let (batches, positions) = with_positions();
    for rotten in [false, true] {
        let mut log = batches[..5].concat();
        log[positions[4] + 4] ^= 0x40;
        if rotten {
            log[positions[1] + 70] ^= 1;
        }
        let data = Data::new(&log);
        for name in [SECOND, "00000000000000000015.index", "00000000000000000015.timeindex"] {
            data.write(name, b"");
        }
        let said = data.repaired();
        assert!(said.contains("restore: ") && !said.contains("remove: "), "{said}");
        assert_eq!(data.file(SECOND), Some(Vec::new()));
        assert_eq!(data.offsets().last(), Some(&12));
    }
}

#[test]
fn a_damaged_checkpoint_is_repaired_before_journals_add_to_it() {
    let (batches, positions) = with_positions();
    let mut log = batches.concat();
    log[positions[2] + 70] ^= 1;
    let data = Data::new(&log).crashed().with_journal(&[]);
    let path = data.path().join("recovery-point-offset-checkpoint");
    fs::write(&path, "0\n2\nt 0 x\nother 1 7\n").unwrap();
    data.repaired();
    assert_eq!(fs::read_to_string(&path).unwrap(), "0\n2\nother 1 7\nt 0 30\n");
    assert_eq!(fs::read_to_string(path.with_extension("cut")).unwrap(), "0\n2\nt 0 x\nother 1 7\n");
}

#[test]
fn nothing_that_was_read_before_the_lock_counts() {
    let batches = batches();
    let data = Data::new(&batches[..5].concat());
    let path = data.partition().join(SECOND);
    let rest = batches[5..].concat();
    let torn = rest[..rest.len() - 5].to_vec();
    BEFORE_LOCK.set(Some(Box::new(move || fs::write(path, torn).unwrap())));
    let (_, said) = run(data.path(), false);
    assert!(said.contains("2 segments") && said.contains(&format!("cut: {SECOND} ")), "{said}");
}

#[test]
fn a_recovery_point_counts_for_every_journal() {
    let batches = batches();
    // The first journal has an old state of what the second one, to which the partition moved, knows as synced.
    let checkpoint = |journal, partitions| Checkpoint { journal: JournalId([journal; 16]), partitions, ..Checkpoint::default() };
    let data = Data::new(&batches.concat()).with_indexes(&batches).crashed().with_journal(&[]);
    let (first, second) = (data.path().join("ringlog-journal.0"), data.path().join("ringlog-journal.1"));
    fs::rename(&first, &second).unwrap();
    let partitions = vec![(PartitionId { topic: TOPIC, index: 0 }, Offset(30), Offset(0))];
    fs::write(second.join("checkpoint"), checkpoint(5, partitions).encode()).unwrap();
    let data = data.with_journal(&[(0, 0, 3, &[0xee; 90])]);
    for damaged in [false, true] {
        if damaged {
            // What is wrong with another journal changes nothing.
            fs::create_dir(data.path().join("ringlog-journal.2")).unwrap();
            fs::write(data.path().join("ringlog-journal.2/checkpoint"), "nonsense").unwrap();
        }
        let (_, said) = run(data.path(), false);
        assert!(!said.contains("cut: "), "{said}");
    }
}

#[test]
fn a_directory_in_use_is_refused() {
    let batches = batches();
    let data = Data::new(&batches.concat());
    fs::write(data.path().join(".lock"), "4711\n").unwrap();
    let held = fs::OpenOptions::new().write(true).open(data.path().join(".lock")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    for path in [data.path(), &data.partition()] {
        for execute in [false, true] {
            let error = repair(path, execute, &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains("used by another process (process 4711); stop it first"), "{error}");
        }
    }
    drop(held);
    data.repaired();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever happened to the files: each batch that is whole is there afterwards, what was cut is kept, and the next run finds
    /// nothing to do.
    #[test]
    fn whatever_the_damage_whole_batches_stay(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1_usize..80), 1..4),
        torn in any::<Option<prop::sample::Index>>(), clean: bool,
    ) {
        let (batches, positions) = with_positions();
        let whole = batches.concat();
        let mut log = whole.clone();
        for (at, byte, len) in hits {
            let at = at.index(log.len());
            let end = log.len().min(at + len);
            log[at..end].fill(byte);
        }
        if let Some(torn) = torn {
            log.truncate(torn.index(log.len()));
        }
        let data = Data::new(&log).with_indexes(&batches);
        let data = if clean { data } else { data.crashed() };
        run(data.path(), true);
        let after = snapshot(data.path());
        let (well, again) = run(data.path(), true);
        prop_assert!(well && again.ends_with("nothing to repair\n"), "{}", again);
        prop_assert!(snapshot(data.path()) == after);
        prop_assert!(data.verify().0);
        let stored = data.file(LOG).unwrap();
        let mut cut: u64 = after.iter().filter(|(name, _)| name.ends_with(".cut")).map(|(_, bytes)| bytes.len() as u64).sum();
        for (batch, range) in batches.iter().zip(positions.windows(2)) {
            // The leader epoch is not covered by the CRC, nor is the base offset: compare what is.
            if log.get(range[0] + 16..range[1]) == Some(&batch[16..]) && log[range[0]..range[0] + 12] == batch[..12] {
                prop_assert!(stored.windows(batch.len() - 16).any(|window| *window == batch[16..]));
            }
        }
        cut += stored.len() as u64;
        prop_assert!(cut <= log.len() as u64);
    }
}
