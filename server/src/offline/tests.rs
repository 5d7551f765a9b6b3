//! Partitions and journals made byte by byte, looked into, and damaged.

use std::fs;
use std::path::{Path, PathBuf};

use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::compression::Codec;
use ringlog_engine::journal::checkpoint::Checkpoint;
use ringlog_engine::journal::format::{ENTRY_BYTES, Entry, HEADER_BYTES, JournalId, RoundHeader};
use ringlog_engine::log::checkpoint::encode_partition_metadata;
use ringlog_engine::record::Header;
use ringlog_engine::segment::index::{push_offset_entry, push_time_entry};
use ringlog_engine::types::{LeaderEpoch, Offset, PartitionId, ProducerId, TimestampMs, TopicId};

use super::*;

pub(super) const TOPIC: TopicId = TopicId([9; 16]);
pub(super) const LOG: &str = "00000000000000000000.log";

fn batch(base: i64, count: i64, codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Offset(base)).leader_epoch(LeaderEpoch(3)).codec(codec);
    for at in 0..count {
        let value = format!("value {}", base + at);
        let header = [Header { key: b"h", value: Some(b"\xff") }];
        builder.push(
            TimestampMs(1000 + base + at),
            (at > 0).then_some(b"key"),
            Some(value.as_bytes()),
            if at == 1 { &header } else { &[] },
        );
    }
    builder.build()
}

/// Ten batches of three records, every codec among them.
pub(super) fn batches() -> Vec<Vec<u8>> {
    (0..10).map(|at| batch(at * 3, 3, Codec::ALL[at as usize % 5])).collect()
}

pub(super) struct Data(tempfile::TempDir);

