//! The bytes of a simulated file: what reads show, and what the device would still have after a crash. Pure: no time, no
//! errors. See [`super`] for the rules.

use std::collections::BTreeMap;

use smallvec::{SmallVec, smallvec};

use super::CrashOutcome;
use crate::disk::BLOCK_BYTES;
use crate::env::random::Random;

/// What a device writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
/// How many older versions of an unsynced sector are remembered.
const VERSIONS_MAX: usize = 4;

/// A sector's bytes; `None` is all zeros.
type Version = Option<Box<[u8; SECTOR_BYTES]>>;
/// What a sector was, oldest first: the first is durable, the others were written since, and overwritten again.
type Versions = SmallVec<[Version; 1]>;

#[derive(Clone, Default)]
pub(super) struct Content {
    /// What reads show.
    bytes: Vec<u8>,
    /// The length that is durable.
    durable_len: usize,
    /// How far room is reserved, now and durably.
    reserved: u64,
    durable_reserved: u64,
    /// Sectors written since the last good sync, and what they were.
    dirty: BTreeMap<usize, Versions>,
    /// Sectors of which a sync failed: clean in the page cache, never written by a later sync. What the device has.
    lost: BTreeMap<usize, Version>,
    /// Cuts since the last good sync, in order.
    cuts: Vec<Cut>,
}

/// All that is needed to undo a cut.
#[derive(Clone)]
struct Cut {
    len: usize,
    /// The bytes from the beginning of the first sector that it touched.
    tail: Vec<u8>,
    dirty: BTreeMap<usize, Versions>,
    lost: BTreeMap<usize, Version>,
}

impl Content {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it takes on the device.
    pub(super) fn blocks(&self) -> u64 {
        (self.bytes.len() as u64).max(self.reserved).div_ceil(BLOCK_BYTES as u64)
    }

    pub(super) fn unsynced_sectors(&self) -> usize {
        self.dirty.len() + self.lost.len()
    }

    fn version(&self, sector: usize) -> Version {
        let start = (sector * SECTOR_BYTES).min(self.bytes.len());
        let bytes = &self.bytes[start..(start + SECTOR_BYTES).min(self.bytes.len())];
        if bytes == &[0; SECTOR_BYTES][..bytes.len()] {
            return None;
        }
        let mut version = Box::new([0; SECTOR_BYTES]);
        version[..bytes.len()].copy_from_slice(bytes);
        Some(version)
    }

    fn put(&mut self, sector: usize, version: &Version) {
        let start = (sector * SECTOR_BYTES).min(self.bytes.len());
        let end = (start + SECTOR_BYTES).min(self.bytes.len());
        match version {
            Some(version) => self.bytes[start..end].copy_from_slice(&version[..end - start]),
            None => self.bytes[start..end].fill(0),
        }
    }

