//! What can be wrong with a configuration, in Kafka's words where Kafka has some. Made by the tables of options, shown to the
//! user at start and to clients in CreateTopics and AlterConfigs answers.

use std::fmt;

use thiserror::Error;

use super::properties::SyntaxError;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// The text is not in the format of `.properties` files.
    #[error("{0}")]
    Syntax(#[from] SyntaxError),
    /// A value that the option does not accept.
    #[error("{}Invalid value {value} for configuration {name}: {why}", Place(*line))]
    Invalid {
        /// The line of the file, when the value comes from one.
        line: Option<usize>,
        /// The option.
        name: String,
        /// The value, as given.
        value: String,
        /// What is accepted.
        why: String,
    },
    /// A topic override with a name that no topic option has.
    #[error("Unknown topic config name: {name}")]
    UnknownTopicConfig {
        /// The name, as given.
        name: String,
    },
    /// An override of a group with a name that no option of groups has.
    #[error("Unknown group config name: {name}")]
    UnknownGroupConfig {
        /// The name, as given.
        name: String,
    },
    /// Values that are fine each, but not together.
    #[error("{what}")]
    Conflict {
        /// Which, and why.
        what: String,
    },
}

impl Problem {
    /// A wrong value that does not come from a file.
    pub(crate) fn invalid(name: &str, value: &str, why: String) -> Self {
        Self::Invalid { line: None, name: name.to_owned(), value: value.to_owned(), why }
    }

    /// The line of the file that it is on, if it is on one.
    pub(crate) fn line(&self) -> Option<usize> {
        if let Self::Invalid { line, .. } = self { *line } else { None }
    }

    /// The same problem, on that line of the file.
    pub(crate) fn on_line(self, at: Option<usize>) -> Self {
        match self {
            Self::Invalid { name, value, why, .. } => Self::Invalid { line: at, name, value, why },
            other => other,
        }
    }
}

struct Place(Option<usize>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, "line {line}: "))
    }
}

/// All that is wrong with a configuration, at least one thing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(crate) fn new(problems: Vec<Problem>) -> Self {
        assert!(!problems.is_empty(), "an error without a problem");
        Self { problems }
    }

    /// The problems: those of a file by line, then the others.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
