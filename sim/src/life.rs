//! One life of the machine, as clients have it: time, the network, what all of them know.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::env::Env;
use ringlog_protocol::Message;

use crate::model::Model;
use crate::network::{Answer, Connection, Network};
use crate::wire;

/// How long a client waits for an answer before it gives the connection up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The steps of a seed, for people.
pub struct Trace {
    is_on: bool,
}

impl Trace {
    /// One that prints, or nothing.
    #[must_use]
    pub fn new(is_on: bool) -> Rc<Self> {
        Rc::new(Self { is_on })
    }

    /// A line, made only when somebody reads it.
    pub fn say(&self, now: Duration, line: impl FnOnce() -> String) {
        if self.is_on {
            println!("{:>14.6} {}", now.as_secs_f64(), line());
        }
    }
}

/// See the module. Clients' tasks end with it; what they know does not.
pub struct Life {
    /// Time and tasks.
    pub env: Rc<dyn Env>,
    /// The way to the broker.
    pub network: Rc<Network>,
    /// What all clients know together.
    pub model: Rc<RefCell<Model>>,
    /// For people.
    pub trace: Rc<Trace>,
}

impl Life {
    /// The time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.env.monotonic()
    }

    /// The wall clock is looked at: what expires does so by it.
    pub fn see_wall(&self) {
        self.model.borrow_mut().groups.see_wall(self.env.now().0);
    }

    /// A line of the trace.
    pub fn say(&self, line: impl FnOnce() -> String) {
        self.trace.say(self.now(), line);
    }

    /// The answer's frame, or nothing where the connection is gone or the client's patience is.
    pub async fn wait(&self, answer: Answer) -> Option<Vec<u8>> {
        tokio::select! {
            biased;
            frame = answer => frame.ok(),
            () = self.env.sleep(PATIENCE) => None,
        }
    }
}

/// A client's connection, made anew when it was cut.
#[derive(Default)]
pub struct Client {
    connection: Option<Connection>,
    correlation: i32,
}

impl Client {
    /// Sends a request. Returns its correlation id and the answer to come.
    pub fn send<'a, M: Message<'a>>(&mut self, life: &Life, request: &M, version: i16) -> (i32, Answer) {
        self.correlation += 1;
        let connection = self.connection.get_or_insert_with(|| life.network.connect());
        (self.correlation, connection.send(wire::frame(request, version, self.correlation)))
    }

    /// Asks and waits. Nothing: it is not known what became of it.
    pub async fn ask<'a, M: Message<'a>>(&mut self, life: &Life, request: &M, version: i16) -> Option<(i32, Vec<u8>)> {
        let (correlation, answer) = self.send(life, request, version);
        let frame = life.wait(answer).await;
        life.see_wall();
        if frame.is_none() {
            self.close();
        }
        Some((correlation, frame?))
    }

    /// Gives the connection up.
    pub fn close(&mut self) {
        self.connection = None;
    }
}
