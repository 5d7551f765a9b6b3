//! `ringlog log verify`: every CRC, offset, record, index and checkpoint, and the first place where one is wrong.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use ringlog_engine::batch::BatchView;
use ringlog_engine::disk::BLOCK_BYTES;
use ringlog_engine::log::epochs::LeaderEpochs;
use ringlog_engine::log::{checkpoint, producer_snapshot};
use ringlog_engine::segment::index::{IndexError, OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES, parse_offset_index, parse_time_index};
use ringlog_engine::segment::names::{EPOCHS_FILE, FileKind, FileState, PARTITION_METADATA_FILE, SegmentFile};
use ringlog_engine::types::{Offset, TimestampMs};

use tracing::warn;

use super::OfflineError;
use super::directory::{self, Partition, Segment};
use super::dump::{RECORDS_BYTES_MAX, segment_name};
use super::segment::{Item, Reader};

/// The size of an entry of a transaction index.
pub(super) const TRANSACTION_ENTRY_BYTES: usize = 34;

/// What was found in a partition.
#[derive(Default)]
struct Findings {
    segments: usize,
    batches: u64,
    records: u64,
    journal_batches: u64,
    first_offset: Option<Offset>,
    next_offset: Option<Offset>,
    problems: Vec<Problem>,
    notes: Vec<Problem>,
}

/// Something wrong, and where.
struct Problem {
    file: String,
    position: Option<u64>,
    what: String,
}

impl Problem {
    fn is_same(&self, other: &Self) -> bool {
        (&self.file, self.position, &self.what) == (&other.file, other.position, &other.what)
    }
}

impl Findings {
    fn problem(&mut self, file: &str, position: Option<u64>, what: impl ToString) {
        self.problems.push(Problem { file: file.to_owned(), position, what: what.to_string() });
    }

    fn note(&mut self, file: &str, position: Option<u64>, what: impl ToString) {
        self.notes.push(Problem { file: file.to_owned(), position, what: what.to_string() });
    }
}

/// What the indexes of a segment are held against.
#[derive(Default)]
pub(super) struct Batches {
    /// The base offset of each batch, by position.
    starts: BTreeMap<u64, Offset>,
    /// Wherever the largest timestamp so far grew: the last offset of that batch, and the timestamp.
    timestamps: Vec<(Offset, TimestampMs)>,
}

impl Batches {
    /// From each batch's position, first and last offset, and largest timestamp.
    pub(super) fn of(batches: impl Iterator<Item = (u64, Offset, Offset, TimestampMs)>) -> Self {
        let mut all = Self::default();
        for (position, first, last, max_timestamp) in batches {
            all.add(position, first, last, max_timestamp);
        }
        all
    }

    fn add(&mut self, position: u64, first: Offset, last: Offset, max_timestamp: TimestampMs) {
        self.starts.insert(position, first);
        if self.timestamps.last().is_none_or(|&(_, newest)| max_timestamp > newest) && max_timestamp > TimestampMs::NONE {
            self.timestamps.push((last, max_timestamp));
        }
    }

    /// The largest timestamp of batches that end at or below `offset`.
    fn newest_up_to(&self, offset: Offset) -> Option<TimestampMs> {
        let after = self.timestamps.partition_point(|&(last, _)| last <= offset);
        Some(self.timestamps[after.checked_sub(1)?].1)
    }
}

/// How often a partition that a broker writes to is looked at before what is wrong counts, and how long to wait in between.
const LOOKS: usize = 4;
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// What is wrong with a partition's lists of aborted transactions: names and reasons.
pub(super) type CheckLists = fn(&Partition) -> Result<Vec<(String, String)>, OfflineError>;

