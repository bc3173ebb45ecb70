//! Transactions, and their repetition until the database takes them.
//!
//! Batches become smaller, down to one event a statement, while the database ends statements that take too long
//! ([`BatchLimit`](super::BatchLimit)), and grow again when they are written. A batch of which the database refuses a row
//! is written frame by frame: progress in one frame is committed before the next is begun.

use std::time::Instant;

use futures::future;

use super::Parts;
use super::decode::decode_all;
use super::frame::PendingFrame;
use super::record::record;
use super::retry::{BACKOFF, WRITE_TIMEOUT, keep_alive, pause};
use crate::store::{StoreError, WriteProgress, Written};

/// Outcome of an attempt to write some frames in one transaction.
enum Attempt {
    Written(Written),
    /// The transaction took too long: fewer frames at a time may succeed.
    TooSlow,
    /// The database refused a row: each frame is to be written by itself.
    RowRefused,
    /// The time to drain is over.
    DrainOver,
}

/// Writes frames in as few transactions as the database takes, and acknowledges them. `poison` has positions of events
/// to be set aside, of the only frame. False if the time to drain is over: the receipts are dropped, and the log delivers
/// the frames again.
pub(super) async fn write_all(parts: &Parts, mut pending: Vec<PendingFrame>, poison: &[usize]) -> bool {
    let mut one_by_one = false;
    while !pending.is_empty() {
        let most = parts.limit.events();
        let mut events = 0;
        let fitting = pending.iter().take_while(|pending| {
            events += pending.events();
            events <= most
        });
        let frames = if one_by_one { 1 } else { fitting.count().max(1) };
        match attempt(parts, &pending, frames, poison).await {
            Attempt::Written(written) => {
                let rest = pending.split_off(frames);
                acknowledge(std::mem::replace(&mut pending, rest), &written).await;
            }
            Attempt::TooSlow => {}
            Attempt::RowRefused => one_by_one = true,
            Attempt::DrainOver => return false,
        }
    }
    true
}

/// Writes the first `frames` of the pending ones in one transaction.
async fn attempt(parts: &Parts, pending: &[PendingFrame], frames: usize, poison: &[usize]) -> Attempt {
    let started = Instant::now();
    let decoded = keep_alive(decode_all(parts, &pending[..frames], poison), pending).await;
    let Some(mut batch) = decoded else { return Attempt::DrainOver };
    batch.set_currency(parts.store.currency());
    let events: usize = batch.frames.iter().map(|frame| frame.rows.len()).sum();
    let mut progress = WriteProgress::new(parts.limit.events());
    let _storing = parts.progress.begin();
    let mut wait = BACKOFF;
    loop {
        let isolates = progress.isolates();
        let tried = keep_alive(parts.store.write_on(&batch, &mut progress), pending);
        let error = match tokio::time::timeout(WRITE_TIMEOUT, tried).await {
            Ok(Ok(written)) => {
                parts.limit.grow();
                record(parts, &batch, &written, started);
                return Attempt::Written(written);
            }
            Ok(Err(StoreError::Refused { .. })) if frames > 1 => return Attempt::RowRefused,
            Ok(Err(StoreError::Refused { .. })) if !isolates => continue,
            Ok(Err(error)) => error,
            // Progress that was committed by then is kept.
            Err(_) if isolates => StoreError::unavailable(format!("no end within {WRITE_TIMEOUT:?}")),
            Err(_) => StoreError::too_slow(format!("no end within {WRITE_TIMEOUT:?}")),
        };
        let too_slow = matches!(error, StoreError::TooSlow { .. });
        if !pause(parts, pending, &error, &mut wait).await {
            return Attempt::DrainOver;
        }
        if too_slow {
            parts.limit.shrink(events);
            if frames > 1 {
                return Attempt::TooSlow;
            }
            progress.limit_rows(parts.limit.events());
        }
    }
}

