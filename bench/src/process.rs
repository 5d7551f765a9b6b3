//! What a process used, from /proc: CPU seconds, memory, storage, context switches. For the broker under test and for ourselves.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use crate::error::Error;
use crate::results::ProcessUse;
use crate::units::show_bytes;

/// A reading of a process's counters.
#[derive(Clone, Debug)]
pub struct Reading {
    cpu_s: f64,
    written_bytes: Option<u64>,
    read_bytes: Option<u64>,
    /// Context switches of each thread, voluntary and not. io_uring's workers come and go, so a sum would not do.
    switches: BTreeMap<u32, (u64, u64)>,
    /// Whether the process's peak of memory counts from here on.
    is_peak_own: bool,
}

impl Reading {
    /// The counters of process `pid` now; its ended threads count for CPU and storage, not for context switches.
    ///
    /// # Errors
    /// There is no such process.
    pub fn take(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The command's name may hold anything, but no field after it holds a bracket (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let mut switches = BTreeMap::new();
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end while we look.
            let path = thread?.path();
            let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
            let Some(id) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
            let count = |name| field(&status, name).unwrap_or(0);
            switches.insert(id, (count("voluntary_ctxt_switches:"), count("nonvoluntary_ctxt_switches:")));
        }
        let storage = fs::read_to_string(format!("/proc/{pid}/io")).ok();
        let storage = |name| storage.as_deref().and_then(|text| field(text, name));
        Ok(Self {
            cpu_s: (ticks(11) + ticks(12)) as f64 / per_second as f64,
            written_bytes: storage("write_bytes:"),
            read_bytes: storage("read_bytes:"),
            switches,
            is_peak_own: false,
        })
    }

    /// The same, and the process's peak of memory begins anew (proc_pid_clear_refs(5)), where we may: with its user's rights.
    ///
    /// # Errors
    /// There is no such process.
    pub fn begin(pid: u32) -> io::Result<Self> {
        let is_peak_own = fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok();
        Ok(Self { is_peak_own, ..Self::take(pid)? })
    }

    /// What process `pid` used since this reading, over `bytes` of traffic.
    ///
    /// # Errors
    /// The process has ended.
    pub fn used_since(&self, pid: u32, bytes: u64) -> io::Result<ProcessUse> {
        let now = Self::take(pid)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let cpu_s = now.cpu_s - self.cpu_s;
        let since = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        let switches = now.switches.iter().map(|(id, now)| {
            let then = self.switches.get(id).copied().unwrap_or_default();
            (now.0.saturating_sub(then.0), now.1.saturating_sub(then.1))
        });
        let (voluntary, involuntary) = switches.fold((0, 0), |sum, thread| (sum.0 + thread.0, sum.1 + thread.1));
        Ok(ProcessUse {
            cpu_s,
            cpu_s_per_gb: if bytes == 0 { 0.0 } else { cpu_s / (bytes as f64 / 1e9) },
            rss_peak_bytes: field(&status, "VmHWM:").unwrap_or(0) << 10,
            rss_peak_of_run: self.is_peak_own,
            rss_bytes: field(&status, "VmRSS:").unwrap_or(0) << 10,
            written_bytes: since(now.written_bytes, self.written_bytes),
            read_bytes: since(now.read_bytes, self.read_bytes),
            switches_voluntary: voluntary,
            switches_involuntary: involuntary,
        })
    }
}

/// The bytes of anonymous memory that process `pid` has in memory: what it has allocated and touched, and no files that it maps.
///
/// # Errors
/// There is no such process, or the system does not say.
pub fn anonymous_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = field(&status, "RssAnon:").ok_or_else(|| io::Error::other("/proc does not say what memory it has"))?;
    Ok(kib << 10)
}

