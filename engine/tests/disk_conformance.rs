//! What every disk must do, in one suite: the ring on a real filesystem, the ring in memory, the simulator.

#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

mod disk_support;

use std::future::Future;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;

use disk_support::{all, buffer, contents, pattern, read, slices, start_and_abandon, write};
use ringlog_engine::disk::ring::{RingDisk, Runtime};
use ringlog_engine::disk::sim::{Faults, SimDisk};
use ringlog_engine::disk::{BLOCK_BYTES, Create, Disk, File, OpenOptions, Payload};
use ringlog_engine::env::sim::Simulation;
use ringlog_engine::memory::Buffer;
use tokio::sync::oneshot;

/// A disk, and a directory on it that is there and empty.
type Place = (Rc<dyn Disk>, PathBuf);

fn on_ring<F: Future<Output = ()>>(parent: &Path, test: impl FnOnce(Place) -> F) {
    let dir = tempfile::tempdir_in(parent).unwrap();
    // A small ring, so that it is full at times.
    let runtime = Runtime::new(32).unwrap();
    runtime.block_on(test((Rc::new(RingDisk::new()), dir.path().to_owned())));
}

fn on_simulator<F: Future<Output = ()>>(test: impl Fn(Place) -> F) {
    for seed in 0..4 {
        let simulation = Simulation::new(seed);
        let device = SimDisk::new(&simulation, seed);
        // Slow, and in pieces: that much is to be expected of a disk without faults.
        device.set_faults(Faults { short_write: 0.2, slow: 0.1, ..Faults::default() });
        let disk = device.mount();
        simulation.block_on(async {
            disk.create_dir("/data".as_ref()).await.unwrap();
            test((disk.clone(), PathBuf::from("/data"))).await;
        });
    }
}

