//! A member of a consumer group (the classic protocol): joins, gets its share, says that it is alive, leaves. Used by
//! [`super::consume`]. It never commits by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use ringlog_protocol::api::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use ringlog_protocol::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use ringlog_protocol::api::leave_group::{LeaveGroupRequest, MemberIdentity};
use ringlog_protocol::api::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};
use ringlog_protocol::consumer_protocol::{
    AssignedTopicPartition, ConsumerProtocolAssignment, ConsumerProtocolSubscription, PROTOCOL_TYPE,
};
use ringlog_protocol::{ApiKey, DecodeError, Encoder, ErrorCode, Payload};

use super::client::{Client, ClientError, Committer};

/// How long we may be silent before the group goes on without us, and how often we are not.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);
/// How long the others may wait for us when the group forms anew, and we for them: Java's members take up to five minutes.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(60);
const JOIN_TIMEOUT: Duration = Duration::from_secs(310);
/// Between two tries to join.
const PAUSE: Duration = Duration::from_millis(100);
/// The assignor that every client has.
const ASSIGNOR: &str = "range";
/// The version of subscriptions and assignments that we write: topics and partitions, which is all that is needed.
const PAYLOAD_VERSION: i16 = 0;

/// A membership.
#[derive(Debug)]
pub(super) struct Member {
    group: String,
    topics: Vec<String>,
    coordinator: SocketAddr,
    id: String,
    generation: i32,
    heard_at: Instant,
    /// Our share, in order.
    assigned: Vec<(String, i32)>,
}

impl Member {
    /// Joins a group for these topics.
    ///
    /// # Errors
    /// The coordinator fails, or says no.
    pub(super) fn join(client: &mut Client, group: &str, topics: &[String]) -> Result<Self, ClientError> {
        let coordinator = client.retry(|client| client.coordinator(group))?;
        let mut member = Self {
            group: group.to_owned(),
            topics: topics.to_vec(),
            coordinator,
            id: String::new(),
            generation: -1,
            heard_at: Instant::now(),
            assigned: Vec::new(),
        };
        member.rejoin(client)?;
        Ok(member)
    }

    /// Our share of the partitions.
    pub(super) fn assigned(&self) -> &[(String, i32)] {
        &self.assigned
    }

