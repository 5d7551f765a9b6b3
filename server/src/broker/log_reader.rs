//! The bytes of a partition, for the broker itself: of the metadata log, of the groups.

use std::rc::Rc;

use ringlog_engine::core::Core;
use ringlog_engine::log::published::Published;
use ringlog_engine::log::read::{ReadError, Source};
use ringlog_engine::memory::Buffer;
use ringlog_engine::types::Offset;

/// Whole batches from the one that holds `from` on, below the high watermark: one, or as many as `bytes_max` has room for.
///
/// # Errors
/// The disk fails, or the bytes are damaged.
pub(super) async fn read(core: &Rc<Core>, published: &Published, from: Offset, bytes_max: u64) -> Result<Vec<u8>, ReadError> {
    let plan = core.reader.plan(published, from, bytes_max, true).await?;
    let mut bytes = Vec::new();
    for range in plan.ranges {
        match range.source {
            Source::Tail(slice) => bytes.extend_from_slice(slice.bytes()),
            Source::Memory(read) => bytes.extend_from_slice(&read),
            Source::File(file) => {
                let len = usize::try_from(range.len).unwrap_or(usize::MAX);
                let (buffer, read) = file.read_at(Buffer::standalone(len)?, len, range.position).await?;
                bytes.extend_from_slice(&buffer[..read]);
            }
        }
    }
    Ok(bytes)
}
