//! The arguments of the commands for people. Parsed by `main`, used by the commands beside this file.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

/// Which broker, and how to show what it says.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Broker and output")]
pub struct Target {
    /// A broker of the cluster, Ringlog's or any other that speaks Kafka's protocol; several separated by commas
    #[arg(short, long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092", env = "RINGLOG_BOOTSTRAP_SERVER")]
    pub bootstrap_server: String,
    /// How long an answer may take
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// List the topics
    #[command(after_help = "Examples:
  ringlog topic list
  ringlog topic list --internal --json")]
    List {
        /// The broker's own topics, too
        #[arg(long)]
        internal: bool,
        /// Which broker.
        #[command(flatten)]
        target: Target,
    },
    /// Create topics
    #[command(after_help = "Examples:
  ringlog topic create orders
  ringlog topic create orders --partitions 6 --config retention.ms=86400000")]
    Create {
        /// Their names
        #[arg(required = true, value_name = "TOPIC")]
        names: Vec<String>,
        /// How many partitions each has [default: the broker's num.partitions]
        #[arg(short, long)]
        partitions: Option<i32>,
        /// On how many brokers each partition is kept [default: the broker's default.replication.factor]
        #[arg(short, long)]
        replication_factor: Option<i16>,
        /// A setting of the topics; may be repeated
        #[arg(short, long, value_name = "NAME=VALUE", value_parser = name_and_value)]
        config: Vec<(String, String)>,
        /// Be content where a topic exists already
        #[arg(long)]
        if_not_exists: bool,
        /// Which broker.
        #[command(flatten)]
        target: Target,
    },
    /// Show partitions, offsets, sizes and settings of topics
    #[command(after_help = "Examples:
  ringlog topic describe orders
  ringlog topic describe orders payments --json")]
    Describe {
        /// Their names
        #[arg(required = true, value_name = "TOPIC")]
        names: Vec<String>,
        /// Which broker.
        #[command(flatten)]
        target: Target,
    },
    /// Add partitions to a topic, change its settings
    #[command(after_help = "Examples:
  ringlog topic alter orders --partitions 12
  ringlog topic alter orders --set retention.ms=3600000 --unset segment.bytes")]
    Alter {
        /// Its name
        #[arg(value_name = "TOPIC")]
        name: String,
        /// How many partitions there shall be in all; they cannot become fewer
        #[arg(short, long)]
        partitions: Option<i32>,
        /// What to change.
        #[command(flatten)]
        changes: Changes,
        /// Which broker.
        #[command(flatten)]
        target: Target,
    },
    /// Delete topics with all their records
    #[command(after_help = "Examples:
  ringlog topic delete orders          shows what goes, and asks
  ringlog topic delete orders --yes    in a script")]
    Delete {
        /// Their names
        #[arg(required = true, value_name = "TOPIC")]
        names: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Which broker.
        #[command(flatten)]
        target: Target,
    },
}

/// Changes of settings.
#[derive(Args, Clone, Debug, Default)]
pub struct Changes {
    /// Give a setting a value; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub set: Vec<(String, String)>,
    /// Give a setting its default back; may be repeated
    #[arg(short, long, value_name = "NAME")]
    pub unset: Vec<String>,
}

/// What to do with settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show the settings of a topic, a consumer group or a broker
    #[command(after_help = "Examples:
  ringlog config show --topic orders         what was set for it
  ringlog config show --topic orders --all   the defaults, too
  ringlog config show --group billing --all
  ringlog config show --broker 1")]
    Show {
        /// Whose settings.
        #[command(flatten)]
        resource: ResourceArgs,
        /// Those that have their default, too
        #[arg(long)]
        all: bool,
        /// Which broker.
        #[command(flatten)]
        target: Target,
    },
    /// Change the settings of a topic, a consumer group or a broker
    #[command(after_help = "Examples:
  ringlog config alter --topic orders --set retention.ms=3600000 --set cleanup.policy=compact
  ringlog config alter --topic orders --unset retention.ms
  ringlog config alter --group billing --set consumer.session.timeout.ms=60000")]
    Alter {
        /// Whose settings.
        #[command(flatten)]
        resource: ResourceArgs,
        /// What to change.
        #[command(flatten)]
        changes: Changes,
        /// Which broker.
        #[command(flatten)]
        target: Target,
    },
}

/// What to do with consumer groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List the groups
    #[command(after_help = "Examples:
  ringlog group list
  ringlog group list --json")]
    List {
        /// Which broker.
        #[command(flatten)]
        target: Target,
    },
    /// Show members, committed offsets and lag of groups
    #[command(after_help = "Examples:
  ringlog group describe billing
  ringlog group describe billing --json | jq '.[].partitions[] | select(.lag > 0)'")]
    Describe {
        /// Their names
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        /// Which broker.
        #[command(flatten)]
        target: Target,
    },
    /// Move what a group has committed, while it has no members
    #[command(after_help = "Examples:
  ringlog group reset billing --to beginning
  ringlog group reset billing --topic orders --to @1700000000000")]
    Reset {
        /// The group
        group: String,
        /// Only this topic; may be repeated [default: all that the group has committed]
        #[arg(long = "topic", value_name = "TOPIC")]
        topics: Vec<String>,
        /// Where to: beginning, end, an offset, -N for N before the end, or @TIME (milliseconds since 1970)
        #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
        to: From,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Which broker.
        #[command(flatten)]
        target: Target,
    },
    /// Delete groups without members and what they have committed
    #[command(after_help = "Examples:
  ringlog group delete billing          shows the offsets that go, and asks
  ringlog group delete billing --yes    in a script")]
    Delete {
        /// Their names
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Which broker.
        #[command(flatten)]
        target: Target,
    },
}

