//! Repetition of work until the database answers, while the log is told that it goes on.

use std::time::{Duration, Instant};

use futures::future;
use rand::Rng;

use super::frame::PendingFrame;
use super::{PROGRESS, Parts};
use crate::runtime::Phase;
use crate::store::StoreError;

/// Wait before a transaction is tried again; it doubles up to [`MAX_BACKOFF`], less up to half.
pub(super) const BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Time limit of one attempt, so that a database that does not answer does not hold frames for ever.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// Tries until it succeeds; `None` if the time to drain is over before.
pub(super) async fn retrying<T>(
    parts: &Parts,
    pending: &[PendingFrame],
    work: impl AsyncFn() -> Result<T, StoreError>,
) -> Option<T> {
    let _storing = parts.progress.begin();
    let mut wait = BACKOFF;
    loop {
        let error = match tokio::time::timeout(WRITE_TIMEOUT, keep_alive(work(), pending)).await {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(error)) => error,
            Err(_) => StoreError::unavailable(format!("no end within {WRITE_TIMEOUT:?}")),
        };
        if !pause(parts, pending, &error, &mut wait).await {
            return None;
        }
    }
}

/// Waits before the next attempt; false if the time to drain would be over by then.
pub(super) async fn pause(
    parts: &Parts,
    pending: &[PendingFrame],
    error: &StoreError,
    wait: &mut Duration,
) -> bool {
    if let Phase::Draining(deadline) = parts.drain.phase()
        && Instant::now() + *wait >= deadline
    {
        tracing::error!(%error, "frames were not stored before the time to drain was over; the log delivers them again");
        return false;
    }
    parts.metrics.write_retries.inc();
    parts.progress.failed(error);
    tracing::warn!(%error, wait_ms = wait.as_millis() as u64, "a batch was not stored; trying again");
    let jitter = rand::rng().random_range(0.5..=1.0);
    keep_alive(tokio::time::sleep(wait.mul_f64(jitter)), pending).await;
    *wait = (*wait * 2).min(MAX_BACKOFF);
    true
}

/// Runs work, and tells the log every [`PROGRESS`] that the frames are being worked on.
pub(super) async fn keep_alive<T>(work: impl Future<Output = T>, pending: &[PendingFrame]) -> T {
    let mut work = std::pin::pin!(work);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS, PROGRESS);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => {
                let told = future::join_all(pending.iter().map(|pending| pending.receipt.progress())).await;
                if let Some(Err(error)) = told.into_iter().find(Result::is_err) {
                    tracing::debug!(%error, "the log was not told that work goes on");
                }
            }
        }
    }
}
