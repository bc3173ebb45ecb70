//! The last observation of a source's log: which log it was, how far it had come, and the frames that it had
//! acknowledged. Together with the next one it shows that a log was replaced or lost frames.

use std::collections::HashMap;

use uuid::Uuid;

use super::read::KNOWN_WRITERS;
use super::{column, mark, now};
use crate::event::Source;
use crate::log::WriterMark;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;
use crate::store::write::batch::big;

/// State of a source's log as of the last observation.
#[derive(Debug, Clone, Default)]
pub struct KnownLog {
    /// Identity of each of the source's logs, one for each stream, and its highest sequence number.
    pub logs: HashMap<Uuid, u64>,
    /// By writer, the last frame that the log has acknowledged together with all before it.
    pub acked: HashMap<Uuid, WriterMark>,
}

/// State of a source's log as it is now, to be saved.
#[derive(Debug, Clone, Default)]
pub struct ObservedLog {
    /// Identity of each of the source's logs, one for each stream, and its highest sequence number.
    pub logs: HashMap<Uuid, u64>,
    /// By writer, the last frame that the log has acknowledged together with all before it.
    pub acked: HashMap<Uuid, WriterMark>,
    /// Number of missing events.
    pub missing: u64,
}

impl Store {
    /// State of the log as of the last observation. A frame that counts as acknowledged here is, at any later moment,
    /// in the log, or processed, or missing.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn known_log(&self, source: Source) -> Result<KnownLog, StoreError> {
        let mut known = KnownLog::default();
        for row in Sql::new(PRESENT_LOGS).bind(source.code()).bind(LEFT).rows(self.db()).await? {
            known.logs.insert(row.try_get("", "log_id")?, column(&row, "last")?);
        }
        let sql = format!(
            "SELECT writer, acked, acked_total FROM ({KNOWN_WRITERS}) w
             UNION ALL SELECT writer, max(acked), max(acked_total) FROM ledger_claims WHERE source = $1 GROUP BY writer"
        );
        for row in Sql::new(sql).bind(source.code()).rows(self.db()).await? {
            let acked = known.acked.entry(row.try_get("", "writer")?).or_default();
            *acked = acked.max(mark(&row, "acked", "acked_total")?);
        }
        Ok(known)
    }

    /// Saves an observation of the log. `known` is the one before: only what changed is written.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn save_observation(
        &self,
        source: Source,
        known: &KnownLog,
        observed: &ObservedLog,
    ) -> Result<(), StoreError> {
        for (log_id, last) in &observed.logs {
            // The log lost its newest frames. The upsert below never lowers its highest sequence number.
            if let Some(before) = known.logs.get(log_id).filter(|before| *before > last) {
                let sql = "UPDATE ledger_logs SET last = $3 WHERE source = $1 AND log_id = $2 AND last = $4";
                let sql = Sql::new(sql).bind(source.code()).bind(*log_id).bind(big(*last)).bind(big(*before));
                sql.execute(self.db()).await?;
            }
            let sql = Sql::new(SAVE_LOG).bind(source.code()).bind(*log_id).bind(big(*last)).bind(now());
            sql.execute(self.db()).await?;
        }
        for log_id in known.logs.keys().filter(|log_id| !observed.logs.contains_key(*log_id)) {
            let sql = "UPDATE ledger_logs SET seen = $3 WHERE source = $1 AND log_id = $2 AND seen > 0";
            Sql::new(sql).bind(source.code()).bind(*log_id).bind(LEFT).execute(self.db()).await?;
        }
        for (writer, acked) in &observed.acked {
            if known.acked.get(writer).is_none_or(|known| known.number < acked.number) {
                let sql = Sql::new(SAVE_ACKED)
                    .bind(source.code())
                    .bind(*writer)
                    .bind(big(acked.number))
                    .bind(big(acked.total))
                    .bind(now());
                sql.execute(self.db()).await?;
            }
        }
        let missing = Sql::new(
            "INSERT INTO ledger_totals (source, lost_frames, lost_events, missing) VALUES ($1, 0, 0, $2)
             ON CONFLICT (source) DO UPDATE SET missing = excluded.missing
             WHERE ledger_totals.missing <> excluded.missing",
        );
        missing.bind(source.code()).bind(big(observed.missing)).execute(self.db()).await?;
        Ok(())
    }
}

/// Time of a log's last observation (`seen`) once an observation no longer found it.
const LEFT: i64 = 1;

/// Logs of the last observation: the ones that were there, and not those that left since. Before there were several
/// streams, a log that left kept its time, which lies before the others' by more than an observation takes.
const PRESENT_LOGS: &str = "SELECT log_id, last FROM ledger_logs WHERE source = $1 AND seen > $2
    AND seen >= (SELECT max(seen) FROM ledger_logs WHERE source = $1) - 60";

/// Saves a log and its highest sequence number. A log that is observed again still has the events that the store had not
/// processed when version 0.2 took over (`tail_before`): they are not lost.
const SAVE_LOG: &str =
    "INSERT INTO ledger_logs (source, log_id, last, base, holes, lost_before, tail_before, seen)
    VALUES ($1, $2, $3, 9223372036854775807, 0, 0, 0, $4)
    ON CONFLICT (source, log_id) DO UPDATE SET seen = excluded.seen, tail_before = 0,
        last = CASE WHEN excluded.last > ledger_logs.last THEN excluded.last ELSE ledger_logs.last END";

/// Saves a writer's acknowledged frames, which never become fewer. Both numbers are of one frame.
const SAVE_ACKED: &str = "INSERT INTO ledger_writers
    (source, writer, number, total, prefix, acked, acked_total, touched)
    VALUES ($1, $2, 0, 0, 0, $3, $4, $5)
    ON CONFLICT (source, writer) DO UPDATE SET acked = excluded.acked, acked_total = excluded.acked_total
    WHERE ledger_writers.acked < excluded.acked";
