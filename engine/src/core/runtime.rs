//! The threads: one per core, pinned, each with its ring. The only place that starts them.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use thiserror::Error;

use crate::core::mailbox::{self, CoreHandle};
use crate::core::{Core, CoreSettings};
use crate::disk::ring::{RingDisk, RingError, Runtime};
use crate::env::LocalFuture;
use crate::env::real::RealEnv;
use crate::log::read::Probe;

/// Why the cores did not run to their end.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// io_uring cannot be used.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A core could not be set up.
    #[error("core {0}: {1}")]
    Core(usize, io::Error),
    /// A thread could not be started or ended by a panic.
    #[error("core {0}: its thread {1}")]
    Thread(usize, String),
}

/// The processors that this process may run on.
#[must_use]
pub fn processors() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect(),
        Err(_) => (0..thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

/// Starts `cores` cores and runs `main` on each until it returns on all of them. Returns what `main` returned, by core.
///
/// # Errors
/// The first core's that could not run.
pub fn run_cores<T: Send + 'static>(
    cores: usize,
    settings: &CoreSettings,
    probe: impl Fn() -> Probe + Send + Clone + 'static,
    main: impl Fn(Rc<Core>, Arc<[CoreHandle]>) -> LocalFuture<T> + Send + Clone + 'static,
) -> Result<Vec<T>, RuntimeError> {
    let processors = processors();
    let (handles, receivers): (Vec<_>, Vec<_>) = (0..cores).map(CoreHandle::new).unzip();
    let handles: Arc<[CoreHandle]> = handles.into();
    let mut threads = Vec::new();
    for (index, receiver) in receivers.into_iter().enumerate() {
        let (settings, probe, main, handles) = (settings.clone(), probe.clone(), main.clone(), handles.clone());
        let processor = (cores <= processors.len()).then(|| processors[index]);
        let body = move || -> Result<T, RuntimeError> {
            // The ring before the pinning: its kernel workers keep the wider mask.
            let runtime = Runtime::with_defaults()?;
            if let Some(processor) = processor {
                let mut set = rustix::thread::CpuSet::new();
                set.set(processor);
                if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
                    tracing::warn!(core = index, %error, "the thread is not pinned");
                }
            }
            let result = runtime.block_on(async move {
                let core = Core::new(index, settings, Rc::new(RingDisk::new()), Rc::new(RealEnv::new()), probe())
                    .await
                    .map_err(|error| RuntimeError::Core(index, error))?;
                core.start();
                core.env.spawn(Box::pin(mailbox::run(core.clone(), receiver)));
                Ok(main(core, handles).await)
            });
            drop(runtime);
            result
        };
        let thread = thread::Builder::new()
            .name(format!("core-{index}"))
            .spawn(body)
            .map_err(|error| RuntimeError::Thread(index, format!("could not be started: {error}")))?;
        threads.push(thread);
    }
    drop(handles);
    let mut results = Vec::new();
    for (index, thread) in threads.into_iter().enumerate() {
        match thread.join() {
            Ok(result) => results.push(result?),
            Err(_) => return Err(RuntimeError::Thread(index, "panicked".to_owned())),
        }
    }
    Ok(results)
}
