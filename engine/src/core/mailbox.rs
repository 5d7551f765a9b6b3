//! The way to a core from other threads: a bounded queue. Its reader is woken only when it sleeps.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::core::{Append, Core, Watcher};
use crate::env::LocalFuture;
use crate::types::{Offset, PartitionId};

/// How many messages may wait for a core before senders do.
const MAILBOX_MESSAGES_MAX: usize = 4096;
/// How many messages a core takes before it lets its other tasks run.
const BATCH_MESSAGES_MAX: usize = 64;

type Job = Box<dyn FnOnce(Rc<Core>) -> LocalFuture<()> + Send>;

/// What other threads want of a core.
pub enum Message {
    /// Take a batch.
    Append(Append),
    /// Tell when a partition shows more than up to an offset.
    Watch(PartitionId, Offset, Arc<Watcher>),
    /// Anything rare.
    Run(Job),
}

/// A core, from any thread.
#[derive(Clone)]
pub struct CoreHandle {
    /// Its number.
    pub index: usize,
    sender: mpsc::Sender<Message>,
}

/// The core is gone: the process is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the core has stopped")]
pub struct Stopped;

impl CoreHandle {
    /// A handle and what its core has to read.
    #[must_use]
    pub fn new(index: usize) -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(MAILBOX_MESSAGES_MAX);
        (Self { index, sender }, receiver)
    }

    /// Hands a message over, waiting while the mailbox is full.
    ///
    /// # Errors
    /// When the core has stopped.
    pub async fn send(&self, message: Message) -> Result<(), Stopped> {
        self.sender.send(message).await.map_err(|_| Stopped)
    }

    /// Hands a message over without waiting.
    ///
    /// # Errors
    /// The message, when the mailbox is full or the core has stopped; [`CoreHandle::send`] tells which.
    #[expect(clippy::result_large_err, reason = "the error is the message itself, given back to be sent again")]
    pub fn try_send(&self, message: Message) -> Result<(), Message> {
        self.sender.try_send(message).map_err(mpsc::error::TrySendError::into_inner)
    }

    /// Runs a job on the core and returns what it returns.
    ///
    /// # Errors
    /// When the core has stopped.
    pub async fn run<T, F>(&self, job: F) -> Result<T, Stopped>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Core>) -> LocalFuture<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |core| {
            let future = job(core);
            Box::pin(async move {
                let _ = reply.send(future.await);
            })
        });
        self.send(Message::Run(job)).await?;
        answer.await.map_err(|_| Stopped)
    }
}

/// Reads a core's mailbox until all handles are gone.
pub async fn run(core: Rc<Core>, mut receiver: mpsc::Receiver<Message>) {
    let mut messages = Vec::with_capacity(BATCH_MESSAGES_MAX);
    while receiver.recv_many(&mut messages, BATCH_MESSAGES_MAX).await > 0 {
        for message in messages.drain(..) {
            match message {
                Message::Append(append) => core.append(append),
                Message::Watch(id, seen, watcher) => core.watch(id, seen, watcher),
                Message::Run(job) => {
                    let future = job(core.clone());
                    core.env.spawn(future);
                }
            }
        }
    }
}
