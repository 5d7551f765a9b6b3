//! `compare`: starts brokers, brings the machine into a steady state, runs the same workloads interleaved A B B A, each on an empty
//! data directory, and holds the figures beside each other. It drives brokers only from outside, and load only through the load
//! generator's own process; [`beside`] has the loops without a broker that steps are held against. Whatever ends it, no process
//! and no data directory of its making is left.

mod arguments;
mod beside;
mod broker;
mod child;
mod comparison;
mod disk_loop;
mod generator;
mod instance;
pub mod metrics;
mod restart;
mod spec;
mod start_stop;
mod steady;
mod summary;
pub mod table;
mod template;
mod wire;

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;

use self::beside::Beside;
use self::broker::Broker;
use self::comparison::Comparison;
use self::generator::Generator;
use self::spec::{Spec, Workload};
use self::steady::Filler;
use crate::cli::Shared;
use crate::error::Error;
use crate::guard::{Guard, Work};
use crate::load::{ClientKind, NO_LIBRDKAFKA};
use crate::progress::Progress;
use crate::results::{Compare, ComparedBroker};
use crate::{stop, units};

/// What a broker may need beside the data: a journal, indexes, its log; and what is verified, and the bare loops' file.
const SPACE_RESERVE_BYTES: u64 = 3 << 30;

/// The arguments of `compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareCommand {
    /// throughput, latency, small-batches, many-partitions, start-stop, groups, linkedin-2014, or a TOML file (--show prints one to begin with).
    pub spec: String,
    /// How often each broker runs each workload; the spec says otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// Size of every measured step that ends after records or bytes, e.g. 4GB.
    #[arg(long, value_name = "SIZE", value_parser = units::bytes)]
    pub bytes: Option<u64>,
    /// Length of every measured step that ends after a time, e.g. 10s.
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub duration: Option<Duration>,
    /// Which brokers, in the order of the table; ratios are of the first to each other.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub brokers: Option<Vec<String>>,
    /// A file that describes another broker; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub broker: Vec<PathBuf>,
    /// Only workloads whose name contains this; may be repeated.
    #[arg(long, value_name = "TEXT")]
    pub only: Vec<String>,
    /// A setting of a broker's, as it names it; may be repeated.
    #[arg(long, value_name = "BROKER:NAME=VALUE")]
    pub set: Vec<String>,
    /// The client library of every step of load; the spec says otherwise, and it is lean there.
    #[arg(long, value_enum)]
    pub client: Option<ClientKind>,
    /// Where data directories are made and removed [default: below --out].
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// Ringlog's binary [default: `ringlog` beside this one].
    #[arg(long, value_name = "FILE")]
    pub ringlog_bin: Option<PathBuf>,
    /// Do not fill the page cache first: quicker, and worth little on a virtual machine.
    #[arg(long)]
    pub no_fill: bool,
    /// How long one call of the load generator may take.
    #[arg(long, value_name = "TIME", default_value = "30min", value_parser = units::duration)]
    pub step_timeout: Duration,
    /// Do not verify a little of each load after it was measured.
    #[arg(long)]
    pub no_verify: bool,
    /// Print the spec and the brokers' descriptions, and run nothing.
    #[arg(long)]
    pub show: bool,
    /// The binary that understands `load` and `groups` [default: this one].
    #[arg(long, value_name = "FILE", hide = true)]
    pub generator: Option<PathBuf>,
}

impl CompareCommand {
    /// The ready-made texts that `--show` asks for, as TOML.
    ///
    /// # Errors
    /// There is no such spec.
    pub fn shown(&self) -> Result<String, Error> {
        let ready_made = spec::READY_MADE.iter().find(|(name, _)| *name == self.spec).map(|(_, text)| (*text).to_owned());
        let text = match ready_made {
            Some(text) => text,
            None => fs::read_to_string(&self.spec).map_err(Error::io(&self.spec))?,
        };
        let brokers = broker::READY_MADE.map(|(name, text)| format!("# The broker {name}, as in a file for --broker\n\n{text}"));
        Ok(format!("# The spec {}\n\n{text}\n{}", self.spec, brokers.join("\n")))
    }
}

/// Checks the arguments and the descriptions that they name, before anything takes time.
///
/// # Errors
/// They are not sound.
pub fn check(command: &CompareCommand) -> Result<(), Error> {
    let spec = adjusted_spec(command)?;
    chosen_brokers(command, &spec).map(drop)
}

