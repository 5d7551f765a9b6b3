//! What is compared: brokers, workloads, rounds, in TOML. Reads, checks and expands specs; runs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use toml::Value;

use super::arguments::{Action, GroupsAction, OF_AMOUNT, arguments, groups_arguments, is_known, shown};
use super::broker::{Broker, in_one_line};
use super::disk_loop::PacedLoad;
use crate::error::Error;
use crate::load::ClientKind;
use crate::units;

/// The specs that come with the binary: name and text.
pub(super) const READY_MADE: [(&str, &str); 7] = [
    ("throughput", include_str!("specs/throughput.toml")),
    ("latency", include_str!("specs/latency.toml")),
    ("small-batches", include_str!("specs/small-batches.toml")),
    ("many-partitions", include_str!("specs/many-partitions.toml")),
    ("start-stop", include_str!("specs/start-stop.toml")),
    ("groups", include_str!("specs/groups.toml")),
    ("linkedin-2014", include_str!("specs/linkedin-2014.toml")),
];

/// What a duration-bound step is taken to write per second where its rate is not given: for the check of free space only.
const ASSUMED_BYTES_PER_S: f64 = 1.5e9;

/// What a record takes beside its value: its own fields, a key's 8 bytes, and a part of a batch's header.
const RECORD_OVERHEAD_BYTES: u64 = 20;

/// The option that names the client library.
const CLIENT: &str = "client";

/// How much is verified after a run.
const VERIFY_BYTES: u64 = 32 << 20;
/// A value that is verified has room for what is kept in it.
const VERIFY_RECORD_BYTES_MIN: u64 = 64;
/// More partitions than this only take their time to be made.
const VERIFY_PARTITIONS_MAX: u64 = 100;

/// A spec.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    /// Its name.
    pub name: String,
    /// What it is for, and what a reader must know.
    #[serde(default)]
    pub about: String,
    /// How often each broker runs each workload.
    #[serde(default = "three")]
    pub rounds: u32,
    /// Which brokers, in the order of the table; ratios are of the first to each other.
    #[serde(default = "both")]
    pub brokers: Vec<String>,
    /// Descriptions of brokers that are not ready-made.
    #[serde(default)]
    pub broker: Vec<Broker>,
    /// By a broker's name: settings of its own, as it names them, where it takes part.
    #[serde(default)]
    pub setting: BTreeMap<String, BTreeMap<String, String>>,
    /// The workloads, in their order.
    pub workload: Vec<Workload>,
    /// Ratios between workloads.
    #[serde(default)]
    pub across: Vec<Across>,
}

fn three() -> u32 {
    3
}

fn both() -> Vec<String> {
    vec!["ringlog".to_owned(), "kafka".to_owned()]
}

/// What one broker does on one empty data directory, from start to stop.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workload {
    /// Its name; `{option}` stands for a value of `sweep`.
    pub name: String,
    /// What a reader must know.
    #[serde(default)]
    pub about: String,
    /// Which of the broker's topic configs it takes: `durable` or `page_cache`.
    #[serde(default = "durable")]
    pub mode: String,
    /// Options of `load` for all its steps of load that do not say otherwise; names with underscores.
    #[serde(default)]
    pub options: toml::Table,
    /// Makes a workload of each combination of these values.
    #[serde(default)]
    pub sweep: Vec<Sweep>,
    /// Whether a little more of its load is verified after what is measured.
    #[serde(default = "yes")]
    pub verify: bool,
    /// Run first, measured by nobody.
    #[serde(default)]
    pub warm_up: Vec<Step>,
    /// Measured, in this order.
    pub step: Vec<Step>,
    /// What others published for it.
    #[serde(default)]
    pub published: Vec<Published>,
}

fn yes() -> bool {
    true
}

fn durable() -> String {
    "durable".to_owned()
}

/// Values that an option takes one after the other.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sweep {
    /// The option, with underscores.
    pub option: String,
    /// Its values.
    pub values: Vec<Value>,
}

