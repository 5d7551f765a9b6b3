//! The headers of requests and responses. The network layer reads and writes them; which version applies is [`ApiKey`]'s to say.

use std::borrow::Cow;

use crate::ApiKey;
use crate::primitives::{DecodeError, Decoder, Encoder, Encoding};

/// The old encoding. The client id keeps it even in the flexible header, so that any broker can read any ApiVersions request (KIP-511).
const CLASSIC: Encoding = Encoding { version: 1, flexible: false };

/// What precedes a request's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// The API's number, which need not be one we know: see [`ApiKey::from_key`].
    pub api_key: i16,
    /// The API's version, which need not be one we serve: see [`ApiKey::supports`].
    pub api_version: i16,
    /// Chosen by the client, returned with the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Cow<'a, str>>,
}

impl<'a> RequestHeader<'a> {
    /// Reads a header of version 1 or 2, as the key and version in it demand. An unknown API is an error, because where its header ends is unknown;
    /// an unsupported version of a known API is not.
    pub fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let (api_key, api_version) = (decoder.int16()?, decoder.int16()?);
        let api = ApiKey::from_key(api_key).ok_or(DecodeError::UnknownApi(api_key))?;
        let correlation_id = decoder.int32()?;
        // A name for log lines and listings: one in Latin-1 is no reason to refuse a client.
        let client_id = decoder.string_nullable_lossy(CLASSIC)?;
        if api.request_header_version(api_version) >= 2 {
            decoder.tagged_fields(|_, _| Ok(false))?;
        }
        Ok(Self { api_key, api_version, correlation_id, client_id })
    }

    /// Writes the header in the version that its API and version demand.
    ///
    /// # Panics
    /// If the API is unknown.
    pub fn encode(&self, encoder: &mut Encoder) {
        let api = ApiKey::from_key(self.api_key);
        assert!(api.is_some(), "a request to unknown API {}", self.api_key);
        encoder.int16(self.api_key);
        encoder.int16(self.api_version);
        encoder.int32(self.correlation_id);
        encoder.string_nullable(self.client_id.as_deref(), CLASSIC);
        if api.is_some_and(|api| api.request_header_version(self.api_version) >= 2) {
            encoder.unsigned_varint(0);
        }
    }
}

/// What precedes a response's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseHeader {
    /// The request's.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Reads the header of a response to `api` in `version`.
    pub fn decode(decoder: &mut Decoder<'_>, api: ApiKey, version: i16) -> Result<Self, DecodeError> {
        let correlation_id = decoder.int32()?;
        if api.response_header_version(version) >= 1 {
            decoder.tagged_fields(|_, _| Ok(false))?;
        }
        Ok(Self { correlation_id })
    }

    /// Writes the header of a response to `api` in `version`.
    pub fn encode(self, encoder: &mut Encoder, api: ApiKey, version: i16) {
        encoder.int32(self.correlation_id);
        if api.response_header_version(version) >= 1 {
            encoder.unsigned_varint(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_id_keeps_its_16_bit_length_in_the_flexible_header() {
        let header = RequestHeader { api_key: 3, api_version: 12, correlation_id: 7, client_id: Some("ab".into()) };
        let mut encoder = Encoder::new();
        header.encode(&mut encoder);
        assert_eq!(encoder.buffer(), [0, 3, 0, 12, 0, 0, 0, 7, 0, 2, b'a', b'b', 0]);
        assert_eq!(RequestHeader::decode(&mut Decoder::new(encoder.buffer())), Ok(header));
    }

    #[test]
    fn tagged_fields_in_the_header_are_skipped_and_old_headers_have_none() {
        let mut decoder = Decoder::new(&[0, 3, 0, 12, 0, 0, 0, 7, 0xff, 0xff, 1, 9, 2, 1, 2, 42]);
        assert_eq!(RequestHeader::decode(&mut decoder).unwrap().client_id, None);
        assert_eq!(decoder.rest(), [42]);
        let mut decoder = Decoder::new(&[0, 3, 0, 8, 0, 0, 0, 7, 0xff, 0xff, 42]);
        RequestHeader::decode(&mut decoder).unwrap();
        assert_eq!(decoder.rest(), [42]);
    }

    #[test]
    fn a_client_id_may_be_in_latin_1() {
        let mut decoder = Decoder::new(b"\0\x03\0\x04\0\0\0\x07\0\x04caf\xe9*");
        assert_eq!(RequestHeader::decode(&mut decoder).unwrap().client_id.as_deref(), Some("caf\u{fffd}"));
        assert_eq!(decoder.rest(), b"*");
    }

    #[test]
    fn an_unknown_api_is_an_error_and_an_unserved_version_is_not() {
        assert_eq!(RequestHeader::decode(&mut Decoder::new(&[0, 99, 0, 0])), Err(DecodeError::UnknownApi(99)));
        let header = RequestHeader::decode(&mut Decoder::new(&[0, 18, 0, 99, 0, 0, 0, 1, 0, 0, 0])).unwrap();
        assert_eq!((header.api_version, header.client_id), (99, Some("".into())));
    }
}
