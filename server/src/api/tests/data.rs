//! Produce, Fetch, ListOffsets, and what goes with them.

use std::time::Duration;

use ringlog_engine::batch;
use ringlog_engine::compression::Codec;
use ringlog_engine::types::ProducerId;
use ringlog_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic};
use ringlog_protocol::api::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

use super::*;

#[test]
fn what_is_produced_is_fetched_in_every_version() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 2, &[]).await;
        for core in 0..2 {
            let partition = broker.partition_on(&topic, core);
            let mut expected = Vec::new();
            for version in ApiKey::Produce.version_min()..=ApiKey::Produce.version_max() {
                let value = format!("{version}");
                let records = batch(&[&value, "x"]);
                let next = expected.len() as i64;
                // The last one waits until all is visible.
                let acks = if version % 2 == 0 { 1 } else { -1 };
                let answer = broker.ask(&produce(&topic, partition, &records, acks), version).await;
                assert_eq!(produced(&answer), (ErrorCode::NONE, next), "version {version} on core {core}");
                expected.extend([(next, value), (next + 1, "x".to_owned())]);
            }
            for version in ApiKey::Fetch.version_min()..=ApiKey::Fetch.version_max() {
                let answer = broker.ask(&fetch(&topic, partition, 0), version).await;
                assert_eq!(fetched(&answer), (ErrorCode::NONE, 22, expected.clone()), "version {version} on core {core}");
            }
        }
    });
}

#[test]
fn requests_that_are_under_way_together_keep_their_order() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 2, &[]).await;
        // More than a mailbox holds, to both cores, from one connection.
        const COUNT: usize = 5000;
        let partitions = [broker.partition_on(&topic, 0), broker.partition_on(&topic, 1)];
        let mut under_way = Vec::new();
        for number in 0..COUNT {
            let records = batch(&[&number.to_string()]);
            under_way.push(broker.start(0, &produce(&topic, partitions[number % 2], &records, 1), 11));
        }
        let inflow = |index| topic.partition(partitions[index]).unwrap().inflow.bytes();
        let least = COUNT / 2 * batch(&["0"]).len();
        assert!((0..2).all(|index| inflow(index) >= least), "{} and {} bytes are on their way", inflow(0), inflow(1));
        for (number, outcome) in futures_util::future::join_all(under_way).await.into_iter().enumerate() {
            let answer = answer(outcome, ApiKey::Produce, 11).await;
            assert_eq!(produced(&answer), (ErrorCode::NONE, (number / 2) as i64), "request {number}");
        }
        assert_eq!((inflow(0), inflow(1)), (0, 0));
    });
}

#[test]
fn a_long_poll_ends_with_the_bytes_it_waits_for() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 2, &[]).await;
        let env = broker.apis[0].core.core.env.clone();
        for core in 0..2 {
            let partition = broker.partition_on(&topic, core);
            let records = batch(&["one"]);
            let mut request = fetch(&topic, partition, 0);
            request.max_wait_ms = 60_000;
            request.min_bytes = records.len() as i32 + 1;
            let start = env.monotonic();
            let waiting = broker.start(0, &request, 13);
            let producing = async {
                for _ in 0..2 {
                    env.sleep(Duration::from_millis(100)).await;
                    let answer = broker.ask_on(1, &produce(&topic, partition, &records, -1), 13).await;
                    assert_eq!(produced(&answer).0, ErrorCode::NONE);
                }
            };
            let (outcome, ()) = futures_util::future::join(waiting, producing).await;
            let (error, high_watermark, values) = fetched(&answer(outcome, ApiKey::Fetch, 13).await);
            assert_eq!((error, high_watermark, values.len()), (ErrorCode::NONE, 2, 2));
            let took = env.monotonic() - start;
            assert!((Duration::from_millis(200)..Duration::from_secs(1)).contains(&took), "{took:?}");
        }
    });
}

