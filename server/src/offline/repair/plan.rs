//! What a repair would do, before anything is done: found by reading alone, printed, and handed to [`super::apply`].

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ringlog_engine::log::checkpoint::{OffsetCheckpoint, encode_partition_metadata, parse_partition_metadata};
use ringlog_engine::log::epochs::LeaderEpochs;
use ringlog_engine::log::producer_snapshot::{self, SnapshotEntry};
use ringlog_engine::segment::names::{
    EPOCHS_FILE, FileKind, FileState, HIGH_WATERMARK_FILE, LOG_START_FILE, PARTITION_METADATA_FILE, PartitionFolder,
    RECOVERY_POINT_FILE, SegmentFile, is_internal_topic, log_file_name, parse_snapshot_file_name,
};
use ringlog_engine::types::{Offset, TimestampMs, TopicId};

use super::Journals;
use super::judge::{self, Judgement, Sound};
use super::rebuild::{self, History};
use super::salvage::Salvaged;
use crate::offline::OfflineError;
use crate::offline::directory::{Directory, Partition, Segment};
use crate::offline::segment::Reader;
use crate::offline::verify::{Batches, MISSING, check_content, check_indexes_of, read};

/// Everything that is to be done.
pub(super) struct Plan {
    pub(super) partitions: Vec<PartitionPlan>,
    /// Files of the data directory.
    pub(super) files: Vec<FilePlan>,
    settles_journals: bool,
    salvaged: Vec<(String, Salvaged)>,
    /// What cannot be repaired here.
    stuck: Vec<String>,
}

/// What is to be done in a partition's folder.
pub(super) struct PartitionPlan {
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// By base offset: segments whose log file or indexes change.
    pub(super) segments: BTreeMap<Offset, SegmentPlan>,
    pub(super) files: Vec<FilePlan>,
    /// A segment to be made, empty, so that no offset is given twice.
    pub(super) new_segment: Option<Offset>,
    /// The new recovery point, where logs change: what is kept counts as synced from then on. A start after a crash would take
    /// the gaps that are left for the end of what is sound.
    pub(super) recovery_point: Option<Offset>,
    stuck: Vec<String>,
    segment_count: usize,
    batch_count: usize,
}

/// Index files of a segment, by kind.
type IndexFiles = Vec<(FileKind, Vec<u8>)>;
/// File names, and why they are made anew.
type Reasons = Vec<(String, String)>;

/// What is to be done with a segment.
pub(super) struct SegmentPlan {
    pub(super) judgement: Judgement,
    /// Whether nothing of it is left, and another segment has its offsets.
    pub(super) removed: bool,
    /// New index files, by kind, and why.
    pub(super) indexes: IndexFiles,
    index_reasons: Reasons,
}

/// A file that is replaced as a whole, or only put aside.
pub(super) struct FilePlan {
    pub(super) name: String,
    pub(super) content: Option<Vec<u8>>,
    reason: String,
}

impl Plan {
    /// Looks at everything.
    pub(super) fn new(directory: &Directory, journals: Journals) -> Result<Self, OfflineError> {
        let Journals { salvaged, unreadable } = journals;
        let stuck = unreadable.into_iter().map(|why| format!("the journal cannot be read: {why}")).collect();
        let (partitions, files) = (Vec::new(), Vec::new());
        let mut plan = Self { partitions, files, settles_journals: !salvaged.is_empty(), salvaged, stuck };
        if !plan.stuck.is_empty() {
            // What lies in the journal belongs behind what the segments have: nothing can be judged without it.
            plan.salvaged.clear();
            plan.settles_journals = false;
            return Ok(plan);
        }
        if directory.whole {
            for name in [RECOVERY_POINT_FILE, LOG_START_FILE, HIGH_WATERMARK_FILE] {
                plan.files.extend(offset_checkpoint(&directory.data, name)?);
            }
        }
        let topics = topic_ids(&directory.partitions);
        for partition in &directory.partitions {
            plan.partitions.push(PartitionPlan::new(partition, &topics, !plan.salvaged.is_empty())?);
        }
        let touches_logs = |partition: &PartitionPlan| partition.recovery_point.is_some();
        plan.settles_journals |= !directory.journals.is_empty() && plan.partitions.iter().any(touches_logs);
        Ok(plan)
    }

