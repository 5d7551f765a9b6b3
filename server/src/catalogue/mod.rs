//! The catalogue of topics, their configuration and that of groups: records of the metadata log ([`records`]), the state they lead to
//! ([`state`]), and the commands that check a request against the state and say which records it takes ([`commands`]).
//! Pure: no I/O, no clock, no randomness of its own. A change goes propose (a command's records) → commit (the log has them as one
//! batch) → apply (to the state); nothing is answered as done, and no partition made, before its records are applied.

pub mod commands;
pub mod names;
pub mod records;
pub mod state;

pub use commands::{Plan, Refusal};
pub use records::MetadataRecord;
pub use state::{ApplyError, Catalogue, GroupOverrides, LogPoint, PartitionInfo, Topic};

#[cfg(test)]
mod tests;
