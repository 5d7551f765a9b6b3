//! A log and the journal: what the next round takes, and what follows when a round is written, synced, or lost.
//! Memory only; the core calls in.

use crate::journal::format::Entry;
use crate::log::Log;
use crate::log::append::{Acks, AppendError, AppendReply, Appended};
use crate::types::{Offset, PartitionId};

/// A run of whole batches, in one segment, that a round of the journal takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Stream positions.
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) segment_base: Offset,
    /// Where it stands in the segment file.
    pub(crate) position: u64,
    pub(crate) base_offset: Offset,
    pub(crate) next_offset: Offset,
}

impl Run {
    /// What the journal says of it.
    pub(crate) fn entry(&self, partition: PartitionId) -> Entry {
        Entry {
            partition,
            segment_base: self.segment_base,
            position: self.position,
            base_offset: self.base_offset,
            next_offset: self.next_offset,
            len: u32::try_from(self.to - self.from).unwrap_or(u32::MAX),
        }
    }
}

/// Answers that are due, sent when no log is borrowed any more.
#[derive(Default)]
pub(crate) struct Replies(Vec<(AppendReply, Result<Appended, AppendError>)>);

impl Replies {
    pub(crate) fn push(&mut self, reply: AppendReply, result: Result<Appended, AppendError>) {
        self.0.push((reply, result));
    }

    /// Sends them all. Who does not wait any more is nobody's loss.
    pub(crate) fn send(&mut self) {
        for (reply, result) in self.0.drain(..) {
            reply.send(result);
        }
    }
}

impl Log {
    /// Whether there is something that no round has taken.
    pub(crate) fn has_unjournaled(&self) -> bool {
        self.pending_journaled < self.pending.len()
    }

    /// Whether a round with this log's data has to be synced.
    pub(crate) fn wants_sync(&self, now_ms: i64) -> bool {
        if self.config.is_durable() {
            return self.synced < self.journaled;
        }
        let unsynced = self.end_offset.0 - self.synced_offset.0;
        let age_ms = now_ms.saturating_sub(self.unsynced_since.0);
        // FlushedSurvives: a clock that was set back says nothing of the age, which must not begin anew.
        let is_old = age_ms >= self.config.flush_ms || (age_ms < 0 && self.config.flush_interval().is_some());
        unsynced > 0 && (unsynced >= self.config.flush_messages || is_old)
    }

    /// The next run for a round that has room for `room` bytes; a batch that is larger than any round goes alone (`empty`).
    pub(crate) fn next_run(&mut self, room: u64, empty: bool) -> Option<Run> {
        let first = self.pending.get(self.pending_journaled)?;
        let from = self.journaled;
        let base_offset = first.base_offset;
        let segment = self.segments.iter().rev().find(|segment| segment.stream <= from)?;
        let (segment_base, segment_end, position) = (segment.shared.base_offset, segment.end(), from - segment.stream);
        let mut to = from;
        let mut next_offset = base_offset;
        let mut taken = 0;
        for pending in self.pending.range(self.pending_journaled..) {
            if pending.stream_end > segment_end || (pending.stream_end - from > room && !(empty && taken == 0)) {
                break;
            }
            (to, next_offset, taken) = (pending.stream_end, pending.next_offset, taken + 1);
        }
        if taken == 0 {
            return None;
        }
        self.journaled = to;
        self.pending_journaled += taken;
        Some(Run { from, to, segment_base, position, base_offset, next_offset })
    }

    /// Calls `visit` with a run's bytes.
    pub(crate) fn visit_run(&self, run: &Run, visit: impl FnMut(&[u8])) {
        self.tail.visit(run.from, run.to, visit);
    }

    /// What rounds have written and not synced.
    pub(crate) fn unsynced_upto(&self) -> Option<(u64, Offset)> {
        if self.synced >= self.written {
            return None;
        }
        // Written and not committed yet: the topic became durable while its round was in flight.
        let written = self.pending.iter().take_while(|pending| pending.stream_end <= self.written).last();
        Some((self.written, written.map_or(self.published.high_watermark(), |pending| pending.next_offset)))
    }

    /// Notes that the round `sequence` carries this log's bytes up to `to`.
    pub(crate) fn note_round(&mut self, sequence: u64, to: u64) {
        match self.rounds.back_mut() {
            Some(last) if last.0 == sequence => last.1 = to,
            _ => self.rounds.push_back((sequence, to)),
        }
    }

    /// The oldest round of the journal that is still needed.
    pub(crate) fn oldest_round(&self) -> Option<u64> {
        self.rounds.front().map(|&(sequence, _)| sequence)
    }

    /// The round that reaches `to` is written. Returns whether consumers see more than before.
    pub(crate) fn round_written(&mut self, to: u64, next_offset: Offset, replies: &mut Replies) -> bool {
        self.written = self.written.max(to);
        if self.config.is_durable() {
            for pending in self.pending.iter_mut().take_while(|pending| pending.stream_end <= to) {
                let waiters = std::mem::take(&mut pending.waiters);
                for waiter in waiters {
                    match waiter.acks {
                        Acks::All => pending.waiters.push(waiter),
                        Acks::Leader | Acks::None => replies.push(waiter.reply, Ok(waiter.appended)),
                    }
                }
            }
            return false;
        }
        self.commit(to, next_offset, replies)
    }

