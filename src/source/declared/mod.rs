//! Sources that a file declares: how their requests are verified, and how their events are found and mapped.
