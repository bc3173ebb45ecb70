//! `ess dead-letters`: lists, shows and replays dead letters.

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::failure::Failure;
use super::serve::{lock_data_dir, open_log, open_reading, open_writing};
use crate::config::Config;
use crate::event::{FieldError, Redactor, Source, parse_point_in_time};
use crate::log::{LogRole, Reason};
use crate::replay::{self, ReplayOutcome, Selection};
use crate::service::Ending;
use crate::store::{DeadLetterFilter, ListedLetter, Store, StoredLetter};
use crate::terminal::text::printable;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List dead letters, the newest first
    List(Listing),
    /// Show one dead letter with its bytes
    Show {
        /// Id of the dead letter
        id: Uuid,
    },
    /// Validate dead letters again, and put those that are valid now into the log
    Replay(Replay),
}

#[derive(Debug, Args)]
pub(super) struct Filters {
    /// Reason: invalid, not_json, filter, database, too_many_deliveries, unreadable_frame
    #[arg(long, value_parser = reason)]
    reason: Option<Reason>,
    /// Source of the events
    #[arg(long, value_parser = super::source)]
    source: Option<Source>,
    /// Received at or after this instant or date
    #[arg(long, value_parser = time)]
    from: Option<i64>,
    /// Received before this instant or date
    #[arg(long, value_parser = time)]
    to: Option<i64>,
}

#[derive(Debug, Args)]
pub(super) struct Listing {
    #[command(flatten)]
    filters: Filters,
    /// Maximum number, the newest first
    #[arg(long, default_value_t = 50)]
    limit: u64,
    /// Also list those that were replayed
    #[arg(long)]
    replayed: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Ids of dead letters [default: all that match the filters]
    ids: Vec<Uuid>,
    #[command(flatten)]
    filters: Filters,
    /// Maximum number, the newest first [default: all]
    #[arg(long)]
    limit: Option<u64>,
    /// Only say which are valid now, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Command {
    /// The source whose letters are asked for.
    fn source(&self) -> Option<Source> {
        match self {
            Self::List(Listing { filters, .. }) | Self::Replay(Replay { filters, .. }) => filters.source,
            Self::Show { .. } => None,
        }
    }
}

fn reason(text: &str) -> Result<Reason, String> {
    Reason::parse(text)
        .ok_or_else(|| format!("must be one of {}", Reason::ALL.map(Reason::as_str).join(", ")))
}

fn time(text: &str) -> Result<i64, String> {
    parse_point_in_time(text).ok_or_else(|| "must be an RFC 3339 instant or a date".to_owned())
}

impl Filters {
    fn filter(&self, ids: &[Uuid], replayed: bool, limit: u64) -> DeadLetterFilter {
        DeadLetterFilter {
            reason: self.reason,
            source: self.source,
            from: self.from,
            to: self.to,
            ids: ids.to_vec(),
            replayed,
            limit,
        }
    }
}

/// Runs one of the commands.
pub(super) async fn run(config: &Config, command: Command) -> Result<Ending, Failure> {
    let store = match &command {
        Command::Replay(_) => open_writing(config).await?,
        _ => open_reading(config).await?,
    };
    super::known(&store, command.source()).await?;
    match command {
        Command::List(listing) => list(&store, &listing).await,
        Command::Show { id } => show(&store, id).await,
        Command::Replay(replay) => run_replay(config, &store, &replay).await,
    }
}

async fn find(store: &Store, filter: &DeadLetterFilter) -> Result<Vec<StoredLetter>, Failure> {
    store.letters(filter).await.map_err(|error| Failure::Other(error.to_string()))
}

async fn list(store: &Store, listing: &Listing) -> Result<Ending, Failure> {
    let filter = listing.filters.filter(&[], listing.replayed, listing.limit);
    let letters = store.list_letters(&filter).await;
    let letters = letters.map_err(|error| Failure::Other(error.to_string()))?;
    if listing.json {
        letters.iter().for_each(|letter| println!("{}", serde_json::json!(letter)));
        return Ok(Ending::Clean);
    }
    let head = ["ID", "RECEIVED", "SOURCE", "REASON", "EVENT", "FIRST ERROR"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(letters.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
        println!("{}{}", cells.collect::<String>(), row[5]);
    }
    let more = letters.len() as u64 == listing.limit;
    println!("{} letters{}", letters.len(), if more { ", the newest; --limit shows more" } else { "" });
    Ok(Ending::Clean)
}

/// Cells of a letter in the list.
fn row(letter: &ListedLetter) -> [String; 6] {
    let errors: Vec<FieldError> = serde_json::from_str(letter.errors.get()).unwrap_or_default();
    let first = errors.first().map(|error| format!("{}: {}", error.path, error.message)).unwrap_or_default();
    [
        letter.id.to_string(),
        letter.received_at.clone(),
        letter.source.unwrap_or("unknown").to_owned(),
        letter.reason.clone(),
        printable(letter.event_id.as_deref().unwrap_or("-")),
        printable(&first),
    ]
}

async fn show(store: &Store, id: Uuid) -> Result<Ending, Failure> {
    let filter = DeadLetterFilter { ids: vec![id], replayed: true, limit: 1, ..DeadLetterFilter::default() };
    let letter = find(store, &filter).await?.pop();
    let letter = letter.ok_or_else(|| Failure::Other(format!("there is no dead letter {id}")))?;
    let mut shown = serde_json::json!(letter);
    shown["payload"] = String::from_utf8_lossy(&letter.payload).into();
    println!("{shown:#}");
    Ok(Ending::Clean)
}

async fn run_replay(config: &Config, store: &Store, replay: &Replay) -> Result<Ending, Failure> {
    let other = |error: &dyn std::fmt::Display| Failure::Other(error.to_string());
    let filter = replay.filters.filter(&replay.ids, false, replay.limit.unwrap_or(u64::MAX));
    let selection = Selection::new(store, &filter, u64::MAX).await.map_err(|error| other(&error))?;
    if let Some(letter) = selection.others.first().filter(|_| replay.limit.is_none()) {
        let id = letter.id;
        return Err(Failure::Other(format!("there is no dead letter {id} that was not replayed yet")));
    }
    // One process at a time can use the embedded log.
    let _lock = (!replay.dry_run && config.nats_url.is_none()).then(|| lock_data_dir(config)).transpose()?;
    let log = match replay.dry_run {
        true => None,
        false => Some(open_log(config, "ess dead-letters", LogRole::Observer).await?),
    };
    let redactor = Redactor::new(&config.pii);
    let (mut passed, mut failed) = (0, 0);
    let run = replay::Replay {
        store,
        log: log.as_ref(),
        redactor: redactor.as_ref(),
        source_folder: &config.source_folder,
    };
    let run = run.run(&selection, |letter| {
        if letter.outcome == ReplayOutcome::Accepted {
            passed += 1;
            println!("{}  {}", letter.id, if replay.dry_run { "would pass" } else { "replayed" });
        } else {
            failed += 1;
        }
        for FieldError { path, message } in &letter.errors {
            println!("{}  fails: {}: {}", letter.id, printable(path), printable(message));
        }
    });
    run.await.map_err(|error| other(&error))?;
    println!("{passed} pass, {failed} fail");
    Ok(Ending::Clean)
}
