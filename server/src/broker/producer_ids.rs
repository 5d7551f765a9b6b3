//! Ids for idempotent producers. Each core takes a block of them at a time, which the metadata log has recorded before the first
//! one is given out, so no id is ever used twice; what is left of a block at a restart is lost.

use ringlog_engine::types::ProducerId;
use tokio::sync::Mutex;

use crate::broker::Controller;
use crate::catalogue::Refusal;
use crate::catalogue::commands::ProducerIdBlock;

/// The ids of one core.
pub struct ProducerIds {
    controller: Controller,
    block: Mutex<ProducerIdBlock>,
}

impl ProducerIds {
    /// No block yet: a core takes one when somebody asks.
    #[must_use]
    pub(crate) fn new(controller: Controller) -> Self {
        Self { controller, block: Mutex::new(ProducerIdBlock { first: 0, end: 0 }) }
    }

    /// An id that no producer had before.
    ///
    /// # Errors
    /// The metadata log takes no record now, or all ids are taken.
    pub async fn next(&self) -> Result<ProducerId, Refusal> {
        // Whoever comes while a block is being taken waits for that one.
        let mut block = self.block.lock().await;
        if block.first == block.end {
            *block = self.controller.allocate_producer_ids().await?;
        }
        let id = ProducerId(block.first);
        block.first += 1;
        Ok(id)
    }
}
