//! The rules of compaction, held against random logs: what has to stay, what has to go, and that nothing else changes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::filter::Filter;
use super::offset_map::OffsetMap;
use crate::batch::builder::assemble;
use crate::batch::{Attributes, BatchBuilder, BatchHeader, BatchView};
use crate::compression::Codec;
use crate::record::Header;
use crate::types::{LeaderEpoch, Offset, ProducerId, TimestampMs};

const NOW: TimestampMs = TimestampMs(1_000_000);
const RETENTION_MS: i64 = 5_000;

/// A record as the tests see it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plain {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: i64,
    headers: usize,
}

#[derive(Clone, Debug)]
struct Spec {
    codec: Codec,
    producer: Option<i64>,
    append_time: bool,
    transactional: bool,
    /// Of each record: key, whether there is one, whether it has a value, and whether compaction has taken it before.
    records: Vec<(u8, bool, bool, bool)>,
    /// Nothing, a horizon that has passed, or one that has not.
    horizon: u8,
    gap: i64,
}

fn spec() -> impl Strategy<Value = Spec> {
    let record = (0u8..12, prop::bool::weighted(0.9), prop::bool::weighted(0.7), prop::bool::weighted(0.1));
    (
        prop::sample::select(&Codec::ALL[..]),
        prop::option::of(0i64..3),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
        prop::collection::vec(record, 1..7),
        0u8..3,
        0i64..4,
    )
        .prop_map(|(codec, producer, append_time, transactional, records, horizon, gap)| {
            let transactional = transactional && producer.is_some();
            Spec { codec, producer, append_time, transactional, records, horizon, gap }
        })
}

/// The batches of a log, as a broker and earlier compactions may have left them.
fn log_of(specs: &[Spec]) -> Vec<Vec<u8>> {
    let (mut offset, mut sequences) = (100, [0; 3]);
    let mut log = Vec::new();
    for (number, spec) in specs.iter().enumerate() {
        let mut builder = BatchBuilder::new(Offset(offset)).leader_epoch(LeaderEpoch(number as i32 / 5)).codec(spec.codec);
        if let Some(producer) = spec.producer {
            let sequence = &mut sequences[producer as usize];
            builder = builder.producer(ProducerId(producer), 7, *sequence);
            *sequence += spec.records.len() as i32;
        }
        if spec.append_time {
            builder = builder.log_append_time(TimestampMs(500_000 + number as i64));
        }
        if spec.transactional {
            builder = builder.transactional();
        }
        for (at, &(key, has_key, has_value, _)) in spec.records.iter().enumerate() {
            let value = vec![number as u8; 20 + at];
            let headers = [Header { key: b"h", value: None }];
            let timestamp = TimestampMs(400_000 + (number * 10) as i64 - at as i64);
            builder.push(timestamp, has_key.then_some(&[key][..]), has_value.then_some(&value), &headers[..at % 2]);
        }
        offset += spec.records.len() as i64 + spec.gap;
        log.push(thinned(&builder.build(), spec));
    }
    log
}

/// Takes the records that an earlier compaction has taken, and writes the horizon that it has written.
fn thinned(bytes: &[u8], spec: &Spec) -> Vec<u8> {
    let batch = BatchView::new(bytes).unwrap();
    let records = batch.records(1 << 20).unwrap();
    let gone = |at: usize| spec.records[at].3;
    let mut header = *batch.header();
    let horizon = [None, Some(NOW.0 - 1), Some(NOW.0 + 1)][usize::from(spec.horizon)];
    header.record_count = 0;
    if let Some(horizon) = horizon {
        header.base_timestamp = TimestampMs(horizon);
    }
    let mut left = Vec::new();
    for (_, record) in records.iter().enumerate().filter(|(at, _)| !gone(*at)) {
        let mut record = record.unwrap();
        record.timestamp_delta += batch.header().base_timestamp.0 - header.base_timestamp.0;
        record.encode(&mut left);
        header.record_count += 1;
    }
    let mut flags = header.attributes.0 & !Attributes::CODEC_MASK;
    if horizon.is_some() && header.record_count > 0 {
        flags |= Attributes::DELETE_HORIZON;
    }
    if header.record_count > 0 {
        left = crate::compression::compress(spec.codec, &left).unwrap();
        flags |= u16::from(spec.codec.id());
    }
    header.attributes = Attributes(flags);
    let mut out = Vec::new();
    assemble(&header, &left, &mut out);
    out
}

