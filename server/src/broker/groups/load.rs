//! From a partition of `__consumer_offsets` to the groups in it. Called by the coordinator, before a partition's groups are served.

use std::rc::Rc;
use std::sync::Arc;

use ringlog_engine::batch;
use ringlog_engine::core::{Core, Partition};
use ringlog_engine::log::read::ReadError;
use ringlog_engine::types::{Offset, TopicId};
use ringlog_protocol::Uuid;
use ringlog_protocol::group_records::GroupRecord;

use crate::broker::controller::Controller;
use crate::broker::log_reader;
use crate::group::{Output, Shard};

/// How much is read at a time; other work of the core goes on in between.
const READ_BYTES: u64 = 1 << 20;
/// What the records of a batch may take.
const RECORDS_BYTES_MAX: usize = 256 << 20;

/// Why the groups of a partition cannot be known.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// The partition cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Bytes are no batch.
    #[error("at offset {0}: {1}")]
    Batch(Offset, String),
}

/// Replays a partition into a shard. What its groups have committed of topics that were deleted in the meantime is in the output as
/// forgotten.
pub(super) async fn load(
    core: &Rc<Core>,
    controller: &Controller,
    partition: &Arc<Partition>,
    shard: &mut Shard,
    out: &mut Output,
) -> Result<(), LoadError> {
    let published = &partition.published;
    let end = published.high_watermark();
    let mut next = published.log_start();
    let mut skipped = Skipped::default();
    while next < end {
        let bytes = log_reader::read(core, published, next, READ_BYTES).await?;
        let before = next;
        let mut rest = &bytes[..];
        while let Ok(Some((batch, after))) = batch::split_first(rest) {
            let at = batch.header().base_offset;
            let damaged = |error: batch::BatchError| LoadError::Batch(at, error.to_string());
            batch.check_crc().map_err(damaged)?;
            if !batch.header().attributes.is_control() {
                for record in &batch.records(RECORDS_BYTES_MAX).map_err(damaged)? {
                    let record = record.map_err(damaged)?;
                    match GroupRecord::decode(record.key.unwrap_or_default(), record.value) {
                        Ok(record) => shard.replay(record),
                        Err(error) => skipped.note(batch.header().offset_of(&record), error.to_string()),
                    }
                }
            }
            next = batch.header().next_offset();
            rest = after;
        }
        if next == before {
            return Err(LoadError::Batch(next, "no whole batch can be read there".to_owned()));
        }
        tokio::task::yield_now().await;
    }
    if let Some((offset, error)) = skipped.first {
        // A version that knows more may have written them. What is understood is served.
        tracing::warn!(
            partition = partition.id.index, %offset, error, count = skipped.count,
            "records of groups that this version does not understand are left alone"
        );
    }
    if end > published.log_start() {
        let catalogue = controller.catalogue().await;
        let exists = |name: &str, id: Uuid| match id {
            _ if id == Uuid::default() => catalogue.topic(name).is_some(),
            id => catalogue.topic_by_id(TopicId(id)).is_some(),
        };
        shard.forget_topics(&exists, out);
    }
    Ok(())
}

#[derive(Default)]
struct Skipped {
    first: Option<(Offset, String)>,
    count: u64,
}

impl Skipped {
    fn note(&mut self, offset: Offset, error: String) {
        self.first.get_or_insert((offset, error));
        self.count += 1;
    }
}
