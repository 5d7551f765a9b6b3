//! The part of a round that goes around the journal: large runs, written straight to their segments and synced there (see
//! [`crate::log::straight`] and ADR 0013). They are part of the round that takes them, so a log has nothing else in flight
//! meanwhile, and what fails here is in the journal's next round.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::core::reclaim::RETRY;
use crate::core::rounds::Taken;
use crate::core::{Core, Slot};
use crate::disk::cache::Purpose;
use crate::disk::{Payload, Shortage};
use crate::log::Log;
use crate::log::append::AppendError;
use crate::log::journaling::Replies;
use crate::log::straight::{self, StraightWrite};

/// How many runs of a round may go straight: each has a sync of its own.
pub(super) const STRAIGHT_AT_ONCE: usize = 8;
/// How many bytes of a round may: the next one waits for them.
pub(super) const STRAIGHT_BYTES_MAX: u64 = 8 << 20;

/// How far a write came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// The file could not be opened.
    Nothing,
    /// Any of it may be in the file.
    Begun,
    /// All of it is, but for a sync.
    Written,
}

impl Core {
    /// Decides whether a partition's next run goes around the journal. Where it would pay and cannot be, what stands in the way is
    /// seen to.
    pub(super) fn choose_straight(&self, slot: &Slot, log: &mut Log) -> bool {
        let large = log.unjournaled_bytes() > self.settings.journal_run_bytes_max;
        slot.large_runs.set(large);
        if !large
            || self.env.monotonic() < self.straight_after.get()
            || slot.settling.get()
            || slot.files_lock.try_lock().is_err()
        {
            return false;
        }
        // A round that was given back may be in the file of the journal all the same, and replay takes the last one of the chain for
        // good: nothing else may have got its positions before another round is in its place.
        if self.journal.borrow().gave_back.is_some() {
            self.sync_wanted.set(true);
            return false;
        }
        if log.may_go_straight() {
            return true;
        }
        if log.ask_to_settle_soon(self.settings.journal_run_bytes_max) {
            self.reclaim_wanted.notify_one();
        }
        false
    }

    /// Writes and syncs a run of a segment, and tells those who wait for it; where it fails it goes back, for the journal's next round.
    pub(super) async fn write_straight(&self, taken: &Taken) {
        let slot = &taken.slot;
        let Ok(_files) = slot.files_lock.try_lock() else { return self.return_run(taken, false) };
        let write = slot.log.borrow_mut().begin_straight(&taken.run, &self.scratch);
        let Some(mut write) = write else { return self.return_run(taken, false) };
        let (result, reached) = self.write_and_sync(&mut write).await;
        tracing::trace!(core = self.index, run = ?taken.run, ?result, "straight");
        match result {
            Ok(()) => {
                let mut replies = Replies::default();
                let synced = slot.log.borrow_mut().straight_synced(&taken.run, &write, &mut replies);
                match synced {
                    Some(more) => {
                        if more {
                            slot.wake_watchers();
                        }
                        replies.send();
                        self.may_release(slot);
                        self.straight_bytes.set(self.straight_bytes.get() + (taken.run.to - taken.run.from));
                        self.want_reclaim();
                    }
                    None => self.return_run(taken, true),
                }
            }
            Err(error) => {
                tracing::warn!(core = self.index, %error, "a run could not be written to its segment: it goes through the journal");
                // A shortage loses nothing, but where a sync says so: a failed sync is believed by nobody.
                let is_harmless = Shortage::of(&error).is_some() && reached != Reached::Written;
                if !slot.deleted.get() && !is_harmless {
                    slot.log.borrow_mut().flush_failed(&error);
                }
                // ShortagesPass: a file that could not be opened has nothing that would have to be cut off again.
                self.return_run(taken, reached != Reached::Nothing);
            }
        }
    }

    /// Returns also how far it came.
    async fn write_and_sync(&self, write: &mut StraightWrite) -> (io::Result<()>, Reached) {
        let segment = &write.segment;
        let file = match self.files.open(segment.id, Purpose::Write, &segment.path).await {
            Ok(file) => file,
            Err(error) => return (Err(error), Reached::Nothing),
        };
        let (written, mut told) = oneshot::channel();
        let result = file.write_and_sync(Payload::Slices(std::mem::take(&mut write.slices)), write.position, written).await;
        (result, if told.try_recv().is_ok() { Reached::Written } else { Reached::Begun })
    }

    /// What could not go straight is for the journal, and so is for a while what comes next.
    fn return_run(&self, taken: &Taken, stains: bool) {
        self.straight_after.set(self.env.monotonic() + RETRY);
        taken.slot.log.borrow_mut().return_run(&taken.run, stains);
        if !taken.slot.queued.replace(true) {
            self.dirty.borrow_mut().push_front(taken.slot.clone());
        }
    }

    /// Cuts the files that may have what was cut off their logs, before a round can bring anything else there. What is appended
    /// meanwhile waits for the next round.
    pub(super) async fn cut_stains(&self) {
        let stained: Vec<Rc<Slot>> = {
            let slots = self.slots.borrow();
            slots.values().filter(|slot| slot.log.borrow().is_stained()).cloned().collect()
        };
        for slot in stained {
            let _files = slot.files_lock.lock().await;
            // Of two syncs of a file, one that fails must not be hidden by the other.
            while slot.settling.get() {
                self.env.sleep(Duration::from_millis(1)).await;
            }
            if slot.deleted.get() {
                continue;
            }
            if let Err(error) = straight::cut_stain(&self.flush_io(), &slot.log).await {
                let reason = format!("its segment has what could not be cut off again: {error}");
                let mut replies = Replies::default();
                {
                    let mut log = slot.log.borrow_mut();
                    // What was appended meanwhile has no place to go to.
                    log.cut_uncommitted(&AppendError::Offline(reason.clone()), &mut replies);
                    log.set_offline(&reason);
                }
                replies.send();
                slot.wake_watchers();
            }
        }
    }
}
