//! What this machine gives without a broker, in the same run. Beside consumers stands its loopback: memory sent, or a file in the
//! page cache, as fast as one thread sends and another receives. A broker is asked for each piece and answers; the loop is not, so
//! a broker's part of it is rather too small than too large. Beside producers at a rate stands its disk ([`super::disk_loop`]).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringlog_engine::memory::Buffer;

use super::disk_loop::{self, PacedLoad};
use super::spec::Loop;
use crate::error::Error;
use crate::results::BareLoop;
use crate::sink::Sink;

/// What is sent again and again: far beyond the processor's caches, as what consumers read is.
const BYTES: usize = 256 << 20;
/// How often.
const PASSES: usize = 8;
/// How much at a time, as in a fetch.
const PIECE_BYTES: usize = 1 << 20;
/// How long batches are written at a rate.
const PACED: Duration = Duration::from_secs(10);

/// The loops, and the file that one of them sends; it goes with the directory of work.
#[derive(Debug)]
pub(super) struct Beside {
    path: PathBuf,
}

impl Beside {
    /// With its file, once it is needed, in this directory.
    #[must_use]
    pub(super) fn new(work: &Path) -> Self {
        Self { path: work.join("bare-loop") }
    }

    /// Runs a loop.
    ///
    /// # Errors
    /// The file cannot be made, or a socket of this machine fails.
    pub(super) fn measure(&self, wanted: Loop, load: Option<PacedLoad>) -> Result<BareLoop, Error> {
        let of_network = |way: &str, mb_per_s| BareLoop { way: way.to_owned(), mb_per_s, latency: None };
        let of_disk = |way: &str, sync| {
            let Some(load) = load else { unreachable!("a loop that writes comes with its load") };
            let path = self.path.with_extension("disk");
            let measured = disk_loop::run(&path, load, PACED, sync);
            let _ = std::fs::remove_file(&path);
            let (latency, mb_per_s) = measured?;
            Ok(BareLoop { way: way.to_owned(), mb_per_s, latency })
        };
        match wanted {
            Loop::Send => {
                let mb_per_s = send(BYTES).map_err(|error| Error::Failed(format!("the bare loop of send: {error}")))?;
                Ok(of_network("send", mb_per_s))
            }
            Loop::Sendfile => Ok(of_network("sendfile", sendfile(&self.path, BYTES).map_err(Error::io(&self.path))?)),
            Loop::Write => of_disk("write", false),
            Loop::Sync => of_disk("sync", true),
        }
    }
}

/// From memory that has been touched.
fn send(bytes: usize) -> io::Result<f64> {
    let mut memory = Buffer::standalone(bytes)?;
    memory.fill(7);
    // What is set aside may be more than what was asked for.
    timed(memory.len(), |sink| memory.chunks(PIECE_BYTES).try_for_each(|piece| sink.socket.write_all(piece)))
}

/// From a file that is written, synced and read once before, where it is not there yet; read once in any case.
fn sendfile(path: &Path, bytes: usize) -> io::Result<f64> {
    if !path.exists() {
        let mut file = File::create(path)?;
        let piece = vec![7; PIECE_BYTES];
        (0..bytes.div_ceil(PIECE_BYTES)).try_for_each(|_| file.write_all(&piece))?;
        file.sync_all()?;
    }
    let mut file = File::open(path)?;
    let bytes = io::copy(&mut file, &mut io::sink())? as usize;
    timed(bytes, |sink| {
        let send = |at: usize| sink.send_file(file.as_fd(), at as u64, PIECE_BYTES.min(bytes - at) as u64);
        (0..bytes).step_by(PIECE_BYTES).try_for_each(send)
    })
}

/// So many passes over so many bytes, until all has arrived: 10^6 bytes per second.
fn timed(bytes: usize, mut pass: impl FnMut(&mut Sink) -> io::Result<()>) -> io::Result<f64> {
    let mut sink = Sink::open()?;
    let start = Instant::now();
    for _ in 0..PASSES {
        pass(&mut sink)?;
    }
    let sent = bytes * PASSES;
    sink.close(sent as u64)?;
    Ok(sent as f64 / 1e6 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_sent_arrives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let odd = (3 << 20) + 5;
        assert!(send(odd).unwrap() > 0.0);
        assert!(sendfile(&path, odd).unwrap() > 0.0);
        // It is there, and taken as it is.
        assert!(sendfile(&path, odd).unwrap() > 0.0);
        assert_eq!(std::fs::metadata(path).unwrap().len(), 4 << 20);
    }
}