#[test]
fn a_long_poll_gives_up_in_time() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 1, &[]).await;
        let env = broker.apis[0].core.core.env.clone();
        let start = env.monotonic();
        let answer = broker.ask(&fetch(&topic, 0, 0), 12).await;
        assert_eq!(fetched(&answer), (ErrorCode::NONE, 0, Vec::new()));
        assert_eq!(env.monotonic() - start, Duration::from_millis(500));
        // Nothing to wait for: no partitions, or no wish to wait.
        let nothing = FetchRequest { topics: Vec::new(), ..fetch(&topic, 0, 0) };
        broker.ask(&nothing, 12).await;
        broker.ask(&FetchRequest { max_wait_ms: 0, ..fetch(&topic, 0, 0) }, 12).await;
        broker.ask(&FetchRequest { min_bytes: 0, ..fetch(&topic, 0, 0) }, 12).await;
        assert_eq!(env.monotonic() - start, Duration::from_millis(500));
    });
}

#[test]
fn a_long_poll_hears_of_a_deletion() {
    with_broker(&[], |broker| async move {
        use ringlog_protocol::api::delete_topics::DeleteTopicsRequest;
        let topic = broker.create("t", 2, &[]).await;
        let env = broker.apis[0].core.core.env.clone();
        for (core, version, code) in [(1, 13, ErrorCode::UNKNOWN_TOPIC_ID), (0, 12, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)] {
            let topic = if core == 1 { topic.clone() } else { broker.create("t", 2, &[]).await };
            let mut request = fetch(&topic, broker.partition_on(&topic, core), 0);
            request.max_wait_ms = 3_600_000;
            let waiting = broker.start(0, &request, version);
            let deleting = async {
                env.sleep(Duration::from_millis(10)).await;
                let delete = DeleteTopicsRequest { topic_names: vec!["t".into()], ..DeleteTopicsRequest::default() };
                broker.ask(&delete, 5).await;
            };
            let start = env.monotonic();
            let (outcome, ()) = futures_util::future::join(waiting, deleting).await;
            assert_eq!(fetched(&answer(outcome, ApiKey::Fetch, version).await).0, code);
            assert!(env.monotonic() - start < Duration::from_secs(60));
        }
    });
}

#[test]
fn nobody_waits_on_for_a_peer_that_is_gone() {
    with_broker(&[], |broker| async move {
        use ringlog_protocol::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
        let topic = broker.create("t", 1, &[]).await;
        let env = broker.apis[0].core.core.env.clone();
        broker.broker.controller.offsets_topic().await.unwrap();
        let start = env.monotonic();
        let ask = async |api: ApiKey, version, body: Bytes| {
            let context = context(api, version, 1);
            let gone = context.connection.clone();
            let going = async {
                env.sleep(Duration::from_millis(10)).await;
                gone.gone.tell();
            };
            let handling = broker.apis[0].clone().handle(context, body);
            answer(futures_util::future::join(handling, going).await.0, api, version).await
        };
        let request = FetchRequest { max_wait_ms: 3_600_000, ..fetch(&topic, 0, 0) };
        assert_eq!(fetched(&ask(ApiKey::Fetch, 12, encode(&request, 12)).await).0, ErrorCode::NONE);
        let protocols = vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Cow::Borrowed(&[]) }];
        // A group that was empty waits for others.
        let request = JoinGroupRequest {
            group_id: "g".into(),
            protocol_type: "consumer".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            protocols,
            ..JoinGroupRequest::default()
        };
        let answer = ask(ApiKey::JoinGroup, 3, encode(&request, 3)).await;
        assert_eq!(answer.read::<JoinGroupResponse<'_>>().error_code, ErrorCode::NOT_COORDINATOR);
        assert!(env.monotonic() - start < Duration::from_secs(1));
    });
}

