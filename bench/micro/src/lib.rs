//! Single steps of the data path, each set up so that nothing else is measured: for the counting of instructions (`main.rs`,
//! `scripts/instructions`) and the criterion benches in `bench/benches`. Nothing here touches a disk or a socket: the engine runs
//! in its simulator, whose work between the steps is not measured.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a benchmark may end where it fails")]

mod append;
mod batch;
mod fetch;
mod wire;

pub use append::Appends;
pub use batch::{batch, produce_rules};
pub use fetch::{IndexLookUps, Plans};
pub use wire::{Decoding, Encoding};
