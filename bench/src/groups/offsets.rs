//! Offsets: how fast they are committed and fetched, and how long a broker that was restarted takes to serve what it had.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use ringlog_protocol::api::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
};
use ringlog_protocol::api::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics, OffsetFetchResponse,
};
use ringlog_protocol::{ApiKey, DecodeError, Decoder, Encoder, ErrorCode, Uuid};

use super::scene::{Scene, find_coordinator, is_our_topic, runtime};
use super::{Plan, check_group, ms_between, stopped};
use crate::error::Error;
use crate::load::client::{ClientError, Connection};
use crate::load::measure::{histogram, record_us, summary};
use crate::process::Reading;
use crate::results::{GroupProtocol, OffsetCall, OffsetRate, OffsetsLoaded, OffsetsStored};
use crate::stop;

/// Connections, and what each has without an answer: consumers that commit synchronously, and more than a broker has cores for.
pub(super) const SHAPES: [(usize, usize); 2] = [(16, 1), (32, 16)];

/// Between two questions whether a broker is there, or has loaded.
const POLL: Duration = Duration::from_millis(1);
/// Between two commits that a coordinator does not take yet, and how long it may not.
const COMMIT_PAUSE: Duration = Duration::from_millis(20);
const COMMIT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a broker may take to come back and to load.
const LOAD_PATIENCE: Duration = Duration::from_secs(600);

/// Which partitions of which topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Of<'a> {
    pub topic: &'a str,
    pub id: Uuid,
}

impl<'a> Of<'a> {
    /// A commit by whoever is no member.
    pub(super) fn commit(self, group: &'a str, partitions: std::ops::Range<i32>, offset: i64) -> OffsetCommitRequest<'a> {
        let partition = |partition_index| OffsetCommitRequestPartition {
            partition_index,
            committed_offset: offset,
            committed_leader_epoch: -1,
            committed_metadata: Some("".into()),
        };
        OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: -1,
            retention_time_ms: -1,
            topics: vec![OffsetCommitRequestTopic {
                name: self.topic.into(),
                topic_id: self.id,
                partitions: partitions.map(partition).collect(),
            }],
            ..Default::default()
        }
    }

    /// A fetch of the first partition's offset.
    fn fetch(self, group: &'a str, version: i16) -> OffsetFetchRequest<'a> {
        let topic = OffsetFetchRequestTopics { name: self.topic.into(), topic_id: self.id, partition_indexes: vec![0] };
        let old = OffsetFetchRequestTopic { name: self.topic.into(), partition_indexes: vec![0] };
        fetch(group, version, Some((topic, old)))
    }
}

/// A fetch of a group's offsets: of the topic, or all.
fn fetch<'a>(
    group: &'a str,
    version: i16,
    topic: Option<(OffsetFetchRequestTopics<'a>, OffsetFetchRequestTopic<'a>)>,
) -> OffsetFetchRequest<'a> {
    let (new, old) = topic.unzip();
    if version < 8 {
        let topics = old.map(|topic| vec![topic]);
        return OffsetFetchRequest { group_id: group.into(), topics, ..Default::default() };
    }
    let wanted = OffsetFetchRequestGroup {
        group_id: group.into(),
        member_epoch: -1,
        topics: new.map(|topic| vec![topic]),
        ..Default::default()
    };
    OffsetFetchRequest { groups: vec![wanted], ..Default::default() }
}

/// The first error of a commit, and how many partitions are in the answer.
fn committed(decoder: &mut Decoder<'_>, version: i16) -> Result<(ErrorCode, u64), DecodeError> {
    let answer = OffsetCommitResponse::decode(decoder, version)?;
    let codes = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code);
    let count = codes.clone().count() as u64;
    Ok((codes.into_iter().find(|code| !code.is_none()).unwrap_or_default(), count))
}

/// The first error of a fetch, and how many partitions have an offset.
fn fetched(decoder: &mut Decoder<'_>, version: i16) -> Result<(ErrorCode, u64), DecodeError> {
    let answer = OffsetFetchResponse::decode(decoder, version)?;
    let new = answer.groups.iter().flat_map(|group| &group.topics).flat_map(|topic| &topic.partitions);
    let old = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let partitions: Vec<_> = new
        .map(|partition| (partition.error_code, partition.committed_offset))
        .chain(old.map(|partition| (partition.error_code, partition.committed_offset)))
        .collect();
    let of_groups = answer.groups.iter().map(|group| group.error_code);
    let code = std::iter::once(answer.error_code)
        .chain(of_groups)
        .chain(partitions.iter().map(|(code, _)| *code))
        .find(|code| !code.is_none())
        .unwrap_or_default();
    Ok((code, partitions.iter().filter(|(_, offset)| *offset >= 0).count() as u64))
}

