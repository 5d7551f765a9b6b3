//! New files take the place of old ones. The names and steps are Kafka's; what is durable between them is
//! ours, so that after any crash the log is the old one or the new one:
//!
//! 1. `.cleaned`: log and indexes are written and synced ([`super::clean`]), then their names. Until then it can be thrown away
//!    ([`discard`]); afterwards only the next start may do that.
//! 2. They are renamed to `.swap`, and the names synced. From here on the new ones count.
//! 3. The old segments but the first are renamed to `.deleted`, and the names synced.
//! 4. `.swap` is renamed to the names in use, in the place of the first old segment; readers see it; the names are synced.
//! 5. What is `.deleted` is removed.
//!
//! At start ([`finish`]): where a `.cleaned` is left, step 2 was not over, and what was made of these segments goes, `.cleaned`
//! last, durably, so that another crash does not change that. Else what is `.swap` is finished: the segments that it covers go,
//! and it gets its name. `.deleted` goes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::disk::{Create, DirEntry, Disk, OpenOptions};
use crate::log::Log;
use crate::log::published::{Segment, Standing};
use crate::log::scan::{Scanner, Stop};
use crate::memory::Pool;
use crate::segment::names::{FileKind, FileState, SegmentFile};
use crate::types::Offset;

/// The files of a segment: the log is the last one to get its name.
pub(crate) const KINDS: [FileKind; 4] = [FileKind::TransactionIndex, FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::Log];

/// The path of a segment's file.
pub(crate) fn path_of(directory: &Path, base_offset: Offset, kind: FileKind, state: FileState) -> PathBuf {
    directory.join(SegmentFile { base_offset, kind, state }.name())
}

/// Why a swap did not come to its end.
#[derive(Debug)]
pub(crate) enum SwapError {
    /// The log is whole, the old one or the new one, but which of the names last nobody knows: the next start decides. Until
    /// then nothing is removed, and nothing cleaned.
    Undecided(io::Error),
    /// The names on the disk are somewhere in between: the next start finishes it.
    Unfinished(io::Error),
}

/// Steps 2 to 5, with the partition's files locked. `kinds` are the files that were made.
pub(crate) async fn swap(
    disk: &Rc<dyn Disk>,
    log: &Rc<RefCell<Log>>,
    old: &[Arc<Segment>],
    new: Arc<Segment>,
    kinds: &[FileKind],
) -> Result<(), SwapError> {
    let directory = log.borrow().directory().clone();
    let path = |base, kind, state| path_of(&directory, base, kind, state);
    let base = new.base_offset;
    for &kind in kinds {
        let renamed = disk.rename(&path(base, kind, FileState::Cleaned), &path(base, kind, FileState::Swap)).await;
        renamed.map_err(SwapError::Undecided)?;
    }
    disk.sync_dir(&directory).await.map_err(SwapError::Undecided)?;
    for segment in old {
        segment.set_standing(Standing::Replacing);
    }
    if let Err(error) = rename_all(disk, &directory, old, base, kinds).await {
        for segment in old {
            segment.set_standing(Standing::Lost);
        }
        log.borrow().published().tell_replaced();
        return Err(SwapError::Unfinished(error));
    }
    log.borrow_mut().replace_segments(old, new);
    disk.sync_dir(&directory).await.map_err(SwapError::Undecided)?;
    for segment in &old[1..] {
        for kind in KINDS {
            // Whatever stays is removed by the next start.
            let _ = disk.remove_file(&path(segment.base_offset, kind, FileState::Deleted)).await;
        }
    }
    Ok(())
}

