//! From a partition of `__consumer_offsets` to the groups in it. Called by the coordinator, before a partition's groups are served.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use ringlog_engine::batch::{self, BatchError, BatchView};
use ringlog_engine::core::{Core, Partition};
use ringlog_engine::log::read::ReadError;
use ringlog_engine::types::{Offset, ProducerId, TopicId};
use ringlog_protocol::Uuid;
use ringlog_protocol::group_records::GroupRecord;

use crate::broker::controller::Controller;
use crate::broker::log_reader;
use crate::group::{Output, Shard};

/// How much is read at a time, at most; other work of the core goes on in between.
const READ_BYTES_MAX: u64 = 1 << 20;
/// What the records of a batch may take.
const RECORDS_BYTES_MAX: usize = 256 << 20;

/// Kafka's type of the marker that commits a transaction; the other one aborts it.
const COMMIT: i16 = 1;

/// Why the groups of a partition cannot be known.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// The partition cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Bytes are no batch.
    #[error("at offset {0}: {1}")]
    Batch(Offset, String),
}

/// Replays a partition into a shard, reading `read_bytes` at a time. What its groups have committed of topics that were deleted in the
/// meantime is in the output as forgotten.
pub(super) async fn load(
    core: &Rc<Core>,
    controller: &Controller,
    partition: &Arc<Partition>,
    read_bytes: u64,
    shard: &mut Shard,
    out: &mut Output,
) -> Result<(), LoadError> {
    let published = &partition.published;
    let _hold = published.hold_compaction();
    let end = published.high_watermark();
    let mut next = published.log_start();
    let mut replay = Replay::default();
    while next < end {
        let bytes = log_reader::read(core, published, next, read_bytes.min(READ_BYTES_MAX)).await?;
        let before = next;
        let mut rest = &bytes[..];
        while let Ok(Some((batch, after))) = batch::split_first(rest) {
            let at = batch.header().base_offset;
            replay.batch(&batch, shard).map_err(|error| LoadError::Batch(at, error.to_string()))?;
            next = batch.header().next_offset();
            rest = after;
        }
        if bytes.is_empty() {
            // Damage cost the log its last batches, and it went on behind them: what there is has been read.
            tracing::warn!(partition = partition.id.index, from = %next, to = %end, "what groups wrote at these offsets is lost");
            break;
        }
        if next == before {
            return Err(LoadError::Batch(next, "no whole batch can be read there".to_owned()));
        }
        tokio::task::yield_now().await;
    }
    if let Some((offset, error)) = replay.skipped_first {
        // A version that knows more may have written them. What is understood is served.
        tracing::warn!(
            partition = partition.id.index, %offset, error, count = replay.skipped_count,
            "records of groups that this version does not understand are left alone"
        );
    }
    if end > published.log_start() {
        // A topic that goes after this is told to the coordinator, which takes the shard before it hears of it.
        let catalogue = controller.catalogue();
        let exists = |name: &str, id: Uuid| match id {
            _ if id == Uuid::default() => catalogue.topic(name).is_some(),
            id => catalogue.topic_by_id(TopicId(id)).is_some(),
        };
        shard.forget_topics(&exists, out);
    }
    Ok(())
}

/// The value of a record of a transaction that is not ended yet, and where it stands.
struct Open {
    offset: Offset,
    value: Option<Vec<u8>>,
}

/// Takes the batches of a partition of `__consumer_offsets`, in their order, into a shard.
#[derive(Default)]
pub struct Replay {
    /// What transactions that are not ended yet have committed, by key and producer: where Kafka's coordinator wrote it.
    open: BTreeMap<Vec<u8>, BTreeMap<ProducerId, Open>>,
    /// The keys of that, by producer.
    keys: BTreeMap<ProducerId, BTreeSet<Vec<u8>>>,
    skipped_first: Option<(Offset, String)>,
    skipped_count: u64,
}

