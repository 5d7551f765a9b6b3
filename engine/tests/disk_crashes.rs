//! What the simulated disk does to those who trust it too much: each rule of `disk::sim`, one by one.

#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

mod disk_support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use disk_support::{all, buffer, contents, pattern, read, start_and_abandon, write};
use ringlog_engine::disk::sim::{CrashOutcome, Faults, Injection, Operation, SimDisk};
use ringlog_engine::disk::{BLOCK_BYTES, Disk, IoFuture, OpenOptions, Payload};
use ringlog_engine::env::sim::Simulation;
use ringlog_engine::memory::Buffer;
use tokio::sync::oneshot;

const SECTOR_BYTES: usize = 512;

/// A machine with a disk.
struct Machine {
    simulation: Simulation,
    device: SimDisk,
    disk: Rc<dyn Disk>,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let simulation = Simulation::new(seed);
        let device = SimDisk::new(&simulation, seed);
        let disk = device.mount();
        Self { simulation, device, disk }
    }

    fn run<F: Future>(&self, future: F) -> F::Output {
        self.simulation.block_on(future)
    }

    /// A file that is durable with these bytes, its name too.
    fn durable_file(&self, path: &str, bytes: &[u8]) {
        self.run(async {
            let file = write(&*self.disk, path.as_ref(), bytes).await;
            file.sync_data().await.unwrap();
            self.disk.sync_dir("/".as_ref()).await.unwrap();
        });
    }

    fn reboot(&mut self, outcome: Option<CrashOutcome>) {
        self.simulation.crash();
        match outcome {
            Some(outcome) => self.device.crash_with(outcome),
            None => self.device.crash(),
        }
        self.disk = self.device.mount();
    }

    fn contents(&self, path: &str) -> Vec<u8> {
        self.run(contents(&*self.disk, path.as_ref()))
    }

    fn names(&self, path: &str) -> Vec<String> {
        self.run(self.disk.list(path.as_ref())).unwrap().into_iter().map(|entry| entry.name).collect()
    }
}

/// What `setup` leaves after a crash, over many seeds: how often what.
fn outcomes<T: Ord>(setup: impl Fn(&Machine), after: impl Fn(&Machine) -> T) -> BTreeSet<T> {
    let outcome = |seed| {
        let mut machine = Machine::new(seed);
        setup(&machine);
        machine.reboot(None);
        after(&machine)
    };
    (0..200).map(outcome).collect()
}

#[test]
fn what_is_synced_survives() {
    let bytes = pattern(1, 100_000);
    let seen = outcomes(|m| m.durable_file("/file", &bytes), |m| m.contents("/file"));
    assert_eq!(seen, BTreeSet::from([bytes]));
}

#[test]
fn each_unsynced_sector_is_old_or_new_for_itself() {
    let (old, new) = (pattern(1, 8 * SECTOR_BYTES), pattern(2, 8 * SECTOR_BYTES));
    let overwrite = |m: &Machine| {
        m.durable_file("/file", &old);
        m.run(write(&*m.disk, "/file".as_ref(), &new));
    };
    let seen = outcomes(overwrite, |m| {
        let bytes = m.contents("/file");
        let sectors = bytes.chunks(SECTOR_BYTES).zip(old.chunks(SECTOR_BYTES).zip(new.chunks(SECTOR_BYTES)));
        sectors
            .map(|(is, (old, new))| {
                if is == old {
                    'o'
                } else if is == new {
                    'n'
                } else {
                    '?'
                }
            })
            .collect::<String>()
    });
    assert!(seen.iter().all(|s| s.len() == 8 && !s.contains('?')), "{seen:?}");
    assert!(seen.contains("oooooooo") && seen.contains("nnnnnnnn") && seen.len() > 20, "{seen:?}");
}

#[test]
fn a_write_in_flight_is_torn() {
    let (old, new) = (pattern(1, 16 * BLOCK_BYTES), pattern(2, 16 * BLOCK_BYTES));
    let interrupted = |m: &Machine| {
        m.durable_file("/file", &old);
        let file = m.run(m.disk.open("/file".as_ref(), OpenOptions::DIRECT)).unwrap();
        // Polled once, then left to itself for a part of the time that it takes.
        m.run(start_and_abandon(file.write_at(buffer(&new), 0)));
        m.simulation.run_for(Duration::from_micros(70));
    };
    let seen = outcomes(interrupted, |m| {
        let bytes = m.contents("/file");
        assert_eq!(bytes.len(), old.len());
        (bytes == old, bytes == new)
    });
    assert_eq!(seen, BTreeSet::from([(true, false), (false, true), (false, false)]));
}

