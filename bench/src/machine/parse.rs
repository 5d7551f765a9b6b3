//! Readers of what the kernel writes into /proc and /sys (proc(5), cgroups(7)). Pure; for the other files of this folder. A text
//! that is not what it should be gives `None` or less, never a panic.

/// The number behind `name` at the start of a line, in the file's own unit.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    word(text, name)?.parse().ok()
}

/// The first word behind `name` at the start of a line.
pub(super) fn word<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

/// The value of a line `key : value`, as in /proc/cpuinfo.
pub(super) fn keyed<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key && !value.trim().is_empty()).then(|| value.trim())
    })
}

/// The choice in brackets: `always [madvise] never`.
pub(super) fn chosen(text: &str) -> Option<&str> {
    text.split_once('[')?.1.split_once(']').map(|(chosen, _)| chosen)
}

/// How many a list such as `0-3,8` names.
pub(super) fn list_len(list: &str) -> Option<u64> {
    list.trim().split(',').try_fold(0_u64, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// A size in sysfs: `32K`, `32768K`, `1M`.
pub(super) fn size_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A line of /proc/PID/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// `major:minor` of the filesystem.
    pub device: String,
    /// Which directory of the filesystem is mounted.
    pub root: String,
    pub point: String,
    pub options: String,
    pub kind: String,
    pub source: String,
    pub super_options: String,
}

/// All mounts that are written as they should be.
pub(super) fn mounts(text: &str) -> Vec<Mount> {
    text.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    // Optional fields end at a lone hyphen.
    let (front, back) = line.split_once(" - ")?;
    let front: Vec<&str> = front.split(' ').collect();
    let back: Vec<&str> = back.split(' ').collect();
    Some(Mount {
        device: (*front.get(2)?).to_owned(),
        root: unescaped(front.get(3)?),
        point: unescaped(front.get(4)?),
        options: (*front.get(5)?).to_owned(),
        kind: (*back.first()?).to_owned(),
        source: unescaped(back.get(1)?),
        super_options: (*back.get(2)?).to_owned(),
    })
}

/// Blanks, tabs, line ends and backslashes are written as octal escapes.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// The mount that shows `path` (absolute, without links): the longest mount point that leads to it, the last of equals.
pub(super) fn mount_of<'a>(mounts: &'a [Mount], path: &str) -> Option<&'a Mount> {
    let leads = |point: &str| {
        let point = point.trim_end_matches('/');
        path.strip_prefix(point).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    mounts.iter().filter(|mount| leads(&mount.point)).max_by_key(|mount| mount.point.trim_end_matches('/').len())
}

/// Where a process is in a cgroup hierarchy, from /proc/PID/cgroup: `controller` of version 1, or version 2 for `None`.
pub(super) fn cgroup<'a>(text: &'a str, controller: Option<&str>) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_it = match controller {
            Some(wanted) => controllers.split(',').any(|known| known == wanted),
            None => id == "0" && controllers.is_empty(),
        };
        is_it.then_some(path)
    })
}

/// The processors that `cpu.max` of cgroup 2 allows: `max 100000` is no limit.
pub(super) fn quota(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let quota: f64 = words.next()?.parse().ok()?;
    let period: f64 = words.next()?.parse().ok()?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// Ticks of all processors, from the first line of /proc/stat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ticks {
    pub all: u64,
    /// Not idle, not waiting, not stolen.
    pub busy: u64,
    pub stolen: u64,
}

