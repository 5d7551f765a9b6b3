//! The broker's assembly: listeners, cores and what they serve. Called by `main`.

use tracing::info;

use crate::config::BrokerConfig;
use crate::data_dir::DataDir;
use crate::net::Stop;
use crate::net::listener::{self, BindError};

/// Why the broker does not run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A listener cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system gives no thread or ring.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Runs the broker until the stop.
///
/// # Errors
/// When it cannot start.
pub fn run(config: BrokerConfig, data_dir: DataDir, stop: Stop) -> Result<(), BrokerError> {
    let backlog = config.options.socket_listen_backlog_size;
    let mut listeners = Vec::new();
    for listener in &config.listeners {
        let opened = listener::bind(&listener.name, &listener.bind.host, listener.bind.port, backlog)?;
        info!(listener = listener.name, address = %opened.address(), data = %data_dir.path().display(), "listening");
        listeners.push(opened);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(stop.wait());
    Ok(())
}