/// Steps 3 and 4, up to the names in use.
async fn rename_all(
    disk: &Rc<dyn Disk>,
    directory: &Path,
    old: &[Arc<Segment>],
    base: Offset,
    kinds: &[FileKind],
) -> io::Result<()> {
    let path = |base, kind, state| path_of(directory, base, kind, state);
    for segment in &old[1..] {
        for kind in KINDS {
            let from = path(segment.base_offset, kind, FileState::Live);
            match disk.rename(&from, &path(segment.base_offset, kind, FileState::Deleted)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    if old.len() > 1 {
        disk.sync_dir(directory).await?;
    }
    for &kind in kinds {
        disk.rename(&path(base, kind, FileState::Swap), &path(base, kind, FileState::Live)).await?;
    }
    Ok(())
}

/// Removes what was made of a segment and is not used, as far as that can be done. Nothing of it has become `.swap`.
pub(crate) async fn discard(disk: &Rc<dyn Disk>, directory: &Path, base: Offset) {
    for kind in KINDS {
        let _ = disk.remove_file(&path_of(directory, base, kind, FileState::Cleaned)).await;
    }
}

/// Ends what a crash interrupted. Returns whether names changed; all of that is synced.
///
/// # Errors
/// Those of the disk.
pub(crate) async fn finish(disk: &Rc<dyn Disk>, pool: &Pool, directory: &Path, names: &[DirEntry]) -> io::Result<bool> {
    let files: Vec<SegmentFile> = names.iter().filter_map(|entry| SegmentFile::parse(&entry.name)).collect();
    let in_state = |state| files.iter().filter(move |file| file.state == state);
    let unfinished: BTreeSet<Offset> = in_state(FileState::Cleaned).map(|file| file.base_offset).collect();
    let (unused, mut to_rename): (Vec<SegmentFile>, Vec<SegmentFile>) =
        in_state(FileState::Swap).copied().partition(|file| unfinished.contains(&file.base_offset));
    let mut gone: BTreeSet<SegmentFile> = in_state(FileState::Cleaned).chain(in_state(FileState::Deleted)).copied().collect();
    for file in &to_rename {
        if file.kind == FileKind::Log {
            let end = end_of(disk, pool, &directory.join(file.name()), file.base_offset).await?;
            let covered = |old: &&SegmentFile| old.base_offset > file.base_offset && old.base_offset < end;
            gone.extend(in_state(FileState::Live).filter(|old| old.kind != FileKind::ProducerSnapshot).filter(covered));
        }
    }
    if gone.is_empty() && to_rename.is_empty() {
        return Ok(false);
    }
    // Should another crash come: a `.swap` that is not used is gone before the `.cleaned` that says so, and what is covered
    // before what covers it has its name.
    remove(disk, directory, unused).await?;
    remove(disk, directory, gone).await?;
    to_rename.sort_by_key(|file| KINDS.iter().position(|kind| *kind == file.kind));
    for file in &to_rename {
        tracing::info!(file = %directory.join(file.name()).display(), "a compaction that a crash interrupted is finished");
        disk.rename(&directory.join(file.name()), &directory.join(file.with_state(FileState::Live).name())).await?;
    }
    disk.sync_dir(directory).await?;
    Ok(true)
}

/// Removes files, durably.
async fn remove(disk: &Rc<dyn Disk>, directory: &Path, files: impl IntoIterator<Item = SegmentFile>) -> io::Result<()> {
    let mut files = files.into_iter().peekable();
    if files.peek().is_none() {
        return Ok(());
    }
    for file in files {
        disk.remove_file(&directory.join(file.name())).await?;
    }
    disk.sync_dir(directory).await
}

/// The offset after the last batch of a segment's file, which was synced before it got its name.
async fn end_of(disk: &Rc<dyn Disk>, pool: &Pool, path: &Path, base: Offset) -> io::Result<Offset> {
    let file = disk.open(path, OpenOptions { create: Create::Never, write: false, direct: true }).await?;
    let bytes = file.len_bytes().await?;
    let mut scanner = Scanner::new(file, pool, bytes, 0, base, false);
    loop {
        match scanner.next().await? {
            Ok(_) => {}
            Err(Stop::End) => return Ok(scanner.next_offset()),
            Err(Stop::Damage(reason)) => {
                let damage = format!("{}: damage at position {}: {reason}", path.display(), scanner.position());
                let advice = "compaction made it, a crash came before it was in use, and nothing was changed. Bring the partition's \
                              folder back from a backup. Or keep a copy of it, remove the .swap, .index and .timeindex files of \
                              this offset, take the suffix .deleted off what has it, and have `ringlog log repair` make the \
                              indexes anew: the log is as before, if all its segments are still there";
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{damage} ({advice})")));
            }
        }
    }
}

#[cfg(test)]
mod tests;
