//! The coordinator of one core: takes requests, lets the time pass, appends what shards say, and lets answers go when it is durable.
//! What is asked while an append is in flight goes into the next one together. An append that fails leaves nobody in doubt: the shard
//! is thrown away, everybody who waits for it is told to ask again, and it is replayed from what is committed.
//!
//! It is a task, [`run`], that is told by a channel. A handler of its own core need not wait for the task's turn:
//! [`Coordinator::ask_now`] answers at once what seldom writes; where it does, its answer waits like any other.

mod asks;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::Guard;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ringlog_engine::batch::{BatchBuilder, BatchView};
use ringlog_engine::compression::Codec;
use ringlog_engine::core::{Append, Core, Partition};
use ringlog_engine::env::LocalFuture;
use ringlog_engine::log::append::{Acks, AppendError, Appended};
use ringlog_engine::types::{Offset, TopicId};
use ringlog_protocol::{ErrorCode, Uuid};
use tokio::sync::{mpsc, oneshot};

pub(super) use asks::Asking;

use super::Message;
use super::load::{LoadError, load};
use crate::broker::{Broker, Topic, Topics};
use crate::catalogue::names::CONSUMER_OFFSETS;
use crate::group::request::Listed;
use crate::group::{Answer, CallId, GroupConfigs, Name, Now, Output, RawRecord, Request, Settings, Shard, Usage};

/// How many messages are taken before their records are appended.
const MESSAGES_MAX: usize = 256;
/// How much is done before that, and before the other tasks of the core have their turn: so many records, and members, topics and
/// partitions looked at, or as many as one request is about.
const WORK_MAX: usize = 10_000;
/// How many bytes of records go into a batch, unless one is larger: no more than half a segment takes.
const BATCH_BYTES_MAX: usize = 512 << 10;
/// What a record of its own batch takes in the log beside its key and value, or more.
const RECORD_OVERHEAD_BYTES: usize = 256;
/// When a partition that could not be loaded is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How long a shard is left alone after an append failed: the disk may be full. Each failure makes it longer, until an append is well.
const FAILED_WAIT: Duration = Duration::from_millis(500);
/// The longest that it becomes.
const FAILED_WAIT_MAX: Duration = Duration::from_secs(30);

type AppendDone = (i32, u64, Result<Appended, AppendError>);
type LoadDone = (i32, Result<(Shard, Output), LoadError>);

/// Answers that wait for an append, their own or one before it.
struct InFlight {
    sequence: u64,
    /// What came of the append, once that is known.
    result: Option<Result<(), String>>,
    answers: Vec<Waiting>,
}

/// An answer that waits, and since when.
struct Waiting {
    reply: oneshot::Sender<Answer>,
    answer: Answer,
    since: Duration,
}

/// A batch that is not in the core's hands yet.
struct Unsent {
    sequence: u64,
    batch: Bytes,
    /// Whether it goes on with what the one before it began: it must not be in the log without that.
    goes_on: bool,
}

enum State {
    /// It is to be loaded, at this time at the earliest.
    Queued(Option<Duration>),
    /// It is being loaded.
    Loading,
    /// It could not be loaded; it is tried again then.
    Failed(Duration),
    /// It is served.
    Active(Box<Shard>),
}

/// One partition of `__consumer_offsets`.
struct Slot {
    partition: Arc<Partition>,
    state: State,
    out: Output,
    /// Who waits for an answer of the shard.
    calls: BTreeMap<CallId, oneshot::Sender<Answer>>,
    /// Appends that are not known to have ended well, in order.
    in_flight: VecDeque<InFlight>,
    /// Those of them that were not begun, in order.
    unsent: VecDeque<Unsent>,
    /// How long it is left alone when the next append fails.
    failed_wait: Duration,
    /// How many appends, of this shard or of the one that was thrown away, are unanswered.
    unanswered: usize,
}

/// See the module.
pub(super) struct Coordinator {
    broker: Arc<Broker>,
    core: Rc<Core>,
    /// What it was told and has not looked at.
    receiver: mpsc::UnboundedReceiver<Message>,
    /// Nothing is served any more.
    is_stopped: bool,
    settings: Rc<Settings>,
    usage: Usage,
    topic: Option<TopicId>,
    /// The topics that the shards know.
    topics: Arc<Topics>,
    /// What the shards know that groups have set.
    configs: Arc<GroupConfigs>,
    /// What a segment of the topic takes.
    segment_bytes: usize,
    /// How what is appended is compressed.
    codec: Codec,
    /// How long somebody waits for an append.
    commit_timeout: Duration,
    slots: BTreeMap<i32, Slot>,
    appends: FuturesUnordered<LocalFuture<AppendDone>>,
    loads: FuturesUnordered<LocalFuture<LoadDone>>,
    sequence: u64,
    next_call: u64,
    /// What was done since the other tasks of the core had their turn; see [`WORK_MAX`].
    work: usize,
    expiry_at: Duration,
    /// A sleep, and when it ends.
    sleep: Option<(Duration, LocalFuture<()>)>,
}

