//! What a run asks around its load: topics made, found and deleted, offsets, producer ids.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringlog_protocol::api::create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic};
use ringlog_protocol::api::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse};
use ringlog_protocol::api::delete_topics::{DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};
use ringlog_protocol::api::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ringlog_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic};
use ringlog_protocol::api::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use ringlog_protocol::{ApiKey, ErrorCode, Uuid};

use super::{ClientError, Connection, check_local};

/// How long a topic that was just created may take to have leaders.
const LEADERS_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long a broker may tell of a topic that it has deleted.
const GONE_WAIT_MAX: Duration = Duration::from_secs(30);

/// How many partitions are asked for at once: Kafka's controller makes no more than 10,000 records of one request.
const PARTITIONS_AT_ONCE: u32 = 5_000;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// A topic and who leads it.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    /// Its name.
    pub name: String,
    /// Its id; zeros if the broker has none.
    pub id: Uuid,
    /// Its partitions by number, without a gap.
    pub partitions: Vec<Partition>,
}

/// A partition and its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// Its number.
    pub index: i32,
    /// Where its leader listens.
    pub leader: SocketAddr,
}

impl Topic {
    /// The partitions by their leaders.
    #[must_use]
    pub(crate) fn by_leader(&self) -> BTreeMap<SocketAddr, Vec<i32>> {
        let mut leaders: BTreeMap<SocketAddr, Vec<i32>> = BTreeMap::new();
        for partition in &self.partitions {
            leaders.entry(partition.leader).or_default().push(partition.index);
        }
        leaders
    }
}

enum Found {
    Topic(Topic),
    Missing,
    NotReady(ErrorCode),
}

