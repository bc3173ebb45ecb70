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

mod answer;
mod connect;
mod look;
mod receipt;
mod topology;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::jetstream;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::{Client, HeaderMap, Request, RequestErrorKind};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::config::{LogSettings, NatsAccess};

use super::{AppendError, Appended, Bus, Log, LogError, LogRole, Pull, Topic, TopicState};
use look::Look;
use topology::{Seen, Topology, log_id, stream_name, subject};

/// How long a frame may be worked on without a word before it is given to another consumer. The
/// collector speaks up every third of it.
pub const ACK_WAIT: Duration = Duration::from_secs(10);
/// Frames that may be out at one time, over all collectors of a source.
const MAX_ACK_PENDING: i64 = 1_000;
/// How long one request to the server may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without an answer to a frame until its stream is looked at: a frame that went to a leader that died is not
/// answered, and is sent again as soon as there is another.
const LEADER_CHECK: Duration = Duration::from_millis(500);
/// Longest wait for changes to a stream, and for its consumer, before a topic counts as prepared.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time until a change that the server refused is asked for again.
const CHANGE_AGAIN: Duration = Duration::from_secs(30);
/// How long the last words may take to reach the server.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a pull waits for frames.
const PULL_EXPIRES: Duration = Duration::from_millis(500);

/// A log in NATS JetStream. The connection comes back by itself.
pub struct JetStream {
    client: Client,
    context: jetstream::Context,
    topology: Arc<Topology>,
    topics: Mutex<HashMap<Topic, Arc<TopicLooks>>>,
    /// Counts the connections. What was seen under an earlier one may be another log's by now.
    connection: watch::Receiver<u64>,
}

/// One topic, as the server was last seen to have it. Topics do not wait for each other.
#[derive(Default)]
struct TopicLooks {
    stream: Look<Seen>,
    settings: Look<bool>,
    consumer: Look<PullConsumer>,
}

impl TopicLooks {
    fn forget(&self) {
        self.stream.forget();
        self.settings.forget();
        self.consumer.forget();
    }
}

fn away(error: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(error.to_string())
}

impl JetStream {
    /// Opens a connection to one of the servers of a comma-separated list; where all are away, it is made in the
    /// background.
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

