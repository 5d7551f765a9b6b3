//! The journal's growth. Zeros are written ahead of the rounds, so that a round finds blocks that have been written before: the
//! sync of one that makes the file longer is a commit of the filesystem, several times a flush. A task of the core's does it
//! beside the rounds; a round that is there first waits, or does it itself. Nothing is synced for it: the next round's sync covers it.

use std::io;
use std::rc::Rc;

use crate::core::Core;
use crate::core::generations::Journal;
use crate::disk::{File, Payload, Shortage};

/// How far the journal grows at a time: as much as it has, within these bounds.
const EXTEND_BYTES_MIN: u64 = 1 << 20;
const EXTEND_BYTES_MAX: u64 = 16 << 20;

/// How much is written at once: a round's write may have to wait for it.
const PIECE_BYTES: u64 = 256 << 10;

/// Zeros that are about to be written, from the file's end on.
struct Extension {
    file: Rc<dyn File>,
    generation: u64,
    from: u64,
    to: u64,
}

impl Journal {
    /// Whether the rounds come near the end of what has been written.
    fn wants_extension(&self) -> bool {
        self.extent < self.space.bytes_max()
            && self.extend_refused_at != Some(self.extent)
            && self.space.head() + self.extend_step() / 2 >= self.extent
    }

    fn extend_step(&self) -> u64 {
        self.extent.clamp(EXTEND_BYTES_MIN, EXTEND_BYTES_MAX)
    }

    /// The next extension, up to `to`; from now on nobody else begins one.
    fn begin_extension(&mut self, to: u64) -> Extension {
        self.extending = true;
        Extension { file: self.file.clone(), generation: self.generation, from: self.extent, to }
    }
}

/// Extends the journal ahead of its rounds as long as the core lives.
pub(crate) async fn run(core: Rc<Core>) {
    loop {
        core.extend_wanted.notified().await;
        let extension = {
            let mut journal = core.journal.borrow_mut();
            (!journal.extending && journal.wants_extension()).then(|| {
                let to = (journal.extent + journal.extend_step()).min(journal.space.bytes_max());
                journal.begin_extension(to)
            })
        };
        let Some(extension) = extension else { continue };
        match core.extend(&extension).await {
            // Rounds may have come near the new end already.
            Ok(()) => core.want_extension(),
            // Whether that matters, the round finds out that needs the room.
            Err(error) => tracing::debug!(core = core.index, %error, "the journal could not be extended ahead"),
        }
    }
}

impl Core {
    /// Has the journal extended in time for the rounds to come.
    pub(super) fn want_extension(&self) {
        let journal = self.journal.borrow();
        if !journal.extending && journal.wants_extension() {
            self.extend_wanted.notify_one();
        }
    }

    /// Waits until the journal's blocks up to `to` have been written before.
    ///
    /// # Errors
    /// Those of the disk. Where it is full the journal stays as long as it is.
    pub(super) async fn extend_to(&self, to: u64) -> io::Result<()> {
        let extension = loop {
            let done = self.extend_done.notified();
            {
                let mut journal = self.journal.borrow_mut();
                if to <= journal.extent {
                    return Ok(());
                }
                if !journal.extending {
                    break journal.begin_extension(to);
                }
            }
            done.await;
        };
        self.extend(&extension).await
    }

    /// Writes the zeros. Where the disk is full, the file ends with the last that were written.
    async fn extend(&self, extension: &Extension) -> io::Result<()> {
        let Extension { file, generation, .. } = extension;
        let (mut at, mut result) = (extension.from, Ok(()));
        while at < extension.to && result.is_ok() {
            let to = extension.to.min(at + PIECE_BYTES);
            result = self.write_zeros(file, at, to).await;
            if result.is_ok() {
                at = to;
                let mut journal = self.journal.borrow_mut();
                if journal.generation == *generation {
                    // A round that fits now need not wait for the rest.
                    journal.extent = at;
                    self.extend_done.notify_waiters();
                }
            }
        }
        if let Err(error) = &result
            && Shortage::of(error) == Some(Shortage::Room)
        {
            result = file.set_len(at).await.and(result);
        }
        let mut journal = self.journal.borrow_mut();
        if journal.generation == *generation {
            journal.extending = false;
            journal.extend_refused_at = result.is_err().then_some(at);
        }
        self.extend_done.notify_waiters();
        result
    }

    async fn write_zeros(&self, file: &Rc<dyn File>, from: u64, to: u64) -> io::Result<()> {
        let len = (to - from) as usize;
        let mut buffer = self.scratch.buffer(len).ok_or(io::ErrorKind::OutOfMemory)?;
        buffer[..len].fill(0);
        file.write_at(Payload::Buffer { buffer, len }, from).await
    }
}
