//! The writing half of a connection: responses to bytes on the socket, in order. A part of [`super::connection`].
//!
//! Memory goes out by one vectored send for as much as is ready; files by sendfile, a piece at a time, each piece only once
//! the page cache has it, so that no call waits for a disk. A peer that does not read keeps no tail memory for long: its
//! pieces are exchanged for the same bytes in the segment file. A small answer that is alone is sent without being queued.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use ringlog_engine::memory::{Buffer, Slice};
use rustix::net::{SendAncillaryBuffer, SendFlags};
use smallvec::SmallVec;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::connection::Shared;
use super::response::{FileRange, Source, TailRange};
use super::{Outcome, sendfile};

/// The most that one send call is given: pieces and bytes.
const CALL_PIECES_MAX: usize = 64;
const CALL_BYTES_MAX: usize = 1 << 20;
/// What is sent without being queued: it is no turn's work.
const ALONE_BYTES_MAX: usize = 16 << 10;
/// After so many bytes the core's other tasks get their turn.
const TURN_BYTES: usize = 1 << 20;
/// How long a socket has to be full before memory is exchanged for files: fast readers fill theirs all the time, and
/// memory serves them best.
const SPILL_AFTER: Duration = Duration::from_millis(100);

/// Why writing ended before its time.
pub(super) enum WriteEnd {
    /// A handler asked for it.
    Closed(Cow<'static, str>),
    /// The peer reads nothing.
    Stuck,
    /// A file could not be read, or is shorter than it was.
    File(io::Error),
    Io(io::Error),
}

/// A piece that is being sent.
enum Piece {
    Bytes(Bytes),
    Tail { slice: Slice, sent: usize, range: Option<Rc<dyn TailRange>> },
    File(FileRange),
}

impl Piece {
    fn memory(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Tail { slice, sent, .. } => Some(&slice.bytes()[*sent..]),
            Self::File(_) => None,
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::File(range) => range.len,
            _ => self.memory().map_or(0, |bytes| bytes.len() as u64),
        }
    }

    fn advance(&mut self, count: u64) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count as usize),
            Self::Tail { sent, .. } => *sent += count as usize,
            Self::File(range) => {
                range.position += count;
                range.len -= count;
            }
        }
    }
}

/// A block of which a part was read from a file.
struct ReadMemory {
    buffer: Buffer,
    len: usize,
}

impl AsRef<[u8]> for ReadMemory {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    socket: &'a TcpStream,
    pieces: VecDeque<Piece>,
    /// Where in the stream of all bytes each response ends, and how far it is sent.
    ends: VecDeque<u64>,
    queued: u64,
    sent: u64,
    turn_bytes: usize,
    /// Up to where the file in front is known to be in the page cache.
    cached_to: u64,
}

/// Sends what the handlers answer until reading is over and all is answered.
pub(super) async fn run(shared: &Shared, socket: &TcpStream) -> Result<(), WriteEnd> {
    let mut writer = Writer {
        shared,
        socket,
        pieces: VecDeque::new(),
        ends: VecDeque::new(),
        queued: 0,
        sent: 0,
        turn_bytes: 0,
        cached_to: 0,
    };
    let mut close = None;
    loop {
        while close.is_none()
            && let Some((outcome, is_alone)) = shared.take_ready()
        {
            match outcome {
                Outcome::Reply(response) if is_alone && writer.pieces.is_empty() => writer.send_alone(response),
                Outcome::Reply(response) => writer.queue(response),
                Outcome::Nothing => shared.answered(),
                Outcome::Close(reason) => close = Some(reason),
            }
        }
        if writer.pieces.is_empty() {
            match close {
                Some(reason) => return Err(WriteEnd::Closed(reason)),
                None if shared.wait_ready().await => continue,
                None => return Ok(()),
            }
        }
        writer.send().await?;
    }
}

