//! Which options a step of a spec may have, and what they are as arguments of the generator's commands `load` and `groups`. Pure.

use serde::Deserialize;
use toml::Value;

use crate::groups::plan_of;
use crate::units;

/// Options of `load` that `compare` itself gives.
const OURS: [&str; 8] = ["bootstrap", "topic_config", "pid", "keep_topic", "allow_remote", "out", "json", "quiet"];
/// Options of `load` for every action.
const OF_ALL: [&str; 7] = ["topic", "partitions", "client", "threads", "timeout", "warm_up", "retry_for"];
/// How much; a step of consumers takes what the topic holds, unless it says otherwise itself.
pub(super) const OF_AMOUNT: [&str; 3] = ["records", "bytes", "duration"];
/// Options of `load` where there are producers.
const OF_PRODUCERS: [&str; 13] = [
    "producers",
    "record_bytes",
    "batch_bytes",
    "batch_records",
    "linger",
    "keys",
    "key_skew",
    "compression",
    "acks",
    "idempotent",
    "in_flight",
    "rate",
    "verify",
];
/// Options of `load` where there are consumers.
const OF_CONSUMERS: [&str; 5] = ["consumers", "fan_out", "fetch_bytes_min", "fetch_bytes_max", "fetch_wait"];

/// Options of `groups`.
const OF_GROUPS: [&str; 15] = [
    "only",
    "protocol",
    "partitions",
    "members",
    "rounds",
    "beat",
    "session",
    "heartbeat_members",
    "idle_groups",
    "rest",
    "duration",
    "warm_up",
    "offsets",
    "threads",
    "timeout",
];

/// What the generator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Action {
    /// Producers.
    Produce,
    /// Consumers of what is there.
    Consume,
    /// Producers and consumers, latency from one to the other.
    EndToEnd,
    /// Producers and consumers.
    Mixed,
}

impl Action {
    /// As `load` is told.
    #[must_use]
    pub(super) fn argument(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::EndToEnd => "end-to-end",
            Self::Mixed => "mixed",
        }
    }

    /// Whether it has this option.
    #[must_use]
    pub(super) fn takes(self, option: &str) -> bool {
        let (producers, consumers) = match self {
            Self::Produce => (true, false),
            Self::Consume => (false, true),
            Self::EndToEnd | Self::Mixed => (true, true),
        };
        OF_ALL.contains(&option)
            || OF_AMOUNT.contains(&option)
            || (producers && OF_PRODUCERS.contains(&option))
            || (consumers && OF_CONSUMERS.contains(&option))
    }
}

/// What is done with consumer groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum GroupsAction {
    /// What `groups` measures.
    Measure,
    /// Offsets are committed, and the broker restarted: until it serves all of them again.
    Restart,
}

/// A value as an argument.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The options of a step of groups as arguments of `groups`.
///
/// # Errors
/// An option is none of `groups`, `compare`'s own, or its value is no scalar.
pub(super) fn groups_arguments(options: &toml::Table, action: GroupsAction) -> Result<Vec<String>, String> {
    if let Some(option) = options.keys().find(|option| !OF_GROUPS.contains(&option.as_str())) {
        return Err(format!("{option:?} is no option of groups that is free here"));
    }
    match (action, options.get("only")) {
        (GroupsAction::Restart, Some(_)) => return Err("only: a restart stores offsets and loads them".to_owned()),
        (GroupsAction::Measure, Some(only))
            if ["store", "load"].iter().any(|part| shown(only).split(',').any(|own| own == *part)) =>
        {
            return Err("only: what stores and loads offsets is groups = \"restart\"".to_owned());
        }
        _ => {}
    }
    let mut arguments = scalars(options)?;
    if action == GroupsAction::Restart {
        arguments.push("--only=store".to_owned());
    }
    plan_of(&arguments).map_err(|error| error.to_string())?;
    Ok(arguments)
}

/// Options as arguments of the generator: `record_bytes = 100` is `--record-bytes 100`, `verify = true` is `--verify`.
///
/// # Errors
/// An option is `compare`'s own, or its value is no scalar.
pub(super) fn arguments(options: &toml::Table) -> Result<Vec<String>, String> {
    for name in options.keys() {
        if OURS.contains(&name.as_str()) {
            return Err(format!("{name} is given by compare itself"));
        }
        if !is_known(name) {
            return Err(format!("{name:?} is no option of load (they are written in lower case with underscores)"));
        }
    }
    let arguments = scalars(options)?;
    check_sizes(options)?;
    Ok(arguments)
}

