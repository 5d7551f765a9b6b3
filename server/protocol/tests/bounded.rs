//! Hostile bodies: whatever the bytes, decoding neither panics nor holds much more memory than they could fill. Measured with an allocator that
//! counts, per thread, what is held at once.
#![allow(unsafe_code, reason = "a counting allocator cannot be written without")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{Bodies, Outcome, encoding, every_payload, every_version, payload_encoding, run_ours, run_payload};
use proptest::prelude::*;
use ringlog_protocol::api::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use ringlog_protocol::api::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ringlog_protocol::{Decoder, Encoder, Records, RequestHeader};

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static HELD_MAX: Cell<isize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that is going away frees its last things when its counters are gone already: nothing to count then.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        HELD_MAX.with(|held_max| held_max.set(held_max.get().max(held.get())));
        ALLOCATIONS.with(|allocations| allocations.set(allocations.get() + usize::from(change > 0)));
    });
}

// SAFETY: every call goes to the system's allocator unchanged, and counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise about `pointer` and `layout` is passed on; the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes held at once during `work`, beyond what was held before.
fn held_max_during(work: impl FnOnce()) -> usize {
    let before = HELD.with(Cell::get);
    HELD_MAX.with(|held_max| held_max.set(before));
    work();
    (HELD_MAX.with(Cell::get) - before).unsigned_abs()
}

/// Bytes of memory per byte of body. The worst is an array of empty strings: one byte on the wire, 24 in memory, and while the array grows half as
/// much again is held. Arrays in arrays may each reserve for what they announce.
const AMPLIFICATION_MAX: usize = 100;

/// Decodes and returns the memory held at most, per byte of body.
fn check(name: &str, version: i16, body: &[u8]) -> f64 {
    check_by(run_ours, name, version, body)
}

fn check_payload(name: &str, version: i16, body: &[u8]) -> f64 {
    check_by(run_payload, name, version, body)
}

fn check_by(run: fn(&str, i16, &[u8], bool) -> Outcome, name: &str, version: i16, body: &[u8]) -> f64 {
    let held = held_max_during(|| {
        run(name, version, body, false);
    });
    assert!(held <= AMPLIFICATION_MAX * body.len(), "{name} version {version}: {held} bytes held for a body of {}", body.len());
    held as f64 / body.len().max(1) as f64
}

#[test]
fn the_allocator_counts() {
    assert!((1000..1100).contains(&held_max_during(|| drop(std::hint::black_box(vec![1u8; 1000])))));
}

fn allocations_during<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATIONS.with(Cell::get);
    let result = work();
    (ALLOCATIONS.with(Cell::get) - before, result)
}

#[test]
fn produce_and_fetch_allocate_per_array_only() {
    let records = vec![5; 1 << 20];
    let partition = |index| PartitionProduceData { index, records: Records::Bytes(&records) };
    let topic = TopicProduceData { name: "topic".into(), partition_data: (0..3).map(partition).collect(), ..Default::default() };
    let produce = ProduceRequest { topic_data: vec![topic.clone(), topic], ..Default::default() };
    let mut encoder = Encoder::new();
    produce.encode(&mut encoder, 12);
    // An array of topics, and an array of partitions in each of the two.
    let (allocations, decoded) = allocations_during(|| ProduceRequest::decode(&mut Decoder::new(encoder.buffer()), 12));
    assert_eq!((allocations, decoded), (3, Ok(produce)));

    let partition = |partition_index| PartitionData { partition_index, records: Records::Hole(1 << 20), ..Default::default() };
    let topic = FetchableTopicResponse { partitions: (0..50).map(partition).collect(), ..Default::default() };
    let fetch = FetchResponse { responses: vec![topic], ..Default::default() };
    fetch.encode(&mut encoder, 16);
    encoder.clear();
    let (allocations, ()) = allocations_during(|| fetch.encode(&mut encoder, 16));
    assert_eq!((allocations, encoder.holes().len()), (0, 50), "a used encoder has its memory already");
}

#[test]
fn a_few_bytes_reserve_next_to_nothing() {
    for (schema, version) in every_version() {
        for body in
            [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff; 5], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x80, 0x80, 0x80, 0x80, 0x08], &[]]
        {
            check(schema.structure.name, version, body);
        }
    }
    for (schema, version) in every_payload() {
        for body in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff; 5], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[]] {
            check_payload(schema.structure.name, version, body);
        }
    }
}

