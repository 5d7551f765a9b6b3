//! ListConfigResources (KIP-1142): what there is to be configured.

use std::borrow::Cow;

use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::list_config_resources::{ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::{Api, decode, reply};
use crate::catalogue::records::{RESOURCE_BROKER, RESOURCE_TOPIC};
use crate::net::{Outcome, RequestContext};

/// Types of Kafka's of which nothing exists here: broker loggers, client metrics, groups.
const RESOURCES_EMPTY: [i8; 3] = [8, RESOURCE_CLIENT_METRICS, 32];
/// What version 0 asks for.
const RESOURCE_CLIENT_METRICS: i8 = 16;

pub(super) fn handle(api: &Api, context: &RequestContext, body: &[u8]) -> Outcome {
    let request: ListConfigResourcesRequest = match decode(context, body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let mut response = ListConfigResourcesResponse::default();
    match wanted(context.api_version, &request.resource_types) {
        Ok((wants_topics, wants_brokers)) => {
            let resource = |name: String, resource_type| ConfigResource { resource_name: Cow::Owned(name), resource_type };
            if wants_topics {
                let topics = api.topics();
                response.config_resources.extend(topics.iter().map(|topic| resource(topic.name.to_string(), RESOURCE_TOPIC)));
            }
            if wants_brokers {
                response.config_resources.push(resource(api.core.broker.node_id.to_string(), RESOURCE_BROKER));
            }
        }
        Err(error_code) => response.error_code = error_code,
    }
    reply(context, &response)
}

/// Whether topics and brokers are asked for. No types at all are all types, but for version 0.
fn wanted(version: i16, types: &[i8]) -> Result<(bool, bool), ErrorCode> {
    if version == 0 {
        return Ok((false, false));
    }
    let is_known = |kind: &i8| *kind == RESOURCE_TOPIC || *kind == RESOURCE_BROKER || RESOURCES_EMPTY.contains(kind);
    if !types.iter().all(is_known) {
        return Err(ErrorCode::UNSUPPORTED_VERSION);
    }
    let wants = |kind| types.is_empty() || types.contains(&kind);
    Ok((wants(RESOURCE_TOPIC), wants(RESOURCE_BROKER)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_select() {
        assert_eq!(wanted(0, &[]), Ok((false, false)), "client metrics alone");
        assert_eq!(wanted(1, &[]), Ok((true, true)));
        assert_eq!(wanted(1, &[2]), Ok((true, false)));
        assert_eq!(wanted(1, &[4, 16]), Ok((false, true)));
        assert_eq!(wanted(1, &[2, 3]), Err(ErrorCode::UNSUPPORTED_VERSION));
    }
}