    pub(super) fn write(&mut self, position: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = position + data.len();
        for sector in position / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let before = self.version(sector);
            if let Some(versions) = self.dirty.get_mut(&sector) {
                versions.push(before);
                if versions.len() > VERSIONS_MAX {
                    versions.remove(1);
                }
            } else {
                // Of a lost sector the device still has what it had before.
                let durable = self.lost.remove(&sector).unwrap_or(before);
                self.dirty.insert(sector, smallvec![durable]);
            }
        }
        self.write_durable(position, data);
    }

    /// A write of which a crash takes nothing.
    pub(super) fn write_durable(&mut self, position: usize, data: &[u8]) {
        let end = position + data.len();
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        self.bytes[position..end].copy_from_slice(data);
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len >= self.bytes.len() {
            self.bytes.resize(len, 0);
            return;
        }
        let (boundary, inside) = (len / SECTOR_BYTES, len % SECTOR_BYTES);
        let tail = self.bytes[boundary * SECTOR_BYTES..].to_vec();
        let (dirty, lost) = (self.dirty.split_off(&boundary), self.lost.split_off(&boundary));
        if inside > 0 {
            // What is left of the sector in which the file ends now, without what stood behind the end.
            let shorten = |version: &Version| {
                version.clone().map(|mut version| {
                    version[inside..].fill(0);
                    version
                })
            };
            if let Some(versions) = dirty.get(&boundary) {
                self.dirty.insert(boundary, versions.iter().map(shorten).collect());
            }
            if let Some(version) = lost.get(&boundary) {
                self.lost.insert(boundary, shorten(version));
            }
        }
        self.bytes.truncate(len);
        self.reserved = self.reserved.min(len as u64);
        self.cuts.push(Cut { len, tail, dirty, lost });
    }

    pub(super) fn reserve(&mut self, end: u64) {
        self.reserved = self.reserved.max(end);
    }

    /// A sync that succeeds: all that was written is durable, but for what an earlier, failed one has lost.
    pub(super) fn sync(&mut self) {
        self.dirty.clear();
        self.cuts.clear();
        self.durable_len = self.bytes.len();
        self.durable_reserved = self.reserved;
    }

    /// A sync that fails: some of it may have got through, some has not, and none of it will be tried again.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        for (at, (sector, mut versions)) in std::mem::take(&mut self.dirty).into_iter().enumerate() {
            if at == 0 || random.chance(0.75) {
                self.lost.insert(sector, versions.swap_remove(0));
            }
        }
    }

    /// The page cache drops what it thinks is clean: reads show what the device has.
    pub(super) fn evict(&mut self) {
        for (sector, version) in std::mem::take(&mut self.lost) {
            self.put(sector, &version);
        }
    }

    pub(super) fn crash(&mut self, outcome: CrashOutcome, random: &mut Random) {
        let cuts_kept = match outcome {
            CrashOutcome::LoseUnsynced => 0,
            CrashOutcome::KeepUnsynced => self.cuts.len(),
            CrashOutcome::Mixed if self.cuts.is_empty() => 0,
            CrashOutcome::Mixed => random.below(self.cuts.len() as u64 + 1) as usize,
        };
        for cut in self.cuts.drain(cuts_kept..).rev() {
            let boundary = cut.len / SECTOR_BYTES;
            self.bytes.truncate(boundary * SECTOR_BYTES);
            self.bytes.extend_from_slice(&cut.tail);
            self.dirty.split_off(&boundary);
            self.dirty.extend(cut.dirty);
            self.lost.split_off(&boundary);
            self.lost.extend(cut.lost);
        }
        let len_min = self.cuts.last().map_or(self.durable_len, |cut| cut.len);
        assert!(len_min <= self.bytes.len(), "only a cut makes a file shorter");
        self.choose_sectors(outcome, random);
        self.evict();
        self.choose_len(len_min, outcome, random);
        if self.reserved != self.durable_reserved && (outcome == CrashOutcome::LoseUnsynced || random.chance(0.5)) {
            self.reserved = self.durable_reserved;
        }
        self.sync();
    }

    fn choose_sectors(&mut self, outcome: CrashOutcome, random: &mut Random) {
        if self.dirty.is_empty() {
            return;
        }
        let mix = match outcome {
            CrashOutcome::LoseUnsynced => 0,
            CrashOutcome::KeepUnsynced => 1,
            CrashOutcome::Mixed => random.below(4),
        };
        let mut run_kept = false;
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            let version = match mix {
                0 => 0,
                1 => continue,
                // Each for itself, whatever it ever was since the last sync.
                2 => random.below(versions.len() as u64 + 1) as usize,
                // Runs, as a device that was in the middle of large writes.
                _ => {
                    run_kept ^= random.chance(0.125);
                    if run_kept { versions.len() } else { 0 }
                }
            };
            if let Some(version) = versions.get(version) {
                self.put(sector, version);
            }
        }
    }

    fn choose_len(&mut self, len_min: usize, outcome: CrashOutcome, random: &mut Random) {
        let range = self.bytes.len() - len_min;
        let len = match outcome {
            _ if range == 0 => return,
            CrashOutcome::LoseUnsynced => len_min,
            CrashOutcome::KeepUnsynced => return,
            CrashOutcome::Mixed => match random.below(4) {
                0 => len_min,
                1 => return,
                2 => len_min + random.below(range as u64) as usize,
                // As writeback leaves it, page by page.
                _ => {
                    let any = len_min + random.below(range as u64) as usize;
                    len_min.max(any - any % BLOCK_BYTES)
                }
            },
        };
        self.bytes.truncate(len);
    }

    /// Flips a bit, in whatever version of it there is.
    pub(super) fn flip(&mut self, position: usize, bit: u8) {
        let mask = 1 << (bit % 8);
        self.bytes[position] ^= mask;
        let (sector, inside) = (position / SECTOR_BYTES, position % SECTOR_BYTES);
        let versions = self.dirty.get_mut(&sector).into_iter().flatten();
        for version in versions.chain(self.lost.get_mut(&sector)).flatten() {
            version[inside] ^= mask;
        }
    }

    /// What is durable: a crash that loses all it may leaves this.
    pub(super) fn durable(&self) -> Vec<u8> {
        let mut copy = self.clone();
        copy.crash(CrashOutcome::LoseUnsynced, &mut Random::new(0));
        copy.bytes
    }
}
