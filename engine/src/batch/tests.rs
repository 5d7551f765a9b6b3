//! Tests of batches: header, view, patching, building, and what producers may send.

use proptest::prelude::*;

use super::*;
use crate::record::Header;

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

fn rules() -> ProduceRules {
    ProduceRules {
        message_bytes_max: 1_048_588,
        now: NOW,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_ms_max: i64::MAX,
        timestamp_after_ms_max: 3_600_000,
        zstd_allowed: true,
        keys_required: false,
    }
}

fn sample() -> BatchBuilder {
    BatchBuilder::new(Offset(0))
        .record(NOW, Some(b"key"), Some(b"value"))
        .record(TimestampMs(NOW.0 - 5), None, Some(&[7; 300]))
        .record_with_headers(NOW, Some(b"gone"), None, &[Header { key: b"h", value: Some(b"v") }])
}

/// Changes a field and makes the CRC right again.
fn changed(at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = sample().build();
    bytes[at..at + value.len()].copy_from_slice(value);
    patch_crc(&mut bytes);
    bytes
}

proptest! {
    /// Seen in any pieces, a batch has the CRC that it has as a whole.
    #[test]
    fn a_crc_runs_over_pieces(cuts in prop::collection::vec(0_usize..400, 0..6), flipped in prop::option::of(CRC_START..300)) {
        let mut bytes = sample().build();
        let header = BatchHeader::parse(&bytes).unwrap();
        if let Some(at) = flipped {
            bytes[at] ^= 1;
        }
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let mut crc = RunningCrc::default();
        for piece in cuts.windows(2) {
            crc.add(&bytes[piece[0]..piece[1]]);
        }
        prop_assert_eq!(crc.check(&header).is_ok(), flipped.is_none());
    }
}

#[test]
fn a_batch_is_read_back() {
    for codec in Codec::ALL {
        let bytes = sample().codec(codec).leader_epoch(LeaderEpoch(3)).producer(ProducerId(9), 1, 40).build();
        let view = BatchView::new(&bytes).unwrap();
        view.check_crc().unwrap();
        let header = view.header();
        assert_eq!(header.size_bytes(), bytes.len());
        assert_eq!((header.base_offset, header.last_offset(), header.next_offset()), (Offset(0), Offset(2), Offset(3)));
        assert_eq!((header.leader_epoch, header.record_count), (LeaderEpoch(3), 3));
        assert_eq!((header.base_timestamp, header.max_timestamp), (NOW, NOW));
        assert_eq!((header.producer_id, header.producer_epoch), (ProducerId(9), 1));
        assert_eq!((header.base_sequence, header.last_sequence()), (40, 42));
        assert_eq!(header.attributes.codec(), Ok(codec));
        let records = view.records(10_000).unwrap();
        let records: Vec<_> = records.iter().map(Result::unwrap).collect();
        assert_eq!(records.len(), 3);
        assert_eq!((records[0].key, records[0].value), (Some(&b"key"[..]), Some(&b"value"[..])));
        assert_eq!(header.timestamp_of(&records[1]), TimestampMs(NOW.0 - 5));
        assert_eq!(header.offset_of(&records[2]), Offset(2));
        assert_eq!(records[2].headers().collect::<Vec<_>>(), [Header { key: b"h", value: Some(b"v") }]);
        assert_eq!(validate_produced(&bytes, &rules()), Ok(*header));
    }
}

#[test]
fn sequences_go_round() {
    let header = BatchHeader::parse(&sample().producer(ProducerId(1), 0, i32::MAX - 1).build()).unwrap();
    assert_eq!(header.last_sequence(), 0);
    let header = BatchHeader::parse(&sample().producer(ProducerId(1), 0, i32::MAX).build()).unwrap();
    assert_eq!(header.last_sequence(), 1);
    assert_eq!(sequence_minus(1, 2), i32::MAX);
    assert_eq!(BatchHeader::parse(&sample().build()).unwrap().last_sequence(), -1);
}

