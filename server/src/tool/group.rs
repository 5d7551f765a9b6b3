//! `ringlog group`: consumer groups listed, described with their lag, reset, deleted.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringlog_protocol::api::consumer_group_describe::{self, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
use ringlog_protocol::api::delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse};
use ringlog_protocol::api::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
use ringlog_protocol::api::list_groups::{ListGroupsRequest, ListGroupsResponse};
use ringlog_protocol::consumer_protocol::{ConsumerProtocolAssignment, PROTOCOL_TYPE};
use ringlog_protocol::{ApiKey, ErrorCode};
use serde::Serialize;

use super::args::{From, GroupCommand, Target};
use super::client::{Client, ClientError, Cluster, Committer, Offsets};
use super::{ToolError, offsets, output};

#[derive(Serialize)]
struct Listed {
    group: String,
    state: String,
    #[serde(rename = "type")]
    kind: String,
    protocol_type: String,
    coordinator: i32,
}

#[derive(Serialize)]
struct Described {
    group: String,
    state: String,
    assignor: String,
    members: Vec<Member>,
    partitions: Vec<Partition>,
}

#[derive(Serialize)]
struct Member {
    member: String,
    instance: Option<String>,
    client: String,
    host: String,
    assigned: Vec<(String, i32)>,
}

#[derive(Serialize)]
struct Partition {
    topic: String,
    partition: i32,
    committed_offset: Option<i64>,
    end_offset: Option<i64>,
    lag: Option<i64>,
    member: Option<String>,
}

#[derive(Serialize)]
struct Moved {
    topic: String,
    partition: i32,
    committed_offset: Option<i64>,
    new_offset: i64,
}

pub(super) fn run(command: GroupCommand) -> Result<(), ToolError> {
    match command {
        GroupCommand::List { target } => list(&target),
        GroupCommand::Describe { groups, target } => describe(&groups, &target),
        GroupCommand::Reset { group, topics, to, yes, target } => reset(&group, &topics, to, yes, &target),
        GroupCommand::Delete { groups, yes, target } => delete(&groups, yes, &target),
    }
}

fn list(target: &Target) -> Result<(), ToolError> {
    let mut client = target.client()?;
    let cluster = client.cluster(Some(&[]))?;
    let mut groups = Vec::new();
    for &id in cluster.brokers.keys() {
        let address = cluster.address(id)?;
        let found = client.retry(|client| {
            let answer = client.ask(address, &ListGroupsRequest::default())?;
            let response: ListGroupsResponse<'_> = answer.decode()?;
            if !response.error_code.is_none() {
                return Err(ClientError::refused(ApiKey::ListGroups, "", response.error_code, None));
            }
            let listed = |group: &ringlog_protocol::api::list_groups::ListedGroup<'_>| Listed {
                group: group.group_id.to_string(),
                state: group.group_state.to_string(),
                kind: group.group_type.to_string(),
                protocol_type: group.protocol_type.to_string(),
                coordinator: id,
            };
            Ok(response.groups.iter().map(listed).collect::<Vec<_>>())
        })?;
        groups.extend(found);
    }
    groups.sort_unstable_by(|a, b| a.group.cmp(&b.group));
    if groups.is_empty() && !target.json {
        return output::print("There are no groups; `ringlog consume TOPIC --group NAME` makes one.");
    }
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    output::list(target.json, &groups, &["GROUP", "STATE", "TYPE", "COORDINATOR"], |group| {
        vec![group.group.clone(), dash(&group.state), dash(&group.kind), group.coordinator.to_string()]
    })
}

