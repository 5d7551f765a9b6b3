//! The broker as a library: what the binary `ringlog` and its tests are made of.

pub mod api;
pub mod broker;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod data_dir;
pub mod group;
pub mod log_limit;
pub mod logging;
pub mod net;
pub mod offline;
pub mod preflight;
pub mod signals;
pub mod tool;
