//! `ringlog topic`: topics listed, created, described, altered, deleted.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringlog_protocol::api::create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic};
use ringlog_protocol::api::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse};
use ringlog_protocol::api::delete_topics::{DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};
use ringlog_protocol::api::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsRequest, DescribeLogDirsResponse};
use ringlog_protocol::{ApiKey, ErrorCode, Uuid};
use serde::Serialize;

use super::args::{Target, TopicCommand};
use super::client::{Client, ClientError, Cluster, Topic};
use super::config::{self, Resource, Setting};
use super::{ToolError, offsets, output};

#[derive(Serialize)]
struct Listed {
    name: String,
    partitions: usize,
    replication_factor: usize,
    internal: bool,
}

#[derive(Serialize)]
struct Described {
    name: String,
    id: String,
    internal: bool,
    partitions: Vec<DescribedPartition>,
    configs: Vec<Setting>,
}

#[derive(Serialize)]
struct DescribedPartition {
    partition: i32,
    leader: i32,
    leader_epoch: i32,
    replicas: Vec<i32>,
    in_sync_replicas: Vec<i32>,
    start_offset: Option<i64>,
    end_offset: Option<i64>,
    size_bytes: Option<i64>,
}

#[derive(Serialize)]
struct Outcome {
    name: String,
    error: Option<String>,
}

pub(super) fn run(command: TopicCommand) -> Result<(), ToolError> {
    match command {
        TopicCommand::List { internal, target } => list(internal, &target),
        TopicCommand::Create { names, partitions, replication_factor, config, if_not_exists, target } => {
            let topic = |name: &String| CreatableTopic {
                name: name.clone().into(),
                num_partitions: partitions.unwrap_or(-1),
                replication_factor: replication_factor.unwrap_or(-1),
                configs: config
                    .iter()
                    .map(|(name, value)| CreatableTopicConfig { name: name.into(), value: Some(value.into()) })
                    .collect(),
                ..Default::default()
            };
            create(names.iter().map(topic).collect(), if_not_exists, &target)
        }
        TopicCommand::Describe { names, target } => describe(&names, &target),
        TopicCommand::Alter { name, partitions, changes, target } => {
            if partitions.is_none() && changes.is_empty() {
                let what = "nothing to change; give --partitions, --set NAME=VALUE or --unset NAME";
                return Err(ToolError::Usage(what.to_owned()));
            }
            let mut client = target.client()?;
            client.cluster_with(&name)?;
            if !changes.is_empty() {
                config::alter(&mut client, &Resource::Topic(name.clone()), &changes)?;
            }
            if let Some(count) = partitions {
                add_partitions(&mut client, &name, count)?;
            }
            Ok(())
        }
        TopicCommand::Delete { names, yes, target } => delete(&names, yes, &target),
    }
}

fn list(internal: bool, target: &Target) -> Result<(), ToolError> {
    let mut client = target.client()?;
    let cluster = client.retry(|client| client.cluster(None))?;
    let listed = |topic: &Topic| Listed {
        name: topic.name.clone(),
        partitions: topic.partitions.len(),
        replication_factor: topic.partitions.first().map_or(0, |partition| partition.replicas.len()),
        internal: topic.is_internal,
    };
    let topics: Vec<_> = cluster.topics.values().filter(|topic| internal || !topic.is_internal).map(listed).collect();
    if topics.is_empty() && !target.json {
        return output::print("There are no topics; `ringlog topic create NAME` makes one.");
    }
    output::list(target.json, &topics, &["TOPIC", "PARTITIONS", "REPLICAS"], |topic| {
        vec![topic.name.clone(), topic.partitions.to_string(), topic.replication_factor.to_string()]
    })
}