    /// The round that reaches `to` is synced. Returns whether consumers see more than before.
    pub(crate) fn round_synced(&mut self, to: u64, next_offset: Offset, replies: &mut Replies) -> bool {
        self.written = self.written.max(to);
        self.synced = self.synced.max(to);
        if self.synced_offset < next_offset {
            self.synced_offset = next_offset;
            // What is left was appended while this round was under way. It is as old as the newest of it, or older by no more than
            // a round.
            self.unsynced_since = self.last_append;
        }
        self.commit(to, next_offset, replies)
    }

    fn commit(&mut self, to: u64, next_offset: Offset, replies: &mut Replies) -> bool {
        while let Some(pending) = self.pending.front() {
            if pending.stream_end > to {
                break;
            }
            let Some(pending) = self.pending.pop_front() else { break };
            self.pending_journaled -= 1;
            for waiter in pending.waiters {
                replies.push(waiter.reply, Ok(waiter.appended));
            }
        }
        if self.marks.back().map_or(self.settled, |&(stream, _)| stream) < to {
            self.marks.push_back((to, next_offset));
        }
        if next_offset <= self.published.high_watermark() {
            return false;
        }
        // Bytes first, then the counts that let readers look at them.
        self.tail.publish(to);
        let first = self.segments.partition_point(|segment| segment.end() <= self.visible);
        for segment in self.segments.range(first..) {
            if segment.stream >= to {
                break;
            }
            segment.shared.set_visible_bytes(to.min(segment.end()) - segment.stream);
        }
        self.visible = to;
        self.producers.settle(next_offset);
        self.published.set_high_watermark(next_offset);
        true
    }

    /// The journal failed: what it did not commit is answered with `error` and cut off the log.
    pub(crate) fn cut_uncommitted(&mut self, error: &AppendError, replies: &mut Replies) {
        for pending in self.pending.drain(..) {
            for waiter in pending.waiters {
                replies.push(waiter.reply, Err(error.clone()));
            }
        }
        self.pending_journaled = 0;
        let stream = self.visible;
        while self.rounds.back().is_some_and(|&(_, end)| end > stream) {
            self.rounds.pop_back();
        }
        let offset = self.published.high_watermark();
        assert!(self.flushed <= stream, "SegmentBehindJournal: {} of {stream}", self.flushed);
        let is_stained = self.stain > stream;
        self.stain = 0;
        while self.segments.len() > 1 && self.segments.back().is_some_and(|last| last.stream > stream) {
            self.segments.pop_back();
        }
        self.tail.take_back(stream);
        if is_stained {
            self.stained = Some(self.active().shared.clone());
        }
        let active = self.active_mut();
        active.bytes = stream - active.stream;
        active.shared.set_end_offset(offset);
        if let Some(live) = &mut active.live {
            live.cut(offset, &active.shared);
        }
        self.snapshots_due.retain(|due| due.stream <= stream);
        self.snapshot_stream = self.snapshot_stream.min(stream);
        if !self.producers.truncate_to(offset) {
            tracing::warn!(partition = %self.directory.display(), "more batches were cut than producers can take back: they are unknown now");
        }
        self.end = stream;
        self.end_offset = offset;
        self.journaled = stream;
        self.written = self.written.min(stream);
        self.synced = self.synced.min(stream);
        self.published.set_log_end(offset);
        self.publish_size();
        self.publish_view();
    }

    /// Another journal has what is not settled: which of its rounds carry it, and how far each reaches.
    pub(crate) fn replace_rounds(&mut self, rounds: Vec<(u64, u64)>) {
        let settled = self.settled;
        self.rounds = rounds.into_iter().filter(|&(_, end)| end > settled).collect();
    }

    /// How much is committed that the segment files are not known to have.
    pub(crate) fn unsettled_bytes(&self) -> u64 {
        self.visible.saturating_sub(self.settled)
    }

    /// The next run, from the stream position `from` on, of what is committed and not settled, for a new journal: about `room`
    /// bytes, more where a batch needs it. The first may begin within a batch, where the segment file already has the
    /// beginning.
    pub(crate) fn rejournal(&self, from: u64, room: u64) -> Option<Run> {
        let from = from.max(self.settled);
        let segment = self.segments.iter().find(|segment| segment.end().min(self.visible) > from)?;
        let end = segment.end().min(self.visible);
        let first = self.marks.partition_point(|&(stream, _)| stream <= from);
        let base_offset = first.checked_sub(1).map_or(self.settled_offset, |at| self.marks[at].1);
        let mut run = Run {
            from,
            to: end,
            segment_base: segment.shared.base_offset,
            position: from - segment.stream,
            base_offset,
            next_offset: segment.shared.end_offset().min(self.published.high_watermark()),
        };
        let mut marks = self.marks.range(first..).take_while(|&&(stream, _)| stream <= end);
        if let Some(&(stream, offset)) = marks.next() {
            (run.to, run.next_offset) = (stream, offset);
            for &(stream, offset) in marks.take_while(|&&(stream, _)| stream - from <= room) {
                (run.to, run.next_offset) = (stream, offset);
            }
        }
        Some(run)
    }
}
