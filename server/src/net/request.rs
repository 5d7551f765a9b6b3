//! From a frame to what a [`Handler`] gets: the header is read, the version admitted. Pure. Called by the reader of a connection,
//! and by whoever stands in for one.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::{Buf, Bytes};
use ringlog_protocol::{ApiKey, Decoder, RequestHeader};

use super::{Admission, ConnectionInfo, Handler, RequestContext};

/// Reads the frame (without its size) of a request, and returns its context and body. `client_id` is what the last request said:
/// most say the same.
///
/// # Errors
/// Why the connection has to be closed.
pub fn read(
    handler: &dyn Handler,
    connection: &Rc<ConnectionInfo>,
    client_id: &mut Option<Rc<str>>,
    mut frame: Bytes,
) -> Result<(RequestContext, Bytes), Cow<'static, str>> {
    let mut decoder = Decoder::new(&frame);
    let header = match RequestHeader::decode(&mut decoder) {
        Ok(header) => header,
        // Nothing is known of a future version's header but its beginning.
        Err(error) => match future_api_versions(&frame) {
            Some(header) => header,
            None => return Err(format!("bad request header: {error}").into()),
        },
    };
    let body_at = frame.len() - decoder.remaining();
    let Some(api) = ApiKey::from_key(header.api_key) else { unreachable!("the header's decoder knows it") };
    let admission = handler.admit(api, header.api_version);
    if admission == Admission::Refuse {
        return Err(format!("{api} version {} is not served", header.api_version).into());
    }
    if client_id.as_deref() != header.client_id.as_deref() {
        *client_id = header.client_id.as_deref().map(Rc::from);
    }
    let context = RequestContext {
        connection: connection.clone(),
        client_id: client_id.clone(),
        api,
        api_version: header.api_version,
        correlation_id: header.correlation_id,
        version_unsupported: admission == Admission::AnswerUnsupported,
    };
    if context.version_unsupported {
        frame.clear();
    } else {
        frame.advance(body_at);
    }
    Ok((context, frame))
}

/// The part of the header that all versions share, of an ApiVersions request that is newer than any we know.
fn future_api_versions(frame: &[u8]) -> Option<RequestHeader<'static>> {
    let mut decoder = Decoder::new(frame);
    let (api_key, api_version) = (decoder.int16().ok()?, decoder.int16().ok()?);
    let is_future = api_key == ApiKey::ApiVersions.key() && api_version > ApiKey::ApiVersions.version_max();
    let correlation_id = decoder.int32().ok()?;
    is_future.then_some(RequestHeader { api_key, api_version, correlation_id, client_id: None })
}
