//! The log in NATS JetStream.
//!
//! The topology has one home, here. Each topic is a stream of its own with one durable pull
//! consumer, both made by whoever comes first:
//!
//! | topic | stream | subject | consumer | when full |
//! |---|---|---|---|---|
//! | a source's events | `ESS_<SOURCE>` | `ess.events.<source>` | `collector-<source>` | refuses the new |
//! | dead letters | `ESS_DEAD_LETTERS` | `ess.dead_letters` | `collector-dead_letters` | drops the oldest |
//!
//! Retention is *work queue*: what is acknowledged is gone, what is not stays. Deliveries are
//! unlimited. An event's type never becomes part of a subject, for types hold dots.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::connection::State;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, ConnectOptions, Event, Request, RequestErrorKind};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use serde::Deserialize;
use tokio::sync::{RwLock, watch};
use uuid::Uuid;

use crate::config::{LogSettings, NatsAccess};

use super::{
    AppendError, Appended, Delivery, Log, LogError, Pull, Receipt, Settlement, Token, Topic, TopicState,
};

/// How long a frame may be worked on without a word before it is given to another consumer. The
/// collector speaks up every third of it.
pub const ACK_WAIT: Duration = Duration::from_secs(10);
/// Frames that may be out at one time, over all collectors of a source.
const MAX_ACK_PENDING: i64 = 1_000;
/// How long one request to the server may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the first connection is waited for before things go on without it.
const FIRST_CONNECT: Duration = Duration::from_secs(1);
/// How long the last words may take to reach the server.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a pull waits for frames.
const PULL_EXPIRES: Duration = Duration::from_millis(500);
/// Where a stream says which log it is.
const LOG_ID: &str = "ess-log-id";

/// The name of a topic's stream.
fn stream_name(topic: Topic) -> String {
    format!("ESS_{}", topic.to_string().to_ascii_uppercase())
}

/// The subject of a topic.
fn subject(topic: Topic) -> String {
    match topic {
        Topic::Events(source) => format!("ess.events.{source}"),
        Topic::DeadLetters => "ess.dead_letters".to_owned(),
    }
}

/// A log in NATS JetStream. The connection comes back by itself.
pub struct JetStream {
    client: Client,
    context: jetstream::Context,
    settings: LogSettings,
    topics: Arc<RwLock<HashMap<Topic, Declared>>>,
    /// Counts the connections. What was seen under an earlier one may be another log's by now.
    connection: watch::Receiver<u64>,
}

/// User and password, or a token alone, of the first server whose URL has them.
fn access_of(urls: &str) -> Result<Option<(String, Option<String>)>, LogError> {
    let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    for url in urls.split(',') {
        let server: async_nats::ServerAddr = url.trim().parse().map_err(away)?;
        if let Some(user) = server.username() {
            return Ok(Some((plain(user), server.password().map(plain))));
        }
    }
    Ok(None)
}

/// What NATS is shown, and whom it must show to be.
async fn options(url: &str, access: &NatsAccess) -> Result<ConnectOptions, LogError> {
    let mut options = match &access.credentials {
        Some(path) => ConnectOptions::with_credentials_file(path)
            .await
            .map_err(|error| LogError::Unavailable(format!("{}: {error}", path.display())))?,
        // The library does not read what a URL says of who we are.
        None => match access_of(url)? {
            Some((user, Some(password))) => ConnectOptions::with_user_and_password(user, password),
            Some((token, None)) => ConnectOptions::with_token(token),
            None => ConnectOptions::new(),
        },
    };
    if let Some(path) = &access.authorities {
        options = options.add_root_certificates(path.clone());
    }
    if let Some(identity) = &access.identity {
        // Whoever shows a certificate wants no connection without TLS, whatever the server says first.
        options = options
            .add_client_certificate(identity.certificate.clone(), identity.key.clone())
            .require_tls(true);
    }
    Ok(options)
}

