//! What a broker is to `compare`: a file in TOML that says how it is fetched, prepared, started, known to be ready and stopped.
//! Ringlog and Kafka come with the binary; a user's file adds any other. Reads and checks descriptions, starts nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::template;
use crate::error::Error;
use crate::units;

/// The descriptions that come with the binary: name and text.
pub(super) const READY_MADE: [(&str, &str); 2] =
    [("ringlog", include_str!("brokers/ringlog.toml")), ("kafka", include_str!("brokers/kafka.toml"))];

/// A broker's description. In commands, files and environment these stand for what a run decides: `{data}` an empty directory,
/// `{work}` the directory above it, `{port}` a free port of loopback, `{port2}` another, `{uuid}` a new id as Kafka writes them,
/// `{ringlog}` the binary of Ringlog, `{setup}` the directory of `[setup]`, and what its `variables` name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Broker {
    /// What it is called in specs and tables.
    pub name: String,
    /// What a reader should know of it: the version, the memory it gets.
    #[serde(default)]
    pub about: String,
    /// Done once, before the first run.
    #[serde(default)]
    pub setup: Setup,
    /// A command that prints the version.
    pub version: Option<Vec<String>>,
    /// Written into `{work}` before every run.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Run in `{work}` one after the other, before the first start on a directory.
    #[serde(default)]
    pub prepare: Vec<Vec<String>>,
    /// Starts the broker, which stays in the foreground, on `{data}`, listening on 127.0.0.1:`{port}`.
    pub command: Vec<String>,
    /// Added to the environment of all its commands.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// When it is ready.
    #[serde(default)]
    pub ready: Ready,
    /// How it is stopped: by SIGTERM.
    #[serde(default)]
    pub stop: Stop,
    /// Run after every run, however it ended.
    #[serde(default)]
    pub clean_up: Vec<Vec<String>>,
    /// By mode of a workload (`durable`, `page_cache`): the configs of its topics.
    #[serde(default)]
    pub topic_configs: BTreeMap<String, BTreeMap<String, String>>,
    /// How `--set` reaches it.
    pub setting: Option<Setting>,
}

/// What is done once for a broker.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Setup {
    /// Written into `{setup}`.
    pub files: BTreeMap<String, String>,
    /// Run in `{setup}` one after the other, for instance to fetch the broker.
    pub commands: Vec<Vec<String>>,
    /// Placeholders that hold what a file in `{setup}` says once the commands have run.
    pub variables: BTreeMap<String, String>,
}

/// When a broker is ready: it answers ApiVersions, and these.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ready {
    /// A text that it must have printed since it was started.
    pub log_contains: Option<String>,
    /// How long it may take.
    pub timeout: String,
}

impl Default for Ready {
    fn default() -> Self {
        Self { log_contains: None, timeout: "90s".to_owned() }
    }
}

/// How a broker ends after SIGTERM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Stop {
    /// Exit statuses of a clean stop, as a shell says them.
    pub statuses: Vec<i32>,
    /// How long it may take.
    pub timeout: String,
}

impl Default for Stop {
    fn default() -> Self {
        Self { statuses: vec![0], timeout: "90s".to_owned() }
    }
}

/// How a setting of the user's (`--set`) reaches a broker; `{name}` and `{value}` are its.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum Setting {
    /// Arguments at the end of the command.
    Arguments(Vec<String>),
    /// A line `name=value` at the end of this one of `files`.
    File(String),
}

impl Broker {
    /// A ready-made one.
    ///
    /// # Errors
    /// There is none of that name.
    pub(super) fn ready_made(name: &str) -> Result<Self, Error> {
        let found = READY_MADE.iter().find(|(known, _)| *known == name);
        let (_, text) = found.ok_or_else(|| {
            let known: Vec<_> = READY_MADE.iter().map(|(name, _)| *name).collect();
            Error::Usage(format!("broker {name} is not known; {} are, and --broker FILE adds others", known.join(" and ")))
        })?;
        Self::parse(text, name)
    }

