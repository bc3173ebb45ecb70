//! A small model of what so many events a second need: processes, cores, memory, disks, and the part that reaches its
//! limit first. Costs are measured; what lies beyond the measured rates is arithmetic, and says so.

mod costs;
mod limits;

use std::time::Duration;

use serde::Serialize;

use costs::Cpu;
pub use limits::Limit;

/// Load and storage that a plan is made for.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Events a second, all sources together.
    pub events_per_second: f64,
    /// Events in a request.
    pub events_per_request: f64,
    /// Sources that share the events evenly.
    pub sources: f64,
    /// Age at which rows are deleted; `None` if they are kept for ever.
    pub retention: Option<Duration>,
    /// Copies of each frame in the log.
    pub replicas: f64,
}

impl Demand {
    /// CPU time in cores of all events.
    fn cores(&self, cpu: Cpu) -> f64 {
        self.events_per_second * cpu.per_event(self.events_per_request) / 1e6
    }

    /// Rows that are kept; of a year if they are kept for ever.
    fn rows(&self) -> f64 {
        let kept = self.retention.unwrap_or(Duration::from_secs(365 * 86_400));
        self.events_per_second * kept.as_secs_f64()
    }

    /// CPU time of PostgreSQL in microseconds per event.
    fn postgres_cpu(&self) -> f64 {
        let many = if self.rows() >= costs::MANY_ROWS { costs::POSTGRES_MANY_ROWS } else { 0.0 };
        costs::POSTGRES.per_event(self.events_per_request) + many
    }

    /// Bytes of an event in PostgreSQL's write-ahead log.
    fn wal_bytes(&self) -> f64 {
        let factor = if self.rows() >= costs::MANY_ROWS { costs::WAL_MANY_ROWS } else { 1.0 };
        costs::WAL_BYTES * factor
    }

    /// True if one process of each kind was measured at such a rate.
    fn is_measured(&self) -> bool {
        let singles = self.events_per_request < 1_000.0;
        let rate = if singles { costs::MEASURED_SINGLES } else { costs::MEASURED_ARRAYS };
        self.events_per_second <= rate && self.replicas <= 1.0
    }

    /// Streams for each source, so that each is appended to by at most its share of a core.
    fn streams_per_source(&self) -> u64 {
        let share = costs::STREAM_CORES * costs::UTILISATION;
        at_least_one(self.cores(costs::NATS) / self.sources / share)
    }
}

/// Origin of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// A system of this size was measured.
    Measured,
    /// Arithmetic with costs that were measured at smaller sizes.
    Calculated,
}

/// Processes of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// Kind of process.
    pub role: &'static str,
    /// Number of processes or servers.
    pub processes: u64,
    /// Cores that all of them use, on average.
    pub cores_used: f64,
    /// Cores of each of them, with room for peaks.
    pub cores_each: u64,
    /// Memory of each of them, in bytes.
    pub memory_bytes_each: u64,
    /// CPU time of an event, in microseconds.
    pub cpu_micros_per_event: f64,
    /// Origin of these figures.
    pub basis: Basis,
}

/// Space on disk.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Content of the disk.
    pub content: &'static str,
    /// Bytes that it must hold, on each server that has it.
    pub bytes: u64,
    /// Bytes that are written each second.
    pub bytes_per_second: u64,
    /// Origin of these figures.
    pub basis: Basis,
}

/// Processes, cores, disks and first limits that a demand needs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Events a second.
    pub events_per_second: f64,
    /// Events in a request.
    pub events_per_request: f64,
    /// Copies of each frame in the log.
    pub replicas: u64,
    /// Age at which rows are deleted in seconds; null if they are kept for ever, for which disks are those of a year.
    pub retention_seconds: Option<u64>,
    /// Value of `ESS_LOG_STREAMS`.
    pub streams_per_source: u64,
    /// Processes.
    pub roles: Vec<Role>,
    /// Disks.
    pub disks: Vec<Disk>,
    /// Bytes a second that gateways receive.
    pub ingress_bytes_per_second: u64,
    /// Parts that do not grow by adding instances, the first to reach its limit first.
    pub limits: Vec<Limit>,
    /// True if no limit is reached.
    pub feasible: bool,
}

/// Processes of this many cores at most, for so many cores of work.
fn processes(cores: f64, cores_of_one: f64) -> u64 {
    at_least_one(cores / (cores_of_one * costs::UTILISATION))
}

fn at_least_one(count: f64) -> u64 {
    (count.ceil() as u64).max(1)
}

/// Cores of each of so many processes, with room for peaks.
fn cores_each(cores: f64, processes: u64) -> u64 {
    at_least_one(cores / processes as f64 / costs::UTILISATION)
}

fn roles(demand: &Demand, basis: Basis) -> Vec<Role> {
    let role = |role, processes: u64, cores: f64, memory: f64| Role {
        role,
        processes,
        cores_used: cores,
        cores_each: cores_each(cores, processes),
        memory_bytes_each: memory as u64,
        cpu_micros_per_event: cores * 1e6 / demand.events_per_second,
        basis,
    };
    let gateway = demand.cores(costs::GATEWAY);
    // Each replica appends and syncs what its leader takes.
    let nats = demand.cores(costs::NATS) * demand.replicas;
    let collectors = demand.cores(costs::COLLECTOR);
    let postgres = demand.postgres_cpu() * demand.events_per_second / 1e6;
    // Collectors share their sources' frames, so each source has at least one.
    let per_source = processes(collectors / demand.sources, costs::COLLECTOR_CORES);
    let index = demand.rows() * costs::KEY_INDEX_BYTES;
    // Copies need as many servers, and a quorum three.
    let servers = if demand.replicas > 1.0 { demand.replicas.max(3.0) as u64 } else { 1 };
    vec![
        role(
            "gateway",
            processes(gateway, costs::GATEWAY_CORES),
            gateway,
            costs::GATEWAY_MEMORY + costs::GATEWAY_INFLIGHT,
        ),
        role("nats", servers, nats, 2e9),
        role("collector", per_source * demand.sources as u64, collectors, costs::COLLECTOR_MEMORY),
        role("postgresql", 1, postgres, (index / costs::INDEX_MEMORY).clamp(4e9, costs::DATABASE_MEMORY)),
        role("reporter", 1, 0.0, costs::REPORTER_MEMORY),
    ]
}

