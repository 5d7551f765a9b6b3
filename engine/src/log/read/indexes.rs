//! The indexes of sealed segments, as reads use them: loaded when they are asked for, within a bound of memory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::{ReadError, Reader};
use crate::disk::{OpenOptions, Shortage};
use crate::log::published::Segment;
use crate::memory::Buffer;
use crate::segment::index::{self, IndexEntry, TimeEntry};
use crate::types::{Offset, TimestampMs};

/// What the indexes of sealed segments may take in memory, per core.
const INDEX_CACHE_BYTES: usize = 32 << 20;
/// How much is read of an index of which only the end is wanted: two megabytes of the log, by Kafka's interval.
const INDEX_END_BYTES: u64 = 4 << 10;

impl Reader {
    pub(super) async fn floor(&self, segment: &Arc<Segment>, offset: Offset) -> Result<Option<IndexEntry>, ReadError> {
        if let Some(live) = segment.live_index.load().as_ref() {
            return Ok(live.floor(offset));
        }
        let loaded = self.loaded_index(segment).await?;
        let at = loaded.offsets.partition_point(|entry| entry.last_offset <= offset);
        Ok(at.checked_sub(1).map(|at| loaded.offsets[at]))
    }

    /// As [`Self::floor`], for a sealed segment and an offset near its end: reads the end of its index alone, where that will do, and
    /// keeps nothing.
    pub(super) async fn floor_near_end(&self, segment: &Arc<Segment>, offset: Offset) -> Option<IndexEntry> {
        if self.indexes.get(segment.id).is_none()
            && let Ok(bytes) = self.index_end(segment).await
            && let Ok(entries) = index::parse_offset_index(&bytes, segment.base_offset, segment.file_bytes())
            && let Some(found) = entries.iter().rev().find(|entry| entry.last_offset <= offset)
        {
            return Some(*found);
        }
        self.floor(segment, offset).await.ok().flatten()
    }

    async fn index_end(&self, segment: &Arc<Segment>) -> io::Result<Vec<u8>> {
        let file = self.disk.open(&segment.path.with_extension("index"), OpenOptions::READ).await?;
        let bytes = file.len_bytes().await?;
        let bytes = bytes - bytes % index::OFFSET_ENTRY_BYTES as u64;
        let len = bytes.min(INDEX_END_BYTES);
        let (buffer, read) = file.read_at(Buffer::standalone(len as usize)?, len as usize, bytes - len).await?;
        Ok(buffer[..read].to_vec())
    }

    /// The entry before one that does not fit the batch it points to, or whose batch is damaged. Reads do without that one from now
    /// on, as long as the index stays in memory.
    pub(super) async fn floor_below(&self, segment: &Arc<Segment>, wrong: &IndexEntry) -> Result<Option<IndexEntry>, ReadError> {
        if let Some(live) = segment.live_index.load().as_ref() {
            return Ok(live.floor(Offset(wrong.last_offset.0 - 1)));
        }
        let loaded = self.loaded_index(segment).await?;
        let at = loaded.offsets.partition_point(|entry| entry.last_offset < wrong.last_offset);
        let before = at.checked_sub(1).map(|at| loaded.offsets[at]);
        if loaded.offsets.get(at) == Some(wrong) {
            tracing::warn!(
                segment = %segment.path.display(), offset = wrong.last_offset.0, position = wrong.position,
                "an index entry does not fit its batch, or that is damaged: it is left out"
            );
            let mut without = LoadedIndex { offsets: loaded.offsets.clone(), times: loaded.times.clone() };
            without.offsets.remove(at);
            self.indexes.put(segment.id, Rc::new(without));
        }
        Ok(before)
    }

    pub(super) async fn floor_time(
        &self,
        segment: &Arc<Segment>,
        timestamp: TimestampMs,
    ) -> Result<Option<TimeEntry>, ReadError> {
        if let Some(live) = segment.live_index.load().as_ref() {
            return Ok(live.floor_time(timestamp));
        }
        let loaded = self.loaded_index(segment).await?;
        let at = loaded.times.partition_point(|entry| entry.timestamp < timestamp);
        Ok(at.checked_sub(1).map(|at| loaded.times[at]))
    }

