//! The part of a shard that has to do with groups of the new protocol: which protocol a group is of, and its records.

use ringlog_engine::types::TimestampMs;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::group_records::GroupRecord;

use super::classic::{Classic, Scope};
use super::consumer::{CONSUMER_BYTES, Consumer};
use super::offsets::fetch_nothing;
use super::request::{Answer, Beat, ConsumerHeartbeat, Identity, Refusal, Reply, Request};
use super::shard::{GROUP_BYTES, Group};
use super::{Name, Now, Output, Settings, Shard};

impl Shard {
    pub(super) fn consumer_heartbeat(
        &mut self,
        group: &str,
        beat: &ConsumerHeartbeat,
        now: Now,
        out: &mut Output,
    ) -> Result<Beat, Refusal> {
        check(group, beat, &self.settings)?;
        let refuse = |code, message: String| Err(Refusal { code, message });
        let is_join = beat.epoch == 0;
        match self.groups.get(group) {
            None if !is_join => {
                return refuse(ErrorCode::GROUP_ID_NOT_FOUND, format!("Consumer group {group} not found."));
            }
            None if self.is_full(GROUP_BYTES + CONSUMER_BYTES + 2 * group.len()) => {
                let message = "The groups take all the memory that they may (ringlog.group.memory.bytes).";
                return refuse(ErrorCode::GROUP_MAX_SIZE_REACHED, message.to_owned());
            }
            Some(found) if found.consumer.is_none() && !is_join => {
                return refuse(ErrorCode::GROUP_ID_NOT_FOUND, format!("Group {group} is not a consumer group."));
            }
            _ => self.create(group),
        }
        let beaten = self.with_group(group, now, out, |group, scope| {
            if let Some(consumer) = &mut group.consumer {
                let beaten = consumer.heartbeat(beat, scope);
                downgrade(group, scope);
                return beaten;
            }
            // A classic group, with or without members: it is of the new protocol if somebody comes in.
            let written = scope.out.records.len();
            group.classic.forget(scope);
            let upgraded = if group.classic.is_empty() {
                Ok(Consumer::new(scope.usage))
            } else {
                let travellers = group.classic.to_consumer(scope);
                travellers.and_then(|(generation, members)| Consumer::from_classic(generation, members, scope))
            };
            let beaten = upgraded.and_then(|mut consumer| {
                if !consumer.is_empty() {
                    consumer.write_all(scope);
                }
                consumer.heartbeat(beat, scope).map(|beaten| (beaten, consumer))
            });
            match beaten {
                Ok((beaten, consumer)) => {
                    // Who waits in it is to join again, and finds a group of the new protocol.
                    group.classic.close(ErrorCode::REBALANCE_IN_PROGRESS, scope);
                    group.classic = Classic::default();
                    group.consumer = Some(Box::new(consumer));
                    Ok(beaten)
                }
                Err(refusal) => {
                    scope.out.records.truncate(written);
                    Err(refusal)
                }
            }
        });
        beaten.unwrap_or_else(|| refuse(ErrorCode::UNKNOWN_SERVER_ERROR, "The group was not made.".to_owned()))
    }

    pub(super) fn describe_consumers(&self, group: &str) -> Reply {
        if let Err(refusal) = check_served(&self.settings) {
            return Reply::Refused(refusal);
        }
        let refuse = |message| Reply::Refused(Refusal { code: ErrorCode::GROUP_ID_NOT_FOUND, message });
        match self.groups.get(group).map(|group| &group.consumer) {
            Some(Some(consumer)) => Reply::DescribedConsumers(Box::new(consumer.describe(&self.settings, &*self.topics))),
            Some(None) => refuse(format!("Group {group} is not a consumer group.")),
            None => refuse(format!("Group {group} not found.")),
        }
    }

    pub(super) fn fetch_as(&self, group: &str, identity: &Identity, topics: Option<Vec<(Name, Vec<i32>)>>) -> Answer {
        let Some(group) = self.groups.get(group) else { return Ok(Reply::Fetched(fetch_nothing(topics))) };
        if let Some(consumer) = &group.consumer {
            consumer.check_fetch(identity)?;
        }
        Ok(Reply::Fetched(group.offsets.fetch(topics)))
    }

    /// Takes back what is written of a group of the new protocol.
    pub(super) fn forget_consumer(&mut self, group: &str, now: Now, out: &mut Output) {
        self.with_group(group, now, out, |group, scope| {
            if let Some(mut consumer) = group.consumer.take() {
                consumer.forget(scope);
            }
        });
    }

