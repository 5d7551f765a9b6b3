//! From the tail to the segments, so that journal space and memory come free: large writes when a partition has enough, and
//! *settling*, when the journal is half full, memory is short, or a partition has been idle: flush, sync as a set, move the
//! checkpoint, and only then free the journal's space.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::core::{Core, Slot};
use crate::disk::Shortage;
use crate::env::LocalFuture;
use crate::log::flush::{self, Unsynced};
use crate::log::{Log, side_files, straight};

/// A partition with this much is flushed at once, without a sync; one that gets large runs only with what the next one may take along.
const FLUSH_BYTES: u64 = 1 << 20;
const FLUSH_BYTES_OF_LARGE: u64 = straight::BACKLOG_BYTES_MAX;
/// How many partitions are written to files at the same time.
const FLUSHES_MAX: usize = 4;
const SETTLES_MAX: usize = 32;
/// A partition that took nothing for this long is settled.
const IDLE_MS: i64 = 5_000;
/// A partition that took nothing for this long lets go of its memory too: until then consumers may still come for it.
const IDLE_RELEASE_MS: i64 = 60_000;
/// How many of them at once, so that who is short of space does not wait for long.
const IDLE_SETTLES_MAX: usize = 256;
const IDLE_CHECK: Duration = Duration::from_millis(1_000);
/// Files that nobody used for this long are closed; twice as long at the most.
const FILES_IDLE: Duration = Duration::from_secs(30);
/// How long a full or failing disk is left alone before the next try.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// How often a shortage that lasts is worth a warning.
const SHORTAGE_WARNINGS: Duration = Duration::from_secs(60);
/// How long the batch that has waited longest for memory goes on waiting when nothing of ours comes free and the system has none, or
/// partitions that are offline keep theirs.
const REFUSED_MAX: Duration = Duration::from_millis(500);

/// Whether the block that is still being filled goes out too, padded, to be written again later.
#[derive(Clone, Copy, Debug)]
enum Force {
    /// For all, so that everything is settled.
    Always,
    /// Where a round before this one would have to stay for its sake.
    RoundsBefore(u64),
}

/// Partitions whose files wait to be synced.
type Prepared = Rc<RefCell<Vec<(Rc<Slot>, Unsynced)>>>;

impl Core {
    /// Asks for settling where the journal is half full, or holds what takes half of the tails' memory: whoever appends in the
    /// meantime has the other half. Also where as much as the half of a journal went around it, so that recovery stays bounded.
    pub(crate) fn want_reclaim(&self) {
        let journal = self.journal.borrow();
        let space = &journal.space;
        if space.used_bytes() > space.bytes_max() / 2
            || space.payload_bytes() > self.pool.bytes_max() as u64 / 2
            || self.straight_bytes.get() > self.settings.journal_bytes / 2
        {
            self.reclaim_wanted.notify_one();
        }
    }

    /// Queues a partition that has enough for a large write.
    pub(crate) fn want_flush(&self, slot: &Rc<Slot>, unflushed_bytes: u64) {
        let enough = if slot.large_runs.get() { FLUSH_BYTES_OF_LARGE } else { FLUSH_BYTES };
        if unflushed_bytes >= enough && !slot.flush_queued.replace(true) {
            self.flush_queue.borrow_mut().push_back(slot.clone());
            self.flush_wanted.notify_one();
        }
    }

