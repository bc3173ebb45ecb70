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

use super::bounds::{MAX_CODINGS, ROOM_TIMEOUT, UNIT};
use super::refusal::RequestRefusal;
use super::unverified::{Part, Unverified};

/// Bytes that are allocated for a body before any of it has arrived.
const FIRST_BYTES: usize = 64 * 1_024;
/// Maximum bodies that are decoded at one time; each needs a window of up to 2^[`WINDOW_LOG`] bytes beside its budget.
const UNPACKING: usize = 16;
/// The largest window of zstd, as a power of two: 8 MiB, which RFC 8878 (3.1.1.1.2) recommends every decoder to support.
const WINDOW_LOG: u32 = 23;
/// Bytes that are decoded between two reservations.
const STEP: usize = 256 * 1_024;
/// Bytes of all requests that are held at one time.
#[derive(Clone)]
pub(super) struct Budget {
    units: Arc<Semaphore>,
    all: usize,
    /// Half of the bytes: the bound of all requests whose signature is not checked yet.
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
    /// Part of the room of unverified requests, until the signature is checked.
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

    /// A reservation for a request, empty at first. `verified` is true if no signature is still to be checked.
    pub fn reservation(&self, verified: bool) -> Reservation {
        let unverified = (!verified).then(|| self.unverified.part());
        Reservation { permit: None, budget: self.clone(), held: 0, unverified }
    }
}

impl Reservation {
    /// Units that the reservation lacks for so many bytes.
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

    /// Waits until the reservation is as large as `bytes`, at most [`ROOM_TIMEOUT`].
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

    /// Counts bytes that arrived, for the minimum speed of unverified requests.
    fn received(&self, bytes: usize) {
        if let Some(part) = &self.unverified {
            part.received(bytes);
        }
    }

    /// Waits until the request must give up its room, because others wait and its body is too slow.
    async fn given_up(&self) {
        match &self.unverified {
            Some(part) => part.given_up().await,
            None => std::future::pending().await,
        }
    }

    /// Leaves the room of unverified requests: the signature is right.
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

/// A coding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Zstd,
}

/// Checks that the Content-Type is that of JSON, and reads the codings.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Vec<Coding>, RequestRefusal> {
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        let kind = kind.to_str().unwrap_or("?");
        // Parameters are ignored, `charset` too: JSON is UTF-8 (RFC 8259, 8.1 and 11). A type that ends in +json is another
        // type (RFC 6839, 3.1), whose members have other meanings.
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(RequestRefusal::ContentType(kind.to_owned()));
        }
    }
    codings(headers)
}

/// Reads the codings in the order in which they were applied (RFC 9110, 8.4).
pub(super) fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, RequestRefusal> {
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

/// Reads the body as it is on the wire, `within` a time.
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

/// Reserves room as the bytes arrive, so that a length that is only declared takes none from others.
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

/// Result of decoding.
enum Unpacked {
    Done(Vec<u8>),
    TooLarge,
    NoRoom,
    Broken(String),
}

/// Decodes a body on a thread for blocking work. Decoded bytes are reserved as they appear, so that memory stays within
/// `limit` and within the budget.
pub(super) async fn unpack(
    codings: Vec<Coding>,
    packed: Bytes,
    limit: usize,
    mut reservation: Reservation,
) -> Result<(Bytes, Reservation), RequestRefusal> {
    if codings.is_empty() {
        return Ok((packed, reservation));
    }
    // Most bodies decode to no more than this. Beyond it there is no waiting, so that a bomb ends when the budget does.
    reservation.reserve(packed.len() + limit.min(packed.len().saturating_mul(20))).await?;
    let turn = reservation.budget.unpacking.clone().acquire_owned().await;
    let work = move || {
        let _turn = turn;
        let (mut held, mut from) = (packed.len(), packed);
        // The last coding was applied last.
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
    /// Decodes one coding. `held` bytes of the reservation are in use by earlier forms of the body.
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

/// Reads in steps, each reserved before. `held` bytes of the reservation are in use by the encoded body.
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
