//! The log in NATS JetStream.
//!
//! Each topic has a stream and one durable pull consumer. The first process that needs them creates them:
//!
//! | topic | stream | subject | consumer | when full |
//! |---|---|---|---|---|
//! | a source's events | `ESS_<SOURCE>` | `ess.events.<source>` | `collector-<source>` | refuses the new |
//! | its further streams, from 2 (`ESS_LOG_STREAMS`) | `ESS_<SOURCE>_2` | `ess.events.<source>.2` | `collector-<source>-2` | refuses the new |
//! | dead letters | `ESS_DEAD_LETTERS` | `ess.dead_letters` | `collector-dead_letters` | drops the oldest |
//!
//! Retention is *work queue*: a message is deleted when it is acknowledged. The number of deliveries is unlimited.
//! Subjects do not contain event types, because these contain dots.

mod answer;
mod connect;
mod lookup;
mod receipt;
mod request;
mod topology;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::jetstream;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::response::Response;
use async_nats::{Client, HeaderMap, Request, RequestErrorKind};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::watch;

use crate::config::{LogSettings, NatsAccess};
use crate::event::Source;
use crate::source::MAX_DECLARED;

use super::{
    AppendError, Appended, Bus, Cause, Log, LogError, LogRole, MAX_GONE, Pull, Runs, Topic, TopicState,
};
use lookup::Lookup;
use request::{REQUEST_TIMEOUT, not_appended, unavailable};
pub use topology::ACK_WAIT;
use topology::{
    STREAM_PREFIX, StreamState, Topology, event_subject, further_number, further_subject, log_id,
    stream_name, subject,
};

/// Time without an answer to a frame after which its stream is checked. A leader that died does not answer; the frame
/// is sent again as soon as there is a new one.
const LEADER_CHECK: Duration = Duration::from_millis(500);
/// Longest wait for changes to a stream, and for its consumer, before a topic counts as prepared.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time until a change that the server refused is requested again.
const CHANGE_RETRY: Duration = Duration::from_secs(30);
/// Time limit for the last messages to reach the server.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for which a pull waits for frames.
const PULL_EXPIRES: Duration = Duration::from_millis(500);

/// A log in NATS JetStream. The client reconnects by itself.
pub struct JetStream {
    client: Client,
    context: jetstream::Context,
    topology: Arc<Topology>,
    topics: Mutex<HashMap<Topic, Arc<TopicCache>>>,
    /// Number of the connection. Another connection may lead to a server with another log, so cached values are valid
    /// for one connection only.
    connection: watch::Receiver<u64>,
}

/// Cached state of one topic on the server. Topics do not wait for each other.
#[derive(Default)]
struct TopicCache {
    stream: Lookup<StreamState>,
    settings: Lookup<bool>,
    consumer: Lookup<PullConsumer>,
}

impl TopicCache {
    fn forget(&self) {
        self.stream.forget();
        self.settings.forget();
        self.consumer.forget();
    }
}

impl JetStream {
    /// Connects to one of the servers of a comma-separated list; if none answers, in the background.
    ///
    /// # Errors
    ///
    /// If a URL or one of the files is wrong.
    pub async fn connect(
        urls: &str,
        name: &str,
        settings: LogSettings,
        access: &NatsAccess,
        role: LogRole,
    ) -> Result<Self, LogError> {
        let (client, connection) = connect::connect(urls, name, access).await?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(REQUEST_TIMEOUT);
        let topology = Arc::new(Topology::new(context.clone(), settings, role));
        Ok(Self { client, context, topology, topics: Mutex::default(), connection })
    }

