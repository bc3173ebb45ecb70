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
/// What is allocated for a body before any of it has come.
const FIRST_BYTES: usize = 64 * 1_024;
/// Bodies that are unpacked at one time; each has a window of up to [`WINDOW_LOG`] beside it.
const UNPACKING: usize = 16;
/// The largest window of zstd, as a power of two: 8 MiB, what the standard asks of every decoder.
const WINDOW_LOG: u32 = 23;
/// What is unpacked between two looks at the budget.
const STEP: usize = 256 * 1_024;
/// How long a request waits for room before it is told to come again.
const ROOM_TIMEOUT: Duration = Duration::from_secs(8);

/// Bytes of all requests that are held at one time.
#[derive(Clone)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    all: usize,
    /// Half of them: what requests may hold together whose signature is not checked yet.
    unverified: Arc<Semaphore>,
    unpacking: Arc<Semaphore>,
    gauge: IntGauge,
}

/// Bytes that one request may hold, until this is dropped.
#[must_use]
pub(crate) struct Share {
    permit: Option<OwnedSemaphorePermit>,
    budget: Budget,
    held: usize,
    /// As long as it is not known who sends: what is taken of the part of those.
    unverified: Option<Option<OwnedSemaphorePermit>>,
}

impl Budget {
    pub fn new(bytes: usize, gauge: IntGauge) -> Self {
        let all = bytes / UNIT;
        Self {
            units: Arc::new(Semaphore::new(all)),
            all,
            unverified: Arc::new(Semaphore::new(all.div_ceil(2))),
            unpacking: Arc::new(Semaphore::new(UNPACKING)),
            gauge,
        }
    }

    /// A request's share; `verified` says whether it is known who sends.
    pub fn share(&self, verified: bool) -> Share {
        Share { permit: None, budget: self.clone(), held: 0, unverified: (!verified).then_some(None) }
    }
}

impl Share {
    /// Units that are lacking for so many bytes.
    fn lacking(&self, bytes: usize) -> u32 {
        let needed = bytes.div_ceil(UNIT).min(self.budget.all);
        u32::try_from(needed.saturating_sub(self.held)).unwrap_or(u32::MAX)
    }

    fn take(&mut self, more: u32, permit: OwnedSemaphorePermit) {
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        self.budget.gauge.add(i64::from(more) * UNIT as i64);
        self.held += more as usize;
    }

    /// Waits until the share is as large as `bytes`; what it has already stays.
    pub async fn grow_to(&mut self, bytes: usize) -> Result<(), Problem> {
        let more = self.lacking(bytes);
        if more == 0 {
            return Ok(());
        }
        if let Some(part) = &mut self.unverified {
            // Never more than the part as a whole.
            let most = u32::try_from(self.budget.all.div_ceil(2)).unwrap_or(u32::MAX);
            let held =
                part.as_ref().map_or(0, |permit| u32::try_from(permit.num_permits()).unwrap_or(u32::MAX));
            let lacking = more.min(most.saturating_sub(held));
            let room = self.budget.unverified.clone().acquire_many_owned(lacking);
            let Ok(Ok(permit)) = tokio::time::timeout(ROOM_TIMEOUT, room).await else {
                return Err(no_room());
            };
            match part {
                Some(held) => held.merge(permit),
                None => *part = Some(permit),
            }
        }
        let waited =
            tokio::time::timeout(ROOM_TIMEOUT, self.budget.units.clone().acquire_many_owned(more)).await;
        let Ok(Ok(permit)) = waited else { return Err(no_room()) };
        self.take(more, permit);
        Ok(())
    }

    /// It is known who sends.
    pub fn verified(&mut self) {
        self.unverified = None;
    }

    /// Makes the share as large as `bytes` if there is room at once.
    fn try_grow_to(&mut self, bytes: usize) -> bool {
        let more = self.lacking(bytes);
        if more == 0 {
            return true;
        }
        let permit = self.budget.units.clone().try_acquire_many_owned(more);
        permit.map(|permit| self.take(more, permit)).is_ok()
    }
}

fn no_room() -> Problem {
    let detail = "too many bytes are in flight (ESS_MAX_INFLIGHT); send the whole again";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        .with("accepted", 0)
        .retry_after(Duration::from_secs(1))
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
    share: Share,
) -> Result<(Bytes, Share), Problem> {
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let read = read_all(payload, declared.unwrap_or(UNIT), limit, share);
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
    mut share: Share,
) -> Result<(Bytes, Share), Problem> {
    let mut body = BytesMut::with_capacity(expected.min(FIRST_BYTES));
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

/// How unpacking ended.
enum Unpacked {
    Done(Vec<u8>),
    TooLarge,
    NoRoom,
    Broken(String),
}

/// Unpacks a body away from the listener's threads; holds no more than the limit, and no more than there is
/// room for: what comes out is counted as it comes.
pub(crate) async fn unpack(
    encoding: Encoding,
    packed: Bytes,
    limit: usize,
    mut share: Share,
) -> Result<(Bytes, Share), UnpackError> {
    if encoding == Encoding::Plain {
        return Ok((packed, share));
    }
    // What most bodies come to is waited for; a bomb gets no further than there is room.
    share.grow_to(packed.len() + limit.min(packed.len().saturating_mul(20))).await?;
    let turn = share.budget.unpacking.clone().acquire_owned().await;
    let work = move || {
        let _turn = turn;
        let unpacked = match encoding {
            Encoding::Plain => Unpacked::Done(packed.to_vec()),
            Encoding::Gzip => {
                inflate(flate2::read::MultiGzDecoder::new(&packed[..]), packed.len(), limit, &mut share)
            }
            Encoding::Zstd => match zstd::stream::read::Decoder::new(&packed[..]) {
                Ok(mut decoder) => match decoder.window_log_max(WINDOW_LOG) {
                    Ok(()) => inflate(decoder, packed.len(), limit, &mut share),
                    Err(error) => Unpacked::Broken(error.to_string()),
                },
                Err(error) => Unpacked::Broken(error.to_string()),
            },
        };
        (unpacked, share)
    };
    match actix_web::web::block(work).await {
        Ok((Unpacked::Done(plain), share)) => Ok((plain.into(), share)),
        Ok((Unpacked::TooLarge, _)) => Err(too_large(limit).into()),
        Ok((Unpacked::NoRoom, _)) => Err(no_room().into()),
        Ok((Unpacked::Broken(why), _)) => Err(UnpackError::Broken(why)),
        Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the body could not be unpacked now")
            .with("accepted", 0)
            .retry_after(Duration::from_secs(1))
            .into()),
    }
}

/// Reads step by step, each under the share. `held` bytes are in it for the packed body.
fn inflate(mut from: impl Read, held: usize, limit: usize, share: &mut Share) -> Unpacked {
    let mut plain = Vec::new();
    loop {
        let step = STEP.min(limit + 1 - plain.len());
        // A vector that grows is twice as large for a moment.
        if !share.try_grow_to(held + 2 * (plain.len() + step)) {
            return Unpacked::NoRoom;
        }
        match from.by_ref().take(step as u64).read_to_end(&mut plain) {
            Err(error) => return Unpacked::Broken(error.to_string()),
            Ok(0) => return Unpacked::Done(plain),
            Ok(_) if plain.len() > limit => return Unpacked::TooLarge,
            Ok(_) => {}
        }
    }
}
