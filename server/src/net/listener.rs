//! Listening sockets, and dealing accepted connections out to the cores. Called by the broker's assembly: [`bind`] at
//! start, [`accept`] on one core. A port that another process uses is an error here: SO_REUSEPORT, which would let two
//! brokers share it in silence, is not used.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{Home, Stop};
use crate::log_limit::LogLimit;

/// How long to wait when the process has no descriptors left.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Why a listener could not be opened. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The name means nothing.
    #[error("listener {listener}: the host '{host}' has no address here ({error}); check 'listeners'")]
    Resolve {
        /// The listener's name.
        listener: Arc<str>,
        /// What was looked up.
        host: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// Somebody listens there.
    #[error("listener {listener}: {address} is in use by another process; stop it, or choose another port with --listen")]
    InUse {
        /// The listener's name.
        listener: Arc<str>,
        /// The address.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("listener {listener}: cannot listen on {address}: {error}; choose an address of this machine with --listen")]
    Other {
        /// The listener's name.
        listener: Arc<str>,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// An open listening socket.
#[derive(Debug)]
pub struct Listener {
    name: Arc<str>,
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Where it listens, with the port that the system chose where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The listener's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
}

/// Opens a listener. An empty `host` means every interface; `backlog` is `socket.listen.backlog.size`, which the kernel
/// caps at net.core.somaxconn.
///
/// # Errors
/// When the host has no address, or nothing can listen there.
pub fn bind(name: &str, host: &str, port: u16, backlog: i32) -> Result<Listener, BindError> {
    let listener: Arc<str> = Arc::from(name);
    let addresses: Vec<SocketAddr> = if host.is_empty() {
        vec![(IpAddr::from(Ipv6Addr::UNSPECIFIED), port).into(), (IpAddr::from(Ipv4Addr::UNSPECIFIED), port).into()]
    } else {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let resolve = |error| BindError::Resolve { listener: listener.clone(), host: host.to_owned(), error };
        let mut found: Vec<SocketAddr> = (bare, port).to_socket_addrs().map_err(resolve)?.collect();
        // Clients try IPv4 first where a name has both.
        found.sort_by_key(SocketAddr::is_ipv6);
        if found.is_empty() {
            return Err(resolve(io::ErrorKind::NotFound.into()));
        }
        found
    };
    let mut first_error = None;
    for address in addresses {
        match open(address, backlog) {
            Ok(socket) => {
                let address = socket.local_addr().unwrap_or(address);
                return Ok(Listener { name: listener, socket, address });
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(BindError::InUse { listener, address }),
            Err(error) => {
                first_error.get_or_insert((address, error));
            }
        }
    }
    let Some((address, error)) = first_error else { unreachable!("there was an address, and it failed") };
    Err(BindError::Other { listener, address, error })
}

fn open(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted broker shall not wait for the old one's connections to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// A connection on its way to its core.
#[derive(Debug)]
pub struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
    pub(super) listener: Arc<str>,
    pub(super) place: Place,
    pub(super) home: Home,
}

/// How many connections there are. Touched when one comes or goes, never between.
#[derive(Debug)]
struct Counts {
    by_core: Box<[AtomicUsize]>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    next_id: AtomicU64,
}

impl Counts {
    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // The map is whole whatever happened to a thread that held it.
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the counts, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    counts: Arc<Counts>,
    core: usize,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.by_core[self.core].fetch_sub(1, Ordering::Relaxed);
        if let Entry::Occupied(mut count) = self.counts.by_address().entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// `max.connections`.
    pub all_max: usize,
    /// How many descriptors the files leave: a client that takes all there are must not keep a segment from being opened.
    pub descriptors_max: usize,
    /// `max.connections.per.ip`.
    pub per_address_max: usize,
}

/// Deals connections out to cores: each to the one that has the fewest. Clones share the counts.
#[derive(Clone, Debug)]
pub struct Dealer {
    cores: Vec<mpsc::UnboundedSender<Accepted>>,
    counts: Arc<Counts>,
    limits: ConnectionLimits,
}

impl Dealer {
    /// A dealer and, for each core, the end where its connections arrive.
    ///
    /// # Panics
    /// Without cores.
    #[must_use]
    pub fn new(cores: usize, limits: ConnectionLimits) -> (Self, Vec<mpsc::UnboundedReceiver<Accepted>>) {
        assert!(cores > 0, "connections need a core");
        let (senders, receivers) = (0..cores).map(|_| mpsc::unbounded_channel()).unzip();
        let by_core = (0..cores).map(|_| AtomicUsize::new(0)).collect();
        let counts = Arc::new(Counts { by_core, by_address: Mutex::default(), next_id: AtomicU64::new(0) });
        (Self { cores: senders, counts, limits }, receivers)
    }

    /// How many connections are open, on all cores.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.counts.by_core.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Gives a connection to a core, or says which limit is reached.
    fn deal(&self, stream: TcpStream, peer: SocketAddr, listener: Arc<str>) -> Result<(), &'static str> {
        let connections = self.connections();
        if connections >= self.limits.all_max {
            return Err("max.connections");
        }
        if connections >= self.limits.descriptors_max {
            return Err("the limit of file descriptors (RLIMIT_NOFILE)");
        }
        let address = peer.ip().to_canonical();
        {
            let mut by_address = self.counts.by_address();
            let count = by_address.entry(address).or_default();
            if *count >= self.limits.per_address_max {
                if *count == 0 {
                    by_address.remove(&address);
                }
                return Err("max.connections.per.ip");
            }
            *count += 1;
        }
        let by_core = &self.counts.by_core;
        let core = (0..self.cores.len()).min_by_key(|&core| by_core[core].load(Ordering::Relaxed)).unwrap_or(0);
        by_core[core].fetch_add(1, Ordering::Relaxed);
        let place = Place { counts: self.counts.clone(), core, address };
        let id = self.counts.next_id.fetch_add(1, Ordering::Relaxed);
        // A core that takes no more is stopping, and so is everything else.
        let _ = self.cores[core].send(Accepted { stream, id, peer, listener, place, home: Home::dealt_to(core) });
        Ok(())
    }

    /// Gives a connection that was dealt before to the core where it belongs. It counts where it was dealt to: idle members of one
    /// group do not send everybody else to the other cores.
    pub(super) fn hand_over(&self, core: usize, accepted: Accepted) {
        // As above.
        let _ = self.cores[core].send(accepted);
    }
}

/// Accepts connections until the stop, then closes the listener.
///
/// # Errors
/// When the socket cannot be watched.
pub async fn accept(listener: Listener, dealer: Dealer, stop: Stop) -> io::Result<()> {
    let Listener { name, socket, address } = listener;
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let (began, trouble) = (Instant::now(), LogLimit::default());
    let mut stopped = std::pin::pin!(stop.wait());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => return Ok(()),
            accepted = socket.accept() => accepted,
        };
        match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
            Ok((stream, peer)) => {
                if let Err(limit) = dealer.deal(stream, peer, name.clone())
                    && let Some(more) = trouble.pass(began.elapsed())
                {
                    warn!(%peer, more, "connection refused: as many as {limit} allows are open");
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if let Some(more) = trouble.pass(began.elapsed()) {
                    warn!(listener = %name, %address, %error, more, "cannot accept connections");
                }
                sleep(BACK_OFF).await;
            }
        }
    }
}

/// Errors that accept(2) hands on from the connection it would have returned.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted | io::ErrorKind::TimedOut
    )
}
