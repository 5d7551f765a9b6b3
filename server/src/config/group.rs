//! The options of a group of the new protocol (KIP-848, KIP-1263): Kafka's names, their meaning here, and the values that a group gets
//! from its own overrides and the broker's defaults. The catalogue checks requests with it, the group coordinator reads the typed
//! values, DescribeConfigs the table. It never stores anything.

use std::collections::BTreeMap;

use super::broker::{BrokerConfig, BrokerOptions};
use super::definition::Valid::AtLeast;
use super::definition::{Definition, Value, options, parse_overrides};
use super::error::{ConfigError, Problem};

options! {
    /// All options of one group, resolved: its own overrides, else the broker's settings.
    #[derive(Copy, Eq)]
    GroupConfig,
    /// The table of group options, by name.
    GROUP_DEFINITIONS;

    /// Milliseconds from one assignment of the group to the next, at least; between group.consumer.min.assignment.interval.ms and
    /// group.consumer.max.assignment.interval.ms.
    consumer_assignment_interval_ms: i32 = "consumer.assignment.interval.ms", default None, valid AtLeast(0),
        synonyms ["group.consumer.assignment.interval.ms" * 1];

    /// Milliseconds between two heartbeats of a member; between group.consumer.min.heartbeat.interval.ms and
    /// group.consumer.max.heartbeat.interval.ms. Members hear of it in the answer to their next heartbeat.
    consumer_heartbeat_interval_ms: i32 = "consumer.heartbeat.interval.ms", default None, valid AtLeast(1),
        synonyms ["group.consumer.heartbeat.interval.ms" * 1];

    /// Milliseconds of silence after which a member is out; between group.consumer.min.session.timeout.ms and
    /// group.consumer.max.session.timeout.ms, and longer than the heartbeat interval. It holds from a member's next heartbeat on.
    consumer_session_timeout_ms: i32 = "consumer.session.timeout.ms", default None, valid AtLeast(1),
        synonyms ["group.consumer.session.timeout.ms" * 1];
}

/// Kafka's options of groups that are not served here, by the beginning of their names.
const NOT_SERVED: [(&str, &str); 2] = [("share.", "share groups"), ("streams.", "streams groups")];

/// What an option must be between, as the broker's options have it.
struct Bounds {
    option: &'static str,
    /// The broker's own value, for groups that have none.
    default: i32,
    min: (&'static str, i32),
    max: (&'static str, i32),
}

/// The bounds of every option of the table.
fn bounds(options: &BrokerOptions) -> [Bounds; 3] {
    [
        Bounds {
            option: "consumer.assignment.interval.ms",
            default: options.group_consumer_assignment_interval_ms,
            min: ("group.consumer.min.assignment.interval.ms", options.group_consumer_min_assignment_interval_ms),
            max: ("group.consumer.max.assignment.interval.ms", options.group_consumer_max_assignment_interval_ms),
        },
        Bounds {
            option: "consumer.heartbeat.interval.ms",
            default: options.group_consumer_heartbeat_interval_ms,
            min: ("group.consumer.min.heartbeat.interval.ms", options.group_consumer_min_heartbeat_interval_ms),
            max: ("group.consumer.max.heartbeat.interval.ms", options.group_consumer_max_heartbeat_interval_ms),
        },
        Bounds {
            option: "consumer.session.timeout.ms",
            default: options.group_consumer_session_timeout_ms,
            min: ("group.consumer.min.session.timeout.ms", options.group_consumer_min_session_timeout_ms),
            max: ("group.consumer.max.session.timeout.ms", options.group_consumer_max_session_timeout_ms),
        },
    ]
}

impl Bounds {
    /// What is wrong with a value of the option, under the name that it was given by.
    fn check(&self, name: &str, value: i32) -> Option<Problem> {
        let conflict = |what: &str, (bound, at): (&str, i32)| {
            Some(Problem::Conflict { what: format!("{name} ({value}) must be {what} than or equal to {bound} ({at})") })
        };
        if value < self.min.1 {
            conflict("greater", self.min)
        } else if value > self.max.1 {
            conflict("less", self.max)
        } else {
            None
        }
    }
}

/// What of the broker's own options of groups does not fit together.
pub(super) fn broker_conflicts(options: &BrokerOptions) -> Vec<Problem> {
    let (heartbeat, session) = (options.group_consumer_heartbeat_interval_ms, options.group_consumer_session_timeout_ms);
    let mut problems = Vec::new();
    for bounds in bounds(options) {
        let ((min, at_least), (max, at_most)) = (bounds.min, bounds.max);
        if at_least > at_most {
            let what = format!("{max} ({at_most}) must be greater than or equal to {min} ({at_least})");
            problems.push(Problem::Conflict { what });
        } else {
            problems.extend(bounds.check(&format!("group.{}", bounds.option), bounds.default));
        }
    }
    if heartbeat >= session {
        let what = format!(
            "group.consumer.heartbeat.interval.ms ({heartbeat}) must be less than group.consumer.session.timeout.ms ({session})"
        );
        problems.push(Problem::Conflict { what });
    }
    problems
}

impl GroupConfig {
    /// Computes a group's configuration from overrides that somebody wants it to have.
    ///
    /// # Errors
    /// All that is wrong with them: names that no group option has, values out of the broker's bounds, contradictions.
    pub fn resolve(broker: &BrokerConfig, overrides: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let (values, mut problems) = parse_overrides(overrides, definition, unknown);
        for bounds in bounds(&broker.options) {
            if let Some(Value::Int(value)) = values.get(bounds.option) {
                problems.extend(bounds.check(bounds.option, *value));
            }
        }
        let config = Self::from_values(|name| values.get(name).or_else(|| broker.inherited(definition(name)?)));
        if problems.is_empty() {
            problems.extend(config.conflict());
        }
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::new(problems)) }
    }