/// What a coordinator waits for.
enum Event {
    Appended(AppendDone),
    Loaded(LoadDone),
    Told(Message),
    Alarm,
}

/// What comes after a turn.
enum Then {
    Wait,
    /// The other tasks of the core have their turn.
    Yield,
    Stop,
}

/// Serves until the broker stops. Nobody else keeps the coordinator: what waits for it is dropped with this task.
pub(super) async fn run(coordinator: Rc<RefCell<Coordinator>>) {
    loop {
        coordinator.borrow_mut().prepare();
        let event = poll_fn(|cx| coordinator.borrow_mut().poll_event(cx)).await;
        let then = coordinator.borrow_mut().turn(event);
        match then {
            Then::Wait => {}
            Then::Yield => tokio::task::yield_now().await,
            Then::Stop => break,
        }
    }
    // What waits for other members is answered; then what is on its way to the log.
    while let Some(done) = poll_fn(|cx| coordinator.borrow_mut().appends.poll_next_unpin(cx)).await {
        coordinator.borrow_mut().appended(done);
    }
}

fn expiry_interval(broker: &Broker) -> Duration {
    Duration::from_millis(u64::try_from(broker.config.options.offsets_retention_check_interval_ms).unwrap_or(u64::MAX))
}

impl Coordinator {
    /// That of a core, which begins with [`run`]. `receiver` is where it is told.
    pub(super) fn new(broker: &Arc<Broker>, core: &Rc<Core>, receiver: mpsc::UnboundedReceiver<Message>) -> Self {
        let settings = Rc::new(Settings::new(&broker.config, broker.cores.len()));
        let options = &broker.config.options;
        let codec = u8::try_from(options.offsets_topic_compression_codec).ok().and_then(Codec::from_id).unwrap_or_default();
        let commit_timeout = Duration::from_millis(u64::try_from(options.offsets_commit_timeout_ms).unwrap_or(u64::MAX));
        Self {
            expiry_at: core.env.monotonic() + expiry_interval(broker),
            broker: broker.clone(),
            core: core.clone(),
            receiver,
            is_stopped: false,
            settings,
            usage: Usage::default(),
            topic: None,
            topics: Arc::default(),
            configs: Arc::default(),
            segment_bytes: 0,
            codec,
            commit_timeout,
            slots: BTreeMap::new(),
            appends: FuturesUnordered::new(),
            loads: FuturesUnordered::new(),
            sequence: 0,
            next_call: 0,
            work: 0,
            sleep: None,
        }
    }

    /// Makes ready for waiting.
    fn prepare(&mut self) {
        self.follow();
        self.begin_loads();
        self.set_alarm();
    }

