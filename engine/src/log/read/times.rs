//! Offsets by time: the first record of a time or later, and the newest one (ListOffsets).

use std::io;
use std::sync::Arc;

use super::walk::Walk;
use super::{ReadError, Reader};
use crate::batch::{self, BatchHeader, BatchView};
use crate::disk::cache::Purpose;
use crate::log::published::{Published, Segment, Standing, View};
use crate::log::scan::{Scanner, Stop, is_time_of};
use crate::segment::index::TimeEntry;
use crate::types::{Offset, TimestampMs};

/// What the records of one batch may take when they are looked into.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// What a search through a segment came to.
enum Search {
    Found(TimestampMs, Offset),
    Nothing,
    /// This entry of the time index does not fit its batch, or what is visible ends before that.
    Misled(TimeEntry),
}

impl Reader {
    /// The first visible record whose timestamp is at least `timestamp`: its timestamp and offset (ListOffsets, KIP-79).
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn offset_for_timestamp(
        &self,
        partition: &Published,
        timestamp: TimestampMs,
    ) -> Result<Option<(TimestampMs, Offset)>, ReadError> {
        loop {
            let (view, visible) = view_now(partition);
            let found = self.offset_for_timestamp_in(partition, &view, &visible, timestamp).await;
            if !self.is_replaced(partition, &view, 0..view.segments.len()).await? {
                return found;
            }
        }
    }

    async fn offset_for_timestamp_in(
        &self,
        partition: &Published,
        view: &View,
        visible: &[u64],
        timestamp: TimestampMs,
    ) -> Result<Option<(TimestampMs, Offset)>, ReadError> {
        let log_start = partition.log_start();
        for (segment, &visible) in view.segments.iter().zip(visible) {
            if segment.end_offset() <= log_start {
                continue;
            }
            if segment.max_timestamp().0 < timestamp {
                // IndexesOnlyMakeItFast: it is left out for what its batches have, not for what an index says of them.
                self.try_to_hold(segment).await;
                if segment.max_timestamp().0 < timestamp {
                    continue;
                }
            }
            let mut entry = self.floor_time(segment, timestamp).await?;
            loop {
                match self.search(view, segment, visible, entry, timestamp, log_start).await? {
                    Search::Found(time, offset) => return Ok(Some((time, offset))),
                    Search::Nothing => break,
                    Search::Misled(wrong) => entry = self.floor_time_below(segment, &wrong).await?,
                }
            }
        }
        Ok(None)
    }

    /// Looks through a segment behind what `entry` says is older than `timestamp`.
    async fn search(
        &self,
        view: &View,
        segment: &Arc<Segment>,
        visible: u64,
        entry: Option<TimeEntry>,
        timestamp: TimestampMs,
        log_start: Offset,
    ) -> Result<Search, ReadError> {
        let floor = match &entry {
            Some(entry) => self.floor(segment, entry.offset).await?,
            None => None,
        };
        let mut walk = Walk::new(self, view, segment, floor, visible);
        // A time index has no checksum: an entry leads past nothing before its batch has said the same.
        let mut unconfirmed = entry;
        loop {
            let found = match (walk.next().await, unconfirmed) {
                // What comes before its batch may be what is damaged.
                (Ok(None) | Err(ReadError::Damaged { .. }), Some(entry)) => return Ok(Search::Misled(entry)),
                (found, _) => found?,
            };
            let Some((position, header)) = found else { return Ok(Search::Nothing) };
            if let Some(entry) = unconfirmed {
                if header.last_offset() < entry.offset && header.max_timestamp <= entry.timestamp {
                    continue;
                }
                if !is_time_of(&entry, &header) {
                    return Ok(Search::Misled(entry));
                }
                unconfirmed = None;
            }
            if header.max_timestamp < timestamp || header.last_offset() < log_start {
                continue;
            }
            let wanted = |time: TimestampMs, offset: Offset| time >= timestamp && offset >= log_start;
            if let Some((time, offset)) = self.find_record(view, segment, position, &header, wanted).await? {
                return Ok(Search::Found(time, offset));
            }
        }
    }

