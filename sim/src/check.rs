//! After a start everything is read back and held against what was known: which topics there are, their options, and every record
//! of every partition. What the crash was allowed to take, the model forgets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ringlog_engine::core::scrubber::FindingKind;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::env::random::Random;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse};
use ringlog_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic};
use ringlog_protocol::api::metadata::{MetadataRequest, MetadataResponse};

use crate::client::admin::listed;
use crate::client::consumer::{Fetched, Wanted, fetch};
use crate::groups;
use crate::life::{Client, Life};
use crate::machine::{DATA, Running};
use crate::model::{Damage, Existence, Model, Read, sequence_of};
use crate::wire;

/// ScrubTellsOnlyRot: whatever the scrub has found in this life has rotted.
///
/// # Panics
/// It has not.
pub fn scrub_tells_only_rot(running: &Running, model: &Model) {
    for finding in running.scrubber.findings().iter().filter(|finding| finding.kind == FindingKind::Damaged) {
        let has_rotted = model.rot.keys().any(|(path, _)| *path == finding.path) || model.rotten_files.contains(&finding.path);
        assert!(has_rotted, "ScrubTellsOnlyRot: {finding:?}");
    }
}

/// ScrubTellsRot: after a whole pass, what is rotten in sealed segments was told, there or before it in the same segment.
///
/// # Panics
/// It was not.
pub fn scrub_tells_rot(running: &Running, disk: &SimDisk, model: &Model) {
    let findings = running.scrubber.findings();
    let segments: BTreeSet<PathBuf> = running.cores.iter().flat_map(|core| core.sealed_segments()).collect();
    for ((path, position), batch) in model.rot.iter().filter(|((path, _), _)| segments.contains(path)) {
        let bytes = disk.durable_bytes(path).unwrap_or_default();
        let now = bytes.get(*position as usize..*position as usize + batch.len()).unwrap_or_default();
        // It may have been cut off since, and be there anew with another leader epoch, or the file may be another topic's.
        let wrong = now.iter().zip(batch).skip(16).filter(|(now, before)| now != before).count();
        let is_there = now.len() == batch.len() && (1..8).contains(&wrong);
        let is_told = findings.iter().any(|finding| finding.path == *path && finding.position <= *position);
        assert!(is_told || !is_there, "ScrubTellsRot: {} at {position}: {findings:?}", path.display());
    }
}

/// How the lives since the last check ended, the worst of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// By a clean stop.
    Stopped,
    /// The process died; what it had written is there.
    ProcessDied,
    /// The power went.
    PowerLost,
}

const FETCH_VERSION: i16 = 17;
const LIST_VERSION: i16 = 7;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// The largest `index.interval.bytes` that there is.
const INDEX_INTERVAL_BYTES_MAX: usize = 4_096;

/// Reads everything back. The network must not cut connections, and the disk must not fail.
pub async fn after_start(life: &Life, disk: &SimDisk, end: End, random: &mut Random) {
    let mut client = Client::default();
    topics(life, &mut client).await;
    configs(life, &mut client).await;
    let there: Vec<_> = {
        let model = life.model.borrow();
        let there = model.topics.iter().enumerate().filter(|(_, topic)| topic.existence == Existence::Present);
        there.flat_map(|(at, topic)| (0..topic.partitions.len() as i32).map(move |partition| (at, partition))).collect()
    };
    for (topic, partition) in there {
        let found = read_all(life, disk, &mut client, topic, partition, end).await;
        by_time(life, &mut client, topic, partition, &found, random).await;
    }
    groups::check::after_start(life, random).await;
    let mut model = life.model.borrow_mut();
    model.is_dirty = false;
    for topic in model.topics.iter_mut().filter(|topic| topic.existence == Existence::Present) {
        topic.flush_changes = 0;
        topic.is_durable_throughout = topic.is_durable();
    }
}

async fn topics(life: &Life, client: &mut Client) {
    let request = MetadataRequest { topics: None, allow_auto_topic_creation: false, ..MetadataRequest::default() };
    let Some((correlation, frame)) = client.ask(life, &request, 12).await else { panic!("EverythingEnds: no metadata") };
    let response: MetadataResponse<'_> = wire::answer(&frame, 12, correlation);
    let listed = listed(&response);
    life.say(|| format!("there are {:?}", listed.iter().map(|(name, _, count)| (name, count)).collect::<Vec<_>>()));
    life.model.borrow_mut().look(&listed, true);
}

