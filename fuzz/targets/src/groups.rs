//! What `__consumer_offsets` has, of any bytes, into the groups: records of each type, in and out of transactions, through the loader.

use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::batch::{BatchBuilder, BatchView};
use ringlog_engine::types::{Offset, ProducerId, TimestampMs};
use ringlog_protocol::Encoder;
use ringlog_protocol::group_records::GroupRecord;
use ringlog_server::broker::groups::Replay;
use ringlog_server::config::BrokerConfig;
use ringlog_server::group::{CallId, Now, Output, Request, Settings, Shard, Usage};

use crate::input::Input;

const WITHOUT_VALUE: u8 = 1;
const TRANSACTIONAL: u8 = 2;
const CONTROL: u8 = 4;

pub(crate) fn group_records(input: &[u8]) {
    let mut first = replayed(input);
    let mut second = replayed(input);
    assert_eq!(answers(&mut first), answers(&mut second), "a replay gives the same groups every time");
}

/// Flags, a producer where one is needed, key, value: record after record, each in a batch of its own.
fn replayed(input: &[u8]) -> Shard {
    let config = BrokerConfig::load(None, &[]).expect("the defaults are valid").0;
    let mut shard = Shard::new(Rc::new(Settings::new(&config, 1)), Usage::default(), Box::new(|| 7));
    let mut replay = Replay::default();
    let mut input = Input::new(input);
    let mut offset = 0;
    while !input.is_empty() {
        let flags = input.byte();
        let mut builder = BatchBuilder::new(Offset(offset));
        if flags & (TRANSACTIONAL | CONTROL) != 0 {
            builder = builder.producer(ProducerId(i64::from(input.byte() % 4)), 0, 0).transactional();
        }
        if flags & CONTROL != 0 {
            builder = builder.control();
        }
        let key = input.part();
        let value = (flags & WITHOUT_VALUE == 0).then(|| input.part());
        comes_back(key, value);
        let batch = builder.record(TimestampMs(1), Some(key), value).build();
        replay.batch(&BatchView::new(&batch).expect("a whole batch"), &mut shard).expect("a sound batch is replayed");
        offset += 1;
    }
    shard
}

/// What is understood is written as what is understood the same.
fn comes_back(key: &[u8], value: Option<&[u8]>) {
    let again = |key: &[u8], value: Option<&[u8]>| {
        let record = GroupRecord::decode(key, value).ok()?;
        let (mut key, mut value) = (Encoder::new(), Encoder::new());
        record.encode_key(&mut key);
        let has_value = record.encode_value(&mut value);
        Some((key.into_buffer(), has_value.then(|| value.into_buffer())))
    };
    if let Some((key, value)) = again(key, value) {
        assert_eq!(again(&key, value.as_deref()), Some((key.clone(), value.clone())), "a record does not come back as it was");
    }
}

/// Everything that may be asked of the groups that are there, and what they do when time passes.
fn answers(shard: &mut Shard) -> String {
    let now =
        |seconds| Now { monotonic: Duration::from_secs(seconds), wall: TimestampMs(1_767_225_600_000 + seconds as i64 * 1_000) };
    let mut out = Output::default();
    shard.begin(now(0), &mut out);
    let listed = shard.list();
    let mut said = format!("{listed:?}");
    for group in &listed {
        for request in [Request::Describe, Request::DescribeConsumers, Request::Fetch(None)] {
            shard.handle(CallId(1), &group.group, request, now(1), &mut out);
        }
    }
    // All members are silent.
    for seconds in [60, 7_200, 10 << 20] {
        shard.tick(now(seconds), &mut out);
        shard.expire(now(seconds), &mut out);
    }
    for group in &listed {
        shard.handle(CallId(2), &group.group, Request::Delete, now(11 << 20), &mut out);
    }
    said += &format!("{:?} {}", out.replies, out.records.len());
    said
}
