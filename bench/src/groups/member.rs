//! A member of either protocol, and what it does until its group has come to rest.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use ringlog_protocol::{ApiKey, ErrorCode};

use super::board::Board;
use super::classic::Classic;
use super::consumer::Consumer;
use super::{check_group, stopped};
use crate::load::client::{ClientError, Connection};
use crate::stop;

/// What a client of the classic protocol waits between two heartbeats (`heartbeat.interval.ms`).
pub(super) const CLASSIC_INTERVAL: Duration = Duration::from_secs(3);

/// What a member is, and what it knows of its group; it asks over whatever connection it is given.
#[derive(Debug)]
pub(super) enum Role {
    /// Of a classic group.
    Classic(Box<Classic>),
    /// Of one that speaks KIP-848.
    Consumer(Box<Consumer>),
}

impl Role {
    /// Does what a member does, with a heartbeat every `beat`, until the board says that all is dealt out; since when it is.
    ///
    /// # Errors
    /// The broker fails or says no, it takes too long, or the user stops.
    pub(super) async fn settle(
        &mut self,
        connection: &mut Connection,
        seat: usize,
        board: &Board,
        beat: Duration,
    ) -> Result<Instant, ClientError> {
        loop {
            let owned = match self {
                Self::Classic(member) => member.step(connection, seat, board).await?,
                Self::Consumer(member) => member.step(connection, seat, board).await?,
            };
            if let Some(owned) = owned {
                board.owns(seat, owned);
            }
            if let Some(dealt_out) = board.dealt_out() {
                return Ok(dealt_out);
            }
            if stop::requested() {
                return Err(stopped());
            }
            if let Some(why) = board.overdue() {
                return Err(ClientError::Unfit(why));
            }
            tokio::time::sleep(beat).await;
        }
    }

    /// Says that it is there; what the broker says to that.
    pub(super) async fn heartbeat(&mut self, connection: &mut Connection) -> Result<ErrorCode, ClientError> {
        match self {
            Self::Classic(member) => member.heartbeat(connection).await,
            Self::Consumer(member) => member.heartbeat(connection).await,
        }
    }

    /// Says that it is there.
    ///
    /// # Errors
    /// The broker fails, or does not know it as a member that has nothing else to do.
    pub(super) async fn stay(&mut self, connection: &mut Connection) -> Result<(), ClientError> {
        let code = self.heartbeat(connection).await?;
        match self {
            Self::Classic(member) => check_group(ApiKey::Heartbeat, &member.group, code, None),
            Self::Consumer(member) => check_group(ApiKey::ConsumerGroupHeartbeat, &member.group, code, None),
        }
    }

    /// How often a real client would say so.
    pub(super) fn interval(&self) -> Duration {
        match self {
            Self::Classic(_) => CLASSIC_INTERVAL,
            Self::Consumer(member) => Duration::from_millis(member.interval_ms.max(1) as u64),
        }
    }

    /// Its id and generation or epoch, for its commits.
    pub(super) fn identity(&self) -> (&str, i32) {
        match self {
            Self::Classic(member) => member.identity(),
            Self::Consumer(member) => member.identity(),
        }
    }
}

/// A member with a connection of its own.
#[derive(Debug)]
pub(super) struct Member {
    pub connection: Connection,
    pub role: Role,
}

impl Member {
    /// See [`Role::settle`].
    pub(super) async fn settle(&mut self, seat: usize, board: &Board, beat: Duration) -> Result<Instant, ClientError> {
        self.role.settle(&mut self.connection, seat, board, beat).await
    }

    /// What makes it, who has joined, join again with its next step.
    pub(super) async fn begin_again(&mut self) -> Result<(), ClientError> {
        match &mut self.role {
            Role::Classic(member) => {
                member.begin_again();
                Ok(())
            }
            Role::Consumer(member) => member.begin_again(&mut self.connection).await,
        }
    }

    /// See [`Role::heartbeat`].
    pub(super) async fn heartbeat(&mut self) -> Result<ErrorCode, ClientError> {
        self.role.heartbeat(&mut self.connection).await
    }

    /// See [`Role::stay`].
    pub(super) async fn stay(&mut self) -> Result<(), ClientError> {
        self.role.stay(&mut self.connection).await
    }

    /// See [`Role::interval`].
    pub(super) fn interval(&self) -> Duration {
        self.role.interval()
    }

    /// Says that it goes.
    pub(super) async fn leave(&mut self) -> Result<(), ClientError> {
        match &self.role {
            Role::Classic(member) => member.leave(&mut self.connection).await,
            Role::Consumer(member) => member.leave(&mut self.connection).await,
        }
    }
}

/// Lets all of a group settle, in the order of their seats; since when all is dealt out.
///
/// # Errors
/// As [`Member::settle`].
pub(super) async fn settle_all(members: &mut [Member], board: &Board, beat: Duration) -> Result<Instant, ClientError> {
    let settled = members.iter_mut().enumerate().map(|(seat, member)| member.settle(seat, board, beat));
    let settled = try_join_all(settled).await?;
    // They have it from the same board.
    Ok(*settled.first().unwrap_or_else(|| unreachable!("a group has members")))
}
