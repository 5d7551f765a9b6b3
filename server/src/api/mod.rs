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
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use bytes::Bytes;
use ringlog_engine::core::Partition;
use ringlog_engine::log::Log;
use ringlog_engine::log::read::ReadError;
use ringlog_engine::types::LeaderEpoch;
use ringlog_protocol::{ApiKey, Decoder, ErrorCode, Message};

use crate::broker::{BrokerCore, Topics};
use crate::group::{Answer, Name, Request};
use crate::net::{Handler, LocalBoxFuture, Outcome, RequestContext, Response};
use outbox::Outbox;

/// The handlers of one core's connections.
pub struct Api {
    /// The broker, as this core sees it.
    core: Rc<BrokerCore>,
    /// The way to the other cores.
    outbox: Outbox,
    /// When the last damaged partition was logged, and how many were not since.
    damage_logged: Cell<(Option<Duration>, u64)>,
    /// When somebody last looked for a coordinator and the topic of the groups could not be made in time.
    offsets_topic_missed: Cell<Option<Duration>>,
}

/// How often damaged or unreadable partitions are logged at most: clients ask again and again.
const DAMAGE_LOG_INTERVAL: Duration = Duration::from_secs(10);

impl Api {
    /// The handlers of a core.
    #[must_use]
    pub fn new(core: Rc<BrokerCore>) -> Rc<Self> {
        let outbox = Outbox::new(&core.broker.cores, core.core.env.clone());
        Rc::new(Self { core, outbox, damage_logged: Cell::new((None, 0)), offsets_topic_missed: Cell::new(None) })
    }

    fn topics(&self) -> Guard<Arc<Topics>> {
        self.core.broker.topics.load()
    }

    /// Hands what a member of a group says to the group's coordinator. Its connection belongs there then.
    fn ask_as_member(&self, context: &RequestContext, group: &str, request: Request) -> impl Future<Output = Answer> + use<> {
        let topics = self.topics();
        let groups = &self.core.broker.groups;
        if let Some(core) = groups.core_of(&topics, group) {
            context.connection.home.is_of_group_on(core);
        }
        groups.ask(&topics, group, request)
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
        let (logged, missed) = self.damage_logged.get();
        let now = self.core.core.env.monotonic();
        if logged.is_none_or(|at| now.saturating_sub(at) >= DAMAGE_LOG_INTERVAL) {
            self.damage_logged.set((Some(now), 0));
            tracing::error!(%error, reads_not_logged = missed, "a partition could not be read");
        } else {
            self.damage_logged.set((logged, missed + 1));
        }
        code
    }
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
