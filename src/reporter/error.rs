//! Errors of the reporter's routes, each with its status and its problem body.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;

use super::query::BadParameter;
use crate::ledger::LedgerError;
use crate::log::LogError;
use crate::ops::http::Problem;
use crate::replay::ReplayError;
use crate::runtime::Undelivered;
use crate::store::{ReadOnly, StoreError};

/// Time after which a client may ask again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Error of a request to the reporter.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    /// A parameter is not allowed.
    #[error("{}: {}", .0.name, .0.message)]
    Parameter(BadParameter),
    /// No event has the id.
    #[error("no event of this id is known")]
    UnknownEvent,
    /// Every report actor is full.
    #[error("too many reports are being made")]
    TooManyReports,
    /// Too many lists are being read.
    #[error("too many lists are being read")]
    TooManyLists,
    /// The live feed has its maximum number of viewers.
    #[error("too many viewers of the live feed")]
    TooManyViewers,
    /// The report was not made in time.
    #[error("the report took too long")]
    TooLong,
    /// The client has left.
    #[error("the client has left")]
    ClientLeft,
    /// The report actor had no answer.
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
    /// The store holds data that cannot be read.
    #[error("stored data of this report is corrupt: {0}")]
    Corrupt(Arc<StoreError>),
    /// The store did not answer.
    #[error("the database is away or saturated, or has no schema yet")]
    Store(#[source] Arc<StoreError>),
    /// No log is configured.
    #[error("the log is away: NATS_URL is not set")]
    NoLog,
    /// The log did not answer.
    #[error("the log is away")]
    Log(#[source] LogError),
    /// No dead letter has the id.
    #[error("there is no such dead letter")]
    UnknownLetter,
    /// Another replay is under way.
    #[error("another replay of dead letters is under way")]
    Replaying,
    /// Letters cannot be changed over the connections of this reporter.
    #[error(
        "this reporter cannot replay dead letters: {0}. Use a reporter without ESS_REPORTER_DATABASE_URL, or `ess dead-letters replay`"
    )]
    ReadOnly(ReadOnly),
    /// A replay ended before its last letter.
    #[error(transparent)]
    Replay(ReplayError),
    /// The ledger was not reconciled in time, or too many ask for it.
    #[error(transparent)]
    Ledger(LedgerError),
    /// The answer cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The answer cannot be written as CSV.
    #[error(transparent)]
    Csv(#[from] csv::Error),
}

impl ReportError {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Parameter(_) => StatusCode::BAD_REQUEST,
            Self::UnknownEvent | Self::UnknownLetter => StatusCode::NOT_FOUND,
            Self::ReadOnly(_) => StatusCode::CONFLICT,
            Self::Json(_) | Self::Csv(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TooManyReports
            | Self::TooManyLists
            | Self::TooManyViewers
            | Self::Replaying
            | Self::Replay(_)
            | Self::TooLong
            | Self::ClientLeft
            | Self::Undelivered(_)
            | Self::Corrupt(_)
            | Self::Store(_)
            | Self::NoLog
            | Self::Log(_)
            | Self::Ledger(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Logs corrupt data, and causes that the answer leaves out because clients must not see them.
    fn log(&self) {
        match self {
            Self::Corrupt(error) => tracing::error!(%error, "a report failed: stored data is corrupt"),
            Self::Store(error) => tracing::warn!(%error, "the store did not answer"),
            Self::Log(error) => tracing::warn!(%error, "the log did not answer"),
            Self::Replay(error) => tracing::warn!(%error, "a replay of dead letters ended early"),
            _ => {}
        }
    }
}

impl From<ReportError> for Problem {
    fn from(error: ReportError) -> Self {
        error.log();
        let status = error.status();
        let problem = Self::new(status, error.to_string());
        match error {
            ReportError::Parameter(BadParameter { name, .. }) => problem.with("parameter", name),
            _ if status == StatusCode::SERVICE_UNAVAILABLE => problem.retry_after(RETRY_AFTER),
            _ => problem,
        }
    }
}

impl From<BadParameter> for ReportError {
    fn from(parameter: BadParameter) -> Self {
        Self::Parameter(parameter)
    }
}

impl From<Arc<StoreError>> for ReportError {
    fn from(error: Arc<StoreError>) -> Self {
        if matches!(*error, StoreError::Corrupt { .. }) { Self::Corrupt(error) } else { Self::Store(error) }
    }
}

impl From<StoreError> for ReportError {
    fn from(error: StoreError) -> Self {
        Arc::new(error).into()
    }
}

impl From<LedgerError> for ReportError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Log(error) => Self::Log(error),
            LedgerError::Store(error) => error.into(),
            LedgerError::Late | LedgerError::Busy => Self::Ledger(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_status_and_corrupt_data_is_told_apart_from_a_database_that_is_away() {
        let parameter = BadParameter { name: "from".to_owned(), message: "is wrong".to_owned() };
        let parameter = ReportError::from(parameter);
        assert_eq!((parameter.status().as_u16(), parameter.to_string().as_str()), (400, "from: is wrong"));
        assert_eq!(ReportError::UnknownEvent.status().as_u16(), 404);
        assert_eq!(ReportError::TooLong.status().as_u16(), 503);
        let away = ReportError::from(StoreError::unavailable("password of the role".to_owned()));
        assert_eq!(away.status().as_u16(), 503);
        assert!(!away.to_string().contains("password"), "{away}");
    }
}
