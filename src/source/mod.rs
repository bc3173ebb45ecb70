//! Sources: the platforms that events come from.
//!
//! A built-in source is a Rust type in a folder of its own. Every other source is a file that an operator writes
//! ([`declared`]); files for common platforms come with the binary ([`shipped`]).

pub mod declared;
pub mod shipped;
