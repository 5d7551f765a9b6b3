//! How members go: they say so, they are silent for too long, or another comes in their place.

use ringlog_protocol::ErrorCode;

use super::reconcile::Held;
use super::{Consumer, JOINS, LEAVES_FOR_NOW, ms, records, refuse};
use crate::group::Name;
use crate::group::classic::Scope;
use crate::group::request::{Beat, ConsumerHeartbeat, Refusal};

impl Consumer {
    /// A member says that it goes; a static one may say that it comes back.
    pub(super) fn leave(&mut self, beat: &ConsumerHeartbeat, scope: &mut Scope<'_>) -> Result<Beat, Refusal> {
        let id = match &beat.instance {
            None => &beat.member,
            Some(instance) => match self.statics.get(instance) {
                None => return refuse(ErrorCode::UNKNOWN_MEMBER_ID, format!("Instance id {instance} is unknown.")),
                Some(holder) if *holder != beat.member => {
                    let message =
                        format!("Static member {} with instance id {instance} was fenced by member {holder}.", beat.member);
                    return refuse(ErrorCode::FENCED_INSTANCE_ID, message);
                }
                Some(holder) => holder,
            },
        };
        let id = id.clone();
        let Some(seat) = self.seats.get_mut(&id) else {
            return refuse(ErrorCode::UNKNOWN_MEMBER_ID, format!("Member {id} is not a member of the group."));
        };
        if beat.epoch == LEAVES_FOR_NOW {
            // Its session goes on: when it ends, the member is out.
            let mut place = seat.member.place.clone();
            (place.epoch, place.revoking) = (LEAVES_FOR_NOW, Held::new());
            seat.revocation.clear();
            scope.out.records.push(records::place(scope.group, &id, Some(&place)));
            self.move_to(&id, place);
        } else {
            self.remove(&[id], scope);
        }
        let interval = ms(scope.config.consumer_heartbeat_interval_ms);
        Ok(Beat { member: beat.member.clone(), epoch: beat.epoch, interval, assignment: None })
    }

    /// Takes members out; the group's next epoch begins, unless it becomes a classic one now, whose members are still at this epoch:
    /// they are told to join again, and are not fenced.
    pub(in crate::group) fn remove(&mut self, ids: &[Name], scope: &mut Scope<'_>) {
        let epoch = self.epoch;
        self.remove_but(ids, None, scope);
        if self.is_classic_again(scope) {
            // That the next one is written matters where the log ends before all of the classic group is.
            self.epoch = epoch;
        }
    }

    /// What it is to take a member out, in the measure of the output's work.
    pub(in crate::group) fn removal_work(&self, id: &Name) -> usize {
        self.seats.get(id).map_or(1, |seat| 1 + seat.member.topics.len())
    }

    /// Takes members out, but leaves a pattern that somebody is about to have.
    fn remove_but(&mut self, ids: &[Name], pattern: Option<&Name>, scope: &mut Scope<'_>) {
        let (mut removed, mut regexes) = (Vec::new(), Vec::new());
        for id in ids {
            scope.out.work += self.removal_work(id);
            let Some(seat) = self.unseat(id) else { continue };
            regexes.extend(seat.member.regex.filter(|regex| Some(regex) != pattern));
            self.targets.remove(id);
            removed.push(id);
        }
        if removed.is_empty() {
            return;
        }
        // The epoch is written first: partitions of a member that is gone are assigned anew, whatever else of this is in the log.
        let gone = self.drop_patterns(regexes.into_iter());
        let metadata_hash = self.hash_topics(scope);
        self.begin_epoch(metadata_hash, scope);
        for id in removed {
            bury(id, scope);
        }
        scope.out.records.extend(gone.iter().map(|regex| records::regex(scope.group, regex, None)));
    }

    /// A static member is back under a new id, about to want this pattern, and what was the old one's is its. It is written before
    /// the old one goes: what one of them holds is nobody else's, whatever of this is in the log.
    pub(super) fn replace(&mut self, before: &Name, id: &Name, regex: Option<&Name>, scope: &mut Scope<'_>) {
        // It may be in already, as itself: so it goes, and what it held is assigned anew.
        self.remove_but(std::slice::from_ref(id), regex, scope);
        let Some(seat) = self.unseat(before) else { return };
        let target = self.targets.remove(before);
        let mut member = seat.member;
        let mut place = std::mem::take(&mut member.place);
        (place.epoch, place.previous_epoch) = (JOINS, JOINS);
        scope.out.records.push(records::member(scope.group, id, Some(&member)));
        if let Some(target) = target {
            scope.out.records.push(records::target(scope.group, id, Some(&target)));
            self.targets.insert(id.clone(), target);
        }
        scope.out.records.push(records::place(scope.group, id, Some(&place)));
        bury(before, scope);
        self.seat(id, member, scope.usage);
        self.move_to(id, place);
    }

    /// Takes back all that is written of the group.
    pub(in crate::group) fn forget(&mut self, scope: &mut Scope<'_>) {
        let ids: Vec<Name> = self.seats.keys().cloned().collect();
        for id in ids {
            bury(&id, scope);
        }
        for pattern in self.patterns.keys() {
            scope.out.records.push(records::regex(scope.group, pattern, None));
        }
        scope.out.records.extend([records::assignment_epoch(scope.group, None), records::group(scope.group, None)]);
    }
}

/// Takes back the records of a member.
fn bury(id: &Name, scope: &mut Scope<'_>) {
    let group = scope.group;
    scope.out.records.extend([
        records::place(group, id, None),
        records::target(group, id, None),
        records::member(group, id, None),
    ]);
}
