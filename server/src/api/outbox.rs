//! Messages from one core to the mailboxes of the others, in the order in which they are sent: batches of one connection must
//! reach a partition in the order of its requests, also when a mailbox is full. Used by the handlers of one core.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use ringlog_engine::core::{CoreHandle, Message};
use ringlog_engine::env::Env;

/// See the module.
pub(super) struct Outbox {
    lanes: Vec<Rc<Lane>>,
    env: Rc<dyn Env>,
}

/// The way to one core.
struct Lane {
    handle: CoreHandle,
    /// What its mailbox had no room for. As many as requests are in flight, which the connections bound.
    waiting: RefCell<VecDeque<Message>>,
    /// Whether a task moves what waits into the mailbox: until it ends, everything goes through it.
    draining: Cell<bool>,
}

impl Outbox {
    pub(super) fn new(cores: &[CoreHandle], env: Rc<dyn Env>) -> Self {
        let lane = |handle: &CoreHandle| {
            Rc::new(Lane { handle: handle.clone(), waiting: RefCell::default(), draining: Cell::new(false) })
        };
        Self { lanes: cores.iter().map(lane).collect(), env }
    }

    /// Sends a message without waiting. When the core has stopped the message is dropped, and with it any way to answer.
    pub(super) fn send(&self, core: usize, message: Message) {
        let lane = &self.lanes[core];
        if lane.draining.get() {
            lane.waiting.borrow_mut().push_back(message);
        } else if let Err(message) = lane.handle.try_send(message) {
            lane.waiting.borrow_mut().push_back(message);
            lane.draining.set(true);
            self.env.spawn(Box::pin(drain(lane.clone())));
        }
    }
}

async fn drain(lane: Rc<Lane>) {
    loop {
        let next = lane.waiting.borrow_mut().pop_front();
        let Some(message) = next else { break };
        if lane.handle.send(message).await.is_err() {
            lane.waiting.borrow_mut().clear();
        }
    }
    lane.draining.set(false);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ringlog_engine::core::Watcher;
    use ringlog_engine::env::sim::Simulation;
    use ringlog_engine::types::{Offset, PartitionId, TopicId};

    use super::*;

    fn numbered(number: i64) -> Message {
        let id = PartitionId { topic: TopicId([1; 16]), index: 0 };
        Message::Watch(id, Offset(number), Arc::new(Watcher::default()))
    }

    #[test]
    fn a_full_mailbox_keeps_the_order() {
        let simulation = Simulation::new(1);
        let (handle, mut receiver) = CoreHandle::new(0);
        let outbox = Outbox::new(&[handle], simulation.env());
        let received = simulation.block_on(async {
            let mut received = Vec::new();
            let mut sent = 0;
            // More than any mailbox holds; then some are taken while others are still being sent.
            for _ in 0..10_000 {
                outbox.send(0, numbered(sent));
                sent += 1;
            }
            while received.len() < 12_000 {
                let Some(Message::Watch(_, offset, _)) = receiver.recv().await else { break };
                received.push(offset.0);
                if sent < 12_000 {
                    outbox.send(0, numbered(sent));
                    sent += 1;
                }
            }
            received
        });
        assert_eq!(received, (0..12_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_core_that_stopped_drops_what_is_sent() {
        let simulation = Simulation::new(1);
        let (handle, receiver) = CoreHandle::new(0);
        let outbox = Outbox::new(&[handle], simulation.env());
        drop(receiver);
        simulation.block_on(async {
            outbox.send(0, numbered(0));
            simulation.env().sleep(std::time::Duration::from_millis(1)).await;
        });
        assert!(outbox.lanes[0].waiting.borrow().is_empty() && !outbox.lanes[0].draining.get());
    }
}
