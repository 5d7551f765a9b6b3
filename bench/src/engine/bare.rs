//! The loops without the engine: the raw limit, and a write and a sync per partition. For [`super`].

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::Rc;

use ringlog_engine::disk::ring::RingDisk;
use ringlog_engine::disk::{BLOCK_BYTES, Disk, File, OpenOptions, Payload};
use ringlog_engine::memory::{Buffer, Pool};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::meter::{Figures, Meter};
use super::{Case, Plan, WAY_BYTES_MAX};
use crate::stop;

/// What segments are written in, and how many of these are in flight.
const SEGMENT_WRITE_BYTES: usize = 1 << 20;
const SEGMENT_WRITES: usize = 4;
/// How much is copied before its CRC is taken, as in the engine.
const COPY_STEP_BYTES: usize = 3 << 10;

/// What a bare loop does with a round's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// It writes them.
    Once,
    /// It writes them, and once more into a second file, by large writes.
    Twice,
    /// The same, from memory that each batch was copied to first, with its CRC, and copied on to the round, with another.
    Copied,
}

/// A direct write of a round's bytes into a file that is written again and again, and whatever else `work` says.
pub(super) async fn raw(directory: &Path, case: &Case, plan: &Plan, work: Work) -> io::Result<Option<Figures>> {
    let disk = RingDisk::new();
    let round_bytes = case.round_bytes() as usize;
    let len = round_bytes.next_multiple_of(BLOCK_BYTES);
    let pool = Pool::new(len.next_multiple_of(2 << 20) * 4 + 32 * SEGMENT_WRITE_BYTES);
    let journal = disk.open(&directory.join("journal"), OpenOptions::DIRECT).await?;
    let segment = disk.open(&directory.join("segment"), OpenOptions::DIRECT).await?;
    let journal_bytes = plan.journal_bytes.max(len as u64);
    let mut at = 0;
    while at < journal_bytes && !stop::requested() {
        write(&journal, block(&pool, SEGMENT_WRITE_BYTES)?, SEGMENT_WRITE_BYTES, at, false).await?;
        at += SEGMENT_WRITE_BYTES as u64;
    }
    journal.sync_data().await?;
    let batch = vec![7; case.batch_bytes as usize];
    let mut tail = Tail { buffer: block(&pool, SEGMENT_WRITE_BYTES)?, filled: 0 };
    let (mut at, mut in_segment) = (0, 0);
    let mut writing: VecDeque<JoinHandle<io::Result<()>>> = VecDeque::new();
    let mut meter = Meter::start();
    while goes_on(&meter, plan) {
        if at + len as u64 > journal_bytes {
            at = 0;
        }
        let mut round = block(&pool, len)?;
        let mut full = Vec::new();
        if work == Work::Copied {
            let (mut filled, mut crc) = (0, 0);
            for _ in 0..case.partitions {
                full.extend(tail.push(&pool, &batch, &mut |copied| {
                    round[filled..filled + copied.len()].copy_from_slice(copied);
                    crc = crc32c::crc32c_append(crc, copied);
                    filled += copied.len();
                })?);
            }
            round[len - 4..len].copy_from_slice(&crc.to_le_bytes());
        }
        write(&journal, round, len, at, case.is_synced(meter.rounds)).await?;
        at += len as u64;
        if work == Work::Twice {
            full.extend(tail.skip(&pool, round_bytes)?);
        }
        for buffer in full {
            let (segment, position) = (segment.clone(), in_segment);
            writing.push_back(tokio::task::spawn_local(async move {
                write(&segment, buffer, SEGMENT_WRITE_BYTES, position, false).await
            }));
            in_segment += SEGMENT_WRITE_BYTES as u64;
            if writing.len() >= SEGMENT_WRITES
                && let Some(oldest) = writing.pop_front()
            {
                done(oldest).await?;
            }
        }
        meter.round(round_bytes as u64);
    }
    for write in writing {
        done(write).await?;
    }
    Ok(meter.figures())
}

/// What was written to the first file and not yet to the second.
struct Tail {
    buffer: Buffer,
    filled: usize,
}