async fn configs(life: &Life, client: &mut Client) {
    let names: Vec<String> = {
        let model = life.model.borrow();
        model.topics.iter().filter(|topic| topic.existence == Existence::Present).map(|topic| topic.name.clone()).collect()
    };
    let resource = |name: &String| DescribeConfigsResource {
        resource_type: 2,
        resource_name: name.clone().into(),
        configuration_keys: Some(vec!["flush.messages".into(), "flush.ms".into()]),
    };
    let request = DescribeConfigsRequest { resources: names.iter().map(resource).collect(), ..DescribeConfigsRequest::default() };
    let Some((correlation, frame)) = client.ask(life, &request, 4).await else { panic!("EverythingEnds: no options") };
    let response: DescribeConfigsResponse<'_> = wire::answer(&frame, 4, correlation);
    let mut model = life.model.borrow_mut();
    for result in &response.results {
        assert!(result.error_code.is_none(), "TopicStays: options of {}: {}", result.resource_name, result.error_code);
        let Some(at) = model.by_name(&result.resource_name) else { continue };
        for config in &result.configs {
            let value = config.value.as_deref().and_then(|value| value.parse().ok()).unwrap_or(-1);
            let topic = &mut model.topics[at];
            let maybe = if config.name == "flush.ms" { &mut topic.flush_ms } else { &mut topic.flush_messages };
            assert!(maybe.contains(&value), "ConfigStays: {}={value} of {}, not {maybe:?}", config.name, topic.name);
            *maybe = BTreeSet::from([value]);
        }
    }
}

async fn offset(life: &Life, client: &mut Client, name: &str, partition: i32, timestamp: i64) -> Result<i64, ErrorCode> {
    let wanted = ListOffsetsPartition { partition_index: partition, timestamp, ..ListOffsetsPartition::default() };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic { name: name.into(), partitions: vec![wanted] }],
        ..ListOffsetsRequest::default()
    };
    let Some((correlation, frame)) = client.ask(life, &request, LIST_VERSION).await else { panic!("EverythingEnds: no offset") };
    let response: ListOffsetsResponse<'_> = wire::answer(&frame, LIST_VERSION, correlation);
    let answer = &response.topics[0].partitions[0];
    if answer.error_code.is_none() { Ok(answer.offset) } else { Err(answer.error_code) }
}

/// What recovery has kept of what it cut.
fn kept_aside(disk: &SimDisk, folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(DATA).join(folder);
    let entries = disk.entries(&folder).into_iter().filter(|entry| entry.name.ends_with(".cut"));
    entries.filter_map(|entry| disk.durable_bytes(&folder.join(entry.name))).collect()
}

async fn read_all(life: &Life, disk: &SimDisk, client: &mut Client, topic: usize, partition: i32, end: End) -> Vec<Read> {
    let (name, id) = {
        let model = life.model.borrow();
        (model.topics[topic].name.clone(), model.topics[topic].id.unwrap_or_default())
    };
    let ends = (offset(life, client, &name, partition, EARLIEST).await, offset(life, client, &name, partition, LATEST).await);
    let (Ok(start), Ok(log_end)) = ends else { panic!("TopicStays: the ends of {name}-{partition}: {ends:?}") };
    life.say(|| format!("{name}-{partition} has {start} to {log_end}"));
    let kept = kept_aside(disk, &format!("{name}-{partition}"));
    life.model.borrow_mut().settle_ends((topic, partition), end, (start, log_end), &kept);
    let mut found: Vec<Read> = Vec::new();
    let mut refused: Vec<i64> = Vec::new();
    let (mut start, mut at) = (start, start);
    while at < log_end {
        let wanted = Wanted { topic, partition, id, from: at, bytes_max: 1 << 20, wait_ms: 0 };
        match fetch(life, client, FETCH_VERSION, wanted).await {
            Fetched::Batches(reads) => {
                let Some(last) = reads.last() else { panic!("ReadFindsTheBatch: {name}-{partition} gives nothing at {at}") };
                at = last.end;
                found.extend(reads);
            }
            // What lies behind the batch that rotted.
            Fetched::Damaged => {
                life.model.borrow().check_refused(topic, partition, at);
                refused.push(at);
                let damage = life.model.borrow_mut().partition(topic, partition).damage.clone();
                at = damage.iter().filter(|damage| damage.has(at)).map(|damage| damage.end).max().unwrap_or(at + 1);
            }
            Fetched::OutOfRange | Fetched::Nothing if life.model.borrow().topics[topic].has_retention => {
                // Retention came in between.
                found.clear();
                refused.clear();
                start = offset(life, client, &name, partition, EARLIEST).await.unwrap_or(log_end);
                at = start;
            }
            other => panic!("ReadFindsTheBatch: {name}-{partition} at {at}: {other:?}"),
        }
    }
    life.model.borrow_mut().check_all(topic, partition, &found, &refused, start, log_end);
    found
}

