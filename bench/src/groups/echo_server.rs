//! A server that knows nothing: for every request of so many bytes it sends so many back. What it costs is what the kernel and this
//! machine take of any server on sockets and readiness. A hidden command, so that its CPU is a process's own; it ends with its
//! standard input. [`super::echo`] starts it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use clap::Args;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::error::Error;

/// The hidden command that runs [`serve`].
pub const COMMAND: &str = "echo";

/// How many connections may wait to be taken.
const BACKLOG: i32 = 1024;
/// How many events are fetched at once.
const EVENTS_MAX: usize = 256;
/// The listener among the events.
const LISTENER: u64 = u64::MAX;

/// The arguments of `echo`.
#[derive(Clone, Debug, Args)]
pub struct EchoCommand {
    /// Threads that serve, each with a listener of its own at the same port.
    #[arg(long)]
    pub threads: usize,
    /// The size of a request.
    #[arg(long)]
    pub request_bytes: usize,
    /// The size of an answer.
    #[arg(long)]
    pub answer_bytes: usize,
}

/// A connection, and how much of its next request has come.
struct Peer {
    stream: TcpStream,
    begun_bytes: usize,
}

/// Prints where it listens, and serves until its standard input ends.
///
/// # Errors
/// There is no port, or no thread.
pub fn serve(command: &EchoCommand) -> Result<(), Error> {
    let failed = |error: io::Error| Error::Failed(format!("the bare echo cannot be served: {error}"));
    crate::load::raise_file_limit();
    let first = listen(0).map_err(failed)?;
    let address = first.local_addr().map_err(failed)?;
    let mut listeners = vec![first];
    for _ in 1..command.threads.max(1) {
        listeners.push(listen(address.port()).map_err(failed)?);
    }
    for listener in listeners {
        let command = command.clone();
        let run = move || {
            if let Err(error) = echo(&listener, &command) {
                eprintln!("ringlog-bench: the bare echo: {error}");
                std::process::exit(1);
            }
        };
        std::thread::Builder::new().name("echo".to_owned()).spawn(run).map_err(failed)?;
    }
    println!("{address}");
    io::stdout().flush().map_err(failed)?;
    // Threads end with the process.
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map(drop).map_err(failed)
}

/// A listener at a port of loopback that it shares with others of ours; the kernel deals connections out to them.
fn listen(port: u16) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// One thread: waits, reads, answers.
fn echo(listener: &TcpListener, command: &EchoCommand) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
    let mut read = vec![0; 64 << 10];
    let answer = vec![0; command.answer_bytes];
    loop {
        events.clear();
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            // The event is packed.
            let at = { event.data }.u64();
            if at == LISTENER {
                take_all(listener, &epoll, &mut peers)?;
                continue;
            }
            let Some(place) = usize::try_from(at).ok().and_then(|at| peers.get_mut(at)) else { continue };
            let ends = { event.flags }.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            if let Some(peer) = place
                && !peer.serve(&mut read, &answer, command.request_bytes, ends)
            {
                *place = None;
            }
        }
    }
}

/// Takes the connections that wait.
fn take_all(listener: &TcpListener, epoll: &OwnedFd, peers: &mut Vec<Option<Peer>>) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // It was gone before it was taken.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        epoll::add(epoll, &stream, EventData::new_u64(peers.len() as u64), EventFlags::IN | EventFlags::RDHUP | EventFlags::ET)?;
        peers.push(Some(Peer { stream, begun_bytes: 0 }));
    }
}

impl Peer {
    /// Reads once, to the end where the peer has ended, and answers what came whole; whether the connection goes on. A peer that
    /// takes no answers is cut off: ours waits for each.
    fn serve(&mut self, read: &mut [u8], answer: &[u8], request_bytes: usize, ends: bool) -> bool {
        loop {
            let count = match rustix::net::recv(&self.stream, &mut *read, RecvFlags::empty()) {
                Ok((0, _)) => return false,
                Ok((_, count)) => count,
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return false,
            };
            self.begun_bytes += count;
            while self.begun_bytes >= request_bytes.max(1) {
                self.begun_bytes -= request_bytes.max(1);
                if rustix::net::send(&self.stream, answer, SendFlags::NOSIGNAL) != Ok(answer.len()) {
                    return false;
                }
            }
            // A read that is cut short has emptied the socket; what comes later is another event (epoll(7)), but for an end that
            // this one told of.
            if count < read.len() && !ends {
                return true;
            }
        }
    }
}

/// Reads where a server that was just started listens.
pub(super) fn address_from(output: &mut impl Read) -> Result<SocketAddr, Error> {
    let mut line = Vec::new();
    let mut byte = [0];
    while matches!(output.read(&mut byte), Ok(1)) && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&line);
    text.parse().map_err(|_| Error::Failed(format!("the bare echo did not start: it says {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_whole_request_is_answered() -> io::Result<()> {
        let listener = listen(0)?;
        let address = listener.local_addr()?;
        let command = EchoCommand { threads: 1, request_bytes: 100, answer_bytes: 7 };
        // It ends with the tests' process.
        std::thread::spawn(move || echo(&listener, &command));
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
        let mut gone = TcpStream::connect(address)?;
        gone.write_all(&[0; 30])?;
        drop(gone);
        stream.write_all(&[0; 250])?;
        let mut answers = [1; 14];
        stream.read_exact(&mut answers)?;
        assert_eq!(answers, [0; 14]);
        stream.write_all(&[0; 50])?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        assert_eq!(rest, [0; 7]);
        Ok(())
    }

    #[test]
    fn a_server_that_does_not_start_is_told() {
        assert_eq!(address_from(&mut &b"127.0.0.1:80\nmore"[..]).unwrap().port(), 80);
        assert!(address_from(&mut &b""[..]).unwrap_err().to_string().contains("did not start"));
    }
}
