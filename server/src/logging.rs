//! Where log lines go: standard error, filtered by `RUST_LOG` (default: `info`). Called once by `main`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// What is wrong with `RUST_LOG`.
#[derive(Debug, thiserror::Error)]
#[error("RUST_LOG is not a filter ({0}); an example is RUST_LOG=info,ringlog_server::net=debug")]
pub struct FilterError(String);

/// Sets up logging for the whole process.
///
/// # Errors
/// When `RUST_LOG` makes no sense.
pub fn start() -> Result<(), FilterError> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()
        .map_err(|error| FilterError(error.to_string()))?;
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A line that cannot be written, as when the log's disk is full, is lost: to say so on standard error would fail, too, and panic.
    let subscriber = tracing_subscriber::fmt().log_internal_errors(false);
    // Somebody else's subscriber, in a test, may stay.
    let _ = subscriber.with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color).try_init();
    Ok(())
}