/// That an answer about a group says yes, of as many partitions as it was asked about.
fn check_answer(
    connection: &Connection,
    api: ApiKey,
    group: &str,
    (code, found): (ErrorCode, u64),
    asked: u64,
) -> Result<(), ClientError> {
    check_group(api, group, code, None)?;
    if found == asked {
        return Ok(());
    }
    let why = format!("it has offsets of {found} partitions of group {group}, and {asked} are there");
    Err(ClientError::Nonsense { address: connection.address, api, why })
}

/// Commits; a coordinator that was just made may not know yet that it is one.
///
/// # Errors
/// The broker fails, or says no for too long; or the user stops.
pub(super) async fn commit_patiently(
    connection: &mut Connection,
    group: &str,
    request: &OffsetCommitRequest<'_>,
) -> Result<(), ClientError> {
    let started = Instant::now();
    loop {
        let answer = connection.call(request, committed).await?;
        if stop::requested() {
            return Err(stopped());
        }
        if !answer.0.is_retriable() || started.elapsed() > COMMIT_PATIENCE {
            let asked = request.topics.iter().map(|topic| topic.partitions.len() as u64).sum();
            return check_answer(connection, ApiKey::OffsetCommit, group, answer, asked);
        }
        tokio::time::sleep(COMMIT_PAUSE).await;
    }
}

/// Commits or fetches as fast as it goes, over so many connections with so many requests under way each.
///
/// # Errors
/// The broker fails or says no, or the user stops.
pub(super) fn rate(scene: &mut Scene<'_>, call: OffsetCall, connections: usize, in_flight: usize) -> Result<OffsetRate, Error> {
    let plan = scene.plan;
    let what = if call == OffsetCall::Commit { "commits" } else { "fetches" };
    let groups: Vec<String> =
        (0..connections).map(|at| scene.group(GroupProtocol::Classic, &format!("{what}-{in_flight}-{at}"))).collect();
    let of = Of { topic: &plan.topic, id: scene.topic.id };
    let mut lanes = scene.runtime.block_on(async {
        let mut lanes = Vec::new();
        for group in &groups {
            let address = scene.coordinator(group).await?.address;
            let mut connection = Connection::open(address, plan.timeout).await?;
            commit_patiently(&mut connection, group, &of.commit(group, 0..1, 1)).await?;
            lanes.push((address, group.as_str()));
        }
        Ok::<_, ClientError>(lanes)
    })?;
    let began = Instant::now();
    let (from, end) = (began + plan.warm_up, began + plan.warm_up + plan.duration);
    let share = lanes.len().div_ceil(plan.threads);
    let mut shares = Vec::new();
    while !lanes.is_empty() {
        shares.push(lanes.split_off(lanes.len().saturating_sub(share)));
    }
    let (latencies, readings) = std::thread::scope(|scope| {
        let threads: Vec<_> = shares
            .into_iter()
            .map(|lanes| {
                scope.spawn(move || {
                    let run =
                        lanes.into_iter().map(|(address, group)| drive(plan, address, group, of, call, in_flight, from, end));
                    let latencies = runtime()?.block_on(try_join_all(run))?;
                    Ok::<_, Error>(latencies)
                })
            })
            .collect();
        std::thread::sleep(from.saturating_duration_since(Instant::now()));
        let before = (plan.pid.and_then(|pid| Reading::take(pid).ok()), Reading::take(std::process::id()).ok());
        let mut ended = Vec::new();
        while Instant::now() < end && !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(20).min(end.saturating_duration_since(Instant::now())));
        }
        let used = |pid: u32, reading: Reading| reading.used_since(pid, 0).ok();
        let broker = plan.pid.zip(before.0).and_then(|(pid, reading)| used(pid, reading));
        let own = before.1.and_then(|reading| used(std::process::id(), reading));
        for thread in threads {
            ended.push(thread.join().unwrap_or_else(|_| Err(Error::Failed("a thread of the generator panicked".to_owned()))));
        }
        (ended, (broker, own))
    });
    let mut latency = histogram();
    for thread in latencies {
        for of_lane in thread? {
            // Histograms of one kind.
            let _ = latency.add(&of_lane);
        }
    }
    let elapsed_s = plan.duration.as_secs_f64();
    let count = latency.len();
    Ok(OffsetRate {
        call,
        connections: connections as u64,
        in_flight: in_flight as u64,
        elapsed_s,
        count,
        per_s: count as f64 / elapsed_s,
        latency: summary(&latency),
        broker_cpu_us: readings.0.filter(|_| count > 0).map(|used| used.cpu_s * 1e6 / count as f64),
        generator_cpu_percent: readings.1.map_or(0.0, |used| 100.0 * used.cpu_s / elapsed_s),
    })
}

