//! Rounds of the journal that are on their way to the disk. While one is, the next may already follow it, if much has collected;
//! whatever the disk does first, they *land* in the order in which they were begun. So a round is answered only when all
//! before it are as durable as it is to be, and replay, which follows the chain, finds everything that was answered.
//!
//! - RoundsLandInOrder: positions move and producers are answered round by round.
//! - SyncsFollowEachOther: a round is synced when all before it have landed. So its sync covers their writes, whether they were
//!   synced or not, and no sync that succeeds can be believed while another of the same file has failed and nobody
//!   knows it yet.
//!
//! A failure takes all rounds behind it along. For [`super::rounds`] alone.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::rounds::Taken;
use crate::core::{Core, Slot};
use crate::disk::{File, Payload};
use crate::journal::writer::LiveRound;
use crate::log::append::AppendError;

/// Why a round did not get to the disk.
pub(super) enum Failure {
    /// There is no place for it, in memory or in the journal.
    NoRoom(String),
    /// The disk refused.
    Disk(io::Error),
    /// One before it failed.
    Behind,
}

/// A round between its collecting and its landing.
pub(crate) struct Flight {
    pub(super) taken: Vec<Taken>,
    pub(super) is_synced: bool,
    /// Its place in the journal, once it has one, and how long it is.
    pub(super) place: Cell<Option<(LiveRound, u64)>>,
    is_written: Cell<bool>,
    /// Whether those who only wanted it written were told.
    is_told: Cell<bool>,
    outcome: RefCell<Option<Result<(), Failure>>>,
}

impl Flight {
    fn failed(&self) -> bool {
        matches!(*self.outcome.borrow(), Some(Err(_)))
    }

    fn landed(&self) -> bool {
        matches!(*self.outcome.borrow(), Some(Ok(())))
    }

    fn ended(&self) -> bool {
        self.outcome.borrow().is_some()
    }
}

impl Core {
    /// Puts a round behind those that are in flight.
    pub(super) fn take_off(&self, taken: Vec<Taken>, is_synced: bool) -> Rc<Flight> {
        let flight = Rc::new(Flight {
            taken,
            is_synced,
            place: Cell::new(None),
            is_written: Cell::new(false),
            is_told: Cell::new(false),
            outcome: RefCell::new(None),
        });
        self.flights.borrow_mut().push_back(flight.clone());
        flight
    }

    pub(super) fn is_first_in_flight(&self, flight: &Rc<Flight>) -> bool {
        self.flights.borrow().front().is_some_and(|front| Rc::ptr_eq(front, flight))
    }

    /// Waits until all rounds before it have landed. `false` where one has failed.
    pub(super) async fn first_in_flight(&self, flight: &Rc<Flight>) -> bool {
        loop {
            let changed = self.round_done.notified();
            if self.is_first_in_flight(flight) {
                return true;
            }
            if self.has_failed_flight() {
                return false;
            }
            changed.await;
        }
    }

    /// Writes a round, and syncs it where it is to be. It lands by itself.
    pub(super) fn fly(self: &Rc<Self>, flight: &Rc<Flight>, file: Rc<dyn File>, payload: Payload, position: u64) {
        let (core, flight) = (self.clone(), flight.clone());
        self.env.spawn(Box::pin(async move {
            let result = if flight.is_synced && core.is_first_in_flight(&flight) {
                let (written, is_written) = oneshot::channel();
                let synced = file.write_and_sync(payload, position, written);
                let told = async {
                    if is_written.await.is_ok() {
                        core.note_flight_written(&flight);
                    }
                };
                tokio::join!(synced, told).0.map_err(Failure::Disk)
            } else {
                core.fly_behind(&flight, &file, payload, position).await
            };
            tracing::trace!(core = core.index, place = ?flight.place.get(), is_synced = flight.is_synced, ok = result.is_ok(), "round");
            core.end_flight(&flight, result);
        }));
    }

    async fn fly_behind(&self, flight: &Rc<Flight>, file: &Rc<dyn File>, payload: Payload, position: u64) -> Result<(), Failure> {
        file.write_at(payload, position).await.map_err(Failure::Disk)?;
        self.note_flight_written(flight);
        if !flight.is_synced {
            return Ok(());
        }
        if !self.first_in_flight(flight).await {
            return Err(Failure::Behind);
        }
        file.sync_data().await.map_err(Failure::Disk)
    }

