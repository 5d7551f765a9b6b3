//! DescribeCluster (KIP-700): the brokers, as the client's listener sees them.

use std::borrow::Cow;

use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::describe_cluster::{DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse};

use super::respond::{self, CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED};
use super::{Api, decode, reply};
use crate::net::{Outcome, RequestContext};

pub(super) fn handle(api: &Api, context: &RequestContext, body: &[u8]) -> Outcome {
    let request: DescribeClusterRequest = match decode(context, body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    if let Some((error_code, message)) = endpoint_error(request.endpoint_type) {
        let error_message = Some(message.into());
        return reply(context, &DescribeClusterResponse { error_code, error_message, ..DescribeClusterResponse::default() });
    }
    let broker = &api.core.broker;
    let (host, port) = respond::endpoint(&broker.config.listeners, context);
    let asks_operations = request.include_cluster_authorized_operations;
    let response = DescribeClusterResponse {
        cluster_id: Cow::Borrowed(&broker.cluster_id),
        controller_id: broker.node_id,
        brokers: vec![DescribeClusterBroker { broker_id: broker.node_id, host, port, rack: None, is_fenced: false }],
        cluster_authorized_operations: if asks_operations { CLUSTER_OPERATIONS } else { OPERATIONS_NOT_ASKED },
        ..DescribeClusterResponse::default()
    };
    reply(context, &response)
}

/// What is wrong with the kind of endpoint that a client believes it talks to (KIP-919): this is a broker.
fn endpoint_error(endpoint_type: i8) -> Option<(ErrorCode, String)> {
    match endpoint_type {
        1 => None,
        2 => Some((
            ErrorCode::MISMATCHED_ENDPOINT_TYPE,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER".to_owned(),
        )),
        other => Some((ErrorCode::UNSUPPORTED_ENDPOINT_TYPE, format!("Unsupported endpoint type {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_is_a_broker() {
        let code = |endpoint_type| endpoint_error(endpoint_type).map(|(code, _)| code);
        assert_eq!(code(1), None);
        assert_eq!(code(2), Some(ErrorCode::MISMATCHED_ENDPOINT_TYPE));
        assert_eq!(code(0), Some(ErrorCode::UNSUPPORTED_ENDPOINT_TYPE));
    }
}
