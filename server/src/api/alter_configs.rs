//! AlterConfigs, which replaces all settings of a resource. The controller checks and changes them; here is only the wire.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::api::alter_configs::{AlterConfigsRequest, AlterConfigsResponse};

use super::{Api, decode, reply};
use crate::net::{Outcome, RequestContext};

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: AlterConfigsRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let responses = api.core.broker.controller.alter_configs(&request).await;
    for resource in &responses {
        api.log_refusal(&context, &resource.resource_name, resource.error_code, resource.error_message.as_deref());
    }
    reply(&context, &AlterConfigsResponse { responses, ..AlterConfigsResponse::default() })
}
