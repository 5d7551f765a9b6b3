//! A small client for any broker that speaks Kafka's protocol: finds the brokers, keeps a connection to each, and asks. It waits
//! for every answer; what is asked is the commands' to say.

mod connection;
mod error;
mod groups;
mod metadata;

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use ringlog_protocol::Message;

pub(super) use connection::Answer;
use connection::Connection;
pub(super) use error::ClientError;
pub(super) use groups::{Committer, Offsets};
pub(super) use metadata::{Cluster, Partition, Topic};

/// Kafka's port, for addresses without one.
const PORT_DEFAULT: u16 = 9092;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    bootstrap: Vec<SocketAddr>,
    timeout: Duration,
    connections: BTreeMap<SocketAddr, Connection>,
}

impl Client {
    /// A client of the cluster that the brokers at `bootstrap` (HOST:PORT, separated by commas) are of. It connects when it asks.
    ///
    /// # Errors
    /// No address can be made out.
    pub(super) fn new(bootstrap: &str, timeout: Duration) -> Result<Self, ClientError> {
        let mut addresses = Vec::new();
        let mut wrong = ClientError::Address { text: bootstrap.to_owned(), why: "it is empty".to_owned() };
        for text in bootstrap.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            match resolve(text) {
                Ok(found) => addresses.extend(found),
                Err(why) => wrong = ClientError::Address { text: text.to_owned(), why },
            }
        }
        if addresses.is_empty() {
            return Err(wrong);
        }
        Ok(Self { bootstrap: addresses, timeout, connections: BTreeMap::new() })
    }

    /// How long an answer may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The same for a request's field.
    pub(super) fn timeout_ms(&self) -> i32 {
        self.timeout.as_millis().try_into().unwrap_or(i32::MAX)
    }

    /// Asks any broker.
    ///
    /// # Errors
    /// Why the last of them does not answer.
    pub(super) fn ask_any<'q, Q: Message<'q>>(&mut self, request: &Q) -> Result<Answer, ClientError> {
        let mut last = None;
        for address in self.bootstrap.clone() {
            match self.ask(address, request) {
                Err(error) if error.is_retriable() => last = Some(error),
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Address { text: String::new(), why: "there is none".to_owned() }))
    }

    /// Asks any broker what depends on the version, which is `version_max` at most.
    ///
    /// # Errors
    /// Why the last of them does not answer.
    pub(super) fn ask_any_in<'q, Q: Message<'q>>(
        &mut self,
        version_max: i16,
        request: impl Fn(i16) -> Q,
    ) -> Result<Answer, ClientError> {
        let mut last = None;
        for address in self.bootstrap.clone() {
            match self.ask_in(address, version_max, &request) {
                Err(error) if error.is_retriable() => last = Some(error),
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Address { text: String::new(), why: "there is none".to_owned() }))
    }

    /// Asks one broker what depends on the version, which is `version_max` at most.
    ///
    /// # Errors
    /// It does not answer, or with nonsense.
    pub(super) fn ask_in<'q, Q: Message<'q>>(
        &mut self,
        address: SocketAddr,
        version_max: i16,
        request: impl Fn(i16) -> Q,
    ) -> Result<Answer, ClientError> {
        let version = self.version(address, Q::API)?.min(version_max);
        let answer = self.exchange(address, &request(version), version, true)?;
        answer.ok_or(ClientError::Silent { address, api: Q::API })
    }

    /// Asks one broker what it may think about for so much longer than usual.
    ///
    /// # Errors
    /// It does not answer, or with nonsense.
    pub(super) fn ask_patiently<'q, Q: Message<'q>>(
        &mut self,
        address: SocketAddr,
        longer: Duration,
        request: &Q,
    ) -> Result<Answer, ClientError> {
        let timeout = self.timeout;
        self.connection(address)?.set_timeout(timeout + longer)?;
        let answer = self.ask(address, request);
        if let Some(connection) = self.connections.get_mut(&address) {
            connection.set_timeout(timeout)?;
        }
        answer
    }

    /// Asks one broker, in the newest version that both have.
    ///
    /// # Errors
    /// It does not answer, or with nonsense.
    pub(super) fn ask<'q, Q: Message<'q>>(&mut self, address: SocketAddr, request: &Q) -> Result<Answer, ClientError> {
        let version = self.version(address, Q::API)?;
        let answer = self.exchange(address, request, version, true)?;
        answer.ok_or(ClientError::Silent { address, api: Q::API })
    }

    /// Sends what is not answered: Produce with acks=0.
    ///
    /// # Errors
    /// It cannot be sent.
    pub(super) fn tell<'q, Q: Message<'q>>(&mut self, address: SocketAddr, request: &Q) -> Result<(), ClientError> {
        let version = self.version(address, Q::API)?;
        self.exchange(address, request, version, false).map(drop)
    }

    /// The version in which a broker is asked.
    ///
    /// # Errors
    /// It cannot be reached, or has none in common with us.
    pub(super) fn version(&mut self, address: SocketAddr, api: ringlog_protocol::ApiKey) -> Result<i16, ClientError> {
        self.connection(address)?.version(api)
    }

    fn exchange<'q, Q: Message<'q>>(
        &mut self,
        address: SocketAddr,
        request: &Q,
        version: i16,
        answered: bool,
    ) -> Result<Option<Answer>, ClientError> {
        let outcome = self.connection(address)?.exchange(request, version, answered);
        if outcome.is_err() {
            self.connections.remove(&address);
        }
        outcome
    }

    fn connection(&mut self, address: SocketAddr) -> Result<&mut Connection, ClientError> {
        use std::collections::btree_map::Entry;
        match self.connections.entry(address) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(Connection::open(address, self.timeout)?)),
        }
    }

    /// Tries until it goes well, fails for good, or the time for it is over.
    ///
    /// # Errors
    /// The last failure.
    pub(super) fn retry<T>(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<T, ClientError>) -> Result<T, ClientError> {
        let until = Instant::now() + self.timeout;
        loop {
            match attempt(self) {
                Err(error) if error.is_retriable() && Instant::now() < until => std::thread::sleep(PAUSE),
                outcome => return outcome,
            }
        }
    }
}

