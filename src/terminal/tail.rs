//! `ess tail`: events as they are validated, one a line.

use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::event::{PollFd, PollFlags, poll};

use super::feed::FeedMessage;
use super::follow::{Update, Watching, watch};
use super::reporter::{Reporter, ReporterError};
use super::text::{NO_COLOR, printable, printable_json};
use crate::fleet::{Outcome, Sample, SampleFilter};
use crate::service::Signals;

/// Interval at which the reader of standard output is looked for, so that the program ends with it also while no event
/// comes.
const READER_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two notes of samples that were missed.
const MISSED_INTERVAL: Duration = Duration::from_secs(10);

/// Error of `ess tail`.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The reporter did not answer the first request, or refused it.
    #[error("{url}: {source}")]
    Reporter {
        /// URL of the reporter.
        url: String,
        /// The fault.
        source: ReporterError,
    },
    /// Standard output cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] std::io::Error),
}

/// Choice of events, and their form.
#[derive(Debug, Default)]
pub struct Tail {
    /// Events that are shown.
    pub filter: SampleFilter,
    /// True for JSON, else text.
    pub json: bool,
    /// Number of events after which the program ends; `None` for never.
    pub limit: Option<u64>,
}

/// Prints events until the limit, a signal, or the end of the reader.
///
/// # Errors
///
/// If the reporter does not answer at the start, or refuses. One that goes away later is waited for.
pub async fn run(reporter: &Reporter, tail: &Tail, signals: &mut Signals) -> Result<(), TailError> {
    let colors = !tail.json && colors();
    let mut updates = watch(reporter, &query(&tail.filter), Watching::Feed);
    let mut reader = tokio::time::interval(READER_INTERVAL);
    let mut notes = Notes::new(reporter.url());
    let mut left = tail.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let update = tokio::select! {
            _ = signals.received() => break,
            _ = reader.tick() => {
                if reader_is_gone() {
                    break;
                }
                continue;
            }
            update = updates.recv() => update,
        };
        match update {
            Some(Update::Message(FeedMessage::Sample(sample))) => {
                let line = if tail.json { json(&sample) } else { line(&sample, colors) };
                match stdout().lock().write_all(line.as_bytes()) {
                    Ok(()) => left -= 1,
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                    Err(error) => return Err(error.into()),
                }
            }
            Some(Update::Message(FeedMessage::Missed(samples))) => notes.missed(samples, Instant::now()),
            Some(Update::Connected) => notes.connected(),
            Some(Update::Away(source)) if !notes.was_connected || source.is_usage() => {
                return Err(TailError::Reporter { url: reporter.url().to_owned(), source });
            }
            Some(Update::Away(error)) => notes.away(&error),
            Some(_) => {}
            None => break,
        }
    }
    notes.end();
    Ok(())
}

