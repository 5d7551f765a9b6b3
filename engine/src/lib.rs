//! From a record batch to the disk and back. Knows no network protocol: the broker in `server/` puts one on top, the
//! benchmarks in `bench/` drive it in process.

pub mod batch;
pub mod compression;
pub mod core;
pub mod disk;
pub mod env;
pub mod journal;
pub mod log;
pub mod memory;
pub mod record;
pub mod segment;
pub mod types;
