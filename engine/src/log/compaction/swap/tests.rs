//! OldOrNew: whatever mixture of names a crash in a swap leaves, and whatever crashes come while the next starts end it, the
//! folder has the old segments in the end, all of them, or the new one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::batch::BatchBuilder;
use crate::disk::sim::SimDisk;
use crate::disk::{Payload, read_file};
use crate::env::sim::Simulation;
use crate::types::TimestampMs;

const DIRECTORY: &str = "/";
const BASES: [i64; 3] = [0, 10, 20];
const MADE: [FileKind; 3] = [FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::Log];

type Folder = BTreeMap<String, Vec<u8>>;

fn name(base: i64, kind: FileKind, state: FileState) -> String {
    SegmentFile { base_offset: Offset(base), kind, state }.name()
}

fn batch(last_offset: i64, value: &[u8]) -> Vec<u8> {
    BatchBuilder::new(Offset(last_offset)).record(TimestampMs(1), Some(b"key"), Some(value)).build()
}

fn old() -> Folder {
    let of = |base: i64| {
        MADE.map(|kind| {
            let bytes = if kind == FileKind::Log { batch(base + 9, b"old") } else { b"old".to_vec() };
            (name(base, kind, FileState::Live), bytes)
        })
    };
    let mut folder: Folder = BASES.into_iter().flat_map(of).collect();
    // What comes behind the segments that were compacted.
    folder.insert(name(30, FileKind::Log, FileState::Live), batch(30, b"behind"));
    folder
}

fn new_bytes(kind: FileKind) -> Vec<u8> {
    if kind == FileKind::Log { batch(29, b"new") } else { b"new".to_vec() }
}

fn new() -> Folder {
    let made = MADE.map(|kind| (name(0, kind, FileState::Live), new_bytes(kind)));
    made.into_iter().chain(old().into_iter().filter(|(name, _)| name.starts_with("00000000000000000030"))).collect()
}

/// A folder as a crash may have left it, and what it has to become.
fn left(step: u8, some: u8) -> (Folder, Folder) {
    let mut folder = old();
    let picked = |at: usize| some >> at & 1 == 1;
    let live: Vec<String> = BASES[1..].iter().flat_map(|&base| MADE.map(|kind| name(base, kind, FileState::Live))).collect();
    let mut result = new();
    match step {
        // Some of the names that end with `.swap` are there.
        2 => {
            for (at, kind) in MADE.into_iter().enumerate() {
                let state = if picked(at) { FileState::Swap } else { FileState::Cleaned };
                folder.insert(name(0, kind, state), new_bytes(kind));
            }
            if some & 7 != 7 {
                result = old();
            }
        }
        // All of them are, and some of the old ones are on their way out.
        3 => {
            folder.extend(MADE.map(|kind| (name(0, kind, FileState::Swap), new_bytes(kind))));
            for (at, from) in live.iter().enumerate().filter(|(at, _)| picked(*at)) {
                let bytes = folder.remove(from).unwrap_or_else(|| panic!("{at}"));
                folder.insert(format!("{from}.deleted"), bytes);
            }
        }
        // All of these are, and some of the new ones have their names.
        _ => {
            for from in &live {
                let bytes = folder.remove(from).unwrap();
                folder.insert(format!("{from}.deleted"), bytes);
            }
            for (at, kind) in MADE.into_iter().enumerate() {
                let state = if picked(at) { FileState::Live } else { FileState::Swap };
                folder.insert(name(0, kind, state), new_bytes(kind));
            }
        }
    }
    (folder, result)
}

async fn read(disk: &Rc<dyn Disk>) -> Folder {
    let mut folder = Folder::new();
    for entry in disk.list(Path::new(DIRECTORY)).await.unwrap() {
        let bytes = read_file(disk, &Path::new(DIRECTORY).join(&entry.name)).await.unwrap();
        folder.insert(entry.name, bytes);
    }
    folder
}

async fn end(disk: &Rc<dyn Disk>) -> io::Result<bool> {
    let names = disk.list(Path::new(DIRECTORY)).await?;
    finish(disk, &Pool::new(1 << 20), Path::new(DIRECTORY), &names).await
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_a_crash_leaves_is_the_old_or_the_new_whatever_crashes_follow(
        step in 2u8..=4, some in any::<u8>(), seed in any::<u64>(), crashes in prop::collection::vec(1u64..25, 0..4),
    ) {
        let simulation = Simulation::new(seed);
        let sim = SimDisk::new(&simulation, seed);
        let (folder, result) = left(step, some);
        let disk: Rc<dyn Disk> = sim.mount();
        simulation.block_on(async move {
            for (name, bytes) in folder {
                let file = disk.open(&Path::new(DIRECTORY).join(name), OpenOptions::WRITE).await.unwrap();
                file.write_at(Payload::Bytes(bytes), 0).await.unwrap();
                file.sync_data().await.unwrap();
            }
            disk.sync_dir(Path::new(DIRECTORY)).await.unwrap();
        });
        for operations in crashes {
            let disk: Rc<dyn Disk> = sim.mount();
            let reached = sim.reached(sim.counters().operations + operations);
            simulation.block_on(async move {
                tokio::select! {
                    biased;
                    () = reached => {}
                    ended = end(&disk) => { ended.unwrap(); }
                }
            });
            simulation.crash();
            sim.crash();
        }
        let disk: Rc<dyn Disk> = sim.mount();
        let found = simulation.block_on(async move {
            end(&disk).await.unwrap();
            assert!(!end(&disk).await.unwrap(), "nothing is left to do");
            read(&disk).await
        });
        prop_assert_eq!(found, result, "OldOrNew");
    }
}

#[test]
fn a_rotten_swap_is_named_and_changes_nothing() {
    let simulation = Simulation::new(1);
    let disk: Rc<dyn Disk> = SimDisk::new(&simulation, 1).mount();
    let (mut folder, _) = left(3, 0b10_0101);
    let log = name(0, FileKind::Log, FileState::Swap);
    // The version of its batch.
    folder.get_mut(&log).unwrap()[16] ^= 1;
    simulation.block_on(async move {
        for (name, bytes) in &folder {
            let file = disk.open(&Path::new(DIRECTORY).join(name), OpenOptions::WRITE).await.unwrap();
            file.write_at(Payload::Bytes(bytes.clone()), 0).await.unwrap();
        }
        let refused = end(&disk).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        assert!(refused.to_string().contains(&log), "{refused}");
        assert_eq!(read(&disk).await, folder);
    });
}