/// The ticks, and the number of processors.
pub(super) fn ticks(stat: &str) -> Option<(Ticks, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let values: Vec<u64> = line.split_whitespace().map_while(|value| value.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal guest guest_nice; a guest's time is in user as well.
    let at = |index: usize| values.get(index).copied().unwrap_or(0);
    if values.len() < 4 {
        return None;
    }
    let busy = at(0) + at(1) + at(2) + at(5) + at(6);
    let processors = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count() as u64;
    Some((Ticks { all: busy + at(3) + at(4) + at(7), busy, stolen: at(7) }, processors))
}

/// A process's name and the ticks it has used, from /proc/PID/stat.
pub(super) fn process_ticks(stat: &str) -> Option<(String, u64)> {
    // The name may hold anything, but no field after it holds a bracket.
    let (front, back) = stat.rsplit_once(')')?;
    let name = front.split_once('(')?.1;
    let fields: Vec<&str> = back.split_whitespace().collect();
    let used = fields.get(11)?.parse::<u64>().ok()?.checked_add(fields.get(12)?.parse().ok()?)?;
    Some((name.to_owned(), used))
}

/// `avg10` of the `some` line of a file in /proc/pressure: per cent of the last ten seconds.
pub(super) fn pressure(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\ncache size\t: 1024 KB\nflags\t\t: fpu hypervisor\npower management:\n";
    const MEMINFO: &str =
        "MemTotal:       24684092 kB\nMemFree:        19642496 kB\nMemAvailable:   23851976 kB\nHugePages_Total:       0\n";
    const MOUNTINFO: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard,resuid=65534
30 27 259:3 / /mnt/my\\040data rw,noatime shared:5 master:1 - xfs /dev/nvme0n1p3 rw,attr2
31 27 0:40 / /mnt/my\\040data rw - tmpfs over rw,size=4k
32 27 0:41 / /mnt/my rw - tmpfs tmpfs rw
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
a line that is none
";

    #[test]
    fn fields_are_found() {
        assert_eq!(field(MEMINFO, "MemTotal:"), Some(24_684_092));
        assert_eq!(field(MEMINFO, "Swap:"), None);
        assert_eq!(keyed(CPUINFO, "model name"), Some("AMD EPYC"));
        assert_eq!(keyed(CPUINFO, "power management"), None);
        assert_eq!(keyed("", "model name"), None);
        assert_eq!(chosen("always [madvise] never"), Some("madvise"));
        assert_eq!(chosen("always madvise"), None);
        assert_eq!(word("Seccomp:\t2\nSeccomp_filters:\t1", "Seccomp:"), Some("2"));
    }

    #[test]
    fn lists_and_sizes() {
        assert_eq!(list_len("0-1"), Some(2));
        assert_eq!(list_len("0,2-3,8\n"), Some(4));
        for bad in ["", "3-1", "a", "0-18446744073709551615"] {
            assert_eq!(list_len(bad), None, "{bad}");
        }
        assert_eq!(size_bytes("32768K\n"), Some(32 << 20));
        assert_eq!(size_bytes("48K"), Some(48 << 10));
        assert_eq!(size_bytes("512"), Some(512));
        for bad in ["", "K", "xK", "99999999999999999999K", "18446744073709551615G"] {
            assert_eq!(size_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_path_has_its_mount() {
        let mounts = mounts(MOUNTINFO);
        assert_eq!(mounts.len(), 6);
        let kind = |path: &str| mount_of(&mounts, path).map(|mount| (mount.kind.as_str(), mount.source.as_str()));
        assert_eq!(kind("/home/me"), Some(("ext4", "/dev/vda")));
        assert_eq!(kind("/"), Some(("ext4", "/dev/vda")));
        assert_eq!(kind("/mnt/my data/x"), Some(("tmpfs", "over")), "the later mount hides the earlier");
        assert_eq!(kind("/mnt/my"), Some(("tmpfs", "tmpfs")));
        assert_eq!(kind("/mnt/mystery"), Some(("ext4", "/dev/vda")), "names are whole");
        assert_eq!(mounts[2].options, "rw,noatime");
        assert_eq!(mounts[2].device, "259:3");
    }

    #[test]
    fn cgroups_of_both_versions() {
        let text = "4:memory:/a/b\n1:cpu,cpuacct:/c\n0::/system.slice/x.service\n";
        assert_eq!(cgroup(text, Some("memory")), Some("/a/b"));
        assert_eq!(cgroup(text, Some("cpu")), Some("/c"));
        assert_eq!(cgroup(text, None), Some("/system.slice/x.service"));
        assert_eq!(cgroup("", None), None);
        assert_eq!(quota("150000 100000\n"), Some(1.5));
        assert_eq!(quota("max 100000\n"), None);
        assert_eq!(quota("-1 100000"), None);
        assert_eq!(quota("1 0"), None);
    }

    #[test]
    fn time_is_told_apart() {
        let stat = "cpu  10 1 5 100 7 2 3 4 0 0\ncpu0 5 0 2 50 3 1 1 2 0 0\ncpu1 5 1 3 50 4 1 2 2 0 0\nintr 1\n";
        assert_eq!(ticks(stat), Some((Ticks { all: 132, busy: 21, stolen: 4 }, 2)));
        assert_eq!(ticks("cpu  1 2"), None);
        assert_eq!(ticks(""), None);
        let line = "12 (a (b) c) R 1 12 12 0 -1 4194304 5 6 7 8 30 12 0 0 20 0 1 0 100 1 1";
        assert_eq!(process_ticks(line), Some(("a (b) c".to_owned(), 42)));
        assert_eq!(process_ticks("12 (cut"), None);
        assert_eq!(process_ticks("12 (cut) R 1"), None);
    }

    #[test]
    fn pressure_is_read() {
        let text = "some avg10=1.17 avg60=0.84 avg300=3.25 total=46920622\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(pressure(text), Some(1.17));
        assert_eq!(pressure("full avg10=1"), None);
    }
}
