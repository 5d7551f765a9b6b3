//! How far a group has read: committed offsets, until they are taken back, expire, or their topic goes. Called by the shard.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ringlog_engine::types::TimestampMs;
use ringlog_protocol::Uuid;
use ringlog_protocol::group_records::{GroupRecord, OffsetCommitKey, OffsetCommitValue};

use super::classic::{Classic, State};
use super::request::{CommitOffset, FetchedOffset};
use super::usage::Charge;
use super::{Name, RawRecord, SmallMap, Usage};

/// What an offset takes beside its metadata, and what a topic takes.
const OFFSET_BYTES: usize = 160;
const TOPIC_BYTES: usize = 112;

#[derive(Clone, Debug, PartialEq)]
struct Committed {
    topic_id: Uuid,
    offset: i64,
    leader_epoch: i32,
    metadata: Box<str>,
    at: TimestampMs,
    /// When it ends, where a client said so.
    expires: Option<TimestampMs>,
}

impl Committed {
    /// Whether it was kept for long enough, where nobody needs it since then: for as long as its client said, else for the retention.
    fn is_over(&self, since: TimestampMs, now: TimestampMs, retention_ms: i64) -> bool {
        match self.expires {
            Some(expires) => now >= expires,
            None => now.0.saturating_sub(since.0) >= retention_ms,
        }
    }
}

/// The committed offsets of a group.
pub(super) struct Offsets {
    topics: SmallMap<Name, SmallMap<i32, Committed>>,
    charge: Charge,
}

