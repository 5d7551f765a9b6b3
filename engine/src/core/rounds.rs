//! The journal's rounds. A round takes all that arrived for the core's partitions since the last one, in one run of blocks; while
//! it is in flight the next one collects, so group commit needs no timer. When it is written and synced, positions move,
//! producers are answered and consumers woken. A full disk costs the producers of the round an error and nothing else, and what makes
//! room on it has some of the journal to itself; any other failure of the journal is believed for good, and a new one is started.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::core::straight::{STRAIGHT_AT_ONCE, STRAIGHT_BYTES_MAX};
use crate::core::{Core, CoreSettings, Slot};
use crate::disk::{Create, Disk, File, OpenOptions, Payload, Shortage};
use crate::env::{Env, all};
use crate::journal::checkpoint::Checkpoint;
use crate::journal::format::{Entry, JournalId};
use crate::journal::writer::{LiveRound, RoundBuilder, Space};
use crate::journal::{CHECKPOINT_FILE, directory_name, generation_of, journal_path};
use crate::log::append::AppendError;
use crate::log::journaling::{Replies, Run};
use crate::types::{Offset, PartitionId};

/// How many payload bytes a round takes at the most, unless one batch is larger.
const ROUND_BYTES_MAX: u64 = 4 << 20;

/// How many passes of settling may leave the journal full before producers are told.
const SPACE_PASSES_MAX: u32 = 4;

/// A core's journal file and its space.
pub(crate) struct Journal {
    pub(crate) directory: PathBuf,
    pub(crate) file: Rc<dyn File>,
    pub(crate) id: JournalId,
    pub(crate) generation: u64,
    pub(crate) space: Space,
    /// How long the file is: blocks below were written before, so that a sync of a round there is a bare flush, once one has followed
    /// the growth.
    pub(super) extent: u64,
    /// Whether it is being made longer.
    pub(super) extending: bool,
    /// How long it was when it could not be made longer ahead of need: that is not tried again before it is.
    pub(super) extend_refused_at: Option<u64>,
    /// The round that is being written: it stays needed until it is known what became of it.
    pub(crate) in_flight: Option<u64>,
    /// The last round whose place was given back while no later one is synced: it may be in the file in spite of that.
    pub(super) gave_back: Option<u64>,
}

impl Journal {
    /// Starts the core's journal anew, in an empty directory or behind the generations that are there. Those stay the ones that
    /// count until the first checkpoint.
    pub(crate) async fn create(
        disk: &Rc<dyn Disk>,
        env: &Rc<dyn Env>,
        index: usize,
        settings: &CoreSettings,
    ) -> io::Result<Self> {
        let directory = settings.data_directory.join(directory_name(index));
        crate::disk::ensure_dir(disk, &settings.data_directory, &directory).await?;
        let newest = disk.list(&directory).await?.iter().filter_map(|entry| generation_of(&entry.name)).max();
        Self::start(disk, env, directory, newest.map_or(0, |newest| newest + 1), settings.journal_bytes).await
    }

    async fn start(
        disk: &Rc<dyn Disk>,
        env: &Rc<dyn Env>,
        directory: PathBuf,
        generation: u64,
        bytes_max: u64,
    ) -> io::Result<Self> {
        let options = OpenOptions { create: Create::New, ..OpenOptions::DIRECT };
        let file = disk.open(&journal_path(&directory, generation), options).await?;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&env.random_u64().to_le_bytes());
        id[8..].copy_from_slice(&env.random_u64().to_le_bytes());
        disk.sync_dir(&directory).await?;
        Ok(Self {
            directory,
            file,
            id: JournalId(id),
            generation,
            space: Space::new(bytes_max),
            extent: 0,
            extending: false,
            extend_refused_at: None,
            in_flight: None,
            gave_back: None,
        })
    }

    /// The checkpoint's text: with these recovery points, replay starts where everything below `oldest` is free.
    pub(crate) fn checkpoint_text(&self, partitions: Vec<(PartitionId, Offset, Offset)>, oldest: u64) -> String {
        let (previous, position) = self.space.start_at(oldest);
        Checkpoint { journal: self.id, generation: self.generation, previous, position, partitions }.encode()
    }

    /// Whether a later round has the place of one that was given back, but for a sync.
    fn replaces_given_back(&self) -> bool {
        self.gave_back.is_some_and(|sequence| sequence < self.space.last_sequence())
    }

    pub(crate) fn checkpoint_path(&self) -> PathBuf {
        self.directory.join(CHECKPOINT_FILE)
    }
}

