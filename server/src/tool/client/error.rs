//! Why something could not be done with a broker.

use std::io;
use std::net::SocketAddr;

use ringlog_protocol::{ApiKey, ErrorCode};

/// Why something could not be done with a broker.
#[derive(Debug, thiserror::Error)]
pub(in crate::tool) enum ClientError {
    /// An address that is none.
    #[error("{text} is not a broker's address ({why}); give HOST:PORT with --bootstrap-server")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// Nobody takes the connection.
    #[error("no broker at {address} ({source}); start one with `ringlog serve`, or name another with --bootstrap-server")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error("what listens at {address} does not speak Kafka's protocol: {why}")]
    NotKafka {
        /// Where.
        address: SocketAddr,
        /// What it does.
        why: String,
    },
    /// The connection ended.
    #[error("the broker at {address} {how}")]
    Gone {
        /// Where.
        address: SocketAddr,
        /// How.
        how: String,
    },
    /// No answer in time.
    #[error("the broker at {address} does not answer {api} in time; see --timeout")]
    Silent {
        /// Where.
        address: SocketAddr,
        /// What was asked.
        api: ApiKey,
    },
    /// An answer that is none.
    #[error("the broker at {address} answers {api} with nonsense: {why}")]
    Nonsense {
        /// Where.
        address: SocketAddr,
        /// What was asked.
        api: ApiKey,
        /// What is wrong.
        why: String,
    },
    /// The broker cannot do what is needed.
    #[error("the broker at {address} {why}")]
    Unfit {
        /// Where.
        address: SocketAddr,
        /// What it lacks.
        why: String,
    },
    /// The broker says no.
    #[error("{api}{of}: {code}{}", message.as_deref().map(|message| format!(": {message}")).unwrap_or_default())]
    Refused {
        /// What was asked.
        api: ApiKey,
        /// Of what: empty, or with a space in front.
        of: String,
        /// Its reason.
        code: ErrorCode,
        /// Its reason in words.
        message: Option<String>,
    },
}

impl ClientError {
    /// A connection that the system says has ended.
    pub(super) fn gone(address: SocketAddr, error: &io::Error) -> Self {
        let how = match error.kind() {
            io::ErrorKind::UnexpectedEof => "closes the connection".to_owned(),
            _ => format!("closes the connection: {error}"),
        };
        Self::Gone { address, how }
    }

    /// A broker's no. `of` says of what, `message` is the broker's own.
    pub(in crate::tool) fn refused(api: ApiKey, of: impl Into<String>, code: ErrorCode, message: Option<&str>) -> Self {
        let of = of.into();
        let of = if of.is_empty() { of } else { format!(" {of}") };
        Self::Refused { api, of, code, message: message.filter(|message| !message.is_empty()).map(str::to_owned) }
    }

    /// Whether it may go well a little later, or with another broker.
    pub(in crate::tool) fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Gone { .. } | Self::Silent { .. } => true,
            Self::Refused { code, .. } => code.is_retriable(),
            _ => false,
        }
    }
}