impl Offsets {
    pub(super) fn new(usage: &Usage) -> Self {
        Self { topics: SmallMap::new(), charge: usage.charge(0) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Keeps an offset; returns the record that says so.
    pub(super) fn commit(
        &mut self,
        group: &str,
        wanted: CommitOffset,
        at: TimestampMs,
        expires: Option<TimestampMs>,
    ) -> RawRecord {
        let CommitOffset { topic, topic_id, partition, offset, leader_epoch, metadata } = wanted;
        let record = RawRecord::of(&GroupRecord::OffsetCommit(
            key(group, &topic, partition),
            Some(OffsetCommitValue {
                offset,
                leader_epoch,
                metadata: Cow::Borrowed(&metadata),
                commit_timestamp: at.0,
                expire_timestamp: expires.map_or(-1, |expires| expires.0),
                topic_id,
            }),
        ));
        self.insert(topic, partition, Committed { topic_id, offset, leader_epoch, metadata, at, expires });
        record
    }

    /// How much more than these offsets, `None` where there are none, it takes at the most to keep this one, too: nothing where it takes
    /// the place of one with as much metadata.
    pub(super) fn more_bytes(known: Option<&Self>, wanted: &CommitOffset) -> usize {
        let before = known.and_then(|known| known.topics.get(&wanted.topic)?.get(&wanted.partition));
        match before {
            Some(before) => wanted.metadata.len().saturating_sub(before.metadata.len()),
            None => OFFSET_BYTES + TOPIC_BYTES + wanted.topic.len() + wanted.metadata.len(),
        }
    }

    fn insert(&mut self, topic: Name, partition: i32, committed: Committed) {
        let mut bytes = OFFSET_BYTES + committed.metadata.len();
        let name_bytes = TOPIC_BYTES + topic.len();
        let partitions = self.topics.get_or_insert_with(topic, || {
            bytes += name_bytes;
            SmallMap::new()
        });
        if let Some(before) = partitions.insert(partition, committed) {
            self.charge.subtract(OFFSET_BYTES + before.metadata.len());
        }
        self.charge.add(bytes);
    }

    fn take(&mut self, topic: &str, partition: i32) -> bool {
        let Some(partitions) = self.topics.get_mut(topic) else { return false };
        let Some(taken) = partitions.remove(&partition) else { return false };
        self.charge.subtract(OFFSET_BYTES + taken.metadata.len());
        if partitions.is_empty() {
            self.topics.remove(topic);
            self.charge.subtract(TOPIC_BYTES + topic.len());
        }
        true
    }

    /// Forgets an offset; returns the record that says so, where there was one.
    pub(super) fn remove(&mut self, group: &str, topic: &str, partition: i32) -> Option<RawRecord> {
        self.take(topic, partition).then(|| tombstone(group, topic, partition))
    }

    /// Forgets those that `is_gone` picks, by topic, topic id and offset.
    fn remove_if(&mut self, group: &str, records: &mut Vec<RawRecord>, mut is_gone: impl FnMut(&Name, &Committed) -> bool) {
        let mut gone = Vec::new();
        for (topic, partitions) in &self.topics {
            for (partition, committed) in partitions {
                if is_gone(topic, committed) {
                    gone.push((topic.clone(), *partition));
                }
            }
        }
        records.extend(gone.into_iter().filter_map(|(topic, partition)| self.remove(group, &topic, partition)));
    }

    /// Forgets all.
    pub(super) fn clear(&mut self, group: &str, records: &mut Vec<RawRecord>) {
        self.remove_if(group, records, |_, _| true);
    }

    /// Forgets those of topics that there are no more. An offset that names no topic id is taken to be of the topic with its name.
    pub(super) fn remove_lost(&mut self, group: &str, exists: &dyn Fn(&str, Uuid) -> bool, records: &mut Vec<RawRecord>) {
        self.remove_if(group, records, |topic, committed| !exists(topic, committed.topic_id));
    }

    /// Forgets those that were kept for long enough (KIP-211): of a group that is in use none, but those of topics that its
    /// consumers do not want any more; of a group without members those from before it lost them; others by their own time. Where a
    /// client said how long, that counts in place of the retention.
    pub(super) fn expire(
        &mut self,
        group: &str,
        classic: &Classic,
        now: TimestampMs,
        retention_ms: i64,
        records: &mut Vec<RawRecord>,
    ) {
        let subscribed: Option<BTreeSet<String>> =
            if classic.state() == State::Stable { classic.subscribed_topics() } else { None };
        let deserted_since = classic.state_since().filter(|_| classic.state() == State::Empty);
        self.remove_if(group, records, |topic, committed| match (classic.protocol_type(), classic.state()) {
            (None, State::Empty) => committed.is_over(committed.at, now, retention_ms),
            (Some(_), State::Empty) => {
                let since = deserted_since.map_or(committed.at, |since| since.max(committed.at));
                committed.is_over(since, now, retention_ms)
            }
            _ => {
                let is_unwanted = subscribed.as_ref().is_some_and(|topics| !topics.contains(&**topic));
                is_unwanted && committed.is_over(committed.at, now, retention_ms)
            }
        });
    }

    /// Forgets those of topics that a group of the new protocol does not want, when they were kept for long enough.
    pub(super) fn expire_unwanted(
        &mut self,
        group: &str,
        is_wanted: impl Fn(&str) -> bool,
        now: TimestampMs,
        retention_ms: i64,
        records: &mut Vec<RawRecord>,
    ) {
        self.remove_if(group, records, |topic, committed| {
            committed.is_over(committed.at, now, retention_ms) && !is_wanted(topic)
        });
    }

    pub(super) fn fetch(&self, topics: Option<Vec<(Name, Vec<i32>)>>) -> Vec<(Name, Vec<FetchedOffset>)> {
        let Some(topics) = topics else {
            let all = self.topics.iter().map(|(topic, partitions)| {
                (topic.clone(), partitions.iter().map(|(partition, committed)| fetched(*partition, Some(committed))).collect())
            });
            return all.collect();
        };
        let found = each_once(topics).into_iter().map(|(topic, partitions)| {
            let known = self.topics.get(&topic);
            let found = partitions.iter().map(|partition| fetched(*partition, known.and_then(|known| known.get(partition))));
            let found = found.collect();
            (topic, found)
        });
        found.collect()
    }

    /// An offset as a record says it is; without a value there is none.
    pub(super) fn replay(&mut self, topic: &str, partition: i32, value: Option<OffsetCommitValue<'_>>) {
        match value {
            None => {
                self.take(topic, partition);
            }
            Some(value) => {
                // Names are shared where they can be: a group often has many partitions of a topic.
                let name = self.topics.get_key_value(topic).map_or_else(|| Name::from(topic), |(name, _)| name.clone());
                let committed = Committed {
                    topic_id: value.topic_id,
                    offset: value.offset,
                    leader_epoch: value.leader_epoch,
                    metadata: value.metadata.into(),
                    at: TimestampMs(value.commit_timestamp),
                    expires: (value.expire_timestamp != -1).then_some(TimestampMs(value.expire_timestamp)),
                };
                self.insert(name, partition, committed);
            }
        }
    }
}

/// Each partition once, though a client may name it often: an answer is much larger than the asking.
fn each_once(topics: Vec<(Name, Vec<i32>)>) -> Vec<(Name, Vec<i32>)> {
    let mut asked: BTreeMap<Name, BTreeSet<i32>> = BTreeMap::new();
    let once = topics.into_iter().map(|(topic, mut partitions)| {
        let asked = asked.entry(topic.clone()).or_default();
        partitions.retain(|partition| asked.insert(*partition));
        (topic, partitions)
    });
    once.collect()
}

/// What is answered for a partition of a group that there may not be.
pub(super) fn fetch_nothing(topics: Option<Vec<(Name, Vec<i32>)>>) -> Vec<(Name, Vec<FetchedOffset>)> {
    let topics = each_once(topics.unwrap_or_default()).into_iter();
    topics.map(|(topic, partitions)| (topic, partitions.iter().map(|partition| fetched(*partition, None)).collect())).collect()
}

fn fetched(partition: i32, committed: Option<&Committed>) -> FetchedOffset {
    match committed {
        Some(Committed { offset, leader_epoch, metadata, .. }) => {
            FetchedOffset { partition, offset: *offset, leader_epoch: *leader_epoch, metadata: metadata.clone() }
        }
        None => FetchedOffset { partition, offset: -1, leader_epoch: -1, metadata: Box::default() },
    }
}

fn key<'a>(group: &'a str, topic: &'a str, partition: i32) -> OffsetCommitKey<'a> {
    OffsetCommitKey { group: Cow::Borrowed(group), topic: Cow::Borrowed(topic), partition }
}

fn tombstone(group: &str, topic: &str, partition: i32) -> RawRecord {
    RawRecord::of(&GroupRecord::OffsetCommit(key(group, topic, partition), None))
}
