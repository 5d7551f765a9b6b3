//! What a measurement needs on the broker: the topic, coordinators, members; and removing all of it, members included.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use ringlog_protocol::api::consumer_group_describe::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
use ringlog_protocol::api::delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse};
use ringlog_protocol::api::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse};
use ringlog_protocol::api::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
use ringlog_protocol::api::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use ringlog_protocol::{ApiKey, ErrorCode};
use tokio::runtime::Runtime;

use super::classic::{self, Classic};
use super::consumer::{self, Consumer};
use super::member::{Member, Role};
use super::{Plan, check_group, options, stopped};
use crate::error::Error;
use crate::load::client::{ClientError, Connection, Topic, check_local, create_topic, delete_topic, find_topic};
use crate::results::GroupProtocol;
use crate::stop;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(5);
/// How long the request of a member that was cut off may take to be read by a broker that has answered others meanwhile.
const LATE: Duration = Duration::from_millis(500);
/// How long a coordinator may take to be there, and a group to be empty.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections over which groups are removed at the most, and how many groups each is worth it for.
const REMOVERS_MAX: usize = 32;
const REMOVED_MIN: usize = 100;
/// How many groups one request deletes.
const DELETED_AT_ONCE: usize = 500;
/// Connections that are opened at once: Kafka's `socket.listen.backlog.size` is 50.
pub(super) const OPENED_AT_ONCE: usize = 32;
/// The broker's session timeout of KIP-848's members, and Kafka's default of it.
const CONSUMER_SESSION: &str = "group.consumer.session.timeout.ms";
const CONSUMER_SESSION_MS: u64 = 45_000;
/// Kafka's number for a broker in DescribeConfigs.
const RESOURCE_BROKER: i8 = 4;

/// The broker while it is measured.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    /// What was asked for.
    pub plan: &'a Plan,
    /// Where requests run.
    pub runtime: Runtime,
    /// The topic; zero partitions where no part needs one.
    pub topic: Topic,
    created: bool,
    /// What was stored for a restart stays, with its topic.
    pub keeps_offsets: bool,
    /// The end of the topic has come, whoever made it.
    pub ends_topic: bool,
    /// What a reader of the figures has to know.
    pub notes: Vec<String>,
    run: String,
    groups: Vec<(String, GroupProtocol)>,
}

/// A group's coordinator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coordinator {
    pub address: SocketAddr,
    pub node: i32,
}

/// What blocks, on one thread.
pub(super) fn runtime() -> Result<Runtime, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::Failed(format!("no runtime: {error}")))
}

impl<'a> Scene<'a> {
    /// Makes the topic, where it is not there and a part needs it.
    ///
    /// # Errors
    /// The broker is not there, or fails, or has a topic of this name that is another.
    pub(super) fn open(plan: &'a Plan) -> Result<Self, Error> {
        let runtime = runtime()?;
        let mut scene = Self {
            plan,
            runtime,
            topic: Topic { name: plan.topic.clone(), id: [0; 16], partitions: Vec::new() },
            created: false,
            keeps_offsets: false,
            ends_topic: false,
            notes: Vec::new(),
            run: uuid::Uuid::new_v4().simple().to_string()[..8].to_owned(),
            groups: Vec::new(),
        };
        if plan.parts.iter().any(|part| !matches!(part, super::Part::Load | super::Part::Echo)) {
            let made = scene.make_topic();
            if made.is_err() {
                scene.clean_up(true);
            }
            made?;
        }
        Ok(scene)
    }

    fn make_topic(&mut self) -> Result<(), Error> {
        let plan = self.plan;
        let created = &mut self.created;
        let found = self.runtime.block_on(async {
            let mut connection = Connection::open_any(&plan.addresses, plan.timeout).await?;
            if let Some(topic) = find_topic(&mut connection, &plan.topic, None, plan.allow_remote).await? {
                return Ok(Some(topic));
            }
            let made = create_topic(&mut connection, &plan.topic, plan.partitions, &[]).await;
            // What was there, another run has made meanwhile. What failed in any other way may come to be there yet.
            *created = !matches!(made, Err(ClientError::Refused { code: ErrorCode::TOPIC_ALREADY_EXISTS, .. }));
            made?;
            find_topic(&mut connection, &plan.topic, Some(plan.partitions), plan.allow_remote).await
        });
        let found = found.map_err(|error: ClientError| Error::from(error))?;
        self.topic = found.ok_or_else(|| Error::Failed(format!("topic {} was created and is not there", plan.topic)))?;
        let there = self.topic.partitions.len();
        if there != plan.partitions as usize {
            return Err(Error::Usage(format!("topic {} is there with {there} partitions, not {}", plan.topic, plan.partitions)));
        }
        Ok(())
    }

