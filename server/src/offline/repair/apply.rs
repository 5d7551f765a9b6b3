//! Carries a repair out. A crash in between loses nothing: copies are durable before anything is cut, files change by a rename
//! or a cut, never by writing into what is sound, and the indexes of a log file that changes go before it does.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ringlog_engine::journal::is_directory_name;
use ringlog_engine::log::checkpoint::OffsetCheckpoint;
use ringlog_engine::segment::names::{
    FileKind, FileState, LOG_START_FILE, PartitionFolder, RECOVERY_POINT_FILE, SegmentFile, log_file_name,
};
use ringlog_engine::types::Offset;

use super::plan::{FilePlan, PartitionPlan, Plan, SegmentPlan};
use crate::offline::OfflineError;
use crate::offline::directory::{Directory, Segment};

/// The end of the name of a file that is not whole yet. The next start removes such a file from a partition's folder; names that
/// compaction uses would tell it that one is under way.
const UNFINISHED_SUFFIX: &str = ".tmp";
/// The end of the name of a journal's directory that is not needed any more and is about to be removed.
const SETTLED_SUFFIX: &str = ".settled";
const COMPARE_BYTES: usize = 1 << 20;

/// Comes before every change of the directory, a change of `path`. A test ends a repair there.
fn step(#[cfg_attr(not(test), expect(unused_variables, reason = "for tests"))] path: &Path) -> io::Result<()> {
    #[cfg(test)]
    super::tests::step(path)?;
    Ok(())
}

/// Does what the plan says.
pub(super) fn apply(directory: &Directory, plan: &Plan) -> Result<(), OfflineError> {
    // First: what follows adds to them.
    for file in &plan.files {
        repair_file(&directory.data, file).map_err(OfflineError::write(&directory.data.join(&file.name)))?;
    }
    if plan.settles_journals() {
        write_overlays(directory)?;
    }
    move_recovery_points(directory, plan)?;
    if plan.settles_journals() {
        remove_journals(directory)?;
    }
    for partition in &plan.partitions {
        let path = &partition.path;
        for (&base, segment) in &partition.segments {
            repair_segment(path, base, segment).map_err(OfflineError::write(&path.join(log_file_name(base))))?;
        }
        if let Some(base) = partition.new_segment {
            let file = path.join(log_file_name(base));
            step(&file)
                .and_then(|()| File::create(&file))
                .and_then(|file| file.sync_all())
                .and_then(|()| sync_dir(path))
                .map_err(OfflineError::write(&file))?;
        }
        for file in &partition.files {
            repair_file(path, file).map_err(OfflineError::write(&path.join(&file.name)))?;
        }
    }
    Ok(())
}

/// Writes what the journals hold to the segments, as the next start would; then their checkpoints are noted, and then the journals
/// go. In this order: until the last step the next start does all of it by itself.
fn write_overlays(directory: &Directory) -> Result<(), OfflineError> {
    for partition in &directory.partitions {
        for segment in partition.segments.values() {
            write_overlay(segment).map_err(OfflineError::write(&segment.path))?;
        }
        sync_dir(&partition.path).map_err(OfflineError::write(&partition.path))?;
    }
    Ok(())
}

/// Writes Kafka's checkpoint files: what the journals' checkpoints say, where the journals go, and how far logs that change are
/// sound. Before they change: a start in between then leaves in place what is damaged.
fn move_recovery_points(directory: &Directory, plan: &Plan) -> Result<(), OfflineError> {
    let mut moved = BTreeMap::new();
    for partition in &plan.partitions {
        let Some(offset) = partition.recovery_point else { continue };
        moved.insert(partition.name.as_str(), offset);
        sync_partition(partition).map_err(OfflineError::write(&partition.path))?;
    }
    // A folder that lies in no data directory has no checkpoint.
    let moves = !moved.is_empty() && (directory.whole || directory.is_data_dir);
    let names: &[&str] = match (plan.settles_journals(), moves) {
        (true, _) => &[RECOVERY_POINT_FILE, LOG_START_FILE],
        (false, true) => &[RECOVERY_POINT_FILE],
        (false, false) => return Ok(()),
    };
    for &name in names {
        let path = directory.data.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(OfflineError::read(&path)(error)),
        };
        // Damaged: of a single partition's data directory; what it says of the others is not for this repair.
        let Ok(mut checkpoint) = OffsetCheckpoint::parse(&text) else { continue };
        for partition in &directory.partitions {
            let Some(folder) = PartitionFolder::parse(&partition.name) else { continue };
            let offset = match (name, moved.get(partition.name.as_str())) {
                (RECOVERY_POINT_FILE, Some(&moved)) => moved,
                (RECOVERY_POINT_FILE, None) if plan.settles_journals() => partition.recovery_point,
                (RECOVERY_POINT_FILE, None) => continue,
                _ => partition.log_start,
            };
            let noted = checkpoint.offsets.entry((folder.topic.to_owned(), folder.index)).or_insert(offset);
            *noted = offset.max(*noted);
        }
        replace(&directory.data, name, checkpoint.encode().as_bytes()).map_err(OfflineError::write(&path))?;
    }
    // The checkpoints' names have to be durable before the journals go.
    sync_dir(&directory.data).map_err(OfflineError::write(&directory.data))
}

