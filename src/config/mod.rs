//! The configuration: defaults, files and environment, read and validated once at the start.
//!
//! ```text
//! process environment ─┐
//! .env, .env.event, … ─┴▶ Variables ──▶ Config (a type that exists is valid)
//! ```
//!
//! [`SETTINGS`] lists every name, default and meaning. A value that is not allowed stops the start and is named; an
//! unknown `ESS_*` name and settings that expose the system are warned of. A secret may be in a file that `NAME_FILE`
//! names; services wait for a file that does not exist yet.

mod env_file;
mod error;
mod exposure;
mod http;
mod log;
mod pii;
mod secret;
mod settings;
mod variables;

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use exposure::exposure_warnings;
use secret::{check_token, secrets, tokens};

pub use crate::source::Secret;
pub use error::{ConfigError, ConfigFault, ListError};
pub use http::{HttpSettings, Identity};
pub use log::{LogSettings, MAX_STREAMS, NatsAccess};
pub use pii::Pii;
pub use secret::{Token, hide_password};
pub use settings::{SETTINGS, Setting};
pub use variables::Variables;

use crate::money::Currency;
use crate::source::{BySource, Source};

/// Ports, by service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// `PORT`, for a service that runs alone.
    pub alone: Option<u16>,
    /// Port of the gateway.
    pub gateway: u16,
    /// Port of a collector of several sources, or of a declared one.
    pub collector: u16,
    /// Port of the reporter.
    pub reporter: u16,
}

/// Settings of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSettings {
    /// Port of its collector.
    pub collector_port: u16,
    /// Secrets with which its platform signs; empty where signatures are not checked.
    pub signature_secrets: Vec<Secret>,
    /// Token of its platform's handshake.
    pub handshake_token: Option<Secret>,
}

/// The whole configuration, validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// URL of NATS; `None` for the embedded log.
    pub nats_url: Option<Secret>,
    /// URL of the database; `None` for the embedded one.
    pub database_url: Option<Secret>,
    /// Read-only database URL of the reporter.
    pub reporter_database_url: Option<Secret>,
    /// Target of `ess publisher`.
    pub event_endpoint: Option<String>,
    /// Folder of the embedded log and database.
    pub data_dir: PathBuf,
    /// `ESS_SOURCES`.
    pub source_folder: PathBuf,
    /// Settings of every listener.
    pub http: HttpSettings,
    /// Access to NATS.
    pub nats: NatsAccess,
    /// Ports of the services.
    pub ports: Ports,
    /// Bytes of one request body, after decompression.
    pub max_body: usize,
    /// Bytes of all request bodies at one time.
    pub max_inflight: usize,
    /// Events of one request body.
    pub max_events: usize,
    /// Time for a request body.
    pub body_timeout: Duration,
    /// Requests a second of one publisher; `None` for any number.
    pub rate_limit: Option<NonZeroU32>,
    /// Currency of amounts that tell none, and of reports unless another one is asked for.
    pub currency: Currency,
    /// Treatment of personal data.
    pub pii: Pii,
    /// Endpoint that receives traces.
    pub otlp_endpoint: Option<String>,
    /// Fraction of requests that begin a trace, 0 to 1.
    pub trace_fraction: f64,
    /// Limits of the log.
    pub log: LogSettings,
    /// Transactions in flight per collector.
    pub batch_concurrency: usize,
    /// Deliveries before a frame is processed alone, to find a poison event.
    pub max_deliveries: u64,
    /// Age at which rows are deleted; `None` for never.
    pub retention: Option<Duration>,
    /// Age at which dead letters are deleted; `None` for never.
    pub dead_letter_retention: Option<Duration>,
    /// Time of normal service after readiness is off.
    pub drain_grace: Duration,
    /// Time to drain.
    pub drain_timeout: Duration,
    /// Settings of each source.
    pub sources: BySource<SourceSettings>,
    /// Bearer tokens of the webhook.
    pub webhook_tokens: Vec<Token>,
    /// Bearer tokens of the reporter.
    pub reporter_tokens: Vec<Token>,
    /// Bearer token of operators.
    pub admin_token: Option<Secret>,
    /// Level or filter of the log lines.
    pub log_level: String,
    /// Warnings, logged once logging works.
    pub warnings: Vec<String>,
    /// Variables that begin with `ESS_` and are no settings: secrets of source files, or mistakes.
    pub unknown: Vec<String>,
    /// Files of secrets that do not exist yet: services wait for them.
    pub missing: Vec<ConfigError>,
    values: EffectiveValues,
    source_secrets: SourceSecrets,
}

