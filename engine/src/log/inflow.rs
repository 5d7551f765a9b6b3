//! How much is on its way into a partition. Whoever takes batches from clients counts them, from any thread, and takes in less of
//! what feeds a partition that has too much; the log itself refuses nothing for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// As much as one connection may have under way: several are then no more than one.
const BYTES_MAX: usize = 32 << 20;

/// The bytes of batches that were handed over to a partition and are not answered yet.
#[derive(Debug, Default)]
pub struct Inflow {
    bytes: AtomicUsize,
}

impl Inflow {
    /// Counts a batch of so many bytes as long as what is returned lives: it goes along with the batch's reply.
    #[must_use]
    pub fn enter(self: &Arc<Self>, bytes: usize) -> Entering {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Entering { inflow: self.clone(), bytes }
    }

    /// How many bytes these are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether it is more than one partition should have.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.bytes() > BYTES_MAX
    }
}

/// A batch on its way.
#[derive(Debug)]
pub struct Entering {
    inflow: Arc<Inflow>,
    bytes: usize,
}

impl Drop for Entering {
    fn drop(&mut self) {
        self.inflow.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_is_not_on_its_way() {
        let inflow = Arc::new(Inflow::default());
        let first = inflow.enter(BYTES_MAX);
        assert!(!inflow.is_crowded());
        let second = inflow.enter(1);
        assert!(inflow.is_crowded());
        drop(first);
        assert!(!inflow.is_crowded());
        drop(second);
        assert_eq!(inflow.bytes(), 0);
    }
}
