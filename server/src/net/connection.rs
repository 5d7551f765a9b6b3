//! One connection: a task that joins its reader, the handlers of its unanswered requests, and its writer. Started by
//! [`super::serve`]. The three share [`Shared`] and are polled one after the other, so that none needs to wake another.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use ringlog_protocol::ApiKey;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::reader::{End, Reader};
use super::writer::{self, WriteEnd};
use super::{ConnectionInfo, Core, LocalBoxFuture, Outcome, RequestContext, Stop};

/// How long the last bytes to a peer may take to be taken off our socket before it is closed under them: closing a socket
/// with unread input resets the connection, and the peer then loses what it has not read yet.
const LINGER_MAX: Duration = Duration::from_millis(200);

/// A request whose handler runs.
struct Running {
    state: State,
    bytes: usize,
}

enum State {
    Handler(LocalBoxFuture<Outcome>),
    Done(Option<Outcome>),
}

impl Future for Running {
    type Output = (Outcome, usize);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let bytes = self.bytes;
        match &mut self.state {
            State::Handler(handler) => handler.as_mut().poll(cx).map(|outcome| (outcome, bytes)),
            State::Done(outcome) => match outcome.take() {
                Some(outcome) => Poll::Ready((outcome, bytes)),
                None => Poll::Pending,
            },
        }
    }
}

/// A request that was read.
pub(super) struct Request {
    pub(super) context: RequestContext,
    pub(super) body: Bytes,
    /// The whole frame's.
    pub(super) bytes: usize,
}

/// What the parts of a connection share.
pub(super) struct Shared {
    pub(super) core: Rc<Core>,
    pub(super) info: Rc<ConnectionInfo>,
    running: RefCell<FuturesOrdered<Running>>,
    /// What the last handler that runs changes, if it does.
    changing: Cell<Option<ApiKey>>,
    /// The request that waits for the changes before it. Nothing is read behind it.
    held: RefCell<Option<Box<Request>>>,
    ready: RefCell<VecDeque<Outcome>>,
    /// Requests that were read and whose answers are not all written.
    requests: Cell<usize>,
    /// Bytes of the requests whose handlers run.
    bytes: Cell<usize>,
    reading: Cell<bool>,
    /// Whether the reader waits for room for one more request.
    waits_for_room: Cell<bool>,
    /// Whether a request was done with since the reader had its turn.
    freed: Cell<bool>,
    yielding: Cell<bool>,
    /// When bytes last moved or a handler last finished.
    active: Cell<Instant>,
}

impl Shared {
    pub(super) fn is_active(&self) {
        self.active.set(Instant::now());
    }

    pub(super) fn active(&self) -> Instant {
        self.active.get()
    }

    /// Whether every request is answered.
    pub(super) fn is_quiet(&self) -> bool {
        self.requests.get() == 0
    }

