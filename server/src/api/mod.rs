//! The handlers of requests, one file per API: each decodes a request, asks the broker, and encodes the answer in the version of
//! the request. `net` calls [`Api`]; handlers call [`crate::broker`] and the engine's cores. Nothing here blocks its core, decides
//! what is stored, or writes to a socket.
//!
//! What [`ApiKey`] says is served is handled here and advertised.

mod alter_configs;
mod api_versions;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_topic_partitions;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod outbox;
mod produce;
mod produce_legacy;
mod respond;
mod sync_group;

use std::cell::Cell;
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::Guard;
use bytes::Bytes;
use ringlog_engine::core::Partition;
use ringlog_engine::log::Log;
use ringlog_engine::log::read::ReadError;
use ringlog_engine::types::LeaderEpoch;
use ringlog_protocol::{ApiKey, Decoder, ErrorCode, Message};

use crate::broker::groups::Groups;
use crate::broker::{BrokerCore, Topics};
use crate::group::{Answer, Name, Request};
use crate::log_limit::{LogLimit, one_line};
use crate::net::{Handler, LocalBoxFuture, Outcome, RequestContext, Response};
use outbox::Outbox;

/// The handlers of one core's connections.
pub struct Api {
    /// The broker, as this core sees it.
    core: Rc<BrokerCore>,
    /// The way to the other cores.
    outbox: Outbox,
    /// Damaged or unreadable partitions: clients ask again and again.
    damage_log: LogLimit,
    /// Requests that ask for what cannot be.
    refusal_log: LogLimit,
    /// When somebody last looked for a coordinator and the topic of the groups could not be made in time.
    offsets_topic_missed: Cell<Option<Duration>>,
}

impl Api {
    /// The handlers of a core.
    #[must_use]
    pub fn new(core: Rc<BrokerCore>) -> Rc<Self> {
        let outbox = Outbox::new(&core.broker.cores, core.core.env.clone());
        let (damage_log, refusal_log) = (LogLimit::default(), LogLimit::default());
        Rc::new(Self { core, outbox, damage_log, refusal_log, offsets_topic_missed: Cell::new(None) })
    }

    fn topics(&self) -> Guard<Arc<Topics>> {
        self.core.broker.topics.load()
    }

    /// Hands what a member of a group says to the group's coordinator. Its connection belongs there then.
    fn ask_as_member(&self, context: &RequestContext, group: &str, request: Request) -> impl Future<Output = Answer> + use<> {
        let place = Groups::place_of(&self.topics(), group);
        if let Ok(place) = place {
            context.connection.home.is_of_group_on(place.core);
        }
        self.core.groups.ask_at(place, group, request)
    }

    /// Looks at a partition's log on the core that owns it. `None`: the partition is gone, or its core is.
    async fn with_log<T: Send + 'static>(
        &self,
        partition: &Partition,
        look: impl FnOnce(&mut Log) -> T + Send + 'static,
    ) -> Option<T> {
        let (core, id) = (&self.core.core, partition.id);
        if partition.core == core.index {
            return core.with_log(id, look);
        }
        let handle = self.core.broker.cores.get(partition.core)?;
        handle.run(move |core| Box::pin(async move { core.with_log(id, look) })).await.ok().flatten()
    }

    /// The error of a read that failed, with a log line where somebody has to know.
    fn read_error(&self, error: &ReadError) -> ErrorCode {
        let code = match error {
            ReadError::OutOfRange(_) => return ErrorCode::OFFSET_OUT_OF_RANGE,
            ReadError::Deleted => return ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            // Not retriable for consumers: who asks again gets the same bytes.
            ReadError::Damaged { .. } => ErrorCode::CORRUPT_MESSAGE,
            ReadError::Io(_) => ErrorCode::KAFKA_STORAGE_ERROR,
        };
        if let Some(more) = self.damage_log.pass(self.core.core.env.monotonic()) {
            tracing::error!(%error, more, "a partition could not be read");
        }
        code
    }

    /// Logs a refusal of what the client got wrong: it may not say so itself. What ends by itself, such as a partition that is not
    /// there yet or a group that rebalances, is the client's to handle, and not logged.
    fn log_refusal(&self, context: &RequestContext, of: impl Display, code: ErrorCode, reason: Option<&str>) {
        if !is_bad_input(code) {
            return;
        }
        if let Some(more) = self.refusal_log.pass(self.core.core.env.monotonic()) {
            let (peer, client) = (context.connection.peer, one_line(context.client_id.as_deref().unwrap_or_default()));
            let (of, reason) = (one_line(of), one_line(reason.unwrap_or_default()));
            tracing::warn!(%peer, client, of, more, "{} refused with {code}: {reason}", context.api);
        }
    }
}