    /// Whether groups may speak KIP-848: a broker may know the request and have it switched off.
    ///
    /// # Errors
    /// The broker fails.
    pub(super) fn has_consumer_protocol(&self) -> Result<bool, Error> {
        let group = format!("ringlog-bench-{}-nobody", self.run);
        let left = self.runtime.block_on(async {
            let mut connection = self.connect_any().await?;
            if connection.versions.of(ApiKey::ConsumerGroupHeartbeat).is_err() {
                return Ok(false);
            }
            let address = find_coordinator(&mut connection, &group, self.plan).await?.address;
            let mut connection = Connection::open(address, self.plan.timeout).await?;
            match consumer::leave(&mut connection, &group, "nobody").await {
                // Whoever speaks it says that there is no such group, or no such member.
                Err(ClientError::Refused { code, .. }) => Ok(code != ErrorCode::UNSUPPORTED_VERSION),
                other => other.map(|()| true),
            }
        });
        left.map_err(|error: ClientError| error.into())
    }

    /// The name of a group of this run's, which is removed at the end.
    pub(super) fn group(&mut self, protocol: GroupProtocol, what: &str) -> String {
        let name = format!("ringlog-bench-{}-{}-{what}", self.run, protocol.name());
        self.groups.push((name.clone(), protocol));
        name
    }

    /// Has a group of another name removed at the end.
    pub(super) fn adopt(&mut self, groups: &[String]) {
        self.groups.extend(groups.iter().map(|name| (name.clone(), GroupProtocol::Classic)));
    }

    /// A connection to whichever broker takes it.
    pub(super) async fn connect_any(&self) -> Result<Connection, ClientError> {
        Connection::open_any(&self.plan.addresses, self.plan.timeout).await
    }

    /// Where a group's requests go.
    pub(super) async fn coordinator(&self, group: &str) -> Result<Coordinator, ClientError> {
        find_coordinator(&mut self.connect_any().await?, group, self.plan).await
    }

    /// Members of a group, connected and not in it yet.
    pub(super) async fn members(
        &self,
        protocol: GroupProtocol,
        group: &str,
        count: usize,
        session: Duration,
    ) -> Result<Vec<Member>, ClientError> {
        let address = self.coordinator(group).await?.address;
        let connections = connect_all(address, count, self.plan.timeout).await?;
        let member = |connection| Member { connection, role: self.role(protocol, group, session) };
        Ok(connections.into_iter().map(member).collect())
    }

    /// A member of a group, not in it yet.
    pub(super) fn role(&self, protocol: GroupProtocol, group: &str, session: Duration) -> Role {
        let topic = &self.plan.topic;
        match protocol {
            GroupProtocol::Classic => Role::Classic(Box::new(Classic::new(group, topic, self.plan.partitions, session))),
            GroupProtocol::Consumer => Role::Consumer(Box::new(Consumer::new(group, topic))),
        }
    }

    /// The broker's session timeout for members of groups that speak KIP-848. One that does not tell it is taken to have Kafka's,
    /// and a note says so.
    ///
    /// # Errors
    /// The broker fails.
    pub(super) fn consumer_session(&mut self, group: &str) -> Result<Duration, Error> {
        let told = self.runtime.block_on(async {
            let coordinator = self.coordinator(group).await?;
            let mut connection = Connection::open(coordinator.address, self.plan.timeout).await?;
            let resource = DescribeConfigsResource {
                resource_type: RESOURCE_BROKER,
                resource_name: coordinator.node.to_string().into(),
                configuration_keys: Some(vec![CONSUMER_SESSION.into()]),
            };
            let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
            let told = connection
                .call(&request, |decoder, version| Ok(session_told(&DescribeConfigsResponse::decode(decoder, version)?)));
            told.await
        });
        let session_ms = told.map_err(|error: ClientError| Error::from(error))?.unwrap_or_else(|why| {
            self.notes.push(format!(
                "the broker does not tell its {CONSUMER_SESSION} ({why}): {} s are assumed",
                CONSUMER_SESSION_MS / 1000
            ));
            CONSUMER_SESSION_MS
        });
        Ok(Duration::from_millis(session_ms))
    }

