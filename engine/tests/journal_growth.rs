//! How the journal's file grows: ahead of its rounds, and what follows where it can't.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[allow(dead_code, reason = "it is for several")]
mod sim_support;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::core::recover;
use ringlog_engine::core::scrubber::{ScrubSettings, Scrubber};
use ringlog_engine::core::{Core, CoreSettings};
use ringlog_engine::disk::Disk;
use ringlog_engine::journal::{directory_name, generation_of};
use ringlog_engine::log::append::{AppendError, Appended};
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::types::{Offset, PartitionId, TimestampMs, TopicId};

use sim_support::{Boot, Machine, begin, open_all};

const BATCH_BYTES: usize = 100 << 10;

fn boot(machine: &Machine) -> Boot {
    let env = machine.simulation.env();
    let disk: Rc<dyn Disk> = machine.disk.mount();
    let data = machine.data.clone();
    let scrubber = Scrubber::new(ScrubSettings { enabled: false, ..ScrubSettings::default() });
    machine.block_on(async move {
        let found = recover::recover(&disk, &data).await.unwrap();
        let settings = CoreSettings {
            data_directory: data.clone(),
            journal_bytes: 16 << 20,
            journal_run_bytes_max: 1 << 20,
            tail_bytes: 64 << 20,
            open_files_max: 8,
        };
        let core = Core::new(0, settings, disk, env, Box::new(|_, _, _| false)).await.unwrap();
        core.start();
        let config = Arc::new(LogConfig { flush_messages: 1, ..LogConfig::default() });
        let wanted = [(PartitionId { topic: TopicId([1; 16]), index: 0 }, "topic-0".to_owned(), config)];
        let partitions = open_all(&core, &found, wanted).await;
        begin(&core, &data).await;
        Boot { core, partitions, scrubber }
    })
}

fn append(machine: &Machine, boot: &Boot) -> Result<Appended, AppendError> {
    let batch = BatchBuilder::new(Offset(0)).record(TimestampMs(1), None, Some(&vec![7; BATCH_BYTES])).build();
    let answer = boot.send(0, &batch);
    machine.block_on(async move { answer.await.unwrap() })
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