    /// [`Self::hold_max_timestamp`], for searches: what cannot be read keeps nobody from what can.
    async fn try_to_hold(&self, segment: &Arc<Segment>) {
        if let Err(error) = self.hold_max_timestamp(segment).await {
            tracing::debug!(segment = %segment.path.display(), %error, "its largest timestamp is what its time index says");
        }
    }

    /// Makes sure that a segment's largest timestamp is that of its batches. Where its time index says another than the batch that this
    /// names, all of the segment is read; what is damaged there does not count. Costs nothing the second time.
    ///
    /// # Errors
    /// Those of the disk, and that compaction has put another segment in its place: then nothing is known.
    pub async fn hold_max_timestamp(&self, segment: &Arc<Segment>) -> io::Result<()> {
        if !segment.is_max_timestamp_claimed() {
            return Ok(());
        }
        let (timestamp, offset) = segment.max_timestamp();
        let claim = TimeEntry { timestamp, offset };
        let is_right = timestamp != TimestampMs::NONE
            && match self.is_time_right(segment, &claim).await {
                // A batch that the disk does not give does not speak against it; what else went wrong may be over the next time.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => true,
                result => result?,
            };
        let newest = if is_right { claim } else { self.newest_of(segment).await?.unwrap_or(claim) };
        if segment.standing() != Standing::Current {
            return Err(io::ErrorKind::NotFound.into());
        }
        if newest != claim {
            tracing::warn!(
                segment = %segment.path.display(), said = timestamp.0, is = newest.timestamp.0,
                "a time index does not say its segment's largest timestamp: `ringlog log repair` makes it anew"
            );
        }
        segment.confirm_max_timestamp(newest.timestamp, newest.offset);
        Ok(())
    }

    /// Whether the batch that an entry names has its timestamp.
    async fn is_time_right(&self, segment: &Arc<Segment>, entry: &TimeEntry) -> io::Result<bool> {
        let floor = self.floor_near_end(segment, entry.offset).await;
        self.scanner(segment, floor.map_or(0, |floor| floor.position)).await?.confirms(entry).await
    }

    /// The largest timestamp of a segment's sound batches.
    async fn newest_of(&self, segment: &Arc<Segment>) -> io::Result<Option<TimeEntry>> {
        let mut scanner = self.scanner(segment, 0).await?;
        let mut newest: Option<TimeEntry> = None;
        loop {
            match scanner.next().await? {
                Ok((header, _)) => {
                    let is_newer = newest.is_none_or(|newest| header.max_timestamp > newest.timestamp);
                    if is_newer && header.max_timestamp != TimestampMs::NONE {
                        newest = Some(TimeEntry { timestamp: header.max_timestamp, offset: header.last_offset() });
                    }
                }
                Err(Stop::End) => return Ok(newest),
                Err(Stop::Damage(_)) => {
                    segment.note_damage();
                    if !scanner.skip_damage().await? {
                        return Ok(newest);
                    }
                }
            }
        }
    }

    /// Reads a sealed segment from the disk, and checks what it reads.
    async fn scanner(&self, segment: &Arc<Segment>, position: u64) -> io::Result<Scanner> {
        let file = self.files.open(segment.id, Purpose::ReadDirect, &segment.path).await?;
        let scanner = Scanner::new(file, &self.pool, segment.file_bytes(), position, segment.base_offset, true);
        Ok(scanner.below(segment.end_offset()))
    }

    /// The visible record with the largest timestamp: its timestamp and offset (ListOffsets -3, KIP-734).
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn max_timestamp(&self, partition: &Published) -> Result<Option<(TimestampMs, Offset)>, ReadError> {
        loop {
            let (view, visible) = view_now(partition);
            let found = self.max_timestamp_in(partition, &view, &visible).await;
            if !self.is_replaced(partition, &view, 0..view.segments.len()).await? {
                return found;
            }
        }
    }