#[test]
fn offset_and_epoch_need_no_new_crc() {
    let mut bytes = sample().build();
    patch_base_offset(&mut bytes, Offset(1 << 40));
    patch_leader_epoch(&mut bytes, LeaderEpoch(77));
    let view = BatchView::new(&bytes).unwrap();
    view.check_crc().unwrap();
    assert_eq!((view.header().base_offset, view.header().leader_epoch), (Offset(1 << 40), LeaderEpoch(77)));
}

#[test]
fn log_append_time_holds_for_every_record() {
    let mut bytes = sample().build();
    set_log_append_time(&mut bytes, TimestampMs(NOW.0 + 9));
    let view = BatchView::new(&bytes).unwrap();
    view.check_crc().unwrap();
    assert_eq!(view.header().attributes.timestamp_type(), TimestampType::LogAppendTime);
    for record in view.records(10_000).unwrap().iter() {
        assert_eq!(view.header().timestamp_of(&record.unwrap()), TimestampMs(NOW.0 + 9));
    }
    assert_eq!(bytes, sample().log_append_time(TimestampMs(NOW.0 + 9)).build());
}

#[test]
fn batches_are_walked_up_to_a_partial_one() {
    let (one, two) = (sample().build(), sample().codec(Codec::Lz4).build());
    let all = [&one[..], &two[..], &one[..70]].concat();
    let mut walk = batches(&all);
    assert_eq!(walk.next().unwrap().unwrap().bytes(), one);
    assert_eq!(walk.next().unwrap().unwrap().bytes(), two);
    assert!(walk.next().is_none());
    assert_eq!(walk.rest(), &one[..70]);
    assert!(split_first(&[]).unwrap().is_none());
    let zeroes = [&one[..], &[0; 100]].concat();
    let mut walk = batches(&zeroes);
    assert!(walk.next().unwrap().is_ok());
    assert_eq!(walk.next().unwrap().unwrap_err(), BatchError::Magic(0));
    assert!(walk.next().is_none());
}

#[test]
fn a_header_must_make_sense() {
    let parse = |at, value: &[u8]| BatchHeader::parse(&changed(at, value)).unwrap_err();
    assert_eq!(parse(16, &[1]), BatchError::Magic(1));
    assert_eq!(parse(8, &48i32.to_be_bytes()), BatchError::Length(48));
    assert_eq!(parse(8, &(-1i32).to_be_bytes()), BatchError::Length(-1));
    assert!(matches!(parse(23, &(-1i32).to_be_bytes()), BatchError::Field { field: "last offset delta", .. }));
    assert!(matches!(parse(57, &(-1i32).to_be_bytes()), BatchError::Field { field: "record count", .. }));
    assert!(matches!(parse(0, &(-1i64).to_be_bytes()), BatchError::Field { field: "base offset", .. }));
    assert!(matches!(parse(0, &(i64::MAX - 2).to_be_bytes()), BatchError::Field { field: "base offset", .. }));
    assert_eq!(BatchHeader::parse(&[0; 60]), Err(BatchError::TooShort { available: 60 }));
}

