//! `ess plan`: what so many events a second need.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;

use super::Failure;
use crate::plan::{Basis, Demand, Plan, plan};
use crate::service::Ending;
use crate::source::Source;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Events a second, all sources together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    events_per_second: u64,
    /// Events in a request; one request of one event costs many times an event of an array
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    events_per_request: u64,
    /// Age at which rows are deleted, such as 30d; 0 for never
    #[arg(long, default_value = "30d", value_parser = retention)]
    retention: Duration,
    /// Copies of each frame in the log (ESS_NATS_REPLICAS)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=5))]
    replicas: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn retention(text: &str) -> Result<Duration, humantime::DurationError> {
    if text == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(text) }
}

/// Prints the plan.
pub(super) fn run(arguments: &Arguments) -> Result<Ending, Failure> {
    let plan = plan(&Demand {
        events_per_second: arguments.events_per_second as f64,
        events_per_request: arguments.events_per_request as f64,
        sources: Source::all().count() as f64,
        retention: Some(arguments.retention).filter(|kept| !kept.is_zero()),
        replicas: arguments.replicas as f64,
    });
    if arguments.json {
        let text = serde_json::to_string_pretty(&plan).map_err(|error| Failure::Other(error.to_string()))?;
        println!("{text}");
    } else {
        print(&plan);
    }
    Ok(Ending::Clean)
}

fn basis(basis: Basis) -> &'static str {
    match basis {
        Basis::Measured => "measured",
        Basis::Calculated => "calculated",
    }
}

fn bytes(bytes: u64) -> String {
    ByteSize(bytes).display().si().to_string()
}

/// A number with its thousands apart.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join(",")
}

fn print(plan: &Plan) {
    println!(
        "{} events a second in requests of {}, {} in the log",
        thousands(plan.events_per_second),
        thousands(plan.events_per_request),
        if plan.replicas == 1 { "one copy".to_owned() } else { format!("{} copies", plan.replicas) },
    );
    println!("received: {} a second", bytes(plan.ingress_bytes_per_second));
    println!();
    println!(
        "{:<12} {:>9} {:>10} {:>10} {:>11} {:>10}",
        "role", "processes", "cores each", "used, all", "memory each", "µs an event"
    );
    for role in &plan.roles {
        println!(
            "{:<12} {:>9} {:>10} {:>10.1} {:>11} {:>11.1}  {}",
            role.role,
            role.processes,
            role.cores_each,
            role.cores_used,
            bytes(role.memory_bytes_each),
            role.cpu_micros_per_event,
            basis(role.basis),
        );
    }
    println!();
    println!("{:<16} {:>10} {:>13}", "disk", "holds", "written");
    for disk in &plan.disks {
        let written = format!("{}/s", bytes(disk.bytes_per_second));
        println!("{:<16} {:>10} {:>13}  {}", disk.content, bytes(disk.bytes), written, basis(disk.basis));
    }
    println!(
        "The log's disk holds an hour of events, on each of its servers; rows are those of {}.",
        kept(plan)
    );
    println!();
    println!("streams for each source (ESS_LOG_STREAMS): {}", plan.streams_per_source);
    println!();
    println!("limits, the first first (calculated):");
    for limit in &plan.limits {
        println!(
            "{} {:<44} {:>15}/s  {}",
            if limit.reached { "!" } else { " " },
            limit.part,
            thousands(limit.events_per_second),
            limit.because,
        );
    }
    let first = plan.limits.first();
    if let Some(first) = first {
        let verdict = if first.reached { "reached" } else { "not reached" };
        println!();
        println!("first bottleneck: {} ({verdict}). To move it: {}.", first.part, first.remedy);
    }
}

fn kept(plan: &Plan) -> String {
    match plan.retention_seconds {
        Some(seconds) => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
        None => "one year, because they are kept for ever".to_owned(),
    }
}
