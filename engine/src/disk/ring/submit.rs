//! The one place where operations enter the ring.
//!
//! tokio-uring takes any entry from anybody ([`UnsubmittedOneshot::new`] is not marked unsafe); [`submit`] is the same with its
//! conditions written down. [`Permit`]s bound how many operations are in flight, which keeps three promises:
//! - the submission queue is never full, so a pair of linked entries always reaches the kernel in one submission: a chain that
//!   is cut in two is no chain (io_uring_enter(2));
//! - the completion queue never overflows;
//! - at the end of a runtime it is known when the kernel has let go of all memory.
#![allow(unsafe_code, reason = "the kernel reads and writes memory that an operation names")]

use std::cell::{Cell, RefCell};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use io_uring::types::Fd;
use io_uring::{cqueue, opcode, squeue};
use tokio::sync::{Notify, Semaphore};
use tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};

/// The entries of a ring's submission queue, where nobody says otherwise. 28 KiB of lockable memory.
pub(super) const ENTRIES_DEFAULT: u32 = 256;
/// The smallest ring: a linked pair and room for what the runtime itself may submit.
pub(super) const ENTRIES_MIN: u32 = 16;
/// What is left free of the queue for entries that are not ours: tokio-uring submits cancellations when it is dropped.
const ENTRIES_SPARE: u32 = 8;

thread_local! {
    static GATE: RefCell<Option<Rc<Gate>>> = const { RefCell::new(None) };
}

/// Who may enter the ring of this thread.
pub(super) struct Gate {
    permits: Semaphore,
    in_flight: Cell<u32>,
    /// Entries pushed since the last [`Gate::flush`]; the kernel may have some of them already.
    pushed: Cell<u32>,
    idle: Notify,
    /// Descriptors that nobody holds any more.
    to_close: RefCell<Vec<OwnedFd>>,
    has_to_close: Notify,
}

impl Gate {
    /// Opens the ring of this thread to operations.
    pub(super) fn open(entries: u32) -> Rc<Self> {
        let permits = entries.next_power_of_two() - ENTRIES_SPARE;
        let gate = Rc::new(Self {
            permits: Semaphore::new(permits as usize),
            in_flight: Cell::new(0),
            pushed: Cell::new(0),
            idle: Notify::new(),
            to_close: RefCell::default(),
            has_to_close: Notify::new(),
        });
        GATE.with_borrow_mut(|slot| {
            assert!(slot.is_none(), "one ring per thread");
            *slot = Some(gate.clone());
        });
        gate
    }

    /// From now on operations fail instead of entering.
    pub(super) fn close(&self) {
        self.permits.close();
        GATE.with_borrow_mut(Option::take);
        self.to_close.take();
    }

    /// Hands what was pushed to the kernel, without waiting for the thread to come to rest.
    pub(super) fn flush(&self, ring: RawFd) {
        let pushed = self.pushed.get();
        if pushed == 0 {
            return;
        }
        // SAFETY: io_uring_enter(2) takes what stands in the submission queue, at most `pushed` entries; what they point to
        // is valid by the contract of `submit`. It waits for nothing and writes to no memory of ours.
        let taken =
            unsafe { libc::syscall(libc::SYS_io_uring_enter, ring, pushed, 0, 0, std::ptr::null::<libc::sigset_t>(), 0usize) };
        // An error (EINTR, EAGAIN) leaves the entries in the queue for the next time.
        if taken >= 0 {
            self.pushed.set(0);
        }
    }

    /// How many operations the kernel has, or has had and nobody has fetched the result.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Resolves when nothing is in flight.
    pub(super) async fn idle(&self) {
        while self.in_flight() > 0 {
            self.idle.notified().await;
        }
    }

    /// Closes descriptors, for as long as the ring is there.
    pub(super) async fn run_closer(self: Rc<Self>) {
        loop {
            self.has_to_close.notified().await;
            for fd in self.to_close.take() {
                let Ok(permit) = permit().await else { return };
                let entry = opcode::Close::new(Fd(fd.into_raw_fd())).build().flags(squeue::Flags::ASYNC);
                // SAFETY: no memory; the descriptor is given away to the operation. Nobody waits: the ring keeps the permit.
                drop(unsafe { submit(entry, (), permit) });
            }
        }
    }

    fn permit(self: Rc<Self>) -> Permit {
        self.in_flight.set(self.in_flight.get() + 1);
        Permit { gate: self }
    }
}

/// The right to one entry. It lives as long as the operation.
pub(super) struct Permit {
    gate: Rc<Gate>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let left = self.gate.in_flight.get() - 1;
        self.gate.in_flight.set(left);
        self.gate.permits.add_permits(1);
        if left == 0 {
            self.gate.idle.notify_waiters();
        }
    }
}

fn gate() -> io::Result<Rc<Gate>> {
    GATE.with_borrow(Option::clone).ok_or_else(|| io::Error::other("no ring on this thread, or it is closing"))
}

/// Waits until one more operation may enter.
pub(super) async fn permit() -> io::Result<Permit> {
    let gate = gate()?;
    gate.permits.acquire().await.map_err(io::Error::other)?.forget();
    Ok(gate.permit())
}

/// Waits until two more operations may enter.
pub(super) async fn permit_pair() -> io::Result<(Permit, Permit)> {
    let gate = gate()?;
    gate.permits.acquire_many(2).await.map_err(io::Error::other)?.forget();
    Ok((gate.clone().permit(), gate.permit()))
}

/// Closes a descriptor through the ring, or at once where there is none. The last close of a removed file frees its blocks,
/// which takes milliseconds when it was large: a kernel worker's business.
pub(super) fn close_later(fd: OwnedFd) {
    // Not submitted here: this is called by drops, also of operations that tokio-uring drops while it holds the ring.
    if let Ok(gate) = gate() {
        gate.to_close.borrow_mut().push(fd);
        gate.has_to_close.notify_one();
    }
}

/// An operation that the kernel has, or will have when the thread next comes to rest.
pub(super) type InFlight<D> = InFlightOneshot<(D, Permit), Finish<D>>;

/// Gives an operation's memory back with its result.
pub(super) struct Finish<D>(PhantomData<fn() -> D>);

impl<D: 'static> OneshotOutputTransform for Finish<D> {
    type Output = (io::Result<u32>, D);
    type StoredData = (D, Permit);

    fn transform_oneshot_output(self, (data, _permit): (D, Permit), entry: cqueue::Entry) -> Self::Output {
        let result = u32::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result()));
        (result, data)
    }
}

/// Puts an operation into the submission queue. It resolves to its result and `data`; when the future is dropped before, the
/// ring keeps `data` until the kernel is done.
///
/// # Safety
/// - Every pointer in `entry` points to memory that stays valid, and that nobody else uses in a conflicting way, for as long
///   as `data` lives, also while `data` itself is moved (so: to the heap behind it, not to its fields).
/// - The descriptor in `entry` stays open for as long as `data` lives, or is given away to the operation (close).
/// - The operation yields exactly one completion: nothing multishot.
pub(super) unsafe fn submit<D: Unpin + 'static>(entry: squeue::Entry, data: D, permit: Permit) -> InFlight<D> {
    permit.gate.pushed.set(permit.gate.pushed.get() + 1);
    UnsubmittedOneshot::new((data, permit), Finish(PhantomData), entry).submit()
}
