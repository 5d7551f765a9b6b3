//! Compaction (`cleanup.policy=compact`): of each key the last value stays, offsets and order stay too. What is here decides what
//! may be cleaned, how segments are grouped, and puts the result into the log; memory only.
//!
//! - [`offset_map`]: where each key was written last, in bounded memory.
//! - [`filter`]: what is kept of a batch.
//! - [`clean`]: reads a log's segments, writes new ones beside them, in small steps.
//! - [`swap`]: new files take the place of old ones, whatever crash comes.
//!
//! A cleaning reads what is *dirty*, from where the last one ended (the clean point) to the last segment that may be cleaned,
//! into the offset map; then it goes through all segments up to there and writes them anew without what the map says is
//! superseded. Only sealed segments that are settled are touched, so journal, tail and recovery know nothing of it.
//! [`crate::core::cleaner`] decides when.

pub(crate) mod clean;
pub(crate) mod filter;
pub(crate) mod offset_map;
pub(crate) mod swap;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::log::published::Segment;
use crate::log::{Log, SegmentState};
use crate::types::{Offset, TimestampMs};

/// The most segments that become one: while the names of the old ones change, readers of theirs wait.
const GROUP_SEGMENTS_MAX: usize = 32;
/// What an entry of either index takes at the most.
const INDEX_ENTRY_BYTES_MAX: u64 = 12;

/// What a cleaning of a log would do.
#[derive(Clone)]
pub(crate) struct Cleanable {
    /// The clean point: below it nothing has to be noted.
    pub(crate) from: Offset,
    /// The offset after the last segment that may be cleaned.
    pub(crate) to: Offset,
    /// All segments up to there.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// The dirty part of them, by size: from 0 to 1.
    pub(crate) ratio: f64,
    /// Whether it is due: by `min.cleanable.dirty.ratio`, or by `max.compaction.lag.ms`.
    pub(crate) is_due: bool,
}

impl Log {
    /// What may be cleaned, where something is dirty. `point` is how far it was cleaned, where that is known.
    pub(crate) fn cleanable(&self, point: Option<Offset>, now: TimestampMs) -> Option<Cleanable> {
        let config = self.config.compaction.as_ref()?;
        if self.offline.is_some() {
            return None;
        }
        let from = self.dirty_from(point);
        let mut found = Cleanable { from, to: from, segments: Vec::new(), ratio: 0.0, is_due: false };
        let (mut clean_bytes, mut dirty_bytes, mut is_late) = (0, 0, false);
        for (segment, next) in self.segments.iter().zip(self.segments.iter().skip(1)) {
            let end = next.shared.base_offset;
            // Settled and visible, and below the recovery point, so that replay leaves it alone.
            let is_settled = segment.live.is_none() && end <= self.settled_offset && end <= self.published.high_watermark();
            if !is_settled {
                break;
            }
            if end > from {
                if config.min_compaction_lag_ms > 0 && segment.shared.is_max_timestamp_claimed() {
                    break;
                }
                let (newest, _) = segment.shared.max_timestamp();
                if config.min_compaction_lag_ms > 0 && newest.0 > now.0.saturating_sub(config.min_compaction_lag_ms) {
                    break;
                }
                let first = segment.shared.first_timestamp();
                is_late |= first.0 > 0 && first.0 < now.0.saturating_sub(config.max_compaction_lag_ms);
                dirty_bytes += segment.bytes;
                found.to = end;
            } else {
                clean_bytes += segment.bytes;
            }
            found.segments.push(segment.shared.clone());
        }
        if dirty_bytes == 0 {
            return None;
        }
        found.ratio = dirty_bytes as f64 / (clean_bytes + dirty_bytes) as f64;
        found.is_due = is_late || found.ratio > config.min_cleanable_dirty_ratio;
        Some(found)
    }