    /// The entry before one that does not fit its batch; as [`Self::floor_below`].
    pub(super) async fn floor_time_below(
        &self,
        segment: &Arc<Segment>,
        wrong: &TimeEntry,
    ) -> Result<Option<TimeEntry>, ReadError> {
        if let Some(live) = segment.live_index.load().as_ref() {
            return Ok(live.floor_time(wrong.timestamp));
        }
        let loaded = self.loaded_index(segment).await?;
        let at = loaded.times.partition_point(|entry| entry.timestamp < wrong.timestamp);
        let before = at.checked_sub(1).map(|at| loaded.times[at]);
        if loaded.times.get(at) == Some(wrong) {
            tracing::warn!(
                segment = %segment.path.display(), timestamp = wrong.timestamp.0, offset = wrong.offset.0,
                "an entry of a time index does not fit its batch, or that is damaged: it is left out"
            );
            let mut without = LoadedIndex { offsets: loaded.offsets.clone(), times: loaded.times.clone() };
            without.times.remove(at);
            self.indexes.put(segment.id, Rc::new(without));
        }
        Ok(before)
    }

    async fn loaded_index(&self, segment: &Arc<Segment>) -> Result<Rc<LoadedIndex>, ReadError> {
        if let Some(found) = self.indexes.get(segment.id) {
            return Ok(found);
        }
        // A damaged or missing index makes a read slower, not wrong: it walks from the start.
        let (offsets, times) = (self.index_bytes(segment, "index").await?, self.index_bytes(segment, "timeindex").await?);
        let parse_offsets = |bytes: &Vec<u8>| index::parse_offset_index(bytes, segment.base_offset, segment.file_bytes()).ok();
        let parse_times = |bytes: &Vec<u8>| index::parse_time_index(bytes, segment.base_offset).ok();
        let loaded = Rc::new(LoadedIndex {
            offsets: offsets.as_ref().and_then(parse_offsets).unwrap_or_default(),
            times: times.as_ref().and_then(parse_times).unwrap_or_default(),
        });
        // What could not be read is not taken for empty from now on.
        if offsets.is_some() && times.is_some() {
            self.indexes.put(segment.id, loaded.clone());
        }
        Ok(loaded)
    }

    /// The bytes of an index, none where it is not there; `None` where it cannot be read.
    ///
    /// # Errors
    /// A shortage, which passes: to walk instead may be long, and ends at damage that the index leads past.
    async fn index_bytes(&self, segment: &Segment, suffix: &str) -> Result<Option<Vec<u8>>, ReadError> {
        match crate::disk::read_file(&self.disk, &segment.path.with_extension(suffix)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(Vec::new())),
            Err(error) if Shortage::of(&error).is_some() => Err(error.into()),
            Err(_) => Ok(None),
        }
    }
}

struct LoadedIndex {
    offsets: Vec<IndexEntry>,
    times: Vec<TimeEntry>,
}

impl LoadedIndex {
    fn bytes(&self) -> usize {
        64 + self.offsets.len() * size_of::<IndexEntry>() + self.times.len() * size_of::<TimeEntry>()
    }
}

/// The indexes of sealed segments that were looked into lately, within a bound of memory.
#[derive(Default)]
pub(super) struct IndexCache {
    uses: Cell<u64>,
    bytes: Cell<usize>,
    loaded: RefCell<HashMap<u64, (Rc<LoadedIndex>, u64)>>,
}

impl IndexCache {
    fn get(&self, id: u64) -> Option<Rc<LoadedIndex>> {
        self.uses.set(self.uses.get() + 1);
        self.loaded.borrow_mut().get_mut(&id).map(|(index, used)| {
            *used = self.uses.get();
            index.clone()
        })
    }

    fn put(&self, id: u64, index: Rc<LoadedIndex>) {
        let mut loaded = self.loaded.borrow_mut();
        self.bytes.set(self.bytes.get() + index.bytes());
        if let Some((before, _)) = loaded.insert(id, (index, self.uses.get())) {
            self.bytes.set(self.bytes.get() - before.bytes());
        }
        while self.bytes.get() > INDEX_CACHE_BYTES && loaded.len() > 1 {
            let Some(oldest) = loaded.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id) else { break };
            if let Some((index, _)) = loaded.remove(&oldest) {
                self.bytes.set(self.bytes.get() - index.bytes());
            }
        }
    }
}
