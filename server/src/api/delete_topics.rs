//! DeleteTopics. The controller checks and deletes; here is only the wire.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};

use super::{Api, decode, reply};
use crate::net::{Outcome, RequestContext};

/// From here on clients know [`ErrorCode::TOPIC_DELETION_DISABLED`].
const DISABLED_VERSION_MIN: i16 = 3;

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: DeleteTopicsRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let mut responses = api.core.broker.controller.delete_topics(&request).await;
    if context.api_version < DISABLED_VERSION_MIN {
        for response in responses.iter_mut().filter(|response| response.error_code == ErrorCode::TOPIC_DELETION_DISABLED) {
            response.error_code = ErrorCode::INVALID_REQUEST;
        }
    }
    reply(&context, &DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() })
}
