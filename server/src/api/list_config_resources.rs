//! ListConfigResources (KIP-1142): what there is to be configured.

use std::borrow::Cow;

use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::list_config_resources::{ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::{Api, decode, reply};
use crate::catalogue::records::{RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC};
use crate::net::{Outcome, RequestContext};

/// Types of Kafka's of which nothing exists here: broker loggers, client metrics.
const RESOURCES_EMPTY: [i8; 2] = [8, RESOURCE_CLIENT_METRICS];
/// What version 0 asks for.
const RESOURCE_CLIENT_METRICS: i8 = 16;
/// The types of which there is something, in the order in which they are listed.
const RESOURCES: [i8; 3] = [RESOURCE_GROUP, RESOURCE_BROKER, RESOURCE_TOPIC];

pub(super) fn handle(api: &Api, context: &RequestContext, body: &[u8]) -> Outcome {
    let request: ListConfigResourcesRequest = match decode(context, body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let mut response = ListConfigResourcesResponse::default();
    match wanted(context.api_version, &request.resource_types) {
        Ok(wanted) => {
            for resource_type in wanted {
                let resource = |name: String| ConfigResource { resource_name: Cow::Owned(name), resource_type };
                let found = &mut response.config_resources;
                match resource_type {
                    RESOURCE_TOPIC => found.extend(api.topics().iter().map(|topic| resource(topic.name.to_string()))),
                    RESOURCE_BROKER => found.push(resource(api.core.broker.node_id.to_string())),
                    // Those that have settings of their own, as in Kafka: others are found by ListGroups.
                    _ => found
                        .extend(api.core.broker.group_configs.load().overrides().keys().map(|name| resource(name.to_string()))),
                }
            }
        }
        Err(error_code) => response.error_code = error_code,
    }
    reply(context, &response)
}

/// The types to list. No types at all are all types, but for version 0.
fn wanted(version: i16, types: &[i8]) -> Result<Vec<i8>, ErrorCode> {
    if version == 0 {
        return Ok(Vec::new());
    }
    if !types.iter().all(|kind| RESOURCES.contains(kind) || RESOURCES_EMPTY.contains(kind)) {
        return Err(ErrorCode::UNSUPPORTED_VERSION);
    }
    Ok(RESOURCES.into_iter().filter(|kind| types.is_empty() || types.contains(kind)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_select() {
        assert_eq!(wanted(0, &[]), Ok(Vec::new()), "client metrics alone");
        assert_eq!(wanted(1, &[]), Ok(vec![32, 4, 2]));
        assert_eq!(wanted(1, &[2]), Ok(vec![2]));
        assert_eq!(wanted(1, &[4, 16, 32]), Ok(vec![32, 4]));
        assert_eq!(wanted(1, &[2, 3]), Err(ErrorCode::UNSUPPORTED_VERSION));
    }
}