#[test]
fn a_fetch_says_what_is_wrong() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 1, &[]).await;
        let records = batch(&["a", "b", "c"]);
        broker.ask(&produce(&topic, 0, &records, -1), 13).await;
        let error = async |request: FetchRequest<'_>, version| fetched(&broker.ask(&request, version).await).0;
        assert_eq!(error(fetch(&topic, 0, 4), 13).await, ErrorCode::OFFSET_OUT_OF_RANGE);
        assert_eq!(error(fetch(&topic, 0, -1), 13).await, ErrorCode::OFFSET_OUT_OF_RANGE);
        assert_eq!(error(fetch(&topic, 1, 0), 13).await, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        let mut request = fetch(&topic, 0, 0);
        request.topics[0].topic_id = [9; 16];
        assert_eq!(error(request.clone(), 13).await, ErrorCode::UNKNOWN_TOPIC_ID);
        request.topics[0].topic = "u".into();
        assert_eq!(error(request, 12).await, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        let epoch = topic.partitions[0].published.leader_epoch().0;
        for (claimed, code) in [(epoch, ErrorCode::NONE), (epoch + 1, ErrorCode::UNKNOWN_LEADER_EPOCH)] {
            let mut request = fetch(&topic, 0, 0);
            request.topics[0].partitions[0].current_leader_epoch = claimed;
            assert_eq!(error(request, 16).await, code);
        }
        let follower = FetchRequest { replica_id: 5, ..fetch(&topic, 0, 0) };
        assert_eq!(error(follower, 12).await, ErrorCode::NOT_LEADER_OR_FOLLOWER);
    });
}

#[test]
fn sessions_are_not_opened_and_not_known() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 1, &[]).await;
        for (session_id, session_epoch, code) in
            [(0, 0, ErrorCode::NONE), (7, -1, ErrorCode::NONE), (7, 1, ErrorCode::FETCH_SESSION_ID_NOT_FOUND)]
        {
            let request = FetchRequest { session_id, session_epoch, max_wait_ms: 0, ..fetch(&topic, 0, 0) };
            let answer = broker.ask(&request, 13).await;
            let response: FetchResponse<'_> = answer.read();
            assert_eq!((response.error_code, response.session_id), (code, 0));
            assert_eq!(response.responses.len(), usize::from(code.is_none()));
        }
    });
}

#[test]
fn limits_hold_but_for_the_first_batch() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 2, &[]).await;
        let records = batch(&[&"v".repeat(1000)]);
        for partition in 0..2 {
            for _ in 0..3 {
                broker.ask(&produce(&topic, partition, &records, -1), 13).await;
            }
        }
        let both = |max_bytes, partition_max_bytes| {
            let mut request = fetch(&topic, 0, 0);
            request.max_bytes = max_bytes;
            request.topics[0].partitions[0].partition_max_bytes = partition_max_bytes;
            let mut second = request.topics[0].partitions[0].clone();
            second.partition = 1;
            request.topics[0].partitions.push(second);
            request
        };
        let sizes = async |request: FetchRequest<'_>| {
            let answer = broker.ask(&request, 13).await;
            let response: FetchResponse<'_> = answer.read();
            let partitions = &response.responses[0].partitions;
            assert!(partitions.iter().all(|partition| partition.high_watermark == 3));
            partitions.iter().map(|partition| partition.records.size()).collect::<Vec<_>>()
        };
        let one = records.len();
        assert_eq!(sizes(both(1 << 20, 1 << 20)).await, [3 * one, 3 * one]);
        assert_eq!(sizes(both(1, 1)).await, [one, 0], "one batch, once");
        assert_eq!(sizes(both(1 << 20, 1)).await, [one, 0]);
        assert_eq!(sizes(both(4 * one as i32, 1 << 20)).await, [3 * one, one]);
        assert_eq!(sizes(both(3 * one as i32, 1 << 20)).await, [3 * one, 0]);
        assert_eq!(sizes(both(0, 0)).await, [one, 0]);
    });
}

