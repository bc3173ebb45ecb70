//! Fuzzes query strings of the reporter.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ess::fuzzing::filters(bytes));
