//! `ringlog log dump`: batches, and on demand their records, as text or as one JSON object per line.

use std::io::{self, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringlog_engine::batch::{BatchView, TimestampType};
use ringlog_engine::record::Record;
use serde::Serialize;

use super::OfflineError;
use super::directory::{self, Partition, Segment};
use super::segment::{Item, Reader};

/// The most that the records of one batch may take when decompressed.
pub(super) const RECORDS_BYTES_MAX: usize = 1 << 30;

/// What to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpOptions {
    /// The records inside the batches, too.
    pub records: bool,
    /// JSON instead of text.
    pub json: bool,
}

/// One line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    partition: &'a str,
    segment: &'a str,
    position: u64,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What {
    Batch(Batch),
    Damage { damage_bytes: u64, damage: String },
    Padding { padding_bytes: u64 },
}

#[derive(Serialize)]
struct Batch {
    base_offset: i64,
    last_offset: i64,
    size: usize,
    leader_epoch: i32,
    magic: i8,
    codec: String,
    timestamp_type: &'static str,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    last_sequence: i32,
    record_count: i32,
    transactional: bool,
    control: bool,
    delete_horizon: bool,
    crc: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<Vec<RecordLine>>,
}

#[derive(Serialize)]
struct RecordLine {
    offset: i64,
    timestamp: i64,
    key: Bytes,
    value: Bytes,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(Bytes, Bytes)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<String>,
}

/// A key or value: null, a string where it is one, else base64.
#[derive(Serialize)]
#[serde(untagged)]
enum Bytes {
    Null,
    Text(String),
    Other { base64: String },
}

impl Bytes {
    fn new(bytes: Option<&[u8]>) -> Self {
        match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => Self::Null,
            Some((_, Ok(text))) => Self::Text(text.to_owned()),
            Some((bytes, Err(_))) => Self::Other { base64: STANDARD.encode(bytes) },
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Text(text) => format!("{text:?}"),
            Self::Other { base64 } => format!("base64:{base64}"),
        }
    }
}

/// Prints everything at `path`; returns whether all of it is sound.
pub(super) fn dump(path: &Path, options: DumpOptions, out: &mut dyn Write) -> Result<bool, OfflineError> {
    let mut sound = true;
    for partition in directory::partitions(path)? {
        for (&base, segment) in &partition.segments {
            let mut reader = Reader::open(segment, base).map_err(OfflineError::read(&segment.path))?;
            let name = segment_name(segment);
            if !options.json {
                let line = writeln!(out, "{}/{name}: {} bytes", partition.name, reader.len());
                line.map_err(OfflineError::Output)?;
            }
            while let Some(item) = reader.next().map_err(OfflineError::read(&segment.path))? {
                let (position, what) = describe(item, options);
                sound &= what.is_sound();
                let printed = if options.json {
                    print_json(&Line { partition: &partition.name, segment: &name, position, what }, out)
                } else {
                    print_text(&partition, position, &what, out)
                };
                printed.map_err(OfflineError::Output)?;
            }
        }
    }
    Ok(sound)
}

