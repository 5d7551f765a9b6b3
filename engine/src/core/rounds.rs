//! The journal's rounds. A round takes all that arrived for the core's partitions since the last one, in one run of blocks; while
//! it is in flight the next one collects, so group commit needs no timer. When it is written and synced, positions move,
//! producers are answered and consumers woken. A full disk costs the producers of the round an error and nothing else, and what makes
//! room on it has some of the journal to itself; any other failure of the journal is believed for good, and a new one is started
//! ([`super::generations`]).

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::core::straight::{STRAIGHT_AT_ONCE, STRAIGHT_BYTES_MAX};
use crate::core::{Core, Slot};
use crate::disk::{Payload, Shortage};
use crate::env::all;
use crate::journal::format::Entry;
use crate::journal::writer::{LiveRound, RoundBuilder};
use crate::log::append::AppendError;
use crate::log::journaling::{Replies, Run};
use crate::types::{Offset, PartitionId};

/// How many payload bytes a round takes at the most, unless one batch is larger.
pub(super) const ROUND_BYTES_MAX: u64 = 4 << 20;

/// How many passes of settling may leave the journal full before producers are told.
const SPACE_PASSES_MAX: u32 = 4;

/// A run that a round takes.
pub(super) struct Taken {
    pub(super) slot: Rc<Slot>,
    pub(super) run: Run,
    /// Whether it makes room on the disk.
    pub(super) makes_room: bool,
}

/// How much of the journal a round may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// All but its reserve.
    Common,
    /// All of it: it makes room.
    All,
}

/// What became of the journal's part of a round where it was not written.
enum Failure {
    /// Nothing was written: the reason.
    NoRoom(String),
    /// The disk is full, and some of it may be written.
    DiskFull(LiveRound, io::Error),
    /// The journal is not to be believed any more.
    Journal(io::Error),
}

/// Runs rounds as long as the core lives.
pub(crate) async fn run(core: Rc<Core>) {
    loop {
        if core.dirty.borrow().is_empty() && !core.sync_wanted.get() {
            core.round_wanted.notified().await;
        }
        // Whoever is ready to append now comes along.
        tokio::task::yield_now().await;
        core.round_running.set(true);
        core.round().await;
        core.journal.borrow_mut().in_flight = None;
        core.round_running.set(false);
        core.round_done.notify_waiters();
    }
}

impl Core {
    /// One round, from collecting to answering.
    async fn round(&self) {
        // FlushedSurvives: what is old has its sync although nothing new arrived for it, also where something always does for others.
        let sync_due = self.sync_wanted.replace(false);
        let (mut taken, straight) = self.collect();
        if taken.is_empty() && straight.is_empty() {
            // What woke this was perhaps taken along by the round before.
            if sync_due {
                self.sync_only().await;
            }
            return;
        }
        let around = all(straight.iter().map(|taken| self.write_straight(taken)));
        // Whatever failed, what is still under way ends first.
        let (mut result, _) = tokio::join!(self.write_round(&taken, Share::Common), around);
        if matches!(result, Err(Failure::NoRoom(_))) && self.is_kept_by_offline() {
            match self.take_over_journal().await {
                Ok(true) => result = self.write_round(&taken, Share::Common).await,
                Ok(false) => {}
                Err(error) => result = Err(Failure::Journal(error)),
            }
        }
        if let Err(Failure::NoRoom(reason)) = &result {
            let others;
            (taken, others) = taken.into_iter().partition(|taken| taken.makes_room);
            self.cut(&others, &AppendError::NoRoom(reason.clone()));
            self.cut_stains().await;
            result = self.write_round(&taken, Share::All).await;
        }
        if result.is_err() && sync_due {
            self.sync_wanted.set(true);
        }
        match result {
            Ok(()) if sync_due => return self.sync_only().await,
            Ok(()) => return,
            Err(Failure::NoRoom(reason)) => self.cut(&taken, &AppendError::NoRoom(reason)),
            Err(Failure::DiskFull(round, error)) => self.disk_full(&taken, round, &error),
            Err(Failure::Journal(error)) => self.restart_journal(&error).await,
        }
        self.cut_stains().await;
    }

