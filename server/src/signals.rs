//! SIGTERM and SIGINT as a stop. Called once by `main`, before anything worth a clean stop exists.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::net::{Stop, stop_channel};

/// The exit status after a second signal: as a shell reports a process that SIGINT killed.
const IMPATIENT_EXIT: i32 = 130;

/// Resolves the returned stop at the first SIGTERM or SIGINT; at the second the process exits at once, as after a crash.
///
/// # Errors
/// When the system gives no thread or descriptor for it.
pub fn stop_on_signals() -> io::Result<Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let (sender, stop) = stop_channel();
    let waiting = async move {
        let name = either(&mut terminate, &mut interrupt).await;
        info!("{name}: stopping; once more to exit at once");
        sender.stop();
        let name = either(&mut terminate, &mut interrupt).await;
        warn!("{name} again: exiting without a clean stop; the next start will recover");
        std::process::exit(IMPATIENT_EXIT);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(waiting))?;
    Ok(stop)
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