fn scalars(options: &toml::Table) -> Result<Vec<String>, String> {
    let mut arguments = Vec::new();
    for (name, value) in options {
        let option = format!("--{}", name.replace('_', "-"));
        match value {
            Value::Boolean(true) => arguments.push(option),
            Value::Boolean(false) => {}
            // One argument each, so that a value may begin with a dash.
            Value::String(_) | Value::Integer(_) | Value::Float(_) => arguments.push(format!("{option}={}", shown(value))),
            Value::Array(_) | Value::Table(_) | Value::Datetime(_) => {
                return Err(format!("{name} is a text, a number or true"));
            }
        }
    }
    Ok(arguments)
}

/// Whether `load` has this option, with whichever action.
#[must_use]
pub(super) fn is_known(option: &str) -> bool {
    [&OF_ALL[..], &OF_AMOUNT, &OF_PRODUCERS, &OF_CONSUMERS].concat().contains(&option)
}

/// Sizes are read here too, so that nonsense is told before the first broker is started.
fn check_sizes(options: &toml::Table) -> Result<(), String> {
    for (name, value) in options {
        let text = shown(value);
        let read = match name.as_str() {
            "bytes" | "record_bytes" | "batch_bytes" => units::bytes(&text),
            "records" | "rate" | "batch_records" | "producers" | "consumers" | "partitions" | "in_flight" | "threads" => {
                units::count(&text)
            }
            "duration" => units::duration(&text).map(|duration| duration.as_micros() as u64),
            _ => continue,
        };
        if read.map_err(|error| format!("{name}: {error}"))? == 0 {
            return Err(format!("{name}: more than 0"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::spec::{READY_MADE, Spec};
    use super::*;

    fn table(text: &str) -> toml::Table {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn options_become_arguments_of_the_generator() {
        let given = arguments(&table("record_bytes = 100\nverify = true\nidempotent = false\nlinger = '-1ms'")).unwrap();
        assert_eq!(given, ["--linger=-1ms", "--record-bytes=100", "--verify"]);
        assert_eq!(groups_arguments(&table("offsets = '5k'"), GroupsAction::Restart).unwrap(), ["--offsets=5k", "--only=store"]);
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for (options, words) in [
            ("bytes = 'many'", "bytes: \"many\" is not a number"),
            ("producers = 0", "producers: more than 0"),
            ("bootstrap = 'x'", "given by compare"),
            ("rate = [1]", "a text, a number or true"),
            ("'Rate x' = 1", "no option of load"),
        ] {
            let refused = arguments(&table(options)).unwrap_err();
            assert!(refused.contains(words), "{options}: {refused}");
        }
        for (action, options, words) in [
            (GroupsAction::Measure, "acks = 1", "\"acks\" is no option of groups"),
            (GroupsAction::Measure, "only = 'leave,store'", "groups = \"restart\""),
            (GroupsAction::Measure, "members = 'few'", "--members"),
            (GroupsAction::Measure, "members = 5\npartitions = 4", "cannot share 4 partitions"),
            (GroupsAction::Restart, "only = 'leave'", "a restart stores"),
        ] {
            let refused = groups_arguments(&table(options), action).unwrap_err();
            assert!(refused.contains(words), "{options}: {refused}");
        }
    }

    #[test]
    fn ready_made_ones_are_what_load_understands() {
        use crate::load::ClientKind;
        ready_made_by(None);
        ready_made_by(Some(ClientKind::Lean));
        if cfg!(feature = "librdkafka") {
            ready_made_by(Some(ClientKind::Librdkafka));
        }
    }

    fn ready_made_by(client: Option<crate::load::ClientKind>) {
        use clap::Parser;
        for (name, _) in READY_MADE {
            for mut workload in Spec::find(name).unwrap().workload {
                let driven = client.map_or(0, |client| workload.drive_by(client));
                assert!(client.is_none() || driven > 0 || ["start-stop", "groups"].contains(&name));
                let verify = workload.verify_step();
                assert_eq!(verify.is_some(), !["start-stop", "groups"].contains(&name));
                for step in workload.warm_up.iter().chain(&workload.step).chain(&verify) {
                    if step.restart.is_some() {
                        continue;
                    }
                    if let Some(action) = step.groups {
                        groups_arguments(&step.options, action).unwrap_or_else(|error| panic!("{name}: {error}"));
                        continue;
                    }
                    let (action, options) = match &step.start_stop {
                        Some(start_stop) => (Action::Produce, start_stop.load_step("t").options),
                        None => (step.load.unwrap(), workload.options_of(step)),
                    };
                    let mut line = vec!["ringlog-bench".to_owned(), "load".to_owned(), action.argument().to_owned()];
                    line.extend(arguments(&options).unwrap());
                    let cli = crate::cli::Cli::try_parse_from(&line).unwrap_or_else(|error| panic!("{name}: {error}"));
                    let crate::cli::Command::Load(args) = cli.command else { panic!("{line:?}") };
                    args.command.plan().unwrap_or_else(|error| panic!("{name}: {line:?}: {error}"));
                }
            }
        }
    }
}
