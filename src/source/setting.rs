//! Settings that a source declares.

/// An environment variable that one source has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceSetting {
    /// The variable.
    pub name: &'static str,
    /// The default as it would be written; empty for none.
    pub default: &'static str,
    /// The help text.
    pub about: &'static str,
}