fn records_of(log: &[Vec<u8>]) -> BTreeMap<i64, (Plain, BatchHeader)> {
    let mut all = BTreeMap::new();
    let mut before = -1;
    for bytes in log {
        let batch = BatchView::new(bytes).unwrap();
        batch.check_crc().unwrap();
        let header = *batch.header();
        let records = batch.records(1 << 20).unwrap();
        assert_eq!(records.iter().count() as i32, header.record_count);
        for record in &records {
            let record = record.unwrap();
            let offset = header.offset_of(&record).0;
            assert!(offset > before && offset <= header.last_offset().0, "OrderHolds");
            before = offset;
            let plain = Plain {
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                timestamp: header.timestamp_of(&record).0,
                headers: record.headers().len(),
            };
            all.insert(offset, (plain, header));
        }
    }
    all
}

/// Notes the log from `from` on, and filters all of it.
fn compact(log: &[Vec<u8>], from: i64, slots: usize, now: TimestampMs) -> (Filter, Vec<Vec<u8>>, bool) {
    let mut last_offsets = BTreeMap::new();
    for bytes in log {
        let header = BatchHeader::parse(bytes).unwrap();
        last_offsets.insert(header.producer_id, header.last_offset());
    }
    last_offsets.remove(&ProducerId::NONE);
    let map = OffsetMap::new((slots + 1) * 24, 1.0, u64::MAX, [5, 6]);
    let mut filter = Filter { map, covered: Offset(from), now, delete_retention_ms: RETENTION_MS, last_offsets };
    for bytes in log {
        if filter.note(&BatchView::new(bytes).unwrap(), Offset(from)).unwrap().is_err() {
            break;
        }
    }
    let (mut out, mut is_same) = (Vec::new(), true);
    for (at, bytes) in log.iter().enumerate() {
        let mut made = Vec::new();
        let kept = filter.filter(&BatchView::new(bytes).unwrap(), at + 1 == log.len(), &mut made).unwrap();
        assert_eq!(kept.batch, (!made.is_empty()).then(|| BatchHeader::parse(&made).unwrap()));
        assert_eq!(kept.is_same, made == *bytes);
        is_same &= kept.is_same;
        out.extend((!made.is_empty()).then_some(made));
    }
    (filter, out, is_same)
}

