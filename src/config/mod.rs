//! The configuration: defaults, files and environment, read and judged once at the start.
//!
//! [`SETTINGS`] is the one list of names, defaults and meanings. A value that is impossible stops the
//! start with the setting's name; an unknown `ESS_*` name is warned of, and so is what leaves a door open. A
//! secret may stand in a file that `NAME_FILE` names; services wait for one that is not there yet.

mod doors;
mod env_file;
mod secret;
mod settings;
mod variables;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use doors::open_doors;
use secret::{secrets, sendable, tokens};

pub use secret::{Secret, Token, hide_password};
pub use settings::{SETTINGS, Setting};
pub use variables::{ConfigError, Variables};

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

/// What becomes of personal data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pii {
    /// It is stored as it was sent.
    Keep,
    /// Names, user names and user ids are hashed under this key.
    Hash(Secret),
    /// Names and user names go; user ids are hashed under this key.
    Drop(Secret),
}

/// A certificate and its private key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The bounds of every listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// The address to listen on.
    pub listen: IpAddr,
    /// TLS, where it is asked for.
    pub tls: Option<Identity>,
    /// Connections at one time.
    pub max_connections: usize,
    /// Bytes of a request's head.
    pub max_header: usize,
    /// Time for a request's head.
    pub head_timeout: Duration,
    /// Time that a connection may rest between two requests.
    pub idle_timeout: Duration,
}

/// How NATS is reached, beside its URL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NatsAccess {
    /// A credentials file.
    pub credentials: Option<PathBuf>,
    /// Our certificate.
    pub identity: Option<Identity>,
    /// Authorities to trust beside the public ones.
    pub authorities: Option<PathBuf>,
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
    /// What listeners have in common.
    pub http: HttpSettings,
    /// How NATS is reached.
    pub nats: NatsAccess,
    /// The ports.
    pub ports: Ports,
    /// Bytes of one body.
    pub max_body: usize,
    /// Bytes of all bodies at one time.
    pub max_inflight: usize,
    /// Events of one body.
    pub max_events: usize,
    /// Time for a body.
    pub body_timeout: Duration,
    /// Requests a second of one publisher.
    pub rate_limit: Option<std::num::NonZeroU32>,
    /// What becomes of personal data.
    pub pii: Pii,
    /// Where traces go.
    pub otlp_endpoint: Option<String>,
    /// The fraction of requests that begin a trace.
    pub trace_fraction: f64,
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
    pub webhook_tokens: Vec<Token>,
    /// Bearer tokens of the reporter.
    pub reporter_tokens: Vec<Token>,
    /// The bearer token of operators.
    pub admin_token: Option<Secret>,
    /// What is logged.
    pub log_level: String,
    /// Things to say once logging works.
    pub warnings: Vec<String>,
    /// Files of secrets that are not there: services wait for them.
    pub missing: Vec<ConfigError>,
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

/// A file that must be there and be readable.
fn readable(variables: &Variables, name: &str) -> Result<Option<PathBuf>, ConfigError> {
    let Some(path) = variables.path(name) else { return Ok(None) };
    match std::fs::File::open(&path) {
        Ok(_) => Ok(Some(path)),
        Err(error) => Err(ConfigError::new(name, format!("{}: {error}", path.display()))),
    }
}

