//! Streams and consumers: names, settings, and the roles that may create or change them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{
    ClusterInfo, Config, ConsumerErrorKind, DiscardPolicy, Info, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{self, ErrorCode};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::lookup::ask_until_answered;
use super::request::unavailable;
use crate::config::{LogSettings, MAX_STREAMS};
use crate::event::Source;
use crate::log::{Copies, LogError, LogRole, Topic};

/// Time without progress after which a frame is redelivered to another collector. Collectors report progress every
/// third of it.
pub const ACK_WAIT: Duration = Duration::from_secs(10);
/// Maximum number of unacknowledged frames, over all collectors of a source.
const MAX_ACK_PENDING: i64 = 1_000;
/// Key of a stream's metadata with the id of its log.
const LOG_ID: &str = "ess-log-id";

/// Beginning of the names of streams; the name of the topic follows in capital letters.
pub(super) const STREAM_PREFIX: &str = "ESS_";

/// The name of a topic's stream.
pub(super) fn stream_name(topic: Topic) -> String {
    format!("{STREAM_PREFIX}{}", topic.to_string().to_ascii_uppercase().replace('.', "_"))
}

/// The subject of a further stream of a source; of all of them, if `number` is `*`.
pub(super) fn further_subject(source: Source, number: &str) -> String {
    format!("ess.events.{source}.{number}")
}

/// The number of a source's further stream, from the stream's name.
pub(super) fn further_number(source: Source, stream: &str) -> Option<u8> {
    let number = stream.strip_prefix(&stream_name(Topic::Events(source)))?.strip_prefix('_')?.parse().ok()?;
    (2..=MAX_STREAMS).contains(&number).then_some(number)
}

/// The subject of a source's events.
pub(super) fn event_subject(source: &str) -> String {
    format!("ess.events.{source}")
}

/// The subject of a topic.
pub(super) fn subject(topic: Topic) -> String {
    match topic {
        Topic::Events(source) => event_subject(source.name()),
        Topic::Further(source, number) => further_subject(source, &number.to_string()),
        Topic::DeadLetters => "ess.dead_letters".to_owned(),
    }
}

/// The id of the log in a stream. For a stream without one (created by another tool) it is computed from the name and
/// the time of creation, so that all processes get the same.
pub(super) fn log_id(info: &Info) -> Uuid {
    let recorded = info.config.metadata.get(LOG_ID).and_then(|id| id.parse().ok());
    recorded.unwrap_or_else(|| {
        let mut hash = Sha256::new();
        hash.update(&info.config.name);
        hash.update(info.created.unix_timestamp_nanos().to_be_bytes());
        let mut id = [0; 16];
        id.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
        uuid::Builder::from_custom_bytes(id).into_uuid()
    })
}

/// Copies of a stream, as its leader sees them.
pub(super) fn copies(config: &Config, cluster: &ClusterInfo) -> Copies {
    let behind = cluster.replicas.iter().filter(|replica| !replica.current || replica.offline);
    let behind = behind.map(|replica| match (replica.offline, replica.lag) {
        (true, _) => format!("{} is away", replica.name),
        (false, Some(lag)) => format!("{} is {lag} operations behind", replica.name),
        (false, None) => format!("{} is behind", replica.name),
    });
    Copies { wanted: config.num_replicas, leader: cluster.leader.clone(), behind: behind.collect() }
}

/// Identity and leader of a stream at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamState {
    pub log_id: Uuid,
    /// Leader of the stream in a cluster, and the time of its election in nanoseconds since 1970.
    pub leader: Option<(String, Option<i128>)>,
}

impl StreamState {
    /// True if this is another log than `before`, or has another leader. The server's answer to the creation of a stream
    /// may lack the leader, which is then unknown.
    pub fn moved_since(&self, before: &Self) -> bool {
        let leaders = self.leader.as_ref().zip(before.leader.as_ref());
        self.log_id != before.log_id || leaders.is_some_and(|(now, then)| now != then)
    }

