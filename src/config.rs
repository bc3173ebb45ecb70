//! The configuration: defaults, files and environment, read and judged once at the start.
//!
//! [`SETTINGS`] is the one list of names, defaults and meanings. A value that is impossible stops the
//! start with the setting's name; an unknown `ESS_*` name is warned of.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

/// Files in the working directory that are read, the first that names a variable wins.
const FILES: [&str; 5] = [".env", ".env.event", ".env.nats", ".env.database", ".env.log"];

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// The default as it would be written; empty for none.
    pub default: &'static str,
    /// Whether its value is hidden when the configuration is shown.
    pub secret: bool,
    /// What it does.
    pub about: &'static str,
}

macro_rules! settings {
    ($($name:literal $default:literal $($secret:ident)? : $about:literal;)+) => {
        /// Every setting.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            name: $name, default: $default, secret: settings!(@ $($secret)?), about: $about,
        }),+];
    };
    (@) => { false };
    (@ secret) => { true };
}

settings! {
    "NATS_URL" "" secret: "NATS with JetStream, e.g. nats://localhost:4222. Unset, `ess up` and `ess demo` use an embedded log.";
    "DATABASE_URL" "" secret: "PostgreSQL (postgres://…) or SQLite (sqlite://…). Unset, `ess up` and `ess demo` use SQLite in ESS_DATA_DIR.";
    "ESS_REPORTER_DATABASE_URL" "" secret: "A read-only PostgreSQL connection for the reporter; it then waits for the schema instead of migrating.";
    "EVENTS_BATCH_CONCURRENCY" "2": "Transactions in flight per collector, 1 to 16.";
    "EVENT_ENDPOINT" "": "Where `ess publisher` sends, unless --target says otherwise.";
    "LOG_LEVEL" "info": "error, warn, info, debug or trace, or a tracing filter such as `info,ess=debug`.";
    "PORT" "": "The port of a service that runs alone; `ess up` and `ess demo` ignore it.";
    "ESS_DATA_DIR" "./data": "Where the embedded log and database live.";
    "ESS_LISTEN" "127.0.0.1": "The address that every service listens on.";
    "ESS_GATEWAY_PORT" "3000": "The gateway's port.";
    "ESS_FACEBOOK_COLLECTOR_PORT" "3001": "The Facebook collector's port.";
    "ESS_TIKTOK_COLLECTOR_PORT" "3002": "The TikTok collector's port.";
    "ESS_REPORTER_PORT" "3003": "The reporter's port.";
    "ESS_MAX_BODY" "64MiB": "The largest request body, after decompression.";
    "ESS_MAX_INFLIGHT" "256MiB": "Bytes of all requests together that the gateway holds at one time.";
    "ESS_LOG_MAX_BYTES" "8GiB": "What the log holds per source before it refuses new events (503).";
    "ESS_LOG_MAX_AGE" "0": "When the log drops what was not collected; 0 for never. A set age can lose accepted events.";
    "ESS_LOG_DUPLICATE_WINDOW" "2m": "How long the log recognises a frame that is sent again.";
    "ESS_NATS_REPLICAS" "1": "Copies of each message in a NATS cluster, 1 to 5.";
    "ESS_MAX_DELIVERIES" "10": "Deliveries after which a frame is processed alone, to find the event that is guilty.";
    "ESS_RETENTION" "0": "How long rows are kept; 0 for ever. Not shorter than ESS_LOG_MAX_AGE.";
    "ESS_DEAD_LETTER_RETENTION" "30d": "How long refused events are kept; 0 for ever.";
    "ESS_DEAD_LETTER_MAX_BYTES" "256MiB": "What is kept of refused events, in the log on their way and in the store; the oldest fall out first.";
    "ESS_DRAIN_GRACE" "0": "How long a stopping service goes on as normal after it said that it is not ready.";
    "ESS_DRAIN_TIMEOUT" "30s": "How long a stopping service may take to finish what it has.";
    "ESS_FACEBOOK_APP_SECRET" "" secret: "Meta's app secret: X-Hub-Signature-256 is then checked on /webhook/facebook. Two, comma-separated, while one is rotated.";
    "ESS_FACEBOOK_VERIFY_TOKEN" "" secret: "The token of Meta's handshake (GET /webhook/facebook).";
    "ESS_TIKTOK_CLIENT_SECRET" "" secret: "TikTok's client secret: TikTok-Signature is then checked on /webhook/tiktok. Two, comma-separated, while one is rotated.";
    "ESS_WEBHOOK_TOKEN" "" secret: "Bearer tokens that /webhook asks for, comma-separated.";
    "ESS_REPORTER_TOKEN" "" secret: "Bearer tokens that the reporter asks for, comma-separated.";
    "ESS_ADMIN_TOKEN" "" secret: "The bearer token of POST /actors/{name}/restart; without it that is off.";
    "ESS_PII" "keep": "What becomes of personal data before it is stored. Only `keep` in this version.";
}