    /// Whether what the journals hold has to be written to the segments, and the journals to go, before anything is cut: the
    /// next start would write behind the cut.
    pub(super) fn settles_journals(&self) -> bool {
        self.settles_journals
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.salvaged.is_empty() && self.partitions.iter().all(PartitionPlan::is_empty)
    }

    /// Whether all is well once it is done.
    pub(super) fn is_complete(&self) -> bool {
        self.stuck.is_empty() && self.partitions.iter().all(|partition| partition.stuck.is_empty())
    }

    pub(super) fn print(&self, execute: bool, out: &mut dyn Write) -> io::Result<()> {
        for (why, Salvaged { rounds, bytes }) in &self.salvaged {
            writeln!(
                out,
                "salvage: {why}: {rounds} rounds are there, with {bytes} bytes that the segments lack; where a log starts \
                after DeleteRecords and retention was only in that file, so what they took from a first segment comes back"
            )?;
        }
        if self.settles_journals {
            writeln!(out, "settle: what the journals hold is written to the segments, and the journals go")?;
        }
        print_files(&self.files, "", out)?;
        for partition in &self.partitions {
            partition.print(out)?;
        }
        for stuck in &self.stuck {
            writeln!(out, "cannot repair: {stuck}")?;
        }
        match (self.is_empty(), execute) {
            (true, _) if self.is_complete() => writeln!(out, "nothing to repair"),
            (true, _) => writeln!(out, "nothing that can be repaired"),
            (false, true) => Ok(()),
            (false, false) => writeln!(out, "nothing was changed; --execute does it"),
        }
    }
}

impl PartitionPlan {
    /// `salvaged`: whether recovery points may have been lost with a journal's checkpoint.
    fn new(partition: &Partition, topics: &BTreeMap<String, TopicId>, salvaged: bool) -> Result<Self, OfflineError> {
        let mut plan = Self {
            name: partition.name.clone(),
            path: partition.path.clone(),
            segments: BTreeMap::new(),
            files: Vec::new(),
            new_segment: None,
            recovery_point: None,
            stuck: Vec::new(),
            segment_count: partition.segments.len(),
            batch_count: 0,
        };
        if let Some(name) = half_compacted(partition) {
            plan.stuck.push(format!(
                "{name} is of a compaction that was interrupted, and nothing is done here before that is over; start and stop the \
                 broker once, which finishes it or throws it away, and run this command again"
            ));
            return Ok(plan);
        }
        let mut judged = judge_all(partition)?;
        plan.batch_count = judged.values().map(|(judgement, _)| judgement.kept.len()).sum();
        let end = judged.iter().map(|(&base, (judgement, _))| judgement.next_offset().unwrap_or(base)).max().unwrap_or(Offset(0));
        if end < partition.recovery_point && !judged.is_empty() {
            plan.new_segment = Some(partition.recovery_point);
        } else if !partition.clean {
            leave_to_the_start(&mut judged);
        }
        let bad_files = bad_files(partition)?;
        let changes_logs = judged.values().any(|(judgement, removed)| judgement.is_damaged() || *removed);
        if changes_logs || plan.new_segment.is_some() || salvaged {
            plan.recovery_point = Some(end.max(partition.recovery_point));
        }
        let needs_history = bad_files.iter().any(|bad| bad.kind.is_rebuilt()) || has_transaction_indexes(partition);
        let mut rebuilt = needs_history.then(|| Rebuilt::new(partition, &judged, &bad_files)).transpose()?;
        let last_base = judged.last_key_value().map(|(&base, _)| base);
        for (base, (judgement, removed)) in judged {
            let after_crash = !partition.clean && last_base == Some(base) && plan.recovery_point.is_none();
            let (mut indexes, mut index_reasons) = indexes(partition, base, &judgement, removed, after_crash)?;
            if !removed && let Some(aborted) = rebuilt.as_mut().and_then(|rebuilt| rebuilt.aborted.remove(&base)) {
                let end = plan.new_segment.unwrap_or(end);
                transaction_index(partition, base, end, aborted, &bad_files, &mut indexes, &mut index_reasons)?;
            }
            if judgement.is_damaged() || removed || !indexes.is_empty() {
                plan.segments.insert(base, SegmentPlan { judgement, removed, indexes, index_reasons });
            }
        }
        for bad in bad_files {
            plan.repair_file(bad, rebuilt.as_ref(), end, topics);
        }
        Ok(plan)
    }