#[test]
fn a_batch_that_is_wrong_is_refused_with_kafkas_error() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 2, &[("max.message.bytes", "500")]).await;
        let ask = async |partition, records: &[u8], acks, version| {
            produced(&broker.ask(&produce(&topic, partition, records, acks), version).await)
        };
        let good = batch(&["good"]);
        for partition in 0..2 {
            let mut damaged = good.clone();
            *damaged.last_mut().unwrap() ^= 1;
            assert_eq!(ask(partition, &damaged, -1, 9).await, (ErrorCode::CORRUPT_MESSAGE, -1));
            assert_eq!(ask(partition, &[good.clone(), good.clone()].concat(), -1, 9).await.0, ErrorCode::INVALID_RECORD);
            assert_eq!(ask(partition, &[], -1, 9).await.0, ErrorCode::INVALID_RECORD);
            assert_eq!(ask(partition, &batch(&[&"v".repeat(500)]), -1, 9).await.0, ErrorCode::MESSAGE_TOO_LARGE);
            assert_eq!(ask(partition, &batch_at(i64::MAX / 2, &["late"]), -1, 9).await.0, ErrorCode::INVALID_TIMESTAMP);
            assert_eq!(ask(partition, &good, 2, 9).await, (ErrorCode::INVALID_REQUIRED_ACKS, -1));
            let zstd = BatchBuilder::new(Offset(0)).codec(Codec::Zstd);
            let zstd = zstd.record(TimestampMs(1_767_225_600_000), None, Some(b"z")).build();
            assert_eq!(ask(partition, &zstd, 1, 6).await.0, ErrorCode::UNSUPPORTED_COMPRESSION_TYPE);
            assert_eq!(ask(partition, &zstd, 1, 7).await, (ErrorCode::NONE, 0));
        }
        assert_eq!(ask(2, &good, -1, 9).await.0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(ask(2, &good, 2, 9).await.0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "whatever the acks");
        let mut unknown = produce(&topic, 0, &good, -1);
        unknown.topic_data[0].name = "u".into();
        unknown.topic_data[0].topic_id = [9; 16];
        assert_eq!(produced(&broker.ask(&unknown, 12).await).0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(produced(&broker.ask(&unknown, 13).await).0, ErrorCode::UNKNOWN_TOPIC_ID);
    });
}

/// The largest timestamps that a partition's batches say.
async fn max_timestamps(broker: &Fixture, topic: &Topic, partition: i32) -> Vec<i64> {
    let answer = broker.ask(&fetch(topic, partition, 0), 13).await;
    let response: FetchResponse<'_> = answer.read();
    let records = response.responses[0].partitions[0].records.bytes().unwrap_or_default().to_vec();
    batch::batches(&records)
        .map(|batch| {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            batch.header().max_timestamp.0
        })
        .collect()
}

async fn list_offset(broker: &Fixture, partition: i32, timestamp: i64) -> (ErrorCode, i64, i64) {
    let partition = ListOffsetsPartition { partition_index: partition, timestamp, ..ListOffsetsPartition::default() };
    let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![partition] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
    let answer = broker.ask(&request, 7).await;
    let response: ListOffsetsResponse<'_> = answer.read();
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.timestamp, found.offset)
}

