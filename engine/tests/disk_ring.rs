//! What is the ring's alone: its runtime's beginning and end, descriptors, and a core that never rests.

#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

mod disk_support;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use disk_support::{buffer, contents, pattern, read, slices, start_and_abandon, write};
use ringlog_engine::disk::ring::{RingDisk, Runtime, probe};
use ringlog_engine::disk::{BLOCK_BYTES, Disk, OpenOptions, Payload};
use ringlog_engine::memory::Pool;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

fn place() -> (RingDisk, tempfile::TempDir) {
    (RingDisk::new(), tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
}

/// How many descriptors of this process lead below a directory.
fn descriptors_below(dir: &Path) -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    entries.filter_map(|e| std::fs::read_link(e.ok()?.path()).ok()).filter(|target| target.starts_with(dir)).count()
}

#[test]
fn this_machine_has_a_ring() {
    probe().unwrap();
}

#[test]
fn a_thread_may_have_one_runtime_after_another() {
    let (disk, dir) = place();
    for round in 0..3 {
        let runtime = Runtime::with_defaults().unwrap();
        for _ in 0..2 {
            let path = dir.path().join("file");
            runtime.block_on(write(&disk, &path, &pattern(round, 100)));
            assert_eq!(runtime.block_on(contents(&disk, &path)), pattern(round, 100));
        }
    }
}

#[test]
#[should_panic(expected = "one ring per thread")]
fn two_runtimes_on_a_thread_are_a_mistake() {
    let _first = Runtime::with_defaults().unwrap();
    let _ = Runtime::with_defaults();
}

#[test]
fn memory_comes_back_when_a_runtime_ends_in_the_middle() {
    let (disk, dir) = place();
    for _ in 0..20 {
        let pool = Pool::new(64 << 20);
        let runtime = Runtime::new(64).unwrap();
        let (pool_inside, path) = (pool.clone(), dir.path().join("file"));
        runtime.block_on(async move {
            let file = write(&disk, &path, &pattern(1, 1 << 20)).await;
            for n in 0..30u64 {
                let buffer = pool_inside.buffer(1 << 20).unwrap();
                // Some abandoned under way, some with a task that lives as long as the runtime.
                let read = file.read_at(buffer, 1 << 20, 0);
                if n % 2 == 0 {
                    start_and_abandon(read).await;
                } else {
                    tokio::task::spawn_local(read);
                }
            }
            tokio::task::yield_now().await;
        });
        assert!(pool.out_bytes() > 0);
        drop(runtime);
        assert_eq!(pool.out_bytes(), 0, "all memory is back, and the kernel has let go of it");
    }
    assert_eq!(descriptors_below(dir.path()), 0);
}

#[test]
fn a_panic_ends_a_runtime_in_order() {
    let (disk, dir) = place();
    let path = dir.path().join("file");
    let ended = std::thread::spawn(move || {
        let runtime = Runtime::new(64).unwrap();
        runtime.block_on(async {
            let file = write(&disk, &path, &pattern(1, 1 << 20)).await;
            start_and_abandon(file.write_at(buffer(&pattern(2, 1 << 20)), 0)).await;
            panic!("on purpose");
        })
    })
    .join();
    assert_eq!(ended.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert_eq!(descriptors_below(dir.path()), 0);
}

#[test]
fn without_a_runtime_operations_fail() {
    let (disk, dir) = place();
    let path = dir.path().join("file");
    let runtime = Runtime::with_defaults().unwrap();
    let file = runtime.block_on(write(&disk, &path, b"x"));
    drop(runtime);
    let plain = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(plain.block_on(file.write_at(Payload::Bytes(vec![1]), 0)).is_err());
    assert!(plain.block_on(disk.remove_file(&path)).is_err());
    drop(file);
    assert_eq!(descriptors_below(dir.path()), 0, "a file is closed without a ring too");
}

#[test]
fn a_file_is_closed_after_its_last_operation() {
    let (disk, dir) = place();
    let path = dir.path().join("file");
    Runtime::with_defaults().unwrap().block_on(async {
        let file = write(&disk, &path, &pattern(1, 8 << 20)).await;
        assert!(file.descriptor().is_some());
        let reading = file.read_at(ringlog_engine::memory::Buffer::standalone(8 << 20).unwrap(), 8 << 20, 0);
        drop(file);
        let (bytes, read) = reading.await.unwrap();
        assert_eq!(bytes[..read], pattern(1, 8 << 20));
        let deadline = Instant::now() + Duration::from_secs(60);
        while descriptors_below(dir.path()) > 0 {
            assert!(Instant::now() < deadline, "a file stays open");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

/// Operations are handed to the kernel when the thread comes to rest. One that never does must not hold them back for ever.
#[test]
fn a_busy_core_still_writes() {
    let (disk, dir) = place();
    let path = dir.path().join("file");
    Runtime::with_defaults().unwrap().block_on(async {
        let stop = Rc::new(Cell::new(false));
        for _ in 0..3 {
            let stop = stop.clone();
            tokio::task::spawn_local(async move {
                while !stop.get() {
                    tokio::task::yield_now().await;
                }
            });
        }
        let writing = async {
            let file = disk.open(&path, OpenOptions::DIRECT).await.unwrap();
            for n in 0..100u64 {
                let (told, written) = oneshot::channel();
                file.write_and_sync(buffer(&pattern(n, BLOCK_BYTES)), n * BLOCK_BYTES as u64, told).await.unwrap();
                written.await.unwrap();
            }
            assert_eq!(read(&*file, BLOCK_BYTES, 0).await, pattern(0, BLOCK_BYTES));
        };
        tokio::time::timeout(Duration::from_secs(600), writing).await.unwrap();
        stop.set(true);
    });
}

/// The kernel cuts a write short at the file size limit of the process, and refuses what is left.
#[test]
fn a_write_that_is_cut_short_goes_on_until_it_fails() {
    const LIMIT_BYTES: u64 = 64 << 20;
    // Who has no handler for the signal is killed.
    let signals = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _handled = signals.block_on(async { signal(SignalKind::from_raw(libc::SIGXFSZ)) }).unwrap();
    let limit = rustix::process::Rlimit { current: Some(LIMIT_BYTES), maximum: None };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    let (disk, dir) = place();
    Runtime::with_defaults().unwrap().block_on(async {
        for options in [OpenOptions::WRITE, OpenOptions::DIRECT] {
            let path = dir.path().join(format!("file-{}", options.direct));
            let file = disk.open(&path, options).await.unwrap();
            let position = LIMIT_BYTES - 4 * BLOCK_BYTES as u64;
            let bytes = pattern(1, 8 * BLOCK_BYTES);
            let (told, mut written) = oneshot::channel();
            let failed = file.write_and_sync(slices(&bytes), position, told).await.unwrap_err();
            assert_eq!(failed.raw_os_error(), Some(libc::EFBIG));
            written.try_recv().unwrap_err();
            assert_eq!(read(&*file, 8 * BLOCK_BYTES, position).await, bytes[..4 * BLOCK_BYTES], "what fits is there");
            assert!(file.write_at(buffer(&bytes), position).await.is_err());
            let (told, mut written) = oneshot::channel();
            file.write_and_sync(buffer(&bytes[..4 * BLOCK_BYTES]), position, told).await.unwrap();
            written.try_recv().unwrap();
        }
    });
}