/// One connection: as many requests as may be under way, until the end. Counts those that are answered between `from` and `end`.
#[expect(clippy::too_many_arguments, reason = "each is another owner's")]
async fn drive(
    plan: &Plan,
    address: SocketAddr,
    group: &str,
    of: Of<'_>,
    call: OffsetCall,
    in_flight: usize,
    from: Instant,
    end: Instant,
) -> Result<Histogram<u64>, ClientError> {
    let api = if call == OffsetCall::Commit { ApiKey::OffsetCommit } else { ApiKey::OffsetFetch };
    let mut connection = Connection::open(address, plan.timeout).await?;
    let version = connection.versions.of(api)?;
    let mut latency = histogram();
    let mut under_way: VecDeque<(i32, Instant)> = VecDeque::new();
    let mut offset = 0;
    let mut frames = Encoder::new();
    loop {
        frames.clear();
        let now = Instant::now();
        while under_way.len() < in_flight && now < end && !stop::requested() {
            let id = if call == OffsetCall::Commit {
                offset += 1;
                connection.encode(&mut frames, &of.commit(group, 0..1, offset))?
            } else {
                connection.encode(&mut frames, &of.fetch(group, version))?
            };
            under_way.push_back((id, now));
        }
        connection.write(&frames).await?;
        // All that is here already, so that what comes together is answered together.
        loop {
            let Some((id, sent)) = under_way.pop_front() else {
                return if stop::requested() { Err(stopped()) } else { Ok(latency) };
            };
            let answer = match call {
                OffsetCall::Commit => connection.receive(api, id, committed).await?,
                OffsetCall::Fetch => connection.receive(api, id, fetched).await?,
            };
            check_answer(&connection, api, group, answer, 1)?;
            let now = Instant::now();
            if now >= from && now < end {
                record_us(&mut latency, now.duration_since(sent).as_micros() as u64, 1);
            }
            if !connection.incoming.has_frame().unwrap_or(true) {
                break;
            }
        }
    }
}

/// The groups that hold `offsets`, and how many partitions of each.
pub(crate) fn stored_groups(offsets: u32, partitions: u32) -> Vec<(String, i32)> {
    let first = (0..offsets).step_by(partitions as usize).enumerate();
    first.map(|(at, from)| (format!("ringlog-bench-stored-{at}"), partitions.min(offsets - from) as i32)).collect()
}

/// Commits many offsets, which stay.
///
/// # Errors
/// The broker fails or says no, or the user stops.
pub(super) fn store(scene: &mut Scene<'_>) -> Result<OffsetsStored, Error> {
    let plan = scene.plan;
    let groups = stored_groups(plan.offsets, plan.partitions);
    let of = Of { topic: &plan.topic, id: scene.topic.id };
    let stored = scene.runtime.block_on(async {
        let mut any = scene.connect_any().await?;
        let began = Instant::now();
        let mut connections = BTreeMap::new();
        for (group, partitions) in &groups {
            if stop::requested() {
                return Err(stopped());
            }
            let connection = to_coordinator(&mut connections, &mut any, group, plan).await?;
            commit_patiently(connection, group, &of.commit(group, 0..*partitions, 1)).await?;
        }
        Ok(ms_between(began, Instant::now()))
    });
    let ms = match stored {
        Ok(ms) => ms,
        Err(error) => {
            scene.adopt(&groups.into_iter().map(|(group, _)| group).collect::<Vec<_>>());
            return Err(error.into());
        }
    };
    scene.keeps_offsets = true;
    Ok(OffsetsStored { offsets: u64::from(plan.offsets), groups: groups.len() as u64, ms })
}

