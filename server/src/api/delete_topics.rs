//! DeleteTopics. The controller checks and deletes; here is only the wire.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::api::delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};

use super::{Api, decode, reply};
use crate::net::{Outcome, RequestContext};

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: DeleteTopicsRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let responses = api.core.broker.controller.delete_topics(&request).await;
    reply(&context, &DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() })
}