#[test]
fn a_produced_batch_must_keep_the_rules() {
    use ErrorKind::{Corrupt, InvalidRecord, InvalidTimestamp, TooLarge, UnsupportedCompression};
    let kind = |bytes: &[u8], rules| validate_produced(bytes, &rules).unwrap_err().kind();
    let good = sample().build();

    assert_eq!(kind(&[], rules()), InvalidRecord);
    assert_eq!(kind(&good[..good.len() - 1], rules()), InvalidRecord);
    assert_eq!(kind(&[&good[..], &good[..]].concat(), rules()), InvalidRecord);
    assert_eq!(kind(&[&good[..], b"x"].concat(), rules()), InvalidRecord);
    assert_eq!(kind(&changed(16, &[1]), rules()), InvalidRecord);
    assert_eq!(kind(&changed(16, &[3]), rules()), Corrupt);
    assert_eq!(kind(&changed(8, &[0, 0, 0, 1]), rules()), Corrupt);
    assert_eq!(kind(&changed(7, &[1]), rules()), InvalidRecord, "base offset 1");
    assert_eq!(kind(&changed(60, &[4]), rules()), InvalidRecord, "a record more than there are offsets");
    assert_eq!(kind(&changed(60, &[0]), rules()), InvalidRecord, "no record");
    assert_eq!(kind(&changed(22, &[1 << 5]), rules()), InvalidRecord, "control");
    assert_eq!(kind(&changed(22, &[1 << 6]), rules()), InvalidRecord, "delete horizon");
    assert_eq!(kind(&changed(22, &[1 << 4]), rules()), InvalidRecord, "transactional without a producer");
    assert_eq!(kind(&changed(22, &[1 << 3]), rules()), InvalidTimestamp, "log append time");
    assert_eq!(kind(&changed(22, &[6]), rules()), UnsupportedCompression);
    assert_eq!(kind(&sample().producer(ProducerId(1), -1, 0).build(), rules()), InvalidRecord);
    assert_eq!(kind(&sample().producer(ProducerId(1), 0, -1).build(), rules()), InvalidRecord);
    assert!(validate_produced(&sample().producer(ProducerId(1), 0, 0).transactional().build(), &rules()).is_ok());

    let limit = good.len();
    assert!(validate_produced(&good, &ProduceRules { message_bytes_max: limit, ..rules() }).is_ok());
    assert_eq!(kind(&good, ProduceRules { message_bytes_max: limit - 1, ..rules() }), TooLarge);

    let zstd = sample().codec(Codec::Zstd).build();
    assert_eq!(kind(&zstd, ProduceRules { zstd_allowed: false, ..rules() }), UnsupportedCompression);
}

#[test]
fn damage_is_told_from_a_bad_producer() {
    // The same field, changed by the producer and changed on the way.
    let mut bytes = changed(60, &[4]);
    assert!(matches!(validate_produced(&bytes, &rules()), Err(BatchError::Count { .. })));
    bytes[19] ^= 1;
    assert!(matches!(validate_produced(&bytes, &rules()), Err(BatchError::Crc { .. })));
}

#[test]
fn timestamps_must_be_in_range() {
    let check = |timestamp, rules: &ProduceRules| {
        let bytes = BatchBuilder::new(Offset(0)).record(TimestampMs(timestamp), None, None).build();
        validate_records(&validate_produced(&bytes, rules).unwrap(), &bytes[HEADER_BYTES..], rules)
    };
    let ahead = rules().timestamp_after_ms_max;
    assert_eq!(check(NOW.0 + ahead, &rules()), Ok(TimestampMs(NOW.0 + ahead)));
    let late = check(NOW.0 + ahead + 1, &rules()).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::InvalidTimestamp);
    assert_eq!(check(-1, &rules()), Ok(TimestampMs::NONE), "no timestamp is no wrong one");
    let by_broker = ProduceRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    check(NOW.0 + ahead + 1, &by_broker).unwrap();

    // The largest timestamp is the batch's, so that one record is too old shows in the records only.
    let strict = ProduceRules { timestamp_before_ms_max: 4, ..rules() };
    let bytes = sample().build();
    let header = validate_produced(&bytes, &strict).unwrap();
    assert!(strict.needs_records(&header) && !rules().needs_records(&header));
    let error = validate_records(&header, &bytes[HEADER_BYTES..], &strict).unwrap_err();
    assert_eq!(error, BatchError::Timestamp { index: 1, timestamp: NOW.0 - 5, from: NOW.0 - 4, to: NOW.0 + ahead });
}

