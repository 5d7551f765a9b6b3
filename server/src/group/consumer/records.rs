//! The records of a group of the new protocol, from its parts and back.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::types::TimestampMs;
use ringlog_protocol::group_records::{
    ClassicMemberMetadata, ClassicProtocol, ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupMemberMetadataKey, ConsumerGroupMemberMetadataValue, ConsumerGroupMetadataKey, ConsumerGroupMetadataValue,
    ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue, ConsumerGroupTargetAssignmentMemberKey,
    ConsumerGroupTargetAssignmentMemberValue, ConsumerGroupTargetAssignmentMetadataKey,
    ConsumerGroupTargetAssignmentMetadataValue, GroupRecord, TopicPartition, TopicPartitions,
};

use super::reconcile::{Held, Place, Progress};
use super::{ClassicClient, Member, Partitions, Resolved, in_order};
use crate::group::{Name, RawRecord, SmallMap};

pub(super) fn group(group: &str, value: Option<(i32, i64)>) -> RawRecord {
    RawRecord::of(&GroupRecord::ConsumerGroupMetadata(
        ConsumerGroupMetadataKey { group_id: Cow::Borrowed(group) },
        value.map(|(epoch, metadata_hash)| ConsumerGroupMetadataValue { epoch, metadata_hash }),
    ))
}

pub(super) fn assignment_epoch(group: &str, value: Option<(i32, TimestampMs)>) -> RawRecord {
    RawRecord::of(&GroupRecord::ConsumerGroupTargetAssignmentMetadata(
        ConsumerGroupTargetAssignmentMetadataKey { group_id: Cow::Borrowed(group) },
        value.map(|(assignment_epoch, at)| ConsumerGroupTargetAssignmentMetadataValue {
            assignment_epoch,
            assignment_timestamp: at.0,
        }),
    ))
}

pub(super) fn member(group: &str, id: &str, member: Option<&Member>) -> RawRecord {
    let text = |name: &Option<Name>| name.as_ref().map(|name| Cow::Owned(name.to_string()));
    let classic = |classic: &ClassicClient| ClassicMemberMetadata {
        session_timeout_ms: i32::try_from(classic.session_timeout.as_millis()).unwrap_or(i32::MAX),
        supported_protocols: classic
            .protocols
            .iter()
            .map(|(name, metadata)| ClassicProtocol {
                name: Cow::Owned(name.to_string()),
                metadata: Cow::Owned(metadata.to_vec()),
            })
            .collect(),
    };
    RawRecord::of(&GroupRecord::ConsumerGroupMemberMetadata(
        ConsumerGroupMemberMetadataKey { group_id: Cow::Borrowed(group), member_id: Cow::Borrowed(id) },
        member.map(|member| ConsumerGroupMemberMetadataValue {
            instance_id: text(&member.instance),
            rack_id: text(&member.rack),
            client_id: Cow::Borrowed(&member.client_id),
            client_host: Cow::Borrowed(&member.client_host),
            subscribed_topic_names: member.topics.iter().map(|topic| Cow::Owned(topic.to_string())).collect(),
            subscribed_topic_regex: text(&member.regex),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            server_assignor: text(&member.assignor),
            classic_member_metadata: member.classic.as_deref().map(classic),
        }),
    ))
}

/// What a record says of a member, but for the place that it is in.
pub(super) fn replayed(value: ConsumerGroupMemberMetadataValue<'_>, member: &mut Member) {
    let name = |text: Option<Cow<'_, str>>| text.filter(|text| !text.is_empty()).map(|text| Name::from(&*text));
    member.instance = name(value.instance_id);
    member.rack = name(value.rack_id);
    member.client_id = (*value.client_id).into();
    member.client_host = (*value.client_host).into();
    member.topics = in_order(value.subscribed_topic_names.iter().map(|topic| Name::from(&**topic)));
    member.regex = name(value.subscribed_topic_regex);
    member.rebalance_timeout_ms = value.rebalance_timeout_ms;
    member.assignor = name(value.server_assignor);
    member.classic = value.classic_member_metadata.map(|classic| {
        Box::new(ClassicClient {
            session_timeout: Duration::from_millis(u64::try_from(classic.session_timeout_ms).unwrap_or(0)),
            protocols: classic
                .supported_protocols
                .iter()
                .map(|protocol| (Name::from(&*protocol.name), Bytes::copy_from_slice(&protocol.metadata)))
                .collect(),
        })
    });
}

