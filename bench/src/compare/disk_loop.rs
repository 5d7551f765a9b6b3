//! What this machine's disk gives at the rate of an open loop without a broker: a direct write of each batch when its last record
//! is due, synced or not, one at a time, into blocks that have been written before. By the engine's own path to the disk. For
//! [`super::beside`].

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use ringlog_engine::disk::ring::{RingDisk, Runtime};
use ringlog_engine::disk::{BLOCK_BYTES, Disk, OpenOptions};
use ringlog_engine::memory::{Buffer, Pool};

use crate::engine::bare::{block, write};
use crate::error::Error;
use crate::load::measure::{histogram, record_us, summary};
use crate::results::Latency;
use crate::stop;

/// The file is written again and again.
const FILE_BYTES: usize = 64 << 20;
const ZEROS_BYTES: usize = 1 << 20;
/// How many times as long a disk may take that does not keep up.
const LATE_MAX: u32 = 3;

/// The load that a broker had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PacedLoad {
    /// Records per second.
    pub rate: u64,
    /// Records in a batch.
    pub batch_records: u64,
    /// Bytes in a record.
    pub record_bytes: u64,
}

/// Latency from when each record was due, and 10^6 bytes of records per second.
///
/// # Errors
/// Without io_uring, or what the disk says.
pub(super) fn run(path: &Path, load: PacedLoad, duration: Duration, sync: bool) -> Result<(Option<Latency>, f64), Error> {
    let runtime = Runtime::with_defaults().map_err(|error| Error::Failed(error.to_string()))?;
    runtime.block_on(writes(path, load, duration, sync)).map_err(Error::io(path))
}

async fn writes(path: &Path, load: PacedLoad, duration: Duration, sync: bool) -> io::Result<(Option<Latency>, f64)> {
    let len =
        (load.batch_records.saturating_mul(load.record_bytes).min(FILE_BYTES as u64) as usize).next_multiple_of(BLOCK_BYTES);
    let pool = Pool::new(4 * len.max(ZEROS_BYTES).next_multiple_of(2 << 20));
    let file = RingDisk::new().open(path, OpenOptions::DIRECT).await?;
    for at in (0..FILE_BYTES).step_by(ZEROS_BYTES) {
        write(&file, filled(&pool, ZEROS_BYTES)?, ZEROS_BYTES, at as u64, false).await?;
    }
    file.sync_data().await?;
    let mut latencies = histogram();
    let due = |record: u64| Duration::from_secs_f64(record as f64 / load.rate as f64);
    let start = Instant::now();
    let (mut record, mut at) = (0, 0);
    while due(record) < duration && start.elapsed() < LATE_MAX * duration && !stop::requested() {
        let last = record + load.batch_records - 1;
        // Nothing else is to be done meanwhile, and a timer of the runtime's would wake us a millisecond late.
        std::thread::sleep(due(last).saturating_sub(start.elapsed()));
        write(&file, filled(&pool, len)?, len, at as u64, sync).await?;
        let done = start.elapsed();
        for record in record..=last {
            record_us(&mut latencies, done.saturating_sub(due(record)).as_micros() as u64, 1);
        }
        record = last + 1;
        at = if at + 2 * len > FILE_BYTES { 0 } else { at + len };
    }
    let mb_per_s = (record * load.record_bytes) as f64 / 1e6 / start.elapsed().as_secs_f64();
    Ok((summary(&latencies), mb_per_s))
}

fn filled(pool: &Pool, len: usize) -> io::Result<Buffer> {
    let mut buffer = block(pool, len)?;
    buffer[..len].fill(7);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_counted_from_when_it_was_due() {
        let directory = tempfile::tempdir().unwrap();
        let load = PacedLoad { rate: 1000, batch_records: 100, record_bytes: 50 };
        let (latency, mb_per_s) = run(&directory.path().join("file"), load, Duration::from_millis(150), true).unwrap();
        let latency = latency.unwrap();
        // Two batches, unless the first took so long that there was no time for the second.
        let elapsed_s = latency.count as f64 * 50e-6 / mb_per_s;
        assert!(latency.count == 200 || latency.count == 100 && elapsed_s >= 0.15 * f64::from(LATE_MAX), "{}", latency.count);
        assert!(latency.max_us >= 99_000, "the first of a batch waits for the last: {} us", latency.max_us);
        assert!(mb_per_s > 0.0 && mb_per_s <= 0.0503, "{mb_per_s}");
    }
}