/// The effective values, for [`Config::shown`]; `Debug` hides them, for secrets are among them.
#[derive(Clone)]
struct EffectiveValues(Vec<(&'static Setting, String)>);

/// Values of variables that a source file can name as secrets; `Debug` hides them.
#[derive(Clone)]
struct SourceSecrets(Variables);

impl fmt::Debug for SourceSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for EffectiveValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The elements of a list of secrets.
fn list<T>(
    variables: &Variables,
    name: &str,
    parse: impl FnOnce(&str) -> Result<Vec<T>, ListError>,
) -> Result<Vec<T>, ConfigError> {
    parse(variables.text(name)).map_err(|error| ConfigError::new(name, error))
}

/// The operators' token.
fn admin_token(variables: &Variables) -> Result<Option<Secret>, ConfigError> {
    let name = "ESS_ADMIN_TOKEN";
    let Some(token) = variables.secret(name) else { return Ok(None) };
    check_token("the value", token.expose()).map_err(|error| ConfigError::new(name, error))?;
    Ok(Some(token))
}

fn otlp_endpoint(variables: &Variables) -> Result<Option<String>, ConfigError> {
    let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
    match variables.text(name) {
        "" => Ok(None),
        url if url.starts_with("http://") || url.starts_with("https://") => {
            Ok(Some(url.trim_end_matches('/').to_owned()))
        }
        other => Err(ConfigError::not_allowed(name, other, "a URL that begins with http:// or https://")),
    }
}

impl SourceSettings {
    fn read(variables: &Variables, source: Source) -> Result<Self, ConfigError> {
        let signature_secrets = match source.signature() {
            Some(signature) => list(variables, signature.setting.name, secrets)?,
            None => Vec::new(),
        };
        Ok(Self {
            collector_port: match source.collector_port() {
                Some(setting) => variables.port(setting.name)?,
                None => variables.port("ESS_COLLECTOR_PORT")?,
            },
            signature_secrets,
            handshake_token: source
                .handshake()
                .and_then(|handshake| variables.secret(handshake.setting.name)),
        })
    }
}

/// The settings of each source; those that are declared have no secrets here.
fn source_settings(variables: &Variables) -> Result<BySource<SourceSettings>, ConfigError> {
    let built_in = Source::built_in().map(|source| SourceSettings::read(variables, source));
    let built_in: Vec<_> = built_in.collect::<Result<_, _>>()?;
    let declared = SourceSettings {
        collector_port: variables.port("ESS_COLLECTOR_PORT")?,
        signature_secrets: Vec::new(),
        handshake_token: None,
    };
    Ok(BySource::new(move |source| built_in.get(source.index()).unwrap_or(&declared).clone()))
}

fn ports(variables: &Variables) -> Result<Ports, ConfigError> {
    let alone = variables.text("PORT");
    Ok(Ports {
        alone: (!alone.is_empty()).then(|| variables.port("PORT")).transpose()?,
        gateway: variables.port("ESS_GATEWAY_PORT")?,
        collector: variables.port("ESS_COLLECTOR_PORT")?,
        reporter: variables.port("ESS_REPORTER_PORT")?,
    })
}

/// Bytes of one body, and of all bodies at one time.
fn body_limits(variables: &Variables) -> Result<(usize, usize), ConfigError> {
    let bytes = |name| variables.size(name, 1_024).map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    let (body, inflight) = (bytes("ESS_MAX_BODY")?, bytes("ESS_MAX_INFLIGHT")?);
    if inflight < body {
        let name = "ESS_MAX_INFLIGHT";
        let why = format!("it is smaller than ESS_MAX_BODY ({})", variables.text("ESS_MAX_BODY"));
        return Err(ConfigError::conflict(name, variables.text(name), why));
    }
    Ok((body, inflight))
}

/// Age at which rows are deleted: not before the log drops their frames, or a redelivered frame would be stored twice.
fn retention(variables: &Variables, log: &LogSettings) -> Result<Option<Duration>, ConfigError> {
    let name = "ESS_RETENTION";
    let retention = variables.optional_duration(name)?;
    if let Some((_, age)) = retention.zip(log.max_age).filter(|(retention, age)| retention < age) {
        let age = humantime::format_duration(age);
        let why = format!(
            "it is shorter than ESS_LOG_MAX_AGE ({age}), and the log could deliver events again whose rows are deleted"
        );
        return Err(ConfigError::conflict(name, variables.text(name), why));
    }
    Ok(retention)
}

impl Config {
    /// Reads files and environment, and validates them.
    ///
    /// # Errors
    ///
    /// The first setting whose value is not allowed.
    pub fn load() -> Result<Self, ConfigError> {
        Self::from_variables(&Variables::read()?)
    }

    /// Validates variables.
    ///
    /// # Errors
    ///
    /// The first setting whose value is not allowed.
    pub fn from_variables(variables: &Variables) -> Result<Self, ConfigError> {
        let (max_body, max_inflight) = body_limits(variables)?;
        let log = LogSettings::read(variables)?;
        let http = HttpSettings::read(variables)?;
        let rate_limit = variables.count("ESS_RATE_LIMIT", 0, 1_000_000)?;
        Ok(Self {
            nats_url: variables.url("NATS_URL", &["nats://", "tls://"])?,
            database_url: variables.url("DATABASE_URL", &["postgres://", "postgresql://", "sqlite:"])?,
            reporter_database_url: variables
                .url("ESS_REPORTER_DATABASE_URL", &["postgres://", "postgresql://"])?,
            event_endpoint: Some(variables.text("EVENT_ENDPOINT").to_owned()).filter(|url| !url.is_empty()),
            data_dir: variables.text("ESS_DATA_DIR").into(),
            source_folder: variables.text("ESS_SOURCES").into(),
            nats: NatsAccess::read(variables)?,
            ports: ports(variables)?,
            max_body,
            max_inflight,
            max_events: variables.count("ESS_MAX_EVENTS", 1, 10_000_000)?,
            body_timeout: variables.positive_duration("ESS_BODY_TIMEOUT")?,
            rate_limit: u32::try_from(rate_limit).ok().and_then(NonZeroU32::new),
            currency: variables.parsed(
                "ESS_CURRENCY",
                "a currency's code of ISO 4217 in upper case, such as USD or EUR",
                Currency::parse,
            )?,
            pii: Pii::read(variables)?,
            otlp_endpoint: otlp_endpoint(variables)?,
            trace_fraction: variables.parsed("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1", |text| {
                text.parse().ok().filter(|fraction| (0.0..=1.0).contains(fraction))
            })?,
            batch_concurrency: variables.count("EVENTS_BATCH_CONCURRENCY", 1, 16)?,
            max_deliveries: variables.number("ESS_MAX_DELIVERIES", 1, 1_000_000)?,
            retention: retention(variables, &log)?,
            dead_letter_retention: variables.optional_duration("ESS_DEAD_LETTER_RETENTION")?,
            drain_grace: variables.duration("ESS_DRAIN_GRACE")?,
            drain_timeout: variables.duration("ESS_DRAIN_TIMEOUT")?,
            sources: source_settings(variables)?,
            webhook_tokens: list(variables, "ESS_WEBHOOK_TOKEN", tokens)?,
            reporter_tokens: list(variables, "ESS_REPORTER_TOKEN", tokens)?,
            admin_token: admin_token(variables)?,
            log_level: variables.text("LOG_LEVEL").to_owned(),
            warnings: warnings(variables, &http, &log),
            unknown: variables.unknown(),
            missing: variables.missing.clone(),
            source_secrets: SourceSecrets(variables.clone()),
            values: EffectiveValues(
                SETTINGS.iter().map(|setting| (setting, variables.text(setting.name).to_owned())).collect(),
            ),
            http,
            log,
        })
    }

    /// The value of a secret that a source file names, from its variable or the file of `NAME_FILE`; `None` if it is not
    /// set or cannot be read.
    pub fn source_secret(&self, name: &str) -> Option<String> {
        self.source_secrets.0.secret_of_source(name)
    }

    /// Warnings about variables that are neither settings nor secrets of source files, whose names are `declared`.
    pub fn unknown_warnings(&self, declared: &[String]) -> Vec<String> {
        let is_secret = |name: &String| {
            declared.iter().any(|known| name == known || name.strip_suffix("_FILE") == Some(known))
        };
        let unknown = self.unknown.iter().filter(|name| !is_secret(name));
        unknown.map(|name| format!("unknown setting {name}: it has no effect")).collect()
    }

    /// The effective configuration, `NAME=value` a line, with secrets hidden.
    pub fn shown(&self) -> Vec<String> {
        let show = |(setting, value): &(&Setting, String)| {
            let shown = match value.as_str() {
                "" => "(unset)".to_owned(),
                _ if setting.secret && setting.name.ends_with("_URL") => hide_password(value),
                _ if setting.secret => "***".to_owned(),
                value => value.to_owned(),
            };
            format!("{}={shown}", setting.name)
        };
        self.values.0.iter().map(show).collect()
    }
}

/// Warnings about settings that are allowed and probably not meant.
fn warnings(variables: &Variables, http: &HttpSettings, log: &LogSettings) -> Vec<String> {
    let mut warnings = variables.warnings.clone();
    if log.max_age.is_some() {
        warnings.push(
            "ESS_LOG_MAX_AGE is set: accepted events that are not collected in time are lost".to_owned(),
        );
    }
    warnings.extend(exposure_warnings(variables, http));
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn validate(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_variables(&Variables::from_pairs(pairs.iter().copied())?)
    }

    /// The error of a setting's value.
    pub(super) fn refused(name: &str, value: &str) -> String {
        let error = validate(&[(name, value)]).expect_err(value);
        assert_eq!(error.name, name, "{error}");
        error.to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = validate(&[]).unwrap();
        assert_eq!(config.max_body, 64 << 20);
        assert_eq!(config.log.max_bytes, 8 << 30);
        assert_eq!(config.log.max_age, None);
        assert_eq!(config.currency.to_string(), "USD");
        assert_eq!(config.dead_letter_retention, Some(Duration::from_secs(30 * 86_400)));
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn a_value_that_is_not_allowed_is_refused_by_name() {
        refused("ESS_MAX_BODY", "much");
        refused("ESS_MAX_BODY", "-1");
        refused("ESS_GATEWAY_PORT", "70000");
        refused("EVENTS_BATCH_CONCURRENCY", "0");
        refused("EVENTS_BATCH_CONCURRENCY", "17");
        refused("ESS_DRAIN_TIMEOUT", "soon");
        refused("NATS_URL", "http://x");
        refused("NATS_URL", "nats://a,b");
        assert!(validate(&[("NATS_URL", "nats://a:4222, tls://u:p@b:4222")]).is_ok());
        refused("DATABASE_URL", "mysql://x");
        refused("ESS_MAX_INFLIGHT", "1MiB");
        refused("ESS_MAX_EVENTS", "0");
        refused("ESS_RATE_LIMIT", "-1");
        refused("ESS_CA_FILE", "/nowhere/ca.pem");
        refused("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318");
        refused("OTEL_TRACES_SAMPLER_ARG", "2");
        for currency in ["XXX", "usd", "EURO", "840"] {
            let error = refused("ESS_CURRENCY", currency);
            assert!(error.contains(currency) && error.contains("ISO 4217"), "{error}");
        }
    }

    #[test]
    fn rows_may_not_be_deleted_before_the_log_drops_their_frames() {
        let of = |retention| validate(&[("ESS_LOG_MAX_AGE", "7d"), ("ESS_RETENTION", retention)]);
        let error = of("6d").expect_err("it is shorter than the log's age");
        assert_eq!(error.name, "ESS_RETENTION");
        assert!(error.to_string().contains("ESS_LOG_MAX_AGE"), "{error}");
        assert_eq!(of("7d").unwrap().retention, Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(of("0").unwrap().retention, None);
    }

    #[test]
    fn a_secret_may_stand_in_a_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let path = file.to_str().unwrap();
        let missing = validate(&[("ESS_ADMIN_TOKEN_FILE", path)]).unwrap();
        assert_eq!(missing.missing.len(), 1, "the file may be written later");
        assert!(missing.missing[0].to_string().contains(path));
        std::fs::write(&file, "\n").unwrap();
        let empty = validate(&[("ESS_ADMIN_TOKEN_FILE", path)]).unwrap();
        assert!(empty.missing[0].to_string().contains("is empty"), "the file may be filled later");
        std::fs::write(&file, "\u{feff}hunter2\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = validate(&[("ESS_ADMIN_TOKEN_FILE", path)]).unwrap();
        assert_eq!(config.admin_token.as_ref().unwrap().expose(), "hunter2");
        assert_eq!(config.warnings, Vec::<String>::new());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let config = validate(&[("ESS_ADMIN_TOKEN_FILE", path)]).unwrap();
        assert!(config.warnings[0].contains("every user can read"), "{:?}", config.warnings);
        assert!(
            validate(&[("ESS_ADMIN_TOKEN_FILE", path), ("ESS_ADMIN_TOKEN", "x")]).is_err(),
            "both are set"
        );
    }

    #[test]
    fn a_token_that_no_header_carries_is_refused_by_name() {
        for name in ["ESS_WEBHOOK_TOKEN", "ESS_REPORTER_TOKEN", "ESS_ADMIN_TOKEN"] {
            for token in ["geh\u{e4}im", "hunter\n2", "tab\tbed", "del\u{7f}"] {
                let error = refused(name, token);
                assert!(error.contains("ASCII") && !error.contains(token), "{error}");
            }
            assert!(validate(&[(name, "pa$$ word")]).is_ok());
        }
        assert!(refused("ESS_WEBHOOK_TOKEN", "a,acme:\u{e4}").contains("acme"));
    }

    #[test]
    fn an_unknown_name_is_warned_of() {
        let config = validate(&[("ESS_MAX_BODDY", "1")]).unwrap();
        assert!(config.unknown_warnings(&[])[0].contains("ESS_MAX_BODDY"));
    }

    #[test]
    fn secrets_are_hidden() {
        let config = validate(&[
            ("DATABASE_URL", "postgres://ess:pa@ss@db:5432/ess"),
            ("NATS_URL", "nats://tok4711@a,nats://u:p@b"),
            ("ESS_REPORTER_DATABASE_URL", "postgres://u@h/db?password=query"),
            ("ESS_ADMIN_TOKEN", "hunter2"),
        ])
        .unwrap();
        let shown = config.shown().join("\n") + &format!("{config:?}");
        assert!(shown.contains("postgres://ess:***@db:5432/ess"), "{shown}");
        for secret in ["pa@ss", "u:p@b", "hunter2", "tok4711", "=query"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn the_example_file_shows_every_setting_with_its_meaning_and_default() {
        let example = include_str!("../../.env.example");
        for setting in SETTINGS.iter() {
            let line = format!("#{}={}", setting.name, setting.default);
            let mut blocks = example.split("\n\n");
            let block = blocks.find(|block| block.lines().any(|shown| shown == line));
            let block = block.unwrap_or_else(|| panic!("{line} is not in .env.example"));
            let comment: Vec<_> = block.lines().filter_map(|line| line.strip_prefix("# ")).collect();
            assert_eq!(comment.join(" "), setting.about, "{}", setting.name);
        }
    }
}