/// Whether a request that gets this error is wrong, whatever the broker's state.
fn is_bad_input(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CORRUPT_MESSAGE
            | ErrorCode::MESSAGE_TOO_LARGE
            | ErrorCode::RECORD_LIST_TOO_LARGE
            | ErrorCode::INVALID_RECORD
            | ErrorCode::INVALID_TIMESTAMP
            | ErrorCode::UNSUPPORTED_COMPRESSION_TYPE
            | ErrorCode::INVALID_REQUIRED_ACKS
            | ErrorCode::INVALID_TXN_STATE
            | ErrorCode::INVALID_TOPIC_EXCEPTION
            | ErrorCode::INVALID_PARTITIONS
            | ErrorCode::INVALID_REPLICATION_FACTOR
            | ErrorCode::INVALID_REPLICA_ASSIGNMENT
            | ErrorCode::INVALID_CONFIG
            | ErrorCode::INVALID_REQUEST
    )
}

impl Handler for Api {
    fn handle(self: Rc<Self>, context: RequestContext, body: Bytes) -> LocalBoxFuture<Outcome> {
        let ready = |outcome| -> LocalBoxFuture<Outcome> { Box::pin(std::future::ready(outcome)) };
        match context.api {
            ApiKey::Produce => {
                context.connection.home.carries_records();
                Box::pin(produce::handle(self, context, body))
            }
            ApiKey::Fetch => {
                context.connection.home.carries_records();
                Box::pin(fetch::handle(self, context, body))
            }
            ApiKey::ListOffsets => Box::pin(list_offsets::handle(self, context, body)),
            ApiKey::Metadata => Box::pin(metadata::handle(self, context, body)),
            ApiKey::OffsetCommit => Box::pin(offset_commit::handle(self, context, body)),
            ApiKey::OffsetFetch => Box::pin(offset_fetch::handle(self, context, body)),
            ApiKey::FindCoordinator => Box::pin(find_coordinator::handle(self, context, body)),
            ApiKey::JoinGroup => Box::pin(join_group::handle(self, context, body)),
            ApiKey::Heartbeat => Box::pin(heartbeat::handle(self, context, body)),
            ApiKey::LeaveGroup => Box::pin(leave_group::handle(self, context, body)),
            ApiKey::SyncGroup => Box::pin(sync_group::handle(self, context, body)),
            ApiKey::DescribeGroups => Box::pin(describe_groups::handle(self, context, body)),
            ApiKey::ListGroups => Box::pin(list_groups::handle(self, context, body)),
            ApiKey::ApiVersions => ready(api_versions::handle(&context, &body)),
            ApiKey::CreateTopics => Box::pin(create_topics::handle(self, context, body)),
            ApiKey::DeleteTopics => Box::pin(delete_topics::handle(self, context, body)),
            ApiKey::DeleteRecords => Box::pin(delete_records::handle(self, context, body)),
            ApiKey::InitProducerId => Box::pin(init_producer_id::handle(self, context, body)),
            ApiKey::OffsetForLeaderEpoch => Box::pin(offset_for_leader_epoch::handle(self, context, body)),
            ApiKey::DescribeConfigs => ready(describe_configs::handle(&self, &context, &body)),
            ApiKey::AlterConfigs => Box::pin(alter_configs::handle(self, context, body)),
            ApiKey::DescribeLogDirs => Box::pin(describe_log_dirs::handle(self, context, body)),
            ApiKey::CreatePartitions => Box::pin(create_partitions::handle(self, context, body)),
            ApiKey::DeleteGroups => Box::pin(delete_groups::handle(self, context, body)),
            ApiKey::IncrementalAlterConfigs => Box::pin(incremental_alter_configs::handle(self, context, body)),
            ApiKey::OffsetDelete => Box::pin(offset_delete::handle(self, context, body)),
            ApiKey::DescribeCluster => ready(describe_cluster::handle(&self, &context, &body)),
            ApiKey::DescribeProducers => Box::pin(describe_producers::handle(self, context, body)),
            ApiKey::ListConfigResources => ready(list_config_resources::handle(&self, &context, &body)),
            ApiKey::DescribeTopicPartitions => ready(describe_topic_partitions::handle(&self, &context, &body)),
            ApiKey::ConsumerGroupHeartbeat => Box::pin(consumer_group_heartbeat::handle(self, context, body)),
            ApiKey::ConsumerGroupDescribe => Box::pin(consumer_group_describe::handle(self, context, body)),
        }
    }
}

