//! Frames that came too often: the search for the events in them that end collectors.
//!
//! See `store::poison` for the search itself. Here each of its trials is made: alone in this process, with a
//! deadline of its own, and with the log told that the frame is being worked on. An event whose decoding panics is
//! found at once, for the panic is caught; events that end the whole process take several trials.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use super::batch_write::{Content, Parts, Taken, decode_event, retrying, write_all, yield_after};
use crate::store::{LogPosition, PoisonSearch, StoreError};

/// Held during a trial: of two events that are tried at one time none could be told to have ended the process.
static TRIAL: Mutex<()> = Mutex::const_new(());
type Alone = MutexGuard<'static, ()>;
/// Time after which a trial no longer counts as one: a collector that ends later ended for another reason.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time that one trial may take, for which the log is told that work goes on.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Rest of a frame after each strike of one of its events, so that other frames go first.
const REST: Duration = Duration::from_secs(2);

/// Stores a frame that came too often, and sets its poison events aside.
pub(super) async fn store(parts: &Parts, taken: Taken) {
    let Content::Frame(frame) = &taken.frame else {
        write_all(parts, vec![taken], &[]).await;
        return;
    };
    let (events, deliveries, sequence) = (frame.len(), taken.deliveries, taken.sequence);
    let place = LogPosition { source: parts.source, log_id: taken.log_id, sequence };
    let read = async || parts.store.load_poison_search(place, events, deliveries).await;
    let Some((mut search, ended)) = retrying(parts, std::slice::from_ref(&taken), read).await else { return };
    tracing::info!(source = %parts.source, sequence, deliveries, next = ?search.part(), attempts = search.attempts(),
        poison = ?search.poison_events(), ended, "a frame came too often; looking for an event that ends collectors");
    if ended && search.attempts() > 0 {
        if let Err(error) = taken.receipt.retry(REST * search.attempts()).await {
            tracing::debug!(%error, "a frame was not given back to the log");
        }
        return;
    }
    let stored = match try_parts(parts, &taken, place, &mut search).await {
        None => false,
        Some(alone) => {
            let poison = search.poison_events().to_vec();
            let write = write_all(parts, vec![taken], &poison);
            if alone.is_some() { patiently(parts, place, write, alone).await } else { write.await }
        }
    };
    let settle = async {
        // A search in a frame that was given back goes on with its next delivery.
        if stored { parts.store.clear_search(place).await } else { parts.store.cancel_trial(place).await }
    };
    if let Ok(Err(error)) = tokio::time::timeout(TRIAL_TIMEOUT, settle).await {
        tracing::debug!(%error, sequence, "the search in a frame that was settled is still there");
    }
}

/// Tries part after part until all were survived, or the next one is the whole frame, which is then to be stored in
/// earnest, alone; `None` when the time to drain is over.
async fn try_parts(
    parts: &Parts,
    taken: &Taken,
    place: LogPosition,
    search: &mut PoisonSearch,
) -> Option<Option<Alone>> {
    while search.part().is_some() {
        let (found, alone) = {
            let search = &*search;
            let trial = async || {
                let alone = TRIAL.lock().await;
                let found = try_part(parts, taken, place, search).await?;
                Ok((found, alone))
            };
            retrying(parts, std::slice::from_ref(taken), trial).await?
        };
        found.into_iter().for_each(|position| search.add_poison(position));
        if search.is_whole() {
            return Some(Some(alone));
        }
        search.survived();
    }
    Some(None)
}

/// Waits for the database's part in a trial. After [`PATIENCE`] it is the database that takes long: nobody is blamed
/// if the process ends from then on, and others may be tried.
async fn patiently<T>(
    parts: &Parts,
    place: LogPosition,
    work: impl Future<Output = T>,
    alone: Option<Alone>,
) -> T {
    let mut work = std::pin::pin!(work);
    match tokio::time::timeout(PATIENCE, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            // If the database is away, this stays undone.
            let _ = tokio::time::timeout(PATIENCE, parts.store.cancel_trial(place)).await;
            drop(alone);
            work.await
        }
    }
}

/// One trial; gives the events whose decoding panics. A whole frame is decoded only: it is stored in earnest next.
async fn try_part(
    parts: &Parts,
    taken: &Taken,
    place: LogPosition,
    search: &PoisonSearch,
) -> Result<Vec<usize>, StoreError> {
    let (Content::Frame(frame), Some(part)) = (&taken.frame, search.part()) else { return Ok(Vec::new()) };
    parts.store.begin_trial(place, search, taken.deliveries).await?;
    let (mut rows, mut found, mut decoded) = (Vec::new(), Vec::new(), 0);
    for (position, event) in frame.events().enumerate().skip(part.start).take(part.len()) {
        if search.is_poison(position) {
            continue;
        }
        // It only reads the event; nothing is left half-changed.
        match catch_unwind(AssertUnwindSafe(|| decode_event(parts.source, &event, taken))) {
            Ok(Ok(row)) => rows.push(row),
            // A refusal is no harm: it is set aside when the frame is stored.
            Ok(Err(_)) => {}
            Err(_) => {
                tracing::error!(source = %parts.source, sequence = taken.sequence, position,
                    "an event makes its decoding panic; it will be set aside");
                found.push(position);
            }
        }
        yield_after(&mut decoded, event.bytes.len()).await;
    }
    if !search.is_whole() {
        let rows: Vec<_> = rows.iter().collect();
        let rehearsal = patiently(parts, place, parts.store.rehearse(&rows), None);
        let rehearsed = match tokio::time::timeout(TRIAL_TIMEOUT, rehearsal).await {
            Ok(rehearsed) => rehearsed,
            Err(_) => Err(StoreError::unavailable(format!("a trial did not end within {TRIAL_TIMEOUT:?}"))),
        };
        if let Err(error) = rehearsed {
            let _ = tokio::time::timeout(PATIENCE, parts.store.cancel_trial(place)).await;
            return Err(error);
        }
    }
    Ok(found)
}
