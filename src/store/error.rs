//! What can go wrong in the store, by what to do about it.

use sea_orm::sqlx;

/// A pool says no more than this; [`super::Store::reach`] finds out why.
const NO_CONNECTION: &str = "no connection was free or could be made in time";

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A value that the database does not take. The rows without it can be stored.
    #[error("the database refuses a row: {0}")]
    Data(String),
    /// It may work later: no connection, a deadlock, a restart, no space.
    #[error("the database is away: {0}")]
    Transient(String),
    /// The database ended a statement that took too long for it: fewer rows at a time may pass.
    #[error("the database ended a statement that took too long: {0}")]
    TooSlow(String),
    /// Another transaction changed the same: done again, it works.
    #[error("another transaction was in the way: {0}")]
    Conflict(String),
    /// What is kept for reports cannot be read; its rows can, and mend it.
    #[error("`ess rollups rebuild` mends what is damaged: {0}")]
    Damaged(String),
    /// The schema is not there yet, or is another version's.
    #[error("the database has no schema that fits: {0}")]
    Schema(String),
}

/// Advice on an error of a connection pooler.
fn advice(message: &str) -> Option<&'static str> {
    let known = [
        (
            "transaction blocks not allowed in statement pooling mode",
            "PgBouncer's pool_mode has to be transaction or session",
        ),
        (
            "unsupported startup parameter",
            "the pooler refuses what the URL's options ask for; leave them out",
        ),
    ];
    known.iter().find(|(said, _)| message.contains(said)).map(|(_, advice)| *advice)
}

impl StoreError {
    /// The same, with the name of the row that is damaged.
    pub(in crate::store) fn in_row(self, row: impl std::fmt::Display) -> Self {
        match self {
            Self::Damaged(reason) => Self::Damaged(format!("{row}: {reason}")),
            other => other,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::PoolTimedOut) {
            return Self::Transient(NO_CONNECTION.to_owned());
        }
        let sqlx::Error::Database(fault) = &error else { return Self::Transient(error.to_string()) };
        let code = fault.code().unwrap_or_default().into_owned();
        let message = match advice(fault.message()) {
            Some(advice) => format!("{}: {advice}", fault.message()),
            None => fault.message().to_owned(),
        };
        // PostgreSQL's classes of SQLSTATE; SQLite's primary result codes are plain numbers.
        match code.as_str() {
            "42P01" | "42703" | "42883" | "3F000" => Self::Schema(message),
            // Cancelled: by the role's or the server's statement_timeout, or by an operator.
            "57014" => Self::TooSlow(message),
            // Serialization failure, deadlock.
            "40001" | "40P01" => Self::Conflict(message),
            code if code.len() == 5 && matches!(&code[..2], "22" | "23" | "P0" | "54") => Self::Data(message),
            code if code.len() < 5 => match code.parse::<u32>().map_or(0, |code| code & 0xff) {
                // TOOBIG, CONSTRAINT, MISMATCH, RANGE
                18 | 19 | 20 | 25 => Self::Data(message),
                1 if message.starts_with("no such") => Self::Schema(message),
                _ => Self::Transient(message),
            },
            _ => Self::Transient(message),
        }
    }
}

impl From<sea_orm::DbErr> for StoreError {
    fn from(error: sea_orm::DbErr) -> Self {
        use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};
        match error {
            DbErr::Conn(RuntimeErr::SqlxError(inner))
            | DbErr::Exec(RuntimeErr::SqlxError(inner))
            | DbErr::Query(RuntimeErr::SqlxError(inner)) => match std::sync::Arc::try_unwrap(inner) {
                Ok(inner) => inner.into(),
                Err(shared) => Self::Transient(shared.to_string()),
            },
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => Self::Transient(NO_CONNECTION.to_owned()),
            other => Self::Transient(other.to_string()),
        }
    }
}