/// A certificate and its key: both, or none.
fn identity(variables: &Variables, certificate: &str, key: &str) -> Result<Option<Identity>, ConfigError> {
    match (readable(variables, certificate)?, readable(variables, key)?) {
        (Some(certificate), Some(key)) => Ok(Some(Identity { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigError::new(key, format!("is not set, but {certificate} is"))),
        (None, Some(_)) => Err(ConfigError::new(certificate, format!("is not set, but {key} is"))),
    }
}

/// The list that a secret is.
fn listed<T>(
    variables: &Variables,
    name: &str,
    read: impl FnOnce(&str) -> Result<Vec<T>, String>,
) -> Result<Vec<T>, ConfigError> {
    read(variables.text(name)).map_err(|why| ConfigError::new(name, why))
}

/// The operators' token: it must be one that a header can carry.
fn admin_token(variables: &Variables) -> Result<Option<Secret>, ConfigError> {
    let name = "ESS_ADMIN_TOKEN";
    let Some(token) = variables.secret(name) else { return Ok(None) };
    sendable(token.expose()).map_err(|why| ConfigError::new(name, why))?;
    Ok(Some(token))
}

fn positive_time(variables: &Variables, name: &str) -> Result<Duration, ConfigError> {
    match variables.duration(name)? {
        Duration::ZERO => Err(ConfigError::new(name, "0 is not allowed: nothing comes in no time")),
        time => Ok(time),
    }
}

/// The shortest key under which user ids are hashed, in characters.
const MIN_PII_KEY: usize = 16;

fn pii(variables: &Variables) -> Result<Pii, ConfigError> {
    let make = variables.parsed("ESS_PII", "keep, hash or drop", |text| match text {
        "keep" => Some(None),
        "hash" => Some(Some(Pii::Hash as fn(Secret) -> Pii)),
        "drop" => Some(Some(Pii::Drop as fn(Secret) -> Pii)),
        _ => None,
    })?;
    let Some(make) = make else { return Ok(Pii::Keep) };
    match variables.secret("ESS_PII_KEY") {
        Some(key) if key.expose().chars().count() >= MIN_PII_KEY => Ok(make(key)),
        // Its file is waited for.
        None if variables.missing.iter().any(|error| error.name == "ESS_PII_KEY_FILE") => Ok(Pii::Keep),
        _ => Err(ConfigError::new(
            "ESS_PII_KEY",
            format!("must have at least {MIN_PII_KEY} characters where ESS_PII is hash or drop"),
        )),
    }
}

fn otlp_endpoint(variables: &Variables) -> Result<Option<String>, ConfigError> {
    let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
    match variables.text(name) {
        "" => Ok(None),
        url if url.starts_with("http://") || url.starts_with("https://") => {
            Ok(Some(url.trim_end_matches('/').to_owned()))
        }
        _ => Err(ConfigError::new(name, "must begin with http:// or https://")),
    }
}

impl HttpSettings {
    fn judge(variables: &Variables) -> Result<Self, ConfigError> {
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Ok(Self {
            listen: variables.parsed("ESS_LISTEN", "an IP address", |text| text.parse().ok())?,
            tls: identity(variables, "ESS_TLS_CERT", "ESS_TLS_KEY")?,
            max_connections: size(variables.number("ESS_MAX_CONNECTIONS", 1, 1_000_000)?),
            // The HTTP library ends what is larger than 128 KiB by itself.
            max_header: variables.parsed("ESS_MAX_HEADER", "a size from 1KiB to 64KiB", |text| {
                let size = text.parse::<bytesize::ByteSize>().ok()?.as_u64();
                usize::try_from(size).ok().filter(|size| (1_024..=65_536).contains(size))
            })?,
            head_timeout: positive_time(variables, "ESS_HEAD_TIMEOUT")?,
            idle_timeout: positive_time(variables, "ESS_IDLE_TIMEOUT")?,
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
            return Err(ConfigError::new("ESS_MAX_INFLIGHT", message));
        }
        let port = variables.text("PORT");
        let mut warnings = variables.warnings.clone();
        warnings.extend(
            variables.unknown().into_iter().map(|name| format!("unknown setting {name}: it has no effect")),
        );
        let log = LogSettings::judge(variables)?;
        let retention = variables.limit("ESS_RETENTION")?;
        if let Some((retention, age)) = retention.zip(log.max_age).filter(|(retention, age)| retention < age)
        {
            let message = format!(
                "{} is not allowed: ESS_LOG_MAX_AGE is {}, and what the log holds could come again after its rows left",
                humantime::format_duration(retention),
                humantime::format_duration(age)
            );
            return Err(ConfigError::new("ESS_RETENTION", message));
        }
        if log.max_age.is_some() {
            warnings.push(
                "ESS_LOG_MAX_AGE is set: accepted events that are not collected in time are lost".to_owned(),
            );
        }
        let http = HttpSettings::judge(variables)?;
        warnings.extend(open_doors(variables, &http));
        Ok(Self {
            nats_url: variables.url("NATS_URL", &["nats://", "tls://"])?,
            database_url: variables.url("DATABASE_URL", &["postgres://", "postgresql://", "sqlite:"])?,
            reporter_database_url: variables
                .url("ESS_REPORTER_DATABASE_URL", &["postgres://", "postgresql://"])?,
            event_endpoint: Some(variables.text("EVENT_ENDPOINT").to_owned()).filter(|url| !url.is_empty()),
            data_dir: variables.text("ESS_DATA_DIR").into(),
            http,
            nats: NatsAccess {
                credentials: readable(variables, "ESS_NATS_CREDENTIALS")?,
                identity: identity(variables, "ESS_NATS_CERT", "ESS_NATS_KEY")?,
                authorities: readable(variables, "ESS_CA_FILE")?,
            },
            ports: Ports {
                alone: (!port.is_empty()).then(|| variables.port("PORT")).transpose()?,
                gateway: variables.port("ESS_GATEWAY_PORT")?,
                facebook_collector: variables.port("ESS_FACEBOOK_COLLECTOR_PORT")?,
                tiktok_collector: variables.port("ESS_TIKTOK_COLLECTOR_PORT")?,
                reporter: variables.port("ESS_REPORTER_PORT")?,
            },
            max_body,
            max_inflight,
            max_events: usize_of(variables.number("ESS_MAX_EVENTS", 1, 10_000_000)?),
            body_timeout: positive_time(variables, "ESS_BODY_TIMEOUT")?,
            rate_limit: u32::try_from(variables.number("ESS_RATE_LIMIT", 0, 1_000_000)?)
                .ok()
                .and_then(std::num::NonZeroU32::new),
            pii: pii(variables)?,
            otlp_endpoint: otlp_endpoint(variables)?,
            trace_fraction: variables.parsed("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1", |text| {
                text.parse().ok().filter(|fraction| (0.0..=1.0).contains(fraction))
            })?,
            log,
            batch_concurrency: usize_of(variables.number("EVENTS_BATCH_CONCURRENCY", 1, 16)?),
            max_deliveries: variables.number("ESS_MAX_DELIVERIES", 1, 1_000_000)?,
            retention,
            dead_letter_retention: variables.limit("ESS_DEAD_LETTER_RETENTION")?,
            drain_grace: variables.duration("ESS_DRAIN_GRACE")?,
            drain_timeout: variables.duration("ESS_DRAIN_TIMEOUT")?,
            facebook_app_secrets: listed(variables, "ESS_FACEBOOK_APP_SECRET", secrets)?,
            facebook_verify_token: variables.secret("ESS_FACEBOOK_VERIFY_TOKEN"),
            tiktok_client_secrets: listed(variables, "ESS_TIKTOK_CLIENT_SECRET", secrets)?,
            webhook_tokens: listed(variables, "ESS_WEBHOOK_TOKEN", tokens)?,
            reporter_tokens: listed(variables, "ESS_REPORTER_TOKEN", tokens)?,
            admin_token: admin_token(variables)?,
            log_level: variables.text("LOG_LEVEL").to_owned(),
            warnings,
            missing: variables.missing.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::judge(&Variables::from_pairs(pairs.iter().copied())?)
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
        refused("NATS_URL", "nats://a,b");
        assert!(judge(&[("NATS_URL", "nats://a:4222, tls://u:p@b:4222")]).is_ok());
        refused("DATABASE_URL", "mysql://x");
        refused("ESS_NATS_REPLICAS", "0");
        refused("ESS_MAX_INFLIGHT", "1MiB");
        refused("ESS_PII", "burn");
        refused("ESS_MAX_EVENTS", "0");
        refused("ESS_RATE_LIMIT", "-1");
        refused("ESS_MAX_HEADER", "1MiB");
        refused("ESS_HEAD_TIMEOUT", "0");
        refused("ESS_CA_FILE", "/nowhere/ca.pem");
        refused("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318");
        refused("OTEL_TRACES_SAMPLER_ARG", "2");
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
    fn personal_data_is_hashed_under_a_key_that_is_long_enough() {
        for mode in ["hash", "drop"] {
            for key in ["", "fifteen letters"] {
                let error = judge(&[("ESS_PII", mode), ("ESS_PII_KEY", key)]).expect_err("no key");
                assert_eq!(error.name, "ESS_PII_KEY");
            }
            assert!(judge(&[("ESS_PII", mode), ("ESS_PII_KEY", "0123456789abcdef")]).is_ok());
        }
    }

    #[test]
    fn a_secret_may_stand_in_a_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let path = file.to_str().unwrap();
        let missing = judge(&[("ESS_ADMIN_TOKEN_FILE", path)]).unwrap();
        assert_eq!(missing.missing.len(), 1, "it may come");
        assert!(missing.missing[0].to_string().contains(path));
        std::fs::write(&file, "\n").unwrap();
        let empty = judge(&[("ESS_ADMIN_TOKEN_FILE", path)]).unwrap();
        assert!(empty.missing[0].to_string().contains("is empty"), "somebody is writing it");
        std::fs::write(&file, "\u{feff}hunter2\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = judge(&[("ESS_ADMIN_TOKEN_FILE", path)]).unwrap();
        assert_eq!(config.admin_token.as_ref().unwrap().expose(), "hunter2");
        assert_eq!(config.warnings, Vec::<String>::new());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let config = judge(&[("ESS_ADMIN_TOKEN_FILE", path)]).unwrap();
        assert!(config.warnings[0].contains("everybody"), "{:?}", config.warnings);
        assert!(judge(&[("ESS_ADMIN_TOKEN_FILE", path), ("ESS_ADMIN_TOKEN", "x")]).is_err(), "one of them");
    }

    #[test]
    fn a_token_that_no_header_carries_is_refused_by_name() {
        for name in ["ESS_WEBHOOK_TOKEN", "ESS_REPORTER_TOKEN", "ESS_ADMIN_TOKEN"] {
            for token in ["geh\u{e4}im", "hunter\n2", "tab\tbed", "del\u{7f}"] {
                let said = refused(name, token);
                assert!(said.contains("ASCII") && !said.contains(token), "{said}");
            }
            assert!(judge(&[(name, "pa$$ word")]).is_ok());
        }
        assert!(refused("ESS_WEBHOOK_TOKEN", "a,acme:\u{e4}").contains("acme"));
    }

    #[test]
    fn doors_that_stand_open_are_named() {
        let open = judge(&[("ESS_LISTEN", "0.0.0.0"), ("ESS_ADMIN_TOKEN", " ")]).unwrap().warnings.join("; ");
        for name in ["ESS_WEBHOOK_TOKEN", "ESS_REPORTER_TOKEN", "ESS_ADMIN_TOKEN"] {
            assert!(open.contains(name), "{open}");
        }
        let unsigned = judge(&[("ESS_FACEBOOK_APP_SECRET", "a")]).unwrap().warnings.join("; ");
        assert!(unsigned.contains("/webhook takes events of every source"), "{unsigned}");
        let clear = judge(&[("NATS_URL", "nats://u:p@far:4222")]).unwrap().warnings.join("; ");
        assert!(clear.contains("in the clear") && !clear.contains("u:p"), "{clear}");
        for name in ["ESS_WEBHOOK_TOKEN", "ESS_REPORTER_TOKEN", "ESS_FACEBOOK_APP_SECRET"] {
            refused(name, ",");
        }
        let shut = [("ESS_LISTEN", "0.0.0.0"), ("ESS_WEBHOOK_TOKEN", "a"), ("ESS_REPORTER_TOKEN", "b")];
        assert_eq!(judge(&shut).unwrap().warnings, Vec::<String>::new());
        let error = judge(&[("ESS_TLS_CERT", "/etc/hostname")]).expect_err("there is no key");
        assert_eq!(error.name, "ESS_TLS_KEY");
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
        let example = include_str!("../../.env.example");
        for setting in SETTINGS {
            let line = format!("#{}={}", setting.name, setting.default);
            assert!(example.lines().any(|shown| shown == line), "{line}");
        }
    }
}
