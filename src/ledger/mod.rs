//! The ledger: all events that the log ever took, reconciled with those that the store holds.
//!
//! A reconciliation reads durable state alone, in an order that makes it exact under load:
//!
//! 1. The store gives, for each writer, the frames that the log is known to have acknowledged ([`Store::known_log`]).
//! 2. The log gives the sequence numbers that it holds. An acknowledged frame is among them or was processed.
//! 3. The store gives the frames and sequence numbers that were processed ([`Store::ledger`]).
//!
//! Events *in flight* are in frames that the log holds and the store has not processed ([`in_flight`]). *Missing* events
//! are in acknowledged frames that are neither processed nor in flight ([`missing`]). A frame that the log refused or
//! never confirmed is in neither.
//!
//! On a standby of the database, which may lag behind, the number of missing events is the one that the collectors
//! found in their last reconciliation.

mod in_flight;
mod missing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::event::{BySource, Source};
use crate::log::{Log, LogError, SharedLog, Topic, TopicState, WriterMark};
use crate::ops::metrics::UNKNOWN_SOURCE;
use crate::store::ledger::{KnownLog, LedgerCut, ObservedLog};
use crate::store::{Store, StoreError};

/// Time limit of one reconciliation.
const DEADLINE: Duration = Duration::from_secs(10);
/// Maximum number of requests that wait for a reconciliation.
const MAX_WAITING: usize = 128;

/// Ledger of one source, in events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceLedger {
    /// Source; `unknown` for refused events whose source could not be read.
    #[schema(value_type = String)]
    pub source: &'static str,
    /// Events that the log ever took.
    pub published: u64,
    /// Events that became rows.
    pub stored: u64,
    /// Events whose key was stored before.
    pub duplicates: u64,
    /// Events that a collector set aside as dead letters.
    pub quarantined: u64,
    /// Events that the log holds and the store has not processed.
    pub in_flight: u64,
    /// Published events that neither the log nor the store has.
    pub missing: u64,
    /// Events that the gateway refused; not part of `published`.
    pub rejected: u64,
}

/// Reason for which there is no ledger at the moment.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The log is unavailable.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store failed.
    #[error("{0}")]
    Store(#[source] Arc<StoreError>),
    /// The reconciliation took longer than its time limit.
    #[error("no ledger within {DEADLINE:?}")]
    Late,
    /// Too many requests wait for a reconciliation.
    #[error("{MAX_WAITING} requests wait for the ledger already; try again later")]
    Busy,
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// Bytes of a source's log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogBytes {
    /// Bytes that the log holds.
    pub held: u64,
    /// Bytes that the log may hold.
    pub bound: u64,
}

/// Result of a reconciliation of one source, and the state of the log that the store should save.
#[derive(Debug, Clone, Default)]
pub struct Reconciliation {
    /// The ledger.
    pub ledger: SourceLedger,
    /// State of the log as the store knew it before.
    pub known: KnownLog,
    /// State of the log as it is now.
    pub observed: ObservedLog,
    /// Bytes of the log.
    pub log_bytes: LogBytes,
}

/// Reconciliations of one source, numbered in the order of their beginnings; the last one that ended.
#[derive(Default)]
struct Rounds {
    began: u64,
    last: Option<(u64, Reconciliation)>,
}

/// Reconciles log and store, one reconciliation at a time for each source. Requests that arrive during one share the
/// next.
pub struct Reconciler {
    log: SharedLog,
    store: Store,
    rounds: BySource<(Mutex<Rounds>, tokio::sync::Mutex<()>)>,
    waiting: Semaphore,
}

impl Reconciler {
    /// A reconciler of this log and this store.
    pub fn new(log: SharedLog, store: Store) -> Self {
        let rounds = BySource::new(|_| Default::default());
        Self { log, store, rounds, waiting: Semaphore::new(MAX_WAITING) }
    }

    /// A reconciliation that began after this call.
    ///
    /// # Errors
    ///
    /// If log or store are unavailable or do not answer in time, or too many requests wait.
    pub async fn reconcile(&self, source: Source) -> Result<Reconciliation, LedgerError> {
        let _waiting = self.waiting.try_acquire().map_err(|_| LedgerError::Busy)?;
        tokio::time::timeout(DEADLINE, self.take_turn(source)).await.map_err(|_| LedgerError::Late)?
    }

