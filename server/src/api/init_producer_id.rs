//! InitProducerId: an id for an idempotent producer (KIP-98). Transactions are not served: who names one is told so.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

use super::{Api, decode, reply};
use crate::net::{Outcome, RequestContext};

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: InitProducerIdRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let mut response = InitProducerIdResponse { producer_id: -1, producer_epoch: -1, ..InitProducerIdResponse::default() };
    if let Some(error_code) = find_invalid(&request) {
        if let Some(transactional_id) = &request.transactional_id {
            tracing::info!(%transactional_id, "a producer wants transactions, which are not implemented yet");
        }
        response.error_code = error_code;
    } else {
        // A producer without transactions that lost its way gets a new id, whatever it had before (KIP-360).
        match api.core.producer_ids.next().await {
            Ok(id) => (response.producer_id, response.producer_epoch) = (id.0, 0),
            Err(refusal) => {
                tracing::warn!(%refusal, "no producer id could be given out");
                response.error_code = refusal.code;
            }
        }
    }
    reply(&context, &response)
}

fn find_invalid(request: &InitProducerIdRequest<'_>) -> Option<ErrorCode> {
    // Final for every client, and none takes it for a coordinator that is somewhere else.
    let is_transactional = request.transactional_id.is_some();
    let is_half = (request.producer_id == -1) != (request.producer_epoch == -1);
    (is_transactional || is_half).then_some(ErrorCode::INVALID_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_idempotence_is_served() {
        let idempotent = InitProducerIdRequest::default();
        assert_eq!(find_invalid(&idempotent), None);
        let again = InitProducerIdRequest { producer_id: 7, producer_epoch: 3, ..InitProducerIdRequest::default() };
        assert_eq!(find_invalid(&again), None);
        let half = InitProducerIdRequest { producer_id: 7, ..InitProducerIdRequest::default() };
        assert_eq!(find_invalid(&half), Some(ErrorCode::INVALID_REQUEST));
        let transactional = InitProducerIdRequest { transactional_id: Some("t".into()), ..InitProducerIdRequest::default() };
        assert_eq!(find_invalid(&transactional), Some(ErrorCode::INVALID_REQUEST));
    }
}
