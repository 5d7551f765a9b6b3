//! The processor, memory, kernel and limits, and who holds them back. For [`super::Machine::probe`].

use rustix::process::{Resource, getrlimit};

use super::parse::{self, Mount};
use super::{Machine, System};
use crate::units::{show_bytes, show_count};

pub(super) fn look(system: &System, machine: &mut Machine) {
    cpu(system, machine);
    memory(system, machine);
    kernel(system, machine);
    limits(machine);
}

/// A cache of the first processor.
pub(super) struct Cache {
    level: u64,
    pub(super) bytes: u64,
}

/// Those that hold data.
pub(super) fn caches(system: &System) -> Vec<Cache> {
    let folder = "/sys/devices/system/cpu/cpu0/cache";
    let cache = |name: &String| {
        let read = |file: &str| system.read(&format!("{folder}/{name}/{file}"));
        if read("type")? == "Instruction" {
            return None;
        }
        Some(Cache { level: read("level")?.parse().ok()?, bytes: parse::size_bytes(&read("size")?)? })
    };
    system.names(folder).iter().filter(|name| name.starts_with("index")).filter_map(cache).collect()
}

fn cpu(system: &System, machine: &mut Machine) {
    let info = system.read("/proc/cpuinfo").unwrap_or_default();
    // ARM has no model name there.
    let model = parse::keyed(&info, "model name").or_else(|| parse::keyed(&info, "Model")).unwrap_or(std::env::consts::ARCH);
    let mut text = model.to_owned();
    let processors = system.read("/proc/stat").and_then(|stat| parse::ticks(&stat)).map_or(0, |(_, processors)| processors);
    if processors > 0 {
        text += &format!(", {processors} processors");
    }
    if let Some(mhz) = parse::keyed(&info, "cpu MHz").and_then(|mhz| mhz.parse::<f64>().ok()) {
        text += &format!(", {:.1} GHz now", mhz / 1e3);
    }
    for cache in caches(system) {
        text += &format!(", L{} {}", cache.level, show_bytes(cache.bytes));
    }
    machine.fact("cpu", text);

    let status = system.read("/proc/self/status").unwrap_or_default();
    let allowed = parse::word(&status, "Cpus_allowed_list:").and_then(|list| Some((list, parse::list_len(list)?)));
    let mut text = match allowed {
        Some((list, count)) => format!("{count} ({list})"),
        None => "not known".to_owned(),
    };
    match cpu_quota(system) {
        Some(quota) => {
            text += &format!(", a cgroup's quota allows {quota:.1}");
            if allowed.is_none_or(|(_, count)| quota < count as f64) {
                machine.warn(format!("a cgroup's quota allows {quota:.1} processors: whoever uses more is stopped for a while"));
            }
        }
        None => text += ", no quota",
    }
    machine.fact("processors allowed", text);

    let governors: Vec<String> = system
        .names("/sys/devices/system/cpu")
        .iter()
        .filter_map(|name| system.read(&format!("/sys/devices/system/cpu/{name}/cpufreq/scaling_governor")))
        .collect();
    if let Some(first) = governors.first() {
        machine.fact("frequency governor", first.clone());
        let saving = governors.iter().filter(|governor| *governor == "powersave").count();
        if saving > 0 {
            machine.warn(format!(
                "{saving} of {} processors have the powersave governor: their frequency may lag behind the load \
                 (cpupower frequency-set -g performance)",
                governors.len()
            ));
        }
    }
}

