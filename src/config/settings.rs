//! The one list of names, defaults and meanings.

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

impl Setting {
    /// The setting that names a file with the value, for a secret.
    pub fn file_name(&self) -> Option<String> {
        self.secret.then(|| format!("{}_FILE", self.name))
    }
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
    "NATS_URL" "" secret: "NATS with JetStream, e.g. nats://localhost:4222, or the servers of a cluster, e.g. nats://a:4222,nats://b:4222. Unset, `ess up` and `ess demo` use an embedded log.";
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
    "ESS_MAX_EVENTS" "100000": "Events of one request body; more are a 413.";
    "ESS_MAX_HEADER" "16KiB": "The largest request head, names and values together; more is a 431.";
    "ESS_MAX_CONNECTIONS" "10000": "Connections that each service holds at one time; others wait to be taken.";
    "ESS_HEAD_TIMEOUT" "10s": "How long a client may take to send a request's head.";
    "ESS_IDLE_TIMEOUT" "75s": "How long a connection may rest between two requests, and how long a client may read nothing of its answer.";
    "ESS_BODY_TIMEOUT" "60s": "How long a client may take to send a request's body.";
    "ESS_RATE_LIMIT" "0": "Requests a second that each publisher may send to the webhook; more are a 429. 0 for any number.";
    "ESS_LOG_MAX_BYTES" "8GiB": "What the log holds per source before it refuses new events (503).";
    "ESS_LOG_MAX_AGE" "0": "When the log drops what was not collected; 0 for never. A set age can lose accepted events.";
    "ESS_LOG_DUPLICATE_WINDOW" "2m": "How long the log recognises a frame that is sent again.";
    "ESS_NATS_REPLICAS" "1": "Copies of each message in a NATS cluster, 1 to 5. Gateways add copies to streams that exist, and take none away.";
    "ESS_MAX_DELIVERIES" "10": "Deliveries after which a frame is processed alone, to find the event that is guilty.";
    "ESS_RETENTION" "0": "How long rows are kept; 0 for ever. Not shorter than ESS_LOG_MAX_AGE.";
    "ESS_DEAD_LETTER_RETENTION" "30d": "How long refused events are kept; 0 for ever.";
    "ESS_DEAD_LETTER_MAX_BYTES" "256MiB": "What is kept of dead letters in the store, and of refused events in the log on their way. In the store the oldest refused events leave first; the log takes none any more, and they are counted.";
    "ESS_DRAIN_GRACE" "0": "How long a stopping service goes on as normal after it said that it is not ready.";
    "ESS_DRAIN_TIMEOUT" "30s": "How long a stopping service may take to finish what it has.";
    "ESS_FACEBOOK_APP_SECRET" "" secret: "Meta's app secret: X-Hub-Signature-256 is then checked on /webhook/facebook. Two, comma-separated, while one is rotated.";
    "ESS_FACEBOOK_VERIFY_TOKEN" "" secret: "The token of Meta's handshake (GET /webhook/facebook).";
    "ESS_TIKTOK_CLIENT_SECRET" "" secret: "TikTok's client secret: TikTok-Signature is then checked on /webhook/tiktok. Two, comma-separated, while one is rotated.";
    "ESS_WEBHOOK_TOKEN" "" secret: "Bearer tokens that /webhook asks for, comma-separated; NAME:TOKEN says whose it is in logs and metrics.";
    "ESS_REPORTER_TOKEN" "" secret: "Bearer tokens that the reporter asks for, comma-separated, each with or without NAME: before it.";
    "ESS_ADMIN_TOKEN" "" secret: "The bearer token of POST /actors/{name}/restart; without it that is off.";
    "ESS_PII" "keep": "What becomes of names, user names and user ids before anything is stored: keep, hash (all of them, under ESS_PII_KEY) or drop (names are emptied, user ids are hashed).";
    "ESS_PII_KEY" "" secret: "The key of ESS_PII=hash and drop, at least 16 characters. Under another key the same user is another one.";
    "ESS_TLS_CERT" "": "A PEM file with the certificate chain of our own listeners, which then speak TLS alone.";
    "ESS_TLS_KEY" "": "The PEM file with that certificate's private key.";
    "ESS_CA_FILE" "": "A PEM file with authorities that we trust beside the public ones: for NATS, and the publisher's target.";
    "ESS_NATS_CREDENTIALS" "": "A NATS credentials file (.creds).";
    "ESS_NATS_CERT" "": "A PEM file with our certificate for NATS, where it asks for one.";
    "ESS_NATS_KEY" "": "The PEM file with that certificate's private key.";
    "OTEL_EXPORTER_OTLP_ENDPOINT" "": "An OTLP receiver for traces (HTTP, protobuf), such as http://localhost:4318.";
    "OTEL_TRACES_SAMPLER_ARG" "1": "The fraction of requests without a trace of their own that begin one that is exported, 0 to 1.";
}
