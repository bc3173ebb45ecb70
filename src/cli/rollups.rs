//! `ess rollups`: compares rollups and summaries with the rows that they count.

use std::io::IsTerminal;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use super::failure::Failure;
use crate::config::Config;
use crate::event::{MICROS_PER_MINUTE, Source, format_micros, name_of_code, parse_point_in_time};
use crate::service::Ending;
use crate::store::maintain::verify::{DayDifferences, RollupDifference};
use crate::store::{DamagedDelta, Purpose, Store, StoreError};

/// Maximum number of differences that are printed.
const SHOWN: usize = 50;
/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Compute rollups and summaries again from the rows, and print the differences; exit code 1 if there is one
    Verify(Days),
    /// Repair every difference while services run; continues where an interrupted rebuild stopped
    Rebuild(Days),
}

#[derive(Debug, Args)]
pub(super) struct Days {
    /// First day (UTC)
    #[arg(long, value_parser = day)]
    from: Option<i64>,
    /// Day after the last one (UTC)
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
    super::known(&store, None).await?;
    let mend = matches!(command, Command::Rebuild(_));
    let (Command::Verify(days) | Command::Rebuild(days)) = command;
    let (found, remaining) =
        compare(&store, &days, mend).await.map_err(|error| Failure::Other(error.to_string()))?;
    match (found, mend) {
        (0, _) => println!("all rollups and summaries match the rows"),
        (found, true) => println!("{found} differences were repaired"),
        (found, false) => println!("{found} differences; run `ess rollups rebuild` to repair them"),
    }
    if remaining > 0 {
        println!("{remaining} damaged summaries remain");
    }
    Ok(if remaining == 0 && (found == 0 || mend) { Ending::Clean } else { Ending::Incomplete })
}

/// Returns the number of differences, and of damaged summaries that remain.
async fn compare(store: &Store, days: &Days, mend: bool) -> Result<(usize, u64), StoreError> {
    store.check().await?;
    if mend {
        store.check_not_newer().await?;
    }
    let damaged = damaged_deltas(store, mend).await?;
    // The range as asked for identifies the rebuild's progress: the last day with rows may be another one tomorrow.
    let asked = days.from.unwrap_or(i64::MIN)..days.to.unwrap_or(i64::MAX);
    let mut all = store.days(&asked).await?;
    // The hours of a damaged delta are not known: all days are computed again, from the first one on.
    if mend
        && damaged.is_empty()
        && let Some(next) = store.rebuild_progress(&asked).await?
    {
        let before = all.len();
        all.retain(|day| *day >= next);
        if all.len() < before {
            println!("continuing at {}", date(next));
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
            None => println!("campaigns of {source}: not compared, because ESS_RETENTION deleted rows"),
            Some(0) => {}
            Some(wrong) => {
                println!("campaigns of {source}: {wrong} do not match the rows");
                found += usize::try_from(wrong).unwrap_or(usize::MAX);
            }
        }
        if mend && days.from.is_none() && days.to.is_none() {
            let of_source = damaged.iter().filter(|(of, _)| *of == source).map(|(_, delta)| delta);
            store.remove_damaged_deltas(source, of_source).await?;
        }
        let spans = store.compare_spans(source, mend).await?;
        if spans > 0 {
            println!("day and month summaries of {source}: {spans} do not match their hours");
            found += spans;
        }
        // Collectors would do this later.
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

/// Deltas that cannot be read; each is printed.
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
                "{source}: {remaining} damaged summaries remain: they are of other days, or ESS_RETENTION deleted their rows. \
                 Damaged deltas are removed when all days are rebuilt, without --from and --to"
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
            "rollup of {} min from {}: {} {}: events {:+}, transactions {:+}, revenue {:+} units {:+} millionths of {}",
            found.minutes,
            format_micros(found.first_minute() * MICROS_PER_MINUTE),
            name_of_code(found.source),
            name_of_code(found.event_type),
            found.events,
            found.transactions,
            found.units,
            found.micros,
            found.currency,
        )
    };
    let hour = |(source, hour): &(Source, i32)| {
        format!(
            "hour {}: {source}: the summary differs",
            format_micros(i64::from(*hour) * 60 * MICROS_PER_MINUTE)
        )
    };
    differences.rollups.iter().map(rollup).chain(differences.hours.iter().map(hour)).collect()
}
