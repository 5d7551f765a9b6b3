//! The crate `kafka-protocol` as the oracle: valid bodies of every message and version must come out of both codecs as they went in. So what one
//! encodes, the other decodes. Its schemas end at Kafka 4.1; the versions that it lacks are named below and checked with our own codec alone.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use bytes::Bytes;
use common::{Bodies, encoding, every_payload, every_version, for_each_api, payload_encoding, run_ours, run_payload};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, Request, StrBytes};
use proptest::prelude::*;
use ringlog_protocol::{ApiKey, Decoder, Encoder, ErrorCode};

/// What `kafka-protocol` 0.18 does not have: mostly added in Kafka 4.2 and 4.3.
const MISSING: &[(&str, i16)] = &[
    ("ListOffsetsRequest", 11),
    ("ListOffsetsResponse", 11),
    ("OffsetCommitRequest", 10),
    ("OffsetFetchRequest", 10),
    ("DescribeLogDirsRequest", 5),
    ("DescribeLogDirsResponse", 5),
];

/// `body` through the oracle, or `None` if it lacks the version.
fn run_through<M: Decodable + Encodable + Message>(version: i16, body: &[u8]) -> Option<Vec<u8>> {
    if !(M::VERSIONS.min..=M::VERSIONS.max).contains(&version) {
        return None;
    }
    let mut bytes = Bytes::copy_from_slice(body);
    let message = M::decode(&mut bytes, version).expect("the oracle decodes a valid body");
    assert!(bytes.is_empty(), "the oracle left {} bytes", bytes.len());
    let mut again = Vec::new();
    message.encode(&mut again, version).expect("the oracle encodes what it decoded");
    Some(again)
}

/// `body` of a message through the oracle.
fn run_theirs(name: &str, version: i16, body: &[u8]) -> Option<Vec<u8>> {
    macro_rules! dispatch {
        ($($module:ident $request:ident $response:ident,)*) => {
            match name {
                $(
                    stringify!($request) => run_through::<kafka_protocol::messages::$request>(version, body),
                    stringify!($response) => run_through::<kafka_protocol::messages::$response>(version, body),
                )*
                _ => panic!("no message {name}"),
            }
        };
    }
    for_each_api!(dispatch)
}

