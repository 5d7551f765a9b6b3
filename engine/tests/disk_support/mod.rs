//! What the disk's tests share: bytes, buffers, waiting for many.
#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use ringlog_engine::disk::{BLOCK_BYTES, Disk, File, OpenOptions, Payload};
use ringlog_engine::memory::{Buffer, ChunkWriter, Pool, Slice};

/// Bytes that tell their own place.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (seed.wrapping_mul(31).wrapping_add((at / 7) as u64) ^ at as u64) as u8).collect()
}

thread_local! {
    /// Fresh memory is expensive: a simulation would spend most of its time on it.
    static POOL: Pool = Pool::new(256 << 20);
}

/// Aligned memory, of the pool where it has some.
pub(crate) fn memory(len: usize) -> Buffer {
    POOL.with(|pool| pool.buffer_or_more(len)).unwrap()
}

/// Aligned memory with these bytes.
pub(crate) fn buffer(bytes: &[u8]) -> Payload {
    let mut buffer = memory(bytes.len());
    buffer[..bytes.len()].copy_from_slice(bytes);
    Payload::Buffer { buffer, len: bytes.len() }
}

/// The same, cut into slices of a block each.
pub(crate) fn slices(bytes: &[u8]) -> Payload {
    let mut writer = POOL.with(|pool| ChunkWriter::new(pool, bytes.len())).unwrap();
    assert_eq!(writer.fill(bytes), bytes.len());
    writer.publish(bytes.len());
    let cut = |at| Slice::new(writer.chunk(), at, (at + BLOCK_BYTES).min(bytes.len()));
    Payload::Slices((0..bytes.len()).step_by(BLOCK_BYTES).map(cut).collect())
}

/// All of a file, through a handle of its own.
pub(crate) async fn contents(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenOptions::READ).await.unwrap();
    let len = file.len_bytes().await.unwrap() as usize;
    read(&*file, len, 0).await
}

/// Some of a file; as much as there is.
pub(crate) async fn read(file: &dyn File, len: usize, position: u64) -> Vec<u8> {
    let (buffer, read) = file.read_at(memory(len), len, position).await.unwrap();
    buffer[..read].to_vec()
}

/// A new file with these bytes.
pub(crate) async fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Rc<dyn File> {
    let file = disk.open(path, OpenOptions::WRITE).await.unwrap();
    file.write_at(Payload::Bytes(bytes.to_vec()), 0).await.unwrap();
    file
}

/// Runs all at once, and gives the results in order.
pub(crate) async fn all<T>(futures: Vec<Pin<Box<dyn Future<Output = T>>>>) -> Vec<T> {
    let mut running: Vec<_> = futures.into_iter().map(Some).collect();
    let mut results: Vec<Option<T>> = running.iter().map(|_| None).collect();
    poll_fn(move |context| {
        for (future, result) in running.iter_mut().zip(&mut results) {
            if let Some(pending) = future
                && let Poll::Ready(value) = pending.as_mut().poll(context)
            {
                (*future, *result) = (None, Some(value));
            }
        }
        if running.iter().any(Option::is_some) {
            return Poll::Pending;
        }
        Poll::Ready(results.iter_mut().filter_map(Option::take).collect())
    })
    .await
}

/// Polls a future once and drops it, finished or not.
pub(crate) async fn start_and_abandon<T>(mut future: Pin<Box<dyn Future<Output = T>>>) {
    poll_fn(|context| {
        let _ = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}
