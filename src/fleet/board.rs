//! The board of a reporter: the newest status of each process, and what flows between two looks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::latency::Latency;
use super::status::{Counters, Instance, Status};

/// Time after which a process that is silent leaves the board.
const SILENCE: Duration = Duration::from_secs(10);
/// Processes that the board keeps.
const MAX_INSTANCES: usize = 512;
/// Time over which latencies are told.
const LATENCY_SPAN: Duration = Duration::from_secs(10);

/// Flow of a source's events, in events a second, and its events that are not stored yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceFlow {
    /// The source, or `unknown`.
    pub source: String,
    /// Events that came in.
    pub received: f64,
    /// Events that were valid.
    pub accepted: f64,
    /// Events that were refused.
    pub refused: f64,
    /// Events made durable in the log.
    pub logged: f64,
    /// Events stored.
    pub stored: f64,
    /// Events that the store already had.
    pub duplicates: f64,
    /// Events in the log that are not stored yet; null if it is not known.
    pub in_flight: Option<u64>,
    /// Published events that neither the log nor the store has; null if it is not known.
    pub missing: Option<u64>,
    /// Bytes that the log holds; null if it is not known.
    pub log_bytes: Option<u64>,
    /// Bytes that the log may hold; null if it is not known.
    pub log_max_bytes: Option<u64>,
}

/// Flow of all sources at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// Time of the look, RFC 3339.
    pub at: String,
    /// Each source.
    pub sources: Vec<SourceFlow>,
    /// Seconds from acceptance to commit; null if nothing was committed in the last 10 s.
    pub post_to_row: Option<Latency>,
}

/// A service, and the time since it was heard of.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KnownInstance {
    /// The service as it told of itself.
    #[serde(flatten)]
    pub instance: Instance,
    /// Seconds since its last message; one is due each second while somebody looks at the feed.
    pub silent_seconds: f64,
}

struct Entry {
    status: Status,
    heard: Instant,
    /// Counters at the last look, and when they were heard.
    looked: Option<(Instant, Vec<Counters>)>,
    /// Buckets of latency at former times, the oldest first.
    ages: Vec<(Instant, Vec<(f64, u64)>)>,
}

/// The newest status of each service of each process.
#[derive(Default)]
pub struct Board {
    entries: BTreeMap<(String, String), Entry>,
}

impl Board {
    /// Takes a status. One more process than the board keeps is left out.
    pub fn note(&mut self, status: Status, now: Instant) {
        let key = (status.instance.service.clone(), status.instance.instance.clone());
        if let Some(known) = self.entries.get_mut(&key) {
            if known.status.instance.started_at != status.instance.started_at {
                // The process was started again: its counters begin at 0.
                known.looked = Some((known.heard, Vec::new()));
                known.ages.clear();
            }
            known.ages.push((now, status.ages.clone()));
            known.ages.retain(|(at, _)| now.duration_since(*at) <= LATENCY_SPAN);
            known.status = status;
            known.heard = now;
        } else if self.entries.len() < MAX_INSTANCES {
            let ages = vec![(now, status.ages.clone())];
            self.entries.insert(key, Entry { status, heard: now, looked: None, ages });
        }
    }

    /// Forgets processes that are silent.
    pub fn forget(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now.duration_since(entry.heard) < SILENCE);
    }

    /// Services that were heard of in the last 10 s, by name.
    pub fn instances(&self, now: Instant) -> impl Iterator<Item = KnownInstance> {
        self.entries.values().map(move |entry| KnownInstance {
            instance: entry.status.instance.clone(),
            silent_seconds: (now.duration_since(entry.heard).as_secs_f64() * 10.0).round() / 10.0,
        })
    }

    /// Rates since the last look, and the latencies of the last 10 s.
    pub fn look(&mut self) -> (Vec<SourceFlow>, Option<Latency>) {
        let mut flows: BTreeMap<String, SourceFlow> = BTreeMap::new();
        let mut ages: Vec<(f64, u64)> = Vec::new();
        for entry in self.entries.values_mut() {
            let counters = &entry.status.counters;
            for of in counters {
                flows
                    .entry(of.source.clone())
                    .or_insert_with(|| SourceFlow { source: of.source.clone(), ..SourceFlow::default() });
            }
            if let Some((at, before)) = &entry.looked {
                let seconds = entry.heard.duration_since(*at).as_secs_f64();
                if seconds > 0.0 {
                    counters.iter().for_each(|of| add(&mut flows, of, before, seconds));
                }
            }
            entry.looked = Some((entry.heard, counters.clone()));
            if let Some((_, oldest)) = entry.ages.first() {
                grow(&mut ages, oldest, &entry.status.ages);
            }
        }
        // Events of no known source are told only if there are any.
        flows.retain(|source, flow| source != crate::ops::metrics::UNKNOWN_SOURCE || flow.refused > 0.0);
        (flows.into_values().collect(), Latency::of(&ages))
    }
}