    fn of(info: &Info) -> Self {
        let leader = info.cluster.as_ref().and_then(|cluster| {
            let since = cluster.leader_since.as_ref().map(|since| since.unix_timestamp_nanos());
            Some((cluster.leader.clone()?, since))
        });
        Self { log_id: log_id(info), leader }
    }
}

/// Creates and changes streams and consumers, as far as the role of the process allows.
pub(super) struct Topology {
    pub context: jetstream::Context,
    pub settings: LogSettings,
    pub role: LogRole,
    /// The last warning of each kind; it is logged again only when its text changes.
    warned: Mutex<HashMap<(&'static str, Option<Topic>), String>>,
}

impl Topology {
    pub fn new(context: jetstream::Context, settings: LogSettings, role: LogRole) -> Self {
        Self { context, settings, role, warned: Mutex::default() }
    }

    /// Logs a warning, unless it is the last one of its kind.
    pub fn warn_once(&self, about: (&'static str, Option<Topic>), sentence: String) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.get(&about) != Some(&sentence) {
            tracing::warn!("{sentence}");
            warned.insert(about, sentence);
        }
    }

    fn wanted(&self, topic: Topic) -> Config {
        Config {
            name: stream_name(topic),
            description: Some("written by ESS gateways, collected by ESS collectors".to_owned()),
            subjects: vec![subject(topic)],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            max_bytes: i64::try_from(self.settings.topic_max_bytes(topic)).unwrap_or(i64::MAX),
            max_age: self.settings.max_age.unwrap_or_default(),
            duplicate_window: self.settings.duplicate_window,
            num_replicas: self.settings.replicas,
            allow_direct: true,
            metadata: HashMap::from([(LOG_ID.to_owned(), Uuid::new_v4().to_string())]),
            ..Config::default()
        }
    }

    /// The stream's state; `None` where there is no stream.
    async fn find(&self, topic: Topic) -> Result<Option<Info>, LogError> {
        let name = stream_name(topic);
        ask_until_answered(|| async {
            match self.context.get_stream(&name).await {
                Ok(stream) => Ok(Some(stream.cached_info().clone())),
                Err(error) if missing(&error.kind()) => Ok(None),
                Err(error) => Err(unavailable(error)),
            }
        })
        .await
    }

    /// Finds the stream of a topic; creates it if the role allows that.
    pub async fn stream(&self, topic: Topic) -> Result<StreamState, LogError> {
        let wanted = self.wanted(topic);
        let info = match self.find(topic).await? {
            Some(info) => info,
            None if !self.creates(topic) => {
                return Err(unavailable(format!("there is no stream {}: a gateway creates it", wanted.name)));
            }
            None => self.create(topic, wanted.clone()).await?,
        };
        check_fixed(&info.config, &wanted)?;
        if self.role != LogRole::Gateway {
            let differs = differences(&wanted, &info.config);
            if !differs.is_empty() {
                let sentence = format!(
                    "stream {} differs from this process's settings: {differs}; only a gateway changes it",
                    wanted.name
                );
                self.warn_once(("settings", Some(topic)), sentence);
            }
        }
        Ok(StreamState::of(&info))
    }

    /// True if the role allows to create the stream. Gateways alone say how many streams a source has, and know whether
    /// one that is not built in is declared.
    fn creates(&self, topic: Topic) -> bool {
        match self.role {
            LogRole::Gateway => true,
            LogRole::Collector => match topic {
                Topic::Events(source) => source.is_built_in(),
                Topic::Further(..) => false,
                Topic::DeadLetters => true,
            },
            LogRole::Observer => false,
        }
    }

    async fn create(&self, topic: Topic, wanted: Config) -> Result<Info, LogError> {
        let name = wanted.name.clone();
        match self.context.create_stream(wanted).await {
            Ok(stream) => Ok(stream.cached_info().clone()),
            // Another process created the stream meanwhile.
            Err(error) if exists(&error.kind()) => self
                .find(topic)
                .await?
                .ok_or_else(|| unavailable(format!("stream {name} was created and deleted meanwhile"))),
            Err(error) => Err(refusal(topic, &error.kind(), &error)),
        }
    }

