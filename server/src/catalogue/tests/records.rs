//! The bytes of records, and what the state makes of records that do not fit.

use proptest::prelude::*;
use ringlog_engine::types::{LeaderEpoch, Offset, TopicId};

use super::{at, catalogue};
use crate::catalogue::records::*;
use crate::catalogue::state::{ApplyError, Catalogue, FORMAT_FEATURE, LogPoint};

fn string() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.]{0,12}", "\\PC{0,40}", Just("x".repeat(200))]
}

fn broker_ids() -> impl Strategy<Value = Vec<i32>> {
    prop::collection::vec(any::<i32>(), 0..4)
}

fn partition() -> impl Strategy<Value = PartitionRecord> {
    let ids = (broker_ids(), broker_ids(), broker_ids(), broker_ids());
    (any::<(i32, [u8; 16], i32, bool, i32, i32)>(), ids).prop_map(|(fields, ids)| PartitionRecord {
        partition: fields.0,
        topic_id: TopicId(fields.1),
        replicas: ids.0,
        isr: ids.1,
        removing_replicas: ids.2,
        adding_replicas: ids.3,
        leader: fields.2,
        is_leader_recovering: fields.3,
        leader_epoch: LeaderEpoch(fields.4),
        partition_epoch: fields.5,
    })
}

fn record() -> impl Strategy<Value = MetadataRecord> {
    let id = any::<[u8; 16]>().prop_map(TopicId);
    let leader = any::<Option<i32>>().prop_filter("-2 means none", |leader| *leader != Some(-2));
    prop_oneof![
        (string(), id.clone()).prop_map(|(name, topic_id)| MetadataRecord::Topic(TopicRecord { name, topic_id })),
        partition().prop_map(MetadataRecord::Partition),
        (any::<i8>(), string(), string(), prop::option::of(string())).prop_map(|(resource_type, resource_name, name, value)| {
            MetadataRecord::Config(ConfigRecord { resource_type, resource_name, name, value })
        }),
        (any::<i32>(), id.clone(), prop::option::of(broker_ids()), leader).prop_map(|(partition, topic_id, isr, leader)| {
            MetadataRecord::PartitionChange(PartitionChangeRecord { partition, topic_id, isr, leader })
        }),
        id.prop_map(|topic_id| MetadataRecord::RemoveTopic { topic_id }),
        (string(), any::<i16>()).prop_map(|(name, level)| MetadataRecord::FeatureLevel(FeatureLevelRecord { name, level })),
        any::<(i32, i64, i64)>().prop_map(|(broker_id, broker_epoch, next_producer_id)| {
            MetadataRecord::ProducerIds(ProducerIdsRecord { broker_id, broker_epoch, next_producer_id })
        }),
        Just(MetadataRecord::NoOp),
    ]
}

