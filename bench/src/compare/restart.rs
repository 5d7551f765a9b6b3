//! How long a broker that was restarted takes to serve the offsets that were committed before.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use clap::Parser;

use super::instance::Instance;
use crate::cli::{Cli, Command};
use crate::error::Error;
use crate::groups::offsets::served_at;
use crate::results::OffsetsLoaded;

/// Between two attempts to get an answer.
const POLL: Duration = Duration::from_millis(1);

/// Stops the broker, starts it again, and asks for all that was stored. `stored_by` is how `groups` was called to store it.
///
/// # Errors
/// The broker fails or has lost offsets, or the user stops.
pub(super) fn measure(instance: &mut Instance<'_>, stored_by: &[String]) -> Result<OffsetsLoaded, Error> {
    let command_line = std::iter::once("ringlog-bench").chain(stored_by.iter().map(String::as_str));
    let plan = match Cli::try_parse_from(command_line).map(|cli| cli.command) {
        Ok(Command::Groups(command)) => command.plan()?,
        _ => return Err(Error::Usage(format!("{} is no call of groups", stored_by.join(" ")))),
    };
    instance.stop()?;
    let start = Instant::now();
    instance.launch()?;
    instance.wait_until(POLL, |instance| instance.answers().map_err(|error| error.to_string()))?;
    let answered = start.elapsed();
    let loaded = served_at(SocketAddr::from((Ipv4Addr::LOCALHOST, instance.port())), &plan);
    if loaded.is_err() {
        // A broker that is gone is the cause and not the symptom.
        instance.check_running()?;
    }
    let loaded = loaded?;
    instance.wait_ready()?;
    let since_start_ms = answered.as_secs_f64() * 1e3 + loaded.since_answer_ms;
    Ok(OffsetsLoaded { since_start_ms: Some(since_start_ms), ..loaded })
}