    /// Refused events whose source the gateway could not read; `None` if there are none.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn refused_without_source(&self) -> Result<Option<SourceLedger>, LedgerError> {
        let rejected = self.store.rejected().await?.get(&None).copied().unwrap_or(0).max(0).cast_unsigned();
        let ledger = SourceLedger { source: UNKNOWN_SOURCE, rejected, ..SourceLedger::default() };
        Ok((rejected > 0).then_some(ledger))
    }

    async fn take_turn(&self, source: Source) -> Result<Reconciliation, LedgerError> {
        let (rounds, turn) = self.rounds.of(source);
        let locked = || rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = locked().began;
        let _turn = turn.lock().await;
        if let Some((began, last)) = &locked().last
            && *began > asked
        {
            return Ok(last.clone());
        }
        let began = {
            let mut rounds = locked();
            rounds.began += 1;
            rounds.began
        };
        let reconciliation = reconcile(&*self.log, &self.store, source).await?;
        locked().last = Some((began, reconciliation.clone()));
        Ok(reconciliation)
    }
}

async fn reconcile(log: &dyn Log, store: &Store, source: Source) -> Result<Reconciliation, LedgerError> {
    let known = store.known_log(source).await?;
    let mut streams = Vec::new();
    for topic in log.streams(source).await? {
        streams.push((topic, log.state(topic).await?));
    }
    let logs: Vec<Uuid> = streams.iter().map(|(_, state)| state.log_id).collect();
    let remembered: HashMap<Uuid, WriterMark> = streams
        .iter()
        .flat_map(|(_, state)| state.acknowledged.iter().map(|(writer, mark)| (*writer, *mark)))
        .collect();
    let writers: Vec<Uuid> = remembered.keys().copied().collect();
    let mut cut = store.ledger_of_logs(source, &logs, &writers).await?;
    let mut in_flight = in_flight::InFlight::none();
    // By stream, the number of waiting frames, and the sequence numbers of those that left the log meanwhile.
    let mut waiting = Vec::new();
    for (topic, state) in &streams {
        let processed = cut.sequences_of(&state.log_id);
        let open = missing::waiting_sequences(state, processed);
        in_flight::size(log, *topic, &open, (&cut, processed), &mut in_flight).await?;
        waiting.push((open.count(), std::mem::take(&mut in_flight.left)));
    }
    if waiting.iter().any(|(_, left)| !left.is_empty()) {
        // Frames that left the log after the store was read were processed in between: the store is read again, and
        // what it has processed now is no longer in flight. Frames that are not all known are sized by its new events.
        let before = cut.processed();
        cut = store.ledger_of_logs(source, &logs, &writers).await?;
        in_flight.events = if in_flight.complete {
            in_flight.unprocessed(&cut)
        } else {
            in_flight.events.saturating_sub(cut.processed() - before.min(cut.processed()))
        };
    }
    for (topic, state) in &streams {
        if missing::lacks_acknowledged(state, &cut, &in_flight)
            || in_flight::reuses_sequences(log, *topic, state, &cut).await?
        {
            in_flight::add_at_reused_sequences(log, *topic, state, &cut, &mut in_flight).await?;
        }
    }
    let rejected = store.rejected().await?.get(&Some(source.code())).copied().unwrap_or(0);
    // A frame is processed before it leaves the log. So one that left, and that the store read after that has not, is lost.
    let lost = |((_, state), (waiting, left)): (&(Topic, TopicState), &(u64, Vec<u64>))| {
        let processed = cut.sequences_of(&state.log_id);
        let vanished = left.iter().filter(|sequence| !processed.contains(**sequence)).count() as u64;
        missing::lost_sequences(state, processed, waiting.saturating_sub(vanished))
    };
    let lost_sequences: u64 = streams.iter().zip(&waiting).map(lost).sum();
    let missing = match cut.copied_missing {
        Some(missing) => missing,
        None => missing::missing_events(&known, &remembered, &cut, &in_flight, lost_sequences),
    };
    let ledger = SourceLedger {
        source: source.name(),
        published: cut.processed() + in_flight.events + missing,
        stored: cut.stored,
        duplicates: cut.duplicates,
        quarantined: cut.quarantined,
        in_flight: in_flight.events,
        missing,
        rejected: rejected.max(0).cast_unsigned(),
    };
    let acked = acknowledged(&known, &cut, &in_flight);
    let logs = streams.iter().map(|(_, state)| (state.log_id, state.last)).collect();
    let observed = ObservedLog { logs, acked, missing };
    let sum = |of: fn(&TopicState) -> u64| -> u64 { streams.iter().map(|(_, state)| of(state)).sum() };
    let log_bytes = LogBytes { held: sum(|state| state.bytes), bound: sum(|state| state.max_bytes) };
    Ok(Reconciliation { ledger, known, observed, log_bytes })
}

/// Frames of each writer that the log has acknowledged, by what the frames that were read say.
fn acknowledged(
    known: &KnownLog,
    cut: &LedgerCut,
    in_flight: &in_flight::InFlight,
) -> HashMap<Uuid, WriterMark> {
    let acked = in_flight.read.iter().map(|(writer, (read, named))| {
        let mut runs = cut.runs_of(writer);
        runs.extend(read);
        (*writer, runs.extend_acked(known.acked.get(writer).copied().unwrap_or_default().max(*named)))
    });
    acked.collect()
}
