//! The loops without the engine: the raw limit, and a write and a sync per partition. For [`super`].

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

/// A direct write of a round's bytes into a file that is written again and again, and, where `twice`, once more into a second
/// file by large writes.
pub(super) async fn raw(directory: &Path, case: &Case, plan: &Plan, twice: bool) -> io::Result<Option<Figures>> {
    let disk = RingDisk::new();
    let round_bytes = case.round_bytes() as usize;
    let len = round_bytes.next_multiple_of(BLOCK_BYTES);
    let pool = Pool::new(len.next_multiple_of(2 << 20) * 2 + 32 * SEGMENT_WRITE_BYTES);
    let journal = disk.open(&directory.join("journal"), OpenOptions::DIRECT).await?;
    let segment = disk.open(&directory.join("segment"), OpenOptions::DIRECT).await?;
    let journal_bytes = plan.journal_bytes.max(len as u64);
    let mut at = 0;
    while at < journal_bytes && !stop::requested() {
        write(&journal, block(&pool, SEGMENT_WRITE_BYTES)?, SEGMENT_WRITE_BYTES, at, false).await?;
        at += SEGMENT_WRITE_BYTES as u64;
    }
    journal.sync_data().await?;
    let (mut at, mut in_segment, mut owed) = (0, 0, 0);
    let mut writing: Vec<JoinHandle<io::Result<()>>> = Vec::new();
    let mut meter = Meter::start();
    while goes_on(&meter, plan) {
        if at + len as u64 > journal_bytes {
            at = 0;
        }
        write(&journal, block(&pool, len)?, len, at, case.is_synced(meter.rounds)).await?;
        at += len as u64;
        owed += if twice { round_bytes } else { 0 };
        while owed >= SEGMENT_WRITE_BYTES {
            let (segment, buffer, position) = (segment.clone(), block(&pool, SEGMENT_WRITE_BYTES)?, in_segment);
            writing.push(tokio::task::spawn_local(
                async move { write(&segment, buffer, SEGMENT_WRITE_BYTES, position, false).await },
            ));
            in_segment += SEGMENT_WRITE_BYTES as u64;
            owed -= SEGMENT_WRITE_BYTES;
            if writing.len() >= SEGMENT_WRITES {
                done(writing.remove(0)).await?;
            }
        }
        meter.round(round_bytes as u64);
    }
    for write in writing {
        done(write).await?;
    }
    Ok(meter.figures())
}

/// A file per partition; each gets its batch by a write of its own, and its own sync, all in flight at once.
pub(super) async fn each(directory: &Path, case: &Case, plan: &Plan, is_direct: bool) -> io::Result<Option<Figures>> {
    let disk = RingDisk::new();
    let batch_bytes = case.batch_bytes as usize;
    let len = if is_direct { batch_bytes.next_multiple_of(BLOCK_BYTES) } else { batch_bytes };
    let mut files = Vec::with_capacity(case.partitions as usize);
    let options = if is_direct { OpenOptions::DIRECT } else { OpenOptions::WRITE };
    for index in 0..case.partitions {
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

fn goes_on(meter: &Meter, plan: &Plan) -> bool {
    meter.elapsed() < plan.times.measure && meter.bytes < WAY_BYTES_MAX && !stop::requested()
}

fn block(pool: &Pool, len: usize) -> io::Result<Buffer> {
    pool.buffer(len).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

async fn write(file: &Rc<dyn File>, buffer: Buffer, len: usize, position: u64, synced: bool) -> io::Result<()> {
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
