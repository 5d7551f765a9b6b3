//! Partitions that are made together: what each step of it leaves when it fails, and when the power goes.
#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "other tests use the rest")]
mod sim_support;

use std::rc::Rc;
use std::sync::Arc;

use ringlog_engine::core::recover::{self, Recovered};
use ringlog_engine::core::{Core, CoreSettings, NewPartition};
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::{CrashOutcome, Injection, Operation};
use ringlog_engine::env::Env;
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::types::{LeaderEpoch, Offset, PartitionId, TopicId};
use sim_support::Machine;

const COUNT: i32 = 70;
/// All of them are made together.
const ENOUGH_FILES: usize = 1000;

fn wanted(clean: bool) -> Vec<NewPartition> {
    let config = Arc::new(LogConfig::default());
    let one = |index| NewPartition {
        id: PartitionId { topic: TopicId([7; 16]), index },
        folder: format!("topic-{index}"),
        config: config.clone(),
        leader_epoch: LeaderEpoch(0),
        recovery_point: Offset(0),
        log_start: Offset(0),
        clean,
    };
    (0..COUNT).map(one).collect()
}

async fn core(
    disk: Rc<dyn Disk>,
    env: Rc<dyn Env>,
    machine_data: std::path::PathBuf,
    open_files_max: usize,
) -> (Rc<Core>, Recovered) {
    let found = recover::recover(&disk, &machine_data).await.unwrap();
    let settings = CoreSettings {
        data_directory: machine_data,
        journal_bytes: 128 << 10,
        journal_run_bytes_max: 64 << 10,
        tail_bytes: 2 << 20,
        open_files_max,
    };
    let core = Core::new(0, settings, disk, env, Box::new(|_, _, _| true)).await.unwrap();
    core.start();
    (core, found)
}

/// Makes all of them on a core that has begun, and again what failed. Returns which did, try by try.
fn make(machine: &Machine, tries: usize, open_files_max: usize) -> Vec<Vec<usize>> {
    let (disk, env): (Rc<dyn Disk>, _) = (machine.disk.mount(), machine.simulation.env());
    let data = machine.data.clone();
    machine.block_on(async move {
        let (core, _) = core(disk, env, data.clone(), open_files_max).await;
        sim_support::begin(&core, &data).await;
        let mut failed = Vec::new();
        let mut left: Vec<usize> = (0..COUNT as usize).collect();
        for _ in 0..tries {
            let new: Vec<_> = wanted(false).into_iter().filter(|new| left.contains(&(new.id.index as usize))).collect();
            let made = core.make_folders(&new).await;
            left.clear();
            for (new, made) in new.into_iter().zip(made) {
                match made {
                    Ok(made) => drop(core.open_made(new, made).await.unwrap()),
                    Err(_) => left.push(new.id.index as usize),
                }
            }
            failed.push(left.clone());
        }
        failed
    })
}

/// After a loss of power that takes all that is not durable: what a start finds.
fn found_after_a_loss_of_power(machine: &Machine) -> Vec<PartitionId> {
    machine.simulation.crash();
    machine.disk.crash_with(CrashOutcome::LoseUnsynced);
    let (disk, env): (Rc<dyn Disk>, _) = (machine.disk.mount(), machine.simulation.env());
    let data = machine.data.clone();
    machine.block_on(async move {
        let (core, found) = core(disk.clone(), env, data.clone(), ENOUGH_FILES).await;
        for partition in &found.partitions {
            let names = disk.list(&data.join(&partition.folder)).await.unwrap();
            assert!(names.iter().any(|entry| entry.name.ends_with(".log")), "{names:?}");
        }
        for new in wanted(false) {
            core.open_partition(new).await.unwrap();
        }
        found.partitions.iter().map(|partition| partition.id).collect()
    })
}

fn ids() -> Vec<PartitionId> {
    wanted(false).iter().map(|new| new.id).collect()
}

fn sorted(mut found: Vec<PartitionId>) -> Vec<PartitionId> {
    found.sort_unstable();
    found
}

#[test]
fn what_is_made_together_survives_a_loss_of_power() {
    // Where few files may be open, in several parts.
    for (seed, open_files_max) in [(0, ENOUGH_FILES), (1, ENOUGH_FILES), (2, 8)] {
        let machine = Machine::new(seed, false);
        assert_eq!(make(&machine, 1, open_files_max), [Vec::<usize>::new()]);
        assert_eq!(sorted(found_after_a_loss_of_power(&machine)), sorted(ids()), "seed {seed}");
    }
}

#[test]
fn a_step_that_fails_fails_its_partition_and_is_made_good_by_the_next_try() {
    let one = |operation, path: &str| Injection::next(operation, path);
    for (at, (injection, failed)) in [
        (one(Operation::CreateDir, "topic-7"), vec![7]),
        // Open for reading, and then for writing.
        (one(Operation::Open, "topic-7/partition.metadata"), vec![7]),
        (one(Operation::Open, "topic-7/partition.metadata.tmp"), vec![7]),
        (one(Operation::Write, "topic-7/partition.metadata.tmp"), vec![7]),
        (one(Operation::Sync, "topic-7/partition.metadata.tmp"), vec![7]),
        (one(Operation::Open, "topic-7/0"), vec![7]),
        (one(Operation::Sync, "topic-7/0"), vec![7]),
        (one(Operation::Rename, "topic-7/partition.metadata"), vec![7]),
        (one(Operation::SyncDir, "topic-7"), vec![7]),
        // That of the data directory is everybody's.
        (one(Operation::SyncDir, "/data"), (0..COUNT as usize).collect()),
    ]
    .into_iter()
    .enumerate()
    {
        // What was made and not acknowledged may be there or not; what the second try has made is there.
        for tries in [1, 2] {
            let machine = Machine::new(at as u64, false);
            inject_after_begin(&machine, injection.clone());
            let mut expected = vec![failed.clone()];
            expected.resize(tries, Vec::new());
            assert_eq!(make(&machine, tries, ENOUGH_FILES), expected, "{injection:?}");
            let found = found_after_a_loss_of_power(&machine);
            let sure = ids().into_iter().enumerate().filter(|(at, _)| tries == 2 || !failed.contains(at));
            for (at, id) in sure {
                assert!(found.contains(&id), "{injection:?}, tries {tries}: partition {at} is gone");
            }
        }
    }
}

/// Starting syncs the data directory, too: what is injected there is for what comes after.
fn inject_after_begin(machine: &Machine, injection: Injection) {
    let after = if injection.path_contains == "/data" { syncs_of_a_start(machine) } else { 0 };
    machine.disk.inject(Injection { after, ..injection });
}

/// How many syncs of directories a start needs, counted on a machine of its own.
fn syncs_of_a_start(like: &Machine) -> u64 {
    let machine = Machine::new(0, like.loud);
    let before = machine.disk.counters().dir_syncs;
    let (disk, env): (Rc<dyn Disk>, _) = (machine.disk.mount(), machine.simulation.env());
    let data = machine.data.clone();
    machine.block_on(async move {
        let (core, _) = core(disk, env, data.clone(), ENOUGH_FILES).await;
        sim_support::begin(&core, &data).await;
    });
    machine.disk.counters().dir_syncs - before
}
