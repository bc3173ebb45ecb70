//! Fuzzes signature headers and the bodies they are for.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ess::fuzzing::signature(bytes));
