//! Simulated connections: whole frames in, through the handlers as a connection starts them, whole frames out in the order of the
//! requests. Everything takes time, and a connection may be cut before a request arrives, while it is handled, or after, with
//! the answer on its way. As with real ones, a request that has arrived is handled to its end whoever is gone.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::env::Env;
use ringlog_engine::env::random::Random;
use ringlog_engine::memory::Buffer;
use ringlog_server::net::{ConnectionInfo, Crowd, FileRange, Gone, Handler, Home, Outcome, Response, Source, request};
use tokio::sync::{Notify, mpsc, oneshot};

/// How long requests may take at a stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How hostile it is.
#[derive(Clone, Debug)]
pub struct NetworkFaults {
    /// The longest that a frame travels.
    pub delay_max: Duration,
    /// How probable it is that the connection is cut at a request, somewhere.
    pub cut: f64,
}

/// The network of one life of the machine.
pub struct Network {
    env: Rc<dyn Env>,
    handlers: Vec<Rc<dyn Handler>>,
    random: RefCell<Random>,
    faults: NetworkFaults,
    connections: Cell<u64>,
    /// Requests that are being handled.
    handling: Cell<usize>,
    /// Whether nothing more is read.
    is_stopping: Cell<bool>,
    /// Whether what is handled is given up.
    given_up: Notify,
}

/// A client's end. Dropping it closes the connection.
pub struct Connection {
    requests: mpsc::UnboundedSender<(Bytes, oneshot::Sender<Vec<u8>>)>,
}

/// The answer to come: an error is a connection that was cut.
pub type Answer = oneshot::Receiver<Vec<u8>>;

impl Connection {
    /// Sends a frame (with its size). Where the connection is cut the answer is an error.
    pub fn send(&self, frame: Vec<u8>) -> Answer {
        let (sender, answer) = oneshot::channel();
        // A connection that is gone drops the sender.
        let _ = self.requests.send((Bytes::from(frame).slice(4..), sender));
        answer
    }
}

impl Network {
    /// The network before a broker's handlers.
    #[must_use]
    pub fn new(env: Rc<dyn Env>, handlers: Vec<Rc<dyn Handler>>, seed: u64, faults: NetworkFaults) -> Rc<Self> {
        Rc::new(Self {
            env,
            handlers,
            random: RefCell::new(Random::new(seed)),
            faults,
            connections: Cell::new(0),
            handling: Cell::new(0),
            is_stopping: Cell::new(false),
            given_up: Notify::new(),
        })
    }

    /// Connects to some core.
    #[must_use]
    pub fn connect(self: &Rc<Self>) -> Connection {
        let id = self.connections.get() + 1;
        self.connections.set(id);
        let core = self.random.borrow_mut().below(self.handlers.len() as u64) as usize;
        let info = ConnectionInfo {
            id,
            peer: ([127, 0, 0, 1], 50_000).into(),
            local: ([127, 0, 0, 1], 9092).into(),
            listener: "PLAINTEXT".into(),
            principal: "User:ANONYMOUS".into(),
            home: Home::dealt_to(core),
            crowd: Crowd::default(),
            gone: Gone::default(),
        };
        let (requests, incoming) = mpsc::unbounded_channel();
        let (outgoing, outcomes) = mpsc::unbounded_channel();
        let reader = Reader { network: self.clone(), handler: self.handlers[core].clone(), info: Rc::new(info), outgoing };
        self.env.spawn(Box::pin(reader.run(incoming)));
        self.env.spawn(Box::pin(write(self.clone(), outcomes)));
        Connection { requests }
    }

    /// The stop, as connections have it: nothing more is read, what is at work is answered, for at most ten seconds.
    pub async fn stop(&self) {
        self.is_stopping.set(true);
        for _ in 0..DRAIN_MAX.as_millis() {
            if self.handling.get() == 0 {
                return;
            }
            self.env.sleep(Duration::from_millis(1)).await;
        }
        self.given_up.notify_waiters();
    }

    fn chance(&self, probability: f64) -> bool {
        self.random.borrow_mut().chance(probability)
    }

    async fn travel(&self) {
        let nanos = self.random.borrow_mut().below(self.faults.delay_max.as_nanos() as u64);
        self.env.sleep(Duration::from_nanos(nanos)).await;
    }
}

/// What a request came to, and where its answer goes; in the order of the requests.
type Pending = (oneshot::Receiver<Outcome>, oneshot::Sender<Vec<u8>>);

struct Reader {
    network: Rc<Network>,
    handler: Rc<dyn Handler>,
    info: Rc<ConnectionInfo>,
    outgoing: mpsc::UnboundedSender<Pending>,
}

impl Reader {
    async fn run(self, mut incoming: mpsc::UnboundedReceiver<(Bytes, oneshot::Sender<Vec<u8>>)>) {
        let network = &self.network;
        let mut client_id = None;
        while let Some((frame, answer)) = incoming.recv().await {
            network.travel().await;
            let is_cut = network.chance(network.faults.cut);
            if (is_cut && network.chance(0.3)) || network.is_stopping.get() {
                return;
            }
            let (context, body) = match request::read(&*self.handler, &self.info, &mut client_id, frame) {
                Ok(request) => request,
                Err(error) => panic!("RequestsAreUnderstood: {error}"),
            };
            // Started in the order of the requests: polled once before the next one is looked at.
            let mut handling = self.handler.clone().handle(context, body);
            let (done, outcome) = oneshot::channel();
            match handling.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(ready) => {
                    let _ = done.send(ready);
                }
                Poll::Pending => {
                    let serving = self.network.clone();
                    serving.handling.set(serving.handling.get() + 1);
                    network.env.spawn(Box::pin(async move {
                        tokio::select! {
                            biased;
                            () = serving.given_up.notified() => {}
                            outcome = handling => drop(done.send(outcome)),
                        }
                        serving.handling.set(serving.handling.get() - 1);
                    }));
                }
            }
            if self.outgoing.send((outcome, answer)).is_err() || is_cut {
                return;
            }
        }
    }
}

async fn write(network: Rc<Network>, mut outcomes: mpsc::UnboundedReceiver<Pending>) {
    while let Some((outcome, answer)) = outcomes.recv().await {
        let response = match outcome.await {
            Ok(Outcome::Reply(response)) => response,
            Ok(Outcome::Nothing) => continue,
            // What follows is not answered.
            Ok(Outcome::Close(_)) | Err(_) => return,
        };
        let Ok(bytes) = flatten(&response).await else { return };
        drop(response);
        network.travel().await;
        if network.chance(network.faults.cut / 2.0) {
            return;
        }
        let _ = answer.send(bytes);
    }
}

/// The bytes that go over the wire. A file that cannot be read when it is sent closes the connection.
async fn flatten(response: &Response) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::with_capacity(response.len_bytes() as usize);
    for part in response.parts() {
        match part {
            Source::Bytes(bytes) => all.extend_from_slice(bytes),
            Source::Tail { slice, .. } => all.extend_from_slice(slice.bytes()),
            Source::File(FileRange { file, position, len }) => {
                let len = *len as usize;
                let (buffer, read) = file.read_at(Buffer::standalone(len)?, len, *position).await?;
                if read != len {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                all.extend_from_slice(&buffer[..len]);
            }
        }
    }
    assert_eq!(all.len() as u64, response.len_bytes(), "a response is as long as it says");
    Ok(all)
}