/// A part of a workload.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// Its name.
    pub name: String,
    /// The generator's action. A step has this, `start_stop` or `groups`.
    pub load: Option<Action>,
    /// The generator's options, names with underscores; above the workload's.
    #[serde(default)]
    pub options: toml::Table,
    /// Starts, stops and idling instead of load.
    pub start_stop: Option<StartStop>,
    /// Consumer groups instead of load; `options` are those of `groups`, and none of the workload's.
    pub groups: Option<GroupsAction>,
    /// What happens to the broker before it.
    pub before: Option<Before>,
    /// It only makes what the next step needs: it is not measured, and `--bytes` and `--duration` leave it as it is.
    #[serde(default)]
    pub prepares: bool,
    /// Right after it, what the same bytes per second are without a broker: its figure is given as a part of that.
    pub beside: Option<Loop>,
    /// A clean stop and a start with all that the workload has made, instead of load.
    pub restart: Option<Restart>,
}

/// What a bare loop does: it sends to a socket of this machine, or writes to its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Loop {
    /// Memory, by send(2).
    Send,
    /// A file in the page cache, by sendfile(2).
    Sendfile,
    /// Each batch of an open loop, around the page cache.
    Write,
    /// The same, and synced.
    Sync,
}

impl Loop {
    /// Whether it does as much a second as the step, and not all it can.
    pub(super) fn is_paced(self) -> bool {
        matches!(self, Self::Write | Self::Sync)
    }

    /// Whether it stands beside such a step.
    fn suits(self, load: Option<Action>) -> bool {
        match self {
            Self::Send | Self::Sendfile => load == Some(Action::Consume),
            Self::Write | Self::Sync => load == Some(Action::Produce),
        }
    }
}

/// A clean stop and a start.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Restart {
    /// How long it is left alone before its memory is looked at.
    #[serde(default = "settle")]
    pub settle: String,
}

/// The first broker in one mode over the others in another: workloads whose names differ in their ends alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Across {
    /// How the names of the first broker's workloads end.
    pub of: String,
    /// How the others' do.
    pub to: String,
    /// The step.
    pub step: String,
    /// The metric, by its key in the results.
    pub metric: String,
}

/// What happens to the broker before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Before {
    /// It is stopped, what the page cache holds of its directory is dropped, and it is started again.
    Cold,
    /// It is stopped and started again.
    Restart,
}

/// Starts, stops and idling.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartStop {
    /// How much is in the log when it is restarted: options of `load produce`, names with underscores.
    #[serde(default)]
    pub load: toml::Table,
    /// How long it is left alone before idling is watched.
    #[serde(default = "settle")]
    pub settle: String,
    /// How long idling is watched.
    #[serde(default = "idle")]
    pub idle: String,
}

fn settle() -> String {
    "2s".to_owned()
}

fn idle() -> String {
    "10s".to_owned()
}

/// A figure that somebody published.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Published {
    /// The step it belongs to.
    pub step: String,
    /// The metric, by its key in the results.
    pub metric: String,
    /// The figure, in the metric's unit.
    pub value: f64,
    /// Where it is from and under which conditions.
    pub source: String,
}

impl StartStop {
    /// What fills the log, as a step that produces to `topic`.
    #[must_use]
    pub(super) fn load_step(&self, topic: &str) -> Step {
        let mut options = self.load.clone();
        options.insert("topic".to_owned(), Value::String(topic.to_owned()));
        Step { name: "load".to_owned(), load: Some(Action::Produce), options, ..Step::default() }
    }
}

impl Spec {
    /// A ready-made spec, or a file.
    ///
    /// # Errors
    /// There is none, or it says nothing sensible.
    pub(super) fn find(name: &str) -> Result<Self, Error> {
        if let Some((_, text)) = READY_MADE.iter().find(|(known, _)| *known == name) {
            return Self::parse(text, name);
        }
        let path = Path::new(name);
        if !path.exists() {
            let known: Vec<_> = READY_MADE.iter().map(|(name, _)| *name).collect();
            return Err(Error::Usage(format!("{name} is neither a file nor one of the specs {}", known.join(", "))));
        }
        Self::parse(&fs::read_to_string(path).map_err(Error::io(path))?, name)
    }

