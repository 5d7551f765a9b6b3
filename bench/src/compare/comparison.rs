//! A comparison under way: every workload, every round, every broker in turn. What is measured is in `result` as soon as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use indicatif::ProgressBar;

use super::arguments::{self, GroupsAction, shown};
use super::beside::Beside;
use super::broker::Broker;
use super::generator::{Called, Generator};
use super::instance::{self, Instance, SetUp};
use super::spec::{Before, Spec, Step, Workload};
use super::steady::{Filler, drop_cached};
use super::{metrics, restart, start_stop, summary};
use crate::error::Error;
use crate::guard::Guard;
use crate::results::{Compare, ComparedRun, ComparedWorkload, Groups, Load, StepOutcome, StepRun, Verified};
use crate::{stop, units};

const TOPIC: &str = "measured";
const WARM_UP_TOPIC: &str = "warm-up";
const VERIFY_TOPIC: &str = "verified";

/// What a comparison needs, and what it has so far.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    /// Who makes the load.
    pub generator: Generator,
    /// Ringlog's binary.
    pub ringlog: PathBuf,
    /// What brings the machine into its steady state.
    pub filler: Option<Filler>,
    /// The directory of results.
    pub out: PathBuf,
    /// Where the generator's own results are kept, below `out`.
    pub raw: String,
    /// All runs.
    pub bar: ProgressBar,
    /// Whether to say nothing.
    pub quiet: bool,
    /// When it began.
    pub start: Instant,
    /// Runs that have begun.
    pub runs: u32,
    /// The most memory that was free after the page cache was filled, in the run under way.
    pub free_bytes_max: u64,
    /// In the order of the table.
    pub brokers: &'a [Broker],
    /// Who cleans up if we are killed.
    pub guard: Rc<Guard>,
    /// The loops without a broker.
    pub beside: Beside,
    /// Where everything is made that does not stay.
    pub work: &'a Path,
    /// What there is so far.
    pub result: Compare,
}

