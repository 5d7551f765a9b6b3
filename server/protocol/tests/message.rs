//! Messages byte by byte: what the descriptions in `api` must come to, spelled out for a few.

use ringlog_protocol::api::api_versions::{ApiVersion, ApiVersionsResponse, SupportedFeatureKey};
use ringlog_protocol::api::describe_topic_partitions::{Cursor, DescribeTopicPartitionsRequest};
use ringlog_protocol::api::fetch::{FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData};
use ringlog_protocol::api::metadata::MetadataRequest;
use ringlog_protocol::api::produce::ProduceRequest;
use ringlog_protocol::{DecodeError, Decoder, Encoder, ErrorCode, Hole, Message, Records};

fn bytes<'a>(message: &impl Message<'a>, version: i16) -> Vec<u8> {
    let mut encoder = Encoder::new();
    message.encode(&mut encoder, version);
    encoder.into_buffer()
}

#[test]
fn a_produce_request_borrows_its_strings_and_records() {
    let body = b"\xff\xff\xff\xff\0\0\x75\x30\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x07\0\0\0\x03abc";
    let mut decoder = Decoder::new(body);
    let request = ProduceRequest::decode(&mut decoder, 3).unwrap();
    assert_eq!(decoder.remaining(), 0);
    assert_eq!((request.transactional_id.as_deref(), request.acks, request.timeout_ms), (None, -1, 30_000));
    let topic = &request.topic_data[0];
    assert!(matches!(topic.name, std::borrow::Cow::Borrowed("t")));
    assert_eq!(topic.partition_data[0].index, 7);
    let records = topic.partition_data[0].records.bytes().unwrap();
    assert_eq!(records.as_ptr_range(), body[body.len() - 3..].as_ptr_range());
    assert_eq!(bytes(&request, 3), body);
}

#[test]
fn a_fetch_response_leaves_holes_for_its_records() {
    let partition = |partition_index, records| PartitionData { partition_index, records, ..PartitionData::default() };
    let response = |records| FetchResponse {
        responses: vec![FetchableTopicResponse {
            topic_id: [1; 16],
            partitions: vec![partition(0, records), partition(1, Records::Null), partition(2, records)],
            ..FetchableTopicResponse::default()
        }],
        ..FetchResponse::default()
    };
    let records = [7; 300];
    let whole = bytes(&response(Records::Bytes(&records)), 16);
    let mut encoder = Encoder::new();
    response(Records::Hole(300)).encode(&mut encoder, 16);
    assert_eq!((encoder.size(), encoder.buffer().len()), (whole.len(), whole.len() - 600));

    let (buffer, holes) = encoder.into_parts();
    assert_eq!(holes.len(), 2);
    let (mut filled, mut from) = (Vec::new(), 0);
    for Hole { position, size } in holes {
        filled.extend_from_slice(&buffer[from..position]);
        filled.extend_from_slice(&records[..size]);
        from = position;
    }
    filled.extend_from_slice(&buffer[from..]);
    assert_eq!(filled, whole);
    assert_eq!(FetchResponse::decode(&mut Decoder::new(&whole), 16), Ok(response(Records::Bytes(&records))));
}

#[test]
fn default_tagged_fields_are_omitted_and_others_sized() {
    let mut response = FetchResponse {
        responses: vec![FetchableTopicResponse { partitions: vec![PartitionData::default()], ..Default::default() }],
        ..FetchResponse::default()
    };
    let plain = bytes(&response, 12);
    response.responses[0].partitions[0].current_leader = LeaderIdAndEpoch { leader_id: 2, leader_epoch: 3 };
    let tagged = bytes(&response, 12);
    // After the partition's records (null: 0) come its tagged fields, then the topic's and the message's empty sections.
    assert!(plain.ends_with(&[0, 0, 0, 0]));
    assert!(tagged.ends_with(&[0, 1, 1, 9, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]));
    assert_eq!(FetchResponse::decode(&mut Decoder::new(&tagged), 12), Ok(response));
}