    /// The first dirty segment for which only a time index says how old it is: where that counts, nothing from it on is cleaned before
    /// it was held against the batches.
    pub(crate) fn wants_timestamp_to_clean(&self, point: Option<Offset>) -> Option<Arc<Segment>> {
        self.config.compaction.as_ref().filter(|config| config.min_compaction_lag_ms > 0)?;
        let from = self.dirty_from(point);
        let mut dirty = self.segments.iter().map(|segment| &segment.shared).filter(|segment| segment.end_offset() > from);
        dirty.find(|segment| segment.is_max_timestamp_claimed()).cloned()
    }

    /// How far the log was cleaned, where `point` says that. One beyond the end is of a log that was cut since: all of it counts as
    /// dirty.
    fn dirty_from(&self, point: Option<Offset>) -> Offset {
        let log_start = self.published.log_start();
        point.filter(|&point| point <= self.end_offset).map_or(log_start, |point| point.max(log_start))
    }

    /// ProducersOutliveSegments: whether what producers wrote below `offset`, where a segment ends, is in a snapshot.
    pub(crate) fn producers_are_saved_before(&self, offset: Offset) -> bool {
        let unsaved =
            self.snapshots_due.iter().filter(|due| due.synced && !self.producers.is_empty()).map(|due| due.offset).min();
        unsaved.is_none_or(|unsaved| offset < unsaved)
    }

    /// The segments, together small enough to become one, in their order: by bytes, by what their indexes may take, and by the
    /// offsets that fit an index.
    pub(crate) fn groups(&self, segments: &[Arc<Segment>]) -> Vec<Vec<Arc<Segment>>> {
        let index_bytes = |bytes: u64| bytes / self.config.index_interval_bytes.max(1) * INDEX_ENTRY_BYTES_MAX;
        let mut groups: Vec<Vec<Arc<Segment>>> = Vec::new();
        let mut bytes = 0;
        for segment in segments {
            let more = segment.file_bytes();
            let fits =
                groups.last().and_then(|group| Some((group.len(), group.first()?.base_offset))).is_some_and(|(len, base)| {
                    len < GROUP_SEGMENTS_MAX
                        && bytes + more <= self.config.segment_bytes
                        && index_bytes(bytes + more) <= self.config.segment_index_bytes
                        && segment.end_offset().0 - base.0 <= i64::from(i32::MAX)
                });
            match groups.last_mut().filter(|_| fits) {
                Some(group) => {
                    group.push(segment.clone());
                    bytes += more;
                }
                None => {
                    groups.push(vec![segment.clone()]);
                    bytes = more;
                }
            }
        }
        groups
    }

    /// Where these segments stand in the log, one behind the other; `None` where it does not have them all any more.
    fn place_of(&self, segments: &[Arc<Segment>]) -> Option<usize> {
        let first = segments.first()?;
        let at = self.segments.iter().position(|segment| Arc::ptr_eq(&segment.shared, first))?;
        let same = |(have, wanted): (&SegmentState, &Arc<Segment>)| Arc::ptr_eq(&have.shared, wanted);
        (self.segments.len() > at + segments.len() && self.segments.range(at..).zip(segments).all(same)).then_some(at)
    }

    /// Whether the log still has these segments.
    pub(crate) fn has_segments(&self, segments: &[Arc<Segment>]) -> bool {
        self.place_of(segments).is_some()
    }

    /// Puts a segment in the place of those that it was made of, and shows it to everybody.
    pub(crate) fn replace_segments(&mut self, old: &[Arc<Segment>], new: Arc<Segment>) {
        let place = self.place_of(old);
        assert!(place.is_some(), "the partition's files are locked, so the segments that were there are there");
        let Some(at) = place else { return };
        // Where the stream goes on stays; where it begins does not matter to anybody once it is settled.
        let last = &self.segments[at + old.len() - 1];
        let (end, created, modified) = (last.end(), last.created, last.modified);
        assert!(end <= self.settled, "only what is settled is compacted");
        let bytes = new.file_bytes();
        self.segments.drain(at + 1..at + old.len());
        self.segments[at] = SegmentState { shared: new, stream: end - bytes, bytes, live: None, created, modified };
        while self.tail.start().is_some_and(|start| start < end) && self.tail.release_oldest(end).is_some() {}
        self.publish_size();
        self.publish_view();
        self.published.tell_replaced();
    }
}
