//! Connections over real loopback sockets, with handlers made for each test.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::memory::Pool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet};

use super::listener::{self, ConnectionLimits, Dealer, Listener};
use super::*;

mod frames;
mod lifecycle;
mod moves;
mod responses;

/// The API of these tests, whatever it is for: its header is flexible from version 6 on.
const KEY: i16 = ApiKey::ListOffsets as i16;
const FLEXIBLE_MIN: i16 = 6;

type Serve = Box<dyn Fn(RequestContext, Bytes) -> LocalBoxFuture<Outcome>>;

struct Fake {
    serve: Serve,
    started: RefCell<Vec<i32>>,
}

impl Handler for Fake {
    fn handle(self: Rc<Self>, context: RequestContext, body: Bytes) -> LocalBoxFuture<Outcome> {
        self.started.borrow_mut().push(context.correlation_id);
        (self.serve)(context, body)
    }
}

fn reply(context: &RequestContext, body: &[u8]) -> Outcome {
    Outcome::Reply(Response::encode(context, |encoder| encoder.raw(body)))
}

/// Answers with the request's body.
fn echo() -> Serve {
    Box::new(|context, body| Box::pin(async move { reply(&context, &body) }))
}

/// Doors that handlers wait at, by correlation id.
#[derive(Clone, Default)]
struct Gates(Rc<RefCell<HashMap<i32, oneshot::Sender<()>>>>);

impl Gates {
    /// Answers with the request's body once its gate is opened.
    fn echo(&self) -> Serve {
        let gates = self.clone();
        Box::new(move |context, body| {
            let (sender, receiver) = oneshot::channel();
            gates.0.borrow_mut().insert(context.correlation_id, sender);
            Box::pin(async move {
                let _ = receiver.await;
                reply(&context, &body)
            })
        })
    }

    /// Until a handler waits at its gate.
    async fn arrival(&self, correlation_id: i32) {
        while !self.0.borrow().contains_key(&correlation_id) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn open(&self, correlation_id: i32) {
        let gate = self.0.borrow_mut().remove(&correlation_id).expect("its handler has started");
        let _ = gate.send(());
    }
}

/// A broker of one core, in this thread.
struct Broker {
    fake: Rc<Fake>,
    core: Rc<Core>,
    pool: Pool,
    address: SocketAddr,
    dealer: Dealer,
    stop: StopSender,
    accepting: JoinHandle<()>,
    serving: JoinHandle<()>,
}

fn loopback() -> Listener {
    listener::bind("PLAINTEXT", "127.0.0.1", 0, 50).unwrap()
}

impl Broker {
    fn start(limits: Limits, serve: Serve) -> Self {
        Self::with_connections(limits, serve, ConnectionLimits { all_max: 100, descriptors_max: 100, per_address_max: 100 })
    }

    fn with_connections(limits: Limits, serve: Serve, connections: ConnectionLimits) -> Self {
        let fake = Rc::new(Fake { serve, started: RefCell::default() });
        let pool = Pool::new(64 << 20);
        let (dealer, mut receivers) = Dealer::new(1, connections);
        let core = Core::new(0, dealer.clone(), fake.clone(), limits, pool.clone());
        let listener = loopback();
        let address = listener.address();
        let (stop, stopped) = stop_channel();
        let accepting = {
            let (dealer, stopped) = (dealer.clone(), stopped.clone());
            tokio::task::spawn_local(async move { listener::accept(listener, dealer, stopped).await.unwrap() })
        };
        let serving = tokio::task::spawn_local(super::serve(core.clone(), receivers.remove(0), stopped));
        Self { fake, core, pool, address, dealer, stop, accepting, serving }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn started(&self) -> Vec<i32> {
        self.fake.started.borrow().clone()
    }

    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Runs a test on a core like the broker's, with an end in sight.
fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let whole = async { tokio::time::timeout(Duration::from_secs(300), test).await.expect("the test hangs") };
    LocalSet::new().block_on(&runtime, whole);
}

fn framed(content: &[u8]) -> Vec<u8> {
    [&i32::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
}

fn request_to(key: i16, version: i16, correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    content.extend_from_slice(&key.to_be_bytes());
    content.extend_from_slice(&version.to_be_bytes());
    content.extend_from_slice(&correlation_id.to_be_bytes());
    content.extend_from_slice(b"\0\x04test");
    if version >= FLEXIBLE_MIN {
        content.extend_from_slice(b"\x01\x00\x01x");
    }
    content.extend_from_slice(body);
    framed(&content)
}

fn request(correlation_id: i32, body: &[u8]) -> Vec<u8> {
    request_to(KEY, 1, correlation_id, body)
}

/// Reads one response: its correlation id and the rest.
async fn response(stream: &mut TcpStream) -> (i32, Vec<u8>) {
    let size = stream.read_i32().await.unwrap();
    let correlation_id = stream.read_i32().await.unwrap();
    let mut rest = vec![0; usize::try_from(size).unwrap() - 4];
    stream.read_exact(&mut rest).await.unwrap();
    (correlation_id, rest)
}

/// Reads to the end and returns what came.
async fn rest_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    rest
}

/// Bytes that differ from place to place.
fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}