#[test]
fn a_tagged_value_of_over_127_bytes_has_a_longer_size() {
    let feature = |n: i16| SupportedFeatureKey { name: format!("feature.{n:04}").into(), min_version: 0, max_version: n };
    let response = ApiVersionsResponse { supported_features: (0..100).map(feature).collect(), ..Default::default() };
    let body = bytes(&response, 3);
    assert_eq!(ApiVersionsResponse::decode(&mut Decoder::new(&body), 3), Ok(response));
    // 100 features of 1 + 12 + 2 + 2 + 1 bytes and a count of 1 byte make 1801, in two bytes of size.
    assert_eq!(body[..11], [0, 0, 1, 0, 0, 0, 0, 1, 0, 0x89, 0x0e]);
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    let body = [0, 35, 2, 0, 18, 0, 0, 0, 4, 0, 0, 0, 0, 9, 2, 99, 2, 0xaa, 0xbb, 3, 1, 1];
    let response = ApiVersionsResponse::decode(&mut Decoder::new(&body), 4).unwrap();
    assert_eq!(response.error_code, ErrorCode::UNSUPPORTED_VERSION);
    assert_eq!(response.api_keys, [ApiVersion { api_key: 18, min_version: 0, max_version: 4 }]);
    assert!(response.zk_migration_ready);
    assert_eq!(response.throttle_time_ms, 9);
}

#[test]
fn a_tagged_field_of_the_wrong_size_is_an_error() {
    let body = [0, 0, 1, 0, 0, 0, 0, 1, 3, 2, 1, 1];
    let error = ApiVersionsResponse::decode(&mut Decoder::new(&body), 3).unwrap_err();
    assert_eq!(error, DecodeError::TaggedFieldSize { tag: 3, remaining: 1 });
}

#[test]
fn null_stands_only_where_the_version_allows_it() {
    assert_eq!(MetadataRequest::decode(&mut Decoder::new(&[0xff; 4]), 1).unwrap().topics, None);
    let error = MetadataRequest::decode(&mut Decoder::new(&[0xff; 4]), 0).unwrap_err();
    assert_eq!(error, DecodeError::UnexpectedNull("topics"));
    assert_eq!(MetadataRequest::decode(&mut Decoder::new(&[0; 4]), 0).unwrap().topics, Some(vec![]));
}

#[test]
fn a_structure_that_may_be_null_says_so_in_a_byte() {
    let mut request = DescribeTopicPartitionsRequest { response_partition_limit: 5, ..Default::default() };
    assert_eq!(bytes(&request, 0), [1, 0, 0, 0, 5, 0xff, 0]);
    request.cursor = Some(Cursor { topic_name: "t".into(), partition_index: 2 });
    let body = bytes(&request, 0);
    assert_eq!(body, [1, 0, 0, 0, 5, 1, 2, b't', 0, 0, 0, 2, 0, 0]);
    assert_eq!(DescribeTopicPartitionsRequest::decode(&mut Decoder::new(&body), 0), Ok(request));
}

#[test]
fn bytes_after_the_end_are_left_alone() {
    let mut decoder = Decoder::new(&[0, 0, 0, 0, 1, 2, 3]);
    MetadataRequest::decode(&mut decoder, 0).unwrap();
    assert_eq!(decoder.rest(), [1, 2, 3]);
}

#[test]
fn an_unserved_version_is_an_error_to_decode() {
    let error = ProduceRequest::decode(&mut Decoder::new(&[]), 2).unwrap_err();
    assert!(matches!(error, DecodeError::UnsupportedVersion { api: "Produce", version: 2, version_min: 3, version_max: 13 }));
}

#[test]
#[should_panic(expected = "Produce version 14")]
fn an_unserved_version_is_a_bug_to_encode() {
    ProduceRequest::default().encode(&mut Encoder::new(), 14);
}

#[test]
fn a_length_that_the_bytes_cannot_fill_is_refused() {
    let error = MetadataRequest::decode(&mut Decoder::new(&[0x7f, 0xff, 0xff, 0xff]), 1).unwrap_err();
    assert_eq!(error, DecodeError::ArrayTooLong { count: i32::MAX as usize, element_bytes_min: 2, remaining: 0 });
}
