//! How long a broker takes to start, stop and come back, and what it costs to do nothing.

use std::time::{Duration, Instant};

use super::instance::Instance;
use super::spec::{StartStop as Wanted, Step};
use super::wire::Connection;
use crate::error::Error;
use crate::process::Reading;
use crate::results::StartStop;
use crate::{stop, units};

const TOPIC: &str = "first";

/// Between two attempts to get a record acknowledged.
const POLL: Duration = Duration::from_millis(1);

/// Measures on an instance that does not run and whose directory is empty; leaves it running. `load` fills the log, where the spec
/// wants that, each time into a topic of its own.
///
/// # Errors
/// The broker or the generator fails, or the user stops.
pub(super) fn measure(
    instance: &mut Instance<'_>,
    wanted: &Wanted,
    configs: &std::collections::BTreeMap<String, String>,
    mut load: impl FnMut(&Instance<'_>, &Step) -> Result<(), Error>,
) -> Result<StartStop, Error> {
    let mut loaded = |instance: &Instance<'_>, topic: &str| {
        if wanted.load.is_empty() { Ok(()) } else { load(instance, &wanted.load_step(topic)) }
    };
    let start = Instant::now();
    instance.launch()?;
    instance.wait_until(POLL, |instance| instance.answers().map_err(|error| error.to_string()))?;
    let ready_ms = ms(start);
    instance.wait_until(POLL, |instance| {
        let error = Connection::open(instance.port())
            .and_then(|mut connection| connection.create_topic(TOPIC, 1, configs))
            .map_err(|error| error.to_string())?;
        // An earlier attempt may have been carried out without having been answered.
        if error.is_none() || error == ringlog_protocol::ErrorCode::TOPIC_ALREADY_EXISTS {
            Ok(())
        } else {
            Err(error.to_string())
        }
    })?;
    wait_first_ack(instance, TOPIC)?;
    let first_ack_ms = ms(start);
    instance.wait_ready()?;
    loaded(instance, "before-stop")?;
    let stop_ms = instance.stop()?.as_secs_f64() * 1e3;
    let restart_clean_ms = restart(instance, TOPIC)?;
    instance.wait_ready()?;
    loaded(instance, "before-kill")?;
    instance.check_running()?;
    instance.kill()?;
    let restart_killed_ms = restart(instance, TOPIC)?;
    instance.wait_ready()?;
    let settle = units::duration(&wanted.settle).map_err(Error::Usage)?;
    let idle = units::duration(&wanted.idle).map_err(Error::Usage)?;
    sleep(settle)?;
    let pid = instance.pid()?;
    let gone = |_| instance.failure("ended by itself");
    let before = Reading::take(pid).map_err(gone)?;
    let idling = Instant::now();
    sleep(idle)?;
    let idle_s = idling.elapsed().as_secs_f64();
    let used = before.used_since(pid, 0).map_err(gone)?;
    instance.check_running()?;
    Ok(StartStop {
        ready_ms,
        first_ack_ms,
        stop_ms,
        restart_clean_ms,
        restart_killed_ms,
        idle_s,
        idle_cpu_percent: 100.0 * used.cpu_s / idle_s,
        idle_rss_bytes: used.rss_bytes,
        idle_switches_per_s: used.switches_voluntary as f64 / idle_s,
    })
}

/// From the start of the process to the first acknowledged record of a topic that is there.
///
/// # Errors
/// The broker fails, or the user stops.
pub(super) fn restart(instance: &mut Instance<'_>, topic: &str) -> Result<f64, Error> {
    let start = Instant::now();
    instance.launch()?;
    wait_first_ack(instance, topic)?;
    Ok(ms(start))
}

fn wait_first_ack(instance: &Instance<'_>, topic: &str) -> Result<(), Error> {
    let mut connection = None;
    instance.wait_until(POLL, |instance| {
        let open = match connection.take() {
            Some(open) => Ok(open),
            None => Connection::open(instance.port()),
        };
        let mut open = open.map_err(|error| error.to_string())?;
        let error = open.produce(topic, 0).map_err(|error| error.to_string())?;
        connection = Some(open);
        if error.is_none() { Ok(()) } else { Err(format!("a record is answered with {error}")) }
    })
}

/// Waits.
///
/// # Errors
/// The user stops.
pub(super) fn sleep(duration: Duration) -> Result<(), Error> {
    let start = Instant::now();
    while let Some(left) = duration.checked_sub(start.elapsed()) {
        if stop::requested() {
            return Err(Error::Failed("stopped".to_owned()));
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
    Ok(())
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
