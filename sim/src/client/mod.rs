//! The clients: what real ones do, with the wire's frames. Their tasks end with the machine's life; what they are in the middle
//! of they go on with in the next.

pub mod admin;
pub mod consumer;
pub mod producer;

use ringlog_engine::env::random::Random;
use ringlog_protocol::{ApiKey, ErrorCode};

use crate::model::{Existence, Model};

/// Some version of an API, from `min` on.
pub(crate) fn version(random: &mut Random, api: ApiKey, min: i16) -> i16 {
    let min = min.max(api.version_min());
    min + random.below((api.version_max() - min + 1) as u64) as i16
}

/// Whether an error says that there is no such topic.
pub(crate) fn is_unknown_topic(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UNKNOWN_TOPIC_ID | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
}

/// Some partition of a topic that is there, by what is known; its id too.
pub(crate) fn pick(model: &Model, random: &mut Random) -> Option<(usize, i32, [u8; 16])> {
    let there: Vec<_> = (0..model.topics.len())
        .filter(|&at| model.topics[at].existence == Existence::Present && !model.topics[at].partitions.is_empty())
        .filter_map(|at| Some((at, model.topics[at].id?)))
        .collect();
    let (topic, id) = *there.get(random.below(there.len() as u64) as usize)?;
    let partition = random.below(model.topics[topic].partitions.len() as u64) as i32;
    Some((topic, partition, id))
}