    fn repair_file(&mut self, bad: BadFile, rebuilt: Option<&Rebuilt>, end: Offset, topics: &BTreeMap<String, TopicId>) {
        let content = match bad.kind {
            BadKind::Epochs => rebuilt.map(|rebuilt| rebuilt.epochs.encode().into_bytes()),
            BadKind::Snapshot(offset) if offset <= end => rebuilt.and_then(|rebuilt| rebuilt.snapshots.get(&offset).cloned()),
            // It is of batches that are no more, or lie before the first that is left.
            BadKind::Snapshot(_) => None,
            // It goes with its segment's other indexes.
            BadKind::Transactions => return,
            BadKind::Metadata => {
                let topic = PartitionFolder::parse(&self.name).and_then(|folder| topics.get(folder.topic));
                let Some(topic) = topic else {
                    self.stuck.push(format!("{}: {}; restore it from a backup", bad.name, bad.reason));
                    return;
                };
                Some(encode_partition_metadata(*topic).into_bytes())
            }
        };
        self.files.push(FilePlan { name: bad.name, content, reason: bad.reason });
    }

    fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.files.is_empty() && self.new_segment.is_none()
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let verdict = match (self.is_empty(), self.stuck.is_empty()) {
            (true, true) => "ok",
            (false, true) => "to repair",
            (_, false) => "BAD",
        };
        writeln!(out, "{}: {verdict}, {} segments, {} sound batches", self.name, self.segment_count, self.batch_count)?;
        if self.segments.values().any(|segment| !segment.judgement.cuts.is_empty())
            && PartitionFolder::parse(&self.name).is_some_and(|folder| is_internal_topic(folder.topic))
        {
            writeln!(
                out,
                "  note: this is a log of the broker's own: what is cut is no topic's records but what it knew of them"
            )?;
        }
        for (base, segment) in &self.segments {
            segment.print(*base, out)?;
        }
        if let Some(base) = self.new_segment {
            writeln!(out, "  add: {}, empty: offsets below {base} were given out, and are not given again", log_file_name(base))?;
        }
        print_files(&self.files, "  ", out)?;
        if let Some(offset) = self.recovery_point {
            writeln!(out, "  set: the recovery point to {offset}: a start keeps all that is left below it, after a crash too")?;
        }
        for stuck in &self.stuck {
            writeln!(out, "  cannot repair: {stuck}")?;
        }
        Ok(())
    }
}

impl SegmentPlan {
    fn print(&self, base: Offset, out: &mut dyn Write) -> io::Result<()> {
        let name = log_file_name(base);
        for cut in &self.judgement.cuts {
            let (position, bytes, reason) = (cut.range.start, cut.range.end - cut.range.start, &cut.reason);
            write!(out, "  cut: {name} position {position}, {bytes} bytes")?;
            if let Some((first, last)) = self.judgement.lost_between(base, position) {
                write!(out, ", of offsets {first}..{last}")?;
            }
            write!(out, ": {reason}")?;
            if !cut.zeros {
                write!(out, "; a copy is kept in {name}.{position}.cut")?;
            }
            writeln!(out)?;
        }
        for batch in self.judgement.kept.iter().filter(|batch| batch.restored) {
            let (position, first) = (batch.position, batch.base_offset);
            writeln!(out, "  restore: {name} position {position}: its neighbours leave no base offset but {first}")?;
        }
        if self.removed {
            writeln!(out, "  remove: {name}: nothing of it is left, and the segment before it has its offsets")?;
        }
        for (name, reason) in &self.index_reasons {
            writeln!(out, "  rebuild: {name}: {reason}")?;
        }
        Ok(())
    }
}