impl Replay {
    /// Replays a batch. What belongs to a transaction counts once that is committed, and not at all if it is aborted.
    ///
    /// # Errors
    /// Its bytes are not what was written. A record of a type or version that is not known is none: it is left alone.
    pub fn batch(&mut self, batch: &BatchView<'_>, shard: &mut Shard) -> Result<(), BatchError> {
        batch.check_crc()?;
        let header = batch.header();
        for record in &batch.records(RECORDS_BYTES_MAX)? {
            let record = record?;
            let (key, offset) = (record.key.unwrap_or_default(), header.offset_of(&record));
            if header.attributes.is_control() {
                self.end(header.producer_id, key.get(2..4) == Some(&COMMIT.to_be_bytes()[..]), shard);
            } else if header.attributes.is_transactional() {
                let open = Open { offset, value: record.value.map(<[u8]>::to_vec) };
                self.open.entry(key.to_vec()).or_default().insert(header.producer_id, open);
                self.keys.entry(header.producer_id).or_default().insert(key.to_vec());
            } else {
                self.record(offset, key, record.value, shard);
            }
        }
        Ok(())
    }

    /// A transaction is ended.
    fn end(&mut self, producer: ProducerId, is_committed: bool, shard: &mut Shard) {
        for key in self.keys.remove(&producer).unwrap_or_default() {
            let Some(open) = self.open.get_mut(&key) else { continue };
            let ended = open.remove(&producer);
            if open.is_empty() {
                self.open.remove(&key);
            }
            if let Some(Open { offset, value }) = ended.filter(|_| is_committed) {
                self.record(offset, &key, value.as_deref(), shard);
            }
        }
    }

