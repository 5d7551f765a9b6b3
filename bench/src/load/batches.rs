//! The batches that a producer sends: encoded once, changed in place where a run needs it, and as they are where it does not.
//! Nothing is allocated per record. Pure.

use ringlog_engine::batch::{BatchBuilder, CRC_START, HEADER_BYTES, crc_of};
use ringlog_engine::compression::{Codec, compress};
use ringlog_engine::types::{Offset, ProducerId, TimestampMs};

use super::content::{Filler, KEY_BYTES, Keys, Random, STAMP_BYTES, Stamp, key_bytes};

const LENGTH_AT: usize = 8;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const LAST_OFFSET_DELTA_AT: usize = 23;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;
const BASE_SEQUENCE_AT: usize = 53;
const RECORD_COUNT_AT: usize = 57;
const _: () = assert!(RECORD_COUNT_AT + 4 == HEADER_BYTES && ATTRIBUTES_AT == CRC_START, "the layout of KIP-98");

/// What all batches of a producer have in common.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Records of a full batch.
    pub records: usize,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Whether records have a key.
    pub keyed: bool,
    /// Whether values begin with a [`Stamp`].
    pub stamped: bool,
    /// How records are compressed.
    pub codec: Codec,
    /// The run, from which the filler follows.
    pub run: u64,
    /// Who sends them.
    pub producer: u32,
}

/// What is particular to one batch.
#[derive(Debug)]
pub(crate) struct Fill<'a, F: Fn(u64) -> u64> {
    /// How many records.
    pub records: usize,
    /// The partition it goes to.
    pub partition: i32,
    /// The number of its first record, of this producer and partition.
    pub sequence: u64,
    /// Producer id and epoch, where the producer has them.
    pub idempotent: Option<(i64, i16)>,
    /// When its nth record is, or was to be, sent.
    pub sent_ns: F,
    /// The wall clock.
    pub now_ms: i64,
    /// Where keys come from.
    pub keys: Option<&'a mut Keys>,
}

/// Buffers of encoded batches, one for each request that may be under way; one for all where batches need no change.
#[derive(Debug)]
pub(crate) struct Batches {
    shape: Shape,
    /// Where each record ends in an uncompressed batch.
    ends: Vec<usize>,
    /// Where each record's filler starts.
    filler_at: Vec<u32>,
    buffers: Vec<Buffer>,
}

#[derive(Clone, Debug)]
struct Buffer {
    /// The whole batch, uncompressed.
    plain: Vec<u8>,
    /// How many records its header and CRC are of.
    records: usize,
    /// The batch as it is sent, where that is compressed.
    compressed: Vec<u8>,
}

impl Batches {
    /// Encodes them. `differ` says that batches will not all be the same and full, even where their content is.
    #[must_use]
    pub(crate) fn new(shape: Shape, slots: usize, differ: bool, now_ms: i64) -> Self {
        let filler = Filler::new(shape.run, shape.value_bytes);
        let mut random = Random::new(shape.run ^ u64::from(shape.producer) << 32);
        let mut builder = BatchBuilder::new(Offset(0)).producer(ProducerId::NONE, -1, -1);
        let mut ends = Vec::with_capacity(shape.records);
        let mut filler_at = Vec::with_capacity(shape.records);
        for _ in 0..shape.records {
            let at = Filler::start(random.next());
            let value = filler.slice(at, shape.value_bytes).unwrap_or_default();
            builder.push(TimestampMs(now_ms), shape.keyed.then_some(&[0; KEY_BYTES]), Some(value), &[]);
            ends.push(builder.size_bytes());
            filler_at.push(at);
        }
        let plain = builder.build();
        let compressed = recompressed(shape.codec, &plain);
        let buffer = Buffer { plain, records: shape.records, compressed };
        let changing = shape.keyed || shape.stamped || differ;
        let buffers = vec![buffer; if changing { slots } else { 1 }];
        Self { shape, ends, filler_at, buffers }
    }

    /// Whether they need a broker that knows zstd (KIP-110).
    #[must_use]
    pub(crate) fn is_zstd(&self) -> bool {
        self.shape.codec == Codec::Zstd
    }

