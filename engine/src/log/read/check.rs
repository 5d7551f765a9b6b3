//! Whether what a file has is what was written, before it is served: batch by batch, in as little memory as there is.

use std::rc::Rc;
use std::sync::Arc;

use super::{ReadError, Reader, pieces_of};
use crate::batch::{self, BatchHeader, RunningCrc};
use crate::disk::File;
use crate::disk::cache::Purpose;
use crate::log::cold::{First, Order, check_first};
use crate::log::published::{Segment, View};

/// How much one checked read of a file takes.
const READ_BYTES: u64 = 1 << 20;

impl Reader {
    /// Makes sure that a file range can be sent without waiting for the disk and that what comes from the disk now is sound.
    /// Returns how much of it may be sent: whole batches up to where it stops being warm or sound.
    pub(super) async fn warm(
        &self,
        file: &Rc<dyn File>,
        view: &View,
        segment: &Arc<Segment>,
        position: u64,
        len: u64,
        goes_on: bool,
    ) -> Result<u64, ReadError> {
        let buffer = self.pool.buffer_up_to(len.min(READ_BYTES) as usize)?;
        let wanted = buffer.len().min(len as usize);
        let (buffer, read) = file.read_at(buffer, wanted, position).await?;
        let (mut rest, mut sound, mut order) = (&buffer[..read], 0, Order::new(segment, None));
        let first_bytes = loop {
            match check_first(rest, &mut order) {
                Ok(First::Sound(size)) => {
                    sound += size as u64;
                    rest = &rest[size..];
                }
                Ok(First::Cut(size)) => break size,
                Err(_) if sound > 0 => {
                    segment.note_damage();
                    break None;
                }
                Err(reason) => return Err(self.damaged(segment, position, &reason)),
            }
        };
        if sound > 0 {
            return Ok(sound);
        }
        if read < wanted {
            return Err(self.damaged(segment, position, "the file ends within a batch"));
        }
        match first_bytes.map(|size| size as u64) {
            // It is larger than what was read.
            Some(size) if size <= len => {
                self.check_batch_at(view, segment, position).await?;
                Ok(size)
            }
            // It ends in the tail.
            _ if goes_on => {
                self.check_batch_at(view, segment, position).await?;
                Ok(len)
            }
            Some(_) => Err(self.damaged(segment, position, "the batch is longer than the log")),
            None => Ok(0),
        }
    }

    /// Checks the batch at `position`, wherever it is.
    async fn check_batch_at(&self, view: &View, segment: &Arc<Segment>, position: u64) -> Result<(), ReadError> {
        let header = self.read_bytes(view, segment, position, batch::HEADER_BYTES, false).await?;
        let header = BatchHeader::parse(&header).map_err(|error| self.damaged(segment, position, &error.to_string()))?;
        self.check_batch(view, segment, position, &header).await
    }

    /// Checks the batch at `position`, whose header says this, wherever it is.
    pub(super) async fn check_batch(
        &self,
        view: &View,
        segment: &Arc<Segment>,
        position: u64,
        header: &BatchHeader,
    ) -> Result<(), ReadError> {
        let end = position + header.size_bytes() as u64;
        if end > segment.visible_bytes() {
            return Err(self.damaged(segment, position, "the batch is longer than the log"));
        }
        let tail_start = pieces_of(view, segment).next().map_or(u64::MAX, |piece| piece.start);
        let (mut crc, mut at) = (RunningCrc::default(), position);
        while at < end.min(tail_start) {
            let wanted = end.min(tail_start) - at;
            // What is there was checked already, but perhaps as another batch.
            if let Some(have) = self.cold.peek(segment, at) {
                let len = have.len().min(wanted as usize);
                crc.add(&have[..len]);
                at += len as u64;
                continue;
            }
            let file = self.files.open(segment.id, Purpose::Read, &segment.path).await?;
            let buffer = self.pool.buffer_up_to(wanted.min(READ_BYTES) as usize)?;
            let wanted = buffer.len().min(wanted as usize);
            let (buffer, read) = file.read_at(buffer, wanted, at).await?;
            if read < wanted {
                return Err(self.damaged(segment, position, "the file is shorter than it has to be"));
            }
            crc.add(&buffer[..read]);
            at += read as u64;
        }
        for piece in pieces_of(view, segment) {
            let published = piece.chunk.bytes();
            let piece_end = piece.position + published.len() as u64;
            if at < end && at >= piece.position && at < piece_end {
                let to = end.min(piece_end);
                crc.add(&published[(at - piece.position) as usize..(to - piece.position) as usize]);
                at = to;
            }
        }
        if at < end {
            return Err(self.damaged(segment, position, "bytes are missing"));
        }
        let checked = crc.check(header).map_err(|error| error.to_string());
        let checked = checked.and_then(|()| Order::new(segment, None).check(header));
        checked.map_err(|reason| self.damaged(segment, position, &reason))
    }
}