    /// The journal's part of a round.
    async fn write_round(&self, taken: &[Taken], share: Share) -> Result<(), Failure> {
        if taken.is_empty() {
            return Ok(());
        }
        let now_ms = self.env.now().0;
        let sync = taken.iter().any(|taken| taken.slot.log.borrow().wants_sync(now_ms));
        let entries: Vec<Entry> = taken.iter().map(|taken| taken.run.entry(taken.slot.id)).collect();
        let payload_bytes = taken.iter().map(|taken| taken.run.to - taken.run.from).sum();
        let len = RoundBuilder::round_bytes(entries.len(), payload_bytes);
        let round = self.place(len, payload_bytes, share).await?;
        let Some(mut builder) = RoundBuilder::new(&self.scratch, &entries) else {
            self.take_back_place(round);
            return Err(Failure::NoRoom("no memory for a round of the journal".to_owned()));
        };
        for taken in taken {
            let mut log = taken.slot.log.borrow_mut();
            log.visit_run(&taken.run, |bytes| builder.push(bytes));
            log.note_round(round.sequence, taken.run.to);
        }
        let (file, id) = {
            let journal = self.journal.borrow();
            (journal.file.clone(), journal.id)
        };
        let (buffer, len) = builder.finish(id, round);
        let payload = Payload::Buffer { buffer, len };
        let write_done = Cell::new(false);
        let result = if sync {
            let (written, is_written) = oneshot::channel();
            let synced = file.write_and_sync(payload, round.position, written);
            let told = async {
                if is_written.await.is_ok() {
                    write_done.set(true);
                    self.written(taken, false);
                }
            };
            tokio::join!(synced, told).0
        } else {
            file.write_at(payload, round.position).await
        };
        tracing::trace!(core = self.index, ?round, len, sync, ?result, "round");
        match result {
            Ok(()) => {
                {
                    let mut journal = self.journal.borrow_mut();
                    journal.extent = journal.extent.max(round.position + len as u64);
                    if sync {
                        journal.gave_back = None;
                    }
                }
                self.written(taken, sync);
                self.want_extension();
                self.want_reclaim();
                Ok(())
            }
            // A sync may say so too, and a failed sync is believed by nobody.
            Err(error) if Shortage::of(&error) == Some(Shortage::Room) && !write_done.get() => {
                Err(Failure::DiskFull(round, error))
            }
            Err(error) => Err(Failure::Journal(error)),
        }
    }

    /// What the next round carries: what goes to the journal, and what goes straight to segments.
    fn collect(&self) -> (Vec<Taken>, Vec<Taken>) {
        let (mut taken, mut straight) = (Vec::new(), Vec::new());
        let mut later = Vec::new();
        let (mut bytes, mut straight_bytes) = (0, 0);
        let mut dirty = self.dirty.borrow_mut();
        while let Some(slot) = dirty.pop_front() {
            if slot.deleted.get() {
                continue;
            }
            let mut log = slot.log.borrow_mut();
            if straight.len() < STRAIGHT_AT_ONCE
                && straight_bytes < STRAIGHT_BYTES_MAX
                && self.choose_straight(&slot, &mut log)
                && let Some(run) = log.next_run(ROUND_BYTES_MAX, true)
            {
                straight_bytes += run.to - run.from;
                let more = log.has_unjournaled();
                drop(log);
                slot.queued.set(more);
                straight.push(Taken { slot: slot.clone(), run, makes_room: false });
                if more {
                    later.push(slot);
                }
                continue;
            }
            let makes_room = slot.makes_room.get();
            while let Some(run) = log.next_run(ROUND_BYTES_MAX.saturating_sub(bytes), taken.is_empty()) {
                bytes += run.to - run.from;
                taken.push(Taken { slot: slot.clone(), run, makes_room });
            }
            let more = log.has_unjournaled();
            drop(log);
            if more {
                dirty.push_front(slot);
                break;
            }
            slot.queued.set(false);
            slot.makes_room.set(false);
        }
        dirty.extend(later);
        (taken, straight)
    }

    /// Finds a place for a round in blocks that were written before, waiting until space is free.
    async fn place(&self, len: u64, payload_bytes: u64, share: Share) -> Result<LiveRound, Failure> {
        let round = self.free_place(len, payload_bytes, share).await.map_err(Failure::NoRoom)?;
        let end = {
            let space = &self.journal.borrow().space;
            let spared = if share == Share::Common { space.reserve_bytes() } else { 0 };
            (round.position + len + spared).min(space.bytes_max())
        };
        match self.extend_to(end).await {
            Ok(()) => Ok(round),
            Err(error) if Shortage::of(&error) == Some(Shortage::Room) => {
                if share == Share::All {
                    // The little room that is left may be enough for the round itself, which finds it out.
                    return Ok(round);
                }
                self.take_back_place(round);
                Err(Failure::NoRoom(self.told_full(&error)))
            }
            // Zeros were not written, and nothing is known to be lost.
            Err(error) if Shortage::of(&error) == Some(Shortage::Memory) => {
                self.take_back_place(round);
                Err(Failure::NoRoom("no memory to extend the journal".to_owned()))
            }
            Err(error) => Err(Failure::Journal(error)),
        }
    }

    /// A round that was not begun gives its place back.
    fn take_back_place(&self, round: LiveRound) {
        let mut journal = self.journal.borrow_mut();
        journal.space.give_back(round);
        journal.in_flight = None;
    }

