//! One connection to a broker: opened with the versions that both sides have, then one request at a time through
//! [`Connection::call`], or many at once by whoever takes it apart.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ringlog_protocol::api::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use ringlog_protocol::{
    ApiKey, DecodeError, Decoder, Encoder, ErrorCode, Message, RequestHeader, ResponseHeader, begin_request, finish_frame,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{ClientError, Incoming};

/// What we call ourselves to brokers.
pub(crate) const CLIENT_ID: &str = "ringlog-bench";

/// No answer but a fetch's is larger: the metadata of 100,000 partitions takes 5 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The answer to the first request lists versions and features.
const GREETING_BYTES_MAX: usize = 1 << 20;

/// The version to use of each API: the highest that both sides have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions(Vec<(ApiKey, i16)>);

impl Versions {
    fn common(answer: &ApiVersionsResponse<'_>) -> Self {
        let mut common = Vec::new();
        for range in &answer.api_keys {
            let Some(api) = ApiKey::from_key(range.api_key) else { continue };
            let version = range.max_version.min(api.version_max());
            if version >= range.min_version.max(api.version_min()) {
                common.push((api, version));
            }
        }
        Self(common)
    }

    /// The version to use.
    ///
    /// # Errors
    /// [`ClientError::Unfit`] where there is none in common.
    pub(crate) fn of(&self, api: ApiKey) -> Result<i16, ClientError> {
        let found = self.0.iter().find(|(key, _)| *key == api);
        found.map(|(_, version)| *version).ok_or_else(|| {
            ClientError::Unfit(format!(
                "the broker has no {api} in a version from {} to {}",
                api.version_min(),
                api.version_max()
            ))
        })
    }
}

/// A connection, past the exchange of versions.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Where it leads.
    pub address: SocketAddr,
    /// To read from.
    pub reader: OwnedReadHalf,
    /// To write to.
    pub writer: OwnedWriteHalf,
    /// What was read.
    pub incoming: Incoming,
    /// What to speak.
    pub versions: Versions,
    /// Of the next request.
    pub correlation_id: i32,
    /// How long [`Connection::call`] waits.
    pub timeout: Duration,
}

impl Connection {
    /// Connects to the first of `addresses` that takes it.
    ///
    /// # Errors
    /// Why the last one does not.
    pub(crate) async fn open_any(addresses: &[SocketAddr], timeout: Duration) -> Result<Self, ClientError> {
        let mut last = ClientError::Unfit("there is no broker's address".to_owned());
        for address in addresses {
            match Self::open(*address, timeout).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects and agrees on versions.
    ///
    /// # Errors
    /// Nobody is there, or it is not a Kafka broker.
    pub(crate) async fn open(address: SocketAddr, timeout: Duration) -> Result<Self, ClientError> {
        let unreachable = |source| ClientError::Unreachable { address, source };
        let stream = match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
            Ok(stream) => stream.map_err(unreachable)?,
            Err(_) => return Err(unreachable(io::ErrorKind::TimedOut.into())),
        };
        stream.set_nodelay(true).map_err(unreachable)?;
        let (reader, writer) = stream.into_split();
        let incoming = Incoming::new(GREETING_BYTES_MAX);
        let mut connection =
            Self { address, reader, writer, incoming, versions: Versions::default(), correlation_id: 0, timeout };
        // Version 0 is what every broker has ever had.
        let read = |decoder: &mut Decoder<'_>, version: i16| {
            let answer = ApiVersionsResponse::decode(decoder, version)?;
            Ok((answer.error_code, Versions::common(&answer)))
        };
        let greeted = connection.exchange(&ApiVersionsRequest::default(), 0, read).await;
        let (code, versions) = greeted.map_err(|error| match error {
            ClientError::Gone { how, .. } => ClientError::NotKafka { address, why: format!("it {how}") },
            ClientError::Nonsense { why, .. } => ClientError::NotKafka { address, why },
            ClientError::Silent { seconds, .. } => {
                ClientError::NotKafka { address, why: format!("it takes the connection and says nothing for {seconds:.1} s") }
            }
            other => other,
        })?;
        if code != ErrorCode::NONE {
            return Err(ClientError::refused(ApiKey::ApiVersions, "", code, None));
        }
        connection.versions = versions;
        connection.incoming.set_frame_bytes_max(ANSWER_BYTES_MAX);
        Ok(connection)
    }