/// The feed's query for a filter.
fn query(filter: &SampleFilter) -> String {
    let outcome = filter.outcome.map(|outcome| match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Refused => "refused",
    });
    let parts = [
        ("source", filter.source.as_deref()),
        ("eventType", filter.event_type.as_deref()),
        ("outcome", outcome),
    ];
    let mut query = String::new();
    for (name, value) in parts {
        if let Some(value) = value {
            let separator = if query.is_empty() { '?' } else { '&' };
            let _ = write!(query, "{separator}{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
    }
    query
}

/// True if standard output is a terminal that shows colours, and they are wanted.
fn colors() -> bool {
    let unset = |name: &str, value: &str| std::env::var_os(name).is_none_or(|set| set == value);
    stdout().is_terminal()
        && unset(NO_COLOR, "")
        && std::env::var_os("TERM").is_some_and(|terminal| terminal != "dumb")
}

/// True if nobody reads standard output any more, as after `ess tail | head`.
fn reader_is_gone() -> bool {
    let output = stdout();
    let mut watched = [PollFd::new(&output, PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut watched, Some(&now)).is_ok_and(|ready| ready > 0)
        && watched[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL)
}

/// A sample as JSON on one line.
fn json(sample: &Sample) -> String {
    // Its members are texts and numbers, so that this cannot fail.
    let mut line = printable_json(&serde_json::to_string(sample).unwrap_or_default());
    line.push('\n');
    line
}

/// A sample as text: time, outcome, source, type, id, and the first error of a refused one.
fn line(sample: &Sample, colors: bool) -> String {
    let at = chrono::DateTime::parse_from_rfc3339(&sample.at).map_or_else(
        |_| printable(&sample.at),
        |at| at.with_timezone(&chrono::Local).format("%H:%M:%S%.3f").to_string(),
    );
    let (outcome, color) = match sample.outcome {
        Outcome::Accepted => ("accepted", "\u{1b}[32m"),
        Outcome::Refused => ("refused ", "\u{1b}[31m"),
    };
    let (dim, color, plain) = if colors { ("\u{1b}[2m", color, "\u{1b}[0m") } else { ("", "", "") };
    let text = |text: &Option<String>, otherwise| printable(text.as_deref().unwrap_or(otherwise));
    let source = text(&sample.source, crate::ops::metrics::UNKNOWN_SOURCE);
    let (kind, id) = (text(&sample.event_type, "-"), text(&sample.event_id, "-"));
    let mut line = format!("{dim}{at}{plain} {color}{outcome}{plain} {source:<8} {kind:<18} {id}");
    if let Some(first) = sample.errors.first() {
        let path = if first.path.is_empty() { "the event" } else { &first.path };
        let _ = write!(line, "  {color}{}: {}{plain}", printable(path), printable(&first.message));
        if sample.errors.len() > 1 {
            let _ = write!(line, " and {} more", sample.errors.len() - 1);
        }
    }
    line.push('\n');
    line
}

/// Notes on standard error: the state of the connection, and samples that were missed.
struct Notes {
    url: String,
    was_connected: bool,
    is_away: bool,
    /// Samples that were missed and not told yet, and in all.
    untold: u64,
    missed: u64,
    told: Option<Instant>,
}

impl Notes {
    fn new(url: &str) -> Self {
        Self { url: url.to_owned(), was_connected: false, is_away: false, untold: 0, missed: 0, told: None }
    }

    fn connected(&mut self) {
        self.was_connected = true;
        if std::mem::take(&mut self.is_away) {
            note(&format!("{} answers again", self.url));
        }
    }

    fn away(&mut self, error: &ReporterError) {
        if !std::mem::replace(&mut self.is_away, true) {
            note(&format!("{}: {error}; waiting for it", self.url));
        }
    }

    fn missed(&mut self, samples: u64, now: Instant) {
        self.missed += samples;
        self.untold += samples;
        if self.told.is_none_or(|told| now.duration_since(told) >= MISSED_INTERVAL) {
            note(&format!("{} events were not shown: the feed carries 20 a second", self.untold));
            self.untold = 0;
            self.told = Some(now);
        }
    }

    fn end(&self) {
        if self.untold > 0 {
            note(&format!("{} events were not shown in all", self.missed));
        }
    }
}

/// Writes a line to standard error, if it has a reader.
fn note(text: &str) {
    let _ = writeln!(stderr().lock(), "ess: {}", printable(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::SampleError;

    fn sample(id: &str, errors: &[(&str, &str)]) -> Sample {
        let kept = format!("{{\n\"eventId\":\"{id}\u{9b}31m\u{7f}\"}}");
        let errors: Vec<_> = errors
            .iter()
            .map(|(path, message)| SampleError { path: (*path).to_owned(), message: (*message).to_owned() })
            .collect();
        let refused = (!errors.is_empty()).then_some(&[][..]);
        let sample = Sample::new(Some("facebook"), Some("ad.view"), Some(id), refused, kept.as_bytes());
        Sample { errors, ..sample }
    }

    #[test]
    fn a_line_tells_time_outcome_source_type_id_and_the_first_error() {
        let accepted = line(&sample("fb-1", &[]), false);
        assert!(accepted.ends_with(" accepted facebook ad.view            fb-1\n"), "{accepted}");
        let refused = line(&sample("fb-2", &[("data.user.age", "must be 0 or more"), ("", "x")]), false);
        assert!(
            refused.contains(" refused  facebook")
                && refused.ends_with("fb-2  data.user.age: must be 0 or more and 1 more\n"),
            "{refused}"
        );
        let colored = line(&sample("fb-3", &[]), true);
        assert!(colored.contains("\u{1b}[32maccepted\u{1b}[0m"), "{colored}");
    }

    #[test]
    fn no_control_character_of_an_event_is_printed() {
        let hostile = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\n\u{9b}31m\u{202e}";
        let mut sample = sample(hostile, &[(hostile, hostile)]);
        sample.source = Some(hostile.to_owned());
        sample.event_type = Some(hostile.to_owned());
        sample.at = hostile.to_owned();
        for text in [line(&sample, false), json(&sample)] {
            let printed = text.strip_suffix('\n').unwrap();
            assert!(
                !printed.chars().any(|letter| letter.is_control() || letter == '\u{202e}'),
                "{printed:?}"
            );
        }
        let read: serde_json::Value = serde_json::from_str(&json(&sample)).unwrap();
        assert_eq!(read["eventId"], hostile, "JSON keeps the value");
    }

    #[test]
    fn a_filter_becomes_an_encoded_query() {
        assert_eq!(query(&SampleFilter::default()), "");
        let filter = SampleFilter {
            source: Some("a&b".to_owned()),
            event_type: Some("ad.view".to_owned()),
            outcome: Some(Outcome::Refused),
        };
        assert_eq!(query(&filter), "?source=a%26b&eventType=ad%2Eview&outcome=refused");
    }

    #[test]
    fn missed_samples_are_told_at_once_and_then_every_ten_seconds() {
        let mut notes = Notes::new("x");
        let start = Instant::now();
        notes.missed(5, start);
        assert_eq!((notes.untold, notes.missed), (0, 5));
        notes.missed(5, start + Duration::from_secs(1));
        notes.missed(5, start + Duration::from_secs(9));
        assert_eq!((notes.untold, notes.missed), (10, 15));
        notes.missed(5, start + Duration::from_secs(10));
        assert_eq!((notes.untold, notes.missed), (0, 20));
    }
}
