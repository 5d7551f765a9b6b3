//! A member of a group of the protocol "consumer" (KIP-848), which the broker deals the partitions out to. What it is told to give
//! up it gives up at once, and says so with its next heartbeat.

use std::borrow::Cow;

use ringlog_protocol::api::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use ringlog_protocol::{ApiKey, ErrorCode, Uuid};

use super::board::Board;
use super::check_group;
use crate::load::client::{ClientError, Connection};

/// A member that joins.
const EPOCH_JOIN: i32 = 0;
/// A member that goes.
const EPOCH_LEAVE: i32 = -1;

/// A member, which asks over whatever connection it is given.
#[derive(Debug)]
pub(super) struct Consumer {
    pub group: String,
    topic: String,
    id: String,
    epoch: i32,
    owned: Vec<(Uuid, Vec<i32>)>,
    /// Whether the broker has to be told what we own.
    is_new: bool,
    /// How often the broker wants to hear from it.
    pub interval_ms: i32,
}

impl Consumer {
    /// One that has not joined yet.
    pub(super) fn new(group: &str, topic: &str) -> Self {
        Self {
            group: group.to_owned(),
            topic: topic.to_owned(),
            id: uuid::Uuid::new_v4().to_string(),
            epoch: EPOCH_JOIN,
            owned: Vec::new(),
            is_new: true,
            interval_ms: 0,
        }
    }

    /// Goes, to join again as a member that is new with its next step.
    pub(super) async fn begin_again(&mut self, connection: &mut Connection) -> Result<(), ClientError> {
        self.leave(connection).await?;
        self.id = uuid::Uuid::new_v4().to_string();
        self.epoch = EPOCH_JOIN;
        self.owned.clear();
        self.is_new = true;
        Ok(())
    }

    /// Joins, or says that it is there; how many partitions it has where it was given others.
    pub(super) async fn step(
        &mut self,
        connection: &mut Connection,
        seat: usize,
        board: &Board,
    ) -> Result<Option<usize>, ClientError> {
        if self.epoch == EPOCH_JOIN {
            board.joins(seat);
        }
        let code = self.heartbeat(connection).await?;
        if code.is_retriable() {
            return Ok(None);
        }
        check_group(ApiKey::ConsumerGroupHeartbeat, &self.group, code, None)?;
        Ok(self.is_new.then(|| self.owned.iter().map(|(_, partitions)| partitions.len()).sum()))
    }

    /// Says that it is there, and takes what it is given; what the broker says to that.
    pub(super) async fn heartbeat(&mut self, connection: &mut Connection) -> Result<ErrorCode, ClientError> {
        let (joins, is_new) = (self.epoch == EPOCH_JOIN, self.is_new);
        let owned =
            |(topic_id, partitions): &(Uuid, Vec<i32>)| TopicPartitions { topic_id: *topic_id, partitions: partitions.clone() };
        let request = ConsumerGroupHeartbeatRequest {
            group_id: Cow::Borrowed(&self.group),
            member_id: Cow::Borrowed(&self.id),
            member_epoch: self.epoch,
            rebalance_timeout_ms: if joins { 60_000 } else { -1 },
            subscribed_topic_names: joins.then(|| vec![Cow::Borrowed(self.topic.as_str())]),
            topic_partitions: is_new.then(|| self.owned.iter().map(owned).collect()),
            ..Default::default()
        };
        let answer = connection.call(&request, |decoder, version| {
            let answer = ConsumerGroupHeartbeatResponse::decode(decoder, version)?;
            let owned = answer.assignment.map(|assignment| {
                assignment.topic_partitions.into_iter().map(|topic| (topic.topic_id, topic.partitions)).collect::<Vec<_>>()
            });
            let id = answer.member_id.map(Cow::into_owned);
            Ok((answer.error_code, answer.member_epoch, answer.heartbeat_interval_ms, owned, id))
        });
        let (code, epoch, interval_ms, owned, id) = answer.await?;
        if code.is_none() {
            self.epoch = epoch;
            self.interval_ms = interval_ms;
            self.id = id.unwrap_or_else(|| std::mem::take(&mut self.id));
            self.is_new = owned.is_some();
            self.owned = owned.unwrap_or_else(|| std::mem::take(&mut self.owned));
        }
        Ok(code)
    }

    /// Says that it goes.
    pub(super) async fn leave(&self, connection: &mut Connection) -> Result<(), ClientError> {
        leave(connection, &self.group, &self.id).await
    }

    /// Its id and epoch, for its commits.
    pub(super) fn identity(&self) -> (&str, i32) {
        (&self.id, self.epoch)
    }
}

/// Makes a member leave a group.
///
/// # Errors
/// The broker fails, or says no.
pub(super) async fn leave(connection: &mut Connection, group: &str, id: &str) -> Result<(), ClientError> {
    let request = ConsumerGroupHeartbeatRequest {
        group_id: group.into(),
        member_id: id.into(),
        member_epoch: EPOCH_LEAVE,
        rebalance_timeout_ms: -1,
        ..Default::default()
    };
    let answer = connection.call(&request, |decoder, version| {
        let answer = ConsumerGroupHeartbeatResponse::decode(decoder, version)?;
        Ok((answer.error_code, answer.error_message.map(Cow::into_owned)))
    });
    let (code, words) = answer.await?;
    check_group(ApiKey::ConsumerGroupHeartbeat, group, code, words.as_deref())
}
