//! Batches as a producer sends them, and the rules that they are held against.

use ringlog_engine::batch::{BatchBuilder, ProduceRules, TimestampType};
use ringlog_engine::types::{Offset, ProducerId, TimestampMs};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

/// A broker's default rules.
#[must_use]
pub fn produce_rules() -> ProduceRules {
    ProduceRules {
        message_bytes_max: 2 << 20,
        now: NOW,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_ms_max: i64::MAX,
        timestamp_after_ms_max: 3_600_000,
        zstd_allowed: true,
        keys_required: false,
    }
}

/// A batch of no more than so many bytes, one record at least, with keys, of a producer that is not idempotent.
#[must_use]
pub fn batch(bytes: usize, value_bytes: usize) -> Vec<u8> {
    let value: Vec<u8> = (0..value_bytes).map(|at| at as u8).collect();
    let mut builder = BatchBuilder::new(Offset(0)).producer(ProducerId::NONE, -1, -1);
    loop {
        builder.push(NOW, Some(b"key-0000"), Some(&value), &[]);
        // What a record has beside its value is less than this.
        if builder.size_bytes() + value_bytes + 32 > bytes {
            return builder.build();
        }
    }
}
