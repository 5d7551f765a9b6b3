//! The command line. Parsed by `main`; knows no option of the broker but the few with a flag of their own.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{BrokerConfig, ConfigError};
use crate::tool::{ConfigCommand, ConsumeArgs, GroupCommand, ProduceArgs, Target, TopicCommand, name_and_value};

/// `ringlog` and its arguments.
#[derive(Debug, Parser)]
#[command(name = "ringlog", version, about, args_conflicts_with_subcommands = true)]
#[command(long_about = "A log broker that speaks Apache Kafka's wire protocol. Without a command it serves.")]
pub struct Cli {
    /// What to do; serve if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The arguments of serve.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker until SIGTERM or SIGINT
    Serve(ServeArgs),
    /// Look into logs offline: data directories or single partitions, Ringlog's or Kafka's
    #[command(subcommand)]
    Log(LogCommand),
    /// List, create, describe, alter and delete topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Send records from standard input to a topic
    Produce(ProduceArgs),
    /// Print the records of topics
    Consume(ConsumeArgs),
    /// List, describe, reset and delete consumer groups
    #[command(subcommand)]
    Group(GroupCommand),
    /// Show and change settings of topics, consumer groups and brokers
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show the brokers of a cluster, its size and its health
    #[command(after_help = "Examples:
  ringlog status
  ringlog status -b broker.example:9092 --json")]
    Status(Target),
    /// Print a script that completes arguments in a shell
    #[command(after_help = "Example: ringlog completions bash >~/.local/share/bash-completion/completions/ringlog")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How to run the broker.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ServeArgs {
    /// A configuration file in the format of Kafka's server.properties
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the data is kept [default: data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Where to listen: HOST:PORT or NAME://HOST:PORT; may be repeated [default: 127.0.0.1:9092]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// What clients are told to connect to: HOST:PORT or NAME://HOST:PORT; may be repeated [default: as --listen]
    #[arg(long, value_name = "ADDR")]
    pub advertised_listener: Vec<String>,
    /// Any option of the configuration file; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub set: Vec<(String, String)>,
}

/// What to do with logs.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Print every batch
    Dump {
        /// A partition's folder or a data directory
        dir: PathBuf,
        /// Print the records inside, too
        #[arg(long)]
        records: bool,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Check every CRC, offset and index; the exit status says whether all is well
    Verify {
        /// A partition's folder or a data directory
        dir: PathBuf,
    },
    /// Make damaged logs sound again: say what would be cut and rebuilt, and why; with --execute do it
    ///
    /// A sound batch is never taken away, wherever it stands; a copy of what is cut is kept beside it (*.cut). The directory must
    /// not be in use. The exit status says whether all is well.
    Repair {
        /// A partition's folder or a data directory
        dir: PathBuf,
        /// Do it; without, nothing is changed
        #[arg(long, visible_alias = "apply")]
        execute: bool,
        /// Change nothing, which is the default
        #[arg(long, conflicts_with = "execute")]
        dry_run: bool,
    },
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read ({error}); check --config", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{origin}: {error}")]
    Config {
        /// Where it comes from: a file, or the command line.
        origin: String,
        /// What is wrong.
        error: ConfigError,
    },
}

impl ServeArgs {
    /// The configuration of the file with what the command line changes, and the names in either that mean nothing.
    ///
    /// # Errors
    /// When the file cannot be read, or a value is wrong.
    pub fn load(&self) -> Result<(BrokerConfig, Vec<String>), LoadError> {
        let file = match &self.config {
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => Some(text),
                Err(error) => return Err(LoadError::File { path: path.clone(), error }),
            },
            None => None,
        };
        BrokerConfig::load(file.as_deref(), &self.overrides()).map_err(|error| {
            let origin = self.config.as_ref().map_or_else(|| "command line".to_owned(), |path| path.display().to_string());
            LoadError::Config { origin, error }
        })
    }

    /// The flags as options of the configuration. Those with a flag of their own win over --set.
    fn overrides(&self) -> Vec<(String, String)> {
        let mut overrides = self.set.clone();
        let mut add = |name: &str, value: String| overrides.push((name.to_owned(), value));
        if let Some(dir) = &self.data_dir {
            add("log.dirs", dir.clone());
        }
        if !self.listen.is_empty() {
            add("listeners", with_names(&self.listen));
        }
        if !self.advertised_listener.is_empty() {
            add("advertised.listeners", with_names(&self.advertised_listener));
        }
        overrides
    }
}