    /// Flushes and syncs these partitions, moves the checkpoint, frees journal space. One of the errors, after the others were served.
    async fn settle(self: &Rc<Self>, slots: Vec<Rc<Slot>>, force: Force) -> io::Result<()> {
        let _one = self.settle_lock.lock().await;
        let prepared: Prepared = Rc::default();
        let mut failed = None;
        let filled = prepared.clone();
        let results = self
            .for_each(slots, SETTLES_MAX, move |core, slot| {
                let prepared = filled.clone();
                Box::pin(async move {
                    let unsynced = core.flush_and_prepare(&slot, force).await?;
                    prepared.borrow_mut().push((slot, unsynced));
                    Ok(())
                })
            })
            .await;
        for (slot, result) in results {
            if let Err(error) = result {
                self.note_flush_error(&slot, &error);
                slot.settling.set(false);
                if !slot.deleted.get() {
                    keep_worse(&mut failed, error);
                }
            }
        }
        let mut prepared = std::mem::take(&mut *prepared.borrow_mut());
        let mut files = Vec::new();
        let mut counts = Vec::new();
        for (_, unsynced) in &mut prepared {
            counts.push(unsynced.files.len());
            files.append(&mut unsynced.files);
        }
        let mut results = self.disk.sync_set(files).await.into_iter();
        for ((slot, unsynced), count) in prepared.iter().zip(counts) {
            let mut error = None;
            for result in results.by_ref().take(count) {
                error = error.or(result.err());
            }
            match error {
                None => {
                    slot.log.borrow_mut().settle(unsynced);
                    self.may_release(slot);
                }
                Some(error) => {
                    // Whatever it says, a failed sync is believed by nobody: a full disk too.
                    if !slot.deleted.get() && slot.log.borrow().offline_reason().is_none() {
                        slot.log.borrow_mut().flush_failed(&error);
                    }
                    keep_worse(&mut failed, error);
                }
            }
            slot.settling.set(false);
        }
        if let Err(error) = self.free_journal().await {
            keep_worse(&mut failed, error);
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    async fn flush_and_prepare(&self, slot: &Slot, force: Force) -> io::Result<Unsynced> {
        let _files = slot.files_lock.lock().await;
        slot.settling.set(true);
        self.may_flush(slot)?;
        let force = match force {
            Force::Always => true,
            Force::RoundsBefore(sequence) => slot.log.borrow().last_block_pins(sequence),
        };
        flush::flush(&self.flush_io(), &slot.log, force).await?;
        side_files::prepare_settle(&self.flush_io(), &slot.log, false).await
    }

    /// Whether a partition's files may be written, asked with the lock held: it may have been deleted or gone offline while the
    /// lock was waited for.
    pub(crate) fn may_flush(&self, slot: &Slot) -> io::Result<()> {
        if slot.deleted.get() {
            return Err(io::ErrorKind::NotFound.into());
        }
        match slot.log.borrow().offline_reason() {
            Some(reason) => Err(io::Error::other(format!("the partition is offline: {reason}"))),
            None => Ok(()),
        }
    }

    /// Moves the checkpoint to what is settled, and frees the journal's space below that.
    pub(crate) async fn free_journal(&self) -> io::Result<()> {
        if !self.begun.get() {
            return Ok(());
        }
        let _one = self.checkpoint_lock.lock().await;
        if self.journal_removed.get() {
            return Ok(());
        }
        if let Some(reason) = self.journal_lost.borrow().as_ref() {
            return Err(io::Error::other(reason.clone()));
        }
        let partitions = self.recovery_points();
        let (generation, oldest) = {
            let journal = self.journal.borrow();
            let needed = self.slots.borrow().values().filter_map(|slot| slot.log.borrow().oldest_round()).min();
            let in_flight = journal.in_flight.unwrap_or(u64::MAX);
            let oldest = needed.unwrap_or(u64::MAX).min(in_flight).min(journal.space.next_sequence());
            (journal.generation, oldest)
        };
        let text = self.journal.borrow().checkpoint_text(partitions, oldest);
        let path = self.journal.borrow().checkpoint_path();
        crate::disk::replace_file(&self.disk, &path, text.into_bytes()).await?;
        tracing::trace!(core = self.index, oldest, "journal space is free below");
        let mut journal = self.journal.borrow_mut();
        if journal.generation == generation {
            journal.space.free_below(oldest);
            // There was room for the checkpoint: the journal may try to grow again.
            journal.space.limit_to(self.settings.journal_bytes);
        }
        drop(journal);
        self.space_changed.notify_waiters();
        Ok(())
    }

    fn note_flush_error(&self, slot: &Slot, error: &io::Error) {
        if slot.deleted.get() || slot.log.borrow().offline_reason().is_some() {
            return;
        }
        match Shortage::of(error) {
            Some(shortage) => self.warn_short(shortage, error, "segments wait in the journal"),
            None => slot.log.borrow_mut().flush_failed(error),
        }
    }

    /// Says so in the log, but not each time that it is tried.
    pub(crate) fn warn_short(&self, shortage: Shortage, error: &io::Error, follows: &str) {
        let now = self.env.monotonic();
        if self.short_warned.get().is_none_or(|warned| now.saturating_sub(warned) >= SHORTAGE_WARNINGS) {
            self.short_warned.set(Some(now));
            tracing::warn!(core = self.index, %error, "{shortage}: {follows}");
        } else {
            tracing::debug!(core = self.index, %error, "{shortage}, still: {follows}");
        }
    }

    /// Which rounds are to be settled: the older half. All of them where offline partitions may make a round wait for a new journal, for
    /// which there has to be room.
    fn settle_below(&self) -> u64 {
        let space = &self.journal.borrow().space;
        let all = self.round_waits.get() && self.oldest_rounds().offline.is_some();
        if all { space.next_sequence() } else { space.middle() }
    }

    /// Tells those who wait for space whether a shortage that may last is why there is none.
    fn note_short(&self, settled: &io::Result<()>) {
        let lasting = settled.as_ref().err().and_then(|error| Some((lasting_shortage(error)?, error)));
        *self.short.borrow_mut() = lasting.map(|(shortage, error)| format!("{shortage}: {error}"));
    }

    /// The partitions in service of which `look` is true.
    fn slots_where(&self, look: impl Fn(&Log) -> bool) -> Vec<Rc<Slot>> {
        let wanted = |slot: &&Rc<Slot>| {
            let log = slot.log.borrow();
            log.offline_reason().is_none() && look(&log)
        };
        self.slots.borrow().values().filter(wanted).cloned().collect()
    }

    /// Lets go of the last pieces of tails too, where everything is settled: somebody else needs the memory.
    fn release_settled(&self) {
        for slot in self.slots.borrow().values() {
            let mut log = slot.log.borrow_mut();
            if log.is_settled() {
                log.release_all();
            }
        }
    }

    /// Why memory may never come free, for all that is known.
    fn why_no_memory(&self) -> Option<&'static str> {
        if self.pool.is_refused() {
            return Some("the system has no memory left");
        }
        // What is committed there is in its tail until the next start.
        let keeps = |log: &Log| log.offline_reason().is_some() && !log.is_settled() && log.memory_bytes() > 0;
        let is_kept = self.slots.borrow().values().any(|slot| keeps(&slot.log.borrow()));
        is_kept.then_some("a partition that is offline keeps the memory")
    }

    /// Runs `work` for each partition, at most `at_once` at a time.
    pub(crate) async fn for_each(
        self: &Rc<Self>,
        slots: Vec<Rc<Slot>>,
        at_once: usize,
        work: impl Fn(Rc<Self>, Rc<Slot>) -> LocalFuture<io::Result<()>> + 'static,
    ) -> Vec<(Rc<Slot>, io::Result<()>)> {
        let workers = at_once.min(slots.len());
        let queue = Rc::new(RefCell::new(VecDeque::from(slots)));
        let results = Rc::new(RefCell::new(Vec::new()));
        let work = Rc::new(work);
        let mut done = Vec::new();
        for _ in 0..workers {
            let (core, queue, results, work) = (self.clone(), queue.clone(), results.clone(), work.clone());
            let (finished, wait) = oneshot::channel();
            done.push(wait);
            self.env.spawn(Box::pin(async move {
                loop {
                    let Some(slot) = queue.borrow_mut().pop_front() else { break };
                    let result = work(core.clone(), slot.clone()).await;
                    results.borrow_mut().push((slot, result));
                }
                let _ = finished.send(());
            }));
        }
        for wait in done {
            let _ = wait.await;
        }
        results.take()
    }
}

fn lasting_shortage(error: &io::Error) -> Option<Shortage> {
    Shortage::of(error).filter(|shortage| shortage.may_last())
}

/// A shortage that may last is what those who wait have to hear.
fn keep_worse(failed: &mut Option<io::Error>, error: io::Error) {
    if failed.as_ref().is_none_or(|failed| lasting_shortage(failed).is_none()) {
        *failed = Some(error);
    }
}

/// Settles when journal space or memory is short.
pub(crate) async fn run(core: Rc<Core>) {
    let mut refused_since: Option<Duration> = None;
    let mut first_waiting = None;
    loop {
        core.reclaim_wanted.notified().await;
        let middle = core.settle_below();
        let straight_bytes = core.straight_bytes.get();
        let bounds_recovery = straight_bytes > core.settings.journal_bytes / 2;
        let old = |log: &Log| {
            log.oldest_round().is_some_and(|oldest| oldest < middle)
                || log.is_settle_soon()
                || bounds_recovery && log.is_side_files_due()
        };
        let mut result = core.settle(core.slots_where(old), Force::RoundsBefore(middle)).await;
        if bounds_recovery && result.is_ok() {
            // Not at any checkpoint: what recovery reads begins at the index entries and snapshots that this has saved.
            core.straight_bytes.set(core.straight_bytes.get() - straight_bytes);
        }
        core.note_short(&result);
        core.retry_waiting();
        if core.short.borrow().is_none() && !core.waiting.borrow().is_empty() {
            // Memory is short all the same: everything is settled, and nobody keeps what is.
            result = core.settle(core.slots_where(|log| !log.is_settled()), Force::Always).await;
            core.note_short(&result);
            core.retry_waiting();
        }
        if !core.waiting.borrow().is_empty() {
            core.release_settled();
            core.retry_waiting();
        }
        if result.is_err() {
            core.space_changed.notify_waiters();
            let reason = core.short.borrow().clone();
            if let Some(reason) = reason {
                core.refuse_waiting(&reason);
            }
            core.env.sleep(RETRY).await;
            core.want_reclaim();
        }
        if !core.waiting.borrow().is_empty() {
            // Others still hold what was settled: consumers that are being sent to.
            core.env.sleep(Duration::from_millis(2)).await;
            core.retry_waiting();
        }
        // Which batch that is, by its bytes.
        let first = core.waiting.borrow().front().map(|append| append.batch.as_ptr() as usize);
        if std::mem::replace(&mut first_waiting, first) != first {
            refused_since = None;
        }
        if let Some(reason) = first.and_then(|_| core.why_no_memory()) {
            let now = core.env.monotonic();
            if now - *refused_since.get_or_insert(now) >= REFUSED_MAX {
                refused_since = None;
                core.refuse_first_waiting(reason);
                core.retry_waiting();
            }
        } else {
            refused_since = None;
        }
        if !core.waiting.borrow().is_empty() {
            core.reclaim_wanted.notify_one();
        }
    }
}

/// Writes large runs to segments as they come.
pub(crate) async fn run_flushes(core: Rc<Core>) {
    loop {
        let slots: Vec<_> = core.flush_queue.borrow_mut().drain(..).collect();
        if slots.is_empty() {
            core.flush_wanted.notified().await;
            continue;
        }
        let results = core
            .for_each(slots, FLUSHES_MAX, |core, slot| {
                Box::pin(async move {
                    slot.flush_queued.set(false);
                    let _files = slot.files_lock.lock().await;
                    if core.may_flush(&slot).is_err() {
                        return Ok(());
                    }
                    flush::flush(&core.flush_io(), &slot.log, false).await
                })
            })
            .await;
        for (slot, result) in results {
            if let Err(error) = result {
                core.note_flush_error(&slot, &error);
                core.env.sleep(RETRY).await;
            }
        }
    }
}

/// Settles partitions that went idle and, later, lets go of their memory; looks after `flush.ms`.
pub(crate) async fn run_idle(core: Rc<Core>) {
    let mut files_swept = core.env.monotonic();
    loop {
        core.env.sleep(IDLE_CHECK).await;
        if core.env.monotonic().saturating_sub(files_swept) >= FILES_IDLE {
            files_swept = core.env.monotonic();
            core.files.close_idle();
        }
        let now = core.env.now();
        let mut idle = Vec::new();
        for slot in core.slots.borrow().values() {
            let mut log = slot.log.borrow_mut();
            if log.offline_reason().is_some() {
                continue;
            }
            if log.unsynced_upto().is_some() && log.wants_sync(now.0) {
                core.sync_wanted.set(true);
            }
            let idle_ms = log.idle_since(now);
            if log.is_settled() && !log.owes_a_seal() {
                if idle_ms >= IDLE_RELEASE_MS {
                    log.release_all();
                }
            } else if idle_ms >= IDLE_MS && idle.len() < IDLE_SETTLES_MAX {
                idle.push(slot.clone());
            }
        }
        if core.sync_wanted.get() {
            core.round_wanted.notify_one();
        }
        if !idle.is_empty() && core.settle(idle, Force::Always).await.is_err() {
            core.env.sleep(RETRY).await;
        }
    }
}
