//! Records of `__consumer_offsets` byte by byte, as the classes of Kafka 4.3.1 write them (kafka-group-coordinator, through its MessageUtil), and what
//! members of a group say to each other.
#![allow(clippy::unwrap_used, reason = "test code")]

use ringlog_protocol::consumer_protocol::{AssignedTopicPartition, ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use ringlog_protocol::group_records::*;
use ringlog_protocol::{DecodeError, Decoder, Encoder, Payload, Uuid};

const TOPIC_ID: Uuid = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn encoded(encode: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encode(&mut encoder);
    encoder.into_buffer()
}

/// Kafka's bytes are read as `record`, and `record` is written as Kafka's bytes.
#[track_caller]
fn check(key: &str, value: &str, record: &GroupRecord<'_>) {
    let (key, value) = (hex(key), hex(value));
    assert_eq!(GroupRecord::decode(&key, Some(&value)).as_ref(), Ok(record));
    assert_eq!(encoded(|encoder| record.encode_key(encoder)), key);
    assert_eq!(encoded(|encoder| assert!(record.encode_value(encoder))), value);
}

/// The same in a version that we read and do not write.
#[track_caller]
fn check_read<'a, P: Payload<'a> + PartialEq + std::fmt::Debug>(version: i16, value: &str, expected: &P) {
    let value = hex(value).leak();
    assert_eq!(P::decode(&mut Decoder::new(value)).as_ref(), Ok(expected), "version {version}");
    assert_eq!(encoded(|encoder| expected.encode(encoder, version)), value, "version {version}");
}

fn offset_commit() -> OffsetCommitValue<'static> {
    OffsetCommitValue {
        offset: 300,
        leader_epoch: 2,
        metadata: "m".into(),
        commit_timestamp: 1000,
        expire_timestamp: -1,
        topic_id: TOPIC_ID,
    }
}

#[test]
fn offsets_are_kafkas() {
    let key = || OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 7 };
    check(
        "000100016700017400000007",
        "0004000000000000012c00000002026d00000000000003e80100100102030405060708090a0b0c0d0e0f10",
        &GroupRecord::OffsetCommit(key(), Some(offset_commit())),
    );
    // With a time of its own to end at: version 1, which knows neither the leader epoch nor the topic's id.
    let expiring = OffsetCommitValue { leader_epoch: -1, expire_timestamp: 2000, topic_id: [0; 16], ..offset_commit() };
    check(
        "000100016700017400000007",
        "0001000000000000012c00016d00000000000003e800000000000007d0",
        &GroupRecord::OffsetCommit(key(), Some(expiring)),
    );
    let without_id = OffsetCommitValue { topic_id: [0; 16], ..offset_commit() };
    check_read(3, "0003000000000000012c0000000200016d00000000000003e8", &without_id);
    let without_epoch = OffsetCommitValue { leader_epoch: -1, ..without_id };
    check_read(2, "0002000000000000012c00016d00000000000003e8", &without_epoch);
    check_read(0, "0000000000000000012c00016d00000000000003e8", &without_epoch);

    let key = LegacyOffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 7 };
    let value = LegacyOffsetCommitValue { offset: 300, metadata: "m".into(), commit_timestamp: 1000 };
    check(
        "000000016700017400000007",
        "0000000000000000012c00016d00000000000003e8",
        &GroupRecord::LegacyOffsetCommit(key, Some(value)),
    );
}