/// What the oracle makes of a payload's body, or `None` if it does not know the payload: it has no records of Kafka's group coordinator.
fn run_their_payload(name: &str, version: i16, body: &[u8]) -> Option<Vec<u8>> {
    match name {
        "ConsumerProtocolSubscription" => run_through::<kafka_protocol::messages::ConsumerProtocolSubscription>(version, body),
        "ConsumerProtocolAssignment" => run_through::<kafka_protocol::messages::ConsumerProtocolAssignment>(version, body),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_codecs_return_every_body(entropy in prop::collection::vec(any::<u8>(), 0..600)) {
        for (schema, version) in every_version() {
            let name = schema.structure.name;
            let mut encoder = Encoder::new();
            Bodies::new(&entropy, encoding(schema, version)).structure(schema.structure, &mut encoder);
            let body = encoder.into_buffer();

            let ours = run_ours(name, version, &body, true);
            prop_assert_eq!(ours.again.as_ref(), Ok(&body), "{} version {}", name, version);
            prop_assert_eq!(ours.remaining, 0, "{} version {}", name, version);
            match run_theirs(name, version, &body) {
                Some(theirs) => prop_assert_eq!(theirs, body, "{} version {}, by the oracle", name, version),
                None => prop_assert!(MISSING.contains(&(name, version)), "the oracle lacks {name} version {version}"),
            }
        }
    }

    #[test]
    fn a_body_cut_short_is_an_error(entropy in prop::collection::vec(any::<u8>(), 0..200)) {
        for (schema, version) in every_version() {
            let name = schema.structure.name;
            let mut encoder = Encoder::new();
            Bodies::new(&entropy, encoding(schema, version)).structure(schema.structure, &mut encoder);
            let body = encoder.into_buffer();
            for size in (0..body.len()).rev().take(64) {
                prop_assert!(run_ours(name, version, &body[..size], false).again.is_err(), "{name} version {version} cut to {size}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_payload_returns(entropy in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut compared = 0;
        for (schema, version) in every_payload() {
            let name = schema.structure.name;
            let mut encoder = Encoder::new();
            Bodies::new(&entropy, payload_encoding(schema, version)).structure(schema.structure, &mut encoder);
            let body = encoder.into_buffer();

            let ours = run_payload(name, version, &body, true);
            prop_assert_eq!(ours.again.as_ref(), Ok(&body), "{} version {}", name, version);
            prop_assert_eq!(ours.remaining, 0, "{} version {}", name, version);
            if let Some(theirs) = run_their_payload(name, version, &body) {
                compared += 1;
                prop_assert_eq!(theirs, body, "{} version {}, by the oracle", name, version);
            }
        }
        prop_assert_eq!(compared, 8, "versions 0 to 3 of the consumer protocol's two");
    }

    #[test]
    fn a_payload_cut_short_is_an_error(entropy in prop::collection::vec(any::<u8>(), 0..200)) {
        for (schema, version) in every_payload() {
            let name = schema.structure.name;
            let mut encoder = Encoder::new();
            Bodies::new(&entropy, payload_encoding(schema, version)).structure(schema.structure, &mut encoder);
            let body = encoder.into_buffer();
            for size in (0..body.len()).rev().take(64) {
                prop_assert!(run_payload(name, version, &body[..size], false).again.is_err(), "{name} version {version} cut to {size}");
            }
        }
    }
}

/// The bytes may agree while two fields have each other's names; so a few messages by name, from the oracle's values to ours.
#[test]
fn fields_have_the_oracles_names() {
    use kafka_protocol::messages as theirs;
    fn body<M: Encodable>(message: &M, version: i16) -> Vec<u8> {
        let mut body = Vec::new();
        message.encode(&mut body, version).unwrap();
        body
    }

    let partition =
        theirs::produce_request::PartitionProduceData::default().with_index(3).with_records(Some(Bytes::from_static(b"batch")));
    let topic = theirs::produce_request::TopicProduceData::default()
        .with_name(theirs::TopicName(StrBytes::from_static_str("orders")))
        .with_partition_data(vec![partition]);
    let produce = theirs::ProduceRequest::default()
        .with_transactional_id(Some(theirs::TransactionalId(StrBytes::from_static_str("tx"))))
        .with_acks(-1)
        .with_timeout_ms(1500)
        .with_topic_data(vec![topic]);
    for version in 3..=12 {
        let body = body(&produce, version);
        let ours = ringlog_protocol::api::produce::ProduceRequest::decode(&mut Decoder::new(&body), version).unwrap();
        assert_eq!((ours.transactional_id.as_deref(), ours.acks, ours.timeout_ms), (Some("tx"), -1, 1500));
        assert_eq!((&*ours.topic_data[0].name, ours.topic_data[0].partition_data[0].index), ("orders", 3));
        assert_eq!(ours.topic_data[0].partition_data[0].records.bytes(), Some(&b"batch"[..]));
    }

    let partition = theirs::fetch_request::FetchPartition::default()
        .with_partition(1)
        .with_current_leader_epoch(2)
        .with_fetch_offset(3)
        .with_last_fetched_epoch(4)
        .with_log_start_offset(5)
        .with_partition_max_bytes(6)
        .with_high_watermark(7);
    let topic = theirs::fetch_request::FetchTopic::default()
        .with_topic_id(uuid::Uuid::from_bytes([9; 16]))
        .with_partitions(vec![partition]);
    let fetch = theirs::FetchRequest::default()
        .with_max_wait_ms(10)
        .with_min_bytes(11)
        .with_max_bytes(12)
        .with_isolation_level(1)
        .with_session_id(13)
        .with_session_epoch(14)
        .with_topics(vec![topic])
        .with_rack_id(StrBytes::from_static_str("rack"));
    let body_18 = body(&fetch, 18);
    let ours = ringlog_protocol::api::fetch::FetchRequest::decode(&mut Decoder::new(&body_18), 18).unwrap();
    assert_eq!((ours.max_wait_ms, ours.min_bytes, ours.max_bytes, ours.isolation_level), (10, 11, 12, 1));
    assert_eq!((ours.session_id, ours.session_epoch, &*ours.rack_id), (13, 14, "rack"));
    let partition = &ours.topics[0].partitions[0];
    assert_eq!((partition.partition, partition.current_leader_epoch, partition.fetch_offset), (1, 2, 3));
    assert_eq!((partition.last_fetched_epoch, partition.log_start_offset, partition.partition_max_bytes), (4, 5, 6));
    assert_eq!((partition.high_watermark, ours.topics[0].topic_id), (7, [9; 16]));

    let partition = theirs::metadata_response::MetadataResponsePartition::default()
        .with_error_code(5)
        .with_partition_index(1)
        .with_leader_id(theirs::BrokerId(2))
        .with_leader_epoch(3)
        .with_replica_nodes(vec![theirs::BrokerId(2), theirs::BrokerId(4)])
        .with_isr_nodes(vec![theirs::BrokerId(2)])
        .with_offline_replicas(vec![theirs::BrokerId(4)]);
    let topic = theirs::metadata_response::MetadataResponseTopic::default()
        .with_name(Some(theirs::TopicName(StrBytes::from_static_str("orders"))))
        .with_topic_id(uuid::Uuid::from_bytes([8; 16]))
        .with_is_internal(true)
        .with_partitions(vec![partition]);
    let broker = theirs::metadata_response::MetadataResponseBroker::default()
        .with_node_id(theirs::BrokerId(2))
        .with_host(StrBytes::from_static_str("host"))
        .with_port(9092)
        .with_rack(Some(StrBytes::from_static_str("rack")));
    let metadata = theirs::MetadataResponse::default()
        .with_throttle_time_ms(7)
        .with_brokers(vec![broker])
        .with_cluster_id(Some(StrBytes::from_static_str("cluster")))
        .with_controller_id(theirs::BrokerId(2))
        .with_topics(vec![topic]);
    let body_12 = body(&metadata, 12);
    let ours = ringlog_protocol::api::metadata::MetadataResponse::decode(&mut Decoder::new(&body_12), 12).unwrap();
    assert_eq!((ours.throttle_time_ms, ours.cluster_id.as_deref(), ours.controller_id), (7, Some("cluster"), 2));
    let broker = &ours.brokers[0];
    assert_eq!((broker.node_id, &*broker.host, broker.port, broker.rack.as_deref()), (2, "host", 9092, Some("rack")));
    let topic = &ours.topics[0];
    assert_eq!(
        (topic.name.as_deref(), topic.topic_id, topic.is_internal, topic.error_code),
        (Some("orders"), [8; 16], true, ErrorCode::NONE)
    );
    let partition = &topic.partitions[0];
    assert_eq!((partition.error_code, partition.partition_index), (ErrorCode::LEADER_NOT_AVAILABLE, 1));
    assert_eq!((partition.leader_id, partition.leader_epoch), (2, 3));
    assert_eq!(
        (&partition.replica_nodes[..], &partition.isr_nodes[..], &partition.offline_replicas[..]),
        (&[2, 4][..], &[2][..], &[4][..])
    );
}

#[test]
fn fields_of_groups_have_the_oracles_names() {
    use kafka_protocol::messages as theirs;
    fn body<M: Encodable>(message: &M, version: i16) -> Vec<u8> {
        let mut body = Vec::new();
        message.encode(&mut body, version).unwrap();
        body
    }
    let group = || theirs::GroupId(StrBytes::from_static_str("group"));
    let text = StrBytes::from_static_str;

    let protocol = theirs::join_group_request::JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"metadata"));
    let join = theirs::JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(1)
        .with_rebalance_timeout_ms(2)
        .with_member_id(text("member"))
        .with_group_instance_id(Some(text("instance")))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
        .with_reason(Some(text("because")));
    let bytes = body(&join, 9);
    let ours = ringlog_protocol::api::join_group::JoinGroupRequest::decode(&mut Decoder::new(&bytes), 9).unwrap();
    assert_eq!((&*ours.group_id, ours.session_timeout_ms, ours.rebalance_timeout_ms), ("group", 1, 2));
    assert_eq!(
        (&*ours.member_id, ours.group_instance_id.as_deref(), &*ours.protocol_type),
        ("member", Some("instance"), "consumer")
    );
    assert_eq!((&*ours.protocols[0].name, &*ours.protocols[0].metadata), ("range", &b"metadata"[..]));
    assert_eq!(ours.reason.as_deref(), Some("because"));

    let sync = theirs::SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(1)
        .with_member_id(text("member"))
        .with_group_instance_id(Some(text("instance")))
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")));
    let bytes = body(&sync, 5);
    let ours = ringlog_protocol::api::sync_group::SyncGroupRequest::decode(&mut Decoder::new(&bytes), 5).unwrap();
    assert_eq!((&*ours.group_id, ours.generation_id, &*ours.member_id), ("group", 1, "member"));
    assert_eq!(ours.group_instance_id.as_deref(), Some("instance"));
    assert_eq!((ours.protocol_type.as_deref(), ours.protocol_name.as_deref()), (Some("consumer"), Some("range")));

    let partition = theirs::offset_commit_request::OffsetCommitRequestPartition::default()
        .with_partition_index(1)
        .with_committed_offset(2)
        .with_committed_leader_epoch(3)
        .with_committed_metadata(Some(text("metadata")));
    let topic = theirs::offset_commit_request::OffsetCommitRequestTopic::default()
        .with_name(theirs::TopicName(text("orders")))
        .with_partitions(vec![partition]);
    let commit = theirs::OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(4)
        .with_member_id(text("member"))
        .with_topics(vec![topic]);
    let bytes = body(&commit, 9);
    let ours = ringlog_protocol::api::offset_commit::OffsetCommitRequest::decode(&mut Decoder::new(&bytes), 9).unwrap();
    assert_eq!((&*ours.group_id, ours.generation_id_or_member_epoch, &*ours.member_id), ("group", 4, "member"));
    let partition = &ours.topics[0].partitions[0];
    assert_eq!((&*ours.topics[0].name, partition.partition_index, partition.committed_offset), ("orders", 1, 2));
    assert_eq!((partition.committed_leader_epoch, partition.committed_metadata.as_deref()), (3, Some("metadata")));
}

#[test]
fn the_versions_said_to_be_missing_are() {
    for &(name, version) in MISSING {
        assert!(
            every_version().any(|(schema, ours)| (schema.structure.name, ours) == (name, version)),
            "{name} version {version}"
        );
        assert_eq!(run_theirs(name, version, &[]), None, "{name} version {version}");
    }
}

#[test]
fn header_versions_agree() {
    fn check<Q: Request, S: HeaderVersion>(api: ApiKey) {
        assert_eq!(api.key(), Q::KEY, "{api}");
        for version in api.version_min()..=api.version_max() {
            assert_eq!(api.request_header_version(version), Q::header_version(version), "{api} request version {version}");
            assert_eq!(api.response_header_version(version), S::header_version(version), "{api} response version {version}");
        }
    }
    macro_rules! dispatch {
        ($($module:ident $request:ident $response:ident,)*) => {$(
            check::<kafka_protocol::messages::$request, kafka_protocol::messages::$response>(
                <ringlog_protocol::api::$module::$request as ringlog_protocol::Message>::API,
            );
        )*};
    }
    for_each_api!(dispatch);
}

#[test]
fn error_names_and_retriability_agree() {
    use kafka_protocol::ResponseError;
    for &error in ErrorCode::ALL {
        let Some(theirs) = ResponseError::try_from_code(error.0) else {
            assert_eq!(error, ErrorCode::NONE);
            continue;
        };
        let name = error.name().unwrap().replace('_', "").to_lowercase();
        assert_eq!(name, theirs.to_string().to_lowercase(), "{error:?}");
        // Kafka made it retriable in 3.x, where the oracle's table did not follow.
        if error != ErrorCode::CONCURRENT_TRANSACTIONS {
            assert_eq!(error.is_retriable(), theirs.is_retriable(), "{error:?}");
        }
    }
}
