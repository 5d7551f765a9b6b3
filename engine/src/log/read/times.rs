//! Offsets by time: the first record of a time or later, and the newest one (ListOffsets).

use std::sync::Arc;

use super::walk::Walk;
use super::{ReadError, Reader};
use crate::batch::{self, BatchHeader, BatchView};
use crate::log::published::{Published, Segment, View};
use crate::types::{Offset, TimestampMs};

/// What the records of one batch may take when they are looked into.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

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
            if segment.max_timestamp().0 < timestamp || segment.end_offset() <= log_start {
                continue;
            }
            let after = self.floor_time(segment, timestamp).await?.map(|entry| entry.offset);
            let floor = match after {
                Some(offset) => self.floor(segment, offset).await?,
                None => None,
            };
            let mut walk = Walk::new(self, view, segment, floor, visible);
            while let Some((position, header)) = walk.next().await? {
                if header.max_timestamp < timestamp || header.last_offset() < log_start {
                    continue;
                }
                let wanted = |time: TimestampMs, offset: Offset| time >= timestamp && offset >= log_start;
                if let Some(found) = self.find_record(view, segment, position, &header, wanted).await? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
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