#[test]
fn a_largest_timestamp_that_is_wrong_is_corrected() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 2, &[]).await;
        let at = 1_767_225_600_000;
        for (partition, codec) in [(0, Codec::None), (1, Codec::Lz4)] {
            let make = |sequence, first: i64, max_timestamp: i64| {
                let builder = BatchBuilder::new(Offset(0)).codec(codec).producer(ProducerId(7), 0, sequence);
                let builder = builder.record(TimestampMs(first), None, Some(b"v")).record(TimestampMs(first + 9), None, None);
                let mut bytes = builder.build();
                batch::set_max_timestamp(&mut bytes, TimestampMs(max_timestamp));
                bytes
            };
            let ask = async |bytes: &[u8]| produced(&broker.ask(&produce(&topic, partition, bytes, -1), 9).await);
            // Never set, set to a time without a value, as it should be, far ahead though no record is.
            for (turn, wrong) in [-1, -6_795_364_578_871, at + 9, i64::MAX].into_iter().enumerate() {
                let (base, first) = (2 * turn as i64, at + 1000 * turn as i64 - if wrong == at + 9 { 2000 } else { 0 });
                let bytes = make(base as i32, first, wrong);
                assert_eq!(ask(&bytes).await, (ErrorCode::NONE, base));
                assert_eq!(ask(&bytes).await, (ErrorCode::NONE, base), "sent again");
            }
            assert_eq!(max_timestamps(&broker, &topic, partition).await, [at + 9, at + 1009, at + 9, at + 3009]);
            assert_eq!(list_offset(&broker, partition, -3).await, (ErrorCode::NONE, at + 3009, 7));
            assert_eq!(list_offset(&broker, partition, at + 1001).await, (ErrorCode::NONE, at + 1009, 3));
            // What the header hides is found: a record too far ahead, and damage.
            let mut late = make(8, i64::MAX / 2, -1);
            assert_eq!(ask(&late).await.0, ErrorCode::INVALID_TIMESTAMP);
            late[20] ^= 1;
            assert_eq!(ask(&late).await.0, ErrorCode::CORRUPT_MESSAGE);
            let mut damaged = make(8, at, -1);
            damaged[20] ^= 1;
            assert_eq!(ask(&damaged).await.0, ErrorCode::CORRUPT_MESSAGE);
            let mut damaged = make(8, at, at + 9);
            damaged[40] ^= 1;
            assert_eq!(ask(&damaged).await.0, ErrorCode::CORRUPT_MESSAGE, "in the largest timestamp itself");
        }
        // What cannot be looked into is refused.
        let mut bytes = BatchBuilder::new(Offset(0)).codec(Codec::Gzip).record(TimestampMs(at), None, Some(b"v")).build();
        *bytes.last_mut().unwrap() ^= 1;
        batch::set_max_timestamp(&mut bytes, TimestampMs::NONE);
        assert_eq!(produced(&broker.ask(&produce(&topic, 1, &bytes, -1), 9).await).0, ErrorCode::CORRUPT_MESSAGE);
    });
}

#[test]
fn every_record_to_blame_is_named() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 1, &[("cleanup.policy", "compact")]).await;
        let at = 1_767_225_600_000;
        let ask = async |bytes: &[u8]| {
            let answer = broker.ask(&produce(&topic, 0, bytes, -1), 9).await;
            let response: ProduceResponse<'_> = answer.read();
            let partition = &response.responses[0].partition_responses[0];
            assert_eq!(partition.log_start_offset, 0, "the log's start is told");
            let named = partition.record_errors.iter().map(|error| {
                assert!(error.batch_index_error_message.is_some());
                error.batch_index
            });
            (partition.error_code, named.collect::<Vec<_>>())
        };
        for codec in [Codec::None, Codec::Zstd] {
            let make = |records: &[(i64, bool)]| {
                let add = |builder: BatchBuilder, &(timestamp, keyed): &(i64, bool)| {
                    builder.record(TimestampMs(timestamp), keyed.then_some(b"k"), Some(b"v"))
                };
                records.iter().fold(BatchBuilder::new(Offset(0)).codec(codec), add).build()
            };
            let late = i64::MAX / 2;
            let keyless = make(&[(at, true), (at, false), (at, true), (at, false)]);
            assert_eq!(ask(&keyless).await, (ErrorCode::INVALID_RECORD, vec![1, 3]));
            assert_eq!(ask(&make(&[(late, true), (at, true), (late, true)])).await, (ErrorCode::INVALID_TIMESTAMP, vec![0, 2]));
            assert_eq!(ask(&make(&[(at, false), (late, true)])).await, (ErrorCode::INVALID_TIMESTAMP, vec![0, 1]));
            // More than an answer takes.
            let (error, named) = ask(&make(&vec![(at, false); 20_000])).await;
            assert_eq!((error, named.len(), named.last()), (ErrorCode::INVALID_RECORD, 10_000, Some(&9_999)));
        }
        // The batch is to blame, and no record of it more than another.
        let mut bytes = BatchBuilder::new(Offset(0)).record(TimestampMs(at), None, Some(b"v")).build();
        let (keep, length) = (bytes.len() - 1, bytes[11] - 1);
        bytes.truncate(keep);
        bytes[11] = length;
        batch::set_max_timestamp(&mut bytes, TimestampMs(at));
        assert_eq!(ask(&bytes).await, (ErrorCode::INVALID_RECORD, vec![]));
        // The bound holds for a request as a whole.
        let bytes =
            (0..9_000).fold(BatchBuilder::new(Offset(0)), |builder, _| builder.record(TimestampMs(at), None, None)).build();
        let mut request = produce(&topic, 0, &bytes, -1);
        let again = request.topic_data[0].partition_data[0].clone();
        request.topic_data[0].partition_data.push(again);
        let answer = broker.ask(&request, 9).await;
        let response: ProduceResponse<'_> = answer.read();
        let named: Vec<_> = response.responses[0].partition_responses.iter().map(|answer| answer.record_errors.len()).collect();
        assert_eq!(named, [9_000, 1_000]);
    });
}

