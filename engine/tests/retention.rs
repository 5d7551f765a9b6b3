//! How `retention.ms` and `segment.ms` go by the clock where batches have no timestamps: as with Kafka, a segment is as old as its
//! last change then, and one that is written to as old as its beginning.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod sim_support;

use std::time::Duration;

use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::core::CoreSettings;
use ringlog_engine::disk::sim::{Injection, Operation};
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::types::{Offset, TimestampMs};

use sim_support::{Boot, Machine};

const HOUR: Duration = Duration::from_secs(3600);

fn boot(machine: &Machine, config: LogConfig) -> Boot {
    let settings = CoreSettings {
        data_directory: machine.data.clone(),
        journal_bytes: 1 << 20,
        journal_run_bytes_max: 2 << 10,
        tail_bytes: 4 << 20,
        open_files_max: 8,
    };
    sim_support::boot(machine, settings, config, &["topic-0"])
}

fn append(machine: &Machine, boot: &Boot, timestamp: TimestampMs) {
    let batch = BatchBuilder::new(Offset(0)).record(timestamp, None, Some(&[7; 800])).build();
    boot.append(machine, 0, &batch).unwrap();
}

/// Retention at work: the log start, and the base offsets of the segments that are left.
fn retained(machine: &Machine, boot: &Boot) -> (i64, Vec<i64>) {
    let core = boot.core.clone();
    machine.block_on(async move { core.retain().await }).unwrap();
    let published = &boot.partitions[0].published;
    (published.log_start().0, published.view.load().segments.iter().map(|segment| segment.base_offset.0).collect())
}

#[test]
fn what_has_no_timestamp_is_as_old_as_its_last_change() {
    let machine = Machine::new(1, false);
    let config = LogConfig { segment_bytes: 2000, retention_ms: HOUR.as_millis() as i64, ..LogConfig::default() };
    let old = TimestampMs(1_000_000);
    let at_once = boot(&machine, config.clone());
    // The second segment is old by its timestamps, and waits for the first.
    for timestamp in [TimestampMs::NONE, TimestampMs::NONE, old, old, TimestampMs::NONE] {
        append(&machine, &at_once, timestamp);
    }
    machine.simulation.run_for(HOUR / 2);
    append(&machine, &at_once, TimestampMs::NONE);
    assert_eq!(retained(&machine, &at_once), (0, vec![0, 2, 4]));
    // A start has only the files to go by; what it opens does not begin to count anew.
    machine.stop(&at_once, false);
    let booted = boot(&machine, config.clone());
    machine.simulation.run_for(HOUR / 3);
    assert_eq!(retained(&machine, &booted), (0, vec![0, 2, 4]));
    machine.simulation.run_for(HOUR / 4);
    assert_eq!(retained(&machine, &booted), (4, vec![4]), "the segment that is half an hour younger stays");
    machine.simulation.run_for(HOUR);
    retained(&machine, &booted);
    machine.simulation.run_for(Duration::from_secs(30));
    assert_eq!(retained(&machine, &booted), (6, vec![6]), "the active segment goes, too");
    // What came since the start counts from when it came.
    append(&machine, &booted, TimestampMs::NONE);
    machine.simulation.run_for(HOUR / 2);
    for _ in 0..2 {
        append(&machine, &booted, TimestampMs::NONE);
    }
    machine.simulation.run_for(HOUR * 3 / 4);
    assert_eq!(retained(&machine, &booted), (6, vec![6, 8]));
    machine.simulation.run_for(HOUR / 2);
    retained(&machine, &booted);
    machine.simulation.run_for(Duration::from_secs(30));
    assert_eq!(retained(&machine, &booted), (9, vec![9]));
}

#[test]
fn a_segment_without_timestamps_is_not_written_to_for_ever() {
    let machine = Machine::new(2, false);
    let config = LogConfig { segment_ms: HOUR.as_millis() as i64, retention_ms: -1, ..LogConfig::default() };
    let boot = boot(&machine, config);
    append(&machine, &boot, TimestampMs::NONE);
    machine.simulation.run_for(HOUR * 3 / 4);
    append(&machine, &boot, TimestampMs::NONE);
    assert_eq!(retained(&machine, &boot), (0, vec![0]));
    machine.simulation.run_for(HOUR / 2);
    append(&machine, &boot, TimestampMs::NONE);
    assert_eq!(retained(&machine, &boot), (0, vec![0, 2]), "by an append");
    machine.simulation.run_for(HOUR * 5 / 4);
    assert_eq!(retained(&machine, &boot), (0, vec![0, 2, 3]), "by retention");
}

/// A removal that fails at one file leaves the others' to nobody, and of its own a start removes the rest.
#[test]
fn a_removal_that_fails_leaves_nothing_behind_for_good() {
    let machine = Machine::new(3, false);
    let config = LogConfig { segment_bytes: 2000, retention_ms: HOUR.as_millis() as i64, ..LogConfig::default() };
    let booted = boot(&machine, config.clone());
    for _ in 0..7 {
        append(&machine, &booted, machine.simulation.env().now());
    }
    machine.simulation.run_for(HOUR * 2);
    append(&machine, &booted, machine.simulation.env().now());
    machine.simulation.run_for(Duration::from_secs(10));
    let names = || {
        let entries = machine.disk.entries(&machine.data.join("topic-0"));
        let files = entries.into_iter().filter(|entry| entry.name.ends_with("index") || entry.name.ends_with("log"));
        files.map(|entry| entry.name).collect::<Vec<_>>()
    };
    let before = names().len();
    machine.disk.inject(Injection::next(Operation::Remove, "00000000000000000000.timeindex"));
    let core = booted.core.clone();
    machine.block_on(async move { core.retain().await }).unwrap_err();
    let left = names();
    assert!(left.len() < before && left.contains(&"00000000000000000000.log".to_owned()), "{left:?}");
    assert!(!left.iter().any(|name| name.starts_with("00000000000000000002")), "{left:?}");
    machine.stop(&booted, false);
    let _booted = boot(&machine, config);
    let left = names();
    assert!(left.iter().all(|name| name.starts_with("00000000000000000006")), "{left:?}");
}
