//! One broker over one data directory: made, started, asked, stopped, killed, removed. Whatever happens, its processes end and its
//! directory goes when it is dropped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use base64::Engine;
use rustix::process::Signal;

use super::broker::Broker;
use super::child::{Child, Waited};
use super::template;
use super::wire::Connection;
use crate::error::Error;
use crate::guard::Guard;
use crate::stop;

/// How long a command that prepares may take; the first fetching of a broker is the longest.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(1800);

/// How long a command that cleans up may take: whoever waits for the result does not wait for this.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two questions whether the broker is ready.
const READY_POLL: Duration = Duration::from_millis(5);

/// Below it are the ports of services that one knows.
const PORT_MIN: u16 = 10_000;

/// A broker and its directory.
#[derive(Debug)]
pub(super) struct Instance<'a> {
    broker: &'a Broker,
    guard: Rc<Guard>,
    values: BTreeMap<String, String>,
    work: PathBuf,
    port: u16,
    /// What keeps other processes from the ports.
    _holders: [UnixDatagram; 2],
    child: Option<Child>,
    /// Where the log began that the running process writes.
    log_start: u64,
}

/// What [`set_up`] found: the placeholders that a broker's commands may use besides a run's own.
pub(super) type SetUp = BTreeMap<String, String>;

/// Does what a broker needs once. `directory` is its own.
///
/// # Errors
/// A command fails, or did not write what it should have.
pub(super) fn set_up(broker: &Broker, guard: &Rc<Guard>, directory: &Path, ringlog: &Path) -> Result<SetUp, Error> {
    let text = |path: &Path| std::path::absolute(path).map(|path| path.display().to_string()).map_err(Error::io(path));
    let mut values = BTreeMap::from([("setup".to_owned(), text(directory)?), ("ringlog".to_owned(), text(ringlog)?)]);
    fs::create_dir_all(directory).map_err(Error::io(directory))?;
    write_files(&broker.setup.files, &values, directory)?;
    for command in &broker.setup.commands {
        run_command(broker, guard, command, &values, directory, Some(COMMAND_TIMEOUT))?;
    }
    for (name, file) in &broker.setup.variables {
        let path = directory.join(file);
        let value = fs::read_to_string(&path).map_err(Error::io(&path))?;
        values.insert(name.clone(), value.trim().to_owned());
    }
    Ok(values)
}

/// What a broker says of its version; empty where its description does not ask.
///
/// # Errors
/// It cannot be asked.
pub(super) fn version(broker: &Broker, guard: &Rc<Guard>, set_up: &SetUp, directory: &Path) -> Result<String, Error> {
    let Some(command) = &broker.version else { return Ok(String::new()) };
    let printed = run_command(broker, guard, command, set_up, directory, Some(COMMAND_TIMEOUT))?;
    Ok(printed.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned())
}

impl<'a> Instance<'a> {
    /// Makes `work`, with an empty data directory in it, and prepares the broker; does not start it.
    ///
    /// # Errors
    /// The directory cannot be made, or a command fails.
    pub(super) fn prepare(broker: &'a Broker, guard: &Rc<Guard>, set_up: &SetUp, work: PathBuf) -> Result<Self, Error> {
        let work = std::path::absolute(&work).map_err(Error::io(work))?;
        let data = work.join("data");
        fs::create_dir_all(&data).map_err(Error::io(&data))?;
        let [(port, holder), (port2, holder2)] =
            free_ports().map_err(|error| Error::Failed(format!("there is no free port: {error}")))?;
        let mut values = set_up.clone();
        values.extend([
            ("data".to_owned(), data.display().to_string()),
            ("work".to_owned(), work.display().to_string()),
            ("port".to_owned(), port.to_string()),
            ("port2".to_owned(), port2.to_string()),
            ("uuid".to_owned(), new_id()),
        ]);
        let _holders = [holder, holder2];
        let instance = Self { broker, guard: Rc::clone(guard), values, work, port, _holders, child: None, log_start: 0 };
        write_files(&broker.files, &instance.values, &instance.work)?;
        for command in &broker.prepare {
            run_command(broker, guard, command, &instance.values, &instance.work, Some(COMMAND_TIMEOUT))?;
        }
        Ok(instance)
    }

    /// How it is started.
    ///
    /// # Errors
    /// The description is not sound.
    pub(super) fn command(&self) -> Result<Vec<String>, Error> {
        filled(self.broker, &self.broker.command, &self.values)
    }

    /// The files that its description wrote.
    ///
    /// # Errors
    /// The description is not sound.
    pub(super) fn files(&self) -> Result<Vec<(String, String)>, Error> {
        let fill = |(name, text): (&String, &String)| Ok((name.clone(), fill(self.broker, text, &self.values)?));
        self.broker.files.iter().map(fill).collect()
    }

