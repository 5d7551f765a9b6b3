//! What of a segment can be kept: every batch whose header and CRC are sound and whose offsets follow, wherever it stands. What
//! lies between is to be cut. Used by the repair alone; it reads and judges, and changes nothing.
//!
//! Neither a batch's length nor its base offset is covered by its CRC. So a batch with a wrong CRC is only stepped over where
//! a sound one follows, and of batches whose offsets contradict each other the most are kept. One whose base offset alone is
//! wrong gets it back where its neighbours leave exactly as many offsets as it has.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use ringlog_engine::segment::index::OFFSETS_MAX;
use ringlog_engine::types::{Offset, TimestampMs};

use crate::offline::segment::Reader;

/// A batch that is sound by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sound {
    pub(super) position: u64,
    pub(super) size: u32,
    pub(super) base_offset: Offset,
    pub(super) next_offset: Offset,
    pub(super) max_timestamp: TimestampMs,
    /// Whether its base offset is not the one in the file but the one that it must have had.
    pub(super) restored: bool,
}

impl Sound {
    pub(super) fn end(&self) -> u64 {
        self.position + u64::from(self.size)
    }
}

/// Bytes that cannot stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) range: Range<u64>,
    pub(super) reason: String,
    /// Nothing but zeros: there is nothing to keep a copy of.
    pub(super) zeros: bool,
}

/// What of a segment stays and what goes; together they are all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) kept: Vec<Sound>,
    pub(super) cuts: Vec<Cut>,
    pub(super) bytes: u64,
}

impl Judgement {
    /// The offset after the last batch.
    pub(super) fn next_offset(&self) -> Option<Offset> {
        self.kept.last().map(|batch| batch.next_offset)
    }

    /// Whether the segment has to change.
    pub(super) fn is_damaged(&self) -> bool {
        !self.cuts.is_empty() || self.kept.iter().any(|batch| batch.restored)
    }
}

/// Judges a segment that begins at `base` and ends below `next_base`.
pub(super) fn judge(reader: &mut Reader<'_>, base: Offset, next_base: Option<Offset>) -> io::Result<Judgement> {
    let mut out = Judgement { bytes: reader.len(), ..Judgement::default() };
    let mut position = 0;
    while position < out.bytes {
        match sound_at(reader, position)? {
            Ok(batch) => {
                position = batch.end();
                out.kept.push(batch);
            }
            Err(reason) => {
                let end = behind_damage(reader, position, base)?;
                let zeros = reader.is_zero(position..end)?;
                let reason = if zeros { "zeros where a batch should be".to_owned() } else { reason };
                out.cuts.push(Cut { range: position..end, reason, zeros });
                position = end;
            }
        }
    }
    put_in_order(&mut out, base, next_base);
    Ok(out)
}

/// The batch at `position`, or why there is none.
fn sound_at(reader: &mut Reader<'_>, position: u64) -> io::Result<Result<Sound, String>> {
    let header = match reader.whole_batch(position)? {
        Ok(header) => header,
        Err(reason) => return Ok(Err(reason)),
    };
    let size = header.size_bytes() as u64;
    if let Err(error) = reader.view(position..position + size)?.check_crc() {
        return Ok(Err(error.to_string()));
    }
    Ok(Ok(Sound {
        position,
        size: size as u32,
        base_offset: header.base_offset,
        next_offset: header.next_offset(),
        max_timestamp: header.max_timestamp,
        restored: false,
    }))
}

/// Where damage at `position` ends. A length that leads to a sound batch, or to the end, is believed; else each byte is looked
/// at.
fn behind_damage(reader: &mut Reader<'_>, position: u64, base: Offset) -> io::Result<u64> {
    if let Ok(header) = reader.whole_batch(position)? {
        let end = position + header.size_bytes() as u64;
        if end < reader.len() && sound_at(reader, end)?.is_ok() {
            return Ok(end);
        }
    }
    Ok(reader.next_sound(position, base)?.unwrap_or(reader.len()))
}

/// Takes out the fewest batches so that offsets rise from `base` and stay below `next_base`; those whose offsets can be told from
/// their neighbours get them back instead.
fn put_in_order(out: &mut Judgement, base: Offset, next_base: Option<Offset>) {
    let end = next_base.unwrap_or(Offset(i64::MAX)).min(Offset(base.0.saturating_add(OFFSETS_MAX + 1)));
    let in_bounds = |batch: &Sound| batch.base_offset >= base && batch.next_offset <= end;
    let mut due = base;
    let ordered = out.kept.iter().all(|batch| {
        let fits = batch.base_offset >= due && in_bounds(batch);
        due = batch.next_offset;
        fits
    });
    if ordered {
        return;
    }
    let stays = longest_chain(&out.kept, in_bounds);
    let batches = std::mem::take(&mut out.kept);
    for (at, batch) in batches.iter().enumerate() {
        if stays[at] {
            out.kept.push(*batch);
            continue;
        }
        let count = batch.next_offset.0 - batch.base_offset.0;
        let due = out.kept.last().map_or(base, |before| before.next_offset);
        // Both neighbours stand right beside it, and nothing but it is missing between their offsets.
        let joined = out.kept.last().map_or(0, Sound::end) == batch.position;
        let next = batches.get(at + 1).filter(|next| stays[at + 1] && next.position == batch.end()).map(|next| next.base_offset);
        let next = next.or_else(|| next_base.filter(|_| at + 1 == batches.len() && batch.end() == out.bytes));
        if joined && next.is_some_and(|next| next.0 - due.0 == count) {
            out.kept.push(Sound { base_offset: due, next_offset: due.plus(count), restored: true, ..*batch });
        } else {
            let reason = match next_base {
                Some(next) if batch.next_offset > next => {
                    format!("offsets {}..{} where the next segment begins at {next}", batch.base_offset, batch.next_offset.0 - 1)
                }
                _ => format!("base offset {} where {due} is due", batch.base_offset),
            };
            out.cuts.push(Cut { range: batch.position..batch.end(), reason, zeros: false });
        }
    }
    out.cuts.sort_by_key(|cut| cut.range.start);
}

