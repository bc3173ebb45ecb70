//! Bounds of bodies that several files need.

use std::time::Duration;

/// Unit of the budget in bytes, so that the numbers of permits fit into 32 bits.
pub(super) const UNIT: usize = 1_024;
/// Maximum codings of one body.
pub(super) const MAX_CODINGS: usize = 3;
/// Time that a request waits for room before it is answered 503.
pub(super) const ROOM_TIMEOUT: Duration = Duration::from_secs(8);