#[test]
fn classic_groups_are_kafkas() {
    let member = MemberMetadata {
        member_id: "a".into(),
        group_instance_id: Some("i".into()),
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout: 60,
        session_timeout: 45,
        subscription: [1, 2].as_slice().into(),
        assignment: [3].as_slice().into(),
    };
    let value = GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation: 5,
        protocol: Some("range".into()),
        leader: Some("a".into()),
        current_state_timestamp: 1000,
        members: vec![member],
    };
    check(
        "0002000167",
        "00030008636f6e73756d657200000005000572616e676500016100000000000003e80000000100016100016900016300022f680000003c\
         0000002d0000000201020000000103",
        &GroupRecord::GroupMetadata(GroupMetadataKey { group: "g".into() }, Some(value.clone())),
    );
    check_read(
        4,
        "000409636f6e73756d6572000000050672616e6765026100000000000003e802026102690263032f680000003c0000002d03010202030000",
        &value,
    );
    let mut older = value;
    older.members[0].group_instance_id = None;
    check_read(
        2,
        "00020008636f6e73756d657200000005000572616e676500016100000000000003e80000000100016100016300022f680000003c0000002d\
         0000000201020000000103",
        &older,
    );
    older.current_state_timestamp = -1;
    check_read(
        1,
        "00010008636f6e73756d657200000005000572616e67650001610000000100016100016300022f680000003c0000002d0000000201020000000103",
        &older,
    );
    older.members[0].rebalance_timeout = -1;
    check_read(
        0,
        "00000008636f6e73756d657200000005000572616e67650001610000000100016100016300022f680000002d0000000201020000000103",
        &older,
    );
}

#[test]
fn groups_of_the_new_protocol_are_kafkas() {
    check(
        "0003000167",
        "000000000005010008000000000000004d",
        &GroupRecord::ConsumerGroupMetadata(
            ConsumerGroupMetadataKey { group_id: "g".into() },
            Some(ConsumerGroupMetadataValue { epoch: 5, metadata_hash: 77 }),
        ),
    );
    let partition = PartitionMetadata { partition: 1, racks: vec!["r".into()] };
    let topic =
        TopicMetadata { topic_id: TOPIC_ID, topic_name: "t".into(), num_partitions: 3, partition_metadata: vec![partition] };
    check(
        "0004000167",
        "0000020102030405060708090a0b0c0d0e0f100274000000030200000001020272000000",
        &GroupRecord::ConsumerGroupPartitionMetadata(
            ConsumerGroupPartitionMetadataKey { group_id: "g".into() },
            Some(ConsumerGroupPartitionMetadataValue { topics: vec![topic] }),
        ),
    );
    let protocol = ClassicProtocol { name: "range".into(), metadata: [1, 2].as_slice().into() };
    let member = ConsumerGroupMemberMetadataValue {
        instance_id: Some("i".into()),
        rack_id: Some("r".into()),
        client_id: "c".into(),
        client_host: "/h".into(),
        subscribed_topic_names: vec!["t".into()],
        subscribed_topic_regex: Some("t.*".into()),
        rebalance_timeout_ms: 60,
        server_assignor: Some("uniform".into()),
        classic_member_metadata: Some(ClassicMemberMetadata { session_timeout_ms: 45, supported_protocols: vec![protocol] }),
    };
    check(
        "0005000167000161",
        "0000026902720263032f6802027404742e2a0000003c08756e69666f726d010011010000002d020672616e67650301020000",
        &GroupRecord::ConsumerGroupMemberMetadata(
            ConsumerGroupMemberMetadataKey { group_id: "g".into(), member_id: "a".into() },
            Some(member),
        ),
    );
    check(
        "0006000167",
        "00000000000501000800000000000003e8",
        &GroupRecord::ConsumerGroupTargetAssignmentMetadata(
            ConsumerGroupTargetAssignmentMetadataKey { group_id: "g".into() },
            Some(ConsumerGroupTargetAssignmentMetadataValue { assignment_epoch: 5, assignment_timestamp: 1000 }),
        ),
    );
    let target = TopicPartition { topic_id: TOPIC_ID, partitions: vec![0, 2] };
    check(
        "0007000167000161",
        "0000020102030405060708090a0b0c0d0e0f100300000000000000020000",
        &GroupRecord::ConsumerGroupTargetAssignmentMember(
            ConsumerGroupTargetAssignmentMemberKey { group_id: "g".into(), member_id: "a".into() },
            Some(ConsumerGroupTargetAssignmentMemberValue { topic_partitions: vec![target] }),
        ),
    );
    let held = TopicPartitions { topic_id: TOPIC_ID, partitions: vec![0, 2], assignment_epochs: Some(vec![3, 5]) };
    let pending = TopicPartitions { topic_id: TOPIC_ID, partitions: vec![1], assignment_epochs: None };
    let current = ConsumerGroupCurrentMemberAssignmentValue {
        member_epoch: 5,
        previous_member_epoch: 4,
        state: 1,
        assigned_partitions: vec![held],
        partitions_pending_revocation: vec![pending],
    };
    check(
        "0008000167000161",
        "0000000000050000000401020102030405060708090a0b0c0d0e0f10030000000000000002010009030000000300000005\
         020102030405060708090a0b0c0d0e0f1002000000010000",
        &GroupRecord::ConsumerGroupCurrentMemberAssignment(
            ConsumerGroupCurrentMemberAssignmentKey { group_id: "g".into(), member_id: "a".into() },
            Some(current),
        ),
    );
    check(
        "00100001670003742e2a",
        "0000020274000000000000000900000000000003e800",
        &GroupRecord::ConsumerGroupRegularExpression(
            ConsumerGroupRegularExpressionKey { group_id: "g".into(), regular_expression: "t.*".into() },
            Some(ConsumerGroupRegularExpressionValue { topics: vec!["t".into()], version: 9, timestamp: 1000 }),
        ),
    );
}