/// Checks everything at `path`; returns whether all of it is sound.
pub(super) fn verify(path: &Path, check_lists: CheckLists, out: &mut dyn Write) -> Result<bool, OfflineError> {
    let mut directory = directory::open(path)?;
    let is_used = directory.is_used();
    if is_used {
        warn!("{} is used by a running broker: what it does meanwhile is allowed for", directory.data.display());
    }
    match directory::add_journals(&mut directory.partitions, &directory.journals) {
        Err(_) if is_used => {}
        added => added?,
    }
    let mut sound = true;
    for partition in &directory.partitions {
        let findings = if is_used { check_used(partition, check_lists)? } else { Some(check(partition, check_lists)?) };
        let Some(findings) = findings else {
            writeln!(out, "{}: deleted meanwhile", partition.name).map_err(OfflineError::Output)?;
            continue;
        };
        sound &= findings.problems.is_empty();
        print(partition, &findings, out).map_err(OfflineError::Output)?;
    }
    writeln!(out, "{}", if sound { "all is well" } else { "NOT well" }).map_err(OfflineError::Output)?;
    Ok(sound)
}

/// Checks a partition that a broker has open. Files come, go and grow while they are read: what is wrong counts if it is
/// still there at each of several looks. `None`: the partition is gone.
fn check_used(partition: &Partition, check_lists: CheckLists) -> Result<Option<Findings>, OfflineError> {
    let mut last = attempt(check(partition, check_lists))?;
    for _ in 1..LOOKS {
        if last.as_ref().is_some_and(|findings| findings.problems.is_empty()) {
            break;
        }
        std::thread::sleep(LOOK_AGAIN);
        if !partition.path.exists() {
            return Ok(None);
        }
        let again = directory::open(&partition.path).and_then(|mut directory| {
            directory::add_journals(&mut directory.partitions, &directory.journals)?;
            directory.partitions.first().map(|partition| check(partition, check_lists)).transpose()
        });
        let Some(mut findings) = attempt(again)?.flatten() else { continue };
        if let Some(last) = last {
            findings.problems.retain(|problem| last.problems.iter().any(|before| before.is_same(problem)));
        }
        last = Some(findings);
    }
    match last {
        None if partition.path.exists() => Err(OfflineError::read(&partition.path)(io::ErrorKind::NotFound.into())),
        last => Ok(last),
    }
}

/// What was found; `None` where a file went away while it was read, or a journal was written over.
fn attempt<T>(result: Result<T, OfflineError>) -> Result<Option<T>, OfflineError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(OfflineError::NoPartitions { .. }) => Ok(None),
        Err(OfflineError::Read { error, .. })
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn print(partition: &Partition, findings: &Findings, out: &mut dyn Write) -> io::Result<()> {
    let Findings { segments, batches, records, journal_batches, .. } = findings;
    let offsets = match (findings.first_offset, findings.next_offset) {
        (Some(first), Some(next)) => format!("offsets {first}..{}", next.0 - 1),
        _ => "empty".to_owned(),
    };
    let verdict = if findings.problems.is_empty() { "ok" } else { "BAD" };
    write!(out, "{}: {verdict}, {offsets}, {segments} segments, {batches} batches, {records} records", partition.name)?;
    if *journal_batches > 0 {
        write!(out, ", {journal_batches} batches of them in the journal")?;
    }
    writeln!(out)?;
    for (at, problem) in findings.problems.iter().enumerate() {
        print_problem(if at == 0 { "first bad" } else { "bad" }, problem, out)?;
    }
    for note in &findings.notes {
        print_problem("note", note, out)?;
    }
    Ok(())
}

fn print_problem(kind: &str, problem: &Problem, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "  {kind}: {}", problem.file)?;
    if let Some(position) = problem.position {
        write!(out, " position {position}")?;
    }
    writeln!(out, ": {}", problem.what)
}

fn check(partition: &Partition, check_lists: CheckLists) -> Result<Findings, OfflineError> {
    let mut findings = Findings::default();
    let bases: Vec<Offset> = partition.segments.keys().copied().collect();
    for (at, (&base, segment)) in partition.segments.iter().enumerate() {
        findings.segments += 1;
        let next_base = bases.get(at + 1).copied();
        let (batches, log_bytes) = check_segment(partition, base, segment, next_base, &mut findings)?;
        // After a crash the last segment's indexes are made anew from the recovery point on.
        let rebuilt = !partition.clean && next_base.is_none();
        check_indexes(partition, base, &batches, log_bytes, rebuilt, &mut findings)?;
    }
    for name in &partition.files {
        check_file(partition, name, &mut findings)?;
    }
    for (name, reason) in check_lists(partition)? {
        if !findings.problems.iter().any(|problem| problem.file == name) {
            findings.problem(&name, None, reason);
        }
    }
    Ok(findings)
}