impl Writer<'_> {
    fn queue(&mut self, response: super::Response) {
        self.queued += response.len;
        self.ends.push_back(self.queued);
        self.pieces.extend(response.parts.into_iter().map(|source| match source {
            Source::Bytes(bytes) => Piece::Bytes(bytes),
            Source::Tail { slice, range } => Piece::Tail { slice, sent: 0, range },
            Source::File(range) => Piece::File(range),
        }));
    }

    /// Sends what there is of a response that has no other before or behind it, and queues the rest.
    fn send_alone(&mut self, response: super::Response) {
        let sent = match &response.parts[..] {
            [Source::Bytes(bytes)] if bytes.len() <= ALONE_BYTES_MAX => {
                let send = || Ok(rustix::net::send(self.socket, bytes, SendFlags::NOSIGNAL)?);
                // What is wrong comes again when it is sent as any other.
                self.socket.try_io(Interest::WRITABLE, send).unwrap_or(0)
            }
            _ => 0,
        };
        if sent as u64 == response.len {
            self.shared.is_active();
            self.shared.answered();
            return;
        }
        self.queue(response);
        if sent > 0 {
            self.advance(sent);
        }
    }

    /// Sends something of what is in front, or waits until that is possible.
    async fn send(&mut self) -> Result<(), WriteEnd> {
        let result = match self.pieces.front() {
            Some(Piece::File(range)) => {
                let range = range.clone();
                if !self.make_sendable(&range).await? {
                    return Ok(());
                }
                self.send_file(&range)?
            }
            _ => self.send_memory(),
        };
        match result {
            Ok(count) => {
                self.advance(count);
                self.turn_bytes += count;
                if self.turn_bytes >= TURN_BYTES {
                    self.turn_bytes = 0;
                    self.shared.yield_now().await;
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_writable().await,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(WriteEnd::Io(error)),
        }
    }

    /// One vectored send of the memory in front.
    fn send_memory(&self) -> io::Result<usize> {
        let mut calls: SmallVec<[IoSlice<'_>; CALL_PIECES_MAX]> = SmallVec::new();
        let mut bytes = 0;
        let mut flags = SendFlags::NOSIGNAL;
        for piece in &self.pieces {
            let Some(memory) = piece.memory() else {
                // The beginning of a response does not travel alone when its file follows at once.
                flags |= SendFlags::MORE;
                break;
            };
            if calls.len() == CALL_PIECES_MAX || bytes >= CALL_BYTES_MAX {
                break;
            }
            let memory = &memory[..memory.len().min(CALL_BYTES_MAX - bytes)];
            bytes += memory.len();
            calls.push(IoSlice::new(memory));
        }
        self.socket.try_io(Interest::WRITABLE, || {
            Ok(rustix::net::sendmsg(self.socket, &calls, &mut SendAncillaryBuffer::default(), flags)?)
        })
    }

    /// Sees to it that the beginning of a range can be sent without waiting for a disk. Returns false when the range in
    /// front was exchanged for memory.
    async fn make_sendable(&mut self, range: &FileRange) -> Result<bool, WriteEnd> {
        let descriptor = range.file.descriptor();
        if descriptor.is_some() && range.position < self.cached_to {
            return Ok(true);
        }
        let len = range.len.min(sendfile::CALL_BYTES_MAX as u64);
        if let Some(descriptor) = descriptor
            && sendfile::is_cached(descriptor, range.position, len)
        {
            self.cached_to = range.position + len;
            return Ok(true);
        }
        // Nothing is read for a peer that cannot take it.
        self.wait_writable().await?;
        let buffer = self.shared.core.pool.buffer_up_to(len as usize).map_err(WriteEnd::File)?;
        let len = buffer.len().min(len as usize);
        let (buffer, read) = range.file.read_at(buffer, len, range.position).await.map_err(WriteEnd::File)?;
        if read == 0 {
            return Err(WriteEnd::File(io::ErrorKind::UnexpectedEof.into()));
        }
        if descriptor.is_some() {
            // The read has filled the page cache, and the block goes back: a slow peer shall not keep it.
            self.cached_to = range.position + read as u64;
            return Ok(true);
        }
        if let Some(front) = self.pieces.front_mut() {
            front.advance(read as u64);
            if front.len() == 0 {
                self.pieces.pop_front();
            }
        }
        self.pieces.push_front(Piece::Bytes(Bytes::from_owner(ReadMemory { buffer, len: read })));
        Ok(false)
    }

    fn send_file(&self, range: &FileRange) -> Result<io::Result<usize>, WriteEnd> {
        let Some(descriptor) = range.file.descriptor() else { unreachable!("such files are exchanged for memory") };
        let len = range.len.min(self.cached_to - range.position);
        let result = self.socket.try_io(Interest::WRITABLE, || sendfile::send_file(self.socket, descriptor, range.position, len));
        match result {
            Ok(0) => Err(WriteEnd::File(io::ErrorKind::UnexpectedEof.into())),
            result => Ok(result),
        }
    }

    /// Takes what was sent from the front.
    fn advance(&mut self, count: usize) {
        self.shared.is_active();
        self.sent += count as u64;
        let mut count = count as u64;
        while count > 0 {
            let Some(front) = self.pieces.front_mut() else { unreachable!("more sent than queued") };
            let step = front.len().min(count);
            front.advance(step);
            count -= step;
            if front.len() == 0 {
                if matches!(front, Piece::File(_)) {
                    self.cached_to = 0;
                }
                self.pieces.pop_front();
            }
        }
        while self.ends.front().is_some_and(|&end| end <= self.sent) {
            self.ends.pop_front();
            self.shared.answered();
        }
    }

    /// Waits until the socket takes bytes. Meanwhile, tail memory is exchanged for files.
    async fn wait_writable(&mut self) -> Result<(), WriteEnd> {
        let start = Instant::now();
        loop {
            let ready = timeout(SPILL_AFTER, poll_fn(|cx| self.socket.poll_write_ready(cx))).await;
            match ready {
                Ok(result) => return result.map_err(WriteEnd::Io),
                Err(_) if start.elapsed() >= self.shared.core.limits.idle_max => return Err(WriteEnd::Stuck),
                Err(_) => self.spill(),
            }
        }
    }

    fn spill(&mut self) {
        // What was cached a while ago may not be any more.
        self.cached_to = 0;
        for piece in &mut self.pieces {
            let Piece::Tail { slice, sent, range: Some(range) } = piece else { continue };
            let Some(mut file) = range.as_file() else { continue };
            assert_eq!(file.len, slice.len() as u64, "the file range has the same bytes");
            file.position += *sent as u64;
            file.len -= *sent as u64;
            *piece = Piece::File(file);
        }
    }
}
