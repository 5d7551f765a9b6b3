//! FindCoordinator: who has the groups. Whoever asks for the first time makes the topic in which groups are kept.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::find_coordinator::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};

use super::{Api, decode, reply, respond};
use crate::catalogue::names::CONSUMER_OFFSETS;
use crate::net::{Outcome, RequestContext};

/// From here on several coordinators are asked for at once (KIP-699).
const BATCHED_VERSION_MIN: i16 = 4;
/// What a key is.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// How long a client waits for the topic to be made. After that it is told to ask again: what it asked behind this waits too.
const CREATE_WAIT: Duration = Duration::from_millis(500);
/// How long nobody waits any more after that: on a full disk consumers ask all the time, and read by the same connection.
const FAILED_WAIT: Duration = Duration::from_secs(3);

pub(super) async fn handle(api: Rc<Api>, context: RequestContext, body: Bytes) -> Outcome {
    let request: FindCoordinatorRequest<'_> = match decode(&context, &body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let is_batched = context.api_version >= BATCHED_VERSION_MIN;
    let keys = if is_batched { request.coordinator_keys } else { vec![request.key] };
    let found = if keys.is_empty() { Ok(()) } else { find(&api, request.key_type).await };
    let mut coordinators: Vec<Coordinator<'_>> = keys.into_iter().map(|key| answer(&api, &context, key, &found)).collect();
    let mut response = FindCoordinatorResponse::default();
    if is_batched {
        response.coordinators = coordinators;
    } else if let Some(found) = coordinators.pop() {
        response.error_code = found.error_code;
        response.error_message = found.error_message;
        (response.node_id, response.host, response.port) = (found.node_id, found.host, found.port);
    }
    reply(&context, &response)
}

/// Whether there is a coordinator for this kind of key: this broker.
async fn find(api: &Rc<Api>, key_type: i8) -> Result<(), (ErrorCode, Cow<'static, str>)> {
    match key_type {
        GROUP => {}
        // Final for every client: none comes to be while it waits.
        TRANSACTION => return Err((ErrorCode::INVALID_REQUEST, "Transactions are not implemented yet.".into())),
        other => return Err((ErrorCode::INVALID_REQUEST, format!("Coordinators of type {other} are not known.").into())),
    }
    if api.topics().by_name(CONSUMER_OFFSETS).is_some() {
        return Ok(());
    }
    let not_available = |message: Cow<'static, str>| Err((ErrorCode::COORDINATOR_NOT_AVAILABLE, message));
    let env = &api.core.core.env;
    if api.offsets_topic_missed.get().is_some_and(|at| env.monotonic().saturating_sub(at) < FAILED_WAIT) {
        return not_available("The topic of the groups could not be made a moment ago.".into());
    }
    let controller = api.core.broker.controller.clone();
    let creating = Box::pin(async move { controller.offsets_topic().await.map(|_| ()) });
    let created = select(creating, env.sleep(CREATE_WAIT)).await;
    if !matches!(created, Either::Left((Ok(()), _))) {
        api.offsets_topic_missed.set(Some(env.monotonic()));
    }
    match created {
        Either::Left((Ok(()), _)) => Ok(()),
        Either::Left((Err(refusal), _)) => {
            tracing::warn!(%refusal, "the topic of the groups could not be made");
            not_available(refusal.message.into())
        }
        // It goes on being created.
        Either::Right(_) => not_available("The topic of the groups is being made.".into()),
    }
}

fn answer<'a>(
    api: &'a Api,
    context: &RequestContext,
    key: Cow<'a, str>,
    found: &Result<(), (ErrorCode, Cow<'static, str>)>,
) -> Coordinator<'a> {
    match found {
        Ok(()) => {
            let (host, port) = respond::endpoint(&api.core.broker.config.listeners, context);
            Coordinator { key, node_id: api.core.broker.node_id, host, port, ..Coordinator::default() }
        }
        Err((error_code, message)) => Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: *error_code,
            error_message: Some(message.clone()),
            ..Coordinator::default()
        },
    }
}
