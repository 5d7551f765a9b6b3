//! Topics that are not durable, and what bounds what a loss of power takes of them. Invariant FlushedSurvives.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod sim_support;

use std::time::Duration;

use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::core::CoreSettings;
use ringlog_engine::disk::sim::{CrashOutcome, Faults};
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::types::{Offset, TimestampMs};

use sim_support::{Boot, Machine};

fn boot(machine: &Machine) -> Boot {
    let settings = CoreSettings {
        data_directory: machine.data.clone(),
        journal_bytes: 64 << 20,
        journal_run_bytes_max: u64::MAX,
        tail_bytes: 64 << 20,
        open_files_max: 8,
    };
    let config = LogConfig { flush_messages: i64::MAX, flush_ms: i64::MAX, ..LogConfig::default() };
    let boot = sim_support::boot(machine, settings, config.clone(), &["quiet-0", "busy-0"]);
    boot.core.configure(boot.partitions[0].id, LogConfig { flush_ms: 500, ..config }.into());
    boot
}

/// `flush.ms` of a partition to which nothing comes any more, beside one to which something always does: no round is empty, and none has
/// to be synced for its own sake.
#[test]
fn a_busy_partition_does_not_put_off_the_sync_of_another() {
    let machine = Machine::new(1, false);
    // Each operation takes its time, so that the next batch is there before a round ends.
    machine.disk.set_faults(Faults { slow: 1.0, slow_delay: Duration::from_millis(5), ..Faults::default() });
    let boot = boot(&machine);
    let batch = BatchBuilder::new(Offset(0)).record(TimestampMs(1), None, Some(b"x")).build();
    boot.append(&machine, 0, &batch).unwrap();
    // Before it counts as idle, and is settled for that.
    for _ in 0..3_000 {
        drop(boot.send(1, &batch));
        machine.block_on(boot.core.env.sleep(Duration::from_millis(1)));
    }
    machine.simulation.crash();
    machine.disk.crash_with(CrashOutcome::LoseUnsynced);
    machine.disk.set_faults(Faults::default());
    let boot = self::boot(&machine);
    assert_eq!(boot.partitions[0].published.log_end(), Offset(1), "FlushedSurvives");
}

/// Topics of which nothing is to be synced cost no syncs, however their batches come: what arrives while a round is under way has the next
/// one, and nobody waits for a sync behind that.
#[test]
fn what_is_not_to_be_synced_is_not() {
    let machine = Machine::new(1, false);
    let boot = boot(&machine);
    let batch = BatchBuilder::new(Offset(0)).record(TimestampMs(1), None, Some(b"x")).build();
    machine.block_on(boot.core.env.sleep(Duration::from_secs(10)));
    let before = machine.disk.counters().syncs;
    for _ in 0..1_000 {
        drop(boot.send(1, &batch));
        machine.block_on(boot.core.env.sleep(Duration::from_micros(150)));
    }
    assert_eq!(machine.disk.counters().syncs, before);
}
