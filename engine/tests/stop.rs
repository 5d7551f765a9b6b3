//! Clean stops that fail.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod sim_support;

use std::time::Duration;

use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::core::CoreSettings;
use ringlog_engine::disk::sim::{CrashOutcome, Injection, Operation};
use ringlog_engine::types::{Offset, TimestampMs};

use sim_support::Machine;

/// A clean stop whose sync fails is none; and what goes on until the process has ended does not believe the next sync, which succeeds.
#[test]
fn a_sync_that_fails_while_the_broker_stops_is_believed_by_nobody() {
    let machine = Machine::new(1, false);
    let settings = || CoreSettings {
        data_directory: machine.data.clone(),
        journal_bytes: 16 << 20,
        journal_run_bytes_max: u64::MAX,
        tail_bytes: 16 << 20,
        open_files_max: 8,
    };
    let boot = sim_support::boot_durable(&machine, settings(), None, &["topic-0"]);
    let batch = BatchBuilder::new(Offset(0)).record(TimestampMs(1), None, Some(&[7; 10_000])).build();
    for _ in 0..5 {
        boot.append(&machine, 0, &batch).unwrap();
    }
    machine.disk.inject(Injection::next(Operation::Sync, "topic-0/00000000000000000000.log"));
    let core = boot.core.clone();
    machine.block_on(async move { core.close().await.unwrap_err() });
    machine.block_on(boot.core.env.sleep(Duration::from_secs(20)));
    machine.simulation.crash();
    machine.disk.crash_with(CrashOutcome::LoseUnsynced);
    let boot = sim_support::boot_durable(&machine, settings(), None, &["topic-0"]);
    assert_eq!(boot.partitions[0].published.log_end(), Offset(5));
    let core = boot.core.clone();
    let published = boot.partitions[0].published.clone();
    let read = machine.block_on(async move {
        let plan = core.reader.plan(&published, Offset(0), 1 << 20, true).await.unwrap();
        sim_support::bytes_of(&plan).await
    });
    assert_eq!(
        ringlog_engine::batch::batches(&read).filter(|batch| batch.as_ref().is_ok_and(|b| b.check_crc().is_ok())).count(),
        5
    );
}
