//! Failures of commands.

/// Failure of a command, by its exit code.
#[derive(Debug)]
pub(super) enum Failure {
    /// Exit code 2: wrong usage or configuration.
    Usage(String),
    /// Exit code 1: any other failure.
    Other(String),
}