    pub(super) fn replay_consumer(&mut self, record: GroupRecord<'_>) {
        match record {
            GroupRecord::ConsumerGroupMetadata(key, Some(value)) => {
                self.replay_into(&key.group_id, true, |consumer, _| consumer.replay_group(&value));
            }
            GroupRecord::ConsumerGroupMetadata(key, None) => {
                if let Some(group) = self.groups.get_mut(&*key.group_id) {
                    group.consumer = None;
                    if group.is_void() {
                        self.groups.remove(&*key.group_id);
                    }
                }
            }
            GroupRecord::ConsumerGroupMemberMetadata(key, value) => {
                self.replay_into(&key.group_id, value.is_some(), |consumer, usage| {
                    consumer.replay_member(&key.member_id, value, usage);
                });
            }
            GroupRecord::ConsumerGroupTargetAssignmentMetadata(key, value) => {
                let (epoch, at) = value.as_ref().map_or((0, 0), |value| (value.assignment_epoch, value.assignment_timestamp));
                self.replay_into(&key.group_id, value.is_some(), |consumer, _| {
                    consumer.replay_assignment_epoch(epoch, TimestampMs(at));
                });
            }
            GroupRecord::ConsumerGroupTargetAssignmentMember(key, value) => {
                self.replay_into(&key.group_id, value.is_some(), |consumer, _| consumer.replay_target(&key.member_id, value));
            }
            GroupRecord::ConsumerGroupCurrentMemberAssignment(key, value) => {
                self.replay_into(&key.group_id, value.is_some(), |consumer, usage| {
                    consumer.replay_place(&key.member_id, value, usage);
                });
            }
            GroupRecord::ConsumerGroupRegularExpression(key, value) => {
                self.replay_into(&key.group_id, value.is_some(), |consumer, usage| {
                    consumer.replay_pattern(&key.regular_expression, value, usage);
                });
            }
            // Since Kafka 4.1 a hash is in its place; the others are not of the new protocol.
            _ => {}
        }
    }

    /// Takes a record into a group, which is made if the record says something.
    fn replay_into(&mut self, group: &str, makes: bool, replay: impl FnOnce(&mut Consumer, &super::Usage)) {
        if makes {
            self.create(group);
        }
        let Some(found) = self.groups.get_mut(group) else { return };
        if makes {
            found.consumer.get_or_insert_with(|| Box::new(Consumer::new(&self.usage)));
        }
        if let Some(consumer) = &mut found.consumer {
            replay(consumer, &self.usage);
        }
    }
}

/// A request of the classic protocol to a group of the new one.
pub(super) fn ask_as_classic(group: &mut Group, request: &Request, scope: &mut Scope<'_>) -> Answer {
    let consumer = group.consumer.as_mut().ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
    match request {
        Request::Sync(sync) => consumer.classic_sync(sync, scope),
        Request::Heartbeat(identity) => consumer.classic_heartbeat(identity, scope),
        Request::Leave(leavers) => Ok(Reply::Left(consumer.classic_leave(leavers, scope))),
        _ => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
    }
}

/// Makes a group a classic one again, if nobody in it speaks the new protocol any more.
pub(super) fn downgrade(group: &mut Group, scope: &mut Scope<'_>) {
    let is_due = |consumer: &mut Box<Consumer>| consumer.is_classic_again(scope);
    let Some(mut consumer) = group.consumer.take_if(is_due) else { return };
    consumer.forget(scope);
    let (generation, members) = consumer.to_classic(scope);
    drop(consumer);
    tracing::info!(group = %scope.group, "nobody speaks the new protocol any more: the group is a classic one");
    group.classic = Classic::from_consumer(generation, members, scope);
}

/// Whether the new protocol is served at all.
fn check_served(settings: &Settings) -> Result<(), Refusal> {
    if settings.serves_consumer_protocol {
        return Ok(());
    }
    let message = "The consumer protocol is not enabled (group.coordinator.rebalance.protocols).".to_owned();
    Err(Refusal { code: ErrorCode::UNSUPPORTED_VERSION, message })
}

/// What a heartbeat has to say whatever group it is for.
fn check(group: &str, beat: &ConsumerHeartbeat, settings: &Settings) -> Result<(), Refusal> {
    check_served(settings)?;
    let invalid = |is_invalid: bool, message: &str| {
        if is_invalid { Err(Refusal { code: ErrorCode::INVALID_REQUEST, message: message.to_owned() }) } else { Ok(()) }
    };
    let is_blank = |name: &Option<Name>| name.as_ref().is_some_and(|name| name.trim().is_empty());
    let needs_id = beat.requires_member_id || beat.epoch > 0 || beat.epoch == -1;
    invalid(needs_id && beat.member.trim().is_empty(), "MemberId can't be empty.")?;
    invalid(group.trim().is_empty(), "GroupId can't be empty.")?;
    invalid(is_blank(&beat.instance), "InstanceId can't be empty.")?;
    invalid(is_blank(&beat.rack), "RackId can't be empty.")?;
    if beat.epoch == 0 {
        invalid(beat.rebalance_timeout_ms < 0, "RebalanceTimeoutMs must be provided in first request.")?;
        let owns_nothing = beat.owned.as_ref().is_some_and(|owned| owned.values().all(std::collections::BTreeSet::is_empty));
        invalid(!owns_nothing, "TopicPartitions must be empty when (re-)joining.")?;
        let wants_nothing = beat.topics.is_none() && beat.regex.is_none();
        invalid(wants_nothing, "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.")?;
    }
    invalid(beat.epoch == -2 && beat.instance.is_none(), "InstanceId can't be null.")?;
    invalid(beat.epoch < -2, "MemberEpoch is invalid.")?;
    if let Some(wanted) = &beat.assignor
        && !settings.consumer_assignors.iter().any(|assignor| assignor.name() == &**wanted)
    {
        let known: Vec<&str> = settings.consumer_assignors.iter().map(|assignor| assignor.name()).collect();
        let message = format!("ServerAssignor {wanted} is not supported. Supported assignors: {}.", known.join(", "));
        return Err(Refusal { code: ErrorCode::UNSUPPORTED_ASSIGNOR, message });
    }
    Ok(())
}