    /// Sends a request in the version agreed on and gives the answer to `read`.
    ///
    /// # Errors
    /// The broker is gone, silent, or answers nonsense. The connection is of no use then.
    pub(crate) async fn call<'q, Q: Message<'q>, R>(
        &mut self,
        request: &Q,
        read: impl for<'a> FnOnce(&mut Decoder<'a>, i16) -> Result<R, DecodeError>,
    ) -> Result<R, ClientError> {
        let version = self.versions.of(Q::API)?;
        self.exchange(request, version, read).await
    }

    async fn exchange<'q, Q: Message<'q>, R>(
        &mut self,
        request: &Q,
        version: i16,
        read: impl for<'a> FnOnce(&mut Decoder<'a>, i16) -> Result<R, DecodeError>,
    ) -> Result<R, ClientError> {
        let (address, timeout) = (self.address, self.timeout);
        let mut frames = Encoder::new();
        let correlation_id = self.encode_as(&mut frames, request, version);
        let exchange = async {
            self.write(&frames).await?;
            self.answer(Q::API, version, correlation_id, read).await
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Silent { address, api: Q::API, seconds: timeout.as_secs_f64() }),
        }
    }

    /// Appends a request in the version agreed on to `frames`, for [`Connection::write`]; returns its number, for
    /// [`Connection::receive`].
    ///
    /// # Errors
    /// There is no version in common.
    pub(crate) fn encode<'q, Q: Message<'q>>(&mut self, frames: &mut Encoder, request: &Q) -> Result<i32, ClientError> {
        let version = self.versions.of(Q::API)?;
        Ok(self.encode_as(frames, request, version))
    }

    fn encode_as<'q, Q: Message<'q>>(&mut self, frames: &mut Encoder, request: &Q, version: i16) -> i32 {
        let correlation_id = self.next_correlation_id();
        let start = begin_request(frames, &header(Q::API, version, correlation_id));
        request.encode(frames, version);
        finish_frame(frames, start);
        correlation_id
    }

    /// Sends what was encoded.
    ///
    /// # Errors
    /// The broker is gone.
    pub(crate) async fn write(&mut self, frames: &Encoder) -> Result<(), ClientError> {
        let address = self.address;
        self.writer.write_all(frames.buffer()).await.map_err(|error| gone(address, &error))
    }

    /// Waits for the answer to request `correlation_id`, the oldest one without an answer, and gives it to `read`.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub(crate) async fn receive<R>(
        &mut self,
        api: ApiKey,
        correlation_id: i32,
        read: impl for<'a> FnOnce(&mut Decoder<'a>, i16) -> Result<R, DecodeError>,
    ) -> Result<R, ClientError> {
        let (address, timeout) = (self.address, self.timeout);
        let version = self.versions.of(api)?;
        match tokio::time::timeout(timeout, self.answer(api, version, correlation_id, read)).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Silent { address, api, seconds: timeout.as_secs_f64() }),
        }
    }

    async fn answer<R>(
        &mut self,
        api: ApiKey,
        version: i16,
        correlation_id: i32,
        read: impl for<'a> FnOnce(&mut Decoder<'a>, i16) -> Result<R, DecodeError>,
    ) -> Result<R, ClientError> {
        let address = self.address;
        loop {
            if self.incoming.has_frame().map_err(|why| ClientError::Nonsense { address, api, why })? {
                break;
            }
            let read = self.incoming.fill(&mut self.reader).await.map_err(|error| gone(address, &error))?;
            if read == 0 {
                return Err(ClientError::Gone { address, how: "closes the connection".to_owned() });
            }
        }
        let frame = self.incoming.next().map_err(|why| ClientError::Nonsense { address, api, why })?.unwrap_or_default();
        let mut decoder = Decoder::new(frame);
        let answered = ResponseHeader::decode(&mut decoder, api, version).map_err(ClientError::undecodable(address, api))?;
        if answered.correlation_id != correlation_id {
            let why = format!("it answers request {}, not {correlation_id}", answered.correlation_id);
            return Err(ClientError::Nonsense { address, api, why });
        }
        read(&mut decoder, version).map_err(ClientError::undecodable(address, api))
    }

    /// Gives back what the greeting took of memory, and takes little from now on: for one of thousands of connections.
    pub(crate) fn keep_small(&mut self) {
        self.incoming.keep_small();
    }

    /// The number of the next request.
    pub(crate) fn next_correlation_id(&mut self) -> i32 {
        let id = self.correlation_id;
        self.correlation_id = id.wrapping_add(1) & i32::MAX;
        id
    }
}

/// The header of a request of ours.
#[must_use]
pub(crate) fn header(api: ApiKey, version: i16, correlation_id: i32) -> RequestHeader<'static> {
    RequestHeader { api_key: api.key(), api_version: version, correlation_id, client_id: Some(CLIENT_ID.into()) }
}

/// A connection that the system says has ended.
pub(crate) fn gone(address: SocketAddr, error: &io::Error) -> ClientError {
    ClientError::Gone { address, how: format!("closes the connection: {error}") }
}