/// Finds offsets by timestamp, for some of what is there.
async fn by_time(life: &Life, client: &mut Client, topic: usize, partition: i32, found: &[Read], random: &mut Random) {
    let is_steady = {
        let model = life.model.borrow();
        let there = &model.topics[topic].partitions[partition as usize];
        // What a header hides from a read a search may find, and the other way round.
        !model.topics[topic].has_retention && !there.damage.iter().any(|damage| damage.is_header)
    };
    if found.is_empty() || !random.chance(0.3) || !is_steady {
        return;
    }
    let (name, wanted, expected, is_damaged) = {
        let mut model = life.model.borrow_mut();
        let start = model.partition(topic, partition).log_start_min;
        let time = |read: &Read| {
            let bytes = &model.sent[&read.number].bytes;
            ringlog_engine::batch::BatchHeader::parse(bytes).map_or(-1, |header| header.max_timestamp.0)
        };
        let wanted = time(&found[random.below(found.len() as u64) as usize]);
        // All records of a batch have one time, its first.
        let first = found.iter().find(|read| time(read) >= wanted && read.end > start);
        let expected = first.map(|read| read.base.max(start));
        let is_damaged = !model.partition(topic, partition).damage.is_empty();
        (model.topics[topic].name.clone(), wanted, expected, is_damaged)
    };
    let answer = offset(life, client, &name, partition, wanted).await;
    if is_damaged && answer == Err(ErrorCode::CORRUPT_MESSAGE) {
        return;
    }
    assert_eq!(answer, Ok(expected.unwrap_or(-1)), "TimestampsAreFound: {wanted} in {name}-{partition}");
}

impl Model {
    /// What may be lost is forgotten; what may not has to be there, as far as the ends say.
    fn settle_ends(&mut self, (at_topic, at_partition): (usize, i32), end: End, (start, log_end): (i64, i64), kept: &[Vec<u8>]) {
        if start < log_end {
            self.check_retained(at_topic, at_partition, start);
        }
        let is_dirty = self.is_dirty;
        let topic = &mut self.topics[at_topic];
        let name = format!("{}-{at_partition}", topic.name);
        let has_retention = topic.has_retention;
        let partition = &mut topic.partitions[at_partition as usize];
        assert!(start >= partition.log_start_min, "LogStartNeverRetreats: {name} from {} to {start}", partition.log_start_min);
        let may_move = has_retention || start <= partition.log_start_max || start == log_end;
        assert!(may_move, "LogStartMovesWhenAsked: {name} starts at {start}, at most {}", partition.log_start_max);
        let (must, invariant) = match end {
            End::Stopped => (partition.written_end.max(partition.durable_end), "StoppedCleanlyIsThere"),
            End::ProcessDied if is_dirty => (partition.durable_end, "AcknowledgedSurvives"),
            End::ProcessDied => {
                (partition.written_end.max(partition.written_end_weak).max(partition.durable_end), "WrittenSurvivesTheProcess")
            }
            End::PowerLost => (partition.durable_end, "AcknowledgedSurvives"),
        };
        // A damaged batch is where recovery cuts.
        let is_excused = partition.damage.iter().any(|damage| damage.base == log_end);
        assert!(log_end >= must || is_excused, "{invariant}: {name} ends at {log_end}, and has to reach {must}");
        for (&base, known) in partition.acknowledged.range(log_end..) {
            let sent = &self.sent[&known.number];
            if known.is_weak || base + sent.records > must {
                continue;
            }
            let has_rotted = partition.damage.iter().any(|damage| damage.base == base);
            // The broker writes what lies before: base offset, leader epoch.
            let same = |bytes: &Vec<u8>| bytes.windows(sent.bytes.len() - 16).any(|bytes| bytes == &sent.bytes[16..]);
            assert!(has_rotted || kept.iter().any(same), "CutIsKeptAside: batch {} at {base} of {name}", known.number);
        }
        let known_end = partition.written_end.max(partition.written_end_weak);
        // Records that were deleted, and lost: the log begins anew behind them.
        let began_anew = end == End::PowerLost && start == log_end;
        if log_end < known_end || is_excused || began_anew {
            partition.losses += 1;
        }
        if end == End::PowerLost || is_dirty {
            // It may be gone, and its offset given to another that was on its way.
            let durable = partition.durable_end;
            partition.acknowledged.retain(|&base, known| !known.is_weak || (!is_dirty && base < durable));
        }
        // Where the disk was full, a round that was given back may be there again, and the one that was written over it and not synced
        // be gone.
        let stays_below = if end == End::PowerLost && is_dirty { partition.durable_end.min(log_end) } else { log_end };
        let sent = &self.sent;
        partition.acknowledged.retain(|&base, known| base + sent[&known.number].records <= stays_below);
        partition.seen.retain(|&base, _| base < stays_below);
        // One below the log start may still hide what follows it, up to the next entry of the index.
        partition.damage.retain(|damage| damage.base < log_end);
        partition.visible = log_end;
        partition.log_start_min = start;
        partition.log_start_max = partition.log_start_max.max(start);
        (partition.written_end, partition.written_end_weak) = (log_end, log_end);
        // Recovery syncs what it is about to show.
        partition.durable_end = log_end;
        partition.ends.clear();
    }

