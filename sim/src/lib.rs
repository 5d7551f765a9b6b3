//! The whole broker in a simulator: its log, journal, recovery, catalogue and request handlers, all but sockets and the ring, in
//! one thread under one seed, with clients that retry, a disk, a network and a clock that do their worst, and a checker that
//! knows what was acknowledged. Every decision follows from the seed, so a failure is replayed from it.
//!
//! - [`story`]: what a seed comes to: lives and crashes. [`weather`], [`hazards`], [`rot`]: what goes wrong
//!   in between. [`machine`]: the broker on the simulated disk.
//! - [`network`], [`wire`], [`client`], [`life`]: connections and who is on them.
//! - [`model`], [`check`]: the invariants, by name. [`groups`]: consumer groups, and theirs.
//!
//! - [`runner`]: many seeds. The binary runs one or many; `tests/` runs some in CI.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "small numbers that a seed made"
)]

pub mod check;
pub mod client;
pub mod groups;
pub mod hazards;
pub mod life;
pub mod machine;
pub mod model;
pub mod network;
pub mod rot;
pub mod runner;
pub mod story;
pub mod weather;
pub mod wire;
