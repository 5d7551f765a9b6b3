//! A lean client for Kafka's wire: connections, and the few requests that a load needs. The generator's alone. It trusts no
//! length that a broker sends, and never retries by itself: what a failure means is the caller's to decide.

mod admin;
mod connection;
mod incoming;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use ringlog_protocol::{ApiKey, DecodeError, ErrorCode};

pub(crate) use admin::{Offsets, Topic, create_topic, delete_topic, find_topic, init_producer_id, list_offsets};
#[cfg(feature = "librdkafka")]
pub(crate) use connection::CLIENT_ID;
pub(crate) use connection::Connection;
pub(crate) use connection::{gone, header};
pub(crate) use incoming::Incoming;

use crate::error::Error;

/// What went wrong between us and a broker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody takes connections there.
    #[error("no broker at {address}: {source}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A connection that worked has ended.
    #[error("the broker at {address} {how}")]
    Gone {
        /// Where.
        address: SocketAddr,
        /// How it ended.
        how: String,
    },
    /// Something else than Kafka's protocol is spoken there.
    #[error("{address} does not answer as a Kafka broker does: {why}")]
    NotKafka {
        /// Where.
        address: SocketAddr,
        /// What it does instead.
        why: String,
    },
    /// A request went without an answer for too long.
    #[error("the broker at {address} has not answered {api} for {seconds:.1} s")]
    Silent {
        /// Where.
        address: SocketAddr,
        /// Which request.
        api: ApiKey,
        /// For how long.
        seconds: f64,
    },
    /// An answer that makes no sense.
    #[error("the broker at {address} answers {api} with what is no answer to it: {why}")]
    Nonsense {
        /// Where.
        address: SocketAddr,
        /// Which request.
        api: ApiKey,
        /// What is wrong with it.
        why: String,
    },
    /// An answer that says no.
    #[error("the broker answers {api}{of} with {code}{detail}")]
    Refused {
        /// Which request.
        api: ApiKey,
        /// Of what, after a space; or empty.
        of: String,
        /// Kafka's error.
        code: ErrorCode,
        /// The broker's words after a colon, or empty.
        detail: String,
    },
    /// A client library gave a record up, or was told no.
    #[error("{0}")]
    #[cfg_attr(not(feature = "librdkafka"), expect(dead_code, reason = "the lean client tells more"))]
    Undelivered(String),
    /// The broker lacks what the run needs.
    #[error("{0}")]
    Unfit(String),
}

impl ClientError {
    /// Whether a new connection, or a second try, may do better.
    #[must_use]
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Gone { .. } | Self::Silent { .. } => true,
            Self::Refused { code, .. } => code.is_retriable(),
            Self::NotKafka { .. } | Self::Nonsense { .. } | Self::Undelivered(_) | Self::Unfit(_) => false,
        }
    }

    /// An answer to `api` that cannot be read.
    pub(crate) fn undecodable(address: SocketAddr, api: ApiKey) -> impl FnOnce(DecodeError) -> Self {
        move |error| Self::Nonsense { address, api, why: error.to_string() }
    }

    /// A refusal, in the broker's words if it has any.
    pub(crate) fn refused(api: ApiKey, of: impl Into<String>, code: ErrorCode, words: Option<&str>) -> Self {
        let detail = words.filter(|words| !words.is_empty()).map_or_else(String::new, |words| format!(": {words}"));
        let of: String = of.into();
        let of = if of.is_empty() { of } else { format!(" {of}") };
        Self::Refused { api, of, code, detail }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The addresses behind `bootstrap`, none of them on another machine unless that is allowed.
///
/// # Errors
/// [`Error::Usage`] where there is no such host, or it is elsewhere.
pub(crate) fn resolve(bootstrap: &str, allow_remote: bool) -> Result<Vec<SocketAddr>, Error> {
    use std::net::ToSocketAddrs;
    let mut addresses = Vec::new();
    for part in bootstrap.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let found = part.to_socket_addrs().map_err(|error| Error::Usage(format!("--bootstrap {part}: {error}")))?;
        addresses.extend(found);
    }
    if addresses.is_empty() {
        return Err(Error::Usage(format!("--bootstrap {bootstrap:?} names no broker")));
    }
    for address in &addresses {
        check_local(*address, allow_remote)?;
    }
    Ok(addresses)
}

/// Refuses an address of another machine: a load that went there by mistake would harm.
///
/// # Errors
/// [`Error::Usage`] with the way out.
pub(crate) fn check_local(address: SocketAddr, allow_remote: bool) -> Result<(), Error> {
    if allow_remote || is_local(address.ip()) {
        return Ok(());
    }
    Err(Error::Usage(format!("{address} is not on this machine; --allow-remote goes on nevertheless")))
}

/// An address is this machine's if a socket can be bound to it. Nothing is sent.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_are_refused_unless_allowed() {
        assert!(resolve("127.0.0.1:9092, [::1]:9092", false).is_ok());
        // TEST-NET-1 (RFC 5737) is nobody's.
        let error = resolve("127.0.0.1:1,192.0.2.1:9092", false).unwrap_err();
        assert!(error.to_string().contains("--allow-remote") && error.exit_status() == 2, "{error}");
        assert!(resolve("192.0.2.1:9092", true).is_ok());
        for nonsense in ["", ",", "127.0.0.1", "127.0.0.1:99999", ":"] {
            assert_eq!(resolve(nonsense, true).unwrap_err().exit_status(), 2, "{nonsense}");
        }
    }
}
