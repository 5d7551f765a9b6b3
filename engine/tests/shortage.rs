//! A process that may open no more files for a while, or gets no memory. Invariant ShortagesPass: nothing is given up for it. Producers
//! wait or are told to come again, what was acknowledged is kept, and when that has passed all goes on as before, without a new start.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod sim_support;

use std::time::Duration;

use ringlog_engine::batch::{self, BatchBuilder};
use ringlog_engine::core::CoreSettings;
use ringlog_engine::disk::sim::{Injection, Operation};
use ringlog_engine::journal::{directory_name, generation_of};
use ringlog_engine::log::append::AppendError;
use ringlog_engine::log::read::ReadError;
use ringlog_engine::types::{Offset, TimestampMs};

use sim_support::{Boot, Dice, Machine, boot_durable};

const FOLDERS: [&str; 3] = ["first-0", "second-0", "third-0"];

fn boot(machine: &Machine) -> Boot {
    boot_with(machine, u64::MAX, Some(128 << 10))
}

/// Runs of more than `journal_run_bytes_max` go straight to their segments.
fn boot_with(machine: &Machine, journal_run_bytes_max: u64, segment_bytes: Option<u64>) -> Boot {
    let settings = CoreSettings {
        data_directory: machine.data.clone(),
        journal_bytes: 4 << 20,
        journal_run_bytes_max,
        tail_bytes: 16 << 20,
        open_files_max: 2,
    };
    boot_durable(machine, settings, segment_bytes, &FOLDERS)
}

fn batch(value_bytes: usize) -> Vec<u8> {
    BatchBuilder::new(Offset(0)).record(TimestampMs(1), None, Some(&vec![7; value_bytes])).build()
}

/// Every segment file holds whole batches and nothing else.
fn assert_nothing_is_padded(machine: &Machine) {
    for folder in FOLDERS {
        let folder = machine.data.join(folder);
        for entry in machine.disk.entries(&folder).into_iter().filter(|entry| entry.name.ends_with(".log")) {
            let (disk, path) = (machine.disk.mount(), folder.join(&entry.name));
            let bytes = machine.block_on(async move { ringlog_engine::disk::read_file(&disk, &path).await.unwrap() });
            let whole: usize = batch::batches(&bytes).map(|batch| batch.unwrap().bytes().len()).sum();
            assert_eq!(whole, bytes.len(), "{}/{}", folder.display(), entry.name);
        }
    }
}

fn shortages_pass(seed: u64) {
    let machine = Machine::new(seed, false);
    let mut dice = Dice(seed);
    let mut acknowledged = [0; FOLDERS.len()];
    let mut refused = 0;
    {
        let boot = boot(&machine);
        for _ in 0..12 {
            let is_short = dice.below(2) == 0;
            if is_short {
                machine.disk.set_descriptors(false);
            }
            for _ in 0..dice.below(120) {
                let index = dice.below(FOLDERS.len() as u64) as usize;
                match boot.append(&machine, index, &batch(1 + dice.below(100 << 10) as usize)) {
                    Ok(_) => acknowledged[index] += 1,
                    Err(AppendError::NoRoom(_)) if is_short => refused += 1,
                    Err(error) => panic!("ShortagesPass: {error}"),
                }
                machine.block_on(boot.core.env.sleep(Duration::from_millis(dice.below(300))));
            }
            machine.disk.set_descriptors(true);
            machine.block_on(boot.core.env.sleep(Duration::from_secs(2)));
            (0..FOLDERS.len()).for_each(|index| {
                boot.append(&machine, index, &batch(10)).unwrap();
                acknowledged[index] += 1;
            });
        }
        if seed.is_multiple_of(2) {
            machine.stop(&boot, false);
            assert_nothing_is_padded(&machine);
        } else {
            machine.lose_power();
        }
    }
    let boot = boot(&machine);
    let ends: Vec<_> = boot.partitions.iter().map(|partition| partition.published.log_end().0).collect();
    assert_eq!(ends, acknowledged, "{refused} were refused");
}

#[test]
fn descriptors_come_and_go() {
    (0..20).for_each(shortages_pass);
}