    /// Starts the process and does not wait.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn launch(&mut self) -> Result<(), Error> {
        assert!(self.child.is_none(), "{} runs already", self.broker.name);
        let path = self.log_path();
        let log = File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        self.log_start = log.metadata().map_err(Error::io(&path))?.len();
        let command = self.command()?;
        let mut process = prepared_command(self.broker, &command, &self.values, &self.work)?;
        process.stdout(log.try_clone().map_err(Error::io(&path))?).stderr(log);
        self.child = Some(Child::spawn(&self.guard, &self.broker.name, &mut process)?);
        Ok(())
    }

    /// Starts the process and returns once it is ready.
    ///
    /// # Errors
    /// It ends, does not answer in time, or the user stops.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        self.launch()?;
        self.wait_ready()
    }

    /// Waits until the launched process is ready.
    ///
    /// # Errors
    /// It ends, does not answer in time, or the user stops.
    pub(super) fn wait_ready(&mut self) -> Result<(), Error> {
        self.wait_until(READY_POLL, |instance| {
            if !instance.has_said_ready() {
                return Err("it has not printed what it prints when it is ready".to_owned());
            }
            instance.answers().map_err(|error| error.to_string())
        })
    }

    /// Whether the broker answers now.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) fn answers(&self) -> std::io::Result<()> {
        Connection::open(self.port)?.api_versions()
    }

    /// Asks again and again, until the answer is good.
    ///
    /// # Errors
    /// The process ends, the answer is not good in the time that a start may take, or the user stops.
    pub(super) fn wait_until<T>(&self, poll: Duration, mut ask: impl FnMut(&Self) -> Result<T, String>) -> Result<T, Error> {
        let start = Instant::now();
        let timeout = self.broker.ready_timeout().map_err(Error::Usage)?;
        loop {
            let why_not = match ask(self) {
                Ok(good) => return Ok(good),
                Err(why_not) => why_not,
            };
            if stop::requested() {
                return Err(Error::Failed("stopped".to_owned()));
            }
            self.check_running()?;
            if start.elapsed() > timeout {
                return Err(self.failure(&format!("is not ready after {} s: {why_not}", timeout.as_secs())));
            }
            std::thread::sleep(poll);
        }
    }

    /// That the process has not ended by itself.
    ///
    /// # Errors
    /// It has.
    pub(super) fn check_running(&self) -> Result<(), Error> {
        match &self.child {
            Some(child) if child.has_ended() => Err(self.failure("ended by itself")),
            Some(_) => Ok(()),
            None => Err(self.failure("does not run")),
        }
    }

    /// Stops the process as its users do; returns how long it took.
    ///
    /// # Errors
    /// It had ended before, does not end in time, or not as it should.
    pub(super) fn stop(&mut self) -> Result<Duration, Error> {
        self.check_running()?;
        let Some(mut child) = self.child.take() else { return Ok(Duration::ZERO) };
        let start = Instant::now();
        child.signal(Signal::TERM);
        let timeout = self.broker.stop_timeout().map_err(Error::Usage)?;
        match child.wait(timeout, false)? {
            Waited::Ended(status) if self.broker.stop.statuses.contains(&status) => Ok(start.elapsed()),
            Waited::Ended(status) => Err(self.failure(&format!("ended with status {status} after SIGTERM"))),
            _ => Err(self.failure(&format!("still ran {} s after SIGTERM", timeout.as_secs()))),
        }
    }

    /// Ends the process as a crash does.
    ///
    /// # Errors
    /// The system does not know it.
    pub(super) fn kill(&mut self) -> Result<(), Error> {
        match self.child.take() {
            Some(mut child) => child.end().map(drop),
            None => Ok(()),
        }
    }

    /// The process, where it runs.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn pid(&self) -> Result<u32, Error> {
        self.child.as_ref().map(Child::pid).ok_or_else(|| self.failure("does not run"))
    }

    /// Where it listens.
    #[must_use]
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Its data directory.
    #[must_use]
    pub(super) fn data(&self) -> PathBuf {
        self.work.join("data")
    }

    /// What it printed.
    #[must_use]
    pub(super) fn log_path(&self) -> PathBuf {
        self.work.join("broker.log")
    }

    /// An error that ends with the last line that the broker printed.
    #[must_use]
    pub(super) fn failure(&self, what: &str) -> Error {
        let last = last_line(&self.log_path());
        Error::Failed(format!("broker {} {what}{last}", self.broker.name))
    }

    fn has_said_ready(&self) -> bool {
        let Some(text) = &self.broker.ready.log_contains else { return true };
        let mut printed = Vec::new();
        let read = File::open(self.log_path()).and_then(|mut log| {
            log.seek(SeekFrom::Start(self.log_start))?;
            log.read_to_end(&mut printed)
        });
        read.is_ok() && String::from_utf8_lossy(&printed).contains(text.as_str())
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        let _ = self.kill();
        for command in &self.broker.clean_up {
            if let Err(error) = run_command(self.broker, &self.guard, command, &self.values, &self.work, None) {
                eprintln!("ringlog-bench: cleaning up: {error}");
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.work) {
            eprintln!("ringlog-bench: {} cannot be removed: {error}", self.work.display());
        }
    }
}

