//! The log's beginning: DeleteRecords, and retention by time and by size. It decides in memory which segments go; the caller
//! makes the new log start durable first and removes the files afterwards.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::log::config::LogConfig;
use crate::log::published::Segment;
use crate::log::{Log, SegmentState};
use crate::types::{Offset, TimestampMs};

/// DeleteRecords asked for an offset that is not in the log.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("offset {asked} is outside of the log ({log_start} to {high_watermark})")]
pub struct OutsideLog {
    asked: Offset,
    log_start: Offset,
    high_watermark: Offset,
}

/// A segment that left the log: its files can go once the new log start is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The key of its open files.
    pub id: u64,
    /// Its `.log` file.
    pub path: PathBuf,
}

impl Log {
    /// Has the log start moved to `offset`, -1 meaning the high watermark (DeleteRecords, KIP-107), once the caller has made
    /// it durable. Returns the new log start.
    ///
    /// # Errors
    /// Above the high watermark. Below the log start nothing changes.
    pub fn delete_records(&mut self, offset: Offset) -> Result<Offset, OutsideLog> {
        let (log_start, high_watermark) = (self.published.log_start(), self.published.high_watermark());
        let target = if offset == Offset(-1) { high_watermark } else { offset };
        if target.0 < 0 || target > high_watermark {
            return Err(OutsideLog { asked: offset, log_start, high_watermark });
        }
        self.next_log_start = self.next_log_start.max(target);
        Ok(target.max(log_start))
    }

    /// The log start that is to be durable: the published one, or one above.
    #[must_use]
    pub fn next_log_start(&self) -> Offset {
        self.next_log_start
    }

    /// The log start that was asked for is durable: everybody may see it.
    pub fn publish_log_start(&mut self, durable: Offset) {
        if durable > self.published.log_start() {
            self.published.set_log_start(durable);
        }
    }

    /// Applies `retention.ms`, `retention.bytes` and `segment.ms`: an active segment that is too old is rolled, the log start
    /// is to move behind what has to go. Returns whether it is.
    pub fn retain(&mut self, now: TimestampMs) -> bool {
        let config = self.config.clone();
        self.producers.expire(now);
        if self.offline.is_some() {
            // What its files lack of the producers would be below the log start then, where no start looks for it.
            return false;
        }
        if config.retention_ms >= 0 || config.roll_ms() < i64::MAX {
            let active = self.active();
            if active.bytes > 0 && (is_expired(active, &config, now) || active.age_ms(now, now) > config.roll_ms()) {
                self.roll(now);
                self.publish_view();
            }
        }
        let (start, _) = self.retained_from(&config, now);
        self.next_log_start = start;
        start > self.published.log_start()
    }

    /// The segment on whose largest timestamp it depends what retention takes, where only the time index says which that is
    /// (**RotDeletesNothing**): it has to be held against the batches first, and there may be another one behind it then.
    #[must_use]
    pub fn wants_timestamp_of(&self, now: TimestampMs) -> Option<Arc<Segment>> {
        if self.offline.is_some() { None } else { self.retained_from(&self.config, now).1 }
    }

    /// Where retention has the log begin, and the segment with which it ends because nobody knows how old that is.
    fn retained_from(&self, config: &LogConfig, now: TimestampMs) -> (Offset, Option<Arc<Segment>>) {
        let mut start = self.next_log_start;
        let mut bytes: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        for (at, segment) in self.segments.iter().enumerate() {
            // The active segment stays, and so does what consumers have not been allowed to see yet.
            let Some(next) = self.segments.get(at + 1) else { break };
            if next.shared.base_offset > self.published.high_watermark() {
                break;
            }
            let retention_bytes = u64::try_from(config.retention_bytes).ok();
            let is_gone = next.shared.base_offset <= self.next_log_start;
            if !is_gone && retention_bytes.is_none_or(|max| bytes - segment.bytes < max) {
                if config.retention_ms >= 0 && segment.shared.is_max_timestamp_claimed() {
                    return (start, Some(segment.shared.clone()));
                }
                if !is_expired(segment, config, now) {
                    break;
                }
            }
            bytes -= segment.bytes;
            start = start.max(next.shared.base_offset);
        }
        (start, None)
    }

    /// Takes out the segments that lie below the log start and are settled, as far as what producers wrote to them is saved
    /// (ProducersOutliveSegments). The caller has made the log start durable.
    pub fn remove_segments(&mut self) -> Vec<Removed> {
        let start = self.published.log_start();
        let mut removed = Vec::new();
        while self.segments.len() > 1
            && self.segments[1].shared.base_offset <= start
            && self.segments[0].end() <= self.settled
            && self.producers_are_saved_before(self.segments[1].shared.base_offset)
        {
            let Some(segment) = self.segments.pop_front() else { break };
            while self.tail.start().is_some_and(|at| at < segment.end()) && self.tail.release_oldest(segment.end()).is_some() {}
            removed.push(Removed { id: segment.shared.id, path: segment.shared.path.clone() });
        }
        if !removed.is_empty() {
            let _ = self.epochs.truncate_from_start(start);
            self.epochs_dirty = true;
            self.publish_size();
            self.publish_view();
        }
        removed
    }

    /// Whether segments lie below the log start.
    #[must_use]
    pub fn has_removable(&self) -> bool {
        self.segments.len() > 1 && self.segments[1].shared.base_offset <= self.published.log_start()
    }
}

/// Without a timestamp it is as old as its last change, as with Kafka: it would stay for ever, and what is behind it too.
fn is_expired(segment: &SegmentState, config: &LogConfig, now: TimestampMs) -> bool {
    let (newest, _) = segment.shared.max_timestamp();
    let newest = if newest == TimestampMs::NONE { segment.modified } else { newest };
    config.retention_ms >= 0 && now.0.saturating_sub(newest.0) > config.retention_ms
}