/// Removes the files of other generations, once a checkpoint names this one.
pub(crate) async fn remove_other_generations(disk: &Rc<dyn Disk>, directory: &Path, generation: u64) -> io::Result<()> {
    for entry in disk.list(directory).await? {
        if generation_of(&entry.name).is_some_and(|found| found != generation) {
            disk.remove_file(&directory.join(&entry.name)).await?;
        }
    }
    disk.sync_dir(directory).await
}

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
            self.reclaim_wanted.notify_one();
            changed.await;
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

    /// A sync of what rounds have written without one.
    async fn sync_only(&self) {
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
            return;
        }
        let file = self.journal.borrow().file.clone();
        match file.sync_data().await {
            Ok(()) => {
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
            }
            Err(error) => {
                self.restart_journal(&error).await;
                self.cut_stains().await;
            }
        }
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

    /// The journal failed and is believed by nobody any more. What it had not committed is answered with an error and cut; a new one
    /// begins with what is committed and not in segments yet, which the tails still have. If that fails, the core's
    /// partitions are out of service.
    async fn restart_journal(&self, error: &io::Error) {
        tracing::error!(core = self.index, %error, "the journal failed: a new one is started");
        // What room there is the new one needs.
        {
            let mut journal = self.journal.borrow_mut();
            journal.extend_refused_at = Some(journal.extent);
        }
        // No checkpoint may name the old journal from here on.
        let _one = self.checkpoint_lock.lock().await;
        let slots = self.cut_all(&AppendError::Journal(error.to_string()));
        if let Err(error) = self.start_next_journal(&slots).await {
            let reason = format!("its journal failed and no new one could be started: {error}");
            // What the old one holds is needed at the next start: nothing of it may be freed from now on.
            *self.journal_lost.borrow_mut() = Some(reason.clone());
            // What was appended in the meantime has no journal to go to.
            for slot in self.cut_all(&AppendError::Journal(reason.clone())) {
                slot.log.borrow_mut().set_offline(&reason);
                slot.wake_watchers();
            }
        }
        self.space_changed.notify_waiters();
    }

    /// Answers everything that is not committed with an error and cuts it off all logs.
    fn cut_all(&self, error: &AppendError) -> Vec<Rc<Slot>> {
        let slots: Vec<_> = self.slots.borrow().values().cloned().collect();
        let mut replies = Replies::default();
        for slot in &slots {
            slot.log.borrow_mut().cut_uncommitted(error, &mut replies);
            slot.queued.set(false);
            slot.makes_room.set(false);
        }
        self.dirty.borrow_mut().clear();
        replies.send();
        slots
    }

    async fn start_next_journal(&self, slots: &[Rc<Slot>]) -> io::Result<()> {
        let (directory, generation) = {
            let journal = self.journal.borrow();
            (journal.directory.clone(), journal.generation + 1)
        };
        let mut journal = Journal::start(&self.disk, &self.env, directory, generation, self.settings.journal_bytes).await?;
        for slot in slots {
            slot.log.borrow_mut().forget_rounds();
            let mut from = 0;
            loop {
                // Asked for one by one: what is settled in the meantime may have left the tail.
                let Some(run) = slot.log.borrow().rejournal(from, ROUND_BYTES_MAX) else { break };
                from = run.to;
                let entry = run.entry(slot.id);
                let payload_bytes = run.to - run.from;
                let len = RoundBuilder::round_bytes(1, payload_bytes);
                let full = || io::Error::from(io::ErrorKind::StorageFull);
                let round =
                    journal.space.place_to_the_last(len).map(|at| journal.space.take(at, len, payload_bytes)).ok_or_else(full)?;
                let mut builder = RoundBuilder::new(&self.scratch, &[entry]).ok_or(io::ErrorKind::OutOfMemory)?;
                {
                    let mut log = slot.log.borrow_mut();
                    log.visit_run(&run, |bytes| builder.push(bytes));
                    log.note_round(round.sequence, run.to);
                }
                let (buffer, len) = builder.finish(journal.id, round);
                journal.file.write_at(Payload::Buffer { buffer, len }, round.position).await?;
                journal.extent = round.position + len as u64;
            }
        }
        journal.file.sync_data().await?;
        let text = journal.checkpoint_text(self.recovery_points(), 0);
        crate::disk::replace_file(&self.disk, &journal.checkpoint_path(), text.into_bytes()).await?;
        // They are not named any more, and go at the next start at the latest.
        if let Err(error) = remove_other_generations(&self.disk, &journal.directory, generation).await {
            tracing::warn!(core = self.index, %error, "an old journal could not be removed");
        }
        *self.journal.borrow_mut() = journal;
        Ok(())
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