    /// Whether all slots have the same buffer: then only a batch that is as the one before may be made while that is under way.
    #[must_use]
    pub(crate) fn is_shared(&self) -> bool {
        self.buffers.len() == 1
    }

    /// Makes buffer `slot` the batch that `fill` asks for; returns how many bytes it has.
    pub(crate) fn fill<F: Fn(u64) -> u64>(&mut self, slot: usize, mut fill: Fill<'_, F>) -> usize {
        assert!(0 < fill.records && fill.records <= self.shape.records, "a batch within the shape");
        let shape = &self.shape;
        let at = slot % self.buffers.len();
        let buffer = &mut self.buffers[at];
        let end = self.ends[fill.records - 1];
        let plain = &mut buffer.plain;
        let content = shape.stamped || shape.keyed;
        let length_bytes = varint_bytes(shape.value_bytes);
        for (record, end) in self.ends[..if content { fill.records } else { 0 }].iter().enumerate() {
            let value_start = end - 1 - shape.value_bytes;
            let key = fill.keys.as_deref_mut().map(|keys| keys.next_key(fill.partition.cast_unsigned()));
            if let Some(key) = key {
                let key_end = value_start - length_bytes;
                plain[key_end - KEY_BYTES..key_end].copy_from_slice(&key_bytes(key));
            }
            if shape.stamped {
                let stamp = Stamp {
                    run: shape.run,
                    producer: shape.producer,
                    partition: fill.partition,
                    sequence: fill.sequence + record as u64,
                    sent_ns: (fill.sent_ns)(record as u64),
                    filler_at: self.filler_at[record] + STAMP_BYTES as u32,
                    value_bytes: shape.value_bytes as u32,
                    key,
                };
                stamp.write(&mut plain[value_start..end - 1]);
            }
        }
        let resized = buffer.records != fill.records;
        if resized {
            put(plain, LENGTH_AT, &((end - 12) as i32).to_be_bytes());
            put(plain, LAST_OFFSET_DELTA_AT, &(fill.records as i32 - 1).to_be_bytes());
            put(plain, RECORD_COUNT_AT, &(fill.records as i32).to_be_bytes());
            buffer.records = fill.records;
        }
        if content {
            put(plain, BASE_TIMESTAMP_AT, &fill.now_ms.to_be_bytes());
            put(plain, MAX_TIMESTAMP_AT, &fill.now_ms.to_be_bytes());
        }
        let compresses = shape.codec != Codec::None;
        if compresses && (content || resized) {
            buffer.compressed = recompressed(shape.codec, &plain[..end]);
        }
        let sent = if compresses { &mut buffer.compressed[..] } else { &mut plain[..end] };
        if let Some((id, epoch)) = fill.idempotent {
            put(sent, PRODUCER_ID_AT, &id.to_be_bytes());
            put(sent, PRODUCER_EPOCH_AT, &epoch.to_be_bytes());
            put(sent, BASE_SEQUENCE_AT, &wire_sequence(fill.sequence).to_be_bytes());
        }
        if content || resized || fill.idempotent.is_some() {
            let crc = crc_of(sent);
            put(sent, CRC_AT, &crc.to_be_bytes());
        }
        sent.len()
    }

    /// The batch that [`Batches::fill`] made.
    #[must_use]
    pub(crate) fn bytes(&self, slot: usize) -> &[u8] {
        let buffer = &self.buffers[slot % self.buffers.len()];
        if self.shape.codec == Codec::None { &buffer.plain[..self.ends[buffer.records - 1]] } else { &buffer.compressed }
    }
}

/// A producer's sequence on the wire goes round below 2^31.
#[must_use]
pub(crate) fn wire_sequence(sequence: u64) -> i32 {
    (sequence & 0x7fff_ffff) as i32
}