#[test]
fn an_idempotent_producer_is_answered_alike_when_it_sends_again() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 2, &[]).await;
        for partition in 0..2 {
            let ask = async |epoch, sequence| {
                let builder = BatchBuilder::new(Offset(0)).producer(ProducerId(42), epoch, sequence);
                let records = builder.record(TimestampMs(1_767_225_600_000), None, Some(b"v")).build();
                produced(&broker.ask(&produce(&topic, partition, &records, -1), 9).await)
            };
            assert_eq!(ask(1, 0).await, (ErrorCode::NONE, 0));
            assert_eq!(ask(1, 1).await, (ErrorCode::NONE, 1));
            assert_eq!(ask(1, 0).await, (ErrorCode::NONE, 0), "sent again");
            assert_eq!(ask(1, 3).await, (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1));
            assert_eq!(ask(0, 2).await, (ErrorCode::INVALID_PRODUCER_EPOCH, -1));
            assert_eq!(ask(1, 2).await, (ErrorCode::NONE, 2));
        }
        // The log that refuses it says where it starts.
        let records = BatchBuilder::new(Offset(0)).producer(ProducerId(42), 1, 9).record(TimestampMs(1), None, None).build();
        let answer = broker.ask(&produce(&topic, 0, &records, -1), 9).await;
        let response: ProduceResponse<'_> = answer.read();
        let refused = &response.responses[0].partition_responses[0];
        assert_eq!((refused.error_code, refused.log_start_offset), (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, 0));
        let builder = BatchBuilder::new(Offset(0)).producer(ProducerId(43), 0, 0).transactional();
        let records = builder.record(TimestampMs(1_767_225_600_000), None, Some(b"v")).build();
        assert_eq!(produced(&broker.ask(&produce(&topic, 0, &records, -1), 9).await).0, ErrorCode::INVALID_TXN_STATE);
    });
}

#[test]
fn without_acks_there_is_no_answer_and_an_error_closes() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 2, &[]).await;
        let records = batch(&["v"]);
        for partition in 0..2 {
            assert!(matches!(broker.start(0, &produce(&topic, partition, &records, 0), 9).await, Outcome::Nothing));
            let (_, _, values) = fetched(&broker.ask(&fetch(&topic, partition, 0), 13).await);
            assert_eq!(values, [(0, "v".to_owned())]);
        }
        assert!(matches!(broker.start(0, &produce(&topic, 2, &records, 0), 9).await, Outcome::Close(_)));
    });
}

#[test]
fn the_brokers_time_is_told_where_the_topic_has_it() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
        let records = batch_at(5, &["v"]);
        let answer = broker.ask(&produce(&topic, 0, &records, -1), 9).await;
        let response: ProduceResponse<'_> = answer.read();
        let partition = &response.responses[0].partition_responses[0];
        assert!(partition.log_append_time_ms >= 1_767_225_600_000);
        assert_eq!((partition.error_code, partition.log_start_offset), (ErrorCode::NONE, 0));
    });
}

