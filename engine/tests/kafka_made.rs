//! Bytes that Kafka's own classes wrote (`fixtures/MakeFixtures.java`), read as what they are.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may end where it fails")]

use ringlog_engine::batch::{BatchHeader, BatchView, TimestampType};
use ringlog_engine::compression::Codec;
use ringlog_engine::log::producer_snapshot;
use ringlog_engine::log::producers::{ProducerStates, Verdict};
use ringlog_engine::record::{Header, Record};
use ringlog_engine::segment::index;
use ringlog_engine::types::{LeaderEpoch, Offset, ProducerId, TimestampMs};

const NOW: i64 = 1_700_000_000_000;

fn fixture(name: &str) -> Vec<u8> {
    let text = include_str!("fixtures/kafka-4.3.1.txt");
    let line = text.lines().find_map(|line| line.split_once(' ').filter(|(found, _)| *found == name)).unwrap();
    let digits = line.1.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn batches_of_every_codec() {
    for codec in Codec::ALL {
        let bytes = fixture(codec.name());
        let view = BatchView::new(&bytes).unwrap();
        view.check_crc().unwrap();
        let header = view.header();
        assert_eq!(header.attributes.codec(), Ok(codec));
        assert_eq!(header.attributes.timestamp_type(), TimestampType::CreateTime);
        assert_eq!((header.base_offset, header.last_offset()), (Offset(1_234_567_890_123), Offset(1_234_567_890_125)));
        assert_eq!((header.base_timestamp, header.max_timestamp), (TimestampMs(NOW), TimestampMs(NOW + 9)));
        assert_eq!((header.producer_id, header.producer_epoch), (ProducerId(4000), 3));
        assert_eq!((header.base_sequence, header.last_sequence()), (i32::MAX - 1, 0));
        assert_eq!(header.leader_epoch, LeaderEpoch(7));

        let records = view.records(1000).unwrap();
        let records: Vec<Record<'_>> = records.iter().map(Result::unwrap).collect();
        assert_eq!(records.len(), 3, "{codec:?}");
        assert_eq!((records[0].key, records[0].value), (Some(&b"key"[..]), Some(&b"value"[..])));
        assert_eq!((records[1].key, records[1].value), (None, Some(&[b'a'; 300][..])));
        assert_eq!(header.timestamp_of(&records[1]), TimestampMs(NOW - 5));
        assert_eq!((records[2].key, records[2].value), (Some(&b"gone"[..]), None));
        let headers = [Header { key: b"h", value: Some(b"v") }, Header { key: b"none", value: None }];
        assert_eq!(records[2].headers().collect::<Vec<_>>(), headers);
    }
}

#[test]
fn a_batch_with_the_time_of_the_append() {
    let bytes = fixture("log-append-time");
    let view = BatchView::new(&bytes).unwrap();
    view.check_crc().unwrap();
    assert_eq!(view.header().attributes.timestamp_type(), TimestampType::LogAppendTime);
    let records = view.records(1000).unwrap();
    let record = records.iter().next().unwrap().unwrap();
    assert_eq!(view.header().timestamp_of(&record), TimestampMs(NOW + 77));
}

#[test]
fn a_marker_that_ends_a_transaction() {
    let bytes = fixture("marker");
    let view = BatchView::new(&bytes).unwrap();
    view.check_crc().unwrap();
    assert!(view.header().attributes.is_control() && view.header().attributes.is_transactional());
    assert_eq!(view.header().last_sequence(), -1);
    let records = view.records(1000).unwrap();
    let record = records.iter().next().unwrap().unwrap();
    assert_eq!(record.key, Some(&[0, 0, 0, 1][..]), "version 0, commit");
    assert_eq!(record.value, Some(&[0, 0, 0, 0, 0, 42][..]), "version 0, coordinator epoch 42");
}

#[test]
fn a_producer_snapshot() {
    let bytes = fixture("snapshot");
    let entries = producer_snapshot::parse(&bytes).unwrap();
    assert_eq!(producer_snapshot::encode(&entries), bytes);
    let now = TimestampMs(NOW);
    let states = ProducerStates::from_snapshot(&bytes, 1000, now).unwrap();
    let views: Vec<_> = states.views().collect();
    assert_eq!((views[0].producer_id, views[0].producer_epoch, views[0].last_sequence), (ProducerId(4000), 3, 4));
    assert_eq!(views[1].transaction_start, Some(Offset(15)));
    assert_eq!(states.first_undecided_offset(), Some(Offset(15)));
    assert_eq!(states.end(), Offset(16));

    // The last batch of the first producer, which was appended at 13, is sent again.
    let header = BatchHeader::parse(&fixture("none")).unwrap();
    let again = BatchHeader { base_sequence: 3, last_offset_delta: 1, ..header };
    let expected = Verdict::Duplicate { base_offset: Offset(13), timestamp: TimestampMs(NOW + 1) };
    assert_eq!(states.check(&again, now), Ok(expected));
    let next = BatchHeader { base_sequence: 5, ..again };
    assert_eq!(states.check(&next, now), Ok(Verdict::Append));
}

#[test]
fn indexes() {
    let offsets = index::parse_offset_index(&fixture("index"), Offset(1000), 80_000).unwrap();
    assert_eq!(
        offsets.iter().map(|entry| (entry.last_offset.0, entry.position)).collect::<Vec<_>>(),
        [(1004, 4100), (1200, 70_000)]
    );
    let times = index::parse_time_index(&fixture("timeindex"), Offset(1000)).unwrap();
    assert_eq!(times.iter().map(|entry| (entry.timestamp.0, entry.offset.0)).collect::<Vec<_>>(), [(NOW, 1004), (NOW + 5, 1200)]);
}
