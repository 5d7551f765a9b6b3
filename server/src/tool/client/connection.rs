//! One connection to a broker: opened with the versions that both sides have, then one request at a time. Used by [`super::Client`]
//! alone. It never tries again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ringlog_protocol::api::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use ringlog_protocol::{
    ApiKey, Decoder, Encoder, ErrorCode, Message, RequestHeader, ResponseHeader, begin_request, finish_frame,
};

use super::ClientError;

/// What we call ourselves to brokers.
const CLIENT_ID: &str = "ringlog";

/// A larger answer than this is none: fetches ask for less, and the metadata of 100,000 partitions takes 5 MiB.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// What an answer's memory grows by, so that a length alone reserves nothing.
const READ_BYTES: usize = 1 << 20;

/// An answer, to be decoded where it is used: its strings and records borrow from it.
#[derive(Debug)]
pub(in crate::tool) struct Answer {
    address: SocketAddr,
    api: ApiKey,
    version: i16,
    frame: Vec<u8>,
    body_at: usize,
}

impl Answer {
    /// Its content.
    ///
    /// # Errors
    /// [`ClientError::Nonsense`].
    ///
    /// # Panics
    /// If it answers another API's request.
    pub(in crate::tool) fn decode<'a, M: Message<'a>>(&'a self) -> Result<M, ClientError> {
        assert_eq!(M::API, self.api, "an answer is decoded as what was asked");
        M::decode(&mut Decoder::new(&self.frame[self.body_at..]), self.version).map_err(|error| ClientError::Nonsense {
            address: self.address,
            api: self.api,
            why: error.to_string(),
        })
    }

    /// The version that request and answer are in.
    pub(in crate::tool) fn version(&self) -> i16 {
        self.version
    }
}

/// A connection, past the exchange of versions.
#[derive(Debug)]
pub(super) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    versions: Vec<(ApiKey, i16)>,
    correlation_id: i32,
}

impl Connection {
    /// Connects and agrees on versions. `timeout` holds for every step, and later for every answer.
    pub(super) fn open(address: SocketAddr, timeout: Duration) -> Result<Self, ClientError> {
        let unreachable = |source| ClientError::Unreachable { address, source };
        let stream = TcpStream::connect_timeout(&address, timeout).map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        stream.set_read_timeout(Some(timeout)).map_err(unreachable)?;
        stream.set_write_timeout(Some(timeout)).map_err(unreachable)?;
        let mut connection = Self { address, stream, versions: Vec::new(), correlation_id: 0 };
        // Version 0 is what every broker has ever had.
        let greeted = connection.exchange(&ApiVersionsRequest::default(), 0, true);
        let not_kafka = |why: String| ClientError::NotKafka { address, why };
        let answer = greeted.map_err(|error| match error {
            ClientError::Gone { how, .. } => not_kafka(how),
            ClientError::Nonsense { why, .. } => not_kafka(why),
            other => other,
        })?;
        let Some(answer) = answer else { return Err(not_kafka("it does not answer".to_owned())) };
        let response: ApiVersionsResponse<'_> = answer.decode().map_err(|error| not_kafka(error.to_string()))?;
        if response.error_code != ErrorCode::NONE {
            return Err(ClientError::refused(ApiKey::ApiVersions, "", response.error_code, None));
        }
        connection.versions = common_versions(&response);
        Ok(connection)
    }

    /// Sets how long an answer may take.
    pub(super) fn set_timeout(&mut self, timeout: Duration) -> Result<(), ClientError> {
        self.stream.set_read_timeout(Some(timeout)).map_err(|error| ClientError::gone(self.address, &error))
    }

    /// The newest version that both sides have.
    pub(super) fn version(&self, api: ApiKey) -> Result<i16, ClientError> {
        let found = self.versions.iter().find(|(key, _)| *key == api);
        found.map(|(_, version)| *version).ok_or_else(|| ClientError::Unfit {
            address: self.address,
            why: format!("has no {api} in a version from {} to {}", api.version_min(), api.version_max()),
        })
    }

    /// Sends a request and waits for its answer; for none where `answered` says so (Produce with acks=0).
    ///
    /// # Errors
    /// The broker is gone, silent, or answers nonsense. The connection is of no use then.
    pub(super) fn exchange<'q, Q: Message<'q>>(
        &mut self,
        request: &Q,
        version: i16,
        answered: bool,
    ) -> Result<Option<Answer>, ClientError> {
        let (address, api) = (self.address, Q::API);
        let correlation_id = self.correlation_id;
        self.correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        let mut encoder = Encoder::new();
        let header =
            RequestHeader { api_key: api.key(), api_version: version, correlation_id, client_id: Some(CLIENT_ID.into()) };
        let start = begin_request(&mut encoder, &header);
        request.encode(&mut encoder, version);
        finish_frame(&mut encoder, start);
        self.stream.write_all(encoder.buffer()).map_err(|error| ClientError::gone(address, &error))?;
        if !answered {
            return Ok(None);
        }
        let frame = self.read_frame(api)?;
        let mut decoder = Decoder::new(&frame);
        let nonsense = |why: String| ClientError::Nonsense { address, api, why };
        let header = ResponseHeader::decode(&mut decoder, api, version).map_err(|error| nonsense(error.to_string()))?;
        if header.correlation_id != correlation_id {
            return Err(nonsense(format!("it answers request {}, not {correlation_id}", header.correlation_id)));
        }
        let body_at = frame.len() - decoder.remaining();
        Ok(Some(Answer { address, api, version, frame, body_at }))
    }

    fn read_frame(&mut self, api: ApiKey) -> Result<Vec<u8>, ClientError> {
        let address = self.address;
        let gone = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => ClientError::Silent { address, api },
            _ => ClientError::gone(address, &error),
        };
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).map_err(gone)?;
        let size = i32::from_be_bytes(size);
        let Some(left) = usize::try_from(size).ok().filter(|size| *size <= ANSWER_BYTES_MAX) else {
            let why = format!("a frame of {size} bytes, where at most {ANSWER_BYTES_MAX} are expected");
            return Err(ClientError::Nonsense { address, api, why });
        };
        let mut frame = Vec::new();
        while frame.len() < left {
            let at = frame.len();
            frame.resize(left.min(at + READ_BYTES), 0);
            self.stream.read_exact(&mut frame[at..]).map_err(gone)?;
        }
        Ok(frame)
    }
}

fn common_versions(answer: &ApiVersionsResponse<'_>) -> Vec<(ApiKey, i16)> {
    let mut common = Vec::new();
    for range in &answer.api_keys {
        let Some(api) = ApiKey::from_key(range.api_key) else { continue };
        let version = range.max_version.min(api.version_max());
        if version >= range.min_version.max(api.version_min()) {
            common.push((api, version));
        }
    }
    common
}