fn print_files(files: &[FilePlan], indent: &str, out: &mut dyn Write) -> io::Result<()> {
    for FilePlan { name, content, reason } in files {
        let what = if content.is_some() { "rebuild" } else { "put aside" };
        writeln!(out, "{indent}{what}: {name}: {reason}; what it was is kept in {name}.cut")?;
    }
    Ok(())
}

/// Each segment's judgement, and whether it is to be removed.
fn judge_all(partition: &Partition) -> Result<BTreeMap<Offset, (Judgement, bool)>, OfflineError> {
    let bases: Vec<Offset> = partition.segments.keys().copied().collect();
    let mut judged: BTreeMap<Offset, (Judgement, bool)> = BTreeMap::new();
    // From the end: whether a segment has anything sound decides how far the one before it may go.
    let mut next_base = None;
    for &base in bases.iter().rev() {
        let Some(segment) = partition.segments.get(&base) else { continue };
        let at = OfflineError::read(&segment.path);
        let judgement =
            Reader::open(segment, base).and_then(|mut reader| judge::judge(&mut reader, base, next_base)).map_err(at)?;
        judged.insert(base, (judgement, false));
        next_base = Some(base);
    }
    // An empty last segment that others' batches run into is in the way of nothing but them. Not where the batch that runs into
    // it has but a wrong base offset: then no more batches are left without it.
    if let [.., before, last] = bases[..]
        && judged.get(&last).is_some_and(|(judgement, _)| judgement.kept.is_empty())
        && let Some((first, _)) = judged.get(&before)
        && first.cuts.iter().any(|cut| !cut.zeros)
        && let Some(segment) = partition.segments.get(&before)
    {
        let at = OfflineError::read(&segment.path);
        let alone = Reader::open(segment, before).and_then(|mut reader| judge::judge(&mut reader, before, None)).map_err(at)?;
        if alone.kept.len() > first.kept.len() && alone.next_offset().is_some_and(|next| next > last) {
            judged.insert(before, (alone, false));
            if let Some((_, removed)) = judged.get_mut(&last) {
                *removed = true;
            }
        }
    }
    Ok(judged)
}

/// After a crash the last segment ends in the padding of its last block, which the next start takes away by itself.
fn leave_to_the_start(judged: &mut BTreeMap<Offset, (Judgement, bool)>) {
    if let Some(mut last) = judged.last_entry() {
        let judgement = &mut last.get_mut().0;
        let bytes = judgement.bytes;
        judgement.cuts.retain(|cut| !(cut.zeros && cut.range.end == bytes));
    }
}

impl Judgement {
    /// The offsets that a cut at `position` may have held, as far as the batches around it tell.
    fn lost_between(&self, base: Offset, position: u64) -> Option<(Offset, Offset)> {
        let after = self.kept.partition_point(|batch| batch.position < position);
        let first = after.checked_sub(1).map_or(base, |before| self.kept[before].next_offset);
        let next = self.kept.get(after)?.base_offset;
        (first < next).then(|| (first, Offset(next.0 - 1)))
    }
}

/// The index files that have to be made anew, and why.
fn indexes(
    partition: &Partition,
    base: Offset,
    judgement: &Judgement,
    removed: bool,
    after_crash: bool,
) -> Result<(IndexFiles, Reasons), OfflineError> {
    let (mut indexes, mut reasons) = (Vec::new(), Vec::new());
    if removed {
        return Ok((indexes, reasons));
    }
    let batches = Batches::of(judgement.kept.iter().map(|batch| {
        let last_offset = Offset(batch.next_offset.0 - 1);
        (batch.position, batch.base_offset, last_offset, batch.max_timestamp)
    }));
    let mut bad = check_indexes_of(&partition.path, base, judgement.bytes, &batches)?;
    // The next start makes the last ones anew from the recovery point on. Without batches there is nothing to index.
    bad.retain(|(_, reason)| !(after_crash || reason == MISSING && judgement.kept.is_empty()));
    if judgement.is_damaged() {
        for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
            if !bad.iter().any(|(found, _)| *found == kind) {
                bad.push((kind, "the log file changes".to_owned()));
            }
        }
    }
    if bad.is_empty() {
        return Ok((indexes, reasons));
    }
    let (mut offsets, mut times) = rebuild::indexes(base, &judgement.kept);
    for (kind, reason) in bad {
        reasons.push((SegmentFile::new(base, kind).name(), reason));
        let content = if kind == FileKind::OffsetIndex { &mut offsets } else { &mut times };
        indexes.push((kind, std::mem::take(content)));
    }
    Ok((indexes, reasons))
}