    /// A record that counts. What stands before it under its key, in transactions that are not ended yet, will not count any more.
    fn record(&mut self, offset: Offset, key: &[u8], value: Option<&[u8]>, shard: &mut Shard) {
        if let Some(open) = self.open.get_mut(key) {
            open.retain(|_, open| open.offset > offset);
            if open.is_empty() {
                self.open.remove(key);
            }
        }
        match GroupRecord::decode(key, value) {
            Ok(record) => shard.replay(record),
            Err(error) => {
                self.skipped_first.get_or_insert((offset, error.to_string()));
                self.skipped_count += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringlog_engine::batch::BatchBuilder;
    use ringlog_engine::types::TimestampMs;
    use ringlog_protocol::Encoder;
    use ringlog_protocol::group_records::{OffsetCommitKey, OffsetCommitValue};

    use super::*;
    use crate::config::BrokerConfig;
    use crate::group::request::Reply;
    use crate::group::{CallId, Now, Request, Settings, Usage};

    fn shard() -> Shard {
        let config = BrokerConfig::load(None, &[]).unwrap().0;
        Shard::new(Rc::new(Settings::new(&config, 1)), Usage::default(), Box::new(|| 7))
    }

    type Record = (Vec<u8>, Option<Vec<u8>>);

    fn commit(partition: i32) -> Record {
        commit_at(partition, 5)
    }

    fn commit_at(partition: i32, offset: i64) -> Record {
        let key = OffsetCommitKey { group: "g".into(), topic: "t".into(), partition };
        let value = OffsetCommitValue {
            offset,
            leader_epoch: -1,
            metadata: "".into(),
            commit_timestamp: 1,
            expire_timestamp: -1,
            topic_id: Uuid::default(),
        };
        let record = GroupRecord::OffsetCommit(key, Some(value));
        let (mut key, mut value) = (Encoder::new(), Encoder::new());
        record.encode_key(&mut key);
        record.encode_value(&mut value);
        (key.into_buffer(), Some(value.into_buffer()))
    }

    fn replay(replay: &mut Replay, shard: &mut Shard, builder: BatchBuilder, (key, value): &Record) {
        let bytes = builder.record(TimestampMs(1), Some(key), value.as_deref()).build();
        replay.batch(&BatchView::new(&bytes).unwrap(), shard).unwrap();
    }

    fn offsets(shard: &mut Shard) -> Vec<(i32, i64)> {
        let now = Now { monotonic: Duration::ZERO, wall: TimestampMs(1) };
        let mut out = Output::default();
        shard.handle(CallId(1), "g", Request::Fetch(None), now, &mut out);
        let Some((_, Ok(Reply::Fetched(fetched)))) = out.replies.pop() else { panic!("fetched") };
        fetched.iter().flat_map(|(_, offsets)| offsets).map(|found| (found.partition, found.offset)).collect()
    }

    fn partitions(shard: &mut Shard) -> Vec<i32> {
        offsets(shard).into_iter().map(|(partition, _)| partition).collect()
    }

    #[test]
    fn what_stands_last_counts_whenever_its_transaction_is_committed() {
        let (mut shard, mut state) = (shard(), Replay::default());
        let plain = |at| BatchBuilder::new(Offset(at));
        let of = |at, producer: i64| plain(at).producer(ProducerId(producer), 0, 0).transactional();
        let marker = ([0_i16.to_be_bytes(), COMMIT.to_be_bytes()].concat(), Some(vec![0; 6]));
        // 0: a plain commit behind it; 1: a tombstone; 2 and 3: two transactions, committed in the other order; 4: alone.
        for partition in 0..5 {
            replay(&mut state, &mut shard, of(i64::from(partition), 1), &commit_at(partition, 10));
        }
        replay(&mut state, &mut shard, plain(10), &commit_at(0, 11));
        replay(&mut state, &mut shard, plain(11), &(commit(1).0, None));
        replay(&mut state, &mut shard, of(12, 2), &commit_at(2, 12));
        replay(&mut state, &mut shard, of(13, 3), &commit_at(3, 13));
        replay(&mut state, &mut shard, of(14, 2).control(), &marker);
        replay(&mut state, &mut shard, of(15, 1).control(), &marker);
        assert_eq!(offsets(&mut shard), [(0, 11), (2, 12), (3, 10), (4, 10)]);
        replay(&mut state, &mut shard, of(16, 3).control(), &marker);
        assert_eq!(offsets(&mut shard), [(0, 11), (2, 12), (3, 13), (4, 10)]);
        assert!(state.open.is_empty() && state.keys.is_empty());
    }

    #[test]
    fn offsets_of_a_transaction_count_when_it_is_committed() {
        let (mut shard, mut state) = (shard(), Replay::default());
        let of = |producer: i64| BatchBuilder::new(Offset(0)).producer(ProducerId(producer), 0, 0).transactional();
        let marker = |kind: i16| ([0_i16.to_be_bytes(), kind.to_be_bytes()].concat(), Some(vec![0; 6]));
        replay(&mut state, &mut shard, BatchBuilder::new(Offset(0)), &commit(0));
        replay(&mut state, &mut shard, of(1), &commit(1));
        replay(&mut state, &mut shard, of(2), &commit(2));
        replay(&mut state, &mut shard, of(3), &commit(3));
        assert_eq!(partitions(&mut shard), [0]);
        replay(&mut state, &mut shard, of(1).control(), &marker(0));
        replay(&mut state, &mut shard, of(2).control(), &marker(COMMIT));
        assert_eq!(partitions(&mut shard), [0, 2]);
    }

    #[test]
    fn what_is_not_understood_is_left_alone_and_counted() {
        let (mut shard, mut state) = (shard(), Replay::default());
        replay(&mut state, &mut shard, BatchBuilder::new(Offset(0)), &(vec![0x7f, 0xff, 1], None));
        replay(&mut state, &mut shard, BatchBuilder::new(Offset(0)), &(vec![0, 1, 0], Some(vec![0, 9])));
        replay(&mut state, &mut shard, BatchBuilder::new(Offset(0)), &commit(4));
        assert_eq!((partitions(&mut shard), state.skipped_count), (vec![4], 2));
    }
}
