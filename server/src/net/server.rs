//! The connections of one core: what they share, and the loop that takes them in and waits for their ends. Called by the
//! broker's assembly, once on each core.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringlog_engine::memory::Pool;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::debug;

use super::budget::Budget;
use super::crowd::Crowd;
use super::gone::Gone;
use super::listener::{Accepted, Dealer};
use super::reader::SCRATCH_BYTES;
use super::{ConnectionInfo, Handler, Limits, connection};

/// What the connections of a core share.
pub struct Core {
    pub(super) index: usize,
    /// The way to the other cores, for a connection that belongs to another.
    dealer: Dealer,
    pub(super) handler: Rc<dyn Handler>,
    pub(super) limits: Limits,
    pub(super) pool: Pool,
    pub(super) budget: Budget,
    pub(super) scratch: Rc<RefCell<Vec<u8>>>,
    /// What the client of the last request calls itself. Of the core and not of each connection: clients of one kind mostly say the
    /// same, and what thousands of quiet connections remember is memory from afar.
    pub(super) client_id: RefCell<Option<Rc<str>>>,
}

impl Core {
    /// The core with this index among those that `dealer` deals to. `pool` is where large frames and reads of cold files get their
    /// memory.
    #[must_use]
    pub fn new(index: usize, dealer: Dealer, handler: Rc<dyn Handler>, limits: Limits, pool: Pool) -> Rc<Self> {
        let budget = Budget::new(limits.core_bytes_max);
        let scratch = Rc::new(RefCell::new(vec![0; SCRATCH_BYTES]));
        let client_id = RefCell::new(None);
        Rc::new(Self { index, dealer, handler, limits, pool, budget, scratch, client_id })
    }
}

/// The end that says stop.
pub struct StopSender {
    sender: watch::Sender<bool>,
    is_said: Arc<AtomicBool>,
}

/// The end that hears it. Clones hear it too.
#[derive(Clone)]
pub struct Stop {
    receiver: watch::Receiver<bool>,
    /// The same for whoever looks often: no lock. True before anybody who waits is woken.
    is_said: Arc<AtomicBool>,
}

/// A way to tell listeners and connections, on every core, to stop.
#[must_use]
pub fn stop_channel() -> (StopSender, Stop) {
    let (sender, receiver) = watch::channel(false);
    let is_said = Arc::new(AtomicBool::new(false));
    (StopSender { sender, is_said: is_said.clone() }, Stop { receiver, is_said })
}

impl StopSender {
    /// Says it. Dropping the sender says it too.
    pub fn stop(&self) {
        self.is_said.store(true, Ordering::Release);
        self.sender.send_replace(true);
    }
}

impl Drop for StopSender {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Stop {
    /// Whether it was said.
    #[must_use]
    pub fn is_said(&self) -> bool {
        self.is_said.load(Ordering::Acquire)
    }

    /// What [`Stop::is_said`] looks at.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        self.is_said.clone()
    }

    /// Resolves when it was said.
    pub async fn wait(mut self) {
        let _ = self.receiver.wait_for(|&stop| stop).await;
    }
}

/// Serves the connections that are dealt to this core. After a stop it takes no more, lets each connection answer what it
/// has read, and returns when all are closed; whoever has no patience drops the future, which drops the connections.
pub async fn serve(core: Rc<Core>, mut incoming: mpsc::UnboundedReceiver<Accepted>, stop: Stop) {
    let mut connections = JoinSet::new();
    let mut stopped = std::pin::pin!(stop.clone().wait());
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = incoming.recv() => match accepted {
                Some(accepted) => {
                    connections.spawn_local(begin(core.clone(), accepted, stop.clone()));
                }
                None => break,
            },
        }
    }
    // What is on its way here, from the listener or another core, is closed as gently as the others.
    incoming.close();
    while let Some(accepted) = incoming.recv().await {
        connections.spawn_local(begin(core.clone(), accepted, stop.clone()));
    }
    while connections.join_next().await.is_some() {}
}

async fn begin(core: Rc<Core>, accepted: Accepted, stop: Stop) {
    let Accepted { stream, id, peer, listener, place, home } = accepted;
    let ready = || {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok((stream.local_addr()?, TcpStream::from_std(stream)?))
    };
    match ready() {
        Ok((local, stream)) => {
            let principal = Rc::from("User:ANONYMOUS");
            let (crowd, gone) = (Crowd::default(), Gone::default());
            let info = Rc::new(ConnectionInfo { id, peer, local, listener: listener.clone(), principal, home, crowd, gone });
            let Some(stream) = connection::run(core.clone(), stream, info.clone(), stop).await else { return };
            match stream.into_std() {
                Ok(stream) => {
                    let home = info.home.clone();
                    core.dealer.hand_over(home.core(), Accepted { stream, id, peer, listener, place, home });
                }
                Err(error) => debug!(connection = id, %peer, %error, "connection lost"),
            }
        }
        // The peer may be gone already.
        Err::<_, std::io::Error>(error) => debug!(connection = id, %peer, %error, "connection lost"),
    }
}
