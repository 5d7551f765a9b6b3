//! A measurement, not a test: durable direct overwrites as a linked write and fdatasync, against one write with RWF_DSYNC.
//! `cargo test -p ringlog-engine --release --test disk_dsync -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "a measurement that fails should say where")]
#![allow(unsafe_code, reason = "it drives a bare ring")]

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};
use ringlog_engine::memory::Buffer;

const FILE_BYTES: u64 = 128 << 20;

/// How a write is made durable.
#[derive(Clone, Copy)]
enum Way {
    LinkedPair,
    DsyncFlag,
}

struct Bench {
    ring: IoUring,
    file: std::fs::File,
    buffer: Buffer,
    position: u64,
}

impl Bench {
    /// Durably overwrites `len` bytes, the next ones of the file; so many writes in flight.
    fn round(&mut self, way: Way, len: usize, in_flight: usize) -> Duration {
        let fd = Fd(self.file.as_raw_fd());
        let start = Instant::now();
        let mut completions = 0;
        for _ in 0..in_flight {
            if self.position + len as u64 > FILE_BYTES {
                self.position = 0;
            }
            let write = opcode::Write::new(fd, self.buffer.as_ptr(), len as u32).offset(self.position);
            let entries = match way {
                Way::LinkedPair => {
                    vec![write.build().flags(squeue::Flags::IO_LINK), opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build()]
                }
                Way::DsyncFlag => vec![write.rw_flags(libc::RWF_DSYNC).build()],
            };
            completions += entries.len();
            // SAFETY: the buffer and the file outlive the operations, which are awaited below.
            unsafe { self.ring.submission().push_multiple(&entries) }.unwrap();
            self.position += len as u64;
        }
        self.ring.submit_and_wait(completions).unwrap();
        let took = start.elapsed();
        for entry in self.ring.completion() {
            assert!(entry.result() >= 0, "{}", std::io::Error::from_raw_os_error(-entry.result()));
        }
        took
    }
}

/// Of the whole process, the kernel's workers included.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
#[ignore = "a measurement"]
fn dsync_against_a_linked_pair() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("file");
    let mut file = std::fs::File::create(&path).unwrap();
    for _ in 0..FILE_BYTES >> 20 {
        file.write_all(&[7; 1 << 20]).unwrap();
    }
    file.sync_all().unwrap();
    let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let ring = IoUring::builder().setup_coop_taskrun().setup_single_issuer().build(256).unwrap();
    let mut bench = Bench { ring, file, buffer: Buffer::standalone(1 << 20).unwrap(), position: 0 };
    for in_flight in [1, 4] {
        for (len, rounds) in [(4 << 10, 600), (64 << 10, 400), (1 << 20, 150)] {
            let mut took = [Vec::new(), Vec::new()];
            let mut cpu = [Duration::ZERO; 2];
            // Side by side, a few rounds of each in turn.
            for round in 0..rounds * 2 {
                let way = round / 10 % 2;
                let before = cpu_time();
                let time = bench.round([Way::LinkedPair, Way::DsyncFlag][way], len, in_flight);
                cpu[way] += cpu_time() - before;
                took[way].push(time);
            }
            let [(pair, pair_99), (flag, flag_99)] = took.map(|mut times| {
                times.sort_unstable();
                (times[times.len() / 2], times[times.len() * 99 / 100])
            });
            println!(
                "{:4} KiB x {in_flight}: pair {pair:7.1?} (p99 {pair_99:7.1?}), RWF_DSYNC {flag:7.1?} (p99 {flag_99:7.1?}): {:.2}; cpu {:.2}",
                len >> 10,
                flag.as_secs_f64() / pair.as_secs_f64(),
                cpu[1].as_secs_f64() / cpu[0].as_secs_f64(),
            );
        }
    }
}
