//! How long a broker that was restarted takes to serve the offsets that were committed before.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::instance::Instance;
use crate::error::Error;
use crate::groups::offsets::served_at;
use crate::groups::plan_of;
use crate::results::OffsetsLoaded;

/// Between two attempts to get an answer.
const POLL: Duration = Duration::from_millis(1);

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
