//! Runs one step a fixed number of times, for callgrind to count its instructions: `scripts/instructions` calls it. Without an
//! argument it prints the names of all steps; with a name it runs that one. What is counted happens in [`counted`], by whose name
//! callgrind starts and stops counting.
#![allow(clippy::unwrap_used, reason = "a benchmark may end where it fails")]

use std::hint::black_box;
use std::process::ExitCode;

use ringlog_engine::batch::{BatchHeader, crc_of, validate_produced, validate_records};
use ringlog_micro::{Appends, Decoding, Encoding, IndexLookUps, Plans, batch, produce_rules};

/// How often the step is counted; `scripts/instructions` divides by it.
const TIMES: usize = 100;

/// All that happens in here, and nothing else, is counted.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    // Else the call could be a jump, and callgrind would not see its end.
    black_box(());
}

/// Runs it once, so that what happens only the first time is not counted, then once more.
fn count(mut work: impl FnMut()) {
    work();
    counted(&mut work);
}

fn header() {
    let (bytes, rules) = (batch(16 << 10, 1000), produce_rules());
    count(|| {
        for _ in 0..TIMES {
            black_box(validate_produced(black_box(&bytes), &rules)).unwrap();
        }
    });
}

fn records() {
    let (bytes, rules) = (batch(16 << 10, 100), produce_rules());
    let header = BatchHeader::parse(&bytes).unwrap();
    count(|| {
        for _ in 0..TIMES {
            black_box(validate_records(&header, black_box(&bytes[61..]), &rules)).unwrap();
        }
    });
}

fn crc() {
    let bytes = batch(16 << 10, 1000);
    count(|| {
        for _ in 0..TIMES {
            black_box(crc_of(black_box(&bytes)));
        }
    });
}

fn append(batch_bytes: usize) {
    let mut appends = Appends::new(batch_bytes, 900);
    count(|| appends.append(TIMES));
}

fn plan() {
    let mut plans = Plans::new();
    count(|| {
        black_box(plans.plan(TIMES, 1 << 20));
    });
}

fn look_up() {
    let mut look_ups = IndexLookUps::new(260_000);
    count(|| look_ups.look_up(TIMES));
}

fn decode(partitions: i32) {
    let decoding = Decoding::new(partitions);
    count(|| decoding.decode(TIMES));
}

fn encode(partitions: i32) {
    let mut encoding = Encoding::new(partitions);
    count(|| encoding.encode(TIMES));
}

const STEPS: [(&str, fn()); 11] = [
    ("check a batch's header", header),
    ("check the records of 16 KiB, 100 B each", records),
    ("CRC of 16 KiB", crc),
    ("append 1 KiB to the tail", || append(1 << 10)),
    ("append 16 KiB to the tail", || append(16 << 10)),
    ("plan a fetch of 1 MiB from the tail", plan),
    ("look up an offset among 260,000", look_up),
    ("decode Produce, 1 partition", || decode(1)),
    ("decode Produce, 10 partitions", || decode(10)),
    ("encode Fetch, 1 partition", || encode(1)),
    ("encode Fetch, 10 partitions", || encode(10)),
];

fn main() -> ExitCode {
    let Some(wanted) = std::env::args().nth(1) else {
        for (name, _) in STEPS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    match STEPS.iter().find(|(name, _)| *name == wanted) {
        Some((_, run)) => {
            run();
            println!("{TIMES}");
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("ringlog-micro: there is no step {wanted:?}; without an argument all are listed");
            ExitCode::from(2)
        }
    }
}
