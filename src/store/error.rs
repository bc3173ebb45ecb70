//! Errors of the store, by the reaction that a caller needs: retry, isolate a row, write fewer rows, or report.

use std::error::Error;
use std::sync::Arc;

use sea_orm::sqlx::{self, error::DatabaseError};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};

/// Underlying error, of the driver, of a decoder or of a task.
type Source = Box<dyn Error + Send + Sync>;

/// Message for a timeout of the connection pool, which does not report why; [`super::Store::reach`] finds the cause.
const NO_CONNECTION: &str = "no connection was free or could be made in time";

/// Failure of an operation of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refuses the value of a row. The batch can be stored without that row.
    #[error("the database refuses a row: {message}")]
    Refused {
        /// The database's message.
        message: String,
        /// Underlying error.
        source: Option<Source>,
    },
    /// No connection, a restart of the server, a full disk. A retry may succeed later.
    #[error("the database is unavailable: {message}")]
    Unavailable {
        /// The reason.
        message: String,
        /// Underlying error.
        source: Option<Source>,
    },
    /// The database cancelled a statement that took too long. With fewer rows at a time it may succeed.
    #[error("the database cancelled a statement that took too long: {message}")]
    TooSlow {
        /// The database's message.
        message: String,
        /// Underlying error.
        source: Option<Source>,
    },
    /// Another transaction has locked, changed or inserted the same rows. A retry can succeed at once.
    #[error("another transaction changed the same rows: {message}")]
    Conflict {
        /// The database's message.
        message: String,
        /// Underlying error.
        source: Option<Source>,
    },
    /// A stored summary or delta cannot be decoded. `ess rollups rebuild` computes it again from the events.
    #[error("{item} is corrupt ({reason}); run `ess rollups rebuild`")]
    Corrupt {
        /// Table and key of the row, where known.
        item: String,
        /// Reason of the decoder.
        reason: String,
        /// The decoder's error.
        source: Option<Source>,
    },
    /// The schema is missing or belongs to another version of ESS.
    #[error("the database has no schema that fits this version: {message}")]
    Schema {
        /// Difference between the two.
        message: String,
        /// Underlying error.
        source: Option<Source>,
    },
    /// A bug of ESS, such as a background task that panicked.
    #[error("internal error: {message}")]
    Internal {
        /// Description.
        message: String,
        /// Underlying error.
        source: Option<Source>,
    },
}

/// Constructors, without a source; [`StoreError::because`] adds one.
impl StoreError {
    /// The database refuses a row.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), source: None }
    }

    /// The database is unavailable; a retry may succeed.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable { message: message.into(), source: None }
    }

    /// A statement took too long.
    pub fn too_slow(message: impl Into<String>) -> Self {
        Self::TooSlow { message: message.into(), source: None }
    }

    /// Another transaction changed the same rows.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict { message: message.into(), source: None }
    }

    /// A stored summary or delta cannot be decoded. The decoder does not know its row; [`StoreError::in_row`] adds it.
    pub fn corrupt(reason: impl Into<String>) -> Self {
        Self::Corrupt { item: "a summary".to_owned(), reason: reason.into(), source: None }
    }

    /// The schema does not fit this version.
    pub fn schema(message: impl Into<String>) -> Self {
        Self::Schema { message: message.into(), source: None }
    }

    /// A bug of ESS.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::Internal { message: message.into(), source: None }
    }

    /// Sets the source.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Source>) -> Self {
        match &mut self {
            Self::Refused { source, .. }
            | Self::Unavailable { source, .. }
            | Self::TooSlow { source, .. }
            | Self::Conflict { source, .. }
            | Self::Corrupt { source, .. }
            | Self::Schema { source, .. }
            | Self::Internal { source, .. } => *source = Some(cause.into()),
        }
        self
    }

    /// Names the row in an error of a corrupt value. Other errors stay as they are.
    #[must_use]
    pub(in crate::store) fn in_row(mut self, row: impl std::fmt::Display) -> Self {
        if let Self::Corrupt { item, .. } = &mut self {
            *item = row.to_string();
        }
        self
    }

    /// True for [`StoreError::Conflict`]: the transaction can be tried again at once.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        classify(&error).because(error)
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        match error {
            DbErr::Conn(RuntimeErr::SqlxError(inner))
            | DbErr::Exec(RuntimeErr::SqlxError(inner))
            | DbErr::Query(RuntimeErr::SqlxError(inner)) => {
                let classified = classify(&inner);
                match Arc::try_unwrap(inner) {
                    Ok(inner) => classified.because(inner),
                    Err(shared) => classified.because(shared),
                }
            }
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => {
                Self::unavailable(NO_CONNECTION).because(error)
            }
            other => Self::unavailable(other.to_string()).because(other),
        }
    }
}

/// Maps a driver's error to a kind, by the database's error code where it has one.
fn classify(error: &sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::PoolTimedOut => StoreError::unavailable(NO_CONNECTION),
        sqlx::Error::Database(error) => classify_code(&**error),
        other => StoreError::unavailable(other.to_string()),
    }
}

