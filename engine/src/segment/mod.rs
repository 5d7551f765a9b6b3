//! One segment of a partition's log: the names and formats of its files.

pub mod index;
pub mod names;