impl Tail {
    /// Copies a batch in, its CRC with it, and calls `copied` with each piece where it stands now. Returns what became full.
    fn push(&mut self, pool: &Pool, batch: &[u8], copied: &mut dyn FnMut(&[u8])) -> io::Result<Vec<Buffer>> {
        let mut full = Vec::new();
        let mut crc = 0;
        for step in batch.chunks(COPY_STEP_BYTES) {
            crc = crc32c::crc32c_append(crc, step);
            let mut rest = step;
            while !rest.is_empty() {
                let len = rest.len().min(SEGMENT_WRITE_BYTES - self.filled);
                let target = &mut self.buffer[self.filled..self.filled + len];
                target.copy_from_slice(&rest[..len]);
                copied(target);
                self.filled += len;
                rest = &rest[len..];
                full.extend(self.take_full(pool)?);
            }
        }
        std::hint::black_box(crc);
        Ok(full)
    }

    /// The same without doing anything.
    fn skip(&mut self, pool: &Pool, mut bytes: usize) -> io::Result<Vec<Buffer>> {
        let mut full = Vec::new();
        while bytes > 0 {
            let len = bytes.min(SEGMENT_WRITE_BYTES - self.filled);
            self.filled += len;
            bytes -= len;
            full.extend(self.take_full(pool)?);
        }
        Ok(full)
    }

    fn take_full(&mut self, pool: &Pool) -> io::Result<Option<Buffer>> {
        if self.filled < SEGMENT_WRITE_BYTES {
            return Ok(None);
        }
        self.filled = 0;
        Ok(Some(std::mem::replace(&mut self.buffer, block(pool, SEGMENT_WRITE_BYTES)?)))
    }
}

/// A file per partition; each gets its batch by a write of its own, and its own sync, all in flight at once.
pub(super) async fn each(directory: &Path, case: &Case, plan: &Plan, is_direct: bool) -> io::Result<Option<Figures>> {
    let disk = RingDisk::new();
    let batch_bytes = case.batch_bytes as usize;
    let len = if is_direct { batch_bytes.next_multiple_of(BLOCK_BYTES) } else { batch_bytes };
    let mut files = Vec::with_capacity(case.partitions as usize);
    let options = if is_direct { OpenOptions::DIRECT } else { OpenOptions::WRITE };
    for index in 0..case.partitions {
        if stop::requested() {
            return Ok(None);
        }
        files.push(disk.open(&directory.join(format!("partition-{index}")), options).await?);
    }
    let pool = Pool::new(room(len) * case.partitions as usize + (8 << 20));
    let mut writing: Vec<JoinHandle<io::Result<()>>> = Vec::with_capacity(files.len());
    let mut meter = Meter::start();
    while goes_on(&meter, plan) {
        let (position, synced) = (meter.rounds * len as u64, case.is_synced(meter.rounds));
        for file in &files {
            let (file, buffer) = (file.clone(), block(&pool, len)?);
            writing.push(tokio::task::spawn_local(async move { write(&file, buffer, len, position, synced).await }));
        }
        for write in writing.drain(..) {
            // A round of many syncs takes seconds; one that was cut short is not counted.
            if stop::requested() {
                return Ok(None);
            }
            done(write).await?;
        }
        meter.round(case.round_bytes());
    }
    Ok(meter.figures())
}

/// What a block of so many bytes takes of a pool (engine/src/memory).
fn room(len: usize) -> usize {
    [16 << 10, 64 << 10, 256 << 10, 1 << 20].into_iter().find(|class| len <= *class).unwrap_or(len.next_multiple_of(2 << 20))
}

/// There is a first round however late it begins.
fn goes_on(meter: &Meter, plan: &Plan) -> bool {
    (meter.rounds == 0 || meter.elapsed() < plan.times.measure) && meter.bytes < WAY_BYTES_MAX && !stop::requested()
}

pub(crate) fn block(pool: &Pool, len: usize) -> io::Result<Buffer> {
    pool.buffer(len).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

pub(crate) async fn write(file: &Rc<dyn File>, buffer: Buffer, len: usize, position: u64, synced: bool) -> io::Result<()> {
    let payload = Payload::Buffer { buffer, len };
    if synced {
        let (written, _) = oneshot::channel();
        file.write_and_sync(payload, position, written).await
    } else {
        file.write_at(payload, position).await
    }
}

async fn done(write: JoinHandle<io::Result<()>>) -> io::Result<()> {
    write.await.map_err(io::Error::other)?
}
