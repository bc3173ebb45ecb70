//! Frames with too many deliveries: the search for the events in them that end collectors.
//!
//! See `store::poison` for the search itself. This module makes its trials: one at a time in this process, with a
//! time limit, while the log is told that the frame is being worked on. An event whose decoding panics is found at once,
//! because the panic is caught; an event that ends the whole process takes several trials.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use super::Parts;
use super::commit::write_all;
use super::decode::{decode_event, yield_after};
use super::frame::{Content, PendingFrame};
use super::retry::retrying;
use crate::source::Names;
use crate::store::{LogPosition, PoisonSearch, StoreError};

/// Held during a trial: of two events that are tried at one time, it would not be known which ended the process.
static TRIAL: Mutex<()> = Mutex::const_new(());
type TrialGuard = MutexGuard<'static, ()>;
/// Time after which a trial is cancelled: a collector that ends later ended for another reason.
const TRIAL_COUNTS_FOR: Duration = Duration::from_secs(5);
/// Time limit of one trial.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Delay of a frame's next delivery after each attempt that ended the collector, so that other frames go first.
const RETRY: Duration = Duration::from_secs(2);

/// Stores a frame with too many deliveries, and sets its poison events aside.
pub(super) async fn store(parts: &Parts, pending: PendingFrame) {
    let Content::Frame(frame) = &pending.content else {
        write_all(parts, vec![pending], &[]).await;
        return;
    };
    let (events, deliveries, sequence) = (frame.len(), pending.deliveries, pending.sequence);
    let place = LogPosition { source: parts.source, log_id: pending.log_id, sequence };
    let read = async || parts.store.load_poison_search(place, events, deliveries).await;
    let Some((mut search, ended)) = retrying(parts, std::slice::from_ref(&pending), read).await else {
        return;
    };
    tracing::info!(source = %parts.source, sequence, deliveries, next = ?search.part(), attempts = search.attempts(),
        poison = ?search.poison_events(), ended, "a frame came too often; searching it for an event that ends collectors");
    if ended && search.attempts() > 0 {
        if let Err(error) = pending.receipt.retry(RETRY * search.attempts()).await {
            tracing::debug!(%error, "a frame was not given back to the log");
        }
        return;
    }
    let stored = match try_parts(parts, &pending, place, &mut search).await {
        None => false,
        Some(guard) => {
            let poison = search.poison_events().to_vec();
            let write = write_all(parts, vec![pending], &poison);
            if guard.is_some() { within_trial(parts, place, write, guard).await } else { write.await }
        }
    };
    let settle = async {
        // The search in a frame that was given back goes on with its next delivery.
        if stored { parts.store.clear_search(place).await } else { parts.store.cancel_trial(place).await }
    };
    if let Ok(Err(error)) = tokio::time::timeout(TRIAL_TIMEOUT, settle).await {
        tracing::debug!(%error, sequence, "the search in a frame that was settled was not cleared");
    }
}

/// Tries part after part. Gives the guard of the trial if the next part is the whole frame, which the caller then stores
/// as the trial; no guard once all parts were survived; `None` if the time to drain is over.
async fn try_parts(
    parts: &Parts,
    pending: &PendingFrame,
    place: LogPosition,
    search: &mut PoisonSearch,
) -> Option<Option<TrialGuard>> {
    while search.part().is_some() {
        let (found, guard) = {
            let search = &*search;
            let trial = async || {
                let guard = TRIAL.lock().await;
                let found = try_part(parts, pending, place, search).await?;
                Ok((found, guard))
            };
            retrying(parts, std::slice::from_ref(pending), trial).await?
        };
        found.into_iter().for_each(|position| search.add_poison(position));
        if search.is_whole() {
            return Some(Some(guard));
        }
        search.survived();
    }
    Some(None)
}

/// Waits for the database's part in a trial. After [`TRIAL_COUNTS_FOR`] the database is slow: the trial is cancelled, so
/// that no event is blamed if the process ends, and other frames may be tried.
async fn within_trial<T>(
    parts: &Parts,
    place: LogPosition,
    work: impl Future<Output = T>,
    guard: Option<TrialGuard>,
) -> T {
    let mut work = std::pin::pin!(work);
    match tokio::time::timeout(TRIAL_COUNTS_FOR, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            // Without an answer the trial stays: the database is away.
            let _ = tokio::time::timeout(TRIAL_COUNTS_FOR, parts.store.cancel_trial(place)).await;
            drop(guard);
            work.await
        }
    }
}

/// Makes one trial. Gives the positions of events whose decoding panics. A whole frame is only decoded here.
async fn try_part(
    parts: &Parts,
    pending: &PendingFrame,
    place: LogPosition,
    search: &PoisonSearch,
) -> Result<Vec<usize>, StoreError> {
    let (Content::Frame(frame), Some(part)) = (&pending.content, search.part()) else {
        return Ok(Vec::new());
    };
    parts.store.begin_trial(place, search, pending.deliveries).await?;
    let mut names = Names::new(parts.source, parts.store.has_no_room_for_words());
    let (mut rows, mut found, mut decoded) = (Vec::new(), Vec::new(), 0);
    for (position, event) in frame.events().enumerate().skip(part.start).take(part.len()) {
        if search.is_poison(position) {
            continue;
        }
        // Decoding only reads the event and notes names, so that a panic leaves nothing half changed. An event whose
        // type has no number yet is tried with the whole frame, which gives it one.
        match catch_unwind(AssertUnwindSafe(|| decode_event(parts.source, &event, pending, &mut names))) {
            Ok(Ok(row)) => rows.push(row),
            // A refused event is set aside when the frame is stored.
            Ok(Err(_)) => {}
            Err(_) => {
                tracing::error!(source = %parts.source, sequence = pending.sequence, position,
                    "an event makes its decoding panic; it will be set aside");
                found.push(position);
            }
        }
        yield_after(&mut decoded, event.bytes.len()).await;
    }
    if !search.is_whole() {
        let rows: Vec<_> = rows.iter().collect();
        let rehearsal = within_trial(parts, place, parts.store.rehearse(&rows), None);
        let rehearsed = match tokio::time::timeout(TRIAL_TIMEOUT, rehearsal).await {
            Ok(rehearsed) => rehearsed,
            Err(_) => Err(StoreError::unavailable(format!("a trial did not end within {TRIAL_TIMEOUT:?}"))),
        };
        if let Err(error) = rehearsed {
            let _ = tokio::time::timeout(TRIAL_COUNTS_FOR, parts.store.cancel_trial(place)).await;
            return Err(error);
        }
    }
    Ok(found)
}
