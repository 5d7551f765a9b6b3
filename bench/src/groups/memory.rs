//! What groups that do nothing take of a broker's memory: what its process has more of after many were made than before. Their
//! members say that they are there as often as real ones do, over a few connections that are there from the beginning.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::board::Board;
use super::member::Role;
use super::offsets::{Of, commit_patiently};
use super::scene::{Scene, connect_all};
use super::stopped;
use crate::error::Error;
use crate::load::client::{ClientError, Connection};
use crate::process::anonymous_bytes;
use crate::results::{GroupMemory, GroupProtocol};
use crate::stop;

/// Connections of all members together: as many groups are made at once.
const CONNECTIONS: usize = 128;
/// Groups that are made between two looks at who has to say that it is there.
const MADE_AT_ONCE: usize = 4 * CONNECTIONS;
/// Which part of the groups is made, beside them, before the first reading: what a broker takes once and uses again, for its log as well,
/// is not theirs.
const FIRST_SHARE: usize = 2;
/// How long the only member of a group may take to have its partitions.
const PATIENCE: Duration = Duration::from_secs(60);
/// Session timeout of classic members; they need not hurry. KIP-848's is the broker's.
const SESSION: Duration = Duration::from_secs(300);
/// Between two looks at the clock while the broker rests.
const TICK: Duration = Duration::from_millis(200);

/// Makes groups without members, then with one of each protocol, and reads the process's memory in between. `measured` has each
/// kind as soon as it is known.
///
/// # Errors
/// The broker fails, says no, loses a member, or ends; or the user stops.
pub(super) fn measure(scene: &mut Scene<'_>, protocols: &[GroupProtocol], measured: &mut Vec<GroupMemory>) -> Result<(), Error> {
    let plan = scene.plan;
    let Some(pid) = plan.pid else { return Err(Error::Usage("memory: --pid is not given".to_owned())) };
    let read = || anonymous_bytes(pid).map_err(|error| Error::Failed(format!("--pid {pid}: {error}")));
    scene.notes.push(format!(
        "memory: what process {pid} has more of anonymous memory (RssAnon) after so many groups were made than before, each time \
         after a rest of {:?}; each member has {} partitions. Buffers that the broker keeps for later count as far as they grew \
         meanwhile, and of a virtual machine's heap what was not collected",
        plan.rest, plan.partitions
    ));
    let mut names = |what: &str, count: usize, member: Option<GroupProtocol>| {
        let kind = if member.is_none() { "offsets-" } else { "" };
        let name = |at| scene.group(member.unwrap_or_default(), &format!("{kind}{what}-{at:06}"));
        (member, (0..count).map(name).collect::<Vec<_>>())
    };
    let kinds: Vec<Option<GroupProtocol>> = std::iter::once(None).chain(protocols.iter().copied().map(Some)).collect();
    let first: Vec<_> = kinds.iter().map(|kind| names("first", plan.idle_groups.div_ceil(FIRST_SHARE), *kind)).collect();
    let idle: Vec<_> = kinds.iter().map(|kind| names("idle", plan.idle_groups, *kind)).collect();

    let scene = &*scene;
    let some: Vec<&String> = first.iter().flat_map(|(_, groups)| groups.iter().take(CONNECTIONS)).collect();
    let mut crowd = scene.runtime.block_on(Crowd::gather(scene, &some))?;
    for (kind, groups) in &first {
        scene.runtime.block_on(crowd.make(*kind, groups))?;
    }
    scene.runtime.block_on(crowd.rest())?;
    let mut before_bytes = read()?;
    for (member, groups) in &idle {
        scene.runtime.block_on(crowd.make(*member, groups))?;
        scene.runtime.block_on(crowd.rest())?;
        let after_bytes = read()?;
        measured.push(GroupMemory {
            member: *member,
            groups: groups.len() as u64,
            before_bytes,
            after_bytes,
            each_bytes: after_bytes.saturating_sub(before_bytes) as f64 / groups.len() as f64,
        });
        before_bytes = after_bytes;
    }
    Ok(())
}

