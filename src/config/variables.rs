//! Variables: the process environment over the files of the working directory.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;

use super::env_file;
use super::secret::Secret;
use super::settings::{SETTINGS, Setting};

/// Files in the working directory that are read, the first that names a variable wins.
const FILES: [&str; 5] = [".env", ".env.event", ".env.nats", ".env.database", ".env.log"];

/// A value that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {message}")]
pub struct ConfigError {
    /// The setting.
    pub name: String,
    /// What is wrong with its value, and what is allowed.
    pub message: String,
}

impl ConfigError {
    pub(super) fn new(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), message: message.into() }
    }
}

/// The settings that are secrets.
fn secrets() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.secret)
}

/// Where containers find their secrets: in there nobody else is, whatever the file's mode says.
const CONTAINER_SECRETS: &str = "/run/secrets";

/// Whether others than a file's owner and group may read it.
pub(super) fn everybody_reads(path: &Path) -> bool {
    !path.starts_with(CONTAINER_SECRETS)
        && std::fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o004 != 0)
}

/// A file's text without the mark of its byte order, and without the blanks around it.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text).trim()
}

/// Variables by name, before they are judged.
#[derive(Clone, Default)]
pub struct Variables {
    values: HashMap<String, String>,
    /// Files of secrets that are not there (yet).
    pub(super) missing: Vec<ConfigError>,
    /// What looks like a mistake.
    pub(super) warnings: Vec<String>,
}

impl Variables {
    /// The process environment over the files of the working directory.
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
                Err(error) => return Err(ConfigError::new(file, error.to_string())),
            };
            let entries = env_file::entries(&text);
            let mut secret = None;
            for (name, value) in entries.map_err(|error| ConfigError::new(file, error.to_string()))? {
                secret =
                    secret.or_else(|| secrets().find(|setting| setting.name == name && !value.is_empty()));
                variables.entry(name).or_insert(value);
            }
            if let Some(setting) = secret.filter(|_| everybody_reads(Path::new(file))) {
                warnings
                    .push(format!("{file} holds {} and can be read by everybody (chmod 600)", setting.name));
            }
        }
        Self { values: variables, warnings, missing: Vec::new() }.resolve()
    }

    /// Reads the files that stand for secrets (`NAME_FILE`).
    fn resolve(mut self) -> Result<Self, ConfigError> {
        for setting in secrets() {
            let Some(file_name) = setting.file_name() else { continue };
            let Some(path) = self.values.get(&file_name).filter(|path| !path.is_empty()).cloned() else {
                if self.values.get(setting.name).is_some_and(|value| value.trim().is_empty()) {
                    self.warnings.push(format!("{} is set and empty: it counts as not set", setting.name));
                }
                continue;
            };
            if self.values.get(setting.name).is_some_and(|value| !value.trim().is_empty()) {
                return Err(ConfigError::new(
                    &file_name,
                    format!("{} is set as well: one of them", setting.name),
                ));
            }
            match std::fs::read_to_string(&path) {
                // Somebody is writing it, or will.
                Ok(secret) if without_mark(&secret).is_empty() => {
                    self.missing.push(ConfigError::new(&file_name, format!("{path} is empty")));
                }
                Ok(secret) => {
                    if everybody_reads(Path::new(&path)) {
                        self.warnings
                            .push(format!("{file_name}: {path} can be read by everybody (chmod 600)"));
                    }
                    self.values.insert(setting.name.to_owned(), without_mark(&secret).to_owned());
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.missing.push(ConfigError::new(&file_name, format!("{path} is not there")));
                }
                Err(error) => return Err(ConfigError::new(&file_name, format!("{path}: {error}"))),
            }
        }
        Ok(self)
    }

    /// Names that begin with `ESS_` and are no settings.
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

    /// Variables from elsewhere.
    ///
    /// # Errors
    ///
    /// If a secret's file cannot be read.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, ConfigError> {
        let values = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { values, ..Self::default() }.resolve()
    }

    /// The value as set, or the default; empty for none.
    pub(super) fn text(&self, name: &str) -> &str {
        let default =
            || SETTINGS.iter().find(|setting| setting.name == name).map_or("", |setting| setting.default);
        self.values
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
            .unwrap_or_else(default)
    }

    pub(super) fn parsed<T>(
        &self,
        name: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let text = self.text(name);
        parse(text).ok_or_else(|| ConfigError {
            name: name.to_owned(),
            message: format!("`{text}` is not allowed: it must be {allowed}"),
        })
    }

    pub(super) fn duration(&self, name: &str) -> Result<Duration, ConfigError> {
        self.parsed(name, "a time such as 500ms, 30s, 2m or 90d, at most 100 years", |text| match text {
            "0" => Some(Duration::ZERO),
            text => humantime::parse_duration(text).ok().filter(|time| time.as_secs() <= 100 * 366 * 86_400),
        })
    }

    /// A duration where 0 means never.
    pub(super) fn limit(&self, name: &str) -> Result<Option<Duration>, ConfigError> {
        self.duration(name).map(|time| (!time.is_zero()).then_some(time))
    }

    pub(super) fn size(&self, name: &str, least: u64) -> Result<u64, ConfigError> {
        self.parsed(name, &format!("a size such as 64MiB, at least {least} bytes"), |text| {
            text.parse::<ByteSize>()
                .ok()
                .map(|size| size.as_u64())
                .filter(|size| (least..=1 << 60).contains(size))
        })
    }

    pub(super) fn number(&self, name: &str, least: u64, most: u64) -> Result<u64, ConfigError> {
        self.parsed(name, &format!("a whole number from {least} to {most}"), |text| {
            text.parse().ok().filter(|number| (least..=most).contains(number))
        })
    }

    pub(super) fn port(&self, name: &str) -> Result<u16, ConfigError> {
        self.parsed(name, "a port from 0 to 65535", |text| text.parse().ok())
    }

    pub(super) fn secret(&self, name: &str) -> Option<Secret> {
        let text = self.text(name);
        (!text.is_empty()).then(|| text.to_owned().into())
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        let text = self.text(name);
        (!text.is_empty()).then(|| text.into())
    }

    pub(super) fn url(&self, name: &str, schemes: &[&str]) -> Result<Option<Secret>, ConfigError> {
        let Some(secret) = self.secret(name) else { return Ok(None) };
        let fits = |url: &str| schemes.iter().any(|scheme| url.starts_with(scheme));
        // NATS takes several servers, comma-separated.
        if secret.expose().split(',').all(|url| fits(url.trim())) {
            return Ok(Some(secret));
        }
        let each = if secret.expose().contains(',') { ", each URL of the list" } else { "" };
        Err(ConfigError {
            name: name.to_owned(),
            message: format!("must begin with {}{each}", schemes.join(" or ")),
        })
    }
}
