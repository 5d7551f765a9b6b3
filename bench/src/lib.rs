//! `ringlog-bench`: how close a log gets to the limits of a machine, and how brokers that speak Kafka's protocol compare on it.
//!
//! A command measures and gives a [`results::Outcome`]; `main` wraps it with the machine and the command line into a
//! [`results::Run`], prints it, and stores it. Nothing here judges a figure, and nothing is written outside the directory that
//! the user named.

pub mod cli;
pub mod compare;
pub mod disk;
pub mod engine;
pub mod error;
pub mod groups;
pub mod guard;
pub mod load;
pub mod machine;
pub mod process;
pub mod progress;
pub mod report;
pub mod results;
mod sink;
pub mod stop;
pub mod store;
mod table;
pub mod units;
