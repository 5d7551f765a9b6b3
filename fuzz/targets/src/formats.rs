//! The small files: indexes, checkpoints, producer snapshots, the configuration. What is accepted must come out again the same.

use ringlog_engine::journal::checkpoint::Checkpoint;
use ringlog_engine::log::checkpoint::{MetaProperties, OffsetCheckpoint, encode_partition_metadata, parse_partition_metadata};
use ringlog_engine::log::epochs::LeaderEpochs;
use ringlog_engine::log::producer_snapshot as snapshot;
use ringlog_engine::log::producers::ProducerStates;
use ringlog_engine::segment::index::{parse_offset_index, parse_time_index, push_offset_entry, push_time_entry};
use ringlog_engine::segment::names::{PartitionFolder, SegmentFile, check_topic_name};
use ringlog_engine::types::{LeaderEpoch, Offset, TimestampMs};
use ringlog_server::config::BrokerConfig;

use crate::input::Input;

pub(crate) fn indexes(input: &[u8]) {
    let mut input = Input::new(input);
    let base = Offset(i64::from(input.u32()));
    let log_bytes = u64::from(input.u32());
    let bytes = input.rest();
    if let Ok(entries) = parse_offset_index(bytes, base, log_bytes) {
        let mut again = Vec::new();
        for entry in &entries {
            assert!(entry.last_offset >= base && entry.position < log_bytes);
            push_offset_entry(&mut again, base, entry.last_offset, entry.position);
        }
        assert!(entries.is_sorted_by(|a, b| a.last_offset < b.last_offset && a.position < b.position));
        assert_eq!(again, bytes);
    }
    if let Ok(entries) = parse_time_index(bytes, base) {
        let mut again = Vec::new();
        for entry in &entries {
            push_time_entry(&mut again, base, entry.timestamp, entry.offset);
        }
        assert!(entries.is_sorted_by(|a, b| a.timestamp < b.timestamp && a.offset <= b.offset));
        assert_eq!(again, bytes);
    }
}

pub(crate) fn checkpoints(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    if let Ok(checkpoint) = OffsetCheckpoint::parse(text) {
        assert_eq!(OffsetCheckpoint::parse(&checkpoint.encode()), Ok(checkpoint));
    }
    if let Ok(epochs) = LeaderEpochs::decode(text) {
        assert_eq!(LeaderEpochs::decode(&epochs.encode()), Ok(epochs.clone()));
        for epoch in [-1, 0, 1, i32::MAX] {
            let _ = epochs.end_offset_for(LeaderEpoch(epoch), Offset(i64::MAX));
        }
    }
    if let Ok(topic) = parse_partition_metadata(text) {
        assert_eq!(parse_partition_metadata(&encode_partition_metadata(topic)), Ok(topic));
    }
    let _ = MetaProperties::parse(text);
    // With the CRC that the text has, too.
    let with_crc = format!("{text}crc {:08x}\n", crc32c::crc32c(text.as_bytes()));
    for text in [text, &with_crc] {
        if let Ok(checkpoint) = Checkpoint::decode(text) {
            assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
        }
    }
    if let Some(file) = SegmentFile::parse(text) {
        assert_eq!(file.name(), text);
    }
    if let Some(folder) = PartitionFolder::parse(text)
        && text.len() <= 255
    {
        assert_eq!(PartitionFolder::parse(&folder.name()), Some(folder));
    }
    let _ = check_topic_name(text);
}

pub(crate) fn producer_snapshot(input: &[u8]) {
    let mut fixed = input.to_vec();
    if fixed.len() >= 6 {
        let crc = crc32c::crc32c(&fixed[6..]);
        fixed[2..6].copy_from_slice(&crc.to_be_bytes());
    }
    for bytes in [input, &fixed] {
        if let Ok(entries) = snapshot::parse(bytes) {
            assert_eq!(snapshot::encode(&entries), bytes);
        }
        if let Ok(mut states) = ProducerStates::from_snapshot(bytes, 86_400_000, TimestampMs(1_767_225_600_000)) {
            let again = states.encode_snapshot();
            let reread =
                ProducerStates::from_snapshot(&again, 86_400_000, TimestampMs(1_767_225_600_000)).expect("our own snapshot");
            assert_eq!(reread.encode_snapshot(), again);
            let _ = (states.first_undecided_offset(), states.views().count());
            states.expire(TimestampMs(i64::MAX));
        }
    }
}

pub(crate) fn server_properties(input: &[u8]) {
    let _ = BrokerConfig::load(Some(&String::from_utf8_lossy(input)), &[]);
}
