//! What a journal would write into a segment file: extents of bytes over the file's own. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

/// Extents by where they begin; they neither overlap nor are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Overlay {
    extents: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    /// Takes back what is over `range`: the file itself has the right bytes there.
    pub(super) fn clear(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let from = self.extents.range(..range.start).next_back().map_or(range.start, |(&at, _)| at);
        let touched: Vec<u64> = self.extents.range(from..range.end).map(|(&at, _)| at).collect();
        for at in touched {
            let Some(bytes) = self.extents.remove(&at) else { continue };
            let end = at + bytes.len() as u64;
            if at < range.start {
                let keep = (range.start - at).min(bytes.len() as u64) as usize;
                self.extents.insert(at, bytes[..keep].to_vec());
            }
            if end > range.end {
                let skip = (range.end - at) as usize;
                self.extents.insert(range.end, bytes[skip..].to_vec());
            }
        }
    }

    /// Puts `bytes` over the file at `position`, and over what lay there before.
    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) {
        self.clear(position..position + bytes.len() as u64);
        if !bytes.is_empty() {
            self.extents.insert(position, bytes.to_vec());
        }
    }

    /// Where the last extent ends; 0 without any.
    pub(super) fn end(&self) -> u64 {
        self.extents.last_key_value().map_or(0, |(&at, bytes)| at + bytes.len() as u64)
    }

    /// The extents and where they begin.
    pub(super) fn extents(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.extents.iter().map(|(&at, bytes)| (at, &bytes[..]))
    }

    /// Whether any extent lies in `range`.
    pub(super) fn touches(&self, range: Range<u64>) -> bool {
        self.within(range).next().is_some()
    }

    /// Puts the extents over `target`, which has the file's bytes from `position` on.
    pub(super) fn apply(&self, target: &mut [u8], position: u64) {
        let end = position + target.len() as u64;
        for (at, bytes) in self.within(position..end) {
            let from = at.max(position);
            let to = (at + bytes.len() as u64).min(end);
            target[(from - position) as usize..(to - position) as usize]
                .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
        }
    }

    fn within(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &[u8])> {
        let from = self.extents.range(..=range.start).next_back().map_or(range.start, |(&at, _)| at);
        self.extents
            .range(from..range.end.max(from))
            .map(|(&at, bytes)| (at, &bytes[..]))
            .filter(move |(at, bytes)| at + bytes.len() as u64 > range.start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However extents are written and taken back, reading shows what a plain array would.
        #[test]
        fn it_is_an_array_over_an_array(steps in prop::collection::vec((0_u64..80, 0_usize..30, any::<u8>(), any::<bool>()), 0..40)) {
            let file = [255_u8; 120];
            let (mut overlay, mut model, mut over) = (Overlay::default(), file, [false; 120]);
            for (at, len, byte, clear) in steps {
                let range = at as usize..at as usize + len;
                if clear {
                    overlay.clear(at..at + len as u64);
                    model[range.clone()].fill(255);
                } else {
                    overlay.write(at, &vec![byte; len]);
                    model[range.clone()].fill(byte);
                }
                over[range].fill(!clear);
            }
            for start in [0, 7, 50, 119] {
                let mut read = file[start..].to_vec();
                overlay.apply(&mut read, start as u64);
                prop_assert_eq!(&read[..], &model[start..]);
            }
            for start in 0..110 {
                prop_assert_eq!(overlay.touches(start..start + 10), over[start as usize..start as usize + 10].contains(&true));
            }
            prop_assert_eq!(overlay.end(), over.iter().rposition(|&set| set).map_or(0, |at| at as u64 + 1));
        }
    }
}
