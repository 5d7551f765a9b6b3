//! Which partition a connection feeds that has too much to take. While it has, the connection is read one request at a time, so that
//! what one partition cannot take does not fill the core's memory for requests: the producers of others have their room there.

use std::cell::RefCell;
use std::sync::Arc;

use ringlog_engine::log::inflow::Inflow;

/// What holds a connection back.
#[derive(Clone, Debug, Default)]
pub struct Crowd(RefCell<Option<Arc<Inflow>>>);

impl Crowd {
    /// Told of a partition that the connection feeds.
    pub fn feeds(&self, inflow: &Arc<Inflow>) {
        if inflow.is_crowded() {
            *self.0.borrow_mut() = Some(inflow.clone());
        }
    }

    /// Whether the last one that had too much still has.
    pub(super) fn is_there(&self) -> bool {
        let mut crowded = self.0.borrow_mut();
        if crowded.as_ref().is_some_and(|inflow| !inflow.is_crowded()) {
            *crowded = None;
        }
        crowded.is_some()
    }
}