/// The addresses of HOST:PORT, or of HOST at Kafka's port.
fn resolve(text: &str) -> Result<Vec<SocketAddr>, String> {
    let has_port = text.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')))
    });
    let found = if has_port {
        text.to_socket_addrs()
    } else if text.contains(':') && !text.starts_with('[') && text.parse::<std::net::Ipv6Addr>().is_err() {
        return Err("the port is a number up to 65535".to_owned());
    } else {
        (text.trim_matches(['[', ']']), PORT_DEFAULT).to_socket_addrs()
    };
    let found: Vec<_> = found.map_err(|error| error.to_string())?.collect();
    if found.is_empty() { Err("the name has no address".to_owned()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_kafkas_port_by_default() {
        let first = |text| resolve(text).map(|found| found[0].to_string());
        assert_eq!(first("127.0.0.1").as_deref(), Ok("127.0.0.1:9092"));
        assert_eq!(first("127.0.0.1:1").as_deref(), Ok("127.0.0.1:1"));
        assert_eq!(first("[::1]:7").as_deref(), Ok("[::1]:7"));
        assert_eq!(first("::1").as_deref(), Ok("[::1]:9092"));
        assert!(first("127.0.0.1:99999").is_err());
        assert!(first("127.0.0.1:kafka").is_err());
    }

    #[test]
    fn nobody_there_is_said_with_what_to_do() {
        // A port that is taken, so that no other test gets it, and at which nobody listens.
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
        let mut client = Client::new(&address.to_string(), Duration::from_secs(60)).unwrap();
        let error = client.cluster(None).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--bootstrap-server"), "{error}");
        assert!(Client::new(" , ", Duration::from_secs(1)).is_err());
    }

    #[test]
    fn whoever_speaks_another_protocol_is_told_apart() {
        use std::io::Write;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            // Hold the stream until the client has read.
            let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
        });
        let mut client = Client::new(&address.to_string(), Duration::from_secs(60)).unwrap();
        assert!(matches!(client.cluster(None).unwrap_err(), ClientError::NotKafka { .. }));
        server.join().unwrap();
    }
}
