//! The broker's sockets: listeners, connections, frames in, responses out. It knows the request header and nothing of
//! what a request means: that is a [`Handler`]'s business. The broker's assembly calls [`listener`] and [`serve`];
//! handlers use [`RequestContext`], [`Outcome`] and [`response`]. Nothing here blocks its thread, and every buffer and
//! queue has a bound.
//!
//! All of it runs on `tokio::net` inside a core's own current-thread runtime: readiness instead of the ring, because a
//! socket operation that is given up must not swallow the peer's next bytes.

use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_protocol::ApiKey;

use crate::config::BrokerOptions;

mod budget;
mod connection;
mod crowd;
mod gone;
mod home;
pub mod listener;
mod reader;
pub mod request;
pub mod response;
pub mod sendfile;
mod server;
#[cfg(test)]
mod tests;
mod writer;

pub use crowd::Crowd;
pub use gone::Gone;
pub use home::Home;
pub use response::{FileRange, Response, Source, TailRange};
pub use server::{Core, Stop, StopSender, serve, stop_channel};

/// A future that stays on its core.
pub type LocalBoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// The bounds of one core's connections.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `socket.request.max.bytes`: a longer frame closes its connection.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`: a connection on which nothing happens for so long is closed.
    pub idle_max: Duration,
    /// How many requests of one connection may be unanswered before it is no longer read.
    pub connection_requests_max: usize,
    /// How many bytes of unanswered requests one connection may have before it is no longer read. One request may pass it.
    pub connection_bytes_max: usize,
    /// How many bytes of large requests a core holds at once (`queued.max.request.bytes` of all cores). One request may pass
    /// it, alone.
    pub core_bytes_max: usize,
}

impl Limits {
    /// The bounds that the configuration asks for, on one of `cores` cores.
    #[must_use]
    pub fn new(options: &BrokerOptions, cores: usize) -> Self {
        let defaults = Self::default();
        let bytes = |bytes: i64| usize::try_from(bytes).ok();
        let request_bytes_max = bytes(options.socket_request_max_bytes.into()).unwrap_or(defaults.request_bytes_max);
        let idle_max = u64::try_from(options.connections_max_idle_ms).map_or(NEVER, Duration::from_millis).min(NEVER);
        let all_cores_bytes_max = bytes(options.queued_max_request_bytes);
        let core_bytes_max = all_cores_bytes_max.map_or(defaults.core_bytes_max, |all| (all / cores.max(1)).max(1));
        Self { request_bytes_max, idle_max, core_bytes_max, ..defaults }
    }
}

/// As good as never, and a timer can still be set to it.
const NEVER: Duration = Duration::from_secs(10 * 365 * 86400);

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: 100 << 20,
            idle_max: Duration::from_secs(600),
            connection_requests_max: 64,
            connection_bytes_max: 32 << 20,
            core_bytes_max: 128 << 20,
        }
    }
}

/// What is known of a connection.
#[derive(Debug)]
#[repr(C)]
pub struct ConnectionInfo {
    /// The core that serves it best. In front, beside the counts of an `Rc`: every request looks at both.
    pub home: Home,
    /// What it feeds that has too much to take.
    pub crowd: Crowd,
    /// A number of its own in this process, for log lines.
    pub id: u64,
    /// The other end.
    pub peer: SocketAddr,
    /// This end: the address by which the peer came.
    pub local: SocketAddr,
    /// The name of the listener it came in by.
    pub listener: Arc<str>,
    /// Who it is: `User:ANONYMOUS` until it says otherwise.
    pub principal: Rc<str>,
    /// Whether nobody is there any more to hear an answer.
    pub gone: Gone,
}

/// What is known of a request beside its body.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Where it came in.
    pub connection: Rc<ConnectionInfo>,
    /// The client's name for itself; `None` where it sent none.
    pub client_id: Option<Rc<str>>,
    /// Which API.
    pub api: ApiKey,
    /// Which version of it.
    pub api_version: i16,
    /// The client's number of this request, repeated in the response.
    pub correlation_id: i32,
    /// True for ApiVersions at a version that is not served: the answer is then a version 0 body with error 35 (KIP-511).
    pub version_unsupported: bool,
}

/// What a [`Handler`] says to a version of an API before it sees the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Handled.
    Serve,
    /// ApiVersions at an unknown version: handled, with [`RequestContext::version_unsupported`] set and an empty body.
    AnswerUnsupported,
    /// The connection is closed.
    Refuse,
}

/// What comes of a request.
pub enum Outcome {
    /// An answer.
    Reply(Response),
    /// No answer (Produce with acks=0).
    Nothing,
    /// The connection is closed once earlier requests are answered; the reason is for the log.
    Close(Cow<'static, str>),
}

/// Serves requests.
pub trait Handler {
    /// Whether this API is handled in this version. Unless a handler knows better: what is served, in the versions that are
    /// advertised. These include Produce 0 to 2, which are to be answered with an error.
    fn admit(&self, api: ApiKey, version: i16) -> Admission {
        if !api.is_served() {
            Admission::Refuse
        } else if (api.version_min_advertised()..=api.version_max()).contains(&version) {
            Admission::Serve
        } else if api == ApiKey::ApiVersions {
            Admission::AnswerUnsupported
        } else {
            Admission::Refuse
        }
    }

    /// Whether what a request of this API does shows to the requests behind it only once it has ended. These are begun after it then;
    /// but Produce behind Produce is not held up. Groups keep the order of what is asked of them by themselves.
    fn changes_what_others_see(&self, api: ApiKey) -> bool {
        matches!(
            api,
            ApiKey::Produce
                | ApiKey::CreateTopics
                | ApiKey::DeleteTopics
                | ApiKey::CreatePartitions
                | ApiKey::DeleteRecords
                | ApiKey::AlterConfigs
                | ApiKey::IncrementalAlterConfigs
        )
    }

    /// Serves one request. `body` is what follows the request header, kept alive by whoever holds it.
    ///
    /// Requests of one connection are started in the order in which they came: this future is polled once before the
    /// next one is asked for, and ends before one is that has to see what it changes. They may finish in any order. A future that
    /// was started is polled to its end even when the peer is gone, unless the broker stops without patience; one that waits for
    /// others may end when [`ConnectionInfo::gone`] says so.
    fn handle(self: Rc<Self>, context: RequestContext, body: Bytes) -> LocalBoxFuture<Outcome>;
}
