//! The list of settings: names, defaults and meanings.

use std::sync::LazyLock;

use crate::source::{Source, SourceSetting};

/// A setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Name of the environment variable.
    pub name: &'static str,
    /// The default as text; empty for none.
    pub default: &'static str,
    /// True if the value is hidden when the configuration is shown.
    pub secret: bool,
    /// Description for users, as in `.env.example`.
    pub about: &'static str,
}

impl Setting {
    /// Name of the setting that names a file with the value; secrets alone have one.
    pub fn file_name(&self) -> Option<String> {
        self.secret.then(|| format!("{}_FILE", self.name))
    }
}

/// Every setting: the general ones, then those that each source declares.
pub static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    let of_sources = Source::built_in().flat_map(|source| {
        let port = source.collector_port().map(|port| (port, false));
        let signature = source.signature().map(|signature| (signature.setting, true));
        let handshake = source.handshake().map(|handshake| (handshake.setting, true));
        [port, signature, handshake].into_iter().flatten()
    });
    let of_sources = of_sources.map(|(SourceSetting { name, default, about }, secret)| Setting {
        name,
        default,
        secret,
        about,
    });
    GENERAL.iter().copied().chain(of_sources).collect()
});

macro_rules! settings {
    ($($name:literal $default:literal $($secret:ident)? : $about:literal;)+) => {
        /// The settings that belong to no source.
        const GENERAL: &[Setting] = &[$(Setting {
            name: $name, default: $default, secret: settings!(@ $($secret)?), about: $about,
        }),+];
    };
    (@) => { false };
    (@ secret) => { true };
}

