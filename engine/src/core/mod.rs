//! One core: a pinned thread with its partitions, its journal, its memory and its mailbox. Whoever is on the thread calls
//! [`Core`]; everybody else goes through its [`CoreHandle`]. What runs here never blocks: the disk is waited for by tasks.
//!
//! - [`rounds`]: the journal's rounds, and what follows when they are written and synced. [`straight`]: what goes around it.
//! - [`reclaim`]: from the tail to the segments, so that journal space and memory come free.
//! - [`cleaner`]: which log is compacted next. [`scrubber`]: looks for what has rotted.
//! - [`partitions`]: opening, deleting, retention, the clean stop.
//! - [`recover`]: replay of the journals at start. [`runtime`]: the threads.

pub mod cleaner;
mod extend;
mod generations;
mod mailbox;
mod partitions;
mod reclaim;
pub mod recover;
mod rounds;
pub mod runtime;
pub mod scrubber;
mod straight;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::batch::BatchHeader;
use crate::disk::Disk;
use crate::disk::cache::FileCache;
use crate::env::Env;
use crate::log::Log;
use crate::log::append::{Acks, AppendError, AppendReply};
use crate::log::flush::FlushIo;
use crate::log::inflow::Inflow;
use crate::log::published::Published;
use crate::log::read::{Probe, Reader};
use crate::memory::Pool;
use crate::types::{Offset, PartitionId};

pub use mailbox::{CoreHandle, Message, Stopped, run as run_mailbox};
pub use partitions::{ClosedPartition, NewPartition};

/// How a core is set up.
#[derive(Clone, Debug)]
pub struct CoreSettings {
    /// The data directory.
    pub data_directory: PathBuf,
    /// How long the core's journal may grow.
    pub journal_bytes: u64,
    /// The largest run of one partition, in bytes, that goes through the journal where it may go straight to its segment.
    pub journal_run_bytes_max: u64,
    /// How much memory its tails may take.
    pub tail_bytes: usize,
    /// How many files it keeps open at the most.
    pub open_files_max: usize,
}

/// A partition, as every core knows it.
pub struct Partition {
    /// Which partition it is.
    pub id: PartitionId,
    /// The core that owns it.
    pub core: usize,
    /// What may be read of it without asking that core.
    pub published: Arc<Published>,
    /// How much is on its way into it.
    pub inflow: Arc<Inflow>,
}

/// A batch on its way into a partition. The header is validated, but not the CRC.
pub struct Append {
    /// Where it goes.
    pub partition: PartitionId,
    /// The batch.
    pub batch: Bytes,
    /// Its header; where the largest timestamp in the batch is wrong, with the right one.
    pub header: BatchHeader,
    /// When the answer is due.
    pub acks: Acks,
    /// Where it goes.
    pub reply: AppendReply,
}

/// Somebody on any core who waits until one of several partitions shows more.
#[derive(Default)]
pub struct Watcher {
    notify: Notify,
}

impl Watcher {
    /// Resolves when a watched partition showed something new since the watch was set.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }

    fn wake(&self) {
        self.notify.notify_one();
    }
}

/// A partition on the core that owns it.
pub(crate) struct Slot {
    pub(crate) id: PartitionId,
    pub(crate) log: Rc<RefCell<Log>>,
    /// Whether it is in the list of those with something for the journal.
    pub(crate) queued: Cell<bool>,
    /// Whether the next round has something of it that makes room.
    pub(crate) makes_room: Cell<bool>,
    /// Whether it is in the list of those with much to flush.
    pub(crate) flush_queued: Cell<bool>,
    /// Whether it is in the list of those that may have memory to let go.
    pub(crate) releasable: Cell<bool>,
    /// Whether it is being deleted: no round takes it, and its files are not ours to touch. Another partition may have its
    /// folder's name by now.
    pub(crate) deleted: Cell<bool>,
    /// Until when compaction leaves it alone, by the monotonic clock.
    pub(crate) clean_after: Cell<Duration>,
    /// Held while its files are written.
    pub(crate) files_lock: tokio::sync::Mutex<()>,
    /// Whether its files are being settled: from when the lock is held for that until what came of it is known.
    pub(crate) settling: Cell<bool>,
    /// Whether what arrived last was a run that may go straight to its segment.
    pub(crate) large_runs: Cell<bool>,
    watchers: RefCell<Vec<Arc<Watcher>>>,
    watchers_checked: Cell<usize>,
}

