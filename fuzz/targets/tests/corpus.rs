//! Every target over its corpus, and over some mutations of it, on any toolchain. `RINGLOG_FUZZ_MUTATIONS` says how many of each
//! input (10 without); which ones is the same in every run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::path::{Path, PathBuf};

use ringlog_engine::env::random::Random;
use ringlog_fuzz_targets::{ALL, memory, run};

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}")).map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn over_corpus(name: &str) {
    let target = ALL.iter().find(|target| target.name == name).unwrap();
    let inputs = corpus(name);
    assert!(!inputs.is_empty(), "{name} has no corpus");
    let mutations: usize = std::env::var("RINGLOG_FUZZ_MUTATIONS").map_or(10, |text| text.parse().unwrap());
    let mut random = Random::new(1);
    for (path, input) in &inputs {
        // The test's output says which input it was, where one is a finding.
        eprintln!("{}", path.display());
        run(target, input);
        for mutation in 0..mutations {
            let mut mutated = input.clone();
            for _ in 0..=random.below(4) {
                mutate(&mut mutated, &inputs, &mut random);
            }
            let _ = mutation;
            run(target, &mutated);
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, inputs: &[(PathBuf, Vec<u8>)], random: &mut Random) {
    let at = random.below(bytes.len() as u64 + 1) as usize;
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, random.next_u64() as u8),
        2 => {
            let other = &inputs[random.below(inputs.len() as u64) as usize].1;
            let from = random.below(other.len() as u64 + 1) as usize;
            bytes.splice(at.., other[from..].iter().copied());
        }
        3 => {
            let value = [0_u64, u64::MAX, i64::MAX as u64, 1 << 31, 127, 255][random.below(6) as usize].to_be_bytes();
            let len = 1 << random.below(4);
            for (target, value) in bytes.iter_mut().skip(at).zip(&value[8 - len..]) {
                *target = *value;
            }
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { over_corpus(stringify!($name)); })*

        #[test]
        fn every_target_is_here() {
            let here = [$(stringify!($name)),*];
            assert!(ALL.iter().map(|target| target.name).eq(here));
            for name in here {
                let path = format!("{}/../fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
                let run = format!("ringlog_fuzz_targets::run(&ringlog_fuzz_targets::{}, input)", name.to_uppercase());
                assert!(std::fs::read_to_string(&path).is_ok_and(|text| text.contains(&run)), "{path}");
            }
        }
    };
}
targets! {
    record_batch records journal recovery recovery_mutated repair indexes checkpoints producer_snapshot server_properties requests
    responses group_records connection
}

#[test]
fn the_allocator_counts() {
    assert!((1000..1100).contains(&memory::held_max_during(|| drop(std::hint::black_box(vec![1_u8; 1000])))));
}
