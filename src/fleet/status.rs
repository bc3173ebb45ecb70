//! A process tells of itself: its actors, its readiness, its counters.

use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use prometheus::proto::MetricFamily;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::sample::LEASE;
use crate::log::{Bus, Subject};
use crate::ops::Readiness;
use crate::ops::metrics::ServiceMetrics;
use crate::ops::metrics::catalog::{
    COLLECTOR_DUPLICATE, COLLECTOR_EVENT_AGE, COLLECTOR_PROCESSED, GATEWAY_ACCEPTED, GATEWAY_FAILED,
    GATEWAY_PROCESSED,
};
use crate::runtime::{ActorView, DrainHandle, Phase, Tree};

/// Interval between two messages of a process while somebody looks at the live feed.
const INTERVAL: Duration = Duration::from_secs(1);
/// Interval while nobody looks. A process leaves the board of the reporters after 10 s.
const IDLE_INTERVAL: Duration = Duration::from_secs(4);
/// Largest message. A larger one leaves out the actors below the groups.
const MAX_STATUS_BYTES: usize = 16 * 1_024;
/// Largest text of a failure in a message, in bytes.
const MAX_FAILURE_BYTES: usize = 200;

/// This process: host name and process id.
pub(super) static INSTANCE: LazyLock<String> = LazyLock::new(|| {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String =
        host.trim().chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-').collect();
    format!("{}-{}", if host.is_empty() { "host" } else { &host }, std::process::id())
});

/// Counters of a source in one process, since the process started. A service leaves at 0 what it does not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// The source, or `unknown`.
    pub source: String,
    /// Events that a gateway found valid.
    pub accepted: u64,
    /// Events that a gateway refused.
    pub refused: u64,
    /// Events that a gateway made durable in the log.
    pub logged: u64,
    /// Events that a collector stored.
    pub stored: u64,
    /// Events that the store already had.
    pub duplicates: u64,
}

/// One service of one process, as it is shown.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Name of the service: `gateway`, `reporter`, or `collector.` and its source.
    pub service: String,
    /// Host name and process id.
    pub instance: String,
    /// Version of the program.
    pub version: String,
    /// Time of the start, RFC 3339.
    pub started_at: String,
    /// Port of its listener on its own host; null before it listens.
    #[serde(default)]
    pub port: Option<u16>,
    /// True if the service is ready.
    pub ready: bool,
    /// Reason for which it is not ready.
    pub why: Option<String>,
    /// CPU time of the process in cores: seconds of CPU a second.
    pub cores: f64,
    /// Resident memory of the process, in bytes.
    pub memory_bytes: u64,
    /// The tree of actors, as `/actors` shows it.
    pub actors: Vec<ActorView>,
    /// True if actors were left out because the message would have been too large.
    #[serde(default)]
    pub actors_truncated: bool,
}

/// State and counters of one service of a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The service as it is shown.
    #[serde(flatten)]
    pub instance: Instance,
    /// Counters by source.
    pub counters: Vec<Counters>,
    /// Buckets of the time from acceptance to commit: upper bound in seconds, and number of values up to it.
    pub ages: Vec<(f64, u64)>,
}

impl Status {
    /// The message, at most [`MAX_STATUS_BYTES`] long; `None` if even its shortest form is longer.
    fn message(mut self) -> Option<Bytes> {
        self.instance.actors.iter_mut().for_each(shorten);
        let whole = serde_json::to_vec(&self).ok()?;
        if whole.len() <= MAX_STATUS_BYTES {
            return Some(whole.into());
        }
        self.instance.actors_truncated = true;
        for group in self.instance.actors.iter_mut().flat_map(|service| &mut service.children) {
            group.children.clear();
        }
        let short = serde_json::to_vec(&self).ok()?;
        (short.len() <= MAX_STATUS_BYTES).then(|| short.into())
    }
}