    /// Whether the connection should be on another core.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.info.home.core() != self.core.index
    }

    /// Whether the reader has a turn although its socket has nothing new.
    fn reader_goes_on(&self) -> bool {
        self.freed.replace(false) && (self.waits_for_room.get() || self.is_elsewhere())
    }

    /// Waits until one more request may be read.
    pub(super) fn poll_room(&self) -> Poll<()> {
        let has_room = self.has_room();
        self.waits_for_room.set(!has_room);
        if has_room { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether one more request may be read.
    pub(super) fn has_room(&self) -> bool {
        let limits = &self.core.limits;
        let requests = self.requests.get();
        requests < limits.connection_requests_max
            && self.held.borrow().is_none()
            && self.bytes.get() < limits.connection_bytes_max
            && (requests == 0 || !self.info.crowd.is_there())
    }

    /// Takes in a request. It is begun at once unless it has to find what one before it is about to change: Kafka takes the
    /// requests of a connection one after the other, and clients count on it. Batches keep their order by themselves.
    pub(super) fn start(&self, request: Request) {
        self.requests.set(self.requests.get() + 1);
        let api = request.context.api;
        let is_idle = self.running.borrow().is_empty();
        match self.changing.get() {
            Some(changing) if !is_idle && (changing, api) != (ApiKey::Produce, ApiKey::Produce) => {
                self.held.replace(Some(Box::new(request)));
            }
            _ => self.begin(request),
        }
    }

    /// Makes a request's handler, and polls it once here: that makes requests begin in order.
    fn begin(&self, Request { context, body, bytes }: Request) {
        let api = context.api;
        let mut handler = self.core.handler.clone().handle(context, body);
        // Whoever waits is polled again with the task's own waker in `drive`.
        let polled = handler.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
        let mut running = self.running.borrow_mut();
        if running.is_empty() {
            self.changing.set(None);
        }
        let state = match polled {
            // Nothing is before it.
            Poll::Ready(outcome) if running.is_empty() => return self.push_ready(outcome),
            Poll::Ready(outcome) => State::Done(Some(outcome)),
            Poll::Pending => {
                if self.core.handler.changes_what_others_see(api) {
                    self.changing.set(Some(api));
                }
                State::Handler(handler)
            }
        };
        self.bytes.set(self.bytes.get() + bytes);
        running.push_back(Running { state, bytes });
    }

    fn push_ready(&self, outcome: Outcome) {
        let mut ready = self.ready.borrow_mut();
        if ready.is_empty() {
            // Most often it is one alone.
            ready.reserve_exact(1);
        }
        ready.push_back(outcome);
    }

    /// Polls the handlers; what they answer is moved on in the order of the requests.
    fn drive(&self, cx: &mut Context<'_>) {
        loop {
            let mut running = self.running.borrow_mut();
            // Where there is none, nothing of the queue is looked at: on thousands of quiet connections that is memory from afar.
            if running.is_empty() {
                return;
            }
            while let Poll::Ready(Some((outcome, bytes))) = running.poll_next_unpin(cx) {
                self.bytes.set(self.bytes.get() - bytes);
                if matches!(outcome, Outcome::Close(_)) {
                    self.held.take();
                }
                self.push_ready(outcome);
                self.is_active();
                self.freed.set(true);
            }
            if !running.is_empty() {
                return;
            }
            drop(running);
            let Some(request) = self.held.take() else { return };
            self.begin(*request);
        }
    }

    /// The next answer that is ready to be sent, and whether it is the only one.
    pub(super) fn take_ready(&self) -> Option<(Outcome, bool)> {
        let mut ready = self.ready.borrow_mut();
        let outcome = ready.pop_front()?;
        let is_alone = ready.is_empty();
        if is_alone {
            // A connection without traffic holds no memory; and what was just used is quick to be had again.
            *ready = VecDeque::new();
        }
        Some((outcome, is_alone))
    }

    /// Told when a request is answered and its bytes are with the kernel, or nothing was to be sent.
    pub(super) fn answered(&self) {
        self.requests.set(self.requests.get() - 1);
        self.freed.set(true);
    }

    /// Waits for the next answer; false when there will be none.
    pub(super) async fn wait_ready(&self) -> bool {
        poll_fn(|_| {
            if !self.ready.borrow().is_empty() {
                Poll::Ready(true)
            } else if !self.reading.get() && self.running.borrow().is_empty() {
                Poll::Ready(false)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Lets the core's other tasks run.
    pub(super) async fn yield_now(&self) {
        let mut yielded = false;
        poll_fn(|_| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            self.yielding.set(true);
            Poll::Pending
        })
        .await;
    }
}

/// Serves a connection to its end, or until another core should: then nothing is under way on it, and it is returned.
pub(super) async fn run(core: Rc<Core>, stream: TcpStream, info: Rc<ConnectionInfo>, stop: Stop) -> Option<TcpStream> {
    debug!(connection = info.id, peer = %info.peer, listener = %info.listener, core = core.index, "connected");
    let shared = Shared {
        core,
        info: info.clone(),
        running: RefCell::default(),
        changing: Cell::new(None),
        held: RefCell::default(),
        ready: RefCell::default(),
        requests: Cell::new(0),
        bytes: Cell::new(0),
        reading: Cell::new(true),
        waits_for_room: Cell::new(false),
        freed: Cell::new(false),
        yielding: Cell::new(false),
        active: Cell::new(Instant::now()),
    };
    let (end, result, stream) = serve(&shared, stream, stop).await;
    if matches!((&end, &result), (Some(End::Moves), Ok(()))) {
        debug!(connection = info.id, peer = %info.peer, core = info.home.core(), "goes to another core");
        return Some(stream);
    }
    let linger = match &result {
        Ok(()) => !matches!(end, Some(End::PeerClosed | End::Idle | End::Io(_))),
        Err(WriteEnd::Closed(_)) => true,
        Err(_) => false,
    };
    log(&info, end, result);
    info.gone.tell();
    // What was not begun when the connection broke is as if it had not come.
    shared.held.take();
    let drain = poll_fn(|cx| {
        shared.drive(cx);
        shared.ready.borrow_mut().clear();
        if shared.running.borrow().is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    tokio::join!(close(&shared.core, stream, linger), drain);
    None
}

async fn serve(shared: &Shared, mut stream: TcpStream, stop: Stop) -> (Option<End>, Result<(), WriteEnd>, TcpStream) {
    let mut end = None;
    let result = {
        let (read_half, write_half) = stream.split();
        let mut reader = pin!(Reader::run(shared, read_half, stop));
        let mut writer = pin!(writer::run(shared, write_half.as_ref()));
        poll_fn(|cx| {
            // Each part sees what those before it did; what comes back to the reader is room, and that all is answered.
            loop {
                if end.is_none()
                    && let Poll::Ready(why) = reader.as_mut().poll(cx)
                {
                    if !matches!(why, End::Stopped | End::Moves) {
                        // Who has closed its half alone is answered at once with what there is, and who sent what is no request.
                        shared.info.gone.tell();
                    }
                    end = Some(why);
                    shared.reading.set(false);
                }
                shared.drive(cx);
                if let Poll::Ready(result) = writer.as_mut().poll(cx) {
                    return Poll::Ready(result);
                }
                if shared.yielding.replace(false) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if !shared.reader_goes_on() {
                    return Poll::Pending;
                }
            }
        })
        .await
    };
    (end, result, stream)
}

/// Closes a connection so that the peer can still read what was sent.
async fn close(core: &Core, stream: TcpStream, linger: bool) {
    if !linger || rustix::net::shutdown(&stream, rustix::net::Shutdown::Write).is_err() {
        return;
    }
    // What comes is thrown away. Room for it in the task itself would be in every connection's memory all its life.
    let drain = async {
        // It takes from the task's budget, so that a peer that goes on sending holds up nobody.
        while poll_fn(|cx| stream.poll_read_ready(cx)).await.is_ok() {
            match stream.try_read(&mut core.scratch.borrow_mut()) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => break,
            }
        }
    };
    let _ = timeout(LINGER_MAX, drain).await;
}

fn log(info: &ConnectionInfo, end: Option<End>, result: Result<(), WriteEnd>) {
    let (connection, peer) = (info.id, info.peer);
    let closing = |reason: Cow<'static, str>| warn!(connection, %peer, listener = %info.listener, "connection closed: {reason}");
    match (result, end) {
        (Err(WriteEnd::Closed(reason)), _) => closing(reason),
        (Err(WriteEnd::File(error)), _) => closing(format!("a file could not be sent: {error}").into()),
        (Err(WriteEnd::Stuck), _) => info!(connection, %peer, "connection closed: the peer does not read its responses"),
        (_, Some(End::Malformed(reason))) => closing(reason),
        (_, Some(End::NoMemory(size))) => closing(format!("the system has no memory for a request of {size} bytes").into()),
        (_, Some(End::Stalled)) => info!(connection, %peer, "connection closed: the peer stopped in the middle of a request"),
        (Err(WriteEnd::Io(error)), _) => debug!(connection, %peer, %error, "connection lost"),
        (Ok(()), Some(End::Io(error))) if error.kind() != io::ErrorKind::ConnectionReset => {
            info!(connection, %peer, %error, "connection lost");
        }
        (Ok(()), Some(End::Io(_) | End::PeerClosed) | None) => debug!(connection, %peer, "connection closed by the peer"),
        (Ok(()), Some(End::Idle)) => debug!(connection, %peer, "connection closed: idle"),
        (Ok(()), Some(End::Moves)) => unreachable!("it goes on elsewhere"),
        (Ok(()), Some(End::Stopped)) => debug!(connection, %peer, "connection closed: the broker stops"),
    }
}