/// Adds to a source's flow what a process has counted since.
fn add(flows: &mut BTreeMap<String, SourceFlow>, now: &Counters, before: &[Counters], seconds: f64) {
    let none = Counters::default();
    let before = before.iter().find(|known| known.source == now.source).unwrap_or(&none);
    let rate = |field: fn(&Counters) -> u64| field(now).saturating_sub(field(before)) as f64 / seconds;
    if let Some(flow) = flows.get_mut(&now.source) {
        flow.accepted += rate(|counters| counters.accepted);
        flow.refused += rate(|counters| counters.refused);
        flow.received = flow.accepted + flow.refused;
        flow.logged += rate(|counters| counters.logged);
        flow.stored += rate(|counters| counters.stored);
        flow.duplicates += rate(|counters| counters.duplicates);
    }
}

/// Adds to buckets what those of a process have grown by.
fn grow(all: &mut Vec<(f64, u64)>, before: &[(f64, u64)], now: &[(f64, u64)]) {
    if all.is_empty() {
        all.extend(now.iter().map(|(bound, _)| (*bound, 0)));
    }
    for ((sum, (_, before)), (_, now)) in all.iter_mut().zip(before).zip(now) {
        sum.1 += now.saturating_sub(*before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(service: &str, started_at: &str, accepted: u64, ages: &[(f64, u64)]) -> Status {
        Status {
            instance: Instance {
                service: service.to_owned(),
                instance: "host-1".to_owned(),
                version: "0.2.0".to_owned(),
                started_at: started_at.to_owned(),
                port: Some(3_000),
                ready: true,
                why: None,
                cores: 0.0,
                memory_bytes: 0,
                actors: Vec::new(),
                actors_truncated: false,
            },
            counters: vec![Counters { source: "facebook".to_owned(), accepted, ..Counters::default() }],
            ages: ages.to_vec(),
        }
    }

    #[test]
    fn rates_are_what_counters_grew_by_since_the_last_look() {
        let mut board = Board::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        board.note(status("gateway", "a", 1_000, &[]), at(0));
        assert_eq!(board.look().0[0].accepted, 0.0, "nothing is known of before");
        board.note(status("gateway", "a", 1_500, &[]), at(1));
        board.note(status("gateway", "a", 2_000, &[]), at(2));
        assert_eq!(board.look().0[0].received, 500.0);
        assert_eq!(board.look().0[0].received, 0.0, "no newer status");
    }

    #[test]
    fn a_process_that_was_started_again_counts_from_zero() {
        let mut board = Board::default();
        let start = Instant::now();
        board.note(status("gateway", "a", 1_000, &[]), start);
        board.look();
        board.note(status("gateway", "b", 300, &[]), start + Duration::from_secs(2));
        assert_eq!(board.look().0[0].accepted, 150.0);
    }

    #[test]
    fn a_silent_process_leaves_the_board() {
        let mut board = Board::default();
        let start = Instant::now();
        board.note(status("gateway", "a", 0, &[]), start);
        board.note(status("reporter", "a", 0, &[]), start + Duration::from_secs(5));
        let end = start + Duration::from_secs(11);
        board.forget(end);
        let left: Vec<_> =
            board.instances(end).map(|one| (one.instance.service, one.silent_seconds)).collect();
        assert_eq!(left, [("reporter".to_owned(), 6.0)]);
    }

    #[test]
    fn latencies_are_those_of_the_last_seconds_of_all_processes() {
        let mut board = Board::default();
        let start = Instant::now();
        for (seconds, count) in [(0, 100), (30, 100), (31, 200)] {
            for service in ["collector.facebook", "collector.tiktok"] {
                let ages = [(0.01, count / 2), (0.1, count)];
                board.note(status(service, "a", 0, &ages), start + Duration::from_secs(seconds));
            }
        }
        let latency = board.look().1.unwrap();
        assert!((latency.p50 - 0.01).abs() < 1e-9 && latency.p99 > 0.09, "{latency:?}");
    }

    #[test]
    fn the_board_is_bounded() {
        let mut board = Board::default();
        for number in 0..2 * MAX_INSTANCES {
            board.note(status(&format!("gateway-{number}"), "a", 0, &[]), Instant::now());
        }
        assert_eq!(board.instances(Instant::now()).count(), MAX_INSTANCES);
    }
}
