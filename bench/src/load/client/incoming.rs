//! What comes from a broker, cut into frames. Memory grows with the bytes that arrive, never with what a length promises.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;

/// Four bytes of size stand before each frame.
const SIZE_BYTES: usize = 4;
const BUFFER_BYTES_MIN: usize = 64 << 10;
/// Enough for the answers to most requests that are no fetches.
const SMALL_BUFFER_BYTES_MIN: usize = 512;

/// The bytes received and not yet used.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// All of it initialised, so that it costs once.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    frame_bytes_max: usize,
    buffer_bytes_min: usize,
}

impl Incoming {
    /// Takes frames of at most `frame_bytes_max`.
    #[must_use]
    pub(crate) fn new(frame_bytes_max: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, end: 0, frame_bytes_max, buffer_bytes_min: BUFFER_BYTES_MIN }
    }

    /// Sets the largest frame that is taken.
    pub(crate) fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Takes less memory from now on, and a call to the system for each small answer.
    pub(crate) fn keep_small(&mut self) {
        self.buffer_bytes_min = SMALL_BUFFER_BYTES_MIN;
        self.buffer = self.buffer[self.start..self.end].to_vec();
        (self.start, self.end) = (0, self.buffer.len());
    }

    /// Waits for more bytes and takes them; 0 at the end of the stream. Nothing is lost where it is cancelled.
    ///
    /// # Errors
    /// What the socket says.
    pub(crate) async fn fill(&mut self, stream: &mut OwnedReadHalf) -> io::Result<usize> {
        self.make_room();
        let read = stream.read(&mut self.buffer[self.end..]).await?;
        self.end += read;
        Ok(read)
    }

    /// The size of the frame at the front, once its first bytes are here.
    ///
    /// # Errors
    /// A size that cannot be, in words.
    fn frame_bytes(&self) -> Result<Option<usize>, String> {
        let Some(size) = self.buffer[self.start..self.end].first_chunk::<SIZE_BYTES>() else { return Ok(None) };
        let size = i32::from_be_bytes(*size);
        match usize::try_from(size) {
            Ok(bytes) if bytes <= self.frame_bytes_max => Ok(Some(bytes)),
            _ => Err(format!("a frame of {size} bytes, where at most {} are expected", self.frame_bytes_max)),
        }
    }

    /// Whether a whole frame is here.
    ///
    /// # Errors
    /// A size that cannot be, in words.
    pub(crate) fn has_frame(&self) -> Result<bool, String> {
        Ok(self.frame_bytes()?.is_some_and(|bytes| self.end - self.start >= SIZE_BYTES + bytes))
    }

    /// Takes the next whole frame, without its size.
    ///
    /// # Errors
    /// A size that cannot be, in words.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, String> {
        if !self.has_frame()? {
            return Ok(None);
        }
        let bytes = self.frame_bytes()?.unwrap_or_default();
        let start = self.start + SIZE_BYTES;
        self.start = start + bytes;
        Ok(Some(&self.buffer[start..start + bytes]))
    }

    /// Makes room for at least one more byte; doubles at most, and not beyond the frame that is arriving.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let wanted = match self.frame_bytes() {
            Ok(Some(bytes)) => SIZE_BYTES + bytes,
            _ => self.buffer_bytes_min,
        };
        if self.start > 0 && self.buffer.len() - self.start < wanted {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            let size =
                wanted.max(self.buffer_bytes_min).min((self.buffer.len() * 2).max(self.buffer_bytes_min)).max(self.end + 1);
            self.buffer.resize(size, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    async fn pair() -> (OwnedReadHalf, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let (read, write) = client.into_split();
        std::mem::forget(write);
        (read, server)
    }

    #[test]
    fn frames_are_cut_wherever_the_bytes_are() {
        run(async {
            let (mut read, mut server) = pair().await;
            let sizes = [0_usize, 1, 5, 70_000, 3, 300_000, 64 << 10];
            let sent = tokio::spawn(async move {
                let mut bytes = Vec::new();
                for (at, size) in sizes.into_iter().enumerate() {
                    bytes.extend_from_slice(&(size as u32).to_be_bytes());
                    bytes.extend(std::iter::repeat_n(at as u8, size));
                }
                for chunk in bytes.chunks(33_333) {
                    server.write_all(chunk).await.unwrap();
                    tokio::task::yield_now().await;
                }
                server
            });
            let mut incoming = Incoming::new(300_000);
            let mut seen = Vec::new();
            while seen.len() < sizes.len() {
                assert!(incoming.fill(&mut read).await.unwrap() > 0);
                while let Some(frame) = incoming.next().unwrap() {
                    assert!(frame.iter().all(|&byte| usize::from(byte) == seen.len()));
                    seen.push(frame.len());
                }
            }
            assert_eq!(seen, sizes);
            drop(sent.await.unwrap());
            assert_eq!(incoming.fill(&mut read).await.unwrap(), 0);
        });
    }

    #[test]
    fn a_length_reserves_nothing_and_a_wild_one_is_refused() {
        run(async {
            let (mut read, mut server) = pair().await;
            server.write_all(&[0x10, 0, 0, 0, 1, 2, 3]).await.unwrap();
            let mut incoming = Incoming::new(i32::MAX as usize);
            incoming.fill(&mut read).await.unwrap();
            assert_eq!(incoming.next(), Ok(None));
            incoming.make_room();
            assert!(incoming.buffer.len() <= 2 * BUFFER_BYTES_MIN);
            incoming.set_frame_bytes_max(1000);
            assert!(incoming.next().unwrap_err().contains("268435456"));

            let mut incoming = Incoming::new(i32::MAX as usize);
            server.write_all(b"\xff\xff\xff\xff").await.unwrap();
            incoming.fill(&mut read).await.unwrap();
            assert!(incoming.next().unwrap_err().contains("-1"));
        });
    }
}