    /// OnlyRotIsRefused: a batch that rotted may hide, by a wrong length, what follows it up to where the index leads on. Where the
    /// batch that the index leads to has rotted as well, that is the next one's entry.
    ///
    /// # Panics
    /// If what was refused had not rotted, and nothing rotten can hide it.
    pub fn check_refused(&self, at_topic: usize, at_partition: i32, at: i64) {
        let topic = &self.topics[at_topic];
        let partition = &topic.partitions[at_partition as usize];
        let is_near = |from: i64, at: i64| {
            let there = partition.acknowledged.range(from.min(at)..at).map(|(&base, known)| (base, &self.sent[&known.number]));
            let mut between = there.filter(|(base, sent)| base + sent.records <= at).map(|(_, sent)| sent.bytes.len());
            // The last of them may be the one that has the entry.
            between.next_back();
            between.sum::<usize>() <= INDEX_INTERVAL_BYTES_MAX
        };
        let hides = |damage: &Damage| {
            let has_no_index = self.reads_fail || partition.rotten_indexes.contains(&damage.segment);
            if !damage.is_header || damage.base > at || has_no_index {
                return damage.has(at) || (damage.is_header && damage.base <= at);
            }
            let mut others: Vec<_> = partition.damage.iter().filter(|other| other.segment == damage.segment).collect();
            others.sort_by_key(|other| other.base);
            let mut hidden_to = damage.end;
            for other in others {
                if (damage.base..=at).contains(&other.base) && is_near(hidden_to, other.base) {
                    hidden_to = hidden_to.max(other.end);
                }
            }
            damage.has(at) || is_near(hidden_to, at)
        };
        assert!(
            partition.damage.iter().any(hides),
            "OnlyRotIsRefused: {}-{at_partition} at {at}: {:?}",
            topic.name,
            partition.damage
        );
    }

    /// All that is there, against all that is known. `refused`: where reads were told of damage.
    fn check_all(&mut self, at_topic: usize, at_partition: i32, found: &[Read], refused: &[i64], start: i64, log_end: i64) {
        let topic = &self.topics[at_topic];
        let name = format!("{}-{at_partition}", topic.name);
        let partition = &topic.partitions[at_partition as usize];
        let by_base: BTreeMap<i64, u64> = found.iter().map(|read| (read.base, read.number)).collect();
        let is_refused = |range: std::ops::Range<i64>| refused.iter().any(|at| range.contains(at));
        for (&base, known) in &partition.acknowledged {
            let is_there = by_base.get(&base) == Some(&known.number);
            let end = base + self.sent[&known.number].records;
            assert!(
                is_there || end <= start || is_refused(base..end),
                "AcknowledgedSurvives: batch {} at {base} of {name}",
                known.number
            );
        }
        for pair in found.windows(2) {
            assert!(
                pair[0].end == pair[1].base || is_refused(pair[0].end..pair[1].base),
                "OffsetsHaveNoGap: {name} at {}",
                pair[0].end
            );
        }
        let first = found.first().map_or(log_end, |first| first.base);
        assert!(
            first <= start || is_refused(start..first),
            "OffsetsHaveNoGap: {name} starts at {start} and has nothing below {first}"
        );
        let mut times: BTreeMap<u64, u32> = BTreeMap::new();
        let mut sequences: BTreeMap<i64, (i32, i64)> = BTreeMap::new();
        for read in found {
            let sent = &self.sent[&read.number];
            let count = times.entry(read.number).or_default();
            *count += 1;
            let max = if sent.is_idempotent { 1 } else { sent.times };
            assert!(*count <= max, "OnceOnly: batch {} is in {name} {count} times, and was sent {}", read.number, sent.times);
            if let Some((producer, first, last)) = sequence_of(&sent.bytes) {
                let before = sequences.insert(producer, (last, read.end));
                // What has rotted in between is not there, nor what that hides.
                let has_gap = |from: i64| refused.iter().any(|at| (from..read.base).contains(at));
                assert!(
                    before.is_none_or(|(before, end)| before + 1 == first || (before < first && has_gap(end))),
                    "InOrder: {name} at {}: producer {producer} has {first} after {before:?}",
                    read.base
                );
            }
        }
        let partition = self.partition(at_topic, at_partition);
        partition.damage.retain(|damage| !by_base.contains_key(&damage.base));
    }
}
