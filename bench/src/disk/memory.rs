//! Memory's cells, measured: one thread, 4 bytes at a time, in memory that is far larger than any cache. For [`super`].

use std::hint::black_box;
use std::time::{Duration, Instant};

use ringlog_engine::memory::{Buffer, Pool};

use super::cells::{Cell, Sample, VALUE_BYTES};
use super::ring::Noise;
use crate::error::Error;
use crate::results::{Direction, Pattern, Way};
use crate::units::show_bytes;

/// Values between two looks at the clock.
const SEQUENTIAL_VALUES: usize = 1 << 20;
const RANDOM_VALUES: u64 = 1 << 16;

/// The memory that is accessed, all of it touched.
pub(super) struct Area {
    memory: Buffer,
    /// Its address space, which goes with it.
    _pool: Pool,
}

impl Area {
    /// # Errors
    /// The system does not give so much memory.
    pub(super) fn new(bytes: usize) -> Result<Self, Error> {
        let pool = Pool::new(bytes);
        let Some(mut memory) = pool.buffer(bytes) else {
            return Err(Error::Failed(format!(
                "the system does not give {} of memory: give less by --memory-size",
                show_bytes(bytes as u64)
            )));
        };
        let mut noise = Noise(0x3E3);
        for word in memory.as_chunks_mut::<8>().0 {
            *word = noise.next().to_ne_bytes();
        }
        Ok(Self { memory, _pool: pool })
    }

    /// How much of this process's memory is in huge pages, for people.
    pub(super) fn huge_pages(&self) -> String {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
        let huge =
            rollup.lines().find_map(|line| line.strip_prefix("AnonHugePages:")?.split_whitespace().next()?.parse::<u64>().ok());
        huge.map_or_else(|| "not known".to_owned(), |kib| show_bytes((kib << 10).min(self.memory.len() as u64)))
    }

    /// Measures a cell for about `time`.
    pub(super) fn measure(&mut self, cell: &Cell, time: Duration) -> Sample {
        let values = self.memory.as_chunks_mut::<{ VALUE_BYTES as usize }>().0;
        match (cell.pattern, cell.direction) {
            (Pattern::Sequential, Direction::Read) => sequential(values, time, |piece| {
                let sum = piece.iter().fold(0_u32, |sum, value| sum.wrapping_add(u32::from_ne_bytes(*value)));
                black_box(sum);
            }),
            (Pattern::Sequential, Direction::Write) => {
                let mut round = 0_u32;
                sequential(values, time, |piece| {
                    round = round.wrapping_add(1);
                    for (value, at) in piece.iter_mut().zip(round..) {
                        *value = at.to_ne_bytes();
                    }
                    black_box(piece);
                })
            }
            (Pattern::Random, Direction::Read) if cell.way == Way::Dependent => {
                let mut walk = Walk::new(values.len());
                random(time, || {
                    for _ in 0..RANDOM_VALUES {
                        let value = u32::from_ne_bytes(values[walk.next()]);
                        // The next address can't be known before this value is here.
                        walk.state = walk.state.wrapping_add(u64::from(value));
                    }
                    black_box(walk.state);
                })
            }
            (Pattern::Random, Direction::Read) => {
                let mut walk = Walk::new(values.len());
                random(time, || {
                    let sum = (0..RANDOM_VALUES).fold(0_u32, |sum, _| sum.wrapping_add(u32::from_ne_bytes(values[walk.next()])));
                    black_box(sum);
                })
            }
            (Pattern::Random, Direction::Write) => {
                let mut walk = Walk::new(values.len());
                random(time, || {
                    for round in 0..RANDOM_VALUES as u32 {
                        values[walk.next()] = round.to_ne_bytes();
                    }
                    black_box(&mut *values);
                })
            }
        }
    }
}

/// Places without order, at a few cycles each: a linear congruential generator (Knuth's MMIX), of which the high bits count.
struct Walk {
    state: u64,
    places: u64,
}

impl Walk {
    fn new(places: usize) -> Self {
        Self { state: 0x1234_5678_9ABC_DEF1, places: places as u64 }
    }

    fn next(&mut self) -> usize {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(self.state) * u128::from(self.places)) >> 64) as usize
    }
}

/// Goes round and round through memory until the time is over.
fn sequential(values: &mut [[u8; 4]], time: Duration, mut work: impl FnMut(&mut [[u8; 4]])) -> Sample {
    let start = Instant::now();
    let mut accesses = 0;
    loop {
        for piece in values.chunks_mut(SEQUENTIAL_VALUES) {
            work(piece);
            accesses += piece.len() as u64;
            let elapsed = start.elapsed();
            if elapsed >= time {
                return Sample { accesses, elapsed };
            }
        }
    }
}

/// Repeats so many random accesses until the time is over.
fn random(time: Duration, mut work: impl FnMut()) -> Sample {
    let start = Instant::now();
    let mut accesses = 0;
    loop {
        work();
        accesses += RANDOM_VALUES;
        let elapsed = start.elapsed();
        if elapsed >= time {
            return Sample { accesses, elapsed };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Medium;

    #[test]
    fn every_cell_of_memory_can_be_measured() {
        let mut area = Area::new(4 << 20).unwrap();
        assert!(!area.huge_pages().is_empty());
        for cell in super::super::cells::all(4).into_iter().filter(|cell| cell.medium == Medium::Memory) {
            let sample = area.measure(&cell, Duration::from_millis(2));
            assert!(sample.accesses >= RANDOM_VALUES && sample.elapsed >= Duration::from_millis(2), "{cell:?}: {sample:?}");
        }
    }

    #[test]
    fn a_walk_goes_everywhere() {
        let places = 1000;
        let mut seen = vec![0_u32; places];
        let mut walk = Walk::new(places);
        for _ in 0..100_000 {
            seen[walk.next()] += 1;
        }
        assert!(seen.iter().all(|count| (40..200).contains(count)), "100 visits each are expected");
    }
}