    /// Removes groups and the topic, as far as the broker lets us. `cut_off`: members may have gone in the middle of a request. Unless
    /// that was the user's wish, something is being told already, and a broker that is gone is not told of again.
    pub(super) fn clean_up(&mut self, cut_off: bool) {
        let failed = cut_off && !stop::requested();
        let groups = std::mem::take(&mut self.groups);
        let delete_topic_too = self.ends_topic || (std::mem::take(&mut self.created) && !self.keeps_offsets);
        if groups.is_empty() && !delete_topic_too {
            return;
        }
        let plan = self.plan;
        let cleaned = self.runtime.block_on(async {
            let mut removed = remove_groups(&groups, plan).await;
            if cut_off && removed.is_ok() && !groups.is_empty() {
                // Who joins only now makes the group anew.
                tokio::time::sleep(LATE).await;
                removed = remove_groups(&groups, plan).await;
            }
            if !delete_topic_too {
                return removed;
            }
            // A connection of its own: that of the groups may have ended.
            let deleted = match Connection::open_any(&plan.addresses, plan.timeout).await {
                Ok(mut connection) => delete_topic(&mut connection, &plan.topic).await,
                Err(error) => Err(error),
            };
            removed.and(deleted)
        });
        match cleaned {
            Ok(()) => {}
            Err(ClientError::Unreachable { .. } | ClientError::Gone { .. } | ClientError::NotKafka { .. }) if failed => {}
            Err(error) => eprintln!(
                "ringlog-bench: not all of the groups \"ringlog-bench-{}-…\" and topic {} could be deleted: {error}",
                self.run, plan.topic
            ),
        }
    }
}

/// Whether a topic is ours to delete though another run made it.
pub(super) fn is_our_topic(plan: &Plan) -> bool {
    plan.topic == options::TOPIC
}

/// So many connections to one broker.
pub(super) async fn connect_all(address: SocketAddr, count: usize, timeout: Duration) -> Result<Vec<Connection>, ClientError> {
    let mut connections = Vec::with_capacity(count);
    while connections.len() < count {
        if stop::requested() {
            return Err(stopped());
        }
        let more = OPENED_AT_ONCE.min(count - connections.len());
        connections.extend(try_join_all((0..more).map(|_| Connection::open(address, timeout))).await?);
        connections.iter_mut().rev().take(more).for_each(Connection::keep_small);
    }
    Ok(connections)
}