/// Which batches belong to the largest number of them whose offsets rise; of several such sets, one where the most stand right
/// behind the one that they follow.
fn longest_chain(batches: &[Sound], in_bounds: impl Fn(&Sound) -> bool) -> Vec<bool> {
    // Of the best chain that ends with each batch: how many batches, how many of them right behind another, and the one before.
    let mut best: Vec<(usize, usize, Option<usize>)> = Vec::with_capacity(batches.len());
    // By the offset at which a chain ends: its last batch. Only chains that are better than every one that ends before them.
    let mut rising: BTreeMap<Offset, usize> = BTreeMap::new();
    for (at, batch) in batches.iter().enumerate() {
        if !in_bounds(batch) {
            best.push((0, 0, None));
            continue;
        }
        let any = rising.range(..=batch.base_offset).next_back().map(|(_, &last)| (best[last].0 + 1, best[last].1, Some(last)));
        let joined = at
            .checked_sub(1)
            .filter(|&last| best[last].0 > 0 && batches[last].end() == batch.position)
            .filter(|&last| batches[last].next_offset == batch.base_offset)
            .map(|last| (best[last].0 + 1, best[last].1 + 1, Some(last)));
        let chain = any.max(joined).unwrap_or((1, 0, None));
        best.push(chain);
        let (end, score) = (batch.next_offset, (chain.0, chain.1));
        let better = |last: usize| (best[last].0, best[last].1) > score;
        if rising.range(..=end).next_back().is_some_and(|(_, &last)| (best[last].0, best[last].1) >= score) {
            continue;
        }
        let beaten: Vec<Offset> = rising.range(end..).take_while(|(_, last)| !better(**last)).map(|(&end, _)| end).collect();
        for end in beaten {
            rising.remove(&end);
        }
        rising.insert(end, at);
    }
    let mut stays = vec![false; batches.len()];
    let mut last = rising.last_key_value().map(|(_, &last)| last);
    while let Some(at) = last {
        stays[at] = true;
        last = best[at].2;
    }
    stays
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Batches of one record each that stand one behind the other.
    fn batches(offsets: &[i64]) -> Judgement {
        let batch = |(at, &offset): (usize, &i64)| Sound {
            position: at as u64 * 100,
            size: 100,
            base_offset: Offset(offset),
            next_offset: Offset(offset + 1),
            max_timestamp: TimestampMs(0),
            restored: false,
        };
        Judgement { kept: offsets.iter().enumerate().map(batch).collect(), cuts: Vec::new(), bytes: offsets.len() as u64 * 100 }
    }

    fn ordered(offsets: &[i64], next_base: Option<i64>) -> (Vec<i64>, usize) {
        let mut judgement = batches(offsets);
        put_in_order(&mut judgement, Offset(10), next_base.map(Offset));
        (judgement.kept.iter().map(|batch| batch.base_offset.0).collect(), judgement.cuts.len())
    }

    #[test]
    fn a_wrong_base_offset_is_put_right_where_only_one_is_possible() {
        assert_eq!(ordered(&[10, 11, 1 << 40, 13, 14], None), (vec![10, 11, 12, 13, 14], 0));
        assert_eq!(ordered(&[10, 11, 3, 13, 14], None), (vec![10, 11, 12, 13, 14], 0));
        assert_eq!(ordered(&[10, 11, 13, 13, 14], None), (vec![10, 11, 12, 13, 14], 0), "not the one behind it");
        assert_eq!(ordered(&[99, 11, 12], None), (vec![10, 11, 12], 0));
        assert_eq!(ordered(&[10, 11, 99], Some(13)), (vec![10, 11, 12], 0));
        assert_eq!(ordered(&[10, 11, 1 << 40, 20], None), (vec![10, 11, 20], 1), "compaction may have left a gap");
        assert_eq!(ordered(&[10, 11, 1 << 40], None), (vec![10, 11], 1));
        assert_eq!(ordered(&[10, 11, 12, 11, 12, 13], None), (vec![10, 11, 12, 13], 2));
    }

    proptest! {
        /// No set of batches with rising offsets is larger than the one that stays.
        #[test]
        fn the_most_batches_stay(offsets in prop::collection::vec(0_i64..12, 0..10)) {
            let judgement = batches(&offsets);
            let stays = longest_chain(&judgement.kept, |_| true);
            let kept: Vec<i64> = offsets.iter().zip(&stays).filter(|(_, stays)| **stays).map(|(offset, _)| *offset).collect();
            prop_assert!(kept.is_sorted_by(|a, b| a < b), "{kept:?}");
            let most = (0_u32..1 << offsets.len())
                .filter(|set| {
                    let chosen: Vec<i64> = (0..offsets.len()).filter(|at| set >> at & 1 == 1).map(|at| offsets[at]).collect();
                    chosen.is_sorted_by(|a, b| a < b)
                })
                .map(u32::count_ones)
                .max();
            prop_assert_eq!(Some(kept.len() as u32), most);
        }
    }
}