impl Slot {
    fn new(log: Log) -> Self {
        Self {
            id: log.id(),
            log: Rc::new(RefCell::new(log)),
            queued: Cell::new(false),
            makes_room: Cell::new(false),
            flush_queued: Cell::new(false),
            releasable: Cell::new(false),
            deleted: Cell::new(false),
            clean_after: Cell::new(Duration::ZERO),
            files_lock: tokio::sync::Mutex::new(()),
            settling: Cell::new(false),
            large_runs: Cell::new(false),
            watchers: RefCell::new(Vec::new()),
            watchers_checked: Cell::new(0),
        }
    }

    pub(crate) fn wake_watchers(&self) {
        for watcher in self.watchers.borrow_mut().drain(..) {
            watcher.wake();
        }
    }

    fn watch(&self, watcher: Arc<Watcher>) {
        let mut watchers = self.watchers.borrow_mut();
        // Those who stopped waiting leave their entry behind; swept when the list has doubled.
        if watchers.len() >= 16 && watchers.len() >= 2 * self.watchers_checked.get() {
            watchers.retain(|watcher| Arc::strong_count(watcher) > 1);
            self.watchers_checked.set(watchers.len().max(8));
        }
        watchers.push(watcher);
    }
}

/// See the module.
pub struct Core {
    /// Its number, from 0.
    pub index: usize,
    /// Its disk.
    pub disk: Rc<dyn Disk>,
    /// Its clock, randomness and tasks.
    pub env: Rc<dyn Env>,
    /// Reads of any partition.
    pub reader: Reader,
    settings: CoreSettings,
    files: Rc<FileCache>,
    /// The memory of the tails.
    pool: Pool,
    /// The memory of rounds, and of reads.
    scratch: Pool,
    slots: RefCell<BTreeMap<PartitionId, Rc<Slot>>>,
    dirty: RefCell<VecDeque<Rc<Slot>>>,
    journal: RefCell<generations::Journal>,
    round_wanted: Notify,
    /// Told whenever a round ends.
    round_done: Notify,
    round_running: Cell<bool>,
    /// Whether a round waits for space in the journal.
    round_waits: Cell<bool>,
    extend_wanted: Notify,
    /// Told whenever the journal was made longer, or could not be.
    extend_done: Notify,
    /// Whether a page-cache topic has to be synced although nothing new arrived.
    sync_wanted: Cell<bool>,
    /// Until when nothing goes straight to segments, by the monotonic clock: it failed.
    straight_after: Cell<Duration>,
    /// How much went straight to segments since all had their index entries and snapshots saved: recovery reads it.
    straight_bytes: Cell<u64>,
    /// Partitions with much to flush.
    flush_queue: RefCell<VecDeque<Rc<Slot>>>,
    flush_wanted: Notify,
    reclaim_wanted: Notify,
    /// Told when journal space came free, or could not.
    space_changed: Notify,
    /// Why nothing can be flushed, while that is so.
    short: RefCell<Option<String>>,
    /// One settling at a time: of two syncs of a file the first may fail and the second succeed, and the second would be
    /// believed before the first is heard of.
    settle_lock: tokio::sync::Mutex<()>,
    /// Held while log starts move and segments are removed, and by the clean stop, which writes down where logs start.
    log_start_lock: tokio::sync::Mutex<()>,
    /// One checkpoint at a time.
    checkpoint_lock: tokio::sync::Mutex<()>,
    /// Compaction, where it runs.
    cleaner: OnceCell<Arc<cleaner::Cleaner>>,
    /// Held while a log is cleaned.
    cleaning_lock: tokio::sync::Mutex<()>,
    /// Held while a step of the scrub reads and judges.
    scrub_lock: tokio::sync::Mutex<()>,
    /// How often all partitions were gone through since the start.
    scrub_passes: Cell<u64>,
    /// Whether all partitions of the last run are here: until then the last run's checkpoint is the one that counts.
    begun: Cell<bool>,
    /// Partitions of the last run that are other cores' now: while not all cores have begun, this one's checkpoint takes the place
    /// of one that may have had them, and theirs are not there yet.
    carried: RefCell<Vec<(PartitionId, Offset, Offset)>>,
    /// Why there is no journal any more, where there is none.
    journal_lost: RefCell<Option<String>>,
    /// Until when a full journal is not left for a new one, by the monotonic clock: that failed.
    take_over_after: Cell<Duration>,
    /// When it was last said in the log what there is none of.
    short_warned: Cell<Option<Duration>>,
    /// Appends that wait for memory, in order.
    waiting: RefCell<VecDeque<Append>>,
    /// Partitions whose tail may have something to let go.
    releasable: RefCell<VecDeque<Rc<Slot>>>,
    stopping: Cell<bool>,
    /// After a clean stop there is nothing to write a checkpoint for.
    journal_removed: Cell<bool>,
}

