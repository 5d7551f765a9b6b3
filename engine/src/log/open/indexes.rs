//! The index files of a segment, at the start of its log: what of them is believed, and what is written anew. For [`super`].

use std::io;
use std::path::Path;

use super::Opening;
use crate::disk::{OpenOptions, Payload};
use crate::log::LiveSegment;
use crate::log::published::LiveIndex;
use crate::segment::index::{self, IndexEntry, TimeEntry};
use crate::types::Offset;

impl Opening<'_> {
    /// The index entries of a segment that lie below `upto`, if its index files are sound; else none, and it is rebuilt.
    ///
    /// Index files are synced when their segment is full, so after a crash some entries may be missing at the end: no entry is
    /// believed that lies behind the last one of the other file. Files with entries that are not believed are removed, since
    /// what they say of batches that are lost must not mix with what is written next.
    ///
    /// With the last time that the file names, where that is not among them.
    pub(super) async fn load_indexes(
        &mut self,
        base: Offset,
        path: &Path,
        upto: Offset,
        file_bytes: u64,
    ) -> io::Result<(LiveIndex, Option<TimeEntry>)> {
        let (live, whole, left_out) = self.read_indexes(base, path, upto, file_bytes).await?;
        if !whole {
            self.remove_indexes(path).await?;
        }
        Ok((live, left_out))
    }

    /// Writes a recovered segment's index files and syncs them; their names are synced with the directory.
    pub(super) async fn save_indexes(&mut self, base: Offset, path: &Path, live: &mut LiveSegment) -> io::Result<()> {
        let (offsets, times) = live.index.encode(base);
        for (bytes, suffix) in [(offsets, "index"), (times, "timeindex")] {
            let file = self.disk.open(&path.with_extension(suffix), OpenOptions::WRITE).await?;
            file.set_len(0).await?;
            file.write_at(Payload::Bytes(bytes), 0).await?;
            file.sync_data().await?;
        }
        live.indexes_synced = live.index_counts();
        (live.offsets_saved, live.times_saved) = live.indexes_synced;
        self.changed = true;
        Ok(())
    }

    pub(super) async fn remove_indexes(&mut self, path: &Path) -> io::Result<()> {
        for suffix in ["index", "timeindex"] {
            match self.disk.remove_file(&path.with_extension(suffix)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.changed = true,
            }
        }
        Ok(())
    }

    /// The entries that are believed, and whether these are all that the files have.
    async fn read_indexes(
        &self,
        base: Offset,
        path: &Path,
        upto: Offset,
        file_bytes: u64,
    ) -> io::Result<(LiveIndex, bool, Option<TimeEntry>)> {
        let live = LiveIndex::default();
        let offsets = self.read_if_there(&path.with_extension("index")).await?;
        let times = self.read_if_there(&path.with_extension("timeindex")).await?;
        let (offsets, times) = match (offsets, times) {
            (Some(offsets), Some(times)) => (offsets, times),
            (None, None) => return Ok((live, true, None)),
            _ => return Ok((live, false, None)),
        };
        let parsed = (index::parse_offset_index(&offsets, base, file_bytes), index::parse_time_index(&times, base));
        let (Ok(offsets), Ok(times)) = parsed else {
            tracing::warn!(segment = %path.display(), "an index is damaged and is built anew");
            return Ok((live, false, None));
        };
        // What was written and lost is zeros: one such entry is in order, but none names a segment's first batch.
        if offsets.first().is_some_and(|entry| entry.position == 0) {
            tracing::warn!(segment = %path.display(), "an index was lost in a crash and is built anew");
            return Ok((live, false, None));
        }
        let have = (offsets.len(), times.len());
        let newest = times.last().copied();
        let timed = newest.map(|entry| entry.offset);
        let believed = |entry: &IndexEntry| {
            entry.last_offset < upto && (self.params.clean || timed.is_some_and(|timed| entry.last_offset <= timed))
        };
        for entry in offsets.into_iter().take_while(believed) {
            live.offsets.push(entry);
        }
        let last = last_entry(&live).map(|entry| entry.last_offset);
        for entry in times.into_iter().take_while(|entry| last.is_some_and(|last| entry.offset <= last)) {
            live.times.push(entry);
        }
        let whole = self.params.clean || have == (live.offsets.count(), live.times.count());
        let left_out = newest.filter(|_| live.offsets.count() > 0 && have.1 > live.times.count());
        Ok((live, whole, left_out))
    }
}

pub(super) fn last_entry(index: &LiveIndex) -> Option<IndexEntry> {
    index.offsets.count().checked_sub(1).and_then(|at| index.offsets.get(at).copied())
}