    /// A group's configuration of overrides that it has: the broker's bounds may be others by now, and the values are taken into them.
    /// Also says what of the overrides does not hold, for a warning.
    #[must_use]
    pub fn effective(broker: &BrokerConfig, overrides: &BTreeMap<String, String>) -> (Self, Vec<String>) {
        let (mut values, problems) = parse_overrides(overrides, definition, unknown);
        let mut warnings: Vec<String> = problems.iter().map(ToString::to_string).collect();
        for bounds in bounds(&broker.options) {
            if let Some(Value::Int(value)) = values.get_mut(bounds.option)
                && let Some(problem) = bounds.check(bounds.option, *value)
            {
                *value = (*value).clamp(bounds.min.1, bounds.max.1);
                warnings.push(format!("{problem}; taken as {value}"));
            }
        }
        let config = Self::from_values(|name| values.get(name).or_else(|| broker.inherited(definition(name)?)));
        match config.conflict() {
            // Members that do as they are told would be put out.
            Some(conflict) => {
                warnings.push(format!("{conflict}; both are the broker's"));
                let Self { consumer_heartbeat_interval_ms, consumer_session_timeout_ms, .. } = broker.group_defaults;
                (Self { consumer_heartbeat_interval_ms, consumer_session_timeout_ms, ..config }, warnings)
            }
            None => (config, warnings),
        }
    }

    /// What of it contradicts something else.
    fn conflict(&self) -> Option<Problem> {
        let (heartbeat, session) = (self.consumer_heartbeat_interval_ms, self.consumer_session_timeout_ms);
        (session <= heartbeat).then(|| Problem::Conflict {
            what: format!(
                "consumer.session.timeout.ms ({session}) must be greater than consumer.heartbeat.interval.ms ({heartbeat})"
            ),
        })
    }
}

fn unknown(name: &str) -> Problem {
    match NOT_SERVED.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        Some((_, what)) => {
            let accepted: Vec<&str> = GROUP_DEFINITIONS.iter().map(|definition| definition.name).collect();
            Problem::Conflict { what: format!("{name}: {what} are not served; accepted: {}", accepted.join(", ")) }
        }
        None => Problem::UnknownGroupConfig { name: name.to_owned() },
    }
}

/// The definition of the group option with this name.
#[must_use]
pub fn definition(name: &str) -> Option<&'static Definition> {
    GROUP_DEFINITIONS.iter().find(|definition| definition.name == name)
}