    fn topic(&self, topic: Topic) -> Arc<TopicLooks> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.entry(topic).or_default().clone()
    }

    /// The connection that there is. Nothing is sent into one that is not there: it would wait, and arrive when
    /// nobody asks for it any more.
    fn connected(&self) -> Result<u64, LogError> {
        let connection = *self.connection.borrow();
        match self.client.connection_state() {
            State::Connected => Ok(connection),
            _ => Err(away("not connected to NATS")),
        }
    }

    /// A topic's stream, as of this connection and not older than `since`.
    async fn stream(
        &self,
        topic: Topic,
        looks: &TopicLooks,
        connection: u64,
        since: Option<Instant>,
    ) -> Result<Seen, LogError> {
        let (topology, client) = (self.topology.clone(), self.client.clone());
        let ask = || async move {
            if let Some(sentence) = connect::too_old(&client) {
                topology.warn_once(("version", None), sentence);
            }
            topology.stream(topic).await
        };
        looks.stream.get(connection, since, ask).await
    }

    /// The consumer of a topic.
    async fn consumer(
        &self,
        topic: Topic,
        looks: &TopicLooks,
        connection: u64,
    ) -> Result<PullConsumer, LogError> {
        let topology = self.topology.clone();
        looks.consumer.get(connection, None, || async move { topology.consumer(topic).await }).await
    }

    async fn prepare(&self, topic: Topic) -> Result<(), LogError> {
        let (connection, looks) = (self.connected()?, self.topic(topic));
        self.stream(topic, &looks, connection, None).await?;
        if self.topology.role == LogRole::Observer {
            return Ok(());
        }
        // Frames need neither. Both go on behind the answer: a cluster that has no meta leader changes nothing, and
        // serves its streams all the same.
        let rest = async {
            self.change(topic, &looks, connection).await?;
            self.consumer(topic, &looks, connection).await.map(drop)
        };
        match tokio::time::timeout(SETTLE_TIMEOUT, rest).await {
            Ok(Err(error @ LogError::Misconfigured(_))) => return Err(error),
            Ok(Err(error)) => tracing::debug!(%topic, %error, "the stream is not settled yet"),
            Ok(Ok(())) | Err(_) => {}
        }
        Ok(())
    }

    /// Brings a stream to the settings; again after a while, where the server refused it.
    async fn change(&self, topic: Topic, looks: &TopicLooks, connection: u64) -> Result<(), LogError> {
        let change = || {
            let topology = self.topology.clone();
            async move { topology.change(topic).await }
        };
        if !looks.settings.get(connection, None, change).await? {
            looks.settings.get(connection, Instant::now().checked_sub(CHANGE_AGAIN), change).await?;
        }
        Ok(())
    }

    /// What NATS says of the account; nothing is made or changed.
    pub async fn ask(&self) -> Result<(), LogError> {
        self.connected()?;
        self.context.query_account().await.map(drop).map_err(away)
    }

    /// Ends when the answer to a frame will not come any more: with the connection on which it was sent, or when
    /// its stream has another leader by now.
    async fn hopeless(&self, topic: Topic, looks: &TopicLooks, connection: u64, seen: &Seen) -> String {
        let mut changes = self.connection.clone();
        let moved = async {
            loop {
                tokio::time::sleep(LEADER_CHECK).await;
                let since = Instant::now().checked_sub(LEADER_CHECK);
                let now = self.stream(topic, looks, connection, since).await;
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
        let unavailable = |error: &dyn std::fmt::Display| AppendError::Unavailable(error.to_string());
        let connection = self.connected().map_err(|error| unavailable(&error))?;
        let looks = self.topic(topic);
        let seen = match self.stream(topic, &looks, connection, None).await {
            Ok(seen) => seen,
            Err(error @ LogError::Misconfigured(_)) => return Err(AppendError::Refused(error.to_string())),
            Err(error) => return Err(unavailable(&error)),
        };
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, id.as_str());
        let request = Request::new().headers(headers).payload(frame).timeout(Some(REQUEST_TIMEOUT));
        let answer = tokio::select! {
            answer = self.client.send_request(subject(topic), request) => answer,
            why = self.hopeless(topic, &looks, connection, &seen) => return Err(unavailable(&why)),
        };
        match answer {
            Ok(answer) => answer::read(&answer.payload, &stream_name(topic), seen.log_id),
            Err(error) => match error.kind() {
                RequestErrorKind::MaxPayloadExceeded => Err(AppendError::Refused(error.to_string())),
                RequestErrorKind::NoResponders => {
                    // It has no leader, or is gone: the next attempt looks first.
                    looks.forget();
                    Err(unavailable(&error))
                }
                _ => Err(unavailable(&error)),
            },
        }
    }

    async fn pull(&self, topic: Topic, most: usize) -> Result<Pull, LogError> {
        let (connection, looks) = (self.connected()?, self.topic(topic));
        let log_id = self.stream(topic, &looks, connection, None).await?.log_id;
        let consumer = self.consumer(topic, &looks, connection).await?;
        let batch = consumer.batch().max_messages(most).expires(PULL_EXPIRES).messages().await;
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                looks.forget();
                return Err(away(error));
            }
        };
        let (client, connections) = (self.client.clone(), self.connection.clone());
        let mut changes = self.connection.clone();
        let lost = async move {
            // A request that went out on a connection before this one is not answered.
            let _ = changes.wait_for(|now| *now != connection).await;
        };
        let deliveries = batch.take_until(Box::pin(lost)).map(move |message| {
            let same = *connections.borrow() == connection;
            let delivery = message
                .map_err(away)
                .and_then(|message| receipt::delivery(topic, log_id, client.clone(), message))
                // Another connection may lead to another log, whose places are not this one's.
                .and_then(|delivery| if same { Ok(delivery) } else { Err(away("the connection changed")) });
            if delivery.is_err() {
                looks.forget();
            }
            delivery
        });
        Ok(deliveries.boxed())
    }

    async fn state(&self, topic: Topic) -> Result<TopicState, LogError> {
        self.connected()?;
        // Asks for the stream by name only: whoever looks on creates nothing.
        let stream = self.context.get_stream_no_info(stream_name(topic)).await.map_err(away)?;
        let info = stream.info_builder().with_deleted(true).fetch().await.map_err(away)?.info;
        let log_id = log_id(&info);
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

    fn bus(&self) -> Bus {
        Bus::Nats(self.client.clone())
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