fn check_segment(
    partition: &Partition,
    base: Offset,
    segment: &Segment,
    next_base: Option<Offset>,
    findings: &mut Findings,
) -> Result<(Batches, u64), OfflineError> {
    let mut batches = Batches::default();
    let name = segment_name(segment);
    let mut reader = Reader::open(segment, base).map_err(OfflineError::read(&segment.path))?;
    let mut end = base;
    while let Some(item) = reader.next().map_err(OfflineError::read(&segment.path))? {
        // What the next start would cut, because it was never said to be durable, is no damage.
        let would_be_cut = !partition.clean && next_base.is_none() && end >= partition.recovery_point;
        match item {
            Item::Padding { position, bytes } if next_base.is_none() => {
                findings.note(&name, Some(position), format!("{bytes} bytes of zeros to the end of the file"));
            }
            // A run went straight to it, and the next batch, perhaps in the journal alone, began another segment.
            Item::Padding { position, bytes } if !partition.clean && next_base == Some(end) && bytes < BLOCK_BYTES as u64 => {
                findings.note(
                    &name,
                    Some(position),
                    format!("{bytes} bytes of zeros to the end of the block; the next start cuts them"),
                );
            }
            Item::Padding { position, bytes } => {
                findings.problem(&name, Some(position), format!("{bytes} bytes of zeros where a batch should be"));
            }
            Item::Damage { position, bytes, reason } if would_be_cut => {
                findings.note(&name, Some(position), format!("{reason}; the next start cuts {bytes} bytes here"));
            }
            Item::Damage { position, reason, .. } => findings.problem(&name, Some(position), reason),
            Item::Batch { position, batch, problem, from_journal } => {
                let header = *batch.header();
                let beyond = next_base.filter(|&next| header.last_offset() >= next);
                let problem = problem
                    .or_else(|| {
                        beyond.map(|next| format!("last offset {} where the next segment begins at {next}", header.last_offset()))
                    })
                    .or_else(|| check_records(&batch).err());
                match problem {
                    Some(problem) if would_be_cut => {
                        findings.note(&name, Some(position), format!("{problem}; the next start cuts here"))
                    }
                    Some(problem) => findings.problem(&name, Some(position), problem),
                    None => {}
                }
                findings.batches += 1;
                findings.journal_batches += u64::from(from_journal);
                findings.records += u64::from(header.record_count.unsigned_abs());
                findings.first_offset.get_or_insert(header.base_offset);
                findings.next_offset = Some(header.next_offset());
                end = header.next_offset();
                batches.add(position, header.base_offset, header.last_offset(), header.max_timestamp);
            }
        }
    }
    Ok((batches, reader.len()))
}

/// The records inside: as many as the header says, with rising offsets within the batch's.
fn check_records(batch: &BatchView<'_>) -> Result<(), String> {
    let records = batch.records(RECORDS_BYTES_MAX).map_err(|error| error.to_string())?;
    let mut last = -1;
    for (index, record) in records.iter().enumerate() {
        let record = record.map_err(|error| error.to_string())?;
        if record.offset_delta <= last || record.offset_delta > batch.header().last_offset_delta {
            return Err(format!("record {index} has offset delta {}", record.offset_delta));
        }
        last = record.offset_delta;
    }
    Ok(())
}

fn check_indexes(
    partition: &Partition,
    base: Offset,
    batches: &Batches,
    log_bytes: u64,
    rebuilt: bool,
    findings: &mut Findings,
) -> Result<(), OfflineError> {
    for (kind, what) in check_indexes_of(&partition.path, base, log_bytes, batches)? {
        let name = SegmentFile::new(base, kind).name();
        if what == MISSING {
            findings.note(&name, None, format!("{what}; the next start makes it"));
        } else if rebuilt {
            findings.note(&name, None, format!("{what}; the next start makes it anew"));
        } else {
            findings.problem(&name, None, what);
        }
    }
    Ok(())
}

/// What is said of an index that is not there.
pub(super) const MISSING: &str = "missing";

