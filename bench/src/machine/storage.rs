//! The filesystem and the device that a directory is on. For [`super::Machine::probe`]; [`room`] for commands that write.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};

use super::parse::{self, Mount};
use super::{Machine, System};
use crate::units::show_bytes;

/// Below either of these a filesystem is nearly full: it searches long for room, and what it finds is in pieces.
const FREE_BYTES_MIN: u64 = 20_000_000_000;
const FREE_PERCENT_MIN: u64 = 10;

/// How much room a filesystem has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// All of it.
    pub total_bytes: u64,
    /// What this user may still use.
    pub free_bytes: u64,
}

/// The room where `directory` is, or will be once it is made.
///
/// # Errors
/// No part of the path is there, or the filesystem does not tell.
pub fn room(directory: &Path) -> io::Result<Room> {
    let status = rustix::fs::statvfs(&existing(directory)?)?;
    let unit = status.f_frsize;
    Ok(Room { total_bytes: status.f_blocks.saturating_mul(unit), free_bytes: status.f_bavail.saturating_mul(unit) })
}

/// The nearest directory that is there, as an absolute path without links.
fn existing(directory: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(directory)?;
    loop {
        match fs::canonicalize(&path) {
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.parent().is_some() => {
                path.pop();
            }
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn look(system: &System, directory: &Path, machine: &mut Machine) {
    let path = match existing(directory) {
        Ok(path) => path,
        Err(error) => {
            machine.fact("directory", format!("{}: {error}", directory.display()));
            return;
        }
    };
    machine.fact("directory", path.display().to_string());
    let mounts = parse::mounts(&system.read("/proc/self/mountinfo").unwrap_or_default());
    match path.to_str().and_then(|path| parse::mount_of(&mounts, path)) {
        Some(mount) => {
            filesystem(mount, machine);
            device(system, mount, machine);
        }
        None => machine.fact("filesystem", "not known (/proc/self/mountinfo does not show it)"),
    }
    match room(&path) {
        Ok(room) => free(room, machine),
        Err(error) => machine.fact("free space", format!("not known: {error}")),
    }
    direct(&path, machine);
}

fn filesystem(mount: &Mount, machine: &mut Machine) {
    machine.fact("filesystem", format!("{} at {} ({}; {})", mount.kind, mount.point, mount.options, mount.super_options));
    let why = match mount.kind.as_str() {
        "tmpfs" | "ramfs" => "it is memory, not a disk",
        "overlay" | "aufs" => "a container's layers stand between it and the disk (use a volume)",
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "virtiofs" | "ceph" | "glusterfs" => "it is on another machine, or behind one",
        kind if kind.starts_with("fuse") => "a process stands between it and the disk",
        _ => "",
    };
    if !why.is_empty() {
        machine.warn(format!("the directory is on {}: {why}", mount.kind));
    }
    if mount.options.split(',').any(|option| option == "sync") {
        machine.warn("the filesystem is mounted with `sync`: every write waits for the disk");
    }
    if mount.super_options.split(',').any(|option| option == "nobarrier" || option == "barrier=0") {
        machine.warn("the filesystem is mounted without barriers: a sync promises nothing there");
    }
}

fn free(room: Room, machine: &mut Machine) {
    let percent = if room.total_bytes == 0 { 0.0 } else { room.free_bytes as f64 * 100.0 / room.total_bytes as f64 };
    machine.fact("free space", format!("{} of {} ({percent:.0} %)", show_bytes(room.free_bytes), show_bytes(room.total_bytes)));
    let share_min = room.total_bytes / 100 * FREE_PERCENT_MIN;
    if room.free_bytes < FREE_BYTES_MIN || room.free_bytes < share_min {
        machine.warn(format!(
            "little free disk: {} ({percent:.0} %); below {FREE_PERCENT_MIN} % or 20 GB filesystems and SSDs slow down",
            show_bytes(room.free_bytes)
        ));
    }
}

/// What sysfs tells about a block device, by the name it has in /sys/class/block.
fn device(system: &System, mount: &Mount, machine: &mut Machine) {
    let by_number = system.link_name(&format!("/sys/dev/block/{}", mount.device));
    // btrfs and others have numbers of their own; the source then is the device's name.
    let by_source = || {
        let path = fs::canonicalize(system.path(&mount.source)).unwrap_or_else(|_| PathBuf::from(&mount.source));
        let name = path.file_name()?.to_str()?.to_owned();
        (mount.source.starts_with("/dev/") && system.path(&format!("/sys/class/block/{name}")).exists()).then_some(name)
    };
    let Some(name) = by_number.or_else(by_source) else {
        machine.fact("device", format!("{} (no block device)", mount.source));
        return;
    };
    let chain = chain(system, name);
    // A loop device or a volume shows settings of its own; what writes meet in the end is the last.
    let last = chain.last().map_or("", String::as_str);
    let disk = whole_disk(system, last);
    let read = |file: &str| system.read(&format!("/sys/class/block/{disk}/{file}"));
    let mut text = chain.join(" on ");
    if disk != last {
        text += &format!(" of {disk}");
    }
    if let Some(model) = read("device/model").map(|model| model.trim().to_owned()).filter(|model| !model.is_empty()) {
        text += &format!(", {model}");
    }
    if let Some(sectors) = read("size").and_then(|size| size.parse::<u64>().ok()) {
        text += &format!(", {}", show_bytes(sectors.saturating_mul(512)));
    }
    if let Some(rotational) = read("queue/rotational") {
        text += if rotational == "1" { ", says that it rotates" } else { ", not rotational" };
    }
    if let Some(cache) = read("queue/write_cache") {
        text += &format!(", write cache: {cache}");
    }
    if let Some(scheduler) = read("queue/scheduler") {
        text += &format!(", scheduler: {}", parse::chosen(&scheduler).unwrap_or(&scheduler));
    }
    if let Some(requests) = read("queue/nr_requests") {
        text += &format!(", queue of {requests}");
    }
    machine.fact("device", text);
}

/// A device and those below it, as far as the first of each leads.
fn chain(system: &System, name: String) -> Vec<String> {
    let mut chain = vec![name];
    while chain.len() < 8 {
        let last = chain.last().map_or("", String::as_str);
        match system.names(&format!("/sys/class/block/{last}/slaves")).into_iter().next() {
            Some(below) => chain.push(below),
            None => break,
        }
    }
    chain
}

/// The disk that a partition is of: /sys/class/block/sda1 links into .../sda/sda1.
fn whole_disk(system: &System, name: &str) -> String {
    let folder = format!("/sys/class/block/{name}");
    if !system.path(&format!("{folder}/partition")).exists() {
        return name.to_owned();
    }
    let parent = fs::read_link(system.path(&folder)).ok().and_then(|link| Some(link.parent()?.file_name()?.to_str()?.to_owned()));
    parent.unwrap_or_else(|| name.to_owned())
}

/// Tries O_DIRECT with a file that never has a name, and asks for its alignment (statx(2), Linux 6.1).
fn direct(directory: &Path, machine: &mut Machine) {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let open = |flags| rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR);
    if let Err(error) = open(flags) {
        machine.fact("O_DIRECT", format!("not tried: no file without a name can be made here ({})", io::Error::from(error)));
        return;
    }
    let file = match open(flags | OFlags::DIRECT) {
        Ok(file) => file,
        Err(error) => {
            machine.warn("the filesystem has no O_DIRECT: everything goes through the page cache");
            machine.fact("O_DIRECT", format!("no: {}", io::Error::from(error)));
            return;
        }
    };
    let wanted = StatxFlags::DIOALIGN;
    let alignment = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, wanted)
        .or_else(|_| rustix::fs::statx(CWD, directory, AtFlags::empty(), wanted));
    machine.fact(
        "O_DIRECT",
        match alignment {
            Ok(status) if status.stx_mask & wanted.bits() != 0 && status.stx_dio_offset_align > 0 => format!(
                "yes, aligned to {} bytes in memory and {} on disk",
                status.stx_dio_mem_align, status.stx_dio_offset_align
            ),
            _ => "yes (its alignment is not told; blocks of 4096 bytes are used)".to_owned(),
        },
    );
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::tests::{fact, system};
    use super::*;

    fn mount(kind: &str, device: &str, source: &str) -> Mount {
        Mount {
            device: device.to_owned(),
            root: "/".to_owned(),
            point: "/data".to_owned(),
            options: "rw,noatime".to_owned(),
            kind: kind.to_owned(),
            source: source.to_owned(),
            super_options: "rw".to_owned(),
        }
    }

    #[test]
    fn a_partition_shows_its_disk() {
        let disk = "/sys/devices/pci0/nvme0n1";
        let (root, system) = system(&[
            (&format!("{disk}/queue/rotational"), "0\n"),
            (&format!("{disk}/queue/write_cache"), "write back\n"),
            (&format!("{disk}/queue/scheduler"), "[none] mq-deadline\n"),
            (&format!("{disk}/device/model"), "Fast Disk  \n"),
            (&format!("{disk}/size"), "2097152\n"),
            (&format!("{disk}/nvme0n1p2/partition"), "2\n"),
            ("/sys/class/block/x", ""),
            ("/sys/dev/block/x", ""),
        ]);
        symlink("../../devices/pci0/nvme0n1", root.path().join("sys/class/block/nvme0n1")).unwrap();
        symlink("../../devices/pci0/nvme0n1/nvme0n1p2", root.path().join("sys/class/block/nvme0n1p2")).unwrap();
        symlink("../../devices/pci0/nvme0n1/nvme0n1p2", root.path().join("sys/dev/block/259:2")).unwrap();
        let expected = "nvme0n1p2 of nvme0n1, Fast Disk, 1 GiB, not rotational, write cache: write back, scheduler: none";
        let mut machine = Machine::default();
        device(&system, &mount("ext4", "259:2", "/dev/root"), &mut machine);
        assert_eq!(fact(&machine, "device"), expected);
        let mut machine = Machine::default();
        device(&system, &mount("btrfs", "0:40", "/dev/nvme0n1p2"), &mut machine);
        assert_eq!(fact(&machine, "device"), expected, "by its source");
        let mut machine = Machine::default();
        device(&system, &mount("tmpfs", "0:41", "tmpfs"), &mut machine);
        assert_eq!(fact(&machine, "device"), "tmpfs (no block device)");
    }

    #[test]
    fn filesystems_that_are_no_disk_are_told() {
        for (kind, told) in
            [("tmpfs", true), ("overlay", true), ("nfs4", true), ("fuse.sshfs", true), ("ext4", false), ("xfs", false)]
        {
            let mut machine = Machine::default();
            filesystem(&mount(kind, "0:1", "x"), &mut machine);
            assert_eq!(!machine.warnings.is_empty(), told, "{kind}");
        }
    }

    #[test]
    fn little_room_is_told() {
        for (free_bytes, told) in [(19_000_000_000, true), (99_000_000_000, true), (120_000_000_000, false)] {
            let mut machine = Machine::default();
            free(Room { total_bytes: 1_000_000_000_000, free_bytes }, &mut machine);
            assert_eq!(!machine.warnings.is_empty(), told, "{free_bytes}");
        }
    }

    #[test]
    fn what_is_not_there_yet_has_its_parents_room() {
        let folder = tempfile::tempdir().unwrap();
        let below = room(&folder.path().join("a/b/c")).unwrap();
        assert_eq!(below.total_bytes, room(folder.path()).unwrap().total_bytes);
        assert!(below.free_bytes <= below.total_bytes && below.total_bytes > 0);
    }
}
