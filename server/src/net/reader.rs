//! The reading half of a connection: bytes to frames to handlers. A part of [`super::connection`].
//!
//! One read call into the core's shared scratch may bring many small frames; each is copied out, which costs less than a
//! call of its own and lets a connection without traffic hold no memory. A large frame gets a block of its own and is
//! read straight into it. No length from the wire reserves memory by itself: a peer gets a block as large as it claims only
//! once it has sent a frame of about that size, before that the block grows with what arrives.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::memory::Buffer;
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::ReadHalf;
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep, sleep_until};

use super::budget::{self, FrameMemory, Permit};
use super::connection::{Request, Shared};
use super::{Stop, request};

/// Frames up to this size are copied out of the scratch and are not counted in the core's budget.
pub(super) const SMALL_FRAME_BYTES_MAX: usize = 16 << 10;
/// The size of a core's scratch.
pub(super) const SCRATCH_BYTES: usize = 64 << 10;
/// What is read at once behind a large frame: enough to learn the size of the next one, so that little of it is copied.
const PEEK_BYTES: usize = 4096;
/// The first block of a large frame from a peer that has not sent one yet, and by how much it grows.
const UNPROVEN_BYTES: usize = 64 << 10;
const GROWTH: usize = 8;
/// After so many bytes the core's other tasks get their turn.
const TURN_BYTES: usize = 1 << 20;
/// And after so many requests, however small.
const TURN_REQUESTS: usize = 256;
/// A peer that stops in the middle of a large request, and so holds some of the core's budget, is waited for so long.
const STALL_MAX: Duration = Duration::from_secs(30);

/// How much has to come of it in that time while others wait for what it holds.
const PROGRESS_BYTES_MIN: usize = 64 << 10;
/// How often a connection on which nothing is read is asked whether its peer is still there.
const LOOK: Duration = Duration::from_millis(100);

/// Why reading ended.
pub(super) enum End {
    PeerClosed,
    Idle,
    Stalled,
    Stopped,
    /// The connection belongs to another core.
    Moves,
    Malformed(std::borrow::Cow<'static, str>),
    /// For a request of so many bytes.
    NoMemory(usize),
    Io(io::Error),
}

/// A frame of which a part is here.
enum Partial {
    Size { bytes: [u8; 4], filled: usize },
    Small { bytes: Vec<u8>, filled: usize },
    Large(Large),
}

struct Large {
    size: usize,
    filled: usize,
    /// How much of it there was when the peer's patience was last looked at.
    filled_before: usize,
    buffer: Buffer,
    permit: Permit,
}

impl Large {
    fn capacity(&self) -> usize {
        self.buffer.len().min(self.size)
    }
}

/// What has to be done before bytes can be used further.
enum Next {
    Read,
    /// Wait for room for more requests.
    Room,
    /// Get memory for a frame of this size.
    Begin(usize),
    /// Get more memory for the frame that is being read.
    Grow,
    End(End),
}

pub(super) struct Reader<'a> {
    shared: &'a Shared,
    socket: ReadHalf<'a>,
    is_stop_said: Arc<AtomicBool>,
    stopped: Pin<&'a mut dyn Future<Output = ()>>,
    /// Whether `stopped` wakes this task.
    hears_stop: bool,
    idle: Pin<&'a mut Sleep>,
    /// When `idle` ends, where it wakes this task.
    idle_until: Option<Instant>,
    partial: Partial,
    /// Bytes that were read and could not be used yet.
    leftover: Vec<u8>,
    /// The size of the largest frame that the peer has sent whole.
    proven_bytes: usize,
    last_was_large: bool,
    turn_bytes: usize,
    turn_requests: usize,
}

