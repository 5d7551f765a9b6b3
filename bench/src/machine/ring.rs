//! Whether this machine lets us have an io_uring, and which of its features the engine uses. For [`super::Machine::probe`].

use super::parse;
use super::{Machine, System};

/// What the engine asks of io_uring: how its rings are set up, and the operations that go through them.
const USED: &str = "the engine uses COOP_TASKRUN, SINGLE_ISSUER, SUBMIT_ALL; read, write, writev, linked write and fsync, fallocate, openat, close";

pub(super) fn look(system: &System, machine: &mut Machine) {
    let mut text = match ringlog_engine::disk::ring::probe() {
        Ok(()) => format!("allowed; {USED}"),
        Err(error) => {
            machine.warn(format!("{error}; nothing of Ringlog's can be measured here"));
            format!("no: {error}")
        }
    };
    if let Some(setting) = system.number("/proc/sys/kernel/io_uring_disabled") {
        text += &format!("; kernel.io_uring_disabled = {setting}");
    }
    let status = system.read("/proc/self/status").unwrap_or_default();
    if parse::word(&status, "Seccomp:").is_some_and(|mode| mode != "0") {
        text += "; under a seccomp filter";
    }
    machine.fact("io_uring", text);
}
