//! Runs the group coordinator: a group lives on the core that owns its partition of `__consumer_offsets`. Handlers on any core ask
//! through their core's [`CoreGroups`]; one [`coordinator`] per core serves. What it decides is [`crate::group`]'s business; here are
//! the log, the timers and the way from core to core.

mod coordinator;
mod load;
mod topics;

pub use load::Replay;

use std::cell::RefCell;
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};

use ringlog_engine::core::Core;
use ringlog_engine::types::TopicId;
use ringlog_protocol::ErrorCode;
use tokio::sync::{mpsc, oneshot};

use coordinator::{Asking, Coordinator};

use crate::broker::{Broker, Topics};
use crate::catalogue::names::CONSUMER_OFFSETS;
use crate::group::request::Listed;
use crate::group::{Answer, Name, Request, partition_of};

/// What a coordinator is told.
enum Message {
    /// A request for a group of one of its partitions.
    Ask { partition: i32, group: Name, request: Request, reply: oneshot::Sender<Answer> },
    /// Which groups there are.
    List { reply: oneshot::Sender<Result<Vec<Listed>, ErrorCode>> },
    /// These topics are gone.
    TopicsDeleted(Arc<[(TopicId, Arc<str>)]>),
    /// Something is to be done that it was not told of.
    Turn,
    /// The broker stops.
    Stop,
}

/// A core's coordinator from outside. The channel is as full as requests are in flight, which the connections bound.
struct Lane {
    sender: mpsc::UnboundedSender<Message>,
    /// Until the core begins.
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Message>>>,
}

/// Where a group is served: its partition of `__consumer_offsets`, and the core that owns that.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    partition: i32,
    /// The core.
    pub core: usize,
}

/// The way to all groups. Clones are the same.
#[derive(Clone)]
pub struct Groups {
    lanes: Arc<[Lane]>,
}

impl Groups {
    pub(super) fn new(cores: usize) -> Self {
        let lane = |_| {
            let (sender, receiver) = mpsc::unbounded_channel();
            Lane { sender, receiver: Mutex::new(Some(receiver)) }
        };
        Self { lanes: (0..cores).map(lane).collect() }
    }

    /// Where a group is served.
    ///
    /// # Errors
    /// Nowhere yet.
    pub fn place_of(topics: &Topics, group: &str) -> Result<Place, ErrorCode> {
        // Clients look for the coordinator then, which makes the topic.
        let topic = topics.by_name(CONSUMER_OFFSETS).ok_or(ErrorCode::NOT_COORDINATOR)?;
        let count = i32::try_from(topic.info.partitions.len()).unwrap_or(i32::MAX);
        let partition = partition_of(group, count);
        let core = topic.partition(partition).ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?.core;
        Ok(Place { partition, core })
    }

    fn hand_over(&self, place: Place, group: &str, request: Request) -> Result<oneshot::Receiver<Answer>, ErrorCode> {
        let (reply, answer) = oneshot::channel();
        self.send(place.core, Message::Ask { partition: place.partition, group: group.into(), request, reply })?;
        Ok(answer)
    }

    fn send(&self, core: usize, message: Message) -> Result<(), ErrorCode> {
        let lane = self.lanes.get(core).ok_or(ErrorCode::NOT_COORDINATOR)?;
        lane.sender.send(message).map_err(|_| ErrorCode::NOT_COORDINATOR)
    }

    /// All groups, by core.
    ///
    /// # Errors
    /// Some are not loaded.
    pub async fn list(&self) -> Result<Vec<Listed>, ErrorCode> {
        let mut asked = Vec::with_capacity(self.lanes.len());
        for core in 0..self.lanes.len() {
            let (reply, answer) = oneshot::channel();
            self.send(core, Message::List { reply })?;
            asked.push(answer);
        }
        let mut listed = Vec::new();
        for answer in asked {
            listed.extend(answer.await.map_err(|_| ErrorCode::NOT_COORDINATOR)??);
        }
        Ok(listed)
    }

    /// Lets go of what groups have committed of topics that are gone.
    pub(super) fn topics_deleted(&self, topics: impl Iterator<Item = (TopicId, Arc<str>)>) {
        let topics: Arc<[_]> = topics.collect();
        for core in 0..self.lanes.len() {
            // One that has stopped finds out when it begins again.
            let _ = self.send(core, Message::TopicsDeleted(topics.clone()));
        }
    }

    /// Answers what waits for others on a core, and nothing from then on.
    pub fn stop(&self, core: usize) {
        let _ = self.send(core, Message::Stop);
    }
}

#[cfg(test)]
impl Groups {
    /// As a handler asks on a core that has none of the groups.
    pub(crate) fn ask(&self, topics: &Topics, group: &str, request: Request) -> impl Future<Output = Answer> + use<> {
        CoreGroups { groups: self.clone(), core: usize::MAX, here: Weak::new() }.ask(topics, group, request)
    }
}

/// The way to all groups from one core. What is asked of groups that live there and seldom writes is answered on the
/// spot, which spares a heartbeat two turns of tasks.
pub struct CoreGroups {
    groups: Groups,
    core: usize,
    /// The coordinator of this core, while it serves.
    here: Weak<RefCell<Coordinator>>,
}

impl CoreGroups {
    /// Hands a request over at once and returns what becomes of it: requests for a group are taken in the order of the calls.
    pub fn ask(&self, topics: &Topics, group: &str, request: Request) -> impl Future<Output = Answer> + use<> {
        self.ask_at(Groups::place_of(topics, group), group, request)
    }

    /// The same, where the place is known.
    pub fn ask_at(&self, place: Result<Place, ErrorCode>, group: &str, request: Request) -> impl Future<Output = Answer> + use<> {
        let asked = place.and_then(|place| match self.ask_here(place, group, request) {
            Ok(asking) => Ok(asking),
            Err(request) => self.groups.hand_over(place, group, request).map(Asking::Waits),
        });
        async move {
            match asked {
                Ok(Asking::Done(answer)) => answer,
                // A coordinator that is gone has stopped with its broker.
                Ok(Asking::Waits(answer)) => answer.await.unwrap_or(Err(ErrorCode::NOT_COORDINATOR)),
                Err(error) => Err(error),
            }
        }
    }

    /// Asks the coordinator of this core, where it is the one and can answer.
    fn ask_here(&self, place: Place, group: &str, request: Request) -> Result<Asking, Request> {
        if place.core != self.core || !request.seldom_writes() {
            return Err(request);
        }
        let Some(here) = self.here.upgrade() else { return Err(request) };
        let Ok(mut here) = here.try_borrow_mut() else { return Err(request) };
        let asked = here.ask_now(place.partition, group, request)?;
        if asked.needs_turn {
            // One that has stopped has nothing more to do.
            let _ = self.groups.send(self.core, Message::Turn);
        }
        Ok(asked.answer)
    }
}

/// Begins to serve the groups of a core. Once per core.
///
/// # Panics
/// The second time.
pub(super) fn start(broker: &Arc<Broker>, core: &Rc<Core>) -> CoreGroups {
    let lane = &broker.groups.lanes[core.index];
    let receiver = lane.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(receiver) = receiver else { panic!("core {} serves its groups already", core.index) };
    let coordinator = Rc::new(RefCell::new(Coordinator::new(broker, core, receiver)));
    let here = Rc::downgrade(&coordinator);
    core.env.spawn(Box::pin(coordinator::run(coordinator)));
    CoreGroups { groups: broker.groups.clone(), core: core.index, here }
}