/// What rounds and cold reads may take: enough for the largest batch anybody configures.
const SCRATCH_BYTES: usize = 1 << 30;

impl Core {
    /// A core with a new journal; its tasks are started with [`Core::start`].
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn new(
        index: usize,
        settings: CoreSettings,
        disk: Rc<dyn Disk>,
        env: Rc<dyn Env>,
        probe: Probe,
    ) -> io::Result<Rc<Self>> {
        let files = Rc::new(FileCache::new(disk.clone(), settings.open_files_max));
        let scratch = Pool::new(SCRATCH_BYTES);
        let journal = generations::Journal::create(&disk, &env, index, &settings).await?;
        Ok(Rc::new(Self {
            index,
            reader: Reader::new(disk.clone(), env.clone(), files.clone(), scratch.clone(), probe),
            pool: Pool::new(settings.tail_bytes),
            scratch,
            disk,
            env,
            settings,
            files,
            slots: RefCell::default(),
            dirty: RefCell::default(),
            journal: RefCell::new(journal),
            round_wanted: Notify::new(),
            round_done: Notify::new(),
            round_running: Cell::new(false),
            round_waits: Cell::new(false),
            extend_wanted: Notify::new(),
            extend_done: Notify::new(),
            sync_wanted: Cell::new(false),
            straight_after: Cell::new(Duration::ZERO),
            straight_bytes: Cell::new(0),
            flush_queue: RefCell::default(),
            flush_wanted: Notify::new(),
            reclaim_wanted: Notify::new(),
            space_changed: Notify::new(),
            short: RefCell::default(),
            settle_lock: tokio::sync::Mutex::new(()),
            log_start_lock: tokio::sync::Mutex::new(()),
            checkpoint_lock: tokio::sync::Mutex::new(()),
            cleaner: OnceCell::new(),
            cleaning_lock: tokio::sync::Mutex::new(()),
            scrub_lock: tokio::sync::Mutex::new(()),
            scrub_passes: Cell::new(0),
            begun: Cell::new(false),
            carried: RefCell::default(),
            journal_lost: RefCell::default(),
            take_over_after: Cell::default(),
            short_warned: Cell::default(),
            waiting: RefCell::default(),
            releasable: RefCell::default(),
            stopping: Cell::new(false),
            journal_removed: Cell::new(false),
        }))
    }

    /// Starts the tasks that serve the journal and the segments.
    pub fn start(self: &Rc<Self>) {
        self.env.spawn(Box::pin(rounds::run(self.clone())));
        self.env.spawn(Box::pin(extend::run(self.clone())));
        self.env.spawn(Box::pin(reclaim::run(self.clone())));
        self.env.spawn(Box::pin(reclaim::run_flushes(self.clone())));
        self.env.spawn(Box::pin(reclaim::run_idle(self.clone())));
    }