#[test]
fn versions_between_two_syncs_may_survive() {
    let three = |m: &Machine| {
        m.durable_file("/file", b"aaaa");
        m.run(async {
            write(&*m.disk, "/file".as_ref(), b"bbbb").await;
            write(&*m.disk, "/file".as_ref(), b"cccc").await;
        });
    };
    let seen = outcomes(three, |m| String::from_utf8(m.contents("/file")).unwrap());
    assert_eq!(seen, BTreeSet::from(["aaaa", "bbbb", "cccc"].map(str::to_owned)));
}

#[test]
fn unsynced_growth_is_lost_in_part_or_whole() {
    let old = pattern(1, 1000);
    let new = pattern(2, 20_000);
    let append = |m: &Machine| {
        m.durable_file("/file", &old);
        let file = m.run(m.disk.open("/file".as_ref(), OpenOptions::WRITE)).unwrap();
        m.run(file.write_at(Payload::Bytes(new.clone()), 1000)).unwrap();
    };
    let seen = outcomes(append, |m| {
        let bytes = m.contents("/file");
        assert_eq!(bytes[..512], old[..512]);
        for (at, sector) in bytes.chunks(SECTOR_BYTES).enumerate().skip(2) {
            let start = at * SECTOR_BYTES - 1000;
            assert!(sector.iter().all(|&b| b == 0) || sector == &new[start..start + sector.len()], "zeros or data");
        }
        let holes = bytes.chunks(SECTOR_BYTES).skip(2).any(|sector| sector.iter().all(|&b| b == 0));
        (bytes.len(), holes)
    });
    let lengths: BTreeSet<usize> = seen.iter().map(|&(len, _)| len).collect();
    assert!(lengths.contains(&1000) && lengths.contains(&21_000) && lengths.len() > 10, "{lengths:?}");
    assert!(lengths.iter().all(|&len| (1000..=21_000).contains(&len)), "{lengths:?}");
    assert!(seen.contains(&(21_000, true)) && seen.contains(&(21_000, false)), "with holes and without");
}

#[test]
fn an_unsynced_cut_is_done_or_undone() {
    let old = pattern(1, 5000);
    let cut = |m: &Machine| {
        m.durable_file("/file", &old);
        let file = m.run(m.disk.open("/file".as_ref(), OpenOptions::WRITE)).unwrap();
        m.run(file.set_len(700)).unwrap();
        m.run(file.write_at(Payload::Bytes(b"tail".to_vec()), 700)).unwrap();
    };
    let seen = outcomes(cut, |m| m.contents("/file"));
    for bytes in &seen {
        assert!(*bytes == old || (700..=704).contains(&bytes.len()), "{} bytes", bytes.len());
        assert_eq!(bytes[..512], old[..512]);
    }
    assert!(seen.contains(&old), "undone, and what came after it too");
    assert!(seen.contains(&old[..700]), "done");
    assert!(seen.contains(&[&old[..700], b"tail"].concat()), "done, and what came after it kept");
    let synced = outcomes(
        |m| {
            cut(m);
            let file = m.run(m.disk.open("/file".as_ref(), OpenOptions::WRITE)).unwrap();
            m.run(file.sync_data()).unwrap();
        },
        |m| m.contents("/file"),
    );
    assert_eq!(synced, BTreeSet::from([[&old[..700], b"tail"].concat()]), "a sync makes a cut durable");
}

#[test]
fn a_cut_that_is_undone_brings_back_what_was_not_durable_before_it() {
    let (old, new) = (pattern(1, 2048), pattern(2, 2048));
    let cut = |m: &Machine| {
        m.durable_file("/file", &old);
        let file = m.run(write(&*m.disk, "/file".as_ref(), &new));
        m.run(file.set_len(10)).unwrap();
    };
    let seen = outcomes(cut, |m| m.contents("/file"));
    for whole in [&old, &new] {
        assert!(seen.contains(whole), "undone, and the write before it lost or kept");
        assert!(seen.contains(&whole[..10]), "done, and the write before it lost or kept");
    }
}

