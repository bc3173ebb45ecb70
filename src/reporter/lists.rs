//! Bound on lists (dead letters, locations of events) in memory: a list counts until its client has read the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::ContentType;
use actix_web::web::Bytes;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answered::Answer;
use super::error::ReportError;

/// Maximum number of lists that are read or answered at one time. Each has at most 4 MiB of errors and history.
const LISTS: usize = 16;
/// Time that a request for a list waits for others to finish.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of bytes in one chunk of a body.
const CHUNK: usize = 64 << 10;

/// Permits for lists.
#[derive(Debug)]
pub(super) struct Lists(Arc<Semaphore>);

impl Default for Lists {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LISTS)))
    }
}

/// Permit for one list.
pub(super) struct Turn(OwnedSemaphorePermit);

impl Lists {
    /// Waits for a permit.
    ///
    /// # Errors
    ///
    /// If none becomes free in time.
    pub async fn turn(&self) -> Result<Turn, ReportError> {
        let waited = tokio::time::timeout(WAIT_TIMEOUT, self.0.clone().acquire_owned()).await;
        let permit = waited.ok().and_then(Result::ok);
        permit.map(Turn).ok_or(ReportError::TooManyLists)
    }
}

impl Turn {
    /// Answers with a list. The permit is returned when the body is written or dropped.
    pub fn answer(self, list: &impl Serialize) -> Answer {
        let json = serde_json::to_vec(list).map_err(ReportError::from)?;
        let body = Held { bytes: json.into(), _turn: self.0 };
        Ok(HttpResponse::Ok().content_type(ContentType::json()).body(body))
    }
}

/// Body of an answer, with its permit.
struct Held {
    bytes: Bytes,
    _turn: OwnedSemaphorePermit,
}

impl MessageBody for Held {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.bytes.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let part = self.bytes.len().min(CHUNK);
        let part = self.bytes.split_to(part);
        Poll::Ready((!part.is_empty()).then_some(Ok(part)))
    }
}
