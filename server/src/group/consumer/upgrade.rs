//! A group with members goes from the classic protocol to the new one when the first member comes that speaks the new one, and back
//! when the last such member has gone (`group.consumer.migration.policy`).

use std::time::Duration;

use ringlog_protocol::ErrorCode;
use ringlog_protocol::consumer_protocol::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};

use super::classic_member::assignment_bytes;
use super::reconcile::{Held, Place, Progress};
use super::{ClassicClient, Consumer, Member, Seat, in_order, partitions_of, records, refuse};
use crate::group::Name;
use crate::group::classic::{Scope, Traveller};
use crate::group::request::Refusal;

impl Consumer {
    /// The group that a classic one of this generation becomes, with its members as they are.
    ///
    /// # Errors
    /// What its members say of themselves is not understood, or would be lost.
    pub(in crate::group) fn from_classic(
        generation: i32,
        members: Vec<Traveller>,
        scope: &mut Scope<'_>,
    ) -> Result<Self, Refusal> {
        let group = scope.group;
        let impossible = |why: &str| {
            refuse(
                ErrorCode::GROUP_ID_NOT_FOUND,
                format!("Cannot upgrade classic group {group} to consumer group because {why}."),
            )
        };
        let mut consumer = Self::new(scope.usage);
        (consumer.epoch, consumer.assignment_epoch) = (generation, generation);
        for traveller in members {
            let Ok(wish) = ConsumerProtocolSubscription::from_metadata(&traveller.metadata) else {
                return impossible("the embedded consumer protocol is malformed");
            };
            let mut assigned = Held::new();
            if !traveller.assignment.is_empty() {
                let Ok(part) = ConsumerProtocolAssignment::from_assignment(&traveller.assignment) else {
                    return impossible("the embedded consumer protocol is malformed");
                };
                if part.user_data.as_ref().is_some_and(|data| !data.is_empty()) {
                    return impossible("an unsupported custom assignor is in use");
                }
                for topic in &part.assigned_partitions {
                    let Some((id, count)) = scope.topics.by_name(&topic.topic) else { continue };
                    for partition in topic.partitions.iter().filter(|partition| (0..count).contains(*partition)) {
                        // A leader may have given one twice: nobody else's then.
                        if !consumer.owners.contains_key(&(id, *partition)) {
                            assigned.get_or_default(id).insert(*partition, generation);
                        }
                    }
                }
            }
            let id = traveller.member;
            let member = Member {
                instance: traveller.instance,
                rack: wish.rack_id.as_deref().filter(|rack| !rack.is_empty()).map(Name::from),
                client_id: traveller.client_id,
                client_host: traveller.client_host,
                rebalance_timeout_ms: i32::try_from(traveller.rebalance_timeout.as_millis()).unwrap_or(i32::MAX),
                topics: in_order(wish.topics.iter().map(|topic| Name::from(&**topic))),
                regex: None,
                assignor: None,
                classic: Some(Box::new(ClassicClient {
                    session_timeout: traveller.session_timeout,
                    protocols: traveller.protocols,
                })),
                place: Place::default(),
            };
            // What the classic protocol keeps of it in one record is its part of the group's; here it has records of its own.
            let held_bytes: usize = assigned.values().map(|partitions| 32 + 8 * partitions.len()).sum();
            if member.record_bytes(&id, group).max(held_bytes) > scope.record_bytes_max {
                return impossible("a member takes more than a record may");
            }
            consumer.seat(&id, member, scope.usage);
            consumer.targets.insert(id.clone(), partitions_of(&assigned));
            let place = Place {
                epoch: generation,
                previous_epoch: generation,
                progress: Progress::Stable,
                assigned,
                revoking: Held::new(),
            };
            consumer.move_to(&id, place);
        }
        consumer.charge_targets();
        Ok(consumer)
    }

    /// Writes all of a group that was made from a classic one, and lets its members' sessions go on.
    pub(in crate::group) fn write_all(&mut self, scope: &mut Scope<'_>) {
        let group = scope.group;
        scope.out.records.push(records::group(group, Some((self.epoch, self.metadata_hash))));
        for (id, seat) in &self.seats {
            let records = [
                records::member(group, id, Some(&seat.member)),
                records::target(group, id, self.targets.get(id)),
                records::place(group, id, Some(&seat.member.place)),
            ];
            scope.out.records.extend(records);
        }
        scope.out.records.push(records::assignment_epoch(group, Some((self.assignment_epoch, self.assigned_at))));
        let ids: Vec<Name> = self.seats.keys().cloned().collect();
        for id in &ids {
            self.touch(id, scope);
        }
    }

    /// Whether nobody in it speaks the new protocol any more, and it may be a classic group again.
    pub(in crate::group) fn is_classic_again(&self, scope: &Scope<'_>) -> bool {
        let settings = scope.settings;
        let is_allowed = settings.allows_downgrade && self.seats.len() <= settings.group_size_max;
        let are_classic = is_allowed && !self.is_empty() && self.census.classic_count() == self.seats.len();
        are_classic && self.fits_into_one_record(scope)
    }

    /// Whether all members fit into the one record of a classic group; here each has its own. A group that is too large stays as it
    /// is, and is looked at again in its next epoch.
    fn fits_into_one_record(&self, scope: &Scope<'_>) -> bool {
        if self.too_large_at.get() == Some(self.epoch) {
            return false;
        }
        let bytes: usize = self.seats.iter().map(|(id, seat)| classic_bytes(id, seat, scope)).sum();
        let fits = bytes + scope.group.len() + 256 <= scope.record_bytes_max;
        self.too_large_at.set((!fits).then_some(self.epoch));
        fits
    }

    /// Its generation and members as those of a classic group.
    pub(in crate::group) fn to_classic(&self, scope: &Scope<'_>) -> (i32, Vec<Traveller>) {
        let traveller = |(id, seat): (&Name, &Seat)| {
            let member = &seat.member;
            let classic = member
                .classic
                .as_deref()
                .cloned()
                .unwrap_or(ClassicClient { session_timeout: Duration::ZERO, protocols: Vec::new() });
            let metadata = classic.protocols.first().map(|(_, metadata)| metadata.clone()).unwrap_or_default();
            Traveller {
                member: id.clone(),
                instance: member.instance.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                session_timeout: classic.session_timeout,
                rebalance_timeout: Duration::from_millis(u64::try_from(member.rebalance_timeout_ms).unwrap_or(0)),
                assignment: assignment_bytes(&member.place.assigned, &metadata, scope.topics),
                protocols: classic.protocols,
                metadata,
            }
        };
        (self.epoch, self.seats.iter().map(traveller).collect())
    }
}

/// What a member takes in the record of a classic group, or more: what it says in the protocol that is longest, and what it holds.
fn classic_bytes(id: &Name, seat: &Seat, scope: &Scope<'_>) -> usize {
    let member = &seat.member;
    let protocols = member.classic.iter().flat_map(|classic| &classic.protocols);
    let metadata = protocols.map(|(_, metadata)| metadata.len()).max().unwrap_or(0);
    let assigned = member.place.assigned.iter();
    let assignment: usize = assigned
        .map(|(topic, partitions)| scope.topics.name_of(*topic).map_or(0, |name| name.len() + 8 + 4 * partitions.len()))
        .sum();
    let instance = member.instance.as_ref().map_or(0, |name| name.len());
    id.len() + instance + member.client_id.len() + member.client_host.len() + metadata + assignment + 64
}
