//! Every message of Kafka's protocol that is known, by one dispatcher: decoded, encoded again, decoded again to the same bytes.

use ringlog_protocol::{ApiKey, Decoder, Encoder, Message, RequestHeader, ResponseHeader, for_each_api};

use crate::input::Input;

/// API key, version, body; as in a frame.
pub(crate) fn requests(input: &[u8]) {
    let mut decoder = Decoder::new(input);
    let _ = RequestHeader::decode(&mut decoder);
    run(input, true);
}

/// The same for what a broker answers.
pub(crate) fn responses(input: &[u8]) {
    run(input, false);
}

fn run(input: &[u8], is_request: bool) {
    let mut input = Input::new(input);
    let Some(api) = ApiKey::from_key(input.u16().cast_signed()) else { return };
    let versions = api.version_max() - api.version_min() + 1;
    let version = api.version_min() + (input.u16() % versions.cast_unsigned()).cast_signed();
    let body = input.rest();
    if !is_request {
        let _ = ResponseHeader::decode(&mut Decoder::new(body), api, version);
    }
    assert!(dispatch(api, version, body, is_request), "{api} is missing in the dispatcher");
}

/// Runs the body of one message; false where the API is not known here.
fn dispatch(api: ApiKey, version: i16, body: &[u8], is_request: bool) -> bool {
    macro_rules! dispatch {
        ($($module:ident $request:ident $response:ident,)*) => {
            match api {
                $(
                    _ if api == ringlog_protocol::api::$module::$request::API && is_request => dispatch!(@run $module $request),
                    _ if api == ringlog_protocol::api::$module::$request::API => dispatch!(@run $module $response),
                )*
                _ => return false,
            }
        };
        (@run $module:ident $message:ident) => {{
            let again = |bytes: &[u8]| {
                let mut decoder = Decoder::new(bytes);
                let message = ringlog_protocol::api::$module::$message::decode(&mut decoder, version).ok()?;
                assert!(decoder.remaining() <= bytes.len());
                let mut encoder = Encoder::new();
                message.encode(&mut encoder, version);
                Some(encoder.into_buffer())
            };
            if let Some(once) = again(body) {
                assert_eq!(again(&once), Some(once.clone()), "{api} version {version} does not come back as it was");
            }
        }};
    }
    for_each_api!(dispatch);
    true
}