    /// The next event. Appends and loads come first: somebody may wait for them.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(Some(done)) = self.appends.poll_next_unpin(cx) {
            return Poll::Ready(Event::Appended(done));
        }
        if let Poll::Ready(Some(done)) = self.loads.poll_next_unpin(cx) {
            return Poll::Ready(Event::Loaded(done));
        }
        if let Poll::Ready(told) = self.receiver.poll_recv(cx) {
            return Poll::Ready(Event::Told(told.unwrap_or(Message::Stop)));
        }
        match &mut self.sleep {
            Some((_, sleep)) => sleep.as_mut().poll(cx).map(|()| Event::Alarm),
            None => Poll::Pending,
        }
    }

    /// Takes an event, and what else it was told; then what is due, and what is to be appended.
    fn turn(&mut self, event: Event) -> Then {
        let mut count = 0;
        match event {
            Event::Appended(done) => self.appended(done),
            Event::Loaded(done) => self.loaded(done),
            Event::Alarm => self.sleep = None,
            Event::Told(first) => {
                // A partition may be new since the last message, and so may an option.
                self.follow();
                let mut next = Some(first);
                while let Some(message) = next {
                    if matches!(message, Message::Stop) {
                        // What comes behind is answered by its going.
                        self.append_all();
                        self.close();
                        self.is_stopped = true;
                        return Then::Stop;
                    }
                    self.take(message);
                    count += 1;
                    let goes_on = count < MESSAGES_MAX && self.work < WORK_MAX;
                    // Where all senders are gone, the next turn hears of it.
                    next = if goes_on { self.receiver.try_recv().ok() } else { None };
                }
            }
        }
        self.tick();
        self.append_all();
        if count >= MESSAGES_MAX || self.work >= WORK_MAX {
            self.work = 0;
            return Then::Yield;
        }
        Then::Wait
    }

    fn now(&self) -> Now {
        Now { monotonic: self.core.env.monotonic(), wall: self.core.env.now() }
    }

    /// Follows the catalogue. Returns whether the topics are others than before.
    fn follow(&mut self) -> bool {
        self.follow_configs();
        self.follow_topic()
    }

    /// Lets the shards know what groups have set.
    fn follow_configs(&mut self) {
        let configs = self.broker.group_configs.load();
        if Arc::ptr_eq(&configs, &self.configs) {
            return;
        }
        self.configs = configs.clone();
        for slot in self.slots.values_mut() {
            if let State::Active(shard) = &mut slot.state {
                shard.set_configs(self.configs.clone());
            }
        }
    }

    /// Has a slot for each partition of this core, of the topic as it is now, and lets the shards know what topics there are.
    fn follow_topic(&mut self) -> bool {
        // What is here follows from the snapshot: as long as that is the same, there is nothing to do.
        let topics = match self.broker.topics.load() {
            same if Arc::ptr_eq(&same, &self.topics) => return false,
            other => Guard::into_inner(other),
        };
        self.topics = topics.clone();
        let bytes = topics.by_name(CONSUMER_OFFSETS).map_or(0, |topic| topic.config.segment_bytes);
        self.segment_bytes = usize::try_from(bytes).unwrap_or(0);
        let record_bytes_max = self.record_bytes_max();
        for slot in self.slots.values_mut() {
            if let State::Active(shard) = &mut slot.state {
                shard.set_topics(topics.clone());
                shard.set_record_bytes_max(record_bytes_max);
            }
        }
        let topic = topics.by_name(CONSUMER_OFFSETS);
        if self.topic != topic.map(|topic| topic.id) {
            // The topic was deleted, and all groups with it; there may be another.
            self.topic = topic.map(|topic| topic.id);
            self.close();
            self.slots.clear();
        }
        let Some(topic) = topic else { return true };
        for partition in &topic.partitions {
            if partition.core == self.core.index && !self.slots.contains_key(&partition.id.index) {
                self.add(topic, partition);
            }
        }
        true
    }

    fn add(&mut self, topic: &Topic, partition: &Arc<Partition>) {
        let published = &partition.published;
        // A topic that was just made has nothing to load, and nobody is told to wait.
        let is_empty = published.high_watermark() == published.log_start();
        let state = if is_empty { State::Active(Box::new(self.new_shard())) } else { State::Queued(None) };
        tracing::debug!(topic = %topic.name, partition = partition.id.index, is_empty, "groups of a partition");
        let slot = Slot {
            partition: partition.clone(),
            state,
            out: Output::default(),
            calls: BTreeMap::new(),
            in_flight: VecDeque::new(),
            unsent: VecDeque::new(),
            failed_wait: FAILED_WAIT,
            unanswered: 0,
        };
        self.slots.insert(partition.id.index, slot);
    }

    /// The largest key and value that fit into the log.
    fn record_bytes_max(&self) -> usize {
        // On many cores with little memory the log takes less than a segment does. Half of it: a record need not wait for all others'.
        let (_, memory_bytes) = self.core.memory_bytes();
        let bytes = self.segment_bytes.min(memory_bytes / 2).saturating_sub(RECORD_OVERHEAD_BYTES);
        // What cannot be compressed becomes larger: by a sixth at the most, with snappy.
        if self.codec == Codec::None { bytes } else { bytes - bytes / 4 }
    }

    fn new_shard(&self) -> Shard {
        let env = self.core.env.clone();
        let new_id = move || u128::from(env.random_u64()) << 64 | u128::from(env.random_u64());
        let mut shard = Shard::new(self.settings.clone(), self.usage.clone(), Box::new(new_id));
        shard.set_topics(self.topics.clone());
        shard.set_configs(self.configs.clone());
        shard.set_record_bytes_max(self.record_bytes_max());
        shard
    }

    /// Loads the next partition, one at a time.
    fn begin_loads(&mut self) {
        if !self.loads.is_empty() {
            return;
        }
        let now = self.core.env.monotonic();
        let is_due = |slot: &Slot| slot.loads_at().is_some_and(|at| at <= now);
        let Some((index, partition)) =
            self.slots.iter().find(|(_, slot)| is_due(slot)).map(|(index, slot)| (*index, slot.partition.clone()))
        else {
            return;
        };
        let mut shard = self.new_shard();
        if let Some(slot) = self.slots.get_mut(&index) {
            slot.state = State::Loading;
        }
        let (core, controller) = (self.core.clone(), self.broker.controller.clone());
        let read_bytes = u64::try_from(self.broker.config.options.offsets_load_buffer_size).unwrap_or(1);
        self.loads.push(Box::pin(async move {
            let mut out = Output::default();
            let loaded = load(&core, &controller, &partition, read_bytes, &mut shard, &mut out).await;
            (index, loaded.map(|()| (shard, out)))
        }));
    }

    fn loaded(&mut self, (index, loaded): LoadDone) {
        let (now, record_bytes_max) = (self.now(), self.record_bytes_max());
        let Some(slot) = self.slots.get_mut(&index) else { return };
        if !matches!(slot.state, State::Loading) {
            return;
        }
        match loaded {
            Ok((mut shard, out)) => {
                // They may have changed while it was read.
                shard.set_topics(self.topics.clone());
                shard.set_configs(self.configs.clone());
                shard.set_record_bytes_max(record_bytes_max);
                slot.out = out;
                shard.begin(now, &mut slot.out);
                slot.state = State::Active(Box::new(shard));
            }
            Err(error) => {
                tracing::error!(partition = index, %error, "the groups of a partition of {CONSUMER_OFFSETS} cannot be loaded; tried again soon");
                slot.state = State::Failed(now.monotonic + RETRY);
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Ask { partition, group, request, reply } => self.ask(partition, &group, request, reply),
            Message::List { reply } => {
                // Who gave up does not hear it.
                let _ = reply.send(self.list());
            }
            Message::TopicsDeleted(topics) => {
                // Whoever found such a topic before it went may still commit: the shards have to know by then that it is gone.
                self.follow();
                let is_gone = |name: &str, id: Uuid| {
                    topics.iter().any(|(gone, gone_name)| if id == Uuid::default() { **gone_name == *name } else { gone.0 == id })
                };
                for slot in self.slots.values_mut() {
                    // Those that are not loaded look for themselves.
                    if let State::Active(shard) = &mut slot.state {
                        shard.forget_topics(&|name, id| !is_gone(name, id), &mut slot.out);
                    }
                }
            }
            // The turn itself is what is wanted.
            Message::Turn | Message::Stop => {}
        }
    }

    fn ask(&mut self, partition: i32, group: &Name, request: Request, reply: oneshot::Sender<Answer>) {
        let now = self.now();
        let refuse = |reply: oneshot::Sender<Answer>, error| {
            // Who gave up does not hear it.
            let _ = reply.send(Err(error));
        };
        let Some(slot) = self.slots.get_mut(&partition) else { return refuse(reply, ErrorCode::NOT_COORDINATOR) };
        match &mut slot.state {
            State::Queued(_) | State::Loading => refuse(reply, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
            State::Failed(_) => refuse(reply, ErrorCode::COORDINATOR_NOT_AVAILABLE),
            State::Active(shard) => {
                let call = CallId(self.next_call);
                self.next_call += 1;
                slot.calls.insert(call, reply);
                let written = slot.out.records.len();
                shard.handle(call, group, request, now, &mut slot.out);
                self.work += slot.out.records.len() - written + std::mem::take(&mut slot.out.work);
            }
        }
    }

    fn list(&self) -> Result<Vec<Listed>, ErrorCode> {
        let mut listed = Vec::new();
        for slot in self.slots.values() {
            match &slot.state {
                State::Active(shard) => listed.extend(shard.list()),
                State::Queued(_) | State::Loading => return Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
                State::Failed(_) => return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE),
            }
        }
        Ok(listed)
    }

    /// Lets everything happen whose time has come.
    fn tick(&mut self) {
        let now = self.now();
        let expires = self.expiry_at <= now.monotonic;
        if expires {
            self.expiry_at = now.monotonic + expiry_interval(&self.broker);
        }
        for slot in self.slots.values_mut() {
            slot.refuse_late(now.monotonic, self.commit_timeout);
            if let State::Active(shard) = &mut slot.state {
                // What is due in the others is due in the next turn still, which comes at once.
                if self.work < WORK_MAX {
                    let written = slot.out.records.len();
                    shard.tick(now, &mut slot.out);
                    self.work += slot.out.records.len() - written + std::mem::take(&mut slot.out.work);
                }
                if expires {
                    shard.expire(now, &mut slot.out);
                }
            }
        }
    }

    fn set_alarm(&mut self) {
        let deadlines = self.slots.values().filter_map(|slot| match &slot.state {
            State::Active(shard) => shard.next_deadline(),
            // One at a time is loaded: the end of that load is a deadline of its own.
            _ if self.loads.is_empty() => slot.loads_at(),
            _ => None,
        });
        let appends = self.slots.values().filter_map(|slot| Some(slot.waits_since()? + self.commit_timeout));
        let next = deadlines.chain(appends).min().map_or(self.expiry_at, |next| next.min(self.expiry_at));
        if self.sleep.as_ref().is_none_or(|(at, _)| *at > next) {
            let duration = next.saturating_sub(self.core.env.monotonic());
            self.sleep = Some((next, self.core.env.sleep(duration)));
        }
    }

    /// Appends what shards said, and lets answers go that wait for nothing.
    fn append_all(&mut self) {
        let (batch_bytes_max, record_bytes_max) = (BATCH_BYTES_MAX.min(self.segment_bytes / 2), self.record_bytes_max());
        let since = self.core.env.monotonic();
        let Self { slots, core, appends, sequence, codec, .. } = self;
        let mut too_large = Vec::new();
        for (index, slot) in slots.iter_mut() {
            let Output { records, replies, work: _ } = std::mem::take(&mut slot.out);
            if records.is_empty() && replies.is_empty() {
                continue;
            }
            if let Some(record) = records.iter().find(|record| record.bytes() > record_bytes_max) {
                // Nothing of this is written, rather than a part.
                too_large.push((*index, record.bytes()));
                continue;
            }
            let waiting = |(call, answer)| Some(Waiting { reply: slot.calls.remove(&call)?, answer, since });
            let answers: Vec<_> = replies.into_iter().filter_map(waiting).collect();
            for (at, batch) in batches(core, records, batch_bytes_max, *codec).into_iter().enumerate() {
                *sequence += 1;
                slot.in_flight.push_back(InFlight { sequence: *sequence, result: None, answers: Vec::new() });
                slot.unsent.push_back(Unsent { sequence: *sequence, batch, goes_on: at > 0 });
            }
            match slot.in_flight.back_mut() {
                // What an answer says may come from records that are on their way.
                Some(last) => last.answers.extend(answers),
                None => send(answers),
            }
            slot.send_batches(*index, core, appends);
        }
        for (index, bytes) in too_large {
            self.fail(index, &format!("a record takes {bytes} bytes, and {record_bytes_max} fit into the log"));
        }
    }

    fn appended(&mut self, (index, sequence, result): AppendDone) {
        let Some(slot) = self.slots.get_mut(&index) else { return };
        slot.unanswered = slot.unanswered.saturating_sub(1);
        let Some(found) = slot.in_flight.iter_mut().find(|in_flight| in_flight.sequence == sequence) else { return };
        found.result = Some(result.map(|_| ()).map_err(|error| error.to_string()));
        while let Some(first) = slot.in_flight.front_mut() {
            match first.result.take() {
                None => break,
                Some(Ok(())) => {
                    slot.failed_wait = FAILED_WAIT;
                    let done = slot.in_flight.pop_front();
                    send(done.into_iter().flat_map(|done| done.answers).collect());
                }
                Some(Err(error)) => return self.fail(index, &error),
            }
        }
        slot.send_batches(index, &self.core, &self.appends);
    }

    /// What the shard says is not, or perhaps not, in the log: it goes.
    fn fail(&mut self, index: i32, error: &str) {
        tracing::warn!(partition = index, error, "groups could not be written; they are loaded again");
        let now = self.core.env.monotonic();
        let Some(slot) = self.slots.get_mut(&index) else { return };
        slot.state = State::Queued(Some(now + slot.failed_wait));
        slot.failed_wait = FAILED_WAIT_MAX.min(slot.failed_wait * 2);
        slot.refuse_all(ErrorCode::COORDINATOR_NOT_AVAILABLE);
    }

    /// Answers everything that waits for other members, and lets go of the shards.
    fn close(&mut self) {
        for slot in self.slots.values_mut() {
            slot.state = State::Queued(None);
            slot.out = Output::default();
            for (_, reply) in std::mem::take(&mut slot.calls) {
                // Clients look for the coordinator again.
                let _ = reply.send(Err(ErrorCode::NOT_COORDINATOR));
            }
        }
    }
}