pub(super) fn segment_name(segment: &Segment) -> String {
    segment.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl What {
    fn is_sound(&self) -> bool {
        match self {
            Self::Batch(batch) => batch.ok,
            Self::Damage { .. } => false,
            Self::Padding { .. } => true,
        }
    }
}

fn describe(item: Item<'_>, options: DumpOptions) -> (u64, What) {
    match item {
        Item::Damage { position, bytes, reason } => (position, What::Damage { damage_bytes: bytes, damage: reason }),
        Item::Padding { position, bytes } => (position, What::Padding { padding_bytes: bytes }),
        Item::Batch { position, batch, mut problem, from_journal } => {
            let header = batch.header();
            let records = match options.records.then(|| records(&batch)) {
                Some(Ok(records)) => Some(records),
                Some(Err(error)) => {
                    problem.get_or_insert(error);
                    None
                }
                None => None,
            };
            let what = What::Batch(Batch {
                base_offset: header.base_offset.0,
                last_offset: header.last_offset().0,
                size: header.size_bytes(),
                leader_epoch: header.leader_epoch.0,
                magic: header.magic,
                codec: header.attributes.codec().map_or_else(|error| error.to_string(), |codec| codec.name().to_owned()),
                timestamp_type: match header.attributes.timestamp_type() {
                    TimestampType::CreateTime => "CreateTime",
                    TimestampType::LogAppendTime => "LogAppendTime",
                },
                base_timestamp: header.base_timestamp.0,
                max_timestamp: header.max_timestamp.0,
                producer_id: header.producer_id.0,
                producer_epoch: header.producer_epoch,
                base_sequence: header.base_sequence,
                last_sequence: header.last_sequence(),
                record_count: header.record_count,
                transactional: header.attributes.is_transactional(),
                control: header.attributes.is_control(),
                delete_horizon: header.attributes.has_delete_horizon(),
                crc: format!("{:#010x}", header.crc),
                ok: problem.is_none(),
                problem,
                source: if from_journal { "journal" } else { "segment" },
                records,
            });
            (position, what)
        }
    }
}

fn records(batch: &BatchView<'_>) -> Result<Vec<RecordLine>, String> {
    let records = batch.records(RECORDS_BYTES_MAX).map_err(|error| error.to_string())?;
    let is_control = batch.header().attributes.is_control();
    let line = |record: Record<'_>| RecordLine {
        offset: batch.header().offset_of(&record).0,
        timestamp: batch.header().timestamp_of(&record).0,
        key: Bytes::new(record.key),
        value: Bytes::new(record.value),
        headers: record.headers().map(|header| (Bytes::new(Some(header.key)), Bytes::new(header.value))).collect(),
        control: is_control.then(|| control_type(record.key)),
    };
    records.iter().map(|record| record.map(line).map_err(|error| error.to_string())).collect()
}

/// What a control record says, by its key: version i16, type i16 (KIP-98, KIP-595).
fn control_type(key: Option<&[u8]>) -> String {
    match key {
        Some([_, _, a, b, ..]) => match i16::from_be_bytes([*a, *b]) {
            0 => "abort".to_owned(),
            1 => "commit".to_owned(),
            2 => "leader change".to_owned(),
            3 => "snapshot header".to_owned(),
            4 => "snapshot footer".to_owned(),
            other => format!("type {other}"),
        },
        _ => "unknown".to_owned(),
    }
}

fn print_json(line: &Line<'_>, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

fn print_text(partition: &Partition, position: u64, what: &What, out: &mut dyn Write) -> io::Result<()> {
    let batch = match what {
        What::Batch(batch) => batch,
        What::Damage { damage_bytes, damage } => {
            return writeln!(out, "DAMAGE in {} at position {position}, {damage_bytes} bytes: {damage}", partition.name);
        }
        What::Padding { padding_bytes } => {
            return writeln!(out, "zeros at position {position}, {padding_bytes} bytes to the end of the file");
        }
    };
    write!(
        out,
        "offsets {}..{} position {position} size {} epoch {} records {} codec {} {} {}..{} crc {}",
        batch.base_offset,
        batch.last_offset,
        batch.size,
        batch.leader_epoch,
        batch.record_count,
        batch.codec,
        batch.timestamp_type,
        batch.base_timestamp,
        batch.max_timestamp,
        batch.crc,
    )?;
    match &batch.problem {
        None => write!(out, " ok")?,
        Some(problem) => write!(out, " BAD: {problem}")?,
    }
    if batch.producer_id >= 0 {
        let (id, epoch) = (batch.producer_id, batch.producer_epoch);
        write!(out, " producer {id} epoch {epoch} sequences {}..{}", batch.base_sequence, batch.last_sequence)?;
    }
    for (flag, name) in
        [(batch.transactional, "transactional"), (batch.control, "control"), (batch.delete_horizon, "delete-horizon")]
    {
        if flag {
            write!(out, " {name}")?;
        }
    }
    if batch.source == "journal" {
        write!(out, " (in the journal)")?;
    }
    writeln!(out)?;
    for record in batch.records.iter().flatten() {
        write!(
            out,
            "  offset {} timestamp {} key {} value {}",
            record.offset,
            record.timestamp,
            record.key.text(),
            record.value.text()
        )?;
        for (key, value) in &record.headers {
            write!(out, " header {}={}", key.text(), value.text())?;
        }
        if let Some(control) = &record.control {
            write!(out, " control {control}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
