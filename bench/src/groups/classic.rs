//! A member of a group of the classic protocol. The leader deals the partitions out in blocks, as Kafka's range assignor does with
//! one topic.

use std::borrow::Cow;
use std::time::Duration;

use ringlog_protocol::api::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use ringlog_protocol::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use ringlog_protocol::api::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity};
use ringlog_protocol::api::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};
use ringlog_protocol::consumer_protocol::{
    AssignedTopicPartition, ConsumerProtocolAssignment, ConsumerProtocolSubscription, PROTOCOL_TYPE,
};
use ringlog_protocol::{ApiKey, Encoder, ErrorCode, Payload};

use super::board::Board;
use super::check_group;
use crate::load::client::{ClientError, Connection};

/// What every client since Kafka 0.11 reads.
const PAYLOAD_VERSION: i16 = 1;
const ASSIGNOR: &str = "range";
/// From this version on a member is given its id first, with which it joins then (KIP-394).
const ID_FIRST_VERSION: i16 = 4;
/// How long an id is kept for whoever does not come back with it: as long the group waits for them, where Ctrl-C has cut them off.
const ID_KEPT_MAX: Duration = Duration::from_secs(10);

/// A member, which asks over whatever connection it is given.
#[derive(Debug)]
pub(super) struct Classic {
    pub group: String,
    topic: String,
    partitions: u32,
    session: Duration,
    id: String,
    generation: i32,
    is_in: bool,
    /// In what it says of itself: a member that says something new is one for whom the group rebalances.
    round: u32,
}

impl Classic {
    /// One that has not joined yet.
    pub(super) fn new(group: &str, topic: &str, partitions: u32, session: Duration) -> Self {
        Self {
            group: group.to_owned(),
            topic: topic.to_owned(),
            partitions,
            session,
            id: String::new(),
            generation: -1,
            is_in: false,
            round: 0,
        }
    }

    /// Joins again with its next step, and makes the others do so.
    pub(super) fn begin_again(&mut self) {
        self.is_in = false;
        self.round += 1;
    }

    /// Joins, or says that it is there; how many partitions it has where it was given some.
    pub(super) async fn step(
        &mut self,
        connection: &mut Connection,
        seat: usize,
        board: &Board,
    ) -> Result<Option<usize>, ClientError> {
        if self.is_in {
            match self.heartbeat(connection).await? {
                ErrorCode::REBALANCE_IN_PROGRESS => self.is_in = false,
                code => return check_group(ApiKey::Heartbeat, &self.group, code, None).map(|()| None),
            }
        }
        board.joins(seat);
        let Some(assignments) = self.join(connection).await? else { return Ok(None) };
        self.sync(connection, &assignments).await
    }

    /// Joins a generation; for the leader, what each member is to have. `None` where it has to ask again.
    async fn join(&mut self, connection: &mut Connection) -> Result<Option<Vec<(String, Vec<u8>)>>, ClientError> {
        let mut metadata = Encoder::new();
        let subscription = ConsumerProtocolSubscription {
            topics: vec![Cow::Borrowed(self.topic.as_str())],
            user_data: Some(Cow::Owned(self.round.to_be_bytes().to_vec())),
            ..Default::default()
        };
        subscription.encode(&mut metadata, PAYLOAD_VERSION);
        let asks_for_id = self.id.is_empty() && connection.versions.of(ApiKey::JoinGroup)? >= ID_FIRST_VERSION;
        let session = if asks_for_id { self.session.min(ID_KEPT_MAX) } else { self.session };
        let request = JoinGroupRequest {
            group_id: Cow::Borrowed(&self.group),
            session_timeout_ms: session.as_millis() as i32,
            rebalance_timeout_ms: 60_000,
            member_id: Cow::Borrowed(&self.id),
            protocol_type: PROTOCOL_TYPE.into(),
            protocols: vec![JoinGroupRequestProtocol { name: ASSIGNOR.into(), metadata: Cow::Borrowed(metadata.buffer()) }],
            ..Default::default()
        };
        let (code, id, generation, members) = connection
            .call(&request, |decoder, version| {
                let answer = JoinGroupResponse::decode(decoder, version)?;
                let is_leader = answer.leader == answer.member_id;
                let members: Vec<String> = answer.members.iter().map(|member| member.member_id.to_string()).collect();
                Ok((answer.error_code, answer.member_id.into_owned(), answer.generation_id, is_leader.then_some(members)))
            })
            .await?;
        match code {
            ErrorCode::MEMBER_ID_REQUIRED => {
                self.id = id;
                return Ok(None);
            }
            ErrorCode::REBALANCE_IN_PROGRESS => return Ok(None),
            // The id was not kept until now.
            ErrorCode::UNKNOWN_MEMBER_ID if self.generation < 0 && !self.id.is_empty() => {
                self.id.clear();
                return Ok(None);
            }
            code if code.is_retriable() => return Ok(None),
            code => check_group(ApiKey::JoinGroup, &self.group, code, None)?,
        }
        self.id = id;
        self.generation = generation;
        Ok(Some(members.map_or_else(Vec::new, |members| deal_out(&self.topic, self.partitions, members))))
    }

