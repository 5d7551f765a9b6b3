//! What the machine must offer, asked before anything is opened. Each answer that is no is one line that says what to do.
//! Called once by `main`.

use ringlog_engine::disk::ring::{self, RingError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// The oldest kernel: single-issuer rings came with it.
const KERNEL_MIN: (u32, u32) = (6, 0);
/// Fewer descriptors serve nobody.
const DESCRIPTORS_MIN: u64 = 1024;
/// Fewer are too few for many partitions or clients.
const DESCRIPTORS_WANTED: u64 = 16 << 10;
/// What a ring of the size that a core uses counts against RLIMIT_MEMLOCK (measured on Linux 6.18).
const RING_LOCKED_BYTES: u64 = 28 << 10;
/// CAP_IPC_LOCK, with which memory to lock is not counted (capabilities(7)).
const CAP_IPC_LOCK: u32 = 14;

/// What is missing.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// The kernel is too old.
    #[error("this kernel is too old ({release}): Linux 6.0 or later is needed")]
    Kernel {
        /// What uname(2) says.
        release: String,
    },
    /// There is no ring for us.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Not enough descriptors.
    #[error(
        "only {limit} file descriptors are allowed, {DESCRIPTORS_MIN} are needed: raise the hard limit (`ulimit -Hn`, LimitNOFILE \
         in a systemd unit, --ulimit nofile in Docker)"
    )]
    Descriptors {
        /// The hard limit.
        limit: u64,
    },
    /// Not enough lockable memory for a ring per core.
    #[error(
        "{cores} cores need {} KiB of lockable memory for their rings, the limit is {} KiB: raise it with `ulimit -l` or \
         LimitMEMLOCK=infinity in a systemd unit, or use fewer cores with --set ringlog.cores=N",
        needed >> 10, limit >> 10
    )]
    Memlock {
        /// How many cores.
        cores: usize,
        /// Bytes they need.
        needed: u64,
        /// The soft limit in bytes.
        limit: u64,
    },
}

/// Checks the kernel, io_uring and the limits of this process for a broker with so many cores, and raises the soft limit of
/// descriptors to the hard one.
///
/// # Errors
/// The first thing that is missing.
pub fn check(cores: usize) -> Result<(), PreflightError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if kernel_version(&release).is_some_and(|version| version < KERNEL_MIN) {
        return Err(PreflightError::Kernel { release });
    }
    descriptors(raise_descriptors())?;
    let exempt = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| has_capability(&status, CAP_IPC_LOCK));
    if !exempt {
        memlock(cores, getrlimit(Resource::Memlock).current)?;
    }
    ring::probe()?;
    Ok(())
}

/// How many cores this process may run on.
#[must_use]
pub fn cores_available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Raises the soft limit to the hard one; returns what holds then, `None` for no limit.
fn raise_descriptors() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            warn!(%error, "the soft limit of file descriptors cannot be raised to the hard one");
            limit.current
        }
    }
}

fn descriptors(limit: Option<u64>) -> Result<(), PreflightError> {
    let Some(limit) = limit else { return Ok(()) };
    if limit < DESCRIPTORS_MIN {
        return Err(PreflightError::Descriptors { limit });
    }
    if limit < DESCRIPTORS_WANTED {
        warn!(
            "only {limit} file descriptors are allowed: enough for few clients and partitions; raise the hard limit (ulimit -Hn)"
        );
    }
    Ok(())
}

fn memlock(cores: usize, limit: Option<u64>) -> Result<(), PreflightError> {
    let needed = cores as u64 * RING_LOCKED_BYTES;
    match limit {
        Some(limit) if limit < needed => Err(PreflightError::Memlock { cores, needed, limit }),
        _ => Ok(()),
    }
}

/// Major and minor of a release such as `6.18.44-fc`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether the text of /proc/self/status (proc_pid_status(5)) has an effective capability.
fn has_capability(status: &str, capability: u32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> capability & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart() {
        assert_eq!(kernel_version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(kernel_version("5.15.0-91-generic"), Some((5, 15)));
        assert_eq!(kernel_version("6.0"), Some((6, 0)));
        assert_eq!(kernel_version("unknown"), None);
        assert!(kernel_version("5.15.0") < Some(KERNEL_MIN) && kernel_version("10.1") > Some(KERNEL_MIN));
    }

    #[test]
    fn each_limit_is_one_line_that_says_what_to_do() {
        assert!(descriptors(None).is_ok() && descriptors(Some(1024)).is_ok());
        let error = descriptors(Some(1023)).unwrap_err().to_string();
        assert!(error.contains("1023") && error.contains("ulimit -Hn") && !error.contains('\n'), "{error}");
        assert!(memlock(64, None).is_ok() && memlock(2, Some(64 << 10)).is_ok());
        let error = memlock(64, Some(64 << 10)).unwrap_err().to_string();
        assert!(error.contains("1792 KiB") && error.contains("64 KiB") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn capabilities_are_read() {
        let status = "Name:\tx\nCapInh:\t0000000000000000\nCapEff:\t0000000000004000\n";
        assert!(has_capability(status, CAP_IPC_LOCK));
        assert!(!has_capability(status, 15));
        assert!(!has_capability("", CAP_IPC_LOCK));
    }

    #[test]
    fn the_soft_limit_of_descriptors_becomes_the_hard_one() {
        raise_descriptors();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