fn describe(groups: &[String], target: &Target) -> Result<(), ToolError> {
    let mut client = target.client()?;
    let described: Vec<_> = groups.iter().map(|group| described(&mut client, group)).collect::<Result<_, _>>()?;
    if target.json {
        return output::object(&described);
    }
    for (at, group) in described.iter().enumerate() {
        if at > 0 {
            output::print("")?;
        }
        let lag: i64 = group.partitions.iter().filter_map(|partition| partition.lag).sum();
        let (members, assignor) = (group.members.len(), &group.assignor);
        let by = if assignor.is_empty() { String::new() } else { format!(", assigned by {assignor}") };
        output::print(&format!("{}: {}, {members} members{by}, lag {lag}", group.group, group.state))?;
        let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let of = |id: &Option<String>| {
            let member = id.as_ref().and_then(|id| group.members.iter().find(|member| member.member == *id));
            member.map_or_else(|| "-".to_owned(), |member| format!("{} ({})", member.member, member.host))
        };
        let row = |partition: &Partition| {
            vec![
                partition.topic.clone(),
                partition.partition.to_string(),
                number(partition.committed_offset),
                number(partition.end_offset),
                number(partition.lag),
                of(&partition.member),
            ]
        };
        let headers = ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER"];
        output::print(&output::table(&headers, group.partitions.iter().map(row)))?;
    }
    Ok(())
}

fn described(client: &mut Client, name: &str) -> Result<Described, ClientError> {
    let mut described = client.retry(|client| members(client, name))?;
    let committed = client.retry(|client| client.committed(name, None))?;
    let mut owners = BTreeMap::new();
    for member in &described.members {
        owners.extend(member.assigned.iter().map(|partition| (partition.clone(), member.member.clone())));
    }
    let mut partitions: Vec<_> = committed.keys().chain(owners.keys()).cloned().collect();
    partitions.sort_unstable();
    partitions.dedup();
    let ends = ends(client, &partitions)?;
    described.partitions = partitions
        .into_iter()
        .map(|partition| {
            let (committed, end) = (committed.get(&partition).copied(), ends.get(&partition).copied());
            let lag = committed.zip(end).map(|(committed, end)| (end - committed).max(0));
            let member = owners.get(&partition).cloned();
            let (topic, partition) = partition;
            Partition { topic, partition, committed_offset: committed, end_offset: end, lag, member }
        })
        .collect();
    Ok(described)
}

/// A group's state and members, its partitions not yet looked up.
fn members(client: &mut Client, name: &str) -> Result<Described, ClientError> {
    let coordinator = client.coordinator(name)?;
    let request = DescribeGroupsRequest { groups: vec![name.into()], ..Default::default() };
    let answer = client.ask(coordinator, &request)?;
    let response: DescribeGroupsResponse<'_> = answer.decode()?;
    let refused = |code, message| ClientError::refused(ApiKey::DescribeGroups, format!("of group {name}"), code, message);
    let Some(group) = response.groups.first() else { return Err(refused(ErrorCode::GROUP_ID_NOT_FOUND, None)) };
    // What is not a classic group is "dead" to this request, and from version 6 on not found.
    if !group.error_code.is_none() && group.error_code != ErrorCode::GROUP_ID_NOT_FOUND {
        return Err(refused(group.error_code, group.error_message.as_deref()));
    }
    if group.group_state == "Dead" {
        if let Some(found) = consumers(client, coordinator, name)? {
            return Ok(found);
        }
        return Err(refused(ErrorCode::GROUP_ID_NOT_FOUND, Some("`ringlog group list` shows those there are")));
    }
    let member = |member: &ringlog_protocol::api::describe_groups::DescribedGroupMember<'_>| Member {
        member: member.member_id.to_string(),
        instance: member.group_instance_id.as_deref().map(str::to_owned),
        client: member.client_id.to_string(),
        host: member.client_host.trim_start_matches('/').to_owned(),
        assigned: if group.protocol_type == PROTOCOL_TYPE { assigned(&member.member_assignment) } else { Vec::new() },
    };
    Ok(Described {
        group: name.to_owned(),
        state: group.group_state.to_string(),
        assignor: group.protocol_data.to_string(),
        members: group.members.iter().map(member).collect(),
        partitions: Vec::new(),
    })
}

