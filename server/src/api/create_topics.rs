//! CreateTopics. The controller checks and makes them; here is only the wire.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::api::create_topics::{CreateTopicsRequest, CreateTopicsResponse};

use super::{Api, decode, reply};
use crate::net::{Outcome, RequestContext};

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: CreateTopicsRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let topics = api.core.broker.controller.create_topics(&request).await;
    for topic in &topics {
        api.log_refusal(&context, &topic.name, topic.error_code, topic.error_message.as_deref());
    }
    reply(&context, &CreateTopicsResponse { topics, ..CreateTopicsResponse::default() })
}