#[test]
fn the_largest_timestamp_is_that_of_the_records() {
    let right = sample().build();
    // Unset in two ways, a little wrong, and nowhere near.
    for wrong in [-1, -6_795_364_578_871, 0, NOW.0 - 5, NOW.0 + 1, i64::MAX, i64::MIN] {
        let bytes = changed(MAX_TIMESTAMP_AT, &wrong.to_be_bytes());
        let header = validate_produced(&bytes, &rules()).unwrap();
        assert_eq!(header.max_timestamp, max_timestamp_of(&bytes));
        assert_eq!(validate_records(&header, &bytes[HEADER_BYTES..], &rules()), Ok(NOW));
        let mut corrected = bytes;
        set_max_timestamp(&mut corrected, NOW);
        assert_eq!(corrected, right);
    }
    // Of a compressed batch it is believed, unless it cannot be right or would be refused.
    let needed = |base: i64, newest: i64, rules: ProduceRules| {
        let header = BatchHeader::parse(&right).unwrap();
        rules.needs_records(&BatchHeader { base_timestamp: TimestampMs(base), max_timestamp: TimestampMs(newest), ..header })
    };
    assert!(!needed(NOW.0, NOW.0, rules()) && !needed(NOW.0, NOW.0 + 9, rules()) && !needed(-1, -1, rules()));
    assert!(needed(NOW.0, -1, rules()) && needed(NOW.0, NOW.0 - 1, rules()) && needed(0, -1, rules()));
    assert!(needed(NOW.0, NOW.0 + 3_600_001, rules()) && needed(-9, -9, rules()));
    let by_broker = ProduceRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    assert!(!needed(NOW.0, -1, by_broker));
}

#[test]
fn all_records_to_blame_are_found() {
    use BatchError::{KeyMissing, OffsetDelta, RecordsTrailing, Timestamp};
    let late = NOW.0 + rules().timestamp_after_ms_max + 1;
    let record = |builder: BatchBuilder, &(timestamp, key): &(i64, bool)| {
        builder.record(TimestampMs(timestamp), key.then_some(b"k"), Some(b"v"))
    };
    let find = |of: &[(i64, bool)], keys_required, max, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = of.iter().fold(BatchBuilder::new(Offset(0)), record).build();
        change(&mut bytes);
        let rules = ProduceRules { keys_required, ..rules() };
        let header = BatchHeader::parse(&bytes).unwrap();
        let error = validate_records(&header, &bytes[HEADER_BYTES..], &rules).unwrap_err();
        find_refused(&header, &bytes[HEADER_BYTES..], &rules, error, max)
    };
    let as_it_is = |_: &mut Vec<u8>| {};
    let wrong = |index| Timestamp { index, timestamp: late, from: NOW.0.saturating_sub(i64::MAX), to: late - 1 };
    let (good, keyless, far) = ((NOW.0, true), (NOW.0, false), (late, true));

    let found = find(&[good, keyless, good, keyless], true, 9, &as_it_is);
    assert_eq!(found, RecordsRefused { error: KeyMissing(1), records: vec![KeyMissing(1), KeyMissing(3)] });
    let found = find(&[far, keyless, far], false, 9, &as_it_is);
    assert_eq!(found, RecordsRefused { error: wrong(0), records: vec![wrong(0), wrong(2)] });
    let found = find(&[keyless, keyless, good, far], true, 2, &as_it_is);
    assert_eq!(found, RecordsRefused { error: wrong(3), records: vec![KeyMissing(0), KeyMissing(1)] }, "of at most two");
    // A malformed record behind them, or before: the batch is to blame, none of them.
    let found = find(&[keyless, good], true, 9, &|bytes| bytes.push(0));
    assert_eq!(found, RecordsTrailing(1).into());
    let found = find(&[keyless, good], true, 9, &|bytes| {
        let at = bytes.len() - 6;
        assert_eq!(bytes[at], 2, "the offset delta of the second record");
        bytes[at] = 4;
    });
    assert_eq!(found, OffsetDelta { index: 1, offset_delta: 2 }.into());
}