fn create(topics: Vec<CreatableTopic<'_>>, if_not_exists: bool, target: &Target) -> Result<(), ToolError> {
    let mut client = target.client()?;
    let controller = client.cluster(Some(&[]))?.controller()?;
    let request = CreateTopicsRequest { topics, timeout_ms: client.timeout_ms(), validate_only: false };
    let answer = client.ask(controller, &request)?;
    let response: CreateTopicsResponse<'_> = answer.decode()?;
    let outcome = |topic: &ringlog_protocol::api::create_topics::CreatableTopicResult<'_>| {
        let code = match topic.error_code {
            ErrorCode::TOPIC_ALREADY_EXISTS if if_not_exists => ErrorCode::NONE,
            code => code,
        };
        (topic.name.to_string(), code, topic.error_message.as_deref().map(str::to_owned))
    };
    show_outcomes(ApiKey::CreateTopics, "created", response.topics.iter().map(outcome), target)
}

fn delete(names: &[String], yes: bool, target: &Target) -> Result<(), ToolError> {
    let mut client = target.client()?;
    let cluster = client.retry(|client| client.cluster(None))?;
    let mut what = Vec::new();
    for name in names {
        let topic = cluster.topic(name)?;
        let first = offsets::list(&mut client, &cluster, name, &topic.partitions, offsets::EARLIEST)?;
        let end = offsets::list(&mut client, &cluster, name, &topic.partitions, offsets::LATEST)?;
        let sum = |offsets: &BTreeMap<i32, Option<i64>>| offsets.values().flatten().sum::<i64>();
        what.push(format!("{name} ({} partitions, {} offsets)", topic.partitions.len(), sum(&end) - sum(&first)));
    }
    output::confirm(&format!("This deletes for good: {}", what.join(", ")), yes)?;
    let controller = cluster.controller()?;
    let version = client.version(controller, ApiKey::DeleteTopics)?;
    let mut request = DeleteTopicsRequest { timeout_ms: client.timeout_ms(), ..Default::default() };
    if version >= 6 {
        let topic = |name: &String| DeleteTopicState { name: Some(name.clone().into()), topic_id: Uuid::default() };
        request.topics = names.iter().map(topic).collect();
    } else {
        request.topic_names = names.iter().map(|name| name.clone().into()).collect();
    }
    let answer = client.ask(controller, &request)?;
    let response: DeleteTopicsResponse<'_> = answer.decode()?;
    let outcome = |topic: &ringlog_protocol::api::delete_topics::DeletableTopicResult<'_>| {
        let name = topic.name.as_deref().unwrap_or_default().to_owned();
        (name, topic.error_code, topic.error_message.as_deref().map(str::to_owned))
    };
    show_outcomes(ApiKey::DeleteTopics, "deleted", response.responses.iter().map(outcome), target)
}

/// Says how it went with each topic; the first that went wrong is the error.
fn show_outcomes(
    api: ApiKey,
    done: &str,
    outcomes: impl Iterator<Item = (String, ErrorCode, Option<String>)>,
    target: &Target,
) -> Result<(), ToolError> {
    let mut shown = Vec::new();
    let mut first = None;
    for (name, code, message) in outcomes {
        let error = (!code.is_none()).then(|| ClientError::refused(api, format!("of {name}"), code, message.as_deref()));
        if error.is_none() && !target.json {
            output::print(&format!("{done} {name}"))?;
        }
        shown.push(Outcome { name, error: error.as_ref().map(ToString::to_string) });
        match (&first, error) {
            (None, error) => first = error,
            (Some(_), Some(error)) if !target.json => eprintln!("ringlog: {error}"),
            _ => {}
        }
    }
    if target.json {
        output::object(&shown)?;
    }
    first.map_or(Ok(()), |error| Err(error.into()))
}

fn add_partitions(client: &mut Client, name: &str, count: i32) -> Result<(), ToolError> {
    let controller = client.cluster(Some(&[]))?.controller()?;
    let topics = vec![CreatePartitionsTopic { name: name.into(), count, assignments: None }];
    let request = CreatePartitionsRequest { topics, timeout_ms: client.timeout_ms(), validate_only: false };
    let answer = client.ask(controller, &request)?;
    let response: CreatePartitionsResponse<'_> = answer.decode()?;
    for result in response.results {
        if !result.error_code.is_none() {
            let message = result.error_message.as_deref();
            let of = format!("of {}", result.name);
            return Err(ClientError::refused(ApiKey::CreatePartitions, of, result.error_code, message).into());
        }
    }
    Ok(())
}

