//! Large runs, which go straight to their segments: what that saves, and what follows when it fails, step by step. That no crash
//! finds a gap is for the random schedules of `sim_log`.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod sim_support;

use std::time::Duration;

use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::core::CoreSettings;
use ringlog_engine::disk::sim::{Injection, Operation};
use ringlog_engine::log::append::{AppendError, Appended};
use ringlog_engine::types::{Offset, PartitionId, TimestampMs, TopicId};

use sim_support::{Boot, Machine, boot_durable, bytes_of};

const SEGMENT: &str = "topic-0/00000000000000000000.log";
const LARGE_BYTES: usize = 100 << 10;
const LARGE_SEGMENT: u64 = 1 << 30;

/// Two partitions of durable topics, with segments of so many bytes.
fn boot(machine: &Machine, segment_bytes: u64) -> Boot {
    let settings = CoreSettings {
        data_directory: machine.data.clone(),
        journal_bytes: 16 << 20,
        journal_run_bytes_max: 64 << 10,
        tail_bytes: 32 << 20,
        open_files_max: 8,
    };
    boot_durable(machine, settings, Some(segment_bytes), &["topic-0", "other-0"])
}

fn id(topic: u8) -> PartitionId {
    PartitionId { topic: TopicId([topic; 16]), index: 0 }
}

fn batch(fill: u8, len: usize) -> Vec<u8> {
    BatchBuilder::new(Offset(0)).record(TimestampMs(1), None, Some(&vec![fill; len])).build()
}

fn append(machine: &Machine, boot: &Boot, index: usize, fill: u8, len: usize) -> Result<Appended, AppendError> {
    boot.append(machine, index, &batch(fill, len))
}

/// A machine with partitions to whose segments large runs may go.
fn straightened(seed: u64, segment_bytes: u64) -> (Machine, Boot) {
    let machine = Machine::new(seed, false);
    let boot = boot(&machine, segment_bytes);
    append(&machine, &boot, 0, 0, 10 << 10).unwrap();
    append(&machine, &boot, 1, 0, 10 << 10).unwrap();
    // Their first bytes and their names come to the disk when they have been idle.
    machine.block_on(boot.core.env.sleep(Duration::from_secs(10)));
    (machine, boot)
}

/// The bytes that are written while `work` runs.
fn written(machine: &Machine, work: impl FnOnce()) -> usize {
    let before = machine.disk.counters().bytes_written;
    work();
    (machine.disk.counters().bytes_written - before) as usize
}

/// The first byte of each record's value, in order.
fn fills(machine: &Machine, boot: &Boot, index: usize) -> Vec<u8> {
    let published = boot.partitions[index].published.clone();
    let core = boot.core.clone();
    machine.block_on(async move {
        let mut fills = Vec::new();
        let mut at = Offset(0);
        while at < published.high_watermark() {
            let plan = core.reader.plan(&published, at, 1 << 20, true).await.unwrap();
            let bytes = bytes_of(&plan).await;
            for batch in ringlog_engine::batch::batches(&bytes) {
                let Ok(batch) = batch else { break };
                batch.check_crc().unwrap();
                fills.push(batch.bytes()[batch.bytes().len() - 2]);
                at = batch.header().next_offset();
            }
        }
        fills
    })
}

