//! Repairs that end anywhere, and starts after a crash of what a repair left: the engine opens it on a simulated disk.

use std::rc::Rc;
use std::sync::Arc;

use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::disk::{Disk, OpenOptions, Payload};
use ringlog_engine::env::sim::Simulation;
use ringlog_engine::log::checkpoint::OffsetCheckpoint;
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::log::open::{OpenParams, open};
use ringlog_engine::memory::Pool;
use ringlog_engine::types::LeaderEpoch;

use super::*;

/// Opens the partition as a start does, after a crash; returns the log's end and the files that are there then.
fn started(data: &Data) -> (Offset, Vec<String>) {
    let text = fs::read_to_string(data.path().join("recovery-point-offset-checkpoint")).unwrap_or_default();
    let offsets = OffsetCheckpoint::parse(&text).unwrap().offsets;
    let params = OpenParams {
        id: PartitionId { topic: TOPIC, index: 0 },
        directory: PathBuf::from("/t-0"),
        config: Arc::new(LogConfig::default()),
        recovery_point: offsets.get(&("t".to_owned(), 0)).copied().unwrap_or(Offset(0)),
        log_start: Offset(0),
        clean: false,
        leader_epoch: LeaderEpoch(0),
    };
    let files = snapshot(&data.partition());
    let simulation = Simulation::new(1);
    let disk: Rc<dyn Disk> = SimDisk::new(&simulation, 1).mount();
    simulation.block_on(async move {
        disk.create_dir(&params.directory).await.unwrap();
        for (name, bytes) in files {
            let file = disk.open(&params.directory.join(name), OpenOptions::WRITE).await.unwrap();
            file.write_at(Payload::Bytes(bytes), 0).await.unwrap();
            file.sync_data().await.unwrap();
        }
        let directory = params.directory.clone();
        disk.sync_dir(&directory).await.unwrap();
        let log = open(&disk, &Pool::new(16 << 20), params, TimestampMs(2000)).await.unwrap();
        let names = disk.list(&directory).await.unwrap().into_iter().map(|entry| entry.name).collect();
        (log.published().log_end(), names)
    })
}

/// Two segments, the first one without its last batch, after a crash.
fn torn_in_the_middle() -> Data {
    let (batches, positions) = with_positions();
    let data = Data::new(&batches.concat()[..positions[5] - 7]).crashed();
    data.write(SECOND, &batches[5..].concat());
    data
}

/// RepairedLogsStart: what a repair kept is there after a start, even one after a crash.
#[test]
fn a_start_after_a_crash_keeps_what_a_repair_kept() {
    let data = torn_in_the_middle();
    data.repaired();
    let (end, names) = started(&data);
    assert_eq!(end, Offset(30));
    assert!(names.iter().any(|name| name == SECOND), "{names:?}");

    // Wherever the repair ended.
    for steps in 0.. {
        let data = torn_in_the_middle();
        STEPS.set(steps);
        let ended = repair(data.path(), true, &mut Vec::new());
        STEPS.set(usize::MAX);
        let begun = data.file(LOG).unwrap().len() < torn_in_the_middle().file(LOG).unwrap().len();
        if begun {
            let (end, names) = started(&data);
            assert!(end == Offset(30) && names.iter().any(|name| name == SECOND), "step {steps}: {end} {names:?}");
        }
        if ended.is_ok() {
            assert!(begun && steps > 3);
            break;
        }
    }

    // A lost checkpoint of a journal may have held the recovery point of a log that was repaired before.
    let (batches, _) = with_positions();
    let data = Data::new(&batches[..4].concat()).crashed().with_journal(&[]);
    data.write(SECOND, &batches[5..].concat());
    fs::write(data.path().join("ringlog-journal.0/checkpoint"), "nonsense").unwrap();
    data.repaired();
    let (end, names) = started(&data);
    assert!(end == Offset(30) && names.iter().any(|name| name == SECOND), "{end} {names:?}");
}

#[test]
fn what_a_repair_leaves_unfinished_is_gone_at_the_next_start() {
    for steps in 0.. {
        let (batches, positions) = with_positions();
        let mut log = batches.concat();
        log[positions[4] + 70] ^= 1;
        let data = Data::new(&log).with_indexes(&batches);
        data.write("leader-epoch-checkpoint", b"nonsense");
        STEPS.set(steps);
        let ended = repair(data.path(), true, &mut Vec::new());
        STEPS.set(usize::MAX);
        assert!(!snapshot(data.path()).keys().any(|name| name.ends_with(".cleaned")), "a start takes it for a compaction's");
        let (_, names) = started(&data);
        assert!(names.iter().all(|name| !name.ends_with(".tmp")), "step {steps}: {names:?}");
        if ended.is_ok() {
            break;
        }
    }
}

#[test]
fn checkpoints_are_durable_before_the_journals_go() {
    let (batches, positions) = with_positions();
    let mut log = batches.concat();
    log[positions[2] + 70] ^= 1;
    let pieces = [(positions[7] as u64, 21, 30, &log[positions[7]..])];
    let data = Data::new(&log[..positions[7]]).crashed().with_journal(&pieces);
    TRACE.take();
    assert!(run(data.path(), true).0);
    let (trace, root) = (TRACE.take(), fs::canonicalize(data.path()).unwrap());
    let at = |what: &str, name: &str| trace.iter().position(|step| *step == (what, root.join(name))).unwrap();
    let journal = at("change", "ringlog-journal.0");
    for name in ["recovery-point-offset-checkpoint", "log-start-offset-checkpoint"] {
        let renamed = at("change", name);
        assert!(renamed < journal && trace[renamed..journal].contains(&("sync", root.clone())), "{trace:?}");
    }
    assert!(trace[..at("change", "recovery-point-offset-checkpoint")].contains(&("sync", root.join("t-0"))), "{trace:?}");
}

/// RepairSurvivesCrashes: wherever it ends, what was sound is in the segments or still in the journal, and the next run gets to the same
/// end.
#[test]
fn a_repair_may_end_at_any_step() {
    let (batches, positions) = with_positions();
    let whole = batches.concat();
    let damaged = || {
        let mut log = whole.clone();
        log[positions[1] + 70] ^= 1;
        log[positions[4]] ^= 0x40;
        log.truncate(positions[7] + 20);
        let data = Data::new(&log).with_indexes(&batches).crashed();
        data.write("leader-epoch-checkpoint", b"nonsense");
        data.write("00000000000000000003.snapshot", b"nonsense");
        fs::write(data.path().join("recovery-point-offset-checkpoint"), "0\n1\nt 0 33\n").unwrap();
        data.with_journal(&[(positions[7] as u64, 21, 60, &whole[positions[7]..])])
    };
    let finished = {
        let data = damaged();
        data.repaired();
        snapshot(data.path())
    };
    let mut steps = 0;
    loop {
        let data = damaged();
        STEPS.set(steps);
        let ended = repair(data.path(), true, &mut Vec::new());
        STEPS.set(usize::MAX);
        let shown: Vec<i64> = data.offsets();
        for offset in [0, 6, 9, 15, 18, 21, 24, 27] {
            assert!(shown.contains(&offset), "step {steps}: {shown:?}");
        }
        if ended.is_ok() {
            break;
        }
        run(data.path(), true);
        let mut after = snapshot(data.path());
        after.retain(|name, _| !name.ends_with(".tmp"));
        assert_eq!(after.keys().collect::<Vec<_>>(), finished.keys().collect::<Vec<_>>(), "step {steps}");
        assert!(after == finished, "step {steps}");
        steps += 1;
    }
    assert!(steps > 12, "{steps} steps");
}
