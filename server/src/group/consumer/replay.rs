//! From records to a group, and what begins when all are read.

use std::time::Duration;

use ringlog_protocol::group_records::{
    ConsumerGroupCurrentMemberAssignmentValue, ConsumerGroupMemberMetadataValue, ConsumerGroupMetadataValue,
    ConsumerGroupRegularExpressionValue, ConsumerGroupTargetAssignmentMemberValue,
};

use ringlog_engine::types::TimestampMs;

use super::reconcile::{Place, Progress};
use super::{Consumer, Member, Resolved, records};
use crate::group::classic::Scope;
use crate::group::timer::Alarm;
use crate::group::{Name, Usage};

impl Consumer {
    pub(in crate::group) fn replay_group(&mut self, value: &ConsumerGroupMetadataValue) {
        (self.epoch, self.metadata_hash) = (value.epoch, value.metadata_hash);
    }

    pub(in crate::group) fn replay_assignment_epoch(&mut self, epoch: i32, at: TimestampMs) {
        (self.assignment_epoch, self.assigned_at) = (epoch, at);
    }

    pub(in crate::group) fn replay_member(
        &mut self,
        id: &str,
        value: Option<ConsumerGroupMemberMetadataValue<'_>>,
        usage: &Usage,
    ) {
        let id: Name = id.into();
        let Some(value) = value else {
            self.unseat(&id);
            return;
        };
        let mut member = self.seats.get(&id).map(|seat| seat.member.clone()).unwrap_or_default();
        records::replayed(value, &mut member);
        self.seat(&id, member, usage);
    }

    pub(in crate::group) fn replay_target(&mut self, id: &str, value: Option<ConsumerGroupTargetAssignmentMemberValue>) {
        match value {
            Some(value) => self.targets.insert(id.into(), records::replayed_target(value)),
            None => self.targets.remove(id),
        };
    }

    pub(in crate::group) fn replay_place(
        &mut self,
        id: &str,
        value: Option<ConsumerGroupCurrentMemberAssignmentValue>,
        usage: &Usage,
    ) {
        let id: Name = id.into();
        match value {
            Some(value) => {
                if !self.seats.contains_key(&id) {
                    self.seat(&id, Member::default(), usage);
                }
                self.move_to(&id, records::replayed_place(value));
            }
            None => self.move_to(&id, Place::default()),
        }
    }

    pub(in crate::group) fn replay_pattern(
        &mut self,
        pattern: &str,
        value: Option<ConsumerGroupRegularExpressionValue<'_>>,
        usage: &Usage,
    ) {
        match value {
            Some(value) => {
                let topics = value.topics.iter().map(|topic| Name::from(&**topic)).collect();
                let (version, at) = (value.version, TimestampMs(value.timestamp));
                self.keep_pattern(pattern.into(), Resolved { topics, version, at, ..Resolved::new(usage) });
            }
            None => {
                self.forget_pattern(pattern);
            }
        }
    }

    /// After the replay: sessions begin anew, and so does the time for what members are to give up.
    pub(in crate::group) fn begin(&mut self, scope: &mut Scope<'_>) {
        // Those of whose members nothing is in the log.
        let patterns: Vec<Name> = self.patterns.keys().cloned().collect();
        for regex in self.drop_patterns(patterns.into_iter()) {
            scope.out.records.push(records::regex(scope.group, &regex, None));
        }
        self.charge_targets();
        let ids: Vec<Name> = self.seats.keys().cloned().collect();
        for id in &ids {
            self.touch(id, scope);
            let Some(seat) = self.seats.get_mut(id) else { continue };
            if seat.member.place.progress == Progress::Revoking {
                let timeout = Duration::from_millis(u64::try_from(seat.member.rebalance_timeout_ms).unwrap_or(0));
                seat.revocation.set(scope.now.monotonic + timeout, scope.timers, scope.group, || Alarm::Revocation(id.clone()));
            }
        }
    }
}