/// What the mounts and /proc/self/cgroup tell about our cgroup for a controller: its directories, innermost first.
fn cgroup_folders(system: &System, controller: &str) -> Vec<(u8, String)> {
    let mounts = parse::mounts(&system.read("/proc/self/mountinfo").unwrap_or_default());
    let ours = system.read("/proc/self/cgroup").unwrap_or_default();
    let first =
        mounts.iter().find(|mount| mount.kind == "cgroup" && mount.super_options.split(',').any(|option| option == controller));
    let second = mounts.iter().find(|mount| mount.kind == "cgroup2");
    let below = |version: u8, mount: Option<&Mount>, path: Option<&str>| {
        let (Some(mount), Some(path)) = (mount, path) else { return Vec::new() };
        // In a container the mount shows a part of the tree, and the path is of the whole tree.
        let path = path.strip_prefix(mount.root.trim_end_matches('/')).unwrap_or(path).trim_matches('/');
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != "..").collect();
        let mut folders = Vec::new();
        loop {
            folders.push((version, format!("{}/{}", mount.point.trim_end_matches('/'), parts.join("/"))));
            if parts.pop().is_none() {
                return folders;
            }
        }
    };
    let mut folders = below(1, first, parse::cgroup(&ours, Some(controller)));
    folders.extend(below(2, second, parse::cgroup(&ours, None)));
    folders
}

/// The processors that the tightest quota above us allows.
fn cpu_quota(system: &System) -> Option<f64> {
    let quota = |(version, folder): (u8, String)| match version {
        1 => {
            let quota = system.read(&format!("{folder}/cpu.cfs_quota_us"))?;
            parse::quota(&format!("{quota} {}", system.read(&format!("{folder}/cpu.cfs_period_us"))?))
        }
        _ => parse::quota(&system.read(&format!("{folder}/cpu.max"))?),
    };
    cgroup_folders(system, "cpu").into_iter().filter_map(quota).min_by(f64::total_cmp)
}

/// How often a quota has stopped us, out of how many periods.
pub(super) fn throttled(system: &System) -> Option<(u64, u64)> {
    cgroup_folders(system, "cpu").into_iter().find_map(|(_, folder)| {
        let stat = system.read(&format!("{folder}/cpu.stat"))?;
        Some((parse::field(&stat, "nr_throttled")?, parse::field(&stat, "nr_periods")?))
    })
}

/// The tightest limit above us, and what is used of it.
fn memory_limit(system: &System) -> Option<(u64, u64)> {
    let limit = |(version, folder): (u8, String)| {
        let (limit, usage) = match version {
            1 => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            _ => ("memory.max", "memory.current"),
        };
        // Version 1 writes "no limit" as a number near 2^63.
        let limit = system.number(&format!("{folder}/{limit}")).filter(|limit| *limit < 1 << 60)?;
        Some((limit, system.number(&format!("{folder}/{usage}")).unwrap_or(0)))
    };
    cgroup_folders(system, "memory").into_iter().filter_map(limit).min()
}

pub(super) fn memory_available_bytes(system: &System) -> Option<u64> {
    let info = system.read("/proc/meminfo")?;
    let available = parse::field(&info, "MemAvailable:")?.checked_mul(1024)?;
    // Page cache counts as used by the cgroup but gives way; half of the limit is surely to be had.
    Some(memory_limit(system).map_or(available, |(limit, used)| available.min(limit.saturating_sub(used).max(limit / 2))))
}

