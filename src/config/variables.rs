//! Variables: the process environment over the files of the working directory, and typed reads of their values.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;

use super::env_file;
use super::error::{ConfigError, ConfigFault};
use super::settings::{SETTINGS, Setting};
use crate::source::Secret;

/// Files of the working directory that are read; the first that names a variable wins.
const FILES: [&str; 5] = [".env", ".env.event", ".env.nats", ".env.database", ".env.log"];

/// The settings that are secrets.
fn secrets() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.secret)
}

/// Folder in which containers find their secrets. No other user is in the container, whatever the file's mode says.
const CONTAINER_SECRETS: &str = "/run/secrets";

/// True if users other than a file's owner and group can read it.
pub(super) fn others_can_read(path: &Path) -> bool {
    !path.starts_with(CONTAINER_SECRETS)
        && std::fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o004 != 0)
}

/// A file's text without its byte order mark and surrounding blanks.
fn trimmed(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text).trim()
}

/// Variables by name, not validated yet.
#[derive(Clone, Default)]
pub struct Variables {
    values: HashMap<String, String>,
    /// Files of secrets that do not exist yet.
    pub(super) missing: Vec<ConfigError>,
    /// Warnings about probable mistakes.
    pub(super) warnings: Vec<String>,
}

impl Variables {
    /// Reads the process environment and the files of the working directory.
    ///
    /// # Errors
    ///
    /// If a file exists and cannot be read, or is malformed.
    pub fn read() -> Result<Self, ConfigError> {
        let mut variables = HashMap::new();
        let mut warnings = Vec::new();
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        variables.extend(environment);
        for file in FILES {
            let text = match std::fs::read_to_string(file) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(ConfigError::file(file, file, error)),
            };
            let entries = env_file::entries(&text);
            let mut secret = None;
            for (name, value) in entries.map_err(|error| ConfigError::new(file, error))? {
                secret =
                    secret.or_else(|| secrets().find(|setting| setting.name == name && !value.is_empty()));
                variables.entry(name).or_insert(value);
            }
            if let Some(setting) = secret.filter(|_| others_can_read(Path::new(file))) {
                let name = setting.name;
                warnings
                    .push(format!("{file} holds {name}, and every user can read it: run chmod 600 on it"));
            }
        }
        Self { values: variables, warnings, missing: Vec::new() }.resolve()
    }

    /// Reads the files of secrets (`NAME_FILE`).
    fn resolve(mut self) -> Result<Self, ConfigError> {
        for setting in secrets() {
            let Some(file_name) = setting.file_name() else { continue };
            let set = self.values.get(setting.name).is_some_and(|value| !value.trim().is_empty());
            let Some(path) = self.values.get(&file_name).filter(|path| !path.is_empty()).cloned() else {
                if !set && self.values.contains_key(setting.name) {
                    self.warnings
                        .push(format!("{} is set and empty: it is treated as not set", setting.name));
                }
                continue;
            };
            if set {
                let other = setting.name.to_owned();
                return Err(ConfigError::new(&file_name, ConfigFault::SetTwice { other }));
            }
            match std::fs::read_to_string(&path) {
                // The file may be filled in a moment.
                Ok(secret) if trimmed(&secret).is_empty() => {
                    self.missing.push(ConfigError::new(&file_name, ConfigFault::EmptyFile(path.into())));
                }
                Ok(secret) => {
                    if others_can_read(Path::new(&path)) {
                        self.warnings
                            .push(format!("{file_name}: every user can read {path}: run chmod 600 on it"));
                    }
                    self.values.insert(setting.name.to_owned(), trimmed(&secret).to_owned());
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.missing.push(ConfigError::new(&file_name, ConfigFault::NoFile(path.into())));
                }
                Err(error) => return Err(ConfigError::file(&file_name, path, error)),
            }
        }
        Ok(self)
    }

    /// Names that begin with `ESS_` and are not settings; `ESS_TEST_` is left to tests.
    pub(super) fn unknown(&self) -> Vec<String> {
        let known = |name: &str| {
            SETTINGS
                .iter()
                .any(|setting| setting.name == name || setting.file_name().as_deref() == Some(name))
        };
        let ours =
            self.values.keys().filter(|name| name.starts_with("ESS_") && !name.starts_with("ESS_TEST_"));
        let mut unknown: Vec<String> = ours.filter(|name| !known(name)).cloned().collect();
        unknown.sort();
        unknown
    }

    /// Variables from these pairs alone.
    ///
    /// # Errors
    ///
    /// If the file of a secret cannot be read.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, ConfigError> {
        let values = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { values, ..Self::default() }.resolve()
    }

    /// The value as set, trimmed, or else the default; empty if there is neither.
    pub(super) fn text(&self, name: &str) -> &str {
        let default =
            || SETTINGS.iter().find(|setting| setting.name == name).map_or("", |setting| setting.default);
        self.values
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
            .unwrap_or_else(default)
    }

    /// A value that `parse` reads; `allowed` describes such values in the error.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let text = self.text(name);
        parse(text).ok_or_else(|| ConfigError::not_allowed(name, text, allowed))
    }

    /// A duration, 0 included.
    pub(super) fn duration(&self, name: &str) -> Result<Duration, ConfigError> {
        let allowed = "a time such as 500ms, 30s, 2m or 90d, at most 100 years";
        self.parsed(name, allowed, |text| parse_duration(text, Duration::ZERO))
    }

    /// A duration over 0.
    pub(super) fn positive_duration(&self, name: &str) -> Result<Duration, ConfigError> {
        let allowed = "a time over 0 such as 500ms, 30s, 2m or 90d, at most 100 years";
        self.parsed(name, allowed, |text| parse_duration(text, Duration::from_nanos(1)))
    }

    /// A duration; `None` for 0, which means no limit.
    pub(super) fn optional_duration(&self, name: &str) -> Result<Option<Duration>, ConfigError> {
        self.duration(name).map(|time| (!time.is_zero()).then_some(time))
    }

    /// A size in bytes.
    pub(super) fn size(&self, name: &str, least: u64) -> Result<u64, ConfigError> {
        self.parsed(name, &format!("a size such as 64MiB, at least {least} bytes"), |text| {
            text.parse::<ByteSize>()
                .ok()
                .map(|size| size.as_u64())
                .filter(|size| (least..=1 << 60).contains(size))
        })
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str, least: u64, most: u64) -> Result<u64, ConfigError> {
        self.parsed(name, &format!("a whole number from {least} to {most}"), |text| {
            text.parse().ok().filter(|number| (least..=most).contains(number))
        })
    }

    /// A number of things in memory.
    pub(super) fn count(&self, name: &str, least: u32, most: u32) -> Result<usize, ConfigError> {
        let number = self.number(name, least.into(), most.into())?;
        Ok(usize::try_from(number).unwrap_or(usize::MAX))
    }

    pub(super) fn port(&self, name: &str) -> Result<u16, ConfigError> {
        self.parsed(name, "a port from 0 to 65535", |text| text.parse().ok())
    }

    /// The value of a variable that a source file names as a secret: itself, or the text of the file `NAME_FILE`.
    pub(super) fn secret_of_source(&self, name: &str) -> Option<String> {
        let text = self.text(name);
        if !text.is_empty() {
            return Some(text.to_owned());
        }
        let file = self.values.get(&format!("{name}_FILE"))?;
        let text = std::fs::read_to_string(file).ok()?;
        Some(trimmed(&text).to_owned()).filter(|text| !text.is_empty())
    }

    pub(super) fn secret(&self, name: &str) -> Option<Secret> {
        let text = self.text(name);
        (!text.is_empty()).then(|| text.to_owned().into())
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        let text = self.text(name);
        (!text.is_empty()).then(|| text.into())
    }

    /// A file that must be readable now, if the setting names one.
    pub(super) fn readable_file(&self, name: &str) -> Result<Option<PathBuf>, ConfigError> {
        let Some(path) = self.path(name) else { return Ok(None) };
        match std::fs::File::open(&path) {
            Ok(_) => Ok(Some(path)),
            Err(error) => Err(ConfigError::file(name, path, error)),
        }
    }

    /// A URL, or a comma-separated list of them, each with one of these schemes.
    pub(super) fn url(&self, name: &str, schemes: &[&str]) -> Result<Option<Secret>, ConfigError> {
        let Some(secret) = self.secret(name) else { return Ok(None) };
        let has_scheme = |url: &str| schemes.iter().any(|scheme| url.trim().starts_with(scheme));
        if secret.expose().split(',').all(has_scheme) {
            return Ok(Some(secret));
        }
        let each = if secret.expose().contains(',') { ", each URL of the list" } else { "" };
        let allowed = format!("begin with {}{each}", schemes.join(" or "));
        Err(ConfigError::secret_not_allowed(name, allowed))
    }
}

/// The longest duration that a setting may have: 100 years.
const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 86_400);

fn parse_duration(text: &str, least: Duration) -> Option<Duration> {
    let time = match text {
        "0" => Duration::ZERO,
        text => humantime::parse_duration(text).ok()?,
    };
    (least..=MAX_DURATION).contains(&time).then_some(time)
}