    fn note_flight_written(&self, flight: &Flight) {
        flight.is_written.set(true);
        self.land();
    }

    /// Notes what became of a round.
    pub(super) fn end_flight(&self, flight: &Flight, outcome: Result<(), Failure>) {
        *flight.outcome.borrow_mut() = Some(outcome);
        self.land();
    }

    /// Lands what has come to its end, in order, and tells those who wait for no more than the write.
    fn land(&self) {
        loop {
            let landed = {
                let mut flights = self.flights.borrow_mut();
                if flights.front().is_none_or(|front| !front.landed()) {
                    break;
                }
                let landed = flights.pop_front();
                let mut journal = self.journal.borrow_mut();
                journal.in_flight = flights.front().and_then(|flight| flight.place.get()).map(|(round, _)| round.sequence);
                if let Some((round, len)) = landed.as_ref().and_then(|landed| landed.place.get()) {
                    journal.note_written(round.position + len);
                }
                landed
            };
            if let Some(landed) = landed {
                self.written(&landed.taken, landed.is_synced);
                self.want_reclaim();
            }
        }
        let written: Vec<_> = {
            let flights = self.flights.borrow();
            let written = flights.iter().take_while(|flight| flight.is_written.get());
            written.filter(|flight| !flight.is_told.replace(true)).cloned().collect()
        };
        for flight in written {
            self.written(&flight.taken, false);
        }
        self.round_done.notify_waiters();
        if !self.dirty.borrow().is_empty() || self.sync_wanted.get() || self.has_failed_flight() {
            self.round_wanted.notify_one();
        }
    }

    /// Whether a round has failed: then none is begun.
    pub(super) fn has_failed_flight(&self) -> bool {
        self.flights.borrow().iter().any(|flight| flight.failed())
    }

    /// When a round has failed, and those before it have landed and those behind it come to their end: gives up all of them.
    /// Returns whether that was so.
    pub(super) async fn give_up_failed(&self) -> bool {
        let failed: Vec<_> = {
            let flights = self.flights.borrow();
            if flights.front().is_none_or(|front| !front.failed()) || !flights.iter().all(|flight| flight.ended()) {
                return false;
            }
            flights.iter().cloned().collect()
        };
        let mut no_room = None;
        let mut lost = None;
        for flight in &failed {
            match flight.outcome.take() {
                Some(Err(Failure::NoRoom(reason))) => no_room = no_room.or(Some((reason, false))),
                // A sync may say so too, and a failed sync is believed by nobody.
                Some(Err(Failure::Disk(error))) if is_full(&error) && !flight.is_written.get() => {
                    tracing::warn!(core = self.index, %error, "the disk is full: producers are told to try again");
                    no_room = no_room.or(Some((format!("the disk is full: {error}"), true)));
                }
                Some(Err(Failure::Disk(error))) => lost = lost.or(Some(error)),
                Some(Err(Failure::Behind) | Ok(())) | None => {}
            }
        }
        if let Some(error) = lost {
            self.restart_journal(&error).await;
        } else if let Some((reason, disk_is_full)) = no_room {
            {
                let mut journal = self.journal.borrow_mut();
                for (round, _) in failed.iter().rev().filter_map(|flight| flight.place.get()) {
                    journal.space.give_back(round);
                }
                if disk_is_full {
                    journal.stay_as_long_as_it_is();
                }
            }
            for flight in &failed {
                self.cut(&flight.taken, &AppendError::NoRoom(reason.clone()));
            }
            if disk_is_full {
                self.reclaim_wanted.notify_one();
            }
        }
        self.flights.borrow_mut().clear();
        self.journal.borrow_mut().in_flight = None;
        self.round_done.notify_waiters();
        true
    }

    /// Waits until no round carries anything of this partition.
    pub(crate) async fn out_of_flight(&self, slot: &Rc<Slot>) {
        loop {
            let changed = self.round_done.notified();
            if !self.flights.borrow().iter().flat_map(|flight| &flight.taken).any(|taken| Rc::ptr_eq(&taken.slot, slot)) {
                return;
            }
            changed.await;
        }
    }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}
