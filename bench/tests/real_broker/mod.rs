//! Our own broker as a process, where this build has made its binary.
#![allow(clippy::unwrap_used, reason = "a test without its broker may end")]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The broker's binary; says so where there is none.
pub(crate) fn ringlog() -> Option<PathBuf> {
    let tests = std::env::current_exe().ok()?;
    let path = std::env::var_os("RINGLOG_BIN").map(PathBuf::from).or_else(|| Some(tests.parent()?.parent()?.join("ringlog")))?;
    if path.is_file() {
        return Some(path);
    }
    skipped(&format!("no {}; `cargo build` makes it, or RINGLOG_BIN names it", path.display()));
    None
}

/// Says so past the harness, which keeps what a test that passes prints.
pub(crate) fn skipped(why: &str) {
    std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes()).unwrap();
}

/// A broker that runs until it is dropped, which kills it.
pub(crate) struct Real {
    pub child: Child,
    pub address: String,
}

impl Real {
    /// Starts on this port or a free one, with these settings, and waits until it listens.
    pub(crate) fn start(binary: &Path, data: &Path, port: Option<u16>, settings: &[&str]) -> Self {
        let port = port.unwrap_or_else(|| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
        let address = format!("127.0.0.1:{port}");
        let child = Command::new(binary)
            .args(["serve", "--listen", &address, "--data-dir"])
            .arg(data)
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < until, "the broker does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, address }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
