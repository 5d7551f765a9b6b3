//! The way of a classic group to the new protocol and back (KIP-848): its members as the other side takes them.

use std::time::Duration;

use bytes::Bytes;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::consumer_protocol::PROTOCOL_TYPE;

use super::{Classic, Member, Scope, State};
use crate::group::Name;
use crate::group::request::Refusal;
use crate::group::timer::Timer;

/// A member that goes from a group of one protocol to the same group of the other.
#[derive(Debug)]
pub(in crate::group) struct Traveller {
    pub(in crate::group) member: Name,
    pub(in crate::group) instance: Option<Name>,
    pub(in crate::group) client_id: Name,
    pub(in crate::group) client_host: Name,
    pub(in crate::group) session_timeout: Duration,
    pub(in crate::group) rebalance_timeout: Duration,
    /// What it speaks, best first.
    pub(in crate::group) protocols: Vec<(Name, Bytes)>,
    /// What it says of itself in the protocol that is spoken.
    pub(in crate::group) metadata: Bytes,
    /// What it holds, as a leader says it.
    pub(in crate::group) assignment: Bytes,
}

impl Classic {
    /// The generation and the members for the new protocol.
    ///
    /// # Errors
    /// It may not go there.
    pub(in crate::group) fn to_consumer(&self, scope: &Scope<'_>) -> Result<(i32, Vec<Traveller>), Refusal> {
        let settings = scope.settings;
        let why = if !settings.allows_upgrade {
            "online upgrade is disabled"
        } else if self.protocol_type.as_deref() != Some(PROTOCOL_TYPE) {
            "the group does not use the consumer embedded protocol"
        } else if self.members.len() > settings.consumer_group_size_max {
            "the group size exceeds the consumer group maximum size"
        } else {
            let traveller = |(id, member): (&Name, &Member)| Traveller {
                member: id.clone(),
                instance: member.instance.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                session_timeout: member.session_timeout,
                rebalance_timeout: member.rebalance_timeout,
                metadata: match &self.protocol {
                    Some(protocol) => member.metadata(protocol),
                    None => member.protocols.first().map(|(_, metadata)| metadata.clone()).unwrap_or_default(),
                },
                protocols: member.protocols.clone(),
                assignment: member.assignment.clone(),
            };
            return Ok((self.generation, self.members.iter().map(traveller).collect()));
        };
        let message = format!("Cannot upgrade classic group {} to consumer group because {why}.", scope.group);
        Err(Refusal { code: ErrorCode::GROUP_ID_NOT_FOUND, message })
    }

    /// The group that one of the new protocol becomes. It is written, and its members are to join again. It has no leader before they
    /// have: should the broker stop first, that tells the next start to have them join ([`Self::begin`]). Its members were never told
    /// who leads, so that nobody would see that topics have changed.
    pub(in crate::group) fn from_consumer(generation: i32, members: Vec<Traveller>, scope: &mut Scope<'_>) -> Self {
        let mut classic = Self { generation, protocol_type: Some(PROTOCOL_TYPE.into()), state: State::Stable, ..Self::default() };
        classic.state_since = Some(scope.now.wall);
        for traveller in members {
            let id = traveller.member;
            if let Some(instance) = &traveller.instance {
                classic.statics.insert(instance.clone(), id.clone());
            }
            classic.count(&traveller.protocols);
            let mut member = Member {
                instance: traveller.instance,
                client_id: traveller.client_id,
                client_host: traveller.client_host,
                session_timeout: traveller.session_timeout,
                rebalance_timeout: traveller.rebalance_timeout,
                protocols: traveller.protocols,
                assignment: traveller.assignment,
                joining: None,
                syncing: None,
                has_synced: true,
                is_new: false,
                session: Timer::default(),
                charge: scope.usage.charge(0),
            };
            member.set_charge(&id);
            classic.members.insert(id.clone(), member);
            classic.touch(&id, scope);
        }
        classic.protocol = classic.select_protocol();
        let record = classic.record(scope.group);
        classic.has_record = true;
        scope.out.records.push(record);
        classic.prepare_rebalance(scope);
        classic
    }
}
