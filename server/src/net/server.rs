//! The connections of one core: what they share, and the loop that takes them in and waits for their ends. Called by the
//! broker's assembly, once on each core.

use std::cell::RefCell;
use std::rc::Rc;

use ringlog_engine::memory::Pool;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::debug;

use super::budget::Budget;
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
}

impl Core {
    /// The core with this index among those that `dealer` deals to. `pool` is where large frames and reads of cold files get their
    /// memory.
    #[must_use]
    pub fn new(index: usize, dealer: Dealer, handler: Rc<dyn Handler>, limits: Limits, pool: Pool) -> Rc<Self> {
        let budget = Budget::new(limits.core_bytes_max);
        let scratch = Rc::new(RefCell::new(vec![0; SCRATCH_BYTES]));
        Rc::new(Self { index, dealer, handler, limits, pool, budget, scratch })
    }
}

/// The end that says stop.
pub struct StopSender(watch::Sender<bool>);

/// The end that hears it. Clones hear it too.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

/// A way to tell listeners and connections, on every core, to stop.
#[must_use]
pub fn stop_channel() -> (StopSender, Stop) {
    let (sender, receiver) = watch::channel(false);
    (StopSender(sender), Stop(receiver))
}

impl StopSender {
    /// Says it. Dropping the sender says it too.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether it was said.
    #[must_use]
    pub fn is_said(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when it was said.
    pub async fn wait(mut self) {
        let _ = self.0.wait_for(|&stop| stop).await;
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
            let info = Rc::new(ConnectionInfo { id, peer, local, listener: listener.clone(), principal, home });
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