/// Cuts long texts of failures.
fn shorten(node: &mut ActorView) {
    if let Some(failure) = &mut node.last_failure
        && failure.len() > MAX_FAILURE_BYTES
    {
        failure.truncate(failure.floor_char_boundary(MAX_FAILURE_BYTES));
        failure.push('…');
    }
    node.children.iter_mut().for_each(shorten);
}

/// CPU time and memory of this process.
struct Usage {
    at: Instant,
    cpu: f64,
}

impl Usage {
    /// Seconds of CPU time and bytes of memory of this process.
    fn read(families: &[MetricFamily]) -> (f64, u64) {
        let memory = families.iter().find(|family| family.name() == "process_resident_memory_bytes");
        let memory = memory.and_then(|family| family.get_metric().first());
        let memory = memory.map_or(0.0, |metric| metric.get_gauge().get_value());
        // The metric of CPU time has whole seconds, which is too coarse for a rate over one second.
        let cpu = std::fs::read_to_string("/proc/self/stat").ok();
        (cpu.and_then(|stat| cpu_seconds(&stat)).unwrap_or(0.0), memory as u64)
    }
}

/// CPU time in a text as of `/proc/self/stat`: the 14th and 15th field, in hundredths of a second (proc(5)). The second
/// field, in parentheses, may hold any characters.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut times = after.split_ascii_whitespace().skip(11).map(str::parse::<f64>);
    Some((times.next()?.ok()? + times.next()?.ok()?) / 100.0)
}

/// Waits until the next message: a second while a reporter holds a lease, longer while none does. `watched` is the end
/// of the last lease; the first lease after a while ends the wait.
async fn wait(leases: &mut BoxStream<'static, Bytes>, watched: &mut Option<Instant>) {
    let is_watched = |watched: &Option<Instant>| watched.is_some_and(|until| Instant::now() < until);
    let interval = if is_watched(watched) { INTERVAL } else { IDLE_INTERVAL };
    let mut end = std::pin::pin!(tokio::time::sleep(interval));
    loop {
        tokio::select! {
            () = &mut end => return,
            Some(_) = leases.next() => {
                let was_watched = is_watched(watched);
                *watched = Some(Instant::now() + LEASE);
                if !was_watched {
                    return;
                }
            }
        }
    }
}

/// A service that tells of itself.
pub struct Service {
    /// Its tree of actors and tasks.
    pub tree: Arc<Tree>,
    /// Its metrics.
    pub metrics: ServiceMetrics,
    /// State of its dependencies.
    pub readiness: Arc<Readiness>,
    /// Phase of its life.
    pub drain: DrainHandle,
    /// Port of its listener, once it listens.
    pub port: Arc<OnceLock<u16>>,
}

/// Tells of a service until it is dropped: once a second while somebody looks, rarely while nobody does.
pub async fn tell(bus: Bus, service: Service, told: impl Fn()) {
    let Service { tree, metrics, readiness, drain, port } = service;
    let started_at = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let mut leases = bus.subscribe(Subject::Lease).await;
    let (mut before, mut watched): (Option<Usage>, Option<Instant>) = (None, None);
    loop {
        let families = metrics.gather();
        let (cpu, memory_bytes) = Usage::read(&families);
        let now = Instant::now();
        let cores = before.as_ref().map_or(0.0, |usage| {
            (cpu - usage.cpu).max(0.0) / now.duration_since(usage.at).as_secs_f64().max(0.001)
        });
        before = Some(Usage { at: now, cpu });
        let root = tree.view();
        let why = why_not_ready(&tree, &readiness, drain.phase());
        let status = Status {
            instance: Instance {
                service: root.name.clone(),
                instance: INSTANCE.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started_at: started_at.clone(),
                port: port.get().copied(),
                ready: why.is_none(),
                why,
                cores: (cores * 100.0).round() / 100.0,
                memory_bytes,
                actors: vec![root],
                actors_truncated: false,
            },
            counters: counters(&families),
            ages: ages(&families),
        };
        match status.message() {
            Some(message) => bus.publish(Subject::Status, message).await,
            None => tracing::debug!("the status of this process is too large to be sent"),
        }
        told();
        wait(&mut leases, &mut watched).await;
    }
}