fn memory(system: &System, machine: &mut Machine) {
    let info = system.read("/proc/meminfo").unwrap_or_default();
    let show = |name: &str| parse::field(&info, name).and_then(|kib| kib.checked_mul(1024)).map(show_bytes);
    let mut text = match (show("MemTotal:"), show("MemAvailable:")) {
        (Some(total), Some(available)) => format!("{total}, {available} available"),
        (Some(total), None) => total,
        _ => "not known".to_owned(),
    };
    if let Some((limit, used)) = memory_limit(system) {
        text += &format!(", a cgroup's limit is {} ({} used)", show_bytes(limit), show_bytes(used));
    }
    if let Some(swap) = parse::field(&info, "SwapTotal:").filter(|swap| *swap > 0).and_then(|kib| kib.checked_mul(1024)) {
        text += &format!(", swap {}", show_bytes(swap));
    }
    machine.fact("memory", text);

    let setting = |name: &str| {
        let text = system.read(&format!("/sys/kernel/mm/transparent_hugepage/{name}"))?;
        parse::chosen(&text).map(str::to_owned)
    };
    let reserved = parse::field(&info, "HugePages_Total:").unwrap_or(0);
    let text = match (setting("enabled"), setting("defrag")) {
        (Some(enabled), Some(defrag)) => format!("transparent: {enabled}, defrag: {defrag}, reserved: {reserved}"),
        (Some(enabled), None) => format!("transparent: {enabled}, reserved: {reserved}"),
        _ => format!("transparent: not there, reserved: {reserved}"),
    };
    machine.fact("huge pages", text);
    if setting("enabled").is_some_and(|enabled| enabled == "never") {
        machine.warn("transparent huge pages are off: large buffers cost more there (echo madvise > /sys/kernel/mm/transparent_hugepage/enabled)");
    }
}

fn kernel(system: &System, machine: &mut Machine) {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    machine.fact("kernel", format!("{} {} {}", text(uname.sysname()), text(uname.release()), text(uname.machine())));

    let folder = "/sys/devices/system/clocksource/clocksource0";
    let clock = system.read(&format!("{folder}/current_clocksource"));
    if let Some(clock) = &clock {
        machine.fact("clock source", clock.clone());
        if ["hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"].contains(&clock.as_str()) {
            machine.warn(format!("the clock source is {clock}: reading the time is slow, and every measurement reads it"));
        }
    }
    machine.fact("virtual machine", hypervisor(system).unwrap_or_else(|| "no sign of one".to_owned()));
    if let Some(container) = container(system) {
        machine.fact("container", container);
    }
}

/// What gives a virtual machine away.
fn hypervisor(system: &System) -> Option<String> {
    let info = system.read("/proc/cpuinfo").unwrap_or_default();
    let flagged = parse::keyed(&info, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    let mut signs = Vec::new();
    for file in ["/sys/class/dmi/id/sys_vendor", "/sys/class/dmi/id/product_name", "/sys/hypervisor/type"] {
        signs.extend(system.read(file).filter(|text| !text.is_empty()));
    }
    let offered = system.read("/sys/devices/system/clocksource/clocksource0/available_clocksource").unwrap_or_default();
    let clocks = [("kvm-clock", "KVM"), ("hyperv", "Hyper-V"), ("xen", "Xen")];
    let by_clock = clocks.iter().find(|(clock, _)| offered.contains(clock)).map(|(_, name)| *name);
    if let Some(name) = by_clock {
        signs.push(format!("{name} by its clock"));
    }
    let known = ["QEMU", "KVM", "VMware", "VirtualBox", "Xen", "Microsoft", "Amazon", "Google", "innotek", "Bochs", "Parallels"];
    if !flagged && by_clock.is_none() && !signs.iter().any(|sign| known.iter().any(|name| sign.contains(name))) {
        return None;
    }
    // The name of a server's vendor says nothing about a guest unless the processor says that there is one.
    Some(if signs.is_empty() { "yes (the processor says so)".to_owned() } else { signs.join(", ") })
}

fn container(system: &System) -> Option<String> {
    let ours = system.read("/proc/self/cgroup").unwrap_or_default();
    let by_cgroup = ["docker", "kubepods", "containerd", "libpod", "lxc"].into_iter().find(|name| ours.contains(name));
    let by_file = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];
    let by_file = by_file.iter().find(|(file, _)| system.path(file).exists()).map(|(_, name)| *name);
    by_file.or(by_cgroup).map(str::to_owned)
}

