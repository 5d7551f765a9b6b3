//! Frames of requests and what answers hold, by the wire codec.

use ringlog_protocol::{ApiKey, Decoder, Encoder, Message, RequestHeader, ResponseHeader, begin_request, finish_frame};

/// The frame of a request.
#[must_use]
pub fn frame<'a, M: Message<'a>>(request: &M, version: i16, correlation_id: i32) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let header =
        RequestHeader { api_key: M::API.key(), api_version: version, correlation_id, client_id: Some("simulated".into()) };
    let start = begin_request(&mut encoder, &header);
    request.encode(&mut encoder, version);
    finish_frame(&mut encoder, start);
    encoder.into_buffer()
}

/// The message in the frame of an answer.
///
/// # Panics
/// `AnswersAreUnderstood`: where it is not what the codec expects.
#[must_use]
pub fn answer<'a, M: Message<'a>>(frame: &'a [u8], version: i16, correlation_id: i32) -> M {
    let api: ApiKey = M::API;
    let mut decoder = Decoder::new(&frame[4..]);
    match ResponseHeader::decode(&mut decoder, api, version) {
        Ok(header) => assert_eq!(header.correlation_id, correlation_id, "AnswersAreUnderstood: {api} in order"),
        Err(error) => panic!("AnswersAreUnderstood: {api} version {version}: {error}"),
    }
    let message = match M::decode(&mut decoder, version) {
        Ok(message) => message,
        Err(error) => panic!("AnswersAreUnderstood: {api} version {version}: {error}"),
    };
    assert_eq!(decoder.remaining(), 0, "AnswersAreUnderstood: {api} version {version} has bytes left");
    message
}
