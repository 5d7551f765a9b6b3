#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringlog_fuzz_targets::run(&ringlog_fuzz_targets::GROUP_RECORDS, input));