/// A segment's list of aborted transactions, where it is not the one that its batches give. `end`: no offset from there on was
/// given, or it will be given again.
fn transaction_index(
    partition: &Partition,
    base: Offset,
    end: Offset,
    aborted: Vec<u8>,
    bad_files: &[BadFile],
    indexes: &mut IndexFiles,
    reasons: &mut Reasons,
) -> Result<(), OfflineError> {
    let name = SegmentFile::new(base, FileKind::TransactionIndex).name();
    let found = read(&partition.path.join(&name))?;
    let found = found.as_deref().unwrap_or_default();
    let (aborted, reason) = match bad_files.iter().find(|bad| bad.name == name) {
        Some(bad) => (aborted, bad.reason.clone()),
        None => (rebuild::merge_aborted(found, &aborted, base, end), "its batches give another".to_owned()),
    };
    if aborted == found {
        return Ok(());
    }
    reasons.push((name, reason));
    indexes.push((FileKind::TransactionIndex, aborted));
    Ok(())
}

/// The lists of aborted transactions that would be changed, and why.
pub(super) fn transaction_lists(partition: &Partition) -> Result<Reasons, OfflineError> {
    if !has_transaction_indexes(partition) {
        return Ok(Reasons::new());
    }
    let plan = PartitionPlan::new(partition, &BTreeMap::new(), false)?;
    let reasons = plan.segments.into_values().flat_map(|segment| segment.index_reasons);
    let is_list = |name: &str| SegmentFile::parse(name).is_some_and(|file| file.kind == FileKind::TransactionIndex);
    Ok(reasons.filter(|(name, _)| is_list(name)).collect())
}

/// A file that a compaction left which is not over: the names in use are then not all of one log.
fn half_compacted(partition: &Partition) -> Option<&String> {
    let is_under_way =
        |name: &&String| SegmentFile::parse(name).is_some_and(|file| matches!(file.state, FileState::Swap | FileState::Cleaned));
    partition.files.iter().find(is_under_way)
}

fn has_transaction_indexes(partition: &Partition) -> bool {
    partition.files.iter().filter_map(|name| SegmentFile::parse(name)).any(|file| file.kind == FileKind::TransactionIndex)
}