    /// Reads a spec; `origin` is for errors.
    ///
    /// # Errors
    /// It says nothing sensible.
    pub(super) fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        let mut spec: Self = toml::from_str(text).map_err(|error| in_one_line(origin, &error))?;
        let usage = |error: String| Error::Usage(format!("{origin}: {error}"));
        spec.workload = spec.workload.iter().map(Workload::expand).collect::<Result<Vec<_>, _>>().map_err(usage)?.concat();
        spec.check().map_err(usage)?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), String> {
        if self.rounds == 0 {
            return Err("rounds: at least 1".to_owned());
        }
        if self.workload.is_empty() {
            return Err("there is no workload".to_owned());
        }
        self.broker.iter().try_for_each(Broker::check)?;
        check_brokers(&self.brokers)?;
        let takes_part = |name: &String| self.brokers.contains(name);
        if let Some(name) = self.setting.keys().find(|name| !takes_part(name)) {
            return Err(format!("setting: there is no broker {name:?} in it"));
        }
        for across in &self.across {
            if super::metrics::by_key(&across.metric).is_none() {
                return Err(format!("across: there is no metric {:?}", across.metric));
            }
            let has_step = |workload: &Workload| workload.step.iter().any(|step| step.name == across.step);
            for end in [&across.of, &across.to] {
                if !self.workload.iter().any(|workload| workload.name.ends_with(end.as_str()) && has_step(workload)) {
                    return Err(format!(
                        "across: there is no workload whose name ends with {end:?} and that has a step {:?}",
                        across.step
                    ));
                }
            }
        }
        let mut names = BTreeSet::new();
        for workload in &self.workload {
            if !names.insert(&workload.name) {
                return Err(format!("two workloads are called {:?}", workload.name));
            }
            workload.check().map_err(|error| format!("workload {:?}: {error}", workload.name))?;
        }
        Ok(())
    }
}

/// Whether these names can be compared.
///
/// # Errors
/// There is none, or one twice.
pub(super) fn check_brokers(names: &[String]) -> Result<(), String> {
    let unique: BTreeSet<_> = names.iter().collect();
    if names.is_empty() || unique.len() != names.len() {
        return Err("brokers: at least one, and none twice".to_owned());
    }
    Ok(())
}

impl Workload {
    /// One workload for each combination of the sweeps' values, the last sweep's values changing fastest.
    fn expand(&self) -> Result<Vec<Self>, String> {
        let mut expanded = vec![Self { sweep: Vec::new(), ..self.clone() }];
        for sweep in &self.sweep {
            if sweep.values.is_empty() {
                return Err(format!("workload {:?}: the sweep over {} has no values", self.name, sweep.option));
            }
            let placeholder = format!("{{{}}}", sweep.option);
            if !self.name.contains(&placeholder) {
                return Err(format!(
                    "workload {:?}: its name needs {placeholder}, so that its variants can be told apart",
                    self.name
                ));
            }
            let with = |workload: &Self, value: &Value| {
                let mut one = workload.clone();
                one.name = one.name.replace(&placeholder, &shown(value));
                one.options.insert(sweep.option.clone(), value.clone());
                one
            };
            expanded = expanded.iter().flat_map(|workload| sweep.values.iter().map(move |value| with(workload, value))).collect();
        }
        Ok(expanded)
    }

    fn check(&self) -> Result<(), String> {
        if self.step.is_empty() {
            return Err("there is no step".to_owned());
        }
        let mut names = BTreeSet::new();
        for step in &self.step {
            if !names.insert(&step.name) {
                return Err(format!("two steps are called {:?}", step.name));
            }
        }
        if self.step.last().is_some_and(|step| step.prepares) {
            return Err("its last step prepares for nothing".to_owned());
        }
        let steps = self.warm_up.iter().chain(&self.step);
        if !self.options.is_empty() && !steps.clone().any(|step| step.load.is_some()) {
            let options: Vec<_> = self.options.keys().map(String::as_str).collect();
            return Err(format!("its options are for steps of load, and it has none: {}", options.join(", ")));
        }
        for step in steps {
            self.check_step(step).map_err(|error| format!("step {:?}: {error}", step.name))?;
        }
        for published in &self.published {
            if !names.contains(&published.step) {
                return Err(format!("published: there is no step {:?}", published.step));
            }
            if super::metrics::by_key(&published.metric).is_none() {
                return Err(format!("published: there is no metric {:?}", published.metric));
            }
        }
        Ok(())
    }

