//! Reading and unpacking a request's body, within the bounds of one body and of all bodies together.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{BytesMut, Payload};
use bytes::Bytes;
use futures::StreamExt;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::RequestRefusal;
use super::unverified::{Part, Unverified};

/// The budget's unit: a request takes whole units, so that the semaphore's numbers stay small.
pub(super) const UNIT: usize = 1_024;
/// Bytes that are allocated for a body before any of it has arrived.
const FIRST_BYTES: usize = 64 * 1_024;
/// Bodies that are unpacked at one time; each needs a window of up to 2^[`WINDOW_LOG`] bytes as well.
const UNPACKING: usize = 16;
/// The largest window of zstd, as a power of two: 8 MiB, which RFC 8878 (3.1.1.1.2) recommends every decoder to support.
const WINDOW_LOG: u32 = 23;
/// Bytes that are unpacked between two reservations.
const STEP: usize = 256 * 1_024;
/// Codings of one body, one over the other.
pub(super) const MAX_CODINGS: usize = 3;
/// Time that a request waits for room before it is answered 503.
pub(super) const ROOM_TIMEOUT: Duration = Duration::from_secs(8);

/// Bytes of all requests that are held at one time.
#[derive(Clone)]
pub(super) struct Budget {
    units: Arc<Semaphore>,
    all: usize,
    /// Half of them: what requests may hold together whose signature is not checked yet.
    unverified: Arc<Unverified>,
    unpacking: Arc<Semaphore>,
    gauge: IntGauge,
}

/// Bytes that one request may hold, until this is dropped.
#[must_use]
pub(super) struct Reservation {
    permit: Option<OwnedSemaphorePermit>,
    budget: Budget,
    held: usize,
    /// As long as it is not known who sends: what is taken of the part of those.
    unverified: Option<Part>,
}

impl Budget {
    pub fn new(bytes: usize, gauge: IntGauge) -> Self {
        let all = bytes / UNIT;
        Self {
            units: Arc::new(Semaphore::new(all)),
            all,
            unverified: Unverified::new(all.div_ceil(2)),
            unpacking: Arc::new(Semaphore::new(UNPACKING)),
            gauge,
        }
    }

    /// A request's reservation; `verified` says whether it is known who sends.
    pub fn reservation(&self, verified: bool) -> Reservation {
        let unverified = (!verified).then(|| self.unverified.part());
        Reservation { permit: None, budget: self.clone(), held: 0, unverified }
    }
}

impl Reservation {
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

    /// Waits until the reservation is as large as `bytes`; what it has already stays.
    pub async fn reserve(&mut self, bytes: usize) -> Result<(), RequestRefusal> {
        let more = self.lacking(bytes);
        if more == 0 {
            return Ok(());
        }
        if let Some(part) = &mut self.unverified
            && !part.grow(more as usize).await
        {
            return Err(RequestRefusal::NoRoom);
        }
        let waited =
            tokio::time::timeout(ROOM_TIMEOUT, self.budget.units.clone().acquire_many_owned(more)).await;
        let Ok(Ok(permit)) = waited else { return Err(RequestRefusal::NoRoom) };
        self.take(more, permit);
        Ok(())
    }

    /// Counts bytes that came; how fast they come is known of those whose sender is not.
    fn received(&self, bytes: usize) {
        if let Some(part) = &self.unverified {
            part.received(bytes);
        }
    }

    /// Waits until the room must be given up: others wait for it, and the body comes too slowly.
    async fn given_up(&self) {
        match &self.unverified {
            Some(part) => part.ended().await,
            None => std::future::pending().await,
        }
    }

    /// It is known who sends.
    pub fn verified(&mut self) {
        self.unverified = None;
    }

    /// Makes the reservation as large as `bytes` if there is room at once.
    fn try_reserve(&mut self, bytes: usize) -> bool {
        let more = self.lacking(bytes);
        if more == 0 {
            return true;
        }
        let permit = self.budget.units.clone().try_acquire_many_owned(more);
        permit.map(|permit| self.take(more, permit)).is_ok()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.gauge.sub((self.held * UNIT) as i64);
    }
}

/// A coding that a body is packed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Zstd,
}

