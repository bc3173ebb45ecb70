//! Parts of the system that do not grow by adding instances, and the rate at which each is full.

use serde::Serialize;

use super::{Demand, costs};

/// A part of which there is one, and the most events a second that it takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// The part.
    pub part: &'static str,
    /// Events a second at which it is full.
    pub events_per_second: f64,
    /// True if the planned rate is beyond it.
    pub reached: bool,
    /// The reason, with the server that is reckoned with.
    pub because: String,
    /// Ways to move the limit.
    pub remedy: &'static str,
}

fn gigabytes(bytes: f64) -> f64 {
    bytes / 1e9
}

/// All limits, the lowest first.
pub(super) fn limits(demand: &Demand) -> Vec<Limit> {
    let limit = |part, events_per_second: f64, because: String, remedy| Limit {
        part,
        events_per_second,
        reached: demand.events_per_second > events_per_second,
        because,
        remedy,
    };
    let share = costs::UTILISATION;
    // Seconds of events whose rows are kept: per row and second of rate.
    let kept = demand.rows() / demand.events_per_second;
    // The rate at which the index of the kept rows fills its memory, and beyond it one read for each event.
    let in_memory = costs::DATABASE_MEMORY * costs::INDEX_MEMORY / costs::KEY_INDEX_BYTES / kept;
    // The leader of a stream receives each frame, and sends it to each other replica and to a collector.
    let wire = costs::LOG_BYTES * (demand.replicas + 1.0);
    let written = demand.wal_bytes() + costs::ROW_BYTES;
    let stream = costs::STREAM_CORES * share * 1e6 / costs::NATS.per_event(demand.events_per_request);
    let mut all = vec![
        limit(
            "postgresql: cores",
            costs::DATABASE_CORES * share * 1e6 / demand.postgres_cpu(),
            format!("{:.1} µs an event on {} cores", demand.postgres_cpu(), costs::DATABASE_CORES),
            "a server with more cores, or rows spread over several servers",
        ),
        limit(
            "postgresql: reads of its disk",
            costs::DISK_READS_PER_SECOND * share + in_memory,
            format!(
                "the index of the key ({} bytes a row) fills half of {:.0} GB at {in_memory:.0} events a second; a \
                 read for each event beyond it, {} reads a second",
                costs::KEY_INDEX_BYTES,
                gigabytes(costs::DATABASE_MEMORY),
                costs::DISK_READS_PER_SECOND
            ),
            "more memory, faster disks, or a shorter ESS_RETENTION",
        ),
        limit(
            "postgresql: size of its disk",
            costs::DATABASE_DISK / costs::ROW_BYTES / kept,
            format!(
                "{} bytes a row, rows of {:.0} days, {:.0} TB",
                costs::ROW_BYTES,
                kept / 86_400.0,
                costs::DATABASE_DISK / 1e12
            ),
            "more disks, or a shorter ESS_RETENTION",
        ),
        limit(
            "postgresql: writes to its disk",
            costs::DISK_BYTES_PER_SECOND * share / written,
            format!(
                "{written:.0} bytes an event in write-ahead log and pages, {:.0} GB a second",
                gigabytes(costs::DISK_BYTES_PER_SECOND)
            ),
            "faster disks, or rows spread over several servers",
        ),
        limit(
            "nats: network of one server",
            costs::NETWORK_BYTES_PER_SECOND * share / wire,
            format!(
                "{wire} bytes an event at the leader of its stream, {:.1} GB a second",
                gigabytes(costs::NETWORK_BYTES_PER_SECOND)
            ),
            "several streams for each source (ESS_LOG_STREAMS), led by different servers",
        ),
        limit(
            "nats: one stream for each source",
            stream * demand.sources,
            format!(
                "{:.1} µs an event, one core for each stream",
                costs::NATS.per_event(demand.events_per_request)
            ),
            "several streams for each source (ESS_LOG_STREAMS)",
        ),
    ];
    all.sort_by(|one, other| one.events_per_second.total_cmp(&other.events_per_second));
    all
}