impl Comparison<'_> {
    /// Runs the whole spec.
    ///
    /// # Errors
    /// The first thing that fails, or the user stops; `result` has what was measured before.
    pub(super) fn run(&mut self, spec: &Spec) -> Result<(), Error> {
        let mut set_ups = BTreeMap::new();
        for (at, broker) in self.brokers.iter().enumerate() {
            self.stage(&format!("setting up {}", broker.name));
            let directory = self.work.join(format!("setup-{}", broker.name));
            let set_up = instance::set_up(broker, &self.guard, &directory, &self.ringlog)?;
            self.result.brokers[at].version = instance::version(broker, &self.guard, &set_up, &directory)?;
            set_ups.insert(broker.name.as_str(), set_up);
        }
        for workload in &spec.workload {
            self.result.workloads.push(ComparedWorkload {
                name: workload.name.clone(),
                about: workload.about.clone(),
                mode: workload.mode.clone(),
                ..ComparedWorkload::default()
            });
            let outcome = self.workload(workload, spec.rounds, &set_ups);
            let names: Vec<String> = self.brokers.iter().map(|broker| broker.name.clone()).collect();
            if let Some(last) = self.result.workloads.last_mut() {
                last.figures = summary::summarise(&names, &last.runs, &workload.published);
            }
            outcome?;
        }
        Ok(())
    }

    /// All runs of one workload, the brokers taking turns.
    fn workload(&mut self, workload: &Workload, rounds: u32, set_ups: &BTreeMap<&str, SetUp>) -> Result<(), Error> {
        for (round, at) in turns(rounds, self.brokers.len()) {
            let broker = &self.brokers[at];
            let empty = SetUp::new();
            let run = self.one(workload, round, at, set_ups.get(broker.name.as_str()).unwrap_or(&empty))?;
            self.say(&run, &workload.name);
            if let Some(last) = self.result.workloads.last_mut() {
                last.runs.push(run);
            }
            self.bar.inc(1);
        }
        Ok(())
    }

    /// One broker's run of a workload, from its empty directory to its end.
    fn one(&mut self, workload: &Workload, round: u32, at: usize, set_up: &SetUp) -> Result<ComparedRun, Error> {
        let broker = &self.brokers[at];
        let title = format!("{}, round {round}, {}", workload.name, broker.name);
        self.runs += 1;
        let number = self.runs;
        let started_s = self.start.elapsed().as_secs_f64();
        self.free_bytes_max = 0;
        self.fill(&title)?;
        self.stage(&format!("{title}: starting"));
        let directory = self.work.join(format!("{number:03}-{}", broker.name));
        let mut instance = Instance::prepare(broker, &self.guard, set_up, directory)?;
        self.result.brokers[at].command = instance.command()?;
        self.result.brokers[at].files = instance.files()?;
        let steps = self.steps(workload, &title, number, broker, &mut instance);
        if steps.is_err() && !stop::requested() {
            self.keep_log(number, broker, &instance);
        }
        let steps = steps?;
        let verified = self.verify(workload, number, broker, &mut instance)?;
        instance.stop()?;
        let free_bytes_max = self.free_bytes_max;
        Ok(ComparedRun { broker: broker.name.clone(), round, started_s, free_bytes_max, steps, verified })
    }

    fn steps(
        &mut self,
        workload: &Workload,
        title: &str,
        number: u32,
        broker: &Broker,
        instance: &mut Instance<'_>,
    ) -> Result<Vec<StepRun>, Error> {
        let starts_itself = workload.step.first().is_some_and(|step| step.start_stop.is_some()) && workload.warm_up.is_empty();
        let mut memory_empty_bytes = 0;
        if !starts_itself {
            instance.start()?;
            if let Some(wanted) = workload.step.iter().find_map(|step| step.restart.as_ref()) {
                memory_empty_bytes = restart::memory_bytes(instance, wanted)?;
            }
        }
        let mut topics = BTreeSet::new();
        for (at, step) in workload.warm_up.iter().enumerate() {
            self.stage(&format!("{title}: warming up"));
            let directory = self.work.join(format!("warm-up-{number:03}-{at}"));
            self.load(workload, step, WARM_UP_TOPIC, &mut topics, broker, instance, &directory)?;
        }
        if !workload.warm_up.is_empty() {
            self.fill(title)?;
        }
        let mut runs = Vec::new();
        for (at, step) in workload.step.iter().enumerate() {
            self.before(step, title, instance)?;
            self.stage(&format!("{title}: {}", step.name));
            let name = format!("{number:03}-{}-{at}", broker.name);
            if let Some(wanted) = &step.restart {
                let partitions_of = |options: &toml::Table| {
                    options.get("partitions").and_then(|value| units::count(&shown(value)).ok()).unwrap_or(1)
                };
                // The topics of the warm-up are there, too.
                let warm_up: u64 = workload.warm_up.iter().take(1).map(|step| partitions_of(&step.options)).sum();
                let partitions = partitions_of(&workload.options) + warm_up;
                let measured = restart::clean(instance, wanted, TOPIC, (partitions, memory_empty_bytes))?;
                runs.push(StepRun { name: step.name.clone(), outcome: StepOutcome::Restart(measured), ..StepRun::default() });
                continue;
            }
            if step.prepares {
                let directory = self.work.join(format!("prepare-{number:03}-{at}"));
                self.load(workload, step, TOPIC, &mut topics, broker, instance, &directory)?;
                continue;
            }
            let mut run = match (&step.start_stop, step.groups) {
                (_, Some(action)) => self.groups(step, action, &name, instance)?,
                (Some(wanted), None) => {
                    if at > 0 || !starts_itself {
                        return Err(Error::Usage(format!(
                            "step {:?}: starts and stops are measured first, without a warm-up",
                            step.name
                        )));
                    }
                    let directory = self.work.join(format!("load-{number:03}"));
                    // The workload's options are for steps of load.
                    let bare = Workload { options: toml::Table::new(), ..workload.clone() };
                    let load = |instance: &Instance<'_>, step: &Step| {
                        let directory = directory.join(topics.len().to_string());
                        self.load(&bare, step, TOPIC, &mut topics, broker, instance, &directory).map(drop)
                    };
                    let measured = start_stop::measure(instance, wanted, broker.topic_configs(&workload.mode)?, load)?;
                    StepRun { name: step.name.clone(), outcome: StepOutcome::StartStop(measured), ..StepRun::default() }
                }
                (None, None) => {
                    let raw = Path::new(&self.raw).join(name);
                    let called = self.load(workload, step, TOPIC, &mut topics, broker, instance, &self.out.join(&raw))?;
                    self.kept(step, &raw, called)
                }
            };
            if let Some(wanted) = step.beside {
                self.stage(&format!("{title}: {}, the bare loop", step.name));
                let load = wanted.is_paced().then(|| workload.paced_load_of(step)).transpose().map_err(Error::Usage)?;
                run.bare = Some(self.beside.measure(wanted, load)?);
            }
            runs.push(run);
        }
        Ok(runs)
    }

    /// After all that is measured: a little more of the same load, of which every acknowledged record is read back and compared.
    fn verify(
        &mut self,
        workload: &Workload,
        number: u32,
        broker: &Broker,
        instance: &mut Instance<'_>,
    ) -> Result<Option<Verified>, Error> {
        let Some(step) = workload.verify_step() else { return Ok(None) };
        self.stage(&format!("{}: verifying", broker.name));
        let directory = self.work.join(format!("verify-{number:03}"));
        // The step has all that it takes of the workload's options.
        let bare = Workload { options: toml::Table::new(), ..workload.clone() };
        let called = self.load(&bare, &step, VERIFY_TOPIC, &mut BTreeSet::new(), broker, instance, &directory)?;
        Ok(called.measured.verify)
    }

    /// What happens to the broker before a step.
    fn before(&mut self, step: &Step, title: &str, instance: &mut Instance<'_>) -> Result<(), Error> {
        let Some(before) = step.before else { return Ok(()) };
        self.stage(&format!("{title}: restarting"));
        instance.stop()?;
        if before == Before::Cold {
            drop_cached(&instance.data())?;
        }
        self.fill(title)?;
        instance.start()
    }

    /// Calls the load generator. `topics` are those that it has made in this run.
    #[expect(clippy::too_many_arguments, reason = "each is another owner's")]
    fn load(
        &self,
        workload: &Workload,
        step: &Step,
        topic: &str,
        topics: &mut BTreeSet<String>,
        broker: &Broker,
        instance: &Instance<'_>,
        directory: &Path,
    ) -> Result<Called<Load>, Error> {
        let Some(action) = step.load else { return Err(Error::Usage(format!("step {:?} has no load", step.name))) };
        let mut options = workload.options_of(step);
        let topic = options.remove("topic").map_or_else(|| topic.to_owned(), |own| shown(&own));
        let is_new = topics.insert(topic.clone());
        if !is_new {
            options.remove("partitions");
        }
        let mut arguments = vec![action.argument().to_owned(), format!("--bootstrap=127.0.0.1:{}", instance.port())];
        arguments.push(format!("--topic={topic}"));
        arguments.extend(arguments::arguments(&options).map_err(Error::Usage)?);
        // A broker that goes away has failed, unless the spec says that it may.
        if !options.contains_key("retry_for") {
            arguments.push("--retry-for=0s".to_owned());
        }
        if is_new {
            let configs = broker.topic_configs(&workload.mode)?;
            arguments.extend(configs.iter().map(|(name, value)| format!("--topic-config={name}={value}")));
        }
        arguments.push("--keep-topic".to_owned());
        arguments.push(format!("--pid={}", instance.pid()?));
        self.generator.call(&self.guard, instance, &arguments, directory)
    }

    /// Has the generator measure consumer groups, and restarts the broker where that is part of it.
    fn groups(&self, step: &Step, action: GroupsAction, name: &str, instance: &mut Instance<'_>) -> Result<StepRun, Error> {
        let options = arguments::groups_arguments(&step.options, action).map_err(Error::Usage)?;
        let mut arguments = vec![format!("--bootstrap=127.0.0.1:{}", instance.port())];
        arguments.extend(options);
        arguments.push(format!("--pid={}", instance.pid()?));
        let raw = Path::new(&self.raw).join(name);
        let called = self.generator.call::<Groups>(&self.guard, instance, &arguments, &self.out.join(raw))?;
        let Called { command_line, stored, measured: mut groups } = called;
        if action == GroupsAction::Restart {
            groups.loaded = Some(restart::measure(instance, &arguments)?);
        }
        let raw = stored.strip_prefix(&self.out).unwrap_or(&stored).display().to_string();
        Ok(StepRun {
            name: step.name.clone(),
            command_line,
            raw: Some(raw),
            outcome: StepOutcome::Groups(Box::new(groups)),
            bare: None,
        })
    }

    /// What stays of a call: its result, and where its own files are.
    fn kept(&self, step: &Step, raw: &Path, called: Called<Load>) -> StepRun {
        let Called { command_line, stored, measured: mut load } = called;
        for latency in load.produce.iter_mut().chain(&mut load.consume).filter_map(|side| side.latency.as_mut()) {
            latency.hlog = latency.hlog.take().map(|name| raw.join(name).display().to_string());
        }
        let raw = stored.strip_prefix(&self.out).unwrap_or(&stored).display().to_string();
        StepRun { name: step.name.clone(), command_line, raw: Some(raw), outcome: StepOutcome::Load(Box::new(load)), bare: None }
    }

    /// The log of a broker that failed stays beside the results.
    fn keep_log(&self, number: u32, broker: &Broker, instance: &Instance<'_>) {
        let directory = self.out.join(&self.raw);
        let path = directory.join(format!("{number:03}-{}.log", broker.name));
        match fs::create_dir_all(&directory).and_then(|()| fs::copy(instance.log_path(), &path)) {
            Ok(_) => eprintln!("ringlog-bench: the log of {} is kept in {}", broker.name, path.display()),
            Err(error) => eprintln!("ringlog-bench: the log of {} is not kept: {error}", broker.name),
        }
    }

    fn fill(&mut self, title: &str) -> Result<(), Error> {
        self.stage(&format!("{title}: filling the page cache"));
        if let Some(filler) = &mut self.filler {
            self.free_bytes_max = self.free_bytes_max.max(filler.fill(&self.bar)?);
        }
        if stop::requested() { Err(Error::Failed("stopped".to_owned())) } else { Ok(()) }
    }

    fn stage(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// A line of what a run gave, so that whoever waits sees it come in.
    fn say(&self, run: &ComparedRun, workload: &str) {
        if self.quiet {
            return;
        }
        let mut figures = Vec::new();
        for step in &run.steps {
            for key in [
                "produce_mb_per_s",
                "produce_p99_us",
                "consume_mb_per_s",
                "cpu_s_per_gb",
                "restart_clean_ms",
                "idle_cpu_percent",
                "classic_rebalance_ms",
                "consumer_rebalance_ms",
                "classic_heartbeats_cpu_percent",
                "consumer_heartbeats_cpu_percent",
                "commits_per_s",
                "fetches_per_s",
                "offsets_load_ms",
            ] {
                let found = metrics::by_key(key).and_then(|metric| Some((metric, metric.find(step)?)));
                if let Some((metric, value)) = found {
                    figures.push(format!("{} {} {}", metric.title, metric.unit.show(value), metric.unit.name()));
                }
            }
        }
        self.bar.suspend(|| eprintln!("{workload}, round {}, {}: {}", run.round, run.broker, figures.join(", ")));
    }
}

/// Who runs when: (round, broker), A B B A, so that what drifts over time meets all of them alike.
fn turns(rounds: u32, brokers: usize) -> impl Iterator<Item = (u32, usize)> {
    let at = move |round: u32, turn: usize| if round.is_multiple_of(2) { brokers - 1 - turn } else { turn };
    (1..=rounds).flat_map(move |round| (0..brokers).map(move |turn| (round, at(round, turn))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_take_turns() {
        let turns: Vec<_> = turns(3, 3).collect();
        assert_eq!(turns, [(1, 0), (1, 1), (1, 2), (2, 2), (2, 1), (2, 0), (3, 0), (3, 1), (3, 2)]);
    }
}