/// Reason for which a service is not ready.
fn why_not_ready(tree: &Tree, readiness: &Readiness, phase: Phase) -> Option<String> {
    if phase != Phase::Running {
        return Some("draining".to_owned());
    }
    let mut reasons = tree.faults();
    reasons.extend(readiness.missing().into_iter().map(|(name, why)| format!("{name}: {why}")));
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn counters(families: &[MetricFamily]) -> Vec<Counters> {
    let mut all: Vec<Counters> = Vec::new();
    for family in families {
        let field: fn(&mut Counters) -> &mut u64 = match family.name() {
            name if name == GATEWAY_ACCEPTED.name => |counters| &mut counters.accepted,
            name if name == GATEWAY_FAILED.name => |counters| &mut counters.refused,
            name if name == GATEWAY_PROCESSED.name => |counters| &mut counters.logged,
            name if name == COLLECTOR_PROCESSED.name => |counters| &mut counters.stored,
            name if name == COLLECTOR_DUPLICATE.name => |counters| &mut counters.duplicates,
            _ => continue,
        };
        for metric in family.get_metric() {
            let Some(label) = metric.get_label().iter().find(|label| label.name() == "source") else {
                continue;
            };
            let value = metric.get_counter().get_value() as u64;
            let at = all.iter().position(|known| known.source == label.value()).unwrap_or_else(|| {
                all.push(Counters { source: label.value().to_owned(), ..Counters::default() });
                all.len() - 1
            });
            *field(&mut all[at]) += value;
        }
    }
    all
}

fn ages(families: &[MetricFamily]) -> Vec<(f64, u64)> {
    let family = families.iter().find(|family| family.name() == COLLECTOR_EVENT_AGE.name);
    let Some(metric) = family.and_then(|family| family.get_metric().first()) else { return Vec::new() };
    let histogram = metric.get_histogram();
    let buckets = histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    let mut all: Vec<_> = buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect();
    // JSON has no infinity: the last bucket counts all values at the last bound.
    if let Some(last) = all.last_mut() {
        last.1 = histogram.get_sample_count();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Drain;

    /// Messages that arrive within so many seconds.
    async fn count(statuses: &mut BoxStream<'static, Bytes>, seconds: u64) -> usize {
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut count = 0;
        while let Ok(Some(_)) = tokio::time::timeout_at(end, statuses.next()).await {
            count += 1;
        }
        count
    }

    #[actix::test]
    async fn a_process_tells_once_a_second_while_somebody_looks_and_rarely_while_nobody_does() {
        tokio::time::pause();
        let (bus, drain) = (Bus::local(), Drain::default());
        let mut statuses = bus.subscribe(Subject::Status).await;
        let tree = Tree::new("service", drain.handle());
        let metrics = ServiceMetrics::new(tree.clone());
        let readiness = Arc::new(Readiness::new("service", &[]));
        let service = Service { tree, metrics, readiness, drain: drain.handle(), port: Arc::default() };
        actix::spawn(tell(bus.clone(), service, || ()));
        let idle = count(&mut statuses, 60).await;
        assert!((14..=16).contains(&idle), "{idle} messages in a minute");
        let looks = bus.clone();
        let viewer = actix::spawn(async move {
            loop {
                looks.publish(Subject::Lease, Bytes::new()).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let watched = count(&mut statuses, 20).await;
        assert!((19..=22).contains(&watched), "{watched} messages in 20 s");
        viewer.abort();
        count(&mut statuses, LEASE.as_secs() + 1).await;
        let idle = count(&mut statuses, 60).await;
        assert!((14..=16).contains(&idle), "{idle} messages in a minute");
    }

    #[test]
    fn cpu_time_is_read_whatever_the_program_is_called() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 9 0 123 456 789";
        assert_eq!(cpu_seconds(stat), Some(1.75));
        assert_eq!(cpu_seconds("42 (a) S 1"), None);
        assert!(Usage::read(&[]).0 >= 0.0);
    }
}