/// The batch with its records compressed; empty where there is no codec.
fn recompressed(codec: Codec, plain: &[u8]) -> Vec<u8> {
    if codec == Codec::None {
        return Vec::new();
    }
    let (header, records) = plain.split_at(HEADER_BYTES);
    let mut out = header.to_vec();
    match compress(codec, records) {
        Ok(compressed) => {
            out.extend_from_slice(&compressed);
            let attributes = u16::from(codec.id());
            put(&mut out, ATTRIBUTES_AT, &attributes.to_be_bytes());
        }
        // As a client would: what cannot be compressed goes as it is.
        Err(_) => out.extend_from_slice(records),
    }
    let length = (out.len() - 12) as i32;
    put(&mut out, LENGTH_AT, &length.to_be_bytes());
    let crc = crc_of(&out);
    put(&mut out, CRC_AT, &crc.to_be_bytes());
    out
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// The bytes of a length as the record format writes it: a zigzag varint.
fn varint_bytes(value: usize) -> usize {
    let bits = 64 - ((value as u64) << 1 | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use ringlog_engine::batch::BatchView;

    use super::*;

    fn shape(codec: Codec) -> Shape {
        Shape { records: 10, value_bytes: 200, keyed: true, stamped: true, codec, run: 42, producer: 3 }
    }

    fn check(bytes: &[u8], records: usize, codec: Codec) -> Vec<(Vec<u8>, Vec<u8>)> {
        let view = BatchView::new(bytes).unwrap();
        view.check_crc().unwrap();
        assert_eq!(view.header().record_count as usize, records);
        assert_eq!(view.header().last_offset_delta as usize, records - 1);
        assert_eq!(view.header().attributes.codec().unwrap(), codec);
        let records = view.records(1 << 20).unwrap();
        records
            .iter()
            .map(|record| {
                let record = record.unwrap();
                (record.key.unwrap_or_default().to_vec(), record.value.unwrap().to_vec())
            })
            .collect()
    }

    #[test]
    fn every_batch_is_sound_whatever_is_changed_in_it() {
        for codec in Codec::ALL {
            let mut batches = Batches::new(shape(codec), 3, true, 1000);
            let mut keys = Keys::new(50, 1.0, 4, 9);
            let mut sequence = 0;
            for (slot, records) in [(0, 10), (1, 3), (0, 10), (2, 1), (1, 10), (2, 9)] {
                let fill = Fill {
                    records,
                    partition: 2,
                    sequence,
                    idempotent: Some((77, 1)),
                    sent_ns: |record| 5_000 + record,
                    now_ms: 123_456,
                    keys: Some(&mut keys),
                };
                let bytes = batches.fill(slot, fill);
                let sent = batches.bytes(slot);
                assert_eq!(sent.len(), bytes);
                let header = *BatchView::new(sent).unwrap().header();
                assert_eq!((header.producer_id.0, header.producer_epoch, header.base_sequence as u64), (77, 1, sequence));
                assert_eq!((header.base_timestamp.0, header.max_timestamp.0), (123_456, 123_456));
                let filler = Filler::new(42, 200);
                for (at, (key, value)) in check(sent, records, codec).into_iter().enumerate() {
                    let key = u64::from_be_bytes(key.try_into().unwrap()) as u32;
                    assert!(key < 50 && Keys::partition(key, 4) == 2);
                    let stamp = Stamp::read(&value).unwrap();
                    assert_eq!((stamp.run, stamp.producer, stamp.partition, stamp.key), (42, 3, 2, Some(key)));
                    assert_eq!((stamp.sequence, stamp.sent_ns), (sequence + at as u64, 5_000 + at as u64));
                    assert_eq!(value[STAMP_BYTES..], *filler.slice(stamp.filler_at, 200 - STAMP_BYTES).unwrap());
                }
                sequence += records as u64;
            }
        }
    }

    #[test]
    fn a_batch_that_needs_no_change_is_one_buffer_for_all() {
        for codec in [Codec::None, Codec::Lz4] {
            let shape = Shape { keyed: false, stamped: false, ..shape(codec) };
            let mut batches = Batches::new(shape, 5, false, 1000);
            assert_eq!(batches.buffers.len(), 1);
            let mut fill = |slot, records| {
                let fill = Fill { records, partition: 0, sequence: 0, idempotent: None, sent_ns: |_| 0, now_ms: 5, keys: None };
                batches.fill(slot, fill);
                check(batches.bytes(slot), records, codec);
                batches.bytes(slot).as_ptr()
            };
            let full = fill(0, 10);
            assert_eq!(fill(1, 10), full);
        }
    }

    #[test]
    fn sequences_go_round() {
        assert_eq!(wire_sequence(0x7fff_ffff), i32::MAX);
        assert_eq!(wire_sequence(0x8000_0000), 0);
    }
}
