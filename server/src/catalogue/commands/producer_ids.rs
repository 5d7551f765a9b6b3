//! Producer ids: given out in blocks, each logged before its first id is used, so that none is used twice (KIP-730).

use ringlog_protocol::ErrorCode;

use super::Refusal;
use crate::catalogue::records::{MetadataRecord, ProducerIdsRecord};
use crate::catalogue::state::Catalogue;

/// The number of ids in a block. What is left of one at a restart is never used.
pub const PRODUCER_ID_BLOCK_COUNT: i64 = 1000;

/// Ids that the broker may give to producers once the block's record is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The first of them.
    pub first: i64,
    /// The first one that does not belong to it.
    pub end: i64,
}

/// Plans a block for a broker.
///
/// # Errors
/// All 2^63 ids are taken.
pub fn allocate_producer_ids(catalogue: &Catalogue, broker_id: i32) -> Result<(ProducerIdBlock, MetadataRecord), Refusal> {
    let first = catalogue.next_producer_id();
    let Some(end) = first.checked_add(PRODUCER_ID_BLOCK_COUNT) else {
        return Err(Refusal::new(
            ErrorCode::UNKNOWN_SERVER_ERROR,
            format!("Exhausted all producer ids; the next one would be {first}."),
        ));
    };
    let record = ProducerIdsRecord { broker_id, broker_epoch: -1, next_producer_id: end };
    Ok((ProducerIdBlock { first, end }, MetadataRecord::ProducerIds(record)))
}