proptest! {
    #[test]
    fn records_round_trip(record in record()) {
        prop_assert_eq!(MetadataRecord::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn a_record_cut_short_is_an_error(record in record(), cut in any::<prop::sample::Index>()) {
        let bytes = record.encode();
        prop_assert!(MetadataRecord::decode(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn no_bytes_panic(key in 0_u8..32, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let framed = [&[1, key, 0], &bytes[..]].concat();
        for bytes in [&bytes, &framed] {
            if let Ok(record) = MetadataRecord::decode(bytes) {
                // What could be read can be written, and stays the same.
                prop_assert_eq!(MetadataRecord::decode(&record.encode()), Ok(record));
            }
        }
    }

    #[test]
    fn no_record_panics_the_state(records in prop::collection::vec(record(), 0..8)) {
        let mut catalogue = catalogue(&[("a", 1)]);
        for record in records {
            let before = catalogue.clone();
            let next = LogPoint { offset: before.applied().offset.plus(1), epoch: before.applied().epoch };
            if catalogue.apply(next, &record).is_err() {
                prop_assert_eq!(&catalogue, &before, "an error changes nothing");
            }
        }
    }
}

/// Taken from Kafka 4.3: what its `MetadataRecordSerde` writes for these records.
#[test]
fn bytes_are_kafkas() {
    let topic_id = TopicId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    let hex = |record: MetadataRecord| record.encode().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let topic = MetadataRecord::Topic(TopicRecord { name: "orders".to_owned(), topic_id });
    assert_eq!(hex(topic), "010200076f72646572730102030405060708090a0b0c0d0e0f1000");
    let mut partition = PartitionRecord {
        partition: 1,
        topic_id,
        replicas: vec![1, 2],
        isr: vec![1],
        removing_replicas: vec![],
        adding_replicas: vec![3],
        leader: 1,
        is_leader_recovering: false,
        leader_epoch: LeaderEpoch(5),
        partition_epoch: 6,
    };
    let body = "010300000000010102030405060708090a0b0c0d0e0f1003000000010000000202000000010102000000030000000100000005\
                00000006";
    assert_eq!(hex(MetadataRecord::Partition(partition.clone())), format!("{body}00"));
    partition.is_leader_recovering = true;
    assert_eq!(hex(MetadataRecord::Partition(partition)), format!("{body}01000101"));
    let config = |value: Option<&str>| {
        MetadataRecord::Config(ConfigRecord {
            resource_type: RESOURCE_TOPIC,
            resource_name: "orders".to_owned(),
            name: "retention.ms".to_owned(),
            value: value.map(str::to_owned),
        })
    };
    assert_eq!(hex(config(Some("5"))), "01040002076f72646572730d726574656e74696f6e2e6d73023500");
    assert_eq!(hex(config(None)), "01040002076f72646572730d726574656e74696f6e2e6d730000");
    let change = PartitionChangeRecord { partition: 1, topic_id, isr: Some(vec![2]), leader: Some(2) };
    assert_eq!(
        hex(MetadataRecord::PartitionChange(change)),
        "010500000000010102030405060708090a0b0c0d0e0f1002000502000000020104 00000002".replace(' ', "")
    );
    assert_eq!(hex(MetadataRecord::RemoveTopic { topic_id }), "0109000102030405060708090a0b0c0d0e0f1000");
    let feature = FeatureLevelRecord { name: "metadata.version".to_owned(), level: 29 };
    assert_eq!(hex(MetadataRecord::FeatureLevel(feature)), "010c00116d657461646174612e76657273696f6e001d00");
    let ids = ProducerIdsRecord { broker_id: 1, broker_epoch: -1, next_producer_id: 2000 };
    assert_eq!(hex(MetadataRecord::ProducerIds(ids)), "010f0000000001ffffffffffffffff00000000000007d000");
    assert_eq!(hex(MetadataRecord::NoOp), "01140000");
}

#[test]
fn what_is_not_known_is_refused() {
    assert_eq!(MetadataRecord::decode(&[2, 20, 0, 0]), Err(RecordError::UnsupportedFrame(2)));
    assert_eq!(MetadataRecord::decode(&[1, 20, 1, 0]), Err(RecordError::Unsupported { api_key: 20, version: 1 }));
    assert_eq!(MetadataRecord::decode(&[1, 99, 0, 0]), Err(RecordError::Unsupported { api_key: 99, version: 0 }));
    assert_eq!(MetadataRecord::decode(&[1, 20, 0, 0, 7]), Err(RecordError::TrailingBytes(1)));
    assert_eq!(MetadataRecord::decode(&[1, 20, 0, 1, 9, 1, 7]), Ok(MetadataRecord::NoOp), "tags of no meaning are skipped");
    // A change of a partition's replicas (tag 2) must not be lost in silence.
    let change = [&[1, 5, 0][..], &[0; 20], &[1, 2, 1, 1]].concat();
    assert!(matches!(MetadataRecord::decode(&change), Err(RecordError::Value(_))));
    // Two billion replicas in a few bytes.
    let huge = [&[1, 3, 0][..], &[0; 20], &[0xff, 0xff, 0xff, 0xff, 0x07]].concat();
    assert!(matches!(MetadataRecord::decode(&huge), Err(RecordError::Malformed(_))));
}

#[test]
fn records_that_do_not_fit_are_refused() {
    let start = catalogue(&[("a", 2)]);
    let id = start.topic("a").unwrap().id;
    let next = start.applied().offset.plus(1).0;
    let refused = |record: MetadataRecord| start.clone().apply(at(next), &record).unwrap_err();

    let backwards = start.clone().apply(at(next - 1), &MetadataRecord::NoOp).unwrap_err();
    assert!(matches!(backwards, ApplyError::Backwards { .. }));
    let earlier_epoch = LogPoint { offset: Offset(next), epoch: LeaderEpoch(2) };
    assert!(matches!(start.clone().apply(earlier_epoch, &MetadataRecord::NoOp), Err(ApplyError::Backwards { .. })));

    let topic = |name: &str, topic_id| MetadataRecord::Topic(TopicRecord { name: name.to_owned(), topic_id });
    assert!(matches!(refused(topic("a", TopicId([9; 16]))), ApplyError::TopicExists { .. }));
    assert!(matches!(refused(topic("b", id)), ApplyError::TopicExists { .. }));
    assert!(matches!(refused(topic("../b", TopicId([9; 16]))), ApplyError::TopicName(_)));
    assert!(matches!(refused(MetadataRecord::RemoveTopic { topic_id: TopicId([9; 16]) }), ApplyError::UnknownTopic(_)));

    let change = |partition| {
        MetadataRecord::PartitionChange(PartitionChangeRecord { partition, topic_id: id, isr: None, leader: Some(1) })
    };
    assert!(matches!(refused(change(2)), ApplyError::UnknownPartition { count: 2, .. }));
    assert!(matches!(refused(change(-1)), ApplyError::UnknownPartition { .. }));
    let config = |resource_type, name: &str| {
        let (resource_name, name) = (name.to_owned(), "retention.ms".to_owned());
        MetadataRecord::Config(ConfigRecord { resource_type, resource_name, name, value: None })
    };
    assert!(matches!(refused(config(RESOURCE_TOPIC, "b")), ApplyError::UnknownTopic(_)));
    let mut with_nothing = start.clone();
    with_nothing.apply(at(next), &config(RESOURCE_GROUP, "g")).unwrap();
    assert!(with_nothing.group_overrides().is_empty(), "what is not there can be taken back");
    assert_eq!(refused(config(RESOURCE_BROKER, "1")), ApplyError::ResourceType(RESOURCE_BROKER));
    let ids =
        |next_producer_id| MetadataRecord::ProducerIds(ProducerIdsRecord { broker_id: 1, broker_epoch: -1, next_producer_id });
    assert_eq!(refused(ids(0)), ApplyError::ProducerIdsTaken { next: 0, taken: 0 });
    let format = |level| MetadataRecord::FeatureLevel(FeatureLevelRecord { name: FORMAT_FEATURE.to_owned(), level });
    assert!(refused(format(2)).to_string().contains("use the newer version that wrote it"));
    // The id of a deleted topic is not used again.
    let mut deleted = start.clone();
    deleted.apply(at(next), &MetadataRecord::RemoveTopic { topic_id: id }).unwrap();
    assert!(deleted.is_deleted(id) && deleted.topic_by_id(id).is_none() && deleted.partition_count() == 0);
    assert!(matches!(deleted.apply(at(next + 1), &topic("a", id)), Err(ApplyError::TopicExists { .. })));
    assert!(start.topic_by_id(id).is_some(), "a clone stays what it was");
}

#[test]
fn naming_a_leader_opens_a_term() {
    let mut state = catalogue(&[("a", 1)]);
    let topic_id = state.topic("a").unwrap().id;
    let change = |isr, leader| MetadataRecord::PartitionChange(PartitionChangeRecord { partition: 0, topic_id, isr, leader });
    state.apply(at(100), &change(Some(vec![1]), None)).unwrap();
    let partition = |state: &Catalogue| state.topic("a").unwrap().partition(0).unwrap().clone();
    assert_eq!((partition(&state).leader_epoch, partition(&state).partition_epoch), (LeaderEpoch(0), 1));
    state.apply(at(101), &change(None, Some(-1))).unwrap();
    state.apply(at(102), &change(None, Some(1))).unwrap();
    assert_eq!(
        (partition(&state).leader, partition(&state).leader_epoch, partition(&state).partition_epoch),
        (1, LeaderEpoch(2), 3)
    );
}