fn limits(machine: &mut Machine) {
    let memlock = getrlimit(Resource::Memlock).current;
    let files = getrlimit(Resource::Nofile).current;
    machine.fact(
        "limits",
        format!(
            "locked memory {}, open files {}",
            memlock.map_or_else(|| "unlimited".to_owned(), show_bytes),
            files.map_or_else(|| "unlimited".to_owned(), show_count)
        ),
    );
    if files.is_some_and(|files| files < 4096) {
        machine.warn("fewer than 4096 files may be open: a broker with many partitions needs more (ulimit -n)");
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fact, system};
    use super::*;

    const CPUINFO: &str = "processor\t: 0\nmodel name\t: AMD EPYC\ncpu MHz\t\t: 2596.100\nflags\t\t: fpu hypervisor\n";
    const MOUNTS_2: &str = "27 1 254:0 / / rw - ext4 /dev/vda rw\n30 27 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_container_of_cgroup_2() {
        let (_root, system) = system(&[
            ("/proc/cpuinfo", CPUINFO),
            ("/proc/stat", "cpu  1 1 1 1\ncpu0 1 1 1 1\ncpu1 1 1 1 1\n"),
            ("/proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 900 kB\n"),
            ("/proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-1\n"),
            ("/proc/self/cgroup", "0::/kubepods/pod1\n"),
            ("/proc/self/mountinfo", MOUNTS_2),
            ("/sys/fs/cgroup/cpu.max", "max 100000"),
            ("/sys/fs/cgroup/kubepods/cpu.max", "50000 100000"),
            ("/sys/fs/cgroup/kubepods/pod1/cpu.max", "max 100000"),
            ("/sys/fs/cgroup/kubepods/pod1/cpu.stat", "usage_usec 5\nnr_periods 10\nnr_throttled 3\n"),
            ("/sys/fs/cgroup/kubepods/pod1/memory.max", "204800"),
            ("/sys/fs/cgroup/kubepods/pod1/memory.current", "4096"),
            ("/sys/devices/system/cpu/cpu0/cache/index0/type", "Instruction"),
            ("/sys/devices/system/cpu/cpu0/cache/index3/type", "Unified"),
            ("/sys/devices/system/cpu/cpu0/cache/index3/level", "3"),
            ("/sys/devices/system/cpu/cpu0/cache/index3/size", "32768K"),
            ("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
            ("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
        ]);
        let mut machine = Machine::default();
        look(&system, &mut machine);
        assert_eq!(fact(&machine, "cpu"), "AMD EPYC, 2 processors, 2.6 GHz now, L3 32 MiB");
        assert_eq!(fact(&machine, "processors allowed"), "2 (0-1), a cgroup's quota allows 0.5");
        assert!(fact(&machine, "memory").contains("a cgroup's limit is 200 KiB (4 KiB used)"), "{:?}", machine.facts);
        assert_eq!(fact(&machine, "huge pages"), "transparent: madvise, reserved: 0");
        assert_eq!(fact(&machine, "virtual machine"), "yes (the processor says so)");
        assert_eq!(fact(&machine, "container"), "kubepods");
        assert!(machine.warnings.iter().any(|warning| warning.contains("quota")), "{:?}", machine.warnings);
        assert!(machine.warnings.iter().any(|warning| warning.contains("powersave")), "{:?}", machine.warnings);
        assert_eq!(throttled(&system), Some((3, 10)));
        assert_eq!(memory_available_bytes(&system), Some(200_704));
    }

    #[test]
    fn a_container_of_cgroup_1() {
        let mounts = "30 27 0:30 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n";
        let (_root, system) = system(&[
            ("/proc/self/mountinfo", mounts),
            ("/proc/self/cgroup", "1:cpu,cpuacct:/docker/abc\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(cpu_quota(&system), Some(2.0));
        assert_eq!(throttled(&system), None);
    }

    #[test]
    fn bare_metal_is_no_guest() {
        let (_root, system) = system(&[
            ("/proc/cpuinfo", "model name\t: Xeon\nflags\t\t: fpu vme\n"),
            ("/sys/class/dmi/id/sys_vendor", "Dell Inc.\n"),
        ]);
        assert_eq!(hypervisor(&system), None);
    }
}
