//! `ess rollups`: what is kept for reports, held against the rows.

use std::io::IsTerminal;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;
use crate::config::Config;
use crate::event::{MICROS_PER_MINUTE, Source, format_micros, name_of_code, parse_point_in_time};
use crate::service::Ending;
use crate::store::maintain::verify::{DayDifferences, RollupDifference};
use crate::store::{DamagedDelta, Purpose, Store, StoreError};

/// Differences that are shown.
const SHOWN: usize = 50;
/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Compute them again from the rows and tell any difference; exit 1 if there is one
    Verify(Days),
    /// Mend every difference, while everything runs; goes on where an earlier one was stopped
    Rebuild(Days),
}

#[derive(Debug, Args)]
pub(super) struct Days {
    /// Days from this one on (UTC)
    #[arg(long, value_parser = day)]
    from: Option<i64>,
    /// Days before this one (UTC)
    #[arg(long, value_parser = day)]
    to: Option<i64>,
}

fn day(text: &str) -> Result<i64, String> {
    let instant = parse_point_in_time(text).ok_or_else(|| "must be a date, such as 2026-01-31".to_owned())?;
    Ok(instant.div_euclid(DAY))
}

/// Runs the command.
pub(super) async fn run(config: &Config, command: Command) -> Result<Ending, Failure> {
    let store = Store::open(config, Purpose::Write { transactions: 1 }).await;
    let store = store.map_err(|error| Failure::Usage(format!("DATABASE_URL: {error}")))?;
    let mend = matches!(command, Command::Rebuild(_));
    let (Command::Verify(days) | Command::Rebuild(days)) = command;
    let (found, remaining) =
        compare(&store, &days, mend).await.map_err(|error| Failure::Other(error.to_string()))?;
    match (found, mend) {
        (0, _) => println!("all rollups and summaries are what the rows say"),
        (found, true) => println!("{found} differences were mended"),
        (found, false) => println!("{found} differences; `ess rollups rebuild` mends them"),
    }
    if remaining > 0 {
        println!("{remaining} damaged summaries remain");
    }
    Ok(if remaining == 0 && (found == 0 || mend) { Ending::Clean } else { Ending::Incomplete })
}

/// Gives how many differences there are, and how many damaged summaries remain.
async fn compare(store: &Store, days: &Days, mend: bool) -> Result<(usize, u64), StoreError> {
    store.check().await?;
    let damaged = damaged_deltas(store, mend).await?;
    // The days that were asked for: of all that there are, the last becomes another one tomorrow.
    let asked = days.from.unwrap_or(i64::MIN)..days.to.unwrap_or(i64::MAX);
    let mut all = store.days(&asked).await?;
    // A damaged delta does not tell which hours it is of: all days are computed again, and in one go.
    if mend
        && damaged.is_empty()
        && let Some(next) = store.rebuild_progress(&asked).await?
    {
        let before = all.len();
        all.retain(|day| *day >= next);
        if all.len() < before {
            println!("going on at {}", date(next));
        }
    }
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(all.len() as u64)
    } else {
        ProgressBar::hidden()
    };
    bar.set_style(style());
    let mut found = damaged.len();
    for day in all {
        bar.set_message(date(day));
        let differences = store.compare_day(day, mend).await?;
        for line in lines(&differences).into_iter().take(SHOWN.saturating_sub(found)) {
            bar.suspend(|| println!("{line}"));
        }
        found += differences.count();
        if mend {
            store.set_rebuild_progress(&asked, Some(day + 1)).await?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    for source in Source::all() {
        match store.compare_campaigns(source, mend).await? {
            None => println!("campaigns of {source}: not compared, for rows have left"),
            Some(0) => {}
            Some(wrong) => {
                println!("campaigns of {source}: {wrong} are not what the rows say");
                found += usize::try_from(wrong).unwrap_or(usize::MAX);
            }
        }
        if mend && days.from.is_none() && days.to.is_none() {
            let of_source = damaged.iter().filter(|(of, _)| *of == source).map(|(_, delta)| delta);
            store.remove_damaged_deltas(source, of_source).await?;
        }
        let spans = store.compare_spans(source, mend).await?;
        if spans > 0 {
            println!("wider summaries of {source}: {spans} are not what the hours in them say");
            found += spans;
        }
        // Collectors would do the same, in their time.
        if mend {
            store.refresh_all_summaries(source).await?;
        }
    }
    if !mend {
        return Ok((found, 0));
    }
    store.set_rebuild_progress(&asked, None).await?;
    Ok((found, remaining(store).await?))
}

/// Deltas that cannot be read, each of which is told.
async fn damaged_deltas(store: &Store, mend: bool) -> Result<Vec<(Source, DamagedDelta)>, StoreError> {
    let mut damaged = Vec::new();
    for source in Source::all() {
        for delta in store.find_damaged_deltas(source, mend).await? {
            println!("{source}: {delta}");
            damaged.push((source, delta));
        }
    }
    Ok(damaged)
}

/// Damaged summaries and deltas that a rebuild left.
async fn remaining(store: &Store) -> Result<u64, StoreError> {
    let mut all = 0;
    for source in Source::all() {
        let remaining = store.damaged_summaries(source).await?;
        if remaining > 0 {
            println!(
                "{source}: {remaining} damaged summaries remain: they are of other days, or their rows have left; \
                 damaged deltas leave when all days are rebuilt, without --from and --to"
            );
        }
        all += remaining;
    }
    Ok(all)
}

fn style() -> ProgressStyle {
    let bar = "{msg} {wide_bar} {pos}/{len} days, {eta} left";
    ProgressStyle::with_template(bar).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn date(day: i64) -> String {
    format_micros(day.saturating_mul(DAY)).chars().take(10).collect()
}

fn lines(differences: &DayDifferences) -> Vec<String> {
    let rollup = |found: &RollupDifference| {
        format!(
            "rollup of {} min from {}: {} {}: events {:+}, transactions {:+}, revenue {:+} units {:+} millionths",
            found.minutes,
            format_micros(found.first_minute() * MICROS_PER_MINUTE),
            name_of_code(found.source),
            name_of_code(found.event_type),
            found.events,
            found.transactions,
            found.units,
            found.micros,
        )
    };
    let hour = |(source, hour): &(Source, i32)| {
        format!(
            "hour {}: {source}: the summary is another",
            format_micros(i64::from(*hour) * 60 * MICROS_PER_MINUTE)
        )
    };
    differences.rollups.iter().map(rollup).chain(differences.hours.iter().map(hour)).collect()
}