#[test]
fn a_record_without_a_value_takes_back() {
    let record = GroupRecord::decode(&[0, 2, 0, 1, b'g'], None).unwrap();
    assert_eq!(record, GroupRecord::GroupMetadata(GroupMetadataKey { group: "g".into() }, None));
    assert_eq!(encoded(|encoder| assert!(!record.encode_value(encoder))), [0; 0]);
}

#[test]
fn what_is_not_known_is_named() {
    assert_eq!(GroupRecord::decode(&[0, 9, 0, 1, b'g'], None), Err(DecodeError::UnknownRecord(9)));
    let error = GroupRecord::decode(&[0, 2, 0, 1, b'g'], Some(&[0, 5, 0])).unwrap_err();
    assert_eq!(error.to_string(), "GroupMetadataValue version 5 is outside 0 to 4");
    assert_eq!(GroupRecord::decode(&[0], None), Err(DecodeError::Truncated { wanted: 2, remaining: 1 }));
}

#[test]
fn a_subscription_of_the_future_is_read_as_the_newest_known() {
    let subscription = ConsumerProtocolSubscription {
        topics: vec!["t".into()],
        generation_id: 4,
        rack_id: Some("r".into()),
        ..Default::default()
    };
    let mut bytes = encoded(|encoder| subscription.encode(encoder, 3));
    assert_eq!(ConsumerProtocolSubscription::from_metadata(&bytes).as_ref(), Ok(&subscription));
    bytes[1] = 9;
    bytes.extend([1, 2, 3]);
    assert_eq!(ConsumerProtocolSubscription::from_metadata(&bytes).as_ref(), Ok(&subscription));
    bytes[0] = 0xff;
    assert!(ConsumerProtocolSubscription::from_metadata(&bytes).is_err(), "a version below zero");
    assert!(ConsumerProtocolSubscription::from_metadata(&[]).is_err());
}

#[test]
fn an_assignment_is_the_consumers() {
    let partitions = AssignedTopicPartition { topic: "t".into(), partitions: vec![0, 2] };
    let assignment = ConsumerProtocolAssignment { assigned_partitions: vec![partitions], user_data: None };
    let bytes = encoded(|encoder| assignment.encode(encoder, 1));
    assert_eq!(bytes, [0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(ConsumerProtocolAssignment::from_assignment(&bytes), Ok(assignment));
}
