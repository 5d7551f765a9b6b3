//! What a process used, from /proc: CPU seconds, memory, storage, context switches. For the broker under test and for ourselves.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use crate::results::ProcessUse;

/// A reading of a process's counters.
#[derive(Clone, Debug)]
pub struct Reading {
    cpu_s: f64,
    written_bytes: Option<u64>,
    read_bytes: Option<u64>,
    /// Context switches of each thread, voluntary and not. io_uring's workers come and go, so a sum would not do.
    switches: BTreeMap<u32, (u64, u64)>,
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
        })
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
        let mut sum = 0_u64;
        while start.elapsed() < std::time::Duration::from_millis(60) {
            sum = std::hint::black_box(sum + 1);
        }
        let used = before.used_since(pid, 1_000_000_000)?;
        assert!(used.cpu_s > 0.0 && used.cpu_s < 60.0, "{used:?}");
        assert!((used.cpu_s - used.cpu_s_per_gb).abs() < 1e-9);
        assert!(used.rss_bytes > 0 && used.rss_peak_bytes >= used.rss_bytes, "{used:?}");
        Ok(())
    }

    #[test]
    fn our_own_memory_is_seen() -> io::Result<()> {
        let pid = std::process::id();
        let before = anonymous_bytes(pid)?;
        let taken = std::hint::black_box(vec![1_u8; 64 << 20]);
        let more = anonymous_bytes(pid)?.saturating_sub(before);
        assert!(taken.len() == 64 << 20 && more > 32 << 20, "{more}");
        Ok(())
    }

    #[test]
    fn names_are_whole() {
        let text = "voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(field(text, "voluntary_ctxt_switches:"), Some(5));
        assert_eq!(field(text, "nonvoluntary_ctxt_switches:"), Some(7));
    }
}
