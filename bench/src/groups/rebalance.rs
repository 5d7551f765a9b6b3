//! Until partitions have members again: after many joined, after one of two left, after one of two vanished.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::board::Board;
use super::member::{Member, settle_all};
use super::scene::Scene;
use super::{median, ms_between, stopped};
use crate::error::Error;
use crate::load::client::ClientError;
use crate::results::{Cause, GroupProtocol, Rebalance, Takeover};
use crate::stop;

/// How long a group may take to come to rest, beyond what it has to wait for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Session timeout of members whose session is not what is measured.
const SESSION: Duration = Duration::from_secs(45);

/// The members of one group join at once, again and again: from the last one's joining until each has its partitions.
///
/// # Errors
/// The broker fails or says no, the group does not come to rest, or the user stops.
pub(super) fn rebalance(scene: &mut Scene<'_>, protocol: GroupProtocol) -> Result<Rebalance, Error> {
    let plan = scene.plan;
    let group = scene.group(protocol, "rebalance");
    let times = scene.runtime.block_on(async {
        let mut members = scene.members(protocol, &group, plan.members, SESSION).await?;
        let mut times = Vec::new();
        for round in 0..=plan.rounds {
            if round > 0 {
                try_join_all(members.iter_mut().map(Member::begin_again)).await?;
            }
            let board = Board::new(plan.members, plan.partitions, PATIENCE);
            let dealt_out = settle_all(&mut members, &board, plan.beat).await?;
            let joined = board.last_joined().unwrap_or_else(|| unreachable!("who has partitions has joined"));
            times.push(ms_between(joined, dealt_out));
        }
        try_join_all(members.iter_mut().map(Member::leave)).await?;
        Ok::<_, ClientError>(times)
    })?;
    let (first, times) = times.split_first().map_or((0.0, &[][..]), |(first, times)| (*first, times));
    Ok(Rebalance {
        protocol,
        members: plan.members as u64,
        partitions: u64::from(plan.partitions),
        first_ms: first,
        times_ms: times.to_vec(),
        median_ms: median(times),
    })
}

/// Two members share the topic and one of them goes: until the other one has all of it.
///
/// # Errors
/// As [`rebalance`].
pub(super) fn takeover(scene: &mut Scene<'_>, protocol: GroupProtocol, cause: Cause) -> Result<Takeover, Error> {
    let plan = scene.plan;
    let groups: Vec<String> = (0..plan.rounds).map(|round| scene.group(protocol, &format!("{}-{round}", name(cause)))).collect();
    let session = match (cause, protocol) {
        (Cause::Vanish, GroupProtocol::Classic) => plan.session,
        (Cause::Vanish, GroupProtocol::Consumer) => scene.consumer_session(&groups[0])?,
        (Cause::Leave, _) => Duration::ZERO,
    };
    let times = scene.runtime.block_on(async {
        let mut times = Vec::new();
        if cause == Cause::Leave {
            for group in &groups {
                times.push(after_leaving(scene, protocol, group).await?);
            }
        } else {
            // Their sessions run out side by side.
            times = try_join_all(groups.iter().map(|group| after_vanishing(scene, protocol, group, session))).await?;
        }
        Ok::<_, ClientError>(times)
    })?;
    Ok(Takeover { protocol, cause, session_ms: session.as_millis() as u64, median_ms: median(&times), times_ms: times })
}

async fn after_leaving(scene: &Scene<'_>, protocol: GroupProtocol, group: &str) -> Result<f64, ClientError> {
    let (mut stays, mut goes) = pair(scene, protocol, group, SESSION).await?;
    let board = Board::new(1, scene.plan.partitions, PATIENCE);
    let began = Instant::now();
    // One after the other: a heartbeat that overtook the leave would cost, or not, a whole wait until the next.
    goes.leave().await?;
    let dealt_out = stays.settle(0, &board, scene.plan.beat).await?;
    stays.leave().await?;
    Ok(ms_between(began, dealt_out))
}

/// Beyond the session timeout, which begins with the last heartbeat.
async fn after_vanishing(scene: &Scene<'_>, protocol: GroupProtocol, group: &str, session: Duration) -> Result<f64, ClientError> {
    let (mut stays, mut goes) = pair(scene, protocol, group, session).await?;
    let board = Board::new(1, scene.plan.partitions, PATIENCE + session);
    let last = Instant::now();
    goes.stay().await?;
    drop(goes);
    let dealt_out = stays.settle(0, &board, scene.plan.beat).await?;
    stays.leave().await?;
    Ok(ms_between(last, dealt_out) - session.as_secs_f64() * 1e3)
}

/// Two members that share the topic.
async fn pair(
    scene: &Scene<'_>,
    protocol: GroupProtocol,
    group: &str,
    session: Duration,
) -> Result<(Member, Member), ClientError> {
    if stop::requested() {
        return Err(stopped());
    }
    let session = if protocol == GroupProtocol::Consumer { SESSION } else { session };
    let mut members = scene.members(protocol, group, 2, session).await?;
    let board = Board::new(2, scene.plan.partitions, PATIENCE);
    settle_all(&mut members, &board, scene.plan.beat).await?;
    match (members.pop(), members.pop()) {
        (Some(goes), Some(stays)) => Ok((stays, goes)),
        _ => unreachable!("two were made"),
    }
}

fn name(cause: Cause) -> &'static str {
    match cause {
        Cause::Leave => "leave",
        Cause::Vanish => "vanish",
    }
}
