#![no_main]

use ringlog_fuzz_targets::frames;

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringlog_fuzz_targets::run(&ringlog_fuzz_targets::CONNECTION, input));

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, size_max: usize, seed: u32| {
    frames::mutate(data, size, size_max, seed, libfuzzer_sys::fuzzer_mutate)
});

libfuzzer_sys::fuzz_crossover!(|one: &[u8], other: &[u8], out: &mut [u8], seed: u32| { frames::cross_over(one, other, out, seed) });
