//! Fuzzes bodies of POST /webhook, kept, hashed and dropped.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ess::fuzzing::body(bytes));