/// The most free space of the filesystems on which process `pid` has files open to write; `None` where it has none, or does not let
/// us look. What a broker writes its data to is among them, beside its log and the like, which may be on small ones.
#[must_use]
pub fn free_bytes_where_written(pid: u32) -> Option<u64> {
    const WRITES: u32 = 0o3;
    let of_one = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_str()?)).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let is_written = u32::from_str_radix(flags.trim(), 8).ok()? & WRITES != 0;
        // Through the link in /proc, so that it is the broker's file whatever its name is now.
        let is_file = is_written && fs::metadata(entry.path()).is_ok_and(|file| file.is_file());
        let status = is_file.then(|| rustix::fs::statvfs(entry.path()).ok())??;
        // What has no blocks is memory by another name.
        (status.f_blocks > 0).then(|| status.f_bavail.saturating_mul(status.f_frsize))
    };
    fs::read_dir(format!("/proc/{pid}/fd")).ok()?.filter_map(of_one).max()
}

/// Refuses a load that does not fit where process `pid` writes; where that is not known, nothing is refused.
///
/// # Errors
/// There is less free space than `bytes`.
pub fn check_room_of(pid: u32, bytes: u64) -> Result<(), Error> {
    match free_bytes_where_written(pid) {
        Some(free_bytes) if free_bytes < bytes => Err(Error::Usage(format!(
            "the broker (pid {pid}) has {} of free space, and this needs {}",
            show_bytes(free_bytes),
            show_bytes(bytes)
        ))),
        _ => Ok(()),
    }
}

/// The number behind a name at the start of a line, as /proc writes them.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_use_is_seen() -> io::Result<()> {
        let pid = std::process::id();
        let before = Reading::take(pid)?;
        let start = std::time::Instant::now();
        let mut used = before.used_since(pid, 1_000_000_000)?;
        // Others may have the CPU meanwhile.
        while used.cpu_s <= 0.0 && start.elapsed() < std::time::Duration::from_secs(60) {
            used = before.used_since(pid, 1_000_000_000)?;
        }
        assert!(used.cpu_s > 0.0 && used.cpu_s < 300.0, "{used:?}");
        assert!((used.cpu_s - used.cpu_s_per_gb).abs() < 1e-9);
        assert!(used.rss_bytes > 0 && used.rss_peak_bytes >= used.rss_bytes, "{used:?}");
        Ok(())
    }

    #[test]
    fn a_peak_is_of_what_came_since() -> io::Result<()> {
        let pid = std::process::id();
        drop(std::hint::black_box(vec![1_u8; 512 << 20]));
        let whole = Reading::take(pid)?.used_since(pid, 0)?;
        assert!(!whole.rss_peak_of_run && whole.rss_peak_bytes > 512 << 20, "{whole:?}");
        let since = Reading::begin(pid)?.used_since(pid, 0)?;
        assert!(since.rss_peak_of_run && since.rss_peak_bytes < whole.rss_peak_bytes - (128 << 20), "{since:?} {whole:?}");
        Ok(())
    }

    #[test]
    fn our_own_memory_is_seen() -> io::Result<()> {
        // Other tests take memory and give it back meanwhile: what is held is in it all the same.
        let taken = std::hint::black_box(vec![1_u8; 64 << 20]);
        let bytes = anonymous_bytes(std::process::id())?;
        assert!(taken.len() == 64 << 20 && bytes > 64 << 20, "{bytes}");
        Ok(())
    }

    #[test]
    fn a_load_that_does_not_fit_is_refused() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let _open = fs::File::create(directory.path().join("segment.log"))?;
        let pid = std::process::id();
        let free_bytes = free_bytes_where_written(pid).unwrap_or(0);
        assert!(free_bytes > 0, "a file of ours is open");
        assert!(check_room_of(pid, 0).is_ok() && check_room_of(u32::MAX, u64::MAX).is_ok());
        let error = check_room_of(pid, u64::MAX).unwrap_err();
        assert_eq!(error.exit_status(), 2);
        assert!(error.to_string().contains("of free space"), "{error}");
        Ok(())
    }

    #[test]
    fn names_are_whole() {
        let text = "voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(field(text, "voluntary_ctxt_switches:"), Some(5));
        assert_eq!(field(text, "nonvoluntary_ctxt_switches:"), Some(7));
    }
}