    /// Applies the settings to an existing stream, but never reduces its replicas, or its size below the bytes in use.
    /// Returns false if the server refuses the change; this is logged, and the stream is used unchanged.
    pub async fn change(&self, topic: Topic) -> Result<bool, LogError> {
        if self.role != LogRole::Gateway {
            return Ok(true);
        }
        let Some(found) = self.find(topic).await? else {
            return Err(unavailable(format!("stream {} is gone", stream_name(topic))));
        };
        let wanted = self.wanted(topic);
        check_fixed(&found.config, &wanted)?;
        let planned = planned(&wanted, &found);
        let kept = differences(&wanted, &planned);
        if !kept.is_empty() {
            let sentence = format!(
                "stream {} is not reduced to the settings: {kept}; replicas and space in use are never removed \
                 (`nats stream edit` removes replicas)",
                wanted.name
            );
            self.warn_once(("settings", Some(topic)), sentence);
        }
        let changes = differences(&planned, &found.config);
        if changes.is_empty() && planned.metadata == found.config.metadata {
            return Ok(true);
        }
        match self.context.update_stream(&planned).await {
            Ok(_) => {
                tracing::info!(stream = planned.name, changes, "the settings of the stream were changed");
                Ok(true)
            }
            Err(error) => {
                let why = refusal(topic, &error.kind(), &error);
                let sentence = format!("stream {} is used unchanged ({changes}): {why}", planned.name);
                self.warn_once(("change", Some(topic)), sentence);
                Ok(false)
            }
        }
    }