#[test]
fn a_large_run_is_written_once_and_survives() {
    let (machine, boot) = straightened(1, LARGE_SEGMENT);
    let bytes = written(&machine, || {
        for fill in 1..=5 {
            append(&machine, &boot, 0, fill, LARGE_BYTES).unwrap();
        }
    });
    assert!(bytes < 6 * LARGE_BYTES, "{bytes} for {} that were appended", 5 * LARGE_BYTES);
    // A small one goes through the journal.
    append(&machine, &boot, 0, 6, 100).unwrap();
    append(&machine, &boot, 0, 7, LARGE_BYTES).unwrap();
    machine.lose_power();
    let boot = self::boot(&machine, LARGE_SEGMENT);
    assert_eq!(fills(&machine, &boot, 0), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_new_segment_is_made_ready_for_large_runs() {
    let machine = Machine::new(1, false);
    let boot = boot(&machine, LARGE_SEGMENT);
    // The first goes through the journal, and has the segment settled.
    append(&machine, &boot, 0, 0, LARGE_BYTES).unwrap();
    append(&machine, &boot, 0, 1, LARGE_BYTES).unwrap();
    machine.block_on(boot.core.env.sleep(Duration::from_millis(100)));
    let bytes = written(&machine, || {
        append(&machine, &boot, 0, 2, LARGE_BYTES).unwrap();
    });
    assert!(bytes < 2 * LARGE_BYTES, "{bytes}");
}

#[test]
fn a_run_that_fails_goes_through_the_journal() {
    for operation in [Operation::Write, Operation::Sync] {
        let (machine, boot) = straightened(1, LARGE_SEGMENT);
        machine.disk.inject(Injection::next(operation, SEGMENT));
        append(&machine, &boot, 0, 1, LARGE_BYTES).unwrap();
        append(&machine, &boot, 0, 2, LARGE_BYTES).unwrap();
        machine.lose_power();
        let boot = self::boot(&machine, LARGE_SEGMENT);
        assert_eq!(fills(&machine, &boot, 0), [0, 1, 2], "{operation:?}");
    }
}

#[test]
fn what_neither_way_took_is_cut_off_the_file() {
    // How much of a write that fails is in the file follows from the seed.
    for seed in 0..20 {
        let (machine, boot) = straightened(seed, LARGE_SEGMENT);
        machine.disk.inject(Injection::next(Operation::Write, SEGMENT));
        machine.disk.inject(Injection::next(Operation::Sync, "ringlog-journal"));
        // What takes the place of the first batch is as long, and makes those behind it look sound.
        let run = [LARGE_BYTES, 10_000, 10_000, 10_000, 10_000, 10_000].map(|len| boot.send(0, &batch(1, len)));
        for answer in run {
            let error = machine.block_on(async move { answer.await.unwrap() }).unwrap_err();
            assert!(matches!(error, AppendError::Journal(_)), "{error}");
        }
        append(&machine, &boot, 0, 2, LARGE_BYTES).unwrap();
        machine.kill_the_process();
        let boot = self::boot(&machine, LARGE_SEGMENT);
        assert_eq!(fills(&machine, &boot, 0), [0, 2]);
    }
}

#[test]
fn a_file_that_cannot_be_cut_takes_nothing_more() {
    let (machine, boot) = straightened(1, LARGE_SEGMENT);
    machine.disk.inject(Injection::next(Operation::Sync, SEGMENT));
    machine.disk.inject(Injection::next(Operation::SetLen, SEGMENT));
    machine.disk.inject(Injection::next(Operation::Sync, "ringlog-journal"));
    append(&machine, &boot, 0, 1, LARGE_BYTES).unwrap_err();
    machine.block_on(boot.core.env.sleep(Duration::from_millis(10)));
    let error = append(&machine, &boot, 0, 2, 100).unwrap_err();
    assert!(matches!(&error, AppendError::Offline(reason) if reason.contains("cut off")), "{error}");
    assert_eq!(fills(&machine, &boot, 0), [0]);
}

#[test]
fn a_full_disk_costs_an_error_and_nothing_else() {
    let (machine, boot) = straightened(1, LARGE_SEGMENT);
    machine.leave_room(0);
    // More than the journal has room for already.
    let error = append(&machine, &boot, 0, 1, 2 << 20).unwrap_err();
    assert!(matches!(error, AppendError::NoRoom(_)), "{error}");
    machine.disk.set_capacity(None);
    append(&machine, &boot, 0, 2, LARGE_BYTES).unwrap();
    append(&machine, &boot, 0, 3, LARGE_BYTES).unwrap();
    machine.block_on(boot.core.env.sleep(Duration::from_secs(1)));
    // The next one takes along what the file lacks.
    append(&machine, &boot, 0, 4, LARGE_BYTES).unwrap();
    let bytes = written(&machine, || {
        for fill in 5..8 {
            append(&machine, &boot, 0, fill, LARGE_BYTES).unwrap();
        }
    });
    assert!(bytes < 4 * LARGE_BYTES, "after a while the file is tried again: {bytes}");
    machine.lose_power();
    let boot = self::boot(&machine, LARGE_SEGMENT);
    assert_eq!(fills(&machine, &boot, 0), [0, 2, 3, 4, 5, 6, 7]);
}

/// A round that a full disk refused may be in the journal all the same: replay must not put it in the place of what went straight.
#[test]
fn what_the_journal_gave_back_takes_no_place_from_a_large_run() {
    // Whether it is in the file, and outlasts the loss of power, follows from the seed.
    for seed in 0..40 {
        let (machine, boot) = straightened(seed, LARGE_SEGMENT);
        machine.disk.set_copies_on_write(true);
        machine.leave_room(0);
        let error = append(&machine, &boot, 0, 1, 10_000).unwrap_err();
        assert!(matches!(error, AppendError::NoRoom(_)), "{error}");
        machine.disk.set_capacity(None);
        append(&machine, &boot, 0, 2, LARGE_BYTES).unwrap();
        machine.lose_power();
        let boot = self::boot(&machine, LARGE_SEGMENT);
        assert_eq!(fills(&machine, &boot, 0), [0, 2], "seed {seed}");
    }
}

/// What is appended while the journal is started anew, before the file is cut, must not hide what is in the file.
#[test]
fn what_is_appended_before_the_cut_does_not_hide_it() {
    for seed in 0..30 {
        let (machine, boot) = straightened(seed, LARGE_SEGMENT);
        machine.disk.inject(Injection::next(Operation::Write, SEGMENT));
        machine.disk.inject(Injection::next(Operation::Sync, "ringlog-journal"));
        let run = [LARGE_BYTES, 10_000, 10_000, 10_000, 10_000, 10_000].map(|len| boot.send(0, &batch(1, len)));
        for answer in run {
            machine.block_on(async move { answer.await.unwrap() }).unwrap_err();
        }
        let first = boot.send(0, &batch(2, LARGE_BYTES));
        let _second = boot.send(0, &batch(3, (4 << 20) - 1000));
        machine.block_on(async move { first.await.unwrap() }).unwrap();
        machine.kill_the_process();
        let boot = self::boot(&machine, LARGE_SEGMENT);
        let found = fills(&machine, &boot, 0);
        assert!(found == [0, 2] || found == [0, 2, 3], "seed {seed}: {found:?}");
    }
}

/// The same where it begins the next segment, which recovery would set aside.
#[test]
fn a_roll_before_the_cut_loses_nothing() {
    for seed in 0..30 {
        let (machine, boot) = straightened(seed, 220 << 10);
        machine.disk.inject(Injection::next(Operation::Write, SEGMENT));
        machine.disk.inject(Injection::next(Operation::Sync, "ringlog-journal"));
        let run = [LARGE_BYTES, 10_000, 10_000, 10_000].map(|len| boot.send(0, &batch(1, len)));
        for answer in run {
            machine.block_on(async move { answer.await.unwrap() }).unwrap_err();
        }
        append(&machine, &boot, 0, 2, 215 << 10).unwrap();
        append(&machine, &boot, 0, 3, 100).unwrap();
        machine.lose_power();
        let boot = self::boot(&machine, 220 << 10);
        assert_eq!(fills(&machine, &boot, 0), [0, 2, 3], "seed {seed}");
    }
}

/// A full disk takes runs of two partitions; the second one's next batch begins a segment while the first one's file is cut.
#[test]
fn a_roll_while_another_file_is_cut_loses_nothing() {
    let segment_bytes = 720 << 10;
    let mut tried = 0;
    for seed in 0..40 {
        let (machine, boot) = straightened(seed, segment_bytes);
        machine.leave_room(300 << 10);
        let runs = [(0, 70 << 10), (0, 600 << 10), (1, 70 << 10), (1, 600 << 10)];
        let answers = runs.map(|(index, len)| boot.send(index, &batch(1, len)));
        let results = answers.map(|answer| machine.block_on(async move { answer.await.unwrap() }));
        machine.disk.set_capacity(None);
        if results.iter().any(Result::is_ok) {
            continue;
        }
        tried += 1;
        append(&machine, &boot, 1, 2, 715 << 10).unwrap();
        append(&machine, &boot, 1, 3, 100).unwrap();
        machine.kill_the_process();
        let boot = self::boot(&machine, segment_bytes);
        assert_eq!(fills(&machine, &boot, 1), [0, 2, 3], "seed {seed}");
    }
    assert!(tried > 10, "{tried}");
}

#[test]
fn nothing_is_acknowledged_where_a_file_cannot_be_cut() {
    let (machine, boot) = straightened(1, LARGE_SEGMENT);
    machine.disk.inject(Injection::next(Operation::Sync, SEGMENT));
    machine.disk.inject(Injection::next(Operation::SetLen, SEGMENT));
    machine.disk.inject(Injection::next(Operation::Sync, "ringlog-journal"));
    append(&machine, &boot, 0, 1, LARGE_BYTES).unwrap_err();
    // This one comes before the cut.
    append(&machine, &boot, 0, 2, 100).unwrap_err();
    append(&machine, &boot, 0, 3, 100).unwrap_err();
}

/// Also where other checkpoints come in between.
#[test]
fn what_recovery_reads_stays_bounded() {
    let (machine, boot) = straightened(1, LARGE_SEGMENT);
    for round in 0..60 {
        let batch = BatchBuilder::new(Offset(0)).record(TimestampMs(10 + round), None, Some(&[1; 1 << 20])).build();
        let answer = boot.send(0, &batch);
        machine.block_on(async move { answer.await.unwrap() }).unwrap();
        if round % 4 == 3 {
            let core = boot.core.clone();
            machine.block_on(async move { core.delete_records(id(2), Offset(-1)).await.unwrap() });
        }
    }
    machine.kill_the_process();
    let before = machine.disk.counters().bytes_read;
    drop(self::boot(&machine, LARGE_SEGMENT));
    let read = machine.disk.counters().bytes_read - before;
    assert!(read < 40 << 20, "{read} bytes of {}", 60 << 20);
}
