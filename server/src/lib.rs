//! The broker as a library: what the binary `ringlog` and its tests are made of.

pub mod catalogue;
pub mod config;
pub mod net;