/// The type and codings that the headers say, or what is wrong with them; the codings in the order in which they
/// were applied (RFC 9110, 8.4).
pub(super) fn encoding(headers: &HeaderMap) -> Result<Vec<Coding>, RequestRefusal> {
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        let kind = kind.to_str().unwrap_or("?");
        // No parameter means anything here, `charset` neither: JSON is UTF-8 (RFC 8259, 8.1 and 11). A type that ends
        // in +json is another one (RFC 6839, 3.1): what its members mean is not what events mean.
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(RequestRefusal::ContentType(kind.to_owned()));
        }
    }
    let mut codings = Vec::new();
    for name in
        headers.get_all(header::CONTENT_ENCODING).flat_map(|value| value.to_str().unwrap_or("?").split(','))
    {
        let name = name.trim().to_ascii_lowercase();
        match &*name {
            "" | "identity" => {}
            // RFC 9110, 8.4.1.3.
            "gzip" | "x-gzip" => codings.push(Coding::Gzip),
            "zstd" => codings.push(Coding::Zstd),
            _ => return Err(RequestRefusal::ContentEncoding(name)),
        }
    }
    if codings.len() > MAX_CODINGS {
        return Err(RequestRefusal::TooManyCodings);
    }
    Ok(codings)
}

/// Reads the bytes on the wire.
pub(super) async fn read(
    headers: &HeaderMap,
    payload: Payload,
    limit: usize,
    within: Duration,
    reservation: Reservation,
) -> Result<(Bytes, Reservation), RequestRefusal> {
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(RequestRefusal::TooLarge { limit });
    }
    let read = read_all(payload, declared.unwrap_or(UNIT), limit, reservation);
    tokio::time::timeout(within, read).await.unwrap_or(Err(RequestRefusal::BodyTimeout))
}

/// Takes room as the bytes come: what a client only announces holds nobody else up.
async fn read_all(
    mut payload: Payload,
    expected: usize,
    limit: usize,
    mut reservation: Reservation,
) -> Result<(Bytes, Reservation), RequestRefusal> {
    let mut body = BytesMut::with_capacity(expected.min(FIRST_BYTES));
    loop {
        let chunk = tokio::select! {
            chunk = payload.next() => chunk,
            () = reservation.given_up() => return Err(RequestRefusal::TooSlow),
        };
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(RequestRefusal::BodyLost)?;
        if body.len() + chunk.len() > limit {
            return Err(RequestRefusal::TooLarge { limit });
        }
        reservation.received(chunk.len());
        reservation.reserve(body.len() + chunk.len()).await?;
        body.extend_from_slice(&chunk);
    }
    Ok((body.freeze(), reservation))
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
pub(super) async fn unpack(
    codings: Vec<Coding>,
    packed: Bytes,
    limit: usize,
    mut reservation: Reservation,
) -> Result<(Bytes, Reservation), RequestRefusal> {
    if codings.is_empty() {
        return Ok((packed, reservation));
    }
    // What most bodies come to is waited for; a bomb gets no further than there is room.
    reservation.reserve(packed.len() + limit.min(packed.len().saturating_mul(20))).await?;
    let turn = reservation.budget.unpacking.clone().acquire_owned().await;
    let work = move || {
        let _turn = turn;
        let (mut held, mut from) = (packed.len(), packed);
        // The last coding was applied over all others.
        for coding in codings.into_iter().rev() {
            match coding.unpack(&from, held, limit, &mut reservation) {
                Unpacked::Done(plain) => from = plain.into(),
                other => return (other, Bytes::new(), reservation),
            }
            held += from.len();
        }
        (Unpacked::Done(Vec::new()), from, reservation)
    };
    match actix_web::web::block(work).await {
        Ok((Unpacked::Done(_), plain, reservation)) => Ok((plain, reservation)),
        Ok((Unpacked::TooLarge, ..)) => Err(RequestRefusal::TooLarge { limit }),
        Ok((Unpacked::NoRoom, ..)) => Err(RequestRefusal::NoRoom),
        Ok((Unpacked::Broken(why), ..)) => Err(RequestRefusal::BrokenEncoding(why)),
        Err(_) => Err(RequestRefusal::NotUnpacked),
    }
}

impl Coding {
    /// Takes one coding off. `held` bytes are in the reservation for what was there before.
    fn unpack(self, packed: &[u8], held: usize, limit: usize, reservation: &mut Reservation) -> Unpacked {
        match self {
            Self::Gzip => inflate(flate2::read::MultiGzDecoder::new(packed), held, limit, reservation),
            Self::Zstd => match zstd::stream::read::Decoder::new(packed) {
                Ok(mut decoder) => match decoder.window_log_max(WINDOW_LOG) {
                    Ok(()) => inflate(decoder, held, limit, reservation),
                    Err(error) => Unpacked::Broken(error.to_string()),
                },
                Err(error) => Unpacked::Broken(error.to_string()),
            },
        }
    }
}

/// Reads step by step, each under the reservation. `held` bytes are in it for the packed body.
fn inflate(mut from: impl Read, held: usize, limit: usize, reservation: &mut Reservation) -> Unpacked {
    let mut plain = Vec::new();
    loop {
        let step = STEP.min(limit + 1 - plain.len());
        // A vector that grows is twice as large for a moment.
        if !reservation.try_reserve(held + 2 * (plain.len() + step)) {
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

#[cfg(test)]
mod tests;
