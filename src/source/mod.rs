//! Sources: the platforms that events come from.
//!
//! A built-in source is a Rust type in a folder of its own. Every other source is a file that an operator writes
//! ([`declared`]).

pub mod declared;