impl Data {
    /// A data directory with one partition after a clean stop.
    pub(super) fn new(log: &[u8]) -> Self {
        let data = Self(tempfile::tempdir().unwrap());
        fs::create_dir(data.partition()).unwrap();
        data.write(LOG, log);
        data.write("partition.metadata", encode_partition_metadata(TOPIC).as_bytes());
        data.write("leader-epoch-checkpoint", b"0\n1\n3 0\n");
        fs::write(data.path().join(".kafka_cleanshutdown"), "").unwrap();
        data
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn partition(&self) -> PathBuf {
        self.path().join("t-0")
    }

    pub(super) fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.partition().join(name), content).unwrap();
    }

    pub(super) fn crashed(self) -> Self {
        fs::remove_file(self.path().join(".kafka_cleanshutdown")).unwrap();
        self
    }

    /// Right indexes for a log of these batches: an entry for every batch but the first.
    pub(super) fn with_indexes(self, batches: &[Vec<u8>]) -> Self {
        let (mut offsets, mut times) = (Vec::new(), Vec::new());
        let mut position = batches[0].len() as u64;
        for (at, batch) in batches.iter().enumerate().skip(1) {
            let last = at as i64 * 3 + 2;
            push_offset_entry(&mut offsets, Offset(0), Offset(last), position);
            push_time_entry(&mut times, Offset(0), TimestampMs(1000 + last), Offset(last));
            position += batch.len() as u64;
        }
        self.write("00000000000000000000.index", &offsets);
        self.write("00000000000000000000.timeindex", &times);
        self
    }

    /// A journal with these pieces of the segment, a round each.
    pub(super) fn with_journal(self, pieces: &[(u64, i64, i64, &[u8])]) -> Self {
        let directory = self.path().join("ringlog-journal.0");
        fs::create_dir(&directory).unwrap();
        let journal = JournalId([5; 16]);
        let mut file = Vec::new();
        for (at, &(position, first, next, payload)) in pieces.iter().enumerate() {
            let start = file.len();
            file.resize(start + HEADER_BYTES + ENTRY_BYTES, 0);
            let entry = Entry {
                partition: PartitionId { topic: TOPIC, index: 0 },
                segment_base: Offset(0),
                position,
                base_offset: Offset(first),
                next_offset: Offset(next),
                len: payload.len() as u32,
            };
            entry.encode(&mut file[start + HEADER_BYTES..]);
            file.extend_from_slice(payload);
            let body = &file[start + HEADER_BYTES..];
            let header = RoundHeader {
                journal,
                sequence: at as u64 + 1,
                previous: at as u64,
                entry_count: 1,
                body_bytes: body.len() as u32,
                body_crc: crc32c(body),
            };
            header.encode(&mut file[start..]);
            file.resize(file.len().next_multiple_of(4096), 0);
        }
        fs::write(directory.join(format!("{:020}.journal", 0)), file).unwrap();
        let checkpoint = Checkpoint { journal, ..Checkpoint::default() };
        fs::write(directory.join("checkpoint"), checkpoint.encode()).unwrap();
        self
    }

    fn dump(&self, options: DumpOptions) -> (bool, String) {
        let mut out = Vec::new();
        let sound = dump::dump(self.path(), options, &mut out).unwrap();
        (sound, String::from_utf8(out).unwrap())
    }

    pub(super) fn json(&self, records: bool) -> (bool, Vec<serde_json::Value>) {
        let (sound, text) = self.dump(DumpOptions { records, json: true });
        (sound, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    pub(super) fn verify(&self) -> (bool, String) {
        let mut out = Vec::new();
        let sound = verify_to(self.path(), &mut out).unwrap();
        (sound, String::from_utf8(out).unwrap())
    }
}

/// The CRC-32C of a batch is the engine's; that of a round is this, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

#[test]
fn batches_and_records_are_printed() {
    let data = Data::new(&batches().concat());
    let (sound, text) = data.dump(DumpOptions::default());
    assert!(sound, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 11);
    assert!(lines[0].starts_with("t-0/00000000000000000000.log: "), "{text}");
    assert!(lines[1].starts_with("offsets 0..2 position 0 size "), "{text}");
    for (line, codec) in lines[1..].iter().zip(["none", "gzip", "snappy", "lz4", "zstd"].iter().cycle()) {
        assert!(line.contains(&format!(" epoch 3 records 3 codec {codec} CreateTime 1")) && line.ends_with(" ok"), "{line}");
    }

    let (_, text) = data.dump(DumpOptions { records: true, json: false });
    assert!(text.contains("\n  offset 0 timestamp 1000 key null value \"value 0\"\n"), "{text}");
    assert!(text.contains("\n  offset 28 timestamp 1028 key \"key\" value \"value 28\" header \"h\"=base64:/w==\n"), "{text}");

    let (sound, lines) = data.json(true);
    assert!(sound);
    assert_eq!(lines.len(), 10);
    let last = &lines[9];
    assert_eq!((&last["partition"], &last["segment"]), (&"t-0".into(), &LOG.into()));
    assert_eq!((last["base_offset"].as_i64(), last["last_offset"].as_i64()), (Some(27), Some(29)));
    assert_eq!((&last["codec"], &last["ok"], &last["source"]), (&"zstd".into(), &true.into(), &"segment".into()));
    assert_eq!(last["records"][0]["key"], serde_json::Value::Null);
    assert_eq!(last["records"][1]["headers"][0][1]["base64"], "/w==");
    assert_eq!(last["records"][2]["value"], "value 29");
    assert!(data.json(false).1[0].get("records").is_none());
}

#[test]
fn producers_and_control_records_are_told() {
    let first = BatchBuilder::new(Offset(0)).producer(ProducerId(77), 2, 5).transactional();
    let first = first.record(TimestampMs(1), None, None).record(TimestampMs(1), None, None).build();
    let control = BatchBuilder::new(Offset(2)).producer(ProducerId(77), 2, -1).transactional().control();
    let control = control.record(TimestampMs(2), Some(&[0, 0, 0, 1]), Some(&[0; 6])).build();
    let data = Data::new(&[first, control].concat());
    let (sound, text) = data.dump(DumpOptions { records: true, json: false });
    assert!(sound);
    assert!(text.contains("producer 77 epoch 2 sequences 5..6 transactional\n"), "{text}");
    assert!(text.contains(" transactional control\n") && text.contains(" control commit\n"), "{text}");
}

#[test]
fn one_partition_is_looked_into_as_the_whole_directory_is() {
    let data = Data::new(&batches().concat());
    let mut out = Vec::new();
    assert!(dump::dump(&data.partition(), DumpOptions::default(), &mut out).unwrap());
    assert_eq!(String::from_utf8(out).unwrap(), data.dump(DumpOptions::default()).1);

    let empty = tempfile::tempdir().unwrap();
    let error = dump::dump(empty.path(), DumpOptions::default(), &mut Vec::new()).unwrap_err();
    assert!(matches!(error, OfflineError::NoPartitions { .. }));
    let error = verify_to(&empty.path().join("missing"), &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("missing") && !error.contains('\n'), "{error}");
}

#[test]
fn damage_is_named_and_what_is_behind_it_shown() {
    let batches = batches();
    let positions: Vec<usize> = (0..10).map(|at| batches[..at].concat().len()).collect();

    // A byte of a batch: its CRC.
    let mut log = batches.concat();
    log[positions[4] + 70] ^= 1;
    let data = Data::new(&log).with_indexes(&batches);
    let (sound, lines) = data.json(false);
    assert!(!sound && lines.len() == 10);
    assert_eq!(lines.iter().filter(|line| line["ok"] == true).count(), 9);
    assert_eq!(lines[4]["ok"], false);
    let (sound, text) = data.verify();
    assert!(!sound && text.contains("t-0: BAD"), "{text}");
    assert!(text.contains(&format!("first bad: {LOG} position {}: record batch has CRC", positions[4])), "{text}");

    // A header.
    let mut log = batches.concat();
    log[positions[6] + 16] = 9;
    let data = Data::new(&log);
    let (sound, lines) = data.json(false);
    assert!(!sound && lines.len() == 10);
    assert_eq!(lines[6]["damage_bytes"].as_u64(), Some(batches[6].len() as u64));
    assert_eq!(lines[7]["base_offset"].as_i64(), Some(21));
    let (sound, text) = data.verify();
    assert!(!sound && text.contains(&format!("first bad: {LOG} position {}: ", positions[6])), "{text}");

    // Cut in the middle of the last.
    let log = batches.concat();
    let data = Data::new(&log[..log.len() - 5]);
    let (sound, lines) = data.json(false);
    assert!(!sound && lines[9]["damage"].as_str().unwrap().contains("are left"), "{:?}", lines[9]);

    // A batch twice: its offsets do not follow.
    let log = [&batches[..3], &batches[2..]].concat().concat();
    let (sound, text) = Data::new(&log).verify();
    assert!(!sound && text.contains("base offset 6 where at least 9 is due"), "{text}");
}

#[test]
fn any_flipped_bit_is_found() {
    // Base offset and leader epoch are outside the CRC: that they are wrong shows only where they do not fit.
    let batches = batches();
    let log = batches.concat();
    for byte in (0..log.len()).step_by(7) {
        let start = (0..10).map(|at| batches[..at].concat().len()).rfind(|&start| start <= byte).unwrap();
        if byte - start < 8 || (12..16).contains(&(byte - start)) {
            continue;
        }
        let mut damaged = log.clone();
        damaged[byte] ^= 0x10;
        let (sound, text) = Data::new(&damaged).verify();
        assert!(!sound && text.contains(&format!("position {start}")), "byte {byte}: {text}");
    }
}

#[test]
fn sound_partitions_pass_and_their_indexes_are_held_against_the_batches() {
    let batches = batches();
    let data = Data::new(&batches.concat()).with_indexes(&batches);
    let (sound, text) = data.verify();
    assert!(sound, "{text}");
    assert!(text.starts_with("t-0: ok, offsets 0..29, 1 segments, 10 batches, 30 records\n"), "{text}");
    assert!(text.ends_with("all is well\n") && !text.contains("note"), "{text}");

    // Kafka's room at the end.
    let index = data.partition().join("00000000000000000000.index");
    let mut bytes = fs::read(&index).unwrap();
    bytes.resize(10 << 10, 0);
    fs::write(&index, &bytes).unwrap();
    assert!(data.verify().0);

    let mut wrong = Vec::new();
    push_offset_entry(&mut wrong, Offset(0), Offset(5), batches[0].len() as u64 + 1);
    data.write("00000000000000000000.index", &wrong);
    let (sound, text) = data.verify();
    assert!(!sound && text.contains("first bad: 00000000000000000000.index: entry 0 points to position"), "{text}");

    let data = Data::new(&batches.concat()).with_indexes(&batches);
    let mut wrong = Vec::new();
    push_time_entry(&mut wrong, Offset(0), TimestampMs(1004), Offset(5));
    data.write("00000000000000000000.timeindex", &wrong);
    let (sound, text) = data.verify();
    assert!(!sound && text.contains("nothing up to offset 5 is newer than 1004, and 1005 is"), "{text}");

    // Without indexes a start makes them.
    let (sound, text) = Data::new(&batches.concat()).verify();
    assert!(sound && text.contains("note: 00000000000000000000.index: missing"), "{text}");
}

#[test]
fn the_other_files_are_checked() {
    for (name, content) in [
        ("leader-epoch-checkpoint", &b"0\n2\n3 0\n"[..]),
        ("partition.metadata", b"version: 0\ntopic_id: nonsense\n"),
        ("00000000000000000003.snapshot", b"\0\x01\0\0\0\0\0\0\0\x01"),
        ("00000000000000000000.txnindex", &[0; 35]),
    ] {
        let data = Data::new(&batches().concat());
        assert!(data.verify().0);
        data.write(name, content);
        let (sound, text) = data.verify();
        assert!(!sound && text.contains(&format!("first bad: {name}: ")), "{text}");
    }
}

#[test]
fn segments_follow_one_another() {
    let batches = batches();
    let data = Data::new(&batches[..5].concat());
    data.write("00000000000000000015.log", &batches[5..].concat());
    let (sound, text) = data.verify();
    assert!(sound && text.contains("offsets 0..29, 2 segments, 10 batches"), "{text}");

    let data = Data::new(&batches[..6].concat());
    data.write("00000000000000000015.log", &batches[5..].concat());
    let (sound, text) = data.verify();
    assert!(!sound && text.contains("last offset 17 where the next segment begins at 15"), "{text}");
}

#[test]
fn what_the_journal_still_holds_is_shown_in_its_place() {
    let batches = batches();
    let log = batches.concat();
    let split = batches[..4].concat().len();
    // The file has four batches and a half, the journal everything from the third on.
    let third = batches[..3].concat().len();
    let pieces = [
        (third as u64, 9, 12, &log[third..split]),
        (split as u64, 12, 21, &batches[4..7].concat()[..]),
        (batches[..7].concat().len() as u64, 21, 30, &batches[7..].concat()[..]),
    ];
    let torn = split + 20;
    let data = Data::new(&log[..torn]).crashed().with_journal(&pieces);
    let (sound, lines) = data.json(true);
    assert!(sound);
    assert_eq!(lines.len(), 10);
    let sources: Vec<&str> = lines.iter().map(|line| line["source"].as_str().unwrap()).collect();
    assert_eq!(sources[..4], ["segment"; 4], "what the file has too is the file's");
    assert_eq!(sources[4..], ["journal"; 6]);
    assert_eq!(lines[9]["records"][2]["value"], "value 29");
    let (sound, text) = data.verify();
    assert!(sound && text.contains("offsets 0..29") && text.contains("6 batches of them in the journal"), "{text}");

    // All of it in the journal, and no file yet.
    let data = Data::new(b"").crashed().with_journal(&[(0, 0, 30, &log)]);
    fs::remove_file(data.partition().join(LOG)).unwrap();
    assert_eq!(data.json(false).1.len(), 10);

    // After a clean stop a journal says nothing any more.
    let data = Data::new(&log[..third]).with_journal(&pieces);
    assert_eq!(data.json(false).1.len(), 3);
}

#[test]
fn what_a_start_would_cut_is_no_damage_and_what_it_would_not_is() {
    let batches = batches();
    let log = batches.concat();
    let torn = &log[..log.len() - 5];
    let (sound, text) = Data::new(torn).crashed().verify();
    assert!(sound && text.contains("the next start cuts"), "{text}");

    let data = Data::new(torn).crashed();
    fs::write(data.path().join("recovery-point-offset-checkpoint"), "0\n1\nt 0 30\n").unwrap();
    let (sound, text) = data.verify();
    assert!(!sound && text.contains("first bad"), "{text}");

    let padded = [&log[..], &[0; 500]].concat();
    let (sound, text) = Data::new(&padded).verify();
    assert!(sound && text.contains("500 bytes of zeros to the end of the file"), "{text}");
    let (sound, lines) = Data::new(&padded).json(false);
    assert!(sound && lines[10]["padding_bytes"].as_u64() == Some(500));
}

#[test]
fn nothing_is_written() {
    let batches = batches();
    let data = Data::new(&batches.concat()[..500]).crashed().with_journal(&[(0, 0, 3, &batches[0])]);
    let snapshot = || {
        let mut files = Vec::new();
        for directory in [data.path().to_owned(), data.partition(), data.path().join("ringlog-journal.0")] {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                files.push((path.clone(), path.is_file().then(|| fs::read(&path).unwrap())));
            }
        }
        files.sort();
        files
    };
    let before = snapshot();
    data.dump(DumpOptions { records: true, json: true });
    data.verify();
    assert!(snapshot() == before);
}