    fn topic(&self, topic: Topic) -> Arc<TopicCache> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.entry(topic).or_default().clone()
    }

    /// The number of the current connection; an error while there is none. Nothing is sent then: the client would queue
    /// it, and deliver it after its caller has given up.
    fn connected(&self) -> Result<u64, LogError> {
        let connection = *self.connection.borrow();
        match self.client.connection_state() {
            State::Connected => Ok(connection),
            _ => Err(unavailable("not connected to NATS")),
        }
    }

    /// A topic's stream, read on this connection and not before `since`.
    async fn stream(
        &self,
        topic: Topic,
        cache: &TopicCache,
        connection: u64,
        since: Option<Instant>,
    ) -> Result<StreamState, LogError> {
        let (topology, client) = (self.topology.clone(), self.client.clone());
        let ask = || async move {
            if let Some(sentence) = connect::too_old(&client) {
                topology.warn_once(("version", None), sentence);
            }
            topology.stream(topic).await
        };
        cache.stream.get(connection, since, ask).await
    }

    /// The consumer of a topic.
    async fn consumer(
        &self,
        topic: Topic,
        cache: &TopicCache,
        connection: u64,
    ) -> Result<PullConsumer, LogError> {
        let topology = self.topology.clone();
        cache.consumer.get(connection, None, || async move { topology.consumer(topic).await }).await
    }

    async fn prepare(&self, topic: Topic) -> Result<(), LogError> {
        let (connection, cache) = (self.connected()?, self.topic(topic));
        self.stream(topic, &cache, connection, None).await?;
        if self.topology.role == LogRole::Observer {
            return Ok(());
        }
        // Appending needs neither. Both continue after the time limit: a cluster without a meta leader cannot change
        // anything, but serves its streams.
        let rest = async {
            self.change(topic, &cache, connection).await?;
            self.consumer(topic, &cache, connection).await.map(drop)
        };
        match tokio::time::timeout(SETTLE_TIMEOUT, rest).await {
            Ok(Err(error @ LogError::Misconfigured(_))) => return Err(error),
            Ok(Err(error)) => tracing::debug!(%topic, %error, "the stream is not settled yet"),
            Ok(Ok(())) | Err(_) => {}
        }
        Ok(())
    }

    /// Applies the settings to a stream; tries again after a while if the server refused them.
    async fn change(&self, topic: Topic, cache: &TopicCache, connection: u64) -> Result<(), LogError> {
        let change = || {
            let topology = self.topology.clone();
            async move { topology.change(topic).await }
        };
        if !cache.settings.get(connection, None, change).await? {
            cache.settings.get(connection, Instant::now().checked_sub(CHANGE_RETRY), change).await?;
        }
        Ok(())
    }

    /// Number of servers of the cluster that the connection is to; 1 if it is to none, or to one whose servers do not
    /// tell clients of each other.
    pub fn servers(&self) -> usize {
        self.client.server_info().connect_urls.len().max(1)
    }

    /// Checks that JetStream answers; creates and changes nothing.
    ///
    /// # Errors
    ///
    /// If there is no connection, or JetStream does not answer.
    pub async fn ask(&self) -> Result<(), LogError> {
        self.connected()?;
        self.context.query_account().await.map(drop).map_err(unavailable)
    }

    /// Completes when the answer to a frame will not arrive, because its connection was lost or its stream has a new
    /// leader; returns the reason.
    async fn answer_lost(
        &self,
        topic: Topic,
        cache: &TopicCache,
        connection: u64,
        seen: &StreamState,
    ) -> String {
        let mut changes = self.connection.clone();
        let moved = async {
            loop {
                tokio::time::sleep(LEADER_CHECK).await;
                let since = Instant::now().checked_sub(LEADER_CHECK);
                let now = self.stream(topic, cache, connection, since).await;
                if now.is_ok_and(|now| now.moved_since(seen)) {
                    return;
                }
            }
        };
        tokio::select! {
            _ = changes.wait_for(|now| *now != connection) => "the connection to NATS was lost".to_owned(),
            () = moved => format!("{} has another leader", stream_name(topic)),
        }
    }

    async fn append(&self, topic: Topic, id: String, frame: Bytes) -> Result<Appended, AppendError> {
        let connection = self.connected().map_err(not_appended)?;
        let cache = self.topic(topic);
        let seen = match self.stream(topic, &cache, connection, None).await {
            Ok(seen) => seen,
            Err(error @ LogError::Misconfigured(_)) => return Err(AppendError::Refused(Cause::of(error))),
            Err(error) => return Err(not_appended(error)),
        };
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, id.as_str());
        let request = Request::new().headers(headers).payload(frame).timeout(Some(REQUEST_TIMEOUT));
        let answer = tokio::select! {
            answer = self.client.send_request(subject(topic), request) => answer,
            why = self.answer_lost(topic, &cache, connection, &seen) => return Err(not_appended(why)),
        };
        match answer {
            Ok(answer) => answer::read(&answer.payload, &stream_name(topic), seen.log_id),
            Err(error) => match error.kind() {
                RequestErrorKind::MaxPayloadExceeded => Err(AppendError::Refused(Cause::of(error))),
                RequestErrorKind::NoResponders => {
                    // The stream has no leader, or is gone: the next attempt reads it again.
                    cache.forget();
                    Err(not_appended(error))
                }
                _ => Err(not_appended(error)),
            },
        }
    }

    async fn pull(&self, topic: Topic, most: usize) -> Result<Pull, LogError> {
        let (connection, cache) = (self.connected()?, self.topic(topic));
        let log_id = self.stream(topic, &cache, connection, None).await?.log_id;
        let consumer = self.consumer(topic, &cache, connection).await?;
        let batch = consumer.batch().max_messages(most).expires(PULL_EXPIRES).messages().await;
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                cache.forget();
                return Err(unavailable(error));
            }
        };
        let (client, connections) = (self.client.clone(), self.connection.clone());
        let mut changes = self.connection.clone();
        let lost = async move {
            // A request of an earlier connection is not answered.
            let _ = changes.wait_for(|now| *now != connection).await;
        };
        let deliveries = batch.take_until(Box::pin(lost)).map(move |message| {
            let same = *connections.borrow() == connection;
            let delivery = message
                .map_err(unavailable)
                .and_then(|message| receipt::delivery(topic, log_id, client.clone(), message))
                // Another connection may lead to another log with other sequence numbers.
                .and_then(
                    |delivery| if same { Ok(delivery) } else { Err(unavailable("the connection changed")) },
                );
            if delivery.is_err() {
                cache.forget();
            }
            delivery
        });
        Ok(deliveries.boxed())
    }

    async fn state(&self, topic: Topic) -> Result<TopicState, LogError> {
        self.connected()?;
        // Reads the stream and creates nothing, because observers call this.
        let stream = self.context.get_stream_no_info(stream_name(topic)).await.map_err(unavailable)?;
        let mut info = stream.info_builder().fetch().await.map_err(unavailable)?.info;
        let gone = match info.state.deleted_count.unwrap_or(0) {
            0 => Some(Runs::default()),
            more if more > MAX_GONE => None,
            _ => {
                info = stream.info_builder().with_deleted(true).fetch().await.map_err(unavailable)?.info;
                Some(info.state.deleted.take().into_iter().flatten().collect())
            }
        };
        let log_id = log_id(&info);
        Ok(TopicState {
            log_id,
            first: info.state.first_sequence.max(1),
            last: info.state.last_sequence,
            held: info.state.messages,
            gone,
            bytes: info.state.bytes,
            max_bytes: u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX),
            acknowledged: HashMap::new(),
            copies: info.cluster.as_ref().map(|cluster| topology::copies(&info.config, cluster)),
        })
    }

    async fn peek(&self, topic: Topic, sequence: u64) -> Result<Option<Bytes>, LogError> {
        use async_nats::jetstream::stream::RawMessageErrorKind;
        self.connected()?;
        let stream = self.context.get_stream_no_info(stream_name(topic)).await.map_err(unavailable)?;
        match stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message.payload)),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }
}

