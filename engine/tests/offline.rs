//! A partition that is offline and its neighbours. Invariant OfflineIsAlone: what it keeps in the journal, until the next start, keeps
//! no other partition of the core from going on, and is there at that start.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod sim_support;

use std::cell::Cell;
use std::time::Duration;

use ringlog_engine::batch::{BatchBuilder, batches};
use ringlog_engine::core::CoreSettings;
use ringlog_engine::disk::sim::{CrashOutcome, Injection, Operation};
use ringlog_engine::log::append::AppendError;
use ringlog_engine::types::{Offset, TimestampMs};

use sim_support::{Boot, Machine};

const FOLDERS: [&str; 2] = ["bad-0", "good-0"];
const JOURNAL_BYTES: u64 = 1 << 20;
const VALUE_BYTES: usize = 30 << 10;

fn boot(machine: &Machine) -> Boot {
    let settings = CoreSettings {
        data_directory: machine.data.clone(),
        journal_bytes: JOURNAL_BYTES,
        journal_run_bytes_max: u64::MAX,
        tail_bytes: 4 << 20,
        open_files_max: 8,
    };
    sim_support::boot_durable(machine, settings, None, &FOLDERS)
}

fn batch(value: u8) -> Vec<u8> {
    BatchBuilder::new(Offset(0)).record(TimestampMs(1), None, Some(&[value; VALUE_BYTES])).build()
}

/// Sends to the bad partition until it is offline, and says how much of that was acknowledged: some, and less than half of a journal.
fn until_offline(machine: &Machine, boot: &Boot) -> i64 {
    machine.disk.inject(Injection::always(Operation::Write, "bad-0/00000000000000000000.log"));
    let mut acknowledged = 0;
    loop {
        match boot.append(machine, 0, &batch(1)) {
            Ok(_) if acknowledged < 10 => acknowledged += 1,
            // It is settled when it is idle, or tries.
            Ok(_) => panic!("it goes on"),
            Err(AppendError::Offline(_)) => return acknowledged,
            Err(error) => panic!("{error:?}"),
        }
        if acknowledged == 10 {
            machine.block_on(boot.core.env.sleep(Duration::from_secs(20)));
        }
    }
}

/// What follows a loss of power: all that was acknowledged is there.
fn assert_recovers(machine: &Machine, acknowledged: [i64; 2]) {
    machine.simulation.crash();
    machine.disk.crash_with(CrashOutcome::LoseUnsynced);
    assert_is_there(machine, acknowledged, 0);
}

/// The same behind any crash, with `more` batches that were under way.
fn assert_is_there(machine: &Machine, acknowledged: [i64; 2], more: i64) {
    machine.disk.clear_injections();
    let boot = boot(machine);
    for (at, acknowledged) in acknowledged.into_iter().enumerate() {
        let published = boot.partitions[at].published.clone();
        let end = published.log_end().0;
        assert!((acknowledged..=acknowledged + more).contains(&end), "{}: {acknowledged} then {end}", FOLDERS[at]);
        let mut next = Offset(0);
        while next < Offset(end) {
            let (core, published) = (boot.core.clone(), published.clone());
            let read = machine.block_on(async move {
                let plan = core.reader.plan(&published, next, 1 << 20, true).await.unwrap();
                sim_support::bytes_of(&plan).await
            });
            for batch in batches(&read) {
                let batch = batch.unwrap();
                batch.check_crc().unwrap();
                assert_eq!(batch.header().base_offset, next, "{}", FOLDERS[at]);
                next = batch.header().next_offset();
            }
        }
    }
}

/// The other partition used to be refused everything once the journal had come around to what the first one kept in it.
#[test]
fn the_journal_goes_on_without_it() {
    let machine = Machine::new(1, false);
    let boot = boot(&machine);
    let bad = until_offline(&machine, &boot);
    let turns = 6 * JOURNAL_BYTES as usize / VALUE_BYTES;
    for _ in 0..turns {
        boot.append(&machine, 1, &batch(2)).unwrap();
    }
    let journals = machine.disk.entries(&machine.data.join("ringlog-journal.0"));
    assert_eq!(journals.len(), 2, "a checkpoint, and no journal but the one that counts: {journals:?}");
    assert_recovers(&machine, [bad, turns as i64]);
}

