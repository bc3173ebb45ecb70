//! Settings of the log.

use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::http::Identity;
use super::variables::Variables;

/// Limits of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Bytes of one source's topic.
    pub max_bytes: u64,
    /// Bytes of the dead letters' topic.
    pub dead_letter_max_bytes: u64,
    /// Age at which frames are dropped even if no collector took them; `None` for never.
    pub max_age: Option<Duration>,
    /// Time during which a frame that is appended twice is recognised by its id.
    pub duplicate_window: Duration,
    /// Copies of each message in a NATS cluster.
    pub replicas: usize,
    /// Streams over which gateways spread a source's frames.
    pub streams: usize,
}

/// Access to NATS, beside its URL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NatsAccess {
    /// Credentials file.
    pub credentials: Option<PathBuf>,
    /// Client certificate.
    pub identity: Option<Identity>,
    /// File of certificate authorities that are trusted beside the public ones.
    pub authorities: Option<PathBuf>,
}

/// Most streams of a source.
pub const MAX_STREAMS: u8 = 16;

/// The shortest age or duplicate window that NATS takes.
const MIN_TIME: Duration = Duration::from_millis(100);

/// An age or a window of the log; `None` for 0.
fn log_time(variables: &Variables, name: &str) -> Result<Option<Duration>, ConfigError> {
    match variables.optional_duration(name)? {
        Some(time) if time < MIN_TIME => {
            Err(ConfigError::not_allowed(name, variables.text(name), "0, or at least 100ms"))
        }
        time => Ok(time),
    }
}

impl LogSettings {
    pub(super) fn read(variables: &Variables) -> Result<Self, ConfigError> {
        let max_age = log_time(variables, "ESS_LOG_MAX_AGE")?;
        let window = "ESS_LOG_DUPLICATE_WINDOW";
        let Some(duplicate_window) = log_time(variables, window)? else {
            let why = "a frame that is sent again must be recognised";
            return Err(ConfigError::conflict(window, variables.text(window), why));
        };
        if let Some(max_age) = max_age.filter(|max_age| duplicate_window > *max_age) {
            let age = humantime::format_duration(max_age);
            let why = format!("it is longer than ESS_LOG_MAX_AGE ({age})");
            return Err(ConfigError::conflict(window, variables.text(window), why));
        }
        Ok(Self {
            // A topic must have room for a frame.
            max_bytes: variables.size("ESS_LOG_MAX_BYTES", 1 << 20)?,
            dead_letter_max_bytes: variables.size("ESS_DEAD_LETTER_MAX_BYTES", 1 << 20)?,
            max_age,
            duplicate_window,
            replicas: variables.count("ESS_NATS_REPLICAS", 1, 5)?,
            streams: variables.count("ESS_LOG_STREAMS", 1, u32::from(MAX_STREAMS))?,
        })
    }
}

impl NatsAccess {
    pub(super) fn read(variables: &Variables) -> Result<Self, ConfigError> {
        Ok(Self {
            credentials: variables.readable_file("ESS_NATS_CREDENTIALS")?,
            identity: Identity::read(variables, "ESS_NATS_CERT", "ESS_NATS_KEY")?,
            authorities: variables.readable_file("ESS_CA_FILE")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refused, validate};
    use super::*;

    #[test]
    fn an_age_that_nats_would_refuse_is_refused_by_name() {
        assert!(refused("ESS_LOG_MAX_AGE", "99ms").contains("100ms"));
        assert!(refused("ESS_LOG_MAX_AGE", "1us").contains("100ms"));
        assert!(refused("ESS_LOG_DUPLICATE_WINDOW", "50ms").contains("100ms"));
        refused("ESS_LOG_DUPLICATE_WINDOW", "0");
        refused("ESS_NATS_REPLICAS", "0");
        refused("ESS_LOG_STREAMS", "17");
        assert!(validate(&[("ESS_LOG_MAX_AGE", "1m")]).is_err(), "the default window is longer");
        let short = [("ESS_LOG_MAX_AGE", "100ms"), ("ESS_LOG_DUPLICATE_WINDOW", "100ms")];
        let config = validate(&short).unwrap();
        assert_eq!(config.log.max_age, Some(Duration::from_millis(100)));
        assert!(config.warnings[0].contains("ESS_LOG_MAX_AGE"), "an age can lose events");
    }
}