    async fn max_timestamp_in(
        &self,
        partition: &Published,
        view: &View,
        visible: &[u64],
    ) -> Result<Option<(TimestampMs, Offset)>, ReadError> {
        let high_watermark = partition.high_watermark();
        for segment in view.segments.iter().filter(|segment| segment.end_offset() > partition.log_start()) {
            self.try_to_hold(segment).await;
        }
        let mut newest: Vec<_> = view
            .segments
            .iter()
            .zip(visible)
            .map(|(segment, &visible)| (segment, visible, segment.max_timestamp()))
            .filter(|(_, _, (timestamp, offset))| *timestamp != TimestampMs::NONE && *offset < high_watermark)
            .collect();
        newest.sort_by_key(|(segment, _, (timestamp, _))| (std::cmp::Reverse(*timestamp), segment.base_offset));
        let mut best: Option<(TimestampMs, Offset)> = None;
        for (segment, visible, (timestamp, offset)) in newest {
            if best.is_some_and(|(found, _)| found >= timestamp) {
                break;
            }
            let Some((position, header)) = self.locate(view, segment, offset, visible).await? else { continue };
            let mut found = self.find_record(view, segment, position, &header, |time, _| time >= timestamp).await?;
            if found.is_none() {
                // Compaction has left that batch without a record.
                found = self.max_timestamp_of(view, segment, visible).await?;
            }
            best = best.into_iter().chain(found).max_by_key(|(time, offset)| (*time, std::cmp::Reverse(*offset)));
        }
        Ok(best)
    }

    /// The first record with the largest timestamp of a segment that may have batches without records.
    async fn max_timestamp_of(
        &self,
        view: &View,
        segment: &Arc<Segment>,
        visible: u64,
    ) -> Result<Option<(TimestampMs, Offset)>, ReadError> {
        let mut walk = Walk::new(self, view, segment, None, visible);
        let mut newest: Option<(u64, BatchHeader)> = None;
        while let Some((position, header)) = walk.next().await? {
            if header.record_count > 0 && newest.is_none_or(|(_, newest)| header.max_timestamp > newest.max_timestamp) {
                newest = Some((position, header));
            }
        }
        let Some((position, header)) = newest else { return Ok(None) };
        self.find_record(view, segment, position, &header, |time, _| time >= header.max_timestamp).await
    }

    async fn find_record(
        &self,
        view: &View,
        segment: &Arc<Segment>,
        position: u64,
        header: &BatchHeader,
        wanted: impl Fn(TimestampMs, Offset) -> bool,
    ) -> Result<Option<(TimestampMs, Offset)>, ReadError> {
        let bytes = self.read_bytes(view, segment, position, header.size_bytes(), false).await?;
        let damaged = |error: batch::BatchError| self.damaged(segment, position, &error.to_string());
        let batch = BatchView::new(&bytes).map_err(damaged)?;
        batch.check_crc().map_err(damaged)?;
        let records = batch.records(DECOMPRESSED_BYTES_MAX).map_err(damaged)?;
        for record in records.iter() {
            let record = record.map_err(damaged)?;
            let (time, offset) = (header.timestamp_of(&record), header.offset_of(&record));
            if wanted(time, offset) {
                return Ok(Some((time, offset)));
            }
        }
        Ok(None)
    }
}

/// The view, and how much of each of its segments is visible: of one moment, so that the view has all of it.
fn view_now(partition: &Published) -> (Arc<View>, Vec<u64>) {
    loop {
        let view = partition.view.load_full();
        let visible = view.segments.iter().map(|segment| segment.visible_bytes()).collect();
        if Arc::ptr_eq(&view, &partition.view.load()) {
            return (view, visible);
        }
    }
}