/// A UUID as Kafka writes it: never with a dash in front, which its tools would take for an option.
fn new_id() -> String {
    loop {
        let id = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4());
        if !id.starts_with('-') {
            return id;
        }
    }
}

/// A port, and what holds it.
type HeldPort = (u16, UnixDatagram);

/// Two different ports of loopback that nobody listens on now and, where the kernel leaves any below its range, that it gives to no client
/// meanwhile (ip(7), ip_local_port_range): they have to be free when the broker comes to them, and again at each of its starts. Until
/// then a name in the abstract namespace of Unix sockets (unix(7)) holds each against whoever chooses in the same way: another
/// comparison, and Ringlog's tests (tests/harness.py).
fn free_ports() -> std::io::Result<[HeldPort; 2]> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first_of_kernel = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0_u16);
    let count = u32::from(first_of_kernel.saturating_sub(PORT_MIN));
    let begin = (uuid::Uuid::new_v4().as_u128() % u128::from(count.max(1))) as u32;
    let hold = |port: u16| -> std::io::Result<HeldPort> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr()?.port();
        Ok((port, UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("ringlog-tests-port-{port}"))?)?))
    };
    let mut below = (0..count).filter_map(|n| hold(PORT_MIN + ((begin + n) % count) as u16).ok());
    let mut next = || below.next().map_or_else(|| hold(0), Ok);
    Ok([next()?, next()?])
}

fn fill(broker: &Broker, text: &str, values: &BTreeMap<String, String>) -> Result<String, Error> {
    template::fill(text, values).map_err(|error| Error::Usage(format!("broker {}: {error}", broker.name)))
}

fn filled(broker: &Broker, command: &[String], values: &BTreeMap<String, String>) -> Result<Vec<String>, Error> {
    command.iter().map(|part| fill(broker, part, values)).collect()
}

fn write_files(files: &BTreeMap<String, String>, values: &BTreeMap<String, String>, directory: &Path) -> Result<(), Error> {
    for (name, text) in files {
        let path = directory.join(name);
        let text = template::fill(text, values).map_err(|error| Error::Usage(format!("{name}: {error}")))?;
        fs::write(&path, text.trim_start()).map_err(Error::io(&path))?;
    }
    Ok(())
}

fn prepared_command(
    broker: &Broker,
    command: &[String],
    values: &BTreeMap<String, String>,
    directory: &Path,
) -> Result<Command, Error> {
    let mut process = Command::new(&command[0]);
    process.args(&command[1..]).current_dir(directory);
    for (name, value) in &broker.environment {
        // Values that a command is run without yet (a version is asked before there is a port) stay away.
        if let Ok(value) = template::fill(value, values) {
            process.env(name, value);
        }
    }
    Ok(process)
}

/// Runs a command to its end and returns what it printed. It may take `timeout`, and ends when the user stops; without one it
/// cleans up, which the user stopping does not stop.
fn run_command(
    broker: &Broker,
    guard: &Rc<Guard>,
    command: &[String],
    values: &BTreeMap<String, String>,
    directory: &Path,
    timeout: Option<Duration>,
) -> Result<String, Error> {
    let command = filled(broker, command, values)?;
    let path = directory.join("command.log");
    let log = File::create(&path).map_err(Error::io(&path))?;
    let mut process = prepared_command(broker, &command, values, directory)?;
    process.stdout(log.try_clone().map_err(Error::io(&path))?).stderr(log);
    let mut child = Child::spawn(guard, &broker.name, &mut process)?;
    let is_clean_up = timeout.is_none();
    let timeout = timeout.unwrap_or(CLEAN_UP_TIMEOUT);
    let waited = child.wait(timeout, !is_clean_up)?;
    drop(child);
    let printed = fs::read(&path).map_err(Error::io(&path))?;
    let failed = |what: String| Error::Failed(format!("broker {}: {} {what}{}", broker.name, command[0], last_line(&path)));
    match waited {
        Waited::Ended(0) => Ok(String::from_utf8_lossy(&printed).into_owned()),
        Waited::Ended(status) => Err(failed(format!("ended with status {status}"))),
        Waited::TimedOut => Err(failed(format!("still ran after {} s", timeout.as_secs()))),
        Waited::Stopped => Err(Error::Failed("stopped".to_owned())),
    }
}

/// `; its last line: …`, where there is one.
pub(super) fn last_line(path: &Path) -> String {
    const BYTES_MAX: u64 = 16 << 10;
    const CHARS_MAX: usize = 300;
    let mut tail = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(BYTES_MAX)))?;
        file.read_to_end(&mut tail)
    });
    let text = String::from_utf8_lossy(&tail);
    match text.lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) if read.is_ok() => {
            let line: String = line.trim().chars().filter(|c| !c.is_control()).take(CHARS_MAX).collect();
            format!("; its last line: {line}")
        }
        _ => String::new(),
    }
}