/// The same of a group of the new protocol (KIP-848), if it is one and the broker knows that protocol.
fn consumers(client: &mut Client, coordinator: SocketAddr, name: &str) -> Result<Option<Described>, ClientError> {
    let request = ConsumerGroupDescribeRequest { group_ids: vec![name.into()], ..Default::default() };
    let answer = match client.ask(coordinator, &request) {
        Err(ClientError::Unfit { .. }) => return Ok(None),
        answer => answer?,
    };
    let response: ConsumerGroupDescribeResponse<'_> = answer.decode()?;
    let Some(group) = response.groups.first().filter(|group| group.error_code != ErrorCode::GROUP_ID_NOT_FOUND) else {
        return Ok(None);
    };
    if !group.error_code.is_none() {
        let message = group.error_message.as_deref();
        return Err(ClientError::refused(ApiKey::ConsumerGroupDescribe, format!("of group {name}"), group.error_code, message));
    }
    let topic = |topic: &consumer_group_describe::TopicPartitions<'_>| {
        let name = topic.topic_name.to_string();
        topic.partitions.iter().map(|partition| (name.clone(), *partition)).collect::<Vec<_>>()
    };
    let member = |member: &consumer_group_describe::Member<'_>| Member {
        member: member.member_id.to_string(),
        instance: member.instance_id.as_deref().map(str::to_owned),
        client: member.client_id.to_string(),
        host: member.client_host.trim_start_matches('/').to_owned(),
        assigned: member.assignment.topic_partitions.iter().flat_map(topic).collect(),
    };
    Ok(Some(Described {
        group: name.to_owned(),
        state: group.group_state.to_string(),
        assignor: group.assignor_name.to_string(),
        members: group.members.iter().map(member).collect(),
        partitions: Vec::new(),
    }))
}

/// What a member holds. What cannot be read is not shown: it is the members' own, and theirs may be another format.
fn assigned(bytes: &[u8]) -> Vec<(String, i32)> {
    let Ok(assignment) = ConsumerProtocolAssignment::from_assignment(bytes) else { return Vec::new() };
    let partitions = |topic: &ringlog_protocol::consumer_protocol::AssignedTopicPartition<'_>| {
        let name = topic.topic.to_string();
        topic.partitions.iter().map(|partition| (name.clone(), *partition)).collect::<Vec<_>>()
    };
    assignment.assigned_partitions.iter().flat_map(partitions).collect()
}

/// Where the logs of partitions end. Those of topics that are gone are missing.
fn ends(client: &mut Client, partitions: &[(String, i32)]) -> Result<Offsets, ClientError> {
    let names: Vec<_> = topics_of(partitions);
    let cluster = client.retry(|client| client.cluster(Some(&names)))?;
    let mut ends = Offsets::new();
    for name in names {
        let Some(topic) = cluster.topics.get(name) else { continue };
        let wanted: Vec<_> =
            topic.partitions.iter().filter(|p| partitions.contains(&(name.to_owned(), p.index))).cloned().collect();
        let found = client.retry(|client| offsets::list(client, &cluster, name, &wanted, offsets::LATEST))?;
        ends.extend(found.into_iter().filter_map(|(partition, end)| Some(((name.to_owned(), partition), end?))));
    }
    Ok(ends)
}

