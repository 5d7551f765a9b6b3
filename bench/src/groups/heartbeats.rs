//! Many members that do nothing but say that they are there, as often as real clients do, each over a connection of its own.

use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use hdrhistogram::Histogram;

use super::board::Board;
use super::member::{Member, settle_all};
use super::options::{GROUP_MEMBERS, Plan};
use super::scene::Scene;
use super::stopped;
use crate::error::Error;
use crate::load::client::ClientError;
use crate::load::measure::{histogram, record_us, summary};
use crate::process::Reading;
use crate::results::{GroupProtocol, Heartbeats};
use crate::stop;

/// How often members ask while thousands of them settle.
const BEAT: Duration = Duration::from_secs(1);
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// Longer than settling takes.
const SESSION: Duration = Duration::from_secs(60);
/// Descriptors for what is no member's connection.
const FILES_SPARE: u64 = 64;

/// Lets the members join, and then watches their heartbeats.
///
/// # Errors
/// The broker fails, says no, or loses a member; or the user stops.
pub(super) fn measure(scene: &mut Scene<'_>, protocol: GroupProtocol) -> Result<Heartbeats, Error> {
    let plan = scene.plan;
    let count = plan.heartbeat_members;
    check_file_limit(count)?;
    let sizes: Vec<usize> = (0..count).step_by(GROUP_MEMBERS).map(|first| GROUP_MEMBERS.min(count - first)).collect();
    let groups: Vec<String> = (0..sizes.len()).map(|at| scene.group(protocol, &format!("heartbeats-{at}"))).collect();
    let heartbeats = scene.runtime.block_on(async {
        let mut members = Vec::new();
        for (group, size) in groups.iter().zip(&sizes) {
            members.push(scene.members(protocol, group, *size, SESSION).await?);
        }
        let boards: Vec<_> = sizes.iter().map(|size| Board::new(*size, plan.partitions, PATIENCE)).collect();
        settle(&mut members, &boards).await?;
        let mut members: Vec<Member> = members.into_iter().flatten().collect();
        let interval = members.first().map_or(Duration::from_secs(1), Member::interval);
        let watched = watch(plan, interval, plan.pid, &mut members, Member::stay).await?;
        for at_once in members.chunks_mut(GROUP_MEMBERS) {
            // What does not go now is made to at the end.
            join_all(at_once.iter_mut().map(Member::leave)).await;
        }
        Ok::<_, ClientError>((interval, watched))
    });
    let (interval, watched) = heartbeats?;
    Ok(Heartbeats {
        protocol,
        members: count as u64,
        groups: groups.len() as u64,
        interval_ms: interval.as_millis() as u64,
        elapsed_s: watched.elapsed_s,
        count: watched.latency.len(),
        per_s: watched.latency.len() as f64 / watched.elapsed_s,
        latency: summary(&watched.latency),
        broker_cpu_percent: watched.served_percent,
        generator_cpu_percent: watched.own_percent,
    })
}

/// Refuses more connections than this process may have.
pub(super) fn check_file_limit(count: usize) -> Result<(), Error> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match limit.filter(|limit| count as u64 + FILES_SPARE > *limit) {
        Some(limit) => Err(Error::Usage(format!(
            "{count} members take as many connections, and this process may have {limit} files open (ulimit -n): fewer with --heartbeat-members"
        ))),
        None => Ok(()),
    }
}

/// Lets every group come to rest. Those that have may have to wait for others, and say meanwhile that they are there.
async fn settle(groups: &mut [Vec<Member>], boards: &[Board]) -> Result<(), ClientError> {
    let all_done = || boards.iter().all(|board| board.dealt_out().is_some());
    let one = async |members: &mut Vec<Member>, board: &Board| {
        settle_all(members, board, BEAT).await?;
        while !all_done() {
            if stop::requested() {
                return Err(stopped());
            }
            tokio::time::sleep(BEAT).await;
            for answered in join_all(members.iter_mut().map(Member::heartbeat)).await {
                answered?;
            }
        }
        Ok(())
    };
    try_join_all(groups.iter_mut().zip(boards).map(|(members, board)| one(members, board))).await.map(drop)
}

/// What was seen of heartbeats, or of what is like them.
pub(super) struct Watched {
    pub(super) elapsed_s: f64,
    /// From sending to answer.
    pub(super) latency: Histogram<u64>,
    /// The CPU time of whoever answers, per cent of one core, where its process is known.
    pub(super) served_percent: Option<f64>,
    /// Our own.
    pub(super) own_percent: f64,
}

/// Sends every member's heartbeats at its interval, evenly apart from the others'. `pid` answers them.
pub(super) async fn watch<M>(
    plan: &Plan,
    interval: Duration,
    pid: Option<u32>,
    members: &mut [M],
    beat: impl AsyncFn(&mut M) -> Result<(), ClientError>,
) -> Result<Watched, ClientError> {
    let count = members.len();
    let began = tokio::time::Instant::now();
    let (from, end) = (began + plan.warm_up, began + plan.warm_up + plan.duration);
    let latency = std::cell::RefCell::new(histogram());
    let one = async |at: usize, member: &mut M| {
        let mut due = began + interval.mul_f64(at as f64 / count as f64);
        while due < end {
            tokio::time::sleep_until(due).await;
            if stop::requested() {
                return Err(stopped());
            }
            let sent = Instant::now();
            beat(member).await?;
            if due >= from {
                record_us(&mut latency.borrow_mut(), sent.elapsed().as_micros() as u64, 1);
            }
            due += interval;
        }
        Ok(())
    };
    let all = try_join_all(members.iter_mut().enumerate().map(|(at, member)| one(at, member)));
    let readings = async {
        tokio::time::sleep_until(from).await;
        let readings = (pid.and_then(|pid| Reading::take(pid).ok()), Reading::take(std::process::id()).ok(), Instant::now());
        tokio::time::sleep_until(end).await;
        let elapsed_s = readings.2.elapsed().as_secs_f64();
        let percent = |pid: u32, reading: Reading| Some(100.0 * reading.used_since(pid, 0).ok()?.cpu_s / elapsed_s);
        let served = pid.zip(readings.0).and_then(|(pid, reading)| percent(pid, reading));
        Ok((elapsed_s, served, readings.1.and_then(|reading| percent(std::process::id(), reading))))
    };
    let (_, (elapsed_s, served_percent, own)) = tokio::try_join!(all, readings)?;
    Ok(Watched { elapsed_s, latency: latency.into_inner(), served_percent, own_percent: own.unwrap_or(0.0) })
}