    /// Finds the consumer that all collectors of a topic share. Creates it, or applies the settings of this version of
    /// ESS, if the role allows that.
    pub async fn consumer(&self, topic: Topic) -> Result<PullConsumer, LogError> {
        let (stream, wanted) = (stream_name(topic), consumer_config(topic));
        let name = wanted.durable_name.clone().unwrap_or_default();
        let found = ask_until_answered(|| async {
            match self.context.get_consumer_from_stream::<pull::Config, _, _>(&name, &stream).await {
                Ok(consumer) => Ok(Some(consumer)),
                Err(error) => match error.kind() {
                    ConsumerErrorKind::JetStream(error)
                        if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND =>
                    {
                        Ok(None)
                    }
                    _ => Err(unavailable(error)),
                },
            }
        });
        let found = found.await?;
        match found {
            Some(consumer) if self.role == LogRole::Observer || serves(&consumer, &wanted) => Ok(consumer),
            None if self.role == LogRole::Observer => {
                Err(unavailable(format!("stream {stream} has no consumer {name}: a collector creates it")))
            }
            found => {
                // The server may not find a stream that was created just before.
                let made = ask_until_answered(|| async {
                    self.context.create_consumer_on_stream(wanted.clone(), &stream).await.map_err(unavailable)
                });
                match (made.await, found) {
                    (Ok(consumer), _) => Ok(consumer),
                    (Err(error), Some(consumer)) => {
                        let sentence = format!("consumer {name} is used unchanged: {error}");
                        self.warn_once(("consumer", Some(topic)), sentence);
                        Ok(consumer)
                    }
                    (Err(error), None) => Err(unavailable(format!("consumer of {stream}: {error}"))),
                }
            }
        }
    }
}

fn consumer_config(topic: Topic) -> pull::Config {
    pull::Config {
        // A name of NATS has no dot.
        durable_name: Some(format!("collector-{topic}").replace('.', "-")),
        description: Some("shared by all collectors of the topic".to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: MAX_ACK_PENDING,
        ..pull::Config::default()
    }
}

/// True if a consumer has the settings that ESS relies on.
fn serves(found: &PullConsumer, wanted: &pull::Config) -> bool {
    let config = &found.cached_info().config;
    config.ack_policy == wanted.ack_policy
        && config.ack_wait == wanted.ack_wait
        && config.max_deliver == wanted.max_deliver
        && config.max_ack_pending == wanted.max_ack_pending
}

/// Checks the settings of a stream that cannot be changed.
///
/// # Errors
///
/// If one of them differs.
fn check_fixed(found: &Config, wanted: &Config) -> Result<(), LogError> {
    let fixed = [
        ("retention", format!("{:?}", found.retention), format!("{:?}", wanted.retention)),
        ("storage", format!("{:?}", found.storage), format!("{:?}", wanted.storage)),
        ("subjects", found.subjects.join(","), wanted.subjects.join(",")),
    ];
    match fixed.into_iter().find(|(_, is, should)| is != should) {
        None => Ok(()),
        Some((what, is, should)) => Err(LogError::Misconfigured(format!(
            "stream {} has {what} {is}, and ESS needs {should}, which cannot be changed on a stream that \
             exists: collect what it holds, delete it, and start again",
            found.name
        ))),
    }
}

/// The settings that a gateway applies to an existing stream.
fn planned(wanted: &Config, found: &Info) -> Config {
    let held = i64::try_from(found.state.bytes).unwrap_or(i64::MAX);
    let mut planned = found.config.clone();
    planned.metadata.insert(LOG_ID.to_owned(), log_id(found).to_string());
    planned.num_replicas = planned.num_replicas.max(wanted.num_replicas);
    if wanted.max_bytes >= held {
        planned.max_bytes = wanted.max_bytes;
    }
    planned.max_age = wanted.max_age;
    planned.duplicate_window = wanted.duplicate_window;
    planned.discard = wanted.discard;
    planned.allow_direct = true;
    planned
}

/// Differences between two configurations of a stream, as text; empty if there is none.
fn differences(wanted: &Config, found: &Config) -> String {
    let show = |time: Duration| humantime::format_duration(time).to_string();
    let size = |bytes: i64| match u64::try_from(bytes) {
        Ok(bytes) => bytesize::ByteSize(bytes).to_string(),
        Err(_) => "no limit".to_owned(),
    };
    let settings = [
        ("replicas", wanted.num_replicas.to_string(), found.num_replicas.to_string()),
        ("max_bytes", size(wanted.max_bytes), size(found.max_bytes)),
        ("max_age", show(wanted.max_age), show(found.max_age)),
        ("duplicate_window", show(wanted.duplicate_window), show(found.duplicate_window)),
        ("discard", format!("{:?}", wanted.discard), format!("{:?}", found.discard)),
        ("allow_direct", wanted.allow_direct.to_string(), found.allow_direct.to_string()),
    ];
    let differs = settings.into_iter().filter(|(_, wanted, found)| wanted != found);
    let differs = differs.map(|(name, wanted, found)| format!("{name} is {found}, settings say {wanted}"));
    differs.collect::<Vec<_>>().join(", ")
}

fn missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn exists(kind: &CreateStreamErrorKind) -> bool {
    matches!(kind, CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

/// Error of a refused creation or change of a stream: `Misconfigured` if it is permanent, else `Unavailable`.
fn refusal(topic: Topic, kind: &CreateStreamErrorKind, error: &dyn std::fmt::Display) -> LogError {
    match kind {
        CreateStreamErrorKind::JetStream(fault) if (400..500).contains(&fault.code()) => {
            LogError::Misconfigured(format!("NATS refuses stream {}: {error}", stream_name(topic)))
        }
        // Insufficient resources (10047, 10028) have 5xx codes, but are permanent.
        CreateStreamErrorKind::JetStream(fault) if fault.to_string().contains("insufficient") => {
            LogError::Misconfigured(format!(
                "NATS refuses stream {}: {error} (see ESS_LOG_MAX_BYTES and the server's limits)",
                stream_name(topic)
            ))
        }
        _ => unavailable(format!("stream {}: {error}", stream_name(topic))),
    }
}