    async fn free_place(&self, len: u64, payload_bytes: u64, share: Share) -> Result<LiveRound, String> {
        let mut passes_left = SPACE_PASSES_MAX;
        loop {
            {
                let mut journal = self.journal.borrow_mut();
                let position = match share {
                    Share::Common => journal.space.place(len),
                    Share::All => journal.space.place_to_the_last(len).or_else(|| {
                        // The disk, where it was full, may have as little as this now.
                        journal.space.limit_to(self.settings.journal_bytes);
                        journal.space.place_to_the_last(len)
                    }),
                };
                if let Some(position) = position {
                    let round = journal.space.take(position, len, payload_bytes);
                    journal.in_flight = Some(round.sequence);
                    return Ok(round);
                }
                if journal.space.used_bytes() == 0 {
                    // It may be as short as this because the disk was full: a checkpoint finds out whether it still is.
                    self.reclaim_wanted.notify_one();
                    return Err(format!("the journal ({} bytes) is smaller than the batch", journal.space.bytes_max()));
                }
            }
            if passes_left == 0 {
                return Err("the journal is full, and segments do not take what it holds".to_owned());
            }
            passes_left -= 1;
            let changed = self.space_changed.notified();
            self.round_waits.set(true);
            self.reclaim_wanted.notify_one();
            changed.await;
            self.round_waits.set(false);
            if let Some(reason) = self.short.borrow().as_ref() {
                return Err(reason.clone());
            }
        }
    }

    /// The round is written, or written and synced: positions move, answers go out, consumers wake.
    fn written(&self, taken: &[Taken], synced: bool) {
        let mut replies = Replies::default();
        for taken in taken {
            let (more, unflushed) = {
                let mut log = taken.slot.log.borrow_mut();
                let (to, next_offset) = (taken.run.to, taken.run.next_offset);
                let more = if synced {
                    log.round_synced(to, next_offset, &mut replies)
                } else {
                    log.round_written(to, next_offset, &mut replies)
                };
                (more, log.unflushed_bytes())
            };
            if more {
                taken.slot.wake_watchers();
            }
            self.want_flush(&taken.slot, unflushed);
        }
        replies.send();
    }

    /// A sync of what rounds have written without one, and what follows where it fails.
    async fn sync_only(&self) {
        if let Err(error) = self.sync_written().await {
            self.restart_journal(&error).await;
            self.cut_stains().await;
        }
    }

    /// Syncs what rounds have written without a sync, and commits it.
    ///
    /// # Errors
    /// Those of the disk: the journal is not to be believed any more.
    pub(super) async fn sync_written(&self) -> io::Result<()> {
        if self.journal_lost.borrow().is_some() {
            // What it has is for the next start; a sync that succeeds now says nothing of it.
            return Ok(());
        }
        let slots: Vec<_> = self.slots.borrow().values().cloned().collect();
        let unsynced: Vec<_> = slots
            .into_iter()
            .filter_map(|slot| {
                let upto = slot.log.borrow().unsynced_upto();
                upto.map(|(to, next_offset)| (slot, to, next_offset))
            })
            .collect();
        let replaces = self.journal.borrow().replaces_given_back();
        if unsynced.is_empty() && !replaces {
            return Ok(());
        }
        let file = self.journal.borrow().file.clone();
        file.sync_data().await?;
        if replaces {
            self.journal.borrow_mut().gave_back = None;
        }
        let mut replies = Replies::default();
        for (slot, to, next_offset) in unsynced {
            if slot.log.borrow_mut().round_synced(to, next_offset, &mut replies) {
                slot.wake_watchers();
            }
        }
        replies.send();
        Ok(())
    }

    /// The disk has no room for a round: the producers of the round are told.
    fn disk_full(&self, taken: &[Taken], round: LiveRound, error: &io::Error) {
        {
            let mut journal = self.journal.borrow_mut();
            journal.space.give_back(round);
            journal.gave_back = Some(round.sequence);
        }
        let reason = self.told_full(error);
        self.cut(taken, &AppendError::NoRoom(reason));
    }

    /// The disk has no room to extend the journal, which stays as long as it is. Returns what producers are told.
    fn told_full(&self, error: &io::Error) -> String {
        {
            let mut journal = self.journal.borrow_mut();
            let extent = journal.extent;
            if extent > 0 {
                journal.space.limit_to(extent);
            }
        }
        self.warn_short(Shortage::Room, error, "producers are told to try again");
        self.reclaim_wanted.notify_one();
        format!("{}: {error}", Shortage::Room)
    }

    /// What a round took is answered with an error and cut off the logs.
    fn cut(&self, taken: &[Taken], error: &AppendError) {
        let mut replies = Replies::default();
        for taken in taken {
            taken.slot.log.borrow_mut().cut_uncommitted(error, &mut replies);
        }
        replies.send();
    }

    /// Each partition's recovery point and log start.
    pub(crate) fn recovery_points(&self) -> Vec<(PartitionId, Offset, Offset)> {
        let slots = self.slots.borrow();
        let own = slots.values().map(|slot| {
            let log = slot.log.borrow();
            (slot.id, log.recovery_point(), log.next_log_start())
        });
        own.chain(self.carried.borrow().iter().copied()).collect()
    }

    /// Waits until everything that was appended so far has been through a round.
    pub(crate) async fn rounds_drained(&self) {
        loop {
            let done = self.round_done.notified();
            if self.dirty.borrow().is_empty() && !self.round_running.get() {
                if self.waiting.borrow().is_empty() {
                    return;
                }
                // What waits for memory is not ours to hurry.
                self.env.sleep(Duration::from_millis(1)).await;
                continue;
            }
            self.round_wanted.notify_one();
            done.await;
        }
    }
}
