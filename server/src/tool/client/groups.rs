//! What is asked about consumer groups: who coordinates one, what it has committed, and commits.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};

use ringlog_protocol::api::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use ringlog_protocol::api::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
};
use ringlog_protocol::api::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics, OffsetFetchResponse,
};
use ringlog_protocol::{ApiKey, ErrorCode};

use super::{Client, ClientError};

/// The newest versions of OffsetCommit and OffsetFetch that name topics; later ones take ids (KIP-848).
const VERSION_BY_NAME_MAX: i16 = 9;

/// Offsets by topic and partition.
pub(in crate::tool) type Offsets = BTreeMap<(String, i32), i64>;

/// Who commits: a member in a generation, or nobody in particular where the group is empty.
#[derive(Clone, Copy, Debug)]
pub(in crate::tool) struct Committer<'a> {
    /// The group.
    pub group: &'a str,
    /// Its generation; -1 for nobody in particular.
    pub generation: i32,
    /// The member's id; empty for nobody in particular.
    pub member: &'a str,
}

impl Client {
    /// Where a group's coordinator listens.
    ///
    /// # Errors
    /// The broker fails, or says no.
    pub(in crate::tool) fn coordinator(&mut self, group: &str) -> Result<SocketAddr, ClientError> {
        let request = |version| {
            let is_batched = version >= 4;
            FindCoordinatorRequest {
                key: if is_batched { "".into() } else { group.into() },
                key_type: 0,
                coordinator_keys: if is_batched { vec![group.into()] } else { Vec::new() },
            }
        };
        let answer = self.ask_any_in(i16::MAX, request)?;
        let response: FindCoordinatorResponse<'_> = answer.decode()?;
        let (code, message, host, port) = match response.coordinators.first() {
            Some(found) => (found.error_code, found.error_message.as_deref(), &*found.host, found.port),
            None => (response.error_code, response.error_message.as_deref(), &*response.host, response.port),
        };
        if !code.is_none() {
            return Err(ClientError::refused(ApiKey::FindCoordinator, format!("of group {group}"), code, message));
        }
        let wrong = |why: String| ClientError::Address { text: format!("{host}:{port}, as the coordinator's"), why };
        let number = u16::try_from(port).map_err(|_| wrong("no such port".to_owned()))?;
        let mut found = (host, number).to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
        found.next().ok_or_else(|| wrong("the name has no address".to_owned()))
    }

    /// What a group has committed: of these partitions, or of all. Partitions without a commit are missing.
    ///
    /// # Errors
    /// The coordinator fails, or says no.
    pub(in crate::tool) fn committed(
        &mut self,
        group: &str,
        partitions: Option<&[(String, i32)]>,
    ) -> Result<Offsets, ClientError> {
        let by_topic = partitions.map(|partitions| {
            let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
            for (topic, partition) in partitions {
                topics.entry(topic).or_default().push(*partition);
            }
            topics
        });
        let request = |version| {
            if version >= 8 {
                let topic = |(name, partitions): (&&str, &Vec<i32>)| OffsetFetchRequestTopics {
                    name: (*name).to_owned().into(),
                    partition_indexes: partitions.clone(),
                    ..Default::default()
                };
                let topics = by_topic.as_ref().map(|topics| topics.iter().map(topic).collect());
                let group = OffsetFetchRequestGroup { group_id: group.into(), topics, ..Default::default() };
                return OffsetFetchRequest { groups: vec![group], ..Default::default() };
            }
            let topic = |(name, partitions): (&&str, &Vec<i32>)| OffsetFetchRequestTopic {
                name: (*name).to_owned().into(),
                partition_indexes: partitions.clone(),
            };
            let topics = by_topic.as_ref().map(|topics| topics.iter().map(topic).collect());
            OffsetFetchRequest { group_id: group.into(), topics, ..Default::default() }
        };
        let address = self.coordinator(group)?;
        let answer = self.ask_in(address, VERSION_BY_NAME_MAX, request)?;
        let response: OffsetFetchResponse<'_> = answer.decode()?;
        let refused = |of: String, code| ClientError::refused(ApiKey::OffsetFetch, of, code, None);
        let mut offsets = Offsets::new();
        let mut take = |topic: &str, partition: i32, offset: i64, code: ErrorCode| match code {
            ErrorCode::NONE => {
                if offset >= 0 {
                    offsets.insert((topic.to_owned(), partition), offset);
                }
                Ok(())
            }
            code => Err(refused(format!("of partition {partition} of {topic}"), code)),
        };
        for found in &response.groups {
            if !found.error_code.is_none() {
                return Err(refused(format!("of group {group}"), found.error_code));
            }
            for topic in &found.topics {
                for p in &topic.partitions {
                    take(&topic.name, p.partition_index, p.committed_offset, p.error_code)?;
                }
            }
        }
        if !response.error_code.is_none() {
            return Err(refused(format!("of group {group}"), response.error_code));
        }
        for topic in &response.topics {
            for p in &topic.partitions {
                take(&topic.name, p.partition_index, p.committed_offset, p.error_code)?;
            }
        }
        Ok(offsets)
    }

    /// Commits offsets, all of one topic or none.
    ///
    /// # Errors
    /// The coordinator fails, or says no to one of them.
    pub(in crate::tool) fn commit(&mut self, who: Committer<'_>, offsets: &Offsets) -> Result<(), ClientError> {
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition<'_>>> = BTreeMap::new();
        for ((topic, partition), offset) in offsets {
            let partition = OffsetCommitRequestPartition {
                partition_index: *partition,
                committed_offset: *offset,
                committed_leader_epoch: -1,
                committed_metadata: Some("".into()),
            };
            topics.entry(topic).or_default().push(partition);
        }
        let request = |_| OffsetCommitRequest {
            group_id: who.group.into(),
            generation_id_or_member_epoch: who.generation,
            member_id: who.member.into(),
            topics: topics
                .iter()
                .map(|(name, partitions)| OffsetCommitRequestTopic {
                    name: (*name).into(),
                    partitions: partitions.clone(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        let address = self.coordinator(who.group)?;
        let answer = self.ask_in(address, VERSION_BY_NAME_MAX, request)?;
        let response: OffsetCommitResponse<'_> = answer.decode()?;
        for topic in &response.topics {
            for partition in &topic.partitions {
                if !partition.error_code.is_none() {
                    let of = format!("of partition {} of {} by group {}", partition.partition_index, topic.name, who.group);
                    return Err(ClientError::refused(ApiKey::OffsetCommit, of, partition.error_code, None));
                }
            }
        }
        Ok(())
    }
}