/// Listeners as the configuration wants them: an address without a name is PLAINTEXT's.
fn with_names(addresses: &[String]) -> String {
    let named = |address: &String| {
        if address.contains("://") { address.clone() } else { format!("PLAINTEXT://{address}") }
    };
    addresses.iter().map(named).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Cli {
        Cli::try_parse_from([&["ringlog"], args].concat()).unwrap()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_argument_at_all_serves_with_the_defaults() {
        let cli = parse(&[]);
        assert!(cli.command.is_none());
        let (config, unknown) = cli.serve.load().unwrap();
        assert_eq!(config.data_dir, PathBuf::from("data"));
        assert_eq!(config.listeners[0].bind.to_string(), "127.0.0.1:9092");
        assert!(unknown.is_empty());
    }

    #[test]
    fn flags_win_over_set_and_set_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.properties");
        std::fs::write(&file, "num.partitions=2\nlog.dirs=/from/file\nlog.retention.hours=5\nno.such.name=1\n").unwrap();
        let args = ["serve", "--config", file.to_str().unwrap(), "--set", "num.partitions=3", "--set", "log.dirs=/from/set"];
        let flags =
            ["--data-dir", "/from/flag", "--listen", "0.0.0.0:1", "--advertised-listener", "host:2", "--listen", "B://[::1]:3"];
        let Some(Command::Serve(serve)) =
            parse(&[&args[..], &flags, &["--set", "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,B:PLAINTEXT"]].concat())
                .command
        else {
            panic!("serve was asked for");
        };
        let (config, unknown) = serve.load().unwrap();
        assert_eq!(config.options.num_partitions, 3);
        assert_eq!(config.options.log_retention_hours, 5);
        assert_eq!(config.data_dir, PathBuf::from("/from/flag"));
        let listeners: Vec<_> = config.listeners.iter().map(|l| (l.name.as_str(), l.bind.to_string())).collect();
        assert_eq!(listeners, [("PLAINTEXT", "0.0.0.0:1".to_owned()), ("B", "[::1]:3".to_owned())]);
        assert_eq!(config.listeners[0].advertised.as_ref().unwrap().to_string(), "host:2");
        assert_eq!(unknown, ["no.such.name"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let error = parse(&["--config", "/no/such/file"]).serve.load().unwrap_err().to_string();
        assert!(error.contains("/no/such/file") && error.contains("--config"), "{error}");
        let error = parse(&["--set", "num.partitions=many"]).serve.load().unwrap_err().to_string();
        assert!(error.contains("num.partitions") && !error.contains('\n'), "{error}");
        assert!(Cli::try_parse_from(["ringlog", "--set", "nothing"]).is_err());
    }

    #[test]
    fn logs_are_looked_into() {
        let Some(Command::Log(LogCommand::Dump { dir, records, json })) = parse(&["log", "dump", "d", "--json"]).command else {
            panic!("dump was asked for");
        };
        assert_eq!((dir, records, json), (PathBuf::from("d"), false, true));
        assert!(matches!(parse(&["log", "verify", "d"]).command, Some(Command::Log(LogCommand::Verify { .. }))));
        for (arguments, wanted) in
            [(&["d"][..], false), (&["d", "--dry-run"], false), (&["d", "--execute"], true), (&["--apply", "d"], true)]
        {
            let parsed = parse(&[&["log", "repair"], arguments].concat()).command;
            let Some(Command::Log(LogCommand::Repair { execute, .. })) = parsed else { panic!("repair was asked for") };
            assert_eq!(execute, wanted);
        }
    }
}