#[test]
fn what_a_cut_took_away_does_not_come_back_behind_the_end() {
    let extended = |m: &Machine| {
        m.durable_file("/file", &[b'o'; 512]);
        m.run(async {
            let file = write(&*m.disk, "/file".as_ref(), &[b'n'; 512]).await;
            file.set_len(100).await.unwrap();
            file.set_len(300).await.unwrap();
        });
    };
    for bytes in outcomes(extended, |m| m.contents("/file")) {
        if bytes.len() < 512 {
            assert!(bytes[100..].iter().all(|&b| b == 0), "{} bytes", bytes.len());
        }
    }
}

#[test]
fn a_new_name_needs_its_directorys_sync() {
    let create = |m: &Machine| {
        let file = m.run(write(&*m.disk, "/file".as_ref(), b"x"));
        m.run(file.sync_data()).unwrap();
    };
    let seen = outcomes(create, |m| m.names("/"));
    assert_eq!(seen, BTreeSet::from([vec![], vec!["file".to_owned()]]), "a file's own sync says nothing about its name");
    let seen = outcomes(
        |m| {
            create(m);
            m.run(m.disk.sync_dir("/".as_ref())).unwrap();
        },
        |m| m.contents("/file"),
    );
    assert_eq!(seen, BTreeSet::from([b"x".to_vec()]));
}

#[test]
fn a_directory_without_a_durable_name_takes_all_with_it() {
    let create = |m: &Machine| {
        m.run(m.disk.create_dir("/dir".as_ref())).unwrap();
        let file = m.run(write(&*m.disk, "/dir/file".as_ref(), b"x"));
        m.run(file.sync_data()).unwrap();
        m.run(m.disk.sync_dir("/dir".as_ref())).unwrap();
    };
    let seen = outcomes(create, |m| m.names("/").first().map(|_| m.names("/dir")));
    assert_eq!(seen, BTreeSet::from([None, Some(vec!["file".to_owned()])]));
}

#[test]
fn an_unsynced_rename_is_done_or_undone_whole() {
    let rename = |m: &Machine| {
        m.durable_file("/new", b"old contents");
        m.durable_file("/temporary", b"new contents");
        m.run(m.disk.rename("/temporary".as_ref(), "/new".as_ref())).unwrap();
    };
    let seen = outcomes(rename, |m| (m.names("/").len(), m.contents("/new")));
    assert_eq!(seen, BTreeSet::from([(2, b"old contents".to_vec()), (1, b"new contents".to_vec())]));
    // Between two directories the sync of either settles it.
    for synced in ["/a", "/b"] {
        let across = |m: &Machine| {
            m.run(async {
                for dir in ["/a", "/b"] {
                    m.disk.create_dir(dir.as_ref()).await.unwrap();
                }
                write(&*m.disk, "/a/file".as_ref(), b"x").await.sync_data().await.unwrap();
                for dir in ["/", "/a", "/b"] {
                    m.disk.sync_dir(dir.as_ref()).await.unwrap();
                }
                m.disk.rename("/a/file".as_ref(), "/b/file".as_ref()).await.unwrap();
                m.disk.sync_dir(synced.as_ref()).await.unwrap();
            });
        };
        let seen = outcomes(across, |m| (m.names("/a").len(), m.names("/b").len()));
        assert_eq!(seen, BTreeSet::from([(0, 1)]));
    }
}

