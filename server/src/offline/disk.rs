//! The engine's door to storage by ordinary blocking calls, for reading alone: what the journal's reader needs of it. Used by
//! the offline tools, which must also work where there is no io_uring, and on copies that nobody may write.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;

use ringlog_engine::disk::{DirEntry, Disk, File, IoFuture, OpenOptions, Payload, Space};
use ringlog_engine::memory::Buffer;
use tokio::sync::oneshot;

/// See the module.
pub(super) struct ReadOnlyDisk;

struct ReadOnlyFile(fs::File);

fn now<T: 'static>(result: io::Result<T>) -> IoFuture<T> {
    Box::pin(std::future::ready(result))
}

fn refused<T: 'static>() -> IoFuture<T> {
    now(Err(io::ErrorKind::ReadOnlyFilesystem.into()))
}

impl Disk for ReadOnlyDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> IoFuture<Rc<dyn File>> {
        if options.write {
            return refused();
        }
        now(fs::File::open(path).map(|file| -> Rc<dyn File> { Rc::new(ReadOnlyFile(file)) }))
    }

    fn list(&self, path: &Path) -> IoFuture<Vec<DirEntry>> {
        now(list(path))
    }

    fn create_dir(&self, _: &Path) -> IoFuture<()> {
        refused()
    }
    fn rename(&self, _: &Path, _: &Path) -> IoFuture<()> {
        refused()
    }
    fn remove_file(&self, _: &Path) -> IoFuture<()> {
        refused()
    }
    fn remove_dir(&self, _: &Path) -> IoFuture<()> {
        refused()
    }
    fn sync_dir(&self, _: &Path) -> IoFuture<()> {
        refused()
    }
    fn sync_set(&self, files: Vec<Rc<dyn File>>) -> Pin<Box<dyn Future<Output = Vec<io::Result<()>>>>> {
        let results = files.iter().map(|_| Err(io::ErrorKind::ReadOnlyFilesystem.into())).collect();
        Box::pin(std::future::ready(results))
    }
    fn space(&self, _: &Path) -> IoFuture<Space> {
        refused()
    }
}

/// The names in a directory, sorted; those that are not UTF-8 are nobody's here.
pub(super) fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // A symbolic link is what it points to.
        let Ok(metadata) = fs::metadata(entry.path()) else { continue };
        entries.push(DirEntry::new(name, &metadata));
    }
    entries.sort();
    Ok(entries)
}

impl File for ReadOnlyFile {
    fn len_bytes(&self) -> IoFuture<u64> {
        now(self.0.metadata().map(|metadata| metadata.len()))
    }

    fn read_at(&self, mut buffer: Buffer, len: usize, position: u64) -> IoFuture<(Buffer, usize)> {
        let read = read_full(&self.0, &mut buffer[..len], position);
        now(read.map(|read| (buffer, read)))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn write_at(&self, _: Payload, _: u64) -> IoFuture<()> {
        refused()
    }
    fn write_and_sync(&self, _: Payload, _: u64, _: oneshot::Sender<()>) -> IoFuture<()> {
        refused()
    }
    fn sync_data(&self) -> IoFuture<()> {
        refused()
    }
    fn set_len(&self, _: u64) -> IoFuture<()> {
        refused()
    }
    fn allocate(&self, _: u64, _: u64) -> IoFuture<()> {
        refused()
    }
}

/// Reads until `buffer` is full or the file ends; returns how much.
pub(super) fn read_full(file: &fs::File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