    /// A user's.
    ///
    /// # Errors
    /// The file cannot be read, or describes no broker.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&fs::read_to_string(path).map_err(Error::io(path))?, &path.display().to_string())
    }

    /// Reads a description; `origin` is for errors.
    ///
    /// # Errors
    /// It describes no broker.
    pub(super) fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        let broker: Self = toml::from_str(text).map_err(|error| in_one_line(origin, &error))?;
        broker.check().map_err(|error| Error::Usage(format!("{origin}: {error}")))?;
        Ok(broker)
    }

    /// Whatever can be wrong before it is started.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        let is_plain =
            |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_plain(&self.name) || self.name.starts_with('.') {
            return Err(format!("name: {:?} is not made of letters, digits, '-', '_' and '.'", self.name));
        }
        self.ready_timeout()?;
        self.stop_timeout()?;
        let mut values = run_names();
        values.extend(setup_names());
        values.extend(self.setup.variables.keys().map(|name| (name.clone(), String::new())));
        let check = |what: &str, text: &str, values: &BTreeMap<String, String>| {
            template::fill(text, values).map(drop).map_err(|error| format!("{what}: {error}"))
        };
        for (what, commands, values) in [
            ("setup.commands", &self.setup.commands, &setup_names()),
            ("prepare", &self.prepare, &values),
            ("command", &vec![self.command.clone()], &values),
            ("version", &self.version.iter().cloned().collect(), &values),
            ("clean_up", &self.clean_up, &values),
        ] {
            for command in commands {
                if command.first().is_none_or(String::is_empty) {
                    return Err(format!("{what}: a command is empty"));
                }
                command.iter().try_for_each(|part| check(what, part, values))?;
            }
        }
        for (what, files, values) in [("setup.files", &self.setup.files, &setup_names()), ("files", &self.files, &values)] {
            for (name, text) in files {
                if !is_plain(name) || name.starts_with('.') {
                    return Err(format!("{what}: {name:?} is not a plain file name"));
                }
                check(&format!("{what}: {name}"), text, values)?;
            }
        }
        for (name, value) in &self.environment {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(format!("environment: {name:?} is not a variable's name"));
            }
            check(&format!("environment: {name}"), value, &values)?;
        }
        for (name, file) in &self.setup.variables {
            if run_names().contains_key(name) || setup_names().contains_key(name) || !is_plain(file) || file.starts_with('.') {
                return Err(format!("setup.variables: {name} = {file:?} is taken, or no plain file name"));
            }
        }
        let texts = self.command.iter().chain(self.files.values()).chain(self.environment.values());
        if !texts.into_iter().any(|text| text.contains("{port}")) {
            return Err("neither command, files nor environment use {port}: the broker has to listen there".to_owned());
        }
        match &self.setting {
            Some(Setting::File(file)) if !self.files.contains_key(file) => Err(format!("setting.file: files have no {file}")),
            Some(Setting::Arguments(arguments)) => {
                let values = setting_values("", "");
                arguments.iter().try_for_each(|part| check("setting.arguments", part, &values))
            }
            _ => Ok(()),
        }
    }

    /// With a setting of the user's.
    ///
    /// # Errors
    /// The description does not say how.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let wrong = |error: String| Error::Usage(format!("settings of broker {}: {error}", self.name));
        match &self.setting {
            None => return Err(wrong("its description has no [setting]".to_owned())),
            Some(Setting::Arguments(arguments)) => {
                let values = setting_values(name, value);
                for part in arguments {
                    let filled = template::fill(part, &values).map_err(wrong)?;
                    self.command.push(filled.replace('{', "{{").replace('}', "}}"));
                }
            }
            Some(Setting::File(file)) => {
                if name.contains('\n') || value.contains('\n') {
                    return Err(wrong("a setting is one line".to_owned()));
                }
                let line = format!("{name}={value}\n").replace('{', "{{").replace('}', "}}");
                if let Some(text) = self.files.get_mut(file) {
                    text.push_str(&line);
                }
            }
        }
        Ok(())
    }

    /// The configs of topics in a mode.
    ///
    /// # Errors
    /// The description does not know the mode.
    pub(super) fn topic_configs(&self, mode: &str) -> Result<&BTreeMap<String, String>, Error> {
        self.topic_configs.get(mode).ok_or_else(|| {
            Error::Usage(format!("broker {} has no [topic_configs.{mode}], which a workload of the spec needs", self.name))
        })
    }

    /// How long a start may take.
    ///
    /// # Errors
    /// It is no duration.
    pub(super) fn ready_timeout(&self) -> Result<Duration, String> {
        units::duration(&self.ready.timeout).map_err(|error| format!("ready.timeout: {error}"))
    }

    /// How long a stop may take.
    ///
    /// # Errors
    /// It is no duration.
    pub(super) fn stop_timeout(&self) -> Result<Duration, String> {
        units::duration(&self.stop.timeout).map_err(|error| format!("stop.timeout: {error}"))
    }
}

