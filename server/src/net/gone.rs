//! Whether the peer of a connection is gone. The connection says so; whoever waits for others on its behalf, perhaps for as long as
//! it asked for, need not wait on: until its requests have ended, it has its place among the connections, its descriptor, and the
//! memory of what it sent.

use std::cell::Cell;

use tokio::sync::Notify;

/// See the module.
#[derive(Debug, Default)]
pub struct Gone {
    is_gone: Cell<bool>,
    told: Notify,
}

impl Gone {
    /// Says it.
    pub fn tell(&self) {
        self.is_gone.set(true);
        self.told.notify_waiters();
    }

    /// Resolves when it was said.
    pub async fn wait(&self) {
        if !self.is_gone.get() {
            self.told.notified().await;
        }
    }
}
