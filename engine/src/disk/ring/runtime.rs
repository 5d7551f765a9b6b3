//! The runtime of a core: tokio's tasks, timers and sockets, and a ring, on one thread. And what to tell a user whose machine
//! lets us have no ring.
#![allow(unsafe_code, reason = "the probe pushes an entry of its own")]

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use io_uring::IoUring;
use tokio::task::LocalSet;

use super::submit::{ENTRIES_DEFAULT, ENTRIES_MIN, Gate};

/// How long the end of a runtime waits for the kernel to finish what it was given.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Why there is no ring. Each says in one line what to do.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel does not know io_uring_setup(2), or something pretends so.
    #[error(
        "io_uring is not there (ENOSYS): Linux 6.0 or later built with CONFIG_IO_URING is needed; in a container, the seccomp \
         profile must allow io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Missing,
    /// Forbidden by the administrator.
    #[error(
        "io_uring is switched off on this machine (kernel.io_uring_disabled = {value}): run `sysctl -w kernel.io_uring_disabled=0`"
    )]
    Disabled {
        /// The setting: 1 lets only privileged processes and the group kernel.io_uring_group have rings, 2 nobody.
        value: u32,
    },
    /// Forbidden by a seccomp filter or a security module.
    #[error(
        "io_uring is blocked (EPERM), as the default seccomp profiles of Docker and containerd do: run with a profile that \
         allows io_uring_setup, io_uring_enter and io_uring_register (docker run --security-opt seccomp=PROFILE)"
    )]
    Blocked,
    /// The kernel is older than 6.0.
    #[error("this kernel is too old ({release}): Linux 6.0 or later is needed")]
    TooOld {
        /// What uname(2) says.
        release: String,
    },
    /// No memory to lock is left for this user.
    #[error(
        "not enough lockable memory for a ring (ENOMEM): the limit is {limit}, for all processes of this user together; raise it \
         with `ulimit -l`, or LimitMEMLOCK=infinity in a systemd unit"
    )]
    Memlock {
        /// The soft RLIMIT_MEMLOCK, as text.
        limit: String,
    },
    /// No descriptor is left.
    #[error("no file descriptor is left for a ring: raise the limit with `ulimit -n`, or LimitNOFILE in a systemd unit")]
    Descriptors,
    /// Anything else.
    #[error("io_uring cannot be used: {0}")]
    Other(#[source] io::Error),
}

impl RingError {
    fn from_setup(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Self::Missing,
            Some(libc::EPERM | libc::EACCES) => match disabled_setting() {
                Some(value) if value > 0 => Self::Disabled { value },
                _ => Self::Blocked,
            },
            Some(libc::ENOMEM) => Self::Memlock { limit: memlock_limit() },
            Some(libc::EMFILE | libc::ENFILE) => Self::Descriptors,
            // A flag that it does not know.
            Some(libc::EINVAL) => Self::TooOld { release: rustix::system::uname().release().to_string_lossy().into_owned() },
            _ => Self::Other(error),
        }
    }
}

fn disabled_setting() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

fn memlock_limit() -> String {
    match rustix::process::getrlimit(rustix::process::Resource::Memlock).current {
        Some(bytes) => format!("{} KiB", bytes >> 10),
        None => "infinite".to_owned(),
    }
}

/// Completions are reported when the thread comes to rest, not by interrupting it; only one thread submits. DEFER_TASKRUN
/// would hang, since nobody here waits inside io_uring_enter. An entry that is refused does not hold back those behind it.
fn flags() -> io_uring::Builder {
    let mut builder = tokio_uring::uring_builder();
    builder.setup_coop_taskrun().setup_single_issuer().setup_submit_all();
    builder
}

/// Rings are made and given back one at a time, so that each can be told from the others: one that ends while another is made may leave it
/// its number.
static MAKING: Mutex<()> = Mutex::new(());

/// The descriptors of this process that are rings. tokio-uring does not tell its own.
fn ring_descriptors() -> BTreeSet<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return BTreeSet::new() };
    let is_ring = |path: &Path| std::fs::read_link(path).is_ok_and(|to| to.as_os_str() == "anon_inode:[io_uring]");
    let rings = entries.flatten().filter(|entry| is_ring(&entry.path()));
    rings.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Sets up a ring as [`Runtime`] will, and passes one operation through it. To be called once at start, for an error that a
/// user can do something about.
pub fn probe() -> Result<(), RingError> {
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ring: IoUring = flags().build(ENTRIES_DEFAULT).map_err(RingError::from_setup)?;
    let nothing = io_uring::opcode::Nop::new().build();
    // SAFETY: the entry names no memory and no descriptor.
    unsafe { ring.submission().push(&nothing) }.map_err(|e| RingError::Other(io::Error::other(e)))?;
    ring.submit_and_wait(1).map_err(RingError::from_setup)?;
    match ring.completion().next() {
        Some(entry) if entry.result() == 0 => Ok(()),
        entry => Err(RingError::Other(io::Error::other(format!("an empty operation came back as {entry:?}")))),
    }
}