#[test]
fn offsets_are_listed() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 2, &[]).await;
        for partition in 0..2 {
            for time in [1000, 3000, 2000] {
                broker.ask(&produce(&topic, partition, &batch_at(time, &["a", "b"]), -1), 13).await;
            }
            let ask = async |timestamp: i64, version| {
                let request = ListOffsetsRequest {
                    replica_id: -1,
                    topics: vec![ListOffsetsTopic {
                        name: "t".into(),
                        partitions: vec![ListOffsetsPartition {
                            partition_index: partition,
                            timestamp,
                            ..ListOffsetsPartition::default()
                        }],
                    }],
                    ..ListOffsetsRequest::default()
                };
                let answer = broker.ask(&request, version).await;
                let response: ListOffsetsResponse<'_> = answer.read();
                let found = &response.topics[0].partitions[0];
                (found.error_code, found.timestamp, found.offset)
            };
            let ok = ErrorCode::NONE;
            for version in 1..=11 {
                assert_eq!(ask(-1, version).await, (ok, -1, 6));
                assert_eq!(ask(-2, version).await, (ok, -1, 0));
                assert_eq!(ask(0, version).await, (ok, 1000, 0));
                assert_eq!(ask(1001, version).await, (ok, 3000, 2));
                assert_eq!(ask(3001, version).await, (ok, -1, -1));
            }
            assert_eq!(ask(-3, 7).await, (ok, 3000, 2));
            assert_eq!(ask(-4, 8).await, (ok, -1, 0));
            assert_eq!(ask(-5, 9).await, (ok, -1, -1));
            assert_eq!(ask(-6, 11).await, (ok, -1, -1));
            assert_eq!(ask(-3, 6).await, (ErrorCode::UNSUPPORTED_VERSION, -1, -1));
        }
    });
}

#[test]
fn a_partition_that_is_asked_for_twice_is_a_mistake() {
    with_broker(&[], |broker| async move {
        broker.create("t", 1, &[]).await;
        let partition = ListOffsetsPartition { timestamp: -1, ..ListOffsetsPartition::default() };
        let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![partition.clone(), partition] };
        let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
        let answer = broker.ask(&request, 7).await;
        let response: ListOffsetsResponse<'_> = answer.read();
        assert!(response.topics[0].partitions.iter().all(|found| found.error_code == ErrorCode::INVALID_REQUEST));
    });
}

#[test]
fn the_end_of_an_epoch_is_told() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 2, &[]).await;
        for core in 0..2 {
            let partition = broker.partition_on(&topic, core);
            let epoch = topic.partition(partition).unwrap().published.leader_epoch().0;
            let ask = async |current_leader_epoch, leader_epoch| {
                let partitions = vec![OffsetForLeaderPartition { partition, current_leader_epoch, leader_epoch }];
                let topics = vec![OffsetForLeaderTopic { topic: "t".into(), partitions }];
                let answer = broker.ask(&OffsetForLeaderEpochRequest { replica_id: -1, topics }, 4).await;
                let response: OffsetForLeaderEpochResponse<'_> = answer.read();
                let found = &response.topics[0].partitions[0];
                (found.error_code, found.leader_epoch, found.end_offset)
            };
            // Before the first record, too: where the log begins and ends is told with this epoch, which clients ask for then.
            assert_eq!(ask(-1, epoch).await, (ErrorCode::NONE, epoch, 0));
            for timestamp in [-1, -2, -4] {
                let partitions =
                    vec![ListOffsetsPartition { partition_index: partition, timestamp, ..ListOffsetsPartition::default() }];
                let topics = vec![ListOffsetsTopic { name: "t".into(), partitions }];
                let answer = broker.ask(&ListOffsetsRequest { replica_id: -1, topics, ..ListOffsetsRequest::default() }, 8).await;
                let response: ListOffsetsResponse<'_> = answer.read();
                let found = &response.topics[0].partitions[0];
                assert_eq!((found.error_code, found.offset, found.leader_epoch), (ErrorCode::NONE, 0, epoch), "{timestamp}");
            }
            let mut request = fetch(&topic, partition, 0);
            request.max_wait_ms = 0;
            request.topics[0].partitions[0].last_fetched_epoch = epoch;
            let answer = broker.ask(&request, 12).await;
            let response: FetchResponse<'_> = answer.read();
            let found = &response.responses[0].partitions[0];
            assert_eq!((found.error_code, found.diverging_epoch.end_offset), (ErrorCode::NONE, -1));

            broker.ask(&produce(&topic, partition, &batch(&["a", "b"]), -1), 13).await;
            assert_eq!(ask(-1, epoch).await, (ErrorCode::NONE, epoch, 2));
            assert_eq!(ask(epoch, epoch + 1).await, (ErrorCode::NONE, -1, -1));
            assert_eq!(ask(epoch + 1, epoch).await, (ErrorCode::UNKNOWN_LEADER_EPOCH, -1, -1));
            // A reader whose own log has records of that epoch beyond the end of ours is sent back.
            let mut request = fetch(&topic, partition, 2);
            request.max_wait_ms = 0;
            request.topics[0].partitions[0].last_fetched_epoch = epoch;
            let answer = broker.ask(&request, 12).await;
            let response: FetchResponse<'_> = answer.read();
            assert_eq!(response.responses[0].partitions[0].diverging_epoch.end_offset, -1, "the same log");
            request.topics[0].partitions[0].fetch_offset = 9;
            let answer = broker.ask(&request, 12).await;
            let response: FetchResponse<'_> = answer.read();
            let found = &response.responses[0].partitions[0];
            assert_eq!(
                (found.error_code, found.diverging_epoch.epoch, found.diverging_epoch.end_offset),
                (ErrorCode::NONE, epoch, 2)
            );
        }
    });
}