proptest! {
    #[test]
    fn the_last_value_of_each_key_stays_and_nothing_else_changes(
        specs in prop::collection::vec(spec(), 1..25), from in 0i64..150, slots in 1usize..14,
    ) {
        let log = log_of(&specs);
        let before = records_of(&log);
        let (filter, out, _) = compact(&log, from, slots, NOW);
        let after = records_of(&out);
        let covered = filter.covered.0;
        // Where nothing was noted nothing goes but what has to go anyway.
        let mut last: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        for (offset, (record, header)) in before.range(from..covered) {
            if let Some(key) = record.key.clone().filter(|_| !header.attributes.is_transactional()) {
                last.insert(key, *offset);
            }
        }
        for (offset, (record, header)) in &before {
            let newer = record.key.as_ref().and_then(|key| last.get(key)).is_some_and(|last| last > offset);
            let horizon = header.attributes.has_delete_horizon().then_some(header.base_timestamp);
            let expired = record.value.is_none() && horizon.is_some_and(|horizon| horizon <= NOW);
            let goes = *offset < covered
                && (record.key.is_none() || newer || (expired && !header.attributes.is_transactional()));
            prop_assert_eq!(after.contains_key(offset), !goes, "offset {} {:?}", offset, record);
        }
        for (offset, (record, _)) in &after {
            prop_assert_eq!(Some(record), before.get(offset).map(|(record, _)| record), "NothingInvented");
        }
    }

    #[test]
    fn batches_keep_what_their_headers_say(specs in prop::collection::vec(spec(), 1..25), slots in 1usize..14) {
        let log = log_of(&specs);
        let (filter, out, _) = compact(&log, 0, slots, NOW);
        let headers: BTreeMap<i64, BatchHeader> =
            log.iter().map(|bytes| BatchHeader::parse(bytes).unwrap()).map(|header| (header.base_offset.0, header)).collect();
        let mut kept = BTreeSet::new();
        for bytes in &out {
            let after = BatchHeader::parse(bytes).unwrap();
            let before = headers[&after.base_offset.0];
            kept.insert(after.last_offset().0);
            let fields = |h: &BatchHeader| {
                (h.leader_epoch, h.last_offset_delta, h.producer_id, h.producer_epoch, h.base_sequence, h.attributes.timestamp_type())
            };
            prop_assert_eq!(fields(&after), fields(&before));
            prop_assert_eq!(after.attributes.is_transactional(), before.attributes.is_transactional());
            prop_assert!(after.max_timestamp <= before.max_timestamp);
            if after.record_count > 0 {
                prop_assert_eq!(after.attributes.codec(), before.attributes.codec());
                let tombstones = records_of(std::slice::from_ref(bytes)).into_iter()
                    .filter(|(offset, (record, _))| record.value.is_none() && *offset < filter.covered.0).count();
                let horizon = after.attributes.has_delete_horizon().then_some(after.base_timestamp.0);
                let was = before.attributes.has_delete_horizon().then_some(before.base_timestamp.0);
                let due = was.or((tombstones > 0 && !before.attributes.is_transactional()).then_some(NOW.0 + RETENTION_MS));
                prop_assert_eq!(horizon, due, "a tombstone is given its time once");
            } else {
                prop_assert_eq!(after.size_bytes(), 61);
            }
        }
        for (producer, last) in &filter.last_offsets {
            prop_assert!(kept.contains(&last.0), "the last sequence of {}", producer);
        }
        prop_assert!(kept.contains(&headers.last_key_value().unwrap().1.last_offset().0), "where the log ends");
    }

    #[test]
    fn a_second_time_only_tombstones_go(specs in prop::collection::vec(spec(), 1..25)) {
        let log = log_of(&specs);
        let (_, once, _) = compact(&log, 0, 100, NOW);
        let (_, twice, is_same) = compact(&once, 0, 100, NOW);
        prop_assert!(is_same && twice == once);
        let (_, later, _) = compact(&once, 0, 100, TimestampMs(NOW.0 + RETENTION_MS));
        let values = |log: &[Vec<u8>]| {
            let values = records_of(log).into_iter().filter(|(_, (record, _))| record.value.is_some());
            values.map(|(offset, (record, _))| (offset, record)).collect::<Vec<_>>()
        };
        prop_assert_eq!(values(&later), values(&once));
        for (_, (record, header)) in records_of(&later) {
            prop_assert!(record.value.is_some() || header.attributes.is_transactional(), "a tombstone outlives its time");
        }
    }
}

#[test]
fn control_records_stay_and_transactions_supersede_nothing() {
    let value = |offset: i64, key: &[u8]| BatchBuilder::new(Offset(offset)).record(TimestampMs(1), Some(key), Some(b"v"));
    let log = [
        value(0, b"a").build(),
        value(1, b"a").producer(ProducerId(1), 0, 0).transactional().build(),
        BatchBuilder::new(Offset(2))
            .producer(ProducerId(1), 0, -1)
            .transactional()
            .control()
            .record(TimestampMs(1), Some(&[0, 0, 0, 0]), Some(&[0; 6]))
            .build(),
        value(3, b"b").build(),
    ];
    let (_, out, is_same) = compact(&log, 0, 10, NOW);
    assert!(is_same && out == log, "the transaction was aborted, for all that is known");
    let log = [log.as_slice(), &[value(4, b"a").build()]].concat();
    let (_, out, _) = compact(&log, 0, 10, NOW);
    let offsets: Vec<_> = records_of(&out).into_keys().collect();
    assert_eq!(offsets, [2, 3, 4], "what comes after it supersedes it");
}
