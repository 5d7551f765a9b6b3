//! Open files, kept within a bounded number of descriptors: the least recently used one is closed when another is needed.
//! One per core. Never writes by itself.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

use crate::disk::{Disk, File, OpenOptions};

/// What a file is kept open for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Reads through the page cache, sendfile.
    Read,
    /// Direct reads of whole blocks.
    ReadDirect,
    /// Direct writes.
    Write,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::ReadDirect, Self::Write];

    fn options(self) -> OpenOptions {
        match self {
            Self::Read => OpenOptions::READ,
            Self::ReadDirect => OpenOptions { direct: true, ..OpenOptions::READ },
            Self::Write => OpenOptions::DIRECT,
        }
    }
}

struct Kept {
    file: Rc<dyn File>,
    used: u64,
}

/// See the module.
pub struct FileCache {
    disk: Rc<dyn Disk>,
    files_max: usize,
    uses: Cell<u64>,
    /// What `uses` was when idle files were looked for last.
    uses_swept: Cell<u64>,
    files: RefCell<HashMap<(u64, Purpose), Kept>>,
}

impl FileCache {
    /// Keeps at most `files_max` files open.
    #[must_use]
    pub fn new(disk: Rc<dyn Disk>, files_max: usize) -> Self {
        Self { disk, files_max: files_max.max(1), uses: Cell::new(0), uses_swept: Cell::new(0), files: RefCell::default() }
    }

    /// The file at `path`, which the caller calls `key`: a number that no other file has while the process lives.
    ///
    /// # Errors
    /// Those of [`Disk::open`].
    pub async fn open(&self, key: u64, purpose: Purpose, path: &Path) -> io::Result<Rc<dyn File>> {
        let used = self.uses.get() + 1;
        self.uses.set(used);
        if let Some(kept) = self.files.borrow_mut().get_mut(&(key, purpose)) {
            kept.used = used;
            return Ok(kept.file.clone());
        }
        let file = self.disk.open(path, purpose.options()).await?;
        let mut files = self.files.borrow_mut();
        if files.len() >= self.files_max
            && let Some(oldest) = files.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| *key)
        {
            files.remove(&oldest);
        }
        files.insert((key, purpose), Kept { file: file.clone(), used });
        Ok(file)
    }

    /// Closes what is open of a file that is done with.
    pub fn close(&self, key: u64, purpose: Purpose) {
        self.files.borrow_mut().remove(&(key, purpose));
    }

    /// Closes what was not used since the last call: an idle partition needs no descriptor, and a removed file, which another core may
    /// have removed, gives its room back only when it is closed.
    pub fn close_idle(&self) {
        let since = self.uses_swept.replace(self.uses.get());
        self.files.borrow_mut().retain(|_, kept| kept.used > since);
    }

    /// How many files it holds open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.borrow().len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
