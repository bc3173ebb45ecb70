//! Reasons that events are refused for, without anything of the event in them.

/// The reason of an error at a value that is not there.
pub(super) const MISSING: &str = "is missing";

/// The reason of an element that is no object.
pub(super) const NOT_OBJECT: &str = "must be an object";

/// The reason of an event that is too large.
pub(super) const TOO_LARGE: &str = "is larger than 256 KiB";