/// A request that is none. It closes its connection: where the next begins is known, what the peer means is not.
struct Malformed(String);

impl From<Malformed> for Outcome {
    fn from(malformed: Malformed) -> Self {
        Self::Close(malformed.0.into())
    }
}

/// Decodes a request.
fn decode<'a, M: Message<'a>>(context: &RequestContext, body: &'a [u8]) -> Result<M, Malformed> {
    M::decode(&mut Decoder::new(body), context.api_version)
        .map_err(|error| Malformed(format!("malformed {} request, version {}: {error}", context.api, context.api_version)))
}

/// The answer to a request, encoded in its version.
fn reply<'a>(context: &RequestContext, response: &impl Message<'a>) -> Outcome {
    Outcome::Reply(Response::encode(context, |encoder| response.encode(encoder, context.api_version)))
}

/// A client as the members of a group are known: its name for itself, and where it is, as Kafka writes that.
fn group_client(context: &RequestContext) -> (Name, Name) {
    let client_id = context.client_id.as_deref().unwrap_or_default();
    (client_id.into(), format!("/{}", context.connection.peer.ip().to_canonical()).into())
}

/// What a group answers, which may wait for its other members: not for longer than somebody is there to hear it. What was asked for
/// is done all the same.
async fn unless_gone(context: &RequestContext, asked: impl Future<Output = Answer>) -> Answer {
    let (mut asked, mut gone) = (pin!(asked), pin!(context.connection.gone.wait()));
    poll_fn(|cx| match asked.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(answer),
        Poll::Pending => gone.as_mut().poll(cx).map(|()| Err(ErrorCode::NOT_COORDINATOR)),
    })
    .await
}

/// Compares the leader epoch that a client believes in with the partition's (KIP-320); -1 believes in none.
fn check_leader_epoch(claimed: i32, current: LeaderEpoch) -> ErrorCode {
    match claimed {
        -1 => ErrorCode::NONE,
        _ if claimed < current.0 => ErrorCode::FENCED_LEADER_EPOCH,
        _ if claimed > current.0 => ErrorCode::UNKNOWN_LEADER_EPOCH,
        _ => ErrorCode::NONE,
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod epoch_tests {
    use super::*;

    #[test]
    fn a_client_with_another_epoch_is_told() {
        let check = |claimed| check_leader_epoch(claimed, LeaderEpoch(5));
        assert_eq!(check(-1), ErrorCode::NONE);
        assert_eq!(check(5), ErrorCode::NONE);
        assert_eq!(check(4), ErrorCode::FENCED_LEADER_EPOCH);
        assert_eq!(check(6), ErrorCode::UNKNOWN_LEADER_EPOCH);
    }
}
