//! The machine in the same state before every run. On a virtual machine the first touch of memory that its host has not backed
//! yet costs many times what reuse costs, so the page cache is filled with a clean file first: pages then come from reclaim, for
//! every contestant. And the opposite for cold reads: what the page cache holds of a directory is dropped.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use rustix::fs::{Advice, fadvise};

use crate::error::Error;
use crate::stop;

/// How much free memory is left alone.
const LEFT_FREE_BYTES: u64 = 512 << 20;

const READ_BYTES: usize = 16 << 20;

/// Free memory that has not become less by [`LESS_BYTES`] over so much reading is all that the kernel lets the page cache have.
const PLATEAU_BYTES: u64 = 1 << 30;
const LESS_BYTES: u64 = 32 << 20;

/// A clean file that fills the page cache: a hole, which takes no space on the device, only pages in memory. The file is in the
/// directory of work and goes with it.
#[derive(Debug)]
pub(super) struct Filler {
    path: PathBuf,
    /// Where the next filling goes on: what was read before may still be cached, and takes no memory when it is read again.
    position: u64,
    free_bytes_max: u64,
}

impl Filler {
    /// With its file in this directory.
    #[must_use]
    pub(super) fn new(directory: &Path) -> Self {
        Self { path: directory.join("filler"), position: 0, free_bytes_max: 0 }
    }

    /// Reads on in the file until little memory is free, or what is free does not become less, or the user stops.
    /// Returns how much is free then.
    ///
    /// # Errors
    /// The file cannot be made or read.
    pub(super) fn fill(&mut self, bar: &ProgressBar) -> Result<u64, Error> {
        let memory = Memory::read()?;
        let io = |error| Error::Io { path: self.path.clone(), source: error };
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&self.path)
            .map_err(Error::io(&self.path))?;
        file.set_len(self.position + memory.total_bytes).map_err(io)?;
        file.seek(SeekFrom::Start(self.position)).map_err(io)?;
        let mut buffer = vec![0; READ_BYTES];
        let (mut lowest, mut at_lowest) = (memory.free_bytes, self.position);
        let mut position = self.position;
        let mut free_bytes = memory.free_bytes;
        while free_bytes > LEFT_FREE_BYTES && position - at_lowest < PLATEAU_BYTES && !stop::requested() {
            let read = file.read(&mut buffer).map_err(io)?;
            if read == 0 {
                break;
            }
            position += read as u64;
            bar.tick();
            free_bytes = Memory::read()?.free_bytes;
            if free_bytes + LESS_BYTES < lowest {
                (lowest, at_lowest) = (free_bytes, position);
            }
        }
        self.position = position;
        self.free_bytes_max = self.free_bytes_max.max(free_bytes);
        Ok(free_bytes)
    }

    /// How much was read in all.
    #[must_use]
    pub(super) fn read_bytes(&self) -> u64 {
        self.position
    }

    /// The most memory that was free after filling.
    #[must_use]
    pub(super) fn free_bytes_max(&self) -> u64 {
        self.free_bytes_max
    }
}

struct Memory {
    total_bytes: u64,
    free_bytes: u64,
}

impl Memory {
    fn read() -> Result<Self, Error> {
        let path = Path::new("/proc/meminfo");
        let text = fs::read_to_string(path).map_err(Error::io(path))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
        };
        Ok(Self { total_bytes: field("MemTotal"), free_bytes: field("MemFree") })
    }
}

/// Drops what the page cache holds of every file below a directory, having made it clean first.
///
/// # Errors
/// A file cannot be read or synced.
pub(super) fn drop_cached(directory: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(directory).map_err(Error::io(directory))? {
        let path = entry.map_err(Error::io(directory))?.path();
        let kind = fs::symlink_metadata(&path).map_err(Error::io(&path))?;
        if kind.is_dir() {
            drop_cached(&path)?;
        } else if kind.is_file() {
            let file = File::open(&path).map_err(Error::io(&path))?;
            file.sync_all().map_err(Error::io(&path))?;
            fadvise(&file, 0, None, Advice::DontNeed).map_err(|error| Error::Io { path, source: error.into() })?;
        }
    }
    Ok(())
}

/// Refuses to begin where the space does not suffice for `bytes` and a reserve.
///
/// # Errors
/// There is less, or the filesystem cannot be asked.
pub(super) fn check_space(directory: &Path, bytes: u64) -> Result<(), Error> {
    let stat = rustix::fs::statvfs(directory).map_err(|error| Error::Io { path: directory.into(), source: error.into() })?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free_bytes < bytes {
        return Err(Error::Usage(format!(
            "{} has {:.1} GB of free space and the comparison needs {:.1} GB; --bytes or --duration makes it smaller, --work puts it elsewhere",
            directory.display(),
            free_bytes as f64 / 1e9,
            bytes as f64 / 1e9,
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_reaches_every_file_and_changes_none() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), vec![7; 100_000]).unwrap();
        std::os::unix::fs::symlink("/nowhere", directory.path().join("link")).unwrap();
        drop_cached(directory.path()).unwrap();
        assert_eq!(fs::read(deep.join("file")).unwrap(), vec![7; 100_000]);
        assert!(drop_cached(&directory.path().join("none")).is_err());
    }

    #[test]
    fn too_little_space_is_told_before_anything_begins() {
        let directory = tempfile::tempdir().unwrap();
        check_space(directory.path(), 0).unwrap();
        let error = check_space(directory.path(), u64::MAX).unwrap_err();
        assert_eq!(error.exit_status(), 2);
        assert!(error.to_string().contains("free space"));
    }

    #[test]
    fn memory_is_read() {
        let memory = Memory::read().unwrap();
        assert!(memory.free_bytes > 0 && memory.total_bytes > memory.free_bytes);
    }
}