macro_rules! conformance {
    ($($name:ident)*) => {
        mod ring {
            $(#[test] fn $name() { super::on_ring(env!("CARGO_TARGET_TMPDIR").as_ref(), super::$name); })*
        }
        mod simulator {
            $(#[test] fn $name() { super::on_simulator(super::$name); })*
        }
        mod ring_in_memory {
            $(#[test] fn $name() { super::on_ring("/dev/shm".as_ref(), super::$name); })*
        }
    };
}

conformance! {
    opening_follows_the_options
    what_is_written_is_read
    a_read_ends_with_the_file
    slices_are_written_in_order
    direct_writes_are_seen_by_buffered_readers
    write_and_sync_tells_both
    lengths_are_set
    allocating_changes_nothing_that_is_seen
    a_rename_replaces
    removed_files_live_while_open
    directories_are_listed_in_order
    directories_are_created_and_removed
    directories_are_synced
    a_set_is_synced_in_order
    more_operations_than_any_queue_holds
    abandoned_operations_harm_nobody
    a_reader_cannot_write
    space_is_told
}

async fn opening_follows_the_options((disk, dir): Place) {
    let path = dir.join("file");
    for direct in [false, true] {
        let missing = OpenOptions { create: Create::Never, write: true, direct };
        assert_eq!(disk.open(&path, missing).await.err().unwrap().kind(), ErrorKind::NotFound);
        let new = OpenOptions { create: Create::New, write: true, direct };
        let file = disk.open(&path, new).await.unwrap();
        assert_eq!(file.len_bytes().await.unwrap(), 0);
        assert_eq!(disk.open(&path, new).await.err().unwrap().kind(), ErrorKind::AlreadyExists);
        disk.open(&path, OpenOptions { create: Create::IfMissing, write: true, direct }).await.unwrap();
        disk.remove_file(&path).await.unwrap();
    }
    let nowhere = dir.join("no/file");
    assert_eq!(disk.open(&nowhere, OpenOptions::WRITE).await.err().unwrap().kind(), ErrorKind::NotFound);
    let unnameable = dir.join("a\0b");
    assert_eq!(disk.open(&unnameable, OpenOptions::WRITE).await.err().unwrap().kind(), ErrorKind::InvalidInput);
    write(&*disk, &path, b"x").await;
    let below_a_file = disk.open(&path.join("x"), OpenOptions::WRITE).await.err().unwrap();
    assert_eq!(below_a_file.kind(), ErrorKind::NotADirectory);
}

async fn what_is_written_is_read((disk, dir): Place) {
    let path = dir.join("file");
    let file = write(&*disk, &path, b"hello world").await;
    file.write_at(Payload::Bytes(b"W".to_vec()), 6).await.unwrap();
    assert_eq!(contents(&*disk, &path).await, b"hello World");
    // Far behind the end: what lies between is zeros.
    file.write_at(Payload::Bytes(b"!".to_vec()), 10_000).await.unwrap();
    let mut expected = b"hello World".to_vec();
    expected.resize(10_000, 0);
    expected.push(b'!');
    assert_eq!(contents(&*disk, &path).await, expected);
    let large = pattern(1, 3_000_001);
    file.write_at(buffer(&large), 5).await.unwrap();
    assert_eq!(contents(&*disk, &path).await[5..], large);
    file.write_at(Payload::Bytes(Vec::new()), 3).await.unwrap();
    assert_eq!(file.len_bytes().await.unwrap(), 3_000_006);
}

async fn a_read_ends_with_the_file((disk, dir): Place) {
    let bytes = pattern(2, 10_000);
    let file = write(&*disk, &dir.join("file"), &bytes).await;
    assert_eq!(read(&*file, 10_000, 0).await, bytes);
    assert_eq!(read(&*file, 100, 4090).await, bytes[4090..4190]);
    assert_eq!(read(&*file, 20_000, 9_000).await, bytes[9_000..]);
    assert_eq!(read(&*file, 10, 10_000).await, b"");
    assert_eq!(read(&*file, 10, 1 << 40).await, b"");
    let mut untouched = Buffer::standalone(100).unwrap();
    untouched.fill(7);
    let (buffer, read) = file.read_at(untouched, 50, 9_990).await.unwrap();
    assert_eq!(read, 10);
    assert!(buffer[10..100].iter().all(|&b| b == 7), "only what is read is changed");
}

async fn slices_are_written_in_order((disk, dir): Place) {
    let file = disk.open(&dir.join("file"), OpenOptions::WRITE).await.unwrap();
    // More slices than one vectored write takes, and a last one that is short.
    let bytes = pattern(3, 2500 * BLOCK_BYTES + 17);
    file.write_at(slices(&bytes), 100).await.unwrap();
    assert_eq!(contents(&*disk, &dir.join("file")).await[100..], bytes);
    let (told, written) = oneshot::channel();
    let other = pattern(4, 1500 * BLOCK_BYTES);
    file.write_and_sync(slices(&other), 50, told).await.unwrap();
    written.await.unwrap();
    let seen = contents(&*disk, &dir.join("file")).await;
    assert_eq!(seen[50..50 + other.len()], other);
    assert_eq!(seen[50 + other.len()..], bytes[other.len() - 50..]);
}

async fn direct_writes_are_seen_by_buffered_readers((disk, dir): Place) {
    let path = dir.join("file");
    let direct = disk.open(&path, OpenOptions::DIRECT).await.unwrap();
    let reader = disk.open(&path, OpenOptions::READ).await.unwrap();
    let bytes = pattern(5, 64 * BLOCK_BYTES);
    direct.write_at(slices(&bytes), 0).await.unwrap();
    assert_eq!(read(&*reader, bytes.len(), 0).await, bytes);
    // Over pages that the reader has brought into memory.
    let over = pattern(6, 3 * BLOCK_BYTES);
    direct.write_at(buffer(&over), 2 * BLOCK_BYTES as u64).await.unwrap();
    assert_eq!(read(&*reader, over.len(), 2 * BLOCK_BYTES as u64).await, over);
    assert_eq!(read(&*direct, over.len(), 2 * BLOCK_BYTES as u64).await, over);
    // A last block that is not whole, read through the direct handle.
    direct.set_len(BLOCK_BYTES as u64 + 5).await.unwrap();
    assert_eq!(read(&*direct, 4 * BLOCK_BYTES, 0).await, bytes[..BLOCK_BYTES + 5]);
}

async fn write_and_sync_tells_both((disk, dir): Place) {
    for options in [OpenOptions::WRITE, OpenOptions::DIRECT] {
        let path = dir.join(format!("file-{}", options.direct));
        let file = disk.open(&path, options).await.unwrap();
        let bytes = pattern(7, 5 * BLOCK_BYTES);
        let (told, mut written) = oneshot::channel();
        file.write_and_sync(buffer(&bytes), BLOCK_BYTES as u64, told).await.unwrap();
        written.try_recv().unwrap();
        assert_eq!(contents(&*disk, &path).await[BLOCK_BYTES..], bytes);
        let (told, mut written) = oneshot::channel();
        file.write_and_sync(Payload::Slices(Vec::new()), 0, told).await.unwrap();
        written.try_recv().unwrap();
        let (told, written) = oneshot::channel();
        drop(written);
        file.write_and_sync(buffer(&bytes), 0, told).await.unwrap();
    }
}

async fn lengths_are_set((disk, dir): Place) {
    let path = dir.join("file");
    let bytes = pattern(8, 10_000);
    let file = write(&*disk, &path, &bytes).await;
    file.set_len(5_000).await.unwrap();
    assert_eq!(contents(&*disk, &path).await, bytes[..5_000]);
    file.set_len(9_000).await.unwrap();
    let seen = contents(&*disk, &path).await;
    assert_eq!(seen[..5_000], bytes[..5_000]);
    assert_eq!(seen[5_000..], [0; 4_000], "what was cut does not come back");
    file.set_len(0).await.unwrap();
    assert_eq!(file.len_bytes().await.unwrap(), 0);
}

async fn allocating_changes_nothing_that_is_seen((disk, dir): Place) {
    let path = dir.join("file");
    let bytes = pattern(9, 6_000);
    let file = write(&*disk, &path, &bytes).await;
    file.allocate(0, 1 << 20).await.unwrap();
    file.allocate(0, 0).await.unwrap();
    assert_eq!(contents(&*disk, &path).await, bytes);
}

async fn a_rename_replaces((disk, dir): Place) {
    let (old, new) = (dir.join("old"), dir.join("new"));
    write(&*disk, &old, b"old").await;
    let replaced = write(&*disk, &new, b"new").await;
    disk.rename(&old, &new).await.unwrap();
    assert_eq!(contents(&*disk, &new).await, b"old");
    assert_eq!(read(&*replaced, 10, 0).await, b"new", "an open file outlives its name");
    assert_eq!(disk.rename(&old, &new).await.unwrap_err().kind(), ErrorKind::NotFound);
    let (from, to) = (dir.join("dir"), dir.join("moved"));
    disk.create_dir(&from).await.unwrap();
    write(&*disk, &from.join("file"), b"inside").await;
    disk.rename(&from, &to).await.unwrap();
    assert_eq!(contents(&*disk, &to.join("file")).await, b"inside");
    assert_eq!(disk.list(&from).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.rename(&new, &to).await.unwrap_err().kind(), ErrorKind::IsADirectory);
    assert_eq!(disk.rename(&to, &new).await.unwrap_err().kind(), ErrorKind::NotADirectory);
    assert_eq!(disk.rename(&to, &to.join("below")).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    disk.create_dir(&from).await.unwrap();
    assert_eq!(disk.rename(&from, &to).await.unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    disk.rename(&to, &from).await.unwrap();
    assert_eq!(contents(&*disk, &from.join("file")).await, b"inside", "an empty directory is replaced");
}

async fn removed_files_live_while_open((disk, dir): Place) {
    let path = dir.join("file");
    let file = write(&*disk, &path, b"one").await;
    disk.remove_file(&path).await.unwrap();
    assert_eq!(disk.open(&path, OpenOptions::READ).await.err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(disk.remove_file(&path).await.unwrap_err().kind(), ErrorKind::NotFound);
    file.write_at(Payload::Bytes(b"two".to_vec()), 3).await.unwrap();
    file.sync_data().await.unwrap();
    assert_eq!(read(&*file, 10, 0).await, b"onetwo");
    write(&*disk, &path, b"another").await;
    assert_eq!(read(&*file, 10, 0).await, b"onetwo");
    assert_eq!(contents(&*disk, &path).await, b"another");
}

async fn directories_are_listed_in_order((disk, dir): Place) {
    assert!(disk.list(&dir).await.unwrap().is_empty());
    for (name, len) in [("b", 2), ("a", 10_000), ("c", 0)] {
        write(&*disk, &dir.join(name), &pattern(1, len)).await;
    }
    disk.create_dir(&dir.join("aa")).await.unwrap();
    write(&*disk, &dir.join("aa/inside"), b"x").await;
    let listed = disk.list(&dir).await.unwrap();
    assert!(listed.iter().all(|e| e.is_dir || e.modified.0 > 0), "files say when they were written");
    let seen: Vec<_> = listed.iter().map(|e| (e.name.as_str(), e.is_dir, e.len_bytes)).collect();
    assert_eq!(seen, [("a", false, 10_000), ("aa", true, 0), ("b", false, 2), ("c", false, 0)]);
    assert_eq!(disk.list(&dir.join("none")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.list(&dir.join("a")).await.unwrap_err().kind(), ErrorKind::NotADirectory);
}

async fn directories_are_created_and_removed((disk, dir): Place) {
    let inner = dir.join("inner");
    assert_eq!(disk.create_dir(&inner.join("deep")).await.unwrap_err().kind(), ErrorKind::NotFound);
    disk.create_dir(&inner).await.unwrap();
    assert_eq!(disk.create_dir(&inner).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let file = inner.join("file");
    write(&*disk, &file, b"x").await;
    assert_eq!(disk.create_dir(&file).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.remove_dir(&inner).await.unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    assert_eq!(disk.remove_dir(&file).await.unwrap_err().kind(), ErrorKind::NotADirectory);
    assert_eq!(disk.remove_file(&inner).await.unwrap_err().kind(), ErrorKind::IsADirectory);
    disk.remove_file(&file).await.unwrap();
    disk.remove_dir(&inner).await.unwrap();
    assert_eq!(disk.remove_dir(&inner).await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn directories_are_synced((disk, dir): Place) {
    write(&*disk, &dir.join("file"), b"x").await;
    disk.sync_dir(&dir).await.unwrap();
    assert_eq!(disk.sync_dir(&dir.join("none")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.sync_dir(&dir.join("file")).await.unwrap_err().kind(), ErrorKind::NotADirectory);
}

async fn a_set_is_synced_in_order((disk, dir): Place) {
    assert!(disk.sync_set(Vec::new()).await.is_empty());
    let mut files: Vec<Rc<dyn File>> = Vec::new();
    for n in 0..150u64 {
        files.push(write(&*disk, &dir.join(n.to_string()), &pattern(n, 100)).await);
    }
    let results = disk.sync_set(files).await;
    assert_eq!(results.len(), 150);
    assert!(results.iter().all(Result::is_ok));
}

async fn more_operations_than_any_queue_holds((disk, dir): Place) {
    let file = disk.open(&dir.join("file"), OpenOptions::DIRECT).await.unwrap();
    let blocks: Vec<Vec<u8>> = (0..600).map(|n| pattern(n, BLOCK_BYTES)).collect();
    let mut writes: Vec<Pin<Box<dyn Future<Output = std::io::Result<()>>>>> = Vec::new();
    let mut tellers = Vec::new();
    for (n, block) in blocks.iter().enumerate() {
        let position = (n * BLOCK_BYTES) as u64;
        // All kinds of operations at once: single ones, and pairs that must not be torn apart.
        if n % 3 == 0 {
            writes.push(file.write_at(slices(block), position));
        } else {
            let (told, written) = oneshot::channel();
            tellers.push(written);
            writes.push(file.write_and_sync(slices(block), position, told));
        }
    }
    assert!(all(writes).await.iter().all(Result::is_ok));
    for mut written in tellers {
        written.try_recv().unwrap();
    }
    assert_eq!(contents(&*disk, &dir.join("file")).await, blocks.concat());
}

async fn abandoned_operations_harm_nobody((disk, dir): Place) {
    let path = dir.join("file");
    let file = write(&*disk, &path, &pattern(1, 1 << 20)).await;
    for round in 0..50u64 {
        start_and_abandon(file.read_at(Buffer::standalone(1 << 20).unwrap(), 1 << 20, 0)).await;
        start_and_abandon(file.write_at(buffer(&pattern(round, 100_000)), round)).await;
        let (told, _written) = oneshot::channel();
        start_and_abandon(file.write_and_sync(slices(&pattern(round, 100_000)), round, told)).await;
        start_and_abandon(disk.open(&dir.join("other"), OpenOptions::WRITE)).await;
        start_and_abandon(disk.sync_dir(&dir)).await;
        start_and_abandon(disk.sync_set(vec![file.clone()])).await;
    }
    drop(file);
    let reopened = write(&*disk, &path, b"still works").await;
    assert_eq!(read(&*reopened, 11, 0).await.len(), 11);
}

async fn a_reader_cannot_write((disk, dir): Place) {
    let path = dir.join("file");
    write(&*disk, &path, b"x").await;
    let reader = disk.open(&path, OpenOptions::READ).await.unwrap();
    assert!(reader.write_at(Payload::Bytes(b"y".to_vec()), 0).await.is_err());
    let (told, mut written) = oneshot::channel();
    assert!(reader.write_and_sync(Payload::Bytes(b"y".to_vec()), 0, told).await.is_err());
    assert!(written.try_recv().is_err());
    assert!(reader.set_len(0).await.is_err());
    assert!(reader.allocate(0, 1 << 20).await.is_err());
    assert_eq!(contents(&*disk, &path).await, b"x");
}

async fn space_is_told((disk, dir): Place) {
    let space = disk.space(&dir).await.unwrap();
    assert!(space.available_bytes > 0 && space.available_bytes <= space.total_bytes);
    assert_eq!(disk.space(&dir.join("none")).await.unwrap_err().kind(), ErrorKind::NotFound);
}
