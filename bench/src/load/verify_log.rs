//! The file that keeps what was acknowledged, so that a later process can look whether it is still there: after a crash of the
//! broker, or of ourselves. JSON, replaced as a whole, one entry for each run against the same topic.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::client::Topic;
use super::plan::Plan;
use super::verify::RunLedger;
use crate::error::Error;

/// What the file says that it is.
const KIND: &str = "ringlog-bench verify log 2";

/// The file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct VerifyLog {
    kind: String,
    /// The topic.
    pub topic: String,
    /// Where each partition ended before the first run.
    pub starts: Vec<i64>,
    /// Whether all runs waited for all in-sync replicas.
    pub acks_all: bool,
    /// What each run sent, and what of it was acknowledged.
    pub runs: Vec<RunLedger>,
}

/// Reads the file.
///
/// # Errors
/// It cannot be read, or is none.
pub(crate) fn read(path: &Path) -> Result<VerifyLog, Error> {
    let text = fs::read_to_string(path).map_err(Error::io(path))?;
    let none = |why: String| Error::Usage(format!("{} is no verify log: {why}", path.display()));
    let log: VerifyLog = serde_json::from_str(&text).map_err(|error| none(error.to_string()))?;
    if log.kind != KIND { Err(none(format!("it is {:?}, not {KIND:?}", log.kind))) } else { Ok(log) }
}

/// Adds a run that begins, to a new file or to that of earlier runs against the same topic.
///
/// # Errors
/// The file is of another topic, or cannot be written.
pub(crate) fn begin(path: &Path, plan: &Plan, topic: &Topic, starts: &[i64], run: RunLedger) -> Result<(), Error> {
    let acks_all = plan.produce.as_ref().is_some_and(|produce| produce.acks == -1);
    let mut log = if path.exists() {
        let log = read(path)?;
        if log.topic != topic.name {
            return Err(Error::Usage(format!("{} is of topic {}, not {}", path.display(), log.topic, topic.name)));
        }
        log
    } else {
        VerifyLog { kind: KIND.to_owned(), topic: topic.name.clone(), starts: starts.to_vec(), acks_all, runs: Vec::new() }
    };
    log.acks_all &= acks_all;
    log.runs.push(run);
    write(path, &log)
}

/// Writes what the last run knows now.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn update(path: &Path, run: RunLedger) -> Result<(), Error> {
    let mut log = read(path)?;
    match log.runs.iter_mut().find(|known| known.run == run.run) {
        Some(known) => *known = run,
        None => log.runs.push(run),
    }
    write(path, &log)
}

fn write(path: &Path, log: &VerifyLog) -> Result<(), Error> {
    let text = serde_json::to_string(log).map_err(|error| Error::Failed(format!("the verify log has no JSON: {error}")))?;
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let written = fs::write(&partial, text + "\n").and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written.map_err(Error::io(path))
}