fn describe(names: &[String], target: &Target) -> Result<(), ToolError> {
    let mut client = target.client()?;
    let mut topics = Vec::new();
    for name in names {
        let cluster = client.cluster_with(name)?;
        topics.push(described(&mut client, &cluster, cluster.topic(name)?)?);
    }
    if target.json {
        return output::object(&topics);
    }
    for (at, topic) in topics.iter().enumerate() {
        if at > 0 {
            output::print("")?;
        }
        output::print(&format!("{} (id {}), {} partitions", topic.name, topic.id, topic.partitions.len()))?;
        for setting in &topic.configs {
            output::print(&format!("  {}={}", setting.name, setting.value.as_deref().unwrap_or("-")))?;
        }
        let offset = |offset: Option<i64>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        let row = |partition: &DescribedPartition| {
            vec![
                partition.partition.to_string(),
                partition.leader.to_string(),
                partition.leader_epoch.to_string(),
                output::numbers(&partition.replicas),
                output::numbers(&partition.in_sync_replicas),
                offset(partition.start_offset),
                offset(partition.end_offset),
                partition.size_bytes.map_or_else(|| "-".to_owned(), output::bytes),
            ]
        };
        let headers = ["PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN-SYNC", "START", "END", "SIZE"];
        output::print(&output::table(&headers, topic.partitions.iter().map(row)))?;
    }
    Ok(())
}

fn described(client: &mut Client, cluster: &Cluster, topic: &Topic) -> Result<Described, ClientError> {
    let name = &topic.name;
    let led: Vec<_> = topic.partitions.iter().filter(|partition| partition.leader >= 0).cloned().collect();
    let first = offsets::list(client, cluster, name, &led, offsets::EARLIEST)?;
    let end = offsets::list(client, cluster, name, &led, offsets::LATEST)?;
    let sizes = sizes(client, cluster, topic)?;
    let configs = config::show(client, &Resource::Topic(name.clone()))?;
    let partitions = topic.partitions.iter().map(|partition| DescribedPartition {
        partition: partition.index,
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        replicas: partition.replicas.clone(),
        in_sync_replicas: partition.in_sync.clone(),
        start_offset: first.get(&partition.index).copied().flatten(),
        end_offset: end.get(&partition.index).copied().flatten(),
        size_bytes: sizes.get(&(partition.leader, partition.index)).copied(),
    });
    Ok(Described {
        name: name.clone(),
        id: URL_SAFE_NO_PAD.encode(topic.id),
        internal: topic.is_internal,
        partitions: partitions.collect(),
        configs: configs.into_iter().filter(Setting::is_own).collect(),
    })
}

/// What each partition takes on each of its brokers, in bytes.
fn sizes(client: &mut Client, cluster: &Cluster, topic: &Topic) -> Result<BTreeMap<(i32, i32), i64>, ClientError> {
    let mut sizes = BTreeMap::new();
    let mut leaders: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for partition in topic.partitions.iter().filter(|partition| partition.leader >= 0) {
        leaders.entry(partition.leader).or_default().push(partition.index);
    }
    for (leader, partitions) in leaders {
        let asked = DescribableLogDirTopic { topic: topic.name.as_str().into(), partitions };
        let answer = client.ask(cluster.address(leader)?, &DescribeLogDirsRequest { topics: Some(vec![asked]) })?;
        let response: DescribeLogDirsResponse<'_> = answer.decode()?;
        for found in response.results.iter().flat_map(|result| &result.topics).filter(|found| found.name == topic.name) {
            sizes.extend(found.partitions.iter().map(|p| ((leader, p.partition_index), p.partition_size)));
        }
    }
    Ok(sizes)
}