/// A topic whose stream and consumer were seen to be as declared.
#[derive(Clone)]
struct Declared {
    connection: u64,
    log_id: Uuid,
    consumer: PullConsumer,
}

fn away(error: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(error.to_string())
}

impl JetStream {
    /// Opens a connection; where the server is away, it is made in the background.
    ///
    /// # Errors
    ///
    /// If the URL or one of the files is wrong.
    pub async fn connect(
        url: &str,
        name: &str,
        settings: LogSettings,
        access: &NatsAccess,
    ) -> Result<Self, LogError> {
        let (connections, connection) = watch::channel(0);
        let client = options(url, access)
            .await?
            .event_callback(move |event| {
                if matches!(event, Event::Connected | Event::Disconnected) {
                    connections.send_modify(|count| *count += 1);
                }
                std::future::ready(())
            })
            .name(name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| Duration::from_millis((50 * attempt as u64).min(1_000)))
            .connection_timeout(REQUEST_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .connect(url)
            .await
            .map_err(away)?;
        let mut first = connection.clone();
        let waited = tokio::time::timeout(FIRST_CONNECT, first.wait_for(|count| *count > 0)).await;
        if waited.is_err() {
            tracing::warn!(url = crate::config::hide_password(url), "NATS is away; trying on");
        }
        let mut context = jetstream::new(client.clone());
        context.set_timeout(REQUEST_TIMEOUT);
        Ok(Self { client, context, settings, topics: Arc::default(), connection })
    }

    /// A topic's stream and consumer, made or brought to what is declared at the first time.
    async fn declared(&self, topic: Topic) -> Result<Declared, LogError> {
        self.connected()?;
        let connection = *self.connection.borrow();
        let current = |declared: &&Declared| declared.connection == connection;
        if let Some(declared) = self.topics.read().await.get(&topic).filter(current) {
            return Ok(declared.clone());
        }
        let mut topics = self.topics.write().await;
        if let Some(declared) = topics.get(&topic).filter(current) {
            return Ok(declared.clone());
        }
        let log_id = self.reconcile_stream(topic).await?;
        let consumer = self.reconcile_consumer(topic).await?;
        let declared = Declared { connection, log_id, consumer };
        topics.insert(topic, declared.clone());
        Ok(declared)
    }

    /// Nothing is sent into a connection that is not there: it would wait, and arrive when nobody asks
    /// for it any more.
    fn connected(&self) -> Result<(), LogError> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            _ => Err(away("not connected to NATS")),
        }
    }

    /// What NATS says of the account; nothing is made or changed.
    pub async fn ask(&self) -> Result<(), LogError> {
        self.connected()?;
        self.context.query_account().await.map(drop).map_err(away)
    }

    /// Forgets that the topic was seen, so that it is looked at again.
    async fn forget(&self, topic: Topic) {
        self.topics.write().await.remove(&topic);
    }

    fn wanted(&self, topic: Topic) -> Config {
        Config {
            name: stream_name(topic),
            description: Some("written by ESS gateways, collected by ESS collectors".to_owned()),
            subjects: vec![subject(topic)],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            discard: if topic.drops_oldest() { DiscardPolicy::Old } else { DiscardPolicy::New },
            max_bytes: i64::try_from(self.settings.topic_max_bytes(topic)).unwrap_or(i64::MAX),
            max_age: self.settings.max_age.unwrap_or_default(),
            duplicate_window: self.settings.duplicate_window,
            num_replicas: self.settings.replicas,
            allow_direct: true,
            metadata: HashMap::from([(LOG_ID.to_owned(), Uuid::new_v4().to_string())]),
            ..Config::default()
        }
    }

    async fn reconcile_stream(&self, topic: Topic) -> Result<Uuid, LogError> {
        let wanted = self.wanted(topic);
        let info = match self.context.get_stream(&wanted.name).await {
            Ok(stream) => stream.cached_info().clone(),
            Err(error) if missing(&error.kind()) => {
                match self.context.create_stream(wanted.clone()).await {
                    Ok(stream) => stream.cached_info().clone(),
                    // Somebody else was quicker; theirs is the log.
                    Err(error) if exists(&error.kind()) => {
                        let stream = self.context.get_stream(&wanted.name).await.map_err(away)?;
                        stream.cached_info().clone()
                    }
                    Err(error) => return Err(refusal(topic, &error.kind(), &error)),
                }
            }
            Err(error) => return Err(away(error)),
        };
        self.bring_up_to_date(topic, wanted, info).await
    }

    async fn bring_up_to_date(&self, topic: Topic, wanted: Config, found: Info) -> Result<Uuid, LogError> {
        let mut config = found.config;
        let fixed = [
            ("retention", format!("{:?}", config.retention), format!("{:?}", wanted.retention)),
            ("storage", format!("{:?}", config.storage), format!("{:?}", wanted.storage)),
            ("subjects", config.subjects.join(","), wanted.subjects.join(",")),
        ];
        if let Some((what, is, should)) = fixed.into_iter().find(|(_, is, should)| is != should) {
            return Err(LogError::Misconfigured(format!(
                "stream {} has {what} {is}, and ESS needs {should}, which cannot be changed on a stream that \
                 exists: collect what it holds, delete it, and start again",
                config.name
            )));
        }
        let id = config.metadata.get(LOG_ID).and_then(|id| id.parse().ok());
        let same = config.max_bytes == wanted.max_bytes
            && config.max_age == wanted.max_age
            && config.duplicate_window == wanted.duplicate_window
            && config.discard == wanted.discard
            && config.num_replicas == wanted.num_replicas
            && config.allow_direct;
        let id = match id {
            Some(id) if same => return Ok(id),
            Some(id) => id,
            None => Uuid::new_v4(),
        };
        config.metadata.insert(LOG_ID.to_owned(), id.to_string());
        config.max_bytes = wanted.max_bytes;
        config.max_age = wanted.max_age;
        config.duplicate_window = wanted.duplicate_window;
        config.discard = wanted.discard;
        config.num_replicas = wanted.num_replicas;
        config.allow_direct = true;
        tracing::info!(stream = config.name, "bringing the stream to its declared settings");
        match self.context.update_stream(&config).await {
            Ok(_) => Ok(id),
            Err(error) => Err(refusal(topic, &error.kind(), &error)),
        }
    }

    async fn reconcile_consumer(&self, topic: Topic) -> Result<PullConsumer, LogError> {
        let name = format!("collector-{topic}");
        let config = pull::Config {
            durable_name: Some(name),
            description: Some("shared by all collectors of the topic".to_owned()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            max_ack_pending: MAX_ACK_PENDING,
            ..pull::Config::default()
        };
        // A consumer asked for right after its stream may not find it yet.
        let mut last = String::new();
        for attempt in 0..5_u32 {
            tokio::time::sleep(Duration::from_millis(50) * attempt).await;
            match self.context.create_consumer_on_stream(config.clone(), stream_name(topic)).await {
                Ok(consumer) => return Ok(consumer),
                Err(error) => last = error.to_string(),
            }
        }
        Err(LogError::Unavailable(format!("consumer of {}: {last}", stream_name(topic))))
    }

    async fn append(&self, topic: Topic, id: String, frame: Bytes) -> Result<Appended, AppendError> {
        let unavailable = |error: &dyn std::fmt::Display| AppendError::Unavailable(error.to_string());
        let Declared { log_id, .. } = match self.declared(topic).await {
            Ok(declared) => declared,
            Err(error @ LogError::Misconfigured(_)) => return Err(AppendError::Refused(error.to_string())),
            Err(error) => return Err(unavailable(&error)),
        };
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, id.as_str());
        let request = Request::new().headers(headers).payload(frame).timeout(Some(REQUEST_TIMEOUT));
        let answer = match self.client.send_request(subject(topic), request).await {
            Ok(answer) => answer,
            Err(error) => {
                match error.kind() {
                    RequestErrorKind::NoResponders => self.forget(topic).await,
                    RequestErrorKind::MaxPayloadExceeded => {
                        return Err(AppendError::Refused(error.to_string()));
                    }
                    _ => {}
                }
                return Err(unavailable(&error));
            }
        };
        let answer: Answer = serde_json::from_slice(&answer.payload).map_err(|error| unavailable(&error))?;
        match answer.error {
            None => Ok(Appended { sequence: answer.seq, duplicate: answer.duplicate, log_id }),
            Some(error) if is_full(&error) => Err(AppendError::Full(error.description)),
            // 4xx: the server will not take this message; anything else may pass.
            Some(error) if (400..500).contains(&error.code) => Err(AppendError::Refused(error.description)),
            Some(error) => Err(AppendError::Unavailable(error.description)),
        }
    }

    async fn pull(&self, topic: Topic, most: usize) -> Result<Pull, LogError> {
        let Declared { connection, log_id, consumer } = self.declared(topic).await?;
        let batch = consumer.batch().max_messages(most).expires(PULL_EXPIRES).messages().await;
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                self.forget(topic).await;
                return Err(away(error));
            }
        };
        let (client, topics, connections) =
            (self.client.clone(), self.topics.clone(), self.connection.clone());
        let mut changes = self.connection.clone();
        let lost = async move {
            // A request that went out on a connection before this one is not answered.
            let _ = changes.wait_for(|now| *now != connection).await;
        };
        let deliveries = batch.take_until(Box::pin(lost)).then(move |message| {
            let (client, topics) = (client.clone(), topics.clone());
            let same = *connections.borrow() == connection;
            async move {
                let delivery = message
                    .map_err(away)
                    .and_then(|message| delivery(topic, log_id, client, message))
                    // Another connection may lead to another log, whose places are not this one's.
                    .and_then(
                        |delivery| if same { Ok(delivery) } else { Err(away("the connection changed")) },
                    );
                if delivery.is_err() {
                    topics.write().await.remove(&topic);
                }
                delivery
            }
        });
        Ok(deliveries.boxed())
    }

    async fn state(&self, topic: Topic) -> Result<TopicState, LogError> {
        self.connected()?;
        // Asks for the stream by name only: whoever looks on creates nothing.
        let stream = self.context.get_stream(stream_name(topic)).await.map_err(away)?;
        let info = stream.info_builder().with_deleted(true).fetch().await.map_err(away)?.info;
        let log_id = info.config.metadata.get(LOG_ID).and_then(|id| id.parse().ok()).unwrap_or_default();
        let mut gone = info.state.deleted.unwrap_or_default();
        gone.sort_unstable();
        Ok(TopicState {
            log_id,
            first: info.state.first_sequence.max(1),
            last: info.state.last_sequence,
            gone,
            bytes: info.state.bytes,
            max_bytes: u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX),
            acknowledged: HashMap::new(),
        })
    }

    async fn peek(&self, topic: Topic, sequence: u64) -> Result<Option<Bytes>, LogError> {
        use async_nats::jetstream::stream::RawMessageErrorKind;
        self.connected()?;
        let stream = self.context.get_stream_no_info(stream_name(topic)).await.map_err(away)?;
        match stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message.payload)),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(error) => Err(away(error)),
        }
    }
}

