//! The space of a journal file: where the next round goes, which rounds are still needed. And the filling of a round's buffer.
//! The core's round task owns it; it does no I/O of its own.

use std::collections::VecDeque;

use crate::disk::BLOCK_BYTES;
use crate::journal::format::{ENTRY_BYTES, Entry, HEADER_BYTES, JournalId, RoundHeader};
use crate::memory::{Buffer, Pool};

/// How much is copied before its CRC is taken: small enough to be still in the first-level cache, and a multiple of the 768
/// bytes that the CRC takes in three streams at a time.
const COPY_STEP_BYTES: usize = 3 << 10;

/// How much of a journal only those rounds may use that make room: no more than this, nor than a part of it.
const RESERVE_BYTES_MAX: u64 = 64 << 10;
const RESERVE_PART: u64 = 16;

/// A round that is still needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveRound {
    pub(crate) sequence: u64,
    /// The sequence of the round before it in the chain.
    pub(crate) previous: u64,
    pub(crate) position: u64,
    len: u64,
    payload_bytes: u64,
}

/// The rounds in a file of at most `bytes_max`, as a ring.
pub(crate) struct Space {
    bytes_max: u64,
    head: u64,
    next_sequence: u64,
    /// The last round of the chain; 0 before the first.
    last_sequence: u64,
    live: VecDeque<LiveRound>,
    /// What the live rounds carry.
    payload_bytes: u64,
}

impl Space {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, head: 0, next_sequence: 1, last_sequence: 0, live: VecDeque::new(), payload_bytes: 0 }
    }

    /// What a round has to leave free behind itself, unless it makes room.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        (self.bytes_max / RESERVE_PART).min(RESERVE_BYTES_MAX) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64
    }

    /// Where a round of `len` bytes can go that leaves the reserve free, or `None` while the journal is full. One for which there never
    /// would be room with it has all of an empty journal.
    pub(crate) fn place(&self, len: u64) -> Option<u64> {
        let with_reserve = len + self.reserve_bytes();
        let fits_never = with_reserve > self.bytes_max;
        self.place_to_the_last(if fits_never && self.live.is_empty() { len } else { with_reserve })
    }

    /// The same with the reserve, for a round that makes room.
    pub(crate) fn place_to_the_last(&self, len: u64) -> Option<u64> {
        debug_assert!(len.is_multiple_of(BLOCK_BYTES as u64));
        let Some(oldest) = self.live.front() else {
            return if self.head + len <= self.bytes_max { Some(self.head) } else { (len <= self.bytes_max).then_some(0) };
        };
        if self.head > oldest.position {
            if self.head + len <= self.bytes_max {
                return Some(self.head);
            }
            return (len <= oldest.position).then_some(0);
        }
        (self.head + len <= oldest.position).then_some(self.head)
    }

    /// Takes the place that was given, for a round that carries so many bytes.
    pub(crate) fn take(&mut self, position: u64, len: u64, payload_bytes: u64) -> LiveRound {
        let round = LiveRound { sequence: self.next_sequence, previous: self.last_sequence, position, len, payload_bytes };
        self.payload_bytes += payload_bytes;
        self.next_sequence += 1;
        self.last_sequence = round.sequence;
        self.live.push_back(round);
        self.head = position + len;
        round
    }

    /// Rounds older than `sequence` are needed no more.
    pub(crate) fn free_below(&mut self, sequence: u64) {
        while let Some(round) = self.live.front().filter(|round| round.sequence < sequence) {
            self.payload_bytes -= round.payload_bytes;
            self.live.pop_front();
        }
    }

    /// The newest round could not be written: it leaves the chain and its place is free. Its sequence stays used up, so that
    /// the round that follows in its stead is told from it, should it have reached the disk all the same.
    pub(crate) fn give_back(&mut self, failed: LiveRound) {
        assert_eq!(self.live.pop_back(), Some(failed), "only the newest round is given back");
        self.payload_bytes -= failed.payload_bytes;
        self.head = failed.position;
        self.last_sequence = failed.previous;
    }

    /// Where replay has to start if everything older than `sequence` is free: the sequence that the first round follows, and
    /// its position.
    pub(crate) fn start_at(&self, sequence: u64) -> (u64, u64) {
        match self.live.iter().find(|round| round.sequence >= sequence) {
            Some(round) => (round.previous, round.position),
            None => (self.last_sequence, self.head),
        }
    }

    /// The last round of the chain; 0 before the first.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// The bytes that are not free, by the distance around the ring.
    pub(crate) fn used_bytes(&self) -> u64 {
        match self.live.front() {
            None => 0,
            Some(oldest) if self.head > oldest.position => self.head - oldest.position,
            Some(oldest) => self.bytes_max - oldest.position + self.head,
        }
    }

    /// What the rounds that are not free carry: about what tails hold for their sake.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// The sequence at the middle of what is used: rounds before it make up about half of the bytes.
    pub(crate) fn middle(&self) -> u64 {
        let half = self.live.iter().map(|round| round.len).sum::<u64>() / 2;
        let mut sum = 0;
        for round in &self.live {
            sum += round.len;
            if sum >= half {
                return round.sequence + 1;
            }
        }
        self.next_sequence
    }

    /// The sequence that the next round gets.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Where the next round goes, unless it is too long for the rest of the file.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// The bound.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// How long the file may be from now on: what it is while the disk gives no more, and what was meant when it does again.
    pub(crate) fn limit_to(&mut self, bytes: u64) {
        self.bytes_max = bytes.max(self.live.iter().map(|round| round.position + round.len).max().unwrap_or(0));
    }
}