/// Where no new journal can be written the old one goes on: what was in it stays, and the others are told to try again.
#[test]
fn where_no_new_journal_can_be_written_nothing_is_lost() {
    for (operation, path) in [
        (Operation::Open, "00000000000000000001.journal"),
        (Operation::Write, "00000000000000000001.journal"),
        (Operation::Sync, "00000000000000000001.journal"),
    ] {
        let machine = Machine::new(2, false);
        let boot = boot(&machine);
        let bad = until_offline(&machine, &boot);
        let turn = 3 * JOURNAL_BYTES as usize / VALUE_BYTES;
        let mut good = 0;
        machine.disk.inject(Injection { times: 1, ..Injection::next(operation, path) });
        let refused = (0..turn).find_map(|_| match boot.append(&machine, 1, &batch(2)) {
            Ok(_) => {
                good += 1;
                None
            }
            Err(error) => Some(error),
        });
        assert!(matches!(&refused, Some(AppendError::NoRoom(_))), "{path}: {refused:?}");
        machine.block_on(boot.core.env.sleep(Duration::from_secs(11)));
        for _ in 0..turn {
            boot.append(&machine, 1, &batch(3)).unwrap_or_else(|error| panic!("{path}: {error:?}"));
        }
        assert_recovers(&machine, [bad, good + turn as i64]);
    }
}

/// Any step of a checkpoint or a new journal fails. Where a checkpoint's new name fails, it may be there or not: neither journal is believed
/// to count, and a third one begins.
#[test]
fn whichever_step_to_a_new_journal_fails_nothing_is_lost() {
    let steps = [(Operation::Write, 24), (Operation::Sync, 24), (Operation::Rename, 12), (Operation::SyncDir, 24)];
    let (mut begun_anew, mut refused) = (0, 0);
    for (operation, after) in steps.into_iter().flat_map(|(operation, count)| (0..count).map(move |after| (operation, after))) {
        let machine = Machine::new(after, false);
        let boot = boot(&machine);
        let bad = until_offline(&machine, &boot);
        machine.disk.inject(Injection { after, ..Injection::next(operation, "ringlog-journal.0") });
        let mut good = 0;
        for _ in 0..4 * JOURNAL_BYTES as usize / VALUE_BYTES {
            match boot.append(&machine, 1, &batch(2)) {
                Ok(_) => good += 1,
                Err(AppendError::Journal(_)) => begun_anew += 1,
                Err(AppendError::NoRoom(_)) => {
                    refused += 1;
                    machine.block_on(boot.core.env.sleep(Duration::from_secs(11)));
                }
                Err(error) => panic!("{operation:?}, {after}: {error:?}"),
            }
        }
        assert_recovers(&machine, [bad, good]);
    }
    assert!(begun_anew > 0 && refused > 0, "{begun_anew}, {refused}");
}

/// At any step of the disk, from when the journal begins to fill until another one has taken its place, and then some.
#[test]
fn wherever_the_power_goes_on_the_way_to_a_new_journal_nothing_is_lost() {
    let mut begun = 0;
    for step in 0.. {
        let machine = Machine::new(step, false);
        let boot = boot(&machine);
        let bad = until_offline(&machine, &boot);
        let crash = machine.disk.reached(machine.disk.counters().operations + 1 + step * 3);
        let good = Cell::new(0);
        let went = machine.block_on(async {
            let appends = async {
                for _ in 0..JOURNAL_BYTES as usize / VALUE_BYTES + 5 {
                    boot.send(1, &batch(2)).await.unwrap().unwrap();
                    good.set(good.get() + 1);
                }
            };
            tokio::select! {
                biased;
                () = crash => true,
                () = appends => false,
            }
        });
        let names = machine.disk.entries(&machine.data.join("ringlog-journal.0"));
        begun += usize::from(names.iter().filter(|entry| entry.name.ends_with(".journal")).count() > 1);
        machine.lose_power();
        assert_is_there(&machine, [bad, good.get()], 1);
        if !went {
            break;
        }
    }
    assert!(begun > 0, "none came while there were two journals");
}