    /// Gets its partitions; `None` where the group rebalances again.
    async fn sync(
        &mut self,
        connection: &mut Connection,
        assignments: &[(String, Vec<u8>)],
    ) -> Result<Option<usize>, ClientError> {
        let of = |(member, assignment): &'_ (String, Vec<u8>)| SyncGroupRequestAssignment {
            member_id: Cow::Owned(member.clone()),
            assignment: Cow::Owned(assignment.clone()),
        };
        let request = SyncGroupRequest {
            group_id: Cow::Borrowed(&self.group),
            generation_id: self.generation,
            member_id: Cow::Borrowed(&self.id),
            protocol_type: Some(PROTOCOL_TYPE.into()),
            protocol_name: Some(ASSIGNOR.into()),
            assignments: assignments.iter().map(of).collect(),
            ..Default::default()
        };
        let answer = connection.call(&request, |decoder, version| {
            let answer = SyncGroupResponse::decode(decoder, version)?;
            if answer.error_code != ErrorCode::NONE {
                return Ok((answer.error_code, 0));
            }
            let assignment = ConsumerProtocolAssignment::from_assignment(&answer.assignment)?;
            Ok((ErrorCode::NONE, assignment.assigned_partitions.iter().map(|topic| topic.partitions.len()).sum()))
        });
        let (code, owned) = answer.await?;
        if code == ErrorCode::REBALANCE_IN_PROGRESS {
            return Ok(None);
        }
        check_group(ApiKey::SyncGroup, &self.group, code, None)?;
        self.is_in = true;
        Ok(Some(owned))
    }

    /// Says that it is there; what the broker says to that.
    pub(super) async fn heartbeat(&self, connection: &mut Connection) -> Result<ErrorCode, ClientError> {
        let request = HeartbeatRequest {
            group_id: Cow::Borrowed(&self.group),
            generation_id: self.generation,
            member_id: Cow::Borrowed(&self.id),
            ..Default::default()
        };
        connection.call(&request, |decoder, version| Ok(HeartbeatResponse::decode(decoder, version)?.error_code)).await
    }

    /// Says that it goes.
    pub(super) async fn leave(&self, connection: &mut Connection) -> Result<(), ClientError> {
        leave(connection, &self.group, vec![self.id.clone()]).await
    }

    /// Its id and generation, for its commits.
    pub(super) fn identity(&self) -> (&str, i32) {
        (&self.id, self.generation)
    }
}

/// Makes members leave a group.
///
/// # Errors
/// The broker fails, or says no.
pub(super) async fn leave(connection: &mut Connection, group: &str, ids: Vec<String>) -> Result<(), ClientError> {
    let version = connection.versions.of(ApiKey::LeaveGroup)?;
    let requests: Vec<LeaveGroupRequest<'_>> = if version >= 3 {
        let members = ids.into_iter().map(|id| MemberIdentity { member_id: id.into(), ..Default::default() }).collect();
        vec![LeaveGroupRequest { group_id: group.into(), members, ..Default::default() }]
    } else {
        let one = |id: String| LeaveGroupRequest { group_id: group.into(), member_id: id.into(), ..Default::default() };
        ids.into_iter().map(one).collect()
    };
    for request in requests {
        let answer = connection.call(&request, |decoder, version| {
            let answer = LeaveGroupResponse::decode(decoder, version)?;
            let of_members = answer.members.iter().map(|member| member.error_code);
            Ok(std::iter::once(answer.error_code).chain(of_members).find(|code| !code.is_none()).unwrap_or_default())
        });
        check_group(ApiKey::LeaveGroup, group, answer.await?, None)?;
    }
    Ok(())
}

/// What the leader gives to each member: a block of the partitions, the first ones one more where they do not divide.
fn deal_out(topic: &str, partitions: u32, mut members: Vec<String>) -> Vec<(String, Vec<u8>)> {
    members.sort_unstable();
    let (least, more) = (partitions as usize / members.len().max(1), partitions as usize % members.len().max(1));
    let mut next = 0;
    let mut deal = |(at, member): (usize, String)| {
        let count = least + usize::from(at < more);
        let partitions = (next..next + count).map(|partition| partition as i32).collect();
        next += count;
        let assigned = AssignedTopicPartition { topic: topic.into(), partitions };
        let mut encoder = Encoder::new();
        let assignment = ConsumerProtocolAssignment { assigned_partitions: vec![assigned], ..Default::default() };
        assignment.encode(&mut encoder, PAYLOAD_VERSION);
        (member, encoder.into_buffer())
    };
    members.into_iter().enumerate().map(&mut deal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_is_dealt_out_once() {
        let dealt = deal_out("t", 10, ["c", "a", "b"].map(str::to_owned).to_vec());
        let read =
            |bytes: &[u8]| ConsumerProtocolAssignment::from_assignment(bytes).unwrap().assigned_partitions[0].partitions.clone();
        let dealt: Vec<_> = dealt.iter().map(|(member, bytes)| (member.as_str(), read(bytes))).collect();
        assert_eq!(dealt, [("a", vec![0, 1, 2, 3]), ("b", vec![4, 5, 6]), ("c", vec![7, 8, 9])]);
        assert!(deal_out("t", 10, Vec::new()).is_empty());
    }
}
