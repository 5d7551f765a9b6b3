//! Reading a journal back: after a crash at start, and for the offline tools. It only reads; what is done with the entries is
//! the caller's.
//!
//! The chain: a round continues it when it belongs to this journal and says that it follows the last one. The next round stands
//! behind the last or, where that had no room, at the front of the file. A round that could not be written may have got
//! there in spite of that; then the one that took its place follows the same predecessor and has the larger sequence, and is
//! the one that counts.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::disk::{BLOCK_BYTES, Disk, File, OpenOptions};
use crate::journal::checkpoint::Checkpoint;
use crate::journal::format::{Entry, FormatError, HEADER_BYTES, JournalId, RoundHeader};
use crate::journal::{CHECKPOINT_FILE, generation_of};
use crate::memory::Buffer;

/// How much one read takes.
const READ_BYTES: usize = 1 << 20;

/// One journal directory, opened for reading.
pub struct Replay {
    file: Option<Rc<dyn File>>,
    file_bytes: u64,
    journal: Option<JournalId>,
    last_sequence: u64,
    position: u64,
    /// What the last checkpoint said, for the recovery points in it.
    pub checkpoint: Option<Checkpoint>,
    /// The journal file that is read.
    pub path: Option<PathBuf>,
    /// The body that was read last, and where its round stands.
    body: Vec<u8>,
    body_at: Option<u64>,
    /// What the front of the file holds, once that was looked at: it is asked for again and again.
    front: Option<Option<RoundHeader>>,
    buffer: Option<Buffer>,
    /// The piece of the file that the buffer has.
    window: Range<u64>,
}

impl Replay {
    /// Opens the journal in `directory`.
    ///
    /// # Errors
    /// Those of the disk; `InvalidData` for a checkpoint that is damaged or of a newer version.
    pub async fn open(disk: &Rc<dyn Disk>, directory: &Path) -> io::Result<Self> {
        let names = disk.list(directory).await?;
        let checkpoint = match names.iter().find(|entry| entry.name == CHECKPOINT_FILE) {
            Some(_) => {
                let path = directory.join(CHECKPOINT_FILE);
                let text = crate::disk::read_file(disk, &path).await?;
                let text = String::from_utf8(text).map_err(|_| invalid(&path, "not text"))?;
                Some(Checkpoint::decode(&text).map_err(|error| invalid(&path, &error.to_string()))?)
            }
            None => None,
        };
        // Without a checkpoint the first journal was never freed: its first round stands at its front. A file that a
        // checkpoint does not name was being started, or had been given up, when the process ended.
        let generation = checkpoint.as_ref().map(|c| c.generation);
        let file_entry = names
            .iter()
            .filter_map(|entry| generation_of(&entry.name).map(|generation| (generation, entry)))
            .find(|(found, _)| generation.is_none_or(|wanted| *found == wanted));
        let mut replay = Self {
            file: None,
            file_bytes: 0,
            journal: checkpoint.as_ref().map(|c| c.journal),
            last_sequence: checkpoint.as_ref().map_or(0, |c| c.previous),
            position: checkpoint.as_ref().map_or(0, |c| c.position),
            checkpoint,
            path: None,
            body: Vec::new(),
            body_at: None,
            front: None,
            buffer: None,
            window: 0..0,
        };
        if let Some((_, entry)) = file_entry {
            let path = directory.join(&entry.name);
            // Read around the page cache where possible: what is replayed is what the device has.
            let file = disk.open(&path, OpenOptions { create: crate::disk::Create::Never, write: false, direct: true }).await?;
            replay.file_bytes = file.len_bytes().await?;
            replay.file = Some(file);
            replay.path = Some(path);
        }
        Ok(replay)
    }

