//! The records of a shard, as bytes, and how they come to be. The formats are Kafka's, in `ringlog_protocol::group_records`.

use ringlog_protocol::Encoder;
use ringlog_protocol::group_records::GroupRecord;

/// A record to append; without a value it takes back what was written under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Option<Vec<u8>>,
}

impl RawRecord {
    /// The bytes of key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }

    pub(super) fn of(record: &GroupRecord<'_>) -> Self {
        let mut key = Encoder::new();
        record.encode_key(&mut key);
        let mut value = Encoder::new();
        let has_value = record.encode_value(&mut value);
        Self { key: key.into_buffer(), value: has_value.then(|| value.into_buffer()) }
    }
}