/// Whose settings.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct ResourceArgs {
    /// A topic's
    #[arg(long)]
    pub topic: Option<String>,
    /// A consumer group's, whether it exists or not
    #[arg(long)]
    pub group: Option<String>,
    /// A broker's, by its id
    #[arg(long, value_name = "ID")]
    pub broker: Option<i32>,
}

/// How records are read from standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// Each line is a value
    #[default]
    Lines,
    /// Each line is a JSON object: value, key, headers, partition, timestamp
    Json,
    /// All of standard input is one value
    Whole,
}

/// How records are written to standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Each value as it is, and a newline
    #[default]
    Value,
    /// Partition, offset, time, key, headers and value, for the eye
    Full,
    /// A JSON object a line, as `ringlog produce --format json` reads it
    Json,
}

/// How records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// Not at all
    #[default]
    None,
    /// gzip
    Gzip,
    /// Snappy
    Snappy,
    /// LZ4
    Lz4,
    /// Zstandard
    Zstd,
}

/// What to produce.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  echo hello | ringlog produce greetings
  ringlog produce orders --key-separator : <orders.txt
  echo '{\"key\":\"k\",\"value\":\"v\",\"headers\":{\"h\":\"1\"}}' | ringlog produce orders --format json")]
pub struct ProduceArgs {
    /// The topic
    pub topic: String,
    /// How standard input is cut into records
    #[arg(short, long, default_value = "lines")]
    pub format: InputFormat,
    /// What stands between key and value of a line
    #[arg(short, long, value_name = "TEXT", conflicts_with = "key")]
    pub key_separator: Option<String>,
    /// The key of every record
    #[arg(long)]
    pub key: Option<String>,
    /// A header of every record; may be repeated
    #[arg(short = 'H', long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub header: Vec<(String, String)>,
    /// The partition of every record [default: by the key, as Kafka's clients choose; in turn without one]
    #[arg(short, long)]
    pub partition: Option<i32>,
    /// How the records are compressed
    #[arg(short, long, default_value = "none")]
    pub compression: Compression,
    /// Who has to have a record before it counts: all in-sync replicas, 1 (the leader), 0 (nobody)
    #[arg(long, default_value = "all", value_parser = acks)]
    pub acks: i16,
    /// Which broker.
    #[command(flatten)]
    pub target: Target,
}

/// What to consume.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  ringlog consume orders                          everything there is
  ringlog consume orders --follow --from end      what comes from now on
  ringlog consume orders --from -10 --format full the last ten of each partition")]
pub struct ConsumeArgs {
    /// The topics
    #[arg(required = true, value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// As a member of this consumer group: begin where it has committed, share the partitions with its other members, and commit
    #[arg(short, long)]
    pub group: Option<String>,
    /// Only these partitions; may be repeated
    #[arg(short, long, conflicts_with = "group")]
    pub partition: Vec<i32>,
    /// Where to begin: beginning, end, an offset, -N for the last N of each partition, or @TIME (milliseconds since 1970). With
    /// --group: where to begin in partitions of which the group has committed nothing
    #[arg(long, value_name = "WHERE", default_value = "beginning", allow_hyphen_values = true)]
    pub from: From,
    /// Go on waiting for records at the end
    #[arg(short, long)]
    pub follow: bool,
    /// End after this many records
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub count: Option<u64>,
    /// How to show them
    #[arg(long, default_value = "value")]
    pub format: OutputFormat,
    /// With --format value: show the key too, with this behind it
    #[arg(short, long, value_name = "TEXT")]
    pub key_separator: Option<String>,
    /// Which broker; --json is --format json.
    #[command(flatten)]
    pub target: Target,
}

/// Where to begin to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first record there is.
    Beginning,
    /// Behind the last record there is.
    End,
    /// At an offset.
    Offset(i64),
    /// So many records before the end.
    Last(i64),
    /// At the first record of this time or later, in milliseconds since 1970.
    Time(i64),
}

impl std::str::FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
        let found = match text {
            "beginning" | "earliest" => Some(Self::Beginning),
            "end" | "latest" => Some(Self::End),
            _ => match text.strip_prefix('@') {
                Some(time) => number(time).map(Self::Time),
                None => match text.strip_prefix('-') {
                    Some(last) => number(last).map(Self::Last),
                    None => number(text).map(Self::Offset),
                },
            },
        };
        found.ok_or_else(|| "expected beginning, end, an offset, -N for the last N, or @MILLISECONDS".to_owned())
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected seconds, above 0 and at most 86400".to_owned())
}

fn acks(text: &str) -> Result<i16, String> {
    match text {
        "all" | "-1" => Ok(-1),
        "1" => Ok(1),
        "0" => Ok(0),
        _ => Err("expected all, 1 or 0".to_owned()),
    }
}

/// Parses NAME=VALUE.
pub(crate) fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        _ => Err("expected NAME=VALUE, such as num.partitions=4".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_begin_has_five_forms() {
        let parse = |text: &str| text.parse::<From>();
        assert_eq!(parse("beginning"), Ok(From::Beginning));
        assert_eq!(parse("end"), Ok(From::End));
        assert_eq!(parse("17"), Ok(From::Offset(17)));
        assert_eq!(parse("-3"), Ok(From::Last(3)));
        assert_eq!(parse("@1000"), Ok(From::Time(1000)));
        for wrong in ["", "-", "--3", "@", "@-1", "soon", "1.5"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
