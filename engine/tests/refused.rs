//! What was refused for want of room, and what its producer sent behind it. Invariant FirstStaysFirst: a producer's batches go in in
//! the order of their sequences, whatever becomes of the first one.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod sim_support;

use std::time::Duration;

use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::core::CoreSettings;
use ringlog_engine::disk::sim::{Injection, Operation};
use ringlog_engine::log::append::{AppendError, Appended};
use ringlog_engine::log::producers::ProducerError;
use ringlog_engine::types::{Offset, ProducerId, TimestampMs};

use sim_support::{Boot, Machine, boot_durable};

const FILLER_BYTES: usize = 60 << 10;

fn boot(machine: &Machine) -> Boot {
    boot_with(machine, &["topic-0"])
}

fn boot_with(machine: &Machine, folders: &[&str]) -> Boot {
    let settings = CoreSettings {
        data_directory: machine.data.clone(),
        journal_bytes: 16 << 20,
        journal_run_bytes_max: u64::MAX,
        tail_bytes: 1 << 20,
        open_files_max: 8,
    };
    boot_durable(machine, settings, None, folders)
}

fn append(machine: &Machine, boot: &Boot, batch: &[u8]) -> Result<Appended, AppendError> {
    boot.append(machine, 0, batch)
}

/// The first batch of a new producer is refused because the disk, and with it the memory, is full; the second comes when there is room
/// again. It used to go in, since a new producer may start anywhere, and the first one never did.
#[test]
fn what_was_sent_behind_a_refused_first_batch_waits_for_it() {
    let machine = Machine::new(1, false);
    let boot = boot(&machine);
    let filler = BatchBuilder::new(Offset(0)).record(TimestampMs(1), None, Some(&[1; FILLER_BYTES])).build();
    // The journal gets longer than memory, and is free again.
    for _ in 0..130 {
        append(&machine, &boot, &filler).unwrap();
    }
    machine.block_on(boot.core.env.sleep(Duration::from_secs(10)));
    machine.leave_room(0);
    // What segments cannot take stays in memory, until that is full.
    let refused = (0..1000).find_map(|_| append(&machine, &boot, &filler).err()).unwrap();
    assert!(matches!(refused, AppendError::NoRoom(_)), "{refused:?}");
    let batch = |sequence| {
        let builder = BatchBuilder::new(Offset(0)).producer(ProducerId(7), 0, sequence);
        builder.record(TimestampMs(1), None, Some(b"x")).build()
    };
    let damaged = {
        let mut damaged = BatchBuilder::new(Offset(0)).producer(ProducerId(8), 3, 5).record(TimestampMs(1), None, None).build();
        *damaged.last_mut().unwrap() ^= 1;
        damaged
    };
    // Behind one for which there is no room they wait, small as they are.
    let _blocking = boot.send(0, &filler);
    let (first, unsound) = (boot.send(0, &batch(0)), boot.send(0, &damaged));
    let (first, unsound) = machine.block_on(async move { (first.await.unwrap(), unsound.await.unwrap()) });
    assert!(matches!(first, Err(AppendError::NoRoom(_))), "{first:?}");
    assert!(matches!(unsound, Err(AppendError::NoRoom(_))), "{unsound:?}");
    machine.disk.set_capacity(None);
    machine.block_on(boot.core.env.sleep(Duration::from_secs(10)));
    let second = append(&machine, &boot, &batch(1));
    assert!(matches!(second, Err(AppendError::Producer(ProducerError::OutOfOrder { sequence: 1, .. }))), "{second:?}");
    let first = append(&machine, &boot, &batch(0)).unwrap();
    let second = append(&machine, &boot, &batch(1)).unwrap();
    assert_eq!(second.base_offset, first.next_offset);
    // What was damaged on its way said nothing of that producer.
    let other = BatchBuilder::new(Offset(0)).producer(ProducerId(8), 2, 9).record(TimestampMs(1), None, None).build();
    append(&machine, &boot, &other).unwrap();
}

/// A partition whose file fails goes offline, and keeps in memory what its file lacks. A batch of another one for which too little is left
/// used to wait for ever, and all behind it.
#[test]
fn what_waits_for_the_memory_of_an_offline_partition_is_refused() {
    let machine = Machine::new(1, false);
    let boot = boot_with(&machine, &["first-0", "second-0"]);
    machine.disk.inject(Injection::always(Operation::Write, "first-0/00000000000000000000.log"));
    let batch = |len| BatchBuilder::new(Offset(0)).record(TimestampMs(1), None, Some(&vec![1; len])).build();
    let sent: Vec<_> = (0..100).map(|_| boot.send(0, &batch(FILLER_BYTES))).collect();
    let answers: Vec<_> = sent.into_iter().map(|answer| machine.block_on(async move { answer.await.unwrap() })).collect();
    assert!(answers[0].is_ok(), "{:?}", answers[0]);
    assert!(matches!(answers[99], Err(AppendError::Offline(_))), "{:?}", answers[99]);
    let (large, small) = (boot.send(1, &batch(300 << 10)), boot.send(1, &batch(100)));
    let (large, small) = machine.block_on(async move { (large.await.unwrap(), small.await.unwrap()) });
    for answer in [large, small] {
        assert!(matches!(&answer, Err(AppendError::NoRoom(reason)) if reason.contains("offline")), "{answer:?}");
    }
}