/// Asks for a group's coordinator until there is one: a broker's first group has it make the topic of offsets.
///
/// # Errors
/// The broker fails, or says no for too long; the coordinator is on another machine and must not be.
pub(super) async fn find_coordinator(connection: &mut Connection, group: &str, plan: &Plan) -> Result<Coordinator, ClientError> {
    let started = Instant::now();
    let version = connection.versions.of(ApiKey::FindCoordinator)?;
    let mut request = FindCoordinatorRequest::default();
    if version >= 4 {
        request.coordinator_keys = vec![group.into()];
    } else {
        request.key = group.into();
    }
    let address = connection.address;
    let nonsense = |why: String| ClientError::Nonsense { address, api: ApiKey::FindCoordinator, why };
    loop {
        let answer = connection.call(&request, |decoder, version| {
            let answer = FindCoordinatorResponse::decode(decoder, version)?;
            if version < 4 {
                return Ok(Some((answer.error_code, answer.node_id, answer.host.into_owned(), answer.port)));
            }
            let first = answer.coordinators.into_iter().next();
            Ok(first.map(|found| (found.error_code, found.node_id, found.host.into_owned(), found.port)))
        });
        let Some((code, node, host, port)) = answer.await? else {
            return Err(nonsense(format!("it does not mention group {group}")));
        };
        if code.is_retriable() && started.elapsed() < PATIENCE && !stop::requested() {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        check_group(ApiKey::FindCoordinator, group, code, None)?;
        let port = u16::try_from(port).map_err(|_| nonsense(format!("port {port}")))?;
        let mut found = tokio::net::lookup_host((host.as_str(), port)).await.map_err(|error| {
            ClientError::Unfit(format!("the broker says that the coordinator listens at {host}:{port}: {error}"))
        })?;
        let Some(address) = found.next() else { return Err(nonsense(format!("{host} is nowhere"))) };
        check_local(address, plan.allow_remote)
            .map_err(|error| ClientError::Unfit(format!("the broker sends us on: {error}")))?;
        return Ok(Coordinator { address, node });
    }
}

/// What a broker that does not tell its session timeout says instead.
fn session_told(answer: &DescribeConfigsResponse<'_>) -> Result<u64, String> {
    let Some(result) = answer.results.first() else { return Err("it says nothing".to_owned()) };
    if !result.error_code.is_none() {
        return Err(result.error_code.to_string());
    }
    let config = result.configs.iter().find(|config| config.name == CONSUMER_SESSION);
    match config.map(|config| config.value.as_deref().unwrap_or_default()) {
        None => Err("it has none".to_owned()),
        Some(value) => value.parse().map_err(|_| format!("it says {value:?}")),
    }
}

/// Makes everybody leave, and deletes the groups: what fails for one is no reason to leave the others.
///
/// # Errors
/// The first one.
async fn remove_groups(groups: &[(String, GroupProtocol)], plan: &Plan) -> Result<(), ClientError> {
    if groups.is_empty() {
        return Ok(());
    }
    let mut connection = Connection::open_any(&plan.addresses, plan.timeout).await?;
    let mut removed = Ok(());
    let mut coordinators: BTreeMap<SocketAddr, Vec<&(String, GroupProtocol)>> = BTreeMap::new();
    for group in groups {
        match find_coordinator(&mut connection, &group.0, plan).await {
            Ok(coordinator) => coordinators.entry(coordinator.address).or_default().push(group),
            // A connection that is no good, or a wait that was in vain: the next group would fare no better.
            Err(error) if error.is_passing() => {
                removed = removed.and(Err(error));
                break;
            }
            Err(error) => removed = removed.and(Err(error)),
        }
    }
    for (address, groups) in coordinators {
        removed = removed.and(remove_groups_at(address, &groups, plan).await);
    }
    removed
}

/// The same, of those that one broker coordinates: over several connections, where there are many of them.
async fn remove_groups_at(address: SocketAddr, groups: &[&(String, GroupProtocol)], plan: &Plan) -> Result<(), ClientError> {
    let share = groups.len().div_ceil(REMOVERS_MAX).max(REMOVED_MIN);
    let removed = join_all(groups.chunks(share).map(|groups| remove_groups_over(address, groups, plan))).await;
    removed.into_iter().fold(Ok(()), Result::and)
}

/// The same, over one connection.
async fn remove_groups_over(address: SocketAddr, groups: &[&(String, GroupProtocol)], plan: &Plan) -> Result<(), ClientError> {
    let mut connection = Connection::open(address, plan.timeout).await?;
    let mut removed = Ok(());
    for (group, protocol) in groups {
        match empty(&mut connection, group, *protocol).await {
            Err(error @ ClientError::Refused { .. }) => removed = removed.and(Err(error)),
            // Nothing comes over this connection any more.
            Err(error) => return removed.and(Err(error)),
            Ok(()) => {}
        }
    }
    for groups in groups.chunks(DELETED_AT_ONCE) {
        removed = removed.and(delete_groups(&mut connection, groups.to_vec()).await);
    }
    removed
}

/// Makes every member of a group leave; one that is gone already is fine.
async fn empty(connection: &mut Connection, group: &str, protocol: GroupProtocol) -> Result<(), ClientError> {
    let or_gone = |left: Result<(), ClientError>| match left {
        Err(ClientError::Refused { code: ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::GROUP_ID_NOT_FOUND, .. }) => Ok(()),
        left => left,
    };
    match protocol {
        GroupProtocol::Classic => {
            let ids = classic_members(connection, group).await?;
            if !ids.is_empty() {
                or_gone(classic::leave(connection, group, ids).await)?;
            }
        }
        GroupProtocol::Consumer => {
            for id in consumer_members(connection, group).await? {
                or_gone(consumer::leave(connection, group, &id).await)?;
            }
        }
    }
    Ok(())
}

async fn classic_members(connection: &mut Connection, group: &str) -> Result<Vec<String>, ClientError> {
    let request = DescribeGroupsRequest { groups: vec![group.into()], ..Default::default() };
    let answer = connection.call(&request, |decoder, version| {
        let answer = DescribeGroupsResponse::decode(decoder, version)?;
        Ok(answer.groups.into_iter().flat_map(|group| group.members).map(|member| member.member_id.into_owned()).collect())
    });
    answer.await
}

async fn consumer_members(connection: &mut Connection, group: &str) -> Result<Vec<String>, ClientError> {
    let request = ConsumerGroupDescribeRequest { group_ids: vec![group.into()], ..Default::default() };
    let answer = connection.call(&request, |decoder, version| {
        let answer = ConsumerGroupDescribeResponse::decode(decoder, version)?;
        Ok(answer.groups.into_iter().flat_map(|group| group.members).map(|member| member.member_id.into_owned()).collect())
    });
    answer.await
}

/// Deletes groups; one that is gone already is fine. A group whose last member has just left may need a moment, and one may have a member
/// again: whoever was cut off while it joined.
async fn delete_groups(connection: &mut Connection, mut groups: Vec<&(String, GroupProtocol)>) -> Result<(), ClientError> {
    let started = Instant::now();
    let mut deleted = Ok(());
    while !groups.is_empty() {
        let request = DeleteGroupsRequest { groups_names: groups.iter().map(|(name, _)| name.as_str().into()).collect() };
        let answer = connection.call(&request, |decoder, version| {
            let answer = DeleteGroupsResponse::decode(decoder, version)?;
            let refused = answer
                .results
                .into_iter()
                .filter(|result| !result.error_code.is_none() && result.error_code != ErrorCode::GROUP_ID_NOT_FOUND);
            Ok(refused.map(|result| (result.group_id.into_owned(), result.error_code)).collect::<Vec<_>>())
        });
        let may_wait = started.elapsed() < PATIENCE;
        let (later, refused): (Vec<_>, Vec<_>) = answer
            .await?
            .into_iter()
            .partition(|(_, code)| may_wait && (*code == ErrorCode::NON_EMPTY_GROUP || code.is_retriable()));
        for (group, code) in refused {
            deleted = deleted.and(check_group(ApiKey::DeleteGroups, &group, code, None));
        }
        groups.retain(|(name, _)| later.iter().any(|(group, _)| group == name));
        if !groups.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
        for (group, protocol) in &groups {
            match empty(connection, group, *protocol).await {
                // Who does not go now may be asked again.
                Err(ClientError::Refused { .. }) => {}
                other => other?,
            }
        }
    }
    deleted
}

#[cfg(test)]
mod tests {
    use ringlog_protocol::api::describe_configs::{DescribeConfigsResourceResult, DescribeConfigsResult};

    use super::*;

    #[test]
    fn a_session_timeout_that_is_not_told_has_a_reason() {
        let told = |error_code, name: &'static str, value: Option<&'static str>| {
            let config = DescribeConfigsResourceResult { name: name.into(), value: value.map(Into::into), ..Default::default() };
            let result = DescribeConfigsResult { error_code, configs: vec![config], ..Default::default() };
            session_told(&DescribeConfigsResponse { results: vec![result], ..Default::default() })
        };
        let code = ErrorCode::CLUSTER_AUTHORIZATION_FAILED;
        assert_eq!(told(ErrorCode::NONE, CONSUMER_SESSION, Some("2000")), Ok(2000));
        assert_eq!(told(code, CONSUMER_SESSION, Some("2000")), Err(code.to_string()));
        assert!(told(ErrorCode::NONE, "group.max.size", Some("2000")).is_err_and(|why| why.contains("has none")));
        assert!(told(ErrorCode::NONE, CONSUMER_SESSION, Some("-1")).is_err_and(|why| why.contains("\"-1\"")));
        assert!(session_told(&DescribeConfigsResponse::default()).is_err());
    }
}
