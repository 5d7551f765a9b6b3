//! The load generator as a process of its own: called as a user calls it, its stored result read back. A process of its own, so
//! that its CPU time and memory are apart from those of the comparison.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::child::{Child, Waited};
use super::instance::{Instance, last_line};
use crate::error::Error;
use crate::guard::Guard;
use crate::results::{Groups, Load, Outcome};
use crate::{stop, store};

/// How long a generator that was asked to stop may take for it.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Between two looks at whether the broker still runs.
const LOOK: Duration = Duration::from_millis(200);

/// How the generator is called.
#[derive(Debug)]
pub(super) struct Generator {
    /// The binary that understands `load` and `groups`.
    pub executable: PathBuf,
    /// How long one call may take.
    pub timeout: Duration,
}

/// What a call gave: a load's figures, or those of groups.
#[derive(Debug)]
pub(super) struct Called<T> {
    /// How it was called.
    pub command_line: Vec<String>,
    /// The file that it stored, in the directory that it was given.
    pub stored: PathBuf,
    /// What is in it.
    pub measured: T,
}

/// What the generator measures, and as which command.
pub(super) trait Measured: Sized {
    /// The command.
    const COMMAND: &'static str;

    /// What a stored run is, if it is that.
    fn of(outcome: Outcome) -> Option<Self>;

    /// Whether it tells of a fault of the broker's: what a comparison is to tell, though the generator fails.
    fn is_unsound(&self) -> bool;
}

impl Measured for Load {
    const COMMAND: &'static str = "load";

    fn of(outcome: Outcome) -> Option<Self> {
        if let Outcome::Load(load) = outcome { Some(*load) } else { None }
    }

    fn is_unsound(&self) -> bool {
        self.verify.as_ref().is_some_and(|verified| !verified.is_sound())
    }
}

impl Measured for Groups {
    const COMMAND: &'static str = "groups";

    fn of(outcome: Outcome) -> Option<Self> {
        if let Outcome::Groups(groups) = outcome { Some(*groups) } else { None }
    }

    fn is_unsound(&self) -> bool {
        false
    }
}

impl Generator {
    /// Runs its command with these arguments against a running broker; its files go to `directory`, which is made.
    ///
    /// # Errors
    /// It or the broker fails, takes too long, stores nothing that can be read, or the user stops.
    pub(super) fn call<T: Measured>(
        &self,
        guard: &Rc<Guard>,
        instance: &Instance<'_>,
        arguments: &[String],
        directory: &Path,
    ) -> Result<Called<T>, Error> {
        fs::create_dir_all(directory).map_err(Error::io(directory))?;
        let mut whole = vec![T::COMMAND.to_owned()];
        whole.extend(arguments.iter().cloned());
        whole.extend(["--json", "--quiet", "--out"].map(str::to_owned));
        whole.push(directory.display().to_string());
        let log_path = directory.join("generator.log");
        let log = File::create(&log_path).map_err(Error::io(&log_path))?;
        let mut command = Command::new(&self.executable);
        command.args(&whole).stdout(std::process::Stdio::null()).stderr(log);
        let mut child = Child::spawn(guard, "the load generator", &mut command)?;
        let start = Instant::now();
        let status = loop {
            match child.wait(LOOK, true)? {
                Waited::Ended(status) => break status,
                Waited::Stopped => {
                    child.signal(Signal::INT);
                    child.wait(STOP_TIMEOUT, false)?;
                    return Err(Error::Failed("stopped".to_owned()));
                }
                Waited::TimedOut => {}
            }
            instance.check_running()?;
            if start.elapsed() > self.timeout {
                return Err(Error::Failed(format!("the load generator still ran after {} s", self.timeout.as_secs())));
            }
        };
        if stop::requested() {
            return Err(Error::Failed("stopped".to_owned()));
        }
        let read = read::<T>(directory);
        if status != 0 && !matches!(&read, Ok((_, measured)) if measured.is_unsound()) {
            // A broker that is gone is the cause and not the symptom.
            instance.check_running()?;
            return Err(Error::Failed(format!(
                "{} {} ended with status {status}{}",
                T::COMMAND,
                arguments.join(" "),
                last_line(&log_path)
            )));
        }
        let (stored, measured) = read?;
        let _ = fs::remove_file(log_path);
        let mut command_line = vec!["ringlog-bench".to_owned()];
        command_line.extend(whole);
        Ok(Called { command_line, stored, measured })
    }
}

/// The one result in a directory.
fn read<T: Measured>(directory: &Path) -> Result<(PathBuf, T), Error> {
    let mut runs = store::load_all(directory)?;
    match (runs.pop(), runs.pop()) {
        (Some((path, run)), None) => match T::of(run.outcome) {
            Some(measured) => Ok((path, measured)),
            None => Err(Error::Failed(format!("{} is not the load generator's", path.display()))),
        },
        _ => Err(Error::Failed(format!("the load generator stored no single result in {}", directory.display()))),
    }
}
