//! How the journal's file grows: ahead of its rounds, and what follows where it can't.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod sim_support;

use std::time::Duration;

use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::core::CoreSettings;
use ringlog_engine::journal::{directory_name, generation_of};
use ringlog_engine::log::append::{AppendError, Appended};
use ringlog_engine::types::{Offset, TimestampMs};

use sim_support::{Boot, Machine, boot_durable};

const BATCH_BYTES: usize = 100 << 10;

fn boot(machine: &Machine) -> Boot {
    let settings = CoreSettings {
        data_directory: machine.data.clone(),
        journal_bytes: 16 << 20,
        journal_run_bytes_max: 1 << 20,
        tail_bytes: 64 << 20,
        open_files_max: 8,
    };
    boot_durable(machine, settings, None, &["topic-0"])
}

fn append(machine: &Machine, boot: &Boot) -> Result<Appended, AppendError> {
    let batch = BatchBuilder::new(Offset(0)).record(TimestampMs(1), None, Some(&vec![7; BATCH_BYTES])).build();
    boot.append(machine, 0, &batch)
}

fn pause(machine: &Machine, boot: &Boot) {
    machine.block_on(boot.core.env.sleep(Duration::from_millis(200)));
}

fn journal_bytes(machine: &Machine) -> u64 {
    let files = machine.disk.entries(&machine.data.join(directory_name(0)));
    files.into_iter().filter(|entry| generation_of(&entry.name).is_some()).map(|entry| entry.len_bytes).sum()
}

#[test]
fn the_journal_is_long_enough_before_a_round_needs_it() {
    let machine = Machine::new(1, false);
    let boot = boot(&machine);
    pause(&machine, &boot);
    assert_eq!(journal_bytes(&machine), 1 << 20, "before the first round");
    for appended in 1..=100 {
        append(&machine, &boot).unwrap();
        pause(&machine, &boot);
        let (used, len) = (appended * BATCH_BYTES as u64, journal_bytes(&machine));
        assert!(len == 16 << 20 || len >= used + (used / 4).max(256 << 10), "{used} of {len} bytes are used");
    }
}

#[test]
fn a_full_disk_is_told_to_nobody_before_the_room_is_needed() {
    let machine = Machine::new(1, false);
    let boot = boot(&machine);
    pause(&machine, &boot);
    machine.leave_room(0);
    let mut taken = 0;
    let error = loop {
        match append(&machine, &boot) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        pause(&machine, &boot);
    };
    assert!(matches!(error, AppendError::NoRoom(_)), "{error}");
    assert!(taken >= 9, "{taken} batches fit into the megabyte that was there");
    assert_eq!(journal_bytes(&machine), 1 << 20);
    machine.disk.set_capacity(None);
    pause(&machine, &boot);
    for _ in 0..30 {
        append(&machine, &boot).unwrap();
    }
    pause(&machine, &boot);
    assert!(journal_bytes(&machine) > 3 << 20);
}