    /// Us, as commits name us.
    pub(super) fn committer(&self) -> Committer<'_> {
        Committer { group: &self.group, generation: self.generation, member: &self.id }
    }

    /// Whether we are to say that we are alive.
    pub(super) fn is_heartbeat_due(&self) -> bool {
        self.heard_at.elapsed() >= HEARTBEAT_INTERVAL
    }

    /// Says that we are alive, if that is due. `false`: the group forms anew, and [`Self::rejoin`] is next.
    ///
    /// # Errors
    /// The coordinator says no for good.
    pub(super) fn heartbeat(&mut self, client: &mut Client) -> Result<bool, ClientError> {
        if !self.is_heartbeat_due() {
            return Ok(true);
        }
        let request = HeartbeatRequest {
            group_id: self.group.as_str().into(),
            generation_id: self.generation,
            member_id: self.id.as_str().into(),
            group_instance_id: None,
        };
        let code = client.ask(self.coordinator, &request).and_then(|answer| Ok(answer.decode::<HeartbeatResponse>()?.error_code));
        match code {
            Ok(ErrorCode::NONE) => {
                self.heard_at = Instant::now();
                Ok(true)
            }
            Ok(code) if is_to_rejoin(code) || code.is_retriable() => Ok(false),
            Ok(code) => Err(ClientError::refused(ApiKey::Heartbeat, format!("of group {}", self.group), code, None)),
            Err(error) if error.is_retriable() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Joins the group that forms anew, until that goes well.
    ///
    /// # Errors
    /// The coordinator fails, or says no for good.
    pub(super) fn rejoin(&mut self, client: &mut Client) -> Result<(), ClientError> {
        // Joining may take long and go well, so only failures are counted.
        let mut until = None;
        loop {
            match self.join_once(client) {
                Ok(true) => return Ok(()),
                Ok(false) => until = None,
                Err(error) if error.is_retriable() => {
                    if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + client.timeout()) {
                        return Err(error);
                    }
                    thread::sleep(PAUSE);
                    // Another broker may coordinate by now.
                    if let Ok(coordinator) = client.coordinator(&self.group) {
                        self.coordinator = coordinator;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Joins and takes our share. `false`: once more, at once.
    fn join_once(&mut self, client: &mut Client) -> Result<bool, ClientError> {
        let refused = |api, code| ClientError::refused(api, format!("of group {}", self.group), code, None);
        let subscription = encoded(&ConsumerProtocolSubscription {
            topics: self.topics.iter().map(|topic| topic.as_str().into()).collect(),
            ..Default::default()
        });
        let request = JoinGroupRequest {
            group_id: self.group.as_str().into(),
            session_timeout_ms: SESSION_TIMEOUT.as_millis() as i32,
            rebalance_timeout_ms: REBALANCE_TIMEOUT.as_millis() as i32,
            member_id: self.id.as_str().into(),
            group_instance_id: None,
            protocol_type: PROTOCOL_TYPE.into(),
            protocols: vec![JoinGroupRequestProtocol { name: ASSIGNOR.into(), metadata: subscription.into() }],
            reason: None,
        };
        let answer = client.ask_patiently(self.coordinator, JOIN_TIMEOUT, &request)?;
        let joined: JoinGroupResponse<'_> = answer.decode()?;
        match joined.error_code {
            ErrorCode::NONE => {}
            ErrorCode::MEMBER_ID_REQUIRED => {
                self.id = joined.member_id.into_owned();
                return Ok(false);
            }
            ErrorCode::UNKNOWN_MEMBER_ID => {
                self.id.clear();
                return Ok(false);
            }
            code => return Err(refused(ApiKey::JoinGroup, code)),
        }
        let (id, generation) = (joined.member_id.to_string(), joined.generation_id);
        let assignments = if joined.leader == joined.member_id && !joined.skip_assignment {
            shares(client, &joined).map_err(|error| match error {
                ShareError::Client(error) => error,
                ShareError::Subscription(error) => ClientError::Nonsense {
                    address: self.coordinator,
                    api: ApiKey::JoinGroup,
                    why: format!("a member's subscription: {error}"),
                },
            })?
        } else {
            Vec::new()
        };
        let request = SyncGroupRequest {
            group_id: self.group.as_str().into(),
            generation_id: generation,
            member_id: id.as_str().into(),
            group_instance_id: None,
            protocol_type: Some(PROTOCOL_TYPE.into()),
            protocol_name: Some(ASSIGNOR.into()),
            assignments: assignments
                .iter()
                .map(|(member, share)| SyncGroupRequestAssignment { member_id: member.as_str().into(), assignment: share.into() })
                .collect(),
        };
        let answer = client.ask_patiently(self.coordinator, JOIN_TIMEOUT, &request)?;
        let synced: SyncGroupResponse<'_> = answer.decode()?;
        match synced.error_code {
            ErrorCode::NONE => {}
            code if is_to_rejoin(code) => {
                self.id = if code == ErrorCode::UNKNOWN_MEMBER_ID { String::new() } else { id };
                return Ok(false);
            }
            code => return Err(refused(ApiKey::SyncGroup, code)),
        }
        let nonsense =
            |why: DecodeError| ClientError::Nonsense { address: self.coordinator, api: ApiKey::SyncGroup, why: why.to_string() };
        let share = match synced.assignment.is_empty() {
            true => ConsumerProtocolAssignment::default(),
            false => ConsumerProtocolAssignment::from_assignment(&synced.assignment).map_err(nonsense)?,
        };
        let mut assigned: Vec<_> = share
            .assigned_partitions
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic.to_string(), *partition)))
            .collect();
        assigned.sort_unstable();
        (self.id, self.generation, self.assigned, self.heard_at) = (id, generation, assigned, Instant::now());
        Ok(true)
    }

    /// Leaves, so that the others need not wait for our silence to be noticed.
    ///
    /// # Errors
    /// The coordinator fails; the group goes on without us all the same, a little later.
    pub(super) fn leave(self, client: &mut Client) -> Result<(), ClientError> {
        let request = |version| {
            if version >= 3 {
                let us = MemberIdentity { member_id: self.id.as_str().into(), group_instance_id: None, reason: None };
                LeaveGroupRequest { group_id: self.group.as_str().into(), members: vec![us], ..Default::default() }
            } else {
                LeaveGroupRequest {
                    group_id: self.group.as_str().into(),
                    member_id: self.id.as_str().into(),
                    ..Default::default()
                }
            }
        };
        client.ask_in(self.coordinator, i16::MAX, request).map(drop)
    }
}

/// Whether a member joins anew at this code.
pub(super) fn is_to_rejoin(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::REBALANCE_IN_PROGRESS | ErrorCode::ILLEGAL_GENERATION | ErrorCode::UNKNOWN_MEMBER_ID)
}

/// Why a leader cannot deal out.
enum ShareError {
    Client(ClientError),
    Subscription(DecodeError),
}

/// What each member gets, for the leader to tell: each topic's partitions in order, in equal runs, the first members one more
/// (Kafka's range assignor).
fn shares(client: &mut Client, joined: &JoinGroupResponse<'_>) -> Result<Vec<(String, Vec<u8>)>, ShareError> {
    let mut subscribers: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for member in &joined.members {
        let wants = ConsumerProtocolSubscription::from_metadata(&member.metadata).map_err(ShareError::Subscription)?;
        for topic in &wants.topics {
            subscribers.entry(topic.to_string()).or_default().insert(&member.member_id);
        }
    }
    let names: Vec<_> = subscribers.keys().map(String::as_str).collect();
    let cluster = client.retry(|client| client.cluster(Some(&names))).map_err(ShareError::Client)?;
    let mut shares: BTreeMap<&str, Vec<AssignedTopicPartition<'_>>> =
        joined.members.iter().map(|member| (&*member.member_id, Vec::new())).collect();
    for (name, members) in &subscribers {
        let Some(topic) = cluster.topics.get(name) else { continue };
        let partitions: Vec<_> = topic.partitions.iter().map(|partition| partition.index).collect();
        for (member, run) in members.iter().zip(ranges(partitions.len(), members.len())) {
            if let Some(share) = shares.get_mut(member).filter(|_| !run.is_empty()) {
                share.push(AssignedTopicPartition { topic: name.as_str().into(), partitions: partitions[run].to_vec() });
            }
        }
    }
    let share = |(member, assigned_partitions): (&str, Vec<AssignedTopicPartition<'_>>)| {
        (member.to_owned(), encoded(&ConsumerProtocolAssignment { assigned_partitions, ..Default::default() }))
    };
    Ok(shares.into_iter().map(share).collect())
}

/// `count` things in `members` runs, the first ones one longer where they do not come out even.
fn ranges(count: usize, members: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let (each, more) = (count / members.max(1), count % members.max(1));
    (0..members).map(move |at| {
        let start = at * each + at.min(more);
        start..start + each + usize::from(at < more)
    })
}

fn encoded<'a>(payload: &impl Payload<'a>) -> Vec<u8> {
    let mut encoder = Encoder::new();
    payload.encode(&mut encoder, PAYLOAD_VERSION);
    encoder.buffer().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_everything_once_and_differ_by_one_at_most() {
        for count in 0..20 {
            for members in 1..8 {
                let ranges: Vec<_> = ranges(count, members).collect();
                assert_eq!(ranges.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
                let lengths: Vec<_> = ranges.iter().map(ExactSizeIterator::len).collect();
                assert!(lengths.is_sorted_by(|a, b| a >= b) && lengths[0] - lengths[members - 1] <= 1, "{lengths:?}");
            }
        }
    }
}
