//! Structure-aware: sound segments made from the input, damaged as the input says, recovered or repaired. A mutation may put CRCs
//! right, so that what it changes gets past them.

use std::fs;
use std::path::Path;

use ringlog_engine::batch::{BatchBuilder, batches};
use ringlog_engine::compression::Codec;
use ringlog_engine::log::checkpoint::encode_partition_metadata;
use ringlog_engine::segment::index::{push_offset_entry, push_time_entry};
use ringlog_engine::types::{LeaderEpoch, Offset, ProducerId, TimestampMs, TopicId};

use crate::input::Input;
use crate::segments::{Files, check_recovery};

const SEGMENTS_MAX: usize = 3;
const BATCHES_MAX: usize = 12;
const MUTATIONS_MAX: usize = 12;
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;

pub(crate) fn recovery_mutated(input: &[u8]) {
    let mut input = Input::new(input);
    let flags = input.byte();
    let point = input.byte();
    let (files, end) = damaged_folder(&mut input);
    let recovery_point = if flags & 2 == 2 { Offset(i64::from(point).min(end)) } else { Offset(0) };
    check_recovery(files, recovery_point, Offset(0), flags & 1 == 1);
}

/// `ringlog log repair` over the same folders: nothing sound is lost, the second run finds nothing to do.
pub(crate) fn repair(input: &[u8]) {
    let mut input = Input::new(input);
    let flags = input.byte();
    let (files, end) = damaged_folder(&mut input);
    // In memory where that is possible: a repair syncs much.
    let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory");
    let folder = root.path().join("t-0");
    fs::create_dir(&folder).unwrap();
    for (name, bytes) in &files {
        fs::write(folder.join(name), bytes).unwrap();
    }
    fs::write(folder.join("partition.metadata"), encode_partition_metadata(TopicId([1; 16]))).unwrap();
    if flags & 1 == 1 {
        fs::write(root.path().join(".kafka_cleanshutdown"), "").unwrap();
    }
    if flags & 2 == 2 {
        fs::write(root.path().join("recovery-point-offset-checkpoint"), format!("0\n1\nt 0 {end}\n")).unwrap();
    }
    let before = bytes_of(&folder, ".log");
    run(root.path(), true);
    let after: usize = bytes_of(&folder, ".log") + bytes_of(&folder, ".cut");
    // Zeros and doubled copies go.
    assert!(after <= before + bytes_of(&folder, ".cut"));
    let (well, said) = run(root.path(), true);
    assert!(well && said.ends_with("nothing to repair\n"), "the second run: {said}");
}

fn run(path: &Path, execute: bool) -> (bool, String) {
    let mut out = Vec::new();
    let well = ringlog_server::offline::repair_to(path, execute, &mut out).expect("a directory that can be read and written");
    (well, String::from_utf8(out).unwrap())
}

fn bytes_of(folder: &Path, suffix: &str) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(suffix))
        .map(|entry| entry.metadata().unwrap().len() as usize)
        .sum()
}

/// A folder with segments, their indexes and a snapshot, and the offset at which it ended; damaged.
fn damaged_folder(input: &mut Input<'_>) -> (Files, i64) {
    let mut files = Files::new();
    let mut offset = 0;
    let mut sequence = 0;
    for _ in 0..=input.below(SEGMENTS_MAX) {
        let base = offset;
        let (mut log, mut index, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for at in 0..input.below(BATCHES_MAX) {
            let position = log.len() as u64;
            let batch = batch(input, &mut offset, &mut sequence);
            if at > 0 && input.byte() & 1 == 1 {
                push_offset_entry(&mut index, Offset(base), Offset(offset - 1), position);
                push_time_entry(&mut times, Offset(base), TimestampMs(1000 + offset), Offset(offset - 1));
            }
            log.extend(batch);
        }
        for (suffix, bytes) in [("log", log), ("index", index), ("timeindex", times)] {
            files.push((format!("{base:020}.{suffix}"), bytes));
        }
        if offset == base {
            // Two segments cannot have one name.
            break;
        }
    }
    files.push(("leader-epoch-checkpoint".to_owned(), b"0\n1\n0 0\n".to_vec()));
    let mut mutations = 0;
    while !input.is_empty() && mutations < MUTATIONS_MAX {
        let at = input.below(files.len());
        mutate(input, &mut files[at].1);
        mutations += 1;
    }
    (files, offset)
}

fn batch(input: &mut Input<'_>, offset: &mut i64, sequence: &mut i32) -> Vec<u8> {
    let what = input.byte();
    let mut builder = BatchBuilder::new(Offset(*offset)).leader_epoch(LeaderEpoch(0)).codec(Codec::ALL[usize::from(what) % 5]);
    let count = i64::from(what >> 3 & 3) + 1;
    if what & 0x80 != 0 {
        builder = builder.producer(ProducerId(i64::from(what & 0x60)), 0, *sequence);
        *sequence += count as i32;
    }
    let value = vec![what; usize::from(input.byte())];
    for at in 0..count {
        builder.push(TimestampMs(1000 + *offset + at), None, Some(&value), &[]);
    }
    *offset += count;
    builder.build()
}

/// One mutation of a file.
fn mutate(input: &mut Input<'_>, bytes: &mut Vec<u8>) {
    let (what, at) = (input.byte(), usize::from(input.u16()) % (bytes.len() + 1));
    match what % 8 {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (what >> 5);
            }
        }
        1 => bytes.truncate(at),
        2 => {
            let end = bytes.len().min(at + usize::from(input.byte()));
            bytes.drain(at..end);
        }
        3 => {
            let part = input.part().to_vec();
            bytes.splice(at..at, part);
        }
        4 => bytes.extend(std::iter::repeat_n(0, usize::from(input.u16() % 5000))),
        5 => {
            // A batch twice.
            let starts = starts(bytes);
            if let (Some(from), Some(to)) =
                (starts.get(input.below(starts.len().max(1))), starts.get(input.below(starts.len().max(1))))
            {
                let copied = bytes[from.clone()].to_vec();
                bytes.splice(to.start..to.start, copied);
            }
        }
        _ => {
            // A field of a batch, with the CRC put right.
            let starts = starts(bytes);
            if let Some(range) = starts.get(input.below(starts.len().max(1))) {
                let batch = &mut bytes[range.clone()];
                let field = usize::from(input.byte()) % batch.len();
                let value = input.bytes(usize::from(what >> 5) + 1);
                let end = batch.len().min(field + value.len());
                batch[field..end].copy_from_slice(&value[..end - field]);
                let crc = crc32c::crc32c(&batch[CRC_FROM..]);
                batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
            }
        }
    }
}

/// Where the sound batches at the front of a file stand.
fn starts(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut at = 0;
    let mut found = Vec::new();
    for batch in batches(bytes) {
        let Ok(batch) = batch else { break };
        found.push(at..at + batch.bytes().len());
        at += batch.bytes().len();
    }
    found
}