impl<'a> Reader<'a> {
    /// Reads and starts requests until the connection ends for input.
    pub(super) async fn run(shared: &'a Shared, socket: ReadHalf<'a>, stop: Stop) -> End {
        let is_stop_said = stop.flag();
        let mut stopped = pin!(stop.wait());
        let mut idle = pin!(sleep_until(Instant::now() + shared.core.limits.idle_max));
        let reader = Reader {
            shared,
            socket,
            is_stop_said,
            stopped: stopped.as_mut(),
            hears_stop: false,
            idle: idle.as_mut(),
            idle_until: None,
            partial: Partial::Size { bytes: [0; 4], filled: 0 },
            leftover: Vec::new(),
            proven_bytes: 0,
            last_was_large: false,
            turn_bytes: 0,
            turn_requests: 0,
        };
        match reader.read_all().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn read_all(mut self) -> Result<std::convert::Infallible, End> {
        loop {
            let next = if self.leftover.is_empty() {
                self.read().await?
            } else {
                let leftover = std::mem::take(&mut self.leftover);
                let (used, next) = self.consume(&leftover);
                self.leftover = leftover[used..].to_vec();
                next
            };
            match next {
                Next::Read => {}
                Next::Room => self.wait_room().await?,
                Next::Begin(size) => self.begin(size).await?,
                Next::Grow => self.grow().await?,
                Next::End(end) => return Err(end),
            }
            if self.turn_bytes >= TURN_BYTES || self.turn_requests >= TURN_REQUESTS {
                (self.turn_bytes, self.turn_requests) = (0, 0);
                self.shared.yield_now().await;
            }
        }
    }

    /// Reads once, and uses what came.
    async fn read(&mut self) -> Result<Next, End> {
        let scratch = self.shared.core.scratch.clone();
        poll_fn(|cx| {
            loop {
                let mut scratch = scratch.borrow_mut();
                let target = match &mut self.partial {
                    Partial::Size { .. } if self.last_was_large => &mut scratch[..PEEK_BYTES],
                    Partial::Size { .. } => &mut scratch[..],
                    Partial::Small { bytes, filled } => &mut bytes[*filled..],
                    Partial::Large(large) => {
                        let range = large.filled..large.capacity();
                        &mut large.buffer[range]
                    }
                };
                let mut target = ReadBuf::new(target);
                match Pin::new(&mut self.socket).poll_read(cx, &mut target) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(End::Io(error))),
                    Poll::Pending => {
                        drop(scratch);
                        if self.poll_stopped(cx).is_ready() {
                            return Poll::Ready(Err(End::Stopped));
                        }
                        if self.may_move() {
                            return Poll::Ready(Err(End::Moves));
                        }
                        if self.poll_idle(cx).is_pending() {
                            return Poll::Pending;
                        }
                        // The timer is set again when it fires, not at every read.
                        match self.patience_left() {
                            Ok(until) => self.set_idle(until),
                            Err(end) => return Poll::Ready(Err(end)),
                        }
                        continue;
                    }
                }
                let read = target.filled().len();
                if read == 0 {
                    return Poll::Ready(Err(End::PeerClosed));
                }
                self.shared.is_active();
                self.turn_bytes += read;
                let (used, next) = match &mut self.partial {
                    Partial::Size { .. } => self.consume(&scratch[..read]),
                    Partial::Small { filled, .. } | Partial::Large(Large { filled, .. }) => {
                        *filled += read;
                        (read, self.consume(&[]).1)
                    }
                };
                if used < read {
                    self.leftover = scratch[used..read].to_vec();
                }
                return Poll::Ready(Ok(next));
            }
        })
        .await
    }

    /// Waits for the stop. Once this task is woken by it, it is asked again only when it was said: that is a look at one flag, where
    /// the future takes a lock that all connections share.
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.hears_stop && !self.is_stop_said.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        let polled = self.stopped.as_mut().poll(cx);
        // What is polled when the task's turn is used up wakes nobody.
        self.hears_stop = has_budget_remaining();
        polled
    }

    /// Waits for the end of patience. Once this task is woken by it, it is asked again only when its time has come.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.idle_until.is_some_and(|until| Instant::now() < until) {
            return Poll::Pending;
        }
        let polled = self.idle.as_mut().poll(cx);
        // As above: a timer that is not asked again would be lost.
        self.idle_until = has_budget_remaining().then(|| self.idle.deadline());
        polled
    }

    fn set_idle(&mut self, until: Instant) {
        self.idle.as_mut().reset(until);
        // Who was woken by it is not any more.
        self.idle_until = None;
    }

    /// Whether another core should go on, and nothing of the connection is here but its socket: asked where all that was read is used.
    fn may_move(&self) -> bool {
        let shared = self.shared;
        shared.is_elsewhere() && shared.is_quiet() && matches!(self.partial, Partial::Size { filled: 0, .. })
    }

    /// Until when the peer may be silent, or what is made of its silence.
    fn patience_left(&mut self) -> Result<Instant, End> {
        let core = &self.shared.core;
        let idle_max = core.limits.idle_max;
        let (patience, end, excused) = match &mut self.partial {
            Partial::Large(large) => {
                let came = large.filled - std::mem::replace(&mut large.filled_before, large.filled);
                if came < PROGRESS_BYTES_MIN && core.budget.is_wanted() {
                    return Err(End::Stalled);
                }
                (idle_max.min(STALL_MAX), End::Stalled, false)
            }
            Partial::Size { filled: 0, .. } => (idle_max, End::Idle, !self.shared.is_quiet()),
            Partial::Size { .. } | Partial::Small { .. } => (idle_max, End::Stalled, false),
        };
        let now = Instant::now();
        let until = self.shared.active() + patience;
        if until > now {
            Ok(until)
        } else if excused {
            Ok(now + patience)
        } else {
            Err(end)
        }
    }

    /// Turns bytes into frames and starts their requests; returns how many were used.
    fn consume(&mut self, input: &[u8]) -> (usize, Next) {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let frame = match &mut self.partial {
                Partial::Size { bytes, filled } => {
                    let take = rest.len().min(4 - *filled);
                    bytes[*filled..*filled + take].copy_from_slice(&rest[..take]);
                    *filled += take;
                    used += take;
                    if *filled < 4 {
                        return (used, Next::Read);
                    }
                    let size = match checked_size(*bytes, self.shared.core.limits.request_bytes_max) {
                        Ok(size) => size,
                        Err(end) => return (used, Next::End(end)),
                    };
                    if size > SMALL_FRAME_BYTES_MAX {
                        return (used, Next::Begin(size));
                    }
                    let rest = &input[used..];
                    if rest.len() < size {
                        self.partial = Partial::Small { bytes: vec![0; size], filled: 0 };
                        continue;
                    }
                    used += size;
                    Bytes::copy_from_slice(&rest[..size])
                }
                Partial::Small { bytes, filled } => {
                    let take = rest.len().min(bytes.len() - *filled);
                    bytes[*filled..*filled + take].copy_from_slice(&rest[..take]);
                    *filled += take;
                    used += take;
                    if *filled < bytes.len() {
                        return (used, Next::Read);
                    }
                    Bytes::from(std::mem::take(bytes))
                }
                Partial::Large(large) => {
                    let take = rest.len().min(large.capacity() - large.filled);
                    large.buffer[large.filled..large.filled + take].copy_from_slice(&rest[..take]);
                    large.filled += take;
                    used += take;
                    if large.filled < large.capacity() {
                        return (used, Next::Read);
                    }
                    if large.filled < large.size {
                        return (used, Next::Grow);
                    }
                    let whole = std::mem::replace(&mut self.partial, Partial::Size { bytes: [0; 4], filled: 0 });
                    let Partial::Large(whole) = whole else { unreachable!("matched above") };
                    Bytes::from_owner(FrameMemory { buffer: whole.buffer, len: whole.size, permit: whole.permit })
                }
            };
            self.partial = Partial::Size { bytes: [0; 4], filled: 0 };
            self.last_was_large = frame.len() > SMALL_FRAME_BYTES_MAX;
            self.proven_bytes = self.proven_bytes.max(frame.len());
            if let Err(end) = self.start(frame) {
                return (used, Next::End(end));
            }
            if !self.shared.has_room() {
                return (used, Next::Room);
            }
        }
    }

    /// Starts the request in a frame.
    fn start(&mut self, frame: Bytes) -> Result<(), End> {
        let len = frame.len();
        self.turn_requests += 1;
        let (handler, client_id) = (&self.shared.core.handler, &self.shared.core.client_id);
        let read = request::read(&**handler, &self.shared.info, &mut client_id.borrow_mut(), frame);
        let (context, body) = read.map_err(End::Malformed)?;
        self.shared.start(Request { context, body, bytes: len });
        Ok(())
    }

    /// Waits until one more request may be read. What has been sent already hides the peer's end from whoever does not read.
    async fn wait_room(&mut self) -> Result<(), End> {
        let look = Instant::now() + LOOK;
        if self.idle.deadline() > look {
            self.set_idle(look);
        }
        let mut is_gone = false;
        poll_fn(|cx| {
            if self.poll_stopped(cx).is_ready() {
                return Poll::Ready(Err(End::Stopped));
            }
            if self.shared.poll_room().is_ready() {
                return Poll::Ready(Ok(()));
            }
            while !is_gone && self.poll_idle(cx).is_ready() {
                is_gone = self.has_peer_ended();
                if is_gone {
                    self.shared.info.gone.tell();
                }
                self.set_idle(Instant::now() + LOOK);
            }
            Poll::Pending
        })
        .await
    }

    /// Whether nothing comes behind what is here (`POLLRDHUP`, poll(2)).
    fn has_peer_ended(&self) -> bool {
        let mut socket = [PollFd::new(self.socket.as_ref(), PollFlags::RDHUP)];
        // What cannot be asked is still there, for all that is known.
        rustix::event::poll(&mut socket, Some(&Timespec::default())).is_ok_and(|ended| ended > 0)
    }

    /// Waits for something unless the broker stops.
    async fn unless_stopped<T>(&mut self, future: impl Future<Output = T>) -> Result<T, End> {
        tokio::select! {
            biased;
            () = self.stopped.as_mut() => Err(End::Stopped),
            value = future => Ok(value),
        }
    }

    /// Gets room and memory for a large frame.
    async fn begin(&mut self, size: usize) -> Result<(), End> {
        let core = self.shared.core.clone();
        let permit = self.unless_stopped(core.budget.take(size)).await?;
        let proven = size <= self.proven_bytes.saturating_mul(2);
        let first = if proven { size } else { size.min(UNPROVEN_BYTES) };
        let buffer = self.unless_stopped(budget::buffer(&core.pool, first)).await?.map_err(|_| End::NoMemory(size))?;
        self.partial = Partial::Large(Large { size, filled: 0, filled_before: 0, buffer, permit });
        self.expect_more();
        Ok(())
    }

    /// Moves a large frame to a larger block.
    async fn grow(&mut self) -> Result<(), End> {
        let Partial::Large(large) = &self.partial else { unreachable!("only large frames grow") };
        let wanted = large.size.min(large.buffer.len().saturating_mul(GROWTH));
        let core = self.shared.core.clone();
        let buffer = self.unless_stopped(budget::buffer(&core.pool, wanted)).await?;
        let mut buffer = buffer.map_err(|_| End::NoMemory(wanted))?;
        let Partial::Large(large) = &mut self.partial else { unreachable!("only large frames grow") };
        buffer[..large.filled].copy_from_slice(&large.buffer[..large.filled]);
        large.buffer = buffer;
        self.expect_more();
        Ok(())
    }

    /// Of a large frame, from now on: what was waited for before is not the peer's silence.
    fn expect_more(&mut self) {
        self.shared.is_active();
        let patience = self.shared.core.limits.idle_max.min(STALL_MAX);
        self.set_idle(Instant::now() + patience);
    }
}

fn checked_size(bytes: [u8; 4], size_max: usize) -> Result<usize, End> {
    let size = i32::from_be_bytes(bytes);
    match usize::try_from(size) {
        Ok(size) if size <= size_max => return Ok(size),
        _ => {}
    }
    let hint = match bytes {
        [0x16, 0x03, ..] => " (this looks like TLS, and the listener is plaintext)",
        [b'G', b'E', b'T', b' '] | [b'P', b'O', b'S', b'T'] | [b'H', b'E', b'A', b'D'] => " (this looks like HTTP)",
        _ => "",
    };
    Err(End::Malformed(format!("a request of {size} bytes; socket.request.max.bytes is {size_max}{hint}").into()))
}