fn topics_of(partitions: &[(String, i32)]) -> Vec<&str> {
    let mut names: Vec<_> = partitions.iter().map(|(topic, _)| topic.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn reset(group: &str, topics: &[String], to: From, yes: bool, target: &Target) -> Result<(), ToolError> {
    let mut client = target.client()?;
    let committed = client.retry(|client| client.committed(group, None))?;
    let known: Vec<_> = committed.keys().cloned().collect();
    let names = if topics.is_empty() { topics_of(&known) } else { topics.iter().map(String::as_str).collect() };
    if names.is_empty() {
        return Err(ToolError::Usage(format!("group {group} has committed nothing; name the topics with --topic")));
    }
    let cluster = client.retry(|client| client.cluster(Some(&names)))?;
    let mut moved = Vec::new();
    for name in names {
        for (partition, new_offset) in places(&mut client, &cluster, name, to)? {
            let committed_offset = committed.get(&(name.to_owned(), partition)).copied();
            moved.push(Moved { topic: name.to_owned(), partition, committed_offset, new_offset });
        }
    }
    let row = |moved: &Moved| {
        let before = moved.committed_offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        vec![moved.topic.clone(), moved.partition.to_string(), before, moved.new_offset.to_string()]
    };
    let plan = output::table(&["TOPIC", "PARTITION", "COMMITTED", "NEW"], moved.iter().map(row));
    match (target.json, yes) {
        (false, _) => output::print(&plan)?,
        // Whoever is asked has to know what for, and standard output is for what was done.
        (true, false) => eprintln!("{plan}"),
        (true, true) => {}
    }
    output::confirm(&format!("This moves group {group} to the new offsets"), yes)?;
    let offsets = moved.iter().map(|moved| ((moved.topic.clone(), moved.partition), moved.new_offset)).collect();
    let nobody = Committer { group, generation: -1, member: "" };
    client.retry(|client| client.commit(nobody, &offsets)).map_err(|error| match error {
        ClientError::Refused { code: ErrorCode::UNKNOWN_MEMBER_ID, .. } => {
            ToolError::Usage(format!("group {group} has members; stop them first (`ringlog group describe {group}` shows them)"))
        }
        error => error.into(),
    })?;
    if target.json { output::object(&moved) } else { Ok(()) }
}

/// Where `to` is in each partition of a topic, within what there is.
fn places(client: &mut Client, cluster: &Cluster, name: &str, to: From) -> Result<Vec<(i32, i64)>, ToolError> {
    let topic = cluster.topic(name)?;
    let mut list = |timestamp| client.retry(|client| offsets::list(client, cluster, name, &topic.partitions, timestamp));
    let (first, last) = (list(offsets::EARLIEST)?, list(offsets::LATEST)?);
    let by_time = match to {
        From::Time(time) => list(time)?,
        _ => BTreeMap::new(),
    };
    let place = |partition: i32| {
        let of = |offsets: &BTreeMap<i32, Option<i64>>| offsets.get(&partition).copied().flatten();
        let (first, last) = (of(&first).unwrap_or(0), of(&last).unwrap_or(0));
        let wanted = match to {
            From::Beginning => first,
            From::End => last,
            From::Offset(offset) => offset,
            From::Last(count) => last.saturating_sub(count),
            From::Time(_) => of(&by_time).unwrap_or(last),
        };
        (partition, wanted.clamp(first, last))
    };
    Ok(topic.partitions.iter().map(|partition| place(partition.index)).collect())
}

fn delete(groups: &[String], yes: bool, target: &Target) -> Result<(), ToolError> {
    let mut client = target.client()?;
    let mut goes = Vec::new();
    for group in groups {
        client.retry(|client| members(client, group))?;
        let committed = client.retry(|client| client.committed(group, None))?;
        let row = |((topic, partition), offset): (&(String, i32), &i64)| {
            vec![group.clone(), topic.clone(), partition.to_string(), offset.to_string()]
        };
        goes.extend(committed.iter().map(row));
    }
    if !yes && !goes.is_empty() {
        // Beside the question, not among what was done.
        eprintln!("{}", output::table(&["GROUP", "TOPIC", "PARTITION", "COMMITTED"], goes.into_iter()));
    }
    output::confirm(&format!("This deletes for good what these groups have committed: {}", groups.join(", ")), yes)?;
    for group in groups {
        let outcome = client.retry(|client| {
            let coordinator = client.coordinator(group)?;
            let answer = client.ask(coordinator, &DeleteGroupsRequest { groups_names: vec![group.into()] })?;
            let response: DeleteGroupsResponse<'_> = answer.decode()?;
            match response.results.first().map_or(ErrorCode::GROUP_ID_NOT_FOUND, |result| result.error_code) {
                ErrorCode::NONE => Ok(()),
                code => Err(ClientError::refused(ApiKey::DeleteGroups, format!("of group {group}"), code, None)),
            }
        });
        outcome.map_err(|error| match error {
            ClientError::Refused { code: ErrorCode::NON_EMPTY_GROUP, .. } => ToolError::Usage(format!(
                "group {group} has members; stop them first (`ringlog group describe {group}` shows them)"
            )),
            error => error.into(),
        })?;
        if !target.json {
            output::print(&format!("deleted {group}"))?;
        }
    }
    Ok(())
}