/// What the server says to a publication.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    code: u64,
    err_code: u64,
    description: String,
}

fn is_full(fault: &Fault) -> bool {
    fault.err_code == ErrorCode::STREAM_STORE_FAILED.0 && fault.description.contains("exceeded")
}

fn missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn exists(kind: &CreateStreamErrorKind) -> bool {
    matches!(kind, CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

/// A stream that could not be made or changed: because of what was asked for, or for the moment.
fn refusal(topic: Topic, kind: &CreateStreamErrorKind, error: &dyn std::fmt::Display) -> LogError {
    match kind {
        CreateStreamErrorKind::JetStream(fault) if (400..500).contains(&fault.code()) => {
            LogError::Misconfigured(format!("NATS refuses stream {}: {error}", stream_name(topic)))
        }
        // Insufficient storage and the like: 10047 and 10028 come with 5xx codes and will not pass.
        CreateStreamErrorKind::JetStream(fault) if fault.to_string().contains("insufficient") => {
            LogError::Misconfigured(format!(
                "NATS refuses stream {}: {error} (see ESS_LOG_MAX_BYTES and the server's limits)",
                stream_name(topic)
            ))
        }
        _ => LogError::Unavailable(format!("stream {}: {error}", stream_name(topic))),
    }
}

fn delivery(
    topic: Topic,
    log_id: Uuid,
    client: Client,
    message: jetstream::Message,
) -> Result<Delivery, LogError> {
    let reply = message.reply.clone();
    let (sequence, deliveries, logged_at) = {
        let info = message.info().map_err(away)?;
        let logged_at = i64::try_from(info.published.unix_timestamp_nanos() / 1_000).unwrap_or_default();
        (info.stream_sequence, u64::try_from(info.delivered).unwrap_or(1), logged_at)
    };
    let reply = reply.ok_or_else(|| away("a delivery without an address for its acknowledgement"))?;
    let receipt = Receipt::new(Box::new(Ack { client, reply, deliveries }));
    let frame = message.message.payload;
    Ok(Delivery { topic, log_id, sequence, deliveries, logged_at, frame, receipt })
}

struct Ack {
    client: Client,
    reply: async_nats::Subject,
    deliveries: u64,
}

impl Ack {
    fn body(settlement: Settlement) -> Bytes {
        match settlement {
            Settlement::Ack => Bytes::from_static(b"+ACK"),
            Settlement::Retry(delay) => format!("-NAK {{\"delay\":{}}}", delay.as_nanos()).into(),
        }
    }
}

impl Token for Ack {
    fn settle(&self, settlement: Settlement) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            // A request instead of a publication: the server confirms it.
            let request = Request::new().payload(Self::body(settlement)).timeout(Some(REQUEST_TIMEOUT));
            self.client.send_request(self.reply.clone(), request).await.map(drop).map_err(away)
        })
    }

    fn progress(&self) -> BoxFuture<'static, Result<(), LogError>> {
        let (client, reply) = (self.client.clone(), self.reply.clone());
        Box::pin(async move { client.publish(reply, Bytes::from_static(b"+WPI")).await.map_err(away) })
    }

    fn abandon(&self) {
        // At once the first time, then later and later: a fault that stays must not spin.
        let delay = Duration::from_millis(100) * u32::try_from(self.deliveries.min(50)).unwrap_or(50);
        let (client, reply) = (self.client.clone(), self.reply.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // If this is lost, the server's own wait for the acknowledgement ends it.
                let _ = client.publish(reply, Self::body(Settlement::Retry(delay))).await;
            });
        }
    }
}

impl Log for JetStream {
    fn append(&self, topic: Topic, id: String, frame: Bytes) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(Self::append(self, topic, id, frame))
    }

    fn prepare(&self, topic: Topic) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move { self.declared(topic).await.map(drop) })
    }

    fn pull(&self, topic: Topic, most: usize) -> BoxFuture<'_, Result<Pull, LogError>> {
        Box::pin(Self::pull(self, topic, most))
    }

    fn state(&self, topic: Topic) -> BoxFuture<'_, Result<TopicState, LogError>> {
        Box::pin(Self::state(self, topic))
    }

    fn peek(&self, topic: Topic, sequence: u64) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        Box::pin(Self::peek(self, topic, sequence))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async {
            self.connected()?;
            match tokio::time::timeout(FLUSH_TIMEOUT, self.client.flush()).await {
                Ok(flushed) => flushed.map_err(away),
                Err(_) => Err(away("it was not flushed in time")),
            }
        })
    }
}