    /// The next round's header and entries, or `None` at the end of the chain.
    ///
    /// # Errors
    /// Those of the disk; `InvalidData` for a journal of a newer version.
    pub async fn next(&mut self) -> io::Result<Option<(RoundHeader, Vec<(Entry, &[u8])>)>> {
        let mut found: Option<(RoundHeader, u64)> = None;
        for position in [self.position, 0] {
            let Some(header) = self.round_at(position).await? else { continue };
            if found.is_none_or(|(best, _)| header.sequence > best.sequence) {
                found = Some((header, position));
            }
            if self.position == 0 {
                break;
            }
        }
        let Some((header, position)) = found else {
            tracing::trace!(last = self.last_sequence, position = self.position, "the chain ends");
            return Ok(None);
        };
        // The place at the front was looked at last, and may not have been the one.
        if self.body_at != Some(position) && !self.read_body(&header, position).await? {
            return Ok(None);
        }
        self.journal = Some(header.journal);
        self.last_sequence = header.sequence;
        self.position = position + header.round_bytes();
        self.body_at = None;
        match header.entries(&self.body) {
            Ok(entries) => Ok(Some((header, entries))),
            Err(_) => Ok(None),
        }
    }

    /// The header at `position`, if a whole round stands there that continues the chain.
    async fn round_at(&mut self, position: u64) -> io::Result<Option<RoundHeader>> {
        let header = match self.front {
            Some(front) if position == 0 => front,
            _ => self.header_at(position).await?,
        };
        if position == 0 {
            self.front = Some(header);
        }
        let Some(header) = header else { return Ok(None) };
        let ours = self.journal.is_none_or(|journal| journal == header.journal);
        if !ours || header.previous != self.last_sequence || header.sequence <= self.last_sequence {
            return Ok(None);
        }
        let whole = self.read_body(&header, position).await? && header.entries(&self.body).is_ok();
        Ok(whole.then_some(header))
    }

    async fn header_at(&mut self, position: u64) -> io::Result<Option<RoundHeader>> {
        match self.read(position, BLOCK_BYTES).await?.map(RoundHeader::decode) {
            Some(Ok(header)) => Ok(Some(header)),
            None | Some(Err(FormatError::NotARound(_))) => Ok(None),
            Some(Err(error @ FormatError::Newer(_))) => Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        }
    }

    /// Reads table and payloads of a round. Returns whether all of it is there.
    async fn read_body(&mut self, header: &RoundHeader, position: u64) -> io::Result<bool> {
        if position.checked_add(header.round_bytes()).is_none_or(|end| end > self.file_bytes) {
            return Ok(false);
        }
        self.body_at = None;
        self.body.clear();
        self.body.reserve(header.body_bytes as usize);
        let end = position + header.round_bytes();
        let mut at = position;
        let mut skip = HEADER_BYTES;
        while at < end {
            let len = READ_BYTES.min((end - at) as usize);
            let wanted = header.body_bytes as usize - self.body.len();
            let mut body = std::mem::take(&mut self.body);
            let piece = self.read(at, len).await?;
            body.extend_from_slice(piece.map_or(&[], |piece| &piece[skip..len.min(skip + wanted)]));
            let is_there = piece.is_some();
            self.body = body;
            if !is_there {
                return Ok(false);
            }
            skip = 0;
            at += len as u64;
        }
        self.body_at = Some(position);
        Ok(self.body.len() == header.body_bytes as usize)
    }

    /// The `len` bytes at `position`, a block's, where the file has all of them. Much is read at once: rounds stand one behind
    /// the other.
    async fn read(&mut self, position: u64, len: usize) -> io::Result<Option<&[u8]>> {
        let Some(file) = &self.file else { return Ok(None) };
        let Some(end) = position.checked_add(len as u64).filter(|&end| end <= self.file_bytes) else { return Ok(None) };
        if position < self.window.start || end > self.window.end {
            self.window = 0..0;
            let buffer = self.buffer.take().map_or_else(|| Buffer::standalone(READ_BYTES), Ok)?;
            let wanted = READ_BYTES.min((self.file_bytes - position) as usize / BLOCK_BYTES * BLOCK_BYTES).max(len);
            let (buffer, read) = match file.read_at(buffer, wanted, position).await {
                Ok(read) => read,
                // What cannot be read may lie behind the chain, where nobody needs it.
                Err(_) => file.read_at(Buffer::standalone(READ_BYTES)?, len, position).await?,
            };
            self.buffer = Some(buffer);
            self.window = position..position + read as u64;
            if read < len {
                return Ok(None);
            }
        }
        let start = (position - self.window.start) as usize;
        Ok(self.buffer.as_ref().map(|buffer| &buffer[start..start + len]))
    }
}

fn invalid(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}
