//! Errors of the store. Each kind calls for another reaction of the caller.

use std::error::Error;
use std::sync::Arc;

use sea_orm::sqlx::{self, error::DatabaseError};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};

/// The error of a library that an error of the store came from.
type Source = Box<dyn Error + Send + Sync>;

/// All that a pool says when it has no connection to give; [`super::Store::reach`] finds the reason.
const NO_CONNECTION: &str = "no connection was free or could be made in time";

/// Reason for which the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refuses the value of a row. The batch can be stored without that row.
    #[error("the database refuses a row: {message}")]
    Refused {
        /// The database's message.
        message: String,
        /// The library's error.
        source: Option<Source>,
    },
    /// No connection, a restart of the server, a full disk: the same work may succeed later.
    #[error("the database is unavailable: {message}")]
    Unavailable {
        /// The reason.
        message: String,
        /// The library's error.
        source: Option<Source>,
    },
    /// The database cancelled a statement that took too long. Fewer rows at a time may pass.
    #[error("the database cancelled a statement that took too long: {message}")]
    TooSlow {
        /// The database's message.
        message: String,
        /// The library's error.
        source: Option<Source>,
    },
    /// Another transaction changed the same rows at the same time. Done again, the work succeeds.
    #[error("another transaction changed the same rows: {message}")]
    Conflict {
        /// The database's message.
        message: String,
        /// The library's error.
        source: Option<Source>,
    },
    /// A stored summary or delta cannot be decoded. `ess rollups rebuild` computes it again from the events.
    #[error("{item} is corrupt ({reason}); run `ess rollups rebuild`")]
    Corrupt {
        /// Table and key of the row, where known.
        item: String,
        /// Reason for which it cannot be decoded.
        reason: String,
        /// The decoder's error.
        source: Option<Source>,
    },
    /// The schema is missing or belongs to another version of ESS.
    #[error("the database has no schema that fits this version: {message}")]
    Schema {
        /// The difference.
        message: String,
        /// The library's error.
        source: Option<Source>,
    },
    /// An error of ESS itself, such as a background task that panicked.
    #[error("internal error: {message}")]
    Internal {
        /// Description.
        message: String,
        /// The error beneath it.
        source: Option<Source>,
    },
}

/// Constructors; [`StoreError::because`] adds the source.
impl StoreError {
    /// An error of a row's value.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), source: None }
    }

    /// An error that may pass.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable { message: message.into(), source: None }
    }

    /// An error of time.
    pub fn too_slow(message: impl Into<String>) -> Self {
        Self::TooSlow { message: message.into(), source: None }
    }

    /// A conflict with another transaction.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict { message: message.into(), source: None }
    }

    /// An error of a stored value whose row is not known yet; see [`StoreError::in_row`].
    pub fn corrupt(reason: impl Into<String>) -> Self {
        Self::Corrupt { item: "a summary".to_owned(), reason: reason.into(), source: None }
    }

    /// An error of the schema.
    pub fn schema(message: impl Into<String>) -> Self {
        Self::Schema { message: message.into(), source: None }
    }

    /// An error of ESS itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::Internal { message: message.into(), source: None }
    }

    /// The same error with the error that it came from.
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

    /// The same error; one of a corrupt value names its row.
    #[must_use]
    pub(in crate::store) fn in_row(mut self, row: impl std::fmt::Display) -> Self {
        if let Self::Corrupt { item, .. } = &mut self {
            *item = row.to_string();
        }
        self
    }

    /// True if the same work may succeed when it is done again.
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

/// The kind of an error, by the database's code where it has one.
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

/// Advice on an error of a connection pooler.
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

    /// An error of a database, with its code.
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
    fn codes_of_both_databases_have_a_kind() {
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
    fn an_error_that_sea_orm_shares_keeps_its_kind() {
        let inner = Arc::new(sqlx::Error::Database(Box::new(Coded("40001", "could not serialize"))));
        let shared = Arc::clone(&inner);
        for error in [DbErr::Query(RuntimeErr::SqlxError(inner)), DbErr::Exec(RuntimeErr::SqlxError(shared))]
        {
            assert!(StoreError::from(error).is_conflict());
        }
    }

    #[test]
    fn a_corrupt_value_names_its_row_and_no_other_error_does() {
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