/// All members, and the connections over which they speak in turn.
struct Crowd<'a> {
    scene: &'a Scene<'a>,
    connections: Vec<Connection>,
    members: Vec<Role>,
    /// When they last said that they are there.
    beaten: Instant,
}

impl<'a> Crowd<'a> {
    /// Nobody yet. One process is measured, so that all groups have to be its: `some` of them are looked up.
    async fn gather(scene: &'a Scene<'a>, some: &[&String]) -> Result<Self, ClientError> {
        let mut addresses = Vec::with_capacity(some.len());
        for group in some {
            addresses.push(scene.coordinator(group).await?.address);
        }
        let Some(address) = addresses.first().copied() else { return Err(stopped()) };
        if let Some(other) = addresses.iter().find(|other| **other != address) {
            return Err(ClientError::Unfit(format!(
                "{address} and {other} are coordinators: memory is measured where one broker has all groups"
            )));
        }
        let connections = connect_all(address, CONNECTIONS, scene.plan.timeout).await?;
        Ok(Self { scene, connections, members: Vec::new(), beaten: Instant::now() })
    }

    /// Makes groups; their members join the crowd.
    async fn make(&mut self, member: Option<GroupProtocol>, groups: &[String]) -> Result<(), ClientError> {
        for groups in groups.chunks(MADE_AT_ONCE) {
            let share = groups.len().div_ceil(self.connections.len());
            let lanes = self.connections.iter_mut().zip(groups.chunks(share));
            let scene = self.scene;
            let made = try_join_all(lanes.map(|(connection, groups)| make_over(scene, connection, member, groups))).await?;
            self.members.extend(made.into_iter().flatten());
            self.beat_if_due().await?;
        }
        Ok(())
    }

    /// Lets time pass for the broker to come to rest.
    async fn rest(&mut self) -> Result<(), ClientError> {
        let end = Instant::now() + self.scene.plan.rest;
        while Instant::now() < end {
            tokio::time::sleep(TICK.min(end.saturating_duration_since(Instant::now()))).await;
            self.beat_if_due().await?;
        }
        Ok(())
    }

    /// Everybody says that it is there, if it is time for that.
    async fn beat_if_due(&mut self) -> Result<(), ClientError> {
        if stop::requested() {
            return Err(stopped());
        }
        let Some(interval) = self.members.iter().map(Role::interval).min() else { return Ok(()) };
        if self.beaten.elapsed() < interval {
            return Ok(());
        }
        self.beaten = Instant::now();
        let share = self.members.len().div_ceil(self.connections.len());
        let lanes = self.connections.iter_mut().zip(self.members.chunks_mut(share));
        try_join_all(lanes.map(|(connection, members)| stay_over(connection, members))).await.map(drop)
    }
}

/// Makes groups over one connection, one after the other; their members.
async fn make_over(
    scene: &Scene<'_>,
    connection: &mut Connection,
    member: Option<GroupProtocol>,
    groups: &[String],
) -> Result<Vec<Role>, ClientError> {
    let of = Of { topic: &scene.plan.topic, id: scene.topic.id };
    let mut members = Vec::new();
    for group in groups {
        if stop::requested() {
            return Err(stopped());
        }
        let mut commit = of.commit(group, 0..1, 1);
        let mut role = None;
        if let Some(protocol) = member {
            let role = role.insert(scene.role(protocol, group, SESSION));
            let board = Board::new(1, scene.plan.partitions, PATIENCE);
            role.settle(connection, 0, &board, scene.plan.beat).await?;
            let (id, generation) = role.identity();
            (commit.member_id, commit.generation_id_or_member_epoch) = (id.to_owned().into(), generation);
        }
        commit_patiently(connection, group, &commit).await?;
        members.extend(role);
    }
    Ok(members)
}

async fn stay_over(connection: &mut Connection, members: &mut [Role]) -> Result<(), ClientError> {
    for member in members {
        if stop::requested() {
            return Err(stopped());
        }
        member.stay(connection).await?;
    }
    Ok(())
}
