//! Reading: the plan of a fetch from the tail, and the look-up in a segment's index.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use ringlog_engine::segment::index::{IndexEntry, floor_offset};
use ringlog_engine::types::Offset;

use crate::Appends;

/// Batches that plans begin at: within the tail.
const PLANNED_BYTES: usize = 4 << 20;
/// Coprime with every number of batches here: look-ups jump.
const STRIDE: i64 = 7919;

/// A partition whose tail holds some batches.
pub struct Plans {
    appends: Appends,
    end: i64,
    next: i64,
}

impl Plans {
    /// Of batches of 16 KiB.
    #[must_use]
    pub fn new() -> Self {
        let mut appends = Appends::new(16 << 10, 1000);
        let start = appends.partition.published.log_start().0;
        appends.append(PLANNED_BYTES / appends.batch_bytes());
        let end = appends.commit().0;
        assert!(end > start, "there is something to plan");
        Self { appends, end, next: start }
    }

    /// Measured: so many plans of up to `bytes_max` bytes, from offsets all over the tail; returns their bytes.
    pub fn plan(&mut self, count: usize, bytes_max: u64) -> u64 {
        let published = &self.appends.partition.published;
        let start = published.log_start().0;
        let mut bytes = 0;
        for _ in 0..count {
            self.next = start + (self.next - start + STRIDE) % (self.end - start);
            let plan = pin!(self.appends.core.reader.plan(published, Offset(self.next), bytes_max, true));
            // What is in the tail needs no wait.
            match plan.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(plan) => bytes += plan.unwrap().bytes,
                Poll::Pending => panic!("offset {} is not in the tail", self.next),
            }
        }
        bytes
    }
}

impl Default for Plans {
    fn default() -> Self {
        Self::new()
    }
}

/// The offset index of a segment, as it is kept in memory.
pub struct IndexLookUps {
    entries: Vec<IndexEntry>,
    next: i64,
}

impl IndexLookUps {
    /// With so many entries; a segment of 1 GiB has some 260,000 with Kafka's default of one every 4 KiB.
    #[must_use]
    pub fn new(entries: usize) -> Self {
        let entry = |at: i64| IndexEntry { last_offset: Offset(40 * at + 39), position: 4096 * at as u64 };
        Self { entries: (0..entries as i64).map(entry).collect(), next: 0 }
    }

    /// Measured: so many look-ups, all over the index.
    pub fn look_up(&mut self, count: usize) {
        let end = 40 * self.entries.len() as i64;
        for _ in 0..count {
            self.next = (self.next + STRIDE) % end;
            black_box(floor_offset(&self.entries, Offset(self.next)));
        }
    }
}