/// The runtime of one thread. Tasks are spawned with `tokio::task::spawn_local`; sockets and timers are tokio's. Create it
/// before pinning the thread: the kernel's workers inherit the affinity.
pub struct Runtime {
    gate: Rc<Gate>,
    /// Tasks. Ours, and not tokio-uring's own, so that they can be dropped while the ring still runs.
    tasks: ManuallyDrop<LocalSet>,
    ring: ManuallyDrop<tokio_uring::Runtime>,
    /// The ring's descriptor, where /proc tells.
    descriptor: Option<RawFd>,
}

impl Runtime {
    /// A runtime with a ring of so many entries (a power of two, at least 16; see [`Runtime::with_defaults`]).
    ///
    /// # Panics
    /// When this thread has one already.
    pub fn new(entries: u32) -> Result<Self, RingError> {
        let entries = entries.max(ENTRIES_MIN);
        let mut builder = tokio_uring::builder();
        builder.entries(entries).uring_builder(&flags());
        let (ring, descriptor) = {
            let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
            let before = ring_descriptors();
            let ring = tokio_uring::Runtime::new(&builder).map_err(RingError::from_setup)?;
            let made: Vec<RawFd> = ring_descriptors().difference(&before).copied().collect();
            (ring, if let [one] = made[..] { Some(one) } else { None })
        };
        if descriptor.is_none() {
            tracing::warn!("/proc/self/fd does not show the ring: a core that is always busy may hold back its disk operations");
        }
        let (gate, tasks) = (Gate::open(entries), LocalSet::new());
        tasks.spawn_local(gate.clone().run_closer());
        Ok(Self { gate, tasks: ManuallyDrop::new(tasks), ring: ManuallyDrop::new(ring), descriptor })
    }

    /// A runtime with a ring of 256 entries: enough for a core, and cheap in lockable memory.
    pub fn with_defaults() -> Result<Self, RingError> {
        Self::new(ENTRIES_DEFAULT)
    }

    /// Runs everything until the future is done. Other tasks are suspended then, until the next call.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut all = pin!(self.tasks.run_until(future));
        self.ring.block_on(poll_fn(|context| {
            let polled = all.as_mut().poll(context);
            // tokio-uring submits when the thread is about to sleep. As long as some task yields, it never is; so what a
            // batch of tasks (61, tokio's LocalSet) has pushed is submitted after each.
            if let Some(descriptor) = self.descriptor {
                self.gate.flush(descriptor);
            }
            polled
        }))
    }
}

impl Drop for Runtime {
    /// Drops all tasks, waits for the kernel to finish the operations that they left behind, and only then drops the ring:
    /// tokio-uring would free the memory of abandoned operations before it cancels them.
    fn drop(&mut self) {
        let gate = self.gate.clone();
        // SAFETY: dropped once, here, and not used afterwards.
        let tasks = unsafe { ManuallyDrop::take(&mut self.tasks) };
        let drained = self.ring.block_on(async move {
            gate.close();
            drop(tasks);
            tokio::time::timeout(DRAIN_MAX, gate.idle()).await.is_ok()
        });
        if drained {
            assert_eq!(self.gate.in_flight(), 0, "the kernel has let go of all memory");
            let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: as above; nothing is in flight, so nothing points into memory that goes with it.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        } else {
            tracing::error!(operations = self.gate.in_flight(), "the disk does not answer: its ring is left behind");
        }
    }
}

/// Runs one future to its end in a runtime made for it.
pub fn run<F: Future>(entries: u32, future: F) -> Result<F::Output, RingError> {
    Ok(Runtime::new(entries)?.block_on(future))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that ends meanwhile may leave its number to the new one.
    #[test]
    fn a_ring_is_told_from_those_that_end_while_it_is_made() {
        let make = || (0..50).all(|_| Runtime::new(ENTRIES_MIN).unwrap().descriptor.is_some());
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(make)).collect();
        for thread in threads {
            assert!(thread.join().unwrap());
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let text = |code| RingError::from_setup(io::Error::from_raw_os_error(code)).to_string();
        for (code, word) in [
            (libc::ENOSYS, "Linux 6.0"),
            (libc::EPERM, "io_uring"),
            (libc::ENOMEM, "LimitMEMLOCK"),
            (libc::EINVAL, "too old"),
            (libc::EMFILE, "LimitNOFILE"),
            (libc::EIO, "cannot be used"),
        ] {
            let text = text(code);
            assert!(text.contains(word), "{text}");
            assert!(!text.contains('\n') && !text.contains("  "), "one line: {text}");
        }
    }
}