/// Syncs what a crash may have left in the page cache alone; indexes that are to be made anew go, so that no start believes them.
fn sync_partition(partition: &PartitionPlan) -> io::Result<()> {
    for (&base, segment) in &partition.segments {
        for (kind, _) in segment.indexes.iter().filter(|(kind, _)| *kind != FileKind::TransactionIndex) {
            remove(&partition.path.join(SegmentFile::new(base, *kind).name()))?;
        }
    }
    for entry in super::super::disk::list(&partition.path)? {
        if SegmentFile::parse(&entry.name).is_some_and(|file| file.state == FileState::Live) {
            File::open(partition.path.join(&entry.name))?.sync_all()?;
        }
    }
    sync_dir(&partition.path)
}

fn remove_journals(directory: &Directory) -> Result<(), OfflineError> {
    for journal in &directory.journals {
        // Renamed first: what is left of a directory that is half removed would be taken for a journal.
        let mut name = journal.clone().into_os_string();
        name.push(SETTLED_SUFFIX);
        let gone = PathBuf::from(name);
        let moved = if gone.exists() { fs::remove_dir_all(&gone) } else { Ok(()) };
        moved.and_then(|()| step(journal)).and_then(|()| fs::rename(journal, &gone)).map_err(OfflineError::write(journal))?;
    }
    sync_dir(&directory.data).map_err(OfflineError::write(&directory.data))?;
    for entry in super::super::disk::list(&directory.data).map_err(OfflineError::read(&directory.data))? {
        if entry.is_dir && entry.name.strip_suffix(SETTLED_SUFFIX).is_some_and(is_directory_name) {
            let path = directory.data.join(&entry.name);
            fs::remove_dir_all(&path).map_err(OfflineError::write(&path))?;
        }
    }
    Ok(())
}

fn write_overlay(segment: &Segment) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&segment.path)?;
    for (position, bytes) in segment.overlay.extents() {
        step(&segment.path)?;
        file.write_all_at(bytes, position)?;
    }
    // What the file has already may never have been synced.
    file.sync_all()
}

fn repair_segment(folder: &Path, base: Offset, plan: &SegmentPlan) -> io::Result<()> {
    let name = log_file_name(base);
    let path = folder.join(&name);
    let judgement = &plan.judgement;
    if judgement.is_damaged() || plan.removed {
        let mut file = File::open(&path)?;
        for cut in judgement.cuts.iter().filter(|cut| !cut.zeros) {
            keep_copy(folder, &format!("{name}.{}", cut.range.start), &mut file, cut.range.clone())?;
        }
        for kind in [FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::TransactionIndex] {
            // Aborted transactions are listed by offset, and may be known from this list alone.
            if kind != FileKind::TransactionIndex || plan.removed {
                remove(&folder.join(SegmentFile::new(base, kind).name()))?;
            }
        }
        sync_dir(folder)?;
        let kept_bytes: u64 = judgement.kept.iter().map(|batch| u64::from(batch.size)).sum();
        if plan.removed {
            remove(&path)?;
        } else if judgement.kept.last().map_or(0, super::judge::Sound::end) == kept_bytes
            && !judgement.kept.iter().any(|batch| batch.restored)
        {
            // All that is kept stands at the front.
            let file = OpenOptions::new().write(true).open(&path)?;
            step(&path)?;
            file.set_len(kept_bytes)?;
            file.sync_all()?;
        } else {
            rewrite(folder, base, &mut file, plan)?;
        }
        sync_dir(folder)?;
    }
    for (kind, content) in &plan.indexes {
        let name = SegmentFile::new(base, *kind).name();
        if content.is_empty() && *kind == FileKind::TransactionIndex {
            remove(&folder.join(&name))?;
        } else {
            replace(folder, &name, content)?;
        }
    }
    sync_dir(folder)
}

