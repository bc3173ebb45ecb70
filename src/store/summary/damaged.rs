//! Corrupt summaries and deltas: each is recorded in table `damaged_summaries` and logged once.
//!
//! A corrupt row stays where it is until it is rebuilt from the rows. Reports that need it fail meanwhile, all others
//! go on, and so does folding. Where a newer program has migrated the database, what this one cannot read may be in a
//! newer format: nothing is recorded then, and this program's folding stops.

use std::fmt;

use sea_orm::FromQueryResult;

use super::delta::DecodedDelta;
use super::encoding::Encoded;
use super::span::Span;
use super::summary::Summary;
use super::table::body;
use crate::event::Source;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::health::check_not_newer;
use crate::store::sql::Sql;
use crate::store::transaction::{Snapshot, Transaction};

/// Level under which deltas are recorded.
const DELTA_LEVEL: i16 = -1;
/// Deltas that are read at a time.
const DELTAS_READ: i64 = 32;

/// SQL: number, named `number`, of corrupt summaries and deltas of source `$1` that are not rebuilt yet. A record
/// whose summary has another version, or whose delta is gone, is out of date.
pub(in crate::store) const COUNT_DAMAGED: &str =
    "SELECT count(*) AS number FROM damaged_summaries d WHERE d.source = $1 AND (
    EXISTS (SELECT 1 FROM summaries s WHERE s.source = d.source AND s.level = d.level AND s.at = d.at
        AND s.version = d.version AND NOT s.stale)
    OR d.level = -1 AND EXISTS (SELECT 1 FROM summary_deltas w WHERE w.id = d.at AND w.tag = d.version))";

/// A delta that cannot be decoded.
#[derive(Debug)]
pub struct DamagedDelta {
    id: i64,
    tag: i64,
    reason: String,
}

impl fmt::Display for DamagedDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "summary_deltas, id {}: {}", self.id, self.reason)
    }
}

#[derive(FromQueryResult)]
struct StoredDelta {
    id: i64,
    tag: i64,
    currency: i16,
    body: Vec<u8>,
}

/// Records a corrupt delta, and logs it the first time.
///
/// # Errors
///
/// [`StoreError::Schema`] if a newer program has migrated the database.
pub(super) async fn record_delta(
    tx: &Transaction,
    source: Source,
    id: i64,
    reason: &str,
) -> Result<(), StoreError> {
    check_not_newer(tx).await?;
    let insert = "INSERT INTO damaged_summaries (source, level, at, version)
        SELECT source, $1, id, tag FROM summary_deltas WHERE id = $2
        ON CONFLICT (source, level, at) DO UPDATE SET version = excluded.version
        WHERE damaged_summaries.version <> excluded.version";
    if Sql::new(insert).bind(DELTA_LEVEL).bind(id).execute(tx).await? > 0 {
        tracing::error!(table = "summary_deltas", id, %source, reason,
            "a delta is corrupt: reports of its source that need deltas fail; run `ess rollups rebuild`");
    }
    Ok(())
}

/// Records a corrupt summary, and logs it the first time. The summary gets a new version: an older decoded copy in a
/// reader's cache lacks the deltas that are folded from now on.
///
/// # Errors
///
/// [`StoreError::Schema`] if a newer program has migrated the database.
pub(super) async fn record_summary(
    tx: &Transaction,
    source: Source,
    span: Span,
    reason: &str,
) -> Result<(), StoreError> {
    check_not_newer(tx).await?;
    let version: i64 = rand::random();
    let with_key = |sql| Sql::new(sql).bind(version).bind(source.code()).bind(span.level).bind(span.at);
    let update =
        "UPDATE summaries SET version = $1 WHERE source = $2 AND level = $3 AND at = $4 AND NOT EXISTS (
        SELECT 1 FROM damaged_summaries d WHERE d.source = summaries.source AND d.level = summaries.level
            AND d.at = summaries.at AND d.version = summaries.version)";
    if with_key(update).execute(tx).await? > 0 {
        let insert = "INSERT INTO damaged_summaries (version, source, level, at) VALUES ($1, $2, $3, $4)
            ON CONFLICT (source, level, at) DO UPDATE SET version = excluded.version";
        with_key(insert).execute(tx).await?;
        tracing::error!(table = "summaries", span_level = span.level, span_at = span.at, %source, reason,
            "a summary is corrupt: reports that need it fail; run `ess rollups rebuild`");
    }
    Ok(())
}

