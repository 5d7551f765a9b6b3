//! CreatePartitions. The controller checks and makes them; here is only the wire.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::api::create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::{Api, decode, reply};
use crate::net::{Outcome, RequestContext};

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: CreatePartitionsRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let results = api.core.broker.controller.create_partitions(&request).await;
    for topic in &results {
        api.log_refusal(&context, &topic.name, topic.error_code, topic.error_message.as_deref());
    }
    reply(&context, &CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() })
}