/// Writes what is kept of a segment to a new file, which then takes its place.
fn rewrite(folder: &Path, base: Offset, file: &mut File, plan: &SegmentPlan) -> io::Result<()> {
    let segment = SegmentFile::new(base, FileKind::Log);
    let new_path = folder.join(segment.name() + UNFINISHED_SUFFIX);
    let mut new = io::BufWriter::with_capacity(1 << 20, File::create(&new_path)?);
    for batch in &plan.judgement.kept {
        file.seek(SeekFrom::Start(batch.position))?;
        let mut rest = u64::from(batch.size);
        if batch.restored {
            // The first field of a batch; its CRC does not cover it.
            new.write_all(&batch.base_offset.0.to_be_bytes())?;
            file.seek_relative(8)?;
            rest -= 8;
        }
        copy(file, &mut new, rest)?;
    }
    new.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    step(&new_path)?;
    fs::rename(&new_path, folder.join(segment.name()))
}

/// Copies a part of `file` that is about to go to `<name>.cut`, with a number where another copy has that name; unless a run that
/// was interrupted did it already.
fn keep_copy(folder: &Path, name: &str, file: &mut File, range: Range<u64>) -> io::Result<()> {
    for number in 0_u64.. {
        let path = folder.join(if number == 0 { format!("{name}.cut") } else { format!("{name}.{number}.cut") });
        match File::open(&path) {
            Ok(other) if is_copy(&other, file, &range)? => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let unfinished = folder.join(format!("{name}.cut{UNFINISHED_SUFFIX}"));
                let mut copied = File::create(&unfinished)?;
                file.seek(SeekFrom::Start(range.start))?;
                copy(file, &mut copied, range.end - range.start)?;
                copied.sync_all()?;
                step(&path)?;
                return fs::rename(&unfinished, &path);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a file holds exactly this part of another.
fn is_copy(copied: &File, file: &File, range: &Range<u64>) -> io::Result<bool> {
    let len = range.end - range.start;
    if copied.metadata()?.len() != len {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    let mut at = 0;
    while at < len {
        let piece = COMPARE_BYTES.min((len - at) as usize);
        copied.read_exact_at(&mut a[..piece], at)?;
        file.read_exact_at(&mut b[..piece], range.start + at)?;
        if a[..piece] != b[..piece] {
            return Ok(false);
        }
        at += piece as u64;
    }
    Ok(true)
}

fn copy(from: &mut File, to: &mut dyn Write, bytes: u64) -> io::Result<()> {
    let copied = io::copy(&mut from.take(bytes), &mut &mut *to)?;
    if copied == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Puts a damaged file aside, and a new one in its place where there is one.
fn repair_file(folder: &Path, plan: &FilePlan) -> io::Result<()> {
    let path = folder.join(&plan.name);
    let mut file = File::open(&path)?;
    let len = file.metadata()?.len();
    keep_copy(folder, &plan.name, &mut file, 0..len)?;
    sync_dir(folder)?;
    match &plan.content {
        Some(content) => replace(folder, &plan.name, content),
        None => remove(&path),
    }?;
    sync_dir(folder)
}

/// Puts a whole new file in the place of another.
fn replace(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let new_path = folder.join(format!("{name}{UNFINISHED_SUFFIX}"));
    let mut new = File::create(&new_path)?;
    new.write_all(content)?;
    new.sync_all()?;
    step(&folder.join(name))?;
    fs::rename(&new_path, folder.join(name))
}

fn remove(path: &Path) -> io::Result<()> {
    step(path)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    super::tests::synced(path);
    File::open(path)?.sync_all()
}
