//! The memory that groups take, counted, so that it can be bounded: roughly what it is, and never less than what a client sent.

use std::cell::Cell;
use std::rc::Rc;

/// The memory of all groups of a core. Clones count together.
#[derive(Clone, Default, Debug)]
pub struct Usage(Rc<Cell<usize>>);

impl Usage {
    /// How many bytes there are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.get()
    }

    /// Counts bytes until what is returned is dropped.
    pub(super) fn charge(&self, bytes: usize) -> Charge {
        let mut charge = Charge { usage: self.clone(), bytes: 0 };
        charge.set(bytes);
        charge
    }
}

/// Bytes that are counted.
#[derive(Debug)]
pub(super) struct Charge {
    usage: Usage,
    bytes: usize,
}

impl Charge {
    pub(super) fn set(&mut self, bytes: usize) {
        self.usage.0.set(self.usage.0.get() - self.bytes + bytes);
        self.bytes = bytes;
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.set(self.bytes + bytes);
    }

    pub(super) fn subtract(&mut self, bytes: usize) {
        self.set(self.bytes - bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}
