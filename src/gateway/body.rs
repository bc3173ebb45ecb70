//! Reading a request's body, within the bounds of one body and of all bodies together.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{BytesMut, Payload};
use bytes::Bytes;
use futures::StreamExt;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ops::http::Problem;

/// The budget's unit: a request takes whole units, so that the semaphore's numbers stay small.
const UNIT: usize = 1_024;
/// How long a request waits for room before it is told to come again.
const ROOM_TIMEOUT: Duration = Duration::from_secs(8);

/// Bytes of all requests that are held at one time.
#[derive(Clone)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    all: usize,
    gauge: IntGauge,
}

/// Bytes that one request may hold, until this is dropped.
#[must_use]
pub(crate) struct Share {
    permit: Option<OwnedSemaphorePermit>,
    budget: Budget,
    held: usize,
}

impl Budget {
    pub fn new(bytes: usize, gauge: IntGauge) -> Self {
        let all = bytes / UNIT;
        Self { units: Arc::new(Semaphore::new(all)), all, gauge }
    }

    fn share(&self) -> Share {
        Share { permit: None, budget: self.clone(), held: 0 }
    }
}

impl Share {
    /// Waits until the share is as large as `bytes`; what it has already stays.
    pub async fn grow_to(&mut self, bytes: usize) -> Result<(), Problem> {
        let needed = bytes.div_ceil(UNIT).min(self.budget.all);
        if needed <= self.held {
            return Ok(());
        }
        let more = u32::try_from(needed - self.held).unwrap_or(u32::MAX);
        let waited =
            tokio::time::timeout(ROOM_TIMEOUT, self.budget.units.clone().acquire_many_owned(more)).await;
        let Ok(Ok(permit)) = waited else {
            let detail = "too many bytes are in flight (ESS_MAX_INFLIGHT); send the whole again";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
                .with("accepted", 0)
                .retry_after(Duration::from_secs(1)));
        };
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        self.budget.gauge.add(i64::from(more) * UNIT as i64);
        self.held = needed;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.gauge.sub((self.held * UNIT) as i64);
    }
}

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

/// The type and encoding that the headers say, or what is wrong with them.
pub(crate) fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let unsupported = |detail: String| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
    let text = |name: header::HeaderName| {
        headers.get(name).map(|value| value.to_str().unwrap_or("?").trim().to_ascii_lowercase())
    };
    if let Some(kind) = text(header::CONTENT_TYPE) {
        let mut parts = kind.split(';').map(str::trim);
        let charset = parts.clone().skip(1).find_map(|part| part.strip_prefix("charset="));
        if parts.next() != Some("application/json") {
            return Err(unsupported(format!(
                "Content-Type `{kind}` is not supported: it must be application/json"
            )));
        }
        if charset.is_some_and(|charset| charset.trim_matches('"') != "utf-8") {
            return Err(unsupported(format!("Content-Type `{kind}` is not supported: JSON is UTF-8")));
        }
    }
    match text(header::CONTENT_ENCODING).as_deref() {
        None | Some("" | "identity") => Ok(Encoding::Plain),
        Some("gzip") => Ok(Encoding::Gzip),
        Some("zstd") => Ok(Encoding::Zstd),
        Some(other) => {
            Err(unsupported(format!("Content-Encoding `{other}` is not supported: it must be gzip or zstd")))
        }
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is larger than {limit} bytes (ESS_MAX_BODY)"),
    )
    .with("limit", limit)
    .close()
}

/// Reads the bytes on the wire.
pub(crate) async fn read(
    headers: &HeaderMap,
    payload: Payload,
    limit: usize,
    within: Duration,
    budget: &Budget,
) -> Result<(Bytes, Share), Problem> {
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let read = read_all(payload, declared.unwrap_or(UNIT), limit, budget);
    match tokio::time::timeout(within, read).await {
        Ok(read) => read,
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time").close()),
    }
}

/// Takes room as the bytes come: what a client only announces holds nobody else up.
async fn read_all(
    mut payload: Payload,
    expected: usize,
    limit: usize,
    budget: &Budget,
) -> Result<(Bytes, Share), Problem> {
    let mut share = budget.share();
    let mut body = BytesMut::with_capacity(expected);
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, format!("the body could not be read: {error}")).close()
        })?;
        if body.len() + chunk.len() > limit {
            return Err(too_large(limit));
        }
        share.grow_to(body.len() + chunk.len()).await?;
        body.extend_from_slice(&chunk);
    }
    Ok((body.freeze(), share))
}

/// Why a body could not be unpacked.
pub(crate) enum UnpackError {
    /// It is not what its encoding says.
    Broken(String),
    /// Anything else.
    Refused(Problem),
}

impl From<Problem> for UnpackError {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

/// What was unpacked so far, and how it goes on.
enum Unpacked {
    Done(Vec<u8>),
    TooLarge,
    Broken(String),
}

/// Unpacks a body away from the listener's threads; never holds more than the limit.
pub(crate) async fn unpack(
    encoding: Encoding,
    packed: Bytes,
    limit: usize,
    share: &mut Share,
) -> Result<Bytes, UnpackError> {
    if encoding == Encoding::Plain {
        return Ok(packed);
    }
    // What it will grow to is not known; a bomb gets no further than the limit.
    share.grow_to(packed.len() + limit.min(packed.len().saturating_mul(20))).await?;
    let work = move || {
        let mut plain = Vec::new();
        let most = limit as u64 + 1;
        let read = match encoding {
            Encoding::Plain => Ok(0),
            Encoding::Gzip => {
                flate2::read::MultiGzDecoder::new(&packed[..]).take(most).read_to_end(&mut plain)
            }
            Encoding::Zstd => zstd::stream::read::Decoder::new(&packed[..])
                .and_then(|decoder| decoder.take(most).read_to_end(&mut plain)),
        };
        match read {
            Err(error) => Unpacked::Broken(error.to_string()),
            Ok(_) if plain.len() > limit => Unpacked::TooLarge,
            Ok(_) => Unpacked::Done(plain),
        }
    };
    match actix_web::web::block(work).await {
        Ok(Unpacked::Done(plain)) => {
            share.grow_to(plain.len()).await?;
            Ok(plain.into())
        }
        Ok(Unpacked::TooLarge) => Err(too_large(limit).into()),
        Ok(Unpacked::Broken(why)) => Err(UnpackError::Broken(why)),
        Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the body could not be unpacked now")
            .with("accepted", 0)
            .retry_after(Duration::from_secs(1))
            .into()),
    }
}
