//! A broker that is restarted with all that it has: how long it takes to acknowledge a record again, and what memory that takes;
//! or to serve the offsets that were committed before.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::instance::Instance;
use super::spec::Restart as Wanted;
use super::start_stop;
use crate::error::Error;
use crate::groups::offsets::served_at;
use crate::groups::plan_of;
use crate::process::anonymous_bytes;
use crate::results::{OffsetsLoaded, Restart};
use crate::units;

/// Between two attempts to get an answer.
const POLL: Duration = Duration::from_millis(1);

/// Stops the broker, starts it again, and waits for a record to be acknowledged in the topic, which is there. `made`: how many
/// partitions the topic has, and what memory the broker had before.
///
/// # Errors
/// The broker fails, or the user stops.
pub(super) fn clean(instance: &mut Instance<'_>, wanted: &Wanted, topic: &str, made: (u64, u64)) -> Result<Restart, Error> {
    let stop_ms = instance.stop()?.as_secs_f64() * 1e3;
    let restart_clean_ms = start_stop::restart(instance, topic)?;
    instance.wait_ready()?;
    let memory_bytes = memory_bytes(instance, wanted)?;
    Ok(Restart { stop_ms, restart_clean_ms, partitions: made.0, memory_bytes, memory_empty_bytes: made.1 })
}

/// The anonymous memory of a broker that has been left alone for a moment.
///
/// # Errors
/// The broker has ended, or the user stops.
pub(super) fn memory_bytes(instance: &Instance<'_>, wanted: &Wanted) -> Result<u64, Error> {
    start_stop::sleep(units::duration(&wanted.settle).map_err(Error::Usage)?)?;
    anonymous_bytes(instance.pid()?).map_err(|error| instance.failure(&format!("does not tell its memory: {error}")))
}

/// Stops the broker, starts it again, and asks for all that was stored. `stored_by` are the arguments of the `groups` that
/// stored it.
///
/// # Errors
/// The broker fails or has lost offsets, or the user stops.
pub(super) fn measure(instance: &mut Instance<'_>, stored_by: &[String]) -> Result<OffsetsLoaded, Error> {
    let plan = plan_of(stored_by)?;
    instance.stop()?;
    let start = Instant::now();
    instance.launch()?;
    instance.wait_until(POLL, |instance| instance.answers().map_err(|error| error.to_string()))?;
    let answered = Instant::now();
    let loaded = served_at(SocketAddr::from((Ipv4Addr::LOCALHOST, instance.port())), &plan, start, answered);
    if loaded.is_err() {
        // A broker that is gone is the cause and not the symptom.
        instance.check_running()?;
    }
    let loaded = loaded?;
    instance.wait_ready()?;
    Ok(loaded)
}
