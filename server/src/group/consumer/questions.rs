//! What is asked of a group without changing it: who may commit and read offsets, and what there is to see of it.

use std::collections::BTreeSet;

use ringlog_protocol::{ErrorCode, Uuid};

use super::reconcile::Place;
use super::{Consumer, Member, Partitions, Seat, all_of};
use crate::group::request::{DescribedConsumer, DescribedConsumers, Identity};
use crate::group::topics::TopicView;
use crate::group::{Name, Settings};

impl Consumer {
    /// Whether offsets of these partitions may be committed by whoever says that it is this member. A member that is at a newer
    /// epoch by now, of either protocol, may commit what it has held since the one that it names, and what it is to give up and has
    /// not said that it gave up (KIP-1251).
    pub(in crate::group) fn check_commit(
        &self,
        identity: &Identity,
        knows_epochs: bool,
        mut partitions: impl Iterator<Item = (Uuid, i32)>,
    ) -> Result<(), ErrorCode> {
        if identity.generation < 0 && self.is_empty() {
            return Ok(());
        }
        let member = &self.seats.get(&identity.member).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?.member;
        if !member.is_classic() && !knows_epochs {
            return Err(ErrorCode::UNSUPPORTED_VERSION);
        }
        let (place, generation) = (&member.place, identity.generation);
        if generation == place.epoch {
            return Ok(());
        }
        let has_held = |(topic, partition): (Uuid, i32)| {
            let mut held = [&place.assigned, &place.revoking].into_iter();
            let since = held.find_map(|held| held.get(&topic)?.get(&partition));
            since.is_some_and(|since| *since <= generation)
        };
        let is_known = (0..place.epoch).contains(&generation) && partitions.all(has_held);
        match is_known {
            true => Ok(()),
            false if member.is_classic() => Err(ErrorCode::ILLEGAL_GENERATION),
            false => Err(ErrorCode::STALE_MEMBER_EPOCH),
        }
    }

    /// Whether a member may read the group's offsets. Who says that it is none may.
    pub(in crate::group) fn check_fetch(&self, identity: &Identity) -> Result<(), ErrorCode> {
        if identity.member.is_empty() && identity.generation < 0 {
            return Ok(());
        }
        let member = &self.seats.get(&identity.member).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?.member;
        match identity.generation == member.place.epoch {
            true => Ok(()),
            false if member.is_classic() => Err(ErrorCode::ILLEGAL_GENERATION),
            false => Err(ErrorCode::STALE_MEMBER_EPOCH),
        }
    }

    /// The group with its members.
    pub(in crate::group) fn describe(&self, settings: &Settings, topics: &dyn TopicView) -> DescribedConsumers {
        let named = |partitions: &Partitions| {
            let topic = |(id, partitions): (&Uuid, &BTreeSet<i32>)| {
                Some((*id, topics.name_of(*id)?, partitions.iter().copied().collect()))
            };
            partitions.iter().filter_map(topic).collect()
        };
        // What it is to give up is its until it says that it gave it up.
        let held = |place: &Place| {
            let mut held = Partitions::new();
            for (topic, partition) in all_of(place) {
                held.get_or_default(topic).insert(partition);
            }
            held
        };
        let member = |(id, seat): (&Name, &Seat)| {
            let Member { instance, rack, client_id, client_host, topics, regex, classic, place, .. } = &seat.member;
            DescribedConsumer {
                member: id.clone(),
                instance: instance.clone(),
                rack: rack.clone(),
                epoch: place.epoch,
                client_id: client_id.clone(),
                client_host: client_host.clone(),
                topics: topics.iter().cloned().collect(),
                regex: regex.clone(),
                assigned: named(&held(place)),
                target: self.targets.get(id).map(named).unwrap_or_default(),
                is_classic: classic.is_some(),
            }
        };
        DescribedConsumers {
            state: self.state_name(),
            epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            assignor: self.assignor(settings).name(),
            members: self.seats.iter().map(member).collect(),
        }
    }

    /// The epoch of the group, and that of its assignment.
    #[cfg(test)]
    pub(in crate::group) fn epochs(&self) -> (i32, i32) {
        (self.epoch, self.assignment_epoch)
    }

    /// What the tables of patterns take.
    #[cfg(test)]
    pub(in crate::group) fn tables_bytes(&self) -> usize {
        self.patterns.values().map(super::Resolved::table_bytes).sum()
    }

    /// How many topics a pattern matched.
    #[cfg(test)]
    pub(in crate::group) fn matched(&self, regex: &str) -> usize {
        self.patterns.get(regex).map_or(0, |resolved| resolved.topics.len())
    }
}
