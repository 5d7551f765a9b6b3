//! The metadata log: the partition `__cluster_metadata-0` of the engine, whose records the catalogue is made of. Committing is an
//! append that is answered when it is durable. Snapshots, named and framed as Kafka's (KIP-630), keep it short. Core 0 alone calls.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringlog_engine::batch::{self, BatchBuilder, BatchView};
use ringlog_engine::core::{Append, Core, Partition};
use ringlog_engine::disk::{self, Disk};
use ringlog_engine::log::append::{Acks, AppendError};
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::log::read::ReadError;
use ringlog_engine::types::{LeaderEpoch, Offset, PartitionId, TopicId};
use tokio::sync::oneshot;

use crate::broker::log_reader;
use crate::broker::reconcile::State;
use crate::catalogue::names::CLUSTER_METADATA;
use crate::catalogue::records::RecordError;
use crate::catalogue::{ApplyError, Catalogue, LogPoint, MetadataRecord};

/// The metadata log's partition: the topic id is Kafka's reserved one.
pub const PARTITION: PartitionId = PartitionId { topic: TopicId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), index: 0 };
/// The one term of a quorum of one.
pub const EPOCH: LeaderEpoch = LeaderEpoch(1);

/// The most bytes that one command's records may take.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How many bytes of a snapshot go into one batch.
const SNAPSHOT_BATCH_BYTES: usize = 1 << 20;
/// How much is read of the log at a time.
const READ_BYTES: u64 = 4 << 20;
/// What [`MetadataLog::snapshot_records`] is in the broker.
pub const SNAPSHOT_RECORDS: i64 = 10_000;
/// Kafka's control record types of a snapshot's first and last batch.
const SNAPSHOT_HEADER: i16 = 3;
const SNAPSHOT_FOOTER: i16 = 4;
const SNAPSHOT_SUFFIX: &str = ".checkpoint";

/// The metadata log of a running broker.
pub struct MetadataLog {
    /// Its partition.
    pub partition: Arc<Partition>,
    /// The end of the newest snapshot; 0 without one.
    pub snapshot_end: Offset,
    /// How many records follow a snapshot before the next one is written.
    pub(crate) snapshot_records: i64,
}

impl MetadataLog {
    /// The log of an open partition.
    pub(crate) fn new(partition: Arc<Partition>, snapshot_end: Offset, snapshot_records: i64) -> Self {
        Self { partition, snapshot_end, snapshot_records }
    }
}

/// Why records are not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// More than one batch may hold.
    #[error("the request changes too much at once: {0} bytes of metadata, at most {BATCH_BYTES_MAX}")]
    TooLarge(usize),
    /// The log does not take them.
    #[error("the metadata log: {0}")]
    Append(#[from] AppendError),
}

