//! The test file: a file that loses its name as soon as it is open, so that the kernel removes it however this process ends. For
//! [`super`].

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_engine::disk::ring::RingDisk;
use ringlog_engine::disk::{Create, Disk, File, OpenOptions};
use rustix::fs::{Advice, OFlags};

use super::cells::RANDOM_BYTES;
use crate::error::Error;
use crate::machine::Room;
use crate::units::show_bytes;

/// What is left free beside the test file, for everybody else.
const SPARE_BYTES: u64 = 1 << 30;
/// How many blocks are asked for to see whether the page cache has dropped a file.
const CACHE_PROBES: u64 = 128;

/// Whether a file of this size fits.
///
/// # Errors
/// It does not, or barely.
pub(super) fn check_room(room: Room, size_bytes: u64) -> Result<(), Error> {
    let wanted = size_bytes.saturating_add(SPARE_BYTES);
    if room.free_bytes < wanted {
        return Err(Error::Failed(format!(
            "too little free disk: a test file of {} and {} to spare are needed, {} are free (give --size or another --out)",
            show_bytes(size_bytes),
            show_bytes(SPARE_BYTES),
            show_bytes(room.free_bytes)
        )));
    }
    Ok(())
}

/// The file, opened in each way that it is accessed.
pub(super) struct TestFile {
    directory: PathBuf,
    pub(super) direct: Rc<dyn File>,
    /// Reads and writes through the page cache.
    pub(super) cached: Rc<dyn File>,
    /// Reads through the page cache as the engine's readers do: without the kernel's readahead.
    pub(super) reader: Rc<dyn File>,
    descriptor: i32,
    is_direct: bool,
}

impl TestFile {
    /// A new empty file. Its name is gone when this returns, with a file or with an error.
    pub(super) async fn create(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!("disk-{}.data", std::process::id()));
        let disk = RingDisk::new();
        let cached = disk.open(&path, OpenOptions { create: Create::New, ..OpenOptions::WRITE }).await?;
        let _name = Name(&path);
        let existing = |options| OpenOptions { create: Create::Never, ..options };
        let direct = disk.open(&path, existing(OpenOptions::DIRECT)).await?;
        let reader = disk.open(&path, OpenOptions::READ).await?;
        let is_direct = match direct.descriptor() {
            Some(descriptor) => rustix::fs::fcntl_getfl(descriptor)?.contains(OFlags::DIRECT),
            None => false,
        };
        let descriptor = cached.descriptor().map_or(-1, |descriptor| descriptor.as_raw_fd());
        Ok(Self { directory: directory.to_owned(), direct, cached, reader, descriptor, is_direct })
    }

    /// Where the file is, for errors.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether the filesystem has direct access.
    pub(super) fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// A path by which another process of ours can open it.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.descriptor))
    }

    /// Syncs the file and has the page cache drop it; returns the share that is still there.
    pub(super) async fn drop_cached(&self, size_bytes: u64) -> io::Result<f64> {
        self.cached.sync_data().await?;
        if let Some(descriptor) = self.reader.descriptor() {
            rustix::fs::fadvise(descriptor, 0, None, Advice::DontNeed)?;
        }
        Ok(self.cached_share(size_bytes))
    }

    /// The share of the file that is in the page cache, from some blocks asked for.
    fn cached_share(&self, size_bytes: u64) -> f64 {
        let Some(descriptor) = self.reader.descriptor() else { return 0.0 };
        let step = (size_bytes / CACHE_PROBES).next_multiple_of(RANDOM_BYTES);
        let (mut asked, mut there) = (0, 0);
        let mut byte = [0];
        for position in (0..size_bytes).step_by(step.max(RANDOM_BYTES) as usize) {
            asked += 1;
            let buffers = &mut [io::IoSliceMut::new(&mut byte)];
            // Nothing is read from the disk for it (preadv2(2)); a kernel that can't tell is believed.
            if matches!(rustix::io::preadv2(descriptor, buffers, position, rustix::io::ReadWriteFlags::NOWAIT), Ok(1)) {
                there += 1;
            }
        }
        f64::from(there) / f64::from(asked.max(1))
    }
}

/// Takes a file's name away at its end.
struct Name<'a>(&'a Path);

impl Drop for Name<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringlog_engine::disk::ring::Runtime;

    #[test]
    fn too_little_room_is_refused() {
        let room = |free_bytes| Room { total_bytes: 100 << 30, free_bytes };
        assert!(check_room(room(5 << 30), 4 << 30).is_ok());
        for (free_bytes, size_bytes) in [((5 << 30) - 1, 4 << 30), (0, 64 << 20), (100 << 30, u64::MAX)] {
            let error = check_room(room(free_bytes), size_bytes).unwrap_err();
            assert!(error.to_string().starts_with("too little free disk"), "{error}");
            assert_eq!(error.exit_status(), 1);
        }
    }

    #[test]
    fn the_file_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::with_defaults().unwrap();
        let file = runtime.block_on(TestFile::create(folder.path())).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        runtime.block_on(super::super::ring::fill(&file, 4 << 20, |_| {})).unwrap();
        assert_eq!(std::fs::metadata(file.path()).unwrap().len(), 4 << 20, "and is there all the same");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_name_in_use_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("disk-{}.data", std::process::id()));
        std::fs::write(&path, "precious").unwrap();
        let runtime = Runtime::with_defaults().unwrap();
        let Err(error) = runtime.block_on(TestFile::create(folder.path())) else { panic!("it was opened") };
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "precious");
    }

    #[test]
    fn what_was_dropped_is_gone_from_the_cache() {
        // Not in /tmp: a tmpfs drops nothing.
        let folder = super::super::tests::directory();
        let runtime = Runtime::with_defaults().unwrap();
        let size = 8 << 20;
        let (before, after) = runtime.block_on(async {
            let file = TestFile::create(folder.path()).await.unwrap();
            super::super::ring::fill(&file, size, |_| {}).await.unwrap();
            let buffer = ringlog_engine::memory::Buffer::standalone(size as usize).unwrap();
            file.cached.read_at(buffer, size as usize, 0).await.unwrap();
            let before = file.cached_share(size);
            (before, file.drop_cached(size).await.unwrap())
        });
        assert!(after <= before && after < 0.1, "{before} before, {after} after");
    }
}