fn classify_code(error: &dyn DatabaseError) -> StoreError {
    let code = error.code().unwrap_or_default();
    let message = match advice(error.message()) {
        Some(advice) => format!("{}: {advice}", error.message()),
        None => error.message().to_owned(),
    };
    // PostgreSQL's codes are five characters of SQLSTATE, SQLite's are decimal numbers.
    match &*code {
        // Undefined table, column, function, schema.
        "42P01" | "42703" | "42883" | "3F000" => StoreError::schema(message),
        // Cancelled by statement_timeout or by an operator.
        "57014" => StoreError::too_slow(message),
        // Serialization failure, deadlock.
        "40001" | "40P01" => StoreError::conflict(message),
        // Data exception, constraint violation, error raised by a trigger, limit exceeded.
        code if code.len() == 5 && matches!(&code[..2], "22" | "23" | "P0" | "54") => {
            StoreError::refused(message)
        }
        code if code.len() < 5 => match code.parse::<u32>().map_or(0, |code| code & 0xff) {
            // SQLITE_TOOBIG, _CONSTRAINT, _MISMATCH, _RANGE.
            18 | 19 | 20 | 25 => StoreError::refused(message),
            1 if message.starts_with("no such") => StoreError::schema(message),
            _ => StoreError::unavailable(message),
        },
        _ => StoreError::unavailable(message),
    }
}

/// Advice for known errors of a connection pooler.
fn advice(message: &str) -> Option<&'static str> {
    let known = [
        (
            "transaction blocks not allowed in statement pooling mode",
            "set PgBouncer's pool_mode to transaction or session",
        ),
        ("unsupported startup parameter", "the pooler refuses a parameter in the URL's options; remove it"),
    ];
    known.iter().find(|(part, _)| message.contains(part)).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::fmt;

    use sea_orm::sqlx::error::ErrorKind;

    use super::*;

    /// Database error of a code and a message.
    #[derive(Debug)]
    struct Coded(&'static str, &'static str);

    impl fmt::Display for Coded {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.1)
        }
    }

    impl Error for Coded {}

    impl DatabaseError for Coded {
        fn message(&self) -> &str {
            self.1
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            (!self.0.is_empty()).then_some(Cow::Borrowed(self.0))
        }

        fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn kind(error: &StoreError) -> &'static str {
        match error {
            StoreError::Refused { .. } => "refused",
            StoreError::Unavailable { .. } => "unavailable",
            StoreError::TooSlow { .. } => "too slow",
            StoreError::Conflict { .. } => "conflict",
            StoreError::Corrupt { .. } => "corrupt",
            StoreError::Schema { .. } => "schema",
            StoreError::Internal { .. } => "internal",
        }
    }

    #[test]
    fn error_codes_of_both_databases_map_to_kinds() {
        let cases = [
            ("22P02", "invalid input", "refused"),
            ("23505", "duplicate key", "refused"),
            ("P0001", "raised by a trigger", "refused"),
            ("54000", "row is too big", "refused"),
            ("40001", "could not serialize", "conflict"),
            ("40P01", "deadlock detected", "conflict"),
            ("57014", "canceling statement", "too slow"),
            ("42P01", "relation does not exist", "schema"),
            ("53100", "disk full", "unavailable"),
            ("57P01", "terminating connection", "unavailable"),
            // SQLite: constraint with an extended code, too big, missing table, busy, full.
            ("2067", "UNIQUE constraint failed", "refused"),
            ("18", "string or blob too big", "refused"),
            ("1", "no such table: event_rows", "schema"),
            ("1", "near \"x\": syntax error", "unavailable"),
            ("5", "database is locked", "unavailable"),
            ("13", "database or disk is full", "unavailable"),
            ("", "no code", "unavailable"),
        ];
        for (code, message, expected) in cases {
            let error = StoreError::from(sqlx::Error::Database(Box::new(Coded(code, message))));
            assert_eq!(kind(&error), expected, "{code} {message}");
            assert!(error.to_string().contains(message), "{error}");
            assert!(error.source().is_some(), "{code}: the database's error is kept");
        }
    }

    #[test]
    fn an_error_behind_an_arc_of_sea_orm_keeps_its_kind() {
        let inner = Arc::new(sqlx::Error::Database(Box::new(Coded("40001", "could not serialize"))));
        let shared = Arc::clone(&inner);
        for error in [DbErr::Query(RuntimeErr::SqlxError(inner)), DbErr::Exec(RuntimeErr::SqlxError(shared))]
        {
            assert!(StoreError::from(error).is_conflict());
        }
    }

    #[test]
    fn only_an_error_of_a_corrupt_value_names_a_row() {
        let corrupt = StoreError::corrupt("it is empty").in_row("summaries, hour 7");
        assert_eq!(
            corrupt.to_string(),
            "summaries, hour 7 is corrupt (it is empty); run `ess rollups rebuild`"
        );
        let away = StoreError::unavailable("no route").in_row("summaries, hour 7");
        assert_eq!(away.to_string(), "the database is unavailable: no route");
    }

    #[test]
    fn an_error_of_a_pooler_comes_with_advice() {
        let message = "unsupported startup parameter: search_path";
        let error = StoreError::from(sqlx::Error::Database(Box::new(Coded("08P01", message))));
        assert!(error.to_string().contains("remove it"), "{error}");
    }
}
