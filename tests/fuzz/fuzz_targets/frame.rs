//! Fuzzes messages of the log.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ess::fuzzing::frame(bytes));
