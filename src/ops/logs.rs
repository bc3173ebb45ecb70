//! Logs: one JSON object a line on a server, readable lines on a terminal.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt as lines};

/// Stream of the log lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard output, for services.
    Stdout,
    /// Standard error, for commands that print results to standard output.
    Stderr,
    /// A file, for a command that shows something else on the terminal. Once it has [`MAX_FILE`] bytes, it is renamed to
    /// end in `.1`, in place of an older one, and begun again.
    File(PathBuf),
    /// Nowhere, for a command that uses the whole screen.
    None,
}

/// Error of starting to log.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The level is unknown.
    #[error(
        "LOG_LEVEL: `{0}` is not allowed: it must be off, error, warn, info, debug or trace, or a filter"
    )]
    Level(String),
    /// The filter is malformed.
    #[error("LOG_LEVEL: `{filter}` is not allowed: {source}; a filter is written `info,ess=debug`")]
    Filter {
        /// The filter.
        filter: String,
        /// The fault.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The file cannot be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: std::io::Error,
    },
    /// Logging was started before in this process.
    #[error("logging was started before: {0}")]
    StartedBefore(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging. `service` is the name in lines that were not written by the code of a service.
///
/// # Errors
///
/// If the level is not allowed, the file cannot be written, or logging was started before.
pub fn start(service: &'static str, level: &str, output: Output) -> Result<(), LogsError> {
    if !level.contains(['=', ',']) && level.parse::<LevelFilter>().is_err() {
        return Err(LogsError::Level(level.to_owned()));
    }
    let filter =
        EnvFilter::try_new(level).map_err(|source| LogsError::Filter { filter: level.to_owned(), source })?;
    // A plain level is meant for ESS; libraries log warnings and errors only.
    let quiet =
        ["async_nats", "sqlx", "sea_orm", "sea_orm_migration", "actix_server", "actix_http", "mio", "h2"];
    let simple = !level.contains(['=', ',']);
    let filter = quiet.iter().filter(|_| simple && level != "off").fold(filter, |filter, library| {
        let level = if level.eq_ignore_ascii_case("error") { "error" } else { "warn" };
        match format!("{library}={level}").parse() {
            Ok(directive) => filter.add_directive(directive),
            Err(_) => filter,
        }
    });
    let registry = tracing_subscriber::registry().with(filter);
    let started = match output {
        Output::Stdout if std::io::stdout().is_terminal() => {
            registry.with(lines::layer().compact()).try_init()
        }
        Output::Stderr if std::io::stderr().is_terminal() => {
            registry.with(lines::layer().compact().with_writer(std::io::stderr)).try_init()
        }
        Output::Stdout => registry.with(JsonLines { service, sink: Sink::Stdout }).try_init(),
        Output::Stderr => registry.with(JsonLines { service, sink: Sink::Stderr }).try_init(),
        Output::File(path) => {
            let file = LogFile::open(&path).map_err(|source| LogsError::File { path, source })?;
            registry.with(JsonLines { service, sink: Sink::File(Mutex::new(file)) }).try_init()
        }
        Output::None => Ok(()),
    };
    Ok(started?)
}

/// Number of warnings and errors that were written to a file.
pub fn warnings() -> u64 {
    WARNINGS.load(Ordering::Relaxed)
}

static WARNINGS: AtomicU64 = AtomicU64::new(0);

/// Bytes of a file of log lines.
pub const MAX_FILE: u64 = 8 * 1_024 * 1_024;

/// A file of log lines of bounded size.
struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl LogFile {
    /// Continues a file, or creates it and its folder.
    fn open(path: &Path) -> std::io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > MAX_FILE {
            let mut before = self.path.clone().into_os_string();
            before.push(".1");
            std::fs::rename(&self.path, before)?;
            *self = Self::open(&self.path)?;
        }
        self.bytes += line.len() as u64;
        self.file.write_all(line)
    }
}

/// Target of JSON lines.
enum Sink {
    Stdout,
    Stderr,
    File(Mutex<LogFile>),
}

impl Sink {
    fn write(&self, line: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Stdout => std::io::stdout().lock().write_all(line),
            Self::Stderr => std::io::stderr().lock().write_all(line),
            Self::File(file) => file.lock().unwrap_or_else(PoisonError::into_inner).write(line),
        }
    }
}

/// Writes each event as a JSON object, the fields of its spans included.
struct JsonLines {
    service: &'static str,
    sink: Sink,
}

/// The fields of a span, kept with it.
struct SpanFields(Map<String, Value>);

struct Collect<'a>(&'a mut Map<String, Value>);

impl Visit for Collect<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

/// Service whose code wrote a log line, by its module.
fn service_of(target: &str, otherwise: &'static str) -> &'static str {
    let room = target.strip_prefix("ess::").unwrap_or_default();
    match room.split("::").next() {
        Some("gateway") => "gateway",
        Some("collector") if !otherwise.starts_with("collector") => "collector",
        Some("reporter") => "reporter",
        Some("publisher") => "publisher",
        _ => otherwise,
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Map::new();
        attributes.record(&mut Collect(&mut fields));
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(SpanFields(fields)) = span.extensions_mut().get_mut()
        {
            values.record(&mut Collect(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Map::new();
        line.insert(
            "timestamp".to_owned(),
            chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true).into(),
        );
        line.insert("level".to_owned(), metadata.level().as_str().into());
        line.insert("service".to_owned(), service_of(metadata.target(), self.service).into());
        line.insert("target".to_owned(), metadata.target().into());
        if let Some(scope) = context.event_scope(event) {
            for span in scope.from_root() {
                if let Some(SpanFields(fields)) = span.extensions().get() {
                    line.extend(fields.clone());
                }
            }
        }
        event.record(&mut Collect(&mut line));
        let mut line = Value::Object(line).to_string();
        line.push('\n');
        if matches!(self.sink, Sink::File(_)) && *metadata.level() <= Level::WARN {
            WARNINGS.fetch_add(1, Ordering::Relaxed);
        }
        // A failure to write log lines cannot be logged.
        let _ = self.sink.write(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_log_lines_is_continued_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("demo.log");
        LogFile::open(&path).unwrap().write(b"first\n").unwrap();
        let mut file = LogFile::open(&path).unwrap();
        file.write(b"second\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first\nsecond\n");
        let line = vec![b'x'; 1_024 * 1_024];
        for _ in 0..40 {
            file.write(&line).unwrap();
        }
        let files: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().map(Result::unwrap).collect();
        assert_eq!(files.len(), 2, "the file and the one before it");
        assert!(files.iter().all(|file| file.metadata().unwrap().len() <= MAX_FILE));
    }
}