#[test]
fn memory_that_is_sent_slowly_can_be_exchanged_for_the_file() {
    with_broker(&[], |broker| async move {
        let topic = broker.create("t", 2, &[]).await;
        let env = broker.apis[0].core.core.env.clone();
        for partition in 0..2 {
            let records = batch(&[&"v".repeat(50_000)]);
            broker.ask(&produce(&topic, partition, &records, -1), 13).await;
            let mut request = fetch(&topic, partition, 0);
            request.topics[0].partitions[0].partition_max_bytes = 10_000_000;
            let Outcome::Reply(response) = broker.start(0, &request, 13).await else { panic!("no answer") };
            let tails = response.tails();
            assert!(!tails.is_empty(), "fresh records are in memory");
            let before: Vec<u8> = tails.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
            assert_eq!(before.len(), records.len());
            assert!(tails.iter().all(|(_, range)| range.as_file().is_none()), "the file does not have them yet");
            // The rest of the batches comes to the file when the partition has been idle for a while, then the file is opened.
            let mut after = Vec::new();
            for _ in 0..3 {
                env.sleep(Duration::from_secs(120)).await;
                after = tails.iter().filter_map(|(_, range)| range.as_file()).collect();
            }
            let mut bytes = Vec::new();
            for range in after {
                let buffer = ringlog_engine::memory::Buffer::standalone(range.len as usize).unwrap();
                let (buffer, read) = range.file.read_at(buffer, range.len as usize, range.position).await.unwrap();
                bytes.extend_from_slice(&buffer[..read]);
            }
            assert!(bytes == before, "{} bytes instead of {}", bytes.len(), before.len());
        }
    });
}

#[test]
fn damage_is_an_error_that_clients_see_and_a_log_line_now_and_then() {
    with_broker(&[], |broker| async move {
        use ringlog_engine::log::read::ReadError;
        let api = &broker.apis[0];
        let damaged = || ReadError::Damaged { path: "p".to_owned(), position: 7, reason: "rot".to_owned() };
        assert_eq!(api.read_error(&ReadError::OutOfRange(Offset(1))), ErrorCode::OFFSET_OUT_OF_RANGE);
        for _ in 0..3 {
            assert_eq!(api.read_error(&damaged()), ErrorCode::CORRUPT_MESSAGE);
        }
        api.core.core.env.sleep(Duration::from_secs(100)).await;
        assert_eq!(
            api.damage_log.pass(api.core.core.env.monotonic()),
            Some(2),
            "one of three was logged, the first error is nobody's"
        );
        api.core.core.env.sleep(Duration::from_secs(100)).await;
        assert_eq!(api.read_error(&ReadError::Io(std::io::ErrorKind::NotFound.into())), ErrorCode::KAFKA_STORAGE_ERROR);
        assert_eq!(api.damage_log.pass(api.core.core.env.monotonic()), None, "this one was logged");
    });
}