/// A value that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {message}")]
pub struct ConfigError {
    /// The setting.
    pub name: String,
    /// What is wrong with its value, and what is allowed.
    pub message: String,
}

/// A secret, which no output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How the log keeps what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Bytes of one source's topic.
    pub max_bytes: u64,
    /// Bytes of the dead letters' topic.
    pub dead_letter_max_bytes: u64,
    /// When what was not collected is dropped all the same; `None` for never.
    pub max_age: Option<Duration>,
    /// How long a frame that is appended twice is recognised by its id.
    pub duplicate_window: Duration,
    /// Copies of each message in a cluster.
    pub replicas: usize,
}

/// Ports, by service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// `PORT`, for a service that runs alone.
    pub alone: Option<u16>,
    /// The gateway's.
    pub gateway: u16,
    /// The Facebook collector's.
    pub facebook_collector: u16,
    /// The TikTok collector's.
    pub tiktok_collector: u16,
    /// The reporter's.
    pub reporter: u16,
}

/// The whole configuration, judged.
#[derive(Debug, Clone)]
pub struct Config {
    /// NATS, unless the log is embedded.
    pub nats_url: Option<Secret>,
    /// The database, unless it is embedded.
    pub database_url: Option<Secret>,
    /// The reporter's own, read-only connection.
    pub reporter_database_url: Option<Secret>,
    /// Where `ess publisher` sends.
    pub event_endpoint: Option<String>,
    /// Where the embedded log and database live.
    pub data_dir: PathBuf,
    /// The address to listen on.
    pub listen: IpAddr,
    /// The ports.
    pub ports: Ports,
    /// Bytes of one body.
    pub max_body: usize,
    /// Bytes of all bodies at one time.
    pub max_inflight: usize,
    /// The log's limits.
    pub log: LogSettings,
    /// Transactions in flight per collector.
    pub batch_concurrency: usize,
    /// Deliveries before a frame is processed alone.
    pub max_deliveries: u64,
    /// How long rows are kept.
    pub retention: Option<Duration>,
    /// How long dead letters are kept.
    pub dead_letter_retention: Option<Duration>,
    /// Normal service after readiness is off.
    pub drain_grace: Duration,
    /// Time to finish.
    pub drain_timeout: Duration,
    /// Meta's app secrets.
    pub facebook_app_secrets: Vec<Secret>,
    /// Meta's handshake token.
    pub facebook_verify_token: Option<Secret>,
    /// TikTok's client secrets.
    pub tiktok_client_secrets: Vec<Secret>,
    /// Bearer tokens of the webhook.
    pub webhook_tokens: Vec<Secret>,
    /// Bearer tokens of the reporter.
    pub reporter_tokens: Vec<Secret>,
    /// The bearer token of operators.
    pub admin_token: Option<Secret>,
    /// What is logged.
    pub log_level: String,
    /// Things to say once logging works.
    pub warnings: Vec<String>,
    values: Shown,
}

