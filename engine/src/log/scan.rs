//! Reading batches out of a segment file one after the other: for recovery, for the end of a clean log, for looking behind damage.
//! It reads and judges; it changes nothing.

use std::io;
use std::rc::Rc;

use crate::batch::{self, BatchHeader, BatchView};
use crate::disk::{BLOCK_BYTES, File};
use crate::memory::{Buffer, Pool};
use crate::segment::index::{self, TimeEntry};
use crate::types::Offset;

/// How much is read at once at first; more where a batch needs it.
const READ_BYTES: usize = 256 << 10;

/// Why a scan stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At the end of the file.
    End,
    /// At bytes that are not a sound batch; the reason.
    Damage(String),
}

/// A forward scan over one file.
pub struct Scanner {
    file: Rc<dyn File>,
    pool: Pool,
    file_bytes: u64,
    /// Where the next batch starts.
    position: u64,
    /// The smallest base offset that the next batch may have.
    next_offset: Offset,
    /// The largest offset that a batch may have.
    offset_max: Offset,
    /// An offset that a batch begins at or ends before.
    boundary: Offset,
    verify_crc: bool,
    buffer: Option<Buffer>,
    /// The part of the file that `buffer` has.
    start: u64,
    end: u64,
}

impl Scanner {
    /// A scan of a segment that begins at offset `base`, from `position` on, where a batch starts. A CRC does not cover a batch's
    /// base offset: one that no segment reaches from its base is damage like any other.
    #[must_use]
    pub fn new(file: Rc<dyn File>, pool: &Pool, file_bytes: u64, position: u64, base: Offset, verify_crc: bool) -> Self {
        let (pool, next_offset) = (pool.clone(), base);
        let offset_max = Offset(base.0.saturating_add(index::OFFSETS_MAX));
        let boundary = Offset(0);
        Self { file, pool, file_bytes, position, next_offset, offset_max, boundary, verify_crc, buffer: None, start: 0, end: 0 }
    }

    /// The same where another segment begins at `end`: what is said to lie there or behind it is damage, too.
    #[must_use]
    pub fn below(self, end: Offset) -> Self {
        let offset_max = self.offset_max.min(Offset(end.0 - 1));
        Self { offset_max, ..self }
    }

    /// The same where a batch begins at `boundary`, or ended there: a recovery point. What follows offsets before it and is said to
    /// reach across it is damage, too; and what is said to lie at it or behind it, where what comes next says otherwise.
    #[must_use]
    pub fn across(self, boundary: Offset) -> Self {
        Self { boundary, ..self }
    }