/// Names of streams, as JetStream lists them.
#[derive(serde::Deserialize)]
struct StreamNames {
    #[serde(default)]
    streams: Option<Vec<String>>,
}

impl JetStream {
    async fn streams(&self, source: Source) -> Result<Vec<Topic>, LogError> {
        self.connected()?;
        let filter = serde_json::json!({"subject": further_subject(source, "*")});
        let listed: Response<StreamNames> =
            self.context.request("STREAM.NAMES", &filter).await.map_err(unavailable)?;
        let names = match listed {
            Response::Ok(names) => names.streams.unwrap_or_default(),
            Response::Err { error } => return Err(unavailable(error)),
        };
        let mut numbers: Vec<u8> = names.iter().filter_map(|name| further_number(source, name)).collect();
        numbers.sort_unstable();
        let further = numbers.into_iter().map(|number| Topic::Further(source, number));
        Ok([Topic::Events(source)].into_iter().chain(further).collect())
    }

    /// Names of the sources whose streams there are. A stream of another tool has another subject.
    async fn topics(&self) -> Result<Vec<String>, LogError> {
        self.connected()?;
        let mut streams = self.context.stream_names();
        let mut names = Vec::new();
        while let Some(stream) = streams.try_next().await.map_err(unavailable)? {
            let name = stream.strip_prefix(STREAM_PREFIX).map(str::to_ascii_lowercase);
            let Some(name) = name.filter(|name| *name != Topic::DeadLetters.to_string()) else { continue };
            let is_known = Source::parse(&name).is_some();
            if is_known || names.len() < 2 * MAX_DECLARED && self.is_topic(&stream, &name).await? {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// True if a stream has the subject of a source of this name.
    async fn is_topic(&self, stream: &str, name: &str) -> Result<bool, LogError> {
        let found = self.context.get_stream(stream).await.map_err(unavailable)?;
        Ok(found.cached_info().config.subjects == [event_subject(name)])
    }
}

impl Log for JetStream {
    fn append(&self, topic: Topic, id: String, frame: Bytes) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(Self::append(self, topic, id, frame))
    }

    fn prepare(&self, topic: Topic) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(Self::prepare(self, topic))
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

    fn streams(&self, source: Source) -> BoxFuture<'_, Result<Vec<Topic>, LogError>> {
        Box::pin(Self::streams(self, source))
    }

    fn streams_per_source(&self) -> usize {
        self.topology.settings.streams
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<String>, LogError>> {
        Box::pin(Self::topics(self))
    }

    fn bus(&self) -> Bus {
        Bus::Nats(self.client.clone())
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async {
            self.connected()?;
            match tokio::time::timeout(FLUSH_TIMEOUT, self.client.flush()).await {
                Ok(flushed) => flushed.map_err(unavailable),
                Err(_) => Err(unavailable("the last messages were not flushed in time")),
            }
        })
    }
}