/// Looks a topic up; waits for the leaders of one that is being created. `None` where it does not exist, which is waited for too
/// if it was `created`, with so many partitions: a broker may tell of them later than it makes them.
///
/// # Errors
/// The broker fails, or says no; a leader is on another machine and must not be.
pub(crate) async fn find_topic(
    connection: &mut Connection,
    name: &str,
    created: Option<u32>,
    allow_remote: bool,
) -> Result<Option<Topic>, ClientError> {
    let started = Instant::now();
    let partitions = created.unwrap_or(0) as usize;
    loop {
        let is_late = started.elapsed() > LEADERS_WAIT_MAX;
        match look_up(connection, name, allow_remote).await? {
            Found::Topic(topic) if topic.partitions.len() >= partitions || is_late => return Ok(Some(topic)),
            Found::Missing if created.is_none() || is_late => return Ok(None),
            Found::Topic(_) | Found::Missing => tokio::time::sleep(PAUSE).await,
            Found::NotReady(code) if is_late => {
                return Err(ClientError::refused(ApiKey::Metadata, format!("of topic {name}"), code, None));
            }
            Found::NotReady(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn look_up(connection: &mut Connection, name: &str, allow_remote: bool) -> Result<Found, ClientError> {
    let address = connection.address;
    let topic = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: false, ..Default::default() };
    let answer = connection.call(&request, |decoder, version| {
        let answer = MetadataResponse::decode(decoder, version)?;
        let brokers: Vec<_> = answer.brokers.iter().map(|b| (b.node_id, b.host.clone().into_owned(), b.port)).collect();
        let topic = answer.topics.iter().find(|topic| topic.name.as_deref() == Some(name)).map(|topic| {
            let partitions: Vec<_> = topic.partitions.iter().map(|p| (p.partition_index, p.leader_id, p.error_code)).collect();
            (topic.error_code, topic.topic_id, partitions)
        });
        Ok((brokers, topic))
    });
    let (brokers, topic) = answer.await?;
    let nonsense = |why: String| ClientError::Nonsense { address, api: ApiKey::Metadata, why };
    let Some((code, id, mut partitions)) = topic else { return Err(nonsense(format!("it does not mention topic {name}"))) };
    match code {
        ErrorCode::NONE => {}
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => return Ok(Found::Missing),
        code if code.is_retriable() => return Ok(Found::NotReady(code)),
        code => return Err(ClientError::refused(ApiKey::Metadata, format!("of topic {name}"), code, None)),
    }
    let mut leaders = BTreeMap::new();
    for (node, host, port) in brokers {
        let Ok(port) = u16::try_from(port) else { return Err(nonsense(format!("broker {node} at port {port}"))) };
        let mut found = tokio::net::lookup_host((host.as_str(), port))
            .await
            .map_err(|error| ClientError::Unfit(format!("the broker says that it listens at {host}:{port}: {error}")))?;
        if let Some(leader) = found.next() {
            leaders.insert(node, leader);
        }
    }
    partitions.sort_unstable_by_key(|(index, ..)| *index);
    let mut found = Vec::with_capacity(partitions.len());
    for (at, (index, leader, code)) in partitions.into_iter().enumerate() {
        if usize::try_from(index) != Ok(at) {
            return Err(nonsense(format!("topic {name} has partition {index} at place {at}")));
        }
        let Some(leader) = leaders.get(&leader).filter(|_| code.is_none()) else {
            return Ok(Found::NotReady(if code.is_none() { ErrorCode::LEADER_NOT_AVAILABLE } else { code }));
        };
        check_local(*leader, allow_remote).map_err(|error| ClientError::Unfit(format!("the broker sends us on: {error}")))?;
        found.push(Partition { index, leader: *leader });
    }
    if found.is_empty() {
        return Ok(Found::NotReady(ErrorCode::LEADER_NOT_AVAILABLE));
    }
    Ok(Found::Topic(Topic { name: name.to_owned(), id, partitions: found }))
}

/// Creates a topic without replication, in steps where it has many partitions.
///
/// # Errors
/// The broker fails, or says no; there is no such topic then, if the broker can still be told.
pub(crate) async fn create_topic(
    connection: &mut Connection,
    name: &str,
    partitions: u32,
    config: &[(String, String)],
) -> Result<(), ClientError> {
    let configs =
        config.iter().map(|(name, value)| CreatableTopicConfig { name: name.into(), value: Some(value.into()) }).collect();
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: partitions.min(PARTITIONS_AT_ONCE) as i32,
        replication_factor: 1,
        configs,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let answer = connection.call(&request, |decoder, version| {
        let answer = CreateTopicsResponse::decode(decoder, version)?;
        Ok(answer.topics.first().map(|topic| (topic.error_code, topic.error_message.as_deref().map(str::to_owned))))
    });
    settle(answer.await?, ApiKey::CreateTopics, name, connection.address)?;
    let mut there = PARTITIONS_AT_ONCE;
    while there < partitions {
        there = partitions.min(there.saturating_add(PARTITIONS_AT_ONCE));
        if let Err(error) = add_partitions(connection, name, there).await {
            // Half a topic is of no use to anybody; what went wrong first is what is told.
            let _ = delete_topic(connection, name).await;
            return Err(error);
        }
    }
    Ok(())
}

/// Gives a topic more partitions, so that there are `count`.
async fn add_partitions(connection: &mut Connection, name: &str, count: u32) -> Result<(), ClientError> {
    let count = count.try_into().unwrap_or(i32::MAX);
    let topic = CreatePartitionsTopic { name: name.into(), count, ..Default::default() };
    let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms: 60_000, ..Default::default() };
    let answer = connection.call(&request, |decoder, version| {
        let answer = CreatePartitionsResponse::decode(decoder, version)?;
        Ok(answer.results.first().map(|topic| (topic.error_code, topic.error_message.as_deref().map(str::to_owned))))
    });
    settle(answer.await?, ApiKey::CreatePartitions, name, connection.address)
}

/// Deletes a topic; one that is gone already is fine. Kafka's controller answers before the brokers have heard of it: what is done
/// next would find the old topic there, so that is waited for.
///
/// # Errors
/// The broker fails, or says no.
pub(crate) async fn delete_topic(connection: &mut Connection, name: &str) -> Result<(), ClientError> {
    let version = connection.versions.of(ApiKey::DeleteTopics)?;
    let mut request = DeleteTopicsRequest { timeout_ms: 30_000, ..Default::default() };
    if version >= 6 {
        request.topics = vec![DeleteTopicState { name: Some(name.into()), ..Default::default() }];
    } else {
        request.topic_names = vec![name.into()];
    }
    let answer = connection.call(&request, |decoder, version| {
        let answer = DeleteTopicsResponse::decode(decoder, version)?;
        Ok(answer.responses.first().map(|topic| (topic.error_code, topic.error_message.as_deref().map(str::to_owned))))
    });
    let answer = answer.await?.filter(|(code, _)| *code != ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    settle(answer.or(Some((ErrorCode::NONE, None))), ApiKey::DeleteTopics, name, connection.address)?;
    let started = Instant::now();
    // Wherever it is led, and whoever fails meanwhile: it is deleted.
    while let Ok(Found::Topic(_) | Found::NotReady(_)) = look_up(connection, name, true).await {
        if started.elapsed() > GONE_WAIT_MAX {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn settle(answer: Option<(ErrorCode, Option<String>)>, api: ApiKey, name: &str, address: SocketAddr) -> Result<(), ClientError> {
    match answer {
        Some((ErrorCode::NONE, _)) => Ok(()),
        Some((code, words)) => Err(ClientError::refused(api, format!("of topic {name}"), code, words.as_deref())),
        None => Err(ClientError::Nonsense { address, api, why: format!("it does not mention topic {name}") }),
    }
}

/// Gets a producer id and epoch. Brokers that have just started may say that they are loading.
///
/// # Errors
/// The broker fails, or says no.
pub(crate) async fn init_producer_id(connection: &mut Connection) -> Result<(i64, i16), ClientError> {
    let started = Instant::now();
    loop {
        let request = InitProducerIdRequest { transaction_timeout_ms: 60_000, producer_epoch: -1, ..Default::default() };
        let answer = connection.call(&request, |decoder, version| {
            let answer = InitProducerIdResponse::decode(decoder, version)?;
            Ok((answer.error_code, answer.producer_id, answer.producer_epoch))
        });
        match answer.await? {
            (ErrorCode::NONE, id, epoch) => return Ok((id, epoch)),
            (code, ..) if code.is_retriable() && started.elapsed() < LEADERS_WAIT_MAX => {
                tokio::time::sleep(PAUSE).await;
            }
            (code, ..) => return Err(ClientError::refused(ApiKey::InitProducerId, "", code, None)),
        }
    }
}

/// Which end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offsets {
    /// The first offset that can be read.
    Earliest,
    /// The offset behind the last that can be read.
    Latest,
}

/// Finds the offsets of `partitions`, all led by the broker of this connection, in their order. A leader that has been named may
/// not know of it yet, or may be recovering, and is given time.
///
/// # Errors
/// The broker fails, says no, or leaves one out.
pub(crate) async fn list_offsets(
    connection: &mut Connection,
    topic: &str,
    partitions: &[i32],
    which: Offsets,
) -> Result<Vec<i64>, ClientError> {
    let started = Instant::now();
    loop {
        match list_offsets_once(connection, topic, partitions, which).await {
            Err(ClientError::Refused { code, .. }) if code.is_retriable() && started.elapsed() < LEADERS_WAIT_MAX => {
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

async fn list_offsets_once(
    connection: &mut Connection,
    topic: &str,
    partitions: &[i32],
    which: Offsets,
) -> Result<Vec<i64>, ClientError> {
    let timestamp = match which {
        Offsets::Earliest => -2,
        Offsets::Latest => -1,
    };
    let wanted = partitions
        .iter()
        .map(|&partition_index| ListOffsetsPartition { partition_index, timestamp, ..Default::default() })
        .collect();
    let topics = vec![ListOffsetsTopic { name: topic.into(), partitions: wanted }];
    let request = ListOffsetsRequest { replica_id: -1, topics, timeout_ms: 30_000, ..Default::default() };
    let answer = connection.call(&request, |decoder, version| {
        let answer = ListOffsetsResponse::decode(decoder, version)?;
        let all = answer.topics.iter().filter(|found| found.name == topic).flat_map(|found| &found.partitions);
        Ok(all.map(|found| (found.partition_index, (found.error_code, found.offset))).collect::<BTreeMap<_, _>>())
    });
    let found = answer.await?;
    let (address, api) = (connection.address, ApiKey::ListOffsets);
    let mut offsets = Vec::with_capacity(partitions.len());
    for index in partitions {
        match found.get(index) {
            Some((ErrorCode::NONE, offset)) if *offset >= 0 => offsets.push(*offset),
            Some((ErrorCode::NONE, offset)) => {
                return Err(ClientError::Nonsense { address, api, why: format!("partition {index} at offset {offset}") });
            }
            Some((code, _)) => return Err(ClientError::refused(api, format!("of partition {topic}-{index}"), *code, None)),
            None => return Err(ClientError::Nonsense { address, api, why: format!("it leaves partition {index} out") }),
        }
    }
    Ok(offsets)
}