/// Why the catalogue cannot be read. The broker must not start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The disk failed, or bytes are damaged.
    #[error("the metadata log cannot be read: {0}")]
    Read(#[from] ReadError),
    /// A snapshot cannot be read.
    #[error("the metadata log cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The log does not begin where the snapshots end.
    #[error("the metadata log begins at offset {log_start}, and no sound snapshot in {path} reaches that far: restore it")]
    NoSnapshot {
        /// The log's first offset.
        log_start: Offset,
        /// The folder.
        path: PathBuf,
    },
    /// The log ends before a snapshot does.
    #[error("the metadata log ends at offset {log_end}, before its snapshot ({snapshot_end}): records are lost, restore them")]
    Lost {
        /// The snapshot's end.
        snapshot_end: Offset,
        /// The log's end.
        log_end: Offset,
    },
    /// A batch makes no sense.
    #[error("the metadata log at offset {0}: {1}")]
    Batch(Offset, String),
    /// A record is none.
    #[error("the metadata log at offset {0}: {1}")]
    Record(Offset, RecordError),
    /// A record does not fit.
    #[error("the metadata log does not make sense: {0}")]
    Apply(#[from] ApplyError),
}

/// The metadata log's own options: durable, kept until a snapshot covers it.
#[must_use]
pub fn log_config() -> LogConfig {
    LogConfig {
        flush_messages: 1,
        retention_ms: -1,
        retention_bytes: -1,
        segment_ms: i64::MAX,
        // Small segments, so that those before a snapshot can go.
        segment_bytes: 64 << 20,
        ..LogConfig::default()
    }
}

/// The folder of the metadata log.
#[must_use]
pub fn folder() -> String {
    format!("{CLUSTER_METADATA}-0")
}

/// Appends records as one batch, waits until they are durable and applies them to the catalogue.
///
/// # Errors
/// They are not, or perhaps not, in the log. After an error of the journal the next start knows.
///
/// # Panics
/// When the records do not fit the catalogue that they were planned on.
pub(crate) async fn commit(core: &Rc<Core>, state: &mut State, records: &[MetadataRecord]) -> Result<(), CommitError> {
    let mut builder = BatchBuilder::new(Offset(0)).leader_epoch(EPOCH);
    let now = core.env.now();
    for record in records {
        builder.push(now, None, Some(&record.encode()), &[]);
        if builder.size_bytes() > BATCH_BYTES_MAX {
            return Err(CommitError::TooLarge(builder.size_bytes()));
        }
    }
    let batch = Bytes::from(builder.build());
    let header = match BatchView::new(&batch) {
        Ok(view) => *view.header(),
        Err(error) => unreachable!("the batch was just made: {error}"),
    };
    let (reply, answer) = oneshot::channel();
    let append = Append { partition: PARTITION, batch, header, acks: Acks::All, reply: reply.into() };
    // The journal has little to itself for these: no command that takes room uses it up.
    if records.iter().any(|record| matches!(record, MetadataRecord::RemoveTopic { .. })) {
        core.append_to_make_room(append);
    } else {
        core.append(append);
    }
    let offline = |_| AppendError::Offline("the log is closed".to_owned());
    let appended = answer.await.map_err(offline)??;
    for (at, record) in (0..).zip(records) {
        let point = LogPoint { offset: appended.base_offset.plus(at), epoch: EPOCH };
        if let Err(error) = state.catalogue.apply(point, record) {
            panic!("a planned record does not fit the catalogue: {error}");
        }
    }
    state.published.store(Arc::new(state.catalogue.clone()));
    Ok(())
}

/// Whether what the catalogue says is what the next start will find: that there is nothing to change is an answer, too.
///
/// # Errors
/// The log is out of service, and it is not known what became of the last command that it refused.
pub(crate) fn check_in_service(core: &Core) -> Result<(), CommitError> {
    match core.with_log(PARTITION, |log| log.offline_reason().map(str::to_owned)).flatten() {
        Some(reason) => Err(AppendError::Offline(reason).into()),
        None => Ok(()),
    }
}

/// Reads the catalogue: the newest sound snapshot in `directory`, then the log behind it. Returns the snapshot's end with it.
///
/// # Errors
/// [`LoadError`]; without all records there is no catalogue.
pub async fn load(core: &Rc<Core>, partition: &Partition, directory: &Path) -> Result<(Catalogue, Offset), LoadError> {
    let log_start = partition.published.log_start();
    let (mut catalogue, snapshot_end) = load_snapshot(&core.disk, directory).await?;
    if snapshot_end < log_start {
        return Err(LoadError::NoSnapshot { log_start, path: directory.to_owned() });
    }
    let high_watermark = partition.published.high_watermark();
    if snapshot_end > high_watermark {
        return Err(LoadError::Lost { snapshot_end, log_end: high_watermark });
    }
    let mut next = snapshot_end;
    while next < high_watermark {
        let bytes = log_reader::read(core, &partition.published, next, READ_BYTES).await?;
        let before = next;
        let mut rest = &bytes[..];
        while let Ok(Some((batch, after))) = batch::split_first(rest) {
            let header = batch.header();
            for (offset, record) in read_records(&batch, next)? {
                if offset >= next {
                    catalogue.apply(LogPoint { offset, epoch: header.leader_epoch }, &record)?;
                }
            }
            next = header.next_offset();
            rest = after;
        }
        if next == before {
            return Err(LoadError::Batch(next, "no whole batch can be read there".to_owned()));
        }
    }
    Ok((catalogue, snapshot_end))
}

/// The records of a batch with their offsets; none of a control batch.
fn read_records(batch: &BatchView<'_>, at: Offset) -> Result<Vec<(Offset, MetadataRecord)>, LoadError> {
    let header = batch.header();
    let damaged = |error: batch::BatchError| LoadError::Batch(at, error.to_string());
    batch.check_crc().map_err(damaged)?;
    if header.attributes.is_control() {
        return Ok(Vec::new());
    }
    let records = batch.records(2 * BATCH_BYTES_MAX).map_err(damaged)?;
    let mut read = Vec::new();
    for record in &records {
        let record = record.map_err(damaged)?;
        let offset = header.offset_of(&record);
        let value = record.value.unwrap_or_default();
        read.push((offset, MetadataRecord::decode(value).map_err(|error| LoadError::Record(offset, error))?));
    }
    Ok(read)
}

/// Whether a snapshot is due. Not while deletions are unfinished: it would forget what was deleted.
pub(crate) fn wants_snapshot(state: &State) -> bool {
    let end = state.catalogue.applied().offset.plus(1);
    !state.behind && end.0 - state.metadata.snapshot_end.0 > state.metadata.snapshot_records
}

/// Writes a snapshot of all that is applied, then lets go of the log before it.
///
/// # Errors
/// Those of the disk; the log is then still there.
pub(crate) async fn write_snapshot(core: &Rc<Core>, state: &mut State) -> io::Result<()> {
    let at = state.catalogue.applied();
    let end = at.offset.plus(1);
    let Some(directory) = core.with_log(PARTITION, |log| log.directory().clone()) else {
        return Err(io::Error::other("the metadata log is closed"));
    };
    let path = directory.join(snapshot_name(end, at.epoch));
    disk::replace_file(&core.disk, &path, encode_snapshot(core, &state.catalogue)).await?;
    state.metadata.snapshot_end = end;
    if core.delete_records(PARTITION, end).await.is_err() {
        return Err(io::Error::other("the log before the snapshot could not be let go"));
    }
    for (other, _, name) in snapshots(&core.disk, &directory).await? {
        if other < end {
            core.disk.remove_file(&directory.join(name)).await?;
        }
    }
    tracing::info!(%end, "snapshot of the metadata log written");
    Ok(())
}

fn encode_snapshot(core: &Rc<Core>, catalogue: &Catalogue) -> Vec<u8> {
    let now = core.env.now();
    let control = |offset: i64, kind: i16, value: &[u8]| {
        let key = [0_i16.to_be_bytes(), kind.to_be_bytes()].concat();
        BatchBuilder::new(Offset(offset)).leader_epoch(EPOCH).control().record(now, Some(&key), Some(value)).build()
    };
    // Version, time of the last record in the log, no tagged fields.
    let header = [&0_i16.to_be_bytes()[..], &now.0.to_be_bytes(), &[0]].concat();
    let mut out = control(0, SNAPSHOT_HEADER, &header);
    let mut next = 1;
    let mut builder = BatchBuilder::new(Offset(next)).leader_epoch(EPOCH);
    for record in catalogue.snapshot() {
        builder.push(now, None, Some(&record.encode()), &[]);
        if builder.size_bytes() > SNAPSHOT_BATCH_BYTES {
            next += i64::from(builder.record_count());
            let full = std::mem::replace(&mut builder, BatchBuilder::new(Offset(next)).leader_epoch(EPOCH));
            out.extend_from_slice(&full.build());
        }
    }
    if builder.record_count() > 0 {
        next += i64::from(builder.record_count());
        out.extend_from_slice(&builder.build());
    }
    let footer = [&0_i16.to_be_bytes()[..], &[0]].concat();
    out.extend_from_slice(&control(next, SNAPSHOT_FOOTER, &footer));
    out
}

/// The catalogue of a snapshot's bytes. `None`: it is not whole.
fn decode_snapshot(bytes: &[u8], at: LogPoint) -> Result<Option<Catalogue>, LoadError> {
    let mut records = Vec::new();
    let mut rest = bytes;
    let mut is_whole = false;
    while let Ok(Some((batch, after))) = batch::split_first(rest) {
        let offset = batch.header().base_offset;
        if batch.check_crc().is_err() || is_whole {
            return Ok(None);
        }
        is_whole = batch.header().attributes.is_control() && control_kind(&batch) == Some(SNAPSHOT_FOOTER);
        records.extend(read_records(&batch, offset)?.into_iter().map(|(_, record)| record));
        rest = after;
    }
    if !is_whole || !rest.is_empty() {
        return Ok(None);
    }
    Ok(Some(Catalogue::from_snapshot(at, records)?))
}

fn control_kind(batch: &BatchView<'_>) -> Option<i16> {
    let records = batch.records(BATCH_BYTES_MAX).ok()?;
    let record = records.iter().next()?.ok()?;
    let kind = record.key?.get(2..4)?;
    Some(i16::from_be_bytes(kind.try_into().ok()?))
}

/// The newest sound snapshot's catalogue and end; an empty one without any.
async fn load_snapshot(disk: &Rc<dyn Disk>, directory: &Path) -> Result<(Catalogue, Offset), LoadError> {
    for (end, epoch, name) in snapshots(disk, directory).await?.into_iter().rev() {
        let path = directory.join(&name);
        let bytes = disk::read_file(disk, &path).await?;
        match decode_snapshot(&bytes, LogPoint { offset: end.plus(-1), epoch })? {
            Some(catalogue) => return Ok((catalogue, end)),
            None => tracing::warn!(path = %path.display(), "a snapshot of the metadata log is damaged and not used"),
        }
    }
    Ok((Catalogue::default(), Offset(0)))
}

fn snapshot_name(end: Offset, epoch: LeaderEpoch) -> String {
    format!("{:020}-{:010}{SNAPSHOT_SUFFIX}", end.0, epoch.0)
}

fn parse_snapshot_name(name: &str) -> Option<(Offset, LeaderEpoch)> {
    let (end, epoch) = name.strip_suffix(SNAPSHOT_SUFFIX)?.split_once('-')?;
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(end, 20) || !digits(epoch, 10) {
        return None;
    }
    Some((Offset(end.parse().ok()?), LeaderEpoch(epoch.parse().ok()?)))
}

/// The snapshots in a folder, oldest first.
async fn snapshots(disk: &Rc<dyn Disk>, directory: &Path) -> io::Result<Vec<(Offset, LeaderEpoch, String)>> {
    let mut found: Vec<_> = disk
        .list(directory)
        .await?
        .into_iter()
        .filter_map(|entry| parse_snapshot_name(&entry.name).map(|(end, epoch)| (end, epoch, entry.name)))
        .collect();
    found.sort();
    Ok(found)
}
