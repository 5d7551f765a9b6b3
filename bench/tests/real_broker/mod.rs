//! Our own broker as a process, where this build has made its binary.
#![allow(clippy::unwrap_used, reason = "a test without its broker may end")]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
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

/// What holds the ports that [`free_port`] gave out.
static HELD: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());

/// A port that is ours until this process ends: none that the kernel gives to whoever asks for any, as the fake brokers of other
/// tests do, and held against other processes, as by tests/harness.py, by a name in the abstract namespace of Unix sockets (unix(7)).
pub(crate) fn free_port() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first_of_kernel: u32 = range.split_whitespace().next().unwrap().parse().unwrap();
    let count = if first_of_kernel > 11_000 { first_of_kernel } else { 32_768 } - 10_000;
    // Each process begins elsewhere.
    let begin = std::process::id().wrapping_mul(101) % count;
    let ports = (0..count).map(|n| (10_000 + (begin + n) % count) as u16);
    for port in ports {
        let name = SocketAddr::from_abstract_name(format!("ringlog-tests-port-{port}")).unwrap();
        if let Ok(holder) = UnixDatagram::bind_addr(&name)
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            HELD.lock().unwrap().push(holder);
            return port;
        }
    }
    panic!("no port is free");
}

/// A broker that runs until it is dropped, which kills it.
pub(crate) struct Real {
    pub child: Child,
    pub address: String,
}

impl Real {
    /// Starts on this port or a free one, with these settings, and waits until it listens.
    pub(crate) fn start(binary: &Path, data: &Path, port: Option<u16>, settings: &[&str]) -> Self {
        let port = port.unwrap_or_else(free_port);
        let address = format!("127.0.0.1:{port}");
        let mut child = Command::new(binary)
            .args(["serve", "--listen", &address, "--data-dir"])
            .arg(data)
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < until && child.try_wait().unwrap().is_none(), "the broker does not start");
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