impl Slot {
    /// When it may be loaded, at the earliest; not before what was being appended is known to be in the log or not.
    fn loads_at(&self) -> Option<Duration> {
        match self.state {
            _ if self.unanswered > 0 => None,
            State::Queued(at) => Some(at.unwrap_or_default()),
            State::Failed(at) => Some(at),
            State::Loading | State::Active(_) => None,
        }
    }

    /// Since when somebody waits for an append: those who wait for one have come before those who wait for the next.
    fn waits_since(&self) -> Option<Duration> {
        self.in_flight.iter().find_map(|in_flight| in_flight.answers.first()).map(|waiting| waiting.since)
    }

    /// Lets those ask again who have waited for an append for so long. What they asked for may be done all the same.
    fn refuse_late(&mut self, now: Duration, timeout: Duration) {
        while self.waits_since().is_some_and(|since| since + timeout <= now) {
            let Some(in_flight) = self.in_flight.iter_mut().find(|in_flight| !in_flight.answers.is_empty()) else { return };
            let late = in_flight.answers.partition_point(|waiting| waiting.since + timeout <= now);
            for Waiting { reply, .. } in in_flight.answers.drain(..late) {
                // Who gave up does not hear it.
                let _ = reply.send(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE));
            }
        }
    }

    /// Hands over the batches whose turn it is. Those of one input go one after the other.
    fn send_batches(&mut self, index: i32, core: &Core, appends: &FuturesUnordered<LocalFuture<AppendDone>>) {
        let is_ready = |next: &Unsent, unanswered| !next.goes_on || unanswered == 0;
        while self.unsent.front().is_some_and(|next| is_ready(next, self.unanswered)) {
            let Some(Unsent { sequence, batch, .. }) = self.unsent.pop_front() else { return };
            let answer = append(core, &self.partition, batch);
            self.unanswered += 1;
            appends.push(Box::pin(async move {
                let stopped = |_| AppendError::Offline("the log is closed".to_owned());
                (index, sequence, answer.await.map_err(stopped).flatten())
            }));
        }
    }

    fn refuse_all(&mut self, error: ErrorCode) {
        self.out = Output::default();
        self.unsent.clear();
        let in_flight = std::mem::take(&mut self.in_flight).into_iter().flat_map(|in_flight| in_flight.answers);
        let waiting = in_flight.map(|waiting| waiting.reply).chain(std::mem::take(&mut self.calls).into_values());
        for reply in waiting {
            // Who gave up does not hear it.
            let _ = reply.send(Err(error));
        }
    }
}