    fn check_step(&self, step: &Step) -> Result<(), String> {
        if step.beside.is_some_and(|wanted| !wanted.suits(step.load)) {
            return Err("beside: send and sendfile stand beside consumers alone, write and sync beside producers".to_owned());
        }
        if step.prepares && step.load.is_none() {
            return Err("prepares: only load does".to_owned());
        }
        if let Some(restart) = &step.restart {
            if step.load.is_some() || step.start_stop.is_some() || step.groups.is_some() || step.before.is_some() {
                return Err("it has one of load, start_stop, groups and restart".to_owned());
            }
            return units::duration(&restart.settle).map(drop).map_err(|error| format!("settle: {error}"));
        }
        match (&step.load, &step.start_stop, &step.groups) {
            (Some(action), None, None) => {
                if let Some(option) = step.options.keys().find(|option| is_known(option) && !action.takes(option)) {
                    return Err(format!("{option} is no option of load {}", action.argument()));
                }
                // The workload's are checked whether this step takes them or not.
                arguments(&self.options)?;
                if step.beside.is_some_and(Loop::is_paced) {
                    self.paced_load_of(step)?;
                }
                arguments(&self.options_of(step)).map(drop)
            }
            (None, None, Some(action)) => groups_arguments(&step.options, *action).map(drop),
            (None, Some(start_stop), None) => {
                units::duration(&start_stop.idle).map_err(|error| format!("idle: {error}"))?;
                units::duration(&start_stop.settle).map_err(|error| format!("settle: {error}"))?;
                if !step.options.is_empty() {
                    return Err("options are for load; what is loaded before a restart is start_stop.load".to_owned());
                }
                if let Some(option) = start_stop.load.keys().find(|option| !Action::Produce.takes(option) || *option == "topic") {
                    return Err(format!("start_stop.load: {option} is no option of load produce, or not free here"));
                }
                arguments(&start_stop.load).map(drop)
            }
            _ => Err("it has one of load, start_stop, groups and restart".to_owned()),
        }
    }

    /// The load of a step, for a bare loop beside it.
    pub(super) fn paced_load_of(&self, step: &Step) -> Result<PacedLoad, String> {
        let options = self.options_of(step);
        let read = |name: &str, read: fn(&str) -> Result<u64, String>| {
            let value = options.get(name).ok_or_else(|| format!("beside: a loop that writes needs the step's {name}"))?;
            match read(&shown(value)) {
                Ok(0) => Err(format!("{name}: a loop that writes needs more than none")),
                result => result.map_err(|error| format!("{name}: {error}")),
            }
        };
        Ok(PacedLoad {
            rate: read("rate", units::count)?,
            batch_records: read("batch_records", units::count)?,
            record_bytes: read("record_bytes", units::bytes)?,
        })
    }

    /// A step's options over those of the workload's that its action takes; where it says `false`, neither.
    #[must_use]
    pub(super) fn options_of(&self, step: &Step) -> toml::Table {
        let mut options = self.options.clone();
        if let Some(action) = step.load {
            options.retain(|option, _| action.takes(option));
            let has_amount = OF_AMOUNT.iter().any(|option| step.options.contains_key(*option));
            if action == Action::Consume || has_amount {
                options.retain(|option, _| !OF_AMOUNT.contains(&option));
            }
        }
        if step.options.contains_key("batch_bytes") || step.options.contains_key("batch_records") {
            options.retain(|option, _| option != "batch_bytes" && option != "batch_records");
        }
        options.extend(step.options.clone());
        options.retain(|_, value| *value != Value::Boolean(false));
        options
    }

    /// Has this client library drive every step of load, whatever it said. Returns how many there are.
    pub(super) fn drive_by(&mut self, client: ClientKind) -> usize {
        let steps = self.warm_up.iter_mut().chain(&mut self.step).filter(|step| step.load.is_some());
        let client = Value::String(client.name().to_owned());
        steps.map(|step| step.options.insert(CLIENT.to_owned(), client.clone())).count()
    }

    /// Whether a step of load is driven by a library that not every build has.
    #[must_use]
    pub(super) fn needs_librdkafka(&self) -> bool {
        let by = |step: &Step| self.options_of(step).get(CLIENT).is_some_and(|name| shown(name) == ClientKind::Librdkafka.name());
        self.warm_up.iter().chain(&self.step).any(|step| step.load.is_some() && by(step))
    }

    /// Makes every measured step that ends after records or bytes end after `bytes`, and what is loaded before a restart as well.
    pub(super) fn resize(&mut self, bytes: u64) {
        let resize = |options: &mut toml::Table| {
            let had = [options.remove("bytes"), options.remove("records")].into_iter().flatten().count() > 0;
            if had {
                options.insert("bytes".to_owned(), Value::String(bytes.to_string()));
            }
        };
        resize(&mut self.options);
        for step in self.step.iter_mut().filter(|step| !step.prepares) {
            resize(&mut step.options);
            if let Some(start_stop) = &mut step.start_stop {
                resize(&mut start_stop.load);
            }
        }
    }