/// The connection to a group's coordinator, opened the first time.
async fn to_coordinator<'a>(
    connections: &'a mut BTreeMap<SocketAddr, Connection>,
    any: &mut Connection,
    group: &str,
    plan: &Plan,
) -> Result<&'a mut Connection, ClientError> {
    let address = find_coordinator(any, group, plan).await?.address;
    match connections.entry(address) {
        std::collections::btree_map::Entry::Occupied(open) => Ok(open.into_mut()),
        std::collections::btree_map::Entry::Vacant(free) => Ok(free.insert(Connection::open(address, plan.timeout).await?)),
    }
}

/// Waits for a broker that is starting, until it serves what [`store`] left; then that goes.
///
/// # Errors
/// The broker does not come back, fails, or does not have all; or the user stops.
pub(super) fn load(scene: &mut Scene<'_>) -> Result<OffsetsLoaded, Error> {
    let plan = scene.plan;
    let groups = stored_groups(plan.offsets, plan.partitions);
    let (answered, (offsets, served)) = scene.runtime.block_on(async {
        let started = Instant::now();
        let first = loop {
            match scene.connect_any().await {
                Ok(connection) => break connection,
                Err(error)
                    if started.elapsed() > LOAD_PATIENCE
                        || !(error.is_passing() || matches!(error, ClientError::NotKafka { .. })) =>
                {
                    return Err(error);
                }
                Err(_) if stop::requested() => return Err(stopped()),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        };
        let answered = Instant::now();
        Ok((answered, served(first, &groups, plan).await?))
    })?;
    scene.adopt(&groups.into_iter().map(|(group, _)| group).collect::<Vec<_>>());
    scene.keeps_offsets = false;
    scene.ends_topic = is_our_topic(plan);
    Ok(OffsetsLoaded { offsets, since_answer_ms: ms_between(answered, served), since_start_ms: None })
}

/// Asks for every offset that was stored until it is served: how many, and when the last one was.
///
/// # Errors
/// The broker fails, or does not have all; or the user stops.
async fn served(mut any: Connection, groups: &[(String, i32)], plan: &Plan) -> Result<(u64, Instant), ClientError> {
    let began = Instant::now();
    let mut connections = BTreeMap::new();
    let mut offsets = 0;
    let mut missing = None;
    for (group, partitions) in groups {
        let connection = to_coordinator(&mut connections, &mut any, group, plan).await?;
        let version = connection.versions.of(ApiKey::OffsetFetch)?;
        let found = loop {
            let (code, found) = connection.call(&fetch(group, version, None), fetched).await?;
            if stop::requested() {
                return Err(stopped());
            }
            if code.is_retriable() && began.elapsed() < LOAD_PATIENCE {
                tokio::time::sleep(POLL).await;
                continue;
            }
            check_group(ApiKey::OffsetFetch, group, code, None)?;
            break found;
        };
        if found != *partitions as u64 {
            missing.get_or_insert_with(|| format!("group {group} has {found} offsets where {partitions} were committed"));
        }
        offsets += found;
    }
    match missing {
        Some(why) => Err(ClientError::Unfit(format!("what was stored is not all there: {why}; --only store commits it"))),
        None => Ok((offsets, Instant::now())),
    }
}

/// For `compare`: the same as [`load`] on a broker at `address`, whose process was started at `start` and gave its first answer at
/// `answered`; nothing is removed.
///
/// # Errors
/// As [`served`].
pub(crate) fn served_at(address: SocketAddr, plan: &Plan, start: Instant, answered: Instant) -> Result<OffsetsLoaded, Error> {
    let groups = stored_groups(plan.offsets, plan.partitions);
    let served = runtime()?.block_on(async { served(Connection::open(address, plan.timeout).await?, &groups, plan).await });
    let (offsets, served) = served?;
    Ok(OffsetsLoaded { offsets, since_answer_ms: ms_between(answered, served), since_start_ms: Some(ms_between(start, served)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_groups_hold_all_offsets() {
        let groups = stored_groups(2500, 1000);
        assert_eq!(groups.iter().map(|(_, partitions)| *partitions).collect::<Vec<_>>(), [1000, 1000, 500]);
        assert_eq!(stored_groups(5, 1000), [("ringlog-bench-stored-0".to_owned(), 5)]);
    }
}