settings! {
    "NATS_URL" "" secret: "URL of NATS with JetStream, such as nats://localhost:4222, or of the servers of a cluster, such as nats://a:4222,nats://b:4222. Unset, `ess up` and `ess demo` use an embedded log.";
    "DATABASE_URL" "" secret: "URL of PostgreSQL (postgres://…) or SQLite (sqlite://…). Unset, `ess up` and `ess demo` use SQLite in ESS_DATA_DIR.";
    "ESS_REPORTER_DATABASE_URL" "" secret: "URL of PostgreSQL for the reporter alone, with a read-only role. The reporter then waits for the schema instead of migrating.";
    "EVENTS_BATCH_CONCURRENCY" "2": "Transactions in flight per collector, 1 to 16.";
    "EVENT_ENDPOINT" "": "URL that `ess publisher` sends to, unless --target is given. Unset, it is http://localhost:3000/webhook.";
    "LOG_LEVEL" "info": "Level of log lines: off, error, warn, info, debug or trace, or a filter such as `info,ess=debug`.";
    "PORT" "": "Port of a service that runs alone; `ess up` and `ess demo` ignore it.";
    "ESS_DATA_DIR" "./data": "Folder of the embedded log and database.";
    "ESS_SOURCES" "./sources": "Folder of source files, one for each source. It may be absent.";
    "ESS_LISTEN" "127.0.0.1": "Address that every service listens on.";
    "ESS_GATEWAY_PORT" "3000": "Port of the gateway.";
    "ESS_COLLECTOR_PORT" "3004": "Port of a collector of several sources, or of a declared one.";
    "ESS_REPORTER_PORT" "3003": "Port of the reporter.";
    "ESS_MAX_BODY" "64MiB": "Largest request body, after decompression; larger ones are answered 413.";
    "ESS_MAX_INFLIGHT" "256MiB": "Bytes of all requests together that the gateway holds at one time; further requests wait, then are answered 503.";
    "ESS_MAX_EVENTS" "100000": "Events of one request body; more are answered 413.";
    "ESS_MAX_HEADER" "16KiB": "Largest request head, 1KiB to 64KiB, names and values of all header fields together; larger ones are answered 431.";
    "ESS_MAX_CONNECTIONS" "10000": "Connections that each service holds at one time; further ones wait.";
    "ESS_HEAD_TIMEOUT" "10s": "Time for a client to send a request's head; after that the answer is 408.";
    "ESS_IDLE_TIMEOUT" "75s": "Time that a connection may be idle between two requests, or that a client may read nothing of its answer, before it is closed.";
    "ESS_BODY_TIMEOUT" "60s": "Time for a client to send a request's body; after that the answer is 408.";
    "ESS_RATE_LIMIT" "0": "Requests a second that each publisher may send to the webhook; more are answered 429. 0 for no limit.";
    "ESS_LOG_MAX_BYTES" "8GiB": "Bytes that the log holds per source before it refuses new events (503).";
    "ESS_LOG_MAX_AGE" "0": "Age at which the log drops events that no collector took; 0 for never. Any other value can lose accepted events.";
    "ESS_LOG_DUPLICATE_WINDOW" "2m": "Time during which the log recognises a frame that is sent again.";
    "ESS_NATS_REPLICAS" "1": "Copies of each message in a NATS cluster, 1 to 5. Gateways add copies to existing streams, and never remove any.";
    "ESS_LOG_STREAMS" "1": "NATS streams over which gateways spread the frames of each source, 1 to 16, which share ESS_LOG_MAX_BYTES. Collectors read every stream that exists, so lowering it loses nothing.";
    "ESS_MAX_DELIVERIES" "10": "Deliveries of a frame after which its events are processed one by one, to find the event that ends its collector.";
    "ESS_RETENTION" "0": "Age at which rows are deleted; 0 for never. Not shorter than ESS_LOG_MAX_AGE.";
    "ESS_DEAD_LETTER_RETENTION" "30d": "Age at which dead letters are deleted; 0 for never.";
    "ESS_DEAD_LETTER_MAX_BYTES" "256MiB": "Bytes of dead letters in the store, and of refused events in the log on their way there. Over it, the store deletes its oldest refused events, and the log takes no more of them: they are counted, but their bytes are not kept.";
    "ESS_DRAIN_GRACE" "0": "Time of normal service of a stopping service after it reports that it is not ready.";
    "ESS_DRAIN_TIMEOUT" "30s": "Time for a stopping service to finish its work.";
    "ESS_WEBHOOK_TOKEN" "" secret: "Bearer tokens that /webhook requires, comma-separated, each TOKEN or NAME:TOKEN. The name appears in logs and metrics.";
    "ESS_REPORTER_TOKEN" "" secret: "Bearer tokens that the reporter requires, comma-separated, each TOKEN or NAME:TOKEN.";
    "ESS_ADMIN_TOKEN" "" secret: "Bearer token that operators show to restart actors and to replay dead letters over HTTP. Unset, both are refused.";
    "ESS_CURRENCY" "USD": "Currency (ISO 4217) of amounts that tell none, and of reports on revenue. Amounts that were stored before an upgrade from a version without currencies are taken to be in it.";
    "ESS_PII" "keep": "Treatment of personal data before events are stored: keep, hash (names, user names and user ids are hashed with ESS_PII_KEY) or drop (names and user names are removed, user ids are hashed).";
    "ESS_PII_KEY" "" secret: "Key of ESS_PII=hash and ESS_PII=drop, at least 16 characters. With another key the same user has another id.";
    "ESS_TLS_CERT" "": "PEM file with the certificate chain of the services' listeners, which then speak TLS only.";
    "ESS_TLS_KEY" "": "PEM file with the private key of ESS_TLS_CERT.";
    "ESS_CA_FILE" "": "PEM file with certificate authorities that are trusted beside the public ones, for NATS and for the publisher's target.";
    "ESS_NATS_CREDENTIALS" "": "NATS credentials file (.creds).";
    "ESS_NATS_CERT" "": "PEM file with the client certificate for NATS.";
    "ESS_NATS_KEY" "": "PEM file with the private key of ESS_NATS_CERT.";
    "OTEL_EXPORTER_OTLP_ENDPOINT" "": "URL that receives traces by OTLP (HTTP, protobuf), such as http://localhost:4318. Unset, no traces are exported.";
    "OTEL_TRACES_SAMPLER_ARG" "1": "Fraction of requests without a trace of their own for which a trace is begun and exported, 0 to 1.";
}
