//! Reading back what was acknowledged: after a run of producers alone, or by a later process from a verify log.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::admin::Admin;
use super::client::Topic;
use super::consume::{self, ConsumerSpec};
use super::control::{Budget, Clock, Lane, Phase, Shared, Signal, Times};
use super::measure::Role;
use super::plan::{Amount, Plan};
use super::session::{Finished, used};
use super::verify::Tracker;
use super::verify_log;
use crate::error::Error;
use crate::process::Reading;
use crate::progress::Progress;
use crate::results::{Load, Verified};
use crate::stop;

/// Reads every partition from `starts` to `ends` once into `tracker`; tells how long it took, and shows how far it is.
///
/// # Errors
/// The broker fails, or Ctrl-C ends it.
pub(crate) fn read_back(
    admin: &Admin,
    topic: &Topic,
    starts: &[i64],
    ends: &[i64],
    mut tracker: Tracker,
    progress: &Progress,
) -> Result<(Tracker, Duration), Error> {
    const BYTES_MAX: i32 = 4 << 20;
    let started = Instant::now();
    let bar = progress.count("reading back what was acknowledged", offsets_between(starts, ends));
    for (leader, partitions) in topic.by_leader() {
        let spec = ConsumerSpec {
            leader,
            topic: topic.name.clone(),
            topic_id: topic.id,
            partitions: partitions.iter().map(|partition| (*partition, starts[*partition as usize])).collect(),
            ends: Some(partitions.iter().map(|partition| ends[*partition as usize]).collect()),
            again: false,
            bytes_min: 1,
            bytes_max: BYTES_MAX,
            wait_ms: 500,
            end_to_end: false,
            tracker: Some(tracker),
            retry_for: admin.retry_for,
        };
        let times = Times { start_ns: 0, measure_ns: 0, deadline_ns: None };
        let (signal, watch) = watch::channel(Signal { phase: Phase::Run(times) });
        let shared = Shared {
            clock: Clock::new(),
            budget: Arc::new(Budget::new(Amount::Once)),
            connected: Arc::default(),
            producing: Arc::new(AtomicUsize::new(0)),
            timeout: admin.timeout,
            outages: Arc::default(),
        };
        let (intervals, read) = std::sync::mpsc::channel();
        let lane = Lane { shared, signal: watch, role: Role::Consume, intervals, recorder: Default::default() };
        let report = admin.runtime.block_on(async {
            let mut reading = std::pin::pin!(consume::run(spec, lane));
            loop {
                tokio::select! {
                    report = &mut reading => return report.map(Some),
                    () = tokio::time::sleep(Duration::from_millis(100)) => {
                        signal.send_modify(|_| {});
                        bar.inc(read.try_iter().map(|interval| interval.records).sum());
                    }
                    () = stop::wait() => return Ok(None),
                }
            }
        });
        let Some((back, _)) = report?.and_then(|report| report.tracker) else {
            return Err(Error::Failed("interrupted while reading back: nothing is known of what was acknowledged".to_owned()));
        };
        tracker = back;
    }
    bar.finish_and_clear();
    Ok((tracker, started.elapsed()))
}

/// How many offsets there are from one end of all partitions to the other.
pub(crate) fn offsets_between(starts: &[i64], ends: &[i64]) -> u64 {
    starts.iter().zip(ends).map(|(start, end)| end.saturating_sub(*start).max(0) as u64).sum()
}

/// `load verify`: reads back what earlier runs got acknowledged.
///
/// # Errors
/// The log is none, the topic is gone, or the broker fails.
pub(crate) fn verify(plan: &Plan, progress: &Progress) -> Result<Finished, Error> {
    let Some(path) = &plan.verify_log else { return Err(Error::Usage("--verify-log is missing".to_owned())) };
    let log = verify_log::read(path)?;
    let admin = Admin::new(plan)?;
    let Some(topic) = admin.find(&log.topic)? else {
        return Err(Error::Failed(format!("topic {} of {} is not there", log.topic, path.display())));
    };
    if topic.partitions.len() < log.starts.len() {
        return Err(Error::Failed(format!(
            "topic {} has {} partitions, it had {}",
            log.topic,
            topic.partitions.len(),
            log.starts.len()
        )));
    }
    let mut starts = log.starts.clone();
    starts.resize(topic.partitions.len(), 0);
    let acks = if log.acks_all { -1 } else { 1 };
    let ends = admin.settled_ends(&topic, acks)?;
    if let Some(partition) = starts.iter().zip(&ends).position(|(start, end)| start > end) {
        let (start, end) = (starts[partition], ends[partition]);
        let text =
            format!("partition {partition} ends at offset {end}; before the first run of {} it ended at {start}", path.display());
        return Err(Error::Failed(text));
    }
    let own = Reading::take(std::process::id()).ok();
    let tracker = Tracker::new(log.runs.iter().map(|run| (run.run, run.value_bytes)));
    let (tracker, elapsed) = read_back(&admin, &topic, &starts, &ends, tracker, progress)?;
    let mut verified = Verified::default();
    tracker.finish(&log.runs, |_| true, &mut verified);
    let settings = vec![
        ("run".to_owned(), plan.what.to_owned()),
        ("bootstrap".to_owned(), plan.bootstrap.clone()),
        ("topic".to_owned(), log.topic.clone()),
        ("partitions".to_owned(), topic.partitions.len().to_string()),
        ("runs".to_owned(), log.runs.len().to_string()),
        ("read back in".to_owned(), format!("{:.1} s", elapsed.as_secs_f64())),
    ];
    let generator = used(Some(std::process::id()), own, 0).unwrap_or_default();
    Ok(Finished { load: Load { settings, generator, verify: Some(verified), ..Load::default() }, logs: Vec::new() })
}