async fn acknowledge(pending: Vec<PendingFrame>, written: &Written) {
    let acks = pending.into_iter().map(|pending| async move { (pending.receipt.ack().await, pending.room) });
    for (acked, _room) in future::join_all(acks).await {
        if let Err(error) = acked {
            // The log delivers it again, and its number is known.
            tracing::warn!(%error, repeated = written.repeated_frames, "a frame was stored but not acknowledged");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::frame::tests::{Settled, frame, ids};
    use super::super::{BatchLimit, Progress};
    use super::*;
    use crate::collector::shared::Health;
    use crate::event::Source;
    use crate::ops::metrics::{CollectorMetrics, ServiceMetrics};
    use crate::ops::{Readiness, Sampler};
    use crate::runtime::{Drain, Tree};
    use crate::store::{Purpose, Store};

    async fn parts(folder: &std::path::Path, drain: &Drain) -> Parts {
        let url = format!("sqlite://{}?mode=rwc", folder.join("ess.db").display());
        let service = ServiceMetrics::new(Tree::new("collector.facebook", drain.handle()));
        Parts {
            source: Source::FACEBOOK,
            store: Store::connect(&url, Purpose::Write { transactions: 1 }).await.unwrap(),
            metrics: CollectorMetrics::new(&service),
            health: Health { readiness: Arc::new(Readiness::new("collector-facebook", &[])), part_of: None },
            drain: drain.handle(),
            lanes: 1,
            max_deliveries: 10,
            lines: Arc::new(Sampler::per_second(0)),
            progress: Progress::default(),
            limit: BatchLimit::default(),
        }
    }

    fn settled(settled: &Settled) -> Vec<&'static str> {
        settled.lock().unwrap().clone()
    }

    #[actix::test]
    async fn frames_are_acknowledged_once_after_their_commit_and_duplicates_are_counted() {
        let (folder, drain) = (tempfile::tempdir().unwrap(), Drain::default());
        let parts = parts(folder.path(), &drain).await;
        parts.store.migrate().await.unwrap();
        let (first, of_first) = frame(1, 1, &ids("a", 30));
        let (second, of_second) = frame(2, 1, &ids("a", 40));
        assert!(write_all(&parts, vec![first, second], &[]).await);
        assert_eq!((settled(&of_first), settled(&of_second)), (vec!["ack"], vec!["ack"]));
        assert_eq!(parts.metrics.processed.of(Source::FACEBOOK).get(), 40);
        assert_eq!(parts.metrics.duplicate.of(Source::FACEBOOK).get(), 30);
        assert_eq!(parts.progress.oldest(), Duration::ZERO, "no batch waits");
    }

    #[actix::test]
    async fn poison_events_become_dead_letters_and_their_neighbours_are_stored() {
        let (folder, drain) = (tempfile::tempdir().unwrap(), Drain::default());
        let parts = parts(folder.path(), &drain).await;
        parts.store.migrate().await.unwrap();
        let (frame, of_frame) = frame(1, 11, &ids("p", 10));
        assert!(write_all(&parts, vec![frame], &[3, 7]).await);
        assert_eq!(settled(&of_frame), ["ack"]);
        assert_eq!(parts.metrics.processed.of(Source::FACEBOOK).get(), 8);
    }

    #[actix::test]
    async fn frames_that_cannot_be_stored_in_the_time_to_drain_are_given_back() {
        let (folder, drain) = (tempfile::tempdir().unwrap(), Drain::default());
        // No schema: the database refuses every attempt.
        let parts = parts(folder.path(), &drain).await;
        let (frame, of_frame) = frame(1, 1, &ids("a", 3));
        drain.start(Duration::from_millis(300));
        assert!(!write_all(&parts, vec![frame], &[]).await);
        assert_eq!(settled(&of_frame), ["abandon"]);
        assert!(parts.metrics.write_retries.get() >= 1, "it was tried more than once");
        assert_eq!(parts.progress.last_error(), None, "no batch waits");
        assert_eq!(parts.progress.oldest(), Duration::ZERO);
    }
}
