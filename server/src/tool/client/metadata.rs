//! Who leads what: the cluster as a broker describes it.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use ringlog_protocol::api::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use ringlog_protocol::{ApiKey, ErrorCode, Uuid};

use super::{Client, ClientError, PAUSE};

/// How long a topic may take that is created on demand.
const CREATION_WAIT_MAX: Duration = Duration::from_secs(3);

/// A cluster at one moment.
#[derive(Clone, Debug)]
pub(in crate::tool) struct Cluster {
    /// Its id, where it has one.
    pub id: Option<String>,
    /// The broker that takes admin requests.
    pub controller: i32,
    /// The brokers by id: host and port.
    pub brokers: BTreeMap<i32, (String, i32)>,
    /// The topics asked for, by name.
    pub topics: BTreeMap<String, Topic>,
}

/// A topic.
#[derive(Clone, Debug)]
pub(in crate::tool) struct Topic {
    /// Its name.
    pub name: String,
    /// Its id; zeros if the broker has none.
    pub id: Uuid,
    /// Whether it is one of the broker's own.
    pub is_internal: bool,
    /// Its partitions, by ascending number.
    pub partitions: Vec<Partition>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::tool) struct Partition {
    /// Its number.
    pub index: i32,
    /// The broker that leads; -1 if none.
    pub leader: i32,
    /// The term of the leader; -1 if unknown.
    pub leader_epoch: i32,
    /// All brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those that are in sync.
    pub in_sync: Vec<i32>,
}

impl Cluster {
    /// Where a broker listens.
    ///
    /// # Errors
    /// It is not there, or its name has no address.
    pub(in crate::tool) fn address(&self, broker: i32) -> Result<SocketAddr, ClientError> {
        let Some((host, port)) = self.brokers.get(&broker) else {
            return Err(ClientError::refused(
                ApiKey::Metadata,
                format!("of broker {broker}"),
                ErrorCode::LEADER_NOT_AVAILABLE,
                Some("it is not there; `ringlog status` shows who is"),
            ));
        };
        let wrong = |why: String| ClientError::Address { text: format!("{host}:{port}, as broker {broker} says,"), why };
        let number = u16::try_from(*port).map_err(|_| wrong("no such port".to_owned()))?;
        let mut found = (host.as_str(), number).to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
        found.next().ok_or_else(|| wrong("the name has no address".to_owned()))
    }

    /// Where the broker listens that takes admin requests.
    ///
    /// # Errors
    /// There is none at the moment.
    pub(in crate::tool) fn controller(&self) -> Result<SocketAddr, ClientError> {
        self.address(self.controller)
    }

    /// A topic that was asked for.
    ///
    /// # Errors
    /// There is none of that name.
    pub(in crate::tool) fn topic(&self, name: &str) -> Result<&Topic, ClientError> {
        self.topics.get(name).ok_or_else(|| unknown_topic(name))
    }
}

fn unknown_topic(name: &str) -> ClientError {
    let message = "there is no such topic; `ringlog topic list` shows those there are, `ringlog topic create` makes one";
    ClientError::refused(ApiKey::Metadata, format!("of topic {name}"), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, Some(message))
}

impl Client {
    /// The cluster with these topics, or with all. A topic that does not exist is missing in the answer; one that is being made is
    /// an error to try again.
    ///
    /// # Errors
    /// The broker fails, or says no.
    pub(in crate::tool) fn cluster(&mut self, topics: Option<&[&str]>) -> Result<Cluster, ClientError> {
        self.metadata(topics, false)
    }

    fn metadata(&mut self, topics: Option<&[&str]>, create: bool) -> Result<Cluster, ClientError> {
        let topics = topics.map(|names| {
            names.iter().map(|&name| MetadataRequestTopic { name: Some(name.into()), ..Default::default() }).collect()
        });
        let request = MetadataRequest { topics, allow_auto_topic_creation: create, ..Default::default() };
        let answer = self.ask_any(&request)?;
        let response: MetadataResponse<'_> = answer.decode()?;
        if !response.error_code.is_none() {
            return Err(ClientError::refused(ApiKey::Metadata, "", response.error_code, None));
        }
        let brokers = response.brokers.iter().map(|b| (b.node_id, (b.host.clone().into_owned(), b.port))).collect();
        let mut cluster = Cluster {
            id: response.cluster_id.as_ref().map(|id| id.clone().into_owned()),
            controller: response.controller_id,
            brokers,
            topics: BTreeMap::new(),
        };
        for topic in response.topics {
            let Some(name) = topic.name else { continue };
            match topic.error_code {
                ErrorCode::NONE => {}
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => continue,
                code => return Err(ClientError::refused(ApiKey::Metadata, format!("of topic {name}"), code, None)),
            }
            let partition = |p: ringlog_protocol::api::metadata::MetadataResponsePartition| Partition {
                index: p.partition_index,
                leader: p.leader_id,
                leader_epoch: p.leader_epoch,
                replicas: p.replica_nodes,
                in_sync: p.isr_nodes,
            };
            let mut partitions: Vec<_> = topic.partitions.into_iter().map(partition).collect();
            partitions.sort_unstable_by_key(|partition| partition.index);
            let name = name.into_owned();
            let topic = Topic { name: name.clone(), id: topic.topic_id, is_internal: topic.is_internal, partitions };
            cluster.topics.insert(name, topic);
        }
        Ok(cluster)
    }

    /// The cluster with one topic that exists.
    ///
    /// # Errors
    /// The topic does not exist; the broker fails, or says no.
    pub(in crate::tool) fn cluster_with(&mut self, topic: &str) -> Result<Cluster, ClientError> {
        let cluster = self.retry(|client| client.cluster(Some(&[topic])))?;
        cluster.topic(topic)?;
        Ok(cluster)
    }
    /// The cluster with one topic, which is created if the broker does that on demand (`auto.create.topics.enable`).
    ///
    /// # Errors
    /// The topic does not exist and is not created; the broker fails, or says no.
    pub(in crate::tool) fn cluster_to_produce_to(&mut self, topic: &str) -> Result<Cluster, ClientError> {
        let until = Instant::now() + self.timeout.min(CREATION_WAIT_MAX);
        loop {
            let cluster = self.retry(|client| client.metadata(Some(&[topic]), true))?;
            // A broker says that there is no such topic while it creates it, too.
            if cluster.topics.contains_key(topic) || Instant::now() >= until {
                cluster.topic(topic)?;
                return Ok(cluster);
            }
            std::thread::sleep(PAUSE);
        }
    }
}