fn disks(demand: &Demand, basis: Basis) -> Vec<Disk> {
    let rate = demand.events_per_second;
    let disk = |content, bytes: f64, written: f64| Disk {
        content,
        bytes: bytes as u64,
        bytes_per_second: written as u64,
        basis,
    };
    // A log that holds an hour of events while the database is away, on each server.
    let (log, wal) = (rate * costs::LOG_BYTES, rate * demand.wal_bytes());
    vec![
        disk("log", log * costs::OUTAGE_SECONDS, log),
        disk("rows", demand.rows() * costs::ROW_BYTES, rate * costs::ROW_BYTES),
        // PostgreSQL keeps it from one checkpoint to the next.
        disk("write-ahead log", wal * costs::CHECKPOINT_SECONDS, wal),
    ]
}

/// Computes the plan of a demand.
#[must_use]
pub fn plan(demand: &Demand) -> Plan {
    let basis = if demand.is_measured() { Basis::Measured } else { Basis::Calculated };
    let limits = limits::limits(demand);
    Plan {
        events_per_second: demand.events_per_second,
        events_per_request: demand.events_per_request,
        replicas: demand.replicas as u64,
        retention_seconds: demand.retention.map(|kept| kept.as_secs()),
        streams_per_source: demand.streams_per_source(),
        roles: roles(demand, basis),
        // Bytes of an event are measured, but no disk was ever filled for so long.
        disks: disks(demand, Basis::Calculated),
        ingress_bytes_per_second: (demand.events_per_second * costs::LOG_BYTES) as u64,
        feasible: limits.iter().all(|limit| !limit.reached),
        limits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(events_per_second: f64) -> Demand {
        Demand {
            events_per_second,
            events_per_request: 50_000.0,
            sources: 2.0,
            retention: Some(Duration::from_secs(30 * 86_400)),
            replicas: 1.0,
        }
    }

    #[test]
    fn a_measured_rate_has_the_measured_cost_and_one_process_of_each_kind() {
        // docs/performance.md: 50,000 events in one POST each second took 11.4 CPU µs an event, with few rows.
        let plan = plan(&Demand { retention: Some(Duration::from_secs(60)), ..demand(50_000.0) });
        let micros: f64 = plan.roles.iter().map(|role| role.cpu_micros_per_event).sum();
        assert!((micros - 11.4).abs() < 0.1, "{micros}");
        for role in &plan.roles {
            assert_eq!(role.basis, Basis::Measured);
            let expected = if role.role == "collector" { 2 } else { 1 };
            assert_eq!(role.processes, expected, "{role:?}");
        }
        assert!(plan.feasible && plan.streams_per_source == 1);
    }

    #[test]
    fn ten_times_the_events_need_ten_times_the_cores_and_are_calculated() {
        let [small, large] = [100_000.0, 1_000_000.0].map(|rate| plan(&demand(rate)));
        for (small, large) in small.roles.iter().zip(&large.roles) {
            assert_eq!(large.basis, Basis::Calculated);
            assert!((large.cores_used - 10.0 * small.cores_used).abs() < 1e-6, "{large:?}");
            assert!(large.processes >= small.processes);
            let room = large.processes as f64 * large.cores_each as f64 * costs::UTILISATION;
            assert!(room >= large.cores_used - 1e-6, "{large:?}");
        }
    }

    #[test]
    fn single_events_cost_more_than_arrays_and_the_interpolation_lies_between() {
        let cost = |events_per_request| {
            let plan = plan(&Demand { events_per_request, ..demand(10_000.0) });
            plan.roles[0].cpu_micros_per_event
        };
        assert!((cost(1.0) - 46.0).abs() < 1e-6);
        assert!((cost(50_000.0) - 2.0).abs() < 0.01);
        assert!(cost(1.0) > cost(10.0) && cost(10.0) > cost(1_000.0));
    }

    #[test]
    fn copies_cost_the_log_alone() {
        let [one, three] = [1.0, 3.0].map(|replicas| plan(&Demand { replicas, ..demand(10_000.0) }));
        for (one, three) in one.roles.iter().zip(&three.roles) {
            let times = if one.role == "nats" { 3.0 } else { 1.0 };
            assert!((three.cores_used - times * one.cores_used).abs() < 1e-9, "{three:?}");
        }
        assert_eq!(three.roles[1].processes, 3);
        assert_eq!(three.roles[1].basis, Basis::Calculated, "no cluster was measured");
    }

    #[test]
    fn ten_million_events_a_second_are_beyond_one_database_and_the_first_limit_is_named() {
        let plan = plan(&demand(10_000_000.0));
        assert!(!plan.feasible);
        assert!(plan.limits[0].part.starts_with("postgresql"), "{:?}", plan.limits);
        assert!(plan.limits.is_sorted_by(|a, b| a.events_per_second <= b.events_per_second));
        for limit in &plan.limits {
            assert_eq!(limit.reached, limit.events_per_second < 10_000_000.0, "{limit:?}");
        }
        assert!(plan.streams_per_source > 1);
    }
}
