//! A child process with all that it starts: one process group, which ends when its owner drops it, and of which the guard knows.
//! For brokers, their commands and the load generator. It judges no exit status.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::error::Error;
use crate::guard::Guard;
use crate::stop;

/// How often a child is looked at: often enough for a start or stop of some milliseconds to be timed.
const POLL: Duration = Duration::from_millis(1);

/// A running child.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    process: std::process::Child,
    pid: Pid,
    guard: Rc<Guard>,
    is_reaped: bool,
}

/// How waiting for a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// By itself, with this status as a shell says it: 128 and the signal's number after a signal.
    Ended(i32),
    /// It still runs.
    TimedOut,
    /// The user wants us to end.
    Stopped,
}

impl Child {
    /// Starts `command` in a process group of its own, without input. `name` is for errors.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn spawn(guard: &Rc<Guard>, name: &str, command: &mut Command) -> Result<Self, Error> {
        let spawned = command.stdin(Stdio::null()).process_group(0).spawn();
        let process = spawned
            .map_err(|error| Error::Failed(format!("{name}: {} cannot be started: {error}", command.get_program().display())))?;
        let pid = Pid::from_child(&process);
        // Owned from here on: whatever fails next, the group ends.
        let child = Self { name: name.to_owned(), process, pid, guard: Rc::clone(guard), is_reaped: false };
        guard.group_started(pid)?;
        Ok(child)
    }

    /// Its process id.
    #[must_use]
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether the child itself has ended. It is not reaped, so that its number stays its group's.
    #[must_use]
    pub(super) fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None))
    }

    /// Sends a signal to the whole group.
    pub(super) fn signal(&self, signal: Signal) {
        // That there is nobody left is what the caller finds out next.
        let _ = kill_process_group(self.pid, signal);
    }

    /// Waits until it ends by itself, for `timeout` at most; a stop that the user asks for ends the waiting if `stoppable`.
    ///
    /// # Errors
    /// The system does not know the child.
    pub(super) fn wait(&mut self, timeout: Duration, stoppable: bool) -> Result<Waited, Error> {
        let start = Instant::now();
        loop {
            if self.has_ended() {
                return Ok(Waited::Ended(self.end()?));
            }
            if stoppable && stop::requested() {
                return Ok(Waited::Stopped);
            }
            if start.elapsed() >= timeout {
                return Ok(Waited::TimedOut);
            }
            std::thread::sleep(POLL.max(start.elapsed().min(Duration::from_secs(1)) / 50));
        }
    }

    /// Ends whatever is left of the group, at once, and returns the child's status.
    ///
    /// # Errors
    /// The system does not know the child.
    pub(super) fn end(&mut self) -> Result<i32, Error> {
        // After it is reaped, the number may be another group's.
        if !self.is_reaped {
            self.signal(Signal::KILL);
        }
        let status = self.process.wait().map_err(|error| Error::Failed(format!("{}: {error}", self.name)))?;
        self.is_reaped = true;
        self.guard.group_ended(self.pid)?;
        Ok(shell_status(status))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.is_reaped {
            let _ = self.end();
        }
    }
}

fn shell_status(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}