    /// Where the next batch starts, or the damage.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The offset after the last batch.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// The next batch's header and position, or why there is none.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn next(&mut self) -> io::Result<Result<(BatchHeader, u64), Stop>> {
        let left = self.file_bytes.saturating_sub(self.position);
        if left == 0 {
            return Ok(Err(Stop::End));
        }
        if left < batch::HEADER_BYTES as u64 {
            return Ok(Err(Stop::Damage(format!("{left} bytes are less than a batch's header"))));
        }
        let bytes = self.bytes(batch::HEADER_BYTES).await?;
        let header = match BatchHeader::parse(bytes) {
            Ok(header) => header,
            Err(error) => return Ok(Err(Stop::Damage(error.to_string()))),
        };
        let size = header.size_bytes();
        if size as u64 > left {
            return Ok(Err(Stop::Damage(format!("a batch of {size} bytes where {left} are left"))));
        }
        if header.base_offset < self.next_offset {
            let (is, least) = (header.base_offset, self.next_offset);
            return Ok(Err(Stop::Damage(format!("base offset {is} where at least {least} is due"))));
        }
        if header.last_offset() > self.offset_max {
            let (is, most) = (header.last_offset(), self.offset_max);
            return Ok(Err(Stop::Damage(format!("offset {is} where a segment reaches to {most} at most"))));
        }
        if self.verify_crc {
            let bytes = self.bytes(size).await?;
            if let Err(error) = BatchView::new(bytes).and_then(|batch| batch.check_crc()) {
                return Ok(Err(Stop::Damage(error.to_string())));
            }
        }
        let crosses = self.next_offset < self.boundary && header.last_offset() >= self.boundary;
        if crosses {
            let (is, boundary) = (header.base_offset, self.boundary);
            if is < boundary || !self.goes_on_behind(size as u64, header.next_offset()).await? {
                return Ok(Err(Stop::Damage(format!("a batch at {is}, before or across {boundary}"))));
            }
        }
        let at = self.position;
        self.position += size as u64;
        self.next_offset = header.next_offset();
        Ok(Ok((header, at)))
    }

    /// Whether what stands `size` bytes further on does not contradict a batch that ends before `next_offset`: a batch that follows it,
    /// the padding of a last block, or the end of the file.
    async fn goes_on_behind(&mut self, size: u64, next_offset: Offset) -> io::Result<bool> {
        let at = self.position;
        let left = self.file_bytes - (at + size);
        if left == 0 {
            return Ok(true);
        }
        let len = left.min(batch::HEADER_BYTES as u64) as usize;
        self.position = at + size;
        let goes_on = self.bytes(len).await.map(|bytes| {
            let is_padding = bytes.iter().all(|&byte| byte == 0);
            is_padding || BatchHeader::parse(bytes).is_ok_and(|header| header.base_offset >= next_offset)
        });
        self.position = at;
        goes_on
    }

    /// `len` bytes at the current position, read in large pieces. The caller knows that the file has them.
    async fn bytes(&mut self, len: usize) -> io::Result<&[u8]> {
        let have = self.position >= self.start && self.position + len as u64 <= self.end;
        if !have {
            self.start = self.position / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
            let wanted = ((self.position - self.start) as usize + len).max(READ_BYTES).next_multiple_of(BLOCK_BYTES);
            let buffer = match self.buffer.take().filter(|buffer| buffer.len() >= wanted) {
                Some(buffer) => buffer,
                None => self.pool.buffer_or_more(wanted)?,
            };
            let (buffer, read) = self.file.read_at(buffer, wanted, self.start).await?;
            self.end = self.start + read as u64;
            self.buffer = Some(buffer);
            if self.end < self.position + len as u64 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
            }
        }
        let at = (self.position - self.start) as usize;
        self.buffer.as_ref().and_then(|buffer| buffer.get(at..at + len)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Whether the batch that an entry of a time index names has its timestamp. It begins at or before that batch.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) async fn confirms(mut self, entry: &TimeEntry) -> io::Result<bool> {
        loop {
            match self.next().await? {
                Ok((header, _)) if header.last_offset() < entry.offset => {}
                Ok((header, _)) => return Ok(is_time_of(entry, &header)),
                Err(_) => return Ok(false),
            }
        }
    }

    /// Looks for the next sound batch behind damage, byte by byte, and moves there. Returns whether there is one.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn skip_damage(&mut self) -> io::Result<bool> {
        let (mut position, least) = (self.position + 1, self.next_offset);
        while position + (batch::HEADER_BYTES as u64) <= self.file_bytes {
            self.position = position;
            let bytes = self.bytes(batch::HEADER_BYTES).await?;
            let plausible = BatchHeader::parse(bytes)
                .is_ok_and(|header| header.base_offset >= least && position + header.size_bytes() as u64 <= self.file_bytes);
            if plausible {
                let verify = std::mem::replace(&mut self.verify_crc, true);
                let found = self.next().await?.is_ok();
                self.verify_crc = verify;
                (self.position, self.next_offset) = (position, least);
                if found {
                    return Ok(true);
                }
            }
            position += 1;
        }
        self.position = self.file_bytes;
        Ok(false)
    }
}

/// Whether this batch is the one that an entry of a time index names.
pub(crate) fn is_time_of(entry: &TimeEntry, header: &BatchHeader) -> bool {
    (header.base_offset..=header.last_offset()).contains(&entry.offset) && header.max_timestamp == entry.timestamp
}