/// A round's buffer while it is filled: the table was reserved, payloads are copied behind it with their CRC in one pass.
pub(crate) struct RoundBuilder {
    buffer: Buffer,
    entry_count: u32,
    at: usize,
    crc: u32,
}

impl RoundBuilder {
    /// The length on disk of a round with these entries.
    pub(crate) fn round_bytes(entries: usize, payload_bytes: u64) -> u64 {
        ((HEADER_BYTES + entries * ENTRY_BYTES) as u64 + payload_bytes).next_multiple_of(BLOCK_BYTES as u64)
    }

    /// A builder for these entries, whose payloads are to be pushed in the same order; `None` where memory is short.
    pub(crate) fn new(pool: &Pool, entries: &[Entry]) -> Option<Self> {
        let payload_bytes = entries.iter().map(|entry| u64::from(entry.len)).sum();
        let len = usize::try_from(Self::round_bytes(entries.len(), payload_bytes)).ok()?;
        let mut buffer = pool.buffer(len)?;
        let mut at = HEADER_BYTES;
        for entry in entries {
            entry.encode(&mut buffer[at..at + ENTRY_BYTES]);
            at += ENTRY_BYTES;
        }
        let crc = crc32c::crc32c(&buffer[HEADER_BYTES..at]);
        Some(Self { buffer, entry_count: entries.len() as u32, at, crc })
    }

    /// Copies a part of the current payload.
    pub(crate) fn push(&mut self, payload: &[u8]) {
        for step in payload.chunks(COPY_STEP_BYTES) {
            self.buffer[self.at..self.at + step.len()].copy_from_slice(step);
            self.crc = crc32c::crc32c_append(self.crc, step);
            self.at += step.len();
        }
    }

    /// The finished round and its length.
    pub(crate) fn finish(mut self, journal: JournalId, round: LiveRound) -> (Buffer, usize) {
        let header = RoundHeader {
            journal,
            sequence: round.sequence,
            previous: round.previous,
            entry_count: self.entry_count,
            body_bytes: (self.at - HEADER_BYTES) as u32,
            body_crc: self.crc,
        };
        header.encode(&mut self.buffer);
        let len = header.round_bytes() as usize;
        self.buffer[self.at..len].fill(0);
        (self.buffer, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// JournalRoundsNeverOverlap: no place that is given out touches a round that is still needed, whoever may have the reserve,
        /// whatever is given back, and as long as the file may be.
        #[test]
        fn journal_rounds_never_overlap(steps in prop::collection::vec((1_u64..20, 0_u64..6, 0_u8..10), 1..200)) {
            let mut space = Space::new(64 * 4096);
            for (blocks, free, kind) in steps {
                let len = blocks * 4096;
                match kind {
                    0 => space.limit_to(blocks * 4096),
                    1 | 2 => space.limit_to(64 * 4096),
                    _ => {}
                }
                let place = if kind % 2 == 0 { space.place(len) } else { space.place_to_the_last(len) };
                if let Some(position) = place {
                    prop_assert!(position + len <= space.bytes_max());
                    for round in &space.live {
                        prop_assert!(position + len <= round.position || round.position + round.len <= position);
                    }
                    let round = space.take(position, len, 0);
                    if kind == 3 {
                        space.give_back(round);
                    }
                } else {
                    prop_assert!(!space.live.is_empty() || len > space.bytes_max());
                }
                let oldest = space.live.front().map_or(0, |round| round.sequence);
                space.free_below(oldest + free);
                prop_assert!(space.used_bytes() <= 64 * 4096);
            }
        }
    }

    #[test]
    fn an_empty_journal_takes_whatever_fits() {
        let mut space = Space::new(10 * 4096);
        let at = space.place(8 * 4096).unwrap();
        let round = space.take(at, 8 * 4096, 0);
        assert_eq!(space.place(4 * 4096), None);
        space.free_below(round.sequence + 1);
        assert_eq!(space.place(4 * 4096), Some(0));
        assert_eq!(space.place(11 * 4096), None);
        assert_eq!(space.start_at(0), (1, 8 * 4096));
    }
}
