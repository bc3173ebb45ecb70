//! Fuzzes bodies of declared sources.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ess::fuzzing::declared(bytes));