    pub(crate) fn flush_io(&self) -> FlushIo<'_> {
        FlushIo { disk: &self.disk, files: &self.files, pool: &self.scratch }
    }

    pub(crate) fn slot(&self, id: PartitionId) -> Option<Rc<Slot>> {
        self.slots.borrow().get(&id).cloned()
    }

    /// Runs `look` on a partition's log, where this core has it.
    pub fn with_log<T>(&self, id: PartitionId, look: impl FnOnce(&mut Log) -> T) -> Option<T> {
        self.slot(id).map(|slot| look(&mut slot.log.borrow_mut()))
    }

    /// Takes a batch for a partition of this core. Batches for one partition are appended in the order of the calls.
    pub fn append(&self, append: Append) {
        if !self.waiting.borrow().is_empty() {
            self.waiting.borrow_mut().push_back(append);
        } else if let Err(append) = self.try_append(&self.pool, append) {
            self.waiting.borrow_mut().push_back(append);
            self.reclaim_wanted.notify_one();
        }
    }

    /// Takes a small batch that makes room on the disk once it is committed, as the removal of a topic does. Where there is no room for
    /// others, in memory or in the journal, there is for these: waiting would be for others to make it. One at a time for a partition.
    pub fn append_to_make_room(&self, append: Append) {
        let slot = self.slot(append.partition);
        if let Err(append) = self.try_append(&self.pool, append)
            && let Err(append) = self.try_append(&self.scratch, append)
        {
            return self.refuse(append, "the system has no memory left");
        }
        if let Some(slot) = slot.filter(|slot| slot.queued.get()) {
            slot.makes_room.set(true);
        }
    }

    #[allow(
        clippy::result_large_err,
        reason = "it comes back for want of memory only, and a box would be an allocation per batch"
    )]
    fn try_append(&self, pool: &Pool, mut append: Append) -> Result<(), Append> {
        if self.stopping.get() {
            append.reply.send(Err(AppendError::Offline("the broker is stopping".to_owned())));
            return Ok(());
        }
        let Some(slot) = self.slot(append.partition) else {
            append.reply.send(Err(AppendError::Deleted));
            return Ok(());
        };
        if let Some(reason) = self.journal_lost.borrow().as_ref() {
            append.reply.send(Err(AppendError::Offline(reason.clone())));
            return Ok(());
        }
        let now = self.env.now();
        loop {
            let Append { batch, header, acks, reply, .. } = append;
            let result = slot.log.borrow_mut().append(&batch, &header, acks, reply, pool, now);
            match result {
                Ok(()) => {
                    self.queue(&slot);
                    return Ok(());
                }
                Err(reply) => append = Append { partition: slot.id, batch, header, acks, reply },
            }
            if !self.release_oldest() {
                return Err(append);
            }
        }
    }

    /// Puts a partition on the list for the next round, where it has something for it.
    fn queue(&self, slot: &Rc<Slot>) {
        if !slot.queued.get() && slot.log.borrow().has_unjournaled() {
            slot.queued.set(true);
            self.dirty.borrow_mut().push_back(slot.clone());
            self.round_wanted.notify_one();
        }
    }

    /// Lets go of the piece of a tail that has been settled longest. Returns whether there was one.
    fn release_oldest(&self) -> bool {
        loop {
            let Some(slot) = self.releasable.borrow_mut().pop_front() else { return false };
            slot.releasable.set(false);
            let released = slot.log.borrow_mut().release_oldest().is_some();
            if released {
                self.may_release(&slot);
                return true;
            }
        }
    }

    /// Puts a partition at the end of the list of those that may have memory to let go.
    pub(crate) fn may_release(&self, slot: &Rc<Slot>) {
        if !slot.releasable.replace(true) {
            self.releasable.borrow_mut().push_back(slot.clone());
        }
    }

    /// Tries again what waited for memory.
    pub(crate) fn retry_waiting(&self) {
        loop {
            let Some(append) = self.waiting.borrow_mut().pop_front() else { return };
            if let Err(append) = self.try_append(&self.pool, append) {
                self.waiting.borrow_mut().push_front(append);
                return;
            }
        }
    }

    /// Answers what has waited for memory longest with an error: all that is to be had is too little for it.
    pub(crate) fn refuse_first_waiting(&self, reason: &str) {
        let first = self.waiting.borrow_mut().pop_front();
        first.into_iter().for_each(|append| self.refuse(append, reason));
    }

    /// Answers everything that waits for memory with an error: none will come free.
    pub(crate) fn refuse_waiting(&self, reason: &str) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(|append| self.refuse(append, reason));
    }

    /// Answers a batch for which there is no room; its producer may send it again.
    fn refuse(&self, append: Append, reason: &str) {
        let now = self.env.now();
        self.with_log(append.partition, |log| log.note_refused(&append.batch, &append.header, now));
        append.reply.send(Err(AppendError::NoRoom(reason.to_owned())));
    }

    /// Wakes `watcher` when the partition shows more than up to `seen`; at once if it does already or is not here any more.
    pub fn watch(&self, id: PartitionId, seen: Offset, watcher: Arc<Watcher>) {
        match self.slot(id) {
            Some(slot) if slot.log.borrow().published().high_watermark() <= seen => slot.watch(watcher),
            _ => watcher.wake(),
        }
    }

    /// The memory that the tails hold, and the bound.
    #[must_use]
    pub fn memory_bytes(&self) -> (usize, usize) {
        (self.pool.out_bytes(), self.pool.bytes_max())
    }
}