/// The effective values, for showing; never printed as they are.
#[derive(Clone)]
struct Shown(Vec<(&'static Setting, String)>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Variables by name, before they are judged.
#[derive(Debug, Clone, Default)]
pub struct Variables(HashMap<String, String>);

impl Variables {
    /// The process environment over the files of the working directory.
    pub fn read() -> Result<Self, ConfigError> {
        let mut variables = HashMap::new();
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        variables.extend(environment);
        for file in FILES {
            // By path: by name, dotenvy would also look into the folders above.
            let entries = match dotenvy::from_path_iter(std::path::Path::new(file)) {
                Ok(entries) => entries,
                Err(error) if error.not_found() => continue,
                Err(error) => return Err(ConfigError { name: file.to_owned(), message: error.to_string() }),
            };
            for entry in entries {
                let (name, value) = entry
                    .map_err(|error| ConfigError { name: file.to_owned(), message: error.to_string() })?;
                variables.entry(name).or_insert(value);
            }
        }
        Ok(Self(variables))
    }

    /// Variables from elsewhere.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The value as set, or the default; empty for none.
    fn text(&self, name: &str) -> &str {
        let default =
            || SETTINGS.iter().find(|setting| setting.name == name).map_or("", |setting| setting.default);
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty()).unwrap_or_else(default)
    }

    fn parsed<T>(
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

    fn duration(&self, name: &str) -> Result<Duration, ConfigError> {
        self.parsed(name, "a time such as 500ms, 30s, 2m or 90d, at most 100 years", |text| match text {
            "0" => Some(Duration::ZERO),
            text => humantime::parse_duration(text).ok().filter(|time| time.as_secs() <= 100 * 366 * 86_400),
        })
    }

    /// A duration where 0 means never.
    fn limit(&self, name: &str) -> Result<Option<Duration>, ConfigError> {
        self.duration(name).map(|time| (!time.is_zero()).then_some(time))
    }

    fn size(&self, name: &str, least: u64) -> Result<u64, ConfigError> {
        self.parsed(name, &format!("a size such as 64MiB, at least {least} bytes"), |text| {
            text.parse::<ByteSize>()
                .ok()
                .map(|size| size.as_u64())
                .filter(|size| (least..=1 << 60).contains(size))
        })
    }

    fn number(&self, name: &str, least: u64, most: u64) -> Result<u64, ConfigError> {
        self.parsed(name, &format!("a whole number from {least} to {most}"), |text| {
            text.parse().ok().filter(|number| (least..=most).contains(number))
        })
    }

    fn port(&self, name: &str) -> Result<u16, ConfigError> {
        self.parsed(name, "a port from 0 to 65535", |text| text.parse().ok())
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        let text = self.text(name);
        (!text.is_empty()).then(|| Secret(text.to_owned()))
    }

    fn secrets(&self, name: &str) -> Vec<Secret> {
        let parts = self.text(name).split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| Secret(part.to_owned())).collect()
    }

    fn url(&self, name: &str, schemes: &[&str]) -> Result<Option<Secret>, ConfigError> {
        let Some(secret) = self.secret(name) else { return Ok(None) };
        let fits = |url: &str| schemes.iter().any(|scheme| url.starts_with(scheme));
        // NATS takes several servers, comma-separated.
        if secret.expose().split(',').all(|url| fits(url.trim())) {
            return Ok(Some(secret));
        }
        Err(ConfigError {
            name: name.to_owned(),
            message: format!("must begin with {}", schemes.join(" or ")),
        })
    }
}

/// An age or a window of the log: NATS takes none between 0 and 100 ms.
fn log_time(variables: &Variables, name: &str) -> Result<Option<Duration>, ConfigError> {
    match variables.limit(name)? {
        Some(time) if time < Duration::from_millis(100) => Err(ConfigError {
            name: name.to_owned(),
            message: format!("{time:?} is not allowed: the log takes 0 or at least 100ms"),
        }),
        time => Ok(time),
    }
}

impl LogSettings {
    fn judge(variables: &Variables) -> Result<Self, ConfigError> {
        let max_age = log_time(variables, "ESS_LOG_MAX_AGE")?;
        let name = "ESS_LOG_DUPLICATE_WINDOW";
        let duplicate_window = log_time(variables, name)?.ok_or_else(|| ConfigError {
            name: name.to_owned(),
            message: "0 is not allowed: a frame that is sent again must be recognised".to_owned(),
        })?;
        if let Some(max_age) = max_age
            && duplicate_window > max_age
        {
            let message = format!(
                "{duplicate_window:?} is not allowed: it is longer than ESS_LOG_MAX_AGE ({max_age:?})"
            );
            return Err(ConfigError { name: name.to_owned(), message });
        }
        Ok(Self {
            // Room for one frame at least.
            max_bytes: variables.size("ESS_LOG_MAX_BYTES", 1 << 20)?,
            dead_letter_max_bytes: variables.size("ESS_DEAD_LETTER_MAX_BYTES", 1 << 20)?,
            max_age,
            duplicate_window,
            replicas: usize::try_from(variables.number("ESS_NATS_REPLICAS", 1, 5)?).unwrap_or(1),
        })
    }
}

impl Config {
    /// Reads files and environment, and judges them.
    pub fn load() -> Result<Self, ConfigError> {
        Self::judge(&Variables::read()?)
    }

    /// Judges variables.
    pub fn judge(variables: &Variables) -> Result<Self, ConfigError> {
        let usize_of = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let max_body = usize_of(variables.size("ESS_MAX_BODY", 1_024)?);
        let max_inflight = usize_of(variables.size("ESS_MAX_INFLIGHT", 1_024)?);
        if max_inflight < max_body {
            let message =
                format!("{max_inflight} bytes are not allowed: ESS_MAX_BODY ({max_body} bytes) must fit in");
            return Err(ConfigError { name: "ESS_MAX_INFLIGHT".to_owned(), message });
        }
        let port = variables.text("PORT");
        variables.parsed("ESS_PII", "keep", |text| (text == "keep").then_some(()))?;
        let mut warnings: Vec<String> = variables
            .0
            .keys()
            .filter(|name| name.starts_with("ESS_") && !name.starts_with("ESS_TEST_"))
            .filter(|name| !SETTINGS.iter().any(|setting| setting.name == name.as_str()))
            .map(|name| format!("unknown setting {name}: it has no effect"))
            .collect();
        warnings.sort();
        let log = LogSettings::judge(variables)?;
        let retention = variables.limit("ESS_RETENTION")?;
        if let Some((retention, age)) = retention.zip(log.max_age).filter(|(retention, age)| retention < age)
        {
            let message = format!(
                "{} is not allowed: ESS_LOG_MAX_AGE is {}, and what the log holds could come again after its rows left",
                humantime::format_duration(retention),
                humantime::format_duration(age)
            );
            return Err(ConfigError { name: "ESS_RETENTION".to_owned(), message });
        }
        if log.max_age.is_some() {
            warnings.push(
                "ESS_LOG_MAX_AGE is set: accepted events that are not collected in time are lost".to_owned(),
            );
        }
        Ok(Self {
            nats_url: variables.url("NATS_URL", &["nats://", "tls://", "ws://", "wss://"])?,
            database_url: variables.url("DATABASE_URL", &["postgres://", "postgresql://", "sqlite:"])?,
            reporter_database_url: variables
                .url("ESS_REPORTER_DATABASE_URL", &["postgres://", "postgresql://"])?,
            event_endpoint: Some(variables.text("EVENT_ENDPOINT").to_owned()).filter(|url| !url.is_empty()),
            data_dir: variables.text("ESS_DATA_DIR").into(),
            listen: variables.parsed("ESS_LISTEN", "an IP address", |text| text.parse().ok())?,
            ports: Ports {
                alone: (!port.is_empty()).then(|| variables.port("PORT")).transpose()?,
                gateway: variables.port("ESS_GATEWAY_PORT")?,
                facebook_collector: variables.port("ESS_FACEBOOK_COLLECTOR_PORT")?,
                tiktok_collector: variables.port("ESS_TIKTOK_COLLECTOR_PORT")?,
                reporter: variables.port("ESS_REPORTER_PORT")?,
            },
            max_body,
            max_inflight,
            log,
            batch_concurrency: usize_of(variables.number("EVENTS_BATCH_CONCURRENCY", 1, 16)?),
            max_deliveries: variables.number("ESS_MAX_DELIVERIES", 1, 1_000_000)?,
            retention,
            dead_letter_retention: variables.limit("ESS_DEAD_LETTER_RETENTION")?,
            drain_grace: variables.duration("ESS_DRAIN_GRACE")?,
            drain_timeout: variables.duration("ESS_DRAIN_TIMEOUT")?,
            facebook_app_secrets: variables.secrets("ESS_FACEBOOK_APP_SECRET"),
            facebook_verify_token: variables.secret("ESS_FACEBOOK_VERIFY_TOKEN"),
            tiktok_client_secrets: variables.secrets("ESS_TIKTOK_CLIENT_SECRET"),
            webhook_tokens: variables.secrets("ESS_WEBHOOK_TOKEN"),
            reporter_tokens: variables.secrets("ESS_REPORTER_TOKEN"),
            admin_token: variables.secret("ESS_ADMIN_TOKEN"),
            log_level: variables.text("LOG_LEVEL").to_owned(),
            warnings,
            values: Shown(
                SETTINGS.iter().map(|setting| (setting, variables.text(setting.name).to_owned())).collect(),
            ),
        })
    }

    /// The effective configuration, a line each, secrets hidden.
    pub fn shown(&self) -> Vec<String> {
        let show = |(setting, value): &(&Setting, String)| {
            let shown = match value.as_str() {
                "" => "(unset)",
                _ if setting.secret && setting.name.ends_with("_URL") => {
                    return format!("{}={}", setting.name, hide_password(value));
                }
                _ if setting.secret => "***",
                value => value,
            };
            format!("{}={shown}", setting.name)
        };
        self.values.0.iter().map(show).collect()
    }
}

/// URLs, comma-separated, without passwords and tokens: of what stands before the host only a user's name
/// is shown, of what stands behind the path nothing.
pub fn hide_password(urls: &str) -> String {
    let hide = |url: &str| {
        let url = url.split('?').next().unwrap_or_default();
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        match rest.rsplit_once('@') {
            Some((user, host)) => {
                let user = user.split_once(':').map_or("", |(user, _)| user);
                format!("{scheme}://{user}:***@{host}")
            }
            None => url.to_owned(),
        }
    };
    // A comma begins another server only if a scheme follows it; else it is part of a password.
    let mut parts: Vec<String> = Vec::new();
    for part in urls.split(',') {
        match parts.last_mut() {
            Some(last) if !part.contains("://") => {
                last.push(',');
                last.push_str(part);
            }
            _ => parts.push(part.to_owned()),
        }
    }
    parts.iter().map(|url| hide(url)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::judge(&Variables::from_pairs(pairs.iter().copied()))
    }

    fn refused(name: &str, value: &str) -> String {
        let error = judge(&[(name, value)]).expect_err(value);
        assert_eq!(error.name, name, "{error}");
        error.message
    }

    #[test]
    fn the_defaults_are_possible() {
        let config = judge(&[]).unwrap();
        assert_eq!(config.max_body, 64 << 20);
        assert_eq!(config.log.max_bytes, 8 << 30);
        assert_eq!(config.log.max_age, None);
        assert_eq!(config.dead_letter_retention, Some(Duration::from_secs(30 * 86_400)));
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn an_impossible_value_is_refused_by_name() {
        refused("ESS_MAX_BODY", "much");
        refused("ESS_MAX_BODY", "-1");
        refused("ESS_GATEWAY_PORT", "70000");
        refused("EVENTS_BATCH_CONCURRENCY", "0");
        refused("EVENTS_BATCH_CONCURRENCY", "17");
        refused("ESS_DRAIN_TIMEOUT", "soon");
        refused("ESS_LISTEN", "localhost:1");
        refused("NATS_URL", "http://x");
        refused("DATABASE_URL", "mysql://x");
        refused("ESS_NATS_REPLICAS", "0");
        refused("ESS_MAX_INFLIGHT", "1MiB");
        refused("ESS_PII", "burn");
    }

    #[test]
    fn an_age_that_nats_would_refuse_is_refused_by_name() {
        assert!(refused("ESS_LOG_MAX_AGE", "99ms").contains("100ms"));
        assert!(refused("ESS_LOG_MAX_AGE", "1us").contains("100ms"));
        assert!(refused("ESS_LOG_DUPLICATE_WINDOW", "50ms").contains("100ms"));
        refused("ESS_LOG_DUPLICATE_WINDOW", "0");
        assert!(judge(&[("ESS_LOG_MAX_AGE", "1m")]).is_err(), "the window is longer");
        let short = judge(&[("ESS_LOG_MAX_AGE", "100ms"), ("ESS_LOG_DUPLICATE_WINDOW", "100ms")]).unwrap();
        assert_eq!(short.log.max_age, Some(Duration::from_millis(100)));
        assert!(!short.warnings.is_empty(), "an age can lose events, and that is said");
    }

    #[test]
    fn rows_may_not_leave_before_the_log_does() {
        let of = |retention| judge(&[("ESS_LOG_MAX_AGE", "7d"), ("ESS_RETENTION", retention)]);
        let error = of("6d").expect_err("it is shorter");
        assert_eq!(error.name, "ESS_RETENTION");
        assert!(error.message.contains("ESS_LOG_MAX_AGE"), "{error}");
        assert_eq!(of("7d").unwrap().retention, Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(of("0").unwrap().retention, None);
    }

    #[test]
    fn an_unknown_name_is_warned_of() {
        let config = judge(&[("ESS_MAX_BODDY", "1")]).unwrap();
        assert!(config.warnings[0].contains("ESS_MAX_BODDY"));
    }

    #[test]
    fn secrets_are_hidden() {
        let config = judge(&[
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
    fn the_example_file_shows_every_setting_and_its_default() {
        let example = include_str!("../.env.example");
        for setting in SETTINGS {
            let line = format!("#{}={}", setting.name, setting.default);
            assert!(example.lines().any(|shown| shown == line), "{line}");
        }
    }
}