#[test]
fn syncing_a_renames_target_settles_what_the_rename_builds_on() {
    let moved = |m: &Machine| {
        m.run(async {
            for dir in ["/a", "/b"] {
                m.disk.create_dir(dir.as_ref()).await.unwrap();
            }
            m.disk.sync_dir("/".as_ref()).await.unwrap();
            write(&*m.disk, "/a/file".as_ref(), b"x").await;
            write(&*m.disk, "/a/other".as_ref(), b"x").await;
            m.disk.rename("/a/file".as_ref(), "/b/file".as_ref()).await.unwrap();
            m.disk.sync_dir("/b".as_ref()).await.unwrap();
        });
    };
    let seen = outcomes(moved, |m| (m.names("/a").concat(), m.names("/b").concat()));
    let expected = ["", "other"].map(|a| (a.to_owned(), "file".to_owned()));
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn an_unsynced_removal_is_done_or_undone() {
    let remove = |m: &Machine| {
        m.durable_file("/file", b"x");
        m.run(m.disk.remove_file("/file".as_ref())).unwrap();
    };
    let seen = outcomes(remove, |m| m.names("/"));
    assert_eq!(seen, BTreeSet::from([vec![], vec!["file".to_owned()]]));
    let seen = outcomes(
        |m| {
            remove(m);
            m.run(m.disk.sync_dir("/".as_ref())).unwrap();
        },
        |m| m.names("/"),
    );
    assert_eq!(seen, BTreeSet::from([vec![]]));
}

#[test]
fn what_builds_on_an_undone_change_is_undone() {
    let chain = |m: &Machine| {
        m.run(async {
            write(&*m.disk, "/a".as_ref(), b"x").await;
            m.disk.rename("/a".as_ref(), "/b".as_ref()).await.unwrap();
            m.disk.rename("/b".as_ref(), "/c".as_ref()).await.unwrap();
        });
    };
    let seen = outcomes(chain, |m| m.names("/").concat());
    assert_eq!(seen, BTreeSet::from(["", "a", "b", "c"].map(str::to_owned)), "one name at most, and each of them happens");
}

#[test]
fn after_a_failed_sync_reads_show_what_a_crash_loses() {
    let (old, new) = (pattern(1, 4096), pattern(2, 4096));
    for seed in 0..100 {
        let mut m = Machine::new(seed);
        m.durable_file("/file", &old);
        m.device.fail_next_sync("/file".as_ref());
        let file = m.run(write(&*m.disk, "/file".as_ref(), &new));
        assert!(m.run(file.sync_data()).is_err());
        assert_eq!(m.contents("/file"), new, "reads show it");
        m.run(file.sync_data()).unwrap();
        assert_eq!(m.contents("/file"), new, "and the next sync succeeds");
        assert_eq!(m.device.counters().errors, 1);
        let evicted = m.device.fork(&m.simulation, seed);
        evicted.evict("/file".as_ref());
        m.reboot(Some(CrashOutcome::KeepUnsynced));
        let left = m.contents("/file");
        assert_ne!(left, new, "but a crash loses it, even one that is merciful");
        let evicted = m.run(contents(&*evicted.mount(), "/file".as_ref()));
        assert_eq!(evicted, left, "as the page cache may without one");
    }
}

#[test]
fn what_is_written_again_after_a_failed_sync_can_be_synced() {
    let new = pattern(2, 4096);
    let again = |m: &Machine| {
        m.durable_file("/file", &pattern(1, 4096));
        m.device.fail_next_sync("/file".as_ref());
        let file = m.run(write(&*m.disk, "/file".as_ref(), &new));
        assert!(m.run(file.sync_data()).is_err());
        m.run(file.write_at(Payload::Bytes(new.clone()), 0)).unwrap();
        m.run(file.sync_data()).unwrap();
    };
    assert_eq!(outcomes(again, |m| m.contents("/file")), BTreeSet::from([new.clone()]));
}

#[test]
fn a_linked_write_is_told_before_its_sync_fails() {
    let m = Machine::new(1);
    m.durable_file("/file", b"");
    m.device.inject(Injection::next(Operation::Sync, "file"));
    let file = m.run(m.disk.open("/file".as_ref(), OpenOptions::DIRECT)).unwrap();
    let (told, mut written) = oneshot::channel();
    assert!(m.run(file.write_and_sync(buffer(&pattern(1, 4096)), 0, told)).is_err());
    written.try_recv().unwrap();
    m.device.inject(Injection::next(Operation::Write, "file"));
    let (told, mut written) = oneshot::channel();
    assert!(m.run(file.write_and_sync(buffer(&pattern(1, 4096)), 0, told)).is_err());
    written.try_recv().unwrap_err();
}

#[test]
fn handles_of_an_earlier_life_are_dead() {
    let mut m = Machine::new(1);
    m.durable_file("/file", b"x");
    let (old_disk, old_file) = (m.disk.clone(), m.run(m.disk.open("/file".as_ref(), OpenOptions::WRITE)).unwrap());
    let mut before = old_file.write_at(Payload::Bytes(b"y".to_vec()), 0);
    m.run(std::future::poll_fn(|context| {
        let _ = before.as_mut().poll(context);
        std::task::Poll::Ready(())
    }));
    m.reboot(None);
    assert!(m.run(before).is_err(), "what was under way fails");
    assert!(m.run(old_file.write_at(Payload::Bytes(b"z".to_vec()), 0)).is_err());
    assert!(m.run(old_file.len_bytes()).is_err());
    assert!(m.run(old_disk.open("/file".as_ref(), OpenOptions::READ)).is_err());
    drop(old_file);
    assert_eq!(m.contents("/file"), b"x");
}

#[test]
fn injected_errors_come_when_and_where_they_should() {
    let m = Machine::new(1);
    m.run(async {
        let (a, b) = (write(&*m.disk, "/a".as_ref(), b"xyz").await, write(&*m.disk, "/b".as_ref(), b"xyz").await);
        m.device.inject(Injection { after: 1, times: 2, ..Injection::next(Operation::Read, "/a") });
        let mut results = Vec::new();
        for _ in 0..5 {
            results.push(a.read_at(Buffer::standalone(10).unwrap(), 3, 0).await.is_ok());
            assert_eq!(read(&*b, 3, 0).await, b"xyz");
        }
        assert_eq!(results, [true, false, false, true, true]);
        m.device.inject(Injection { errno: libc::ENOSPC, ..Injection::always(Operation::Open, "") });
        let full = m.disk.open("/c".as_ref(), OpenOptions::WRITE).await.err().unwrap();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        m.device.clear_injections();
        m.disk.open("/c".as_ref(), OpenOptions::WRITE).await.unwrap();
        m.device.set_faults(Faults { write_error: 1.0, read_error: 1.0, name_error: 1.0, ..Faults::default() });
        assert!(a.write_at(Payload::Bytes(b"ABC".to_vec()), 0).await.is_err());
        assert!(a.read_at(Buffer::standalone(10).unwrap(), 3, 0).await.is_err());
        assert!(m.disk.rename("/a".as_ref(), "/d".as_ref()).await.is_err());
        m.device.set_faults(Faults::default());
        let after = read(&*a, 3, 0).await;
        assert!(after.iter().zip(b"ABC").zip(b"xyz").all(|((is, new), old)| is == new || is == old), "any part of it");
        assert_eq!(m.names_now().await, ["a", "b", "c"]);
    });
}

impl Machine {
    async fn names_now(&self) -> Vec<String> {
        self.disk.list("/".as_ref()).await.unwrap().into_iter().map(|entry| entry.name).collect()
    }
}

#[test]
fn a_full_disk_takes_what_fits() {
    let m = Machine::new(1);
    m.device.set_capacity(Some(10 * 4096));
    m.run(async {
        let file = write(&*m.disk, "/a".as_ref(), &pattern(1, 4 * 4096)).await;
        assert_eq!(m.disk.space("/".as_ref()).await.unwrap().available_bytes, 6 * 4096);
        let other = m.disk.open("/b".as_ref(), OpenOptions::DIRECT).await.unwrap();
        let full = other.write_at(buffer(&pattern(2, 8 * 4096)), 0).await.unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert_eq!(other.len_bytes().await.unwrap(), 6 * 4096, "a part is written");
        assert!(file.write_at(Payload::Bytes(vec![1]), 4 * 4096).await.is_err());
        file.write_at(Payload::Bytes(vec![1; 4096]), 0).await.unwrap();
        m.disk.remove_file("/b".as_ref()).await.unwrap();
        assert_eq!(m.disk.space("/".as_ref()).await.unwrap().available_bytes, 0, "an open file keeps its room");
        drop(other);
        file.allocate(0, 10 * 4096).await.unwrap();
        assert!(file.allocate(0, 11 * 4096).await.is_err());
        assert_eq!(m.disk.space("/".as_ref()).await.unwrap().available_bytes, 0);
        assert!(write_all(&*m.disk, "/c").await.is_err());
        file.write_at(Payload::Bytes(vec![1; 6 * 4096]), 4 * 4096).await.unwrap();
        m.device.set_capacity(None);
        write_all(&*m.disk, "/c").await.unwrap();
    });
}

async fn write_all(disk: &dyn Disk, path: &str) -> std::io::Result<()> {
    let file = disk.open(path.as_ref(), OpenOptions::WRITE).await?;
    file.write_at(Payload::Bytes(vec![1]), 0).await
}

#[test]
fn rot_reaches_what_is_synced() {
    let mut m = Machine::new(1);
    let bytes = pattern(1, 10_000);
    m.durable_file("/file", &bytes);
    let flipped = m.device.rot("/file".as_ref(), 1);
    m.device.rot_at("/file".as_ref(), 3, 0);
    let differing = |seen: &[u8]| (0..seen.len() as u64).filter(|&n| seen[n as usize] != bytes[n as usize]).collect::<Vec<_>>();
    let mut expected = vec![3, flipped[0]];
    expected.sort_unstable();
    assert_eq!(differing(&m.contents("/file")), expected);
    m.reboot(Some(CrashOutcome::LoseUnsynced));
    assert_eq!(differing(&m.contents("/file")), expected);
}

#[test]
#[should_panic(expected = "whole blocks")]
fn a_direct_write_of_a_part_of_a_block_is_a_mistake() {
    let m = Machine::new(1);
    let file = m.run(m.disk.open("/file".as_ref(), OpenOptions::DIRECT)).unwrap();
    drop(file.write_at(buffer(&[1; 100]), 0));
}

#[test]
#[should_panic(expected = "start at a block")]
fn a_direct_write_between_blocks_is_a_mistake() {
    let m = Machine::new(1);
    let file = m.run(m.disk.open("/file".as_ref(), OpenOptions::DIRECT)).unwrap();
    drop(file.write_at(buffer(&[1; 4096]), 100));
}

#[test]
fn operations_overtake_each_other() {
    let m = Machine::new(3);
    m.run(async {
        let file = m.disk.open("/file".as_ref(), OpenOptions::WRITE).await.unwrap();
        let mut seen = BTreeSet::new();
        for _ in 0..50 {
            let writes: Vec<IoFuture<()>> = (b'a'..=b'c').map(|b| file.write_at(Payload::Bytes(vec![b]), 0)).collect();
            all(writes).await.into_iter().for_each(Result::unwrap);
            seen.insert(read(&*file, 1, 0).await[0]);
        }
        assert_eq!(seen.len(), 3, "each is the last at times");
    });
}

/// A little of everything, with crashes between. Returns all that can be seen of it.
fn history(seed: u64, crashes: usize) -> (u64, String, Vec<Vec<u8>>) {
    let mut m = Machine::new(seed);
    m.device.set_faults(Faults {
        short_write: 0.1,
        sync_error: 0.05,
        write_error: 0.02,
        name_error: 0.02,
        slow: 0.05,
        ..Faults::default()
    });
    let mut left = Vec::new();
    for round in 0..crashes as u64 {
        let env = m.simulation.env();
        for task in 0..3u64 {
            let (disk, env_of_task) = (m.disk.clone(), env.clone());
            env.spawn(Box::pin(async move {
                let path = PathBuf::from(format!("/file-{task}"));
                for n in 0..20u64 {
                    let Ok(file) = disk.open(&path, OpenOptions::DIRECT).await else { continue };
                    let bytes = pattern(round * 100 + n, BLOCK_BYTES * (1 + env_of_task.random_u64() as usize % 16));
                    let (told, _) = oneshot::channel();
                    let _ = file.write_and_sync(buffer(&bytes), (n % 5) * BLOCK_BYTES as u64, told).await;
                    let _ = disk.rename(&path, Path::new(&format!("/old-{task}"))).await;
                    let _ = disk.sync_dir("/".as_ref()).await;
                }
            }));
        }
        m.simulation.run_for(Duration::from_millis(3));
        m.reboot(None);
        for name in m.names("/") {
            left.push(m.contents(&format!("/{name}")));
        }
    }
    (m.device.counters().fingerprint, m.device.tree(), left)
}

#[test]
fn a_seed_gives_one_history() {
    for seed in 0..5 {
        let (first, again) = (history(seed, 5), history(seed, 5));
        assert_eq!(first, again);
        assert_ne!(first.0, history(seed + 100, 5).0);
    }
}

#[test]
fn the_dump_tells_what_is_not_durable() {
    let m = Machine::new(1);
    m.durable_file("/durable", &pattern(1, 1024));
    m.run(async {
        m.disk.create_dir("/dir".as_ref()).await.unwrap();
        write(&*m.disk, "/dir/new".as_ref(), &pattern(1, 1024)).await;
        m.disk.rename("/durable".as_ref(), "/renamed".as_ref()).await.unwrap();
    });
    assert_eq!(
        m.device.tree(),
        "/dir/ (new, not durable)\n\
         /dir/new 1024 bytes, 2 sectors not durable (new, not durable)\n\
         /durable 1024 bytes, 0 sectors not durable (removed, not durable)\n\
         /renamed 1024 bytes, 0 sectors not durable (new, not durable)\n"
    );
}

/// Not a test of anything: how many crashes a simulation gets through. `cargo test --release -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn crashes_per_second() {
    let start = Instant::now();
    let mut crashes = 0;
    for seed in 0..20 {
        history(seed, 20);
        crashes += 20;
    }
    println!("{:.0} crashes per second", f64::from(crashes) / start.elapsed().as_secs_f64());
}