/// What a TOML error says, in one line with its place.
pub(super) fn in_one_line(origin: &str, error: &toml::de::Error) -> Error {
    let message = error.message().trim().replace('\n', " ");
    Error::Usage(format!("{origin}: {message}"))
}

fn names(list: &[&str]) -> BTreeMap<String, String> {
    list.iter().map(|name| ((*name).to_owned(), String::new())).collect()
}

fn run_names() -> BTreeMap<String, String> {
    names(&["data", "work", "port", "port2", "uuid"])
}

fn setup_names() -> BTreeMap<String, String> {
    names(&["setup", "ringlog"])
}

fn setting_values(name: &str, value: &str) -> BTreeMap<String, String> {
    [("name", name), ("value", value)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "name = 'mine'\ncommand = ['mine', '{data}', '{port}']\n";

    fn refusal(text: &str) -> String {
        Broker::parse(text, "file").unwrap_err().to_string()
    }

    #[test]
    fn ready_made_ones_are_sound_and_know_both_modes() {
        for (name, _) in READY_MADE {
            let broker = Broker::ready_made(name).unwrap();
            assert_eq!(broker.name, name);
            assert_eq!(broker.topic_configs("durable").unwrap()["flush.messages"], "1");
            assert!(broker.topic_configs("page_cache").is_ok());
            assert!(broker.topic_configs("other").is_err());
        }
        assert!(Broker::ready_made("rabbit").unwrap_err().to_string().contains("ringlog and kafka"));
    }

    #[test]
    fn the_least_is_enough() {
        let broker = Broker::parse(LEAST, "file").unwrap();
        assert_eq!(broker.stop.statuses, [0]);
        assert_eq!(broker.ready_timeout(), Ok(Duration::from_secs(90)));
    }

    #[test]
    fn nonsense_is_refused_with_its_place() {
        assert!(refusal("name = 'x'\n").contains("missing field `command`"));
        assert!(refusal(&format!("{LEAST}colour = 'red'\n")).contains("unknown field `colour`"));
        assert!(refusal("name = 'x'\ncommand = ['x', '{prot}']").contains("command: {prot} stands for nothing"));
        assert!(refusal("name = 'x'\ncommand = ['x']").contains("use {port}"));
        assert!(refusal("name = 'x'\ncommand = []").contains("a command is empty"));
        assert!(refusal("name = '../x'\ncommand = ['x', '{port}']").contains("name"));
        assert!(refusal(&format!("{LEAST}[ready]\ntimeout = 'soon'\n")).contains("ready.timeout"));
        assert!(refusal(&format!("{LEAST}[files]\n'../x' = ''\n")).contains("plain file name"));
        assert!(refusal(&format!("{LEAST}[setup]\ncommands = [['x', '{{port}}']]\n")).contains("setup.commands"));
        assert!(refusal(&format!("{LEAST}[setup.variables]\nport = 'x'\n")).contains("is taken"));
        assert!(refusal(&format!("{LEAST}[setting]\nfile = 'x'\n")).contains("files have no x"));
        let error = refusal("name = ");
        assert!(error.starts_with("file: ") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn settings_reach_the_command_or_the_file() {
        let mut broker = Broker::ready_made("ringlog").unwrap();
        broker.set("a.b", "{1}").unwrap();
        assert_eq!(broker.command[broker.command.len() - 2..], ["--set", "a.b={{1}}"]);
        let mut broker = Broker::ready_made("kafka").unwrap();
        broker.set("num.network.threads", "2").unwrap();
        assert!(broker.files["server.properties"].ends_with("\nnum.network.threads=2\n"));
        assert!(broker.set("a", "b\nc=d").is_err());
        let mut broker = Broker::parse(LEAST, "file").unwrap();
        assert!(broker.set("a", "b").is_err());
    }
}