#[test]
fn bodies_of_one_repeated_byte_are_bounded() {
    let mut worst = (0.0, "", 0);
    for byte in [0, 1, 2, 3, 4, 8, 16, 64, 0x7f, 0x80, 0xff] {
        for (schema, version) in every_version() {
            for size in [100, 100_000] {
                // With a count in front that takes all that follows, in either encoding.
                for count in [&[][..], &[0, 0, 0x30, 0], &[0x81, 0x08], &[0, 0xff, 0xff]] {
                    let mut body = count.to_vec();
                    body.resize(size, byte);
                    let factor = check(schema.structure.name, version, &body);
                    if factor > worst.0 {
                        worst = (factor, schema.structure.name, version);
                    }
                }
            }
        }
    }
    eprintln!("{:.0} bytes held per byte of body at worst: {} version {}", worst.0, worst.1, worst.2);
    assert!(worst.0 > 5.0, "these bodies fill no arrays");
}

#[test]
fn an_array_of_empty_strings_is_bounded() {
    // DescribeConfigs 4: one resource {type, name, configuration keys}, its keys a million empty strings.
    let mut encoder = Encoder::new();
    encoder.raw(&[2, 2, 1]);
    encoder.unsigned_varint(1_000_001);
    encoder.raw(&vec![1; 1_000_000]);
    encoder.raw(&[0, 0, 0, 0]);
    let body = encoder.into_buffer();
    assert!(run_ours("DescribeConfigsRequest", 4, &body, false).again.is_ok());
    assert!(check("DescribeConfigsRequest", 4, &body) > 20.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bodies_are_bounded(body in prop::collection::vec(any::<u8>(), 0..300)) {
        for (schema, version) in every_version() {
            check(schema.structure.name, version, &body);
        }
        for (schema, version) in every_payload() {
            check_payload(schema.structure.name, version, &body);
        }
    }

    #[test]
    fn bodies_of_small_bytes_are_bounded(body in prop::collection::vec(0u8..6, 0..300)) {
        for (schema, version) in every_version() {
            check(schema.structure.name, version, &body);
        }
        for (schema, version) in every_payload() {
            check_payload(schema.structure.name, version, &body);
        }
    }

    #[test]
    fn valid_bodies_with_a_hostile_length_are_bounded(
        entropy in prop::collection::vec(any::<u8>(), 0..300),
        place in any::<prop::sample::Index>(),
        length in prop::sample::select(vec![
            &[0x7f, 0xff, 0xff, 0xff][..], &[0xff; 4], &[0x80, 0, 0, 0], &[0, 1, 0, 0], &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0xff, 0xff, 0xff, 0xff, 0x07], &[0xff, 0x7f], &[0x80], &[0],
        ]),
        inserted in any::<bool>(),
    ) {
        for (schema, version) in every_version() {
            let mut encoder = Encoder::new();
            Bodies::new(&entropy, encoding(schema, version)).structure(schema.structure, &mut encoder);
            let mut body = encoder.into_buffer();
            body.push(0);
            let start = place.index(body.len());
            let end = if inserted { start } else { body.len().min(start + length.len()) };
            body.splice(start..end, length.iter().copied());
            check(schema.structure.name, version, &body);
        }
        for (schema, version) in every_payload() {
            let mut encoder = Encoder::new();
            Bodies::new(&entropy, payload_encoding(schema, version)).structure(schema.structure, &mut encoder);
            let mut body = encoder.into_buffer();
            body.push(0);
            let start = place.index(body.len());
            let end = if inserted { start } else { body.len().min(start + length.len()) };
            body.splice(start..end, length.iter().copied());
            check_payload(schema.structure.name, version, &body);
        }
    }

    #[test]
    fn random_headers_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), key in 0u8..80, version in 0u8..20) {
        let text: Vec<u8> = bytes.iter().map(|byte| byte & 0x7f).collect();
        // A client id that is not UTF-8 is copied: three bytes for each that is none, into a string that doubles as it grows.
        for (bytes, held_max) in [(&bytes, 6 * (4 + bytes.len())), (&text, 0)] {
            let bytes = [&[0, key, 0, version][..], bytes].concat();
            let held = held_max_during(|| {
                let _ = RequestHeader::decode(&mut Decoder::new(&bytes));
            });
            prop_assert!(held <= held_max, "{held} bytes held of {} bytes", bytes.len());
        }
    }
}