pub(super) fn target(group: &str, id: &str, target: Option<&Partitions>) -> RawRecord {
    let topic = |(topic_id, partitions): (&ringlog_protocol::Uuid, &BTreeSet<i32>)| TopicPartition {
        topic_id: *topic_id,
        partitions: partitions.iter().copied().collect(),
    };
    RawRecord::of(&GroupRecord::ConsumerGroupTargetAssignmentMember(
        ConsumerGroupTargetAssignmentMemberKey { group_id: Cow::Borrowed(group), member_id: Cow::Borrowed(id) },
        target.map(|target| ConsumerGroupTargetAssignmentMemberValue { topic_partitions: target.iter().map(topic).collect() }),
    ))
}

pub(super) fn replayed_target(value: ConsumerGroupTargetAssignmentMemberValue) -> Partitions {
    value.topic_partitions.into_iter().map(|topic| (topic.topic_id, topic.partitions.into_iter().collect())).collect()
}

pub(super) fn place(group: &str, id: &str, place: Option<&Place>) -> RawRecord {
    let topics = |held: &Held| {
        let topic = |(topic_id, partitions): (&ringlog_protocol::Uuid, &SmallMap<i32, i32>)| TopicPartitions {
            topic_id: *topic_id,
            partitions: partitions.keys().copied().collect(),
            assignment_epochs: Some(partitions.values().copied().collect()),
        };
        held.iter().map(topic).collect()
    };
    RawRecord::of(&GroupRecord::ConsumerGroupCurrentMemberAssignment(
        ConsumerGroupCurrentMemberAssignmentKey { group_id: Cow::Borrowed(group), member_id: Cow::Borrowed(id) },
        place.map(|place| ConsumerGroupCurrentMemberAssignmentValue {
            member_epoch: place.epoch,
            previous_member_epoch: place.previous_epoch,
            state: place.progress as i8,
            assigned_partitions: topics(&place.assigned),
            partitions_pending_revocation: topics(&place.revoking),
        }),
    ))
}

pub(super) fn replayed_place(value: ConsumerGroupCurrentMemberAssignmentValue) -> Place {
    let epoch = value.member_epoch;
    let held = |topics: Vec<TopicPartitions>| {
        let topic = |topic: TopicPartitions| {
            // Kafka before 4.3 does not say when: the member had them at its epoch at the latest.
            let epochs = topic.assignment_epochs.unwrap_or_default();
            let epochs = epochs.into_iter().chain(std::iter::repeat(epoch));
            (topic.topic_id, topic.partitions.into_iter().zip(epochs).collect::<SmallMap<i32, i32>>())
        };
        topics.into_iter().map(topic).collect::<Held>()
    };
    Place {
        epoch,
        previous_epoch: value.previous_member_epoch,
        progress: Progress::from_record(value.state),
        assigned: held(value.assigned_partitions),
        revoking: held(value.partitions_pending_revocation),
    }
}

pub(super) fn regex(group: &str, pattern: &str, resolved: Option<&Resolved>) -> RawRecord {
    RawRecord::of(&GroupRecord::ConsumerGroupRegularExpression(
        ConsumerGroupRegularExpressionKey { group_id: Cow::Borrowed(group), regular_expression: Cow::Borrowed(pattern) },
        resolved.map(|resolved| ConsumerGroupRegularExpressionValue {
            topics: resolved.topics.iter().map(|topic| Cow::Owned(topic.to_string())).collect(),
            version: resolved.version,
            timestamp: resolved.at.0,
        }),
    ))
}