/// Which index files of a segment in `folder` do not fit its batches, and why.
pub(super) fn check_indexes_of(
    folder: &Path,
    base: Offset,
    log_bytes: u64,
    batches: &Batches,
) -> Result<Vec<(FileKind, String)>, OfflineError> {
    let mut bad = Vec::new();
    for (kind, entry_bytes) in [(FileKind::OffsetIndex, OFFSET_ENTRY_BYTES), (FileKind::TimeIndex, TIME_ENTRY_BYTES)] {
        let Some(bytes) = read(&folder.join(SegmentFile::new(base, kind).name()))? else {
            bad.push((kind, MISSING.to_owned()));
            continue;
        };
        let bytes = without_room(&bytes, entry_bytes);
        let result = match kind {
            FileKind::OffsetIndex => check_offset_index(bytes, base, log_bytes, batches),
            _ => check_time_index(bytes, base, batches),
        };
        bad.extend(result.err().map(|what| (kind, what)));
    }
    Ok(bad)
}

/// Kafka keeps room for entries, as zeros, at the end of the index files of a segment that is written to.
fn without_room(bytes: &[u8], entry_bytes: usize) -> &[u8] {
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| (at + 1).next_multiple_of(entry_bytes));
    // One entry of zeros may be the first of a time index or the first batch's of an offset index.
    &bytes[..used.min(bytes.len())]
}

fn check_offset_index(bytes: &[u8], base: Offset, log_bytes: u64, batches: &Batches) -> Result<(), String> {
    let entries = parse_offset_index(bytes, base, log_bytes).map_err(|error: IndexError| error.to_string())?;
    for (at, entry) in entries.iter().enumerate() {
        match batches.starts.get(&entry.position) {
            None => return Err(format!("entry {at} points to position {}, where no batch begins", entry.position)),
            Some(&first) if first > entry.last_offset => {
                return Err(format!("entry {at} says offset {} for the batch that begins at {first}", entry.last_offset));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn check_time_index(bytes: &[u8], base: Offset, batches: &Batches) -> Result<(), String> {
    let entries = parse_time_index(bytes, base).map_err(|error| error.to_string())?;
    for (at, entry) in entries.iter().enumerate() {
        if let Some(newest) = batches.newest_up_to(entry.offset).filter(|&newest| newest > entry.timestamp) {
            let (said, upto) = (entry.timestamp, entry.offset);
            return Err(format!("entry {at} says that nothing up to offset {upto} is newer than {said}, and {newest} is"));
        }
    }
    Ok(())
}

/// The files beside logs and indexes.
fn check_file(partition: &Partition, name: &str, findings: &mut Findings) -> Result<(), OfflineError> {
    if let Some(Err(what)) = check_content(&partition.path, name)? {
        findings.problem(name, None, what);
    }
    Ok(())
}

/// Whether a file beside logs and indexes is what its name says; `None` where that says nothing, or it is gone.
pub(super) fn check_content(folder: &Path, name: &str) -> Result<Option<Result<(), String>>, OfflineError> {
    let path = folder.join(name);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(match (name, SegmentFile::parse(name)) {
        (EPOCHS_FILE, _) => read(&path)?.map(|bytes| LeaderEpochs::decode(&text(bytes)).map(drop).map_err(|e| e.to_string())),
        (PARTITION_METADATA_FILE, _) => {
            read(&path)?.map(|bytes| checkpoint::parse_partition_metadata(&text(bytes)).map(drop).map_err(|e| e.to_string()))
        }
        (_, Some(SegmentFile { kind: FileKind::ProducerSnapshot, state: FileState::Live, .. })) => {
            read(&path)?.map(|bytes| producer_snapshot::parse(&bytes).map(drop).map_err(|e| e.to_string()))
        }
        (_, Some(SegmentFile { kind: FileKind::TransactionIndex, state: FileState::Live, .. })) => {
            read(&path)?.map(|bytes| match bytes.len() % TRANSACTION_ENTRY_BYTES {
                0 => Ok(()),
                _ => Err(format!("{} bytes are not a multiple of {TRANSACTION_ENTRY_BYTES}", bytes.len())),
            })
        }
        _ => None,
    })
}

pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, OfflineError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OfflineError::read(path)(error)),
    }
}