    /// Makes every measured step that ends after a time end after this one.
    pub(super) fn retime(&mut self, duration: Duration) {
        let retime = |options: &mut toml::Table| {
            if let Some(value) = options.get_mut("duration") {
                *value = Value::String(format!("{}ms", duration.as_millis()));
            }
        };
        retime(&mut self.options);
        self.step.iter_mut().filter(|step| !step.prepares).for_each(|step| retime(&mut step.options));
    }

    /// What is verified at the end: the first load of its producers, a little of it, so that records are read back and compared.
    #[must_use]
    pub(super) fn verify_step(&self) -> Option<Step> {
        let produces = |step: &&Step| step.load.is_some_and(|action| action != Action::Consume);
        let step = self.step.iter().find(produces).filter(|_| self.verify)?;
        let mut options = self.options_of(step);
        options.retain(|option, _| {
            // As fast as it goes: there is little of it.
            let left_out = ["topic", "rate", "linger", "warm_up"];
            Action::Produce.takes(option) && !OF_AMOUNT.contains(&option) && !left_out.contains(&option)
        });
        if options.get("acks").is_some_and(|acks| shown(acks) == "0") {
            return None;
        }
        let record_bytes = options.get("record_bytes").and_then(|value| units::bytes(&shown(value)).ok()).unwrap_or(1000);
        if record_bytes < VERIFY_RECORD_BYTES_MIN {
            options.insert("record_bytes".to_owned(), Value::String(VERIFY_RECORD_BYTES_MIN.to_string()));
        }
        let partitions = options.get("partitions").and_then(|value| units::count(&shown(value)).ok());
        if partitions.is_some_and(|partitions| partitions > VERIFY_PARTITIONS_MAX) {
            options.insert("partitions".to_owned(), Value::String(VERIFY_PARTITIONS_MAX.to_string()));
        }
        options.insert("bytes".to_owned(), Value::String(VERIFY_BYTES.to_string()));
        options.insert("verify".to_owned(), Value::Boolean(true));
        Some(Step { name: "verify".to_owned(), load: Some(Action::Produce), options, ..Step::default() })
    }

    /// How much one run writes, about.
    #[must_use]
    pub(super) fn bytes_written(&self) -> u64 {
        let of = |step: &Step| match (&step.load, &step.start_stop) {
            (Some(Action::Consume), _) => 0,
            (Some(_), _) => size_of(&self.options_of(step)),
            // It makes nothing.
            _ if step.restart.is_some() => 0,
            // Loaded twice: before the clean restart, and before the kill.
            (None, Some(start_stop)) => 2 * size_of(&start_stop.load),
            // Commits are small.
            (None, None) => 0,
        };
        self.warm_up.iter().chain(&self.step).map(of).sum()
    }
}

/// What a step's values take on the disk with what stands around them: a record's own fields, its key, and its part of a batch's
/// header. Compression may make it less.
fn size_of(options: &toml::Table) -> u64 {
    let record_bytes = options.get("record_bytes").and_then(|value| units::bytes(&shown(value)).ok()).unwrap_or(1000).max(1);
    let values_bytes = values_of(options);
    values_bytes.saturating_add((values_bytes / record_bytes).saturating_mul(RECORD_OVERHEAD_BYTES))
}

/// How many bytes of values a step sends.
fn values_of(options: &toml::Table) -> u64 {
    let read = |name: &str, parse: fn(&str) -> Result<u64, String>| options.get(name).and_then(|value| parse(&shown(value)).ok());
    let record_bytes = read("record_bytes", units::bytes).unwrap_or(1000);
    if let Some(bytes) = read("bytes", units::bytes) {
        return bytes;
    }
    if let Some(records) = read("records", units::count) {
        return records.saturating_mul(record_bytes);
    }
    let seconds = options.get("duration").and_then(|value| units::duration(&shown(value)).ok()).map_or(10.0, |d| d.as_secs_f64());
    match read("rate", units::count) {
        Some(rate) => (rate.saturating_mul(record_bytes) as f64 * seconds) as u64,
        None => (ASSUMED_BYTES_PER_S * seconds) as u64,
    }
}

#[cfg(test)]
mod tests;