/// Records the corrupt summaries among the children of a span.
pub(super) async fn record_children(tx: &Transaction, source: Source, span: Span) -> Result<(), StoreError> {
    for child in span.children() {
        let Some(body) = body(tx, source, child).await? else { continue };
        if let Err(StoreError::Corrupt { reason, .. }) = Summary::decode(&body) {
            record_summary(tx, source, child, &reason).await?;
        }
    }
    Ok(())
}

impl Store {
    /// Number of a source's recorded summaries and deltas that are corrupt and not rebuilt yet.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn damaged_summaries(&self, source: Source) -> Result<u64, StoreError> {
        let count = Sql::new(COUNT_DAMAGED).bind(source.code()).scalar::<i64>(self.db()).await?;
        Ok(count.unwrap_or(0).unsigned_abs())
    }

    /// Decodes all deltas of a source; returns those that are corrupt, and records them if `record`.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn find_damaged_deltas(
        &self,
        source: Source,
        record: bool,
    ) -> Result<Vec<DamagedDelta>, StoreError> {
        let tx = self.snapshot(Snapshot::Read).await?;
        let (mut last, mut damaged) = (0, Vec::new());
        loop {
            let select = "SELECT id, tag, currency, body FROM summary_deltas WHERE source = $1 AND id > $2 ORDER BY id LIMIT $3";
            let select = Sql::new(select).bind(source.code()).bind(last).bind(DELTAS_READ);
            let deltas: Vec<StoredDelta> = select.all(&tx).await?;
            let Some(newest) = deltas.last() else { break };
            last = newest.id;
            for StoredDelta { id, tag, currency, body } in deltas {
                let decoded = DecodedDelta::decode(&Encoded { currency, body });
                if let Err(StoreError::Corrupt { reason, .. }) = decoded {
                    damaged.push(DamagedDelta { id, tag, reason });
                }
            }
        }
        tx.rollback().await?;
        if record && !damaged.is_empty() {
            self.retry_conflicts(async || {
                let tx = self.snapshot(Snapshot::Write).await?;
                for delta in &damaged {
                    record_delta(&tx, source, delta.id, &delta.reason).await?;
                }
                tx.commit().await
            })
            .await?;
        }
        Ok(damaged)
    }

    /// Removes corrupt deltas once the rows of all hours were compared, and records that are out of date.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn remove_damaged_deltas<'d>(
        &self,
        source: Source,
        damaged: impl Iterator<Item = &'d DamagedDelta>,
    ) -> Result<(), StoreError> {
        for delta in damaged {
            let delete = Sql::new("DELETE FROM summary_deltas WHERE id = $1 AND tag = $2");
            delete.bind(delta.id).bind(delta.tag).execute(self.db()).await?;
            let delete =
                "DELETE FROM damaged_summaries WHERE source = $1 AND level = $2 AND at = $3 AND version = $4";
            let delete = Sql::new(delete).bind(source.code()).bind(DELTA_LEVEL);
            delete.bind(delta.id).bind(delta.tag).execute(self.db()).await?;
        }
        let delete = "DELETE FROM damaged_summaries WHERE source = $1 AND level >= 0 AND NOT EXISTS (
            SELECT 1 FROM summaries s WHERE s.source = damaged_summaries.source AND s.level = damaged_summaries.level
                AND s.at = damaged_summaries.at AND s.version = damaged_summaries.version AND NOT s.stale)";
        Sql::new(delete).bind(source.code()).execute(self.db()).await?;
        Ok(())
    }
}