/// Compares.
///
/// # Errors
/// The spec, a broker's description or an argument is not sound; or something failed before anything was measured. What fails
/// later is in the result, beside what was measured.
pub fn run(command: &CompareCommand, shared: &Shared) -> Result<Compare, Error> {
    let spec = adjusted_spec(command)?;
    let brokers = chosen_brokers(command, &spec)?;
    for workload in &spec.workload {
        brokers.iter().try_for_each(|broker| broker.topic_configs(&workload.mode).map(drop))?;
    }
    let executable = std::env::current_exe().map_err(|error| Error::Failed(format!("where this binary is: {error}")))?;
    let ringlog = command.ringlog_bin.clone().unwrap_or_else(|| executable.with_file_name("ringlog"));
    if brokers.iter().any(|broker| broker.name == "ringlog") && !ringlog.is_file() {
        return Err(Error::Usage(format!("{} is not there: --ringlog-bin names Ringlog's binary", ringlog.display())));
    }
    let guard = Rc::new(Guard::start(&executable)?);
    let name = format!("ringlog-bench-work-{}", std::process::id());
    let work = Work::make(command.work.as_deref().unwrap_or(&shared.out), &name, &guard)?;
    let needed = spec.workload.iter().map(Workload::bytes_written).max().unwrap_or(0);
    steady::check_space(work.path(), needed.saturating_add(SPACE_RESERVE_BYTES))?;
    let runs = spec.workload.len() as u64 * u64::from(spec.rounds) * brokers.len() as u64;
    let started_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let mut comparison = Comparison {
        generator: Generator { executable: command.generator.clone().unwrap_or(executable), timeout: command.step_timeout },
        ringlog,
        filler: (!command.no_fill).then(|| Filler::new(work.path())),
        out: shared.out.clone(),
        raw: format!("{}-{started_ms}", spec.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")),
        bar: Progress::new(shared.quiet).count(&spec.name, runs),
        quiet: shared.quiet,
        start: Instant::now(),
        runs: 0,
        free_bytes_max: 0,
        brokers: &brokers,
        guard,
        beside: Beside::new(work.path()),
        work: work.path(),
        result: Compare {
            spec: spec.name.clone(),
            about: spec.about.clone(),
            rounds: spec.rounds,
            brokers: brokers
                .iter()
                .map(|broker| ComparedBroker {
                    name: broker.name.clone(),
                    about: broker.about.clone(),
                    ..ComparedBroker::default()
                })
                .collect(),
            ..Compare::default()
        },
    };
    let outcome = comparison.run(&spec);
    comparison.result.across = summary::across(&spec.across, &comparison.result);
    comparison.bar.finish_and_clear();
    let mut result = comparison.result;
    result.filled_bytes = comparison.filler.as_ref().map_or(0, Filler::read_bytes);
    result.free_bytes_max = comparison.filler.as_ref().map_or(0, Filler::free_bytes_max);
    if let Err(error) = outcome {
        if result.workloads.iter().all(|workload| workload.runs.is_empty()) {
            return Err(if stop::requested() { Error::Failed("stopped before anything was measured".to_owned()) } else { error });
        }
        result.failed = (!stop::requested()).then(|| error.to_string());
    }
    Ok(result)
}

fn adjusted_spec(command: &CompareCommand) -> Result<Spec, Error> {
    let mut spec = Spec::find(&command.spec)?;
    if let Some(rounds) = command.rounds {
        spec.rounds = rounds;
    }
    if command.bytes == Some(0) || command.duration == Some(Duration::ZERO) {
        return Err(Error::Usage("--bytes and --duration are more than 0".to_owned()));
    }
    if !command.only.is_empty() {
        let names: Vec<_> = spec.workload.iter().map(|workload| format!("{:?}", workload.name)).collect();
        spec.workload.retain(|workload| command.only.iter().any(|text| workload.name.contains(text.as_str())));
        if spec.workload.is_empty() {
            return Err(Error::Usage(format!("--only names no workload of {}, which has {}", spec.name, names.join(", "))));
        }
    }
    if let Some(client) = command.client {
        let steps = spec.workload.iter_mut().map(|workload| workload.drive_by(client)).sum::<usize>();
        if steps == 0 {
            return Err(Error::Usage(format!("--client is for steps of load, and {} has none", spec.name)));
        }
    }
    // Another generator may have it.
    if cfg!(not(feature = "librdkafka")) && command.generator.is_none() && spec.workload.iter().any(Workload::needs_librdkafka) {
        return Err(Error::Usage(NO_LIBRDKAFKA.to_owned()));
    }
    for workload in &mut spec.workload {
        workload.verify &= !command.no_verify;
        if let Some(bytes) = command.bytes {
            workload.resize(bytes);
        }
        if let Some(duration) = command.duration {
            workload.retime(duration);
        }
    }
    Ok(spec)
}

fn chosen_brokers(command: &CompareCommand, spec: &Spec) -> Result<Vec<Broker>, Error> {
    let own = command.broker.iter().map(|path| Broker::read(path)).collect::<Result<Vec<_>, _>>()?;
    let names = match (&command.brokers, own.is_empty()) {
        (Some(names), _) => names.clone(),
        (None, true) => spec.brokers.clone(),
        // A broker that is described is meant to take part.
        (None, false) => {
            let mut names = spec.brokers.clone();
            names.extend(own.iter().map(|broker| broker.name.clone()).filter(|name| !spec.brokers.contains(name)));
            names
        }
    };
    spec::check_brokers(&names).map_err(Error::Usage)?;
    // The user's before the spec's before the ready-made ones.
    let described = || own.iter().chain(&spec.broker);
    let mut brokers = names
        .iter()
        .map(|name| match described().find(|broker| broker.name == *name) {
            Some(broker) => Ok(broker.clone()),
            None => Broker::ready_made(name),
        })
        .collect::<Result<Vec<_>, _>>()?;
    for broker in &mut brokers {
        for (name, value) in spec.setting.get(&broker.name).into_iter().flatten() {
            broker.set(name, value)?;
        }
    }
    for setting in &command.set {
        let parts = setting.split_once(':').and_then(|(broker, pair)| Some((broker, pair.split_once('=')?)));
        let Some((name, (key, value))) = parts else {
            return Err(Error::Usage(format!("--set {setting}: it is BROKER:NAME=VALUE")));
        };
        let Some(broker) = brokers.iter_mut().find(|broker| broker.name == name) else {
            return Err(Error::Usage(format!("--set {setting}: broker {name:?} does not take part")));
        };
        broker.set(key, value)?;
    }
    Ok(brokers)
}
