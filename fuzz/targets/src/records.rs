//! Record batches, and the records of each codec.

use ringlog_engine::batch::{self, BatchHeader, BatchView, TimestampType};
use ringlog_engine::compression::{Codec, compress, decompress};
use ringlog_engine::types::TimestampMs;

/// What the records of a batch may take when decompressed.
const RECORDS_BYTES_MAX: usize = 1 << 20;

/// Any bytes as batches, as a producer sends them and as a file holds them.
pub(crate) fn record_batch(input: &[u8]) {
    let _ = BatchHeader::parse(input);
    let mut seen = 0;
    for found in batch::batches(input) {
        let Ok(view) = found else { break };
        seen += view.bytes().len();
        look_into(&view);
    }
    assert!(seen <= input.len());
    if let Ok(view) = BatchView::new(input) {
        look_into(&view);
    }
    // The same with the CRC that the bytes have.
    if input.len() >= batch::HEADER_BYTES {
        let mut fixed = input.to_vec();
        let crc = crc32c::crc32c(&fixed[21..]);
        fixed[17..21].copy_from_slice(&crc.to_be_bytes());
        if let Ok(view) = BatchView::new(&fixed) {
            view.check_crc().expect("the CRC was made from these bytes");
            let rules = batch::ProduceRules {
                message_bytes_max: RECORDS_BYTES_MAX,
                now: TimestampMs(1_767_225_600_000),
                timestamp_type: TimestampType::CreateTime,
                timestamp_before_ms_max: i64::MAX,
                timestamp_after_ms_max: 3_600_000,
                zstd_allowed: input[0] & 1 == 0,
                keys_required: input[0] & 2 != 0,
            };
            if let Ok(header) = batch::validate_produced(&fixed, &rules)
                && header.attributes.codec() == Ok(Codec::None)
                && let Err(error) = batch::validate_records(&header, view.records_bytes(), &rules)
            {
                let refused = batch::find_refused(&header, view.records_bytes(), &rules, error, 100);
                assert!(refused.records.len() <= 100);
            }
            look_into(&view);
        }
    }
}

fn look_into(view: &BatchView<'_>) {
    let header = view.header();
    assert!(header.last_offset() >= header.base_offset && header.next_offset() > header.last_offset());
    let Ok(records) = view.records(RECORDS_BYTES_MAX) else { return };
    for record in &records {
        let Ok(record) = record else { break };
        let _ = (header.offset_of(&record), header.timestamp_of(&record));
        let bytes: usize = record.headers().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len)).sum();
        assert!(bytes <= RECORDS_BYTES_MAX);
    }
}

/// The first byte says the codec.
pub(crate) fn records(input: &[u8]) {
    let Some((&first, bytes)) = input.split_first() else { return };
    let codec = Codec::ALL[usize::from(first) % Codec::ALL.len()];
    if let Ok(out) = decompress(codec, bytes, RECORDS_BYTES_MAX) {
        assert!(out.len() <= RECORDS_BYTES_MAX);
        let again = compress(codec, &out).expect("whatever bytes can be compressed");
        assert_eq!(decompress(codec, &again, RECORDS_BYTES_MAX).expect("our own bytes can be read"), out);
    }
    let again = compress(codec, bytes).expect("whatever bytes can be compressed");
    assert_eq!(&*decompress(codec, &again, bytes.len()).expect("our own bytes can be read"), bytes);
}
