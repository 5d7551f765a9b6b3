//! A socket of this machine whose other end takes everything: what a broker that sends could reach at most. For `engine` and
//! `compare`.

use std::io::{self, Read};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::JoinHandle;

/// A socket whose other end takes everything, and tells how much it was.
pub(crate) struct Sink {
    /// Where to write.
    pub socket: TcpStream,
    receiver: JoinHandle<io::Result<u64>>,
}

impl Sink {
    /// Connected to itself over loopback.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let socket = TcpStream::connect(listener.local_addr()?)?;
        let (mut other, _) = listener.accept()?;
        let receiver = std::thread::Builder::new().name("receiver".to_owned()).spawn(move || {
            let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
            loop {
                match other.read(&mut buffer)? {
                    0 => return Ok(total),
                    read => total += read as u64,
                }
            }
        })?;
        Ok(Self { socket, receiver })
    }

    /// All of a range of a file, by sendfile(2).
    ///
    /// # Errors
    /// Those of the system, or the file is shorter.
    pub(crate) fn send_file(&self, file: BorrowedFd<'_>, position: u64, len: u64) -> io::Result<()> {
        let (mut at, end) = (position, position + len);
        while at < end {
            let rest = (end - at) as usize;
            match rustix::fs::sendfile(self.socket.as_fd(), file, Some(&mut at), rest) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until everything has arrived.
    ///
    /// # Errors
    /// Another number of bytes has.
    pub(crate) fn close(self, sent: u64) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)?;
        let received = self.receiver.join().map_err(|_| io::Error::other("the receiver panicked"))??;
        if received == sent { Ok(()) } else { Err(io::Error::other(format!("{sent} bytes were sent and {received} received"))) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_sink_counts() {
        let sink = Sink::open().unwrap();
        (&sink.socket).write_all(b"hello").unwrap();
        assert!(sink.close(6).is_err(), "five were sent");
    }
}