#[test]
fn records_must_be_whole_numbered_and_keyed() {
    let check = |header: &BatchHeader, records: &[u8]| validate_records(header, records, &rules());
    let bytes = sample().build();
    let header = BatchHeader::parse(&bytes).unwrap();
    let records = &bytes[HEADER_BYTES..];
    assert_eq!(check(&header, records), Ok(NOW));
    let keyed = ProduceRules { keys_required: true, ..rules() };
    assert_eq!(validate_records(&header, records, &keyed), Err(BatchError::KeyMissing(1)));
    assert_eq!(check(&header, &[records, b"x"].concat()), Err(BatchError::RecordsTrailing(1)));
    assert!(matches!(check(&header, &records[..records.len() - 1]), Err(BatchError::Record { index: 2, .. })));
    let fewer = BatchHeader { record_count: 2, ..header };
    assert!(matches!(check(&fewer, records), Err(BatchError::RecordsTrailing(_))));
    let more = BatchHeader { record_count: 4, ..header };
    assert!(matches!(check(&more, records), Err(BatchError::Record { index: 3, .. })));
    let mut moved = vec![];
    Record::new(1, 0, None, None).encode(&mut moved);
    let one = BatchHeader { record_count: 1, ..header };
    assert_eq!(check(&one, &moved), Err(BatchError::OffsetDelta { index: 0, offset_delta: 1 }));
}

proptest! {
    #[test]
    fn any_bytes_are_a_batch_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), likely: bool) {
        // Half of them get a header that is nearly right, or the check of the magic would stop them all.
        if likely && bytes.len() >= HEADER_BYTES {
            let length = (bytes.len() - LENGTH_OVERHEAD_BYTES) as i32;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[16] = MAGIC as u8;
            bytes[23] = 0;
            bytes[57..60].fill(0);
        }
        let _ = validate_produced(&bytes, &rules());
        for view in batches(&bytes).flatten() {
            prop_assert!(view.bytes().len() <= bytes.len());
            let _ = view.check_crc();
            let _ = validate_records(view.header(), view.records_bytes(), &rules());
            if let Ok(records) = view.records(1 << 16) {
                let count = records.iter().filter(Result::is_ok).count();
                prop_assert!(count <= view.header().record_count as usize);
            }
        }
    }

    #[test]
    fn one_flipped_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = sample().build();
        // Base offset and leader epoch are the broker's and not covered.
        let at = at.index(bytes.len());
        prop_assume!(!(0..8).contains(&at) && !(12..16).contains(&at));
        bytes[at] ^= 1 << bit;
        prop_assert!(BatchView::new(&bytes).and_then(|view| view.check_crc()).is_err());
    }

    #[test]
    fn what_is_built_is_valid(
        records in prop::collection::vec((0i64..1000, prop::option::of(prop::collection::vec(any::<u8>(), 0..50)),
            prop::option::of(prop::collection::vec(any::<u8>(), 0..50))), 1..20),
        codec in 0u8..5,
        sequence in 0..=i32::MAX,
    ) {
        let mut builder = BatchBuilder::new(Offset(0))
            .codec(Codec::from_id(codec).unwrap())
            .producer(ProducerId(4), 0, sequence);
        for (back, key, value) in &records {
            builder.push(TimestampMs(NOW.0 - back), key.as_deref(), value.as_deref(), &[]);
        }
        let uncompressed = builder.size_bytes();
        let bytes = builder.build();
        let header = validate_produced(&bytes, &rules()).unwrap();
        let view = BatchView::new(&bytes).unwrap();
        view.check_crc().unwrap();
        let read = view.records(uncompressed).unwrap();
        prop_assert_eq!(validate_records(&header, read.bytes(), &rules()), Ok(header.max_timestamp));
        prop_assert_eq!(header.max_timestamp.0, NOW.0 - records.iter().map(|r| r.0).min().unwrap());
        prop_assert_eq!(i64::from(header.last_sequence()), (i64::from(sequence) + records.len() as i64 - 1) % (1 << 31));
        for (record, (back, key, value)) in read.iter().zip(&records) {
            let record = record.unwrap();
            prop_assert_eq!(header.timestamp_of(&record).0, NOW.0 - back);
            prop_assert_eq!(record.key, key.as_deref());
            prop_assert_eq!(record.value, value.as_deref());
        }
    }
}