/// A file that is not what its name says.
struct BadFile {
    name: String,
    kind: BadKind,
    reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BadKind {
    Epochs,
    Metadata,
    Snapshot(Offset),
    Transactions,
}

impl BadKind {
    fn is_rebuilt(self) -> bool {
        self != Self::Metadata
    }
}

fn bad_files(partition: &Partition) -> Result<Vec<BadFile>, OfflineError> {
    let mut bad = Vec::new();
    for name in &partition.files {
        let is_transactions =
            SegmentFile::parse(name).is_some_and(|file| file == SegmentFile::new(file.base_offset, FileKind::TransactionIndex));
        let kind = match (name.as_str(), parse_snapshot_file_name(name)) {
            (EPOCHS_FILE, _) => BadKind::Epochs,
            (PARTITION_METADATA_FILE, _) => BadKind::Metadata,
            (_, Some(offset)) => BadKind::Snapshot(offset),
            _ if is_transactions => BadKind::Transactions,
            _ => continue,
        };
        if let Some(Err(reason)) = check_content(&partition.path, name)? {
            bad.push(BadFile { name: name.clone(), kind, reason });
        }
    }
    Ok(bad)
}

/// What the batches of a partition give.
struct Rebuilt {
    aborted: BTreeMap<Offset, Vec<u8>>,
    snapshots: BTreeMap<Offset, Vec<u8>>,
    epochs: LeaderEpochs,
}

impl Rebuilt {
    fn new(
        partition: &Partition,
        judged: &BTreeMap<Offset, (Judgement, bool)>,
        bad_files: &[BadFile],
    ) -> Result<Self, OfflineError> {
        let first = judged.first_key_value().map_or(Offset(0), |(&base, _)| base);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = TimestampMs(i64::try_from(now).unwrap_or(i64::MAX));
        let mut history = History::new(&known_before(partition, first)?, now);
        let mut wanted: Vec<Offset> = bad_files
            .iter()
            .filter_map(|bad| match bad.kind {
                BadKind::Snapshot(offset) if offset >= first => Some(offset),
                _ => None,
            })
            .collect();
        wanted.sort_unstable_by(|a, b| b.cmp(a));
        let (mut aborted, mut snapshots) = (BTreeMap::new(), BTreeMap::new());
        for (&base, (judgement, _)) in judged {
            let Some(segment) = partition.segments.get(&base) else { continue };
            let list = follow(segment, base, &judgement.kept, &mut history, |next, history| {
                while let Some(offset) = wanted.pop_if(|offset| *offset <= next) {
                    snapshots.insert(offset, history.encode_snapshot());
                }
            });
            aborted.insert(base, list.map_err(OfflineError::read(&segment.path))?);
        }
        for offset in wanted {
            snapshots.insert(offset, history.producers().encode_snapshot());
        }
        Ok(Self { aborted, snapshots, epochs: history.epochs().clone() })
    }
}

fn follow(
    segment: &Segment,
    base: Offset,
    batches: &[Sound],
    history: &mut History,
    at: impl FnMut(Offset, &ringlog_engine::log::producers::ProducerStates),
) -> io::Result<Vec<u8>> {
    history.follow(&mut Reader::open(segment, base)?, batches, at)
}

/// What the newest sound snapshot says that knows of nothing but what lies before `first`.
fn known_before(partition: &Partition, first: Offset) -> Result<Vec<SnapshotEntry>, OfflineError> {
    let mut names: Vec<_> = partition
        .files
        .iter()
        .filter_map(|name| Some((parse_snapshot_file_name(name)?, name)))
        .filter(|(offset, _)| *offset <= first)
        .collect();
    names.sort_unstable_by(|a, b| b.cmp(a));
    for (_, name) in names {
        if let Some(Ok(entries)) = read(&partition.path.join(name))?.map(|bytes| producer_snapshot::parse(&bytes)) {
            return Ok(entries);
        }
    }
    Ok(Vec::new())
}

/// Each topic's id, from the partitions that have a sound `partition.metadata`.
fn topic_ids(partitions: &[Partition]) -> BTreeMap<String, TopicId> {
    let id = |partition: &Partition| {
        let text = fs::read_to_string(partition.path.join(PARTITION_METADATA_FILE)).ok()?;
        Some((PartitionFolder::parse(&partition.name)?.topic.to_owned(), parse_partition_metadata(&text).ok()?))
    };
    partitions.iter().filter_map(id).collect()
}

/// A damaged checkpoint of a data directory, made anew from its sound lines.
fn offset_checkpoint(data: &Path, name: &str) -> Result<Option<FilePlan>, OfflineError> {
    let Some(bytes) = read(&data.join(name))? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let Err(error) = OffsetCheckpoint::parse(&text) else { return Ok(None) };
    let mut offsets = BTreeMap::new();
    for line in text.lines().skip(2) {
        let Ok(mut one) = OffsetCheckpoint::parse(&format!("0\n1\n{line}\n")) else { continue };
        offsets.append(&mut one.offsets);
    }
    let reason = format!("{error}; {} sound lines stay", offsets.len());
    Ok(Some(FilePlan { name: name.to_owned(), content: Some(OffsetCheckpoint { offsets }.encode().into_bytes()), reason }))
}