fn send(answers: Vec<Waiting>) {
    for Waiting { reply, answer, .. } in answers {
        // Who gave up does not hear it.
        let _ = reply.send(answer);
    }
}

/// Records as batches, in order: none is larger than `bytes_max` but by one record alone.
fn batches(core: &Core, records: Vec<RawRecord>, bytes_max: usize, codec: Codec) -> Vec<Bytes> {
    let now = core.env.now();
    let mut batches = Vec::new();
    let begin = || BatchBuilder::new(Offset(0)).codec(codec);
    let mut builder = begin();
    for record in records {
        let bytes = builder.size_bytes() + record.bytes() + RECORD_OVERHEAD_BYTES;
        if bytes > bytes_max && builder.record_count() > 0 {
            batches.push(std::mem::replace(&mut builder, begin()).build().into());
        }
        builder.push(now, Some(&record.key), record.value.as_deref(), &[]);
    }
    if builder.record_count() > 0 {
        batches.push(builder.build().into());
    }
    batches
}

fn append(core: &Core, partition: &Partition, batch: Bytes) -> oneshot::Receiver<Result<Appended, AppendError>> {
    let header = match BatchView::new(&batch) {
        Ok(view) => *view.header(),
        Err(error) => unreachable!("the batch was just made: {error}"),
    };
    let (reply, answer) = oneshot::channel();
    core.append(Append { partition: partition.id, batch, header, acks: Acks::All, reply: reply.into() });
    answer
}
