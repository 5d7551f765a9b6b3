//! The same run through librdkafka, the C library that most languages' clients are made of: what an application sees. Each
//! producer and consumer is a client of its own on a thread of its own; beside that librdkafka has threads that count as the
//! generator's. Bytes are those of values. Only with the cargo feature `librdkafka`.
//!
//! A producer's latency is that of records, from handing them over (or, in an open loop, from when they were to be) to the delivery
//! report, so in a closed loop it is mostly the wait in the library's queue. A consumer's is that of records too: from the stamp in
//! them, or, where there is none, from asking the library for one to having it; the library fetches ahead, so that is what an
//! application stands still for.

mod receive;
mod send;

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::ClientConfig;

use super::client::{CLIENT_ID, ClientError};

pub(crate) use receive::Receiver;
pub(crate) use send::Sender;

/// How long a call may wait before the phase is looked at.
const WAIT: Duration = Duration::from_millis(20);

fn failed(error: impl std::fmt::Display) -> ClientError {
    ClientError::Unfit(format!("librdkafka: {error}"))
}

fn client(bootstrap: &[SocketAddr]) -> ClientConfig {
    let mut config = ClientConfig::new();
    let servers: Vec<String> = bootstrap.iter().map(ToString::to_string).collect();
    config.set("bootstrap.servers", servers.join(",")).set("client.id", CLIENT_ID);
    // What goes wrong is told by the calls; the library's own log would go to the terminal.
    config.set("log_level", "0");
    config
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
