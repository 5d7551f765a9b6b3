//! A disk that is full. Invariant RoomCanBeMade: where producers are refused, in whichever way there is no room left, what records
//! deletions is taken all the same, and survives a crash.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod sim_support;

use std::time::Duration;

use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::core::{Core, CoreSettings};
use ringlog_engine::log::append::AppendError;
use ringlog_engine::types::{Offset, TimestampMs};

use sim_support::{Boot, Machine, boot_durable};

const BATCH_BYTES: usize = 100 << 10;
/// What fits into the reserve.
const REMOVALS: i64 = 12;

fn boot(machine: &Machine, tail_bytes: usize) -> Boot {
    let settings = CoreSettings {
        data_directory: machine.data.clone(),
        journal_bytes: 16 << 20,
        journal_run_bytes_max: u64::MAX,
        tail_bytes,
        open_files_max: 8,
    };
    boot_durable(machine, settings, None, &["records-0", "removals-0"])
}

fn batch(value_bytes: usize) -> Vec<u8> {
    BatchBuilder::new(Offset(0)).record(TimestampMs(1), None, Some(&vec![7; value_bytes])).build()
}

/// Appends until producers are refused. How much was taken.
fn fill(machine: &Machine, boot: &Boot) -> i64 {
    let mut taken = 0;
    loop {
        match boot.append(machine, 0, &batch(BATCH_BYTES)) {
            Ok(_) => taken += 1,
            Err(AppendError::NoRoom(_)) => return taken,
            Err(error) => panic!("{error}"),
        }
    }
}

/// `warm`: the journal's file has its full length before the disk is full.
fn room_can_be_made(seed: u64, tail_bytes: usize, warm: bool) {
    let machine = Machine::new(seed, false);
    let mut records = 0;
    {
        let boot = boot(&machine, tail_bytes);
        if warm {
            for _ in 0..150 {
                boot.append(&machine, 0, &batch(BATCH_BYTES)).unwrap();
                records += 1;
            }
        }
        machine.block_on(boot.core.env.sleep(Duration::from_secs(10)));
        machine.leave_room(0);
        records += fill(&machine, &boot);
        for removal in 0..REMOVALS {
            // Producers go on trying. After the largest there is no room for anything else in the same round.
            let is_large = removal % 2 == 0;
            let before = boot.send(0, &batch(if is_large { 5 << 20 } else { BATCH_BYTES }));
            let removed = boot.send_with(Core::append_to_make_room, 1, &batch(20));
            let after = (!is_large).then(|| boot.send(0, &batch(10)));
            let (before, removed) = machine.block_on(async move { tokio::join!(before, removed) });
            let after = after.map(|after| machine.block_on(after));
            assert_eq!(removed.unwrap().map(|appended| appended.base_offset), Ok(Offset(removal)), "RoomCanBeMade");
            // Small ones may find what is left somewhere.
            let answers = [Some(before), after].into_iter().flatten();
            records += answers.filter(|answer| answer.as_ref().unwrap().is_ok()).count() as i64;
        }
        machine.lose_power();
    }
    machine.disk.set_capacity(None);
    let boot = boot(&machine, tail_bytes);
    let ends = boot.partitions.iter().map(|partition| partition.published.log_end().0).collect::<Vec<_>>();
    assert!(ends[0] >= records, "{ends:?}, {records} records were acknowledged");
    assert_eq!(ends[1], REMOVALS);
    boot.append(&machine, 0, &batch(BATCH_BYTES)).unwrap();
}

#[test]
fn room_can_be_made_where_the_journal_is_full() {
    (0..10).for_each(|seed| room_can_be_made(seed, 64 << 20, true));
}

#[test]
fn room_can_be_made_where_the_journal_cannot_grow() {
    (0..10).for_each(|seed| room_can_be_made(seed, 64 << 20, false));
}

#[test]
fn room_can_be_made_where_memory_is_full() {
    (0..10).for_each(|seed| room_can_be_made(seed, 1 << 20, true));
}