/// A segment's file is padded where its last block was forced out, and has to lose that when the segment is sealed.
#[test]
fn what_was_padded_is_cut_however_long_the_file_cannot_be_opened() {
    let machine = Machine::new(1, false);
    let boot = boot(&machine);
    let sleep = |seconds| machine.block_on(boot.core.env.sleep(Duration::from_secs(seconds)));
    let first = machine.data.join(FOLDERS[0]).join("00000000000000000000.log");
    let len = || machine.block_on(async { ringlog_engine::disk::read_file(&machine.disk.mount(), &first).await.unwrap().len() });
    let batch = batch(100 << 10);
    boot.append(&machine, 0, &batch).unwrap();
    // A batch that fills half of the journal, so that the round before it has to go.
    let append_others = |count| (0..count).map(|_| boot.append(&machine, 1, &batch)).collect::<Result<Vec<_>, _>>();
    append_others(20).unwrap();
    sleep(120);
    assert!(len() > batch.len(), "the last block is padded");
    machine.disk.set_descriptors(false);
    boot.append(&machine, 0, &batch).unwrap();
    // Until the journal is full: the segment is tried.
    assert!(matches!(append_others(40), Err(AppendError::NoRoom(_))));
    machine.disk.set_descriptors(true);
    sleep(3);
    append_others(40).unwrap();
    sleep(120);
    assert_eq!(len(), batch.len());
}

/// A large run's file cannot be opened, and the journal has no room left either: nothing was written, so nothing has to be cut.
/// An index that could not be opened was taken for empty from then on: each read of its segment walked it from the start, and ended at
/// damage that the index leads past. Found by the simulator.
#[test]
fn an_index_that_cannot_be_opened_for_a_while_is_not_taken_for_empty() {
    let machine = Machine::new(5, false);
    let boot = boot(&machine);
    for _ in 0..60 {
        boot.append(&machine, 0, &batch(4_000)).unwrap();
    }
    machine.block_on(boot.core.env.sleep(Duration::from_secs(120)));
    let plan = |offset| {
        let (core, published) = (boot.core.clone(), boot.partitions[0].published.clone());
        let before = machine.disk.counters().bytes_read;
        let planned = machine.block_on(async move { core.reader.plan(&published, Offset(offset), 100, true).await.map(|_| ()) });
        (planned, machine.disk.counters().bytes_read - before)
    };
    machine.disk.set_descriptors(false);
    let (refused, _) = plan(25);
    assert!(matches!(refused, Err(ReadError::Io(_))), "{refused:?}");
    machine.disk.set_descriptors(true);
    let (planned, bytes) = plan(25);
    planned.unwrap();
    assert!(bytes < 64 << 10, "{bytes} bytes read for one batch behind 100 KB");
}

#[test]
fn large_runs_wait_for_descriptors_too() {
    let machine = Machine::new(1, false);
    let boot = boot_with(&machine, 64 << 10, None);
    let append = || boot.append(&machine, 0, &batch(100 << 10));
    append().unwrap();
    // Until nobody has its file open any more.
    machine.block_on(boot.core.env.sleep(Duration::from_secs(120)));
    machine.disk.set_descriptors(false);
    let (mut taken, mut refused) = (1, 0);
    for _ in 0..100 {
        match append() {
            Ok(_) => taken += 1,
            Err(AppendError::NoRoom(_)) => refused += 1,
            Err(error) => panic!("ShortagesPass: {error}"),
        }
        machine.block_on(boot.core.env.sleep(Duration::from_millis(100)));
    }
    assert!(refused > 10, "the journal is full: {refused}");
    machine.disk.set_descriptors(true);
    machine.block_on(boot.core.env.sleep(Duration::from_secs(2)));
    append().unwrap();
    machine.lose_power();
    let boot = boot_with(&machine, 64 << 10, None);
    assert_eq!(boot.partitions[0].published.log_end().0, taken + 1);
}

/// Where there is no memory for the zeros that a round needs, its producers are told to come again, and the journal stays the one it is.
#[test]
fn a_journal_that_cannot_grow_for_want_of_memory_is_not_given_up() {
    let machine = Machine::new(1, false);
    let boot = boot(&machine);
    boot.append(&machine, 0, &batch(1000)).unwrap();
    machine.block_on(boot.core.env.sleep(Duration::from_secs(1)));
    let journals = || {
        let files = machine.disk.entries(&machine.data.join(directory_name(0)));
        files.into_iter().filter_map(|entry| generation_of(&entry.name)).collect::<Vec<_>>()
    };
    let before = journals();
    machine.disk.inject(Injection { errno: libc::ENOMEM, ..Injection::next(Operation::Write, "ringlog-journal") });
    // More than is written ahead.
    let runs: Vec<_> = (0..15).map(|_| boot.send(0, &batch(100 << 10))).collect();
    for answer in runs {
        let answer = machine.block_on(async move { answer.await.unwrap() });
        assert!(matches!(answer, Err(AppendError::NoRoom(_))), "{answer:?}");
    }
    assert_eq!(journals(), before);
    boot.append(&machine, 0, &batch(1000)).unwrap();
    machine.lose_power();
    let boot = self::boot(&machine);
    assert_eq!(boot.partitions[0].published.log_end().0, 2);
}
