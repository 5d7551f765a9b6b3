//! A disk's cells, measured: reads and writes through io_uring, by the path that the engine's own take. For [`super`].

use std::cell::{Cell as Slot, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringlog_engine::disk::{File, Payload};
use ringlog_engine::memory::Pool;
use tokio::task::JoinHandle;

use super::cells::{Cell, SEQUENTIAL_BYTES, Sample};
use super::file::TestFile;
use crate::results::{Direction, Pattern, Way};
use crate::stop;

/// Writes in flight while the file is filled.
const FILL_DEPTH: u32 = 8;
/// The pool keeps regions of 2 MiB for each size of block.
const POOL_SPARE_BYTES: usize = 8 << 20;

/// Writes the file once, so that its blocks exist, and syncs it. What is written cannot be compressed. `progress` is told of
/// bytes. Ends early, without an error, when asked to stop.
pub(super) async fn fill(file: &TestFile, size_bytes: u64, mut progress: impl FnMut(u64)) -> io::Result<()> {
    let pool = noisy_pool(FILL_DEPTH, SEQUENTIAL_BYTES as usize)?;
    let step = SEQUENTIAL_BYTES * 64;
    let mut at = 0;
    while at < size_bytes && !stop::requested() {
        let len = step.min(size_bytes - at);
        let end = (at + len) / SEQUENTIAL_BYTES;
        let work = Work {
            file: file.direct.clone(),
            pool: pool.clone(),
            positions: Positions { order: Order::InTurn, accesses: end, access_bytes: SEQUENTIAL_BYTES, again: false },
            direction: Direction::Write,
            deadline: None,
            next: Slot::new(at / SEQUENTIAL_BYTES),
            limit: Slot::new(end),
            done: Slot::new(0),
            failure: RefCell::new(None),
        };
        Rc::new(work).run(FILL_DEPTH).await?;
        progress(len);
        at += len;
    }
    file.direct.sync_data().await
}

/// Measures a cell for about `time`: at least one access, and at most once the whole file where that would bring the page cache in.
pub(super) async fn measure(file: &TestFile, cell: &Cell, size_bytes: u64, time: Duration) -> io::Result<Sample> {
    let depth = cell.depth.unwrap_or(1);
    let access_bytes = cell.access_bytes();
    let accesses = size_bytes / access_bytes;
    let order = match cell.pattern {
        Pattern::Sequential => Order::InTurn,
        Pattern::Random => Order::Shuffled(shuffled(accesses)),
    };
    let handle = match (cell.way, cell.direction) {
        (Way::Direct, _) => &file.direct,
        (_, Direction::Read) => &file.reader,
        (_, Direction::Write) => &file.cached,
    };
    let pool = noisy_pool(depth, access_bytes as usize)?;
    let start = Instant::now();
    let work = Rc::new(Work {
        file: handle.clone(),
        pool,
        positions: Positions { order, accesses, access_bytes, again: cell.way == Way::Direct },
        direction: cell.direction,
        deadline: Some(start + time),
        next: Slot::new(0),
        limit: Slot::new(u64::MAX),
        done: Slot::new(0),
        failure: RefCell::new(None),
    });
    if cell.direction == Direction::Read {
        work.clone().run(depth).await?;
        return Ok(Sample { accesses: work.done.get(), elapsed: start.elapsed() });
    }
    // Between two syncs nothing is in flight: what the sync covers is then known.
    while !work.is_over() {
        work.limit.set(work.next.get() + cell.sync_accesses());
        work.clone().run(depth).await?;
        handle.sync_data().await?;
    }
    Ok(Sample { accesses: work.done.get(), elapsed: start.elapsed() })
}

/// Memory for so many accesses, filled with what no device can compress or leave out. Blocks that are given back are handed out
/// first, so it is these that are written again and again.
fn noisy_pool(depth: u32, bytes: usize) -> io::Result<Pool> {
    let pool = Pool::new(depth as usize * bytes.max(16 << 10) + POOL_SPARE_BYTES);
    let mut noise = Noise(0x5EED);
    let mut out = Vec::new();
    for _ in 0..depth {
        let mut buffer = pool.buffer(bytes).ok_or(io::ErrorKind::OutOfMemory)?;
        for word in buffer.as_chunks_mut::<8>().0 {
            *word = noise.next().to_ne_bytes();
        }
        out.push(buffer);
    }
    Ok(pool)
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Every block once, in an order without order: none is found in the page cache because it was asked for before.
fn shuffled(count: u64) -> Vec<u32> {
    let mut blocks: Vec<u32> = (0..count).map_while(|block| u32::try_from(block).ok()).collect();
    let mut noise = Noise(0xB10C);
    for at in (1..blocks.len()).rev() {
        let other = noise.next() % (at as u64 + 1);
        blocks.swap(at, other as usize);
    }
    blocks
}

enum Order {
    InTurn,
    Shuffled(Vec<u32>),
}

struct Positions {
    order: Order,
    accesses: u64,
    access_bytes: u64,
    /// Whether it begins anew after the last.
    again: bool,
}

impl Positions {
    fn get(&self, index: u64) -> Option<u64> {
        if index >= self.accesses && !self.again {
            return None;
        }
        let index = index % self.accesses.max(1);
        let block = match &self.order {
            Order::InTurn => index,
            Order::Shuffled(blocks) => u64::from(*blocks.get(index as usize)?),
        };
        Some(block * self.access_bytes)
    }
}

/// What the accesses in flight share.
struct Work {
    file: Rc<dyn File>,
    pool: Pool,
    positions: Positions,
    direction: Direction,
    deadline: Option<Instant>,
    /// The next access.
    next: Slot<u64>,
    /// The access before which they pause.
    limit: Slot<u64>,
    done: Slot<u64>,
    failure: RefCell<Option<io::Error>>,
}

impl Work {
    fn is_over(&self) -> bool {
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline) && self.done.get() > 0;
        late || stop::requested() || self.failure.borrow().is_some() || self.positions.get(self.next.get()).is_none()
    }

    /// Keeps so many accesses in flight until the time is over, the limit or the file's end is reached, or one fails.
    async fn run(self: Rc<Self>, depth: u32) -> io::Result<()> {
        if depth == 1 {
            self.clone().work().await;
        } else {
            let workers: Vec<JoinHandle<()>> = (0..depth).map(|_| tokio::task::spawn_local(self.clone().work())).collect();
            for worker in workers {
                worker.await.map_err(io::Error::other)?;
            }
        }
        self.failure.borrow_mut().take().map_or(Ok(()), Err)
    }

    async fn work(self: Rc<Self>) {
        while !self.is_over() && self.next.get() < self.limit.get() {
            let index = self.next.get();
            let Some(position) = self.positions.get(index) else { return };
            self.next.set(index + 1);
            match self.access(position).await {
                Ok(()) => self.done.set(self.done.get() + 1),
                Err(error) => {
                    self.failure.borrow_mut().get_or_insert(error);
                    return;
                }
            }
        }
    }

    async fn access(&self, position: u64) -> io::Result<()> {
        let len = self.positions.access_bytes as usize;
        let buffer = self.pool.buffer(len).ok_or(io::ErrorKind::OutOfMemory)?;
        match self.direction {
            Direction::Read => {
                let (_, read) = self.file.read_at(buffer, len, position).await?;
                if read < len {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("the test file ends at {}", position + read as u64),
                    ));
                }
                Ok(())
            }
            Direction::Write => self.file.write_at(Payload::Buffer { buffer, len }, position).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Medium;
    use ringlog_engine::disk::ring::Runtime;

    const SIZE_BYTES: u64 = 4 << 20;

    fn measured(cell: Cell, time: Duration) -> Sample {
        let folder = super::super::tests::directory();
        let runtime = Runtime::with_defaults().unwrap();
        runtime.block_on(async {
            let file = TestFile::create(folder.path()).await.unwrap();
            fill(&file, SIZE_BYTES, |_| {}).await.unwrap();
            file.drop_cached(SIZE_BYTES).await.unwrap();
            measure(&file, &cell, SIZE_BYTES, time).await.unwrap()
        })
    }

    #[test]
    fn every_cell_of_the_disk_can_be_measured() {
        for cell in super::super::cells::all(4).into_iter().filter(|cell| cell.medium == Medium::Disk) {
            let sample = measured(cell, Duration::from_millis(5));
            assert!(sample.accesses > 0 && sample.elapsed > Duration::ZERO, "{cell:?}: {sample:?}");
        }
    }

    #[test]
    fn the_page_cache_sees_each_block_once() {
        for direction in [Direction::Read, Direction::Write] {
            let cell = Cell { medium: Medium::Disk, pattern: Pattern::Random, direction, way: Way::PageCache, depth: Some(4) };
            let sample = measured(cell, Duration::from_secs(60));
            assert_eq!(sample.accesses, SIZE_BYTES / 4096, "{direction:?}");
        }
    }

    #[test]
    fn a_failure_ends_the_cell() {
        let folder = super::super::tests::directory();
        let runtime = Runtime::with_defaults().unwrap();
        let error = runtime.block_on(async {
            let file = TestFile::create(folder.path()).await.unwrap();
            fill(&file, SIZE_BYTES, |_| {}).await.unwrap();
            let cell = Cell {
                medium: Medium::Disk,
                pattern: Pattern::Sequential,
                direction: Direction::Read,
                way: Way::PageCache,
                depth: Some(4),
            };
            // The file is shorter than is said.
            measure(&file, &cell, 2 * SIZE_BYTES, Duration::from_secs(60)).await.unwrap_err()
        });
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_order_is_a_permutation() {
        let mut blocks = shuffled(1000);
        assert_ne!(blocks[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        blocks.sort_unstable();
        assert!(blocks.iter().copied().eq(0..1000));
        assert!(shuffled(0).is_empty());
    }

    #[test]
    fn what_is_written_is_noise() {
        let pool = noisy_pool(3, 4096).unwrap();
        for _ in 0..10 {
            let blocks: Vec<_> = (0..3).map(|_| pool.buffer(4096).unwrap()).collect();
            for block in &blocks {
                let ones: u32 = block[..4096].iter().map(|byte| byte.count_ones()).sum();
                assert!((14_000..19_000).contains(&ones), "{ones} of 32768 bits");
            }
        }
    }
}
