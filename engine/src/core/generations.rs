//! The journal's generations. Each is a file of its own; the checkpoint names the one that counts. A start begins one behind those that
//! the last run left, a failed journal is given up for the next one, and so is a full one that only partitions keep which are offline.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::core::rounds::ROUND_BYTES_MAX;
use crate::core::{Core, CoreSettings, Slot};
use crate::disk::{Create, Disk, File, OpenOptions, Payload};
use crate::env::Env;
use crate::journal::checkpoint::Checkpoint;
use crate::journal::format::JournalId;
use crate::journal::writer::{RoundBuilder, Space};
use crate::journal::{CHECKPOINT_FILE, directory_name, generation_of, journal_path};
use crate::log::append::AppendError;
use crate::log::journaling::Replies;
use crate::types::{Offset, PartitionId};

/// How long a full journal is left alone when what offline partitions keep of it could not be taken over.
const TAKE_OVER_RETRY: Duration = Duration::from_secs(10);

/// A core's journal file and its space.
pub(crate) struct Journal {
    pub(crate) directory: PathBuf,
    pub(crate) file: Rc<dyn File>,
    pub(crate) id: JournalId,
    pub(crate) generation: u64,
    /// The newest generation of which there may be a file: one that was begun and did not come to count may have left one.
    newest: u64,
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
            newest: generation,
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
    pub(super) fn replaces_given_back(&self) -> bool {
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

/// The oldest rounds of the journal that are still needed.
pub(super) struct OldestRounds {
    /// By partitions that are offline.
    pub(super) offline: Option<u64>,
    /// By the others.
    pub(super) others: Option<u64>,
}

/// Rounds that a log needs, each with the stream position that it reaches.
type Rounds = Vec<(u64, u64)>;

/// A generation that is written and does not count yet.
struct Next {
    journal: Journal,
    /// Whether it comes to count in the place of the present one. Before the core has begun the last run's counts, with what it knows of
    /// partitions that are not open yet.
    begun: bool,
    /// What each log needs of it.
    rounds: Vec<(Rc<Slot>, Rounds)>,
}

impl Core {
    /// The journal failed and is believed by nobody any more. What it had not committed is answered with an error and cut; a new one
    /// begins with what is committed and not in segments yet, which the tails still have. If that fails, the core's
    /// partitions are out of service.
    pub(super) async fn restart_journal(&self, error: &io::Error) {
        tracing::error!(core = self.index, %error, "the journal failed: a new one is started");
        // What room there is the new one needs.
        {
            let mut journal = self.journal.borrow_mut();
            journal.extend_refused_at = Some(journal.extent);
        }
        // No checkpoint may name the old journal from here on.
        let _one = self.checkpoint_lock.lock().await;
        let mut replies = Replies::default();
        self.cut_all(&AppendError::Journal(error.to_string()), &mut replies);
        let started = match self.next_journal().await {
            Ok(next) => self.replace_journal(next).await,
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            let reason = format!("its journal failed and no new one could be started: {error}");
            // What the old one holds is needed at the next start: nothing of it may be freed from now on.
            *self.journal_lost.borrow_mut() = Some(reason.clone());
            // What was appended in the meantime has no journal to go to.
            for slot in self.cut_all(&AppendError::Journal(reason.clone()), &mut replies) {
                slot.log.borrow_mut().set_offline(&reason);
                slot.wake_watchers();
            }
        }
        // Whoever asks next what has become of it finds a log that takes it, or one that is out of service.
        replies.send();
        self.space_changed.notify_waiters();
    }

    /// Whether partitions that are offline keep the oldest rounds of a full journal, and a new one would have room. What they keep
    /// nobody settles before the next start, and the others would have no journal until then.
    pub(super) fn is_kept_by_offline(&self) -> bool {
        if self.short.borrow().is_some() || self.env.monotonic() < self.take_over_after.get() {
            return false;
        }
        let OldestRounds { offline, others } = self.oldest_rounds();
        let is_older = offline.is_some_and(|offline| others.is_none_or(|others| offline < others));
        let bytes: u64 = self.slots.borrow().values().map(|slot| slot.log.borrow().unsettled_bytes()).sum();
        is_older && bytes <= self.settings.journal_bytes / 2
    }

    pub(super) fn oldest_rounds(&self) -> OldestRounds {
        let mut oldest = OldestRounds { offline: None, others: None };
        for slot in self.slots.borrow().values() {
            let log = slot.log.borrow();
            let oldest = if log.offline_reason().is_some() { &mut oldest.offline } else { &mut oldest.others };
            *oldest = (*oldest).into_iter().chain(log.oldest_round()).min();
        }
        oldest
    }

    /// Leaves a full journal for a new one that begins with what is committed and not settled. `false`: that could not be written, and
    /// the old one goes on. Between rounds only.
    ///
    /// # Errors
    /// It is not known any more which journal counts, or the old one failed.
    pub(super) async fn take_over_journal(&self) -> io::Result<bool> {
        // What was written and not synced would have its next sync in a file that does not have it.
        self.sync_written().await?;
        // No checkpoint may name the old journal once one names the new one.
        let _one = self.checkpoint_lock.lock().await;
        let next = match self.next_journal().await {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(core = self.index, %error, "no new journal could be started for the one that offline partitions keep full");
                self.take_over_after.set(self.env.monotonic() + TAKE_OVER_RETRY);
                return Ok(false);
            }
        };
        self.replace_journal(next).await?;
        tracing::info!(core = self.index, "a new journal begins with what offline partitions kept of the last");
        self.space_changed.notify_waiters();
        Ok(true)
    }

    /// Cuts everything that is not committed off all logs; `replies` has the error for it.
    fn cut_all(&self, error: &AppendError, replies: &mut Replies) -> Vec<Rc<Slot>> {
        let slots: Vec<_> = self.slots.borrow().values().cloned().collect();
        for slot in &slots {
            slot.log.borrow_mut().cut_uncommitted(error, replies);
            slot.queued.set(false);
            slot.makes_room.set(false);
        }
        self.dirty.borrow_mut().clear();
        slots
    }

    /// The next generation, with what is committed and not settled, and its checkpoint, but for the name: both synced. Of one that fails
    /// the file may stay until the next start.
    async fn next_journal(&self) -> io::Result<Next> {
        let (directory, generation) = {
            let mut journal = self.journal.borrow_mut();
            journal.newest += 1;
            (journal.directory.clone(), journal.newest)
        };
        let journal = Journal::start(&self.disk, &self.env, directory, generation, self.settings.journal_bytes).await?;
        let path = journal_path(&journal.directory, journal.generation);
        let mut next = Next { journal, begun: self.begun.get(), rounds: Vec::new() };
        match self.fill(&mut next).await {
            Ok(()) => Ok(next),
            Err(error) => {
                drop(next);
                if let Err(error) = self.disk.remove_file(&path).await {
                    tracing::debug!(core = self.index, %error, "what was begun of a new journal could not be removed");
                }
                Err(error)
            }
        }
    }

    /// Writes what it begins with, and the checkpoint where there is to be one.
    async fn fill(&self, next: &mut Next) -> io::Result<()> {
        let Next { journal, begun, rounds } = next;
        let slots: Vec<_> = self.slots.borrow().values().cloned().collect();
        for slot in slots {
            let mut needed = Vec::new();
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
                slot.log.borrow().visit_run(&run, |bytes| builder.push(bytes));
                needed.push((round.sequence, run.to));
                let (buffer, len) = builder.finish(journal.id, round);
                journal.file.write_at(Payload::Buffer { buffer, len }, round.position).await?;
                journal.extent = round.position + len as u64;
            }
            rounds.push((slot, needed));
        }
        journal.file.sync_data().await?;
        if !*begun {
            return Ok(());
        }
        let text = journal.checkpoint_text(self.recovery_points(), 0);
        crate::disk::write_replacement(&self.disk, &journal.checkpoint_path(), text.into_bytes()).await
    }

    /// Makes the next generation the core's, and the one that counts.
    ///
    /// # Errors
    /// Those of the disk: it is not known which one does.
    async fn replace_journal(&self, next: Next) -> io::Result<()> {
        let Next { journal, begun, rounds } = next;
        if begun {
            crate::disk::put_replacement(&self.disk, &journal.checkpoint_path()).await?;
        }
        for (slot, rounds) in rounds {
            slot.log.borrow_mut().replace_rounds(rounds);
        }
        let (directory, generation) = (journal.directory.clone(), journal.generation);
        *self.journal.borrow_mut() = journal;
        if !begun {
            return Ok(());
        }
        // They are not named any more, and go at the next start at the latest.
        if let Err(error) = remove_other_generations(&self.disk, &directory, generation).await {
            tracing::warn!(core = self.index, %error, "an old journal could not be removed");
        }
        Ok(())
    }
}
